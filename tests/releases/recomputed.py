"""An oracle for the libraries here: synapses are watched by hooks, and done again with ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import fxsynops
from tests.outcome import Case, count

Synapses = Callable[[nn.Module, Tensor, Any], dict[str, Tensor]]


def recompute(model: nn.Module, x: Any, synapses: Synapses) -> tuple[Any, dict[str, float]]:
    """A pass of the model, and the SynOps of each synapse.

    Args:
        model: any model.
        x: its input.
        synapses: the all-ones results of a module's synapses, from what goes in and comes out; the
            name says where they stand in the module ("" for its only ones).
    """
    counts: dict[str, float] = defaultdict(float)

    def hook(name: str) -> Any:
        def seen(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not isinstance(args[0], Tensor):
                return  # a container of parts
            for part, y in synapses(module, args[0].double().abs(), output).items():
                counts[f"{name}.{part}".strip(".")] += float(y.detach().sum())

        return seen

    handles = [m.register_forward_hook(hook(name)) for name, m in model.named_modules()]
    try:
        output = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return output, {name: n for name, n in counts.items() if n}


def counted(counter: fxsynops.SynOpsCounter) -> dict[str, float]:
    """What the counter says of its last pass."""
    return {name: float(n.detach()) for name, n in counter.per_synapse.items() if n.detach()}


def leaves(value: Any) -> list[Tensor]:
    """The tensors in what a model returns."""
    found = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in found if isinstance(leaf, Tensor)]


def equal(a: Any, b: Any) -> bool:
    """Whether two outputs hold the same tensors, bit for bit."""
    return len(leaves(a)) == len(leaves(b)) > 0 and all(map(torch.equal, leaves(a), leaves(b)))


def checked(case: Case) -> dict[str, float]:
    """Count one pass, and hold it against the oracle and the bound; the SynOps by module."""
    outcome = count(case)
    assert outcome.same_output
    assert outcome.synops == outcome.expected_synops
    assert outcome.macs == outcome.expected_macs
    counts = outcome.counter.counts
    bound = outcome.counter.analysis.upper_bound()
    assert float(counts.total) / counts.samples <= bound.charge + 1e-6
    assert bound.charge <= bound.structural
    return outcome.synops
