"""Neurons of snntorch, 0.5 to 1.0."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fxsynops.neurons.dynamics import (
    Drive,
    Dynamics,
    Feedback,
    NoArgumentError,
    Start,
    Steps,
    above,
    excitation,
    is_heaviside,
    number,
    positive,
    powers,
)
from fxsynops.neurons.registry import Neuron, analog_like, is_librarys, names_of, own_name
from fxsynops.neurons.updates import FILTER, LEAK, LSTM, Update
from fxsynops.operations.synapses import one_to_one

SETTINGS = ("spike_grad",)  # functions that are attributes of a neuron


UPDATES = {
    "Leaky": LEAK,
    "RLeaky": LEAK,
    "LeakyParallel": LEAK,
    "StateLeaky": LEAK,
    "LinearLeaky": LEAK,
    "Lapicque": LEAK,
    "Synaptic": LEAK + FILTER,
    "RSynaptic": LEAK + FILTER,
    "Alpha": LEAK + FILTER + Update(0, 1, 0, 1),
    "SLSTM": LSTM,
    "SConv2dLSTM": LSTM,
}


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    names = _names(module)
    parallel = "LeakyParallel" in names
    if not ("SpikingNeuron" in names or parallel) or "AssociativeLeaky" in names:
        return None  # the last is traced through: its spikes stay inside
    graded = hasattr(module, "graded_spikes_factor")
    in_one_go = "StateLeaky" in names
    return Neuron(
        spikes=bool(module.output) if in_one_go else True,
        max_spikes=1,
        amplitude=(_squared_factor if in_one_go else _factor) if graded else 1.0,
        signed=graded and bool((_factor(module) < 0).any()),
        checked=None if parallel else _fires_once,
        inside=_parallel if parallel else _inside(names),
        dynamics=_dynamics if own_name(type(module), "snntorch") in _DYNAMICS else None,
        steps=lambda *_: Steps(0 if parallel or in_one_go else None),
        returned=_returned,
    )


def _names(module: nn.Module) -> tuple[str, ...]:
    return names_of(type(module), "snntorch")


def _returned(names: tuple[str, ...]) -> dict[str, int]:
    """The spikes themselves may be among the states."""
    states = [name for name in names if name != "spk"]
    return {"spk": 0} | {name: 1 + i for i, name in enumerate(states)}


def reset(module: Any) -> bool:
    """Set what a module keeps between forwards to its start; whether it is one that does."""
    if "SpikingNeuron" not in _names(module):
        return False
    if hasattr(module, "reset_mem"):
        module.reset_mem()
        return True
    states = [name for name in ("syn", "mem", "spk", "syn_exc", "syn_inh") if name in vars(module)]
    unset: Any = getattr(sys.modules[_OF_STATES], "_SpikeTensor", None)
    for name in states if unset else ():  # before 0.9: all of a class are reset at once, there
        setattr(module, name, unset(init_flag=False))
    return bool(states)  # StateLeaky has what it never reads


_OF_STATES = "snntorch._neurons.neurons"


def _fires_once(module: Any) -> bool:
    return is_librarys(type(module).fire) and is_heaviside(module.spike_grad)


def _factor(module: Any) -> Any:
    return module.graded_spikes_factor


def _squared_factor(module: Any) -> Any:
    """Both ``fire`` and ``forward`` multiply by it."""
    return module.graded_spikes_factor**2


def _inside(names: tuple[str, ...]) -> Any:
    return next((inside for name, inside in _INSIDE.items() if name in names), None)


Synapses = dict[str, Callable[[], Any]]


def _spikes(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _recurrent(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    if getattr(module, "all_to_all", False):
        return {"recurrent": lambda: module.recurrent(_spikes(output))}
    return {"recurrent": lambda: one_to_one(_spikes(output), _one_to_one_weight(module))}


def _one_to_one_weight(module: Any) -> Any:
    """Of each neuron to itself: before 0.6, the neuron holds it."""
    return module.recurrent.V if hasattr(module, "recurrent") else module.V


def _lstm(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    """The cell's own recurrence is on the hidden state, which is analog."""
    cell = module.lstm_cell
    return {
        "input_weights": lambda: F.linear(given["input_"], cell.weight_ih, cell.bias_ih),
        "recurrent_weights": lambda: F.linear(
            analog_like(_spikes(output)), cell.weight_hh, cell.bias_hh
        ),
    }


def _conv_lstm(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    """One convolution over the input's channels and those of the hidden state."""
    conv, x = module.conv, given["input_"]
    channels = x.shape[1]

    def state() -> Any:
        return analog_like(x[:, :1]).expand(-1, module.out_channels, -1, -1)

    def convolve(x: Any, weight: Any, bias: Any = None) -> Any:
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation)

    return {
        "input_weights": lambda: convolve(x, conv.weight[:, :channels], conv.bias),
        "recurrent_weights": lambda: convolve(state(), conv.weight[:, channels:]),
    }


def _linear(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    weight, bias = module.linear.weight, module.linear.bias
    return {"input_weights": lambda: F.linear(given["input_"], weight, bias)}


def _parallel(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    """A network of ``nn.RNN`` neurons whose rectified states are compared with the threshold."""
    rnn = module.rnn
    first, again = (getattr(rnn, name, None) for name in ("bias_ih_l0", "bias_hh_l0"))
    return {
        "input_weights": lambda: F.linear(given["input_"], rnn.weight_ih_l0, first),
        "recurrent_weights": lambda: F.linear(
            analog_like(_spikes(output)), rnn.weight_hh_l0, again
        ),
    }


def _threshold(module: Any) -> torch.Tensor:
    if module.state_quant:
        raise NoArgumentError("its state is quantized, which makes charge")
    if not is_heaviside(module.spike_grad):
        raise NoArgumentError("its spike_grad is no step from 0 to 1")
    return positive(module.threshold, "threshold")


def _kernel(module: Any, start: Start) -> Dynamics:
    """Every input is seen again at every later step, decayed by e^(−1/τ); nothing is taken off."""
    theta = _threshold(module)
    decay = torch.exp(-1 / positive(module.tau, "time constant"))
    return Dynamics(Drive(theta, powers(decay, 0, start.length())))


def _leaky(module: Any, start: Start) -> Dynamics:
    """V ← β·v + i; θ off (or v to 0), now or at the next step, for each spike."""
    theta = _threshold(module)
    v = above(start.state(module.mem), 0.0)
    if module.reset_mechanism == "none":
        return _remembers(theta, _decay(module.beta), v, start.length())
    return Dynamics(Drive(theta, 1.0, v))


def _recurrent_leaky(module: Any, start: Start) -> Dynamics:
    """As Leaky, with spikes that come back one step later."""
    theta = _threshold_with_reset(module)
    v = above(start.state(module.mem, 1), 0.0)
    feedback = _feedback(module, start)
    v = v + _left(module, start, feedback)
    return Dynamics(Drive(theta, 1.0, v), feedback=feedback)


def _decay(value: Any) -> torch.Tensor:
    return value.detach().double().clamp(0, 1).cpu()


def _threshold_with_reset(module: Any) -> torch.Tensor:
    if module.reset_mechanism == "none":
        raise NoArgumentError("it has no reset")
    return _threshold(module)


def _feedback(module: Any, start: Start) -> Feedback:
    if hasattr(module, "graded_spikes_factor") and bool((_factor(module) != 1).any()):
        raise NoArgumentError("the spikes that come back to it are graded")
    if getattr(module, "all_to_all", False):
        return excitation(module.recurrent, start.shape[1:])
    gain = _one_to_one_weight(module).detach().double().clamp(min=0).cpu()
    return Feedback(lambda events: events * gain)


def _left(module: Any, start: Start, feedback: Feedback) -> Any:
    """What the spikes before the window bring."""
    spikes = start.state(module.spk)
    if spikes is None:
        return 0.0
    spikes = spikes if spikes.dim() > 1 else spikes.expand(1, *start.shape[1:])
    return feedback.weights(spikes.clamp(min=0)).amax(0, keepdim=True)


def _remembers(theta: torch.Tensor, decay: torch.Tensor, v: Any, steps: int) -> Dynamics:
    """Without a reset, charge is seen again at every later step, decayed."""
    return Dynamics(Drive(theta, powers(decay, 0, steps), v * powers(decay, 1, steps)))


def _lapicque(module: Any, start: Start) -> Dynamics:
    """V ← (1 − Δt/RC)·v + Δt/C·i."""
    theta = _threshold(module)
    decay = 1 - number(module.time_step / (module.R * module.C), "decay", 0, 1)
    gain = positive(module.time_step / module.C, "input gain")
    v = above(start.state(module.mem), 0.0)
    if module.reset_mechanism == "none":
        drive = _remembers(theta, decay, v, start.length()).up
        return Dynamics(Drive(theta, drive.gain * gain, drive.start))
    return Dynamics(Drive(theta, gain, v))


def _synaptic(module: Any, start: Start) -> Dynamics:
    """As Leaky, driven by a current that decays with α."""
    theta = _threshold_with_reset(module)
    alpha = _decay(module.alpha)
    charge: Any = above(start.state(module.syn), 0.0) * powers(alpha, 1, start.length())
    charge = charge + above(start.state(module.mem, 1), 0.0)
    return Dynamics(Drive(theta, powers(alpha, 0, start.length()), charge))


def _recurrent_synaptic(module: Any, start: Start) -> Dynamics:
    """As Synaptic, with spikes that come back one step later."""
    theta = _threshold_with_reset(module)
    alpha, feedback = _decay(module.alpha), _feedback(module, start)
    reach = powers(alpha, 0, start.length())
    charge: Any = above(start.state(module.syn, 1), 0.0) * powers(alpha, 1, start.length())
    charge = charge + above(start.state(module.mem, 2), 0.0)
    charge = charge + reach * _left(module, start, feedback)
    return Dynamics(Drive(theta, reach, charge), feedback=feedback)


def _alpha(module: Any, start: Start) -> Dynamics:
    """A spike empties both filters; each input's share of v peaks at K = τ_α·max(α^k − β^k)."""
    if module.reset_mechanism != "zero":
        raise NoArgumentError("its reset is not to zero")
    theta = _threshold(module)
    alpha, beta = number(module.alpha, "α", 0, 1), number(module.beta, "β", 0, 1)
    if not bool(((beta > 0) & (beta < alpha) & (alpha < 1)).all()):
        raise NoArgumentError("its decays are not 0 < β < α < 1")
    for position, state in enumerate((module.syn_exc, module.syn_inh, module.mem)):
        held = start.state(state, position)
        if held is not None and bool(held.any()):
            raise NoArgumentError("its filters hold charge")
    if torch.broadcast_shapes(alpha.shape, beta.shape) != torch.Size(()):
        raise NoArgumentError("its decays differ between neurons")
    worth = torch.log(alpha) / (torch.log(beta) - torch.log(alpha)) + 1
    k = torch.arange(start.length() + 1, dtype=torch.float64)
    return Dynamics(Drive(theta, (worth * (alpha**k - beta**k)).amax().clamp(min=0)))


def _lstm_cell(module: Any, start: Start) -> Dynamics:
    """Its membrane is an LSTM's hidden state, which is never above 1."""
    theta = _threshold(module)
    if not bool((theta >= 1).all()):
        raise NoArgumentError("its membrane is an LSTM's state")
    held = start.state(module.mem, 1)
    if held is not None and bool((held > 1).any()):
        raise NoArgumentError("its membrane is above 1")
    return Dynamics(Drive(theta, 0.0))


def _dynamics(module: Any, start: Start) -> Dynamics:
    """What the module's type says; its states may be set to zero at any time."""
    states = ("mem", "syn", "spk")
    found: Dynamics = _DYNAMICS[type(module).__name__](module, start)
    return replace(found, resets=dict.fromkeys(states, 0.0))


_INSIDE = {
    "RLeaky": _recurrent,
    "RSynaptic": _recurrent,
    "SLSTM": _lstm,
    "SConv2dLSTM": _conv_lstm,
    "LinearLeaky": _linear,
}
_DYNAMICS: dict[str, Any] = {
    "Leaky": _leaky,
    "Lapicque": _lapicque,
    "Synaptic": _synaptic,
    "Alpha": _alpha,
    "RLeaky": _recurrent_leaky,
    "RSynaptic": _recurrent_synaptic,
    "StateLeaky": _kernel,
    "SLSTM": _lstm_cell,
}
