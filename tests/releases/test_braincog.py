"""braincog's nodes and layers, counted as an oracle recounts them (needs braincog and einops)."""

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
from tests.releases.stubs import stand_in

if find_spec("braincog") is None or find_spec("einops") is None:
    pytest.skip("braincog is not installed", allow_module_level=True)

stand_in("torchvision", "torchvision.ops", "torchvision.utils", "tonic", "seaborn", "pygame")
stand_in("timm", "timm.models", "timm.models.layers", "timm.data", register_model=lambda f: f)
datasets = ModuleType("braincog.datasets")  # it downloads and decodes; models ask one thing of it
datasets.__path__ = [f"{find_spec('braincog').submodule_search_locations[0]}/datasets"]
datasets.is_dvs_data = lambda name: name.startswith("dvs")
sys.modules["braincog.datasets"] = datasets

import einops  # noqa: E402
from braincog.base.connection.layer import NDropout, VotingLayer  # noqa: E402
from braincog.base.node import node as nodes  # noqa: E402
from braincog.base.strategy import surrogate  # noqa: E402
from braincog.base.strategy.LateralInhibition import LateralInhibition  # noqa: E402
from braincog.model_zoo.base_module import (  # noqa: E402
    BaseConvModule,
    BaseLinearModule,
    BaseModule,
)

pytestmark = pytest.mark.filterwarnings("ignore")
einops.rearrange(torch.zeros(1, 1), "a b -> b a")  # it looks for torch at its first call

IMAGES = {"layout": "N", "input_events": False}
_SPIKING = """IFNode LIFNode PLIFNode BiasLIFNode BiasPLIFNode LIFSTDPNode NoiseLIFNode
    NoisePLIFNode IzhNodeMU""".split()
_ANALOG = "ReLUNode BiasReLUNode LIAFNode DGLIFNode HTDGLIFNode".split()


class Net(BaseModule):
    """As braincog's own models: an encoder, blocks of layers, a reset in each forward."""

    def __init__(self, node, step=3, pool=nn.AvgPool2d, encode_type="direct", **options):
        super().__init__(step, encode_type, **options)

        def make(**_):
            return node(step=step, threshold=0.2, **options)

        self.feature = nn.Sequential(
            BaseConvModule(2, 4, node=make),
            pool(2),
            BaseConvModule(4, 4, node=make),
            NDropout(0.5),
            nn.Flatten(),
            nn.Linear(64, 10),
            make(),
            VotingLayer(2),
        )
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        x = self.encoder(x)
        self.reset()
        if self.layer_by_layer:
            return self.fc(self.feature(x)).reshape(self.step, -1, 3).mean(0)
        return sum(self.fc(self.feature(x[t])) for t in range(self.step)) / self.step


def assert_exact(build, inputs, at_least=1, **more):
    outcome = count(Case(build, lambda: (inputs,), IMAGES, reset_states, **more))
    assert outcome.synops == outcome.expected_synops
    assert outcome.macs == outcome.expected_macs
    assert outcome.same_output
    assert sum(outcome.synops.values()) >= at_least
    return outcome.counter


@pytest.mark.parametrize("layer_by_layer", [False, True])
@pytest.mark.parametrize("name", _SPIKING)
def test_a_model_of_braincogs_is_counted_exactly(name, layer_by_layer):
    def build():
        return Net(getattr(nodes, name), layer_by_layer=layer_by_layer, pool=nn.MaxPool2d).eval()

    voted = {"fc": 0.5}  # what one spike is worth behind the average of two
    counter = assert_exact(build, torch.rand(2, 2, 8, 8), at_least=0, units=voted)
    again = torch.rand(5, 2, 8, 8)  # another batch, after a forward
    torch.manual_seed(3)
    expected = counter.model(again)
    torch.manual_seed(3)
    assert torch.equal(counter(again), expected)
    assert name == "IzhNodeMU" or counter.synops > 0


@pytest.mark.parametrize("name", _ANALOG)
def test_nodes_that_put_out_analog_values_cost_macs(name):
    counter = assert_exact(lambda: Net(getattr(nodes, name)), torch.rand(2, 2, 8, 8), 0)
    assert counter.synops == 0
    assert len(counter.analysis.dense) == 4


def test_average_pools_options_and_encoded_spikes():
    for options in (
        {},
        {"requires_fp": True, "requires_mem": True},
        {"sigmoid_thres": True, "mem_detach": True},
        {"encode_type": "rate", "layer_by_layer": True},
    ):

        def build(options=options):
            return Net(nodes.PLIFNode, **options)

        units = {"feature.2.conv": 0.25, "feature.5": 2.0, "fc": 0.5}  # of pools, and dropout
        assert_exact(build, torch.rand(2, 2, 8, 8), units=units)


def test_groups_of_steps_among_the_channels():
    options = {"groups": 2, "n_groups": 2, "step": 2, "threshold": 0.1}

    def build():
        return nn.Sequential(
            BaseConvModule(2, 3, node=nodes.LIFNode, **options),
            BaseConvModule(3, 3, node=nodes.IFNode, **options),
            nn.Flatten(),
            nn.Linear(6 * 16, 3),
        )

    assert_exact(build, torch.rand(2, 4, 4, 4))


class Reads(nn.Module):
    """What is around a node reads its spikes where it keeps them."""

    def __init__(self, kept):
        super().__init__()
        self.fc, self.node = nn.Linear(4, 6), nodes.IFNode(threshold=0.2, requires_fp=True)
        self.out, self.kept = nn.Linear(6, 3), kept
        self.inhibit = LateralInhibition(self.node, 0.3)

    def forward(self, x):
        self.node.n_reset()
        y = 0
        for _ in range(3):
            spikes = self.inhibit(self.node(self.fc(x)))
            y = y + self.out(self.node.spike if self.kept == "spike" else spikes)
        return self.out(sum(self.node.feature_map)) if self.kept == "feature_map" else y


@pytest.mark.parametrize("kept", ["spike", "feature_map", ""])
def test_spikes_that_a_node_keeps_are_events(kept):
    assert_exact(lambda: Reads(kept), torch.rand(5, 4))


@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_spikes_come_back_through_the_synapses_inside_of_backei_nodes(layer_by_layer):
    def make():
        return nodes.BackEINode(
            threshold=0.05, channel=3, step=3, layer_by_layer=layer_by_layer, cfg_backei=1
        )

    class BackEI(BaseModule):
        def __init__(self):
            super().__init__(3, "rate", layer_by_layer=layer_by_layer)
            self.feature = nn.Sequential(nn.Conv2d(1, 3, 3), make(), nn.Conv2d(3, 2, 3))

        def forward(self, x):
            x = self.encoder(x)
            self.reset()
            return self.feature(x) if layer_by_layer else [self.feature(x[t]) for t in range(3)]

    model, x, seen = BackEI(), torch.rand(2, 1, 8, 8), []
    counter = fxsynops.SynOpsCounter(model, (x,), **IMAGES)
    hook = model.feature[1].register_forward_hook(lambda m, a, y: seen.append(y.abs()))
    counter(x)
    hook.remove()
    spikes = torch.cat(seen)
    back = nn.functional.conv2d(spikes, torch.ones(3, 3, 3, 3), padding=1).sum()
    found = {name.partition("#")[0]: float(n) for name, n in counter.per_synapse.items()}
    assert found["feature.1.back"] == back > 0
    assert found["feature.2"] == nn.functional.conv2d(spikes, torch.ones(2, 3, 3, 3)).sum()
    assert next(row.synapse for row in counter.analysis.dense).startswith("feature.1.ei")


class Signed(nodes.BaseNode):
    """A user's own node, which emits 2, 0 and −1."""

    def __init__(self, **options):
        super().__init__(**options)
        self.act_fun = surrogate.AtanGrad()

    def integral(self, inputs):
        self.mem = self.mem + inputs

    def calc_spike(self):
        up, down = (self.act_fun(sign * self.mem - self.threshold) for sign in (1, -1))
        self.spike = 2 * up - down
        self.mem = self.mem * (1 - (up + down).detach())


def test_nodes_of_the_users_and_surrogates_with_several_levels():
    def build(node, **options):
        return lambda: nn.Sequential(
            nn.Linear(4, 6), node(threshold=0.1, **options), nn.Linear(6, 3)
        )

    x = torch.rand(5, 4)
    model = build(Signed)()  # recorded through: a spike up and one down are an event each
    counter = fxsynops.SynOpsCounter(model, x, **IMAGES)
    counter(x)
    reset_states(model)
    assert counter.synops == 3 * torch.count_nonzero(model[1](model[0](x))) > 0
    assert_exact(build(nodes.LIFNode, act_fun=surrogate.EIGrad), x)
    model = build(nodes.LIFNode, act_fun=surrogate.RoundGrad)()
    counter = fxsynops.SynOpsCounter(model, (10 * x,), **IMAGES)
    counter(10 * x)
    reset_states(model)
    assert counter.synops == 3 * model[1](model[0](10 * x)).round().sum() > 0
    assert counter.analysis.upper_bound().structural == 5 * 6 * 3  # a ceiling of 5 levels
    with pytest.raises(fxsynops.FxSynopsError, match="burst"):
        fxsynops.analyze(build(nodes.BurstLIFNode)(), x, **IMAGES)


def test_gradients_and_states_are_the_models_own():
    def run(counted):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 8),
            nodes.PLIFNode(threshold=0.1, requires_thres_grad=True),
            nn.Linear(8, 3),
        )
        x = torch.rand(5, 4)
        run = fxsynops.SynOpsCounter(model, (x,), **IMAGES) if counted else model
        (run(x) + run(x)).sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None], model[1].mem

    gradients, state = run(True)
    expected, after = run(False)
    assert len(gradients) == len(expected) == 7
    assert all(map(torch.equal, gradients, expected))
    assert torch.equal(state, after)


@pytest.mark.parametrize("layer_by_layer", [False, True])
@pytest.mark.parametrize(
    "name", "IFNode LIFNode PLIFNode BiasLIFNode BiasPLIFNode LIFSTDPNode".split()
)
def test_charge_bounds_what_any_input_causes(name, layer_by_layer):
    tight = 0.0
    for seed in range(6):
        torch.manual_seed(seed)
        decay = {"tau": 0.5} if name == "LIFSTDPNode" else {}

        def make(*, decay=decay, **_):
            return getattr(nodes, name)(
                threshold=0.6, step=4, layer_by_layer=layer_by_layer, **decay
            )

        class Chain(BaseModule):
            def __init__(self, make=make):
                super().__init__(4, "direct", layer_by_layer=layer_by_layer)
                self.feature = nn.Sequential(
                    BaseLinearModule(5, 6, node=make), BaseLinearModule(6, 4, node=make)
                )
                self.out = nn.Linear(4, 2)

            def forward(self, x):  # (T, N, 5)
                self.reset()
                if layer_by_layer:
                    return self.out(self.feature(x.flatten(0, 1)))
                return torch.stack([self.out(self.feature(step)) for step in x])

        model = Chain()
        counter = fxsynops.SynOpsCounter(model, (torch.ones(4, 1, 5),), layout="TN")
        bound = counter.analysis.upper_bound()
        assert all(row.charge <= row.structural for row in bound.rows)
        assert bound.rows[1].charge < torch.inf
        for share in (0.2, 0.5, 0.8, 1.0, 1.0):
            counter((torch.rand(4, 1, 5) < share).float())
            for row in bound.compare(counter.counts).to_rows():
                assert row["Measured"] <= row["Charge"]
                tight = max(tight, row["Used"] if row["Measured"] else 0)
    assert tight >= 0.5
