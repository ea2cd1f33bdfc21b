"""What a spiking neuron does with the charge that it receives, as the charge bound needs it.

Theorem. Before it spikes, a neuron's potential is v_t ≤ ρ∞ + a·(w_{t−1} − ρ∞) + c_t, with a leak
0 ≤ a ≤ 1 towards ρ∞ and the charge c_t ≥ 0 that enters at step t; w is the potential after the
reset. S_t spikes need v_t ≥ S_t·θ and take at least κ·S_t off the potential above ρ. Then

    n = Σ S_t ≤ ⌊((v_0 − ρ)⁺ + Σ c_t) / κ⌋.

Proof. Above ρ, which is at least ρ∞, the reset level and a lower clamp, a step adds at most c_t and
removes at least κ·S_t: (w_t − ρ)⁺ ≤ (w_{t−1} − ρ)⁺ + c_t − κ·S_t. Sum over t. ∎

A reset that subtracts one step later (snntorch) obeys it with w_t := v_t − θ·S_t. Without a reset,
S_t ≤ v_t / θ, and every charge is seen again at each later step, decayed: n ≤ ⌊(v_0·Σβ^k +
Q⁺·Σβ^k) / θ⌋.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fxsynops.tracing.hooks import has_hooks

Number = float | Tensor


class NoArgumentError(Exception):
    """Why no charge argument holds for a neuron; caught where the structural bound takes over."""


@dataclass(frozen=True)
class Steps:
    """Where a tensor has its time steps.

    Attributes:
        axis: the axis of time; None if the tensor is one step.
        samples: of an axis that merges samples and steps, how many samples; ``axis`` is then where
            time comes among the two.
    """

    axis: int | None = None
    samples: int | None = None

    def split(self, x: Tensor) -> Tensor:
        """``x`` with its steps along a new or moved first axis."""
        if self.axis is None:
            return x.unsqueeze(0)
        if self.samples is not None:
            x = x.unflatten(0, (self.samples, -1) if self.axis else (-1, self.samples))
        return x.movedim(self.axis, 0)

    def join(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`split`."""
        if self.axis is None:
            return x.squeeze(0)
        x = x.movedim(0, self.axis)
        return x if self.samples is None else x.flatten(0, 1)


@dataclass(frozen=True)
class Drive:
    """What turns charge into events, for one sign of them.

    Attributes:
        removes: κ, what an event takes off the potential at least.
        gain: by what charge is multiplied on its way into the potential, filters summed.
        start: (v_0 − ρ)⁺, and whatever else is there without any input.
        level: the largest magnitude among ρ, the reset level and the clamp (for rounding).
    """

    removes: Number
    gain: Number = 1.0
    start: Number = 0.0
    level: float = 0.0


@dataclass(frozen=True)
class Feedback:
    """What a neuron's own population sends back to it one step later.

    Attributes:
        weights: charge from events, both of shape (samples, …).
        bias: charge per step, whatever the events.
        late: how many steps it takes until the bias comes.
    """

    weights: Callable[[Tensor], Tensor]
    bias: Number = 0.0
    late: int = 0

    def charge(self, emitted: Tensor, step: int) -> Tensor:
        """All charge until step number ``step``, of all events before it."""
        return self.weights(emitted) + self.bias * max(step - self.late, 0)

    @property
    def settles(self) -> bool:
        """Whether it stays the same once the events do."""
        return not bool(torch.as_tensor(self.bias).any())


@dataclass(frozen=True)
class Dynamics:
    """A neuron's dynamics over one window.

    Attributes:
        up: what positive charge causes.
        down: what negative charge causes (negative events); None: nothing.
        feedback: recurrent weights and their bias.
        resets: by the name of a state, the largest value that the model's forward may set it to
            without bringing charge; None for an attribute that has no part in the dynamics.
    """

    up: Drive
    down: Drive | None = None
    feedback: Feedback | None = None
    resets: dict[str, Number | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """What a neuron starts a window with.

    Attributes:
        shapes: of the module's input, at each of its calls in a forward.
        passes: how many forwards make the window.
        given: the states that the forward hands to the module's first call, by position after the
            input; None where it hands over none.
        steps: where its input and output have their time steps.
    """

    shapes: tuple[tuple[int, ...], ...]
    passes: int = 1
    given: tuple[Any, ...] = ()
    steps: Steps = Steps()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the module's input at its first call."""
        return self.shapes[0]

    @property
    def calls(self) -> int:
        """How many calls make the window."""
        return len(self.shapes) * self.passes

    def length(self) -> int:
        """How many time steps the window has."""
        calls = (self.steps.split(torch.empty(shape, device="meta")) for shape in self.shapes)
        return self.passes * sum(map(len, calls))

    def state(self, own: Any, position: int = 0) -> Tensor | None:
        """The state at the start: what the forward hands over, or what the module holds."""
        given = self.given[position] if position < len(self.given) else None
        value = own if given is None else given
        if isinstance(value, Tensor):
            return value.detach().double().cpu() if value.numel() else None
        return torch.tensor(float(value), dtype=torch.float64) if value is not None else None


# How a module's dynamics are found out: (module, start) -> Dynamics, or NoArgumentError.
FindDynamics = Callable[[Any, Start], Dynamics]


def as_double(value: Any) -> Tensor:
    """A value in float64; a Python number is not rounded to float32 on the way."""
    if isinstance(value, Tensor):
        return value.detach().double().cpu()
    return torch.tensor(value, dtype=torch.float64)


def number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """A parameter as the module holds it now, if it lies where the theorem needs it."""
    if value is None:
        raise NoArgumentError(f"its {name} is not set")
    found = as_double(value)
    if not bool(((found >= low) & (found <= high)).all()):
        raise NoArgumentError(f"its {name} is not in [{low:g}, {high:g}]")
    return found


def positive(value: Any, name: str) -> Tensor:
    """A parameter that must be larger than zero."""
    found = number(value, name)
    if not bool((found > 0).all()):
        raise NoArgumentError(f"its {name} is not positive")
    return found


def above(state: Tensor | None, level: Number) -> Number:
    """(v_0 − ρ)⁺, of the largest sample."""
    if state is None:
        return 0.0
    above = (state - level).clamp(min=0)
    return above.amax(0, keepdim=True) if above.dim() > 1 else above.amax()


def powers(base: Tensor, first: int, count: int) -> Tensor:
    """base^first + … + base^(first + count − 1)."""
    ratio = base.clamp(max=1.0)
    close = ratio > 1 - 1e-9
    safe = torch.where(close, torch.zeros_like(ratio), ratio)
    total = safe**first * (1 - safe**count) / (1 - safe)
    return torch.where(close, torch.full_like(ratio, float(count)), total)


def is_heaviside(function: Callable[[Tensor], Tensor]) -> bool:
    """Whether a spiking function gives 0 below zero and 1 above (at zero, either)."""
    with unset_fake_temporarily(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        probe = torch.tensor([-1e3, -1.0, -1e-3, 0.0, 1e-3, 0.4, 1.0, 1e3], device="cpu")
        found = function(probe)
        expected = torch.stack([(probe > 0).float(), (probe >= 0).float()])
        return any(torch.equal(found, option) for option in expected)


def excitation(module: nn.Module, sample: tuple[int, ...], late: int = 0) -> Feedback:
    """The positive part of recurrent synapses.

    Args:
        module: one linear layer or convolution, or a sequence of it and of reshapes.
        sample: shape of one sample's neurons.
        late: see :class:`Feedback`.
    """
    weighted = [m for m in module.modules() if isinstance(m, _WEIGHTED)]
    parts = list(module.modules())
    known = all(type(m) in (*_WEIGHTED, *_RESHAPING) and not has_hooks(m) for m in parts)
    if len(weighted) != 1 or not known or any("forward" in m.__dict__ for m in parts):
        raise NoArgumentError("its recurrence is no single linear layer or convolution")
    positive = copy.deepcopy(module).double().cpu().requires_grad_(False)
    layer: Any = next(m for m in positive.modules() if isinstance(m, _WEIGHTED))
    layer.weight.clamp_(min=0)
    bias: Tensor | float = 0.0
    if layer.bias is not None:
        layer.bias.clamp_(min=0)
        bias = positive(torch.zeros(1, *sample, dtype=torch.float64)).reshape(1, *sample)
        layer.bias = None
    return Feedback(lambda events: positive(events).reshape(events.shape), bias, late)


_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_RESHAPING = (nn.Sequential, nn.Flatten, nn.Unflatten, nn.Identity)


def largest(*levels: Number | None) -> float:
    """The largest magnitude among some levels."""
    return max(
        (float(torch.as_tensor(level).abs().max()) for level in levels if level is not None),
        default=0.0,
    )
