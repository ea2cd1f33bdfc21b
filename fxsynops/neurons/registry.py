"""What is known about spiking modules: which part of their output is events, and how many."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache, partial, wraps
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from fxsynops.errors import FxSynopsError, InputError
from fxsynops.neurons import libraries
from fxsynops.neurons.dynamics import FindDynamics, Steps
from fxsynops.neurons.updates import Update, UpdateOf
from fxsynops.tracing.recorder import Inside
from fxsynops.tracing.torch_api import modules_of


def _in_order(names: tuple[str, ...]) -> dict[str, int]:
    return {name: 1 + i for i, name in enumerate(names)}


@dataclass(frozen=True)
class Neuron:
    """What a module that is kept whole puts out.

    Attributes:
        output: which part of a returned tuple is the events; the rest is state.
        kept: the attribute that holds the events after a call, if the call does not return them.
        spikes: whether it emits events at all (a leaky integrator does not).
        max_spikes: events per neuron and step at most; infinite without a cap.
        amplitude: the value of one event, or how to read it from the module as it is now.
        signed: whether events may be negative.
        threshold: what a user said of the firing threshold, or None.
        checked: whether the module emits ``max_spikes`` at most as it is now; None: surely.
        guessed: whether it is taken for spiking because it made whole numbers of the example.
        graded: whether a user has named it in ``spiking=``: what it puts out counts by its value,
            whole or not.
        rounded: whether events are whole numbers but for rounding.
        promised: whether only a user says that these are events: an input, a registered type.
        inside: the synapses inside of the module, or None if it has none.
        dynamics: how charge becomes events, for bounds; None if no argument is known.
        steps: where its output, of a shape, has its time steps, or None if that is not known of
            this module; None: of no such module.
        refused: why the module cannot be counted, if it cannot.
        update: what one update costs, if a user has said it; see :meth:`update_of`.
        returned: where in what it returns stand the states that its next call takes, by the names
            of their parameters: behind the events, in the same order, unless the library says else.
    """

    output: int = 0
    kept: str = ""
    spikes: bool = True
    max_spikes: float = math.inf
    amplitude: float | Callable[[Any], Any] = 1.0
    signed: bool = False
    threshold: float | None = None
    checked: Callable[[Any], bool] | None = None
    guessed: bool = False
    graded: bool = False
    rounded: bool = False
    promised: bool = False
    inside: Inside | None = None
    dynamics: FindDynamics | None = None
    steps: Callable[[Any, tuple[int, ...]], Steps | None] | None = None
    refused: str = ""
    update: Update | None = None
    returned: Callable[[tuple[str, ...]], dict[str, int]] = _in_order

    def may_be_negative(self, module: Any) -> bool:
        """Whether events may be negative: a function that a user gave a neuron can be anything."""
        if module is not None and is_changed(module):
            return True
        return self.signed or (self.checked is not None and not self.checked(module))

    def may_be_fraction(self, module: Any) -> bool:
        """Whether events may turn out to be no whole numbers, though they should be."""
        doubtful = self.guessed or self.promised or (module is not None and is_changed(module))
        return doubtful or (self.checked is not None and not self.checked(module))

    def update_of(self, module: Any) -> Update | None:
        """What one update of a module costs; None if its type is not known."""
        if self.update is not None or module is None:
            return self.update
        for library in LIBRARIES if registered(type(module)) is None else ():
            known: dict[str, UpdateOf] = {}
            if names := names_of(type(module), library):
                known = getattr(_file_of(library), "UPDATES", {})
            for name in names:
                found = known.get(name)
                if found is not None:
                    return found if isinstance(found, Update) else found(module)
        return None

    def is_doubted(self, module: nn.Module) -> bool:
        """Whether a module of a library may do something else, for it is not all the library's."""
        if self.promised or self.graded or self.refused:
            return False
        return is_patched(module) or (self.checked is not None and not self.checked(module))

    def fits(self, module: nn.Module, result: Any, multiplied: bool) -> bool:
        """Whether what a module returned is whole events, in their place, and no weights were used.

        Args:
            module: it.
            result: what it returned.
            multiplied: whether it has multiplied and added up.
        """
        if multiplied and self.inside is None:
            return False
        if not isinstance(result, Tensor) and not is_librarys(type(module).forward):
            return False
        if self.kept or self.rounded:
            return True
        parts = result if isinstance(result, tuple) else (result,)
        events = parts[self.output] if self.output < len(parts) else None
        if not isinstance(events, Tensor):
            return False
        worth = self.amplitude(module) if callable(self.amplitude) else self.amplitude
        if events.is_meta:
            return True
        found = events.detach().double() / worth
        whole = bool(((found - found.round()).abs() <= 1e-4 * found.abs().clamp(min=1)).all())
        fires = whole and bool(found.any())  # a quiet example says nothing
        return fires == self.spikes


def holds_more(module: nn.Module) -> bool:
    """Whether a user's class adds parameters, or modules with some, to those of a library's."""
    kind: Any = type(module)
    theirs = _names_in(kind)
    own = [*module._parameters, *(n for n, m in module._modules.items() if _has_weights(m))]
    return any(name not in theirs for name in own)


def _has_weights(module: nn.Module | None) -> bool:
    return module is not None and next(iter(nn.Module.parameters(module)), None) is not None


@lru_cache(maxsize=1024)
def _names_in(cls: type) -> frozenset[str]:
    """All names that the methods of a class's library mention."""
    codes = [
        function.__code__
        for base in cls.__mro__
        if base is not nn.Module and is_librarys(base)
        for value in vars(base).values()
        if isinstance(function := getattr(value, "__func__", value), FunctionType)
    ]
    words = [word for code in codes for word in (*code.co_names, *code.co_consts)]
    return frozenset(word for word in words if isinstance(word, str))


def _settings() -> set[str]:
    """The names of attributes of neurons that are functions which users choose."""
    return {name for file in _loaded() for name in getattr(file, "SETTINGS", ())}


def is_changed(module: nn.Module) -> bool:
    """Whether a method, or a function that a neuron was given and may learn, is the user's."""
    attributes = (module.__dict__, module._modules)
    given = [held[name] for name in _settings() for held in attributes if name in held]
    kinds = [type(v) if isinstance(v, nn.Module) else _maker(v) for v in given if v is not None]
    return is_patched(module) or not all(map(is_librarys, kinds))


def _maker(function: Any) -> Any:
    """Of the ``apply`` of a ``torch.autograd.Function``, the class; any other function itself."""
    owner = getattr(function, "__self__", None)
    return owner if _is(owner, torch.autograd.Function) else function


def is_patched(module: nn.Module) -> bool:
    """Whether a method is not the library's: replaced in the object, its class, or by a subclass.

    Functions that are settings of a neuron (a surrogate) are none; their files look at them.
    """
    if registered(type(module)) is None and _is_overridden(type(module)):
        return True
    settings = _settings()
    for name, value in module.__dict__.items():
        if not callable(value) or isinstance(value, nn.Module):
            continue
        own = getattr(value, "__self__", None) is module and hasattr(type(module), value.__name__)
        replaced = hasattr(type(module), name) or name.endswith("_function")
        if replaced and not own and name not in settings:
            return True
    return False


_HARMLESS = frozenset(["__init__", "extra_repr", "__repr__", "__doc__"])


def _is_overridden(cls: type) -> bool:
    """Whether a class of a library, or derived from one, has methods that are not the library's."""
    bases = [base for base in cls.__mro__ if is_librarys(base) and base is not nn.Module]
    theirs = {name for base in bases for name in vars(base)} - _HARMLESS
    return any(
        isinstance(function := getattr(value, "__func__", value), FunctionType)
        and name in theirs
        and not is_librarys(function)
        for base in cls.__mro__
        if base is not nn.Module
        for name, value in vars(base).items()
    )


def analog_like(x: Tensor) -> Tensor:
    """An analog value of the shape of ``x``, for synapses of hidden states that no call returns."""
    return torch.sigmoid(x)


# Libraries whose neurons are known, by the names of their files: each has a function ``describe``,
# ``reset`` if its neurons keep states between forwards, ``UPDATES`` for what an update costs, and
# ``SETTINGS`` if some attributes of them are functions.
_PARTS = {  # files about part of a package
    "torch_nn": "torch.nn",
    "fxsynops_nn": "fxsynops.nn",
    "lava_lib_dl_slayer": "lava.lib.dl.slayer",
}
LIBRARIES = tuple(sorted(_PARTS.get(f.name, f.name) for f in iter_modules(libraries.__path__)))

_registered: dict[Any, Neuron] = {}


def register_spiking(
    type: Any,
    *,
    output: int = 0,
    max_spikes: float | None = None,
    threshold: float | None = None,
    amplitude: float | Callable[[Any], Any] = 1.0,
    signed: bool = True,
    update: Update | None = None,
) -> Any:
    """Tell fxsynops that a module type, or a function, is a spiking neuron.

    It is then kept whole in every analysis, and what it returns is events. Returns ``type``, so
    that it may decorate a class or a function.

    Args:
        type: a class of ``nn.Module`` or ``torch.autograd.Function``, subclasses included; the name
            of one, for classes that cannot be imported; a function in Python, of which what is
            returned here is to be called in its place.
        output: which part of a returned tuple is the events.
        max_spikes: how many events a neuron emits per step at most (None: no cap).
        threshold: the firing threshold. It is named in bounds; alone, it bounds nothing.
        amplitude: the value that stands for one event, or how to read it from the module as it is
            now: ``lambda module: module.v_threshold``.
        signed: whether there may be events of both signs. If there are none, counting is faster.
        update: what a neuron does in every time step: ``fxsynops.neurons.Update(additions,
            multiplies, comparisons)``. It plays a role for energy only; if not given, a leak and a
            threshold are assumed.

    Raises:
        InputError: ``type`` is none of these, or a number makes no sense.

    Example:
        >>> import torch, fxsynops
        >>> class Resonator(torch.nn.Module):
        ...     def forward(self, current, state=None):
        ...         state = current if state is None else 0.9 * state + current
        ...         return (state > 1).float(), state
        >>> fxsynops.register_spiking(Resonator, max_spikes=1)
        <class '...Resonator'>
    """
    owner = getattr(type, "__self__", None)
    if _is(owner, torch.autograd.Function) and type.__name__ == "apply":
        type = owner
    known = _is(type, nn.Module) or _is(type, torch.autograd.Function)
    if not known and not isinstance(type, str | FunctionType):
        raise InputError(
            f"register_spiking takes a class, its name, or a function in Python, not {type!r}."
        )
    reads = amplitude if callable(amplitude) else None
    if reads is None and not isinstance(amplitude, int | float):
        raise InputError(f"amplitude must be a number, or read one, not {amplitude!r}.")
    if reads is not None and not isinstance(type, str) and not _is(type, nn.Module):
        raise InputError(
            f"amplitude can be read from modules only, and {type.__name__} is none: pass a number."
        )
    if amplitude == 0 or (max_spikes is not None and max_spikes < 0):
        raise InputError(
            f"amplitude must not be zero and max_spikes not negative: {amplitude}, {max_spikes}."
        )
    cap = math.inf if max_spikes is None else float(max_spikes)
    key = _as_one_call(type) if isinstance(type, FunctionType) else type
    _registered[key] = Neuron(
        output,
        max_spikes=cap,
        amplitude=amplitude if reads is None else partial(_read, reads),
        signed=signed,
        threshold=threshold,
        promised=True,
        update=update,
    )
    return key


def _is(value: Any, base: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, base)


def _read(reads: Callable[[Any], Any], module: Any) -> Tensor:
    """A module's amplitude, as a user's function reads it."""
    name = "a function" if module is None else f"a {type(module).__name__}"
    try:
        found = torch.as_tensor(reads(module))
    except Exception as error:
        raise InputError(
            f"the amplitude of {name} could not be read: {type(error).__name__}: {error}. Pass a "
            "number, or a function that finds one in each module that was registered."
        ) from error
    if not found.is_meta and not bool((found != 0).all()):
        raise InputError(f"the amplitude of {name} must not be zero: {found}.")
    return found


def _as_one_call(function: FunctionType) -> Any:
    """A function in Python that is one call for whoever records calls of torch's."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        tensors = tuple(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        if has_torch_function(tensors):
            return handle_torch_function(called, tensors, *args, **kwargs)
        return function(*args, **kwargs)

    return called


def registered(target: Any) -> Neuron | None:
    """What users registered for a function, or for a class or one of its bases.

    Of compiled operators, what the library's file says that they belong to.
    """
    if isinstance(target, torch._ops.OpOverload):
        says = (getattr(file, "describe_operator", lambda *_: None) for file in _loaded())
        found = (say(target.namespace, target._opname) for say in says)
        return next((neuron for neuron in found if neuron is not None), None)
    if not inspect.isclass(target):
        return _registered.get(target) if isinstance(target, FunctionType) else None
    for base in target.__mro__:
        for key in (base, base.__name__, f"{base.__module__}.{base.__qualname__}"):
            if key in _registered:
                return _registered[key]
    return None


@dataclass(frozen=True)
class Chosen:
    """What the user of one analysis takes to be spiking.

    Attributes:
        types: of modules, or autograd functions.
        modules: single ones, by their names in the model.
    """

    types: tuple[type, ...] = ()
    modules: tuple[tuple[str, nn.Module], ...] = ()

    @classmethod
    def of(cls, model: nn.Module, spiking: tuple[type | str, ...]) -> Chosen:
        """Those that an analysis of a model names.

        Raises:
            InputError: the model has no module of this name.
        """
        types = tuple(entry for entry in spiking if isinstance(entry, type))
        names = [entry for entry in spiking if isinstance(entry, str)]
        parts, modules = dict(model.named_modules()) if names else {}, []
        for name in names:
            if name not in parts:
                near = get_close_matches(name, parts, 3) or list(parts)[1:4]
                some = f"It has {', '.join(map(repr, near))}, …" if near else "It has none"
                raise InputError(
                    f"spiking={name!r} names no module of {type(model).__name__}. {some} (see "
                    "model.named_modules())."
                )
            modules.append((name, parts[name]))
        return cls(types, tuple(modules))

    def __contains__(self, module: object) -> bool:
        return isinstance(module, self.types) or any(one is module for _, one in self.modules)


def describe(module: nn.Module, spiking: Chosen = Chosen()) -> Neuron | None:
    """What is known of ``module`` as a neuron; None if it is none.

    Args:
        module: any module.
        spiking: what the user of this analysis takes to be spiking.
    """
    found = registered(type(module))
    if found is None:
        found = _describe_by_library(module)
    if module in spiking:
        known = Neuron(signed=True) if found is None else replace(found, spikes=True)
        found = replace(known, graded=found is None or not found.spikes)
    return found


def is_librarys(function: Any) -> bool:
    """Whether a function or class was written by one of the libraries whose neurons are known."""
    while isinstance(names := getattr(function, "__globals__", None), dict):
        module = str(names.get("__name__"))  # a wrapper's ``__module__`` is that of what it wraps
        if module.split(".")[0] not in _WRAPPERS or not hasattr(function, "__wrapped__"):
            return _is_librarys(module)
        function = function.__wrapped__
    return _is_librarys(str(getattr(function, "__module__", "")))


_WRAPPERS = ("torch", "functools", "contextlib")  # of decorators that change no function's meaning


@lru_cache(maxsize=4096)
def _is_librarys(module: str) -> bool:
    return any(f"{module}.".startswith(f"{library}.") for library in LIBRARIES)


def names_of(cls: type, package: str) -> tuple[str, ...]:
    """The names of those among a class and its bases that a package defines, the class first.

    Files of libraries go by names: releases differ in which classes they have.
    """
    return tuple(base.__name__ for base in cls.__mro__ if _is_of(base, package))


def own_name(cls: type, package: str) -> str:
    """The name of a class that a package itself defines; nothing for a subclass of it."""
    return cls.__name__ if _is_of(cls, package) else ""


def _is_of(function: Any, package: str) -> bool:
    return f"{getattr(function, '__module__', '')}.".startswith(f"{package}.")


def reset_states(model: nn.Module) -> list[nn.Module]:
    """Set the states of all neurons to their start, by their libraries' own resets.

    Returns:
        the modules that were reset.
    """
    resets = [file.reset for file in _loaded() if hasattr(file, "reset")]
    return [module for module in modules_of(model) for reset in resets if reset(module)]


def _loaded() -> list[ModuleType]:
    """The files of the libraries that the user has loaded."""
    return [_file_of(library) for library in LIBRARIES if library in sys.modules]


def _file_of(library: str) -> ModuleType:
    """What is known about a library's neurons."""
    return import_module(f"{libraries.__name__}.{library.replace('.', '_')}")


def _by_file(library: str, module: nn.Module) -> Neuron | None:
    """What a library's file knows of one of its modules; releases that are not known may differ."""
    describe_by_file: Callable[[nn.Module], Neuron | None] = _file_of(library).describe
    try:
        return describe_by_file(module)
    except FxSynopsError:
        raise  # what a file itself says
    except Exception as error:
        version = getattr(sys.modules[library.partition(".")[0]], "__version__", "of this release")
        return Neuron(
            refused=f"a {type(module).__name__} of {library} {version} is not understood "
            f"({type(error).__name__}: {error}). Say what it emits with register_spiking"
        )


def _describe_by_library(module: nn.Module) -> Neuron | None:
    for base in type(module).__mro__:
        for library in LIBRARIES:
            if _is_of(base, library) and library in sys.modules:
                found = _by_file(library, module)
                if found is not None and found.inside is not None:
                    own = _is_of(type(module).forward, library)
                    return found if own else None  # a forward that is not the library's
                if found is not None:
                    return found
    return None
