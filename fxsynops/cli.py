"""The command line: ``fxsynops demo``, ``fxsynops check``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

import fxsynops
from fxsynops import demo
from fxsynops.bound import Bound
from fxsynops.budget import Budget
from fxsynops.errors import FxSynopsError, InputError
from fxsynops.report import number
from fxsynops.target import example, load_model

_CHECK_EXAMPLES = """\
examples:
  fxsynops check models.py:make --input 1x20x2x32x32 --layout NT --budget budget.toml
  fxsynops check package.nets:SNN --input 1x3x32x32 --analog --input-range 0,1 --max-synops 2e6

budget.toml:
  max_synops = 2e6
  max_synops_per_second = 1e9

  [per_layer]
  conv1 = 500_000
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        exit status: 0 good, 1 a budget is broken, 2 bad usage or model.
    """
    parser = argparse.ArgumentParser(prog="fxsynops", description=fxsynops.__doc__)
    parser.add_argument("--version", action="version", version=fxsynops.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_demo(commands)
    _add_check(commands)
    options = parser.parse_args(argv)
    try:
        return options.run(options)
    except FxSynopsError as error:
        print(f"fxsynops: {error}", file=sys.stderr)
        return 2


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "demo", help="count the SynOps of a spiking LeNet on handwritten digits"
    )
    command.add_argument(
        "--samples", type=int, default=300, help="images to run, a multiple of 20 (default: 300)"
    )
    command.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    demo.run(options.samples)
    return 0


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "check",
        help="hold a model's upper bound to a budget: exit status 1 if it is broken",
        epilog=_CHECK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model(command)
    _add_assumptions(command)
    command.add_argument("--budget", metavar="FILE", help="a TOML file of limits; see below")
    command.add_argument("--max-synops", type=float, metavar="N", help="limit per sample")
    command.add_argument(
        "--max-synops-per-second", type=float, metavar="N", help="limit of one sample at a time"
    )
    command.set_defaults(run=_check)


def _add_model(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", help="package.module:factory or file.py:Class")
    add("--input", required=True, metavar="SHAPE", help="1x1x28x28; several: 1x8,1x4")
    add("--layout", default="N", help='leading axes: N, NT, TN, T, "", (NT), (TN) (default: N)')
    add("--batch-size", type=int, metavar="N", help="samples, where the shape does not tell")
    add("--timesteps", type=int, metavar="T", help="steps of a forward, likewise")
    add("--dt", type=float, default=1.0, metavar="MS", help="milliseconds per step (default: 1)")
    add("--analog", action="store_true", help="the input is no spikes, but an image or a current")


def _add_assumptions(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--window", type=int, metavar="T", help="steps to bound (default: those of a forward)")
    add("--max-spikes", type=float, metavar="R", help="events per neuron and step at most")
    add("--input-max-events", type=float, metavar="K", help="events per input element at most")
    add("--input-range", metavar="LOW,HIGH", help="of an analog input")


def _check(options: argparse.Namespace) -> int:
    totals = options.max_synops, options.max_synops_per_second
    if options.budget and any(limit is not None for limit in totals):
        raise InputError("--budget holds all limits: leave out --max-synops and the like.")
    budget = Budget.load(options.budget) if options.budget else Budget(*totals)
    analysis = fxsynops.analyze(
        load_model(options.model),
        example(options.input, not options.analog),
        layout=options.layout,
        batch_size=options.batch_size,
        timesteps=options.timesteps,
        dt=options.dt,
        input_events=not options.analog,
    )
    bound = analysis.upper_bound(
        options.window,
        max_spikes=options.max_spikes,
        input_max_events=options.input_max_events,
        input_range=_interval(options.input_range),
    )
    violations = bound.check(
        budget.max_synops,
        max_synops_per_second=budget.max_synops_per_second,
        per_layer=budget.per_layer,
    )
    console = Console()
    console.print(bound)
    for violation in violations:
        console.print(f"over budget: {violation}", style="bold red", soft_wrap=True)
    if any(violation.name == "total" for violation in violations):
        console.print(f"heaviest layers: {_heaviest(bound)}", soft_wrap=True)
    if not violations:
        console.print("within the budget", style="bold green")
    return 1 if violations else 0


def _heaviest(bound: Bound, shown: int = 5) -> str:
    """The layers that take most of a bound."""
    rows = sorted(bound.rows, key=lambda row: -row.charge)[:shown]
    return ", ".join(f"{row.connection.synapse} ({number(row.charge, 0)})" for row in rows)


def _interval(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--input-range '{text}' is not two numbers: write 0,1.") from None
    return low, high
