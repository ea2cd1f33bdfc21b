"""Stand-ins for what the libraries under test import, and do not need here."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _Stub(ModuleType):
    """A module whose every attribute is a class that does nothing."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def stand_in(*names: str, **content: Any) -> None:
    """Make modules of these names importable, unless they are there (parents first)."""
    for name in names:
        if name in sys.modules or find_spec(name) is not None:
            continue
        stub = _Stub(name)
        stub.__path__, stub.__spec__ = [], ModuleSpec(name, None)
        vars(stub).update(content)
        sys.modules[name] = stub
