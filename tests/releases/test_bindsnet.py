"""bindsnet's networks, run for a while by a module, against an oracle (needs bindsnet)."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import nn

import fxsynops
from fxsynops.neurons import reset_states
from tests.outcome import Case, count

if (_spec := find_spec("bindsnet")) is None:
    pytest.skip("bindsnet is not installed", allow_module_level=True)

if "bindsnet" not in sys.modules:  # itself, it imports data sets, games and plots
    package = ModuleType("bindsnet")
    package.__spec__, package.__path__ = _spec, list(_spec.submodule_search_locations)
    sys.modules["bindsnet"] = package

from bindsnet.network import Network, monitors, nodes, topology
from bindsnet.network import topology_features as features

from bindsnet import learning  # isort: skip
from bindsnet.learning import MCC_learning  # isort: skip

pytestmark = pytest.mark.filterwarnings("ignore")
_KINDS = """McCullochPitts IFNodes LIFNodes BoostedLIFNodes CurrentLIFNodes AdaptiveLIFNodes
    DiehlAndCookNodes SRM0Nodes""".split()


class Run(nn.Module):
    """What ``network.run`` is as a forward: spikes over time in, recorded spikes out.

    The input is copied, since a reset of the network empties it: an ``Input`` keeps what it gets.
    """

    def __init__(self, layers, connections, reset=True, **options):
        super().__init__()
        self.net, self.reset, self.options = Network(learning=False), reset, options
        for name, layer in layers.items():
            self.net.add_layer(layer, name)
        for (source, target), connection in connections.items():
            self.net.add_connection(connection, source, target)
        self.net.add_monitor(monitors.Monitor(layers["Y"], ["s"]), "Y")

    def forward(self, x):
        if self.reset:
            self.net.reset_state_variables()
        self.net.run({"X": x.clone()}, time=len(x), **self.options)
        return self.net.monitors["Y"].get("s")


def recurrent(kind, rule=None, **options):
    """Two layers, the second of which inhibits itself."""
    x, h, y = nodes.Input(6, traces=True), *(getattr(nodes, kind)(n, traces=True) for n in (8, 4))
    learns = {"update_rule": rule, "nu": (1e-2, 1e-2), "wmin": 0.0, "wmax": 30.0}
    connections = {
        ("X", "H"): topology.Connection(x, h, w=20 * torch.rand(6, 8), **learns),
        ("H", "Y"): topology.Connection(h, y, w=10 * torch.rand(8, 4), b=torch.ones(4)),
        ("Y", "Y"): topology.Connection(y, y, w=-torch.rand(4, 4)),
    }
    return Run({"X": x, "H": h, "Y": y}, connections, **options)


def spikes(*shape):
    return lambda: ((torch.rand(*shape) < 0.5).float(),)


def assert_exact(build, inputs):
    outcome = count(Case(build, inputs, {"layout": "TN"}, reset_states))
    assert outcome.synops == outcome.expected_synops != {}
    assert outcome.macs == outcome.expected_macs == {}
    assert outcome.same_output
    return outcome.counter


@pytest.mark.parametrize("options", [{}, {"one_step": True}, {"reset": False}])
@pytest.mark.parametrize("kind", _KINDS)
def test_a_network_of_every_type_of_nodes_is_counted_exactly(kind, options):
    counter = assert_exact(lambda: recurrent(kind, **options), spikes(6, 2, 6))
    names = {row.connection.source for row in counter.counts.rows}
    assert names == {"x", "net.H.s", "net.Y.s"}
    (again,) = spikes(6, 3, 6)()  # another batch, after a forward
    reset_states(counter.model)
    torch.manual_seed(3)
    expected = counter.model(again)
    reset_states(counter.model)
    torch.manual_seed(3)
    assert torch.equal(counter(again), expected)
    assert counter.synops > 0


def test_izhikevich_nodes_send_each_other_spikes_inside():
    model, (x,) = recurrent("IzhikevichNodes"), spikes(6, 2, 6)()
    counter = fxsynops.SynOpsCounter(model, (x,), layout="TN")
    counter(x)
    found = {(r.connection.source, r.connection.synapse): r for r in counter.counts.rows}
    inner = found["net.H.s", "net.H.S"]
    assert inner.synops == 8 * inner.events > 0
    assert found["net.Y.s", "net.Y.S"].synops == 4 * model(x).sum()


def images(connection, shape, target):
    x, c, y = nodes.Input(shape=[1, 8, 8]), nodes.LIFNodes(shape=shape), nodes.LIFNodes(4)
    pooled = nodes.IFNodes(shape=[shape[0], 3, 3], thresh=-64.5, refrac=0)
    layers, connections = {"X": x, "C": c}, {("X", "C"): connection(x, c)}
    if target == "pool":
        pool = topology.MaxPool2dConnection(c, pooled, kernel_size=2, stride=2, decay=0.5)
        layers["P"], connections["C", "P"] = pooled, pool
        c = pooled
    out = topology.Connection(c, y, w=20 * torch.rand(c.n, 4))
    return Run({**layers, "Y": y}, connections | {("P" if c is pooled else "C", "Y"): out})


def test_convolutions_pools_and_local_connections():
    def convolve(x, c):
        return topology.Conv2dConnection(x, c, kernel_size=3, w=5 * torch.rand(3, 1, 3, 3))

    def local(x, c):
        return topology.LocalConnection(
            x, c, kernel_size=4, stride=2, n_filters=2, input_shape=[8, 8]
        )

    assert_exact(lambda: images(convolve, [3, 6, 6], "pool"), spikes(5, 1, 1, 8, 8))
    assert_exact(lambda: images(convolve, [3, 6, 6], ""), spikes(5, 2, 1, 8, 8))
    assert_exact(lambda: images(local, [2, 3, 3], ""), spikes(5, 1, 1, 8, 8))


def compartments(*more, rule=None, **options):
    x, h, y = nodes.Input(6, traces=True), nodes.LIFNodes(8, traces=True), nodes.LIFNodes(3)
    pipelines = (
        [features.Weight("w", 20 * torch.rand(6, 8), learning_rule=rule, nu=(1e-2, 1e-2)), *more],
        [features.Weight("w", 20 * torch.rand(8, 3))],
    )
    first, second = (
        topology.MulticompartmentConnection(a, b, "cpu", pipeline, **options)
        for (a, b), pipeline in zip(((x, h), (h, y)), pipelines, strict=True)
    )
    return Run({"X": x, "H": h, "Y": y}, {("X", "H"): first, ("H", "Y"): second})


def test_connections_of_several_features():
    def masked():
        bias = features.Bias("b", torch.rand(6, 8), range=[0, 1])
        return compartments(features.Mask("m", torch.rand(6, 8) < 0.5), bias)

    assert_exact(compartments, spikes(6, 2, 6))
    assert_exact(masked, spikes(6, 2, 6))
    assert_exact(lambda: compartments(sparse_compute=True), spikes(6, 2, 6))  # as data say


@pytest.mark.parametrize("name", ["PostPre", "WeightDependentPostPre", "Hebbian"])
def test_learning_is_refused_unless_it_is_off(name):
    rule = getattr(learning, name)
    assert_exact(lambda: recurrent("LIFNodes", rule), spikes(6, 2, 6))
    for model in (recurrent("LIFNodes", rule), compartments(rule=MCC_learning.PostPre)):
        model.train()
        with pytest.raises(fxsynops.UnsupportedOperationError, match="learns while it runs"):
            fxsynops.analyze(model, spikes(6, 1, 6)(), layout="TN")
        assert fxsynops.analyze(model.eval(), spikes(6, 1, 6)(), layout="TN").connections


def test_at_most_a_spike_per_neuron_and_step():
    model, (x,) = recurrent("LIFNodes"), spikes(6, 2, 6)()
    counter = fxsynops.SynOpsCounter(model, (x,), layout="TN")
    bound = counter.analysis.upper_bound()
    counter(torch.ones_like(x))
    for row in bound.compare(counter.counts).to_rows():
        assert 0 < row["Measured"] <= row["Structural"] < torch.inf
