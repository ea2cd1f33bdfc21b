"""Convolutional networks: residual blocks, norms over time, weights that are computed, searches."""

from __future__ import annotations

import functools
import warnings

import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.constructions.parts import LIF, Cell, Folded, construction, conv, images, spike, spikes

T, B, C = 2, 2, 4
maps = spikes(T, B, C, 6, 6)
one_step = spikes(B, C, 6, 6)


class Classifier(nn.Module):
    """Neurons and a linear readout of mean rates, behind a body (T, B, C, H, W)."""

    def __init__(self, channels: int = C) -> None:
        super().__init__()
        self.lif, self.fc = LIF(), nn.Linear(channels, 3)

    def read(self, x: Tensor) -> Tensor:
        return self.fc(self.lif(x).flatten(3).sum(3)).mean(0)


@construction("convolution: separable block of a meta-former", maps, layout="TN")
class Separable(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.lif1, self.lif2 = LIF(), LIF()
        self.pwconv1, self.pwconv2 = conv(C, 2 * C, 1), conv(2 * C, C, 1)
        self.dwconv = Folded(nn.Conv2d(2 * C, 2 * C, 7, padding=3, groups=2 * C, bias=False))

    def forward(self, x):
        y = self.lif2(self.pwconv1(self.lif1(x)))
        return self.read(self.pwconv2(self.dwconv(y)) + x)


class BorderOfBias(nn.Module):
    """Batch norm whose border is what it makes of zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.bn(x)
        value = self.bn.bias.detach() - self.bn.running_mean * self.bn.weight.detach() / torch.sqrt(
            self.bn.running_var + self.bn.eps
        )
        y = F.pad(y, [1, 1, 1, 1])
        value = value.view(1, -1, 1, 1)
        y[:, :, 0:1, :] = value
        y[:, :, -1:, :] = value
        y[:, :, :, 0:1] = value
        y[:, :, :, -1:] = value
        return y


@construction("convolution: re-parameterizable, with a border of the bias", maps, layout="TN")
class RepConv(Classifier):
    def __init__(self) -> None:
        super().__init__()
        point = nn.Conv2d(C, C, 1, bias=False)
        depth = nn.Sequential(
            nn.Conv2d(C, C, 3, groups=C, bias=False),
            nn.Conv2d(C, C, 1, bias=False),
            nn.BatchNorm2d(C),
        )
        self.body, self.bn = Folded(nn.Sequential(point, BorderOfBias(C), depth)), nn.BatchNorm2d(C)
        self.eval()  # what the border reads, a training forward writes

    def forward(self, x):
        y = self.body(x)
        return self.read(self.bn(y.flatten(0, 1)).reshape(y.shape).contiguous())


@construction("convolution: three branches, one of them the identity", one_step)
class Branches(nn.Module):
    """Trained as 3x3, 1x1 and a norm alone."""

    def __init__(self) -> None:
        super().__init__()
        self.three, self.one = nn.Conv2d(C, C, 3, padding=1, bias=False), nn.Conv2d(C, C, 1)
        self.bn3, self.bn1, self.bn0 = (nn.BatchNorm2d(C) for _ in range(3))
        self.head = nn.Conv2d(C, 2, 1)

    def forward(self, x):
        y = self.bn3(self.three(x)) + self.bn1(self.one(x)) + self.bn0(x)
        return self.head(spike(y - 0.5))


@construction("convolution: three branches, fused for inference", one_step)
class Fused(Branches):
    """Kernels of all branches added up, as a deployed model has them."""

    def __init__(self) -> None:
        super().__init__()
        kernel, bias = torch.zeros(C, C, 3, 3), torch.zeros(C)
        one, identity = (
            F.pad(w, [1] * 4) for w in (self.one.weight, torch.eye(C)[..., None, None])
        )
        for w, bn in ((self.three.weight, self.bn3), (one, self.bn1), (identity, self.bn0)):
            factor = bn.weight / (bn.running_var + bn.eps).sqrt()
            kernel = kernel + w * factor.view(-1, 1, 1, 1)
            bias = bias + bn.bias - bn.running_mean * factor
        self.reparam = nn.Conv2d(C, C, 3, padding=1)
        self.reparam.weight.data, self.reparam.bias.data = kernel.detach(), bias.detach()
        del self.three, self.one, self.bn3, self.bn1, self.bn0
        self.eval()

    def forward(self, x):
        return self.head(spike(self.reparam(x) - 0.5))


class SpikeElementWise(nn.Module):
    """Two convolutions with neurons; ``connect`` joins what comes out with the shortcut."""

    def __init__(self, connect: str) -> None:
        super().__init__()
        self.conv1, self.sn1, self.conv2, self.sn2 = conv(C, C), LIF(), conv(C, C), LIF()
        self.connect, self.out = connect, conv(C, 2, 1)

    def forward(self, x):
        y = self.sn2(self.conv2(self.sn1(self.conv1(x))))
        if self.connect == "ADD":
            y += x
        elif self.connect == "AND":
            y = y * x
        elif self.connect == "OR":
            y = y + x - y * x
        else:
            y = x * (1.0 - y)
        return self.out(y)


# OR, as x + y - xy, counts 980 where 712 events arrive at synapses: terms that cancel are counted.
for _connect in ("ADD", "AND", "IAND", "OR"):
    construction(
        f"convolution: residual block, {_connect}", maps, layout="TN", still_open=_connect == "OR"
    )(functools.partial(SpikeElementWise, _connect))


@construction("convolution: residual of membranes", maps, layout="TN")
class MembraneShortcut(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(LIF(), conv(C, 6, stride=2), LIF(), conv(6, 6))
        self.shortcut = nn.Sequential(LIF(), Folded(nn.MaxPool2d(2)), conv(C, 6, 1))
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.read(self.body(x) + self.shortcut(x))


@construction("convolution: dense concatenations", maps, layout="TN")
class DenseBlock(Classifier):
    def __init__(self) -> None:
        super().__init__(C + 6)
        self.layers = nn.ModuleList(nn.Sequential(conv(C + 2 * i, 2), LIF()) for i in range(3))
        self.transition = nn.Sequential(conv(C + 6, C + 6, 1), LIF(), Folded(nn.AvgPool2d(2)))
        self.last = conv(C + 6, C + 6)

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 2)))
        return self.read(self.last(self.transition(torch.cat(features, 2))))


@construction("convolution: norm over time and batch, scaled by the threshold", maps, layout="TN")
class ThresholdDependentNorm(Classifier):
    """Time last inside: (B, C, H, W, T), as a 3-d norm wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(C, C, 3, padding=1), nn.BatchNorm3d(C)
        nn.init.constant_(self.bn.weight, 0.707 * 0.5)

    def forward(self, x):
        y = torch.stack([self.conv(step) for step in x], dim=-1)
        return self.read(self.bn(y).permute(4, 0, 1, 2, 3))


@construction("convolution: effective norm, a scale per step", maps, layout="TN")
class EffectiveNorm(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = Folded(nn.Conv2d(C, C, 3, padding=1)), nn.BatchNorm3d(C)
        self.p = nn.Parameter(torch.ones(T, 1, 1, 1, 1))

    def forward(self, x):
        y = self.bn(self.conv(x).permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4)
        return self.read((y * self.p).contiguous())


@construction("convolution: a norm per step", maps, layout="TN")
class NormPerStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 3, padding=1, bias=False)
        self.bntt = nn.ModuleList(nn.BatchNorm2d(C, eps=1e-4, momentum=0.1) for _ in range(T))
        for bn in self.bntt:
            bn.bias = None
        self.fc = nn.Linear(C * 9, 3, bias=False)

    def forward(self, x):
        mem, mem_fc = torch.zeros(B, C, 6, 6), torch.zeros(B, 3)
        for t in range(T):
            mem = 0.95 * mem + self.bntt[t](self.conv(x[t]))
            out = spike(mem / 1.0 - 1.0)
            rst = torch.zeros_like(mem)
            rst[mem - 1.0 > 0] = 1.0
            mem = mem - rst
            mem_fc = mem_fc + self.fc(F.avg_pool2d(out, 2).reshape(B, -1))
        return mem_fc / T


@construction("convolution: norm after the neuron, folded", one_step, units={"conv2": 0.5})
class NormAfterSpikes(nn.Module):
    """Norm without shift between spikes and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(C, C, 3), nn.Conv2d(C, C, 3)
        self.bn = nn.BatchNorm2d(C, affine=False, eps=1e-12)
        self.bn.running_var.fill_(4.0)
        self.eval()

    def forward(self, x):
        return self.conv2(self.bn(spike(self.conv1(x) - 0.05)))


class Choices(nn.Module):
    """Candidate operations of one place in a network."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList([conv(C, C, 3), conv(C, C, 1), conv(C, C, 5), nn.Identity()])
        self.alpha = nn.Parameter(torch.randn(4))


@construction("convolution: supernet, weighted sum of choices", maps, layout="TN")
class Supernet(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.choices = Choices()

    def forward(self, x):
        weights = F.softmax(self.choices.alpha, dim=-1)
        return self.read(sum(w * op(x) for w, op in zip(weights, self.choices.ops, strict=True)))


@construction("convolution: supernet, one choice by a hard sample", maps, layout="TN")
class HardChoice(Classifier):
    """All candidates run; the others are multiplied by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.choices = Choices()

    def forward(self, x):
        weights = F.gumbel_softmax(self.choices.alpha, tau=1.0, hard=True)
        return self.read(sum(w * op(x) for w, op in zip(weights, self.choices.ops, strict=True)))


@construction("convolution: searched cell with a fixed one-hot choice", maps, layout="TN")
class FixedChoice(Classifier):
    """The neurons of choices that lost come to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.choices, self.sn = Choices(), nn.ModuleList(LIF() for _ in range(4))
        self.register_buffer("one_hot", F.one_hot(torch.tensor(1), 4).float())
        self.after = conv(C, C)

    def forward(self, x):
        y = sum(
            self.one_hot[i] * sn(op(x))
            for i, (sn, op) in enumerate(zip(self.sn, self.choices.ops, strict=True))
        )
        return self.read(self.after(y))


@construction("convolution: searched cell, an adjacency of nodes", one_step)
class Cells(nn.Module):
    """Nodes of a cell sum over edges that are a convolution, a pool, a skip or nothing."""

    edges = ((0, 1, "conv"), (0, 2, "skip"), (1, 2, "pool"), (0, 3, "none"), (2, 3, "conv"))

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({
            f"{i}-{j}": nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.BatchNorm2d(C), Cell())
            if kind == "conv" else nn.AvgPool2d(3, 1, 1) if kind == "pool" else nn.Identity()
            for i, j, kind in self.edges
        })  # fmt: skip
        self.neurons, self.head = nn.ModuleList(Cell() for _ in range(4)), nn.Conv2d(C, 2, 1)

    def forward(self, x):
        nodes = [x]
        for j in range(1, 4):
            terms = [
                self.layers[f"{i}-{j}"](nodes[i]) * (0 if kind == "none" else 1)
                for i, k, kind in self.edges
                if k == j
            ]
            nodes.append(self.neurons[j](torch.stack(terms).sum(0)))
        return self.head(nodes[-1])


@construction("convolution: static image through a VGG, step by step", images(B, 3, 8, 8),
              timesteps=T, input_events=False)  # fmt: skip
class StaticImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        i = 3
        for c in (4, "M", 6, 6, "A"):
            if isinstance(c, int):
                layers += [nn.Conv2d(i, c, 3, padding=1), nn.BatchNorm2d(c), Cell()]
                i = c
            else:
                layers.append(nn.MaxPool2d(2) if c == "M" else nn.AvgPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(24, 8), Cell(), nn.Linear(8, 3))

    def forward(self, x):
        return torch.stack([self.classifier(self.features(x)) for _ in range(T)], dim=1)


@construction("convolution: dynamic norm of the weights", one_step)
class Standardized(nn.Module):
    """Weights standardized in every forward, with a learned gain."""

    class Conv(nn.Conv2d):
        def __init__(self, i: int, o: int, k: int) -> None:
            super().__init__(i, o, k)
            self.gain = nn.Parameter(torch.ones(o, 1, 1, 1))

        def forward(self, x):
            w = self.weight
            mean, var = w.mean((1, 2, 3), keepdim=True), w.var((1, 2, 3), keepdim=True)
            w = self.gain * (w - mean) * torch.rsqrt(var * w[0].numel() + 1e-4)
            return F.conv2d(x, w, self.bias, self.stride, self.padding)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = self.Conv(C, C, 3), self.Conv(C, 2, 3)

    def forward(self, x):
        return self.conv2(spike(self.conv1(x) - 0.05) * 1.0)


@construction("convolution: norm and direction of weights apart", one_step)
class WeightNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = parametrizations.weight_norm(nn.Conv2d(C, C, 3))
        self.conv2 = parametrizations.weight_norm(nn.Conv2d(C, 2, 3), dim=1)

    def forward(self, x):
        return self.conv2(spike(self.conv1(x) - 0.05))


@construction("convolution: norm and direction of weights apart, by the old hook", one_step)
class OldWeightNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(C, C, 3), nn.Conv2d(C, 2, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.nn.utils.weight_norm(self.conv2, dim=None)

    def forward(self, x):
        return self.conv2(spike(self.conv1(x) - 0.05))


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return torch.where(w >= 0, torch.ones_like(w), -torch.ones_like(w))

    @staticmethod
    def backward(ctx, grad):
        return grad


@construction("convolution: binary weights, straight through", one_step)
class Binary(nn.Module):
    class Conv(nn.Conv2d):
        def forward(self, x):
            scale = self.weight.abs().mean(dim=(1, 2, 3), keepdim=True)
            w = Sign.apply(self.weight) * scale.detach()
            return F.conv2d(x, w, self.bias, self.stride, self.padding)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = self.Conv(C, C, 3, padding=1), self.Conv(C, 2, 3)

    def forward(self, x):
        return self.conv2(spike(self.conv1(x) - 0.1))


@construction("convolution: quantized weights and membranes", one_step)
class Quantized(nn.Module):
    """Rounded to few bits, straight through, also the membrane."""

    @staticmethod
    def quantize(w, bits=4):
        scale = w.detach().abs().max() / (2 ** (bits - 1) - 1)
        q = torch.round(w / scale).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale
        return w + (q - w).detach()

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(C, 2, 3)

    def forward(self, x):
        u = F.conv2d(x, self.quantize(self.conv1.weight), None, 1, 1)
        s = spike(self.quantize(u, 6) - 0.1)
        return F.conv2d(s, self.quantize(self.conv2.weight), self.quantize(self.conv2.bias))


@construction("convolution: pruned weights, masks by hooks", one_step)
class Pruned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(C, 2, 3)
        torch.nn.utils.prune.l1_unstructured(self.conv2, "weight", amount=0.5)
        torch.nn.utils.prune.random_structured(self.conv1, "weight", amount=0.25, dim=0)

    def forward(self, x):
        return self.conv2(spike(self.conv1(x) - 0.05))


@construction("convolution: low-rank adapters beside frozen layers", spikes(T, B, 8), layout="TN")
class Adapters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.lif = nn.Linear(8, 6), nn.Linear(6, 3), LIF(threshold=0.02)
        self.requires_grad_(False)
        self.a1, self.b1 = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.zeros(6, 2))
        self.a2, self.b2 = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(3, 2))

    def forward(self, x):
        s = self.lif(self.fc1(x) + (x @ self.a1.T @ self.b1.T) * 0.5)
        return F.linear(s, self.fc2.weight + self.b2 @ self.a2, self.fc2.bias) + s.mean() * 0


@construction("convolution: weights made by another network", one_step)
class Hyper(nn.Module):
    """An embedding of the layer makes its kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hyper = nn.Parameter(torch.randn(2, 5)), nn.Linear(5, C * C * 9)

    def forward(self, x):
        w1, w2 = self.hyper(self.embedding).view(2, C, C, 3, 3)
        return F.conv2d(spike(F.conv2d(x, w1, padding=1) - 0.1), w2)


@construction("convolution: kernels mixed by attention to the sample", one_step)
class Dynamic(nn.Module):
    """One grouped convolution of the whole batch, each sample with kernels of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.kernels = nn.Linear(C, 3), nn.Parameter(torch.randn(3, C, C, 3, 3))
        self.head = nn.Conv2d(C, 2, 1)

    def forward(self, x):
        mix = torch.softmax(self.attend(x.mean((2, 3)) * 36), dim=1)
        w = torch.einsum("bk,kocij->bocij", mix, self.kernels).reshape(-1, C, 3, 3)
        y = F.conv2d(x.reshape(1, -1, 6, 6), w, padding=1, groups=x.shape[0])
        return self.head(spike(y.view(-1, C, 6, 6) - 0.2))


@construction("convolution: pools before and after neurons", maps, layout="TN")
class Pools(Classifier):
    def __init__(self) -> None:
        super().__init__(C)
        self.conv1, self.conv2, self.conv3 = conv(C, C), conv(C, C), conv(C, C)
        self.before, self.after = Folded(nn.MaxPool2d(3, 1, 1)), Folded(nn.AvgPool2d(2))
        self.adaptive, self.lif1, self.lif2 = Folded(nn.AdaptiveMaxPool2d(2)), LIF(), LIF()

    def forward(self, x):
        y = self.after(self.lif1(self.before(self.conv1(x))))
        y = self.adaptive(self.lif2(self.conv2(y)))
        return self.read(self.conv3(y))


@construction("convolution: attention of steps, channels and places on currents", maps, layout="TN")
class Attended(Classifier):
    """Gates of the current, which come from its means and maxima."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(C, C)
        self.time, self.channel = nn.Linear(T, T), nn.Linear(C, C)
        self.place = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        y = y * torch.sigmoid(self.time(y.mean((2, 3, 4)).T)).T[:, :, None, None, None]
        squeezed = F.relu(self.channel(y.mean((3, 4)))) + self.channel(y.amax((3, 4)))
        y = y * squeezed.sigmoid()[..., None, None]
        stats = torch.cat((y.mean(2, keepdim=True), y.max(2, keepdim=True)[0]), 2)
        return self.read(
            4 * y * torch.sigmoid(self.place(stats.flatten(0, 1))).unflatten(0, (T, -1))
        )


@construction("convolution: dropout with one mask for all steps", maps, units={"conv2": 2.0},
              layout="TN")  # fmt: skip
class FixedDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.neuron = nn.Conv2d(C, C, 3), nn.Conv2d(C, 2, 3), Cell()
        self.mask: Tensor | None = None

    def reset(self):
        self.mask = None

    def forward(self, x):
        out = []
        for step in x:
            s = self.neuron(self.conv1(step))
            if self.mask is None:
                self.mask = F.dropout(torch.ones_like(s), 0.5, training=True)
            out.append(self.conv2(s * self.mask))
        return torch.stack(out)


@construction("convolution: locally connected, einsum of patches", one_step)
class LocallyConnected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(16, 5, C * 9)), nn.Conv2d(5, 2, 1)

    def forward(self, x):
        patches = F.unfold(x, 3)
        y = torch.einsum("bkl,lok->bol", patches, self.weight)
        return self.head(spike(y.view(-1, 5, 4, 4) - 0.5))


# Counted right (see the test); the oracle does not see sums of products.
@construction("convolution: locally connected, product and sum", one_step, still_open=True)
class LocallyConnectedByHand(LocallyConnected):
    def forward(self, x):
        patches = x.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 16, 36)
        y = (patches.unsqueeze(2) * self.weight).sum(-1)
        return self.head(spike(y.mT.reshape(-1, 5, 4, 4) - 0.5))


@construction("convolution: shifts in place of kernels", one_step)
class Shifts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(C, 8, 1), nn.Conv2d(8, 3, 1)

    @staticmethod
    def shift(x):
        out, g = torch.zeros_like(x), x.shape[1] // 4
        out[:, :g, :, 1:] = x[:, :g, :, :-1]
        out[:, g : 2 * g, :, :-1] = x[:, g : 2 * g, :, 1:]
        out[:, 2 * g : 3 * g, 1:, :] = x[:, 2 * g : 3 * g, :-1, :]
        out[:, 3 * g :] = x[:, 3 * g :]
        return out

    def forward(self, x):
        return self.conv2(self.shift(spike(self.conv1(self.shift(x)) - 0.05)))


@construction("convolution: groups and a shuffle of channels", one_step)
class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), Cell(),
            nn.Conv2d(2, 2, 3, padding=1, groups=2), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), Cell(),
        )  # fmt: skip
        self.head = nn.Conv2d(C, 2, 3, groups=2)

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        y = torch.cat((a, self.branch(b)), dim=1)
        n, c, h, w = y.size()
        return self.head(y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w))


@construction("convolution: inverted residuals", maps, layout="TN")
class Inverted(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(
            LIF(), conv(C, 12, 1), LIF(), conv(12, 12, groups=12), LIF(), conv(12, C, 1)
        )

    def forward(self, x):
        return self.read(x + self.block(x))


@construction("convolution: multi-layer perceptrons over tokens and channels", spikes(T, B, 4, 8),
              layout="TN")  # fmt: skip
class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token1, self.token2 = nn.Conv1d(4, 8, 1), nn.Conv1d(8, 4, 1)
        self.channel1, self.channel2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.lif1, self.lif2, self.lif3, self.fc = LIF(), LIF(), LIF(), nn.Linear(8, 3)

    def forward(self, x):
        y = self.token2(self.lif1(self.token1(x.flatten(0, 1)).unflatten(0, (T, -1))).flatten(0, 1))
        x = x + self.lif2(y.unflatten(0, (T, -1)) + 0.1)
        return self.fc(self.lif3(self.channel2(self.lif1(self.channel1(x))) + 0.1).mean(2))


@construction("convolution: parallel dilations, their sum and a global branch", one_step)
class Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(C, 3, 3, padding=d, dilation=d) for d in (1, 2, 3))
        self.all, self.neuron, self.head = nn.Conv2d(C, 3, 1), Cell(), nn.Conv2d(12, 2, 1)

    def forward(self, x):
        pooled = self.all(F.adaptive_avg_pool2d(x, 1) * 36)
        y = [b(x) for b in self.branches] + [F.interpolate(pooled, size=x.shape[-2:])]
        return self.head(self.neuron(torch.cat(y, 1)))


@construction("convolution: pixels shuffled up", one_step)
class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(c, d, 3, padding=1)
                                              for c, d in ((C, 8), (2, 8), (2, 1)))  # fmt: skip
        self.up, self.neuron1, self.neuron2 = nn.PixelShuffle(2), Cell(), Cell()

    def forward(self, x):
        y = self.up(self.neuron2(self.conv2(self.up(self.neuron1(self.conv1(x))))))
        return self.conv3(y) + F.interpolate(x[:, :1], scale_factor=4, mode="bilinear")


@construction("convolution: time last, one 3-d convolution over space and steps",
              spikes(B, 2, 6, 6, 4), timesteps=4)  # fmt: skip
class TimeLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(2, 4, (3, 3, 1), padding=(1, 1, 0), bias=False)
        self.conv2 = nn.Conv3d(4, 3, (3, 3, 2), padding=(0, 0, 1), bias=False)

    def forward(self, x):
        u, v, out = self.conv1(x), 0.0, []
        for t in range(u.shape[-1]):
            v = 0.5 * v + u[..., t]
            s = spike(v - 0.1)
            v = v - 0.1 * s
            out.append(s)
        return self.conv2(torch.stack(out, -1)).mean(-1)


@construction("convolution: early exits", maps, layout="TN")
class Exits(nn.Module):
    """Heads at every depth, all returned."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(conv(C, C), LIF()) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(C, 3) for _ in range(3))

    def forward(self, x):
        outputs = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            outputs.append(head(x.sum((-1, -2))).cumsum(0))
        return outputs
