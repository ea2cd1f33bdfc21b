"""The static upper bound: how many SynOps an input can cause at most, before any data.

*Structural*: a source that emits at most r events per neuron and step causes at most
T · r · Σ fan-out SynOps on a connection. The r of a merge or a gate follows by interval
arithmetic from those of the sources behind it: a sum adds them, a window multiplies by its size, a
maximum keeps the largest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from torch import fx

from fxsynops.connect import Tap
from fxsynops.errors import InputError
from fxsynops.findings import Connection, Findings
from fxsynops.operations.registry import Call, Kind, Scale
from fxsynops.report import notes, number, render, table, to_json
from fxsynops.signals import Role
from fxsynops.values import PRODUCTS

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
        return _rows(self)

    def to_json(self) -> str:
        """The rows and totals as JSON."""
        return _json(self)

    def __str__(self) -> str:
        return render(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _table(self, console, options)


def upper_bound(
    findings: Findings,
    timesteps: int | None = None,
    *,
    max_spikes: MaxSpikes = None,
    input_max_events: float | None = None,
) -> Bound:
    """Bound the SynOps of one sample, whatever the input.

    Args:
        findings: an analysis of the model, with nothing unresolved.
        timesteps: T; the example's if None.
        max_spikes: events per neuron and step, for all spiking nodes or by name; where it says
            nothing, a neuron's own cap holds.
        input_max_events: events per input element over the whole window; one per step if None.

    Raises:
        InputError: a number makes no sense, a source does not exist, or the analysis left
            something unresolved.
    """
    if findings.unresolved:
        raise InputError(
            f"there is no bound for an analysis with {len(findings.unresolved)} unresolved "
            f"operations, the first of which is {findings.unresolved[0]}."
        )
    steps = findings.window.timesteps if timesteps is None else timesteps
    if isinstance(steps, bool) or steps != int(steps) or steps < 1:
        raise InputError(f"timesteps must be a positive whole number, not {timesteps!r}.")
    caps = _Caps(findings, max_spikes, input_max_events, int(steps))
    rows = []
    for connection in findings.connections:
        most = max(caps.at(tap) for tap in connection.taps)
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
        findings.options.dt,
        findings.name,
    )


class _Caps:
    """The most events per element and step, at every node."""

    def __init__(
        self,
        findings: Findings,
        max_spikes: MaxSpikes,
        input_max_events: float | None,
        steps: int,
    ) -> None:
        self._names = findings.connector.names
        self._constant = findings.connector.signals.constant
        self._given = max_spikes if isinstance(max_spikes, dict) else {}
        self._cap = None if isinstance(max_spikes, dict) else max_spikes
        self._input = 1.0 if input_max_events is None else input_max_events / steps
        self._input_given = input_max_events
        values = [*self._given.values(), self._cap or 0, self._input]
        if any(not value >= 0 for value in values):
            raise InputError(f"max_spikes and input_max_events must not be negative, not {values}.")
        known = {s for c in findings.connections for s in c.sources}
        if missing := set(self._given) - known:
            raise InputError(
                f"max_spikes names {sorted(missing)}, which are no sources of this model. "
                f"Its sources are {sorted(known)}."
            )
        self._ranges: dict[fx.Node, tuple[float, float]] = {}
        for node, role in findings.connector.signals.roles.items():
            if role.signal.kind == "events":
                low, high = self._range(node, role)
                self._ranges[node] = (min(low, 0.0), max(high, 0.0))
        self._most = 1.0 if findings.options.events == "nonzero" else math.inf

    def at(self, tap: Tap) -> float:
        """The most events per element and step that a tap can measure."""
        if tap.product is None:
            return self._peak(tap.node)
        peaks = [self._peak(operand) for operand in tap.product.operands]
        return tap.product.contracted * math.prod(peaks) if all(peaks) else 0.0

    def _peak(self, node: fx.Node) -> float:
        low, high = self._ranges[node]
        return min(max(-low, high), self._most)

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

    def _range(self, node: fx.Node, role: Role) -> tuple[float, float]:
        """The least and the most that an element can be, in events (interval arithmetic)."""
        if role.kind == "mask":
            return 0.0, 1.0
        if role.kind == "source":
            most = self._source(node, role)
            return (-most if role.neuron is None or role.neuron.signed else 0.0), most
        call, operation = role.call, role.operation
        if operation is None or call is None:
            return -math.inf, math.inf  # a custom function behind a gate
        if operation.kind is Kind.THRESHOLD:
            most = role.neuron.max_spikes if role.neuron else math.inf
            return (-most if most != 1 else 0.0), most
        if role.product is not None:
            low, high = _product([self._ranges[operand] for operand in role.carriers])
            return low * role.product.contracted, high * role.product.contracted
        if role.kind == "gate" and (call.name in PRODUCTS or operation.kind is Kind.PRODUCT):
            return _product([self._ranges[carrier] for carrier in role.carriers])
        if operation.merges and role.kind == "routing":
            return self._merged(role, call)
        gain = operation.gain(call)
        low = min(self._ranges[carrier][0] for carrier in role.carriers)
        high = max(self._ranges[carrier][1] for carrier in role.carriers)
        most = max(-low, high)
        if call.name in ("abs", "absolute"):
            low, high = 0.0, most
        elif call.name in ("relu", "relu6"):
            low = 0.0
        elif call.name in PRODUCTS or operation.scale(call) != Scale():
            low, high = -most, most  # a scale may be negative
        return low * gain if low else 0.0, high * gain if high else 0.0

    def _merged(self, role: Role, call: Call) -> tuple[float, float]:
        """A sum or difference of events and constants."""
        signs = {"sub": [1, -1], "subtract": [1, -1], "rsub": [-1, 1]}.get(call.name, [1, 1])
        low = high = 0.0
        for operand, sign in zip(call.args, signs, strict=False):
            a, b = self._operand(operand)
            low += a if sign > 0 else -b
            high += b if sign > 0 else -a
        if call.name not in ("add", "sub", "subtract", "rsub") or call.kwargs:
            parts = [self._ranges[carrier] for carrier in role.carriers]
            gain = (role.operation.gain(call) if role.operation else 1.0) or 1.0
            most = math.fsum(max(-a, b) for a, b in parts) * gain
            return -most, most
        return low, high

    def _operand(self, operand: object) -> tuple[float, float]:
        if isinstance(operand, fx.Node):
            known = self._ranges.get(operand)
            if known is not None:
                return known
            value = self._constant(operand)
            if value is None or value.is_meta or not value.numel():
                return -math.inf, math.inf
            return float(value.min()), float(value.max())
        number = float(operand) if isinstance(operand, int | float) else 0.0
        return number, number

    def _source(self, node: fx.Node, role: Role) -> float:
        name = self._names[node]
        if node.op == "placeholder":
            return self._input
        own = role.neuron.max_spikes if role.neuron else math.inf
        if name in self._given:
            return self._given[name]
        return own if self._cap is None else min(own, self._cap)


def _product(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """The interval of a product."""
    low, high = parts[0]
    for a, b in parts[1:]:
        corners = [x * y if x and y else 0.0 for x in (low, high) for y in (a, b)]
        low, high = min(corners), max(corners)
    return low, high


# -- as text --------------------------------------------------------------------------------------


def _table(bound: Bound, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
    """The upper-bound table."""
    rows = [
        {
            "Source": row["Source"],
            "Synapse": row["Synapse"],
            "Neurons": number(row["Neurons"]),
            "Synapses": number(row["Synapses"]),
            "Events/step": number(row["Events per step"]),
            "SynOps": number(row["SynOps"]),
            "SynOps/s": number(row["SynOps/s"], 0),
            "Share": "–" if row["Share"] is None else f"{row['Share']:.1%}",
        }
        for row in _rows(bound)
    ]
    per_second = bound.structural / (bound.timesteps * bound.dt / 1000)
    total = {
        "Source": "Total",
        "SynOps": number(bound.total),
        "SynOps/s": number(per_second, 0),
    }
    title = f"Upper bound of {bound.model}"
    yield table(title, rows, total, ("Share", "Neurons", "Events/step"), console, options)
    yield from notes(
        [
            f"Structural bound per sample of {bound.timesteps} steps of {bound.dt:g} ms, "
            f"with {', '.join(bound.assumptions)}."
        ]
    )


def _rows(bound: Bound) -> list[dict[str, Any]]:
    """See :meth:`fxsynops.Bound.to_rows`."""
    seconds = bound.timesteps * bound.dt / 1000
    finite = 0 < bound.structural < math.inf
    return [
        {
            "Source": row.connection.source,
            "Synapse": row.connection.synapse,
            "Neurons": row.connection.neurons,
            "Synapses": row.connection.fanout.total,
            "Events per step": row.max_events,
            "SynOps": row.structural,
            "SynOps/s": row.structural / seconds,
            "Share": row.structural / bound.structural if finite else None,
        }
        for row in bound.rows
    ]


def _json(bound: Bound) -> str:
    """See :meth:`fxsynops.Bound.to_json`; what is unbounded is null."""
    content = {
        "kind": "bound",
        "model": bound.model,
        "timesteps": bound.timesteps,
        "dt": bound.dt,
        "structural": bound.structural,
        "total": bound.total,
        "assumptions": list(bound.assumptions),
        "rows": _rows(bound),
    }
    return to_json(content)
