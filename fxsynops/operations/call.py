"""One recorded call, as the rules of operations see it: by the names of its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from fxsynops.operations.signatures import Arguments, arguments
from fxsynops.tracing.node_meta import TensorSpec

Constant = Callable[[fx.Node], "Tensor | None"]


def no_constant(_: fx.Node) -> Tensor | None:
    """Nothing is known of any value."""
    return None


def spec(node: fx.Node) -> TensorSpec:
    """Shape and dtype of a node's tensor."""
    return node.meta["spec"]


def shape(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's tensor."""
    return tuple(node.meta["spec"].shape)


@dataclass(frozen=True)
class Call:
    """One recorded call.

    Attributes:
        node: the node of the value that is meant; it may be one part of a returned tuple.
        target: what is called: a function, or the type of a module.
        name: the operation's name in the registry; "" for modules and users' functions.
        args, kwargs: its arguments, nodes where tensors were; without a called module itself.
        output: which part of the returned tuple ``node`` is, or None.
        constant: the value of an operand that depends on no data, None for any other.
    """

    node: fx.Node
    target: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None
    constant: Constant = no_constant

    @cached_property
    def _arguments(self) -> Arguments | None:
        target = self.target
        if isinstance(target, type) and hasattr(target, "forward"):
            try:
                bound = inspect.signature(target.forward).bind(None, *self.args, **self.kwargs)
            except (TypeError, ValueError):
                return None
            _, *values = bound.arguments.items()
            return Arguments(dict(values), frozenset(name for name, _ in values))
        return arguments(target, self.args, self.kwargs)

    @property
    def understood(self) -> bool:
        """Whether the arguments fit a signature of the target."""
        return self._arguments is not None

    @property
    def given(self) -> frozenset[str]:
        """The names of the arguments that are not at their default."""
        return self._arguments.given if self._arguments else frozenset()

    def get(self, name: str, default: Any = None) -> Any:
        """An argument by the name of its parameter; ``default`` if there is no such parameter."""
        return self._arguments.values.get(name, default) if self._arguments else default

    def __getitem__(self, name: str) -> Any:
        assert self._arguments is not None, self.target
        return self._arguments.values[name]

    def operands(self, *names: str) -> list[fx.Node]:
        """The tensors among the arguments with these names, in order.

        Without names, all of them but what the call only writes to.
        """
        if names:
            given: Any = [self.get(name) for name in names]
        else:
            given = self.args, {name: v for name, v in self.kwargs.items() if name != "out"}
        found: list[fx.Node] = []
        map_arg(tuple(given), found.append)
        return [node for node in found if "spec" in node.meta]

    @property
    def x(self) -> fx.Node:
        """The first operand."""
        return self.operands()[0]

    def again(self, choose: Callable[[fx.Node], Any], *, leave_out: tuple[str, ...] = ()) -> Any:
        """What the same call gives for other operands, which it does not write to.

        Args:
            choose: the operand in the place of each node.
            leave_out: keywords to call without.
        """
        if self.name in _VIEWS:  # what it gets here may lie otherwise in memory
            args, kwargs = map_arg((self.args, self.kwargs), lambda n: _in_order(choose(n)))
        else:
            args, kwargs = map_arg((self.args, self.kwargs), choose)
        kwargs = {name: v for name, v in kwargs.items() if name not in ("out", *leave_out)}
        if args and isinstance(args[0], Tensor) and writes_in_place(self.node):
            args = (args[0].clone(), *args[1:])
        return self.target(*args, **kwargs)

    def number(self, limit: Limit) -> Any:
        """A number that an entry names: by the parameter that holds it, or itself."""
        return self.get(limit) if isinstance(limit, str) else limit


_VIEWS = frozenset("view view_as unflatten _unsafe_view".split())


def _in_order(value: Any) -> Any:
    return value.contiguous() if isinstance(value, Tensor) else value


# A number, or the name of the parameter that holds one (or a tensor of them); None: there is none.
Limit = float | str | None


def writes_in_place(node: fx.Node) -> bool:
    """Whether a call may write to its first operand."""
    if isinstance(node.target, torch._ops.OpOverload):  # whatever its name, it says so
        first = node.target._schema.arguments[:1]
        return any(one.alias_info is not None and one.alias_info.is_write for one in first)
    name = getattr(node.target, "__name__", "")
    if name.startswith("__"):
        named = name.startswith(("__i", "__set")) and name != "__invert__"
    else:
        named = name.endswith("_") or name == "setitem"
    if named or node.kwargs.get("inplace") is True:
        return True
    code = getattr(node.target, "__code__", None)  # only functions in Python have such a parameter
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    given = zip(names, node.args, strict=False)
    return any(name == "inplace" and value is True for name, value in given)
