"""The figures that people look for, by the names they look for: ``counts.summary``.

Sources: Yik et al., NeuroBench, 2023 (arXiv:2304.04640); Dampfhoffer et al., "Are SNNs really more
energy-efficient than ANNs?", IEEE TETCI 2022 (spikes per synapse and inference); Yan et al.,
"Reconsidering the energy efficiency of spiking neural networks", 2024 (arXiv:2409.08290), who ask
at which rate a spiking network costs as much as the dense one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.results import Connection, Findings, whole
from fxsynops.cost.conventional import AC, MAC
from fxsynops.cost.layers import Layers, listed
from fxsynops.cost.memory import MemoryModel, memory_of
from fxsynops.cost.workload import Flow
from fxsynops.neurons import describe
from fxsynops.operations.operation import as_dense
from fxsynops.reporting.report import Reported
from fxsynops.reporting.summary_table import summary_content
from fxsynops.tracing.inputs import Inputs
from fxsynops.tracing.torch_api import modules_of, parameters_of


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: of it.
        value: its value; None if it cannot be told.
        meaning: in words.
        unit: of the value; "" of numbers, "%" of shares, "J" of energies.
    """

    name: str
    value: float | None
    meaning: str
    unit: str = ""


@dataclass(frozen=True)
class Summary(Reported):
    """What one sample of a model costs, in one table. All figures are per sample.

    Attributes:
        figures: all of them, in order.
        name: the model's class.
        remarks: what is left out, or assumed.
    """

    figures: tuple[Figure, ...]
    name: str
    remarks: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> float | None:
        """A figure by its name; neither case nor underscores matter.

        Raises:
            KeyError: there is none of this name.
        """
        for figure in self.figures:
            if figure.name.lower() == name.lower().replace("_", " "):
                return figure.value
        raise KeyError(f"{name!r} is none of {', '.join(figure.name for figure in self.figures)}")

    def _content(self) -> dict[str, Any]:
        return summary_content(self)


def summary_of(findings: Findings, flow: Flow) -> Summary:
    """The figures of one sample.

    Args:
        findings: the analysis of its model.
        flow: what was counted, per sample.
    """
    layers = flow.layers
    figures = (
        *_of_size(findings, layers),
        *_of_operations(findings, layers, flow),
        *_of_rates(layers, flow),
        *_beside_an_ann(findings, layers, flow),
    )
    remarks = list(flow.remarks(findings))
    if layers.unknown:
        remarks.append(
            f"States and updates of {listed(layers.unknown)} are not known: one and a leak are "
            "assumed."
        )
    return Summary(figures, findings.name, tuple(remarks))


def _of_size(findings: Findings, layers: Layers) -> Iterator[Figure]:
    parameters = {id(p): p for p in parameters_of(findings.model)}.values()
    tensors = {id(t): t for t in (*parameters, *findings.model.buffers())}.values()
    yield Figure("Parameters", sum(p.numel() for p in parameters), "of the model")
    held = {id(t) for t in _states(findings.model)}
    size = sum(t.numel() * t.element_size() for t in tensors if id(t) not in held)
    yield Figure("Footprint", size, "bytes of parameters and buffers, states of neurons left out")
    neurons = math.fsum(layer.neurons for layer in layers.neurons)
    yield Figure("Neurons", whole(neurons), "spiking")
    states = math.fsum(layer.neurons * layer.update.states for layer in layers.neurons)
    yield Figure("State size", whole(states), "values that neurons keep from step to step")
    synapses = math.fsum(layer.macs for layer in layers.synapses)
    yield Figure("Synapses", whole(synapses), "pairs of an input and an output of all layers")
    zeros, weights = _zeros(findings)
    sparsity = zeros / weights if weights else None
    yield Figure("Connection sparsity", sparsity, "share of weights that are zero", "%")


def _zeros(findings: Findings) -> tuple[int, int]:
    """How many weights of synapses are zero, and how many there are."""
    signals, seen = findings.connector.signals, dict[fx.Node, Tensor]()
    calls = [row.calls for row in findings.connections] + [row.calls for row in findings.dense]
    for one in {calls.name.partition("#")[0]: calls for calls in reversed(calls)}.values():
        synapse = signals.roles[one.calls[0]].synapse  # each call may compute its weights anew
        if synapse is not None and synapse.weight is not None:
            value = signals.constant(synapse.weight)
            if value is not None and not value.is_meta:
                seen[synapse.weight] = as_dense(value.detach())
    zeros = sum(int((value == 0).sum()) for value in seen.values())
    return zeros, sum(value.numel() for value in seen.values())


def _states(model: nn.Module) -> Iterator[Tensor]:
    """Buffers in which neurons keep something per sample."""
    for module in modules_of(model):
        neuron = describe(module)
        if neuron is not None and neuron.inside is None:
            for buffer in module._buffers.values():
                if buffer is not None and buffer.numel() != 1:
                    yield buffer


def _of_operations(findings: Findings, layers: Layers, flow: Flow) -> Iterator[Figure]:
    acs, multiplied = flow.synops, math.fsum(flow.macs.values())
    effective = findings.options.events == findings.options.weights == "nonzero"
    how = "" if effective else ' (count with events="nonzero", weights="nonzero")'
    yield Figure("SynOps", whole(acs), "synaptic operations: events × fan-out")
    yield Figure("MACs", whole(multiplied), "multiply-accumulates, of analog inputs")
    yield Figure("ACs", whole(acs), "accumulates: SynOps")
    every = math.fsum(layer.macs * layer.runs(flow.timesteps) for layer in layers.synapses)
    yield Figure("Dense", whole(every), "operations if every input were there in every step")
    binary = math.fsum(cost for c, cost, _ in flow.connections if _is_binary(findings, c))
    what = f"of inputs and weights that are not zero{how}"
    for name, value, of in (
        (
            "Effective MACs",
            multiplied + acs - binary,
            "events that may be more than one, and values",
        ),
        ("Effective ACs", binary, "events that are one"),
    ):
        yield Figure(name, whole(value) if effective else None, f"{what}; {of}")
    yield Figure("FLOPs", whole(2 * multiplied + acs), "2 per MAC, 1 per AC")
    yield Figure("Neuron updates", whole(flow.updates), "neurons × steps")


def _is_binary(findings: Findings, connection: Connection) -> bool:
    """Whether what comes to a synapse is −1, 0 or 1, as far as its neurons tell."""
    roles = findings.connector.signals.roles
    beside = [c for c in findings.connections if c.calls is connection.calls]
    if len(beside) > 1 or connection.taps[0].product is not None:
        return False  # sums of spikes
    for node in connection.calls.calls:
        synapse = roles[node].synapse
        if synapse is None or (scale := roles[synapse.input].signal.scale) is None:
            return False
        neurons = (roles[n].neuron for n in findings.connector.signals.behind(synapse.input))
        single = all(n is not None and n.max_spikes <= 1 and not n.graded for n in neurons)
        behind = findings.connector.signals.behind(synapse.input)
        inputs = all(origin_of(n)[0].op == "placeholder" for n in behind)
        inputs = inputs and _are_single(findings.example)
        if not (single or inputs) or not scale.fixed or abs(scale.factor) != 1:
            return False
    return True


def _are_single(inputs: Inputs) -> bool:
    """Whether the events of inputs are ones: fractions count as events, too, if asked for."""
    tensors = (as_dense(tensor.detach()) for _, tensor in inputs.tensors())
    return all(
        t.is_meta
        or bool(torch.isin(t.double().abs(), torch.tensor([0.0, 1.0], device=t.device)).all())
        for t in tensors
    )


def _of_rates(layers: Layers, flow: Flow) -> Iterator[Figure]:
    rate = flow.spikes / flow.updates if flow.updates else None
    yield Figure("Spikes", whole(flow.spikes), "of all neurons")
    yield Figure("Mean firing rate", rate, "spikes per neuron and step")
    once = all(layer.once for layer in layers.neurons)
    more = "" if once else ' (some fire more than once: count with events="nonzero")'
    yield Figure(
        "Activation sparsity",
        None if rate is None or not once else 1 - rate,
        f"share of neurons and steps without a spike{more}",
        "%",
    )
    synapses = math.fsum(layer.macs for layer in layers.synapses if layer.events)
    yield Figure(
        "Spikes per synapse",
        flow.synops / synapses if synapses else None,
        "and inference: SynOps / synapses that events come to (Dampfhoffer et al.)",
    )


def _beside_an_ann(findings: Findings, layers: Layers, flow: Flow) -> Iterator[Figure]:
    """The rate at which the network costs as much as the dense ANN (after Yan et al.)."""
    rate = flow.spikes / flow.updates if flow.updates else 0.0
    dense = math.fsum(layer.macs for layer in layers.synapses) * MAC
    fixed = math.fsum(flow.macs.values()) * MAC
    at = _break_even(rate, dense, fixed, flow.synops * AC)
    yield Figure(
        "Break-even rate",
        at,
        "mean firing rate at which SynOps at 0.9 pJ cost as much as the dense ANN's MACs at 4.6 pJ",
    )
    model = MemoryModel()
    now = memory_of(findings, flow, model)
    silent = tuple((c, 0.0, 0.0) for c, *_ in flow.connections)
    none = replace(flow, connections=silent, fired=dict.fromkeys(flow.fired, 0.0))
    idle = memory_of(findings, none, model).total
    whole_ann = math.fsum(row.total for row in now.dense)
    at = _break_even(rate, whole_ann, idle, now.total - idle)
    yield Figure(
        "Break-even rate with memory",
        at,
        "the same with memory traffic, addressing and updates (counts.memory()); 0: never",
    )


def _break_even(rate: float, dense: float, fixed: float, of_events: float) -> float | None:
    """At which rate fixed costs and those of events, all scaled alike, are the dense ANN's."""
    if not of_events or not rate:
        return None
    return max(rate * (dense - fixed) / of_events, 0.0)
