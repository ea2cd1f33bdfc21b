"""Counts add up: of parts of a data set, and of processes, to the integer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import InputError

ROOT = Path(__file__).parent.parent


def counted(*batches: torch.Tensor, **options) -> fxsynops.Counts:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), fnn.NeuromorphicReLU(), nn.Linear(6, 4))
    counter = fxsynops.SynOpsCounter(model, batches[0], **({"layout": "NT"} | options))
    for x in batches:
        counter(x)
    return counter.counts


def test_counts_of_two_parts_add_up_to_the_counts_of_both():
    torch.manual_seed(1)
    parts = [torch.randint(0, 3, (n, t, 8)).float() for n, t in ((3, 5), (2, 5), (4, 7))]
    whole = counted(*parts)
    first, second = counted(parts[0]), counted(*parts[1:])
    for added in (first + second, second + first, sum([first, second])):
        assert added.to_rows() == whole.to_rows()
        assert (added.total, added.samples, added.timesteps) == (
            whole.total,
            whole.samples,
            whole.timesteps,
        )
    assert whole.total > 0
    assert whole.exact
    assert (first + second).exact


@pytest.mark.parametrize(
    "other",
    [
        lambda x: counted(x, dt=2.0),
        lambda x: counted(x, events="nonzero"),
        lambda x: _of(nn.Sequential(nn.Linear(8, 2)), x),
    ],
)
def test_counts_of_other_models_or_options_do_not_add_up(other):
    x = torch.ones(2, 3, 8)
    with pytest.raises(InputError, match="do not add up"):
        counted(x) + other(x)


def _of(model: nn.Module, x: torch.Tensor) -> fxsynops.Counts:
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    counter(x)
    return counter.counts


def test_counts_and_numbers_do_not_add_up():
    with pytest.raises(TypeError):
        counted(torch.ones(1, 1, 8)) + 1


def test_without_a_process_group():
    with pytest.raises(InputError, match=r"torchrun"):
        counted(torch.ones(1, 1, 8)).all_reduce()


def run_both(script: str, tmp_path: Path, suffix: str) -> tuple[Path, Path]:
    """What a script writes as one process, and as two on gloo."""
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command in (["-m", script, str(one)], [*torchrun, "-m", script, str(two)]):
        subprocess.run(
            [sys.executable, *command], cwd=ROOT, check=True, timeout=300, capture_output=True
        )
    return one, two


def test_two_processes_count_what_one_counts(tmp_path):
    """45 images in batches of 8, so that the last batches differ in size."""
    one, two = run_both("tests.count_digits", tmp_path, ".json")
    single, both = json.loads(one.read_text()), json.loads(two.read_text())
    assert single == both
    assert single["samples"] == 45
    assert single["total"] > 0
    assert single["metric"] == pytest.approx(single["total"], rel=1e-12)
    assert single["spread"][1] > 0


def test_two_processes_train_as_one_does(tmp_path):
    """``DistributedDataParallel`` around the counter: the same weights, but for rounding."""
    one, two = run_both("tests.train_digits", tmp_path, ".pt")
    single, both = torch.load(one), torch.load(two)
    for name, weight in single["weights"].items():
        torch.testing.assert_close(both["weights"][name], weight)
    assert both["total"] == pytest.approx(single["total"], rel=1e-3)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.full)])
def test_a_sharded_model_counts_what_it_counts_as_a_whole(ranks: int, tmp_path):
    """FSDP2, tensor parallelism, both, stages of a pipeline: all of the counts to the integer."""
    if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
        pytest.skip("this torch has no FSDP2 there")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *torchrun, "-m", "tests.count_sharded", str(tmp_path / "found.json")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, capture_output=True)
    cases = json.loads((tmp_path / "found.json").read_text())
    said = cases.pop("refused")
    assert "'0.weight' is a DTensor" in said[0]
    assert "Use torch.distributed.fsdp.fully_shard" in said[1]
    assert len(cases) == (17 if ranks == 2 else 19)
    for name, found in cases.items():
        assert found["rows"] == found["whole"], name
        assert found["total"] > 0
        assert found["apart"] < (0.05 if name == "mixed precision" else 1e-5), name


def test_data_parallel_is_refused():
    counter = fxsynops.SynOpsCounter(nn.Linear(8, 2), torch.ones(2, 8))
    with pytest.raises(InputError, match="DistributedDataParallel"):
        counter._replicate_for_data_parallel()  # as nn.DataParallel does, once per device


def test_a_process_that_dies_and_comes_back_loses_no_batch_that_it_has_counted(tmp_path):
    """It goes on from its file, and says so."""

    def run(file: str, *dies: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.count_again", str(tmp_path / file), *dies]
        return subprocess.run(command, cwd=ROOT, timeout=300, capture_output=True, text=True)

    alone = json.loads(run("alone.pt").stdout)
    assert run("died.pt", "2").returncode == 1
    assert run("died.pt", "4").returncode == 1
    *found, (told,) = json.loads(run("died.pt").stdout)
    assert [*found, []] == alone
    assert "go on from 32 samples: what was counted after it was written is lost" in told
    assert found[0] > 0
