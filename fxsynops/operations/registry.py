"""What is known about operations: one :class:`Operation` each, looked up by name or by target.

Torch offers one operation under many targets (``torch.add``, ``Tensor.add_``, ``Tensor.__radd__``,
``aten.add.Tensor``); they share a name here, and an entry covers them all. What users register
stands under the target itself and comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from fxsynops.operations.range import RangeRule
from fxsynops.tracing.node_meta import TensorSpec

if TYPE_CHECKING:
    from fxsynops.neurons.registry import Inside
    from fxsynops.operations.products import Product


class Kind(Enum):
    """What an operation does to events."""

    ROUTING = "routing"  # carries them to other places, linearly
    GATE = "gate"  # lets them pass or not, depending on the data
    THRESHOLD = "threshold"  # makes events of analog values
    SYNAPSE = "synapse"  # multiplies them with weights
    PRODUCT = "product"  # multiplies two tensors and adds up (attention)
    ANALOG = "analog"  # leaves no events
    RANDOM = "random"  # analog values out of nowhere


@dataclass(frozen=True)
class Call:
    """One recorded call, as the rules see it.

    Attributes:
        node: the node of the value that is meant; it may be one part of a returned tuple.
        target: what is called.
        name: the operation's name in the registry.
        args, kwargs: its arguments, nodes where tensors were; without a called module itself.
        output: which part of the returned tuple ``node`` is, or None.
        constant: the value of an operand that depends on no data, None for any other.
    """

    node: fx.Node
    target: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    constant: Callable[[fx.Node], Tensor | None]

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or keyword."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    def data(self, positions: tuple[int, ...] | None) -> list[fx.Node]:
        """The operands at some positions (None: all)."""
        if positions is None or max(positions, default=-1) >= len(self.args):
            return self.operands() if positions != () else []
        found: list[fx.Node] = []
        map_arg(tuple(self.args[i] for i in positions), found.append)
        return [node for node in found if "spec" in node.meta]

    @property
    def x(self) -> fx.Node:
        """The first operand."""
        first = self.args[0] if self.args else next(iter(self.kwargs.values()))
        return first[0] if isinstance(first, (tuple, list)) else first

    def operands(self) -> list[fx.Node]:
        """All nodes among the arguments, in order; not what the call only writes to."""
        found: list[fx.Node] = []
        read = {name: value for name, value in self.kwargs.items() if name != "out"}
        map_arg((self.args, read), found.append)
        return [node for node in found if "spec" in node.meta]


def spec(node: fx.Node) -> TensorSpec:
    """Shape and dtype of a node's tensor."""
    return node.meta["spec"]


def shape(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's tensor."""
    return tuple(node.meta["spec"].shape)


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
    """

    factor: float = 1.0
    times: tuple[fx.Node, ...] = ()
    over: tuple[fx.Node, ...] = ()

    def __mul__(self, other: Scale) -> Scale:
        return Scale(self.factor * other.factor, self.times + other.times, self.over + other.over)


Pull = Callable[[Call, Tensor], Iterable[Slot]]
Factor = Callable[[Call], Scale | None]


def unscaled(_: Call) -> Scale | None:
    """The operation leaves values as they are."""
    return Scale()


def unequal(_: Call) -> Scale | None:
    """The operation scales elements differently."""
    return None


def always(_: Call) -> bool:
    """Whatever the arguments."""
    return True


@dataclass(frozen=True)
class Operation:
    """The entry of one operation.

    Attributes:
        kind: what it does to events.
        pull: for routing, the transpose of its 0/1 incidence: from the fan-out map of its output
            to the maps of its operands.
        scale: by what known factor it multiplies the values; None if it differs between elements.
        gain: how many times the largest count of an operand a count of the output can be.
        merges: whether operands are added up, so that one analog operand makes the output analog.
        shifts: whether it adds a constant (batch norm).
        indexed: whether the other operands say where events go, so that it is a gate if they
            depend on the data.
        powers: whether a gate raises values to a power, so that an event must be worth one.
        random: whether a gate's choice is random (dropout), so that it makes a mask of constants.
        fires: whether a threshold is a neuron's, also where its input is events.
        binary: whether a gate's or threshold's output is whole, whatever its input's scale.
        analog_only: whether the entry says nothing about events.
        outputs: which parts of a returned tuple carry events (the others are analog); None: all.
        data: positions of the operands that may carry events (the others only steer); None: all.
        synapse: for synapses, how to count.
        product: for products, their normal form; None for a call that has none.
        inside: the synapses inside of a call that is recorded as one.
        range: what can come out, given what can come in (for bounds); None: see
            :mod:`fxsynops.operations.range_rules`.
        resolve: the entry that really holds for a call, where that depends on its arguments.
    """

    kind: Kind
    pull: Pull | None = None
    scale: Factor = unscaled
    gain: Callable[[Call], float] = lambda _: 1.0
    merges: bool = False
    shifts: Callable[[Call], bool] = lambda _: False
    indexed: bool = False
    powers: bool = False
    random: bool = False
    fires: bool = False
    binary: bool = False
    analog_only: bool = False
    outputs: tuple[int, ...] | None = None
    data: tuple[int, ...] | None = None
    synapse: Synapse | None = None
    product: Callable[[Call], Product | None] | None = None
    inside: Inside | None = None
    range: RangeRule | None = None
    resolve: Callable[[Call], Operation] | None = None


@dataclass(frozen=True)
class Synapse:
    """How to count the synapses of one kind.

    Attributes:
        kind: name for tables.
        fanout: the map at the input, all weights counted.
        nominal: fan-out without borders, or None where there is no such figure.
        pairs: the operation with the given 0/1 weights, as a function of its input.
        sample: the input's shape, with size 1 along the axes that the weights do not see.
        input, weight: positions and names of the two operands; weight None: all are ones.
    """

    kind: str
    fanout: Callable[[Call, fx.Node], Tensor]
    nominal: Callable[[Call], float | None]
    pairs: Callable[[Call, Tensor, Tensor | None], Tensor]
    sample: Callable[[Call, fx.Node], tuple[int, ...]]
    input: tuple[int, str] = (0, "input")
    weight: tuple[int, str] | None = (1, "weight")


@dataclass(frozen=True)
class SynapseCall:
    """One call of a synapse.

    Attributes:
        call, rule: what is called, and how to count it.
        input: what carries the events (or analog values).
        weight: what holds the weights, if it is to be looked at.
    """

    call: Call
    rule: Synapse
    input: fx.Node
    weight: fx.Node | None

    def fanout(self, weight: Tensor | None = None) -> Tensor:
        """The map at the input; with ``weight``, only its nonzero entries count."""
        if weight is None:
            return self.rule.fanout(self.call, self.input)
        with torch.enable_grad(), torch.inference_mode(False):
            mask = (weight.detach() != 0).double()
            size = self.rule.sample(self.call, self.input)
            x = torch.zeros(size, dtype=torch.float64, device=mask.device, requires_grad=True)
            y = self.rule.pairs(self.call, x, mask)
            (map,) = torch.autograd.grad(y, x, torch.ones_like(y))
        return map

    def probe(self) -> Tensor:
        """A map at the input that varies wherever one with zero weights may vary."""
        return torch.rand(self.rule.sample(self.call, self.input), dtype=torch.float64)


@dataclass
class Registry:
    """Operations by name (torch's own) and by target (modules' types and what users register)."""

    by_name: dict[str, Operation] = field(default_factory=dict)
    by_target: dict[Any, Operation] = field(default_factory=dict)

    def add(self, names: str, operation: Operation) -> None:
        """Register ``operation`` under several names; refuses duplicates."""
        for name in names.split():
            if name in self.by_name:
                raise ValueError(f"operation '{name}' is registered twice")
            self.by_name[name] = operation

    def find(self, target: Any, function: Any, module: nn.Module | None) -> Operation | None:
        """The entry for a node's target, custom autograd function or module."""
        for key in _keys(target, function, module):
            if key in self.by_target:
                return self.by_target[key]
        if function is not None or module is not None or not is_torch(target):
            return None
        return self.by_name.get(operation_name(target))


operations = Registry()


def _keys(target: Any, function: Any, module: nn.Module | None) -> Iterator[Any]:
    if module is not None:
        yield from type(module).__mro__
    elif function is not None:
        yield function
    else:
        try:
            hash(target)
        except TypeError:
            return
        yield target


def is_torch(target: Any) -> bool:
    """Whether a callable is torch's (or this package's) own, so that its name says what it does."""
    owner = getattr(target, "__module__", None) or ""
    if owner.split(".")[0] in ("torch", "torch_overrides") or owner.startswith("fxsynops."):
        return True
    kind = type(target)
    return kind.__name__ in (
        "method_descriptor",
        "wrapper_descriptor",
        "method-wrapper",
        "getset_descriptor",
        "OpOverload",
        "OpOverloadPacket",
    ) or (kind.__name__ == "builtin_function_or_method" and not owner)


_ALIASES = {"truediv": "div", "invert": "bitwise_not", "rtruediv": "rdiv"}


def operation_name(target: Any) -> str:
    """The name under which all variants of an operation stand."""
    name = getattr(target, "__name__", "")
    if name in ("__get__", "__set__"):  # a property of Tensor
        verb = "get" if name == "__get__" else "set"
        return f"{verb}_{getattr(getattr(target, '__self__', None), '__name__', '')}"
    if isinstance(target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        name = name.split(".")[0]
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        if name.startswith("i") and name[1:] in _INPLACE:
            name = name[1:]
    else:
        name = name.rstrip("_").removeprefix("linalg_")
    return _ALIASES.get(name, name)


def writes_in_place(node: fx.Node) -> bool:
    """Whether a call may write to its first operand."""
    if isinstance(node.target, torch._ops.OpOverload):  # whatever its name, it says so
        first = node.target._schema.arguments[:1]
        return any(one.alias_info is not None and one.alias_info.is_write for one in first)
    name = getattr(node.target, "__name__", "")
    if name.startswith("__"):
        named = name.startswith(("__i", "__set"))
    else:
        named = name.endswith("_") or name == "setitem"
    return named or node.kwargs.get("inplace") is True or _is_told_to(node)


def _is_told_to(node: fx.Node) -> bool:
    """Whether ``inplace`` is passed by position; only functions in Python have such a parameter."""
    code = getattr(node.target, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    return any(
        name == "inplace" and value is True for name, value in zip(names, node.args, strict=False)
    )


_INPLACE = frozenset(
    ["add", "sub", "mul", "truediv", "div", "matmul", "and", "or", "xor", "floordiv", "mod", "pow"]
)
