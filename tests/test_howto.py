"""Both networks of the sinabs how-to, end to end."""

from __future__ import annotations

import pytest
import sinabs.layers as sl
import torch
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from tests import howto

both = pytest.mark.parametrize("library", howto.LIBRARIES)


def spikes() -> torch.Tensor:
    return (torch.rand(5, 10, 1, 28, 28) < 0.3).float()


@both
def test_the_spiking_lenet_has_the_published_synops(library):
    torch.manual_seed(1)
    model = howto.snn(howto.LIBRARIES[library], pooling="sum")
    counter = fxsynops.SynOpsCounter(model, torch.ones(5, 10, 1, 28, 28), layout="NT")
    counter(torch.ones(5, 10, 1, 28, 28))
    counts = {name: int(value.detach()) for name, value in counter.per_synapse.items()}
    assert counts == {"1": 11_520_000, "4": 45_056_000, "7": 4_416_000, "10": 36_550}


@both
def test_the_nominal_fanouts_are_the_howtos(library):
    analysis = fxsynops.analyze(howto.snn(howto.LIBRARIES[library]), spikes(), layout="NT")
    assert [c.fanout.nominal for c in analysis.connections] == [400, 800, 1920, 10]
    assert analysis.connections[0].fanout.mean == pytest.approx(16 * (24 * 24 * 25) / (28 * 28))


@both
def test_the_snn_prints_the_howtos_table(library):
    model = howto.amplify(howto.snn(howto.LIBRARIES[library]), 3)
    x = spikes()
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", dt=2.0)
    counter(x)
    rows = counter.counts.to_rows()
    assert [row["Layer"] for row in rows] == ["1", "4", "7", "10"]
    assert rows[0]["In"] == int(x.sum())
    for row in rows:
        assert row["SynOps"] > 0
        assert row["N. timesteps"] == 10
        assert row["Time window (ms)"] == 20.0
        assert row["SynOps/s"] == pytest.approx(row["SynOps"] / (5 * 0.020))
        assert row["SynOps (nominal)"] == row["In"] * row["Fanout_Prev"]
    table = str(counter.counts)
    for column in ("In", "Fanout_Prev", "SynOps", "N. timesteps", "Time window (ms)", "SynOps/s"):
        assert column in table
    assert f"{counter.counts.total:,}" in table


@both
def test_the_ann_counts_its_image_as_macs_and_the_rest_as_synops(library):
    model = howto.amplify(howto.ann(howto.LIBRARIES[library]), 5)
    image = torch.rand(5, 1, 28, 28)
    counter = fxsynops.SynOpsCounter(model, image, input_events=False)
    assert torch.equal(counter(image), model(image))
    assert [(d.synapse, d.macs) for d in counter.analysis.dense] == [("0", 24 * 24 * 25 * 16)]
    assert list(counter.per_synapse) == ["3", "6", "9"]
    assert all(value > 0 for value in counter.per_synapse.values())


@both
@pytest.mark.parametrize("kind", ["ann", "snn"])
def test_a_few_adam_steps_lower_the_count(library, kind):
    layers = howto.LIBRARIES[library]
    if kind == "snn":
        model, x, options = howto.amplify(howto.snn(layers), 3), spikes(), {"layout": "NT"}
    else:
        model = howto.amplify(howto.ann(layers), 5)
        x, options = torch.rand(5, 1, 28, 28), {"input_events": False}
    counter = fxsynops.SynOpsCounter(model, x, **options)
    optimizer = torch.optim.Adam(counter.parameters(), lr=1e-3)
    history = []
    target = None
    for _ in range(5):
        howto.reset(model)
        counter(x)
        synops = counter.synops
        target = synops.detach() / 2 if target is None else target
        loss = ((target - synops) / target).square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(synops.detach()))
    assert history == sorted(history, reverse=True)
    assert history[-1] < history[0]


@pytest.mark.parametrize("cap", [None, 1, 3])
@pytest.mark.parametrize("minimum", [None, -1.0])
def test_iaf_spikes_like_sinabs(cap, minimum):
    import sinabs.activation as activation

    spike_fn = activation.MultiSpike if cap is None else activation.MaxSpike(cap)
    theirs = sl.IAF(spike_threshold=torch.tensor(0.7), spike_fn=spike_fn, min_v_mem=minimum)
    ours = fnn.IAF(spike_threshold=0.7, max_spikes_per_step=cap, min_v_mem=minimum)
    for _ in range(2):  # the membrane is kept between calls
        x = torch.randn(3, 20, 4, 5) * 2
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, z = ours(a), theirs(b)
        assert torch.equal(y, z)
        assert torch.allclose(ours.v_mem, theirs.v_mem)
        (y * x).sum().backward()
        (z * x).sum().backward()
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6)
        ours.v_mem = ours.v_mem.detach()
        theirs.v_mem = theirs.v_mem.detach()
    assert y.max() > 0
    ours.reset_states()
    assert ours.v_mem is None


def test_single_spikes_are_sinabs_single_spikes():
    import sinabs.activation as activation

    x = torch.rand(2, 15, 3)
    theirs = sl.IAFSqueeze(batch_size=2, spike_fn=activation.SingleSpike)
    ours = fnn.IAFSqueeze(batch_size=2, max_spikes_per_step=1)
    assert torch.equal(ours(x.flatten(0, 1)), theirs(x.flatten(0, 1)))


def test_neuromorphic_relu_floors_forward_and_passes_the_relus_gradient():
    x = (torch.randn(50) * 3).requires_grad_()
    y = fnn.NeuromorphicReLU()(x)
    assert torch.equal(y, x.relu().floor())
    y.sum().backward()
    assert torch.equal(x.grad, (x > 0).float())
    theirs = sl.NeuromorphicReLU()(x)
    assert torch.equal(y, theirs)
    assert torch.equal(fnn.NeuromorphicReLU(quantize=False)(x), x.relu())


def test_stochastic_rounding_is_right_on_average_and_whole():
    x = torch.full((20_000,), 1.3)
    y = fnn.NeuromorphicReLU(stochastic_rounding=True).train()(x)
    assert set(y.unique().tolist()) == {1.0, 2.0}
    assert abs(float(y.mean()) - 1.3) < 0.02
    assert torch.equal(fnn.NeuromorphicReLU(stochastic_rounding=True).eval()(x), x.round())


@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"ceil_mode": True}])
def test_sum_pool_is_sinabs_sum_pool(options):
    x = torch.randint(0, 3, (2, 3, 8, 8)).float()
    assert torch.allclose(fnn.SumPool2d(2, **options)(x), sl.SumPool2d(2, **options)(x))


def test_time_is_flattened_as_by_sinabs():
    x = torch.rand(3, 4, 5)
    assert torch.equal(fnn.FlattenTime()(x), sl.FlattenTime()(x))
    assert torch.equal(fnn.UnflattenTime(3)(fnn.FlattenTime()(x)), x)


@pytest.mark.parametrize("options", [{"spike_threshold": 0}, {"max_spikes_per_step": 0}])
def test_impossible_neurons_are_refused(options):
    with pytest.raises(fxsynops.InputError, match="must be"):
        fnn.IAF(**options)


def test_models_of_this_packages_layers_train_without_the_counter_too():
    model = nn.Sequential(nn.Linear(4, 4), fnn.IAF())
    model(torch.rand(2, 3, 4)).sum().backward()
    assert model[0].weight.grad is not None
