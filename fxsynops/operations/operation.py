"""What is known of one operation: its entry, with everything that any stage wants to know."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxsynops.operations.call import Call, Limit, shape, spec

if TYPE_CHECKING:
    from fxsynops.operations.products import Product
    from fxsynops.operations.value_range import RangeRule
    from fxsynops.tracing.recorder import Inside


class Kind(Enum):
    """What an operation does to events."""

    ROUTING = "routing"  # carries them to other places, linearly
    GATE = "gate"  # lets them pass or not, depending on the data
    THRESHOLD = "threshold"  # makes events of analog values
    SYNAPSE = "synapse"  # multiplies them with weights
    PRODUCT = "product"  # multiplies two tensors and adds up (attention)
    ANALOG = "analog"  # leaves no events
    RANDOM = "random"  # values out of nowhere
    UNCOUNTED = "uncounted"  # has weights or products of its own that no rule counts


@dataclass(frozen=True)
class Slot:
    """A part of a tensor's map: what an operation gives back to one of its operands.

    Attributes:
        node: the operand.
        map: fan-out, of the operand's number of dimensions; size 1 along an axis where it is
            constant over the slot.
        where: a slice per axis; None is the whole operand.
    """

    node: fx.Node
    map: Tensor
    where: tuple[slice, ...] | None = None


@dataclass(frozen=True)
class Scale:
    """A factor between events and the values that stand for them.

    Attributes:
        factor: the part that is a number.
        times, over: nodes of single values (parameters, say) that multiply and divide it.
        each: nodes of tensors that multiply it element by element.
    """

    factor: float = 1.0
    times: tuple[fx.Node, ...] = ()
    over: tuple[fx.Node, ...] = ()
    each: tuple[fx.Node, ...] = ()

    def __mul__(self, other: Scale) -> Scale:
        return Scale(
            self.factor * other.factor,
            self.times + other.times,
            self.over + other.over,
            self.each + other.each,
        )

    def __abs__(self) -> Scale:
        return replace(self, factor=abs(self.factor))

    @property
    def fixed(self) -> bool:
        """Whether it is a number, and stays so."""
        return not self.nodes

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """Everything that it is computed from."""
        return self.times + self.over + self.each


# What an operation does, in functions of its call.
Pull = Callable[[Call, Tensor], Iterable[Slot]]
Factor = Callable[[Call], "Scale | None"]
Terms = Callable[[Call], "list[tuple[Any, Any]]"]


def unscaled(_: Call) -> Scale | None:
    """The operation leaves values as they are."""
    return Scale()


def unequal(_: Call) -> Scale | None:
    """The operation scales elements differently."""
    return None


def always(_: Call) -> bool:
    """Whatever the arguments."""
    return True


def never(_: Call) -> bool:
    """Whatever the arguments."""
    return False


def once(_: Call) -> float:
    """No two events meet."""
    return 1.0


# Parameters that change no value. A dtype may: see ``_truncates``.
_HARMLESS = frozenset(
    """out inplace dtype device layout memory_format non_blocking pin_memory requires_grad copy
    out_dtype implicit _stacklevel generator cudnn_enabled""".split()
)


@dataclass(frozen=True)
class Operation:
    """The entry of one operation. It speaks only for calls whose arguments it has considered.

    Attributes:
        kind: what it does to events.
        parameters: the names of the parameters that it has considered, beside those in ``carries``;
            "*" if it does the very call again. A call that sets another one to anything but its
            default is not this entry's.
        carries: the names of the parameters whose tensors may hold events, "*" all of them; other
            operands steer.
        sizes: the names of those of which only size and type matter.
        apart: whether each part of a returned tuple is made of one operand.
        pull: for routing, the transpose of its 0/1 incidence: from the fan-out map of its output
            to the maps of its operands.
        scale: by what known factor it multiplies the values; None if it differs between elements.
        gain: how many times the largest count of an operand a count of the output can be.
        terms: what it adds up, element by element: pairs of a number and an operand; empty if it
            is no such sum.
        factors: the two factors of a product, element by element.
        divides: whether the second of them divides.
        merges: whether operands are added up, so that one analog operand makes the output analog.
        joins: whether it puts its operands beside each other (``cat``), constants beside events.
        overwrites: whether it puts one operand in the place of a part of another.
        elementwise: whether each element of the first operand stays where it is.
        shifts: whether it adds a constant (batch norm).
        led: whether the operands that steer say where events go, so that it is a gate if they
            depend on the data.
        lower, upper: of a gate, the limits of what it puts out.
        fills: of a gate, the parameters whose values it may put out in the place of events.
        slopes: of a gate, by what it may multiply negative values.
        shrinks: of a gate, by how much it takes values closer to zero.
        extreme: of a gate, whether it puts out the larger (1) or the smaller (-1) of two operands.
        picks: of a gate, whether it puts out the largest (1) or the smallest (-1) of the elements
            of a window or an axis.
        moves: of a gate, whether elements (and ``fills``) come out as they are, in other places.
        powers: whether a gate raises values to a power, so that an event must be worth one.
        places: whether it says where events are, as indices.
        masks: whether what passes is a random choice (dropout), so that it makes masks of ones.
        draws: whether what it puts out is random.
        fires: whether a threshold is a neuron's, also where its input is events.
        of_whole: whether a threshold is none where whole numbers come in (indices, grey levels).
        whole: whether a gate's or threshold's output is whole, whatever its input's scale.
        analog_only: whether the entry says nothing about events.
        outputs: which parts of a returned tuple carry events (the others are analog); None: all.
        sets: the number that every element of the output is.
        most: of a random operation, the largest number that it draws.
        rounded: whether its whole numbers are whole but for rounding.
        synapse: for synapses, how to count.
        product: for products, their normal form; None for a call that has none.
        inside: the synapses inside of a call that is recorded as one.
        meaning: the same in operations that have entries; None if it cannot be said. A function of
            the call's arguments by their names, to none of which it writes; its first is a function
            that tells which tensors depend on data.
        range: what can come out, given what can come in (for bounds); None: a routing operation is
            linear, a synapse and a product bilinear, and of anything else nothing is known.
        resolve: the entry that really holds for a call, where that depends on its arguments.
    """

    kind: Kind
    parameters: str = ""
    carries: str = "input"
    sizes: str = ""
    apart: bool = False
    pull: Pull | None = None
    scale: Factor = unscaled
    gain: Callable[[Call], float] = once
    terms: Terms | None = None
    factors: Callable[[Call], tuple[Any, Any]] | None = None
    divides: bool = False
    merges: bool = False
    joins: bool = False
    overwrites: bool = False
    elementwise: bool = False
    shifts: Callable[[Call], bool] = never
    led: bool = False
    lower: Limit = None
    upper: Limit = None
    fills: tuple[str, ...] = ()
    slopes: tuple[Limit, ...] = ()
    shrinks: Limit = None
    extreme: int = 0
    picks: int = 0
    moves: bool = False
    powers: bool = False
    places: bool = False
    masks: bool = False
    draws: Callable[[Call], bool] = never
    fires: bool = False
    of_whole: bool = False
    whole: bool = False
    analog_only: bool = False
    outputs: tuple[int, ...] | None = None
    sets: Limit = None
    most: float = float("inf")
    rounded: bool = False
    synapse: Synapse | None = None
    product: Callable[[Call], Product | None] | None = None
    inside: Inside | None = None
    meaning: Callable[..., Tensor | None] | None = None
    range: RangeRule | None = None
    resolve: Callable[[Call], Operation] | None = None

    def carriers(self, call: Call) -> list[fx.Node]:
        """The operands of a call that may hold events."""
        if not self.carries:
            return []
        every = self.carries == "*" or not call.name  # users' entries speak of all operands
        found = call.operands() if every else call.operands(*self.carries.split())
        return found[call.output :][:1] if self.apart and call.output is not None else found

    def steers(self, call: Call) -> list[fx.Node]:
        """The other operands whose values matter."""
        if self.carries == "*" or (self.carries and not call.name):
            return []
        beside = set(call.operands(*f"{self.carries} {self.sizes}".split()))
        return [n for n in call.operands() if n not in beside]

    def overlooks(self, call: Call) -> frozenset[str]:
        """The arguments of a call that the entry has not considered."""
        if self.parameters == "*":
            return frozenset()
        return (
            call.given
            - _HARMLESS
            - set(f"{self.parameters} {self.carries} {self.sizes}".split())
            - {
                n
                for n in (*self.fills, *self.slopes, self.sets, self.shrinks)
                if isinstance(n, str)
            }
        )

    def is_copy(self, call: Call) -> bool:
        """Whether the output's elements are the first operand's."""
        return self.terms is not None and self.terms(call) == [(1, call.get("input"))]

    def of(self, call: Call) -> Operation | None:
        """The entry that really holds for a call; None if none has considered its arguments."""
        entry = self if self.resolve is None else self.resolve(call)
        if call.name and (not call.understood or entry.overlooks(call)):
            return None
        if entry.kind is Kind.ROUTING and _wraps(call, entry):
            return replace(entry, kind=Kind.THRESHOLD, whole=True, range=None)
        if entry.kind is Kind.ROUTING and _truncates(call, entry):
            return replace(entry, kind=Kind.THRESHOLD, whole=True)
        return entry


_QUANTIZED = (torch.quint8, torch.qint8, torch.qint32)


def _truncates(call: Call, entry: Operation) -> bool:
    """Whether what is carried loses fractions, or counts, on its way into another dtype."""
    if "spec" not in call.node.meta:  # several tensors
        return False
    into = spec(call.node).dtype
    if into.is_floating_point or into.is_complex or into in _QUANTIZED:
        return False
    for node in entry.carriers(call):
        dtype = spec(node).dtype
        if dtype.is_floating_point or dtype.is_complex:
            return True
        if into != dtype and dtype != torch.bool and _largest(into) < _largest(dtype):
            return True
    return into == torch.bool and entry.merges  # True + True is True


def _wraps(call: Call, entry: Operation) -> bool:
    """Whether something is subtracted from whole numbers that have no sign."""
    if entry.terms is None or "spec" not in call.node.meta:
        return False
    into = spec(call.node).dtype
    whole = not (into.is_floating_point or into.is_complex or into == torch.bool)
    if not whole or torch.iinfo(into).min < 0:
        return False
    return any(not isinstance(factor, int | float) or factor < 0 for factor, _ in entry.terms(call))


def _largest(dtype: torch.dtype) -> int:
    return 1 if dtype == torch.bool else torch.iinfo(dtype).max


@dataclass(frozen=True)
class Synapse:
    """How to count the synapses of one kind.

    Attributes:
        kind: name for tables.
        fanout: the map at the input, all weights counted.
        nominal: fan-out without borders, or None where there is no such figure.
        pairs: the operation with the given 0/1 weights, as a function of its input.
        sample: the input's shape, with size 1 along the axes that the weights do not see.
        fan_in: how many products are added up in one element of the output at most.
        input, weight: the names of the two operands; weight "": all are ones.
    """

    kind: str
    fanout: Callable[[Call, fx.Node], Tensor]
    nominal: Callable[[Call], float | None]
    pairs: Callable[[Call, Tensor, Tensor | None], Tensor]
    sample: Callable[[Call, fx.Node], tuple[int, ...]]
    fan_in: Callable[[Call], float] = once
    input: str = "input"
    weight: str = "weight"


def as_dense(value: Tensor) -> Tensor:
    """A tensor of any layout, or of numbers on a grid, in the usual form."""
    if value.layout != torch.strided:
        return value.to_dense()
    return value.dequantize() if value.is_quantized else value


def stored(value: Tensor) -> Tensor:
    """Ones where a sparse tensor stores a value, also a zero."""
    value = value.detach()
    if value.layout != torch.sparse_coo:
        value = value.to_sparse_coo()
    value = value.coalesce()
    ones = torch.ones(value.values().shape, dtype=torch.float64)
    cells = value.indices().cpu()
    return torch.sparse_coo_tensor(cells, ones, value.shape, check_invariants=False).to_dense()


@dataclass(frozen=True)
class SynapseCall:
    """One call of a synapse.

    Attributes:
        call, rule: what is called, and how to count it.
        input: what carries the events (or analog values).
        weight: what holds the weights, if it is to be looked at.
        stored: of weights in a sparse layout, ones where one is stored.
    """

    call: Call
    rule: Synapse
    input: fx.Node
    weight: fx.Node | None
    stored: Tensor | None = None

    def fanout(self, weight: Tensor | None = None) -> Tensor:
        """The map at the input; with ``weight``, only its nonzero entries count."""
        if weight is None and self.stored is not None:
            weight = self.stored
        if weight is None:
            return self.rule.fanout(self.call, self.input)
        with torch.enable_grad(), torch.inference_mode(False):
            mask = (as_dense(weight.detach()) != 0).double()
            size = self.rule.sample(self.call, self.input)
            x = torch.zeros(size, dtype=torch.float64, device=mask.device, requires_grad=True)
            y = self.rule.pairs(self.call, x, mask)
            (map,) = torch.autograd.grad(y, x, torch.ones_like(y))
        return map

    def macs(self, weight: Tensor | None = None) -> float:
        """Pairs of an input and a weight, padding not counted: what analog inputs cost."""
        map = self.fanout(weight)
        return float(map.sum()) * math.prod(shape(self.input)) / map.numel()

    def padded_macs(self) -> float:
        """The same with the pairs of weights and padding, as most tools count."""
        if self.rule.kind.startswith("conv_transpose"):
            each = self.rule.nominal(self.call)
            assert each is not None
            return math.prod(shape(self.input)) * each
        if self.rule.kind.startswith("conv"):
            return math.prod(shape(self.call.node)) * self.rule.fan_in(self.call)
        return self.macs()

    def probe(self) -> Tensor:
        """A map at the input that varies wherever one with zero weights may vary."""
        drawn = torch.Generator().manual_seed(0)
        size = self.rule.sample(self.call, self.input)
        return torch.rand(size, generator=drawn, dtype=torch.float64)
