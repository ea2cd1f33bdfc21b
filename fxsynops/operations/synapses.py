"""Operations with synaptic weights, and their fan-out in closed form.

Along each spatial axis, a convolution's fan-out is a count: for each input position, how many
(output position, kernel tap) pairs touch it. The map is the outer product of these counts, times
the output channels that an input channel is connected to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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


def _geometry(call: Call, n: int, transposed: bool) -> list[tuple[int, int, int, int]]:
    """Kernel, stride, padding in front and dilation, per axis."""
    kernel = shape(call.arg(1, "weight"))[2:]
    stride = _per_axis(call.arg(3, "stride", 1), n)
    padding = call.arg(4, "padding", 0)
    dilation = _per_axis(call.arg(7 if transposed else 5, "dilation", 1), n)
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
        return weight[1] if transposed else weight[0] // call.arg(6, "groups", 1)

    def fanout(call: Call) -> Tensor:
        size, out = shape(call.arg(0, "input"))[-n:], shape(call.node)[-n:]
        counts = [
            axis_pairs(size[i], out[i], *axis, transposed)
            for i, axis in enumerate(_geometry(call, n, transposed))
        ]
        return _outer(counts, len(shape(call.arg(0, "input"))) - n, channels(call))

    def nominal(call: Call) -> float:
        axes = _geometry(call, n, transposed)
        taps = math.prod(kernel for kernel, _, _, _ in axes)
        steps = 1 if transposed else math.prod(stride for _, stride, _, _ in axes)
        return channels(call) * taps / steps

    def pairs(call: Call, x: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        rest = {k: v for k, v in call.kwargs.items() if k not in ("input", "weight", "bias")}
        return call.target(x, weight, None, *call.args[3:], **rest)

    name = f"conv{'_transpose' if transposed else ''}{n}d"
    return Operation(Kind.SYNAPSE, synapse=Synapse(name, fanout, nominal, pairs))


operations.add("conv1d", _conv(1, transposed=False))
operations.add("conv2d", _conv(2, transposed=False))
operations.add("conv3d", _conv(3, transposed=False))
operations.add("conv_transpose1d", _conv(1, transposed=True))
operations.add("conv_transpose2d", _conv(2, transposed=True))
operations.add("conv_transpose3d", _conv(3, transposed=True))


def _linear() -> Operation:
    def outputs(call: Call) -> int:
        weight = shape(call.arg(1, "weight"))
        return weight[0] if len(weight) == 2 else 1

    def fanout(call: Call) -> Tensor:
        dims = len(shape(call.arg(0, "input")))
        return torch.full((1,) * dims, outputs(call), dtype=torch.float64)

    def pairs(call: Call, x: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        return torch.nn.functional.linear(x, weight)

    return Operation(
        Kind.SYNAPSE,
        synapse=Synapse("linear", fanout, lambda call: float(outputs(call)), pairs),
    )


operations.add("linear", _linear())


def seed(call: Call, synapse: Synapse, weight: Tensor | None) -> Tensor:
    """The map at a synapse's input; with ``weight`` only its nonzero entries count."""
    if weight is None:
        return compress(synapse.fanout(call))
    mask = (weight.detach() != 0).double()
    with torch.enable_grad(), torch.inference_mode(False):
        size = _sample_size(call, synapse)
        x = torch.zeros(size, dtype=torch.float64, device=mask.device, requires_grad=True)
        y = synapse.pairs(call, x, mask)
        (map,) = torch.autograd.grad(y, x, torch.ones_like(y))
    return map


def probe(call: Call, synapse: Synapse) -> Tensor:
    """A map at a synapse's input that varies wherever one with zero weights may vary."""
    return torch.rand(_sample_size(call, synapse), dtype=torch.float64)


def _sample_size(call: Call, synapse: Synapse) -> tuple[int, ...]:
    """The input's shape, with size 1 along the axes that the weights do not see."""
    size = shape(call.arg(*synapse.input))
    seen = 1 if synapse.kind == "linear" else len(shape(call.arg(1, "weight"))) - 1
    return (1,) * (len(size) - seen) + size[len(size) - seen :]
