"""Modules of torch that have synapses inside, which no function call shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxsynops.errors import TraceError
from fxsynops.neurons.registry import Neuron, analog_like


def describe(module: nn.Module) -> Neuron | None:
    """See :func:`fxsynops.neurons.describe`."""
    if isinstance(module, nn.RNNBase):
        return Neuron(spikes=False, inside=_layers)
    if isinstance(module, nn.RNNCellBase):
        return Neuron(spikes=False, inside=_cell)
    if isinstance(module, nn.MultiheadAttention):
        return Neuron(spikes=False, inside=_attention)
    return None


Synapses = dict[str, Callable[[], Any]]


def _cell(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    def state() -> Tensor:
        before = given.get("hx")
        known = output if before is None else before
        known = known[0] if isinstance(known, tuple) else known
        return analog_like(known) if before is None else known

    return {
        "weight_ih": lambda: F.linear(given["input"], module.weight_ih),
        "weight_hh": lambda: F.linear(state(), module.weight_hh),
    }


def _layers(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    """Each layer reads the one before, and its own state of the step before; both are analog."""
    x, states = given["input"], output[0]
    if not isinstance(x, Tensor):
        raise TraceError(
            f"{type(module).__name__} gets a {type(x).__name__}, whose synapses cannot be counted. "
            "Pass it a padded tensor."
        )
    synapses: Synapses = {}

    def add(name: str, x: Tensor) -> None:
        synapses[name] = lambda: F.linear(x, getattr(module, name))

    def analog(features: int) -> Tensor:
        return analog_like(states[..., :1]).expand(*states.shape[:-1], features)

    for layer in range(module.num_layers):
        for direction in ("", "_reverse")[: 1 + module.bidirectional]:
            read = x if layer == 0 else analog(states.shape[-1])
            add(f"weight_ih_l{layer}{direction}", read)
            add(
                f"weight_hh_l{layer}{direction}",
                analog(module.proj_size or module.hidden_size),
            )
            if module.proj_size:
                add(f"weight_hr_l{layer}{direction}", analog(module.hidden_size))
    return synapses


def _attention(module: Any, given: dict[str, Any], output: Any) -> Synapses:
    """Projections, two products of activations, and the projection of what comes out."""
    query, key, value = given["query"], given["key"], given["value"]
    if module.in_proj_weight is not None:
        width = module.embed_dim
        weights = [module.in_proj_weight[i * width : (i + 1) * width] for i in range(3)]
    else:
        weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    more = (module.bias_k is not None) + module.add_zero_attn
    time = -2 if module.batch_first or query.dim() == 2 else 0

    def analog(x: Tensor, more: int = 0) -> Tensor:
        x = analog_like(x[..., :1]).movedim(time, -2)
        x = torch.cat([x, *[x[..., :1, :]] * more], -2)
        return x.expand(*x.shape[:-1], module.embed_dim)

    def mixed() -> Tensor:
        scores = analog(query)[..., :1] + analog(key, more)[..., 0].unsqueeze(-2)
        return (
            analog_like(scores)
            .unsqueeze(-3)
            .expand(*scores.shape[:-2], module.num_heads, *scores.shape[-2:])
        )

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (module.num_heads, -1)).transpose(-2, -3)

    return {
        "query_weights": lambda: F.linear(query, weights[0]),
        "key_weights": lambda: F.linear(key, weights[1]),
        "value_weights": lambda: F.linear(value, weights[2]),
        "query_key": lambda: heads(analog(query)) @ heads(analog(key, more)).mT,
        "attention_value": lambda: mixed() @ heads(analog(value, more)),
        "out_proj": lambda: F.linear(analog(query), module.out_proj.weight),
    }
