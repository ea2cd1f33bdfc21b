"""Containers of all kinds: what is in them, and how it is put back."""

from __future__ import annotations

import random
import sys
from collections import deque
from contextlib import suppress
from typing import Any

from fxsynops.tracing.places import Attributes


def is_opaque(value: Any) -> bool:
    """A container or generator whose contents can be saved, but not followed one by one."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kinds = (numpy.ndarray, numpy.random.Generator, numpy.random.BitGenerator)
        if isinstance(value, (*kinds, numpy.random.RandomState)):
            return True
    return isinstance(value, set | deque | random.Random)


class _Identical(list[Any]):
    """Values, equal if they are the same objects."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and [*map(id, self)] == [*map(id, other)]

    __hash__ = None


def content_of(container: Any) -> Any:
    """The content of a container, comparable with ==."""
    if isinstance(container, list):
        return list(container)
    if isinstance(container, dict | Attributes):
        return dict(container)
    if isinstance(container, set):
        return set(container)
    if isinstance(container, deque):
        return _Identical(container)
    if isinstance(container, random.Random):
        return container.getstate()
    if hasattr(container, "get_state"):  # numpy.random.RandomState
        name, keys, *rest = container.get_state()
        return (name, keys.tobytes(), *rest)
    if hasattr(container, "bit_generator"):
        return _plain(container.bit_generator.state)
    if hasattr(container, "state"):
        return _plain(container.state)
    if container.dtype.hasobject:
        return _Identical(container.ravel().tolist())
    return container.tobytes()  # a NumPy array


def _plain(state: Any) -> Any:
    """The state of a NumPy generator, comparable with ==."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if hasattr(state, "tolist") else state


def restore(container: Any, content: Any) -> None:
    """Give a container its content back."""
    if _is_as(container, content):
        return  # read-only arrays, say
    if isinstance(container, list):
        container[:] = content
    elif isinstance(container, dict | set):
        container.clear()
        container.update(content)
    elif isinstance(container, Attributes):
        for name in [name for name in container if name not in content]:
            del container[name]
        container.update(content)
    elif isinstance(container, deque):
        container.clear()
        container.extend(content)
    elif isinstance(container, random.Random):
        container.setstate(content)
    elif hasattr(container, "get_state"):
        name, keys, *rest = content
        container.set_state((name, sys.modules["numpy"].frombuffer(keys, "uint32"), *rest))
    elif hasattr(container, "bit_generator"):
        container.bit_generator.state = content
    elif hasattr(container, "state"):
        container.state = content
    elif container.dtype.hasobject:
        container.reshape(-1)[:] = content
    else:
        numpy = sys.modules["numpy"]
        container[...] = numpy.frombuffer(content, container.dtype).reshape(container.shape)


def _is_as(container: Any, content: Any) -> bool:
    """Whether a container holds the very objects that it held."""
    if isinstance(container, list | deque):
        return [*map(id, container)] == [*map(id, content)]
    if isinstance(container, dict | Attributes):
        ours, theirs = container.items(), content.items()
        return [(k, id(v)) for k, v in ours] == [(k, id(v)) for k, v in theirs]
    with suppress(Exception):
        return bool(content_of(container) == content)
    return False
