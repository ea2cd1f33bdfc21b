"""The static upper bound: how many SynOps an input can cause at most, before any data.

*Structural* (:mod:`fxsynops.bounds.events_per_step`): a source that emits at most r events per
neuron and step causes at most T · r · Σ fan-out SynOps on a connection.

*Charge* (:mod:`fxsynops.bounds.charge`): a neuron cannot emit more events than the charge that it
receives in the window pays for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from fxsynops.bounds.charge import Charge
from fxsynops.bounds.driven_neurons import example_value, input_steps, is_negative
from fxsynops.bounds.estimate import Rates
from fxsynops.bounds.events_per_step import Assumptions, Caps, check_count, check_names
from fxsynops.bounds.interference import state_unlike_later
from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.connect import SynapseCalls, Tap
from fxsynops.connectivity.results import Connection, FanOut, Findings, without_values
from fxsynops.errors import InputError
from fxsynops.neurons.dynamics import Steps
from fxsynops.operations.call import shape
from fxsynops.operations.operation import Scale
from fxsynops.tracing.devices import own_device

if TYPE_CHECKING:
    from typing_extensions import Self

Given = Mapping[str | None, float]  # rates, by name; those of None are of all others


@dataclass(frozen=True)
class BoundRow:
    """One connection's bound.

    Attributes:
        max_events: events per neuron and step at most; infinite if nothing caps them.
        structural: SynOps per sample that the caps allow.
        charge: SynOps per sample that the charge allows as well; never more than ``structural``.
        reasons: why charge says nothing about a source, where it does not.
        peak: SynOps per sample in any one step at most; None if it is not known what is of a step.
    """

    connection: Connection
    max_events: float
    structural: float
    charge: float
    reasons: tuple[str, ...] = ()
    peak: float | None = None


class Measured(Protocol):
    """Counts, as far as a bound is compared with them."""

    @property
    def rows(self) -> tuple[Any, ...]:
        """One per connection."""

    @property
    def samples(self) -> int:
        """How many."""

    @property
    def timesteps(self) -> float:
        """Steps per sample."""


@dataclass(frozen=True)
class Bounded:
    """What :func:`upper_bound` and :func:`estimate` find; see :class:`fxsynops.Bound`.

    Attributes:
        rows: one per connection.
        timesteps: steps of the window that is bounded.
        structural: T · r · Σ fan-out, summed over the connections.
        charge: the bound from the charge that neurons receive, where there is one, and the
            structural one elsewhere.
        assumptions: what was assumed about the input and the neurons.
        findings: the analysis of the model.
        estimate: whether this is no bound, but an estimate at a firing rate that was given.
        measured: the counts that it is compared with.
        asked: what is assumed, or the rates that were given.
    """

    rows: tuple[BoundRow, ...]
    timesteps: int
    structural: float
    charge: float
    assumptions: tuple[str, ...]
    findings: Findings = field(repr=False, compare=False)
    estimate: bool = False
    measured: Measured | None = field(repr=False, default=None)
    asked: Assumptions | Given | None = field(repr=False, default=None)

    @property
    def total(self) -> float:
        """The smaller bound of each connection, added up: what ``charge`` is."""
        return self.charge

    @property
    def peak(self) -> float | None:
        """SynOps per sample in the most expensive step, at most; None if steps are not known."""
        peaks = [row.peak for row in self.rows if row.peak is not None]
        return math.fsum(peaks) if len(peaks) == len(self.rows) else None

    def compare(self, counts: Measured) -> Self:
        """The same bound, with what was measured beside it: how much of the worst case data used.

        Args:
            counts: of the same model. They are scaled to one sample and this bound's window.

        Raises:
            InputError: nothing was counted, or the connections are others.
        """
        ours = {row.connection.key for row in self.rows}
        theirs = {row.connection.key for row in counts.rows}
        if ours != theirs:
            raise InputError(
                f"the counts are of other connections: {sorted(ours ^ theirs)} are not in both. "
                "Compare a bound with counts of the same model."
            )
        if not counts.samples:
            raise InputError("nothing has been counted yet: run the counter on data first.")
        return replace(self, measured=counts)

    def used(self) -> dict[tuple[str, str, str], float]:
        """SynOps that were measured, of one sample in the bound's window, by connection."""
        counts = self.measured
        if counts is None:
            return {}
        scale = self.timesteps / counts.timesteps / counts.samples
        return {row.connection.key: row.synops * scale for row in counts.rows}


def upper_bound(findings: Findings, assumptions: Assumptions) -> Bounded:
    """Bound the SynOps of one sample, whatever the input.

    Args:
        findings: an analysis of the model with as many steps as the window has; where the layout
            has no axis of time, the window is several passes of it.
        assumptions: of inputs and neurons, and the length of the window.

    Raises:
        InputError: a source does not exist, or the analysis left something unresolved.
    """
    if findings.unresolved:
        raise InputError(
            f"there is no bound for an analysis with {len(findings.unresolved)} unresolved "
            f"operations, the first of which is {findings.unresolved[0]}."
        )
    roles = findings.connector.signals.roles
    analog = {
        str(origin_of(node)[0].target)
        for node, role in roles.items()
        if role.signal.kind == "analog" and origin_of(node)[0].op == "placeholder"
    }
    assumptions.check(_sources(findings), analog)
    if assumptions.timesteps > findings.window.timesteps:
        _check_repeats(findings)
    caps = Caps(findings, assumptions)
    charge = None if without_values(findings) else Charge(findings, assumptions, caps)
    rows = tuple(_row(findings, c, assumptions, caps, charge) for c in findings.connections)
    structural = math.fsum(row.structural for row in rows)
    charged = math.fsum(row.charge for row in rows)
    words = (*assumptions.words(bool(analog)), *_words_of_signs(findings))
    return Bounded(
        rows, assumptions.timesteps, structural, charged, words, findings, asked=assumptions
    )


def _words_of_signs(findings: Findings) -> tuple[str, ...]:
    """What is assumed of the signs of events among the inputs: what the example shows."""
    roles = findings.connector.signals.roles
    inputs = [
        n
        for n, role in roles.items()
        if role.kind == "source" and origin_of(n)[0].op == "placeholder"
    ]
    if not inputs:
        return ()
    if any(is_negative(example_value(findings, node)) for node in inputs):
        return ("negative events in inputs, as in the example",)
    return ("no negative events in inputs, as in the example",)


def _sources(findings: Findings) -> set[str]:
    return {source for c in findings.connections for source in c.sources}


def _row(
    findings: Findings,
    connection: Connection,
    assumptions: Assumptions,
    caps: Caps,
    charge: Charge | None,
) -> BoundRow:
    most, structural = _structural(findings, connection, caps, assumptions)
    once = _in_a_step(findings, connection, most, structural, assumptions)
    if charge is None:
        reasons: tuple[str, ...] = ("the model has no values (meta)",)
        return BoundRow(connection, most, structural, structural, reasons, once)
    found, reasons = charge.row(connection)
    if math.isinf(min(structural, found)) and not reasons:
        names = " and ".join(f"'{name}'" for name in connection.sources)
        reasons = (
            f"nothing says how many events {names} can emit per step, or what "
            f"'{connection.measured_at}' makes of them",
        )
    charged = min(structural, found)
    once = None if once is None else min(once, charged)
    return BoundRow(connection, most, structural, charged, reasons, once)


def estimate(findings: Findings, timesteps: int, rate: float | dict[str, float]) -> Bounded:
    """SynOps of one sample at given firing rates: T · rate · Σ fan-out. No bound.

    Behind gates, sums and products, rates follow from those of the sources (see
    :mod:`fxsynops.bounds.estimate`), unless they are given by the gate's name.

    Raises:
        InputError: a rate is negative, or names no source.
    """
    Assumptions(timesteps)  # checks them
    rates = rate if isinstance(rate, dict) else {}
    for value in rates.values() if rates else [rate]:
        check_count("rate", "nothing" if value is None else value)
    known = _sources(findings) | {c.measured_at for c in findings.connections}
    known |= findings.spiking.keys()  # what neurons put out that drive nothing
    check_names("rate", rates, known, "sources or gates of this model")
    given: dict[Any, float] = rate if isinstance(rate, dict) else {None: rate}
    expected = Rates(findings, given)
    rows = []
    for connection in findings.connections:
        mean = _mean(expected, connection)
        if mean is None:
            missing = [s for s in connection.sources if s not in rates]
            raise InputError(f"rate says nothing of {missing}. Give one for every source.")
        cost = mean * timesteps * connection.synapses
        rows.append(BoundRow(connection, mean, cost, cost))
    total = math.fsum(row.structural for row in rows)
    said = ", ".join(f"{r:g} from '{n}'" for n, r in rates.items()) or f"{rate:g}"
    words = (f"a mean of {said} events per neuron and step",)
    return Bounded(
        tuple(rows), timesteps, total, total, words, findings, estimate=True, asked=given
    )


def _mean(expected: Rates, connection: Connection) -> float | None:
    """Events per element and step, where a connection is measured; None if no rate says."""
    found = [expected.at(tap) for tap in connection.taps]
    known = [value for value in found if value is not None]
    return max(known) if len(known) == len(found) else None


# -- events, whatever they cost -------------------------------------------------------------------


@dataclass(frozen=True)
class EventTotals:
    """How many events there are in one sample, at most or as expected.

    Attributes:
        arriving: at the input of a connection's synapse, by its key.
        fired: of every spiking node, by its name; NaN if nothing is said of it.
    """

    arriving: dict[tuple[str, str, str], float]
    fired: dict[str, float]


@own_device()
def events_of(bound: Bounded) -> EventTotals:
    """The events behind a bound or an estimate, for the weights and states of now."""
    findings, asked = bound.findings, bound.asked
    if isinstance(asked, Assumptions):
        caps = Caps(findings, asked)
        charge = None if without_values(findings) else Charge(findings, asked, caps)

        def most(one: Connection) -> float:
            return _row(findings, one, asked, caps, charge).charge

    else:
        expected = Rates(findings, asked or {})

        def most(one: Connection) -> float:
            mean = _mean(expected, one)
            return math.nan if mean is None else mean * bound.timesteps * one.synapses

    return EventTotals(
        {c.key: most(_with_maps(findings, c, _arriving(c))) for c in findings.connections},
        {name: most(one) for name, one in _of_neurons(findings)},
    )


def _arriving(connection: Connection) -> tuple[Tap, ...]:
    return tuple(replace(tap, map=tap.arriving) for tap in connection.taps)


def _with_maps(findings: Findings, one: Connection, taps: tuple[Tap, ...]) -> Connection:
    """A connection that counts something else than fan-out."""
    total = math.fsum(
        float(tap.map.sum()) * math.prod(shape(tap.node)) / tap.map.numel() * tap.repeats
        for tap in taps
    )
    total /= findings.window.samples * findings.window.timesteps
    return replace(one, taps=taps, synapses=total)


def _of_neurons(findings: Findings) -> Iterator[tuple[str, Connection]]:
    """What would count each event of a spiking node once, as a connection."""
    roles = findings.connector.signals.roles
    for name, nodes in findings.spiking.items():
        ones = torch.ones((), dtype=torch.float64)
        taps = tuple(
            Tap(n, ones.reshape((1,) * len(shape(n))), roles[n].signal.scale or Scale())
            for n in map(findings.emitted, nodes)
        )
        calls = SynapseCalls("", "", None, ())
        fanout = FanOut(ones, 1.0, 0.0, None)
        one = Connection(
            name, (name,), "", "", name, 0, (), fanout, False, False, 0.0, taps=taps, calls=calls
        )
        yield name, _with_maps(findings, one, taps)


def _structural(
    findings: Findings, connection: Connection, caps: Caps, assumptions: Assumptions
) -> tuple[float, float]:
    """Events per neuron and step, and SynOps of the window."""
    most = max(caps.at(tap) for tap in connection.taps)
    if assumptions.input_max_events is not None and _is_of_input(connection):
        weights = sum(map(partial(_heaviest_steps, findings), connection.taps))
        return most, assumptions.input_max_events * weights / findings.window.samples
    total = connection.synapses
    return most, most * assumptions.timesteps * total if total else 0.0


def _in_a_step(
    findings: Findings,
    connection: Connection,
    most: float,
    structural: float,
    assumptions: Assumptions,
) -> float | None:
    """SynOps in any one step at most, where inputs and neurons say which of their events are of it.

    A static input is read in every step, or at once.
    """
    window = findings.window
    if assumptions.timesteps == 1:
        return structural
    if assumptions.input_max_events is not None and _is_of_input(connection):
        return structural  # all of them may come at once
    if window.timesteps == 1:
        return structural / assumptions.timesteps  # each step is a pass
    synapses, single = 0.0, []
    for tap in connection.taps:
        where, fanout = _steps_of(findings, tap), tap.map.double().expand(shape(tap.node))
        if where is None:
            return None
        if where.axis is not None:
            synapses += tap.repeats * float(where.split(fanout).flatten(1).sum(1).max())
        elif _is_of_input(connection):
            always = tap.repeats % window.timesteps == 0
            synapses += tap.repeats * float(fanout.sum()) / (window.timesteps if always else 1)
        else:
            single.append(tap.repeats * float(fanout.sum()))
    if single and len(single) != window.timesteps:
        return None
    synapses += max(single, default=0.0)
    return most * synapses / window.samples if synapses else 0.0


def _steps_of(findings: Findings, tap: Tap) -> Steps | None:
    """Where an input, or a neuron that knows it, has its time steps."""
    size, role = tuple(shape(tap.node)), findings.connector.signals.roles[tap.node]
    if origin_of(tap.node)[0].op == "placeholder":
        return input_steps(findings.options.layout, findings.window, size)
    return role.steps(size)


def _is_of_input(connection: Connection) -> bool:
    return all(origin_of(tap.node)[0].op == "placeholder" for tap in connection.taps)


def _check_repeats(findings: Findings) -> None:
    """One recorded forward must show what later ones of the window do."""
    if (name := state_unlike_later(findings)) is not None:
        raise InputError(
            f"the model changes '{name}' from forward to forward, and one forward does not show "
            "what the next ones do: it is no tensor yet, or written to through .data. Run the "
            "model once on an example and analyze it then, or analyze a forward of all steps."
        )


def _heaviest_steps(findings: Findings, tap: Tap) -> float:
    """Fan-out of each input element at the step where it is largest, summed over the elements."""
    size = shape(tap.node)
    steps = input_steps(findings.options.layout, findings.window, size)
    return tap.repeats * float(steps.split(tap.map.expand(size)).amax(0).sum())
