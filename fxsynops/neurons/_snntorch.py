"""Neurons of snntorch 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import snntorch
import torch.nn.functional as F
from torch import nn

from fxsynops.neurons.registry import Neuron, analog_like
from fxsynops.operations.synapses import one_to_one


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    parallel = "Leaky" in type(module).__name__ and isinstance(getattr(module, "rnn", None), nn.RNN)
    if not isinstance(module, snntorch.SpikingNeuron) and not parallel:
        return None
    if isinstance(module, snntorch.AssociativeLeaky):
        return None  # traced through: its spikes stay inside
    graded = hasattr(module, "graded_spikes_factor")
    in_one_go = isinstance(module, snntorch.StateLeaky)
    return Neuron(
        spikes=bool(module.output) if in_one_go else True,
        max_spikes=1,
        amplitude=(_squared_factor if in_one_go else _factor) if graded else 1.0,
        signed=graded,
        inside=_parallel if parallel else _inside(module),
    )


def _factor(module: Any) -> Any:
    return module.graded_spikes_factor


def _squared_factor(module: Any) -> Any:
    """Both ``fire`` and ``forward`` multiply by it."""
    return module.graded_spikes_factor**2


def _inside(module: nn.Module) -> Any:
    if isinstance(module, (snntorch.RLeaky, snntorch.RSynaptic)):
        return _recurrent
    if isinstance(module, snntorch.SLSTM):
        return _lstm
    if isinstance(module, snntorch.SConv2dLSTM):
        return _conv_lstm
    if isinstance(module, snntorch.LinearLeaky):
        return _linear
    return None


Synapses = dict[str, Callable[[], Any]]


def _spikes(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _recurrent(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    if module.all_to_all:
        return {"recurrent": lambda: module.recurrent(_spikes(output))}
    return {"recurrent": lambda: one_to_one(_spikes(output), module.recurrent.V)}


def _lstm(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    """The cell's own recurrence is on the hidden state, which is analog."""
    cell = module.lstm_cell
    return {
        "input_weights": lambda: F.linear(given["input_"], cell.weight_ih),
        "recurrent_weights": lambda: F.linear(analog_like(_spikes(output)), cell.weight_hh),
    }


def _conv_lstm(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    """One convolution over the input's channels and those of the hidden state."""
    conv, x = module.conv, given["input_"]
    channels = x.shape[1]

    def state() -> Any:
        return analog_like(x[:, :1]).expand(-1, module.out_channels, -1, -1)

    def convolve(x: Any, weight: Any) -> Any:
        return F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation)

    return {
        "input_weights": lambda: convolve(x, conv.weight[:, :channels]),
        "recurrent_weights": lambda: convolve(state(), conv.weight[:, channels:]),
    }


def _linear(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    return {"input_weights": lambda: F.linear(given["input_"], module.linear.weight)}


def _parallel(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    """A network of ``nn.RNN`` neurons whose rectified states are compared with the threshold."""
    rnn = module.rnn
    return {
        "input_weights": lambda: F.linear(given["input_"], rnn.weight_ih_l0),
        "recurrent_weights": lambda: F.linear(analog_like(_spikes(output)), rnn.weight_hh_l0),
    }
