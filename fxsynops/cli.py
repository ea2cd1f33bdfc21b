"""The command line: ``fxsynops demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import fxsynops
from fxsynops import demo
from fxsynops.errors import FxSynopsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        exit status: 0, or 2 for bad usage.
    """
    parser = argparse.ArgumentParser(prog="fxsynops", description=fxsynops.__doc__)
    parser.add_argument("--version", action="version", version=fxsynops.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "demo", help="count the SynOps of a spiking LeNet on handwritten digits"
    )
    command.add_argument(
        "--samples", type=int, default=300, help="images to run, a multiple of 20 (default: 300)"
    )
    options = parser.parse_args(argv)
    try:
        demo.run(options.samples)
    except FxSynopsError as error:
        print(f"fxsynops: {error}", file=sys.stderr)
        return 2
    return 0
