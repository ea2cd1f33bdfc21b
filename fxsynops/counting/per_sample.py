"""SynOps of each sample, and their mean, spread and extremes over a data set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fxsynops.connectivity.sample_axes import Leading
from fxsynops.counting.exact_sums import Reading, Term
from fxsynops.operations.products import Index, Product

_PENDING = 256  # batches


@dataclass(frozen=True)
class Statistics:
    """SynOps per sample.

    Attributes:
        samples: how many.
        mean: of them.
        squares: the sum of their squared distances to the mean.
        min, max: the cheapest and the dearest sample.
        lengths: how many samples had how many steps, by the number of steps.

    Example:
        >>> import torch
        >>> first, second = torch.tensor([1.0, 3.0]), torch.tensor([5.0])
        >>> both = Statistics.of(first) + Statistics.of(second)
        >>> both.mean, both.std, both.min, both.max
        (3.0, 2.0, 1.0, 5.0)
    """

    samples: int = 0
    mean: float = 0.0
    squares: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    lengths: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, synops: Tensor) -> Statistics:
        """Of the samples of one batch: (samples,)."""
        values = synops.detach().double().cpu()
        mean = values.mean()
        squares = (values - mean).square().sum()
        least, most = float(values.min()), float(values.max())
        return cls(len(values), float(mean), float(squares), least, most)

    def __add__(self, other: Statistics) -> Statistics:
        """Of both together (Chan, Golub and LeVeque 1979)."""
        if not (self.samples and other.samples):
            return self if self.samples else other
        samples = self.samples + other.samples
        apart = other.mean - self.mean
        mean = self.mean + apart * other.samples / samples
        squares = self.squares + other.squares + apart**2 * self.samples * other.samples / samples
        least, most = min(self.min, other.min), max(self.max, other.max)
        lengths = dict(Counter(self.lengths) + Counter(other.lengths))
        return Statistics(samples, mean, squares, least, most, lengths)

    @property
    def std(self) -> float:
        """The standard deviation, with one less than the number of samples below the line."""
        return math.sqrt(self.squares / (self.samples - 1)) if self.samples > 1 else 0.0


class Spread:
    """Statistics of a stream of batches, which waits for a GPU only now and then."""

    def __init__(self) -> None:
        self._settled = Statistics()
        self._pending: list[Tensor] = []

    def add(self, synops: Tensor) -> None:
        """One more batch: (samples,)."""
        self._pending.append(synops.detach())
        if len(self._pending) >= _PENDING:
            self.statistics()

    def statistics(self) -> Statistics:
        """Of all batches so far."""
        if self._pending:
            self._settled = self._settled + Statistics.of(torch.cat(self._pending))
            self._pending.clear()
        return self._settled


@dataclass(frozen=True)
class PerSample:
    """What connections make of the sums of a pass, sample by sample.

    Attributes:
        terms: see :class:`fxsynops.counting.exact_sums.Term`.
        readings: how each source was read; the axis of samples was kept.
        leading: where each source has it.
        products: of events with events: the product, and the numbers of its two sources.
        samples: how many there are.
    """

    terms: Sequence[Term]
    readings: Sequence[Reading]
    leading: Sequence[Leading]
    products: Sequence[tuple[Product, tuple[int, int]]]
    samples: int

    @property
    def known(self) -> bool:
        """Whether it is known of all sources which of their elements belong to which sample."""
        alone = all(lead.window.samples == 1 or lead.sample is not None for lead in self.leading)
        return alone and all(
            self.leading[left].window.samples == 1 or self._index(product, left, right) is not None
            for product, (left, right) in self.products
        )

    def _index(self, product: Product, left: int, right: int) -> Index | None:
        """The index of a product that runs over the samples in both factors."""
        first, second = self.leading[left].sample, self.leading[right].sample
        assert first is not None
        assert second is not None
        index = product.axes[0][first]
        return index if product.axes[1][second] == index else None

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """SynOps of each sample: (samples,), float64."""
        return self.each(parts).sum(0)

    def each(self, parts: Sequence[Tensor]) -> Tensor:
        """SynOps of each term and product, by sample: (terms, samples), float64."""
        sums = [read.together(p).double() for read, p in zip(self.readings, parts, strict=True)]
        found: list[Tensor] = []
        for term in self.terms:
            fanout = term.fanout.to(sums[term.source].device).double() * term.repeats
            found.append(self.leading[term.source].by_sample(sums[term.source] * fanout))
        for product, (left, right) in self.products:
            lead = self.leading[left]
            if lead.window.samples == 1:
                found.append(product.pairs(sums[left], sums[right]).reshape(1))
                continue
            index = self._index(product, left, right)
            assert index is not None
            met = product.pairs(sums[left], sums[right], by=[index])
            found.append(Leading((0,), 0, lead.merged, lead.window).by_sample(met))
        return torch.stack(found) if found else torch.zeros(0, self.samples, dtype=torch.float64)
