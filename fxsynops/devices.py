"""What operations cost on a device: see :mod:`fxsynops.cost.devices`."""

from fxsynops.cost.devices import DEVICES, Device, device

__all__ = ["DEVICES", "Device", "device"]
