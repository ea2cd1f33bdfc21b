"""The recorder behind :func:`fxsynops.trace.trace`: it watches one forward and writes a graph."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from types import CodeType
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import _SingleLevelFunction
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from fxsynops import replayed
from fxsynops.errors import FxSynopsError, TraceError
from fxsynops.inputs import Inputs
from fxsynops.state import Borrowed, Change, Place, python_random_state

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep

# Calls that return plain values and read no data. Any other plain value is a branch on data.
_METADATA = frozenset(
    """size dim ndimension numel nelement stride storage_offset is_contiguous is_floating_point
    is_complex is_signed element_size get_device type is_same_size data_ptr untyped_storage storage
    is_pinned is_shared is_inference is_set_to result_type can_cast is_tensor __len__ __hash__
    __repr__ __format__ __str__ __dir__ has_names _is_view dim_order is_coalesced is_conj is_neg
    __get__ __reduce_ex__ _typed_storage retain_grad requires_grad_ __deepcopy__""".split()
)
_LEAVES_TORCH = frozenset({"numpy", "__array__", "__dlpack__"})
_IGNORED_ATTRIBUTES = frozenset(
    """_parameters _buffers _modules _forward_hooks _forward_pre_hooks _backward_hooks
    _backward_pre_hooks _forward_hooks_with_kwargs _forward_pre_hooks_with_kwargs forward
    _non_persistent_buffers_set _is_full_backward_hook _forward_hooks_always_called
    _compiled_call_impl _call_impl""".split()
)


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a recorded tensor."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class Site:
    """Where in the source a node came from; equal for the same place in a loop.

    Attributes:
        module: path of the innermost module in whose forward the call stands ("" is the root).
        where: ``file:line`` of the user's own code, or "".
        code: the instruction of the innermost call.
    """

    module: str
    where: str
    code: tuple[CodeType, int] | None = None

    def __str__(self) -> str:
        place = f"in module '{self.module}'" if self.module else "in the model's forward"
        return f"{place} ({self.where})" if self.where else place


@dataclass(frozen=True)
class Mode:
    """Gradient and autocast mode that a node ran under."""

    grad: bool
    autocast: tuple[bool, torch.dtype]
    device: str

    @classmethod
    def now(cls, device: str) -> Mode:
        """The mode in force."""
        autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        return cls(torch.is_grad_enabled(), autocast, device)


class _Slipped(TorchDispatchMode):
    """Sees the operations that the recorder has not seen, below everything else."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.recorder.quiet:
            return func(*args, **kwargs)
        return self.recorder.call(func, args, kwargs)


class Recorder(TorchFunctionMode):
    """Watches one forward of a model and writes down a graph that replays it.

    Attributes:
        graph, reads, constants, branches, values, stateful: see :class:`fxsynops.trace.Trace`.
        quiet: whether what happens now is already part of a node.
        mode: the ambient mode.
    """

    def __init__(
        self, model: nn.Module, borrowed: Borrowed, whole: Callable[[nn.Module], bool]
    ) -> None:
        super().__init__()
        self.model = model
        self.graph = fx.Graph()
        self.reads: dict[str, Place] = {}
        self.constants: dict[str, Tensor] = {}
        self.branches: list[str] = []
        self.stateful: set[str] = set()
        self.values: list[tuple[Callable[..., Any], Place, Any]] = []
        self.quiet = True
        self._borrowed = borrowed
        self._whole = whole
        self._paths = {module: name for name, module in borrowed.modules.items()}
        self._nodes: Any = WeakIdKeyDictionary()
        self._by_storage: dict[int, list[ReferenceType[Tensor]]] = defaultdict(list)
        self._read: dict[tuple[int, str], Place] = {}
        self._versions: dict[str, tuple[Tensor, int]] = {}
        self._stack: list[str] = [""]
        self._specs: dict[tuple[torch.Size, torch.dtype], TensorSpec] = {}
        self._device = next((p.device.type for p in model.parameters()), "cpu")
        if self._device == "meta":
            self._device = "cpu"
        with torch.inference_mode(False), torch.enable_grad():
            self.mode = Mode.now(self._device)
        self._random = python_random_state()

    # -- the run ---------------------------------------------------------------------------------

    def run(self, inputs: Inputs) -> None:
        """Run the model on ``inputs`` and complete the graph.

        Raises:
            TraceError: see :func:`fxsynops.trace.trace`.
        """
        for name, value in zip(inputs.names, inputs.values, strict=True):
            self.bind(value, self._node("placeholder", name, (), {}, name))
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            # No backward follows, so nothing needs to be kept for one.
            stack.enter_context(
                torch.autograd.graph.saved_tensors_hooks(lambda _: None, _no_backward)
            )
            stack.enter_context(self._wrapped_modules())
            stack.enter_context(_noted_attributes(self))
            stack.enter_context(_caught_functions(self))
            stack.enter_context(_Slipped(self))
            stack.enter_context(self)
            self.quiet = False
            try:
                output = self.model(*inputs.args, **inputs.kwargs)
            except FxSynopsError:
                raise
            except Exception as error:
                where = _where_of(error)
                raise TraceError(
                    f"{type(self.model).__name__} cannot be traced: its forward raised "
                    f"{type(error).__name__}: {error}\n  in module '{self._stack[-1]}'"
                    f"{f' ({where})' if where else ''}. "
                    "Check that model(example) runs, and that the example is what it expects."
                ) from error
            finally:
                self.quiet = True
        self._check_random()
        for change in self._borrowed.changes(self._whole):
            self._write_back(change)
            self.stateful.add(change.place.name)
        self.stateful |= {k for k, (t, version) in self._versions.items() if t._version != version}
        self._node("output", "output", (self._output(output),), {})

    def attributes_read(self) -> Iterator[Place]:
        """What Python read from the model's modules, and the tensors the graph reads."""
        yield from self._read.values()
        yield from self.reads.values()

    # -- recording calls -------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        return func(*args, **kwargs) if self.quiet else self.call(func, args, kwargs)

    def call(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run: Callable[..., Any] | None = None,
    ) -> Any:
        """Call ``func`` and record it (``run`` is what to execute, if not ``func`` itself)."""
        function = _function_class(func)
        name = function.__name__ if function else getattr(func, "__name__", type(func).__name__)
        tensors = list(_tensors((args, kwargs)))
        versions = [t._version for t in tensors]
        known = [self._known(t) for t in tensors]
        mode = Mode.now(self._device)
        with self._quietly():
            result = (run or func)(*args, **kwargs)
        produced = list(_tensors(result))
        written = [
            t
            for t, v in zip(tensors, versions, strict=True)
            if t._version != v or (name == "__set__" and t is args[0])
        ]
        if not produced and not written and result is not None:
            if tensors and any(known) and name not in _METADATA and func is not Tensor.size:
                self._branch(func, name, args, kwargs, result)
            return result
        if not produced and not tensors:
            return result  # a mode switch, a seed: no tensor in sight
        if name == "__setitem__":
            func, kwargs = replayed.setitem, {}
        node = self._node("call_function", func, self._args(args), self._args(kwargs), name, mode)
        if function:
            node.meta["function"] = function
            node.meta["whole_numbers"] = all(_are_whole(t) for t in produced)
        if name == "__setitem__":
            self.bind(args[0], node)
        else:
            self.bind(result, node)
        results = {id(t) for t in produced}
        for tensor in _distinct(written):
            if id(tensor) not in results and name != "__setitem__":
                change = (self._node_of(tensor), node)
                self.bind(tensor, self._node("call_function", replayed.after, change, {}))
            self._update_aliases(tensor)
        return result

    def call_module(
        self, path: str, forward: Callable[..., Any], direct: bool, args: Any, kwargs: Any
    ) -> Any:
        """Run a whole module and record it as one node."""
        self._check_random()
        tensors = list(_tensors((args, kwargs)))
        versions = [t._version for t in tensors]
        for tensor in tensors:
            self._known(tensor)
        mode = Mode.now(self._device)
        with self._quietly():
            result = forward(*args, **kwargs)
        self._random = python_random_state()
        args, kwargs = self._args(args), self._args(kwargs)
        if direct:
            module = self._borrowed.modules[path]
            node = self._node(
                "call_function", replayed.forward_of, (module, *args), kwargs, path, mode
            )
            node.meta["module"] = path
        else:
            node = self._node("call_module", path, args, kwargs, path or "model", mode)
        self.bind(result, node)
        results = {id(t) for t in _tensors(result)}
        for tensor, version in zip(tensors, versions, strict=True):
            if tensor._version != version and id(tensor) not in results:
                change = (self._node_of(tensor), node)
                self.bind(tensor, self._node("call_function", replayed.after, change, {}))
                self._update_aliases(tensor)
        return result

    def call_function_class(self, cls: Any, args: tuple[Any, ...]) -> Any:
        """Run ``cls.apply(*args)``, a custom autograd function, as one node."""
        if cls.__module__ == "torch.utils.checkpoint":  # (run_function, preserve_rng_state, *args)
            return args[0](*args[2:])

        def run(*args: Any) -> Any:
            return _apply(cls, *args)

        return self.call(cls.apply, args, {}, run)

    def note_attribute(self, module: nn.Module, name: str) -> None:
        """Python has read ``module.name``: the trace holds only while it stays what it is."""
        key = (id(module), name)
        if key not in self._read and name in module.__dict__ and module in self._paths:
            self._read[key] = Place(
                module.__dict__, (name,), f"{self._paths[module]}.{name}".lstrip(".")
            )

    def _branch(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        site = self._site()
        if name in _LEAVES_TORCH or kwargs or not _comparable(result):
            raise TraceError(
                f"a tensor's values leave torch through .{name.strip('_')}() {site}, and what "
                "becomes of them cannot be recorded. Stay in torch operations, or put this code in "
                "a module that is kept whole (spiking=[ItsType])."
            )
        where = site.where or str(site)
        nodes = [self._node_of(t) for t in _tensors(args)]
        if len(args) == 1 and nodes[0].op == "get_attr" and str(nodes[0].target) in self.reads:
            # The model's own value, not yet touched: known before the replay begins.
            self.values.append((func, self.reads[str(nodes[0].target)], result))
            return
        self.branches.append(f"{where}: {name.strip('_')}() was {result!r}"[:200])
        call = (func, self._args(args), result, where)
        self._node("call_function", replayed.check_branch, call, {})

    # -- nodes and values ------------------------------------------------------------------------

    def bind(self, value: Any, node: fx.Node) -> None:
        """From now on, ``value`` (a tensor, or tensors in tuples, lists, dicts) is ``node``."""
        if isinstance(value, Tensor):
            key = (value.shape, value.dtype)
            node.meta["spec"] = self._specs.setdefault(key, TensorSpec(*key))
            self._nodes[value] = node
            self._by_storage[_storage(value)].append(ref(value))
        elif isinstance(value, (tuple, list)):
            for i, part in enumerate(value):
                self._bind_part(part, node, getitem, i)
        elif isinstance(value, dict):
            for key, part in value.items():
                self._bind_part(part, node, getitem, key)
        elif is_dataclass(value) and not isinstance(value, type):
            for entry in fields(value):
                self._bind_part(getattr(value, entry.name), node, getattr, entry.name)

    def _bind_part(self, part: Any, node: fx.Node, get: Any, key: Any) -> None:
        if next(_tensors(part), None) is not None:
            self.bind(part, self._node("call_function", get, (node, key), {}, f"{node.name}_{key}"))

    def _node(
        self,
        op: str,
        target: Any,
        args: Any,
        kwargs: Any,
        name: str | None = None,
        mode: Mode | None = None,
    ) -> fx.Node:
        name = name or getattr(target, "__name__", None) or op
        name = "".join(c if c.isalnum() else "_" for c in name).strip("_") or op
        name = f"n_{name}" if name[0].isdigit() else name
        node = self.graph.create_node(op, target, args, kwargs, name)
        node.meta["site"] = self._site() if op.startswith("call") else Site("", "")
        node.meta["mode"] = mode or self.mode
        return node

    def _known(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` has a node, made for it now if it is the model's own."""
        if tensor in self._nodes:
            return True
        if id(tensor) in self._borrowed.places:
            self._read_state(tensor, self._borrowed.places[id(tensor)])
            return True
        return self._alias_of_known(tensor)

    def _node_of(self, tensor: Tensor) -> fx.Node:
        if not self._known(tensor):
            target = f"_constant_{len(self.constants)}"
            self.constants[target] = tensor
            self.bind(tensor, self._node("get_attr", target, (), {}, target))
        return self._nodes[tensor]

    def _read_state(self, tensor: Tensor, place: Place) -> None:
        self.reads[place.name] = place
        self._versions[place.name] = (tensor, tensor._version)
        self.bind(tensor, self._node("get_attr", place.name, (), {}, place.name))

    def _alias_of_known(self, tensor: Tensor) -> bool:
        """A tensor object that came by no recorded call, but shares a known one's memory."""
        for other in self._aliases(tensor):
            geometry = (tensor.shape, tensor.stride(), tensor.storage_offset())
            node = self._node(
                "call_function", torch.as_strided, (self._nodes[other], *geometry), {}
            )
            self.bind(tensor, node)
            return True
        return False

    def _aliases(self, tensor: Tensor) -> list[Tensor]:
        """Other known tensors in the same memory."""
        references = self._by_storage.get(_storage(tensor), [])
        live = {id(t): t for t in (r() for r in references) if t is not None}
        if len(live) < len(references):
            self._by_storage[_storage(tensor)] = [ref(t) for t in live.values()]
        return [t for t in live.values() if t is not tensor and t in self._nodes]

    def _update_aliases(self, written: Tensor) -> None:
        """Views and bases of a written tensor have new values, too."""
        for alias in self._aliases(written):
            geometry = tuple(
                (tuple(t.shape), t.stride(), t.storage_offset()) for t in (alias, written)
            )
            args = (self._nodes[alias], self._nodes[written], geometry)
            self.bind(alias, self._node("call_function", replayed.alias_after, args, {}))

    def _args(self, value: Any) -> Any:
        """``value`` with a node in place of each tensor."""
        if isinstance(value, Tensor):
            return self._node_of(value)
        if isinstance(value, tuple):
            parts = [self._args(v) for v in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if isinstance(value, list):
            return [self._args(v) for v in value]
        if isinstance(value, dict):
            return {k: self._args(v) for k, v in value.items()}
        if isinstance(value, slice):
            return slice(*(self._args(v) for v in (value.start, value.stop, value.step)))
        return value

    def _output(self, value: Any) -> Any:
        """``value``, where objects that hold tensors are built by a node."""
        if next(_tensors(value), None) is None:
            return value
        if is_dataclass(value) and not isinstance(value, dict):
            content = {f.name: self._output(getattr(value, f.name)) for f in fields(value)}
            return self._node("call_function", replayed.build, (type(value), content), {})
        if isinstance(value, dict) and type(value) is not dict:
            content = {k: self._output(v) for k, v in value.items()}
            return self._node("call_function", replayed.build, (type(value), content), {})
        if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
            return type(value)(self._output(v) for v in value)
        if type(value) is dict:
            return {k: self._output(v) for k, v in value.items()}
        return self._args(value)

    def _write_back(self, change: Change) -> None:
        place, value = change.place, change.value
        owner, _, key = place.name.rpartition(".")
        if place.path and place.path[0] in ("_parameters", "_modules"):
            raise TraceError(
                f"the forward replaces '{place.name}', a parameter or submodule of "
                f"'{owner or 'the model'}'. Create it before the analysis (run the model once), and "
                "change parameters outside of forward."
            )
        holder = next((o for o in _objects(value) if not _is_replayable(o)), None)
        if holder is not None:
            raise TraceError(
                f"the forward keeps a {type(holder).__name__} in '{place.name}', which a replay "
                "cannot keep up to date. Keep tensors and numbers in attributes or buffers, or "
                f"name the module's type in spiking= to keep '{owner or 'it'}' whole."
            )
        call = (Change(change.action, place), self._args(value))
        self._node("call_function", replayed.change_state, call, {}, f"set_{key}")

    # -- modules ---------------------------------------------------------------------------------

    @contextmanager
    def _wrapped_modules(self) -> Iterator[None]:
        """Each module's ``forward`` tells the recorder when it is called."""
        before = {m: m.__dict__.get("forward") for m in self._paths}
        for module, path in self._paths.items():
            if not isinstance(module, torch.jit.ScriptModule):
                module.__dict__["forward"] = self._wrapper(module, path, module.forward)
        try:
            yield
        finally:
            for module, forward in before.items():
                module.__dict__.pop("forward", None)
                if forward is not None:
                    module.__dict__["forward"] = forward

    def _wrapper(self, module: nn.Module, path: str, forward: Callable[..., Any]) -> Any:
        whole = self._whole(module)
        hooked = module in self._borrowed.hooked

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.quiet:
                return forward(*args, **kwargs)
            called = sys._getframe(1).f_code.co_name == "_call_impl"
            if whole:
                return self.call_module(path, forward, not called, args, kwargs)
            with self._inside(path):
                if called and hooked:
                    return self._with_hooks(module, forward, args, kwargs)
                return forward(*args, **kwargs)

        return wrapped

    def _with_hooks(
        self, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """The hooks are nodes; what they hand on is taken to be what they got."""
        before = self._node(
            "call_function",
            replayed.before_call,
            (module, self._args(args), self._args(kwargs)),
            {},
        )
        self.bind((args, kwargs), before)
        before_args = self._args((args, kwargs))
        output = forward(*args, **kwargs)
        backward = self._node("call_function", getitem, (before, 2), {})
        after = self._node(
            "call_function",
            replayed.after_call,
            (module, *before_args, backward, self._args(output)),
            {},
        )
        self.bind(output, after)
        return output

    @contextmanager
    def _inside(self, path: str) -> Iterator[None]:
        self._stack.append(path)
        yield
        self._stack.pop()  # not after an error: its message names the module

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        self.quiet, before = True, self.quiet
        try:
            yield
        finally:
            self.quiet = before

    def _check_random(self) -> None:
        if python_random_state() != self._random:
            raise TraceError(
                f"the forward draws from Python's or NumPy's random numbers before or in "
                f"'{self._stack[-1] or type(self.model).__name__}'; the recorded graph would repeat "
                "one draw forever. Draw with torch (torch.rand, torch.bernoulli) instead."
            )

    def _site(self) -> Site:
        """The innermost frame outside of torch, and the user's own line."""
        frame = sys._getframe(1)
        code = None
        where = library = ""
        while frame is not None:
            path = frame.f_code.co_filename
            if path.startswith(_HERE):
                if frame.f_code is Recorder.run.__code__:
                    break
            elif not path.startswith(_TORCH) and not path.startswith("<"):
                code = code or (frame.f_code, frame.f_lasti)
                line = f"{path}:{frame.f_lineno}"
                if "site-packages" not in path:
                    where = line
                    break
                library = library or line
            frame = frame.f_back  # type: ignore[assignment]
        return Site(self._stack[-1], where or library, code)


def _function_class(func: Any) -> Any:
    """The custom autograd function whose ``apply`` this is, or None."""
    owner = getattr(func, "__self__", None)
    is_function = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    return owner if is_function else None


def getitem(value: Any, key: Any) -> Any:
    """``value[key]`` of a tuple, list or dict that a call returned."""
    return value[key]


@contextmanager
def _noted_attributes(recorder: Recorder) -> Iterator[None]:
    """While open, ``recorder`` hears of every attribute that Python reads from a module."""

    def read(module: nn.Module, name: str) -> Any:
        value = object.__getattribute__(module, name)
        if not recorder.quiet and name not in _IGNORED_ATTRIBUTES and name[:2] != "__":
            recorder.note_attribute(module, name)
        return value

    nn.Module.__getattribute__ = read  # type: ignore[method-assign]
    try:
        yield
    finally:
        del nn.Module.__getattribute__


def _apply(cls: Any, *args: Any) -> Any:
    """What ``Function.apply`` does below its Python wrapper."""
    return torch._C._FunctionBase.__dict__["apply"].__get__(None, cls)(*args)


@contextmanager
def _caught_functions(recorder: Recorder) -> Iterator[None]:
    """While open, custom autograd functions come to ``recorder``, also through an old ``apply``.

    ``Function.apply`` is looked up early by ``act = Fn.apply``, but it calls ``super().apply``
    late, and that is where this waits.
    """

    def apply(cls: Any, *args: Any) -> Any:
        return _apply(cls, *args) if recorder.quiet else recorder.call_function_class(cls, args)

    _SingleLevelFunction.apply = classmethod(apply)  # type: ignore[assignment]
    try:
        yield
    finally:
        del _SingleLevelFunction.apply


def _no_backward(_: Any) -> Tensor:
    raise TraceError(
        "the forward runs a backward pass of its own (torch.autograd.grad or .backward()), which "
        "cannot be recorded. Name the type of the module that does so in spiking= to keep it whole."
    )


def _objects(value: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists and dicts."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _objects(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _objects(part)
    else:
        yield value


def _tensors(value: Any) -> Iterator[Tensor]:
    for leaf in _objects(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            for entry in fields(leaf):
                yield from _tensors(getattr(leaf, entry.name, None))


def _is_replayable(value: Any) -> bool:
    """Whether a change to ``value`` can be repeated: a tensor, or a constant."""
    if isinstance(value, (Tensor, type(None), bool, int, float, complex, str, bytes)):
        return True
    return isinstance(value, (torch.Size, torch.dtype, torch.device, type)) or callable(value)


def _comparable(value: Any) -> bool:
    return all(isinstance(v, (bool, int, float, complex)) for v in _objects(value))


def _are_whole(tensor: Tensor) -> bool:
    """Whether all values are whole numbers, as far as there are values."""
    if tensor.is_meta or isinstance(tensor, FakeTensor) or not tensor.is_floating_point():
        return True
    return bool((tensor == tensor.round()).all())


def _distinct(tensors: list[Tensor]) -> list[Tensor]:
    return list({id(t): t for t in tensors}.values())


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # sparse and other tensors without storage
        return id(tensor)


def _where_of(error: BaseException) -> str:
    """``file:line`` of the innermost frame of the user's own code that ``error`` passed through."""
    where = ""
    traceback = error.__traceback__
    while traceback is not None:
        path = traceback.tb_frame.f_code.co_filename
        if not path.startswith((_HERE, _TORCH)):
            where = f"{path}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return where
