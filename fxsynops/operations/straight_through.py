"""Straight-through estimators: sums in which the analog part cancels.

``(round(x) - x).detach() + x`` has the value of ``round(x)`` and the derivative of ``x``. As a sum,
it is ``round(x) - x + x``: what is analog in it cancels, and what stays are events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import Tensor, fx

from fxsynops.operations.registry import Call, Kind, Operation, Slot, operation_name, shape
from fxsynops.operations.transpose import pull_broadcast

_SIGNS = {"add": (1, 1), "sub": (1, -1), "subtract": (1, -1), "rsub": (-1, 1), "neg": (-1,)}
_COPIES = ("detach", "clone", "alias", "contiguous", "get_data")
_DEPTH = 6


def terms(node: fx.Node) -> Counter[fx.Node]:
    """The values that ``node`` is a sum of, each with how often it is added."""
    found: Counter[fx.Node] = Counter()
    stack = [(node, 1, _DEPTH)]
    while stack:
        at, sign, depth = stack.pop()
        signs = _signs(at) if depth else None
        if signs is None:
            found[at] += sign
            continue
        for operand, own in zip(at.args, signs, strict=False):
            stack.append((operand, sign * own, depth - 1))  # type: ignore[arg-type]
    return found


def _signs(node: fx.Node) -> tuple[int, ...] | None:
    """The signs of a sum's operands; None if it is not a plain sum of tensors of one shape."""
    if node.op != "call_function" or node.kwargs:
        return None
    name = operation_name(node.target)
    signs = (1,) if name in _COPIES else _SIGNS.get(name)
    operands = node.args
    plain = signs is not None and len(operands) == len(signs)
    if not plain or not all(
        isinstance(n, fx.Node) and "spec" in n.meta and shape(n) == shape(node) for n in operands
    ):
        return None
    return signs


def _pull(call: Call, map: Tensor) -> Iterator[Slot]:
    for node, times in terms(call.node).items():
        if times:
            yield pull_broadcast(node, map * abs(times), shape(call.node))


straight_through = Operation(Kind.ROUTING, _pull, merges=True)
