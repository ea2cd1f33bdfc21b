"""sinabs' layers, from 0.3 on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

np.product = getattr(np, "product", np.prod)  # which releases before 1.2 import

import sinabs.activation as sa  # noqa: E402
import sinabs.layers as sl  # noqa: E402

from fxsynops.neurons import reset_states  # noqa: E402
from tests.outcome import Case  # noqa: E402
from tests.releases.recomputed import checked  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS, SAMPLES = 4, 3


def theta(value: float) -> torch.Tensor:
    return torch.tensor(value)


LAYERS = {
    "IAF": lambda: sl.IAF(spike_threshold=theta(0.2)),
    "one spike": lambda: sl.IAF(spike_threshold=theta(0.2), spike_fn=sa.SingleSpike),
    "two spikes": lambda: sl.IAF(spike_threshold=theta(0.05), spike_fn=sa.MaxSpike(2)),
    "LIF": lambda: sl.LIF(tau_mem=20.0, spike_threshold=theta(0.02)),
    "ALIF": lambda: sl.ALIF(tau_mem=20.0, tau_adapt=20.0, spike_threshold=theta(0.02)),
    "LIFRecurrent": lambda: sl.LIFRecurrent(
        tau_mem=20.0, spike_threshold=theta(0.02), rec_connect=nn.Linear(6, 6)
    ),
    "ExpLeak": lambda: sl.ExpLeak(tau_mem=20.0),
}


def spikes(*shape):
    return (torch.rand(shape) < 0.5).float()


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    def build():
        return nn.Sequential(nn.Linear(8, 6), LAYERS[name](), nn.Linear(6, 4), sl.IAF())

    def inputs():
        return (spikes(SAMPLES, STEPS, 8),)

    found = checked(Case(build, inputs, {"layout": "NT"}, reset=reset_states))
    assert name == "ExpLeak" or found["2"] > 0


def test_squeezed_layers_and_quantized_rectifiers():
    def build():
        return nn.Sequential(
            nn.Conv2d(1, 2, 3),
            sl.IAFSqueeze(batch_size=SAMPLES, spike_threshold=theta(0.2)),
            sl.SumPool2d(2),
            nn.Conv2d(2, 2, 2),
            sl.NeuromorphicReLU(),
            nn.Flatten(),
            nn.Linear(8, 3),
        )

    options = {"layout": "(NT)", "batch_size": SAMPLES}
    case = Case(build, lambda: (spikes(SAMPLES * STEPS, 1, 8, 8),), options, reset=reset_states)
    assert checked(case)["3"] > 0
