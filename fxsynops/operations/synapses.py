"""Operations with synaptic weights, and their fan-out in closed form.

Along each spatial axis, a convolution's fan-out is a count: for each input position, how many
(output position, kernel tap) pairs touch it. The map is the outer product of these counts, times
the output channels that an input channel is connected to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import handle_torch_function, has_torch_function

from fxsynops.operations import range_rules
from fxsynops.operations.registry import Call, Kind, Operation, Synapse, operations, shape
from fxsynops.operations.transpose import compress


def _per_axis(value: Any, n: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)


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


def _option(call: Call, name: str, default: Any) -> Any:
    """An argument of a convolution; ``aten.convolution`` has two more of them in between."""
    if call.name == "convolution":
        names = ["stride", "padding", "dilation", "transposed", "output_padding", "groups"]
    elif "transpose" in call.name:
        names = ["stride", "padding", "output_padding", "groups", "dilation"]
    else:
        names = ["stride", "padding", "dilation", "groups"]
    return call.arg(3 + names.index(name), name, default)


def _geometry(call: Call, n: int) -> list[tuple[int, int, int, int]]:
    """Kernel, stride, padding in front and dilation, per axis."""
    kernel = shape(call.arg(1, "weight"))[2:]
    stride = _per_axis(_option(call, "stride", 1), n)
    padding = _option(call, "padding", 0)
    dilation = _per_axis(_option(call, "dilation", 1), n)
    if padding == "valid":
        padding = 0
    if padding == "same":  # an odd zero more goes behind
        before = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    else:
        before = _per_axis(padding, n)
    return list(zip(kernel, stride, before, dilation, strict=True))


def _conv(n: int, transposed: bool) -> Operation:
    def channels(call: Call) -> int:
        """How many output channels each input channel is connected to."""
        weight = shape(call.arg(1, "weight"))
        return weight[1] if transposed else weight[0] // _option(call, "groups", 1)

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
        rest = {k: v for k, v in call.kwargs.items() if k not in ("input", "weight", "bias")}
        return call.target(x, weight, None, *call.args[3:], **rest)

    def sample(_: Call, x: fx.Node) -> tuple[int, ...]:
        return (1,) * (len(shape(x)) - n - 1) + shape(x)[-n - 1 :]

    name = f"conv{'_transpose' if transposed else ''}{n}d"
    return Operation(Kind.SYNAPSE, synapse=Synapse(name, fanout, nominal, pairs, sample))


operations.add("conv1d", _conv(1, transposed=False))
operations.add("conv2d", _conv(2, transposed=False))
operations.add("conv3d", _conv(3, transposed=False))
operations.add("conv_transpose1d", _conv(1, transposed=True))
operations.add("conv_transpose2d", _conv(2, transposed=True))
operations.add("conv_transpose3d", _conv(3, transposed=True))


def _aten_convolution(call: Call) -> Operation:
    n = len(shape(call.arg(1, "weight"))) - 2
    transposed = bool(_option(call, "transposed", False))
    return operations.by_name[f"conv{'_transpose' if transposed else ''}{n}d"]


operations.add("convolution", Operation(Kind.SYNAPSE, resolve=_aten_convolution))


def one_to_one(x: Tensor, weight: Tensor) -> Tensor:
    """One synapse per element (``x * weight``, where the weight is a neuron's own)."""
    if has_torch_function((x, weight)):
        return handle_torch_function(one_to_one, (x, weight), x, weight)
    return x * weight


def _ones(_: Call, x: fx.Node) -> Tensor:
    return torch.ones((1,) * len(shape(x)), dtype=torch.float64)


operations.add(
    "one_to_one",
    Operation(
        Kind.SYNAPSE,
        synapse=Synapse(
            "one to one",
            _ones,
            nominal=lambda _: 1.0,
            pairs=lambda _, x, weight: x if weight is None else x * weight,
            sample=lambda _, x: shape(x),
        ),
        range=range_rules.multiply,
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


operations.add("scaled_dot_product_attention", Operation(Kind.ANALOG, inside=_attention))
