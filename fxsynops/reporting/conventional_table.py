"""The table of operations as papers count them, beside the exact count."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fxsynops.reporting.energy_table import joule_column, joules
from fxsynops.reporting.report import VIEWS, Column, View, count_of, number


def _rate(row: dict[str, Any]) -> str:
    if row["Analog"]:
        return "–"
    return "–" if row["Rate"] is None else f"{row['Rate']:.4f}"


VIEWS["conventional"] = View(
    (
        Column("Layer", text=True),
        Column("Kind", text=True, optional=5),
        Column("MACs/step", digits=0, optional=3),
        Column("Rate", show=_rate, optional=2),
        Column("Steps", optional=4),
        Column("MACs", digits=0),
        Column("ACs", digits=0, missing="unbounded or not known"),
        Column("Exact", "Exact SynOps, MACs", digits=0),
        Column("Difference", digits=0, optional=1),
        Column("At padding", "= at padding", digits=0, optional=7),
        Column("At borders", "+ at borders", digits=0, optional=8),
        Column("Scaled", "+ scaled", digits=0, optional=9),
        Column("Biases", "+ biases", digits=0, optional=10),
        joule_column("Energy (J)", "Energy", 6),
    ),
    share="Energy (J)",
    name="Layer",
    group="Layer",
)


def conventional_content(conventional: Any) -> dict[str, Any]:
    """What a report of conventional operations holds."""
    rows = [
        {
            "Layer": row.layer,
            "Kind": row.kind,
            "MACs/step": row.operations,
            "Rate": row.rate,
            "Steps": row.steps,
            "Analog": row.analog,
            "MACs": row.total if row.analog else 0,
            "ACs": 0 if row.analog else row.total,
            "Exact": row.exact,
            "Difference": row.difference,
            "At padding": row.at_padding,
            "At borders": row.at_borders,
            "Scaled": row.scaled,
            "Biases": row.biases,
            "Why": row.why,
            "Energy (J)": row.energy,
        }
        for row in conventional.rows
    ]
    parts = ("At padding", "At borders", "Scaled", "Biases")
    names = ("MACs", "ACs", "Exact", "Difference", *parts, "Energy (J)")
    return {
        "kind": "conventional",
        "title": f"Operations of {conventional.name} as papers count them (estimate)",
        "model": conventional.name,
        "timesteps": conventional.timesteps,
        "totals": {name: math.fsum(row[name] for row in rows) for name in names},
        "rows": rows,
        "notes": list(_notes(conventional)),
    }


def _notes(conventional: Any) -> Iterator[str]:
    yield (
        f"One sample of {count_of(conventional.timesteps, 'step')}: "
        f"{number(conventional.macs, 0)} MACs and {number(conventional.acs, 0)} ACs, "
        f"{joules(conventional.energy())} at 4.60 pJ per MAC and 0.9 pJ per AC (45 nm; Horowitz, "
        "ISSCC 2014)."
    )
    yield (
        "ACs = multiply-accumulates of a step, with taps in the padding × mean of the input × "
        "steps. Exact: SynOps, and MACs without padding. Difference = conventional − exact: taps in"
        " the padding, events where they reach fewer neurons than the mean (borders, strides), and "
        "events that an average pool makes smaller, each of which is a whole one."
    )
    if any(row.biases for row in conventional.rows):
        yield "With an operation for each bias of each output."
    yield from conventional.remarks
