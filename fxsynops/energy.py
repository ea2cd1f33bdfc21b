"""What a sample costs in joules: see :mod:`fxsynops.cost.energy`."""

from fxsynops.cost.devices import DEVICES, Device, device
from fxsynops.cost.energy import Energy, EnergyRow, LayerEnergy, estimate
from fxsynops.cost.memory import Memory, MemoryModel, MemoryRow, Traffic, sram
from fxsynops.cost.workload import Part, Workload, workload
from fxsynops.reporting.energy_table import joules

__all__ = [
    "DEVICES",
    "Device",
    "Energy",
    "EnergyRow",
    "LayerEnergy",
    "Memory",
    "MemoryModel",
    "MemoryRow",
    "Part",
    "Traffic",
    "Workload",
    "device",
    "estimate",
    "joules",
    "sram",
    "workload",
]
