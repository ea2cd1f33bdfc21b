"""Networks in NIR, the exchange format of spiking simulators, as modules that can be analyzed.

``nirtorch.nir_to_torch`` was tried, and fxsynops follows what it makes; it is not used because it
loses the bias of an ``Affine`` node, swaps the channels of a ``Conv1d``, renames nodes (``a.b`` to
``a_b``), makes one step per call, and takes what comes back in a loop to be of shape (1,) at first.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx
import torch
from torch import Tensor, nn

from fxsynops.errors import InputError
from fxsynops.nir.graph import AGAIN, flatten, input_shape, one_line, read_graph
from fxsynops.nir.nodes import STATEFUL, Neuron, Threshold, guess_dt, layer_of

if TYPE_CHECKING:
    import nir


def from_nir(
    source: str | Path | nir.NIRGraph,
    *,
    dt: float | None = None,
    reset: Literal["value", "subtract"] = "value",
) -> NIRModel:
    """A network in NIR as a module, to be analyzed with ``layout="NT"``.

    Modules, and so sources and synapses, go by the names of their nodes; those of a graph in a
    graph by ``outer.inner``. Every forward starts with all neurons at rest. Neurons take explicit
    Euler steps. Where the graph has a cycle, spikes come back one time step later: the delay is
    at the output of a neuron of the cycle.

    Args:
        source: a file (``net.nir``), or a graph.
        dt: length of a time step, in the unit of the graph's time constants (seconds, mostly),
            which NIR does not tell. It matters for counts, not for fan-out. None: 1e-4, which most
            exporters use, or the largest power of ten that no time constant is below, if that is
            less; 1 if all are 1 and more; and 1 / r if only integrators without a leak are there.
        reset: what a spike does to the potential: "value" sets it to v_reset, as NIR has it;
            "subtract" takes v_threshold off, as sinabs and snntorch do, whose files do not say so.

    Returns:
        a module that takes and returns (batch, time, …); see :class:`NIRModel`.

    Raises:
        InputError: there is no such file, it is damaged, or a node is not supported.

    Example:
        >>> import fxsynops, nir, numpy as np
        >>> ones = np.ones(3, dtype=np.float32)
        >>> graph = nir.NIRGraph.from_list(
        ...     nir.Linear(np.ones((3, 2), dtype=np.float32)),
        ...     nir.LIF(tau=ones, r=ones, v_leak=0 * ones, v_threshold=ones),
        ...     nir.Linear(np.ones((5, 3), dtype=np.float32)))
        >>> model = from_nir(graph)
        >>> analysis = fxsynops.analyze(model, nir_example(model), layout="NT")
        >>> [(c.source, c.synapse, c.fanout.total) for c in analysis.connections]
        [('input', 'linear', 6), ('lif', 'linear_1', 15)]
    """
    if reset not in ("value", "subtract"):
        raise InputError(f"reset is 'value' or 'subtract', not {reset!r}.")
    if dt is not None and not 0 < dt < math.inf:
        raise InputError(f"dt must be a positive number, not {dt!r}.")
    is_path = isinstance(source, str | Path)
    where = f"'{source}'" if is_path else "the NIR graph"
    graph = read_graph(Path(source), where) if is_path else source
    if not hasattr(graph, "nodes"):
        raise InputError(f"from_nir takes a file or a nir.NIRGraph, not a {type(source).__name__}.")
    return NIRModel(graph, dt, reset == "subtract", where)


def nir_example(
    source: NIRModel | str | Path | nir.NIRGraph,
    batch: int = 1,
    timesteps: int | None = None,
    events: bool = True,
) -> Any:
    """Something that a network in NIR takes, for analyses: the graph tells the shape.

    Args:
        source: what :func:`from_nir` takes or returns.
        batch, timesteps: sizes of the leading axes; ``timesteps`` None: one, or two if the network
            is recurrent, so that spikes come back.
        events: whether to make spikes (0 or 1), or analog values in [0, 1].

    Returns:
        (batch, timesteps, …); a tuple of them if there are several inputs.

    Raises:
        InputError: see :func:`from_nir`.

    Example:
        >>> import nir, numpy as np
        >>> nir_example(nir.NIRGraph.from_list(nir.Linear(np.ones((3, 2)))), batch=4).shape
        torch.Size([4, 1, 2])
    """
    model = source if isinstance(source, NIRModel) else from_nir(source)
    steps = 1 + model.recurrent if timesteps is None else timesteps
    generator = torch.Generator().manual_seed(0)
    shapes = model.input_shapes.values()
    made = tuple(torch.rand(batch, steps, *shape, generator=generator) for shape in shapes)
    made = tuple(x.round() if events else x for x in made)
    return made if len(made) > 1 else made[0]


class NIRModel(nn.Module):
    """What :func:`from_nir` makes; a module for each node that does something.

    The module of a node ``a.b`` is in a module ``a``. A name that no module can have (``forward``;
    ``a.b`` beside a node ``a``) gets underscores instead of dots, or at its end.

    Attributes:
        input_shapes: of the graph's inputs by name, without batch and time.
        dt: see :func:`from_nir`.
        recurrent: whether the graph has a cycle; it then runs step by step.
    """

    def __init__(self, graph: nir.NIRGraph, dt: float | None, subtract: bool, where: str) -> None:
        super().__init__()
        nodes, edges = flatten(graph, where)
        self._where = where
        self.dt = guess_dt(nodes.values()) if dt is None else dt
        kinds = {name: type(node).__name__ for name, node in nodes.items()}
        self._outputs = tuple(
            name for name in nodes if kinds[name] == "Output" and name in graph.nodes
        )
        self._inputs = tuple(
            name for name in nodes if kinds[name] == "Input" and name in graph.nodes
        )
        if not (self._inputs and self._outputs):
            raise InputError(f"{where} has no Input or no Output node. Add one of each.")
        self._before = {name: tuple(a for a, b in edges if b == name) for name in nodes}
        for name, before in self._before.items():
            if not before and name not in self._inputs:
                raise InputError(f"in {where}, nothing goes into node '{name}'. Add an edge to it.")
        self.input_shapes = {name: input_shape(nodes[name], name, where) for name in self._inputs}
        self._paths: dict[str, str] = {}
        for name, node in nodes.items():
            if kinds[name] not in ("Input", "Output"):
                layer = layer_of(node, f"{where}, node '{name}' ({kinds[name]})", self.dt, subtract)
                self._paths[name] = self._place(name, layer)
        self._wire(edges)
        self._try()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the first input, without batch and time."""
        return self.input_shapes[self._inputs[0]]

    def forward(self, input: Tensor, *more: Tensor) -> Any:
        """Inputs (batch, time, …), in the order of the graph, to outputs (a tuple if several)."""
        length = 1 if self.recurrent else input.shape[1]
        states: dict[str, Any] = {}
        found: list[tuple[Tensor, ...]] = []
        late = {
            name: input.new_zeros(len(input), 1, *shape) for name, shape in self._shapes.items()
        }
        for name in self._held:
            late[name], _ = self._run(name, [late[a] for a in self._before[name]], None)
        for chunk in zip(*(x.split(length, 1) for x in (input, *more)), strict=True):
            values = dict(zip(self._inputs, chunk, strict=True))
            for name in self._order:
                inputs = [
                    (late if (a, name) in self._late else values)[a] for a in self._before[name]
                ]
                values[name], states[name] = self._run(name, inputs, states.get(name))
            late = {name: values[name] for name in late}
            found.append(tuple(values[name] for name in self._outputs))
        outputs = tuple(torch.cat(part, 1) for part in zip(*found, strict=True))
        return outputs if len(outputs) > 1 else outputs[0]

    def extra_repr(self) -> str:
        """The time step."""
        return f"dt={self.dt:g}"

    def _run(self, name: str, inputs: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        x = inputs[0]
        for other in inputs[1:]:
            x = x + other
        if name not in self._paths:
            return x, None
        layer = self.get_submodule(self._paths[name])
        if isinstance(layer, STATEFUL):
            return layer(x, state)
        return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]), None

    def _place(self, name: str, layer: nn.Module) -> str:
        """Add a module under the name of its node, or one like it; returns its path."""
        *groups, last = name.split(".")
        parent: nn.Module = self
        for part in groups:
            if not part or not (hasattr(parent, part) or isinstance(parent, NIRModel | _Group)):
                break
            if not hasattr(parent, part):
                parent.add_module(part, _Group())
            parent = getattr(parent, part)
        else:
            top = isinstance(parent, NIRModel) and last == "input"  # the forward's argument
            fits = isinstance(parent, NIRModel | _Group) and not hasattr(parent, last)
            if last and fits and not top:
                parent.add_module(last, layer)
                return name
        path = name.replace(".", "_") or "node"
        while hasattr(self, path) or path == "input":
            path += "_"
        self.add_module(path, layer)
        return path

    def _wire(self, edges: list[tuple[str, str]]) -> None:
        """Find the order of evaluation, and the edges that bring what was one step before.

        A cycle is cut behind a neuron. What only such spikes reach through layers without a state
        is computed at once and its result kept (``_held``), so that all spikes reach the synapse.
        """
        cut: set[tuple[str, str]] = set()
        graph = nx.DiGraph(edges)
        graph.add_nodes_from(self._before)
        while True:
            try:
                cycle = nx.find_cycle(graph, [*self._inputs, *self._before])
            except nx.NetworkXNoCycle:
                break
            behind = [e for e in cycle if self._is(e[0], Neuron)]
            if not behind:
                raise InputError(
                    f"in {self._where}, the cycle {' → '.join(a for a, _ in cycle)} has no spiking "
                    "neuron, so its values depend on themselves. Put one, or none of the edges, in."
                )
            cut.add(behind[-1])
            graph.remove_edge(*behind[-1])
        self.recurrent = bool(cut)
        self._cut, self._held = {a for a, _ in cut}, []
        while ready := next((n for n in self._before if self._can_be_held(n, cut)), None):
            self._held.append(ready)
            cut -= {(a, ready) for a in self._before[ready]}
            cut |= {(ready, b) for a, b in edges if a == ready}
        self._late = frozenset(cut)
        graph = nx.DiGraph(e for e in edges if e not in cut)
        graph.add_nodes_from(self._before)
        self._order = [n for n in nx.topological_sort(graph) if n not in self._inputs]

    def _is(self, name: str, types: Any) -> bool:
        return name in self._paths and isinstance(self.get_submodule(self._paths[name]), types)

    def _can_be_held(self, name: str, cut: set[tuple[str, str]]) -> bool:
        before = self._before[name]
        plain = name in self._paths and not self._is(name, (*STATEFUL, Threshold))
        return plain and bool(before) and all((a, name) in cut for a in before)

    @torch.no_grad()
    def _try(self) -> None:
        """See that shapes fit, and note those of the spikes that come back."""
        with warnings.catch_warnings():  # of a delay longer than this one step
            warnings.simplefilter("ignore")
            self._try_steps()

    def _try_steps(self) -> None:
        values = {name: torch.zeros(1, 1, *shape) for name, shape in self.input_shapes.items()}
        before = 0
        while before < len(values):  # at first, what comes back is not known
            before = len(values)
            for name in self._order:
                known = [a for a in self._before[name] if a in values]
                try:
                    if known:
                        values[name], _ = self._run(name, [values[a] for a in known], None)
                except Exception as error:
                    shapes = ", ".join(f"'{a}' {tuple(values[a].shape[2:])}" for a in known)
                    raise InputError(
                        f"in {self._where}, node '{name}' does not take what it gets from {shapes}"
                        f": {one_line(error)}. {AGAIN}"
                    ) from error
        for name in self._order:
            if name not in values:
                raise InputError(
                    f"in {self._where}, nothing that comes from an Input reaches node '{name}'. "
                    "Add an edge to it."
                )
        self._shapes = {name: tuple(values[name].shape[2:]) for name in sorted(self._cut)}


class _Group(nn.Module):
    """Modules whose names have the same beginning."""
