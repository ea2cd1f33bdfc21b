"""The graph of an analysis as an SVG image, in colors for light and dark backgrounds."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from xml.sax.saxutils import escape

from fxsynops.connectivity.results import Findings
from fxsynops.counting.counts import Counted
from fxsynops.reporting.drawing.layout import GAP, Layout, Point, place
from fxsynops.reporting.drawing.scene import Box, Line, Scene, brief, scene

_LETTERS = 26  # of a label
_MARGIN = 24.0
_TOP = 60.0  # below the title and legend
_LEGEND_WIDTH = 760.0


def to_svg(analysis: Findings, counts: Counted | None = None) -> str:
    """The graph as an SVG image, for light and dark backgrounds.

    Arguments and errors are as of :func:`fxsynops.drawing.draw`. Full names and numbers show as
    tooltips.

    Example:
        >>> import torch, fxsynops
        >>> from fxsynops import drawing
        >>> model = torch.nn.Sequential(fxsynops.nn.IAF(), torch.nn.Linear(3, 2))
        >>> analysis = fxsynops.analyze(model, torch.ones(1, 10, 3), layout="NT")
        >>> drawing.to_svg(analysis).startswith("<svg")
        True
    """
    shown = scene(analysis, counts)
    names = [_columns(_short(box.name)) for box in shown.boxes]
    letters = max(14.0, *names, *(0.9 * len(box.detail) for box in shown.boxes))
    layout = place(
        [box.name for box in shown.boxes],
        [(line.start, line.end) for line in shown.lines],
        (letters * 7.2 + 22, 40.0),
    )
    width = max(layout.width + 2 * _MARGIN, _LEGEND_WIDTH, 9.5 * len(shown.title) + 2 * _MARGIN)
    height = layout.height + _TOP + _MARGIN / 2
    shift = (width - layout.width) / 2
    routed = sorted(zip(shown.lines, layout.routes, strict=True), key=lambda pair: pair[0].size)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label={_quoted(shown.title)}>',
        f"<style>{_STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        f'<text class="title" x="{_MARGIN}" y="32">{text_of(shown.title)}</text>',
        *_legend(shown),
        f'<g transform="translate({shift:.1f} {_TOP})">',
        *(_line_svg(line, route, shown.width(line.size)) for line, route in routed),
        *(_box_svg(box, layout) for box in shown.boxes),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _line_svg(line: Line, route: tuple[Point, ...], width: float) -> str:
    """A line with its arrow's head. It leaves boxes at the bottom and reaches them at the top."""
    half = 3.0 + width / 2
    end = Point(route[-1].x, route[-1].y - 2 * half)  # of the stroke, where the arrow's head begins
    path = [f"M{route[0].x:.1f} {route[0].y:.1f}"]
    points = (*route[:-1], end)
    back = route[1].y > route[-1].y
    for i, (a, b) in enumerate(itertools.pairwise(points)):
        down = 0.5 * GAP if i == 0 or not back else -0.5 * GAP
        up = 0.5 * GAP if i == len(points) - 2 or not back else -0.5 * GAP
        curve = (a.x, a.y + down, b.x, b.y - up, b.x, b.y)
        path.append(f"V{b.y:.1f}" if i % 2 else "C" + " ".join(f"{place:.1f}" for place in curve))
    head = f"M{end.x - half:.1f} {end.y - 0.5:.1f}h{2 * half:.1f}l{-half:.1f} {2 * half:.1f}Z"
    names = f"data-start={_quoted(line.start)} data-end={_quoted(line.end)}"
    return (
        f'<g class="line {line.look}" {names}><title>{text_of(line.tip)}</title>'
        f'<path d="{" ".join(path)}" stroke-width="{width:.1f}"/>'
        f'<path class="head" d="{head}"/></g>'
    )


def _box_svg(box: Box, layout: Layout) -> str:
    corner, (width, height) = layout.corners[box.name], layout.size
    return (
        f'<g class="box {box.look}" data-name={_quoted(box.name)}><title>{text_of(box.tip)}</title>'
        f"{_rect(corner.x, corner.y, width, height, box.look)}"
        f'<text x="{corner.x + width / 2:.1f}" y="{corner.y + 17:.1f}">{text_of(_short(box.name))}'
        f'</text><text class="detail" x="{corner.x + width / 2:.1f}" y="{corner.y + 32:.1f}">'
        f"{text_of(box.detail)}</text></g>"
    )


def _rect(x: float, y: float, width: float, height: float, look: str) -> str:
    radius = {"source": height / 2, "gate": 9.0}.get(look, 2.0)
    sides = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {sides} rx="{radius:.1f}"/>'


def _legend(shown: Scene) -> Iterator[str]:
    """Samples of the boxes and lines that there are."""
    x, y = _MARGIN, 58.0
    words = {"source": "source", "gate": "gate", "synapse": "synapse", "analog": "analog input"}
    yield '<g class="legend">'
    for look, word in words.items():
        if any(box.look == look for box in shown.boxes):
            yield f'<g class="box {look}">{_rect(x, y - 9, 28, 18, look)}</g>'
            yield f'<text x="{x + 34:.0f}" y="{y + 4:.0f}">{word}</text>'
            x += 50 + 7 * len(word)
    sizes = [line.size for line in shown.lines if line.size]
    extremes = dict.fromkeys((max(sizes), min(sizes))) if sizes else {}
    samples = [("events", size) for size in extremes]
    samples += [("current", 0.0)] if any(line.look == "current" for line in shown.lines) else []
    for look, size in samples:
        word = f"{brief(size)} {shown.unit}" if size else "drives"
        yield f'<g class="line {look}"><path d="M{x:.0f} {y:.0f}h28" '
        yield f'stroke-width="{shown.width(size):.1f}"/></g>'
        yield f'<text x="{x + 34:.0f}" y="{y + 4:.0f}">{word}</text>'
        x += 50 + 7 * len(word)
    yield "</g>"


def _colors(paper: str, ink: str, current: str, looks: dict[str, tuple[str, str]]) -> str:
    rules = [f".paper{{fill:{paper}}}", f"text{{fill:{ink}}}"]
    for look, (fill, stroke) in looks.items():
        rules.append(f".{look} rect{{fill:{fill};stroke:{stroke}}}")
    events, gated = looks["source"][1], looks["gate"][1]
    for look, color in (("events", events), ("gated", gated), ("current", current)):
        rules.append(f".{look} path{{stroke:{color}}}.{look} .head{{fill:{color}}}")
    return "".join(rules)


_LIGHT = _colors(
    "#ffffff",
    "#1f2328",
    "#8c959f",
    {
        "source": ("#dbeafe", "#2563eb"),
        "gate": ("#fef3c7", "#b45309"),
        "synapse": ("#eaeef2", "#57606a"),
        "analog": ("#ffffff", "#57606a"),
    },
)
_DARK = _colors(
    "#0d1117",
    "#e6edf3",
    "#6e7681",
    {
        "source": ("#122a52", "#5b9bff"),
        "gate": ("#3b2a08", "#f0a83c"),
        "synapse": ("#262c36", "#9198a1"),
        "analog": ("#0d1117", "#9198a1"),
    },
)
_STYLE = (
    "text{font:12px system-ui,'DejaVu Sans',sans-serif}.box text{text-anchor:middle}"
    ".detail{font-size:10px;opacity:.8}.title{font-size:17px;font-weight:600}"
    ".box rect{stroke-width:1.4}.analog rect{stroke-dasharray:5 3}"
    ".line path{fill:none}.line .head{stroke:none}"
    f"{_LIGHT}.line:hover path{{stroke:#d6336c}}.line:hover .head{{fill:#d6336c}}"
    ".line .head,.line:hover .head{stroke:none}"
    f"@media (prefers-color-scheme:dark){{{_DARK}.line .head{{stroke:none}}}}"
)


# -- text ------------------------------------------------------------------------------------------


def legible(text: str) -> str:
    """Without the characters that XML does not have, and without line breaks."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def text_of(text: str) -> str:
    """Text of an element; line breaks stay."""
    return "\n".join(escape(legible(line)) for line in text.split("\n"))


def _quoted(text: str) -> str:
    """An attribute's value, with its quotes."""
    return f'"{escape(legible(text), {chr(34): "&quot;"})}"'


def _short(name: str) -> str:
    """A name as long as a box is wide, by leaving out its middle."""
    name = legible(name)
    if _columns(name) <= _LETTERS:
        return name
    start, end = "", ""
    for letter in name:
        if _columns(start + letter) > _LETTERS // 3:
            break
        start += letter
    for letter in reversed(name):
        if _columns(start + letter + end) > _LETTERS - 1:
            break
        end = letter + end
    return f"{start}…{end}"


def _columns(text: str) -> int:
    """How wide a text is, in letters."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
