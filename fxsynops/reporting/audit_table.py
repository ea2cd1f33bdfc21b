"""The table of an audit: its columns, rows and notes."""

from __future__ import annotations

from typing import Any

from fxsynops.reporting.report import VIEWS, Column, View

_AGREES = {True: "yes", False: "NO", None: "–"}

VIEWS["audit"] = View(
    (
        Column("Synapse", text=True),
        Column("Left", "Left the sources", digits=0),
        Column("Arrived", digits=0),
        Column("Agrees", text=True, show=lambda row: _AGREES[row["Agrees"]]),
        Column("Reason", text=True, optional=1),
    ),
    name="Synapse",
    group="Synapse",
)


def audit_content(audit: Any) -> dict[str, Any]:
    """What a report of an audit holds."""
    rows = [
        {
            "Synapse": row.synapse,
            "Left": row.left,
            "Arrived": row.arrived,
            "Agrees": row.agrees,
            "Reason": row.reason,
        }
        for row in audit.rows
    ]
    compared = sum(row.agrees is not None for row in audit.rows)
    wrong = sum(row.agrees is False for row in audit.rows) + len(audit.faults)
    said = f"{wrong} do not agree" if wrong else "all agree" if compared else "nothing is known"
    return {
        "kind": "audit",
        "title": f"Audit of {audit.model}",
        "model": audit.model,
        "ok": audit.ok,
        "totals": {},
        "rows": rows,
        "notes": [
            "SynOps of the example: events that left the sources × fan-out, beside what arrived at "
            f"each synapse × synapses. {compared} of {len(rows)} synapses compared: {said}.",
            *audit.faults,
            *audit.notes,
        ],
    }
