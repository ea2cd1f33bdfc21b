"""Operations with synaptic weights, and their fan-out in closed form.

Along each spatial axis, a convolution's fan-out is a count: for each input position, how many
(output position, kernel tap) pairs touch it. The map is the outer product of these counts, times
the output channels that an input channel is connected to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.overrides import handle_torch_function, has_torch_function

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Kind, Operation, Synapse, as_dense
from fxsynops.operations.registry import operations
from fxsynops.operations.transpose import compress
from fxsynops.operations.value_range import bilinear
from fxsynops.operations.windows import each_axis


def axis_pairs(
    size: int, out: int, kernel: int, stride: int, before: int, dilation: int, transposed: bool
) -> Tensor:
    """Per input position of one axis, how many (output position, tap) pairs touch it.

    Args:
        size, out: input and output positions.
        kernel, stride, dilation: as torch's.
        before: zeros padded in front (for a transposed convolution: outputs cut off in front).
        transposed: whether inputs and outputs have changed places.

    Returns:
        int64 tensor of length ``size``.
    """
    taps = torch.arange(kernel) * dilation - before
    steps = torch.arange(size if transposed else out) * stride
    reached = steps[:, None] + taps  # (steps, taps): the position on the other side
    if transposed:
        return ((reached >= 0) & (reached < out)).sum(1)
    inside = reached[(reached >= 0) & (reached < size)]
    return torch.bincount(inside, minlength=size)


def _outer(counts: Sequence[Tensor], lead: int, factor: int) -> Tensor:
    """Outer product of one vector per trailing axis, behind ``lead`` constant axes."""
    map = torch.full((1,) * (lead + len(counts)), factor, dtype=torch.float64)
    for i, count in enumerate(counts):
        axis = [1] * map.dim()
        axis[lead + i] = -1
        map = map * compress(count.double().reshape(axis))
    return map


def _geometry(call: Call, n: int) -> list[tuple[int, int, int, int]]:
    """Kernel, stride, padding in front and dilation, per axis."""
    kernel = shape(call["weight"])[2:]
    stride = each_axis(call["stride"], n)
    padding = call["padding"]
    dilation = each_axis(call["dilation"], n)
    if padding == "valid":
        padding = 0
    if padding == "same":  # an odd zero more goes behind
        before = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    else:
        before = each_axis(padding, n)
    return list(zip(kernel, stride, before, dilation, strict=True))


def _conv(n: int, transposed: bool) -> Operation:
    def channels(call: Call) -> int:
        """How many output channels each input channel is connected to."""
        weight = shape(call["weight"])
        return weight[1] if transposed else weight[0] // call["groups"]

    def fanout(call: Call, x: fx.Node) -> Tensor:
        size, out = shape(x)[-n:], shape(call.node)[-n:]
        counts = [
            axis_pairs(size[i], out[i], *axis, transposed)
            for i, axis in enumerate(_geometry(call, n))
        ]
        return _outer(counts, len(shape(x)) - n, channels(call))

    def nominal(call: Call) -> float:
        axes = _geometry(call, n)
        taps = math.prod(kernel for kernel, _, _, _ in axes)
        steps = 1 if transposed else math.prod(stride for _, stride, _, _ in axes)
        return channels(call) * taps / steps

    def pairs(call: Call, x: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        values = {call["input"]: x, call["weight"]: weight}
        bias = call["bias"]
        zeros = x.new_zeros(shape(bias)) if isinstance(bias, fx.Node) else None
        return call.again(lambda node: zeros if node is bias else values[node])

    def fan_in(call: Call) -> float:
        size = shape(call["weight"])
        groups = call["groups"] if transposed else 1  # whose weights have all input channels
        return math.prod(size) / size[1 if transposed else 0] / groups

    def sample(_: Call, x: fx.Node) -> tuple[int, ...]:
        return (1,) * (len(shape(x)) - n - 1) + shape(x)[-n - 1 :]

    name = f"conv{'_transpose' if transposed else ''}{n}d"
    return Operation(
        Kind.SYNAPSE,
        "bias stride padding output_padding dilation groups transposed",
        carries="input weight",
        synapse=Synapse(name, fanout, nominal, pairs, sample, fan_in),
        range=bilinear,
    )


operations.add("conv1d", _conv(1, transposed=False))
operations.add("conv2d", _conv(2, transposed=False))
operations.add("conv3d", _conv(3, transposed=False))
operations.add("conv_transpose1d", _conv(1, transposed=True))
operations.add("conv_transpose2d", _conv(2, transposed=True))
operations.add("conv_transpose3d", _conv(3, transposed=True))


def _aten_convolution(call: Call) -> Operation:
    n = len(shape(call["weight"])) - 2
    transposed = bool(call["transposed"])
    return operations.by_name[f"conv{'_transpose' if transposed else ''}{n}d"]


operations.add(
    "convolution", Operation(Kind.SYNAPSE, carries="input weight", resolve=_aten_convolution)
)


def one_to_one(input: Tensor, weight: Tensor) -> Tensor:
    """One synapse per element (``input * weight``, where the weight is a neuron's own)."""
    if has_torch_function((input, weight)):
        return handle_torch_function(one_to_one, (input, weight), input, weight)
    return input * weight


def _ones(_: Call, x: fx.Node) -> Tensor:
    return torch.ones((1,) * len(shape(x)), dtype=torch.float64)


operations.add(
    "one_to_one",
    Operation(
        Kind.SYNAPSE,
        carries="input weight",
        synapse=Synapse(
            "one to one",
            _ones,
            nominal=lambda _: 1.0,
            pairs=lambda _, x, weight: x if weight is None else x * weight,
            sample=lambda _, x: shape(x),
        ),
        range=bilinear,
    ),
)


def _attention(_: Any, given: dict[str, Any], output: Tensor) -> dict[str, Callable[[], Tensor]]:
    """``softmax(query · keyᵀ) · value``."""
    names = ("query", "key", "value")
    query, key, value = (
        given[str(i)] if str(i) in given else given[n] for i, n in enumerate(names)
    )
    if given.get("enable_gqa"):
        groups = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(groups, -3) for x in (key, value))
    return {
        "query_key": lambda: query @ key.mT,
        "attention_value": lambda: torch.sigmoid(query[..., :1] + key[..., :1].mT) @ value,
    }


operations.add(
    "scaled_dot_product_attention",
    Operation(
        Kind.ANALOG,
        "*",
        carries="*",
        inside=_attention,
        draws=lambda call: bool(call["dropout_p"]),
    ),
)


# -- weights that are packed in an object ----------------------------------------------------------


def _unpacked(packed: Any, unpack: str) -> Tensor:
    """The weights in an object of ``torch.ao``'s."""
    weight: Tensor = getattr(torch.ops.quantized, unpack)(packed)[0]
    return as_dense(weight).float()


def _packed_linear(
    unpack: str, _: Any, given: dict[str, Any], output: Tensor
) -> dict[str, Callable[[], Tensor]]:
    """The product of events with weights that are packed in an object.

    What it puts out is a product of rounded inputs, so that nothing more is said of it.
    """
    x, packed = _two(given, "X", "W_prepack")
    weight = _unpacked(packed, unpack)
    return {"weight": lambda: F.linear(as_dense(x), weight)}


def _packed_convolution(
    n: int, _: Any, given: dict[str, Any], output: Tensor
) -> dict[str, Callable[[], Tensor]]:
    x, packed = _two(given, "qx", "packed_weight")
    weight = _unpacked(packed, f"conv{n}d_unpack")
    convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
    sizes = packed.stride(), packed.padding(), packed.dilation()
    geometry = [tuple(size)[-n:] for size in sizes]  # of one axis, two are kept
    return {"weight": lambda: convolve(as_dense(x), weight, None, *geometry, packed.groups())}


def _two(given: dict[str, Any], *names: str) -> Iterator[Any]:
    """The first two arguments of a call, which may have been passed by their names."""
    return (given[n] if n in given else given[str(i)] for i, n in enumerate(names))


for _names, _inside in (
    (
        """quantized_linear quantized_linear_relu quantized_linear_dynamic
        quantized_linear_relu_dynamic""",
        partial(_packed_linear, "linear_unpack"),
    ),
    (
        "quantized_linear_dynamic_fp16 quantized_linear_relu_dynamic_fp16",
        partial(_packed_linear, "linear_unpack_fp16"),
    ),
    ("quantized_conv1d quantized_conv1d_relu", partial(_packed_convolution, 1)),
    ("quantized_conv2d quantized_conv2d_relu", partial(_packed_convolution, 2)),
    ("quantized_conv3d quantized_conv3d_relu", partial(_packed_convolution, 3)),
):
    operations.add(_names, Operation(Kind.ANALOG, "*", carries="*", inside=_inside))
