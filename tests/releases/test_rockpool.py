"""rockpool's torch back end, counted and recomputed: ``PYTHONPATH=…/rockpool-3.1.0``."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F

import fxsynops
from tests.releases.recomputed import counted, equal, recompute

pytest.importorskip("rockpool")
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says what else could be installed
    from rockpool.nn.combinators import FFwdStack, Residual, Sequential
    from rockpool.nn.modules import (
        ExpSynTorch,
        InstantTorch,
        LIFBitshiftTorch,
        LIFNeuronTorch,
        LIFTorch,
        LinearTorch,
        RateTorch,
        TorchModule,
        UpDownTorch,
        aLIFTorch,
    )
    from rockpool.nn.modules.torch.dropout import TimeStepDropout, UnitDropout
    from rockpool.nn.modules.torch.lif_torch import PeriodicExponential
    from rockpool.nn.networks import SynNet, WaveSenseNet


def ones(module, x, output):
    found = {}
    if isinstance(module, LinearTorch | torch.nn.Linear) and torch.equal(x, x.round()):
        found[""] = F.linear(x, torch.ones_like(module.weight.reshape(-1, x.shape[-1])).double())
    if isinstance(module, LIFTorch | aLIFTorch) and module._has_rec:
        found["w_rec"] = output.double().sum() * module.size_in
    if isinstance(module, aLIFTorch):
        found["w_ahp"] = output.double().sum()
    return found


def spikes(*size):
    return (torch.rand(*size) < 0.5).float()


def layers(*neurons, n=5):
    parts = []
    for i, neuron in enumerate(neurons):
        weights = LinearTorch((4 if i == 0 else n, n), has_bias=False)
        weights.weight.data += 0.2
        parts += [weights, neuron]
    return Sequential(*parts, LinearTorch((n, 3), has_bias=True))


class Mine(TorchModule):
    """A network of the user's, with its own forward."""

    def __init__(self):
        super().__init__(shape=(4, 3))
        self.a = LinearTorch((4, 5))
        self.spk = LIFTorch(5, threshold=0.3)
        self.b = LinearTorch((5, 3))

    def forward(self, x):
        y, _, _ = self.a(x)
        y, _, _ = self.spk(y)
        return self.b(y)[0] + self.b(y.flip(-1))[0]


def from_torch():
    return Sequential(
        torch.nn.Linear(4, 5, bias=False), LIFTorch(5, threshold=0.1), LinearTorch((5, 2))
    )


MOST = torch.tensor(31)
MODELS = {
    "LIFTorch": lambda: layers(LIFTorch(5), LIFTorch(5)),
    "low threshold, many spikes": lambda: layers(LIFTorch(5, threshold=0.05), LIFTorch(5)),
    "capped": lambda: layers(LIFTorch(5, threshold=0.01, max_spikes_per_dt=torch.tensor(2.0))),
    "recurrent": lambda: layers(LIFTorch(5, threshold=0.2, has_rec=True)),
    "two synapses": lambda: Sequential(
        LinearTorch((4, 10)), LIFTorch((10, 5), threshold=0.1, has_rec=True), LinearTorch((5, 3))
    ),
    "decays": lambda: layers(LIFTorch(5, leak_mode="decays", threshold=0.1)),
    "bitshifts": lambda: layers(LIFTorch(5, leak_mode="bitshifts", threshold=0.1)),
    "PeriodicExponential": lambda: layers(
        LIFTorch(5, threshold=0.1, spike_generation_fn=PeriodicExponential)
    ),
    "bitshift": lambda: layers(LIFBitshiftTorch(5, threshold=0.1, max_spikes_per_dt=MOST)),
    "aLIFTorch": lambda: layers(aLIFTorch(5, threshold=0.1), aLIFTorch(5, has_rec=True)),
    "LIFNeuronTorch": lambda: layers(LIFNeuronTorch(5, threshold=0.3)),
    "ExpSynTorch": lambda: Sequential(
        LinearTorch((4, 5)), ExpSynTorch(5), LIFNeuronTorch(5, threshold=0.2), LinearTorch((5, 3))
    ),
    "InstantTorch": lambda: layers(LIFTorch(5, threshold=0.1), InstantTorch(5, torch.relu)),
    "UpDownTorch": lambda: Sequential(UpDownTorch(4, 0.1, 0.1), LinearTorch((8, 3))),
    "RateTorch": lambda: layers(LIFTorch(5, threshold=0.1), RateTorch(5)),
    "UnitDropout": lambda: Sequential(
        LinearTorch((4, 5)), LIFTorch(5, threshold=0.05), UnitDropout(5, p=0.0), LinearTorch((5, 3))
    ),
    "TimeStepDropout": lambda: Sequential(
        LinearTorch((4, 5)), LIFTorch(5, threshold=0.05), TimeStepDropout(5), LinearTorch((5, 3))
    ),
    "Residual": lambda: Sequential(
        LinearTorch((4, 5)),
        LIFTorch(5, threshold=0.1),
        Residual(LinearTorch((5, 5)), LIFTorch(5, threshold=0.2)),
        LinearTorch((5, 3)),
    ),
    "own forward": Mine,
    "from torch": lambda: Sequential(
        torch.nn.Linear(4, 5, bias=False), LIFTorch(5, threshold=0.1), LinearTorch((5, 2))
    ),
    "to torch": lambda: Mine().to_torch(),
    "SynNet": lambda: SynNet(3, 4, [6, 5], [2, 2], threshold=0.1),
    "SynNet, membrane": lambda: SynNet(3, 4, [6], [2], output="vmem", threshold=0.1),
    "SynNet, dropout": lambda: SynNet(3, 4, [6], [2], p_dropout=0.3, threshold=0.1),
    "WaveSenseNet": lambda: WaveSenseNet(
        [2, 4], 3, 4, n_channels_res=5, n_channels_skip=6, n_hidden=7, threshold=0.05
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_counts_are_those_of_the_synapses_done_again_with_ones(name):
    model = MODELS[name]()
    twin, x = copy.deepcopy(model), spikes(2, 8, 4)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    for _ in range(2):  # the second pass goes on from the states of the first
        torch.manual_seed(1)
        y = counter(x)
        torch.manual_seed(1)
        expected, synops = recompute(twin, x, ones)
        assert equal(y, expected)
        assert counted(counter) == synops
        assert len(synops) > 1 or name == "UpDownTorch"


def test_a_stack_has_weights_of_its_own_between_its_layers():
    neurons = LIFTorch(4, threshold=0.1), LIFTorch(5)
    x, emitted = spikes(2, 8, 4), []
    counter = fxsynops.SynOpsCounter(FFwdStack(*neurons, weight_init_func=torch.rand), x)
    neurons[0].register_forward_hook(lambda m, a, y: emitted.append(float(y.detach().sum())))
    counter(x)
    assert list(counted(counter).values()) == [emitted[-1] * 5]


def test_dropped_spikes_are_counted_whole():
    dropout, x, passed = UnitDropout(5, p=0.5), spikes(2, 8, 4), []
    neuron = LIFTorch(5, threshold=0.05)
    model = Sequential(LinearTorch((4, 5)), neuron, dropout, LinearTorch((5, 3)))
    dropout.register_forward_hook(lambda m, a, y: passed.append(float(y.detach().sum()) / 2))
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    assert counted(counter)["3_LinearTorch"] == passed[-1] * 3


@pytest.mark.parametrize("name", ["recurrent", "aLIFTorch", "LIFNeuronTorch", "ExpSynTorch"])
def test_what_is_recorded_is_what_the_model_records(name):
    model = MODELS[name]()
    twin, x = copy.deepcopy(model), spikes(2, 8, 4)
    counter = fxsynops.SynOpsCounter(model, (x, True), layout="NT")
    for _ in range(2):
        (y, state, record), expected = counter(x, True), twin(x, True)
        assert equal((y, state, record), expected)
        assert record.keys() == expected[2].keys()


def test_other_batches():
    model = MODELS["recurrent"]()
    twin, counter = copy.deepcopy(model), fxsynops.SynOpsCounter(model, spikes(2, 8, 4))
    for x in (spikes(2, 8, 4), spikes(3, 8, 4), spikes(1, 8, 4)):
        expected, synops = recompute(twin, x, ones)
        assert equal(counter(x), expected)
        assert counted(counter) == synops


def test_gradients_are_the_models_own():
    model, x = MODELS["aLIFTorch"](), spikes(2, 8, 4)
    twin, counter = copy.deepcopy(model), fxsynops.SynOpsCounter(model, x)
    counter(x)[0].square().sum().backward()
    twin(x)[0].square().sum().backward()
    ours = {name: p.grad for name, p in model.named_parameters()}
    assert sum(g is not None and bool(g.any()) for g in ours.values()) > 5
    for name, p in twin.named_parameters():
        assert (p.grad is None) == (ours[name] is None)
        assert p.grad is None or torch.equal(p.grad, ours[name])


def test_measuring_starts_each_batch_afresh():
    model, x = MODELS["recurrent"](), spikes(4, 8, 4)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    twice = counter.measure([x, x])
    model.reset_state()
    counter.clear()
    counter(x)
    assert twice.total == 2 * counter.counts.total
    assert any(bool(v.any()) for v in model[1].state().values())


BOUNDED = {
    "LIFTorch": lambda: LIFTorch(5, threshold=0.3),
    "trained": lambda: LIFTorch(
        5, threshold=torch.rand(5) + 0.1, tau_mem=torch.rand(5) / 50, bias=torch.randn(5) / 20
    ),
    "decays": lambda: LIFTorch(5, leak_mode="decays", threshold=0.2),
    "recurrent": lambda: LIFTorch(5, has_rec=True, threshold=0.5),
    "bitshift": lambda: LIFBitshiftTorch(5, max_spikes_per_dt=MOST, threshold=2.0),
    "aLIFTorch": lambda: aLIFTorch(5, has_rec=True, threshold=0.4),
    "LIFNeuronTorch": lambda: LIFNeuronTorch(5, threshold=0.3, bias=torch.randn(5) / 10),
}


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("warm", [False, True])
def test_the_charge_bound_holds_and_is_not_the_cap(name, warm):
    for seed in range(6):
        torch.manual_seed(seed)
        model = Sequential(LinearTorch((4, 5)), BOUNDED[name](), LinearTorch((5, 3)))
        if warm:  # from the states that another input has left
            model(torch.rand(1, 5, 4))
        counter = fxsynops.SynOpsCounter(model, spikes(2, 8, 4), layout="NT")
        bound = counter.analysis.upper_bound()
        assert bound.charge < bound.structural
        for x in (torch.ones(2, 8, 4), spikes(2, 8, 4), torch.zeros(2, 8, 4)):
            twin = copy.deepcopy(model)
            _, synops = recompute(twin, x, ones)
            assert sum(synops.values()) <= 2 * bound.charge


def test_what_no_bound_is_known_for():
    for neuron, cap in [
        (LIFTorch(5, noise_std=0.1), 2.0**16),
        (LIFTorch((10, 5), max_spikes_per_dt=torch.tensor(3)), 3),
    ]:
        model = Sequential(LinearTorch((4, neuron.size_in)), neuron, LinearTorch((5, 3)))
        x = spikes(2, 8, 4)
        bound = fxsynops.analyze(model, x, layout="NT").upper_bound()
        assert bound.charge == bound.structural == 8 * (4 * neuron.size_in + cap * 5 * 3)


def test_spikes_of_the_users_own_function_may_be_anything():
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v, *rest):
            return (v > 0.1) * -0.5

    neuron = LIFTorch(5, spike_generation_fn=Half)
    model = Sequential(LinearTorch((4, 5)), neuron, LinearTorch((5, 3)))
    counter = fxsynops.SynOpsCounter(model, torch.zeros(2, 8, 4))
    model[0].weight.data.fill_(1.0)
    fired = []
    neuron.register_forward_hook(lambda *args: fired.append(args[2].detach()))
    counter(torch.ones(2, 8, 4))
    events = (fired[-1] != 0).sum()  # each of them is worth -0.5, and is one
    assert float(list(counter.per_synapse.values())[-1].detach()) == float(events * 3) > 0


def test_recurrent_modules_of_torch_are_still_known_behind_rockpools_class():
    cell = torch.nn.LSTM(4, 5)
    TorchModule.from_torch(cell, retain_torch_api=True)
    x = spikes(3, 2, 4)
    analysis = fxsynops.analyze(cell, x)
    assert [c.synapse for c in analysis.connections] == ["weight_ih_l0"]
    assert [d.synapse for d in analysis.dense] == ["weight_hh_l0"]
