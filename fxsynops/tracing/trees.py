"""Values inside of tuples, lists, dicts and dataclasses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from fxsynops.tracing.graph_functions import getitem
from fxsynops.tracing.torch_versions import is_leaf

Part = tuple[Any, Any, Callable[[Any, Any], Any]]


def parts_of(value: Any) -> Iterator[Part]:
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


def leaves_of(value: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists, dicts and dataclasses."""
    if isinstance(value, tuple | list | dict) or _is_data(value):
        for _, part, _ in parts_of(value):
            yield from leaves_of(part)
    elif is_leaf(value):
        yield value
    else:  # of a kind that a user has registered
        yield from pytree.tree_leaves(value)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in a value; those of slices, too."""
    found: list[Tensor] = []
    _gather(value, found)
    return iter(found)


def _gather(value: Any, found: list[Tensor]) -> None:
    """Not one generator in another: this is asked of every operation's arguments."""
    kind = type(value)
    if isinstance(value, Tensor):
        found.append(value)
    elif kind is tuple or kind is list:
        for part in value:
            _gather(part, found)
    elif kind is slice:
        _gather((value.start, value.stop, value.step), found)
    elif kind not in _ATOMS:
        for _, part, _ in parts_of(value):
            _gather(part, found)


_ATOMS = frozenset((int, float, bool, str, type(None)))


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same with ``function`` of each leaf."""
    if isinstance(value, tuple):
        parts = [mapped(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if type(value) is list:
        return [mapped(function, part) for part in value]
    if isinstance(value, list | dict):
        copied = copy.copy(value)
        for key, part, _ in parts_of(value):
            copied[key] = mapped(function, part)
        return copied
    if _is_data(value):
        copied = copy.copy(value)
        for key, part, _ in parts_of(value):
            object.__setattr__(copied, key, mapped(function, part))
        return copied
    return function(value) if is_leaf(value) else pytree.tree_map(function, value)


def structure_of(value: Any) -> Any:
    """Everything but the leaves, comparable with ==."""
    if isinstance(value, tuple | list | dict) or _is_data(value):
        return (type(value), *((key, structure_of(part)) for key, part, _ in parts_of(value)))
    return None if is_leaf(value) else pytree.tree_structure(value)


def _is_data(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)
