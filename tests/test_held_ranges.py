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
        if totals:  # averages, which are less than the most
            given = [
                Range(v.up / 2, None if v.down is None else v.down / 4, v.center) for v in given
            ]
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


class Squares(nn.BatchNorm1d):
    """A norm whose forward does something else behind it."""

    def forward(self, x):
        return super().forward(x) ** 2


class Folds(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x).abs()


@pytest.mark.parametrize("kind", [Squares, Folds])
@pytest.mark.parametrize("signs", SIGNS)
def test_a_norm_that_does_something_else_is_not_taken_for_one(kind, signs):
    found = Found(lambda m, x: m.norm(x), drawn(*L), norm=kind(4).double().eval())
    low, high = box(L, signs)
    got = found.range(Range.between(low, high))
    for (x,) in candidates([low], [high], 40):
        y = found.run(x)
        assert bool((y <= got.high + 1e-9).all() and (y >= got.low - 1e-9).all())


@pytest.mark.parametrize("weight", [0.0, 1.5])
@pytest.mark.parametrize(("kept", "training"), [(True, True), (False, True), (False, False)])
def test_a_norm_by_the_batch_itself_can_put_out_what_any_batch_makes_it(kept, training, weight):
    norm = nn.BatchNorm1d(4, track_running_stats=kept)
    nn.init.constant_(norm.weight, weight)
    nn.init.constant_(norm.bias, 0.25)
    found = Found(lambda m, x: m.norm(x), drawn(*L), norm=norm.double().train(training))
    norm.train(training)
    low, high = box(L, "around zero")
    got = found.range(Range.between(low, high))
    for (x,) in candidates([low], [high], 20):
        y = found.run(x)
        assert bool((y <= got.high).all() and (y >= got.low).all())


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
        xs = candidates(lows, highs, 80)
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


# -- what is said where it is less than exact ------------------------------------------------------

Pair = tuple[Tensor, Tensor]


def larger(x: Pair) -> Tensor:
    return torch.maximum(x[0].abs(), x[1].abs())


def product_of(x: Pair, y: Pair, f: Callable[[Tensor, Tensor], Tensor]) -> Pair:
    """At most the product of the largest magnitudes, of either sign if there is one below zero."""
    most = f(larger(x), larger(y))
    signed = bool((x[0] < 0).any() or (y[0] < 0).any())
    return (-most if signed else torch.zeros_like(most)), most


SAID: dict[str, tuple[int, Callable[..., Pair]]] = {
    "abs": (1, lambda x: (torch.zeros_like(x[0]), larger(x))),
    "training dropout": (1, lambda x: (x[0].clamp(max=0) / 0.8, x[1].clamp(min=0) / 0.8)),
    "training dropout of all": (1, lambda x: (0 * x[0], 0 * x[0])),
    "softmax": (1, lambda x: (0 * x[0], 0 * x[0] + 1)),
    "hardsigmoid": (1, lambda x: (0 * x[0], 0 * x[0] + 1)),
    "booleans": (1, lambda x: (0 * x[0], 0 * x[0] + 1)),
    "whole numbers": (1, lambda x: (2 * x[0].clamp(max=0), 2 * x[1].clamp(min=0))),
    "a choice": (2, lambda x, y: (torch.minimum(x[0], y[0]), torch.maximum(x[1], y[1]))),
    "a choice by data": (2, lambda x, y: (torch.minimum(x[0], -y[1]), torch.maximum(x[1], -y[0]))),
    "a choice of a constant": (
        1,
        lambda x: (torch.minimum(x[0], LIMITS), torch.maximum(x[1], LIMITS)),
    ),
    "a product": (2, lambda x, y: product_of(x, y, torch.mul)),
    "a product of matrices": (2, lambda x, y: product_of(x, y, lambda a, b: a @ b.t())),
    "a convolution with data": (
        2,
        lambda x, y: product_of(x, y, lambda a, b: F.conv1d(a[None], b[None])[0]),
    ),
}
UNKNOWN = (
    "cubic upsampling",
    "average with a negative divisor",
    "division by data",
    "training batch norm",
    "a product with itself",
    "subtracting with negative factors",
)


@pytest.mark.parametrize("name", SAID)
def test_no_more_is_said_than_follows_from_magnitudes(name):
    f, n, _ = NONLINEAR[name]
    count, wanted = SAID[name]
    assert count == n
    found = Found(f, *(1 + drawn(*SIZE, seed=i).abs() for i in range(n)))
    for signs in SIGNS:
        found.steps = None
        boxes = [box(SIZE, signs, seed=i) for i in range(n)]
        got = found.range(*(Range.between(*one) for one in boxes))
        low, high = wanted(*boxes)
        near: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9, "msg": signs}
        torch.testing.assert_close(got.high, high, **near)
        torch.testing.assert_close(got.low, low, **near)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_has_no_rule_can_be_anything(name):
    f, n, _ = NONLINEAR[name]
    found = Found(f, *(1 + drawn(*SIZE, seed=i).abs() for i in range(n)))
    got = found.range(*(Range.between(*box(SIZE, "from zero")) for _ in range(n)))
    assert bool((got.high == torch.inf).all() and (got.low == -torch.inf).all())


def test_what_is_divided_by_zero_can_be_anything():
    found = Found(lambda m, x: x / torch.tensor([1.0, 0, 2]).double(), torch.ones(SIZE).double())
    got = found.range(Range.between(*box(SIZE, "above zero")))
    assert bool((got.high == torch.inf).all())


# -- rounding --------------------------------------------------------------------------------------
# The error of a sum of K terms is at most about K·u·Σ|terms| (Higham 2002); (f, K, what is added).


def magnitudes(f: Callable[..., Any], x: Tensor) -> Tensor:
    """The sum of the magnitudes of the terms of a linear function."""
    rest = f(None, torch.zeros_like(x))
    slopes = torch.autograd.functional.jacobian(lambda v: f(None, v) - rest, x)
    return (slopes.flatten(rest.dim()).abs() @ x.abs().flatten()) + rest.abs()


ROUNDED: dict[str, int] = {
    "times constants": 1,
    "divide": 1,
    "divide by constants": 1,
    "sum": 3,
    "sum of all": 11,
    "mean": 3,
    "cumsum": 3,
    "average pool": 2,
    "padded average pool": 3,
    "linear": 4,
    "linear with a bias": 5,
    "matmul": 4,
    "addmm": 5,
    "einsum": 4,
    "tensordot": 12,
    "conv1d": 5,
    "conv2d": 13,
    "fold": 2,
    "adaptive average": 2,
    "linear upsampling": 2,
}
UNIT = torch.finfo(torch.float64).eps / 2


@pytest.mark.parametrize("name", ROUNDED)
def test_a_sum_may_be_off_by_the_rounding_of_its_terms_and_by_little_more(name):
    f, k = LINEAR[name][0], ROUNDED[name]
    x = drawn(*L, seed=5)
    found = Found(f, x)
    got = found.range(Range(torch.zeros_like(x), None, x))
    size = magnitudes(f, x)
    up, down, _ = parts(got)
    for off in (up, down):
        some = size > 0
        assert bool((off >= k * UNIT * size)[some].all())
        assert bool((off <= 4 * (k + 8) * UNIT * size)[some].all())


def test_values_that_only_move_are_not_rounded():
    x = drawn(*L, seed=5)
    for name in ("roll", "repeat", "select", "pad circularly", "expand", "upsampling", "cat"):
        f, n = LINEAR[name]
        given = [Range(torch.zeros_like(x), None, x)] * n
        up, down, center = parts(Found(f, *[x] * n).range(*given))
        if name != "cat":  # whose second part is taken off
            assert not bool(up.any() or down.any())
        assert bool((up <= 16 * UNIT * center.abs()).all())


def test_large_numbers_that_cancel_in_a_window_leave_their_rounding():
    """Every three is rounded to four as long as 2**25 is in the sum."""
    n, steps = 2000, 10

    class Cancels(nn.Module):
        def __init__(self, f):
            super().__init__()
            self.f, self.fc1 = f, nn.Linear(1, n)
            self.neuron, self.fc = fnn.IAF(min_v_mem=0.0), nn.Linear(1, 1)
            with torch.no_grad():
                self.fc1.weight.zero_()
                self.fc1.bias.fill_(3)
                self.fc1.bias[0], self.fc1.bias[-1] = 2.0**25, -(2.0**25)

        def forward(self, x):
            return self.fc(self.neuron(self.f(self.fc1(x))))

    x = torch.ones(1, steps, 1)
    for f in (
        lambda y: y.sum(-1, keepdim=True),
        lambda y: y.cumsum(-1)[..., n - 1 :],
        lambda y: F.avg_pool1d(y, n) * n,
        lambda y: F.avg_pool2d(y[:, None], (1, n))[:, 0] * n,
        lambda y: F.lp_pool1d(y, 1, n),
    ):
        net = Cancels(f)
        counter = fxsynops.SynOpsCounter(net, x, layout="NT", audit=False)
        bound = counter.analysis.upper_bound()
        net.neuron.reset_states()
        counter(x)
        (charge,) = (row.charge for row in bound.rows if row.connection.synapse == "fc")
        assert float(counter.per_synapse["fc"].detach()) <= charge


# -- ranges themselves -----------------------------------------------------------------------------


@pytest.mark.parametrize("signs", SIGNS)
def test_a_range_between_two_values_ends_at_them(signs):
    low, high = box((5, 7), signs)
    value = Range.between(low, high)
    torch.testing.assert_close(value.low, low, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(value.high, high, rtol=1e-15, atol=1e-15)
    assert value.positive == (signs == "from zero")
    torch.testing.assert_close(value.peak, torch.maximum(low.abs(), high.abs()))
    torch.testing.assert_close(value.total, high.clamp(min=0))
    torch.testing.assert_close(value.total_down, (-low).clamp(min=0))
    _, _, center = parts(value)  # as close to zero as it can be
    assert torch.equal(center, torch.where(low > 0, low, high.clamp(max=0)))
    up, down, _ = parts(value)
    assert bool((up >= 0).all() and (down >= 0).all())


@pytest.mark.parametrize("signs", SIGNS)
def test_arithmetic_of_ranges_is_that_of_their_ends(signs):
    (low, high), (low2, high2) = box((4, 5), signs), box((4, 5), signs, seed=1)
    a, b = Range.between(low, high), Range.between(low2, high2)
    near = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close((-a).high, -low)
    torch.testing.assert_close((-a).low, -high)
    torch.testing.assert_close((a + b).high, high + high2, **near)
    torch.testing.assert_close((a + b).low, low + low2, **near)
    torch.testing.assert_close((a + -b).high, high - low2, **near)
    for factor in (drawn(4, 5), drawn(4, 5).abs(), -drawn(5).abs(), torch.zeros(4, 5).double()):
        ends = torch.stack([low * factor, high * factor])
        torch.testing.assert_close((a * factor).high, ends.amax(0), **near)
        torch.testing.assert_close((a * factor).low, ends.amin(0), **near)
    doubled = a.each(lambda x: 2 * x)
    torch.testing.assert_close(doubled.high, 2 * high)
    torch.testing.assert_close(doubled.low, 2 * low)


def test_what_is_not_known_is_not_a_number_nowhere():
    unknown = Range.unknown((2, 3))
    assert unknown.up.shape == (2, 3)
    for value in (unknown, -unknown, unknown + unknown, unknown * drawn(2, 3)):
        assert bool((value.high == torch.inf).all() and (value.low == -torch.inf).all())
    nothing = unknown * torch.zeros(2, 3).double()
    assert not bool(nothing.high.isnan().any() or nothing.low.isnan().any())
    half = Range.between(torch.tensor([-torch.inf, 1.0, 0.0]), torch.tensor([1.0, torch.inf, 2.0]))
    assert half.low.tolist() == [-torch.inf, 1, 0]
    assert half.high.tolist() == [1, torch.inf, 2]


def test_parts_of_a_range_are_as_large_as_it():
    value = Range(torch.ones(2, 3), torch.ones(1), torch.zeros(3))
    assert value.down is not None
    assert value.center is not None
    assert value.down.shape == value.center.shape == (2, 3)


def test_one_event_through_a_norm_brings_what_one_event_brings():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, eps=0.0)
            self.neuron, self.fc = fnn.IAF(min_v_mem=0.0), nn.Linear(1, 1)
            nn.init.ones_(self.fc1.weight)

        def forward(self, x):
            return self.fc(self.neuron(self.norm(self.fc1(x).mT).mT))

    x = torch.zeros(1, 20, 1)
    x[0, 3] = 1
    bound = fxsynops.analyze(Normed().eval(), x, layout="NT").upper_bound(input_max_events=1)
    assert [row.charge for row in bound.rows] == [1, 1]
