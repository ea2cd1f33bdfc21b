"""Tables: what is found and counted, as rich tables, rows of plain values, and JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
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


def _table(
    title: str,
    rows: Sequence[dict[str, str]],
    footer: dict[str, str],
    optional: Sequence[str],
    console: Console,
    options: ConsoleOptions,
) -> Table:
    """A table of cells by column; ``optional`` columns are left out if it is too wide."""
    columns = list(rows[0]) if rows else list(footer)
    for left_out in range(len(optional) + 1):
        shown = [c for c in columns if c not in optional[:left_out]]
        table = Table(
            title=title,
            box=box.SIMPLE_HEAD,
            title_justify="left",
            title_style="bold",
            pad_edge=False,
        )
        for column in shown:
            text = column in _TEXT_COLUMNS
            last = footer.get(column, "")
            table.add_column(
                column,
                last,
                justify="left" if text else "right",
                overflow="fold",
                no_wrap=not text,
            )
        table.show_footer = bool(footer)
        for row in rows:
            table.add_row(*(row[column] for column in shown))
        natural = Measurement.get(console, options.update(max_width=_PLAIN_WIDTH * 10), table)
        if natural.maximum <= options.max_width:
            break
    return table


_TEXT_COLUMNS = ("Source", "Synapse", "Layer", "Kind")


def _notes(lines: Iterable[str]) -> Iterator[RenderableType]:
    for line in lines:
        yield Text(line, style="dim")


# -- the analysis --------------------------------------------------------------------------------


def analysis_table(
    analysis: Analysis, console: Console, options: ConsoleOptions
) -> Iterator[RenderableType]:
    """The fan-out table, and one of the analog synapses if there are any."""
    rows = [
        {
            "Source": _source_label(c),
            "Synapse": c.synapse,
            "Kind": c.kind + (" *" if c.folded else ""),
            "Neurons": number(c.neurons),
            "min": number(c.fanout.min),
            "mean": number(c.fanout.mean, 1),
            "max": number(c.fanout.max),
            "Nominal": number(c.fanout.nominal, 1),
            "Synapses": number(c.fanout.total),
        }
        for c in analysis.connections
    ]
    total = {
        "Source": "Total",
        "Synapses": number(sum(c.fanout.total for c in analysis.connections)),
    }
    title = f"Fan-out of {type(analysis.model).__name__}"
    yield _table(title, rows, total, ("Kind", "Nominal", "min"), console, options)
    if analysis.dense:
        dense = [
            {"Synapse": row.synapse, "Kind": row.kind, "MACs": number(row.macs)}
            for row in analysis.dense
        ]
        yield _table(
            "Analog inputs: multiply-accumulates, not SynOps", dense, {}, (), console, options
        )
    yield from _notes(_analysis_notes(analysis))


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


def counts_table(
    counts: Counts, console: Console, options: ConsoleOptions
) -> Iterator[RenderableType]:
    """The SynOps table, with the columns of the sinabs how-to."""
    rows = [
        {
            "Layer": row["Layer"],
            "Source": row["Source"],
            "In": number(row["In"]),
            "Fanout_Prev": number(row["Fanout_Prev"], 1),
            "SynOps": number(row["SynOps"]),
            "N. timesteps": number(row["N. timesteps"]),
            "Time window (ms)": number(row["Time window (ms)"]),
            "SynOps/s": number(row["SynOps/s"], 0),
            "SynOps (nominal)": number(row["SynOps (nominal)"]),
            "Rate": f"{row['Rate']:.4f}",
        }
        for row in counts_rows(counts)
    ]
    per_second = sum(row.per_second for row in counts.rows)
    total = {
        "Layer": "Total",
        "SynOps": number(counts.total),
        "SynOps/s": number(per_second, 0),
    }
    optional = ("Time window (ms)", "N. timesteps", "SynOps (nominal)", "Fanout_Prev", "SynOps/s")
    yield _table(f"SynOps of {counts.model}", rows, total, optional, console, options)
    per_sample = counts.total / counts.samples if counts.samples else 0
    notes = [
        f"{counts.samples:,} samples of {number(counts.timesteps)} steps of {counts.dt:g} ms, "
        f"{number(per_sample, 0)} SynOps per sample. In and SynOps over all samples and steps, "
        f'SynOps/s per sample, Rate per neuron and step (events="{counts.events}", '
        f'weights="{counts.weights}").'
    ]
    if not counts.exact:
        notes.append("Inexact: a block of events added up to 2**24 or more.")
    yield from _notes(notes)


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


def bound_table(
    bound: Bound, console: Console, options: ConsoleOptions
) -> Iterator[RenderableType]:
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
        for row in bound_rows(bound)
    ]
    per_second = bound.structural / (bound.timesteps * bound.dt / 1000)
    total = {
        "Source": "Total",
        "SynOps": number(bound.total),
        "SynOps/s": number(per_second, 0),
    }
    title = f"Upper bound of {bound.model}"
    yield _table(title, rows, total, ("Share", "Neurons", "Events/step"), console, options)
    yield from _notes(
        [
            f"Structural bound per sample of {bound.timesteps} steps of {bound.dt:g} ms, "
            f"with {', '.join(bound.assumptions)}."
        ]
    )


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
