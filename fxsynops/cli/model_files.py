"""The user's model, as the command line names it: ``package.module:factory``, ``file.py:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fxsynops.errors import InputError
from fxsynops.nir import from_nir


def load_model(target: str) -> nn.Module:
    """Import a model.

    Args:
        target: where it is and what it is called, such as ``package.module:factory`` or
            ``path/to/file.py:Class``. A model is taken as it is; a class or function is called
            without arguments and must return one. Or a file in NIR (``net.nir``).

    Raises:
        InputError: there is no such thing, it raises, or it is no model.
    """
    if target.endswith(".nir"):
        return from_nir(target)
    found = find(target)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise InputError(f"'{target}' is a {type(found).__name__}, no model and no factory.")
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise InputError(
                f"'{target}()' raised {type(error).__name__}: {error}. It is called without "
                "arguments; write a function that makes the model."
            ) from error
    if not isinstance(found, nn.Module):
        raise InputError(f"'{target}()' returned a {type(found).__name__}, not an nn.Module.")
    return found


def find(target: str) -> Any:
    """Import what ``package.module:name`` or ``path/to/file.py:name`` names.

    Raises:
        InputError: there is no such thing, or importing it raises.
    """
    where, colon, what = target.rpartition(":")
    if not colon or not where or not what:
        raise InputError(f"'{target}' names nothing: write package.module:name or file.py:name.")
    found: Any = _module(where)
    for name in what.split("."):
        if not hasattr(found, name):
            raise InputError(f"'{where}' has no '{what}'. It has {_public(found, name)}.")
        found = getattr(found, name)
    return found


def example(shapes: str, events: bool) -> tuple[Tensor, ...]:
    """Tensors of some shapes: ``1x28x28``, or several, separated by commas.

    Args:
        shapes: what the model takes.
        events: whether to make spikes (0 or 1), or analog values in [0, 1].

    Raises:
        InputError: a shape is no list of positive whole numbers.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for shape in shapes.split(","):
        sizes = shape.strip().lower().split("x")
        if not all(size.isdecimal() and int(size) for size in sizes):
            raise InputError(f"--input '{shapes}' is no shape: write 1x28x28 (several: 2x8,2x4).")
        x = torch.rand([int(size) for size in sizes], generator=generator)
        tensors.append(x.round() if events else x)
    return tuple(tensors)


def _module(where: str) -> ModuleType:
    try:
        if not where.endswith(".py"):
            if os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())
            return importlib.import_module(where)
        return _of_file(Path(where).resolve())
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"importing '{where}' raised {type(error).__name__}: {error}.") from error


def _of_file(path: Path) -> ModuleType:
    """A file as the module that it is for its neighbours: by its name, in its package.

    So it may import what lies beside it, and other processes find it again.
    """
    if not path.is_file():
        raise InputError(f"there is no file '{path}'.")
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    name = ".".join(names)
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path:
        return importlib.import_module(name)
    name = f"{name}_{abs(hash(path)):x}"  # another module has this name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _public(module: Any, wanted: str) -> str:
    """What a module has of its own: first what is like the wanted name."""
    own = getattr(module, "__name__", None)
    kinds = (type, FunctionType, BuiltinFunctionType)
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and (getattr(value, "__module__", None) == own or not isinstance(value, kinds))
    ]
    names = list(dict.fromkeys([*get_close_matches(wanted, names), *names]))
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") or "nothing"
