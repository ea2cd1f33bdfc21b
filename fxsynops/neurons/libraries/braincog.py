"""Neurons of braincog 0.2, known by the names of their classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fxsynops.neurons.dynamics import (
    Drive,
    Dynamics,
    NoArgumentError,
    Start,
    Steps,
    above,
    is_heaviside,
    largest,
    number,
    positive,
)
from fxsynops.neurons.registry import Neuron, analog_like, is_librarys, names_of, own_name
from fxsynops.neurons.updates import INTEGRATE, LEAK

SETTINGS = ("act_fun", "spike_act", "th_fun")  # functions that are attributes of a neuron

# What they put out is a rectified current, or the membrane potential itself.
_ANALOG = {"ReLUNode", "BiasReLUNode", "LIAFNode", "DGLIFNode", "HTDGLIFNode"}
# They compare their potential with the threshold, without a surrogate.
_COMPARING = {"HHNode", "aEIF", "CTIzhNode", "adth"}
_METHODS = ("forward", "calc_spike", "rearrange2op")


UPDATES = {
    "IFNode": INTEGRATE,
    **dict.fromkeys(
        "LIFNode BiasLIFNode LIFSTDPNode PLIFNode BiasPLIFNode OnlineLIFNode".split(), LEAK
    ),
}


def describe(module: Any) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    names = _names(module)
    if not names & {"BaseNode", "BaseMCNode"}:
        return None  # layers, models: traced through
    if names & _ANALOG or (names & {"BaseMCNode"} and module.warm_up):
        return Neuron(spikes=False)
    if "BurstLIFNode" in names and not _is_step(module):
        return Neuron(refused="a spike of a burst is worth more than a single one")
    gated = "BackEINode" in names and bool(module.if_ei)
    counts = _counts_up(module)
    return Neuron(
        max_spikes=math.ceil(module.act_fun.act.max_val) if counts else 1,
        signed=gated or "DoubleSidePLIFNode" in names,
        checked=_fires_as_said,
        rounded=counts,
        inside=_within if hasattr(module, "back") or hasattr(module, "ei") else None,
        dynamics=_DYNAMICS.get(own_name(type(module), "braincog")),
        steps=_steps,
    )


def reset(module: Any) -> bool:
    """Set what a module keeps between forwards to its start; whether it is one that does."""
    if known := bool(_names(module)) and hasattr(module, "n_reset"):
        module.n_reset()
    return known


def _names(module: nn.Module) -> set[str]:
    """The names of a module's classes that are the library's."""
    return set(names_of(type(module), "braincog"))


def _fires_as_said(module: Any) -> bool:
    """Whether it emits 0 or 1 (−1 through an inhibitory gate), or counts up to its cap."""
    methods = [getattr(type(module), name, None) for name in _METHODS]
    if not all(is_librarys(method) for method in methods if method is not None):
        return False
    if _names(module) & _COMPARING or _counts_up(module):
        return True
    return _is_step(module) and _gate_is_sign(module)


def _is_step(module: Any) -> bool:
    return is_heaviside(module.act_fun)


def _counts_up(module: Any) -> bool:
    """Whether its surrogate rounds, to more than one spike."""
    fires = getattr(module, "act_fun", None)
    return type(fires).__name__ == "RoundGrad" and is_librarys(type(fires))


def _gate_is_sign(module: Any) -> bool:
    """Whether what multiplies a neuron's spikes is 1 or −1, if anything does."""
    probe = torch.tensor([-2.0, -0.1, 0.1, 2.0])
    gate = getattr(module, "th_fun", None)
    return gate is None or torch.equal(gate(probe), probe.sign())


def _within(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    """Spikes come back at the next step; a gate reads the membrane potential of all channels."""
    steps = output
    if module.layer_by_layer or module.groups != 1:
        steps = module.rearrange2node(output).flatten(0, 1)
    synapses = {}
    if module.if_back:
        synapses["back"] = lambda: module.back(steps)
    if module.if_ei:
        synapses["ei"] = lambda: module.ei(analog_like(steps))
    return synapses


def _steps(module: Any, size: tuple[int, ...]) -> Steps | None:
    """One step for each call, or all of them in one axis, in front of the samples."""
    if module.groups != 1:
        return None  # among its channels
    return Steps(0, size[0] // module.step) if module.layer_by_layer else Steps()


def _integrates(module: Any, start: Start, theta: Any, gain: Tensor, bias: Any = 0.0) -> Dynamics:
    """V ← a·v + g·i + b, with 0 ≤ a ≤ 1; a spike sets v to 0, and a reset to v_reset."""
    if not is_heaviside(module.act_fun):
        raise NoArgumentError("its act_fun is no step from 0 to 1")
    lowest = number(module.v_reset, "reset level").clamp(min=0)
    held = None if getattr(module, "init", False) else start.state(module.mem)
    charge = above(held, lowest) + number(bias, "bias", 0) * start.length()
    kappa = positive(positive(theta, "threshold") - lowest, "threshold above its reset level")
    drive = Drive(kappa, gain, charge, largest(lowest))
    emptied = dict.fromkeys(("spike", "feature_map", "mem_collect"), 0.0)
    return Dynamics(drive, resets={"mem": lowest, **emptied})


def _perfect(module: Any, start: Start) -> Dynamics:
    return _integrates(module, start, module.get_thres(), positive(module.dt, "step"))


def _leaky(module: Any, start: Start) -> Dynamics:
    return _integrates(module, start, module.threshold, 1 / number(module.tau, "time constant", 1))


def _leaky_with_bias(module: Any, start: Start) -> Dynamics:
    gain = number(module.dt / module.tau, "step over the time constant", 0, 1)
    return _integrates(module, start, module.get_thres(), gain, 0.1)


def _parametric(module: Any, start: Start, bias: float = 0.0) -> Dynamics:
    gain = number(module.w.detach().double().sigmoid() * module.dt, "leak", 0, 1)
    return _integrates(module, start, module.get_thres(), gain, bias * module.dt)


def _parametric_with_bias(module: Any, start: Start) -> Dynamics:
    return _parametric(module, start, 0.1)


def _decays(module: Any, start: Start) -> Dynamics:
    number(module.tau, "decay", 0, 1)
    return _integrates(module, start, module.threshold, torch.ones((), dtype=torch.float64))


_DYNAMICS: dict[str, Any] = {
    "IFNode": _perfect,
    "LIFNode": _leaky,
    "BiasLIFNode": _leaky_with_bias,
    "LIFSTDPNode": _decays,
    "PLIFNode": _parametric,
    "BiasPLIFNode": _parametric_with_bias,
    "OnlineLIFNode": _leaky,
}
