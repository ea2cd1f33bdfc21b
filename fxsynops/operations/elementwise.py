"""Operations that work element by element and are linear in events: copies, sums, scales."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Kind, Operation, Scale, Slot, always, unequal
from fxsynops.operations.registry import operations
from fxsynops.operations.transpose import pull_broadcast
from fxsynops.operations.value_range import (
    Evaluation,
    Range,
    RangeRule,
    as_double,
    bilinear,
    same,
    sums,
)


def pull_elementwise(call: Call, map: Tensor) -> Iterator[Slot]:
    """To the first operand."""
    yield pull_broadcast(call.x, map, shape(call.node))


def _pull_operands(call: Call, map: Tensor) -> Iterator[Slot]:
    for node in call.operands("input", "other"):
        yield pull_broadcast(node, map, shape(call.node))


# -- copies ----------------------------------------------------------------------------------------
# A cast to whole numbers makes other values of fractions: see ``Operation.of``.

copies = Operation(
    Kind.ROUTING,
    sizes="other",
    pull=pull_elementwise,
    elementwise=True,
    terms=lambda call: [(1, call["input"])],
    range=same,
)
operations.add(
    """contiguous clone detach to type type_as float double half bfloat16 int long short byte char
    bool cpu cuda alias requires_grad detach_copy _to_copy pin_memory positive
    get_data dequantize deepcopy shallow_copy share_memory to_sparse to_sparse_coo to_sparse_csr
    to_sparse_csc to_dense coalesce""",
    copies,
)
operations.add(  # a spike is on the grid
    "quantize_per_tensor", replace(copies, parameters="scale zero_point dtype", range=None)
)


def _pull_data(call: Call, map: Tensor) -> Iterator[Slot]:
    data = call["data"]
    if isinstance(data, fx.Node):
        yield pull_broadcast(data, map, shape(call.node))
        return
    values = map.expand(shape(call.node)).flatten()
    for part, value in zip(pytree.tree_leaves(data), values, strict=True):
        if isinstance(part, fx.Node):
            yield Slot(part, value.reshape([1] * len(shape(part))))


def _of_data(call: Call) -> Operation:
    """A copy of a tensor, or of single values in lists."""
    whole = isinstance(call["data"], fx.Node)
    return replace(
        _copied,
        elementwise=whole,
        terms=_as_given if whole else None,
        joins=not whole,
        range=same if whole else None,
    )


def _as_given(call: Call) -> list[tuple[Any, Any]]:
    return [(1, call["data"])]


_copied = replace(copies, carries="data", sizes="input", pull=_pull_data, resolve=None)
operations.add("tensor as_tensor asarray new_tensor", replace(_copied, resolve=_of_data))

# What an operation is when its arguments make it do nothing (dropout in eval mode).
identity = Operation(Kind.ROUTING, pull=pull_elementwise, elementwise=True)

# -- sums ------------------------------------------------------------------------------------------


operations.add(
    "add",
    Operation(
        Kind.ROUTING,
        "alpha",
        carries="input other",
        pull=_pull_operands,
        terms=lambda call: [(1, call["input"]), (call.get("alpha", 1), call["other"])],
        merges=True,
        range=sums,
    ),
)
operations.add(
    "sub subtract",
    Operation(
        Kind.ROUTING,
        "alpha",
        carries="input other",
        pull=_pull_operands,
        terms=lambda call: [(1, call["input"]), (-call.get("alpha", 1), call["other"])],
        merges=True,
        range=sums,
    ),
)
operations.add(
    "rsub",
    Operation(
        Kind.ROUTING,
        "alpha",
        carries="input other",
        pull=_pull_operands,
        terms=lambda call: [(-call.get("alpha", 1), call["input"]), (1, call["other"])],
        merges=True,
        range=sums,
    ),
)


def _negative(ranges: Evaluation, call: Call) -> Any:
    value = ranges.operand(call.x)
    return -value if isinstance(value, Range) else None


operations.add(
    "neg negative",
    Operation(
        Kind.ROUTING,
        pull=pull_elementwise,
        elementwise=True,
        scale=lambda _: Scale(-1.0),
        terms=lambda call: [(-1, call["input"])],
        range=RangeRule(_negative),
    ),
)

# -- scales ----------------------------------------------------------------------------------------


def _multiply(ranges: Evaluation, call: Call) -> Any:
    left, right = ranges.operand(call["input"]), ranges.operand(call["other"])
    if isinstance(left, Range) and isinstance(right, Range):
        return bilinear.find(ranges, call)
    if not isinstance(left, Range):
        left, right = right, left
    if not isinstance(left, Range) or right is None:
        return None
    return ranges.rounded(call.node, left * as_double(right), 1)


def _number_times(call: Call) -> list[tuple[Any, Any]]:
    """A number times a tensor, in either order."""
    pair = call["input"], call["other"]
    numbers = [v for v in pair if isinstance(v, int | float)]
    return [(numbers[0], v) for v in pair if isinstance(v, fx.Node)] if len(numbers) == 1 else []


def _pull_factors(call: Call, map: Tensor) -> Iterator[Slot]:
    """To the operands; where the other one is zero and stays so, nothing passes."""
    pair = call["input"], call["other"]
    for node, other in (pair, pair[::-1]):
        if isinstance(node, fx.Node):
            factor = call.constant(other) if isinstance(other, fx.Node) else None
            stops = factor is not None and not factor.is_meta and bool((factor == 0).any())
            passing = factor != 0 if stops else None
            yield pull_broadcast(node, map if passing is None else map * passing, shape(call.node))


operations.add(
    "mul multiply",
    Operation(
        Kind.ROUTING,
        carries="input other",
        pull=_pull_factors,
        terms=_number_times,
        factors=lambda call: (call["input"], call["other"]),
        range=RangeRule(_multiply),
    ),
)


def _divide(ranges: Evaluation, call: Call) -> Any:
    left, right = ranges.operand(call["input"]), ranges.operand(call["other"])
    if not isinstance(left, Range) or isinstance(right, Range) or right is None:
        return None
    divisor = as_double(right)
    if not bool((divisor != 0).all()):
        return None
    return ranges.rounded(call.node, left * (1 / divisor), 2)


def _over_number(call: Call) -> list[tuple[Any, Any]]:
    other = call["other"]
    return [(1 / other, call["input"])] if isinstance(other, int | float) and other else []


_divided = Operation(
    Kind.ROUTING,
    "rounding_mode",
    carries="input other",
    pull=_pull_operands,
    terms=_over_number,
    factors=lambda call: (call["input"], call["other"]),
    divides=True,
    range=RangeRule(_divide),
)
# Whole numbers, whatever comes in.
floor_divided = Operation(Kind.THRESHOLD, "rounding_mode", carries="input other", whole=True)


def _division(call: Call) -> Operation:
    return _divided if call.get("rounding_mode") is None else floor_divided


operations.add(
    "div divide true_divide",
    Operation(Kind.ROUTING, "rounding_mode", carries="input other", resolve=_division),
)

# -- batch norm ------------------------------------------------------------------------------------


def _batch_norm_module(ranges: Evaluation, call: Call) -> Range | None:
    """Of a module, whichever axes its forward normalizes: in eval mode, it is affine."""
    module: Any = ranges.module(call.node)
    value = ranges.operand(call.x)
    if module.training or module.running_mean is None or not isinstance(value, Range):
        return None
    module = deepcopy(module).double().cpu()
    zeros = torch.zeros(value.up.shape, dtype=torch.float64)
    with torch.no_grad():
        offset = module.forward(zeros)
        slope = module.forward(zeros + 1) - offset
        random = torch.Generator().manual_seed(0)
        for size in (1.0, -3.0, 1e3):  # a forward of the user's may be something else
            probe = size * torch.rand(zeros.shape, generator=random, dtype=zeros.dtype)
            if not torch.allclose(module.forward(probe), offset + slope * probe):
                return None
        module.running_mean.zero_()
        bias = module.forward(zeros)
    level = bias.abs() + (offset - bias).abs() + slope.abs()  # of terms that may cancel
    return _affine(ranges, call, value * slope, offset, level)


def _batch_norm(ranges: Evaluation, call: Call) -> Range | None:
    if not call.name:
        return _batch_norm_module(ranges, call)
    names = ("running_mean", "running_var", "weight", "bias")
    held = [ranges.operand(call.get(name)) for name in names]
    known = held[0] is not None and not any(isinstance(value, Range) for value in held)
    value = ranges.operand(call.x)
    if call.get("training", False) or not known or not isinstance(value, Range):
        return None
    mean, variance, weight, bias = held
    size = (1, -1) + (1,) * (value.up.dim() - 2)
    slope = (as_double(variance) + call["eps"]).rsqrt()
    if weight is not None:
        slope = slope * as_double(weight)
    offset = -as_double(mean) * slope
    level = offset.abs()
    if bias is not None:
        offset, level = offset + as_double(bias), level + as_double(bias).abs()
    scaled = value * slope.reshape(size)
    return _affine(ranges, call, scaled, offset.reshape(size), level.reshape(size))


def _affine(ranges: Evaluation, call: Call, scaled: Range, offset: Tensor, level: Tensor) -> Range:
    """``scaled + offset``, whose parts are of some level before they cancel."""
    center = offset.expand(scaled.up.shape)
    if scaled.center is not None:
        level = level + scaled.center.abs()
        center = center + scaled.center
    return ranges.rounded(call.node, Range(scaled.up, scaled.down, center), 6, level)


operations.add(
    "batch_norm native_batch_norm",
    Operation(
        Kind.ROUTING,
        "running_mean running_var weight bias training momentum eps",
        pull=pull_elementwise,
        elementwise=True,
        scale=unequal,
        shifts=always,
        outputs=(0,),
        range=RangeRule(_batch_norm),
    ),
)
operations.by_target[torch.nn.modules.batchnorm._BatchNorm] = operations.by_name["batch_norm"]
