"""Replaying a trace: what the model does, and the count beside it.

    Replay.count(args)
      ├─ run(*args)                          the graph, from its first node to its last
      │    └─ run_node(node)                 one node: what it calls (called), then …
      │         └─ measure(stop, value, unit)  … the events in its value, read once
      └─ tally(…)                            events × fan-out of all connections together

``run`` does not go from node to node as ``fx.Interpreter`` does: the same is written out as one
Python function (:mod:`fxsynops.counting.program`). Node by node, a pass of SEW-ResNet-18 takes 4 %
more (140 nodes), and one of a network in a loop over ten steps 10 % more (141 nodes). A subclass
that overrides :meth:`Replay.run_node` is run node by node; one that overrides
:meth:`Replay.measure` sees every value that is measured, and :meth:`Replay.called` decides what
each node calls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxsynops.connectivity.moments import Moment, Moments
from fxsynops.connectivity.results import Connection, Findings
from fxsynops.connectivity.sample_axes import Leading, leading
from fxsynops.counting.exact_sums import (
    Contraction,
    Reading,
    Tally,
    Term,
)
from fxsynops.counting.firing_rates import Firing
from fxsynops.counting.measured_nodes import (
    Arrival,
    Multiplied,
    Pass,
    Pruned,
    Sparse,
    Stop,
    sparse_synapses,
)
from fxsynops.counting.per_sample import PerSample
from fxsynops.counting.per_step import PerStep
from fxsynops.counting.program import Program, write
from fxsynops.errors import SpecializationError, TraceError
from fxsynops.operations.call import shape, writes_in_place
from fxsynops.operations.operation import Scale
from fxsynops.operations.products import Product
from fxsynops.operations.registry import is_torch
from fxsynops.tracing import graph_functions
from fxsynops.tracing.devices import own_device
from fxsynops.tracing.graph_functions import forward_of
from fxsynops.tracing.graph_walk import reachable, upstream
from fxsynops.tracing.node_meta import Mode
from fxsynops.tracing.places import Place
from fxsynops.tracing.sharded import (
    assembled,
    in_a_group,
    is_in_parts,
    is_parallelized,
    outputs_of_parts,
    tied,
)
from fxsynops.tracing.torch_versions import add_note, compiles_functions


@dataclass(frozen=True)
class Detail:
    """What sums are to be kept apart beside those that the count needs.

    Attributes:
        rates: those of every neuron.
        samples: those of every sample.
        steps: those of every step.
    """

    rates: bool = False
    samples: bool = False
    steps: bool = False


@dataclass(frozen=True)
class Rows:
    """What the rows of a tally are, by their numbers.

    Attributes:
        connections: the first of them.
        fired: behind them, the events of every spiking node, by name.
        arriving: events at a synapse's input, by the connection's key.
        multiplied: multiply-accumulates of analog inputs that are not zero, by synapse.
    """

    connections: tuple[Connection, ...]
    fired: dict[str, int] = field(default_factory=dict)
    arriving: dict[tuple[str, str, str], int] = field(default_factory=dict)
    multiplied: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many there are."""
        beside = len(self.fired) + len(self.arriving) + len(self.multiplied)
        return len(self.connections) + beside

    @cached_property
    def keys(self) -> tuple[Any, ...]:
        """What tells them apart from those of another trace."""
        connections = (connection.key for connection in self.connections)
        return (*connections, *self.fired, *self.arriving, *self.multiplied)


class OtherBranchError(SpecializationError):
    """The forward goes another way than the one that was recorded, by its own output.

    Attributes:
        seen: what was read at its branches, the last one included.
    """

    def __init__(self, message: str, seen: tuple[object, ...]) -> None:
        super().__init__(message)
        self.seen = seen


class Replay(fx.Interpreter):
    """Runs an analyzed model, for inputs of the analyzed shape, and counts.

    Args:
        analysis: of the model.
        detail: what to keep apart.
        moments: where values have samples and steps, to keep something apart; where that is not
            known, the leading axes are taken for them, but for steps.

    Attributes:
        firing: reads the rates of every spiking node from the partial sums of a pass.
        per_sample: reads the SynOps of every sample from them, after a pass.
        per_step: reads those of every step, after a pass.
        steps_unknown: why it cannot.
        names: of the nodes that are measured, by the numbers of their sums.
        counted: the nodes that connections count at.
        rows: what the rows of a tally are.
    """

    firing: tuple[Firing, ...] = ()
    per_sample: PerSample | None = None
    per_step: PerStep | None = None
    steps_unknown: str = ""

    def __init__(
        self,
        analysis: Findings,
        detail: Detail = Detail(),
        moments: Moments | None = None,
    ) -> None:
        graph = analysis.trace.graph
        super().__init__(analysis.model, garbage_collect_values=False, graph=graph)
        self.analysis, self._detail = analysis, detail
        self.submodules = analysis.trace.modules
        self.keys = tuple(connection.key for connection in analysis.connections)
        self._roles = analysis.connector.signals.roles
        self._stops: dict[fx.Node, Stop] = {}
        self._products: list[tuple[int, Product]] = []
        for row, connection in enumerate(analysis.connections):
            for tap in connection.taps:
                if tap.product is None:
                    self._stop(tap.node, tap.scale).add(row, tap)
                    continue
                self._products.append((row, tap.product))
                for side, node in enumerate(tap.product.operands):
                    stop = self._stop(node, self._roles[node].signal.scale)
                    stop.kept |= set(tap.product.shared(side))
        self.counted, self.rows = frozenset(self._stops), Rows(analysis.connections)
        self._others = list(self._of_neurons())
        self._arrivals = list(self._arriving())
        self._dense = list(self._multiplied())
        following = sparse_synapses(analysis, self._stops)
        for sparse in following:
            keys = {c.key for c in analysis.connections if c.calls is sparse.synapse}
            rows = {row for key, row in self.rows.arriving.items() if key in keys}
            sparse.arrivals = [one for one in self._arrivals if one.row in rows]
        passes = analysis.window.samples * analysis.window.timesteps
        self._macs = {row.synapse: row.macs * passes for row in analysis.dense}
        self._pruned = list(self._followed())
        self._sparse: list[Sparse | Multiplied | Pruned] = [
            *following,
            *self._dense,
            *self._pruned,
        ]
        self._moments, self._is_in_parts = moments, is_in_parts(analysis.model)
        self._is_parallelized = is_parallelized(analysis.model)
        firing = list(self._keep_neurons()) if detail.rates else []
        if detail.samples:
            self._keep_samples()
        if detail.steps:
            self._keep_steps()
        first: dict[Any, int] = {}
        for stop in self._stops.values():
            self._settle(stop)
            if stop.scale.fixed:
                module = self._roles[stop.node].module
                stop.alike = first.setdefault((id(module), stop.scale.factor), stop.number)
        for node in self._stops.keys() - self.counted if not detail.rates else ():
            self._stops[node].doubtful, self._stops[node].aside = False, True
        self.firing = tuple(self._firing(name, calls) for name, calls in firing)
        self._contraction: Contraction | None = None
        self.names = {stop.number: analysis.connector.names[n] for n, stop in self._stops.items()}
        self._pass = Pass([])

    # -- ahead of runs ---------------------------------------------------------------------------

    def _stop(self, node: fx.Node, scale: Scale | None) -> Stop:
        number = len(self._stops)
        return self._stops.setdefault(node, Stop(node, number, scale or Scale()))

    def _of_neurons(self) -> Iterator[Term]:
        """Every spiking node's events, whatever they reach."""
        fired = self.rows.fired
        for name, nodes in self.analysis.spiking.items():
            fired[name] = row = self.rows.count
            for node in map(self.analysis.emitted, nodes):
                scale = Scale() if self._graded else self._roles[node].signal.scale
                yield Term(row, self._stop(node, scale).number, torch.ones((), device="cpu"), 1)

    def _arriving(self) -> Iterator[Arrival]:
        """Events at the synapses' inputs, where they are no multiple of those that are measured."""
        connector = self.analysis.connector
        for connection in self.analysis.connections:
            follows = any(connector.followed(connection.calls))
            if connection.arriving is not None and not follows:
                continue
            if any(tap.product is not None for tap in connection.taps):
                continue
            self.rows.arriving[connection.key] = row = self.rows.count
            for tap in connection.taps:
                stop = self._stops[tap.node]
                stop.kept |= {axis for axis, n in enumerate(tap.arriving.shape) if n > 1}
                yield Arrival(row, tap.node, stop.number, tap.arriving, tap.repeats)

    def _multiplied(self) -> Iterator[Multiplied]:
        """Inputs of analog synapses that are not zero, if each event is counted that is not."""
        for dense in self.analysis.dense if self._graded else ():
            self.rows.multiplied[dense.synapse] = row = self.rows.count
            for node in dense.calls.calls:
                call = self._roles[node].synapse
                assert call is not None
                x = call.input
                mask = self._roles[x].signal.mask if self._roles[node].carriers else None
                sparse = self.analysis.options.weights != "all"
                weight = call.weight if sparse else None
                yield Multiplied(row, self._stop(x, Scale()), call, mask, weight)

    def _followed(self) -> Iterator[Pruned]:
        """Analog synapses of whose weights only those count that are not zero."""
        if self._graded or self.analysis.options.weights == "all":
            return
        for dense in self.analysis.dense:
            calls = []
            for node in dense.calls.calls:
                role = self._roles[node]
                if role.synapse is None:
                    continue
                mask = self._roles[role.synapse.input].signal.mask if role.carriers else None
                if role.carriers and mask is None:
                    continue
                calls.append((role.synapse, role.synapse.weight, mask))
            yield Pruned(dense.synapse, calls, self._macs[dense.synapse])

    def _leading(self, stop: Stop, calls: int = 1) -> Leading:
        analysis, moment = self.analysis, None
        if self._moments is not None and calls == 1:
            moment = self._moments.of(stop.node)
        if isinstance(moment, Moment):
            return Leading(tuple(moment.axes), moment.sample, moment.merged, analysis.window)
        return leading(shape(stop.node), calls, analysis.window, analysis.options.layout)

    def _keep_neurons(self) -> Iterator[tuple[str, list[tuple[Stop, tuple[int, ...]]]]]:
        """Measure every spiking node, each of its neurons apart; its calls by name and shape."""
        by_step = self.analysis.options.layout.by_step
        for name, nodes in self.analysis.spiking.items():
            by_shape: dict[tuple[int, ...], list[tuple[Stop, tuple[int, ...]]]] = defaultdict(list)
            for node in map(self.analysis.emitted, nodes):
                stop = self._stop(node, self._roles[node].signal.scale)
                grown = None if self._moments is None else self._moments.grown(node)
                seem = self._leading(stop, len(nodes)).axes
                summed = seem if grown is None else tuple(sorted(grown))
                if by_step and not summed:  # of a state that is as it was in a wider pass
                    window = self.analysis.window
                    summed = leading(shape(node), 1, window, self.analysis.options.layout).axes
                own = [axis for axis in range(len(shape(node))) if axis not in summed]
                by_shape[tuple(shape(node)[axis] for axis in own)].append((stop, summed))
                stop.kept |= set(own)
            for i, same in enumerate(by_shape.values()):
                yield (f"{name}#{i + 1}" if i else name), same

    def _firing(self, name: str, calls: list[tuple[Stop, tuple[int, ...]]]) -> Firing:
        window = self.analysis.window
        read = [(stop.number, stop.reading, axes) for stop, axes in calls]
        return Firing(name, read, window.samples * window.timesteps)

    def _keep_samples(self) -> None:
        for stop in self._stops.values():
            lead = self._leading(stop)
            stop.kept |= set() if lead.sample is None else {lead.sample}

    def _keep_steps(self) -> None:
        """Keep steps and samples apart, if it is known of all events when they are."""
        assert self._moments is not None
        by_step = self.analysis.options.layout.by_step
        self._when: dict[tuple[fx.Node, int], Moment] = {}
        into = self._inputs_of_synapses()
        for stop in self._stops.values():
            tapped = [tap.repeats for tap in stop.taps]
            for repeats in tapped or ([1] if self._is_factor(stop.node) else []):
                moment = self._moments.of(stop.node, repeats, into[stop.node])
                if isinstance(moment, str) and self.analysis.window.timesteps == 1:
                    moment = Moment()  # samples may be unknown
                if isinstance(moment, str):
                    self.steps_unknown = moment
                    return
                if by_step and stop.node.op == "get_attr":
                    if not self._is_of_the_step_before(stop.node):
                        name = self.analysis.connector.names[stop.node]
                        self.steps_unknown = f"'{name}' may hold events of more than one step"
                        return
                    moment = replace(moment, at=-1)
                self._when[stop.node, repeats] = moment
                stop.kept |= moment.axes

    def _is_of_the_step_before(self, state: fx.Node) -> bool:
        """Whether what a state holds are the events that the last forward has made, and no others.

        This forward leaves in it what its own sources put out.
        """
        left = self.analysis.trace.written.get(str(state.target))
        if left is None:
            return False

        def back(node: fx.Node) -> list[fx.Node]:
            role = self._roles.get(node)
            fires = role is not None and role.kind == "source" and node.op.startswith("call")
            return [] if fires else node.all_input_nodes

        held = (node for node in reachable([left], back) if node.op == "get_attr")
        return all(self._roles[node].signal.kind != "events" for node in held)

    def _inputs_of_synapses(self) -> dict[fx.Node, list[fx.Node]]:
        """For each source, the inputs of the synapses that its events reach."""
        found: dict[fx.Node, list[fx.Node]] = defaultdict(list)
        for connection in self.analysis.connections:
            calls = (self._roles[call].synapse for call in connection.calls.calls)
            inputs = [call.input for call in calls if call is not None]
            for tap in connection.taps:
                found[tap.node] += inputs
        return found

    def _is_factor(self, node: fx.Node) -> bool:
        return any(node in product.operands for _, product in self._products)

    def _settle(self, stop: Stop) -> None:
        """Find out how a stop is read, once all connections have been added."""
        graded, role = self._graded, self._roles[stop.node]
        neuron = role.neuron
        signed = neuron is None or neuron.may_be_negative(role.module)
        looked_up = not stop.scale.fixed or callable(neuron and neuron.amplitude)
        behind = self.analysis.connector.signals.behind(stop.node)
        neurons = [(r.neuron, r.module) for r in (role, *(self._roles[n] for n in behind))]
        rounded = any(n and n.rounded for n, _ in neurons)
        size, kept = shape(stop.node), sorted(stop.kept)
        stop.reading = Reading(size, kept, signed=signed, graded=graded, rounded=rounded)
        stop.doubtful = not graded and any(n and n.may_be_fraction(m) for n, m in neurons)
        stop.unit = 1.0 if graded else None if looked_up else float(stop.scale.factor)
        if neuron is not None and callable(neuron.amplitude):
            stop.amplitude = neuron.amplitude, role.module

    @property
    def _graded(self) -> bool:
        return self.analysis.options.events == "nonzero"

    @cached_property
    def _program(self) -> Program:
        return self._written()

    def _written(self, compiles: bool = False) -> Program:
        stops, weights = self._stops, self._used_weights
        return write(
            self.graph, self._reads, self.called, stops, weights, self._due, compiles=compiles
        )

    @cached_property
    def _reads(self) -> dict[str, Any]:
        """What a ``get_attr`` node reads, by target: a place, or an object."""
        return self.analysis.trace.constants | self.analysis.trace.reads

    @cached_property
    def _used_weights(self) -> frozenset[fx.Node]:
        """The nodes of values that decide which events and synapses count."""
        return frozenset(n for sparse in self._sparse for n in sparse.values)

    @cached_property
    def _due(self) -> dict[fx.Node, list[fx.Node]]:
        """What is measured after a node: its own value, or inputs that it was the first to read."""
        due: dict[fx.Node, list[fx.Node]] = defaultdict(list)
        late, order = self._first_synapse(), {n: i for i, n in enumerate(self.graph.nodes)}
        for node, stop in self._stops.items():
            last = max((node, *stop.scale.nodes), key=order.__getitem__)
            due[late if late and last.op == "placeholder" else last].append(node)
        return due

    def _first_synapse(self) -> fx.Node | None:
        """The first synapse, if nothing before it may write to the inputs.

        Once it has read them they are in cache, and it has not had to wait for the measurement.
        """
        for node in self.graph.nodes:
            if node.op in ("placeholder", "get_attr"):
                continue
            kind = self._roles[node].kind if node in self._roles else "other"
            if kind not in ("routing", "synapse") or not _only_reads(node):
                return None
            if "virtual" not in node.meta and kind == "synapse":
                return node
        return None

    def called(self, node: fx.Node) -> Callable[..., Any]:
        """What a node calls, under the mode that it was recorded in."""
        function: Any = node.target
        if node.op == "call_module":
            function = self.submodules[str(node.target)]
            if type(function).__call__ is not nn.Module.__call__:  # what else it does is recorded
                function = partial(nn.Module.__call__, function)
        mode, ambient = node.meta["mode"], self.analysis.trace.mode
        if mode == ambient:
            return function

        def under_its_mode(*args: Any, **kwargs: Any) -> Any:
            with _under(mode, ambient):
                return function(*args, **kwargs)

        return under_its_mode

    @cached_property
    def branches(self) -> dict[fx.Node, object]:
        """Where the forward has branched on data, and what was read there, in order."""
        return {
            node: node.args[2]
            for node in self.graph.nodes
            if node.target is graph_functions.check_branch
        }

    @cached_property
    def own_branches(self) -> frozenset[fx.Node]:
        """Those on plain numbers that are read from the network's own output.

        Another number is another trace there; a branch on the inputs alone is an error.
        """
        return frozenset(node for node in self.branches if self._is_own(node))

    def may_go_on(self, seen: tuple[object, ...]) -> bool:
        """Whether this is a forward that has read these values at its first branches."""
        found = tuple(self.branches.values())[: len(seen)]
        return found == seen and self.analysis.trace.conditions.hold()

    def _is_own(self, check: fx.Node) -> bool:
        if check.args[0] is graph_functions.size_of:
            return False
        roles = (self._roles.get(node) for node in upstream([check]))
        return any(role is not None and (role.counted or role.module) for role in roles)

    def compilable(self) -> Callable[..., tuple[Any, Pass]] | None:
        """A pass for a compiler: the output, and what was taken down; None if there is more to it.

        A function for each replay, so that the compiler does not take their shapes for dynamic.
        """
        follows = self.own_branches or self._used_weights or in_a_group() or self._is_parallelized
        if follows or type(self) is not Replay or not compiles_functions():
            return None
        return self._compilable

    @cached_property
    def _compilable(self) -> Callable[..., tuple[Any, Pass]]:
        return self._written(compiles=True).run

    @property
    def macs(self) -> dict[str, float]:
        """Multiply-accumulates of the last pass, by synapse with analog input."""
        return self._macs | {pruned.name: pruned.macs for pruned in self._pruned}

    # -- running ---------------------------------------------------------------------------------

    def count(self, args: tuple[Any, ...]) -> tuple[Any, Tally]:
        """The model's output for ``args`` (one per placeholder), and the tally."""
        around = self._pass  # in which a hook calls the model again
        self._pass = taken = Pass([None] * len(self._stops))
        try:
            if not in_a_group():
                output = self.run(*args)
            else:  # also where a wrapper around the counter shards, or averages
                with outputs_of_parts() as parts:
                    output = self.run(*args)
                taken.parts = [tied(part, [output, *parts]) for part in taken.parts]
            return output, self.tally(taken)
        finally:
            self._pass = around

    def run_node(self, n: fx.Node) -> Any:
        """Execute one node and measure the events in its value."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.op == "get_attr":
            read = self._reads[str(n.target)]
            value = read.get() if isinstance(read, Place) else read
        elif n.op.startswith("call"):
            value = self.called(n)(*args, **kwargs)
        else:
            value = getattr(self, n.op)(n.target, args, kwargs)
        self.env[n] = value
        if n in self._used_weights:
            self.keep(n, value)
        for node in self._due.get(n, ()):
            stop = self._stops[node]
            times, over = (
                tuple(self.env[factor] for factor in factors)
                for factors in (stop.scale.times + stop.scale.each, stop.scale.over)
            )
            unit = stop.worth(times, over) if stop.unit is None else stop.unit
            self.measure(stop, self.env[node], unit)
        return value

    def keep(self, node: fx.Node, value: Tensor) -> None:
        """Keep a value that decides what counts, as it is now.

        The forward may write to it, and FSDP takes its memory away.
        """
        changes = self._is_in_parts or node in self._written_to
        if self._is_parallelized:
            value = assembled(self.analysis.model, value, shape(node))
        self._pass.weights[node] = value.detach().clone() if changes else value

    @cached_property
    def _written_to(self) -> frozenset[fx.Node]:
        """Those of the values that decide which something in the forward may write to."""
        written = {str(name) for name in self.analysis.trace.written}
        return frozenset(
            node
            for node in self._used_weights
            if any(str(at.target) in written for at in upstream([node]) if at.op == "get_attr")
            or any(user.meta.get("writes") for user in node.users)
        )

    def run(self, *args: Any, **_: Any) -> Any:
        """One pass over the nodes."""
        if type(self).run_node is not Replay.run_node:
            return super().run(*args)
        try:
            return self._program.run(self, *args)
        except Exception as error:
            node = self._program.node_of(error)
            if isinstance(error, SpecializationError) and node in self.own_branches:
                passed = takewhile(lambda branch: branch is not node, self.branches)
                seen = (*(self.branches[branch] for branch in passed), error.value)
                raise OtherBranchError(str(error), seen) from None
            if node and node.op.startswith("call") and not getattr(error, "__notes__", None):
                add_note(
                    error, f"raised by '{node.name}' {node.meta['site']}, replayed by fxsynops"
                )
            raise

    def measure(self, stop: Stop, value: Tensor, unit: Tensor | float) -> None:
        """Count the events in a tapped node's value, for all connections that tap it."""
        if self._is_parallelized:
            value = self._assembled(stop, value)
        how = stop.reading, stop.aside, stop.doubtful
        self._pass.take(stop.number, value, unit, *how)

    def _assembled(self, stop: Stop, value: Tensor) -> Tensor:
        """Of a model under ``parallelize_module``: what all ranks have together."""
        whole = shape(stop.node)
        for axis, (part, all) in enumerate(zip(value.shape, whole, strict=False)):
            if part != all and any(map.shape[axis] > 1 for map in stop.maps):
                raise TraceError(
                    f"'{self.names[stop.number]}' lies in parts on several ranks, which differ in "
                    "fan-out. Analyze and count the model before parallelize_module."
                )
        return assembled(self.analysis.model, value, whole)

    def tally(self, taken: Pass) -> Tally:
        """What a pass has counted."""
        changed = self._sparse and self._has_other_weights(taken)
        if changed or self._contraction is None:
            parts = taken.parts
            with own_device():
                device = parts[0].device if parts else torch.device("cpu")
                self._contraction = self._contract(device)
        return Tally(self._contraction, tuple(taken.parts), taken.samples)

    def _has_other_weights(self, taken: Pass) -> bool:
        weights = {node: weight.detach() for node, weight in taken.weights.items()}
        changed = [sparse.update(weights) for sparse in self._sparse]  # each, in any case
        return any(changed)

    def _contract(self, device: torch.device) -> Contraction:
        terms = [term for stop in self._stops.values() for term in stop.terms()]
        readings = [stop.reading for stop in self._stops.values()]
        products = []
        for row, product in self._products:
            left, right = (self._stops[node].number for node in product.operands)
            products.append((row, product, (left, right)))
        if self._detail.samples:
            places = [self._leading(stop) for stop in self._stops.values()]
            met = [(product, sides) for _, product, sides in products]
            samples = self.analysis.window.samples
            self.per_sample = PerSample(terms, readings, places, met, samples)
        if self._detail.steps and not self.steps_unknown:
            self.per_step = self._per_step(readings, products)
        others = [*self._others, *(one.term() for one in self._arrivals)]
        others += [one.term() for one in self._dense]
        return Contraction(terms, len(self.keys), readings, products, device, others)

    def _per_step(
        self, readings: list[Reading], products: list[tuple[int, Product, tuple[int, int]]]
    ) -> PerStep:
        terms = [
            (term, self._when[stop.node, term.repeats])
            for stop in self._stops.values()
            for term in stop.terms()
        ]
        met = []
        for row, product, sides in products:
            left, right = (self._when[node, 1] for node in product.operands)
            met.append((row, product, sides, (left, right)))
        window, since = self.analysis.window, -1 if self.analysis.options.layout.by_step else 0
        n, t = window.samples, window.timesteps
        return PerStep(terms, readings, met, len(self.keys), n, t, since)


def _only_reads(node: fx.Node) -> bool:
    """Whether a call is one of torch's own that has written to no operand when it was recorded."""
    known = node.op == "call_function" and node.target is not forward_of and is_torch(node.target)
    return known and not (node.meta.get("writes") or writes_in_place(node))


@contextmanager
def _under(mode: Mode, ambient: Mode) -> Iterator[None]:
    """The gradient and autocast mode of a node, where it differs from the whole forward's."""
    with torch.set_grad_enabled(mode.grad):
        if mode.autocast == ambient.autocast:
            yield
            return
        enabled, dtype = mode.autocast
        with torch.autocast(mode.device, dtype=dtype, enabled=enabled):
            yield
