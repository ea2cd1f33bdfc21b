"""What is events, and of what worth: sums, products, signs, slices and states, counted by hand."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
from tests.test_worths import OUT, Behind, drawn

X, Y = drawn(0, 2, seed=1), drawn(0, 2, seed=2)
V = drawn(1, 9, seed=3) - 5.5  # analog, nowhere zero


def heads(net: Behind, *xs: Tensor, **options) -> list[tuple]:
    """Of each layer: events that come to it, "analog" or "unknown"; and whether they are folded."""
    counter = fxsynops.SynOpsCounter(net, xs, strict=False, **options)
    counter(*xs)
    analysis = counter.analysis
    kinds: dict[str, tuple] = {row.synapse: ("analog", False) for row in analysis.dense}
    kinds |= {row.synapse: ("unknown", False) for row in analysis.unresolved}
    for row in analysis.connections:
        kinds[row.synapse] = float(counter.per_synapse[row.synapse].detach()) / OUT, row.folded
    return [kinds.get(f"heads.{i}", (0.0, False)) for i in range(len(net.heads))]


# -- constants that are added ----------------------------------------------------------------------

FACTORS, ADDED = (1, -1, 0.5, 3), (0, 1, -1, 0.5, 2)


@pytest.mark.parametrize("held", ["number", "tensor", "buffer"])
@pytest.mark.parametrize("gate", [True, False])
def test_events_with_a_constant_added(held, gate):
    """Behind a gate, whole numbers of events of one are events, and so is what has nothing added;
    a synapse folds what is added."""
    cases = list(itertools.product(FACTORS, ADDED))

    def constant(m, c):
        if held == "number":
            return c
        return torch.tensor(float(c)) if held == "tensor" else m.number * 0 + c

    net = Behind(
        *(
            lambda m, s, k=k, c=c: (F.relu if gate else lambda v: v)(k * s + constant(m, c))
            for k, c in cases
        )
    )
    found = dict(zip(cases, heads(net, X), strict=True))
    for (k, c), ours in found.items():
        value = k * X + c
        if not gate:
            assert ours == (float(X.sum()), held != "number" or c != 0), (k, c)
        elif c == 0 and held != "buffer":
            assert ours == (float((X * (value > 0)).sum()), False), (k, c)
        elif abs(k) == 1 and c == int(c) and held != "buffer":
            assert ours == (float(value.relu().sum()), False), (k, c)
        else:
            assert ours == ("analog", False), (k, c)


def test_sums_with_a_factor_of_their_own():
    net = Behind(
        lambda m, s, t: torch.add(s, t, alpha=2),
        lambda m, s, t: torch.sub(s, t, alpha=0.5),
        lambda m, s, t: s + t,
        lambda m, s, t: s - t,
        lambda m, s, t: torch.add(s, t, alpha=-1),
        lambda m, s, t: F.relu(torch.add(s, t)),
        lambda m, s, t: torch.abs(torch.sub(s, t)),
        lambda m, s, t: F.relu(torch.add(s, t, alpha=1)),
        lambda m, s, t: F.relu(torch.add(s, t, alpha=2)),
        lambda m, s, t: torch.abs(torch.rsub(s, t)),
    )
    both = (float((X + Y).sum()), False)
    apart = (float((X - Y).abs().sum()), False)
    assert heads(net, X, Y) == [both] * 6 + [apart, both, ("unknown", False), apart]


# -- half a sign and a half ------------------------------------------------------------------------

SHAPES = {
    "plain": lambda v: v,
    "view": lambda v: v.view(3, 4, 6).flatten(0, 1),
    "flip": lambda v: v.flip(1).flip(1),
    "copy": lambda v: v.clone(),
    "times one": lambda v: 1 * v,
    "minus": lambda v: -v,
}


@pytest.mark.parametrize("between", SHAPES)
def test_signs_with_a_constant_added(between):
    """As large as the constant, −1 or 1 comes out as nothing; else each sign is an event."""
    cases = [(1, 1), (0.5, 0.5), (0.5, -0.5), (-2, 2), (1, 0.5), (1, -2), (3, 1)]

    def signs(v, k, c):
        return k * SHAPES[between](torch.sign(v)) + c

    net = Behind(*(lambda m, v, k=k, c=c: signs(v, k, c) for k, c in cases))
    expected = [
        (float((signs(V, k, c) != 0).sum()), False)
        if abs(k) == abs(c)
        else (float(V.numel()), True)
        for k, c in cases
    ]
    if between in ("plain", "times one", "minus"):
        assert heads(net, V, input_events=False) == expected
    else:  # further ways to say it may be counted as signs and a constant, each of them an event
        for ours, theirs in zip(heads(net, V, input_events=False), expected, strict=True):
            assert ours in (theirs, (float(V.numel()), True))


def test_signs_of_what_has_none_are_steps_themselves():
    net = Behind(
        lambda m, v: torch.sign(F.relu(v)) + 1,
        lambda m, v: (torch.sign(v.clamp(min=0)) + 1) / 2,
        lambda m, v: torch.sign(v.clamp(0, 5)) - 1,
        lambda m, v: torch.sign(F.relu6(v)),
        lambda m, v: torch.sign(v),
        lambda m, v: torch.sgn(v.clamp(min=-5)) + 1,
        lambda m, v: (torch.sign(v) + 1) + 0.5,
    )
    up, each = float((V > 0).sum()), float(V.numel())
    expected = [(up, True)] * 3 + [(up, False), (each, False), (up, False), (up, True)]
    assert heads(net, V, input_events=False) == expected


# -- products --------------------------------------------------------------------------------------


def test_products_of_events_analog_values_and_constants():
    """By value only events among themselves and constants; element by element all that is not 0."""
    functions = {
        "events": lambda m, s, t, v: s * t,
        "scaled events": lambda m, s, t, v: (0.5 * s) * (m.one * t),
        "events of different worth": lambda m, s, t, v: (m.each * s) * t,
        "analog": lambda m, s, t, v: s * v,
        "analog first": lambda m, s, t, v: v * s,
        "over analog": lambda m, s, t, v: s / v,
        "over events": lambda m, s, t, v: v / (s + 3 * (s == 0)),
        "constant over events": lambda m, s, t, v: 1 / (s + 3 * (s == 0)),
        "over a constant": lambda m, s, t, v: s / 4,
        "over a parameter": lambda m, s, t, v: s / m.one,
        "nothing": lambda m, s, t, v: s * 0,
        "nothing held": lambda m, s, t, v: s * torch.zeros(6),
        "shifted": lambda m, s, t, v: (s + 0.5) * t,
        "whole shift": lambda m, s, t, v: (s + 1) * t,
    }
    net = Behind(*functions.values())
    flags = {"input_events": (True, True, False)}
    met, alone = float((X * Y).sum()), (float(X.sum()), False)
    analog, none = ("analog", False), (0.0, False)
    found = dict(zip(functions, heads(net, X, Y, V, **flags), strict=True))
    assert found == {
        "events": (met, False),
        "scaled events": (met, False),
        "events of different worth": (met, False),
        "analog": analog,
        "analog first": analog,
        "over analog": analog,
        "over events": analog,
        "constant over events": analog,
        "over a constant": alone,
        "over a parameter": alone,
        "nothing": none,
        "nothing held": none,
        "shifted": analog,
        "whole shift": (float(((X + 1) * Y).sum()), False),
    }
    graded = dict(zip(functions, heads(net, X, Y, V, events="nonzero", **flags), strict=True))
    both, any_ = (float(((X * Y) != 0).sum()), False), (float((X != 0).sum()), False)
    for name in ("events", "scaled events", "events of different worth"):
        assert graded[name] == both
    for name in ("analog", "analog first", "over analog", "over a constant", "over a parameter"):
        assert graded[name] == any_
    for name in ("over events", "constant over events"):
        assert graded[name] == analog


# -- products that are added up --------------------------------------------------------------------

Q, K = drawn(0, 2, 4, (3, 4, 5)), drawn(0, 1, 5, (3, 5, 6))


class Attends(nn.Module):
    """A product of events with something added, and a layer behind it, perhaps behind a gate."""

    def __init__(self, multiply, gate):
        super().__init__()
        self.multiply, self.gate, self.fc = multiply, gate, nn.Linear(6, OUT)
        self.held = nn.Parameter(torch.full((3, 4, 6), 0.5))

    def forward(self, q, k):
        y = self.multiply(self, q, k)
        return self.fc(F.relu(y) if self.gate else y)


def counts(model: nn.Module, *xs: Tensor, **options) -> dict[str, float]:
    counter = fxsynops.SynOpsCounter(model, xs, **options)
    counter(*xs)
    _ = counter.counts  # says so, if they are no whole events
    return {name: float(n.detach()) for name, n in counter.per_synapse.items()}


NOTHING, ONES = torch.zeros(3, 4, 6), torch.ones(3, 4, 6)


@pytest.mark.parametrize("alpha", [1, 2, 0.5])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize(("beta", "added"), [(0, 0.5 * ONES), (1, NOTHING), (0.5, NOTHING)])
def test_nothing_that_is_added_to_a_product_of_events(beta, added, alpha, gate):
    def multiply(m, q, k):
        new = torch.full((3, 4, 6), float(added[0, 0, 0]))
        return torch.baddbmm(new, q, k, beta=beta, alpha=alpha)

    met = float((Q @ K).sum())
    assert counts(Attends(multiply, gate), Q, K) == {"baddbmm": met, "fc": met * OUT}


@pytest.mark.parametrize("alpha", [1, 2, 0.5])
@pytest.mark.parametrize(
    ("beta", "added"), [(1, 1), (2, 1), (1, 2), (0.5, 1), (1, 0.5), (1.5, 1), (1, None)]
)
def test_what_is_added_to_a_product_of_events_and_gated(beta, added, alpha):
    """With whole numbers added to whole numbers, events come out; else analog values."""

    def multiply(m, q, k):
        new = m.held if added is None else torch.full((3, 4, 6), float(added))
        return torch.baddbmm(new, q, k, beta=beta, alpha=alpha)

    found, met = counts(Attends(multiply, True), Q, K), Q @ K
    assert found.pop("baddbmm") == float(met.sum())
    if alpha == 1 and added is not None and float(beta * added).is_integer():
        assert found == {"fc": float((met + beta * added).sum()) * OUT}
    else:
        assert found == {}


@pytest.mark.parametrize(("alpha", "added"), [(1, 0.5), (0.5, 0.5), (0.5, 1.0), (1, None)])
def test_what_is_added_to_a_product_of_events_is_not_taken_for_events(alpha, added):
    def multiply(m, q, k):
        new = m.held if added is None else torch.full((3, 4, 6), added)
        return torch.baddbmm(new, q, k, alpha=alpha)

    model = Attends(multiply, False)
    with pytest.raises(fxsynops.UnsupportedOperationError, match="constant is added to a product"):
        fxsynops.analyze(model, (Q, K))
    assert counts(model, Q, K, strict=False) == {"baddbmm": float((Q @ K).sum())}


@pytest.mark.parametrize("k", [1.0, 0.5, -2.0])
@pytest.mark.parametrize("q", [1.0, 0.25, 3.0])
def test_worths_of_the_factors_of_a_product(q, k):
    def scores(m, s, t):
        return (q * s) @ (k * t)

    met = float((Q @ K).sum())
    model = Attends(lambda m, s, t: scores(m, s, t).abs(), False)
    assert counts(model, Q, K) == {"matmul": met, "fc": met * OUT}
    model = Attends(lambda m, s, t: scores(m, s, t) * 7, False)
    assert counts(model, Q, K) == {"matmul": met, "fc": met * OUT}


@pytest.mark.parametrize("masked", ["q", "k", "both"])
def test_masks_of_the_factors_of_a_product(masked):
    mask_q, mask_k = drawn(0, 1, 6, (3, 4, 5)), drawn(0, 1, 7, (3, 5, 6))

    def scores(m, s, t):
        s = s * m.mask_q if masked in ("q", "both") else s
        return torch.bmm(s, t * m.mask_k if masked in ("k", "both") else t)

    model = Attends(scores, True)
    model.register_buffer("mask_q", mask_q)
    model.register_buffer("mask_k", mask_k)
    q = Q * mask_q if masked in ("q", "both") else Q
    k = K * mask_k if masked in ("k", "both") else K
    met = float((q @ k).sum())
    assert counts(model, Q, K) == {"bmm": met, "fc": met * OUT}
    model.mask_k.mul_(0.5)
    if masked != "q":
        with pytest.raises(fxsynops.UnsupportedOperationError, match="worth differs"):
            fxsynops.analyze(model, (Q, K))


# -- one synapse that reads many parts -------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_parts_of_one_source_add_up_in_one_map(seed):
    """Slices with steps, of either axis, overlapping: each neuron reaches as many as read it."""
    draw = random.Random(seed)
    size = (4, 9, 8)

    def part():
        rows = slice(draw.randrange(4), draw.randrange(5, 10), draw.choice((1, 2, 3)))
        start = draw.randrange(3)
        columns = slice(start, start + 5) if draw.random() < 0.7 else slice(start, None, 2)
        return rows, columns

    whole = seed % 2 == 0
    parts = [part() for _ in range(draw.randint(2, 5))]

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, OUT)

        def forward(self, x):
            read = [x[:, a, b].reshape(-1, 1) for a, b in parts]
            read += [x.reshape(-1, 1)] if whole else []
            return [self.fc(y) for y in read]

    x = drawn(0, 2, seed, size)
    expected = torch.zeros(size)
    for a, b in parts:
        expected[:, a, b] += OUT
    expected += OUT * whole
    analysis = fxsynops.analyze(Reads(), x)
    found = sum(tap.map.expand(size) for row in analysis.connections for tap in row.taps)
    assert torch.equal(found.to(expected), expected)
    assert sum(counts(Reads(), x).values()) == float((x * expected).sum())


@pytest.mark.parametrize("seed", range(6))
def test_fan_out_is_as_small_as_it_varies_and_what_autograd_says(seed):
    """Random convolutions over random views, against the derivative of the all-ones network."""
    draw = random.Random(100 + seed)
    kernel, stride, padding = draw.choice((1, 2, 3)), draw.choice((1, 2)), draw.choice((0, 1, 2))
    moves = draw.choices(
        [
            lambda v: v.flip(-1),
            lambda v: v.roll(2, 1),
            lambda v: v[..., 1:],
            lambda v: F.pad(v, (1, 2)),
            lambda v: torch.cat([v, v[..., :2]], -1),
            lambda v: v + v.flip(-1),
            lambda v: F.avg_pool1d(v, 2, 1) * 2,
            lambda v: v.repeat_interleave(2, -1),
        ],
        k=3,
    )

    def along(v):
        for move in moves:
            v = move(v)
        return v

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(4, 2, kernel, stride, padding)

        def forward(self, x):
            return self.conv(along(x))

    x = drawn(0, 2, seed, (3, 4, 10))
    zeros = torch.zeros(3, 4, 10, dtype=torch.float64, requires_grad=True)
    ones = torch.ones(2, 4, kernel, dtype=torch.float64)
    out = F.conv1d(along(zeros), ones, stride=stride, padding=padding)
    (expected,) = torch.autograd.grad(out.sum(), zeros)
    (row,) = fxsynops.analyze(Net(), x).connections
    assert torch.equal(row.fanout.map.expand(3, 4, 10), expected.round().long())
    assert row.fanout.map.shape[:2] == (1, 1)
    assert row.fanout.total == float(expected[0].sum().round())
    assert (row.fanout.min, row.fanout.max) == (int(expected.min()), int(expected.max()))


# -- states ----------------------------------------------------------------------------------------


class Keeps(nn.Module):
    """Reads what the last forward left, of other worths than this one's, in several states."""

    def __init__(self, *scales):
        super().__init__()
        self.scales, self.kept = scales, [torch.zeros(2, 6) for _ in scales]
        self.heads = nn.ModuleList(nn.Linear(6, OUT) for _ in scales)
        self.a, self.b = (nn.Parameter(torch.tensor(n)) for n in (0.7, 1.9))
        self.each = nn.Parameter(torch.tensor([0.5, -0.3, 2.0, 1.0, -1.5, 0.7]))

    def forward(self, x):
        out = [head(F.relu(kept)) for head, kept in zip(self.heads, self.kept, strict=True)]
        self.kept = [scale(self, x).detach() for scale in self.scales]
        return out


@pytest.mark.parametrize("switch", ["none", "training", "dtype of an input", "both"])
def test_states_keep_their_worths_in_every_trace(switch):
    """Another trace of the same model knows what the last one left in each state."""
    scales = (
        lambda m, s: s,
        lambda m, s: s * 0.5,
        lambda m, s: s * m.a,
        lambda m, s: s * m.b,
        lambda m, s: s / m.a,
        lambda m, s: (s * m.b) * 0.3,
        lambda m, s: s * m.a * m.b,
        lambda m, s: s * m.a / m.b,
        lambda m, s: s * m.each,
        lambda m, s: s * m.each * 0.5,
    )
    model = Keeps(*scales)
    counter, last = fxsynops.SynOpsCounter(model, torch.ones(2, 6)), torch.zeros(2, 6)
    for step in range(5):
        if switch in ("training", "both"):
            model.train(step % 2 == 0)
        x = drawn(0, 3, step, (2, 6))
        double = switch in ("dtype of an input", "both") and step >= 2
        counter(x.requires_grad_(double))
        _ = counter.counts
        positive = model.each.detach() > 0
        expected = [float(last.sum()) * OUT] * 8 + [float((last * positive).sum()) * OUT] * 2
        found = {name: float(n.detach()) for name, n in counter.per_synapse.items()}
        assert [found.get(f"heads.{i}", 0.0) for i in range(10)] == expected
        last = x.detach()


# -- modules by their forward ----------------------------------------------------------------------


class Joins(nn.Module):
    def forward(self, x, y):
        return torch.cat([x, y], 1)


class Spreads(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 6))

    def forward(self, x):
        return x @ self.weight.t()


@pytest.mark.parametrize("direct", [False, True])
def test_modules_that_are_called_by_their_forward(direct):
    fxsynops.register_routing(Joins, lambda x, y: torch.cat([x, y], 1))
    fxsynops.register_synapse(Spreads, lambda x: x @ torch.ones(6, 4, dtype=x.dtype))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.joins, self.spreads, self.fc = Joins(), Spreads(), nn.Linear(12, OUT)
            self.fires = fxsynops.nn.NeuromorphicReLU()

        def forward(self, x, y):
            joins, spreads, fires = self.joins, self.spreads, self.fires
            if direct:
                joins, spreads, fires = joins.forward, spreads.forward, fires.forward
            return self.fc(joins(x, fires(y))), spreads(x)

    found = counts(Net(), X, Y)
    assert found["fc"] == float(X.sum() + Y.sum()) * OUT
    assert sum(found.values()) - found["fc"] == float(X.sum()) * 4
