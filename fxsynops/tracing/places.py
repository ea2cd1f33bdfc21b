"""Places where values live, in a model and around it: how to get there, what stands there now."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
MAX_OBJECT_DEPTH = 4


class _Inside:
    """The step from a plain object to its attributes."""

    def __repr__(self) -> str:
        return "."


INSIDE = _Inside()


class Attributes(MutableMapping[str, Any]):
    """Attributes of an object as a dict, where it has no dict for all of them.

    Args:
        value: an object with ``__slots__``, a class, a function, a cell of a closure.
        names: of the attributes that are meant, beside those in its ``__dict__``.
    """

    def __init__(self, value: Any, names: tuple[str, ...]) -> None:
        self._value, self._names = value, names
        self._others: dict[str, Any] = getattr(value, "__dict__", {})

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            return self._others[name]
        if isinstance(self._value, type):
            return vars(self._value)[name]  # and no descriptor is asked, which would run code
        try:
            return getattr(self._value, name)
        except (AttributeError, ValueError):  # nothing in it yet
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._names:
            kind: Any = type if isinstance(self._value, type) else object
            kind.__setattr__(self._value, name, value)  # also of a frozen dataclass
        else:
            self._others[name] = value

    def __delitem__(self, name: str) -> None:
        if name in self._names:
            object.__delattr__(self._value, name)
        else:
            del self._others[name]

    def __iter__(self) -> Iterator[str]:
        has: Any = vars(self._value).__contains__ if isinstance(self._value, type) else None
        yield from filter(has or partial(hasattr, self._value), self._names)
        yield from self._others

    def __len__(self) -> int:
        return sum(1 for _ in self)


def attributes_of(value: Any) -> MutableMapping[str, Any]:
    """All attributes that an object itself has."""
    kind: Any = type(value)
    names = _slots(kind)
    return Attributes(value, names) if names else value.__dict__


@lru_cache(maxsize=1024)
def _slots(cls: Any) -> tuple[str, ...]:
    found: list[str] = []
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            hidden = name.startswith("__") and not name.endswith("__")
            name = f"_{base.__name__.lstrip('_')}{name}" if hidden else name
            if name not in ("__dict__", "__weakref__"):
                found.append(name)
    return tuple(found)


@dataclass(frozen=True)
class Place:
    """Where a value lives: from a dict (a module's own ``__dict__``, say) down a path of keys.

    The path is followed at each access, because a forward may put a new dict or tuple in place
    of an old one.
    """

    root: Any = field(repr=False, compare=False)
    path: tuple[Any, ...]
    name: str

    def get(self) -> Any:
        """The value that is there now; raises ``LookupError`` if it is gone."""
        return _follow(self.root, self.path)

    def set(self, value: Any) -> None:
        """Put ``value`` there."""
        _follow(self.root, self.path[:-1])[self.path[-1]] = value

    def delete(self) -> None:
        """Remove what is there."""
        _follow(self.root, self.path[:-1]).pop(self.path[-1], None)

    def refill(self, values: list[Any]) -> None:
        """Give the list that is there new contents."""
        self.get()[:] = values

    def extend(self, values: list[Any]) -> None:
        """Add to the list that is there."""
        self.get().extend(values)

    def below(self, key: Any) -> Place:
        """The place of one entry of the container that is here."""
        hidden = key in ("_parameters", "_buffers") or key is INSIDE
        name = self.name if hidden else joined(self.name, key)
        return Place(self.root, (*self.path, key), name)


def _follow(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        if key is INSIDE:
            value = attributes_of(value)
        elif hasattr(type(value), "__missing__") and key not in value:
            raise KeyError(key)  # and nothing is put there
        else:
            value = value[key]
    return value


@dataclass(frozen=True)
class Change:
    """What a forward did to the model: how (a method of ``Place``), where, and the value."""

    action: str
    place: Place
    value: Any = None


def is_plain_object(value: Any) -> bool:
    """Whether ``value`` is an instance of a user's own class, which may hide tensors."""
    kind: Any = type(value)
    return (
        (hasattr(value, "__dict__") or bool(_slots(kind)))
        and not isinstance(value, (type, nn.Module, Tensor))
        and not callable(getattr(kind, "__get__", None))  # functions, methods, descriptors
        and kind.__module__.split(".")[0] not in ("builtins", "torch", "functools")
    )


def joined(name: str, key: Any) -> str:
    """The name of what is below ``name``."""
    return f"{name}.{key}" if name else str(key)


def same(new: Any, old: Any) -> bool:
    """Whether a value is the one that it was."""
    return new is old or (isinstance(new, ATOMS) and type(new) is type(old) and new == old)


def fingerprint(
    value: Any,
    depth: int = 0,
    *,
    identical: bool = False,
    but: frozenset[tuple[Any, ...]] = frozenset(),
) -> Any:
    """What a trace has specialized on when it read ``value`` from the model, comparable with ==.

    Plain Python values stand for themselves; of tensors, whose values the replay reads anew, only
    shape, dtype and device count, unless they are to be identical; everything else is compared by
    identity. What lies at the paths of ``but`` may be anything.
    """
    if () in but:
        return "anything"
    if isinstance(value, float):
        return (type(value), value.hex())  # tells -0.0 from 0.0, and knows NaN again
    if isinstance(value, ATOMS):
        return (type(value), value)
    if isinstance(value, Tensor):
        if identical:
            return id(value)
        return (value.shape, value.dtype, value.device, value.requires_grad)
    if isinstance(value, (tuple, list)):
        ids = [id(v) for v in value if isinstance(v, Tensor)]
        shared = tuple(map(ids.index, ids)) if len(set(ids)) < len(ids) else ()
        parts = (
            fingerprint(v, depth, identical=identical, but=_below(but, i))
            for i, v in enumerate(value)
        )
        return (type(value), shared, *parts)
    if isinstance(value, set | frozenset):
        return (type(value), frozenset(fingerprint(v, depth, identical=identical) for v in value))
    if isinstance(value, dict):
        items = (
            (k, fingerprint(v, depth, identical=identical, but=_below(but, k)))
            for k, v in value.items()
        )
        return (type(value), *items)
    if depth < MAX_OBJECT_DEPTH and is_plain_object(value):
        own = dict(attributes_of(value))
        held = fingerprint(own, depth + 1, identical=identical, but=_below(but, INSIDE))
        return (id(value), _shared(type(value)), held)
    return id(value)


def _below(paths: frozenset[tuple[Any, ...]], key: Any) -> frozenset[tuple[Any, ...]]:
    return frozenset(path[1:] for path in paths if path[0] == key) if paths else paths


def _shared(cls: type) -> dict[str, Any]:
    """The plain values that a user's class holds for all of its objects."""
    return {
        name: value
        for base in reversed(cls.__mro__)
        for name, value in base.__dict__.items()
        if isinstance(value, ATOMS) and not name.startswith("__")
    }
