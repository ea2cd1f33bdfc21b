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

    def replaced(self, node: fx.Node, choose: Callable[[fx.Node, Any], Any]) -> Any:
        """What the call gives for other operands."""

    def rounded(
        self, node: fx.Node, value: Range, terms: float, level: Tensor | None = None
    ) -> Range:
        """``value`` with what the rounding of a sum of so many terms can add."""

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a node calls."""


@dataclass(frozen=True)
class RangeRule:
    """How the range of a call's output follows from those of its operands.

    Attributes:
        find: the rule; it returns None where it does not apply, so that nothing is known.
        in_totals: whether it holds for totals, too; otherwise the range per step stands for them.
    """

    find: Callable[[Evaluation, fx.Node], Any]
    in_totals: bool = True


def per_step(find: Callable[[Evaluation, fx.Node], Any]) -> RangeRule:
    """A rule that holds for single values only."""
    return RangeRule(find, in_totals=False)
