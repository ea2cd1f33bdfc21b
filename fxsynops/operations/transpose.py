"""Fan-out maps, and how they move backwards through an operation.

A map says, for each element of a tensor, how many synapses an event there reaches. It is kept at
the smallest shape that still broadcasts to the tensor: an axis along which it is constant (the
batch, mostly) has size 1. All functions here take and give such maps, in float64, in which whole
numbers are exact up to 2**53.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Slot


def compress(map: Tensor, axes: Iterable[int] | None = None) -> Tensor:
    """Give every axis along which ``map`` is constant size 1."""
    for axis in range(map.dim()) if axes is None else axes:
        if map.shape[axis] > 1 and bool((map == map.narrow(axis, 0, 1)).all()):
            map = map.narrow(axis, 0, 1)
    return map


def transpose_of(function: Callable[[Tensor], Tensor], size: Sequence[int], map: Tensor) -> Tensor:
    """Rᵀ·map for a linear ``function`` R of a tensor of ``size``."""
    with torch.enable_grad(), torch.inference_mode(False):
        x = torch.zeros(tuple(size), dtype=torch.float64, requires_grad=True)
        y = function(x)
        (result,) = torch.autograd.grad(y, x, map.detach().expand(y.shape))
    return result


def pull_local(
    call: Call, map: Tensor, function: Callable[[Tensor], Tensor], axes: Iterable[int]
) -> Iterator[Slot]:
    """Through an operation that works along ``axes`` only and leaves all others alone."""
    size = list(shape(call.x))
    axes = {axis % len(size) for axis in axes}
    for axis in range(len(size)):
        if axis not in axes:
            size[axis] = map.shape[axis]
    yield Slot(call.x, compress(transpose_of(function, size, map), axes))


def pull_broadcast(node: fx.Node, map: Tensor, out: Sequence[int]) -> Slot:
    """To an operand that was broadcast to shape ``out``: copies of an event add up."""
    size = shape(node)
    for axis in range(len(out)):
        own = axis - (len(out) - len(size))
        if own < 0 or (size[own] == 1 and out[axis] != 1):
            repeats = out[axis] if map.shape[axis] == 1 else 1
            map = map.sum(axis, keepdim=True) * repeats
    return Slot(node, map.reshape(map.shape[len(out) - len(size) :]))


def reshape_map(map: Tensor, out: Sequence[int], into: Sequence[int]) -> Tensor:
    """The map of a tensor of shape ``out`` when it is reshaped to ``into``.

    Axes are matched in groups of equal size; a group along which the map is constant stays
    constant, so a batch axis never needs to be written out.
    """
    if 0 in out:
        return map.new_zeros((1,) * len(into))
    expanded: list[int] = []
    shaped: list[int] = []
    for ours, theirs in _groups(out, into):
        constant = all(map.shape[axis] == 1 for axis in ours)
        expanded += [1 if constant else out[axis] for axis in ours]
        shaped += [1 if constant else into[axis] for axis in theirs]
    return compress(map.expand(expanded).reshape(shaped))


def _groups(a: Sequence[int], b: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    i = j = 0
    while i < len(a) or j < len(b):
        ours, theirs = [], []
        size_a = size_b = 1
        if i < len(a):
            ours, size_a, i = [i], a[i], i + 1
        if j < len(b):
            theirs, size_b, j = [j], b[j], j + 1
        while size_a != size_b:
            if size_a < size_b:
                ours.append(i)
                size_a, i = size_a * a[i], i + 1
            else:
                theirs.append(j)
                size_b, j = size_b * b[j], j + 1
        if not ours or not theirs:  # a trailing axis of size 1
            yield ours, theirs
            continue
        yield ours, theirs


def pull_incidence(
    call: Call, map: Tensor, incidence: Callable[..., Any] | None = None
) -> list[Slot]:
    """Through any operation, given in its 0/1 form as a function of the call's own arguments.

    Without one, the operation is 0/1 as it is. Operands that depend on no data have their values.
    """
    values: dict[fx.Node, Tensor] = {}
    with torch.enable_grad(), torch.inference_mode(False):
        for node in call.operands():
            value = call.constant(node)
            if value is None:
                value = torch.zeros(shape(node), dtype=torch.float64, requires_grad=True)
            elif incidence is None and value.is_floating_point():
                value = value.double()
            values[node] = value
        if incidence is None:
            y = call.again(lambda n: values.get(n, n))
        else:
            args, kwargs = map_arg((call.args, call.kwargs), lambda n: values.get(n, n))
            y = incidence(*args, **kwargs)
        y = y if call.output is None else y[call.output]
        inputs = [n for n in values if call.constant(n) is None]
        grads = torch.autograd.grad(
            y, [values[n] for n in inputs], map.expand(y.shape), allow_unused=True
        )
    return [Slot(n, compress(g)) for n, g in zip(inputs, grads, strict=True) if g is not None]
