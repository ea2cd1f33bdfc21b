"""The table of memory traffic: its columns, rows and notes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fxsynops.reporting.energy_table import joule_column, joules
from fxsynops.reporting.report import VIEWS, Column, View, count_of, number

_ACCESSES = {
    "Inputs read": "inputs",
    "Weights read": "weights",
    "Biases read": "biases",
    "Potentials read": "potentials_read",
    "Potentials written": "potentials_written",
    "Outputs written": "outputs",
}

VIEWS["memory"] = View(
    (
        Column("Layer", text=True),
        Column("Source", text=True, show=lambda row: row["Source"] or "–"),
        *(
            Column(name, digits=0, missing="unbounded", optional=rank)
            for name, rank in zip(_ACCESSES, (2, 0, 4, 1, 5, 3), strict=True)
        ),
        Column("Bytes", digits=0, missing="unbounded", optional=6),
        joule_column("Memory (J)", "Memory", 7),
        joule_column("Operations (J)", "Operations", 9),
        joule_column("Addressing (J)", "Addressing", 8),
        joule_column("Total (J/sample)", "Total/sample"),
    ),
    share="Total (J/sample)",
    name="Layer",
    group="Layer",
)


def memory_content(memory: Any) -> dict[str, Any]:
    """What a report of memory traffic holds; what is unbounded is null."""
    rows = [_row(row) for row in memory.rows]
    dense = [_row(row) for row in memory.dense]
    names = [name for name in _row_names() if name not in ("Layer", "Source")]
    model = memory.model
    return {
        "kind": "memory",
        "title": f"Memory traffic of {memory.name}{', at most' if memory.bound else ''} (estimate)",
        "model": memory.name,
        "timesteps": memory.timesteps,
        "bound": memory.bound,
        "bits": model.bits if isinstance(model.bits, int) else dict(model.bits),
        "queue": model.queue,
        "per_byte": model.per_byte,
        "totals": {name: math.fsum(row[name] for row in rows) for name in names},
        "rows": rows,
        "dense": {
            "rows": dense,
            "totals": {name: math.fsum(row[name] for row in dense) for name in names},
        },
        "notes": list(_notes(memory)),
    }


def _row_names() -> list[str]:
    energies = ["Memory (J)", "Operations (J)", "Addressing (J)", "Total (J/sample)"]
    return ["Layer", "Source", *_ACCESSES, "Accesses", "Bytes", *energies]


def _row(row: Any) -> dict[str, Any]:
    accesses = [getattr(row.traffic, attribute) for attribute in _ACCESSES.values()]
    energies = row.memory_energy, row.operations_energy, row.addressing_energy, row.total
    values = row.layer, row.source, *accesses, row.traffic.accesses, row.bytes, *energies
    return dict(zip(_row_names(), values, strict=True))


def _notes(memory: Any) -> Iterator[str]:
    model, most = memory.model, "at most " if memory.bound else ""
    in_memory = math.fsum(row.memory_energy for row in memory.rows)
    share = ""
    if math.isfinite(memory.total) and memory.total:
        share = f", {in_memory / memory.total:.1%} of the energy"
    yield (
        f"An estimate for one sample of {count_of(memory.timesteps, 'step')}: {most}"
        f"{number(memory.accesses, 0)} reads and writes, {number(memory.bytes, 0)} bytes{share}."
    )
    dense = math.fsum(row.total for row in memory.dense)
    accesses = math.fsum(row.traffic.accesses for row in memory.dense)
    size = math.fsum(row.bytes for row in memory.dense)
    yield (
        f"The dense ANN of the same weights: {number(accesses, 0)} reads and writes, "
        f"{number(size, 0)} bytes, {joules(dense)}."
    )
    yield (
        "An event is read once, and for each neuron that it reaches a weight and a potential, "
        "which is written again. In every step each neuron's potential is read and written, and "
        "its bias read. Of several connections to the same neurons, these are in the first row."
    )
    widths = model.bits if isinstance(model.bits, int) else dict(model.bits)
    where = (
        f"{joules(model.per_byte)} per byte"
        if model.per_byte is not None
        else "SRAM of 8 KiB 10 pJ, 32 KiB 20 pJ, 1 MiB 100 pJ per 32-bit word, linear between; "
        f"each layer has its own memories, and queues of {model.queue:,} messages"
    )
    yield (
        f"{joules(model.addition)} per addition, {joules(model.multiply)} per multiply; {where}. "
        f"Bits: {widths}."
    )
    yield from memory.remarks
    yield (
        "– Lemaire et al., An analytical estimation of spiking neural networks energy efficiency, "
        "ICONIP 2022. SynOps are exact (borders and strides), where its formula has C_out·k² per "
        "event; addressing is its own."
    )
