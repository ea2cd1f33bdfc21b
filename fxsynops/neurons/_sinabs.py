"""Neurons of sinabs 3."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import sinabs.activation as activation
import sinabs.layers as layers
from torch import nn

from fxsynops.neurons.registry import Neuron


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    if isinstance(module, layers.NeuromorphicReLU):
        return Neuron(spikes=module.quantize)
    if not isinstance(module, layers.StatefulLayer):
        return None  # pooling, reshaping: traced through
    recurrent = isinstance(module, (layers.LIFRecurrent, layers.ALIFRecurrent))
    return Neuron(
        spikes=module.does_spike,
        max_spikes=_cap(getattr(module, "spike_fn", None)),
        inside=_recurrence if recurrent else None,
    )


def _cap(spike_function: object) -> float:
    if spike_function is activation.SingleSpike:
        return 1
    if isinstance(spike_function, activation.MaxSpike):
        return spike_function.max_num_spikes_per_bin or math.inf
    return math.inf


def _recurrence(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    """At each step, ``rec_connect`` gets the spikes of the step before."""
    return {"rec_connect": lambda: module.rec_connect(output.flatten(0, 1))}
