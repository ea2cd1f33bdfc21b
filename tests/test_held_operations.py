"""Entries of single calls, held against what torch does to one element at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.utils import _pytree as pytree

import fxsynops
from fxsynops.operations import Call, Kind, Operation, operations
from fxsynops.operations.call import writes_in_place
from fxsynops.operations.linear_forms import overlay, set_part, sum_windows
from fxsynops.operations.operation import SynapseCall
from fxsynops.operations.products import Product
from fxsynops.operations.registry import is_torch, operation_name
from fxsynops.operations.signatures import arguments
from fxsynops.operations.written_out import _axes_behind
from fxsynops.tracing.graph_functions import setitem
from fxsynops.tracing.node_meta import TensorSpec


def data(*size: int) -> Tensor:
    """A tensor that events arrive in."""
    return torch.zeros(size)


def fixed(*size: int, most: int = 0, seed: int = 0) -> Tensor:
    """A tensor that depends on no data: whole numbers, or else weights."""
    generator = torch.Generator().manual_seed(seed)
    if most:
        return torch.randint(most, size, generator=generator)
    return torch.randn(size, generator=generator)


def is_data(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not bool(value.any())


class Made:
    """A recorded call; tensors of zeros are data, all others are constants.

    Attributes:
        call, entry: the call, and the entry that holds for it.
        nodes: of the tensors of data.
        out: the shape of what is meant of the output.
    """

    def __init__(self, target: Any, *args: Any, part: Any = None, **kwargs: Any) -> None:
        graph = fx.Graph()
        values: dict[fx.Node, Tensor] = {}

        def recorded(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            node = graph.placeholder(f"x{len(values)}")
            node.meta["spec"] = TensorSpec(value.shape, value.dtype)
            values[node] = value
            return node

        def real(value: Any) -> Any:
            return value.clone() if isinstance(value, Tensor) else value

        self.target, self.args, self.kwargs, self.part = target, args, kwargs, part
        given = pytree.tree_map(recorded, (args, kwargs))
        y = target(*pytree.tree_map(real, args), **pytree.tree_map(real, kwargs))
        node = graph.call_function(target, *given)
        if part is not None:
            y = y[part]
            node = graph.call_function(Tensor.__getitem__, (node, part))
        node.meta["spec"] = TensorSpec(y.shape, y.dtype)
        self.out = tuple(y.shape)
        self.nodes = [n for n, v in values.items() if is_data(v)]
        self.sizes = [tuple(v.shape) for v in values.values() if is_data(v)]
        self.values = values
        name = operation_name(target)
        known = {n: v for n, v in values.items() if not is_data(v)}
        self.call = Call(node, target, name, *given, part, known.get)
        found = operations.find(target, None, None)
        assert found is not None, target
        entry = found.of(self.call)
        assert entry is not None, target
        self.entry: Operation = entry

    def run(self, xs: list[Tensor]) -> Tensor:
        """The call itself, in float64, on other data."""
        left = iter(xs)

        def real(value: Any) -> Any:
            if isinstance(value, Tensor):
                known = value.double() if value.is_floating_point() else value
                return next(left).clone() if is_data(value) else known.clone()
            return value

        args, kwargs = pytree.tree_map(real, (self.args, self.kwargs))
        y = self.target(*args, **kwargs)
        return (y if self.part is None else y[self.part]).double()

    def slopes(self, base: float = 0.0) -> list[Tensor]:
        """By how much each output changes with each element of data, (outputs, elements)."""
        xs = [torch.full(size, base, dtype=torch.float64) for size in self.sizes]
        rest = self.run(xs).flatten()
        found = []
        for i, x in enumerate(xs):
            columns = []
            for k in range(x.numel()):
                one = x.clone().reshape(-1)
                one[k] += 1
                moved = [*xs[:i], one.reshape(x.shape), *xs[i + 1 :]]
                columns.append(self.run(moved).flatten() - rest)
            found.append(torch.stack(columns, 1) if columns else rest[:, None][:, :0])
        return found

    def pulled(self, map: Tensor) -> list[Tensor]:
        """What the entry makes of a map, for each tensor of data, written out."""
        whole = [torch.zeros(size, dtype=torch.float64) for size in self.sizes]
        found = dict(zip(self.nodes, whole, strict=True))
        assert self.entry.pull is not None
        for slot in self.entry.pull(self.call, map):
            if slot.node not in found:  # a constant
                continue
            part = found[slot.node]
            assert slot.map.dim() == part.dim()
            part = part[slot.where] if slot.where is not None else part
            assert all(m in (1, n) for m, n in zip(slot.map.shape, part.shape, strict=True))
            part += slot.map
        return list(found.values())


def maps(size: tuple[int, ...], seed: int, many: int = 4) -> list[Tensor]:
    """Maps over a tensor, of size 1 along some of its axes."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    found = [torch.ones((1,) * len(size), dtype=torch.float64)]
    for k in range(many):
        kept = [n if k == 0 or draw.random() < 0.5 else min(n, 1) for n in size]
        found.append(torch.randint(5, kept, generator=generator).double())
    return found


def held(made: Made, *, gain: bool = True, scale: bool = True) -> None:
    """Hold an entry of routing against the derivatives of its call."""
    assert made.entry.kind is Kind.ROUTING
    slopes = made.slopes()
    for seed, map in enumerate(maps(made.out, len(made.out))):
        full = map.expand(made.out).flatten()
        for got, slope in zip(made.pulled(map), slopes, strict=True):
            wanted = (slope != 0).double().T @ full
            assert torch.equal(got.flatten(), wanted), (made.target, seed)
    if gain and made.out and math.prod(made.out):
        meet = max(float((slope != 0).sum(1).max()) for slope in slopes if slope.numel())
        assert made.entry.gain(made.call) == max(meet, 1), made.target
    factors = torch.cat([slope[slope != 0].abs() for slope in slopes])
    if scale and len(factors):
        said = made.entry.scale(made.call)
        alike = bool((factors - factors[0]).abs().max() < 1e-12)
        assert (said is not None) == alike, made.target
        if said is not None:
            assert said.fixed
            assert abs(said.factor) == pytest.approx(float(factors[0]), rel=1e-12)


def case(target: Any, *args: Any, **kwargs: Any) -> Callable[[], Made]:
    return lambda: Made(target, *args, **kwargs)


def named(cases: list[tuple[Any, ...]]) -> Any:
    """Parametrize over calls, given as (target, *args) or with a dict of keywords at the end."""
    made = []
    for target, *args in cases:
        kwargs = args.pop() if args and isinstance(args[-1], dict) else {}
        said = [a for a in args if not isinstance(a, Tensor)]
        name = getattr(target, "__name__", str(target))
        made.append(pytest.param(case(target, *args, **kwargs), id=f"{name} {said} {kwargs}"[:60]))
    return pytest.mark.parametrize("make", made)


X, Y, ROW, ONE = data(3, 4), data(3, 4), data(4), data()
CUBE, IMAGE, SERIES = data(2, 3, 4), data(2, 2, 4, 5), data(2, 2, 7)
PLACES = fixed(5, most=3)
aten = torch.ops.aten

# -- what carries events to other places -----------------------------------------------------------


@named(
    [
        # copies and sums
        (Tensor.clone, X),
        (Tensor.contiguous, CUBE),
        (Tensor.detach, ONE),
        (torch.add, X, Y),
        (torch.add, X, ROW),
        (torch.add, ROW, X),
        (torch.add, data(3, 1), data(1, 4)),
        (torch.add, data(1, 1), CUBE),
        (torch.add, data(1, 3, 1), data(2, 1, 4)),
        (torch.add, ONE, CUBE),
        (torch.sub, X, data(2, 3, 4)),
        (torch.rsub, X, data(3, 1)),
        (torch.neg, CUBE),
        (Tensor.positive, X),
        # axes
        (Tensor.view, CUBE, 6, 4),
        (Tensor.view, CUBE, -1),
        (Tensor.reshape, CUBE, (2, 12)),
        (Tensor.reshape, CUBE, 3, 8),
        (Tensor.reshape, data(2, 1, 6, 1), 4, 3),
        (Tensor.reshape, data(4, 6), 2, 1, 2, 6, 1),
        (Tensor.reshape, data(6, 4, 5), 2, 3, 20),
        (Tensor.reshape, data(1, 1), ()),
        (Tensor.reshape, ONE, 1, 1),
        (torch.flatten, IMAGE, 1, 2),
        (Tensor.unflatten, X, 1, (2, 2)),
        (torch.squeeze, data(2, 1, 3, 1)),
        (torch.squeeze, data(2, 1, 3, 1), -1),
        (torch.unsqueeze, CUBE, -2),
        (torch.unsqueeze, CUBE, 0),
        (torch.atleast_3d, X),
        (torch.permute, IMAGE, (3, 0, 2, 1)),
        (torch.permute, data(3, 3, 3), (-1, 0, 1)),
        (Tensor.permute, CUBE, 1, 2, 0),
        (torch.transpose, data(3, 3, 2), 0, 1),
        (torch.transpose, data(3, 3, 2), -1, 0),
        (torch.movedim, IMAGE, (0, 1), (2, 0)),
        (torch.swapaxes, CUBE, 0, -1),
        (Tensor.t, X),
        (Tensor.t, ROW),
        (Tensor.expand, data(3, 1), 3, 4),
        (Tensor.expand, data(3, 1), 2, -1, 4),
        (Tensor.expand, ONE, 2, 2),
        (torch.broadcast_to, ROW, (2, 3, 4)),
        (Tensor.repeat, X, 2, 3),
        (Tensor.repeat, X, 2, 1, 3),
        (Tensor.repeat, ROW, 3, 2),
        (Tensor.repeat, data(3, 1), 1, 4),
        (torch.tile, CUBE, (2,)),
        (torch.tile, X, (3, 1, 2)),
        # joining
        (torch.cat, [X, Y]),
        (torch.cat, [X, data(2, 4), Y], 0),
        (torch.cat, [X, data(3, 1), data(3, 2)], -1),
        (torch.cat, [X, fixed(3, 2), Y], 1),
        (torch.cat, [data(0), X, data(3, 1)], 1),
        (torch.cat, [X, X], {"dim": 1}),
        (torch.stack, [X, Y], 0),
        (torch.stack, [X, Y, X], -1),
        (torch.stack, [X, fixed(3, 4)], {"dim": 1}),
        (torch.hstack, [X, data(3, 2)]),
        (torch.hstack, [ROW, data(3)]),
        (torch.hstack, [X, Y]),
        (torch.hstack, [CUBE, data(2, 1, 4)]),
        (torch.vstack, [X, data(2, 4)]),
        (torch.vstack, [ROW, ROW]),
        (torch.vstack, [CUBE, CUBE]),
        (torch.column_stack, [ROW, data(4, 2)]),
        (torch.column_stack, [ROW, data(4)]),
        (torch.dstack, [X, Y]),
        (torch.dstack, [CUBE, data(2, 3, 1)]),
        (torch.dstack, [ROW, data(4)]),
        # parts
        (torch.select, CUBE, 1, 2),
        (torch.select, CUBE, -1, -2),
        (Tensor.narrow, CUBE, 2, 1, 2),
        (Tensor.narrow, CUBE, -2, -2, 2),
        (Tensor.narrow, CUBE, 1, 0, 3),
        (aten.slice.Tensor, CUBE, 2, 1, 4, 2),
        (aten.slice.Tensor, CUBE, -2, -2),
        (torch.diagonal, CUBE, 1, 0, 2),
        (torch.diagonal, X, -1),
        (torch.diag, ROW, -1),
        (torch.tril, CUBE, 1),
        (torch.triu, X),
        (torch.diag_embed, X, 1),
        (torch.as_strided, CUBE, (2, 3), (12, 1), 2),
        (torch.rot90, CUBE, 1, (0, 2)),
        (Tensor.unfold, X, 1, 2, 1),
        (Tensor.unfold, X, -2, 3, 2),
        (torch.repeat_interleave, X, 2, 1),
        (torch.repeat_interleave, X, torch.tensor([2, 0, 1]), 0),
        (torch.repeat_interleave, X, 2),
        (torch.index_select, X, 0, PLACES),
        (torch.take, X, fixed(2, 3, most=12)),
        (torch.take_along_dim, X, fixed(2, 4, most=3), 0),
        (torch.flip, CUBE, (0, 2)),
        (torch.flip, CUBE, (-2,)),
        (torch.fliplr, CUBE),
        (torch.flipud, CUBE),
        (torch.roll, CUBE, 1, 1),
        (torch.roll, CUBE, (1, -2), (0, 2)),
        (torch.roll, CUBE, 5),
        (torch.roll, X, 1, 0),
        (torch.roll, X, 1, -1),
        (torch.roll, X, 2, (0,)),
        (F.pixel_shuffle, data(2, 8, 2, 3), 2),
        (F.pixel_unshuffle, data(1, 2, 4, 6), 2),
        (F.channel_shuffle, data(2, 6, 2, 2), 3),
        (F.channel_shuffle, data(2, 6, 2, 2), 2),
        (aten.native_channel_shuffle.default, data(2, 6, 2, 2), 3),
        # padding
        (F.pad, X, (1, 2)),
        (F.pad, X, (1, 2, 0, 3), "constant", 0.0),
        (F.pad, X, (-1, 2), "constant", 1.5),
        (F.pad, X, (2, -1, -1, 1)),
        (F.pad, SERIES, (2, 3), "reflect"),
        (F.pad, SERIES, (0, 2), "replicate"),
        (F.pad, SERIES, (3, 1), "circular"),
        (F.pad, X, (1, 2), "reflect"),
        (F.pad, IMAGE, (1, 2, 3, 0), "reflect"),
        (F.pad, IMAGE, (1, 0, 2, 1), "replicate"),
        (F.pad, IMAGE, (4, 1, 0, 3), "circular"),
        (F.pad, CUBE, (1, 1, 2, 0), "circular"),
        (F.pad, data(1, 2, 2, 3, 2), (1, 1, 0, 1, 1, 0), "replicate"),
        (F.pad, data(1, 2, 3, 2), (1, 1, 0, 1, 1, 0), "replicate"),
        (aten.constant_pad_nd.default, X, [1, -1, 2, 0], 2.0),
        # writes
        (setitem, X, 1, ROW),
        (setitem, X, (slice(None), 2), data(3)),
        (setitem, X, (slice(1, None), slice(None, None, 2)), data(2, 2)),
        (setitem, X, (slice(1, None), slice(None, None, 2)), data(2)),
        (setitem, X, (slice(1, None), slice(None, None, 2)), data(1, 2, 1)),
        (setitem, X, (slice(1, None), slice(None)), data(1, 1, 2, 4)),
        (setitem, X, (..., slice(0, 3)), ONE),
        (setitem, X, slice(None), Y),
        (setitem, X, slice(None), ROW),
        (setitem, X, (0, 0), ONE),
        (setitem, X, (0, 0), 2.5),
        (setitem, X, (None, 1), data(1, 4)),
        (setitem, CUBE, (slice(None), -1), data(2, 1)),
        (setitem, CUBE, (slice(None), -1, slice(1, 3)), data(2, 2)),
        (setitem, CUBE, (1, slice(None), slice(0, 4)), data(3, 1)),
        (setitem, CUBE, (slice(0, 2), slice(1, 2)), fixed(2, 1, 4)),
        (setitem, fixed(3, 4), (slice(0, 2),), data(2, 4)),
        (setitem, X, torch.tensor([0, 2]), data(2, 4)),
        (setitem, X, (slice(None), torch.tensor([3, 1])), data(3, 1)),
        (setitem, X, torch.tensor([True, False, True]), ROW),
        (Tensor.copy_, X, Y),
        (Tensor.copy_, X, data(3, 1)),
        (Tensor.copy_, CUBE, ROW),
        (torch.slice_scatter, X, data(3, 2), 1, 1, 3),
        (torch.slice_scatter, X, data(3, 2), 1, 0, 4, 2),
        (torch.select_scatter, X, data(3), 1, 2),
        (torch.diagonal_scatter, X, data(3), 1),
        # reads
        (Tensor.__getitem__, CUBE, 1),
        (Tensor.__getitem__, CUBE, -1),
        (Tensor.__getitem__, CUBE, (0, 1)),
        (Tensor.__getitem__, CUBE, (0, slice(1, 3), -2)),
        (Tensor.__getitem__, CUBE, (..., 1)),
        (Tensor.__getitem__, CUBE, (1, ..., slice(None, None, 3))),
        (Tensor.__getitem__, CUBE, (None, 1, None, ..., slice(-3, -1))),
        (Tensor.__getitem__, CUBE, (slice(0, 1), slice(None), None, 2)),
        (Tensor.__getitem__, CUBE, (slice(None), None)),
        (Tensor.__getitem__, CUBE, (0, 1, 2)),
        (Tensor.__getitem__, CUBE, ...),
        (Tensor.__getitem__, CUBE, None),
        (Tensor.__getitem__, CUBE, (1, slice(None), None, slice(1, 2), None)),
        (Tensor.__getitem__, data(3, 3, 3), (slice(None), 1)),
        (Tensor.__getitem__, data(3, 3, 3), (1, slice(None), slice(0, 2))),
        (Tensor.__getitem__, CUBE, torch.tensor([1, 0, 1])),
        (Tensor.__getitem__, CUBE, (slice(None), torch.tensor([2, 0]), slice(1, 3))),
        (Tensor.__getitem__, CUBE, [0, 1, 1]),
        (Tensor.__getitem__, CUBE, (0, [2, 0])),
        (Tensor.__getitem__, X, torch.tensor([True, False, True])),
        (Tensor.__getitem__, CUBE, True),
        # sums and windows
        (torch.sum, CUBE),
        (torch.sum, CUBE, 1),
        (torch.sum, CUBE, (0, -1)),
        (torch.sum, CUBE, (2, 0), True),
        (torch.sum, CUBE, ()),
        (torch.sum, CUBE, {"dim": -2, "keepdim": True}),
        (torch.nansum, X, 0),
        (torch.mean, CUBE),
        (torch.mean, CUBE, 2),
        (torch.mean, CUBE, (0, 1), True),
        (torch.mean, CUBE, -3),
        (torch.mean, ONE),
        (torch.cumsum, CUBE, 1),
        (torch.cumsum, CUBE, -1),
        (torch.cumsum, data(4, 1), 1),
        (F.avg_pool1d, SERIES, 3),
        (F.avg_pool1d, SERIES, (2,), 3),
        (F.avg_pool1d, SERIES, 3, 2, 1),
        (F.avg_pool1d, SERIES, 3, 2, 1, False, False),
        (F.avg_pool1d, SERIES, 2, 2, 0, True),
        (F.avg_pool1d, SERIES, 2, 2, 0, True, False),
        (F.avg_pool1d, data(1, 1, 4), 3, 3, 0, True, False),
        (F.avg_pool2d, data(1, 3, 3), 2, 2, 0, True, False),
        (F.avg_pool1d, SERIES, 4, 3, 2, True),
        (F.avg_pool1d, data(2, 6), 2),
        (F.avg_pool2d, IMAGE, 2),
        (F.avg_pool2d, IMAGE, (2, 3), (1, 2), (1, 0)),
        (F.avg_pool2d, IMAGE, 3, 2, 1, True),
        (F.avg_pool2d, IMAGE, 3, 2, 1, True, False),
        (F.avg_pool2d, IMAGE, 2, None, 0, True, True, 3),
        (F.avg_pool2d, IMAGE, 3, 1, 1, False, True, 5),
        (F.avg_pool2d, data(2, 4, 4), 2, {"stride": 1}),
        (F.avg_pool3d, data(1, 1, 3, 4, 4), (1, 2, 3)),
        (F.avg_pool3d, data(1, 1, 3, 3, 2), 2, 1, 1),
        (F.avg_pool3d, data(1, 1, 3, 3, 2), 2, 2, 0, True),
        (F.adaptive_avg_pool1d, SERIES, 1),
        (F.adaptive_avg_pool1d, SERIES, 3),
        (F.adaptive_avg_pool1d, SERIES, 7),
        (F.adaptive_avg_pool1d, data(1, 6), 3),
        (F.adaptive_avg_pool1d, data(1, 3), 6),
        (F.adaptive_avg_pool2d, IMAGE, (2, 3)),
        (F.adaptive_avg_pool2d, IMAGE, (None, 1)),
        (F.adaptive_avg_pool2d, data(1, 4, 6), (2, 3)),
        (F.adaptive_avg_pool3d, data(1, 1, 2, 4, 3), (1, 2, 3)),
        (F.interpolate, SERIES, {"scale_factor": 2}),
        (F.interpolate, SERIES, 10),
        (F.interpolate, SERIES, 3),
        (F.interpolate, SERIES, 3, {"mode": "nearest-exact"}),
        (F.interpolate, IMAGE, (6, 5)),
        (F.interpolate, IMAGE, {"scale_factor": (1.5, 0.5)}),
        (F.interpolate, IMAGE, {"scale_factor": [0.5, 1.7], "mode": "nearest-exact"}),
        (F.interpolate, data(1, 1, 2, 3, 2), 4),
        (torch.einsum, "bij->bj", CUBE),
        (torch.einsum, "bij->jib", CUBE),
        (torch.einsum, "bii->b", data(2, 3, 3)),
        (torch.einsum, "ij->", X),
    ]
)
def test_fan_out_goes_backwards_through_every_element_that_an_output_depends_on(make):
    made = make()
    alone = sum(is_data(v) for v in made.values.values()) == 1
    copies = made.entry.kind is Kind.ROUTING and not made.call.name.startswith(("setitem", "copy"))
    if made.entry.kind is Kind.PRODUCT:  # of one operand, of which a diagonal is not all
        made.entry, copies = replace(made.entry, kind=Kind.ROUTING), "bii->b" not in made.args
    held(made, gain=alone and copies)


@named(
    [
        (F.interpolate, SERIES, 10, {"mode": "linear"}),
        (F.interpolate, SERIES, 10, {"mode": "linear", "align_corners": True}),
        (F.interpolate, SERIES, {"scale_factor": 0.7, "mode": "linear"}),
        (
            F.interpolate,
            SERIES,
            {"scale_factor": 1.6, "mode": "linear", "recompute_scale_factor": True},
        ),
        (F.interpolate, IMAGE, (7, 9), {"mode": "bilinear", "align_corners": True}),
        (F.interpolate, IMAGE, {"scale_factor": (2.0, 1.5), "mode": "bilinear"}),
        (F.interpolate, IMAGE, (3, 2), {"mode": "bilinear", "antialias": True}),
        (F.interpolate, IMAGE, (6, 7), {"mode": "bicubic"}),
        (F.interpolate, data(1, 1, 2, 3, 2), (3, 3, 4), {"mode": "trilinear"}),
        (F.interpolate, IMAGE, (3, 3), {"mode": "area"}),
        (F.grid_sample, data(2, 1, 3, 4), fixed(2, 2, 3, 2) / 2, {"align_corners": False}),
        (F.grid_sample, data(2, 2, 3, 4), fixed(1, 2, 3, 2).expand(2, -1, -1, -1) / 2, "bilinear"),
        (
            F.grid_sample,
            data(1, 1, 3, 4),
            fixed(1, 2, 3, 2),
            "nearest",
            "border",
            {"align_corners": True},
        ),
        (F.grid_sample, data(2, 2, 2, 3, 2), fixed(2, 2, 1, 2, 3) / 2, "bilinear", "reflection"),
        (
            F.batch_norm,
            IMAGE,
            fixed(2),
            fixed(2).abs(),
            fixed(2, seed=1),
            fixed(2, seed=2),
        ),
        (torch.mul, X, fixed(3, 4)),
        (torch.mul, fixed(4), X),
        (torch.mul, X, torch.tensor([0.0, 2, 0, 1]).double()),
        (torch.mul, torch.tensor([[0.0], [2], [0]]).double(), ROW),
        (torch.mul, data(3, 1), torch.tensor([0.0, 2, 0, 1]).double()),
        (torch.div, X, fixed(4)),
        (torch.div, data(3, 1), fixed(4)),
        (torch.mul, X, 2.5),
    ]
)
@pytest.mark.filterwarnings("ignore:Default grid_sample")
def test_fan_out_goes_backwards_through_weights_that_are_not_zero(make):
    held(make(), gain=False, scale=False)


@pytest.mark.parametrize(
    ("pool", "size"), [(F.lp_pool1d, (2, 7)), (F.lp_pool2d, (1, 5, 4)), (F.lp_pool3d, (1, 3, 4, 3))]
)
@pytest.mark.parametrize(
    ("kernel", "stride", "ceil"), [(2, None, False), (2, 1, False), (3, 2, True), (2, 3, True)]
)
def test_fan_out_goes_backwards_through_pools_of_norm_one(pool, size, kernel, stride, ceil):
    made = Made(pool, data(1, *size), 1, kernel, stride, ceil)
    made.slopes = lambda slopes=made.slopes: slopes(1.0)  # torch has no slope at zero
    slopes = [torch.where(s.abs() < 1e-9, 0.0, s) for s in made.slopes()]
    made.slopes = lambda: slopes
    n = len(size) - 1
    held(made, gain=False, scale=False)
    assert made.entry.gain(made.call) == kernel**n
    ends = [(o - 1) * (stride or kernel) + kernel for o in made.out[-n:]]
    whole = all(end <= z for end, z in zip(ends, size[1:], strict=True))
    factor = made.entry.scale(made.call)
    assert (factor is not None) == whole
    if whole:
        assert factor.factor == 1
        assert float(slopes[0].max()) == pytest.approx(1)


PARTS = [
    (torch.split, CUBE, 2, 1),
    (torch.split, CUBE, [1, 3], {"dim": -1}),
    (torch.split, data(4, 4), 3),
    (torch.chunk, CUBE, 2, 2),
    (torch.chunk, data(5, 5), 3, 1),
    (torch.tensor_split, CUBE, 3, 2),
    (torch.tensor_split, CUBE, (1, 1, 3), 2),
    (torch.tensor_split, CUBE, (2,), 0),
    (torch.hsplit, CUBE, 3),
    (torch.hsplit, data(6), [1, 4]),
    (torch.vsplit, CUBE, 2),
    (torch.dsplit, CUBE, [1]),
    (torch.unbind, CUBE, 1),
    (torch.unbind, CUBE, -1),
    (torch.broadcast_tensors, data(3, 1), ROW),
    (torch.max, X, 1),
]


@pytest.mark.parametrize("call", PARTS, ids=lambda c: f"{c[0].__name__} {c[2:]}"[:40])
def test_each_part_comes_from_where_it_was(call):
    target, *args = call
    kwargs = args.pop() if isinstance(args[-1], dict) else {}
    many = target(*args, **kwargs)
    for part in range(len(many)):
        if not many[part].is_floating_point() or target is torch.max:
            continue
        held(Made(target, *args, part=part, **kwargs), gain=False, scale=False)


@pytest.mark.parametrize("seed", range(12))
def test_fan_out_goes_backwards_through_windows_of_any_geometry(seed):
    draw = random.Random(seed)
    for _ in range(6):
        n = draw.choice([1, 2, 2, 3])
        size = [draw.randint(2, 7 if n < 3 else 4) for _ in range(n)]
        kernel = [draw.randint(1, min(4, s)) for s in size]
        stride = [draw.randint(1, 4) for _ in range(n)]
        padding = [draw.randint(0, k // 2) for k in kernel]
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
        options: list[Any] = [draw.random() < 0.5, draw.random() < 0.5]
        if n > 1 and draw.random() < 0.3:
            options.append(draw.choice([1, 2, 7]))
        made = Made(pool, data(1, 2, *size), kernel, stride, padding, *options)
        slopes = made.slopes()
        factors = slopes[0][slopes[0] != 0]
        said = made.entry.scale(made.call)
        held(made, gain=False, scale=said is not None)
        assert made.entry.gain(made.call) == math.prod(kernel)
        if said is None:  # several divisors, or padding that may make them so
            padded = any(padding) and not options[1]
            beyond = options[0] and any(
                (o - 1) * t + k - p > s + p * options[1]
                for o, t, k, p, s in zip(made.out[-n:], stride, kernel, padding, size, strict=True)
            )
            assert padded or beyond
        else:
            assert len(factors.unique()) == 1


@pytest.mark.parametrize("seed", range(10))
def test_fan_out_goes_backwards_through_any_shape(seed):
    draw = random.Random(seed)

    def shaped(primes: list[int]) -> tuple[int, ...]:
        size, left = [], list(primes)
        while left:
            take = draw.randint(1, min(3, len(left)))
            size.append(math.prod(left[:take]))
            left = left[take:]
            if draw.random() < 0.25:
                size.append(1)
        return tuple(size) if draw.random() < 0.8 else (1, *size)

    for _ in range(12):
        primes = [draw.choice([2, 2, 3]) for _ in range(draw.randint(0, 5))]
        before, after = shaped(primes), shaped(primes)
        made = Made(Tensor.reshape, data(*before), after)
        for map in maps(after, draw.randrange(99), 6):
            (got,) = made.pulled(map)
            assert torch.equal(got, map.expand(after).reshape(before))
            (slot,) = made.entry.pull(made.call, map)
            if map.numel() == 1:
                assert slot.map.numel() == 1  # what is the same everywhere is never written out


@pytest.mark.parametrize("shapes", [((6, 4, 5), (2, 3, 20)), ((6, 20), (6, 4, 5)), ((8, 1), (8,))])
def test_an_axis_along_which_fan_out_is_the_same_stays_of_size_one(shapes):
    before, after = shapes
    made = Made(Tensor.reshape, data(*before), after)
    map = torch.ones((1,) * (len(after) - 1) + (after[-1],)).double().cumsum(-1)
    (slot,) = made.entry.pull(made.call, map)
    if before[0] != after[-1]:
        assert slot.map.shape[0] == 1


@pytest.mark.parametrize("size", [(0, 3), (3, 0)])
def test_nothing_is_reached_from_a_tensor_without_elements(size):
    made = Made(Tensor.reshape, data(*size), -1)
    (slot,) = made.entry.pull(made.call, torch.ones(1).double())
    assert slot.map.shape == (1, 1)
    assert float(slot.map.sum()) == 0


@pytest.mark.parametrize("seed", range(10))
def test_fan_out_goes_backwards_through_any_basic_index(seed):
    draw = random.Random(seed)
    for _ in range(8):
        size = tuple(draw.randint(1, 4) for _ in range(draw.randint(1, 4)))
        items: list[Any] = []
        for n in size[: draw.randint(0, len(size))]:
            start, stop = sorted((draw.randint(-n, n), draw.randint(-n, n)))
            items.append(
                draw.choice(
                    [
                        draw.randrange(-n, n),
                        slice(None),
                        slice(start % (n + 1), None, draw.randint(1, 2)),
                        slice(None, stop or None),
                    ]
                )
            )
        if draw.random() < 0.5:
            items.insert(draw.randint(0, len(items)), None)
        at = draw.randint(0, len(items))
        if draw.random() < 0.4 and all(
            isinstance(i, slice) and i == slice(None) for i in items[at:]
        ):
            items.insert(at, ...)
        index = items[0] if len(items) == 1 and draw.random() < 0.5 else tuple(items)
        x = data(*size)
        if 0 in x[index].shape:
            continue
        held(Made(Tensor.__getitem__, x, index), gain=False)
        y = data(*x[index].shape)
        held(Made(setitem, x, index, y), gain=False)


@pytest.mark.parametrize("seed", range(6))
def test_fan_out_of_what_is_broadcast_adds_up(seed):
    draw = random.Random(seed)
    for _ in range(8):
        out = [draw.randint(1, 3) for _ in range(draw.randint(0, 4))]
        sizes = []
        for _ in "xy":
            size = [n if draw.random() < 0.6 else 1 for n in out]
            sizes.append(size[draw.randint(0, len(size)) :])
        held(Made(torch.add, *(data(*size) for size in sizes)), gain=False)
        held(Made(torch.sub, *(data(*size) for size in sizes)), gain=False)
        weight = (fixed(*sizes[1]) > 0) * fixed(*sizes[1], seed=1)
        held(Made(torch.mul, data(*sizes[0]), weight), gain=False, scale=False)
        held(Made(torch.mul, weight, data(*sizes[0])), gain=False, scale=False)


# -- synapses --------------------------------------------------------------------------------------


def synapse_call(made: Made, weight: fx.Node) -> SynapseCall:
    assert made.entry.synapse is not None
    return SynapseCall(made.call, made.entry.synapse, made.nodes[0], weight)


@pytest.mark.parametrize("seed", range(14))
def test_the_synapses_of_a_convolution_of_any_geometry_are_its_products(seed):
    draw = random.Random(seed)
    for _ in range(4):
        n, transposed = draw.choice([1, 1, 2, 3]), draw.random() < 0.5
        groups, most = draw.choice([1, 1, 2]), 6 if n < 3 else 3
        inputs, outputs = groups * draw.randint(1, 2), groups * draw.randint(1, 3)
        kernel = [draw.randint(1, 3) for _ in range(n)]
        dilation = [draw.randint(1, 2) for _ in range(n)]
        stride = [draw.randint(1, 3) for _ in range(n)]
        size = [d * (k - 1) + draw.randint(1, most) for k, d in zip(kernel, dilation, strict=True)]
        padding: Any = [draw.randint(0, 2 if not transposed else k // 2) for k in kernel]
        lead = draw.choice([(), (2,)])
        if transposed:
            target: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
            weight = fixed(inputs, outputs // groups, *kernel, seed=seed)
            extra = [draw.randint(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
            args = [stride, padding, extra, groups, dilation]
        else:
            target = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
            weight = fixed(outputs, inputs // groups, *kernel, seed=seed)
            if draw.random() < 0.3:
                stride, padding = [1] * n, draw.choice(["same", "valid"])
            one = draw.random() < 0.3
            stride, dilation = ([v[0]] * n if one else v for v in (stride, dilation))
            args = [stride[0] if one else stride, padding, dilation, groups]
        weight = weight * (fixed(*weight.shape, most=3, seed=seed) > 0)
        bias = fixed(outputs) if draw.random() < 0.5 else None
        x = data(*lead, inputs, *size)
        wide = torch.zeros(x.shape, dtype=torch.float64)
        try:
            target(x, weight, bias, *args)
        except RuntimeError:
            continue
        made = Made(target, x, weight, bias, *args)
        node = made.call["weight"]
        calls = synapse_call(made, node)

        def reached(weight: Tensor, target=target, wide=wide, args=args) -> Tensor:
            found = []
            for k in range(wide.numel()):
                one = wide.clone()
                one.view(-1)[k] = 1
                found.append(target(one, weight.double(), None, *args).sum())
            return torch.stack(found).reshape(wide.shape)

        every = torch.ones_like(weight)
        assert torch.equal(calls.fanout().expand(x.shape), reached(every))
        mask = (weight != 0).double()
        assert torch.equal(calls.fanout(weight).expand(x.shape), reached(mask))
        rule = made.entry.synapse
        taps = math.prod(kernel)
        steps = 1 if transposed else math.prod(stride)
        assert rule.nominal(made.call) == outputs // groups * taps / steps
        assert rule.fan_in(made.call) == inputs // groups * taps
        assert rule.kind == f"conv{'_transpose' if transposed else ''}{n}d"
        assert rule.sample(made.call, made.nodes[0]) == (*(1 for _ in lead), inputs, *size)


# -- products --------------------------------------------------------------------------------------

LEFT, RIGHT = data(2, 3, 4), data(2, 4, 5)


@named(
    [
        (torch.matmul, data(3, 4), data(4, 5)),
        (torch.matmul, LEFT, RIGHT),
        (torch.matmul, LEFT, data(4)),
        (torch.matmul, data(4), RIGHT),
        (torch.matmul, data(4), data(4)),
        (torch.matmul, LEFT, data(4, 5)),
        (torch.matmul, data(3, 4), RIGHT),
        (torch.matmul, data(3, 1, 2, 4), RIGHT),
        (torch.matmul, LEFT, data(3, 2, 4, 1)),
        (torch.matmul, data(1, 3, 4), RIGHT),
        (torch.matmul, data(2, 1, 1), data(2, 1, 3)),
        (Tensor.__rmatmul__, data(4, 5), data(3, 4)),
        (torch.mm, data(3, 4), data(4, 2)),
        (torch.bmm, LEFT, RIGHT),
        (torch.mv, data(3, 4), data(4)),
        (torch.dot, data(4), data(4)),
        (torch.vdot, data(4), data(4)),
        (torch.inner, data(3, 4), data(4)),
        (torch.inner, LEFT, data(2, 5, 4)),
        (torch.inner, data(4), data(4)),
        (torch.outer, data(3), data(4)),
        (torch.ger, data(1), data(4)),
        (torch.tensordot, LEFT, data(4, 5), 1),
        (torch.tensordot, LEFT, data(3, 4, 5), 2),
        (torch.tensordot, LEFT, data(2, 5), 0),
        (torch.tensordot, LEFT, RIGHT, ([0, 2], [0, 1])),
        (torch.tensordot, LEFT, RIGHT, ([-1, 0], [1, -3])),
        (torch.tensordot, LEFT, data(5, 3), ([1], [1])),
        (F.linear, LEFT, data(5, 4)),
        (F.linear, data(4), data(5, 4)),
        (F.linear, LEFT, data(4)),
        (torch.addmm, fixed(3, 5), data(3, 4), data(4, 5)),
        (torch.addmv, fixed(3), data(3, 4), data(4)),
        (torch.addr, fixed(3, 5), data(3), data(5)),
        (torch.baddbmm, fixed(2, 3, 5), LEFT, RIGHT),
        (torch.addbmm, fixed(3, 5), LEFT, RIGHT),
        (torch.einsum, "bik,bkj->bij", LEFT, RIGHT),
        (torch.einsum, "bik,bkj->ji", LEFT, RIGHT),
        (torch.einsum, "bik,bkj", LEFT, RIGHT),
        (torch.einsum, "zik,zkj -> ", LEFT, RIGHT),
        (torch.einsum, "bik,bik->bik", LEFT, LEFT),
        (torch.einsum, "bik,b->bik", LEFT, data(2)),
        (torch.einsum, "i,j->ij", data(3), data(4)),
        (torch.einsum, "bik,k->bk", LEFT, data(4)),
        (torch.einsum, "...ik,...kj->...ij", data(3, 1, 2, 4), RIGHT),
        (torch.einsum, "...ik,kj->...j", LEFT, data(4, 5)),
        (torch.einsum, "i...,...j", LEFT, data(3, 4, 2)),
        (torch.einsum, "bik,bkj->bij", data(1, 3, 4), RIGHT),
        (torch.einsum, "bik,bkj->bij", data(2, 3, 1), RIGHT),
    ]
)
def test_a_product_is_the_sum_over_indices_that_torch_makes_of_it(make):
    made = make()
    assert made.entry.product is not None
    product = made.entry.product(made.call)
    assert isinstance(product, Product)
    names = [] if made.entry.carries == "*" else made.entry.carries.split()
    reflected = made.call.name == "rmatmul"
    assert product.operands == tuple(made.call.operands(*names)[:: -1 if reflected else 1])
    order = [made.nodes.index(node) for node in product.operands]
    a, b = (torch.randn(size, dtype=torch.float64) for size in made.sizes)
    ones = [torch.ones(size, dtype=torch.float64) for size in made.sizes]
    bias = made.run([torch.zeros_like(x) for x in ones])
    wanted = made.run([a, b]) - bias
    values = [(a, b)[i] for i in order]
    letters = {i: chr(97 + k) for k, i in enumerate(product.sizes)}

    def einsum(x: Tensor, y: Tensor, kept: Any) -> Tensor:
        terms = []
        for value, axes in ((x, product.axes[0]), (y, product.axes[1])):
            assert value.dim() == len(axes)
            long = [k for k, n in enumerate(value.shape) if n > 1 or product.sizes[axes[k]] == 1]
            gone = tuple(k for k in range(value.dim()) if k not in long)
            terms.append(("".join(letters[axes[k]] for k in long), value.squeeze(gone)))
        (s, left), (t, right) = terms
        lone = "".join(letters[i] for i in kept if letters[i] not in s + t)
        assert not lone
        return torch.einsum(f"{s},{t}->{''.join(letters[i] for i in kept)}", left, right)

    # Order and extent of what is kept are the output's.
    torch.testing.assert_close(einsum(*values, product.kept), wanted)
    counts = made.run(ones) - bias
    assert product.terms == float(counts.sum())
    assert product.contracted == float(counts.max())
    large = any(x.numel() == counts.numel() for x in (a, b))
    if 1 not in product.sizes.values():
        assert product.elementwise == (product.contracted == 1 and large)
    # Summed over the axes that the other operand does not see, they give the same in all.
    shared = [product.shared(k) for k in (0, 1)]
    small = [
        value.sum([k for k in range(value.dim()) if k not in seen], keepdim=True)
        if value.dim() > len(seen)
        else value
        for value, seen in zip(values, shared, strict=True)
    ]
    torch.testing.assert_close(product.pairs(small[0], small[1]), wanted.sum())
    for which in (0, 1):
        axes, other = product.axes[which], product.axes[1 - which]
        long = [
            k
            for k, i in enumerate(axes)
            if i in other
            and values[which].shape[k] > 1
            and values[1 - which].shape[other.index(i)] > 1
        ]
        assert shared[which] == long
    for index in product.kept:
        rest = [i for i in product.sizes if i == index]
        one = einsum(*values, rest)
        if product.sizes[index] > 1:
            missing = []
            for k in (0, 1):
                seen = [product.axes[k][j] for j in shared[k]]
                gone = [j for j, i in enumerate(product.axes[k]) if i not in seen and i != index]
                missing.append(values[k].sum(gone, keepdim=True) if gone else values[k])
            torch.testing.assert_close(product.pairs(*missing, by=[index]), one)
    # As a synapse of either operand.
    for which in (0, 1):
        rule = product.synapse(which, True, "product")
        node, weight = product.operands[which], product.operands[1 - which]
        mask = (torch.rand(values[1 - which].shape) < 0.5).double()
        calls = SynapseCall(made.call, rule, node, weight)
        x = torch.zeros(values[which].shape, dtype=torch.float64, requires_grad=True)
        for given, held_by in ((None, torch.ones_like(mask)), (mask, mask)):
            pair = [x, held_by] if which == 0 else [held_by, x]
            y = einsum(*pair, product.kept).sum()
            (slope,) = torch.autograd.grad(y, x, allow_unused=True)
            slope = torch.zeros_like(x) if slope is None else slope
            assert torch.equal(calls.fanout(given).expand(x.shape), slope)
            sparse = replace(calls, stored=mask)  # of which some are stored
            if given is None:
                assert torch.equal(
                    sparse.fanout(weight=torch.ones_like(mask)).expand(x.shape), slope
                )
            else:
                assert torch.equal(sparse.fanout().expand(x.shape), slope)
        each = product.terms / x.numel()
        assert rule.nominal(made.call) == each
        assert product.synapse(which, False, "product").nominal(made.call) is None
        assert (rule.kind, product.synapse(which, False, "product").kind) == ("linear", "product")


@named(
    [
        (torch.einsum, "ii,ij->j", data(3, 3), data(3, 4)),
        (torch.einsum, "ij,jj->i", data(3, 4), data(4, 4)),
        (torch.einsum, "ij,jk,kl->il", data(2, 3), data(3, 4), data(4, 2)),
        (torch.einsum, "ij->i", data(2, 3)),
    ]
)
def test_an_index_that_comes_twice_and_three_operands_are_no_product_of_two(make):
    made = make()
    assert made.entry.product(made.call) is None


@pytest.mark.parametrize(
    "equation",
    [
        "bi,ij,jk->bk",
        "bi,ij,jk",
        "b i , i j, j k -> k b",
        "bi,ij,ik->bjk",
        "bi,ij,ij->b",
        "bi,j,k->b",
    ],
)
def test_weights_of_an_einsum_are_multiplied_first(equation):
    sizes = dict(zip("bijk", (2, 3, 4, 5), strict=True))
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    operands = [torch.randn([sizes[i] for i in term]) for term in terms]
    x = operands[0]
    meaning = operations.by_name["einsum"].meaning
    wanted = torch.einsum(equation, *operands)
    for given in (tuple(operands), (operands,)):
        got = meaning(lambda value: value is x, args=(equation, *given))
        torch.testing.assert_close(got, wanted)
    assert meaning(lambda value: value is x, args=("bi,ij->bj", *operands[:2])) is None
    assert meaning(lambda value: False, args=(equation, *operands)) is None
    assert meaning(lambda value: value is not x, args=(equation, *operands)) is None
    assert meaning(lambda value: value is x, args=("...i,ij,jk", *operands)) is None


# -- products that are written out -----------------------------------------------------------------


class WrittenOut(torch.nn.Module):
    def __init__(self, f: Callable[..., Tensor], weight: Tensor) -> None:
        super().__init__()
        self.f, self.weight = f, torch.nn.Parameter(weight)

    def forward(self, s: Tensor) -> Tensor:
        return self.f(s, self.weight)


def some_zeros(*size: int) -> Tensor:
    weight = fixed(*size, seed=3)
    weight.view(-1)[::3] = 0
    return weight


@pytest.mark.parametrize("weights", ["all", "nonzero"])
@pytest.mark.parametrize(
    ("f", "events", "size", "equation"),
    [
        (lambda s, w: (s[:, None] * w).sum(-1), (2, 4), (3, 4), "bi,oi->bo"),
        (lambda s, w: (w * s.unsqueeze(1)).sum(2), (2, 4), (3, 4), "bi,oi->bo"),
        (lambda s, w: (s[:, :, None] * w).sum(1), (2, 4), (4, 3), "bi,io->bo"),
        (lambda s, w: torch.mul(s[:, None], w).mean(-1), (2, 4), (3, 4), "bi,oi->bo"),
        (lambda s, w: 0.5 * (s[:, None] * w).sum(-1), (2, 4), (3, 4), "bi,oi->bo"),
        (lambda s, w: (2 * (s[:, None] * w)).sum(-1), (2, 4), (3, 4), "bi,oi->bo"),
        (lambda s, w: (s[:, None] * w / 4).sum(-1), (2, 4), (3, 4), "bi,oi->bo"),
        (lambda s, w: (s[:, None] * w).clone().sum(-1), (2, 4), (3, 4), "bi,oi->bo"),
        (lambda s, w: (s[:, None] * w).flatten(2).sum(-1), (2, 2, 3), (5, 2, 3), "bij,oij->bo"),
        (lambda s, w: (s[:, None] * w).sum((-2, -1)), (2, 2, 3), (5, 2, 3), "bij,oij->bo"),
        (
            lambda s, w: (s[:, None] * w).reshape(2, 5, 6).sum(-1, keepdim=True),
            (2, 2, 3),
            (5, 2, 3),
            "bij,oij->bo",
        ),
        (
            lambda s, w: (s[:, None] * w).unflatten(-1, (2, 2)).sum((-1, -2)),
            (2, 4),
            (3, 4),
            "bi,oi->bo",
        ),
        (
            lambda s, w: (s[:, None] * w).unsqueeze(0).sum(-1).squeeze(0),
            (2, 4),
            (3, 4),
            "bi,oi->bo",
        ),
        (lambda s, w: (s[:, None] * w).view(2, 1, 3, 4).sum(3), (2, 4), (3, 4), "bi,oi->bo"),
        (lambda s, w: (s[:, :, None] * w).sum(-1), (2, 3, 4), (3, 5, 4), "bci,coi->bco"),
        (lambda s, w: (s * w).sum(-1), (2, 3, 4), (3, 4), "boi,oi->bo"),
        (lambda s, w: (s * w).sum((1, 2)), (2, 3, 4), (3, 4), "boi,oi->b"),
        (lambda s, w: (s * w).sum(1), (2, 4), (4,), "bi,i->b"),
    ],
)
def test_a_product_and_a_sum_are_a_synapse(f, events, size, equation, weights):
    weight = some_zeros(*size)
    generator = torch.Generator().manual_seed(0)
    s = torch.randint(3, events, generator=generator).float()
    used = (weight != 0).float() if weights == "nonzero" else torch.ones_like(weight)
    wanted = torch.einsum(equation, s, used).sum()
    counter = fxsynops.SynOpsCounter(WrittenOut(f, weight), s, weights=weights, audit=False)
    counter(s)
    assert float(counter.synops.detach()) == float(wanted) > 0


@pytest.mark.parametrize("seed", range(8))
def test_axes_that_are_summed_are_found_behind_any_reshape(seed):
    draw = random.Random(seed)
    for _ in range(40):
        primes = [draw.choice([2, 3]) for _ in range(draw.randint(1, 4))]

        def shaped(primes=primes) -> tuple[int, ...]:
            size, left = [], list(primes)
            while left:
                take = draw.randint(1, min(2, len(left)))
                size.append(math.prod(left[:take]))
                left = left[take:]
                if draw.random() < 0.2:
                    size.append(1)
            return tuple(size)

        before, after = shaped(), shaped()
        reduced = {k for k in range(len(after)) if draw.random() < 0.5}
        x = torch.randn(before, dtype=torch.float64)
        y = x.reshape(after).sum(sorted(reduced)) if reduced else x.reshape(after)
        found = _axes_behind(before, after, reduced)

        def gives(axes: Any, x=x, y=y) -> bool:
            z = (x.sum(sorted(axes)) if axes else x).flatten()
            return z.shape == y.flatten().shape and torch.allclose(z, y.flatten())

        if found is not None:
            assert gives(found), (before, after, reduced)
        else:
            axes = range(len(before))
            every = chain(*(combinations(axes, k) for k in range(len(before) + 1)))
            assert not any(map(gives, every)), (before, after, reduced)


# -- sums in which something cancels ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(14))
def test_what_is_left_of_any_sum_in_which_the_analog_part_cancels_are_events(seed):
    """A random expression of events s, t and an analog h, with what it adds up beside it."""
    draw = random.Random(seed)

    def expression(depth: int) -> tuple[str, tuple[float, ...]]:
        if not depth or draw.random() < 0.15:
            k = draw.randrange(3)
            return "sth"[k], tuple(float(i == k) for i in range(3))
        one, a = expression(depth - 1)
        kind = draw.choice(["-", "+", "-", "neg", "twice", "half", "rsub", "alpha", "copy"])
        if kind == "neg":
            return f"(-{one})", tuple(-v for v in a)
        if kind == "twice":
            return f"(2 * {one})", tuple(2 * v for v in a)
        if kind == "half":
            return f"({one} / 0.5)", tuple(2 * v for v in a)
        if kind == "copy":
            return f"{one}.clone().detach()", a
        two, b = expression(depth - 1)
        if kind == "rsub":
            return f"torch.rsub({one}, {two})", tuple(w - v for v, w in zip(a, b, strict=True))
        if kind == "alpha":
            sums = tuple(v - 3 * w for v, w in zip(a, b, strict=True))
            return f"torch.sub({one}, {two}, alpha=3)", sums
        sign = 1 if kind == "+" else -1
        return f"({one} {kind} {two})", tuple(v + sign * w for v, w in zip(a, b, strict=True))

    torch.manual_seed(seed)
    s, t = torch.randint(3, (4, 5)).float(), torch.randint(2, (4, 5)).float()
    h = torch.randn(4, 5)
    tried = 0
    while tried < 3:
        code, parts = expression(3)
        if not 1 <= abs(parts[2]) <= 9 or "h" not in code:
            continue
        code = f"{code} + {-parts[2]} * h"
        if not any(parts[:2]):
            continue
        tried += 1
        f = eval(f"lambda s, t, h: {code}", {"torch": torch})

        class Net(torch.nn.Module):
            def __init__(self, f=f):
                super().__init__()
                self.f, self.fc = f, torch.nn.Linear(5, 2)

            def forward(self, s, t, h):
                return self.fc(self.f(s, t, h))

        options = {"input_events": [True, True, False], "audit": False}
        counter = fxsynops.SynOpsCounter(Net(), (s, t, h), **options)
        counter(s, t, h)
        wanted = 2 * (abs(parts[0]) * s + abs(parts[1]) * t).sum()
        assert float(counter.per_synapse["fc"].detach()) == float(wanted), code


# -- calls -----------------------------------------------------------------------------------------


def wrote(target: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether torch changes the first argument of a call."""
    before = args[0].clone()
    target(*args, **kwargs)
    return not torch.equal(before, args[0])


def own(x: Tensor, inplace: bool = False) -> Tensor:
    return x.mul_(3) if inplace else x * 3


def beside(x: Tensor, y: float, inplace: bool = False) -> Tensor:
    return x.mul_(y) if inplace else x * y


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (torch.add, (1.0,), {}),
        (Tensor.add, (1.0,), {}),
        (Tensor.add_, (1.0,), {}),
        (Tensor.__iadd__, (1.0,), {}),
        (Tensor.__add__, (1.0,), {}),
        (Tensor.__isub__, (1.0,), {}),
        (Tensor.__imul__, (2.0,), {}),
        (Tensor.__setitem__, (0, 5.0), {}),
        (Tensor.__getitem__, (0,), {}),
        (Tensor.__neg__, (), {}),
        (Tensor.neg_, (), {}),
        (torch.relu, (), {}),
        (torch.relu_, (), {}),
        (setitem, (0, 5.0), {}),
        (F.relu, (), {}),
        (F.relu, (), {"inplace": True}),
        (F.relu, (), {"inplace": False}),
        (F.relu, (True,), {}),
        (F.relu, (False,), {}),
        (F.elu, (1.0, True), {}),
        (F.elu, (1.0, False), {}),
        (F.elu, (1.0,), {"inplace": True}),
        (F.dropout, (0.9, True, True), {}),
        (F.dropout, (0.9, True, False), {}),
        (F.leaky_relu, (0.3, True), {}),
        (F.leaky_relu, (0.3,), {}),
        (F.hardtanh, (-0.1, 0.1, True), {}),
        (F.threshold, (0.1, 20.0, True), {}),
        (F.threshold, (0.1, 20.0), {}),
        (own, (True,), {}),
        (own, (False,), {}),
        (own, (), {}),
        (own, (), {"inplace": True}),
        (beside, (2.0, True), {}),
        (beside, (2.0, False), {}),
        (beside, (True,), {}),
        (aten.add_.Tensor, (torch.ones(4),), {}),
        (aten.add.Tensor, (torch.ones(4),), {}),
        (aten.relu_.default, (), {}),
        (aten.relu.default, (), {}),
        (Tensor.copy_, (torch.ones(4),), {}),
        (Tensor.clone, (), {}),
        (Tensor.zero_, (), {}),
        (Tensor.fill_, (7.0,), {}),
    ],
)
def test_calls_that_write_to_their_first_argument_are_known(target, args, kwargs):
    x = torch.tensor([-1.0, -2, 3, 4])
    graph = fx.Graph()
    node = graph.call_function(target, (graph.placeholder("x"), *args), kwargs)
    assert writes_in_place(node) == wrote(target, x, *args, **kwargs)


def test_a_bool_turned_around_is_no_write():
    graph = fx.Graph()
    node = graph.call_function(Tensor.__invert__, (graph.placeholder("x"),))
    assert not writes_in_place(node)


def test_a_call_made_again_leaves_its_operands_alone():
    out = torch.zeros(3, 4)
    made = Made(torch.add, X, Y, out=out)
    a, b = torch.full((3, 4), 2.0), torch.full((3, 4), 3.0)
    known = dict(zip(made.nodes, (a, b), strict=False))
    y = made.call.again(lambda n: known.get(n, out))
    assert y is not out
    assert not out.any()
    assert torch.equal(y, torch.full((3, 4), 5.0))
    assert [n.name for n in made.call.operands()] == ["x0", "x1"]
    made = Made(Tensor.mul_, X, 3.0)
    assert torch.equal(made.call.again(lambda n: a), 3 * torch.full((3, 4), 2.0))
    assert torch.equal(a, torch.full((3, 4), 2.0))
    made = Made(torch.sum, X, 0, dtype=torch.float64)
    assert made.call.again(lambda n: a).dtype == torch.float64
    assert made.call.again(lambda n: a, leave_out=("dtype",)).dtype == torch.float32
    made = Made(Tensor.view, X, 12)
    assert torch.equal(made.call.again(lambda n: a.t().t()), a.view(12))
    lying = torch.arange(12.0).reshape(4, 3).t()
    assert torch.equal(made.call.again(lambda n: lying), lying.reshape(12))


def test_arguments_are_had_by_name():
    made = Made(torch.sum, X, 1, keepdim=True)
    call = made.call
    assert (call["dim"], call["keepdim"], call.get("dtype"), call.get("p", 7)) in (
        (1, True, None, 7),
        ([1], True, None, 7),
    )
    assert call.given == {"input", "dim", "keepdim"}
    assert call.x is made.nodes[0]
    assert call.number("dim") == call["dim"]
    assert call.number(2.5) == 2.5
    assert call.number(None) is None
    made = Made(torch.where, torch.ones(3, 1) > 0, X, Y)
    assert call.understood
    assert made.call.operands("other", "input") == made.nodes[::-1]
    unknown = Call(call.node, torch.sum, "sum", (), {"colour": 1})
    assert not unknown.understood
    assert unknown.given == frozenset()
    assert unknown.get("dim", 3) == 3


class Strange(torch.nn.Module):
    def forward(self, a, b=2, *, c=3):
        return a


def test_arguments_of_modules_are_those_of_their_forward():
    node = fx.Graph().placeholder("x")
    call = Call(node, Strange, "", (1,), {"c": 5})
    assert (call.understood, call["a"], call["c"], call.get("b", 9)) == (True, 1, 5, 9)
    assert call.given == {"a", "c"}
    assert not Call(node, Strange, "", (1, 2, 3), {}).understood
    assert not Call(node, Strange, "", (), {"d": 5}).understood


ROUNDED = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@pytest.mark.parametrize("into", [*ROUNDED, *WHOLE, torch.bool, torch.complex64])
@pytest.mark.parametrize("dtype", [*ROUNDED, *WHOLE, torch.bool])
def test_a_cast_is_a_copy_unless_it_loses_fractions_or_counts(dtype, into):
    values = torch.tensor([0, 1, 2, 3, 100, 200, 300, 2**15, 2**16, 2**31, 2**40, 0.5])
    most = 1 if dtype == torch.bool else math.inf if dtype in ROUNDED else torch.iinfo(dtype).max
    values = values[(values <= most) & ((values % 1 == 0) | (dtype in ROUNDED))].double()
    kept = values.to(dtype).double()
    if into not in ROUNDED and into != torch.complex64:
        lost = not torch.equal(values.to(dtype).to(into).double(), kept)
    else:
        lost = False  # rounding is another matter
    entry = Made(Tensor.to, torch.zeros(3, dtype=dtype), into).entry
    assert entry.kind is (Kind.THRESHOLD if lost else Kind.ROUTING)
    assert entry.whole == lost


@pytest.mark.parametrize(
    ("f", "dtype", "kind"),
    [
        (torch.add, torch.bool, Kind.THRESHOLD),  # True + True is True
        (torch.add, torch.uint8, Kind.ROUTING),
        (torch.add, torch.float32, Kind.ROUTING),
        (torch.sub, torch.uint8, Kind.THRESHOLD),  # 0 - 1 is 255
        (torch.sub, torch.int8, Kind.ROUTING),
        (torch.sub, torch.float32, Kind.ROUTING),
        (torch.rsub, torch.uint8, Kind.THRESHOLD),
        (torch.rsub, torch.int16, Kind.ROUTING),
        (torch.cat, torch.bool, Kind.ROUTING),
        (torch.cat, torch.uint8, Kind.ROUTING),
    ],
)
def test_sums_of_whole_numbers_are_sums_unless_they_wrap(f, dtype, kind):
    x, y = torch.zeros(3, dtype=dtype), torch.zeros(3, dtype=dtype)
    made = Made(f, *(([x, y],) if f is torch.cat else (x, y)))
    assert made.entry.kind is kind
    if kind is Kind.THRESHOLD:
        assert made.entry.whole
        assert made.entry.range is None or dtype == torch.bool


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (torch.add, "add"),
        (Tensor.add_, "add"),
        (Tensor.__iadd__, "add"),
        (Tensor.__add__, "add"),
        (Tensor.__itruediv__, "div"),
        (Tensor.__truediv__, "div"),
        (Tensor.__rtruediv__, "rdiv"),
        (Tensor.__invert__, "bitwise_not"),
        (Tensor.__and__, "and"),
        (Tensor.__iand__, "and"),
        (Tensor.__getitem__, "getitem"),
        (Tensor.T.__get__, "get_T"),
        (Tensor.data.__get__, "get_data"),
        (Tensor.data.__set__, "set_data"),
        (aten.add.Tensor, "add"),
        (aten.add_, "add"),
        (aten.index_put_.default, "index_put"),
        (torch.linalg.vector_norm, "vector_norm"),
        (torch.relu_, "relu"),
        (torch.ops.quantized.linear, "quantized_linear"),
        (torch.ops.quantized.linear.default, "quantized_linear"),
        (torch.index_select, "index_select"),
        (3, ""),
    ],
)
def test_variants_of_an_operation_have_one_name(target, name):
    assert operation_name(target) == name


@pytest.mark.parametrize(
    ("target", "known"),
    [
        (torch.add, True),
        (F.relu, True),
        (Tensor.add, True),
        (Tensor.__add__, True),
        (Tensor.T.__get__, True),
        (aten.add.Tensor, True),
        (aten.add, True),
        (setitem, True),
        (own, False),
        (len, False),
        (math.sqrt, False),
        (3, False),
    ],
)
def test_only_torchs_own_functions_are_known_by_their_names(target, known):
    assert is_torch(target) == known
    if not known:
        assert operations.find(target, None, None) is None


def test_an_operation_cannot_be_registered_twice():
    with pytest.raises(ValueError, match="'add' is registered twice"):
        operations.add("add", Operation(Kind.ROUTING))


@pytest.mark.parametrize("find", [lambda: operations.find([], None, None)])
def test_what_has_no_hash_has_no_entry(find):
    assert find() is None


# -- linear forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_tensors_that_share_memory_are_written_as_memory_is(seed):
    draw = random.Random(seed)

    def geometry() -> tuple[tuple[int, ...], tuple[int, ...], int]:
        n = draw.randint(0, 3)
        size = tuple(draw.randint(1, 3) for _ in range(n))
        stride = [1] * n
        step = draw.randint(1, 2)
        for k in draw.sample(range(n), n):
            stride[k] = step
            step *= size[k] + draw.randint(0, 1)
        return size, tuple(stride), draw.randint(0, 5)

    for _ in range(20):
        ours, theirs = geometry(), geometry()
        memory = torch.zeros(200, dtype=torch.float64)
        a = torch.as_strided(memory, *ours)
        a.copy_(torch.randn(ours[0], dtype=torch.float64))
        alias = a.clone()
        written = torch.randn(theirs[0], dtype=torch.float64)
        torch.as_strided(memory, *theirs).copy_(written)
        assert torch.equal(overlay(alias, written, (ours, theirs)), a)


def test_a_part_is_set_in_a_copy():
    x = torch.arange(12.0).reshape(3, 4)
    for index, value in (
        ((slice(None), 1), torch.ones(3).int()),
        (0, 7.5),
        ((2, 2), torch.ones(())),
    ):
        wanted = x.double().clone()
        wanted[index] = value.double() if isinstance(value, Tensor) else value
        assert torch.equal(set_part(x, index, value), wanted)
    assert torch.equal(x, torch.arange(12.0).reshape(3, 4))


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 1, 2)])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_windows_are_summed_behind_any_number_of_axes(n, lead):
    x = torch.randn(*lead, *(5, 4, 3)[:n], dtype=torch.float64)
    geometries = (2, 1, 0, False), (3, 2, 1, True), (2, 2, 1, False), (3, 3, 0, True)
    for kernel, stride, padding, ceil in geometries:
        window = tuple((v,) * n for v in (kernel, stride, padding))
        got = sum_windows(x, n, (*window, ceil))
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
        inner = x.reshape(-1, 1, *x.shape[len(lead) :])
        wide = pool(torch.ones_like(inner), kernel, stride, padding, ceil)
        assert got.shape == (*lead, *wide.shape[2:])
        padded = F.pad(x, (padding, padding + 3 * stride) * n)
        for k in range(n):
            padded = padded.unfold(len(lead) + k, kernel, stride)
        wanted = padded.sum(tuple(range(-n, 0)))[(..., *(slice(m) for m in wide.shape[2:]))]
        torch.testing.assert_close(got, wanted)


# -- what is said in other operations --------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (torch.addcmul, (fixed(3), fixed(3, seed=1), fixed(3, seed=2)), {}),
        (torch.addcmul, (fixed(3), fixed(3, seed=1), fixed(3, seed=2)), {"value": 2.5}),
        (torch.addcdiv, (fixed(3), fixed(3, seed=1), fixed(3, seed=2)), {}),
        (torch.addcdiv, (fixed(3), fixed(3, seed=1), fixed(3, seed=2)), {"value": -2}),
        (torch.lerp, (fixed(3), fixed(3, seed=1), 0.3), {}),
        (torch.lerp, (fixed(3), fixed(3, seed=1), fixed(3, seed=2)), {}),
        (torch.diff, (fixed(4, 5),), {}),
        (torch.diff, (fixed(4, 5), 2), {"dim": 0}),
        (torch.diff, (fixed(4, 5), 3, 1), {}),
        (torch.diff, (fixed(4, 5),), {"prepend": fixed(4, 1, seed=1)}),
        (torch.diff, (fixed(4, 5), 1, 0, fixed(1, 5, seed=1), fixed(2, 5, seed=2)), {}),
        (torch.linalg.vecdot, (fixed(4, 5), fixed(4, 5, seed=1)), {}),
        (torch.linalg.vecdot, (fixed(4, 5), fixed(4, 5, seed=1)), {"dim": 0}),
    ],
)
def test_what_is_said_in_other_operations_is_the_same(target, args, kwargs):
    entry = operations.by_name[operation_name(target)]
    values = arguments(target, args, kwargs).values
    given = {n: v for n, v in values.items() if n != "out"}
    torch.testing.assert_close(entry.meaning(None, **given), target(*args, **kwargs))


# -- what an entry says of values ------------------------------------------------------------------

REAL = fixed(4, 6, seed=7) * 3


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (torch.bernoulli, (REAL.sigmoid(),), {}),
        (torch.poisson, (REAL.abs(),), {}),
        (torch.rand_like, (REAL,), {}),
        (torch.randint_like, (REAL, 9), {}),
        (Tensor.random_, (REAL,), {}),
        (Tensor.exponential_, (REAL,), {}),
        (torch.multinomial, (REAL.abs(), 3), {}),
        (F.dropout, (REAL, 0.5, True), {}),
        (F.dropout, (REAL, 0.5, False), {}),
        (F.dropout, (REAL,), {"training": False}),
        (F.alpha_dropout, (REAL, 0.5, True), {}),
        (F.alpha_dropout, (REAL, 0.5), {}),
        (F.feature_alpha_dropout, (REAL, 0.5, True), {}),
        (F.dropout1d, (REAL, 0.5, True), {}),
        (F.rrelu, (REAL, 0.1, 0.9, True), {}),
        (F.rrelu, (REAL, 0.1, 0.9, False), {}),
        (F.rrelu, (REAL,), {}),
        (F.gumbel_softmax, (REAL,), {}),
        (F.gumbel_softmax, (REAL,), {"hard": True, "dim": 0}),
        (F.scaled_dot_product_attention, (REAL, REAL, REAL), {"dropout_p": 0.5}),
        (F.scaled_dot_product_attention, (REAL, REAL, REAL), {}),
        (F.fractional_max_pool2d, (fixed(1, 1, 9, 9), 2), {"output_ratio": (0.6, 0.6)}),
        (F.softmax, (REAL, 0), {}),
        (torch.add, (REAL, REAL), {}),
        (F.max_pool1d, (REAL, 2), {}),
        (torch.relu, (REAL,), {}),
    ],
)
def test_what_comes_out_is_random_if_it_is_another_in_the_next_forward(target, args, kwargs):
    made = Made(target, *args, **kwargs)
    ys = []
    for seed in range(3):
        torch.manual_seed(seed)
        ys.append(target(*(a.clone() if isinstance(a, Tensor) else a for a in args), **kwargs))
    differs = not all(torch.equal(ys[0], y) for y in ys)
    assert made.entry.draws(made.call) == differs
    if made.entry.whole:
        assert all(torch.equal(y.round(), y) or made.entry.rounded for y in ys)
        if math.isfinite(made.entry.most):
            assert max(float(y.max()) for y in ys) == pytest.approx(made.entry.most)


@pytest.mark.parametrize(
    ("target", "args"),
    [
        (torch.relu, ()),
        (F.relu6, ()),
        (torch.clamp, (-1.0, 2.0)),
        (torch.clamp, (None, 2.0)),
        (torch.clamp, (-1.0,)),
        (torch.clip, (0.5, 2.0)),
        (torch.clamp_min, (-0.5,)),
        (torch.clamp_max, (0.5,)),
        (F.hardtanh, ()),
        (F.hardtanh, (-0.5, 2.0)),
    ],
)
def test_limits_are_those_of_what_comes_out(target, args):
    made = Made(target, REAL * 4, *args)
    y = target(REAL * 4, *args)
    x = REAL * 4
    lower, upper = (made.call.number(limit) for limit in (made.entry.lower, made.entry.upper))
    assert (float(y.min()) if float(y.min()) > float(x.min()) else None) == lower
    assert (float(y.max()) if float(y.max()) < float(x.max()) else None) == upper


@pytest.mark.parametrize(
    ("target", "args"),
    [
        (torch.abs, ()),
        (F.leaky_relu, ()),
        (F.leaky_relu, (0.3,)),
        (F.prelu, (torch.tensor([0.25]),)),
        (F.rrelu, (0.25, 0.25)),
    ],
)
def test_slopes_are_those_of_negative_values(target, args):
    made = Made(target, torch.tensor([-4.0]), *args)
    slopes = [made.call.number(slope) for slope in made.entry.slopes]
    slopes = [0.25 if isinstance(slope, fx.Node) else slope for slope in slopes]
    y = target(torch.tensor([-4.0]), *args)
    assert all(slope == pytest.approx(float(y) / -4) for slope in slopes)


@pytest.mark.parametrize(
    ("target", "args", "most"),
    [
        (torch.amax, (1,), 1),
        (torch.amin, (1,), -1),
        (torch.max, (), 1),
        (torch.min, (), -1),
        (F.max_pool1d, (2,), 1),
        (F.adaptive_max_pool1d, (2,), 1),
        (torch.median, (), 0),
        (F.avg_pool1d, (2,), 0),
    ],
)
def test_the_largest_or_smallest_is_picked(target, args, most):
    made = Made(target, REAL, *args)
    assert made.entry.picks == most
    y = target(REAL, *args)
    assert {1: float(y.max()) == float(REAL.max()), -1: float(y.min()) == float(REAL.min())}.get(
        most, True
    )


@pytest.mark.parametrize(
    ("target", "extreme"),
    [(torch.maximum, 1), (torch.fmax, 1), (torch.minimum, -1), (torch.fmin, -1), (torch.add, 0)],
)
def test_the_larger_or_smaller_of_two_is_known(target, extreme):
    assert Made(target, REAL, REAL).entry.extreme == extreme


@pytest.mark.parametrize("exponent", [2, 3.0, 1, 0.5, 0, -1, 2.5])
def test_only_whole_powers_of_events_are_events(exponent):
    gate = exponent in (1, 2, 3)
    entry = Made(torch.pow, X, exponent).entry
    assert (entry.kind, entry.powers) == ((Kind.GATE, True) if gate else (Kind.ANALOG, False))


@pytest.mark.parametrize("p", [0.0, 0.2, 0.75, 1.0])
@pytest.mark.parametrize("drop", [F.dropout, torch.feature_dropout, F.dropout2d])
def test_survivors_of_dropout_are_worth_what_torch_makes_of_them(drop, p):
    ones = torch.ones(1, 200, 1, 1)
    made = Made(drop, ones, p, True)
    y = drop(ones, p, True)
    assert made.entry.kind is Kind.GATE
    assert made.entry.masks
    factor = made.entry.scale(made.call).factor
    assert all(v == pytest.approx(factor) for v in y[y != 0].tolist())
    off = Made(drop, ones, p, False)
    assert off.entry.kind is Kind.ROUTING
    assert not off.entry.masks


def test_a_rounding_mode_makes_whole_numbers():
    for mode in ("floor", "trunc"):
        entry = Made(torch.div, X, 2.0, rounding_mode=mode).entry
        assert (entry.kind, entry.whole) == (Kind.THRESHOLD, True)
    assert Made(torch.div, X, 2.0).entry.kind is Kind.ROUTING
    assert Made(torch.div, X, 2.0, rounding_mode=None).entry.kind is Kind.ROUTING


@pytest.mark.parametrize(
    ("target", "args", "parts"),
    [
        (torch.add, (X, Y), (1, 1)),
        (torch.sub, (X, Y), (1, -1)),
        (torch.rsub, (X, Y), (-1, 1)),
        (torch.ops.prims.add.default, (X, Y), (1, 1)),
        (torch.ops.prims.sub.default, (X, Y), (1, -1)),
        (torch.neg, (X,), (-1,)),
        (torch.mul, (X, 2.5), (2.5,)),
        (torch.mul, (X, fixed(4)), None),
        (torch.mul, (X, Y), None),
        (torch.div, (X, 4.0), (0.25,)),
        (torch.div, (X, 0.0), None),
        (torch.div, (X, Y), None),
        (Tensor.clone, (X,), (1,)),
        (Tensor.detach, (X,), (1,)),
        (torch.as_tensor, (X,), (1,)),
    ],
)
def test_what_is_added_up_is_known(target, args, parts):
    made = Made(target, *args)
    terms = made.entry.terms(made.call) if made.entry.terms else []
    if parts is None:
        assert terms == []
        return
    assert terms == list(zip(parts, made.nodes, strict=True))
    alpha = {torch.add: 1, torch.sub: -1, torch.rsub: -1}.get(target)
    if alpha:
        scaled = Made(target, *args, alpha=3)
        found = {node: factor for factor, node in scaled.entry.terms(scaled.call)}
        last = 0 if target is torch.rsub else 1
        assert found[scaled.nodes[last]] == 3 * alpha
        assert found[scaled.nodes[1 - last]] == 1
    assert made.entry.is_copy(made.call) == (target in (Tensor.clone, Tensor.detach))


def test_a_number_times_a_tensor_is_the_same_in_either_order():
    node = fx.Graph().placeholder("x")
    node.meta["spec"] = TensorSpec(torch.Size((3,)), torch.float32)
    entry = operations.by_name["mul"]
    for args in ((2.5, node), (node, 2.5)):
        assert entry.terms(Call(node, torch.mul, "mul", args, {})) == [(2.5, node)]


# -- the arguments of calls ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "args", "kwargs", "wanted", "given"),
    [
        (torch.sum, (X,), {}, {}, {"input"}),
        (torch.sum, (X, 1), {}, {"dim": 1}, {"input", "dim"}),
        (
            torch.sum,
            (X,),
            {"axis": 1, "keepdims": True},
            {"dim": 1, "keepdim": True},
            {"input", "dim", "keepdim"},
        ),
        (Tensor.sum, (X, 0, 1), {}, None, None),
        (Tensor.permute, (CUBE, 2, 0, 1), {}, {"dims": (2, 0, 1)}, {"input", "dims"}),
        (Tensor.permute, (CUBE, (2, 0, 1)), {}, {"dims": (2, 0, 1)}, {"input", "dims"}),
        (Tensor.flip, (CUBE, 0, 1), {}, {"dims": (0, 1)}, {"input", "dims"}),
        (Tensor.view, (X, 12), {}, {"size": (12,)}, {"input", "size"}),
        (Tensor.view, (X, 3, 4), {}, {"size": (3, 4)}, {"input", "size"}),
        (Tensor.repeat, (X, 2, 1), {}, {"repeats": (2, 1)}, {"input", "repeats"}),
        (torch.add, (X, Y), {"alpha": 1}, {"alpha": 1}, {"input", "other"}),
        (torch.add, (X, Y), {"alpha": 2}, {"alpha": 2}, {"input", "other", "alpha"}),
        (torch.add, (X, 2), {}, {"other": 2}, {"input", "other"}),
        (torch.add, (X,), {}, None, None),
        (torch.add, (X, Y), {"colour": 2}, None, None),
        (torch.add, (X, Y), {"other": Y}, None, None),
        (torch.relu, (X, Y), {}, None, None),
        (torch.div, (X, 2), {}, {"other": 2}, {"input", "other"}),
        (
            torch.div,
            (X, 2),
            {"rounding_mode": "floor"},
            {"rounding_mode": "floor"},
            {"input", "other", "rounding_mode"},
        ),
        (
            torch.avg_pool1d,
            (X, 2),
            {},
            {"kernel_size": 2, "ceil_mode": False},
            {"input", "kernel_size"},
        ),
        (torch.avg_pool1d, (X, 2, 2, 0), {}, {"padding": 0}, {"input", "kernel_size", "stride"}),
        (torch.avg_pool1d, (X, 2, None), {}, {"stride": None}, {"input", "kernel_size", "stride"}),
        (torch.sum, (X, "a"), {}, None, None),
        (
            torch.conv1d,
            (X, Y, None, 1, "same"),
            {},
            {"padding": "same"},
            {"input", "weight", "padding"},
        ),
        (torch.conv1d, (X, Y, None, (1,), (0,)), {}, {"bias": None}, {"input", "weight"}),
        (F.dropout, (X,), {}, {"p": 0.5, "training": True}, {"input"}),
        (F.dropout, (X, 0.5), {"training": True}, {"p": 0.5}, {"input"}),
        (F.dropout, (X, 0.1), {}, {"p": 0.1}, {"input", "p"}),
        (
            F.max_pool1d,
            (X, 2),
            {"return_indices": True},
            {"return_indices": True},
            {"input", "kernel_size", "return_indices"},
        ),
        (torch.transpose, (X, 0, 1), {}, {"dim0": 0, "dim1": 1}, {"input", "dim0", "dim1"}),
        (
            torch.swapaxes,
            (X,),
            {"axis0": 0, "axis1": 1},
            {"dim0": 0, "dim1": 1},
            {"input", "dim0", "dim1"},
        ),
        (torch.split, (X, 2), {}, {"split_size": 2, "dim": 0}, {"input", "split_size"}),
        (torch.tensor_split, (X, (1, 2)), {}, {"input": X}, None),
        (torch.reshape, (X,), {"shape": (12,)}, {"size": (12,)}, {"input", "size"}),
        (torch.zeros_like, (X,), {"requires_grad": True}, {}, None),
        (torch.where, (X, 1.0, Y), {}, {"other": Y}, {"condition", "input", "other"}),
        (Tensor.to, (X, torch.float64), {}, {"dtype": torch.float64}, {"input", "dtype"}),
        (Tensor.to, (X, "cpu", torch.float64), {}, {"device": "cpu"}, None),
        (Tensor.type, (X, torch.float64), {}, {"dtype": torch.float64}, {"input", "dtype"}),
        (Tensor.float, (X,), {}, {"memory_format": None}, {"input"}),
        (Tensor.__getitem__, (X, 1), {}, {"index": 1}, {"input", "index"}),
        (
            aten.sum.dim_IntList,
            (X, [1], True),
            {},
            {"dim": [1], "keepdim": True},
            {"input", "dim", "keepdim"},
        ),
        (aten.add, (X, Y), {}, {"alpha": 1}, {"input", "other"}),
        (torch.clamp, (X,), {"min": 0}, {"min": 0, "max": None}, {"input", "min"}),
        (torch.clamp, (X,), {"min": ONE}, {"min": ONE}, {"input", "min"}),
        (torch.einsum, ("ij->i", X), {}, {"args": ("ij->i", X)}, {"args"}),
        (torch.max, (X, 1), {"out": (X, Y)}, {"dim": 1}, {"input", "dim"}),
    ],
)
def test_arguments_are_those_that_torch_understands(target, args, kwargs, wanted, given):
    found = arguments(target, args, kwargs)
    if wanted is None:
        assert found is None
        with pytest.raises((TypeError, RuntimeError, IndexError)):
            target(*args, **kwargs)
        return
    assert found is not None
    for name, value in wanted.items():
        assert found.values[name] is value or found.values[name] == value
    if given is not None:
        assert found.given == given
