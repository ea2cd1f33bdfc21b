"""What some versions of torch, or Python, lack or call otherwise: asked for here alone."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _device
from torch.utils import _pytree as pytree


def default_device() -> torch.device:
    """Where new tensors are made; ``torch.get_default_device`` knows no contexts before 2.6."""
    device = torch.get_default_device()
    return device if device.type != "cpu" else _device.CURRENT_DEVICE or device


def is_leaf(value: Any) -> bool:
    """Whether a value is no container that torch's trees know (``tree_is_leaf``: torch 2.6)."""
    if hasattr(pytree, "tree_is_leaf"):
        return bool(pytree.tree_is_leaf(value))
    return type(value) not in pytree.SUPPORTED_NODES and not pytree._is_namedtuple_instance(value)


def add_note(error: BaseException, note: str) -> None:
    """Say more of an error (Python 3.11)."""
    getattr(error, "add_note", lambda _: None)(note)
