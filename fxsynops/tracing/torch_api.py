"""What ``nn.Module`` itself says of a module, whatever a library's class makes of the same name.

A rockpool module, say, returns a dict by ``modules()``, and another by ``parameters()``.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def modules_of(module: nn.Module) -> Iterator[nn.Module]:
    """The module, and all modules below it."""
    return nn.Module.modules(module)


def parameters_of(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of the module and of all modules below it."""
    return nn.Module.parameters(module)
