"""The two networks of the sinabs how-to, in sinabs' layers and in this package's."""

from __future__ import annotations

import sinabs.layers as sl
import torch
from torch import nn

import fxsynops.nn as fnn

LIBRARIES = {"sinabs": sl, "fxsynops": fnn}


def pool(layers, kind: str) -> nn.Module:
    return nn.AvgPool2d(2) if kind == "average" else layers.SumPool2d(2)


def snn(layers, batch_size: int = 5, pooling: str = "average") -> nn.Sequential:
    return nn.Sequential(
        layers.FlattenTime(),
        nn.Conv2d(1, 16, 5, bias=False),
        layers.IAFSqueeze(batch_size=batch_size),
        pool(layers, pooling),
        nn.Conv2d(16, 32, 5, bias=False),
        layers.IAFSqueeze(batch_size=batch_size),
        pool(layers, pooling),
        nn.Conv2d(32, 120, 4, bias=False),
        layers.IAFSqueeze(batch_size=batch_size),
        nn.Flatten(),
        nn.Linear(120, 10, bias=False),
        layers.IAFSqueeze(batch_size=batch_size),
        layers.UnflattenTime(batch_size=batch_size),
    )


def ann(layers) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, bias=False),
        layers.NeuromorphicReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 5, bias=False),
        layers.NeuromorphicReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 120, 4, bias=False),
        layers.NeuromorphicReLU(),
        nn.Flatten(),
        nn.Linear(120, 10, bias=False),
    )


def reset(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "reset_states"):
            module.reset_states()


def amplify(model: nn.Module, factor: float) -> nn.Module:
    """Larger weights, so that the hidden layers of an untrained network fire."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight *= factor
    return model
