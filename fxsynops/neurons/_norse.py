"""Neurons of norse 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import norse.torch.module as module_package
import torch.nn.functional as F
from norse.torch.module import (
    leaky_integrator,
    leaky_integrator_box,
    snn,
    spikes_to_times_decoder,
)
from torch import nn

from fxsynops.neurons.registry import Neuron, analog_like

_ANALOG = (
    leaky_integrator.LICell,
    leaky_integrator.LI,
    leaky_integrator_box.LIBoxCell,
    spikes_to_times_decoder.SpikesToTimesDecoder,
)
_FEED_FORWARD = (snn.SNNCell, snn.SNN)
_RECURRENT = (snn.SNNRecurrentCell, snn.SNNRecurrent)


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    if isinstance(module, _ANALOG):
        return Neuron(spikes=False)
    if isinstance(module, _FEED_FORWARD):
        return Neuron(max_spikes=1)
    if isinstance(module, leaky_integrator.LILinearCell):
        return Neuron(spikes=False, inside=_inside)
    file = type(module).__module__.removeprefix(f"{module_package.__name__}.")
    if isinstance(module, _RECURRENT) or file == "coba_lif":
        return Neuron(max_spikes=1, inside=_inside)
    if file == "lif_correlation":
        return Neuron(max_spikes=1, refused="its weights are part of its state")
    return None


def _inside(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    spikes, x = output[0], given["input_tensor"]
    synapses = {"input_weights": lambda: F.linear(x, module.input_weights)}
    if hasattr(module, "recurrent_weights"):
        synapses["recurrent_weights"] = lambda: F.linear(spikes, module.recurrent_weights)
    if hasattr(module, "g_coupling"):  # between the membrane potentials of compartments
        synapses["g_coupling"] = lambda: F.linear(analog_like(spikes), module.g_coupling)
    return synapses
