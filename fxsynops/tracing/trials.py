"""What a custom autograd function makes of other values than the example's.

Its code is not looked into. It is called on noise in place of the data, once more on other noise in
half of the elements, and with another threshold, where one answer alone could be chance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from fxsynops.tracing.random_states import RandomStates
from fxsynops.tracing.trees import tensors_in

_OTHER = 1.375  # times as large
_FAR = 8.0
_ENOUGH = 8  # values that are no zeros
_LEVELS = 256  # of a quantizer


@dataclass(frozen=True)
class Trial:
    """What was found out.

    Attributes:
        whole: of each tensor that comes out, whether it holds only whole numbers.
        copied: which argument comes out as it is, or None.
        unit: which argument all that comes out is whole multiples of, or None.
        divides: whether it is multiples of 1 over that argument.
        worth: the fraction that all that comes out is whole multiples of, or None.
        times: how often what is said above, or one, goes into all that comes out.
        apart: whether each element of the output depends on the data's element there alone.
        parts: the same of each tensor, if there are several.
    """

    whole: tuple[bool, ...] = ()
    copied: int | None = None
    unit: int | None = None
    divides: bool = False
    worth: float | None = None
    times: int = 1
    apart: bool = False
    parts: tuple[Trial, ...] = ()

    def of(self, part: Any) -> Trial:
        """What was found out of one part of a returned tuple."""
        known = isinstance(part, int) and part < len(self.parts)
        return replace(self.parts[part], whole=(self.is_whole(part),)) if known else self

    def is_whole(self, part: Any = None) -> bool:
        """Whether all that comes out is whole, or one part of a returned tuple."""
        known = isinstance(part, int) and part < len(self.whole)
        return self.whole[part] if known else all(self.whole)


Trials = dict[Any, tuple[Trial, list[Any]]]


def try_out(
    function: Any,
    run: Callable[..., Any],
    args: tuple[Any, ...],
    produced: list[Tensor],
    is_data: Callable[[Tensor], bool],
    multiplied: bool,
    known: Trials,
) -> Trial:
    """Call a custom function on noise.

    Args:
        function: its class.
        run: what calls it.
        args: of the example.
        produced: what it made of them.
        is_data: tells data among the arguments from caps, limits and levels.
        multiplied: whether it has made a product of two tensors.
        known: what was found out before, by function and arguments; what is not data among these is
            kept with it, or another object could take its identity.
    """
    whole = tuple(map(is_whole, produced))
    if function.__module__.startswith("torch."):
        return Trial(whole)
    key = function, tuple(_looks_of(a, is_data) for a in args)
    try:
        if key not in known:
            with RandomStates.untouched(), torch.no_grad():
                found = _Trials(run, args, is_data, multiplied).result(produced)
            known[key] = found, [a for a in args if not _is_data(a, is_data)]
    except Exception:  # it wants particular values
        return Trial(whole)
    found, _ = known[key]
    both = tuple(a and b for a, b in zip(found.whole, whole, strict=True))
    return replace(found, whole=both)


def _looks_of(arg: Any, is_data: Callable[[Tensor], bool]) -> Any:
    """All of an argument that a trial depends on: of data, only the size and type."""
    if not isinstance(arg, Tensor):
        return repr(arg)
    return (arg.shape, arg.dtype) if _is_data(arg, is_data) else (id(arg), arg._version)


def _is_data(arg: Any, is_data: Callable[[Tensor], bool]) -> bool:
    return _holds_fractions(arg) and is_data(arg)


class _Trials:
    def __init__(
        self,
        run: Callable[..., Any],
        args: tuple[Any, ...],
        is_data: Callable[[Tensor], bool],
        multiplied: bool,
    ) -> None:
        self._function, self._args = run, args
        self._data = [i for i, a in enumerate(args) if _is_data(a, is_data)]
        levels = [a for i, a in enumerate(args) if i not in self._data and _holds_fractions(a)]
        self._mixes = multiplied or any(a.dim() for a in levels)
        sizes = [float(a.abs().amax()) for a in levels if a.numel()]
        sizes += [abs(a) for a in args if isinstance(a, int | float)]
        largest = max((size for size in sizes if math.isfinite(size)), default=0.0)
        self._amplitude = 3 * max(1.0, largest)  # some of the noise exceeds every threshold

    def result(self, produced: list[Tensor]) -> Trial:
        noise = self._noise(0.5)
        found, more = self._tensors(*noise), self._noise(0.5, _FAR)
        beyond = self._tensors(*more)  # of thresholds that nobody has passed in
        tried = [found, beyond, *(self._tensors(*args) for args in self._among_masks())]
        whole = tuple(all(map(is_whole, parts)) for parts in zip(*tried, strict=True))
        if len(found) != 1:
            return Trial(
                whole, parts=tuple(self._of(k).result([t]) for k, t in enumerate(produced))
            )
        if not _has_values(found[0]):
            return Trial(whole)
        (value,) = found
        copied = next((i for i, x in enumerate(noise) if _is_same(x, value)), None)
        far = copied is not None and _is_same(more[copied], beyond[0])
        if copied is not None and far and self._copies_whatever(copied, noise):
            return Trial(whole, copied)
        values = [value, beyond[0], produced[0]]
        unit, divides, times = self._unit(noise, values)
        apart = self._mixes and self._apart(noise, value)
        worth = None if unit is not None else self._worth(values)
        if unit is None and worth is None and all(whole):
            times = self._times(values)
        return Trial(whole, None, unit, divides, worth, times, apart)

    def _of(self, part: int) -> _Trials:
        """The same of one of several tensors."""
        one = copy.copy(self)
        one._function = lambda *args: list(tensors_in(self._function(*args)))[part]
        return one

    def _tensors(self, *args: Any) -> list[Tensor]:
        """What comes out, if the function is called on copies, which it may write to."""
        given = (_copied(a) if isinstance(a, Tensor) else a for a in args)
        return list(tensors_in(self._function(*given)))

    def _run(self, *args: Any) -> Tensor:
        """The same of a function with one result."""
        return self._tensors(*args)[0]

    def _noise(self, phase: float, times: float = 1.0) -> list[Any]:
        """The arguments, with waves in place of the data."""
        return [
            times * self._amplitude * _waves(a, phase + i) if i in self._data else a
            for i, a in enumerate(self._args)
        ]

    def _among_masks(self) -> Iterator[list[Any]]:
        """The same for each of the data that is not 0 or 1 alone, or may be by chance."""
        zero_or_one = [
            i for i in self._data if bool(((a := self._args[i]) == 0).logical_or(a == 1).all())
        ]
        for value in self._data if zero_or_one and len(self._data) > 1 else ():
            masks = [i for i in zero_or_one if i != value]
            noise = self._noise(0.5)
            yield [(a > 0).to(a.dtype) if i in masks else a for i, a in enumerate(noise)]

    def _copies_whatever(self, which: int, noise: list[Any]) -> bool:
        """Whether it does so for other caps, levels and delays, which may be learned."""
        steering = {i for i, a in enumerate(noise) if i not in self._data and _holds_fractions(a)}
        if not steering - {which}:
            return True
        other = [_OTHER * a + 1 if i in steering else a for i, a in enumerate(noise)]
        return _is_same(other[which], self._run(*other))

    def _unit(self, noise: list[Any], values: list[Tensor]) -> tuple[int | None, bool, int]:
        """The argument whose multiples come out (or those of 1 over it), also of another one."""
        near = self._near()  # within steps that the other jumps over
        for i, arg in enumerate(noise) if bool(values[0].any()) else ():
            if i in self._data or not _is_unit(arg, values[0]):
                continue
            other = _larger(arg)
            again: list[Tensor] | None = None
            for divides in (False, True):
                unit, larger = (1 / arg, 1 / other) if divides else (arg, other)
                if not all(_are_multiples(v, unit) for v in (values[0], values[-1])):
                    continue
                if again is None:
                    try:
                        both = ([*a[:i], other, *a[i + 1 :]] for a in (noise, near))
                        again = [self._run(*args) for args in both]
                    except Exception:  # it is a size, a number of steps
                        break
                follows = all(_are_multiples(v, larger) for v in again)
                if follows and not all(_are_multiples(v, unit) for v in again):
                    found = [*(v / unit for v in values), *(v / larger for v in again)]
                    return i, divides, _common(found)
        return None, False, 1

    def _near(self) -> list[Any]:
        return self._noise(0.9, 1 / self._amplitude)

    def _times(self, values: list[Tensor]) -> int:
        """What goes into all of some whole numbers."""
        more = 2 * _ENOUGH if values[0].numel() < 4 * _ENOUGH else 0  # of few elements
        noise = (self._noise(0.6 + 0.37 * i) for i in range(more))
        every = [*values, *(self._run(*args) for args in (self._near(), *noise))]
        return _common(every) if sum(int(v.count_nonzero()) for v in every) >= _ENOUGH else 1

    def _worth(self, values: list[Tensor]) -> float | None:
        """The smallest value, if it is a fraction, and all others are some few multiples of it."""
        near = self._run(*self._near())
        sizes = torch.cat([v.detach().double().abs().flatten() for v in (*values, near)])
        sizes = sizes[sizes > 0]
        if sizes.numel() < _ENOUGH:
            return None
        least = float(sizes.min())
        if float(sizes.max()) > _LEVELS * least or not _are_multiples(sizes, least):
            return None
        levels = (sizes / least).round().unique()
        steps = 2 * levels.numel() >= float(levels.max())  # 1 and -0.1 are no steps of a staircase
        return least if steps and not least.is_integer() else None

    def _apart(self, noise: list[Any], value: Tensor) -> bool:
        """Whether elements stay as they are where the data did."""
        changed = self._noise(0.7)
        if not self._data or any(noise[i].shape != value.shape for i in self._data):
            return False
        every_other = torch.arange(value.numel(), device=value.device).reshape(value.shape) % 2 == 0
        mixed = list(noise)
        for i in self._data:
            mixed[i] = torch.where(every_other, changed[i], noise[i])
        left, right = self._run(*mixed), self._run(*changed)
        return torch.equal(torch.where(every_other, right, value), left)


class _Context:
    """What a custom function's forward gets to keep things in, when it is called as it is."""

    saved_tensors: tuple[Any, ...] = ()

    def __init__(self, needs: int) -> None:
        self.needs_input_grad = (True,) * needs

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    save_for_forward = save_for_backward

    def mark_dirty(self, *_: Any) -> None: ...

    def mark_non_differentiable(self, *_: Any) -> None: ...

    def set_materialize_grads(self, _: bool) -> None: ...

    def name(self) -> str:
        return "Backward"


def forward(function: Any, args: tuple[Any, ...]) -> Any:
    """The forward of a custom function, called as any other code is."""
    if function.setup_context is torch.autograd.Function.setup_context:
        return function.forward(_Context(len(args)), *args)
    return function.forward(*args)


def is_whole(tensor: Tensor) -> bool:
    """Whether all values are whole numbers, as far as there are values."""
    if not _has_values(tensor) or not tensor.is_floating_point():
        return True
    return bool((tensor == tensor.round()).all())


def _has_values(value: Tensor) -> bool:
    return not value.is_meta and not isinstance(value, FakeTensor)


def _holds_fractions(value: Any) -> bool:
    return isinstance(value, Tensor) and _has_values(value) and value.is_floating_point()


def _waves(x: Tensor, phase: float) -> Tensor:
    steps = torch.arange(x.numel(), device=x.device, dtype=torch.float32)
    return torch.sin(steps * (phase + 0.5) + phase).reshape(x.shape).to(x.dtype)


def _is_same(x: Any, value: Tensor) -> bool:
    return isinstance(x, Tensor) and x.dtype == value.dtype and torch.equal(x, value)


def _is_unit(unit: Any, value: Tensor) -> bool:
    """Whether an argument may be a threshold, which broadcasts to what comes out."""
    if isinstance(unit, Tensor):
        fits = unit.dim() <= value.dim() and all(
            n in (1, m) for n, m in zip(unit.shape[::-1], value.shape[::-1], strict=False)
        )
        return _holds_fractions(unit) and fits and bool((unit != 0).all())
    return isinstance(unit, int | float) and not isinstance(unit, bool) and unit != 0


def _larger(unit: Any) -> Any:
    """The same, a little larger."""
    if not isinstance(unit, Tensor):
        return unit + 1 if isinstance(unit, int) else unit * _OTHER
    return _copied(unit, unit.detach() * _OTHER)


def _copied(tensor: Tensor, value: Tensor | None = None) -> Tensor:
    """A copy, or another value; a parameter with methods of its own stays one."""
    copy = tensor.detach().clone() if value is None else value
    if isinstance(tensor, nn.Parameter):
        copy = nn.Parameter(copy, requires_grad=False)
        copy.__class__ = type(tensor)
    copy.__dict__.update(tensor.__dict__)
    return copy


def _common(values: list[Tensor]) -> int:
    """The largest whole number that goes into all of some whole numbers."""
    every = torch.cat([v.detach().double().abs().flatten() for v in values])
    every = every[every.isfinite()]
    return max(math.gcd(*map(int, every.round().unique().tolist())), 1)


def _are_multiples(value: Tensor, unit: Any) -> bool:
    events = value.double() / (unit.double() if isinstance(unit, Tensor) else unit)
    return bool((events - events.round()).abs().amax() <= 1e-5)
