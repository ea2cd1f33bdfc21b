"""Layers with which both networks of the sinabs how-to can be written without sinabs.

They compute what sinabs' layers of the same names compute.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxsynops.errors import InputError


class _Floor(torch.autograd.Function):
    """Round down; the gradient passes as if nothing had been done."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stochastic: bool) -> Tensor:
        below = x.floor()
        return below + (torch.rand_like(x) < x - below).to(x.dtype) if stochastic else below

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


class NeuromorphicReLU(nn.Module):
    """A ReLU that puts out whole numbers: the spikes that an IAF neuron would emit.

    Forward, ``floor(relu(x))``; backward, the ReLU's derivative.

    Args:
        quantize: whether to round at all.
        stochastic_rounding: in training, round up with the probability of the fraction; in eval
            mode to the nearest whole number.
    """

    def __init__(self, quantize: bool = True, stochastic_rounding: bool = False) -> None:
        super().__init__()
        self.quantize = quantize
        self.stochastic_rounding = stochastic_rounding

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; returns the same shape."""
        y = F.relu(x)
        if not self.quantize:
            return y
        if self.stochastic_rounding and not self.training:
            return y + (y.round() - y).detach()
        return _Floor.apply(y, self.stochastic_rounding)

    def extra_repr(self) -> str:
        """Options."""
        return f"quantize={self.quantize}, stochastic_rounding={self.stochastic_rounding}"


class _Spikes(torch.autograd.Function):
    """Whole thresholds in a membrane potential, with an exponential surrogate gradient.

    The surrogate is sinabs' SingleExponential (Shrestha and Orchard 2018): with a width w = θ / 2,
    exp(−|v − θ| / w) / w.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, threshold: float, cap: float | None) -> Tensor:
        ctx.save_for_backward(v)
        ctx.threshold = threshold
        spikes = (v > 0) * torch.div(v, threshold, rounding_mode="trunc").to(v.dtype)
        return spikes if cap is None else spikes.clamp(max=cap)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (v,) = ctx.saved_tensors
        width = ctx.threshold / 2
        surrogate = torch.exp(-(v - ctx.threshold).abs() / width) / width
        return grads[0] * surrogate, None, None


class IAF(nn.Module):
    """Integrate-and-fire neurons on (batch, time, …) input.

    The membrane adds up its input, emits as many spikes as it holds thresholds, and loses a
    threshold for each. It is kept between calls until :meth:`reset_states`.

    Args:
        spike_threshold: charge per spike.
        max_spikes_per_step: the cap per neuron and step; None: no cap.
        min_v_mem: lower limit of the membrane potential, applied after each step.
    """

    v_mem: Tensor | None

    def __init__(
        self,
        spike_threshold: float = 1.0,
        max_spikes_per_step: int | None = None,
        min_v_mem: float | None = None,
    ) -> None:
        super().__init__()
        if spike_threshold <= 0:
            raise InputError(f"spike_threshold must be positive, not {spike_threshold}.")
        if max_spikes_per_step is not None and max_spikes_per_step < 1:
            raise InputError(f"max_spikes_per_step must be at least 1, not {max_spikes_per_step}.")
        self.spike_threshold = spike_threshold
        self.max_spikes_per_step = max_spikes_per_step
        self.min_v_mem = min_v_mem
        self.register_buffer("v_mem", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Input current to spikes.

        Args:
            x: (batch, time, …).

        Returns:
            spikes (whole numbers), same shape.
        """
        v = self.v_mem
        if v is None or v.shape != x[:, 0].shape or v.device != x.device or v.dtype != x.dtype:
            v = torch.zeros_like(x[:, 0])
        spikes = []
        for current in x.unbind(1):
            v = v + current
            spikes.append(_Spikes.apply(v, self.spike_threshold, self.max_spikes_per_step))
            v = v - spikes[-1] * self.spike_threshold
            if self.min_v_mem is not None:
                v = F.relu(v - self.min_v_mem) + self.min_v_mem  # rounds as sinabs does
        self.v_mem = v
        return torch.stack(spikes, 1)

    def reset_states(self) -> None:
        """Forget the membrane potential."""
        self.v_mem = None

    def extra_repr(self) -> str:
        """Options."""
        return (
            f"spike_threshold={self.spike_threshold}, "
            f"max_spikes_per_step={self.max_spikes_per_step}, min_v_mem={self.min_v_mem}"
        )


class IAFSqueeze(IAF):
    """:class:`IAF` on (batch · time, …) input, as convolutions leave it.

    Args:
        batch_size: samples in the input.
        options: see :class:`IAF`.
    """

    def __init__(self, batch_size: int, **options: Any) -> None:
        super().__init__(**options)
        self.batch_size = batch_size

    def forward(self, x: Tensor) -> Tensor:
        """Input current (batch · time, …) to spikes, same shape."""
        return super().forward(x.unflatten(0, (self.batch_size, -1))).flatten(0, 1)


class SumPool2d(nn.Module):
    """Sum pooling: spikes of a window are added up, as chips do, not averaged.

    Args:
        kernel_size, stride, ceil_mode: as of ``nn.AvgPool2d``.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """(…, height, width) to (…, pooled height, pooled width)."""
        return F.avg_pool2d(
            x, self.kernel_size, self.stride, ceil_mode=self.ceil_mode, divisor_override=1
        )

    def extra_repr(self) -> str:
        """Options."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class FlattenTime(nn.Flatten):
    """(batch, time, …) to (batch · time, …)."""

    def __init__(self) -> None:
        super().__init__(start_dim=0, end_dim=1)


class UnflattenTime(nn.Module):
    """(batch · time, …) to (batch, time, …).

    Args:
        batch_size: samples in the input.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.unflatten(0, (self.batch_size, -1))
