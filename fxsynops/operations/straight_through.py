"""Straight-through estimators: sums in which the analog part cancels.

``(round(x) - x).detach() + x`` has the value of ``round(x)`` and the derivative of ``x``. As a sum,
it is ``round(x) - x + x``: what is analog in it cancels, and what stays are events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, fx

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Kind, Operation, Slot
from fxsynops.operations.transpose import pull_broadcast
from fxsynops.operations.value_range import sums

_DEPTH = 6
Entry = Callable[[fx.Node], "tuple[Call, Operation | None]"]


def terms(node: fx.Node, entry: Entry) -> dict[fx.Node, float] | None:
    """The values that ``node`` is a sum of, each with how often it is added; None if none cancel.

    Args:
        node: any node.
        entry: the call of a node, and the entry that holds for it.
    """
    found: dict[fx.Node, float] = {}
    added: dict[fx.Node, float] = {}
    stack = [(node, 1.0, _DEPTH)]
    while stack:
        at, times, depth = stack.pop()
        parts = _terms(at, entry) if depth else None
        if parts is None:
            at = _first_of_its_kind(at, entry)
            found[at] = found.get(at, 0.0) + times
            added[at] = added.get(at, 0.0) + abs(times)
            continue
        stack += [(operand, times * factor, depth - 1) for factor, operand in parts]
    found = {at: round(times, 9) for at, times in found.items()}  # 1 + k - k is 1
    return found if any(abs(found[at]) < round(added[at], 9) for at in found) else None


def _first_of_its_kind(node: fx.Node, entry: Entry) -> fx.Node:
    """The first node that computes the same of the same."""
    operation = entry(node)[1] if node.op == "call_function" and node.all_input_nodes else None
    if operation is None or operation.kind is Kind.RANDOM or operation.masks:
        return node
    said = node.target, node.args, node.kwargs
    users = node.all_input_nodes[0].users
    return next(n for n in users if n.op == node.op and (n.target, n.args, n.kwargs) == said)


def _terms(node: fx.Node, entry: Entry) -> list[tuple[float, fx.Node]] | None:
    """What a node adds up; None if it is not a plain sum of tensors of one shape."""
    if node.op != "call_function":
        return None
    call, operation = entry(node)
    if operation is None or operation.terms is None:
        return None
    parts = operation.terms(call)
    plain = all(
        isinstance(n, fx.Node)
        and "spec" in n.meta
        and shape(n) == shape(node)
        and isinstance(factor, int | float)
        for factor, n in parts
    )
    return parts if parts and plain else None


def straight_through(entry: Entry) -> Operation:
    """The entry of a sum in which something cancels."""

    def left(call: Call) -> list[tuple[float, fx.Node]]:
        return [(times, n) for n, times in (terms(call.node, entry) or {}).items() if times]

    def pull(call: Call, map: Tensor) -> Iterator[Slot]:
        for times, node in left(call):
            yield pull_broadcast(node, map * abs(times), shape(call.node))

    return Operation(Kind.ROUTING, pull=pull, terms=left, merges=True, range=sums)
