"""Whether a forward leaves a neuron alone: its dynamics are its own only if nobody else writes.

A model may reset its neurons in its forward (to nothing, or to values that hold no charge). Hooks,
a patched ``forward``, any other write to a state or a parameter, and anything in place on what was
read from the neuron, end the argument for its charge bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxsynops.connectivity.results import Findings
from fxsynops.neurons.dynamics import NoArgumentError, Number
from fxsynops.neurons.registry import is_patched
from fxsynops.operations.call import writes_in_place
from fxsynops.tracing import graph_functions
from fxsynops.tracing.graph_walk import reachable
from fxsynops.tracing.hooks import has_hooks
from fxsynops.tracing.places import Place
from fxsynops.tracing.torch_api import modules_of


def check_untouched(
    findings: Findings,
    module: nn.Module,
    harmless: dict[str, Number | None],
    constant: Callable[[fx.Node], Any],
) -> None:
    """Check that a neuron does what its library says, and nothing else.

    Args:
        findings: an analysis of the model.
        module: a neuron of it.
        harmless: by the name of a state, the largest value that it may be set to without charge;
            None if it plays no part.
        constant: the value of a node, or its range if it is none.

    Raises:
        NoArgumentError: it is hooked, patched, or written to.
    """
    parts = list(modules_of(module))
    if any(has_hooks(part) or is_patched(part) for part in parts):
        raise NoArgumentError("it has hooks, or other methods than its type's")
    roots = {id(part.__dict__) for part in parts}
    for node in findings.trace.graph.nodes:
        if node.target is graph_functions.change_state and id(node.args[0].place.root) in roots:
            value = node.args[1]
            value = constant(value) if isinstance(value, fx.Node) else value
            if not _holds_no_charge(node.args[0].place, value, harmless):
                raise NoArgumentError("the model's forward changes its state")
    for place, node in written(findings, lambda place: id(place.root) in roots):
        call, operation = findings.connector.signals.calls[node]
        value = None if operation is None else call.number(operation.sets)
        emptied = value is not None and _holds_no_charge(place, value, harmless)
        if not emptied and not _changes_nothing(findings, node):
            raise NoArgumentError("the model's forward writes to its state or parameters")


def _changes_nothing(findings: Findings, node: fx.Node) -> bool:
    """Whether a call in place leaves the values as they are (``detach_``)."""
    call, operation = findings.connector.signals.calls[node]
    return operation is not None and operation.is_copy(call)


def _holds_no_charge(place: Place, value: Any, harmless: dict[str, Number | None]) -> bool:
    name = str(place.path[-1])
    limit = harmless.get(name)
    if limit is None and name in harmless:
        return True
    if limit is not None and (value is None or (isinstance(value, list) and not value)):
        return True
    if limit is None or not isinstance(value, Tensor | int | float) or isinstance(value, bool):
        return False
    known = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    return bool((known <= torch.as_tensor(limit, dtype=torch.float64).min()).all())


def written(
    findings: Findings, concerns: Callable[[Place], bool]
) -> Iterator[tuple[Place, fx.Node]]:
    """Calls that write to what was read from some places, or to what comes of it."""
    trace = findings.trace
    for node in trace.graph.nodes:
        place = trace.reads.get(str(node.target)) if node.op == "get_attr" else None
        if node.target is graph_functions.read_state:
            place = node.args[0]
        if place is None or not concerns(place):
            continue
        for at in reachable([node], lambda n: n.users):
            yield from ((place, user) for user in at.users if at in _targets(user))


def _targets(node: fx.Node) -> tuple[Any, ...]:
    """What a call may write to."""
    first = node.args[0] if node.args and writes_in_place(node) else None
    several = tuple(first) if isinstance(first, (list, tuple)) else (first,)
    return (*several, node.kwargs.get("out"))


def state_unlike_later(findings: Findings) -> str | None:
    """A state that differs between forwards in a way that one recorded forward cannot show.

    Args:
        findings: an analysis of one forward.

    Returns:
        the name of a state that the forward reads and changes, and that was no tensor when the
        analysis was made, or of a parameter that is written to; None if there is none.
    """
    trace, roles = findings.trace, findings.connector.signals.roles.values()
    neurons = {id(m.__dict__) for role in roles if role.module for m in modules_of(role.module)}
    tensors = {
        (id(place.root), place.path)
        for name, place in trace.reads.items()
        if name in trace.stateful and not isinstance(place.get(), nn.Parameter)
    }

    def hidden(place: Place) -> bool:
        return id(place.root) not in neurons and (id(place.root), place.path) not in tensors

    for place, node in written(findings, hidden):
        if not _changes_nothing(findings, node):
            return place.name
    for node in trace.graph.nodes:
        if (
            node.target is graph_functions.change_state
            and id(node.args[0].place.root) not in neurons
        ):
            place = node.args[0].place
            if (id(place.root), place.path) in tensors:
                continue
            above = (place.path[: i + 1] for i in range(len(place.path)))
            if any((id(place.root), path) in trace.conditions.places for path in above):
                return place.name
    return None
