"""Energy: what counts and bounds cost on a device, by its published figures. An estimate.

    counts.workload, bound.workload  -> Workload    operations of one sample
    estimate(workload, devices)      -> Energy      joules on every device, side by side

    E = SynOps · per_synop + MACs · per_mac + neuron updates · per_update

That leaves out memory, routing and static power, but for what a published figure holds of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from torch import fx

from fxsynops.connectivity.results import Findings, whole
from fxsynops.connectivity.sample_axes import leading
from fxsynops.connectivity.signals import Role
from fxsynops.cost.devices import DEVICES, Device, device
from fxsynops.counting.firing_rates import spiking_calls
from fxsynops.errors import InputError
from fxsynops.operations.call import shape
from fxsynops.reporting.energy_table import energy_content
from fxsynops.reporting.report import Reported


@dataclass(frozen=True)
class Workload:
    """The operations of one sample.

    Attributes:
        synops: synaptic operations, over all steps; infinite if they are not bounded.
        macs: multiply-accumulates of synapses with analog input, over all steps.
        updates: neurons × steps.
        dense_macs: multiply-accumulates of a dense ANN of the same weights, which has no steps.
        model: its name.
        timesteps: steps of the sample (the mean, if samples differ).
        bound: whether ``synops`` is an upper bound.
        unresolved: operations that no rule covers, whose events are not counted.
        assumed: what was found of steps and inputs, since nobody has said it.
    """

    synops: float
    macs: float
    updates: float
    dense_macs: float
    model: str = field(default="the model", repr=False)
    timesteps: float = 1
    bound: bool = False
    unresolved: int = 0
    assumed: tuple[str, ...] = ()


def workload(findings: Findings, synops: float, timesteps: float, bound: bool = False) -> Workload:
    """The operations of one sample.

    Args:
        findings: the analysis of its model.
        synops: what was counted or is bounded, per sample.
        timesteps: steps of the sample.
        bound: whether ``synops`` is an upper bound.

    Example:
        >>> import torch, fxsynops
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), fxsynops.nn.IAF())
        >>> counter = fxsynops.SynOpsCounter(model, torch.ones(1, 10, 4), layout="NT")
        >>> _ = counter(torch.ones(2, 10, 4))
        >>> work = counter.counts.workload
        >>> work.synops, work.macs, work.updates, work.dense_macs
        (120, 0, 30, 12)
    """
    return Workload(
        synops=whole(synops),
        macs=whole(math.fsum(row.macs for row in findings.dense) * timesteps),
        updates=whole(_neurons(findings) * timesteps),
        dense_macs=whole(_dense_macs(findings)),
        model=findings.name,
        timesteps=timesteps,
        bound=bound,
        unresolved=len(findings.unresolved),
        assumed=tuple(findings.assumed),
    )


def _neurons(findings: Findings) -> float:
    """Spiking neurons of one sample and step, whatever their events reach."""
    nodes = chain.from_iterable(spiking_calls(findings).values())
    elements = sum(math.prod(shape(node)) for node in nodes)
    return elements / (findings.window.samples * findings.window.timesteps)


def _dense_macs(findings: Findings) -> float:
    """MACs of all synapses at their inputs, whatever comes in, for one sample and one step.

    They are no sum of fan-outs: two events that are added up, or pooled, are one input of an ANN.
    """
    roles, window = findings.connector.signals.roles, findings.window
    calls: dict[str, list[fx.Node]] = defaultdict(list)
    for node, role in roles.items():
        if role.counted:
            calls[findings.connector.names[node]].append(node)
    return math.fsum(
        sum(_terms(roles[node]) for node in nodes) / window.samples / _steps(findings, nodes)
        for nodes in calls.values()
    )


def _terms(role: Role) -> float:
    """Products that one call adds up."""
    if role.synapse is None:
        assert role.product is not None
        return role.product.terms
    map, x = role.synapse.fanout(), role.synapse.input
    return float(map.sum()) * math.prod(shape(x)) / map.numel()


def _steps(findings: Findings, calls: list[fx.Node]) -> int:
    """For how many steps the calls of one synapse are: one, if it runs before the loop over them.

    Such a synapse has fewer calls than there are steps, and an input with samples alone in front.
    """
    window = findings.window
    if len(calls) % window.timesteps == 0:
        return window.timesteps
    for node in calls:
        synapse = findings.connector.signals.roles[node].synapse
        size = shape(node if synapse is None else synapse.input)
        lead = leading(size, 1, window, findings.options.layout)
        if (lead.axes, lead.sample) != ((0,), 0) or size[0] != window.samples:
            return window.timesteps
    return 1


# -- what it costs --------------------------------------------------------------------------------


@dataclass(frozen=True)
class EnergyRow:
    """What a workload costs on one device, in joules per sample.

    Attributes:
        device: the device.
        synops_energy: of the synaptic operations; 0 on a dense device.
        macs_energy: of the synapses with analog input; on a dense device, of all synapses.
        updates_energy: of the neuron updates; 0 on a dense device.
        total: the three together.
        dense: of the dense ANN of the same weights; None if the device has no figure for MACs.
    """

    device: Device
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

    def _content(self) -> dict[str, Any]:
        return energy_content(self)


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
    rows = tuple(_row(workload, device(one)) for one in chosen)
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


def _row(work: Workload, device: Device) -> EnergyRow:
    per_mac = device.per_dense_mac
    dense = None if per_mac is None else _cost(work.dense_macs, per_mac)
    if device.dense:
        assert dense is not None
        return EnergyRow(device, 0.0, dense, 0.0, dense, dense)
    synops = _cost(work.synops, device.per_synop)
    macs = _cost(work.macs, device.per_synop if per_mac is None else per_mac)
    updates = _cost(work.updates, device.per_update)
    return EnergyRow(device, synops, macs, updates, math.fsum((synops, macs, updates)), dense)


def _cost(operations: float, each: float) -> float:
    """What is free is free, also without a bound."""
    return operations * each if operations and each else 0.0
