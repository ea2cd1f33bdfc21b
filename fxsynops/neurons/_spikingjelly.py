"""Neurons of spikingjelly 2."""

from __future__ import annotations

import math

from spikingjelly.activation_based import base, neuron
from torch import nn

from fxsynops.neurons.registry import Neuron

_ANALOG = (neuron.NonSpikingBaseNode, neuron.LIAFNode)


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    if not any(c.__module__.startswith(neuron.__name__) for c in type(module).__mro__):
        return None  # layers and containers: traced through
    if not isinstance(module, base.StepModule):
        return None
    if isinstance(module, _ANALOG) or type(module).__name__.startswith("NoisyNonSpiking"):
        return Neuron(spikes=False)
    name = type(module).__name__
    if isinstance(module, neuron.ILIFNode):
        return Neuron(max_spikes=getattr(module, "max_spike_count", math.inf))
    if name in ("DSRIFNode", "DSRLIFNode", "STBIFNode") or isinstance(module, _FEW_SPIKE):
        # One event is worth a threshold that may be learned, or one of several weights.
        return Neuron(refused="what one of its events is worth is not known")
    return Neuron(max_spikes=1, signed="Ternary" in name)


_FEW_SPIKE = getattr(neuron, "FewSpikeNode", ())
