"""A recorded graph, written out as one Python function with a line for each node.

A line calls what the node calls, has its events measured, and clears the values that no later line
reads. Of a neuron and a linear layer, say (all names but v… and replay are globals)::

    def run(replay, v0):
      v1 = _lif(v0); replay.measure(_stop, v1, 1.0); v0 = None
      v2 = _linear['_parameters']['weight']
      v3 = _function(v1, v2, None); v1 = v2 = None
      return v3
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from keyword import iskeyword
from types import FunctionType
from typing import Any

from torch import Tensor, fx

from fxsynops.counting.exact_sums import How
from fxsynops.counting.measured_nodes import Pass, Stop
from fxsynops.tracing.codegen import Objects
from fxsynops.tracing.graph_walk import upstream
from fxsynops.tracing.places import Place


@dataclass(frozen=True)
class Program:
    """A graph, written out.

    Attributes:
        run: the function, of the replay and of the placeholders' values; returns the output.
        nodes: those of its lines, of which the first only has its name.
    """

    run: Callable[..., Any]
    nodes: tuple[fx.Node, ...]

    def node_of(self, error: BaseException) -> fx.Node | None:
        """The node whose line has raised an error."""
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code is self.run.__code__:
                return self.nodes[trace.tb_lineno - 2]  # lines are counted from one
            trace = trace.tb_next
        return None


def write(
    graph: fx.Graph,
    reads: Mapping[str, Any],
    called: Callable[[fx.Node], Callable[..., Any]],
    stops: Mapping[fx.Node, Stop],
    weights: Iterable[fx.Node],
    due: Mapping[fx.Node, list[fx.Node]],
    *,
    compiles: bool = False,
) -> Program:
    """Write a graph out.

    Args:
        graph: the nodes.
        reads: what a ``get_attr`` node reads, by target: a place, or an object.
        called: what a node calls.
        stops: the nodes whose events are measured.
        weights: the nodes whose values ``replay.keep`` keeps.
        due: the nodes that are measured after a node.
        compiles: for ``torch.compile``, which would guard each attribute of a stop, and does not
            look into methods of tensors that are written in Python, but knows them as methods. It
            takes no replay, and returns the pass, too.
    """
    writer = _Writer(graph, reads, called, stops, frozenset(weights), due, compiles)
    run = writer.objects.function("run", "\n".join(writer.lines(graph)))
    return Program(run, tuple(graph.nodes))


class _Writer:
    """See :func:`write`."""

    def __init__(
        self,
        graph: fx.Graph,
        reads: Mapping[str, Any],
        called: Callable[[fx.Node], Callable[..., Any]],
        stops: Mapping[fx.Node, Stop],
        weights: frozenset[fx.Node],
        due: Mapping[fx.Node, list[fx.Node]],
        compiles: bool,
    ) -> None:
        self._reads, self._called, self._stops, self._weights = reads, called, stops, weights
        self._due, self._compiles = due, compiles
        self.objects = Objects()
        self._locals = {node: f"v{i}" for i, node in enumerate(graph.nodes)}
        self._units: set[int | None] = set()

    def lines(self, graph: fx.Graph) -> Iterator[str]:
        """The function: a line for its name, then one for each node."""
        given = (self._locals[node] for node in graph.nodes if node.op == "placeholder")
        if self._compiles:
            yield f"def run({', '.join(given)}):"
            yield f"  replay = {self.objects.name(Pass)}([None] * {len(self._stops)})"
        else:
            yield f"def run({', '.join(('replay', *given))}):"
        units = (unit for stop in self._stops.values() for unit in stop.scale.nodes)
        idle = _idle(graph, [*self._stops, *self._weights, *units])
        dead = self._last_uses(graph)
        for node in graph.nodes:
            statements = [] if node in idle else list(self._statements(node))
            if node in dead and node.op != "output":
                statements.append(" = ".join((*(self._locals[n] for n in dead[node]), "None")))
            yield "  " + "; ".join(statements or ["pass"])

    def _last_uses(self, graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
        """The nodes whose values nobody needs after a node."""
        found: dict[fx.Node, list[fx.Node]] = defaultdict(list)
        needed: set[fx.Node] = set()
        for node in reversed(graph.nodes):
            uses = [*node.all_input_nodes, node]
            for source in self._due.get(node, ()):
                uses += [source, *self._stops[source].scale.nodes]
            for used in uses:
                if used not in needed:
                    needed.add(used)
                    found[node].append(used)
        return found

    def _statements(self, node: fx.Node) -> Iterator[str]:
        name = self._locals[node]
        if node.op == "output":
            output = self._argument(node.args[0])
            yield f"return {output}, replay" if self._compiles else f"return {output}"
            return
        if node.op != "placeholder":
            yield f"{name} = {self._read(node) if node.op == 'get_attr' else self._call(node)}"
        if node in self._weights:
            yield f"replay.keep({self.objects.name(node)}, {name})"
        for source in self._due.get(node, ()):
            yield from self._measured(self._stops[source], self._locals[source])

    def _measured(self, stop: Stop, value: str) -> Iterator[str]:
        """How events are counted, whose worth is a number, or is looked up once in a pass."""
        name = self.objects.name(stop)
        if stop.unit is not None:
            unit = self.objects.value(stop.unit)
        elif stop.alike is None:
            times = self._argument(stop.scale.times + stop.scale.each)
            unit = f"{name}.worth({times}, {self._argument(stop.scale.over)})"
        else:
            unit = f"u{stop.alike}"
            if stop.alike not in self._units:
                self._units.add(stop.alike)
                yield f"{unit} = {name}.worth()"
        if not self._compiles:
            yield f"replay.measure({name}, {value}, {unit})"
            return
        how = ", ".join(map(repr, stop.reading.how))
        read = f"{self.objects.name(How)}({how}), {stop.aside}, {stop.doubtful}"
        yield f"replay.take({stop.number}, {value}, {unit}, {read})"

    def _read(self, node: fx.Node) -> str:
        read = self._reads[str(node.target)]
        return self.objects.place(read) if isinstance(read, Place) else self.objects.name(read)

    def _call(self, node: fx.Node) -> str:
        args = [self._argument(arg) for arg in node.args]
        if all(map(_is_plain, node.kwargs)):
            args += [f"{name}={self._argument(arg)}" for name, arg in node.kwargs.items()]
        else:
            args.append(f"**{self._argument(node.kwargs)}")
        called = self._called(node)
        if self._compiles and args and isinstance(called, FunctionType):
            name = called.__name__
            if vars(Tensor).get(name) is called:
                return f"{args[0]}.{name}({', '.join(args[1:])})"
        return f"{self.objects.name(called)}({', '.join(args)})"

    def _argument(self, arg: Any) -> str:
        """An expression for an argument.

        Lists and dicts are always made anew, since a call may keep or change them.
        """
        if isinstance(arg, fx.Node):
            return self._locals[arg]
        if isinstance(arg, dict):
            items = (f"{self.objects.value(k)}: {self._argument(v)}" for k, v in arg.items())
            return f"{{{', '.join(items)}}}"
        if isinstance(arg, list):
            return f"[{', '.join(map(self._argument, arg))}]"
        if isinstance(arg, tuple) and _holds_nodes(arg):
            parts = ", ".join(map(self._argument, arg))
            if hasattr(arg, "_fields"):  # a named tuple
                return f"{self.objects.name(type(arg))}({parts})"
            return f"({parts},)"
        if isinstance(arg, slice) and _holds_nodes((arg.start, arg.stop, arg.step)):
            ends = ", ".join(map(self._argument, (arg.start, arg.stop, arg.step)))
            return f"{self.objects.name(slice)}({ends})"
        return self.objects.value(arg)


def _idle(graph: fx.Graph, measured: list[fx.Node]) -> frozenset[fx.Node]:
    """Nodes beside the model's own whose values nobody looks at."""
    needed = set(upstream(measured))
    beside = (n for n in graph.nodes if n.meta.keys() & {"virtual", "unit"})
    return frozenset(n for n in beside if n.op != "get_attr" and n not in needed)


def _is_plain(name: str) -> bool:
    """Whether a parameter's name can be written as it is."""
    return name.isascii() and name.isidentifier() and not iskeyword(name) and name != "__debug__"


def _holds_nodes(values: tuple[Any, ...]) -> bool:
    """Whether there is a node, a list or a dict in a tuple."""
    return any(
        isinstance(value, (fx.Node, list, dict, slice))
        or (isinstance(value, tuple) and _holds_nodes(value))
        for value in values
    )
