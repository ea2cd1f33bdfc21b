"""What one event is worth behind an operation, where limits, constants and choices play a role.

``clamp(2 * s, 0, 1)`` puts out events that are worth 1, ``where(s > 0, 1, trace / 2)`` ones that
are worth different amounts, element by element. Where a number says what an event is worth, it is
a number; else a node beside the model's own computes it in every pass, from the values of that
pass: with the gate's own call on what its operands' events are worth, or by asking which elements
have become one of its constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from fxsynops.connectivity.known_values import Values
from fxsynops.operations import Call, Kind, Operation
from fxsynops.operations.call import shape
from fxsynops.operations.operation import Scale, never, once, unscaled
from fxsynops.tracing.graph_functions import getitem

_CLOSE = 1e-6


class Units:
    """Questions about what events are worth.

    Args:
        values: of a trace; the nodes before the present one have roles.
        made: the nodes that were added to the trace's graph, by what they compute; they are used
            again where the same graph is looked at once more.
    """

    def __init__(self, values: Values, made: dict[Any, fx.Node]) -> None:
        self._values, self._roles, self._made = values, values.roles, made

    # -- rules -----------------------------------------------------------------------------------

    def common(self, nodes: Iterable[fx.Node]) -> Scale | None:
        """What one event is worth in all of some nodes, but for its sign; None if it differs."""
        scales = [self._roles[node].signal.scale for node in nodes]
        first = scales[0] if scales else None
        if all(scale == first for scale in scales):
            return first
        if any(scale is None or abs(scale) != abs(scales[0]) for scale in scales):  # type: ignore
            return None
        return None if first is None else abs(first)

    def routed(self, call: Call, entry: Operation, data: list[fx.Node]) -> Scale | None:
        """Behind routing."""
        scale, step = self.common(data), entry.scale(call)
        if scale is not None and not (scale.each and not (entry.elementwise or entry.merges)):
            return None if step is None else scale * step
        return self._moved(call, entry, data) if is_move(entry) else None

    def gated(self, call: Call, entry: Operation, data: list[fx.Node]) -> Scale | None:
        """Behind a gate."""
        scale, step = self.common(data), entry.scale(call)
        if entry.moves or is_move(entry):
            return self._moved(call, entry, data)
        if step is None or (scale is None and not entry.extreme):
            return None
        if entry.extreme:
            return self._extreme(call, entry, data, scale)
        assert scale is not None
        if entry.powers:
            return self._raised(call, scale)
        if entry.lower is not None or entry.upper is not None:
            limits = call.number(entry.lower), call.number(entry.upper)
            return self._limited(call, scale, *limits)
        if entry.fills:
            return self._filled(call, scale, [call.number(name) for name in entry.fills])
        if entry.slopes:
            return self._sloped(call, entry, scale)
        if entry.shrinks:
            return self._shrunk(call, scale, call.number(entry.shrinks))
        if scale.each:
            return None if not entry.elementwise else scale * step
        return scale * step

    def scaled(self, scale: Scale | None, factor: Any, divides: bool) -> Scale | None:
        """Behind a product with a constant; element by element, if it is a tensor."""
        if scale is None:
            return None
        if not isinstance(factor, fx.Node):
            number = float(factor) if isinstance(factor, int | float) else 0.0
            found = scale * Scale(1 / number if divides else number) if number else None
            return found if found and found.factor else None  # divided by inf, or an underflow
        if shape(factor) and max(shape(factor)) > 1:
            sizes = self._magnitudes(factor)
            if factor.meta["spec"].dtype == torch.bool:
                sizes = {1.0}
            if sizes is not None and len(sizes) == 1:
                (size,) = sizes
                return scale * Scale(1 / size if divides else size)
            return None if divides else scale * Scale(each=(factor,))
        return scale * (Scale(over=(factor,)) if divides else Scale(times=(factor,)))

    def multiplied(self, call: Call, x: fx.Node, factor: fx.Node) -> Scale | None:
        """Behind a product that pairs the axes of its two factors in a way of its own."""
        if self._roles[x].signal.scale is None:
            return None
        units = {x: self.node(x), factor: self._node(call.node, size_of, (factor,))}
        args, kwargs = map_arg((call.args, call.kwargs), lambda n: units.get(n, n))
        return Scale(each=(self._again(call.node, call.node, args, kwargs),))

    def chosen(self, call: Call, constants: list[Any]) -> Scale | None:
        """Where data choose among constants: each that is not zero is an event of its own worth."""
        found = [self._magnitudes(constant) for constant in constants]
        if any(magnitudes is None for magnitudes in found):
            return None
        sizes = {size for magnitudes in found if magnitudes for size in magnitudes}
        if len(sizes) == 1:
            return Scale(sizes.pop())
        return Scale(each=(self._node(call.node, torch.abs, (call.node,)),)) if sizes else None

    def constants(self, call: Call, entry: Operation) -> list[Any]:
        """What a call may put out that is no data: numbers, and tensors that depend on none."""
        names = dict.fromkeys((*entry.carries.split(), *entry.fills))
        given = [call.number(name) for name in names if name != "*"]
        numbers = [value for value in given if isinstance(value, int | float)]
        nodes = dict.fromkeys((*entry.carriers(call), *call.operands(*entry.fills)))
        nodes = nodes if entry.fills else dict.fromkeys(entry.carriers(call))
        return [*numbers, *(n for n in nodes if self._roles[n].signal.kind == "const")]

    def _moved(self, call: Call, entry: Operation, data: list[fx.Node]) -> Scale | None:
        """Elements go to other places as they are, constants perhaps beside them."""
        scale, constants = self.common(data), self.constants(call, entry)
        whole = scale is not None and not (scale.each and not _in_place(call, data))
        if whole and all(self._fits(constant, scale) for constant in constants):
            return scale
        if not call.name or any(self._roles[n].signal.scale is None for n in data):
            return None
        if entry.masks or entry.draws(call):
            return None

        ones = scale is not None and scale.fixed and abs(scale.factor) == 1
        size = size_of_part if ones else size_of

        def unit(node: fx.Node) -> Any:
            if node in data:
                return self.node(node)
            if node in constants:
                return self._node(call.node, size, (node,))
            if self._roles[node].signal.kind == "analog" and node in entry.carriers(call):
                return self._node(call.node, torch.ones_like, (node,))
            return node

        args, kwargs = map_arg((call.args, call.kwargs), unit)
        kwargs = {name: v for name, v in kwargs.items() if name not in ("out", "dtype")}
        origin = call.node if call.output is None else call.node.args[0]
        assert isinstance(origin, fx.Node)
        found = self._again(call.node, origin, args, kwargs)
        if call.output is not None:
            found = self._node(call.node, getitem, (found, call.output))
        return Scale(each=(self._node(call.node, torch.abs, (found,)),))  # numbers have signs

    def _extreme(
        self, call: Call, entry: Operation, data: list[fx.Node], scale: Scale | None
    ) -> Scale | None:
        """The larger or smaller of two: a constant among them is a limit."""
        pair = call["input"], call["other"]
        constants = [v for v in pair if v not in data]
        if constants and scale is not None:
            (limit,) = constants
            return self._limited(
                call, scale, *((limit, None) if entry.extreme > 0 else (None, limit))
            )
        if scale is not None and not scale.each:
            return scale
        if any(self._roles[n].signal.scale is None for n in data):
            return None
        args = (call.node, pair[1], self.node(pair[0]), self.node(pair[1]))
        return Scale(each=(self._node(call.node, unit_of_two, args),))

    def _limited(self, call: Call, scale: Scale, low: Any, high: Any) -> Scale | None:
        """Between two limits: where they are multiples of an event's worth, it stays what it is."""
        limits = [limit for limit in (low, high) if limit is not None]
        found = [self._magnitudes(limit) for limit in limits]
        if all(sizes == set() for sizes in found):  # zero is zero whatever an event is worth
            return scale
        known = scale.fixed and all(sizes is not None for sizes in found)
        sizes = {size for magnitudes in found if magnitudes for size in magnitudes}
        if known and all(_is_multiple(size, abs(scale.factor)) for size in sizes):
            return scale
        if known and len(limits) == 2 and len(sizes) == 1:
            (size,) = sizes
            spans = self._least(low) <= 0 <= self._most(high)
            if size < abs(scale.factor) * (1 - _CLOSE) and spans:
                return Scale(size)  # nothing passes as it is
        return self._filled(call, scale, limits, fit=False)

    def _filled(
        self, call: Call, scale: Scale, constants: list[Any], fit: bool = True
    ) -> Scale | None:
        """Constants stand in the place of some elements: those that are equal to them."""
        constants = [constant for constant in constants if constant is not None]
        if fit and all(self._fits(constant, scale) for constant in constants):
            return scale
        if not all(math.isfinite(c) for c in constants if isinstance(c, int | float)):
            constants = [c for c in constants if isinstance(c, fx.Node) or math.isfinite(c)]
        args = (call.node, self.node(call.node, scale), fit, *constants)
        return Scale(each=(self._node(call.node, unit_within, args),))

    def _sloped(self, call: Call, entry: Operation, scale: Scale) -> Scale | None:
        """Negative values are multiplied by a slope."""
        slopes = [call.number(slope) for slope in entry.slopes]
        if all(isinstance(slope, int | float) and abs(slope) in (0, 1) for slope in slopes):
            return scale
        if entry.draws(call):
            return None
        if all(isinstance(slope, int | float) for slope in slopes):
            slope = math.fsum(slopes) / len(slopes)
            if slope < 0:
                return None
            args: tuple[Any, ...] = (call.node, self.node(call.node, scale), slope)
        else:
            args = (call.x, self.node(call.node, scale), slopes[0])
        return Scale(each=(self._node(call.node, unit_below_zero, args),))

    def _shrunk(self, call: Call, scale: Scale, by: Any) -> Scale | None:
        """Values come closer to zero by a number: as many events, worth less."""
        if self._fits(by, scale) or (scale.fixed and _is_multiple(abs(by), abs(scale.factor))):
            return scale
        args = (call.x, call.node, self.node(call.node, scale))
        return Scale(each=(self._node(call.node, unit_of_rest, args),))

    def _raised(self, call: Call, scale: Scale) -> Scale | None:
        exponent = 2 if call.name == "square" else call.get("exponent")
        if scale == Scale():
            return scale
        if not scale.fixed or not isinstance(exponent, int | float):
            return None
        return Scale(abs(scale.factor) ** exponent)

    # -- constants -------------------------------------------------------------------------------

    def _values_of(self, constant: Any) -> Tensor | None:
        """The values of a constant that stays what it is."""
        if not isinstance(constant, fx.Node):
            return torch.tensor(float(constant), dtype=torch.float64)
        if not self._roles[constant].signal.fixed:
            return None
        value = self._values.constant(constant)
        return None if value is None or value.is_meta else value.detach().double()

    def _magnitudes(self, constant: Any) -> set[float] | None:
        """The sizes of its values that are neither zero nor infinite; None if they may change."""
        values = self._values_of(constant)
        if values is None:
            return None
        sizes = values.abs().unique()
        return set(sizes[(sizes != 0) & sizes.isfinite()].tolist())

    def _least(self, constant: Any) -> float:
        values = self._values_of(constant)
        assert values is not None
        return float(values.min())

    def _most(self, constant: Any) -> float:
        values = self._values_of(constant)
        assert values is not None
        return float(values.max())

    def _fits(self, constant: Any, scale: Scale | None) -> bool:
        """Whether a constant, put in the place of events, counts as they do."""
        sizes = self._magnitudes(constant)
        if not sizes:
            return sizes is not None
        if scale is None or not scale.fixed:
            return False
        worth = abs(scale.factor)
        if worth == 1:
            return all(size.is_integer() for size in sizes)
        return all(math.isclose(size, worth, rel_tol=_CLOSE) for size in sizes)

    # -- nodes -----------------------------------------------------------------------------------

    def node(self, node: fx.Node, scale: Scale | None = None) -> fx.Node:
        """A node of what one event is worth in each element of another; by default, of its own."""
        scale = scale or self._roles[node].signal.scale
        assert scale is not None
        args = (node, abs(scale.factor), (*scale.times, *scale.each), scale.over)
        return self._node(node, spread, args)

    def computed_from(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose values matter to what one event is worth."""
        first = node.target is spread  # only its shape matters
        return node.all_input_nodes[first:] if node.meta.get("unit") else []

    def _again(self, after: fx.Node, origin: fx.Node, args: Any, kwargs: Any) -> fx.Node:
        """A node that does a call of the model's once more, on other values, and writes to none."""
        if origin.meta.get("writes"):
            return self._node(after, on_copies, (origin.target, *args), kwargs)
        return self._node(after, origin.target, args, kwargs)

    def _node(
        self,
        after: fx.Node,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
    ) -> fx.Node:
        """A node behind another (and behind all of its arguments), for the count alone."""
        kwargs = kwargs or {}
        key = (after, target, repr((args, kwargs)))
        if key not in self._made:
            graph = after.graph
            last = after
            while last.next.meta.get("unit"):
                last = last.next
            with graph.inserting_after(last):
                node = graph.create_node("call_function", target, args, kwargs, "unit")
            node.meta |= {"unit": True, "site": after.meta["site"], "mode": after.meta["mode"]}
            self._made[key] = node
        return self._made[key]


def is_move(entry: Operation) -> bool:
    """Whether routing puts elements to other places as they are."""
    plain = entry.gain is once and entry.scale is unscaled and entry.shifts is never
    return entry.kind is Kind.ROUTING and plain and not (entry.merges or entry.factors)


def _in_place(call: Call, data: list[fx.Node]) -> bool:
    """Whether every element stays where it is."""
    return all(shape(node) == shape(call.node) for node in data) and call.name in _STAY


_STAY = frozenset("where masked_fill clone contiguous detach to".split())


def _is_multiple(size: float, worth: float) -> bool:
    return abs(size / worth - round(size / worth)) < _CLOSE * max(1.0, size / worth)


# -- what the nodes compute ------------------------------------------------------------------------


def spread(value: Tensor, factor: float, times: tuple[Any, ...], over: tuple[Any, ...]) -> Tensor:
    """What one event is worth in each element of ``value``."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    unit = torch.full_like(value, factor, dtype=dtype)
    for node in times:
        unit = unit * node.abs()
    for node in over:
        unit = unit / node.abs()
    return unit


def size_of(value: Tensor) -> Tensor:
    """The magnitude of a constant: it is one event."""
    return value.abs().to(torch.promote_types(value.dtype, torch.float32))


def size_of_part(value: Tensor) -> Tensor:
    """The same beside events of worth one: a whole number is as many of them."""
    size = size_of(value)
    return torch.where(size == size.round(), 1.0, size)


def on_copies(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function that writes to its arguments returns, if they are copies."""
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
    return function(*args, **kwargs)


def unit_within(value: Tensor, unit: Tensor, fills: bool, *constants: Any) -> Tensor:
    """Elements that are equal to a constant are one event of its worth.

    Unless it is a whole number of events: of any worth, if it is a limit to their number; of worth
    one, if it fills in for them.
    """
    own = unit
    for constant in constants:
        constant = torch.as_tensor(constant, dtype=value.dtype, device=value.device)
        events = constant / torch.where(unit == 0, torch.inf, unit)
        counts = (events - events.round()).abs() <= _CLOSE * events.abs().clamp(min=1)
        counts = counts & (unit == 1) if fills else counts
        here = (value == constant) & ~counts
        own = torch.where(here, constant.abs().to(unit), own)
    return own


def unit_of_two(value: Tensor, other: Tensor, unit: Tensor, unit_of_other: Tensor) -> Tensor:
    """Of two tensors, of which ``value`` holds one or the other."""
    return torch.where(value == other, unit_of_other, unit)


def unit_below_zero(value: Tensor, unit: Tensor, slope: Any) -> Tensor:
    """Values below zero were multiplied by a slope; of a tensor, along the channels."""
    if isinstance(slope, Tensor) and slope.numel() > 1:
        slope = slope.reshape(-1, *[1] * (value.dim() - 2))
    return torch.where(value < 0, unit * abs(slope), unit)


def unit_of_rest(before: Tensor, value: Tensor, unit: Tensor) -> Tensor:
    """As many events as before, of what is left of them."""
    return torch.where(value == 0, unit, unit * (value / before).abs())
