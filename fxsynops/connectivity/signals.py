"""What tensors hold, and what the nodes of a trace do for the count.

:func:`fxsynops.connectivity.classify.classify` gives every node its :class:`Role`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, fx, nn

from fxsynops.connectivity.calls import Calls
from fxsynops.neurons import Neuron
from fxsynops.neurons.dynamics import Steps
from fxsynops.operations import Call, Operation
from fxsynops.operations.operation import Scale, SynapseCall
from fxsynops.operations.products import Product
from fxsynops.tracing.graph_walk import reachable


@dataclass(frozen=True, eq=False)
class Signal:
    """What a tensor holds.

    Attributes:
        kind: "const" (depends on no data), "analog" or "events".
        scale: what one event is worth; None if that differs between elements.
        whole: whether values are whole numbers of events (no fraction was added).
        fixed: for constants, whether no parameter or buffer is involved.
        mask: where events and analog values share a tensor, true where analog.
    """

    kind: Literal["const", "analog", "events"]
    scale: Scale | None = Scale()
    whole: bool = True
    fixed: bool = False
    mask: Tensor | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Signal):
            return NotImplemented
        mine, theirs = ((s.kind, s.scale, s.whole, s.fixed, s.mask is None) for s in (self, other))
        if mine != theirs:
            return False
        return self.mask is None or other.mask is None or torch.equal(self.mask, other.mask)

    __hash__ = None  # type: ignore[assignment]


CONST = Signal("const")
ANALOG = Signal("analog")
EVENTS = Signal("events")
ZERO = Signal("const", fixed=True)


@dataclass(frozen=True)
class Role:
    """What a node does for the count.

    Attributes:
        kind: "source" and "gate" (events are measured here), "mask" (a random 0/1 choice, as of
            dropout), "routing", "synapse", "product" (of two events, which is both a synapse and
            a gate), "unknown" (events may come out, but which?), "other".
        signal: what comes out.
        call, operation: the registry's view of it.
        carriers: the operands through which events arrive.
        neuron: what is known of a source.
        reason: what is wrong with an unknown.
        folded: whether a constant is added here.
        module: of a source, the module kept whole.
        weighted: whether an unknown multiplies events with weights of its own.
        synapse: the call of a synapse.
        product: the normal form of a product of events.
    """

    kind: Literal["source", "gate", "mask", "routing", "synapse", "product", "unknown", "other"]
    signal: Signal
    call: Call | None = None
    operation: Operation | None = None
    carriers: tuple[fx.Node, ...] = ()
    neuron: Neuron | None = None
    reason: str = ""
    folded: bool = False
    weighted: bool = False
    module: nn.Module | None = None
    synapse: SynapseCall | None = None
    product: Product | None = None

    def steps(self, size: tuple[int, ...]) -> Steps | None:
        """Where a neuron has its time steps in a value of a size, if it knows; see ``Neuron``."""
        if self.neuron is None or self.neuron.steps is None:
            return None
        with suppress(Exception):  # of a release that has no such attribute
            return self.neuron.steps(self.module, size)
        return None

    @property
    def counted(self) -> bool:
        """Whether the node is a synapse."""
        return self.kind in ("synapse", "product")


def carried(roles: Mapping[fx.Node, Role]) -> dict[fx.Node, list[fx.Node]]:
    """Where each node's events go next."""
    found: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node, role in roles.items():
        for carrier in role.carriers:
            found[carrier].append(node)
    return found


@dataclass(frozen=True)
class Signals:
    """The roles of all nodes that hold a tensor.

    Attributes:
        roles: by node.
        calls: the call behind every node, and its entry.
        constant: the value of a node that depends on no data.
        left: what the forward leaves in the model's states, by place.
        known: the values that ``constant`` gives, once it was asked.
    """

    roles: dict[fx.Node, Role]
    calls: Calls
    constant: Callable[[fx.Node], Tensor | None]
    left: dict[str, State]
    known: dict[fx.Node, Tensor]

    @contextmanager
    def with_values(self, values: Mapping[fx.Node, Tensor]) -> Iterator[None]:
        """While the context lasts, some constants have other values."""
        before = {node: self.known[node] for node in values if node in self.known}
        self.known.update(values)
        try:
            yield
        finally:
            for node in values:
                del self.known[node]
            self.known.update(before)

    def forget(self, of_parameters: Iterable[fx.Node]) -> None:
        """Values of parameters, and what was computed of them, are read anew when asked for."""
        behind = set(of_parameters)
        for node in next(iter(behind)).graph.nodes if behind else ():
            if node in behind or not behind.isdisjoint(node.all_input_nodes):
                behind.add(node)
                self.known.pop(node, None)

    def followed(self, nodes: Iterable[fx.Node]) -> tuple[list[fx.Node], list[fx.Node]]:
        """Constants that may change, and that decide how many events come to some nodes.

        Args:
            nodes: synapses.

        Returns:
            what multiplies events on their way (parameters, buffers), and what says where they go
            (indices, masks).
        """

        def back(node: fx.Node) -> Iterable[fx.Node]:
            role = self.roles[node]
            return role.carriers if role.kind == "routing" or role.counted else ()

        factors: dict[fx.Node, None] = {}
        leading: dict[fx.Node, None] = {}
        for node in reachable(nodes, back):
            role = self.roles[node]
            entry, call = role.operation, role.call
            if role.kind != "routing" or entry is None or call is None:
                continue
            if (entry.factors or entry.product) and not entry.divides:
                factors |= dict.fromkeys(filter(self._may_change, call.operands()))
            else:
                leading |= dict.fromkeys(filter(self._may_change, entry.steers(call)))
        return list(factors), [node for node in leading if node not in factors]

    def _may_change(self, node: fx.Node) -> bool:
        signal = self.roles[node].signal
        return signal.kind == "const" and not signal.fixed

    def behind(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """The sources, and unknowns, whose events can reach ``node``, in the order of the graph."""
        every = reachable([node], lambda at: self.roles[at].carriers)
        found = [at for at in every if self.roles[at].kind in ("source", "unknown")]
        return tuple(sorted(found, key=self._order.__getitem__))

    @cached_property
    def carried(self) -> dict[fx.Node, list[fx.Node]]:
        """Where each node's events go next, also past what a surrogate does in between."""
        return carried(self.roles)

    @cached_property
    def _order(self) -> dict[fx.Node, int]:
        return {node: i for i, node in enumerate(self.roles)}


@dataclass(frozen=True)
class State:
    """What a tensor that the model keeps between forwards holds.

    Attributes:
        signal: what a forward finds in it.
        kind: what it is for the count.
        reason: what is wrong with an unknown.
    """

    signal: Signal
    kind: Literal["source", "mask", "unknown"] = "source"
    reason: str = ""

    @property
    def holds_events(self) -> bool:
        """Whether it holds events, as far as is known."""
        return self.signal.kind == "events" and self.kind != "unknown"
