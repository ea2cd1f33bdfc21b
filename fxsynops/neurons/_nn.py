"""Neurons of this package."""

from __future__ import annotations

import math

from torch import nn

from fxsynops.neurons.registry import Neuron
from fxsynops.nn import IAF, NeuromorphicReLU


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    if isinstance(module, IAF):  # also IAFSqueeze
        return Neuron(max_spikes=module.max_spikes_per_step or math.inf)
    if isinstance(module, NeuromorphicReLU):
        return Neuron(spikes=module.quantize)
    return None
