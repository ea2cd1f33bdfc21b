"""Neurons of this package."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from fxsynops.neurons.dynamics import (
    Drive,
    Dynamics,
    NoArgumentError,
    Start,
    Steps,
    above,
    largest,
    positive,
)
from fxsynops.neurons.registry import Neuron
from fxsynops.neurons.updates import INTEGRATE, ROUND
from fxsynops.nn import IAF, IAFSqueeze, NeuromorphicReLU

UPDATES = {"IAF": INTEGRATE, "IAFSqueeze": INTEGRATE, "NeuromorphicReLU": ROUND}


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    if isinstance(module, IAF):  # also IAFSqueeze
        cap = module.max_spikes_per_step or math.inf
        return Neuron(max_spikes=cap, dynamics=_integrates, steps=_steps)
    if isinstance(module, NeuromorphicReLU):
        return Neuron(spikes=module.quantize, dynamics=_rounds)
    return None


def _steps(module: Any, size: tuple[int, ...]) -> Steps:
    return Steps(1, module.batch_size if isinstance(module, IAFSqueeze) else None)


def reset(module: nn.Module) -> bool:
    """Set what a module keeps between forwards to its start; whether it is one that does."""
    if isinstance(module, IAF):
        module.reset_states()
        return True
    return False


def _integrates(module: IAF, start: Start) -> Dynamics:
    """Without leak; a spike takes θ off, and ρ is the clamp or zero."""
    theta = positive(module.spike_threshold, "threshold")
    floor = 0.0 if module.min_v_mem is None else module.min_v_mem
    rest = max(0.0, floor)
    v = above(start.state(module.v_mem), rest)
    kappa = positive((theta - rest).clamp(max=theta), "threshold above its lowest potential")
    return Dynamics(Drive(kappa, 1.0, v, largest(floor)), resets={"v_mem": rest})


def _rounds(module: NeuromorphicReLU, start: Start) -> Dynamics:
    """⌊x⌋ events; with stochastic rounding to the nearest (twice x at most), or one more."""
    if module.stochastic_rounding and module.training:
        raise NoArgumentError("it rounds at random while training")
    return Dynamics(Drive(0.5 if module.stochastic_rounding else 1.0))
