"""What stands in for a number that Python reads, or for a list, until it is known what for.

Many numbers that are read out of a tensor (``.item()``) are only printed, or added up and put into
a log or an attribute; so are a model's own counts of its forwards, and lists that these append to.
As soon as Python decides anything with one, the trace holds for it alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx


class ReadNumber:
    """Stands in for a ``float`` or an ``int``: looks like it, and hears of its use.

    Args:
        value: the number.
        node: that reads it in a replay.
        on_use: is called when Python first decides something with it.
        write: makes the node of a sum or product, by the function and its arguments.
        check: makes a node that checks what a comparison has found, by its function, its arguments
            and its result.
    """

    def __init__(
        self,
        value: float,
        node: fx.Node,
        on_use: Callable[[], None],
        write: Callable[..., fx.Node],
        check: Callable[..., None],
    ) -> None:
        self._value, self.node, self._on_use, self._write = value, node, on_use, write
        self._check = check

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What ``isinstance`` looks at."""
        return type(self._value)

    def used(self) -> Any:
        """The number itself; from now on, the trace holds for it alone."""
        self._on_use()
        self._on_use = _known
        return self._value

    def __repr__(self) -> str:
        return repr(self._shown())

    def __str__(self) -> str:
        return str(self._shown())

    def __format__(self, spec: str) -> str:
        return format(self._shown(), spec)

    def _shown(self) -> Any:
        """As text; that of whole numbers often is a key: ``self.norms[f"{t}"]``."""
        return self.used() if isinstance(self._value, int) else self._value

    def __reduce__(self) -> Any:
        return type(self._value), (self.used(),)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.used(), name)


def _known() -> None:
    """It is known already."""


class GrownList:
    """Stands in for a list, and hears of its use; what is appended is no use of what is in it.

    Args:
        held: the list.
        on_use: is called when Python first reads it.
    """

    def __init__(self, held: list[Any], on_use: Callable[[], None]) -> None:
        self.held, self._on_use = held, on_use

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What ``isinstance`` looks at."""
        return list

    def used(self) -> list[Any]:
        """The list itself; from now on, the trace holds for what is in it alone."""
        self._on_use()
        self._on_use = _known
        return self.held

    def append(self, value: Any) -> None:
        """Add one."""
        self.held.append(value)

    def extend(self, values: Any) -> None:
        """Add several."""
        self.held.extend(values)

    def __iadd__(self, values: Any) -> GrownList:
        self.held.extend(values)
        return self

    def __reduce__(self) -> Any:
        return list, (self.used(),)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.used(), name)


def number(value: Any) -> Any:
    """A number or a list as such, in the place of what stands in for it."""
    return value.used() if type(value) in (ReadNumber, GrownList) else value


def is_stand_in(value: Any) -> bool:
    """Whether something stands in for a number, or for a list."""
    return type(value) in (ReadNumber, GrownList)


def _computed(function: Any, by: ReadNumber, operands: tuple[Any, ...]) -> Any:
    """What comes of numbers, at least one of which stands in for another: it does so, too."""
    if not all(type(part) in (ReadNumber, int, float) for part in operands):
        return function(*map(number, operands))
    lent = [part for part in operands if type(part) is ReadNumber]
    try:
        value = function(*(p._value if type(p) is ReadNumber else p for p in operands))
    except ArithmeticError:
        return function(*map(number, operands))
    node = by._write(function, tuple(p.node if type(p) is ReadNumber else p for p in operands))

    def on_use() -> None:
        for part in lent:
            part.used()

    return ReadNumber(value, node, on_use, by._write, by._check)


def _compared(function: Callable[..., Any]) -> Callable[..., Any]:
    """A comparison with a plain number decides something, but not by the very value."""

    def compared(self: ReadNumber, *args: Any) -> Any:
        operands = (self, *args)
        if not all(type(part) in (ReadNumber, int, float) for part in operands):
            return function(self.used(), *map(number, args))
        result = function(*(p._value if type(p) is ReadNumber else p for p in operands))
        nodes = tuple(p.node if type(p) is ReadNumber else p for p in operands)
        self._check(function, nodes, result)
        return result

    return compared


def _forward(name: str) -> Callable[..., Any]:
    function = getattr(operator, name, None) or getattr(float, name)

    def forward(self: ReadNumber, *args: Any) -> Any:
        return function(self.used(), *map(number, args))

    return forward


def _reflected(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)

    def reflected(self: ReadNumber, other: Any) -> Any:
        return function(number(other), self.used())

    return reflected


for _name in "add sub mul truediv floordiv mod".split():
    _function = getattr(operator, _name)
    setattr(
        ReadNumber,
        f"__{_name}__",
        lambda self, other, of=_function: _computed(of, self, (self, other)),
    )
    setattr(
        ReadNumber,
        f"__r{_name}__",
        lambda self, other, of=_function: _computed(of, self, (other, self)),
    )
for _name in "pow and or xor lshift rshift".split():
    setattr(ReadNumber, f"__{_name}__", _forward(f"__{_name}__"))
    setattr(ReadNumber, f"__r{_name}__", _reflected(f"__{_name}__"))
for _function in (operator.neg, operator.pos, operator.abs):
    setattr(
        ReadNumber,
        f"__{_function.__name__}__",
        lambda self, of=_function: _computed(of, self, (self,)),
    )
for _function in (
    *(operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne),
    *(bool, int, round),
):
    setattr(ReadNumber, f"__{_function.__name__}__", _compared(_function))
for _name in ("invert", "index"):
    setattr(ReadNumber, f"__{_name}__", _forward(f"__{_name}__"))
for _made in (float, complex, hash, divmod):
    setattr(
        ReadNumber,
        f"__{_made.__name__}__",
        lambda self, *args, made=_made: made(self.used(), *map(number, args)),
    )
for _name in """len iter reversed contains getitem setitem delitem add mul rmul imul
                eq ne lt le gt ge repr str""".split():

    def _of_list(self: GrownList, *args: Any, _name: str = f"__{_name}__") -> Any:
        return getattr(self.used(), _name)(*map(number, args))

    setattr(GrownList, f"__{_name}__", _of_list)
