"""What torch itself says of a module, or a tensor, whatever a class makes of the same name.

A rockpool module, say, returns a dict by ``modules()``, and another by ``parameters()``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


def modules_of(module: nn.Module) -> Iterator[nn.Module]:
    """The module, and all modules below it."""
    return nn.Module.modules(module)


def parameters_of(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of the module and of all modules below it."""
    return nn.Module.parameters(module)


def storage_of(tensor: Tensor) -> torch.UntypedStorage:
    """What a tensor lies in; nobody who watches torch's functions hears of the question."""
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()


def address_of(tensor: Tensor) -> int:
    """The address of a tensor's memory; 0 if it has none."""
    if isinstance(tensor, FakeTensor):
        return 0
    try:
        return storage_of(tensor).data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
