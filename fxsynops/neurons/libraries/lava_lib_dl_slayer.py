"""Neurons of lava-dl's slayer. Time is the last axis.

Neurons with graded spikes (sigma-delta, ``graded_spike=True``) put out any numbers, so that they
are analog; ``events="nonzero"`` with their type in ``spiking=`` counts their messages.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
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
    number,
    positive,
    powers,
)
from fxsynops.neurons.registry import Neuron, is_librarys
from fxsynops.operations.call import Call
from fxsynops.operations.operation import Kind, Operation, Slot
from fxsynops.operations.registry import operations

_PACKAGE = "lava.lib.dl.slayer."
# Classes are known by their names, so that none is asked for that a release lacks.
_NEURON, _SIGMA_DELTA = "neuron.base.Neuron", "neuron.sigma_delta.Neuron"


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    _register_delays()
    names, part = _names(module), _parts(module)
    if "axon.delta.Delta" in names:
        return Neuron(spikes=False)
    if "block.base.AbstractRecurrent" in names and part is not None:
        late = getattr(module, "delay", None) is not None
        return Neuron(
            spikes=not _is_graded(part),
            max_spikes=1,
            amplitude=lambda block: _worth(block.neuron),
            checked=lambda block: _fires_once(block.neuron),
            inside=_recurrence,
            steps=lambda *_: Steps(-1),
            refused="its axonal delays hide which of its spikes come back to it" if late else "",
        )
    if _NEURON not in names:
        return None  # synapses, blocks, delays: traced through
    return Neuron(
        spikes=not _is_graded(module),
        max_spikes=1,
        amplitude=_worth,
        checked=_fires_once,
        dynamics=_current_based if _own_name(module) == "neuron.cuba.Neuron" else None,
        steps=lambda *_: Steps(-1),
    )


def reset(module: nn.Module) -> bool:
    """Set what a module keeps between forwards to its start; whether it is one that does."""
    owner: Any = module
    found = bool(_names(module)) and "delay_buffer" in module.__dict__
    if found:
        owner.delay_buffer = None
    for name in _states(module):
        rest = owner.threshold if name == "threshold_state" else 0.0
        setattr(owner, name, torch.full_like(getattr(owner, name), float(rest)))
        found = True
    return found


def _names(module: nn.Module) -> list[str]:
    """The classes of slayer that a module is of, its own first."""
    classes = (f"{c.__module__}.{c.__name__}" for c in type(module).__mro__)
    return [name.removeprefix(_PACKAGE) for name in classes if name.startswith(_PACKAGE)]


def _own_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__name__}".removeprefix(_PACKAGE)


def _parts(block: nn.Module) -> nn.Module | None:
    return block._modules.get("neuron")


def _states(module: nn.Module) -> Iterator[str]:
    """Of a module of slayer, the buffers that hold its state."""
    if _names(module):
        yield from (name for name in module._buffers if name.endswith("_state"))


def _is_graded(module: Any) -> bool:
    return bool(getattr(module, "graded_spike", False)) or _SIGMA_DELTA in _names(module)


def _fires_once(module: Any) -> bool:
    """Whether what it puts out are its spikes, or its spikes without those that are dropped."""
    return module.drop is None or is_librarys(type(module.drop).forward)


def _worth(module: Any) -> Tensor:
    """Dropout while training makes up for the spikes that it drops."""
    drop = module.drop
    scaled = isinstance(drop, nn.Module) and drop.training and 0 < getattr(drop, "p", 0) < 1
    return torch.tensor(1 / (1 - drop.p) if scaled else 1.0)


def _recurrence(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    """Its spikes come back to it one step later."""
    spikes = output[0] if isinstance(output, tuple) else output
    return {
        "input_synapse": lambda: module.input_synapse(given["x"]),
        "recurrent_synapse": lambda: module.recurrent_synapse(spikes),
    }


# -- delays on axons -------------------------------------------------------------------------------


def _register_delays() -> None:
    """Spikes come out later, by one step, or by what each channel has learned."""
    file: Any = sys.modules.get(f"{_PACKAGE}axon.delay")
    fixed = getattr(file, "_delayFunctionNoGradient", None)
    learned = getattr(file, "_delayFunction", None)
    if fixed is not None and fixed not in operations.by_target:
        operations.by_target[fixed] = Operation(Kind.ROUTING, "*", pull=_pull_delay)
    if learned is not None and learned not in operations.by_target:
        operations.by_target[learned] = Operation(Kind.GATE, "*")


def _pull_delay(call: Call, map: Tensor) -> Iterator[Slot]:
    x, late, *rest = call.args
    steps = int(float(late) / float(rest[0] if rest else 1))
    pulled = map.expand(*map.shape[:-1], x.meta["spec"].shape[-1])
    yield Slot(x, torch.cat([pulled[..., steps:], torch.zeros_like(pulled[..., :steps])], -1))


# -- the charge bound ------------------------------------------------------------------------------


def _current_based(module: Any, start: Start) -> Dynamics:
    """I ← (1 − α)·i + input, V ← (1 − β)·v + i, in whole numbers rounded to zero; v to 0."""
    if module.norm is not None:
        raise NoArgumentError("it normalizes its current")
    scale, theta = int(module.s_scale), float(positive(module.threshold, "threshold"))
    level = theta + module.threshold_eps
    rounded = float(torch.tensor(level, dtype=torch.float32))
    if scale & (scale - 1) or math.ceil(level * scale) != math.ceil(rounded * scale):
        raise NoArgumentError("its spikes and its resets may compare with different thresholds")
    window = start.length()
    number(module.voltage_decay, "voltage decay", 0, module.p_scale)
    decay = number(module.current_decay, "current decay", 0, module.p_scale).round().min()
    kept = 1 - decay / module.p_scale
    current, voltage = start.state(module.current_state), start.state(module.voltage_state)
    held: Any = above(voltage, 0.0) + powers(kept, 1, window) * above(current, 0.0)
    if start.calls > 1 and not module.persistent_state and bool(torch.as_tensor(held).any()):
        raise NoArgumentError("it starts each forward with the same charge")
    drive = Drive(theta, powers(kept, 0, window), held)
    return Dynamics(drive, resets={"current_state": 0.0, "voltage_state": 0.0})
