"""The table of energies: its columns, rows and notes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from fxsynops.reporting.report import VIEWS, Column, View, number


def joules(value: float | None) -> str:
    """An energy with three digits and an engineering unit.

    Args:
        value: in joules; None if there is none.

    Example:
        >>> from fxsynops.energy import joules
        >>> joules(4.6e-12), joules(0.0123), joules(None)
        ('4.60 pJ', '12.3 mJ', '–')
    """
    if value is None:
        return "–"
    if not math.isfinite(value):
        return number(value) if value > 0 else str(value)
    rounded = float(f"{value:.2e}")  # 999.9 nJ are 1.00 µJ
    if rounded == 0:
        return "0 J"
    tens = math.floor(math.log10(abs(rounded)) + 1e-9)
    step = min(max(tens // 3, -len(_PREFIXES)), 0)
    shown = rounded / 1000.0**step
    if abs(shown) < 0.9995:  # less than the smallest unit
        return f"{shown:.3g} {_PREFIXES[-1]}J"
    digits = max(2 - tens + 3 * step, 0)
    return f"{shown:,.{digits}f} {_PREFIXES[-step - 1] if step else ''}J"


_PREFIXES = ("m", "µ", "n", "p")


def _shown(name: str, missing: str = "unbounded") -> Callable[[dict[str, Any]], str]:
    """A cell with a unit; of what must be there, only the infinite is null."""
    return lambda row: missing if row[name] is None else joules(row[name])


VIEWS["energy"] = View(
    (
        Column("Device", text=True),
        Column("SynOps (J)", "SynOps", show=_shown("SynOps (J)"), optional=1),
        Column("MACs (J)", "MACs", show=_shown("MACs (J)"), optional=2),
        Column(
            "Neuron updates (J)", "Neuron updates", show=_shown("Neuron updates (J)"), optional=3
        ),
        Column("Total (J/sample)", "Total/sample", show=_shown("Total (J/sample)")),
        Column(
            "Dense ANN (J/sample)", "Dense ANN/sample", show=_shown("Dense ANN (J/sample)", "–")
        ),
    ),
    name="Device",
)


def energy_content(energy: Any) -> dict[str, Any]:
    """What a report of energy holds; what is unbounded is null."""
    work = vars(energy.workload)
    rows = [
        {
            "Device": row.device.name,
            "SynOps (J)": row.synops_energy,
            "MACs (J)": row.macs_energy,
            "Neuron updates (J)": row.updates_energy,
            "Total (J/sample)": row.total,
            "Dense ANN (J/sample)": row.dense,
            "Source": row.device.source,
        }
        for row in energy.rows
    ]
    return {
        "kind": "energy",
        "title": f"Energy of {work['model']}{', at most' if work['bound'] else ''} (estimate)",
        **work,
        "totals": {},
        "rows": rows,
        "notes": list(_notes(energy)),
    }


def _notes(energy: Any) -> Iterator[str]:
    work = energy.workload
    most = "at most " if work.bound else ""
    yield (
        f"An estimate for one sample of {number(work.timesteps)} steps: {most}"
        f"{number(work.synops, 0)} SynOps, {number(work.macs, 0)} MACs (analog inputs), "
        f"{number(work.updates, 0)} neuron updates. "
        f"A dense ANN of the same weights does {number(work.dense_macs, 0)} MACs, once."
    )
    yield (
        "Total = SynOps × J/SynOp + MACs × J/MAC + neuron updates × J/update. "
        "Left out: memory, routing and static power, but for what the figures below hold of them."
    )
    devices = [row.device for row in energy.rows]
    if names := ", ".join(d.name for d in devices if d.dense):
        yield f"Dense: all MACs of the ANN count, and neither events nor neuron updates: {names}."
    if names := ", ".join(d.name for d in devices if d.per_dense_mac is None):
        yield f"No published figure for MACs, which cost as much as SynOps here: {names}."
    if names := ", ".join(d.name for d in devices if not d.dense and not d.per_update):
        yield f"No published figure for neuron updates, which cost nothing here: {names}."
    if names := ", ".join(d.name for d in devices if d.dense and d.per_update):
        yield f"Without effect, because the device is dense: per_update of {names}."
    if not work.updates and (names := ", ".join(d.name for d in devices if d.per_update)):
        yield (
            f"Without effect, because no spiking module is known whose updates count: per_update "
            f"of {names}."
        )
    if work.unresolved:
        yield f"Incomplete: {work.unresolved} unresolved operations, whose events are not counted."
    yield from work.assumed
    cited: dict[str, list[str]] = defaultdict(list)
    for one in devices:
        cited[one.source].append(f"{one.name} {_figures(one)}")
    for source, figures in cited.items():
        yield f"– {'; '.join(figures)}: {source}"


def _figures(device: Any) -> str:
    if device.dense:
        return f"{joules(device.per_dense_mac)}/operation"
    figures = [f"{joules(device.per_synop)}/SynOp"]
    figures += [] if device.per_mac is None else [f"{joules(device.per_mac)}/MAC"]
    figures += [f"{joules(device.per_update)}/update"] if device.per_update else []
    return ", ".join(figures)
