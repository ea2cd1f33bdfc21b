"""What the axes of a model's inputs are, where the user has not said it (``layout="auto"``).

Neurons tell: those that know their time axis (sinabs' the second, spikingjelly's in mode "m" the
first), and those that are called once a step. What they say of steps is looked for among the axes
of the input. Where several layouts fit its sizes, the forward is recorded again with more samples
and more steps, and the right one is that by which the neurons see just these.

    of_inputs(…)  →  a layout, with what tells it (``said``), or that the steps are not known
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from fxsynops import neurons
from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.signals import Role, Signals
from fxsynops.errors import InputError
from fxsynops.neurons.dynamics import Steps
from fxsynops.operations.call import Call, shape
from fxsynops.tracing.graph_walk import reachable, upstream
from fxsynops.tracing.inputs import Inputs, Layout, Window
from fxsynops.tracing.trace import Trace

Places = dict[Any, list[fx.Node]]
_UNKNOWN = (
    "Steps unknown: the whole pass counted as one ({}). Pass layout= or timesteps= if it has more."
)


@dataclass(frozen=True)
class _Sign:
    """What the calls of one spiking node say about steps.

    Attributes:
        name: of the node, and of its kind: "IAF '1'".
        places: where in the code its values come from.
        steps: how many it sees.
        axis: where each call has them; None: each call is one step.
        samples: how many samples it sees; None if that is not known.
        sure: whether the library says so.
    """

    name: str
    places: tuple[Any, ...]
    steps: int
    axis: Steps | None
    samples: int | None
    sure: bool

    def holds(self, places: Places, before: Window, now: Window) -> bool:
        """Whether it sees as many samples and steps as another forward has."""
        nodes = [node for place in self.places for node in places.get(place, ())]
        if not nodes:
            return False
        size = tuple(shape(nodes[0]))
        if self.axis is None:
            grows = now.samples == before.samples or now.samples in size
            return len(nodes) == now.timesteps and grows
        with suppress(RuntimeError):
            return _seen(self.axis, size) == (now.samples, now.timesteps)
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
    steps = {sign.steps for sign in signs if sign.sure} or {sign.steps for sign in signs}
    odd = next((sign for sign in signs if sign.steps not in steps or len(steps) > 1), None)
    if not signs or odd is not None:
        why = "nothing tells how many there are"
        if odd is not None:
            other = next(sign for sign in signs if sign.steps != odd.steps)
            why = f"{odd.name} sees {odd.steps}, {other.name} {other.steps}"
        return plain if given.timesteps else replace(plain, said=_UNKNOWN.format(why), known=False)
    sign = next((sign for sign in signs if sign.axis is not None), signs[0])
    fit = list(_fitting(plain, inputs, sign, signs))
    if len(fit) > 1:
        worth = {layout: _proof(layout, inputs, signs, again) for layout in fit}
        for layout in fit:
            if is_read(layout, inputs, signals, sign.steps):
                worth[layout] += 3 if worth[layout] else 1
        most = max(worth.values())
        fit = [layout for layout in fit if worth[layout] == most > 0]
    windows = {layout.window(inputs) for layout in fit}
    if len(windows) != 1:
        if given.batch_size or given.timesteps:
            return plain
        why = f"{sign.name} sees {sign.steps}, but it cannot be told where the input has them"
        return replace(plain, said=_UNKNOWN.format(why), known=False)
    return replace(fit[0], said=_said(fit[0], inputs, sign))


def recounted(layout: Layout, recorded: Trace, signals: Signals) -> Layout:
    """The same for another forward, whose loops may take another number of steps."""
    if not layout.said or not layout.known or "T" in layout.axes or layout.timesteps is None:
        return layout
    signs = list(_signs(recorded, signals))
    steps = {sign.steps for sign in signs if sign.sure} or {sign.steps for sign in signs} or {1}
    if len(steps) == 1:
        return replace(layout, timesteps=steps.pop())
    return replace(layout, timesteps=None, known=False)


def _said(layout: Layout, inputs: Inputs, sign: _Sign) -> str:
    """What was found, and how."""
    steps = f"{sign.steps} step{'s' * (sign.steps != 1)}"
    if "T" not in layout.axes:
        if sign.axis is not None:
            return f"{steps}: {sign.name} sees them, of an input without."
        often = "once" if sign.steps == 1 else f"{sign.steps} times"
        return f"{steps}: {sign.name} is called {often}."
    name, x = layout.first(inputs)
    assert x is not None
    reads = "reads it" if sign.axis is not None else "is called"
    what = "with the samples " if layout.merged else ""
    return f"{steps}: axis {layout.place('T', x.dim())} of '{name}', {what}as {sign.name} {reads}."


# -- what neurons say ----------------------------------------------------------------------------


def _signs(recorded: Trace, signals: Signals) -> Iterator[_Sign]:
    groups: dict[Any, list[tuple[fx.Node, Role]]] = defaultdict(list)
    seen: set[fx.Node] = set()
    for node, role in signals.roles.items():
        origin, _ = origin_of(node)
        if not origin.op.startswith("call") or "virtual" in node.meta:
            continue
        module = signals.calls.module(origin)
        if role.kind != "source":  # a filter, say, may know its time axis, too
            neuron = None if module is None else neurons.describe(module)
            if neuron is None or neuron.steps is None or neuron.spikes or origin in seen:
                continue
            seen.add(origin)
            role = replace(role, module=module, neuron=neuron)
        key = place_of(node) if role.module is None else id(role.module)
        groups[key].append((node, role))
    for members in groups.values():
        nodes, role = [node for node, _ in members], members[0][1]
        places = tuple(dict.fromkeys(map(place_of, nodes)))
        where = _steps(role, nodes[0])
        if where is not None and where.axis is not None:
            if len(nodes) == 1:
                samples, steps = _seen(where, tuple(shape(nodes[0])))
                yield _Sign(_name(nodes[0], role), places, steps, where, samples, True)
        elif len(nodes) == 1:
            if where is not None:
                yield _Sign(_name(nodes[0], role), places, 1, None, None, True)
        elif _is_loop(nodes, role, signals):
            name = _name(nodes[0], role)
            yield _Sign(name, places, len(nodes), None, None, where is not None)


def _steps(role: Role, node: fx.Node) -> Steps | None:
    """Where a neuron that knows it has its time steps."""
    if role.neuron is None or role.neuron.steps is None:
        return None
    with suppress(Exception):  # of a release that has no such attribute
        return role.neuron.steps(role.module, tuple(shape(node)))
    return None


def _seen(where: Steps, size: Sequence[int]) -> tuple[int, int]:
    """Samples and steps of a neuron's value."""
    first = where.split(torch.empty(*size, device="meta"))
    if where.samples is not None:
        return where.samples, len(first)
    return (first.shape[1] if first.dim() > 1 else 1), len(first)


def _is_loop(nodes: list[fx.Node], role: Role, signals: Signals) -> bool:
    """Whether the same place is passed step by step, and not by one layer after the other.

    The same synapses drive every pass; and a function has a state that is handed on.
    """
    first, second, last = (_drivers(nodes[i], signals) for i in (0, 1, -1))
    if not first <= second or not (second == last or len(nodes) == 2):
        return False
    if role.module is not None:
        return True
    before = {node for node in nodes[0].all_input_nodes if node.op != "get_attr"}
    return any(node in before for node in upstream([nodes[1]]))


def _drivers(node: fx.Node, signals: Signals) -> set[Any]:
    """The places of the last synapses before a node."""
    found = set()

    def back(at: fx.Node) -> Sequence[fx.Node]:
        role = signals.roles.get(at)
        if at is not node and role is not None and role.counted:
            found.add(place_of(at))
            return ()
        return at.all_input_nodes

    for _ in reachable([node], back):
        pass
    return found


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


def _fitting(
    plain: Layout, inputs: Inputs, sign: _Sign, signs: Sequence[_Sign]
) -> Iterator[Layout]:
    """The layouts whose numbers of samples and steps, by the sizes of the input, fit."""
    static = replace(plain, timesteps=plain.timesteps or sign.steps)
    x = static.first(inputs)[1]
    if x is None:
        return
    inner = ["N" + "C" * (axis - 1) + "T" for axis in range(2, x.dim() - 1)]
    if x.dim() > 2:
        inner.append("N…T")
    found = [replace(plain, axes=axes) for axes in ("NT", "TN", "T", *inner)]
    for merged in ("(NT)", "(TN)"):
        where = next((s.axis for s in signs if s.axis and s.axis.samples is not None), None)
        own = where or sign.axis
        if own is not None and (own.axis == 0) == (merged == "(TN)"):
            fixed = {"batch_size": sign.samples} if where else {"timesteps": sign.steps}
            found.append(replace(plain, axes=merged, **fixed))
    for layout in (*found, static, replace(static, axes="")):
        with suppress(InputError, IndexError):
            window = layout.window(inputs)
            samples = [s.samples for s in signs if s.samples is not None]
            fits = all(n == window.samples for n in samples)
            unknown = not samples and layout.axes in ("", "T")  # of which no neuron speaks
            if window.timesteps == sign.steps and fits and not unknown:
                yield layout


def _proof(
    layout: Layout, inputs: Inputs, signs: Sequence[_Sign], again: Callable[[Inputs], Trace]
) -> int:
    """Whether neurons see the samples and steps of other inputs, as the layout says.

    2 if they do, 1 if only the number of samples can be changed, 0 if it is not so, or not known.
    """
    window = layout.window(inputs)
    n = next(n for n in (2, 3, 4) if n not in (window.samples, window.timesteps))
    t = next(
        t
        for t in range(window.timesteps + 1, n + window.timesteps + 3)
        if t not in (n, window.samples)
    )
    fixed = any(sign.axis is not None and sign.axis.samples is not None for sign in signs)
    tries = [(n, t), (window.samples, t), (n, window.timesteps)]
    for samples, steps in tries[1:] if fixed else tries:
        other, changed = layout, inputs
        for axis, size in (("N", samples), ("T", steps)):
            now = other.window(changed)
            other, changed = other.resized(changed, now, axis, size)
        if changed is inputs:
            continue
        with suppress(Exception):  # a model of fixed size
            now = other.window(changed)
            places = places_of(again(changed))
            if all(sign.holds(places, window, now) for sign in signs):
                return 1 if "T" in layout.axes and steps == window.timesteps else 2
    return 0


def is_read(layout: Layout, inputs: Inputs, signals: Signals, steps: int) -> bool:
    """Whether the forward reads the input step by step, along the layout's axis of steps."""
    name, x = layout.first(inputs)
    axis = None if x is None else layout.place("T", x.dim())
    if axis is None or layout.merged:
        return False
    taken = set()
    for node in signals.roles:
        if node.op == "placeholder" and node.target == name:
            calls = (signals.calls[user][0] for user in node.users if user in signals.roles)
            taken |= {key for call in calls for key in _taken(call, axis)}
    return len(taken) == steps > 1


def _taken(call: Call, axis: int) -> Iterator[int]:
    """The places along an axis that a call picks out of its operand."""
    args = call.args
    if call.name == "getitem":
        key: Any = args[1] if isinstance(args[1], tuple) else (args[1],)
        whole = all(part == slice(None) for part in key[:axis])
        if len(key) > axis and whole and isinstance(key[axis], int):
            yield key[axis]
    elif call.name == "select" and args[1:2] == (axis,) and isinstance(args[2], int):
        yield args[2]
    elif call.name == "unbind" and (args[1] if len(args) > 1 else 0) == axis:
        yield call.output or 0


def place_of(node: fx.Node) -> Any:
    """Where in the code a value comes from."""
    origin, path = origin_of(node)
    site = origin.meta.get("site")
    place = None if site is None else (site.module, site.code)
    target = origin.target if isinstance(origin.target, str) else str(origin.target)
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
        values = tensor.detach()
        if values.is_quantized:
            values = values.dequantize()
        if values.layout is not torch.strided:
            values = values.to_dense()
        values = values.double().flatten()
        values = values[torch.isfinite(values)]
        if len(fractions := values[values != values.round()]):
            return False, f"fractions, such as {float(fractions[0]):.4g}"
        if len(values):
            most = max(most, float(values.abs().max()))
    if most >= _SMALL:
        return False, f"whole numbers, but as large as {most:g}"
    return True, f"whole numbers up to {most:g}"
