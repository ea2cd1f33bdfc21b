"""What a neuron's charge comes to by its library's equations, beside what the package finds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from fxsynops.neurons import Neuron, describe
from fxsynops.neurons.dynamics import Drive, Dynamics, NoArgumentError, Start, Steps

T, N = 8, 3  # steps and neurons
Shapes = tuple[tuple[int, ...], ...]
SEQUENCE: Shapes = ((2, T, N),)


def known(module: nn.Module) -> Neuron:
    found = describe(module)
    assert found is not None
    return found


def dynamics(module: nn.Module, *shapes: tuple[int, ...], **more: Any) -> Dynamics:
    """Of one call with (samples, steps, neurons), unless other shapes are given."""
    find = known(module).dynamics
    assert find is not None
    return find(module, Start(shapes or SEQUENCE, steps=steps(module, *shapes), **more))


def steps(module: nn.Module, *shapes: tuple[int, ...]) -> Steps:
    """Where a neuron has its time steps."""
    where = known(module).steps
    found = Steps() if where is None else where(module, (shapes or SEQUENCE)[0])
    assert found is not None
    return found


def assert_drive(
    found: Dynamics, removes: Any, gain: Any = 1.0, start: Any = 0.0, level: float = 0.0
) -> None:
    """What an event costs, what a charge is worth, what is there: all of them, and upwards only."""
    assert_is(found.up, removes, gain, start, level)
    assert found.down is None


def assert_is(drive: Drive | None, removes: Any, gain: Any, start: Any, level: float) -> None:
    assert drive is not None
    pairs = ((drive.removes, removes), (drive.gain, gain), (drive.start, start))
    for ours, said in pairs:
        ours, said = (torch.as_tensor(v, dtype=torch.float64) for v in (ours, said))
        torch.testing.assert_close(*torch.broadcast_tensors(ours, said), rtol=1e-6, atol=1e-7)
    assert drive.level == pytest.approx(level)


def assert_no_argument(module: nn.Module, why: str, *shapes: tuple[int, ...], **more: Any) -> None:
    with pytest.raises(NoArgumentError, match=why):
        dynamics(module, *shapes, **more)


def taps(base: float, first: int = 0, steps: int = T) -> float:
    """base^first + … over some steps."""
    return math.fsum(base ** (first + k) for k in range(steps))
