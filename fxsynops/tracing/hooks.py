"""Hooks on modules: whether there are any, and whether they may change what they are given.

An analysis does not run hooks, the replay does. A hook that never returns anything can only look
on, and the replay checks that it does. Any other may hand on other values than it got.
"""

from __future__ import annotations

import dis
from collections.abc import Iterable
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn
from torch.nn.modules import module as nn_module

from fxsynops.tracing.sharded import hands_on

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def has_hooks(module: nn.Module) -> bool:
    """Whether calling ``module`` runs any user hook, its own or a global one."""
    state = module.__dict__
    return any(state.get(name) for name in HOOKS) or has_global_hooks()


def has_global_hooks() -> bool:
    """Whether any hook runs at every module's call."""
    return any(getattr(nn_module, name) for name in GLOBAL_HOOKS)


def may_change(module: nn.Module) -> tuple[bool, bool]:
    """Whether hooks may give ``module`` other inputs, and whether they may return others for it."""
    state = module.__dict__
    before = [*nn_module._global_forward_pre_hooks.values(), *state["_forward_pre_hooks"].values()]
    behind = [*nn_module._global_forward_hooks.values(), *state["_forward_hooks"].values()]
    return not _look_on(before), not _look_on(behind)


def _look_on(hooks: Iterable[Any]) -> bool:
    return all(
        hands_on(hook) or ((code := _code_of(hook)) is not None and _returns_nothing(code))
        for hook in hooks
    )


def _code_of(hook: Any) -> CodeType | None:
    """What a hook runs, if that is plain Python."""
    while isinstance(hook, partial | MethodType):
        hook = hook.func if isinstance(hook, partial) else hook.__func__
    if not isinstance(hook, FunctionType) and callable(hook):
        hook = type(hook).__call__
    return hook.__code__ if isinstance(hook, FunctionType) else None


@lru_cache(maxsize=1024)
def _returns_nothing(code: CodeType) -> bool:
    """Whether each return of a function is of None."""
    before = None
    for at in dis.get_instructions(code):
        if at.opname == "RETURN_CONST" and at.argval is not None:
            return False
        if at.opname in ("RETURN_VALUE", "RETURN_GENERATOR"):
            nothing = before is not None and before.opname == "LOAD_CONST" and before.argval is None
            if at.is_jump_target or not nothing:
                return False
        before = at
    return True
