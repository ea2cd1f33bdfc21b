"""What a trace has specialized on: what Python read from the model, its hooks and its modes.

All of it is checked before every replay, so the checks are prepared: the attributes in one dict are
fetched and compared at once, by identity first. Only if something is another object is everything
looked at closely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import is_, itemgetter
from typing import Any

from torch import Tensor, nn

from fxsynops.state import ATOMS, HOOKS, Place, fingerprint, has_global_hooks, has_hooks
from fxsynops.watch import MISSING

# A number that Python read out of a tensor of the model's: how, where, and what it was.
Value = tuple[Callable[..., object], Place, object]


class Conditions:
    """Whether a trace may still be replayed.

    Args:
        places: what Python read from the model's attributes.
        values: numbers that it read out of the model's own tensors.
        modules: all modules; their ``training`` flags, types and patched forwards are conditions.
        unhooked: modules whose calls are not recorded, because no hooks were on them.
    """

    def __init__(
        self,
        places: Iterable[Place],
        values: Iterable[Value],
        modules: Iterable[nn.Module],
        unhooked: Iterable[nn.Module],
    ) -> None:
        self._all = [(place, _present(place)) for place in places]
        self.places = frozenset((id(place.root), place.path) for place, _ in self._all)
        self._values = tuple(values)
        self._modules = list(modules)
        self._modes = [module.training for module in self._modules]
        self._types = [type(module) for module in self._modules]
        self._forwards = [_implementation(module) for module in self._modules]
        self._unhooked = list(unhooked)
        hooks = set(HOOKS)
        self._hooks = [m.__dict__ for m in self._unhooked if hooks <= m.__dict__.keys()]
        self._scripted = [m for m in self._unhooked if not hooks <= m.__dict__.keys()]
        self._prepare()

    def hold(self) -> bool:
        """Whether all of it is as it was."""
        return (
            not self._hooked()
            and [module.training for module in self._modules] == self._modes
            and all(map(is_, map(_implementation, self._modules), self._forwards))
            and all(map(is_, map(type, self._modules), self._types))
            and (self._untouched() or self._equal())
            and all(read(place.get()) == value for read, place, value in self._values)
        )

    def _hooked(self) -> bool:
        return (
            any(map(any, map(_GET_HOOKS, self._hooks)))
            or any(map(has_hooks, self._scripted))
            or (bool(self._unhooked) and has_global_hooks())
        )

    def _equal(self) -> bool:
        """Whether other objects than before stand for the same."""
        if any(_present(place) != expected for place, expected in self._all):
            return False
        self._prepare()
        return True

    # -- by identity -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Sort the attributes by the dict that they are in, as they are now."""
        self._links: list[tuple[dict[Any, Any], Any, object]] = []  # dicts that stay in place
        self._tensors: list[tuple[dict[Any, Any], Any, object]] = []
        self._changing: list[tuple[Place, object]] = []  # lists and the like
        self._sizes: list[tuple[dict[Any, Any], int]] = []
        settled: dict[int, tuple[dict[Any, Any], dict[Any, Any]]] = {}
        self._absent: dict[int, tuple[dict[Any, Any], set[Any]]] = {}
        linked: set[tuple[int, Any]] = set()

        def settle(held: dict[Any, Any], key: Any, value: Any) -> None:
            if value is MISSING:
                self._absent.setdefault(id(held), (held, set()))[1].add(key)
            else:
                settled.setdefault(id(held), (held, {}))[1][key] = value

        def link(held: dict[Any, Any], key: Any) -> None:
            if (id(held), key) not in linked:
                linked.add((id(held), key))
                self._links.append((held, key, held[key]))

        for place, expected in self._all:
            value = MISSING if expected is MISSING else place.get()
            held: Any = place.root
            *path, key = place.path
            if len(path) == 1 and isinstance(held.get(path[0]), dict):
                link(held, path[0])
                held = held[path.pop()]
            if path:
                self._changing.append((place, expected))
            elif _is_settled(value):
                settle(held, key, value)
            elif isinstance(value, Tensor):
                self._tensors.append((held, key, _kind(value)))
            elif isinstance(value, dict) and all(map(_is_settled, value.values())):
                link(held, key)
                self._sizes.append((value, len(value)))
                for name, entry in value.items():
                    settle(value, name, entry)
            else:
                self._changing.append((place, expected))
        self._groups = []
        for held, entries in settled.values():
            get = itemgetter(*entries, next(iter(entries)))  # of two keys at least: a tuple
            self._groups.append((held, get, get(held)))

    def _untouched(self) -> bool:
        """Whether everything is the very object that it was (of tensors: of its kind)."""
        try:
            for held, key, value in self._links:
                if held.get(key) is not value:
                    return False
            for held, get, values in self._groups:
                if not all(map(is_, get(held), values)):
                    return False
        except KeyError:  # an attribute is gone
            return False
        for held, size in self._sizes:
            if len(held) != size:
                return False
        for held, names in self._absent.values():
            if not held.keys().isdisjoint(names):
                return False
        for held, key, kind in self._tensors:
            value = held.get(key)
            if not isinstance(value, Tensor) or _kind(value) != kind:
                return False
        return all(_present(place) == expected for place, expected in self._changing)


_GET_HOOKS = itemgetter(*HOOKS)


def _implementation(module: nn.Module) -> object:
    """A forward that was put into the object itself."""
    return module.__dict__.get("forward")


def _is_settled(value: Any) -> bool:
    """Whether the same object always has the same fingerprint."""
    if value is MISSING or isinstance(value, ATOMS) or fingerprint(value) == id(value):
        return True
    return type(value) is tuple and all(map(_is_settled, value))


def _kind(value: Tensor) -> object:
    """What a trace depends on of a tensor."""
    return value.shape, value.dtype, value.device, value.requires_grad


def _present(place: Place) -> object:
    """What is in a place now, or that nothing is."""
    try:
        return fingerprint(place.get())
    except LookupError:
        return MISSING
