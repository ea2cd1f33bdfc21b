"""What one event is worth behind scales, gates and moves: each element counted by its own worth."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops

OUT, SIZE = 3, (12, 6)
SIGNS = torch.tensor([1.0, -1, 1, 1, -1, -1])
EACH = torch.tensor([0.5, -0.3, 2.0, 1.0, -1.5, 0.7])


def drawn(least: int, most: int, seed: int = 0, size: tuple[int, ...] = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(least, most + 1, size, generator=generator).float()


KINDS = drawn(0, 1), drawn(0, 3), drawn(-2, 2)


class Behind(nn.Module):
    """A layer behind each of some functions, and things that a forward may scale by."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions
        self.heads = nn.ModuleList(nn.Linear(6, OUT) for _ in functions)
        self.one, self.each = nn.Parameter(torch.tensor(0.7)), nn.Parameter(EACH.clone())
        self.only = nn.Parameter(torch.tensor([[0.7]]))
        self.register_buffer("number", torch.tensor(-1.3))
        self.register_buffer("signs", 2 * SIGNS)

    def values(self, *xs):
        return [f(self, *xs) for f in self.functions]

    def forward(self, *xs):
        return [head(v) for head, v in zip(self.heads, self.values(*xs), strict=True)]


def arriving(net: Behind, *passes: tuple[Tensor, ...], **options) -> list[list[float | None]]:
    """Events that come to each layer in some passes, after an analysis of the first input's places;
    None where they cannot be counted."""
    example = tuple((x != 0).to(x.dtype) for x in passes[0])
    counter = fxsynops.SynOpsCounter(net, example, strict=False, **options)
    left_out = {row.synapse for row in counter.analysis.unresolved}
    names, found = [f"heads.{i}" for i in range(len(net.heads))], []
    for xs in passes:
        counter(*xs)
        counts = {name: float(n.detach()) / OUT for name, n in counter.per_synapse.items()}
        found.append([None if name in left_out else counts.get(name, 0.0) for name in names])
    return found


# How values are made of counts, and what one event in them is worth.
SCALES = {
    "one": (lambda m, s: s, 1.0),
    "a number": (lambda m, s: 0.5 * s, 0.5),
    "a negative number": (lambda m, s: s * -0.3, 0.3),
    "divided": (lambda m, s: s / 4, 0.25),
    "twice": (lambda m, s: (3 * s) / 2, 1.5),
    "a parameter": (lambda m, s: s * m.one, 0.7),
    "divided by a parameter": (lambda m, s: s / m.one, 1 / 0.7),
    "a buffer": (lambda m, s: s.mul(m.number), 1.3),
    "a parameter and a number": (lambda m, s: (2 * s) * m.one, 1.4),
    "one parameter in a list": (lambda m, s: s * m.only, 0.7),
    "divided by one parameter in a list": (lambda m, s: s / m.only, 1 / 0.7),
    "signs": (lambda m, s: s * torch.tensor([2.0, -2, 2, 2, -2, -2]), 2.0),
    "divided by signs": (lambda m, s: s / torch.tensor([2.0, -2, 2, 2, -2, -2]), 0.5),
    "ones and minus ones": (lambda m, s: s * torch.tensor([1.0, -1, 1, 1, -1, -1]), 1.0),
    "signs in a buffer": (lambda m, s: s * m.signs, 2.0),
    "each": (lambda m, s: s * m.each, EACH.abs()),
    "each of a constant": (lambda m, s: s * EACH, EACH.abs()),
    "each and a number": (lambda m, s: 0.5 * (s * m.each), 0.5 * EACH.abs()),
    "einsum": (lambda m, s: torch.einsum("bi,i->bi", s, m.each), EACH.abs()),
}  # fmt: skip


def whole(v: Tensor, w: Tensor) -> Tensor:
    return (v.abs() / w).round()


def limited(limit: float):
    """Elements at a limit that is no whole number of events are one event of its worth."""

    def count(v: Tensor, w: Tensor) -> Tensor:
        within = limit / w
        is_whole = (within - within.round()).abs() < 1e-4
        return torch.where((v.abs() == limit) & ~is_whole, torch.ones_like(v), whole(v, w))

    return count


LIMIT = torch.tensor(1.0)
# What lets some pass, or limits them, and how many events come out.
GATES = {
    "relu": (F.relu, whole),
    "relu of the contrary": (lambda v: F.relu(-v), whole),
    "abs": (torch.abs, whole),
    "in place": (lambda v: v.clone().relu_(), whole),
    "clamp below": (lambda v: v.clamp(min=0), whole),
    "clamp above": (lambda v: v.clamp(max=0), whole),
    "clamp": (lambda v: v.clamp(0, 1), limited(1.0)),
    "clamp at both sides": (lambda v: v.clamp(-1, 1), limited(1.0)),
    "clamp high": (lambda v: v.clamp(-100, 100), whole),
    "hardtanh": (F.hardtanh, limited(1.0)),
    "relu6": (F.relu6, limited(6.0)),
    "minimum": (lambda v: torch.minimum(v, LIMIT), limited(1.0)),
    "maximum": (lambda v: torch.maximum(v, -LIMIT), limited(1.0)),
    "maximum of zero": (lambda v: torch.maximum(v, torch.zeros_like(v)), whole),
    "of itself": (lambda v: torch.maximum(v, -v), whole),
    "where": (lambda v: torch.where(v > 0, v, torch.zeros(())), whole),
    "where not": (lambda v: torch.where(v > 0, 0.0, v), whole),
    "masked": (lambda v: v.masked_fill(v < 0, 0), whole),
    "threshold": (lambda v: F.threshold(v, 0.4, 0.0), whole),
    "hardshrink": (lambda v: F.hardshrink(v, 0.4), whole),
    "largest": (lambda v: v.topk(6, 0).values, whole),
    "sorted": (lambda v: v.sort(0).values[:6], whole),
    "pooled": (lambda v: F.max_pool1d(v.t()[None], 2)[0].t(), whole),
}


# What a scale that differs between elements is not followed through.
NOT_FOLLOWED = {"hardshrink", "largest", "sorted", "pooled"}
DIFFER = {"signs in a buffer"} | {
    name for name, (_, worth) in SCALES.items() if isinstance(worth, Tensor)
}


@pytest.mark.parametrize("scale", SCALES)
def test_gates_behind_scales(scale):
    make, worth = SCALES[scale]
    net = Behind(*(lambda m, s, f=f: f(make(m, s)) for f, _ in GATES.values()))
    found = arriving(net, *((x,) for x in KINDS))
    for x, counts in zip(KINDS, found, strict=True):
        with torch.no_grad():
            values = zip(GATES.items(), net.values(x), strict=True)
        expected = {name: float(f(v, torch.as_tensor(worth)).sum()) for (name, (_, f)), v in values}
        if scale in DIFFER:
            expected |= dict.fromkeys(NOT_FOLLOWED)
        assert dict(zip(GATES, counts, strict=True)) == expected


# -- elements that move take along what they are worth ---------------------------------------------


def in_slots(v: Tensor) -> Tensor:
    out = torch.zeros_like(v)
    out[:, :3] = v[:, 3:]
    out[:, 3] = v[:, 0]
    out[:, 4:] = v[:, 1:3]
    return out


def by_index(v: Tensor) -> Tensor:
    return torch.zeros_like(v).index_copy_(1, torch.tensor([5, 1, 2]), v[:, :3].contiguous())


# What puts elements to other places, several or none: of counts, it does the same.
MOVES = {
    "as they are": lambda v: v,
    "flip": lambda v: v.flip(1),
    "roll": lambda v: v.roll((1, 2), (0, 1)),
    "transpose": lambda v: v.reshape(6, 12).t(),
    "permute": lambda v: v.view(12, 2, 3).permute(0, 2, 1).reshape(12, 6),
    "cat": lambda v: torch.cat([v[:, 4:], v[:, :4]], 1),
    "stack": lambda v: torch.stack([v[:, 0], v[:, 3]] * 3, 1),
    "select": lambda v: v[:, [5, 0, 0, 2, 3, 4]],
    "index_select": lambda v: v.index_select(1, torch.tensor([1, 1, 2, 2, 3, 3])),
    "gather": lambda v: v.gather(1, torch.tensor([5, 4, 3, 2, 1, 0]).expand(12, 6)),
    "split": lambda v: torch.cat(v.split((2, 4), 1)[::-1], 1),
    "unbind": lambda v: torch.stack(v.unbind(1)[::-1], 1),
    "expand": lambda v: v[:, 2:3].expand(12, 6),
    "repeat": lambda v: v[:, 1:4].repeat(1, 2),
    "repeat_interleave": lambda v: v[:, :3].repeat_interleave(2, 1),
    "triangle": lambda v: v.tril(),
    "slots": in_slots,
    "index_copy": by_index,
    "copy": lambda v: torch.empty_like(v).copy_(v),
    "strided": lambda v: v.contiguous().as_strided((12, 6), (6, 1)),
    "unfold": lambda v: v.unfold(1, 3, 3).flatten(1),
    "diagonal": lambda v: v.diagonal().repeat(12, 1),
}
FOLLOWED = {
    "relu": F.relu,
    "where": lambda v: torch.where(v > 0, v, torch.zeros(())),
    "abs": torch.abs,
}


@pytest.mark.parametrize("worth", ["number", "each"])
def test_moves_take_worths_along(worth):
    """The same move of the counts says how many arrive."""
    scale = {"number": lambda m, s: s * 0.3, "each": lambda m, s: s * m.each}[worth]
    gates = itertools.cycle(FOLLOWED.values())
    nets = Behind(
        *(
            lambda m, s, move=move, gate=gate: gate(move(scale(m, s)))
            for move, gate in zip(MOVES.values(), gates, strict=False)
        )
    )
    x = drawn(1, 3, seed=1)
    with torch.no_grad():
        passed = [v != 0 for v in nets.values(x)]
    (found,) = arriving(nets, (x,))
    expected = [float((move(x) * p).sum()) for move, p in zip(MOVES.values(), passed, strict=True)]
    assert dict(zip(MOVES, found, strict=True)) == dict(zip(MOVES, expected, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_worths_follow_any_chain_of_moves(seed):
    draw = random.Random(seed)
    chains = [draw.choices(list(MOVES.values()), k=draw.randint(2, 4)) for _ in range(6)]

    def along(chain, v):
        for move in chain:
            v = move(v)
        return v

    net = Behind(*(lambda m, s, c=c: F.relu(along(c, s * m.each.abs())) for c in chains))
    x = drawn(0, 2, seed)
    (found,) = arriving(net, (x,))
    assert found == [float(along(chain, x).sum()) for chain in chains]


# -- events that become others ---------------------------------------------------------------------


def kept(before: Tensor, after: Tensor, worth: Tensor) -> Tensor:
    """As many events as before, wherever something is left of them."""
    return whole(before, worth) * (after != 0)


def shrunk(by: float):
    def count(before: Tensor, after: Tensor, worth: Tensor) -> Tensor:
        left = by / worth
        if left.dim() == 0 and abs(left - left.round()) < 1e-4:  # whole events are taken away
            return whole(after, worth)
        return kept(before, after, worth)

    return count


def power(exponent: int):
    return lambda before, after, worth: whole(before, worth) ** exponent


SLOPES = torch.tensor([0.25, 0.1, 3.0, 1.0, 0.5, 2.0])
CHANGES = {
    "leaky": (F.leaky_relu, kept),
    "leaky, steep": (lambda v: F.leaky_relu(v, 2.5), kept),
    "leaky, straight": (lambda v: F.leaky_relu(v, 1.0), kept),
    "leaky, flat": (lambda v: F.leaky_relu(v, 0.0), kept),
    "one slope": (lambda v: F.prelu(v, torch.tensor([0.3])), kept),
    "a slope for each channel": (lambda v: F.prelu(v, SLOPES), kept),
    "a slope in the middle": (lambda v: F.rrelu(v, 0.1, 0.4), kept),
    "soft": (lambda v: F.softshrink(v, 0.1), shrunk(0.1)),
    "soft, by one": (lambda v: F.softshrink(v, 1.0), shrunk(1.0)),
    "square": (torch.square, power(2)),
    "cube": (lambda v: v**3, power(3)),
}
POWERS = {name for name, (_, count) in CHANGES.items() if count.__qualname__.startswith("power")}
NUMBERS = {
    name
    for name, (_, worth) in SCALES.items()
    if not isinstance(worth, Tensor) and "parameter" not in name and "buffer" not in name
}


@pytest.mark.parametrize("scale", SCALES)
def test_slopes_and_powers_behind_scales(scale):
    make, worth = SCALES[scale]
    net = Behind(*(lambda m, s, f=f: f(make(m, s)) for f, _ in CHANGES.values()))
    found = arriving(net, *((x,) for x in KINDS))
    for x, counts in zip(KINDS, found, strict=True):
        with torch.no_grad():
            before, after = make(net, x), net.values(x)
        expected = {
            name: float(count(before, v, torch.as_tensor(worth)).sum())
            for (name, (_, count)), v in zip(CHANGES.items(), after, strict=True)
        }
        if scale not in NUMBERS:
            expected |= dict.fromkeys(POWERS)
        assert dict(zip(CHANGES, counts, strict=True)) == expected


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (0.5, 0.3), (0.25, 2.0), (1.0, 0.7)])
@pytest.mark.parametrize("each", [False, True])
def test_the_larger_and_the_smaller_of_two(first, second, each):
    factor = EACH.abs() if each else torch.ones(())
    x, y = drawn(0, 3, seed=2), drawn(0, 3, seed=3)

    def pair(m, s, t):
        by = m.each.abs() if each else 1.0
        return first * s * by, second * t * by

    net = Behind(
        lambda m, s, t: torch.maximum(*pair(m, s, t)),
        lambda m, s, t: torch.minimum(*pair(m, s, t)),
        lambda m, s, t: torch.fmax(*pair(m, s, t)),
        lambda m, s, t: torch.fmin(*pair(m, s, t)),
        lambda m, s, t: torch.where(s > t, *pair(m, s, t)),
        lambda m, s, t: torch.where(s > 0, *pair(m, s, t)),
    )
    (found,) = arriving(net, (x, y))
    a, b = first * x * factor, second * y * factor
    larger, smaller = (torch.where(c, x, y).sum() for c in (a > b, a < b))
    chosen = [torch.where(x > y, x, y).sum(), torch.where(x > 0, x, y).sum()]
    assert found == [float(n) for n in (larger, smaller, larger, smaller, *chosen)]


@pytest.mark.parametrize("worth", [0.5, 0.3, 2.0, 1.0])
def test_constants_that_take_the_place_of_events(worth):
    """Beside events of one they are as many as they are worth; else one event of their own."""
    x, at = drawn(0, 3, seed=4), (drawn(0, 3, seed=5) == 0)

    def fills(number):
        own = number if worth == 1 and number == round(number) else float(number != 0)
        return float(torch.where(at, torch.full_like(x, own), x).sum())

    numbers = (0.0, 0.7, 1.0, 2.0, worth)
    each = Behind(
        *(lambda m, s, t, n=n: (worth * s).masked_fill(t > 0, n) for n in numbers),
        *(lambda m, s, t, n=n: torch.where(t > 0, n, worth * s) for n in numbers),
        *(lambda m, s, t, n=n: torch.where(t == 0, worth * s, torch.tensor(n)) for n in numbers),
    )
    (found,) = arriving(each, (x, at.float()))
    assert found == [fills(n) for n in numbers] * 3


@pytest.mark.parametrize("worth", [0.5, 0.3, 2.0, 1.0])
def test_constants_of_different_worths_take_the_place_of_events_in_one_tensor(worth):
    x, at = drawn(0, 3, seed=4), drawn(0, 1, seed=5)
    pairs = [[worth, 0.7], [2 * worth, worth], [0.0, 0.7], [2.0, 0.7], [1.0, 3.0], [2.5, worth]]
    net = Behind(
        *(lambda m, s, t, p=p: torch.where(t > 0, torch.tensor(3 * p), worth * s) for p in pairs),
        *(lambda m, s, t, p=p: torch.where(t > 0, worth * s, torch.tensor(3 * p)) for p in pairs),
    )
    (found,) = arriving(net, (x, at))
    fills = [torch.tensor(3 * pair) for pair in pairs]
    whole = [(worth == 1) & (v == v.round()) for v in fills]
    own = [torch.where(n, v, (v != 0).float()) for n, v in zip(whole, fills, strict=True)]
    expected = [torch.where(at > 0, n, x) for n in own] + [torch.where(at > 0, x, n) for n in own]
    assert found == [float(events.sum()) for events in expected]


def test_constants_that_events_choose():
    """All of one worth, they are events of it; of different ones, each is one of its own."""
    x = drawn(0, 3, seed=6)
    held = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.7, 1.0])
    pairs = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.0), (0.5, 0.2), (2.0, 2.0), (-1.0, 0.0)]
    net = Behind(
        *(lambda m, s, p=p: torch.where(s > 1, *p) for p in pairs),
        lambda m, s: torch.where(s > 1, torch.tensor([0, 0.5, 0.5, 0, 0.7, 1]), 0.0),
        lambda m, s: torch.where(s > 1, 0.0, torch.tensor([0, 0.5, 0.5, 0, 0.5, 0.5])),
    )
    (found,) = arriving(net, (x,))
    yes = x > 1
    many = [float((yes * (p[0] != 0) + ~yes * (p[1] != 0)).sum()) for p in pairs]
    own = [(yes * (held != 0)).sum(), (~yes * (held != 0)).sum()]
    assert found == [*many, *map(float, own)]


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_complex_factors_change_no_number_of_events():
    """What one is worth then is no number: a product of two such values is refused."""

    class Complex(nn.Module):
        def __init__(self, f):
            super().__init__()
            self.fc, self.f = nn.Linear(6, OUT, dtype=torch.complex64), f

        def forward(self, x):
            return self.f(self, x)

    x = drawn(0, 1, seed=7)
    for scale in (lambda s: s * 1j, lambda s: s / 2j, lambda s: (s * 3j) / 2j):
        counter = fxsynops.SynOpsCounter(Complex(lambda m, s, scale=scale: m.fc(scale(s))), x)
        counter(x)
        assert float(counter.synops.detach()) == OUT * float(x.sum())
        with pytest.raises(fxsynops.UnsupportedOperationError, match="what one event is worth"):
            fxsynops.analyze(Complex(lambda m, s, scale=scale: scale(s) @ scale(s).t()), x)
