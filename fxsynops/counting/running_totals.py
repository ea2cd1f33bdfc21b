"""What a counter has counted so far: passes are kept as they are, and added up some at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxsynops.counting.exact_sums import Tally, add_up, fractions
from fxsynops.counting.firing_rates import FiringRates
from fxsynops.counting.per_step import StepTotals
from fxsynops.counting.replay import Replay, Rows

_PENDING = 2**17  # partial sums of passes that are kept until they are added up
_EACH = 128  # what a pass holds beside them, in partial sums


@dataclass(frozen=True)
class Total:
    """What has been counted on one set of connections.

    Attributes:
        rows: what they are, in the first replay that has them.
        both: events and SynOps of each: (2, connections), float64; behind them, its other sums.
        largest: the largest partial sum that was added up in float32.
    """

    rows: Rows
    both: Tensor
    largest: Tensor

    @classmethod
    def none(cls, rows: Rows) -> Total:
        """Before anything was counted."""
        zeros = torch.zeros((2, rows.count), dtype=torch.float64)
        return cls(rows, zeros, zeros.new_zeros(()))

    def plus(self, tallies: Sequence[Tally]) -> Total:
        """With some passes more."""
        device = tallies[-1].contraction.device
        both, largest = add_up(tallies, device)
        most = torch.maximum(self.largest.to(device), largest)
        return Total(self.rows, self.both.to(device) + both, most)


class Account:
    """What a counter has counted. No module: its attributes are set in every forward.

    Attributes:
        last: the last pass, with its history.
        pending: passes that :meth:`settle` has yet to add up: the rows' keys, the replay's names
            and MACs, and the tally without its history.
        macs: multiply-accumulates of synapses with analog input, by name.
        totals: what has been added up, by the rows' keys.
        rates: of every spiking node, by name, if they are kept.
        steps: what was counted step by step, if it is kept.
        fractions: how far the events of some sources were from whole numbers, by name.
        samples, sample_steps: how many.
        at_hand: how many samples have had some of their steps; 0 between samples.
        lengths: how many samples had how many steps, by the number of steps.
    """

    last: tuple[Replay, Tally] | None
    pending: list[tuple[Any, Mapping[int, str], Mapping[str, float], Tally]]
    macs: dict[str, float]
    totals: dict[Any, Total]
    rates: dict[str, FiringRates]
    steps: StepTotals
    fractions: dict[str, Tensor]
    samples: int
    sample_steps: int
    at_hand: int
    lengths: dict[int, int]
    _taken: int  # steps of the samples at hand
    _replay: Replay | None  # whose connections are among the totals
    _held: int

    def __init__(self) -> None:
        self.last = None
        self.clear()

    def commit(self, replay: Replay, tally: Tally) -> None:
        """One more pass."""
        detached = tally.detached()
        if replay.firing:
            self._add_rates([firing(detached.parts) for firing in replay.firing])
        window, by_step = replay.analysis.window, replay.analysis.options.layout.by_step
        if not self.at_hand:
            self.samples += window.samples
        self.at_hand = window.samples
        self._taken += window.timesteps
        if replay.per_step is not None:
            table = replay.per_step(detached.parts)
            self.steps.add(replay.keys, table, replay.per_step.since)
        elif replay.steps_unknown:
            self.steps.unknown = replay.steps_unknown
        if not by_step:
            self.end()
        if replay is not self._replay:
            if replay.rows.keys not in self.totals:
                self.totals[replay.rows.keys] = Total.none(replay.rows)
            self._replay = replay
        self.last = (replay, tally)
        self.pending.append((replay.rows.keys, replay.names, replay.macs, detached))
        self.sample_steps += window.samples * window.timesteps
        self._held += tally.contraction.count + _EACH
        if self._held > _PENDING or tally.contraction.products:
            self.settle()

    def end(self) -> None:
        """The samples at hand have no further steps."""
        self.steps.end(self.at_hand)
        if self.at_hand:
            self.lengths[self._taken] = self.lengths.get(self._taken, 0) + self.at_hand
        self.at_hand = self._taken = 0

    @property
    def taken(self) -> dict[int, int]:
        """The lengths of all samples, those at hand included."""
        known = self.lengths.get(self._taken, 0)
        return self.lengths | ({self._taken: known + self.at_hand} if self.at_hand else {})

    def _add_rates(self, found: list[FiringRates]) -> None:
        known = self.rates
        added = {
            new.source: known[new.source] + new if new.source in known else new for new in found
        }
        self.rates = known | added

    def settle(self) -> None:
        """Add up what is pending."""
        tallies: dict[Any, list[Tally]] = defaultdict(list)
        by_replay: dict[int, tuple[Mapping[int, str], list[Tally]]] = {}
        for keys, names, macs, tally in self.pending:
            tallies[keys].append(tally)
            by_replay.setdefault(id(names), (names, []))[1].append(tally)
            self.macs |= {name: self.macs.get(name, 0.0) + n for name, n in macs.items()}
        for names, passes in by_replay.values():
            for number, apart in fractions(passes).items():
                name = names[number]
                known = self.fractions.get(name)
                self.fractions[name] = apart if known is None else torch.maximum(known, apart)
        self.totals |= {keys: self.totals[keys].plus(passes) for keys, passes in tallies.items()}
        self.pending, self._held = [], 0

    @property
    def is_meta(self) -> bool:
        """Whether there are no numbers."""
        pending = (tally.contraction.device.type for *_, tally in self.pending)
        return "meta" in pending or any(total.both.is_meta for total in self.totals.values())

    def clear(self) -> None:
        """Forget all but the last pass."""
        self.pending, self._held = [], 0
        self._replay = None
        self.totals, self.rates, self.fractions, self.macs = {}, {}, {}, {}
        self.steps = StepTotals()
        self.samples = self.sample_steps = self.at_hand = self._taken = 0
        self.lengths = {}
