"""What one update of a neuron costs, by its type: in the tables ``UPDATES`` of the library files.

An update is what a neuron does in every time step, whether anything reaches it or not. What events
bring is no part of it: an addition for each synaptic operation, each bias and each reset. Constants
that multiply an input are in the weights, as chips fold them. An exponential or a sigmoid is not
counted: no two chips do them alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Update:
    """What a neuron does in every time step.

    Attributes:
        additions: of states, and of constants.
        multiplies: of states with decays, and with each other.
        comparisons: with thresholds.
        states: values that it keeps.

    Example:
        >>> import torch, fxsynops
        >>> from fxsynops.neurons import Update
        >>> class Resonator(torch.nn.Module):
        ...     def forward(self, x):
        ...         return (x > 1).float()
        >>> _ = fxsynops.register_spiking(Resonator, update=Update(2, 4, 1))
    """

    additions: float = 0
    multiplies: float = 0
    comparisons: float = 0
    states: float = 0

    def __add__(self, other: Update) -> Update:
        return Update(
            self.additions + other.additions,
            self.multiplies + other.multiplies,
            self.comparisons + other.comparisons,
            self.states + other.states,
        )

    def __mul__(self, times: float) -> Update:
        return Update(
            self.additions * times,
            self.multiplies * times,
            self.comparisons * times,
            self.states * times,
        )


UpdateOf = Update | Callable[[Any], Update]  # of a type, or read from a module

ROUND = Update(0, 0, 1)  # ⌊x⌋
INTEGRATE = Update(0, 0, 1, 1)  # v ≥ θ
LEAK = Update(0, 1, 1, 1)  # v ← α·v
FILTER = Update(1, 1, 0, 1)  # i ← β·i, v ← v + i
ADAPT = Update(1, 1, 0, 1)  # b ← γ·b, θ + b
LSTM = Update(1, 3, 1, 2)  # c ← f·c + i·g, o·tanh(c)
QUADRATIC = Update(3, 2, 1, 1)  # v ← v + a·(v − r)·(v − c)
EXPONENTIAL = Update(4, 3, 1, 1)  # v ← v + (r − v + Δ·exp((v − h) / Δ)) / τ
IZHIKEVICH = Update(6, 5, 1, 2)  # v ← v + a·(v − r)·(v − c) − w, w ← w + b·(c·(v − r) − w)
ASSUMED = LEAK  # of types that are not known
