"""What a model's code reads beside the model: globals, closures, defaults, attributes of classes.

Nobody can watch these reads, but the code says which names it reads. A trace holds while they stay
as they are; a forward that changes them does what no replay would do again.
"""

from __future__ import annotations

import dis
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fxsynops.errors import TraceError
from fxsynops.tracing.containers import content_of, has_state, restore
from fxsynops.tracing.node_meta import HERE, TORCH
from fxsynops.tracing.places import (
    ATOMS,
    MAX_OBJECT_DEPTH,
    Attributes,
    Place,
    attributes_of,
    fingerprint,
    is_plain_object,
)

_STANDARD = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))
_INSTALLED = ("site-packages", "dist-packages")
_LONGEST = 1000  # entries of a container that are compared one by one
SHALLOW = MAX_OBJECT_DEPTH - 1  # of an object outside, only its own attributes are compared
# Instructions between a global and an attribute of it; the last two come before ``+=``.
_BETWEEN = frozenset("CACHE PRECALL PUSH_NULL EXTENDED_ARG COPY DUP_TOP".split())
_FUNCTIONS = (FunctionType, partial, MethodType, staticmethod, classmethod)
_UNTRUSTED = frozenset(["random", "numpy.random"])  # modules that draw random numbers


class Surroundings:
    """Names that the code of some modules reads.

    Args:
        modules: those whose forwards are recorded, and not executed again in a replay.

    Attributes:
        draws: whether the code mentions random numbers that are not torch's.
        asks_types: whether it calls ``type``, so that nothing can stand in for anything.
        scripted: the functions of TorchScript that it names.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.draws = self.asks_types = False
        self.scripted: list[Any] = []
        self._places: dict[tuple[int, Any], Place] = {}
        self._walked: set[int] = set()
        self._names: dict[type, set[str]] = {}  # of what the user's classes hold
        for module in modules:
            for cls in type(module).__mro__:
                self._walk_class(cls)
            for value in module.__dict__.values():
                if isinstance(value, dict | list | tuple) or (
                    callable(value) and not isinstance(value, nn.Module)
                ):
                    self._walk(value)
        self._before = [
            (place, self._now(place), _content(place)) for place in self._places.values()
        ]

    def places(self) -> list[Place]:
        """Where the values are that the code reads."""
        return list(self._places.values())

    def check(self) -> None:
        """Nothing of it may have changed; what has is put back.

        Raises:
            TraceError: something has.
        """
        if changed := self.put_back():
            names = ", ".join(sorted(f"'{name}'" for name in changed))
            raise TraceError(
                f"the forward changes {names}, which is outside of the model, and a replay would "
                "not. Keep what it writes to in attributes of the model, or do it outside of the "
                "forward (if it happens at the first call only, run the model once)."
            )

    def put_back(self) -> set[str]:
        """Make everything what it was; the names of what was not."""
        changed = [entry for entry in self._before if self._now(entry[0]) != entry[1]]
        for place, _, (value, contents) in changed:
            for container, content in contents:
                restore(container, content)
            place.set(value)
        names = {place.name for place, *_ in changed}
        for cls, before in self._names.items():
            for name in [n for n in set(vars(cls)) - before if n[:2] != "__"]:
                delattr(cls, name)
                names.add(f"{cls.__name__}.{name}")
        return names

    @staticmethod
    def _now(place: Place) -> Any:
        try:
            value = place.get()
        except LookupError:
            return None  # it is gone
        states = [content_of(part) for part in _opaque(value, 0)]
        return fingerprint(value, SHALLOW, identical=True), states

    # -- the walk --------------------------------------------------------------------------------

    def _walk_class(self, cls: type) -> None:
        """All functions that a user's class defines."""
        if not _is_users(cls) or id(cls) in self._walked:
            return
        self._walked.add(id(cls))
        own = not _is_installed(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")
        if own:
            self._names[cls] = set(vars(cls))
        for name, value in list(vars(cls).items()):
            if name != "__init__":
                self._walk(value)
            if own and name[:2] != "__" and isinstance(value, ATOMS):
                self._note_attribute(cls, (name,))

    def _walk(self, value: Any) -> None:
        """What a function reads, and what it calls."""
        owner = getattr(value, "__self__", None)
        if isinstance(owner, type) and issubclass(owner, torch.autograd.Function):
            value = owner  # its apply
        while isinstance(value, partial | MethodType | staticmethod | classmethod):
            value = value.func if isinstance(value, partial) else value.__func__
        if isinstance(value, torch.jit.ScriptFunction):
            self.scripted.append(value)
        if isinstance(value, dict | list | tuple) and len(value) <= _LONGEST:
            for part in value.values() if isinstance(value, dict) else value:
                if isinstance(part, torch.jit.ScriptFunction):
                    self.scripted.append(part)
            return
        if isinstance(value, type):  # defined inside of another one
            self._walk_class(value)
        if isinstance(value, property):
            for function in (value.fget, value.fset):
                self._walk(function)
            return
        if is_plain_object(value):
            self._walk_class(type(value))
        if not isinstance(value, FunctionType) or id(value) in self._walked:
            return
        self._walked.add(id(value))
        if hasattr(value, "__wrapped__"):
            self._walk(value.__wrapped__)
        if not _is_users(value):
            return
        name, installed = value.__module__, _is_installed(value.__code__.co_filename)
        for chain in _chains(value.__code__):
            self.asks_types |= chain[0] == "type"
            if chain[0] in value.__globals__:
                place = Place(value.__globals__, chain[:1], f"{name}.{chain[0]}")
                if not installed:
                    self._note(place, chain[1:])
                elif isinstance(place.get(), ATOMS):
                    self._places.setdefault((id(place.root), chain[0]), place)
        if installed:  # a library's own: settings are looked at, not all that they lead to
            return
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
        for variable, cell in cells:
            root = Attributes(cell, ("cell_contents",))
            held = f"{value.__qualname__}.{variable}"
            self._note(Place(root, ("cell_contents",), held), (), key=id(cell))
        if value.__defaults__ and any(isinstance(v, list | dict) for v in value.__defaults__):
            root = Attributes(value, ("__defaults__",))
            self._note(Place(root, ("__defaults__",), f"{value.__qualname__}'s defaults"), ())

    def _note(self, place: Place, chain: tuple[str, ...], key: int | None = None) -> None:
        """A name that stands for something, and the attributes of it that are read."""
        try:
            value = place.get()
        except LookupError:
            return
        known = (id(place.root) if key is None else key, place.path[-1])
        if isinstance(value, ModuleType):
            self._note_module(value, chain)
        elif isinstance(value, type):
            self._note_class(value, chain)
        elif isinstance(value, _FUNCTIONS):
            if _is_users(getattr(value, "__func__", value)):
                self._places.setdefault(known, place)
                if isinstance(value, FunctionType) and not _is_installed(
                    value.__code__.co_filename
                ):
                    held = {"": value.__dict__}
                    kept = Place(held, ("",), f"{value.__qualname__}'s attributes")
                    self._places.setdefault((id(value), "__dict__"), kept)
            self._note_draws(value)
            self._walk(value)
        elif isinstance(value, torch.jit.ScriptFunction):
            self._walk(value)
        elif isinstance(value, nn.Module) or (callable(value) and not is_plain_object(value)):
            self._note_draws(value)
            self._walk(value)
        elif _is_comparable(value):
            self._places.setdefault(known, place)
            if isinstance(value, dict | list | tuple):
                self._walk(value)
            if is_plain_object(value):
                self._walk_class(type(value))

    def _note_module(self, module: ModuleType, chain: tuple[str, ...]) -> None:
        self.draws |= module.__name__ in _UNTRUSTED
        if module.__name__ == "os" and chain[:1] == ("environ",):
            self._note(Place(vars(module), chain[:1], "os.environ"), ())
        file = getattr(module, "__file__", None) or ""
        if chain and file and not file.startswith((TORCH, HERE, *_STANDARD[:1])):
            self._note(Place(vars(module), chain[:1], f"{module.__name__}.{chain[0]}"), chain[1:])
        elif chain and isinstance(held := vars(module).get(chain[0]), ModuleType):
            self._note_module(held, chain[1:])
        elif _is_installed(file) and chain[:1] == ("random",):
            self.draws = True

    def _note_class(self, cls: type, chain: tuple[str, ...]) -> None:
        if issubclass(cls, nn.Module | torch.autograd.Function) and not chain:
            return
        self._walk_class(cls)
        for base in cls.__mro__ if chain else ():
            if chain[0] in vars(base):
                if _is_users(base):
                    self._note_attribute(base, chain)
                if isinstance(vars(base)[chain[0]], classmethod):  # it may read them by its cls
                    for owner in filter(_is_users, cls.__mro__):
                        for name in [n for n, v in vars(owner).items() if isinstance(v, ATOMS)]:
                            self._note_attribute(owner, (name,))
                return

    def _note_attribute(self, cls: type, chain: tuple[str, ...]) -> None:
        root, name = Attributes(cls, chain[:1]), f"{cls.__name__}.{chain[0]}"
        self._note(Place(root, chain[:1], name), chain[1:], key=id(cls))

    def _note_draws(self, value: Any) -> None:
        owner = getattr(value, "__module__", None) or type(getattr(value, "__self__", 0)).__module__
        self.draws |= owner in (*_UNTRUSTED, "numpy.random.mtrand")


def _is_users(value: Any) -> bool:
    """Whether a function or a class is neither torch's, nor this package's, nor Python's own."""
    # A class has no code, and its metaclass may raise anything for what it has not.
    code = None if isinstance(value, type) else getattr(value, "__code__", None)
    if code is not None:
        file = code.co_filename
        return not file.startswith((TORCH, HERE, "<")) and (
            _is_installed(file) or not file.startswith(_STANDARD)
        )
    first = (getattr(value, "__module__", None) or "builtins").split(".")[0]
    return first not in ("torch", "fxsynops", "builtins", "abc", "typing", "enum", "collections")


def _is_installed(file: str) -> bool:
    """Whether code was installed, and is not the user's project."""
    return any(part in file for part in _INSTALLED)


def _is_comparable(value: Any) -> bool:
    """Whether it can be told if a value is the one that it was."""
    if isinstance(value, (ATOMS, Tensor)):
        return True
    if isinstance(value, list | tuple | dict | set):
        return len(value) <= _LONGEST
    return is_plain_object(value) or has_state(value)


def _opaque(value: Any, depth: int) -> Iterator[Any]:
    """What has a state that is no part of a value's fingerprint."""
    if has_state(value):
        yield value
    elif depth < SHALLOW:
        for part in _parts(value):
            yield from _opaque(part, depth + 1)


def _parts(value: Any) -> Iterable[Any]:
    """What is in a container, or an object."""
    if is_plain_object(value):
        value = attributes_of(value)
    if isinstance(value, dict | Attributes):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _content(place: Place) -> tuple[Any, list[tuple[Any, Any]]]:
    """A value, and the containers in it with their contents, to be put back."""
    value = place.get()
    return value, list(_contents(value, 0))


def _contents(value: Any, depth: int) -> Iterator[tuple[Any, Any]]:
    held = attributes_of(value) if is_plain_object(value) else value
    if isinstance(held, list | dict | set | Attributes) or has_state(held):
        yield held, content_of(held)
    if depth < SHALLOW:
        for part in _parts(value):
            yield from _contents(part, depth + 1)


@lru_cache(maxsize=4096)
def _chains(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """The globals that code reads, each with the attributes that are read of it at once."""
    return tuple(dict.fromkeys(_read(code)))


def _read(code: CodeType) -> Iterator[tuple[str, ...]]:
    chain: tuple[str, ...] = ()
    for at in dis.get_instructions(code):
        if at.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            if chain:
                yield chain
            chain = (str(at.argval),)
        elif at.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR") and chain:
            chain = (*chain, str(at.argval))
        elif chain and at.opname not in _BETWEEN:
            yield chain
            chain = ()
        if at.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            yield (str(at.argval),)
    if chain:
        yield chain
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _read(part)
