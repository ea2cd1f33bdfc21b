"""SynOps step by step: what a prefix of the steps costs, peaks by hand, and steps that are unknown.

The oracle knows nothing of axes: of a model that looks at no step ahead, step ``s`` costs what a
pass of its first ``s + 1`` steps costs more than one of its first ``s``.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import InputError
from fxsynops.losses import limit_loss
from tests import zoo
from tests.zoo import ZOO

T = 4


def in_time(layout: str, first: int, x: torch.Tensor) -> torch.Tensor:
    """The first steps of an input."""
    if layout in ("(TN)", "(NT)"):
        x = x.unflatten(0, (T, -1) if layout == "(TN)" else (-1, T))
        axis = layout.index("T") - 1
        return x.narrow(axis, 0, first).flatten(0, 1)
    axis = {"TN": 0, "NT": 1, "T": 0, "N…T": x.dim() - 1, "NCTHW": 2}[layout]
    return x.narrow(axis, 0, first)


def synops_of(make, layout, x, first, **options):
    """SynOps of a pass of some steps, from the first state."""
    given = {"timesteps": first} if layout.startswith("(") else {}
    part = in_time(layout, first, x)
    counter = fxsynops.SynOpsCounter(make(), part, layout=layout, **given, **options)
    counter(part)
    return counter


def agrees_with_prefixes(make, layout, x, **options):
    counter = synops_of(make, layout, x, T, steps=True, **options)
    assert counter.per_step is not None, counter.counts.steps_unknown
    costs = [0.0] + [
        float(synops_of(make, layout, x, s + 1, **options).synops.detach()) for s in range(T)
    ]
    expected = [after - before for before, after in pairwise(costs)]
    assert counter.per_step.tolist() == expected
    assert len(set(expected)) > 1  # else a mistake would not show
    return counter


def seeded(build):
    def make():
        torch.manual_seed(1)
        return build().eval()

    return make


class Loop(nn.Module):
    """One step after the other; what has fired lowers the potential of the next step."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis
        self.fc, self.out = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        v = s = x.new_zeros(x.shape[1 - self.axis], 5)
        found = []
        for now in x.unbind(self.axis):
            v = 0.5 * v + self.fc(now) - 0.3 * s
            s = (v > 0.3).float()
            found.append(self.out(s))
        return torch.stack(found, self.axis)


class Blocks(nn.Module):
    """One function fires behind every layer of a loop: once in each step, in each of two places."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])

    def forward(self, x):
        total = 0
        for now in x:
            first = (self.layers[0](now) > 0.1).float()
            second = (self.layers[1](first) > 0.1).float()
            total = total + self.layers[2](second)
        return total


class Conv(nn.Module):
    """Samples and steps in one axis, in front of convolutions and a pool."""

    def __init__(self, order: str, way: str = "flatten"):
        super().__init__()
        self.order, self.way = order, way
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3)

    def forward(self, x):
        n, t = x.shape[:2]
        if self.way == "cat":
            y = torch.cat(x.unbind(1 if self.order == "TN" else 0))
        else:
            y = (x.transpose(0, 1) if self.order == "TN" else x).flatten(0, 1)
        y = (self.first(y) > 0).float()
        return self.second(F.max_pool2d(y, 2)).view(t if self.order == "TN" else n, -1, 3, 1, 1)


class Attention(nn.Module):
    """Queries and keys of one step meet; behind them, events of all steps are added up."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.out = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x):
        q, k = (self.q(x) > 0).float(), (self.k(x) > 0).float()
        return self.out(q @ k.mT @ k).cumsum(0)


def inputs(*size: int) -> torch.Tensor:
    """Spikes that become more from step to step, wherever time is."""
    torch.manual_seed(0)
    return (torch.rand(*size) < 0.4).float()


CAUSAL = {
    "axis, NT": (
        lambda: nn.Sequential(nn.Linear(6, 5), fnn.IAF(), nn.Linear(5, 3)), "NT", (3, T, 6)
    ),
    "axis, T": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), "T", (T, 6)),
    "as many samples as steps": (
        lambda: nn.Sequential(nn.Linear(6, 5), fnn.IAF(), nn.Linear(5, 3)), "NT", (T, T, 6)
    ),
    "merged, (NT)": (
        lambda: nn.Sequential(nn.Linear(6, 5), fnn.IAFSqueeze(batch_size=2), nn.Linear(5, 3)),
        "(NT)", (2 * T, 6),
    ),
    "merged, (TN)": (
        lambda: nn.Sequential(nn.Linear(6, 5), fnn.NeuromorphicReLU(), nn.Linear(5, 3)),
        "(TN)", (T * 2, 6),
    ),
    "loop over TN": (lambda: Loop(0), "TN", (T, 3, 6)),
    "loop over NT": (lambda: Loop(1), "NT", (3, T, 6)),
    "two places in a loop": (Blocks, "TN", (T, 3, 6)),
    "merged inside, NT": (lambda: Conv("NT"), "NT", (3, T, 2, 6, 6)),
    "merged inside, TN": (lambda: Conv("TN"), "NT", (3, T, 2, 6, 6)),
    "merged inside, as many samples as steps": (lambda: Conv("TN"), "NT", (T, T, 2, 6, 6)),
    "merged by a cat": (lambda: Conv("TN", "cat"), "NT", (3, T, 2, 6, 6)),
    "merged by a cat, as many samples as steps": (
        lambda: Conv("TN", "cat"), "NT", (T, T, 2, 6, 6)
    ),
    "attention in each step": (Attention, "TN", (T, 2, 5, 6)),
    "attention, one sample": (Attention, "TN", (T, 1, 5, 6)),
    "time behind": (lambda: nn.Conv1d(6, 4, 1), "N…T", (3, 6, T)),
    "time inside": (lambda: nn.Conv3d(2, 4, (1, 3, 3)), "NCTHW", (2, 2, T, 4, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSAL)
def test_a_step_costs_what_a_longer_prefix_costs_more(name):
    build, layout, size = CAUSAL[name]
    agrees_with_prefixes(seeded(build), layout, inputs(*size))


FEW = [
    "spikingjelly parametric LIF, MNIST",
    "spikingjelly spikformer_cifar10",
    "snntorch Leaky, spikes in time",
    "norse LSNNCell",
    "norse Lift",
    "sinabs IAFRecurrent",
    "sinabs IAFSqueeze",
    "sinabs Merge, Repeat, FlattenTime",
    "plain membrane in an attribute",
]


def check_zoo(name):
    case = ZOO[name]
    torch.manual_seed(0)
    model, given = case.build(), case.inputs()
    counter = fxsynops.SynOpsCounter(model, given, steps=True, audit=False, **case.options)
    case.reset(model)
    counter(*given)
    if counter.per_step is None:
        assert counter.counts.steps is None
        assert counter.counts.steps_unknown
        return
    table = counter.step_table()
    assert (
        float(counter.per_step.detach().sum())
        == float(counter.synops.detach())
        == counter.counts.total
    )
    totals = [row.synops for row in counter.counts.rows]
    assert table.sum((1, 2)).tolist() == totals
    found = counter.counts.steps
    whole = [
        sum(mean * n for mean, n in zip(r.mean, found.samples, strict=True)) for r in found.rows
    ]
    assert whole == pytest.approx(totals)


@pytest.mark.parametrize("name", FEW)
def test_the_steps_of_models_add_up(name):
    check_zoo(name)


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(set(ZOO) - set(FEW)))
def test_the_steps_of_all_models_add_up(name):
    check_zoo(name)


PREFIXES = ["norse LSNNCell", "sinabs IAFRecurrent", "sinabs LIF"]


@pytest.mark.parametrize("name", PREFIXES)
def test_a_step_of_a_librarys_model_costs_what_a_longer_prefix_costs_more(name):
    case = ZOO[name]
    (x,) = case.inputs()
    layout = case.options["layout"]
    axis = layout.index("T")

    def counted(first, **more):
        torch.manual_seed(0)
        model, part = case.build(), x.narrow(axis, 0, first)
        counter = fxsynops.SynOpsCounter(model, part, **case.options, **more)
        case.reset(model)
        counter(part)
        return counter

    steps = x.shape[axis]
    costs = [0.0] + [float(counted(s + 1).synops.detach()) for s in range(steps)]
    expected = [after - before for before, after in pairwise(costs)]
    assert counted(steps, steps=True).per_step.tolist() == expected


# -- steps that are the model's own affair ---------------------------------------------------------


class Static(nn.Module):
    """A static image in a loop: its spikes are encoded once, and read in every step."""

    def __init__(self, steps: int, shift: float = 0.3):
        super().__init__()
        self.steps, self.shift = steps, shift
        self.encode, self.fc, self.out = nn.Linear(6, 4), nn.Linear(4, 5), nn.Linear(5, 3)
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        spikes = (self.encode(x) > 0).float()
        v = total = 0
        for _ in range(self.steps):
            v = v + self.fc(spikes) + self.shift
            fired = (v > 1).float()
            v = v - fired
            total = total + self.out(fired)
        return self.last((total > 0).float())


def test_a_static_source_costs_the_same_in_every_step_and_what_is_behind_the_loop_the_last():
    torch.manual_seed(3)
    model, x = Static(T), torch.rand(2, 6)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False, timesteps=T, steps=True)
    counter(x)
    spikes, v, total = (model.encode(x) > 0).float(), 0, 0
    expected = []
    for _ in range(T):
        v = v + model.fc(spikes) + 0.3
        fired = (v > 1).float()
        v, total = v - fired, total + model.out(fired)
        expected.append(float(spikes.sum() * 5 + fired.sum() * 3))
    expected[-1] += float((total > 0).sum() * 2)
    assert counter.per_step.tolist() == expected
    assert len(set(expected)) > 1


def test_what_fires_once_in_front_of_a_loop_counts_in_the_first_step():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.fc, self.out = nn.Linear(6, 7), nn.Linear(7, 5), nn.Linear(5, 3)
            self.scale = nn.Parameter(torch.ones(T, 7))  # as many rows as steps

        def forward(self, x):
            current = self.fc((self.encode(x) > self.scale.sum(0) - T).float())
            v = total = 0
            for _ in range(T):
                v = 0.9 * v + current
                total = total + self.out((v > 0.5).float())
            return total

    torch.manual_seed(1)
    model, x = Once(), torch.rand(2, 6)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False, timesteps=T, steps=True)
    counter(x)
    spikes, v, expected = (model.encode(x) > 0).float(), 0, []
    for _ in range(T):
        v = 0.9 * v + model.fc(spikes)
        expected.append(float((v > 0.5).sum() * 3))
    expected[0] += float(spikes.sum() * 5)
    assert counter.per_step.tolist() == expected
    assert spikes.sum() > 0


@pytest.mark.parametrize("layout", ["N", "NT", ""])
def test_one_step_has_all_synops(layout):
    x = {"N": inputs(3, 6), "NT": inputs(3, 1, 6), "": inputs(6)}[layout]
    counter = fxsynops.SynOpsCounter(nn.Linear(6, 4), x, layout=layout, steps=True)
    counter(x)
    assert counter.per_step.tolist() == [float(x.sum() * 4)]
    assert counter.counts.steps.total.peak_step == 0


def test_a_single_sample_without_axes_has_the_steps_of_its_loop():
    torch.manual_seed(3)
    model, x = Static(T), torch.rand(6)
    counter = fxsynops.SynOpsCounter(
        model, x, layout="", input_events=False, timesteps=T, steps=True
    )
    counter(x)
    alone = fxsynops.SynOpsCounter(model, x[None], input_events=False, timesteps=T, steps=True)
    alone(x[None])
    assert counter.per_step.tolist() == alone.per_step.tolist()


class Repeated(nn.Module):
    """An image repeated inside, with time in front."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = x.unsqueeze(0).repeat(T, 1, 1) * torch.arange(1, T + 1).view(T, 1, 1)
        return self.out((self.fc(x) > 0.9).float())


def test_an_image_that_is_repeated_inside_has_its_steps_in_front():
    torch.manual_seed(0)
    model, x = Repeated(), torch.rand(3, 6)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False, timesteps=T, steps=True)
    counter(x)
    times = [model.fc(x * (s + 1)) for s in range(T)]
    expected = [float((y > 0.9).sum() * 3) for y in times]
    assert counter.per_step.tolist() == expected
    assert len(set(expected)) > 1


class Kept(nn.Module):
    """Spikes are fed back, also into the next forward."""

    def __init__(self):
        super().__init__()
        self.fc, self.back = nn.Linear(6, 5), nn.Linear(5, 5)
        self.s = None

    def forward(self, x):
        s = x.new_zeros(x.shape[1], 5) if self.s is None else self.s
        for now in x:
            s = (self.fc(now) + self.back(s) > 0.1).float()
        self.s = s
        return s


def test_events_count_when_they_are_fired_though_they_arrive_a_step_later():
    torch.manual_seed(0)
    model, x = Kept(), inputs(T, 3, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", steps=True)
    counter(x)
    s, expected = torch.zeros(3, 5), []
    for step, now in enumerate(x):
        s = (model.fc(now) + model.back(s) > 0.1).float()
        fed_back = s.sum() * 5 if step < T - 1 else 0  # nothing in this pass reads the last ones
        expected.append(float(now.sum() * 5 + fed_back))
    assert counter.per_step.tolist() == expected


def test_spikes_of_a_pass_before_count_in_the_first_step():
    torch.manual_seed(0)
    model, x = Kept(), inputs(T, 3, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", steps=True)
    counter(x)
    left = model.s.clone()
    counter(x)
    names = [c.source for c in counter.latest.connections]
    (state,) = [i for i, name in enumerate(names) if name not in ("x", "gt")]
    assert counter.step_table()[state].sum(1).tolist() == [float(left.sum() * 5), 0, 0, 0]


def test_steps_that_cannot_be_told_say_why():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x):  # two steps become one row
            return self.fc((x[0::2] + x[1::2] > 0.5).float())

    x = inputs(T, 3, 6)
    counter = fxsynops.SynOpsCounter(Pairs(), x, layout="TN", steps=True)
    counter(x)
    assert counter.per_step is None
    assert counter.counts.steps is None
    assert "the steps are not those of the inputs" in counter.counts.steps_unknown
    assert "Steps: not known, because" in str(counter.counts)
    with pytest.raises(InputError, match="are not known"):
        counter.counts.peak()
    with pytest.raises(InputError, match="are not known"):
        limit_loss(counter, {"fc": 1.0}, per="peak")


@pytest.mark.parametrize("mixes", [False, True])
def test_a_model_of_a_fixed_number_of_steps_does_not_show_where_they_are(mixes):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            x = x.view(T, 3, 6)  # and no other number
            return self.fc((x[0::2] + x[1::2] > 0.5).float() if mixes else (x > 0.5).float())

    x = inputs(T, 3, 6)
    counter = fxsynops.SynOpsCounter(Fixed(), x, layout="TN", steps=True)
    counter(x)
    assert counter.per_step is None
    assert "not known" in counter.counts.steps_unknown or not mixes
    assert counter.counts.steps_unknown


@pytest.mark.parametrize("way", ["cat", "index", "interleaved"])
def test_an_order_of_samples_and_steps_that_is_not_seen_is_never_guessed(way):
    class Mixed(Conv):
        def forward(self, x):
            if way == "cat":  # of samples, one after the other
                y = torch.cat(x.unbind(0))
            elif way == "index":
                y = x.flatten(0, 1)[torch.arange(len(x) * T).flip(0)]
            else:
                y = torch.stack([x[:, 0::2], x[:, 1::2]]).flatten(0, 2)
            return self.second(F.max_pool2d((self.first(y) > 0).float(), 2))

    x = inputs(3, T, 2, 6, 6)
    counter = fxsynops.SynOpsCounter(Mixed(""), x, layout="NT", steps=True)
    counter(x)
    assert counter.per_step is None
    assert counter.counts.steps_unknown


@pytest.mark.parametrize("axis", [0, 1])
def test_a_neuron_in_as_many_places_as_there_are_steps_is_no_loop_over_them(axis):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.fcs = nn.ModuleList([nn.Linear(6, 6) for _ in range(T)])

        def forward(self, x):  # an image, repeated along an axis of steps
            x = x.unsqueeze(axis).repeat_interleave(T, axis)
            for fc in self.fcs:
                x = (fc(x) > 0).float()
            return x

    x = torch.rand(3, 6)
    counter = fxsynops.SynOpsCounter(Shared(), x, input_events=False, timesteps=T, steps=True)
    counter(x)
    if axis == 0:  # in front of the samples: these are the steps, all of them alike
        assert counter.per_step.tolist() == [counter.synops.item() / T] * T
    else:
        assert counter.per_step is None
        assert "whether axis 1 holds the steps" in counter.counts.steps_unknown


def test_what_is_made_of_all_steps_counts_in_the_last_one_in_however_many_layers():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.fcs = nn.ModuleList([nn.Linear(6, 6) for _ in range(T)])

        def forward(self, x):
            y = x.mean(0)
            for fc in self.fcs:  # as many as there are steps
                y = (fc(y) > 0).float()
            return y

    torch.manual_seed(0)
    model, x = Deep(), torch.rand(T, 3, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", input_events=False, steps=True)
    counter(x)
    assert counter.per_step.tolist() == [0, 0, 0, float(counter.synops.detach())]
    assert float(counter.synops.detach()) > 0


def test_layers_behind_steps_of_the_models_own_are_not_taken_for_a_loop():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.fcs = nn.ModuleList([nn.Linear(6, 6) for _ in range(T)])

        def forward(self, x):
            y = x.unsqueeze(0).repeat(T, 1, 1).mean(0)
            for fc in self.fcs:
                y = (fc(y) > 0).float()
            return y

    x = torch.rand(3, 6)
    counter = fxsynops.SynOpsCounter(Inside(), x, input_events=False, timesteps=T, steps=True)
    counter(x)  # each of the layers once, on what is made of all steps
    assert counter.per_step.tolist() == [0, 0, 0, counter.synops.item()]


def test_counters_without_steps_say_how_to_have_them():
    counter = fxsynops.SynOpsCounter(nn.Linear(6, 3), inputs(2, 6))
    counter(inputs(2, 6))
    with pytest.raises(InputError, match=r"steps=True"):
        counter.per_step  # noqa: B018
    with pytest.raises(InputError, match=r"steps=True"):
        counter.counts.peak()


# -- over data -------------------------------------------------------------------------------------


def batches():
    """Passes of other numbers of samples and steps."""
    torch.manual_seed(5)
    sizes = [(3, 4), (1, 6), (2, 2), (3, 4)]
    return [torch.randint(3, (n, t, 6)).float() * (torch.rand(n, t, 1) < 0.7) for n, t in sizes]


def two_layers():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 5), fnn.IAF(), nn.Linear(5, 3))


def by_hand(data):
    """SynOps of each sample, step by step, of both layers."""
    model, found = two_layers(), []
    for x in data:
        fnn_states = model[1](model[0](x))
        model[1].reset_states()
        both = torch.stack([x.sum(2) * 5, fnn_states.detach().sum(2) * 3])
        found += list(both.unbind(1))
    return found


def measured(data, **options):
    model = two_layers()
    counter = fxsynops.SynOpsCounter(model, data[0], layout="NT", steps=True, **options)
    return counter.measure(data)


def test_mean_maximum_and_peak_over_data_are_those_of_its_samples():
    data, dt = batches(), 2.0
    counts, samples = measured(data, dt=dt), by_hand(data)
    steps = counts.steps
    longest = max(s.shape[1] for s in samples)
    for row, select in ((steps.rows[0], 0), (steps.rows[1], 1), (steps.total, slice(None))):
        series = [s[select].reshape(-1, s.shape[1]).sum(0) for s in samples]
        for step in range(longest):
            values = [float(s[step]) for s in series if len(s) > step]
            assert steps.samples[step] == len(values)
            assert row.mean[step] == pytest.approx(sum(values) / len(values))
            assert row.max[step] == max(values)
        assert row.peak == max(row.max) == row.max[row.peak_step]
    series = [s.sum(0) for s in samples]
    for window in (1, 2, 3, 6, 9):
        most = max(float(s[i : i + window].sum()) for s in series for i in range(len(s)))
        assert counts.peak(window * dt) == pytest.approx(most / (window * dt / 1000))
    assert counts.peak() == counts.peak(dt)


def test_windows_must_be_whole_steps():
    counts = measured(batches(), dt=2.0)
    for window in (0.0, 1.0, 3.0, -2.0):
        with pytest.raises(InputError, match="no whole number of steps"):
            counts.peak(window)


def test_counts_of_two_parts_add_up_step_by_step():
    data = batches()
    together, (first, second) = measured(data), (measured(data[:1]), measured(data[1:]))
    both = (first + second).steps
    assert both.samples == together.steps.samples
    assert both.windows == together.steps.windows
    for ours, theirs in zip(
        (*both.rows, both.total), (*together.steps.rows, together.steps.total), strict=True
    ):
        assert ours.max == theirs.max
        assert ours.mean == pytest.approx(theirs.mean)


def test_memory_does_not_grow_with_the_data():
    model, x = two_layers(), batches()[0]
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", steps=True)
    sizes = []
    for _ in range(2):
        for _ in range(5):
            counter(x)
        totals = counter._account.steps
        held = (*totals._sums.values(), *totals._most.values(), totals._windows)
        sizes.append(sum(tensor.numel() for tensor in held))
    assert sizes[0] == sizes[1] == 2 * 3 * 4 + 4


def test_clear_forgets_steps():
    model, x = two_layers(), batches()[0]
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", steps=True)
    counter(x)
    counter.clear()
    assert counter.counts.steps is None
    assert not counter.counts.steps_unknown


def test_a_table_shows_the_peak_and_its_step():
    counts = measured(batches())
    rows = counts.to_rows()
    for row, steps in zip(rows, counts.steps.rows, strict=True):
        assert row["Peak SynOps/s"] == steps.peak * 1000
        assert row["Peak step"] == steps.peak_step
    assert "Peak SynOps/s" in str(counts)
    content = json.loads(counts.to_json())
    assert content["steps"]["mean"] == list(counts.steps.total.mean)
    assert content["totals"]["Peak SynOps/s"] == counts.peak()


def test_budgets_hold_the_peak_where_steps_are_known():
    data = batches()
    counts = measured(data)
    mean = counts.total / counts.samples / (counts.timesteps / 1000)
    limit = (counts.peak() + mean) / 2
    (broken,) = counts.check(max_synops_per_second=limit)
    assert broken.value == counts.peak()
    assert "in the peak step" in str(broken)
    counter = fxsynops.SynOpsCounter(two_layers(), data[0], layout="NT")
    plain = counter.measure(data)
    assert plain.check(max_synops_per_second=limit) == ()
    (broken,) = plain.check(max_synops_per_second=mean / 2)
    assert broken.value == pytest.approx(mean)
    assert "in the mean step" in str(broken)


# -- training --------------------------------------------------------------------------------------


def test_steps_have_the_gradient_of_what_they_count():
    torch.manual_seed(0)
    model, x = two_layers(), inputs(2, T, 6) * 2
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", steps=True)
    counter(x)
    (grad,) = torch.autograd.grad(counter.per_step.sum(), model[0].weight, retain_graph=True)
    (whole,) = torch.autograd.grad(counter.synops, model[0].weight)
    assert torch.equal(grad, whole)
    assert grad.abs().sum() > 0
    model[1].reset_states()
    leaf = x.clone().requires_grad_()
    counter(leaf)
    (grad,) = torch.autograd.grad(counter.step_table()[0].sum(1)[1], leaf)
    assert grad[:, 1].eq(5).all()
    assert grad.sum() == 5 * 2 * 6  # of the second step's input alone


def test_limits_can_hold_the_peak():
    model, x = nn.Linear(6, 3), torch.zeros(2, T, 6)
    x[0, 1], x[1, 2, :3] = 1, 2
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", steps=True)
    counter(x)
    assert float(limit_loss(counter, {"linear": 9.0}, per="peak")) == (18 - 9) / 9
    assert float(limit_loss(counter, {"linear": 18.0}, per="peak")) == 0
    with pytest.raises(InputError, match="peak"):
        limit_loss(counter, {"linear": 9.0}, per="spike")


# -- samples ---------------------------------------------------------------------------------------


class Former(nn.Module):
    """An image repeated inside; steps and samples are one axis in front of the pool."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3)

    def forward(self, x):
        y = x.unsqueeze(0).repeat(T, 1, 1, 1, 1) * torch.arange(1, T + 1).view(T, 1, 1, 1, 1)
        y = (self.first(y.flatten(0, 1)) > 0.9).float()
        return self.second(F.max_pool2d(y, 2)).view(T, len(x), -1).mean(0)


@pytest.mark.parametrize(
    ("build", "size", "options"),
    [
        (lambda: Conv("NT"), (3, T, 2, 6, 6), {"layout": "NT"}),
        (lambda: Conv("TN"), (3, T, 2, 6, 6), {"layout": "NT"}),
        (lambda: Conv("TN"), (T, T, 2, 6, 6), {"layout": "NT"}),
        (Former, (3, 2, 6, 6), {"timesteps": T}),
        (Former, (T, 2, 6, 6), {"timesteps": T}),
    ],
)
def test_samples_are_told_apart_wherever_they_are_merged_with_steps(build, size, options):
    model = seeded(build)()
    x = inputs(*size) * torch.linspace(1, 3, size[0]).view(-1, *[1] * (len(size) - 1))
    options["input_events"] = False
    counts = fxsynops.SynOpsCounter(model, x, steps=True, **options).measure([x])
    alone = []
    for sample in x.split(1):
        counter = fxsynops.SynOpsCounter(model, sample, **options)
        counter(sample)
        alone.append(float(counter.synops.detach()))
    assert len(set(alone)) > 1
    assert counts.per_sample.max == max(alone)
    assert counts.per_sample.min == min(alone)
    assert counts.per_sample.mean == pytest.approx(sum(alone) / len(alone))
    assert counts.steps.total.max is not None


# -- the bound's most expensive step ---------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ZOO)[::9])
def test_no_step_costs_more_than_the_bounds_most_expensive_one(name):
    case = ZOO[name]
    torch.manual_seed(0)
    model, inputs = case.build(), case.inputs()
    counter = fxsynops.SynOpsCounter(model, inputs, steps=True, audit=False, **case.options)
    bound = counter.analysis.upper_bound()
    case.reset(model)
    counter(*inputs)
    rows = {(r.source, r.synapse, r.measured_at): r for r in counter.counts.steps.rows}
    for row in bound.rows:
        if row.peak is not None:
            assert rows[row.connection.key].peak <= row.peak <= row.charge
    if bound.peak is not None:
        assert counter.counts.steps.total.peak <= bound.peak <= bound.total
        assert bound.report().content["peak"] == bound.peak or bound.peak == float("inf")


def test_the_bounds_most_expensive_step_by_hand():
    model = nn.Sequential(nn.Linear(6, 8), fnn.IAF(max_spikes_per_step=2), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight.fill_(0.5)
        model[0].bias.zero_()
    analysis = fxsynops.analyze(model, torch.ones(2, 5, 6), layout="NT")
    bound = analysis.upper_bound()
    # x: 6 events x 8; the neurons: two events at most, x 3; charge: 5 x 6 x 0.5 = 15 spikes of each
    assert [row.peak for row in bound.rows] == [6 * 8, 2 * 8 * 3]
    assert bound.rows[1].structural == 5 * 2 * 8 * 3
    assert bound.peak == 96
    assert "The most expensive step: 96 SynOps at most." in str(bound)
    (violation,) = bound.check(max_synops_per_second=95_999)
    assert (violation.value, violation.of) == (96_000, "the peak step")
    assert not bound.check(max_synops_per_second=96_000)
    few = analysis.upper_bound(input_max_events=3)  # all of them may come in one step
    assert few.rows[0].peak == few.rows[0].structural == 3 * 6 * 8
    assert few.rows[1].peak == min(2 * 8 * 3, few.rows[1].charge)
    assert analysis.upper_bound(1).peak == analysis.upper_bound(1).total
    assert analysis.upper_bound(rate=0.5).check(max_synops_per_second=1)[0].of == "the mean step"


def test_fan_out_that_differs_from_step_to_step():
    class OverTime(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron, self.conv = fnn.IAF(max_spikes_per_step=1), nn.Conv1d(6, 3, 3)

        def forward(self, x):
            return self.conv(self.neuron(x).transpose(1, 2))

    bound = fxsynops.analyze(OverTime(), torch.ones(2, 5, 6), layout="NT").upper_bound()
    assert bound.peak == 6 * 3 * 3  # a step in the middle: 6 neurons, 3 places, 3 channels
    assert bound.structural == 6 * 3 * (1 + 2 + 3 + 2 + 1)


def test_neurons_that_do_not_say_what_is_a_step_have_no_known_peak():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            return self.fc((x.cumsum(1) > 2).float())

    bound = fxsynops.analyze(Own(), torch.ones(2, 5, 6), layout="NT").upper_bound()
    assert bound.peak is None
    assert math.isfinite(bound.structural)
    assert "not known, since it is not known what fires in which" in str(bound)
    assert bound.check(max_synops_per_second=1)[0].of == "the mean step"


# -- the zoo, by prefixes --------------------------------------------------------------------------


def until(layout, x, steps, window):
    """The first steps of an input."""
    if layout.startswith("("):
        order = (window.timesteps, -1) if layout == "(TN)" else (-1, window.timesteps)
        return x.unflatten(0, order).narrow(layout.index("T") - 1, 0, steps).flatten(0, 1)
    return x.narrow(layout.index("T"), 0, steps)


def by_prefixes(name, monkeypatch):
    """SynOps step by step, as the counter and as shorter passes have them."""
    case = ZOO[name]
    torch.manual_seed(0)
    model, inputs = case.build(), case.inputs()
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.momentum = 1.0
    with torch.no_grad():
        case.reset(model)
        model(*inputs)  # so that norms in eval mode are none over time
    model.eval()
    case.reset(model)
    counter = fxsynops.SynOpsCounter(model, inputs, steps=True, audit=False, **case.options)
    layout, window = counter.analysis.options.layout, counter.analysis.window
    counter(*inputs)
    costs = [0.0]
    for steps in range(1, window.timesteps + 1):
        options = dict(case.options)
        monkeypatch.setattr(zoo, "STEPS", steps)
        if options.get("timesteps"):
            options["timesteps"] = steps
        part = inputs
        if "T" in layout.axes:
            part = tuple(until(layout.axes, x, steps, window) for x in inputs)
        case.reset(model)
        shorter = fxsynops.SynOpsCounter(model, part, audit=False, **options)
        case.reset(model)
        shorter(*part)
        assert shorter.window.timesteps == steps
        costs.append(shorter.synops.item())
    assert counter.per_step is not None, counter.counts.steps_unknown
    return counter.per_step.tolist(), [after - before for before, after in pairwise(costs)]


WITHOUT = (  # no prefix of these is a shorter pass: attention over time, a fixed length or batch
    "spikingjelly att_ms_resnet18",
    "spikingjelly masnn_dvs128_gesture",
    "sinabs recurrent convolution",
)
OF_PREFIXES = [name for name in sorted(ZOO) if name not in WITHOUT and not name.startswith("plain")]


@pytest.mark.parametrize("name", [n for n in OF_PREFIXES if not n.startswith("spikingjelly")][::3])
def test_steps_of_the_zoo_are_what_each_adds(name, monkeypatch):
    found, expected = by_prefixes(name, monkeypatch)
    assert found == expected


@pytest.mark.full
@pytest.mark.parametrize("name", OF_PREFIXES)
def test_steps_of_all_the_zoo_are_what_each_adds(name, monkeypatch):
    found, expected = by_prefixes(name, monkeypatch)
    assert found == expected


# -- steps that a longer pass does not show --------------------------------------------------------


def fire(v):
    return (v > 0).float()


class Fixed(nn.Module):
    """Simple numbers: everything fires on ones. What it does is given."""

    def __init__(self, run):
        super().__init__()
        self.a, self.r, self.b = nn.Linear(5, 7), nn.Linear(7, 7), nn.Linear(7, 3)
        self.run = run
        for module in (self.a, self.r, self.b):
            nn.init.constant_(module.weight, 0.5)
            nn.init.zeros_(module.bias)

    def forward(self, x):
        return self.run(self, x)


def by_a_helper(m, x):
    total = 0
    for t in range(T):  # whatever the length of the input
        s = fire(m.a(x[t]) - 0.2)
        total = total + m.b(fire(m.r(s) - 0.2))
    return total


def test_a_helper_in_by_a_helper_of_a_fixed_number_of_steps():
    x = torch.ones(T, 3, 5)
    counter = fxsynops.SynOpsCounter(Fixed(by_a_helper), x, layout="TN", steps=True)
    counter(x)
    assert counter.per_step.tolist() == [3 * (5 * 7 + 7 * 7 + 7 * 3)] * T


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x[:],
        lambda x: x[:1],
        lambda x: x[0],
        lambda x: x[:, 0],
        lambda x: x[:, :2],
        lambda x: x[:2, 2],
        lambda x: x[None],
        lambda x: x[...],
        lambda x: x[x > 0],
        lambda x: x[[0, 1]],
    ],
)
@pytest.mark.parametrize("layout", ["TN", "NT"])
def test_a_helper_in_a_loop_that_looks_at_its_input_in_other_ways_too(look, layout):
    def run(m, x):
        total, least = 0, 0.2 + 0 * look(x).sum()
        for t in range(T):
            s = fire(m.a(x[t] if layout == "TN" else x[:, t]) - least)
            total = total + m.b(fire(m.r(s) - 0.2))
        return total

    x = torch.ones((T, 3, 5) if layout == "TN" else (3, T, 5))
    counter = fxsynops.SynOpsCounter(Fixed(run), x, layout=layout, steps=True)
    counter(x)
    assert counter.per_step.tolist() == [3 * (5 * 7 + 7 * 7 + 7 * 3)] * T


def leaves(m, x):
    total = 0
    for now in x:
        total = total + m.b(fire(m.a(now) - 0.2))
        if total.sum() > 20:
            break
    return total


def crops(m, x):
    return m.b(fire(m.a(x[:2]) - 0.2)).sum(0)


def every_second(m, x):
    total = 0
    for now in x[::2]:
        total = total + m.b(fire(m.r(fire(m.a(now) - 0.2)) - 0.2))
    return total


def head_behind(m, x):
    total = 0
    for t in range(T):
        total = total + m.r(fire(m.a(x[t]) - 0.2))
    for _ in range(T):  # as many layers, on what is made of all steps
        total = m.r(fire(total - 0.2))
    return total


def heads_in_front(m, x):
    h = m.a(x)[..., :4].view(T, 3, 4, 1).permute(2, 1, 0, 3)  # as many heads as steps
    return h + m.b(fire(h.expand(4, 3, T, 7) - 0.2)).sum()


@pytest.mark.parametrize("run", [leaves, crops, every_second, head_behind, heads_in_front])
def test_steps_that_cannot_be_told_are_said_not_to_be_known(run):
    x = torch.ones(T, 3, 5)
    counter = fxsynops.SynOpsCounter(Fixed(run), x, layout="TN", steps=True)
    counter(x)
    assert counter.per_step is None
    assert counter.counts.steps is None
    assert counter.counts.steps_unknown
    bound = counter.analysis.upper_bound()
    assert all(row.peak is None or row.peak <= row.charge for row in bound.rows)


@pytest.mark.parametrize("repeat", [True, False])
def test_a_static_input_is_read_in_every_step(repeat):
    def run(m, x):
        if repeat:
            return m.b(fire(m.a(x.repeat(T, 1, 1)) - 0.2))
        return torch.stack([m.b(fire(m.a(x) - 0.2)) for _ in range(T)])

    x = torch.ones(3, 5)
    counter = fxsynops.SynOpsCounter(Fixed(run), x, layout="N", timesteps=T, steps=True)
    counter(x)
    if counter.per_step is not None:
        assert counter.per_step.tolist() == [3 * (5 * 7 + 7 * 3)] * T
    else:  # functions without a state may be as many heads
        assert not repeat
    peak = counter.analysis.upper_bound().rows[0].peak
    assert peak is None or peak >= 5 * 7
