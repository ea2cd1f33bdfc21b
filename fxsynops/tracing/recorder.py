"""The recorder behind :func:`fxsynops.tracing.trace`: it watches one forward, writes a graph.

Recorder.run(inputs)
  ├─ call(func, args)            a torch function or method, a custom autograd function
  │    ├─ _branch                … that returned a plain value read out of a tensor
  │    └─ bind                   … whose results (and written arguments) are from now on a node
  ├─ call_module(path, args)     a module that is kept whole
  └─ _write_back(change)         what the forward left behind in the model
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, fx, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from fxsynops.errors import FxSynopsError, TraceError
from fxsynops.tracing import graph_functions
from fxsynops.tracing import interception as watch
from fxsynops.tracing.borrowed import Borrowed, Change, Place, python_random_state
from fxsynops.tracing.graph_functions import getitem
from fxsynops.tracing.inputs import Inputs
from fxsynops.tracing.node_meta import Mode, Site, TensorSpec, main_device, site_below, site_of

# Synapses inside of a call that stays whole: by name, each in torch operations on what went in and
# what came out. They are run once, beside the recording, for the analysis alone.
Inside = Callable[[Any, dict[str, Any], Any], dict[str, Callable[[], Any]]]

# Calls that return plain values and read no data. Any other plain value is a branch on data.
_METADATA = frozenset(
    """size dim ndimension numel nelement stride storage_offset is_contiguous is_floating_point
    is_complex is_signed element_size get_device type is_same_size data_ptr untyped_storage storage
    is_pinned is_shared is_inference is_set_to result_type can_cast is_tensor __len__ __hash__
    __repr__ __format__ __str__ __dir__ has_names _is_view dim_order is_coalesced is_conj is_neg
    __get__ _typed_storage broadcast_shapes is_storage register_hook""".split()
)
# Calls whose result's size depends on data.
_SIZED_BY_DATA = frozenset(
    "nonzero argwhere unique unique_consecutive masked_select repeat_interleave bincount".split()
)


class Recorder(TorchFunctionMode):
    """Watches one forward of a model and writes down a graph that replays it.

    Args:
        model: the model.
        borrowed: its state, borrowed for the run.
        whole: which modules become one node each.
        inside: the synapses inside of such a module, or of a function, if any.

    Attributes:
        graph, reads, constants, branches, values, stateful, written, mode: see
            ``fxsynops.tracing.trace.Trace``.
        quiet: whether what happens now is already part of a node.
    """

    def __init__(
        self,
        model: nn.Module,
        borrowed: Borrowed,
        whole: Callable[[nn.Module], bool],
        inside: Callable[[Any], Inside | None],
    ) -> None:
        super().__init__()
        self.model = model
        self.graph = fx.Graph()
        self.reads: dict[str, Place] = {}
        self.constants: dict[str, Tensor] = {}
        self.branches: list[str] = []
        self.stateful: set[str] = set()
        self.written: dict[str, fx.Node] = {}
        self.values: list[tuple[Callable[..., Any], Place, Any]] = []
        self.quiet = True
        self._borrowed = borrowed
        self._whole = whole
        self._inside_of = inside
        self._virtual = False  # whether nodes are for the analysis alone
        self._paths = {module: name for name, module in borrowed.modules.items()}
        self._own = {id(p) for p in model.parameters()}  # those of scripted modules stay in place
        self._inner = {part for m in self._paths if whole(m) for part in m.modules()}
        self._nodes: Any = WeakIdKeyDictionary()
        self._by_storage: dict[int, list[ReferenceType[Tensor]]] = defaultdict(list)
        self._compiled: list[Any] = []  # results of compiled code, kept for their memory's sake
        self._hidden: set[int] = set()  # memory that was first used inside of something whole
        self._attributes: dict[tuple[int, Any], Place] = {}
        self._versions: dict[str, tuple[Tensor, int]] = {}
        self._stack: list[str] = [""]
        self._last_call: dict[nn.Module, fx.Node] = {}
        self._specs: dict[tuple[torch.Size, torch.dtype], TensorSpec] = {}
        self._device = main_device(model)
        self.mode = Mode.now(self._device)
        self._random = python_random_state()

    # -- the run ---------------------------------------------------------------------------------

    def run(self, inputs: Inputs) -> None:
        """Run the model on ``inputs`` and complete the graph.

        Raises:
            TraceError: see :func:`fxsynops.tracing.trace.trace`.
        """
        for name, value in zip(inputs.names, inputs.values, strict=True):
            self.bind(value, self._node("placeholder", name, (), {}, name))
        with ExitStack() as stack:
            if not any(isinstance(m, torch.jit.ScriptModule) for m in self._paths):
                # No backward follows, so nothing needs to be kept for one.
                hooks = torch.autograd.graph.saved_tensors_hooks(lambda _: None, _no_backward)
                stack.enter_context(hooks)
            stack.enter_context(watch.module_calls(self._paths, self._wrapper))
            stack.enter_context(watch.attributes(self, self._paths))
            stack.enter_context(watch.autograd_functions(self))
            stack.enter_context(watch.seeding(self))
            stack.enter_context(watch.compiled_code(self))
            stack.enter_context(self)
            self.quiet = False
            try:
                output = self.model(*inputs.args, **inputs.kwargs)
            except FxSynopsError:
                raise
            except Exception as error:
                raise TraceError(self._explain(error)) from error
            finally:
                self.quiet = True
        self._check_random()
        self._write_back()
        for name, (tensor, version) in self._versions.items():
            if tensor._version != version:
                self.stateful.add(name)
                self.written[name] = self._nodes[tensor]
        self._node("output", "output", (self._output(output),), {})

    def conditions(self) -> Iterator[Place]:
        """What Python read from the model: attributes, submodules, and the tensors of the graph."""
        for module, path in self._paths.items():
            if module.__dict__["_modules"] and module not in self._inner:
                yield Place(module.__dict__, ("_modules",), path)
        yield from self._attributes.values()
        yield from self.reads.values()

    def _explain(self, error: Exception) -> str:
        where = site_of(error)
        module = f"module '{self._stack[-1]}'" if self._stack[-1] else "the model's own forward"
        return (
            f"{type(self.model).__name__} cannot be traced: {module} raised "
            f"{type(error).__name__}: {error}{f' ({where})' if where else ''}. "
            "Check that model(example) runs, and that the example is what the model expects."
        )

    # -- what the watchers tell ------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.quiet or any(map(is_functorch_wrapped_tensor, _tensors((args, kwargs)))):
            return func(*args, **kwargs)  # what vmap makes of it is compiled code
        return self.call(func, args, kwargs)

    def call(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run: Callable[..., Any] | None = None,
    ) -> Any:
        """Call ``func`` and record it (``run`` is what to execute, if not ``func`` itself)."""
        mode = Mode.now(self._device)
        with self._quietly():
            function = _function_class(func)
            name = (function or func).__name__ if hasattr(func, "__name__") else "call"
            tensors = list(_tensors((args, kwargs)))
            versions = [t._version for t in tensors]
            known = [self._known(t) for t in tensors]
            result = (run or func)(*args, **kwargs)
            produced = list(_tensors(result))
            written = _distinct(
                t
                for i, (t, v) in enumerate(zip(tensors, versions, strict=True))
                if t._version != v or (name == "__set__" and i == 0)
            )
            if not produced and not written and result is not None:
                if any(known) and name not in _METADATA:
                    self._branch(func, name, args, kwargs, result)
                return result
            if not produced and not tensors:
                return result  # a mode switch, a seed: no tensor in sight
            if func is torch.ops.aten.lift_fresh.default:  # a tensor made of plain numbers
                func = torch.clone
            if func is Tensor.__setitem__:
                func = graph_functions.setitem
            nodes = self._args(args), self._args(kwargs)
            node = self._node("call_function", func, *nodes, name, mode)
            if function:
                node.meta["function"] = function
                node.meta["whole_numbers"] = all(map(_is_whole, produced)) and _fires(
                    function, args, run or func
                )
            self.bind(tensors[0] if func is graph_functions.setitem else result, node)
            if name in _SIZED_BY_DATA or any(t.dtype == torch.bool for t in _indices(func, args)):
                self._check_sizes(produced)
            if isinstance(func, torch._ops.OpOverload):
                self._compiled.append(result)
            self._note_writes(written, produced, node)
        if (inside := self._inside_of(func)) is not None:
            given = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
            self._run_inside(self._stack[-1], lambda: inside(func, given, result))
        return result

    def call_module(
        self, path: str, forward: Callable[..., Any], direct: bool, args: Any, kwargs: Any
    ) -> Any:
        """Run a whole module and record it as one node."""
        self._check_random()
        mode = Mode.now(self._device)
        with self._quietly():
            tensors = list(_tensors((args, kwargs)))
            versions = [t._version for t in tensors]
            nodes = self._args(args), self._args(kwargs)
            module = self._borrowed.modules[path]
            self._write_back(module)
            result = forward(*args, **kwargs)
            self._borrowed.settle(module)
            self._random = python_random_state()
            if direct:
                target, nodes = graph_functions.forward_of, ((module, *nodes[0]), nodes[1])
                node = self._node("call_function", target, *nodes, path or "forward", mode)
            else:
                node = self._node("call_module", path, *nodes, path or "model", mode)
            self.bind(result, node)
            self._last_call[module] = node
            written = [t for t, v in zip(tensors, versions, strict=True) if t._version != v]
            self._note_writes(_distinct(written), list(_tensors(result)), node)
            inside = self._inside_of(module)
        if inside is not None:
            given = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
            self._run_inside(path, lambda: inside(module, given, result))
        return result

    def _run_inside(self, path: str, inside: Callable[[], dict[str, Callable[[], Any]]]) -> None:
        """Record the synapses inside of a call that is one node."""
        self._virtual, before = True, self._virtual
        for name, run in inside().items():
            with self._inside(f"{path}.{name}" if path else name):
                run()
        self._virtual = before

    def call_function_class(self, cls: Any, args: tuple[Any, ...]) -> Any:
        """Run ``cls.apply(*args)``, a custom autograd function, as one node."""
        if cls.__module__ == "torch.utils.checkpoint":  # (run_function, preserve_rng_state, *args)
            return args[0](*args[2:])
        return self.call(cls.apply, args, {}, lambda *args: watch.apply_function(cls, *args))

    def note_attribute(self, module: nn.Module, name: str, value: Any) -> None:
        """Python has read ``module.name``: the trace holds only while it stays what it is."""
        if module not in self._paths:
            return
        with self._quietly():
            if not isinstance(value, Tensor):
                self._note_plain(module, name, value)
            elif module not in self._inner:
                if name in module.__dict__:
                    self._condition(module, name)
                self._known(value)
            elif not self._known(value):  # the state of a module kept whole: as it is now
                place = Place(
                    module.__dict__, _where(module, name, value), f"{self._paths[module]}.{name}"
                )
                after = tuple(n for m, n in self._last_call.items() if module in set(m.modules()))
                node = self._node(
                    "call_function", graph_functions.read_state, (place, *after), {}, name
                )
                self.bind(value, node)

    def _note_plain(self, module: nn.Module, name: str, value: Any) -> None:
        called = any(module in set(m.modules()) for m in self._last_call)
        if called and not self._virtual and self._borrowed.differs(module, name, value):
            raise TraceError(
                f"'{self._paths[module]}.{name}' is read after a call that changes it "
                f"{self._site()}; the recorded graph would repeat {value!r} forever. Read it "
                "before the call, or keep the module that reads it whole (spiking=[ItsType])."
            )
        if name in module.__dict__ or value is watch.MISSING:
            self._condition(module, name)
        elif (owner := _owner(type(module), name)) is not None:  # an attribute of a class
            self._condition(module, name)  # is not in the module itself
            held: Any = vars(owner)  # read only, but that is all
            place = Place(held, (name,), f"{owner.__name__}.{name}")
            self._attributes.setdefault((id(owner), (name,)), place)
        elif not hasattr(type(module), name):  # kept in a dict of the module's own
            for key, held in module.__dict__.items():
                if isinstance(held, dict) and key != "_modules" and name in held:
                    self._condition(module, key, name)
        if value is None or value is watch.MISSING:
            self._condition(module, "_buffers", name)

    def _condition(self, module: nn.Module, *path: str) -> None:
        name = ".".join(part for part in (self._paths[module], path[-1]) if part)
        self._attributes.setdefault((id(module), path), Place(module.__dict__, path, name))

    def note_hidden(self, result: Any, args: Any) -> None:
        """Remember memory that first appears inside of something whole."""
        for tensor in _tensors(result):
            storage = _storage(tensor)
            if storage not in self._by_storage and all(
                _storage(t) != storage for t in _tensors(args)
            ):
                self._hidden.add(storage)

    def _branch(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        site = self._site()
        comparable = all(isinstance(v, bool | int | float | complex) for v in _leaves(result))
        if kwargs or not comparable:
            raise TraceError(
                f"a tensor's values leave torch through .{name.strip('_')}() {site}, and what "
                "becomes of them cannot be recorded. Stay in torch operations, or put this code "
                "in a module that is kept whole (spiking=[ItsType])."
            )
        nodes = [self._node_of(t) for t in _tensors(args)]
        if len(args) == 1 and nodes[0].op == "get_attr" and str(nodes[0].target) in self.reads:
            # The model's own value, not yet touched: known before the replay begins.
            self.values.append((func, self.reads[str(nodes[0].target)], result))
            return
        where = site.where or str(site)
        self.branches.append(f"{where}: {name.strip('_')}() was {result!r}"[:200])
        self._node(
            "call_function", graph_functions.check_branch, (func, self._args(args), result, where)
        )

    def _check_sizes(self, results: list[Tensor]) -> None:
        """The size of these tensors depends on data: each replay checks it."""
        site = self._site()
        where = site.where or str(site)
        for tensor in results:
            size = tuple(tensor.shape)
            self.branches.append(f"{where}: a size was {size}")
            call = (graph_functions.size_of, (self._nodes[tensor],), size, where)
            self._node("call_function", graph_functions.check_branch, call)

    # -- nodes and values ------------------------------------------------------------------------

    def bind(self, value: Any, node: fx.Node) -> None:
        """From now on, ``value`` (a tensor, or tensors in tuples, lists, dicts) is ``node``."""
        if isinstance(value, Tensor):
            self._bind_tensor(value, node)
        else:
            self._bind_parts(value, node, (), {})

    def _bind_tensor(self, value: Tensor, node: fx.Node) -> None:
        key = (value.shape, value.dtype)
        node.meta["spec"] = self._specs.setdefault(key, TensorSpec(*key))
        self._nodes[value] = node
        self._by_storage[_storage(value)].append(ref(value))

    def _bind_parts(
        self, value: Any, node: fx.Node, path: tuple[Any, ...], bound: dict[int, fx.Node]
    ) -> None:
        """One node for each tensor, also where it was returned more than once."""
        for key, part, get in _parts(value):
            if id(part) in bound:
                bound[id(part)].meta["also"].append((*path, key))
            elif next(_tensors(part), None) is not None:
                name = f"{node.name}_{key}"
                child = self._node("call_function", get, (node, key), {}, name)
                if isinstance(part, Tensor):
                    child.meta["also"] = []
                    bound[id(part)] = child
                    self._bind_tensor(part, child)
                else:
                    self._bind_parts(part, child, (*path, key), bound)

    def _node(
        self,
        op: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        mode: Mode | None = None,
    ) -> fx.Node:
        name = name or getattr(target, "__name__", None) or op
        name = "".join(c if c.isalnum() else "_" for c in name).strip("_") or op
        name = f"n_{name}" if name[0].isdigit() else name
        node = self.graph.create_node(op, target, args, kwargs or {}, name)
        node.meta["site"] = self._site() if op.startswith("call") else Site("", "")
        node.meta["mode"] = mode or self.mode
        if self._virtual:
            node.meta["virtual"] = True
            node.meta["module"] = self._stack[-1]
        return node

    def _site(self) -> Site:
        return site_below(Recorder.run.__code__, self._stack[-1])

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
            if isinstance(tensor, nn.Parameter) and id(tensor) not in self._own:
                raise TraceError(
                    f"a parameter that is not the model's is used {self._site()}. Register it (or "
                    "the module that owns it) before the analysis; if the forward makes it at its "
                    "first call, run the model once."
                )
            if _storage(tensor) in self._hidden:
                raise TraceError(
                    f"a tensor that was made out of sight is used {self._site()}: inside of a "
                    "module that is kept whole, which did not return it, or by code that is no "
                    "torch function. Let the module return it, or keep the code that uses it whole "
                    "too (spiking=[ItsType])."
                )
            target = f"_constant_{len(self.constants)}"
            self.constants[target] = tensor
            self.bind(tensor, self._node("get_attr", target, (), {}, target))
        return self._nodes[tensor]

    def _read_state(self, tensor: Tensor, place: Place) -> None:
        owner = next((m for m in self._last_call if m.__dict__ is place.root), None)
        if owner is not None and place.get() is not tensor:
            raise TraceError(
                f"'{place.name}' was read before and is used after a call that changes it "
                f"{self._site()}. Use it before the call, for example by '{place.name} * 1'."
            )
        self.reads[place.name] = place
        self._versions[place.name] = (tensor, tensor._version)
        self.bind(tensor, self._node("get_attr", place.name, (), {}, place.name))

    def _alias_of_known(self, tensor: Tensor) -> bool:
        """A tensor object that came by no recorded call, but shares a known one's memory."""
        for other in self._aliases(tensor):
            geometry = (tensor.shape, tensor.stride(), tensor.storage_offset())
            node = self._nodes[other]
            if geometry != (other.shape, other.stride(), other.storage_offset()):
                node = self._node("call_function", torch.as_strided, (node, *geometry))
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

    def _note_writes(self, written: list[Tensor], results: list[Tensor], node: fx.Node) -> None:
        """Tensors that ``node`` wrote to, and all that share their memory, have new values."""
        node.meta["writes"] = bool(written)
        returned = {id(t) for t in results}
        for tensor in written:
            if id(tensor) not in returned and node.target is not graph_functions.setitem:
                change = (self._node_of(tensor), node)
                self.bind(tensor, self._node("call_function", graph_functions.after, change))
            for alias in self._aliases(tensor):
                geometry = tuple(
                    (tuple(t.shape), t.stride(), t.storage_offset()) for t in (alias, tensor)
                )
                args = (self._nodes[alias], self._nodes[tensor], geometry)
                self.bind(alias, self._node("call_function", graph_functions.alias_after, args))

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
        return self._built(value)

    def _built(self, value: Any) -> Any:
        """An object that holds tensors, built by a node; any other value as it is."""
        if isinstance(value, torch.Generator) and value not in self._borrowed.generators:
            raise TraceError(
                f"a random generator that is not the model's is used {self._site()}, and the "
                "recorded graph would draw other numbers from it. Keep it in an attribute."
            )
        if not is_dataclass(value) or isinstance(value, type):
            held = getattr(value, "__dict__", None)
            held = held.values() if isinstance(held, dict) else ()
            known = isinstance(value, nn.Module | type)
            if not known and any(isinstance(part, Tensor) for part in held):
                raise TraceError(
                    f"a {type(value).__name__} that holds tensors is passed or returned "
                    f"{self._site()}; what is in it cannot be followed. Pass and return "
                    "tensors, tuples, lists, dicts or dataclasses of them."
                )
            return value
        if next(_tensors(value), None) is None:
            return value
        content = {f.name: self._args(getattr(value, f.name)) for f in fields(value)}
        return self._node("call_function", graph_functions.build, (type(value), content))

    def _output(self, value: Any) -> Any:
        """What the forward returned; dicts keep their own type."""
        if isinstance(value, dict) and type(value) is not dict:
            content = {k: self._output(v) for k, v in value.items()}
            return self._node("call_function", graph_functions.build, (type(value), content))
        if type(value) is dict:
            return {k: self._output(v) for k, v in value.items()}
        if type(value) in (tuple, list):
            return type(value)(self._output(v) for v in value)
        if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
            parts = [self._output(v) for v in value]
            return self._node("call_function", graph_functions.build, (type(value), parts))
        return self._args(value)

    def _write_back(self, module: nn.Module | None = None) -> None:
        """Do again what the forward did to the model (``None``), or to a module kept whole."""
        for change in list(self._borrowed.changes(module)):
            self._write(change)
            self.stateful.add(change.place.name)

    def _write(self, change: Change) -> None:
        place, value = change.place, change.value
        owner, _, key = place.name.rpartition(".")
        if place.path and place.path[0] in ("_parameters", "_modules"):
            raise TraceError(
                f"the forward replaces '{place.name}', a parameter or submodule of "
                f"'{owner or 'the model'}'. Create it before the analysis (run the model once), "
                "and change parameters outside of forward."
            )
        holder = next((leaf for leaf in _leaves(value) if not _is_replayable(leaf)), None)
        if holder is not None:
            raise TraceError(
                f"the forward keeps a {type(holder).__name__} in '{place.name}', which a replay "
                "cannot keep up to date. Keep tensors and numbers in attributes or buffers, or "
                f"name the module's type in spiking= to keep '{owner or 'it'}' whole."
            )
        call = (Change(change.action, place), self._args(value))
        self._node("call_function", graph_functions.change_state, call, {}, f"set_{key}")
        self._note_written(place, value)

    def _note_written(self, place: Place, value: Any) -> None:
        """Which nodes the next forward will find in a place, and below it."""
        if isinstance(value, Tensor):
            self.written[place.name] = self._nodes[value]
        for key, part, _ in _parts(value):
            self._note_written(place.below(key), part)

    # -- modules ---------------------------------------------------------------------------------

    def _wrapper(self, module: nn.Module, path: str, forward: Callable[..., Any]) -> Any:
        whole = self._whole(module)
        hooked = module in self._borrowed.hooked

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.quiet:
                return forward(*args, **kwargs)
            called = watch.is_called()
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
        if module in self._borrowed.legacy:
            raise TraceError(
                f"module '{self._stack[-1]}' has a hook of register_backward_hook, which cannot be "
                "graph_functions. Use register_full_backward_hook."
            )
        call = (module, self._args(args), self._args(kwargs))
        before = self._node("call_function", graph_functions.before_call, call)
        self.bind((args, kwargs), before)
        for name, (tensor, _) in self._versions.items():  # a hook may have computed it anew
            if self.reads[name].root is module.__dict__:
                self._nodes.pop(tensor, None)
        handed_on = self._args((args, kwargs))
        output = forward(*args, **kwargs)
        backward = self._node("call_function", getitem, (before, 2))
        call = (module, *handed_on, backward, self._args(output))
        self.bind(output, self._node("call_function", graph_functions.after_call, call))
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
            module = self._stack[-1] or type(self.model).__name__
            raise TraceError(
                f"the forward draws from Python's or NumPy's random numbers in '{module}' or "
                "before; the recorded graph would repeat one draw forever. Draw with torch "
                "(torch.rand, torch.bernoulli), or keep the module whole (spiking=[ItsType])."
            )


def _function_class(func: Any) -> Any:
    """The custom autograd function whose ``apply`` this is, or None."""
    owner = getattr(func, "__self__", None)
    is_function = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    return owner if is_function else None


def _indices(func: Any, args: tuple[Any, ...]) -> Iterator[Tensor]:
    """The tensors in the index of ``x[index]``."""
    return _tensors(args[1:]) if func is Tensor.__getitem__ else iter(())


def _no_backward(_: Any) -> Tensor:
    raise TraceError(
        "the forward runs a backward pass of its own (torch.autograd.grad or .backward()), which "
        "cannot be recorded. Name the type of the module that does so in spiking= to keep it whole."
    )


def _parts(value: Any) -> Iterator[tuple[Any, Any, Callable[[Any, Any], Any]]]:
    """What a tuple, list, dict or dataclass holds: key, value, and how to get it."""
    if isinstance(value, tuple | list):
        for i, part in enumerate(value):
            yield i, part, getitem
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key, part, getitem
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield entry.name, getattr(value, entry.name, None), getattr


def _leaves(value: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists and dicts."""
    if isinstance(value, tuple | list | dict):
        for _, part, _ in _parts(value):
            yield from _leaves(part)
    else:
        yield value


def _where(module: nn.Module, name: str, value: Any) -> tuple[str, ...]:
    """The path to an attribute from a module's ``__dict__``: in it, or in a dict that it holds."""
    if name in module.__dict__:
        return (name,)
    for key, held in module.__dict__.items():
        if isinstance(held, dict) and held.get(name) is value:
            return key, name
    return "_buffers", name


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a value; those of slices, too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, slice):
        yield from _tensors((value.start, value.stop, value.step))
    else:
        for _, part, _ in _parts(value):
            yield from _tensors(part)


def _is_replayable(value: Any) -> bool:
    """Whether an attribute can be set to ``value`` again: a tensor, or a constant."""
    if isinstance(value, Tensor | None | bool | int | float | complex | str | bytes):
        return True
    return isinstance(value, torch.dtype | torch.device | type) or callable(value)


def _is_whole(tensor: Tensor) -> bool:
    """Whether all values are whole numbers, as far as there are values."""
    if tensor.is_meta or isinstance(tensor, FakeTensor) or not tensor.is_floating_point():
        return True
    return bool((tensor == tensor.round()).all())


def _fires(function: Any, args: tuple[Any, ...], run: Callable[..., Any]) -> bool:
    """Whether a custom function gives whole numbers for other values than the example's, too."""

    def other(value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, nn.Parameter) or value.is_meta:
            return value
        if not value.is_floating_point() or isinstance(value, FakeTensor):
            return value
        steps = torch.arange(value.numel(), device=value.device, dtype=torch.float32)
        return (3 * torch.sin(steps + 0.5)).reshape(value.shape).to(value.dtype)

    if function.__module__.startswith("torch."):
        return True
    try:
        with torch.no_grad():
            result = run(*map(other, args))
    except Exception:  # it wants particular values
        return True
    return all(map(_is_whole, _tensors(result)))


def _distinct(tensors: Any) -> list[Tensor]:
    return list({id(t): t for t in tensors}.values())


def _owner(cls: type, name: str) -> type | None:
    """The class, not one of torch's, that has an attribute which others than forwards read."""
    base = next((base for base in cls.__mro__ if name in vars(base)), None)
    if base is None or name == "forward" or base.__module__.split(".")[0] == "torch":
        return None
    return base


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # sparse and other tensors without storage
        return id(tensor)
