"""Counting events: Σ |e| of each source in one read, and what connections make of all of them.

    Reading(size, …)             how the values of one source are read, prepared
    sum_events(values, …)        … while they are in cache: partial sums
    Contraction(…)(parts)        all sums of a pass times fan-out, added up by connection
    Tally                        one pass; added up only when somebody asks

Whole numbers stay exact: at most 4096 elements are added up in float32 (in which 4096 × 4096 =
2**24 is still exact), everything beyond in float64. Sums that leave this range are not waited for
but flagged: each count carries a flag that says whether any partial sum reached 2**24.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fxsynops.operations.products import Product

BLOCK = 4096
EXACT_BELOW = 2.0**24
SAMPLE = 256  # elements, or up to twice as many, that are looked at for fractions


class How(NamedTuple):
    """How values are read, without the rest of a :class:`Reading`; the same attributes."""

    inner: tuple[int, ...]
    block: int
    plain: bool
    signed: bool
    graded: bool
    rounded: bool


class Reading:
    """How a source's values are read.

    Args:
        size: their shape.
        kept: axes whose sums are kept apart, because fan-out varies along them.
        signed: whether there may be negative values; their magnitude counts.
        graded: whether each value that is not zero counts one.
        rounded: whether values are whole numbers but for rounding.

    Attributes:
        shape: of the sums.
        partial: of the partial sums that :func:`sum_events` returns.
        inner, outer: the axes to sum over while reading, as many as fit into one block, and after.
        block: how many elements to sum over instead, whatever axes they are of; 0 if the inner axes
            make good blocks, or if an axis is kept.
        plain: whether it is enough to add values up.
    """

    def __init__(
        self,
        size: Sequence[int],
        kept: Sequence[int] = (),
        *,
        signed: bool = True,
        graded: bool = False,
        rounded: bool = False,
    ) -> None:
        self.kept, self.signed, self.graded = tuple(kept), signed, graded
        self.rounded = rounded
        self.shape = tuple(n if axis in kept else 1 for axis, n in enumerate(size))
        inner: list[int] = []
        outer: list[int] = []
        for axis in reversed([axis for axis in range(len(size)) if axis not in kept]):
            fits = math.prod(size[a] for a in (*inner, axis)) <= BLOCK
            fits = fits and (bool(kept) or not outer)  # blocks that lie together
            (inner if fits else outer).append(axis)
        self.inner, self.outer = tuple(inner), tuple(outer)
        full = min(BLOCK, math.prod(size))
        added = math.prod(size[axis] for axis in inner)
        coarse = bool(inner) and (16 * added >= full or math.prod(size) <= 64 * added)
        self.block = 0 if kept or coarse else full
        self.plain = bool(inner) and not (self.block or signed or graded or rounded)
        self.partial = tuple(1 if axis in inner else n for axis, n in enumerate(size))
        if self.block:
            self.partial = (math.ceil(math.prod(size) / self.block),)

    @property
    def how(self) -> How:
        """What :func:`sum_events` has to know."""
        flags = self.plain, self.signed, self.graded, self.rounded
        return How(self.inner, self.block, *flags)

    @property
    def count(self) -> int:
        """How many partial sums there are."""
        return math.prod(self.partial)

    def together(self, parts: Tensor) -> Tensor:
        """The sums, of :attr:`shape`, of what :func:`sum_events` has returned."""
        if self.block:
            return parts.sum(dtype=torch.float64).view(self.shape)
        return parts.sum(self.outer, True, dtype=torch.float64) if self.outer else parts

    def apart(self, weights: Tensor) -> Tensor:
        """For each partial sum the weight of the sum that it is a part of.

        Args:
            weights: of the sums, of a shape that broadcasts to :attr:`shape`.
        """
        return (weights.flatten() if self.block else weights).expand(self.partial)


class _Events(torch.autograd.Function):
    """|value / unit|, with a derivative: +1 per event for v ≥ 0, −1 below."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, unit: Tensor | float, reading: Reading | How) -> Tensor:
        ctx.dtype, ctx.unit, ctx.signed = values.dtype, unit, reading.signed
        needed = reading.signed or isinstance(unit, Tensor)
        ctx.save_for_backward(*([values] if needed else []))
        return _events(values, unit, reading)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        per_event, of_unit = grads[0], None
        scaled = isinstance(ctx.unit, Tensor) or ctx.unit != 1.0
        if ctx.signed:
            (values,) = ctx.saved_tensors
            events = _in_units(values, ctx.unit) if scaled else values
            per_event = torch.where(events < 0, -per_event, per_event)
        per_value = _in_units(per_event, ctx.unit) if scaled else per_event
        if ctx.needs_input_grad[1]:
            events = _in_units(ctx.saved_tensors[0], ctx.unit)
            of_unit = -(per_value * events).sum_to_size(ctx.unit.shape).to(ctx.unit.dtype)
        return per_value.to(ctx.dtype), of_unit, None


def sum_events(values: Tensor, unit: Tensor | float, reading: Reading | How) -> Tensor:
    """Sum the events in a tensor, in one read, over blocks within which float32 is exact.

    Args:
        values: any dtype; an event of value v counts |v| (derivative +1 for v ≥ 0, else −1).
        unit: the value of one event, not zero. Sums are of whole events if it is not 1. What a
            tensor is worth has a derivative, too: counts do not change when units do.
        reading: how to read them.

    Returns:
        partial sums, in float32 (float64 for values in float64), no view of ``values``;
        ``reading.together`` makes the sums of them.
    """
    worth_one = type(unit) is float and unit == 1.0
    if reading.plain and worth_one and values.dtype is torch.float32:
        return values.sum(reading.inner, True)
    if values.dtype == torch.bool:
        values = values.view(torch.uint8)  # whose sums are faster, and as exact
    elif not values.is_floating_point():
        values = values.double()
    no_number = _no_number(values) if reading.graded else None
    if not worth_one or reading.signed or reading.graded or reading.rounded:
        differentiable = values.requires_grad or (isinstance(unit, Tensor) and unit.requires_grad)
        if differentiable and torch.is_grad_enabled():
            values = _Events.apply(values, unit, reading)
        else:
            values = _events(values, unit, reading)
    parts = _partial_sums(values, reading)
    return parts if no_number is None else parts + no_number


def _no_number(values: Tensor) -> Tensor | None:
    """NaN if there is one, else zero: as one graded event, it would be lost."""
    if not values.is_floating_point() or not values.numel():
        return None
    largest = values.detach().amax()
    return largest.new_zeros(()).masked_fill(largest.isnan(), math.nan)


def _events(values: Tensor, unit: Tensor | float, reading: Reading | How) -> Tensor:
    if reading.graded:  # written as numbers at once: sums of bool are slow
        return torch.ne(values, 0, out=torch.empty_like(values, dtype=torch.float32))
    if isinstance(unit, Tensor) or unit != 1.0 or reading.rounded:
        values = _in_units(values, unit).round()
    return values.abs() if reading.signed and values.dtype != torch.uint8 else values


def _partial_sums(events: Tensor, reading: Reading | How) -> Tensor:
    if events.dtype not in (torch.float32, torch.float64):
        events = events.float()  # sums that convert on their way are slow
    if not reading.block:
        # Without axes to sum over, a copy: by the time it is added up, it may be written to.
        return events.sum(reading.inner, True) if reading.inner else events.clone()
    if not events.is_contiguous():
        events = events.permute(_by_stride(events.stride()))  # no copy, if it is dense
    size, tail = events.numel(), events.numel() % reading.block
    if not tail:
        return events.reshape(-1, reading.block).sum(1)
    flat = events.reshape(-1)
    parts = flat[: size - tail].view(-1, reading.block).sum(1)
    return torch.cat((parts, flat[size - tail :].sum(0, keepdim=True)))


def _by_stride(strides: tuple[int, ...]) -> list[int]:
    return sorted(range(len(strides)), key=lambda axis: -strides[axis])


def _in_units(values: Tensor, unit: Tensor | float) -> Tensor:
    """Values as numbers of events; none where one event is worth nothing."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32))  # half would round counts
    if isinstance(unit, Tensor):
        unit = unit.to(wide.dtype)
        unit = torch.where(unit == 0, torch.inf, unit)
    return wide / unit


@dataclass(frozen=True)
class Term:
    """What one connection makes of the sums of one source.

    Attributes:
        row: the connection.
        source: the number of the source.
        fanout: the map, which broadcasts to the source's sums.
        repeats: how often they count.
    """

    row: int
    source: int
    fanout: Tensor
    repeats: int


class Contraction:
    """All sums of a pass, times fan-out, added up by connection.

    Args:
        terms: one for each source of each connection.
        rows: how many connections there are.
        readings: how each source was read.
        products: of events with events: the row, the product, and the numbers of its two sources.
        device: where they are.
        others: sums beside those of the connections, whose rows come behind them: of events alone,
            each times its entry in the map.

    Attributes:
        count: how many partial sums it is made of.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        rows: int,
        readings: Sequence[Reading],
        products: Sequence[tuple[int, Product, tuple[int, int]]],
        device: torch.device,
        others: Sequence[Term] = (),
    ) -> None:
        self.device, self.products = device, tuple(products)
        self.count = sum(reading.count for reading in readings)
        rows = max((rows, *(term.row + 1 for term in others)))
        self._readings, self._rows = tuple(readings), rows
        double = torch.float64
        with torch.inference_mode(False):  # the next pass may be one with gradients
            lengths = [math.prod(reading.shape) for reading in readings]
            numbers = torch.arange(sum(lengths)).split(lengths)  # of the sums, by source
            synops = [term.fanout.to(device, double) * term.repeats for term in terms]
            events = [torch.full((), term.repeats, dtype=double, device=device) for term in terms]
            beside = [term.fanout.to(device, double) * term.repeats for term in others]
            into = [term.row for term in (*others, *terms)] + [rows + term.row for term in terms]
            sources = [term.source for term in (*others, *terms, *terms)]
            weights = [
                weight.expand(readings[source].shape).reshape(-1)
                for source, weight in zip(sources, (*beside, *events, *synops), strict=True)
            ]
            sizes = torch.tensor([len(weight) for weight in weights], dtype=torch.int64)
            nothing = torch.zeros(0, dtype=torch.int64)
            self._which = torch.cat([*(numbers[source] for source in sources), nothing]).to(device)
            self._weights = torch.cat([*weights, nothing.to(device, double)])
            self._into = torch.tensor(into, dtype=torch.int64).repeat_interleave(sizes).to(device)
            self._met = torch.tensor([row for row, _, _ in products], dtype=torch.int64).to(device)
            self._synops: dict[int, Tensor] = {}  # per event, by source
            for term, weight in zip(terms, synops, strict=True):
                known = self._synops.get(term.source, torch.zeros_like(weight))
                self._synops[term.source] = known + weight

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """Events and SynOps of every connection: (2, connections and others), in float64.

        Args:
            parts: what :func:`sum_events` has returned, by source.
        """
        if not parts:
            return torch.zeros((2, self._rows), dtype=torch.float64, device=self.device)
        sums = [read.together(part) for read, part in zip(self._readings, parts, strict=True)]
        joined = torch.cat([part.reshape(-1) for part in sums]).double()
        products = joined.index_select(0, self._which) * self._weights
        found = products.new_zeros(2 * self._rows).index_add(0, self._into, products)
        found = found.view(2, self._rows)
        if self.products:
            met = [
                product.pairs(sums[left].double(), sums[right].double())
                for _, product, (left, right) in self.products
            ]
            found = found.index_add(1, self._met, torch.stack(met).expand(2, -1))
        return found

    def total(self, parts: Sequence[Tensor]) -> Tensor:
        """SynOps of all connections together: what loss functions ask for, in fewer steps."""
        if self.products or not self._synops:
            return self(parts)[1].sum()
        flat = torch.cat([parts[source].flatten() for source in self._synops])
        return (flat * self._apart).sum()

    @cached_property
    def _apart(self) -> Tensor:
        """SynOps per event of each partial sum that counts."""
        with torch.inference_mode(False):
            apart = [self._readings[source].apart(w) for source, w in self._synops.items()]
            return torch.cat([weights.flatten() for weights in apart])


@dataclass(frozen=True)
class Tally:
    """What one pass counted.

    Attributes:
        contraction: makes the counts of the partial sums.
        parts: the partial sums of every source.
        samples: some of the events of sources that nobody vouches for, by number.
    """

    contraction: Contraction
    parts: tuple[Tensor, ...]
    samples: Mapping[int, Tensor] = field(default_factory=dict)

    def both(self) -> Tensor:
        """Σ |e| measured, and Σ |e| × fan-out: (2, connections …), float64, differentiable.

        Behind the connections come the sums beside them, which have no second row.
        """
        return self.contraction(self.parts)

    def total(self) -> Tensor:
        """Σ |e| × fan-out of all connections together: 0-d, float64, differentiable."""
        return self.contraction.total(self.parts)

    def detached(self) -> Tally:
        """The same numbers, without their history."""
        if not any(part.requires_grad for part in self.parts):
            return self
        parts = tuple(part.data for part in self.parts)  # as detach(), past the dispatcher
        return Tally(self.contraction, parts, self.samples)


def fractions(tallies: Sequence[Tally]) -> Mapping[int, Tensor]:
    """How far events that nobody vouches for are from whole numbers, at most: 0-d, by source.

    Where there are many fractions, some are among the samples; a few show in partial sums.

    Args:
        tallies: of passes of one replay.
    """
    seen: dict[int, list[Tensor]] = defaultdict(list)
    for tally in tallies:
        for number, sample in tally.samples.items():
            seen[number] += [tally.parts[number].detach().reshape(-1), sample.reshape(-1)]
    return {number: _fraction(torch.cat(values)) for number, values in seen.items()}


def sample_events(values: Tensor, unit: Tensor | float) -> Tensor:
    """Some of the events in a tensor, from all over it; a copy."""
    values = values.detach()
    if isinstance(unit, Tensor):
        unit = unit.detach()
        unit = unit.expand(values.shape) if unit.dim() else unit
    while not values.is_contiguous() and values.numel() >= 2 * SAMPLE:  # no copy of all of it
        longest = max(range(values.dim()), key=values.size)
        every_second = (*[slice(None)] * longest, slice(None, None, 2))
        values = values[every_second]
        unit = unit[every_second] if isinstance(unit, Tensor) and unit.dim() else unit
    step = max(values.numel() // SAMPLE, 1)
    some = values.reshape(-1)[::step]
    if isinstance(unit, Tensor) and unit.dim():
        unit = unit.reshape(-1)[::step]
    return some.clone() if type(unit) is float and unit == 1.0 else _in_units(some, unit)


def _fraction(events: Tensor) -> Tensor:
    """The largest distance to a whole number."""
    if not events.numel():
        return torch.zeros((), device=events.device)
    return (events - events.round()).abs().amax().float()


def add_up(tallies: Sequence[Tally], device: torch.device) -> tuple[Tensor, Tensor]:
    """Σ over passes of :meth:`Tally.both`, and the largest partial sum added up in float32.

    Args:
        tallies: of the same connections, detached; at least one.
        device: where the sums shall be.
    """
    both: list[Tensor] = []
    most: list[Tensor] = []
    together: dict[int, list[Tally]] = defaultdict(list)
    for tally in tallies:
        together[id(tally.contraction)].append(tally)
    for group in together.values():
        columns = zip(*(tally.parts for tally in group), strict=True)
        stacks = [torch.stack(column) for column in columns]
        narrow = [stack for stack in stacks if stack.dtype == torch.float32 and stack.numel()]
        most += [stack.detach().amax().to(device) for stack in narrow]
        if group[0].contraction.products:
            both += [tally.both() for tally in group]
        else:  # counts are linear in the sums
            both.append(
                group[0].contraction([stack.sum(0, dtype=torch.float64) for stack in stacks])
            )
    largest = torch.stack(most).amax().double() if most else torch.zeros((), dtype=torch.float64)
    return torch.stack([x.detach().to(device) for x in both]).sum(0), largest.to(device)
