"""The command line: ``fxsynops fanout``, ``audit``, ``bound``, ``count`` and others."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils import _pytree as pytree

import fxsynops
from fxsynops.cli import demo
from fxsynops.cli.model_files import example, find, load_model
from fxsynops.cost.budget import Budget
from fxsynops.cost.chips import Chip, chips
from fxsynops.cost.devices import DEVICES, Device
from fxsynops.errors import FxSynopsError, InputError
from fxsynops.nir import NIRModel, nir_example
from fxsynops.reporting.comparison import compare
from fxsynops.reporting.files import write_whole
from fxsynops.reporting.report import FORMS, Report, Reported, number
from fxsynops.results import Bound, Counts
from fxsynops.tracing.torch_api import parameters_of

_MODEL = """\
The model is package.module:name or file.py:name, of an instance, or of a class
or function that is called without arguments and makes one; or a file.nir."""
_FANOUT = """\
examples:
  fxsynops fanout nets.py:make --input 1x1x28x28
  fxsynops fanout package.nets:SNN --input 2x20x2x32x32 --layout NT --format markdown
  fxsynops fanout braille.nir
"""
_AUDIT = """\
examples:
  fxsynops audit nets.py:make --input 4x1x28x28 --analog
  fxsynops audit package.nets:SNN --input 2x20x2x32x32 --layout NT --spiking package.nets:LIF
"""
_BOUND = """\
examples:
  fxsynops bound nets.py:make --input 1x20x2x32x32 --layout NT --input-max-events 5
  fxsynops bound nets.py:make --input 1x3x32x32 --analog --input-range 0,1 --format json
"""
_CHECK = """\
examples:
  fxsynops check nets.py:make --input 1x20x2x32x32 --layout NT --budget budget.toml
  fxsynops check package.nets:SNN --input 1x3x32x32 --analog --input-range 0,1 --max-synops 2e6

budget.toml:
  max_synops = 2e6
  max_synops_per_second = 1e9

  [per_layer]
  conv1 = 500_000
"""
_COUNT = """\
examples:
  fxsynops count nets.py:make --input 8x20x2x32x32 --layout NT --data data.py:test_loader
  fxsynops count nets.py:make --input 8x20x2x32x32 --layout NT --random-spikes 0.3
  fxsynops count nets.py:make --input 8x20x2x32x32 --layout NT --random-spikes 0.3 --steps
  fxsynops count nets.py:make --input 8x784 --random-spikes 0.1 --energy --devices chips.toml

chips.toml (joules):
  ["our chip"]
  per_synop = 2e-12
  per_update = 10e-12
  source = "data sheet"
"""
_COMPARE = """\
example:
  fxsynops count nets.py:dense --input 8x784 --random-spikes 0.3 --format json --output a.json
  fxsynops count nets.py:sparse --input 8x784 --random-spikes 0.3 --format json --output b.json
  fxsynops compare a.json b.json
"""

_FIT = """\
examples:
  fxsynops fit nets.py:make --input 1x20x2x32x32 --layout NT --chip speck2f
  fxsynops fit nets.py:make --input 1x784 --chip ours --chips chips.toml

chips.toml:
  [ours]
  same_as = "loihi"
  cores = 32
"""

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        exit status: 0 good, 1 a budget is broken, an audit disagrees or a chip is too small, 2 bad
        usage or model.
    """
    options = _parser().parse_args(argv)
    try:
        return options.run(options)
    except FxSynopsError as error:
        if options.debug:
            raise
        print(f"fxsynops: {error}", file=sys.stderr)
    except Exception as error:
        if options.debug:
            raise
        kind = type(error).__name__
        print(f"fxsynops: {kind}: {error} (--debug shows where)", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fxsynops", description=fxsynops.__doc__)
    parser.add_argument("--version", action="version", version=fxsynops.__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Command, says: str, examples: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=says,
            description=f"{says[0].upper()}{says[1:]}.",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--debug", action="store_true", help="show tracebacks of errors")
        command.set_defaults(run=run)
        return command

    fanout = add("fanout", _fanout, "the fan-out of every connection of a model", _FANOUT)
    audit = add(
        "audit",
        _audit,
        "hold the analysis against what the model does: exit status 1 if they disagree",
        _AUDIT,
    )
    bound = add("bound", _bound, "how many SynOps an input can cause at most", _BOUND)
    check = add(
        "check", _check, "hold the upper bound to a budget: exit status 1 if broken", _CHECK
    )
    count = add("count", _count, "run data through a model and count its SynOps", _COUNT)
    fitting = add("fit", _fit, "whether a model fits a chip: exit status 1 if it does not", _FIT)
    for command in (fanout, audit, bound, check, count, fitting):
        _add_model(command)
    names = ", ".join(chips())
    fitting.add_argument("--chip", required=True, metavar="NAME", help=f"one of {names}")
    fitting.add_argument("--chips", metavar="FILE", help="your own, from a TOML file, too")
    for command in (bound, check):
        _add_assumptions(command)
    for command in (bound, count):
        option = command.add_argument
        option("--energy", action="store_true", help="joules on published devices, an estimate")
        option("--device", action="append", default=[], metavar="NAME", help="… only on this one")
        option("--devices", metavar="FILE", help="… on your own, from a TOML file, too")
        option("--by-layer", action="store_true", help="… with a row for each layer")
        option("--memory", action="store_true", help="memory traffic: accesses, bytes, joules")
        option("--bits", type=int, metavar="N", help="… of this width (default: 32)")
    for name, says in (
        ("conventional", "operations as papers count them, beside the exact count"),
        ("summary", "parameters, neurons, sparsity, operations, rates, break-even rate"),
        ("advice", "the three changes that would save most"),
    ):
        count.add_argument(f"--{name}", action="store_true", help=says)
    count.add_argument("--latency", metavar="CHIP", help="estimated time per sample on a chip")
    option = check.add_argument
    option("--budget", metavar="FILE", help="a TOML file of limits; see below")
    option("--max-synops", type=float, metavar="N", help="limit per sample")
    option("--max-synops-per-second", type=float, metavar="N", help="limit of one sample at a time")
    data = count.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--data", metavar="LOADER", help="batches: package.module:name or file.py:name"
    )
    data.add_argument(
        "--random-spikes", type=float, metavar="P", help="one batch: events with probability P"
    )
    count.add_argument(
        "--keep-states", action="store_true", help="do not reset neurons before each batch"
    )
    count.add_argument(
        "--steps", action="store_true", help="keep time steps apart: which is the most expensive"
    )
    comparison = add("compare", _compare, "two saved reports side by side", _COMPARE)
    comparison.add_argument("before", help="a report that --format json wrote")
    comparison.add_argument("after", help="another one of the same kind")
    for command in (fanout, audit, bound, check, count, fitting, comparison):
        _add_output(command)
    shown = add("demo", _demo, "count the SynOps of a spiking LeNet on handwritten digits")
    shown.add_argument(
        "--samples", type=int, default=300, help="images to run, a multiple of 20 (default: 300)"
    )
    return parser


def _add_model(command: argparse.ArgumentParser) -> None:
    command.description = f"{command.description}\n\n{_MODEL}"
    add = command.add_argument
    add("model", help="package.module:name, file.py:name, or file.nir")
    add("--input", metavar="SHAPE", help="1x1x28x28; several: 1x8,1x4 (may be left out for a .nir)")
    add("--layout", help='axes: N, NT, TN, T, "", (NT), (TN), N…T, step (default: as neurons tell)')
    add("--batch-size", type=int, metavar="N", help="samples, where the shape does not tell")
    add("--timesteps", type=int, metavar="T", help="steps of a forward, likewise")
    add("--dt", type=float, default=1.0, metavar="MS", help="milliseconds per step (default: 1)")
    add("--analog", action="store_true", help="the input is no spikes, but an image or a current")
    add("--events", choices=("value", "nonzero"), default="value", help="how events are counted")
    add("--weights", choices=("all", "nonzero"), default="all", help="which synapses count")
    add("--spiking", action="append", default=[], metavar="TYPE", help="package.module:Type: also")
    add("--lenient", action="store_true", help="list what no rule covers, instead of an error")


def _add_assumptions(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--window", type=int, metavar="T", help="steps to bound (default: those of a forward)")
    add("--max-spikes", type=float, metavar="R", help="events per neuron and step at most")
    add("--input-max-events", type=float, metavar="K", help="events per input element at most")
    add("--input-range", metavar="LOW,HIGH", help="of an analog input")


def _add_output(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--format", choices=FORMS, default="table", help="form of the report (default: table)")
    add("--output", metavar="FILE", help="write it to a file")
    add("--all", action="store_true", help="every row of a long table")


# -- commands -------------------------------------------------------------------------------------


def _fanout(options: argparse.Namespace) -> int:
    _emit(_analysis(options).report(), options)
    return 0


def _audit(options: argparse.Namespace) -> int:
    options.lenient = True  # what disagrees, and what no rule covers, stands in the table
    analysis = _analysis(options)
    _emit(analysis.audit.report(), options)
    return 0 if analysis.audit.ok and not analysis.unresolved else 1


def _bound(options: argparse.Namespace) -> int:
    devices = _devices(options)
    bound = _upper_bound(options)
    _emit((_cost_of(bound, devices, options) or bound).report(), options)
    return 0


def _check(options: argparse.Namespace) -> int:
    totals = options.max_synops, options.max_synops_per_second
    if options.budget and any(limit is not None for limit in totals):
        raise InputError("--budget holds all limits: leave out --max-synops and the like.")
    budget = Budget.load(options.budget) if options.budget else Budget(*totals)
    bound = _upper_bound(options)
    violations = bound.check(
        budget.max_synops,
        max_synops_per_second=budget.max_synops_per_second,
        per_layer=budget.per_layer,
    )
    _emit(bound.report(), options)
    to_table = options.format == "table" and not options.output
    console = Console(stderr=not to_table)  # what a program reads stays what it is
    for violation in violations:
        console.print(f"over budget: {violation}", style="bold red", soft_wrap=True)
    if any(violation.name == "total" for violation in violations):
        console.print(f"heaviest layers: {_heaviest(bound)}", soft_wrap=True)
    if not violations:
        console.print("within the budget", style="bold green")
    return 1 if violations else 0


def _count(options: argparse.Namespace) -> int:
    devices = _devices(options)
    analysis = _analysis(options)
    if options.data:
        loader = _loader(options.data)
    else:
        if not 0 <= options.random_spikes <= 1:
            raise InputError(f"--random-spikes {options.random_spikes} is no probability.")
        if options.analog:
            raise InputError("--random-spikes are events: leave out --analog, or give --data.")
        torch.manual_seed(0)
        rate = options.random_spikes
        batch = tuple(
            torch.bernoulli(torch.full(x.shape, rate)) for _, x in analysis.example.tensors()
        )
        loader = [batch]
    counter = analysis.counter(steps=options.steps, rates=options.advice)
    counts = counter.measure(loader, reset=not options.keep_states)
    _emit(
        (_figures_of(counts, options) or _cost_of(counts, devices, options) or counts).report(),
        options,
    )
    return 0


def _cost_of(
    result: Bound | Counts, devices: Sequence[str | Device], options: argparse.Namespace
) -> Reported | None:
    """The energy or the memory traffic of a result, if it is asked for."""
    if devices:
        energy = result.energy(devices)
        return energy.by_layer() if options.by_layer else energy
    return (
        result.memory(bits=32 if options.bits is None else options.bits) if options.memory else None
    )


def _figures_of(counts: Counts, options: argparse.Namespace) -> Reported | None:
    """What only counts have, if it is asked for."""
    if options.latency:
        return counts.latency(options.latency)
    if options.advice:
        return counts.advice()
    if options.conventional:
        return counts.conventional
    return counts.summary if options.summary else None


def _fit(options: argparse.Namespace) -> int:
    own = {one.name: one for one in Chip.load(options.chips)} if options.chips else {}
    found = _analysis(options).fits(own.get(options.chip, options.chip))
    _emit(found.report(), options)
    return 0 if found.ok else 1


def _compare(options: argparse.Namespace) -> int:
    _emit(compare(fxsynops.load(options.before), fxsynops.load(options.after)), options)
    return 0


def _demo(options: argparse.Namespace) -> int:
    demo.run(options.samples)
    return 0


# -- parts ----------------------------------------------------------------------------------------


def _analysis(options: argparse.Namespace) -> fxsynops.Analysis:
    _check_writable(options.output)
    model = load_model(options.model)
    in_nir = isinstance(model, NIRModel)
    if options.input is not None:
        inputs: Any = example(options.input, not options.analog)
    elif in_nir:
        inputs = nir_example(model, events=not options.analog)
    else:
        raise InputError("say what the model takes: --input 1x1x28x28, samples and steps in front.")
    if (parameter := next(parameters_of(model), None)) is not None:  # on a GPU, or without values
        inputs = pytree.tree_map(lambda x: x.to(parameter.device), inputs)
    return fxsynops.analyze(
        model,
        inputs,
        layout=options.layout if options.layout is not None else "NT" if in_nir else "auto",
        batch_size=options.batch_size,
        timesteps=options.timesteps,
        dt=options.dt,
        input_events=not options.analog,
        events=options.events,
        weights=options.weights,
        spiking=tuple(find(name) for name in options.spiking),
        strict=not options.lenient,
    )


def _upper_bound(options: argparse.Namespace) -> Bound:
    return _analysis(options).upper_bound(
        options.window,
        max_spikes=options.max_spikes,
        input_max_events=options.input_max_events,
        input_range=_interval(options.input_range),
    )


_TABLES = ("energy", "memory", "conventional", "summary", "latency", "advice")


def _devices(options: argparse.Namespace) -> tuple[str | Device, ...]:
    """Whose energy is asked for; none if it is not."""
    for name in ("device", "devices", "by_layer"):
        if getattr(options, name) and not options.energy:
            raise InputError(f"--{name.replace('_', '-')} is for --energy: give both.")
    if options.bits is not None and not options.memory:
        raise InputError("--bits is for --memory: give both.")
    asked = [f"--{name}" for name in _TABLES if getattr(options, name, None)]
    if len(asked) > 1:
        raise InputError(f"{asked[0]} and {asked[1]} are two tables: ask for one at a time.")
    if not options.energy:
        return ()
    own = Device.load(options.devices) if options.devices else ()
    if not options.device:
        return (*DEVICES, *own)
    named = {one.name: one for one in own}
    return tuple(named.get(name, name) for name in options.device)


def _loader(target: str) -> Iterable[Any]:
    found = find(target)
    if callable(found) and not isinstance(found, Iterable):
        found = found()
    if not isinstance(found, Iterable | Iterator):
        raise InputError(
            f"'{target}' is a {type(found).__name__}, no batches: name a DataLoader, a list of "
            "batches, or a function that makes one."
        )
    return found


def _heaviest(bound: Bound, shown: int = 5) -> str:
    """The layers that take most of a bound."""
    layers: dict[str, float] = {}
    for row in bound.rows:
        layers[row.connection.synapse] = layers.get(row.connection.synapse, 0.0) + row.charge
    order = sorted(layers, key=lambda name: -layers[name])[:shown]
    return ", ".join(f"{name} ({number(layers[name], 0)})" for name in order)


def _interval(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--input-range '{text}' is not two numbers: write 0,1.") from None
    return low, high


# -- output ---------------------------------------------------------------------------------------


def _emit(report: Report, options: argparse.Namespace) -> None:
    """Print a report, or write it to a file, all of it or nothing."""
    report = report.complete() if options.all else report
    console = Console()
    if options.output:
        write_whole(options.output, report.to(options.format).rstrip("\n") + "\n")
    elif options.format == "table" and console.is_terminal:
        console.print(report)
    else:
        print(report.to(options.format).rstrip("\n"))


def _check_writable(output: str | None) -> None:
    """Before anything takes long."""
    if output is not None:
        path = Path(output)
        if path.is_dir():
            raise InputError(f"'{output}' is a folder: --output names a file.")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"'{output}' cannot be written: no such folder, or not allowed.")
