"""Reports: the facts of a result, and every form that they take.

An analysis, counts or a bound gives its facts as plain content (``Report.of``): rows, totals,
notes, options. The same content makes the table in a terminal, JSON, CSV, Markdown, LaTeX, HTML and
a data frame, and a report that was saved as JSON is the same report again (``fxsynops.load``).
"""

from __future__ import annotations

import importlib
import io
import json
import math
import pkgutil
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fxsynops import reporting
from fxsynops.errors import InputError
from fxsynops.reporting import formats
from fxsynops.reporting.formats import FORMS
from fxsynops.version import VERSION

SCHEMA = 1
_PLAIN_WIDTH = 200
_MANY = 40  # rows, beyond which a table shows the heaviest and adds up the others
_HEAVIEST = 24
_BAR = 10  # cells
_NAME = 28  # characters of a name in a picture
_NUMBER = re.compile(r"(?<![^.])\d+(?=[.:])")  # of a block, in the names of what is in it
_UNBOUNDED = "unbounded"  # where nothing can be infinite
_SENTENCE = 24  # characters of a sentence, at least, in a line
_SHORTEST = 12  # … and in a terminal that is too narrow


@dataclass(frozen=True)
class Column:
    """One column of a report's tables.

    Attributes:
        name: the key in the rows.
        header: what stands above it, with its unit; the name if empty.
        show: how a cell is made of a row, if not by formatting its number.
        digits: after the point, of numbers that are not whole.
        percent: whether the number is a share of one.
        text: whether it is text, to be aligned left; "long" if it is no name, and never shortened.
        ratio: the two columns whose sums make its value where rows are added up, if it is a share.
        optional: columns of the highest number are left out first where a terminal is too narrow;
            those of 0 never are.
        missing: what stands for no value.
        added: whether several rows together have the sum of their values.
        timed: whether it depends on the number of steps; marked where that is not known.
    """

    name: str
    header: str = ""
    show: Callable[[dict[str, Any]], str] | None = None
    digits: int = 2
    percent: bool = False
    text: bool | Literal["long"] = False
    ratio: tuple[str, str] | None = None
    optional: int = 0
    missing: str = "–"
    added: bool = True
    timed: bool = False

    @property
    def title(self) -> str:
        """What stands above it."""
        return self.header or self.name

    def cell(self, row: dict[str, Any]) -> str:
        """The text of a row's value."""
        value = row.get(self.name)
        if self.show is not None and self.name in row:
            return self.show(row)
        if value is None:
            return self.missing if self.name in row else ""
        if isinstance(value, str):
            return value
        return f"{value:.1%}" if self.percent else number(value, self.digits)


@dataclass(frozen=True)
class View:
    """How the tables of one kind of report look.

    Attributes:
        columns: from left to right.
        share: the column whose share of the total is drawn as a bar; "" for none.
        rank: the columns whose largest value says how heavy a row is; ``share`` if empty.
        name: the column that says "Total" below.
        group: the column by whose modules the rows of a long report are added up.
    """

    columns: tuple[Column, ...]
    share: str = ""
    rank: tuple[str, ...] = ()
    name: str = ""
    group: str = ""


VIEWS: dict[str, View] = {}


@dataclass(frozen=True)
class Report:
    """A result, ready to be printed, written and read again.

    Attributes:
        content: what JSON holds: "kind", "title", "model", options, "rows", "totals", "notes", …
        all: whether tables show every row, however many there are.
    """

    content: dict[str, Any] = field(repr=False)
    all: bool = False

    @classmethod
    def of(cls, content: dict[str, Any]) -> Report:
        """Of a result's content, which is completed by the versions of this package and schema."""
        return cls({"schema": SCHEMA, "fxsynops": VERSION, **_known(content)})

    @property
    def kind(self) -> str:
        """Of what it is: "analysis", "counts", "bound", "estimate", "comparison", "energy"."""
        return str(self.content["kind"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict per connection."""
        return list(self.content["rows"])

    @property
    def totals(self) -> dict[str, Any]:
        """Of the columns that can be added up."""
        return dict(self.content["totals"])

    def complete(self) -> Report:
        """The same, with every row in its tables."""
        return replace(self, all=True)

    # -- forms -----------------------------------------------------------------------------------

    def to_json(self) -> str:
        """All of it; ``fxsynops.load`` reads it again. What is infinite is "unbounded"."""
        return json.dumps(_in_words(self.content), indent=2, allow_nan=False)

    def to_csv(self) -> str:
        """The rows, with all columns and plain numbers, or "unbounded"."""
        return formats.csv(_in_words(self.rows))

    def to_markdown(self) -> str:
        """The table, with title, total and notes."""
        return formats.markdown(self.grid())

    def to_latex(self, columns: Sequence[str] | None = None) -> str:
        """A ``table`` environment, as wide as a page at most.

        Args:
            columns: which ones, by the names that a table shows or that rows have; all if None. A
                table that would be too wide needs the package ``graphicx``.

        Raises:
            InputError: there is no such column.
        """
        return formats.latex(self.grid(columns))

    def to_html(self) -> str:
        """A page of its own, without scripts and addresses."""
        return formats.html(self.grid(), page=True)

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``; what is unbounded is ``inf``.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise InputError("to_pandas needs pandas: pip install pandas.") from None
        return pandas.DataFrame(self.rows)

    def to(self, form: str) -> str:
        """A form by its name: "table", "json", "csv", "markdown", "latex" or "html".

        A table is as wide as it has to be, up to 200 columns; ``print`` fits the terminal.
        """
        if form == "table":
            return render(self, _PLAIN_WIDTH)
        if form not in FORMS:
            raise InputError(f"there is no format '{form}': take {', '.join(FORMS)}.")
        return str(getattr(self, f"to_{form}")())

    def _repr_html_(self) -> str:
        return formats.html(self.grid(), page=False)

    def __str__(self) -> str:
        return render(self)

    # -- tables ----------------------------------------------------------------------------------

    @property
    def _view(self) -> View:
        return VIEWS[self.kind]

    def _columns(self) -> list[Column]:
        present = set().union(*self.rows[:1], self.totals)
        columns = [column for column in self._view.columns if column.name in present]
        if self.content.get("steps_known", True):
            return columns
        return [replace(c, header=c.title + " ?") if c.timed else c for c in columns]

    def _some_columns(self, names: Sequence[str]) -> list[Column]:
        known = {column.name: column for column in self._columns()}
        known |= {column.title: column for column in known.values()}
        if unknown := [name for name in names if name not in known]:
            said = ", ".join(dict.fromkeys(column.title for column in known.values()))
            raise InputError(f"there are no columns {unknown}; there are {said}.")
        return [known[name] for name in names]

    def _share_of(self, row: dict[str, Any]) -> float | None:
        value, total = row.get(self._view.share), self.totals.get(self._view.share)
        if value is None or not total or math.isinf(total):
            return None
        return float(value / total)

    def grid(self, only: Sequence[str] | None = None) -> formats.Grid:
        """The table as text: what every form but JSON and CSV is made of."""
        columns = self._columns() if only is None else self._some_columns(only)
        rows = self.shown()
        total = {**self.totals, self._view.name: "Total"}
        tables = [
            formats.Cells(
                str(self.content["title"]),
                tuple(column.title for column in columns),
                tuple(column.text for column in columns),
                tuple(tuple(column.cell(row) for column in columns) for row in rows),
                tuple(_total(column, total) for column in columns) if self.totals else (),
                tuple(self._share_of(row) for row in rows) if self._view.share else (),
            )
        ]
        for extra in self.content.get("tables", ()):
            names = tuple(extra["rows"][0])
            cells = tuple(
                tuple(v if isinstance(v, str) else number(v) for v in row.values())
                for row in extra["rows"]
            )
            text = tuple(isinstance(value, str) for value in extra["rows"][0].values())
            tables.append(formats.Cells(extra["title"], names, text, cells))
        return formats.Grid(tuple(tables), tuple(self._notes(rows)))

    def shown(self) -> list[dict[str, Any]]:
        """The rows of a table: of many, repeated blocks once, and the light ones by module."""
        view, rows = self._view, self.rows
        if self.all or len(rows) <= _MANY or not view.share:
            return rows
        rows = self._repeated_once(rows)
        if len(rows) <= _MANY:
            return rows
        ranks = view.rank or (view.share,)
        most = [max(row.get(name) or 0 for name in ranks) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: -most[i])
        heavy = set(order[:_HEAVIEST])
        groups: dict[str, list[dict[str, Any]]] = {}
        for i in order[_HEAVIEST:]:
            groups.setdefault(str(rows[i][view.group]).split(".")[0], []).append(rows[i])
        found = [row for i, row in enumerate(rows) if i in heavy]
        for module, members in groups.items():
            if len(members) == 1:
                found.append(members[0])
                continue
            found.append({view.group: f"{module}: {len(members)} more"} | self._added(members))
        return found

    def _added(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What several rows have together, where that is known."""
        found: dict[str, Any] = {}
        for column in self._view.columns:
            values = [row.get(column.name) for row in rows]
            if column.name in self.totals and column.ratio is None and column.added:
                found[column.name] = None if None in values else sum(values)
        for column in self._view.columns:
            if column.ratio is not None and column.name in self.totals:
                part, whole = (found.get(name) for name in column.ratio)
                found[column.name] = None
                if part is not None and whole and math.isfinite(whole):
                    found[column.name] = part / whole
        return found

    def _repeated_once(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows that differ in the number of a block alone are one: "blocks.*.up × 32"."""
        alike: dict[Any, list[dict[str, Any]]] = {}
        for row in rows:
            same = {
                name: _NUMBER.sub("*", value) if isinstance(value, str) else str(value)
                for name, value in row.items()
            }
            alike.setdefault(tuple(same.items()), []).append(row)
        found = []
        for same, members in alike.items():
            row = members[0]
            if len(members) > 1:
                names = {name: value for name, value in same if isinstance(row[name], str)}
                names[self._view.group] += f" × {len(members)}"
                row = {**row, **names, **self._added(members)}
            found.append(row)
        return found

    def _notes(self, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
        if len(rows) < len(self.rows):
            every = "(report.complete(), or --all, shows every one)"
            group = self._view.group
            if repeated := any(" × " in str(row[group]) for row in rows):
                yield (
                    "× n: so many connections of repeated blocks, which are the same: sums are of "
                    f"all of them, other columns of each {every}."
                )
            if any(str(row[group]).endswith(" more") for row in rows) or not repeated:
                yield (
                    f"The {_HEAVIEST} heaviest of {len(self.rows):,} connections; the others are "
                    f"added up by module {every}."
                )
        yield from self.content["notes"]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grid = self.grid()
        first, *others = grid.tables
        heavy = _half(first.shares)
        columns = self._columns()
        drop = sorted((c for c in columns if c.optional), key=lambda c: -c.optional)
        wide = options.update(max_width=_PLAIN_WIDTH * 10)

        def width(cells: formats.Cells, kept: list[int]) -> int:
            table = _table(_narrow(cells), kept, heavy, options)
            return Measurement.get(console, wide, table).maximum

        for left_out in range(len(drop) + 2):  # and in the end, the bars
            kept = [i for i, column in enumerate(columns) if column not in drop[:left_out]]
            cells = first if left_out <= len(drop) else replace(first, shares=())
            if width(cells, kept) <= options.max_width:
                break
        most = max((len(row[i]) for row in cells.rows for i in kept if cells.text[i]), default=0)
        shown = cells
        while width(shown, kept) > options.max_width and most > _SHORTEST:
            most = max(most - 4, _SHORTEST)
            shown = _shorter(cells, most)
        yield Text(cells.title, style="bold")
        fits = width(shown, kept) <= options.max_width
        yield _table(shown, kept, heavy, options) if fits else _list(first, kept)
        for extra in others:
            yield Text(extra.title, style="bold")
            yield _table(extra, list(range(len(extra.headers))), frozenset(), options)
        if heavy and cells.shares and len(heavy) < len(first.rows):
            yield Text("◂ these rows make up half of the total", style="dim")
        gone = [columns[i].title for i in range(len(columns)) if i not in kept]
        if first.shares and (not cells.shares or not fits):
            gone.append("Share")
        if gone:
            yield Text(f"No room for: {', '.join(gone)}.", style="dim")
        for note in grid.notes:
            yield Text(note, style="dim")


class Reported:
    """What every result can do with its report.

    A subclass says what its report holds in ``_content``.
    """

    def _content(self) -> dict[str, Any]:
        raise NotImplementedError

    def report(self) -> Report:
        """The facts of this result, in every form."""
        return Report.of(self._content())

    def to_rows(self) -> list[dict[str, Any]]:
        """One dict per connection."""
        rows: list[dict[str, Any]] = self._content()["rows"]
        return rows

    def to_json(self) -> str:
        """Rows, totals, notes and options as JSON, which ``fxsynops.load`` reads again."""
        return self.report().to_json()

    def to_csv(self) -> str:
        """See :meth:`Report.to_csv`."""
        return self.report().to_csv()

    def to_markdown(self) -> str:
        """See :meth:`Report.to_markdown`."""
        return self.report().to_markdown()

    def to_latex(self, columns: Sequence[str] | None = None) -> str:
        """See :meth:`Report.to_latex`."""
        return self.report().to_latex(columns)

    def to_html(self) -> str:
        """See :meth:`Report.to_html`."""
        return self.report().to_html()

    def to_pandas(self) -> Any:
        """See :meth:`Report.to_pandas`."""
        return self.report().to_pandas()

    def _repr_html_(self) -> str:
        return self.report()._repr_html_()

    def __str__(self) -> str:
        return render(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.report()


def load(path: str | Path) -> Report:
    """Read a report that was saved as JSON.

    Args:
        path: of a file with what ``to_json()`` gave.

    Raises:
        InputError: there is no such file, or it holds something else.

    Example:
        >>> import pathlib, tempfile, torch, fxsynops
        >>> analysis = fxsynops.analyze(torch.nn.Linear(4, 3), torch.ones(2, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "fanout.json")
        ...     _ = path.write_text(analysis.to_json())
        ...     fxsynops.load(path).totals["Synapses"]
        12
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the report '{path}' cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise InputError(f"the report '{path}' is no JSON: {error}.") from None
    for part in pkgutil.iter_modules(reporting.__path__):
        if part.name.endswith("_table") or part.name == "comparison":
            importlib.import_module(f"{reporting.__name__}.{part.name}")  # which name their kinds
    wanted = {"schema", "kind", "title", "rows", "totals", "notes"}
    if not isinstance(content, dict) or not wanted <= content.keys():
        raise InputError(
            f"'{path}' is no report of fxsynops: write one with to_json(), or --format json."
        )
    if content["schema"] != SCHEMA or content["kind"] not in VIEWS:
        raise InputError(
            f"the report '{path}' has schema {content['schema']} and kind {content['kind']!r}, and "
            f"this version of fxsynops reads schema {SCHEMA}: make it anew, or update fxsynops."
        )
    return Report(_in_numbers(content))


# -- cells ----------------------------------------------------------------------------------------


def render(printable: Any, width: int | None = None) -> str:
    """Plain text of a result: no colors, no terminal needed.

    Args:
        printable: what rich can print.
        width: in characters; if None, that of the terminal that is printed to, if it is one.
    """
    stream = io.StringIO()
    if width is None:
        in_terminal = bool(getattr(sys.stdout, "isatty", lambda: False)())
        width = shutil.get_terminal_size().columns if in_terminal else _PLAIN_WIDTH
    console = Console(
        file=stream, width=width, color_system=None, force_terminal=False, force_jupyter=False
    )
    console.print(printable)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def number(value: float | None, digits: int = 2) -> str:
    """A number for a cell: thousands separated, whole numbers without a fraction."""
    if value is None:
        return "–"
    if math.isinf(value):
        return _UNBOUNDED
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def count_of(value: float, thing: str) -> str:
    """How many of a thing: "1 step", "20 steps"."""
    return f"{number(value)} {thing}{'s' * (value != 1)}"


def shortened(name: str, most: int = _NAME) -> str:
    """A long name without its middle."""
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def distinct(names: Sequence[str], most: int = _NAME) -> dict[str, str]:
    """Long names without their middles, but for those that would be the same."""
    short = {name: shortened(name, most) for name in names}
    often = Counter(short.values())
    return {name: one if often[one] == 1 else name for name, one in short.items()}


def _narrow(cells: formats.Cells) -> formats.Cells:
    """A table as it is with sentences that go over many lines."""
    rows = (
        tuple(
            cell[:_SENTENCE] if text == "long" else cell
            for cell, text in zip(row, cells.text, strict=True)
        )
        for row in cells.rows
    )
    return replace(cells, rows=tuple(rows))


def _shorter(cells: formats.Cells, most: int) -> formats.Cells:
    """A table with names of a length at most, if that tells them apart."""
    columns = [
        distinct(column, most) if text is True else dict(zip(column, column, strict=True))
        for column, text in zip(zip(*cells.rows, strict=True), cells.text, strict=True)
    ]
    rows = (
        tuple(names[cell] for names, cell in zip(columns, row, strict=True)) for row in cells.rows
    )
    return replace(cells, rows=tuple(rows))


def source_label(row: dict[str, Any]) -> str:
    """The source as tables name it: with the gate at which its events are measured."""
    source, at = row["Source"], row.get("Measured at")
    return f"{source} at {at}" if at not in (None, source) else str(source)


def _total(column: Column, totals: dict[str, Any]) -> str:
    if column.name not in totals:
        return ""
    value = totals[column.name]
    if isinstance(value, str):
        return value
    return column.cell(totals)


def _half(shares: Sequence[float | None]) -> frozenset[int]:
    """The fewest rows that make up half of the total."""
    found: set[int] = set()
    summed = 0.0
    for i in sorted(range(len(shares)), key=lambda i: -(shares[i] or 0)):
        if summed >= 0.5 or not shares[i]:
            break
        found.add(i)
        summed += shares[i] or 0
    return frozenset(found)


def _table(
    cells: formats.Cells, kept: list[int], heavy: frozenset[int], options: ConsoleOptions
) -> Table:
    """A table of some of the columns, with bars."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_footer=bool(cells.total),
    )
    for i in kept:
        table.add_column(
            cells.headers[i],
            cells.total[i] if cells.total else "",
            justify="left" if cells.text[i] else "right",
            overflow="fold",
            no_wrap=not cells.text[i],
        )
    if cells.shares:
        table.add_column("Share", no_wrap=True)
    for r, row in enumerate(cells.rows):
        shown = [Text(row[i]) for i in kept]
        if cells.shares:
            shown.append(_bar(cells.shares[r], r in heavy, options.ascii_only))
        table.add_row(*shown, style="bold" if r in heavy else None)
    return table


def _list(cells: formats.Cells, kept: list[int]) -> Text:
    """A table that is too wide for a terminal even with the fewest columns: row below row."""
    names = [i for i in kept if cells.text[i]]
    numbers = [i for i in kept if not cells.text[i]]
    margin = max((len(cells.headers[i]) for i in numbers), default=0)
    lines = []
    for row in (*cells.rows, *([cells.total] if cells.total else [])):
        lines += ["", " · ".join(f"{cells.headers[i]} {row[i]}".strip() for i in names if row[i])]
        lines += [f"  {cells.headers[i]:{margin}}  {row[i]}" for i in numbers if row[i]]
    return Text("\n".join([*lines, ""]))


def _bar(share: float | None, heavy: bool, ascii_only: bool) -> Text:
    if share is None:
        return Text("–")
    eighths = round(share * _BAR * 8)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    if ascii_only:
        bar = "#" * round(share * _BAR)
    mark = ("<" if ascii_only else "◂") if heavy else ""
    return Text.assemble(f"{share:6.1%} ", (bar, "cyan"), " " if bar and mark else "", mark)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same, with other leaves."""
    if isinstance(value, dict):
        return {k: _each(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_each(v, change) for v in value]
    return change(value)


def _known(content: Any) -> Any:
    return _each(content, lambda v: None if isinstance(v, float) and math.isnan(v) else v)


def _in_words(content: Any) -> Any:
    return _each(content, lambda v: _UNBOUNDED if v == math.inf else v)


def _in_numbers(content: dict[str, Any]) -> dict[str, Any]:
    """What :func:`_in_words` was given; names stay names."""
    texts = {column.name for column in VIEWS[content["kind"]].columns if column.text}

    def back(row: dict[str, Any]) -> dict[str, Any]:
        return {k: math.inf if v == _UNBOUNDED and k not in texts else v for k, v in row.items()}

    texts |= {"title", "model"}
    rows = [back(row) for row in content["rows"]]
    return {**back(content), "rows": rows, "totals": back(content["totals"])}
