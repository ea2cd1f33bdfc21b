"""What a model's neurons say about time steps: how many they see, and where.

    signs_of(trace, signals)  →  one :class:`Sign` for each neuron that tells, by its library's word
                              (an axis of its values), or by how often it is called

A function has no module that would hold its calls together: they are one neuron's if one takes over
what another has left, or if they come from the same place in the code and are used alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import fx

from fxsynops import neurons
from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.signals import Role, Signals
from fxsynops.neurons.dynamics import Steps
from fxsynops.operations.call import shape
from fxsynops.operations.operation import Kind
from fxsynops.tracing import graph_functions
from fxsynops.tracing.graph_walk import reachable
from fxsynops.tracing.inputs import Window
from fxsynops.tracing.trace import Trace

Places = dict[Any, list[fx.Node]]


@dataclass(frozen=True)
class Sign:
    """What the calls of one spiking node say about steps.

    Attributes:
        name: of the node, and of its kind: "IAF '1'".
        places: where in the code its values come from.
        steps: how many it sees; 0 if its calls are no steps.
        size: of its first value.
        axis: where each call has them; None: each call is one step.
        samples: how many samples it sees; None if that is not known.
        keeps: which of both numbers it holds on to, where they share an axis.
        sure: whether the library says so.
        starts: how often it begins anew.
        shared: how many values come from its places in the code for each of its own.
    """

    name: str
    places: tuple[Any, ...]
    steps: int
    size: tuple[int, ...]
    axis: Steps | None = None
    samples: int | None = None
    keeps: Literal["", "N", "T"] = ""
    sure: bool = True
    starts: int = 1
    shared: float = 1.0

    def holds(self, places: Places, before: Window, now: Window) -> bool:
        """Whether it sees as many samples and steps as another forward has."""
        nodes = [node for place in self.places for node in places.get(place, ())]
        if not nodes:
            return False
        size = tuple(shape(nodes[0]))
        if self.axis is None:
            grows = now.samples == before.samples or now.samples in size
            return len(nodes) == now.timesteps * self.starts * self.shared and grows
        axis = self.axis
        if self.keeps == "T":
            axis = replace(axis, samples=size[0] // self.steps)
        with suppress(RuntimeError):
            return _seen(axis, size) == (now.samples, now.timesteps)
        return False


@dataclass(frozen=True)
class _Calls:
    """The calls of one neuron.

    Attributes:
        nodes: what they put out.
        role: of the first of them.
        driver: the synapse that drives it.
        emits: whether what they put out goes anywhere as events.
    """

    nodes: tuple[fx.Node, ...]
    role: Role
    driver: Any
    emits: bool

    @cached_property
    def kind(self) -> Any:
        """What a function's calls have in common: where they are, and how they are used."""
        return id(self.role.module), self.emits, frozenset(map(place_of, self.nodes))


@dataclass(frozen=True)
class Flow:
    """Where events come from, and where they go, for all nodes of a forward at once.

    Attributes:
        signals: of the forward.
    """

    signals: Signals

    @cached_property
    def _nodes(self) -> list[fx.Node]:
        some = next(iter(self.signals.roles), None)
        return [] if some is None else list(some.graph.nodes)

    @cached_property
    def drivers(self) -> dict[fx.Node, Any]:
        """The place of the synapse that drives a node: of the last ones before it, the first."""
        order = {node: i for i, node in enumerate(self._nodes)}
        first: dict[fx.Node, fx.Node | None] = {}
        for node in self._nodes:
            found = []
            for before in node.all_input_nodes:
                role = self.signals.roles.get(before)
                counted = role is not None and role.counted
                ends = counted or (role is not None and role.kind == "source")
                found.append((before if counted else None) if ends else first[before])
            first[node] = min(filter(None, found), key=order.__getitem__, default=None)
        return {node: None if at is None else place_of(at) for node, at in first.items()}

    @cached_property
    def synapses(self) -> dict[fx.Node, frozenset[Any]]:
        """The synapses that a node's events reach, by their weights, or where they are."""
        found: dict[fx.Node, frozenset[Any]] = {}
        for node in reversed(self._nodes):
            sets = {self._here(at, found) for at in self._ahead(node)}
            found[node] = frozenset().union(*sets) if len(sets) > 1 else next(iter(sets), _NONE)
        return found

    def _here(self, at: fx.Node, found: dict[fx.Node, frozenset[Any]]) -> frozenset[Any]:
        role = self.signals.roles.get(at)
        if role is None or not (role.counted or role.kind == "source"):
            return found[at]
        if not role.counted:
            return _NONE
        weight = None if role.synapse is None else role.synapse.weight
        held = weight is not None and weight.op == "get_attr"  # else computed, in each step anew
        return frozenset((weight.target if weight is not None and held else place_of(at),))

    @cached_property
    def emits(self) -> dict[fx.Node, bool]:
        """Whether what a neuron puts out goes anywhere as events; of a reset, it does not."""
        found: dict[fx.Node, bool] = {}
        for node in reversed(self._nodes):
            found[node] = any(
                at.op == "output" or self._arrives(at) or (not self._is_analog(at) and found[at])
                for at in self._ahead(node)
            )
        return found

    def _is_analog(self, at: fx.Node) -> bool:
        role = self.signals.roles.get(at)
        return role is not None and role.signal.kind == "analog"

    def _arrives(self, at: fx.Node) -> bool:
        role = self.signals.roles.get(at)
        if role is None or role.signal.kind != "const" or not at.op.startswith("call"):
            return role is not None and role.counted
        entry = self.signals.calls[at][1]  # of what has no events yet
        return entry is not None and entry.kind in (Kind.SYNAPSE, Kind.PRODUCT)

    def _ahead(self, node: fx.Node) -> Sequence[fx.Node]:
        return (*node.users, *self.signals.carried.get(node, ()))


_NONE: frozenset[Any] = frozenset()


def signs_of(recorded: Trace, signals: Signals) -> Iterator[Sign]:
    """What each neuron of a recorded forward says of steps, of those that say anything."""
    order, places, flow = order_of(recorded), places_of(recorded), Flow(signals)
    every = _joined(_grouped(flow), places, signals)
    alike: dict[Any, list[_Calls]] = defaultdict(list)  # at the same places, and used alike
    for calls in every:
        alike[calls.kind].append(calls)
    found: list[tuple[bool, Sign]] = []
    for calls in every:
        nodes, others = calls.nodes, alike[calls.kind]
        if calls.role.module is None:
            before = sorted(_before_data(calls, places, flow), key=order.__getitem__)
            if len(before) % len(others) == 0:  # as many of each layer
                at = next(i for i, one in enumerate(others) if one is calls)
                nodes = (*before[at :: len(others)], *nodes)
        sign = _sign(list(nodes), calls.role, calls.driver, signals)
        if sign is not None:
            passes = sum(len(places[place]) for place in sign.places)
            told = calls.emits or calls.role.module is not None
            found.append((told, replace(sign, shared=passes / len(nodes))))
    # What only resets a membrane may do so before there are data, or not in the last step.
    yield from (sign for told, sign in found if told or not any(emits for emits, _ in found))


def _grouped(flow: Flow) -> Iterator[_Calls]:
    """The calls of each module; of a function, by where they are written and what drives them."""
    signals = flow.signals
    found: dict[Any, list[tuple[fx.Node, Role]]] = defaultdict(list)
    seen: set[fx.Node] = set()
    for node, role in signals.roles.items():
        origin, _ = origin_of(node)
        if not origin.op.startswith("call") or "virtual" in node.meta:
            continue
        if role.kind != "source":  # a filter, say, may know its time axis, too
            module = signals.calls.module(origin)
            neuron = None if module is None else neurons.describe(module)
            if neuron is None or neuron.steps is None or neuron.spikes or origin in seen:
                continue
            seen.add(origin)
            role = replace(role, module=module, neuron=neuron)
        key = place_of(node) if role.module is None else id(role.module)
        found[key, flow.drivers[node]].append((node, role))
    for (_, driver), members in found.items():
        nodes, role = [node for node, _ in members], members[0][1]
        nodes = [node for node in nodes if not _is_idle(node, signals)] or nodes
        emit = [flow.emits[node] for node in nodes]
        if role.module is not None or len(nodes) == 1:
            yield _Calls(tuple(nodes), role, driver, any(emit))
            continue
        take_turns = all(this is not then for this, then in pairwise(emit))
        for emits in (True, False) if take_turns else (any(emit),):  # a reset, and a neuron
            alike = [
                n for n, goes in zip(nodes, emit, strict=True) if goes is emits or not take_turns
            ]
            for part in _by_synapses(alike, flow):
                yield _Calls(tuple(part), role, driver, emits)


def _before_data(calls: _Calls, places: Places, flow: Flow) -> Iterator[fx.Node]:
    """A function's calls at the same places that no data have come to yet."""
    for node in {node for at in set(map(place_of, calls.nodes)) for node in places[at]}:
        if flow.signals.roles[node].kind != "source" and flow.emits[node] is calls.emits:
            yield node


def _is_idle(node: fx.Node, signals: Signals) -> bool:
    """Whether a neuron is called with a constant, and nobody looks at what it does with it."""
    origin, _ = origin_of(node)
    users = [user for part in origin.users for user in (part.users or [part])]
    looked_at = [user for user in users if user.users or user.op == "output"]
    given = [signals.roles[n].signal.kind for n in origin.all_input_nodes if n in signals.roles]
    return set(given) == {"const"} and not looked_at


def _by_synapses(calls: list[fx.Node], flow: Flow) -> list[list[fx.Node]]:
    """Those of a function's calls whose events reach other synapses than the rest's are apart.

    On a stream of membranes, each layer takes over what the one before has left, as a step does.
    """
    parts: list[tuple[frozenset[Any], list[fx.Node]]] = []
    for call in calls:
        reached, together = flow.synapses[call], [call]
        for part in [p for p in parts if not reached or not p[0] or p[0] & reached]:
            parts.remove(part)
            reached, together = reached | part[0], part[1] + together
        parts.append((reached, together))
    return [part for _, part in parts]


def _joined(groups: Iterable[_Calls], places: Places, signals: Signals) -> list[_Calls]:
    """The same, also where a first step is written apart, or later ones have other drivers."""
    every = list(groups)
    resets = _resets_behind(every, signals)

    def are_one(first: _Calls, then: _Calls) -> bool:
        if first.emits is not then.emits:
            return False
        here, there = (places[place_of(calls.nodes[0])] for calls in (first, then))
        if here is not there and (1 not in (len(here), len(there)) or len(here) == len(there)):
            return False
        if _kind_of(first.nodes[0]) != _kind_of(then.nodes[0]):
            return False
        # A vote on spikes takes over no membrane.
        return here is there or _takes_over(then.nodes[0], first.nodes, signals)

    found: dict[int, _Calls] = {}
    joined: dict[int, int] = {}
    for i, calls in enumerate(every):
        known = sorted({joined[k] for k in resets[i] if k in joined})
        at = next((k for k in known if are_one(found[k], calls)), None)
        if at is None:
            found[i] = calls
        else:
            found[at] = replace(found[at], nodes=found[at].nodes + calls.nodes)
        joined[i] = i if at is None else at
    return list(found.values())


def _resets_behind(groups: list[_Calls], signals: Signals) -> list[frozenset[int]]:
    """Of each function, those whose spikes come to its first call past no synapse."""
    functions = [(i, calls) for i, calls in enumerate(groups) if calls.role.module is None]
    owner = {origin_of(node)[0]: i for i, calls in functions for node in calls.nodes}
    nothing: frozenset[int] = frozenset()
    behind: dict[fx.Node, frozenset[int]] = {}
    found: dict[int, frozenset[int]] = {}
    for node in next(iter(signals.roles)).graph.nodes if functions else ():
        sets = {behind[before] for before in node.all_input_nodes if behind[before]}
        come = nothing.union(*sets) if len(sets) > 1 else next(iter(sets), nothing)
        role, own = signals.roles.get(node), owner.get(origin_of(node)[0])
        if own is not None:
            found.setdefault(own, come)
            come = frozenset((own,))
        elif role is not None and (role.counted or role.kind == "source"):
            come = nothing
        behind[node] = come
    return [found.get(i, nothing) for i in range(len(groups))]


def _kind_of(node: fx.Node) -> Any:
    """What a function's calls have in common, wherever they are written."""
    op, target, site, path, virtual = place_of(node)
    return op, target, site and site[0], path, virtual, tuple(shape(node))


def _takes_over(node: fx.Node, earlier: Sequence[fx.Node], signals: Signals) -> bool:
    """Whether a spiking function is called with a membrane that earlier calls have read."""
    read = {at for n in earlier for at in _membranes(origin_of(n)[0], signals)}

    def back(at: fx.Node) -> Sequence[fx.Node]:
        role = signals.roles.get(at)
        fires = role is not None and (role.counted or role.kind == "source")
        return () if fires and at is not node else at.all_input_nodes

    behind: set[fx.Node] = set(reachable([node], back))
    return not read.isdisjoint(behind)


def _sign(nodes: list[fx.Node], role: Role, driver: Any, signals: Signals) -> Sign | None:
    """What the calls that one synapse drives say, if they say anything."""
    size = tuple(shape(nodes[0]))
    where = role.steps(size)
    named = _name(nodes[0], role), tuple(dict.fromkeys(map(place_of, nodes)))
    if where is not None and where.axis is not None:
        if len(nodes) > 1:  # pieces of a sample, or several layers
            return Sign(*named, 0, size)
        samples, steps = _seen(where, size)
        keeps: Literal["", "N", "T"] = ""
        if where.samples is not None:
            longer = role.steps((2 * size[0], *size[1:]))
            keeps = "N" if longer is None or longer.samples == where.samples else "T"
        return Sign(*named, steps, size, where, samples, keeps)
    if len(nodes) == 1:
        return None if where is None else Sign(*named, 1, size)
    starts = _starts(nodes, role, driver, signals)
    if role.module is None and starts == len(nodes):
        return None  # a function without a state
    steps = len(nodes) // starts if len(nodes) % starts == 0 else 0
    return Sign(*named, steps, size, sure=where is not None, starts=starts)


def _seen(where: Steps, size: Sequence[int]) -> tuple[int, int]:
    """Samples and steps of a neuron's value."""
    first = where.split(torch.empty(*size, device="meta"))
    if where.samples is not None:
        return where.samples, len(first)
    return (first.shape[1] if first.dim() > 1 else 1), len(first)


def _starts(nodes: list[fx.Node], role: Role, driver: Any, signals: Signals) -> int:
    """How many of the calls take over no state of one before them."""
    calls = [origin_of(node)[0] for node in nodes]
    known = {call: i for i, call in enumerate(calls)}
    read: dict[fx.Node, int] = {}  # what was compared with a threshold, say: a membrane
    for i, call in enumerate(calls if role.module is None else ()):
        for node in _membranes(call, signals):
            read[node] = -1 if node in read else i

    def goes_on(number: int) -> bool:
        def back(at: fx.Node) -> Sequence[fx.Node]:
            at_role = signals.roles.get(at)
            if at_role is None or at is nodes[number] or origin_of(at)[0] in known:
                return at.all_input_nodes
            ends = at_role.kind == "source" or (at_role.counted and place_of(at) == driver)
            return () if ends else at.all_input_nodes

        own = set(_membranes(calls[number], signals))
        return any(
            known.get(at, number) < number or (at not in own and 0 <= read.get(at, -1) < number)
            for at in reachable([calls[number]], back)
        )

    chained = [goes_on(number) for number in range(1, len(calls))]
    if role.module is None or any(chained) or len(calls[0].all_input_nodes) > 1:
        return 1 + chained.count(False)
    return 1 + _resets(calls, role.module)  # the states are inside of the module


def _membranes(call: fx.Node, signals: Signals) -> Iterator[fx.Node]:
    """What a function is called with, and what that is but for constants: ``v / threshold - 1``."""
    for node in call.all_input_nodes:
        yield node
        at: fx.Node | None = node
        while at is not None:
            role = signals.roles.get(at)
            if role is None or role.counted or role.kind == "source":
                break
            kinds = {
                n: signals.roles[n].signal.kind for n in at.all_input_nodes if n in signals.roles
            }
            data = [n for n, kind in kinds.items() if kind != "const"]
            at = data[0] if len(data) == 1 else None
            if at is not None:
                yield at


def _resets(calls: list[fx.Node], module: Any) -> int:
    """Between how many calls of a module the forward sets its state."""
    resets, number = 0, 0
    since = False
    for node in calls[0].graph.nodes:
        if number < len(calls) and node is calls[number]:
            resets += since and number > 0
            number, since = number + 1, False
        elif node.target is graph_functions.change_state:
            change: Any = node.args[0]
            since = since or change.place.root is module.__dict__
    return resets


def _name(node: fx.Node, role: Role) -> str:
    origin, _ = origin_of(node)
    site = origin.meta["site"]
    if role.module is None:
        function = origin.meta.get("function") or origin.target
        kind = getattr(function, "__name__", str(function))
        return f"{kind} in '{site.module}'" if site.module else kind
    path = origin.target if origin.op == "call_module" else origin.meta.get("module", site.module)
    return f"{type(role.module).__name__} '{path}'"


def order_of(trace: Trace) -> dict[fx.Node, int]:
    """The nodes of a graph by their numbers."""
    return {node: i for i, node in enumerate(trace.graph.nodes)}


def takes_steps(trace: Trace, signals: Signals, steps: int) -> bool:
    """Whether some neuron is called once for each of so many steps."""
    return any(s.axis is None and s.steps == steps > 1 for s in signs_of(trace, signals))


def hands_on(nodes: list[fx.Node], role: Role, driver: Any, signals: Signals) -> bool:
    """Whether each pass of a source takes over the state of the one before."""
    return _starts(nodes, role, driver, signals) == 1


def place_of(node: fx.Node) -> Any:
    """Where in the code a value comes from."""
    origin, path = origin_of(node)
    site = origin.meta.get("site")
    place = None if site is None else (site.module, site.code)
    function = origin.meta.get("function")
    target = str(origin.target) if function is None else function.__qualname__
    return origin.op, target, place, tuple(map(str, path)), "virtual" in node.meta


def places_of(trace: Trace) -> Places:
    """The values of a forward by where in the code they come from, in the order of passes."""
    found: Places = defaultdict(list)
    for node in trace.graph.nodes:
        if "spec" in node.meta:
            found[place_of(node)].append(node)
    return found
