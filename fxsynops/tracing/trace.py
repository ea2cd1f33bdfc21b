"""Recording: one forward of a model becomes a ``torch.fx`` graph that replays it.

The model runs once, for real, on the example, with its state borrowed
(:mod:`fxsynops.tracing.borrowed`), and everything it does to tensors is written down::

    trace(model, inputs)
      └─ Borrowed(model)                  clones stand in for buffers and states
           └─ Recorder                    a TorchFunctionMode
                ├─ module calls           each module's ``forward`` is wrapped: names, whole modules
                ├─ __torch_function__     every torch function and method, factories included
                ├─ Function.apply         custom autograd functions, however they were bound
                └─ __torch_dispatch__     what slips past all of these (scripted functions)

Real tensors flow through the model, not proxies: ``x.shape``, ``isinstance(x, Tensor)``, loops
over ``range(len(x))`` and branches on ``None`` just work, and each node knows its value's shape.
What Python reads *out of* a tensor (a branch on data) becomes a node that checks it again in each
replay. What Python reads from the model (its attributes) becomes a condition of the trace.

``torch.nn`` modules are recorded through to the functions they call; only modules that are kept
*whole* (spiking modules, recurrent modules, batch norm) stay single nodes. The weights inside of
these are used by *virtual* nodes beside them, which are analyzed and never replayed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, fx, nn

from fxsynops.errors import TraceError
from fxsynops.tracing import graph_functions
from fxsynops.tracing.borrowed import Borrowed, OverwrittenError
from fxsynops.tracing.guards import Conditions
from fxsynops.tracing.inputs import Inputs
from fxsynops.tracing.node_meta import Mode
from fxsynops.tracing.places import Place
from fxsynops.tracing.recorder import Known, Recorder
from fxsynops.tracing.witness import Witness


@dataclass(frozen=True)
class Trace:
    """A recorded forward, and the conditions under which it may be replayed.

    Attributes:
        graph: the nodes; ``node.meta`` holds ``spec`` (a TensorSpec, absent for other values),
            ``site`` and ``mode``, ``data`` (whether its value depends on any), ``hooked`` if hooks
            may change it there, ``split`` if they may take it apart, ``writes`` if the call wrote
            to its operands, ``function`` for a custom autograd function, ``as`` for a virtual node
            that says the same in other operations, and ``also`` for a part of a returned tuple
            that stands at other places in it, too.
        reads: places in the model that ``get_attr`` nodes read, by target.
        constants: tensors from outside of the model that ``get_attr`` nodes read, by target.
        stateful: those of ``reads`` that the forward writes to, or puts another tensor in place of.
        written: what will be in these places (or those that come to be) for the next forward.
        modules: every module of the model by its path.
        conditions: what the model must still be like.
        branches: where the forward branched on data (``file:line: what``).
        mode: the gradient and autocast mode around the whole forward.
        names: the placeholders, one per argument.
        overwrites: whether it may write to parameters.
        units: nodes that the analysis has added, which compute what events are worth.
    """

    graph: fx.Graph
    reads: dict[str, Place]
    constants: dict[str, Tensor]
    stateful: frozenset[str]
    written: dict[str, fx.Node]
    modules: dict[str, nn.Module]
    conditions: Conditions
    branches: tuple[str, ...]
    mode: Mode
    names: tuple[str, ...]
    overwrites: bool = False
    units: dict[Any, fx.Node] = field(default_factory=dict)

    def changes(self) -> Iterator[Place]:
        """The model's numbers that its forward changes, and the lists that it appends to."""
        for node in self.graph.nodes:
            if node.target is graph_functions.change_state:
                change: Any = node.args[0]
                kinds = (list,) if change.action == "extend" else (int, float)
                with suppress(LookupError, TypeError, AttributeError):
                    if type(change.place.get()) in kinds:
                        yield change.place


# Models that write to their parameters, as far as is known.
_OVERWRITING: WeakSet[nn.Module] = WeakSet()


class _LentError(Exception):
    """A forward has failed that got something else in the place of a number."""


@contextmanager
def _few_collections() -> Iterator[None]:
    """What is recorded is kept: Python need not look through all of it again and again.

    For one thread at a time, as a model is borrowed: each restores what it has found.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, max(old, 1000))
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)


def _record(
    model: nn.Module,
    inputs: Inputs,
    known: Known,
    witness: Witness | None,
    lends_numbers: bool,
    in_place: bool,
) -> tuple[Borrowed, Recorder]:
    gradient = torch.set_grad_enabled(torch.is_grad_enabled())  # inference_mode(False) enables it
    with torch.inference_mode(False), gradient, Borrowed(model, in_place) as borrowed:
        recorder = Recorder(model, borrowed, known, witness, lends_numbers)
        try:
            with _few_collections():
                recorder.run(inputs.clone())
        except TraceError as error:
            if borrowed.is_overwritten:
                raise OverwrittenError from error
            if recorder.has_lent and error.__cause__ is not None:
                raise _LentError from error
            raise
        if borrowed.is_overwritten:  # and the forward has caught what was raised
            raise OverwrittenError
    return borrowed, recorder


def trace(
    model: nn.Module,
    inputs: Inputs,
    known: Known,
    witness: Witness | None = None,
) -> Trace:
    """Record ``model``'s forward on ``inputs``.

    Args:
        model: any module; it is left as it was, also if an error is raised.
        inputs: the arguments of the forward.
        known: what is known of the modules and functions that it calls.
        witness: gets the products that the forward makes, for an audit.

    Raises:
        TraceError: the forward fails, or does what no replay can repeat faithfully.
    """
    lends_numbers, overwrites = True, model in _OVERWRITING
    while True:
        try:
            borrowed, recorder = _record(
                model, inputs, known, witness, lends_numbers, in_place=not overwrites
            )
            break
        except _LentError:  # perhaps what stood in for a number was not good enough
            lends_numbers = False
        except OverwrittenError:
            overwrites = True
            _OVERWRITING.add(model)
        if witness is not None:
            witness.forget()
    # Only now do the places hold the model's own values again.
    reads = recorder.tensors.reads
    read = {(id(place.root), place.path) for place in reads.values()}
    shared = [pair for pair in borrowed.shared if (id(pair[0].root), pair[0].path) in read]
    conditions = Conditions(
        recorder.model_reads.conditions(),
        recorder.model_reads.values,
        recorder.model_reads.decided,
        recorder.model_reads.lent.values(),
        borrowed.modules.values(),
        borrowed.hooked,
        shared,
        recorder.surroundings.places(),
    )
    return Trace(
        recorder.writer.graph,
        reads,
        recorder.tensors.constants,
        frozenset(recorder.stateful),
        recorder.written,
        borrowed.modules,
        conditions,
        tuple(dict.fromkeys(recorder.branches)),
        recorder.writer.mode,
        inputs.names,
        overwrites,
    )
