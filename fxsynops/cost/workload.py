"""Workload: the operations of one sample, of all layers and of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fxsynops.connectivity.results import Connection, Findings, whole
from fxsynops.cost.layers import Layers, NeuronLayer, layers_of, listed
from fxsynops.neurons import Update


@dataclass(frozen=True)
class Part:
    """The operations of a connection, of a synapse with analog input, or of some neurons.

    Attributes:
        layer: the synapse, or the neurons.
        source: where the events come from; empty if there are none.
        synops: synaptic operations.
        macs: multiply-accumulates of analog input.
        neurons: neurons.
        updates: neurons × steps.
        update: what all updates together do.
        dense_macs: multiply-accumulates in a dense ANN; of several connections of one synapse, the
            first has them.
    """

    layer: str
    source: str = ""
    synops: float = 0
    macs: float = 0
    neurons: float = 0
    updates: float = 0
    update: Update = Update()
    dense_macs: float = 0


@dataclass(frozen=True)
class Flow:
    """What goes through a model in one sample, counted or at most.

    Attributes:
        layers: of the model.
        connections: with their SynOps and the events at their synapses' inputs.
        fired: events of every spiking node, by name.
        timesteps: steps.
        macs: multiply-accumulates of synapses with analog input, by name.
    """

    layers: Layers
    connections: tuple[tuple[Connection, float, float], ...]
    fired: Mapping[str, float]
    timesteps: float
    macs: Mapping[str, float]

    @property
    def synops(self) -> float:
        """Of all connections."""
        return math.fsum(cost for _, cost, _ in self.connections)

    @property
    def spikes(self) -> float:
        """Of all neurons: what only compares a membrane for another purpose is none."""
        return math.fsum(self.fired.get(layer.name, 0.0) for layer in self.layers.neurons)

    @property
    def updates(self) -> float:
        """Neurons × the steps that they run in."""
        return math.fsum(n.neurons * n.runs(self.timesteps) for n in self.layers.neurons)

    def remarks(self, findings: Findings) -> Iterator[str]:
        """What is left out, and what was assumed."""
        yield from (f"Unresolved, not counted: {row}" for row in findings.unresolved)
        known = {layer.name for layer in self.layers.synapses}
        beyond = [c.synapse for c, *_ in self.connections if c.calls.name not in known]
        if beyond:
            yield (
                f"Not all is known of {listed(list(dict.fromkeys(beyond)))}, which the example has "
                "not: sizes, biases and rates are left out. Analyze an example that has them."
            )
        yield from findings.assumed


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
        parts: the same by layer, which add up to it; none if only the sums are known.
        unknown: the neurons of whose updates no entry tells what they cost.
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
    parts: tuple[Part, ...] = field(default=(), repr=False)
    unknown: tuple[str, ...] = ()

    @cached_property
    def update(self) -> Update:
        """What all updates together do."""
        return sum((part.update for part in self.parts), Update())

    @property
    def whole(self) -> Part:
        """All of it as one part."""
        neurons = self.updates / self.timesteps if self.timesteps else 0
        return Part(
            self.model,
            synops=self.synops,
            macs=self.macs,
            neurons=neurons,
            updates=self.updates,
            update=self.update,
            dense_macs=self.dense_macs,
        )


def workload(
    findings: Findings,
    synops: Iterable[tuple[Connection, float]],
    timesteps: float,
    bound: bool = False,
    macs: Mapping[str, float] | None = None,
) -> Workload:
    """The operations of one sample.

    Args:
        findings: the analysis of its model.
        synops: what was counted or is bounded, per sample, by connection.
        timesteps: steps of the sample.
        bound: whether ``synops`` is an upper bound.
        macs: of synapses with analog input, by name; those of the analysis if None.

    Example:
        >>> import torch, fxsynops
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), fxsynops.nn.IAF())
        >>> counter = fxsynops.SynOpsCounter(model, torch.ones(1, 10, 4), layout="NT")
        >>> _ = counter(torch.ones(2, 10, 4))
        >>> work = counter.counts.workload
        >>> work.synops, work.macs, work.updates, work.dense_macs
        (120, 0, 30, 12)
        >>> [(part.layer, part.synops, part.updates) for part in work.parts]
        [('0', 120, 0), ('1', 0, 30)]
    """
    layers = layers_of(findings)
    found = macs_of(findings, layers, timesteps) if macs is None else macs
    parts = tuple(_parts(findings, layers, synops, found, timesteps))
    return Workload(
        synops=whole(math.fsum(part.synops for part in parts)),
        macs=whole(math.fsum(part.macs for part in parts)),
        updates=whole(math.fsum(part.updates for part in parts)),
        dense_macs=whole(math.fsum(part.dense_macs for part in parts)),
        model=findings.name,
        timesteps=timesteps,
        bound=bound,
        unresolved=len(findings.unresolved),
        assumed=tuple(findings.assumed),
        parts=parts,
        unknown=layers.unknown,
    )


def macs_of(findings: Findings, layers: Layers, timesteps: float) -> dict[str, float]:
    """Multiply-accumulates of a sample of so many steps, by synapse with analog input."""
    by_name = {layer.name: layer for layer in layers.synapses}
    return {
        row.synapse: row.macs * by_name[row.calls.name].scaled(timesteps) for row in findings.dense
    }


def _parts(
    findings: Findings,
    layers: Layers,
    synops: Iterable[tuple[Connection, float]],
    macs: Mapping[str, float],
    timesteps: float,
) -> Iterator[Part]:
    counted = list(synops)
    analog = {row.calls.name: row for row in findings.dense}
    known = {layer.name for layer in layers.synapses}
    for layer in layers.synapses:
        dense = layer.macs
        for connection, cost in counted:
            if connection.calls.name == layer.name:
                yield _connected(connection, cost, dense)
                dense = 0
        if (row := analog.get(layer.name)) is not None:
            yield Part(row.synapse, macs=whole(macs.get(row.synapse, 0)), dense_macs=dense)
        yield from (_updated(one, timesteps) for one in layers.driven_by(layer.name))
    for connection, cost in counted:  # of another trace
        if connection.calls.name not in known:
            yield _connected(connection, cost)
    yield from (_updated(one, timesteps) for one in layers.driven_by(""))


def _connected(connection: Connection, cost: float, dense: float = 0) -> Part:
    return Part(connection.synapse, connection.label, synops=whole(cost), dense_macs=dense)


def _updated(layer: NeuronLayer, timesteps: float) -> Part:
    updates = whole(layer.neurons * layer.runs(timesteps))
    done = layer.update * updates
    return Part(layer.name, neurons=layer.neurons, updates=updates, update=done)
