"""The device on which torch makes new tensors, where a user has set another than the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch

from fxsynops.tracing.torch_versions import default_device, making_on

_users: ContextVar[torch.device | None] = ContextVar("users", default=None)


@contextmanager
def own_device() -> Iterator[None]:
    """Tensors of this package's are made on the CPU, whatever the user's default device is."""
    users = default_device()
    if users.type == "cpu":
        yield
        return
    token = _users.set(users)
    try:
        with making_on(torch.device("cpu")):
            yield
    finally:
        _users.reset(token)


def users_device() -> AbstractContextManager[object]:
    """Inside of :func:`own_device`: the user's own default device again, for code of the model."""
    users = _users.get()
    return nullcontext() if users is None else making_on(users)
