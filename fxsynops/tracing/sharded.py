"""Parameters of which each process has a part, and the hooks that bring the parts together.

``torch.distributed.fsdp.fully_shard`` keeps a part of each parameter on each rank (a ``DTensor``),
and puts whole ones in their places around each module's forward. ``parallelize_module`` leaves the
parts where they are, and its hooks hand on what comes in and goes out in parts, or as a whole. A
replay runs these hooks. A recording, which runs none, gathers the parameters that it needs, on all
ranks at once: it is of the model as a whole, and so are the events that are measured in a replay.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils import _pytree as pytree

from fxsynops.errors import InputError, TraceError


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is one of which each rank has a part."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def whole(model: nn.Module, tensor: Any, name: str) -> Tensor:
    """A sharded tensor of a model's as a whole; every rank has to ask for it.

    Raises:
        TraceError: nobody says what brings its parts together.
    """
    if not is_fully_sharded(model) and not is_parallelized(model):
        raise TraceError(
            f"'{name}' is a DTensor, though the model is neither under fully_shard nor under "
            "parallelize_module, so it is not known where its parts come together. Analyze and "
            "count the model before its tensors are distributed."
        )
    with torch.no_grad():
        return tensor.full_tensor().detach().clone()


_GATHERING: ContextVar[bool] = ContextVar("gathering", default=False)


@contextmanager
def gathering() -> Iterator[None]:
    """An analysis is made, on all ranks at once; at other times a rank may be alone."""
    token = _GATHERING.set(True)
    try:
        yield
    finally:
        _GATHERING.reset(token)


def known_whole(model: nn.Module, tensor: Tensor, name: str) -> Tensor | None:
    """A tensor as a whole; None of a sharded one, unless an analysis is made."""
    if not is_sharded(tensor):
        return tensor
    return whole(model, tensor, name) if _GATHERING.get() else None


def check_whole(model: nn.Module) -> None:
    """A bound looks at every weight.

    Raises:
        InputError: this rank has only a part of them.
    """
    if name := next((name for name, p in model.named_parameters() if is_sharded(p)), None):
        raise InputError(
            f"'{name}' is sharded, and a bound looks at every weight. Ask for it before the model "
            "is sharded, or of a model with the whole state dict."
        )


def check_not_flat(model: nn.Module) -> None:
    """The first FSDP keeps parameters flat, and its own views of them.

    Raises:
        TraceError: a part of the model is under it.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FullyShardedDataParallel", None)
    if kind is not None and any(isinstance(module, kind) for module in model.modules()):
        raise TraceError(
            "the model is under FullyShardedDataParallel, whose flat parameters cannot be "
            "followed. Use torch.distributed.fsdp.fully_shard (FSDP2), or count the model before "
            "it is wrapped."
        )


def hands_on(hook: Any) -> bool:
    """Whether a hook of torch's brings parts together, and hands on what it gets."""
    return _is_of_fsdp(hook) or _is_of_tensors(hook)


def _is_of_fsdp(hook: Any) -> bool:
    owner = type(getattr(hook, "__self__", None))
    return owner.__module__.startswith("torch.distributed.fsdp")


def in_a_group() -> bool:
    """Whether this is a process of several that train one model."""
    return distributed.is_available() and distributed.is_initialized()


def is_in_parts(model: nn.Module) -> bool:
    """Whether no process has all of a model's parameters."""
    return is_fully_sharded(model) or is_parallelized(model)


def is_fully_sharded(model: nn.Module) -> bool:
    """Whether a model, or a part of it, is under ``fully_shard``."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    return kind is not None and any(isinstance(module, kind) for module in model.modules())


def is_parallelized(model: nn.Module) -> bool:
    """Whether a model, or a part of it, is under ``parallelize_module``."""
    return in_a_group() and any(map(splits, model.modules()))


def splits(module: nn.Module) -> bool:
    """Whether hooks of tensor parallelism hand on in parts what comes into a module, or out."""
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return any(map(_is_of_tensors, hooks))


def _is_of_tensors(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed.tensor")


def _mesh_of(model: nn.Module) -> Any:
    """The processes that work together on each forward of a model."""
    tensors = (p for module in model.modules() for p in module.parameters() if splits(module))
    sharded: Any = next(filter(is_sharded, tensors))
    mesh = sharded.device_mesh
    return mesh if mesh.ndim == 1 else mesh[mesh.mesh_dim_names[-1]]


def ranks_that_count_the_same(model: nn.Module) -> tuple[int, ...]:
    """The processes that do a part of each forward, if several do: each counts the whole."""
    if not is_parallelized(model):
        return ()
    return tuple(_mesh_of(model).mesh.flatten().tolist())


def assembled(model: nn.Module, value: Tensor, size: tuple[int, ...]) -> Tensor:
    """A value in a parallelized model, of which this process may have a part, as a whole.

    Args:
        model: the model.
        value: in its forward.
        size: of the whole.

    Raises:
        TraceError: it is not known how the parts lie in the whole.
    """
    if is_sharded(value):
        return value.full_tensor()  # type: ignore[attr-defined]
    if value.shape == size:
        return value
    parts = [i for i, (own, all) in enumerate(zip(value.shape, size, strict=False)) if own != all]
    if value.dim() != len(size) or len(parts) != 1:
        raise TraceError(
            f"a tensor of {tuple(value.shape)} is part of one of {size}, and it is not known "
            "which. Analyze and count the model before parallelize_module."
        )
    tensors = sys.modules["torch.distributed.tensor"]
    stride = torch.empty(size, device="meta").stride()
    whole = tensors.DTensor.from_local(
        value, _mesh_of(model), [tensors.Shard(parts[0])], shape=torch.Size(size), stride=stride
    )
    return whole.full_tensor()


_PUT_OUT: ContextVar[list[Any] | None] = ContextVar("put_out", default=None)


@contextmanager
def outputs_of_parts() -> Iterator[list[Any]]:
    """What the parts of a model put out that are under ``fully_shard``, as they are called."""
    found: list[Any] = []
    token = _PUT_OUT.set(found)
    try:
        yield found
    finally:
        _PUT_OUT.reset(token)


def note_output(module: nn.Module, output: Any) -> None:
    """For :func:`outputs_of_parts`: the hooks of a part have run."""
    found = _PUT_OUT.get()
    if found is not None and any(map(_is_of_fsdp, module._forward_hooks.values())):
        found.append(output)


class _Tied(torch.autograd.Function):
    """A value as it is, whose backward passes by others: they get a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *others: Tensor) -> Tensor:
        ctx.others = [(other.shape, other.dtype, other.device) for other in others]
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        zeros = (torch.zeros(shape, dtype=dtype, device=at) for shape, dtype, at in ctx.others)
        return grads[0], *zeros


def tied(value: Tensor, outputs: Any) -> Tensor:
    """A value whose backward begins where those of a model's, and its parts', outputs do.

    There FSDP gathers the parameters that it needs, and DistributedDataParallel waits for all
    gradients, also if nothing is asked of the outputs themselves.
    """
    others = [t for t in pytree.tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad]
    return _Tied.apply(value, *others) if value.requires_grad and others else value
