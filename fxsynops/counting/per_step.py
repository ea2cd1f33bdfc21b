"""SynOps step by step: of a pass, and over a data set their mean, their maximum and their peak."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
from torch import Tensor

from fxsynops.connectivity.moments import Moment
from fxsynops.counting.exact_sums import Reading, Term
from fxsynops.errors import InputError
from fxsynops.operations.products import Index, Product

Key = tuple[str, str, str]
_Pass = tuple[Sequence[Key], Tensor, int]  # see StepTotals.add


@dataclass(frozen=True)
class PerStep:
    """What connections make of the sums of a pass, step by step.

    Attributes:
        terms: see :class:`fxsynops.counting.exact_sums.Term`, and when their events are.
        readings: how each source was read; axes of samples and steps were kept.
        products: of events with events: the row, the product, the numbers of its two sources, and
            when theirs are.
        rows: how many connections there are.
        samples, steps: how many there are.
        since: the first step that events may be of: -1 if states hold those of the forward before,
            and a forward is one step.
    """

    terms: Sequence[tuple[Term, Moment]]
    readings: Sequence[Reading]
    products: Sequence[tuple[int, Product, tuple[int, int], tuple[Moment, Moment]]]
    rows: int
    samples: int
    steps: int
    since: int = 0

    @property
    def tells_samples(self) -> bool:
        """Whether it is known of all sources which of their elements belong to which sample.

        Of a single sample, nothing has to be told.
        """
        met = [self._indices(product, both)[1] for _, product, _, both in self.products]
        return None not in met and all(moment.sample is not None for _, moment in self.terms)

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """SynOps: (connections, steps, samples), float64; one sample if they are not told apart.

        Steps begin with number :attr:`since`.
        """
        sums = [read.together(p).double() for read, p in zip(self.readings, parts, strict=True)]
        cells: dict[int, Tensor] = {}
        apart, columns = self.samples if self.tells_samples else 1, self.steps - self.since
        for row, step, each in self._each(sums):
            each = each if len(each) == apart else each.sum().reshape(1)
            cell = row * columns + step - self.since
            cells[cell] = cells[cell] + each if cell in cells else each
        device = next((each.device for each in cells.values()), None)
        nothing = torch.zeros(apart, dtype=torch.float64, device=device)
        table = [cells.get(cell, nothing) for cell in range(self.rows * columns)]
        return torch.stack([nothing, *table])[1:].view(self.rows, columns, apart)

    def _each(self, sums: Sequence[Tensor]) -> list[tuple[int, int, Tensor]]:
        """The row and the step of some SynOps, and how many they are, by sample."""
        found = []
        for term, moment in self.terms:
            fanout = term.fanout.to(sums[term.source].device).double() * term.repeats
            events = sums[term.source] * fanout
            for step, each in moment.apart(events, self.samples, self.steps):
                found.append((term.row, step, each))
        for row, product, (left, right), both in self.products:
            step_index, sample_index, merged = self._indices(product, both)
            by = [i for i in dict.fromkeys((step_index, sample_index)) if i is not None]
            met = product.pairs(sums[left], sums[right], by)
            moment = Moment(
                None if sample_index is None else by.index(sample_index),
                None if step_index is None else by.index(step_index),
                merged,
                max(moment.at for moment in both),
                all(moment.always for moment in both),
            )
            for step, each in moment.apart(met, self.samples, self.steps):
                found.append((row, step, each))
        return found

    def _indices(
        self, product: Product, both: tuple[Moment, Moment]
    ) -> tuple[Index | None, Index | None, str]:
        """The indices of a product that run over steps, and over samples in both factors.

        Where events of one step meet those of another, they are taken to be of the left factor's.
        The last is how samples and steps are merged, if they are.
        """
        pairs = list(zip(product.axes, both, strict=True))
        steps = [(axes[m.step], m.merged) for axes, m in pairs if m.step is not None]
        step, merged = steps[0] if steps else (None, "")
        if self.samples == 1:
            return step, None, merged
        samples = [None if m.sample is None else axes[m.sample] for axes, m in pairs]
        return step, samples[0] if samples[0] == samples[1] else None, merged


@dataclass(frozen=True)
class StepRow:
    """The SynOps of one connection, or of all, step by step.

    Attributes:
        synapse, source, measured_at: of the connection; empty for all together.
        mean: of the samples that have the step: one number per step.
        max: the largest of any sample; None if samples cannot be told apart.
    """

    synapse: str
    source: str
    measured_at: str
    mean: tuple[float, ...]
    max: tuple[float, ...] | None

    @property
    def peak(self) -> float:
        """The most SynOps in one step: of any sample, or of the mean if these are not known."""
        return max(self.max if self.max is not None else self.mean)

    @property
    def peak_step(self) -> int:
        """The first step with so many."""
        most = self.max if self.max is not None else self.mean
        return most.index(self.peak)


@dataclass(frozen=True)
class Steps:
    """SynOps step by step, over all samples that were counted.

    Attributes:
        rows: one per connection.
        total: of all together.
        samples: how many samples have each step.
        dt: the length of a step in milliseconds.
        windows: the most SynOps of any sample in 1, 2, … steps that follow each other; of the
            passes' mean samples, if samples cannot be told apart.
    """

    rows: tuple[StepRow, ...]
    total: StepRow
    samples: tuple[int, ...]
    dt: float
    windows: tuple[float, ...] = field(repr=False)

    def peak(self, window_ms: float | None = None) -> float:
        """The most SynOps per second in any window of a length.

        Args:
            window_ms: its length, a multiple of a step's; one step if None. Outside of a pass
                there are no SynOps.

        Raises:
            InputError: the window is no whole number of steps.
        """
        length = self.dt if window_ms is None else window_ms
        steps = round(length / self.dt)
        if steps < 1 or not math.isclose(steps * self.dt, length, rel_tol=1e-6):
            raise InputError(
                f"window_ms={length:g} is no whole number of steps, which are {self.dt:g} ms long."
            )
        return self.windows[min(steps, len(self.windows)) - 1] / (length / 1000)

    def __add__(self, other: Steps) -> Steps:
        """Of both together."""
        theirs = {(row.source, row.synapse, row.measured_at): row for row in other.rows}
        weights = list(zip_longest(self.samples, other.samples, fillvalue=0))

        def both(a: StepRow, b: StepRow) -> StepRow:
            pairs = zip_longest(a.mean, b.mean, fillvalue=0.0)
            mean = tuple(
                (x * n + y * m) / (n + m) for (x, y), (n, m) in zip(pairs, weights, strict=True)
            )
            most = None
            if a.max is not None and b.max is not None:
                most = tuple(map(max, zip_longest(a.max, b.max, fillvalue=0.0)))
            return StepRow(a.synapse, a.source, a.measured_at, mean, most)

        longest = max(len(self.windows), len(other.windows))
        windows = tuple(max(_at(self.windows, i), _at(other.windows, i)) for i in range(longest))
        return Steps(
            tuple(both(r, theirs[r.source, r.synapse, r.measured_at]) for r in self.rows),
            both(self.total, other.total),
            tuple(n + m for n, m in weights),
            self.dt,
            windows,
        )


def _at(windows: Sequence[float], i: int) -> float:
    """The most in so many steps; a longer window than the pass holds all of it."""
    return windows[min(i, len(windows) - 1)]


class StepTotals:
    """What has been counted step by step: in constant memory, however many samples.

    Attributes:
        unknown: why a pass could not be told step by step, or "".
    """

    def __init__(self) -> None:
        self.unknown = ""
        self._at_hand: list[_Pass] = []
        self._apart = True
        self._samples: list[int] = []
        self._sums: dict[Key | None, Tensor] = {}  # (steps,); None: of all together
        self._most: dict[Key | None, Tensor] = {}
        self._windows = torch.zeros(0, dtype=torch.float64)

    def add(self, keys: Sequence[Key], table: Tensor, since: int = 0) -> None:
        """One more pass, of some or all steps of the samples at hand.

        Args:
            keys: of its connections.
            table: (connections, steps, samples), see :class:`PerStep`.
            since: of its steps, where they begin: at the pass, or a step before.
        """
        self._at_hand.append((keys, table.detach(), since))

    def end(self, samples: int) -> None:
        """The samples at hand are complete.

        Args:
            samples: how many there are, told apart or not.
        """
        if self._at_hand:
            self._add(*_one_after_the_other(self._at_hand), samples)
            self._at_hand = []

    def ended(self, samples: int) -> StepTotals:
        """The same, as if the samples at hand were complete."""
        if not self._at_hand:
            return self
        whole = copy.copy(self)
        whole._samples, whole._sums = list(self._samples), dict(self._sums)
        whole._most = dict(self._most)
        whole.end(samples)
        return whole

    def _add(self, keys: Sequence[Key], table: Tensor, samples: int) -> None:
        steps, apart = table.shape[1:]
        self._apart = self._apart and apart == samples
        known = len(self._samples)
        self._samples += [0] * (steps - known)
        for step in range(steps):
            self._samples[step] += samples
        every = torch.cat([table, table.sum(0, keepdim=True)])
        sums = every.sum(2)
        most = every.amax(2) if apart == samples else sums / samples
        for key, added, largest in zip((*keys, None), sums, most, strict=True):
            self._sums[key] = _longer(self._sums.get(key), added, torch.add)
            self._most[key] = _longer(self._most.get(key), largest, torch.maximum)
        fresh = _windows(table.sum(0) / (1 if apart == samples else samples))
        longest = max(len(fresh), len(self._windows))
        known_windows = _extended(self._windows.to(fresh.device), longest)
        self._windows = torch.maximum(known_windows, _extended(fresh, longest))

    def steps(self, names: Mapping[Key, tuple[str, str, str]], dt: float) -> Steps | None:
        """What was counted; None if it is not known, or nothing was.

        Args:
            names: synapse, source and where it is measured, by the connections' keys.
            dt: the length of a step in milliseconds.
        """
        if self.unknown or not self._samples:
            return None
        counts = torch.tensor(self._samples, dtype=torch.float64)

        def row(key: Key | None, named: tuple[str, str, str]) -> StepRow:
            zero = counts.new_zeros(len(counts))
            sums = _longer(zero, self._sums.get(key, zero).cpu(), torch.add)
            most = _longer(zero, self._most.get(key, zero).cpu(), torch.maximum)
            top = tuple(most.tolist()) if self._apart else None
            return StepRow(*named, tuple((sums / counts).tolist()), top)

        rows = tuple(row(key, named) for key, named in names.items())
        total = row(None, ("", "", ""))
        return Steps(rows, total, tuple(self._samples), dt, tuple(self._windows.tolist()))


def _one_after_the_other(passes: Sequence[_Pass]) -> tuple[Sequence[Key], Tensor]:
    """Passes of other steps as one of all steps; connections may differ from pass to pass."""
    if len(passes) == 1 and passes[0][2] == 0:
        return passes[0][:2]
    every = {
        key: row for row, key in enumerate(dict.fromkeys(k for keys, *_ in passes for k in keys))
    }
    apart = min(table.shape[2] for _, table, _ in passes)
    steps = sum(table.shape[1] + since for _, table, since in passes)
    whole = passes[-1][1].new_zeros(len(every), steps, apart)
    begin = 0
    for keys, table, since in passes:
        table = table if table.shape[2] == apart else table.sum(2, keepdim=True)
        rows = torch.tensor([every[key] for key in keys], dtype=torch.long, device=table.device)
        for step in range(since, table.shape[1] + since):  # before the first one: with it
            at = max(begin + step, 0)
            whole[rows, at] = whole[rows, at] + table[:, step - since]
        begin += table.shape[1] + since
    return list(every), whole


def _longer(
    known: Tensor | None, new: Tensor, together: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Two series of steps together, the shorter one with zeros behind."""
    if known is None:
        return new
    known = known.to(new.device)
    longest = max(len(known), len(new))
    first, second = (torch.cat([x, x.new_zeros(longest - len(x))]) for x in (known, new))
    return together(first, second)


def _extended(windows: Tensor, length: int) -> Tensor:
    """With longer windows than a pass: they hold all of it."""
    more = length - len(windows)
    last = windows[-1:] if len(windows) else windows.new_zeros(1)
    return torch.cat([windows, last.expand(more)]) if more > 0 else windows


def _windows(whole: Tensor) -> Tensor:
    """The largest sum of 1, 2, … steps that follow each other: (steps, samples) → (steps,)."""
    before = torch.cat([whole.new_zeros(1, whole.shape[1]), whole.cumsum(0)])
    steps = len(whole)
    return torch.stack([(before[n:] - before[: steps + 1 - n]).amax() for n in range(1, steps + 1)])
