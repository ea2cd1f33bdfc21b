"""The table of energies: its columns, rows and notes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from fxsynops.reporting.report import VIEWS, Column, View, count_of, number


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


def joule_column(name: str, header: str, optional: int = 0, missing: str = "unbounded") -> Column:
    """A column of energies with a unit; of what must be there, only the infinite is null."""

    def show(row: dict[str, Any]) -> str:
        return missing if row[name] is None else joules(row[name])

    return Column(name, header, show=show, optional=optional)


_SIDE_BY_SIDE = 3  # devices, of which a table by layer has room for columns

VIEWS["energy"] = View(
    (
        Column("Device", text=True),
        joule_column("SynOps (J)", "SynOps", 1),
        joule_column("MACs (J)", "MACs", 2),
        joule_column("Neuron updates (J)", "Neuron updates", 3),
        joule_column("Total (J/sample)", "Total/sample"),
        joule_column("Dense ANN (J/sample)", "Dense ANN/sample", missing="–"),
    ),
    name="Device",
)


VIEWS["energy by layer"] = View(
    (
        Column("Device", text=True),
        Column("Layer", text=True),
        Column("Source", text=True, show=lambda row: row["Source"] or "–"),
        Column("SynOps", optional=4),
        Column("MACs", optional=5),
        Column("Neuron updates", optional=6),
        joule_column("SynOps (J)", "SynOps (J)", 1),
        joule_column("MACs (J)", "MACs (J)", 2),
        joule_column("Neuron updates (J)", "Neuron updates (J)", 3),
        joule_column("Total (J/sample)", "Total/sample"),
        Column("Share", percent=True),
    ),
    name="Layer",
    group="Layer",
)


def _parts(row: Any) -> dict[str, Any]:
    """Joules, as every table of energies has them."""
    return {
        "SynOps (J)": row.synops_energy,
        "MACs (J)": row.macs_energy,
        "Neuron updates (J)": row.updates_energy,
        "Total (J/sample)": row.total,
    }


def energy_content(energy: Any) -> dict[str, Any]:
    """What a report of energy holds; what is unbounded is null."""
    rows = [
        {
            "Device": row.device.name,
            **_parts(row),
            "Dense ANN (J/sample)": row.dense,
            "Source": row.device.source,
        }
        for row in energy.rows
    ]
    layers, tables = _layers(energy), []
    if layers and len(energy.rows) <= _SIDE_BY_SIDE:
        tables.append({"title": "Energy by layer", "rows": list(_side_by_side(energy))})
    return {
        "kind": "energy",
        "title": _title("Energy", energy),
        **_of_work(energy.workload),
        "totals": {},
        "rows": rows,
        "layers": layers,
        "tables": tables,
        "notes": list(_notes(energy)),
    }


def layers_content(energy: Any) -> dict[str, Any]:
    """What a report of energy by layer holds: totals, if it is of one device."""
    totals = _parts(energy.rows[0]) | {"Share": 1.0} if len(energy.rows) == 1 else {}
    return {
        "kind": "energy by layer",
        "title": _title("Energy by layer", energy),
        **_of_work(energy.workload),
        "totals": totals,
        "rows": _layers(energy),
        "notes": list(_notes(energy)),
    }


def _title(what: str, energy: Any) -> str:
    work = energy.workload
    return f"{what} of {work.model}{', at most' if work.bound else ''} (estimate)"


def _of_work(work: Any) -> dict[str, Any]:
    names = "synops macs updates dense_macs model timesteps bound unresolved assumed".split()
    return {name: getattr(work, name) for name in names}


def _layers(energy: Any) -> list[dict[str, Any]]:
    whole = {row.device.name: row.total for row in energy.rows}
    return [
        {
            "Device": row.device.name,
            "Layer": row.part.layer,
            "Source": row.part.source,
            "SynOps": row.part.synops,
            "MACs": row.part.macs,
            "Neuron updates": row.part.updates,
            **_parts(row),
            "Share": _share(row.total, whole[row.device.name]),
            "Dense ANN (J/sample)": row.dense,
        }
        for row in energy.layers
    ]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole and math.isfinite(whole) else None


def _side_by_side(energy: Any) -> Iterator[dict[str, str]]:
    """A row for each layer, a column for each device: joules and their share."""
    layers, parts = energy.layers, len(energy.workload.parts)
    for i, part in enumerate(energy.workload.parts):
        cells = {"Layer": part.layer, "Source": part.source or "–"}
        for device, whole in enumerate(energy.rows):
            cost = layers[device * parts + i].total
            share = _share(cost, whole.total)
            shown = "" if share is None else f" {share:4.0%}"
            cells[whole.device.name] = f"{joules(cost)}{shown}"
        yield cells
    totals = {whole.device.name: joules(whole.total) for whole in energy.rows}
    yield {"Layer": "Total", "Source": ""} | totals


def _notes(energy: Any) -> Iterator[str]:
    work = energy.workload
    most = "at most " if work.bound else ""
    yield (
        f"An estimate for one sample of {count_of(work.timesteps, 'step')}: {most}"
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
        yield f"Dense: all MACs of the ANN count once, and neither events nor steps: {names}."
    if names := ", ".join(d.name for d in devices if d.per_dense_mac is None):
        yield f"No published figure for MACs, which cost as much as SynOps here: {names}."
    if names := ", ".join(d.name for d in devices if not d.dense and not _updates(d)):
        yield f"No published figure for neuron updates, which cost nothing here: {names}."
    if not work.updates and (names := ", ".join(d.name for d in devices if d.per_update)):
        yield (
            f"Without effect, because no spiking module is known whose updates count: per_update "
            f"of {names}."
        )
    if work.unknown and (names := ", ".join(d.name for d in devices if d.per_multiply)):
        shown = ", ".join(work.unknown[:4]) + (", …" if work.unknown[4:] else "")
        yield (
            f"No figures for the updates of {shown}, which are taken for a leak and a threshold on "
            f"{names}; register_spiking(…, update=) says what they are."
        )
    if work.parts and len(devices) > _SIDE_BY_SIDE:
        yield "By layer: energy.by_layer(), or the table of fewer devices."
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
        update = f", {joules(device.per_update)}/update" if device.per_update else ""
        return f"{joules(device.per_dense_mac)}/operation{update}"
    figures = [f"{joules(device.per_synop)}/SynOp"]
    figures += [] if device.per_mac is None else [f"{joules(device.per_mac)}/MAC"]
    for name in ("update", "addition", "multiply", "comparison"):
        each = getattr(device, f"per_{name}")
        figures += [f"{joules(each)}/{name}"] if each else []
    return ", ".join(figures)


def _updates(device: Any) -> bool:
    """Whether a device has a figure for updates."""
    return any((device.per_update, device.per_addition, device.per_multiply))
