"""What a trace has specialized on: what Python read from the model, its hooks and its modes.

All of it is checked before every replay, so the checks are prepared: they are written out as one
expression, which compares by identity. Only if something is another object is everything looked at
closely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fxsynops.state import ATOMS, GLOBAL_HOOKS, HOOKS, Place, fingerprint, has_hooks
from fxsynops.watch import MISSING
from fxsynops.written import Objects

# A number that Python read out of a tensor of the model's: how, where, and what it was.
Value = tuple[Callable[..., object], Place, object]


class Conditions:
    """Whether a trace may still be replayed.

    Args:
        places: what Python read from the model's attributes.
        values: numbers that it read out of the model's own tensors.
        modules: all modules; their ``training`` flags, types and patched forwards are conditions.
        unhooked: modules whose calls are not recorded, because no hooks were on them.
        shared: pairs of places that hold the same tensor, of which the trace reads the first.
    """

    def __init__(
        self,
        places: Iterable[Place],
        values: Iterable[Value],
        modules: Iterable[nn.Module],
        unhooked: Iterable[nn.Module],
        shared: Iterable[tuple[Place, Place]] = (),
    ) -> None:
        self._all = [(place, _present(place)) for place in places]
        self.places = frozenset((id(place.root), place.path) for place, _ in self._all)
        self._values = tuple(values)
        self._modules = list(modules)
        self._unhooked = list(unhooked)
        self._shared = list(shared)
        self._modules_hold = self._about_modules()
        self._untouched = self._about_all().written_out()

    def hold(self) -> bool:
        """Whether all of it is as it was."""
        try:
            held = self._untouched()
        except (LookupError, AttributeError):  # an attribute is gone, or is no tensor any more
            held = False
        if not (held or self._equal()):
            return False
        values = self._values
        return not values or all(read(place.get()) == value for read, place, value in values)

    def _equal(self) -> bool:
        """Whether other objects than before stand for the same."""
        if not self._modules_hold.written_out()():
            return False
        if any(_present(place) != expected for place, expected in self._all):
            return False
        self._untouched = self._about_all().written_out()
        return True

    # -- written out -----------------------------------------------------------------------------

    def _about_modules(self) -> _Conjunction:
        """Their modes, types, patched forwards, hooks and shared tensors, as they are now."""
        every = _Conjunction()
        for module in self._modules:
            every.add("{}.training is {}", module, module.training)
            every.add("type({}) is {}", module, type(module))
            patched = module.__dict__.get("forward")
            every.add("{}.get({}) is {}", module.__dict__, "forward", patched)
            if not isinstance(module, torch.jit.ScriptModule):
                every.add("{}.forward is {}", type(module), type(module).forward)
        for module in self._unhooked:
            if module.__dict__.keys() >= set(HOOKS):
                for name in HOOKS:
                    every.add("not {}[{}]", module.__dict__, name)
            else:  # a scripted module
                every.add("not {}({})", has_hooks, module)
        for first, second in self._shared:
            every.add("{}({}, {})", _are_one, first, second)
        if self._unhooked:
            for hooks in GLOBAL_HOOKS:
                every.add("not {}", getattr(nn.modules.module, hooks))
        return every

    def _about_all(self) -> _Conjunction:
        """The modules, and what was read from attributes, as it is now: the very objects.

        Of tensors, which may be others in each forward, what a trace depends on.
        """
        every = _Conjunction(self._modules_hold)
        for place, expected in self._all:
            value = MISSING if expected is MISSING else place.get()
            held: Any = place.root
            *path, key = place.path
            if len(path) == 1 and isinstance(held.get(path[0]), dict):
                every.add("{}[{}] is {}", held, path[0], held[path[0]])
                held = held[path.pop()]
            if path:  # in lists and the like
                every.add("{}({}) == {}", _present, place, expected)
            elif value is MISSING:
                every.add("{} not in {}", key, held)
            elif _is_settled(value):
                every.add("{}[{}] is {}", held, key, value)
            elif isinstance(value, Tensor):
                kind = (value.shape, value.dtype, value.device, value.requires_grad)
                same = (
                    "x.shape == {} and x.dtype is {} and x.device == {} and x.requires_grad is {}"
                )
                every.add(f"(x := {{}}[{{}}]) is not None and {same}", held, key, *kind)
            elif isinstance(value, dict) and all(map(_is_settled, value.values())):
                every.add("{}[{}] is {}", held, key, value)
                every.add("len({}) == {}", value, len(value))
                for name, entry in value.items():
                    every.add("{}[{}] is {}", value, name, entry)
            else:
                every.add("{}({}) == {}", _present, place, expected)
        return every


class _Conjunction:
    """Conditions about objects, all of which shall hold, to be written out as one expression."""

    def __init__(self, known: _Conjunction | None = None) -> None:
        self._terms: dict[str, None] = {}
        self._objects = Objects()
        if known is not None:
            self._terms |= known._terms
            self._objects.named |= known._objects.named

    def add(self, term: str, *objects: object) -> None:
        """One more: a Python expression with ``{}`` for each object."""
        self._terms[term.format(*map(self._objects.name, objects))] = None

    def written_out(self) -> Callable[[], bool]:
        """A function that evaluates it."""
        self._objects.run(f"hold = lambda: {' and '.join(self._terms) or 'True'}")
        return self._objects.named.pop("hold")


def _is_settled(value: Any) -> bool:
    """Whether the same object always has the same fingerprint."""
    if value is MISSING or isinstance(value, ATOMS) or fingerprint(value) == id(value):
        return True
    return type(value) is tuple and all(map(_is_settled, value))


def _are_one(first: Place, second: Place) -> bool:
    """Whether two places hold the same tensor."""
    try:
        return first.get() is second.get()
    except LookupError:
        return False


def _present(place: Place) -> object:
    """What is in a place now, or that nothing is."""
    try:
        return fingerprint(place.get())
    except LookupError:
        return MISSING
