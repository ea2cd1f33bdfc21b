"""Stops: the nodes of a recorded forward whose events are measured, and for which connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fxsynops.connectivity.connect import SynapseCalls, Tap, macs_of
from fxsynops.connectivity.results import Findings
from fxsynops.counting.exact_sums import How, Reading, Term, sample_events, sum_events
from fxsynops.errors import SpecializationError
from fxsynops.operations.call import shape
from fxsynops.operations.operation import Scale, SynapseCall, as_dense
from fxsynops.operations.transpose import compress


@dataclass
class Stop:
    """A node whose events are measured.

    Attributes:
        node: whose value is measured.
        number: its place among the partial sums of a pass.
        scale: what one event is worth there.
        rows, taps, maps: the connections (by number) that count its events, and their maps.
        kept: axes along which sums are kept apart, because a map varies or a product needs them.
        reading: how its values are read.
        doubtful: whether nobody vouches for its events to be whole numbers.
        aside: whether no connection counts its events, so that they need no derivative.
        unit: what one event is worth, if that is a number; None if it is to be looked up.
        amplitude: what tells a module's worth of one event, and the module, if that is to be asked.
        alike: the first of the stops at which an event is worth the same as here, in any pass.
    """

    node: fx.Node
    number: int
    scale: Scale
    rows: list[int] = field(default_factory=list)
    taps: list[Tap] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    reading: Reading = Reading(())
    doubtful: bool = False
    aside: bool = False
    unit: float | None = 1.0
    amplitude: tuple[Callable[[Any], Any], Any] | None = None
    alike: int | None = None

    def add(self, row: int, tap: Tap) -> None:
        """Count this stop's events for a connection."""
        self.rows.append(row)
        self.taps.append(tap)
        self.maps.append(tap.map)
        self.kept |= {axis for axis, n in enumerate(tap.map.shape) if n > 1}

    def worth(
        self, times: tuple[Tensor, ...] = (), over: tuple[Tensor, ...] = ()
    ) -> Tensor | float:
        """What one event is worth here, where a module or other values have to be asked."""
        unit: Tensor | float = self.scale.factor
        if self.amplitude is not None:
            ask, module = self.amplitude
            worth = ask(module)
            number = worth.numel() == 1 and not worth.requires_grad and worth.is_cpu
            if torch.compiler.is_dynamo_compiling():
                number = False  # the compiler would stop here
            unit = (float(worth) if number else worth) * unit  # reading it waits for nothing
        for factor in times:
            unit = unit * factor
        for factor in over:
            unit = unit / factor
        return unit

    def terms(self) -> list[Term]:
        """What the connections make of its sums."""
        triples = zip(self.rows, self.taps, self.maps, strict=True)
        return [Term(row, self.number, map, tap.repeats) for row, tap, map in triples]


@dataclass
class Pass:
    """What is taken down while a pass runs.

    Attributes:
        parts: the partial sums of every source, by its number.
        samples: some of the events of sources that nobody vouches for, by number.
        weights: the values that decide which synapses count.
    """

    parts: list[Any]
    samples: dict[int, Tensor] = field(default_factory=dict)
    weights: dict[fx.Node, Tensor] = field(default_factory=dict)

    def take(
        self,
        number: int,
        value: Tensor,
        unit: Tensor | float,
        reading: Reading | How,
        aside: bool,
        doubtful: bool,
    ) -> None:
        """Count the events in a value, read as a :class:`Stop` of this number says."""
        if value.layout is not torch.strided or value.is_quantized:
            value = as_dense(value)
        if aside:
            value, unit = value.detach(), unit.detach() if isinstance(unit, Tensor) else unit
        self.parts[number] = sum_events(value, unit, reading)
        if doubtful and value.is_floating_point():
            self.samples[number] = sample_events(value, unit)


@dataclass
class Arrival:
    """Events of one place at a synapse's input.

    Attributes:
        row: of the tally.
        node: where they are measured.
        number: of its sums.
        map: as how many each of them arrives.
        repeats: how often they count.
    """

    row: int
    node: fx.Node
    number: int
    map: Tensor
    repeats: int

    def term(self) -> Term:
        """What its row counts."""
        return Term(self.row, self.number, self.map, self.repeats)


@dataclass
class Sparse:
    """One synapse whose maps follow values: there are no events, or synapses, where they are zero.

    Attributes:
        analysis: of the model.
        synapse: the synapse.
        weights: of each of its calls, if only nonzero weights count.
        factors: what multiplies events on their way to it.
        leading: what says where they go.
        rows: its connections.
        stops: where events are measured.
        arrivals: the sums of events at its inputs.
        masks: where the values were not zero when the maps were last derived, and what led then.
    """

    analysis: Findings
    synapse: SynapseCalls
    weights: dict[fx.Node, fx.Node]
    factors: list[fx.Node]
    leading: list[fx.Node]
    rows: set[int]
    stops: dict[fx.Node, Stop]
    arrivals: list[Arrival] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)

    @property
    def values(self) -> list[fx.Node]:
        """What the maps follow."""
        return [*self.weights.values(), *self.factors, *self.leading]

    def update(self, values: Mapping[fx.Node, Tensor]) -> bool:
        """Derive the maps anew if another set of values is zero, or others lead; whether so."""
        zeros = [*self.weights.values(), *self.factors]
        masks = [as_dense(values[node]) != 0 for node in zeros]  # .data has no versions
        leads = [values[node] for node in self.leading]
        now = [*masks, *leads]
        if len(now) == len(self.masks) and all(map(torch.equal, now, self.masks)):
            return False
        self.masks = [*masks, *(value.clone() for value in leads)]
        weights: dict[fx.Node, Tensor | None]
        weights = {call: values[node] for call, node in self.weights.items()}
        connector = self.analysis.connector
        given = (*self.factors, *self.leading)
        with connector.signals.with_values({node: values[node].cpu() for node in given}):
            maps = {n: m for n, m, _ in connector.taps(self.synapse, weights)}
            arriving = connector.arriving(self.synapse)
        for arrival in self.arrivals:
            arrival.map = arriving.get(arrival.node, torch.zeros((), device="cpu"))
        for node in (n for n, map in maps.items() if n not in self.stops and bool(map.any())):
            raise SpecializationError(
                f"an index or a mask leads events of '{connector.names[node]}' to "
                f"'{self.synapse.name}', which they did not reach in the example. Analyze the "
                "model with an example in which they do."
            )
        for node, stop in self.stops.items():
            for k, (row, tap) in enumerate(zip(stop.rows, stop.taps, strict=True)):
                if row in self.rows:
                    zero = tap.map.new_zeros((1,) * tap.map.dim())
                    stop.maps[k] = maps.get(node, zero) / tap.repeats
        return True


@dataclass
class Multiplied:
    """One call of a synapse, whose inputs that are analog and not zero are counted.

    Attributes:
        row: of the tally.
        stop: where its input is measured.
        call: the synapse.
        analog: where its input is analog, if events share it.
        weight: the node of its weights, if only those count that are not zero.
        mask: where they were not zero when the map was last derived.
    """

    row: int
    stop: Stop
    call: SynapseCall
    analog: Tensor | None
    weight: fx.Node | None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        self.map = self._map(None)
        varying = self.map if self.weight is None else self.call.probe()
        self.stop.kept |= {axis for axis, n in enumerate(varying.shape) if n > 1}
        self.stop.kept |= {axis for axis, n in enumerate(self.map.shape) if n > 1}

    @property
    def values(self) -> list[fx.Node]:
        """What the map follows."""
        return [] if self.weight is None else [self.weight]

    def update(self, values: Mapping[fx.Node, Tensor]) -> bool:
        """Derive the map anew if other weights are zero; whether so."""
        if self.weight is None:
            return False
        mask = as_dense(values[self.weight]) != 0
        if self.mask is not None and torch.equal(mask, self.mask):
            return False
        self.mask, self.map = mask, self._map(values[self.weight])
        return True

    def _map(self, weight: Tensor | None) -> Tensor:
        map = self.call.fanout(weight).cpu()
        return compress(map if self.analog is None else map * self.analog)

    def term(self) -> Term:
        """What its row counts."""
        return Term(self.row, self.stop.number, self.map, 1)


@dataclass
class Pruned:
    """An analog synapse of whose multiply-accumulates only those with weights count.

    Attributes:
        name: of the synapse.
        calls: each call, the node of its weights, and where its input is analog, if events share
            it.
        macs: of a pass.
        masks: where the weights were not zero when these were last added up.
    """

    name: str
    calls: list[tuple[SynapseCall, fx.Node | None, Tensor | None]]
    macs: float
    masks: list[Tensor] = field(default_factory=list)

    @property
    def values(self) -> list[fx.Node]:
        """What they follow."""
        return [weight for _, weight, _ in self.calls if weight is not None]

    def update(self, values: Mapping[fx.Node, Tensor]) -> bool:
        """Add up anew if other weights are zero; no map of events follows from it."""
        if any(values[weight].is_meta for weight in self.values):
            return False
        masks = [as_dense(values[weight]) != 0 for weight in self.values]
        if len(masks) != len(self.masks) or not all(map(torch.equal, masks, self.masks)):
            self.masks = masks
            self.macs = sum(
                macs_of(call, None if weight is None else values[weight], analog)
                for call, weight, analog in self.calls
            )
        return False


def sparse_synapses(analysis: Findings, stops: dict[fx.Node, Stop]) -> list[Sparse]:
    """The synapses whose maps follow values; widens ``stops`` to all maps they may have."""
    connector, options = analysis.connector, analysis.options
    found = []
    for synapse in dict.fromkeys(c.calls for c in analysis.connections):
        calls = [(n, call) for n in synapse.calls if (call := connector.signals.roles[n].synapse)]
        sparse = options.weights != "all"
        weights = {n: call.weight for n, call in calls if sparse and call.weight is not None}
        factors, leading = connector.followed(synapse)
        rows = {i for i, c in enumerate(analysis.connections) if c.calls is synapse}
        if not calls or not (sparse or factors or leading):
            continue
        found.append(Sparse(analysis, synapse, weights, list(factors), list(leading), rows, stops))
        seeds = [
            (call.input, call.probe() if sparse else call.fanout())
            for n, call in calls
            if connector.signals.roles[n].carriers
        ]
        for values in _patterns(factors, leading):
            try:
                with connector.signals.with_values(values):
                    found_maps = connector.measured(seeds, synapse.name)
                maps = [(n, tuple(map.shape)) for n, map, _ in found_maps]
            except (RuntimeError, IndexError):  # nothing can lead there: each axis may vary
                maps = [(n, shape(n)) for n, stop in stops.items() if rows & set(stop.rows)]
            for node, sizes in (pair for pair in maps if pair[0] in stops):
                stops[node].kept |= {axis for axis, n in enumerate(sizes) if n > 1}
    return found


def _patterns(
    factors: Mapping[fx.Node, Tensor], leading: Mapping[fx.Node, Tensor]
) -> Iterator[dict[fx.Node, Tensor]]:
    """Values that make maps vary along each axis along which they may."""
    ones = {node: torch.ones_like(value) for node, value in factors.items()}
    yield ones
    for node, value in ones.items():
        yield from (ones | {node: other} for other in _zero_somewhere(value))
    for node, value in leading.items():
        first = value.flatten()[:1].expand(value.numel()).reshape(value.shape)
        others = [torch.zeros_like(value), first, torch.ones_like(value)]
        yield from (ones | {node: other} for other in others)
        yield from (ones | {node: other} for other in _zero_somewhere(torch.ones_like(value)))


def _zero_somewhere(value: Tensor) -> Iterator[Tensor]:
    """With zeros at the beginning of one axis after the other."""
    for axis, size in enumerate(value.shape):
        if size > 1:
            first_is_zero = value.clone()
            first_is_zero.select(axis, 0).zero_()
            yield first_is_zero
