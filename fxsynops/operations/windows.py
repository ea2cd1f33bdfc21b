"""Operations that add up events in windows, or along axes: sums, averages, pools, upsampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fxsynops.operations.call import Call, shape
from fxsynops.operations.linear_forms import sum_windows
from fxsynops.operations.operation import (
    Kind,
    Operation,
    Pull,
    Scale,
    Slot,
    once,
    unequal,
    unscaled,
)
from fxsynops.operations.registry import operations
from fxsynops.operations.transpose import compress, pull_local
from fxsynops.operations.value_range import Evaluation, Range, RangeRule, linear

# -- along axes ------------------------------------------------------------------------------------


def summed_axes(call: Call) -> list[int]:
    """The axes that a sum takes together."""
    dims, n = call.get("dim"), len(shape(call.x))
    if dims is None or (not isinstance(dims, int) and not dims):
        return list(range(n))
    return sorted({d % n for d in ([dims] if isinstance(dims, int) else dims)})


def _pull_sum(call: Call, map: Tensor) -> Iterator[Slot]:
    if map.dim() != len(shape(call.x)):
        for axis in summed_axes(call):
            map = map.unsqueeze(axis)
    yield Slot(call.x, map)


def _summed(call: Call) -> int:
    return math.prod(shape(call.x)[axis] for axis in summed_axes(call))


operations.add("sum nansum", Operation(Kind.ROUTING, "dim keepdim", pull=_pull_sum, gain=_summed))
operations.add(
    "mean",
    Operation(
        Kind.ROUTING,
        "dim keepdim",
        pull=_pull_sum,
        scale=lambda call: Scale(1 / max(_summed(call), 1)),
        gain=_summed,
    ),
)


def _pull_cumsum(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call["dim"]
    return pull_local(call, map, lambda x: x.cumsum(axis), [axis])


operations.add(
    "cumsum",
    Operation(
        Kind.ROUTING,
        "dim",
        pull=_pull_cumsum,
        gain=lambda call: max(shape(call.x)[call["dim"]], 1),
    ),
)

# -- average pools ---------------------------------------------------------------------------------


def each_axis(value: Any, n: int) -> tuple[int, ...]:
    """A number for every axis, given one for all or one for each."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)


def window(call: Call, n: int) -> tuple[Any, ...]:
    """Kernel, stride, padding and ceil_mode of a pool over ``n`` axes."""
    kernel, stride = each_axis(call["kernel_size"], n), call["stride"]
    stride = kernel if stride is None or stride in ((), []) else each_axis(stride, n)
    padding = each_axis(call.get("padding", 0), n)
    return kernel, stride, padding, bool(call.get("ceil_mode", False))


def _pull_windows(n: int) -> Pull:
    def pull(call: Call, map: Tensor) -> Iterator[Slot]:
        geometry = window(call, n)
        return pull_local(call, map, lambda x: sum_windows(x, n, geometry), range(-n, 0))

    return pull


def _average_range(ranges: Evaluation, call: Call) -> Any:
    """A weighted sum, unless its divisor is negative."""
    divisor = call.get("divisor_override")
    return None if isinstance(divisor, int) and divisor < 0 else linear.find(ranges, call)


def _avg_pool(n: int) -> Operation:
    def scale(call: Call) -> Scale | None:
        kernel, stride, padding, _ = window(call, n)
        if divisor := call.get("divisor_override"):
            return Scale(1 / divisor)
        size, out = shape(call.x)[-n:], shape(call.node)[-n:]
        for i in range(n):
            last = (out[i] - 1) * stride[i] + kernel[i] - padding[i]  # where the last window ends
            counts_padding = call["count_include_pad"]
            if last > size[i] + (padding[i] if counts_padding else 0):
                return None
            if padding[i] and not counts_padding:
                return None
        return Scale(1 / math.prod(kernel))

    return Operation(
        Kind.ROUTING,
        "kernel_size stride padding ceil_mode count_include_pad divisor_override",
        pull=_pull_windows(n),
        scale=scale,
        gain=lambda call: math.prod(window(call, n)[0]),
        range=RangeRule(_average_range),
    )


operations.add("avg_pool1d", _avg_pool(1))
operations.add("avg_pool2d", _avg_pool(2))
operations.add("avg_pool3d", _avg_pool(3))

# -- norm pools: with norm 1 they sum (sinabs' SumPool2d); other norms are analog ------------------


def _lp_pool(n: int) -> Operation:
    def scale(call: Call) -> Scale | None:
        # torch computes it as an average times the full window, also for a partial window.
        kernel, stride, _, _ = window(call, n)
        size, out = shape(call.x)[-n:], shape(call.node)[-n:]
        whole = all(
            (o - 1) * s + k <= z for o, s, k, z in zip(out, stride, kernel, size, strict=True)
        )
        return Scale() if whole else None

    def pooled(ranges: Evaluation, call: Call) -> Range | None:
        """An average times its window (torch's own function has no slope at 0)."""
        value = ranges.operand(call.x)
        if call["norm_type"] != 1 or not isinstance(value, Range):
            return None
        kernel, stride, _, ceil = window(call, n)
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
        size = math.prod(kernel)

        def full(x: Tensor) -> Tensor:
            return pool(x, kernel, stride, 0, ceil) * size

        level = None if value.center is None else full(value.center.abs())  # terms may cancel
        return ranges.rounded(call.node, value.each(full), size, level)

    sums = Operation(
        Kind.ROUTING,
        "norm_type kernel_size stride ceil_mode",
        pull=_pull_windows(n),
        scale=scale,
        gain=lambda call: math.prod(window(call, n)[0]),
        range=RangeRule(pooled),
    )
    other = Operation(Kind.ANALOG, "*", carries="*")
    return replace(sums, resolve=lambda call: sums if call["norm_type"] == 1 else other)


operations.add("lp_pool1d", _lp_pool(1))
operations.add("lp_pool2d", _lp_pool(2))
operations.add("lp_pool3d", _lp_pool(3))

# -- what is one matrix along each axis ------------------------------------------------------------


def _spread(x: Tensor, matrices: list[Tensor]) -> Tensor:
    """Apply one (out × in) matrix along each of the last axes."""
    for i, matrix in enumerate(matrices):
        axis = x.dim() - len(matrices) + i
        x = torch.tensordot(x, matrix, dims=([axis], [1])).movedim(-1, axis)
    return x


def _by_matrices(matrices: Callable[[Call], list[Tensor]]) -> Operation:
    def pull(call: Call, map: Tensor) -> Iterator[Slot]:
        spread = matrices(call)
        return pull_local(call, map, lambda x: _spread(x, spread), range(-len(spread), 0))

    def gain(call: Call) -> float:
        return math.prod(float(m.sum(1).max()) for m in matrices(call))

    return Operation(Kind.ROUTING, pull=pull, gain=gain)


def _adaptive_avg_pool(n: int) -> Operation:
    def matrix(size: int, out: int) -> Tensor:
        windows = torch.zeros(out, size, dtype=torch.float64)
        for i in range(out):
            windows[i, i * size // out : -(-(i + 1) * size // out)] = 1
        return windows

    def matrices(call: Call) -> list[Tensor]:
        sizes = zip(shape(call.x)[-n:], shape(call.node)[-n:], strict=True)
        return [matrix(size, out) for size, out in sizes]

    def scale(call: Call) -> Scale | None:
        windows = [matrix.sum(1).unique() for matrix in matrices(call)]
        if any(len(sizes) > 1 for sizes in windows):
            return None
        return Scale(1 / math.prod(float(sizes) for sizes in windows))

    return replace(_by_matrices(matrices), parameters="output_size", scale=scale)


operations.add("adaptive_avg_pool1d", _adaptive_avg_pool(1))
operations.add("adaptive_avg_pool2d", _adaptive_avg_pool(2))
operations.add("adaptive_avg_pool3d", _adaptive_avg_pool(3))


def _interpolated(call: Call) -> list[Tensor]:
    """Which inputs each output reads, per axis: where its weight is not zero."""
    n = len(shape(call.x)) - 2
    factors = call.get("scale_factor")
    factors = (
        [None] * n
        if factors is None
        else [float(f) for f in (factors if isinstance(factors, (tuple, list)) else [factors] * n)]
    )
    names = ("align_corners", "recompute_scale_factor", "antialias")
    options = {name: call[name] for name in names}
    # One axis at a time; modes of two axes are tried on a constant second axis of the same size.
    mode = {"trilinear": "bilinear", "linear": "bilinear"}.get(call["mode"], call["mode"])
    found = []
    for size, out, factor in zip(shape(call.x)[-n:], shape(call.node)[-n:], factors, strict=True):
        x = torch.eye(size, dtype=torch.float64)[:, None, :, None].expand(-1, 1, -1, size)
        if factor is None:
            y = F.interpolate(x, size=(out, size), mode=mode, **options)
        else:
            y = F.interpolate(x, scale_factor=(factor, 1.0), mode=mode, **options)
        found.append((y[:, 0, :, 0].T != 0).double())
    return found


def _interpolated_range(ranges: Evaluation, call: Call) -> Any:
    """Cubic weights may be negative."""
    return None if call["mode"] == "bicubic" else linear.find(ranges, call)


_weighted = replace(
    _by_matrices(_interpolated),
    parameters="size scale_factor mode align_corners recompute_scale_factor antialias",
    scale=unequal,
    range=RangeRule(_interpolated_range),
)
_copied = replace(_weighted, scale=unscaled, gain=once)
operations.add(
    "interpolate",
    replace(
        _weighted,
        resolve=lambda call: _copied if call["mode"].startswith("nearest") else _weighted,
    ),
)

# -- largest values --------------------------------------------------------------------------------


def _max_pool_range(n: int) -> RangeRule:
    def find(ranges: Evaluation, call: Call) -> Any:
        """The largest of a window; in totals, no more than the sum of the window's deviations."""
        value, node = ranges.operand(call.x), call.node
        if not isinstance(value, Range):
            return None

        def pooled(x: Tensor) -> Tensor:
            found = ranges.replaced(call, lambda n, held: x if n is call.x else held)
            return found if isinstance(found, Tensor) else found[0]

        def as_returned(value: Range | None) -> Any:
            return value if "spec" in node.meta else (value, None)  # alone, or with indices

        if not ranges.totals:
            high = pooled(value.high)
            low = torch.zeros_like(high) if value.positive else pooled(value.low)
            ranges.kept[node] = Range.between(low, high)
            return as_returned(ranges.kept[node])
        dilation = call.get("dilation", 1)
        if any(step != 1 for step in each_axis(dilation, n)):
            return as_returned(ranges.kept.get(node))
        geometry = window(call, n)
        up = sum_windows(value.up, n, geometry)
        down = None if value.down is None else sum_windows(value.down, n, geometry)
        center = None if value.center is None else pooled(value.center)
        return as_returned(Range(up, down, center))

    return RangeRule(find)


# -- from coordinates that are fixed ---------------------------------------------------------------


def _pull_samples(call: Call, map: Tensor) -> Iterator[Slot]:
    """Every place of the input that an element of the output is computed from, once."""
    x, grid = call["input"], call.constant(call["grid"])
    assert grid is not None
    batch, _, *size = shape(x)
    cells = math.prod(size)
    modes = (call["mode"] or "bilinear", call["padding_mode"] or "zeros", call["align_corners"])
    fixed = bool((grid == grid[:1]).all())
    each = map if map.shape[0] > 1 or fixed else map.expand(batch, *map.shape[1:])
    images = torch.eye(cells, dtype=torch.float64).reshape(1, cells, *size)
    parts = []
    for i in range(len(each)):
        at = grid[i : i + 1].double().cpu()
        weights = F.grid_sample(images, at, *modes).flatten(2)[0] != 0  # cells × places
        places = each[i].expand(-1, *shape(call.node)[2:]).flatten(1)
        parts.append((places @ weights.double().T).reshape(-1, *size))
    yield Slot(x, compress(torch.stack(parts)))


operations.add(
    "grid_sample",
    Operation(
        Kind.ROUTING,
        "grid mode padding_mode align_corners",
        pull=_pull_samples,
        scale=unequal,
        gain=lambda _: math.inf,
        led=True,
    ),
)

for _n in (1, 2, 3):
    operations.add(
        f"max_pool{_n}d max_pool{_n}d_with_indices",
        Operation(Kind.GATE, "*", outputs=(0,), picks=1, range=_max_pool_range(_n)),
    )
operations.add(
    """adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adaptive_max_pool1d_with_indices
    adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices""",
    Operation(Kind.GATE, "*", outputs=(0,), picks=1),
)
operations.add(
    """fractional_max_pool2d fractional_max_pool3d fractional_max_pool2d_with_indices
    fractional_max_pool3d_with_indices""",
    Operation(Kind.GATE, "*", outputs=(0,), picks=1, draws=lambda _: True),
)
