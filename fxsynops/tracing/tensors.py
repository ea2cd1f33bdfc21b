"""Which node holds which tensor, while a forward runs: by object, by place, by shared memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.weak import WeakIdKeyDictionary

from fxsynops.errors import TraceError
from fxsynops.tracing import graph_functions
from fxsynops.tracing.borrowed import Borrowed
from fxsynops.tracing.graph_writer import GraphWriter
from fxsynops.tracing.node_meta import TensorSpec
from fxsynops.tracing.places import Place
from fxsynops.tracing.stand_ins import ReadNumber
from fxsynops.tracing.torch_api import address_of, modules_of, parameters_of, storage_of
from fxsynops.tracing.trees import parts_of, tensors_in


class Tensors:
    """The tensors of a forward that is being recorded.

    Args:
        writer: of the graph.
        borrowed: the model's state, borrowed for the run.
        on_read: is told of each tensor of the model that is read for the first time.

    Attributes:
        reads: places in the model that ``get_attr`` nodes read, by target.
        constants: tensors from outside of the model that ``get_attr`` nodes read, by target.
        versions: of each tensor of ``reads``, the tensor and its version when it was first read.
        hidden: memory that was first used inside of something whole.
    """

    def __init__(
        self,
        writer: GraphWriter,
        borrowed: Borrowed,
        on_read: Callable[[Place], None] = lambda _: None,
    ) -> None:
        self.reads: dict[str, Place] = {}
        self.constants: dict[str, Tensor] = {}
        self.versions: dict[str, tuple[Tensor, int]] = {}
        self._calls: dict[nn.Module, dict[nn.Module, fx.Node]] = defaultdict(dict)
        self._whole: dict[int, nn.Module] = {}  # those that were called, by what they hold
        self.hidden: set[int] = set()
        self._writer, self._borrowed, self._on_read = writer, borrowed, on_read
        # The parameters of scripted modules stay in place.
        self._own = {id(p) for p in parameters_of(borrowed.model)}
        named = nn.Module.named_parameters(borrowed.model)
        self._scripted = {address_of(p): name for name, p in named if id(p) not in borrowed.places}
        self._nodes: Any = WeakIdKeyDictionary()
        self._by_storage: dict[int, list[ReferenceType[Tensor]]] = defaultdict(list)
        self._latest: dict[int, tuple[fx.Node, Any]] = {}  # what was made last in some memory
        self._specs: dict[tuple[torch.Size, torch.dtype], TensorSpec] = {}

    def __getitem__(self, tensor: Tensor) -> fx.Node:
        """The node of a known tensor."""
        return self._nodes[tensor]

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor in self._nodes

    def forget(self, tensor: Tensor) -> None:
        """Read it anew when it is used next."""
        self._nodes.pop(tensor, None)

    def made_anew(self, tensor: Tensor) -> None:
        """Whatever tensors have lain in its memory before are gone, unless they are known."""
        if not self.known(tensor):
            self.hidden.discard(memory_of(tensor))
            self._by_storage.pop(memory_of(tensor), None)
            self._latest.pop(memory_of(tensor), None)

    # -- from tensors to nodes -------------------------------------------------------------------

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
        self._by_storage[memory_of(value)].append(ref(value))
        self._latest[memory_of(value)] = (node, _geometry(value))

    def _bind_parts(
        self, value: Any, node: fx.Node, path: tuple[Any, ...], bound: dict[int, fx.Node]
    ) -> None:
        """One node for each tensor, also where it was returned more than once."""
        for key, part, get in parts_of(value):
            if id(part) in bound:
                bound[id(part)].meta["also"].append((*path, key))
            elif next(tensors_in(part), None) is not None:
                name = f"{node.name}_{key}"
                child = self._writer.node("call_function", get, (node, key), {}, name)
                if isinstance(part, Tensor):
                    child.meta["also"] = []
                    bound[id(part)] = child
                    self._bind_tensor(part, child)
                else:
                    self._bind_parts(part, child, (*path, key), bound)

    def known(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` has a node, made for it now if it is the model's own."""
        if tensor in self._nodes:
            return True
        if id(tensor) in self._borrowed.places:
            self._read_state(tensor, self._borrowed.places[id(tensor)])
            for other in self._aliases(tensor):
                if self._nodes[other].op != "get_attr":  # written to under another name
                    self._bind_beside(tensor, other)
            return True
        return self._alias_of_known(tensor)

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node of any tensor; one that nothing has made is a constant.

        Raises:
            TraceError: it is a parameter of nobody's, or was made out of sight.
        """
        if not self.known(tensor):
            if isinstance(tensor, nn.Parameter) and id(tensor) not in self._own:
                node, geometry = self._latest.get(memory_of(tensor), (None, None))
                if node is not None and geometry == _geometry(tensor):
                    self.bind(tensor, node)  # made in this forward, of a tensor that is gone
                    return node
                raise TraceError(
                    f"a parameter that is not the model's is used {self._writer.site()}. Register "
                    "it (or the module that owns it) before the analysis; if the forward makes it "
                    "at its first call, run the model once."
                )
            if memory_of(tensor) in self.hidden or memory_of(tensor) in self._by_storage:
                raise TraceError(
                    f"a tensor that was made out of sight is used {self._writer.site()}: inside of "
                    "a module that is kept whole, which did not return it, or by code that is no "
                    "torch function. Let the module return it, or keep the code that uses it whole "
                    "too (spiking=[ItsType])."
                )
            target = f"_constant_{len(self.constants)}"
            self.constants[target] = tensor
            node = self._writer.node("get_attr", target, (), {}, target)
            node.meta["parameter"] = self._scripted.get(address_of(tensor), "")
            self.bind(tensor, node)
        return self._nodes[tensor]

    def note_call(self, module: nn.Module, node: fx.Node) -> None:
        """A module that is kept whole was called."""
        self._whole[id(module.__dict__)] = module
        for part in modules_of(module):
            self._calls[part][module] = node

    def last_calls(self, part: nn.Module) -> list[fx.Node]:
        """Of each module that is kept whole and has this part, the node of its last call."""
        return list(self._calls[part].values()) if part in self._calls else []

    def _read_state(self, tensor: Tensor, place: Place) -> None:
        if id(place.root) in self._whole and place.get() is not tensor:
            raise TraceError(
                f"'{place.name}' was read before and is used after a call that changes it "
                f"{self._writer.site()}. Use it before the call, for example by '{place.name} * 1'."
            )
        self._on_read(place)
        self.reads[place.name] = place
        self.versions[place.name] = (tensor, tensor._version)
        self.bind(tensor, self._writer.node("get_attr", place.name, (), {}, place.name))

    def _alias_of_known(self, tensor: Tensor) -> bool:
        """A tensor object that came by no recorded call, but shares a known one's memory."""
        for other in self._aliases(tensor) or self._overlapping(tensor):
            ahead = tensor.storage_offset() * tensor.itemsize
            ahead += address_of(tensor) - address_of(other)
            if tensor.dtype != other.dtype or ahead % tensor.itemsize:
                continue
            geometry = (tensor.shape, tensor.stride(), ahead // tensor.itemsize)
            node = self._nodes[other]
            if geometry != (other.shape, other.stride(), other.storage_offset()):
                node = self._writer.node("call_function", torch.as_strided, (node, *geometry))
            self.bind(tensor, node)
            return True
        return False

    def _aliases(self, tensor: Tensor) -> list[Tensor]:
        """Other known tensors in the same memory."""
        references = self._by_storage.get(memory_of(tensor), [])
        live = {id(t): t for t in (r() for r in references) if t is not None}
        if len(live) < len(references):
            self._by_storage[memory_of(tensor)] = [ref(t) for t in live.values()]
        return [t for t in live.values() if t is not tensor and t in self._nodes]

    def _overlapping(self, tensor: Tensor) -> Iterator[Tensor]:
        """Known tensors in whose memory lies that of one which came past torch's functions."""
        begin = address_of(tensor)
        for references in self._by_storage.values() if begin else ():
            for other in (r() for r in references):
                if other is None or other not in self._nodes or not (start := address_of(other)):
                    continue
                if start <= begin < start + storage_of(other).nbytes():
                    yield other
                    break

    def note_writes(self, written: list[Tensor], results: list[Tensor], node: fx.Node) -> None:
        """Tensors that ``node`` wrote to, and all that share their memory, have new values."""
        node.meta["writes"] = bool(written)
        returned = {id(t) for t in results}
        for tensor in written:
            if id(tensor) not in returned and node.target is not graph_functions.setitem:
                change = (self.node_of(tensor), node)
                self.bind(tensor, self._writer.node("call_function", graph_functions.after, change))
            for alias in self._aliases(tensor):
                self._bind_beside(alias, tensor)

    def _bind_beside(self, alias: Tensor, written: Tensor) -> None:
        """A tensor holds what has been written to another one in the same memory."""
        geometry = (_geometry(alias), _geometry(written))
        args = (self._nodes[alias], self._nodes[written], geometry)
        self.bind(alias, self._writer.node("call_function", graph_functions.alias_after, args))

    def note_hidden(self, result: Any, args: Any) -> None:
        """Remember memory that first appears inside of something whole."""
        for tensor in tensors_in(result):
            storage = memory_of(tensor)
            if storage in self.hidden or storage in self._by_storage:
                continue
            if all(memory_of(t) != storage for t in tensors_in(args)):
                self.hidden.add(storage)

    # -- arguments and results -------------------------------------------------------------------

    def in_nodes(self, value: Any) -> Any:
        """``value`` with a node in place of each tensor."""
        if isinstance(value, Tensor):
            return self.node_of(value)
        if type(value) is ReadNumber:
            return value.node
        if isinstance(value, PackedSequence):
            raise TraceError(
                f"a packed sequence is passed or returned {self._writer.site()}; what is in it "
                "cannot be followed. Pass the padded tensor, and mask what is beyond each length."
            )
        if isinstance(value, tuple):
            parts = [self.in_nodes(v) for v in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if isinstance(value, list):
            return [self.in_nodes(v) for v in value]
        if isinstance(value, dict):
            return {k: self.in_nodes(v) for k, v in value.items()}
        if isinstance(value, slice):
            return slice(*(self.in_nodes(v) for v in (value.start, value.stop, value.step)))
        if type(value).__module__ == "numpy" and hasattr(value, "item") and not value.ndim:
            return value.item()  # one number
        return self._built(value)

    def _built(self, value: Any) -> Any:
        """An object that holds tensors, built by a node; any other value as it is."""
        if isinstance(value, torch.Generator) and value not in self._borrowed.generators:
            raise TraceError(
                f"a random generator that is not the model's is used {self._writer.site()}, and "
                "the recorded graph would draw other numbers from it. Keep it in an attribute."
            )
        if not is_dataclass(value) or isinstance(value, type):
            held = getattr(value, "__dict__", None)
            held = held.values() if isinstance(held, dict) else ()
            known = isinstance(value, nn.Module | type)
            if not known and any(isinstance(part, Tensor) for part in held):
                raise TraceError(
                    f"a {type(value).__name__} that holds tensors is passed or returned "
                    f"{self._writer.site()}; what is in it cannot be followed. Pass and return "
                    "tensors, tuples, lists, dicts or dataclasses of them."
                )
            return value
        if next(tensors_in(value), None) is None:
            return value
        content = {f.name: self.in_nodes(getattr(value, f.name)) for f in fields(value)}
        return self._writer.node("call_function", graph_functions.build, (type(value), content))

    def output(self, value: Any) -> Any:
        """What the forward returned; dicts keep their own type."""
        if isinstance(value, dict) and type(value) is not dict:
            content = {k: self.output(v) for k, v in value.items()}
            return self._writer.node("call_function", graph_functions.build, (type(value), content))
        if type(value) is dict:
            return {k: self.output(v) for k, v in value.items()}
        if type(value) in (tuple, list):
            return type(value)(self.output(v) for v in value)
        if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
            parts = [self.output(v) for v in value]
            return self._writer.node("call_function", graph_functions.build, (type(value), parts))
        return self.in_nodes(value)


def memory_of(tensor: Tensor) -> int:
    """What tells whether two tensors share their memory."""
    try:
        return address_of(tensor) or storage_of(tensor)._cdata
    except (RuntimeError, NotImplementedError):  # sparse and other tensors without storage
        return id(tensor)


def _geometry(tensor: Tensor) -> Any:
    """How a tensor lies in its memory."""
    if tensor.layout != torch.strided:
        return None
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()
