"""What one step can bring at most: events per element, at every node of a recorded forward.

A source emits no more events per neuron and step than its own cap, or what the user says. What can
leave a merge or a gate follows by interval arithmetic: a sum adds up, a window multiplies by its
size, a maximum keeps the largest. No weights are looked at, and no values of the example.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.connect import Tap
from fxsynops.connectivity.results import Findings
from fxsynops.connectivity.signals import Role
from fxsynops.errors import InputError
from fxsynops.neurons import Chosen, Neuron, describe, registered
from fxsynops.neurons.registry import is_librarys, is_patched
from fxsynops.operations import Call, Kind, Operation
from fxsynops.operations.operation import Scale
from fxsynops.operations.products import Product
from fxsynops.tracing.hooks import has_hooks

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
            else f"at most {self.input_max_events:g} events per input element over all steps"
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


class Caps:
    """The most events per element and step, at every node."""

    def __init__(self, findings: Findings, assumptions: Assumptions) -> None:
        self._names = findings.connector.names
        self._roles = findings.connector.signals.roles
        self._constant = findings.connector.signals.constant
        self._spiking = Chosen.of(findings.model, findings.options.spiking)
        given = assumptions.max_spikes
        self._given = given if isinstance(given, dict) else {}
        self._cap = None if isinstance(given, dict) else given
        most = assumptions.input_max_events
        self._input = 1.0 if most is None else float(most)
        self.ranges: dict[fx.Node, Interval] = {}
        for node, role in findings.connector.signals.roles.items():
            if role.signal.kind == "events":
                low, high = _wrapped(node, self._range(node, role))
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
        return min(max(0.0, -low, high), self._most)  # none: 0.0, and not -0.0

    def _range(self, node: fx.Node, role: Role) -> Interval:
        """The least and the most that an element can be, in events (interval arithmetic)."""
        if role.kind == "mask":
            return self._operand(role.call.x) if role.call else (0.0, 1.0)
        if role.kind == "source":
            most = self.source(node, role)
            return (-most if self.signed(role) else 0.0), most
        call, operation = role.call, role.operation
        if operation is None or call is None:
            return -math.inf, math.inf  # a custom function behind a gate
        if operation.kind is Kind.THRESHOLD:
            most = role.neuron.max_spikes if role.neuron else math.inf
            return (-most if most != 1 else 0.0), most
        if role.product is not None:
            low, high = _multiplied([self.ranges[operand] for operand in role.carriers])
            terms, (less, more) = role.product.contracted, self._added(role, role.product, call)
            return _times(low, terms) + less, _times(high, terms) + more
        if role.kind == "gate" and (operation.factors or operation.kind is Kind.PRODUCT):
            return _multiplied([self.ranges[carrier] for carrier in role.carriers])
        if operation.merges:  # measured there, if it is a gate
            own = role.neuron.max_spikes if role.neuron else math.inf
            return (0.0, own) if own < math.inf else self._merged(role, call, operation)
        if (limited := self._limited(role, call, operation)) is not None:
            return limited
        gain = operation.gain(call)
        low, high = _hull(self.ranges[carrier] for carrier in role.carriers)
        if (beside := self._joined(role, call, operation)) is not None:
            low, high = _hull(((low, high), beside))
        most = max(-low, high)
        if operation.factors or operation.scale(call) != Scale():
            low, high = -most, most  # a scale may be negative
        return low * gain if low else 0.0, high * gain if high else 0.0

    # -- constants in the place of events: reckoned in values, not in numbers of events ----------

    def _value(self, operand: Any) -> Interval:
        """What an operand's values can be."""
        low, high = self._operand(operand)
        if isinstance(operand, fx.Node) and operand in self.ranges:
            worth = _worth(self._roles[operand])
            low, high = sorted((_times(low, worth), _times(high, worth)))
        return low, high

    def _events(self, role: Role, value: Interval) -> Interval:
        """How many events of a role these values are."""
        worth = _worth(role)
        if not math.isfinite(worth):
            return (0.0, 0.0) if value == (0.0, 0.0) else (-math.inf, math.inf)
        low, high = sorted((value[0] / worth, value[1] / worth))
        return _rounded(low), _rounded(high)

    def _limited(self, role: Role, call: Call, operation: Operation) -> Interval | None:
        """Of a gate that may put constants in the place of events; None for any other."""
        low, high = self._value(call.x) if operation.slopes else (0.0, 0.0)
        if operation.slopes:
            slopes = [self._operand(call.number(slope)) for slope in operation.slopes]
            steep = [end for pair in slopes for end in pair]
            ends = [_times(min(low, 0.0), end) for end in steep]
            found = min(max(low, 0.0), *ends), max(high, 0.0, *ends)
        elif operation.lower is not None or operation.upper is not None:
            low, high = self._value(call.x)
            least, most = call.number(operation.lower), call.number(operation.upper)
            low0, low1 = (-math.inf, -math.inf) if least is None else self._value(least)
            high0, high1 = (math.inf, math.inf) if most is None else self._value(most)
            found = min(max(low, low0), high0), min(max(high, low1), high1)
        elif operation.fills:
            values = [call.get(name) for name in operation.fills]
            carried = [n for n in operation.carriers(call) if n not in values]  # constants, too
            found = _hull(self._value(value) for value in (*values, *carried))
        else:
            return None
        return self._events(role, found)

    def _joined(self, role: Role, call: Call, operation: Operation) -> Interval | None:
        """Constants that routing or a write puts beside events; None if there are none."""
        if not (operation.joins or operation.overwrites):
            return None
        operands: list[Any] = list(operation.carriers(call))
        numbers = [call.get(name) for name in operation.carries.split()]
        operands += [value for value in numbers if isinstance(value, int | float)]
        constants = [n for n in operands if not isinstance(n, fx.Node) or n not in self.ranges]
        if not constants:
            return None
        return self._events(role, _hull(self._value(n) for n in constants))

    def _added(self, role: Role, product: Product, call: Call) -> Interval:
        """What is added to a product of events (``addmm``)."""
        beta = call.get("beta", 1)
        low, high = sorted(_times(end, beta) for end in self._value(product.added))
        return self._events(role, (low, high))

    def _merged(self, role: Role, call: Call, operation: Operation) -> Interval:
        """A sum of events and constants."""
        terms = operation.terms(call) if operation.terms else []
        if not terms or any(abs(factor) != 1 for factor, _ in terms):
            parts = [self.ranges[carrier] for carrier in role.carriers]
            gain = max((abs(factor) for factor, _ in terms), default=operation.gain(call))
            most = math.fsum(max(-a, b) for a, b in parts) * gain
            return -most, most
        pairs = [(factor, self._term(role, operand)) for factor, operand in terms]
        low = sum(a if factor > 0 else -b for factor, (a, b) in pairs)
        return low, sum(b if factor > 0 else -a for factor, (a, b) in pairs)

    def _term(self, role: Role, operand: object) -> Interval:
        """A term of a sum, in events: constants are values, which one event is worth some of."""
        if isinstance(operand, fx.Node) and operand in self.ranges:
            return self.ranges[operand]
        low, high = self._operand(operand)
        return (0.0, 0.0) if low == high == 0 else self._events(role, (low, high))

    def _operand(self, operand: object) -> Interval:
        if isinstance(operand, fx.Node):
            known = self.ranges.get(operand)
            if known is not None:
                return known
            value = self._constant(operand)
            if value is None or value.is_meta:
                return -math.inf, math.inf
            if not value.numel():
                return 0.0, 0.0
            return float(value.min()), float(value.max())
        number = float(operand) if isinstance(operand, int | float) else 0.0
        return number, number

    def neuron(self, role: Role) -> Neuron | None:
        """What is known of a source, as its module is now."""
        return role.neuron if role.module is None else describe(role.module, self._spiking)

    def signed(self, role: Role) -> bool:
        """Whether a source's events may be negative, as its module is now."""
        neuron = self.neuron(role)
        if neuron is None or neuron.may_be_negative(role.module):
            return True
        return role.module is not None and not _is_itself(role.module, neuron)

    def source(self, node: fx.Node, role: Role) -> float:
        """Events per neuron and step of a source."""
        name = self._names[node]
        if origin_of(node)[0].op == "placeholder":
            return self._input
        neuron = self.neuron(role)
        own = neuron.max_spikes if neuron else math.inf
        if role.module is not None and not _is_itself(role.module, neuron):
            own = math.inf
        said = self._given.get(name, self._cap)
        return own if said is None else min(own, said)


def _is_itself(module: nn.Module, neuron: Neuron | None) -> bool:
    """Whether a module's output is what its library (or its user) says of it."""
    if has_hooks(module) or is_patched(module):
        return False
    if registered(type(module)) is not None:
        return True
    if neuron is not None and neuron.checked is not None and not neuron.checked(module):
        return False
    return is_librarys(type(module).forward)


def _worth(role: Role) -> float:
    """The value of one event; not a number if it differs, or can be trained."""
    scale = role.signal.scale
    return scale.factor if scale and scale.fixed else math.nan


def _rounded(events: float) -> float:
    """A whole number, if it is one but for rounding."""
    if not math.isfinite(events):
        return events
    near = round(events)
    return float(near) if abs(events - near) <= 1e-9 * max(1.0, abs(events)) else events


def _times(a: float, b: float) -> float:
    """A · b, where nothing times anything is nothing, and what is not known is endless."""
    if a == 0 or b == 0:
        return 0.0
    return math.copysign(math.inf, a) if math.isnan(b) else a * b


def _hull(parts: Iterable[Interval]) -> Interval:
    """The interval around some intervals."""
    lows, highs = zip(*parts, strict=True)
    return min(lows), max(highs)


def _wrapped(node: fx.Node, interval: Interval) -> Interval:
    """Whole numbers of a narrow dtype wrap around."""
    dtype = node.meta["spec"].dtype
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        return interval
    limits = torch.iinfo(dtype)
    low, high = interval
    if (low >= limits.min and high <= limits.max) or math.isinf(high):
        return interval
    return float(limits.min), float(limits.max)


def _multiplied(parts: list[Interval]) -> Interval:
    """The interval of a product."""
    low, high = parts[0]
    for a, b in parts[1:]:
        corners = [x * y if x and y else 0.0 for x in (low, high) for y in (a, b)]
        low, high = min(corners), max(corners)
    return low, high
