"""Memory traffic: reads and writes of an event-driven core, after Lemaire et al. 2022.

    counts.memory(), bound.memory()  -> Memory      accesses, bytes and joules, by connection
    MemoryModel                                     widths, sizes, and what an access costs

Of a connection with θ_in events at its synapse's input, S SynOps, T steps, and N_out neurons behind
it that put out θ_out events (all of one sample):

    inputs read       θ_in              an event is one message
    weights read      S                 one for each pair of an event and a neuron that it reaches
    biases read       T·N_out           if there are any
    potentials read   S + T·N_out       and written as often
    outputs written   θ_out

    additions         S + T·N_out (bias) + θ_out (reset), and those of updates
    multiplies        those of updates: T·N_out for a leak
    addressing        2 multiplies and C_out/groups·k² additions for an event of a convolution,
                      N_out additions for one of a linear layer

S is exact: pairs that exist, where the paper's formula has θ_in·C_out·k² without borders and
strides. Addressing is the paper's (its equation 16; the code of its authors leaves C_out out).

A synapse with analog input, and all of them in the dense ANN, read an input and a weight for each
multiply-accumulate of a convolution (a linear layer reads each input once), a bias and an output
for each neuron.

Source: Lemaire, Cordone, Castagnetti, Novac, Courtois, Miramond, "An analytical estimation of
spiking neural networks energy efficiency", ICONIP 2022, arXiv:2210.13107.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from fxsynops.connectivity.results import Findings, whole
from fxsynops.cost.layers import Layers, NeuronLayer, SynapseLayer, listed
from fxsynops.cost.workload import Flow
from fxsynops.errors import InputError
from fxsynops.reporting.memory_table import memory_content
from fxsynops.reporting.report import Reported

_KINDS = ("inputs", "weights", "biases", "potentials", "outputs")
_SRAM = ((0, 0.0), (8 * 1024, 10e-12), (32 * 1024, 20e-12), (1024 * 1024, 100e-12))


def sram(size: float) -> float:
    """Joules to read or write one 32-bit word of a memory.

    Linear between 10 pJ at 8 KiB, 20 pJ at 32 KiB and 100 pJ at 1 MiB (Horowitz, ISSCC 2014, as
    Lemaire et al. use him), from nothing below the first and constant above the last.

    Args:
        size: in bytes.

    Example:
        >>> from fxsynops.energy import joules, sram
        >>> joules(sram(8 * 1024)), joules(sram(20 * 1024)), joules(sram(4096))
        ('10.0 pJ', '15.0 pJ', '5.00 pJ')
    """
    for (below, cheap), (above, dear) in pairwise(_SRAM):
        if size <= above:
            return cheap + (dear - cheap) * (size - below) / (above - below)
    return _SRAM[-1][1]


@dataclass(frozen=True)
class MemoryModel:
    """What accesses and operations cost.

    Attributes:
        bits: width of all values, or of some by name: "inputs" and "outputs" (messages, or analog
            values), "weights", "biases", "potentials"; 32 of those that are not named.
        queue: messages that the memory of a spiking layer's inputs, and of its outputs, holds.
        per_byte: joules per byte, wherever it lies; None: those of :func:`sram`, by the size of
            each memory. 24.96e-12 is spikingjelly's flat figure, 3.12 pJ per bit.
        addition, multiply: joules per operation; 32-bit integers in 45 nm, if not given.

    Raises:
        InputError: a width is unknown, or a number is none or negative.
    """

    bits: int | Mapping[str, int] = 32
    queue: int = 1000
    per_byte: float | None = None
    addition: float = 0.1e-12
    multiply: float = 3.1e-12

    def __post_init__(self) -> None:
        if isinstance(self.bits, Mapping) and (unknown := set(self.bits) - set(_KINDS)):
            raise InputError(f"bits has {sorted(unknown)}; it may have {', '.join(_KINDS)}.")
        widths = list(self.bits.values()) if isinstance(self.bits, Mapping) else [self.bits]
        numbers: dict[str, list[Any]] = {
            "bits": widths,
            "queue": [self.queue],
            "per_byte": [self.per_byte or 0],
        }
        numbers |= {"addition": [self.addition], "multiply": [self.multiply]}
        for name, values in numbers.items():
            for value in values:
                kinds = int if name in ("bits", "queue") else int | float
                number = isinstance(value, kinds) and not isinstance(value, bool)
                if not number or not 0 <= value < math.inf or (name == "bits" and not value):
                    raise InputError(f"{name} must be a number and not negative, not {value!r}.")

    def width(self, kind: str) -> float:
        """Bits of a value."""
        return self.bits.get(kind, 32) if isinstance(self.bits, Mapping) else self.bits

    def access(self, kind: str, words: float) -> float:
        """Joules per read or write of a value in a memory of so many of them."""
        size = self.width(kind) / 8
        each = sram(words * size) / 4 if self.per_byte is None else self.per_byte
        return each * size


@dataclass(frozen=True)
class Traffic:
    """Accesses and operations of a row, for one sample.

    Attributes:
        inputs, weights, biases: read.
        potentials_read, potentials_written: of membrane potentials.
        outputs: written.
        additions, multiplies: operations, of synapses and neurons.
        address_additions, address_multiplies: to find what an event reaches.
    """

    inputs: float = 0
    weights: float = 0
    biases: float = 0
    potentials_read: float = 0
    potentials_written: float = 0
    outputs: float = 0
    additions: float = 0
    multiplies: float = 0
    address_additions: float = 0
    address_multiplies: float = 0

    @property
    def accesses(self) -> float:
        """All reads and writes."""
        return math.fsum(self.by_kind().values())

    def by_kind(self) -> dict[str, float]:
        """Accesses by what is read or written."""
        potentials = self.potentials_read + self.potentials_written
        found = (self.inputs, self.weights, self.biases, potentials, self.outputs)
        return dict(zip(_KINDS, found, strict=True))


@dataclass(frozen=True)
class MemoryRow:
    """The memory traffic of a connection, a synapse with analog input, or neurons that none drives.

    Attributes:
        layer: the synapse, or the neurons.
        source: where the events come from; empty if there are none.
        traffic: accesses and operations, per sample.
        words: how many values each of its memories holds, by what they are.
        model: what they cost.
    """

    layer: str
    source: str
    traffic: Traffic
    words: Mapping[str, float] = field(repr=False)
    model: MemoryModel = field(repr=False)

    @property
    def bytes(self) -> float:
        """Read and written."""
        kinds = self.traffic.by_kind().items()
        return math.fsum(n * self.model.width(kind) / 8 for kind, n in kinds)

    @property
    def memory_energy(self) -> float:
        """Joules for reads and writes."""
        model, kinds = self.model, self.traffic.by_kind().items()
        return math.fsum(n * model.access(kind, self.words.get(kind, 0)) for kind, n in kinds if n)

    @property
    def operations_energy(self) -> float:
        """Joules for additions and multiplies."""
        traffic, model = self.traffic, self.model
        return _dot(traffic.additions, model.addition) + _dot(traffic.multiplies, model.multiply)

    @property
    def addressing_energy(self) -> float:
        """Joules to find what events reach."""
        traffic, model = self.traffic, self.model
        adding = _dot(traffic.address_additions, model.addition)
        return adding + _dot(traffic.address_multiplies, model.multiply)

    @property
    def total(self) -> float:
        """Joules altogether."""
        return math.fsum((self.memory_energy, self.operations_energy, self.addressing_energy))


@dataclass(frozen=True)
class Memory(Reported):
    """Memory traffic of one sample, and what it costs. An estimate; prints as a table.

    Attributes:
        rows: one per connection, synapse with analog input, and layer of neurons without synapses.
        dense: the dense ANN of the same weights: one per synapse.
        model: widths, sizes, and what accesses cost.
        name: the model's class.
        timesteps: steps of the sample.
        bound: whether these are the most that there can be.
        remarks: what is left out, or assumed.
    """

    rows: tuple[MemoryRow, ...]
    dense: tuple[MemoryRow, ...] = field(repr=False)
    model: MemoryModel
    name: str
    timesteps: float
    bound: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def accesses(self) -> float:
        """Reads and writes."""
        found: float = whole(math.fsum(row.traffic.accesses for row in self.rows))
        return found

    @property
    def bytes(self) -> float:
        """Read and written."""
        return math.fsum(row.bytes for row in self.rows)

    @property
    def total(self) -> float:
        """Joules: accesses, operations and addressing."""
        return math.fsum(row.total for row in self.rows)

    def _content(self) -> dict[str, Any]:
        return memory_content(self)


def memory_of(findings: Findings, flow: Flow, model: MemoryModel, bound: bool = False) -> Memory:
    """The memory traffic of one sample.

    Args:
        findings: the analysis of its model.
        flow: what goes through it.
        model: widths, sizes, and what accesses cost.
        bound: whether these are the most that there can be.

    Raises:
        InputError: it is not known how many events some neurons put out.
    """
    layers = flow.layers
    if silent := [one.name for one in layers.neurons if math.isnan(flow.fired.get(one.name, 0.0))]:
        raise InputError(
            f"nothing says how many events {listed(silent)} put out: give a rate for each of them, "
            "or look for NaN in what drives them."
        )
    rows = tuple(_rows(findings, layers, flow, model))
    dense = tuple(_in_an_ann(layer, model) for layer in layers.synapses)
    remarks = [*flow.remarks(findings)]
    if layers.unknown:
        remarks.append(
            f"No figures for the updates of {listed(layers.unknown)}: a leak is assumed."
        )
    name = findings.name
    return Memory(rows, dense, model, name, flow.timesteps, bound, tuple(remarks))


def _rows(
    findings: Findings, layers: Layers, flow: Flow, model: MemoryModel
) -> Iterator[MemoryRow]:
    dense = {row.calls.name: row for row in findings.dense}
    known = {layer.name for layer in layers.synapses}
    for layer in layers.synapses:
        behind = _Behind.of(layer, layers.driven_by(layer.name), flow)
        for connection, synops, arriving in flow.connections:
            if connection.calls.name == layer.name:
                traffic = behind.traffic(_of_events(layer, synops, arriving))
                name, source = connection.synapse, connection.label
                yield MemoryRow(name, source, traffic, _words(layer, behind, model), model)
                behind = behind.told()
        if (row := dense.get(layer.name)) is not None:
            traffic = behind.traffic(
                _of_values(layer, flow.macs.get(row.synapse, 0), flow.timesteps)
            )
            words = _words(layer, behind, model) | {"inputs": layer.inputs}
            yield MemoryRow(row.synapse, "", traffic, words, model)
    for connection, synops, arriving in flow.connections:  # of another trace
        if connection.calls.name not in known:
            traffic = Traffic(arriving, synops, 0, synops, synops, 0, synops)
            yield MemoryRow(connection.synapse, connection.label, traffic, {}, model)
    for neurons in layers.driven_by(""):
        behind = _Behind.of(None, [neurons], flow)
        words = {"potentials": neurons.neurons, "outputs": model.queue}
        yield MemoryRow(neurons.name, "", behind.traffic(Traffic()), words, model)


def _words(layer: SynapseLayer, behind: _Behind, model: MemoryModel) -> dict[str, float]:
    """The sizes of a spiking layer's memories; weights and biases share one."""
    parameters = layer.weights + layer.biases
    return {
        "inputs": model.queue,
        "weights": parameters,
        "biases": parameters,
        "potentials": behind.neurons,
        "outputs": model.queue,
    }


def _of_events(layer: SynapseLayer, synops: float, arriving: float) -> Traffic:
    convolves = layer.kind.startswith("conv")
    return Traffic(
        inputs=arriving,
        weights=synops,
        potentials_read=synops,
        potentials_written=synops,
        additions=synops,
        address_additions=_dot(arriving, layer.reach),
        address_multiplies=2 * arriving if convolves else 0,
    )


def _of_values(layer: SynapseLayer, macs: float, timesteps: float) -> Traffic:
    convolves, runs = layer.kind.startswith("conv"), layer.runs(timesteps)
    addresses = layer.inputs + layer.outputs + (layer.reach if convolves else 0)
    every = layer.macs * runs
    share = macs / every if layer.events and every else 1.0  # beside events, some of its inputs
    return Traffic(
        inputs=macs if convolves else layer.inputs * runs * share,
        weights=macs,
        additions=macs,
        multiplies=macs,
        address_additions=addresses * runs,
    )


@dataclass(frozen=True)
class _Behind:
    """What lies behind a synapse: the neurons that it drives, or the sums that it leaves.

    Attributes:
        neurons: how many potentials there are.
        biases: that are added.
        visits: of potentials, to update them.
        additions, multiplies: of updates.
        fired: events that come out.
    """

    neurons: float
    biases: float = 0
    visits: float = 0
    additions: float = 0
    multiplies: float = 0
    fired: float = 0

    @classmethod
    def of(cls, layer: SynapseLayer | None, driven: Iterable[NeuronLayer], flow: Flow) -> _Behind:
        driven = list(driven)
        neurons = math.fsum(one.neurons for one in driven)
        if layer is not None and not driven and layer.drives == layer.name:
            neurons = layer.outputs  # read out as they are
        steps = flow.timesteps
        updates = [one.neurons * one.runs(steps) for one in driven]
        biases = 0.0
        if layer is not None and layer.biased:
            behind = flow.layers.driven_by(layer.drives)
            fewer = math.fsum(one.neurons for one in behind) or layer.outputs  # behind pools
            inside = any(layer.name.startswith(f"{one.name}.") for one in behind)  # or of gates
            biases = (layer.outputs if inside else min(layer.outputs, fewer)) * layer.runs(steps)
        return cls(
            neurons,
            biases,
            math.fsum(updates) if driven or layer is None else neurons * layer.runs(steps),
            math.fsum(n * one.update.additions for n, one in zip(updates, driven, strict=True)),
            math.fsum(n * one.update.multiplies for n, one in zip(updates, driven, strict=True)),
            math.fsum(flow.fired.get(one.name, 0.0) for one in driven),
        )

    def told(self) -> _Behind:
        """For further connections of the same synapse."""
        return _Behind(self.neurons)

    def traffic(self, before: Traffic) -> Traffic:
        """With what reaches the neurons."""
        every = Traffic(
            before.inputs,
            before.weights,
            self.biases,
            before.potentials_read + self.visits,
            before.potentials_written + self.visits,
            self.fired,
            before.additions + self.biases + self.fired + self.additions,
            before.multiplies + self.multiplies,
            before.address_additions,
            before.address_multiplies,
        )
        return Traffic(**{name: _whole(value) for name, value in vars(every).items()})


def _in_an_ann(layer: SynapseLayer, model: MemoryModel) -> MemoryRow:
    traffic = _of_values(layer, layer.macs, 1)
    biases = layer.outputs if layer.biased else 0
    traffic = Traffic(
        **vars(traffic)
        | {
            "biases": biases,
            "outputs": layer.outputs,
            "additions": traffic.additions + biases,
        }
    )
    parameters = layer.weights + layer.biases
    words = dict.fromkeys(("weights", "biases"), parameters)
    words |= {"inputs": layer.inputs, "outputs": layer.outputs}
    return MemoryRow(layer.name, "", traffic, words, model)


def _whole(value: float) -> float:
    found: float = whole(value) if math.isfinite(value) else value
    return found


def _dot(operations: float, each: float) -> float:
    """What is free is free, also without a bound."""
    return operations * each if operations and each else 0.0
