"""Counting a whole data set: a loop over a loader, with everything that belongs to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxsynops.connectivity.results import Findings
from fxsynops.counting.counts import Counted
from fxsynops.counting.exact_sums import Tally
from fxsynops.counting.per_sample import Spread
from fxsynops.counting.replay import Replay
from fxsynops.counting.samples_apart import SamplesApart
from fxsynops.errors import InputError
from fxsynops.neurons import reset_states
from fxsynops.tracing.sharded import is_in_parts

Reset = bool | Callable[[nn.Module], object]


class _Model(Protocol):
    """What of a module matters here."""

    def eval(self) -> Any: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def parameters(self) -> Iterator[Tensor]: ...


class _Counting(_Model, Protocol):
    """What of a counter matters here; see :class:`fxsynops.SynOpsCounter`."""

    model: nn.Module

    @property
    def analysis(self) -> Findings: ...
    @property
    def last(self) -> tuple[Replay, Tally]: ...
    @property
    def arguments(self) -> int: ...
    @property
    def counts(self) -> Counted: ...

    __call__: Callable[..., Any]

    def clear(self) -> None: ...
    def sample_by_sample(
        self, reset: Callable[[], object]
    ) -> AbstractContextManager[SamplesApart]: ...
    def end_of_sample(self) -> None: ...


def measure(
    counter: _Counting,
    loader: Iterable[Any],
    *,
    inputs: Callable[[Any], Any] | None,
    reset: Reset,
    device: torch.device | str | None,
    progress: bool | Console,
) -> Counted:
    """Run every batch of a loader through the model; see ``SynOpsCounter.measure``."""
    counter.clear()
    _check_states(counter, counter.analysis, reset)
    spread, partial = Spread(), False
    goes_on = counter.analysis.options.layout.by_step and reset is False  # a sample, over batches
    counting = counter.sample_by_sample(lambda: _reset(counter, reset))

    def end() -> None:
        if (each := apart.end()) is not None:
            spread.add(each)
        counter.end_of_sample()

    with evaluating(counter), torch.no_grad(), counting as apart, _bar(progress) as show:
        try:
            for batch in loader:
                _reset(counter, reset)
                for x in _forwards(batch, counter, inputs, device):
                    counter(*x)
                    replay, tally = counter.last
                    _check_states(counter, replay.analysis, reset)
                    apart.add(replay, tally, x)
                if not goes_on:
                    end()
                show(counter, loader)
            end()
        except KeyboardInterrupt:
            partial = True
        counts = counter.counts
    if not counts.samples and not partial:
        raise InputError(
            "the loader has no batches, so nothing was counted. A generator can be used up only "
            "once; a DataLoader with drop_last=True drops a batch that is too small."
        )
    statistics, reason = spread.statistics() if apart.known else None, ""
    if not apart.known:
        reason = "it cannot be told which of the model's values belong to which sample"
        if is_in_parts(counter.model):
            reason = "the model is sharded, and no rank can try out alone what is a sample's"
    elif statistics is not None and statistics.samples != counts.samples:
        statistics, reason = None, "counting was interrupted in the middle of a batch"
    if statistics is not None:
        statistics = replace(statistics, lengths=counts.lengths)
    extras = replace(
        counts.extras, per_sample=statistics, not_apart=reason, partial=partial, evaluated=True
    )
    return replace(counts, extras=extras)


def first_of(
    data: Any,
    model: nn.Module,
    inputs: Callable[[Any], Any] | None,
    device: torch.device | str | None,
) -> tuple[tuple[Any, ...], Iterable[Any]]:
    """The arguments of a first forward, and all batches: of a tensor, a tuple, or a loader.

    Raises:
        InputError: there is no batch, or no input in it.
    """
    if isinstance(data, Tensor | tuple) and inputs is None:
        arguments = data if isinstance(data, tuple) else (data,)
        return input_of(arguments, len(arguments), model, None, device), [arguments]
    if isinstance(data, Mapping):
        data = [data]
    if type(data).__module__ == "numpy":
        raise InputError("the data is a NumPy array: pass torch.from_numpy(data).")
    if not isinstance(data, Iterable):
        raise InputError(
            f"the data is a {type(data).__name__}: pass a tensor, a tuple of the model's "
            "arguments, or batches of them (a DataLoader, a list)."
        )
    batches = iter(data)
    for batch in batches:
        example = input_of(batch, _needed(model), model, inputs, device)
        again = data if batches is not data else chain([batch], batches)  # a generator runs once
        return example, again
    raise InputError(
        "the loader has no batches, so nothing was counted. A generator can be used up only once; "
        "a DataLoader with drop_last=True drops a batch that is too small."
    )


def _needed(model: nn.Module) -> int:
    """How many positional arguments a forward cannot do without; one at least."""
    return max(sum(default is inspect.Parameter.empty for default in _taken(model).values()), 1)


def _taken(model: nn.Module) -> dict[str, Any]:
    """The positional parameters of a forward, and their defaults; none if nothing tells them."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return {}
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {p.name: p.default for p in parameters if p.kind in positional}


@contextmanager
def evaluating(model: _Model) -> Iterator[None]:
    """All modules in eval mode, and afterwards each in its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def input_of(
    batch: Any,
    arguments: int,
    model: nn.Module,
    inputs: Callable[[Any], Any] | None,
    device: torch.device | str | None,
) -> tuple[Any, ...]:
    """The model's input in a batch, on its device.

    Args:
        batch: of a loader.
        arguments: how many of a tuple or list are inputs.
        model: that takes them.
        inputs, device: see ``SynOpsCounter.measure``.

    Raises:
        InputError: there is none, or it cannot be moved.
    """
    if inputs is not None:
        x = inputs(batch)
        found = x if isinstance(x, tuple) else (x,)
    elif isinstance(batch, Tensor):
        found = (batch,)
    elif isinstance(batch, tuple | list):
        found = tuple(batch[:arguments])
    elif isinstance(batch, Mapping):
        found = _by_name(batch, model)
    else:
        raise InputError(
            f"a batch of the loader is a {type(batch).__name__}: pass inputs=, a function that "
            "gets the model's input out of it, such as inputs=lambda batch: batch['image']."
        )
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(found)):
        raise InputError(
            f"a batch of the loader holds no tensor for the model, but {found!r:.60}. Pass "
            "inputs=, a function that gets the model's input out of it."
        )
    parameter = next(model.parameters(), None)
    to = device if device is not None or parameter is None else parameter.device
    try:
        return pytree.tree_map(lambda x: x.to(to) if isinstance(x, Tensor) else x, found)
    except (RuntimeError, AssertionError) as error:  # torch has no such device
        raise InputError(
            f"a batch cannot be moved to device {str(to)!r}: {str(error).splitlines()[0]:.120}"
        ) from error


def _by_name(batch: Mapping[str, Any], model: nn.Module) -> tuple[Any, ...]:
    """Of a dict, what a forward has parameters for, in their order.

    Raises:
        InputError: it has none, or not all that the forward needs.
    """
    known = _taken(model)
    given = [name for name in known if name in batch]
    lacking = [name for name, default in known.items() if default is inspect.Parameter.empty]
    if not given or not set(lacking) <= set(given):
        raise InputError(
            f"a batch of the loader is a dict of {', '.join(map(repr, batch))}, and "
            f"{type(model).__name__}.forward takes {', '.join(map(repr, known)) or 'none'}: pass "
            "inputs=, a function that gets the model's input out of a batch, such as "
            "inputs=lambda batch: batch['image']."
        )
    values = {name: batch.get(name, default) for name, default in known.items()}
    return tuple(values.values())[: list(known).index(given[-1]) + 1]


def _forwards(
    batch: Any,
    counter: _Counting,
    inputs: Callable[[Any], Any] | None,
    device: torch.device | str | None,
) -> Iterator[tuple[Any, ...]]:
    """The arguments of the forwards that a batch takes: one, but for models that take steps."""
    layout, count = counter.analysis.options.layout, counter.arguments
    if not layout.by_step:
        yield input_of(batch, count, counter.model, inputs, device)
        return
    steps = None if inputs is None else inputs(batch)
    if steps is None or isinstance(steps, Tensor | tuple):
        one = batch if steps is None else steps
        arguments = input_of(one, count, counter.model, None, device)
        yield from [arguments] * (layout.timesteps or 1)
    else:
        yield from (input_of(step, count, counter.model, None, device) for step in steps)


def _reset(counter: _Counting, reset: Reset) -> None:
    if callable(reset):
        reset(counter.model)
    elif reset:
        reset_states(counter.model)


def _check_states(counter: _Counting, findings: Findings, reset: Reset) -> None:
    """Refuse states that a forward takes over from another one, if nothing resets them.

    A state may come to be in the first forward, so that only the second one shows it.
    """
    if reset is not True:
        return
    trace, kept = findings.trace, []
    if names := trace.stateful & trace.reads.keys():
        done = {id(module.__dict__) for module in reset_states(counter.model)}
        kept = [name for name in names if id(trace.reads[name].root) not in done]
    if kept:
        counter.clear()  # it has been counted already
        raise InputError(
            f"the model keeps {', '.join(map(repr, sorted(kept)))} from forward to forward, "
            "which no library resets. Pass reset=, a function of the model that sets it to its "
            "start, or reset=False (--keep-states) if it shall be carried over from batch to "
            "batch, or each forward starts anew."
        )


@contextmanager
def _bar(progress: bool | Console) -> Iterator[Callable[[_Counting, Iterable[Any]], None]]:
    """A progress bar, and how to move it on after a batch."""
    console = progress if isinstance(progress, Console) else Console(stderr=True)
    columns = (
        TextColumn("counting"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}{task.fields[of]} samples"),
        TextColumn("{task.fields[synops]:,.0f} SynOps"),
        TimeRemainingColumn(),
    )
    shown = progress is not False and console.is_terminal
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task("", total=None, synops=0, of="")

        def show(counter: _Counting, loader: Iterable[Any]) -> None:
            if not shown:
                return
            counts = counter.counts
            total = _samples(loader)
            of = f" of {total:,}" if total else ""
            bar.update(task, completed=counts.samples, total=total, synops=counts.total, of=of)

        yield show


def _samples(loader: Iterable[Any]) -> int | None:
    """How many samples a loader has, if it says so."""
    data, sampler = getattr(loader, "dataset", None), getattr(loader, "sampler", None)
    known = next((x for x in (sampler, data) if isinstance(x, Sized)), None)
    return len(known) if known is not None else None
