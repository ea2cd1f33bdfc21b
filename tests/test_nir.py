"""Networks in NIR are analyzed like any model, whoever wrote them."""

from __future__ import annotations

import subprocess
import sys
from inspect import signature
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
from fxsynops.nir import NIRModel, from_nir, nir_example

PEERS = "ignore:.*(being deprecated|divide by zero|invalid value).*"


def spikes(*shape, rate=0.4):
    return (torch.rand(*shape) < rate).float()


def ones(*shape):
    return np.ones(shape, dtype=np.float32)


def weights(*shape, mean=0.2):
    return (torch.randn(*shape) * 0.5 + mean).numpy()


def threshold_units(*shape, dt=1.0):
    """IF nodes whose potential grows by what comes in."""
    return nir.IF(r=ones(*shape) / dt, v_threshold=ones(*shape))


# Releases before 1.0.5 check no types.
UNCHECKED = {"type_check": False} if "type_check" in signature(nir.NIRGraph).parameters else {}


def leaky(*shape, tau=2.0):
    return nir.LIF(tau=tau * ones(*shape), r=tau * ones(*shape), v_leak=0 * ones(*shape),
                   v_threshold=ones(*shape))  # fmt: skip


def convolution(*shape, size=None, **options):
    known = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | options
    kind = nir.Conv2d if len(shape) == 4 else nir.Conv1d
    return kind(input_shape=size, weight=weights(*shape), bias=0.1 * ones(shape[0]), **known)


def chain(*nodes, shape):
    names = [f"n{i}" for i in range(len(nodes))]
    path = ["input", *names, "output"]
    return nir.NIRGraph(
        {"input": nir.Input(np.array(shape)), **dict(zip(names, nodes, strict=True)),
         "output": nir.Output(None)},
        list(pairwise(path)),
        **UNCHECKED,
    )  # fmt: skip


def recurrent_graph(bias=0.3):
    """Two inputs, three LIF neurons on their own recurrent weights, two outputs."""
    back = nir.Affine(weights(3, 3, mean=0.3), bias * ones(3))
    nodes = {
        "input": nir.Input(np.array([2])),
        "fc": nir.Linear(weights(3, 2, mean=0.8)),
        "lif": leaky(3),
        "back": back,
        "readout": nir.Linear(weights(2, 3)),
        "output": nir.Output(np.array([2])),
    }
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "back"), ("back", "lif"),
             ("lif", "readout"), ("readout", "output")]  # fmt: skip
    return nir.NIRGraph(nodes, edges)


def fanouts(model, x, layout="NT", **options):
    found = fxsynops.analyze(model, x, layout=layout, **options).connections
    return [(c.source, c.synapse, c.fanout.total) for c in found]


def counted(model, x):
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    y = counter(x)
    assert torch.equal(y, model(x))
    return {name: count.item() for name, count in counter.per_synapse.items()}


def emitted(model, x):
    """What each spiking node of a network without cycles emits."""
    found = {}
    for name, module in model.named_modules():
        if "v_threshold" in dict(module.named_buffers(recurse=False)):
            module.register_forward_hook(
                lambda _, args, out, name=name: found.update({name: out[0].detach()})
            )
    model(x)
    for module in model.modules():
        module._forward_hooks.clear()
    return found


# -- graphs made by hand ---------------------------------------------------------------------------


def test_a_convolutional_network_is_counted_as_its_all_ones_replay_counts_it():
    graph = chain(
        convolution(4, 2, 3, 3, padding=1, stride=2),
        threshold_units(4, 4, 4),
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        convolution(6, 2, 2, 2, groups=2),
        threshold_units(6, 1, 1),
        nir.Flatten(None, 0, -1),
        nir.Affine(weights(5, 6), ones(5)),
        shape=(2, 7, 7),
    )
    model = from_nir(graph)
    x = spikes(3, 8, 2, 7, 7)
    fired = emitted(model, x)
    assert all(0 < s.mean() < 1 for s in fired.values())
    first = F.conv2d(x.flatten(0, 1), torch.ones(4, 2, 3, 3), stride=2, padding=1).sum()
    pooled = F.avg_pool2d(fired["n1"].flatten(0, 1), 2, divisor_override=1)
    second = F.conv2d(pooled, torch.ones(6, 2, 2, 2), groups=2).sum()
    third = 5 * fired["n4"].sum()
    expected = {"n0": first.item(), "n3": second.item(), "n6": third.item()}
    assert counted(model, x) == expected


def test_a_one_dimensional_convolution_has_the_fanout_of_its_taps():
    graph = chain(convolution(3, 2, 3, size=9, padding="same", dilation=2), shape=(2, 9))
    (connection,) = fxsynops.analyze(from_nir(graph), spikes(1, 1, 2, 9), layout="NT").connections
    one = [2, 2, 3, 3, 3, 3, 3, 2, 2]
    assert connection.fanout.map.squeeze().expand(2, 9).tolist() == [[3 * n for n in one]] * 2
    assert (connection.source, connection.synapse, connection.kind) == ("input", "n0", "conv1d")


def test_average_pools_scales_and_thresholds_carry_on_events():
    graph = chain(
        nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.Scale(2 * ones(1, 2, 2)),
        nir.Flatten(None, 0, -1),
        nir.Linear(weights(3, 4)),
        nir.Threshold(0.2 * ones(3)),
        nir.Linear(weights(2, 3)),
        shape=(1, 4, 4),
    )
    assert fanouts(from_nir(graph), spikes(1, 2, 1, 4, 4)) == [
        ("input", "n3", 16 * 3),
        ("n4", "n5", 3 * 2),
    ]


@pytest.mark.parametrize("kind", ["I", "LI", "CubaLI"])
def test_what_an_integrator_puts_out_is_analog(kind):
    numbers = dict.fromkeys(("tau", "tau_mem", "tau_syn", "r", "v_leak"), ones(3))
    names = {
        "I": ("r",),
        "LI": ("tau", "r", "v_leak"),
        "CubaLI": ("tau_mem", "tau_syn", "r", "v_leak"),
    }
    node = getattr(nir, kind)(**{name: numbers[name] for name in names[kind]})
    analysis = fxsynops.analyze(
        from_nir(chain(node, nir.Linear(weights(2, 3)), shape=(3,))), spikes(1, 4, 3), layout="NT"
    )
    assert analysis.connections == ()
    assert [(row.synapse, row.macs) for row in analysis.dense] == [("n1", 6)]


def test_events_that_a_delay_moves_out_of_the_window_reach_nothing():
    graph = chain(nir.Delay(3.0 * ones(2)), nir.Linear(ones(5, 2)), shape=(2,))
    model = from_nir(graph, dt=1.0)
    x = spikes(4, 10, 2)
    assert torch.equal(model(x)[:, 3:, 0], x[:, :-3].sum(-1))
    assert counted(model, x) == {"n1": 5 * x[:, :-3].sum().item()}


def test_an_example_that_is_shorter_than_a_delay_is_spoken_of():
    graph = chain(nir.Delay(3.0 * ones(2)), nir.Linear(ones(5, 2)), shape=(2,))
    model = from_nir(graph, dt=1.0)
    with pytest.warns(UserWarning, match="3 time steps, and a delay of the graph is of 3: within"):
        fxsynops.analyze(model, spikes(4, 3, 2), layout="NT")


def test_a_leaky_neuron_takes_euler_steps_and_is_reset():
    node = nir.LIF(tau=np.array([4.0]), r=np.array([2.0]), v_leak=np.array([0.1]),
                   v_threshold=np.array([1.0]), v_reset=np.array([-0.5]))  # fmt: skip
    x = torch.rand(1, 40, 1) * 1.5
    for reset in ("value", "subtract"):
        v, expected = 0.1, []
        for current in x.flatten().tolist():
            v += 0.5 / 4 * (0.1 - v + 2 * current)
            expected.append(float(v > 1))
            if v > 1:
                v = -0.5 if reset == "value" else v - 1
        model = from_nir(chain(node, shape=(1,)), dt=0.5, reset=reset)
        assert model(x).flatten().tolist() == expected
        assert 0 < sum(expected) < 40


def test_a_current_based_neuron_filters_its_input_first():
    numbers = {"tau_syn": 2.0, "tau_mem": 4.0, "r": 3.0, "v_leak": 0.0, "v_threshold": 1.0}
    node = nir.CubaLIF(**{k: np.array([n]) for k, n in numbers.items()}, w_in=np.array([1.5]))
    x = spikes(1, 40, 1)
    i, v, expected = 0.0, 0.0, []
    for current in x.flatten().tolist():
        i += (1.5 * current - i) / 2
        v += (3 * i - v) / 4
        expected.append(float(v > 1))
        v = 0.0 if v > 1 else v
    assert from_nir(chain(node, shape=(1,)), dt=1.0)(x).flatten().tolist() == expected
    assert sum(expected) > 0


def test_a_graph_within_a_graph_goes_by_both_names(tmp_path):
    inner = nir.NIRGraph(
        {"in": nir.Input(np.array([3])), "lif": leaky(3), "out": nir.Output(np.array([3]))},
        [("in", "lif"), ("lif", "out")],
    )
    graph = chain(nir.Linear(ones(3, 2)), inner, nir.Linear(ones(4, 3)), shape=(2,))
    expected = [("input", "n0", 6), ("n1.lif", "n2", 12)]
    assert fanouts(from_nir(graph), spikes(2, 3, 2)) == expected
    path = written(graph, tmp_path / "net.nir")
    assert fanouts(from_nir(path), spikes(2, 3, 2)) == expected


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("layers.0.fc", "layers.0.fc"),
        ("fc 1/a-b", "fc 1/a-b"),
        ("forward", "forward_"),
        ("input_shape", "input_shape_"),
        ("a..b", "a__b"),
        ("lif.fc", "lif_fc"),
        ("class", "class"),
    ],
)
def test_synapses_go_by_the_names_of_nodes(name, path):
    nodes = {"x": nir.Input(np.array([2])), "lif": leaky(2), name: nir.Linear(ones(3, 2)),
             "y": nir.Output(np.array([3]))}  # fmt: skip
    model = from_nir(nir.NIRGraph(nodes, [("x", "lif"), ("lif", name), (name, "y")]))
    assert fanouts(model, spikes(1, 2, 2)) == [("lif", path, 6)]
    counted(model, spikes(1, 2, 2))


def test_a_neuron_that_is_called_input_is_not_taken_for_the_input():
    nodes = {"x": nir.Input(np.array([2])), "fc": nir.Linear(ones(2, 2)), "input": leaky(2),
             "out": nir.Linear(ones(3, 2)), "y": nir.Output(np.array([3]))}  # fmt: skip
    edges = [("x", "fc"), ("fc", "input"), ("input", "out"), ("out", "y")]
    model = from_nir(nir.NIRGraph(nodes, edges))
    assert fanouts(model, spikes(1, 2, 2)) == [("input", "fc", 4), ("input_", "out", 6)]


def test_several_inputs_and_outputs_are_arguments_and_a_tuple():
    nodes = {"a": nir.Input(np.array([2])), "b": nir.Input(np.array([3])),
             "fa": nir.Linear(ones(4, 2)), "fb": nir.Linear(ones(4, 3)), "lif": leaky(4),
             "y": nir.Output(np.array([4])), "z": nir.Output(np.array([4]))}  # fmt: skip
    edges = [("a", "fa"), ("b", "fb"), ("fa", "lif"), ("fb", "lif"), ("lif", "y"), ("fb", "z")]
    model = from_nir(nir.NIRGraph(nodes, edges, **UNCHECKED))
    x = nir_example(model, 2, 3)
    y, z = model(*x)
    assert y.shape == z.shape == (2, 3, 4)
    assert fanouts(model, x) == [("input", "fa", 8), ("more_0", "fb", 12)]


def test_weights_are_parameters_that_can_be_zero_and_learn():
    weight = ones(3, 2)
    weight[0] = 0
    model = from_nir(chain(nir.Linear(weight), leaky(3), nir.Linear(ones(4, 3)), shape=(2,)))
    x = spikes(2, 5, 2)
    assert fanouts(model, x, weights="nonzero")[0] == ("input", "n0", 4)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    counter(x)
    counter.synops.backward()
    assert model.n0.weight.grad.abs().sum() > 0


# -- cycles ----------------------------------------------------------------------------------------


def test_recurrent_spikes_come_back_one_step_later_and_are_counted():
    graph = recurrent_graph()
    model = from_nir(graph)
    x = spikes(4, 12, 2)
    fc, back, bias = (
        graph.nodes["fc"].weight,
        graph.nodes["back"].weight,
        graph.nodes["back"].bias,
    )
    v = z = np.zeros((4, 3))
    total, out = 0, []
    for step in x.numpy().swapaxes(0, 1):
        v = v / 2 + step @ fc.T + z @ back.T + bias
        z = (v > 1).astype(float)
        v = v * (1 - z)
        total += z.sum()
        out.append(z @ graph.nodes["readout"].weight.T)
    assert model.recurrent
    assert 0 < total < 4 * 12 * 3
    torch.testing.assert_close(model(x).detach(), torch.tensor(np.stack(out, 1)).float())
    expected = {"fc": 3 * x.sum().item(), "back": 3 * total, "readout": 2 * total}
    assert counted(model, x) == expected


def test_one_step_suffices_to_see_recurrent_weights():
    expected = [("input", "fc", 6), ("lif", "back", 9), ("lif", "readout", 6)]
    assert sorted(fanouts(from_nir(recurrent_graph()), spikes(1, 1, 2))) == expected


def test_spikes_that_come_back_through_the_input_weights_have_their_own_connection():
    nodes = {"input": nir.Input(np.array([3])), "shared": nir.Linear(weights(3, 3)),
             "lif": leaky(3), "output": nir.Output(np.array([3]))}  # fmt: skip
    edges = [("input", "shared"), ("shared", "lif"), ("lif", "shared"), ("lif", "output")]
    model = from_nir(nir.NIRGraph(nodes, edges))
    x = spikes(2, 6, 3)
    found = fxsynops.analyze(model, x, layout="NT").connections
    assert {(c.source, c.synapse, c.fanout.max) for c in found} == {
        ("input", "shared", 3),
        ("lif", "shared", 3),
    }
    back = model(x)[:, :-1]  # the last step's spikes come back after the window
    assert counted(model, x) == {"shared": 3 * (x.sum() + back.sum()).item()}


def test_two_layers_may_form_a_cycle():
    nodes = {"input": nir.Input(np.array([2])), "up": nir.Linear(weights(3, 2, mean=1)),
             "a": leaky(3), "over": nir.Linear(weights(4, 3, mean=1)), "b": leaky(4),
             "down": nir.Linear(weights(3, 4)), "output": nir.Output(np.array([4]))}  # fmt: skip
    edges = [("input", "up"), ("up", "a"), ("a", "over"), ("over", "b"), ("b", "down"),
             ("down", "a"), ("b", "output")]  # fmt: skip
    model = from_nir(nir.NIRGraph(nodes, edges))
    x = spikes(2, 8, 2)
    assert sorted(fanouts(model, x)) == [("a", "over", 12), ("b", "down", 12), ("input", "up", 6)]
    assert counted(model, x)["down"] == 3 * model(x).sum().item()
    assert torch.equal(model(x), torch.cat([model(x[:, :4]), model(x)[:, 4:]], 1))  # causal


def test_neurons_may_excite_themselves():
    nodes = {
        "input": nir.Input(np.array([2])),
        "lif": leaky(2),
        "output": nir.Output(np.array([2])),
    }
    edges = [("input", "lif"), ("lif", "output")]
    x = torch.tensor([1.5, 0.5, 0.5, 0.5])[:, None] * torch.tensor([1.0, 0.5])
    alone = from_nir(nir.NIRGraph(nodes, edges))(x.unsqueeze(0))
    assert alone.sum((0, 1)).tolist() == [1, 0]
    excited = from_nir(nir.NIRGraph(nodes, [*edges, ("lif", "lif")]))(x.unsqueeze(0))
    assert excited.sum((0, 1)).tolist() == [4, 0]


# -- files of simulators ---------------------------------------------------------------------------


class Steps(nn.Module):
    """A network that takes one step per call, on (batch, time, …)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, input):
        return torch.stack([self.net(x) for x in input.unbind(1)], 1)


def written(graph, path, compression="gzip", infer=True):
    if infer:
        graph.infer_types()  # a file cannot hold unknown shapes
    nir.write(path, graph, compression=compression)
    return path


def without_prefix(rows):
    return sorted((s.removeprefix("net."), t.removeprefix("net."), n) for s, t, n in rows)


@pytest.mark.filterwarnings(PEERS)
def test_files_of_sinabs_are_counted_as_the_network(tmp_path):
    import sinabs.activation as sa
    import sinabs.layers as sl
    from sinabs.nir import to_nir

    def neuron():
        return sl.IAFSqueeze(batch_size=2, spike_fn=sa.SingleSpike)

    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2, bias=False), neuron(), sl.SumPool2d(2),
        nn.Conv2d(4, 3, 3), neuron(), nn.Flatten(), nn.Linear(12, 5), neuron(), nn.Linear(5, 2),
    )  # fmt: skip
    for layer in net:
        if hasattr(layer, "weight"):
            layer.weight.data += 0.15
    x = spikes(2, 10, 2, 16, 16)
    merged = x.flatten(0, 1)
    path = written(to_nir(net, merged), tmp_path / "net.nir", compression=None)
    model = from_nir(path, reset="subtract")
    for layer in net:
        if isinstance(layer, sl.StatefulLayer):
            layer.reset_states()
    expected = fanouts(net, merged, layout="(NT)", batch_size=2)
    assert fanouts(model, x) == expected
    counter = fxsynops.SynOpsCounter(net, merged, layout="(NT)", batch_size=2)
    counter(merged)
    found = {name: count.item() for name, count in counter.per_synapse.items()}
    assert min(found.values()) > 0
    assert counted(model, x) == found


@pytest.mark.filterwarnings(PEERS)
def test_leaky_neurons_of_sinabs_have_a_time_step_of_one(tmp_path):
    import sinabs.layers as sl
    from sinabs.nir import to_nir

    net = nn.Sequential(
        nn.Linear(6, 5), sl.LIF(tau_mem=10.0), nn.Linear(5, 3), sl.ExpLeak(tau_mem=5.0)
    )
    graph = to_nir(net, spikes(1, 4, 6))
    graph.nodes["input"] = nir.Input(np.array([6]))  # sinabs takes time for an axis of the input
    path = tmp_path / "net.nir"
    nir.write(path, graph, compression=None)
    model = from_nir(path)
    assert model.dt == 1
    assert fanouts(model, spikes(1, 4, 6)) == fanouts(net, spikes(1, 4, 6))


@pytest.mark.filterwarnings(PEERS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_files_of_snntorch_are_counted_as_the_network(tmp_path, recurrent):
    import snntorch as snn
    from snntorch.export_nir import export_to_nir

    options = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    if recurrent:
        neurons = [
            snn.RLeaky(beta=0.9, linear_features=8, **options),
            snn.RLeaky(beta=0.8, linear_features=6, **options),
        ]
    else:
        one = torch.ones
        neurons = [
            snn.Leaky(beta=0.9 * one(8), threshold=one(8), **options),
            snn.Synaptic(alpha=0.8 * one(6), beta=0.9 * one(6), threshold=one(6), **options),
        ]
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(20, 8), neurons[0], nn.Linear(8, 6), neurons[1], nn.Linear(6, 2)
    )
    graph = export_to_nir(net, torch.rand(1, 20), ignore_dims=[0])
    model = from_nir(written(graph, tmp_path / "net.nir"))
    for neuron in neurons:
        neuron.reset_mem()
    x = spikes(3, 12, 20)
    original = Steps(net)
    names = {"2.recurrent": "2.w_rec", "4.recurrent": "4.w_rec", "2": "2.lif", "4": "4.lif"}
    names = names if recurrent else {}
    rows = without_prefix(fanouts(original, x))
    expected = sorted((names.get(s, s), names.get(t, t), n) for s, t, n in rows)
    assert sorted(fanouts(model, x)) == expected
    found = {
        names.get(n := name.removeprefix("net."), n): count
        for name, count in counted_fresh(original, neurons, x).items()
    }
    assert min(found.values()) > 0
    assert counted(model, x) == found


@pytest.mark.filterwarnings(PEERS)
def test_current_based_recurrent_neurons_of_snntorch_are_understood(tmp_path):
    import snntorch as snn
    from snntorch.export_nir import export_to_nir

    net = nn.Sequential(
        nn.Linear(4, 3), snn.RSynaptic(alpha=0.8, beta=0.9, linear_features=3, init_hidden=True)
    )
    graph = export_to_nir(net, torch.rand(1, 4), ignore_dims=[0])
    model = from_nir(written(graph, tmp_path / "net.nir"))
    expected = [("1.lif", "1.w_rec", 9), ("input", "0", 12)]
    assert sorted(fanouts(model, spikes(2, 3, 4))) == expected


def counted_fresh(model, neurons, x):
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    for neuron in neurons:
        neuron.reset_mem()
    counter(x)
    return {name: count.item() for name, count in counter.per_synapse.items()}


@pytest.mark.filterwarnings(PEERS)
def test_files_of_norse_are_counted_as_the_network(tmp_path):
    import norse.torch as norse

    net = norse.SequentialState(
        nn.Linear(20, 8), norse.LIFBoxCell(), nn.Linear(8, 6), norse.LIFBoxCell(), nn.Linear(6, 2)
    )
    net[0].weight.data += 0.6
    net[2].weight.data += 1.0
    path = written(norse.to_nir(net, spikes(20)), tmp_path / "net.nir", None, infer=False)
    model = from_nir(path, dt=1e-6)  # norse writes dt · τ for τ, with its dt of 0.001
    x = spikes(3, 30, 20)

    class Original(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, input):
            state, outputs = None, []
            for step in input.unbind(1):
                y, state = self.net(step, state)
                outputs.append(y)
            return torch.stack(outputs, 1)

    assert sorted(fanouts(model, x)) == without_prefix(fanouts(Original(), x))
    found = {n.removeprefix("net."): c for n, c in counted(Original(), x).items()}
    assert min(found.values()) > 0
    assert counted(model, x) == found


@pytest.mark.filterwarnings(PEERS)
def test_integrators_and_current_based_neurons_of_norse_are_understood(tmp_path):
    import norse.torch as norse

    net = norse.SequentialState(
        nn.Linear(9, 8), norse.IAFCell(), nn.Linear(8, 6), norse.LIFCell(), nn.Linear(6, 2),
        norse.LIBoxCell(),
    )  # fmt: skip
    path = written(norse.to_nir(net, spikes(9)), tmp_path / "net.nir", None, infer=False)
    expected = [("1", "2", 48), ("3", "4", 12), ("input", "0", 72)]
    assert sorted(fanouts(from_nir(path), spikes(2, 3, 9))) == expected


def test_the_recurrent_network_of_the_nir_paper_is_understood():
    import norse

    path = Path(norse.__file__).parent / "torch" / "utils" / "test" / "braille.nir"
    model = from_nir(path)
    x = nir_example(model, 2, 50)
    assert x.shape == (2, 50, 12)
    fired = [
        ("input", "fc1", 12 * 38),
        ("lif1.lif", "fc2", 38 * 7),
        ("lif1.lif", "lif1.w_rec", 38**2),
    ]
    assert sorted(fanouts(model, x)) == fired
    synops = counted(model, x)
    assert synops["lif1.w_rec"] * 7 == synops["fc2"] * 38 > 0


@pytest.mark.filterwarnings(PEERS)
def test_files_of_spikingjelly_are_counted_as_the_network(tmp_path):
    from spikingjelly.activation_based import functional, layer, neuron

    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")

    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode(), layer.AvgPool2d(2),
        layer.Conv2d(4, 4, 3, bias=False), neuron.LIFNode(tau=2.0), layer.Flatten(),
        layer.Linear(16, 6), neuron.LIFNode(tau=3.0, decay_input=False), layer.Linear(6, 5),
        neuron.CUBALIFNode(c_decay=0.5, v_decay=0.8), layer.Linear(5, 2),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    for part in net:
        if hasattr(part, "weight"):
            part.weight.data += 0.2
    x = spikes(2, 10, 2, 8, 8)
    steps = x.transpose(0, 1).contiguous()
    path = tmp_path / "net.nir"
    exchange.export_to_nir(net, steps, path)
    functional.reset_net(net)
    model = from_nir(path)
    expected = fanouts(net, steps, layout="TN")
    assert [
        (s.removeprefix("_"), t.removeprefix("_"), n) for s, t, n in fanouts(model, x)
    ] == expected
    counter = fxsynops.SynOpsCounter(net, steps, layout="TN")
    counter(steps)
    found = {f"_{name}": count.item() for name, count in counter.per_synapse.items()}
    assert min(found.values()) > 0
    assert counted(model, x) == found


# -- bad input -------------------------------------------------------------------------------------


def test_a_missing_file_is_named():
    with pytest.raises(fxsynops.InputError, match=r"no file 'nowhere\.nir'"):
        from_nir("nowhere.nir")


@pytest.mark.parametrize("content", [b"", b"spikes", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_file_that_is_no_nir_is_named_with_the_cure(tmp_path, content):
    path = tmp_path / "bad.nir"
    path.write_bytes(content)
    with pytest.raises(fxsynops.InputError, match=r"bad\.nir' is no NIR file.*Export.*again"):
        from_nir(path)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_named(tmp_path, share):
    path = written(recurrent_graph(), tmp_path / "cut.nir")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(fxsynops.InputError, match=r"cut\.nir'.*Export.*again"):
        from_nir(path)


def test_another_hdf5_file_is_no_nir(tmp_path):
    with nir.serialization.h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1.0]
    with pytest.raises(fxsynops.InputError, match=r"other\.h5' is no NIR file.*Export.*again"):
        from_nir(tmp_path / "other.h5")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file["node/nodes/lif"].pop("tau"), "node 'lif' .LIF. is damaged.*tau"),
        (lambda file: file["node/nodes/lif/type"].__setitem__((), "Izhikevich"),
         "node 'lif' is of the unknown type 'Izhikevich'. Update"),
        (lambda file: file["node"].pop("edges"), "edges"),
        (lambda file: file["node/nodes/lif/tau"].__setitem__(..., 0), "node 'lif'.*tau of 0.*dt"),
        (lambda file: file["node/nodes/lif/tau"].__setitem__(..., np.nan), "'lif'.*not finite"),
    ],
)  # fmt: skip
def test_a_damaged_node_is_named(tmp_path, change, said):
    path = written(recurrent_graph(), tmp_path / "net.nir")
    with nir.serialization.h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(fxsynops.InputError, match=said) as error:
        from_nir(path)
    assert "net.nir" in str(error.value)
    assert "\n" not in str(error.value)


class Mystery(nir.NIRNode):
    def __init__(self):
        self.input_type = {"input": np.array([2])}
        self.output_type = {"output": np.array([2])}


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (chain(Mystery(), shape=(2,)), r"node 'n0' \(Mystery\) is of a type.*Replace"),
        (chain(nir.Linear(ones(3, 2)), nir.Linear(ones(2, 2)), shape=(2,)),
         r"node 'n1' does not take what it gets from 'n0' \(3,\).*Export"),
        (chain(nir.Delay(np.array([0.0, 1.0])), shape=(2,)), "'n0'.*delays that differ.*single"),
        (chain(nir.Linear(ones(1, 3, 2)), shape=(2,)), "'n0'.*3 axes.*Flatten"),
        (nir.NIRGraph({"a": leaky(2)}, [], **UNCHECKED), "no Input"),
        (nir.NIRGraph({"a": nir.Input(np.array([2])), "b": nir.Output(np.array([2]))},
                      [("a", "c")], **UNCHECKED), "a → c.*'c' does not exist"),
        (nir.NIRGraph({"a": nir.Input(np.array([2])), "b": nir.Output(np.array([2]))},
                      [], **UNCHECKED), "nothing goes into node 'b'"),
        (nir.NIRGraph({"a": nir.Input(np.array([2])), "b": nir.Output(np.array([2])),
                       "lif": leaky(2)},
                      [("a", "b"), ("lif", "lif")], **UNCHECKED), "reaches node 'lif'"),
        (nir.NIRGraph({"a": nir.Input(np.array([2])), "s": nir.Scale(ones(2)),
                       "b": nir.Output(np.array([2]))},
                      [("a", "s"), ("s", "s"), ("s", "b")]), "cycle s.*no spiking neuron"),
    ],
)  # fmt: skip
def test_a_graph_that_cannot_run_is_refused(graph, said):
    with pytest.raises(fxsynops.InputError, match=said):
        from_nir(graph)


@pytest.mark.parametrize(
    ("options", "said"), [({"dt": 0.0}, "dt must be"), ({"reset": "zero"}, "'value' or 'subtract'")]
)
def test_options_must_make_sense(options, said):
    with pytest.raises(fxsynops.InputError, match=said):
        from_nir(recurrent_graph(), **options)


def test_a_time_step_longer_than_a_time_constant_is_refused():
    with pytest.raises(
        fxsynops.InputError, match=r"'lif' \(LIF\) has a tau of 2, shorter.*smaller dt"
    ):
        from_nir(recurrent_graph(), dt=3.0)


def test_what_is_no_graph_is_refused():
    with pytest.raises(fxsynops.InputError, match="not a Linear"):
        from_nir(nn.Linear(2, 2))


# -- examples and imports --------------------------------------------------------------------------


def test_an_example_has_the_shape_that_the_graph_tells(tmp_path):
    path = written(recurrent_graph(), tmp_path / "net.nir")
    model = from_nir(str(path))
    assert isinstance(model, NIRModel)
    assert model.input_shape == (2,)
    assert nir_example(path).shape == (1, 2, 2)  # recurrent: two steps
    assert nir_example(model, 3, 5).unique().tolist() == [0, 1]
    analog = nir_example(model, 3, 5, events=False)
    assert analog.frac().abs().sum() > 0
    assert fxsynops.analyze(model, analog, layout="NT", input_events=False).dense[0].macs == 6


def test_the_package_does_without_nir_until_a_file_is_read():
    code = "import sys, fxsynops, fxsynops.nir; assert 'nir' not in sys.modules, 'imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
