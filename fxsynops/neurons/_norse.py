"""Neurons of norse 1."""

from __future__ import annotations

import norse.torch.module as module_package
from norse.torch.module import leaky_integrator, leaky_integrator_box, snn
from torch import nn

from fxsynops.neurons.registry import Neuron

_ANALOG = (leaky_integrator.LICell, leaky_integrator.LI, leaky_integrator_box.LIBoxCell)
_FEED_FORWARD = (snn.SNNCell, snn.SNN)
_RECURRENT = (snn.SNNRecurrentCell, snn.SNNRecurrent)
_CELLS = ("lif_mc", "lif_mc_refrac", "coba_lif", "lif_correlation")


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    if isinstance(module, _ANALOG):
        return Neuron(spikes=False)
    if isinstance(module, _FEED_FORWARD):
        return Neuron(max_spikes=1)
    if isinstance(module, leaky_integrator.LILinearCell):
        return Neuron(spikes=False, weights="input")
    file = type(module).__module__.removeprefix(f"{module_package.__name__}.")
    if isinstance(module, _RECURRENT) or file in _CELLS:
        return Neuron(max_spikes=1, weights="input and recurrent")
    return None
