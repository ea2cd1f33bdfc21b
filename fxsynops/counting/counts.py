"""What was counted: numbers per connection, read from the device, ready to print."""

from __future__ import annotations

import functools
import math
import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import distributed

from fxsynops.connectivity.results import Connection, Findings, whole
from fxsynops.counting.exact_sums import EXACT_BELOW
from fxsynops.counting.firing_rates import FiringRates
from fxsynops.counting.per_sample import Statistics
from fxsynops.counting.per_step import Steps
from fxsynops.errors import CountError, InputError
from fxsynops.tracing.sharded import ranks_that_count_the_same

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Span:
    """How much has been counted: samples, and steps of all of them."""

    samples: int = 0
    sample_steps: int = 0

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
    arrived: float = 0.0


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
        arrived: Σ |e| at the synapse's input: an event that comes there in two places counts twice,
            one that is dropped on the way does not.
    """

    connection: Connection
    events: float
    synops: float
    nominal: float | None
    rate: float
    per_second: float
    arrived: float


@dataclass(frozen=True)
class Extras:
    """What is known beside the counts.

    Attributes:
        rates: of every spiking node, by name; empty if the counter keeps none.
        per_sample: mean, spread and extremes of the samples; None if they were not kept apart.
        not_apart: why there is no ``per_sample``, where it was asked for.
        partial: whether counting was interrupted.
        fractions: sources that have put out fractions of events, by name.
        steps: SynOps step by step; None if they were not kept apart, or are not known.
        steps_unknown: why there are no ``steps``, where they were asked for.
        lengths: how many samples had how many steps, by the number of steps.
        fired: events of every spiking node, by name.
        macs: multiply-accumulates by synapse with analog input; with ``events="nonzero"``, of
            inputs that were not zero.
        evaluated: whether the model was set to eval mode for it.
    """

    rates: dict[str, FiringRates] = field(default_factory=dict)
    per_sample: Statistics | None = None
    not_apart: str = ""
    partial: bool = False
    fractions: frozenset[str] = frozenset()
    steps: Steps | None = None
    steps_unknown: str = ""
    lengths: dict[int, int] = field(default_factory=dict)
    fired: dict[str, float] = field(default_factory=dict)
    macs: dict[str, float] = field(default_factory=dict)
    evaluated: bool = False

    def __add__(self, other: Extras) -> Extras:
        both = [x.per_sample for x in (self, other) if x.per_sample is not None]
        shared = self.rates.keys() & other.rates.keys()
        return Extras(
            {name: self.rates[name] + other.rates[name] for name in self.rates if name in shared},
            both[0] + both[1] if len(both) == 2 else None,
            self.not_apart or other.not_apart,
            self.partial or other.partial,
            self.fractions | other.fractions,
            self.steps + other.steps if self.steps and other.steps else None,
            self.steps_unknown or other.steps_unknown,
            dict(Counter(self.lengths) + Counter(other.lengths)),
            _added(self.fired, other.fired),
            _added(self.macs, other.macs),
            self.evaluated or other.evaluated,
        )


def _added(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    return {name: ours.get(name, 0.0) + theirs.get(name, 0.0) for name in ours | theirs}


@dataclass(frozen=True)
class Numbers:
    """What is exchanged between processes, and kept with a checkpoint."""

    options: tuple[str, float, str, str]
    rows: dict[tuple[str, str, str], tuple[float, float, float]]
    span: Span
    exact: bool
    extras: Extras

    @classmethod
    def of(cls, counts: Counted) -> Numbers:
        """Those of some counts."""
        options = (counts.model, counts.dt, counts.events, counts.weights)
        rows = {r.connection.key: (r.events, r.synops, r.arrived) for r in counts.rows}
        return cls(options, rows, counts.span, counts.exact, counts.extras)

    def plain(self) -> dict[str, Any]:
        """Numbers, names and tensors alone."""
        extras = self.extras
        rates = {
            name: (r.events.detach().cpu(), r.sample_steps) for name, r in extras.rates.items()
        }
        return {
            "options": self.options,
            "rows": self.rows,
            "span": (self.span.samples, self.span.sample_steps),
            "exact": self.exact,
            "rates": rates,
            "fractions": sorted(extras.fractions),
            "lengths": extras.lengths,
            "fired": extras.fired,
            "macs": extras.macs,
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Numbers:
        """Those of :meth:`plain`."""
        extras = Extras(
            {name: FiringRates(name, *rates) for name, rates in plain["rates"].items()},
            fractions=frozenset(plain["fractions"]),
            lengths=plain["lengths"],
            fired=plain["fired"],
            macs=plain["macs"],
        )
        options, rows, span = tuple(plain["options"]), plain["rows"], Span(*plain["span"])
        return cls(options, rows, span, plain["exact"], extras)


@dataclass(frozen=True)
class Counted:
    """SynOps counted on a model, per connection; see :class:`fxsynops.Counts`.

    Attributes:
        rows: one per connection.
        total: SynOps, all samples and steps.
        samples: samples counted.
        timesteps: steps per sample.
        exact: whether all events were whole numbers, and every sum stayed within the range in which
            these are exact.
        findings: the analysis that they were counted with.
        extras: rates, statistics of samples, whether they are partial.
    """

    rows: tuple[Row, ...]
    total: float
    samples: int
    timesteps: float
    exact: bool
    findings: Findings = field(repr=False, compare=False)
    extras: Extras = field(repr=False, default=Extras())

    @classmethod
    def of(cls, findings: Findings, measured: list[Measured], span: Span, extras: Extras) -> Self:
        """Counts from raw sums.

        Raises:
            CountError: events were not numbers, or not whole ones.
        """
        for row in measured:
            if math.isnan(row.synops) or math.isnan(row.events):
                raise CountError(
                    f"source '{row.connection.source}' put out NaN (counted at synapse "
                    f"'{row.connection.synapse}'), so its SynOps are not a number. Look for the "
                    "NaN in its input (torch.autograd.set_detect_anomaly), then counter.clear()."
                )
            fraction = row.connection.measured_at in extras.fractions
            if row.connection.guessed and (fraction or not row.events.is_integer()):
                raise CountError(
                    f"source '{row.connection.source}' put out {row.events:g} events in all, "
                    "fractions among them, so it is no neuron. It was taken for one because it "
                    "made whole numbers of the example. Analyze the model with an example that is "
                    "like the data, or register the function with fxsynops.register_routing."
                )
        exact = all(row.largest < EXACT_BELOW for row in measured) and not extras.fractions
        return cls._made(findings, measured, span, exact, extras)

    @classmethod
    def _made(
        cls,
        findings: Findings,
        measured: list[Measured],
        span: Span,
        exact: bool,
        extras: Extras,
    ) -> Self:
        seconds = span.sample_steps * findings.options.dt / 1000
        return cls(
            rows=tuple(_row(row, span, seconds) for row in measured),
            total=whole(math.fsum(row.synops for row in measured)),
            samples=span.samples,
            timesteps=span.timesteps,
            exact=exact,
            findings=findings,
            extras=extras,
        )

    @property
    def model(self) -> str:
        """The model's class."""
        return self.findings.name

    @property
    def dt(self) -> float:
        """Length of a step in milliseconds."""
        return self.findings.options.dt

    @property
    def events(self) -> str:
        """The option ``events``."""
        return self.findings.options.events

    @property
    def weights(self) -> str:
        """The option ``weights``."""
        return self.findings.options.weights

    @property
    def rates(self) -> dict[str, FiringRates]:
        """Firing rates by the name of the spiking node, events per neuron and step.

        Empty if the counter was made without ``rates=True``.
        """
        return self.extras.rates

    @property
    def per_sample(self) -> Statistics | None:
        """SynOps per sample: mean, spread, extremes, and how many steps samples took.

        Of :meth:`fxsynops.SynOpsCounter.measure` only; None of forwards, and where it is not known
        what belongs to which sample (the tables say why).
        """
        return self.extras.per_sample

    @property
    def steps(self) -> Steps | None:
        """SynOps step by step, of each connection and of all: means and maxima over samples.

        None if the counter was made without ``steps=True``, or if steps are not known;
        :attr:`steps_unknown` says why.
        """
        return self.extras.steps

    @property
    def steps_unknown(self) -> str:
        """Why there are no :attr:`steps`, where they were asked for; else empty."""
        return self.extras.steps_unknown

    @property
    def lengths(self) -> dict[int, int]:
        """How many samples had how many steps, by the number of steps."""
        return self.extras.lengths

    def peak(self, window_ms: float | None = None) -> float:
        """The most SynOps per second of one sample in any window of a length.

        Args:
            window_ms: its length in milliseconds, a whole number of steps; one step if None.

        Returns:
            SynOps per second; of the mean sample, if samples are not told apart.

        Raises:
            InputError: steps were not kept apart or are not known, or the window is no whole
                number of steps.
        """
        if self.steps is None:
            why = f"are not known: {self.steps_unknown}" if self.steps_unknown else "were not kept"
            raise InputError(
                f"the steps {why}. Count with SynOpsCounter(..., steps=True), and say in layout= "
                "and timesteps= where the steps are."
            )
        return self.steps.peak(window_ms)

    @property
    def fired(self) -> dict[str, float]:
        """Events of every spiking node by its name, all samples and steps, whatever they reach."""
        return {name: whole(events) for name, events in self.extras.fired.items()}

    @property
    def macs(self) -> dict[str, float]:
        """Multiply-accumulates by the name of the synapse with analog input, all samples and steps.

        With ``events="nonzero"``, of inputs that were not zero (NeuroBench's effective ones); with
        ``weights="nonzero"``, of weights that are not.
        """
        return {name: whole(n) for name, n in self.extras.macs.items()}

    @property
    def partial(self) -> bool:
        """Whether the measurement was interrupted."""
        return self.extras.partial

    @property
    def span(self) -> Span:
        """Samples, and the steps of all of them together."""
        return Span(self.samples, round(self.samples * self.timesteps))

    def __add__(self, other: Counted) -> Self:
        """Both together: of two parts of a data set, or of two processes.

        Raises:
            InputError: they are of other connections, steps of another length, or other options.
        """
        if not isinstance(other, Counted):
            return NotImplemented
        return self.plus([Numbers.of(other)])

    def __radd__(self, other: Any) -> Self:
        """The sum of a list of counts starts at 0."""
        return self if other == 0 else NotImplemented

    def all_reduce(self, group: Any = None) -> Self:
        """The counts of all processes together, in each of them.

        Args:
            group: of ``torch.distributed``; the default group if None. The backend must be able to
                gather objects, as gloo and NCCL are.

        Raises:
            InputError: there is no process group, or the processes count different models.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            raise InputError(
                "all_reduce needs torch.distributed: call init_process_group first, or start the "
                "script with torchrun."
            )
        mine = Numbers.of(self), ranks_that_count_the_same(self.findings.model)
        everyone: list[Any] = [None] * distributed.get_world_size(group)
        distributed.all_gather_object(everyone, mine, group)
        once = {ranks or (rank,): numbers for rank, (numbers, ranks) in enumerate(everyone)}
        return self._of(list(once.values()))

    def plus(self, others: list[Numbers]) -> Self:
        """Together with the numbers of others; those who have counted nothing add nothing.

        Raises:
            InputError: they are of other connections, or options.
        """
        return self._of([Numbers.of(self), *others])

    def _of(self, several: list[Numbers]) -> Self:
        ours = Numbers.of(self)
        for other in several:
            if other.options != ours.options or set(other.rows) != set(ours.rows):
                apart = sorted(set(other.rows) ^ set(ours.rows))
                raise InputError(
                    f"these counts do not add up: {ours.options} and {other.options}"
                    + (f", and {apart} are not in both." if apart else ".")
                )
        every = [numbers for numbers in several if numbers.span.samples] or [ours]
        measured = [
            Measured(
                row.connection,
                math.fsum(numbers.rows[row.connection.key][0] for numbers in every),
                math.fsum(numbers.rows[row.connection.key][1] for numbers in every),
                arrived=math.fsum(numbers.rows[row.connection.key][2] for numbers in every),
            )
            for row in self.rows
        ]
        span = Span(
            sum(numbers.span.samples for numbers in every),
            sum(numbers.span.sample_steps for numbers in every),
        )
        exact = all(numbers.exact for numbers in every)
        extras = functools.reduce(operator.add, (numbers.extras for numbers in every))
        return self._made(self.findings, measured, span, exact, extras)


def _row(row: Measured, span: Span, seconds: float) -> Row:
    nominal = row.connection.fanout.nominal
    places = row.connection.neurons * span.sample_steps
    return Row(
        row.connection,
        whole(row.events),
        whole(row.synops),
        None if nominal is None else whole(row.events * nominal),
        row.events / places if places else 0.0,
        row.synops / seconds if seconds else 0.0,
        whole(row.arrived),
    )
