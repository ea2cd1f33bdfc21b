"""What a trace has specialized on: what Python read from the model, its hooks and its modes.

All of it is checked before every replay, so the checks are prepared once: an attribute that is
still the very same object needs no closer look, if such an object cannot change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fxsynops.state import ATOMS, HOOKS, Place, fingerprint, has_global_hooks
from fxsynops.watch import MISSING

# A number that Python read out of a tensor of the model's: how, where, and what it was.
Value = tuple[Callable[..., object], Place, object]


@dataclass
class _Seen:
    """An object, where it lay at the last look."""

    place: Place
    expected: object
    held: dict[Any, Any]
    key: Any
    value: Any


class Conditions:
    """Whether a trace may still be replayed.

    Args:
        places: what Python read from the model's attributes.
        values: numbers that it read out of the model's own tensors.
        modules: all modules; their ``training`` flags are conditions.
        unhooked: modules whose calls are not recorded, because no hooks were on them.
    """

    def __init__(
        self,
        places: Iterable[Place],
        values: Iterable[Value],
        modules: Iterable[nn.Module],
        unhooked: Iterable[nn.Module],
    ) -> None:
        places = list(places)
        self.places = frozenset((id(place.root), place.path) for place in places)
        self._values = tuple(values)
        self._modes = [(module, module.training) for module in modules]
        self._unhooked = [module.__dict__ for module in unhooked]
        self._settled: list[_Seen] = []
        self._dicts: dict[tuple[int, Any], tuple[dict[Any, Any], Any, object]] = {}
        self._tensors: list[tuple[_Seen, object]] = []  # with what may change of them
        self._entries: list[tuple[_Seen, dict[Any, Any]]] = []  # dicts, with what is in them
        self._changing: list[tuple[Place, object]] = []  # lists and the like
        for place in places:
            self._add(place)

    def _add(self, place: Place) -> None:
        expected, root = _present(place), place.root
        value = MISSING if expected is MISSING else place.get()
        held: Any = root
        if len(place.path) == 2:
            held = root.get(place.path[0])
        if len(place.path) > 2 or not isinstance(held, dict):
            self._changing.append((place, expected))
            return
        if held is not root:
            self._dicts[id(root), place.path[0]] = (root, place.path[0], held)
        seen = _Seen(place, expected, held, place.path[-1], value)
        if _is_settled(value, expected):
            self._settled.append(seen)
        elif isinstance(value, Tensor):
            self._tensors.append((seen, _kind(value)))
        elif isinstance(value, dict) and all(map(_is_settled_value, value.values())):
            self._entries.append((seen, dict(value)))
        else:
            self._changing.append((place, expected))

    def hold(self) -> bool:
        """Whether all of it is as it was."""
        return (
            self._no_hooks()
            and all(module.training is flag for module, flag in self._modes)
            and self._same_attributes()
            and all(_present(place) == expected for place, expected in self._changing)
            and all(read(place.get()) == value for read, place, value in self._values)
        )

    def _no_hooks(self) -> bool:
        if self._unhooked and has_global_hooks():
            return False
        for state in self._unhooked:
            for name in HOOKS:
                if state.get(name):
                    return False
        return True

    def _same_attributes(self) -> bool:
        if any(root.get(key) is not held for root, key, held in self._dicts.values()):
            others = (*(seen for seen, _ in self._tensors), *(seen for seen, _ in self._entries))
            return all(_present(seen.place) == seen.expected for seen in (*self._settled, *others))
        for seen in self._settled:
            if seen.held.get(seen.key, MISSING) is not seen.value and not self._again(seen):
                return False
        for seen, kind in self._tensors:
            value = seen.held.get(seen.key)
            if not isinstance(value, Tensor) or _kind(value) != kind:
                return False
        for seen, entries in self._entries:
            held: Any = seen.held.get(seen.key)
            same: bool = held is seen.value and len(held) == len(entries)
            same = same and all(held.get(k, MISSING) is v for k, v in entries.items())
            if not same and not self._again(seen):
                return False
        return True

    @staticmethod
    def _again(seen: _Seen) -> bool:
        """Another object is there: perhaps an equal one."""
        if _present(seen.place) != seen.expected:
            return False
        seen.value = seen.held.get(seen.key, MISSING)
        return True


def _is_settled(value: Any, expected: object) -> bool:
    """Whether the same object always has the same fingerprint."""
    if value is MISSING or isinstance(value, ATOMS) or expected == id(value):
        return True
    return type(value) is tuple and all(map(_is_settled_value, value))


def _is_settled_value(value: Any) -> bool:
    return _is_settled(value, fingerprint(value))


def _kind(value: Tensor) -> object:
    """What a trace depends on of a tensor."""
    return value.shape, value.dtype, value.device, value.requires_grad


def _present(place: Place) -> object:
    """What is in a place now, or that nothing is."""
    try:
        return fingerprint(place.get())
    except LookupError:
        return MISSING
