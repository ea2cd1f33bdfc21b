"""From signals to connections: fan-out, pulled back from synapses to where events come from.

    connect(trace, signals, ...) -> Wiring
      for each synapse (all its calls with one map together):
        SynapseCall.fanout   the map at the synapse's input, in closed form
        pull_back            through routing, in reverse order of the graph, to sources and gates

A map is only as large as it varies (see :mod:`fxsynops.operations.transpose`), and calls that read
different slices of one tensor add to one map of it, so a loop over time steps costs as much as the
slices it reads.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, fx

from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.names import Names
from fxsynops.connectivity.signals import Role, Signals
from fxsynops.operations.call import shape
from fxsynops.operations.operation import Kind, Scale, Slot, SynapseCall
from fxsynops.operations.products import Product
from fxsynops.operations.transpose import compress
from fxsynops.tracing.graph_walk import upstream
from fxsynops.tracing.inputs import Layout
from fxsynops.tracing.node_meta import Site
from fxsynops.tracing.trace import Trace


@dataclass(frozen=True)
class Tap:
    """A place where events are measured, for one connection.

    Attributes:
        node: whose value is measured.
        map: fan-out of each of its elements, float64, as small as it broadcasts.
        scale: what one event is worth there.
        repeats: how many times the value counts (a static input, read at every step).
        product: of a product of events, its normal form: its factors are measured, not its value.
        arriving: as how many events at the synapse's input each of its elements arrives.
    """

    node: fx.Node
    map: Tensor
    scale: Scale
    repeats: int = 1
    product: Product | None = None
    arriving: Tensor = torch.ones((), dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class SynapseCalls:
    """All calls of one synapse that have one geometry, and so one map at their inputs."""

    name: str
    kind: str
    nominal: float | None
    calls: tuple[fx.Node, ...]


@dataclass(frozen=True)
class Edge:
    """One connection: all taps of one source on one synapse that have the same map."""

    synapse: SynapseCalls
    name: str
    sources: tuple[str, ...]
    measured_at: str
    taps: tuple[Tap, ...]
    folded: bool
    guessed: bool


@dataclass(frozen=True)
class AnalogEdge:
    """A synapse whose input is analog, and its multiply-accumulates per pass."""

    synapse: SynapseCalls
    macs: float


@dataclass(frozen=True)
class Unresolved:
    """Events that reach a synapse in a way that no rule covers.

    Attributes:
        synapse: the synapse.
        operation: what no rule covers.
        where: the module and the user's own line.
        reason: what is known of the trouble.
    """

    synapse: str
    operation: str
    where: str
    reason: str

    def __str__(self) -> str:
        reason = self.reason or "no rule says what it does to events"
        return f"'{self.operation}' {self.where}, before synapse '{self.synapse}': {reason}"


@dataclass(frozen=True)
class Wiring:
    """Everything that the synapses of a trace are connected to."""

    edges: tuple[Edge, ...]
    analog: tuple[AnalogEdge, ...]
    unresolved: tuple[Unresolved, ...]


@dataclass
class _Sum:
    """The map of one node while contributions are still coming in."""

    shape: tuple[int, ...]
    map: Tensor | None = None
    folded: bool = False
    owned: bool = False  # whether the map may be written to

    def add(self, slot: Slot) -> None:
        if slot.where is None:
            self.owned = self.map is not None
            self.map = slot.map if self.map is None else self.map + slot.map
            return
        where, sizes = list(slot.where), []
        for axis, part in enumerate(where):
            full = (
                part == slice(None)
                or len(range(*part.indices(self.shape[axis]))) == (self.shape[axis])
            )
            varies = not full or slot.map.shape[axis] > 1
            have = self.map.shape[axis] if self.map is not None else 1
            sizes.append(self.shape[axis] if varies or have > 1 else 1)
            if full:
                where[axis] = slice(None)
        if self.map is None:
            self.map = slot.map.new_zeros(sizes)
        elif not self.owned or list(self.map.shape) != sizes:
            self.map = self.map.expand(sizes).clone()
        self.owned = True
        self.map[tuple(where)] += slot.map


Followed = dict[fx.Node, Tensor]  # constants that may change, with their present values


@dataclass
class Connector:
    """Pulls maps back through the routing of one trace."""

    trace: Trace
    signals: Signals
    names: Names
    graded: bool
    unresolved: dict[Unresolved, None] = field(default_factory=dict)
    _order: dict[fx.Node, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._order = {node: i for i, node in enumerate(self.trace.graph.nodes)}

    @cached_property
    def _first(self) -> dict[str, int]:
        """Where each name comes first: one order for the sources of all steps of a loop."""
        found: dict[str, int] = {}
        for node in self.signals.roles:
            found.setdefault(self.names[node], len(found))
        return found

    def taps(
        self, synapse: SynapseCalls, weights: dict[fx.Node, Tensor | None]
    ) -> list[tuple[fx.Node, Tensor, bool]]:
        """Where the events of a synapse are measured, with their maps.

        Args:
            synapse: the synapse, with all its calls.
            weights: for calls of which only the nonzero weights count, these weights.

        Returns:
            node, map, and whether a constant is added on the way; in the order of the graph.
        """
        seeds = [
            (call.input, self._of_events(call.input, call.fanout(weights.get(node)).cpu()))
            for node, call in self._fed(synapse)
        ]
        return self.measured(seeds, synapse.name)

    def arriving(self, synapse: SynapseCalls) -> dict[fx.Node, Tensor]:
        """As how many events at the inputs of a synapse each element arrives, where measured."""
        inputs = [call.input for _, call in self._fed(synapse)]
        seeds = [(x, torch.ones((1,) * len(shape(x)), dtype=torch.float64)) for x in inputs]
        found: dict[fx.Node, Tensor] = {}
        for node, map, _ in self.measured(
            [(x, self._of_events(x, m)) for x, m in seeds], synapse.name
        ):
            found[node] = found[node] + map if node in found else map
        return found

    def _fed(self, synapse: SynapseCalls) -> Iterator[tuple[fx.Node, SynapseCall]]:
        """The calls of a synapse that events come to."""
        for node in synapse.calls:
            role = self.signals.roles[node]
            if role.synapse is not None and role.carriers:
                yield node, role.synapse

    def _of_events(self, x: fx.Node, map: Tensor) -> Tensor:
        """A map at an input, without the elements that are analog."""
        mask = self.signals.roles[x].signal.mask
        return compress(map if mask is None else map * ~mask)

    def with_weights(
        self,
        synapse: SynapseCalls,
        found: list[tuple[fx.Node, Tensor, bool]],
        weights: dict[fx.Node, Tensor | None],
    ) -> list[tuple[fx.Node, Tensor, bool]]:
        """What :meth:`taps` found, with the maps of the nonzero weights."""
        maps = {node: map for node, map, _ in self.taps(synapse, weights)}
        return [(n, maps.get(n, map.new_zeros((1,) * map.dim())), f) for n, map, f in found]

    def followed(self, synapse: SynapseCalls) -> tuple[Followed, Followed]:
        """What decides how many events come to a synapse, and may change, with its values.

        Returns:
            what multiplies events, and what says where they go; nothing if an event counts one
            where it arrives.
        """
        if self.graded:
            return {}, {}
        factors, leading = (
            {node: self.signals.constant(node) for node in nodes}
            for nodes in self.signals.followed(synapse.calls)
        )
        return _with_values(factors), _with_values(leading)

    def measured(
        self, seeds: list[tuple[fx.Node, Tensor]], synapse: str
    ) -> list[tuple[fx.Node, Tensor, bool]]:
        """The same, from maps at the synapse's inputs."""
        found = (
            [(x, map, False) for x, map in seeds]
            if self.graded
            else list(self.pull_back(seeds, synapse))
        )
        return sorted(found, key=lambda item: self._order[item[0]])

    def pull_back(
        self, seeds: Iterable[tuple[fx.Node, Tensor]], synapse: str
    ) -> Iterator[tuple[fx.Node, Tensor, bool]]:
        """Sources and gates that the maps at some synapses' inputs lead back to.

        Yields:
            the node, its map, and whether a constant is added on the way.
        """
        sums: dict[fx.Node, _Sum] = {}
        queue: list[tuple[int, fx.Node]] = []

        def give(slot: Slot, folded: bool) -> None:
            if self.signals.roles[slot.node].signal.kind != "events":
                return
            if slot.node not in sums:
                sums[slot.node] = _Sum(shape(slot.node))
                heapq.heappush(queue, (-self._order[slot.node], slot.node))
            sums[slot.node].add(slot)
            sums[slot.node].folded |= folded

        for node, map in seeds:
            give(Slot(node, map), False)
        while queue:
            _, node = heapq.heappop(queue)
            total, role = sums.pop(node), self.signals.roles[node]
            assert total.map is not None
            map = compress(total.map)
            if not bool(map.any()):
                continue
            if _runs_apart(node, role):
                reason = "inside of a module that is kept whole, what it lets pass is not known"
                self.report(node, replace(role, reason=reason), synapse)
            elif role.kind == "product" and not role.signal.whole:
                reason = "a constant is added to a product of events, and cannot be told from them"
                self.report(node, replace(role, reason=reason), synapse)
            elif role.kind in ("source", "gate", "mask", "product"):
                yield node, map, total.folded
            elif role.kind == "unknown":
                self.report(node, role, synapse)
            else:
                assert role.call is not None
                assert role.operation is not None
                assert role.operation.pull is not None
                for slot in role.operation.pull(role.call, map):
                    give(slot, total.folded or role.folded)

    def sources(self, node: fx.Node, synapse: str) -> tuple[str, ...]:
        """Names of all spiking nodes whose events come to ``node``; none if any is unknown."""
        behind = self.signals.behind(node)
        unknown = [origin for origin in behind if self.signals.roles[origin].kind == "unknown"]
        for origin in unknown:
            self.report(origin, self.signals.roles[origin], synapse)
        if unknown:
            return ()
        names = {self.names[n] for n in behind} or {self.names[node]}
        return tuple(sorted(names, key=self._first.__getitem__))

    def guessed(self, node: fx.Node) -> bool:
        """Whether a source of a node's events is one only by the values that it made."""
        neurons = (self.signals.roles[n].neuron for n in self.signals.behind(node))
        return any(neuron is not None and neuron.guessed for neuron in neurons)

    def report(self, node: fx.Node, role: Role, synapse: str) -> None:
        """Note that events come through ``node`` to ``synapse`` in an unknown way."""
        origin, _ = origin_of(node)
        site: Site = origin.meta["site"]
        name = self.names[node]
        called = getattr(origin.target, "__name__", "")
        operation = name if not called or called in name else f"{called} of {name}"
        self.unresolved[Unresolved(synapse, operation, str(site), role.reason)] = None


def _runs_apart(node: fx.Node, role: Role) -> bool:
    """Whether a virtual node's events are not those of the module that it stands for."""
    random = role.operation is not None and role.operation.masks
    measured = role.kind in ("source", "mask") or (role.kind == "gate" and random)
    return measured and "virtual" in origin_of(node)[0].meta


def _is_of_weights_alone(trace: Trace, signals: Signals, role: Role) -> bool:
    """Whether a product makes weights, by way of a state: a power iteration, say."""
    if role.synapse is None or role.carriers:
        return False
    pair, seen = (role.synapse.input, role.synapse.weight), set[fx.Node]()
    ahead = [node for node in pair if node is not None]
    while ahead:
        behind = [node for node in upstream(ahead) if node not in seen]
        seen.update(behind)
        for node in behind:
            _, entry = signals.calls[node] if node.op == "call_function" else (None, None)
            if node.op in ("placeholder", "call_module") or (entry and entry.kind is Kind.RANDOM):
                return False
        written = (trace.written.get(str(n.target)) for n in behind if n.op == "get_attr")
        ahead = [node for node in written if node is not None and node not in seen]
    return any(str(node.target) in trace.stateful for node in seen if node.op == "get_attr")


def connect(
    trace: Trace, signals: Signals, layout: Layout, graded: bool, sparse: bool
) -> tuple[Wiring, Connector]:
    """Find every connection of a trace.

    Args:
        trace, signals: the recorded forward and what its nodes hold.
        layout: of its inputs; those without an axis of steps are static.
        graded: measure at the synapse's input (``events="nonzero"``) instead of the source.
        sparse: count only synapses whose weight is not zero.
    """
    connector = Connector(trace, signals, Names(trace, signals), graded)
    edges: list[Edge] = []
    analog: list[AnalogEdge] = []
    for synapse, map in _synapses(signals, connector.names):
        roles = [signals.roles[node] for node in synapse.calls]
        roles = [role for role in roles if not _is_of_weights_alone(trace, signals, role)]
        if any(_macs(signals, role, False) for role in roles):
            macs = sum(_macs(signals, role, sparse) for role in roles)
            analog.append(AnalogEdge(synapse, macs))
        follows = sparse or any(connector.followed(synapse))
        found = _found(connector, synapse, sparse)
        found += [(n, map, False) for n in synapse.calls if signals.roles[n].kind == "product"]
        for edge in _edges(connector, synapse, found, follows):
            static = "T" not in layout.axes
            edges.append(_as_often_as_read(connector, edge, sparse) if static else edge)
    for node, role in signals.roles.items():
        if role.weighted:
            connector.report(node, role, connector.names[node])
    return Wiring(tuple(edges), tuple(analog), tuple(connector.unresolved)), connector


def _with_values(found: dict[fx.Node, Tensor | None]) -> Followed:
    return {node: v for node, v in found.items() if v is not None}


_PLACES = 8  # that are tried where one index may lead to any


def _wherever(
    connector: Connector,
    synapse: SynapseCalls,
    factors: Followed,
    leading: Followed,
) -> list[tuple[fx.Node, Tensor, bool]]:
    """All taps that a synapse may have: no factor is zero, and something leads to each of them.

    Masks of writes let all pass; of indices, those of one place meet there, at each of the first.
    """
    ones = {n: torch.ones_like(value) for n, value in factors.items()}
    with connector.signals.with_values(ones):
        found = connector.taps(synapse, {})
    masks = {n: v for n, v in leading.items() if v.dtype == torch.bool}
    for elsewhere, place in ((masks, 0), *((leading, place) for place in range(_PLACES))):
        values = ones | {n: torch.full_like(v, place) for n, v in elsewhere.items()}
        if elsewhere:  # masks of reads decide sizes, which are fixed
            with suppress(RuntimeError, IndexError), connector.signals.with_values(values):
                known = {node for node, *_ in found}
                found += [tap for tap in connector.taps(synapse, {}) if tap[0] not in known]
    return found


def _macs(signals: Signals, role: Role, sparse: bool) -> float:
    """Multiply-accumulates of one call: the pairs of its analog inputs."""
    call = role.synapse
    if call is None:
        return 0.0
    weight = signals.constant(call.weight) if sparse and call.weight is not None else None
    if not role.carriers:
        return macs_of(call, weight)
    mask = signals.roles[call.input].signal.mask
    return 0.0 if mask is None else macs_of(call, weight, mask)


def macs_of(call: SynapseCall, weight: Tensor | None, analog: Tensor | None = None) -> float:
    """Multiply-accumulates of one call.

    Args:
        call: of a synapse.
        weight: its weights, if only those count that are not zero.
        analog: where its input is analog, if events share it.
    """
    map = call.fanout(weight).cpu()
    map = map if analog is None else map * analog
    return float(map.sum()) * math.prod(shape(call.input)) / map.numel()


def _synapses(signals: Signals, names: Names) -> Iterator[tuple[SynapseCalls, Tensor]]:
    """The synapses in order, each with all calls that have one structural map, and that map."""
    groups: dict[str, list[tuple[Tensor, list[fx.Node]]]] = {}
    for node, role in signals.roles.items():
        if not role.counted:
            continue
        ones = torch.ones((1,) * len(shape(node)), dtype=torch.float64)
        map = compress(role.synapse.fanout()) if role.synapse else ones
        known = groups.setdefault(names[node], [])
        for first, nodes in known:
            if _equal(first, map) and signals.roles[nodes[0]].kind == role.kind:
                nodes.append(node)
                break
        else:
            known.append((map, [node]))
    for name, known in groups.items():
        for i, (map, nodes) in enumerate(known):
            kind, nominal = _kind(signals.roles[nodes[0]])
            yield SynapseCalls(_nth(name, i), kind, nominal, tuple(nodes)), map


def _kind(role: Role) -> tuple[str, float | None]:
    """A synapse's kind and its nominal fan-out."""
    if role.synapse is not None:
        return role.synapse.rule.kind, role.synapse.rule.nominal(role.synapse.call)
    assert role.call is not None
    return role.call.name, None


def _found(
    connector: Connector, synapse: SynapseCalls, sparse: bool
) -> list[tuple[fx.Node, Tensor, bool]]:
    """Where the events of a synapse are measured, with their maps; see :meth:`Connector.taps`."""
    signals = connector.signals
    factors, leading = connector.followed(synapse)
    found = _wherever(connector, synapse, factors, leading)
    nodes = {n: call.weight for n in synapse.calls if (call := signals.roles[n].synapse)}
    weights = {n: signals.constant(w) for n, w in nodes.items() if sparse and w is not None}
    if sparse or factors or leading:
        found = connector.with_weights(synapse, found, weights)
    return found


def _edges(
    connector: Connector,
    synapse: SynapseCalls,
    found: list[tuple[fx.Node, Tensor, bool]],
    sparse: bool,
) -> Iterator[Edge]:
    """The connections of one synapse: taps with one source and one map together."""
    rows: dict[tuple[tuple[str, ...], str], list[tuple[Tensor, list[Tap], bool]]] = {}
    arriving = connector.arriving(synapse)
    for node, map, folded in found:
        sources = connector.sources(node, synapse.name)
        if not sources:
            continue
        role = connector.signals.roles[node]
        scale = Scale() if connector.graded else role.signal.scale or Scale()
        coincides = node in synapse.calls
        tap = Tap(node, map, scale, product=role.product if coincides else None)
        if node in arriving and not coincides:
            tap = replace(tap, arriving=arriving[node])
        row = rows.setdefault((sources, connector.names[node]), [])
        for k, (first, taps, was_folded) in enumerate(row):
            if sparse or _equal(first, map):
                taps.append(tap)
                row[k] = (first, taps, folded or was_folded)
                break
        else:
            row.append((map, [tap], folded))
    for (sources, measured_at), row in rows.items():
        for i, (_, taps, folded) in enumerate(row):
            name = _nth(synapse.name, i)
            guessed = any(connector.guessed(tap.node) for tap in taps)
            yield Edge(synapse, name, sources, measured_at, tuple(taps), folded, guessed)


def _as_often_as_read(connector: Connector, edge: Edge, sparse: bool) -> Edge:
    """A static input that a loop reads has its events as often as it is read."""
    tap, places = edge.taps[0], defaultdict(list)
    for call in edge.synapse.calls:
        places[origin_of(call)[0].meta["site"].code].append(call)
    passes = {len(calls) for calls in places.values()}
    if passes == {1} or len(passes) > 1 or len(edge.taps) > 1 or tap.product is not None:
        return edge
    (repeats,) = passes
    first = replace(edge.synapse, calls=tuple(calls[0] for calls in places.values()))
    maps = {node: map for node, map, _ in _found(connector, first, sparse)}
    once = maps.get(tap.node)
    if once is None or not torch.equal(*torch.broadcast_tensors(once * repeats, tap.map)):
        return edge
    arriving = tap.arriving / repeats
    once_each = replace(tap, map=tap.map / repeats, repeats=repeats, arriving=arriving)
    return replace(edge, taps=(once_each,))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _nth(name: str, i: int) -> str:
    return name if i == 0 else f"{name}#{i + 1}"
