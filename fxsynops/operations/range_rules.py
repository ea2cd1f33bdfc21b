"""The range rules of operations: each says what can come out, given what can come in.

Entries of the registry name them. Without one, a routing operation is linear, a synapse and a
product bilinear, and of anything else nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from fxsynops.operations.linear import overlay, set_part, sum_windows
from fxsynops.operations.range import Evaluation, Range, RangeRule, added, finite, per_step
from fxsynops.operations.registry import Call, Scale, operation_name, operations, shape
from fxsynops.tracing import graph_functions as replayed


def _double(value: Any) -> Tensor:
    """In float64; a Python number is not rounded to float32 on the way."""
    if isinstance(value, Tensor):
        return value.detach().to(torch.float64)
    return torch.tensor(value, dtype=torch.float64)


def _call(node: fx.Node) -> Call:
    return Call(
        node, node.target, operation_name(node.target), node.args, node.kwargs, None, lambda _: None
    )


def _input(ranges: Evaluation, node: fx.Node) -> Any:
    """What the first operand can be."""
    return ranges.operand(_call(node).arg(0, "input"))


def _pair(ranges: Evaluation, node: fx.Node) -> tuple[Any, Any]:
    """What the first two operands can be."""
    call = _call(node)
    return ranges.operand(call.arg(0, "input")), ranges.operand(call.arg(1, "other"))


# -- linear rules ----------------------------------------------------------------------------------


def _same(ranges: Evaluation, node: fx.Node) -> Any:
    value = _input(ranges, node)
    dtype = node.meta["spec"].dtype
    if not isinstance(value, Range) or dtype.is_floating_point:
        return value
    if dtype == torch.bool:
        return Range(torch.ones_like(value.up))
    return Range(value.total, None if value.positive else value.total_down)


def _linear(ranges: Evaluation, node: fx.Node) -> Any:
    """Routing with weights that are not negative: each part goes its own way."""
    data = _carriers(node)
    found = [ranges.operand(n) for n in data]
    steering = [n for n in node.all_input_nodes if n not in data]
    if any(v is None for v in found) or any(isinstance(ranges.operand(n), Range) for n in steering):
        return None

    def part(name: str) -> Any:
        def choose(n: fx.Node, value: Any) -> Any:
            if n not in data:
                return value
            if isinstance(value, Range):
                known = getattr(value, name)
                return torch.zeros_like(value.up) if known is None else known
            return _double(value) if name == "center" else torch.zeros_like(_double(value))

        return ranges.replaced(node, choose)

    ups = part("up")
    down = part("down") if any(isinstance(v, Range) and v.down is not None for v in found) else None
    centered = any(isinstance(v, Tensor) or v.center is not None for v in found)
    centers = part("center") if centered else None
    if isinstance(ups, Tensor):
        value = Range(finite(ups), None if down is None else finite(down), centers)
        return ranges.rounded(node, value, _met(node))
    return [
        Range(up, None if down is None else down[i], None if centers is None else centers[i])
        for i, up in enumerate(ups)
    ]


def _carriers(node: fx.Node) -> dict[fx.Node, None]:
    """The operands of a routing call whose values it carries; the others only steer."""
    positions = operations.by_name[operation_name(node.target)].data
    data: dict[fx.Node, None] = {}
    args = (
        node.args if positions is None else [a for i, a in enumerate(node.args) if i in positions]
    )
    map_arg(tuple(args), lambda n: data.setdefault(n))
    return data or dict.fromkeys(node.all_input_nodes)


def _met(node: fx.Node) -> float:
    """How many values meet in one element at most; 0 if values only move."""
    call = _call(node)
    operation = operations.by_name[call.name]
    moved = operation.gain(call) == 1 and operation.scale(call) == Scale()
    return 0 if moved else max(operation.gain(call), 4)


def _weighs(ranges: Evaluation, node: fx.Node) -> Any:
    """Resizing: cubic weights may be negative."""
    bicubic = _call(node).arg(3, "mode", "nearest") == "bicubic"
    return None if bicubic else _linear(ranges, node)


def _averages(ranges: Evaluation, node: fx.Node) -> Any:
    """Average pooling, unless its divisor is negative."""
    divisor = _call(node).arg(6, "divisor_override")
    return None if isinstance(divisor, int) and divisor < 0 else _linear(ranges, node)


def _pools(ranges: Evaluation, node: fx.Node) -> Any:
    """Norm pooling of norm 1 is an average times its window (torch's own has no slope at 0)."""
    call = _call(node)
    value = ranges.operand(call.x)
    if call.arg(1, "norm_type") != 1 or not isinstance(value, Range):
        return None
    n = int(next(c for c in call.name if c.isdigit()))
    kernel = nn.modules.utils._ntuple(n)(call.arg(2, "kernel_size"))
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
    options = call.arg(3, "stride"), 0, bool(call.arg(4, "ceil_mode", False))
    found = value.each(lambda x: pool(x, kernel, *options) * math.prod(kernel))
    return ranges.rounded(node, found, math.prod(kernel))


def _pad(ranges: Evaluation, node: fx.Node) -> Any:
    call = _call(node)
    value = ranges.operand(call.x)
    pads, mode, fill = call.arg(1, "pad"), call.arg(2, "mode", "constant"), call.arg(3, "value")
    if call.name == "constant_pad_nd":
        mode, fill = "constant", call.arg(2, "value")
    if not isinstance(value, Range) or isinstance(fill, fx.Node):
        return None
    padded = value.each(lambda x: F.pad(x, pads, mode))
    if mode != "constant" or not fill:
        return padded
    center = torch.zeros_like(value.up) if value.center is None else value.center
    return Range(padded.up, padded.down, F.pad(center, pads, value=fill))


def _negative(ranges: Evaluation, node: fx.Node) -> Any:
    value = _input(ranges, node)
    return -value if isinstance(value, Range) else None


def _add(ranges: Evaluation, node: fx.Node) -> Any:
    name = operation_name(node.target)
    left, right = _pair(ranges, node)
    factor = float(node.kwargs.get("alpha", 1.0))  # type: ignore[arg-type]
    if name == "rsub":
        left, right = right, left
    if name != "add":
        factor = -factor
    a, b = _ranged(left), _ranged(right)
    if a is None or b is None:
        return None
    b = -b if factor == -1 else b if factor == 1 else b * torch.tensor(factor).double()
    return ranges.rounded(node, a + b, 2)


def _ranged(value: Any) -> Range | None:
    """A constant is a range without a width."""
    if value is None or isinstance(value, Range):
        return value
    center = _double(value)
    return Range(torch.zeros_like(center), None, center)


def _multiply(ranges: Evaluation, node: fx.Node) -> Any:
    left, right = _pair(ranges, node)
    if isinstance(left, Range) and isinstance(right, Range):
        return _product(ranges, node)
    if not isinstance(left, Range):
        left, right = right, left
    if not isinstance(left, Range) or right is None:
        return None
    return ranges.rounded(node, left * _double(right), 1)


def _divide(ranges: Evaluation, node: fx.Node) -> Any:
    left, right = _pair(ranges, node)
    if not isinstance(left, Range) or isinstance(right, Range) or node.kwargs:
        return None
    divisor = _double(right)
    return ranges.rounded(node, left * (1 / divisor), 2) if bool((divisor != 0).all()) else None


def _product(ranges: Evaluation, node: fx.Node) -> Any:
    """A bilinear operation: with constants, by the signs of the weights; of two ranges, see below.

    Summed over steps, a product x·y of positive x and y is at most Σx · max y.
    """
    operands = [n for n in node.all_input_nodes if isinstance(ranges.operand(n), Range)]
    factors = node.kwargs.get("alpha", 1), node.kwargs.get("beta", 1)
    if any(isinstance(f, fx.Node) or f < 0 for f in factors):  # type: ignore[operator]
        return None
    if len(operands) == 1:
        return _weighted(ranges, node, operands[0])
    if len(operands) != 2 or len(node.all_input_nodes) != 2:
        return None
    x, y = operands
    if ranges.totals:
        peak = ranges.kept.get(y)
        if peak is None:
            return ranges.kept.get(node)
        a = ranges.operand(x)
        most = peak.peak
        up = _only(ranges, node, {x: a.total, y: most})
        if a.positive and peak.positive:
            return Range(up)
        down = _only(ranges, node, {x: a.total_down, y: most})
        both = finite(up) + finite(down)
        return Range(up, down) if peak.positive else Range(both, both)
    a, b = ranges.operand(x), ranges.operand(y)
    ranges.kept[y] = b
    if a.positive and b.positive:
        value = Range(_only(ranges, node, {x: a.up, y: b.up}))
    else:
        most = _only(ranges, node, {x: a.peak, y: b.peak})
        signs = bool((b.low < 0).any()), bool((a.low < 0).any())
        value = Range(most, most if any(signs) else None)
    value = ranges.rounded(node, value, _terms(node))
    ranges.kept[node] = value
    return value


def _only(ranges: Evaluation, node: fx.Node, given: dict[fx.Node, Tensor]) -> Tensor:
    """The bilinear part of a call, on given factors."""

    def choose(n: fx.Node, value: Any) -> Any:
        if n in given:
            return given[n]
        return torch.zeros_like(_double(value)) if isinstance(value, Tensor) else value

    return finite(ranges.replaced(node, choose))


def _weighted(ranges: Evaluation, node: fx.Node, x: fx.Node) -> Range | None:
    weight = next((n for n in _factors(node) if n is not x), None)
    value, known = ranges.operand(x), ranges.operand(weight)
    if weight is None or not isinstance(known, Tensor):
        return None
    signed = _double(known)
    more, less = signed.clamp(min=0), (-signed).clamp(min=0)
    up = _only(ranges, node, {x: value.up, weight: more})
    down = None
    if bool(less.any()):
        down = _only(ranges, node, {x: value.up, weight: less})
    if value.down is not None:
        down = added(down, _only(ranges, node, {x: value.down, weight: more}))
        up = up + _only(ranges, node, {x: value.down, weight: less})
    center = None
    others = [n for n in node.all_input_nodes if n not in (x, weight)]
    if others or value.center is not None:

        def middle(n: fx.Node, held: Any) -> Any:
            if n is x:
                return torch.zeros_like(value.up) if value.center is None else value.center
            return _double(held) if isinstance(held, Tensor) else held

        center = ranges.replaced(node, middle)
    level = (
        None
        if value.center is None
        else _only(ranges, node, {x: value.center.abs(), weight: signed.abs()})
    )
    return ranges.rounded(node, Range(up, down, center), _terms(node), level)


def _factors(node: fx.Node) -> list[fx.Node]:
    """The two factors of a weighted call."""
    name = operation_name(node.target)
    given = [a for a in node.args if isinstance(a, fx.Node)]
    given += [
        n for a in node.args if isinstance(a, (tuple, list)) for n in a if isinstance(n, fx.Node)
    ]
    given += [v for k, v in node.kwargs.items() if isinstance(v, fx.Node) and k != "bias"]
    return given[1:] if name.startswith(("add", "badd")) else given[:2]


def _terms(node: fx.Node) -> float:
    """How many products are added up in one element at most."""
    call = _call(node)
    operation = operations.by_name[call.name]
    product = operation.product(call) if operation.product else None
    if product is not None:
        return product.contracted
    if operation.synapse is None or call.name == "one_to_one":
        return 1  # element by element
    size = shape(_factors(node)[1])
    transposed = "transpose" in call.name or call.arg(6, "transposed", False) is True
    return math.prod(size) / size[1 if transposed else 0]


def _batch_norm_module(ranges: Evaluation, node: fx.Node) -> Range | None:
    """Of a module, whichever axes its forward normalizes: in eval mode, it is affine."""
    module: Any = ranges.module(node)
    args = node.args[1:] if node.target is replayed.forward_of else node.args
    value = ranges.operand(args[0])
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
    return _affine(ranges, node, value * slope, offset, offset.abs() + slope.abs())


def _batch_norm(ranges: Evaluation, node: fx.Node) -> Range | None:
    if node.op == "call_module" or node.target is replayed.forward_of:
        return _batch_norm_module(ranges, node)
    call = _call(node)
    names = ("running_mean", "running_var", "weight", "bias")
    held = [ranges.operand(call.arg(i, name)) for i, name in enumerate(names, 1)]
    known = held[0] is not None and not any(isinstance(value, Range) for value in held)
    if call.name != "batch_norm" or call.arg(5, "training", False) or not known:
        return None
    return _normalized(ranges, node, call.x, held, call.arg(7, "eps", 1e-5))


def _normalized(
    ranges: Evaluation, node: fx.Node, x: Any, held: list[Any], eps: float
) -> Range | None:
    """(x − mean) / √(variance + ε) · weight + bias, folded."""
    value = ranges.operand(x)
    if not isinstance(value, Range):
        return None
    mean, variance, weight, bias = held
    size = (1, -1) + (1,) * (value.up.dim() - 2)
    slope = (_double(variance) + eps).rsqrt()
    if weight is not None:
        slope = slope * _double(weight)
    offset = -_double(mean) * slope
    level = offset.abs()
    if bias is not None:
        offset, level = offset + _double(bias), level + _double(bias).abs()
    scaled = value * slope.reshape(size)
    return _affine(ranges, node, scaled, offset.reshape(size), level.reshape(size))


def _affine(
    ranges: Evaluation, node: fx.Node, scaled: Range, offset: Tensor, level: Tensor
) -> Range:
    """``scaled + offset``, whose parts are of some level before they cancel."""
    center = offset.expand(scaled.up.shape)
    if scaled.center is not None:
        level = level + scaled.center.abs()
        center = center + scaled.center
    return ranges.rounded(node, Range(scaled.up, scaled.down, center), 6, level)


# -- writes ----------------------------------------------------------------------------------------


def _set(ranges: Evaluation, node: fx.Node) -> Range | None:
    x, index, value = node.args
    indices: list[fx.Node] = []
    map_arg((index,), indices.append)
    if any(isinstance(ranges.operand(n), Range) for n in indices):
        return None
    index = map_arg((index,), ranges.operand)[0]
    return _joined(ranges, (x, value), lambda a, b: set_part(a, index, b))


def _copy(ranges: Evaluation, node: fx.Node) -> Range | None:
    return _joined(ranges, node.args[:2], lambda a, b: b.expand_as(a).clone())


def _overlaid(ranges: Evaluation, node: fx.Node) -> Range | None:
    return _joined(ranges, node.args[:2], lambda a, b: overlay(a, b, node.args[2]))


def _joined(
    ranges: Evaluation, operands: Any, f: Callable[[Tensor, Tensor], Tensor]
) -> Range | None:
    parts = [_ranged(ranges.operand(n)) for n in operands]
    a, b = parts if len(parts) == 2 else (None, None)
    if a is None or b is None:
        return None
    zeros = torch.zeros_like(a.up), torch.zeros_like(b.up)

    def part(left: Tensor | None, right: Tensor | None) -> Tensor | None:
        if left is None and right is None:
            return None
        return f(zeros[0] if left is None else left, zeros[1] if right is None else right)

    return Range(f(a.up, b.up), part(a.down, b.down), part(a.center, b.center))


def _after(ranges: Evaluation, node: fx.Node) -> Range | None:
    value = ranges.operand(node.args[1])
    return value if isinstance(value, Range) and tuple(value.up.shape) == shape(node) else None


# -- what is not linear ----------------------------------------------------------------------------


def _apply(ranges: Evaluation, node: fx.Node, x: Any) -> Any:
    """The call on other values of what may vary."""
    varies = _call(node).arg(0, "input")
    return ranges.replaced(node, lambda n, value: x if n is varies else value)


def _shrinks(ranges: Evaluation, node: fx.Node) -> Any:
    """What grows with its input, and no faster: a deviation does not become larger."""
    value = _input(ranges, node)
    if not isinstance(value, Range) or not _is_fixed(ranges, node):
        return None
    if not ranges.totals:
        return Range.between(_apply(ranges, node, value.low), _apply(ranges, node, value.high))
    center = torch.zeros_like(value.up) if value.center is None else value.center
    moved = _apply(ranges, node, center)
    down = None if value.positive else value.down
    return Range(value.up, down, moved if bool(moved.any()) else None)


def _is_fixed(ranges: Evaluation, node: fx.Node) -> bool:
    varies = _call(node).arg(0, "input")
    others = (n for n in node.all_input_nodes if n is not varies)
    return not any(isinstance(ranges.operand(n), Range) for n in others)


def _grows(ranges: Evaluation, node: fx.Node) -> Any:
    """What grows with its input, however fast."""
    value = _input(ranges, node)
    if not isinstance(value, Range) or not _is_fixed(ranges, node):
        return None
    low, high = (_apply(ranges, node, x) for x in (value.low, value.high))
    return ranges.rounded(node, Range.between(_lowest(low, -math.inf), finite(high)), 4)


def _lowest(x: Tensor, fill: float) -> Tensor:
    return x.nan_to_num(nan=fill, posinf=math.inf, neginf=-math.inf)


def _absolute(ranges: Evaluation, node: fx.Node) -> Any:
    value = _input(ranges, node)
    if not isinstance(value, Range) or value.positive:
        return value
    if not ranges.totals:
        return Range(value.peak)
    both = value.up if value.down is None else value.up + value.down
    if value.center is None:
        return Range(both)
    return Range(both, both, value.center.abs())


def _dropout(ranges: Evaluation, node: fx.Node) -> Any:
    value = _input(ranges, node)
    p, training = _call(node).arg(1, "p", 0.5), _call(node).arg(2, "training", True)
    if not training or not isinstance(value, Range) or isinstance(p, fx.Node):
        return value
    kept = 1 / (1 - float(p)) if float(p) < 1 else 0.0
    parts = Range(value.total, None if value.positive else value.total_down)
    return ranges.rounded(node, parts * torch.tensor(kept).double(), 2)


def _max_pool(ranges: Evaluation, node: fx.Node) -> Any:
    """The largest of a window; in totals, no more than the sum of the window's deviations."""
    value = _input(ranges, node)
    if not isinstance(value, Range):
        return None
    low = value.low if not value.positive else None
    if not ranges.totals:
        high = _first(_apply(ranges, node, value.high))
        pooled = torch.zeros_like(high) if low is None else _first(_apply(ranges, node, low))
        found = Range.between(pooled, high)
        ranges.kept[node] = found
        return _alike(node, found)
    window = _window(node)
    if window is None:
        return _alike(node, ranges.kept.get(node))
    n, geometry = window
    up = sum_windows(value.up, n, geometry)
    down = None if value.down is None else sum_windows(value.down, n, geometry)
    center = None if value.center is None else _first(_apply(ranges, node, value.center))
    return _alike(node, Range(up, down, center))


def _window(node: fx.Node) -> tuple[int, tuple[Any, ...]] | None:
    """Number of axes, kernel, stride, padding and ceil_mode of max pooling; None if dilated."""
    call = _call(node)
    n = int(next(c for c in call.name if c.isdigit()))
    each = nn.modules.utils._ntuple(n)
    kernel = each(call.arg(1, "kernel_size"))
    stride = each(call.arg(2, "stride") or kernel)
    if any(step != 1 for step in each(call.arg(4, "dilation", 1))):
        return None
    return n, (
        kernel,
        stride,
        each(call.arg(3, "padding", 0)),
        bool(call.arg(5, "ceil_mode", False)),
    )


def _first(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


def _alike(node: fx.Node, value: Any) -> Any:
    """As the call returns it: alone, or with indices."""
    return value if "spec" in node.meta else (value, None)


def _largest(ranges: Evaluation, node: fx.Node) -> Any:
    """Element by element, the larger (or smaller) one."""
    a, b = map(_ranged, _pair(ranges, node))
    if a is None or b is None:
        return None
    pick = torch.minimum if operation_name(node.target) in ("minimum", "fmin") else torch.maximum
    return Range.between(pick(a.low, b.low), pick(a.high, b.high))


def _chosen(ranges: Evaluation, node: fx.Node) -> Any:
    """``where``: one of two, in totals at most both."""
    call = _call(node)
    parts = (ranges.operand(call.arg(i, name)) for i, name in ((1, "input"), (2, "other")))
    a, b = map(_ranged, parts)
    if a is None or b is None:
        return None
    if not ranges.totals:
        low, high = torch.minimum(a.low, b.low), torch.maximum(a.high, b.high)
        return Range.between(low.expand(shape(node)), high.expand(shape(node)))
    up = (a.total + b.total).expand(shape(node))
    down = None if a.positive and b.positive else (a.total_down + b.total_down).expand(shape(node))
    return Range(up, down)


def _fraction(ranges: Evaluation, node: fx.Node) -> Any:
    return Range(torch.ones(shape(node), dtype=torch.float64))


# -- what entries name -----------------------------------------------------------------------------

same = RangeRule(_same)
linear = RangeRule(_linear)
resize = RangeRule(_weighs)
average_pool = RangeRule(_averages)
norm_pool = RangeRule(_pools)
pad = RangeRule(_pad)
negative = RangeRule(_negative)
add = RangeRule(_add)
multiply = RangeRule(_multiply)
divide = RangeRule(_divide)
bilinear = RangeRule(_product)
batch_norm = RangeRule(_batch_norm)
write = RangeRule(_set)
copy = RangeRule(_copy)
write_through = RangeRule(_overlaid)
after = RangeRule(_after)
shrinks = RangeRule(_shrinks)
absolute = RangeRule(_absolute)
dropout = RangeRule(_dropout)
max_pool = RangeRule(_max_pool)
choice = RangeRule(_chosen)
grows = per_step(_grows)
largest = per_step(_largest)
fraction = per_step(_fraction)
