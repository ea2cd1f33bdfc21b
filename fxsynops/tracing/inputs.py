"""The arguments of a forward: bound to names, counted in samples and time steps, compared."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fxsynops.errors import InputError
from fxsynops.tracing.places import fingerprint
from fxsynops.tracing.torch_api import parameters_of
from fxsynops.tracing.trees import leaves_of, mapped, structure_of

# The names of positional arguments, by function and number, so as to look at signatures once.
_NAMES: WeakKeyDictionary[Any, dict[int, tuple[str, ...]]] = WeakKeyDictionary()
LAYOUTS = ("N", "NT", "TN", "T", "", "(NT)", "(TN)")


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call of a model, by the names of its forward's parameters."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: tuple[str, ...]

    @classmethod
    def bind(cls, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
        """Match arguments with the signature of ``model.forward``.

        Raises:
            InputError: too many, too few or unknown arguments.
        """
        function = getattr(model.forward, "__func__", None)
        known = {} if function is None else _NAMES.setdefault(function, {})
        if not kwargs and len(args) in known:
            return cls(args, {}, known[len(args)])
        if isinstance(model, torch.jit.ScriptModule):  # whose signatures are made up
            schema: Any = model.forward.schema  # type: ignore[attr-defined]
            given = [argument.name for argument in schema.arguments[1:]][: len(args)]
            return cls(args, dict(kwargs), (*given, *kwargs))
        try:
            signature = inspect.signature(model.forward)
        except (TypeError, ValueError):
            unnamed = (f"input_{i}" for i in range(len(args)))
            return cls(args, dict(kwargs), (*unnamed, *kwargs))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(
                f"{type(model).__name__}.forward{signature} does not take these inputs: {error}. "
                "Pass the positional arguments of the model, as a tuple if there are several."
            ) from None
        names: list[str] = []
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                names += [f"{name}_{i}" for i in range(len(bound.args) - len(names))]
            elif len(names) < len(bound.args):
                names.append(name)
        if not kwargs:
            known[len(args)] = tuple(names)
        return cls(bound.args, bound.kwargs, (*names, *bound.kwargs))

    @classmethod
    def of_example(cls, model: nn.Module, example: Any) -> Inputs:
        """Arguments from an example: a tensor, a tuple of arguments, a dict of keyword arguments.

        Raises:
            InputError: see :meth:`bind`.
        """
        if isinstance(example, dict) and _are_keywords(model, example):
            return cls.bind(model, (), example)
        several = isinstance(example, tuple) and not isinstance(example, PackedSequence)
        return cls.bind(model, example if several else (example,), {})

    @property
    def values(self) -> tuple[Any, ...]:
        """All arguments, in the order of ``names``."""
        return (*self.args, *self.kwargs.values())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor argument and its name; those inside of lists share their list's name."""
        for name, value in zip(self.names, self.values, strict=True):
            for leaf in leaves_of(value):
                if isinstance(leaf, Tensor):
                    yield name, leaf

    def clone(self) -> Inputs:
        """A copy that a forward may write to."""

        def copy(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.detach().clone().requires_grad_(value.requires_grad)

        args, kwargs = mapped(copy, (self.args, self.kwargs))
        return Inputs(args, kwargs, self.names)

    def hollow(self) -> Inputs:
        """The same shapes, dtypes and devices, over the memory of one zero each."""

        def emptied(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.layout is not torch.strided:
                return value
            return value.new_zeros(()).expand(value.shape).requires_grad_(value.requires_grad)

        args, kwargs = mapped(emptied, (self.args, self.kwargs))
        return Inputs(args, kwargs, self.names)


def _are_keywords(model: nn.Module, example: dict[Any, Any]) -> bool:
    """Whether a dict holds the arguments of a forward, by the names of its parameters."""
    try:
        parameters = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return False
    named = {n for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    needed = {n for n in named if parameters[n].default is inspect.Parameter.empty}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):  # which takes any others
        return not named.isdisjoint(example) and needed <= set(example)
    return bool(example) and needed <= set(example) <= named


def call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a trace specializes on: shapes, dtypes, devices, and plain Python values."""
    if len(args) == 1 and not kwargs and type(args[0]) is Tensor:
        x = args[0]  # most models: not worth a loop
        return x.shape, _strides(x), x.dtype, x.device, x.requires_grad
    leaves, structure = list(leaves_of((args, kwargs))), structure_of((args, kwargs))
    strides = tuple(_strides(leaf) for leaf in leaves if isinstance(leaf, Tensor))
    return structure, strides, tuple(fingerprint(leaf) for leaf in leaves)


def _strides(tensor: Tensor) -> Any:
    return tensor.stride() if tensor.layout is torch.strided else tensor.layout


@dataclass(frozen=True)
class Window:
    """How much one forward pass covers: samples and time steps."""

    samples: int
    timesteps: int


@dataclass(frozen=True)
class Layout:
    """What the axes of the inputs mean.

    Attributes:
        axes: "N" for samples and "T" for time steps, of the axes in front: "N", "NT", "TN", "T",
            "". "(NT)" and "(TN)" are one merged axis. With time inside, a letter for each axis:
            "NCT", "NCTHW"; "…" (or "...") stands for any number of a sample's own: "N…T".
        batch_size: samples, where the shape does not tell (or to be checked against it).
        timesteps: likewise; unknown means one step, the whole pass.
        by_step: whether a forward is one step of samples that have more, ``timesteps`` if known.
        auto: whether the model is to tell it.
        said: how the model has told it; empty if the user did.
        known: whether the steps are known; if not, the whole pass counts as one.
        open: whether the steps may still be told by another forward, where they are not known.
    """

    axes: str = "N"
    batch_size: int | None = None
    timesteps: int | None = None
    by_step: bool = False
    auto: bool = False
    said: str = ""
    known: bool = True
    open: bool = False

    @classmethod
    def of(cls, text: str, batch_size: int | None = None, timesteps: int | None = None) -> Layout:
        """What a user says: axes, "auto", or "step" if a forward is one step of a sample.

        Raises:
            InputError: it is no layout, or a number makes no sense.
        """
        if text in ("auto", "step"):
            return cls("N", batch_size, timesteps, text == "step", text == "auto")
        return cls(text, batch_size, timesteps)

    def __post_init__(self) -> None:
        letters = self.axes.replace("...", "…")
        plain = letters.replace("…", "", 1)
        written = plain.isalpha() and plain.isupper() and plain.isascii()
        inner = written and letters.count("T") == 1 and letters.count("N") < 2
        if self.axes not in LAYOUTS and not inner:
            raise InputError(
                f"layout {self.axes!r} is none of {', '.join(map(repr, LAYOUTS))}, nor one with "
                "time inside, a letter for each axis ('NCT', 'NCTHW', 'N…T'), nor 'auto' or 'step'."
            )
        for name in ("batch_size", "timesteps"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value is True or value < 1):
                raise InputError(f"{name} must be a positive whole number, not {value!r}.")
        if self.merged and not (self.batch_size or self.timesteps):
            raise InputError(
                f"layout {self.axes!r} merges samples and steps into one axis: "
                "pass batch_size= or timesteps= to tell them apart."
            )

    @property
    def merged(self) -> bool:
        """Whether one axis holds both samples and steps."""
        return self.axes.startswith("(")

    @property
    def order(self) -> str:
        """Samples and steps, in the order of their axes."""
        return "".join(letter for letter in self.axes if letter in "NT")

    @property
    def least(self) -> int:
        """How many axes an input has at least."""
        return 1 if self.merged else len("".join(self._parts))

    @property
    def _parts(self) -> tuple[str, str]:
        before, _, behind = self.axes.replace("...", "…").partition("…")
        return before, behind

    def place(self, axis: str, rank: int) -> int | None:
        """Where a tensor of so many axes has samples ("N") or steps ("T"); None: nowhere."""
        if self.merged:
            return 0
        before, behind = self._parts
        if axis in before:
            return before.index(axis)
        return rank - len(behind) + behind.index(axis) if axis in behind else None

    def inner_time(self, rank: int) -> int | None:
        """Where tensors inside of the model have time, if inputs have it behind axes of a sample.

        Behind all of them it is behind all others, too: pixels become features on their way.
        """
        if self.merged or "T" not in self.axes or self.axes[: len(self.order)] == self.order:
            return None
        if self.axes.endswith("T"):
            return rank - 1 if rank > 1 else None
        at = self.place("T", rank)
        return at if at is not None and 0 < at < rank else None

    def own(self, size: Sequence[int]) -> tuple[int, ...]:
        """The sizes of a sample's own axes."""
        places = {self.place(axis, len(size)) for axis in self.order}
        return tuple(n for i, n in enumerate(size) if i not in places)

    def first(self, inputs: Inputs) -> tuple[str, Tensor | None]:
        """The first input that has the layout's axes, and its name."""
        large = ((name, t) for name, t in inputs.tensors() if t.dim() >= self.least)
        return next(large, ("", None))

    def window(self, inputs: Inputs) -> Window:
        """Samples and time steps of a call.

        Raises:
            InputError: the shape contradicts the layout, ``batch_size`` or ``timesteps``.
        """
        name, tensor = self.first(inputs)
        shape = None if tensor is None else tuple(tensor.shape)
        if shape is None:
            if next(inputs.tensors(), None) is None:
                kinds = ", ".join(dict.fromkeys(type(v).__name__ for v in inputs.values)) or "none"
                raise InputError(
                    f"the example holds no tensor (its arguments: {kinds}). Pass tensors (torch."
                    "as_tensor), or tuples, lists, dicts or dataclasses of them."
                )
            if self.least:
                raise InputError(
                    f"no input has the {self.least} axes of layout {self.axes!r}. "
                    'Pass layout="" for an input that is a single sample.'
                )
            shape = ()
        if self.merged:
            return self._merged(name, shape[0])
        places = {axis: self.place(axis, len(shape)) for axis in self.order}
        sizes = {axis: shape[at] for axis, at in places.items() if at is not None}
        if 0 in sizes.values():
            raise InputError(f"input '{name}' of shape {shape} is empty in layout {self.axes!r}.")
        for axis, option in (("N", "batch_size"), ("T", "timesteps")):
            given = getattr(self, option)
            if axis in sizes and given not in (None, sizes[axis]):
                raise InputError(
                    f"{option}={given}, but input '{name}' of shape {shape} has {sizes[axis]} "
                    f"along axis {places[axis]} ({axis} of layout {self.axes!r})."
                )
        steps = 1 if self.by_step else sizes.get("T") or self.timesteps or 1
        return Window(sizes.get("N") or self.batch_size or 1, steps)

    def _merged(self, name: str, size: int) -> Window:
        samples = self.batch_size or size // (self.timesteps or 1)
        steps = self.timesteps or size // samples
        if samples * steps != size or size == 0:
            raise InputError(
                f"input '{name}' has {size} rows, which batch_size={self.batch_size} and "
                f"timesteps={self.timesteps} do not divide (layout {self.axes!r})."
            )
        return Window(samples, steps)

    def covers(self, size: Sequence[int], window: Window) -> bool:
        """Whether a tensor of some size has the layout's axes; a static input has not."""
        if self.merged:
            return len(size) > 0 and size[0] == window.samples * window.timesteps
        wanted = {"N": window.samples, "T": window.timesteps}
        places = {axis: self.place(axis, len(size)) for axis in self.order}
        return len(size) >= self.least and all(
            at is not None and size[at] == wanted[axis] for axis, at in places.items()
        )

    def picked(self, inputs: Inputs, window: Window, axis: str, index: Tensor) -> Inputs:
        """Inputs of other samples (axis "N") or steps ("T"): those with the numbers in ``index``.

        What does not have the layout's axes, such as a static input, stays as it is.
        """
        sizes = {"N": window.samples, "T": window.timesteps}

        def pick(x: Any) -> Any:
            if not isinstance(x, Tensor) or not self.covers(x.shape, window):
                return x
            at = self.order.index(axis) if self.merged else self.place(axis, x.dim())
            assert at is not None
            if self.merged:
                x = x.unflatten(0, [sizes[name] for name in self.order])
            x = x.index_select(at, index.to(x.device))
            return x.flatten(0, 1) if self.merged else x

        args, kwargs = mapped(pick, (inputs.args, inputs.kwargs))
        return Inputs(args, kwargs, inputs.names)

    def resized(
        self, inputs: Inputs, window: Window, axis: str, size: int
    ) -> tuple[Layout, Inputs]:
        """A layout and inputs of another number of samples or steps; the same without the axis."""
        now = window.samples if axis == "N" else window.timesteps
        if axis not in self.axes or size == now:
            return self, inputs
        if axis == "N":
            layout = replace(self, batch_size=self.batch_size and size)
        else:
            layout = replace(self, timesteps=self.timesteps and size)
        return layout, self.picked(inputs, window, axis, torch.arange(size) % now)

    def check_same_sample(self, inputs: Inputs, example: Inputs) -> None:
        """A counter takes other numbers of samples and steps, but not other sample shapes.

        Raises:
            InputError: another number of tensors, or a tensor with another shape per sample.
        """
        ours, theirs = list(inputs.tensors()), list(example.tensors())
        if self.by_step:  # a later step may get states
            both = {name for name, _ in ours} & {name for name, _ in theirs}
            ours, theirs = ([pair for pair in some if pair[0] in both] for some in (ours, theirs))
        if len(ours) != len(theirs):
            raise InputError(
                f"the model was analyzed with {len(theirs)} input tensors "
                f"({', '.join(n for n, _ in theirs)}), not {len(ours)}. "
                "Analyze it again with such an example, or pass the same inputs."
            )
        for (name, tensor), (_, analyzed) in zip(ours, theirs, strict=True):
            same = self.own(tensor.shape) == self.own(analyzed.shape)
            if not same or tensor.dim() != analyzed.dim():
                raise InputError(
                    f"input '{name}' has shape {tuple(tensor.shape)}, but the model was analyzed "
                    f"for {tuple(analyzed.shape)}; with layout {self.axes!r} only "
                    f"{_named(self.order)} may differ. Analyze the model again with an example of "
                    "the new size."
                )


def _named(order: str) -> str:
    names = {"N": "the number of samples", "T": "the number of steps"}
    return " and ".join(names[axis] for axis in sorted(order)) or "values"


def check_devices(model: nn.Module, inputs: Inputs) -> None:
    """All tensors of the model and the example must be on one device.

    Raises:
        InputError: an input is on a device where the model has nothing.
    """
    tensors = [t for t in (*parameters_of(model), *model.buffers()) if not nn.parameter.is_lazy(t)]
    devices = {t.device for t in tensors if t.numel()}
    if len(devices) != 1:
        return
    (device,) = devices
    for name, tensor in inputs.tensors():
        if tensor.device != device and tensor.dim():
            raise InputError(
                f"input '{name}' is on {tensor.device}, but {type(model).__name__} is on {device}. "
                f"Move one of them: input.to({str(device)!r}) or model.to({str(tensor.device)!r})."
            )


def check_not_nested(inputs: Inputs) -> None:
    """Parts of one tensor that differ in size are not understood.

    Raises:
        InputError: an input is a nested tensor.
    """
    for name, tensor in inputs.tensors():
        if tensor.is_nested:
            raise InputError(
                f"input '{name}' is a nested tensor, whose parts cannot be counted one by one. "
                "Pass a padded tensor (to_padded_tensor), or count the parts one after the other."
            )


def check_events(name: str, tensor: Tensor) -> None:
    """An input that is said to carry events must hold whole numbers.

    Raises:
        InputError: the example has fractional values.
    """
    if not tensor.is_floating_point() or tensor.is_meta:
        return
    if isinstance(tensor, torch._subclasses.FakeTensor):
        return
    values = tensor.detach()
    if values.layout is torch.sparse_coo:
        values = values.coalesce().values()
    elif values.layout is not torch.strided:
        values = values.values()
    finite = values[torch.isfinite(values)]
    if bool((finite != finite.round()).any()):
        raise InputError(
            f"input '{name}' has fractional values (such as "
            f"{finite[finite != finite.round()][0].item():.4g}), so it does not carry events. "
            "If it is analog (a grey-level image, a current), pass input_events=False."
        )
