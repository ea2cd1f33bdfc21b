"""Estimates at firing rates, held against the mean over all inputs, by how likely they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.bounds.bound import events_of

RATES = {"x": 0.3, "y": 0.6}
Run = Callable[[Tensor, Tensor], Tensor]


class Two(nn.Module):
    """Two inputs, something between, and a synapse."""

    def __init__(self, run: Run, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.run = run
        self.out = nn.Linear(run(x, y).shape[-1], 7)

    def forward(self, x, y):
        return self.out(self.run(x, y))


def expected(run: Run, size: tuple[int, ...], graded: bool) -> float:
    """The mean of the SynOps of independent spikes, over all inputs that there are."""
    n = math.prod(size)
    mean = 0.0
    for bits in itertools.product((0.0, 1.0), repeat=2 * n):
        chance = 1.0
        for i, bit in enumerate(bits):
            rate = RATES["x" if i < n else "y"]
            chance *= rate if bit else 1 - rate
        x, y = torch.tensor(bits).view(2, 1, *size)
        found = run(x, y)
        mean += chance * float((found != 0).sum() if graded else found.abs().sum())
    return 7 * mean


def estimated(run: Run, size: tuple[int, ...], rate: Any = RATES, **options: Any) -> float:
    ones = torch.ones(1, *size)
    analysis = fxsynops.analyze(Two(run, ones, ones), (ones, ones), **options)
    if isinstance(rate, dict):
        present = {name for connection in analysis.connections for name in connection.sources}
        rate = {name: value for name, value in rate.items() if name in present}
    rows = analysis.upper_bound(rate=rate).rows
    return sum(row.structural for row in rows if row.connection.synapse == "out")


def some_written(x: Tensor) -> Tensor:
    return torch.cat([x, torch.zeros_like(x)], -1)


# Where elements that meet are independent of each other, an estimate is the mean.
BOTH_COUNTS: dict[str, tuple[Run, tuple[int, ...]]] = {
    "a product": (lambda x, y: x * y, (3,)),
    "three factors": (lambda x, y: x[..., :1] * x[..., 1:] * y[..., :1], (2,)),
    "a product with its complement": (lambda x, y: x * (1 - y), (3,)),
    "two complements": (lambda x, y: (1 - x) * (1 - y), (2,)),
    "a complement with a factor": (lambda x, y: x * torch.sub(1, y), (2,)),
    "a complement, reversed": (lambda x, y: x * torch.rsub(y, 1), (2,)),
    "the larger": (torch.maximum, (3,)),
    "the smaller": (torch.minimum, (3,)),
    "the larger of three": (
        lambda x, y: torch.maximum(torch.maximum(x[..., :1], x[..., 1:]), y[..., :1]),
        (2,),
    ),
    "the largest of two": (lambda x, y: F.max_pool1d(x, 2), (4,)),
    "the largest of three": (lambda x, y: F.max_pool1d(y, 3), (3,)),
    "the largest of three, of each of two steps": (lambda x, y: F.max_pool1d(y, 3, 1), (4,)),
    "the largest of a window by a tuple": (lambda x, y: F.max_pool1d(y, (2,)), (4,)),
    "the largest of a square": (lambda x, y: F.max_pool2d(x, 2).flatten(1), (1, 2, 2)),
    "the largest of a rectangle": (lambda x, y: F.max_pool2d(x, (1, 2)).flatten(1), (1, 2, 2)),
    "the largest of an axis": (lambda x, y: x.amax(-1, keepdim=True), (4,)),
    "the smallest of an axis": (lambda x, y: y.amin(-1, keepdim=True), (3,)),
    "the largest of a part of the axes": (lambda x, y: y.amax(-2), (2, 2)),
    "copies": (lambda x, y: torch.cat([x, y, x], -1), (2,)),
    "a slice": (lambda x, y: x[..., 1:], (3,)),
    "a flip": (lambda x, y: x.flip(-1), (3,)),
    "repeated": (lambda x, y: x.repeat(1, 3) * y.repeat(1, 3), (2,)),
    "beside zeros": (lambda x, y: F.relu(some_written(x)), (3,)),
    "padded": (lambda x, y: F.relu(F.pad(x, (1, 2))), (3,)),
    "a part through a gate": (lambda x, y: F.relu(x[..., 1:]), (3,)),
    "beside each other through a gate": (lambda x, y: F.relu(torch.cat([x, y, y], -1)), (2,)),
    "apart": (lambda x, y: F.relu(x.chunk(2, -1)[1]), (4,)),
    "a gate": (lambda x, y: F.relu(x), (3,)),
    "limits": (lambda x, y: x.clamp(0, 1), (3,)),
    "scaled": (lambda x, y: x * 1.0, (3,)),
    "a matrix product of one term": (lambda x, y: x.mT @ y, (2,)),
}
ONLY_VALUES: dict[str, tuple[Run, tuple[int, ...]]] = {
    "a sum": (lambda x, y: x + y, (3,)),
    "a sum through a gate": (lambda x, y: F.relu(x + y), (3,)),
    "a sum of three": (lambda x, y: F.relu(x + y + x.flip(-1)), (3,)),
    "twice the same": (lambda x, y: F.relu(x + x), (3,)),
    "twice the same, with another": (lambda x, y: F.relu(torch.stack([x, y, x]).sum(0)), (3,)),
    "a sum over places": (lambda x, y: F.relu(x.sum(-1, keepdim=True)), (4,)),
    "a running sum": (lambda x, y: F.relu(x.cumsum(-1)), (4,)),
    "a matrix product": (lambda x, y: x @ y.mT, (4,)),
    "a product of sums": (lambda x, y: x.sum(-1, keepdim=True) * y.sum(-1, keepdim=True), (3,)),
    "a window": (lambda x, y: F.relu(F.avg_pool1d(x, 2) * 2), (4,)),
    "overlapping windows": (lambda x, y: F.relu(F.avg_pool1d(x, 2, 1) * 2), (4,)),
    "padded windows": (lambda x, y: F.relu(F.avg_pool1d(y, 2, 2, 1) * 2), (4,)),
}
ONLY_NONZERO: dict[str, tuple[Run, tuple[int, ...]]] = {
    "a sum": (lambda x, y: x + y, (3,)),
    "a sum of three": (lambda x, y: x[..., :1] + x[..., 1:] + y[..., :1], (2,)),
    "a sum over places": (lambda x, y: x.sum(-1, keepdim=True), (4,)),
    "a window": (lambda x, y: F.avg_pool1d(x, 2), (4,)),
    "a window of three": (lambda x, y: F.avg_pool1d(y, 3), (3,)),
    "overlapping windows": (lambda x, y: F.avg_pool1d(x, 2, 1), (4,)),
    "a mean": (lambda x, y: y.mean(-1, keepdim=True), (3,)),
}
CASES = [
    (name, run, size, events)
    for events, cases in (
        ("value", BOTH_COUNTS | ONLY_VALUES),
        ("nonzero", BOTH_COUNTS | ONLY_NONZERO),
    )
    for name, (run, size) in cases.items()
]


@pytest.mark.parametrize(("name", "run", "size", "events"), CASES)
def test_an_estimate_is_the_mean_of_independent_spikes(name, run, size, events):
    mean = expected(run, size, graded=events == "nonzero")
    assert estimated(run, size, events=events) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("p", [0.0, 0.25, 0.75])
@pytest.mark.parametrize("spelling", ["function", "module"])
def test_dropout_lets_pass_what_it_does_not_drop(p, spelling):
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.out = nn.Dropout(p), nn.Linear(4, 5)

        def forward(self, x):
            return self.out(self.drop(x) if spelling == "module" else F.dropout(x, p))

    analysis = fxsynops.analyze(Drops().train(), torch.ones(1, 4))
    assert analysis.upper_bound(rate=0.5).total == pytest.approx(4 * 5 * 0.5 * (1 - p))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("dims", [1, 2])
def test_a_window_is_silent_only_if_all_of_it_is(rate, kernel, dims):
    size = (1, 1, *[kernel * 2] * dims)
    pool = getattr(F, f"max_pool{dims}d")
    run = lambda x, y: pool(x, kernel).flatten(1)  # noqa: E731
    found = estimated(run, size[1:], rate=rate)
    assert found == pytest.approx(7 * 2**dims * (1 - (1 - rate) ** (kernel**dims)))


@pytest.mark.parametrize("rate", [1.5, 4.0])
def test_more_than_one_event_per_step_is_no_chance(rate):
    """What is picked among many fires no more often than the most active of them."""
    assert estimated(lambda x, y: F.max_pool1d(x, 2), (4,), rate=rate) == pytest.approx(
        7 * 2 * rate
    )
    assert estimated(lambda x, y: x + y, (3,), rate=rate) == pytest.approx(7 * 3 * 2 * rate)
    assert estimated(torch.maximum, (3,), rate=rate) == pytest.approx(7 * 3)


@pytest.mark.parametrize("gate", [lambda x: x, F.relu])
def test_a_choice_among_sources_lets_pass_what_the_most_active_of_them_fires(gate):
    """No more than that can come, wherever the choice falls."""
    first = torch.tensor([True, False, True])
    found = estimated(lambda x, y: gate(torch.where(first, x, y)), (3,))
    assert found == pytest.approx(7 * 3 * max(RATES.values()))


# -- names, steps, and what is missing -------------------------------------------------------------


class Chain(nn.Module):
    """Two neurons, a gate behind each, and synapses of different size."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.node, self.other = nn.Linear(2, 3), fnn.IAF(), fnn.IAF()
        self.out, self.last = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x):
        hidden = F.relu(self.node(self.fc(x)))
        return self.last(self.other(self.out(hidden)))


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize(
    ("rate", "found"),
    [
        (0.5, [3.0, 6.0, 10.0]),
        (0, [0.0, 0.0, 0.0]),
        ({"x": 1.0, "node": 0.5, "other": 0.25}, [6.0, 6.0, 5.0]),
        ({"x": 0.0, "node": 2.0, "other": 0.0}, [0.0, 24.0, 0.0]),
        ({"x": 1.0, "node": 0.5, "other": 0.25, "GATE": 0.1}, [6.0, 1.2, 5.0]),
    ],
)
def test_rates_cost_steps_times_neurons_times_synapses(steps, rate, found):
    analysis = fxsynops.analyze(Chain(), torch.ones(1, 1, 2), layout="NT")
    gate = analysis.connections[1].measured_at
    if isinstance(rate, dict):
        rate = {gate if name == "GATE" else name: value for name, value in rate.items()}
    bound = analysis.upper_bound(steps, rate=rate)
    assert bound.estimate
    assert bound.timesteps == steps
    assert [row.structural for row in bound.rows] == pytest.approx([steps * x for x in found])
    assert [row.charge for row in bound.rows] == [row.structural for row in bound.rows]
    assert bound.total == bound.structural == pytest.approx(steps * sum(found))
    assert [row.max_events for row in bound.rows] == pytest.approx(
        [x / n for x, n in zip(found, (6, 12, 20), strict=True)]
    )


def test_rates_are_of_events_whatever_they_cost():
    """Of 2 inputs, of 3 neurons (at the gate behind them), and of 4, in six steps."""
    analysis = fxsynops.analyze(Chain(), torch.ones(1, 1, 2), layout="NT")
    events = events_of(analysis.upper_bound(6, rate={"x": 1.0, "node": 0.5, "other": 0.25}))
    assert list(events.arriving.values()) == [6 * 2 * 1.0, 6 * 3 * 0.5, 6 * 4 * 0.25]
    assert events.fired == {"node": 6 * 3 * 0.5, "other": 6 * 4 * 0.25}


def test_nothing_is_said_of_neurons_that_drive_nothing_and_have_no_rate():
    model = nn.Sequential(nn.Linear(2, 3), fnn.IAF())
    analysis = fxsynops.analyze(model, torch.ones(1, 1, 2), layout="NT")
    assert math.isnan(events_of(analysis.upper_bound(rate={"input": 1.0})).fired["1"])
    assert events_of(analysis.upper_bound(rate={"input": 1.0, "1": 0.5})).fired["1"] == 1.5


@pytest.mark.parametrize(
    ("rate", "missing"),
    [
        ({"x": 1.0, "node": 0.5}, r"nothing of \['other'\]"),
        ({"x": 1.0, "other": 0.5}, r"nothing of \['node'\]"),
        ({"node": 1.0, "other": 0.5}, r"nothing of \['x'\]"),
    ],
)
def test_every_source_needs_a_rate(rate, missing):
    analysis = fxsynops.analyze(Chain(), torch.ones(1, 1, 2), layout="NT")
    with pytest.raises(fxsynops.InputError, match=missing):
        analysis.upper_bound(rate=rate)


@pytest.mark.parametrize(
    "run",
    [
        lambda x, y: x * y,
        lambda x, y: x + y,
        lambda x, y: F.relu(x + y),
        lambda x, y: x @ y.mT,
        torch.maximum,
        torch.minimum,
        lambda x, y: torch.where(x > 0, x, y),
        lambda x, y: F.max_pool1d(torch.cat([x, y], -1), 2),
        lambda x, y: F.dropout(x + y, 0.5, training=True),
    ],
)
@pytest.mark.parametrize("events", ["value", "nonzero"])
def test_where_two_sources_meet_both_need_a_rate(run, events):
    for given in ("x", "y"):
        with pytest.raises(fxsynops.InputError, match="rate says nothing of"):
            estimated(run, (2,), rate={given: 0.5}, events=events)


@pytest.mark.parametrize("rate", [-0.1, "often", {"input": -1}, math.nan, {"input": None}])
def test_a_rate_is_a_number_and_not_negative(rate):
    analysis = fxsynops.analyze(nn.Linear(2, 3), torch.ones(1, 2))
    with pytest.raises(fxsynops.InputError, match="rate"):
        analysis.upper_bound(rate=rate)


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (0.25, "a mean of 0.25 events per neuron and step"),
        ({"input": 0.5}, "a mean of 0.5 from 'input' events per neuron and step"),
    ],
)
def test_an_estimate_says_at_which_rate_it_is_made(rate, said):
    analysis = fxsynops.analyze(nn.Linear(2, 3), torch.ones(1, 2))
    assert said in analysis.upper_bound(rate=rate).assumptions
