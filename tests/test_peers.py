"""Models built of sinabs, snntorch, spikingjelly and norse: traced, replayed, and counted right."""

from __future__ import annotations

import math
import warnings

import norse.torch as norse
import pytest
import sinabs.hooks
import sinabs.layers as sl
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import base, functional, layer, neuron
from spikingjelly.activation_based.model import sew_resnet
from torch import nn

import fxsynops

T, N = 4, 3


class Record:
    """The events that a model's spiking modules emit, and what an all-ones layer makes of them."""

    def __init__(self, model):
        self.emitted = {}
        for name, module in model.named_modules():
            module.register_forward_hook(self._hook(name))

    def _hook(self, name):
        def hook(module, args, output):
            spikes = output[0] if isinstance(output, tuple) else output
            self.emitted.setdefault(name, []).append(spikes.detach().double())

        return hook

    def sum(self, name):
        return sum(float(s.sum()) for s in self.emitted[name])


class SnnTorch(nn.Module):
    """The tutorials' network: explicit states, and a loop over time steps."""

    def __init__(self, static=True):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, 4)
        self.lif1 = snntorch.Leaky(beta=0.9, threshold=0.2)
        self.lif2 = snntorch.Synaptic(alpha=0.9, beta=0.8)
        self.static = static

    def forward(self, x):
        mem1 = self.lif1.reset_mem()
        syn2, mem2 = self.lif2.reset_mem()
        spikes = []
        for t in range(T):
            spk1, mem1 = self.lif1(self.fc1(x if self.static else x[t]), mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
            spikes.append(spk2)
        return torch.stack(spikes), mem2


def hidden():
    return nn.Sequential(
        nn.Linear(8, 6),
        snntorch.Leaky(beta=0.9, threshold=0.2, init_hidden=True),
        nn.Linear(6, 4),
        snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
    )


def spiking_jelly(step_mode):
    model = nn.Sequential(
        layer.Linear(8, 6),
        neuron.LIFNode(v_threshold=0.2),
        layer.Linear(6, 4),
        neuron.ParametricLIFNode(),
    )
    functional.set_step_mode(model, step_mode)
    return model


class Norse(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, 4)
        self.lif = norse.LIFCell(norse.LIFParameters(v_th=torch.tensor(0.05)))
        self.li = norse.LICell()

    def forward(self, x):
        state, read, outputs = None, None, []
        for t in range(x.shape[0]):
            spikes, state = self.lif(self.fc1(x[t]) * 5, state)
            y, read = self.li(self.fc2(spikes), read)
            outputs.append(y)
        return torch.stack(outputs)


def norse_sequential():
    return norse.SequentialState(
        nn.Linear(8, 6),
        norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.02))),
        nn.Linear(6, 4),
        norse.LI(),
    )


def sinabs_layers():
    return nn.Sequential(
        nn.Linear(8, 6), sl.LIF(tau_mem=10.0, spike_threshold=torch.tensor(0.05)), nn.Linear(6, 4)
    )


# model, layout, leading axes, name of the hidden neuron, of the synapse it drives, and its fan-out
MODELS = {
    "snntorch static": (SnnTorch, "N", (N,), "lif1", "fc2"),
    "snntorch in time": (lambda: SnnTorch(static=False), "TN", (T, N), "lif1", "fc2"),
    "snntorch hidden": (hidden, "N", (N,), "1", "2"),
    "spikingjelly multi": (lambda: spiking_jelly("m"), "TN", (T, N), "1", "2"),
    "spikingjelly single": (lambda: spiking_jelly("s"), "N", (N,), "1", "2"),
    "norse cells": (Norse, "TN", (T, N), "lif", "fc2"),
    "norse sequential": (norse_sequential, "TN", (T, N), "1", "2"),
    "sinabs": (sinabs_layers, "NT", (N, T), "1", "2"),
}


def reset(model):
    for module in model.modules():
        if isinstance(module, sl.StatefulLayer):
            module.reset_states()
        elif isinstance(module, snntorch.SpikingNeuron) and hasattr(module, "reset_mem"):
            module.reset_mem()
        elif isinstance(module, base.MemoryModule):
            module.reset()


@pytest.mark.parametrize("name", MODELS)
def test_the_libraries_neurons_are_sources(name):
    make, layout, leading, source, synapse = MODELS[name]
    torch.manual_seed(2)
    model = make()
    x = (torch.rand(*leading, 8) < 0.7).float()
    options = {"timesteps": T} if name == "snntorch static" else {}
    counter = fxsynops.SynOpsCounter(model, x, layout=layout, **options)
    rows = {(c.source, c.synapse): c for c in counter.analysis.connections}
    assert {"4"} == {str(rows[source, synapse].fanout.max)}
    record = Record(model)
    for warm in range(2):  # with the states of the first pass, too
        if not warm:
            reset(model)
        expected = model(x)
        emitted = {k: list(v) for k, v in record.emitted.items()}
        if not warm:
            reset(model)
        record.emitted.clear()
        y = counter(x)
        record.emitted.clear()
        leaves = torch.utils._pytree.tree_leaves
        if not warm:
            for a, b in zip(leaves(y), leaves(expected), strict=True):
                assert a is b is None or torch.equal(a, b)
            spikes = sum(float(s.sum()) for s in emitted[source])
            assert spikes > 0
            assert float(counter.per_synapse[synapse].detach()) == spikes * 4
    assert counter.counts.samples == 2 * N


def test_a_residual_network_of_the_zoo():
    model = sew_resnet.sew_resnet18(
        spiking_neuron=neuron.IFNode, v_threshold=0.2, num_classes=5, cnf="ADD"
    ).eval()
    functional.set_step_mode(model, "m")
    x = torch.rand(2, 1, 3, 32, 32)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", input_events=False)
    functional.reset_net(model)
    expected = model(x)
    functional.reset_net(model)
    inputs = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and name != "conv1":
            module.register_forward_hook(
                lambda m, a, y, n=name: inputs.update({n: (m, a[0].detach())})
            )
    assert torch.equal(counter(x), expected)
    assert [d.synapse for d in counter.analysis.dense] == ["conv1"]
    assert not counter.analysis.unresolved
    counted = {k: int(v.detach()) for k, v in counter.per_synapse.items()}
    places = math.prod(inputs["layer4.1.conv2"][1].shape[-2:])
    for name, (module, events) in inputs.items():
        ones = torch.ones_like(module.weight, dtype=torch.float64)
        if isinstance(module, nn.Linear):  # behind an average pool over all places
            assert counted[name] == round(float(events.double().sum()) * places) * 5
            continue
        out = nn.functional.conv2d(
            events.flatten(0, 1).double(), ones, None, module.stride, module.padding
        )
        assert counted[name] == int(out.sum())
    assert sum(counted.values()) > 0


@given(st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_sinabs_own_hooks_agree_where_they_are_right(data):
    """Sequential, Conv2d and Linear, zero padding in numbers, pools without overlap."""
    pick = lambda *options: data.draw(st.sampled_from(options))  # noqa: E731
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    size, channels, layers = 12, pick(1, 2), []
    for _ in range(pick(1, 2)):
        out, k, p, s = pick(2, 4), pick(1, 3, 5), pick(0, 1), pick(1, 2)
        if size + 2 * p < k:
            break
        groups = pick(*[g for g in (1, 2) if channels % g == 0])
        bias = pick(True, False)
        layers.append(nn.Conv2d(channels, out, k, s, p, groups=groups, bias=bias))
        size, channels = (size + 2 * p - k) // s + 1, out
        layers.append(sl.IAFSqueeze(batch_size=2, spike_threshold=torch.tensor(0.3)))
        if size % 2 == 0 and pick(True, False):
            layers.append(pick(nn.AvgPool2d(2), sl.SumPool2d(2)))
            size //= 2
    layers += [nn.Flatten(), nn.Linear(channels * size * size, 3)]
    model = nn.Sequential(*layers)
    x = (torch.rand(6, model[0].in_channels, 12, 12) < 0.5).float()
    counter = fxsynops.SynOpsCounter(model, x, layout="(NT)", batch_size=2)
    counter(x)
    counted = {k: float(v.detach()) for k, v in counter.per_synapse.items()}
    reset(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sinabs.hooks.register_synops_hooks(model)
        model(x)
    theirs = {  # means over the rows of the input
        name: round(float(module.hook_data["synops_per_timestep"].detach()) * len(x))
        for name, module in model.named_children()
        if "synops_per_timestep" in getattr(module, "hook_data", {})
    }
    assert counted == theirs


@pytest.mark.parametrize("direct", [False, True])
def test_a_fixed_amplitude_is_divided_out(direct):
    class Graded(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, 4)
            self.lif = snntorch.Leaky(0.9, 0.2, init_hidden=True, graded_spikes_factor=0.3)

        def forward(self, x):
            current = self.fc1(x)
            return self.fc2(self.lif.forward(current) if direct else self.lif(current))

    model, x = Graded(), torch.ones(N, 8)
    counter = fxsynops.SynOpsCounter(model, x)
    model.lif.reset_mem()
    spikes = int((model.lif(model.fc1(x)) != 0).sum())
    model.lif.reset_mem()
    counter(x)
    assert spikes > 0
    assert int(counter.per_synapse["fc2"].detach()) == spikes * 4


def test_an_amplitude_other_than_one_is_refused_behind_a_gate():
    lif = snntorch.Leaky(0.9, init_hidden=True, graded_spikes_factor=0.3)
    model = nn.Sequential(nn.Linear(8, 6), lif, nn.ReLU(), nn.Linear(6, 4))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="worth differs"):
        fxsynops.analyze(model, torch.ones(N, 8))
