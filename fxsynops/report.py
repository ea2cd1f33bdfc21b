"""Tables of results: rich in a terminal, plain text elsewhere, JSON for files."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH = 200


def render(printable: Any) -> str:
    """Plain text of an analysis, counts or a bound: no colors, no terminal needed."""
    stream = io.StringIO()
    console = Console(file=stream, width=_PLAIN_WIDTH, color_system=None, force_terminal=False)
    console.print(printable)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def number(value: float | None, digits: int = 2) -> str:
    """A number for a cell: thousands separated, whole numbers without a fraction."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "unbounded"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def table(
    title: str,
    rows: Sequence[dict[str, str]],
    footer: dict[str, str],
    optional: Sequence[str],
    console: Console,
    options: ConsoleOptions,
) -> Table:
    """A table of cells by column; ``optional`` columns are left out if it is too wide."""
    columns = list(rows[0]) if rows else list(footer)
    for left_out in range(len(optional) + 1):
        shown = [c for c in columns if c not in optional[:left_out]]
        table = Table(
            title=title,
            box=box.SIMPLE_HEAD,
            title_justify="left",
            title_style="bold",
            pad_edge=False,
        )
        for column in shown:
            text = column in _TEXT_COLUMNS
            last = footer.get(column, "")
            table.add_column(
                column,
                last,
                justify="left" if text else "right",
                overflow="fold",
                no_wrap=not text,
            )
        table.show_footer = bool(footer)
        for row in rows:
            table.add_row(*(row[column] for column in shown))
        natural = Measurement.get(console, options.update(max_width=_PLAIN_WIDTH * 10), table)
        if natural.maximum <= options.max_width:
            break
    return table


_TEXT_COLUMNS = ("Source", "Synapse", "Layer", "Kind")


def notes(lines: Iterable[str]) -> Iterator[RenderableType]:
    """Lines below a table."""
    for line in lines:
        yield Text(line, style="dim")


def whole(value: float) -> Any:
    """A whole number as an ``int``, any other as it is."""
    return int(value) if float(value).is_integer() else value


def to_json(content: dict[str, Any]) -> str:
    """JSON, in which what is infinite is null."""
    return json.dumps(_finite(content), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
