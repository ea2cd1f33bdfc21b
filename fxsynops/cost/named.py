"""Names that people write: found whatever their case and spaces, and said if there are none."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


def plain(name: str) -> str:
    """A name without case, spaces, dashes and underscores."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def spelled(name: object, known: Iterable[str]) -> str | None:
    """The name among ``known`` that is meant; None if there is none."""
    return {plain(key): key for key in known}.get(plain(name)) if isinstance(name, str) else None


def hint(name: object, known: Collection[str], quote: str = "'") -> str:
    """A sentence about the nearest name; empty if none is near."""
    by_plain = {plain(key): key for key in known}
    near = difflib.get_close_matches(plain(str(name)), by_plain, 1)
    return f" Do you mean {quote}{by_plain[near[0]]}{quote}?" if near else ""
