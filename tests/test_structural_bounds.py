"""The most events per element and step, held against all inputs that there are."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import neuron as sj
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import InputError

A, B = 3, 2  # the most events of the two sources, per element and step
Run = Callable[[Tensor, Tensor], Tensor]


class Two(nn.Module):
    """Two neurons that put out what they get, something between, and a synapse."""

    def __init__(self, run: Run, example: Tensor) -> None:
        super().__init__()
        self.a, self.b = fnn.NeuromorphicReLU(), fnn.NeuromorphicReLU()
        self.run = run
        self.out = nn.Linear(run(example, example).shape[-1], 5)

    def forward(self, x, y):
        return self.out(self.run(self.a(x), self.b(y)))


def bounded(run: Run, n: int, options: dict[str, Any] | None = None, **assumed: Any) -> Any:
    """The row of the synapse behind ``run``."""
    x = torch.ones(1, n)
    analysis = fxsynops.analyze(Two(run, x), (x, x), **(options or {}))
    present = {name for c in analysis.connections for name in c.sources}
    caps = {name: cap for name, cap in {"a": A, "b": B}.items() if name in present}
    assumed = {"max_spikes": caps, "input_max_events": 9} | assumed
    (row,) = (r for r in analysis.upper_bound(**assumed).rows if r.connection.synapse == "out")
    return row


def all_inputs(n: int, a: Any = range(A + 1), b: Any = range(B + 1)) -> tuple[Tensor, Tensor]:
    """Every pair of inputs of ``n`` elements."""
    every = torch.tensor(list(itertools.product(*[a] * n, *[b] * n)), dtype=torch.float32)
    return every[:, :n], every[:, n:]


def reached(run: Run, n: int, unit: float = 1.0, **domain: Any) -> float:
    """The most events that any input makes of an element."""
    x, y = all_inputs(n, **domain)
    found = torch.cat([run(x[i : i + 1], y[i : i + 1]).flatten() for i in range(len(x))])
    return float((found.double().abs() / unit).max())


LATE = torch.tensor([[True]])


def filled_in(a: Tensor, value: float) -> Tensor:
    a = a.clone()
    a[:, 0] = value
    return F.relu(a)


# Forms in which every source stands once: intervals give what some input reaches.
EXACT: dict[str, tuple[Run, float]] = {
    "a sum": (lambda a, b: F.relu(a + b), 5),
    "a number less what is there": (lambda a, b: F.relu(2 - a.bool().float()), 2),
    "a number less what is above one": (lambda a, b: F.relu(2 - (a > 1).float()), 2),
    "a difference": (lambda a, b: F.relu(a - b), 3),
    "the other difference": (lambda a, b: F.relu(b - a), 2),
    "the magnitude of a difference": (lambda a, b: (b - a).abs(), 3),
    "a magnitude": (lambda a, b: (-a).abs(), 3),
    "a number less": (lambda a, b: F.relu(2 - a), 2),
    "less a number": (lambda a, b: F.relu(a - 2), 1),
    "the magnitude of less a number": (lambda a, b: (b - 6).abs(), 6),
    "a number more": (lambda a, b: F.relu(a + 4), 7),
    "a product": (lambda a, b: F.relu(a * b), 6),
    "a negative factor": (lambda a, b: (-a * b).abs(), 6),
    "two negative factors": (lambda a, b: F.relu((-a) * (-b)), 6),
    "a factor of both signs": (lambda a, b: F.relu((1 - a) * b), 2),
    "its negative part": (lambda a, b: F.relu(-((1 - a) * b)), 4),
    "the larger": (torch.maximum, 3),
    "the smaller of negative ones": (lambda a, b: torch.minimum(-a, -b).abs(), 3),
    "limits": (lambda a, b: a.clamp(0, 2), 2),
    "limits beyond": (lambda a, b: a.clamp(-9, 9), 3),
    "a lower limit above": (lambda a, b: a.clamp(5, 9), 5),
    "a lower limit only": (lambda a, b: a.clamp(min=1), 3),
    "an upper limit below": (lambda a, b: a.clamp(max=-4), 4),
    "an upper limit only": (lambda a, b: (a - b).clamp(max=1), 2),
    "a choice": (lambda a, b: torch.where(LATE, a, b).abs(), 3),
    "a choice of a number": (lambda a, b: torch.where(a > 2, 5.0, b), 5),
    "a choice of a negative number": (lambda a, b: torch.where(a > 2, a, -5.0), 5),
    "a fill": (lambda a, b: a.masked_fill(b > 1, -7.0), 7),
    "a small fill": (lambda a, b: a.masked_fill(b > 1, 1.0), 3),
    "a constant beside": (lambda a, b: F.relu(torch.cat([a, torch.full((1, 1), 6.0)], -1)), 6),
    "a small constant beside": (
        lambda a, b: F.relu(torch.cat([a, torch.full((1, 1), 1.0)], -1)),
        3,
    ),
    "a constant without elements beside": (
        lambda a, b: F.relu(torch.cat([a, torch.zeros(1, 0)], -1)),
        3,
    ),
    "padding with nothing": (lambda a, b: F.relu(F.pad(a, (1, 1))), 3),
    "a number written": (lambda a, b: filled_in(a.repeat(1, 2), 6.0), 6),
    "a small number written": (lambda a, b: filled_in(a.repeat(1, 2), 1.0), 3),
    "beside each other": (lambda a, b: F.relu(torch.cat([b, a], -1)), 3),
    "a product and a number": (
        lambda a, b: torch.addmm(torch.full((1, 1), 6.0), a.mT, b),
        12,
    ),
    "a product and nothing of a number": (
        lambda a, b: torch.addmm(torch.full((1, 1), 6.0), a.mT, b, beta=0),
        6,
    ),
    "a product less a number": (
        lambda a, b: torch.addmm(torch.full((1, 1), 5.0), a.mT, b, beta=-1),
        5,
    ),
    "a product less a small number": (
        lambda a, b: torch.addmm(torch.full((1, 1), 1.0), a.mT, b, beta=-1),
        5,
    ),
    "a product and no number": (
        lambda a, b: torch.addmm(torch.full((1, 1), 6.0), a.mT, b, beta=0),
        6,
    ),
    "a product and twice a number": (
        lambda a, b: torch.addmm(torch.full((1, 1), 6.0), a.mT, b, beta=2),
        18,
    ),
    "fewer beside each other": (lambda a, b: F.relu(torch.cat([b, b], -1)), 2),
    "a matrix product": (lambda a, b: F.relu(a.mT @ b), 6),
}


@pytest.mark.parametrize("name", EXACT)
def test_intervals_of_forms_in_which_every_source_stands_once(name):
    run, most = EXACT[name]
    row = bounded(run, 1)
    assert reached(run, 1) == most
    assert row.max_events == most
    assert row.structural == most * row.connection.fanout.total


@pytest.mark.parametrize(("caps", "most"), [({"a": 0}, 0), ({"a": A, "b": B}, 2 * A * B)])
def test_coincidences_are_as_many_as_pairs_of_events(caps, most):
    """Two places at which both may fire, and five synapses behind what comes out."""
    x = torch.ones(1, 2)
    bound = fxsynops.analyze(Two(lambda a, b: a @ b.mT, x), (x, x)).upper_bound(max_spikes=caps)
    assert [row.max_events for row in bound.rows] == [most, most]
    assert [row.structural for row in bound.rows] == [most, 5 * most]
    assert "-0" not in str(bound)


def test_what_is_rounded_down_may_be_below_zero():
    run = lambda a, b: F.relu(b - (-a / 2).floor())  # noqa: E731
    assert reached(run, 1) == B + 2 <= bounded(run, 1).max_events


# Sums over places: every element once.
PLACES: dict[str, tuple[Run, float]] = {
    "a sum over an axis": (lambda a, b: F.relu(a.sum(-1, keepdim=True)), 6),
    "a running sum": (lambda a, b: F.relu(a.cumsum(-1)), 6),
    "a difference of sums": (lambda a, b: F.relu((a - b).sum(-1, keepdim=True)), 6),
    "a negative sum": (lambda a, b: (-(a + b)).sum(-1, keepdim=True).abs(), 10),
    "an average pool": (lambda a, b: F.relu(F.avg_pool1d(a, 2) * 2), 6),
    "the largest of a window": (lambda a, b: F.max_pool1d(a, 2), 3),
    "the largest of an axis": (lambda a, b: b.amax(-1, keepdim=True), 2),
    "a product of matrices": (lambda a, b: F.relu(a @ b.mT), 12),
    "a product with negative ones": (lambda a, b: (a @ -b.mT).abs(), 12),
    "a flip": (lambda a, b: F.relu(a.flip(-1) + b), 5),
    "halves": (lambda a, b: F.relu(a[:, :1] + a[:, 1:]), 6),
    "halves that are taken off": (lambda a, b: F.relu(a[:, :1] - b[:, 1:] - a[:, 1:]), 3),
    "a mean": (lambda a, b: F.relu(b.mean(-1, keepdim=True) * 2), 4),
}


@pytest.mark.parametrize("name", PLACES)
def test_intervals_of_sums_over_places(name):
    run, most = PLACES[name]
    row = bounded(run, 2)
    unit = 0.5 if name in ("an average pool", "a mean") else 1.0
    assert reached(run, 2, 2 * unit if unit < 1 else 1.0) in (most, most / 2)
    assert row.max_events == most
    assert row.structural == most * row.connection.fanout.total


# -- drawn at random -------------------------------------------------------------------------------


class Drawn:
    """A form of four leaves, each of which stands in it once; zero comes of zeros."""

    def __init__(self, seed: int, factor: float) -> None:
        draw = random.Random(seed)
        self.unit = abs(factor)
        leaves = [f"{source}[:, {i}:{i + 1}] * {factor}" for source in "ab" for i in (0, 1)]
        draw.shuffle(leaves)
        parts = [f"({leaf})" if factor != 1 else leaf.removesuffix(" * 1") for leaf in leaves]
        while len(parts) > 1:
            first, second = parts.pop(0), parts.pop(0)
            form = draw.choice(["({} + {})", "({} - {})"] + (["({} * {})"] if factor == 1 else []))
            part = form.format(first, second)
            low, high = draw.randint(-4, 0) * self.unit, draw.randint(0, 4) * self.unit
            form = draw.choice(
                [
                    *("{}", "{}", "F.relu({})", "{}.abs()", f"{{}}.clamp({low}, {high})"),
                    *(f"{{}}.clamp(min={low})", f"{{}}.clamp(max={high})"),
                ]
            )
            parts.append(form.format(part))
            draw.shuffle(parts)
        last = draw.choice(["F.relu({})", "({}).abs()", "({}).clamp(-99, 99)"])
        self.text = last.format(parts[0])

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return eval(self.text, {"torch": torch, "F": F, "a": a, "b": b})


@pytest.mark.parametrize("seed", range(12))
def test_intervals_of_random_forms_are_what_some_input_reaches(seed):
    run = Drawn(seed, 1)
    x, y = all_inputs(2)
    most = float(run(x, y).abs().max())
    assert bounded(run, 2).max_events == most, run.text


@pytest.mark.parametrize("factor", [-1.0, 0.5, 3.0, -0.25])
@pytest.mark.parametrize("seed", range(2))
def test_intervals_of_scaled_forms_are_no_wider_than_both_signs_of_it(seed, factor):
    """A scale may be negative, so that events behind it may be of either sign."""
    run = Drawn(seed, factor)
    most = float(run(*all_inputs(2)).abs().max()) / run.unit
    both = [range(-A, A + 1), range(-B, B + 1)]
    signed = float(run(*all_inputs(2, *both)).abs().max()) / run.unit
    assert most <= bounded(run, 2).max_events <= signed, run.text


# -- whole numbers that wrap around ----------------------------------------------------------------


class Whole(nn.Module):
    """A sum of inputs in whole numbers."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run, self.out = run, nn.Linear(1, 1)

    def forward(self, x, y):
        return self.out(F.relu(self.run(x, y)).float())


@pytest.mark.parametrize(
    ("dtype", "cap", "most"),
    [
        (torch.int8, 63, 126),
        (torch.int8, 64, 127),
        (torch.int8, 100, 127),
        (torch.uint8, 128, 255),
        (torch.int32, 128, 256),
    ],
)
def test_whole_numbers_wrap_around_where_a_sum_is_beyond_them(dtype, cap, most):
    x = torch.ones(1, 1, dtype=dtype)
    analysis = fxsynops.analyze(Whole(torch.add), (x, x))
    (row,) = analysis.upper_bound(input_max_events=cap).rows
    every = torch.arange(cap + 1).to(dtype)
    assert most - 1 <= int(F.relu(every[:, None] + every).max()) <= most
    assert row.max_events in (most, most + 1)  # -128 is the least of int8


# -- what is said of sources -----------------------------------------------------------------------


@pytest.mark.parametrize("said", [None, 0, 1, 2.5, 7, {"1": 0}, {"1": 2}, {"1": 7}, {"input": 3}])
@pytest.mark.parametrize("own", [None, 4])
def test_a_cap_is_the_smaller_of_what_is_said_and_its_own(own, said):
    model = nn.Sequential(nn.Linear(2, 3), fnn.IAF(max_spikes_per_step=own), nn.Linear(3, 4))
    analysis = fxsynops.analyze(model, torch.ones(1, 5, 2), layout="NT")
    row = analysis.upper_bound(max_spikes=said).rows[1]
    given = said.get("1") if isinstance(said, dict) else said
    most = min(math.inf if own is None else own, math.inf if given is None else given)
    assert row.max_events == most
    assert row.structural == 5 * 3 * 4 * most
    assert row.charge <= row.structural


@pytest.mark.parametrize("events", ["value", "nonzero"])
@pytest.mark.parametrize("said", [None, 0, 0.5, 1, 3])
def test_events_of_inputs_over_the_window_and_over_a_step(said, events):
    """One per step, if nothing is said; what is said is of all steps."""
    model = nn.Linear(2, 3)
    analysis = fxsynops.analyze(model, torch.ones(1, 5, 2), layout="NT", events=events)
    (row,) = analysis.upper_bound(input_max_events=said).rows
    assert row.max_events == min(1 if said is None else said, 1 if events == "nonzero" else 99)
    assert row.structural == (5 if said is None else said) * 2 * 3


def test_a_neuron_with_both_signs_sends_both():
    class Both(nn.Module):
        def __init__(self, run):
            super().__init__()
            self.fc, self.node = nn.Linear(1, 1, bias=False), sj.TernaryIFNode()
            self.run, self.out = run, nn.Linear(1, 1)
            nn.init.constant_(self.fc.weight, -2.0)

        def forward(self, x):
            return self.out(self.run(self.node(self.fc(x))))

    for run, most in (
        (lambda s: F.relu(-s), 1),
        (lambda s: F.relu(1 - s), 2),
        (lambda s: (s - 1).abs(), 2),
        (lambda s: F.relu(s), 1),
    ):
        counter = fxsynops.SynOpsCounter(Both(run), torch.ones(1, 1))
        counter(torch.ones(1, 1))
        row = counter.analysis.upper_bound().rows[-1]
        assert counter.counts.rows[-1].synops <= row.charge <= row.structural == most


def test_a_step_that_is_written_with_a_sign_is_one_event_at_most():
    class Sign(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(2, 3), nn.Linear(3, 4)

        def forward(self, x):
            return self.out((torch.sign(self.fc(x)) + 1) / 2)

    row = fxsynops.analyze(Sign(), torch.ones(1, 2)).upper_bound().rows[-1]
    assert (row.max_events, row.structural) == (1, 3 * 4)


# -- the most expensive step -----------------------------------------------------------------------


class Loop(nn.Module):
    """A layer of 2 x 3 synapses and one of 3 x 4, and neurons that are called at some steps."""

    def __init__(self, steps: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.node, self.out = nn.Linear(2, 3), sj.IFNode(), nn.Linear(3, 4)
        self.steps = steps

    def forward(self, x):
        return torch.stack([self.out(self.node(self.fc(step))) for step in self.steps(x)], 1)


@pytest.mark.parametrize(
    ("steps", "layout", "options", "peaks"),
    [
        (lambda x: x.unbind(1), "NT", {}, [2 * 3, 3 * 4]),
        (lambda x: x.unbind(1), "NT", {"max_spikes": 0.5}, [2 * 3, 0.5 * 3 * 4]),
        (lambda x: x.unbind(1), "NT", {"input_max_events": 2}, [2 * 2 * 3, 3 * 4]),
        (lambda x: x.unbind(1), "NT", {"input_max_events": 0}, [0, 3 * 4]),
        (lambda x: x.unbind(1)[::2], "NT", {}, [2 * 3, None]),  # at which steps is not known
        (lambda x: [x], "N", {"timesteps": 5}, [2 * 3, 3 * 4]),  # each step is a forward
        (lambda x: [x], "N", {"timesteps": 5, "input_max_events": 2}, [2 * 2 * 3, 3 * 4]),
        (lambda x: [x], "N", {}, [2 * 3, 3 * 4]),
    ],
)
def test_a_step_costs_what_all_can_emit_in_it(steps, layout, options, peaks):
    """One event of each input and neuron, times its synapses; of few, all may come at once."""
    model, x = Loop(steps), torch.ones(2, 5, 2) if layout == "NT" else torch.ones(2, 2)
    nn.init.constant_(model.fc.bias, 9.0)  # charge allows as many events as there are steps
    bound = fxsynops.analyze(model, x, layout=layout).upper_bound(**options)
    assert [row.peak for row in bound.rows] == peaks
    assert bound.peak == (None if None in peaks else sum(peaks))


@pytest.mark.parametrize(("reads", "peaks"), [(5, [2 * 3, 3 * 4]), (1, [2 * 3, None])])
def test_a_static_input_counts_in_every_step_in_which_it_is_read(reads, peaks):
    model, x = Loop(lambda x: [x] * reads), torch.ones(2, 2)
    nn.init.constant_(model.fc.bias, 9.0)
    bound = fxsynops.analyze(model, x, layout="N", timesteps=5).upper_bound()
    assert [row.peak for row in bound.rows] == peaks


# -- what may be assumed ---------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, -1, True, 2.0, "3"])
def test_a_window_is_a_positive_whole_number_of_steps(steps):
    analysis = fxsynops.analyze(nn.Linear(2, 3), torch.ones(1, 2))
    with pytest.raises(InputError, match="timesteps must be a positive whole number"):
        analysis.upper_bound(steps)
    assert analysis.upper_bound(1).total == 6


@pytest.mark.parametrize("said", [-1, -0.5, "few", (1,), math.nan, {"input": -1}, {"input": "x"}])
def test_numbers_of_events_are_numbers_and_not_negative(said):
    analysis = fxsynops.analyze(nn.Linear(2, 3), torch.ones(1, 2))
    with pytest.raises(InputError, match="max_spikes must be a number and not negative"):
        analysis.upper_bound(max_spikes=said)
    with pytest.raises(InputError, match="input_max_events must be a number and not negative"):
        analysis.upper_bound(input_max_events=said)


@pytest.mark.parametrize("pair", [(1, 0), (0, 1, 2), (0,), (math.nan, 1)])
@pytest.mark.parametrize("named", [True, False])
def test_intervals_of_inputs_are_from_the_least_to_the_most(pair, named):
    analysis = fxsynops.analyze(nn.Linear(2, 3), torch.rand(1, 2), input_events=False)
    with pytest.raises(InputError, match="input_range is"):
        analysis.upper_bound(input_range={"input": pair} if named else pair)
    assert analysis.upper_bound(input_range=(1, 1)).total == 0


class Mixed(nn.Module):
    """Analog inputs, events, and a neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.events, self.out = nn.Linear(1, 1), nn.Linear(1, 1)
        self.node = fnn.IAF()
        for layer in (self.one, self.other):
            nn.init.constant_(layer.weight, 1.0)

    def forward(self, x, y, e):
        return self.out(self.node(self.one(x) + self.other(y))), self.events(e)


@pytest.mark.parametrize(
    ("given", "most"),
    [
        ((0, 2), 12),
        ({"x": (0, 1), "y": (0, 2)}, 9),
        ({"x": (0, 1), "y": (-2, 0)}, 3),
        ({"x": (0, 0), "y": (-1, 3)}, 9),
        ({"x": (0, 1)}, math.inf),
        (None, math.inf),
    ],
)
def test_intervals_of_analog_inputs_by_name(given, most):
    """Three steps of a neuron that emits what it gets."""
    x = torch.full((1, 3, 1), 0.5)
    inputs = (x, x, torch.ones(1, 3, 1))
    analysis = fxsynops.analyze(Mixed(), inputs, layout="NT", input_events=(False, False, True))
    rows = {r.connection.synapse: r for r in analysis.upper_bound(input_range=given).rows}
    assert rows["out"].charge == most
    assert rows["events"].charge == 3


@pytest.mark.parametrize("interval", [(-3, -1), (-2, 0), (-1, 2), (0, 3), (1, 4), (2, 2)])
@pytest.mark.parametrize("weight", [2.0, -1.0])
@pytest.mark.parametrize("bias", [1.0])
def test_both_ends_of_an_interval_count_by_the_sign_of_the_weight(interval, weight, bias):
    """A neuron that emits what it gets, at the end of the interval that brings most."""
    model = nn.Sequential(nn.Linear(1, 1), fnn.NeuromorphicReLU(), nn.Linear(1, 3))
    nn.init.constant_(model[0].weight, weight)
    nn.init.constant_(model[0].bias, bias)
    x = torch.full((1, 1), 0.5)
    analysis = fxsynops.analyze(model, x, input_events=False)
    most = max(0.0, *(weight * end + bias for end in interval))
    for given in (interval, {"input": interval}):
        (row,) = analysis.upper_bound(2, input_range=given).rows
        assert row.charge == 2 * 3 * most
        counter = analysis.counter()
        counter(torch.tensor(interval, dtype=torch.float32)[:, None])
        assert counter.counts.rows[0].synops <= row.charge


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ["at most one event per input element and step", "analog inputs of any value"]),
        ({"input_max_events": 4}, ["at most 4 events per input element over all steps"]),
        ({"max_spikes": 2}, ["at most 2 per neuron and step"]),
        ({"max_spikes": {"node": 5}}, ["at most 5 from 'node'"]),
        ({"input_range": (0, 0.5)}, ["analog inputs in [0, 0.5]"]),
        (
            {"input_range": {"x": (0, 1), "y": (-1, 2)}},
            ["'x' in [0, 1]", "'y' in [-1, 2]"],
        ),
    ],
)
def test_a_bound_says_what_it_assumes_and_nothing_else(options, said):
    x = torch.full((1, 3, 1), 0.5)
    inputs = (x, x, torch.ones(1, 3, 1))
    analysis = fxsynops.analyze(Mixed(), inputs, layout="NT", input_events=(False, False, True))
    words = analysis.upper_bound(**options).assumptions
    for part in said:
        assert any(word.startswith(part) for word in words), words
    assert sum(word.startswith("at most one event per input") for word in words) == (
        "input_max_events" not in options
    )
    assert sum("of any value" in word for word in words) == ("input_range" not in options)
    number = 3 + ("max_spikes" in options) + isinstance(options.get("input_range"), dict)
    assert len(words) == number


@pytest.mark.parametrize(
    ("first", "second", "negative"), [(1, 1, False), (-1, 1, True), (1, -1, True), (-1, -1, True)]
)
def test_the_signs_of_events_of_all_inputs_are_an_assumption(first, second, negative):
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(1, 1)

        def forward(self, x, y):
            return self.out(x) + self.out(y)

    x, y = torch.full((1, 1), float(first)), torch.full((1, 1), float(second))
    words = fxsynops.analyze(Adds(), (x, y)).upper_bound().assumptions
    assert ("negative events in inputs, as in the example" in words) == negative
    assert ("no negative events in inputs, as in the example" in words) != negative


def test_nothing_is_said_of_analog_inputs_where_there_are_none():
    words = fxsynops.analyze(nn.Linear(2, 3), torch.ones(1, 2)).upper_bound().assumptions
    assert not any("analog" in word for word in words)


class Recurrent(nn.Module):
    """A loop whose recurrence begins with its second step."""

    def __init__(self, calls=1):
        super().__init__()
        self.calls = calls
        self.into, self.back = nn.Linear(8, 10), nn.Linear(10, 10)

    def forward(self, x):
        spikes, back = None, 0.0
        for t in range(x.shape[1]):
            if spikes is not None:
                back = sum(self.back(spikes) for _ in range(self.calls))
            spikes = (self.into(x[:, t]) + back > -1e9).float()
        return spikes


@pytest.mark.parametrize("steps", [2, 3, 7, 10])
@pytest.mark.parametrize("calls", [1, 2])
def test_what_a_first_step_leaves_out_is_in_no_fraction(steps, calls):
    """Neurons and synapses are of a step in which it happens; the bound is of those that do."""
    x = torch.ones(2, steps, 8)
    counter = fxsynops.SynOpsCounter(Recurrent(calls), x, layout="NT")
    connection = next(c for c in counter.analysis.connections if c.synapse == "back")
    assert connection.neurons == 10
    assert connection.fanout.total == 100 * calls
    assert connection.synapses == pytest.approx(100 * calls * (steps - 1) / steps, rel=1e-12)
    counter(x)  # every neuron fires in every step
    for window in (1, steps, 50):
        bound = counter.analysis.upper_bound(timesteps=window) if window >= steps else None
        if bound is not None:
            most = {row.connection.synapse: row.structural for row in bound.rows}
            assert most == pytest.approx({"into": 80 * window, "back": 100 * calls * (window - 1)})
    rows = {row.connection.synapse: row for row in counter.counts.rows}
    assert rows["back"].synops == 2 * 100 * calls * (steps - 1)
    assert rows["back"].rate == pytest.approx((steps - 1) / steps)
