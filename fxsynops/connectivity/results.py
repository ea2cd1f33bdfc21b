"""Results of an analysis, as plain values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import networkx as nx
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensor

from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.connect import Connector, SynapseCalls, Tap, Unresolved
from fxsynops.connectivity.signals import Role
from fxsynops.operations.call import shape
from fxsynops.tracing.inputs import Inputs, Layout, Window
from fxsynops.tracing.torch_api import parameters_of
from fxsynops.tracing.trace import Trace

Events = Literal["value", "nonzero"]
Weights = Literal["all", "nonzero"]


@dataclass(frozen=True)
class FanOut:
    """Fan-out of the neurons of one connection: synapses that one event reaches.

    Attributes:
        map: int64, as small as it still broadcasts to the source's output: an axis along which
            the fan-out is constant has size 1.
        mean: over the neurons of one sample.
        total: sum over one sample's neurons in one time step, the number of synapses.
        nominal: the figure of chip guides, which ignores borders and routing
            (``out_channels / groups * prod(kernel) / prod(stride)``), or None.
    """

    map: Tensor = field(repr=False)
    mean: float
    total: float
    nominal: float | None

    @property
    def min(self) -> int:
        """The smallest fan-out of a neuron."""
        return int(self.map.min())

    @property
    def max(self) -> int:
        """The largest fan-out of a neuron."""
        return int(self.map.max())


@dataclass(frozen=True)
class Connection:
    """One source's events arriving at one synapse.

    Attributes:
        source: name of the spiking node; behind a gate with several, of the gate.
        sources: every spiking node whose events arrive.
        synapse: name of the synapse; further calls of it with another map are ``name#2``.
        kind: the synapse's operation ("conv2d", "linear", …).
        measured_at: where events are counted: the source, or the gate behind it.
        neurons: elements that may emit an event, per sample and step.
        shape: their shape, per sample and step.
        fanout: how many synapses their events reach.
        folded: whether a constant is added to the events on their way (batch norm), which chips
            fold into the next weights.
        guessed: whether a custom function is taken for a neuron because it makes whole numbers.
        synapses: those that all events reach, per sample and step, in the mean of the steps: less
            than ``fanout.total`` where it does not happen in each (a recurrence, in the first).
    """

    source: str
    sources: tuple[str, ...]
    synapse: str
    kind: str
    measured_at: str
    neurons: int
    shape: tuple[int, ...]
    fanout: FanOut
    folded: bool
    guessed: bool
    synapses: float
    taps: tuple[Tap, ...] = field(repr=False, compare=False)
    calls: SynapseCalls = field(repr=False, compare=False)

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells the connections of one model apart: source, synapse, where it is measured."""
        return self.source, self.synapse, self.measured_at

    @property
    def arriving(self) -> float | None:
        """As how many events at the synapse's input each event arrives; None if that differs."""
        found = {float(tap.arriving) for tap in self.taps if tap.arriving.numel() == 1}
        varies = any(tap.arriving.numel() > 1 for tap in self.taps)
        return found.pop() if len(found) == 1 and not varies else None

    @property
    def label(self) -> str:
        """The source as tables name it."""
        if self.measured_at == self.source:
            return self.source
        return f"{self.source} at {self.measured_at}"


@dataclass(frozen=True)
class DenseSynapse:
    """A synapse whose input is analog: it costs multiply-accumulates, not SynOps.

    Attributes:
        synapse: its name.
        kind: its operation.
        macs: per sample and step, padding and bias not counted; of weights that are not zero, if
            only these count.
        conventional: the same as most tools count: with taps that lie in the padding, and all
            weights.
    """

    synapse: str
    kind: str
    macs: float
    conventional: float
    calls: SynapseCalls = field(repr=False, compare=False)


@dataclass(frozen=True)
class Options:
    """How an analysis was asked for; see :func:`analyze`.

    ``looked`` has, by name, whether inputs seem to carry events, and what tells it.
    """

    layout: Layout
    dt: float
    input_events: bool | tuple[bool, ...] | Literal["auto"]
    spiking: tuple[type | str, ...]
    events: Events
    weights: Weights
    strict: bool
    looked: dict[str, tuple[bool, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """Everything that an analysis found; :class:`fxsynops.Analysis` adds what can be done with it.

    Attributes:
        model, options, example: what was analyzed, and how.
        trace, connector: the recorded graph, and what its nodes hold and are connected to.
        window: samples and time steps of the example.
        connections: one per source and synapse, in the order of the graph.
        dense: the synapses with analog input.
        unresolved: what no rule covers (with ``strict=False``; otherwise it is an error).
        doubts: what may not be as the user thinks, and what an audit has made doubtful.
    """

    model: nn.Module = field(repr=False)
    options: Options
    example: Inputs = field(repr=False)
    trace: Trace = field(repr=False)
    connector: Connector = field(repr=False)
    window: Window
    connections: tuple[Connection, ...]
    dense: tuple[DenseSynapse, ...]
    unresolved: tuple[Unresolved, ...]
    doubts: tuple[str, ...] = ()

    @property
    def specialized(self) -> tuple[str, ...]:
        """Where the forward branched on data."""
        return self.trace.branches

    @cached_property
    def spiking(self) -> dict[str, list[fx.Node]]:
        """What every spiking node of a forward puts out, call by call, by name.

        A comparison of what another one has put out (``spikes > 0``, for a reset) is no neuron, and
        several whose product is put out are one.
        """
        calls: dict[str, list[fx.Node]] = defaultdict(list)
        emitted: set[fx.Node] = set()
        for node, role in self.connector.signals.roles.items():
            spikes = role.kind == "source" and origin_of(node)[0].op.startswith("call")
            if spikes and "virtual" not in node.meta and not self._compares_spikes(node):
                behind = self.emitted(node)
                if behind not in emitted:
                    calls[self.connector.names[node]].append(node)
                emitted.add(behind)
        return dict(calls)

    def _compares_spikes(self, node: fx.Node) -> bool:
        role = self.connector.signals.roles[node]
        if role.module is not None or role.call is None:
            return False
        return any(self._emitter(operand) is not None for operand in role.call.operands())

    def _emitter(self, node: fx.Node) -> fx.Node | None:
        """The spiking node that a value is of: right behind it, or behind its gate or its dtype."""
        roles = self.connector.signals.roles
        while roles[node].kind in ("gate", "routing"):
            if len(roles[node].carriers) != 1 or not (
                roles[node].kind == "gate" or _casts(node, roles)
            ):
                break
            (node,) = roles[node].carriers
        return node if roles[node].kind == "source" and node.op.startswith("call") else None

    def emitted(self, node: fx.Node) -> fx.Node:
        """Where the events of a spiking node are as it puts them out.

        Of one that is written out, behind the gates that are part of it: ``floor().clamp(max=1)``,
        or a product with another comparison beside it: ``(v > 1).float() * (rest <= 0).float()``.
        """
        roles, found = self.connector.signals.roles, node
        while roles[node].module is None and len(node.users) == 1:
            (user,) = node.users
            role = roles.get(user)
            if role is None or role.operation is None or _place(user) != _place(node):
                break
            if shape(user) != shape(node) or not (_casts(user, roles) or self._is_part(role)):
                break
            node = user
            found = user if role.kind == "gate" else found
        return found

    def _is_part(self, role: Role) -> bool:
        """Whether a gate is part of a neuron: it limits its events, or multiplies two of them."""
        if role.kind != "gate" or role.operation is None:
            return False
        if len(role.carriers) == 1:
            return role.operation.lower is not None or role.operation.upper is not None
        emitters = [self._emitter(carrier) for carrier in role.carriers]
        roles = self.connector.signals.roles
        written_out = all(e is not None and roles[e].module is None for e in emitters)
        return written_out and role.operation.factors is not None

    @cached_property
    def graph(self) -> nx.MultiDiGraph:
        """Sources and synapses, with an edge per connection; ``fxsynops.drawing`` draws it.

        The graph has ``model``, its name. Nodes have ``kind``: "source", "gate" (where events of
        sources are measured that reach it) or a synapse's operation ("conv2d", …); synapses with
        analog input have ``macs``, per sample and step. Edges have ``kind``. Those of a
        "connection", from where its events are measured to the synapse, have ``connection``,
        ``synapses`` (its fan-out total), ``folded`` (see :class:`Connection`) and ``gated``
        (whether a gate lies on the way). Those to a "gate" come from the sources behind it. A
        product of events with events is a synapse and its own gate: its connection is a loop.
        """
        return _graph(self)

    @property
    def assumed(self) -> list[str]:
        """What the user has not said, and the model or its inputs have told."""
        said = [self.options.layout.said] if self.options.layout.said else []
        for name, (events, why) in self.options.looked.items():
            if why:
                said.append(f"'{name}' {'carries events' if events else 'is analog'}: {why}.")
        return said

    def remarks(self) -> list[str]:
        """What a reader of its numbers should know: what is left out, folded, or specialized."""
        said = [f"Unresolved, not counted: {row}" for row in self.unresolved]
        said += self.assumed
        if not self.connections and not self.unresolved:
            fires = any(r.kind == "source" for r in self.connector.signals.roles.values())
            what = (
                "of what spikes, nothing reaches a synapse as events"
                if fires
                else ("the model has no spiking node, and its inputs carry none")
            )
            said.append(
                f"No events: {what}. Name its spiking types in spiking=, or pass "
                "input_events=True if the input is spikes."
            )
        if folded := [c.synapse for c in self.connections if c.folded]:
            names = ", ".join(folded[:4]) + (f" and {len(folded) - 4} more" if folded[4:] else "")
            said.append(
                f"Folded (*): a constant is added to the events on their way to {names}, which "
                "chips fold into the next weights."
            )
        said += self.doubts
        said += [f"Specialized on data: {branch}" for branch in self.specialized[:8]]
        if more := len(self.specialized) - 8 if len(self.specialized) > 8 else 0:
            said.append(f"Specialized on data in {more} more places.")
        return said

    @property
    def name(self) -> str:
        """The model's class."""
        return type(self.model).__name__


def whole(value: float) -> Any:
    """A whole number as an ``int``, any other as it is."""
    return int(value) if float(value).is_integer() else value


def _casts(node: fx.Node, roles: Mapping[fx.Node, Role]) -> bool:
    """Whether it hands the values of one operand on as another dtype."""
    role = roles[node]
    if role.kind != "routing" or role.operation is None or len(role.carriers) != 1:
        return False
    return role.operation.factors is None and shape(node) == shape(role.carriers[0])


def _place(node: fx.Node) -> str:
    """The module whose forward a call stands in."""
    module: str = origin_of(node)[0].meta["site"].module
    return module


def _graph(findings: Findings) -> nx.MultiDiGraph:
    graph = nx.MultiDiGraph(model=findings.name)
    for row in findings.dense:
        graph.add_node(row.synapse, kind=row.kind, macs=row.macs)
    for connection in findings.connections:
        for source in connection.sources:
            graph.add_node(source, kind="source")
        graph.add_node(connection.synapse, kind=connection.kind)
    for connection in findings.connections:
        start = connection.source
        if start not in connection.sources:
            if start not in graph:  # else a product of events: a synapse and its own gate
                graph.add_node(start, kind="gate")
            for source in connection.sources:
                if not graph.has_edge(source, start):
                    graph.add_edge(source, start, kind="gate")
        graph.add_edge(
            start,
            connection.synapse,
            kind="connection",
            connection=connection,
            synapses=connection.fanout.total,
            folded=connection.folded,
            gated=connection.measured_at not in connection.sources,
        )
    return graph


def without_values(findings: Findings) -> bool:
    """Whether the model, or its example, has shapes alone (meta and fake tensors)."""
    tensors = [*parameters_of(findings.model), *findings.model.buffers()]
    tensors += [tensor for _, tensor in findings.example.tensors()]
    return any(t.is_meta or isinstance(t, FakeTensor) for t in tensors)
