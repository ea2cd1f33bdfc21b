"""What Python reads from the model while its forward runs: the conditions of the trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from fxsynops.errors import TraceError
from fxsynops.tracing import graph_functions, interception
from fxsynops.tracing.borrowed import Borrowed
from fxsynops.tracing.graph_walk import upstream
from fxsynops.tracing.graph_writer import GraphWriter
from fxsynops.tracing.places import MAX_OBJECT_DEPTH, Place
from fxsynops.tracing.tensors import Tensors


class ModelReads:
    """Attributes that were read.

    Args:
        writer: of the graph.
        tensors: of the forward.
        borrowed: the model's state, borrowed for the run.
        inner: the modules that are kept whole, and all parts of them.

    Attributes:
        values: numbers that Python read out of the model's own tensors: how, where, and what.
        decided: what comparisons of the model's own numbers have found.
        lent: where something stands in for a number or a list, and is not used yet.
    """

    def __init__(
        self, writer: GraphWriter, tensors: Tensors, borrowed: Borrowed, inner: set[nn.Module]
    ) -> None:
        self.values: list[tuple[Callable[..., Any], Place, Any]] = []
        self.decided: list[Decided] = []
        self.lent: dict[tuple[int, Any], Place] = {}
        self._writer, self._tensors, self._borrowed, self._inner = writer, tensors, borrowed, inner
        self._paths = {module: name for name, module in borrowed.modules.items()}
        self._attributes: dict[tuple[int, Any], Place] = {}

    def conditions(self) -> Iterator[Place]:
        """What Python read from the model: attributes, submodules, and the tensors of the graph."""
        for module, path in self._paths.items():
            if module.__dict__.get("_modules") and module not in self._inner:
                yield Place(module.__dict__, ("_modules",), path)
        yield from self._attributes.values()
        yield from self._tensors.reads.values()

    def decide(self, function: Callable[..., Any], operands: Any, result: Any) -> bool:
        """A comparison was made, of numbers in nodes; whether it is of the model's own alone."""
        decided = Decided(function, operands, result)
        if decided.known_ahead:
            self.decided.append(decided)
        return decided.known_ahead

    def use(self, place: Place) -> None:
        """What stands in for a value is used: the trace holds for this value alone."""
        self.lent.pop((id(place.root), place.path), None)
        self._attributes.setdefault((id(place.root), place.path), place)

    def note(self, module: nn.Module, name: str, value: Any) -> None:
        """Python has read ``module.name``: the trace holds only while it stays what it is."""
        if module not in self._paths:
            return
        if not isinstance(value, Tensor):
            self._note_plain(module, name, value)
        elif module not in self._inner:
            if name in module.__dict__:
                self._condition(module, name)
            self._tensors.known(value)
        if module in self._inner:
            where = _where(module, name, value)
            place = Place(module.__dict__, where, f"{self._paths[module]}.{name}")
            self._note_state(module, place, value)

    def _note_state(self, module: nn.Module, place: Place, value: Any) -> None:
        """What a module kept whole holds, as it is now: a tensor, or tensors in dicts and lists."""
        if isinstance(value, Tensor):
            if not self._tensors.known(value) and self._borrowed.is_settled(place, value):
                call = (place, *self._tensors.last_calls(module))
                virtual, self._writer.virtual = self._writer.virtual, False  # what is in it is real
                node = self._writer.node(
                    "call_function", graph_functions.read_state, call, {}, str(place.path[-1])
                )
                self._writer.virtual = virtual
                self._tensors.bind(value, node)
        elif isinstance(value, dict | list) and len(place.path) < MAX_OBJECT_DEPTH:
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                self._note_state(module, place.below(key), part)

    def _note_plain(self, module: nn.Module, name: str, value: Any) -> None:
        called = self._tensors.last_calls(module)
        if called and not self._writer.virtual and self._borrowed.differs(module, name, value):
            raise TraceError(
                f"'{self._paths[module]}.{name}' is read after a call that changes it "
                f"{self._writer.site()}; the recorded graph would repeat {value!r} forever. Read "
                "it before the call, or keep the module that reads it whole (spiking=[ItsType])."
            )
        if name in module.__dict__ or value is interception.MISSING:
            self._condition(module, name)
        elif (owner := _owner(type(module), name)) is not None:  # an attribute of a class
            self._condition(module, name)  # is not in the module itself
            held: Any = vars(owner)  # read only, but that is all
            place = Place(held, (name,), f"{owner.__name__}.{name}")
            self._attributes.setdefault((id(owner), (name,)), place)
        elif not hasattr(type(module), name):  # kept in a dict of the module's own
            for key, held in module.__dict__.items():
                if isinstance(held, dict) and key != "_modules" and name in held:
                    self._condition(module, key, name)
        if value is None or value is interception.MISSING:
            self._condition(module, "_buffers", name)

    def _condition(self, module: nn.Module, *path: str) -> None:
        name = ".".join(part for part in (self._paths[module], path[-1]) if part)
        self._attributes.setdefault((id(module), path), Place(module.__dict__, path, name))


@dataclass(frozen=True)
class Decided:
    """A comparison that is known before a forward begins.

    Attributes:
        function: that compares.
        operands: numbers, and nodes of such as are read from the model, or computed of these.
        result: what it has found.
    """

    function: Callable[..., Any]
    operands: tuple[Any, ...]
    result: Any

    @property
    def known_ahead(self) -> bool:
        """Whether it is of the model's own numbers alone, as they are before a forward."""
        read = {n.target for n in self._nodes() if not n.all_input_nodes}
        return read <= {graph_functions.read_attribute}

    @property
    def places(self) -> list[Place]:
        """Where these are."""
        read: list[Any] = [n for n in self._nodes() if n.target is graph_functions.read_attribute]
        return [node.args[0] for node in read]

    def holds(self) -> bool:
        """Whether it would find the same now."""
        return bool(self.function(*map(_value, self.operands)) == self.result)

    def _nodes(self) -> list[fx.Node]:
        return list(upstream([n for n in self.operands if isinstance(n, fx.Node)]))


def _value(operand: Any) -> Any:
    """A number, or what a node would compute now."""
    if not isinstance(operand, fx.Node):
        return operand
    function: Any = operand.target
    return function(*map(_value, operand.args))


def _where(module: nn.Module, name: str, value: Any) -> tuple[str, ...]:
    """The path to an attribute from a module's ``__dict__``: in it, or in a dict that it holds."""
    if name in module.__dict__:
        return (name,)
    for key, held in module.__dict__.items():
        if isinstance(held, dict) and held.get(name) is value:
            return key, name
    return "_buffers", name


def _owner(cls: type, name: str) -> type | None:
    """The class, not one of torch's, that has an attribute which others than forwards read."""
    base = next((base for base in cls.__mro__ if name in vars(base)), None)
    if base is None or name == "forward" or base.__module__.split(".")[0] == "torch":
        return None
    return base
