"""Functions that appear in a recorded graph beside torch's own.

Each does for real, in the replay, what the recording saw a forward do other than call a function
on tensors: write into one, call hooks, branch on a value, keep state in an attribute.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules import module as nn_module
from torch.utils import _pytree as pytree
from torch.utils.hooks import BackwardHook

from fxsynops.errors import SpecializationError
from fxsynops.tracing.places import Change, Place
from fxsynops.tracing.sharded import note_output


def getitem(value: Any, key: Any) -> Any:
    """Return ``value[key]`` of a tuple, list or dict that a call returned."""
    return value[key]


def size_of(tensor: Tensor) -> tuple[int, ...]:
    """Shape, as a plain tuple."""
    return tuple(tensor.shape)


def read_value(read: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """A number that Python reads out of a tensor, and only hands on."""
    return read(*args)


def read_attribute(place: Place) -> Any:
    """A number of the model's that Python reads, and only hands on."""
    return place.get()


def read_state(place: Place, *after: Any) -> Any:
    """What a module that is kept whole holds, once the calls in ``after`` have been made."""
    return place.get()


def setitem(input: Tensor, index: Any, value: Any) -> Tensor:
    """``input[index] = value``; returns ``input``, so that later uses depend on the write."""
    input[index] = value
    return input


def deepcopy(input: Tensor) -> Tensor:
    """A copy that shares nothing."""
    return copy.deepcopy(input)


def shallow_copy(input: Tensor) -> Tensor:
    """Another object over the same memory, cut off from the gradient (``copy.copy``)."""
    return copy.copy(input)


def is_assignment(target: Any) -> bool:
    """Whether a call is ``x.data = y``."""
    held = getattr(getattr(target, "__self__", None), "__name__", "")
    return getattr(target, "__name__", "") == "__set__" and held == "data"


def after(input: Tensor, call: Any) -> Tensor:
    """``input`` as ``call`` has left it, a call that writes to one of its arguments."""
    return input


def alias_after(input: Tensor, written: Tensor, geometry: Any) -> Tensor:
    """``input`` after another tensor that shares its memory was ``written`` to."""
    return input


def forward_of(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """``module.forward(...)``, which unlike ``module(...)`` runs no hooks."""
    return module.forward(*args, **kwargs)


def check_branch(read: Callable[..., Any], args: tuple[Any, ...], expected: Any, where: str) -> Any:
    """What Python read out of a tensor must be what the recording read.

    Raises:
        SpecializationError: it is not, so the recorded graph may not be what the model would do.
    """
    value = read(*args)
    if value != expected and not (value != value and expected != expected):
        what, cure = "branches on data", "Make the branch a tensor operation (torch.where)"
        if read is size_of:
            what = "has a size that data decide"
            cure = "Keep all elements, and set to zero what is left out"
        elif getattr(read, "__name__", "") == "item":
            what = "branches on data, or computes with a number that is read out of them"
            cure = "Make it a tensor operation (torch.where; a product without .item())"
        error = SpecializationError(
            f"{where}: the model {what}. It was analyzed for {_short(expected)}, now the value is "
            f"{_short(value)}, and the recorded graph no longer tells what it does. {cure}, or "
            "hide it in a module that is kept whole: pass its type as spiking=, or register it "
            "with fxsynops.register_spiking."
        )
        error.value = value
        raise error
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def before_call(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], changed: bool
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """What ``module(*args, **kwargs)`` does before its forward when it has hooks."""
    versions, given = [] if changed else _versions((args, kwargs)), (args, kwargs)
    hooks = [*nn_module._global_forward_pre_hooks.items(), *module._forward_pre_hooks.items()]
    for key, hook in hooks:
        if key in module._forward_pre_hooks_with_kwargs:
            result = hook(module, args, kwargs)
            if result is not None:
                args, kwargs = result
        else:
            result = hook(module, args)
            if result is not None:
                args = result if isinstance(result, tuple) else (result,)
    _check_unchanged(module, versions)
    if changed:
        _check_alike(module, given, (args, kwargs))
    full, _ = module._get_backward_hooks()
    pre = module._get_backward_pre_hooks()
    backward = BackwardHook(module, full, pre) if full or pre else None
    if backward is not None:
        args = backward.setup_input_hook(args)
    return args, kwargs, backward


def after_call(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    backward: Any,
    output: Any,
    changed: bool,
) -> Any:
    """What ``module(*args, **kwargs)`` does after its forward when it has hooks."""
    versions, given = [] if changed else _versions((args, kwargs, output)), output
    hooks = [*nn_module._global_forward_hooks.items(), *module._forward_hooks.items()]
    for key, hook in hooks:
        if key in module._forward_hooks_with_kwargs:
            result = hook(module, args, kwargs, output)
        else:
            result = hook(module, args, output)
        output = output if result is None else result
    note_output(module, output)
    _check_unchanged(module, versions)
    if changed:
        _check_alike(module, given, output)
    return output if backward is None else backward.setup_output_hook(output)


def through_hooks(node: fx.Node) -> Any:
    """What hooks get, and hand on perhaps otherwise; None for a node of anything else."""
    if node.target is before_call:
        return node.args[1:3]
    return node.args[4] if node.target is after_call else None


def _versions(values: Any) -> list[tuple[Tensor, int]]:
    leaves = pytree.tree_leaves(values)
    return [(t, t._version) for t in leaves if isinstance(t, Tensor) and not t.is_inference()]


def _check_unchanged(module: nn.Module, versions: list[tuple[Tensor, int]]) -> None:
    """A hook that returns nothing must not write to what it is given.

    Raises:
        SpecializationError: it does, so that what was found of the model may not hold.
    """
    if any(tensor._version != version for tensor, version in versions):
        raise SpecializationError(
            f"a hook on a {type(module).__name__} writes to a tensor that it is given, and returns "
            "nothing, so the analysis could not know of it. Let the hook return what it makes, "
            "and analyze the model again."
        )


def _check_alike(module: nn.Module, given: Any, returned: Any) -> None:
    """What hooks hand on must have the form and the sizes that it had without them.

    Raises:
        SpecializationError: it has not, so that the recorded forward is another one.
    """
    ours, theirs = pytree.tree_flatten(given), pytree.tree_flatten(returned)
    sizes = [
        [leaf.shape if isinstance(leaf, Tensor) else None for leaf in leaves]
        for leaves, _ in (ours, theirs)
    ]
    if ours[1] != theirs[1] or sizes[0] != sizes[1]:
        raise SpecializationError(
            f"a hook on a {type(module).__name__} hands on other arguments or sizes than it gets, "
            "and the analysis, in which no hook runs, has seen the model without it. Do in a "
            "forward what the hook does, or count without it."
        )


def change_state(change: Change, value: Any) -> None:
    """Leave a module's attribute as the recorded forward left it."""
    if change.action == "delete":
        change.place.delete()
    elif change.action == "refill":
        change.place.refill(list(value))
    elif change.action == "extend":
        change.place.extend(list(value))
    else:
        change.place.set(value)


def build(kind: Any, content: Any) -> Any:
    """An object of a forward's output that is no tuple, list or dict of tensors itself."""
    if hasattr(kind, "__dataclass_fields__") and not issubclass(kind, dict):
        value: Any = kind.__new__(kind)
        for name, part in content.items():
            object.__setattr__(value, name, part)
        return value
    if issubclass(kind, defaultdict):
        return defaultdict(None, content)
    return kind(content)
