"""What a sample costs in joules: see :mod:`fxsynops.cost.energy`."""

from fxsynops.cost.devices import DEVICES, Device, device
from fxsynops.cost.energy import Energy, EnergyRow, Workload, estimate, workload
from fxsynops.reporting.energy_table import joules

__all__ = [
    "DEVICES",
    "Device",
    "Energy",
    "EnergyRow",
    "Workload",
    "device",
    "estimate",
    "joules",
    "workload",
]
