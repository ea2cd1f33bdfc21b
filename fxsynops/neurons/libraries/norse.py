"""Neurons of norse, 0.0.7 to 1.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import nn

from fxsynops.neurons.dynamics import (
    Drive,
    Dynamics,
    NoArgumentError,
    Start,
    Steps,
    largest,
    number,
    positive,
    powers,
)
from fxsynops.neurons.registry import Neuron, analog_like, is_librarys, names_of, own_name
from fxsynops.neurons.updates import (
    ADAPT,
    EXPONENTIAL,
    FILTER,
    INTEGRATE,
    IZHIKEVICH,
    LEAK,
    Update,
)

_ANALOG = {"LICell", "LI", "LIBoxCell", "SpikesToTimesDecoder"}
_FEED_FORWARD = {"SNNCell", "SNN"}
_RECURRENT = {"SNNRecurrentCell", "SNNRecurrent"}


UPDATES = {
    **dict.fromkeys(("IAF", "IAFCell"), INTEGRATE),
    **dict.fromkeys(("LIFBoxCell", "LIFBox"), LEAK),
    **dict.fromkeys(("LIF", "LIFCell", "LIFRecurrent", "LIFRecurrentCell"), LEAK + FILTER),
    **dict.fromkeys(
        ("LSNN", "LSNNCell", "LSNNRecurrent", "LSNNRecurrentCell"), LEAK + FILTER + ADAPT
    ),
    **dict.fromkeys(
        ("LIFRefracCell", "LIFRefracRecurrentCell"), LEAK + FILTER + Update(1, 0, 1, 1)
    ),
    **dict.fromkeys(
        ("Izhikevich", "IzhikevichCell", "IzhikevichRecurrent", "IzhikevichRecurrentCell"),
        IZHIKEVICH,
    ),
    **dict.fromkeys(
        ("LIFEx", "LIFExCell", "LIFExRecurrent", "LIFExRecurrentCell"), EXPONENTIAL + FILTER
    ),
    **dict.fromkeys(
        ("LIFAdEx", "LIFAdExCell", "LIFAdExRecurrent", "LIFAdExRecurrentCell"),
        EXPONENTIAL + FILTER + ADAPT,
    ),
    **dict.fromkeys(("LI", "LICell", "LILinearCell"), FILTER + Update(0, 1, 0, 1)),
    "LIBoxCell": Update(0, 1, 0, 1),
}


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    names = set(names_of(type(module), "norse"))
    if names & _ANALOG:
        return Neuron(spikes=False)
    if names & _FEED_FORWARD:
        dynamics = _DYNAMICS.get(own_name(type(module), "norse"))
        return Neuron(max_spikes=1, checked=_steps_as_norse, dynamics=dynamics, steps=_steps)
    if "LILinearCell" in names:
        return Neuron(spikes=False, inside=_inside)
    if names & _RECURRENT or "CobaLIFCell" in names:
        return Neuron(max_spikes=1, checked=_steps_as_norse, inside=_inside, steps=_steps)
    if "LIFCorrelation" in names:
        return Neuron(max_spikes=1, refused="its weights are part of its state")
    return None


def _steps_as_norse(module: Any) -> bool:
    """Whether the function that it applies at each step is the library's."""
    step = getattr(module, "activation", None)
    return step is None or is_librarys(step)


def _at_rest(module: Any, start: Start) -> None:
    """The window must start with the states that the library makes."""
    if any(state is not None for state in start.given):
        raise NoArgumentError("the forward gives it a first state")
    if hasattr(module, "state_fallback") and not is_librarys(module.state_fallback):
        raise NoArgumentError("its first state is made by a function of the user's")


def _inside(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    spikes, x = output[0], given["input_tensor"]
    synapses = {"input_weights": lambda: F.linear(x, module.input_weights)}
    if hasattr(module, "recurrent_weights"):
        synapses["recurrent_weights"] = lambda: F.linear(spikes, module.recurrent_weights)
    if hasattr(module, "g_coupling"):  # between the membrane potentials of compartments
        synapses["g_coupling"] = lambda: F.linear(analog_like(spikes), module.g_coupling)
    return synapses


def _rates(module: Any, p: Any, start: Start) -> tuple[Any, Any]:
    """Δt over the time constants of membrane and synapse; the window must start at rest."""
    _at_rest(module, start)
    if not module.activation.__name__.endswith("feed_forward_step"):
        raise NoArgumentError(f"its step is {module.activation.__name__}")
    membrane = number(module.dt * p.tau_mem_inv, "step over the membrane's time constant", 0, 1)
    synapse = number(
        module.dt * getattr(p, "tau_syn_inv", 0.0), "step over the synapse's time constant", 0, 1
    )
    return membrane, synapse


def _levels(p: Any, *names: str) -> tuple[Any, float]:
    """How far the threshold is above the highest of some levels; and the largest of these."""
    found = [number(getattr(p, name), name) for name in names]
    rest = found[0] if len(found) == 1 else found[0].maximum(found[1])
    return positive(number(p.v_th, "threshold") - rest, "threshold above its rest"), largest(*found)


def _steps(module: Any, size: tuple[int, ...]) -> Steps:
    over_time = {"SNN", "SNNRecurrent"} & set(names_of(type(module), "norse"))
    return Steps(0 if over_time else None)


def _leaky(module: Any, start: Start) -> Dynamics:
    """A decaying current drives a membrane that leaks, and is set to v_reset by a spike."""
    p = getattr(module.p, "lif", module.p)
    membrane, synapse = _rates(module, p, start)
    kappa, level = _levels(p, "v_leak", "v_reset")
    gain = membrane * powers(1 - synapse, 0, start.length())
    return Dynamics(Drive(kappa, gain, 0.0, level))


def _adapts(module: Any, start: Start) -> Dynamics:
    """As LIF, one step later, with a threshold that is never below its first value."""
    number(module.p.beta, "adaptation", 0)
    number(module.dt * module.p.tau_adapt_inv, "step over the adaptation's time constant", 0, 1)
    return _leaky(module, start)


def _boxed(module: Any, start: Start) -> Dynamics:
    """The input itself drives the membrane; a spike sets it to v_reset, or takes θ off."""
    p = module.p
    membrane, _ = _rates(module, p, start)
    method = p.reset_method.__name__ if is_librarys(p.reset_method) else ""
    if method == "reset_value":
        kappa, level = _levels(p, "v_leak", "v_reset")
    elif method == "reset_subtract":
        kappa, level = _levels(p, "v_leak")
        kappa = kappa.minimum(positive(p.v_th, "threshold"))
    else:
        raise NoArgumentError("its reset is a function of the user's")
    return Dynamics(Drive(kappa, membrane, 0.0, level))


def _integrates(module: Any, start: Start) -> Dynamics:
    """Without a leak; starts at v_reset, and is set to it by a spike."""
    _at_rest(module, start)
    kappa, level = _levels(module.p, "v_reset")
    return Dynamics(Drive(kappa, 1.0, 0.0, level))


_DYNAMICS: dict[str, Any] = {
    "LIF": _leaky,
    "LIFCell": _leaky,
    "LIFRefracCell": _leaky,
    "LIFBoxCell": _boxed,
    "IAF": _integrates,
    "IAFCell": _integrates,
    "LSNN": _adapts,
    "LSNNCell": _adapts,
}
