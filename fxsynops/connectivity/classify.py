"""What flows where: each node of a trace is a constant, analog, or events, and plays a role.

One pass over the graph, in order, asks the registries (:mod:`fxsynops.operations`,
:mod:`fxsynops.neurons`) about every node::

    classify(trace, ...) -> Signals
      └─ _Classifier._role(node)
           ├─ _neuron        a module kept whole: a neuron's events and states
           ├─ _function      a custom autograd function
           └─ _operation     anything else: routing, gate, threshold, synapse, analog

Events keep a :class:`~fxsynops.operations.registry.Scale` (what one event is worth after an
average pool, say) until a gate, where they are measured. Where analog and event slices lie in one
tensor (``cat``), a mask tells them apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fxsynops import neurons
from fxsynops.connectivity.calls import origin_of, part_of
from fxsynops.connectivity.known_values import Values
from fxsynops.connectivity.open_ends import CHOOSE, weighing_products, weighs, weights_among
from fxsynops.connectivity.signals import (
    ANALOG,
    CONST,
    EVENTS,
    ZERO,
    Role,
    Signal,
    Signals,
    State,
)
from fxsynops.connectivity.units import Units, spread
from fxsynops.neurons import Neuron
from fxsynops.operations import (
    Call,
    Kind,
    Operation,
    operations,
    straight_through,
    written_out,
)
from fxsynops.operations.call import shape
from fxsynops.operations.operation import Scale, SynapseCall, stored
from fxsynops.operations.products import Product
from fxsynops.tracing import graph_functions
from fxsynops.tracing.graph_functions import is_assignment
from fxsynops.tracing.graph_walk import reachable, upstream
from fxsynops.tracing.guards import is_mask, mask_or_version, version
from fxsynops.tracing.places import Place
from fxsynops.tracing.trace import Trace


def classify(
    trace: Trace,
    event_inputs: dict[str, bool],
    spiking: neurons.Chosen,
    graded: bool,
    known: dict[str, State],
    grown: Iterable[Place] = (),
) -> Signals:
    """Give every node of ``trace`` its role.

    A state holds events (sums of spikes, the last step's spikes) if what is written to it is
    events, provided that it held events: so it is assumed, and taken back where it does not hold.

    Args:
        trace: a recorded forward.
        event_inputs: for each input by name, whether it carries events.
        spiking: what counts as spiking, beside what is known.
        graded: whether an event weighs one whatever its value (``events="nonzero"``), so that
            events times analog values are still events.
        known: what earlier traces of the model have left in its states.
        grown: lists (and numbers) of the model's that its forwards are known to change.
    """
    parameters = {n for n, place in trace.reads.items() if isinstance(place.get(), nn.Parameter)}
    kept = {name for name in trace.written if name not in parameters}
    firing: set[fx.Node] = set()
    weighing: set[fx.Node] = set()
    melted: set[fx.Node] = set()

    sets = firing, weighing, melted

    def classified(states: dict[str, State]) -> tuple[_Classifier, dict[str, State]]:
        classifier = _Classifier(trace, event_inputs, spiking, graded, states, *sets)
        roles = classifier.run()
        found = {name: roles[node] for name, node in trace.written.items()}
        left = {n: classifier.left(r) for n, r in found.items() if r.signal.kind != "const"}
        return classifier, left

    states = {name: State(CONST) for name in {*trace.written, *known} & parameters}
    if kept:  # what they are worth is told by a forward that found nothing in them
        plain = {name: state for name, state in known.items() if _is_plain(state)}
        _, left = classified(states | dict.fromkeys(kept, State(ZERO)) | plain)
        told = {n: left[n] for n in kept & left.keys() if left[n] != State(ANALOG)}
        told = {n: state for n, state in told.items() if not _decays(trace, n, state)}
        states |= dict.fromkeys(kept, State(EVENTS)) | told
    known = _of_graph(_grown(known, trace, grown), trace.graph)
    states = {**states, **{name: known[name] for name in known if name not in parameters}}
    settled: set[str] = set()
    while True:
        classifier, left = classified(states)
        roles = classifier.roles
        if not classifier.found_firing <= firing:
            firing |= classifier.found_firing
            continue
        if not (uncounted := weighing_products(classifier, classifier.summed)) <= weighing:
            weighing |= uncounted
            continue
        assumed = {name for name in states.keys() - known.keys() if states[name].holds_events}
        if idle := _undriven(trace, roles, assumed):
            states |= {name: State(CONST) for name in idle}
            continue
        wrong = [
            name
            for name, state in left.items()
            if state != states[name]
            and states[name] not in (State(ANALOG), State(CONST))
            and states[name].reason != _DIFFERS
        ]
        if not wrong:
            return Signals(roles, classifier.calls, classifier.constant, left, classifier.known)
        if not (decaying := _decaying_parts(trace, roles, wrong)) <= melted:
            melted |= decaying
            continue
        for name in wrong:  # at most twice each: to another scale, and to analog
            if name not in settled and (mixed := _mixed(states[name], left[name])) is not None:
                states[name] = mixed
                continue
            analog = name in settled or _decays(trace, name, left[name])
            kept_as = State(EVENTS, "unknown", _DIFFERS) if name in known else left[name]
            states[name] = State(ANALOG) if analog or left[name] == State(ANALOG) else kept_as
        settled.update(wrong)


def _is_plain(state: State) -> bool:
    """Whether one event in a state is worth a number."""
    return state.signal.scale is None or state.signal.scale.fixed


def _grown(known: dict[str, State], trace: Trace, lists: Iterable[Place]) -> dict[str, State]:
    """Entries that replays have appended to lists, and no trace has seen: as the ones before."""
    found = dict(known)
    for grown in lists:
        depth = len(grown.path)
        for name, place in trace.reads.items():
            within = place.root is grown.root and place.path[:depth] == grown.path
            if name in known or not within or len(place.path) == depth:
                continue
            index = place.path[depth]
            inside = name.removeprefix(f"{grown.name}.{index}")
            alike = re.compile(rf"{re.escape(grown.name)}\.(\d+){re.escape(inside)}")
            matches = ((alike.fullmatch(other), state) for other, state in known.items())
            earlier = [state for match, state in matches if match and int(match[1]) < index]
            if earlier and all(state == earlier[0] for state in earlier):
                found[name] = earlier[0]
    return found


def _of_graph(known: dict[str, State], graph: fx.Graph) -> dict[str, State]:
    """States that earlier traces have left, in terms of the nodes of this one."""
    if all(map(_is_plain, known.values())):
        return known
    said = _Said()
    here = {said(n): n for n in graph.nodes if n.op == "get_attr" or n.meta.get("unit")}

    def moved(state: State) -> State:
        scale = state.signal.scale
        if scale is None or scale.fixed:
            return state
        if any(said(node) not in here for node in scale.nodes):
            return State(EVENTS, "unknown", _DIFFERS)
        parts = (scale.times, scale.over, scale.each)
        times, over, each = (tuple(here[said(node)] for node in nodes) for nodes in parts)
        worth = Scale(scale.factor, times, over, each)
        return replace(state, signal=replace(state.signal, scale=worth))

    return {name: moved(state) for name, state in known.items()}


class _Said:
    """What nodes compute for the count alone, as numbers that are equal for what is said alike."""

    def __init__(self) -> None:
        self._nodes: dict[fx.Node, int] = {}
        self._numbers: dict[Any, int] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(map(self, value))
        if not isinstance(value, fx.Node):
            return repr(value)
        if value not in self._nodes:
            said: Any = (str(value.target), "" if value.op == "get_attr" else value.name)
            if value.meta.get("unit"):
                said = (value.target, self(value.args), self(list(value.kwargs.items())))
            self._nodes[value] = self._numbers.setdefault(said, len(self._numbers))
        return self._nodes[value]


def _decays(trace: Trace, name: str, left: State) -> bool:
    """Whether events in a state are worth different amounts because of what it held before."""
    if left.reason != _DIFFERS:
        return False
    return any(n.op == "get_attr" and n.target == name for n in upstream([trace.written[name]]))


def _decaying_parts(trace: Trace, roles: dict[fx.Node, Role], states: list[str]) -> set[fx.Node]:
    """Parts of states that are put together again, in which what they held lives on.

    Of a membrane, its spikes and a trace of these, stacked, the trace is analog, unlike the spikes.
    """
    found: set[fx.Node] = set()
    for name in states:
        role = roles[trace.written[name]]
        for part in role.carriers if role.operation and role.operation.joins else ():
            if roles[part].signal.scale is None or not roles[part].signal.whole:
                ahead = upstream([part])
                if any(n.op == "get_attr" and n.target == name for n in ahead):
                    found.add(part)
    return found


def _mixed(before: State, left: State) -> State | None:
    """What a state holds that holds analog values at more places than was known."""
    mask = left.signal.mask
    if mask is None or not before.holds_events:
        return None
    if replace(before.signal, mask=None) != replace(left.signal, mask=None):
        return None
    known = before.signal.mask
    if known is None or known.shape != mask.shape:  # of another batch, say
        return left
    return replace(left, signal=replace(left.signal, mask=mask | known))


def _undriven(trace: Trace, roles: dict[fx.Node, Role], assumed: set[str]) -> set[str]:
    """Those of some states to which no source leads, except for one another."""
    sources: dict[str, set[str | None]] = {}
    for name in assumed:
        back = reachable([trace.written[name]], lambda n: roles[n].carriers)
        begins = (n for n in back if not roles[n].carriers)
        sources[name] = {str(n.target) if n.op == "get_attr" else None for n in begins}
    idle = set(assumed)
    while driven := {name for name in idle if not sources[name] <= idle}:
        idle -= driven
    return idle


@dataclass
class _Classifier(Values):
    event_inputs: dict[str, bool]
    spiking: neurons.Chosen
    graded: bool
    states: dict[str, State]
    firing: set[fx.Node]  # neurons that fire before any data has come to them
    weighing: set[fx.Node]  # products that are synapses of their own
    melted: set[fx.Node]  # what goes on in a state, and decays there
    found_firing: set[fx.Node] = field(default_factory=set)
    summed: set[fx.Node] = field(default_factory=set)  # products that are part of a synapse
    units: Units = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.units = Units(self, self.trace.units)

    def run(self) -> dict[fx.Node, Role]:
        for node in self.trace.graph.nodes:
            if "spec" in node.meta:
                role = self._role(node)
                self.roles[node] = _other(ANALOG) if node in self.melted else role
        return self.roles

    def left(self, role: Role) -> State:
        """What a state holds that ``role`` was written to."""
        signal = role.signal
        if role.kind == "unknown":
            return State(EVENTS, "unknown", "an earlier forward left in it what no rule counts")
        if signal.kind != "events" or not signal.whole:
            return State(ANALOG)
        if signal.scale is None or not self._lasts(signal.scale):
            return State(EVENTS, "unknown", _DIFFERS)
        kept = replace(EVENTS, scale=signal.scale, mask=signal.mask)
        return State(kept, "mask" if role.kind == "mask" else "source")

    def _lasts(self, scale: Scale) -> bool:
        """Whether events are worth the same in the next forward, whatever its data."""
        behind = reachable(scale.nodes, self.units.computed_from)
        return all(n.meta.get("unit") or self.roles[n].signal.kind == "const" for n in behind)

    # -- one node --------------------------------------------------------------------------------

    def _role(self, node: fx.Node) -> Role:
        origin, path = origin_of(node)
        if origin.op == "placeholder":
            is_events = self.event_inputs[str(origin.target)]
            return (
                Role("source", EVENTS, neuron=Neuron(signed=True, promised=True))
                if is_events
                else _other(ANALOG)
            )
        if origin.op == "get_attr":
            return self._state(str(origin.target))
        if (handed_on := graph_functions.through_hooks(origin)) is not None:
            anew = origin.meta["hooked"] or origin.meta["split"]
            return self._handed_on(part_of(handed_on, path), node, anew)
        if origin.target is graph_functions.after:
            return self._written_to(node)
        if origin.meta.get("void"):
            return _other(ANALOG)
        if "as" in origin.meta:
            return self._same_as(origin.meta["as"], node)
        call, operation = self.calls[node]
        if (keeper := self._keeper(origin)) is not None:
            return self._neuron(call, *keeper)
        if origin.target is graph_functions.read_state:
            return self._left_behind(call, origin.args[0])
        module, function = self.calls.module(origin), origin.meta.get("function")
        if module is not None:
            neuron = neurons.describe(module, self.spiking)
            hooked = origin.meta.get("hooked")
            if neuron is not None and hooked:
                neuron = replace(neuron, signed=True, promised=True)
            if neuron is not None:
                return self._neuron(call, neuron, path, module)
            if hooked and (arriving := self._events(call.operands())):
                reason = "it is kept whole, and its hooks may change what it gets or returns"
                return self._unknown(call, arriving, reason, weighted=True)
        if (known := neurons.registered(origin.target)) is not None:
            return self._neuron(call, known, path)
        if function is not None and operation is None:
            return self._function(call, function)
        if any(call.name.replace("_", "") == name for name in self._named):
            return self._neuron(call, Neuron(signed=True, graded=True), path)
        return self._operation(call, operation)

    def _keeper(self, node: fx.Node) -> tuple[Neuron, list[Any], nn.Module] | None:
        """The neuron whose events are read out of one of its attributes, if it keeps them there."""
        if node.target is not graph_functions.read_state:
            return None
        place: Any = node.args[0]
        for module in self.trace.modules.values():
            if module.__dict__ is place.root:
                neuron = neurons.describe(module, self.spiking)
                kept = neuron is not None and neuron.kept == place.path[-1]
                return (neuron, [], module) if neuron is not None and kept else None
        return None

    def _left_behind(self, call: Call, place: Any) -> Role:
        """An attribute of a module kept whole, after a call: a library's neurons keep membranes."""
        owner = next((m for m in self.trace.modules.values() if m.__dict__ is place.root), None)
        if neurons.is_librarys(type(owner)) and not any("sp" in str(key) for key in place.path):
            return _other(ANALOG)
        reason = (
            f"'{place.name}' is read out of a module that is kept whole, which does not say what "
            "it holds: use what the module returns"
        )
        return self._unknown(call, call.operands(), reason)

    @cached_property
    def _named(self) -> list[str]:
        """Functions that are what a spiking module of torch's calls: ``relu`` for ``nn.ReLU``."""
        own = (t for t in self.spiking.types if t.__module__ == nn.ReLU.__module__)
        return [t.__name__.lower() for t in own]

    def _state(self, target: str) -> Role:
        state = self.states.get(target)
        if state is not None and state.kind == "unknown":
            return Role("unknown", EVENTS, reason=state.reason)
        if state is not None and state.signal.mask is not None:
            return _other(state.signal)  # events are measured where they are taken out of it
        if state is not None and state.holds_events:
            scale = state.signal.scale  # of a parameter, it may be another one by now
            doubtful = scale is not None and not scale.fixed
            neuron = Neuron(signed=True, guessed=doubtful)
            return Role(state.kind, state.signal, neuron=neuron)
        if state is not None:
            return _other(state.signal)
        return _other(ANALOG if target in self.trace.stateful else CONST)

    def _handed_on(self, operand: fx.Node, node: fx.Node, anew: bool) -> Role:
        """What hooks make of a tensor: measured there, if they may change it, or take it apart."""
        if not anew or self.roles[operand].signal.kind != "events":
            return self._same_as(operand, node)
        call = Call(node, graph_functions.after, "hook", (operand, None), {}, None, self.constant)
        role = self._measured(call, None, [operand], self.roles[operand].signal.scale)
        return replace(role, neuron=Neuron(signed=True, promised=True))

    def _same_as(self, operand: Any, node: fx.Node) -> Role:
        """What hands on what it got."""
        call = Call(node, graph_functions.after, "after", (operand, None), {}, None, self.constant)
        signal = self.roles[operand].signal
        return self._routing(call, operations.by_name["after"], [operand], signal)

    def _written_to(self, node: fx.Node) -> Role:
        """A tensor that a call has written to without returning it."""
        before, writer = node.args
        call, operation = self.calls[writer]  # type: ignore[index]
        if is_assignment(call.target) and isinstance(call.args[1], fx.Node):
            return self._same_as(call.args[1], node)  # x.data = y
        data = [n for n in call.operands() if self.roles[n].signal.kind != "const"]
        if not data:
            return self._same_as(before, node)
        if operation is None:
            return self._unknown(self.calls[node][0], data, "what it writes is not known")
        return _other(ANALOG)

    def _neuron(
        self, call: Call, neuron: Neuron, path: list[Any], module: nn.Module | None = None
    ) -> Role:
        paths = [tuple(path), *call.node.meta.get("also", ())]
        is_events = neuron.spikes and (not path or (neuron.output,) in paths)
        if neuron.refused:
            return Role("unknown", EVENTS, call, reason=neuron.refused, weighted=True)
        if not is_events:
            return _other(ANALOG)
        scale: Scale | None = None  # behind a gate, an amplitude that may change is not known
        if isinstance(neuron.amplitude, int | float):
            scale = Scale(neuron.amplitude)
        else:
            amplitude = neuron.amplitude(module)
            if not amplitude.requires_grad and bool((amplitude == 1).all()):
                scale = Scale()
                self._hold_amplitude(amplitude)
        return Role("source", replace(EVENTS, scale=scale), call, neuron=neuron, module=module)

    def _function(self, call: Call, function: Any) -> Role:
        """A custom autograd function is a spiking function if it looks like one."""
        operands = call.operands()
        data = [n for n in operands if self.roles[n].signal.kind != "const"]
        known = neurons.registered(function)
        if known is not None:
            return self._neuron(call, known, [] if call.output is None else [call.output])
        if not data and call.node in self.firing:
            data = operands[:1]
        if not data:
            return _other(self.const(operands))
        out, trial = shape(call.node), origin_of(call.node)[0].meta["trial"].of(call.output)
        elementwise = out == shape(data[0]) and all(
            (_broadcasts(shape(n), out) and sum(size > 1 for size in shape(n)) < 2)
            or (shape(n) == out and self.roles[n].signal.fixed)  # thresholds, not weights
            for n in operands
            if n not in data
        )
        alone = len(data) == len(operands) and not self._events(data)  # no weights, no events
        if not (elementwise or (trial.apart and out == shape(data[0])) or alone):
            return self._unknown(call, data, "", self._multiplies(call, data))
        if trial.unit is not None or trial.worth is not None or trial.times > 1:
            scale: Scale | None = Scale((trial.worth or 1.0) * trial.times)
            if trial.unit is not None:
                scale = self.units.scaled(scale, call.args[trial.unit], trial.divides)
            else:  # it may be made of them, in some other way
                self._hold(version, [n for n in operands if n not in data])
            neuron = Neuron(signed=True, guessed=True)
            return Role("source", replace(EVENTS, scale=scale), call, neuron=neuron)
        if not trial.is_whole(call.output):
            if any(self.roles[n].signal.kind == "events" for n in data):
                return self._unknown(call, data, "it makes other values of events")
            return Role("other", ANALOG, call, reason=_FRACTIONS)
        binary = origin_of(call.node)[0].meta["binary"]
        cap = 1.0 if binary else math.inf
        neuron = Neuron(max_spikes=cap, signed=not binary, guessed=True)
        return Role("source", EVENTS, call, neuron=neuron)

    def _operation(self, call: Call, operation: Operation | None) -> Role:
        if operation is None:
            data = [n for n in call.operands() if self.roles[n].signal.kind != "const"]
            if not data:
                return _other(self.const(call.operands()))
            return self._unknown(call, data, _why_no_entry(call), self._multiplies(call, data))
        if operation.kind is Kind.RANDOM:
            if not operation.whole:
                return _other(ANALOG)
            neuron = Neuron(max_spikes=operation.most, rounded=operation.rounded)
            return Role("source", EVENTS, call, operation, neuron=neuron)
        if call.output is not None and operation.outputs and call.output not in operation.outputs:
            return _other(ANALOG)  # the indices of a maximum
        operands = operation.carriers(call)
        data = [n for n in operands if self.roles[n].signal.kind != "const"]
        led = [n for n in operation.steers(call) if self.roles[n].signal.kind != "const"]
        if not data and call.node in self.firing:
            return self._threshold(call, operation, [])
        if not data:
            return self._without_data(call, operation, operands, led)
        carriers = self._events(data)
        if operation.kind is Kind.UNCOUNTED:
            if operation.analog_only and not carriers:
                return _other(ANALOG)
            return self._unknown(call, data, "", weighted=True)
        if carriers and operation.analog_only:
            elementwise = all(_broadcasts(shape(n), shape(call.node)) for n in operands)
            weighted = not elementwise and self._multiplies(call, data)
            return self._unknown(call, data, "", weighted)
        if operation.kind is Kind.SYNAPSE:
            return self._synapse(call, operation, data)
        if operation.kind is Kind.PRODUCT:
            return self._two_factors(call, operation, data)
        if operation.kind is Kind.THRESHOLD:
            return self._threshold(call, operation, carriers)
        if operation.merges:
            terms = straight_through.terms(call.node, self.calls.__getitem__, self.vanishes)
            left = [n for n, times in terms.items() if times] if terms is not None else None
            if left is not None and all(self.roles[n].signal.kind == "events" for n in left):
                return self._straight_through(call, terms or {}, left)
        if (written := self._written_out(call)) is not None:
            return written
        if call.node in self.weighing and (
            product := written_out.unsummed(call.node, self.calls.__getitem__)
        ):
            return self._product_with(call, product, weights_among(self, product))
        if operation.factors and any(map(self.vanishes, operands)):
            return _other(ZERO)
        looks_up = not carriers and operation.analog_only and any(map(self._is_weight, operands))
        if looks_up and (chosen := list(self._whose_places(data))):
            return self._unknown(call, chosen, CHOOSE, weighted=True)
        if not carriers or operation.kind is Kind.ANALOG:
            return _other(ANALOG)
        if operation.led and any(map(self._is_index_without_values, call.operands())):
            return self._unknown(call, carriers, _WITHOUT_VALUES)
        if operation.merges and (step := self._step_of_sign(call, operation)) is not None:
            return step
        if operation.kind is Kind.GATE or (operation.led and led):
            return self._gate(call, operation, data, carriers)
        if operation.factors:
            return self._product(call, operation, data, carriers, operation.factors(call))
        return self._routing(call, operation, operands, self._joined(call, operation, operands))

    def _is_index_without_values(self, node: fx.Node) -> bool:
        value = self.constant(node) if self.roles[node].signal.kind == "const" else None
        return value is not None and value.is_meta and not value.is_floating_point()

    # -- kinds of operations ---------------------------------------------------------------------

    def _without_data(
        self, call: Call, operation: Operation, operands: list[fx.Node], led: list[fx.Node]
    ) -> Role:
        """Only constants are carried; what steers may depend on data all the same."""
        choosing = self._events(led) or list(self._whose_places(led))
        if led and (operation.led or operation.moves):
            return self._placed(call, operation, choosing)
        if operation.masks and self.const(operands).fixed:
            return Role("mask", replace(EVENTS, scale=operation.scale(call)), call, operation)
        if operation.kind in (Kind.SYNAPSE, Kind.PRODUCT):
            self.found_firing.update(self.firing_behind(call.x))  # and all anew, knowing that
        return _other(ANALOG if led and operation.carries else self.const(operands))

    def _is_weight(self, node: fx.Node) -> bool:
        return self.roles[node].signal.kind == "const" and self.holds_weights(node)

    def _whose_places(self, led: list[fx.Node]) -> Iterator[fx.Node]:
        """The events whose places some indices are (``spikes.nonzero()``)."""
        for node in upstream(led):
            if node.op == "call_function":
                call, operation = self.calls[node]
                if operation is not None and operation.places:
                    yield from self._events(call.operands())

    def _placed(self, call: Call, operation: Operation, choosing: list[fx.Node]) -> Role:
        """Constants come out at places that data choose: events, if all but one of them are zero.

        ``zeros.scatter(1, scores.topk(1).indices, 1.0)``, ``eye(10)[classes]``, ``v[spikes] = 1``.
        """
        constants = self.units.constants(call, operation)
        if not all(not isinstance(c, fx.Node) or self.roles[c].signal.fixed for c in constants):
            if all(map(self.is_drawn, choosing)):
                return _other(ANALOG)
            reason = CHOOSE + _may_be_indices(choosing)
            elementwise = all(n.meta["spec"].dtype == torch.bool for n in choosing) and all(
                _broadcasts(shape(n), shape(call.node)) for n in call.operands()
            )
            weighted = not elementwise and self._multiplies(call, choosing)
            return self._unknown(call, choosing, reason, weighted or call.node in self.weighing)
        if choosing:
            return self._chosen(call, operation, choosing)
        scale = self.units.chosen(call, constants)
        if scale is None or not scale.fixed:
            return _other(ANALOG)
        neuron = Neuron(max_spikes=1.0, signed=True)
        return Role("source", replace(EVENTS, scale=scale), call, operation, neuron=neuron)

    def _threshold(self, call: Call, operation: Operation, carriers: list[fx.Node]) -> Role:
        """Whole numbers come out; of events, unless a neuron made them, they are a part."""
        carriers = [] if operation.fires else carriers
        dtypes = [n.meta["spec"].dtype for n in call.operands()]
        if operation.of_whole and not (carriers or any(d.is_floating_point for d in dtypes)):
            return _other(ANALOG)
        cap = 1.0 if call.node.meta["spec"].dtype == torch.bool else math.inf
        neuron = Neuron(max_spikes=cap, signed=cap != 1)
        kind: Any = "gate" if carriers else "source"
        return Role(kind, EVENTS, call, operation, tuple(carriers), neuron)

    def _synapse(self, call: Call, operation: Operation, data: list[fx.Node]) -> Role:
        rule = operation.synapse
        assert rule is not None
        x = call[rule.input] if rule.weight else call.x
        weight = call[rule.weight] if rule.weight else None
        if weight in data and self.comes_from_inputs(weight):
            if x not in data or self.roles[weight].signal.kind == "events":
                reason = "its weights depend on the data in a way that is not counted"
                return self._unknown(call, data, reason, weighted=True)
            weight = None if self.roles[x].signal.kind == "events" else weight
        return self._driven(call, operation, SynapseCall(call, rule, x, weight))

    def _driven(self, call: Call, operation: Operation, synapse: SynapseCall) -> Role:
        carriers = (synapse.input,) if self.roles[synapse.input].signal.kind == "events" else ()
        if carriers and self._is_mixed_state(synapse.input):
            return self._unknown(call, carriers, _MIXED, weighted=True)
        return Role("synapse", ANALOG, call, operation, carriers, synapse=synapse)

    def _two_factors(self, call: Call, operation: Operation, data: list[fx.Node]) -> Role:
        """A matrix product: with weights a linear synapse, with activations attention."""
        assert operation.product is not None
        product = operation.product(call)
        if product is None:
            if operation.pull is None or len(call.operands()) > 1:
                return self._unknown(call, data, "products of this form are not counted", True)
            return self._routing(call, operation, data, self._joined(call, operation, data))
        pair = product.operands
        if product.elementwise and operation.pull is not None:
            carriers = self._events(data)
            return self._product(call, operation, data, carriers, pair)
        weights = [n for n in pair if not self.is_activation(n)]
        if not weights and len(self._events(pair)) == 2:
            drawn = [n for n in pair if self.is_drawn(n) and self.holds_weights(n)]
            weights = drawn if len(drawn) == 1 else []
        if weights:
            which = 1 - pair.index(weights[-1])
            rule = product.synapse(which, True, call.name)
            held = self.constant(weights[-1])
            kept = None if held is None or held.layout == torch.strided else stored(held)
            if kept is not None:  # as long as it is the same tensor
                self._hold(version, weights[-1:])
            synapse = SynapseCall(call, rule, pair[which], weights[-1], kept)
            return self._driven(call, operation, synapse)
        return self._of_activations(call, operation, data, product)

    def _of_activations(
        self, call: Call, operation: Operation, data: list[fx.Node], product: Product
    ) -> Role:
        """Attention: events times events, events times analog values, or analog values alone."""
        pair = product.operands
        if any(self.roles[n].signal.mask is not None for n in pair):
            return self._unknown(call, data, "events and analog values meet in it", True)
        events = [n for n in pair if self.roles[n].signal.kind == "events"]
        counted = [n for n in events if self.roles[n].signal.whole]
        if len(counted) == 2:
            return self._coincidences(call, operation, product)
        which = pair.index(counted[0]) if counted else 0
        synapse = SynapseCall(call, product.synapse(which, False, call.name), pair[which], None)
        return Role("synapse", ANALOG, call, operation, tuple(counted), synapse=synapse)

    def _written_out(self, call: Call) -> Role | None:
        """A synapse that is written as a product and a sum."""
        found = written_out.product(call, self.calls.__getitem__)
        if found is None:
            return None
        product, made = found
        way = written_out.mixes if call.node in self.weighing else written_out.differs
        which = next((i for i in (0, 1) if weighs(self, product, i, way)), None)
        if which is not None:
            self.summed.add(made)
            return self._product_with(call, product, which)
        operation = self.calls[call.node][1]
        if operation is None or not all(map(self.is_activation, product.operands)):
            return None
        if not self._events(product.operands) or not written_out.attends(product):
            return None
        self.summed.add(made)
        return self._of_activations(call, operation, list(product.operands), product)

    def _product_with(self, call: Call, product: Product, which: int) -> Role:
        rule = product.synapse(1 - which, True, call.name)
        pair = product.operands
        operation = self.calls[call.node][1]
        assert operation is not None
        return self._driven(call, operation, SynapseCall(call, rule, pair[1 - which], pair[which]))

    def _coincidences(self, call: Call, operation: Operation, product: Product) -> Role:
        """Events times events: events come out, as many as coincide."""
        number = float(call.get("alpha", 1))
        scale: Scale | None = Scale(number) if number else None
        for node in product.operands:
            own = self._worth_alike(self.roles[node].signal.scale)
            scale = None if scale is None or own is None else scale * own
        beta = float(call.get("beta", 1))
        added = product.added if beta and not self.is_zero(product.added) else None
        if isinstance(added, fx.Node) and self.roles[added].signal.kind != "const":
            reason = "a product of events is added to something else"
            return self._unknown(call, list(product.operands), reason, weighted=True)
        if scale is None and number and not self.graded:
            reason = "what one event is worth differs between elements that it multiplies"
            return self._unknown(call, list(product.operands), reason, weighted=True)
        whole = scale == Scale() and beta.is_integer()
        whole = added is None or (whole and self.is_whole(added))
        signal = replace(EVENTS, scale=scale, whole=whole)
        return Role("product", signal, call, operation, product.operands, product=product)

    def _hold(self, read: Callable[[Tensor], Any], nodes: Iterable[fx.Node]) -> None:
        """The trace holds as long as this can be said of all that some constants are made of."""
        for node in upstream(nodes):
            if node.op == "get_attr":
                target = str(node.target)
                held = Place(self.trace.constants, (target,), target)
                self.trace.conditions.also(read, self.trace.reads.get(target, held))

    def _hold_amplitude(self, amplitude: Tensor) -> None:
        """The trace holds as long as a buffer that says what a neuron's event is worth says so."""
        for path, module in self.trace.modules.items():
            for name, buffer in module._buffers.items():
                if buffer is amplitude and not buffer.is_meta:
                    where = f"{path}.{name}".strip(".")
                    held = Place(module.__dict__, ("_buffers", name), where)
                    self.trace.conditions.also(_is_one, held)

    def _worth_alike(self, scale: Scale | None) -> Scale | None:
        """A scale that is the same in all elements, but where masks of 0 and 1 are zero."""
        if scale is None or not scale.each:
            return scale
        for mask in scale.each:
            value = None if self._depends_on_data(mask) else self.constant(mask)
            if value is None or value.is_meta or not is_mask(value):
                return None
        self._hold(mask_or_version, scale.each)  # that they are masks, until they are written to
        return replace(scale, each=())

    def _depends_on_data(self, node: fx.Node) -> bool:
        """Whether a value from which worths are computed does."""
        if "unit" not in node.meta:
            return self.roles[node].signal.kind != "const"
        operands = node.all_input_nodes
        if node.target in (torch.ones_like, spread):  # of the first, only the size
            operands = [n for n in operands if n is not node.args[0]]
        return any(map(self._depends_on_data, operands))

    def _straight_through(
        self, call: Call, terms: dict[fx.Node, float], left: list[fx.Node]
    ) -> Role:
        """A sum in which something cancels, so that only the events are left of it."""
        if not left:
            return _other(ZERO)
        operation = straight_through.straight_through(terms)
        role = self._routing(call, operation, left, self._joined(call, operation, left))
        behind = reachable(left, lambda n: self.roles[n].carriers)
        made = [self.roles[n] for n in behind if self.roles[n].kind == "source"]
        compared = any(r.operation and r.operation.kind is Kind.THRESHOLD for r in made)
        if not compared or role.kind != "routing" or role.signal.mask is not None:
            return role
        # What was compared has no derivative: it is what cancels that has one.
        signed = any(r.neuron is None or r.neuron.signed for r in made)
        neuron = Neuron(rounded=True, signed=signed)
        return replace(self._measured(call, operation, left, role.signal.scale), neuron=neuron)

    def _step_of_sign(self, call: Call, operation: Operation) -> Role | None:
        """``(sign(v) + 1) / 2``: −1 comes out as nothing, and 1 as one event, here."""
        terms = operation.terms(call) if operation.terms else []
        nodes = [(f, n) for f, n in terms if isinstance(n, fx.Node)]
        numbers = [f * n for f, n in terms if isinstance(n, int | float)]
        if len(nodes) != 1 or len(numbers) != 1:
            return None
        factor, node = nodes[0]
        scale = self.roles[node].signal.scale
        at = node
        while self.roles[at].kind == "routing" and len(self.roles[at].carriers) == 1:
            role = self.roles[at]
            if role.operation is None or role.operation.terms is None or role.folded:
                return None
            at = role.carriers[0]
        made = self.roles[at].call
        if self.roles[at].kind != "source" or made is None or made.name not in ("sign", "sgn"):
            return None
        before, entry = self.calls[made.x]
        least = None if entry is None else before.number(entry.lower)
        if isinstance(least, int | float) and least >= 0:  # it is no sign, but a step itself
            return None
        if scale is None or not scale.fixed:
            return None
        if abs(numbers[0]) != abs(factor * scale.factor):
            return None
        found = self._measured(call, operation, [node], Scale(2 * numbers[0]))
        return replace(found, neuron=Neuron(max_spikes=1.0, rounded=True, guessed=True))

    def _gate(
        self, call: Call, operation: Operation, data: list[fx.Node], carriers: list[fx.Node]
    ) -> Role:
        signals = [self.roles[n].signal for n in data]
        if len(carriers) < len(data) or not all(s.whole for s in signals):
            if self._beside_constants(carriers):
                reason = "constants lie beside the events that it gates"
                return self._unknown(call, carriers, reason)
            return _other(ANALOG)
        return self._measured(call, operation, carriers, self.units.gated(call, operation, data))

    def _beside_constants(self, carriers: list[fx.Node]) -> bool:
        """Whether events lie in a tensor with constants that no event is added to (``cat``)."""
        for node in reachable(carriers, lambda n: self.roles[n].carriers):
            role = self.roles[node]
            entry, call = role.operation, role.call
            if role.kind != "routing" or entry is None or call is None:
                continue
            added = self.added(call, entry, entry.carriers(call)) if entry.joins else []
            if any(not self.is_zero(a) for a in added):
                return True
        return False

    def _chosen(self, call: Call, operation: Operation, choosing: list[fx.Node]) -> Role:
        """Constants at places that events choose."""
        constants = self.units.constants(call, operation)
        return self._measured(call, operation, choosing, self.units.chosen(call, constants))

    def _measured(
        self,
        call: Call,
        operation: Operation | None,
        carriers: list[fx.Node],
        scale: Scale | None,
    ) -> Role:
        """A gate, if it can be told what one event is worth there."""
        if any(self.roles[n].signal.mask is not None for n in carriers):
            return self._unknown(call, carriers, "events and analog values meet in it")
        if not self.graded and (scale is None or scale.factor == 0):
            return self._unknown(
                call, carriers, "what one event is worth differs between the elements that it gates"
            )
        signal = replace(EVENTS, scale=scale)
        return Role("gate", signal, call, operation, tuple(carriers))

    def _product(
        self,
        call: Call,
        operation: Operation,
        data: list[fx.Node],
        carriers: list[fx.Node],
        factors: tuple[Any, ...],
    ) -> Role:
        """Events times a constant are routed; times events, they gate each other."""
        if any(isinstance(factor, fx.Node) and self.vanishes(factor) for factor in factors):
            return _other(ZERO)
        if not carriers:
            return _other(ANALOG)
        divides = operation.divides
        if len(carriers) < len(data):
            if self.graded and not (divides and data[0] not in carriers):
                return self._measured(call, operation, carriers, Scale())
            return _other(ANALOG)
        if divides and (len(data) > 1 or factors[0] is not data[0]):
            return _other(ANALOG)
        signals = [self.roles[n].signal for n in data]
        if len(data) > 1:
            if not all(s.whole for s in signals):
                return _other(ANALOG)
            scale: Scale | None = Scale()
            for signal in signals:
                scale = None if scale is None or signal.scale is None else scale * signal.scale
            return self._measured(call, operation, carriers, scale)
        others = [a for a in factors if a is not data[0]]
        return self._scaled(call, operation, data[0], others[0] if others else data[0], divides)

    def _scaled(
        self, call: Call, operation: Operation, x: fx.Node, factor: Any, divides: bool
    ) -> Role:
        """Events times a constant. Where it is zero, they stop."""
        signal = self.roles[x].signal
        if self.is_zero(factor):
            return _other(ZERO)
        if isinstance(factor, fx.Node) and self.holds_weights(factor) and self.is_drawn(x):
            return _other(ANALOG)  # weights, some of which are left out at random
        if operation.product and isinstance(factor, fx.Node):  # with axes of its own
            scale = self.units.multiplied(call, x, factor)
        else:
            scale = self.units.scaled(signal.scale, factor, divides)
        return self._routing(call, operation, [x], replace(signal, scale=scale))

    def _joined(self, call: Call, operation: Operation, operands: list[fx.Node]) -> Signal:
        """What comes out of a routing operation with all its operands."""
        signals = {n: self.roles[n].signal for n in operands}
        events = {n: s for n, s in signals.items() if s.kind == "events"}
        scale = self.units.routed(call, operation, list(events))
        if call.get("alpha", 1) != 1:
            scale = None
        whole = all(s.whole for s in events.values()) and not operation.shifts(call)
        for added in self.added(call, operation, operands):
            if not self.is_zero(added):
                is_one = scale is not None and abs(scale.factor) == 1
                whole = whole and is_one and self.is_whole(added)
        return Signal("events", scale, whole, mask=self.mask(call, operation, operands))

    def _routing(
        self, call: Call, operation: Operation, operands: list[fx.Node], signal: Signal
    ) -> Role:
        if signal.kind != "events":
            return _other(signal)
        carriers = tuple(n for n in operands if self.roles[n].signal.kind == "events")
        if signal.mask is not None:
            if bool(signal.mask.all()):
                return _other(ANALOG)
            if not bool(signal.mask.any()):
                signal = replace(signal, mask=None)
        if any(map(self._is_mixed_state, carriers)):
            if signal.mask is not None:
                return _other(signal)
            if len(carriers) == 1:
                return Role("source", signal, call, operation, neuron=Neuron(signed=True))
            return self._unknown(call, carriers, _MIXED)
        folded = operation.shifts(call) or bool(
            operation.merges and self.added(call, operation, operands)
        )
        return Role("routing", signal, call, operation, carriers, folded=folded)

    def _is_mixed_state(self, node: fx.Node) -> bool:
        """Whether it is a part of a state, in which both events and analog values lie."""
        role = self.roles[node]
        return role.kind == "other" and role.signal.kind == "events"

    def _unknown(
        self, call: Call, data: Iterable[fx.Node], reason: str, weighted: bool = False
    ) -> Role:
        carriers = tuple(self._events(data))
        return Role("unknown", EVENTS, call, None, carriers, reason=reason, weighted=weighted)

    def _multiplies(self, call: Call, data: list[fx.Node]) -> bool:
        """Whether a call that no entry covers may multiply events with weights of its own."""
        opaque = any(isinstance(a, torch.ScriptObject) for a in pytree.tree_leaves(call.args))
        tensors = sum(math.prod(shape(n)) > 1 for n in dict.fromkeys(call.operands()))
        return opaque or (tensors > 1 and any(map(self.has_source, self._events(data))))

    def _events(self, nodes: Iterable[fx.Node]) -> list[fx.Node]:
        return [n for n in nodes if self.roles[n].signal.kind == "events"]


def _why_no_entry(call: Call) -> str:
    """Why the entry of an operation does not hold for a call; nothing, if there is no entry."""
    entry = operations.find(call.target, None, None) if call.name else None
    if entry is None:
        return ""
    entry = entry if entry.resolve is None else entry.resolve(call)
    if not call.understood:
        kinds = {type(a).__name__ for a in pytree.tree_leaves((call.args, call.kwargs))}
        return f"its arguments ({', '.join(sorted(kinds - {'Node'}))}) are in no form of its rule"
    return f"its rule does not know of {', '.join(sorted(entry.overlooks(call)))}="


_FRACTIONS = "what it puts out is neither whole numbers nor multiples of one of its arguments"
_DIFFERS = "an earlier forward left in it events that are worth different amounts"
_WITHOUT_VALUES = (
    "an index says where its events go, and has no values (on the meta device). Analyze the model "
    "where its buffers have values"
)
_MIXED = "events and analog values lie in one state of the model's; take them apart first"


def _other(signal: Signal) -> Role:
    return Role("other", signal)


def _may_be_indices(nodes: list[fx.Node]) -> str:
    """What to do if an input of whole numbers holds indices."""
    for node in upstream(nodes):
        dtype = node.meta["spec"].dtype if "spec" in node.meta else torch.float32
        if node.op == "placeholder" and not (dtype.is_floating_point or dtype == torch.bool):
            return f"; if the input '{node.target}' holds indices, input_events=False says so"
    return ""


def _broadcasts(size: tuple[int, ...], out: tuple[int, ...]) -> bool:
    tail = out[len(out) - len(size) :]
    return len(size) <= len(out) and all(n in (1, m) for n, m in zip(size, tail, strict=True))


def _is_one(tensor: Tensor) -> bool:
    return float(tensor.detach()) == 1 if tensor.numel() == 1 else bool((tensor == 1).all())
