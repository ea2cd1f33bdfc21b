"""Losses on SynOps: values by hand, derivatives by finite differences, clear errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import CountError, InputError
from fxsynops.losses import limit_loss, target_loss
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
        (lambda c: target_loss(c, 0), "target must be positive, not 0"),
        (lambda c: target_loss(c, -3.0), "target must be positive"),
        (lambda c: target_loss(c, 1.0, per="sample"), "neither 'step' nor 'pass'"),
        (lambda c: limit_loss(c, {"0": 0}), "limit of '0' must be positive"),
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
