"""What some versions of torch, or Python, lack or call otherwise: asked for here alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.overrides
from torch.utils import _device
from torch.utils import _pytree as pytree


def _device_contexts() -> list[Any]:
    """The contexts ``with device:`` that are open, the one that counts last."""
    modes = torch.overrides._get_current_function_mode_stack()
    return [mode for mode in modes if isinstance(mode, _device.DeviceContext)]


def default_device() -> torch.device:
    """Where new tensors are made; ``torch.get_default_device`` knows no contexts before 2.7."""
    device = torch.get_default_device()
    opened = [mode.device for mode in _device_contexts()]
    return opened[-1] if device.type == "cpu" and opened else device


@contextmanager
def making_on(device: torch.device) -> Iterator[None]:
    """``with device:``, also inside of another such context, which goes first in torch 2.6."""
    outer = _device_contexts()
    before = [mode.device for mode in outer]
    with device:
        for mode in outer:
            mode.device = device
        try:
            yield
        finally:
            for mode, own in zip(outer, before, strict=True):
                mode.device = own


def is_leaf(value: Any) -> bool:
    """Whether a value is no container that torch's trees know (``tree_is_leaf``: torch 2.6)."""
    if hasattr(pytree, "tree_is_leaf"):
        return bool(pytree.tree_is_leaf(value))
    return type(value) not in pytree.SUPPORTED_NODES and not pytree._is_namedtuple_instance(value)


def add_note(error: BaseException, note: str) -> None:
    """Say more of an error (Python 3.11)."""
    getattr(error, "add_note", lambda _: None)(note)


def applies_in_python() -> bool:
    """Whether ``autograd.Function.apply`` is written in Python (before torch 2.14)."""
    return "apply" in vars(torch.autograd.Function) and isinstance(
        vars(torch.autograd.Function)["apply"], classmethod
    )


def can_be_eager() -> bool:
    """Whether compiled functions can be told to run as they are written (torch 2.6)."""
    return hasattr(torch.compiler, "set_stance")


def compiles_functions() -> bool:
    """Whether the compiler keeps the derivatives of custom functions: 2.5 loses some.

    Tried with 2.13; what lies between is not known.
    """
    return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
