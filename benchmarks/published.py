"""Published figures reproduced, theirs and ours side by side, each with its source.

    python -m benchmarks.published [NAMES …] [--sana-fe PATH/dvs_challenge.npz]

"Their way" is ours by their definition, which has to print as theirs does; "exact" is what fxsynops
counts, if that is something else, and then why. The exit status is 1 if a figure is not equal.
SANA-FE's network comes with its package (``pip install --no-deps sanafe``); without it, its rows
are left out.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures.rows import Row

NAMES = ("keras_spiking", "pilotnet", "spikingformer", "neurobench", "ptflops")


def figures(name: str) -> list[Row]:
    """The rows of one source."""
    return list(importlib.import_module(f"benchmarks.figures.{name}").rows())


def of_sana_fe(path: str | None) -> Iterator[Row]:
    """Its rows, if its network is there."""
    spec = importlib.util.find_spec("sanafe")
    if path is None and spec is not None and spec.submodule_search_locations:
        path = str(Path(next(iter(spec.submodule_search_locations)), "examples/dvs_challenge.npz"))
    if path is not None and Path(path).exists():
        from benchmarks.figures import sana_fe

        yield from sana_fe.rows(path)


def table(rows: list[Row]) -> Table:
    """All of them."""
    found = Table(title="Published figures", title_justify="left", show_lines=False)
    for name in ("", "Figure", "Theirs", "Their way", "Exact", "Why exact differs", "Source"):
        found.add_column(
            name, justify="right" if name in ("Theirs", "Their way", "Exact") else "left"
        )
    for row in rows:
        exact = "=" if row.exact is None else format(row.exact, row.form)
        ours = format(row.alike, row.form)
        mark = "=" if row.equal else "≠"
        found.add_row(mark, row.name, row.theirs, ours, exact, row.why, row.source)
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--sana-fe", metavar="PATH", help="of sanafe/examples/dvs_challenge.npz")
    options = parser.parse_args()
    rows = [row for name in options.names for row in figures(name)]
    rows += of_sana_fe(options.sana_fe)
    Console(width=200).print(table(rows))
    equal = sum(row.equal for row in rows)
    print(f"{equal} of {len(rows)} figures are equal by their own definition.")
    return 0 if equal == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
