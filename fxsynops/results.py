"""What users get: the results of the stages, which print, are saved, and cost something.

    Bound     bounds        rows, .structural, .charge, .total
    Counts    counting      rows, .total, .samples, .timesteps
    Energy    cost          joules, of either
    Audit     counting      what left the sources, and what arrived at the synapses

Each is the plain result of its stage, with what cost and reporting make of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from fxsynops.bounds.bound import Bounded, events_of
from fxsynops.cost.advice import Advice, advice
from fxsynops.cost.budget import Budgeted
from fxsynops.cost.chips import Chip
from fxsynops.cost.conventional import Conventional, conventional_of
from fxsynops.cost.energy import Costed
from fxsynops.cost.fit import fit
from fxsynops.cost.latency import Latency, latency_of
from fxsynops.cost.layers import layers_of
from fxsynops.cost.memory import Memory, MemoryModel, memory_of
from fxsynops.cost.summary import Summary, summary_of
from fxsynops.cost.workload import Flow, Workload, macs_of, workload
from fxsynops.counting.audit import Audited
from fxsynops.counting.counts import Counted
from fxsynops.errors import InputError
from fxsynops.reporting.audit_table import audit_content
from fxsynops.reporting.bound_table import bound_content
from fxsynops.reporting.counts_table import counts_content
from fxsynops.reporting.report import Reported


@dataclass(frozen=True)
class Audit(Audited, Reported):
    """An analysis, held against what the model did with an input. Prints as a table.

    Attributes:
        rows: one per synapse: what left the sources, and what arrived; see
            :class:`fxsynops.counting.audit.AuditRow`.
        notes: what looks like events, though it is taken for analog.
        faults: what is wrong beside the rows.
        ok: whether nothing disagrees.
    """

    @classmethod
    def of(cls, audited: Audited) -> Audit:
        """What the stage has found, with everything that can be done with it."""
        return cls(**{entry.name: getattr(audited, entry.name) for entry in fields(audited)})

    def explain(self) -> str:
        """What disagrees, in words."""
        if self.ok:
            return f"the analysis of {self.model} agrees with what it did with the example"
        wrong = [str(row) for row in self.rows if row.agrees is False]
        lines = "\n".join(f"  - {line}" for line in (*wrong, *self.faults))
        return (
            f"the analysis of {self.model} does not agree with what it did with the example:\n"
            f"{lines}\nSome operation does to events what its rule does not know. Say what it does "
            "(fxsynops.register_routing, register_synapse, register_spiking), or count with "
            "strict=False, which lists these synapses in analysis.unresolved."
        )

    def _content(self) -> dict[str, Any]:
        return audit_content(self)


@dataclass(frozen=True)
class Bound(Bounded, Budgeted, Costed, Reported):
    """An upper bound on the SynOps of one sample. Prints as a table.

    Attributes:
        rows: one per connection; see :class:`fxsynops.bounds.bound.BoundRow`.
        timesteps: steps of the window that is bounded.
        structural: T · r · Σ fan-out, summed over the connections.
        charge: the bound from the charge that neurons receive, where there is one, and the
            structural one elsewhere.
        total: the smaller bound of each connection, added up.
        peak: SynOps in the most expensive step, at most; None if steps are not known.
        assumptions: what was assumed about the input and the neurons.
        findings: the analysis of the model.
        estimate: whether this is no bound, but an estimate at a firing rate that was given.
        measured: the counts that it is compared with.
    """

    @classmethod
    def of(cls, bounded: Bounded) -> Bound:
        """What the stage has found, with everything that can be done with it."""
        return cls(**{entry.name: getattr(bounded, entry.name) for entry in fields(bounded)})

    @property
    def model(self) -> str:
        """The model's class."""
        return self.findings.name

    @property
    def dt(self) -> float:
        """Length of a step in milliseconds."""
        return self.findings.options.dt

    @property
    def workload(self) -> Workload:
        """The operations of a sample, at most."""
        synops = [(row.connection, row.charge) for row in self.rows]
        return workload(self.findings, synops, self.timesteps, not self.estimate)

    def memory(self, model: MemoryModel | None = None, **options: Any) -> Memory:
        """The memory traffic of a sample, at most, and what it costs.

        Args:
            model: widths, sizes, and what accesses cost.
            options: in its place, those of :class:`fxsynops.energy.MemoryModel`.
        """
        most = not self.estimate
        return memory_of(self.findings, self._flow(), model or MemoryModel(**options), most)

    @property
    def conventional(self) -> Conventional:
        """The operations of a sample as papers count them, of an estimate or at most."""
        return conventional_of(self.findings, self._flow(), bound=True)

    def _flow(self) -> Flow:
        events = events_of(self)
        rows = tuple(
            (row.connection, row.charge, events.arriving[row.connection.key]) for row in self.rows
        )
        layers = layers_of(self.findings)
        macs = macs_of(self.findings, layers, self.timesteps)
        return Flow(layers, rows, events.fired, self.timesteps, macs)

    def costs(self) -> tuple[list[tuple[str, float]], float]:
        """Of every connection, its synapse and its SynOps at most; and the window in ms."""
        rows = [(row.connection.synapse, row.charge) for row in self.rows]
        return rows, self.timesteps * self.dt

    def peak_per_second(self) -> float | None:
        """The most SynOps per second in any step, if it is known; not of an estimate."""
        return None if self.peak is None or self.estimate else self.peak / (self.dt / 1000)

    def _content(self) -> dict[str, Any]:
        return bound_content(self)


@dataclass(frozen=True)
class Counts(Counted, Budgeted, Costed, Reported):
    """SynOps counted on a model, per connection. Prints as the table of the sinabs how-to.

    Attributes:
        rows: one per connection; see :class:`fxsynops.counting.counts.Row`.
        total: SynOps, all samples and steps.
        samples: samples counted.
        timesteps: steps per sample.
        exact: whether all events were whole numbers, and every sum stayed within the range in which
            these are exact.
        findings: the analysis that they were counted with.
        extras: rates, statistics of samples, whether they are partial.
    """

    @property
    def workload(self) -> Workload:
        """The operations of the mean sample."""
        self._check_counted()
        synops = [(row.connection, row.synops / self.samples) for row in self.rows]
        macs = {name: n / self.samples for name, n in self.macs.items()}
        return workload(self.findings, synops, self.timesteps, macs=macs)

    def memory(self, model: MemoryModel | None = None, **options: Any) -> Memory:
        """The memory traffic of the mean sample, and what it costs; see :mod:`fxsynops.energy`.

        Args:
            model: widths, sizes, and what accesses cost.
            options: in its place, those of :class:`fxsynops.energy.MemoryModel`.

        Raises:
            InputError: nothing has been counted yet.

        Example:
            >>> import torch, fxsynops
            >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), fxsynops.nn.IAF())
            >>> counter = fxsynops.SynOpsCounter(model, torch.ones(1, 10, 4), layout="NT")
            >>> _ = counter(torch.ones(2, 10, 4))
            >>> row = counter.counts.memory(bits=8).to_rows()[0]
            >>> row["Inputs read"], row["Weights read"], row["Potentials read"]
            (40, 120, 150)
        """
        return memory_of(self.findings, self._flow(), model or MemoryModel(**options))

    @property
    def conventional(self) -> Conventional:
        """The operations of the mean sample as papers count them, beside the exact count.

        Raises:
            InputError: nothing has been counted yet.

        Example:
            >>> import torch, fxsynops
            >>> model = torch.nn.Conv1d(2, 3, 3, padding=1)
            >>> counter = fxsynops.SynOpsCounter(model, torch.ones(1, 2, 5), layout="N")
            >>> _ = counter(torch.ones(4, 2, 5))
            >>> found = counter.counts.conventional
            >>> found.acs, found.rows[0].exact, found.rows[0].why
            (90, 78, '+12 taps in the padding')
        """
        return conventional_of(self.findings, self._flow())

    def advice(self, most: int = 3, *, rate: float | None = None) -> Advice:
        """The changes of the network that would save most SynOps, each computed and not guessed.

        Silent channels, neurons that lead nowhere, thresholds, pools, padding; see
        :mod:`fxsynops.cost.advice`. What can be changed at once is counted on the example.

        Args:
            most: how many changes to give.
            rate: events per neuron and step that thresholds shall be raised for; half of the
                present one if None.

        Raises:
            InputError: nothing has been counted, or the counter was made without ``rates=True``.
        """
        self._check_counted()
        if not self.rates:
            raise InputError(
                "advice needs the firing rate of every neuron: count with rates=True "
                "(SynOpsCounter(..., rates=True), fxsynops.count(..., rates=True))."
            )
        synops = {row.connection.key: row.synops / self.samples for row in self.rows}
        return advice(self.findings, synops, self.rates, self.samples, most, rate)

    def latency(self, chip: str | Chip) -> Latency:
        """How long a chip takes for the mean sample, and what it costs there: an estimate.

        Args:
            chip: a name ("loihi"), or your own :class:`fxsynops.chips.Chip` with costs of events.

        Raises:
            InputError: there is no such chip, or its times are not known, or nothing was counted.
        """
        return latency_of(fit(self.findings, chip), self._flow())

    @property
    def fired(self) -> dict[str, float]:
        """Events of every spiking node by its name, all samples and steps, whatever they reach.

        Comparisons that only hold a membrane (a floor, a refractory time) are none.
        """
        masks = layers_of(self.findings).masks
        return {name: events for name, events in super().fired.items() if name not in masks}

    @property
    def summary(self) -> Summary:
        """The figures that people look for, of the mean sample; ``summary["Parameters"]`` is one.

        Raises:
            InputError: nothing has been counted yet.
        """
        return summary_of(self.findings, self._flow())

    def _flow(self) -> Flow:
        self._check_counted()
        each = 1 / self.samples
        rows = tuple((r.connection, r.synops * each, r.arrived * each) for r in self.rows)
        fired = {name: events * each for name, events in self.fired.items()}
        macs = {name: n * each for name, n in self.macs.items()}
        return Flow(layers_of(self.findings), rows, fired, self.timesteps, macs)

    def _check_counted(self) -> None:
        if not self.samples:
            raise InputError("nothing has been counted yet: run the counter on data first.")

    def costs(self) -> tuple[list[tuple[str, float]], float]:
        """Of every connection, its synapse and its SynOps per sample; and the window in ms."""
        samples = max(self.samples, 1)
        rows = [(row.connection.synapse, row.synops / samples) for row in self.rows]
        return rows, self.timesteps * self.dt

    def peak_per_second(self) -> float | None:
        """The most SynOps per second in any step, if steps were kept apart and are known."""
        return None if self.steps is None else self.steps.peak()

    def _content(self) -> dict[str, Any]:
        return counts_content(self)
