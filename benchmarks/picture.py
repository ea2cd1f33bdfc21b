"""The picture that opens the README: the demo's counts, as a terminal shows them.

python -m benchmarks.picture [FILE]
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from fxsynops.cli.demo import prepare


def main() -> None:
    """Count forty digits, and draw the table."""
    counter, batches = prepare(40)
    counts = counter.measure(batches, progress=False)
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(counts)
    svg = console.export_svg(title="print(counter.counts)")
    svg = re.sub(r"@font-face\s*{.*?}|<!--.*?-->", "", svg, flags=re.S)  # addresses elsewhere
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg")
    path.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
