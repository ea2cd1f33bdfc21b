"""Losses on SynOps: values by hand, derivatives by finite differences, clear errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import CountError, InputError
from fxsynops.losses import limit_loss, rate_ceiling_loss, rate_floor_loss, target_loss
from tests import howto


@pytest.fixture
def counted():
    """2 samples of 5 steps: 8 events of fan-out 3, then all 3 neurons fire, of fan-out 2."""
    model = nn.Sequential(nn.Linear(8, 3, bias=False), fnn.IAF(max_spikes_per_step=1))
    model.append(nn.Linear(3, 2))
    nn.init.constant_(model[0].weight, 1.0)
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 5, 8), layout="NT")
    counter(torch.ones(2, 5, 8))
    assert {k: float(v.detach()) for k, v in counter.per_synapse.items()} == {"0": 240, "2": 60}
    return counter


def test_the_relative_square_of_the_distance_to_a_target(counted):
    assert float(target_loss(counted, 30).detach()) == 0  # 300 in 10 sample steps
    assert float(target_loss(counted, 20).detach()) == 0.25
    assert float(target_loss(counted, 600, per="pass").detach()) == 0.25
    assert float(target_loss(counted, torch.tensor(600.0), per="pass").detach()) == 0.25


def test_limits_per_layer_are_one_sided(counted):
    assert float(limit_loss(counted, {"0": 24, "2": 6}).detach()) == 0
    assert float(limit_loss(counted, {"0": 16, "2": 5}).detach()) == pytest.approx(0.5 + 0.2)
    assert float(limit_loss(counted, {"2": 40}, per="pass").detach()) == 0.5


def test_batch_size_and_steps_do_not_change_their_scale(counted):
    few = float(target_loss(counted, 20).detach()), float(limit_loss(counted, {"0": 16}).detach())
    for layer in counted.model:
        if isinstance(layer, fnn.IAF):
            layer.reset_states()
    counted(torch.ones(7, 11, 8))
    assert (
        float(target_loss(counted, 20).detach()),
        float(limit_loss(counted, {"0": 16}).detach()),
    ) == few


@pytest.mark.parametrize(
    "loss",
    [
        lambda c: target_loss(c, 5.0),
        lambda c: target_loss(c, 70.0, per="pass"),
        lambda c: limit_loss(c, {"linear": 2.0}),
    ],
)
def test_derivatives_are_those_of_finite_differences(loss):
    """Of a count that is smooth: analog values above zero, taken for events."""
    model = nn.Linear(4, 3, dtype=torch.float64)
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4, dtype=torch.float64))

    def run(x):
        counter(x)
        return loss(counter)

    x = (torch.rand(2, 4, dtype=torch.float64) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(run, x)


def test_training_to_half_gets_there():
    torch.manual_seed(1)
    model = howto.amplify(howto.snn(fnn, batch_size=2), 2.0)
    x = (torch.rand(2, 10, 1, 28, 28) < 0.3).float()
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    optimizer = torch.optim.Adam(counter.parameters(), lr=3e-3, betas=(0.5, 0.9))
    target = None
    for _ in range(30):
        howto.reset(model)
        counter(x)
        if target is None:
            target = float(counter.synops.detach()) / 20 / 2
        loss = target_loss(counter, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(counter.synops.detach()) / 20 == pytest.approx(target, rel=0.02)


# -- firing rates ----------------------------------------------------------------------------------


@pytest.fixture
def fired():
    """2 samples of 4 steps; of 3 neurons, one fires always, one at every other step, one never."""
    model = nn.Sequential(nn.Linear(1, 3, bias=False), fnn.IAF(), nn.Linear(3, 2))
    model[0].weight.data = torch.tensor([[1.0], [0.5], [0.0]])
    x = torch.ones(2, 4, 1)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", rates=True)
    counter(x)
    return counter


def test_rates_are_mean_events_per_step_of_each_neuron(fired):
    (rates,) = fired.rates.values()
    assert list(fired.rates) == ["1"]
    assert rates.rates.tolist() == [1.0, 0.5, 0.0]
    assert rates.mean == 0.5
    assert rates.silent == pytest.approx(1 / 3)
    counts, edges = rates.histogram(bins=4)
    assert counts.tolist() == [1, 0, 1, 1]
    assert edges.tolist() == [0, 0.25, 0.5, 0.75, 1.0]
    assert str(rates) == "1: 3 neurons, 0.5000 events per step, 33.3% silent"


def test_rates_of_all_forwards_are_in_the_counts(fired):
    howto.reset(fired.model)
    fired(torch.zeros(6, 4, 1))
    assert fired.rates["1"].rates.tolist() == [0, 0, 0]
    assert fired.counts.rates["1"].rates.tolist() == [0.25, 0.125, 0]
    assert (fired.counts + fired.counts).rates["1"].sample_steps == 64
    fired.clear()
    assert fired.counts.rates == {}


@pytest.mark.parametrize("library", howto.LIBRARIES)
def test_rates_have_the_neurons_shape_and_leave_the_count_as_it_is(library):
    model = howto.amplify(howto.snn(howto.LIBRARIES[library]), 3)
    x = (torch.rand(5, 10, 1, 28, 28) < 0.3).float()
    plain = fxsynops.SynOpsCounter(model, x, layout="NT")
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", rates=True)
    outputs = {}
    for i in (2, 5, 8, 11):
        model[i].register_forward_hook(lambda m, a, y, i=i: outputs.update({str(i): y}))
    for one in (plain, counter):
        howto.reset(model)
        one(x)
    assert plain.counts.to_rows() == counter.counts.to_rows()
    assert set(counter.rates) == {"2", "5", "8", "11"}  # the last one has no synapse behind it
    for name, rates in counter.rates.items():
        expected = outputs[name].detach().double().mean(0)
        torch.testing.assert_close(rates.rates.detach(), expected)
    assert counter.rates["2"].rates.shape == (16, 24, 24)


def test_rates_of_calls_in_a_loop_are_of_all_steps():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            membrane, outs = 0.0, []
            for t in range(x.shape[1]):
                membrane = membrane + self.fc(x[:, t]).abs()
                spiked = (membrane > 1).float()
                membrane = membrane - spiked
                outs.append(self.out(spiked))
            return torch.stack(outs)

    x = torch.ones(3, 4, 4)  # as many steps as neurons
    counter = fxsynops.SynOpsCounter(Loop(), x, layout="NT", rates=True)
    counter(x)
    (rates,) = counter.rates.values()
    assert rates.rates.shape == (4,)
    assert float(rates.events.sum()) == counter.counts.rows[-1].events > 0


@pytest.mark.parametrize("features", [7, 10])
def test_neurons_of_as_many_features_as_steps_are_told_from_steps(features):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.a = nn.Linear(6, features), fnn.NeuromorphicReLU()
            self.ro, self.b = nn.Linear(features, features), fnn.NeuromorphicReLU()

        def forward(self, x):
            return self.b(self.ro(self.a(self.a(self.fc(x) * 5)).sum(0)))

    x = (torch.rand(10, 4, 6) < 0.5).float()
    counter = fxsynops.SynOpsCounter(Pooled(), x, layout="TN", rates=True)
    outputs = []
    counter.model.a.register_forward_hook(lambda *a: outputs.append(a[-1].detach()))
    y = counter(x)
    assert counter.rates["a"].events.shape == counter.rates["b"].events.shape == (features,)
    assert torch.equal(counter.rates["b"].events, y.detach().double().sum(0))
    assert torch.equal(counter.rates["a"].events, sum(outputs).double().sum((0, 1)))


def test_floors_and_ceilings_of_rates(fired):
    assert float(rate_floor_loss(fired, 0.5).detach()) == pytest.approx(1 / 3)
    assert float(rate_floor_loss(fired, 1.0).detach()) == pytest.approx(1.5 / 3)
    assert float(rate_floor_loss(fired, {"1": 0.25}).detach()) == pytest.approx(1 / 3)
    assert float(rate_ceiling_loss(fired, 1.0).detach()) == 0
    assert float(rate_ceiling_loss(fired, {"1": 0.25}).detach()) == pytest.approx((3 + 1) / 3)


def test_a_floor_wakes_silent_neurons_and_a_ceiling_calms_busy_ones():
    def trained(loss):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), fnn.IAF(), nn.Linear(16, 2))
        x = (torch.rand(4, 10, 8) < 0.5).float()
        counter = fxsynops.SynOpsCounter(model, x, layout="NT", rates=True)
        optimizer = torch.optim.Adam(counter.parameters(), lr=0.01)
        rates = []
        for _ in range(60):
            howto.reset(model)
            counter(x)
            rates.append(counter.counts.rates["1"])
            counter.clear()
            optimizer.zero_grad()
            loss(counter).backward()
            optimizer.step()
        return rates[0], rates[-1]

    before, after = trained(lambda c: rate_floor_loss(c, 0.1))
    assert before.silent > 0.3
    assert after.silent == 0
    before, after = trained(lambda c: rate_ceiling_loss(c, 0.05))
    assert float(before.rates.max()) > 0.15
    assert float(after.rates.max()) <= 0.06


@pytest.mark.parametrize("loss", [rate_floor_loss, rate_ceiling_loss])
def test_derivatives_of_rate_losses_are_those_of_finite_differences(loss):
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 2, dtype=torch.float64))
    x = torch.tensor([[0.3, 1.7, 0.6, 2.2], [0.5, 0.9, 0.4, 1.2]], dtype=torch.float64)
    counter = fxsynops.SynOpsCounter(model, x, spiking=nn.ReLU, input_events=False, rates=True)

    def run(x):
        counter(x)
        return loss(counter, 1.0)

    assert float(run(x)) > 0
    assert torch.autograd.gradcheck(run, x.requires_grad_())


def test_a_counter_without_rates_says_how_to_get_them(counted):
    with pytest.raises(InputError, match="rates=True"):
        _ = counted.rates
    with pytest.raises(InputError, match="rates=True"):
        rate_floor_loss(counted, 0.1)


# -- ordinary training code ------------------------------------------------------------------------


class Blocks(nn.Module):
    """Two spiking blocks, checkpointed if asked for, and a readout."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(6, 8), fnn.NeuromorphicReLU())
        self.second = nn.Sequential(nn.Linear(8, 5), fnn.NeuromorphicReLU())
        self.out, self.reentrant = nn.Linear(5, 2), reentrant
        with torch.no_grad():
            self.first[0].weight.mul_(2)
            self.second[0].weight.mul_(2)

    def forward(self, x):
        for block in (self.first, self.second):
            if self.reentrant is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.out(x)


EVENTS = torch.arange(8 * 6).reshape(8, 6).remainder(4).float()


def trained(model: nn.Module, *batches: torch.Tensor) -> tuple[fxsynops.Counts, list[torch.Tensor]]:
    """Counts and gradients after forwards and backwards of a task's loss and the SynOps."""
    counter = fxsynops.SynOpsCounter(model, batches[0])
    for x in batches:
        loss = counter(x.clone().requires_grad_()).square().sum() + counter.synops * 1e-2
        loss.backward()
    return counter.counts, [p.grad for p in model.parameters()]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_count_once_and_have_the_same_gradients(reentrant):
    counts, gradients = trained(Blocks(), EVENTS)
    again, regained = trained(Blocks(reentrant), EVENTS)
    assert [row.synops for row in again.rows] == [row.synops for row in counts.rows]
    assert all(row.synops > 0 for row in counts.rows)
    torch.testing.assert_close(regained, gradients, rtol=0, atol=0)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    counts, gradients = trained(Blocks(), EVENTS)
    parts, accumulated = trained(Blocks(), EVENTS[:3], EVENTS[3:])
    assert (parts.samples, parts.total) == (8, counts.total)
    torch.testing.assert_close(accumulated, gradients)


def test_under_autocast_the_events_that_were_sent_are_counted():
    model = Blocks()
    counter = fxsynops.SynOpsCounter(model, EVENTS)
    with torch.autocast("cpu", torch.bfloat16):
        loss = counter(EVENTS).square().sum() + counter.synops * 1e-2
        with torch.no_grad():
            first = model.first(EVENTS)
            second = model.second(first)
    loss.backward()
    assert first.dtype == second.dtype == torch.bfloat16
    assert {row.connection.synapse: row.synops for row in counter.counts.rows} == {
        "first.0": float(EVENTS.sum()) * 8,
        "second.0": float(first.double().sum()) * 5,
        "out": float(second.double().sum()) * 2,
    }
    assert float(second.sum()) > 0
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters()
    )


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda c: target_loss(c, 0), "target must be a positive number, not 0"),
        (lambda c: target_loss(c, -3.0), "target must be a positive number"),
        (lambda c: target_loss(c, 1.0, per="sample"), "neither 'step' nor 'pass'"),
        (lambda c: limit_loss(c, {"0": 0}), "limit of '0' must be a positive number"),
        (lambda c: limit_loss(c, {"fc": 3}), r"\['fc'\].*synapses are \['0', '2'\]"),
        (lambda c: limit_loss(c, {}), "limits is empty"),
    ],
)
def test_targets_and_limits_that_make_no_sense(counted, call, match):
    with pytest.raises(InputError, match=match):
        call(counted)


@pytest.mark.parametrize("loss", [lambda c: target_loss(c, 1), lambda c: limit_loss(c, {"0": 1})])
def test_a_loss_before_any_forward(loss):
    counter = fxsynops.SynOpsCounter(nn.Sequential(nn.Linear(4, 3)), torch.ones(2, 4))
    with pytest.raises(CountError, match="call the counter on an input first"):
        loss(counter)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda c: rate_floor_loss(c, 0.0), "floor of '1' must be a positive number"),
        (lambda c: rate_ceiling_loss(c, {"1": -1.0}), "ceiling of '1' must be a positive number"),
        (lambda c: rate_floor_loss(c, {"fc": 0.1}), r"\['fc'\].*spiking nodes are \['1'\]"),
        (lambda c: rate_ceiling_loss(c, {}), "ceiling is empty"),
    ],
)
def test_floors_and_ceilings_that_make_no_sense(fired, call, match):
    with pytest.raises(InputError, match=match):
        call(fired)


def test_rates_of_another_number_of_neurons_are_refused_and_commit_nothing():
    class Narrows(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.neuron, self.size = nn.Linear(4, 6), fxsynops.nn.NeuromorphicReLU(), 6

        def forward(self, x):
            return self.neuron(self.fc(x)[:, : self.size])

    model, x = Narrows(), torch.ones(5, 4)
    counter = fxsynops.SynOpsCounter(model, x, rates=True)
    counter(x)
    counts = counter.counts
    model.size = 1
    for _ in range(2):
        with pytest.raises(fxsynops.InputError, match=r"has had \(6,\) neurons"):
            counter(x)
        assert counter.counts == counts
    counter.clear()
    counter(x)
    assert counter.counts.samples == 5
