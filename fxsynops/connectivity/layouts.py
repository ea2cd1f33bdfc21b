"""What the axes of a model's inputs are, where the user has not said it (``layout="auto"``).

Neurons tell: those that know their time axis (sinabs' the second, spikingjelly's in mode "m" the
first), and those that are called once a step. What they say of steps is looked for among the axes
of the input. Where several layouts fit its sizes, the forward is recorded again with more samples
and more steps, and the right one is that by which the neurons see just these.

    of_inputs(…)  →  a layout, with what tells it (``said``), or that the steps are not known
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from fxsynops.connectivity.signals import Signals
from fxsynops.connectivity.signs import Places, Sign, places_of, signs_of
from fxsynops.errors import InputError
from fxsynops.operations.call import Call
from fxsynops.operations.operation import as_dense
from fxsynops.tracing.inputs import Inputs, Layout, Window
from fxsynops.tracing.trace import Trace

_UNKNOWN = (
    "Steps unknown: the whole pass counted as one, with the samples in front ({}). Pass layout= or "
    "timesteps= if it is otherwise."
)


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
    signs = list(signs_of(recorded, signals))
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
    if (why := _doubt(fit[0], inputs, signals, sign)) and not given.timesteps:
        return replace(plain, said=_UNKNOWN.format(why), known=False)
    return replace(fit[0], said=_said(fit[0], inputs, sign))


def _doubt(layout: Layout, inputs: Inputs, signals: Signals, sign: Sign) -> str:
    """What speaks against calls that are as many as a layout's steps, if anything does."""
    name, x = layout.first(inputs)
    if x is None or sign.axis is not None:
        return ""
    if sign.starts > 1 and layout.window(inputs).samples == 1 and sign.starts in x.shape:
        return f"{sign.name} begins anew {sign.starts} times, perhaps with each sample"
    for axes in ("NT", "TN") if "T" not in layout.axes and x.dim() > 1 else ():
        taken = set(pieces(replace(layout, axes=axes, timesteps=None), inputs, signals).values())
        size = x.shape[axes.index("T")]
        if sign.starts > 1 and size == len(taken) == sign.starts * sign.steps:
            return f"{sign.name} begins anew {sign.starts} times in {size} parts of '{name}'"
        if 1 < size == len(taken) < sign.steps and sign.steps % size == 0:
            often = sign.steps // size
            return f"{sign.name} is called {often} times for each of {size} parts of '{name}'"
    return ""


def _contradiction(signs: Sequence[Sign]) -> str:
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
    signs = list(signs_of(recorded, signals))
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
    signs = [sign for sign in signs_of(recorded, signals) if sign.steps > 1]
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


def _said(layout: Layout, inputs: Inputs, sign: Sign) -> str:
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


# -- which axes of the input these are -----------------------------------------------------------


def _fitting(plain: Layout, inputs: Inputs, signs: Sequence[Sign]) -> Iterator[Layout]:
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
    if steps > 1 or merged is not None:  # of one step, it is the axis of samples
        found += [replace(plain, axes=axes, **fixed) for axes in orders]
    for layout in (*found, static, replace(static, axes="")):
        with suppress(InputError, IndexError):
            window = layout.window(inputs)
            single = layout.axes == "" and x.dim() > 1
            if single and any(sign.samples is None for sign in signs):
                continue  # of samples that are looped over, perhaps
            if window.timesteps == steps and all(_may_see(sign, window, x) for sign in signs):
                yield layout


def _may_see(sign: Sign, window: Window, x: Tensor) -> bool:
    """Whether a neuron's value is of so many samples, by its size."""
    if sign.samples is not None:
        return sign.samples == window.samples
    return window.samples == 1 or (window.samples in sign.size and x.dim() > 1)


def _proven(
    fit: list[Layout],
    inputs: Inputs,
    signals: Signals,
    signs: Sequence[Sign],
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
        self, inputs: Inputs, signs: Sequence[Sign], again: Callable[[Inputs], Trace]
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
