"""Energy: what counts and bounds cost on a device, by its published figures. An estimate.

    counts.workload, bound.workload  -> Workload    operations of one sample
    estimate(workload, devices)      -> Energy      joules on every device, side by side

    E = SynOps · per_synop + MACs · per_mac + neuron updates · per_update

An update costs what the device says of it, or of its additions, multiplies and comparisons, which
the neuron's entry has (:mod:`fxsynops.neurons.updates`).

That leaves out memory, routing and static power, but for what a published figure holds of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fxsynops.cost.devices import DEVICES, Device, device
from fxsynops.cost.workload import Part, Workload
from fxsynops.errors import InputError
from fxsynops.reporting.energy_table import energy_content, layers_content
from fxsynops.reporting.report import Reported


@dataclass(frozen=True)
class EnergyRow:
    """What a workload, or a part of it, costs on one device, in joules per sample.

    Attributes:
        device: the device.
        part: of what.
        synops_energy: of the synaptic operations; 0 on a dense device.
        macs_energy: of the synapses with analog input; on a dense device, of all synapses.
        updates_energy: of the neuron updates; on a dense device, of one per neuron.
        total: the three together.
        dense: of the dense ANN of the same weights; None if the device has no figure for MACs.
    """

    device: Device
    part: Part
    synops_energy: float
    macs_energy: float
    updates_energy: float
    total: float
    dense: float | None


@dataclass(frozen=True)
class Energy(Reported):
    """An estimate of the energy of one sample, on several devices. Prints as a table.

    Attributes:
        workload: what there is to do.
        rows: one per device.
    """

    workload: Workload
    rows: tuple[EnergyRow, ...]

    @property
    def layers(self) -> tuple[EnergyRow, ...]:
        """One per device and connection, synapse with analog input, or layer of neurons."""
        return tuple(_row(part, row.device) for row in self.rows for part in self.workload.parts)

    def by_layer(self) -> LayerEnergy:
        """The same as a table of its own, with a row for each layer on each device."""
        return LayerEnergy(self)

    def _content(self) -> dict[str, Any]:
        return energy_content(self)


@dataclass(frozen=True)
class LayerEnergy(Reported):
    """An estimate of the energy of one sample, layer by layer. Prints as a table.

    Attributes:
        energy: of the whole.
    """

    energy: Energy

    @property
    def rows(self) -> tuple[EnergyRow, ...]:
        """See :attr:`Energy.layers`."""
        return self.energy.layers

    def _content(self) -> dict[str, Any]:
        return layers_content(self.energy)


def estimate(
    workload: Workload, devices: str | Device | Iterable[str | Device] = tuple(DEVICES)
) -> Energy:
    """What a workload costs: SynOps · per_synop + MACs · per_mac + updates · per_update.

    Args:
        workload: the operations of one sample.
        devices: one or several, by name or of your own; all of :data:`DEVICES` if not given.

    Returns:
        joules per sample on every device.

    Raises:
        InputError: a device does not exist, or there is none.

    Example:
        >>> from fxsynops.energy import Workload, estimate, joules
        >>> energy = estimate(Workload(synops=1000, macs=100, updates=50, dense_macs=400), "Loihi")
        >>> row = energy.rows[0]
        >>> joules(row.synops_energy), joules(row.macs_energy), joules(row.updates_energy)
        ('27.1 nJ', '2.71 nJ', '4.05 nJ')
    """
    chosen = [devices] if isinstance(devices, str | Device) else devices
    if not isinstance(chosen, Iterable):
        raise InputError(f"devices are names or fxsynops.cost.energy.Device, not {devices!r}.")
    rows = tuple(_row(workload.whole, device(one)) for one in chosen)
    if not rows:
        raise InputError(f"there is no device to estimate for. Name some of {', '.join(DEVICES)}.")
    return Energy(workload, rows)


class Costed:
    """A result that tells what a sample of a model costs."""

    @property
    def workload(self) -> Workload:
        """The operations of one sample."""
        raise NotImplementedError

    def energy(self, devices: str | Device | Iterable[str | Device] = tuple(DEVICES)) -> Energy:
        """An estimate of the joules that one sample costs, on several devices.

        Args:
            devices: names of :data:`fxsynops.devices.DEVICES` (all, if not given), or your own
                :class:`fxsynops.devices.Device`.

        Raises:
            InputError: a device does not exist, or nothing was counted.
        """
        return estimate(self.workload, devices)


def _row(part: Part, device: Device) -> EnergyRow:
    per_mac = device.per_dense_mac
    dense = None if per_mac is None else _cost(part.dense_macs, per_mac)
    if device.dense:
        assert dense is not None
        updates = _cost(part.neurons, device.per_update)
        return EnergyRow(device, part, 0.0, dense, updates, math.fsum((dense, updates)), dense)
    synops = _cost(part.synops, device.per_synop)
    macs = _cost(part.macs, device.per_synop if per_mac is None else per_mac)
    each = part.update
    updates = math.fsum(
        (
            _cost(part.updates, device.per_update),
            _cost(each.additions, device.per_addition),
            _cost(each.multiplies, device.per_multiply),
            _cost(each.comparisons, device.per_comparison),
        )
    )
    total = math.fsum((synops, macs, updates))
    return EnergyRow(device, part, synops, macs, updates, total, dense)


def _cost(operations: float, each: float) -> float:
    """What is free is free, also without a bound."""
    return operations * each if operations and each else 0.0
