"""Replaying a trace: what the model does, and the count beside it.

    Replay.count(args)
      └─ run(*args)                  torch.fx.Interpreter's loop over the nodes
           ├─ run_node(node)         its dispatch, under the mode the node was recorded in:
           │                         placeholder, get_attr, call_function, call_module, output
           └─ measure(node, value)   events × fan-out, where connections tap the node

A subclass that overrides :meth:`Replay.measure` sees every tapped value; one that overrides
``run_node`` sees every node, as with any ``torch.fx.Interpreter``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.fx.node import map_arg

from fxsynops.connect import SynapseCalls, Tap
from fxsynops.findings import Findings
from fxsynops.operations.products import Product
from fxsynops.operations.registry import Scale
from fxsynops.reduction import sum_events
from fxsynops.site import Mode


@dataclass(frozen=True)
class Tally:
    """What one pass counted: one entry per connection, float64 and differentiable.

    Attributes:
        events: Σ |e| measured.
        synops: Σ |e| × fan-out.
        largest: the largest partial sum that was added up in float32.
    """

    events: Tensor
    synops: Tensor
    largest: Tensor


@dataclass
class _Stop:
    """A node whose events are measured.

    Attributes:
        scale: what one event is worth there.
        rows, taps, maps: the connections (by number) that count its events, and their maps.
        kept: axes along which sums are kept apart, because a map varies or a product needs them.
    """

    scale: Scale
    rows: list[int] = field(default_factory=list)
    taps: list[Tap] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)

    def add(self, row: int, tap: Tap) -> None:
        """Count this stop's events for a connection."""
        self.rows.append(row)
        self.taps.append(tap)
        self.maps.append(tap.map)
        self.kept |= {axis for axis, n in enumerate(tap.map.shape) if n > 1}

    def on(self, device: torch.device) -> list[Tensor]:
        """The maps, on ``device`` from now on."""
        if self.maps and self.maps[0].device != device:
            self.maps = [map.to(device) for map in self.maps]
        return self.maps


class Replay(fx.Interpreter):
    """Runs an analyzed model, for inputs of the analyzed shape, and counts.

    Args:
        analysis: of the model.
    """

    def __init__(self, analysis: Findings) -> None:
        super().__init__(analysis.model, graph=analysis.trace.graph)
        self.analysis = analysis
        self.submodules = analysis.trace.modules
        self._graded = analysis.options.events == "nonzero"
        self._stops: dict[fx.Node, _Stop] = {}
        self._products: list[tuple[int, Product]] = []
        for row, connection in enumerate(analysis.connections):
            for tap in connection.taps:
                if tap.product is None:
                    self._stop(tap.node, tap.scale).add(row, tap)
                    continue
                self._products.append((row, tap.product))
                for side, node in enumerate(tap.product.operands):
                    stop = self._stop(node, analysis.connector.signals.roles[node].signal.scale)
                    stop.kept |= set(tap.product.shared(side))
        self._sparse = _sparse(analysis, self._stops) if analysis.options.weights != "all" else []
        self._weights: dict[fx.Node, Tensor | None] = {
            node: None for sparse in self._sparse for node in sparse.weights.values()
        }
        self._idle = _idle(self.graph, [*self._stops, *self._weights])
        self._nodes = list(self.graph.nodes)
        self._nested = {n for n in self._nodes if _has_containers(n)}
        self._sums: dict[fx.Node, Tensor] = {}
        self._largest: list[Tensor] = []
        scales = [stop.scale for stop in self._stops.values()]
        kept = {node for scale in scales for node in (*scale.times, *scale.over)}
        for node, dead in self.user_to_last_uses.items():  # looked at behind a later gate
            self.user_to_last_uses[node] = [n for n in dead if n not in kept]

    def _stop(self, node: fx.Node, scale: Scale | None) -> _Stop:
        return self._stops.setdefault(node, _Stop(scale or Scale()))

    def count(self, args: tuple[Any, ...]) -> tuple[Any, Tally]:
        """The model's output for ``args`` (one per placeholder), and the tally."""
        self._sums, self._largest = {}, []
        try:
            output = self.run(*args)
            return output, self._tally()
        finally:
            self.env = {}
            self._sums, self._largest = {}, []

    def run(self, *args: Any, **_: Any) -> Any:
        """One pass over the nodes."""
        self.env = {}
        self.args_iter = iter(args)
        for node in self._nodes:
            if node in self._idle:
                self._forget(node)
                continue
            value = self.run_node(node)
            if node in self._stops:
                self.measure(node, value)
            if node in self._weights:
                self._weights[node] = value.detach()
            if node.op == "output":
                return value
            if node.users:
                self.env[node] = value
            self._forget(node)
        raise AssertionError("a graph ends with its output")

    def _forget(self, node: fx.Node) -> None:
        """Drop the values of which ``node`` is the last user."""
        for dead in self.user_to_last_uses.get(node, ()):
            self.env.pop(dead, None)

    def run_node(self, n: fx.Node) -> Any:
        """Execute one node, under the mode that it was recorded in."""
        args, kwargs = map_arg((n.args, n.kwargs), self.env.__getitem__)
        if n in self._nested:
            args, kwargs = _plain((args, kwargs))
        mode: Mode = n.meta["mode"]
        try:
            if mode == self.analysis.trace.mode:
                return getattr(self, n.op)(n.target, args, kwargs)
            with _under(mode, self.analysis.trace.mode):
                return getattr(self, n.op)(n.target, args, kwargs)
        except Exception as error:
            if n.op.startswith("call") and not getattr(error, "__notes__", None):
                error.add_note(f"raised by '{n.name}' {n.meta['site']}, replayed by fxsynops")
            raise

    def fetch_attr(self, target: str) -> Any:
        """The model's own tensor, as it is now."""
        place = self.analysis.trace.reads.get(target)
        return place.get() if place else self.analysis.trace.constants[target]

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A whole module, with its hooks."""
        return self.submodules[target](*args, **kwargs)

    def measure(self, node: fx.Node, value: Tensor) -> None:
        """Count the events in a tapped node's value, for all connections that tap it."""
        stop = self._stops[node]
        neuron = self.analysis.connector.signals.roles[node].neuron
        sums, largest = sum_events(
            value,
            sorted(stop.kept),
            unit=1.0 if self._graded else self._unit(node, stop.scale),
            signed=neuron is None or neuron.signed,
            graded=self._graded,
        )
        self._sums[node] = sums
        self._largest.append(largest)

    def _unit(self, node: fx.Node, scale: Scale) -> Tensor | float:
        """What one event is worth here."""
        unit: Tensor | float = scale.factor
        role = self.analysis.connector.signals.roles[node]
        if role.neuron is not None and callable(role.neuron.amplitude):
            unit = role.neuron.amplitude(role.module) * unit
        for factor in scale.times:
            unit = unit * self.env[factor]
        for factor in scale.over:
            unit = unit / self.env[factor]
        return unit

    def _tally(self) -> Tally:
        for sparse in self._sparse:
            sparse.update(self._weights)
        device = next((sums.device for sums in self._sums.values()), torch.device("cpu"))
        zero = torch.zeros((), dtype=torch.float64, device=device)
        events = [zero] * len(self.analysis.connections)
        synops = list(events)
        for node, sums in self._sums.items():
            stop = self._stops[node]
            total = sums.sum()
            for row, tap, map in zip(stop.rows, stop.taps, stop.on(sums.device), strict=True):
                events[row] = events[row] + total * tap.repeats
                synops[row] = synops[row] + (sums * map).sum() * tap.repeats
        for row, product in self._products:
            left, right = (self._sums[node] for node in product.operands)
            coincidences = product.pairs(left, right)
            events[row] = events[row] + coincidences
            synops[row] = synops[row] + coincidences
        if not events:
            return Tally(zero.expand(0), zero.expand(0), zero)
        return Tally(torch.stack(events), torch.stack(synops), torch.stack(self._largest).amax())


@dataclass
class _Sparse:
    """One synapse of which only nonzero weights count: its maps follow its weights."""

    analysis: Findings
    synapse: SynapseCalls
    weights: dict[fx.Node, fx.Node]  # of each call
    rows: set[int]
    stops: dict[fx.Node, _Stop]
    masks: list[Tensor] = field(default_factory=list)

    def update(self, values: dict[fx.Node, Tensor | None]) -> None:
        """Derive the maps anew if another set of weights is zero."""
        weights = {call: values[node] for call, node in self.weights.items()}
        present = [w for w in weights.values() if w is not None]
        masks = [w != 0 for w in present]  # a version does not tell of writes through .data
        if len(masks) == len(self.masks) and all(map(torch.equal, masks, self.masks)):
            return
        self.masks = masks
        maps = {n: m for n, m, _ in self.analysis.connector.taps(self.synapse, weights)}
        for node, stop in self.stops.items():
            for k, (row, tap) in enumerate(zip(stop.rows, stop.taps, strict=True)):
                if row in self.rows:
                    zero = tap.map.new_zeros((1,) * tap.map.dim())
                    stop.maps[k] = maps.get(node, zero).to(stop.maps[k].device) / tap.repeats


def _sparse(analysis: Findings, stops: dict[fx.Node, _Stop]) -> list[_Sparse]:
    """The synapses with weights that may be zero; widens ``stops`` to all maps they may have."""
    connector = analysis.connector
    found = []
    for synapse in dict.fromkeys(c.calls for c in analysis.connections):
        calls = [(n, call) for n in synapse.calls if (call := connector.signals.roles[n].synapse)]
        weights = {n: call.weight for n, call in calls if call.weight is not None}
        rows = {i for i, c in enumerate(analysis.connections) if c.calls is synapse}
        if calls:
            found.append(_Sparse(analysis, synapse, weights, rows, stops))
        seeds = [
            (call.input, call.probe()) for n, call in calls if connector.signals.roles[n].carriers
        ]
        for node, map, _ in connector.measured(seeds, synapse.name):
            stops[node].kept |= {axis for axis, n in enumerate(map.shape) if n > 1}
    return found


def _idle(graph: fx.Graph, measured: list[fx.Node]) -> frozenset[fx.Node]:
    """Virtual nodes whose values nobody looks at."""
    needed: set[fx.Node] = set()
    stack = list(measured)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += node.all_input_nodes
    return frozenset(
        n for n in graph.nodes if "virtual" in n.meta and n.op != "get_attr" and n not in needed
    )


def _has_containers(node: fx.Node) -> bool:
    """Whether lists or dicts are among a node's arguments (fx keeps its own kinds of them)."""
    stack: list[Any] = [*node.args, *node.kwargs.values()]
    while stack:
        value = stack.pop()
        if isinstance(value, (list, dict)):
            return True
        if isinstance(value, tuple):
            stack += value
    return False


def _plain(value: Any) -> Any:
    """Python's own lists and dicts in place of fx's immutable ones."""
    if isinstance(value, immutable_list):
        return [_plain(v) for v in value]
    if isinstance(value, immutable_dict):
        return {k: _plain(v) for k, v in value.items()}
    return tuple(_plain(v) for v in value) if type(value) is tuple else value


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
