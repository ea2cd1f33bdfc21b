"""lava-dl's slayer, counted and recomputed: ``PYTHONPATH=…/lava-dl/src``."""

from __future__ import annotations

import copy
import warnings
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import fxsynops
from tests.releases.recomputed import counted, equal, recompute
from tests.releases.stubs import stand_in

if find_spec("lava") is None:
    pytest.skip("lava-dl is not installed", allow_module_level=True)

stand_in("cv2", "h5py", "torchvision", "torchvision.transforms")  # for pictures, and files
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lava.lib.dl.slayer as slayer
except ImportError:
    pytest.skip("lava-dl is not there", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")

BASE = {"threshold": 0.3, "requires_grad": True}
CUBA = BASE | {"current_decay": 0.25, "voltage_decay": 0.1}
ALIF = CUBA | {"threshold_decay": 0.2, "refractory_decay": 0.3, "threshold_step": 0.1}
RF = BASE | {"threshold": 0.1, "period": 4, "decay": 0.1}
ADRF = RF | {"threshold_decay": 0.2, "refractory_decay": 0.3, "threshold_step": 0.1}
SIGMA = {"threshold": 0.1, "activation": torch.nn.functional.relu}
block = slayer.block


def ones(module, x, output):
    if isinstance(module, slayer.synapse.layer.GenericLayer):
        if not torch.equal(x, x.round()):
            return {}
        twin = copy.copy(module)  # nothing of it is changed in place
        twin._pre_hook_fx = lambda weight: torch.ones_like(weight).double()
        return {"": type(module).forward(twin, x)}
    return {}


def chain(*blocks):
    return nn.Sequential(*blocks)


def dense(kind, params, **more):
    return chain(kind.Dense(params, 6, 8, **more), kind.Dense(params, 8, 5, weight_scale=2))


def pictures(kind, params, **more):
    return chain(
        kind.Conv(params, 2, 4, 3, padding=1, weight_scale=2, **more),
        kind.Pool(params, 2),
        kind.Conv(params, 4, 4, 3, stride=2, groups=2),
        kind.ConvT(params, 4, 2, 2, stride=2),
        kind.Unpool(params, 2),
        kind.Flatten(),
        kind.Dense(params, 2 * 12 * 12, 5),
    )


FLAT, IMAGE = (6, 12), (2, 14, 14, 5)
MODELS = {
    "cuba": (FLAT, lambda: dense(block.cuba, CUBA)),
    "cuba, delays": (FLAT, lambda: dense(block.cuba, CUBA, delay=True)),
    "cuba, no shift": (FLAT, lambda: dense(block.cuba, CUBA, delay_shift=False)),
    "cuba, weight norm": (FLAT, lambda: dense(block.cuba, CUBA, weight_norm=True)),
    "cuba, mask": (FLAT, lambda: dense(block.cuba, CUBA, mask=torch.rand(8, 6) < 0.5)),
    "cuba, own parameters": (FLAT, lambda: dense(block.cuba, CUBA | {"shared_param": False})),
    "cuba, persistent": (FLAT, lambda: dense(block.cuba, CUBA | {"persistent_state": True})),
    "cuba, batch norm": (FLAT, lambda: dense(
        block.cuba, CUBA | {"norm": slayer.neuron.norm.MeanOnlyBatchNorm})),
    "cuba, pictures": (IMAGE, lambda: pictures(block.cuba, CUBA)),
    "cuba, input": (FLAT, lambda: chain(block.cuba.Input(CUBA, 0.5), dense(block.cuba, CUBA))),
    "cuba, affine": (FLAT, lambda: chain(dense(block.cuba, CUBA), block.cuba.Affine(CUBA, 5, 3))),
    "cuba, recurrent": (FLAT, lambda: chain(
        block.cuba.Recurrent(dict(CUBA), 6, 8), block.cuba.Dense(CUBA, 8, 5))),
    "alif": (FLAT, lambda: dense(block.alif, ALIF)),
    "alif, persistent": (FLAT, lambda: dense(block.alif, ALIF | {"persistent_state": True})),
    "alif, pictures": (IMAGE, lambda: pictures(block.alif, ALIF)),
    "rf": (FLAT, lambda: dense(block.rf, RF)),
    "rf_iz": (FLAT, lambda: dense(block.rf_iz, RF)),
    "adrf": (FLAT, lambda: dense(block.adrf, ADRF)),
    "average": (FLAT, lambda: chain(dense(block.cuba, CUBA), block.cuba.Average(5))),
}  # fmt: skip


def spikes(*size):
    return (torch.rand(2, *size) < 0.5).float()


def made(build, x):
    """A model after its first call, which makes shapes and delays."""
    model = build()
    with torch.no_grad():
        model(x)
    return model


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()  # a persistent state cannot be delayed with a gradient
def test_counts_are_those_of_the_synapses_done_again_with_ones(name):
    size, build = MODELS[name]
    x = spikes(*size)
    model = made(build, x)
    twin, counter = copy.deepcopy(model), fxsynops.SynOpsCounter(model, x)
    for _ in range(2):
        y = counter(x)
        expected, synops = recompute(twin, x, ones)
        assert equal(y, expected)
        assert {k: n for k, n in counted(counter).items() if "recurrent" not in k} == synops
        assert len(synops) > 1


@torch.no_grad()
def test_each_recurrent_spike_reaches_all_neurons_of_its_layer():
    size, build = MODELS["cuba, recurrent"]
    x, emitted = spikes(*size), []
    model = made(build, x)
    model[0].register_forward_hook(lambda m, a, y: emitted.append(float(y.sum())))
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    assert counted(counter)["0.recurrent_synapse"] == emitted[-1] * 8 > 0


@torch.no_grad()
def test_winners_take_all():
    x = spikes(*FLAT)
    model = made(lambda: chain(block.cuba.KWTA(dict(CUBA), 6, 8, 2), dense_of(8)), x)
    counter = fxsynops.SynOpsCounter(model, x)
    expected, synops = recompute(copy.deepcopy(model), x, ones)
    assert equal(counter(x), expected)
    assert synops.items() <= counted(counter).items()


def dense_of(n):
    return block.cuba.Dense(CUBA, n, 5)


def test_other_batches():
    for name in ("cuba", "cuba, delays", "alif"):
        size, build = MODELS[name]
        x = spikes(*size)
        model = made(build, x)
        twin, counter = copy.deepcopy(model), fxsynops.SynOpsCounter(model, x)
        for more in (torch.cat([x, x, x]), x[:1]):
            expected, synops = recompute(twin, more, ones)
            assert equal(counter(more), expected)
            assert counted(counter) == synops


def test_learned_delays_may_change_between_passes():
    size, build = MODELS["cuba, delays"]
    x = spikes(*size)
    model = made(build, x)
    counter = fxsynops.SynOpsCounter(model, x)
    for late in (0.0, 3.4):
        model[0].delay.delay.data.fill_(late)
        expected, synops = recompute(copy.deepcopy(model), x, ones)
        assert equal(counter(x), expected)
        assert counted(counter) == synops


@pytest.mark.parametrize("name", ["cuba", "cuba, delays", "cuba, weight norm", "alif", "rf"])
def test_gradients_are_the_models_own(name):
    size, build = MODELS[name]
    x = spikes(*size)
    model = made(build, x)
    twin, counter = copy.deepcopy(model), fxsynops.SynOpsCounter(model, x)
    counter(x).square().sum().backward()
    twin(x).square().sum().backward()
    ours = {name: p.grad for name, p in model.named_parameters()}
    assert any(g is not None and bool(g.any()) for g in ours.values())
    for name, p in twin.named_parameters():
        assert (p.grad is None) == (ours[name] is None)
        assert p.grad is None or torch.equal(p.grad, ours[name])


def test_dropout_does_not_change_what_a_spike_counts():
    x, seen = spikes(*FLAT), []
    model = made(lambda: dense(block.cuba, CUBA | {"dropout": slayer.neuron.Dropout(0.3)}), x)
    model[0].neuron.register_forward_hook(lambda m, a, y: seen.append(y.detach()))
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    assert counted(counter)["1.synapse"] == float((seen[-1][..., :-1] > 0).sum()) * 5
    assert counter.counts.exact
    model.eval()
    counter(x)
    assert counted(counter)["1.synapse"] == float((seen[-1][..., :-1] > 0).sum()) * 5


GRADED = {
    "sigma-delta": (slayer.neuron.sigma_delta.Neuron, block.sigma_delta, SIGMA),
    "graded": (slayer.neuron.cuba.Neuron, block.cuba, CUBA | {"graded_spike": True}),
}


@pytest.mark.parametrize("name", GRADED)
def test_graded_spikes_are_analog_and_their_messages_can_be_counted(name):
    neuron, kind, params = GRADED[name]
    x = spikes(*FLAT)
    model = made(lambda: dense(kind, params), x)
    analysis = fxsynops.analyze(model, x)
    assert [c.synapse for c in analysis.connections] == ["0.synapse"]
    assert [d.synapse for d in analysis.dense] == ["1.synapse"]
    counter = fxsynops.SynOpsCounter(model, x, spiking=[neuron], events="nonzero")
    arrived = []
    model[1].synapse.register_forward_pre_hook(lambda m, a: arrived.append(a[0].detach()))
    counter = fxsynops.SynOpsCounter(model, x, spiking=[neuron], events="nonzero")
    counter(x)
    assert counted(counter)["1.synapse"] == float((arrived[-1] != 0).sum()) * 5 > 0


@torch.no_grad()
def test_measuring_starts_each_batch_afresh():
    for name in ("cuba, persistent", "alif, persistent", "cuba, recurrent"):
        size, build = MODELS[name]
        x = spikes(*size)
        counter = fxsynops.SynOpsCounter(made(build, x), x)
        once = counter.measure([x]).total
        assert counter.measure([x, x]).total == 2 * once


def test_a_spike_is_one_at_most_and_the_charge_bound_holds():
    for seed in range(8):
        torch.manual_seed(seed)
        more = {"shared_param": seed % 2 == 0, "threshold": 0.2 + seed / 5}
        x = spikes(*FLAT)
        model = made(lambda more=more: dense(block.cuba, CUBA | more), x)
        counter = fxsynops.SynOpsCounter(model, x)
        bound = counter.analysis.upper_bound()
        assert bound.charge <= bound.structural < float("inf")
        for more_x in (torch.ones_like(x), x, spikes(*FLAT)):
            counter(more_x)
            assert float(counter.synops.detach()) <= 2 * bound.charge
        assert bound.charge < bound.structural or seed < 5
