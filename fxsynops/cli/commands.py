"""The commands: each takes its options, prints or writes a report, and returns an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils import _pytree as pytree

import fxsynops
from fxsynops.cli import demo as digits
from fxsynops.cli.arguments import as_typed
from fxsynops.cli.model_files import example, find, load_model
from fxsynops.cost.budget import Budget
from fxsynops.cost.chips import Chip
from fxsynops.cost.devices import DEVICES, Device
from fxsynops.errors import InputError
from fxsynops.nir import NIRModel, nir_example
from fxsynops.reporting import drawing
from fxsynops.reporting.comparison import compare as beside
from fxsynops.reporting.files import write_whole
from fxsynops.reporting.report import Report, Reported, number
from fxsynops.results import Bound, Counts
from fxsynops.tracing.inputs import check_events
from fxsynops.tracing.torch_api import parameters_of


def fanout(options: argparse.Namespace) -> int:
    """The fan-out of every connection."""
    _emit(_analysis(options).report(), options)
    return 0


def audit(options: argparse.Namespace) -> int:
    """Hold the analysis against what the model does."""
    options.lenient = True  # what disagrees, and what no rule covers, stands in the table
    analysis = _analysis(options)
    _emit(analysis.audit.report(), options)
    return 0 if analysis.audit.ok and not analysis.unresolved else 1


def bound(options: argparse.Namespace) -> int:
    """What an input can cause at most."""
    devices = _devices(options)
    bound = _upper_bound(options)
    _emit((_cost_of(bound, devices, options) or bound).report(), options)
    return 0


def check(options: argparse.Namespace) -> int:
    """Hold the bound to a budget."""
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
    to_table = (options.format or "table") == "table" and not options.output
    console = Console(stderr=not to_table)  # what a program reads stays what it is
    for violation in violations:
        console.print(f"over budget: {violation}", style="bold red", soft_wrap=True)
    if any(violation.name == "total" for violation in violations):
        console.print(f"heaviest layers: {_heaviest(bound)}", soft_wrap=True)
    if not violations:
        console.print("within the budget", style="bold green")
    return 1 if violations else 0


def count(options: argparse.Namespace) -> int:
    """Run data through a model."""
    devices = _devices(options)
    counts = _counted(_analysis(options), options)
    _emit(
        (_figures_of(counts, options) or _cost_of(counts, devices, options) or counts).report(),
        options,
    )
    return 130 if counts.partial else 0


def draw(options: argparse.Namespace) -> int:
    """A picture of the network."""
    _check_writable(options.output)
    analysis = _analysis(options)
    counted = options.data or options.random_spikes is not None
    drawing.draw(analysis, options.output, _counted(analysis, options) if counted else None)
    return 0


def plot(options: argparse.Namespace) -> int:
    """Bars of the count, and of the bound."""
    try:
        from fxsynops import plot as plots  # matplotlib takes a second
    except ImportError:
        raise InputError("plot needs matplotlib: pip install 'fxsynops[plot]'.") from None

    _check_writable(options.output)
    analysis = _analysis(options)
    bound = _bounded(analysis, options)
    figure: Any = plots.synops(_counted(analysis, options), bound).figure
    figure.savefig(options.output, bbox_inches="tight", dpi=150)
    return 0


def _random_spikes(analysis: fxsynops.Analysis, options: argparse.Namespace) -> tuple[Any, ...]:
    rate = options.random_spikes
    if not 0 <= rate <= 1:
        raise InputError(f"--random-spikes {rate} is no probability.")
    if options.analog:
        raise InputError("--random-spikes are events: leave out --analog, or give --data.")
    torch.manual_seed(0)
    return tuple(torch.bernoulli(torch.full(x.shape, rate)) for _, x in analysis.example.tensors())


def _counted(analysis: fxsynops.Analysis, options: argparse.Namespace) -> Counts:
    """What was counted on data, or on random spikes."""
    inputs = find(options.inputs) if options.inputs else None
    if options.data:
        loader = _loader(options.data)
        loader = loader if options.analog else _checked(loader, inputs)
    elif options.inputs:
        raise InputError("--inputs is for batches of --data: leave it out.")
    else:
        loader = [_random_spikes(analysis, options)]
    steps, rates = getattr(options, "steps", False), getattr(options, "advice", False)
    counter = analysis.counter(steps=steps, rates=rates)
    with _aside():
        return counter.measure(loader, inputs=inputs, reset=not options.keep_states)


def _checked(loader: Iterable[Any], inputs: Any) -> Iterator[Any]:
    """Batches, the first of which must hold events, as the example does."""
    for i, batch in enumerate(loader):
        if i == 0:
            given = inputs(batch) if inputs else batch
            first = given[0] if isinstance(given, tuple | list) and given else given
            if isinstance(first, torch.Tensor):
                check_events("the data", first)
        yield batch


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


def fit(options: argparse.Namespace) -> int:
    """Whether a model fits a chip."""
    own = {one.name: one for one in Chip.load(options.chips)} if options.chips else {}
    found = _analysis(options).fits(own.get(options.chip, options.chip))
    _emit(found.report(), options)
    return 0 if found.ok else 1


def compare(options: argparse.Namespace) -> int:
    """Two reports side by side."""
    _emit(beside(fxsynops.load(options.before), fxsynops.load(options.after)), options)
    return 0


def demo(options: argparse.Namespace) -> int:
    """Count a spiking LeNet on digits."""
    digits.run(options.samples)
    return 0


# -- parts ----------------------------------------------------------------------------------------


def _analysis(options: argparse.Namespace) -> fxsynops.Analysis:
    _check_writable(options.output)
    if hasattr(options, "format"):
        _check_form(options.output, options.format)
    with _aside():
        model = load_model(options.model)
    training = getattr(options, "train", False)
    model.train(training)
    in_nir = isinstance(model, NIRModel)
    if options.input is not None:
        inputs: Any = example(options.input, not options.analog)
    elif in_nir:
        inputs = nir_example(model, events=not options.analog)
    else:
        raise InputError("say what the model takes: --input 1x1x28x28, samples and steps in front.")
    if (parameter := next(parameters_of(model), None)) is not None:  # on a GPU, or without values
        inputs = pytree.tree_map(lambda x: x.to(parameter.device), inputs)
    with _aside():
        return _analyzed(model, inputs, options, in_nir)


def _analyzed(
    model: Any, inputs: Any, options: argparse.Namespace, in_nir: bool
) -> fxsynops.Analysis:
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
    return _bounded(_analysis(options), options)


def _bounded(analysis: fxsynops.Analysis, options: argparse.Namespace) -> Bound:
    return analysis.upper_bound(
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


@contextmanager
def _aside() -> Iterator[None]:
    """What models print, also in processes of their own, is no part of a report."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


# -- output ---------------------------------------------------------------------------------------


def _emit(report: Report, options: argparse.Namespace) -> None:
    """Print a report, or write it to a file, all of it or nothing."""
    report = report.complete() if options.all else report
    mode = "training" if getattr(options, "train", False) else "eval"
    notes = [*map(as_typed, report.content["notes"])]
    if hasattr(options, "model"):
        other = (
            "" if mode == "training" or options.command == "count" else " (--train: training mode)"
        )
        notes = [*(n for n in notes if n != "In eval mode."), f"In {mode} mode{other}."]
    report = replace(report, content=report.content | {"notes": notes})
    console, form = Console(), options.format or _form_of(options.output)
    if options.output:
        write_whole(options.output, report.to(form).rstrip("\n") + "\n")
    elif form == "table" and console.is_terminal:
        console.print(report)
    else:
        print(report.to(form).rstrip("\n"))


_SUFFIXES = {
    ".json": "json",
    ".csv": "csv",
    ".md": "markdown",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
}


def _form_of(output: str | None) -> str:
    """The form of a report by the name of its file."""
    return _SUFFIXES.get(Path(output or "").suffix.lower(), "table")


def _check_writable(output: str | None) -> None:
    """Before anything takes long."""
    if output is not None:
        path = Path(output)
        if path.is_dir():
            raise InputError(f"'{output}' is a folder: --output names a file.")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"'{output}' cannot be written: no such folder, or not allowed.")


def _check_form(output: str | None, form: str | None) -> None:
    suffix = Path(output or "").suffix.lower()
    if form is None and suffix not in ("", ".txt", *_SUFFIXES):
        known = ", ".join((*_SUFFIXES, ".txt"))
        raise InputError(f"'{output}' does not say what form it shall have: {known}, or --format.")
