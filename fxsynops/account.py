"""What a counter has counted so far: passes are kept as they are, and added up some at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    """What has been counted on one set of connections."""

    connections: tuple[Connection, ...]
    both: Tensor
    largest: Tensor
    pending: list[Tally] = field(default_factory=list)
    held: int = 0

    @classmethod
    def none(cls, replay: Replay) -> _Total:
        """Of a replay's connections, before anything was counted."""
        zeros = torch.zeros((2, len(replay.keys)), dtype=torch.float64)
        return cls(replay.analysis.connections, zeros, zeros.new_zeros(()))

    def add(self, tally: Tally) -> None:
        """One more pass, without its history; passes are added up some at a time."""
        self.pending.append(tally)
        self.held += tally.contraction.count
        if tally.contraction.products or self.held > _PENDING:
            self.settle()

    @property
    def is_meta(self) -> bool:
        """Whether there are no numbers."""
        return any(tally.contraction.device.type == "meta" for tally in self.pending) or (
            self.both.is_meta
        )

    def settle(self) -> None:
        """Add up what is pending."""
        if self.pending:
            device = self.pending[-1].contraction.device
            both, largest = add_up(self.pending, device)
            self.both = self.both.to(device) + both
            self.largest = torch.maximum(self.largest.to(device), largest)
            self.pending.clear()
            self.held = 0


class Account:
    """What a counter has counted. No module: its attributes are set in every forward."""

    def __init__(self) -> None:
        self.last: tuple[Replay, Tally] | None = None
        self.clear()

    def commit(self, replay: Replay, tally: Tally) -> None:
        """One more pass."""
        self.last = (replay, tally)
        detached = tally.detached()
        for firing in replay.firing:
            rates = firing(detached.parts)
            known = self.rates.get(rates.source)
            self.rates[rates.source] = rates if known is None else known + rates
        if replay.keys not in self.totals:
            self.totals[replay.keys] = _Total.none(replay)
        self.totals[replay.keys].add(detached)
        window = replay.analysis.window
        self.samples += window.samples
        self.sample_steps += window.samples * window.timesteps

    def clear(self) -> None:
        """Forget all but the last pass."""
        self.totals: dict[Any, _Total] = {}
        self.rates: dict[str, FiringRates] = {}
        self.samples = self.sample_steps = 0
