"""The table of how long a chip takes for a sample."""

from __future__ import annotations

from typing import Any

from fxsynops.reporting.energy_table import joule_column, joules
from fxsynops.reporting.report import VIEWS, Column, View, count_of, number


def seconds(value: float) -> str:
    """A time with three digits and a unit.

    Example:
        >>> from fxsynops.reporting.latency_table import seconds
        >>> seconds(3.2e-8), seconds(0.0015), seconds(2.0)
        ('32.0 ns', '1.50 ms', '2.00 s')
    """
    return joules(value).replace("J", "s")


VIEWS["latency"] = View(
    (
        Column("Layer", text=True),
        Column("Cores"),
        Column("Neurons", optional=2),
        Column("Spikes/step", digits=1),
        Column("Messages/step", digits=1, optional=1),
        Column("SynOps/step", digits=1),
        Column("Sending (s)", "Sending", show=lambda row: seconds(row["Sending (s)"])),
        Column("Receiving (s)", "Receiving", show=lambda row: seconds(row["Receiving (s)"])),
        joule_column("Energy (J/step)", "Energy/step"),
    ),
    name="Layer",
)


def latency_content(latency: Any) -> dict[str, Any]:
    """What a report of a latency holds."""
    rows = [
        {
            "Layer": row.layer,
            "Cores": row.cores,
            "Neurons": row.neurons,
            "Spikes/step": row.spikes,
            "Messages/step": row.messages,
            "SynOps/step": row.synops,
            "Sending (s)": row.sending,
            "Receiving (s)": row.receiving,
            "Energy (J/step)": row.energy,
        }
        for row in latency.rows
    ]
    notes = [
        f"An estimate: {seconds(latency.step)} per step, {seconds(latency.latency)} and "
        f"{joules(latency.energy)} per sample of {count_of(latency.timesteps, 'step')}, "
        f"{number(latency.throughput, 0)} samples/s one after the other.",
        "A step takes as long as the slowest core sends or receives, and "
        f"{seconds(latency.barrier)} until all are done. Events are spread evenly over steps and "
        "cores, every neuron is active in every step, and each spike goes to all cores of a layer; "
        "ways between cores are left out.",
        f"– {latency.chip.title}: {latency.chip.cost.source}",
    ]
    if not latency.fits:
        notes.insert(0, f"The network does not fit {latency.chip.title}: see analysis.fits().")
    return {
        "kind": "latency",
        "title": f"{latency.name} on {latency.chip.title} (estimate)",
        "model": latency.name,
        "chip": latency.chip.name,
        "timesteps": latency.timesteps,
        "step": latency.step,
        "latency": latency.latency,
        "throughput": latency.throughput,
        "energy": latency.energy,
        "totals": {},
        "rows": rows,
        "notes": notes,
    }
