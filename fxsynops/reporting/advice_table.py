"""The table of what would help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fxsynops.reporting.report import VIEWS, Column, View, number


def _verified(row: dict[str, Any]) -> str:
    return {True: "yes", False: "no", None: "–"}[row["Verified"]]


VIEWS["advice"] = View(
    (
        Column("Layer", text=True),
        Column("Change", text="long"),
        Column("Saves", "Saves (SynOps)", digits=0),
        Column("Share", percent=True),
        Column("Harmless", "Same output", show=lambda row: "yes" if row["Harmless"] else "train"),
        Column("Verified", show=_verified, optional=1),
    ),
    name="Layer",
)


def advice_content(advice: Any) -> dict[str, Any]:
    """What a report of advice holds."""
    return {
        "kind": "advice",
        "title": f"What would save most in {advice.name}",
        "model": advice.name,
        "total": advice.total,
        "totals": {},
        "rows": [
            {
                "Layer": change.layer,
                "Kind": change.kind,
                "Change": change.change,
                "Saves": change.saves,
                "Share": change.saves / advice.total if advice.total else None,
                "Harmless": change.harmless,
                "Verified": change.verified,
            }
            for change in advice.changes
        ],
        "notes": list(_notes(advice)),
    }


def _notes(advice: Any) -> Iterator[str]:
    total = number(advice.total, 0)
    yield f"Of {total} SynOps per sample. Savings of several changes do not add up."
    if any(change.verified is not None for change in advice.changes):
        yield (
            "Verified: the changed network was counted on the example, and the share that it saves "
            "there is taken of what was counted; of silent channels, all events stay as they are."
        )
    if not advice.changes:
        yield "Nothing was found: no silent or dead neurons, and no threshold or pool to move."
