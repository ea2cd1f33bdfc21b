"""The call behind every node of a trace, and the entry of the registry that holds for it."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from fxsynops.operations import Call, Operation, operations
from fxsynops.operations.call import Constant
from fxsynops.operations.registry import operation_name
from fxsynops.tracing import graph_functions
from fxsynops.tracing.graph_functions import getitem
from fxsynops.tracing.trace import Trace


class Calls:
    """The calls of a trace.

    Args:
        trace: a recorded forward.
        constant: the value of a node that depends on no data.
    """

    def __init__(self, trace: Trace, constant: Constant) -> None:
        self._trace, self._constant = trace, constant
        self._known: dict[fx.Node, tuple[Call, Operation | None]] = {}

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls as a whole."""
        if node.op == "call_module":
            return self._trace.modules[str(node.target)]
        if node.target is graph_functions.forward_of:
            return node.args[0]  # type: ignore[return-value]
        return None

    def __getitem__(self, node: fx.Node) -> tuple[Call, Operation | None]:
        """The call that returned a node's value, and the entry that holds for it."""
        if node not in self._known:
            origin, path = origin_of(node)
            module, function = self.module(origin), origin.meta.get("function")
            target = type(module) if module is not None else origin.target
            call = Call(
                node,
                target,
                operation_name(target) if module is None and function is None else "",
                origin.args[1:] if origin.target is graph_functions.forward_of else origin.args,
                origin.kwargs,
                path[0] if path else None,
                self._constant,
            )
            found = operations.find(origin.target, function, module)
            self._known[node] = call, None if found is None else found.of(call)
        return self._known[node]


def origin_of(node: fx.Node) -> tuple[fx.Node, list[Any]]:
    """The call that returned ``node``, and the path to it in what was returned."""
    path: list[Any] = []
    while node.target in (getitem, getattr) and "spec" not in node.args[0].meta:  # type: ignore
        path.insert(0, node.args[1])
        node = node.args[0]  # type: ignore[assignment]
    return node, path


def part_of(value: Any, path: list[Any]) -> fx.Node:
    """What lies at a path, as :func:`origin_of` returns it."""
    for key in path:
        value = value[key]
    return value
