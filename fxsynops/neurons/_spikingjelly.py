"""Neurons of spikingjelly 2."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from spikingjelly.activation_based import base, neuron
from torch import nn

from fxsynops.neurons.registry import Neuron

_ANALOG = ("NonSpikingBaseNode", "NoisyNonSpikingBaseNode", "LIAFNode")


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    names = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith(neuron.__name__)]
    if not names or not isinstance(module, base.StepModule):
        return None  # layers and containers: traced through
    if any(name in _ANALOG for name in names):
        return Neuron(spikes=False)
    if "FewSpikeNode" in names:
        return Neuron(refused="what one of its events is worth differs from step to step")
    if "FlexSN" in names:
        return Neuron(signed=True)  # runs a core of the user's
    inside = _recurrence if hasattr(module, "conn") else None
    if any(name in ("PSN", "MaskedPSN", "SlidingPSN") for name in names):
        inside = _over_time
    return Neuron(
        spikes=not ("NoisyBaseNode" in names and bool(module.is_training)),
        max_spikes=getattr(module, "max_spike_count", math.inf) if "ILIFNode" in names else 1,
        amplitude=next((worth for name, worth in _WORTH.items() if name in names), 1.0),
        signed=any("Ternary" in name for name in names) or "STBIFNode" in names,
        inside=inside,
    )


def _threshold(module: Any) -> Any:
    return module.v_threshold.clamp(min=module.v_threshold_lower_bound)


_WORTH: dict[str, Callable[[Any], Any]] = {
    "DSRIFNode": _threshold,
    "DSRLIFNode": _threshold,
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
    if x is None or getattr(module, "step_mode", "m") != "m":
        return {}

    def weight() -> Any:
        if hasattr(module, "gen_gemm_weight"):
            return module.gen_gemm_weight(x.shape[0])
        return module.masked_weight() if hasattr(module, "masked_weight") else module.weight

    return {"weight": lambda: torch.mm(weight(), x.flatten(1))}
