"""Neurons of spikingjelly, 0.0.0.0.12 to 2.0; ``clock_driven`` is ``activation_based`` of old."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
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
    powers,
)
from fxsynops.neurons.registry import Neuron, is_librarys, names_of, own_name
from fxsynops.neurons.updates import (
    EXPONENTIAL,
    FILTER,
    INTEGRATE,
    IZHIKEVICH,
    LEAK,
    QUADRATIC,
    Update,
    UpdateOf,
)

_ANALOG = ("NonSpikingBaseNode", "NoisyNonSpikingBaseNode", "LIAFNode")
_FILTER = "SynapseFilter"  # a synaptic current, that spikes drive and that leaks: analog
SETTINGS = ("surrogate_function",)  # functions that are attributes of a neuron


def _most_spikes(module: nn.Module) -> float:
    """Of a neuron with several levels: it, or its surrogate, says how many."""
    owners: tuple[Any, ...] = (module, getattr(module, "surrogate_function", None))
    for owner in owners:
        if hasattr(owner, "max_spike_count"):
            return float(owner.max_spike_count)
    return math.inf


def _to_its_level(module: Any) -> Update:
    """A leak towards a level that is not zero adds a constant."""
    return LEAK + Update(1) if module.v_reset else LEAK


UPDATES: dict[str, UpdateOf] = {
    **dict.fromkeys(
        """IFNode SimpleIFNode HalfThresholdIFNode ActivationAwareIFNode MultiStepIFNode
        TernaryIFNode DSRIFNode STBIFNode""".split(),
        INTEGRATE,
    ),
    **dict.fromkeys(
        """LIFNode MultiStepLIFNode SimpleLIFNode ParametricLIFNode MultiStepParametricLIFNode
        OTTTLIFNode SLTTLIFNode TernaryLIFNode""".split(),
        _to_its_level,
    ),
    "ILIFNode": LEAK,
    "DSRLIFNode": LEAK,
    "KLIFNode": LEAK + Update(0, 1, 1),
    "ComplementaryLIFNode": LEAK + Update(0, 1, 0, 1),
    "CUBALIFNode": LEAK + FILTER,
    "QIFNode": QUADRATIC,
    "EIFNode": EXPONENTIAL,
    "MultiStepEIFNode": EXPONENTIAL,
    "IzhikevichNode": IZHIKEVICH,
}


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    names, bases = _names(module), names_of(type(module), "spikingjelly")
    if _FILTER in bases:
        return Neuron(spikes=False)
    if not names or not {"MemoryModule", "StepModule"} & set(bases):
        return None  # layers and containers: traced through
    if any(name in _ANALOG for name in names):
        return Neuron(spikes=False)
    if "FewSpikeNode" in names:
        return Neuron(refused="what one of its events is worth differs from step to step")
    if "FlexSN" in names:
        return Neuron(signed=True, steps=_steps)  # runs a core of the user's
    inside = _recurrence if hasattr(module, "conn") else None
    if any(name in ("PSN", "MaskedPSN", "SlidingPSN") for name in names):
        inside = _over_time
    noisy = "NoisyBaseNode" in names and bool(module.is_training)
    smooth = getattr(getattr(module, "surrogate_function", None), "spiking", True) is False
    return Neuron(
        spikes=not (noisy or smooth),
        max_spikes=_most_spikes(module) if "ILIFNode" in names else 1,
        checked=_fires_once,
        amplitude=next((worth for name, worth in _WORTH.items() if name in names), 1.0),
        signed=any("Ternary" in name for name in names) or "STBIFNode" in names,
        inside=inside,
        dynamics=_dynamics if own_name(type(module), "spikingjelly") in _DYNAMICS else None,
        steps=_steps,
    )


def describe_operator(library: str, name: str) -> Neuron | None:
    """Neurons over time that are one operator each: ``sj_lif::forward`` (2.0)."""
    kind = library.removeprefix("sj_")
    if kind == library or name != "forward" or kind not in _OPERATORS:
        return None
    return Neuron(max_spikes=_OPERATORS[kind], steps=lambda *_: Steps(0))


_OPERATORS = dict.fromkeys(["if", "lif", "plif", "eif", "qif", "izhikevich"], 1.0)
_OPERATORS |= {"ilif": math.inf}


def _names(module: nn.Module) -> tuple[str, ...]:
    """Which neurons it is, by the library's names."""
    return tuple(name for file in _FILES for name in names_of(type(module), file))


_FILES = ("spikingjelly.activation_based.neuron", "spikingjelly.clock_driven.neuron")


def reset(module: Any) -> bool:
    """Set what a module keeps between forwards to its start; whether it is one that does."""
    if "MemoryModule" in names_of(type(module), "spikingjelly"):
        module.reset()
        return True
    return False


def _fires_once(module: Any) -> bool:
    """Whether its surrogate is a step (or counts up to its cap), called by the library."""
    methods = [
        getattr(type(module), name)
        for name in dir(type(module))
        if name == "neuronal_fire" or name.endswith("_forward")
    ]
    fires: Any = getattr(module, "surrogate_function", None)
    counts = own_name(type(fires), "spikingjelly") == "MultiLevelSpikeCount" and fires.spiking
    return all(map(is_librarys, methods)) and (fires is None or counts or is_heaviside(fires))


def _threshold(module: Any) -> Any:
    return module.v_threshold.clamp(min=module.v_threshold_lower_bound)


_WORTH: dict[str, Callable[[Any], Any]] = {
    "DSRIFNode": _threshold,
    "DSRLIFNode": lambda module: _threshold(module) / module.delta_t,
    "STBIFNode": lambda module: module.q_threshold,
}


def _recurrence(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    """Neurons of one population drive each other at the next step."""
    return {
        "conn": lambda: module.conn(output.reshape(-1, module.act_dim, module.dec_pop_dim)),
    }


def _over_time(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    """Parallel spiking neurons: the membrane is a weighted sum over the input's time steps."""
    x = given.get("x_seq", given.get("args", (None,))[0])
    if x is None or not _takes_sequences(module):
        return {}

    def weight() -> Any:
        if hasattr(module, "gen_gemm_weight"):
            return module.gen_gemm_weight(x.shape[0])
        return module.masked_weight() if hasattr(module, "masked_weight") else module.weight

    return {"weight": lambda: torch.mm(weight(), x.flatten(1))}


def _takes_sequences(module: Any) -> bool:
    """Whether the first axis of its input is time: its mode, or its class, if it has only one."""
    several = "MultiStepModule" in names_of(type(module), "spikingjelly")
    old = "m" if several or type(module).__name__.startswith("MultiStep") else "s"
    return bool(getattr(module, "step_mode", old) == "m")


def _steps(module: Any, size: tuple[int, ...]) -> Steps:
    """In front of the samples; some neurons know no other mode."""
    over_time = _takes_sequences(module) or bool(_OVER_TIME & set(_names(module)))
    return Steps(0 if over_time else None)


_OVER_TIME = {"GatedLIFNode", "DSRIFNode", "DSRLIFNode"}


def _check_fires(module: Any) -> None:
    if not is_heaviside(module.surrogate_function):
        raise NoArgumentError("its surrogate function is no step from 0 to 1")


def _levels(module: Any) -> tuple[Tensor, Tensor]:
    """Threshold and reset level; a reset that subtracts the threshold starts at 0."""
    _check_fires(module)
    reset = number(0.0 if module.v_reset is None else module.v_reset, "reset level")
    return positive(module.v_threshold, "threshold"), reset


def _gain(module: Any) -> Tensor:
    """By what the input is multiplied: 1 / τ if it decays, too."""
    if "ParametricLIFNode" in _names(module):
        return module.w.detach().double().sigmoid().cpu() if module.decay_input else _ONE
    if not hasattr(module, "tau"):
        return _ONE
    tau = number(module.tau, "time constant", 1)
    return 1 / tau if module.decay_input else _ONE


_ONE = torch.ones((), dtype=torch.float64, device="cpu")


def _integrates(module: Any, start: Start) -> Dynamics:
    """V ← v + i, or leaking towards r: v ← v + (i − (v − r)) / τ, or v − (v − r) / τ + i."""
    theta, reset = _levels(module)
    kappa = positive(theta - reset, "threshold above its reset level")
    charge = above(start.state(module.v), reset)
    return Dynamics(Drive(kappa, _gain(module), charge, largest(reset)))


def _signed(module: Any, start: Start) -> Dynamics:
    """Fires at θ and at −θ; resets to r, or takes θ off (adds it)."""
    theta, reset = _levels(module)
    v, gain, level = start.state(module.v), _gain(module), largest(reset)
    up = positive(theta - reset, "threshold above its reset level")
    down = positive(theta + reset, "threshold above its reset level")
    return Dynamics(
        Drive(up, gain, above(v, reset), level),
        Drive(down, gain, above(None if v is None else -v, -reset), level),
    )


def _aware(module: Any, start: Start) -> Dynamics:
    """Fires at θ − offset; takes θ off, or resets to r."""
    theta, reset = _levels(module)
    offset = number(module.v_offset, "offset")
    theta, offset = (_per_channel(module, x, start) for x in (theta, offset))
    low = -offset if module.v_reset is None else reset
    kappa = positive(theta if module.v_reset is None else theta - offset - reset, "threshold")
    charge = above(start.state(module.v), low)
    return Dynamics(Drive(kappa, 1.0, charge, largest(reset, offset)))


def _per_channel(module: Any, value: Tensor, start: Start) -> Tensor:
    """A parameter per channel, as it broadcasts to one step of the input."""
    if value.dim() == 0:
        return value
    size = start.shape[1:] if _takes_sequences(module) else start.shape
    axis = module.channel_dim % len(size)
    return value.reshape([-1 if i == axis else 1 for i in range(len(size))])


def _scaled(module: Any, start: Start) -> Dynamics:
    """V ← relu(k·charged v); fires at θ, and resets v, or v / k by θ / k."""
    theta, reset = _levels(module)
    k = positive(module.k, "k")
    number(reset, "reset level", high=0)
    tau = number(module.tau, "time constant", 1)
    gain, charge = _gain(module), above(start.state(module.v), 0.0)
    if module.scale_reset:
        drive = Drive(theta / k, gain, charge, largest(reset))
    else:
        number(k * (1 - 1 / tau), "k·(1 − 1/τ)", high=1)
        drive = Drive(theta, k * gain, charge, largest(reset))
    return Dynamics(drive)


def _complementary(module: Any, start: Start) -> Dynamics:
    """V ← v − v / τ + i; a spike takes θ off, and more."""
    _check_fires(module)
    theta = positive(module.v_threshold, "threshold")
    number(module.tau, "time constant", 1)
    return Dynamics(Drive(theta, 1.0, above(start.state(module.v), 0.0)))


def _current_based(module: Any, start: Start) -> Dynamics:
    """A decaying current drives a membrane that decays to 0."""
    theta, reset = _levels(module)
    number(module.v_decay, "membrane decay", 0, 1)
    decay = number(module.c_decay, "current decay", 0, 1)
    rest, window = reset.clamp(min=0), start.length()
    charge: Any = above(start.state(module.c), 0.0) * powers(decay, 1, window)
    charge = charge + above(start.state(module.v), rest)
    kappa = positive(theta - rest, "threshold above its reset level")
    drive = Drive(kappa, powers(decay, 0, window), charge, largest(reset))
    return Dynamics(drive)


def _gated(module: Any, start: Start) -> Dynamics:
    """Leak, input and reset are gated by learned numbers; a spike takes effect at the next step."""
    _check_fires(module)
    held = start.state(module.v)
    if start.calls > 1 or (held is not None and bool(held.any())):
        raise NoArgumentError("its reset is lost between forwards")
    names = ("alpha", "beta", "gamma", "tau", "v_threshold", "v_subreset")
    alpha, beta, gamma, tau, theta, taken = (
        getattr(module, name).detach().double().sigmoid().view(1, -1, 1, 1).cpu() for name in names
    )
    conduct = module.conduct.detach().double().sigmoid().amax(0).view(1, -1, 1, 1).cpu()
    leak = 1 - alpha * (1 - tau)
    removed = (1 - leak * (1 - gamma)) * theta + (1 - gamma) * taken
    drive = Drive(torch.minimum(theta, removed), 1 - beta * (1 - conduct))
    return Dynamics(drive)


def _rounds(module: Any, start: Start) -> Dynamics:
    """Emits round(v / θ) and takes as many θ off, so that an event costs θ / 2 at least."""
    theta = positive(module.v_threshold, "threshold")
    number(module.tau, "time constant", 1)
    charge = above(start.state(module.v), 0.0)
    return Dynamics(Drive(theta / 2, 1.0, charge))


def _dual(module: Any, start: Start) -> Dynamics:
    """Fires at α·θ, takes θ off; every forward starts at 0."""
    theta = _threshold(module).detach().double().cpu()
    if start.calls > 1:
        raise NoArgumentError("its state is lost between forwards")
    if "DSRLIFNode" in _names(module):
        gain = 1 - math.exp(-module.delta_t / module.tau)
        return Dynamics(Drive(module.alpha * theta, gain))
    return Dynamics(Drive(theta, 1.0, (1 - module.alpha) * theta))


def _dynamics(module: Any, start: Start) -> Dynamics:
    """What the module's type says; it may be reset to its own first potential, or below."""
    found: Dynamics = _DYNAMICS[type(module).__name__](module, start)
    if found.down is not None or "v" not in module._memories:
        return found
    reset = getattr(module, "v_reset", None)
    highest = torch.tensor(0.0 if reset is None else float(reset))
    if reset is None and hasattr(module, "v_offset"):
        highest = -module.v_offset  # it fires at θ − offset
    return replace(found, resets={"v": highest, "c": 0.0})


_DYNAMICS: dict[str, Any] = {
    "IFNode": _integrates,
    "SimpleIFNode": _integrates,
    "HalfThresholdIFNode": _integrates,
    "ActivationAwareIFNode": _aware,
    "MultiStepIFNode": _integrates,
    "LIFNode": _integrates,
    "MultiStepLIFNode": _integrates,
    "SimpleLIFNode": _integrates,
    "ParametricLIFNode": _integrates,
    "MultiStepParametricLIFNode": _integrates,
    "OTTTLIFNode": _integrates,
    "SLTTLIFNode": _integrates,
    "KLIFNode": _scaled,
    "ComplementaryLIFNode": _complementary,
    "CUBALIFNode": _current_based,
    "GatedLIFNode": _gated,
    "ILIFNode": _rounds,
    "TernaryIFNode": _signed,
    "TernaryLIFNode": _signed,
    "DSRIFNode": _dual,
    "DSRLIFNode": _dual,
}
