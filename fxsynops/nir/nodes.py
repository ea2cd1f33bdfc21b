"""The nodes of NIR, the exchange format of spiking simulators, as modules."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fxsynops.errors import InputError
from fxsynops.neurons import register_spiking
from fxsynops.neurons.dynamics import as_double
from fxsynops.nir.graph import AGAIN, one_line
from fxsynops.operations import Kind, Operation, operations


class _Fire(torch.autograd.Function):
    """1 above zero; backward, the derivative of arctan(πx) / π."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] / (1 + (math.pi * x) ** 2)


class Integrator(nn.Module):
    """NIR's I, LI and CubaLI: potentials, which are analog.

    i ← i + dt/τ_syn · (w_in · x − i), v ← v + dt/τ · (v_leak − v + r · i); without the first
    line if there is no τ_syn, and v ← v + dt · r · x if there is no τ. At first, i = 0 and
    v = v_leak (0 or v_reset without a leak).

    Args:
        node: of NIR.
        dt: length of a time step.
    """

    leak: Tensor | None
    gain: Tensor
    rest: Tensor
    decay: Tensor | None
    w_in: Tensor

    def __init__(self, node: Any, dt: float) -> None:
        super().__init__()
        self.kind = type(node).__name__
        cuba = hasattr(node, "tau_syn")
        rates = {n: _rate(node, n, dt) for n in ("tau", "tau_mem", "tau_syn") if hasattr(node, n)}
        leak = rates.get("tau_mem" if cuba else "tau")
        gain = _number(node, "r") * (dt if leak is None else leak)
        rest = "v_leak" if leak is not None else "v_reset"
        values = {"leak": leak, "gain": gain, "rest": _number(node, rest, 0.0)}
        if cuba:
            values["decay"] = rates["tau_syn"]
            values["w_in"] = rates["tau_syn"] * _number(node, "w_in", 1.0)
        for name in ("leak", "gain", "rest", "decay", "w_in"):
            value = values.get(name)
            dtype = torch.get_default_dtype()
            self.register_buffer(name, None if value is None else value.to(dtype))

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(batch, time, …) and (v, i) to potentials of the same shape, and the next (v, i)."""
        zero = torch.zeros_like(x[:, 0])
        v, i = (zero + self.rest, zero) if state is None else state
        outputs = []
        for current in x.unbind(1):
            if self.decay is not None:
                i = i - self.decay * i + self.w_in * current
                current = i
            if self.leak is not None:
                v = v + self.leak * (self.rest - v)
            v = v + self.gain * current
            output, v = self.emit(v)
            outputs.append(output)
        return torch.stack(outputs, 1), (v, i)

    def emit(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """What the potential puts out, and what is left of it."""
        return v, v

    def extra_repr(self) -> str:
        """The node's type."""
        return self.kind


class Neuron(Integrator):
    """NIR's IF, LIF and CubaLIF: one spike where v > v_threshold, then v is reset.

    Args:
        node: of NIR.
        dt: length of a time step.
        subtract: whether a spike takes v_threshold off v, instead of setting v to v_reset.
    """

    v_threshold: Tensor
    v_reset: Tensor

    def __init__(self, node: Any, dt: float, subtract: bool = False) -> None:
        super().__init__(node, dt)
        self.subtract = subtract
        for name in ("v_threshold", "v_reset"):
            value = _number(node, name, 0.0).to(torch.get_default_dtype())
            self.register_buffer(name, value)

    def emit(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Integrator`."""
        spikes = _Fire.apply(v - self.v_threshold)
        down = self.v_threshold if self.subtract else v - self.v_reset
        return spikes, v - spikes * down


class Threshold(nn.Module):
    """NIR's Threshold: 1 where the input is above it."""

    threshold: Tensor

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.register_buffer("threshold", _number(node, "threshold").to(torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; returns the same shape."""
        return _Fire.apply(x - self.threshold)


class Scale(nn.Module):
    """NIR's Scale: the input times a factor per element."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.scale = _parameter(node.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; returns the same shape."""
        return x * self.scale


class Delay(nn.Module):
    """NIR's Delay: the input some steps later."""

    def __init__(self, node: Any, dt: float) -> None:
        super().__init__()
        steps = (_number(node, "delay") / dt).round().unique()
        if len(steps) != 1 or steps[0] < 0:
            raise InputError("has delays that differ between elements. Give it a single one.")
        self.steps = int(steps[0])

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(batch, time, …) and what is still to come; returns the same."""
        if x.shape[1] <= self.steps:
            warnings.warn(
                f"the input has {x.shape[1]} time steps, and a delay of the graph is of "
                f"{self.steps}: within one forward, nothing comes out of it. An analysis of such "
                "an example knows no connection behind the delay; pass more steps.",
                stacklevel=2,
            )
        if state is None:
            state = x.new_zeros(len(x), self.steps, *x.shape[2:])
        both = torch.cat([state, x], 1)
        return both[:, : x.shape[1]], both[:, x.shape[1] :]


STATEFUL = (Integrator, Delay)
register_spiking(Neuron, max_spikes=1)
register_spiking(Threshold, max_spikes=1)
operations.by_target[Integrator] = Operation(Kind.ANALOG)


# -- nodes to modules ------------------------------------------------------------------------------


def layer_of(node: Any, where: str, dt: float, subtract: bool) -> nn.Module:
    """The module that does what a node says.

    Args:
        node: of NIR, but no Input, Output or graph.
        where: what it is called in errors.
        dt: length of a time step.
        subtract: see :class:`Neuron`.

    Raises:
        InputError: its type is not supported, or its numbers make no sense.
    """
    kind = type(node).__name__
    make: dict[str, Callable[[], nn.Module]] = {
        **dict.fromkeys(("Linear", "Affine"), lambda: _linear(node)),
        **dict.fromkeys(("Conv1d", "Conv2d"), lambda: _convolution(node, getattr(nn, kind))),
        **dict.fromkeys(("SumPool2d", "AvgPool2d"), lambda: _pool(node, kind == "SumPool2d")),
        **dict.fromkeys(("I", "LI", "CubaLI"), lambda: Integrator(node, dt)),
        **dict.fromkeys(("IF", "LIF", "CubaLIF"), lambda: Neuron(node, dt, subtract)),
        "Flatten": lambda: nn.Flatten(*map(_behind_batch, (node.start_dim, node.end_dim))),
        "Scale": lambda: Scale(node),
        "Threshold": lambda: Threshold(node),
        "Delay": lambda: Delay(node, dt),
    }
    if kind not in make:
        raise InputError(
            f"{where} is of a type that is not supported. Replace it by nodes of types that are: "
            f"{', '.join(sorted(make))}, and graphs of them."
        )
    try:
        return make[kind]()
    except InputError as error:
        raise InputError(f"{where} {error}") from None
    except Exception as error:
        raise InputError(f"{where} cannot be read: {one_line(error)}. {AGAIN}") from error


def guess_dt(nodes: Iterable[Any]) -> float:
    """The time step of a graph that does not tell; see :func:`fxsynops.nir.from_nir`."""
    names = ("tau", "tau_mem", "tau_syn")
    nodes = list(nodes)
    taus = _positive(getattr(node, name) for node in nodes for name in names if hasattr(node, name))
    if len(taus):
        shortest = float(taus.min()) * _ALMOST
        return 1.0 if shortest >= 1 else min(1e-4, 10.0 ** math.floor(math.log10(shortest)))
    gains = _positive(node.r for node in nodes if hasattr(node, "r"))
    return float(1 / gains[0]) if len(gains) and bool((gains == gains[0]).all()) else 1.0


_ALMOST = 1 + 1e-4  # time constants may have been rounded to float32


def _positive(values: Iterable[Any]) -> Tensor:
    """Those of all numbers that are positive and finite."""
    found = torch.cat([torch.zeros(1), *(as_double(value).reshape(-1) for value in values)])
    return found[(found > 0) & found.isfinite()]


def _linear(node: Any) -> nn.Module:
    if len(node.weight.shape) != 2:
        raise InputError(f"has weights of {len(node.weight.shape)} axes. Flatten its input.")
    rows, columns = node.weight.shape
    return _with_weights(nn.Linear(columns, rows, bias=hasattr(node, "bias")), node)


def _convolution(node: Any, layer: Any) -> nn.Module:
    out_channels, per_group, *kernel = node.weight.shape
    groups = int(node.groups)
    sizes = (_sizes(getattr(node, name)) for name in ("stride", "padding", "dilation"))
    return _with_weights(layer(per_group * groups, out_channels, kernel, *sizes, groups), node)


def _with_weights(layer: Any, node: Any) -> nn.Module:
    for name in ("weight", "bias"):
        if getattr(layer, name) is not None:
            new = _parameter(getattr(node, name))
            if new.shape != getattr(layer, name).shape:
                raise ValueError(f"its {name} is of shape {tuple(new.shape)}")
            setattr(layer, name, new)
    return layer


def _pool(node: Any, adds: bool) -> nn.Module:
    kernel, stride, padding = (
        _sizes(getattr(node, n)) for n in ("kernel_size", "stride", "padding")
    )
    return nn.AvgPool2d(kernel, stride, padding, divisor_override=1 if adds else None)


def _behind_batch(axis: Any) -> int:
    return int(axis) + (int(axis) >= 0)


def _sizes(value: Any) -> Any:
    if isinstance(value, str):
        return value
    sizes = tuple(int(size) for size in as_double(value).reshape(-1))
    return sizes[0] if len(sizes) == 1 else sizes


def _parameter(value: Any) -> nn.Parameter:
    return nn.Parameter(as_double(value).to(torch.get_default_dtype(), copy=True))


def _number(node: Any, name: str, default: float | None = None) -> Tensor:
    value = as_double(getattr(node, name, default))
    if not bool(value.isfinite().all()):
        raise InputError(f"has a {name} that is not finite. A neuron without a leak is an IF node.")
    return value


def _rate(node: Any, name: str, dt: float) -> Tensor:
    """The time step by τ, one at most."""
    tau = _number(node, name)
    if not bool((tau * _ALMOST >= dt).all()):
        raise InputError(
            f"has a {name} of {float(tau.min()):g}, shorter than a time step of {dt:g}. "
            "Pass a smaller dt, in the unit of the graph's time constants."
        )
    return (dt / tau).clamp(max=1)
