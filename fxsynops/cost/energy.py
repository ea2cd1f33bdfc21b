"""Energy: what counts and bounds cost on a device, by its published figures. An estimate.

    counts.workload, bound.workload  -> Workload    operations of one sample
    estimate(workload, devices)      -> Energy      joules on every device, side by side

    E = SynOps · per_synop + MACs · per_mac + neuron updates · per_update

That leaves out memory, routing and static power, but for what a published figure holds of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

from torch import fx

from fxsynops.connectivity.findings import Findings
from fxsynops.connectivity.sample_axes import leading
from fxsynops.connectivity.signals import Role
from fxsynops.cost.devices import DEVICES, Device, device
from fxsynops.counting.firing_rates import spiking_calls
from fxsynops.errors import InputError
from fxsynops.operations.call import shape
from fxsynops.reporting.report import VIEWS, Column, Reported, View, number, whole


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
    """

    synops: float
    macs: float
    updates: float
    dense_macs: float
    model: str = field(default="the model", repr=False)
    timesteps: float = 1
    bound: bool = False
    unresolved: int = 0


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
        if (lead.count, lead.sample) != (1, 0) or size[0] != window.samples:
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
        return _content(self)


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


class Costed(Reported):
    """A result that tells what a sample of a model costs."""

    findings: Findings

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

    @property
    def model(self) -> str:
        """The model's class."""
        return self.findings.name

    @property
    def dt(self) -> float:
        """Length of a step in milliseconds."""
        return self.findings.options.dt


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


# -- as text --------------------------------------------------------------------------------------


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


def _content(energy: Energy) -> dict[str, Any]:
    """What a report of energy holds; what is unbounded is null."""
    work = {key.name: getattr(energy.workload, key.name) for key in fields(Workload)}
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


def _notes(energy: Energy) -> Iterator[str]:
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
    if work.unresolved:
        yield f"Incomplete: {work.unresolved} unresolved operations, whose events are not counted."
    cited: dict[str, list[str]] = defaultdict(list)
    for one in devices:
        cited[one.source].append(f"{one.name} {_figures(one)}")
    for source, figures in cited.items():
        yield f"– {'; '.join(figures)}: {source}"


def _figures(device: Device) -> str:
    if device.dense:
        return f"{joules(device.per_dense_mac)}/operation"
    figures = [f"{joules(device.per_synop)}/SynOp"]
    figures += [] if device.per_mac is None else [f"{joules(device.per_mac)}/MAC"]
    figures += [f"{joules(device.per_update)}/update"] if device.per_update else []
    return ", ".join(figures)
