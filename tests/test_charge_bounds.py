"""The charge bound, held against the theorem worked out neuron by neuron."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import neuron as sj
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn

# -- chains of layers ------------------------------------------------------------------------------


class Layer:
    """Weights, biases and neurons, drawn in quarters, so that all sums are exact."""

    def __init__(self, draw: random.Random, inputs: int, outputs: int, cap: int | None) -> None:
        def quarters(low: int, high: int) -> Fraction:
            return Fraction(draw.randint(low, high), 4)

        self.weights = [[quarters(-4, 5) for _ in range(inputs)] for _ in range(outputs)]
        self.bias = [quarters(-3, 3) if draw.random() < 0.4 else Fraction(0) for _ in self.weights]
        self.theta = draw.choice([Fraction(1, 2), Fraction(1), Fraction(3)])
        self.cap = math.inf if cap is None else cap

    def linear(self) -> nn.Linear:
        layer = nn.Linear(len(self.weights[0]), len(self.weights))
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[float(w) for w in row] for row in self.weights]))
            layer.bias.copy_(torch.tensor([float(b) for b in self.bias]))
        return layer

    def charge(self, i: int, events: list[Any], steps: int, signed: bool) -> Any:
        """What events (in all, over some steps) bring to a neuron at most."""
        brought = max(self.bias[i], Fraction(0)) * steps
        for weight, n in zip(self.weights[i], events, strict=True):
            size = abs(weight) if signed else max(weight, Fraction(0))
            brought += size * n if size and n else 0
        return brought

    def afford(self, charge: Any) -> Any:
        return charge if charge == math.inf else Fraction(math.floor(charge / self.theta))


def by_hand(
    layers: list[Layer], steps: int, inputs: int, most: int | None, signed: bool, passes: int = 1
) -> list[float]:
    """Events of each layer, by the smaller of two ways: step by step, and in all.

    Step by step, a neuron has emitted until a step what its charge until then affords, but in one
    step no more than its cap. Where a window is of several forwards (passes) of one step each, only
    the charge of all of them counts.
    """
    window = steps * passes
    in_step = [[Fraction(1 if most is None else most)] * inputs for _ in range(window)]
    in_all: list[Any] = [Fraction(window if most is None else most)] * inputs
    found = []
    for number, layer in enumerate(layers):
        of_either_sign = signed and not number
        so_far = [Fraction(0)] * len(layer.weights)
        next_step, next_all = [], []
        for events in in_step:
            for i in range(len(so_far)):
                so_far[i] += layer.charge(i, events, 1, of_either_sign)
            next_step.append([min(layer.afford(charge), layer.cap) for charge in so_far])
        for i, charge in enumerate(so_far):
            together = layer.charge(i, in_all, window, of_either_sign)
            next_all.append(min(layer.afford(min(charge, together)), layer.cap * window))
        if passes > 1:
            next_step = [next_step[-1]] * window
        found.append(float(min(sum(map(sum, next_step)), sum(next_all))))
        in_step, in_all = next_step, next_all
    return found


class Sequence(nn.Module):
    """All steps at once."""

    def __init__(self, layers: list[Layer], samples: int = 1) -> None:
        super().__init__()
        parts = []
        for layer in layers:
            cap = None if layer.cap == math.inf else int(layer.cap)
            parts += [layer.linear(), fnn.IAF(float(layer.theta), max_spikes_per_step=cap)]
        self.body, self.out = nn.Sequential(*parts), nn.Linear(len(layers[-1].weights), 1)

    def forward(self, x):
        return self.out(self.body(x))


class Merged(Sequence):
    """Samples and steps on one axis."""

    def __init__(self, layers, samples=1):
        super().__init__(layers)
        for i, layer in enumerate(layers):
            cap = None if layer.cap == math.inf else int(layer.cap)
            node = fnn.IAFSqueeze(
                samples, spike_threshold=float(layer.theta), max_spikes_per_step=cap
            )
            self.body[2 * i + 1] = node


class Calls(nn.Module):
    """One call of every neuron per step."""

    def __init__(self, layers: list[Layer], samples: int = 1) -> None:
        super().__init__()
        parts = []
        for layer in layers:
            parts += [layer.linear(), sj.IFNode(float(layer.theta), v_reset=None)]
        self.body, self.out = nn.Sequential(*parts), nn.Linear(len(layers[-1].weights), 1)

    def forward(self, x):
        if x.dim() == 2:
            return self.out(self.body(x))
        return torch.stack([self.out(self.body(x[:, t])) for t in range(x.shape[1])], 1)


class Many(Calls):
    """spikingjelly's way of all steps at once."""

    def __init__(self, layers, samples=1):
        super().__init__(layers)
        for node in self.body[1::2]:
            node.step_mode = "m"

    def forward(self, x):
        return self.out(self.body(x))


RUNS: dict[str, tuple[Any, str, bool]] = {
    "sequence": (Sequence, "NT", True),
    "merged": (Merged, "(NT)", True),
    "calls": (Calls, "NT", False),
    "many": (Many, "TN", False),
    "passes": (Calls, "N", False),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("seed", range(4))
def test_every_row_is_what_the_theorem_gives(seed, run):
    draw = random.Random(f"{seed} {run}")
    make, layout, multi = RUNS[run]
    sizes = [draw.randint(1, 3) for _ in range(4)]
    caps = [draw.choice([None, None, 1, 2]) if multi else 1 for _ in sizes[1:]]
    pairs = [*itertools.pairwise(sizes)]
    layers = [Layer(draw, *pair, cap) for pair, cap in zip(pairs, caps, strict=True)]
    steps, samples = draw.randint(2, 6), draw.choice([1, 3])
    most, signed = draw.choice([None, None, 1, 3]), draw.random() < 0.3
    shape = {"NT": (samples, steps), "TN": (steps, samples), "N": (samples,)}
    x = torch.ones(*shape.get(layout, (samples * steps,)), sizes[0])
    if signed:
        x[(0,) * x.dim()] = -1.0
    options: dict[str, Any] = {"timesteps": steps} if layout == "(NT)" else {}
    analysis = fxsynops.analyze(make(layers, samples), x, layout=layout, **options)
    bound = analysis.upper_bound(steps if layout == "N" else None, input_max_events=most)
    one = layout == "N"
    events = by_hand(layers, 1 if one else steps, sizes[0], most, signed, steps if one else 1)
    arriving = sizes[0] * (steps if most is None else most)
    assert bound.rows[0].charge == arriving * sizes[1]
    for row, n, fanout in zip(bound.rows[1:], events, [*sizes[2:], 1], strict=True):
        assert row.charge == min(n * fanout, row.structural)


@pytest.mark.parametrize("seed", range(3))
def test_no_spikes_of_a_chain_are_above_what_the_theorem_gives(seed):
    draw = random.Random(seed)
    layers = [Layer(draw, 2, 3, None), Layer(draw, 3, 2, None)]
    torch.manual_seed(seed)
    events = by_hand(layers, 5, 2, None, False)
    for density in (0.2, 0.6, 1.0):
        model = Sequence(layers)
        spikes = model.body[:2](torch.rand(1, 5, 2).lt(density).float())
        assert float(spikes.detach().sum()) <= events[0]
        assert float(model.body[2:](spikes).detach().sum()) <= events[1]


# -- several steps of one event --------------------------------------------------------------------


class Over(nn.Module):
    """Events of a first layer, at some steps only or several times, meet a second one."""

    def __init__(self, run: Callable[[Tensor], Tensor], first: float, second: float) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = (nn.Linear(1, 1, bias=False) for _ in range(3))
        self.first, self.second = fnn.IAF(), fnn.IAF()
        self.run = run
        with torch.no_grad():
            self.fc1.weight.fill_(first)
            self.fc2.weight.fill_(second)

    def forward(self, x):
        return self.out(self.second(self.fc2(self.run(self.first(self.fc1(x))))))


STEPS = 6
# (what happens, how much one event of the first layer weighs at most, and from which step on)
TIMES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "as it is": (lambda s: s, 1),
    "the last steps only": (lambda s: s[:, -2:], 1),
    "the first steps only": (lambda s: s[:, :2], 1),
    "one step later": (lambda s: F.pad(s[:, :-1], (0, 0, 1, 0)), 1),
    "the first steps twice": (lambda s: torch.cat([s[:, :2], s], 1), 2),
    "the last step thrice": (lambda s: torch.cat([s, s[:, -1:], s[:, -1:]], 1), 3),
    "every step twice": (lambda s: torch.cat([s, s], 1), 2),
    "now and one step later": (lambda s: s + F.pad(s[:, :-1], (0, 0, 1, 0)), 2),
    "added up": (lambda s: s.cumsum(1), STEPS),
    "the sum of all at every step": (
        lambda s: s.sum(1, keepdim=True).expand(-1, STEPS, -1),
        STEPS,
    ),
    "at some steps four times": (
        lambda s: s * torch.tensor([1.0, 4.0, 0.0, 1.0, 2.0, 1.0])[:, None],
        4,
    ),
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("events", [2])
def test_an_event_weighs_what_it_weighs_at_the_step_where_it_weighs_most(name, events):
    """Some input events, each of which is worth two of the first layer, and each worth three."""
    run, times = TIMES[name]
    example = torch.zeros(1, STEPS, 1)
    bound = fxsynops.analyze(Over(run, 2.0, 3.0), example, layout="NT").upper_bound(
        input_max_events=events
    )
    first, second = bound.rows[1].charge, bound.rows[2].charge
    most = [0.0, 0.0]
    for step in range(STEPS):
        x = torch.zeros(1, STEPS, 1)
        x[0, step] = events
        model = Over(run, 2.0, 3.0)
        spikes = model.run(model.first(model.fc1(x)))
        most[0] = max(most[0], float(spikes.detach().sum()))
        most[1] = max(most[1], float(model.second(model.fc2(spikes)).detach().sum()))
    counted = 2 * events * (1 if name == "at some steps four times" else times)
    assert first == counted
    assert most[0] == 2 * events * times
    assert most[1] == 3 * 2 * events * times <= second


@pytest.mark.parametrize("name", ["as it is", "one step later", "every step twice"])
@pytest.mark.parametrize("events", [1, 3])
def test_where_time_does_not_matter_the_second_layer_is_bounded_exactly(name, events):
    run, times = TIMES[name]
    x = torch.zeros(1, STEPS, 1)
    bound = fxsynops.analyze(Over(run, 2.0, 3.0), x, layout="NT").upper_bound(
        input_max_events=events
    )
    assert bound.rows[2].charge == 2 * 3 * events * times


class Beside(nn.Module):
    """Few events of an input, and others of which only a cap is known."""

    def __init__(self, others: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.few, self.many = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.capped, self.node = fnn.IAF(max_spikes_per_step=1), fnn.IAF()
        self.others, self.out = others, nn.Linear(1, 1)
        nn.init.constant_(self.few.weight, 1.0)
        nn.init.constant_(self.many.weight, 0.5)

    def forward(self, x, z):
        return self.out(self.node(self.few(x) + self.many(self.others(self, z))))


@pytest.mark.parametrize(
    "others",
    [
        lambda m, z: (z > 0).float(),
        lambda m, z: m.capped(z),
        lambda m, z: torch.nan_to_num(m.capped(z)),
    ],
)
def test_few_events_count_once_and_capped_ones_at_every_step(others):
    """One event of one whole charge, and half a charge in each step."""
    x, z = torch.ones(1, STEPS, 1), torch.rand(1, STEPS, 1)
    options = {"layout": "NT", "input_events": [True, False]}
    bound = fxsynops.analyze(Beside(others), (x, z), **options).upper_bound(input_max_events=1)
    assert bound.rows[-1].charge == 1 + STEPS * 0.5


class Signed(nn.Module):
    """Events meet positive and negative weights of a neuron of both signs, the latter over time."""

    def __init__(self, positive: Tensor, negative: Tensor) -> None:
        super().__init__()
        self.fc1, self.first = nn.Linear(1, 1, bias=False), fnn.IAF()
        self.fc2, self.out = nn.Linear(2, 1, bias=False), nn.Linear(1, 1)
        self.second = sj.TernaryIFNode(step_mode="m")
        self.register_buffer("over_time", torch.stack([positive, negative], 1))
        with torch.no_grad():
            self.fc1.weight.fill_(1.0)
            self.fc2.weight.copy_(torch.tensor([[1.0, -1.0]]))

    def forward(self, x):
        spikes = self.first(self.fc1(x)) * self.over_time
        return self.out(self.second(self.fc2(spikes).transpose(0, 1)).transpose(0, 1))


EVEN, LAST = torch.ones(STEPS), torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 5.0])


@pytest.mark.parametrize("events", [2])
@pytest.mark.parametrize(
    ("positive", "negative"),
    [(EVEN, EVEN), (EVEN, LAST), (LAST, EVEN), (2 * EVEN, EVEN), (EVEN, 0 * EVEN), (LAST, LAST)],
)
def test_negative_events_are_paid_for_by_negative_charge(positive, negative, events):
    """Of each sign, what all events weigh together, and at most one event a step."""
    example = torch.zeros(1, STEPS, 1)
    analysis = fxsynops.analyze(Signed(positive, negative), example, layout="NT")
    charge = analysis.upper_bound(input_max_events=events).rows[-1].charge
    most = 0.0
    for steps in itertools.product(range(STEPS), repeat=events):
        x = torch.zeros(1, STEPS, 1)
        for step in steps:
            x[0, step] += 1
        model = Signed(positive, negative)
        spikes = model.second(model.fc2(model.first(model.fc1(x)) * model.over_time)[0])
        most = max(most, float(spikes.detach().abs().sum()))
    assert most <= charge <= 2 * STEPS
    if not bool((positive == LAST).all()) and not bool((negative == LAST).all()):
        in_all = [float(w[0]) * events for w in (positive, negative)]
        assert charge == sum(min(math.floor(n), STEPS) for n in in_all)


@pytest.mark.parametrize("name", ["positive", "negative"])
def test_a_late_weight_of_either_sign_is_not_evened_out(name):
    """One event at the last step is worth five; spread over all steps it would be worth one."""
    model = Signed(LAST, 0 * EVEN) if name == "positive" else Signed(0 * EVEN, LAST)
    model.second.v_threshold = 4.0
    x = torch.zeros(1, STEPS, 1)
    x[0, -1] = 1
    analysis = fxsynops.analyze(model, x, layout="NT")
    row = analysis.upper_bound(input_max_events=1).rows[-1]
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    counter(x)
    assert counter.counts.rows[-1].synops == 1 <= row.charge


class Swaps(nn.Module):
    """At every second step, each of two samples gets the events of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.out = fnn.IAF(STEPS // 2 + 1.0), nn.Linear(1, 1)

    def forward(self, x):
        own = torch.tensor([1.0, 0.0] * (STEPS // 2))[:, None]
        return self.out(self.node(x * own + x.flip(0) * (1 - own)))


def test_events_that_go_to_one_sample_or_to_another_are_not_evened_out():
    """In pairs of steps each sample gets as much; all of both samples' events may meet in one."""
    x = torch.zeros(2, STEPS, 1)
    x[0, ::2] = x[1, 1::2] = 1
    counter = fxsynops.SynOpsCounter(Swaps(), x, layout="NT")
    row = counter.analysis.upper_bound(input_max_events=STEPS // 2).rows[-1]
    counter(x)
    assert counter.counts.rows[-1].synops / 2 == 0.5 <= row.charge


# -- neurons that drive each other -----------------------------------------------------------------


class Loop(nn.Module):
    """Two neurons that drive each other, one step later."""

    def __init__(self, into: float, forth: float, back: float) -> None:
        super().__init__()
        for name, weight in (("into", into), ("forth", forth), ("back", back), ("out", 1.0)):
            layer = nn.Linear(1, 1, bias=False)
            nn.init.constant_(layer.weight, weight)
            setattr(self, name, layer)
        self.a, self.b = sj.IFNode(v_reset=None), sj.IFNode(v_reset=None)

    def forward(self, x):
        last, found = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            first = self.a(self.into(x[:, t]) + self.back(last))
            last = self.b(self.forth(first))
            found.append(self.out(last))
        return torch.stack(found, 1)


@pytest.mark.parametrize(
    ("into", "forth", "back", "steps"),
    [(0.25, 0.5, 0.75, 5), (0.5, 1.0, 0.25, 3), (0.5, 0.5, -1.0, 4), (0.25, 1.0, 0.75, 5)],
)
def test_neurons_in_a_loop_pay_with_what_comes_back(into, forth, back, steps):
    """One event per step at most; what a neuron has had of charge until a step bounds it."""
    charge_a = charge_b = in_steps_a = in_steps_b = last = 0.0
    for _ in range(steps):
        charge_a += into + max(back, 0.0) * last
        a = min(math.floor(charge_a), 1)
        charge_b += forth * a
        last = min(math.floor(charge_b), 1)
        in_steps_a, in_steps_b = in_steps_a + a, in_steps_b + last
    most_a = math.floor(charge_a)
    most_b = min(in_steps_b, math.floor(min(charge_b, forth * most_a)))
    x = torch.ones(1, steps, 1)
    analysis = fxsynops.analyze(Loop(into, forth, back), x, layout="NT")
    rows = {r.connection.synapse: r.charge for r in analysis.upper_bound().rows}
    counter = fxsynops.SynOpsCounter(Loop(into, forth, back), x, layout="NT")
    counter(x)
    counted = {r.connection.synapse: r.synops for r in counter.counts.rows}
    assert all(counted[name] <= rows[name] for name in rows)
    assert rows["forth"] <= min(in_steps_a, most_a)
    assert rows["out"] <= most_b


# -- gates behind neurons --------------------------------------------------------------------------


class Gated(nn.Module):
    """Neurons that spend what two weights bring, and a gate behind them."""

    def __init__(self, run: Callable[[Tensor], Tensor], cap: int | None) -> None:
        super().__init__()
        self.fc, self.node = nn.Linear(1, 4, bias=False), fnn.IAF(max_spikes_per_step=cap)
        self.run = run
        self.out = nn.Linear(run(torch.ones(1, 1, 4)).shape[-1], 3)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[1.0], [2.0], [0.5], [-1.0]]))

    def forward(self, x):
        return self.out(self.run(self.node(self.fc(x))))


# What comes through in all, if the four neurons have emitted (4, 8, 2, 0) in four steps.
GATES: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "nothing": (lambda s: s, 14),
    "a rectifier": (F.relu, 14),
    "the largest of two": (lambda s: F.max_pool1d(s, 2), 14),
    "a sum": (lambda s: F.relu(s[..., :2] + s[..., 2:]), 14),
    "a magnitude": (lambda s: (s[..., :2] - s[..., 2:]).abs(), 14),
    "a negative one": (lambda s: F.relu(-s), 0),
    "a sum over all": (lambda s: F.relu(s.sum(-1, keepdim=True)), 14),
    "some": (lambda s: F.relu(s[..., 1:3]), 10),
    "half as large": (lambda s: F.relu(s * 0.5), 14),
    "negative and half": (lambda s: (s * -0.5).abs(), 14),
    "an average": (lambda s: F.relu(F.avg_pool1d(s, 2)), 14),
}


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("cap", [8])
def test_what_comes_through_gates_in_all(name, cap):
    run, most = GATES[name]
    x = torch.zeros(1, 4, 1)
    bound = fxsynops.analyze(Gated(run, cap), x, layout="NT").upper_bound(input_max_events=4)
    row = bound.rows[-1]
    assert row.charge == pytest.approx(3 * most, rel=1e-5)
    x[0, 0] = 4.0
    counter = fxsynops.SynOpsCounter(Gated(run, cap), x, layout="NT")
    counter(x)
    assert counter.counts.rows[-1].synops <= row.charge


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0, -0.5])
@pytest.mark.parametrize("scaled", [lambda s, f: F.relu(s * f), lambda s, f: (s / f).abs()])
def test_events_behind_a_gate_are_as_many_whatever_a_learned_factor_makes_them_worth(
    scaled, factor
):
    """All 14 of (4, 8, 2, 0) that are worth something beyond the gate."""
    model = Gated(lambda s: s, 8)
    model.factor = nn.Parameter(torch.tensor(factor))
    model.run = lambda s: scaled(s, model.factor)
    analysis = fxsynops.analyze(model, torch.zeros(1, 4, 1), layout="NT")
    row = analysis.upper_bound(input_max_events=4).rows[-1]
    passed = 14 * float(scaled(torch.ones(()), torch.tensor(factor)) > 0)
    assert row.charge == pytest.approx(3 * passed, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize(
    ("factor", "charge"), [(1.0, 1.0), (0.5, 0.5), (-1.0, 0.0), (0.0, 0.0), (3.0, 3.0)]
)
def test_a_factor_between_neuron_and_synapse_is_part_of_the_charge(factor, charge):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.first, self.second = nn.Linear(1, 1, bias=False), fnn.IAF(), fnn.IAF()
            self.out = nn.Linear(1, 1)
            self.register_buffer("factor", torch.tensor(factor))
            nn.init.constant_(self.fc.weight, 1.0)

        def forward(self, x):
            return self.out(self.second(self.fc(self.first(x) * self.factor)))

    counter = fxsynops.SynOpsCounter(Scaled(), torch.ones(1, 6, 1), layout="NT")
    counter(torch.ones(1, 6, 1))
    row = counter.analysis.upper_bound().rows[-1]
    assert counter.counts.rows[-1].synops == row.charge == 6 * charge


# -- why there is none -----------------------------------------------------------------------------


class Meets(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = fnn.IAF(max_spikes_per_step=1), fnn.IAF(max_spikes_per_step=1)

    def forward(self, x):
        return self.a(x) @ self.b(x).mT


def test_products_of_events_have_no_charge_bound_and_say_so():
    analysis = fxsynops.analyze(Meets(), torch.ones(1, 3, 4), layout="NT")
    for row in analysis.upper_bound().rows:
        assert row.charge == row.structural == 3 * 4 * 3
        assert row.reasons == ("events meet events",)


def test_graded_events_behind_gates_have_no_charge_bound_and_say_so():
    def make():
        return nn.Sequential(nn.Linear(1, 2), fnn.IAF(), nn.MaxPool1d(2), nn.Linear(1, 1))

    graded = fxsynops.analyze(make(), torch.ones(1, 3, 1), layout="NT", events="nonzero")
    assert graded.upper_bound().rows[-1].reasons == ("graded events behind a gate",)
    assert graded.upper_bound().rows[0].reasons == ()
    by_value = fxsynops.analyze(make(), torch.ones(1, 3, 1), layout="NT")
    assert by_value.upper_bound().rows[-1].reasons == ()


# -- the smaller of both, added up -----------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 7])
def test_totals_are_sums_over_connections_of_the_smaller_bound(steps):
    model = nn.Sequential(
        nn.Linear(2, 3), fnn.IAF(max_spikes_per_step=2), nn.Linear(3, 2), fnn.IAF(), nn.Linear(2, 5)
    )
    bound = fxsynops.analyze(model, torch.ones(1, 4, 2), layout="NT").upper_bound(steps)
    assert bound.timesteps == steps
    assert not bound.estimate
    assert bound.structural == math.inf
    assert bound.total == bound.charge == sum(row.charge for row in bound.rows)
    capped = fxsynops.analyze(model, torch.ones(1, 4, 2), layout="NT").upper_bound(
        steps, max_spikes={"3": 2}
    )
    assert capped.structural == sum(row.structural for row in capped.rows) == steps * (6 + 12 + 20)
    assert capped.charge <= bound.charge
    assert all(row.charge <= row.structural for row in capped.rows)


@pytest.mark.parametrize(("samples", "window", "runs"), [(1, None, 2), (3, 2, 1), (3, 12, 2)])
def test_what_was_used_is_of_one_sample_in_the_window_of_the_bound(samples, window, runs):
    model = nn.Sequential(nn.Linear(2, 3), fnn.NeuromorphicReLU(), nn.Linear(3, 5))
    x = torch.ones(samples, 4, 2)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    bound = counter.analysis.upper_bound(window)
    assert bound.used() == {}
    for _ in range(runs):
        counter(x)
    used = bound.compare(counter.counts).used()
    spikes = float(model[:2](torch.ones(1, 2)).detach().sum())
    expected = [(window or 4) * n for n in (2 * 3, spikes * 5)]
    assert [used[row.connection.key] for row in bound.rows] == pytest.approx(expected)


@pytest.mark.parametrize("factor", [1.0, 0.5, 2.0, -1.0, -0.5])
@pytest.mark.parametrize("weight", [1.0, -1.0])
@pytest.mark.parametrize("cap", [3])
def test_where_nothing_is_known_of_a_gate_its_events_are_at_most_what_caps_say(factor, weight, cap):
    """``nan_to_num`` may do anything to values; events are events all the same."""

    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = fnn.IAF(max_spikes_per_step=cap), fnn.IAF()
            self.fc, self.out = nn.Linear(1, 1, bias=False), nn.Linear(1, 1)
            nn.init.constant_(self.fc.weight, weight)

        def forward(self, x):
            return self.out(self.second(self.fc(torch.nan_to_num(self.first(x) * factor))))

    x = torch.full((1, STEPS, 1), float(cap))
    counter = fxsynops.SynOpsCounter(Unknown(), x, layout="NT")
    row = counter.analysis.upper_bound(input_max_events=99).rows[-1]
    counter(x)
    brought = factor * weight * cap
    assert counter.counts.rows[-1].synops == math.floor(max(brought, 0) * STEPS)
    assert counter.counts.rows[-1].synops <= row.charge <= math.floor(abs(brought) * STEPS)
