"""Chips, and what a network must keep to: ``chips.toml`` beside this file; users add their own."""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any

from fxsynops.cost.named import hint, spelled
from fxsynops.errors import InputError
from fxsynops.reporting.files import read_toml


@dataclass(frozen=True)
class EventCosts:
    """What a core takes for neurons and events, in nanoseconds and picojoules.

    Attributes:
        source: where the figures are from.
        neuron_ns, neuron_pj: every neuron in every step.
        update_ns, update_pj: more, if it is active.
        spike_ns, spike_pj: more, if it fires.
        message_out_ns: of a spike to one of the cores that it goes to.
        message_in_ns: of a message at the core that it comes to.
        message_pj: of both.
        synapse_ns, synapse_pj: of a synaptic event.
        cores_per_tile: cores that share a router.
        barrier_ns: how long it takes until all are done with a step, by the number of tiles from
            which on that holds.
    """

    source: str
    neuron_ns: float = 0.0
    update_ns: float = 0.0
    spike_ns: float = 0.0
    message_out_ns: float = 0.0
    message_in_ns: float = 0.0
    synapse_ns: float = 0.0
    neuron_pj: float = 0.0
    update_pj: float = 0.0
    spike_pj: float = 0.0
    message_pj: float = 0.0
    synapse_pj: float = 0.0
    cores_per_tile: int = 1
    barrier_ns: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name in ("source", "barrier_ns"):
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise InputError(f"{entry.name} must be a number and not negative, not {value!r}.")
        if not isinstance(self.cores_per_tile, int) or self.cores_per_tile < 1:
            raise InputError(f"cores_per_tile is a whole number, not {self.cores_per_tile!r}.")
        pairs = self.barrier_ns
        if not isinstance(pairs, tuple | list) or not all(
            isinstance(pair, tuple | list)
            and len(pair) == 2
            and all(isinstance(n, int | float) for n in pair)
            for pair in pairs
        ):
            raise InputError(f"barrier_ns is a list of pairs (tiles, nanoseconds), not {pairs!r}.")
        object.__setattr__(self, "barrier_ns", tuple((int(n), float(ns)) for n, ns in pairs))

    def barrier(self, cores: int) -> float:
        """Nanoseconds until so many cores have all ended a step."""
        tiles = -(-cores // self.cores_per_tile)
        return max((ns for at_least, ns in self.barrier_ns if at_least <= tiles), default=0.0)


@dataclass(frozen=True)
class Chip:
    """What a chip can hold. What is None is not limited, or not known.

    Attributes:
        name: by which it is asked for.
        title: for tables.
        source: where the figures are from.
        kernel_memory, neuron_memory, bias_memory: words of each core; each layer takes one core.
        cores: how many alike there are; each layer takes as many as it needs.
        neurons_per_core: neurons.
        synapse_bits_per_core: memory for synapses.
        in_axons_per_core: neurons whose spikes come to a core.
        out_axons_per_core: pairs of a neuron in a core and a core that its spikes go to.
        weight_bits: of a synapse.
        kernel: the largest, per side.
        square: whether kernels and pools must be.
        strides, pools: those that there are.
        padding, groups, dilation, channels: the most.
        input_size, output_size: the most per side, of the network's input and a layer's neurons.
        destinations: layers that one layer feeds.
        no_leak: whether neurons must integrate without a leak.
        no_bias: whether synapses have none.
        dense_layers: whether there are only linear layers and recurrence.
        inputs, hidden, outputs: inputs and neurons of the network.
        max_fan_out: of a neuron, to hidden ones.
        hidden_weights: synapses between hidden neurons.
        input_projection, output_projection: hidden neurons that inputs reach, and outputs read.
        cost: what events cost on it.

    Raises:
        InputError: a limit makes no sense.
    """

    name: str
    title: str = ""
    source: str = "no source given"
    kernel_memory: tuple[int, ...] = ()
    neuron_memory: tuple[int, ...] = ()
    bias_memory: tuple[int, ...] = ()
    cores: int | None = None
    neurons_per_core: int | None = None
    synapse_bits_per_core: int | None = None
    in_axons_per_core: int | None = None
    out_axons_per_core: int | None = None
    weight_bits: int = 8
    kernel: int | None = None
    square: bool = False
    strides: tuple[int, ...] = ()
    pools: tuple[int, ...] = ()
    padding: int | None = None
    groups: int | None = None
    dilation: int | None = None
    channels: int | None = None
    input_size: int | None = None
    output_size: int | None = None
    destinations: int | None = None
    no_leak: bool = False
    no_bias: bool = False
    dense_layers: bool = False
    inputs: int | None = None
    hidden: int | None = None
    outputs: int | None = None
    max_fan_out: int | None = None
    hidden_weights: int | None = None
    input_projection: int | None = None
    output_projection: int | None = None
    cost: EventCosts | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for key in ("name", "source"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key).strip():
                raise InputError(f"the {key} of a chip is a text, not {getattr(self, key)!r}.")
        if not self.title:
            object.__setattr__(self, "title", self.name)
        for entry in fields(self):
            if entry.name not in ("name", "title", "source", "cost"):
                object.__setattr__(self, entry.name, self._checked(entry))
        if self.cost is not None and not isinstance(self.cost, EventCosts):
            raise InputError(f"the cost of '{self.name}' is an EventCosts, not {self.cost!r}.")
        sizes = {len(self.kernel_memory), len(self.neuron_memory), len(self.bias_memory)}
        if len(sizes) > 1:
            raise InputError(
                f"the cores of '{self.name}' need kernel_memory, neuron_memory and bias_memory, "
                "each of them one number per core."
            )
        if self.has_alike_cores and self.kernel_memory:
            raise InputError(f"'{self.name}' has alike cores, and some with memories of their own.")
        limits = [e for e in fields(self) if e.name not in ("name", "title", "source", "cost")]
        if all(getattr(self, e.name) == e.default for e in limits):
            raise InputError(f"'{self.name}' has no limit, so that everything would fit it.")

    def _checked(self, entry: Field[Any]) -> Any:
        """The value of a limit: whole numbers, or whether something holds."""
        value, kind = getattr(self, entry.name), str(entry.type)
        if kind == "bool":
            if not isinstance(value, bool):
                raise InputError(f"{entry.name} of '{self.name}' is true or false, not {value!r}.")
            return value
        several = kind.startswith("tuple")
        if several != isinstance(value, tuple | list) and value is not None:
            one = "a list of whole numbers" if several else "one whole number"
            raise InputError(f"{entry.name} of '{self.name}' is {one}, not {value!r}.")
        numbers = tuple(value) if several else (value,)
        least = 0 if several or entry.name in _MAY_BE_ZERO else 1
        for number in numbers:
            whole = isinstance(number, Integral) and not isinstance(number, bool)
            if number is not None and (not whole or number < least):
                raise InputError(
                    f"{entry.name} of '{self.name}' must be of whole numbers and at least {least}, "
                    f"not {value!r}."
                )
        return tuple(map(int, numbers)) if several else None if value is None else int(value)

    @property
    def has_alike_cores(self) -> bool:
        """Whether each layer takes as many cores as it needs."""
        limits = (self.cores, self.neurons_per_core, self.synapse_bits_per_core)
        axons = (self.in_axons_per_core, self.out_axons_per_core)
        return any(limit is not None for limit in (*limits, *axons))

    @property
    def one_layer_per_core(self) -> bool:
        """Whether each layer takes one core."""
        return bool(self.kernel_memory)

    @classmethod
    def load(cls, path: str | Path) -> tuple[Chip, ...]:
        """Read chips from a TOML file: a table each, with the attributes above.

        ``same_as = "speck2f"`` takes over what another chip of the file, or of this package, has.

        Raises:
            InputError: the file cannot be read, or holds something else.
        """
        content = read_toml(path, "the file of chips")
        if not content:
            raise InputError(f"'{path}' holds no chip: it needs a table [name] with its limits.")
        return tuple(cls._from_table(name, content, path) for name in content)

    @classmethod
    def _from_table(cls, name: str, content: dict[str, Any], path: str | Path) -> Chip:
        held = _completed(name, content, path)
        known = [entry.name for entry in fields(cls) if entry.name != "name"]
        for key in held:
            if key not in known:
                near = hint(key, known, quote="")
                raise InputError(
                    f"the chip '{name}' in '{path}' has '{key}', which is none of "
                    f"{', '.join(known)}.{near}"
                )
        cost = held.pop("cost", None)
        return cls(name, **held, cost=None if cost is None else _costs(name, cost, path))


def _completed(
    name: str, content: dict[str, Any], path: str | Path, seen: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A table, with what it takes over from another one."""
    held = content[name]
    if not isinstance(held, dict):
        raise InputError(f"'{name}' in '{path}' stands outside of a chip: put it into a table.")
    if "same_as" not in held:
        return dict(held)
    other = held["same_as"]
    if not isinstance(other, str) or other in (*seen, name):
        raise InputError(f"'{name}' in '{path}' is the same as {other!r}, which leads nowhere.")
    built_in = {} if path == _FILE else read_toml(_FILE, "the file of chips")
    if other in content:
        base = _completed(other, content, path, (*seen, name))
    elif (known := spelled(other, built_in)) is not None:
        base = _completed(known, built_in, _FILE)
    else:
        raise InputError(f"'{name}' in '{path}' is the same as '{other}', which there is not.")
    both = base | {key: value for key, value in held.items() if key != "same_as"}
    if isinstance(base.get("cost"), dict) and isinstance(held.get("cost"), dict):
        both["cost"] = base["cost"] | held["cost"]
    return both


def _costs(name: str, held: Any, path: str | Path) -> EventCosts:
    known = {entry.name for entry in fields(EventCosts)}
    if not isinstance(held, dict):
        raise InputError(f"the cost of '{name}' in '{path}' is a table, not {held!r}.")
    if unknown := set(held) - known:
        raise InputError(
            f"the cost of '{name}' in '{path}' has {sorted(unknown)}, none of {sorted(known)}."
        )
    said: dict[str, Any] = {"source": "no source given"} | held
    return EventCosts(**said)


_MAY_BE_ZERO = ("padding", "max_fan_out", "hidden_weights")  # and what no layer has is no layer's
_FILE = Path(__file__).with_name("chips.toml")


@lru_cache(maxsize=1)
def chips() -> dict[str, Chip]:
    """The chips of this package, by name."""
    return {one.name: one for one in Chip.load(_FILE)}


def chip(name: str | Chip) -> Chip:
    """A chip by its name; case, spaces, dashes and underscores do not matter.

    Args:
        name: one of :func:`chips`; a :class:`Chip` is returned as it is.

    Raises:
        InputError: there is no such chip.

    Example:
        >>> from fxsynops.chips import chip
        >>> chip("Speck 2f").kernel_memory[0]
        16384
    """
    if isinstance(name, Chip):
        return name
    if (known := spelled(name, chips())) is not None:
        return chips()[known]
    raise InputError(
        f"there is no chip {name!r}; there are {', '.join(map(repr, chips()))}."
        f"{hint(name, chips())} Your own is a fxsynops.chips.Chip(name, …), "
        "or several from a TOML file: Chip.load(path)."
    )
