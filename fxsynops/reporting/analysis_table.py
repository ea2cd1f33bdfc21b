"""The table of an analysis, of fan-out: its columns, rows and notes."""

from __future__ import annotations

from typing import Any

from fxsynops.connectivity.results import whole
from fxsynops.reporting.report import VIEWS, Column, View, source_label

VIEWS["analysis"] = View(
    (
        Column("Source", show=source_label, text=True),
        Column("Synapse", text=True),
        Column("Kind", text=True, optional=5, show=lambda row: row["Kind"] + " *" * row["Folded"]),
        Column("Neurons"),
        Column("Fan-out min", "min", optional=3),
        Column("Fan-out mean", "mean fan-out", digits=1),
        Column("Fan-out max", "max", optional=2),
        Column("Nominal", digits=1, optional=4),
        Column("Synapses"),
    ),
    share="Synapses",
    name="Source",
    group="Synapse",
)


def analysis_content(analysis: Any) -> dict[str, Any]:
    """What a report of the fan-out holds."""
    rows = [
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
    dense = [
        {
            "Synapse": row.synapse,
            "Kind": row.kind,
            "MACs": row.macs,
            "MACs (conventional)": row.conventional,
        }
        for row in analysis.dense
    ]
    title = "Analog inputs: multiply-accumulates, not SynOps"
    return {
        "kind": "analysis",
        "title": f"Fan-out of {analysis.name}",
        "model": analysis.name,
        "events": analysis.options.events,
        "weights": analysis.options.weights,
        "samples": analysis.window.samples,
        "timesteps": analysis.window.timesteps,
        "steps_known": analysis.options.layout.known,
        "dt": analysis.options.dt,
        "totals": {"Synapses": whole(sum(c.fanout.total for c in analysis.connections))},
        "rows": rows,
        "dense": dense,
        "tables": [{"title": title, "rows": dense}] if dense else [],
        "unresolved": [str(row) for row in analysis.unresolved],
        "specialized": list(analysis.specialized),
        "notes": [
            "Neurons, synapses and MACs per sample and time step; fan-out per event "
            f'(events="{analysis.options.events}", weights="{analysis.options.weights}").',
            *analysis.remarks(),
        ],
    }
