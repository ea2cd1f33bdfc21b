"""The recorder behind :func:`fxsynops.tracing.trace`: it watches one forward, writes a graph.

Recorder.run(inputs)
  ├─ call(func, args)            a torch function or method, a custom autograd function
  │    ├─ _branch                … that returned a plain value read out of a tensor
  │    └─ Tensors.bind           … whose results (and written arguments) are from now on a node
  ├─ call_module(path, args)     a module that is kept whole
  ├─ ModelReads.note             an attribute that Python has read
  └─ _write_back(change)         what the forward left behind in the model
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.weak import WeakIdKeyDictionary

from fxsynops.errors import FxSynopsError, TraceError
from fxsynops.tracing import graph_functions, interception, trials
from fxsynops.tracing.borrowed import Borrowed
from fxsynops.tracing.devices import users_device
from fxsynops.tracing.graph_functions import getitem, is_assignment
from fxsynops.tracing.graph_writer import GraphWriter
from fxsynops.tracing.inputs import Inputs
from fxsynops.tracing.model_reads import ModelReads
from fxsynops.tracing.node_meta import Mode, called_by, main_device, site_below, site_of
from fxsynops.tracing.places import ATOMS, Change, Place
from fxsynops.tracing.random_states import is_alone, python_random_state
from fxsynops.tracing.stand_ins import GrownList, ReadNumber, is_stand_in, number
from fxsynops.tracing.surroundings import Surroundings
from fxsynops.tracing.tensors import Tensors, memory_of
from fxsynops.tracing.torch_api import modules_of
from fxsynops.tracing.trees import leaves_of, mapped, parts_of, tensors_in
from fxsynops.tracing.trials import Trials, try_out
from fxsynops.tracing.witness import FACTORS, Witness

# Synapses inside of a call that stays whole: by name, each in torch operations on what went in and
# what came out. They are run once, beside the recording, for the analysis alone.
Inside = Callable[[Any, dict[str, Any], Any], dict[str, Callable[[], Any]]]

# Calls that return plain values and read no data. Any other plain value is a branch on data.
_METADATA = frozenset(
    """size dim ndimension numel nelement stride storage_offset is_contiguous is_floating_point
    is_complex is_signed element_size get_device type is_same_size data_ptr untyped_storage storage
    __dlpack__ __dlpack_device__ is_pinned is_shared is_inference is_set_to result_type can_cast
    is_tensor __len__ __hash__ __repr__ __format__ __str__ __dir__ has_names _is_view dim_order
    is_coalesced is_conj is_neg __get__ _typed_storage broadcast_shapes is_storage
    register_hook""".split()
)
_COMPARES = frozenset("eq ne __eq__ __ne__".split())
# Operations below torch's functions that leave values as they are.
_COPIES = frozenset("_to_copy clone detach alias view _unsafe_view contiguous lift_fresh".split())
_STORAGES = (torch.UntypedStorage, torch.TypedStorage)
# What hands out a tensor's memory, to write to it where nobody sees it.
_PAST_TORCH = frozenset(
    (
        *(Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr),
        *(Tensor.untyped_storage, Tensor._typed_storage, Tensor.storage),
        *(Tensor.apply_, Tensor.map_, Tensor.map2_),
        Tensor.__cuda_array_interface__.__get__,
    )
)
# Operations that read a number out of a tensor, or return as many elements as data say.
_READS_OUT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


@dataclass(frozen=True)
class Known:
    """What the recorder is told of the modules and functions that a forward calls.

    Attributes:
        whole: which modules become one node each.
        inside: the synapses inside of what stays one node (a module, or a function), if any; their
            nodes carry ``virtual`` in their meta and are for the analysis alone.
        meaning: what a call does, said in other functions, as a function of what tells data from
            weights; for the analysis alone, too.
        doubted: which of the whole modules may do something else than is known of them.
        fits: whether what such a module has returned, and whether it has multiplied with weights,
            is what is known of it.
        lent: the model's own numbers and lists for which something shall stand in, since forwards
            are known to change them.
    """

    whole: Callable[[nn.Module], bool]
    inside: Callable[[Any], Inside | None] = lambda _: None
    meaning: Callable[[Any, Any, Any], Callable[..., Any] | None] = lambda *_: None
    doubted: Callable[[nn.Module], bool] = lambda _: False
    fits: Callable[[nn.Module, Any, bool], bool] = lambda *_: True
    lent: tuple[Place, ...] = ()


class OpenedError(BaseException):
    """A module that was kept whole is to be recorded through. No ``except Exception`` stops it.

    Attributes:
        opened: the module.
    """

    def __init__(self, opened: nn.Module) -> None:
        super().__init__(f"a {type(opened).__name__} does something else than is known of it")
        self.opened = opened


class Recorder(TorchFunctionMode):
    """Watches one forward of a model and writes down a graph that replays it.

    Args:
        model: the model.
        borrowed: its state, borrowed for the run.
        known: what is known of the modules and functions that it calls.
        witness: what really happens is written down there, too.
        lends_numbers: whether numbers that Python reads are stood in for until they are used.

    Attributes:
        branches, stateful, written: see ``fxsynops.tracing.trace.Trace``.
        writer, tensors, model_reads: what writes nodes, knows tensors, notes what is read.
        surroundings: what the model's code reads beside the model.
        has_lent: whether numbers have been stood in for.
    """

    def __init__(
        self,
        model: nn.Module,
        borrowed: Borrowed,
        known: Known,
        witness: Witness | None,
        lends_numbers: bool,
    ) -> None:
        super().__init__()
        self.lends_numbers, self.has_lent = lends_numbers, False
        self.model = model
        self.branches: list[str] = []
        self.stateful: set[str] = set()
        self.written: dict[str, fx.Node] = {}
        self.witness = witness
        self._quiet, self._thread = True, get_ident()
        self._borrowed, self._known = borrowed, known
        self._paths = {module: name for name, module in borrowed.modules.items()}
        self._device = main_device(model)
        self.writer = GraphWriter(self._device, Recorder.run.__code__)
        self.tensors = Tensors(self.writer, borrowed, self._open_place)
        inner = {part for m in self._paths if known.whole(m) for part in modules_of(m)}
        self._inner = inner
        self._doubted = [m for m in self._paths if known.whole(m) and known.doubted(m)]
        self.surroundings = Surroundings(m for m in self._paths if m not in inner)
        self.model_reads = ModelReads(self.writer, self.tensors, borrowed, inner)
        self._binary: WeakIdKeyDictionary | None = None  # inside a custom function: what is 0 or 1
        self._multiplied = False  # likewise, or in a whole module: whether it has made a product
        self._trials: Trials = {}
        self._reads_out = False  # whether the present call has read a number out of a tensor
        self._compiled: list[Any] = []  # results of compiled code, kept for their memory's sake
        self._random = python_random_state()

    # -- the run ---------------------------------------------------------------------------------

    def run(self, inputs: Inputs) -> None:
        """Run the model on ``inputs`` and complete the graph.

        Raises:
            TraceError: see :func:`fxsynops.tracing.trace.trace`.
        """
        for name, value in zip(inputs.names, inputs.values, strict=True):
            self.tensors.bind(value, self.writer.node("placeholder", name, (), {}, name))
        if self.lends_numbers and not self.surroundings.asks_types:
            for place in self._known.lent:
                self._lend(place)
        with ExitStack() as stack:
            if not any(isinstance(m, torch.jit.ScriptModule) for m in self._paths):
                # No backward follows, so nothing needs to be kept for one.
                hooks = torch.autograd.graph.saved_tensors_hooks(lambda _: None, _no_backward)
                stack.enter_context(hooks)
            stack.enter_context(interception.module_calls(self._paths, self._wrapper))
            stack.enter_context(interception.attributes(self, self._paths))
            stack.enter_context(interception.autograd_functions(self))
            stack.enter_context(interception.shallow_copies(self))
            stack.enter_context(interception.seeding(self))
            stack.enter_context(interception.threads(self))
            stack.enter_context(interception.inference(self))
            stack.enter_context(interception.unoptimized(self.surroundings.scripted, self._paths))
            stack.enter_context(interception.uncompiled())
            stack.enter_context(interception.compiled_code(self))
            stack.enter_context(self)
            stack.enter_context(users_device())
            self._quiet = False
            try:
                output = self.model(*inputs.args, **inputs.kwargs)
            except BaseException as error:
                self.surroundings.put_back()
                if isinstance(error, FxSynopsError) or not isinstance(error, Exception):
                    raise
                raise TraceError(self._explain(error)) from error
            finally:
                self._quiet = True
        self.surroundings.check()
        self._check_random()
        self._write_back()
        for name, (tensor, version) in list(self.tensors.versions.items()):
            known = tensor in self.tensors
            past = known and _is_written(self.tensors[tensor])  # .data has no versions
            if tensor._version != version or past:
                self.stateful.add(name)
                self.written[name] = self.tensors.node_of(tensor)  # perhaps forgotten at a hook
        if self.witness is not None:
            self.witness.output = mapped(number, output)
        self.writer.node("output", "output", (self.tensors.output(output),), {})

    def _explain(self, error: Exception) -> str:
        compiles = type(error).__module__.startswith("torch._dynamo")
        words = str(error).replace("HigherOrderOperator ", "HOP ")
        if compiles or "HOP " in words:
            name = words.partition("HOP ")[2].partition(" ")[0]
            return (
                f"'{name or 'torch.cond, or the like'}' is called ({site_of(error)}), which takes "
                "functions, and what these do cannot be recorded. Write it in plain torch "
                "operations (torch.where, a loop), or keep the module that calls it whole "
                "(spiking=[ItsType])."
            )
        where = site_of(error)
        module = (
            f"module '{self.writer.module}'" if self.writer.module else "the model's own forward"
        )
        return (
            f"{type(self.model).__name__} cannot be traced: {module} raised "
            f"{type(error).__name__}: {error}{f' ({where})' if where else ''}. "
            "Check that model(example) runs, and that the example is what the model expects."
        )

    @property
    def quiet(self) -> bool:
        """Whether what happens now is already part of a node, or another thread's."""
        return self._quiet or get_ident() != self._thread

    @property
    def hears_reads(self) -> bool:
        """Whether a read of an attribute matters: the code of a custom function may read, too."""
        return get_ident() == self._thread and (not self._quiet or self._binary is not None)

    # -- what the watchers tell ------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.has_lent:
            args, kwargs = mapped(number, args), mapped(number, kwargs)
        if func in _PAST_TORCH and self._borrowed.in_place:
            for tensor in tensors_in(args):
                self._borrowed.about_to_write(tensor)
        if self.quiet or any(map(is_functorch_wrapped_tensor, tensors_in((args, kwargs)))):
            return func(*args, **kwargs)  # what vmap makes of it is compiled code
        for kind in types:
            if not issubclass(kind, Tensor):  # it says itself what torch's functions do to it
                with self:
                    return kind.__torch_function__(func, types, args, kwargs)
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
        if func is Tensor.__deepcopy__:
            func, args = graph_functions.deepcopy, args[:1]
        shown = self._said_otherwise(func, args, kwargs)
        with self._quietly():
            self._reads_out = _reads_out(func)
            function = _function_class(func)
            name = (function or func).__name__ if hasattr(func, "__name__") else "call"
            if name.strip("_") in ("make_dual", "unpack_dual", "fw_primal"):
                raise TraceError(
                    f"the forward computes forward-mode derivatives {self.writer.site()} (torch."
                    "func.jvp), which cannot be replayed. Name the type of the module that does so "
                    "in spiking= to keep it whole."
                )
            tensors = list(tensors_in((args, kwargs)))
            versions = [t._version for t in tensors]
            known = [self.tensors.known(t) for t in tensors]
            self._binary = WeakIdKeyDictionary() if function else None
            self._multiplied = False
            result = (run or func)(*args, **kwargs)
            binary, self._binary = self._binary, None
            if isinstance(func, torch._ops.OpOverload) and self.witness is not None:
                self.witness.see(func, args)  # no mode does
            sized, self._reads_out = self._reads_out, False
            produced = list(tensors_in(result))
            changed = [t for t, v in zip(tensors, versions, strict=True) if t._version != v]
            changed = _written_among(changed, produced or tensors[:1])
            assigned = tensors[:1] if _is_assignment(func) else []
            written = _distinct([*changed, *assigned, *_written_by_schema(func, args, kwargs)])
            if isinstance(result, _STORAGES) and called_by(name) == "user":
                raise TraceError(
                    f"a tensor's memory is looked at past torch {self.writer.site()}: what becomes"
                    f" of .{name}() cannot be recorded. Stay in torch operations (clone, view), or "
                    "keep the module that does so whole (spiking=[ItsType])."
                )
            if any(isinstance(arg, _STORAGES) for arg in leaves_of((args, kwargs))):
                for tensor in produced:  # a tensor over memory that another has
                    self.tensors.forget(tensor)
                    self.tensors.hidden.add(memory_of(tensor))
                    self.tensors.node_of(tensor)
                return result
            if not produced and not written and result is not None:
                if any(known) and name not in _METADATA:
                    return self._branch(func, name, args, kwargs, result)
                if any(known):
                    self._check_sizes(tensors)
                return result
            if not produced and not tensors:
                return result  # a mode switch, a seed: no tensor in sight
            if func is torch.ops.aten.lift_fresh.default:  # a tensor made of plain numbers
                func = torch.clone
                self.tensors.made_anew(tensors[0])
            if func is Tensor.__setitem__:
                func = graph_functions.setitem
            nodes = self.tensors.in_nodes(args), self.tensors.in_nodes(kwargs)
            node = self.writer.node("call_function", func, *nodes, name, mode)
            if name.startswith("new_") or (name.endswith("_like") and name[:4] != "rand"):
                node.meta["data"] = name == "new_tensor"  # of its operand, only size and dtype
            elif name.endswith("_as"):  # likewise, of all but the first
                node.meta["data"] = self.tensors[tensors[0]].meta["data"]
            if function:
                node.meta["function"] = function
                node.meta["binary"] = binary is not None and all(t in binary for t in produced)
                is_data = self._is_data(args, produced)
                trial = try_out(
                    function, run or func, args, produced, is_data, self._multiplied, self._trials
                )
                node.meta["trial"] = trial
                if trial.copied is not None:
                    shown = nodes[0][trial.copied]
            self._testify(node, tensors)
            if shown is not None:
                node.meta["as"] = shown
            if written:  # in place, where sizes stay
                node.meta["sized"] = any(self.tensors[t].meta["sized"] for t in written)
            else:
                masked = any(t.dtype == torch.bool for t in _indices(func, args))
                sparse = any(t.layout != torch.strided for t in produced)
                node.meta["sized"] |= sized or masked or sparse
            if not isinstance(result, Tensor | None):  # as many as there are rows, say
                self._check_sizes(tensors)
            self.tensors.bind(tensors[0] if func is graph_functions.setitem else result, node)
            if isinstance(func, torch._ops.OpOverload):
                self._compiled.append(result)
            self.tensors.note_writes(written, produced, node)
            if self.witness is not None:
                self.witness.note_writes(written, node)
            plain = isinstance(result, Tensor) and not written
            inlines = function is not None and plain and self._multiplied and not trial.apart
        if inlines and (inlined := self._inlined(function, args)) is not None:
            node.meta["as"] = inlined
            inlined.append(node)  # behind it, as it is understood
        if (inside := self._known.inside(func)) is not None:
            given = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
            self._run_inside(self.writer.module, lambda: inside(func, given, result))
        return result

    def _said_otherwise(self, func: Any, args: Any, kwargs: Any) -> fx.Node | None:
        """A call in other operations, recorded for the analysis alone: the node of its result."""
        meaning = None if self.writer.virtual else self._known.meaning(func, args, kwargs)
        if meaning is None:
            return None
        self.writer.virtual = True
        with ExitStack() as stack:
            if isinstance(func, torch._ops.OpOverload):  # called below where calls are seen
                stack.enter_context(interception.compiled_code(self))
            result = meaning(self._depends_on_data)
        self.writer.virtual = False
        return None if result is None else self.tensors.node_of(result)

    def _inlined(self, function: Any, args: tuple[Any, ...]) -> fx.Node | None:
        """The forward of a custom function with weights, recorded for the analysis alone."""
        path = f"{self.writer.module}.{function.__name__}".strip(".")
        before = set(self.writer.graph.nodes)
        try:
            with self._virtually(path), torch.no_grad():
                return self.tensors.node_of(trials.forward(function, args))
        except Exception:  # it does what cannot be recorded, and stays one node
            for node in self.writer.graph.nodes:
                node.meta["void"] = node not in before and node.op == "call_function"
            return None

    @contextmanager
    def _virtually(self, path: str) -> Iterator[None]:
        self.writer.virtual, before = True, self.writer.virtual
        try:
            with self.writer.inside(path):
                yield
        finally:
            self.writer.virtual = before

    def _depends_on_data(self, tensor: Tensor) -> bool:
        with self._quietly():
            return bool(self.tensors.node_of(tensor).meta["data"])

    def call_module(
        self, path: str, forward: Callable[..., Any], direct: bool, args: Any, kwargs: Any
    ) -> Any:
        """Run a whole module and record it as one node."""
        self._check_random()
        if self.has_lent:
            args, kwargs = mapped(number, args), mapped(number, kwargs)
        mode = Mode.now(self._device)
        with self._quietly():
            tensors = list(tensors_in((args, kwargs)))
            versions = [t._version for t in tensors]
            nodes = self.tensors.in_nodes(args), self.tensors.in_nodes(kwargs)
            module = self._borrowed.modules[path]
            self._write_back(module)
            self._multiplied = False
            result = forward(*args, **kwargs)
            doubted = module in self._doubted
            if doubted and not self._known.fits(module, result, self._multiplied):
                raise OpenedError(module)
            self._borrowed.settle(module)
            self._random = python_random_state()
            if direct:
                target, nodes = graph_functions.forward_of, ((module, *nodes[0]), nodes[1])
                node = self.writer.node("call_function", target, *nodes, path or "forward", mode)
            else:
                node = self.writer.node("call_module", path, *nodes, path or "model", mode)
                node.meta["hooked"] = any(self._borrowed.hooked.get(module, ()))
            self._testify(node, tensors)
            self.tensors.bind(result, node)
            self.tensors.note_call(module, node)
            written = [t for t, v in zip(tensors, versions, strict=True) if t._version != v]
            self.tensors.note_writes(_distinct(written), list(tensors_in(result)), node)
            inside = self._known.inside(module)
        if inside is not None:
            given = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
            self._run_inside(path, lambda: inside(module, given, result))
        return result

    def _is_data(self, args: tuple[Any, ...], results: list[Tensor]) -> Callable[[Tensor], bool]:
        """Tells the data among a function's operands from its caps, limits and levels."""
        data = {id(t) for t in tensors_in(args) if self.tensors[t].meta["data"]}
        sizes = {t.shape for t in results}
        return lambda t: id(t) in data if data else t.shape in sizes

    def _testify(self, node: fx.Node, operands: list[Tensor]) -> None:
        """What was multiplied since the last node is part of this one."""
        if self.witness is not None:
            self.witness.belongs(node, [(t, self.tensors[t]) for t in operands])

    def _run_inside(self, path: str, inside: Callable[[], dict[str, Callable[[], Any]]]) -> None:
        """Record the synapses inside of a call that is one node."""
        for name, run in inside().items():
            with self._virtually(f"{path}.{name}" if path else name):
                run()

    def call_function_class(self, cls: Any, args: tuple[Any, ...]) -> Any:
        """Run ``cls.apply(*args)``, a custom autograd function, as one node."""
        if cls is CheckpointFunction:  # (function, preserve_rng_state, *args)
            return args[0](*args[2:])
        apply = interception.apply_of(cls)
        return self.call(apply, args, {}, apply)

    def note_attribute(self, module: nn.Module, name: str, value: Any) -> None:
        """Python has read ``module.name``."""
        if is_stand_in(value):
            return
        if self._quiet and not isinstance(value, ATOMS):
            return  # in a custom function, which is one node
        with self._quietly():
            kinds = Tensor | dict | list | tuple
            if isinstance(value, kinds) or self._borrowed.is_new(module, name):
                self._open_owner(module)
            self.model_reads.note(module, name, value)

    def _open_place(self, place: Place) -> None:
        """The same, of a tensor that was read past attributes."""
        for module in self._doubted:
            if place.root is module.__dict__:
                self._open_owner(module)

    def _open_owner(self, part: nn.Module) -> None:
        """What a module has left in its attributes is known only if it does what is known of it."""
        for module in self._doubted if not self.writer.virtual else ():
            if part in set(modules_of(module)):
                raise OpenedError(module)

    def note_writing(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An operation is about to write to what it is given."""
        if self._borrowed.in_place:
            written = _written_by_schema(func, args, kwargs)
            for tensor in (*written, *_statistics(func, args, kwargs)):
                self._borrowed.about_to_write(tensor)

    def note_hidden(self, func: Any, result: Any, args: Any) -> None:
        """An operation inside of something that is recorded as a whole."""
        self.tensors.note_hidden(result, args)
        reads_out, multiplies = _traits(func)
        self._reads_out |= reads_out
        if self._binary is not None:
            self._note_binary(func, args, result)
        if multiplies:
            self._multiplied = True
            if self.witness is not None:
                self.witness.see(func, args)

    def _note_binary(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        """Comparisons give 0 or 1, and so do copies of what they give."""
        assert self._binary is not None
        copied = func.__name__.split(".")[0] in _COPIES and args[0] in self._binary
        for tensor in tensors_in(result):
            if tensor.dtype == torch.bool or copied:
                self._binary[tensor] = True

    def _branch(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> Any:
        """A plain value has been read out of a tensor: it, or what stands in for it."""
        site = self.writer.site()
        if name in _COMPARES and any(not _is_number(a) for a in args):
            return result  # x == None: no value of x has a say in it
        comparable = all(isinstance(v, bool | int | float | complex) for v in leaves_of(result))
        if kwargs or not comparable:
            raise TraceError(
                f"a tensor's values leave torch through .{name.strip('_')}() {site}, and what "
                "becomes of them cannot be recorded. Stay in torch operations, or put this code "
                "in a module that is kept whole (spiking=[ItsType])."
            )
        nodes = [self.tensors.node_of(t) for t in tensors_in(args)]
        if (
            len(args) == 1
            and nodes[0].op == "get_attr"
            and str(nodes[0].target) in self.tensors.reads
        ):
            # The model's own value, not yet touched: known before the replay begins.
            self.model_reads.values.append((func, self.tensors.reads[str(nodes[0].target)], result))
            return result
        where, given = site.where or str(site), self.tensors.in_nodes(args)
        check = partial(self._check, where=where)

        def is_used() -> None:
            check(func, given, result, f"{name.strip('_')}() was {result!r}")

        lends = self.lends_numbers and not self.surroundings.asks_types
        if name != "item" or not lends or type(result) not in (int, float):
            is_used()
            return result
        call = (func, given)
        node = self.writer.node("call_function", graph_functions.read_value, call, {}, "item")
        return self._standing_in(result, node, is_used, check)

    def _standing_in(
        self, value: Any, node: fx.Node, is_used: Callable[[], None], check: Callable[..., None]
    ) -> ReadNumber:
        self.has_lent = True

        def write(function: Any, numbers: Any) -> fx.Node:
            return self.writer.node("call_function", function, numbers, {}, "number")

        def unless_quiet(note: Callable[..., None]) -> Callable[..., None]:
            return lambda *said: None if self._quiet else note(*said)

        return ReadNumber(value, node, unless_quiet(is_used), write, unless_quiet(check))

    def _lend(self, place: Place) -> None:
        """Let something stand in for a number or a list of the model's."""
        if any(place.root is module.__dict__ for module in self._inner):
            return
        try:
            value = place.get()
        except (LookupError, TypeError, AttributeError):
            return

        def is_used() -> None:
            self.model_reads.use(place)

        def check(read: Any, operands: Any, result: Any) -> None:
            if not self.model_reads.decide(read, operands, result):
                self._check(read, operands, result)

        stand_in: Any
        if type(value) is list:
            stand_in, self.has_lent = GrownList(value, is_used), True
        elif type(value) in (int, float):
            call = (place,)
            node = self.writer.node("call_function", graph_functions.read_attribute, call)
            stand_in = self._standing_in(value, node, is_used, check)
        else:
            return
        self._borrowed.lend(place, stand_in)
        self.model_reads.lent[id(place.root), place.path] = place

    def _check(
        self, read: Any, operands: Any, result: Any, said: str = "", where: str = ""
    ) -> None:
        """Each replay shall find what this forward has found."""
        site = self.writer.site()
        where = where or site.where or str(site)
        said = said or f"{getattr(read, '__name__', read)} was {result!r}"
        self.branches.append(f"{where}: {said}"[:200])
        call = (read, operands, result, where)
        self.writer.node("call_function", graph_functions.check_branch, call)

    def _check_sizes(self, tensors: list[Tensor]) -> None:
        """Python reads sizes: where they depend on data, each replay checks them."""
        site = self.writer.site()
        where = site.where or str(site)
        for tensor in tensors:
            if not self.tensors.known(tensor) or not (node := self.tensors[tensor]).meta["sized"]:
                continue
            size = tuple(tensor.shape)
            self.branches.append(f"{where}: a size was {size}")
            call = (graph_functions.size_of, (node,), size, where)
            self.writer.node("call_function", graph_functions.check_branch, call)
            node.meta["sized"] = False

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
        holder = next((leaf for leaf in leaves_of(value) if not _is_replayable(leaf)), None)
        if holder is not None:
            raise TraceError(
                f"the forward keeps a {type(holder).__name__} in '{place.name}', which a replay "
                "cannot keep up to date. Keep tensors and numbers in attributes or buffers, or "
                f"name the module's type in spiking= to keep '{owner or 'it'}' whole."
            )
        call = (Change(change.action, place), self.tensors.in_nodes(value))
        self.writer.node("call_function", graph_functions.change_state, call, {}, f"set_{key}")
        if change.action == "extend":
            grown = place.get()
            grown = grown.held if type(grown) is GrownList else grown  # to be asked is no use
            for i, part in enumerate(value):
                self._note_written(place.below(len(grown) - len(value) + i), part)
        else:
            self._note_written(place, value)

    def _note_written(self, place: Place, value: Any) -> None:
        """Which nodes the next forward will find in a place, and below it."""
        if isinstance(value, Tensor):
            self.written[place.name] = self.tensors[value]
        for key, part, _ in parts_of(value):
            self._note_written(place.below(key), part)

    # -- modules ---------------------------------------------------------------------------------

    def _wrapper(self, module: nn.Module, path: str, forward: Callable[..., Any]) -> Any:
        whole = self._known.whole(module)
        hooked = module in self._borrowed.hooked

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.quiet:
                return forward(*args, **kwargs)
            called = interception.is_called()
            if whole:
                return self.call_module(path, forward, not called, args, kwargs)
            with self.writer.inside(path):
                if called and hooked:
                    return self._with_hooks(module, forward, args, kwargs)
                return forward(*args, **kwargs)

        return wrapped

    def _with_hooks(
        self, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """The hooks are nodes."""
        if module in self._borrowed.legacy:
            raise TraceError(
                f"module '{self.writer.module}' has a hook of register_backward_hook, which cannot "
                "be replayed. Use register_full_backward_hook."
            )
        inputs, outputs = self._borrowed.hooked[module]
        split = module in self._borrowed.split
        call = (module, self.tensors.in_nodes(args), self.tensors.in_nodes(kwargs), inputs)
        before = self.writer.node("call_function", graph_functions.before_call, call)
        before.meta["hooked"], before.meta["split"] = inputs, split
        if inputs or split:
            args, kwargs = self._anew((args, kwargs))
        self.tensors.bind((args, kwargs), before)
        for name, (tensor, _) in self.tensors.versions.items():  # a hook may have computed it anew
            if self.tensors.reads[name].root is module.__dict__:
                self.tensors.forget(tensor)
        handed_on = self.tensors.in_nodes((args, kwargs))
        output = forward(*args, **kwargs)
        backward = self.writer.node("call_function", getitem, (before, 2))
        call = (module, *handed_on, backward, self.tensors.in_nodes(output), outputs)
        behind = self.writer.node("call_function", graph_functions.after_call, call)
        behind.meta["hooked"], behind.meta["split"] = outputs, split
        if outputs or split:
            output = self._anew(output)
        self.tensors.bind(output, behind)
        return output

    def _anew(self, value: Any) -> Any:
        """Other tensors of the same values: what hooks return is not what they were given."""
        made: dict[int, Any] = {}

        def another(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            dense = leaf.layout is torch.strided
            return made.setdefault(id(leaf), leaf.view_as(leaf) if dense else leaf.detach())

        with self._quietly():
            return mapped(another, value)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        self._quiet, before = True, self._quiet
        try:
            yield
        finally:
            self._quiet = before

    def _check_random(self) -> None:
        if python_random_state() != self._random and (is_alone() or self.surroundings.draws):
            module = self.writer.module or type(self.model).__name__
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


def _reads_out(func: Any) -> bool:
    """Whether an operation below torch's functions reads out of a tensor what no tensor holds."""
    return isinstance(func, torch._ops.OpOverload) and not _READS_OUT.isdisjoint(func.tags)


@cache
def _traits(func: Any) -> tuple[bool, bool]:
    """Of an operation below torch's functions: whether it reads out, and whether it multiplies."""
    return _reads_out(func), func in FACTORS


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor | bool | int | float | complex)


def _is_assignment(func: Any) -> bool:
    """Whether a call puts other values in the place of a tensor's own, or of a part of them."""
    held = getattr(getattr(func, "__self__", None), "__name__", "")
    return is_assignment(func) or (func.__name__ == "__set__" and held in ("real", "imag"))


def _is_written(node: fx.Node) -> bool:
    """Whether a tensor's node is a write to it."""
    beside = (graph_functions.after, graph_functions.alias_after)
    return node.target in beside or bool(node.meta.get("writes"))


def _written_among(changed: list[Tensor], results: list[Tensor]) -> list[Tensor]:
    """Of tensors whose version has changed, those that were written to: views share a version."""
    returned = {id(t) for t in results}
    written = {memory_of(t) for t in changed if id(t) in returned}
    return [t for t in changed if id(t) in returned or memory_of(t) not in written]


def _written_by_schema(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """What an operation below torch's functions writes to: versions are counted above it."""
    name = getattr(func, "__name__", "")
    if name.startswith("_foreach_") and name.endswith("_"):  # of which no version tells
        return list(tensors_in(args[:1]))
    if not isinstance(func, torch._ops.OpOverload) or not func._schema.is_mutable:
        return []
    given = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    writes = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
    return list(tensors_in([given[name] for name in writes if name in given]))


def _statistics(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """What a normalization may write to, whether its schema says so or not."""
    given = zip((a.name for a in func._schema.arguments), args, strict=False)
    named = (value for name, value in (*given, *kwargs.items()) if name.startswith("running_"))
    return tensors_in(list(named))


def _indices(func: Any, args: tuple[Any, ...]) -> Iterator[Tensor]:
    """The tensors in the index of ``x[index]``."""
    return tensors_in(args[1:]) if func is Tensor.__getitem__ else iter(())


def _no_backward(_: Any) -> Tensor:
    """What autograd calls to unpack a saved tensor; it keeps this function, so no recorder."""
    raise TraceError(
        f"the forward runs a backward pass of its own {site_below(Recorder.run.__code__, '')} "
        "(torch.autograd.grad or .backward()), which cannot be recorded. Name the type of the "
        "module that does so in spiking= to keep it whole."
    )


def _is_replayable(value: Any) -> bool:
    """Whether an attribute can be set to ``value`` again: a tensor, or a constant."""
    if isinstance(value, Tensor | None | bool | int | float | complex | str | bytes):
        return True  # also what stands in for a number
    return isinstance(value, torch.dtype | torch.device | type) or callable(value)


def _distinct(tensors: Any) -> list[Tensor]:
    return list({id(t): t for t in tensors}.values())
