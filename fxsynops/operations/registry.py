"""The entries of all operations, by the name that their variants share, or by target.

Torch offers one operation under many targets (``torch.add``, ``Tensor.add_``, ``Tensor.__radd__``,
``aten.add.Tensor``); they share a name here, and an entry covers them all. What users register
stands under the target itself and comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fxsynops.operations.operation import Operation


@dataclass
class Registry:
    """Operations by name (torch's own) and by target (modules' types and what users register)."""

    by_name: dict[str, Operation] = field(default_factory=dict)
    by_target: dict[Any, Operation] = field(default_factory=dict)

    def add(self, names: str, operation: Operation) -> None:
        """Register ``operation`` under several names; refuses duplicates."""
        for name in names.split():
            if name in self.by_name:
                raise ValueError(f"operation '{name}' is registered twice")
            self.by_name[name] = operation

    def find(self, target: Any, function: Any, module: nn.Module | None) -> Operation | None:
        """The entry for a node's target, custom autograd function or module."""
        for key in _keys(target, function, module):
            if key in self.by_target:
                return self.by_target[key]
        if function is not None or module is not None or not is_torch(target):
            return None
        return self.by_name.get(operation_name(target))


operations = Registry()


def _keys(target: Any, function: Any, module: nn.Module | None) -> Iterator[Any]:
    if module is not None:
        yield from type(module).__mro__
    elif function is not None:
        yield function
    else:
        try:
            hash(target)
        except TypeError:
            return
        yield target


def is_torch(target: Any) -> bool:
    """Whether a callable is torch's (or this package's) own, so that its name says what it does."""
    owner = getattr(target, "__module__", None) or ""
    if owner.split(".")[0] in ("torch", "torch_overrides") or owner.startswith("fxsynops."):
        return True
    kind = type(target)
    return kind.__name__ in (
        "method_descriptor",
        "wrapper_descriptor",
        "method-wrapper",
        "getset_descriptor",
        "OpOverload",
        "OpOverloadPacket",
    ) or (kind.__name__ == "builtin_function_or_method" and not owner)


_ALIASES = {"truediv": "div", "invert": "bitwise_not", "rtruediv": "rdiv"}
_INPLACE = frozenset(
    ["add", "sub", "mul", "truediv", "div", "matmul", "and", "or", "xor", "floordiv", "mod", "pow"]
)


def operation_name(target: Any) -> str:
    """The name under which all variants of an operation stand."""
    name = getattr(target, "__name__", "")
    if name in ("__get__", "__set__"):  # a property of Tensor
        verb = "get" if name == "__get__" else "set"
        return f"{verb}_{getattr(getattr(target, '__self__', None), '__name__', '')}"
    if isinstance(target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        packet: Any = getattr(target, "overloadpacket", target)
        library, _, name = packet._qualified_op_name.partition("::")
        if library not in ("aten", "prims"):  # another's, which may mean something else
            return f"{library}_{name}"
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        if name.startswith("i") and name[1:] in _INPLACE:
            name = name[1:]
    else:
        name = name.rstrip("_").removeprefix("linalg_")
    return _ALIASES.get(name, name)
