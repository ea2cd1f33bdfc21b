"""What the axes of a model's inputs are, where the user has not said it (``layout="auto"``).

Neurons tell: those that know their time axis (sinabs' the second, spikingjelly's in mode "m" the
first), and those that are called once a step. What they say of steps is looked for among the axes
of the input. Where several layouts fit its sizes, the forward is recorded again with more samples
and more steps, and the right one is that by which the neurons see just these.

    of_inputs(…)  →  a layout, with what tells it (``said``), or that the steps are not known
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx

from fxsynops import neurons
from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.signals import Role, Signals
from fxsynops.errors import InputError
from fxsynops.neurons.dynamics import Steps
from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import as_dense
from fxsynops.tracing import graph_functions
from fxsynops.tracing.graph_walk import reachable
from fxsynops.tracing.inputs import Inputs, Layout, Window
from fxsynops.tracing.trace import Trace

Places = dict[Any, list[fx.Node]]
_Group = tuple[Any, list[tuple[fx.Node, Role]]]  # what drives a neuron, and its calls
_Calls = tuple[Any, list[fx.Node], Role]
_UNKNOWN = (
    "Steps unknown: the whole pass counted as one, with the samples in front ({}). Pass layout= or "
    "timesteps= if it is otherwise."
)


@dataclass(frozen=True)
class _Sign:
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


def of_inputs(
    given: Layout,
    inputs: Inputs,
    recorded: Trace,
    signals: Signals,
    again: Callable[[Inputs], Trace],
) -> Layout:
    """The layout of some inputs, as the model's neurons tell it.

    Args:
        given: what the user said of samples and steps, without a layout.
        inputs: of the recorded forward.
        recorded, signals: the forward.
        again: records the forward of other inputs.

    Raises:
        InputError: what the user said contradicts the inputs.
    """
    plain = replace(given, auto=False)
    signs = list(_signs(recorded, signals))
    why = _contradiction(signs)
    if why:
        unknown = replace(plain, said=_UNKNOWN.format(why), known=False, open=not signs)
        return plain if given.timesteps else unknown
    sign = next((sign for sign in signs if sign.axis is not None), signs[0])
    if given.timesteps not in (None, sign.steps):
        return plain  # what the user says holds, or is found to be wrong
    fit = list(_fitting(plain, inputs, signs))
    alone = fit if len(fit) == 1 and recorded.branches else []  # another way is no proof
    fit = alone or _proven(fit, inputs, signals, signs, again)
    windows = {layout.window(inputs) for layout in fit}
    if len(windows) != 1:
        if given.batch_size or given.timesteps:
            return plain
        why = f"{sign.name} sees {sign.steps}, but it cannot be told where the input has them"
        return replace(plain, said=_UNKNOWN.format(why), known=False)
    return replace(fit[0], said=_said(fit[0], inputs, sign))


def _contradiction(signs: Sequence[_Sign]) -> str:
    """Why the signs do not tell the number of steps, if they do not."""
    if not signs:
        return "nothing tells how many there are"
    if (odd := next((sign for sign in signs if not sign.steps), None)) is not None:
        return f"{odd.name} is called several times, and not step by step"
    steps = {sign.steps for sign in signs if sign.sure} or {sign.steps for sign in signs}
    odd = next((sign for sign in signs if sign.steps not in steps or len(steps) > 1), None)
    if odd is None:
        return ""
    other = next(sign for sign in signs if sign.steps != odd.steps)
    return f"{odd.name} sees {odd.steps}, {other.name} {other.steps}"


def recounted(layout: Layout, recorded: Trace, signals: Signals, inputs: Inputs) -> Layout:
    """The same for another forward, whose loops may take another number of steps."""
    if not layout.said:
        return layout
    signs = list(_signs(recorded, signals))
    if not layout.known:  # perhaps a loop that has run only once in the example
        if not layout.open or _contradiction(signs) or layout.axes != "N":
            return layout
        fit = list(_fitting(layout, inputs, signs))
        static = len(fit) == 1 and fit[0].axes == "N"
        return replace(layout, timesteps=fit[0].timesteps) if static else layout
    steps = {sign.steps for sign in signs if sign.sure} or {sign.steps for sign in signs} or {1}
    if "T" in layout.axes:
        there = layout.window(inputs).timesteps
        return layout if steps == {there} or not signs else replace(layout, known=False)
    if len(steps) == 1 and 0 not in steps:
        return replace(layout, timesteps=steps.pop())
    return replace(layout, timesteps=None, known=False)


def steps_seen(layout: Layout, recorded: Trace, signals: Signals, window: Window) -> list[str]:
    """What neurons see, if a user says another number of steps.

    Raises:
        InputError: a number was said that theirs is no multiple of.
    """
    if layout.said or layout.by_step or window.timesteps == 1:
        return []
    signs = [sign for sign in _signs(recorded, signals) if sign.steps > 1]
    steps = {sign.steps for sign in signs}
    if len(steps) != 1 or steps == {window.timesteps}:
        return []
    sign = next((sign for sign in signs if sign.sure), signs[0])
    seen = f"{sign.name} sees {sign.steps} steps"
    if "T" in layout.axes:
        return [f"{seen}, and layout {layout.axes!r}, which was passed, has {window.timesteps}."]
    if sign.steps % window.timesteps == 0:
        often = sign.steps // window.timesteps
        return [f"{seen}, of which {often} are taken for one (timesteps=)."]
    if sign.sure:
        raise InputError(
            f"timesteps={window.timesteps}, but {seen}. Pass timesteps={sign.steps}, or nothing."
        )
    return [f"{seen}, and timesteps={window.timesteps} was passed."]


def _said(layout: Layout, inputs: Inputs, sign: _Sign) -> str:
    """What was found, and how."""
    steps = f"{sign.steps} step{'s' * (sign.steps != 1)}"
    if "T" not in layout.axes:
        if sign.axis is not None:
            return f"{steps}: {sign.name} sees them, of an input without."
        if sign.steps == 1:
            more = ' (layout="step", if a sample has more forwards)' if sign.sure else ""
            return f"{steps}: {sign.name} is called once{more}."
        return f"{steps}: {sign.name} is called {sign.steps * sign.starts} times."
    name, x = layout.first(inputs)
    assert x is not None
    reads = "reads it" if sign.axis is not None else "is called"
    what = "with the samples " if layout.merged else ""
    return f"{steps}: axis {layout.place('T', x.dim())} of '{name}', {what}as {sign.name} {reads}."


# -- what neurons say ----------------------------------------------------------------------------


def _signs(recorded: Trace, signals: Signals) -> Iterator[_Sign]:
    order = order_of(recorded)
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
        found[key, driver_of(node, signals, order)].append((node, role))
    groups: list[_Group] = []
    for (_, driver), members in found.items():
        calls = [m for m in members if not _is_idle(m[0], signals)] or members
        if calls[0][1].module is not None or len(calls) == 1:
            groups.append((driver, calls))
            continue
        for emits in (True, False):
            alike = [call for call in calls if _emits(call[0], signals) is emits]
            groups += [(driver, part) for part in _by_synapses(alike, signals)]
    places = places_of(recorded)
    joined = list(_joined(groups, places, signals))
    use = {id(nodes): _emits(nodes[0], signals) for _, nodes, _ in joined}
    shares = Counter(
        (use[id(ns)], place) for _, ns, _ in joined for place in set(map(place_of, ns))
    )
    for driver, nodes, role in joined:
        emits = use[id(nodes)]
        if role.module is None and all(shares[emits, place_of(node)] == 1 for node in nodes):
            every = {n for node in nodes for n in places[place_of(node)]}
            before = {n for n in every.difference(nodes) if signals.roles[n].kind != "source"}
            same = {n for n in before if _emits(n, signals) is emits}  # before any data has come
            nodes = sorted({*nodes, *same}, key=order.__getitem__)
        sign = _sign(nodes, role, driver, signals)
        if sign is not None:
            passes = sum(len(places[place]) for place in sign.places)
            yield replace(sign, shared=passes / len(nodes))


def _is_idle(node: fx.Node, signals: Signals) -> bool:
    """Whether a neuron is called with a constant, and nobody looks at what it does with it."""
    origin, _ = origin_of(node)
    users = [user for part in origin.users for user in (part.users or [part])]
    looked_at = [user for user in users if user.users or user.op == "output"]
    given = [signals.roles[n].signal.kind for n in origin.all_input_nodes if n in signals.roles]
    return set(given) == {"const"} and not looked_at


def _emits(node: fx.Node, signals: Signals) -> bool:
    """Whether what a neuron puts out goes anywhere as events; of a reset, it does not."""

    def ahead(at: fx.Node) -> Sequence[fx.Node]:
        role = signals.roles.get(at)
        ends = role is not None and (role.counted or role.signal.kind == "analog")
        return () if ends and at is not node else tuple(at.users)

    behind = (at for at in reachable([node], ahead) if at is not node)
    roles = ((at.op, signals.roles.get(at)) for at in behind)
    return any(op == "output" or (role is not None and role.counted) for op, role in roles)


def _by_synapses(
    calls: list[tuple[fx.Node, Role]], signals: Signals
) -> list[list[tuple[fx.Node, Role]]]:
    """Those of a function's calls whose events reach other synapses than the rest's are apart.

    On a stream of membranes, each layer takes over what the one before has left, as a step does.
    """
    parts: list[tuple[set[Any], list[tuple[fx.Node, Role]]]] = []
    for call in calls:
        reached, together = set(_synapses_behind(call[0], signals)), [call]
        for part in [p for p in parts if not reached or not p[0] or p[0] & reached]:
            parts.remove(part)
            reached, together = reached | part[0], part[1] + together
        parts.append((reached, together))
    return [part for _, part in parts]


def _synapses_behind(node: fx.Node, signals: Signals) -> Iterator[Any]:
    """The synapses that a neuron's events reach, by their weights, or where they are."""

    def ahead(at: fx.Node) -> Sequence[fx.Node]:
        role = signals.roles.get(at)
        ends = role is not None and (role.counted or role.kind == "source")
        return () if ends and at is not node else tuple(at.users)

    for at in reachable([node], ahead):
        role = signals.roles.get(at)
        if at is not node and role is not None and role.counted:
            weight = None if role.synapse is None else role.synapse.weight
            if weight is not None and weight.op == "get_attr":
                yield weight.target
            else:  # computed, in each step anew
                yield place_of(at)


def _joined(groups: Iterable[_Group], places: Places, signals: Signals) -> Iterator[_Calls]:
    """The calls of each neuron; of a function's, also where the first step is written apart."""

    def may_be_one(earlier: fx.Node, later: fx.Node) -> bool:
        here, there = place_of(earlier), place_of(later)
        if here != there and not len(places[here]) == 1 < len(places[there]):
            return False
        return _emits(earlier, signals) is _emits(later, signals)

    found: list[tuple[Any, list[fx.Node], Role]] = []
    for driver, members in groups:
        nodes, role = [node for node, _ in members], members[0][1]
        for known in found if role.module is None else ():
            _, earlier, other = known
            alike = other.module is None and _kind_of(earlier[0]) == _kind_of(nodes[0])
            alike = alike and may_be_one(earlier[0], nodes[0])
            if alike and _goes_on_from(nodes[0], earlier, signals):
                earlier += nodes
                break
        else:
            found.append((driver, nodes, role))
    yield from found


def _kind_of(node: fx.Node) -> Any:
    """What a function's calls have in common, wherever they are written."""
    op, target, site, path, virtual = place_of(node)
    return op, target, site and site[0], path, virtual, tuple(shape(node))


def _goes_on_from(node: fx.Node, earlier: list[fx.Node], signals: Signals) -> bool:
    """Whether a spiking function's call takes over a state that earlier ones have left: a reset."""
    calls = {origin_of(n)[0] for n in earlier}

    def back(at: fx.Node) -> Sequence[fx.Node]:
        role = signals.roles.get(at)
        fires = role is not None and (role.counted or role.kind == "source")
        return () if fires and at is not node else at.all_input_nodes

    return any(origin_of(at)[0] in calls for at in reachable([node], back))


def _sign(nodes: list[fx.Node], role: Role, driver: Any, signals: Signals) -> _Sign | None:
    """What the calls that one synapse drives say, if they say anything."""
    size = tuple(shape(nodes[0]))
    where = role.steps(size)
    named = _name(nodes[0], role), tuple(dict.fromkeys(map(place_of, nodes)))
    if where is not None and where.axis is not None:
        if len(nodes) > 1:  # pieces of a sample, or several layers
            return _Sign(*named, 0, size)
        samples, steps = _seen(where, size)
        keeps: Literal["", "N", "T"] = ""
        if where.samples is not None:
            longer = role.steps((2 * size[0], *size[1:]))
            keeps = "N" if longer is None or longer.samples == where.samples else "T"
        return _Sign(*named, steps, size, where, samples, keeps)
    if len(nodes) == 1:
        return None if where is None else _Sign(*named, 1, size)
    starts = _starts(nodes, role, driver, signals)
    if role.module is None and starts == len(nodes):
        return None  # a function without a state
    steps = len(nodes) // starts if len(nodes) % starts == 0 else 0
    return _Sign(*named, steps, size, sure=where is not None, starts=starts)


def _seen(where: Steps, size: Sequence[int]) -> tuple[int, int]:
    """Samples and steps of a neuron's value."""
    first = where.split(torch.empty(*size, device="meta"))
    if where.samples is not None:
        return where.samples, len(first)
    return (first.shape[1] if first.dim() > 1 else 1), len(first)


def driver_of(node: fx.Node, signals: Signals, order: dict[fx.Node, int]) -> Any:
    """The place of the synapse that drives a node: of the last ones before it, the first."""
    found: list[fx.Node] = []

    def back(at: fx.Node) -> Sequence[fx.Node]:
        role = signals.roles.get(at)
        if at is not node and role is not None and (role.counted or role.kind == "source"):
            found.append(at)
            return ()
        return at.all_input_nodes

    for _ in reachable([node], back):
        pass
    synapses = [at for at in found if signals.roles[at].counted]
    return place_of(min(synapses, key=order.__getitem__)) if synapses else None


def _starts(nodes: list[fx.Node], role: Role, driver: Any, signals: Signals) -> int:
    """How many of the calls take over no state of one before them."""
    calls = [origin_of(node)[0] for node in nodes]
    known = {call: i for i, call in enumerate(calls)}
    read: dict[fx.Node, int] = {}  # what was compared with a threshold, say: a membrane
    for i, call in enumerate(calls if role.module is None else ()):
        for node in call.all_input_nodes:
            read[node] = -1 if node in read else i

    def goes_on(number: int) -> bool:
        def back(at: fx.Node) -> Sequence[fx.Node]:
            at_role = signals.roles.get(at)
            if at_role is None or at is nodes[number] or origin_of(at)[0] in known:
                return at.all_input_nodes
            ends = at_role.kind == "source" or (at_role.counted and place_of(at) == driver)
            return () if ends else at.all_input_nodes

        own = calls[number].all_input_nodes
        return any(
            known.get(at, number) < number or (at not in own and 0 <= read.get(at, -1) < number)
            for at in reachable([calls[number]], back)
        )

    chained = [goes_on(number) for number in range(1, len(calls))]
    if role.module is None or any(chained) or len(calls[0].all_input_nodes) > 1:
        return 1 + chained.count(False)
    return 1 + _resets(calls, role.module)  # the states are inside of the module


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


# -- which axes of the input these are -----------------------------------------------------------


def _fitting(plain: Layout, inputs: Inputs, signs: Sequence[_Sign]) -> Iterator[Layout]:
    """The layouts whose numbers of samples and steps, by the sizes of the input, fit."""
    steps, merged = signs[0].steps, next((sign for sign in signs if sign.keeps), None)
    static = replace(plain, timesteps=plain.timesteps or steps)
    x = static.first(inputs)[1]
    if x is None:
        return
    inner = ["N" + "C" * (axis - 1) + "T" for axis in range(2, x.dim() - 1)]
    if x.dim() > 2:
        inner.append("N…T")
    found = [replace(plain, axes=axes) for axes in ("NT", "TN", "T", *inner)]
    fixed: dict[str, Any] = {"timesteps": steps}
    if merged is not None and merged.keeps == "N":
        fixed = {"batch_size": merged.samples}
    knows = [sign.axis for sign in (merged, *signs) if sign is not None and sign.axis is not None]
    orders = ["(NT)", "(TN)"] if not knows else ["(NT)" if knows[0].axis else "(TN)"]
    found += [replace(plain, axes=axes, **fixed) for axes in orders]
    for layout in (*found, static, replace(static, axes="")):
        with suppress(InputError, IndexError):
            window = layout.window(inputs)
            single = layout.axes == "" and x.dim() > 1
            if single and any(sign.samples is None for sign in signs):
                continue  # of samples that are looped over, perhaps
            if window.timesteps == steps and all(_may_see(sign, window, x) for sign in signs):
                yield layout


def _may_see(sign: _Sign, window: Window, x: Tensor) -> bool:
    """Whether a neuron's value is of so many samples, by its size."""
    if sign.samples is not None:
        return sign.samples == window.samples
    return window.samples == 1 or (window.samples in sign.size and x.dim() > 1)


def _proven(
    fit: list[Layout],
    inputs: Inputs,
    signals: Signals,
    signs: Sequence[_Sign],
    again: Callable[[Inputs], Trace],
) -> list[Layout]:
    """Those of some layouts that most speaks for."""
    trials = _Trials(inputs, signs, again)
    worth: dict[Layout, int] = {}
    if len(fit) == 1 and signs[0].steps == 1:
        return fit  # nothing depends on it
    for layout in fit:
        worth[layout] = trials.worth(layout)
        if worth[layout] == 3:  # no other one holds for the same recording
            return [layout]
        if worth[layout] >= 0 and is_read(layout, inputs, signals, signs[0].steps):
            worth[layout] += 3 if worth[layout] else 1
    if len(fit) == 1:  # and if nothing can be tried out, by its sizes
        return fit if worth[fit[0]] >= 0 else []
    most = max(worth.values(), default=0)
    return [layout for layout in fit if worth[layout] == most > 0]


class _Trials:
    """The forward, recorded again for other numbers of samples and steps.

    Args:
        inputs, signs: of the forward, and what its neurons say.
        again: records the forward of other inputs.
    """

    def __init__(
        self, inputs: Inputs, signs: Sequence[_Sign], again: Callable[[Inputs], Trace]
    ) -> None:
        self._inputs, self._signs, self._again = inputs, signs, again
        self._known: dict[Any, Places | None] = {}

    def worth(self, layout: Layout) -> int:
        """Whether the neurons see the samples and steps of other inputs, as a layout says.

        3 if they see both, 2 if the only number that can be changed, 1 if the number of samples of
        an input with steps, 0 if nothing can be changed, -1 if they do not.
        """
        window = layout.window(self._inputs)
        x = layout.first(self._inputs)[1]
        assert x is not None
        fresh = [size for size in range(2, 7) if size not in (window.samples, window.timesteps)]
        if layout.merged:
            n, t = fresh[:2]
        else:  # by place: layouts that exchange samples and steps share a recording
            places = (layout.place(axis, x.dim()) for axis in "NT")
            n, t = (fresh[min(at or 0, 2)] for at in places)
        keeps = {sign.keeps for sign in self._signs}
        both = [(n, t)] if {"N", "T"} <= set(layout.order) and keeps == {""} else []
        one = [(window.samples, window.timesteps + 1), (n, window.timesteps)]
        found = 0
        for samples, steps in (*both, *one):
            now, places_now = self._places(layout, window, samples, steps)
            if not places_now:
                continue
            if all(sign.holds(places_now, window, now) for sign in self._signs):
                if "T" in layout.axes and steps == window.timesteps and "N" not in keeps:
                    return 1
                if both and self._signs[0].axis is not None and (samples, steps) not in both:
                    return -1  # what seem to be samples may be features of a single one
                return 3 if (samples, steps) in both else 2
            found = -1
        return found

    def _places(
        self, layout: Layout, window: Window, samples: int, steps: int
    ) -> tuple[Window, Places | None]:
        """The recorded forward of so many samples and steps; None if there is none."""
        other, changed, now = layout, self._inputs, window
        with suppress(Exception):  # a model of fixed size
            for axis, size in (("N", samples), ("T", steps)):
                other, changed = other.resized(changed, now, axis, size)
                now = other.window(changed)
            key = tuple((name, tuple(t.shape)) for name, t in changed.tensors())
            if changed is not self._inputs and key not in self._known:
                self._known[key] = None
                self._known[key] = places_of(self._again(changed))
            return now, self._known.get(key)
        return now, None


def is_read(layout: Layout, inputs: Inputs, signals: Signals, steps: int) -> bool:
    """Whether the forward reads the input step by step, along the layout's axis of steps."""
    return len(set(pieces(layout, inputs, signals).values())) == steps > 1


def pieces(layout: Layout, inputs: Inputs, signals: Signals) -> dict[fx.Node, int]:
    """Where single steps are taken out of the input, and which."""
    name, x = layout.first(inputs)
    axis = None if x is None else layout.place("T", x.dim())
    if x is None or axis is None or layout.merged:
        return {}
    found = {}
    for node in signals.roles:
        if node.op == "placeholder" and node.target == name:
            for user in node.users:
                parts = [user] if user in signals.roles else list(user.users)  # of a tuple
                for part in parts:
                    for key in _taken(signals.calls[part][0], axis, x.dim()):
                        found[part] = key % x.shape[axis]
    return found


def _taken(call: Call, axis: int, rank: int) -> Iterator[int]:
    """The places along an axis that a call picks out of its operand."""
    args = call.args
    if call.name == "getitem":
        key: Any = args[1] if isinstance(args[1], tuple) else (args[1],)
        if key[:1] == (...,):  # [..., t]
            key = (*[slice(None)] * (rank - len(key) + 1), *key[1:])
        whole = all(part == slice(None) for part in key[:axis])
        if len(key) > axis and whole and isinstance(key[axis], int):
            yield key[axis]
    elif call.name == "select" and args[1:2] == (axis,) and isinstance(args[2], int):
        yield args[2]
    elif call.name == "unbind" and (args[1] if len(args) > 1 else 0) == axis:
        yield call.output or 0


def order_of(trace: Trace) -> dict[fx.Node, int]:
    """The nodes of a graph by their numbers."""
    return {node: i for i, node in enumerate(trace.graph.nodes)}


def takes_steps(trace: Trace, signals: Signals, steps: int) -> bool:
    """Whether some neuron is called once for each of so many steps."""
    return any(s.axis is None and s.steps == steps > 1 for s in _signs(trace, signals))


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


# -- which inputs carry events -------------------------------------------------------------------

_SMALL = 128  # of event frames; images go up to 255


def carries_events(tensors: Sequence[Tensor], graded: bool) -> tuple[bool, str]:
    """Whether inputs seem to be events, and what tells it.

    Args:
        tensors: all of one argument.
        graded: whether every value that is not zero counts one.
    """
    if graded:
        return True, "each value that is not zero counts one"
    most = 0.0
    for tensor in tensors:
        if tensor.is_meta or isinstance(tensor, torch._subclasses.FakeTensor):
            return True, "no values to look at"
        if tensor.is_complex():
            return False, "complex numbers"
        values = as_dense(tensor.detach()).double().flatten()
        values = values[torch.isfinite(values)]
        if len(fractions := values[values != values.round()]):
            return False, f"fractions, such as {float(fractions[0]):.4g}"
        if len(values):
            most = max(most, float(values.abs().max()))
    if most >= _SMALL:
        return False, f"whole numbers, but as large as {most:g}"
    return True, f"whole numbers up to {most:g}"
