"""Counts of long runs: for TensorBoard, Weights & Biases and lightning, and kept in a file.

``fxsynops`` itself does not import this module: ``from fxsynops.logging import scalars, keep``.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from fxsynops.counter import SynOpsCounter
from fxsynops.errors import InputError

# Of each counter, what is on its way from the device: names, numbers, and when they have arrived.
_ON_THE_WAY: WeakKeyDictionary[SynOpsCounter, deque[tuple[list[str], Tensor, Any]]] = (
    WeakKeyDictionary()
)
_ARRIVED: WeakKeyDictionary[SynOpsCounter, dict[str, float]] = WeakKeyDictionary()


def scalars(counter: SynOpsCounter, prefix: str = "synops") -> dict[str, float]:
    """SynOps per sample of the counter's last forward, in total and by layer.

    Nothing waits for a GPU: there, they are those of the latest forward whose counts have arrived,
    and of the first call nothing at all.

    Args:
        counter: that has counted a forward.
        prefix: the name of the total; layers are ``prefix/name``.

    Returns:
        floats by name, as ``SummaryWriter.add_scalar``, ``wandb.log`` and ``log_dict`` take them.

    Raises:
        CountError: nothing has been counted yet.

    Example:
        >>> import torch, fxsynops
        >>> from fxsynops.logging import scalars
        >>> counter = fxsynops.SynOpsCounter(torch.nn.Linear(4, 3), torch.ones(2, 4))
        >>> y = counter(torch.ones(2, 4))
        >>> scalars(counter)
        {'synops': 12.0, 'synops/linear': 12.0}
    """
    layers = counter.per_synapse
    with torch.no_grad():
        found = torch.stack([counter.synops, *layers.values()]) / counter.window.samples
    names = [prefix, *(f"{prefix}/{name}" for name in layers)]
    if not found.is_cuda:
        return dict(zip(names, found.tolist(), strict=True))
    queue = _ON_THE_WAY.setdefault(counter, deque())
    arriving = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
    arriving.copy_(found, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(found.device))
    queue.append((names, arriving, event))
    while queue and queue[0][2].query():
        names, numbers, _ = queue.popleft()
        _ARRIVED[counter] = dict(zip(names, numbers.tolist(), strict=True))
    return _ARRIVED.get(counter, {})


def keep(counter: SynOpsCounter, path: str | Path, *, every: int = 1) -> RemovableHandle:
    """Keep what a counter counts in a file, and go on from what is there.

    For processes that may die and come back, as those of an elastic ``torchrun``: one file for each
    (``f"counts.{rank}.pt"``). A process that comes back has lost the forwards since the file was
    written, and a warning says from how many samples it goes on: ``counter.counts.samples``, by
    which a loader knows what it has to leave out.

    Args:
        counter: that counts from now on; made without ``steps=True``.
        path: of the file; it is replaced as a whole, never half written.
        every: forwards between two writings. Each waits for a GPU.

    Returns:
        what ends it: ``handle.remove()``.

    Raises:
        InputError: ``every`` is no positive whole number, or what is in the file is of another
            model, or no progress of a counter.

    Example:
        >>> import tempfile, torch, fxsynops
        >>> from fxsynops.logging import keep
        >>> file = tempfile.mkdtemp() + "/counts.pt"
        >>> counter = fxsynops.SynOpsCounter(torch.nn.Linear(4, 3), torch.ones(2, 4))
        >>> handle = keep(counter, file)
        >>> y = counter(torch.ones(2, 4))
        >>> torch.load(file, weights_only=True)["span"]
        (2, 2)
    """
    if not isinstance(every, int) or every < 1:
        raise InputError(f"every is the forwards between two writings, not {every!r}.")
    counter.progress()  # or why there is none
    path, forwards = Path(path), 0
    if path.exists():
        try:
            counter.resume(torch.load(path, weights_only=True))
        except (InputError, OSError):
            raise
        except Exception as error:
            raise InputError(f"'{path}' holds no counts that can be gone on with.") from error
        warnings.warn(
            f"the counts in '{path}' go on from {counter.counts.samples:,} samples: what was "
            "counted after it was written is lost.",
            stacklevel=2,
        )

    def write(*_: Any) -> None:
        nonlocal forwards
        forwards += 1
        if forwards % every == 0:
            beside = path.with_name(f"{path.name}.{os.getpid()}")
            torch.save(counter.progress(), beside)
            beside.replace(path)

    return counter.register_forward_hook(write)
