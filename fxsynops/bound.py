"""The static upper bound: how many SynOps an input can cause at most, before any data.

*Structural*: a source that emits at most r events per neuron and step causes at most
T · r · Σ fan-out SynOps on a connection. The r of a merge or a gate follows by interval
arithmetic from those of the sources behind it: a sum adds them, a window multiplies by its size, a
maximum keeps the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import fx

from fxsynops import report
from fxsynops.errors import InputError
from fxsynops.operations.registry import Kind
from fxsynops.signals import PRODUCTS, Role

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from fxsynops.analysis import Analysis, Connection

MaxSpikes = float | dict[str, float] | None


@dataclass(frozen=True)
class BoundRow:
    """One connection's bound.

    Attributes:
        max_events: events per neuron and step at most; infinite if nothing caps them.
        structural: SynOps per sample.
    """

    connection: Connection
    max_events: float
    structural: float


@dataclass(frozen=True)
class Bound:
    """An upper bound on the SynOps of one sample. Prints as a table.

    Attributes:
        rows: one per connection.
        timesteps: steps of the window that is bounded.
        structural: T · r · Σ fan-out, summed over the connections.
        charge: the bound from the charge that neurons receive; infinite, since this version does
            not derive it.
        total: the smaller one.
        assumptions: what was assumed about the input and the neurons.
    """

    rows: tuple[BoundRow, ...]
    timesteps: int
    structural: float
    charge: float
    total: float
    assumptions: tuple[str, ...]
    dt: float
    model: str = field(repr=False, default="")

    def to_rows(self) -> list[dict[str, Any]]:
        """One dict per connection, for ``pandas.DataFrame``."""
        return report.bound_rows(self)

    def to_json(self) -> str:
        """The rows and totals as JSON."""
        return report.bound_json(self)

    def __str__(self) -> str:
        return report.render(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from report.bound_table(self, console, options)


def upper_bound(
    analysis: Analysis,
    timesteps: int | None = None,
    *,
    max_spikes: MaxSpikes = None,
    input_max_events: float | None = None,
) -> Bound:
    """Bound the SynOps of one sample, whatever the input.

    Args:
        analysis: of the model, with nothing unresolved.
        timesteps: T; the example's if None.
        max_spikes: events per neuron and step, for all spiking nodes or by name; where it says
            nothing, a neuron's own cap holds.
        input_max_events: events per input element over the whole window; one per step if None.

    Raises:
        InputError: a number makes no sense, a source does not exist, or the analysis left
            something unresolved.
    """
    if analysis.unresolved:
        raise InputError(
            f"there is no bound for an analysis with {len(analysis.unresolved)} unresolved "
            f"operations, the first of which is {analysis.unresolved[0]}."
        )
    steps = analysis.window.timesteps if timesteps is None else timesteps
    if isinstance(steps, bool) or steps != int(steps) or steps < 1:
        raise InputError(f"timesteps must be a positive whole number, not {timesteps!r}.")
    caps = _Caps(analysis, max_spikes, input_max_events, int(steps))
    rows = []
    for connection in analysis.connections:
        most = max(caps.peaks[tap.node] for tap in connection.taps)
        if analysis.options.events == "nonzero":
            most = min(most, 1.0)
        total = connection.fanout.total
        rows.append(BoundRow(connection, most, most * steps * total if total else 0.0))
    structural = math.fsum(row.structural for row in rows)
    return Bound(
        tuple(rows),
        int(steps),
        structural,
        math.inf,
        structural,
        caps.assumptions(),
        analysis.options.dt,
        type(analysis.model).__name__,
    )


class _Caps:
    """The most events per element and step, at every node."""

    def __init__(
        self,
        analysis: Analysis,
        max_spikes: MaxSpikes,
        input_max_events: float | None,
        steps: int,
    ) -> None:
        self._names = analysis.connector.names
        self._given = max_spikes if isinstance(max_spikes, dict) else {}
        self._cap = None if isinstance(max_spikes, dict) else max_spikes
        self._input = 1.0 if input_max_events is None else input_max_events / steps
        self._input_given = input_max_events
        values = [*self._given.values(), self._cap or 0, self._input]
        if any(not value >= 0 for value in values):
            raise InputError(f"max_spikes and input_max_events must not be negative, not {values}.")
        known = {s for c in analysis.connections for s in c.sources}
        if missing := set(self._given) - known:
            raise InputError(
                f"max_spikes names {sorted(missing)}, which are no sources of this model. "
                f"Its sources are {sorted(known)}."
            )
        self.peaks: dict[fx.Node, float] = {}
        for node, role in analysis.connector.signals.roles.items():
            if role.signal.kind == "events":
                self.peaks[node] = self._peak(node, role)

    def assumptions(self) -> tuple[str, ...]:
        """In words, for the report."""
        events = (
            "at most one event per input element and step"
            if self._input_given is None
            else f"at most {self._input_given:g} events per input element"
        )
        said = [events]
        if self._cap is not None:
            said.append(f"at most {self._cap:g} per neuron and step")
        said += [f"at most {cap:g} from '{name}'" for name, cap in self._given.items()]
        return tuple(said)

    def _peak(self, node: fx.Node, role: Role) -> float:
        if role.kind == "source":
            return self._source(node, role)
        below = [self.peaks[carrier] for carrier in role.carriers]
        if role.operation is None or role.call is None:
            return math.inf  # a custom function behind a gate
        if role.operation.kind is Kind.THRESHOLD:
            return role.neuron.max_spikes if role.neuron else math.inf
        gain = role.operation.gain(role.call)
        if role.kind == "gate" and role.call.name in PRODUCTS:
            return math.prod(below)
        if role.kind == "routing" and role.operation.merges:
            return math.fsum(below) * gain
        return max(below) * gain

    def _source(self, node: fx.Node, role: Role) -> float:
        name = self._names[node]
        if node.op == "placeholder":
            return self._input
        own = role.neuron.max_spikes if role.neuron else math.inf
        if name in self._given:
            return self._given[name]
        return own if self._cap is None else min(own, self._cap)
