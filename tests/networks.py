"""Random networks that can be run for real, or with all synapses one (see ``tests.oracles``).

A network is a list of steps on numbered values. Each step knows two functions: what it does, and
what it does to *counts of events* when all weights are one, written down here independently of
fxsynops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops.nn as fnn


class Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + x.abs()) ** 2


class Threshold(nn.Module):
    """A spiking function called inside of a module that nobody has registered."""

    def forward(self, x):
        return Heaviside.apply(x)


class Compare(nn.Module):
    def forward(self, x):
        return (x > 0.5).to(x.dtype)


@dataclass
class Step:
    kind: str  # "synapse", "source", "gate", "routing"
    name: str
    run: Callable[..., Tensor]
    ones: Callable[..., Tensor]
    inputs: tuple[int, ...]
    scale: float = 1.0  # of a gate's output


class Network(nn.Module):
    """Runs its steps; all values are events, but those between a synapse and its neuron."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = [size]
        self.scales: list[float | None] = [1.0]

    def add(self, kind, run, ones, inputs, scale=1.0, name=None) -> int:
        if isinstance(run, nn.Module):
            name = name or f"layers.{len(self.layers)}"
            self.layers.append(run)
        step = Step(kind, name or f"step{len(self.steps)}", run, ones, inputs, scale or 1.0)
        self.steps.append(step)
        with torch.no_grad():
            x = [torch.zeros(1, *self.shapes[i]) for i in inputs]
            was, self.training = self.training, False
            self.shapes.append(tuple(run(*x).shape[1:]))
            self.training = was
        self.scales.append(scale)
        return len(self.shapes) - 1

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step in self.steps:
            values.append(step.run(*(values[i] for i in step.inputs)))
        return values[-1]


def conv_ones(conv: nn.Module) -> Callable[[Tensor], Tensor]:
    """A convolution or linear layer with all weights one and no bias, in float64."""

    def ones(x: Tensor) -> Tensor:
        weight = torch.ones_like(conv.weight, dtype=torch.float64)
        if isinstance(conv, nn.Linear):
            return F.linear(x, weight)
        n = conv.weight.dim() - 2
        if conv.transposed:
            f = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
            return f(
                x,
                weight,
                None,
                conv.stride,
                conv.padding,
                conv.output_padding,
                conv.groups,
                conv.dilation,
            )
        f = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
        if conv.padding_mode != "zeros":
            if conv.padding == "same":
                pads = []
                for k, d in zip(conv.kernel_size[::-1], conv.dilation[::-1], strict=True):
                    pads += [d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2]
            else:
                pads = [p for p in conv.padding[::-1] for _ in range(2)]
            x = F.pad(x, pads, conv.padding_mode)
            return f(x, weight, None, conv.stride, 0, conv.dilation, conv.groups)
        return f(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    return ones


def window_sums(pool: Callable[[Tensor], Tensor], n: int) -> Callable[[Tensor], Tensor]:
    """The sums of the windows that ``pool`` averages: an input counts where its weight is not 0."""

    def ones(x: Tensor) -> Tensor:
        size = x.shape[-n:]
        eye = torch.eye(size.numel(), dtype=torch.float64).reshape(-1, 1, *size)
        y = pool(eye)
        incidence = (y != 0).double().reshape(size.numel(), -1)
        return (x.flatten(-n) @ incidence).reshape(*x.shape[:-n], *y.shape[2:])

    return ones


class Builder:
    """Makes a random network from a source of choices.

    Args:
        choose: picks one of a list.
        dims: spatial dimensions.
        largest: extent of the input along each of them, at most; small if None.
    """

    def __init__(
        self, choose: Callable[[list[Any]], Any], dims: int, largest: int | None = None
    ) -> None:
        self.choose = choose
        self.n = dims
        limit = largest or {1: 9, 2: 6, 3: 4}[dims]
        size = tuple(choose(list(range(2, limit + 1))) for _ in range(dims))
        self.net = Network((choose([1, 2, 4]), *size))
        self.live = [0]  # values that are events, with spatial axes

    def build(self, depth: int) -> Network:
        for _ in range(depth):
            for _ in range(self.choose([0, 1, 2])):
                self.live.append(self.route(self.choose(self.live)))
            self.synapse_and_neuron(self.choose(self.live[-3:]))
        if self.choose([True, False]):
            self.readout(self.live[-1])
        return self.net

    # -- pieces ----------------------------------------------------------------------------------

    def spatial(self, i: int) -> tuple[int, ...]:
        return self.net.shapes[i][1:]

    def synapse_and_neuron(self, i: int) -> None:
        n, channels = self.n, self.net.shapes[i][0]
        transposed = self.choose([False, False, False, True])
        groups = self.choose([g for g in (1, 2, 4) if channels % g == 0])
        kernel, stride, dilation, padding = [], [], [], []
        mode = self.choose(["zeros", "zeros", "zeros", "circular", "reflect", "replicate"])
        mode = mode if not transposed and (n < 3 or mode != "reflect") else "zeros"
        for size in self.spatial(i):
            d = self.choose([1, 1, 2])
            p = self.choose([0, 1, 2])
            p = min(p, size - 1) if mode != "zeros" else p
            k = self.choose([k for k in range(1, 6) if transposed or d * (k - 1) < size + 2 * p])
            kernel.append(k)
            dilation.append(d)
            padding.append(min(p, d * (k - 1)) if transposed else p)
            stride.append(self.choose([1, 2, 3]))
        options: dict[str, Any] = {
            "stride": stride,
            "dilation": dilation,
            "groups": groups,
            "bias": self.choose([True, False]),
            "padding": padding,
        }
        if transposed:
            options["output_padding"] = [
                self.choose([o for o in (0, 1) if o < max(s, d)])
                for s, d in zip(stride, dilation, strict=True)
            ]
            kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[n - 1]
            if any(
                (size - 1) * s - 2 * p + d * (k - 1) + o + 1 < 1
                for size, s, p, d, k, o in zip(
                    self.spatial(i),
                    stride,
                    padding,
                    dilation,
                    kernel,
                    options["output_padding"],
                    strict=True,
                )
            ):
                options["padding"] = [0] * n
        else:
            kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n - 1]
            options["padding_mode"] = mode
            if mode == "zeros" and self.choose([False, False, True]):
                options |= {"padding": "same", "stride": 1}
        conv = kind(channels, groups * self.choose([1, 2]), kernel, **options)
        y = self.net.add("synapse", conv, conv_ones(conv), (i,), None)
        self.live.append(self.neuron(y))

    def neuron(self, y: int) -> int:
        source = self.choose([fnn.NeuromorphicReLU(), Threshold(), Compare()])
        return self.net.add("source", source, None, (y,), 1.0)

    def readout(self, i: int) -> None:
        flat = self.net.add("routing", nn.Flatten(), nn.Flatten(), (i,), self.net.scales[i])
        linear = nn.Linear(self.net.shapes[flat][0], 3)
        self.net.add("synapse", linear, conv_ones(linear), (flat,), None)

    def route(self, i: int) -> int:
        options = [
            self.pool,
            self.slices,
            self.cat,
            self.residual,
            self.axes,
            self.pads,
            self.scaled,
        ]
        if self.net.scales[i] is not None:
            options.append(self.gate)
        return self.choose(options)(i)

    def pool(self, i: int) -> int:
        n = self.n
        kernel, stride, padding = [], [], []
        for size in self.spatial(i):
            k = self.choose([k for k in (1, 2, 3) if k <= size])
            kernel.append(k)
            stride.append(self.choose([1, 2, 3]))
            padding.append(self.choose([p for p in (0, 1) if 2 * p <= k]))
        ceil, include = self.choose([False, True]), self.choose([False, True])
        kind = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[n - 1]
        pool = kind(kernel, stride, padding, ceil_mode=ceil, count_include_pad=include)
        adaptive = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[n - 1]
        if self.choose([False, False, False, True]):
            pool = adaptive([self.choose([1, 2, 3]) for _ in range(n)])
        elif n == 2 and self.choose([False, False, True]):
            pool = fnn.SumPool2d(tuple(kernel), tuple(stride), ceil_mode=ceil)
        weights = pool(torch.ones(1, 1, *self.spatial(i)))
        scale = self.net.scales[i]
        one_hot = pool(
            torch.eye(int(torch.tensor(self.spatial(i)).prod())).reshape(-1, 1, *self.spatial(i))
        )
        values = one_hot[one_hot != 0].unique()
        uniform = scale is not None and len(values) == 1 and bool(weights.isfinite().all())
        return self.net.add(
            "routing", pool, window_sums(pool, n), (i,), scale * float(values) if uniform else None
        )

    def gate(self, i: int) -> int:
        scale = self.net.scales[i]
        which = self.choose(["max", "relu", "and", "clamp"])
        if which == "max":
            kind = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[self.n - 1]
            gate: Any = kind([min(2, s) for s in self.spatial(i)], 1)
            return self.net.add("gate", gate, None, (i,), scale)
        if which == "relu":
            return self.net.add("gate", nn.ReLU(), None, (i,), scale)
        if which == "clamp":
            return self.net.add("gate", lambda x: x.clamp(max=3.0), None, (i,), scale)
        mate = self.net.add("routing", lambda x: x.flip(1), lambda x: x.flip(1), (i,), scale)
        return self.net.add("gate", lambda a, b: a * b, None, (i, mate), scale * scale)

    def slices(self, i: int) -> int:
        channels, scale = self.net.shapes[i][0], self.net.scales[i]
        k = self.choose(list(range(1, channels + 1)))
        cut = self.choose(
            [
                lambda x: x[:, :k],
                lambda x: x[:, -k:],
                lambda x: x[..., ::2],
                lambda x: x.narrow(1, 0, k),
                lambda x: x.split(k, 1)[-1],
                lambda x: x.chunk(2, -1)[0],
                lambda x: x[:, None, k - 1],
                lambda x: x.select(1, 0).unsqueeze(1),
                lambda x: x.unbind(1)[k - 1].unsqueeze(1),
                lambda x: x[:, torch.tensor([0, k - 1])],
                lambda x: x.index_select(1, torch.tensor([k - 1, 0])),
            ]
        )
        return self.net.add("routing", cut, cut, (i,), scale)

    def cat(self, i: int) -> int:
        mates = [j for j in self.live if self.net.shapes[j][1:] == self.net.shapes[i][1:]]
        j = self.choose(mates)
        a, b = self.net.scales[i], self.net.scales[j]
        join = self.choose([lambda x, y: torch.cat((x, y), 1), lambda x, y: torch.cat((y, x), -1)])
        if self.net.shapes[i][0] != self.net.shapes[j][0]:

            def join(x, y):
                return torch.cat([x, y], dim=1)

        return self.net.add("routing", join, join, (i, j), a if a == b else None)

    def residual(self, i: int) -> int:
        mates = [j for j in self.live if self.net.shapes[j] == self.net.shapes[i]]
        j = self.choose(mates)
        a, b = self.net.scales[i], self.net.scales[j]
        merge = self.choose([lambda x, y: x + y, lambda x, y: torch.stack((x, y)).sum(0)])
        return self.net.add("routing", merge, merge, (i, j), a if a == b else None)

    def axes(self, i: int) -> int:
        scale, size = self.net.scales[i], self.net.shapes[i]
        move = self.choose(
            [
                lambda x: x.transpose(1, -1),
                lambda x: x.flip(-1),
                lambda x: x.roll(1, -1),
                lambda x: torch.roll(x, (1, 1), (1, -1)),
                lambda x: x.flatten(1).reshape(-1, *size[:1], *size[1:]),
                lambda x: x.movedim(1, 2).reshape(-1, *size),
                lambda x: x.repeat(1, 2, *[1] * self.n),
                lambda x: x.expand(2, *x.shape).sum(0),
                lambda x: x.cumsum(-1),
                lambda x: F.interpolate(x, scale_factor=2) if size[-1] < 4 else x,
                lambda x: x.repeat_interleave(2, 1),
                lambda x: x.sum(-1, keepdim=True),
            ]
        )
        return self.net.add("routing", move, move, (i,), scale)

    def pads(self, i: int) -> int:
        mode = self.choose(["constant", "circular", "replicate"])
        pads = [self.choose([0, 1]) for _ in range(2 * self.n)]

        def pad(x: Tensor) -> Tensor:
            return F.pad(x, pads, mode)

        return self.net.add("routing", pad, pad, (i,), self.net.scales[i])

    def scaled(self, i: int) -> int:
        scale = self.net.scales[i]
        which = self.choose(["number", "norm", "mean"])
        if which == "number":
            times = None if scale is None else scale * 0.25
            return self.net.add("routing", lambda x: x * 0.25, lambda x: x, (i,), times)
        if which == "mean":
            size = self.net.shapes[i][-1]
            times = None if scale is None else scale / size
            return self.net.add(
                "routing",
                lambda x: x.mean(-1, keepdim=True),
                lambda x: x.sum(-1, keepdim=True),
                (i,),
                times,
            )
        kind = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[self.n - 1]
        norm = kind(self.net.shapes[i][0]).eval()
        norm.running_mean.uniform_()
        return self.net.add("routing", norm, lambda x: x, (i,), None)
