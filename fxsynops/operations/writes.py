"""Operations that put values into a tensor: what was there goes on, unless written over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from fxsynops.operations.call import Call, shape
from fxsynops.operations.elementwise import pull_elementwise
from fxsynops.operations.linear_forms import overlay, set_part
from fxsynops.operations.movement import is_basic, pull_read, read_shape
from fxsynops.operations.operation import Kind, Operation, Slot, once
from fxsynops.operations.registry import operations
from fxsynops.operations.transpose import compress, pull_broadcast, pull_incidence
from fxsynops.operations.value_range import Evaluation, Range, RangeRule, ranged


def _joined(
    ranges: Evaluation, a: Any, b: Any, f: Callable[[Tensor, Tensor], Tensor]
) -> Range | None:
    """The range of a linear function of two operands."""
    left, right = ranged(ranges.operand(a)), ranged(ranges.operand(b))
    if left is None or right is None:
        return None
    zeros = torch.zeros_like(left.up), torch.zeros_like(right.up)

    def part(x: Tensor | None, y: Tensor | None) -> Tensor | None:
        if x is None and y is None:
            return None
        return f(zeros[0] if x is None else x, zeros[1] if y is None else y)

    up = f(left.up, right.up)
    return Range(up, part(left.down, right.down), part(left.center, right.center))


# -- x[index] = value ------------------------------------------------------------------------------


def _pull_setitem(call: Call, map: Tensor) -> Iterable[Slot]:
    x, index, value = call["input"], call["index"], call["value"]
    if not is_basic(index):
        return pull_incidence(call, map, set_part)
    read = read_shape(x, index)
    slot = pull_read(x, index, torch.ones((1,) * len(read), dtype=map.dtype))
    assert slot.where is not None
    where = tuple(
        slice(None) if map.shape[i] == 1 and s == slice(None) else s
        for i, s in enumerate(slot.where)
    )
    full = map.expand(
        [n if s != slice(None) else m for n, m, s in zip(shape(x), map.shape, where, strict=True)]
    )
    kept = full.clone()
    kept[where] = 0
    slots = [Slot(x, compress(kept))]
    if isinstance(value, fx.Node) and "spec" in value.meta:
        small = compress(full.expand(shape(x))[index].reshape(read))
        own = shape(value)
        if len(own) > len(read):  # leading axes of size 1 are allowed
            small = small.reshape((1,) * (len(own) - len(read)) + tuple(small.shape))
            read = (1,) * (len(own) - len(read)) + read
        slots.append(pull_broadcast(value, small, read))
    return slots


def _set_range(ranges: Evaluation, call: Call) -> Range | None:
    indices: list[fx.Node] = []
    map_arg((call["index"],), indices.append)
    if any(isinstance(ranges.operand(n), Range) for n in indices):
        return None
    index = map_arg((call["index"],), ranges.operand)[0]
    return _joined(ranges, call["input"], call["value"], lambda a, b: set_part(a, index, b))


operations.add(
    "setitem",
    Operation(
        Kind.ROUTING,
        "index",
        carries="input value",
        pull=_pull_setitem,
        led=True,
        overwrites=True,
        range=RangeRule(_set_range),
    ),
)


_placed = Operation(
    Kind.ROUTING,
    "dim index start end step offset dim1 dim2 indices accumulate",
    carries="input src values",
    pull=pull_incidence,
    overwrites=True,
)
operations.add("slice_scatter select_scatter diagonal_scatter", _placed)
operations.add("index_put", replace(_placed, led=True))

# -- x.copy_(src) ----------------------------------------------------------------------------------


def _pull_copy(call: Call, map: Tensor) -> Iterator[Slot]:
    if isinstance(call["src"], fx.Node):
        yield pull_broadcast(call["src"], map, shape(call.node))


operations.add(
    "copy",
    Operation(
        Kind.ROUTING,
        carries="src",
        sizes="input",
        pull=_pull_copy,
        overwrites=True,
        range=RangeRule(
            lambda ranges, call: _joined(
                ranges, call["input"], call["src"], lambda a, b: b.expand_as(a).clone()
            )
        ),
    ),
)

# -- what the recorder adds: tensors after a write, and those that share memory with them ----------


def _after_range(ranges: Evaluation, call: Call) -> Range | None:
    value = ranges.operand(call["call"])
    fits = isinstance(value, Range) and tuple(value.up.shape) == shape(call.node)
    return value if fits else None


operations.add(
    "after",
    Operation(
        Kind.ROUTING,
        "call",
        pull=pull_elementwise,
        elementwise=True,
        range=RangeRule(_after_range),
    ),
)
operations.add(
    "alias_after",
    Operation(
        Kind.ROUTING,
        "geometry",
        carries="input written",
        pull=lambda call, map: pull_incidence(call, map, overlay),
        overwrites=True,
        range=RangeRule(
            lambda ranges, call: _joined(
                ranges, call["input"], call["written"], lambda a, b: overlay(a, b, call["geometry"])
            )
        ),
    ),
)

# -- to places that a tensor says ------------------------------------------------------------------


def _unbounded(_: Call) -> float:
    return math.inf


operations.add(
    "scatter_add index_add",
    Operation(Kind.GATE, "dim index alpha", carries="input src source", gain=_unbounded),
)


def _reduced(call: Call) -> Operation:
    """The sum of what arrives, or the largest of it; a mean is neither."""
    reduce = call["reduce"]
    if reduce in ("amax", "amin") and call["include_self"]:
        return replace(_reduction, gain=once)
    return (
        _reduction
        if reduce == "sum"
        else Operation(Kind.ANALOG, "*", carries="*", analog_only=True)
    )


_reduction = Operation(
    Kind.GATE,
    "dim index reduce include_self",
    carries="input src source",
    gain=_unbounded,
)
operations.add("scatter_reduce index_reduce", replace(_reduction, resolve=_reduced))
operations.add(
    "masked_scatter scatter index_copy",
    Operation(
        Kind.GATE,
        "dim index mask",
        carries="input src source",
        fills=("value",),
        moves=True,
        overwrites=True,
        gain=_unbounded,
    ),
)
operations.add(
    "index_fill", Operation(Kind.GATE, "dim index", fills=("value",), moves=True, overwrites=True)
)
operations.add(
    "masked_fill", Operation(Kind.GATE, "mask", fills=("value",), moves=True, overwrites=True)
)

# -- every element ---------------------------------------------------------------------------------
# Their output depends on no value of their input.

operations.add("zero", Operation(Kind.ANALOG, "input", carries="", sets=0.0))
operations.add("fill", Operation(Kind.ANALOG, carries="value", sizes="input", sets="value"))
operations.add(
    """zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty
    empty_strided new_empty_strided""",
    Operation(Kind.ANALOG, "*", carries="", sizes="input"),
)
