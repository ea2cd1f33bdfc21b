"""What is known of the values in a trace: constants, scales, and where they come from."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from fxsynops.connectivity.calls import Calls
from fxsynops.connectivity.signals import CONST, ZERO, Role, Signal
from fxsynops.operations import Call, Kind, Operation
from fxsynops.operations.call import shape
from fxsynops.operations.linear_forms import overlay
from fxsynops.tracing import graph_functions
from fxsynops.tracing.graph_walk import reachable, upstream
from fxsynops.tracing.random_states import RandomStates
from fxsynops.tracing.sharded import known_whole
from fxsynops.tracing.trace import Trace


@dataclass
class Values:
    """Questions about the nodes of a trace, of which those before the present one have roles.

    Attributes:
        roles: so far.
        calls: the call behind every node.
        known: the values of constants that were asked for.
    """

    trace: Trace
    roles: dict[fx.Node, Role] = field(default_factory=dict, init=False)
    calls: Calls = field(init=False)
    known: dict[fx.Node, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.calls = Calls(self.trace, self.constant)

    # -- constants --------------------------------------------------------------------------------

    def constant(self, node: fx.Node) -> Tensor | None:
        """The present value of a node that depends on no data."""
        role = self.roles.get(node)
        if role is not None and role.signal.kind != "const":
            return None
        if node not in self.known:
            if node.op == "get_attr":
                target = str(node.target)
                place = self.trace.reads.get(target)
                value = held = place.get() if place else self.trace.constants[target]
                if (value := known_whole(self.trace.modules[""], value, target)) is None:
                    return None
                value = value.detach()  # of a parameter, it is forgotten before it may change
                self.known[node] = value if isinstance(held, nn.Parameter) else value.clone()
            elif node.target is graph_functions.after:
                self.known[node] = self._written(*node.args)  # type: ignore[arg-type]
            elif node.target is graph_functions.alias_after:
                self.known[node] = self._written_beside(*node.args)  # type: ignore[arg-type]
            else:
                args, kwargs = map_arg((node.args, node.kwargs), self._constant_or_empty)
                if node.meta.get("writes"):
                    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
                with RandomStates.untouched() if self._draws(node) else nullcontext():
                    self.known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return self.known[node]

    def _written(self, before: fx.Node, writer: fx.Node) -> Tensor:
        """A constant once a call that returns nothing of it has written to it."""
        value = self.constant(before)
        assert value is not None
        value = value.clone()
        args, kwargs = map_arg(
            (writer.args, writer.kwargs), lambda n: value if n is before else self.constant(n)
        )
        writer.target(*args, **kwargs)  # type: ignore[operator]
        return value

    def _written_beside(self, before: fx.Node, writer: fx.Node, geometry: Any) -> Tensor:
        """A constant once another tensor in the same memory has been written to."""
        value, new = self.constant(before), self.constant(writer)
        assert value is not None
        assert new is not None
        return overlay(value, new, geometry).to(value.dtype)

    def _constant_or_empty(self, node: fx.Node) -> Tensor:
        """An operand of a constant; where its value plays no role (``zeros_like``), any value."""
        value = self.constant(node)
        return torch.zeros(shape(node)) if value is None else value

    def const(self, operands: list[fx.Node]) -> Signal:
        """What comes of constants alone."""
        return replace(CONST, fixed=all(self.roles[n].signal.fixed for n in operands))

    def is_zero(self, factor: Any) -> bool:
        """Whether a factor is nothing but zeros, and stays so."""
        if not isinstance(factor, fx.Node):
            return factor == 0
        if self.vanishes(factor):
            return True
        value = self.constant(factor) if self.roles[factor].signal.fixed else None
        return value is not None and not value.is_meta and not bool(value.any())

    def vanishes(self, node: fx.Node) -> bool:
        """Whether a value is zero because it is a sum in which everything cancels."""
        role = self.roles.get(node)
        return role is not None and role.signal is ZERO

    def is_whole(self, added: Any) -> bool:
        """Whether what is added is nothing but whole numbers, and stays so."""
        if not isinstance(added, fx.Node):
            return float(added).is_integer()
        if not self.roles[added].signal.fixed:
            return False
        value = self.constant(added)
        return value is not None and not value.is_meta and bool((value == value.round()).all())

    # -- what is added, and where analog values stand ---------------------------------------------

    def added(self, call: Call, operation: Operation, operands: list[fx.Node]) -> list[Any]:
        """Constants that are added to events, or joined to them."""
        joins = operation.merges or operation.joins
        nodes = [n for n in operands if joins and self.roles[n].signal.kind == "const"]
        terms = operation.terms(call) if operation.merges and operation.terms else []
        return [*nodes, *(a for _, a in terms if isinstance(a, int | float) and a != 0)]

    def mask(self, call: Call, operation: Operation, operands: list[fx.Node]) -> Tensor | None:
        """Where the result is analog, if not everywhere or nowhere."""
        signals = [self.roles[n].signal for n in operands]
        if not any(s.kind == "analog" or s.mask is not None for s in signals):
            return None
        if operation.merges and any(s.kind == "analog" for s in signals):
            return torch.ones(1, dtype=torch.bool)
        masks = {n: self._analog_places(n) for n in operands}
        if operation.merges:
            result = torch.zeros(shape(call.node), dtype=torch.bool)
            for mask in masks.values():
                result = result | mask
        elif operation.elementwise:
            result = masks[operands[0]].expand(shape(call.node))
        elif call.target is graph_functions.alias_after:
            alias, written = (masks[n] for n in call.operands())
            result = overlay(alias, written, call["geometry"]) != 0
        else:

            def operand(n: fx.Node) -> Tensor:
                value = masks[n].double() if n in masks else self.constant(n)
                return torch.ones(shape(n), dtype=torch.float64) if value is None else value

            y = call.again(operand)
            result = (y if call.output is None else y[call.output]) != 0
        return result

    def _analog_places(self, node: fx.Node) -> Tensor:
        signal = self.roles[node].signal
        if signal.mask is not None:
            return signal.mask
        return torch.full((), signal.kind == "analog").expand(shape(node))

    # -- where values come from -------------------------------------------------------------------

    def is_activation(self, node: fx.Node) -> bool:
        """Whether a factor comes from this pass's data; weights do not."""
        kind = self.roles[node].signal.kind
        return kind == "events" or (kind == "analog" and self.comes_from_inputs(node))

    def holds_weights(self, node: fx.Node) -> bool:
        """Whether a constant holds weights: it comes from a parameter, or is no mask."""
        if any(map(self._is_parameter, _leaves(node))):
            return True
        value = self.constant(node)
        if value is None or value.is_meta or not value.is_floating_point():
            return False
        worths = value.abs()[value != 0]
        return bool((worths != worths[:1]).any())

    def _is_parameter(self, node: fx.Node) -> bool:
        place = self.trace.reads.get(str(node.target)) if node.op == "get_attr" else None
        return place is not None and isinstance(place.get(), nn.Parameter)

    def is_drawn(self, node: fx.Node) -> bool:
        """Whether a value is drawn at random, and depends on nothing else that may change."""
        behind = list(upstream([node]))
        drawn = any(
            at.op == "call_function" and self.roles.get(at) is not None and self._draws(at)
            for at in behind
        )
        return drawn and not any(
            at.op in ("placeholder", "call_module")
            or at.target is graph_functions.read_state
            or (at.op == "get_attr" and self.roles[at].signal.kind != "const")
            for at in behind
        )

    def _draws(self, node: fx.Node) -> bool:
        call, operation = self.calls[node]
        if operation is None:  # of the initializers, some are one call
            return getattr(node.target, "__module__", "") == "torch.nn.init"
        return operation.kind is Kind.RANDOM or operation.draws(call)

    def comes_from_inputs(self, node: fx.Node) -> bool:
        """Whether a value depends on this pass's inputs, and not on the model's own state alone."""
        return any(at.op in ("placeholder", "call_module") for at in upstream([node]))

    @cached_property
    def _compared(self) -> set[Any]:
        """Where in the code data are compared, at some step."""
        nodes = self.trace.graph.nodes
        return {_place(n) for n in nodes if n.op == "call_function" and n.meta["data"]}

    def firing_behind(self, node: fx.Node) -> list[fx.Node]:
        """The neurons that a constant comes from: custom functions, and comparisons of state."""
        found: list[fx.Node] = []

        def back(at: fx.Node) -> list[fx.Node]:
            call, operation = self.calls[at]
            compares = operation is not None and operation.fires
            compares = compares and (
                not self.roles[at].signal.fixed or _place(at) in self._compared
            )
            if "function" not in at.meta and not compares:
                if operation is None or at.op != "call_function":
                    return at.all_input_nodes
                return [*operation.carriers(call), *operation.steers(call)]
            if not all(map(self._is_parameter, _leaves(at))):  # or weights are made binary
                found.append(at)
            return []

        list(reachable([node], back))
        return found

    def has_source(self, node: fx.Node) -> bool:
        """Whether events of a known source come to ``node``."""
        events = reachable([node], lambda at: self.roles[at].carriers)
        return any(self.roles[at].kind == "source" for at in events)


def _place(node: fx.Node) -> Any:
    """What a call is, and where in the code."""
    return node.target, node.meta["site"].code


def _leaves(node: fx.Node) -> list[fx.Node]:
    """What a value is computed from, that is computed from nothing itself."""
    return [at for at in upstream([node]) if not at.all_input_nodes]
