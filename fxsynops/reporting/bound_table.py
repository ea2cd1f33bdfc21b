"""The table of a bound, or of an estimate: its columns, rows and notes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fxsynops.connectivity.results import whole
from fxsynops.reporting.report import VIEWS, Column, View, count_of, number, source_label


def _charge(row: dict[str, Any]) -> str:
    return "–" if row.get("Reasons") else number(row["Charge"])


VIEWS["bound"] = View(
    (
        Column("Source", show=source_label, text=True),
        Column("Synapse", text=True),
        Column("Neurons", optional=8),
        Column("Synapses", optional=5),
        Column("Events per step", "Events/step", optional=6),
        Column("Structural", optional=2),
        Column("Charge", show=_charge, optional=4),
        Column("SynOps", "SynOps (bound)"),
        Column("SynOps/s", digits=0, optional=9, timed=True),
        Column("Measured", digits=0),
        Column("Used", percent=True, ratio=("Measured", "SynOps")),
    ),
    share="SynOps",
    name="Source",
    group="Synapse",
)
VIEWS["estimate"] = replace(
    VIEWS["bound"],
    columns=tuple(
        replace(c, header="SynOps (estimate)") if c.name == "SynOps" else c
        for c in VIEWS["bound"].columns
        if c.name not in ("Structural", "Charge")
    ),
)


def bound_content(bound: Any) -> dict[str, Any]:
    """What a report of a bound holds; what is unbounded is infinite."""
    seconds = bound.timesteps * bound.dt / 1000
    totals = {
        "Structural": whole(bound.structural),
        "Charge": whole(bound.charge),
        "SynOps": whole(bound.total),
        "SynOps/s": whole(bound.total / seconds),
    }
    if bound.measured is not None:
        measured = sum(bound.used().values())
        totals["Measured"] = measured
        totals["Used"] = measured / bound.total if 0 < bound.total < math.inf else math.nan
    kind = "Estimate (no bound) for" if bound.estimate else "Upper bound of"
    return {
        "kind": "estimate" if bound.estimate else "bound",
        "title": f"{kind} {bound.model}",
        "model": bound.model,
        "timesteps": bound.timesteps,
        "steps_known": bound.findings.options.layout.known or bound.timesteps > 1,
        "dt": bound.dt,
        "structural": whole(bound.structural),
        "charge": whole(bound.charge),
        "total": whole(bound.total),
        "peak": None if bound.peak is None else whole(bound.peak),
        "totals": totals,
        "assumptions": list(bound.assumptions),
        "rows": _rows(bound),
        "notes": list(_notes(bound)),
    }


def _notes(bound: Any) -> Iterator[str]:
    yield (
        f"SynOps per sample of {count_of(bound.timesteps, 'step')} of {bound.dt:g} ms, "
        f"with {', '.join(bound.assumptions)}."
    )
    if bound.timesteps > 1 and not bound.estimate:
        known = bound.peak is not None
        yield (
            f"The most expensive step: {number(bound.peak)} SynOps at most."
            if known
            else "The most expensive step: not known, since it is not known what fires in which."
        )
    yield from bound.findings.assumed
    yield from bound.findings.doubts
    if bound.measured is not None:
        steps = bound.measured.timesteps
        if steps != bound.timesteps:
            yield f"Measured over {count_of(steps, 'step')}, scaled to {bound.timesteps}."
        if not bound.estimate and sum(bound.used().values()) > bound.total:
            yield "The data are above the bound: they break what it assumes of inputs (see above)."
    reasons = list(dict.fromkeys(reason for row in bound.rows for reason in row.reasons))
    yield from (f"– no charge bound: {reason}" for reason in reasons[:8])
    if len(reasons) > 8:
        yield f"– … and {len(reasons) - 8} more; see the reasons in bound.to_rows()"
    if math.isinf(bound.total):
        yield "max_spikes= makes it finite: how many events a neuron emits per step at most."


def _rows(bound: Any) -> list[dict[str, Any]]:
    """See ``Bound.to_rows``."""
    seconds = bound.timesteps * bound.dt / 1000
    finite = 0 < bound.total < math.inf
    measured = bound.used()
    rows = []
    for row in bound.rows:
        found = {
            "Source": row.connection.source,
            "Synapse": row.connection.synapse,
            "Measured at": row.connection.measured_at,
            "Neurons": row.connection.neurons,
            "Synapses": row.connection.fanout.total,
            "Events per step": whole(row.max_events),
            "Structural": whole(row.structural),
            "Charge": whole(row.charge),
            "SynOps": whole(row.charge),
            "SynOps/step": whole(row.charge / bound.timesteps),
            "Peak": None if row.peak is None else whole(row.peak),
            "SynOps/s": whole(row.charge / seconds),
            "Share": row.charge / bound.total if finite else None,
            "Reasons": list(row.reasons),
        }
        if measured:
            value = measured[row.connection.key]
            found["Measured"] = value
            found["Used"] = value / row.charge if 0 < row.charge < math.inf else None
        rows.append(found)
    return rows
