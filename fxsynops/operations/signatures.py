"""The arguments of a call by torch's own parameter names, however the call was spelled.

One operation is called by position, by keyword, by NumPy's names (``axis=``), as a function, a
method, an operator, in place, or as an ``aten`` overload::

    torch.sum(x, 1)    x.sum(dim=1)    x.sum(axis=1)    torch.ops.aten.sum.dim_IntList(x, [1])

All of them become ``{"input": x, "dim": …}`` here, so that no rule looks at positions. The names
and defaults are torch's: those of its operator schemas, and of its functions in Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import fx

_MISSING = inspect.Parameter.empty

# What torch calls differently in different places.
_CANONICAL = {
    "self": "input",
    "split_size_or_sections": "split_size",
    "split_sizes": "split_size",
    "indices_or_sections": "sections",
    "tensor_indices_or_sections": "sections",
    "axis0": "dim0",
    "axis1": "dim1",
    "shape": "size",
    "train": "training",
}
# Names that torch takes for others, as NumPy has them (torch/csrc/utils/python_arg_parser.cpp).
_NUMPY = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input"} | {
    "x2": "other"
}
# Bindings that have neither a schema nor a signature: their parameters.
_UNWRITTEN = (
    {
        "__getitem__": "input index",
        "__setitem__": "input index value",
        "__get__": "input",
        "__invert__": "input",
        "__set__": "input value",
        "type": "input dtype=None non_blocking=False",
        "nonzero": "input out=None as_tuple=False",
        "cpu": "input memory_format=None",
        "cuda": "input device=None non_blocking=False memory_format=None",
        "as_tensor": "data dtype=None device=None",
        "asarray": "data dtype=None device=None copy=None requires_grad=False",
        "tensor": "data dtype=None device=None requires_grad=False pin_memory=False",
        "new_tensor": "input data dtype=None device=None requires_grad=False pin_memory=False",
    }
    | dict.fromkeys(
        "__truediv__ __floordiv__ __ifloordiv__ __mod__ __imod__ __ror__ __rxor__ __rand__".split(),
        "input other",
    )
    | dict.fromkeys(
        "float double half bfloat16 int long short byte char bool".split(),
        "input memory_format=None",
    )
)

# Forms of calls that bindings take beside those that their schemas say.
_ALSO = {"to": "input device dtype=None non_blocking=False copy=False memory_format=None"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a signature.

    Attributes:
        name: as torch has it in most places.
        default: its default, or ``inspect.Parameter.empty``.
        keyword_only: whether it cannot be given by position.
        kind: what it takes, as schemas say it ("Tensor", "List[int]", …); "" is anything.
        length: how many numbers one number stands for ("int[2]"); None: it does not.
        gathers: whether it takes all further positional arguments.
    """

    name: str
    default: Any = _MISSING
    keyword_only: bool = False
    kind: str = ""
    length: int | None = None
    gathers: bool = False


Signature = tuple[Parameter, ...]


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call.

    Attributes:
        values: by name, defaults included.
        given: the names of those that are not at their default.
    """

    values: Mapping[str, Any]
    given: frozenset[str]


def arguments(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments | None:
    """The arguments of a call by name; None if it fits no signature of its target.

    Args:
        target: a torch function, method, operator or overload, or a function in Python.
        args, kwargs: of the call; nodes stand for tensors.
    """
    signatures = _signatures(target)
    for signature, strict in [(s, strict) for strict in (True, False) for s in signatures]:
        values = _bind(signature, args, kwargs, strict)
        if values is not None:
            defaults = {p.name: p.default for p in signature if p.default is not _MISSING}
            given = {
                n for n, v in values.items() if n not in defaults or not _equal(v, defaults[n])
            }
            return Arguments(defaults | values, frozenset(given))
    return None


@lru_cache(maxsize=4096)
def _signatures(target: Any) -> tuple[Signature, ...]:
    target = inspect.unwrap(target)
    name = getattr(target, "__name__", "")
    if isinstance(target, torch._ops.OpOverload):
        return (_of_schema(target._schema),)
    if isinstance(target, torch._ops.OpOverloadPacket):
        return tuple(_of_schema(getattr(target, o)._schema) for o in target.overloads())
    kind = type(target).__name__
    if kind == "function":  # in Python
        return (_of_function(target),)
    if name in _UNWRITTEN:
        return (_of_text(_UNWRITTEN[name]),)
    is_method = kind in ("method_descriptor", "wrapper_descriptor", "method-wrapper")
    also = (_of_text(_ALSO[name]),) if name in _ALSO else ()
    return (*(_of_schema(schema, is_method) for schema in _schemas(name)), *also)


def _schemas(name: str) -> Iterator[Any]:
    """Those of an operator: ``__iadd__``, ``add_`` and ``add`` have their parameters in common."""
    plain = name.strip("_")
    names = [name, name.rstrip("_"), plain, plain.removeprefix("i"), plain.removeprefix("r")]
    for known in dict.fromkeys(names):
        schemas = torch._C._jit_get_schemas_for_operator(f"aten::{known}")
        found = [schema for schema in schemas if _is_operator(schema)]  # TorchScript has others
        if found:
            yield from found
            return


def _is_operator(schema: Any) -> bool:
    name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    return torch._C._dispatch_has_kernel(name)


def _of_schema(schema: Any, is_method: bool = False) -> Signature:
    parameters: list[Parameter] = []
    for argument in schema.arguments:
        default = argument.default_value if argument.has_default_value() else _MISSING
        name = _canonical(argument.name, not parameters)
        kind = str(argument.real_type).replace("SymInt", "int")
        parameters.append(Parameter(name, default, argument.kwarg_only, kind, argument.N))
    if is_method:  # whose own tensor comes first, wherever the schema has it
        parameters.sort(key=lambda p: p.name != "input")
    return tuple(parameters)


def _canonical(name: str, first: bool) -> str:
    return "input" if first and name == "tensor" else _CANONICAL.get(name, name)


def _of_function(function: Any) -> Signature:
    signature = inspect.signature(function)
    parameters = tuple(signature.parameters.values())
    if {p.kind for p in parameters} == {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }:
        # one of two functions, by a flag (torch._jit_internal.boolean_dispatch)
        behind = inspect.getclosurevars(function).nonlocals.get("if_false")
        if behind is not None:
            return _of_function(behind)
    return tuple(
        Parameter(
            _canonical(p.name, p is parameters[0]),
            p.default,
            p.kind is p.KEYWORD_ONLY,
            gathers=p.kind is p.VAR_POSITIONAL,
        )
        for p in parameters
        if p.kind is not p.VAR_KEYWORD
    )


def _of_text(text: str) -> Signature:
    parts = (part.partition("=") for part in text.split())
    values = {"None": None, "False": False}
    return tuple(Parameter(name, values[text] if eq else _MISSING) for name, eq, text in parts)


def _bind(
    signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], strict: bool
) -> dict[str, Any] | None:
    """The arguments that were given, if they fit; ``strict``, no number stands for a tensor."""
    places = [p for p in signature if not p.keyword_only]
    values: dict[str, Any] = {}
    rest = list(args)
    for i, parameter in enumerate(places):
        if not rest:
            break
        numbers = all(isinstance(value, int) for value in rest)
        spread = parameter.kind == "List[int]" and parameter.length is None and numbers
        last = i == len(places) - 1
        if parameter.gathers or (spread and last):  # x.permute(0, 2, 1), x.flip(1)
            values[parameter.name], rest = tuple(rest), []
        else:
            values[parameter.name] = rest.pop(0)
    if rest:
        return None
    known = {p.name for p in signature}
    for name, value in kwargs.items():
        name = _CANONICAL.get(name, name)
        name = name if name in known else _NUMPY.get(name, name)
        if name not in known and _is_of_bindings(name, value, known):
            continue
        if name not in known or name in values:
            return None
        values[name] = value
    for parameter in signature:
        if parameter.name not in values:
            if parameter.default is _MISSING and not parameter.gathers and not _may_lack(parameter):
                return None
        elif not _fits(values[parameter.name], parameter, strict):
            return None
    return values


def _is_of_bindings(name: str, value: Any, known: set[str]) -> bool:
    """Whether Python's bindings take a keyword that no schema has, and no rule needs."""
    makes = name == "requires_grad" and "pin_memory" in known
    return makes or (name == "out" and isinstance(value, tuple | list))


def _may_lack(parameter: Parameter) -> bool:
    """Schemas do not say that ``rounding_mode`` and the like may be left out."""
    return parameter.keyword_only and parameter.kind.startswith("Optional")


_PLAIN: dict[str, Any] = {
    "bool": bool,
    "str": str,
    "ScalarType": torch.dtype,
    "Device": torch.device | str | int,
    "Layout": torch.layout,
    "MemoryFormat": torch.memory_format,
    "Generator": torch.Generator,
}


def _fits(value: Any, parameter: Parameter, strict: bool) -> bool:
    kind = parameter.kind
    if kind.startswith("Optional["):
        if value is None:
            return True
        kind = kind[len("Optional[") : -1]
    is_tensor = isinstance(value, fx.Node | torch.Tensor)
    if kind == "Tensor":
        return is_tensor or (isinstance(value, int | float | complex) and not strict)
    if kind in ("number", "Scalar", "int", "float"):
        accepted = int if kind == "int" else int | float | complex
        single = is_tensor and not strict and not _has_axes(value)
        return isinstance(value, accepted) or single
    if kind == "List[int]":
        if parameter.length is not None and isinstance(value, int):
            return True
        if value is None:  # the stride of a pool, say
            return parameter.default == []
        return isinstance(value, list | tuple) and all(isinstance(v, int | fx.Node) for v in value)
    if kind.startswith("List["):
        return isinstance(value, list | tuple)
    if kind in ("Dimname", "Storage", "Stream"):
        return False
    return isinstance(value, _PLAIN[kind]) if kind in _PLAIN else True


def _has_axes(value: Any) -> bool:
    spec = value.meta.get("spec") if isinstance(value, fx.Node) else value
    return spec is None or len(spec.shape) > 0


def _equal(value: Any, default: Any) -> bool:
    if isinstance(default, list) and isinstance(value, int) and not isinstance(value, bool):
        return all(entry == value for entry in default) and bool(default)
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return len(value) == len(default) and all(map(_equal, value, default))
    if isinstance(value, list | tuple) and isinstance(default, int):
        return all(_equal(entry, default) for entry in value)
    plain = isinstance(value, bool | int | float | str | None | torch.dtype)
    return plain and (value is default or value == default)
