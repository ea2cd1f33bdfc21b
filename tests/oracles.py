"""Slow, independent ways to count SynOps, which know nothing of fxsynops.

*Replay*: record what every source (and gate) emits in one real pass, then run the network with all
weights one, pools summing and scales one, each source emitting its recording. What comes out of
each synapse, summed up, is its SynOps.

*One neuron at a time*: the same with a single neuron of a single source switched on; what comes
out of each synapse is that neuron's fan-out.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.networks import Network


def record(net: Network, x: Tensor) -> dict[int, Tensor]:
    """The events that each source and gate emits in one pass, by number of the value."""
    values, recorded = [x], {0: x.double()}
    with torch.no_grad():
        for i, step in enumerate(net.steps):
            values.append(step.run(*(values[j] for j in step.inputs)))
            if step.kind in ("source", "gate"):
                recorded[i + 1] = (values[-1].double() / step.scale).round()
    return recorded


def replay(net: Network, recorded: dict[int, Tensor]) -> dict[str, Tensor]:
    """Σ of each synapse's output per sample, in the all-ones network."""
    values = [recorded[0].abs()]
    found: dict[str, Tensor] = {}
    for i, step in enumerate(net.steps):
        if step.kind in ("source", "gate"):
            values.append(recorded[i + 1].abs())
            continue
        y = step.ones(*(values[j] for j in step.inputs))
        if step.kind == "synapse":
            found[step.name] = found.get(step.name, 0) + y.flatten(1).sum(1)
        values.append(y)
    return found


def fanout(net: Network, source: int) -> dict[str, Tensor]:
    """For each synapse, the fan-out of each neuron of one source (in the neurons' shape)."""
    size = net.shapes[source]
    neurons = int(torch.tensor(size).prod())
    recorded = {
        i: torch.zeros(neurons, *net.shapes[i], dtype=torch.float64)
        for i, step in [(0, None), *((k + 1, s) for k, s in enumerate(net.steps))]
        if step is None or step.kind in ("source", "gate")
    }
    recorded[source] = torch.eye(neurons, dtype=torch.float64).reshape(neurons, *size)
    return {name: y.reshape(size) for name, y in replay(net, recorded).items()}


def near(expected: Any) -> Any:
    """Equal, but for rounding: of joules, what pytest tolerates by itself (1e-12) may be all."""
    return pytest.approx(expected, rel=1e-9, abs=0)
