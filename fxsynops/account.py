"""What a counter has counted so far: passes are kept as they are, and added up some at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxsynops.findings import Connection
from fxsynops.rates import FiringRates
from fxsynops.reduction import Tally, add_up
from fxsynops.replay import Replay

_PENDING = 2**17  # partial sums of passes that are kept until they are added up


@dataclass
class _Total:
    """What has been counted on one set of connections.

    Attributes:
        connections: as the first replay has them.
        both: events and SynOps of each.
        largest: the largest partial sum.
    """

    connections: tuple[Connection, ...]
    both: Tensor
    largest: Tensor

    @classmethod
    def none(cls, replay: Replay) -> _Total:
        """Of a replay's connections, before anything was counted."""
        zeros = torch.zeros((2, len(replay.keys)), dtype=torch.float64)
        return cls(replay.analysis.connections, zeros, zeros.new_zeros(()))

    def add(self, tallies: Sequence[Tally]) -> None:
        """Some passes more."""
        device = tallies[-1].contraction.device
        both, largest = add_up(tallies, device)
        self.both = self.both.to(device) + both
        self.largest = torch.maximum(self.largest.to(device), largest)


class Account:
    """What a counter has counted. No module: its attributes are set in every forward.

    Attributes:
        last: the last pass, with its history.
        pending: passes without their history that are not yet part of what follows.
        totals: what was counted, by the connections' keys.
        rates: of every spiking node, by name, if they are kept.
        samples, sample_steps: how many.
    """

    last: tuple[Replay, Tally] | None
    pending: list[tuple[Replay, Tally]]
    totals: dict[Any, _Total]
    rates: dict[str, FiringRates]
    samples: int
    sample_steps: int

    def __init__(self) -> None:
        self.last = None
        self.clear()

    def commit(self, replay: Replay, tally: Tally) -> None:
        """One more pass."""
        self.last = (replay, tally)
        self.pending.append((replay, tally.detached()))
        self._held += tally.contraction.count
        if self._held > _PENDING or tally.contraction.products:
            self.settle()

    def settle(self) -> None:
        """Add up what is pending."""
        passes: dict[Any, list[tuple[Replay, Tally]]] = defaultdict(list)
        for replay, tally in self.pending:
            passes[replay.keys].append((replay, tally))
            window = replay.analysis.window
            self.samples += window.samples
            self.sample_steps += window.samples * window.timesteps
            for firing in replay.firing:
                rates = firing(tally.parts)
                known = self.rates.get(rates.source)
                self.rates[rates.source] = rates if known is None else known + rates
        for keys, of_keys in passes.items():
            if keys not in self.totals:
                self.totals[keys] = _Total.none(of_keys[0][0])
            self.totals[keys].add([tally for _, tally in of_keys])
        self.pending.clear()
        self._held = 0

    def clear(self) -> None:
        """Forget all but the last pass."""
        self.pending, self._held = [], 0
        self.totals, self.rates = {}, {}
        self.samples = self.sample_steps = 0
