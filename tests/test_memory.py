"""Memory traffic: against an event-driven simulation that counts every access, and by hand."""

from __future__ import annotations

import json
import math

import pytest
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import layer, neuron
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.energy import MemoryModel, joules, sram
from fxsynops.errors import InputError
from tests.event_driven import COUNTS, Conv2d, Linear, Neuron, simulate
from tests.event_driven_cases import CASES, Case, is_neuron
from tests.oracles import near

ACCESSES = COUNTS[:6]


# -- the simulation itself ------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_simulation_fires_as_pytorch_does(name):
    case = CASES[name]()
    ours, theirs = case.simulated_spikes(), case.torch_spikes()
    for neurons, spikes in theirs.items():
        assert ours[neurons] == spikes, neurons
    assert set(theirs) <= set(ours)
    if not is_neuron(case.model[-1]):  # read out: potentials are running sums of the outputs
        (last,) = set(ours) - set(theirs)
        assert ours[last] == case.forward().cumsum(0).flatten(1).tolist()
    assert sum(sum(map(sum, spikes)) for spikes in theirs.values()) > 0


def test_the_simulation_counts_what_can_be_counted_by_hand():
    """One event at the corner and one in the middle of a 3×3 image, kernel 3, padding 1."""
    kernel = [[[[1.0] * 3] * 3]]
    x = [[[[1, 0, 0], [0, 1, 0], [0, 0, 0]]]]
    (row,) = simulate([Conv2d(kernel, padding=(1, 1)), Neuron(threshold=2.0)], x)
    assert [row[name] for name in COUNTS] == [2, 13, 0, 13 + 9, 13 + 9, 4, 13 + 4, 0]
    assert (row["addressing"]["additions"], row["addressing"]["multiplies"]) == (18, 4)
    (row,) = simulate([Linear([[1.0, 1.0]], [0.0]), Neuron(leak=0.5)], [[2, 0], [0, 0]])
    assert [row[name] for name in COUNTS] == [2, 2, 2, 4, 4, 1, 2 + 2 + 1, 2]


# -- counts, held against it ----------------------------------------------------------------------


def counted(case: Case) -> tuple[fxsynops.SynOpsCounter, fxsynops.Counts]:
    """The case's model, counted on the case's input."""
    case.reset()
    case.model.eval()
    if case.layout == "step":
        counter = fxsynops.SynOpsCounter(case.model, case.x[:1], layout="step", input_events=True)
        case.reset()
        for frame in case.x:
            counter(frame[None])
        counter.end_of_sample()
        return counter, counter.counts
    x = case.x[:, None] if case.layout == "multi" else case.x
    options = {"layout": "TN"} if case.layout == "multi" else {"layout": "(NT)", "batch_size": 1}
    counter = fxsynops.SynOpsCounter(case.model, x, input_events=True, **options)
    case.reset()
    counter(x)
    return counter, counter.counts


def by_layer(memory: fxsynops.energy.Memory) -> dict[str, dict[str, float]]:
    """The rows of each layer, added up, by the simulation's names."""
    found: dict[str, dict[str, float]] = {}
    for row in memory.rows:
        traffic = row.traffic
        values = {
            "Inputs read": traffic.inputs,
            "Weights read": traffic.weights,
            "Biases read": traffic.biases,
            "Potentials read": traffic.potentials_read,
            "Potentials written": traffic.potentials_written,
            "Outputs written": traffic.outputs,
            "accumulates": traffic.additions,
            "multiplies": traffic.multiplies,
            "address additions": traffic.address_additions,
            "address multiplies": traffic.address_multiplies,
        }
        layer = found.setdefault(row.layer, dict.fromkeys(values, 0))
        for name, value in values.items():
            layer[name] += value
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_access_is_one_of_the_simulation(name):
    case = CASES[name]()
    expected = {}
    for row in case.counts():
        addressing = row["addressing"]
        expected[row["name"]] = {count: row[count] for count in COUNTS} | {
            "address additions": addressing["additions"],
            "address multiplies": addressing["multiplies"],
        }
    found = by_layer(counted(case)[1].memory())
    if "PlainNeuron" in {type(module).__name__ for module in case.model}:
        for rows in (expected, found):  # whether neurons that are written out leak is not known
            for row in rows.values():
                row.pop("multiplies")
    assert found == expected


OF_LIBRARIES = ("linear_lif", "conv_padding", "conv_groups", "sum_pooling", "residual_downsample")


@pytest.mark.parametrize("name", OF_LIBRARIES)
def test_a_bound_is_never_below_what_the_simulation_reads_and_writes(name):
    case = CASES[name]()
    counter, _ = counted(case)
    case.reset()
    steps = len(case.x) if case.layout == "step" else None
    bound = by_layer(counter.analysis.upper_bound(steps).memory())
    for row in case.counts():
        for access in ACCESSES:
            assert row[access] <= bound[row["name"]][access] * (1 + 1e-9), (row["name"], access)
            assert bound[row["name"]][access] < math.inf


def test_an_estimate_reads_what_its_rate_says():
    model = nn.Sequential(nn.Linear(6, 4), fnn.IAF(), nn.Linear(4, 3, bias=False), fnn.IAF())
    analysis = fxsynops.analyze(model, torch.ones(1, 10, 6), layout="NT")
    first, last = analysis.upper_bound(rate=0.5).memory().to_rows()
    assert [first[name] for name in ACCESSES] == [30, 120, 40, 160, 160, 20]
    assert [last[name] for name in ACCESSES] == [20, 60, 0, 90, 90, 15]


# -- what lies between layers ---------------------------------------------------------------------


def memory_rows(model: nn.Module, x: torch.Tensor, **options) -> dict[str, list[float]]:
    counter = fxsynops.SynOpsCounter(model, x, **{"layout": "NT"} | options)
    counter(x)
    memory = counter.counts.memory()
    return {f"{row['Layer']} {row['Source']}".strip(): row for row in memory.to_rows()}


def accesses(row: dict[str, float]) -> list[float]:
    return [row[name] for name in ACCESSES]


def test_a_batch_norm_is_a_bias_and_an_image_a_mac_reads_an_input_and_a_weight():
    conv = nn.Conv2d(2, 3, 3, bias=False)
    model = nn.Sequential(conv, nn.BatchNorm2d(3), fnn.IAFSqueeze(batch_size=1)).eval()
    x = torch.rand(4, 2, 6, 6)
    rows = memory_rows(model, x, layout="(NT)", batch_size=1, input_events=False)
    with torch.no_grad():
        current = model[1](conv(x))
    spikes = float(fnn.IAFSqueeze(batch_size=1)(current).sum())
    macs, potentials = 4 * (4 * 4 * 3 * 2 * 9), 4 * 48
    assert accesses(rows["0"]) == [macs, macs, potentials, potentials, potentials, spikes]


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2)])
@pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm2d(3).eval()])
def test_biases_are_read_by_the_neurons_behind_a_pool(pool, norm):
    convolution = nn.Conv2d(1, 3, 3, padding=1, bias=isinstance(norm, nn.Identity))
    model = nn.Sequential(convolution, pool, norm, fnn.IAFSqueeze(batch_size=2))
    x = (torch.rand(4, 1, 8, 8) < 0.3).float()
    counter = fxsynops.SynOpsCounter(model, x, layout="(NT)", batch_size=2)
    counter(x)
    (row,) = counter.counts.memory().to_rows()
    assert row["Biases read"] == 2 * 3 * 4 * 4


def test_a_parameter_that_is_added_is_a_bias():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.rand(6, 3)), nn.Parameter(torch.rand(3))
            self.fire = fnn.IAF()

        def forward(self, x):
            return self.fire(x @ self.weight + self.bias)

    (row,) = memory_rows(Net(), torch.ones(2, 5, 6)).values()
    assert row["Biases read"] == 5 * 3


CONSTANT = torch.tensor([0.5, 0.2, 0.1])


@pytest.mark.parametrize(
    ("forward", "read"),
    [
        (lambda m, x, shift: m.fire(m.a(x) + m.shift), 5 * 3),
        (lambda m, x, shift: m.fire(m.a(x).view(-1, 5, 3, 1).squeeze(-1) + m.shift), 5 * 3),
        (lambda m, x, shift: m.fire(m.a(x) + shift) + m.shift, 0),  # an input of the same name
        (lambda m, x, shift: m.fire(m.a(x)) + m.shift, 0),
        (lambda m, x, shift: m.fire(m.a(x) + torch.tensor([0.5, 0.2, 0.1])), 0),
        (lambda m, x, shift: m.fire(m.a(x) + CONSTANT), 0),
        (lambda m, x, shift: m.fire(torch.special.bessel_j0(m.a(x)) + m.shift), 0),
    ],
)
def test_a_bias_is_a_parameter_that_is_added_with_nothing_in_between(forward, read):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.fire = nn.Linear(6, 3, bias=False), fnn.IAF()
            self.shift = nn.Parameter(torch.ones(3))

        def forward(self, x, shift):
            return forward(self, x, shift)

    counter = fxsynops.SynOpsCounter(Net(), inputs := (torch.ones(2, 5, 6), torch.rand(2, 5, 3)))
    counter(*inputs)
    (row,) = counter.counts.memory().to_rows()
    assert row["Biases read"] == read


def test_a_layer_of_one_output_has_one_bias():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(()))

        def forward(self, x):
            return torch.dot(x, self.weight) + self.bias

    counter = fxsynops.SynOpsCounter(Net(), torch.ones(6), layout="")
    counter(torch.ones(6))
    (row,) = counter.counts.memory().rows
    assert (row.traffic.weights, row.traffic.biases) == (6, 1)
    assert row.words["weights"] == row.words["biases"] == 6 + 1


def test_a_cell_of_gates_reads_their_biases():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = snntorch.SLSTM(6, 8)

        def forward(self, x):
            synaptic, membrane = self.cell.init_slstm()
            found = []
            for step in x:
                s, synaptic, membrane = self.cell(step, synaptic, membrane)
                found.append(s)
            return torch.stack(found)

    rows = memory_rows(Net(), torch.ones(7, 1, 6), layout="TN")
    assert [row["Biases read"] for row in rows.values()] == [7 * 32, 7 * 32]


def test_events_and_values_side_by_side_are_read_once_each():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.fire, self.b = nn.Linear(6, 8), fnn.IAF(), nn.Linear(14, 3)

        def forward(self, x):
            return self.b(torch.cat([self.fire(self.a(x)), x], -1))

    x = torch.rand(2, 5, 6)
    counter = fxsynops.SynOpsCounter(Net(), x, layout="NT", input_events=False)
    counter(x)
    read = {(row.layer, row.source): row.traffic.inputs for row in counter.counts.memory().rows}
    assert read["a", ""] == read["b", ""] == 5 * 6
    assert read["b", "fire"] == counter.counts.fired["fire"] / 2


def test_neurons_of_which_nothing_is_known_are_an_error():
    model = nn.Sequential(nn.Linear(4, 3), fnn.IAF(), nn.Linear(3, 2), fnn.IAF())
    analysis = fxsynops.analyze(model, torch.ones(1, 5, 4), layout="NT", input_events=True)
    estimate = analysis.upper_bound(rate={"input": 0.2, "1": 0.5})
    with pytest.raises(InputError, match="how many events 3 put out: give a rate"):
        estimate.memory()
    full = analysis.upper_bound(rate={"input": 0.2, "1": 0.5, "3": 0.1}).memory()
    assert full.to_rows()[1]["Outputs written"] == 5 * 2 * 0.1


class TwoInOne(nn.Module):
    """Two convolutions that drive the same neurons, and a readout."""

    def __init__(self):
        super().__init__()
        self.one = layer.Conv2d(2, 3, 3, padding=1, step_mode="m")
        self.two = layer.Conv2d(2, 3, 1, bias=False, step_mode="m")
        self.fire = neuron.IFNode(step_mode="m")
        self.out = nn.Linear(3 * 16, 5)

    def forward(self, x):
        return self.out(self.fire(self.one(x) + self.two(x)).flatten(2))


def test_neurons_that_two_synapses_drive_are_visited_once():
    torch.manual_seed(0)
    model, x = TwoInOne(), (torch.rand(6, 1, 2, 4, 4) < 0.4).float()
    rows = memory_rows(model, x, layout="TN")
    model.fire.reset()
    with torch.no_grad():
        spikes = float(model.fire(model.one(x) + model.two(x)).sum())
    ones = [torch.ones_like(conv.weight) for conv in (model.one, model.two)]
    pairs = [float(F.conv2d(x[:, 0], w, padding=w.shape[-1] // 2).sum()) for w in ones]
    events, visits = float(x.sum()), 6 * 48
    shared = [rows["one x"], rows["two x"]]
    assert sum(row["Potentials read"] for row in shared) == sum(pairs) + visits
    assert [row["Potentials read"] - row["Weights read"] for row in shared] == [
        0,
        visits,
    ]  # the last
    assert sum(row["Outputs written"] for row in shared) == spikes
    assert [row["Inputs read"] for row in shared] == [events, events]
    assert [row["Weights read"] for row in shared] == pairs
    assert [row["Biases read"] for row in shared] == [visits, 0]
    assert accesses(rows["out fire"]) == [
        spikes,
        spikes * 5,
        30,
        spikes * 5 + 30,
        spikes * 5 + 30,
        0,
    ]


def test_a_recurrent_synapse_adds_its_pairs_and_no_neurons():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 6)
            self.fire = snntorch.RLeaky(beta=0.9, linear_features=6)

        def forward(self, x):
            spikes, state = self.fire.init_rleaky()
            found = []
            for step in x:
                spikes, state = self.fire(self.fc(step), spikes, state)
                found.append(spikes)
            return torch.stack(found)

    torch.manual_seed(1)
    model, x = Net(), (torch.rand(7, 1, 4) < 0.8).float()
    with torch.no_grad():
        model.fc.bias += 0.5
        spikes = model(x)
    rows = memory_rows(model, x, layout="TN")
    fired, again = float(spikes.sum()), float(spikes[:-1].sum())
    assert fired > again > 0
    recurrent = next(row for name, row in rows.items() if name.startswith("fire.recurrent"))
    assert (
        recurrent["Potentials read"] == recurrent["Weights read"] == recurrent["SynOps"]
        if ("SynOps" in recurrent)
        else recurrent["Weights read"]
    )
    assert sum(row["Outputs written"] for row in rows.values()) == fired
    visits = sum(row["Potentials read"] - row["Weights read"] for row in rows.values())
    assert visits == 7 * 6


def test_neurons_that_no_synapse_drives_have_a_row_of_their_own():
    model, x = nn.Sequential(fnn.IAF(), nn.Linear(4, 3)), torch.ones(1, 5, 4)
    rows = memory_rows(model, x)
    assert accesses(rows["0"]) == [0, 0, 0, 20, 20, 20]
    assert accesses(rows["1 0"]) == [20, 60, 15, 75, 75, 0]


# -- what it costs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "picojoules"),
    [
        (0, 0),
        (1024, 1.25),
        (4000, 4.8828125),
        (8 * 1024, 10),
        (20 * 1024, 15),
        (32 * 1024, 20),
        (512 * 1024 + 16 * 1024, 60),
        (1024 * 1024, 100),
        (2**24, 100),
    ],
)
def test_sram_is_linear_between_published_points(size, picojoules):
    assert sram(size) == near(picojoules * 1e-12)


def test_linear_layers_cost_what_spikingjellys_profiler_says():
    """Its profiler, run on this case: 548.325 pJ, in which each leak is a MAC, with an addition."""
    memory = counted(CASES["linear_lif"]())[1].memory()
    leaks = 6 * (6 + 5)
    assert memory.total == near(548.3251953125e-12 - leaks * 0.1e-12)
    parts = [sum(getattr(row, f"{part}_energy") for row in memory.rows) for part in PARTS]
    expected = 298.3251953125, 233.1 - leaks * 0.1, 16.9
    assert parts == near([x * 1e-12 for x in expected])


PARTS = ("memory", "operations", "addressing")


def test_widths_and_a_flat_figure():
    _, counts = counted(CASES["linear_if"]())
    wide, narrow = counts.memory(), counts.memory(bits=8)
    assert narrow.accesses == wide.accesses
    assert narrow.bytes == wide.bytes / 4
    flat = counts.memory(per_byte=24.96e-12)
    in_memory = sum(row.memory_energy for row in flat.rows)
    assert in_memory == near(flat.bytes * 24.96e-12)
    some = counts.memory(bits={"weights": 4, "potentials": 16})
    expected = 0.0
    for row in some.rows:
        t = row.traffic
        expected += t.weights * 0.5 + (t.potentials_read + t.potentials_written) * 2
        expected += (t.inputs + t.biases + t.outputs) * 4
    assert some.bytes == expected


def test_the_dense_ann_reads_an_input_and_a_weight_for_every_mac():
    _, counts = counted(CASES["conv_stride"]())
    first, last = counts.memory().dense
    macs = float(
        F.conv2d(torch.ones(1, 2, 7, 7), torch.ones(4, 2, 3, 3), stride=2, padding=1).sum()
    )
    traffic = first.traffic
    assert (traffic.inputs, traffic.weights, traffic.biases, traffic.outputs) == (
        macs,
        macs,
        64,
        64,
    )
    assert (traffic.additions, traffic.multiplies) == (macs + 64, macs)
    assert traffic.address_additions == 98 + 64 + 36
    assert (last.traffic.inputs, last.traffic.biases, last.traffic.outputs) == (192, 0, 12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bits": {"weight": 8}}, r"bits has \['weight'\]; it may have inputs, weights"),
        ({"bits": 0}, "bits must be a number"),
        ({"bits": -8}, "bits must be a number"),
        ({"queue": "many"}, "queue must be a number"),
        ({"per_byte": float("nan")}, "per_byte must be a number"),
        ({"multiply": -1.0}, "multiply must be a number"),
    ],
)
def test_what_makes_no_sense_is_an_error(options, says):
    with pytest.raises(InputError, match=says):
        MemoryModel(**options)


def test_nothing_counted_is_an_error():
    counter = fxsynops.SynOpsCounter(nn.Linear(3, 2), torch.ones(1, 3), layout="N")
    for ask in (lambda c: c.memory(), lambda c: c.conventional, lambda c: c.summary):
        with pytest.raises(InputError, match="nothing has been counted"):
            ask(counter.counts)


# -- reports --------------------------------------------------------------------------------------


def test_columns_add_up_in_every_form():
    _, counts = counted(CASES["residual_downsample"]())
    memory = counts.memory()
    content = json.loads(memory.to_json())
    for name, total in content["totals"].items():
        assert total == pytest.approx(sum(row[name] for row in content["rows"]))
    assert content["totals"]["Accesses"] == memory.accesses
    assert content["totals"]["Total (J/sample)"] == pytest.approx(memory.total)
    assert content["dense"]["totals"]["Weights read"] == sum(
        r.traffic.weights for r in memory.dense
    )
    text = str(memory)
    for said in (joules(memory.total), "The dense ANN", "Lemaire", "exact (borders and strides)"):
        assert said in text
    for form in ("csv", "markdown", "latex", "html"):
        assert "Weights read" in memory.report().to(form)
    assert list(memory.to_rows()[0])[:8] == ["Layer", "Source", *ACCESSES]


def test_a_row_is_shown_by_its_traffic():
    (row,) = counted(CASES["linear_lif"]())[1].memory().rows[:1]
    parts = f"layer={row.layer!r}, source={row.source!r}, traffic={row.traffic!r}"
    assert repr(row) == f"MemoryRow({parts})"


def test_what_is_unbounded_stays_so():
    model = nn.Sequential(nn.Linear(4, 3), fnn.IAF(), nn.Linear(3, 2))
    analysis = fxsynops.analyze(model, torch.rand(1, 4, 4), layout="NT", input_events=False)
    memory = analysis.upper_bound().memory()
    last = json.loads(memory.to_json())["rows"][-1]
    assert last["Weights read"] == last["Bytes"] == last["Total (J/sample)"] == "unbounded"
    assert "unbounded" in str(memory)
