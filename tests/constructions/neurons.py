"""Neurons as papers write them, between two layers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.constructions.parts import LIF, Cell, construction, spike, spikes

T, B, I, H, O = 4, 2, 8, 6, 3  # noqa: E741
events = spikes(T, B, I)


class Between(nn.Module):
    """Two layers with a neuron between them, over the steps of the first axis."""

    def __init__(self, hidden: int = H) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(I, hidden), nn.Linear(hidden, O)

    def start(self, x: Tensor) -> None:
        self.v = torch.zeros_like(x)

    def step(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x):
        out = []
        for t in range(x.shape[0]):
            y = self.fc1(x[t])
            if t == 0:
                self.start(y)
            out.append(self.fc2(self.step(y)))
        return torch.stack(out)


class Ladder(torch.autograd.Function):
    """As many spikes as thresholds lie below the membrane."""

    @staticmethod
    def forward(ctx, v, thresholds):
        ctx.save_for_backward(v)
        return sum((v >= threshold).to(v.dtype) for threshold in thresholds)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class WholeNumber(torch.autograd.Function):
    """Rounded to 0 … most."""

    @staticmethod
    def forward(ctx, v, most):
        ctx.save_for_backward(v)
        ctx.most = most
        return torch.round(torch.clamp(v, min=0, max=most))

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad * ((v >= 0) & (v <= ctx.most)), None


@construction("neuron: several thresholds, counts of spikes", events, layout="TN")
class SeveralThresholds(Between):
    def __init__(self) -> None:
        super().__init__()
        self.thresholds: Any = (0.1, 0.2, 0.4)

    def step(self, x):
        self.v = 0.5 * self.v + x
        n = Ladder.apply(self.v, self.thresholds)
        self.v = self.v - 0.1 * n
        return n


@construction("neuron: several thresholds in a tensor", events, layout="TN")
class SeveralThresholdsInTensor(SeveralThresholds):
    def __init__(self) -> None:
        super().__init__()
        self.thresholds = torch.tensor(self.thresholds)


@construction("neuron: several thresholds, one channel each", events, layout="TN")
class ThresholdChannels(Between):
    """Every threshold has outputs of its own, which are layers' inputs of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.tensor([0.1, 0.2]).view(2, 1, 1))
        self.fc2 = nn.Linear(2 * H, O)

    def step(self, x):
        self.v = 0.5 * self.v + x
        s = spike(self.v.unsqueeze(0) - self.thresholds)
        self.v = self.v * (1 - s[0])
        return torch.cat((s[0], s[1]), dim=-1)


# Each spike is one event, whatever its level; what one element is worth is decided by data, which
# should be said. (By its value in units of the smallest level, an event would be 1, 2 or 4.)
@construction("neuron: thresholds of several levels, sent as powers of two", events, layout="TN",
              still_open=True)  # fmt: skip
class PowersOfTwo(Between):
    """The largest of the levels ±θ, ±θ/2, ±θ/4 that the membrane reaches is sent."""

    def step(self, x):
        self.v, out = self.v + x, torch.zeros_like(x)
        for level in (0.125, 0.25, 0.5):
            out = torch.where(self.v.abs() >= level, level * torch.sign(self.v), out)
        self.v = self.v - out
        return out


@construction("neuron: ternary", events, layout="TN")
class Ternary(Between):
    def step(self, x):
        self.v = 0.5 * self.v + x
        s = spike(self.v - 0.2) - spike(-self.v - 0.2)
        self.v = self.v * (1 - s.abs())
        return s


@construction("neuron: ternary with a learned amplitude", events, units={"fc2": 0.7}, layout="TN")
class TernaryAmplitude(Between):
    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.7))

    def step(self, x):
        self.v = 0.5 * self.v + x
        s = (self.v > 0.2).float() - (self.v < -0.2).float()
        self.v = self.v * (1 - s.abs())
        return s * self.alpha


@construction("neuron: bursts in inner steps", events, layout="TN")
class Bursts(Between):
    """Up to four spikes a step, each with the threshold taken off."""

    def step(self, x):
        self.v, n = self.v + x, torch.zeros_like(x)
        for _ in range(4):
            s = spike(self.v - 0.1)
            self.v = self.v - 0.1 * s
            n = n + s
        return n


@construction("neuron: bursts that double the threshold", events, layout="TN")
class GrowingBursts(Between):
    """A spike's worth grows while the neuron goes on firing; spikes carry their worth."""

    def start(self, x):
        self.v, self.g, self.last = torch.zeros_like(x), torch.ones_like(x), torch.zeros_like(x)

    def step(self, x):
        self.g = torch.where(self.last > 0, self.g * 2, torch.ones_like(self.g))
        self.v = self.v + x
        self.last = spike(self.v - 0.0625 * self.g)
        self.v = self.v - 0.0625 * self.g * self.last
        return self.last


@construction("neuron: integers that expand to virtual steps", events, layout="TN")
class Integers(Between):
    """Trained on whole numbers, run on as many spikes in D virtual steps."""

    def forward(self, x):
        y, v, out = self.fc1(x) * 4, 0.0, []
        for t in range(x.shape[0]):
            v = v + y[t]
            s = WholeNumber.apply(v, 4)
            v = (v - s) * 0.25
            out.append(s)
        s = torch.stack(out)
        virtual = torch.stack([(s > d).to(s.dtype) for d in range(4)], dim=1)
        return self.fc2(virtual.flatten(0, 1)).unflatten(0, (-1, 4)).sum(1)


@construction("neuron: integers divided by their largest", events, layout="TN")
class NormalizedIntegers(Between):
    def step(self, x):
        self.v = self.v * 0.25 + x * 4
        s = WholeNumber.apply(self.v, 4)
        self.v = self.v - s
        return s / 4


@construction("neuron: adaptive threshold", events, layout="TN")
class Adaptive(Between):
    def start(self, x):
        self.v, self.b, self.s = (torch.zeros_like(x) for _ in range(3))

    def step(self, x):
        self.b = 0.9 * self.b + 0.1 * self.s
        threshold = 0.1 + 1.8 * self.b
        self.v = self.v * 0.8 + 0.2 * x * 3 - threshold * self.s
        self.s = spike(self.v - threshold)
        return self.s


@construction("neuron: learned thresholds and time constants", events, layout="TN")
class LearnedEach(Between):
    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.rand(H) * 0.2)
        self.w = nn.Parameter(torch.full((H,), -math.log(2.0 - 1.0)))

    def step(self, x):
        self.v = self.v + (x - self.v) * self.w.sigmoid()
        s = spike(self.v / self.threshold.clamp(min=0.05) - 1.0)
        self.v = (1.0 - s) * self.v
        return s


@construction("neuron: gates of leak, input, reset and conductance", events, layout="TN")
class Gated(Between):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ParameterList(nn.Parameter(torch.randn(())) for _ in range(4))
        self.leak, self.linear, self.back = (nn.Parameter(torch.randn(H)) for _ in range(3))
        self.conduct = nn.Parameter(torch.randn(T, H))
        self.fc2 = nn.Linear(H, O)

    def start(self, x):
        self.v, self.s, self.t = torch.zeros_like(x), torch.zeros_like(x), 0

    def step(self, x):
        a, b, c, _ = (g.sigmoid() for g in self.gates)
        x = x * (1 - b * (1 - self.conduct[self.t].sigmoid()))
        decay = 1 - a * (1 - self.leak.sigmoid())
        v = decay * self.v - (1 - a) * 0.1 * self.linear.sigmoid() + x
        self.v = v - (1 - c) * self.s * self.back.sigmoid() - c * decay * self.v * self.s
        self.s, self.t = spike(self.v - 0.1), self.t + 1
        return self.s


@construction("neuron: refractory counter", events, layout="TN")
class Refractory(Between):
    def start(self, x):
        self.v, self.wait = torch.zeros_like(x), torch.zeros_like(x, dtype=torch.long)

    def step(self, x):
        self.v = torch.where(self.wait > 0, self.v, 0.9 * self.v + x)
        s = spike(self.v - 0.1) * (self.wait == 0)
        self.wait = torch.where(s > 0, torch.full_like(self.wait, 2), (self.wait - 1).clamp(min=0))
        self.v = self.v.masked_fill(s.bool(), 0.0)
        return s


@construction("neuron: spike once, time to first spike", events, layout="TN")
class Once(Between):
    def start(self, x):
        self.v, self.done = torch.zeros_like(x), torch.zeros_like(x, dtype=torch.bool)

    def step(self, x):
        self.v = self.v + x
        now = (self.v > 0.1) & ~self.done
        self.done = self.done | now
        return now.float()


@construction("neuron: reset by product, from spikes of the step before", events, layout="TN")
class ResetNext(Between):
    """The classic: mem = mem * decay * (1 - spike) + input."""

    def start(self, x):
        self.v = self.s = torch.zeros(x.shape, device=x.device)

    def step(self, x):
        self.v = self.v * 0.3 * (1.0 - self.s) + x
        self.s = self.v.gt(0.1).float()
        return self.s


@construction("neuron: synaptic current and membrane", events, layout="TN")
class Current(Between):
    def start(self, x):
        self.i = self.v = torch.zeros_like(x)

    def step(self, x):
        self.i = math.exp(-1 / 5) * self.i + x
        self.v = (math.exp(-1 / 10) * self.v + self.i) * (1.0 - spike(self.v - 0.3).detach())
        return spike(self.v - 0.3)


@construction("neuron: complementary membrane", events, layout="TN")
class Complementary(Between):
    def start(self, x):
        self.v, self.m = torch.zeros_like(x), torch.zeros_like(x)

    def step(self, x):
        self.v = 0.5 * self.v + x
        s = spike(self.v - 0.2)
        self.m = self.m * torch.sigmoid(0.5 * self.v) + s
        self.v = self.v - s * (0.2 + torch.sigmoid(self.m))
        return s


@construction("neuron: scaled ReLU in front of the step", events, layout="TN")
class Scaled(Between):
    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.ones(1))

    def step(self, x):
        self.v = torch.relu(self.k * (self.v / 2 + x))
        s = spike(self.v - 0.1)
        self.v = self.v - 0.1 * s
        return s


@construction("neuron: two compartments", events, layout="TN")
class TwoCompartments(Between):
    """A dendrite and a soma drive each other; the spike resets both."""

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.tensor([-0.5, 0.5]))

    def start(self, x):
        self.v1 = self.v2 = torch.zeros_like(x)

    def step(self, x):
        b = torch.sigmoid(self.decay)
        self.v1 = self.v1 - b[0] * self.v2 + x
        self.v2 = self.v2 + b[1] * self.v1
        s = spike(self.v2 - 0.2)
        self.v1, self.v2 = self.v1 - 0.5 * s, self.v2 - 0.2 * s
        return s


@construction("neuron: dendritic branches with a mask", events, layout="TN")
class Branches(nn.Module):
    """Every branch sees some of the inputs, and has its own time constant."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.fc2 = nn.Linear(I, 2 * H), nn.Linear(H, O)
        self.register_buffer("mask", (torch.rand(2 * H, I) < 0.5).float())
        self.tau_n, self.tau_m = nn.Parameter(torch.randn(H, 2)), nn.Parameter(torch.randn(H))

    def forward(self, x):
        self.dense.weight.data = self.dense.weight.data * self.mask
        d, v, out = x.new_zeros(x.shape[1], H, 2), x.new_zeros(x.shape[1], H), []
        for step in x:
            beta = torch.sigmoid(self.tau_n)
            d = beta * d + (1 - beta) * self.dense(step).reshape(-1, H, 2)
            alpha = torch.sigmoid(self.tau_m)
            v = v * alpha + (1 - alpha) * d.sum(dim=2)
            s = spike(v - 0.05)
            v = v - 0.05 * s
            out.append(self.fc2(s))
        return torch.stack(out)


@construction("neuron: parallel over all steps", events, layout="TN")
class Parallel(Between):
    """A matrix over time replaces the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(T, T)), nn.Parameter(torch.zeros(T, 1))

    def forward(self, x):
        y = self.fc1(x)
        v = torch.addmm(self.bias, self.weight, y.flatten(1))
        return self.fc2(spike(v.view(y.shape)))


@construction("neuron: parallel over all steps, masked", events, layout="TN")
class MaskedParallel(Between):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(T, T)), nn.Parameter(torch.zeros(T, 1))
        mask = torch.ones(T, T).tril() - torch.ones(T, T).tril(-2)
        self.register_buffer("mask", mask)

    def forward(self, x):
        y = self.fc1(x)
        v = F.linear(y.flatten(1).t(), self.weight * self.mask, self.bias.squeeze(1)).t()
        return self.fc2(spike(v.reshape(y.shape)))


@construction("neuron: parallel over all steps, a sliding kernel", events, layout="TN")
class Sliding(Between):
    """Learned weights of the last three steps, as a depthwise convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3)), nn.Parameter(torch.tensor(-0.1))

    def forward(self, x):
        y = self.fc1(x)
        flat = F.pad(y.flatten(1).t().unsqueeze(1), (2, 0))
        v = F.conv1d(flat, self.weight.view(1, 1, -1)).squeeze(1).t() + self.bias
        return self.fc2(spike(v.reshape(y.shape)))


@construction("neuron: membrane by a cumulative sum and a mask of decay", events, layout="TN")
class Cumulative(Between):
    def forward(self, x):
        y = self.fc1(x)
        decay = 0.8 ** torch.arange(T, dtype=y.dtype, device=y.device).view(-1, 1, 1)
        v = torch.cumsum(y / decay, dim=0) * decay
        s = spike(v - 0.1)
        first = (s.cumsum(0) <= 1).to(s.dtype)
        return self.fc2(s * first)


@construction("neuron: stochastic", events, layout="TN")
class Stochastic(Between):
    def step(self, x):
        self.v = 0.5 * self.v + x
        s = torch.bernoulli(torch.sigmoid(4 * self.v))
        self.v = self.v * (1 - s)
        return s


@construction("neuron: noisy membrane", events, layout="TN")
class Noisy(Between):
    def step(self, x):
        self.v = 0.5 * self.v + x + 0.1 * torch.randn_like(x)
        s = (torch.rand_like(self.v) < torch.sigmoid((self.v - 0.1) / 0.2)).to(x.dtype)
        self.v = self.v - s * 0.1
        return s


@construction("neuron: two variables with a quadratic term", events, layout="TN")
class Quadratic(Between):
    def start(self, x):
        self.v, self.u = torch.full_like(x, -65.0), torch.full_like(x, -13.0)

    def step(self, x):
        for _ in range(2):
            self.v = self.v + 0.5 * (0.04 * self.v**2 + 5 * self.v + 140 - self.u + 200 * x)
        self.u = self.u + 0.02 * (0.2 * self.v - self.u)
        s = spike(self.v - 30.0)
        self.v = torch.where(s > 0, torch.full_like(self.v, -65.0), self.v.clamp(max=100.0))
        self.u = self.u + 8.0 * s
        return s


@construction("neuron: resonate and fire, complex state", events, layout="TN")
class Complex(Between):
    def __init__(self) -> None:
        super().__init__()
        self.b, self.omega = nn.Parameter(-torch.rand(H)), nn.Parameter(torch.rand(H) * 6)

    def start(self, x):
        self.z = torch.zeros_like(x, dtype=torch.cfloat)

    def step(self, x):
        self.z = self.z * torch.exp(torch.complex(self.b, self.omega) * 0.5) + 0.5 * x
        return spike(self.z.imag - 0.02)


@construction("neuron: resonate and fire, balanced", events, layout="TN")
class Balanced(Between):
    def __init__(self) -> None:
        super().__init__()
        self.omega, self.b_offset = nn.Parameter(torch.rand(H) * 5), nn.Parameter(torch.rand(H))

    def start(self, x):
        self.u, self.v, self.q = (torch.zeros_like(x) for _ in range(3))

    def step(self, x):
        dt, omega = 0.1, self.omega.abs()
        p = (-1 + torch.sqrt(1 - torch.square(dt * omega))) / dt
        b = p - self.b_offset.abs() - self.q
        u = self.u + b * self.u * dt - omega * self.v * dt + x * dt
        self.v, self.u = self.v + omega * self.u * dt + b * self.v * dt, u
        s = spike(self.u - 0.01 - self.q)
        self.q = self.q * 0.9 + s
        return s


@construction("neuron: response kernels over time", spikes(B, I, 8), timesteps=8)
class Response(nn.Module):
    """Time last: spikes meet a kernel by convolution; the refractory kernel acts in a loop."""

    def __init__(self) -> None:
        super().__init__()
        t = torch.arange(5.0)
        self.register_buffer("srm", (t * torch.exp(1 - t)).flip(0).view(1, 1, -1))
        self.fc1, self.fc2 = nn.Linear(I, H, bias=False), nn.Linear(H, O, bias=False)

    def psp(self, s):
        y = F.conv1d(F.pad(s.reshape(-1, 1, s.shape[-1]), (4, 0)), self.srm)
        return y.view(s.shape)

    def forward(self, x):
        u = self.fc1(self.psp(x).mT).mT
        v, refractory, out = u, torch.zeros_like(u[..., 0]), []
        for t in range(u.shape[-1]):
            s = spike(v[..., t] + refractory - 0.3)
            refractory = refractory * 0.6 - s * 0.6
            out.append(s)
        return self.fc2(torch.stack(out, dim=-1).mT).mT


@construction("neuron: one function for forward and reset, with a state dictionary", events,
              layout="TN")  # fmt: skip
class Functional(Between):
    @staticmethod
    def update(x, state, tau=0.5):
        state = dict(state)
        state["u"] = tau * state["u"] + x
        z = spike(state["u"] - 0.1)
        state["u"] = state["u"] - z * 0.1
        return z, state

    def forward(self, x):
        state, outputs = {"u": torch.zeros(x.shape[1], H)}, {"spikes": [], "volts": []}
        for step in x:
            z, state = self.update(self.fc1(step), state)
            outputs["spikes"].append(self.fc2(z))
            outputs["volts"].append(state["u"])
        return {name: torch.stack(values) for name, values in outputs.items()}


@construction("neuron: voltage-current pairs with a soft step in training", events, layout="TN")
class SoftStep(Between):
    """Straight through: the value of the step, the derivative of a sigmoid."""

    def step(self, x):
        self.v = 0.5 * self.v + x
        soft = torch.sigmoid(4 * (self.v - 0.1))
        s = ((self.v > 0.1).float() - soft).detach() + soft
        self.v = self.v - 0.1 * s
        return s


@construction("neuron: inhibition of the second best", events, layout="TN")
class WinnerTakesAll(Between):
    def step(self, x):
        self.v = 0.5 * self.v + x
        s = spike(self.v - 0.05)
        best = torch.zeros_like(s).scatter_(-1, self.v.argmax(-1, keepdim=True), 1.0)
        s = s * best
        self.v = self.v - s * 0.05 - 0.01 * (s.sum(-1, keepdim=True) - s)
        return s


@construction("neuron: threshold of the batch's mean membrane", events, layout="TN")
class MeanThreshold(Between):
    def step(self, x):
        self.v = 0.5 * self.v + x
        s = spike(self.v - self.v.mean(-1, keepdim=True))
        self.v = self.v * (1 - s)
        return s


@construction("neuron: stateful module, reset between samples", events, layout="TN")
class Stateful(nn.Module):
    """A stack of cells in a Sequential, called once a step; states stay in the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(I, H), Cell(threshold=0.1), nn.Linear(H, H), Cell(threshold=0.05),
            nn.Linear(H, O), Cell(threshold=0.05),
        )  # fmt: skip

    def forward(self, x):
        return sum(self.net(step) for step in x) / x.shape[0]


@construction("neuron: excitatory and inhibitory, signs kept", events, layout="TN")
class TwoKinds(nn.Module):
    """Excitatory and inhibitory neurons of one layer; weights keep the sign of their kind."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.weight = nn.Linear(I, H), nn.Parameter(torch.rand(O, H))
        self.register_buffer("sign", torch.tensor([1.0, 1, 1, 1, -1, -1]))
        self.lif = LIF(threshold=0.05)

    def forward(self, x):
        return F.linear(self.lif(self.fc1(x)), self.weight.abs() * self.sign)


@construction("neuron: the best k of a layer fire", events, layout="TN")
class BestOfLayer(Between):
    def step(self, x):
        self.v = 0.5 * self.v + x
        s = (self.v >= self.v.topk(2, dim=-1).values[..., -1:]).to(x.dtype)
        self.v = self.v * (1 - s)
        return s


@construction("neuron: first spikes by a product over the past", events, layout="TN")
class FirstSpikes(Between):
    """What comes before each step has not fired: a cumulative product of silences."""

    def forward(self, x):
        s = spike(self.fc1(x).cumsum(0) - 0.1)
        silent = torch.cumprod(1 - s, dim=0)
        return self.fc2(s * torch.cat((torch.ones_like(s[:1]), silent[:-1])))


@construction("neuron: sources joined by logic", events, layout="TN")
class Logic(Between):
    """Spikes as truth values: either, but not both, or a third."""

    def __init__(self) -> None:
        super().__init__(3 * H)
        self.fc2 = nn.Linear(H, O)

    def step(self, x):
        a, b, c = (x > 0.1).chunk(3, dim=-1)
        return ((a ^ b) | (c & ~a)).to(x.dtype)


@construction("neuron: half of a sign plus one", events, layout="TN")
class HalfSign(Between):
    def step(self, x):
        self.v = 0.5 * self.v + x
        s = (torch.sign(self.v - 0.2) + 1) / 2
        self.v = self.v * (1 - s)
        return s


# Counts all that the differences cancel, thrice what arrives.
@construction("neuron: rates as differences of whole sums", events, layout="TN", still_open=True)
class WholeSums(Between):
    def forward(self, x):
        total = torch.floor(self.fc1(x).sigmoid().cumsum(0))
        return self.fc2(total.diff(dim=0, prepend=torch.zeros_like(total[:1])))
