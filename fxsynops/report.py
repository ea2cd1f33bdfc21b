"""Tables: what is found and counted, as rich tables, rows of plain values, and JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fxsynops.analysis import Analysis
    from fxsynops.bound import Bound
    from fxsynops.counts import Counts

_PLAIN_WIDTH = 200


def render(printable: Any) -> str:
    """Plain text of an analysis, counts or a bound: no colors, no terminal needed."""
    stream = io.StringIO()
    console = Console(file=stream, width=_PLAIN_WIDTH, color_system=None, force_terminal=False)
    console.print(printable)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def number(value: float | None, digits: int = 2) -> str:
    """A number for a cell: thousands separated, whole numbers without a fraction."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "unbounded"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def _table(title: str, columns: Iterable[tuple[str, bool]]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name, is_number in columns:
        table.add_column(
            name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number
        )
    return table


# -- the analysis --------------------------------------------------------------------------------


def analysis_table(analysis: Analysis) -> Group:
    """The fan-out table."""
    columns = [("Source", False), ("Synapse", False), ("Kind", False), ("Neurons", True)]
    columns += [("min", True), ("mean", True), ("max", True), ("Nominal", True), ("Synapses", True)]
    table = _table(f"Fan-out of {type(analysis.model).__name__}", columns)
    for c in analysis.connections:
        table.add_row(
            _source_label(c),
            c.synapse,
            c.kind + (" *" if c.folded else ""),
            number(c.neurons),
            number(c.fanout.min),
            number(c.fanout.mean, 1),
            number(c.fanout.max),
            number(c.fanout.nominal, 1),
            number(c.fanout.total),
        )
    table.add_section()
    total = sum(c.fanout.total for c in analysis.connections)
    table.add_row("Total", *[""] * 7, number(total))
    parts: list[Any] = [table]
    if analysis.dense:
        dense = _table("Analog inputs: multiply-accumulates, not SynOps", [("Synapse", False)])
        dense.add_column("Kind")
        dense.add_column("MACs", justify="right")
        for row in analysis.dense:
            dense.add_row(row.synapse, row.kind, number(row.macs))
        parts.append(dense)
    parts += [Text(line, style="dim") for line in _analysis_notes(analysis)]
    return Group(*parts)


def _source_label(connection: Any) -> str:
    if connection.measured_at == connection.source:
        return connection.source
    return f"{connection.source} at {connection.measured_at}"


def _analysis_notes(analysis: Analysis) -> list[str]:
    options = analysis.options
    notes = [
        "Neurons, synapses and MACs per sample and time step; fan-out per event "
        f'(events="{options.events}", weights="{options.weights}").'
    ]
    if any(c.folded for c in analysis.connections):
        notes.append("* a constant is added on the way, which chips fold into the next weights")
    notes += [f"Unresolved, not counted: {row}" for row in analysis.unresolved]
    notes += [f"Specialized on data: {branch}" for branch in analysis.specialized]
    return notes


def analysis_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """See :meth:`fxsynops.Analysis.to_rows`."""
    return [
        {
            "Source": c.source,
            "Synapse": c.synapse,
            "Kind": c.kind,
            "Measured at": c.measured_at,
            "Neurons": c.neurons,
            "Fan-out min": c.fanout.min,
            "Fan-out mean": c.fanout.mean,
            "Fan-out max": c.fanout.max,
            "Nominal": c.fanout.nominal,
            "Synapses": c.fanout.total,
            "Folded": c.folded,
        }
        for c in analysis.connections
    ]


def analysis_json(analysis: Analysis) -> str:
    """See :meth:`fxsynops.Analysis.to_json`."""
    content = {
        "kind": "analysis",
        "model": type(analysis.model).__name__,
        "events": analysis.options.events,
        "weights": analysis.options.weights,
        "samples": analysis.window.samples,
        "timesteps": analysis.window.timesteps,
        "dt": analysis.options.dt,
        "connections": analysis_rows(analysis),
        "dense": [
            {"Synapse": row.synapse, "Kind": row.kind, "MACs": row.macs} for row in analysis.dense
        ],
        "unresolved": [str(row) for row in analysis.unresolved],
        "specialized": list(analysis.specialized),
    }
    return json.dumps(content, indent=2)


# -- counts --------------------------------------------------------------------------------------


def counts_table(counts: Counts) -> Group:
    """The SynOps table, with the columns of the sinabs how-to."""
    columns = [("Layer", False), ("Source", False), ("In", True), ("Fanout_Prev", True)]
    columns += [("SynOps", True), ("N. timesteps", True), ("Time window (ms)", True)]
    columns += [("SynOps/s", True), ("SynOps (nominal)", True), ("Rate", True)]
    table = _table(f"SynOps of {counts.model}", columns)
    for row in counts_rows(counts):
        table.add_row(
            row["Layer"],
            row["Source"],
            number(row["In"]),
            number(row["Fanout_Prev"], 1),
            number(row["SynOps"]),
            number(row["N. timesteps"]),
            number(row["Time window (ms)"]),
            number(row["SynOps/s"], 0),
            number(row["SynOps (nominal)"]),
            f"{row['Rate']:.4f}",
        )
    table.add_section()
    per_second = sum(row.per_second for row in counts.rows)
    table.add_row("Total", "", "", "", number(counts.total), "", "", number(per_second, 0), "", "")
    per_sample = counts.total / counts.samples if counts.samples else 0
    notes = [
        f"{counts.samples:,} samples of {number(counts.timesteps)} steps of {counts.dt:g} ms, "
        f"{number(per_sample, 0)} SynOps per sample. In and SynOps over all samples and steps, "
        f'SynOps/s per sample, Rate per neuron and step (events="{counts.events}", '
        f'weights="{counts.weights}").'
    ]
    if not counts.exact:
        notes.append("Inexact: a block of events added up to 2**24 or more.")
    return Group(table, *[Text(line, style="dim") for line in notes])


def counts_rows(counts: Counts) -> list[dict[str, Any]]:
    """See :meth:`fxsynops.Counts.to_rows`."""
    return [
        {
            "Layer": row.connection.synapse,
            "Source": row.connection.source,
            "In": row.events,
            "Fanout_Prev": row.connection.fanout.nominal,
            "SynOps": row.synops,
            "N. timesteps": counts.timesteps,
            "Time window (ms)": counts.timesteps * counts.dt,
            "SynOps/s": row.per_second,
            "SynOps (nominal)": row.nominal,
            "Rate": row.rate,
        }
        for row in counts.rows
    ]


def counts_json(counts: Counts) -> str:
    """See :meth:`fxsynops.Counts.to_json`."""
    content = {
        "kind": "counts",
        "model": counts.model,
        "events": counts.events,
        "weights": counts.weights,
        "samples": counts.samples,
        "timesteps": counts.timesteps,
        "dt": counts.dt,
        "exact": counts.exact,
        "total": counts.total,
        "rows": counts_rows(counts),
    }
    return json.dumps(content, indent=2)


# -- bounds --------------------------------------------------------------------------------------


def bound_table(bound: Bound) -> Group:
    """The upper-bound table."""
    columns = [("Source", False), ("Synapse", False), ("Neurons", True), ("Synapses", True)]
    columns += [("Events/step", True), ("SynOps", True), ("SynOps/s", True), ("Share", True)]
    table = _table(f"Upper bound of {bound.model}", columns)
    for row in bound_rows(bound):
        share = row["Share"]
        table.add_row(
            row["Source"],
            row["Synapse"],
            number(row["Neurons"]),
            number(row["Synapses"]),
            number(row["Events per step"]),
            number(row["SynOps"]),
            number(row["SynOps/s"], 0),
            "–" if share is None else f"{share:.1%}",
        )
    table.add_section()
    per_second = bound.structural / (bound.timesteps * bound.dt / 1000)
    table.add_row("Total", *[""] * 4, number(bound.total), number(per_second, 0), "")
    note = (
        f"Structural bound per sample of {bound.timesteps} steps of {bound.dt:g} ms, "
        f"with {', '.join(bound.assumptions)}."
    )
    return Group(table, Text(note, style="dim"))


def bound_rows(bound: Bound) -> list[dict[str, Any]]:
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


def bound_json(bound: Bound) -> str:
    """See :meth:`fxsynops.Bound.to_json`; what is unbounded is null."""
    content = {
        "kind": "bound",
        "model": bound.model,
        "timesteps": bound.timesteps,
        "dt": bound.dt,
        "structural": bound.structural,
        "total": bound.total,
        "assumptions": list(bound.assumptions),
        "rows": bound_rows(bound),
    }
    return json.dumps(_finite(content), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
