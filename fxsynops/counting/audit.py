"""An analysis proves itself: what left the sources, by the maps, is what arrived at the synapses.

    audit(findings, witness) -> Audited
      left      events measured in a replay of the example × fan-out maps
      arrived   what every synapse got when the forward was recorded (fxsynops.tracing.witness), in
                whole events, through the same operator with all weights one
      in events where that is no whole number of events: the graph between sources and synapse, run
                on random events instead, and the maps on the same

None of it looks at how a fan-out map is found, or at the sums of a count: what an operation does to
events is what torch does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.results import Connection, Findings
from fxsynops.connectivity.signals import Role
from fxsynops.counting.measured_nodes import Stop
from fxsynops.counting.replay import Replay
from fxsynops.neurons import Chosen, describe
from fxsynops.operations.call import shape
from fxsynops.operations.operation import as_dense
from fxsynops.tracing import graph_functions
from fxsynops.tracing.borrowed import Borrowed
from fxsynops.tracing.graph_walk import reachable, upstream
from fxsynops.tracing.witness import Factor, Product, Witness

_SOME = 4  # fewer elements of one size may be chance
_MANY = 64.0  # more events than that in one element do not look like events


@dataclass(frozen=True)
class AuditRow:
    """One synapse, counted in two ways.

    Attributes:
        synapse: its name.
        left: SynOps by the events that left the sources and the fan-out maps; None if unknown.
        arrived: SynOps by what the synapse got; None if unknown.
        agrees: whether they are equal; None if they could not be compared.
        reason: why they could not be compared, or what is wrong.
        way: the operations between the sources and the synapse, with the user's lines.
    """

    synapse: str
    left: float | None
    arrived: float | None
    agrees: bool | None
    reason: str = ""
    way: tuple[str, ...] = ()

    def __str__(self) -> str:
        arrived = "" if self.arrived is None else f", {_said(self.arrived)} arrived"
        numbers = f"{_said(self.left)} SynOps left the sources{arrived}"
        reason = f" ({self.reason})" if self.reason else ""
        way = f"; on the way: {', '.join(self.way)}" if self.way else ""
        return f"'{self.synapse}': {numbers}{reason}{way}"


@dataclass(frozen=True)
class Audited:
    """What an audit has found; see :class:`fxsynops.results.Audit`.

    Attributes:
        rows: one per synapse.
        notes: what looks like events, though it is taken for analog.
        faults: what is wrong beside the rows.
        model: its name.
    """

    rows: tuple[AuditRow, ...]
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    model: str = "the model"

    @property
    def ok(self) -> bool:
        """Whether nothing disagrees."""
        return not self.faults and all(row.agrees is not False for row in self.rows)


def audit(findings: Findings, witness: Witness, changes: Iterable[str] = ()) -> Audited:
    """Hold an analysis against what really happened when its example was recorded.

    Args:
        findings: the analysis.
        witness: of the forward that it is of.
        changes: what the analysis is known to have left changed in the model.
    """
    with torch.no_grad():
        replayed = _Measuring(findings)
        output, left = replayed.example()
        faults, notes = replayed.said_of_fractions()
        faults += changes
        if not _same(output, witness.output):
            faults.append("the replay gives another output than the model")
        auditor = _Auditor(findings, witness, left, replayed.negative)
        rows = [auditor.row(name, nodes) for name, nodes in auditor.synapses().items()]
        hidden = [auditor.hidden(node, products) for node, products in witness]
        rows += [row for row in hidden if row is not None]
        notes += auditor.look_alikes()
    return Audited(tuple(rows), tuple(notes), tuple(faults), findings.name)


@contextmanager
def _attention_as_recorded() -> Iterator[None]:
    """Without the fast path of attention, which is not taken while functions are watched."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Measuring(Replay):
    """A replay of the example that looks at what sources put out.

    Attributes:
        negative: the nodes that put out negative events.
        fractions: a fraction of an event that a node put out, by node.
    """

    def __init__(self, findings: Findings) -> None:
        super().__init__(findings)
        self.negative: set[fx.Node] = set()
        self.fractions: dict[fx.Node, float] = {}

    def measure(self, stop: Stop, value: Tensor, unit: Tensor | float) -> None:
        """Count the events in a value, which should be whole."""
        super().measure(stop, value, unit)
        if stop.node not in self.counted:
            return
        value = as_dense(value).detach()
        unit = unit.detach() if isinstance(unit, Tensor) else unit
        worth_one = type(unit) is float and unit == 1.0
        events = value if worth_one and value.is_floating_point() else _in_units(value, unit)
        if events.numel() and bool(events.amin() < 0):
            self.negative.add(stop.node)
        if value.is_floating_point() and not stop.reading.graded and not _is_whole(events):
            apart = (events - events.round()).abs()
            self.fractions[stop.node] = float(events.flatten()[apart.argmax()])

    def example(self) -> tuple[Any, list[float]]:
        """The output for the example, and the SynOps of each connection."""
        # Without gradients, torch may compute otherwise (an LSTM does, in the last bits), and where
        # nobody watches, attention takes a way of its own.
        trace = self.analysis.trace
        recorded = torch.set_grad_enabled(trace.mode.grad)
        borrowed = Borrowed(self.analysis.model, in_place=not trace.overwrites)
        with recorded, _attention_as_recorded(), borrowed:
            output, tally = self.count(self.analysis.example.clone().values)
            return output, tally.both()[1].tolist()

    def said_of_fractions(self) -> tuple[list[str], list[str]]:
        """Faults and notes: fractions are a fault, unless the user wanted just this node."""
        faults, notes = [], []
        for node, value in self.fractions.items():
            name = self.analysis.connector.names[node]
            if _is_graded(self.analysis, node):
                notes.append(
                    f"'{name}' puts out fractions (one is {value:.4g}): each counts so much."
                )
            else:
                faults.append(
                    f"'{name}' puts out {value:.4g} events in one element, no whole number"
                )
        return faults, notes


@dataclass
class _Auditor:
    """The two ways to count, for one analysis.

    Attributes:
        findings: the analysis.
        witness: of its forward.
        left: SynOps of each connection.
        negative: the nodes that put out negative events.
    """

    findings: Findings
    witness: Witness
    left: list[float]
    negative: set[fx.Node]
    _alike: dict[str, fx.Node] = field(default_factory=dict)  # inputs that look like events

    def __post_init__(self) -> None:
        signals = self.findings.connector.signals
        self._roles, self._calls, self._known = signals.roles, signals.calls, signals.constant
        self._chosen = Chosen.of(self.findings.model, self.findings.options.spiking)
        self._graded = self.findings.options.events == "nonzero"
        self._order = {node: i for i, node in enumerate(self.findings.trace.graph.nodes)}

    def synapses(self) -> dict[str, list[fx.Node]]:
        """The calls of every synapse, by its name."""
        known = {n: c.calls.name for c in self.findings.connections for n in c.calls.calls}
        found: dict[str, list[fx.Node]] = {}
        for node, role in self._roles.items():
            if role.counted:
                name = known.get(node) or self.findings.connector.names[node]
                found.setdefault(name, []).append(node)
        return found

    # -- one synapse -----------------------------------------------------------------------------

    def row(self, name: str, nodes: list[fx.Node]) -> AuditRow:
        """The two counts of a synapse."""
        connections = [c for c in self.findings.connections if c.calls.name == name]
        numbers = [i for i, c in enumerate(self.findings.connections) if c.calls.name == name]
        left = sum(self.left[i] for i in numbers)
        if unresolved := [row for row in self.findings.unresolved if row.synapse == name]:
            reason = f"unresolved: '{unresolved[0].operation}' {unresolved[0].where}"
            return AuditRow(name, left, None, None, reason)
        reason = ""
        try:
            arrived = sum(self._arrived(name, node) for node in nodes)
            if not (agrees := _equal_counts(left, arrived)) and self._cancel(connections, nodes):
                raise _UnknownError("events cancel, or meet constants, on their way")
        except _FaultError as fault:
            return AuditRow(name, left, None, False, str(fault), self._way(nodes))
        except _UnknownError as unknown:
            reason = f"on random events: {unknown}"
            try:
                left, arrived = self._on_random_events(connections, nodes)
            except _UnknownError as why:
                return AuditRow(name, left, None, None, f"{unknown}; {why}")
            agrees = left == arrived
        if not left and not arrived and not reason and connections:
            return AuditRow(name, left, arrived, None, "no event arrives from the example")
        return AuditRow(name, left, arrived, agrees, reason, () if agrees else self._way(nodes))

    def _cancel(self, connections: list[Connection], nodes: list[fx.Node]) -> bool:
        """Whether what leaves some sources need not arrive: there are signs, or constants."""
        taps = {tap.node for connection in connections for tap in connection.taps}
        if taps & self.negative:
            return True
        for node in reachable(nodes, lambda n: () if n in taps else self._roles[n].carriers):
            role = self._roles[node]
            entry, call = role.operation, role.call
            if role.kind != "routing" or entry is None or call is None:
                continue
            if role.folded or entry.joins or entry.overwrites or not role.signal.whole:
                return True
            terms = entry.terms(call) if entry.terms else []
            scale = role.signal.scale
            if any(factor < 0 for factor, _ in terms) or (scale is not None and scale.factor < 0):
                return True
        return False

    def _product(self, node: fx.Node) -> tuple[Product, int]:
        """The product that a call of a synapse made, and which of its factors is the input."""
        products = self.witness.products.get(origin_of(node)[0], [])
        if len(products) != 1:
            said = f"{len(products)} products are" if products else "no product of torch's is"
            raise _UnknownError(f"{said} seen in it")
        role = self._roles[node]
        if role.synapse is not None:
            x, other = role.synapse.input, role.synapse.weight
        else:
            x, other = _met(role)
        mine = [factor.node is x for factor in products[0].factors]
        theirs = [other is not None and factor.node is other for factor in products[0].factors]
        if mine[0] != mine[1]:
            return products[0], mine.index(True)
        if theirs[0] != theirs[1]:
            return products[0], theirs.index(False)
        if products[0].options:  # a convolution
            return products[0], 0
        raise _UnknownError("which of its factors is which is not seen")

    def _arrived(self, name: str, node: fx.Node) -> float:
        """What one call of a synapse got, with all weights one."""
        role = self._roles[node]
        if not role.carriers:
            self._look(name, node)
            return 0.0
        product, which = self._product(node)
        if not all(factor.is_as_it_was for factor in product.factors):
            raise _UnknownError("what it multiplied has been written to since")
        mine, other = (product.factors[i].value for i in (which, 1 - which))
        if role.synapse is not None:
            pair = self._events(role.synapse.input, mine), self._ones(role, other)
        else:
            left, right = _met(role)
            pair = self._events(left, mine), self._events(right, other)
        return _summed(product, pair if which == 0 else pair[::-1])

    def _ones(self, role: Role, weights: Tensor) -> Tensor:
        """All weights one; with ``weights="nonzero"``, those that are zero are none."""
        assert role.synapse is not None
        if weights.layout != torch.strided:
            raise _UnknownError("its weights are sparse")
        if self.findings.options.weights == "nonzero" and role.synapse.weight is not None:
            return (weights != 0).double()
        return _ones_like(weights)

    def _events(self, node: fx.Node, value: Tensor) -> Tensor:
        """What arrives in whole events."""
        signal = self._roles[node].signal
        if signal.mask is not None:
            raise _UnknownError("events and analog values lie in one tensor")
        if self._graded:
            return (value != 0).double()
        if not signal.whole:
            raise _UnknownError("a constant is added to its events")
        if signal.scale is None:
            raise _UnknownError("its events are worth different amounts")
        unit: Any = signal.scale.factor
        for factor in signal.scale.times + signal.scale.each:
            unit = unit * self._constant(factor)
        for factor in signal.scale.over:
            unit = unit / self._constant(factor)
        if isinstance(unit, Tensor) and unit.dim() and shape(node) != tuple(value.shape):
            raise _UnknownError(
                "torch multiplies it in another shape, and its events have several worths"
            )
        events = _in_units(as_dense(value), unit)
        if _is_rounded(events, value.dtype):
            raise _UnknownError(f"{value.dtype} rounds what its events are worth")
        if not _is_whole(events):
            if any(
                _is_graded(self.findings, n) for n in self.findings.connector.signals.behind(node)
            ):
                return events.abs()
            if self._cancel([], [node]):
                raise _UnknownError("a constant is added to its events")
            raise _FaultError("what arrives is no whole number of events")
        return events.round().abs()

    def _constant(self, node: fx.Node) -> Tensor:
        value = None if "unit" in node.meta else self._known(node)
        if value is None:
            raise _UnknownError("what its events are worth depends on data")
        return value.detach().double()

    # -- on random events ------------------------------------------------------------------------

    def _on_random_events(
        self, connections: list[Connection], nodes: list[fx.Node]
    ) -> tuple[float, float]:
        """SynOps by the maps, and as they arrive, if sources put out other events."""
        taps = [tap for connection in connections for tap in connection.taps]
        if any(tap.product is not None for tap in taps):
            raise _UnknownError("events meet events in it")
        random = torch.Generator().manual_seed(0)
        given = {
            tap.node: torch.randint(3, shape(tap.node), generator=random).double() for tap in taps
        }
        left = sum(float((tap.map * given[tap.node]).sum()) * tap.repeats for tap in taps)
        arrived = 0.0
        for node in nodes:
            role = self._roles[node]
            if not role.carriers:
                continue
            product, which = self._product(node)
            assert role.synapse is not None
            events = self._carried(role.synapse.input, given)
            mask = self._roles[role.synapse.input].signal.mask
            events = events if mask is None else events * ~mask
            mine, other = (product.factors[i].value for i in (which, 1 - which))
            if events.numel() != mine.numel():
                raise _UnknownError("its input is copied on the way into the product")
            follows = self.findings.options.weights == "nonzero"
            if follows and not product.factors[1 - which].is_as_it_was:
                raise _UnknownError("which of its weights were zero is not known any more")
            pair = events.reshape(mine.shape), self._ones(role, other)
            arrived += _summed(product, pair if which == 0 else pair[::-1])
        return left, arrived

    def _carried(self, target: fx.Node, given: dict[fx.Node, Tensor]) -> Tensor:
        """The events at a node, if some nodes put out the given ones."""
        values = dict(given)
        between = reachable([target], lambda n: () if n in given else self._roles[n].carriers)
        for node in sorted(between, key=self._order.__getitem__):
            if node not in given:
                values[node] = self._step(node, values)
        return values[target]

    def _step(self, node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor:
        """Events after one operation: norms and scales are left out, averages are sums."""
        role = self._roles[node]
        entry, call = role.operation, role.call
        if role.kind != "routing" or entry is None or call is None:
            raise _UnknownError(f"'{self.findings.connector.names[node]}' is in its way")
        first = values[role.carriers[0]]
        if entry.elementwise and not entry.merges:
            return first.expand(shape(node))
        if entry.factors:
            for other in call.operands():
                if other not in role.carriers:
                    first = first * (self._constant(other) != 0)
            return first.expand(shape(node))
        if entry.product:  # element by element, too: a factor lets pass, or not
            return call.again(
                lambda n: values[n] if n in role.carriers else (self._constant(n) != 0).double()
            )
        if entry.terms:
            # Only where terms cancel may one of them count more than once.
            parts = [
                values[n] * (1 if entry.parameters else abs(factor))
                for factor, n in entry.terms(call)
                if n in role.carriers
            ]
            return torch.stack([part.expand(shape(node)) for part in parts]).sum(0)
        scale = entry.scale(call)
        if not call.name or scale is None or not scale.fixed or scale.factor == 0:
            raise _UnknownError(
                f"'{self.findings.connector.names[node]}' weighs its events differently"
            )

        def operand(n: fx.Node) -> Tensor:
            if n in role.carriers:
                return values[n]
            value = self._known(n)
            if value is not None and not value.is_floating_point():
                return value  # says where events go
            return torch.zeros(shape(n), dtype=torch.float64)

        if call.target is graph_functions.alias_after:
            alias, written, geometry = call.args
            return _beside(operand(alias), operand(written), *geometry)
        found = call.again(operand, leave_out=("dtype",))
        found = found if call.output is None else found[call.output]
        return (found / scale.factor).round()

    # -- what has no row -------------------------------------------------------------------------

    def hidden(self, node: fx.Node, products: list[Product]) -> AuditRow | None:
        """A product that no synapse stands for, if events may be among its factors."""
        role, (call, entry) = self._roles.get(node), self._calls[node]
        module = self._calls.module(node)
        if (role is not None and role.counted) or node.meta.keys() & {"virtual", "as"}:
            return None
        if (entry is not None and entry.inside) or (role is not None and role.weighted):
            return None
        neuron = None if module is None else describe(module, self._chosen)
        if neuron is not None and neuron.inside is not None:
            return None
        data = [n for n in call.operands() if self._roles[n].signal.kind != "const"]
        events = [
            factor.value
            for product in products
            for factor in product.factors
            if factor.node in data and _looks_like_events(factor.value)
        ]
        name = self.findings.connector.names[node]
        if not events:
            if not data:
                self._look_at_constants(name, products)
            return None
        arrived = sum(
            _summed(product, tuple(_as_events(factor, data) for factor in product.factors))
            for product in products
        )
        reason = "it multiplies events with weights of its own, which no rule counts"
        return AuditRow(name, 0.0, arrived, False, reason, self._way([node]))

    def _look_at_constants(self, name: str, products: list[Product]) -> None:
        """Whether a product that no input seems to reach holds events all the same."""
        for factor in (factor for product in products for factor in product.factors):
            node = factor.node
            if node is None or not node.op.startswith("call") or self._is_of_parameters(node):
                continue
            if factor.is_as_it_was and _looks_like_events(factor.value):
                self._alike[name] = node

    def _is_of_parameters(self, node: fx.Node) -> bool:
        """Whether a constant is made of parameters: it is weights, whatever it looks like."""
        reads = self.findings.trace.reads
        places = (reads.get(str(n.target)) for n in upstream([node]) if n.op == "get_attr")
        return any(isinstance(place.get(), nn.Parameter) for place in places if place is not None)

    def _look(self, name: str, node: fx.Node) -> None:
        """Whether the analog input of a synapse looks like events."""
        role = self._roles[node]
        x = role.synapse.input if role.synapse is not None else None
        if x is None or origin_of(x)[0].op == "placeholder":
            return
        try:
            product, which = self._product(node)
        except _UnknownError:
            return
        factor = product.factors[which]
        if factor.is_as_it_was and _looks_like_events(factor.value):
            self._alike[name] = x

    def look_alikes(self) -> Iterator[str]:
        """Analog inputs of synapses that hold what spikes are: few whole numbers, many zeros."""
        for name, x in self._alike.items():
            origin, _ = origin_of(x)
            made = self.findings.connector.names[x]
            taken = "analog" if self._roles[x].signal.kind != "const" else "a constant"
            yield (
                f"The input of '{name}' looks like events, but is taken for {taken}: '{made}' "
                f"{origin.meta['site']} makes it. Name what makes it in spiking=, or register it."
            )

    def _way(self, nodes: list[fx.Node]) -> tuple[str, ...]:
        """The operations between sources and some calls, with the user's lines."""
        found: dict[str, None] = {}
        ahead = reachable(nodes, lambda n: self._roles[n].carriers if n in self._roles else ())
        for node in sorted(ahead, key=self._order.__getitem__):
            origin, _ = origin_of(node)
            if origin.op.startswith("call"):
                called = getattr(origin.target, "__name__", str(origin.target))
                found[f"{called} {origin.meta['site']}"] = None
        return tuple(found)[-8:]


def _met(role: Role) -> tuple[fx.Node, fx.Node]:
    """The two factors of a product of events."""
    assert role.product is not None
    return role.product.operands


def _beside(alias: Tensor, written: Tensor, ours: Any, theirs: Any) -> Tensor:
    """A tensor after another one in the same memory was written to."""
    ends = [at + sum((n - 1) * by for n, by in zip(*g, strict=True)) for *g, at in (ours, theirs)]
    memory = torch.zeros(1 + max(ends), dtype=alias.dtype)
    memory.as_strided(*ours).copy_(alias)
    memory.as_strided(*theirs).copy_(written)
    return memory.as_strided(*ours).clone()


class _UnknownError(Exception):
    """Why two counts cannot be compared."""


class _FaultError(Exception):
    """Why they need not be compared: something is wrong."""


def _summed(product: Product, pair: tuple[Tensor, ...]) -> float:
    """Σ of what an operator puts out for two factors, in float64.

    A matrix product is summed over rows and columns before it is multiplied.
    """
    left, right = pair
    if product.options:
        return _convolved(left, right, product.options)
    if product.name == "linear":
        right = right.mT if right.dim() > 1 else right
    left = left.double() if left.dim() == 1 else _added(left, -2)
    right = right.double() if right.dim() == 1 else _added(right, -1)
    return float((left * right).sum())


def _added(x: Tensor, axis: int) -> Tensor:
    """Σ along an axis, in float64; of one number that stands for all, without going there."""
    if x.stride(axis) == 0 and x.shape[axis]:
        return x.select(axis, 0).double() * x.shape[axis]
    return x.sum(axis, dtype=torch.float64)


def _convolved(x: Tensor, weight: Tensor, options: tuple[Any, ...]) -> float:
    """Σ of a convolution's output; with all weights one, channels of a group are added up first."""
    *geometry, groups = options
    convolution: Any = torch.convolution
    transposed = options[3]
    if not any(weight.stride()):  # all of them one
        each = weight.shape[1] if transposed else weight.shape[0] // groups
        x = x.unflatten(1, (groups, -1)).sum(2, dtype=torch.float64)
        weight = weight[:1, :1].expand(groups, 1, *weight.shape[2:])
    else:
        each = 1
    return float(convolution(x.double(), weight, None, *geometry, groups).sum()) * each


def _as_events(factor: Factor, data: list[fx.Node]) -> Tensor:
    """A factor as events, if it is data; all ones, if it is weights."""
    return factor.value.abs() if factor.node in data else _ones_like(factor.value)


def _ones_like(weights: Tensor) -> Tensor:
    """Ones of a shape, that need no memory."""
    return torch.ones((), dtype=torch.float64, device=weights.device).expand(weights.shape)


def _looks_like_events(value: Tensor) -> bool:
    """Whether a tensor holds few whole numbers, and zeros between them."""
    if value.is_complex() or not value.numel():
        return False
    zeros = value == 0
    if not bool(zeros.any()) or bool(zeros.all()):
        return False
    sizes = value.abs()
    unit = sizes.amax()
    if bool(((sizes == unit) | zeros).all()):  # of whatever size, and it is one size
        return int((~zeros).sum()) >= _SOME
    return bool((value == value.round()).all()) and float(unit) <= _MANY


def _in_units(value: Tensor, unit: Any) -> Tensor:
    """A value in events, float32 or float64; none where an event is worth nothing."""
    if not isinstance(unit, Tensor) and unit == 1:
        return value if value.dtype in (torch.float32, torch.float64) else value.double()
    unit = torch.as_tensor(unit, dtype=torch.float64)
    return value.double() / torch.where(unit == 0, torch.inf, unit)


def _is_graded(findings: Findings, node: fx.Node) -> bool:
    """Whether a user has asked to count a node's values as they are, whole or not."""
    neuron = findings.connector.signals.roles[node].neuron
    return neuron is not None and neuron.graded


def _equal_counts(left: float, arrived: float) -> bool:
    """Whether two counts are equal: whole ones to the integer."""
    return left == arrived or (left % 1 > 0 and math.isclose(left, arrived, rel_tol=1e-5))


def _is_whole(events: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether events are whole numbers, up to what rounding can do."""
    whole = events.round()
    if torch.equal(events, whole):  # nearly always, and fast
        return True
    apart = (events - whole).abs()
    return bool((apart <= tolerance * events.abs().clamp(min=1)).all())


def _is_rounded(events: Tensor, dtype: torch.dtype) -> bool:
    """Whether a few operations in a type of few digits may have made other events of these."""
    if not dtype.is_floating_point or not events.numel():
        return False
    tolerance, largest = 4 * torch.finfo(dtype).eps, torch.stack(torch.aminmax(events)).abs().amax()
    if float(largest) * tolerance >= 0.5:
        return True
    return not _is_whole(events) and _is_whole(events, tolerance)


def _same(a: Any, b: Any) -> bool:
    """Whether two outputs are the same, bit for bit on a CPU."""
    ours, theirs = pytree.tree_leaves(a), pytree.tree_leaves(b)
    return len(ours) == len(theirs) and all(map(_equal, ours, theirs))


def _equal(x: Any, y: Any) -> bool:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return type(x) is type(y)
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    exact = x.device.type == "cpu" or not x.is_floating_point()
    tolerance = 0.0 if exact else 1e-4
    return torch.allclose(x, y, tolerance, tolerance, equal_nan=True)


def _said(number: float | None) -> str:
    return "an unknown number of" if number is None else f"{number:,.0f}"
