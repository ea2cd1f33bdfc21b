"""Fixtures, and a stand-in for torchvision, which spikingjelly's model zoo imports."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch


class _Stub(ModuleType):
    """A module whose every attribute is a class that does nothing."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def pytest_configure():
    if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes
        torch.set_num_threads(1)
    try:
        import torchvision  # noqa: F401
    except ImportError:
        for name in ("", ".models", ".models.utils", ".transforms", ".datasets", ".datasets.utils"):
            stub = _Stub(f"torchvision{name}")
            stub.__path__ = []
            stub.__spec__ = ModuleSpec(stub.__name__, None)
            sys.modules[stub.__name__] = stub


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
