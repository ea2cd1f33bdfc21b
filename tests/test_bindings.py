"""Every form in which Python may call an operation: torch's own list of them, by their types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx

from fxsynops.operations import operations
from fxsynops.operations.signatures import arguments
from fxsynops.tracing.node_meta import TensorSpec

STUBS = Path(torch.__file__).parent / "_C"
# Deprecated forms, with a number in front of a tensor; and what Python itself calls.
OLD = frozenset("add sub addbmm addcdiv addcmul addmm addmv addmv_ addr baddbmm".split())
READS = frozenset("__bool__ __float__ __index__ __int__ __long__ nonzero".split())
WRONG = {"mode", "from_"}  # no such names: the list is wrong there
PLAIN = {
    "_int": 1, "SymInt": 1, "_float": 0.5, "_complex": 2, "Number": 2, "_bool": True, "str": "sum",
    "_dtype": torch.float32, "DeviceLikeType": torch.device("cpu"), "_layout": torch.strided,
    "memory_format": torch.contiguous_format, "_size": (1, 0), "_symsize": (1, 0), "Size": (1, 0),
}  # fmt: skip


def tensor() -> fx.Node:
    node = fx.Graph().placeholder("x")
    node.meta["spec"] = TensorSpec(torch.Size([2, 3]), torch.float32)
    return node


def example(annotation: ast.expr | None) -> Any:
    """A value of a type, the first where there are several; None if the type is not plain."""
    text = ast.unparse(annotation) if annotation is not None else ""
    if "EllipsisType" in text:
        return None  # names of axes, which no traced model has
    kinds = [kind.strip() for kind in text.split("|")]
    kind = next((k for k in kinds if k.startswith("tuple[Tensor")), kinds[0])  # out=(a, b)
    if kind.startswith(("Sequence[", "list[", "tuple[")):
        return (tensor(), tensor()) if "Tensor" in kind else (1, 0)
    if kind == "Generator":
        return torch.Generator()
    return tensor() if kind == "Tensor" else PLAIN.get(kind)


def forms(function: ast.FunctionDef, is_method: bool) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """The call with what it needs, and with each of its options."""
    own = [*function.args.posonlyargs, *function.args.args]
    own = own[1:] if is_method else own
    needed = own[: len(own) - len(function.args.defaults)]
    named = list(zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True))
    args = [tensor()] * is_method + [example(a.annotation) for a in needed]
    args += [1, 0] * (function.args.vararg is not None)
    kwargs = {a.arg: example(a.annotation) for a, default in named if default is None}
    if any(value is None for value in (*args, *kwargs.values())):
        return
    yield args, kwargs
    options = own[len(needed) :] + [a for a, default in named if default is not None]
    for option in options:
        value = example(option.annotation)
        if value is not None and option.arg not in WRONG:
            yield args, {**kwargs, option.arg: value}


@pytest.mark.parametrize("file", ["_VariableFunctions.pyi", "__init__.pyi"])
def test_every_form_of_a_call_is_understood(file):
    body = ast.parse((STUBS / file).read_text()).body
    owner: Any = torch
    if file == "__init__.pyi":
        owner = torch.Tensor
        body = next(c for c in body if isinstance(c, ast.ClassDef) and c.name == "TensorBase").body
    tried, missed = 0, []
    for function in body:
        name = getattr(function, "name", "_")
        target = getattr(owner, name, None)
        private = name[:1] == "_" and name[:2] != "__"
        if not isinstance(function, ast.FunctionDef) or target is None or private:
            continue
        if name in OLD | READS or operations.find(target, None, None) is None:
            continue
        for args, kwargs in forms(function, owner is torch.Tensor):
            tried += 1
            if arguments(target, args, kwargs) is None:
                missed.append(f"{ast.unparse(function.args)} as {name}{args}, {kwargs}")
    assert not missed
    assert tried > 400
