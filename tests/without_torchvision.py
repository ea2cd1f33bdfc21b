"""A stand-in for torchvision, which spikingjelly's model zoo imports, and which is not needed."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Stub(ModuleType):
    """A module whose every attribute is a class that does nothing."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def stand_in() -> None:
    """Put it in the place of torchvision, where that is not installed."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        for part in ("", ".models", ".models.utils", ".transforms", ".datasets", ".datasets.utils"):
            stub = _Stub(f"torchvision{part}")
            stub.__path__ = []
            stub.__spec__ = ModuleSpec(stub.__name__, None)
            sys.modules[stub.__name__] = stub
