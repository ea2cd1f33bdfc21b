"""Imports run one way along the flow of data, and never in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import networkx as nx

import fxsynops

ROOT = Path(fxsynops.__file__).parent
# Each may import what stands above it, and itself. ``nn`` holds neurons that users build with, like
# any library of neurons.
FLOW = (
    ("errors", "version", "nn"),
    ("tracing",),
    ("operations", "neurons"),
    ("connectivity",),
    ("bounds", "counting"),
    ("cost", "reporting"),
    ("budget", "chips", "comparison", "devices", "drawing", "energy", "plot", "results"),
    ("analysis",),
    ("compiled",),
    ("counter",),
    ("losses", "metrics", "nir", "logging"),
    ("lightning",),
    ("",),  # the list of public names
    ("cli",),
    ("__main__",),
)
# An analysis makes a counter, and a counter holds an analysis.
FACADES = {"analysis", "counter"}
# Siblings of one floor that lean on each other one way.
BESIDE = {("neurons", "operations"), ("cost", "reporting")}


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports when it runs, wherever the import stands."""
    names = set()
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fxsynops":
            inside = (node.module or "").removeprefix("fxsynops").removeprefix(".")
            for alias in node.names:
                full = f"{inside}.{alias.name}" if inside else alias.name
                names.add(full if full in known else inside)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "fxsynops":
                    names.add(alias.name.removeprefix("fxsynops").removeprefix("."))
    return names


def floor(module: str) -> int:
    top = module.split(".")[0]
    return next(i for i, names in enumerate(FLOW) if top in names)


def test_every_folder_has_its_place():
    for module in modules():
        assert floor(module) >= 0


def test_imports_run_along_the_flow():
    known = modules()
    wrong = []
    for module, path in known.items():
        for used in imports(path, known):
            own, other = module.split(".")[0], used.split(".")[0]
            beside = floor(module) == floor(used) and own != other
            allowed = not beside or (own, other) in BESIDE or len(FLOW[floor(module)]) > 2
            if {module, used} != FACADES and (floor(used) > floor(module) or not allowed):
                wrong.append(f"{module} imports {used}")
    assert not wrong


def test_no_circles():
    known = modules()
    graph = nx.DiGraph()
    for module, path in known.items():
        graph.add_edges_from((module, used) for used in imports(path, known) if used != module)
    circles = [c for c in nx.strongly_connected_components(graph) if len(c) > 1]
    assert circles == [FACADES]


def test_bounds_do_not_count():
    known = modules()
    for module, path in known.items():
        if module.startswith("bounds"):
            assert not any(used.startswith("counting") for used in imports(path, known))


def test_constants_are_made_on_the_cpu_whatever_device_a_user_has_set():
    """What is made while a module is imported stays there for good."""
    makers = {"tensor", "ones", "zeros", "arange", "full", "empty", "eye", "linspace", "rand"}

    def at_import(tree: ast.AST):
        for node in ast.iter_child_nodes(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield node
                yield from at_import(node)

    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules().values()
        for node in at_import(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "torch"
        and node.func.attr in makers
        and "device" not in {keyword.arg for keyword in node.keywords}
    ]
    assert wrong == []
