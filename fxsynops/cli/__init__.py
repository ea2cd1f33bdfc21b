"""The command line: ``fxsynops fanout``, ``audit``, ``bound``, ``count`` and others.

arguments.py     what can be said: read before torch is imported, so that ``--help`` answers at once
commands.py      what is done
model_files.py   the user's models and data
demo.py          the digits
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from fxsynops.cli.arguments import as_typed, parser
from fxsynops.errors import FxSynopsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        exit status: 0 good, 1 a budget is broken, an audit disagrees or a chip is too small, 2 bad
        usage or model, 130 interrupted.
    """
    options = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # that cannot print a bar prints a "?"
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        from fxsynops.cli import commands  # torch takes a second

        return int(getattr(commands, options.command)(options))
    except FxSynopsError as error:
        if options.debug:
            raise
        print(f"fxsynops: {as_typed(str(error))}", file=sys.stderr)
    except KeyboardInterrupt:
        print("fxsynops: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            raise
        kind = type(error).__name__
        print(f"fxsynops: {kind}: {error} (--debug shows where)", file=sys.stderr)
    return 2
