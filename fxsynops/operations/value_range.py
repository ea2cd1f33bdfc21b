"""What a tensor can be, and how an operation's rule finds that of its output.

A :class:`Range` says of each element that it is ``center + [-down, up]``. Two readings share the
arithmetic::

    per step    an element is never outside of its range                    (interval arithmetic)
    totals      ``up`` and ``down`` are averages over the steps of a window: summed over them,
                the element's deviations from ``center`` are not larger    (linear in the sources)

A rule that holds for totals, too, is linear, or can only shrink a deviation (ReLU), or picks one of
several (max pooling: no more than all of them). All arithmetic is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Operation, Scale, as_dense


@dataclass(frozen=True)
class Range:
    """``center + [-down, up]``, per element, in float64; None is zero."""

    up: Tensor
    down: Tensor | None = None
    center: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("down", "center"):
            part = getattr(self, name)
            if part is not None and part.shape != self.up.shape:
                object.__setattr__(self, name, part.expand_as(self.up))

    @property
    def low(self) -> Tensor:
        """The least that it can be."""
        return _minus(self.center, self.down, self.up)

    @property
    def high(self) -> Tensor:
        """The most that it can be."""
        return self.up if self.center is None else self.center + self.up

    @property
    def total(self) -> Tensor:
        """The most that its positive part can be, also where ``up`` is an average."""
        return self.up if self.center is None else self.center.clamp(min=0) + self.up

    @property
    def total_down(self) -> Tensor:
        """The most that its negative part can be."""
        return _minus(
            self.down, self.center.clamp(max=0) if self.center is not None else None, self.up
        )

    @property
    def peak(self) -> Tensor:
        """The largest magnitude."""
        return torch.maximum(self.high, -self.low)

    @property
    def positive(self) -> bool:
        """Whether nothing can be below zero."""
        return self.center is None and self.down is None

    @classmethod
    def between(cls, low: Tensor, high: Tensor) -> Range:
        """From the least and the most."""
        if not bool(low.any()):
            return cls(high.clamp(min=0))
        center = torch.where(low > 0, low, high.clamp(max=0))
        center = torch.where(center.isfinite(), center, 0.0)
        return cls(finite(high - center), finite(center - low), center)

    @classmethod
    def unknown(cls, size: tuple[int, ...]) -> Range:
        """It can be anything."""
        endless = torch.tensor(math.inf, dtype=torch.float64).expand(size)
        return cls(endless, endless)

    def each(self, f: Callable[[Tensor], Tensor]) -> Range:
        """A function that is linear, and grows with each element, of every part."""
        return Range(
            finite(f(self.up)),
            None if self.down is None else finite(f(self.down)),
            None if self.center is None else f(self.center),
        )

    def __neg__(self) -> Range:
        down = torch.zeros_like(self.up) if self.down is None else self.down
        return Range(down, self.up, None if self.center is None else -self.center)

    def __add__(self, other: Range) -> Range:
        return Range(
            self.up + other.up, added(self.down, other.down), added(self.center, other.center)
        )

    def __mul__(self, factor: Tensor) -> Range:
        """Times a constant."""
        if not bool((factor < 0).any()):
            return self.each(lambda x: x * factor)
        more, less = factor.clamp(min=0), (-factor).clamp(min=0)
        down = torch.zeros_like(self.up) if self.down is None else self.down
        return Range(
            finite(self.up * more) + finite(down * less),
            finite(down * more) + finite(self.up * less),
            None if self.center is None else self.center * factor,
        )


def finite(x: Tensor) -> Tensor:
    """Infinity for what is not a number: zero times infinity comes of not knowing."""
    return x.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)


def added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum; None is zero."""
    return b if a is None else a if b is None else a + b


def _minus(a: Tensor | None, b: Tensor | None, like: Tensor) -> Tensor:
    if a is None and b is None:
        return torch.zeros_like(like)
    return a if b is None else -b if a is None else a - b  # type: ignore[return-value]


class Evaluation(Protocol):
    """What a rule may ask; :class:`fxsynops.bounds.ranges.Ranges` answers."""

    totals: bool  # whether it is about totals
    kept: dict[fx.Node, Range]  # ranges per step, for totals that are no tighter

    def operand(self, node: Any) -> Any:
        """The range of an argument; its value if that depends on no data."""

    def entry(self, call: Call) -> Operation:
        """The entry that holds for a call."""

    def replaced(self, call: Call, choose: Callable[[fx.Node, Any], Any]) -> Any:
        """What the call gives for other operands, chosen by node and range."""

    def rounded(
        self, node: fx.Node, value: Range, terms: float, level: Tensor | None = None
    ) -> Range:
        """``value`` with what the rounding of a sum of so many terms can add."""

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a node calls."""


Find = Callable[[Evaluation, Call], Any]


@dataclass(frozen=True)
class RangeRule:
    """How the range of a call's output follows from those of its operands.

    Attributes:
        find: the rule; it returns None where it does not apply, so that nothing is known.
        in_totals: whether it holds for totals, too; otherwise the range per step stands for them.
    """

    find: Find
    in_totals: bool = True


def as_double(value: Any) -> Tensor:
    """In float64; a Python number is not rounded to float32 on the way."""
    if isinstance(value, Tensor):
        return value.detach().to(torch.float64)
    return torch.tensor(value, dtype=torch.float64)


def ranged(value: Any) -> Range | None:
    """A range; that of a constant has no width."""
    if value is None or isinstance(value, Range):
        return value
    center = as_double(value)
    return Range(torch.zeros_like(center), None, center)


# -- rules that many operations share --------------------------------------------------------------


def _linear(ranges: Evaluation, call: Call) -> Any:
    """Routing with weights that are not negative: each part goes its own way."""
    entry = ranges.entry(call)
    data = dict.fromkeys(entry.carriers(call) or call.operands())
    found = [ranges.operand(n) for n in data]
    steering = ranges.entry(call).steers(call)
    if any(v is None for v in found) or any(isinstance(ranges.operand(n), Range) for n in steering):
        return None

    def part(name: str, level: bool = False) -> Any:
        def choose(n: fx.Node, value: Any) -> Any:
            if n not in data:  # it steers, or lends its size
                floats = isinstance(value, Tensor) and value.is_floating_point()
                known = as_double(value) if floats else value
                return torch.zeros(shape(n)) if isinstance(value, Range) else known
            if isinstance(value, Range):
                known = getattr(value, name)
                known = torch.zeros_like(value.up) if known is None else known
            else:
                known = as_double(value) if name == "center" else torch.zeros_like(as_double(value))
            return known.abs() if level else known

        return ranges.replaced(call, choose)

    ups = part("up")
    down = part("down") if any(isinstance(v, Range) and v.down is not None for v in found) else None
    centered = any(isinstance(v, Tensor) or v.center is not None for v in found)
    centers = part("center") if centered else None
    if isinstance(ups, Tensor):
        value = Range(finite(ups), None if down is None else finite(down), centers)
        met = _met(call, entry)
        if not met:
            return value
        level = part("center", level=True) if centered else None  # terms may cancel
        return ranges.rounded(call.node, value, met, level)
    return [
        Range(up, None if down is None else down[i], None if centers is None else centers[i])
        for i, up in enumerate(ups)
    ]


def _met(call: Call, entry: Operation) -> float:
    """How many values meet in one element at most; 0 if values only move."""
    moved = entry.gain(call) == 1 and entry.scale(call) == Scale()
    return 0 if moved else max(entry.gain(call), 4)


def _same(ranges: Evaluation, call: Call) -> Any:
    """A copy, perhaps in whole numbers."""
    value = ranges.operand(call.x)
    dtype = call.node.meta["spec"].dtype
    if not isinstance(value, Range) or dtype.is_floating_point:
        return value
    if dtype == torch.bool:
        return Range(torch.ones_like(value.up))
    return Range(value.total, None if value.positive else value.total_down)


def _sums(ranges: Evaluation, call: Call) -> Range | None:
    """What the entry's terms add up to."""
    terms = ranges.entry(call).terms
    assert terms is not None
    total: Range | None = None
    for factor, operand in terms(call):
        part = ranged(ranges.operand(operand))
        if part is None:
            return None
        part = part if factor == 1 else -part if factor == -1 else part * as_double(float(factor))
        total = part if total is None else total + part
    assert total is not None
    return ranges.rounded(call.node, total, 2)


def _bilinear(ranges: Evaluation, call: Call) -> Any:
    """A product: with constants, by the signs of the weights; of two ranges, see below.

    Summed over steps, a product x·y of positive x and y is at most Σx · max y.
    """
    node, operands = call.node, call.operands()
    varying = [n for n in dict.fromkeys(operands) if isinstance(ranges.operand(n), Range)]
    scales = call.get("alpha", 1), call.get("beta", 1)
    if any(isinstance(scale, fx.Node) or scale < 0 for scale in scales):
        return None
    if len(varying) == 1:
        return _weighted(ranges, call, varying[0])
    if len(varying) != 2 or len(set(operands)) != 2:
        return None
    x, y = varying
    if ranges.totals:
        peak = ranges.kept.get(y)
        if peak is None:
            return ranges.kept.get(node)
        a = ranges.operand(x)
        most = peak.peak
        up = _only(ranges, call, {x: a.total, y: most})
        if a.positive and peak.positive:
            return Range(up)
        down = _only(ranges, call, {x: a.total_down, y: most})
        both = finite(up) + finite(down)
        return Range(up, down) if peak.positive else Range(both, both)
    a, b = ranges.operand(x), ranges.operand(y)
    ranges.kept[y] = b
    if a.positive and b.positive:
        value = Range(_only(ranges, call, {x: a.up, y: b.up}))
    else:
        most = _only(ranges, call, {x: a.peak, y: b.peak})
        signs = bool((b.low < 0).any()), bool((a.low < 0).any())
        value = Range(most, most if any(signs) else None)
    value = ranges.rounded(node, value, _fan_in(ranges, call))
    ranges.kept[node] = value
    return value


def _only(ranges: Evaluation, call: Call, given: dict[fx.Node, Tensor]) -> Tensor:
    """The bilinear part of a call, on given factors."""

    def choose(n: fx.Node, value: Any) -> Any:
        if n in given:
            return given[n]
        return torch.zeros_like(as_double(value)) if isinstance(value, Tensor) else value

    return finite(ranges.replaced(call, choose))


def _weighted(ranges: Evaluation, call: Call, x: fx.Node) -> Range | None:
    """A product with a constant."""
    weight = next((n for n in _factors(ranges, call) if n is not x), None)
    value, known = ranges.operand(x), ranges.operand(weight)
    if weight is None or not isinstance(known, Tensor):
        return None
    signed = as_double(as_dense(known))
    more, less = (_laid_out(part.clamp(min=0), known) for part in (signed, -signed))
    up = _only(ranges, call, {x: value.up, weight: more})
    down = None
    if bool((signed < 0).any()):
        down = _only(ranges, call, {x: value.up, weight: less})
    if value.down is not None:
        down = added(down, _only(ranges, call, {x: value.down, weight: more}))
        up = up + _only(ranges, call, {x: value.down, weight: less})
    center = None
    others = [n for n in call.operands() if n not in (x, weight)]
    if others or value.center is not None:

        def middle(n: fx.Node, held: Any) -> Any:
            if n is x:
                return torch.zeros_like(value.up) if value.center is None else value.center
            return as_double(held) if isinstance(held, Tensor) else held

        center = ranges.replaced(call, middle)
    level = (
        None
        if value.center is None
        else _only(ranges, call, {x: value.center.abs(), weight: _laid_out(signed.abs(), known)})
    )
    return ranges.rounded(call.node, Range(up, down, center), _fan_in(ranges, call), level)


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """A dense tensor in the layout of another one."""
    return value if like.layout == torch.strided else value.to_sparse(layout=like.layout)


def _factors(ranges: Evaluation, call: Call) -> tuple[Any, ...]:
    """The two factors of a product; what is added to it is none."""
    entry = ranges.entry(call)
    if entry.synapse is not None:
        return call[entry.synapse.input], call[entry.synapse.weight]
    product = entry.product(call) if entry.product else None
    if product is not None:
        return product.operands
    return entry.factors(call) if entry.factors else ()


def _fan_in(ranges: Evaluation, call: Call) -> float:
    """How many products are added up in one element at most."""
    entry = ranges.entry(call)
    if entry.synapse is not None:
        return entry.synapse.fan_in(call)
    product = entry.product(call) if entry.product else None
    return product.contracted if product is not None else 1


def at(ranges: Evaluation, call: Call, x: Any) -> Any:
    """The call on other values of its first operand."""
    return ranges.replaced(call, lambda n, value: x if n is call.x else value)


def _is_fixed(ranges: Evaluation, call: Call) -> bool:
    """Whether only the first operand varies."""
    others = (n for n in call.operands() if n is not call.x)
    return not any(isinstance(ranges.operand(n), Range) for n in others)


def _shrinks(ranges: Evaluation, call: Call) -> Any:
    """What grows with its input, and no faster: a deviation does not become larger."""
    value = ranges.operand(call.x)
    if not isinstance(value, Range) or not _is_fixed(ranges, call):
        return None
    if not ranges.totals:
        return Range.between(at(ranges, call, value.low), at(ranges, call, value.high))
    center = torch.zeros_like(value.up) if value.center is None else value.center
    moved = at(ranges, call, center)
    down = None if value.positive else value.down
    return Range(value.up, down, moved if bool(moved.any()) else None)


def _grows(ranges: Evaluation, call: Call) -> Any:
    """What grows with its input, however fast."""
    value = ranges.operand(call.x)
    if not isinstance(value, Range) or not _is_fixed(ranges, call):
        return None
    low, high = (at(ranges, call, x) for x in (value.low, value.high))
    low = low.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    return ranges.rounded(call.node, Range.between(low, finite(high)), 4)


def _fraction(ranges: Evaluation, call: Call) -> Any:
    """Between 0 and 1."""
    return Range(torch.ones(shape(call.node), dtype=torch.float64))


linear = RangeRule(_linear)
bilinear = RangeRule(_bilinear)
sums = RangeRule(_sums)
same = RangeRule(_same)
shrinks = RangeRule(_shrinks)
grows = RangeRule(_grows, in_totals=False)
fraction = RangeRule(_fraction, in_totals=False)
