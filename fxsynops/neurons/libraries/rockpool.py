"""Neurons of rockpool 2 and 3, its torch back end.

Calling a module returns (output, state, record). Time is the second axis; between forwards, all
samples go on from the state of the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxsynops.neurons.dynamics import (
    Drive,
    Dynamics,
    Feedback,
    NoArgumentError,
    Number,
    Start,
    Steps,
    above,
    number,
    positive,
    powers,
)
from fxsynops.neurons.registry import Neuron, names_of, own_name
from fxsynops.neurons.updates import ADAPT, FILTER, LEAK, Update
from fxsynops.operations.synapses import one_to_one

SETTINGS = ("spike_generation_fn",)  # functions that are attributes of a neuron

# Classes are known by their names, so that none is asked for that a release lacks.
_ANALOG = ("ExpSynTorch", "LowPass", "ExpSynExodus", "LIFMembraneExodus")
_SPIKING = ("LIFBaseTorch", "LIFNeuronTorch")
_COUNTS = ("StepPWL", "PeriodicExponential", "Heaviside")  # ⌊v / θ⌋ spikes, up to the cap


UPDATES = {
    "LIFNeuronTorch": LEAK,
    "LIFTorch": LEAK + FILTER,
    "LIFBitshiftTorch": LEAK + FILTER,
    "aLIFTorch": LEAK + FILTER + ADAPT,
    "ExpSynTorch": Update(0, 1, 0, 1),
}


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    names = names_of(type(module), "rockpool")
    if any(name in _ANALOG for name in names):
        return Neuron(spikes=False)
    if "UpDownTorch" in names:
        return Neuron(checked=_repeats, steps=lambda *_: Steps(1))
    if not any(name in _SPIKING for name in names):
        return None  # weights, combinators, dropout: traced through
    return Neuron(
        max_spikes=_cap(module),
        checked=_counts,
        inside=_recurrence if _has_recurrence(module) else None,
        dynamics=_DYNAMICS.get(own_name(type(module), "rockpool")),
        steps=lambda *_: Steps(1),
    )


def reset(module: nn.Module) -> bool:
    """Set what a module keeps between forwards to its start; whether it is one that does."""
    if "TorchModule" not in names_of(type(module), "rockpool"):
        return False
    found: Any = module
    attributes, _ = found._get_attribute_registry()  # name: value, kind, family, start, shape
    states = [k for k, (_, kind, _, start, *_) in attributes.items() if kind == "State" and start]
    for name in states:
        found._reset_attribute(name)
    return bool(states)


def _cap(module: Any) -> float:
    return float(module.max_spikes_per_dt) if _counts(module) else math.inf


def _counts(module: Any) -> bool:
    """Whether it spikes ⌊v / θ⌋ times at a positive θ, up to a whole number of times."""
    if not hasattr(module, "spike_generation_fn") or not hasattr(module, "max_spikes_per_dt"):
        return False  # of an early release
    fires = getattr(module.spike_generation_fn, "__self__", module.spike_generation_fn)
    own = fires if isinstance(fires, type) else type(fires)
    known = own.__name__ in _COUNTS and own.__module__.startswith(("rockpool.", "sinabs."))
    cap = float(module.max_spikes_per_dt)
    whole = cap >= 0 and (cap == math.inf or cap == round(cap))
    return known and whole and bool((torch.as_tensor(module.threshold) > 0).all())


def _repeats(module: Any) -> bool:
    """Whether each of its spikes is handed on a whole number of times."""
    return module.repeat_output >= 0 and module.repeat_output == round(module.repeat_output)


def _has_recurrence(module: nn.Module) -> bool:
    """Without recurrence, the recurrent weights are there all the same, all of them zero."""
    return bool(getattr(module, "_has_rec", hasattr(module, "w_rec"))) or hasattr(module, "w_ahp")


def _recurrence(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    """A spike reaches synapses of the same layer one step later, and its own neuron's feedback."""
    synapses: dict[str, Callable[[], Any]] = {}
    if getattr(module, "_has_rec", hasattr(module, "w_rec")):
        synapses["w_rec"] = lambda: F.linear(output, module.w_rec.T)
    if hasattr(module, "w_ahp"):
        synapses["w_ahp"] = lambda: one_to_one(output, module.w_ahp)
    return synapses


# What a call itself sets: records are no part of the dynamics.
_RECORDS: dict[str, Number | None] = {"_record": None, "_record_dict": None}
_RESETS = dict.fromkeys(("vmem", "isyn", "iahp", "spikes"), 0.0) | _RECORDS


def _check(module: Any, start: Start, synapses: int = 1) -> int:
    """How many steps the window has, if the theorem holds for the module and its input."""
    if not _counts(module):
        raise NoArgumentError("its spike_generation_fn is not rockpool's own, or its cap no number")
    if bool((torch.as_tensor(module.noise_std) != 0).any()):
        raise NoArgumentError("it adds noise to its membrane")
    if start.calls > 1:
        raise NoArgumentError("all samples go on from the state of the first one")
    if synapses != 1 or len(start.shape) != 3 or start.shape[-1] != module.size_out:
        raise NoArgumentError("its input is not (batch, time, neurons)")
    return start.length()


def _state(value: Any) -> Tensor:
    """What all samples start with: one value per neuron."""
    return value.detach().double().cpu().reshape(1, -1)


def _held(module: Any, window: int) -> Any:
    """What is in the membrane at the start, and the bias of all steps."""
    return above(_state(module.vmem), 0.0) + number(module.bias, "bias").clamp(min=0) * window


def _membrane(module: Any, start: Start) -> Dynamics:
    """V ← α·v + i + b; θ off for each spike."""
    window = _check(module, start)
    number(torch.exp(-module.dt / module.tau_mem), "membrane decay", 0, 1)
    charge = _held(module, window)
    drive = Drive(positive(module.threshold, "threshold"), 1.0, charge)
    return Dynamics(drive, resets=_RESETS)


def _leaky(module: Any, start: Start) -> Dynamics:
    """I ← β·(i + input), V ← α·v + i + b; θ off for each spike, which comes back to i."""
    window = _check(module, start, module.n_synapses)
    if not hasattr(module, "alpha"):
        raise NoArgumentError("an early release computes its decays in its forward")
    number(module.alpha, "membrane decay", 0, 1)
    reach = powers(number(module.beta, "synapse decay", 0, 1).reshape(-1), 1, window)
    charge = _held(module, window)
    charge = charge + reach * above(_state(module.isyn), 0.0)
    feedback = None
    if getattr(module, "_has_rec", hasattr(module, "w_rec")):
        weights = module.w_rec.detach().double().cpu().clamp(min=0)
        feedback = Feedback(lambda events: events @ weights)
        charge = charge + reach * feedback.weights(_state(module.spikes).clamp(min=0))
    if hasattr(module, "w_ahp"):
        number(module.w_ahp, "feedback after a spike", high=0)
        decay = number(torch.exp(-module.dt / module.tau_ahp), "feedback's decay", 0, 1)
        charge = charge + powers(decay, 1, window) * above(_state(module.iahp), 0.0)
    drive = Drive(positive(module.threshold, "threshold"), reach, charge)
    return Dynamics(drive, feedback=feedback, resets=_RESETS)


_DYNAMICS = {
    "LIFNeuronTorch": _membrane,
    "LIFTorch": _leaky,
    "LIFBitshiftTorch": _leaky,
    "aLIFTorch": _leaky,
}
