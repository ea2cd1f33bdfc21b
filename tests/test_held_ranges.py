"""What can come out of an operation, held against what does come out of what can come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.bounds.ranges import Ranges
from fxsynops.operations.value_range import Range


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


W, V = drawn(3, 4, seed=1), drawn(4, seed=2)
POSITIVE, SQUARE = W.abs(), drawn(4, 4, seed=3)
KERNEL, KERNELS = drawn(3, 2, 2, seed=4), drawn(3, 2, 2, 3, seed=5)
INDEX = torch.tensor([0, 2, 2])


class Drives(nn.Module):
    """Neurons behind a function of the inputs."""

    def __init__(self, f: Callable[..., Any], *xs: Tensor, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.f, self.norm = f, norm
        size = f(self, *xs).shape[-1]
        self.neuron, self.fc = fnn.NeuromorphicReLU(), nn.Linear(size, 1)

    def forward(self, *xs: Tensor) -> Tensor:
        return self.fc(self.neuron(self.f(self, *xs)))


class Found:
    """The ranges of a function's output, given those of its inputs."""

    def __init__(self, f: Callable[..., Any], *xs: Tensor, norm: nn.Module | None = None) -> None:
        model = Drives(f, *xs, norm=norm).to(xs[0].dtype).eval()
        self.run = lambda *values: model.f(model, *values).detach().double()
        self.analysis = fxsynops.analyze(
            model, xs, layout="", input_events=False, audit=False, strict=False
        )
        graph = self.analysis.trace.graph
        self.inputs = [n for n in graph.nodes if n.op == "placeholder"]
        neuron = next(n for n in graph.nodes if n.op == "call_module" and "neuron" in n.target)
        self.node = neuron.all_input_nodes[0]
        self.steps: Ranges | None = None

    def range(self, *given: Range) -> Range:
        """Per step the first time it is asked, in totals the second time."""
        known = dict(zip(self.inputs, given, strict=True))
        ranges = Ranges(self.analysis, lambda node, role: known.get(node), self.steps)
        ranges.run(
            self.analysis.trace.graph.nodes if not self.steps else ranges.before([self.node]),
            frozenset([self.node]),
        )
        self.steps = self.steps or ranges
        value = ranges.operand(self.node)
        if value is None or isinstance(value, Range):
            return value
        return Range(torch.zeros_like(value), None, value)


def parts(value: Range) -> tuple[Tensor, Tensor, Tensor]:
    zeros = torch.zeros_like(value.up)
    return (
        value.up,
        zeros if value.down is None else value.down,
        zeros if value.center is None else value.center,
    )


SIGNS = ("from zero", "around zero", "above zero", "below zero", "of all kinds")


def box(size: tuple[int, ...], signs: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The least and the most of each element."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (0.25 + 2 * torch.rand(size, generator=generator, dtype=torch.float64) for _ in "ab")
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    made = {
        "from zero": (0 * low, high),
        "around zero": (-a, b),
        "above zero": (low, high),
        "below zero": (-high, -low),
    }
    if signs in made:
        return made[signs]
    which = torch.randint(4, size, generator=generator)
    lows, highs = (torch.stack([pair[i] for pair in made.values()]) for i in (0, 1))
    return lows.gather(0, which[None])[0], highs.gather(0, which[None])[0]


# -- what is linear (and constant): exactly what each element brings -------------------------------

L = (3, 4)


def written(x: Tensor, index: Any, value: Any) -> Tensor:
    y = x * 1
    y[index] = value
    return y


def through_a_view(x: Tensor, y: Tensor) -> Tensor:
    z = x * 1
    z[1].copy_(y[2])
    return z


def twice(x: Tensor, y: Tensor) -> Tensor:
    z = x.clone()
    z[:, 1:3] = y[:, :2]
    z[0] = -y[1]
    return z


LINEAR: dict[str, tuple[Callable[..., Any], int]] = {
    # copies, sums and scales
    "clone": (lambda m, x: x.clone().contiguous().detach(), 1),
    "add": (lambda m, x, y: x + y, 2),
    "add a multiple": (lambda m, x, y: torch.add(x, y, alpha=2.5), 2),
    "add a negative multiple": (lambda m, x, y: torch.add(x, y, alpha=-0.5), 2),
    "add one row": (lambda m, x, y: x + y[1], 2),
    "add a number": (lambda m, x: 1.5 + x, 1),
    "add a constant": (lambda m, x: x + W, 1),
    "add a row of constants": (lambda m, x: x - V, 1),
    "subtract": (lambda m, x, y: x - y, 2),
    "subtract a multiple": (lambda m, x, y: torch.sub(x, y, alpha=3), 2),
    "subtract a negative multiple": (lambda m, x, y: torch.sub(x, y, alpha=-2), 2),
    "subtract from": (lambda m, x: 2 - x, 1),
    "rsub": (lambda m, x, y: torch.rsub(x, y), 2),
    "rsub a multiple": (lambda m, x, y: torch.rsub(x, y, alpha=2), 2),
    "negative": (lambda m, x: -x, 1),
    "negative of negative": (lambda m, x, y: -(x - y), 2),
    "times a number": (lambda m, x: x * 2.5, 1),
    "times a negative number": (lambda m, x: -1.5 * x, 1),
    "times zero": (lambda m, x: x * 0, 1),
    "times constants": (lambda m, x: x * W, 1),
    "constants times": (lambda m, x: V * x, 1),
    "divide": (lambda m, x: x / 4, 1),
    "divide by a negative number": (lambda m, x: x / -0.5, 1),
    "divide by constants": (lambda m, x: torch.div(x, W), 1),
    # axes and parts
    "reshape": (lambda m, x: x.reshape(4, 3), 1),
    "flatten a view": (lambda m, x: x.t().reshape(2, 6).flatten(), 1),
    "view of a transpose": (lambda m, x: x.t().contiguous().view(6, 2), 1),
    "permute": (lambda m, x: x.unflatten(1, (2, 2)).permute(2, 0, 1), 1),
    "expand": (lambda m, x: x[:, None].expand(3, 2, 4), 1),
    "repeat": (lambda m, x: x.repeat(1, 2), 1),
    "repeat interleave": (lambda m, x: x.repeat_interleave(2, 0), 1),
    "cat": (lambda m, x, y: torch.cat([x, -y, W], 1), 2),
    "stack": (lambda m, x, y: torch.stack([x, y, -x], 1), 2),
    "hstack": (lambda m, x, y: torch.hstack([x[:, :1], y]), 2),
    "select": (lambda m, x: x[1], 1),
    "slice": (lambda m, x: x[1:, ::2], 1),
    "narrow": (lambda m, x: x.narrow(1, 1, 2), 1),
    "split": (lambda m, x: x.split([1, 3], 1)[1], 1),
    "chunk": (lambda m, x: torch.chunk(x, 2, 1)[1] - torch.chunk(x, 2, 1)[0], 1),
    "unbind": (lambda m, x: x.unbind(1)[2], 1),
    "index": (lambda m, x: x[:, INDEX], 1),
    "index select": (lambda m, x: x.index_select(0, INDEX), 1),
    "flip": (lambda m, x: x.flip(1), 1),
    "roll": (lambda m, x: x.roll(1, 1), 1),
    "tril": (lambda m, x: x.tril(), 1),
    "diagonal": (lambda m, x: x.diagonal(1), 1),
    "unfold": (lambda m, x: x.unfold(1, 2, 1), 1),
    "pad": (lambda m, x: F.pad(x, (1, 2)), 1),
    "pad with a value": (lambda m, x: F.pad(x, (1, 0, 0, 1), value=0.75), 1),
    "pad with a negative value": (lambda m, x: F.pad(x, (1, -1), value=-0.5), 1),
    "pad circularly": (lambda m, x: F.pad(x, (2, 1), "circular"), 1),
    "pad by reflection": (lambda m, x: F.pad(x, (2, 1), "reflect"), 1),
    "pad by replication": (lambda m, x: F.pad(x, (0, 2), "replicate"), 1),
    # writes
    "write": (lambda m, x, y: written(x, (slice(None), slice(1, 3)), y[:, 2:]), 2),
    "write a number": (lambda m, x: written(x, (0, slice(2)), 1.25), 1),
    "write at places": (lambda m, x, y: written(x, INDEX[:2], -y[:2]), 2),
    "write constants": (lambda m, x: written(x, 1, V), 1),
    "write into constants": (lambda m, x: written(W, (slice(None), 1), x[:, 0]), 1),
    "write in turn": (lambda m, x, y: twice(x, y), 2),
    "write through a view": (lambda m, x, y: through_a_view(x, y), 2),
    "copy": (lambda m, x, y: (x * 1).copy_(y), 2),
    "copy a row": (lambda m, x, y: (x * 1).copy_(-y[:1]), 2),
    "scatter a slice": (lambda m, x, y: torch.slice_scatter(x, y[:, :2], 1, 1, 3), 2),
    "scatter a selection": (lambda m, x, y: torch.select_scatter(x, -y[0], 0, 2), 2),
    # sums and windows
    "sum": (lambda m, x: x.sum(1), 1),
    "sum of all": (lambda m, x: x.sum().reshape(1), 1),
    "sum over several axes": (lambda m, x: x.unflatten(1, (2, 2)).sum((0, -1), keepdim=True), 1),
    "mean": (lambda m, x: x.mean(0, keepdim=True), 1),
    "cumsum": (lambda m, x: x.cumsum(1), 1),
    "average pool": (lambda m, x: F.avg_pool1d(x, 2, 1), 1),
    "padded average pool": (lambda m, x: F.avg_pool1d(x, 3, 2, 1), 1),
    "average pool without its padding": (
        lambda m, x: F.avg_pool2d(x[None, None], 2, 1, 1, count_include_pad=False)[0, 0],
        1,
    ),
    "average pool with a divisor": (
        lambda m, x: F.avg_pool2d(x[None, None], 2, ceil_mode=True, divisor_override=3)[0, 0],
        1,
    ),
    "norm pool": (lambda m, x: F.lp_pool1d(x[None], 1, 2, 1)[0], 1),
    "norm pool of parts": (lambda m, x: F.lp_pool1d(x[None], 1, 3, ceil_mode=True)[0], 1),
    "norm pool over two axes": (lambda m, x: F.lp_pool2d(x[None, None], 1, (2, 3), 1)[0, 0], 1),
    "norm pool over three axes": (
        lambda m, x: F.lp_pool3d(x[None, None, None], 1, (1, 2, 2))[0, 0],
        1,
    ),
    "adaptive average": (lambda m, x: F.adaptive_avg_pool1d(x[None], 3)[0], 1),
    "upsampling": (lambda m, x: F.interpolate(x[None], scale_factor=2.0)[0], 1),
    "linear upsampling": (lambda m, x: F.interpolate(x[None], 7, mode="linear")[0], 1),
    "fold": (lambda m, x: F.fold(x.reshape(1, 4, 3), (2, 4), 2)[0, 0], 1),
    # weights
    "linear": (lambda m, x: F.linear(x, W), 1),
    "linear with a bias": (lambda m, x: F.linear(x, SQUARE, V), 1),
    "linear with positive weights": (lambda m, x: F.linear(x, POSITIVE), 1),
    "matmul": (lambda m, x: x @ SQUARE, 1),
    "matmul from the left": (lambda m, x: W.t() @ x, 1),
    "matrix times vector": (lambda m, x: x.mv(V), 1),
    "vector times matrix": (lambda m, x: V[:3] @ x, 1),
    "addmm": (lambda m, x: torch.addmm(V, x, SQUARE), 1),
    "addmm of multiples": (lambda m, x: torch.addmm(V, x, SQUARE, beta=0.5, alpha=2), 1),
    "baddbmm": (lambda m, x: torch.baddbmm(V, x[None], SQUARE[None], alpha=3)[0], 1),
    "einsum": (lambda m, x: torch.einsum("bi,oi->bo", x, W), 1),
    "tensordot": (lambda m, x: torch.tensordot(x, W, ([0, 1], [0, 1])).reshape(1), 1),
    "outer": (lambda m, x: torch.outer(x[0], V), 1),
    "inner": (lambda m, x: torch.inner(x, W), 1),
    "conv1d": (lambda m, x: F.conv1d(x[None, :2], KERNEL, V[:3], padding=1)[0], 1),
    "grouped conv1d": (lambda m, x: F.conv1d(x[None, :2], KERNEL[:2, :1], None, 2, groups=2)[0], 1),
    "conv2d": (lambda m, x: F.conv2d(x.reshape(1, 2, 2, 3), KERNELS, V[:3], padding=1)[0], 1),
    "transposed conv1d": (
        lambda m, x: F.conv_transpose1d(x[None], KERNEL, V[:2], 2, output_padding=1)[0],
        1,
    ),
    "one weight for each": (
        lambda m, x: fxsynops.operations.synapses.one_to_one(x, W),
        1,
    ),
    # batch norm
    "batch norm": (lambda m, x: F.batch_norm(x, V, V.abs(), SQUARE[0], SQUARE[1], eps=0.3), 1),
    "batch norm without weights": (lambda m, x: F.batch_norm(x, V, V.abs(), eps=0.1), 1),
    "batch norm of images": (
        lambda m, x: F.batch_norm(x[None], V[:3], V[1:].abs(), W[:, 0], W[:, 1])[0],
        1,
    ),
    # nothing in eval mode
    "dropout": (lambda m, x: F.dropout(x, 0.7, training=False), 1),
    "alpha dropout": (lambda m, x: F.alpha_dropout(x, 0.7, training=False), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_function_varies_as_much_as_all_that_comes_in(name):
    f, n = LINEAR[name]
    found = Found(f, *(1 + drawn(*L, seed=i).abs() for i in range(n)))
    for signs in SIGNS:
        _hold_linear(found, n, signs)


def _hold_linear(found: Found, n: int, signs: str, size: tuple[int, ...] = L) -> None:
    found.steps = None
    given = [Range.between(*box(size, signs, seed=i)) for i in range(n)]
    at = tuple(1 + drawn(*size, seed=9 + i).abs() for i in range(n))
    rest = found.run(*(torch.zeros_like(x) for x in at))

    slopes = slopes_of(found, at)
    for totals in (False, True):
        got = found.range(*given)
        up, down, center = torch.zeros_like(rest), torch.zeros_like(rest), rest
        for slope, value in zip(slopes, given, strict=True):
            more, less = slope.clamp(min=0), (-slope).clamp(min=0)
            ups, downs, middle = (part.flatten() for part in parts(value))
            up = up + (more @ ups + less @ downs).reshape(rest.shape)
            down = down + (more @ downs + less @ ups).reshape(rest.shape)
            center = center + (slope @ middle).reshape(rest.shape)
        ours = parts(got)
        # Where nothing comes from may differ by a constant: what can be is the same.
        near = {"rtol": 1e-9, "atol": 1e-9}
        torch.testing.assert_close(ours[2] + ours[0], center + up, **near)
        torch.testing.assert_close(ours[2] - ours[1], center - down, **near)
        torch.testing.assert_close(ours[2], center, **near)
        torch.testing.assert_close(got.high, center + up, **near)
        torch.testing.assert_close(got.low, center - down, **near)
        if totals:
            torch.testing.assert_close(got.total, center.clamp(min=0) + up, **near)
            torch.testing.assert_close(got.total_down, down - center.clamp(max=0), **near)


def slopes_of(found: Found, at: tuple[Tensor, ...]) -> list[Tensor]:
    """The derivative of every output by every input, by differences: it is linear."""
    base = found.run(*at)
    slopes = []
    for i, x in enumerate(at):
        columns = []
        for k in range(x.numel()):
            moved = x.clone()
            moved.view(-1)[k] += 1
            columns.append((found.run(*at[:i], moved, *at[i + 1 :]) - base).flatten())
        slope = torch.stack(columns, 1)
        slopes.append(torch.where(slope.abs() < 1e-12, 0.0, slope))
    return slopes


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_a_module_of_batch_norm_varies_as_its_running_values_say(kind, affine):
    n = 3
    norm = kind(n, eps=0.25, affine=affine)
    norm.running_mean.copy_(W[:, 0])
    norm.running_var.copy_(W[:, 1].square())
    if affine:
        with torch.no_grad():
            norm.weight.copy_(W[:, 2])
            norm.bias.copy_(W[:, 3])
    size = (2, n) + (2,) * ({nn.BatchNorm1d: 0, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}[kind])
    found = Found(lambda m, x: m.norm(x), drawn(*size), norm=norm.double().eval())
    for signs in SIGNS:
        _hold_linear(found, 1, signs, size)


# -- what is not linear: what comes out, of corners and of what is between -------------------------

SIZE = (2, 3)


def candidates(lows: list[Tensor], highs: list[Tensor], many: int) -> list[list[Tensor]]:
    """Inputs in a box: corners, zeros, and what is between."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for k in range(many):
        xs = []
        for low, high in zip(lows, highs, strict=True):
            share = torch.rand(low.shape, generator=generator, dtype=torch.float64)
            corner = torch.where(share < 0.5, low, high)
            zero = torch.where(share < 0.3, torch.zeros(()).clamp(low, high), corner)
            xs.append((corner, corner, zero, low + share * (high - low))[k % 4])
        found.append(xs)
    return found


ODD = torch.tensor([[True, False, True], [False, True, False]])
LIMITS = torch.tensor([0.5, -0.5, 1.0], dtype=torch.float64)
COUNTS = POSITIVE[:2, :3]


def training_norm(m, x):
    return F.batch_norm(x, torch.zeros(3).double(), torch.ones(3).double(), training=True)


# Whether the range is exactly what can come out, per step.
NONLINEAR: dict[str, tuple[Callable[..., Any], int, bool]] = {
    "relu": (lambda m, x: F.relu(x), 1, True),
    "relu of a sum": (lambda m, x, y: F.relu(x - y), 2, True),
    "relu6": (lambda m, x: F.relu6(4 * x), 1, True),
    "clamp": (lambda m, x: x.clamp(-0.5, 1), 1, True),
    "clamp above zero": (lambda m, x: x.clamp(0.25, 1), 1, True),
    "clamp below zero": (lambda m, x: x.clamp(-1, -0.25), 1, True),
    "clamp by tensors": (lambda m, x: x.clamp(min=LIMITS - 1, max=LIMITS), 1, True),
    "clamp the least": (lambda m, x: x.clamp_min(0.5), 1, True),
    "clamp the most": (lambda m, x: x.clamp_max(-0.5), 1, True),
    "hardtanh": (lambda m, x: F.hardtanh(x, -0.25, 0.75), 1, True),
    "abs": (lambda m, x: x.abs(), 1, False),
    "tanh": (lambda m, x: x.tanh(), 1, True),
    "sigmoid": (lambda m, x: x.sigmoid(), 1, True),
    "sigmoid taken off": (lambda m, x: x.sigmoid() - 0.5, 1, True),
    "exp": (lambda m, x: x.exp(), 1, True),
    "expm1": (lambda m, x: torch.expm1(x), 1, True),
    "erf": (lambda m, x: torch.erf(x), 1, True),
    "floor": (lambda m, x: x.floor(), 1, True),
    "ceil": (lambda m, x: x.ceil(), 1, True),
    "round": (lambda m, x: (1.5 * x).round(), 1, True),
    "trunc": (lambda m, x: (1.5 * x).trunc(), 1, True),
    "sign": (lambda m, x: x.sign(), 1, True),
    "softmax": (lambda m, x: x.softmax(-1), 1, False),
    "hardsigmoid": (lambda m, x: F.hardsigmoid(x), 1, False),
    "whole numbers": (lambda m, x: (2 * x).long().double(), 1, False),
    "small whole numbers": (lambda m, x: (2 * x).to(torch.int8).double(), 1, False),
    "booleans": (lambda m, x: x.bool().double(), 1, False),
    "the larger": (lambda m, x, y: torch.maximum(x, y), 2, True),
    "the smaller": (lambda m, x, y: torch.minimum(x, y), 2, True),
    "the larger than a constant": (lambda m, x: torch.maximum(x, LIMITS), 1, True),
    "the smaller than a constant": (lambda m, x: torch.fmin(LIMITS, x), 1, True),
    "a choice": (lambda m, x, y: torch.where(ODD, x, y), 2, False),
    "a choice by data": (lambda m, x, y: torch.where(x > y, x, -y), 2, False),
    "a choice of a constant": (lambda m, x: torch.where(x > 0.7, x, LIMITS), 1, False),
    "the largest of a window": (lambda m, x: F.max_pool1d(x, 2, 1), 1, True),
    "the largest of a padded window": (lambda m, x: F.max_pool1d(x, 3, 2, 1), 1, True),
    "the largest of a part of a window": (
        lambda m, x: F.max_pool1d(x, 2, ceil_mode=True),
        1,
        True,
    ),
    "the largest of a dilated window": (lambda m, x: F.max_pool1d(x, 2, 1, dilation=2), 1, True),
    "the largest of a window of two axes": (
        lambda m, x: F.max_pool2d(x[None], (2, 1))[0],
        1,
        True,
    ),
    "the largest, and where": (
        lambda m, x: F.max_pool2d(x[None], (1, 2), 1, return_indices=True)[0][0],
        1,
        True,
    ),
    "a product": (lambda m, x, y: x * y, 2, False),
    "a product of matrices": (lambda m, x, y: x @ y.t(), 2, False),
    "a product of matrices and a sum": (
        lambda m, x, y: torch.baddbmm(COUNTS[:, :2], x[None], y.t()[None], alpha=2)[0],
        2,
        False,
    ),
    "a product of rectified values": (lambda m, x, y: F.relu(x) * F.relu(-y), 2, False),
    "a convolution with data": (lambda m, x, y: F.conv1d(x[None], y[None])[0], 2, False),
    "training dropout": (lambda m, x: F.dropout(x, 0.2), 1, False),
    "training dropout of all": (lambda m, x: F.dropout(x, 1.0), 1, False),
    "cubic upsampling": (
        lambda m, x: F.interpolate(x[None, None], (4, 6), mode="bicubic")[0, 0],
        1,
        False,
    ),
    "average with a negative divisor": (
        lambda m, x: F.avg_pool2d(x[None], 2, 1, divisor_override=-2)[0],
        1,
        False,
    ),
    "division by data": (lambda m, x, y: x / (y + 10), 2, False),
    "a sum with a tensor of multiples": (lambda m, x, y: x + y * LIMITS, 2, True),
    "training batch norm": (training_norm, 1, False),
    "a product with itself": (lambda m, x: x * x, 1, False),
    "subtracting with negative factors": (
        lambda m, x, y: torch.baddbmm(x[None], x[None], SQUARE[None, :3, :3], beta=-1)[0],
        2,
        False,
    ),
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_nothing_comes_out_of_a_range_and_no_more_is_said_than_can(name):
    f, n, exact = NONLINEAR[name]
    found = Found(f, *(1 + drawn(*SIZE, seed=i).abs() for i in range(n)))
    for signs in SIGNS:
        found.steps = None
        lows, highs = zip(*(box(SIZE, signs, seed=i) for i in range(n)), strict=True)
        given = [Range.between(low, high) for low, high in zip(lows, highs, strict=True)]
        xs = candidates(lows, highs, 120)
        ys = torch.stack([found.run(*values) for values in xs])
        got = found.range(*given)
        tiny = 1e-9
        assert bool((ys <= got.high + tiny).all()), signs
        assert bool((ys >= got.low - tiny).all()), signs
        assert bool((ys <= got.peak + tiny).all() and (-ys <= got.peak + tiny).all()), signs
        assert not got.positive or bool((ys >= 0).all()), signs
        if exact:
            near = {"rtol": 1e-9, "atol": 1e-9}
            torch.testing.assert_close(got.high, ys.amax(0), **near, msg=signs)
            torch.testing.assert_close(got.low, ys.amin(0), **near, msg=signs)
        # Over a window in which these come one after another, positive and negative deviations.
        means = []
        for i, value in enumerate(given):
            center = parts(value)[2]
            off = torch.stack([x[i] for x in xs]) - center
            up, down = off.clamp(min=0).mean(0), (-off).clamp(min=0).mean(0)
            means.append(Range(up, None if value.down is None else down, value.center))
        got = found.range(*means)
        off = ys - parts(got)[2]
        assert bool((off.clamp(min=0).mean(0) <= got.up + tiny).all()), signs
        assert bool(((-off).clamp(min=0).mean(0) <= parts(got)[1] + tiny).all()), signs
        assert bool((ys.clamp(min=0).mean(0) <= got.total + tiny).all()), signs
        assert bool(((-ys).clamp(min=0).mean(0) <= got.total_down + tiny).all()), signs
