"""norse's cells and layers, from 0.0.7 on."""

from __future__ import annotations

import norse.torch as norse
import pytest
import torch
from torch import nn

import fxsynops
from tests.outcome import Case
from tests.releases.recomputed import checked

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS, SAMPLES = 6, 3
LOW = norse.LIFParameters(v_th=torch.tensor(0.01))
LAYERS = {
    "LIF": lambda: norse.LIF(p=LOW),
    "LSNN": lambda: norse.LSNN(p=norse.LSNNParameters(v_th=torch.tensor(0.01))),
    "LIFEx": lambda: norse.LIFEx(),
    "Izhikevich": lambda: norse.LIFAdEx(),
}


def inputs():
    return ((torch.rand(STEPS, SAMPLES, 8) < 0.9).float(),)


def network(layer, last=None):
    return norse.SequentialState(nn.Linear(8, 6), layer, nn.Linear(6, 4), last or norse.LI())


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    checked(Case(lambda: network(LAYERS[name]()), inputs, {"layout": "TN"}))


def test_recurrent_layers_count_what_their_neurons_emit():
    torch.manual_seed(0)
    model, (x,) = network(norse.LIFRecurrent(6, 6, p=LOW)), inputs()
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    emitted = []
    model[1].register_forward_hook(lambda m, args, out: emitted.append(out[0].detach()))
    counter(x)
    found = {name: float(n.detach()) for name, n in counter.per_synapse.items()}
    fired = float(emitted[-1].sum())
    assert fired > 0
    assert found["1.recurrent_weights"] == fired * 6
    assert found["2"] == fired * 4


def test_cells_in_a_loop():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.cell, self.b = nn.Linear(8, 6), norse.LIFCell(p=LOW), nn.Linear(6, 4)

        def forward(self, x):
            state, out = None, []
            for step in x:
                spikes, state = self.cell(self.a(step), state)
                out.append(self.b(spikes))
            return torch.stack(out)

    assert checked(Case(Loop, inputs, {"layout": "TN"}))["b"] > 0
