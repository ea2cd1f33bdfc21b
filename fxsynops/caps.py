"""What one step can bring at most: events per element, at every node of a recorded forward.

A source emits no more events per neuron and step than its own cap, or what the user says. What can
leave a merge or a gate follows by interval arithmetic: a sum adds up, a window multiplies by its
size, a maximum keeps the largest. No weights are looked at, and no values of the example.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import fx

from fxsynops.connect import Tap
from fxsynops.errors import InputError
from fxsynops.findings import Findings
from fxsynops.neurons import Neuron, describe
from fxsynops.operations.registry import Call, Kind, Scale
from fxsynops.signals import Role, origin_of
from fxsynops.state import has_hooks
from fxsynops.values import PRODUCTS

Interval = tuple[float, float]


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of inputs and neurons.

    Attributes:
        timesteps: length of the window.
        max_spikes: events per neuron and step, for all spiking nodes or by name; a neuron's own cap
            holds beside it.
        input_max_events: events per input element over the whole window; None: one per step.
        input_range: the least and the most that an analog input can be, for all or by name; None:
            anything.
    """

    timesteps: int
    max_spikes: float | dict[str, float] | None = None
    input_max_events: float | None = None
    input_range: Interval | dict[str, Interval] | None = None

    def __post_init__(self) -> None:
        steps = self.timesteps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"timesteps must be a positive whole number, not {steps!r}.")
        check_count("input_max_events", self.input_max_events)
        caps = self.max_spikes
        for cap in caps.values() if isinstance(caps, dict) else [caps]:
            check_count("max_spikes", cap)
        ranges = self.input_range
        for pair in ranges.values() if isinstance(ranges, dict) else [ranges]:
            if pair is not None and (len(pair) != 2 or not pair[0] <= pair[1]):
                raise InputError(f"input_range is (least, most), such as (0, 1), not {pair!r}.")

    def check(self, sources: set[str], analog: set[str]) -> None:
        """Everything that is named must be there.

        Raises:
            InputError: a name is none of the model's.
        """
        check_names("max_spikes", self.max_spikes, sources, "sources of this model")
        check_names("input_range", self.input_range, analog, "analog inputs of this model")

    def input_interval(self, name: str) -> Interval:
        """What an analog input can be."""
        ranges = self.input_range
        found = ranges.get(name) if isinstance(ranges, dict) else ranges
        return (-math.inf, math.inf) if found is None else (float(found[0]), float(found[1]))

    def words(self, analog: bool) -> tuple[str, ...]:
        """For the report."""
        said = [
            "at most one event per input element and step"
            if self.input_max_events is None
            else f"at most {self.input_max_events:g} events per input element"
        ]
        if isinstance(self.max_spikes, dict):
            said += [f"at most {cap:g} from '{name}'" for name, cap in self.max_spikes.items()]
        elif self.max_spikes is not None:
            said.append(f"at most {self.max_spikes:g} per neuron and step")
        if analog and self.input_range is None:
            said.append("analog inputs of any value (input_range= says what they can be)")
        elif isinstance(self.input_range, dict):
            said += [f"'{n}' in [{a:g}, {b:g}]" for n, (a, b) in self.input_range.items()]
        elif self.input_range is not None:
            said.append(f"analog inputs in [{self.input_range[0]:g}, {self.input_range[1]:g}]")
        return tuple(said)


def check_count(name: str, value: Any) -> None:
    """A number of events must be a number.

    Raises:
        InputError: it is none, or negative.
    """
    if value is not None and not (isinstance(value, int | float) and value >= 0):
        raise InputError(f"{name} must be a number and not negative, not {value!r}.")


def check_names(option: str, given: Any, known: set[str], what: str) -> None:
    """Everything that an option names must be there.

    Raises:
        InputError: a name is none of the model's.
    """
    if isinstance(given, dict) and (missing := set(given) - known):
        raise InputError(
            f"{option} names {sorted(missing)}, which are no {what}. There are {sorted(known)}."
        )


# Gates with a lower and an upper limit: position, name and default of each.
_LIMITS: dict[str, tuple[tuple[int, str, float | None], tuple[int, str, float | None]]] = {
    "clamp": ((1, "min", None), (2, "max", None)),
    "clip": ((1, "min", None), (2, "max", None)),
    "clamp_min": ((1, "min", None), (0, "", None)),
    "clamp_max": ((0, "", None), (1, "max", None)),
    "hardtanh": ((1, "min_val", -1.0), (2, "max_val", 1.0)),
    "relu": ((0, "", 0.0), (0, "", None)),
    "relu6": ((0, "", 0.0), (0, "", 6.0)),
}
_PICKS = ("where", "maximum", "minimum", "fmax", "fmin")
_PICKS_OF = ("input", "other")
# Gates that may fill in a value: its position and name.
_FILLS = {
    "masked_fill": (2, "value"),
    "index_fill": (3, "value"),
    "threshold": (2, "value"),
    "nan_to_num": (1, "nan"),
}


class Caps:
    """The most events per element and step, at every node."""

    def __init__(self, findings: Findings, assumptions: Assumptions) -> None:
        self._names = findings.connector.names
        self._constant = findings.connector.signals.constant
        self._spiking = findings.options.spiking
        given = assumptions.max_spikes
        self._given = given if isinstance(given, dict) else {}
        self._cap = None if isinstance(given, dict) else given
        most = assumptions.input_max_events
        self._input = 1.0 if most is None else float(most)
        self.ranges: dict[fx.Node, Interval] = {}
        for node, role in findings.connector.signals.roles.items():
            if role.signal.kind == "events":
                low, high = self._range(node, role)
                self.ranges[node] = (min(low, 0.0), max(high, 0.0))
        self._most = 1.0 if findings.options.events == "nonzero" else math.inf

    def at(self, tap: Tap) -> float:
        """The most events per element and step that a tap can measure."""
        if tap.product is None:
            return self._peak(tap.node)
        peaks = [self._peak(operand) for operand in tap.product.operands]
        return tap.product.contracted * math.prod(peaks) if all(peaks) else 0.0

    def _peak(self, node: fx.Node) -> float:
        low, high = self.ranges[node]
        return min(max(-low, high), self._most)

    def _range(self, node: fx.Node, role: Role) -> Interval:
        """The least and the most that an element can be, in events (interval arithmetic)."""
        if role.kind == "mask":
            return self._operand(role.call.x) if role.call else (0.0, 1.0)
        if role.kind == "source":
            most = self.source(node, role)
            return (-most if role.neuron is None or role.neuron.signed else 0.0), most
        call, operation = role.call, role.operation
        if operation is None or call is None:
            return -math.inf, math.inf  # a custom function behind a gate
        if operation.kind is Kind.THRESHOLD:
            most = role.neuron.max_spikes if role.neuron else math.inf
            return (-most if most != 1 else 0.0), most
        if role.product is not None:
            low, high = _multiplied([self.ranges[operand] for operand in role.carriers])
            return low * role.product.contracted, high * role.product.contracted
        if role.kind == "gate" and (call.name in PRODUCTS or operation.kind is Kind.PRODUCT):
            return _multiplied([self.ranges[carrier] for carrier in role.carriers])
        if operation.merges and role.kind == "routing":
            return self._merged(role, call)
        if (limited := self._limited(role, call)) is not None:
            return limited
        gain = operation.gain(call)
        low = min(self.ranges[carrier][0] for carrier in role.carriers)
        high = max(self.ranges[carrier][1] for carrier in role.carriers)
        most = max(-low, high)
        if call.name in ("abs", "absolute"):
            low, high = 0.0, most
        elif call.name in PRODUCTS or operation.scale(call) != Scale():
            low, high = -most, most  # a scale may be negative
        return low * gain if low else 0.0, high * gain if high else 0.0

    def _limited(self, role: Role, call: Call) -> Interval | None:
        """Of a gate that may put constants in the place of events; None for any other."""
        unit = role.signal.scale
        worth = unit.factor if unit and not unit.times and not unit.over else math.nan

        def interval(operand: Any, default: Interval) -> Interval:
            if operand is None:
                return default
            low, high = self._operand(operand)
            if not isinstance(operand, fx.Node) or operand not in self.ranges:
                low, high = sorted((low / worth, high / worth))  # a constant is a value
            return low, high

        below, above = (-math.inf, -math.inf), (math.inf, math.inf)
        names = _LIMITS.get(call.name)
        if names is not None:
            (a, b), limits = interval(call.arg(0, "input"), below), []
            for (position, name, default), none in zip(names, (below, above), strict=True):
                given = call.arg(position, name, default) if name else default
                limits.append(interval(given, none))
            (low0, low1), (high0, high1) = limits
            found = min(max(a, low0), high0), min(max(b, low1), high1)
        elif call.name in _PICKS:
            start = 1 if call.name == "where" else 0
            parts = [interval(call.arg(start + i, n), below) for i, n in enumerate(_PICKS_OF)]
            found = min(a for a, _ in parts), max(b for _, b in parts)
        elif call.name in _FILLS:
            position, name = _FILLS[call.name]
            parts = [interval(call.x, below), interval(call.arg(position, name, 0.0), below)]
            found = min(a for a, _ in parts), max(b for _, b in parts)
        elif call.name in ("prelu", "leaky_relu", "rrelu"):
            low, high = self.ranges[call.x]
            slopes = [self._operand(n) for n in (*call.args[1:], *call.kwargs.values())] or [(0, 1)]
            steepest = max(abs(end) for pair in slopes for end in pair)
            found = (low * max(steepest, 1.0) if low else 0.0), max(high, -low * steepest)
        else:
            return None
        return (-math.inf, math.inf) if any(map(math.isnan, found)) else found

    def _merged(self, role: Role, call: Call) -> Interval:
        """A sum or difference of events and constants."""
        signs = {"sub": [1, -1], "subtract": [1, -1], "rsub": [-1, 1]}.get(call.name, [1, 1])
        low = high = 0.0
        for operand, sign in zip(call.args, signs, strict=False):
            a, b = self._operand(operand)
            low += a if sign > 0 else -b
            high += b if sign > 0 else -a
        if call.name not in ("add", "sub", "subtract", "rsub") or call.kwargs:
            parts = [self.ranges[carrier] for carrier in role.carriers]
            gain = (role.operation.gain(call) if role.operation else 1.0) or 1.0
            most = math.fsum(max(-a, b) for a, b in parts) * gain
            return -most, most
        return low, high

    def _operand(self, operand: object) -> Interval:
        if isinstance(operand, fx.Node):
            known = self.ranges.get(operand)
            if known is not None:
                return known
            value = self._constant(operand)
            if value is None or value.is_meta or not value.numel():
                return -math.inf, math.inf
            return float(value.min()), float(value.max())
        number = float(operand) if isinstance(operand, int | float) else 0.0
        return number, number

    def neuron(self, role: Role) -> Neuron | None:
        """What is known of a source, as its module is now."""
        return role.neuron if role.module is None else describe(role.module, self._spiking)

    def source(self, node: fx.Node, role: Role) -> float:
        """Events per neuron and step of a source."""
        name = self._names[node]
        if origin_of(node)[0].op == "placeholder":
            return self._input
        if role.module is not None and has_hooks(role.module):
            return self._given.get(name, math.inf)  # they may make something else of its output
        neuron = self.neuron(role)
        own = neuron.max_spikes if neuron else math.inf
        if name in self._given:
            return self._given[name]
        return own if self._cap is None else min(own, self._cap)


def _multiplied(parts: list[Interval]) -> Interval:
    """The interval of a product."""
    low, high = parts[0]
    for a, b in parts[1:]:
        corners = [x * y if x and y else 0.0 for x in (low, high) for y in (a, b)]
        low, high = min(corners), max(corners)
    return low, high
