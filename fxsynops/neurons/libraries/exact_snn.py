"""Layers of exact-snn-nn 3, which hand on the times of spikes, and have their synapses inside."""

from __future__ import annotations

from torch import nn

from fxsynops.neurons.registry import Neuron

_TIMES = (
    "what it returns are the times of spikes, infinite where there is none, and no events. Each "
    "finite time that reaches it is an event for each of its outputs: "
    "layer.n_out * times.isfinite().sum()"
)


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    has_weights = any(True for _ in module.parameters(recurse=False))
    return Neuron(refused=_TIMES) if has_weights else None
