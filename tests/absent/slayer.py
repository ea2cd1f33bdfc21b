"""Neurons of lava-dl's slayer; time is the last axis. Each class is put where slayer has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SLAYER = "lava.lib.dl.slayer"


def at(place: str, name: str) -> Any:
    """Put a class into one of slayer's modules, by its name there."""

    def put(cls: type) -> type:
        cls.__module__, cls.__name__ = f"{SLAYER}.{place}", name
        return cls

    return put


@at("neuron.dropout", "Dropout")
class Dropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@at("neuron.base", "Neuron")
class Base(nn.Module):
    def __init__(self, threshold: float = 1.0, **options: Any) -> None:
        super().__init__()
        given = {"s_scale": 64, "p_scale": 4096, "norm": None, "drop": None, "graded_spike": False}
        given |= {"threshold_eps": 0.01 / 64, "persistent_state": False} | options
        self.threshold = threshold
        for name, value in given.items():
            setattr(self, name, value)

    def out(self, spikes: list[Tensor]) -> Tensor:
        found = torch.stack(spikes, -1)
        return found if self.drop is None else self.drop(found)


@at("neuron.cuba", "Neuron")
class Current(Base):
    """I ← (1 − α)·i + input, V ← (1 − β)·v + i; a spike sets v to 0."""

    def __init__(self, threshold: float, current: float, voltage: float, **options: Any) -> None:
        super().__init__(threshold, **options)
        for name, decay in (("current_decay", current), ("voltage_decay", voltage)):
            self.register_buffer(name, torch.tensor([self.p_scale * decay]))
        self.register_buffer("current_state", torch.zeros(1))
        self.register_buffer("voltage_state", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        i, v, found = self.current_state, self.voltage_state, []
        for step in x.unbind(-1):
            i = (1 - self.current_decay / self.p_scale) * i + step
            v = (1 - self.voltage_decay / self.p_scale) * v + i
            found.append((v >= self.threshold + self.threshold_eps).float())
            v = v * (1 - found[-1])
        if self.persistent_state:
            self.current_state, self.voltage_state = i.detach(), v.detach()
        return self.out(found)


@at("neuron.alif", "Neuron")
class Adaptive(Base):
    """Its threshold is a state, too."""

    def __init__(self, threshold: float) -> None:
        super().__init__(threshold)
        self.register_buffer("threshold_state", torch.tensor([threshold]))
        self.register_buffer("voltage_state", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for step in x.unbind(-1):
            self.voltage_state = self.voltage_state + step
            found.append((self.voltage_state >= self.threshold_state).float())
            self.voltage_state = self.voltage_state * (1 - found[-1])
            self.threshold_state = self.threshold_state + 0.1
        return self.out(found)


@at("neuron.sigma_delta", "Neuron")
class SigmaDelta(Base):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.3


@at("axon.delta", "Delta")
class Delta(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.diff(dim=-1, prepend=torch.zeros_like(x[..., :1])) * 0.3


@at("block.base", "AbstractRecurrent")
class Recurrent(nn.Module):
    """Its spikes come back one step later."""

    def __init__(self, neuron: nn.Module, inputs: int, size: int, delay: Any = None) -> None:
        super().__init__()
        self.neuron, self.delay, self.delay_buffer = neuron, delay, None
        self.input_synapse = nn.Conv1d(inputs, size, 1, bias=False)
        self.recurrent_synapse = nn.Conv1d(size, size, 1, bias=False)
        nn.init.constant_(self.input_synapse.weight, 0.6)

    def forward(self, x: Tensor) -> Tensor:
        spikes, found = torch.zeros(len(x), self.recurrent_synapse.in_channels, 1), []
        for step in x.split(1, -1):
            spikes = self.neuron(self.input_synapse(step) + self.recurrent_synapse(spikes))
            found.append(spikes)
        return torch.cat(found, -1)


class FixedDelay(torch.autograd.Function):
    """Later by some steps; ``sampling_time`` is how long a step is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delay: Any, sampling_time: float = 1) -> Tensor:
        steps = int(delay / sampling_time)
        return torch.cat([torch.zeros_like(x[..., :steps]), x[..., : x.shape[-1] - steps]], -1)


class LearnedDelay(torch.autograd.Function):
    """Later by whole steps, which each channel has learned."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delay: Tensor) -> Tensor:
        rows = [
            torch.cat([torch.zeros_like(row[..., :n]), row[..., : row.shape[-1] - n]], -1)
            for row, n in zip(x.unbind(1), delay.floor().int().tolist(), strict=True)
        ]
        return torch.stack(rows, 1)
