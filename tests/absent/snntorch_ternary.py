"""The neuron of snntorch-ternary: −1, 0 or 1 spikes, times a factor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def atan_ternary(x: Tensor) -> Tensor:
    """The package's own surrogate: a sign."""
    return x.sign()


def heaviside(x: Tensor) -> Tensor:
    return (x > 0).float()


def halves(x: Tensor) -> Tensor:
    """No sign, and no step: half a spike below zero."""
    return torch.where(x > 0, 1.0, -0.5)


class TernaryLeaky(nn.Module):
    def __init__(self, spike_grad: Any = atan_ternary, graded_spikes_factor: float = 1.0) -> None:
        super().__init__()
        self.spike_grad = spike_grad
        self.graded_spikes_factor = torch.tensor(graded_spikes_factor)

    def ternary_fire(self, mem: Tensor) -> Tensor:
        up, down = self.spike_grad(mem - 1.0), self.spike_grad(-mem - 1.0)
        return (up - down) * self.graded_spikes_factor

    def forward(self, x: Tensor) -> Tensor:
        return self.ternary_fire(x)


class Encoder(nn.Module):
    """No neuron."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sign()
