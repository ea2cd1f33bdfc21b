"""Containers of all kinds: what is in them, and how it is put back."""

from __future__ import annotations

import gc
import random
import sys
import warnings
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from types import GeneratorType, MethodType
from typing import Any

from fxsynops.tracing.places import ATOMS, Attributes, attributes_of, is_plain_object


def is_opaque(value: Any) -> bool:
    """What holds a state that can be looked at, but not followed part by part."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return True
    return isinstance(value, set) or has_state(value)


def has_state(value: Any) -> bool:
    """Whether a value has a state that is no part of a fingerprint: iterators, generators."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kinds = (numpy.random.Generator, numpy.random.BitGenerator, numpy.random.RandomState)
        if isinstance(value, kinds):
            return True
    if isinstance(value, partial | MethodType):
        return bool(_bound(value))
    if isinstance(value, Iterator):
        return not is_plain_object(value)
    return isinstance(value, random.Random | ContextVar | deque | bytearray | array)


def _bound(value: Any) -> list[Any]:
    """The objects that a method, or a function with some arguments, is bound to."""
    if isinstance(value, MethodType):
        return [value.__self__] if is_plain_object(value.__self__) else []
    if isinstance(value, partial):
        return [o for v in (value.func, *value.args, *value.keywords.values()) for o in _bound(v)]
    return [value] if is_plain_object(value) else []


def _position(iterator: Any, depth: int = 0) -> Any:
    """How far an iterator has come, and what it goes through; never equal if nothing tells."""
    own = _own_position(iterator)
    frame = iterator.gi_frame if isinstance(iterator, GeneratorType) else None
    held = gc.get_referents(iterator, *([] if frame is None else [frame]))
    held += [part for several in held if isinstance(several, tuple) for part in several]
    inner: list[Any] = []
    for part in held if depth < _DEEPEST else ():
        if isinstance(part, Iterator) and not is_plain_object(part):
            inner.append(_position(part, depth + 1))
        inner += [_Entries(attributes_of(owner)) for owner in _bound(part)]
        if own is None and isinstance(part, tuple):  # what itertools.product puts out
            inner.append(_said(part))
    return object() if own is None and not inner else (own, inner)


_DEEPEST = 8  # iterators that go through others


def _own_position(iterator: Any) -> Any:
    """How far an iterator says that it has come; None if it does not."""
    if isinstance(iterator, GeneratorType):
        frame = iterator.gi_frame
        return "ended" if frame is None else (frame.f_lasti, _said(list(frame.f_locals.items())))
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")  # torch's and Python's, of iterators that are pickled
        return _said(iterator.__reduce__())
    said = repr(iterator)
    return None if " object at 0x" in said else said


def _said(value: Any) -> Any:
    """Something that is equal for what is the same."""
    if isinstance(value, list | tuple):
        return [_said(part) for part in value]
    return value if isinstance(value, ATOMS) else id(value)


class _Identical(list[Any]):
    """Values, equal if they are the same objects."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and [*map(id, self)] == [*map(id, other)]

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


class _Entries(dict[str, Any]):
    """Attributes, equal if they are the same objects, or the same plain values."""

    def __eq__(self, other: object) -> bool:
        theirs = list(other.items()) if isinstance(other, dict) else []
        return [(k, _said(v)) for k, v in self.items()] == [(k, _said(v)) for k, v in theirs]

    def __ne__(self, other: object) -> bool:
        return not self == other

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
    if isinstance(container, bytearray | array):
        return bytes(container)
    if isinstance(container, ContextVar):
        with suppress(LookupError):
            return _Identical([container.get()])
        return _Identical()  # it has no value yet
    if isinstance(container, partial | MethodType):
        return [_Entries(attributes_of(owner)) for owner in _bound(container)]
    if isinstance(container, Iterator):
        return _position(container)
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
    elif isinstance(container, bytearray):
        container[:] = content
    elif isinstance(container, array):
        container[:] = array(container.typecode, content)
    elif isinstance(container, ContextVar):
        container.set(*content or [None])
    elif isinstance(container, partial | MethodType):
        for owner, attributes in zip(_bound(container), content, strict=True):
            restore(attributes_of(owner), attributes)
    elif isinstance(container, Iterator):
        pass  # it cannot be turned back
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
