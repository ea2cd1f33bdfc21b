"""Files of NIR, the exchange format of spiking simulators, and graphs within graphs."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

from fxsynops.errors import InputError

AGAIN = "Export the network again."


def one_line(error: Exception) -> str:
    """What an error says, or its name."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def read_graph(path: Path, where: str) -> Any:
    """The graph in a file.

    Raises:
        InputError: there is no file, or something in it is damaged or unknown.
    """
    try:
        import nir
    except ImportError:
        raise InputError("NIR needs the package nir: pip install 'fxsynops[nir]'.") from None
    if not path.is_file():
        raise InputError(f"there is no file {where}.")
    try:
        checks = "type_check" in signature(nir.read).parameters  # which older files do not pass
        return nir.read(path, **({"type_check": False} if checks else {}))
    except Exception as error:
        raise InputError(
            f"{where} is no NIR file that can be read: {_fault(path, error)}"
        ) from error


def _fault(path: Path, error: Exception) -> str:
    """The node of a file that does not become one, or else what went wrong, and the cure."""
    from nir import dict2NIRNode, ir, serialization

    def faulty(node: Any, name: str) -> str | None:
        kind, label = node.get("type"), f"node '{name}'" if name else "the whole"
        for part, below in node.get("nodes", {}).items():
            found = faulty(below, f"{name}.{part}" if name else part)
            if found:
                return found
        if "nodes" in node:
            return None
        if kind not in ir.__all__:
            return f"{label} is of the unknown type {kind!r}. Update the package nir."
        try:
            dict2NIRNode(dict(node))
        except Exception as error:
            return f"{label} ({kind}) is damaged: {one_line(error)}. {AGAIN}"
        return None

    try:
        with serialization.h5py.File(path) as file:
            return faulty(serialization.hdf2dict(file["node"]), "") or f"{one_line(error)}. {AGAIN}"
    except Exception:
        return f"{one_line(error)}. {AGAIN}"


def flatten(
    graph: Any, where: str, prefix: str = ""
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """All nodes of a graph and of those in it by name, and the edges, both in the nodes' order.

    Raises:
        InputError: an edge leads nowhere.
    """
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    ends: dict[str, dict[str, list[str]]] = {}  # of graphs in it: their inputs and outputs
    for name, node in graph.nodes.items():
        path = f"{prefix}{name}"
        if not hasattr(node, "nodes"):
            nodes[path] = node
            continue
        below, between = flatten(node, where, f"{path}.")
        nodes |= below
        edges += between
        ends[name] = {
            kind: [f"{path}.{n}" for n, end in node.nodes.items() if type(end).__name__ == kind]
            for kind in ("Input", "Output")
        }
    for edge in graph.edges:
        points = []
        for name, kind in zip(edge, ("Output", "Input"), strict=True):
            if name not in graph.nodes:
                raise InputError(
                    f"in {where}, the edge {edge[0]} → {edge[1]} is between nodes of which "
                    f"'{name}' does not exist. {AGAIN}"
                )
            found = ends[name][kind] if name in ends else [f"{prefix}{name}"]
            if len(found) != 1:
                raise InputError(
                    f"in {where}, the graph '{prefix}{name}' has {len(found)} {kind} nodes, so it "
                    "is not clear where an edge to it leads. Give it one."
                )
            points += found
        edges.append((points[0], points[1]))
    order = {name: i for i, name in enumerate(nodes)}
    return nodes, sorted(set(edges), key=lambda edge: (order[edge[0]], order[edge[1]]))


def input_shape(node: Any, name: str, where: str) -> tuple[int, ...]:
    """What an Input node takes, without batch and time."""
    shape = node.input_type["input"]
    if shape is None:
        raise InputError(f"in {where}, Input node '{name}' has no shape. {AGAIN}")
    return tuple(int(size) for size in shape)
