"""Operations that carry events to other places, as they are: each with the transpose of that.

Axis bookkeeping (permute, reshape, select, cat, …) is done on the map itself; padding and the like
is written in its 0/1 form and transposed by ``torch.autograd`` along the axes that it works on.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from fxsynops.operations.call import Call, shape
from fxsynops.operations.elementwise import pull_elementwise
from fxsynops.operations.operation import Kind, Operation, Pull, Slot
from fxsynops.operations.registry import operations
from fxsynops.operations.transpose import compress, pull_incidence, pull_local, reshape_map
from fxsynops.operations.value_range import Evaluation, Range, RangeRule

# -- axes ------------------------------------------------------------------------------------------


def _pull_reshape(call: Call, map: Tensor) -> Iterator[Slot]:
    yield Slot(call.x, reshape_map(map, shape(call.node), shape(call.x)))


operations.add(
    """view reshape flatten unflatten ravel view_as reshape_as squeeze unsqueeze _unsafe_view
    unsqueeze_copy squeeze_copy view_copy atleast_1d atleast_2d atleast_3d""",
    Operation(
        Kind.ROUTING,
        "size sizes start_dim end_dim dim",
        carries="input tensors",
        sizes="other",
        pull=_pull_reshape,
    ),
)


def _pull_permute(call: Call, map: Tensor) -> Iterator[Slot]:
    """The axes of a tensor whose sizes tell them apart say where each goes."""
    marker = torch.empty(tuple(range(2, 2 + len(shape(call.x)))), device="meta")
    order = [size - 2 for size in call.again(lambda _: marker).shape]
    yield Slot(call.x, map.permute([order.index(axis) for axis in range(len(order))]))


operations.add(
    """permute transpose t swapaxes swapdims movedim moveaxis adjoint get_T get_mT
    get_H get_mH""",
    Operation(Kind.ROUTING, "*", pull=_pull_permute),
)
operations.add(
    "expand expand_as broadcast_to expand_copy",
    Operation(Kind.ROUTING, "size", sizes="other", pull=pull_elementwise),
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


operations.add("repeat tile", Operation(Kind.ROUTING, "repeats dims", pull=_pull_repeat))

# -- joining ---------------------------------------------------------------------------------------


def _pull_along(map: Tensor, parts: list[fx.Node], axis: int) -> Iterator[Slot]:
    start = 0
    for node in parts:
        length = shape(node)[axis] if shape(node) != (0,) else 0
        if length:
            part = map if map.shape[axis] == 1 else map.narrow(axis, start, length)
            yield Slot(node, compress(part))
        start += length


def _pull_cat(call: Call, map: Tensor) -> Iterator[Slot]:
    return _pull_along(map, call.operands("tensors"), call["dim"] % map.dim())


def _pull_stack(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call["dim"] % map.dim()
    for i, node in enumerate(call.operands("tensors")):
        yield Slot(node, compress(map.select(axis, 0 if map.shape[axis] == 1 else i)))


def _pull_stacks(call: Call, map: Tensor) -> Iterable[Slot]:
    """Along an axis, unless axes are put in front of it."""
    nodes = call.operands("tensors")
    if len(shape(nodes[0])) == map.dim() > 1:
        axis = next(i for i, n in enumerate(shape(call.node)) if n != shape(nodes[0])[i])
        return _pull_along(map, nodes, axis)
    return pull_incidence(call, map)


operations.add(
    "cat concat concatenate",
    Operation(Kind.ROUTING, "dim", carries="tensors", pull=_pull_cat, joins=True),
)
operations.add(
    "stack", Operation(Kind.ROUTING, "dim", carries="tensors", pull=_pull_stack, joins=True)
)
operations.add(
    "hstack vstack row_stack column_stack dstack",
    Operation(
        Kind.ROUTING,
        carries="tensors",
        pull=_pull_stacks,
        joins=True,
    ),
)

# -- parts -----------------------------------------------------------------------------------------


def _slot_of_slice(node: fx.Node, map: Tensor, axis: int, part: slice, drop: bool) -> Slot:
    """``part`` along ``axis`` of ``node`` was taken; ``drop`` if the axis is gone."""
    where = [slice(None)] * len(shape(node))
    where[axis] = part
    return Slot(node, map.unsqueeze(axis) if drop else map, tuple(where))


def _led(pull: Pull) -> Pull:
    """For calls whose numbers may be tensors, which say where events go."""
    return lambda call, map: (
        pull(call, map) if len(call.operands()) == 1 else pull_incidence(call, map)
    )


def _pull_select(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call["dim"] % len(shape(call.x))
    i = call["index"] % shape(call.x)[axis]
    yield _slot_of_slice(call.x, map, axis, slice(i, i + 1), drop=True)


def _pull_slice(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call["dim"] % len(shape(call.x))
    part = slice(call["start"], call["end"], call["step"])
    yield _slot_of_slice(call.x, map, axis, part, drop=False)


def _pull_split(call: Call, map: Tensor) -> Iterator[Slot]:
    """One of the parts along an axis: found by the numbers of its places, whatever was asked."""
    size = shape(call.x)
    pairs = zip(size, shape(call.node), strict=True)
    axis = next((i for i, (n, m) in enumerate(pairs) if n != m), 0)
    marker = torch.arange(size[axis]).reshape([-1 if a == axis else 1 for a in range(len(size))])
    part = call.again(lambda _: marker.expand(size))[call.output]
    if part.numel():
        start, length = int(part.flatten()[0]), part.shape[axis]
        yield _slot_of_slice(call.x, map, axis, slice(start, start + length), drop=False)


def _pull_unbind(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call["dim"] % len(shape(call.x))
    part = slice(call.output, call.output + 1)
    yield _slot_of_slice(call.x, map, axis, part, drop=True)


def _pull_narrow(call: Call, map: Tensor) -> Iterator[Slot]:
    axis = call["dim"] % len(shape(call.x))
    start = call["start"] % max(shape(call.x)[axis], 1)
    yield _slot_of_slice(call.x, map, axis, slice(start, start + call["length"]), drop=False)


operations.add("select", Operation(Kind.ROUTING, "*", pull=_led(_pull_select), led=True))
operations.add(
    "narrow narrow_copy", Operation(Kind.ROUTING, "*", pull=_led(_pull_narrow), led=True)
)
operations.add("slice", Operation(Kind.ROUTING, "*", pull=_led(_pull_slice), led=True))
operations.add(
    "split chunk tensor_split unsafe_split unsafe_chunk split_with_sizes hsplit vsplit dsplit",
    Operation(Kind.ROUTING, "*", pull=_led(_pull_split), led=True),
)
operations.add("unbind", Operation(Kind.ROUTING, "dim", pull=_pull_unbind))


def read_shape(x: fx.Node, index: Any) -> tuple[int, ...]:
    """The shape of ``x[index]``."""
    return tuple(torch.empty(shape(x), device="meta")[index].shape)


def is_basic(index: Any) -> bool:
    """Whether an index is of whole numbers, slices, ``None`` and ``...`` alone."""

    def basic(item: Any) -> bool:
        if isinstance(item, slice):
            return not any(isinstance(v, fx.Node) for v in (item.start, item.stop, item.step))
        plain = isinstance(item, int) and not isinstance(item, bool)
        return plain or item is None or item is ...

    return all(map(basic, index if isinstance(index, tuple) else (index,)))


def pull_read(x: fx.Node, index: Any, map: Tensor) -> Slot:
    """To a tensor that was read at a basic index."""
    items = list(index) if isinstance(index, tuple) else [index]
    size = shape(x)
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
    return Slot(x, aligned, tuple(where))


def _pull_getitem(call: Call, map: Tensor) -> Iterable[Slot]:
    if is_basic(call["index"]):
        return [pull_read(call.x, call["index"], map)]
    return pull_incidence(call, map)


operations.add("getitem", Operation(Kind.ROUTING, "index", pull=_pull_getitem, led=True))

# -- what is 0/1 as it is --------------------------------------------------------------------------

native = Operation(Kind.ROUTING, "*", pull=lambda call, map: pull_incidence(call, map), led=True)
operations.add(
    """index_select take take_along_dim index diagonal diag tril triu as_strided rot90 unfold
    repeat_interleave pixel_shuffle pixel_unshuffle _unsafe_index diag_embed""",
    native,
)


def _pull_shuffled(call: Call, map: Tensor) -> Iterator[Slot]:
    """By what it is made of: itself, it has no derivative, or only in later torch releases."""

    def shuffled(x: Tensor) -> Tensor:
        return x.unflatten(1, (call["groups"], -1)).transpose(1, 2).flatten(1, 2)

    return pull_local(call, map, shuffled, (1,))


operations.add("channel_shuffle native_channel_shuffle", replace(native, pull=_pull_shuffled))
operations.add("broadcast_tensors", replace(native, carries="tensors", apart=True))


def _largest_row(call: Call) -> float:
    """How many events at most meet in one place: the largest row of the incidence."""
    ones = torch.ones(shape(call.x), dtype=torch.float64)
    return float(call.again(lambda _: ones).max())


operations.add("fold col2im", replace(native, gain=_largest_row))


def _pull_flip(call: Call, map: Tensor) -> Iterator[Slot]:
    axes = {"fliplr": (1,), "flipud": (0,)}.get(call.name) or call["dims"]
    yield Slot(call.x, map.flip([axis % map.dim() for axis in axes]))


operations.add("flip fliplr flipud", Operation(Kind.ROUTING, "dims", pull=_pull_flip))


def _pull_roll(call: Call, map: Tensor) -> Iterable[Slot]:
    dims = call["dims"]
    if not dims and dims != 0:
        return pull_incidence(call, map)
    axes = [dims] if isinstance(dims, int) else list(dims)
    return pull_local(call, map, lambda x: torch.roll(x, call["shifts"], dims), axes)


operations.add("roll", Operation(Kind.ROUTING, "*", pull=_led(_pull_roll), led=True))

# -- padding ---------------------------------------------------------------------------------------


def _pad_mode(call: Call) -> tuple[list[int], str, Any]:
    """Of ``pad``, or of ``constant_pad_nd``, which has no mode."""
    return call["pad"], call.get("mode", "constant"), call["value"]


def _pull_pad(call: Call, map: Tensor) -> Iterator[Slot]:
    pads, mode, _ = _pad_mode(call)
    n, dims = len(pads) // 2, len(shape(call.x))

    def padded(x: Tensor) -> Tensor:
        if mode == "constant":
            return F.pad(x, pads)
        lead = x.shape[: dims - n]  # other modes want exactly one or two axes in front
        y = F.pad(x.reshape(-1, 1, *x.shape[dims - n :]), pads, mode)
        return y.reshape(*lead, *y.shape[2:])

    return pull_local(call, map, padded, range(-n, 0))


def _pad_shifts(call: Call) -> bool:
    _, mode, value = _pad_mode(call)
    return mode == "constant" and bool(value or 0)


def _pad_range(ranges: Evaluation, call: Call) -> Range | None:
    value = ranges.operand(call.x)
    pads, mode, fill = _pad_mode(call)
    if not isinstance(value, Range) or isinstance(fill, fx.Node):
        return None
    padded = value.each(lambda x: F.pad(x, pads, mode))
    if mode != "constant" or not fill:
        return padded
    center = torch.zeros_like(value.up) if value.center is None else value.center
    return Range(padded.up, padded.down, F.pad(center, pads, value=fill))


operations.add(
    "pad constant_pad_nd",
    Operation(
        Kind.ROUTING,
        "pad mode value",
        pull=_pull_pad,
        shifts=_pad_shifts,
        range=RangeRule(_pad_range),
    ),
)
