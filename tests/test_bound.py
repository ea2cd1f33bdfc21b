"""Upper bounds are sound on anything, and exact where the worst case is reached."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import sinabs.layers as sl
import snntorch
import torch
import torch.nn.functional as F
from norse.torch.functional.iaf import IAFParameters
from norse.torch.module.iaf import IAF as NorseIAF
from spikingjelly.activation_based import neuron as sj
from spikingjelly.activation_based import surrogate
from spikingjelly.activation_based.model import spiking_vgg
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import fxsynops
import fxsynops.nn as fnn
from fxsynops.bounds.bound import events_of
from fxsynops.errors import InputError
from tests import bounded, howto
from tests.zoo import SLOW, ZOO

# -- soundness -------------------------------------------------------------------------------------

NAMES = list(bounded.KINDS)


def assert_sound(trial: bounded.Trial) -> None:
    assert trial.violations() == []
    assert any(trial.largest.values())


@pytest.mark.parametrize("name", NAMES)
def test_measured_is_at_most_charge_is_at_most_structural(name):
    """One random network of each neuron type, warm or not, against all inputs that are tried."""
    trial = bounded.attack(bounded.case(NAMES.index(name), name), rounds=1)
    assert name in trial.case.used
    assert trial.violations() == []


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1000, 1000 + 13 * len(NAMES)))
def test_no_input_of_many_more_networks_breaks_the_bound(seed):
    trial = bounded.attack(bounded.case(seed, NAMES[seed % len(NAMES)]), rounds=3)
    assert trial.violations() == []


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("seed", range(3000, 3100))
def test_the_slack_for_rounding_fits_the_dtype(seed, dtype):
    names = [name for name in NAMES if name not in bounded.FLOAT32_ONLY]
    trial = bounded.attack(bounded.case(seed, names[seed % len(names)], dtype), 1, dtype)
    assert trial.violations() == []


def test_the_generator_reaches_what_it_promises():
    """A guard for the tests above: the inputs do cause events, and the bounds are often reached."""
    trials = [bounded.attack(bounded.case(seed, NAMES[seed]), rounds=0) for seed in range(0, 42, 6)]
    shares = [
        trial.largest[row.connection.key] / row.charge
        for trial in trials
        for row in trial.bound.rows
        if 0 < row.charge < math.inf
    ]
    assert sum(share == 1 for share in shares) > len(shares) / 4
    assert sum(0 < share < 1 for share in shares) > len(shares) / 4


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.full if n in SLOW else ()) for n in ZOO]
)
def test_published_models_stay_below_their_bound(name):
    case = ZOO[name]
    torch.manual_seed(0)
    model, inputs = case.build(), case.inputs()
    counter = fxsynops.SynOpsCounter(model, inputs, **case.options)
    values = [float(v) for x in inputs for v in (x.min(), x.max()) if isinstance(x, torch.Tensor)]
    bound = counter.analysis.upper_bound(input_range=(min(values), max(values)))
    with torch.no_grad():
        counter(*inputs)
    for row in bound.compare(counter.counts).to_rows():
        assert row["Measured"] <= row["Charge"] <= row["Structural"], row


def test_a_second_window_starts_from_the_states_that_the_first_has_left():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), fnn.IAF(), nn.Linear(1, 4))
    nn.init.constant_(model[0].weight, 0.25)
    x = torch.ones(1, 1, 2)
    analysis = fxsynops.analyze(model, x, layout="NT")
    assert analysis.upper_bound().rows[1].charge == 0  # 0.5 is not enough for a spike
    model(x)
    assert analysis.upper_bound().rows[1].charge == 4


class OverTime(nn.Module):
    """Spikes that meet others of other steps before they meet a synapse."""

    def __init__(self, mix):
        super().__init__()
        self.fc1, self.lif = nn.Linear(4, 4), sj.IFNode(step_mode="m")
        self.fc2, self.mix = nn.Linear(4, 2), mix

    def forward(self, x):  # (N, T, 4)
        spikes = self.lif(self.fc1(x).transpose(0, 1)).transpose(0, 1)
        return self.fc2(self.mix(spikes))


@pytest.mark.parametrize(
    "mix",
    [
        lambda s: s.cumsum(1),
        lambda s: s @ s.mT @ s,
        lambda s: F.pad(s, (0, 0, 1, 1))[:, :-2] + s,
        lambda s: s.sum(1, keepdim=True).expand(-1, s.shape[1], -1),
        lambda s: F.avg_pool1d(s.mT, 3, 1, 1).mT,
        lambda s: torch.relu(s.cumsum(1) - 1),
    ],
)
@pytest.mark.parametrize("steps", [4, 9])
def test_operations_over_time_are_bounded_at_the_length_of_the_window(mix, steps):
    torch.manual_seed(1)
    model = OverTime(mix)
    with torch.no_grad():
        model.fc1.weight.abs_().mul_(4)
    bound = fxsynops.analyze(model, torch.ones(1, 4, 4), layout="NT").upper_bound(steps)
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, steps, 4), layout="NT")
    counter(torch.ones(1, steps, 4))
    measured = {row.connection.key: row.synops for row in counter.counts.rows}
    assert sum(measured.values()) > 0
    for row in bound.rows:
        assert measured[row.connection.key] <= row.charge <= row.structural


def test_batch_norm_of_sequences_is_folded_along_the_channels():
    """spikingjelly's batch norm takes (T, N, C, H, W), where N may be C as well."""
    from spikingjelly.activation_based import functional, layer

    model = nn.Sequential(layer.Conv2d(1, 3, 3, bias=False), layer.BatchNorm2d(3), sj.IFNode())
    model.append(layer.Conv2d(3, 2, 3))
    functional.set_step_mode(model, "m")
    model.eval()
    with torch.no_grad():
        model[0].weight.fill_(0.5)
        model[1].weight.copy_(torch.tensor([-2.0, 1.0, 3.0]))
    x = torch.ones(2, 3, 1, 6, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    bound = counter.analysis.upper_bound()
    counter(x)
    assert counter.counts.rows[1].synops / 3 == bound.rows[1].charge  # two channels fire always
    assert bound.rows[1].charge == bound.rows[1].structural * 2 / 3


# -- tightness -------------------------------------------------------------------------------------


def spiking_step(node):
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.node, self.out = nn.Linear(4, 3, bias=False), node, nn.Linear(3, 5)

        def forward(self, x):
            return torch.stack([self.out(self.node(self.fc(x[:, t]))) for t in range(x.shape[1])])

    return Steps()


def spiking_sequence(node):
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.node, self.out = nn.Linear(4, 3, bias=False), node, nn.Linear(3, 5)

        def forward(self, x):
            y = self.node(self.fc(x.transpose(0, 1)))
            return self.out(y[0] if isinstance(y, tuple) else y)

    return Sequence()


EXACT = {
    "fxsynops IAF": lambda: nn.Sequential(nn.Linear(4, 3, False), fnn.IAF(), nn.Linear(3, 5)),
    "sinabs IAF": lambda: nn.Sequential(nn.Linear(4, 3, False), sl.IAF(), nn.Linear(3, 5)),
    "snntorch Leaky": lambda: spiking_step(snntorch.Leaky(1.0, init_hidden=True, threshold=0.99)),
    "spikingjelly IFNode": lambda: spiking_sequence(sj.IFNode(v_reset=None, step_mode="m")),
    "norse IAF": lambda: spiking_sequence(NorseIAF(IAFParameters(v_th=torch.tensor(0.99)))),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("weight", [0.25, 0.0625])
def test_the_bound_is_reached_by_constant_input_without_a_leak(name, weight):
    """Non-negative, exactly representable weights; 8 steps of 4 events, each worth ``weight``."""
    model = EXACT[name]()
    linear = next(m for m in model.modules() if isinstance(m, nn.Linear))
    nn.init.constant_(linear.weight, weight)
    x = torch.ones(1, 8, 4)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    bound = counter.analysis.upper_bound()
    counter(x)
    spikes = 8 if weight == 0.25 else 2
    assert counter.counts.rows[1].events == 3 * spikes
    assert bound.rows[1].charge == counter.counts.rows[1].synops == 3 * spikes * 5
    assert bound.rows[0].charge == counter.counts.rows[0].synops == 8 * 4 * 3


def test_charge_bounds_what_nothing_else_caps():
    """The how-to's network in sinabs' layers: multi-spike neurons, all ones for ten steps."""
    torch.manual_seed(1)
    model = howto.snn(sl, batch_size=1, pooling="sum")
    x = torch.ones(1, 10, 1, 28, 28)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    bound = counter.analysis.upper_bound()
    counter(x)
    assert bound.structural == math.inf
    assert bound.charge == bound.total < math.inf
    rows = bound.compare(counter.counts).to_rows()
    assert [row["Measured"] for row in rows] == [2_304_000, 9_011_200, 883_200, 7310]
    assert rows[0]["Used"] == 1
    assert all(0 < row["Used"] <= 1 for row in rows)


def test_few_events_of_the_input_cost_little():
    model = nn.Sequential(nn.Linear(8, 4, bias=False), fnn.IAF(), nn.Linear(4, 2))
    nn.init.constant_(model[0].weight, 0.5)
    analysis = fxsynops.analyze(model, torch.ones(1, 100, 8), layout="NT")
    bound = analysis.upper_bound(input_max_events=2)
    assert [row.charge for row in bound.rows] == [8 * 2 * 4, 4 * 8 * 2]
    assert analysis.upper_bound(input_max_events=0).total == 0


def test_a_grey_level_image_is_bounded_by_its_interval():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), fnn.IAF(), nn.Linear(3, 2))
    nn.init.constant_(model[0].weight, 0.5)
    analysis = fxsynops.analyze(model, torch.rand(1, 5, 4), layout="NT", input_events=False)
    assert analysis.upper_bound().total == math.inf
    assert analysis.upper_bound(input_range=(0, 1)).total == 5 * 2 * 3 * 2
    assert analysis.upper_bound(input_range={"input": (0, 0.5)}).total == 5 * 3 * 2
    assert analysis.upper_bound(input_range=(-1, 0)).total == 0


def test_a_negative_batch_norm_gain_turns_inhibition_into_charge():
    norm = nn.BatchNorm1d(1)
    nn.init.constant_(norm.weight, -2.0)
    model = nn.Sequential(
        nn.Linear(1, 1, bias=False), norm, fnn.NeuromorphicReLU(), nn.Linear(1, 1)
    )
    nn.init.constant_(model[0].weight, -1.0)
    model.eval()
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 1))
    counter(torch.ones(1, 1))
    assert counter.counts.rows[1].synops == 1  # ⌊2 / √(1 + ε)⌋
    assert counter.analysis.upper_bound().rows[1].charge in (1, 2)


def test_neurons_without_an_argument_keep_the_structural_bound_and_say_why():
    model = nn.Sequential(nn.Linear(4, 3), sj.QIFNode(), nn.Linear(3, 2), sj.IFNode())
    row = fxsynops.analyze(model, torch.ones(1, 4)).upper_bound(10).rows[1]
    assert row.charge == row.structural == 10 * 3 * 2
    assert row.reasons == ("'1': no charge argument is known for it",)


def test_an_unbounded_row_says_what_is_not_bounded():
    layers = [nn.Linear(4, 3), nn.LayerNorm(3), fnn.IAF(), nn.Linear(3, 2), fnn.IAF()]
    model = nn.Sequential(*layers, nn.Linear(2, 2))
    rows = fxsynops.analyze(model, torch.ones(1, 5, 4), layout="NT").upper_bound().rows
    assert rows[0].reasons == ()
    assert rows[1].reasons == ("'2': nothing bounds what 'layer_norm' puts out, in module '1'",)
    assert rows[2].reasons == ("'4': '2', which drives it, is unbounded",)
    analog = nn.Sequential(nn.Linear(4, 3), fnn.IAF(), nn.Linear(3, 2))
    analysis = fxsynops.analyze(analog, torch.rand(1, 5, 4), layout="NT", input_events=False)
    (row,) = analysis.upper_bound().rows
    assert "its analog input can be anything" in row.reasons[0]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda m: setattr(m, "v_threshold", -1.0), "threshold is not positive"),
        (lambda m: setattr(m, "v_reset", 2.0), "threshold above its reset level is not positive"),
        (lambda m: setattr(m, "tau", 0.5), "time constant is not in"),
        (
            lambda m: setattr(m, "surrogate_function", surrogate.Sigmoid(spiking=False)),
            "no step from 0 to 1",
        ),
    ],
)
def test_values_that_the_theorem_does_not_allow_fall_back(spoil, reason):
    model = nn.Sequential(nn.Linear(4, 3), sj.LIFNode(), nn.Linear(3, 2))
    analysis = fxsynops.analyze(model, torch.ones(1, 4))
    assert analysis.upper_bound().rows[1].reasons == ()
    spoil(model[1])
    (found,) = analysis.upper_bound().rows[1].reasons
    assert reason in found


# -- structural ------------------------------------------------------------------------------------


def test_neurobenchs_dense_figure_of_dvs_gesture():
    """Its DVS-gesture network at one spike per neuron and step, 150 steps."""
    layers = []
    for channels, out in ((2, 16), (16, 32), (32, 64)):
        conv = nn.Conv2d(channels, out, 5, padding="same")
        layers += [conv, nn.MaxPool2d(2), fnn.NeuromorphicReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 11))
    bound = fxsynops.analyze(model, torch.ones(1, 2, 32, 32)).upper_bound(150, max_spikes=1)
    assert bound.structural == 891_206_400
    assert bound.total <= bound.structural


@pytest.mark.parametrize(("channels", "dense"), [(96, 4900), (192, 9700)])
def test_neurobenchs_dense_figures_of_primate_reaching(channels, dense):
    """Its motor-prediction network ``SNN2``, per step, for both monkeys' electrode counts."""

    class SNN2(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(channels, 50, bias=False)
            self.fc_out = nn.Linear(50, 2, bias=False)
            self.lif1 = snntorch.Leaky(0.96, reset_mechanism="zero")
            self.lif_out = snntorch.Leaky(0.96, reset_mechanism="none")

        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif_out.init_leaky()
            found = []
            for t in range(x.shape[0]):
                spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
                _, mem2 = self.lif_out(self.fc_out(spk1), mem2)
                found.append(mem2)
            return torch.stack(found)

    bound = fxsynops.analyze(SNN2(), torch.ones(3, 1, channels), layout="TN").upper_bound(1)
    assert bound.structural == dense


def test_neurobenchs_dense_figure_of_speech_commands():
    """Its harness, as it published 29,336,955, counted 803 biases at each of the 201 steps, too."""
    sizes = (20, 256, 256, 256, 35)
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), snntorch.Leaky(0.9, init_hidden=True)]
    bound = fxsynops.analyze(nn.Sequential(*layers), torch.ones(1, 20)).upper_bound(201)
    assert bound.structural == 29_336_955 - 201 * sum(sizes[1:])


def test_neurons_without_a_cap_are_unbounded():
    model = nn.Sequential(nn.Linear(8, 4), fnn.IAF(), nn.Linear(4, 2))
    analysis = fxsynops.analyze(model, torch.ones(1, 5, 8), layout="NT")
    bound = analysis.upper_bound()
    assert bound.structural == math.inf
    assert "unbounded" in str(bound)
    assert analysis.upper_bound(max_spikes={"1": 2}).structural == 5 * (32 + 2 * 8)
    assert analysis.upper_bound(10, max_spikes=1).structural == 10 * (32 + 8)
    assert analysis.upper_bound(input_max_events=2, max_spikes=1).rows[0].structural == 2 * 32
    capped = nn.Sequential(nn.Linear(8, 4), fnn.IAF(max_spikes_per_step=3), nn.Linear(4, 2))
    bound = fxsynops.analyze(capped, torch.ones(1, 5, 8), layout="NT").upper_bound()
    assert bound.structural == 5 * (32 + 3 * 8)


def test_a_gate_behind_merges_is_bounded_by_all_that_meets_in_it():
    class Merged(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(F.relu(F.avg_pool1d(x + x, 2) * 0.5).clamp(max=9))

    counter = fxsynops.SynOpsCounter(Merged(), torch.ones(2, 8))
    counter(torch.ones(2, 8))
    assert int(counter.synops.detach()) == 2 * 4 * 4 * 3
    assert counter.analysis.upper_bound().total == 4 * 4 * 3


@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_models_without_values_have_a_structural_bound(kind):
    from contextlib import nullcontext

    def structural(x, device=None):
        layers = [nn.Conv2d(3, 8, 3), fnn.NeuromorphicReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3)]
        model = nn.Sequential(*layers)
        model = model if device is None else model.to(device)
        return fxsynops.analyze(model, x).upper_bound(max_spikes=1).structural

    with FakeTensorMode() if kind == "fake" else nullcontext():
        device = "meta" if kind == "meta" else None
        found = structural(torch.ones(2, 3, 32, 32, device=device), device)
    assert found == structural(torch.ones(2, 3, 32, 32))


@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_without_values_as_many_events_are_said_as_the_caps_allow(kind):
    with torch.device("meta") if kind == "meta" else FakeTensorMode():
        model = nn.Sequential(nn.Linear(4, 3), sj.IFNode(step_mode="m"), nn.Linear(3, 2))
        bound = fxsynops.analyze(model, torch.ones(5, 1, 4), layout="TN").upper_bound()
    events = events_of(bound)
    assert list(events.arriving.values()) == [5 * 4, 5 * 3]
    assert events.fired == {"1": 5 * 3}


def test_a_large_model_on_meta_allocates_nothing():
    """Spiking VGG-16 at 224 × 224, T = 4: 138 million weights that are never there."""
    from spikingjelly.activation_based import functional

    with torch.device("meta"):
        model = spiking_vgg.spiking_vgg16(spiking_neuron=sj.IFNode).eval()
        functional.set_step_mode(model, "m")
        x = torch.empty(4, 1, 3, 224, 224)
    bound = fxsynops.analyze(model, x, layout="TN", input_events=False).upper_bound()
    assert sum(p.numel() for p in model.parameters()) > 100e6
    # Of all layers but the first, which multiplies analog values: what torchvision's VGG-16 costs,
    # less the padding that no event reaches.
    assert 4 * 14e9 < bound.structural < 4 * 15.5e9
    assert all(row.reasons == ("the model has no values (meta)",) for row in bound.rows)


def test_a_rate_gives_an_estimate_and_no_bound():
    model = nn.Sequential(nn.Linear(8, 4), fnn.IAF(), nn.Linear(4, 2))
    analysis = fxsynops.analyze(model, torch.ones(1, 5, 8), layout="NT")
    estimate = analysis.upper_bound(10, rate=0.25)
    assert estimate.total == 10 * 0.25 * (32 + 8)
    assert estimate.estimate
    assert "Estimate (no bound)" in str(estimate)
    assert analysis.upper_bound(rate={"input": 1.0, "1": 0.5}).total == 5 * (32 + 0.5 * 8)


# -- reports and budgets ---------------------------------------------------------------------------


@pytest.fixture
def counted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), fnn.IAF(max_spikes_per_step=1), nn.Flatten(2))
    model = nn.Sequential(nn.Linear(8, 6), fnn.IAF(max_spikes_per_step=1), nn.Linear(6, 4))
    x = (torch.rand(2, 10, 8) < 0.5).float()
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", dt=2.0)
    bound = counter.analysis.upper_bound()
    counter(x)
    return counter, bound


def test_the_report_has_every_figure_per_connection(counted):
    counter, bound = counted
    row = bound.to_rows()[0]
    assert row["Neurons"] == 8
    assert row["Synapses"] == 48
    assert row["Structural"] == row["Charge"] == row["SynOps"] == 480
    assert row["SynOps/step"] == 48
    assert row["SynOps/s"] == 480 / (10 * 0.002)
    assert row["Share"] == 480 / bound.total
    text = str(bound.compare(counter.counts))
    for word in ("Structural", "Charge", "SynOps/s", "Share", "Measured", "Used", "one event per"):
        assert word in text
    measured = bound.compare(counter.counts).to_rows()
    assert [r["Measured"] for r in measured] == [r.synops / 2 for r in counter.counts.rows]


def test_a_bound_is_shown_and_compared_by_its_figures(counted):
    counter, bound = counted
    shown = repr(bound.compare(counter.counts))
    assert "structural=" in shown
    assert not any(f"{name}=" in shown for name in ("findings", "measured", "asked"))
    x = torch.ones(2, 10, 8)
    first, second = (fxsynops.analyze(counter.model, x, layout="NT") for _ in range(2))
    assert first.upper_bound() == second.upper_bound() != first.upper_bound(max_spikes=0)


def test_a_budget_names_what_breaks_it(counted):
    counter, bound = counted
    assert bound.check(1e6) == ()
    assert bound.check(1e6, max_synops_per_second=1e9, per_layer={"0": 480}) == ()
    total, layer = bound.check(100, per_layer={"0": 479, "2": 1e6})
    assert (total.name, total.value, total.limit) == ("total", bound.total, 100)
    assert str(layer) == "0: 480 SynOps > 479"
    (rate,) = bound.check(max_synops_per_second=1)
    assert rate.value == bound.peak / 0.002  # not the mean, bound.total / 0.02
    assert rate.of == "the peak step"
    (measured,) = counter.counts.check(per_layer={"0": 1})
    assert measured.value == counter.counts.rows[0].synops / 2
    assert counter.counts.check(bound.total) == ()


@pytest.mark.parametrize(
    ("budget", "match"),
    [
        ({"per_layer": {"nope": 3}}, r"'nope'.*synapses are \['0', '2'\]"),
        ({"max_synops": -1}, "max_synops must be a number and not negative: -1"),
        ({"per_layer": {"0": "many"}}, "limit of 0 must be a number"),
        ({}, "needs a limit"),
    ],
)
def test_budgets_that_make_no_sense(counted, budget, match):
    for result in (counted[1], counted[0].counts):
        with pytest.raises(InputError, match=match):
            result.check(**budget)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"timesteps": -3}, "timesteps must be a positive whole number, not -3"),
        ({"timesteps": 2.5}, "timesteps must be a positive whole number"),
        ({"max_spikes": -1}, "max_spikes must be a number and not negative, not -1"),
        ({"max_spikes": {"x": 1}}, r"max_spikes names \['x'\].*There are \['1', 'input'\]"),
        ({"input_max_events": "few"}, "input_max_events must be a number"),
        ({"input_range": (1, 0)}, r"input_range is \(least, most\)"),
        ({"input_range": {"image": (0, 1)}}, r"input_range names \['image'\]"),
        ({"rate": -0.1}, "rate must be a number and not negative"),
        ({"rate": {"1": 0.5}}, r"rate says nothing of \['input'\]"),
    ],
)
def test_assumptions_that_make_no_sense(counted, options, match):
    with pytest.raises(InputError, match=match):
        counted[0].analysis.upper_bound(**options)


def test_comparing_with_counts_of_another_model_or_of_nothing(counted):
    counter, bound = counted
    other = fxsynops.SynOpsCounter(nn.Linear(3, 2), torch.ones(1, 3))
    other(torch.ones(1, 3))
    with pytest.raises(InputError, match="of other connections"):
        bound.compare(other.counts)
    counter.clear()
    with pytest.raises(InputError, match="nothing has been counted"):
        bound.compare(counter.counts)


def test_a_model_that_runs_for_one_length_only():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            assert x.shape[1] == 3
            return self.fc(x)

    analysis = fxsynops.analyze(Fixed(), torch.ones(1, 3, 4), layout="NT")
    assert analysis.upper_bound(3).total == 3 * 8
    with pytest.raises(InputError, match="does not run for 5 steps"):
        analysis.upper_bound(5)


# -- the command -----------------------------------------------------------------------------------

MODEL = """
import torch
from torch import nn
import fxsynops.nn as snn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), snn.IAF(max_spikes_per_step=1), nn.Linear(6, 4))

number = 3

def broken():
    raise ValueError("no weights here")
"""


@pytest.fixture
def check(tmp_path, capsys, monkeypatch):
    from fxsynops import cli

    (tmp_path / "nets.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        status = cli.main(["check", *args])
        return status, *capsys.readouterr()

    run.folder = tmp_path
    return run


def test_check_holds_a_model_to_its_budget(check):
    budget = check.folder / "budget.toml"
    budget.write_text('max_synops = 1e6\n[per_layer]\n"0" = 400\n2 = 10_000\n')
    model = ("nets.py:make", "--input", "1x10x8", "--layout", "NT")
    status, out, err = check(*model, "--budget", "budget.toml")
    assert (status, err) == (1, "")
    assert "over budget: 0: 480 SynOps > 400" in out
    assert "over budget: 2" not in out
    status, out, _ = check(*model, "--max-synops", "10")
    assert status == 1
    assert "heaviest layers: 0 (480), 2 (" in out
    status, out, _ = check(*model, "--max-synops-per-second", "1e9", "--window", "20")
    assert status == 0
    assert "within the budget" in out
    assert "20 steps" in out


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["nets.py:make", "--input", "1x8"], "a budget needs a limit"),
        (["nets.py:make", "--input", "1xy", "--max-synops", "1"], "'1xy' is no shape"),
        (["nets.py:make", "--input", "1x9", "--max-synops", "1"], "shapes cannot be multiplied"),
        (["nets.py:gone", "--input", "1x8", "--max-synops", "1"], "It has make, number, broken"),
        (["nets.py:number", "--input", "1x8", "--max-synops", "1"], "is a int, no model"),
        (["nets.py:broken", "--input", "1x8", "--max-synops", "1"], "no weights here"),
        (["away.py:make", "--input", "1x8", "--max-synops", "1"], "there is no file"),
        (["no.such:make", "--input", "1x8", "--max-synops", "1"], "ModuleNotFoundError"),
        (["nets", "--input", "1x8", "--max-synops", "1"], "write package.module:name"),
        (["nets.py:make", "--input", "1x8", "--budget", "none.toml"], "cannot be read"),
        (["nets.py:make", "--input", "1x8", "--budget", "bad.toml"], "is no TOML file"),
        (["nets.py:make", "--input", "1x8", "--budget", "typo.toml"], r"has \['max_synop'\]"),
        (["nets.py:make", "--input", "1x8", "--budget", "layer.toml"], "'fc'"),
        (
            ["nets.py:make", "--input", "1x8", "--max-synops", "1", "--input-range", "1"],
            "is not two numbers",
        ),
    ],
)
def test_check_says_what_is_wrong_in_one_paragraph(check, args, match):
    import re

    (check.folder / "bad.toml").write_text("max_synops = = 3")
    (check.folder / "typo.toml").write_text("max_synop = 3")
    (check.folder / "layer.toml").write_text("[per_layer]\nfc = 3")
    status, out, err = check(*args)
    assert status == 2
    assert re.search(match, err)
    assert "Traceback" not in out + err


def test_dotted_layer_names_in_a_budget_file(tmp_path):
    from fxsynops.budget import Budget

    path = tmp_path / "budget.toml"
    path.write_text('[per_layer]\nlayer1.0.conv2 = 5\nfc = 7\n"layers.3" = 9\n')
    assert Budget.load(path).per_layer == {"layer1.0.conv2": 5, "fc": 7, "layers.3": 9}


def test_a_bound_leaves_random_numbers_alone():
    parts = [nn.Linear(4, 6), nn.BatchNorm1d(6), fnn.NeuromorphicReLU(), nn.Linear(6, 5)]
    model = nn.Sequential(*parts, fnn.NeuromorphicReLU(), nn.Linear(5, 3)).eval()
    analysis = fxsynops.analyze(model, torch.ones(2, 4))
    before = torch.get_rng_state()
    first, second = analysis.upper_bound(), analysis.upper_bound()
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second
    assert 0 < first.charge < math.inf


def test_an_average_pool_behind_a_neuron_writes_nothing():
    import snntorch

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif = nn.Conv2d(1, 2, 3), snntorch.Leaky(0.9)
            self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(18, 3)

        def forward(self, x):
            mem, out = self.lif.reset_mem(), []
            for step in x:
                spikes, mem = self.lif(self.conv(step), mem)
                out.append(self.fc(self.pool(spikes).flatten(1)))
            return torch.stack(out)

    analysis = fxsynops.analyze(Pooled(), torch.ones(4, 2, 1, 8, 8), layout="TN")
    assert not any(row.reasons for row in analysis.upper_bound().rows)
