"""The sources of a recorded forward, as the charge bound sees them: driven by charge.

A :class:`Source` is a neuron with all its calls in a window. Its library's file has said how charge
becomes events (:mod:`fxsynops.neurons.dynamics`); here the theorem is applied, for a whole window
or for each of its steps, with recurrent weights iterated step by step.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.node import map_arg

from fxsynops.bounds.events_per_step import Assumptions, Caps
from fxsynops.bounds.interference import check_untouched
from fxsynops.bounds.ranges import Ranges, unit_of
from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.results import Findings
from fxsynops.connectivity.signals import Role
from fxsynops.neurons import Neuron
from fxsynops.neurons.dynamics import Drive, Dynamics, FindDynamics, NoArgumentError, Start, Steps
from fxsynops.operations.call import shape
from fxsynops.tracing import graph_functions
from fxsynops.tracing.inputs import Layout, Window


@dataclass(frozen=True)
class Events:
    """How many events each element emits over the whole window, positive and negative."""

    up: Tensor
    down: Tensor | None = None

    def finite(self) -> bool:
        """Whether all of them are bounded."""
        return all(bool(x.isfinite().all()) for x in (self.up, self.down) if x is not None)


@dataclass(frozen=True, eq=False)
class Source:
    """A neuron (or an input) with all its calls, in order.

    Attributes:
        name: for reports.
        nodes: what the calls put out.
        inputs: what goes into them; empty for the model's inputs.
        steps: where the output has its time steps.
        positions: how many steps the window has, over all calls and passes.
        cap: events per element and step.
        amplitude: the value of one event.
        signed: whether events can be negative.
        most: of an input, events over the whole window, if that was said.
        dynamics: how charge becomes events; None if there is no argument.
        reason: why there is none.
        restarts: how many times the start state is given.
        computed: whether an operation's own rule says more than the cap (``floor`` of a range).
    """

    name: str
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...] = ()
    steps: Steps = Steps()
    positions: int = 1
    cap: float = math.inf
    amplitude: Tensor = torch.ones((), dtype=torch.float64, device="cpu")
    signed: bool = False
    most: float | None = None
    dynamics: Dynamics | None = None
    reason: str = ""
    restarts: int = 1
    computed: bool = False

    @property
    def drives(self) -> list[Drive]:
        """Of positive events, and of negative ones if there are any."""
        assert self.dynamics is not None
        up, down = self.dynamics.up, self.dynamics.down
        return [up] if down is None else [up, down]

    @property
    def spread(self) -> bool:
        """Whether more is known of its total than of each step."""
        return self.dynamics is not None or self.most is not None

    def all_events(self, charges: list[Tensor]) -> Events:
        """The theorem: events of the window, from its positive and negative charge."""
        found = [self.emitted(d, c) for d, c in zip(self.drives, charges, strict=False)]
        return Events(*found)

    def _afford(self, drive: Drive, charge: Tensor) -> Tensor:
        """⌊((start + gain·Q)·(1 + ε) + ε·level) / κ⌋, with ε for the rounding of all steps."""
        slack = 6 * (self.positions + 2) * unit_of(self.nodes[0])
        filled = drive.start * self.restarts + drive.gain * charge
        found = torch.floor((filled * (1 + slack) + slack * drive.level) / drive.removes)
        return found.nan_to_num(nan=math.inf, posinf=math.inf).clamp(min=0)

    def emitted(self, drive: Drive, charge: Tensor) -> Tensor:
        """Events of the whole window, from its charge from outside."""
        assert self.dynamics is not None
        feedback = self.dynamics.feedback
        if feedback is None:
            return self._afford(drive, charge).clamp(max=self.cap * self.positions)
        emitted = torch.zeros_like(charge)
        for step in range(1, self.positions + 1):
            new = self._afford(drive, charge + feedback.charge(emitted, step))
            new = torch.maximum(emitted, new.clamp(max=self.cap * step))
            if step > 1 and feedback.settles and torch.equal(new, emitted):
                break
            emitted = new
        return emitted

    def until_each_step(
        self, drive: Drive, running: Tensor, step: int, emitted: Tensor | None
    ) -> Tensor:
        """Events until each step of a call, from the charge from outside until then.

        Args:
            drive: of the neuron.
            running: charge of the window until each step of the call.
            step: how many steps were before the call.
            emitted: events of these steps.
        """
        assert self.dynamics is not None
        feedback = self.dynamics.feedback
        if feedback is None:
            return self._afford(drive, running)
        found = []
        emitted = torch.zeros_like(running[0]) if emitted is None else emitted
        for i, charge in enumerate(running):
            new = self._afford(drive, charge + feedback.charge(emitted, step + i + 1))
            emitted = torch.maximum(emitted, new.clamp(max=self.cap * (step + i + 1)))
            found.append(emitted)
        return torch.stack(found)


def example_value(findings: Findings, node: fx.Node) -> Any:
    """What an input was in the example."""
    origin, path = origin_of(node)
    example = findings.example
    value: Any = dict(zip(example.names, example.values, strict=True))[str(origin.target)]
    for key in path:
        value = value[key]
    return value


def is_negative(value: Any) -> bool:
    """Whether there are negative numbers in a tensor."""
    if not isinstance(value, Tensor) or value.is_meta or isinstance(value, FakeTensor):
        return False
    return value.dtype != torch.bool and bool((value < 0).any())


class Sources:
    """All sources of a recorded forward, with their dynamics as the modules are now."""

    def __init__(
        self,
        findings: Findings,
        assumptions: Assumptions,
        caps: Caps,
        passes: int,
        ranges: Ranges,
    ) -> None:
        self._findings, self._ranges, self._passes = findings, ranges, passes
        self._assumptions, self._caps = assumptions, caps
        roles = findings.connector.signals.roles
        calls: dict[Any, list[fx.Node]] = {}
        for node, role in roles.items():
            if role.kind == "source":
                calls.setdefault(id(role.module) if role.module else node, []).append(node)
        self.of: dict[fx.Node, Source] = {}
        for nodes in calls.values():
            role = roles[nodes[0]]
            if origin_of(nodes[0])[0].op == "placeholder":
                source = self._input(nodes[0])
            else:
                source = self._neuron(nodes, role, caps.source(nodes[0], role))
            self.of.update(dict.fromkeys(nodes, source))

    def _input(self, node: fx.Node) -> Source:
        layout, window = self._findings.options.layout, self._findings.window
        steps = input_steps(layout, window, shape(node))
        positions = split_shape(node, steps)[0] * self._passes
        signed = is_negative(example_value(self._findings, node))
        most = self._assumptions.input_max_events
        cap = 1.0 if most is None else float(most)
        name = self._findings.connector.names[node]
        return Source(name, (node,), (), steps, positions, cap, signed=signed, most=most)

    def _neuron(self, nodes: list[fx.Node], role: Role, cap: float) -> Source:
        name = self._findings.connector.names[nodes[0]]
        neuron, module = self._caps.neuron(role), role.module
        worth = neuron.amplitude if neuron else 1.0
        amplitude = torch.as_tensor(worth(module) if callable(worth) else worth)
        amplitude = amplitude.detach().double()
        signed = self._caps.signed(role)
        plain = Source(
            name, tuple(nodes), (), Steps(), len(nodes) * self._passes, cap, amplitude, signed
        )
        if module is None and cap == math.inf and self._ranges.rule(nodes[0]) is not None:
            return replace(plain, computed=True)
        try:
            if neuron is not None and neuron.dynamics is None and neuron.threshold is not None:
                raise NoArgumentError(
                    f"its threshold of {neuron.threshold:g} says when it fires, but not what it "
                    "integrates"
                )
            if module is None or neuron is None or neuron.dynamics is None:
                raise NoArgumentError("no charge argument is known for it")
            inputs, given, restarts = self._drive(nodes, module, neuron)
            if not all(shape(x) == shape(y) for x, y in zip(inputs, nodes, strict=True)):
                raise NoArgumentError("its input and output differ in shape")
            steps = Steps() if neuron.steps is None else role.steps(shape(nodes[0]))
            if steps is None:
                raise NoArgumentError("where its steps are is not known")
            start = Start(tuple(map(shape, nodes)), self._passes, given, steps)
            dynamics = _dynamics(neuron.dynamics, module, start)
            check_untouched(self._findings, module, dynamics.resets, self._constant)
            positions = start.length()
            sizes = {split_shape(n, steps)[1:] for n in nodes}
            if len(sizes) > 1:
                raise NoArgumentError("its calls differ in shape")
            _check_broadcast(dynamics, sizes.pop())
        except NoArgumentError as reason:
            return replace(plain, reason=f"'{name}': {reason}")
        return Source(
            name, tuple(nodes), inputs, steps, positions, cap, amplitude, signed,
            None, dynamics, "", restarts,
        )  # fmt: skip

    def _drive(
        self, nodes: list[fx.Node], module: nn.Module, neuron: Neuron
    ) -> tuple[tuple[fx.Node, ...], tuple[Any, ...], int]:
        """What goes into each call, and the state that the first gets."""
        inputs, given = [], ()
        before: fx.Node | None = None
        for node in nodes:
            origin, _ = origin_of(node)
            args = origin.args[1:] if origin.target is graph_functions.forward_of else origin.args
            try:
                bound = inspect.signature(module.forward).bind(*args, **origin.kwargs)
            except (TypeError, ValueError):
                raise NoArgumentError("its arguments are not understood") from None
            bound.apply_defaults()
            x, *states = (*bound.args, *bound.kwargs.values())
            names = [*bound.signature.parameters][1:]
            if not isinstance(x, fx.Node) or "spec" not in x.meta:
                raise NoArgumentError("its input is not one tensor")
            inputs.append(x)
            if before is None:
                given = self._given(states)
            elif not self._from(dict(zip(names, states, strict=False)), before, neuron):
                raise NoArgumentError("its state does not come from its last call")
            before = origin
        return tuple(inputs), given, self._passes if given else 1

    def _from(self, states: dict[str, Any], before: fx.Node, neuron: Neuron) -> bool:
        """Whether states are none, or what the call ``before`` has returned for them."""
        places = neuron.returned(tuple(states))
        return all(
            state is None or self._comes_from(state, before, (places[name],))
            for name, state in states.items()
        )

    def _comes_from(self, state: Any, before: fx.Node, path: tuple[Any, ...]) -> bool:
        """Whether a state (or a tuple of them) is what stands at ``path`` in what a call gave."""
        if isinstance(state, tuple):
            names = getattr(state, "_fields", range(len(state)))
            return all(
                self._comes_from(part, before, (*path, i))
                or self._comes_from(part, before, (*path, name))
                for i, (name, part) in enumerate(zip(names, state, strict=True))
            )
        while isinstance(state, fx.Node):
            call, operation = self._findings.connector.signals.calls[state]
            if operation is None or not operation.is_copy(call):
                break
            state = call.x
        if not isinstance(state, fx.Node):
            return False
        origin, found = origin_of(state)
        return origin is before and tuple(found) == path

    def _constant(self, node: fx.Node) -> Any:
        role = self._findings.connector.signals.roles.get(node)
        known = role is not None and role.signal.kind == "const"
        return self._ranges.constant(node) if known else node

    def _given(self, states: list[Any]) -> tuple[Any, ...]:
        nodes: list[fx.Node] = []
        map_arg(tuple(states), nodes.append)
        roles = self._findings.connector.signals.roles
        if any(n not in roles or roles[n].signal.kind != "const" for n in nodes):
            raise NoArgumentError("its first state depends on data, or is kept by the model")
        values = map_arg(tuple(states), self._ranges.constant)
        return tuple(values) if any(v is not None for v in values) else ()


def _dynamics(find: FindDynamics, module: nn.Module, start: Start) -> Dynamics:
    """What a library's file says; a release that it does not know has no charge bound."""
    try:
        return find(module, start)
    except NoArgumentError:
        raise
    except Exception as error:
        raise NoArgumentError(
            f"its parameters cannot be read ({type(error).__name__}: {error})"
        ) from error


def _check_broadcast(dynamics: Dynamics, size: torch.Size) -> None:
    for drive in (dynamics.up, dynamics.down):
        for value in () if drive is None else (drive.removes, drive.gain, drive.start):
            try:
                fits = torch.broadcast_shapes(torch.as_tensor(value).shape, size) == size
            except RuntimeError:
                fits = False
            if not fits:
                raise NoArgumentError("its state or parameters have another shape than its input")


def input_steps(layout: Layout, window: Window, size: tuple[int, ...]) -> Steps:
    """Where an input of some size has its time steps, if it has all axes of the layout."""
    if "T" not in layout.axes or not layout.covers(size, window):
        return Steps()
    if layout.merged:
        return Steps(layout.order.index("T"), window.samples)
    return Steps(layout.place("T", len(size)))


def split_shape(node: fx.Node, steps: Steps) -> torch.Size:
    """The shape of a node's tensor, with its steps first."""
    return steps.split(torch.empty(shape(node), device="meta")).shape


def filled(node: fx.Node, value: float) -> Tensor:
    """One value in the shape of a node."""
    return torch.full((), value, dtype=torch.float64).expand(shape(node))
