"""Bounds hold where events meet signs, time, several passes, rounding and recurrent weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import sinabs.layers as sl
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import neuron as sj
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn

# -- measured <= charge <= structural --------------------------------------------------------------


def held(
    make: Callable[[], nn.Module],
    inputs: list[Tensor],
    *,
    passes: int = 1,
    layout: str = "NT",
    input_events: bool = True,
    seeds: range = range(1),
    **assumed: Any,
) -> tuple[dict[Any, float], dict[Any, Any]]:
    """The largest counts of one sample that inputs reach, none of which is above its bound."""
    options: dict[str, Any] = {"layout": layout, "input_events": input_events}
    torch.manual_seed(0)
    analysis = fxsynops.analyze(make(), inputs[0], **options)
    steps = passes if passes > 1 else None
    bound = analysis.upper_bound(steps, **assumed)
    measured: dict[tuple[str, str], float] = {}
    for x in inputs:
        for seed in seeds:
            counter = fxsynops.SynOpsCounter(make(), x, audit=False, **options)
            torch.manual_seed(seed)
            for _ in range(passes):
                counter(x)
            for row in counter.counts.rows:
                key, synops = row.connection.key, row.synops / analysis.window.samples
                measured[key] = max(measured.get(key, 0.0), synops)
    rows = {row.connection.key: row for row in bound.rows}
    assert measured.keys() == rows.keys()
    for key, row in rows.items():
        assert measured[key] <= row.charge <= row.structural, key
    return measured, rows


def last(found: tuple[dict[Any, float], dict[Any, Any]]) -> tuple[float, Any]:
    """The count and the bound of the last synapse."""
    measured, rows = found
    key = [*rows][-1]
    return measured[key], rows[key]


def weighted(weights: Any, bias: Any = None) -> nn.Linear:
    """A linear layer with the given weights."""
    weight = torch.as_tensor(weights)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(torch.as_tensor(bias))
    return layer


class Between(nn.Module):
    """Something between a synapse and neurons that integrate without a leak, never below zero."""

    def __init__(self, run: Callable[..., Any], first: nn.Module, n: int = 1, **kept: Tensor):
        super().__init__()
        self.run, self.first = run, first
        self.neuron, self.out = fnn.IAF(min_v_mem=0.0), nn.Linear(n, 1)
        for name, value in kept.items():
            self.register_buffer(name, value)

    def forward(self, x):
        return self.out(self.neuron(self.run(self, self.first(x))))


class Behind(nn.Module):
    """Something between neurons that put out what they get, and a synapse."""

    def __init__(self, run: Callable[..., Any], neuron: nn.Module | None = None, n: int = 1):
        super().__init__()
        self.run, self.neuron, self.out = run, neuron or fnn.NeuromorphicReLU(), nn.Linear(n, 1)

    def forward(self, x):
        return self.out(self.run(self.neuron(x)))


def events(steps: int, *places: tuple[int, int], size: int = 1) -> Tensor:
    """An input (1, steps, size) with one event at every (step, element)."""
    x = torch.zeros(1, steps, size)
    for step, element in places:
        x[0, step, element] += 1
    return x


# -- between synapse and neuron --------------------------------------------------------------------
# A weight is worth one event; (run, first layer, input, number of events).

ONE, BOTH = weighted([[1.0]]), torch.eye(2)
EARLY_AND_LATE = events(2, (0, 0), (1, 1), size=2)
CHARGED: dict[str, tuple[Callable[..., Any], nn.Module, Tensor, int]] = {
    "padding with a value": (lambda m, x: F.pad(x, (0, 1), value=1.0), ONE, events(3), 3),
    "the negative part of an absolute value": (
        lambda m, x: x.abs(),
        weighted([[1.0, -1.0]]),
        EARLY_AND_LATE,
        2,
    ),
    "the absolute value of inhibition": (
        lambda m, x: x.abs(),
        weighted([[-1.0]]),
        events(2, (0, 0)),
        1,
    ),
    "a choice that changes in time": (
        lambda m, x: torch.where(m.late, x[..., 1:], x[..., :1]),
        weighted(BOTH),
        EARLY_AND_LATE,
        2,
    ),
    "the larger of two": (
        lambda m, x: torch.maximum(x[..., 1:], x[..., :1]),
        weighted(BOTH),
        EARLY_AND_LATE,
        2,
    ),
    "the largest of a window": (
        lambda m, x: F.max_pool1d(x, 2),
        weighted(BOTH),
        EARLY_AND_LATE,
        2,
    ),
    "the largest of a dilated window": (
        lambda m, x: F.max_pool1d(x, 2, stride=2, dilation=2),
        weighted([[0.0], [0.0], [1.0]]),
        events(2, (0, 0)),
        1,
    ),
    "inhibition of inhibition": (
        lambda m, x: -F.linear(x, torch.ones(1, 1)),
        weighted([[-1.0]]),
        events(2, (0, 0)),
        1,
    ),
    "a negative factor first": (
        lambda m, x: -((-x[..., :1]) * F.relu(x[..., 1:])),
        weighted(BOTH),
        events(2, (0, 0), (0, 1), size=2),
        1,
    ),
    "a negative factor second": (
        lambda m, x: -(F.relu(x[..., :1]) * (-x[..., 1:])),
        weighted(BOTH),
        events(2, (0, 0), (0, 1), size=2),
        1,
    ),
    "two negative factors": (
        lambda m, x: x[..., :1] * x[..., 1:],
        weighted([[-1.0, 0.0], [0.0, -1.0]]),
        events(2, (0, 0), (0, 1), size=2),
        1,
    ),
    "a multiple added": (
        lambda m, x: torch.add(x[..., :1], x[..., 1:], alpha=3),
        weighted(BOTH),
        EARLY_AND_LATE,
        4,
    ),
    "a negative multiple taken off": (
        lambda m, x: torch.sub(x[..., :1], x[..., 1:], alpha=-2),
        weighted(BOTH),
        EARLY_AND_LATE,
        3,
    ),
    "fractions cut off below zero": (
        lambda m, x: x.int().to(x.dtype) + 1.5,
        weighted([[0.0]], [-1.9]),
        events(4),
        2,
    ),
    "an exponential of few events": (
        lambda m, x: torch.expm1(x),
        weighted([[2.0]]),
        events(4, (2, 0)),
        6,
    ),
    "whole numbers of few events": (lambda m, x: x.floor(), ONE, events(4, (2, 0)), 1),
    "a sigmoid far from zero": (
        lambda m, x: torch.sigmoid(x),
        weighted([[1.0]], [4.0]),
        events(10),
        9,
    ),
    "a bias that takes off more than an average event brings": (
        lambda m, x: x,
        weighted([[2.0]], [-0.5]),
        events(4, (0, 0)),
        1,
    ),
}


@pytest.mark.parametrize("name", CHARGED)
def test_charge_comes_through(name):
    run, first, x, spikes = CHARGED[name]
    n = run(Between(run, first, late=LATE), first(x)).shape[-1]
    events_in = int(x.sum(1).max())
    found = held(lambda: Between(run, first, n, late=LATE), [x], input_max_events=max(events_in, 1))
    assert last(found)[0] == spikes


LATE = torch.tensor([[[False], [True]]])


# -- batch norm, dropout, resizing, random constants -----------------------------------------------

MEAN, VARIANCE = torch.tensor([-1.0]), torch.tensor([3.0])


def test_a_functional_batch_norm_is_folded_with_its_mean_and_epsilon():
    """(x + 1) / √(3 + 1): one event of weight one in each of 20 steps brings 1, no event 1/2."""

    def norm(m, x):
        y = F.batch_norm(x.flatten(0, 1), MEAN, VARIANCE, eps=1.0)
        return y.unflatten(0, x.shape[:2])

    full = held(lambda: Between(norm, weighted([[1.0]])), [torch.ones(1, 20, 1)])
    assert last(full)[0] == last(full)[1].charge == 20
    silent = held(lambda: Between(norm, weighted([[0.0]])), [torch.ones(1, 20, 1)])
    assert last(silent)[0] == last(silent)[1].charge == 10


def test_batch_norm_in_training_amplifies_whatever_comes():
    x = torch.zeros(2, 3, 1)
    x[0] = 1

    def functional(m, x):
        y = F.batch_norm(x.flatten(0, 1), m.mean, m.variance, training=True)
        return y.unflatten(0, x.shape[:2])

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = weighted([[0.01]]), nn.BatchNorm1d(1)
            self.neuron, self.out = fnn.IAF(0.5, max_spikes_per_step=1), nn.Linear(1, 1)

        def forward(self, x):
            y = self.norm(self.fc(x).flatten(0, 1)).unflatten(0, x.shape[:2])
            return self.out(self.neuron(y))

    def capped():
        model = Between(functional, weighted([[0.01]]), mean=torch.zeros(1), variance=torch.ones(1))
        model.neuron = fnn.IAF(0.5, max_spikes_per_step=1)
        return model

    for make in (Module, capped):
        assert last(held(make, [x]))[0] == 3 / 2  # one of two samples fires at every step


@pytest.mark.parametrize("functional", [True, False])
def test_dropout_in_training_amplifies_what_it_keeps(functional):
    def make():
        drop = nn.Dropout(0.75)
        model = Between(
            lambda m, x: F.dropout(x, 0.75) if functional else m.drop(x),
            weighted(torch.full((32, 1), 0.25)),
            32,
        )
        model.drop = drop
        return model

    measured, row = last(held(make, [torch.ones(1, 1, 1)], seeds=range(5)))
    assert measured > 0
    assert row.charge == 32


def test_a_cubic_resize_makes_charge_of_inhibition():
    x = torch.ones(1, 3, 1)
    first = weighted([[0.0], [0.0], [-1.0], [0.0], [0.0]])
    model = Between(
        lambda m, x: F.interpolate(x[:, :, None], size=(1, 20), mode="bicubic")[:, :, 0], first, 20
    )
    model.neuron = fnn.IAF(0.05, max_spikes_per_step=1, min_v_mem=0.0)
    resized = model.run(model, first(x))
    assert (resized > 0.05).any()

    def make():
        model.neuron.reset_states()
        return model

    assert last(held(make, [x]))[0] >= 3


@pytest.mark.parametrize(
    "mask",
    [
        lambda held: F.dropout(held, 0.9, training=True),
        lambda held: F.dropout(held, 0.9, training=True) * 2,
        lambda held: F.rrelu(-held, -2.0, 2.0, training=True),
        lambda held: (torch.rand(size=held.shape) > 0.9) * held,
        lambda held: torch.bernoulli(torch.full_like(held, 0.1)) * held,
    ],
)
def test_random_factors_are_others_in_the_next_forward(mask):
    def make():
        model = Between(
            lambda m, x: x * mask(m.held),
            weighted(torch.ones(16, 1)),
            16,
            held=torch.full((16,), 1.5),
        )
        model.neuron = fnn.IAF(max_spikes_per_step=1)
        return model

    measured, row = last(held(make, [torch.ones(1, 1, 1)], seeds=range(5)))
    assert measured > 0
    assert row.charge == 16


# -- events over time ------------------------------------------------------------------------------


class TwoLayers(nn.Module):
    """Spikes of a first layer reach a second one, over time, in some way."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run, self.fc1, self.fc2 = run, weighted([[1.0]]), weighted([[1.0]])
        self.first, self.second, self.out = fnn.IAF(), fnn.IAF(), nn.Linear(1, 1)

    def forward(self, x):
        return self.out(self.second(self.fc2(self.run(self.first(self.fc1(x))))))


@pytest.mark.parametrize(
    ("run", "place", "spikes"),
    [
        (lambda s: s[:, -2:], 3, 2),  # only the last steps arrive
        (lambda s: F.pad(s[:, :-3], (0, 0, 3, 0)), 0, 2),  # late: what comes later never arrives
        (lambda s: s.cumsum(1), 0, 8),  # an early event is there at every step
        (lambda s: s * torch.tensor([1.0, 1.0, 1.0, 5.0])[:, None], 3, 10),
    ],
)
def test_two_events_at_the_step_where_they_weigh_most(run, place, spikes):
    x = events(4, (place, 0), (place, 0))
    assert last(held(lambda: TwoLayers(run), [x], input_max_events=2))[0] == spikes


class OverSteps(nn.Module):
    """A convolution along time, whose taps meet a step in the middle more often."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 5, 3)

    def forward(self, x):
        return self.conv(x.transpose(1, 2))


def test_few_events_of_an_input_come_at_the_step_of_the_largest_fan_out():
    x = torch.stack([events(7, (3, 0), (3, 1), size=2)[0]] * 3)
    assert last(held(OverSteps, [x[:1]], input_max_events=1))[0] == 2 * 3 * 5
    measured, row = last(held(OverSteps, [x], input_max_events=1))  # of one of three samples
    assert measured == row.charge == row.structural == 2 * 3 * 5


class Loop(nn.Module):
    """A static input, read at each of some steps."""

    def __init__(self, steps: int, layer: nn.Module) -> None:
        super().__init__()
        self.steps, self.layer = steps, layer

    def forward(self, x):
        return torch.stack([self.layer(x) for _ in range(self.steps)])


def test_an_event_of_a_static_input_counts_at_every_step():
    model = Loop(4, nn.Linear(2, 3))
    analysis = fxsynops.analyze(model, torch.ones(1, 2), timesteps=4)
    (row,) = analysis.upper_bound(input_max_events=2).rows
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 2), timesteps=4)
    counter(2 * torch.ones(1, 2))
    assert counter.counts.rows[0].synops == row.charge == row.structural == 2 * 2 * 3 * 4


# -- several passes --------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "spikes"), [(0.5, 2), (0.25, 1), (1.0, 5)])
def test_a_window_of_several_passes(weight, spikes):
    """Five forwards of one step, of a neuron that nobody resets, and of one behind it."""

    def make():
        node, behind = (sj.IFNode(v_reset=None) for _ in range(2))
        model = [weighted([[weight]]), node, weighted([[1.0]]), behind, nn.Linear(1, 3)]
        return nn.Sequential(*model)

    measured, rows = held(make, [torch.ones(1, 1)], passes=5, layout="N")
    assert [*measured.values()][1:] == [spikes, 3 * spikes]
    assert [row.charge for row in rows.values()][1:] == [spikes, 3 * spikes]


def test_few_events_of_an_input_are_shared_by_all_passes():
    def make():
        return nn.Sequential(weighted([[1.5]]), sj.IFNode(v_reset=None), nn.Linear(1, 3))

    analysis = fxsynops.analyze(make(), torch.ones(1, 1))
    assert analysis.upper_bound(5, input_max_events=2).rows[1].charge == 3 * 3
    model, ones = make(), torch.ones(1, 1)
    with torch.no_grad():
        spikes = [model[1](model[0](x * ones)) for x in (1, 1, 0, 0, 0)]
    assert float(torch.stack(spikes).sum()) == 3


class Twice(nn.Module):
    """A neuron that is called twice, with little charge and then with much."""

    def __init__(self) -> None:
        super().__init__()
        self.little, self.much = weighted([[0.001]]), weighted([[3.0]])
        self.node = sj.IFNode(v_reset=None)
        self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x):
        early = self.first(self.node(self.little(x)))
        return early, self.second(self.node(self.much(x)))


def test_a_call_emits_what_later_calls_of_the_last_pass_have_left():
    measured, _ = held(Twice, [torch.ones(1, 1)], passes=4, layout="N")
    by_synapse = {key[1]: count for key, count in measured.items()}
    assert (by_synapse["first"], by_synapse["second"]) == (3, 4)


def test_a_window_that_ends_within_a_pass():
    """Five steps are the first five of three passes of two steps."""
    node = sj.IFNode(v_reset=None)
    model = Loop(2, nn.Sequential(weighted([[1.0]]), node, nn.Linear(1, 1)))
    bound = fxsynops.analyze(model, torch.ones(1, 1), timesteps=2).upper_bound(5)
    node.reset()
    spikes = [float(node(torch.ones(1, 1))) for _ in range(5)]
    assert sum(spikes) == 5 <= bound.rows[-1].charge <= bound.rows[-1].structural


def test_a_state_that_is_handed_over_comes_again_in_every_pass():
    class Warm(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.node = weighted([[0.2]]), snntorch.Leaky(1.0)
            self.out = nn.Linear(1, 1)
            self.register_buffer("start", torch.full((1, 1), 0.9))

        def forward(self, x):
            return self.out(self.node(self.fc(x), self.start * 1)[0])

    measured, row = last(held(Warm, [torch.ones(1, 1)], passes=3, layout="N"))
    assert measured == row.charge == 3


def test_the_sample_with_the_largest_state_counts():
    def make():
        model = nn.Sequential(weighted([[0.3]]), sj.IFNode(v_reset=None), nn.Linear(1, 1))
        model[1].v = torch.tensor([[0.9], [0.0], [0.0], [0.0]])
        return model

    measured, row = last(held(make, [torch.ones(4, 1)], layout="N"))
    assert measured == 1 / 4
    assert row.charge == 1


# -- recurrent neurons -----------------------------------------------------------------------------


class Recurrent(nn.Module):
    """snntorch's recurrent neurons, step by step, with weights and a bias of their own."""

    def __init__(
        self, weights: Any, bias: Any = None, beta: float = 1.0, first: Any = None
    ) -> None:
        super().__init__()
        n = len(weights)
        self.first = weighted(torch.eye(n) if first is None else first)
        self.node = snntorch.RLeaky(beta, linear_features=n, init_hidden=True)
        self.node.recurrent = weighted(weights, bias)
        self.out = nn.Linear(n, 1)

    def forward(self, x):
        spikes = [self.node(self.first(x[:, t])) for t in range(x.shape[1])]
        return torch.stack([self.out(s) for s in spikes])


@pytest.mark.parametrize(("bias", "steps", "spikes"), [(1.5, 1, 1), (0.6, 2, 1), (0.4, 10, 3)])
def test_a_recurrent_bias_is_charge_from_the_first_step_on(bias, steps, spikes):
    make = partial(Recurrent, [[0.0]], [bias], first=[[0.0]])
    measured, row = last(held(make, [torch.ones(1, steps, 1)]))
    assert measured == spikes
    assert row.charge == pytest.approx(bias * steps, abs=1)
    assert row.charge == math.floor(bias * steps + 1e-4)


@pytest.mark.parametrize(("bias", "steps", "spikes"), [(1.0, 2, 1), (0.5, 5, 2), (0.25, 13, 3)])
def test_a_recurrent_bias_of_sinabs_comes_one_step_late(bias, steps, spikes):
    def make():
        return nn.Sequential(
            weighted([[0.0]]), sl.IAFRecurrent(weighted([[0.0]], [bias])), nn.Linear(1, 1)
        )

    measured, row = last(held(make, [torch.ones(1, steps, 1)]))
    assert measured == row.charge == spikes


def test_inhibition_that_comes_too_late_takes_no_charge_off():
    """The first neuron excites the third one before the second one inhibits it."""
    weights = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.5, -1.5, 0.0]]
    make = partial(Recurrent, weights, first=torch.diag(torch.tensor([1.5, 1.5, 0.0])))
    x = events(5, (0, 0), (3, 1), size=3)
    assert last(held(make, [x], input_max_events=1))[0] == 3


def test_a_negative_recurrent_bias_is_forgotten_by_a_full_leak():
    """From neuron to neuron to neuron: the third is driven at step 3, and forgets what was."""
    weights = [[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [0.0, 1.8, 0.0]]
    first = torch.diag(torch.tensor([1.5, 0.0, 0.0]))
    make = partial(Recurrent, weights, [0.0, 0.0, -0.7], 0.0, first)
    assert last(held(make, [events(3, (0, 0), size=3)], input_max_events=1))[0] == 3


def test_spikes_of_earlier_calls_come_back():
    """What the second neuron emits at the second step, it owes to the first one's spike."""
    weights = [[0.0, 0.0], [1.5, 0.0]]
    first = torch.diag(torch.tensor([1.5, 0.0]))

    class Second(Recurrent):
        def forward(self, x):
            self.node(self.first(x[:, 0]))
            return self.out(self.node(self.first(x[:, 1]))[:, 1:])

    def make():
        model = Second(weights, first=first)
        model.out = nn.Linear(1, 1)
        return model

    measured, row = last(held(make, [events(2, (0, 0), size=2)]))
    assert measured == row.charge == 1


# -- signs and gates -------------------------------------------------------------------------------

MANY = fnn.NeuromorphicReLU
LIMITED: list[tuple[str, Callable[[Tensor], Tensor], float]] = [
    ("relu6", F.relu6, 6),
    ("hardtanh", F.hardtanh, 1),
    ("hardtanh, by position", lambda s: F.hardtanh(s, 0.0, 3.0), 3),
    ("clamp, by position", lambda s: s.clamp(0, 2), 2),
    ("clamp, its upper limit only", lambda s: torch.clamp(s, max=4), 4),
    ("clamp, its lower limit only", lambda s: torch.clamp(s, 2), 9),
    ("relu", F.relu, 9),
    ("an absolute value", lambda s: (s[..., :1] - s[..., 1:]).abs(), 9),
    ("an absolute value of more that is taken off", lambda s: (1 - s).abs(), 8),
    ("an absolute value of negative events", lambda s: (-s - 1).abs(), 10),
    ("a sum behind a sum", lambda s: F.relu(s[..., :1] + (s[..., 1:] + s[..., :1])), 27),
]


@pytest.mark.parametrize(("name", "run", "most"), LIMITED)
def test_the_most_events_that_come_through(name, run, most):
    """Of neurons that emit nine events at most."""
    x = torch.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 9.0], [0.0, 0.0], [1.0, 2.0]])
    n = run(x[:1]).shape[-1]
    model = Behind(run, n=n)
    bound = fxsynops.analyze(model, x[:1]).upper_bound(max_spikes=9, input_max_events=9)
    (row,) = (row for row in bound.rows if row.connection.synapse == "out")
    counts = []
    for one in x:
        counter = fxsynops.SynOpsCounter(model, one[None])
        counter(one[None])
        counts.append(counter.counts.rows[-1].synops)
    assert max(counts) == most * n
    assert max(counts) <= row.charge <= row.structural
    assert row.max_events == most


@pytest.mark.parametrize("cap", [5, {"neuron": 1}])
def test_the_own_cap_of_a_neuron_holds_beside_what_is_said(cap):
    model = Behind(lambda s: s, sj.IFNode(), 3)
    bound = fxsynops.analyze(model, torch.ones(1, 3)).upper_bound(4, max_spikes=cap)
    assert bound.rows[-1].structural == 4 * 3


def test_negative_events_are_charge_for_negative_weights():
    """Behind gates of which only their limits are known."""

    class Signed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.fc = fnn.IAF(max_spikes_per_step=1), weighted([[-1.0]])
            self.second, self.out = fnn.IAF(), nn.Linear(1, 1)

        def forward(self, x):
            spikes = torch.nan_to_num(torch.clamp(-self.first(x), max=0.0))
            return self.out(self.second(self.fc(spikes)))

    measured, row = last(held(Signed, [torch.ones(1, 4, 1)]))
    assert measured == row.charge == 4


class StraightThrough(nn.Module):
    """Rounded values, each added twice, in a form in which their derivative is one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out, self.plain = weighted(torch.eye(2)), nn.Linear(1, 1), nn.Linear(2, 1)

    def forward(self, x):
        a, b = self.fc(x).chunk(2, -1)
        p, q = torch.floor(a), torch.floor(b)
        twice = (p - a).detach() + a + p + ((q - b).detach() + b + q)
        return self.out(F.relu(twice)), self.plain(torch.cat((p, q), -1))


@pytest.mark.parametrize("caps", [{}, {"max_spikes": 3}])
def test_terms_that_are_added_twice_bring_twice_as_much(caps):
    x = torch.full((1, 2), 3.0)
    measured, rows = held(StraightThrough, [x], layout="N", input_max_events=3, **caps)
    (key,) = (key for key in rows if key[1] == "out")
    assert measured[key] == 2 * (3 + 3)
    assert rows[key].charge == pytest.approx(2 * (3 + 3))
    assert rows[key].structural == (2 * (3 + 3) if caps else math.inf)


# -- rounding --------------------------------------------------------------------------------------


def rounds_up(value: Tensor, exact: float, unit: float = 2.0**-24) -> bool:
    """Whether float32 gives more than a few of its units above the exact sum."""
    return float(value) > exact * (1 + 60 * unit)


def fires_at(model: Any, x: Tensor) -> tuple[Callable[[], nn.Module], float]:
    """The model, with a neuron whose threshold is what the model makes of ``x``, and that value."""
    model.neuron = nn.Identity()
    model.out = nn.Identity()
    with torch.no_grad():
        threshold = float(model(x).sum(1))

    def make():
        model.neuron, model.out = fnn.IAF(threshold), nn.Linear(1, 1)
        return model

    return make, threshold


def test_many_steps_round_the_potential():
    """A potential that adds up 400 float32 numbers reaches more than their exact sum."""
    for weight in torch.arange(0.1, 0.2, 0.001):
        potential = torch.zeros(())
        for _ in range(400):
            potential = potential + weight
        if rounds_up(potential, 400 * float(weight)):
            break
    threshold = float(potential)
    assert threshold > 400 * float(weight)

    def make():
        return nn.Sequential(weighted([[weight]]), fnn.IAF(threshold), nn.Linear(1, 1))

    assert last(held(make, [torch.ones(1, 400, 1)]))[0] == 1


def test_many_terms_of_an_average_are_rounded():
    class Average(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.fc = weighted([[weight]])

        def forward(self, x):
            y = self.fc(x).unflatten(-1, (1, 1)).expand(-1, -1, 64, 64)
            return self.out(self.neuron(F.avg_pool2d(y, 64).flatten(2)))

    for weight in torch.arange(0.1, 0.9, 0.01):
        make, threshold = fires_at(Average(weight), torch.ones(1, 1, 1))
        if rounds_up(torch.tensor(threshold), float(weight)):
            break
    assert rounds_up(torch.tensor(threshold), float(weight))
    assert last(held(make, [torch.ones(1, 1, 1)]))[0] == 1


def test_large_numbers_that_cancel_leave_their_rounding():
    """An analog input near 1000, with positive and negative weights."""

    class Cancels(nn.Module):
        def __init__(self, seed):
            super().__init__()
            weights = torch.randn(1, 64, generator=torch.Generator().manual_seed(seed))
            weights -= weights.mean()
            self.fc = weighted(weights, [0.01])

        def forward(self, x):
            return self.out(self.neuron(self.fc(x)))

    x = torch.full((1, 1, 64), 1000.3)
    for seed in range(50):
        model = Cancels(seed)
        weight, bias = model.fc.weight.detach().double(), model.fc.bias.detach().double()
        exact = float((weight * x[0].double()).sum() + bias)
        make, threshold = fires_at(model, x)
        if exact > 0 and threshold > exact * 1.01:
            break
    assert threshold > exact * 1.01
    values = float(x[0, 0, 0])
    found = held(make, [x], input_events=False, input_range=(values, values))
    assert last(found)[0] == 1


def test_a_batch_norm_far_from_zero_leaves_its_rounding():
    class Norm(nn.Module):
        def __init__(self, gain, mean=20_000.37):
            super().__init__()
            self.fc, self.norm = weighted([[1.0]]), nn.BatchNorm1d(1).eval()
            with torch.no_grad():
                self.norm.running_mean.fill_(mean)
                self.norm.weight.fill_(gain)
                self.norm.bias.fill_(mean * gain)

        def forward(self, x):
            norm = self.norm
            y = F.batch_norm(
                self.fc(x).flatten(0, 1),
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
            )
            return self.out(self.neuron(y.unflatten(0, x.shape[:2])))

    x = torch.ones(1, 1, 1)
    for gain in torch.arange(0.3, 0.5, 0.01):
        model = Norm(float(gain))
        make, threshold = fires_at(model, x)
        norm = copy.deepcopy(model.norm).double()
        exact = float(norm(torch.ones(1, 1, dtype=torch.float64)).detach())
        if exact > 0 and threshold > exact * 1.0001:
            break
    assert threshold > exact * 1.0001
    assert last(held(make, [x]))[0] == 1


def test_adding_and_taking_off_a_large_number_rounds():
    for weight in torch.arange(0.1, 0.9, 0.01):
        model = Between(lambda m, x: x + 1e5 - 1e5, weighted([[weight]]))
        make, threshold = fires_at(model, torch.ones(1, 1, 1))
        if threshold > float(weight) * 1.001:
            break
    assert threshold > float(weight) * 1.001
    assert last(held(make, [torch.ones(1, 1, 1)]))[0] == 1


def test_events_of_a_fraction_are_whole_behind_a_gate():
    """3 · 0.35 / 0.35 is less than 3 in float64."""

    class Bursts(nn.Module):
        def forward(self, x):
            return 0.35 * torch.clamp(torch.floor(x), 0, 3)

    fxsynops.register_spiking(Bursts, amplitude=0.35, max_spikes=3, signed=False)
    assert 3 * 0.35 / 0.35 < 3
    make = partial(Behind, lambda s: F.max_pool1d(s, 1), Bursts())
    found = held(make, [torch.full((1, 1), 3.0)], layout="N", input_max_events=3)
    assert last(found)[0] == 3


# -- spiking functions, states, comparisons, estimates ---------------------------------------------


@pytest.mark.parametrize(("early", "weight"), [(0.5, 0.6), (0.01, 0.995)])
def test_a_step_before_the_threshold_is_no_step_at_it(early, weight):
    def make():
        node = snntorch.Leaky(
            1.0, spike_grad=lambda v: (v > -early).to(v.dtype), init_hidden=True, output=False
        )
        return nn.Sequential(weighted([[weight]]), node, nn.Linear(1, 1))

    assert last(held(make, [torch.ones(1, 1)], layout="N"))[0] == 1


def test_counts_are_scaled_to_one_sample_of_the_window_of_the_bound():
    model = nn.Sequential(weighted([[1.0]]), fnn.IAF(), nn.Linear(1, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4, 1), layout="NT")
    bound = counter.analysis.upper_bound(10)
    counter(torch.ones(2, 4, 1))
    rows = bound.compare(counter.counts).to_rows()
    assert [row["Measured"] for row in rows] == [10, 30]
    assert [row["Used"] for row in rows] == [1, 1]


def test_an_estimate_of_two_calls_is_no_less_than_its_most_active_call():
    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.node, self.pool = sj.IFNode(), nn.MaxPool1d(3, 1, 1)
            self.fc = nn.Linear(9, 2)

        def forward(self, x):
            once = self.pool(self.node(x))
            return self.fc(once) + self.fc(self.pool(once))

    analysis = fxsynops.analyze(Pools(), torch.ones(1, 1, 9))
    (row,) = analysis.upper_bound(rate=0.1).rows
    once = 1 - 0.9**3
    twice = 1 - (1 - once) ** 3
    assert row.max_events == pytest.approx(twice)
    assert row.structural >= 9 * 2 * (once + twice)
