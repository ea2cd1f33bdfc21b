"""snntorch as its tutorials of all releases use it, from 0.5 on."""

from __future__ import annotations

import inspect

import pytest
import snntorch
import torch
from snntorch import utils
from torch import nn

import fxsynops
from fxsynops.neurons import reset_states
from tests.outcome import Case
from tests.releases.recomputed import checked

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS, SAMPLES = 4, 3
NEURONS = {
    "Leaky": {"beta": 0.8, "threshold": 0.3},
    "Synaptic": {"alpha": 0.9, "beta": 0.8, "threshold": 0.3},
    "Lapicque": {"beta": 0.8, "threshold": 0.3},
    "Alpha": {"alpha": 0.9, "beta": 0.8, "threshold": 0.05},
}


def first_states(neuron: nn.Module) -> list:
    """``init_leaky()`` of old, ``reset_mem()`` since 0.8."""
    name = f"init_{type(neuron).__name__.lower()}"
    states = getattr(neuron, name)() if hasattr(neuron, name) else neuron.reset_mem()
    return list(states) if isinstance(states, tuple) else [states]


class Loop(nn.Module):
    """A network over time, with states that its forward makes and hands on."""

    def __init__(self, neuron, hands_on_spikes=False):
        super().__init__()
        self.a, self.neuron, self.b = nn.Linear(8, 6), neuron, nn.Linear(6, 4)
        self.last, self.hands_on_spikes = snntorch.Leaky(beta=0.5), hands_on_spikes

    def forward(self, x):
        states, last, out = first_states(self.neuron), first_states(self.last), []
        for step in x:
            found = self.neuron(self.a(step), *states)
            states = list(found if self.hands_on_spikes else found[1:])
            spikes, *last = self.last(self.b(found[0]), *last)
            out.append(spikes)
        return torch.stack(out)


def spikes(*shape):
    return (torch.rand(shape) < 0.5).float()


def inputs():
    return (spikes(STEPS, SAMPLES, 8),)


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_neurons_whose_states_are_handed_on(kind, reset):
    reset = "zero" if kind == "Alpha" else reset
    options = NEURONS[kind] | {"reset_mechanism": reset}
    case = Case(lambda: Loop(getattr(snntorch, kind)(**options)), inputs, {"layout": "TN"})
    assert checked(case)["b"] > 0


def test_neurons_that_hide_their_states():
    def build():
        return nn.Sequential(
            nn.Linear(8, 6),
            snntorch.Leaky(beta=0.9, threshold=0.2, init_hidden=True),
            nn.Linear(6, 4),
            snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
        )

    found = checked(Case(build, lambda: (spikes(SAMPLES, 8),), reset=reset_states))
    assert found["2"] > 0


def test_recurrent_neurons():
    options = {"beta": 0.8, "threshold": 0.3}
    if "all_to_all" in inspect.signature(snntorch.RLeaky).parameters:
        options |= {"all_to_all": False}
    else:
        options |= {"V": 0.4}
    torch.manual_seed(0)
    model, (x,) = Loop(snntorch.RLeaky(**options), hands_on_spikes=True), inputs()
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    counter(x)
    found = {name: float(n.detach()) for name, n in counter.per_synapse.items()}
    assert found["neuron.recurrent"] == found["b"] / 4 > 0  # one neuron, itself


def test_a_subclass_with_a_surrogate_of_its_own():
    class Ternary(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.sign(x) * (x.abs() > 0.1)

        @staticmethod
        def backward(ctx, grad):
            return grad

    torch.manual_seed(0)
    neuron = snntorch.Leaky(beta=0.8, threshold=0.0, spike_grad=Ternary.apply)
    model, (x,) = Loop(neuron), inputs()
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    emitted = []
    neuron.register_forward_hook(lambda m, args, out: emitted.append(out[0].detach()))
    counter(x)
    assert min(float(s.min()) for s in emitted) == -1
    found = float(counter.per_synapse["b"].detach())
    assert found == sum(float(s.abs().sum()) for s in emitted) * 4


class Resets(nn.Module):
    """As the library's tutorials write it."""

    def __init__(self):
        super().__init__()
        neuron = snntorch.Leaky(beta=0.8, init_hidden=True)
        self.net = nn.Sequential(nn.Linear(8, 5), neuron, nn.Linear(5, 3))

    def forward(self, x):
        utils.reset(self.net)
        return torch.stack([self.net(step) for step in x])


@pytest.mark.parametrize("warm", [False, True])
def test_states_that_the_forward_resets(warm):
    torch.manual_seed(0)
    model, x, other = Resets(), torch.rand(4, 2, 8) * 5, torch.rand(4, 2, 8) * 5
    if warm:
        model(other)
    counter, fired = fxsynops.SynOpsCounter(model, x, layout="TN", input_events=False), []
    for value in (x, other, x):
        y = counter(value)
        counted = float(counter.synops.detach())
        hook = model.net[1].register_forward_hook(lambda *args: fired.append(float(args[2].sum())))
        fired.clear()
        assert torch.equal(y, model(value))
        hook.remove()
        assert counted == sum(fired) * 3 > 0


def test_a_bound_of_a_model_that_resets_its_states():
    x = (torch.rand(4, 2, 8) < 0.5).float()
    counter = fxsynops.SynOpsCounter(Resets(), x, layout="TN")
    counter(x)
    assert float(counter.synops.detach()) / 2 <= counter.analysis.upper_bound().total
