"""Counting events: Σ |e| over the axes along which fan-out is constant, exact, in one read.

Whole numbers stay exact: at most 4096 elements are added up in float32 (in which 4096 × 4096 =
2**24 is still exact), everything beyond in float64. Sums that leave this range are not waited for
but flagged: each count carries a flag that says whether any block reached 2**24.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_BLOCK = 4096
EXACT_BELOW = 2.0**24


class _SumEvents(torch.autograd.Function):
    """Σ |e| over all but some axes, and the largest partial sum."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        unit: Tensor | float,
        kept: tuple[int, ...],
        signed: bool,
        graded: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.shape, ctx.dtype, ctx.signed = values.shape, values.dtype, signed
        ctx.scaled = not (isinstance(unit, float) and unit == 1.0)
        ctx.unit = unit
        needed = signed or isinstance(unit, Tensor)
        ctx.save_for_backward(*([values] if needed else []))
        if graded:
            events = values != 0
        else:
            events = _in_units(values, unit).round() if ctx.scaled else values
            events = events.abs() if signed else events
        sums, largest = _sum_all_but(events, kept)
        ctx.mark_non_differentiable(largest)
        return sums, largest

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
        return per_value.to(ctx.dtype).expand(ctx.shape), of_unit, None, None, None


def _in_units(values: Tensor, unit: Tensor | float) -> Tensor:
    """Values as numbers of events; none where one event is worth nothing."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32))  # half would round counts
    if isinstance(unit, Tensor):
        unit = unit.to(wide.dtype)
        unit = torch.where(unit == 0, torch.inf, unit)
    return wide / unit


def sum_events(
    values: Tensor,
    kept: Sequence[int] = (),
    *,
    unit: Tensor | float = 1.0,
    signed: bool = True,
    graded: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sum the events in a tensor over all of its axes but some.

    Args:
        values: any dtype; an event of value v counts |v| (derivative +1 for v ≥ 0, else −1).
        kept: the axes to keep; all others stay, too, with size 1.
        unit: the value of one event, not zero. Sums are of whole events if it is not 1. What a
            tensor is worth has a derivative, too: counts do not change when units do.
        signed: whether there may be negative values.
        graded: count 1 for each value that is not zero (with the derivative of its value).

    Returns:
        the sums in float64, and the largest partial sum that was added up in float32: from 2**24
        on, whole numbers may have been rounded.
    """
    if not values.is_floating_point():
        signed = signed and values.dtype != torch.bool
        values = values if values.dtype == torch.bool or graded else values.double()
    return _SumEvents.apply(values, unit, tuple(kept), signed, graded)


def _sum_all_but(x: Tensor, kept: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Sum over all other axes (which stay, with size 1) in float64, and the largest partial sum."""
    sizes = [n if axis in kept else 1 for axis, n in enumerate(x.shape)]
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if x.numel() == 0:
        return x.new_zeros(sizes, dtype=torch.float64), x.new_zeros((), dtype=torch.float64)
    if kept:
        inner, outer = _split_axes(x.shape, kept)
        parts = x.sum(inner, keepdim=True, dtype=dtype) if inner else x.to(dtype)
        sums = parts.sum(outer, keepdim=True, dtype=torch.float64) if outer else parts.double()
    else:
        flat = x.reshape(-1)
        blocks = flat.numel() // _BLOCK * _BLOCK
        parts = flat[blocks:].sum(0, keepdim=True, dtype=dtype)
        if blocks:
            parts = torch.cat((flat[:blocks].view(-1, _BLOCK).sum(1, dtype=dtype), parts))
        sums = parts.sum(dtype=torch.float64).reshape(sizes)
    return sums, parts.amax().double() if dtype == torch.float32 else sums.new_zeros(())


def _split_axes(shape: Sequence[int], kept: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """The axes to sum over, as many as fit into one block first."""
    inner: list[int] = []
    outer: list[int] = []
    for axis in reversed([axis for axis in range(len(shape)) if axis not in kept]):
        fits = math.prod(shape[a] for a in (*inner, axis)) <= _BLOCK
        (inner if fits else outer).append(axis)
    return inner, outer
