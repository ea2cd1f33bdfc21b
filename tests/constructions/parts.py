"""What the constructions share: the table, a spike function, a neuron, folding of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.outcome import Case

CONSTRUCTIONS: dict[str, Case] = {}
REFUSED: dict[str, tuple[Case, str]] = {}  # with what the error says
OPEN: dict[str, Case] = {}  # counted wrong, or not at all, though they could be


def forget(model: nn.Module) -> None:
    """Take every neuron to its first state."""
    for module in model.modules():
        if callable(reset := getattr(module, "reset", None)):
            reset()


def construction(
    name: str,
    inputs: Callable[[], tuple[Any, ...]],
    *,
    units: dict[str, float] | None = None,
    analog: tuple[str, ...] = (),
    reset: Callable[[nn.Module], None] = forget,
    refused: str = "",
    still_open: bool = False,
    **options: Any,
) -> Callable[[Any], Any]:
    """Enter a model by name."""

    def enter(model: Any) -> Any:
        assert name not in CONSTRUCTIONS | REFUSED | OPEN
        case = Case(model, inputs, options, reset, units or {}, analog)
        if refused:
            REFUSED[name] = case, refused
        else:
            (OPEN if still_open else CONSTRUCTIONS)[name] = case
        return model

    return enter


def images(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.rand(*shape),)


def spikes(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: ((torch.rand(*shape) < 0.4).float(),)


class Rectangle(torch.autograd.Function):
    """A step, and a window for its derivative."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad * (v.abs() < 0.5).to(grad.dtype)


spike = Rectangle.apply


class LIF(nn.Module):
    """Leaky neurons over the steps of the first axis, which start at rest."""

    def __init__(self, tau: float = 2.0, threshold: float = 0.2) -> None:
        super().__init__()
        self.tau, self.threshold = tau, threshold

    def forward(self, x):
        v, out = torch.zeros_like(x[0]), []
        for t in range(x.shape[0]):
            v = v + (x[t] - v) / self.tau
            s = spike(v - self.threshold)
            v = v * (1 - s.detach())
            out.append(s)
        return torch.stack(out)


class Cell(nn.Module):
    """One step of leaky neurons that keep their membrane in an attribute."""

    def __init__(self, decay: float = 0.5, threshold: float = 0.2) -> None:
        super().__init__()
        self.decay, self.threshold = decay, threshold
        self.v: Tensor | float = 0.0

    def reset(self):
        self.v = 0.0

    def forward(self, x):
        self.v = self.decay * self.v + x
        s = spike(self.v - self.threshold)
        self.v = self.v - s * self.threshold
        return s


class Folded(nn.Sequential):
    """Layers without time, for values (T, B, …)."""

    def forward(self, x):
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def conv(i: int, o: int, k: int = 3, **options: Any) -> Folded:
    """A convolution and its norm, at every step."""
    options = {"padding": k // 2, "bias": False} | options
    return Folded(nn.Conv2d(i, o, k, **options), nn.BatchNorm2d(o))


def dense(i: int, o: int) -> nn.Sequential:
    """A linear layer and its norm over tokens (…, N, C)."""

    class Tokens(nn.Sequential):
        def forward(self, x):
            y = self[0](x)
            return self[1](y.flatten(0, -2)).view(y.shape)

    return Tokens(nn.Linear(i, o), nn.BatchNorm1d(o))
