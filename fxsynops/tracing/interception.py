"""Ways to hear of what a forward does, each a context that is open while the forward runs.

The recorder itself sees torch functions, as a ``TorchFunctionMode``; these see the rest: calls of
modules, reads of attributes, custom autograd functions, and operations that come from compiled
code (scripted functions, ``vmap``).
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, _SingleLevelFunction
from torch.utils._python_dispatch import TorchDispatchMode

from fxsynops.errors import TraceError
from fxsynops.tracing import torch_versions
from fxsynops.tracing.graph_functions import shallow_copy

_UNREAD = frozenset(
    """_parameters _buffers _modules _forward_hooks _forward_pre_hooks _backward_hooks
    _backward_pre_hooks _forward_hooks_with_kwargs _forward_pre_hooks_with_kwargs forward
    _non_persistent_buffers_set _is_full_backward_hook _forward_hooks_always_called
    _compiled_call_impl _call_impl""".split()
)


MISSING = object()  # the value of an attribute that is not there


class Listener(Protocol):
    """What the contexts here tell a recorder."""

    @property
    def quiet(self) -> bool:
        """Whether it does not want to hear anything now."""

    @property
    def hears_reads(self) -> bool:
        """Whether it wants to hear of attributes that are read now."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation that nothing else has seen."""

    def call_function_class(self, cls: Any, args: tuple[Any, ...]) -> Any:
        """``cls.apply(*args)`` of a custom autograd function."""

    def note_attribute(self, module: nn.Module, name: str, value: Any) -> None:
        """Python has read ``module.name``."""

    def note_writing(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An operation is about to write to what it is given."""

    def note_hidden(self, func: Any, result: Any, args: Any) -> None:
        """An operation inside of something that is recorded as a whole."""


class compiled_code(TorchDispatchMode):  # noqa: N801
    """Operations below ``__torch_function__``."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch wraps what hears of each operation, which loads the compiler (1 s)."""
        return not torch_versions.can_be_eager()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.empty.memory_format and args[0] == [0] and (made := _in_making()):
            with torch._C.DisableTorchFunction():  # it holds no elements: nothing to record
                return func(*args, **kwargs).as_subclass(made)
        if func._schema.is_mutable or "norm" in func.__name__:  # some write, and do not say so
            self.listener.note_writing(func, args, kwargs)
        if not self.listener.quiet:
            return self.listener.call(func, args, kwargs)
        with torch._C.DisableTorchFunction():  # which would only hear of the same again
            result = func(*args, **kwargs)
            self.listener.note_hidden(func, result, args)
        return result


def _in_making() -> type[Tensor] | None:
    """The subclass of ``Tensor`` whose ``__new__`` has led here; it takes no base class instead."""
    frame, depth = sys._getframe(2), 0
    while frame is not None and depth < 4:
        cls = frame.f_locals.get("cls") if frame.f_code.co_name == "__new__" else None
        if isinstance(cls, type) and issubclass(cls, Tensor):
            return cls
        frame, depth = frame.f_back, depth + 1  # type: ignore[assignment]
    return None


@contextmanager
def attributes(listener: Listener, modules: Iterable[nn.Module]) -> Iterator[None]:
    """What Python reads from modules.

    ``nn.Module`` itself is watched, not each model: only reads tell what a trace depends on. Guards
    on all that the called modules hold would trace anew whenever something changes that the forward
    never reads, and would miss what classes hold, and what ``__getattr__`` makes up.
    """
    own = {c for m in modules for c in type(m).__mro__ if "__getattr__" in c.__dict__}
    found = {cls: cls.__dict__["__getattr__"] for cls in own - {nn.Module}}
    behind, above = nn.Module.__getattr__, nn.Module.__dict__.get("__getattribute__")

    def read(module: nn.Module, name: str) -> Any:
        value = object.__getattribute__(module, name)
        if listener.hears_reads and name not in _UNREAD and name[:2] != "__":
            listener.note_attribute(module, name, value)
        return value

    def read_registered(module: nn.Module, name: str) -> Any:
        try:
            value = behind(module, name)
        except AttributeError:
            if not listener.quiet and name[:2] != "__":
                listener.note_attribute(module, name, MISSING)
            raise
        if not listener.quiet and (value is None or isinstance(value, Tensor)):
            listener.note_attribute(module, name, value)
        return value

    def find(lookup: Callable[..., Any]) -> Callable[..., Any]:
        def read_found(module: nn.Module, name: str) -> Any:
            value = lookup(module, name)
            if not listener.quiet and name[:2] != "__":
                listener.note_attribute(module, name, value)
            return value

        return read_found

    for cls, lookup in found.items():
        cls.__getattr__ = find(lookup)  # type: ignore[attr-defined]
    nn.Module.__getattribute__ = read  # type: ignore[method-assign,assignment]
    nn.Module.__getattr__ = read_registered  # type: ignore[method-assign]
    try:
        yield
    finally:
        del nn.Module.__getattribute__
        if above is not None:
            nn.Module.__getattribute__ = above  # type: ignore[method-assign]
        nn.Module.__getattr__ = behind  # type: ignore[method-assign]
        for cls, lookup in found.items():
            cls.__getattr__ = lookup  # type: ignore[attr-defined]


def apply_of(cls: Any) -> Callable[..., Any]:
    """What ``cls.apply`` of a custom autograd function is, whoever listens."""
    return torch._C._FunctionBase.__dict__["apply"].__get__(None, cls)


@contextmanager
def autograd_functions(listener: Listener) -> Iterator[None]:
    """Custom autograd functions, also those called through an old ``apply``.

    ``Function.apply`` is looked up early by ``act = Fn.apply``. Where it is written in Python, it
    calls ``super().apply`` late, and that is where this waits; else see :class:`_Lookups`.
    """

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if listener.quiet or (not in_python and torch._C._are_functorch_transforms_active()):
            return apply_of(cls)(*args, **kwargs)
        if not in_python and _sets_up(cls):
            bound = inspect.signature(cls.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            args = bound.args
        return listener.call_function_class(cls, args)

    in_python = torch_versions.applies_in_python()
    owners = [_SingleLevelFunction] if in_python else [_SingleLevelFunction, Function]
    before = [owner.__dict__.get("apply") for owner in owners]
    for owner in owners:
        owner.apply = classmethod(apply)  # type: ignore[attr-defined]
    try:
        with nullcontext() if in_python else _Lookups(listener).heard():
            yield
    finally:
        for owner, own in zip(owners, before, strict=True):
            del owner.apply  # type: ignore[attr-defined]
            if own is not None:
                owner.apply = own  # type: ignore[attr-defined]


def _sets_up(cls: Any) -> bool:
    """Whether a function's ``forward`` takes no context, for ``setup_context`` does."""
    own = type.__getattribute__(cls, "setup_context")
    return own is not _SingleLevelFunction.__dict__["setup_context"].__func__


class _Lookups:
    """Calls of an ``apply`` that was bound before, and is not written in Python.

    It looks up ``setup_context`` in the function's class, then ``forward``, calls it, and then
    ``setup_context``, if the class has one of its own. So ``forward`` is given for the whole call,
    which is recorded as one node, and nothing is left to be set up.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.cls: Any = None  # whose apply has begun
        self.grad = True  # where it was called
        self.done = False  # its forward
        self.unchanged: list[Tensor] = []  # arguments that it has returned

    @contextmanager
    def heard(self) -> Iterator[None]:
        meta = type(Function)
        before = meta.__dict__.get("__getattribute__")

        def look_up(cls: Any, name: str) -> Any:
            found = (before or type.__getattribute__)(cls, name)
            called = name in ("forward", "setup_context") and cls is not _SingleLevelFunction
            if not called or self.listener.quiet:
                return found
            return self._give(cls, name, found)

        meta.__getattribute__ = look_up  # type: ignore[method-assign]
        try:
            yield
        finally:
            del meta.__getattribute__
            if before is not None:
                meta.__getattribute__ = before  # type: ignore[method-assign]

    def _give(self, cls: Any, name: str, found: Any) -> Any:
        if name == "setup_context":
            if self.cls is cls and self.done:
                self.cls = None
                return self._set_up
            self.cls, self.grad, self.done = cls, torch.is_grad_enabled(), False
        elif self.cls is cls and not self.done:
            return self._whole_call(cls, found)
        return found

    def _whole_call(self, cls: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        sets_up = _sets_up(cls)

        @functools.wraps(forward)
        def run(*args: Any) -> Any:
            given = args if sets_up else args[1:]
            with torch.set_grad_enabled(self.grad):
                result = self.listener.call_function_class(cls, given)
            returned = result if isinstance(result, tuple) else (result,)
            self.unchanged = [t for t in returned if any(t is arg for arg in given)]
            if sets_up:
                self.done = True
            else:
                self.cls = None
                self._set_up(args[0])
            return result

        return run

    def _set_up(self, context: Any, *_: Any) -> None:
        """Arguments that come back are handed on as the tensors that they are."""
        if self.unchanged:
            context.mark_dirty(*self.unchanged)
        self.unchanged = []


@contextmanager
def shallow_copies(listener: Listener) -> Iterator[None]:
    """``copy.copy`` of a tensor, which takes it to pieces and puts them together again."""

    def copied(tensor: Tensor) -> Any:
        if listener.quiet:
            return copy._reconstruct(tensor, None, *tensor.__reduce_ex__(4))  # type: ignore
        return listener.call(shallow_copy, (tensor,), {})

    Tensor.__copy__ = copied  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del Tensor.__copy__  # type: ignore[attr-defined]


@contextmanager
def uncompiled() -> Iterator[None]:
    """What ``torch.compile`` has compiled, or would, runs as it is written."""
    if "torch._dynamo" not in sys.modules or not torch_versions.can_be_eager():
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def unoptimized(functions: Iterable[Any], modules: Iterable[nn.Module]) -> Iterator[None]:
    """Scripted code runs operation by operation.

    Once it is optimized, it cuts its inputs off, and differentiates on its own.
    """
    scripted = [m for m in modules if isinstance(m, torch.jit.ScriptModule)]
    methods = [getattr(m, name, None) for m in scripted for name in m._c._method_names()]
    for function in (*functions, *methods):
        if hasattr(function, "_debug_flush_compilation_cache"):
            function._debug_flush_compilation_cache()  # which optimizes again, later
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        yield


@contextmanager
def module_calls(
    modules: dict[nn.Module, str],
    wrap: Callable[[nn.Module, str, Callable[..., Any]], Callable[..., Any]],
) -> Iterator[None]:
    """Each module's ``forward``, called or not, is replaced by what ``wrap`` makes of it."""
    before = {module: module.__dict__.get("forward") for module in modules}
    for module, path in modules.items():
        if not isinstance(module, torch.jit.ScriptModule):
            module.__dict__["forward"] = wrap(module, path, module.forward)
    try:
        yield
    finally:
        for module, forward in before.items():
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.__dict__["forward"] = forward


@contextmanager
def _refused(listener: Listener, functions: list[tuple[Any, str]], reason: str) -> Iterator[None]:
    """Some functions, by their owners and names, may not be called."""

    def refuse(function: Callable[..., Any]) -> Callable[..., Any]:
        def refused(*args: Any, **kwargs: Any) -> Any:
            if listener.quiet:
                return function(*args, **kwargs)
            raise TraceError(reason)

        return refused

    before = [(owner, name, getattr(owner, name)) for owner, name in functions]
    for owner, name, function in before:
        setattr(owner, name, refuse(function))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def seeding(listener: Listener) -> AbstractContextManager[None]:
    """Refuse to set torch's random state, which a graph would not do again."""
    names = ("manual_seed", "seed", "set_rng_state")
    return _refused(
        listener,
        [(owner, name) for owner in (torch, torch.random) for name in names],
        "the forward sets the state of torch's random numbers (manual_seed, fork_rng), which "
        "cannot be recorded. Seed outside of the forward, or keep the module that does so whole "
        "(spiking=[ItsType]).",
    )


def threads(listener: Listener) -> AbstractContextManager[None]:
    """Refuse work for other threads, which nobody watches."""
    return _refused(
        listener,
        [(threading.Thread, "start"), (ThreadPoolExecutor, "submit")],
        "the forward hands work to other threads, and what they do is not recorded. Do it in the "
        "forward's own, or keep the module that does so whole (spiking=[ItsType]).",
    )


@contextmanager
def inference(listener: Listener) -> Iterator[None]:
    """Inference mode is a mode without gradients: its tensors do not tell that they are written."""
    enter = torch.inference_mode.__enter__

    def entered(context: Any) -> None:
        if listener.quiet:
            enter(context)
        else:
            context._inference_mode_context = torch.no_grad() if context.mode else nullcontext()
            context._inference_mode_context.__enter__()

    torch.inference_mode.__enter__ = entered  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.inference_mode.__enter__ = enter  # type: ignore[method-assign]


def is_called() -> bool:
    """Whether the caller's caller is ``module(...)`` itself, and not a call of its ``forward``."""
    return sys._getframe(2).f_code.co_name == "_call_impl"
