"""Python that the package writes: expressions about objects.

What is checked or done in every forward looks up nothing that is known ahead, if it is written out
for one model.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from fxsynops.tracing.node_meta import HERE
from fxsynops.tracing.places import INSIDE, Place, attributes_of

_NUMBERS = itertools.count()


class Objects:
    """The objects that a piece of code is about, and expressions for them.

    Attributes:
        named: the objects by name: the code's globals.
    """

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}

    def name(self, value: object) -> str:
        """An expression for this very object."""
        if value is None or type(value) is bool:
            return repr(value)
        name = f"_{id(value):x}"
        self.named[name] = value  # kept alive, so that no other object gets its id
        return name

    def value(self, value: object) -> str:
        """An expression for an object, or for a number or text that is equal to it."""
        plain = type(value) is str or (type(value) is int and abs(value) < 2**63)
        if plain or (type(value) is float and math.isfinite(value)):
            return repr(value)
        return self.name(value)

    def place(self, place: Place) -> str:
        """An expression for what is in a place then; it raises ``LookupError`` if that is gone."""
        found = self.name(place.root)
        for key in place.path:
            if key is INSIDE:
                found = f"{self.name(attributes_of)}({found})"
            else:
                found += f"[{self.value(key)}]"
        return found

    def function(self, name: str, code: str) -> Any:
        """The function of some name that code defines.

        In a file of its own, or the compiler would take it for the others, with other shapes. Its
        frames are the package's.
        """
        names, file = self.named.copy(), f"{HERE}<written {next(_NUMBERS)}>"
        exec(compile(code, file, "exec"), names)
        return names[name]
