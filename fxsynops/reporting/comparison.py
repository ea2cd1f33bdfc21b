"""Two saved reports side by side: what changed between them, layer by layer."""

from __future__ import annotations

import math
from typing import Any

from fxsynops.errors import InputError
from fxsynops.reporting.report import VIEWS, Column, Report, View, count_of

# What is compared: the column, and what the report divides it by.
_COMPARED = {"analysis": "Synapses", "counts": "SynOps", "bound": "SynOps", "estimate": "SynOps"}


def _signed(row: dict[str, Any]) -> str:
    return "–" if row["Change"] is None else f"{row['Change']:+.1%}"


VIEWS["comparison"] = View(
    (
        Column("Layer", text=True),
        Column("Before", digits=0),
        Column("After", digits=0),
        Column("Difference", digits=0, optional=1),
        Column("Change", show=_signed, ratio=("Difference", "Before")),
    ),
    share="After",
    rank=("Before", "After"),
    name="Layer",
    group="Layer",
)


def compare(before: Report, after: Report) -> Report:
    """What changed from one report to another of the same kind.

    Args:
        before: of counts (then it is SynOps per sample), a bound, or a fan-out (synapses).
        after: likewise.

    Returns:
        a report with a row for each layer of either: before, after, difference, and the change as
        a share of what was before (None where that was nothing).

    Raises:
        InputError: they are not of one kind, or of a kind that cannot be compared.

    Example:
        >>> import torch, fxsynops
        >>> small, large = torch.nn.Linear(4, 3), torch.nn.Linear(4, 6)
        >>> x = torch.ones(2, 4)
        >>> reports = [fxsynops.analyze(model, x).report() for model in (small, large)]
        >>> compare(*reports).totals["Change"]
        1.0
    """
    for report in (before, after):
        if report.kind not in _COMPARED:
            raise InputError(
                f"a report of the kind '{report.kind}' cannot be compared; "
                f"those of {', '.join(_COMPARED)} can."
            )
    if before.kind != after.kind:
        raise InputError(
            f"'{before.kind}' and '{after.kind}' are reports of different things: compare two of "
            "one kind."
        )
    first, second = _by_layer(before), _by_layer(after)
    rows = [
        _row({"Layer": name}, first.get(name), second.get(name))
        for name in dict.fromkeys([*first, *second])
    ]
    one_of_each = set(first) & set(second)
    notes = [f"{_said(before)}; {_said(after)}."]
    if not one_of_each:
        notes.append("The two have no layer in common.")
    for name, only in (("before", set(first) - set(second)), ("after", set(second) - set(first))):
        if only and one_of_each:
            more = f" and {len(only) - 8} more" if len(only) > 8 else ""
            notes.append(f"Only {name}: {', '.join(sorted(only)[:8])}{more}.")
    models = dict.fromkeys((str(before.content["model"]), str(after.content["model"])))
    total = _row({}, math.fsum(first.values()), math.fsum(second.values()))
    what = "Synapses" if before.kind == "analysis" else "SynOps per sample"
    return Report.of(
        {
            "kind": "comparison",
            "title": f"{what} of {' and '.join(models)}, before and after",
            "model": " and ".join(models),
            "compared": before.kind,
            "totals": total,
            "rows": rows,
            "notes": notes,
        }
    )


def _by_layer(report: Report) -> dict[str, float]:
    """The value of each layer; infinite if it is unbounded."""
    name = "Layer" if report.kind == "counts" else "Synapse"
    divisor = report.content["samples"] or 1 if report.kind == "counts" else 1
    found: dict[str, float] = {}
    for row in report.rows:
        value, layer = row[_COMPARED[report.kind]], row[name]
        value = math.nan if value is None else value
        found[layer] = found.get(layer, 0.0) + value / divisor
    return found


def _row(row: dict[str, Any], before: float | None, after: float | None) -> dict[str, Any]:
    row |= {"Before": before, "After": after, "Difference": None, "Change": None}
    if before is None or after is None or not math.isfinite(before):
        return row  # infinity minus anything is no number
    row["Difference"] = after - before
    row["Change"] = (after - before) / before if before else None
    return row


def _said(report: Report) -> str:
    content = report.content
    if report.kind == "counts":
        return (
            f"{content['model']}: {count_of(content['samples'], 'sample')} of "
            f"{count_of(content['timesteps'], 'step')}"
        )
    return f"{content['model']}: {count_of(content['timesteps'], 'step')}"
