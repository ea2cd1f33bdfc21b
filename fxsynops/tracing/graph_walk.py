"""Walking over a graph whose edges are a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from torch import fx

Node = TypeVar("Node")


def reachable(starts: Iterable[Node], ahead: Callable[[Node], Iterable[Node]]) -> Iterator[Node]:
    """Every node that can be reached, the starts included, each once.

    Args:
        starts: where to begin.
        ahead: the nodes to go to from a node; asked for only once that node has been given out.
    """
    seen: set[Node] = set()
    stack = list(starts)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            yield node
            stack += ahead(node)


def upstream(starts: Iterable[fx.Node]) -> Iterator[fx.Node]:
    """Nodes, and everything that they are computed from."""
    return reachable(starts, lambda node: node.all_input_nodes)
