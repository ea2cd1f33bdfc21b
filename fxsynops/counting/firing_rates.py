"""Firing rates: mean events per step of every neuron, and which neurons are silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fxsynops.counting.exact_sums import Reading
from fxsynops.errors import InputError


@dataclass(frozen=True)
class FiringRates:
    """How often each neuron of one source has fired.

    Attributes:
        source: its name.
        events: of each neuron, over all samples and steps; of the neurons' shape, differentiable
            if it is of the last forward.
        sample_steps: samples × steps that this is the sum of.
    """

    source: str
    events: Tensor = field(repr=False)
    sample_steps: int

    @property
    def rates(self) -> Tensor:
        """Mean events per step of each neuron, of the neurons' shape."""
        return self.events / self.sample_steps

    @property
    def mean(self) -> float:
        """Mean events per neuron and step."""
        return float(self.rates.detach().mean())

    @property
    def silent(self) -> float:
        """The share of neurons that have not fired."""
        return float((self.events == 0).double().mean())

    def histogram(self, bins: int = 20) -> tuple[Tensor, Tensor]:
        """How many neurons fire how often.

        Args:
            bins: how many intervals between zero and the largest rate.

        Returns:
            the number of neurons in each interval, (bins,), and the edges in events per step,
            (bins + 1,).
        """
        rates = self.rates.detach().flatten().double().cpu()
        top = max(float(rates.max()), torch.finfo(torch.float32).tiny)
        counts, edges = torch.histogram(rates, bins, range=(0.0, top))
        return counts, edges

    def __add__(self, other: FiringRates) -> FiringRates:
        """Of two passes, or of two processes.

        Raises:
            InputError: they are not of the same neurons.
        """
        if self.events.shape != other.events.shape:
            raise InputError(
                f"source '{self.source}' has had {tuple(self.events.shape)} neurons, and now has "
                f"{tuple(other.events.shape)}, so that their firing rates do not add up. Read "
                "counter.counts and call counter.clear() before the number of neurons changes, or "
                "count without rates=True."
            )
        events = self.events + other.events.to(self.events.device)
        return FiringRates(self.source, events, self.sample_steps + other.sample_steps)

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.events.numel():,} neurons, {self.mean:.4f} events per step, "
            f"{self.silent:.1%} silent"
        )


@dataclass(frozen=True)
class Firing:
    """All calls of one source in a pass, to be read as rates.

    Attributes:
        source: its name.
        calls: the number of each call among the partial sums, how it was read, and the axes along
            which samples and steps lie.
        sample_steps: samples × steps of a pass.
    """

    source: str
    calls: Sequence[tuple[int, Reading, tuple[int, ...]]]
    sample_steps: int

    def __call__(self, parts: Sequence[Tensor]) -> FiringRates:
        """The rates, from the partial sums of a pass."""
        found = []
        for number, reading, axes in self.calls:
            sums = reading.together(parts[number]).double()
            found.append(sums.sum(axes) if axes else sums)
        return FiringRates(self.source, torch.stack(found).sum(0), self.sample_steps)
