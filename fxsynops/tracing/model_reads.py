"""What Python reads from the model while its forward runs: the conditions of the trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from fxsynops.errors import TraceError
from fxsynops.tracing import graph_functions, interception
from fxsynops.tracing.borrowed import Borrowed
from fxsynops.tracing.graph_writer import GraphWriter
from fxsynops.tracing.places import MAX_OBJECT_DEPTH, Place
from fxsynops.tracing.tensors import Tensors
from fxsynops.tracing.torch_api import modules_of


class ModelReads:
    """Attributes that were read.

    Args:
        writer: of the graph.
        tensors: of the forward.
        borrowed: the model's state, borrowed for the run.
        inner: the modules that are kept whole, and all parts of them.

    Attributes:
        values: numbers that Python read out of the model's own tensors: how, where, and what.
    """

    def __init__(
        self, writer: GraphWriter, tensors: Tensors, borrowed: Borrowed, inner: set[nn.Module]
    ) -> None:
        self.values: list[tuple[Callable[..., Any], Place, Any]] = []
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
                after = (
                    n for m, n in self._tensors.last_call.items() if module in set(modules_of(m))
                )
                call = (place, *after)
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
        called = any(module in set(modules_of(m)) for m in self._tensors.last_call)
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
