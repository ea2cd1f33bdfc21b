"""Straight-through estimators: sums in which the analog part cancels.

``(round(x) - x).detach() + x`` has the value of ``round(x)`` and the derivative of ``x``. As a sum,
it is ``round(x) - x + x``: what is analog in it cancels, and what stays are events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, fx

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Kind, Operation, Slot
from fxsynops.operations.transpose import pull_broadcast
from fxsynops.operations.value_range import sums

_DEPTH = 6
_UNEQUAL = frozenset("rrelu gumbel_softmax batch_norm instance_norm native_batch_norm".split())
Entry = Callable[[fx.Node], "tuple[Call, Operation | None]"]


def terms(
    node: fx.Node, entry: Entry, vanishes: Callable[[fx.Node], bool]
) -> dict[fx.Node, float] | None:
    """The values that ``node`` is a sum of, each with how often it is added; None if none cancel.

    Args:
        node: any node.
        entry: the call of a node, and the entry that holds for it.
        vanishes: whether a value is zero because its own terms cancel.
    """
    found: dict[fx.Node, float] = {}
    added: dict[fx.Node, float] = {}
    first: dict[Any, fx.Node] = {}  # of those that compute the same
    cancel = False
    stack = [(node, 1.0, _DEPTH)]
    while stack:
        at, times, depth = stack.pop()
        if at is not node and vanishes(at):
            cancel = True
            continue
        parts = _terms(at, entry) if depth else None
        if parts is None:
            at = first.setdefault(_said(at, entry), at)
            found[at] = found.get(at, 0.0) + times
            added[at] = added.get(at, 0.0) + abs(times)
            continue
        stack += [(operand, times * factor, depth - 1) for factor, operand in parts]
    found = {at: round(times, 9) for at, times in found.items()}  # 1 + k - k is 1
    cancel = cancel or any(abs(found[at]) < round(added[at], 9) for at in found)
    return found if cancel and all(times.is_integer() for times in found.values()) else None


def _said(value: Any, entry: Entry, depth: int = 3) -> Any:
    """What a value is computed from, in a form that is equal for what is computed twice."""
    if isinstance(value, list | tuple):
        return tuple(_said(v, entry, depth) for v in value)
    if not isinstance(value, fx.Node):
        return repr(value)
    if value.op != "call_function" or not depth:
        return value
    call, operation = entry(value)
    if operation is None or operation.kind is Kind.RANDOM or operation.masks:
        return value
    if operation.is_copy(call):
        return _said(call["input"], entry, depth)
    changes = operation.draws(call) or value.meta.get("writes") or call.name in _UNEQUAL
    if changes:  # it may give something else each time
        return value
    kwargs = tuple((k, _said(v, entry, depth - 1)) for k, v in value.kwargs.items())
    return value.target, _said(list(value.args), entry, depth - 1), kwargs


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


def straight_through(found: dict[fx.Node, float]) -> Operation:
    """The entry of a sum in which something cancels, by its :func:`terms`."""

    def left(_: Call) -> list[tuple[float, fx.Node]]:
        return [(times, n) for n, times in found.items() if times]

    def pull(call: Call, map: Tensor) -> Iterator[Slot]:
        for times, node in left(call):
            yield pull_broadcast(node, map * abs(times), shape(call.node))

    return Operation(Kind.ROUTING, pull=pull, terms=left, merges=True, range=sums)
