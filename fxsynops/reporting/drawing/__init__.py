"""The graph of an analysis as a drawing: SVG, HTML, Mermaid, and as GraphML.

    draw(analysis, path, counts)
      scene(analysis, counts)    boxes and lines, in words and sizes (scene)
      to_svg, to_html            … in their places (svg, layout)
      to_mermaid                 … that Mermaid will place
      to_graphml                 analysis.graph itself

Events run from sources to synapses (and through gates); what a synapse puts out drives the next
sources, which the drawings show by thin lines. None of the files needs a server or a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx

from fxsynops.connectivity.results import Connection, Findings
from fxsynops.counting.counts import Counted
from fxsynops.errors import InputError
from fxsynops.reporting.drawing.scene import brief, measures, scene
from fxsynops.reporting.drawing.svg import legible, text_of, to_svg
from fxsynops.reporting.files import write_whole

__all__ = ["draw", "to_graphml", "to_html", "to_mermaid", "to_svg"]


def draw(analysis: Findings, path: str | os.PathLike[str], counts: Counted | None = None) -> None:
    """Write the graph to a file, whose suffix says how: .svg, .html, .mmd (Mermaid) or .graphml.

    The file is there as a whole, or (if anything fails) as it was before.

    Args:
        analysis: what to draw.
        path: the file.
        counts: of the same model; lines are then the wider the more SynOps they carry, else
            synapses: two points for each factor of ten.

    Raises:
        InputError: another suffix, a place that cannot be written to, or counts of another model.
    """
    file = Path(path)
    make = _FORMATS.get(file.suffix.lower())
    if make is None:
        raise InputError(f"'{file}' should end in one of {', '.join(_FORMATS)}.")
    write_whole(file, make(analysis, counts))


def to_html(analysis: Findings, counts: Counted | None = None) -> str:
    """The graph as a page of its own, which loads nothing; see :func:`to_svg`."""
    title = text_of(scene(analysis, counts).title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f"<title>{title}</title>\n"
        f"<style>{_PAGE}</style>\n</head>\n<body>\n{to_svg(analysis, counts)}</body>\n</html>\n"
    )


def to_mermaid(analysis: Findings, counts: Counted | None = None) -> str:
    """The graph as a Mermaid flowchart, as Markdown pages show it; see :func:`draw`.

    Thick arrows are connections (with their numbers), thin ones lead into gates, and dotted ones
    from what a synapse puts out to the sources that it drives.
    """
    shown = scene(analysis, counts)
    numbers = {box.name: f"n{i}" for i, box in enumerate(shown.boxes)}
    rows = ["---", f'title: "{_mermaid(shown.title)}"', "---", "flowchart TD"]
    for box in shown.boxes:
        opening, closing = _SHAPES[box.look]
        label = f"{_mermaid(box.name)}<br/>{_mermaid(box.detail)}"
        rows.append(f'    {numbers[box.name]}{opening}"{label}"{closing}:::{box.look}')
    for line in shown.lines:
        arrow = f'==>|"{brief(line.size)}"|' if line.look == "events" else _ARROWS[line.look]
        rows.append(f"    {numbers[line.start]} {arrow} {numbers[line.end]}")
    for i, line in enumerate(shown.lines):
        if line.look == "events":
            rows.append(f"    linkStyle {i} stroke-width:{shown.width(line.size):.1f}px")
    rows += [f"    classDef {look} {style}" for look, style in _CLASSES.items()]
    return "\n".join(rows) + "\n"


def to_graphml(analysis: Findings, counts: Counted | None = None) -> str:
    """``analysis.graph`` as GraphML, with the attributes of connections as plain numbers.

    Edges that are connections have ``measured_at``, ``neurons``, ``synapses``, ``fanout_mean``,
    ``fanout_nominal`` (where there is one), ``folded``, ``gated`` and, with counts, ``synops`` per
    sample and ``rate`` (events per neuron and step). Arguments and errors are as of :func:`draw`.
    """
    measured = measures(analysis, counts)
    graph = nx.MultiDiGraph(model=legible(analysis.name))
    for name, attributes in analysis.graph.nodes(data=True):
        plain: dict[str, Any] = {"kind": attributes["kind"]}
        if "macs" in attributes:
            plain["macs"] = float(attributes["macs"])
        graph.add_node(legible(name), **plain)
    for i, (start, end, connection) in enumerate(analysis.graph.edges(data="connection")):
        plain = {}
        if connection is not None:
            plain = _plain(connection) | measured.get(connection.key, {})
        graph.add_edge(legible(start), legible(end), key=f"e{i}", **plain)
    return "\n".join(nx.generate_graphml(graph)) + "\n"


_FORMATS: dict[str, Callable[[Findings, Counted | None], str]] = {
    ".svg": to_svg,
    ".html": to_html,
    ".mmd": to_mermaid,
    ".graphml": to_graphml,
}


_PAGE = (
    ":root{color-scheme:light dark}body{margin:0;background:#fff}svg{display:block;margin:0 auto}"
    "@media (prefers-color-scheme:dark){body{background:#0d1117}}"
)

_SHAPES = {
    "source": ("([", "])"),
    "gate": ("{{", "}}"),
    "synapse": ("[", "]"),
    "analog": ("[", "]"),
}
_ARROWS = {"gated": "-->", "current": "-.->"}
_CLASSES = {
    "source": "fill:#dbeafe,stroke:#2563eb,color:#1f2328",
    "gate": "fill:#fef3c7,stroke:#b45309,color:#1f2328",
    "synapse": "fill:#eaeef2,stroke:#57606a,color:#1f2328",
    "analog": "fill:#ffffff,stroke:#57606a,color:#1f2328,stroke-dasharray:5 3",
}


def _mermaid(text: str) -> str:
    """What Mermaid reads as this text, between quotes: other characters than plain ones by code."""
    return re.sub(r"[^\w .,:()/·…–-]", lambda found: f"#{ord(found[0])};", legible(text))


def _plain(connection: Connection) -> dict[str, Any]:
    """A connection's attributes for GraphML."""
    fanout = connection.fanout
    found = {
        "measured_at": legible(connection.measured_at),
        "neurons": float(connection.neurons),
        "synapses": float(fanout.total),
        "fanout_mean": float(fanout.mean),
        "folded": connection.folded,
        "gated": connection.measured_at not in connection.sources,
    }
    return found if fanout.nominal is None else found | {"fanout_nominal": float(fanout.nominal)}
