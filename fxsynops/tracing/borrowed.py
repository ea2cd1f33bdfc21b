"""Model state: borrow it for a dry run, and find every tensor's place in it.

A :class:`Borrowed` model may be run without leaving a trace. While the context is open, every
tensor that the model can reach (parameters, buffers, tensors in attributes, in lists, dicts,
tuples and plain objects below them) is replaced by a clone, and hooks are set aside; when it
closes, also by an exception, everything is put back: the same objects, in the same places.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fxsynops.errors import TraceError

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)
ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_MAX_OBJECT_DEPTH = 4


class _Inside:
    """The step from a plain object to its attributes."""

    def __repr__(self) -> str:
        return "."


INSIDE = _Inside()


@dataclass(frozen=True)
class Place:
    """Where a value lives: from a module's own ``__dict__`` down a path of keys.

    The path is followed at each access, because a forward may put a new dict or tuple in place
    of an old one.
    """

    root: dict[str, Any] = field(repr=False, compare=False)
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

    def below(self, key: Any) -> Place:
        """The place of one entry of the container that is here."""
        hidden = key in ("_parameters", "_buffers") or key is INSIDE
        name = self.name if hidden else _join(self.name, key)
        return Place(self.root, (*self.path, key), name)


def _follow(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        if key is INSIDE:
            value = value.__dict__
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


def has_hooks(module: nn.Module) -> bool:
    """Whether calling ``module`` runs any user hook, its own or a global one."""
    state = module.__dict__
    return any(state.get(name) for name in HOOKS) or has_global_hooks()


def has_global_hooks() -> bool:
    """Whether any hook runs at every module's call."""
    return any(getattr(nn.modules.module, name) for name in GLOBAL_HOOKS)


def _is_plain_object(value: Any) -> bool:
    """Whether ``value`` is an instance of a user's own class, which may hide tensors."""
    kind = type(value)
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, (type, nn.Module, Tensor))
        and not callable(getattr(kind, "__get__", None))  # functions, methods, descriptors
        and kind.__module__.split(".")[0] not in ("builtins", "torch", "types", "functools")
    )


def python_random_state() -> tuple[Any, ...]:
    """The state of Python's (and, if loaded, NumPy's) random generators, comparable with ==."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return (random.getstate(),)
    name, keys, *rest = numpy.random.get_state()
    return (random.getstate(), name, keys.tobytes(), *rest)


def torch_random_state() -> bytes:
    """The state of torch's random generator on the CPU, comparable with ==."""
    with unset_fake_temporarily():
        return bytes(torch.get_rng_state().numpy().tobytes())


@dataclass
class _RandomStates:
    """All random generators that a forward may advance."""

    cpu: Tensor
    cuda: list[Tensor]
    python: Any
    numpy: Any
    generators: list[tuple[torch.Generator, Tensor]]

    @classmethod
    def save(cls, generators: list[torch.Generator]) -> _RandomStates:
        numpy = sys.modules.get("numpy")
        return cls(
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            random.getstate(),
            numpy.random.get_state() if numpy is not None else None,
            [(g, g.get_state()) for g in generators],
        )

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
        for generator, state in self.generators:
            generator.set_state(state)


@dataclass
class Borrowed:
    """A context in which ``model`` can be run and is afterwards as it was.

    Attributes:
        modules: every module by its path, also those in plain lists and dicts.
        places: for each tensor that stands in for one of the model's, by ``id``, its place.
        shared: pairs of places that hold the same tensor; the first one is among ``places``.
        hooked: the modules on which users have put hooks.
        generators: torch's random generators in the model's attributes.
        legacy: the modules with backward hooks of the old kind.
    """

    model: nn.Module
    modules: dict[str, nn.Module] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)
    shared: list[tuple[Place, Place]] = field(default_factory=list)
    hooked: set[nn.Module] = field(default_factory=set)
    _saved: list[tuple[Any, Any, Place]] = field(default_factory=list)
    _lent: list[Any] = field(default_factory=list)
    _clones: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)
    generators: list[torch.Generator] = field(default_factory=list)
    legacy: set[nn.Module] = field(default_factory=set)
    _global_hooks: dict[str, dict[Any, Any]] = field(default_factory=dict)
    _random: _RandomStates | None = None

    def __enter__(self) -> Borrowed:
        try:
            self.modules.update(self.model.named_modules())
            for name, module in list(self.modules.items()):
                self._visit_module(module, name)
            self._random = _RandomStates.save(self.generators)
            for name in GLOBAL_HOOKS:
                hooks = getattr(nn.modules.module, name)
                self._global_hooks[name] = dict(hooks)
                hooks.clear()
            self._lent = [_copy(container) for container, _, _ in self._saved]
        except BaseException:
            self._put_back()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._put_back()

    def differs(self, module: nn.Module, name: str, value: Any) -> bool:
        """Whether an attribute that is now ``value`` was something else at the start."""
        for container, before, place in self._saved:
            if container is module.__dict__ and not place.path:
                return not isinstance(value, dict | list) and not _same(value, before.get(name))
        return False

    def settle(self, module: nn.Module) -> None:
        """What ``module`` and its parts hold now is their own doing: no change to be repeated."""
        roots = {id(part.__dict__) for part in module.modules()}
        for i, (container, _, place) in enumerate(self._saved):
            if id(place.root) in roots:
                self._lent[i] = _copy(container)

    def changes(self, module: nn.Module | None = None) -> Iterator[Change]:
        """What was changed since the start, or since it was settled (in ``module``, or anywhere).

        Raises:
            TraceError: something changed that cannot be changed again, like a set.
        """
        roots = None if module is None else {id(part.__dict__) for part in module.modules()}
        for (container, _, place), before in zip(self._saved, self._lent, strict=True):
            if roots is not None and id(place.root) not in roots:
                continue
            if not isinstance(container, list | dict):
                if _copy(container) != before:
                    raise TraceError(
                        f"the forward changes '{place.name}', a {type(container).__name__}, which "
                        "a replay cannot keep up to date. Keep tensors, numbers, lists or dicts in "
                        "attributes, and draw random numbers with torch."
                    )
                continue
            if isinstance(container, list):
                if len(container) != len(before) or any(
                    not _same(new, old) for new, old in zip(container, before, strict=True)
                ):
                    yield Change("refill", place, list(container))
                continue
            ours = ("forward",) if not place.path else ()  # wrapped while a module is watched
            for key, value in container.items():
                if key not in ours and (key not in before or not _same(value, before[key])):
                    yield Change("set", place.below(key), value)
            for key in before:
                if key not in container and key not in ours:
                    yield Change("delete", place.below(key))

    def _put_back(self) -> None:
        for container, content, _ in self._saved:
            _restore(container, content)
        for name, hooks in self._global_hooks.items():
            getattr(nn.modules.module, name).update(hooks)
        if self._random is not None:
            self._random.restore()

    def _visit_module(self, module: nn.Module, name: str) -> None:
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        self.modules.setdefault(name, module)
        if isinstance(module, torch.jit.ScriptModule):
            return  # its state is out of Python's reach
        if has_hooks(module):
            self.hooked.add(module)
        if module._backward_hooks and not module._is_full_backward_hook:
            self.legacy.add(module)
        self._visit(module.__dict__, Place(module.__dict__, (), name), 0)
        for hooks in HOOKS:
            module.__dict__[hooks] = type(module.__dict__[hooks])()

    def _visit(self, container: Any, place: Place, depth: int) -> None:
        """Save ``container`` (a dict or list), swap the tensors in it, and go on below it."""
        if id(container) in self._seen:
            return
        self._seen.add(id(container))
        self._saved.append((container, _copy(container), place))
        if not isinstance(container, list | dict):
            return
        items = enumerate(container) if isinstance(container, list) else container.items()
        for key, value in list(items):
            if key == "_modules":
                self._saved.append((value, _copy(value), place.below(key)))
            if key in HOOKS or key == "_modules":
                continue
            replaced = self._replace(value, place.below(key), depth)
            if replaced is not value:
                container[key] = replaced

    def _replace(self, value: Any, place: Place, depth: int) -> Any:
        if isinstance(value, ATOMS):
            return value
        if isinstance(value, Tensor):
            return self._clone(value, place)
        if isinstance(value, nn.Module):
            registered = set(self.modules.values())
            for name, module in value.named_modules():
                if module not in registered:  # in a plain list, say
                    self._visit_module(module, _join(place.name, name) if name else place.name)
        elif isinstance(value, (dict, list)) or _is_opaque(value):
            self._visit(value, place, depth)
        elif isinstance(value, tuple):
            parts = [self._replace(part, place.below(i), depth) for i, part in enumerate(value)]
            if any(new is not old for new, old in zip(parts, value, strict=True)):
                return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        elif isinstance(value, torch.Generator):
            self.generators.append(value)
        elif depth < _MAX_OBJECT_DEPTH and _is_plain_object(value):
            self._visit(value.__dict__, place.below(INSIDE), depth + 1)
        return value

    def _clone(self, tensor: Tensor, place: Place) -> Tensor:
        if nn.parameter.is_lazy(tensor):
            raise TraceError(
                f"'{place.name}' is not initialized yet (a lazy module). "
                "Run the model once on the example, then analyze it."
            )
        if id(tensor) not in self._clones:
            copy = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
            elif tensor.is_leaf:
                copy.requires_grad_(tensor.requires_grad)
            else:
                with torch.enable_grad():
                    copy = copy.requires_grad_(tensor.requires_grad).clone()
            self._clones[id(tensor)] = (tensor, copy)
            self.places[id(copy)] = place
        else:
            self.shared.append((self.places[id(self._clones[id(tensor)][1])], place))
        return self._clones[id(tensor)][1]


class Snapshot:
    """What a model is like, in the short form that tells whether anything has changed."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._before = model, self._look(model)

    def changes(self) -> list[str]:
        """What is not as it was."""
        now = self._look(self._model)
        names = [n for n in {**self._before, **now} if self._before.get(n) != now.get(n)]
        return [f"the analysis has changed {name}" for name in names]

    @staticmethod
    def _look(model: nn.Module) -> dict[str, Any]:
        found: dict[str, Any] = {
            "torch's random numbers": torch_random_state(),
            "Python's random numbers": python_random_state(),
        }
        for path, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            for key, value in module.__dict__.items():
                held = value if isinstance(value, dict) else {"": value}
                for name, part in held.items():
                    version = part._version if isinstance(part, Tensor) else None
                    where = ".".join(str(step) for step in (path, name or key) if step != "")
                    found[f"'{where}'"] = (id(part), version)
        return found


def _is_opaque(value: Any) -> bool:
    """A container or generator whose contents can be saved, but not followed one by one."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.random.Generator):
        return True
    return isinstance(value, set | deque | random.Random)


class _Identical(list[Any]):
    """Values, equal if they are the same objects."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and [*map(id, self)] == [*map(id, other)]

    __hash__ = None


def _copy(container: Any) -> Any:
    if isinstance(container, list):
        return list(container)
    if isinstance(container, dict):
        return dict(container)
    if isinstance(container, set):
        return set(container)
    if isinstance(container, deque):
        return _Identical(container)
    if isinstance(container, random.Random):
        return container.getstate()
    if hasattr(container, "bit_generator"):
        return container.bit_generator.state
    return container.tobytes()  # a NumPy array


def _restore(container: Any, content: Any) -> None:
    if isinstance(container, list):
        container[:] = content
    elif isinstance(container, dict | set):
        container.clear()
        container.update(content)
    elif isinstance(container, deque):
        container.clear()
        container.extend(content)
    elif isinstance(container, random.Random):
        container.setstate(content)
    elif hasattr(container, "bit_generator"):
        container.bit_generator.state = content
    else:
        numpy = sys.modules["numpy"]
        container[...] = numpy.frombuffer(content, container.dtype).reshape(container.shape)


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _same(new: Any, old: Any) -> bool:
    return new is old or (isinstance(new, ATOMS) and type(new) is type(old) and new == old)


def fingerprint(value: Any, depth: int = 0) -> Any:
    """What a trace has specialized on when it read ``value`` from the model, comparable with ==.

    Plain Python values stand for themselves; of tensors, whose values the replay reads anew, only
    shape, dtype and device count; everything else is compared by identity.
    """
    if isinstance(value, float):
        return (type(value), value.hex())  # tells -0.0 from 0.0, and knows NaN again
    if isinstance(value, ATOMS):
        return (type(value), value)
    if isinstance(value, Tensor):
        return (value.shape, value.dtype, value.device, value.requires_grad)
    if isinstance(value, (tuple, list)):
        ids = [id(v) for v in value if isinstance(v, Tensor)]
        shared = tuple(map(ids.index, ids)) if len(set(ids)) < len(ids) else ()
        return (type(value), shared, *(fingerprint(v, depth) for v in value))
    if isinstance(value, dict):
        return (type(value), *((k, fingerprint(v, depth)) for k, v in value.items()))
    if depth < _MAX_OBJECT_DEPTH and _is_plain_object(value):
        return (id(value), fingerprint(value.__dict__, depth + 1))
    return id(value)
