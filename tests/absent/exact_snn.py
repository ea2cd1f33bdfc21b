"""A layer of exact-snn-nn: times of spikes in, times of spikes out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ExactTTFSLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.n_out = nn.Parameter(torch.rand(outputs, inputs)), outputs

    def forward(self, times: Tensor) -> Tensor:
        return (times[..., None, :] + self.weight).amin(-1)


class ExactTTFSNetwork(nn.Module):
    """Layers that hold the weights."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, times: Tensor) -> Tensor:
        return self.layers(times)
