"""Neurons of sinabs, 0.3 to 3.1."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fxsynops.neurons.dynamics import (
    Drive,
    Dynamics,
    NoArgumentError,
    Start,
    Steps,
    above,
    excitation,
    largest,
    number,
    positive,
    powers,
)
from fxsynops.neurons.registry import Neuron, is_librarys, names_of, own_name
from fxsynops.neurons.updates import ADAPT, FILTER, INTEGRATE, LEAK, ROUND, Update, UpdateOf

SETTINGS = (
    "spike_fn",
    "reset_fn",
    "surrogate_grad_fn",
)  # functions that are attributes of a neuron


def _filtered(update: Update) -> UpdateOf:
    """With a synaptic current, if a neuron has a time constant for one."""
    return lambda module: update + FILTER if module.tau_syn is not None else update


UPDATES: dict[str, UpdateOf] = {
    "NeuromorphicReLU": ROUND,
    "IAF": _filtered(INTEGRATE),
    "IAFRecurrent": _filtered(INTEGRATE),
    "ALIF": _filtered(LEAK + ADAPT),
    "ALIFRecurrent": _filtered(LEAK + ADAPT),
    "LIF": _filtered(LEAK),
    "LIFRecurrent": _filtered(LEAK),
    "ExpLeak": Update(0, 1, 0, 1),
}


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    names = _names(module)
    if "NeuromorphicReLU" in names:
        return Neuron(spikes=bool(module.quantize), dynamics=_rounds)
    if "StatefulLayer" not in names:
        return None  # pooling, reshaping: traced through
    recurrent = "LIFRecurrent" in names or "ALIFRecurrent" in names
    fires = getattr(module, "spike_fn", None)
    return Neuron(
        spikes=bool(module.does_spike),
        max_spikes=_cap(fires),
        signed=not _is_known(fires),
        inside=_recurrence if recurrent else None,
        dynamics=_DYNAMICS.get(own_name(type(module), "sinabs")),
        steps=_steps,
    )


def _names(module: Any) -> tuple[str, ...]:
    return names_of(type(module), "sinabs")


def _kind(function: object) -> str:
    """Which of sinabs' functions it is: a class, or an object of one; nothing for any other."""
    cls = function if isinstance(function, type) else type(function)
    return cls.__name__ if is_librarys(cls) else ""


def reset(module: Any) -> bool:
    """Set what a module keeps between forwards to its start; whether it is one that does."""
    if "StatefulLayer" in _names(module):
        module.reset_states()
        return True
    return False


def _rounds(module: Any, start: Start) -> Dynamics:
    """⌊x⌋ events; with stochastic rounding to the nearest (twice x at most), or one more."""
    if module.stochastic_rounding and module.training:
        raise NoArgumentError("it rounds at random while training")
    return Dynamics(Drive(0.5 if module.stochastic_rounding else 1.0))


def _integrates(module: Any, start: Start) -> Dynamics:
    """V ← α·v + g·i; spikes take δ off, or set v to r; ρ is the largest of 0, the clamp and r."""
    window = start.length()
    theta = _threshold(module, module.spike_threshold)
    gain = torch.ones((), dtype=torch.float64)
    if "LIF" in _names(module):
        alpha = number(module.alpha_mem_calculated, "membrane decay", 0, 1)
        gain = 1 - alpha if module.norm_input else gain
    rest, level = _rest(module)
    extra: Any = 0.0
    if _kind(module.reset_fn) == "MembraneReset":
        extra = number(module.reset_fn.reset_value, "reset level").clamp(min=0) * window
        removed = theta - rest  # a positive reset level is added at every step, spike or not
    elif _kind(module.reset_fn) == "MembraneSubtract":
        taken = module.reset_fn.subtract_value
        taken = theta if taken is None else positive(taken, "subtracted value")
        removed = torch.minimum(taken, theta - rest)
    else:
        raise NoArgumentError(f"its reset is a {type(module.reset_fn).__name__}")
    known = module.is_state_initialised()
    charge = above(start.state(module.v_mem if known else None), rest) + extra
    if module.tau_syn is not None:
        decay = number(module.alpha_syn_calculated, "synapse decay", 0, 1)
        reach = powers(decay, 1, window)
        charge = charge + gain * reach * above(start.state(module.i_syn if known else None), 0.0)
        gain = gain * reach
    kappa = positive(removed, "threshold above its lowest potential")
    feedback = None
    if "LIFRecurrent" in _names(module):
        feedback = excitation(module.rec_connect, start.shape[2:], late=1)
    return Dynamics(Drive(kappa, gain, charge, level), feedback=feedback, resets=_resets(rest))


def _adapts(module: Any, start: Start) -> Dynamics:
    """As LIF, with a threshold that is never below its first value θ, and rises with spikes.

    The synapse filter multiplies its state by the input gain once more at every step.
    """
    theta = _threshold(module, module.b0)
    number(module.adapt_scale, "adaptation scale", 0)
    number(module.alpha_adapt_calculated, "adaptation decay", 0, 1)
    alpha = number(module.alpha_mem_calculated, "membrane decay", 0, 1)
    if _kind(module.reset_fn) != "MembraneSubtract" or module.reset_fn.subtract_value:
        raise NoArgumentError("its reset does not subtract its threshold")
    if getattr(module, "rec_connect", None) is not None:
        raise NoArgumentError("no charge argument is known for it")
    rest, level = _rest(module)
    gain = 1 - alpha if module.norm_input else torch.ones((), dtype=torch.float64)
    known = module.is_state_initialised()
    charge: Any = above(start.state(module.v_mem if known else None), rest)
    if known:
        number(module.b, "adaptation", 0)
    if module.alpha_syn_calculated is not None:
        decay = number(module.alpha_syn_calculated, "synapse decay", 0, 1) * gain
        reach = powers(decay, 1, start.length())
        charge = charge + reach * above(start.state(module.i_syn if known else None), 0.0)
        gain = reach
    kappa = positive(theta - rest, "threshold above its lowest potential")
    return Dynamics(Drive(kappa, gain, charge, level), resets=_resets(rest))


def _threshold(module: Any, value: Any) -> torch.Tensor:
    """The threshold, if the spike function fires ⌊v / θ⌋ times at most."""
    if not _is_known(module.spike_fn):
        raise NoArgumentError("its spike function is not sinabs' own")
    return positive(value, "threshold")


def _is_known(spike_function: object) -> bool:
    """Whether it fires ⌊v / θ⌋ times at most, and never less than 0 times."""
    return spike_function is None or _kind(spike_function) in _SPIKE_FUNCTIONS


def _rest(module: Any) -> tuple[torch.Tensor, float]:
    """What no potential stays below for long: 0, or the clamp; and the levels that round."""
    clamp = module.min_v_mem
    reset = getattr(module.reset_fn, "reset_value", None)
    floor = torch.zeros(()) if clamp is None else number(clamp, "lowest potential")
    return floor.double().clamp(min=0), largest(clamp, reset)


def _resets(rest: torch.Tensor) -> dict[str, Any]:
    return {"v_mem": rest, "i_syn": 0.0}


def _steps(module: Any, size: tuple[int, ...]) -> Steps:
    if "SqueezeMixin" not in _names(module):
        return Steps(1)
    samples = size[0] // module.num_timesteps if module.num_timesteps > 0 else module.batch_size
    return Steps(1, samples)


_SPIKE_FUNCTIONS = {"SingleSpike", "MultiSpike", "MaxSpike"}
_DYNAMICS: dict[str, Any] = {
    "IAF": _integrates,
    "IAFSqueeze": _integrates,
    "LIF": _integrates,
    "LIFSqueeze": _integrates,
    "IAFRecurrent": _integrates,
    "LIFRecurrent": _integrates,
    "ALIF": _adapts,
}


def _cap(spike_function: Any) -> float:
    if _kind(spike_function) == "SingleSpike":
        return 1
    if _kind(spike_function) == "MaxSpike":
        return spike_function.max_num_spikes_per_bin or math.inf
    return math.inf


def _recurrence(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    """At each step, ``rec_connect`` gets the spikes of the step before."""
    return {"rec_connect": lambda: module.rec_connect(output.flatten(0, 1))}
