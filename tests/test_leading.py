"""Indices and masks that say where events go, and change: counts and bounds follow them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops

X = torch.tensor([[1.0, 1, 1, 0], [0, 1, 1, 0]])


class Leads(nn.Module):
    def __init__(self, lead):
        super().__init__()
        self.fc, self.lead = nn.Linear(4, 3), lead
        self.register_buffer("i", torch.tensor([1, 1, 1, 1]))

    def forward(self, x):
        return self.fc(self.lead(x, self.i))


def zeroed(x, i):
    x = x.clone()
    x[:, i] = 0
    return x


def masked(x, i):
    x = x.clone()
    x[:, i > 0] = 0
    return x


def sampled(x, i):
    grid = torch.stack([i * 0.5 - 0.75, i * 0.0], -1).expand(2, 1, 4, 2)
    return F.grid_sample(x[:, None, None], grid, mode="nearest", align_corners=False)[:, 0, 0]


LEADS = {
    "index": lambda x, i: x[:, i],
    "index_select": lambda x, i: x.index_select(1, i),
    "take_along_dim": lambda x, i: torch.take_along_dim(x, i.expand(2, 4), 1),
    "gather": lambda x, i: x.gather(1, i.expand(2, 4)),
    "zeros at places": zeroed,
    "zeros under a mask": masked,
    "repeat_interleave": lambda x, i: x.repeat_interleave(i, 1, output_size=4),
    "one of several": lambda x, i: torch.stack([x * 0, x, x, x])[i[0]],
    "grid_sample": sampled,
}


@pytest.mark.parametrize("name", LEADS)
def test_counts_and_bounds_follow_indices(name):
    model = Leads(LEADS[name])
    counter = fxsynops.SynOpsCounter(model, X)
    for places in ([0, 3, 1, 0], [1, 1, 1, 1], [2, 0, 1, 1]):
        model.i.copy_(torch.tensor(places))
        if name == "one of several":
            model.i.clamp_(max=3)
        counter(X)
        arrived = float(LEADS[name](X, model.i).sum()) * 3
        assert float(counter.synops.detach()) == arrived
        assert counter.analysis.upper_bound().total * 2 >= arrived


def test_a_bound_follows_a_mask():
    model = Leads(lambda x, i: x * i)
    model.i.copy_(torch.tensor([1, 0, 0, 0]))
    counter = fxsynops.SynOpsCounter(model, X)
    model.i.fill_(1)
    counter(X)
    assert float(counter.synops.detach()) == float(X.sum()) * 3
    assert counter.analysis.upper_bound().total == 4 * 3
    assert counter.analysis.upper_bound(rate=0.5).total == 4 * 3 / 2


def test_a_ring_of_delays_whose_pointer_is_a_buffer():
    class Ring(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.register_buffer("ring", torch.zeros(3, 2, 4))
            self.register_buffer("at", torch.tensor(0))

        def forward(self, x):
            self.ring.index_copy_(0, (self.at % 3).view(1), x[None])
            self.at.add_(1)
            return self.fc(self.ring.index_select(0, (self.at % 3).view(1))[0])

    counter, twin, arrived = fxsynops.SynOpsCounter(Ring(), X), Ring(), []
    twin.fc.register_forward_pre_hook(lambda _, args: arrived.append(float(args[0].sum()) * 3))
    counted = []
    for step in range(6):
        counter(X * (step % 2))
        twin(X * (step % 2))
        counted.append(float(counter.synops.detach()))
    assert counted == arrived
    assert sum(counted) > 0


@pytest.mark.parametrize(("write", "read", "size"), [(0, 1, 3), (2, 3, 4)])
def test_a_connection_that_other_pointers_make(write, read, size):
    class Ring(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.register_buffer("write", torch.tensor(write))
            self.register_buffer("read", torch.tensor(read))

        def forward(self, x):
            ring = torch.zeros(size, *x.shape)
            ring[self.write] = (x > 0.5).float()
            return self.fc(ring[self.read])

    counter, counted = fxsynops.SynOpsCounter(Ring(), X), []
    for place in (write, read, write):
        counter.model.write.fill_(place)
        counter(X)
        counted.append(float(counter.per_synapse["fc"].detach()))
    assert counted == [0, float(X.sum()) * 3, 0]


@pytest.mark.parametrize("how", ["index", "mask", "stack"])
def test_an_index_that_the_forward_moves_once_it_was_used(how):
    class Moves(Leads):
        def forward(self, x):
            y = super().forward(x)
            self.i.copy_(self.i.roll(1))
            return y

    leads = {
        "index": lambda x, i: x[:, i],
        "mask": lambda x, i: x * (i > 1),
        "stack": lambda x, i: torch.stack([x, x * 0, x.flip(1), x])[i[0]],
    }
    model = Moves(leads[how])
    model.i.copy_(torch.tensor([0, 1, 2, 3]))
    twin, arrived = Moves(leads[how]), []
    twin.load_state_dict(model.state_dict())
    twin.fc.register_forward_pre_hook(lambda _, args: arrived.append(float(args[0].sum()) * 3))
    counter = fxsynops.SynOpsCounter(model, X)
    for step in range(5):
        counter(X * (step != 3))
        twin(X * (step != 3))
        assert float(counter.synops.detach()) == arrived[-1]


class Drops(nn.Module):
    """Weights that are left out, or changed, at random."""

    def __init__(self, drop):
        super().__init__()
        self.fc, self.drop = nn.Linear(4, 3), drop

    def forward(self, x):
        return F.linear(x, self.drop(self.fc.weight), self.fc.bias)


DROPS = {
    "dropout": lambda w: F.dropout(w, 0.5),
    "comparison": lambda w: w * (torch.rand_like(w) < 0.5),
    "bernoulli": lambda w: w * torch.bernoulli(torch.full_like(w, 0.5)),
    "where": lambda w: torch.where(torch.rand_like(w) < 0.5, w, 0.0),
    "masked_fill": lambda w: w.masked_fill(torch.rand_like(w) < 0.5, 0.0),
    "noise": lambda w: w + torch.randn_like(w),
}


@pytest.mark.parametrize("weights", ["all", "nonzero"])
@pytest.mark.parametrize("name", DROPS)
def test_weights_that_are_drawn_are_weights(name, weights):
    model = Drops(DROPS[name])
    before = torch.get_rng_state()
    counter = fxsynops.SynOpsCounter(model, X, weights=weights)
    assert torch.equal(before, torch.get_rng_state())
    for seed in range(3):
        torch.manual_seed(seed)
        y = counter(X)
        torch.manual_seed(seed)
        assert torch.equal(y, model(X))
        torch.manual_seed(seed)
        drawn = DROPS[name](model.fc.weight) != 0
        reached = drawn.float() if weights == "nonzero" else torch.ones(3, 4)
        assert float(counter.synops.detach()) == float((X @ reached.T).sum())
