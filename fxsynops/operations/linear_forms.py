"""Operations in their linear form, for values and for fan-out maps alike."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def set_part(x: Tensor, index: Any, value: Any) -> Tensor:
    """A copy of ``x`` in which ``value`` is written at ``index``."""
    x = x.double().clone()
    x[index] = value.to(x.dtype) if isinstance(value, Tensor) else value
    return x


def overlay(alias: Tensor, written: Tensor, geometry: Any) -> Tensor:
    """``alias`` after a write, as a linear function of both values."""
    (size, stride, offset), (size_w, stride_w, offset_w) = geometry
    end = 1 + max(
        o + sum((n - 1) * s for n, s in zip(z, t, strict=True))
        for z, t, o in ((size, stride, offset), (size_w, stride_w, offset_w))
    )
    cells = torch.arange(end)
    ours = cells.as_strided(size, stride, offset)
    theirs = cells.as_strided(size_w, stride_w, offset_w)
    memory = torch.zeros(end, dtype=torch.float64)
    memory = memory.index_put((ours,), alias.double())
    return memory.index_put((theirs,), written.double())[ours]


def sum_windows(x: Tensor, n: int, window: tuple[Any, ...]) -> Tensor:
    """Sum pooling along the last ``n`` axes of any number of axes."""
    kernel, stride, padding, ceil = window
    lead = x.shape[: x.dim() - n]
    x = x.reshape(-1, 1, *x.shape[x.dim() - n :])
    if n == 1:
        kernel, stride, padding = ((1, *kernel), (1, *stride), (0, *padding))
        y = F.avg_pool2d(x.unsqueeze(-2), kernel, stride, padding, ceil, True, 1).squeeze(-2)
    elif n == 2:
        y = F.avg_pool2d(x, kernel, stride, padding, ceil, True, 1)
    else:
        y = F.avg_pool3d(x, kernel, stride, padding, ceil, True, 1)
    return y.reshape(*lead, *y.shape[2:])
