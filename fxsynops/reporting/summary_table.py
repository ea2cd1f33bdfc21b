"""The table of the figures that people look for."""

from __future__ import annotations

from typing import Any

from fxsynops.reporting.report import VIEWS, Column, View, number


def _shown(row: dict[str, Any]) -> str:
    value = row["Value"]
    if value is None:
        return "–"
    if row["Unit"] == "%":
        return f"{value:.2%}"
    return f"{value:.4f}" if 0 < abs(value) < 100 and value != int(value) else number(value)


VIEWS["summary"] = View(
    (
        Column("Figure", text=True),
        Column("Value", show=_shown),
        Column("Meaning", "What it is", text="long"),
    ),
    name="Figure",
)


def summary_content(summary: Any) -> dict[str, Any]:
    """What a summary holds."""
    rows = [
        {
            "Figure": figure.name,
            "Value": figure.value,
            "Unit": figure.unit,
            "Meaning": figure.meaning,
        }
        for figure in summary.figures
    ]
    return {
        "kind": "summary",
        "title": f"{summary.name}, per sample",
        "model": summary.name,
        "totals": {},
        "rows": rows,
        "notes": list(summary.remarks),
    }
