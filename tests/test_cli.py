"""The command line, on a model that a user wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nir
import numpy as np
import pytest

import fxsynops
from fxsynops import cli
from tests.oracles import near

NETS = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from fxsynops.nn import IAF, NeuromorphicReLU

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), IAF(), nn.Linear(32, 10))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.relu, self.out = nn.Linear(4, 8), NeuromorphicReLU(), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.relu(self.fc(x)))

net = Net()
batches = [(torch.ones(4, 5, 16), torch.zeros(4)), (torch.ones(1, 5, 16), torch.zeros(1))]

def loader():
    return DataLoader(TensorDataset(torch.ones(6, 5, 16), torch.zeros(6)), batch_size=4)

def broken():
    raise RuntimeError("no weights here")

def number():
    return 3
"""
SPIKES = ["--input", "2x5x16", "--layout", "NT"]


@pytest.fixture(autouse=True)
def _nets(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    def call(*argv: str) -> tuple[int, str, str]:
        status = cli.main(argv)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.parametrize("model", ["nets.py:make", "nets.py:Net", "nets.py:net"])
def test_a_factory_a_class_and_an_instance_are_models(run, model):
    shape = SPIKES if model.endswith("make") else ["--input", "2x4"]
    status, out, _ = run("fanout", model, *shape)
    assert status == 0
    assert "Fan-out of" in out
    assert "\x1b" not in out  # no colors in a pipe


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown", "latex", "html"])
@pytest.mark.parametrize(
    "command",
    [
        ["fanout", "nets.py:make", *SPIKES],
        ["bound", "nets.py:make", *SPIKES],
        ["check", "nets.py:make", *SPIKES, "--max-synops", "1e9"],
        ["count", "nets.py:make", *SPIKES, "--random-spikes", "0.3"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_prints_and_writes_every_form(run, tmp_path, command, form):
    status, out, _ = run(*command, "--format", form)
    assert status == 0
    path = tmp_path / "out.txt"
    assert run(*command, "--format", form, "--output", str(path))[0] == 0
    said = "within the budget\n" if command[0] == "check" and form == "table" else ""
    assert path.read_text().rstrip() == out.removesuffix(said).rstrip()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".out")] == []


def test_data_are_counted(run):
    for name, samples in (("batches", 5), ("loader", 6)):
        status, out, err = run(
            "count", "nets.py:make", *SPIKES, "--data", f"nets.py:{name}", "--format", "json"
        )
        content = json.loads(out)
        assert status == 0
        assert content["samples"] == samples
        assert content["rows"][0]["SynOps"] == samples * 5 * 16 * 32
        assert err == ""  # no progress bar in a pipe


def test_energy_is_estimated_on_devices_of_ones_own_too(run, tmp_path):
    (tmp_path / "chips.toml").write_text('["our chip"]\nper_synop = 1e-12\n')
    command = ["count", "nets.py:make", *SPIKES, "--random-spikes", "1", "--format", "json"]
    synops = json.loads(run(*command)[1])["total"] / 2
    status, out, _ = run(*command, "--energy", "--devices", "chips.toml")
    rows = {row["Device"]: row for row in json.loads(out)["rows"]}
    assert status == 0
    assert rows["our chip"]["SynOps (J)"] == near(synops * 1e-12)
    assert rows["Loihi"]["SynOps (J)"] == near(synops * 27.1e-12)
    assert run("bound", "nets.py:make", *SPIKES, "--energy")[0] == 0


def test_steps_are_kept_apart_on_demand(run):
    command = ["count", "nets.py:make", *SPIKES, "--random-spikes", "0.3", "--format", "json"]
    status, out, _ = run(*command, "--steps")
    content = json.loads(out)
    steps = content["steps"]
    assert status == 0
    assert len(steps["mean"]) == content["timesteps"]
    assert sum(steps["mean"]) == pytest.approx(content["total"] / content["samples"])
    assert content["totals"]["Peak SynOps/s"] == max(steps["max"]) * 1000
    assert json.loads(run(*command)[1])["steps"] is None


def test_what_is_spiking_and_what_is_carried_over_can_be_said(run, tmp_path):
    (tmp_path / "more.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Keeps(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc, self.relu, self.mem = nn.Linear(4, 4), nn.ReLU(), torch.zeros(2, 4)\n"
        "        self.out = nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        "        self.mem = self.mem + self.fc(x)\n"
        "        return self.out(self.relu(self.mem))\n"
        "def meta():\n"
        "    with torch.device('meta'):\n"
        "        return nn.Sequential(nn.Linear(4, 3))\n"
    )
    command = ["count", "more.py:Keeps", "--input", "2x4", "--random-spikes", "1"]
    status, _, err = run(*command)
    assert status == 2
    assert "--keep-states" in err
    status, out, _ = run(*command, "--keep-states", "--spiking", "torch.nn:ReLU")
    assert status == 0
    assert "relu" in out
    assert run("bound", "more.py:meta", "--input", "2x4")[0] == 0
    status, _, err = run("count", "more.py:meta", "--input", "2x4", "--random-spikes", "1")
    assert status == 2
    assert "meta device" in err


def test_saved_reports_are_compared(run, tmp_path):
    for name, rate in (("a.json", "1.0"), ("b.json", "0.0")):
        command = ["count", "nets.py:make", *SPIKES, "--random-spikes", rate, "--format", "json"]
        run(*command, "--output", name)
    status, out, _ = run("compare", "a.json", "b.json")
    assert status == 0
    assert "-100.0%" in out
    assert fxsynops.load("a.json").totals["SynOps"] > 0


def test_a_file_in_nir_is_a_model(run, tmp_path):
    ones = np.ones(3, dtype=np.float32)
    graph = nir.NIRGraph.from_list(
        nir.Linear(np.ones((3, 2), dtype=np.float32)),
        nir.LIF(tau=ones, r=ones, v_leak=0 * ones, v_threshold=ones),
        nir.Linear(np.ones((5, 3), dtype=np.float32)),
    )
    nir.write(tmp_path / "net.nir", graph)
    status, out, _ = run("fanout", "net.nir", "--format", "json")
    assert status == 0
    rows = json.loads(out)["rows"]
    assert [(row["Source"], row["Synapses"]) for row in rows] == [("input", 6), ("lif", 15)]
    shape = ["--input", "4x7x2", "--random-spikes", "1", "--format", "json"]
    assert json.loads(run("count", "net.nir", *shape)[1])["rows"][0]["SynOps"] == 4 * 7 * 2 * 3
    (tmp_path / "net.nir").write_bytes((tmp_path / "net.nir").read_bytes()[:200])
    status, out, err = run("fanout", "net.nir")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "net.nir" in err


def test_a_broken_budget_is_exit_status_1(run, tmp_path):
    (tmp_path / "budget.toml").write_text("max_synops = 10\n")
    status, out, err = run(
        "check", "nets.py:make", *SPIKES, "--budget", "budget.toml", "--format", "csv"
    )
    assert status == 1
    assert out.startswith("Source,")
    assert "over budget" in err


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["fanout", "nets.py:nope", *SPIKES], "has no 'nope'. It has make"),
        (["fanout", "nets.py:broken", *SPIKES], "raised RuntimeError: no weights here"),
        (["fanout", "nets.py:number", *SPIKES], "returned a int, not an nn.Module"),
        (["fanout", "nowhere.py:make", *SPIKES], "no file"),
        (["fanout", "no.such.module:make", *SPIKES], "No module named"),
        (["fanout", "nets", *SPIKES], "names nothing"),
        (["fanout", "nets.py:make"], "say what the model takes"),
        (["fanout", "nets.py:make", "--input", "2xx5"], "'2xx5' is no shape"),
        (["fanout", "nets.py:make", "--input", "2x5x17", "--layout", "NT"], "2x5x17|10x17"),
        (
            ["bound", "nets.py:net", "--input", "2x4", "--analog", "--input-range", "1"],
            "two numbers",
        ),
        (["check", "nets.py:make", *SPIKES, "--budget", "none.toml"], "cannot be read"),
        (["check", "nets.py:make", *SPIKES, "--budget", "typo.toml"], r"\['max_synop'\]"),
        (["count", "nets.py:make", *SPIKES, "--random-spikes", "3"], "no probability"),
        (["count", "nets.py:make", *SPIKES, "--data", "nets.py:number"], "no batches"),
        (["compare", "nets.py", "nets.py"], "is no JSON"),
        (["bound", "nets.py:make", *SPIKES, "--devices", "chips.toml"], "give both"),
        (["bound", "nets.py:make", *SPIKES, "--energy", "--devices", "x.toml"], "cannot be read"),
        (["compare", "none.json", "none.json"], "cannot be read"),
        (["fanout", "nets.py:make", *SPIKES, "--output", "none/out.txt"], "cannot be written"),
        (["fanout", "nets.py:make", *SPIKES, "--output", "."], "is a folder"),
    ],
)
def test_errors_are_one_paragraph_and_exit_status_2(run, tmp_path, argv, match):
    import re

    (tmp_path / "typo.toml").write_text("max_synop = 10\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    status, out, err = run(*argv)
    assert status == 2
    assert out == ""
    assert err.startswith("fxsynops: ")
    assert re.search(match, err)
    assert err.count("\n") == 1
    assert [n for n in sorted(p.name for p in tmp_path.iterdir()) if n != "__pycache__"] == before


def test_debug_shows_the_traceback():
    with pytest.raises(fxsynops.InputError):
        cli.main(["fanout", "nets.py:nope", *SPIKES, "--debug"])


@pytest.mark.parametrize("command", ["fanout", "bound", "check", "count", "compare"])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"fxsynops {command} " in capsys.readouterr().out.partition("example")[2]


def test_the_module_is_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "fxsynops", "fanout", "nets.py:make", *SPIKES],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert run.returncode == 0
    assert "Fan-out of Sequential" in run.stdout


# -- what it costs --------------------------------------------------------------------------------

COUNT = ["count", "nets.py:make", *SPIKES, "--random-spikes", "0.5"]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--energy", "--device", "Loihi", "--by-layer"], "energy by layer"),
        (["--energy", "--device", "Loihi"], "energy"),
        (["--memory", "--bits", "8"], "memory"),
        (["--conventional"], "conventional"),
        (["--summary"], "summary"),
        (["--latency", "loihi"], "latency"),
        (["--advice"], "advice"),
    ],
)
def test_what_counts_cost_is_one_option(run, options, kind):
    status, out, _ = run(*COUNT, *options, "--format", "json")
    content = json.loads(out)
    assert (status, content["kind"]) == (0, kind)
    assert content["rows"]
    assert run(*COUNT, *options)[1].strip()


def test_bounds_have_memory_traffic_too(run):
    bound = ["bound", "nets.py:make", *SPIKES, "--max-spikes", "1", "--memory", "--format", "json"]
    status, out, _ = run(*bound)
    rows = json.loads(out)["rows"]
    assert status == 0
    assert rows[0]["Weights read"] == 5 * 16 * 32
    assert rows[0]["Outputs written"] <= 5 * 32


def test_a_chip_that_is_too_small_is_exit_status_one(run, tmp_path):
    fit = ["fit", "nets.py:make", *SPIKES]
    status, out, _ = run(*fit, "--chip", "loihi")
    assert (status, "Sequential fits Loihi" in out) == (0, True)
    (tmp_path / "chips.toml").write_text('[tiny]\nsame_as = "loihi"\ncores = 1\n')
    status, out, _ = run(*fit, "--chip", "tiny", "--chips", "chips.toml")
    assert (status, "cores 2, at most 1" in out) == (1, True)
    status, _, said = run(*fit, "--chip", "lohi")
    assert status == 2
    assert "Do you mean 'loihi'?" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--by-layer"], "--by-layer is for --energy"),
        (["--device", "Loihi"], "--device is for --energy"),
        (["--energy", "--memory"], "two tables"),
        (["--summary", "--memory"], "--memory and --summary are two tables"),
        (["--conventional", "--latency", "loihi"], "two tables"),
        (["--bits", "8"], "--bits is for --memory"),
        (["--energy", "--device", "Lohi"], "Do you mean 'Loihi'"),
    ],
)
def test_options_that_do_not_go_together(run, options, says):
    status, _, said = run(*COUNT, *options)
    assert status == 2
    assert says in said


def test_help_and_the_bare_import_leave_torch_alone():
    """Half a second, and not three: arguments are read before torch is imported."""
    without = "import sys; sys.modules['torch'] = None; "  # to import it is an error
    help = "from fxsynops import cli; cli.main(['count', '--help'])"
    for code in ("import fxsynops; fxsynops.__version__", help):
        command = [sys.executable, "-c", without + code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_first_count_takes_in_no_compiler_and_draws_no_random_numbers():
    code = """
import random, sys, torch, fxsynops
before = random.getstate()
counter = fxsynops.SynOpsCounter(torch.nn.Linear(4, 3), torch.ones(2, 4))
counter(torch.ones(2, 4))
print(counter.counts)
assert random.getstate() == before
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_the_package_are_those_it_lists():
    assert set(fxsynops.__all__) <= set(dir(fxsynops))
    assert all(getattr(fxsynops, name) is not None for name in fxsynops.__all__)
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        fxsynops.analyse  # noqa: B018


FILES = {
    "width.py": "WIDTH = 7\n",
    "neighbours.py": """
import torch
from torch import nn
from torch.utils.data import DataLoader
from fxsynops.nn import IAF
import width

print("I am imported")

def make():
    print("I am made")
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 8), IAF(), nn.Dropout(0.5), nn.Linear(8, width.WIDTH))

def leave():
    raise SystemExit(3)

class Spikes(torch.utils.data.Dataset):
    def __len__(self): return 6
    def __getitem__(self, i): return torch.ones(5, 16), 0

def workers():
    return DataLoader(Spikes(), 3, num_workers=1, multiprocessing_context="spawn")

dicts = [{"x": torch.ones(2, 5, 16), "label": 1}]
grey = [torch.full((2, 5, 16), 0.3)]

def pick(batch):
    return batch["x"]

def stopped():
    yield torch.ones(2, 5, 16)
    raise KeyboardInterrupt
""",
}
INPUT = ["--input", "2x5x16", "--layout", "NT"]


@pytest.fixture
def files(tmp_path):
    """Model files as people have them: some beside each other, some in a package."""
    (tmp_path / "package").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        relative = text.replace("import width", "from . import width")
        (tmp_path / "package" / name).write_text(relative)
    (tmp_path / "package" / "__init__.py").touch()
    return tmp_path


def command(*argv: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fxsynops", *argv],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("file", ["neighbours.py", "package/neighbours.py"])
def test_a_model_file_imports_what_lies_beside_it_and_prints_what_it_likes(files, file):
    argv = ["fanout", f"{files / file}:make", *INPUT, "--format", "json"]
    done = command(*argv, cwd="/")
    assert json.loads(done.stdout)["totals"]["Synapses"] == 16 * 8 + 8 * 7
    assert "I am imported\nI am made" in done.stderr


def test_data_of_workers_of_their_own_come_from_the_models_file(files):
    argv = ["count", "neighbours.py:make", *INPUT, "--data", "neighbours.py:workers"]
    done = command(*argv, "--format", "json", cwd=files)
    assert json.loads(done.stdout)["samples"] == 6, done.stderr


def test_a_file_that_is_named_like_a_module_is_itself(files):
    (files / "rich.py").write_text((files / "neighbours.py").read_text())
    done = command("fanout", f"{files / 'rich.py'}:make", *INPUT, cwd="/")
    assert "184" in done.stdout, done.stderr


def test_a_model_that_exits_is_an_error(files):
    done = command("fanout", "neighbours.py:leave", *INPUT, cwd=files)
    assert done.returncode == 2
    assert "raised SystemExit: 3" in done.stderr


def test_the_input_is_picked_out_of_a_batch(files):
    argv = ["count", "neighbours.py:make", *INPUT, "--data", "neighbours.py:dicts"]
    done = command(*argv, "--inputs", "neighbours.py:pick", "--format", "json", cwd=files)
    assert json.loads(done.stdout)["rows"][0]["SynOps"] == 2 * 5 * 16 * 8, done.stderr


def test_data_must_be_events_as_the_example_is_and_messages_name_options_as_typed(files):
    argv = ["count", "neighbours.py:make", *INPUT, "--data", "neighbours.py:grey"]
    done = command(*argv, cwd=files)
    assert done.returncode == 2
    assert "fractional values" in done.stderr
    assert "pass --analog" in done.stderr
    assert command(*argv, "--analog", cwd=files).returncode == 0


def test_an_interrupt_leaves_what_was_counted_and_status_130(files):
    argv = ["count", "neighbours.py:make", *INPUT, "--data", "neighbours.py:stopped"]
    done = command(*argv, "--format", "json", cwd=files)
    assert done.returncode == 130
    assert json.loads(done.stdout)["samples"] == 2


@pytest.mark.parametrize(
    ("name", "begins"),
    [("a.json", "{"), ("a.csv", "Source"), ("a.md", "**"), ("a.tex", r"\begin"), ("a.html", "<!D")],
)
def test_the_form_is_that_of_the_file(run, tmp_path, name, begins):
    status, _, errors = run("fanout", "nets.py:make", *SPIKES, "--output", name)
    assert (status, errors) == (0, "")
    assert (tmp_path / name).read_text().startswith(begins)
    run("fanout", "nets.py:make", *SPIKES, "--output", name, "--format", "json")
    assert (tmp_path / name).read_text().startswith("{")


def test_a_file_keeps_its_mode_and_a_pipe_is_written_to(run, tmp_path):
    file = tmp_path / "a.txt"
    file.touch(mode=0o640)
    run("fanout", "nets.py:make", *SPIKES, "--output", str(file))
    assert file.stat().st_mode & 0o777 == 0o640
    done = command("fanout", "nets.py:make", *SPIKES, "--output", "/dev/stdout", cwd=tmp_path)
    assert "Fan-out of Sequential" in done.stdout


def test_what_cannot_be_encoded_is_no_error(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = command("fanout", "nets.py:make", *SPIKES, cwd=tmp_path, env=environment)
    assert done.returncode == 0
    assert "Fan-out of Sequential" in done.stdout


def test_models_are_in_eval_mode_unless_told(files):
    for mode, says in (([], "In eval mode"), (["--train"], "In training mode")):
        done = command("bound", "neighbours.py:make", *INPUT, *mode, cwd=files)
        assert says in done.stdout
    argv = ["count", "neighbours.py:make", *INPUT, "--random-spikes", "0.5", "--format", "json"]
    counts = json.loads(command(*argv, cwd=files).stdout)
    argv = ["bound", "neighbours.py:make", *INPUT, "--format", "json"]
    bound = json.loads(command(*argv, cwd=files).stdout)
    assert [r["Source"] for r in counts["rows"]] == [r["Source"] for r in bound["rows"]]


def test_pictures(run, tmp_path):
    for argv in (["draw"], ["draw", "--random-spikes", "0.3"], ["plot", "--random-spikes", "0.3"]):
        name = "a.svg" if argv[0] == "draw" else "a.png"
        status, _, errors = run(argv[0], "nets.py:make", *SPIKES, *argv[1:], "--output", name)
        assert (status, errors) == (0, "")
        assert (tmp_path / name).stat().st_size > 1000


def test_a_budget_may_begin_with_a_byte_order_mark(run, tmp_path):
    (tmp_path / "budget.toml").write_text("max_synops = 1e9\n", encoding="utf-8-sig")
    status, out, _ = run("check", "nets.py:make", *SPIKES, "--budget", "budget.toml")
    assert status == 0, out
