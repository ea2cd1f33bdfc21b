"""The code of every page runs, and prints what the README says; links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import re
from typing import Any

import matplotlib as mpl
import pytest
import torch
from torch import nn

import fxsynops
from fxsynops.neurons.registry import _registered
from fxsynops.operations import operations
from fxsynops.reporting.report import render

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("fxsynops/*/README.md"))]
WIDTH = 100  # of the terminal whose output the README shows


@pytest.fixture
def registries():
    """What users register is forgotten again."""
    known, targets = dict(_registered), dict(operations.by_target)
    yield
    _registered.clear()
    _registered.update(known)
    operations.by_target.clear()
    operations.by_target.update(targets)


def blocks_of(page: pathlib.Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


def run(code: str, where: str, scope: dict[str, Any]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, where, "exec"), scope)


@pytest.mark.parametrize(
    "page",  # code of the others is for files of the package
    [page for page in PAGES if page.parent.name not in ("operations", "neurons")],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_code_of_a_page_runs(page, registries):
    mpl.use("Agg")
    scope: dict[str, Any] = {"__name__": "readme"}
    for i, block in enumerate(blocks_of(page)):
        run(block, f"{page.parent.name}, block {i}", scope)
    if page == README:
        assert scope["Resonator"] in _registered


def test_the_readme_shows_what_its_example_prints():
    scope: dict[str, Any] = {}
    run(blocks_of(README)[0], "README", scope)
    shown = re.search(r"```text\n(.*?)```", README.read_text(), re.S)
    assert render(scope["counter"].counts, WIDTH) == shown.group(1).strip("\n")


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 300


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"(?m)^#+ (.*)$", file.read_text())
            plain = (re.sub(r"[^\w -]", "", title).strip().lower() for title in titles)
            assert anchor in {title.replace(" ", "-") for title in plain}, target


def test_what_users_register_is_counted(registries):
    class Odd(nn.Module):
        def forward(self, current, state=None):
            state = current if state is None else 0.9 * state.roll(1, -1) + current
            return torch.special.expit((state - 0.1) * 1e4).round() * 0.5, state

    class Interleave(nn.Module):
        def forward(self, a, b):
            return torch.special.round(torch.stack((a, b), -1).flatten(-2))

    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 10))

        def forward(self, x):
            return torch.addmm(torch.zeros(10), x, self.weight)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.odd = nn.Linear(8, 8), Odd()
            self.interleave, self.sparse = Interleave(), Sparse()

        def forward(self, x):
            spikes, _ = self.odd(self.fc(x))
            return self.sparse(self.interleave(spikes, spikes.flip(-1)))

    model, x = Model(), torch.ones(4, 8)
    fxsynops.register_spiking(Odd, max_spikes=1, amplitude=0.5)
    fxsynops.register_routing(Interleave, lambda a, b: torch.stack((a, b), -1).flatten(-2))
    fxsynops.register_synapse(Sparse, lambda x: x.mm(torch.ones(16, 10, dtype=x.dtype)))
    counter = fxsynops.SynOpsCounter(model, x)
    assert torch.equal(counter(x), model(x))
    spikes = int((model.odd(model.fc(x))[0] != 0).sum())
    assert spikes > 0
    assert int(counter.per_synapse["sparse"].detach()) == spikes * 2 * 10
    assert counter.counts.rows[1].events == spikes
    assert counter.analysis.upper_bound().rows[1].structural == 8 * 2 * 10


def test_the_notebook_ends_with_a_smaller_number():
    notebook = json.loads((ROOT / "benchmarks" / "first_hour.ipynb").read_text())
    scope: dict[str, Any] = {}
    with torch.random.fork_rng():
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] or cell is notebook["cells"][1]  # as it was executed
                run("".join(cell["source"]), "the notebook", scope)
    before, after = scope["before"], scope["after"]
    assert before.samples == after.samples == 450
    assert after.total < 0.7 * before.total
    assert scope["accuracy_after"] > scope["accuracy_before"] - 0.05 > 0.7
