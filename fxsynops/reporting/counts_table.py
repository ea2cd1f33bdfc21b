"""The table of counts, which is that of the sinabs how-to: its columns, rows and notes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fxsynops.reporting.report import VIEWS, Column, View, count_of, number, source_label


def _rate(row: dict[str, Any]) -> str:
    return "unbounded" if row["Rate"] is None else f"{row['Rate']:.4f}"


VIEWS["counts"] = View(
    (
        Column("Layer", text=True),
        Column("Source", show=source_label, text=True),
        Column("In", "In (events)"),
        Column("Fanout_Prev", digits=1, optional=6),
        Column("SynOps"),
        Column("N. timesteps", optional=8, timed=True),
        Column("Time window (ms)", optional=9, timed=True),
        Column("SynOps/s", digits=0, optional=5, timed=True),
        Column("Peak SynOps/s", digits=0, optional=3, added=False, timed=True),
        Column("Peak step", optional=4, added=False),
        Column("SynOps (nominal)", optional=7),
        Column("Rate", "Rate (/step)", show=_rate, optional=2, timed=True),
    ),
    share="SynOps",
    name="Layer",
    group="Layer",
)


def counts_content(counts: Any) -> dict[str, Any]:
    """What a report of counts holds."""
    rows = [
        {
            "Layer": row.connection.synapse,
            "Source": row.connection.source,
            "Measured at": row.connection.measured_at,
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
    steps = counts.steps
    for row, apart in zip(rows, steps.rows if steps else (), strict=False):
        row["Peak SynOps/s"] = apart.peak / (counts.dt / 1000)
        row["Peak step"] = apart.peak_step
    spread = counts.per_sample if counts.per_sample and counts.per_sample.samples else None
    return {
        "kind": "counts",
        "title": f"SynOps of {counts.model}",
        "model": counts.model,
        "events": counts.events,
        "weights": counts.weights,
        "samples": counts.samples,
        "timesteps": counts.timesteps,
        "steps_known": counts.findings.options.layout.known,
        "dt": counts.dt,
        "exact": counts.exact,
        "partial": counts.partial,
        "total": counts.total,
        "totals": {
            "SynOps": counts.total,
            "SynOps/s": math.fsum(row.per_second for row in counts.rows),
        }
        | ({"Peak SynOps/s": steps.peak(), "Peak step": steps.total.peak_step} if steps else {}),
        "lengths": {str(steps): counts.lengths[steps] for steps in sorted(counts.lengths)},
        "per_sample": spread
        and {"mean": spread.mean, "std": spread.std, "min": spread.min, "max": spread.max},
        "steps": steps
        and {
            "samples": list(steps.samples),
            "mean": list(steps.total.mean),
            "max": steps.total.max and list(steps.total.max),
            "layers": [
                {
                    "Layer": row.synapse,
                    "Source": row.source,
                    "Measured at": row.measured_at,
                    "mean": list(row.mean),
                    "max": row.max and list(row.max),
                }
                for row in steps.rows
            ],
        },
        "rows": rows,
        "notes": list(_notes(counts, spread)),
    }


def _notes(counts: Any, spread: Any) -> Iterator[str]:
    per_sample = counts.total / counts.samples if counts.samples else 0
    yield (
        f"{count_of(counts.samples, 'sample')} of {count_of(counts.timesteps, 'step')} of "
        f"{counts.dt:g} ms, "
        f"{number(per_sample, 0)} SynOps per sample. In and SynOps over all samples and steps, "
        f'SynOps/s per sample, Rate per neuron and step (events="{counts.events}", '
        f'weights="{counts.weights}").'
    )
    if len(counts.lengths) > 1:
        yield (
            f"Steps of a sample: {min(counts.lengths):,} to {max(counts.lengths):,}, "
            f"{number(counts.timesteps)} in the mean."
        )
    if spread is not None:
        yield (
            f"Per sample: mean {number(spread.mean, 0)}, standard deviation "
            f"{number(spread.std, 0)}, from {number(spread.min, 0)} to {number(spread.max, 0)}."
        )
    elif counts.extras.not_apart:
        yield f"Per sample: not known, because {counts.extras.not_apart}."
    if (steps := counts.steps) is not None:
        whose = "of any sample" if steps.total.max is not None else "of the mean sample"
        yield (
            f"Peak: {number(steps.total.peak, 0)} SynOps in one step {whose}, the first time in "
            f"step {steps.total.peak_step} (the first step is 0)."
        )
    elif counts.steps_unknown:
        yield f"Steps: not known, because {counts.steps_unknown}."
    if counts.partial:
        yield f"Partial: interrupted after {counts.samples:,} samples."
    if fractions := sorted(counts.extras.fractions):
        names = ", ".join(map(repr, fractions))
        yield (
            f"Inexact: {names} put out fractions where whole numbers of events were promised. Pass "
            "input_events=False if this is an analog input, or name what makes it in spiking=."
        )
    elif not counts.exact:
        yield "Inexact: a block of events added up to 2**24 or more."
    if dense := list(dict.fromkeys((*(d.synapse for d in counts.findings.dense), *counts.macs))):
        macs = sum(counts.macs.values()) / max(counts.samples, 1)
        names = ", ".join(dense[:4]) + (", …" if dense[4:] else "")
        yield (
            f"Not SynOps: {number(macs)} multiply-accumulates per sample, on the analog inputs of "
            f"{names}."
        )
    yield from counts.findings.remarks()
    if counts.extras.evaluated:
        yield "In eval mode."
