"""Replaying a trace: what the model does, and the count beside it.

    Replay(analysis)                 an fx.Interpreter whose nodes are prepared once, ahead of runs
      └─ prepare(node) -> _Step      what is called, where its arguments lie, what is dropped after
    Replay.count(args)
      └─ run(*args)                  over the steps
           ├─ step.run(values)       call_function, call_module, get_attr, output
           └─ measure(stop, value)   events in a tapped node's value, read once
      └─ _tally()                    events × fan-out of all connections together

A subclass that overrides :meth:`Replay.measure` sees every tapped value; one that overrides
:meth:`Replay.prepare` decides what each node does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, fx

from fxsynops.axes import Leading, leading
from fxsynops.findings import Findings
from fxsynops.inputs import Inputs
from fxsynops.operations.products import Product
from fxsynops.operations.registry import Scale, shape
from fxsynops.rates import Firing, spiking_calls
from fxsynops.reduction import Contraction, Reading, Tally, sum_events
from fxsynops.samples import PerSample
from fxsynops.site import Mode
from fxsynops.state import Borrowed
from fxsynops.stops import Stop, sparse_synapses
from fxsynops.walk import upstream

Run = Callable[[list[Any]], Any]


@dataclass
class _Step:
    """A node, prepared.

    Attributes:
        node: the node.
        run: gives its value, from the values so far.
        slot: where that is kept.
        dead: the slots that nobody reads later.
        stop: if its events are measured.
    """

    node: fx.Node
    run: Run
    slot: int
    dead: tuple[int, ...]
    stop: Stop | None


@dataclass(frozen=True)
class Detail:
    """What sums are to be kept apart beside those that the count needs.

    Attributes:
        rates: those of every neuron.
        samples: those of every sample.
    """

    rates: bool = False
    samples: bool = False


class Replay(fx.Interpreter):
    """Runs an analyzed model, for inputs of the analyzed shape, and counts.

    Args:
        analysis: of the model.
        detail: what to keep apart.
        axes: of rates, where samples and steps lie in what each call of a spiking node puts out, by
            name; where that is not known, the leading axes are taken for them.

    Attributes:
        firing: reads the rates of every spiking node from the partial sums of a pass.
        per_sample: reads the SynOps of every sample from them, after a pass.
    """

    firing: tuple[Firing, ...] = ()
    per_sample: PerSample | None = None

    def __init__(
        self,
        analysis: Findings,
        detail: Detail = Detail(),
        axes: Mapping[str, list[tuple[int, ...]]] | None = None,
    ) -> None:
        super().__init__(analysis.model, graph=analysis.trace.graph)
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
        self._sparse = (
            sparse_synapses(analysis, self._stops) if analysis.options.weights != "all" else []
        )
        self._weights = {n for sparse in self._sparse for n in sparse.weights.values()}
        firing = list(self._keep_neurons(axes or {})) if detail.rates else []
        if detail.samples:
            self._keep_samples()
        first: dict[Any, int] = {}
        for stop in self._stops.values():
            self._settle(stop)
            if not (stop.scale.times or stop.scale.over):
                module = self._roles[stop.node].module
                stop.alike = first.setdefault((id(module), stop.scale.factor), stop.number)
        self.firing = tuple(self._firing(name, calls) for name, calls in firing)
        self._unchecked: Tensor | None = None  # the connections whose samples were not told apart
        self._contraction: Contraction | None = None
        self._start: list[Any] = []  # a slot for each node, then constants
        self._slots = {node: i for i, node in enumerate(self.graph.nodes)}
        self._start += [None] * len(self._slots)
        self._placeholders: list[int] = []
        self._steps = self._prepared()
        self._values: list[Any] = []
        self._parts: list[Any] = []
        self._units: dict[int, Tensor | float] = {}

    # -- ahead of runs ---------------------------------------------------------------------------

    def _stop(self, node: fx.Node, scale: Scale | None) -> Stop:
        number = len(self._stops)
        return self._stops.setdefault(node, Stop(node, number, scale or Scale()))

    def _leading(self, stop: Stop, calls: int = 1) -> Leading:
        analysis = self.analysis
        return leading(shape(stop.node), calls, analysis.window, analysis.options.layout)

    def _keep_neurons(
        self, axes: Mapping[str, list[tuple[int, ...]]]
    ) -> Iterator[tuple[str, list[tuple[Stop, tuple[int, ...]]]]]:
        """Measure every spiking node, each of its neurons apart; its calls by name and shape."""
        for name, nodes in spiking_calls(self.analysis).items():
            by_shape: dict[tuple[int, ...], list[tuple[Stop, tuple[int, ...]]]] = defaultdict(list)
            for i, node in enumerate(nodes):
                stop = self._stop(node, self._roles[node].signal.scale)
                if name in axes:
                    summed = axes[name][i]
                else:
                    summed = tuple(range(self._leading(stop, len(nodes)).count))
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

    def _settle(self, stop: Stop) -> None:
        """Find out how a stop is read, once all connections have been added."""
        graded = self.analysis.options.events == "nonzero"
        neuron = self._roles[stop.node].neuron
        signed = neuron is None or neuron.signed
        size, kept = shape(stop.node), sorted(stop.kept)
        stop.reading = Reading(size, kept, signed=signed, graded=graded)
        looked_up = stop.scale.times or stop.scale.over or callable(neuron and neuron.amplitude)
        stop.unit = 1.0 if graded else None if looked_up else float(stop.scale.factor)

    def _prepared(self) -> list[_Step]:
        scales = [stop.scale for stop in self._stops.values()]
        kept = {node for scale in scales for node in (*scale.times, *scale.over)} | self._weights
        idle = _idle(self.graph, [*self._stops, *self._weights])
        steps = []
        for node in self.graph.nodes:
            dead = [n for n in self.user_to_last_uses.get(node, ()) if n not in kept]
            dead += [node] if not node.users and node not in kept else []
            slots = tuple(self._slots[n] for n in dead)
            if node.op == "placeholder":
                self._placeholders.append(self._slots[node])
            if node not in idle:
                stop = self._stops.get(node)
                steps.append(_Step(node, self.prepare(node), self._slots[node], slots, stop))
            elif slots and steps:
                steps[-1].dead += slots
        return steps

    def prepare(self, node: fx.Node) -> Run:
        """How to execute a node, under the mode that it was recorded in."""
        run = self._prepare(node)
        mode, ambient = node.meta["mode"], self.analysis.trace.mode
        if mode == ambient or not node.op.startswith("call"):
            return run

        def under_its_mode(values: list[Any]) -> Any:
            with _under(mode, ambient):
                return run(values)

        return under_its_mode

    def _prepare(self, node: fx.Node) -> Run:
        slot, target = self._slots[node], str(node.target)
        if node.op == "placeholder":
            return itemgetter(slot)
        if node.op == "get_attr":
            place = self.analysis.trace.reads.get(target)
            constant = self.analysis.trace.constants.get(target)
            return lambda _: constant if place is None else place.get()
        args = self._arguments(node.args)
        if node.op == "output":
            return lambda values: args(values)[0]
        called: Any = self.submodules[target] if node.op == "call_module" else node.target
        if not node.kwargs:
            return lambda values: called(*args(values))
        names, given = tuple(node.kwargs), self._arguments(tuple(node.kwargs.values()))
        return lambda values: called(*args(values), **dict(zip(names, given(values), strict=True)))

    def _arguments(self, args: tuple[Any, ...]) -> Callable[[list[Any]], tuple[Any, ...]]:
        """How to gather arguments: each lies in a slot, or is built anew from some."""
        makers = [self._argument(arg) for arg in args]
        if all(isinstance(maker, int) for maker in makers):
            if len(makers) < 2:
                return lambda values: tuple(values[i] for i in makers)  # type: ignore[index]
            return itemgetter(*makers)
        gets = [itemgetter(m) if isinstance(m, int) else m for m in makers]
        return lambda values: tuple(get(values) for get in gets)

    def _argument(self, arg: Any) -> int | Run:
        """The slot of a node or a constant; for a list or the like with nodes in it, a maker.

        Lists and dicts are always made anew, since a call may keep or change them.
        """
        if isinstance(arg, fx.Node):
            return self._slots[arg]
        if isinstance(arg, dict):
            names, values = tuple(arg), self._arguments(tuple(arg.values()))
            return lambda held: dict(zip(names, values(held), strict=True))
        if isinstance(arg, list) or (isinstance(arg, tuple) and _holds_nodes(arg)):
            parts = self._arguments(tuple(arg))
            if hasattr(arg, "_fields"):  # a named tuple
                return lambda held: type(arg)(*parts(held))
            return (lambda held: list(parts(held))) if isinstance(arg, list) else parts
        if isinstance(arg, slice) and _holds_nodes((arg.start, arg.stop, arg.step)):
            ends = self._arguments((arg.start, arg.stop, arg.step))
            return lambda held: slice(*ends(held))
        self._start.append(arg)
        return len(self._start) - 1

    # -- running ---------------------------------------------------------------------------------

    def count(self, args: tuple[Any, ...]) -> tuple[Any, Tally]:
        """The model's output for ``args`` (one per placeholder), and the tally."""
        self._parts, self._units = [None] * len(self._stops), {}
        try:
            output = self.run(*args)
            return output, self._tally()
        finally:
            self._values, self._parts, self._units = [], [], {}

    def is_unchecked(self, each: Tensor) -> bool:
        """Whether :meth:`check_samples` has to look at connections that were silent until now.

        Args:
            each: the SynOps of a pass, of :meth:`fxsynops.samples.PerSample.each`.
        """
        if self._unchecked is None:
            self._unchecked = torch.ones(len(each), dtype=torch.bool, device=each.device)
        if self.analysis.window.samples == 1 or each.is_meta or not self._unchecked.any():
            return False
        return bool(each[self._unchecked].any())

    def check_samples(self, inputs: Inputs) -> None:
        """Make sure that samples are told apart, or else forget :attr:`per_sample`.

        Other samples in the places of some must change the SynOps of these places, and of no
        others, in every connection. The model and its states stay as they are.

        Args:
            inputs: of a pass.
        """
        window, layout = self.analysis.window, self.analysis.options.layout
        n = window.samples

        def counted(inputs: Inputs) -> Tensor:
            with Borrowed(self.analysis.model), torch.no_grad():
                _, tally = self.count(inputs.clone().values)
            assert self.per_sample is not None
            return self.per_sample.each(tally.parts)

        if "N" not in layout.axes:
            self.per_sample = None
            return
        found = counted(inputs)
        last_for_first = torch.arange(n)
        last_for_first[0] = n - 1
        for index in (torch.arange(n).flip(0), last_for_first):
            again = counted(layout.picked(inputs, window, "N", index))
            if not torch.equal(again, found[:, index.to(found.device)]):
                self.per_sample, self._detail = None, replace(self._detail, samples=False)
                return
        alike = (found == found[:, :1]).all(1)
        self._unchecked = alike if self._unchecked is None else self._unchecked & alike

    def run(self, *args: Any, **_: Any) -> Any:
        """One pass over the nodes."""
        values = self._values = self._start.copy()
        for slot, arg in zip(self._placeholders, args, strict=True):
            values[slot] = arg
        value: Any = None
        step = self._steps[0]
        try:
            for step in self._steps:
                value = values[step.slot] = step.run(values)
                if step.stop is not None:
                    self.measure(step.stop, value)
                for slot in step.dead:
                    values[slot] = None
        except Exception as error:
            node = step.node
            if node.op.startswith("call") and not getattr(error, "__notes__", None):
                error.add_note(f"raised by '{node.name}' {node.meta['site']}, replayed by fxsynops")
            raise
        return value

    def measure(self, stop: Stop, value: Tensor) -> None:
        """Count the events in a tapped node's value, for all connections that tap it."""
        unit = self._unit(stop) if stop.unit is None else stop.unit
        self._parts[stop.number] = sum_events(value, unit, stop.reading)

    def _unit(self, stop: Stop) -> Tensor | float:
        """What one event is worth here; a neuron's amplitude is looked up once a pass."""
        if stop.alike in self._units:
            return self._units[stop.alike]
        unit: Tensor | float = stop.scale.factor
        role = self._roles[stop.node]
        if role.neuron is not None and callable(role.neuron.amplitude):
            worth: Tensor = role.neuron.amplitude(role.module)
            number = worth.numel() == 1 and not worth.requires_grad and worth.is_cpu
            unit = (float(worth) if number else worth) * unit  # reading it waits for nothing
        for factor in stop.scale.times:
            unit = unit * self._values[self._slots[factor]]
        for factor in stop.scale.over:
            unit = unit / self._values[self._slots[factor]]
        if stop.alike is not None:
            self._units[stop.alike] = unit
        return unit

    def _tally(self) -> Tally:
        device = self._parts[0].device if self._parts else torch.device("cpu")
        changed = [sparse.update(self._weight) for sparse in self._sparse]
        if self._contraction is None or any(changed) or self._contraction.device != device:
            self._contraction = self._contract(device)
        return Tally(self._contraction, tuple(self._parts))

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
            self.per_sample = PerSample(terms, readings, places, met)
        return Contraction(terms, len(self.keys), readings, products, device)

    def _weight(self, node: fx.Node) -> Tensor:
        return self._values[self._slots[node]].detach()


def _idle(graph: fx.Graph, measured: list[fx.Node]) -> frozenset[fx.Node]:
    """Virtual nodes whose values nobody looks at."""
    needed = set(upstream(measured))
    return frozenset(
        n for n in graph.nodes if "virtual" in n.meta and n.op != "get_attr" and n not in needed
    )


def _holds_nodes(values: tuple[Any, ...]) -> bool:
    """Whether there is a node, a list or a dict in a tuple."""
    return any(
        isinstance(value, (fx.Node, list, dict, slice))
        or (isinstance(value, tuple) and _holds_nodes(value))
        for value in values
    )


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
