"""The table of whether a network fits a chip."""

from __future__ import annotations

from typing import Any

from fxsynops.reporting.report import VIEWS, Column, View

VIEWS["fit"] = View(
    (
        Column("Layer", text=True),
        Column("Neurons"),
        Column("Kernel memory", digits=0),
        Column("Neuron memory", digits=0),
        Column("Bias memory", digits=0, optional=2),
        Column("Synapses", digits=0),
        Column("Fits on", "Fits on cores", text="long", optional=1),
        Column("Cores", text="long"),
        Column("Breaks", text="long"),
    ),
    name="Layer",
)
_MEMORY = ("Kernel memory", "Neuron memory", "Bias memory", "Synapses")


def fit_content(fit: Any) -> dict[str, Any]:
    """What a report of a fit holds: a row per layer, and every limit."""
    rows = []
    for place in fit.places:
        name = place.shape.layer.name
        row: dict[str, Any] = {"Layer": name, "Neurons": place.shape.neurons}
        row |= {key: place.memory[key] for key in _MEMORY if key in place.memory}
        if fit.chip.one_layer_per_core:
            row["Fits on"] = _ranges(place.possible) or "none"
        row["Cores"] = _range(place.cores)
        row["Breaks"] = "; ".join(map(str, fit.broken(name)))
        rows.append(row)
    broken = [str(check) for check in fit.broken("network")]
    limits = [
        {
            "Layer": check.layer,
            "Constraint": check.constraint,
            "Value": check.value,
            "Limit": check.limit,
            "Left": check.left,
            "Fits": check.ok,
        }
        for check in fit.rows
    ]
    verdict = "fits" if fit.ok else "does not fit"
    return {
        "kind": "fit",
        "title": f"{fit.name} {verdict} {fit.chip.title}",
        "model": fit.name,
        "chip": fit.chip.name,
        "ok": fit.ok,
        "totals": {},
        "rows": rows,
        "limits": limits,
        "notes": [
            *(f"Breaks: {line}." for line in broken),
            *fit.remarks,
            f"{sum(check.ok for check in fit.rows)} of {len(fit.rows)} limits are kept.",
            f"– {fit.chip.title}: {fit.chip.source}",
        ],
    }


def _ranges(cores: tuple[int, ...]) -> str:
    """Numbers, those in a row together."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ", ".join(f"{run[0]}-{run[-1]}" if run[1:] else str(run[0]) for run in runs)


def _range(cores: tuple[int, ...]) -> str:
    if not cores:
        return "–"
    return str(cores[0]) if len(cores) == 1 else f"{cores[0]} to {cores[-1]} ({len(cores):,})"
