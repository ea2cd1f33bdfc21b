"""Whether a network fits a chip: layer by layer, and on which cores.

analysis.fits("speck2f")  -> Fit      .ok .rows .cores, a table
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from fxsynops.connectivity.results import Findings
from fxsynops.cost.chips import Chip, chip
from fxsynops.cost.geometry import Shape, geometry
from fxsynops.cost.layers import layers_of
from fxsynops.errors import InputError
from fxsynops.reporting.fit_table import fit_content
from fxsynops.reporting.report import Reported


@dataclass(frozen=True)
class Check:
    """One limit of a chip, held against one layer or the whole network.

    Attributes:
        layer: the synapse, or "network".
        constraint: what is limited.
        value: what there is; a text if it is no number.
        limit: the most, or what there may be.
        ok: whether it is kept.
    """

    layer: str
    constraint: str
    value: float | str
    limit: float | str
    ok: bool

    @property
    def left(self) -> float | None:
        """How much more there could be; negative if there is too much."""
        numbers = isinstance(self.value, int | float) and isinstance(self.limit, int | float)
        return self.limit - self.value if numbers else None  # type: ignore[operator]

    def __str__(self) -> str:
        def shown(x: float | str) -> str:
            return f"{x:,.0f}" if isinstance(x, int | float) else x

        value, limit = shown(self.value), shown(self.limit)
        return (
            f"{self.constraint} {value}, at most {limit}"
            if self.left
            else (f"{self.constraint} {value}, not {limit}")
        )


@dataclass(frozen=True)
class Place:
    """Where a layer lies.

    Attributes:
        shape: the layer.
        cores: the numbers of its cores; none if there is no assignment.
        possible: of one-layer cores, those that it fits on.
        memory: words of kernels, neurons and biases; synapses, where cores are alike.
    """

    shape: Shape
    cores: tuple[int, ...]
    possible: tuple[int, ...]
    memory: dict[str, float]


@dataclass(frozen=True)
class Fit(Reported):
    """Whether a network fits a chip. Prints as a table.

    Attributes:
        chip: the chip.
        rows: every limit, held against every layer.
        places: where each layer lies.
        shapes: of all synapses.
        name: the model's class.
        remarks: what keeps layers from their cores, and what is left.
    """

    chip: Chip
    rows: tuple[Check, ...]
    places: tuple[Place, ...] = field(repr=False)
    shapes: tuple[Shape, ...] = field(repr=False)
    name: str
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every limit is kept, and every layer has its cores."""
        return all(row.ok for row in self.rows)

    @property
    def cores(self) -> dict[str, tuple[int, ...]]:
        """The cores of each layer; empty ones if there is no assignment."""
        return {place.shape.layer.name: place.cores for place in self.places}

    def broken(self, layer: str | None = None) -> tuple[Check, ...]:
        """The limits that are not kept, by one layer or at all."""
        return tuple(row for row in self.rows if not row.ok and layer in (None, row.layer))

    def _content(self) -> dict[str, Any]:
        return fit_content(self)


def fit(findings: Findings, name: str | Chip) -> Fit:
    """Hold a network against what a chip can do.

    Args:
        findings: an analysis of it.
        name: of the chip, or one of your own.

    Raises:
        InputError: there is no such chip, or the analysis left something unresolved.
    """
    one = chip(name)
    if findings.unresolved:
        raise InputError(
            f"an analysis with {len(findings.unresolved)} unresolved operations does not say "
            f"whether it fits {one.title}; the first of them is {findings.unresolved[0]}."
        )
    layers = layers_of(findings)
    shapes = geometry(findings, layers)
    rows = [check for shape in shapes for check in _checks(one, shape)]
    rows += _of_network(one, shapes)
    for alone in layers.driven_by(""):
        rows.append(Check(alone.name, "in front of these neurons", "no synapse", "one", False))
    if one.one_layer_per_core:
        places, more, remarks = _one_by_one(one, shapes)
    elif one.has_alike_cores:
        places, more, remarks = _alike(one, shapes)
    else:
        places, more, remarks = [Place(shape, (), (), {}) for shape in shapes], [], []
    rows += more
    return Fit(one, tuple(rows), tuple(places), tuple(shapes), findings.name, tuple(remarks))


# -- limits of a layer ----------------------------------------------------------------------------


def _checks(one: Chip, shape: Shape) -> Iterator[Check]:
    name, kind = shape.layer.name, shape.layer.kind

    def most(constraint: str, value: float, limit: float | None) -> Iterator[Check]:
        if limit is not None:
            yield Check(name, constraint, value, limit, value <= limit)

    def among(constraint: str, value: float, allowed: tuple[int, ...]) -> Iterator[Check]:
        if allowed:
            words = ", ".join(map(str, allowed))
            yield Check(name, constraint, f"{value:g}", words, value in allowed)

    events = "events" if shape.layer.events else "analog values"
    yield Check(name, "input", events, "events", shape.layer.events)
    if one.one_layer_per_core:
        yield Check(name, "operation", kind, "conv2d or linear", kind in ("conv2d", "linear"))
        recurrent = "of its own neurons" if shape.recurrent else "of others"
        yield Check(name, "events", recurrent, "of others", not shape.recurrent)
        if not shape.whole:
            yield Check(
                name, "operation", "linear on one of several axes", "flattened first", False
            )
        if shape.asymmetric:
            yield Check(name, "padding", "asymmetric", "the same on both sides", False)
    if one.dense_layers:
        linear = kind in ("linear", "one to one")
        yield Check(name, "operation", kind, "linear", linear)
        for sizes in {size for way in shape.pools for size in way}:
            yield Check(
                name, "in front of it", f"a pool of {sizes[0]}×{sizes[1]}", "neurons", False
            )
    if one.one_layer_per_core or one.dense_layers:
        own = shape.layer.drives == name and bool(shape.driven)
        shared = own or (one.dense_layers and shape.layer.drives != name)
        drives = (
            "neurons" if own else "those of another layer" if shape.layer.drives != name else "none"
        )
        yield Check(name, "what it drives", drives, "neurons", shared)
        for other in shape.in_front:
            yield Check(name, "in front of it", other, "neurons and what is foreseen", False)
        for other in shape.in_between:
            yield Check(name, "behind it", other, "neurons", False)
    if one.no_leak and shape.leaks is not False:
        leaks = "leaky" if shape.leaks else "not known (register_spiking(…, update=))"
        yield Check(name, "neurons", leaks, "integrate and fire", False)
    if one.no_bias:
        biased = "biased" if shape.layer.biased else "none"
        yield Check(name, "bias", biased, "none", not shape.layer.biased)
    yield from most("kernel", max(shape.kernel), one.kernel)
    if one.square:
        square = shape.kernel[0] == shape.kernel[1]
        yield Check(name, "kernel shape", f"{shape.kernel[0]}×{shape.kernel[1]}", "square", square)
    for side in sorted(set(shape.stride)):
        yield from among("stride", side, one.strides)
    yield from most("padding", max(shape.padding), one.padding)
    yield from most("groups", shape.groups, one.groups)
    yield from most("dilation", max(shape.dilation), one.dilation)
    yield from most("channels", max(shape.inputs[0], shape.outputs[0]), one.channels)
    if shape.from_input:
        yield from most("input size", max(shape.inputs[1:]), one.input_size)
    yield from most("output size", max(shape.outputs[1:]), one.output_size)
    yield from most("destinations", len(shape.behind), one.destinations)
    for way in filter(None, shape.pools):
        sides = [math.prod(pool[i] for pool in way) for i in (0, 1)]
        if one.square:
            same = sides[0] == sides[1]
            yield Check(name, "pool shape", f"{sides[0]}×{sides[1]}", "square", same)
        if one.pools:
            yield from among("pool in front", max(sides), one.pools)
    if one.pools and len(set(shape.pools)) > 1:
        yield Check(name, "pools in front", "of different sizes", "the same on all ways", False)


# -- limits of the network ------------------------------------------------------------------------


def _of_network(one: Chip, shapes: list[Shape]) -> Iterator[Check]:
    def most(constraint: str, value: float, limit: float | None) -> Iterator[Check]:
        if limit is not None:
            yield Check("network", constraint, value, limit, value <= limit)

    by_name = {shape.layer.name: shape for shape in shapes}
    ends = {name for name, s in by_name.items() if not by_name[s.layer.drives].behind - {name}}
    if not shapes:
        yield Check("network", "layers", 0, "one or more", False)
    last = [s for s in shapes if s.layer.name in ends and s.layer.drives == s.layer.name]
    hidden = [s for s in shapes if s.layer.name not in ends and s.layer.drives == s.layer.name]
    first = [shape for shape in shapes if shape.from_input]
    inner = [s for s in shapes if s.reads and s.layer.name not in ends]
    inputs = {name: size for shape in first for name, size in shape.from_input.items()}
    if one.one_layer_per_core:
        yield Check("network", "inputs", len(inputs), 1, len(inputs) <= 1)
    yield from most("inputs", math.fsum(inputs.values()), one.inputs)
    yield from most("hidden neurons", math.fsum(s.neurons for s in hidden), one.hidden)
    yield from most("output neurons", math.fsum(s.neurons for s in last), one.outputs)
    for source in dict.fromkeys(name for shape in inner for name in sorted(shape.reads)):
        reach = math.fsum(shape.fan_out for shape in inner if source in shape.reads)
        if one.max_fan_out is not None:
            yield Check(
                source,
                "fan-out to hidden neurons",
                reach,
                one.max_fan_out,
                reach <= one.max_fan_out,
            )
    weights = math.fsum(shape.layer.macs for shape in inner)
    yield from most("synapses between hidden neurons", weights, one.hidden_weights)
    into = {s.layer.drives for s in first} - ends
    reached = math.fsum(by_name[name].neurons for name in into)
    yield from most("hidden neurons that inputs reach", reached, one.input_projection)
    outputs = {s.layer.name for s in last}
    names = {name for shape in shapes if shape.layer.drives in outputs for name in shape.reads}
    read = math.fsum(by_name[name].neurons for name in names - outputs)
    yield from most("hidden neurons that outputs read", read, one.output_projection)
    if one.dense_layers:
        again = any(name in by_name[name].reads or _recurs(shapes, name) for name in outputs)
        words = "recurrent" if again else "feed-forward"
        yield Check("network", "recurrence of outputs", words, "feed-forward", not again)


def _recurs(shapes: list[Shape], name: str) -> bool:
    return any(name in shape.reads for shape in shapes if shape.layer.drives == name)


# -- cores that each hold one layer ----------------------------------------------------------------


def words(shape: Shape) -> dict[str, float]:
    """The memory that a layer takes on a DYNAP-CNN core, in words.

    Kernels: c · 2^(⌈log₂ kx·ky⌉ + ⌈log₂ f⌉), of c input channels (of a group) and f output ones;
    neurons: f · 2^(⌈log₂ fx⌉ + ⌈log₂ fy⌉); a bias per output channel. (sinabs, dynapcnn_layer.py)
    """
    channels, height, width = shape.outputs
    taps = shape.kernel[0] * shape.kernel[1]
    return {
        "Kernel memory": shape.inputs[0] // shape.groups * _up(taps) * _up(channels),
        "Neuron memory": channels * _up(height) * _up(width),
        "Bias memory": channels if shape.layer.biased else 0,
    }


def _up(n: int) -> int:
    """The next power of two."""
    return 1 << (n - 1).bit_length()


def _one_by_one(one: Chip, shapes: list[Shape]) -> tuple[list[Place], list[Check], list[str]]:
    cores = list(zip(one.kernel_memory, one.neuron_memory, one.bias_memory, strict=True))
    needs = [words(shape) for shape in shapes]
    possible = [tuple(i for i, core in enumerate(cores) if _within(need, core)) for need in needs]
    rows = []
    largest = [max(sizes) for sizes in zip(*cores, strict=True)]
    for shape, need, fitting in zip(shapes, needs, possible, strict=True):
        name = shape.layer.name
        for (constraint, value), limit in zip(need.items(), largest, strict=True):
            rows.append(Check(name, constraint, value, limit, value <= limit))
        if not fitting and all(v <= most for v, most in zip(need.values(), largest, strict=True)):
            rows.append(Check(name, "cores with all three memories", 0, "one or more", False))
    graph = nx.Graph()
    for i, fitting in enumerate(possible):
        graph.add_node(("layer", i))
        graph.add_edges_from((("layer", i), ("core", core)) for core in fitting)
    layers = [("layer", i) for i in range(len(shapes))]
    matched = nx.bipartite.maximum_matching(graph, layers)
    left = sum(layer not in matched for layer in layers)
    rows.append(Check("network", "layers without a core", left, 0, not left))
    placed = not left
    remarks = list(_why_not(shapes, graph, matched, layers)) if not placed else []
    if placed:
        free = [i for i in range(len(cores)) if ("core", i) not in matched]
        remarks.append(f"{len(free)} of {len(cores)} cores are left: {', '.join(map(str, free))}.")
    places = [
        Place(shape, (matched[layer][1],) if placed else (), fitting, need)
        for shape, layer, fitting, need in zip(shapes, layers, possible, needs, strict=True)
    ]
    return places, rows, remarks


def _within(need: dict[str, float], core: tuple[int, int, int]) -> bool:
    return all(value <= size for value, size in zip(need.values(), core, strict=True))


def _why_not(
    shapes: list[Shape], graph: nx.Graph, matched: dict[Any, Any], layers: list[Any]
) -> Iterator[str]:
    """Layers that have fewer cores than they are (Hall's theorem)."""
    for layer in layers:
        if layer in matched:
            continue
        crowd, cores, stack = {layer}, set(), [layer]
        while stack:
            for core in graph[stack.pop()]:
                if core not in cores:
                    cores.add(core)
                    if (other := matched.get(core)) is not None and other not in crowd:
                        crowd.add(other)
                        stack.append(other)
        names = ", ".join(shapes[i].layer.name for _, i in sorted(crowd))
        there = ", ".join(str(i) for _, i in sorted(cores)) or "none"
        yield f"No core is left for '{shapes[layer[1]].layer.name}': {names} fit only on {there}."
        return


# -- cores that are alike -------------------------------------------------------------------------


def _alike(one: Chip, shapes: list[Shape]) -> tuple[list[Place], list[Check], list[str]]:
    """As many cores for each layer as it needs; axons are spread as badly as they may be."""
    groups: dict[
        str, list[Shape]
    ] = {}  # all synapses of the same neurons, by the one that has them
    for shape in shapes:
        groups.setdefault(shape.layer.drives, []).append(shape)
    own = {shape.layer.name: shape for shape in shapes}
    counts = {name: _cores(one, own[name], group) for name, group in groups.items()}
    if one.out_axons_per_core is not None:
        counts = _enough_for_axons(one, own, counts)
    needed = sum(counts.values())
    rows, remarks = [], [f"{needed:,} cores are needed."]
    if one.cores is not None:
        rows.append(Check("network", "cores", needed, one.cores, needed <= one.cores))
        chips = math.ceil(needed / max(one.cores, 1))
        more = f", on {chips:,} chips" if chips > 1 else ""
        remarks = [f"{needed:,} of {one.cores:,} cores{more}."]
    if one.in_axons_per_core is not None and any(s.layer.kind.startswith("conv") for s in shapes):
        remarks.append("The neurons of a convolution lie in square tiles, which read few inputs.")
    if one.synapse_bits_per_core is not None:
        remarks.append(
            f"Synapses of {one.weight_bits} bits each, one per pair of neurons (weights that are "
            "shared may take less), without what else a core keeps."
        )
    places, first = [], 0
    for name, group in groups.items():
        rows += _of_a_core(one, own, group, counts, own[name])
        memory = {"Synapses": math.fsum(shape.layer.macs for shape in group)}
        cores = tuple(range(first, first + counts[name]))
        places.append(Place(own[name], cores, (), memory))
        first += counts[name]
    return places, rows, remarks


def _of_a_core(
    one: Chip, own: dict[str, Shape], group: list[Shape], counts: dict[str, int], shape: Shape
) -> Iterator[Check]:
    """What one of a layer's cores holds, at most."""
    cores, name = counts[shape.layer.name], shape.layer.name
    neurons = math.ceil(shape.neurons / cores)
    after = sum(counts[behind] for behind in shape.behind)
    synapses = math.fsum(member.layer.macs for member in group) / shape.neurons * neurons
    for constraint, value, limit in (
        ("neurons of a core", neurons, one.neurons_per_core),
        ("synapse bits of a core", synapses * one.weight_bits, one.synapse_bits_per_core),
        ("axons into a core", _axons(group, neurons), one.in_axons_per_core),
        ("axons out of a core", neurons * after, one.out_axons_per_core),
    ):
        if limit is not None:
            yield Check(name, constraint, value, limit, value <= limit)


def _axons(group: list[Shape], neurons: float) -> float:
    """How many inputs some neurons of a layer read together; those of a convolution in a tile."""
    return math.fsum(min(member.layer.inputs, _tile(member, neurons)) for member in group)


def _tile(shape: Shape, neurons: float) -> float:
    if not shape.layer.kind.startswith("conv"):
        return neurons * shape.fan_in
    places = math.ceil(neurons / max(shape.outputs[0], 1))
    side = math.ceil(math.sqrt(places))
    sizes = (
        min(side, out) * stride + dilation * (kernel - 1)
        for out, stride, kernel, dilation in zip(
            shape.outputs[1:], shape.stride, shape.kernel, shape.dilation, strict=True
        )
    )
    return shape.inputs[0] * math.prod(sizes)


def _cores(one: Chip, shape: Shape, group: list[Shape]) -> int:
    """The fewest cores over which the neurons of some synapses can be spread evenly."""
    least = 1
    if one.neurons_per_core:
        least = math.ceil(shape.neurons / one.neurons_per_core)
    if one.synapse_bits_per_core:
        synapses = math.fsum(member.layer.macs for member in group)
        least = max(least, math.ceil(synapses * one.weight_bits / one.synapse_bits_per_core))
    least = max(int(least), 1)
    if one.in_axons_per_core:
        while (each := math.ceil(shape.neurons / least)) > 1:
            if _axons(group, each) <= one.in_axons_per_core:
                break
            least = max(least + 1, math.ceil(least * 1.05))
    return min(least, math.ceil(shape.neurons))


def _enough_for_axons(
    one: Chip, shapes: dict[str, Shape], counts: dict[str, int]
) -> dict[str, int]:
    """More cores where the spikes of a core's neurons go to too many others."""
    assert one.out_axons_per_core is not None
    for _ in range(16):
        grown = dict(counts)
        for name in counts:
            after = sum(counts[behind] for behind in shapes[name].behind)
            if after:
                each = max(one.out_axons_per_core // after, 1)
                grown[name] = max(counts[name], math.ceil(shapes[name].neurons / each))
        if grown == counts:
            break
        counts = grown
    return counts
