"""Tables of text as CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv as _csv
import html as _html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FORMS = ("table", "json", "csv", "markdown", "latex", "html")


_PAGE = 84  # characters of a table that is as wide as an article's text


@dataclass(frozen=True)
class Cells:
    """A table of text.

    Attributes:
        title: what stands above it.
        headers: of the columns.
        text: whether a column is text, and not numbers.
        rows: its cells.
        total: the last row, or nothing.
        shares: of each row, its share of the total, or nothing.
    """

    title: str
    headers: tuple[str, ...]
    text: tuple[bool | str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...] = ()
    shares: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Tables, and the notes below them."""

    tables: tuple[Cells, ...]
    notes: tuple[str, ...]


def csv(rows: Sequence[dict[str, Any]]) -> str:
    """Plain numbers, a header line, lists joined by semicolons."""
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = _csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {k: "; ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()}
        )
    return stream.getvalue()


def markdown(grid: Grid) -> str:
    """Pipe tables; names keep their underscores and stars."""
    parts = []
    for cells in grid.tables:
        rule = ["---" if text else "---:" for text in cells.text]
        lines = [cells.headers, rule, *cells.rows]
        lines += [tuple(f"**{cell}**" if cell else "" for cell in cells.total)] * bool(cells.total)
        escaped = [lines[0], lines[1], *([_pipe(cell) for cell in line] for line in lines[2:])]
        table = "\n".join("| " + " | ".join(line) + " |" for line in escaped)
        parts.append(f"**{cells.title}**\n\n{table}")
    return "\n\n".join([*parts, *grid.notes]) + "\n"


def _pipe(cell: str) -> str:
    bold = cell.startswith("**") and cell.endswith("**") and len(cell) > 4
    inner = " ".join((cell[2:-2] if bold else cell).split())
    for special in "\\|*_<>`":
        inner = inner.replace(special, f"\\{special}")
    return f"**{inner}**" if bold else inner


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "–": "--", "…": r"\dots{}", "×": r"$\times$",
    "Σ": r"$\Sigma$", "µ": r"$\mu$", "·": r"$\cdot$", "≤": r"$\le$", "≥": r"$\ge$",
    "→": r"$\to$", "|": r"\textbar{}", "θ": r"$\theta$", "Δ": r"$\Delta$",
}  # fmt: skip


def _latex(text: str) -> str:
    text = re.sub(r"(?<!\w)'([^']*)'(?!\w)", r"`\1'", text)
    text = re.sub(r'"([^"]*)"', r"``\1''", text)
    return "".join(_LATEX.get(character, character) for character in text)


def latex(grid: Grid) -> str:
    """A ``table`` with a caption; what is wider than a page is made smaller (``graphicx``)."""
    lines = [r"\begin{table}", r"\centering"]
    for cells in grid.tables:
        if too_wide := _width(cells) > _PAGE:
            lines.append(r"\resizebox{\textwidth}{!}{% \usepackage{graphicx}")
        lines.append(rf"\begin{{tabular}}{{{''.join('l' if t else 'r' for t in cells.text)}}}")
        lines.append(r"\hline")
        for i, row in enumerate([cells.headers, *cells.rows, *([cells.total] * bool(cells.total))]):
            if i and row is cells.total:
                lines.append(r"\hline")
            lines.append(" & ".join(map(_latex, row)) + r" \\")
            if i == 0:
                lines.append(r"\hline")
        lines += [r"\hline", r"\end{tabular}" + "}" * too_wide, ""]
    notes = " ".join([f"{grid.tables[0].title}.", *grid.notes])
    return "\n".join([*lines, rf"\caption{{{_latex(notes)}}}", r"\end{table}", ""])


def _width(cells: Cells) -> int:
    """Of a table, in characters."""
    columns = zip(*[cells.headers, *cells.rows, *([cells.total] * bool(cells.total))], strict=True)
    return sum(2 + max(map(len, column)) for column in columns)


_STYLE = """
.fxsynops { font: 13px system-ui, sans-serif; border-collapse: collapse; margin: .5em 0 }
.fxsynops caption { text-align: left; font-weight: bold; padding: .3em 0 }
.fxsynops th, .fxsynops td { padding: .15em .7em; text-align: right; white-space: nowrap }
.fxsynops thead th { border-bottom: 1px solid currentColor }
.fxsynops tfoot td { border-top: 1px solid currentColor; font-weight: bold }
.fxsynops i { display: inline-block; height: .7em; background: #4a7fb5; margin-left: .5em }
.fxsynops-note { font: 12px system-ui, sans-serif; opacity: .75; margin: .2em 0 }
"""
_LEFT = ' style="text-align: left"'  # in the cell: notebooks align all cells of theirs


def html(grid: Grid, page: bool) -> str:
    """Tables with bars; a page of its own, or a part for a notebook."""
    parts = [f"<style>{_STYLE}</style>"]
    for cells in grid.tables:
        kinds = [_LEFT if text else "" for text in cells.text]

        def line(tag: str, row: Sequence[str], kinds: Sequence[str] = kinds) -> str:
            pairs = zip(kinds, row, strict=True)
            return "".join(f"<{tag}{kind}>{_html.escape(cell)}</{tag}>" for kind, cell in pairs)

        share = ["<th>Share</th>"] if cells.shares else [""]
        body = []
        for i, row in enumerate(cells.rows):
            bar = f"<td{_LEFT}>{_share(cells.shares[i])}</td>" if cells.shares else ""
            body.append(f"<tr>{line('td', row)}{bar}</tr>")
        foot = f"<tfoot><tr>{line('td', cells.total)}</tr></tfoot>" if cells.total else ""
        parts.append(
            f'<table class="fxsynops"><caption>{_html.escape(cells.title)}</caption>'
            f"<thead><tr>{line('th', cells.headers)}{share[0]}</tr></thead>"
            f"<tbody>{''.join(body)}</tbody>{foot}</table>"
        )
    parts += [f'<p class="fxsynops-note">{_html.escape(note)}</p>' for note in grid.notes]
    inner = "\n".join(parts)
    if not page:
        return f"<div>{inner}</div>"
    title = _html.escape(grid.tables[0].title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"</head><body>{inner}</body></html>\n"
    )


def _share(share: float | None) -> str:
    if share is None:
        return "–"
    return f'{share:.1%}<i style="width:{share * 6:.2f}em"></i>'
