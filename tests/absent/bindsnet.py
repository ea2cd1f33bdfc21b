"""Layers of nodes of bindsnet, which return nothing, and keep their spikes in ``s``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Nodes(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("s", torch.zeros(1, n, dtype=torch.bool))
        self.register_buffer("v", torch.zeros(1, n))

    def forward(self, x: Tensor) -> None:
        self.v = self.v + x
        self.s = self.v >= 1.0
        self.v = self.v.masked_fill(self.s, 0.0)

    def reset_state_variables(self) -> None:
        self.s, self.v = torch.zeros_like(self.s), torch.zeros_like(self.v)


class AbstractInput:
    pass


class Input(AbstractInput, Nodes):
    def forward(self, x: Tensor) -> None:
        self.s = x


class IFNodes(Nodes):
    pass


class IzhikevichNodes(Nodes):
    """Its neurons send each other their spikes."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.register_buffer("S", 0.3 * torch.ones(n, n))

    def forward(self, x: Tensor) -> None:
        super().forward(x + self.s.float() @ self.S.T)


class NoOp:
    pass


class PostPre:
    pass


class Feature:
    def __init__(self, learning_rule: Any) -> None:
        self.learning_rule = learning_rule


class Connection(nn.Module):
    """Weights, perhaps with a rule that changes them; or a pipeline of features."""

    def __init__(self, n: int, m: int, rule: Any = None, pipeline: Any = None) -> None:
        super().__init__()
        self.w, self.update_rule = nn.Parameter(torch.rand(n, m)), rule
        if pipeline is not None:
            self.pipeline = pipeline

    def forward(self, s: Tensor) -> Tensor:
        return s @ self.w


class Network(nn.Module):
    """Two layers and what is between them; a reset is that of its layers."""

    def __init__(self, first: nn.Module, connection: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.connection, self.second = first, connection, second

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for step in x:
            self.first(step)
            self.second(self.connection(self.first.s))
            found.append(self.second.s.float())
        return torch.stack(found)

    def reset_state_variables(self) -> None:
        self.first.reset_state_variables()
        self.second.reset_state_variables()
