"""The neuron of snntorch-ternary 0.1, whose events have both signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fxsynops.neurons.dynamics import Steps, is_heaviside
from fxsynops.neurons.registry import Neuron, is_librarys, names_of
from fxsynops.neurons.updates import LEAK, Update

SETTINGS = ("spike_grad",)  # functions that are attributes of a neuron


UPDATES = {"TernaryLeaky": LEAK + Update(0, 0, 1)}


def describe(module: Any) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    if "TernaryLeaky" not in names_of(type(module), "snntorch_ternary"):
        return None
    return Neuron(
        max_spikes=1 if is_heaviside(module.spike_grad) else 2,
        amplitude=lambda module: module.graded_spikes_factor,
        signed=True,
        checked=_is_ternary,
        steps=lambda *_: Steps(),
    )


def _is_ternary(module: Any) -> bool:
    """Whether it emits the difference of two steps, from 0 to 1, or (its own) from −1 to 1."""
    fires = module.spike_grad
    return is_librarys(type(module).ternary_fire) and (is_heaviside(fires) or _is_sign(fires))


def _is_sign(function: Callable[[Tensor], Tensor]) -> bool:
    probe = torch.tensor([-1e3, -1.0, -1e-3, 0.0, 1e-3, 0.4, 1.0, 1e3], device="cpu")
    with torch.no_grad():
        return torch.equal(function(probe), probe.sign())
