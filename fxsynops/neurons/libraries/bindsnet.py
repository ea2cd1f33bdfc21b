"""Layers of neurons of bindsnet 0.3, which return nothing, and keep their spikes in ``s``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F

from fxsynops.errors import UnsupportedOperationError
from fxsynops.neurons.dynamics import Steps
from fxsynops.neurons.registry import Neuron, is_librarys, names_of
from fxsynops.neurons.updates import ADAPT, FILTER, INTEGRATE, IZHIKEVICH, LEAK, Update

UPDATES = {
    "McCullochPitts": INTEGRATE,
    "IFNodes": INTEGRATE,
    "LIFNodes": LEAK + Update(1),
    "BoostedLIFNodes": LEAK,
    "CurrentLIFNodes": LEAK + FILTER + Update(1),
    "AdaptiveLIFNodes": LEAK + ADAPT + Update(1),
    "DiehlAndCookNodes": LEAK + ADAPT + Update(1),
    "IzhikevichNodes": IZHIKEVICH,
}


def describe(module: Any) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    names = names_of(type(module), "bindsnet")
    if "Nodes" not in names:
        _check_learning(module)
        return None  # connections, networks: traced through
    if "AbstractInput" in names:  # it keeps what it gets
        return Neuron(kept="s", signed=True, promised=True, steps=lambda *_: Steps())
    inside = _lateral if "IzhikevichNodes" in names else None
    return Neuron(
        kept="s", max_spikes=1, checked=_is_librarys, inside=inside, steps=lambda *_: Steps()
    )


def reset(module: Any) -> bool:
    """Set what a module keeps between forwards to its start; whether it is one that does."""
    names = names_of(type(module), "bindsnet")
    if known := "Nodes" in names or "Network" in names:
        module.reset_state_variables()
    return known


def _check_learning(module: Any) -> None:
    """Rules multiply spikes with traces of others, which would be counted as if by synapses.

    Raises:
        UnsupportedOperationError: a connection learns while the network runs.
    """
    features = getattr(module, "pipeline", ())
    rules = [getattr(module, "update_rule", None)]
    rules += [getattr(feature, "learning_rule", None) for feature in features]
    for rule in rules if module.training else ():
        name = rule.__name__ if isinstance(rule, type) else type(rule).__name__
        if rule is not None and name != "NoOp":
            raise UnsupportedOperationError(
                f"a {type(module).__name__} of bindsnet learns while it runs ({name}): what the "
                "rule computes of spikes and their traces is no synaptic operation, and cannot be "
                "told from one. Turn learning off: network.train(False), or model.eval()."
            )


def _is_librarys(module: Any) -> bool:
    return is_librarys(type(module).forward)


def _lateral(module: Any, given: dict[str, Any], output: Any) -> dict[str, Callable[[], Any]]:
    """At each step, a population's spikes of the step before come back to all of it."""
    return {"S": lambda: F.linear(module.s.float(), module.S)}
