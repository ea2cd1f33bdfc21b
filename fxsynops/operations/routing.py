"""Operations that carry events to other places: each with the transpose of its incidence.

Axis bookkeeping (permute, reshape, select, cat, sum, …) is done on the map itself; what works
along a few axes (pools, padding, upsampling, …) is written in its 0/1 form and transposed by
``torch.autograd`` along just these axes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from fxsynops.operations import range_rules
from fxsynops.operations.linear import overlay, set_part, sum_windows
from fxsynops.operations.registry import (
    Call,
    Kind,
    Operation,
    Scale,
    Slot,
    always,
    operations,
    shape,
    unequal,
)
from fxsynops.operations.transpose import (
    compress,
    pull_broadcast,
    pull_incidence,
    pull_local,
    reshape_map,
)

# -- element by element --------------------------------------------------------------------------


def _pull_elementwise(call: Call, map: Tensor) -> Iterator[Slot]:
    yield pull_broadcast(call.x, map, shape(call.node))


operations.add(
    """contiguous clone detach to type type_as float double half bfloat16 cpu cuda alias
    requires_grad lift_fresh detach_copy _to_copy pin_memory positive pos get_data""",
    Operation(Kind.ROUTING, _pull_elementwise, data=(0,), range=range_rules.same),
)
operations.add(
    "after", Operation(Kind.ROUTING, _pull_elementwise, data=(0,), range=range_rules.after)
)
operations.add(
    "neg negative",
    Operation(
        Kind.ROUTING,
        _pull_elementwise,
        scale=lambda _: Scale(-1.0),
        range=range_rules.negative,
    ),
)

# What an operation is when its arguments make it do nothing (dropout in eval mode).
identity = Operation(Kind.ROUTING, _pull_elementwise, data=(0,))


def _all_operands(call: Call, map: Tensor) -> Iterator[Slot]:
    for node in call.operands():
        yield pull_broadcast(node, map, shape(call.node))


operations.add(
    "add sub subtract rsub",
    Operation(Kind.ROUTING, _all_operands, merges=True, range=range_rules.add),
)
operations.add(
    "mul multiply rmul", Operation(Kind.ROUTING, _all_operands, range=range_rules.multiply)
)
operations.add(
    "div divide true_divide", Operation(Kind.ROUTING, _all_operands, range=range_rules.divide)
)
operations.add(
    "batch_norm native_batch_norm cudnn_batch_norm",
    Operation(
        Kind.ROUTING,
        _pull_elementwise,
        scale=unequal,
        shifts=always,
        data=(0,),
        range=range_rules.batch_norm,
    ),
)
operations.by_target[torch.nn.modules.batchnorm._BatchNorm] = operations.by_name["batch_norm"]

# -- bookkeeping of axes -------------------------------------------------------------------------


def _pull_reshape(call: Call, map: Tensor) -> Iterator[Slot]:
    yield Slot(call.x, reshape_map(map, shape(call.node), shape(call.x)))


operations.add(
    """view reshape flatten unflatten ravel view_as reshape_as squeeze unsqueeze _unsafe_view
    unsqueeze_copy squeeze_copy view_copy atleast_1d atleast_2d atleast_3d""",
    Operation(Kind.ROUTING, _pull_reshape, data=(0,)),
)


def _axis_order(call: Call) -> list[int]:
    """For each axis of the output, the axis of the input that it is."""
    marker = torch.empty(tuple(range(2, 2 + len(shape(call.x)))), device="meta")
    moved = call.target(marker, *call.args[1:], **call.kwargs)
    return [size - 2 for size in moved.shape]


def _pull_permute(call: Call, map: Tensor) -> Iterator[Slot]:
    order = _axis_order(call)
    yield Slot(call.x, map.permute([order.index(axis) for axis in range(len(order))]))


operations.add(
    "permute transpose t swapaxes swapdims movedim moveaxis adjoint",
    Operation(Kind.ROUTING, _pull_permute),
)
operations.add("get_T", Operation(Kind.ROUTING, _pull_permute))
operations.add("get_mT", Operation(Kind.ROUTING, _pull_permute))
operations.add("get_H", Operation(Kind.ROUTING, _pull_permute))
operations.add("get_mH", Operation(Kind.ROUTING, _pull_permute))
operations.add(
    "expand expand_as broadcast_to expand_copy",
    Operation(Kind.ROUTING, _pull_elementwise, data=(0,)),
)


def _pull_repeat(call: Call, map: Tensor) -> Iterator[Slot]:
    size, out = shape(call.x), shape(call.node)
    size = (1,) * (len(out) - len(size)) + size
    for axis, (n, m) in enumerate(zip(size, out, strict=True)):
        copies = m // n
        if map.shape[axis] == 1:
            map = map * copies
        else:
            map = map.unflatten(axis, (copies, n)).sum(axis)
    yield Slot(call.x, compress(map.reshape(map.shape[len(out) - len(shape(call.x)) :])))


operations.add("repeat tile", Operation(Kind.ROUTING, _pull_repeat))


def _joined(call: Call) -> list[fx.Node]:
    return [n for n in call.arg(0, "tensors") if isinstance(n, fx.Node)]


def _pull_along(call: Call, map: Tensor, parts: list[fx.Node], axis: int) -> Iterator[Slot]:
    start = 0
    for node in parts:
        length = shape(node)[axis] if shape(node) != (0,) else 0
        if length:
            part = map if map.shape[axis] == 1 else map.narrow(axis, start, length)
            yield Slot(node, compress(part))
        start += length


def _pull_cat(call: Call, map: Tensor) -> Iterator[Slot]:
    return _pull_along(call, map, _joined(call), call.arg(1, "dim", 0) % map.dim())


def _pull_stack(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call.arg(1, "dim", 0) % map.dim()
    for i, node in enumerate(_joined(call)):
        yield Slot(node, compress(map.select(axis, 0 if map.shape[axis] == 1 else i)))


def _stack_axis(name: str, dims: int) -> int:
    return {"vstack": 0, "row_stack": 0, "hstack": 0 if dims == 1 else 1, "dstack": 2}[name]


def _pull_stacks(call: Call, map: Tensor) -> Iterable[Slot]:
    nodes = _joined(call)
    if len(shape(nodes[0])) == map.dim():
        return _pull_along(call, map, nodes, _stack_axis(call.name, map.dim()))
    return pull_incidence(call, map, call.target)


operations.add("cat concat concatenate", Operation(Kind.ROUTING, _pull_cat, data=(0,)))
operations.add("stack", Operation(Kind.ROUTING, _pull_stack, data=(0,)))
operations.add("hstack vstack dstack row_stack", Operation(Kind.ROUTING, _pull_stacks))

# -- parts of a tensor ---------------------------------------------------------------------------


def _slot_of_slice(node: fx.Node, map: Tensor, axis: int, part: slice, drop: bool) -> Slot:
    """``part`` along ``axis`` of ``node`` was taken; ``drop`` if the axis is gone."""
    where = [slice(None)] * len(shape(node))
    where[axis] = part
    return Slot(node, map.unsqueeze(axis) if drop else map, tuple(where))


def _pull_select(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call.arg(1, "dim") % len(shape(call.x))
    i = call.arg(2, "index") % shape(call.x)[axis]
    yield _slot_of_slice(call.x, map, axis, slice(i, i + 1), drop=True)


def _pull_narrow(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call.arg(1, "dim") % len(shape(call.x))
    start = call.arg(2, "start") % max(shape(call.x)[axis], 1)
    part = slice(start, start + call.arg(3, "length"))
    yield _slot_of_slice(call.x, map, axis, part, drop=False)


def _pull_aten_slice(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call.arg(1, "dim", 0) % len(shape(call.x))
    part = slice(call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1))
    yield _slot_of_slice(call.x, map, axis, part, drop=False)


def _pull_split(call: Call, map: Tensor) -> Iterator[Slot]:
    """One of the parts along an axis that split, chunk, tensor_split return, in order."""
    position = {"unsafe_split": 2, "hsplit": 9, "vsplit": 9, "dsplit": 9}.get(call.name, 2)
    default = {"hsplit": 0 if len(shape(call.x)) == 1 else 1, "vsplit": 0, "dsplit": 2}
    axis = call.arg(position, "dim", default.get(call.name, 0)) % len(shape(call.x))
    marker = torch.arange(shape(call.x)[axis]).reshape(
        [-1 if i == axis else 1 for i in range(len(shape(call.x)))]
    )
    marker = marker.expand(
        [n if i == axis or call.name[1:] != "split" else 1 for i, n in enumerate(shape(call.x))]
    )
    part = call.target(marker, *call.args[1:], **call.kwargs)[call.output]
    if part.numel():
        start, length = int(part.flatten()[0]), part.shape[axis]
        yield _slot_of_slice(call.x, map, axis, slice(start, start + length), drop=False)


def _pull_unbind(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call.arg(1, "dim", 0) % len(shape(call.x))
    part = slice(call.output, call.output + 1)
    yield _slot_of_slice(call.x, map, axis, part, drop=True)


operations.add("select", Operation(Kind.ROUTING, _pull_select))
operations.add("narrow", Operation(Kind.ROUTING, _pull_narrow))
operations.add("slice", Operation(Kind.ROUTING, _pull_aten_slice))
operations.add(
    "split chunk tensor_split unsafe_split unsafe_chunk split_with_sizes hsplit vsplit dsplit",
    Operation(Kind.ROUTING, _pull_split),
)
operations.add("unbind", Operation(Kind.ROUTING, _pull_unbind))


def _pull_getitem(call: Call, map: Tensor) -> Iterable[Slot]:
    index = call.args[1]
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(i is None or i is ... or _is_basic(i) for i in items):
        return pull_incidence(call, map, lambda x, i: x[i])
    size = shape(call.x)
    used = sum(1 for i in items if i is not None and i is not ...)
    if ... not in [i if i is ... else 0 for i in items]:
        items.append(...)
    at = next(k for k, i in enumerate(items) if i is ...)
    items[at : at + 1] = [slice(None)] * (len(size) - used)
    where: list[slice] = []
    axes: list[int] = []  # the map's axis behind each axis of the input; -1: taken away
    axis = 0
    for item in items:
        if item is None:
            axis += 1
        elif isinstance(item, slice):
            where.append(item)
            axes.append(axis)
            axis += 1
        else:
            i = operator.index(item) % size[len(where)]
            where.append(slice(i, i + 1))
            axes.append(-1)
    kept = map.permute([a for a in axes if a >= 0] + [a for a in range(axis) if a not in axes])
    sizes = iter(kept.shape)
    aligned = kept.reshape([1 if a < 0 else next(sizes) for a in axes])
    return [Slot(call.x, aligned, tuple(where))]


def _is_basic(item: Any) -> bool:
    if isinstance(item, slice):
        return not any(isinstance(v, fx.Node) for v in (item.start, item.stop, item.step))
    return isinstance(item, int) and not isinstance(item, bool)


operations.add("getitem", Operation(Kind.ROUTING, _pull_getitem, data=(0,), indexed=True))


def _pull_native(call: Call, map: Tensor) -> list[Slot]:
    """Operations that are 0/1 as they are."""
    return pull_incidence(call, map, call.target)


operations.add(
    """index_select take take_along_dim index diagonal diag tril triu as_strided rot90 unfold
    repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    unsafe_index diag_embed""",
    Operation(Kind.ROUTING, _pull_native, data=(0,), indexed=True),
)
operations.add("broadcast_tensors", Operation(Kind.ROUTING, _pull_native))
operations.add(
    "fold col2im", Operation(Kind.ROUTING, _pull_native, gain=lambda call: _gain_dense(call))
)

# -- writes --------------------------------------------------------------------------------------


def _pull_setitem(call: Call, map: Tensor) -> Iterable[Slot]:
    """What was there goes on, except where it was written over."""
    x, index, value = call.args
    as_read = Call(call.node, None, "getitem", (x, index), {}, None, call.constant)
    items = index if isinstance(index, tuple) else (index,)
    if not all(i is None or i is ... or _is_basic(i) for i in items):
        return pull_incidence(call, map, set_part)
    (slot,) = _pull_getitem(as_read, torch.ones((1,) * len(_read_shape(x, index)), dtype=map.dtype))
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
        written = full.expand(shape(x))[index]
        target = _read_shape(x, index)
        small = compress(written.reshape(target))
        own = shape(value)
        if len(own) > len(target):  # leading axes of size 1 are allowed
            small = small.reshape((1,) * (len(own) - len(target)) + tuple(small.shape))
            target = (1,) * (len(own) - len(target)) + target
        slots.append(pull_broadcast(value, small, target))
    return slots


def _read_shape(x: fx.Node, index: Any) -> tuple[int, ...]:
    return tuple(torch.empty(shape(x), device="meta")[index].shape)


def _pull_copy(call: Call, map: Tensor) -> Iterator[Slot]:
    source = call.arg(1, "src")
    if isinstance(source, fx.Node):
        yield pull_broadcast(source, map, shape(call.node))


operations.add(
    "setitem",
    Operation(Kind.ROUTING, _pull_setitem, data=(0, 2), indexed=True, range=range_rules.write),
)
operations.add("copy", Operation(Kind.ROUTING, _pull_copy, data=(1,), range=range_rules.copy))
operations.add(
    "alias_after",
    Operation(
        Kind.ROUTING,
        lambda call, map: pull_incidence(call, map, overlay),
        data=(0, 1),
        range=range_rules.write_through,
    ),
)

# -- sums ----------------------------------------------------------------------------------------


def _summed_axes(call: Call) -> list[int]:
    dims = call.arg(1, "dim")
    n = len(shape(call.x))
    if dims is None or dims == () or dims == [] or isinstance(dims, torch.dtype):
        return list(range(n))
    return sorted({d % n for d in ([dims] if isinstance(dims, int) else dims)})


def _pull_sum(call: Call, map: Tensor) -> Iterator[Slot]:
    if map.dim() != len(shape(call.x)):
        for axis in _summed_axes(call):
            map = map.unsqueeze(axis)
    yield Slot(call.x, map)


def _summed(call: Call) -> int:
    return math.prod(shape(call.x)[axis] for axis in _summed_axes(call))


def _pull_cumsum(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call.arg(1, "dim")
    return pull_local(call, map, lambda x: x.cumsum(axis), [axis])


operations.add("sum", Operation(Kind.ROUTING, _pull_sum, gain=_summed))
operations.add(
    "mean",
    Operation(
        Kind.ROUTING, _pull_sum, scale=lambda call: Scale(1 / max(_summed(call), 1)), gain=_summed
    ),
)
operations.add(
    "cumsum",
    Operation(
        Kind.ROUTING, _pull_cumsum, gain=lambda call: max(shape(call.x)[call.arg(1, "dim")], 1)
    ),
)

# -- windows -------------------------------------------------------------------------------------


def _tuple(value: Any, n: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)


def _pool_arguments(call: Call, n: int) -> tuple[Any, ...]:
    kernel = _tuple(call.arg(1, "kernel_size"), n)
    stride = call.arg(2, "stride")
    stride = kernel if stride is None or stride == () or stride == [] else _tuple(stride, n)
    return (
        kernel,
        stride,
        _tuple(call.arg(3, "padding", 0), n),
        bool(call.arg(4, "ceil_mode", False)),
    )


def _avg_pool(n: int) -> Operation:
    def pull(call: Call, map: Tensor) -> Iterator[Slot]:
        window = _pool_arguments(call, n)
        return pull_local(call, map, lambda x: sum_windows(x, n, window), range(-n, 0))

    def scale(call: Call) -> Scale | None:
        kernel, stride, padding, _ = _pool_arguments(call, n)
        divisor = call.arg(6, "divisor_override") if n > 1 else None
        if divisor:
            return Scale(1 / divisor)
        size, out = shape(call.x)[-n:], shape(call.node)[-n:]
        for i in range(n):
            last = (out[i] - 1) * stride[i] + kernel[i] - padding[i]  # where the last window ends
            counts_padding = call.arg(5, "count_include_pad", True)
            if last > size[i] + (padding[i] if counts_padding else 0):
                return None
            if padding[i] and not counts_padding:
                return None
        return Scale(1 / math.prod(kernel))

    def gain(call: Call) -> float:
        return math.prod(_pool_arguments(call, n)[0])

    return Operation(
        Kind.ROUTING, pull, scale=scale, gain=gain, data=(0,), range=range_rules.average_pool
    )


operations.add("avg_pool1d", _avg_pool(1))
operations.add("avg_pool2d", _avg_pool(2))
operations.add("avg_pool3d", _avg_pool(3))


def _lp_pool(n: int) -> Operation:
    """With norm 1 it sums (sinabs' SumPool2d); other norms are analog."""

    def window(call: Call) -> tuple[Any, ...]:
        kernel = _tuple(call.arg(2, "kernel_size"), n)
        stride = call.arg(3, "stride")
        stride = kernel if stride is None else _tuple(stride, n)
        return kernel, stride, (0,) * n, bool(call.arg(4, "ceil_mode", False))

    def pull(call: Call, map: Tensor) -> Iterator[Slot]:
        arguments = window(call)
        return pull_local(call, map, lambda x: sum_windows(x, n, arguments), range(-n, 0))

    def scale(call: Call) -> Scale | None:
        # torch computes it as an average times the full window, also for a partial window.
        kernel, stride, _, _ = window(call)
        size, out = shape(call.x)[-n:], shape(call.node)[-n:]
        whole = all(
            (o - 1) * s + k <= z for o, s, k, z in zip(out, stride, kernel, size, strict=True)
        )
        return Scale() if whole else None

    entry = Operation(
        Kind.ROUTING,
        pull,
        scale=scale,
        gain=lambda call: math.prod(window(call)[0]),
        data=(0,),
        range=range_rules.norm_pool,
    )
    return replace(
        entry,
        resolve=lambda call: entry if call.arg(1, "norm_type") == 1 else Operation(Kind.ANALOG),
    )


operations.add("lp_pool1d", _lp_pool(1))
operations.add("lp_pool2d", _lp_pool(2))
operations.add("lp_pool3d", _lp_pool(3))


def _spread(x: Tensor, matrices: list[Tensor]) -> Tensor:
    """Apply one (out × in) matrix along each of the last axes."""
    for i, matrix in enumerate(matrices):
        axis = x.dim() - len(matrices) + i
        x = torch.tensordot(x, matrix, dims=([axis], [1])).movedim(-1, axis)
    return x


def _adaptive_matrix(size: int, out: int) -> Tensor:
    matrix = torch.zeros(out, size, dtype=torch.float64)
    for i in range(out):
        matrix[i, i * size // out : -(-(i + 1) * size // out)] = 1
    return matrix


def _by_matrices(matrices: Callable[[Call, int], list[Tensor]], n: int | None) -> Any:
    def axes(call: Call) -> int:
        return n or len(shape(call.x)) - 2

    def pull(call: Call, map: Tensor) -> Iterator[Slot]:
        spread = matrices(call, axes(call))
        return pull_local(call, map, lambda x: _spread(x, spread), range(-axes(call), 0))

    def gain(call: Call) -> float:
        return math.prod(float(m.sum(1).max()) for m in matrices(call, axes(call)))

    return pull, gain


def _adaptive_avg_pool(n: int) -> Operation:
    def matrices(call: Call, n: int) -> list[Tensor]:
        sizes = zip(shape(call.x)[-n:], shape(call.node)[-n:], strict=True)
        return [_adaptive_matrix(size, out) for size, out in sizes]

    def scale(call: Call) -> Scale | None:
        windows = [matrix.sum(1).unique() for matrix in matrices(call, n)]
        if any(len(sizes) > 1 for sizes in windows):
            return None
        return Scale(1 / math.prod(float(sizes) for sizes in windows))

    pull, gain = _by_matrices(matrices, n)
    return Operation(Kind.ROUTING, pull, scale=scale, gain=gain, data=(0,))


operations.add("adaptive_avg_pool1d", _adaptive_avg_pool(1))
operations.add("adaptive_avg_pool2d", _adaptive_avg_pool(2))
operations.add("adaptive_avg_pool3d", _adaptive_avg_pool(3))

_NEAREST = ("nearest", "nearest-exact")


def _interpolation_matrices(call: Call, n: int) -> list[Tensor]:
    """Which inputs each output reads, per axis: where its weight is not zero."""
    mode = call.arg(3, "mode", "nearest")
    factors = call.arg(2, "scale_factor")
    factors = (
        [None] * n
        if factors is None
        else [float(f) for f in (factors if isinstance(factors, (tuple, list)) else [factors] * n)]
    )
    options = {
        "align_corners": call.arg(4, "align_corners"),
        "recompute_scale_factor": call.arg(5, "recompute_scale_factor"),
        "antialias": call.arg(6, "antialias", False),
    }
    # One axis at a time; modes of two axes are tried on a constant second axis of the same size.
    mode = {"trilinear": "bilinear", "linear": "bilinear"}.get(mode, mode)
    found = []
    for size, out, factor in zip(shape(call.x)[-n:], shape(call.node)[-n:], factors, strict=True):
        x = torch.eye(size, dtype=torch.float64)[:, None, :, None].expand(-1, 1, -1, size)
        if factor is None:
            y = F.interpolate(x, size=(out, size), mode=mode, **options)
        else:
            y = F.interpolate(x, scale_factor=(factor, 1.0), mode=mode, **options)
        found.append((y[:, 0, :, 0].T != 0).double())
    return found


def _interpolate() -> Operation:
    pull, gain = _by_matrices(_interpolation_matrices, None)

    def scale(call: Call) -> Scale | None:
        return Scale() if call.arg(3, "mode", "nearest") in _NEAREST else None

    return Operation(
        Kind.ROUTING, pull, scale=scale, gain=gain, data=(0,), range=range_rules.resize
    )


operations.add("interpolate upsample", _interpolate())


def _pull_pad(call: Call, map: Tensor) -> Iterator[Slot]:
    pads = call.arg(1, "pad")
    mode = call.arg(2, "mode", "constant")
    n = len(pads) // 2
    dims = len(shape(call.x))
    if mode == "constant":
        pull = pull_local(call, map, lambda x: F.pad(x, pads), range(-n, 0))
    else:  # these modes want exactly one or two axes in front

        def padded(x: Tensor) -> Tensor:
            lead = x.shape[: dims - n]
            y = F.pad(x.reshape(-1, 1, *x.shape[dims - n :]), pads, mode)
            return y.reshape(*lead, *y.shape[2:])

        pull = pull_local(call, map, padded, range(-n, 0))
    return pull


def _pad_shifts(call: Call) -> bool:
    return call.arg(2, "mode", "constant") == "constant" and bool(call.arg(3, "value", 0) or 0)


operations.add(
    "pad constant_pad_nd",
    Operation(Kind.ROUTING, _pull_pad, shifts=_pad_shifts, data=(0,), range=range_rules.pad),
)


def _pull_flip(call: Call, map: Tensor) -> Iterator[Slot]:
    axes = {"fliplr": (1,), "flipud": (0,)}.get(call.name) or call.arg(1, "dims")
    if isinstance(axes, int):  # x.flip(1, 2)
        axes = call.args[1:]
    yield Slot(call.x, map.flip([a % map.dim() for a in axes]))


operations.add("flip fliplr flipud", Operation(Kind.ROUTING, _pull_flip))


def _pull_roll(call: Call, map: Tensor) -> Iterable[Slot]:
    dims = call.arg(2, "dims", ())
    if dims == () or dims == [] or dims is None:
        return _pull_native(call, map)
    axes = [dims] if isinstance(dims, int) else list(dims)
    return pull_local(call, map, lambda x: torch.roll(x, call.arg(1, "shifts"), dims), axes)


operations.add("roll", Operation(Kind.ROUTING, _pull_roll))


def _gain_dense(call: Call) -> float:
    """How many events at most meet in one place: the largest row of the incidence."""
    ones = torch.ones(shape(call.x), dtype=torch.float64)
    y = call.target(ones, *call.args[1:], **call.kwargs)
    return float(y.max())
