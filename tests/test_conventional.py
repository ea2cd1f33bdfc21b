"""Operations as papers count them, and the figures that people look for."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, fields

import pytest
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.nn.utils import prune

import fxsynops
import fxsynops.nn as fnn
from tests.event_driven_cases import CASES
from tests.oracles import near
from tests.test_memory import counted


def spikes(*shape: int, rate: float = 0.4) -> Tensor:
    return (torch.rand(*shape) < rate).float()


@pytest.mark.parametrize("name", CASES)
def test_accumulates_are_operations_with_padding_times_the_mean_of_the_input(name):
    case = CASES[name]()
    seen: dict[str, list[Tensor]] = {}
    sizes: dict[str, float] = {}

    def watch(module: str):
        def hook(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            seen.setdefault(module, []).append(args[0].detach())
            steps = output.shape[0] * (output.shape[1] if case.layout == "multi" else 1)
            sizes[module] = output.numel() / steps * layer.weight[0].numel()

        return hook

    counter, _ = counted(case)
    counter.clear()
    case.reset()
    for module, part in case.model.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(watch(module))
    inputs = {"multi": [case.x[:, None]], "squeezed": [case.x]}
    for x in inputs.get(case.layout, [frame[None] for frame in case.x]):
        counter(x)
    counter.end_of_sample()
    counts = counter.counts
    found = counts.conventional
    rates = {module: float(torch.stack(x).double().mean()) for module, x in seen.items()}
    steps = len(case.x)
    for row in found.rows:
        assert row.operations == sizes[row.layer], row.layer
        assert row.rate == pytest.approx(rates[row.layer]), row.layer
        assert row.total == pytest.approx(sizes[row.layer] * rates[row.layer] * steps)
        parts = row.at_padding + row.at_borders + row.scaled + row.biases
        assert row.difference == pytest.approx(parts, abs=1e-6)
    assert found.acs == pytest.approx(sum(sizes[n] * rates[n] * steps for n in sizes))
    assert found.macs == 0
    assert sum(row.exact for row in found.rows) == counts.total


def test_the_first_layer_is_multiplied_and_the_rest_added():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        fnn.IAFSqueeze(batch_size=2),
        nn.Conv2d(4, 5, 3, padding=1),
        fnn.IAFSqueeze(batch_size=2),
    )
    x = torch.rand(2 * 4, 3, 6, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="(NT)", timesteps=4, input_events=False)
    counter(x)
    found = counter.counts.conventional
    with torch.no_grad():
        rate = float(fnn.IAFSqueeze(batch_size=2)(model[0](x)).mean())
    macs, acs = 4 * 36 * 4 * 27, 4 * 36 * 5 * 36 * rate
    assert found.macs == macs
    assert found.acs == pytest.approx(acs)
    assert found.energy() == near(4.6e-12 * macs + 0.9e-12 * acs)
    assert found.energy(2.0, 1.0) == pytest.approx(2 * macs + acs)
    exact = float(F.conv2d(torch.ones(1, 3, 6, 6), torch.ones(4, 3, 3, 3), padding=1).sum())
    assert found.rows[0].exact == 4 * exact
    assert found.rows[0].why == f"+{macs - 4 * exact:,.0f} taps in the padding"
    biased = found.with_biases()
    assert biased.macs == macs + 4 * 36 * 4
    assert biased.acs == pytest.approx(acs + 4 * 36 * 5 * rate)
    assert "an operation for each bias" in str(biased)
    content = json.loads(found.to_json())
    assert content["totals"]["MACs"] == macs
    assert content["totals"]["Energy (J)"] == near(found.energy())


def test_dense_rows_have_the_conventional_figure():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3, 2, 1), nn.Conv1d(5, 2, 1)
    )
    analysis = fxsynops.analyze(
        model[:3], torch.rand(1, 2, 7, 7), layout="N", input_events=False, spiking=()
    )
    first, second = analysis.dense
    assert first.conventional == 16 * 4 * 18
    assert second.conventional == 16 * 4 * 27  # each input meets each tap of three kernels
    exact = float(F.conv2d(torch.ones(1, 2, 7, 7), torch.ones(4, 2, 3, 3), None, 2, 1).sum())
    assert first.macs == exact < first.conventional
    assert "MACs (conventional)" in str(analysis)


def test_an_estimate_at_published_rates():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), fnn.IAFSqueeze(batch_size=1))
    analysis = fxsynops.analyze(model, torch.ones(5, 2, 8, 8), layout="(NT)", batch_size=1)
    found = analysis.upper_bound(rate=0.25).conventional
    assert found.acs == 64 * 4 * 18 * 0.25 * 5
    assert found.rows[0].rate == 0.25


# -- the summary ----------------------------------------------------------------------------------


class Gesture(nn.Module):
    """Of spikes and of images; half of the hidden weights are pruned."""

    def __init__(self):
        super().__init__()
        self.conv = layer.Conv2d(2, 4, 3, padding=1, bias=False, step_mode="m")
        self.norm = layer.BatchNorm2d(4, step_mode="m")
        self.one, self.two = neuron.IFNode(step_mode="m"), neuron.LIFNode(step_mode="m")
        self.fc, self.out = nn.Linear(4 * 36, 10), nn.Linear(10, 3)
        with torch.no_grad():
            self.fc.weight[::2] = 0

    def forward(self, x):
        y = self.one(self.norm(self.conv(x))).flatten(2)
        return self.out(self.two(self.fc(y)))


def summary_of(x: Tensor, **options) -> tuple[fxsynops.Counts, Gesture]:
    torch.manual_seed(0)
    model = Gesture().eval()
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", **options)
    functional.reset_net(model)
    counter(x)
    return counter.counts, model


def test_the_figures_of_a_sample():
    torch.manual_seed(1)
    x = spikes(5, 2, 2, 6, 6)
    counts, model = summary_of(x)
    figures = counts.summary
    functional.reset_net(model)
    with torch.no_grad():
        one = model.one(model.norm(model.conv(x)))
        two = model.two(model.fc(one.flatten(2)))
    fired, places = float(one.sum() + two.sum()), 2 * 5 * (144 + 10)
    pairs = float(F.conv2d(torch.ones(1, 2, 6, 6), torch.ones(4, 2, 3, 3), padding=1).sum())
    synapses = pairs + 1440 + 30
    assert figures["parameters"] == sum(p.numel() for p in model.parameters())
    assert figures["neurons"] == figures["state_size"] == 154
    assert figures["synapses"] == synapses
    assert figures["connection sparsity"] == pytest.approx(720 / (72 + 1440 + 30))
    assert figures["SynOps"] == figures["ACs"] == counts.total / 2
    assert figures["MACs"] == 0
    assert figures["dense"] == 5 * synapses
    assert figures["Effective ACs"] is None
    assert figures["spikes"] == fired / 2
    assert figures["mean firing rate"] == pytest.approx(fired / places)
    assert figures["activation sparsity"] == pytest.approx(1 - fired / places)
    assert figures["spikes per synapse"] == pytest.approx(counts.total / 2 / synapses)
    at = figures["break-even rate"]
    assert at * counts.total / 2 * 0.9 / (fired / places) == pytest.approx(synapses * 4.6)
    assert 0 < figures["break-even rate with memory"] < at
    assert 'count with events="nonzero"' in str(figures)
    with pytest.raises(KeyError, match="is none of Parameters"):
        figures["operations"]


def test_effective_operations_are_of_what_is_not_zero():
    torch.manual_seed(1)
    x = torch.rand(5, 2, 2, 6, 6) * (torch.rand(5, 2, 2, 6, 6) < 0.5)
    options = {"input_events": False, "events": "nonzero", "weights": "nonzero"}
    counts, model = summary_of(x, **options)
    functional.reset_net(model)
    with torch.no_grad():
        one = model.one(model.norm(model.conv(x)))
        two = model.two(model.fc(one.flatten(2)))
        on = F.conv2d((x != 0).float().flatten(0, 1), (model.conv.weight != 0).float(), padding=1)
        acs = F.linear(one.flatten(2), (model.fc.weight != 0).float()).sum() + two.sum() * 3
    figures = counts.summary
    assert figures["Effective MACs"] == figures["MACs"] == float(on.sum()) / 2
    assert figures["Effective ACs"] == float(acs) / 2
    assert figures["FLOPs"] == 2 * float(on.sum()) / 2 + float(acs) / 2
    assert counts.macs == {"conv": float(on.sum())}


@pytest.mark.parametrize("events", ["value", "nonzero"])
def test_effective_macs_follow_weights_that_change(events: str):
    model = nn.Sequential(nn.Linear(6, 4, bias=False), fnn.IAF())
    x = torch.rand(3, 2, 6)
    options = {"input_events": False, "events": events, "weights": "nonzero"}
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", **options)
    counter(x)
    assert counter.counts.macs == {"0": 3 * 2 * 24}
    counter.clear()
    prune.l1_unstructured(model[0], "weight", 10)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", **options)
    counter(x)
    assert counter.counts.macs == {"0": 3 * 2 * 14}
    with torch.no_grad():
        model[0].weight_orig[:, 0] = 0
        left = int((model[0].weight_orig * model[0].weight_mask != 0).sum())
    counter.clear()
    counter(x)
    assert counter.counts.macs == {"0": 3 * 2 * left}


@pytest.mark.parametrize("events", ["value", "nonzero"])
def test_a_layer_whose_weights_are_all_zero_has_macs_once_they_are_not(events: str):
    model = nn.Sequential(nn.Linear(6, 4, bias=False), fnn.IAF())
    nn.init.zeros_(model[0].weight)
    x = torch.rand(3, 2, 6)
    options = {"layout": "NT", "input_events": False, "weights": "nonzero", "events": events}
    counter = fxsynops.SynOpsCounter(model, x, **options)
    counter(x)
    assert counter.counts.macs == {"0": 0}
    nn.init.ones_(model[0].weight)
    counter.clear()
    counter(x)
    assert counter.counts.macs == {"0": 3 * 2 * 24}


def test_macs_of_inputs_that_share_a_layer_with_events_follow_its_weights():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.neuron = nn.Linear(6, 4, bias=False), fnn.IAF()

        def forward(self, spikes, values):
            return self.neuron(self.fc(torch.cat([spikes, values], -1)))

    model = Net()
    spikes, values = torch.ones(3, 2, 4), torch.rand(3, 2, 2)
    options = {"layout": "NT", "input_events": [True, False], "weights": "nonzero"}
    counter = fxsynops.SynOpsCounter(model, (spikes, values), **options)
    for zeros in (0, 1, 3):
        with torch.no_grad():
            model.fc.weight[:zeros] = 0
        counter.clear()
        counter(spikes, values)
        assert counter.counts.total == 3 * 2 * 4 * (4 - zeros)
        assert counter.counts.macs == {"fc": 3 * 2 * 2 * (4 - zeros)}


def test_macs_of_weights_alone_are_known_ahead():
    model = nn.Sequential(nn.Linear(6, 4, bias=False), fnn.IAF())
    with torch.no_grad():
        model[0].weight[0] = 0
    analysis = fxsynops.analyze(
        model, torch.rand(3, 2, 6), layout="NT", input_events=False, weights="nonzero"
    )
    (dense,) = analysis.dense
    assert (dense.macs, dense.conventional) == (18, 24)


def test_what_neurons_have_fired_is_counted_whatever_it_reaches():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
            self.hidden, self.last = (snntorch.Leaky(beta=0.8) for _ in range(2))

        def forward(self, x):
            one, two = self.hidden.init_leaky(), self.last.init_leaky()
            found = []
            for step in x:
                first, one = self.hidden(self.a(step), one)
                second, two = self.last(self.b(first), two)
                found.append((first, second))
            return [torch.stack(part) for part in zip(*found, strict=True)]

    torch.manual_seed(2)
    model, x = Net(), spikes(6, 4, 4, rate=0.9) * 2
    with torch.no_grad():
        model.a.bias += 1
        model.b.bias += 1
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", input_events=True)
    first, last = (y.detach() for y in counter(x))
    assert counter.counts.fired == {"hidden": float(first.sum()), "last": float(last.sum())}
    counter(x)
    twice = counter.counts
    assert twice.fired["last"] == 2 * float(last.sum()) > 0
    assert (twice + twice).fired["last"] == 4 * float(last.sum())
    assert [row.arrived for row in (twice + twice).rows] == [2 * row.arrived for row in twice.rows]


@pytest.mark.parametrize("size", [12, 13])
def test_what_arrives_is_what_a_pool_lets_through(size):
    model = nn.Sequential(
        fnn.IAFSqueeze(batch_size=1), nn.AvgPool2d(3, 2), nn.Conv2d(1, 2, 3), nn.Flatten()
    )
    x = spikes(4, 1, size, size)
    counter = fxsynops.SynOpsCounter(model, x, layout="(NT)", batch_size=1)
    counter(x)
    (row,) = counter.counts.rows
    assert row.events == float(x.sum())
    assert row.arrived == round(float(F.avg_pool2d(x, 3, 2).sum()) * 9)


def test_output_neurons_cost_no_gradient():
    model = nn.Sequential(nn.Linear(4, 3), fnn.IAF(), nn.Linear(3, 2), fnn.IAF())
    x = torch.ones(1, 5, 4)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    counter(x)
    counter.synops.backward()
    assert model[2].weight.grad is None
    assert not math.isnan(float(model[0].weight.grad.sum()))


def test_a_maximum_behind_an_average_pool_has_the_size_of_its_values():
    model = nn.Sequential(
        fnn.IAFSqueeze(batch_size=1), nn.AvgPool2d(2), nn.MaxPool2d(2), nn.Conv2d(1, 2, 3)
    )
    x = spikes(3, 1, 16, 16)
    counter = fxsynops.SynOpsCounter(model, x, layout="(NT)", batch_size=1)
    counter(x)
    (row,) = counter.counts.conventional.rows
    assert row.rate == pytest.approx(float(F.max_pool2d(F.avg_pool2d(x, 2), 2).mean()))


def test_masks_in_a_loop_are_one_mask():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.fire = nn.Linear(8, 4), snntorch.Leaky(beta=0.9)
            prune.l1_unstructured(self.fc, "weight", 8)

        def forward(self, x):
            state = self.fire.init_leaky()
            for step in x:
                out, state = self.fire(self.fc(step), state)
            return out

    x = spikes(7, 1, 8)
    counter = fxsynops.SynOpsCounter(Net(), x, layout="TN", input_events=True)
    counter(x)
    assert counter.counts.summary["connection sparsity"] == 0.25


def test_neurons_that_fire_twice_have_no_activation_sparsity_but_by_nonzero_events():
    model = nn.Sequential(nn.Linear(2, 3), fnn.IAF())
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].bias.fill_(0)
    x = torch.ones(1, 4, 2)
    for events, expected in (("value", None), ("nonzero", 0.0)):
        counter = fxsynops.SynOpsCounter(model, x, layout="NT", events=events)
        model[1].reset_states()
        counter(x)
        assert counter.counts.summary["activation sparsity"] == expected


def test_effective_macs_are_of_values_that_are_not_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    options = {"events": "nonzero", "weights": "nonzero", "spiking": nn.ReLU}
    x = torch.rand(2, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="N", input_events=False, **options)
    counter(x)
    figures = counter.counts.summary
    with torch.no_grad():
        one = model[:2](x)
        two = model[2:4](one)
    active = float((one != 0).sum() * 4 + (two != 0).sum() * 3) / 2
    assert (figures["Effective MACs"], figures["Effective ACs"]) == (30 + active, 0)


def test_states_of_neurons_are_no_footprint():
    model = nn.Sequential(nn.Linear(8, 4), snntorch.Leaky(beta=0.9, init_hidden=True))
    found = []
    for batch in (1, 64):
        x = spikes(batch, 8)
        counter = fxsynops.SynOpsCounter(model, x, layout="N", input_events=True)
        model[1].reset_hidden()
        counter(x)
        found.append(counter.counts.summary["footprint"])
    assert found[0] == found[1]


def test_what_arrives_follows_masks_and_indices_that_change():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.ones(6))
            self.register_buffer("index", torch.tensor([0, 1, 2]))
            self.a, self.b = nn.Linear(6, 4), nn.Linear(3, 2)

        def forward(self, x):
            return self.a(x * self.mask), self.b(x[:, self.index])

    model, x = Net(), torch.ones(2, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="N", input_events=True)
    counter(x)
    assert [row.arrived for row in counter.counts.rows] == [12, 6]
    model.mask[1:] = 0
    model.index[:] = 5
    counter.clear()
    counter(x)
    assert [row.arrived for row in counter.counts.rows] == [2, 6]
    assert [row.synops for row in counter.counts.rows] == [8, 12]


@pytest.mark.parametrize("neurons", [1, 2, 3])
def test_what_arrives_differs_between_steps_that_are_one_row(neurons):
    """Of the nonzero weights, a step that is padded and one that is read twice are one row."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(neurons + 1, 4)

        def forward(self, x):
            fired = [Fire.apply(now) for now in x]
            first, second = F.pad(fired[0], (0, 1)), torch.cat([fired[1], fired[1][:, -1:]], 1)
            return self.fc(first) + self.fc(second)

    x = spikes(2, 50, neurons) - 0.5
    options = {"layout": "TN", "weights": "nonzero", "input_events": False}
    counter = fxsynops.SynOpsCounter(Net(), x, **options)
    counter(x)
    (row,) = counter.counts.rows
    fired = (x > 0).float().sum(1)
    assert (row.events, row.arrived) == (fired.sum(), fired.sum() + fired[1, -1])
    assert row.synops == 4 * row.arrived


class Once(nn.Module):
    """Weights before a loop of as many steps as its input has, on an image beside it."""

    def __init__(self):
        super().__init__()
        self.image, self.out = nn.Linear(5, 4), nn.Linear(4, 2)
        self.fire = snntorch.Leaky(beta=0.9)

    def forward(self, x, image):
        state, current, found = self.fire.init_leaky(), self.image(image), []
        for step in x:
            spikes, state = self.fire(step + current, state)
            found.append(self.out(spikes))
        return torch.stack(found)


def test_what_runs_once_runs_once_however_many_steps_there_are():
    example = (torch.rand(4, 2, 4), torch.rand(2, 5))
    counter = fxsynops.SynOpsCounter(Once(), example, layout="TN", input_events=False)
    counter(torch.rand(20, 2, 4), torch.rand(2, 5))
    counts = counter.counts
    assert counts.macs == {"image": 2 * 20}
    assert counts.workload.macs == counts.conventional.macs == 20
    assert counts.memory().to_rows()[0]["Weights read"] == 20
    bound = counter.analysis.upper_bound(timesteps=20, max_spikes=1)
    assert bound.workload.macs == bound.memory().to_rows()[0]["Weights read"] == 20


def test_a_recurrent_layer_that_skips_the_first_step():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.r = nn.Linear(6, 8), nn.Linear(8, 8)
            self.fire = snntorch.Leaky(beta=0.9)

        def forward(self, x):
            state, found, spikes = self.fire.init_leaky(), [], None
            for step in x:
                current = self.a(step) if spikes is None else self.a(step) + self.r(spikes)
                spikes, state = self.fire(current, state)
                found.append(spikes)
            return torch.stack(found)

    counter = fxsynops.SynOpsCounter(Net(), torch.ones(5, 2, 6), layout="TN")
    counter(torch.ones(5, 2, 6))
    assert counter.counts.workload.dense_macs == 48 + 64
    rows = {row["Layer"]: row for row in counter.counts.memory().to_rows()}
    assert (rows["a"]["Biases read"], rows["r"]["Biases read"]) == (5 * 8, 4 * 8)
    assert counter.counts.summary["dense"] == 5 * 48 + 4 * 64
    counter.clear()
    counter(torch.ones(1, 2, 6))
    rows = {row.layer: row for row in counter.counts.conventional.rows}
    assert [(rows[name].steps, rows[name].rate, rows[name].total) for name in "ar"] == [
        (1, 1, 48),
        (0, 0, 0),
    ]


def test_a_layer_that_the_example_has_not_is_counted_without_its_size():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 3)

        def forward(self, x):
            return self.a(x), self.b(x) if self.training else None

    x = spikes(2, 6)
    counter = fxsynops.SynOpsCounter(Net().eval(), x, layout="N")
    counter.train()
    counter(x)
    work = counter.counts.workload
    each = float(x.sum()) / 2
    assert [(part.layer, part.synops, part.dense_macs) for part in work.parts] == [
        ("a", 4 * each, 24),
        ("b", 3 * each, 0),
    ]
    assert work.dense_macs == 24
    assert "Not all is known of b" in str(counter.counts.conventional)
    analog = fxsynops.SynOpsCounter(Net(), x, layout="N", input_events=False)
    analog.eval()
    analog(x)  # and one that only the example has does nothing
    assert [(part.layer, part.macs) for part in analog.counts.workload.parts] == [
        ("a", 24),
        ("b", 0),
    ]


def test_values_beside_events_are_as_many_as_they_are():
    """Seven events and two values, in one layer."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Conv1d(9, 4, 3, padding=1)

        def forward(self, x, values):
            return self.fc(torch.cat([x, values], 1))

    x, values = spikes(2, 7, 5), torch.rand(2, 2, 5)
    counter = fxsynops.SynOpsCounter(Net(), (x, values), layout="N")
    counter(x, values)
    events, analog = counter.counts.conventional.rows
    exact = 2 * float(F.conv1d(torch.ones(1, 1, 5), torch.ones(4, 1, 3), padding=1).sum())
    assert (analog.operations, analog.total, analog.exact) == (2 * 5 * 4 * 3, 120, exact)
    assert (analog.at_padding, analog.at_borders, analog.scaled) == near((120 - exact, 0, 0))
    for row in (events, analog):
        parts = row.at_padding + row.at_borders + row.scaled + row.biases
        assert row.difference == pytest.approx(parts)


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0).float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_neurons_that_run_in_some_steps_are_updated_in_these():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.every = nn.Linear(4, 30), nn.Linear(30, 8)
            self.second = nn.Linear(8, 3)
            self.one, self.two = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.9)

        def forward(self, x):
            one, two, found = self.one.init_leaky(), self.two.init_leaky(), 0
            once = Fire.apply(self.before(x))
            for step in range(6):
                s, one = self.one(self.every(once), one)
                if step % 2:
                    out, two = self.two(self.second(s), two)
                    found = found + out
            return found

    x = torch.rand(2, 4)
    counter = fxsynops.SynOpsCounter(Net(), x, layout="N", timesteps=6, input_events=False)
    counter(x)
    work = counter.counts.workload
    neurons = {part.layer: (part.neurons, part.updates) for part in work.parts if part.neurons}
    assert neurons == {"Fire": (30, 30), "one": (8, 6 * 8), "two": (3, 3 * 3)}
    assert counter.counts.summary["Neuron updates"] == 30 + 48 + 9
    counts = counter.counts
    read = sum(row["Potentials read"] for row in counts.memory().to_rows())
    visits = read - sum(row.synops for row in counts.rows) / counts.samples
    assert visits == 30 + 48 + 9


def test_the_rate_of_an_attention_is_of_its_first_factor():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x):
            k, v = Fire.apply(self.k(x)), Fire.apply(self.v(x))
            self.first = (self.q(x) > 0).float()
            self.pairs = self.first @ k.transpose(1, 2)
            return self.pairs @ v

    torch.manual_seed(0)
    model, x = Attention(), spikes(2, 5, 8, rate=0.6)
    counter = fxsynops.SynOpsCounter(model, x, layout="N")
    counter(x)
    *_, pairs, values = counter.counts.conventional.rows
    assert pairs.rate == pytest.approx(float(model.first.detach().mean()))
    assert values.rate == pytest.approx(float(model.pairs.detach().mean()))
    assert values.total == pytest.approx(5 * 5 * 8 * float(model.pairs.detach().mean()))


def test_a_rate_that_is_not_known_is_said():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x):
            q, k, v = (Fire.apply(layer(x)) for layer in (self.q, self.k, self.v))
            return (q @ k.transpose(1, 2)) @ v

    x = spikes(2, 5, 8)
    counter = fxsynops.SynOpsCounter(Net(), x, layout="N")
    counter(x)
    found = counter.counts.conventional
    assert math.isnan(found.acs)
    assert any("rate of the first factor of matmul" in remark for remark in found.remarks)
    assert "not known" in str(found)


def test_a_comparison_with_random_numbers_is_no_neuron():
    class Encoded(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.fire = nn.Linear(4, 3), snntorch.Leaky(beta=0.9)

        def forward(self, x):
            state, found = self.fire.init_leaky(), []
            for _ in range(7):
                s, state = self.fire(self.out((torch.rand_like(x) < x).float()), state)
                found.append(s)
            return torch.stack(found)

    x = torch.rand(2, 4)
    counter = fxsynops.SynOpsCounter(Encoded(), x, layout="N", timesteps=7, input_events=False)
    counter(x)
    assert counter.counts.workload.updates == 7 * 3
    assert counter.counts.summary["Neurons"] == 3


@pytest.mark.parametrize("kind", ["refractory", "resting", "ternary", "floor"])
def test_neurons_that_are_compared_twice_are_there_once(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)

        def forward(self, x):
            v, rest, found = torch.zeros(x.shape[1], 6), torch.zeros(x.shape[1], 6), []
            for step in x:
                v = v + self.a(step)
                if kind == "refractory":
                    rest = (rest - 1).clamp(min=0)
                    v = v * (rest < 0.5).float()
                    s = (v > 0.5).float()
                    rest = rest + 2 * s
                elif kind == "resting":
                    s = (v > 0.5).float() * (rest <= 0).float()
                    rest = (rest - 1).clamp(min=0) + 2 * s
                elif kind == "ternary":
                    s = (v > 0.5).float() - (v < -0.5).float()
                else:
                    s = v.floor().clamp(0, 1)
                    v = v * (v < 3).float()
                v = v - s
                found.append(self.b(s))
            return torch.stack(found)

    torch.manual_seed(0)
    x = spikes(8, 1, 4, rate=0.7)
    model = Net()
    with torch.no_grad():
        if kind != "ternary":
            model.a.weight.abs_()
        model.a.weight.mul_(2)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    counter(x)
    counts = counter.counts
    assert counts.workload.updates == 8 * 6
    first, *others = counts.memory().to_rows()
    assert first["Potentials read"] - first["Weights read"] == 8 * 6
    assert first["Outputs written"] == sum(row["Inputs read"] for row in others) > 0


def test_a_neuron_whose_spikes_are_compared_is_there_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            s = (self.a(x) > 0).float()
            return self.b(s) + self.c((s > 0.5).float())

    x = spikes(5, 4)
    counter = fxsynops.SynOpsCounter(Net(), x)
    counter(x)
    assert list(counter.analysis.spiking) == ["gt"]
    assert counter.counts.summary["Neurons"] == 6
    assert counter.counts.workload.updates == 6


def test_a_bound_without_an_end_has_a_convention_without_one():
    model = nn.Sequential(nn.Linear(4, 3), fnn.IAF(), nn.Linear(3, 2))
    analysis = fxsynops.analyze(model, torch.rand(1, 5, 4), layout="NT", input_events=False)
    found = analysis.upper_bound().conventional
    assert (found.acs, found.macs) == (math.inf, 60)
    assert "unbounded" in str(found)


def test_weights_that_are_zero_are_no_padding():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4, bias=False), fnn.IAF())
    with torch.no_grad():
        model[0].weight[:2] = 0
    options = {"layout": "NT", "input_events": False, "weights": "nonzero"}
    counter = fxsynops.SynOpsCounter(model, torch.rand(1, 3, 6), **options)
    counter(torch.rand(1, 3, 6))
    (row,) = counter.counts.conventional.rows
    assert (row.total, row.exact, row.at_padding) == (72, 36, 0)
    assert row.why == "+36 weights that are zero, and uneven events at borders"


def test_results_are_values_that_nobody_changes():
    model = nn.Sequential(nn.Linear(4, 3), fnn.IAF(), nn.Linear(3, 2), fnn.IAF())
    x = spikes(1, 5, 4)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", rates=True)
    counter(x)
    counts, analysis = counter.counts, counter.analysis
    energy, memory, fits = counts.energy(), counts.memory(), analysis.fits("loihi")
    every = [counts, counts.workload, counts.summary, counts.conventional, counts.advice()]
    every += [energy, energy.by_layer(), memory, memory.model, memory.rows[0].traffic, fits]
    every += [analysis, analysis.connections[0], analysis.connections[0].fanout, fits.chip]
    latency, tables = counts.latency("loihi"), (counts, energy, memory, counts.conventional)
    every += [latency, analysis.upper_bound(), energy.rows[0].device, fits.places[0]]
    every += [result.rows[0] for result in (*tables, latency)]
    for result in every:
        with pytest.raises(FrozenInstanceError):
            setattr(result, fields(result)[0].name, None)


def test_comparisons_that_only_hold_a_membrane_have_not_fired():
    class Net(nn.Module):
        """A refractory time that is a factor of the membrane, and a floor under it."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.spikes = nn.Linear(4, 6), nn.Linear(6, 3), 0.0

        def forward(self, x):
            v, rest, out = torch.zeros(len(x), 6), torch.zeros(len(x), 6), 0
            for t in range(x.shape[1]):
                v = (0.8 * v + self.a(x[:, t])) * (rest <= 0).float()
                v = v * (v > -0.5).float()
                z = (v > 0.3).float()
                v, rest = v - z * 0.3, torch.clamp(rest - 1, min=0) + 2 * z
                out = out + self.b(z)
            return out

    torch.manual_seed(0)
    model, x = Net(), spikes(2, 6, 4)
    seen: list[float] = []
    model.b.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[0].sum())))
    model(x)
    counts = fxsynops.count(model, x, layout="NT")
    (fired,) = counts.fired.values()
    assert fired == counts.rows[1].events == sum(seen[:6]) > 0
