"""Writing nodes, each with what stands beside it: the user's line, the module, the modes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from torch import fx

from fxsynops.tracing import graph_functions
from fxsynops.tracing.node_meta import Mode, Site, site_below

# Nodes that hold data, whatever their operands do: what a module has made, or holds.
_READS_DATA = (
    graph_functions.forward_of,
    graph_functions.read_state,
    graph_functions.read_attribute,
)


class GraphWriter:
    """A graph that is being written.

    Args:
        device: the type of device that autocast modes are of.
        bottom: the code of the function below which the user's own begins.

    Attributes:
        graph: the nodes so far.
        stack: the paths of the modules whose forwards are running, the innermost last.
        virtual: whether nodes are for the analysis alone.
        mode: the gradient and autocast mode around the whole forward.
    """

    def __init__(self, device: str, bottom: CodeType) -> None:
        self.graph = fx.Graph()
        self.stack = [""]
        self.virtual = False
        self.mode = Mode.now(device)
        self._bottom = bottom

    @property
    def module(self) -> str:
        """The path of the innermost module whose forward is running."""
        return self.stack[-1]

    def site(self) -> Site:
        """Where in the user's code things are."""
        return site_below(self._bottom, self.module)

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """In the forward of a module."""
        self.stack.append(path)
        yield
        self.stack.pop()  # not after an error: its message names the module

    def node(
        self,
        op: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        mode: Mode | None = None,
    ) -> fx.Node:
        """A new node at the end of the graph."""
        name = name or getattr(target, "__name__", None) or op
        name = "".join(c if c.isalnum() else "_" for c in name).strip("_") or op
        name = f"n_{name}" if name[0].isdigit() else name
        node = self.graph.create_node(op, target, args, kwargs or {}, name)
        node.meta["site"] = self.site() if op.startswith("call") else Site("", "")
        node.meta["mode"] = mode or self.mode
        made = op in ("placeholder", "call_module") or target in _READS_DATA
        node.meta["data"] = made or any(n.meta["data"] for n in node.all_input_nodes)
        node.meta["sized"] = any(n.meta["sized"] for n in node.all_input_nodes)
        if self.virtual:
            node.meta["virtual"] = True
            node.meta["module"] = self.module
        return node
