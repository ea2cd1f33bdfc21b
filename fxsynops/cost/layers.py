"""Synapses and neurons, one by one, with what they cost whatever the data: sizes, steps, biases.

    layers_of(findings)  -> Layers
      .synapses   every synapse, with its multiply-accumulates, outputs and bias
      .neurons    every spiking node, with its neurons, and the synapse that drives it

Each is of one sample and step, and says in how many steps of a pass it runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.connect import SynapseCalls
from fxsynops.connectivity.results import Findings, whole
from fxsynops.connectivity.sample_axes import leading
from fxsynops.connectivity.signals import Role
from fxsynops.neurons import Update
from fxsynops.neurons.updates import ASSUMED
from fxsynops.operations import Kind
from fxsynops.operations.call import shape
from fxsynops.operations.operation import SynapseCall
from fxsynops.tracing.devices import own_device
from fxsynops.tracing.graph_walk import reachable, upstream
from fxsynops.tracing.places import Place


@dataclass(frozen=True)
class _Layer:
    """What runs in all steps of a sample, in some, or in one, before the loop.

    Attributes:
        name: its name.
        steps: how many of a window's steps it runs in.
        window: how many these are.
    """

    name: str
    steps: int
    window: int

    def runs(self, timesteps: float) -> float:
        """How many steps of a sample it runs in: those that it leaves out are as many.

        Of what runs in every second step or so, the same share.
        """
        if self.steps == 1 < self.window:
            return 1
        if self.steps < self.window - 1:
            return timesteps * self.steps / self.window
        return max(timesteps - (self.window - self.steps), 0)


@dataclass(frozen=True)
class SynapseLayer(_Layer):
    """One synapse, of one sample and step.

    Attributes:
        name: its name, as in the connections and dense rows.
        kind: its operation.
        inputs, outputs: elements.
        macs: multiply-accumulates if every input were analog; padding is not counted.
        padded: the same with taps that lie in the padding, as most tools count.
        biased: whether something is added to each output: a bias, or a batch norm that chips fold
            into one.
        events: whether events come in; else analog values.
        has_bias: whether that is a bias of its own.
        weights: how many there are; of a product of activations, elements of its second factor.
        biases: how many there are, one per output channel.
        reach: weights that one event meets, borders and strides not looked at.
        drives: the synapse whose neurons it drives: itself, or one behind it, or beside it in a
            module, that drives the same ones.
    """

    kind: str
    inputs: float
    outputs: float
    macs: float
    padded: float
    biased: bool
    events: bool
    has_bias: bool
    weights: float
    biases: float
    reach: float
    drives: str

    def scaled(self, timesteps: float) -> float:
        """By what the mean over the window's steps is multiplied, to be of a whole sample."""
        return self.runs(timesteps) * self.window / self.steps


@dataclass(frozen=True)
class NeuronLayer(_Layer):
    """The neurons of one spiking node, of one sample.

    Attributes:
        name: its name.
        neurons: how many.
        update: what one of them does in a step.
        known: whether that stands in the entry of their type; else a leak is assumed.
        once: whether one fires once in a step at most, or counts once.
        synapse: the last of the synapses that drive them; empty if none does.
    """

    neurons: float
    update: Update
    known: bool
    once: bool
    synapse: str


@dataclass(frozen=True)
class Layers:
    """All synapses and neurons of a model, in the order of the graph.

    Attributes:
        synapses, neurons: each with its sizes.
        masks: comparisons that are no neurons: a floor under a membrane, a refractory time.
    """

    synapses: tuple[SynapseLayer, ...]
    neurons: tuple[NeuronLayer, ...]
    masks: frozenset[str] = frozenset()

    @property
    def unknown(self) -> tuple[str, ...]:
        """The neurons of whose updates nothing is known."""
        return tuple(layer.name for layer in self.neurons if not layer.known)

    def driven_by(self, synapse: str) -> list[NeuronLayer]:
        """The neurons behind a synapse."""
        return [layer for layer in self.neurons if layer.synapse == synapse]


def listed(names: Sequence[str]) -> str:
    """The first names of many."""
    return ", ".join(names[:4]) + (", …" if names[4:] else "")


def calls_of(findings: Findings) -> list[SynapseCalls]:
    """Synapses with connections or dense rows, in the order of the graph."""
    order = {node: i for i, node in enumerate(findings.trace.graph.nodes)}
    found = [row.calls for row in findings.connections] + [row.calls for row in findings.dense]
    return sorted(dict.fromkeys(found), key=lambda calls: order[calls.calls[0]])


@own_device()
def layers_of(findings: Findings) -> Layers:
    """The synapses and neurons of an analyzed model."""
    calls = calls_of(findings)
    events = {connection.calls for connection in findings.connections}
    reached = {one.name: _reached(findings, one.calls[0]) for one in calls}
    driving = _drivers(findings, calls, reached)
    beside = _beside(findings, driving)
    neurons = tuple(_neurons(findings, driving, beside))
    drivers = {layer.name: layer.synapse for layer in neurons}
    synapses = []
    for one in calls:
        theirs = [drivers[name] for name in reached[one.name] if name in drivers]
        drives = one.name if one.name in theirs or not theirs else min(theirs)
        synapses.append(_synapse(findings, one, one in events, drives))
    spiking = findings.spiking
    masks = (
        n for n, once in beside.items() if once is None and not _draws(findings, spiking[n][0])
    )
    return Layers(tuple(synapses), neurons, frozenset(masks))


def _synapse(findings: Findings, calls: SynapseCalls, events: bool, drives: str) -> SynapseLayer:
    roles, window = findings.connector.signals.roles, findings.window
    steps = _steps(findings, [_read(roles[node], node) for node in calls.calls])
    per_step = window.samples * steps

    def added(sizes: Iterable[float]) -> float:
        size: float = whole(math.fsum(sizes) / per_step)
        return size

    every = [roles[node] for node in calls.calls]
    biased = _is_biased(findings, calls.calls[0])
    outputs = added(math.prod(shape(node)) for node in calls.calls)
    weights, channels = _weights(findings, calls.calls[0])
    padded = added(map(_padded, every))
    return SynapseLayer(
        calls.name,
        steps,
        window.timesteps,
        calls.kind,
        inputs=added(math.prod(size) for role in every for size in _inputs(role)),
        outputs=outputs,
        macs=added(map(_terms, every)),
        padded=padded,
        biased=biased,
        events=events,
        has_bias=_has_bias(roles[calls.calls[0]]),
        weights=weights,
        biases=channels if biased else 0,
        reach=_reach(every[0]),
        drives=drives,
    )


def _weights(findings: Findings, node: fx.Node) -> tuple[float, int]:
    """How many weights a synapse has, and how many channels, or features, of outputs."""
    role, window = findings.connector.signals.roles[node], findings.window
    if role.synapse is None:
        assert role.product is not None
        other = role.product.operands[1]
        per_step = window.samples * window.timesteps
        return math.prod(shape(other)) / per_step, shape(node)[-1] if shape(node) else 1
    size, out = _weight_size(role.synapse), shape(node)
    spatial = _spatial(role.synapse.rule.kind)
    axis = -1 - spatial if len(out) > spatial else 0
    channels = out[axis] if out else 1
    return math.prod(size) if size is not None else _terms(role), channels


def _weight_size(synapse: SynapseCall) -> tuple[int, ...] | None:
    """The shape of the weights; None of operations that a user has registered."""
    weight = synapse.weight if synapse.weight is not None else synapse.call.get("weight")
    return shape(weight) if isinstance(weight, fx.Node) else None


def _spatial(kind: str) -> int:
    """Axes behind the channels."""
    return int(kind[-2]) if kind.startswith("conv") else 0


def _reach(role: Role) -> float:
    """Weights that one event meets, wherever it is."""
    synapse = role.synapse
    if synapse is None:
        assert role.product is not None
        return role.product.terms / max(math.prod(shape(role.product.operands[0])), 1)
    size = _weight_size(synapse)
    if size is not None and synapse.rule.kind.startswith("conv"):
        return math.prod(size) / shape(synapse.input)[-1 - _spatial(synapse.rule.kind)]
    return _terms(role) / max(math.prod(shape(synapse.input)), 1)


def _inputs(role: Role) -> Iterator[tuple[int, ...]]:
    """The sizes of what comes in: of a product, of both factors."""
    if role.synapse is not None:
        yield shape(role.synapse.input)
    else:
        assert role.product is not None
        yield from map(shape, role.product.operands)


def _terms(role: Role) -> float:
    """Products that one call of a synapse adds up."""
    if role.synapse is not None:
        return role.synapse.macs()
    assert role.product is not None
    return role.product.terms


def _padded(role: Role) -> float:
    """The same, with products of weights and padding."""
    return _terms(role) if role.synapse is None else role.synapse.padded_macs()


def _read(role: Role, node: fx.Node) -> fx.Node:
    """What a synapse reads; of a product, what it makes."""
    return node if role.synapse is None else role.synapse.input


def _steps(findings: Findings, values: Sequence[fx.Node]) -> int:
    """In how many steps there are some values: in one, if that is before the loop over them.

    They are fewer than there are steps, then, and have samples alone in front.
    """
    window = findings.window
    if len(values) >= window.timesteps:
        return window.timesteps
    for node in values:
        size = shape(node)
        lead = leading(size, 1, window, findings.options.layout)
        alone = (lead.axes, lead.sample) == ((0,), 0)
        several = len(values) > 1 and window.samples != window.timesteps  # no axis is both
        if not (alone or several) or not size or size[0] != window.samples:
            return window.timesteps
    return len(values)


# -- biases ---------------------------------------------------------------------------------------


def _is_biased(findings: Findings, node: fx.Node) -> bool:
    """Whether something constant is added to what a synapse puts out.

    That is a bias of its own; a parameter that is added, or a batch norm, with nothing between them
    but reshapes and pools.
    """
    if _has_bias(findings.connector.signals.roles[node]):
        return True

    def ahead(at: fx.Node) -> Iterator[fx.Node]:
        return (user for user in at.users if _moves(findings, user))

    return any(_adds(findings, at) for at in reachable([node], ahead) if at is not node)


def _has_bias(role: Role) -> bool:
    call = role.call if role.synapse is None else role.synapse.call
    return call is not None and (call.get("bias") is not None or _added(role))


def _added(role: Role) -> bool:
    entry, call = role.operation, role.call
    product = entry.product(call) if entry and entry.product and call else None
    return product is not None and product.added is not None


def _adds(findings: Findings, node: fx.Node) -> bool:
    """Whether a batch norm, or the addition of a parameter."""
    if node not in findings.connector.signals.roles:
        return False
    call, entry = findings.connector.signals.calls[node]
    return entry is not None and (entry.shifts(call) or _adds_parameter(findings, node))


def _adds_parameter(findings: Findings, node: fx.Node) -> bool:
    call, entry = findings.connector.signals.calls[node]
    terms = entry.terms(call) if entry is not None and entry.terms is not None else []
    operands = [operand for _, operand in terms if isinstance(operand, fx.Node)]
    return len(operands) == 2 and any(_is_parameter(findings, operand) for operand in operands)


def _is_parameter(findings: Findings, node: fx.Node) -> bool:
    if node.op != "get_attr":
        return False
    read = findings.trace.reads.get(str(node.target))
    value = read.get() if isinstance(read, Place) else read
    return isinstance(value, nn.Parameter)


def _moves(findings: Findings, node: fx.Node) -> bool:
    """Whether it hands values of one operand on, several together, or the largest; or adds."""
    if node not in findings.connector.signals.roles:
        return True
    call, entry = findings.connector.signals.calls[node]
    if entry is None:
        return False
    pooled = entry.pull is not None or bool(entry.picks)
    return (pooled and len(entry.carriers(call)) == 1) or _adds_parameter(findings, node)


# -- neurons --------------------------------------------------------------------------------------


def _drivers(
    findings: Findings, synapses: list[SynapseCalls], reached: dict[str, set[str]]
) -> dict[str, str]:
    """The synapse that drives each of the neurons."""
    order = {node: i for i, node in enumerate(findings.trace.graph.nodes)}
    spiking = findings.spiking
    drivers: dict[str, str] = {}
    for synapse in synapses:  # the last one in front of the neurons drives them
        for name in reached[synapse.name]:
            first, fires = synapse.calls[0], spiking[name][0]
            late = order[first] > order[fires]  # in a later step, or in the module itself
            if "virtual" in first.meta:
                late = fires in upstream([first])  # what has fired comes back
            if name not in drivers or not late:
                drivers[name] = synapse.name
    return drivers


def _neurons(
    findings: Findings, drivers: dict[str, str], beside: dict[str, int | None]
) -> Iterator[NeuronLayer]:
    window, roles = findings.window, findings.connector.signals.roles
    for name, nodes in findings.spiking.items():
        if (once := beside.get(name, 1)) is None:
            continue
        elements = sum(math.prod(shape(node)) for node in nodes) * once
        steps = _steps(findings, nodes)
        role = roles[nodes[0]]
        update = role.neuron.update_of(role.module) if role.neuron else None
        yield NeuronLayer(
            name,
            steps,
            window.timesteps,
            whole(elements / (window.samples * steps)),
            ASSUMED if update is None else update,
            update is not None,
            findings.options.events == "nonzero"
            or (role.neuron is not None and role.neuron.max_spikes <= 1),
            drivers.get(name, ""),
        )


def _beside(findings: Findings, drivers: dict[str, str]) -> dict[str, int | None]:
    """Of comparisons of one membrane: which are its spikes, and how often its neurons count.

    Returns:
        by name: None for masks (a refractory time, a reset), whose events go nowhere, and for
        encoders (``rand_like(x) < x``), which have no state; of several
        whose events do (ternary spikes), one for the first, which has the neurons, and else zero.
    """
    roles = findings.connector.signals.roles
    groups: dict[Any, list[str]] = {}
    found: dict[str, int | None] = {}
    for name, nodes in findings.spiking.items():
        if roles[nodes[0]].module is not None:
            continue
        if _draws(findings, nodes[0]):
            found[name] = None
        elif name in drivers:
            place = origin_of(nodes[0])[0].meta["site"].module
            groups.setdefault((drivers[name], place, tuple(shape(nodes[0]))), []).append(name)
        elif not _goes_on(findings, nodes):
            found[name] = None
    for names in groups.values():
        if len(names) < 2:
            continue
        spikes = [name for name in names if _goes_on(findings, findings.spiking[name])] or names[:1]
        found |= dict.fromkeys(names) | dict.fromkeys(spikes, 0) | {spikes[0]: 1}
    return found


def _draws(findings: Findings, node: fx.Node) -> bool:
    """Whether a comparison is one with random numbers."""
    signals = findings.connector.signals
    call = signals.roles[node].call
    entries = [signals.calls[n][1] for n in call.operands()] if call is not None else []
    return any(entry is not None and entry.kind is Kind.RANDOM for entry in entries)


def _goes_on(findings: Findings, nodes: list[fx.Node]) -> bool:
    """Whether events go on to a synapse, or are put out."""
    roles = findings.connector.signals.roles

    def ahead(at: fx.Node) -> Iterator[fx.Node]:
        for user in at.users:
            role = roles.get(user)
            if role is None or role.counted or role.signal.kind == "events":
                yield user

    return any(
        at.op == "output" or (at in roles and roles[at].counted) for at in reachable(nodes, ahead)
    )


def _reached(findings: Findings, synapse: fx.Node) -> set[str]:
    """The spiking nodes that a synapse's output comes to before any other synapse."""
    roles, names = findings.connector.signals.roles, findings.connector.names
    spiking = findings.spiking
    if "virtual" in synapse.meta:  # inside of a module: its input weights, or its recurrent ones
        return {names[synapse].rpartition(".")[0]} & spiking.keys()
    found: set[str] = set()

    def ahead(at: fx.Node) -> Iterator[fx.Node]:
        for user in at.users:
            role = roles.get(user)
            if role is not None and role.kind == "source":
                found.add(names[user])
            elif role is None or not role.counted:
                yield user

    for _ in reachable([synapse], ahead):
        pass
    return found & spiking.keys()
