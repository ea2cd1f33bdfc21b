"""The formulas below bounds: the theorem with its rounding, intervals, and writes to neurons."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import snntorch
import torch
from norse.torch.functional.iaf import IAFFeedForwardState
from norse.torch.module.iaf import IAFCell
from spikingjelly.activation_based import neuron as sj
from torch import fx, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.bounds.charge import _dot
from fxsynops.bounds.driven_neurons import Source, is_negative
from fxsynops.bounds.events_per_step import _hull, _multiplied, _rounded, _times
from fxsynops.bounds.interference import _holds_no_charge
from fxsynops.bounds.ranges import unit_of
from fxsynops.neurons.dynamics import Drive, Dynamics, Feedback

# -- the theorem -----------------------------------------------------------------------------------


def node_of(dtype: torch.dtype | None = None, device: str | None = None) -> fx.Node:
    node = fx.Graph().placeholder("x")
    if dtype is not None:
        node.meta["spec"] = SimpleNamespace(dtype=dtype)
    if device is not None:
        node.meta["mode"] = SimpleNamespace(device=device)
    return node


def source(dynamics: Dynamics, dtype: Any = torch.float32, **options: Any) -> Source:
    return Source("neuron", (node_of(dtype),), dynamics=dynamics, **options)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(10))
def test_a_neuron_emits_what_start_and_charge_pay_for(seed):
    draw = random.Random(seed)
    removes, gain, start = (Fraction(draw.randint(1, 12), 4) for _ in range(3))
    restarts, positions, cap = draw.randint(1, 3), draw.randint(1, 5), draw.choice([1, 2, math.inf])
    charges = [Fraction(draw.randint(0, 60), 4) for _ in range(8)]
    drive = Drive(float(removes), float(gain), float(start))
    neuron = source(Dynamics(drive), positions=positions, cap=cap, restarts=restarts)
    events = neuron.emitted(drive, double(*map(float, charges)))
    expected = [math.floor((restarts * start + gain * charge) / removes) for charge in charges]
    assert events.tolist() == [min(n, cap * positions) for n in expected]
    both = source(Dynamics(drive, drive), positions=positions, cap=cap, restarts=restarts)
    found = both.all_events([double(*map(float, charges)), double(0.0)])
    assert found.up.tolist() == events.tolist()
    assert found.down.tolist() == [min(math.floor(restarts * start / removes), cap * positions)]
    assert neuron.all_events([double(1.0), double(1.0)]).down is None


UNITS = {torch.float64: 2**-53, torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8}


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("positions", [1, 4])
def test_rounding_lets_a_neuron_emit_with_a_little_less(dtype, positions):
    """6·(T + 2)·u of the charge and of the largest level, and no more."""
    slack = 6 * (positions + 2) * UNITS[dtype]
    drive = Drive(1.0, 0.5, 0.25)
    neuron = source(Dynamics(drive), dtype, positions=positions)
    for level in (0.0, 2.0):
        drive = Drive(1.0, 0.5, 0.25, level)
        for n in (1, 2):
            enough = ((n - slack * level) / (1 + slack) - 0.25) / 0.5
            little = slack * (0.4 if dtype == torch.float64 else 0.02)
            assert neuron.emitted(drive, double(enough + little)).tolist() == [n]
            assert neuron.emitted(drive, double(enough - little)).tolist() == [n - 1]


@pytest.mark.parametrize("cap", [1, 3, math.inf])
def test_what_is_not_known_can_pay_for_anything(cap):
    drive = Drive(1.0)
    neuron = source(Dynamics(drive), positions=4, cap=cap)
    found = neuron.emitted(drive, double(math.inf, math.nan, 0.0, -3.0))
    assert found.tolist() == [4 * cap, 4 * cap, 0, 0]


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("seed", range(8))
def test_recurrent_events_pay_for_others_one_step_later(seed, late):
    """N_t = ⌊(Q + R·N_{t−1} + b·(t − late)) / κ⌋, and no more than the cap times t."""
    draw = random.Random(seed)
    n, steps, cap = 3, draw.randint(1, 6), draw.choice([1, 2, math.inf])
    weights = [[Fraction(draw.randint(0, 4), 8) for _ in range(n)] for _ in range(n)]
    bias = [Fraction(draw.choice([0, 0, 1, 3]), 8) for _ in range(n)]
    removes = Fraction(draw.randint(2, 6), 4)
    each = [[Fraction(draw.randint(0, 8), 8) for _ in range(n)] for _ in range(steps)]

    def emitted(charge_until: Any) -> list[list[int]]:
        events, found = [0] * n, []
        for step in range(1, steps + 1):
            brought = [
                charge_until(step)[i]
                + sum(w * e for w, e in zip(weights[i], events, strict=True))
                + bias[i] * max(step - late, 0)
                for i in range(n)
            ]
            new = [min(math.floor(charge / removes), cap * step) for charge in brought]
            events = [max(a, b) for a, b in zip(events, new, strict=True)]
            found.append(events)
        return found

    matrix = torch.tensor([[float(w) for w in row] for row in weights], dtype=torch.float64)
    feedback = Feedback(lambda e: e @ matrix.mT, double(*map(float, bias))[None], late)
    drive = Drive(float(removes))
    neuron = source(Dynamics(drive, feedback=feedback), positions=steps, cap=cap)
    sums = [[sum(row[i] for row in each[: t + 1]) for i in range(n)] for t in range(steps)]
    whole = neuron.emitted(drive, double(*map(float, sums[-1]))[None])
    assert whole[0].tolist() == emitted(lambda step: sums[-1])[-1]

    running = torch.tensor([[[float(q) for q in row]] for row in sums], dtype=torch.float64)
    by_step = emitted(lambda step: sums[step - 1])
    found = neuron.until_each_step(drive, running, 0, None)
    assert found[:, 0].tolist() == by_step
    for cut in range(1, steps):  # in two calls
        first = neuron.until_each_step(drive, running[:cut], 0, None)
        second = neuron.until_each_step(drive, running[cut:], cut, first[-1])
        assert torch.cat([first, second])[:, 0].tolist() == by_step


def test_without_recurrence_events_until_a_step_are_what_charge_until_then_pays_for():
    drive = Drive(2.0, start=1.0)
    neuron = source(Dynamics(drive), positions=4, cap=1)
    running = double(0.0, 1.0, 6.5, 7.0)[:, None]
    assert neuron.until_each_step(drive, running, 0, None)[:, 0].tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("dtype", "device", "unit"),
    [
        *((dtype, None, unit) for dtype, unit in UNITS.items()),
        (None, None, 2**-24),
        (torch.int64, None, 2**-24),
        (torch.bool, None, 2**-24),
        (torch.float32, "cpu", 2**-24),
        (torch.float32, "cuda", 2**-11),
        (torch.int8, "cuda", 2**-11),
        (torch.float64, "cuda", 2**-53),
        (torch.bfloat16, "cuda", 2**-8),
    ],
)
def test_the_unit_of_rounding_is_that_of_the_dtype_or_of_tf32(dtype, device, unit):
    assert unit_of(node_of(dtype, device)) == unit


# -- intervals -------------------------------------------------------------------------------------

ENDS = [-math.inf, -3.0, -0.5, 0.0, 2.0, 4.0, math.inf]
PAIRS = [(a, b) for a, b in itertools.product(ENDS, ENDS) if a <= b and not a == b == math.inf]


@pytest.mark.parametrize("number", [2, 3])
def test_an_interval_of_a_product_reaches_from_its_least_to_its_largest(number):
    draw = random.Random(number)
    finite = [pair for pair in PAIRS if all(map(math.isfinite, pair))]
    for _ in range(200):
        parts = [draw.choice(finite) for _ in range(number)]
        inside = [(a, (a + b) / 2, b) for a, b in parts]
        found = [math.prod(values) for values in itertools.product(*inside)]
        assert _multiplied(parts) == (min(found), max(found))
    assert _multiplied([(0.0, 1.0), (-math.inf, math.inf)]) == (-math.inf, math.inf)
    assert _multiplied([(0.0, 0.0), (-math.inf, math.inf)]) == (0.0, 0.0)
    assert _multiplied([(0.0, math.inf), (0.0, 0.0)]) == (0.0, 0.0)


def test_nothing_times_anything_is_nothing():
    for a in (*ENDS, math.nan):
        assert _times(a, 0.0) == _times(0.0, a) == 0.0
    assert [_times(2.0, 3.0), _times(-2.0, 3.0), _times(0.5, -math.inf)] == [6, -6, -math.inf]
    assert [_times(x, math.nan) for x in (2.0, -2.0)] == [math.inf, -math.inf]
    weights, values = double(0.0, 1.0, 2.0, 3.0), double(math.inf, 5.0, 0.0, 1.0)
    assert _dot(weights, values) == 8
    assert _dot(double(math.inf, 1.0), double(0.0, 2.0)) == 2
    assert _dot(double(1.0), double(math.inf)) == math.inf
    assert _dot(torch.tensor([2**24 + 1]), double(1.0)) == 2**24 + 1


def test_the_interval_around_some():
    assert _hull([(1.0, 2.0)]) == (1, 2)
    assert _hull([(1.0, 2.0), (-1.0, 0.0)]) == (-1, 2)
    assert _hull([(-math.inf, 2.0), (3.0, 4.0), (0.0, 9.0)]) == (-math.inf, 9)


def test_numbers_of_events_are_whole_but_for_rounding():
    for n in (0, 1, 3, 1000, -2):
        for error in (0.0, 1e-10, -1e-10):
            near = n + error * max(1, abs(n))
            assert _rounded(near) == n
    for value in (0.5, 2.4999, 1 + 1e-6, 1000 - 1e-4, -0.001, math.inf, -math.inf):
        assert _rounded(value) == value
    assert 3 * 0.35 / 0.35 < 3 == _rounded(3 * 0.35 / 0.35)


@pytest.mark.parametrize(
    ("value", "negative"),
    [
        (torch.tensor([1.0, -0.5]), True),
        (torch.tensor([1.0, 0.0]), False),
        (torch.tensor([-0.0]), False),
        (torch.tensor([3, -1]), True),
        (torch.tensor([True, False]), False),
        (torch.tensor([1], dtype=torch.uint8), False),
        (torch.empty(2, device="meta"), False),
        (torch.empty(0), False),
        (-1.0, False),
        (None, False),
    ],
)
def test_negative_numbers_in_an_example(value, negative):
    assert is_negative(value) == negative


# -- who may write to a neuron ---------------------------------------------------------------------

LIMITS = {"v": 0.5, "w": torch.tensor([1.0, 2.0]), "spike": None}


@pytest.mark.parametrize(
    ("name", "value", "harmless"),
    [
        ("v", 0.0, True),
        ("v", 0, True),
        ("v", 0.5, True),
        ("v", 0.50001, False),
        ("v", -7.0, True),
        ("v", None, True),
        ("v", [], True),
        ("v", [0.0], False),
        ("v", True, False),
        ("v", False, False),
        ("v", "0", False),
        ("v", torch.tensor(0.5), True),
        ("v", torch.tensor([0.0, 0.5]), True),
        ("v", torch.tensor([0.0, 0.6]), False),
        ("v", torch.tensor([1, 0]), False),
        ("v", torch.zeros(2, requires_grad=True), True),
        ("v", math.nan, False),
        ("w", 1.0, True),
        ("w", 1.5, False),
        ("w", torch.tensor([1.0, 2.0]), False),
        ("spike", 9.0, True),
        ("spike", "anything", True),
        ("spike", None, True),
        ("threshold", 0.0, False),
        ("threshold", None, False),
        ("threshold", [], False),
    ],
)
def test_a_state_may_be_set_to_what_holds_no_charge(name, value, harmless):
    place: Any = SimpleNamespace(path=("_buffers", name))
    assert _holds_no_charge(place, value, LIMITS) == harmless


def emptied(value: Any) -> Any:
    def step(net, x):
        net.node.v = value if not isinstance(value, float) else value * torch.ones(1, 1)
        return net.node(x)

    return step


def filled(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.node(x)
    net.node.v.fill_(net.level)
    return y


def zeroed(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.node(x)
    net.node.v.zero_()
    return y


def detached(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.node(x)
    net.node.v.detach_()
    return y


def multiplied(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = net.node(x)
    net.node.v.mul_(0.5)
    return y


class Writes(nn.Module):
    """A neuron of which a half charge is left at each step, and someone who writes to it."""

    def __init__(self, step: Any, level: float = 0.0) -> None:
        super().__init__()
        self.fc, self.node, self.out = nn.Linear(1, 1, bias=False), sj.IFNode(v_reset=None), None
        self.out, self.step, self.level = nn.Linear(1, 1), step, level
        nn.init.constant_(self.fc.weight, 0.25)

    def forward(self, x):
        return torch.stack([self.out(self.step(self, self.fc(x[:, t]))) for t in range(5)], 1)


@pytest.mark.parametrize(
    ("step", "level", "kept"),
    [
        (emptied(0.0), 0.0, True),
        (emptied(0.5), 0.0, False),
        (filled, 0.0, True),
        (filled, -1.0, True),
        (filled, 0.5, False),
        (zeroed, 0.0, True),
        (detached, 0.0, True),
        (multiplied, 0.0, False),
    ],
)
def test_a_forward_that_empties_its_neurons_keeps_their_argument(step, level, kept):
    """Five steps of a quarter pay for one spike; otherwise one per step is all that is known."""
    x = torch.ones(1, 5, 1)
    model = Writes(step, level)
    model.node.v = torch.zeros(1, 1)
    row = fxsynops.analyze(model, x, layout="NT").upper_bound().rows[-1]
    assert bool(row.reasons) != kept
    assert row.charge == (1 if kept else 5)
    measured = Writes(step, level)
    measured.node.v = torch.zeros(1, 1)
    counter = fxsynops.SynOpsCounter(measured, x, layout="NT")
    counter(x)
    assert counter.counts.rows[-1].synops <= row.charge


# -- states that are handed over -------------------------------------------------------------------


class Hands(nn.Module):
    """snntorch's way: states come out of a call and go into the next."""

    def __init__(self, run: Any, **start: torch.Tensor) -> None:
        super().__init__()
        self.fc, self.node, self.out = nn.Linear(1, 1, bias=False), snntorch.Leaky(1.0), None
        self.out, self.run = nn.Linear(1, 1), run
        for name, value in start.items():
            self.register_buffer(name, value)
        nn.init.constant_(self.fc.weight, 0.25)

    def forward(self, x):
        return torch.stack([self.out(s) for s in self.run(self, self.fc(x).unbind(1))], 1)


def chained(first: Any, between: Any = lambda mem: mem) -> Any:
    def run(net, xs):
        mem = first(net)
        for x in xs:
            spikes, mem = net.node(x, mem)
            yield spikes
            mem = between(mem)

    return run


def by_keywords(net, xs):
    mem = net.node.init_leaky()
    for x in xs:
        spikes, mem = net.node(input_=x, mem=mem)
        yield spikes


def crossed(net, xs):
    """Each state goes into the call after the next."""
    first = second = None
    for x in xs:
        spikes, new = net.node(x, first)
        first, second = second, new
        yield spikes


def from_a_buffer(net, xs):
    """Each call starts anew."""
    for x in xs:
        yield net.node(x, net.start)[0]


def from_data(net, xs):
    """The first call starts with what the input says."""
    mem = 4 * xs[0]
    for x in xs:
        spikes, mem = net.node(x, mem)
        yield spikes


@pytest.mark.parametrize(
    ("run", "spikes"),
    [
        (chained(lambda net: None), 2),
        (chained(lambda net: net.node.init_leaky()), 2),
        (chained(lambda net: torch.zeros(1, 1)), 2),
        (chained(lambda net: net.start), 3),
        (chained(lambda net: net.start * 2), 4),
        (chained(lambda net: net.start - 5), 2),
        (chained(lambda net: None, lambda mem: mem.clone()), 2),
        (chained(lambda net: None, lambda mem: mem.detach()), 2),
        (chained(lambda net: None, lambda mem: mem * 1.5), None),
        (chained(lambda net: None, lambda mem: mem + 0.5), None),
        (by_keywords, 2),
        (crossed, None),
        (from_a_buffer, None),
        (from_data, None),
    ],
)
def test_a_state_that_comes_from_the_last_call_keeps_the_argument(run, spikes):
    """Nine steps of a quarter: 2.25, and what the neuron starts with; at most one per step."""
    make = lambda: Hands(run, start=torch.ones(1, 1))  # noqa: E731
    x = torch.ones(1, 9, 1)
    row = fxsynops.analyze(make(), x, layout="NT").upper_bound().rows[-1]
    assert row.charge == (9 if spikes is None else spikes)
    assert bool(row.reasons) == (spikes is None)
    counter = fxsynops.SynOpsCounter(make(), x, layout="NT")
    counter(x)
    assert counter.counts.rows[-1].synops <= row.charge


def test_a_state_of_plain_numbers_is_not_that_of_the_last_call():
    """Each call starts with 0.75: half a charge pays for a spike."""

    class Anew(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.node, self.out = nn.Linear(1, 1, bias=False), IAFCell(), nn.Linear(1, 1)
            nn.init.constant_(self.fc.weight, 0.5)

        def forward(self, x):
            steps = [self.node(self.fc(x[:, t]), IAFFeedForwardState(0.75))[0] for t in range(9)]
            return torch.stack([self.out(spikes) for spikes in steps], 1)

    counter = fxsynops.SynOpsCounter(Anew(), torch.ones(1, 9, 1), layout="NT")
    counter(torch.ones(1, 9, 1))
    row = counter.analysis.upper_bound().rows[-1]
    assert counter.counts.rows[-1].synops == row.charge == 9
    assert row.reasons == ("'node': its state does not come from its last call",)


# -- neurons whose windows start with something ----------------------------------------------------


@pytest.mark.parametrize("start", [0.0, 0.75, 1.5, -2.0])
@pytest.mark.parametrize("steps", [1, 5])
def test_a_window_starts_with_what_the_neuron_holds(start, steps):
    def make():
        model = nn.Sequential(nn.Linear(1, 1, bias=False), fnn.IAF(), nn.Linear(1, 1))
        nn.init.constant_(model[0].weight, 0.5)
        model(torch.zeros(1, 1, 1))
        model[1].v_mem = torch.full((1, 1), start)
        return model

    x = torch.ones(1, steps, 1)
    row = fxsynops.analyze(make(), x, layout="NT").upper_bound().rows[-1]
    assert row.charge == math.floor(max(start, 0) + steps * 0.5)
