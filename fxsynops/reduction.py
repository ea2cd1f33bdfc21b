"""Counting events: Σ |e| of each source in one read, and what connections make of all of them.

    sum_events(values, …)       one read of a source's values, while they are in cache
    Contraction(…)(sums)        all sums of a pass times fan-out, added up by connection

Whole numbers stay exact: at most 4096 elements are added up in float32 (in which 4096 × 4096 =
2**24 is still exact), everything beyond in float64. Sums that leave this range are not waited for
but flagged: each count carries a flag that says whether any partial sum reached 2**24.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

BLOCK = 4096
EXACT_BELOW = 2.0**24


@dataclass(frozen=True)
class Reading:
    """How a source's values are read.

    Attributes:
        kept: axes whose sums are kept apart, because fan-out varies along them.
        signed: whether there may be negative values; their magnitude counts.
        graded: whether each value that is not zero counts one.
    """

    kept: tuple[int, ...] = ()
    signed: bool = True
    graded: bool = False

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """The shape of the sums of values of some size."""
        return tuple(n if axis in self.kept else 1 for axis, n in enumerate(size))


class _SumEvents(torch.autograd.Function):
    """The sums, with a derivative: +1 per event for v ≥ 0, −1 below."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, unit: Tensor | float, reading: Reading
    ) -> tuple[Tensor, Tensor]:
        ctx.shape, ctx.dtype, ctx.signed = values.shape, values.dtype, reading.signed
        ctx.scaled = not (isinstance(unit, float) and unit == 1.0)
        ctx.unit, ctx.reading = unit, reading
        needed = reading.signed or isinstance(unit, Tensor)
        ctx.save_for_backward(*([values] if needed else []))
        sums, parts = _sums(values, unit, reading)
        ctx.mark_non_differentiable(parts)
        return sums, parts

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        per_event, of_unit = grads[0], None
        if ctx.signed:
            (values,) = ctx.saved_tensors
            events = _in_units(values, ctx.unit) if ctx.scaled else values
            per_event = torch.where(events < 0, -per_event, per_event)
        per_value = _in_units(per_event, ctx.unit) if ctx.scaled else per_event
        if ctx.needs_input_grad[1]:
            events = _in_units(ctx.saved_tensors[0], ctx.unit)
            of_unit = -(per_value * events).sum_to_size(ctx.unit.shape).to(ctx.unit.dtype)
        return per_value.to(ctx.dtype).expand(ctx.shape), of_unit, None


def sum_events(values: Tensor, unit: Tensor | float, reading: Reading) -> tuple[Tensor, Tensor]:
    """Sum the events in a tensor over all axes that are not kept.

    Args:
        values: any dtype; an event of value v counts |v| (derivative +1 for v ≥ 0, else −1).
        unit: the value of one event, not zero. Sums are of whole events if it is not 1. What a
            tensor is worth has a derivative, too: counts do not change when units do.
        reading: how to read them.

    Returns:
        the sums in float64, of :meth:`Reading.shape`, and the partial sums of blocks that they are
        made of, in float32 (float64 for values in float64).
    """
    if not values.is_floating_point() and not reading.graded and values.dtype != torch.bool:
        values = values.double()
    differentiable = values.requires_grad or (isinstance(unit, Tensor) and unit.requires_grad)
    if differentiable and torch.is_grad_enabled():
        return _SumEvents.apply(values, unit, reading)
    return _sums(values, unit, reading)


def _sums(values: Tensor, unit: Tensor | float, reading: Reading) -> tuple[Tensor, Tensor]:
    if reading.graded:
        values = values != 0
    else:
        if isinstance(unit, Tensor) or unit != 1.0:
            values = _in_units(values, unit).round()
        if reading.signed and values.dtype != torch.bool:
            values = values.abs()
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    sizes = reading.shape(values.shape)
    if not reading.kept:
        parts = _block_sums(values, dtype)
        return parts.sum(dtype=torch.float64).view(sizes), parts
    inner, outer = _split_axes(tuple(values.shape), reading.kept)
    parts = values.sum(inner, keepdim=True, dtype=dtype) if inner else values.to(dtype)
    sums = parts.sum(outer, keepdim=True, dtype=torch.float64) if outer else parts.double()
    return sums, parts


def _block_sums(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ over blocks of at most 4096 elements, in any order that memory suggests."""
    if not values.is_contiguous():
        values = values.permute(_by_stride(values.stride()))  # no copy, if it is dense
    block = _block(values.numel())
    if block:
        return values.reshape(-1, block).sum(1, dtype=dtype)
    flat = values.reshape(-1)  # its length has no good divisor
    whole = flat.numel() // BLOCK * BLOCK
    parts = flat[:whole].view(-1, BLOCK).sum(1, dtype=dtype)
    return torch.cat((parts, flat[whole:].sum(0, keepdim=True, dtype=dtype)))


@lru_cache(maxsize=4096)
def _split_axes(
    size: tuple[int, ...], kept: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes to sum over, as many as fit into one block first."""
    inner: list[int] = []
    outer: list[int] = []
    for axis in reversed([axis for axis in range(len(size)) if axis not in kept]):
        fits = math.prod(size[a] for a in (*inner, axis)) <= BLOCK
        (inner if fits else outer).append(axis)
    return tuple(inner), tuple(outer)


@lru_cache(maxsize=4096)
def _block(count: int) -> int:
    """The largest divisor of ``count`` that is no larger than a block; 0 if that is small."""
    best = next((n for n in range(min(BLOCK, count), 0, -1) if count % n == 0), 0)
    return best if best * 64 >= min(BLOCK, count) else 0


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
        sizes: the shape of each source's sums.
        device: where they are.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        rows: int,
        sizes: Sequence[Sequence[int]],
        device: torch.device,
    ) -> None:
        lengths = [math.prod(size) for size in sizes]
        numbers = torch.arange(sum(lengths)).split(lengths)  # of the sums, by source
        which, weights, into = [numbers[t.source] for t in terms] * 2, [], []
        for term in terms:  # events are SynOps of fan-out one
            weights.append(torch.tensor(float(term.repeats)).double().expand(sizes[term.source]))
            into.append(term.row)
        for term in terms:
            weights.append((term.fanout.double() * term.repeats).expand(sizes[term.source]))
            into.append(rows + term.row)
        counts = torch.tensor([len(w) for w in which], dtype=torch.int64)
        nothing = torch.zeros(0, dtype=torch.int64)
        self.device = device
        self._rows = rows
        self._which = torch.cat([*which, nothing]).to(device)
        self._weights = torch.cat([*(w.reshape(-1) for w in weights), nothing.double()]).to(device)
        self._into = torch.tensor(into, dtype=torch.int64).repeat_interleave(counts).to(device)

    def __call__(self, sums: Sequence[Tensor]) -> Tensor:
        """Events and SynOps of every connection: (2, connections), in float64.

        Args:
            sums: what :func:`sum_events` has returned, by source.
        """
        joined = torch.cat([part.reshape(-1) for part in sums])
        products = joined.index_select(0, self._which) * self._weights
        found = products.new_zeros(2 * self._rows).index_add(0, self._into, products)
        return found.view(2, self._rows)


def largest(parts: Sequence[Tensor]) -> Tensor:
    """The largest partial sum that was added up in float32; 0 if there is none."""
    narrow = [part.reshape(-1) for part in parts if part.dtype == torch.float32]
    if not narrow or not sum(part.numel() for part in narrow):
        device = parts[0].device if parts else None
        return torch.zeros((), dtype=torch.float64, device=device)
    return torch.cat(narrow).amax().double()
