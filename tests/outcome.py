"""One pass of any model: what the counter says, and what the oracle of ``tests.watched`` sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import fxsynops
from tests.watched import drop_zeros, watch


@dataclass
class Case:
    """One model with an input.

    Attributes:
        build: makes the model.
        inputs: makes its inputs.
        options: of the analysis.
        reset: sets the model's neurons to their first state.
        units, analog: see :class:`tests.watched.Watched`.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    reset: Callable[[nn.Module], None] = lambda _: None
    units: dict[str, float] = field(default_factory=dict)
    analog: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What the counter and the oracle say of one pass."""

    counter: fxsynops.SynOpsCounter
    synops: dict[str, float]
    macs: dict[str, float]
    expected_synops: dict[str, float]
    expected_macs: dict[str, float]
    same_output: bool


def count(case: Case) -> Outcome:
    """Count one pass of a model, and let the oracle watch the same pass."""
    return next(counts(case))


def counts(case: Case, batches: int = 1) -> Iterator[Outcome]:
    """Count passes of a model, one for each batch; the first batch is the example."""
    torch.manual_seed(0)
    model, inputs = case.build(), case.inputs()
    case.reset(model)
    counter = fxsynops.SynOpsCounter(model, inputs, **case.options)
    for batch in range(batches):
        inputs = case.inputs() if batch else inputs
        counter.clear()
        yield _counted(case, counter, inputs)


def _counted(case: Case, counter: fxsynops.SynOpsCounter, inputs: tuple[Any, ...]) -> Outcome:
    model = counter.model
    case.reset(model)
    torch.manual_seed(1)
    with torch.no_grad():
        y = counter(*inputs)
    case.reset(model)
    torch.manual_seed(1)
    expected, synops, macs = watch(model, *inputs, units=case.units, analog=case.analog)
    window = counter.counts
    passes = window.samples * window.timesteps
    return Outcome(
        counter,
        by_module(model, {k: float(v.detach()) for k, v in counter.per_synapse.items()}),
        by_module(model, {row.synapse: row.macs * passes for row in counter.analysis.dense}),
        synops,
        macs,
        same(y, expected),
    )


def by_module(model: nn.Module, counts: dict[str, float]) -> dict[str, float]:
    """Sums by the module that a synapse's name begins with."""
    modules = dict(model.named_modules())
    sums: dict[str, float] = defaultdict(float)
    for name, n in counts.items():
        path = name.partition("#")[0].partition(":")[0]
        if path == type(model).__name__ or (path not in modules and "." not in path):
            path = ""
        while path not in modules:
            path = path.rpartition(".")[0]
        sums[path] += n
    return drop_zeros(sums)


def same(a: Any, b: Any) -> bool:
    """Whether two outputs are equal bit for bit."""
    ours, theirs = pytree.tree_leaves(a), pytree.tree_leaves(b)
    return len(ours) == len(theirs) and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y
        for x, y in zip(ours, theirs, strict=True)
    )
