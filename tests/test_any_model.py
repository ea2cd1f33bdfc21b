"""What a model may do beside the zoo: branch, run long, run in half precision, be an ANN."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
from tests.outcome import count
from tests.watched import watch
from tests.zoo import STEPS, TUTORIAL_NEURONS, ZOO, Case, Residual, Tutorial, fire


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Residual(4),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).eval()


def test_an_ann_whose_relus_are_taken_for_neurons():
    torch.manual_seed(0)
    model, x = network(), torch.rand(2, 3, 8, 8)
    counter = fxsynops.SynOpsCounter(
        model, x, spiking=nn.ReLU, events="nonzero", input_events=False
    )
    with torch.no_grad():
        assert torch.equal(counter(x), model(x))
    effective = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(
                lambda m, a, n=name: effective.update({n: (m, (a[0] != 0).double())})
            )
    model(x)
    expected = {}
    for name, (module, events) in effective.items():
        ones = torch.ones_like(module.weight, dtype=torch.float64)
        is_linear = isinstance(module, nn.Linear)
        y = (
            events @ ones.T
            if is_linear
            else nn.functional.conv2d(events, ones, None, 1, module.padding)
        )
        expected[name] = float(y.sum())
    assert [d.synapse for d in counter.analysis.dense] == ["0"]
    expected.pop("0")  # its input is a picture
    assert {k: float(v) for k, v in counter.per_synapse.items()} == expected
    sources = {c.synapse: c.sources for c in counter.analysis.connections}
    assert sources["3.conv2"] == ("3.relu",)
    assert sources["6"] == ("3.relu",)


def test_the_values_of_an_anns_relus_weighted_by_fan_out():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    x = torch.rand(3, 8)
    counter = fxsynops.SynOpsCounter(model, x, spiking=(nn.ReLU,), input_events=False)
    counter(x)
    expected = model[1](model[0](x)).double().sum() * 4
    torch.testing.assert_close(counter.synops, expected)


def test_one_analog_row_in_a_spiking_network_on_images():
    outcome = count(ZOO["spikingjelly sew_resnet18 ADD"])
    assert [row.synapse for row in outcome.counter.analysis.dense] == ["conv1"]


def test_shortcuts_that_carry_the_membrane_potential_are_analog():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.shortcut = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.conv(fire(x)) + self.shortcut(x)

    model = nn.Sequential(nn.Conv2d(1, 2, 3), Block(), Block())
    x = torch.rand(2, 1, 6, 6)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x)
    assert [row.synapse for row in counter.analysis.dense] == ["0", "1.shortcut", "2.shortcut"]
    assert [row.macs for row in counter.analysis.dense[1:]] == [2 * 2 * 16] * 2
    assert set(counter.per_synapse) == {"1.conv", "2.conv"}


class Gated(nn.Module):
    """Branches on how much its input fires."""

    def __init__(self):
        super().__init__()
        self.many, self.few = nn.Linear(8, 6), nn.Linear(8, 4)

    def forward(self, x):
        if x.sum() > 10:
            return self.many(x)
        return self.few(x)


class Halting(nn.Module):
    """Stops after as many steps as its data asks for."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        for _ in range(int(x.sum(1).amax())):
            x = fire(self.fc(x) + 0.1)
        return x


@pytest.mark.parametrize(("model", "where"), [(Gated, "bool"), (Halting, "int")])
def test_branches_on_data_are_named_and_checked(model, where):
    torch.manual_seed(0)
    net, x = model(), torch.zeros(3, 8)
    x[0, :4] = 1
    counter = fxsynops.SynOpsCounter(net, x)
    (branch,) = counter.analysis.specialized
    assert "test_any_model.py" in branch
    assert where in branch
    assert "test_any_model.py" in str(counter.analysis)
    assert torch.equal(counter(x), net(x))
    before = counter.counts.total
    with pytest.raises(fxsynops.SpecializationError, match=r"test_any_model\.py:\d+"):
        counter(torch.ones(3, 8))
    assert counter.counts.total == before


def test_a_loop_of_a_thousand_steps():
    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, x):
            v, out = torch.zeros(x.shape[1], 6), []
            for step in x:
                v = 0.9 * v + self.fc1(step)
                z = fire(v - 0.5)
                v = v * (1 - z)
                out.append(self.fc2(z))
            return torch.stack(out)

    torch.manual_seed(0)
    outcome = count(Case(Long, lambda: ((torch.rand(1000, 2, 8) < 0.3).float(),), {"layout": "TN"}))
    assert outcome.same_output
    assert outcome.synops == outcome.expected_synops
    assert len(outcome.counter.analysis.connections) == 2
    assert outcome.counter.counts.timesteps == 1000


HALVES = [
    "plain U-Net",
    "plain autograd function",
    "spikingjelly sew_resnet18 ADD",
    "spikingjelly layers around LIFNode",
    "plain convolution by unfold",
    "plain membrane in an attribute",
]


@pytest.mark.parametrize("name", HALVES)
def test_half_precision(name):
    case = ZOO[name]
    half = Case(
        lambda: case.build().bfloat16(),
        lambda: tuple(x.bfloat16() for x in case.inputs()),
        case.options,
        case.reset,
        case.units,
    )
    outcome = count(half)
    assert outcome.same_output
    assert outcome.synops == outcome.expected_synops
    assert sum(outcome.synops.values()) > 0


def test_training_mode_has_traces_of_its_own():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16),
        nn.BatchNorm1d(16),
        fxsynops.nn.NeuromorphicReLU(),
        nn.Dropout(0.5),
        nn.Linear(16, 4),
    )
    x = torch.rand(6, 8) * 20
    counter = fxsynops.SynOpsCounter(model.eval(), x, input_events=False)
    for training in (True, False, True):
        counter.train(training)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        torch.manual_seed(5)
        y = counter(x)
        synops = float(counter.synops.detach())
        after = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(state)
        torch.manual_seed(5)
        expected, watched, _ = watch(model, x, units={"4": 2.0 if training else 1.0})
        assert torch.equal(y, expected)
        assert watched["4"] == synops > 0
        assert all(torch.equal(v, after[k]) for k, v in model.state_dict().items())


def test_the_default_threshold_that_all_sinabs_layers_share_stays_as_it_is():
    case = ZOO["sinabs default IAF"]
    model = case.build()
    before = model[1].spike_threshold.clone(), model[1].spike_threshold._version
    fxsynops.SynOpsCounter(model, case.inputs(), **case.options)(*case.inputs())
    assert torch.equal(model[1].spike_threshold, before[0])
    assert model[1].spike_threshold._version == before[1]
    assert model[1].spike_threshold.data_ptr() == model[3].spike_threshold.data_ptr()


@pytest.mark.parametrize("name", TUTORIAL_NEURONS)
def test_static_images_in_a_loop_have_their_steps(name):
    model = Tutorial(TUTORIAL_NEURONS[name](), TUTORIAL_NEURONS[name](), static=True)
    x = torch.rand(2, 1, 8, 8)
    counter = fxsynops.SynOpsCounter(model, x, timesteps=STEPS, input_events=False)
    counter(x)
    counts = counter.counts
    assert (counts.samples, counts.timesteps) == (2, STEPS)
    rows = {row.connection.synapse: row for row in counts.rows}
    assert rows["conv2"].connection.neurons == 3 * 3 * 3
    assert 0 < rows["conv2"].rate <= 1


class TwoReLUs(nn.Module):
    """One is a module, one a function."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(F.relu(self.second(self.act(self.first(x)))))


@pytest.mark.parametrize(
    ("spiking", "synapses"),
    [
        (nn.ReLU, {"second", "last"}),
        (F.relu, {"second", "last"}),
        (torch.relu, {"second", "last"}),
        ("act", {"second"}),
        (["act"], {"second"}),
        (["act", F.relu], {"second", "last"}),
        ((), set()),
    ],
)
def test_spiking_takes_types_functions_and_names(spiking, synapses):
    torch.manual_seed(0)
    model, x = TwoReLUs(), torch.rand(4, 6)
    counter = fxsynops.SynOpsCounter(
        model, x, spiking=spiking, events="nonzero", input_events=False
    )
    counter(x)
    first = F.relu(model.first(x))
    arriving = {"second": (first, 4), "last": (F.relu(model.second(first)), 3)}
    found = {name: value.item() for name, value in counter.per_synapse.items()}
    assert found == {
        name: float((arriving[name][0] > 0).sum() * arriving[name][1]) for name in synapses
    }
    assert not counter.analysis.doubts


def test_a_name_holds_for_copies_and_one_that_is_never_called_is_said():
    model, x = TwoReLUs(), torch.rand(4, 6)
    model.unused = nn.ReLU()
    analysis = fxsynops.analyze(model, x, spiking=["act", "unused"], input_events=False)
    assert any("spiking='unused' matches nothing" in doubt for doubt in analysis.doubts)
    copied = copy.deepcopy(analysis.counter())
    copied(x)
    assert set(copied.per_synapse) == {"second"}
    assert analysis.upper_bound(max_spikes={"act": 2.0}).structural == 2 * 5 * 4
