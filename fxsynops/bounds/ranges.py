"""What every tensor of a recorded forward can be, given what its sources can emit.

    Ranges(findings, leaf, …).run(nodes)
      └─ _value(node)
           ├─ constant     depends on no data: its present value
           ├─ leaf         a source or an analog input: what the caller says
           └─ rule         of the operation's entry in the registry

The same run is made per step and, with the results of that, for totals; see
:mod:`fxsynops.operations.value_range`. The rounding of the model's own dtype is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.results import Findings
from fxsynops.connectivity.signals import Role
from fxsynops.operations import Call, Kind, Operation
from fxsynops.operations.call import shape, writes_in_place
from fxsynops.operations.linear_forms import overlay
from fxsynops.operations.operation import Scale
from fxsynops.operations.value_range import Range, RangeRule, bilinear, finite, linear, ranged
from fxsynops.tracing import graph_functions
from fxsynops.tracing.graph_walk import reachable

Leaf = Callable[[fx.Node, Role], "Range | None"]
Limit = Callable[[fx.Node], tuple[float, float]]
_WHOLE = (Scale(), Scale(-1.0))  # whole numbers are not rounded


class Ranges:
    """The ranges of a graph's nodes, in its order.

    Args:
        findings: an analysis.
        leaf: the range of a source, or of an analog input; None for any other node.
        steps: ranges per step, by an earlier run; with them, this run is of totals.
        limit: the least and the most that an element of events can be, where nothing else is known.
        changing: whether this is of several forwards, each of which finds states as the last left
            them, so that what a forward writes to has no one value.
    """

    def __init__(
        self,
        findings: Findings,
        leaf: Leaf,
        steps: Ranges | None = None,
        limit: Limit | None = None,
        changing: bool = False,
    ) -> None:
        self.values: dict[fx.Node, Any] = {}
        self.unknown: set[fx.Node] = set()  # nodes of which nothing is known
        self.kept: dict[fx.Node, Range] = steps.kept if steps else {}
        self._constants: dict[fx.Node, Any] = steps._constants if steps else {}
        self._limit: Limit | None = steps._limit if steps else limit
        self._changing: bool = steps._changing if steps else changing
        self.totals = steps is not None
        self._order: dict[fx.Node, int]
        self._order = (
            steps._order if steps else {n: i for i, n in enumerate(findings.trace.graph.nodes)}
        )
        self._leaf = leaf
        self._trace = findings.trace
        self._roles = findings.connector.signals.roles
        self._calls = findings.connector.signals.calls

    def run(self, nodes: Iterable[fx.Node], keep: frozenset[fx.Node] = frozenset()) -> None:
        """Find the ranges of ``nodes``; afterwards, those of ``keep`` are in :attr:`values`."""
        ahead: dict[fx.Node, int] = {}
        nodes = list(nodes)
        for node in nodes:
            for used in _inputs(node):
                ahead[used] = ahead.get(used, 0) + 1
        for node in nodes:
            self.values[node] = self._value(node)
            for used in _inputs(node):
                ahead[used] -= 1
                if not ahead[used] and used not in keep:
                    self.values.pop(used, None)

    def before(self, targets: Iterable[fx.Node]) -> list[fx.Node]:
        """The nodes from the sources to ``targets``, in the order of the graph."""
        found = reachable(targets, lambda n: () if self._is_end(n) else _inputs(n))
        return sorted(found, key=self._order.__getitem__)

    def _is_end(self, node: fx.Node) -> bool:
        role = self._roles.get(node)
        if role is None:
            return False
        calls = node.op in ("call_function", "call_module")
        if role.kind == "source" or role.signal.kind == "const" or not calls:
            return True
        return node in self.kept and not self._in_totals(self.rule(node))

    @staticmethod
    def _in_totals(rule: RangeRule | None) -> bool:
        return rule is not None and rule.in_totals

    # -- one node ---------------------------------------------------------------------------------

    def _value(self, node: fx.Node) -> Any:
        role = self._roles.get(node)
        if role is None:
            return self._parts(node)
        if role.signal.kind == "const":
            return self.constant(node)
        known = self._leaf(node, role)
        if known is not None:
            return known
        value = self._computed(node, role)
        if value is None or _wraps(node, value):
            value = Range.unknown(shape(node))
            self.unknown.add(node)
        if role.signal.kind == "events" and self._limit and not bool(value.up.isfinite().all()):
            low, high = self._limit(node)
            fill = value.up.new_tensor
            value = Range(fill(high).expand(shape(node)), fill(-low).expand(shape(node)))
        return value

    def _parts(self, node: fx.Node) -> Any:
        """Of a call that returns several tensors, the range of each."""
        if node.op != "call_function" or not self._data(node):
            return None
        rule = self.rule(node)
        return rule.find(self, self._calls[node][0]) if rule is not None else None

    def _computed(self, node: fx.Node, role: Role) -> Range | None:
        if "as" in node.meta:
            return ranged(self.operand(node.meta["as"]))
        origin, path = origin_of(node)
        if (handed_on := graph_functions.through_hooks(origin)) is not None:
            for key in path:
                handed_on = handed_on[key]
            return None if origin.meta["hooked"] else ranged(self.operand(handed_on))
        if origin is not node:
            whole = self.values.get(origin)
            for key in path:
                whole = whole[key] if isinstance(whole, (tuple, list, dict)) else None
            return whole if isinstance(whole, Range) else None
        rule = self.rule(node)
        if rule is None:
            return None
        if self.totals and not rule.in_totals:
            return self.kept.get(node)
        value = rule.find(self, self._calls[node][0])
        if isinstance(value, Range) and _narrows(node):
            value = self.rounded(node, value, 0)
        if not self.totals and not rule.in_totals and value is not None:
            self.kept[node] = value
        return value

    def entry(self, call: Call) -> Operation:
        """The entry that holds for a call."""
        operation = self._entry(call.node)
        assert operation is not None
        return operation

    def _entry(self, node: fx.Node) -> Operation | None:
        role = self._roles.get(node)
        if role is not None and role.operation is not None:
            return role.operation
        return self._calls[node][1] if node.op.startswith("call") else None

    def rule(self, node: fx.Node) -> RangeRule | None:
        """What the registry says of a call; users' own entries say nothing about values."""
        operation = self._entry(node)
        if operation is None or operation.range is not None:
            return None if operation is None else operation.range
        if not self._calls[node][0].name:
            return None
        if operation.kind in (Kind.SYNAPSE, Kind.PRODUCT):
            return bilinear
        return linear if operation.kind is Kind.ROUTING else None

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a node calls."""
        if node.op == "call_module":
            return self._trace.modules[str(node.target)]
        return node.args[0]  # type: ignore[return-value]

    def _data(self, node: fx.Node) -> bool:
        return any(isinstance(self.values.get(n), Range) for n in node.all_input_nodes)

    # -- constants --------------------------------------------------------------------------------

    def constant(self, node: fx.Node) -> Any:
        """The present value of a node that depends on no data; its range if it cannot be had."""
        if node not in self._constants:
            value = None if self._is_random(node) else self._constant(node)
            if not isinstance(value, Tensor) or value.is_meta:
                value = Range.unknown(shape(node))
            self._constants[node] = value
        return self._constants[node]

    def _constant(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            target = str(node.target)
            place = self._trace.reads.get(target)
            value = place.get() if place else self._trace.constants[target]
            return value.detach().clone() if target in self._trace.stateful else value.detach()
        origin, path = origin_of(node)
        if origin is not node:
            value = self._call(origin)
            for key in path:
                value = value[key]
            return value
        return self._call(node)

    def _is_random(self, node: fx.Node) -> bool:
        """Whether a constant differs from forward to forward, or depends on one that does."""
        origin, _ = origin_of(node)
        if origin.op == "get_attr":
            return self._changing and str(origin.target) in self._trace.stateful
        if origin.op != "call_function":
            return True
        call, operation = self._calls[node]
        if operation is not None and operation.draws(call):
            return True
        constants = (n for n in origin.all_input_nodes if self._is_constant(n))
        return any(isinstance(self.constant(n), Range) for n in constants)

    def _is_constant(self, node: fx.Node) -> bool:
        role = self._roles.get(node)
        return role is not None and role.signal.kind == "const"

    def _call(self, node: fx.Node) -> Any:
        """The call itself, on the present values; what it writes to is a copy."""
        if node.target is graph_functions.after:
            return self.operand(node.args[1])
        args, kwargs = map_arg((node.args, node.kwargs), self._any_value)
        if node.target is graph_functions.alias_after:
            return overlay(*args)  # type: ignore[arg-type]
        if args and isinstance(args[0], Tensor) and writes_in_place(node):
            args = (args[0].clone(), *args[1:])
        if node.target is Tensor.detach_:
            return args[0].detach()  # type: ignore[union-attr]
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _any_value(self, node: fx.Node) -> Any:
        """An operand of a constant; where its value plays no role (``zeros_like``), any value."""
        value = self.operand(node)
        if (value is None or isinstance(value, Range)) and "spec" in node.meta:
            return torch.zeros(shape(node), dtype=node.meta["spec"].dtype)
        return value

    def operand(self, node: Any) -> Any:
        """What an argument of a call can be."""
        if not isinstance(node, fx.Node):
            return node
        return self.constant(node) if self._is_constant(node) else self.values.get(node)

    # -- arithmetic -------------------------------------------------------------------------------

    def replaced(self, call: Call, choose: Callable[[fx.Node, Any], Any]) -> Any:
        """The call, on other operands, and in their dtype."""
        return call.again(lambda n: choose(n, self.operand(n)), leave_out=("dtype",))

    def rounded(
        self, node: fx.Node, value: Range, terms: float, level: Tensor | None = None
    ) -> Range:
        """With what a sum of some terms is off at most in the node's own dtype.

        The error of a sum of K products is at most γ·Σ|terms|, with γ = K·u / (1 − K·u) and the
        unit round-off u, in any order (Higham 2002, §3.1).
        """
        role = self._roles.get(node)
        signal = None if role is None else role.signal
        if signal and signal.kind == "events" and signal.whole and signal.scale in _WHOLE:
            return value
        share = 2 * (terms + 2) * unit_of(node)
        size = value.up
        for part in (value.down, level, None if value.center is None else value.center.abs()):
            size = size if part is None else size + part
        error = finite(size * share)
        down = error if value.down is None else value.down + error
        return Range(value.up + error, down, value.center)


def _inputs(node: fx.Node) -> list[fx.Node]:
    """What a node's range is found from."""
    said = node.meta.get("as")
    return node.all_input_nodes if said is None else [*node.all_input_nodes, said]


def _narrows(node: fx.Node) -> bool:
    """Whether a call makes numbers of fewer digits than some that it gets (a cast, a write)."""
    if not node.meta["spec"].dtype.is_floating_point:
        return False
    given = (n.meta["spec"].dtype for n in node.all_input_nodes if "spec" in n.meta)
    eps = torch.finfo(node.meta["spec"].dtype).eps
    return any(dtype.is_floating_point and torch.finfo(dtype).eps < eps for dtype in given)


def _wraps(node: fx.Node, value: Range) -> bool:
    """Whether whole numbers may be beyond what the node's dtype can hold."""
    dtype = node.meta["spec"].dtype
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        return False
    limits = torch.iinfo(dtype)
    return bool((value.low < limits.min).any() or (value.high > limits.max).any())


def unit_of(node: fx.Node) -> float:
    """Unit round-off of a node's dtype; on GPUs, products of float32 may be made in TF32."""
    spec = node.meta.get("spec")
    dtype = spec.dtype if spec is not None and spec.dtype.is_floating_point else torch.float32
    mode = node.meta.get("mode")
    if dtype == torch.float32 and mode is not None and mode.device == "cuda":
        return 2.0**-11
    return torch.finfo(dtype).eps / 2
