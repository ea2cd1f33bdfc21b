"""Neurons of snntorch 1."""

from __future__ import annotations

import snntorch
from torch import nn

from fxsynops.neurons.registry import Neuron

_WITH_INPUT_WEIGHTS = (snntorch.SLSTM, snntorch.SConv2dLSTM)
_RECURRENT = (snntorch.RLeaky, snntorch.RSynaptic)


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    name = type(module).__name__
    if not isinstance(module, snntorch.SpikingNeuron) and "Leaky" not in name:
        return None
    weights = None
    if isinstance(module, _WITH_INPUT_WEIGHTS):
        weights = "input"
    elif isinstance(module, _RECURRENT):
        weights = "recurrent"
    graded = hasattr(module, "graded_spikes_factor")
    return Neuron(
        max_spikes=1,
        amplitude="graded_spikes_factor" if graded else 1.0,
        signed=graded,
        weights=weights,
    )
