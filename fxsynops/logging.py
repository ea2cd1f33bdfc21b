"""Counts for the loggers of long trainings: TensorBoard, Weights & Biases, lightning.

``fxsynops`` itself does not import this module: ``from fxsynops.logging import scalars``.
"""

from __future__ import annotations

from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fxsynops.counter import SynOpsCounter

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
