"""spikingjelly by both of its names, ``clock_driven`` of old and ``activation_based``."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import nn

import fxsynops
from tests import conftest
from tests.outcome import Case
from tests.releases.recomputed import checked

conftest.pytest_configure()  # its zoo imports torchvision
OLD = find_spec("spikingjelly.clock_driven") is not None
NEW = find_spec("spikingjelly.activation_based") is not None
pytestmark = pytest.mark.filterwarnings("ignore")
STEPS, SAMPLES = 4, 3


def spikes():
    return ((torch.rand(STEPS, SAMPLES, 2, 8, 8) < 0.3).float(),)


@pytest.mark.skipif(not OLD, reason="a release without clock_driven")
@pytest.mark.parametrize("kind", ["IF", "LIF", "ParametricLIF", "EIF"])
@pytest.mark.parametrize("training", [False, True])
def test_multi_step_neurons_of_old(kind, training):
    from spikingjelly.clock_driven import functional, layer, neuron

    node = getattr(neuron, f"MultiStep{kind}Node")

    def build():
        return nn.Sequential(
            layer.SeqToANNContainer(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)),
            node(v_threshold=0.3, detach_reset=True),
            layer.SeqToANNContainer(nn.AvgPool2d(2), nn.Conv2d(4, 4, 3)),
            node(),
            nn.Flatten(2),
            layer.SeqToANNContainer(nn.Linear(16, 4)),
        ).train(training)

    found = checked(Case(build, spikes, {"layout": "TN"}, reset=functional.reset_net))
    assert found["2.1"] > 0


@pytest.mark.skipif(not OLD, reason="a release without clock_driven")
@pytest.mark.parametrize("kind", ["IF", "LIF", "QIF", "EIF"])
def test_step_by_step_neurons_of_old(kind):
    from spikingjelly.clock_driven import functional, layer, neuron

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.node = nn.Conv2d(2, 4, 3), getattr(neuron, f"{kind}Node")()
            self.drop, self.b = layer.Dropout(0.5), nn.Linear(144, 10)
            self.last = neuron.LIFNode(v_threshold=0.1, v_reset=None)

        def forward(self, x):
            return sum(self.last(self.b(self.drop(self.node(self.a(s)).flatten(1)))) for s in x)

    checked(Case(lambda: Loop().eval(), spikes, {"layout": "TN"}, reset=functional.reset_net))


@pytest.mark.skipif(not OLD, reason="a release without clock_driven")
def test_the_zoo_of_old():
    from spikingjelly.clock_driven import functional, neuron
    from spikingjelly.clock_driven.model import sew_resnet

    def build():
        return sew_resnet.multi_step_sew_resnet18(
            T=2, cnf="ADD", multi_step_neuron=neuron.MultiStepIFNode, num_classes=4
        ).eval()

    options = {"input_events": False, "timesteps": 2}
    case = Case(build, lambda: (torch.randn(1, 3, 32, 32),), options, reset=functional.reset_net)
    assert sum(checked(case).values()) > 0


@pytest.mark.skipif(not NEW, reason="a release without activation_based")
@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("kind", ["IF", "LIF", "ParametricLIF", "KLIF", "EIF", "Izhikevich"])
def test_neurons_of_both_modes(kind, mode):
    from spikingjelly.activation_based import functional, layer, neuron

    node = getattr(neuron, f"{kind}Node")

    def build():
        model = nn.Sequential(
            layer.Conv2d(2, 4, 3, padding=1),
            layer.BatchNorm2d(4),
            node(v_threshold=0.3, detach_reset=True),
            layer.AvgPool2d(2),
            layer.Conv2d(4, 4, 3),
            node(),
            layer.Flatten(),
            layer.Linear(16, 4),
        ).eval()
        functional.set_step_mode(model, mode)
        return model

    def inputs():
        return spikes() if mode == "m" else (spikes()[0][0],)

    layout = {"layout": "TN" if mode == "m" else "N"}
    assert checked(Case(build, inputs, layout, reset=functional.reset_net))["4"] > 0


def test_a_surrogate_that_gives_both_signs():
    if NEW:
        from spikingjelly.activation_based import functional, neuron
    else:
        from spikingjelly.clock_driven import functional, neuron

    torch.manual_seed(0)
    node = neuron.IFNode(v_threshold=0.3, surrogate_function=lambda x: torch.sign(x))
    model = nn.Sequential(nn.Linear(6, 5), node, nn.Linear(5, 4))
    x = (torch.rand(3, 6) < 0.5).float()
    counter = fxsynops.SynOpsCounter(model, x)
    functional.reset_net(model)
    emitted = []
    model[1].register_forward_hook(lambda m, args, out: emitted.append(out.detach()))
    counter(x)
    assert float(emitted[-1].min()) == -1
    assert float(counter.per_synapse["2"].detach()) == float(emitted[-1].abs().sum()) * 4
