"""brevitas' layers with quantized weights, around spikes (needs brevitas and its dependencies)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from tests.outcome import Case, count

qnn = pytest.importorskip("brevitas.nn")

pytestmark = pytest.mark.filterwarnings("ignore")


def network(bits=4, **options):
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantConv2d(2, 3, 3, padding=1, weight_bit_width=bits, **options),
        fnn.NeuromorphicReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(48, 5, bias=True, weight_bit_width=bits, **options),
    )
    nn.init.uniform_(model[0].weight, -0.3, 0.6)
    return model


def spikes(n=3):
    return (torch.rand(n, 2, 8, 8) < 0.4).float()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("training", [True, False])
def test_layers_of_quantized_weights_are_counted_exactly(bits, training):
    case = Case(lambda: network(bits).train(training), lambda: (spikes(),), units={"4": 0.25})
    outcome = count(case)
    assert outcome.synops == outcome.expected_synops
    assert outcome.macs == outcome.expected_macs == {}
    assert set(outcome.synops) == {"0", "4"}
    assert outcome.same_output
    again, model = spikes(5), outcome.counter.model
    assert torch.equal(outcome.counter(again), model(again))
    assert torch.equal(outcome.counter(again), model(again))


def test_weights_that_quantization_makes_zero_are_no_synapses():
    model, x = network(2).eval(), spikes()
    counter = fxsynops.SynOpsCounter(model, (x,), weights="nonzero")
    counter(x)
    weight = model[0].quant_weight().value
    here = (weight != 0).double()
    assert 0 < here.mean() < 1
    assert counter.per_synapse["0"] == F.conv2d(x.double(), here, padding=1).sum()
    there = (model[4].quant_weight().value != 0).double()
    events = model[2](model[1](model[0](x))).flatten(1).double() / 0.25
    assert counter.per_synapse["4"] == F.linear(events, there).sum()


def test_gradients_are_the_models_own():
    def run(counted):
        model = network()
        torch.manual_seed(1)
        x = spikes()
        call = fxsynops.SynOpsCounter(model, (x,)) if counted else model
        y = call(x) + call(x)
        y.square().sum().backward()
        return [y, *(p.grad for p in model.parameters())]

    ours, theirs = run(True), run(False)
    assert len(ours) == len(theirs) == 5
    assert all(map(torch.equal, ours, theirs))


def test_inputs_that_are_quantized_too_are_counted_in_levels():
    """As behind any other rounding: nothing is dropped, and no level is taken for one event."""
    quantizer = pytest.importorskip("brevitas.quant").Int8ActPerTensorFloat
    layer = qnn.QuantLinear(6, 5, bias=True, input_quant=quantizer).eval()
    for level, largest in ((64, 2.0), (127, 1.0)):  # of ±128 / largest, and 127 at most
        layer.input_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl.buffer.fill_(
            largest
        )
        x = (torch.rand(3, 6) < 0.5).float()
        counter = fxsynops.SynOpsCounter(nn.Sequential(fnn.NeuromorphicReLU(), layer), (x,))
        counter(x)
        assert counter.synops == 5 * level * x.sum()
