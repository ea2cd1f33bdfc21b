"""What can be said on the command line. Nothing here takes long: torch is not imported."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import fxsynops
from fxsynops.reporting.files import read_toml
from fxsynops.reporting.formats import FORMS
from fxsynops.version import VERSION

_CHIPS = Path(__file__).parents[1] / "cost" / "chips.toml"
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
_DRAW = """\
examples:
  fxsynops draw nets.py:make --input 1x20x2x32x32 --layout NT --output net.svg
  fxsynops draw nets.py:make --input 1x784 --random-spikes 0.1 --output net.html

by its name: .svg, .html, .mmd (Mermaid), .graphml
"""
_PLOT = """\
example:
  fxsynops plot nets.py:make --input 1x20x2x32x32 --layout NT \\
      --random-spikes 0.1 --output bars.png

needs matplotlib: pip install "fxsynops[plot]"
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


def parser() -> argparse.ArgumentParser:
    """Everything that can be said on the command line."""
    made = argparse.ArgumentParser(prog="fxsynops", description=fxsynops.__doc__)
    made.add_argument("--version", action="version", version=VERSION)
    commands = made.add_subparsers(dest="command", required=True)

    def add(name: str, says: str, examples: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=says,
            description=f"{says[0].upper()}{says[1:]}.",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--debug", action="store_true", help="show tracebacks of errors")
        return command

    fanout = add("fanout", "the fan-out of every connection of a model", _FANOUT)
    audit = add(
        "audit",
        "hold the analysis against what the model does: exit status 1 if they disagree",
        _AUDIT,
    )
    bound = add("bound", "how many SynOps an input can cause at most", _BOUND)
    check = add("check", "hold the upper bound to a budget: exit status 1 if broken", _CHECK)
    count = add("count", "run data through a model and count its SynOps", _COUNT)
    fitting = add("fit", "whether a model fits a chip: exit status 1 if it does not", _FIT)
    for command in (fanout, audit, bound, check, count, fitting):
        _add_model(command)
    names = ", ".join(read_toml(_CHIPS, "chips"))
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
    _add_data(count, required=True)
    count.add_argument(
        "--steps", action="store_true", help="keep time steps apart: which is the most expensive"
    )
    comparison = add("compare", "two saved reports side by side", _COMPARE)
    comparison.add_argument("before", help="a report that --format json wrote")
    comparison.add_argument("after", help="another one of the same kind")
    for command in (fanout, audit, bound, check, count, fitting, comparison):
        _add_output(command)
    drawn = add("draw", "a picture of the network and its connections", _DRAW)
    plotted = add("plot", "bars of the SynOps of each layer, and of their bound", _PLOT)
    for command in (drawn, plotted):
        _add_model(command)
        command.add_argument("--output", metavar="FILE", required=True, help="the picture")
    _add_data(drawn, required=False)
    _add_data(plotted, required=True)
    _add_assumptions(plotted)
    shown = add("demo", "count the SynOps of a spiking LeNet on handwritten digits")
    shown.add_argument(
        "--samples", type=int, default=300, help="images to run, a multiple of 20 (default: 300)"
    )
    return made


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
    if not command.prog.endswith(" count"):  # data are measured in eval mode
        add("--train", action="store_true", help="in training mode (default: eval mode)")
    add("--lenient", action="store_true", help="list what no rule covers, instead of an error")


def _add_data(command: argparse.ArgumentParser, required: bool) -> None:
    data = command.add_mutually_exclusive_group(required=required)
    data.add_argument(
        "--data", metavar="LOADER", help="batches: package.module:name or file.py:name"
    )
    data.add_argument(
        "--random-spikes", type=float, metavar="P", help="one batch: events with probability P"
    )
    add = command.add_argument
    add("--inputs", metavar="NAME", help="a function that gets the model's input out of a batch")
    add("--keep-states", action="store_true", help="do not reset neurons before each batch")


def _add_assumptions(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--window", type=int, metavar="T", help="steps to bound (default: those of a forward)")
    add("--max-spikes", type=float, metavar="R", help="events per neuron and step at most")
    add("--input-max-events", type=float, metavar="K", help="events per input element at most")
    add("--input-range", metavar="LOW,HIGH", help="of an analog input")


def _add_output(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--format", choices=FORMS, help="form of the report (default: the file's, or a table)")
    add("--output", metavar="FILE", help="write it to a file: .json, .csv, .md, .tex, .html, .txt")
    add("--all", action="store_true", help="every row of a long table")


_TYPED = {
    "inputs=lambda batch: batch['image']": "--inputs file.py:function",
    "input_events=False": "--analog",
    "input_events=True": "no --analog",
    "strict=False": "--lenient",
    "batch_size=": "--batch-size ",
    "timesteps=": "--timesteps ",
    "layout=": "--layout ",
    "spiking=": "--spiking ",
    "max_spikes=": "--max-spikes ",
    "input_max_events=": "--input-max-events ",
    "input_range=": "--input-range ",
    "inputs=": "--inputs ",
    "max_synops=": "--max-synops ",
    "max_synops_per_second=": "--max-synops-per-second ",
}


def as_typed(text: str) -> str:
    """A message with the options of Python as the command line has them."""
    for option, typed in _TYPED.items():
        text = re.sub(rf"(?<![\w-]){re.escape(option)}", typed, text)
    return re.sub(r"(--[a-z-]+) (?=[ ,.:;)]|$)", r"\1", text)
