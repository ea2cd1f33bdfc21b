"""What users say of operations that no entry covers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Kind, Operation, Synapse, unequal
from fxsynops.operations.registry import operations
from fxsynops.operations.transpose import pull_incidence


def register_routing(target: Any, incidence: Callable[..., Tensor]) -> None:
    """Teach fxsynops an operation that carries events to other places.

    Args:
        target: the function, module type or ``torch.autograd.Function`` class that is called.
        incidence: takes the arguments of the call and returns its output in 0/1 form: linear in
            its tensor arguments, with a coefficient of 1 wherever an event of an input can reach
            an output (sums instead of means, ones instead of scales). ``torch.autograd`` derives
            from it where each neuron's events go.

    Example:
        >>> import torch, fxsynops
        >>> class Interleave(torch.nn.Module):
        ...     def forward(self, a, b):
        ...         return torch.stack((a, b), -1).flatten(-2)
        >>> fxsynops.register_routing(
        ...     Interleave, lambda a, b: torch.stack((a, b), -1).flatten(-2))
    """
    operations.by_target[target] = Operation(
        Kind.ROUTING,
        "*",
        carries="*",
        pull=lambda call, map: pull_incidence(call, map, incidence),
        scale=unequal,
        merges=True,
    )


def register_synapse(target: Any, pairs: Callable[..., Tensor]) -> None:
    """Teach fxsynops an operation that has synaptic weights.

    Args:
        target: the function, module type or ``torch.autograd.Function`` class that is called.
        pairs: takes the arguments of the call and returns the operation with all of its weights
            one and without bias, linear in its first argument. The fan-out of an input neuron is
            what ``torch.autograd`` finds as the sum of the output's derivatives by it.

    Example:
        >>> import torch, fxsynops
        >>> class Circular(torch.nn.Module):  # a circular convolution, by way of the spectrum
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.randn(16))
        ...     def forward(self, x):
        ...         return torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(self.weight), n=16)
        >>> fxsynops.register_synapse(
        ...     Circular, lambda x: x.sum(-1, keepdim=True).expand(*x.shape[:-1], 16))
    """

    def fanout(call: Call, x: fx.Node) -> Tensor:
        ones = torch.ones((), dtype=torch.float64).expand(shape(call.node))
        return next(s.map for s in pull_incidence(call, ones, pairs) if s.node is x)

    operations.by_target[target] = Operation(
        Kind.SYNAPSE,
        "*",
        carries="*",
        synapse=Synapse(
            kind=getattr(target, "__name__", str(target)).lower(),
            fanout=fanout,
            nominal=lambda _: None,
            pairs=lambda call, x, _: pairs(x, *call.args[1:], **call.kwargs),
            sample=lambda _, x: shape(x),
            weight="",
        ),
    )
