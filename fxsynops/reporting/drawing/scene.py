"""What a drawing of an analysis shows: boxes and lines, in words and sizes, without places.

scene(analysis, counts) -> Scene
  boxes    the nodes of analysis.graph
  lines    its edges: the events of connections, and what leads into gates
           and beside them the currents: what a synapse puts out, to the sources that it drives
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import fx

from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.results import Connection, Findings
from fxsynops.counting.counts import Counted
from fxsynops.errors import InputError
from fxsynops.reporting.report import number


@dataclass(frozen=True)
class Box:
    """A node of the graph.

    Attributes:
        name: the node's.
        look: what kind of box; "analog" is a synapse all of whose input is analog.
        detail: a few words to stand below the name.
        tip: everything that is known of it.
    """

    name: str
    look: Literal["source", "gate", "synapse", "analog"]
    detail: str
    tip: str


@dataclass(frozen=True)
class Line:
    """From box to box.

    Attributes:
        start, end: names of boxes.
        look: "events" of a connection; "gated", from a source into a gate; "current".
        tip: everything that is known of it.
        size: of a connection, SynOps per sample, or synapses if nothing was counted.
    """

    start: str
    end: str
    look: Literal["events", "gated", "current"]
    tip: str
    size: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What there is to draw; ``unit`` is what sizes are in."""

    title: str
    unit: str
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]

    @property
    def heaviest(self) -> float:
        """The largest size of a line."""
        return max((line.size for line in self.lines), default=0.0)

    def width(self, size: float) -> float:
        """Of a line, in pixels: 7 for the heaviest, 2 less for each power of ten below it."""
        if not size or not self.heaviest:
            return 1.2
        return max(7 + 2 * math.log10(size / self.heaviest), 1.2)


def scene(analysis: Findings, counts: Counted | None = None) -> Scene:
    """The boxes and lines of an analysis.

    Args:
        analysis: what to draw.
        counts: of the same model; sizes are then SynOps per sample, else numbers of synapses.

    Raises:
        InputError: the counts are of another model, or nothing has been counted.
    """
    measured = measures(analysis, counts)
    sizes = {
        c.key: c.fanout.total if counts is None else measured[c.key]["synops"]
        for c in analysis.connections
    }
    unit = "synapses" if counts is None else "SynOps"
    graph = analysis.graph
    lines: list[Line] = []
    for start, end, connection in graph.edges(data="connection"):
        if connection is None:
            lines.append(Line(start, end, "gated", f"{start} → {end}: events into a gate"))
            continue
        size = sizes[connection.key]
        tip = f"{start} → {end}\n" + _about(connection, measured.get(connection.key))
        lines.append(Line(start, end, "events", tip, size))
    lines += [
        Line(start, end, "current", f"{start} drives {end}") for start, end in _currents(analysis)
    ]
    boxes = [_box(name, kinds, analysis, lines, unit) for name, kinds in graph.nodes(data=True)]
    total = math.fsum(sizes.values())
    title = f"{analysis.name}: {brief(total)} {unit}"
    if counts is not None:
        title += f" per sample of {number(counts.timesteps)} steps"
    return Scene(title, unit, tuple(boxes), tuple(lines))


def measures(
    analysis: Findings, counts: Counted | None
) -> dict[tuple[str, str, str], dict[str, float]]:
    """What was counted of each connection: ``synops`` per sample, and the mean ``rate``."""
    if counts is None:
        return {}
    if not counts.samples:
        raise InputError("nothing has been counted yet: run the counter on data first.")
    found = {
        row.connection.key: {"synops": row.synops / counts.samples, "rate": row.rate}
        for row in counts.rows
    }
    if missing := sorted({c.key for c in analysis.connections} - found.keys()):
        raise InputError(
            f"the counts are of another model: they say nothing of {missing[0]}, and have "
            f"{sorted(found)[:5]}. Draw counter.analysis with counter.counts."
        )
    return found


def brief(value: float) -> str:
    """A number in three digits and a suffix: 8.67M."""
    for power, suffix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 0.9995 * 10**power:
            return f"{value / 10**power:.3g}{suffix}"
    return f"{value:.3g}"


def _box(
    name: str, attributes: dict[str, Any], analysis: Findings, lines: list[Line], unit: str
) -> Box:
    kind, macs = attributes["kind"], attributes.get("macs")
    leaving = [c for c in analysis.connections if name in (c.source, *c.sources)]
    arriving = [line.size for line in lines if line.end == name and line.look == "events"]
    ahead = number(math.fsum(line.size for line in lines if line.start == name))
    if kind == "source":
        size = max((c.neurons for c in leaving if c.measured_at == name), default=None)
        detail = "source" if size is None else f"{number(size)} neurons"
        means = sorted({round(c.fanout.mean, 1) for c in leaving})
        fanout = f"mean fan-out {', '.join(f'{mean:,g}' for mean in means)}"
        return Box(name, "source", detail, f"{name}\nsource\n{detail}, {fanout}\n{ahead} {unit}")
    if kind == "gate":
        sources = ", ".join(dict.fromkeys(s for c in leaving for s in c.sources))
        own = f" · {brief(math.fsum(arriving))} {unit}" if arriving else ""  # a product's
        return Box(name, "gate", f"gate{own}", f"{name}\ngate of {sources}\n{ahead} {unit}")
    details, tips = [kind], [name, kind]
    if arriving:
        details.append(f"{brief(math.fsum(arriving))} {unit}")
        tips.append(f"{number(math.fsum(arriving))} {unit}")
    if macs is not None:
        details.append(f"{brief(macs)} MACs/step")
        tips.append(f"analog input: {number(macs)} multiply-accumulates per sample and step")
    look: Literal["synapse", "analog"] = "synapse" if arriving else "analog"
    return Box(name, look, " · ".join(details), "\n".join(tips))


def _about(connection: Connection, measured: dict[str, float] | None) -> str:
    fanout = connection.fanout
    rows = [
        f"{number(connection.neurons)} neurons, fan-out {fanout.mean:,.1f} on average "
        f"({fanout.min:,} to {fanout.max:,})",
        f"{number(fanout.total)} synapses",
    ]
    if connection.measured_at != connection.source:
        rows.append(f"measured at {connection.measured_at}")
    if connection.folded:
        rows.append("a constant is added on the way")
    if measured is not None:
        rows.append(f"{number(measured['synops'])} SynOps per sample")
        rows.append(f"{measured['rate']:.4f} events per neuron and step")
    return "\n".join(rows)


# -- currents --------------------------------------------------------------------------------------


def _currents(analysis: Findings) -> list[tuple[str, str]]:
    """From each synapse to the sources (and synapses) that its output reaches as no event.

    Also from a source straight to another one, where there is no synapse between them.
    """
    named = _named(analysis)
    known = {(source, c.synapse) for c in analysis.connections for source in c.sources}
    known |= set(analysis.graph.edges())
    found: dict[tuple[str, str], None] = {}
    arriving: dict[fx.Node, frozenset[str]] = {}
    roles = analysis.connector.signals.roles
    for node in analysis.trace.graph.nodes:
        constant = node in roles and roles[node].signal.kind == "const"
        inputs = (arriving[n] for n in node.all_input_nodes if not constant)
        arriving[node] = frozenset[str]().union(*inputs)
        if (name := named.get(node)) is None:
            continue
        for start in sorted(arriving[node]):
            if start != name and (start, name) not in known:
                found[start, name] = None
        arriving[node] = frozenset([name])
    inner = dict(_inner(analysis, named))
    into = {(a, inner[b]) for a, b in known | found.keys() if b in inner}  # by way of the synapse
    return [*(pair for pair in found if pair not in into), *inner.items()]


def _named(analysis: Findings) -> dict[fx.Node, str]:
    """The nodes of the trace that are sources or synapses of the graph."""
    graph, names = analysis.graph, analysis.connector.names
    found = {
        node: names[node]
        for node, role in analysis.connector.signals.roles.items()
        if (role.kind == "source" or role.counted) and names[node] in graph
    }
    for connection in analysis.connections:
        found |= dict.fromkeys(connection.calls.calls, connection.synapse)
    return found


def _inner(analysis: Findings, named: dict[fx.Node, str]) -> Iterator[tuple[str, str]]:
    """From the synapses inside of a module that is one node of the trace, to that module."""
    kinds = analysis.graph.nodes(data="kind")
    for node, name in named.items():
        if "virtual" in origin_of(node)[0].meta:
            owner = name
            while "." in owner:
                owner = owner.rpartition(".")[0]
                if owner in analysis.graph and kinds[owner] == "source":
                    yield name, owner
                    break
