"""What was counted: numbers per connection, read from the device, ready to print."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fxsynops import report
from fxsynops.errors import CountError
from fxsynops.inputs import Window
from fxsynops.reduction import EXACT_BELOW

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from fxsynops.analysis import Analysis, Connection


@dataclass(frozen=True)
class Span:
    """How much has been counted: samples, and steps of all of them."""

    samples: int = 0
    sample_steps: int = 0

    def plus(self, window: Window) -> Span:
        """One more pass."""
        return Span(
            self.samples + window.samples, self.sample_steps + window.samples * window.timesteps
        )

    @property
    def timesteps(self) -> float:
        """Steps per sample (the mean, if passes differ)."""
        steps = self.sample_steps / self.samples if self.samples else 0.0
        return int(steps) if steps.is_integer() else steps


@dataclass
class Measured:
    """Raw sums of one connection, still being added up."""

    connection: Connection
    events: float = 0.0
    synops: float = 0.0
    largest: float = 0.0


@dataclass(frozen=True)
class Row:
    """One connection's counts.

    Attributes:
        connection: what was counted.
        events: Σ |e| measured, all samples and steps.
        synops: Σ |e| × fan-out.
        nominal: events × nominal fan-out, or None.
        rate: events per neuron and step.
        per_second: SynOps per sample and second.
    """

    connection: Connection
    events: float
    synops: float
    nominal: float | None
    rate: float
    per_second: float


@dataclass(frozen=True)
class Counts:
    """SynOps counted on a model, per connection. Prints as the table of the sinabs how-to.

    Attributes:
        rows: one per connection.
        total: SynOps, all samples and steps.
        samples: samples counted.
        timesteps: steps per sample.
        dt: length of a step in milliseconds.
        exact: whether every sum stayed within the range in which whole numbers are exact.
    """

    rows: tuple[Row, ...]
    total: float
    samples: int
    timesteps: float
    dt: float
    exact: bool
    model: str = field(repr=False, default="")
    events: str = "value"
    weights: str = "all"

    @classmethod
    def of(cls, analysis: Analysis, measured: list[Measured], span: Span) -> Counts:
        """Counts from raw sums.

        Raises:
            CountError: events were not numbers.
        """
        for row in measured:
            if math.isnan(row.synops) or math.isnan(row.events):
                raise CountError(
                    f"source '{row.connection.source}' put out NaN (counted at synapse "
                    f"'{row.connection.synapse}'), so its SynOps are not a number. Look for the "
                    "NaN in its input (torch.autograd.set_detect_anomaly), then counter.clear()."
                )
        seconds = span.sample_steps * analysis.options.dt / 1000
        rows = tuple(_row(row, span, seconds) for row in measured)
        return cls(
            rows,
            _whole(math.fsum(row.synops for row in measured)),
            span.samples,
            span.timesteps,
            analysis.options.dt,
            all(row.largest < EXACT_BELOW for row in measured),
            type(analysis.model).__name__,
            analysis.options.events,
            analysis.options.weights,
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """One dict per connection, for ``pandas.DataFrame``, with the how-to's columns."""
        return report.counts_rows(self)

    def to_json(self) -> str:
        """The rows and totals as JSON."""
        return report.counts_json(self)

    def __str__(self) -> str:
        return report.render(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from report.counts_table(self, console, options)


def _row(row: Measured, span: Span, seconds: float) -> Row:
    nominal = row.connection.fanout.nominal
    places = row.connection.neurons * span.sample_steps
    return Row(
        row.connection,
        _whole(row.events),
        _whole(row.synops),
        None if nominal is None else _whole(row.events * nominal),
        row.events / places if places else 0.0,
        row.synops / seconds if seconds else 0.0,
    )


def _whole(value: float) -> Any:
    return int(value) if float(value).is_integer() else value
