"""Small models with what makes tracing hard."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.networks import Heaviside


class Surrogate(torch.autograd.Function):
    """A custom surrogate gradient that nothing but this function would give."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 0.123 / (1 + x.abs())


early = Surrogate.apply  # bound before any tracing


class Loop(nn.Module):
    """A user's own time loop over (batch, time, features), membrane local to the forward."""

    def __init__(self, apply=Surrogate.apply):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)
        self.spike = apply

    def forward(self, x):
        if x.ndim == 2:
            x = x.unsqueeze(0)
        mem = torch.zeros(x.shape[0], 5, dtype=x.dtype, device=x.device)
        out = torch.zeros(x.shape[0], x.shape[1], 3, dtype=x.dtype, device=x.device)
        for t in range(x.shape[1]):
            mem = 0.9 * mem + self.fc1(x[:, t])
            spikes = self.spike(mem - 0.5)
            mem = mem - spikes.detach() * 0.5
            out[:, t] = self.fc2(spikes)
        return out


class EarlyBound(Loop):
    def forward(self, x):
        self.spike = early
        return super().forward(x)


class Stateful(nn.Module):
    """Keeps its membrane in an attribute, between calls too."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)
        self.mem = None

    def reset(self):
        self.mem = None

    def forward(self, x):
        outputs = []
        for t in range(x.shape[1]):
            current = self.fc1(x[:, t])
            if self.mem is None or self.mem.shape != current.shape:
                self.mem = torch.zeros_like(current)
            self.mem = 0.8 * self.mem + current
            spikes = (self.mem > 0.3).float()
            self.mem = self.mem - 0.3 * spikes
            outputs.append(self.fc2(spikes))
        return torch.stack(outputs, 1)


class Holder:
    """A plain object that keeps state."""

    def __init__(self):
        self.mem = None


class Nested(nn.Module):
    """Keeps state in a list, a dict, a tuple, a plain object, a buffer and a number."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)
        self.listed, self.keyed, self.paired = [], {"mem": None}, (None, 0)
        self.holder = Holder()
        self.register_buffer("trace", torch.zeros(5))
        self.calls = 0

    def reset(self):
        self.__init__()

    def forward(self, x):
        current = self.fc1(x[:, 0])
        if self.holder.mem is None:
            self.holder.mem = torch.zeros_like(current)
            self.keyed["mem"] = torch.ones_like(current)
        self.holder.mem = self.holder.mem + current
        self.keyed["mem"] = self.keyed["mem"] * 0.5
        self.paired = (current * 2, self.paired[1] + 1)
        spikes = (self.holder.mem + self.keyed["mem"] > 0.5).float()
        self.trace += spikes.mean(0)
        self.trace.mul_(0.9)
        self.listed.append(float(len(self.listed)))
        self.calls += 1
        return self.fc2(spikes) + self.trace.sum() + self.calls + self.paired[0].sum()


class InPlace(nn.Module):
    """Writes in place, through views and with out=."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.fc1(x[:, 0])
        h.mul_(2.0)
        h[:, 0] += 1.0
        left, right = h[:, :3], h[:, 3:]
        right.copy_(left.detach() * 0.5)
        spikes = Surrogate.apply(h)
        buffer = torch.empty_like(spikes)
        torch.mul(spikes.detach(), 1.0, out=buffer)
        view = buffer[:, :3]
        view[:, 1] = 0
        merged = spikes.clone()
        merged[:, ::2] = buffer[:, ::2]
        return self.fc2(merged)


class Modes(nn.Module):
    """Dropout, batch norm, randomness and a no_grad block."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        h = self.norm(self.fc1(x[:, 0]))
        with torch.no_grad():
            noise = torch.rand_like(h) * self.fc1.weight.mean()
        spikes = self.dropout(Heaviside.apply(h + noise))
        return self.fc2(spikes)


class Outputs(nn.Module):
    """Several inputs, optional arguments, and a dict of outputs."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x, y=None, *, scale=1.0):
        h = self.fc1(x[:, 0])
        if y is not None:
            h = h + self.fc1(y[:, 0])
        s = Heaviside.apply(h)
        return {"out": self.fc2(s) * scale, "states": [(s, h)], "n": 3}


class Functional(nn.Module):
    """Functional convolutions with a computed weight, and a branch on a shape."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 3))
        self.gain = nn.Parameter(torch.ones(()))
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        h = F.conv1d(x[:, :1], self.weight * self.gain)
        return self.fc(Heaviside.apply(h).flatten(1))


class Branches(nn.Module):
    """Branches on data."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.fc1(x[:, 0])
        if x.sum() > 10:  # the branch
            h = h * 2
        return self.fc2(Heaviside.apply(h))


class ResetsInForward(nn.Module):
    """Resets the neurons it holds inside of its own forward."""

    def __init__(self, neuron, reset):
        super().__init__()
        self.fc1, self.neuron, self.fc2 = nn.Linear(6, 5), neuron, nn.Linear(5, 3)
        self.reset_neuron = reset

    def forward(self, x):
        self.reset_neuron(self.neuron)
        return self.fc2(self.neuron(self.fc1(x[:, 0]) * 3))


class NoneBuffer(nn.Module):
    """A buffer that is None at first, and one that is not there at first."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)
        self.register_buffer("mem", None)

    def forward(self, x):
        current = self.fc1(x[:, 0])
        if self.mem is None:
            self.mem = torch.zeros_like(current)
        if not hasattr(self, "late"):
            self.register_buffer("late", torch.zeros_like(current))
        if getattr(self, "later", None) is None:
            self.later = torch.ones_like(current)
        self.mem = self.mem + current
        self.late = self.late + 1
        self.later = self.later * 2
        return self.fc2((self.mem > 0.5).float()) + self.late.sum() + self.later.sum()


class AsksForModes(nn.Module):
    """Branches on gradient mode, requires_grad, strides and whether a size is what it was."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.fc1(x[:, 0])
        if torch.is_grad_enabled():
            h = h * 2
        if x.requires_grad:
            h = h * 3
        if self.fc1.weight.requires_grad:
            h = h + 1
        flat = x.view(-1) if x.is_contiguous() else x.reshape(-1)
        return self.fc2(Heaviside.apply(h)) + flat.sum() + h.mean()
