"""What one update of a neuron costs, by its type, against the equations of the libraries."""

from __future__ import annotations

import norse.torch as norse
import pytest
import sinabs.layers as sl
import snntorch
from spikingjelly.activation_based import neuron as sj

import fxsynops.nn as fnn
from fxsynops.neurons import Update, describe


@pytest.mark.parametrize(
    ("module", "update"),
    [
        (fnn.IAF(), Update(0, 0, 1, 1)),
        (fnn.NeuromorphicReLU(), Update(0, 0, 1, 0)),
        (sl.IAF(), Update(0, 0, 1, 1)),
        (sl.IAFSqueeze(batch_size=1), Update(0, 0, 1, 1)),
        (sl.LIF(tau_mem=9.0), Update(0, 1, 1, 1)),
        (sl.LIF(tau_mem=9.0, tau_syn=5.0), Update(1, 2, 1, 2)),  # i ← β·i, v ← α·v + i
        (sl.ALIF(tau_mem=9.0, tau_adapt=5.0), Update(1, 2, 1, 2)),  # b ← γ·b, θ + b
        (snntorch.Leaky(beta=0.9), Update(0, 1, 1, 1)),
        (snntorch.RLeaky(beta=0.9, linear_features=3), Update(0, 1, 1, 1)),
        (snntorch.Synaptic(alpha=0.9, beta=0.8), Update(1, 2, 1, 2)),
        (snntorch.Alpha(alpha=0.9, beta=0.8), Update(1, 3, 1, 3)),  # two filters and their mean
        (snntorch.SLSTM(4, 3), Update(1, 3, 1, 2)),
        (sj.IFNode(), Update(0, 0, 1, 1)),
        (sj.LIFNode(), Update(0, 1, 1, 1)),
        (sj.LIFNode(v_reset=-0.5), Update(1, 1, 1, 1)),
        (sj.ParametricLIFNode(), Update(0, 1, 1, 1)),
        (sj.KLIFNode(), Update(0, 2, 2, 1)),  # relu(k·v)
        (sj.CUBALIFNode(), Update(1, 2, 1, 2)) if hasattr(sj, "CUBALIFNode") else (None, None),
        (sj.QIFNode(), Update(3, 2, 1, 1)),
        (norse.LIFCell(), Update(1, 2, 1, 2)),
        (norse.LIFBoxCell(), Update(0, 1, 1, 1)),
        (norse.LSNNCell(), Update(2, 3, 1, 3)),
        (norse.LIFAdExCell(), Update(6, 5, 1, 3)),
        (norse.LICell(), Update(1, 2, 0, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_update_is_that_of_the_neurons_equations(module, update):
    if module is None:
        pytest.skip("this release has no such neuron")
    known = describe(module)
    assert known is not None
    assert known.update_of(module) == update


def test_a_type_that_is_not_known_says_nothing():
    assert describe(sj.IFNode()).update_of(None) is None
    assert Update(1, 2, 3, 4) + Update(1) == Update(2, 2, 3, 4)
    assert Update(1, 2, 3, 4) * 2 == Update(2, 4, 6, 8)
