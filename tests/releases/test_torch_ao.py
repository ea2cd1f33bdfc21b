"""torch.ao's quantized layers around spikes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.nn import qat

import fxsynops
import fxsynops.nn as fnn
from tests.outcome import Case, count

pytestmark = pytest.mark.filterwarnings("ignore")


def spikes():
    return ((torch.rand(3, 2, 8, 8) < 0.4).float(),)


def prepared():
    """By torch's own preparation for training, which also quantizes what comes out."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3), fnn.IAF(), nn.Flatten(), nn.Linear(108, 5))
    nn.init.uniform_(model[0].weight, -0.3, 0.6)
    model = nn.Sequential(model[0], fnn.NeuromorphicReLU(), *model[2:]).train()
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(model)


def layers():
    config = quantization.get_default_qat_qconfig("fbgemm")
    model = nn.Sequential(
        qat.Conv2d(2, 3, 3, qconfig=config),
        fnn.NeuromorphicReLU(),
        nn.Flatten(),
        qat.Linear(108, 5, qconfig=config),
    )
    nn.init.uniform_(model[0].weight, -0.3, 0.6)
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [prepared, layers])
def test_fake_quantized_weights_are_counted_exactly(make, training):
    outcome = count(Case(lambda: make().train(training), spikes))
    assert outcome.synops == outcome.expected_synops
    assert outcome.macs == outcome.expected_macs == {}
    assert set(outcome.synops) == {"0", "3"}
    assert outcome.same_output


def dynamic():
    model = nn.Sequential(nn.Linear(6, 8), fnn.NeuromorphicReLU(), nn.Linear(8, 3))
    nn.init.constant_(model[0].weight, 0.4)
    return quantization.quantize_dynamic(model, {nn.Linear})


def test_dynamically_quantized_layers_have_packed_weights():
    model, x = dynamic(), (torch.rand(5, 6) < 0.5).float()
    counter = fxsynops.SynOpsCounter(model, (x,))
    assert torch.equal(counter(x), model(x))
    assert counter.per_synapse["0.weight"] == 8 * x.sum()
    assert counter.per_synapse["2.weight"] == 3 * model[:2](x).sum() > 0
    assert counter.analysis.upper_bound().rows[1].charge == torch.inf  # its inputs are rounded
    sparse = fxsynops.SynOpsCounter(model, (x,), weights="nonzero")
    sparse(x)
    assert sparse.synops == counter.synops


def test_what_is_not_known_is_refused_in_words():
    fake = nn.Sequential(fnn.NeuromorphicReLU(), quantization.FakeQuantize(), nn.Conv2d(2, 3, 3))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="fake_quantize"):
        fxsynops.analyze(fake, spikes())


class Fires(nn.Module):
    def forward(self, x):
        return (x > 0).float()


def converted():
    """Layers with whole-number weights between neurons in floating point."""

    def layer(inner):
        return nn.Sequential(quantization.QuantStub(), inner, quantization.DeQuantStub(), Fires())

    model = nn.Sequential(
        layer(nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="zeros")),
        layer(nn.Conv2d(3, 4, 3, groups=1, dilation=2)),
        nn.Flatten(),
        layer(nn.Linear(4 * 4 * 4, 5)),
    ).eval()
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    model = quantization.prepare(model)
    model((torch.rand(20, 2, 16, 16) < 0.5).float())
    return quantization.convert(model)


def test_converted_layers_have_packed_weights():
    torch.manual_seed(0)
    twin = converted()
    torch.manual_seed(0)
    model, x = converted(), (torch.rand(3, 2, 16, 16) < 0.4).float()
    counter = fxsynops.SynOpsCounter(model, x)
    arrived = {}
    for name in ("0.1", "1.1", "3.1"):
        twin.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: arrived.__setitem__(name, args[0].dequantize())
        )
    y = counter(x)
    found = {k.removesuffix(".weight"): float(v) for k, v in counter.per_synapse.items()}
    assert torch.equal(y, twin(x))
    ones = {
        "0.1": lambda e: nn.functional.conv2d(e, torch.ones(3, 2, 3, 3), stride=2, padding=1),
        "1.1": lambda e: nn.functional.conv2d(e, torch.ones(4, 3, 3, 3), dilation=2),
        "3.1": lambda e: nn.functional.linear(e, torch.ones(5, 64)),
    }
    events = {name: (value != 0).float() for name, value in arrived.items()}
    assert found == {name: float(ones[name](e).sum()) for name, e in events.items()}
    assert min(found.values()) > 0
