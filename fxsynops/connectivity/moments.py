"""Which sample and step every element of a value in a recorded forward is of.

    Moments(findings, wider, longer).of(node)  →  Moment | why it is not known

An axis that differs with the number of samples is that of samples, one that differs with the
number of steps that of steps, and where a place in the code is passed more often in a longer
forward, a loop runs over the steps. That is sure, but needs two more recordings, of another number
of samples and of more steps; where the steps are the model's own affair (a loop over a static
input, an image repeated inside) there is none that is longer, and they are told by their number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, fx

from fxsynops.connectivity.layouts import pieces
from fxsynops.connectivity.results import Findings
from fxsynops.connectivity.signs import Flow, hands_on, places_of, takes_steps
from fxsynops.neurons.dynamics import Steps
from fxsynops.operations.call import shape
from fxsynops.tracing.graph_walk import upstream

Size = tuple[int, ...]
_PIECES = (  # what takes out a part of the steps
    *("getitem", "select", "narrow", "split", "chunk", "unbind", "index_select", "tensor_split"),
    *("split_with_sizes", "gather", "take_along_dim", "unsafe_chunk", "unsafe_split", "slice"),
)
_VIEWS = ("reshape", "view", "flatten", "reshape_as", "view_as", "_unsafe_view")  # by rows


@dataclass(frozen=True)
class Moment:
    """Where a value has samples and steps.

    Attributes:
        sample: the axis of samples; None if there is none (or only one sample).
        step: the axis of steps; None if all of it is of one step.
        merged: "NT" or "TN" if both are one axis; the first of them varies slowest.
        at: the step that all of it is of, if it has no such axis.
        always: whether it is the same in every step: a static input, read in a loop.
    """

    sample: int | None = None
    step: int | None = None
    merged: str = ""
    at: int = 0
    always: bool = False

    @property
    def axes(self) -> frozenset[int]:
        """The axes of samples and steps."""
        return frozenset(axis for axis in (self.sample, self.step) if axis is not None)

    def apart(self, sums: Tensor, samples: int, steps: int) -> list[tuple[int, Tensor]]:
        """Sums over everything but samples and steps: for each step that has any, (samples,).

        Args:
            sums: of the value's elements; the axes of samples and steps are kept.
            samples, steps: how many there are; one sample if they are not to be told apart.
        """
        if self.merged:
            assert self.step is not None
            sizes = [samples if axis == "N" else steps for axis in self.merged]
            kept = sums.movedim(self.step, 0).flatten(1).sum(1) if sums.dim() > 1 else sums
            if samples > 1:
                kept = kept.view(sizes)
                kept = kept.T if self.merged == "NT" else kept
            return list(enumerate(kept.view(steps, -1)))
        front = [axis for axis in (self.step, self.sample) if axis is not None]
        kept = sums.movedim(front, list(range(len(front))))
        kept = kept.flatten(len(front)).sum(-1) if kept.dim() > len(front) else kept
        if self.step is None:
            each = kept.reshape(-1)
            return (
                [(step, each / steps) for step in range(steps)]
                if self.always
                else [(self.at, each)]
            )
        return list(enumerate(kept.view(steps, -1)))


@dataclass(frozen=True)
class _Known:
    """A value of the forward, and the same in passes with more samples, and with more steps."""

    node: fx.Node
    number: int  # of the passes of this place in the code
    passes: int
    wider: Size | None
    before: Size | None  # in the pass that the longer one is compared with
    longer: Size | None  # None: there is none such
    earlier: int  # passes of it in that pass
    later: int  # passes of it in a longer forward


class Moments:
    """Where the values of a forward have samples and steps.

    Args:
        findings: its analysis.
        wider: one of another number of samples; None where there is none such.
        longer: one of more steps than ``wider`` (or the forward itself), likewise.
    """

    def __init__(self, findings: Findings, wider: Findings | None, longer: Findings | None) -> None:
        self._findings = findings
        self._n, self._t = findings.window.samples, findings.window.timesteps
        self._has = {"N": wider is not None, "T": longer is not None}
        self._factor = 0 if longer is None else longer.window.timesteps // self._t
        others = [None if found is None else _places(found) for found in (wider, longer)]
        self._known: dict[fx.Node, _Known] = {}
        self._groups: dict[fx.Node, tuple[list[fx.Node], Any]] = {}
        for key, nodes in _places(findings).items():
            self._groups |= dict.fromkeys(nodes, (nodes, key))
            wide, long = (None if found is None else found.get(key, []) for found in others)
            base = nodes if wide is None else wide
            for i, node in enumerate(nodes):
                self._known[node] = _Known(
                    node,
                    i,
                    len(nodes),
                    _size(wide, i, len(nodes)),
                    _size(base, i, len(nodes)),
                    _size(long, i, len(nodes)),
                    len(base),
                    len(long or ()),
                )
        self._found: dict[fx.Node, Moment | str] = {}
        self._axes: dict[fx.Node, int | None] = {}  # of steps

    def grown(self, node: fx.Node) -> frozenset[int] | None:
        """The axes that grow with samples or steps; None if nothing is known of the node."""
        known, layout = self._known.get(node), self._findings.options.layout
        if known is None or any(axis in layout.axes and not self._has[axis] for axis in "NT"):
            return None
        axes = frozenset[int]()
        for size, other in ((tuple(shape(node)), known.wider), (known.before, known.longer)):
            if size is not None and other is not None:
                if len(other) != len(size):
                    return None
                axes |= _axes_that_grow(size, other)
        return axes

    def of(self, node: fx.Node, repeats: int = 1, into: Iterable[fx.Node] = ()) -> Moment | str:
        """Where a value has samples and steps, or why that is not known.

        Args:
            node: of the forward.
            repeats: how often the value is read; in every step, if that is a multiple of them.
            into: the synapses' inputs, to which its events come. A static input that is repeated
                on its way is read in every step, too.
        """
        found = self._of(node)
        known = self._known.get(node)
        again = (self._known.get(at) for at in into if node.op == "placeholder")
        repeated = any(at is not None and self._axis_of_steps(at) is not None for at in again)
        if self._t > 1 and known and known.passes == 1 and (repeated or not repeats % self._t):
            sample = self._sample(known, tuple(shape(node)))
            if not isinstance(sample, str) and self._axis_of_steps(known) is None:
                return Moment(sample, always=True)
        return found

    def _of(self, node: fx.Node) -> Moment | str:
        if node not in self._found:
            self._found[node] = self._look(node)
        return self._found[node]

    def _look(self, node: fx.Node) -> Moment | str:
        name = self._findings.connector.names[node]
        known, size = self._known.get(node), tuple(shape(node))
        if known is None:
            return f"'{name}' is not in the forward itself"
        sample = self._sample(known, size)
        if isinstance(sample, str):
            return f"{sample} of '{name}'"
        step = self._step(known, size, sample) if self._t > 1 else None
        if isinstance(step, str):
            return f"{step} of '{name}'"
        if sample is not None and sample != step and size[sample] != self._n:
            return f"samples lie in an axis with others in '{name}'"
        if self._t == 1:
            return Moment(sample)
        if step is None:
            if not self._has["T"] and self._is_in_loop(known) and self._is_behind_steps(node):
                return f"'{name}' is passed once a step, behind an axis that may be the steps"
            when = self._when(known)
            return Moment(sample, at=when) if isinstance(when, int) else when
        if step == sample:
            order = self._order(node) if self._n > 1 else "TN"
            return (
                Moment(sample, step, order)
                if order
                else (
                    f"samples and steps lie in one axis of '{name}', in an order that is not known"
                )
            )
        return Moment(sample, step)

    def _sample(self, known: _Known, size: Size) -> int | str | None:
        """The axis of samples."""
        if known.wider is None or len(known.wider) != len(size):
            if self._n == 1 or (self._has["N"] and known.wider is None):
                return None
            layout = self._findings.options.layout
            if self._has["N"] or "N" not in layout.axes or self._n == self._t:
                return "it is not known which axis holds the samples"
            if layout.covers(size, self._findings.window):
                return 0 if layout.merged else layout.place("N", len(size))
            return 0 if size[:1] == (self._n,) else "it is not known which axis holds the samples"
        grow = _axes_that_grow(size, known.wider)
        if len(grow) > 1:
            return "more than one axis grows with the number of samples"
        return next(iter(grow), None)

    def _step(self, known: _Known, size: Size, sample: int | None) -> int | str | None:
        """The axis of steps; None: there is none."""
        n, t = self._n, self._t
        inner = n if sample is not None else 1
        if self._has["T"]:
            if self._is_in_loop(known):
                return None
            if known.later != known.earlier:
                return f"{known.passes} passes are not one for each step"
            if not known.longer or not known.before or len(known.longer) != len(size):
                return "steps cannot be told in a longer pass"
            grow = _axes_that_grow(known.before, known.longer)
            if not grow:
                return None
            axis = next(iter(grow))
            steps = t * inner if axis == sample else t
            if len(grow) > 1 or size[axis] != steps:
                return "the steps are not those of the inputs, or lie in an axis with others,"
            return axis
        if known.passes == t and self._says_one_step(known.node):
            return None
        if known.passes == t:
            front = 0 if sample is None else 1 - sample
            may_be_steps = len(size) > 1 and sample in (None, 0, 1) and size[front] == t
            return "both a loop and an axis may be the steps" if may_be_steps else None
        layout = self._findings.options.layout
        if (said := self._says_axis(known.node)) is not None:
            return said % len(size)
        if "T" in layout.axes and known.node.op == "placeholder":
            covers = layout.covers(size, self._findings.window)
            return layout.place("T", len(size)) if covers else None
        if "T" in layout.axes and known.node.op != "get_attr":
            return "the model takes no other number of steps, which would show the axis of steps"
        if sample == 0 and size[0] == n * t:
            return 0
        if size[:1] == (t,) and (sample == 1 or (sample is None and len(size) > 1)):
            return 0
        if known.passes > 1:
            return f"{known.passes} passes are not one for each step"
        if sample == 0 and size[1:2] == (t,):
            return "it is not known whether axis 1 holds the steps"
        return None

    def _says(self, node: fx.Node) -> Steps | None:
        """Where a neuron that it comes from has its steps, if that is known."""
        role = self._findings.connector.signals.roles.get(node)
        return None if role is None else role.steps(tuple(shape(node)))

    def _says_one_step(self, node: fx.Node) -> bool:
        where = self._says(node)
        return where is not None and where.axis is None

    def _says_axis(self, node: fx.Node) -> int | None:
        where = self._says(node)
        if where is None or where.axis is None:
            return None
        return where.axis if where.samples is None else 0

    def _is_in_loop(self, known: _Known) -> bool:
        """Whether its place in the code is passed once in every step."""
        if known.passes != self._t:
            return False
        if not self._has["T"]:
            return self._is_loop_by_number(known)
        if known.later == known.earlier:  # as often in a longer pass, of which it reads the start
            alike = self._is_read_by_step and known.before == known.longer
            return alike and self._last_piece(known.node) == known.number
        return known.earlier == self._t and known.later == self._factor * self._t

    def _is_loop_by_number(self, known: _Known) -> bool:
        """Whether as many passes as there are steps are these, and not as many heads, say."""
        signals = self._findings.connector.signals
        role = signals.roles.get(known.node)
        nodes, (_, driver) = self._groups[known.node]
        if role is not None and role.kind == "source" and role.module is None:
            return hands_on(nodes, role, driver, signals)
        return self._takes_steps

    @cached_property
    def _takes_steps(self) -> bool:
        findings = self._findings
        return takes_steps(findings.trace, findings.connector.signals, self._t)

    @cached_property
    def _pieces(self) -> dict[fx.Node, int]:
        layout, inputs = self._findings.options.layout, self._findings.example
        return pieces(layout, inputs, self._findings.connector.signals)

    @property
    def _is_read_by_step(self) -> bool:
        """Whether a loop of as many steps as there are picks them out of the input one by one."""
        return len(set(self._pieces.values())) == self._t

    def _last_piece(self, node: fx.Node) -> int:
        """The last step of the input that a value is made of."""
        return max((self._pieces.get(at, -1) for at in upstream([node])), default=-1)

    def _is_behind_steps(self, node: fx.Node) -> bool:
        """Whether it is made of something that has an axis of steps already."""
        behind = (self._known[n] for n in upstream([node]) if n in self._known)
        return any(self._axis_of_steps(known) is not None for known in behind)

    def _axis_of_steps(self, known: _Known) -> int | None:
        if known.node not in self._axes:
            self._axes[known.node] = self._find_axis_of_steps(known)
        return self._axes[known.node]

    def _find_axis_of_steps(self, known: _Known) -> int | None:
        role = self._findings.connector.signals.roles.get(known.node)
        if role is None or role.signal.kind == "const":  # a weight may be as long
            return None
        size = tuple(shape(known.node))
        sample = self._sample(known, size)
        step = self._step(known, size, sample if isinstance(sample, int) else None)
        return step if isinstance(step, int) else None

    def _when(self, known: _Known) -> int | str:
        """The step of a value without an axis of steps: of its pass, or the last that it needs."""
        if self._is_in_loop(known):
            return known.number
        name = self._findings.connector.names[known.node]
        behind, seen, latest, all_of_it = [known.node], {known.node}, 0, False
        while behind:
            at = behind.pop()
            for node in at.all_input_nodes:
                other = self._known.get(node)
                if other is not None and self._axis_of_steps(other) is not None:
                    if self._findings.connector.signals.calls[at][0].name in _PIECES:
                        return f"'{name}' is made of some of the steps, and it is not known which"
                    all_of_it = True
                elif node not in seen:
                    seen.add(node)
                    behind.append(node)
                    if other is not None and self._is_in_loop(other):
                        latest = max(latest, other.number)
        if known.passes > 1 and not all_of_it and latest == 0:
            return f"{known.passes} passes are not one for each step of '{name}'"
        return self._t - 1 if all_of_it else latest

    def _order(self, node: fx.Node) -> str:
        """The order of samples and steps in one axis: as they were before they became one."""
        layout = self._findings.options.layout
        seen, queue = {node}, [node]
        while queue:
            at = queue.pop(0)
            if at.op == "placeholder" and layout.merged:
                return layout.order
            call, _ = self._findings.connector.signals.calls[at]
            if call.name in ("cat", "concat", "concatenate") and self._are_steps(call.operands()):
                return "TN"
            for before in at.all_input_nodes:
                known = self._known.get(before)
                if before in seen or known is None:
                    continue
                seen.add(before)
                sample, step = self._sample(known, tuple(shape(before))), self._axis_of_steps(known)
                if not isinstance(sample, int) or step is None:
                    continue
                if sample == step:
                    queue.append(before)
                elif call.name in _VIEWS:
                    return "NT" if sample < step else "TN"
        return ""

    def _are_steps(self, parts: list[fx.Node]) -> bool:
        """Whether these are all samples of one step after the other."""
        known = [self._known.get(part) for part in parts]
        return len(parts) == self._t and all(
            one is not None
            and self._sample(one, tuple(shape(one.node))) == 0
            and self._axis_of_steps(one) is None
            for one in known
        )


def _places(findings: Findings) -> dict[Any, list[fx.Node]]:
    """The values of a forward by where they come from; of sources, also by what drives them."""
    found: dict[Any, list[fx.Node]] = {}
    signals = findings.connector.signals
    flow = Flow(signals)
    for place, nodes in places_of(findings.trace).items():
        for node in nodes:
            role = signals.roles.get(node)
            fires = role is not None and role.kind == "source" and len(nodes) > 1
            driver = flow.drivers[node] if fires else None
            found.setdefault((place, driver), []).append(node)
    return found


def _size(nodes: list[fx.Node] | None, number: int, passes: int) -> Size | None:
    """The shape of the same value in another pass, if it is passed as often there, or more."""
    return None if not nodes or len(nodes) < passes else tuple(shape(nodes[number]))


def _axes_that_grow(size: Size, other: Size) -> frozenset[int]:
    return frozenset(axis for axis, n in enumerate(size) if other[axis] != n)
