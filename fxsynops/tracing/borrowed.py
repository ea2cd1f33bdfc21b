"""Model state: borrow it for a dry run, and find every tensor's place in it.

A :class:`Borrowed` model may be run without leaving a trace. While the context is open, every
tensor that the model can reach (parameters, buffers, tensors in attributes, in lists, dicts,
tuples and plain objects below them) is replaced by a clone, and hooks are set aside; when it
closes, also by an exception, everything is put back: the same objects, in the same places. What
is needed for that is written down before the first thing changes, and each step of putting back
may fail, or be interrupted, without the others being left out.

Large parameters are most of a model, and hardly a forward writes to them. What stands in for them
lies in their memory (``in_place``), until a forward is about to write there: it begins anew with
copies (:class:`OverwrittenError`).
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from fxsynops.errors import TraceError
from fxsynops.tracing.containers import content_of, is_opaque, restore
from fxsynops.tracing.hooks import GLOBAL_HOOKS, HOOKS, has_hooks, may_change
from fxsynops.tracing.places import (
    ATOMS,
    INSIDE,
    MAX_OBJECT_DEPTH,
    Attributes,
    Change,
    Place,
    attributes_of,
    is_plain_object,
    joined,
    same,
)
from fxsynops.tracing.random_states import (
    RandomStates,
    is_alone,
    python_random_state,
    torch_random_state,
)
from fxsynops.tracing.sharded import check_not_flat, is_sharded, splits, whole
from fxsynops.tracing.torch_api import address_of, modules_of, parameters_of, storage_of
from fxsynops.tracing.trees import leaves_of

LARGE = 2**20  # bytes; what is smaller is copied in no time
# What is borrowed, and what is patched while it is, belongs to one thread at a time.
_ONE_AT_A_TIME = threading.RLock()


@dataclass
class _Held:
    """A container whose content is put back.

    Attributes:
        container: a dict, a list, attributes of an object; or something that cannot be looked into
            entry by entry.
        place: where it is.
        before: its content at the start.
        lent: its content when it was lent, or settled: what is otherwise now, the forward has done.
    """

    container: Any
    place: Place
    before: Any
    lent: Any = None

    @property
    def has_entries(self) -> bool:
        """Whether entries can be looked at, and set, one by one."""
        return isinstance(self.container, list | dict | Attributes)


class OverwrittenError(BaseException):
    """A forward is about to write to parameters that were lent as they are.

    It passes by what a forward catches.
    """


class Borrowed:
    """A context in which ``model`` can be run and is afterwards as it was.

    Only one thread has it open at a time; others wait.

    Args:
        model: any module.
        in_place: whether nothing writes to parameters but what says so, by :meth:`about_to_write`.

    Attributes:
        modules: every module by its path, also those in plain lists and dicts.
        places: for each tensor that stands in for one of the model's, by ``id``, its place.
        shared: pairs of places that hold the same tensor; the first one is among ``places``.
        hooked: the modules on which users have put hooks, and whether these may change what goes
            in, and what comes out.
        split: those in which other ranks have a part of what comes in, or comes out.
        generators: torch's random generators in the model's attributes.
        legacy: the modules with backward hooks of the old kind.
        in_place: the addresses of parameters that are lent as they are.
        is_overwritten: whether a forward was stopped before it wrote to a parameter.
    """

    def __init__(self, model: nn.Module, in_place: bool = False) -> None:
        self.model = model
        self.is_overwritten = False
        usual = (p for p in parameters_of(model) if in_place and _is_usual(p))
        large = (p for p in usual if p.numel() * p.itemsize >= LARGE)
        self.in_place = {address_of(p) for p in large} - {0}
        self.modules: dict[str, nn.Module] = {}
        self.places: dict[int, Place] = {}
        self.shared: list[tuple[Place, Place]] = []
        self.hooked: dict[nn.Module, tuple[bool, bool]] = {}
        self.split: set[nn.Module] = set()
        self.generators: list[torch.Generator] = []
        self.legacy: set[nn.Module] = set()
        self._held: dict[int, _Held] = {}
        self._by_root: dict[int, list[_Held]] = defaultdict(list)
        self._clones: dict[int, tuple[Tensor, Tensor]] = {}
        self._memory: dict[int, Any] = {}  # copies of what tensors lie in
        self._random: RandomStates | None = None
        self._open = False

    def __enter__(self) -> Borrowed:
        check_not_flat(self.model)
        self._open = True
        try:
            _ONE_AT_A_TIME.acquire()
            self.modules.update(self.model.named_modules())
            for name, module in list(self.modules.items()):
                self._visit_module(module, name)
            self._random = RandomStates.save(self.generators)
            for name in GLOBAL_HOOKS:
                hooks = getattr(nn.modules.module, name)
                if hooks:
                    self._hold(hooks, Place({}, (), name))
                    hooks.clear()
            for held in self._held.values():
                held.lent = content_of(held.container)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._close()

    def __del__(self) -> None:
        if self._open:  # an interrupt came just as the context was to be closed
            self._close()

    def _close(self) -> None:
        try:
            try:
                self._put_back()
            except BaseException:  # an interrupt: what it has cut short is done again
                self._put_back()
                raise
        finally:
            with suppress(RuntimeError):  # an interrupt came before it was acquired
                _ONE_AT_A_TIME.release()
            self._open = False

    def about_to_write(self, tensor: Tensor) -> None:
        """Stop a forward that is about to write to a parameter's own memory.

        Raises:
            OverwrittenError: it is.
        """
        if address_of(tensor) in self.in_place:
            self.is_overwritten = True
            raise OverwrittenError

    def differs(self, module: nn.Module, name: str, value: Any) -> bool:
        """Whether an attribute that is now ``value`` was something else at the start."""
        if isinstance(value, dict | list):
            return False
        held = self._held.get(id(module.__dict__))
        if held is None or name not in module.__dict__:
            return False
        return name not in held.before or not same(value, held.before[name])

    def is_new(self, module: nn.Module, name: str) -> bool:
        """Whether an attribute was not there at the start."""
        held = self._held.get(id(module.__dict__))
        return held is not None and name in module.__dict__ and name not in held.before

    def lend(self, place: Place, stand_in: Any) -> None:
        """Let something stand in for a value: it is no change."""
        place.set(stand_in)
        object_itself = place.path[-2:-1] == (INSIDE,)  # not the dict of its attributes
        above = Place(place.root, place.path[: -2 if object_itself else -1], place.name).get()
        held = self._held[id(above)]
        held.lent = content_of(held.container)

    def is_settled(self, place: Place, value: Any) -> bool:
        """Whether a value has been in its place since a module that is kept whole put it there."""
        above = Place(place.root, place.path[:-1], place.name).get()
        held = self._held.get(id(above))
        lent = None if held is None else held.lent
        return not isinstance(lent, dict) or lent.get(place.path[-1]) is value

    def settle(self, module: nn.Module) -> None:
        """What ``module`` and its parts hold now is their own doing: no change to be repeated."""
        for held in self._below(module):
            held.lent = content_of(held.container)

    def changes(self, module: nn.Module | None = None) -> Iterator[Change]:
        """What was changed since the start, or since it was settled (in ``module``, or anywhere).

        Raises:
            TraceError: something changed that cannot be changed again, like a set.
        """
        for held in self._held.values() if module is None else self._below(module):
            container, before, place = held.container, held.lent, held.place
            if not held.has_entries:
                if content_of(container) != before:
                    raise TraceError(
                        f"the forward changes '{place.name}', a {type(container).__name__}, which "
                        "a replay cannot keep up to date. Keep tensors, numbers, lists or dicts in "
                        "attributes, and draw random numbers with torch."
                    )
                continue
            if isinstance(container, list):
                kept = all(same(new, old) for new, old in zip(container, before, strict=False))
                if kept and len(container) > len(before):
                    yield Change("extend", place, container[len(before) :])
                elif not kept or len(container) < len(before):
                    yield Change("refill", place, list(container))
                continue
            ours = ("forward",) if not place.path else ()  # wrapped while a module is watched
            for key, value in container.items():
                if key not in ours and (key not in before or not same(value, before[key])):
                    yield Change("set", place.below(key), value)
            for key in before:
                if key not in container and key not in ours:
                    yield Change("delete", place.below(key))

    def _below(self, module: nn.Module) -> Iterator[_Held]:
        """What is held of a module and its parts."""
        for part in modules_of(module):
            yield from self._by_root[id(part.__dict__)]

    def _put_back(self) -> None:
        """Put everything back; may be done again.

        Raises:
            BaseException: the first that was raised on the way, once all that can be is done.
        """
        first: BaseException | None = None
        held = self._held.values()
        steps: list[Callable[[], None]] = [partial(restore, h.container, h.before) for h in held]
        if self._random is not None:
            steps.append(self._random.restore)
        for step in steps:
            for _ in range(2):  # an interrupt is over when it is tried again
                try:
                    step()
                    break
                except BaseException as error:
                    first = first or error
        if first is not None:
            raise first

    # -- the way through the model ---------------------------------------------------------------

    def _visit_module(self, module: nn.Module, name: str) -> None:
        if id(module.__dict__) in self._held:
            return
        self.modules.setdefault(name, module)
        if isinstance(module, torch.jit.ScriptModule):
            return  # its state is out of Python's reach
        if has_hooks(module):
            self.hooked[module] = may_change(module)
            if splits(module):
                self.split.add(module)
        if module._backward_hooks and not module._is_full_backward_hook:
            self.legacy.add(module)
        self._visit(module.__dict__, Place(module.__dict__, (), name), 0)
        for hooks in HOOKS:
            module.__dict__[hooks] = type(module.__dict__[hooks])()

    def _hold(self, container: Any, place: Place, key: int | None = None) -> bool:
        """Write down what is in ``container``; whether it was not yet."""
        key = id(container) if key is None else key
        if key in self._held:
            return False
        self._held[key] = _Held(container, place, content_of(container))
        self._by_root[id(place.root)].append(self._held[key])
        return True

    def _visit(self, container: Any, place: Place, depth: int, key: int | None = None) -> None:
        """Hold ``container``, swap the tensors in it, and go on below it."""
        if not self._hold(container, place, key) or not isinstance(
            container, list | dict | Attributes
        ):
            return
        items = enumerate(container) if isinstance(container, list) else container.items()
        for name, value in list(items):
            if name == "_modules" and isinstance(value, dict):
                self._hold(value, place.below(name))
            if name in HOOKS or name == "_modules":
                continue
            replaced = self._replace(value, place.below(name), depth)
            if replaced is not value:
                container[name] = replaced

    def _replace(self, value: Any, place: Place, depth: int) -> Any:
        if isinstance(value, ATOMS):
            return value
        if isinstance(value, Tensor):
            return self._clone(value, place)
        if isinstance(value, nn.Module):
            registered = set(self.modules.values())
            for name, module in value.named_modules():
                if module not in registered:  # in a plain list, say
                    self._visit_module(module, joined(place.name, name) if name else place.name)
        elif isinstance(value, (dict, list)) or is_opaque(value):
            self._visit(value, place, depth)
        elif isinstance(value, tuple):
            parts = [self._replace(part, place.below(i), depth) for i, part in enumerate(value)]
            if any(new is not old for new, old in zip(parts, value, strict=True)):
                return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        elif isinstance(value, torch.Generator):
            self.generators.append(value)
        elif depth < MAX_OBJECT_DEPTH and is_plain_object(value):
            self._visit(attributes_of(value), place.below(INSIDE), depth + 1, id(value))
        return value

    def _clone(self, tensor: Tensor, place: Place) -> Tensor:
        if nn.parameter.is_lazy(tensor):
            raise TraceError(
                f"'{place.name}' is not initialized yet (a lazy module). "
                "Run the model once on the example, then analyze it."
            )
        if id(tensor) not in self._clones:
            try:
                if is_sharded(tensor):
                    copy = whole(self.model, tensor, place.name)
                    if isinstance(tensor, nn.Parameter):
                        copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
                else:
                    copy = _clone(tensor, self._memory, self.in_place)
            except TraceError:
                raise
            except Exception as error:
                raise TraceError(
                    f"'{place.name}', a {type(tensor).__name__}, cannot be cloned "
                    f"({type(error).__name__}: {error}), so the model could not be left as it is. "
                    "Keep plain tensors in the model."
                ) from error
            self._clones[id(tensor)] = (tensor, copy)
            self.places[id(copy)] = place
        else:
            self.shared.append((self.places[id(self._clones[id(tensor)][1])], place))
        return self._clones[id(tensor)][1]


def _is_usual(tensor: Tensor) -> bool:
    """Whether there is nothing more to a tensor than numbers in memory."""
    plain = type(tensor) in (Tensor, nn.Parameter) and not nn.parameter.is_lazy(tensor)
    return plain and tensor.layout == torch.strided and not tensor.is_quantized


def _clone(tensor: Tensor, memory: dict[int, Any], in_place: Container[int]) -> Tensor:
    """A copy in other memory, with the attributes that Python code has put on the tensor.

    Args:
        tensor: the original.
        memory: copies of what tensors lie in, by address; those that share theirs share a copy.
        in_place: memory that needs no copy.
    """
    begin = address_of(tensor) if _is_usual(tensor) else 0
    if begin in in_place:
        copy = tensor.data
    elif begin and storage_of(tensor).nbytes() <= _ROOMY * tensor.numel() * tensor.itemsize:
        if begin not in memory:
            memory[begin] = storage_of(tensor).clone()
        lies = tensor.storage_offset(), tensor.shape, tensor.stride()
        copy = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(memory[begin], *lies)
    else:
        copy = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
        if type(tensor) is not nn.Parameter:  # one with methods of its own
            copy.__class__ = type(tensor)
    elif tensor.is_leaf:
        copy = copy.requires_grad_(tensor.requires_grad)
    else:
        with torch.enable_grad():
            copy = copy.requires_grad_(tensor.requires_grad).clone()
    copy.__dict__.update(tensor.__dict__)
    return copy


_ROOMY = 16  # times its own size: in memory that is larger, a part of it has a copy of its own


class Undo:
    """What a forward may change, beside parameters, to make it as if it had never run.

    Args:
        model: any module; it is used as it is, nothing is lent.
        values: the arguments of the forward.
    """

    def __init__(self, model: nn.Module, values: tuple[Any, ...] = ()) -> None:
        self._contents: dict[int, tuple[Any, Any]] = {}
        self._values: list[tuple[Tensor, int, Tensor]] = []
        self._parameters = [(p, p._version) for p in parameters_of(model)]
        generators: list[torch.Generator] = []
        for value in leaves_of(values):
            if isinstance(value, Tensor):
                self._keep(value)
        for module in modules_of(model):
            if not isinstance(module, torch.jit.ScriptModule):
                self._look(module.__dict__, 0, generators)
        self._random = RandomStates.save(generators)

    def back(self) -> bool:
        """Make everything what it was; whether that can be done: no parameter was written to."""
        for container, content in self._contents.values():
            restore(container, content)
        with torch.no_grad():
            for tensor, version, values in self._values:  # batch norms write, and no version tells
                dense = tensor.layout is torch.strided
                if tensor._version != version or (dense and not torch.equal(tensor, values)):
                    tensor.copy_(values)
        self._random.restore()
        return all(parameter._version == version for parameter, version in self._parameters)

    def _keep(self, tensor: Tensor) -> None:
        if not isinstance(tensor, nn.Parameter):
            self._values.append((tensor, tensor._version, tensor.detach().clone()))

    def _look(self, container: Any, depth: int, generators: list[torch.Generator]) -> None:
        if id(container) in self._contents or depth > MAX_OBJECT_DEPTH:
            return
        self._contents[id(container)] = (container, content_of(container))
        if not isinstance(container, list | dict | Attributes):
            return
        for value in container if isinstance(container, list) else container.values():
            parts = value if isinstance(value, tuple) else (value,)
            for part in parts:
                if isinstance(part, Tensor):
                    self._keep(part)
                elif isinstance(part, torch.Generator):
                    generators.append(part)
                elif isinstance(part, dict | list) or is_opaque(part):
                    self._look(part, depth + 1, generators)
                elif not isinstance(part, nn.Module) and is_plain_object(part):
                    self._look(attributes_of(part), depth + 1, generators)


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
        found: dict[str, Any] = {}
        if is_alone():
            found["torch's random numbers"] = torch_random_state()
            found["Python's random numbers"] = python_random_state()
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
