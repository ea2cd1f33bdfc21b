"""What operations cost on a device, by published figures; users add their own."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fxsynops.cost.named import hint, spelled
from fxsynops.errors import InputError
from fxsynops.reporting.files import read_toml


@dataclass(frozen=True)
class Device:
    """What operations cost on a device.

    Attributes:
        name: for tables.
        per_synop: joules per synaptic operation (an accumulate).
        per_update: joules per update of a neuron in one time step; 0 if the source has no figure.
        per_addition, per_multiply, per_comparison: joules per operation within an update, of which
            each type of neuron has its own number (:mod:`fxsynops.neurons.updates`); beside
            ``per_update``, and not on a dense device.
        per_mac: joules per multiply-accumulate; None if the source has no figure. A MAC of a
            synapse with analog input then costs as much as a SynOp.
        dense: whether the device runs the dense ANN instead: the MACs of all synapses and an update
            of each neuron count, once, and no events.
        source: where the figures are from.

    Raises:
        InputError: a cost is negative or no number.

    Example:
        >>> from fxsynops.energy import Device, Workload, estimate
        >>> chip = Device("my chip", per_synop=2e-12, per_update=10e-12, source="measured")
        >>> work = Workload(synops=1e6, macs=0, updates=1e5, dense_macs=5e5)
        >>> estimate(work, chip).rows[0].total  # 2 µJ for SynOps, 1 µJ for updates
        3e-06
    """

    name: str
    per_synop: float
    per_update: float = 0.0
    per_mac: float | None = None
    dense: bool = False
    source: str = "no source given"
    per_addition: float = 0.0
    per_multiply: float = 0.0
    per_comparison: float = 0.0

    def __post_init__(self) -> None:
        for key in ("name", "source"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key).strip():
                raise InputError(f"the {key} of a device is a text, not {getattr(self, key)!r}.")
        if not isinstance(self.dense, bool):
            raise InputError(f"dense of device '{self.name}' is true or false, not {self.dense!r}.")
        for key in _COSTS:
            cost = getattr(self, key)
            if cost is None and key == "per_mac":
                continue
            valid = isinstance(cost, int | float) and not isinstance(cost, bool)
            if not valid or not 0 <= cost < math.inf:
                raise InputError(
                    f"{key} of device '{self.name}' must be a number of joules and not negative: "
                    f"{cost!r}. 23.6 pJ are 23.6e-12."
                )

    @classmethod
    def load(cls, path: str | Path) -> tuple[Device, ...]:
        """Read devices from a TOML file: a table each, with the attributes above.

        Args:
            path: of the file.

        Returns:
            the devices, in the order of the file.

        Raises:
            InputError: the file cannot be read, or holds something else.

        Example (``devices.toml``)::

            [chip]
            per_synop = 2e-12
            per_update = 10e-12
            source = "data sheet, 2024"

            ["my accelerator"]
            per_synop = 1e-12
            dense = true
        """
        content = read_toml(path, "the file of devices")
        if not content:
            raise InputError(f"'{path}' holds no device: it needs a table [name] with per_synop.")
        return tuple(cls._from_table(name, held, path) for name, held in content.items())

    @classmethod
    def _from_table(cls, name: str, held: Any, path: str | Path) -> Device:
        if not isinstance(held, dict):
            raise InputError(
                f"'{name}' in '{path}' stands outside of a device. Put it below the device's name, "
                "in a table [name]."
            )
        known = [attribute.name for attribute in fields(cls) if attribute.name != "name"]
        for key, value in held.items():
            if key not in known:
                near = hint(key, known, quote="")
                if isinstance(value, dict):
                    near = f' A name with a dot is quoted: ["{name}.{key}"].'
                raise InputError(
                    f"the device '{name}' in '{path}' has '{key}'; it may have "
                    f"{', '.join(known)}.{near}"
                )
        if "per_synop" not in held:
            raise InputError(
                f"the device '{name}' in '{path}' needs per_synop, joules per SynOp"
                " (of a dense device, per operation)."
            )
        return cls(name, **held)

    @property
    def per_dense_mac(self) -> float | None:
        """Joules per MAC of a dense ANN; None if there is no figure."""
        return self.per_synop if self.dense and self.per_mac is None else self.per_mac


_COSTS = (
    "per_synop",
    "per_update",
    "per_mac",
    "per_addition",
    "per_multiply",
    "per_comparison",
)
_HOROWITZ = "Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014"
_DAVIES = (
    "Davies et al., Loihi: a neuromorphic manycore processor with on-chip learning, "
    "IEEE Micro 38(1), 2018"
)
_HOEPPNER = (
    "Höppner et al., Dynamic power management for neuromorphic many-core systems, "
    "IEEE TCAS-I 66(8), 2019"
)
_DEGNAN = (
    "Degnan et al., Assessing trends in performance per watt for signal processing applications, "
    "IEEE TVLSI 24(1), 2016"
)

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        # 32-bit floating point: 0.9 pJ to add, 3.7 pJ to multiply
        Device("45 nm CMOS", 0.9e-12, per_mac=4.6e-12, source=_HOROWITZ),
        # 32-bit integers: 0.1 pJ to add, and as much to compare, 3.1 pJ to multiply
        Device(
            "45 nm CMOS int32",
            0.1e-12,
            per_mac=3.2e-12,
            source=_HOROWITZ,
            per_addition=0.1e-12,
            per_multiply=3.1e-12,
            per_comparison=0.1e-12,
        ),
        # 23.6 pJ for the synapse, 3.5 pJ for the way there: the mean hop from tile to tile
        Device("Loihi", (23.6 + 3.5) * 1e-12, 81e-12, source=_DAVIES),
        Device("SpiNNaker", 13.3e-9, 26e-9, source=_HOEPPNER),
        Device("SpiNNaker 2", 450e-12, 2.19e-9, source=_HOEPPNER),
        Device("CPU", 8.6e-9, per_mac=8.6e-9, dense=True, source=_DEGNAN),
        Device("GPU", 0.3e-9, per_mac=0.3e-9, dense=True, source=_DEGNAN),
        Device("ARM", 0.9e-9, per_mac=0.9e-9, dense=True, source=_DEGNAN),
    )
}
"""The devices with published figures, by name."""


def device(name: str | Device) -> Device:
    """A device by its name; case and spaces do not matter.

    Args:
        name: one of :data:`DEVICES`; a :class:`Device` is returned as it is.

    Raises:
        InputError: there is no such device.

    Example:
        >>> from fxsynops.energy import device
        >>> device("spinnaker2").per_update
        2.19e-09
    """
    if isinstance(name, Device):
        return name
    if (known := spelled(name, DEVICES)) is not None:
        return DEVICES[known]
    raise InputError(
        f"there is no device {name!r}; there are {', '.join(map(repr, DEVICES))}."
        f"{hint(name, DEVICES)} Your own is a fxsynops.energy.Device(name, "
        "per_synop=…), or several from a TOML file: Device.load(path)."
    )
