"""What a trace has specialized on: what Python read from the model, its hooks and its modes.

All of it is checked before every replay, so the checks are prepared: they are written out as
expressions, which compare by identity. Only if something is another object is everything looked at
closely. As a loop over closures, the same checks take ten times as long: 0.1 ms, not 0.01, for
a LeNet whose pass takes 7 to 15 ms, 0.6 in place of 0.05 for SEW-ResNet-18.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import getattr_static
from operator import is_
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from fxsynops.tracing.codegen import Objects
from fxsynops.tracing.hooks import GLOBAL_HOOKS, HOOKS, has_hooks, may_change
from fxsynops.tracing.interception import MISSING
from fxsynops.tracing.model_reads import Decided
from fxsynops.tracing.places import ATOMS, Place, fingerprint
from fxsynops.tracing.surroundings import SHALLOW

# A number that Python read out of a tensor of the model's: how, where, and what it was.
Value = tuple[Callable[..., object], Place, object]

Paths = frozenset[tuple[Any, ...]]
_GONE = (LookupError, TypeError, AttributeError)  # there is nothing at all in a place, or no tensor
_ALIKE = "(x := {}[{}]).shape == {} and x.dtype is {} and x.device == {} and x.requires_grad is {}"


class Conditions:
    """Whether a trace may still be replayed.

    Args:
        places: what Python read from the model's attributes.
        values: numbers that it read out of the model's own tensors.
        decided: what comparisons of the model's own numbers have found.
        anything: places that were not read, below others that were.
        modules: all modules; their ``training`` flags, types and patched forwards are conditions.
        hooked: modules with hooks, and whether these may change what goes in and comes out.
        shared: pairs of places that hold the same tensor, of which the trace reads the first.
        outside: what the model's code reads beside the model; tensors there must stay the same.
    """

    def __init__(
        self,
        places: Iterable[Place],
        values: Iterable[Value],
        decided: Iterable[Decided],
        anything: Iterable[Place],
        modules: Iterable[nn.Module],
        hooked: dict[nn.Module, tuple[bool, bool]],
        shared: Iterable[tuple[Place, Place]] = (),
        outside: Iterable[Place] = (),
    ) -> None:
        anything, self._decided = list(anything), list(decided)
        self._all = [_Read(place, _but(place, anything)) for place in places]
        self._all += [_Read(place, identical=True) for place in outside]
        found = [read.place for read in self._all]
        found += [place for decided in self._decided for place in decided.places]
        self.places = frozenset((id(place.root), place.path) for place in found)
        self._values = [(read, place, fingerprint(value)) for read, place, value in values]
        self._kept: list[object] = []  # or other objects could take their identities
        self._modules = list(modules)
        self._hooked = hooked
        self._shared = list(shared)
        self._modules_hold = self._about_modules().written_out()
        self._untouched = self._about_places().written_out()

    def also(self, read: Callable[..., object], place: Place) -> None:
        """One more: what is read out of a place is what it is now."""
        known = ((r, id(p.root), p.path) for r, p, _ in self._values)
        if (read, id(place.root), place.path) not in known:
            self._kept.append(place.get())
            self._values.append((read, place, fingerprint(read(self._kept[-1]))))

    def hold(self) -> bool:
        """Whether all of it is as it was."""
        return (
            self._modules_hold()
            and (self._is_untouched() or self._equal())
            and (not self._values or self._values_hold())
            and (not self._decided or self._decided_hold())
        )

    def changed(self) -> list[str]:
        """The names of what is otherwise now, of all that was read."""
        found = [read.place.name for read in self._all if not read.is_equal()]
        for decided in self._decided:
            if not decided.holds():
                found += [place.name for place in decided.places]
        return found

    def _is_untouched(self) -> bool:
        """Whether everything is the very object that it was (of tensors: of its kind)."""
        try:
            return self._untouched()
        except _GONE:
            return False

    def _equal(self) -> bool:
        """Whether other objects than before stand for the same."""
        if not all(read.is_equal() for read in self._all):
            return False
        for read in self._all:
            read.look_again()
        self._untouched = self._about_places().written_out()
        return True

    def _values_hold(self) -> bool:
        return all(fingerprint(read(place.get())) == was for read, place, was in self._values)

    def _decided_hold(self) -> bool:
        try:
            return all(decided.holds() for decided in self._decided)
        except (*_GONE, ArithmeticError):
            return False

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
                forward = getattr_static(type(module), "forward")
                if isinstance(forward, FunctionType):
                    every.add("{}.forward is {}", type(module), forward)
                else:  # made anew each time it is looked up
                    every.add("{}({}, {}) is {}", getattr_static, type(module), "forward", forward)
        for module in self._modules:
            if module in self._hooked:
                every.add("{}({}) == {}", may_change, module, self._hooked[module])
            elif module.__dict__.keys() >= set(HOOKS):
                for name in HOOKS:
                    every.add("not {}[{}]", module.__dict__, name)
            else:  # a scripted module
                every.add("not {}({})", has_hooks, module)
        for first, second in self._shared:
            every.add("{}({}, {})", _are_one, first, second)
        if len(self._hooked) < len(self._modules):
            for hooks in GLOBAL_HOOKS:
                every.add("not {}", getattr(nn.modules.module, hooks))
        return every

    def _about_places(self) -> _Conjunction:
        """What was read from attributes, as it is now."""
        every = _Conjunction()
        for read in self._all:
            value, held = read.value, read.place.root
            *path, key = read.place.path
            if path in (["_parameters"], ["_buffers"]):
                every.add("{}[{}] is {}", held, path[0], held[path[0]])
                held = held[path.pop()]
            if path or not (read.fixed or isinstance(value, Tensor)):  # inside of a list, say
                every.add("{}()", read.is_equal)
            elif isinstance(value, Tensor) and not read.identical:
                every.add(_ALIKE, held, key, *fingerprint(value))
            elif value is MISSING:
                every.add("{} not in {}", key, held)
            else:
                every.add("{}[{}] is {}", held, key, value)
                if isinstance(value, dict):
                    every.add("[*{}] == {}", value, list(value))
                    for name, entry in value.items():
                        every.add("{}[{}] is {}", value, name, entry)
        return every


def is_mask(tensor: Tensor) -> bool:
    """Whether a tensor holds nothing but 0, 1 and -1."""
    return bool(((tensor == 0) | (tensor.abs() == 1)).all())


def mask_or_version(tensor: Tensor) -> Any:
    """What tells that masks made of a tensor are masks: that it is one itself, or what it was.

    Versions do not tell of writes through ``.data``, but reading values may wait for a device.
    """
    if tensor.is_cpu and is_mask(tensor.detach()):
        return True
    return id(tensor), tensor._version


def version(tensor: Tensor) -> Any:
    """Whether it is the same tensor, unwritten: the same entries of a sparse one are stored.

    What ``.data`` puts in the place of a tensor has its version, but other memory.
    """
    if tensor.layout is torch.strided:
        held = tensor
    elif tensor.layout is torch.sparse_coo:
        held = tensor._indices()
    else:
        by_rows = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
        held = tensor.col_indices() if by_rows else tensor.row_indices()
    return id(tensor), tensor._version, tensor.layout, held.data_ptr(), tuple(held.shape)


class _Read:
    """A place that was read.

    Attributes:
        place: the place.
        identical: whether a tensor there must be the same.
    """

    def __init__(self, place: Place, but: Paths = frozenset(), *, identical: bool = False) -> None:
        self.place, self.identical, self._but = place, identical, but
        self._expected = _present(place, identical, but)
        self._seen = self._objects()

    @property
    def fixed(self) -> bool:
        """Whether it is enough to know that the same objects are there.

        They cannot change, and nobody has put equal ones in their place yet.
        """
        return bool(self._seen)

    @property
    def value(self) -> Any:
        """What is there now."""
        return MISSING if self._expected is MISSING else self.place.get()

    def _objects(self) -> list[object]:
        """What is there, if that is nothing that changes inside."""
        if self._but:
            return []
        value = self.value
        objects = [value, *value.values()] if isinstance(value, dict) else [value]
        return objects if all(map(_is_settled, objects[1:] or objects)) else []

    def look_again(self) -> None:
        """Find out whether there are other objects now."""
        found = self._objects()
        if len(found) != len(self._seen) or not all(map(is_, found, self._seen)):
            self._seen = []

    def is_equal(self) -> bool:
        """Whether what is there now stands for the same."""
        return bool(_present(self.place, self.identical, self._but) == self._expected)


class _Conjunction:
    """Conditions about objects, all of which shall hold, to be written out as one expression."""

    def __init__(self) -> None:
        self._terms: dict[str, None] = {}
        self._objects = Objects()

    def add(self, term: str, *objects: object) -> None:
        """One more: a Python expression with ``{}`` for each object."""
        self._terms[term.format(*map(self._objects.name, objects))] = None

    def written_out(self) -> Callable[[], bool]:
        """A function that evaluates it."""
        code = f"def hold(): return {' and '.join(self._terms) or 'True'}"
        return self._objects.function("hold", code)


def _is_settled(value: Any) -> bool:
    """Whether the same object always has the same fingerprint."""
    if value is MISSING or isinstance(value, ATOMS) or fingerprint(value) == id(value):
        return True
    return type(value) is tuple and all(map(_is_settled, value))


def _are_one(first: Place, second: Place) -> bool:
    """Whether two places hold the same tensor."""
    try:
        return first.get() is second.get()
    except _GONE:
        return False


def _but(place: Place, anything: list[Place]) -> Paths:
    """The paths below a place to what was not read there."""
    n = len(place.path)
    return frozenset(
        other.path[n:]
        for other in anything
        if other.root is place.root and other.path[:n] == place.path
    )


def _present(place: Place, identical: bool, but: Paths) -> object:
    """What is in a place now, or that nothing is."""
    try:
        return fingerprint(place.get(), SHALLOW if identical else 0, identical=identical, but=but)
    except _GONE:
        return MISSING
