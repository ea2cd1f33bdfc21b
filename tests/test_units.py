"""What one event is worth behind limits, constants, choices and masks: counted, never rounded away.

Every network is a function of spikes, and a linear layer. The right counts are known by hand.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops

OUT = 3


class Behind(nn.Module):
    """A linear layer behind a function of the input; ``held`` is a parameter, ``kept`` a buffer."""

    def __init__(self, f, held=None, kept=None):
        super().__init__()
        self.f, self.fc = f, nn.Linear(6, OUT)
        self.held = None if held is None else nn.Parameter(held)
        self.register_buffer("kept", kept)

    def forward(self, *xs):
        return self.fc(self.f(self, *xs))


def spikes(*size: int, seed: int = 0, most: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(most + 1, size or (20, 6), generator=generator).float()


def counted(net: nn.Module, *xs: Tensor, again: tuple[Tensor, ...] = (), **options) -> float:
    """Events that arrive at the linear layer."""
    counter = fxsynops.SynOpsCounter(net, xs, **options)
    counter(*(again or xs))
    return float(counter.per_synapse["fc"].detach()) / OUT


X = spikes()
MANY = spikes(most=3)
FIRST, AT = torch.zeros(20, 1, dtype=torch.int64), torch.tensor([0])
SIGNED = X - spikes(seed=1)


@pytest.mark.parametrize(
    ("f", "events"),
    [
        # Limits below the worth of an event: each event becomes one of the limit's.
        (lambda m, s: (2 * s).clamp(0, 1), X),
        (lambda m, s: (2 * s).clamp_(0, 0.5), X),
        (lambda m, s: F.hardtanh(3 * s), X),
        (lambda m, s: F.relu6(10 * s), X),
        (lambda m, s: torch.minimum(2 * s, torch.ones_like(s)), X),
        (lambda m, s: torch.maximum(-2 * s, -torch.ones_like(s)), X),
        (lambda m, s: torch.fmin(2 * s, torch.tensor(1.0)), X),
        (lambda m, s: (5 * s).clamp(max=2).clamp(max=1), X),
        (lambda m, s: F.max_pool1d((2 * s).clamp(0, 1)[None], 1)[0], X),
        (lambda m, s: F.softshrink(s), X),
        (lambda m, s: F.softshrink(3 * s, 1.0), X),
        # Limits that are whole numbers of events.
        (lambda m, s: (0.5 * s).clamp(0, 1), X),
        (lambda m, s: F.relu6(0.7 * s), X),
        (lambda m, s: F.softshrink(3 * s, 3.0), 0 * X),
        # Slopes of negative events.
        (lambda m, s: F.leaky_relu(-s), X),
        (lambda m, s: F.leaky_relu_(-2 * s, 0.1), X),
        (lambda m, s: F.prelu(-s, m.held), X),
        (lambda m, s: F.rrelu(-s), X),
        (lambda m, s: (-s).abs(), X),
        # Constants that are let in.
        (lambda m, s: torch.where(s > 0, 1.0, 0.0), X),
        (lambda m, s: torch.where(s > 0, 0.5, 0.0), X),
        (lambda m, s: torch.where(s > 0, 0.5, 0.2), torch.ones_like(X)),
        (lambda m, s: torch.where(s > 0, 1.0, 0.5 * s), X),
        (lambda m, s: (0.3 * s).masked_fill(s > 0, 1.0), X),
        (lambda m, s: (0.5 * s).index_fill(1, AT, 1.0), X.index_fill(1, AT, 1)),
        (lambda m, s: (0.5 * s).scatter(1, FIRST, 1.0), X.index_fill(1, AT, 1)),
        (lambda m, s: F.threshold(0.5 * s, 0.6, 0.1), torch.ones_like(X)),
        # Powers.
        (lambda m, s: (0.5 * s) ** 2, X),
        (lambda m, s: torch.square(3 * s), X),
    ],
)  # fmt: skip
def test_limits_slopes_and_constants(f, events):
    assert counted(Behind(f, held=torch.tensor([0.3])), X) == float(events.sum())


@pytest.mark.parametrize(
    ("f", "events"),
    [
        (lambda m, s: (0.5 * s).clamp(0, 1), MANY.clamp(max=2)),
        (lambda m, s: torch.where(s > 1, s, -s), MANY),
        (lambda m, s: (2 * s).clamp(0, 3), MANY.clamp(max=1)),  # 2 is an event, and so is 3
    ],
)
def test_more_than_one_event_in_an_element(f, events):
    assert counted(Behind(f), MANY) == float(events.sum())


@pytest.mark.parametrize(
    "f",
    [
        lambda m, s: torch.where(s < 0, -s.abs(), s.abs()),
        lambda m, s: torch.where(s < 0, s, 0.5 * s),
        lambda m, s: torch.cat([s[:, :3], 0.5 * s[:, 3:]], 1).clone().relu() - F.relu(-s),
        lambda m, s: s.sign() * s.abs(),
    ],
)
def test_signs_are_no_other_worth(f):
    assert counted(Behind(f), SIGNED) == float(SIGNED.abs().sum())


def test_units_move_with_the_elements_that_they_are_of():
    def f(m, s):
        both = torch.cat([0.5 * s[:, :3], s[:, 3:]], 1)  # worth 0.5 and 1
        return F.relu(both.flip(1).reshape(-1, 2, 3).transpose(1, 2).reshape(-1, 6))

    assert counted(Behind(f), X) == float(X.sum())


def test_a_trace_of_every_spike_in_a_loop():
    class Traces(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, OUT)

        def forward(self, x):
            trace, out = torch.zeros_like(x[0]), []
            for s in x:
                trace = torch.where(s > 0, torch.ones_like(s), trace / 3)
                out.append(self.fc(trace))
            return torch.stack(out)

    x = spikes(6, 2, 6)
    seen = (x.cumsum(0) > 0).sum()  # from the first spike on, each element holds one event
    assert counted(Traces(), x, layout="TN") == float(seen)


# -- zeros among factors ---------------------------------------------------------------------------

MASK = torch.tensor([1.0, 0, 0, 2, 0, 0.5])


@pytest.mark.parametrize(
    "f",
    [
        lambda m, s: s * MASK,
        lambda m, s: MASK * s,
        lambda m, s: s * torch.tensor([1.0, 0, 0, 2, 0, 0.5]),
        lambda m, s: s.mul_(m.held),
        lambda m, s: s * m.kept,
        lambda m, s: s * (m.held > 0),
        lambda m, s: s * torch.where(m.held > 0, 1.0, 0.0),
        lambda m, s: torch.einsum("bi,i->bi", s, m.held),
        lambda m, s: F.relu(s * m.held),
        lambda m, s: (s * m.kept).reshape(2, 10, 6).flatten(0, 1).relu(),
        lambda m, s: (s * m.held).masked_fill(s < 0, 0.0),
    ],
)
def test_a_factor_that_is_zero_stops_events(f):
    net = Behind(f, held=MASK.clone(), kept=MASK.clone())
    assert counted(net, X.clone()) == float(X[:, MASK != 0].sum())


@pytest.mark.parametrize("gate", [lambda x: x, F.relu], ids=["routing", "gate"])
@pytest.mark.parametrize("name", ["held", "kept"])
def test_zeros_are_followed_where_they_move(name, gate):
    net = Behind(lambda m, s: gate(s * getattr(m, name)), held=torch.ones(6), kept=torch.ones(6))
    counter = fxsynops.SynOpsCounter(net, X)
    for factor in (torch.ones(6), MASK, torch.zeros(6), MASK.flip(0), torch.full((6,), 7.0)):
        getattr(net, name).data.copy_(factor)
        counter(X)
        assert float(counter.per_synapse["fc"].detach()) == OUT * float(X[:, factor != 0].sum())


def test_masks_of_one_number():
    net = Behind(lambda m, s: s * m.held, held=torch.tensor(0.0))
    counter = fxsynops.SynOpsCounter(net, X)
    counter(X)
    assert float(counter.synops.detach()) == 0
    net.held.data.fill_(0.1)
    counter(X)
    assert float(counter.synops.detach()) == OUT * float(X.sum())


def test_bounds_know_that_a_zero_factor_stops_events():
    analysis = fxsynops.analyze(Behind(lambda m, s: s * m.held, held=MASK.clone()), X)
    assert analysis.upper_bound().structural == OUT * float((MASK != 0).sum())
    assert analysis.connections[0].fanout.map.tolist() == [[3, 0, 0, 3, 0, 3]]


def test_limits_bound_the_number_of_events():
    analysis = fxsynops.analyze(Behind(lambda m, s: (2 * s).clamp(0, 1)), MANY)
    assert analysis.upper_bound(max_spikes=3.0).structural == 6 * OUT


@pytest.mark.parametrize(
    "f",
    [
        lambda m, s: torch.stack([s, 0.4 * s]).amax(0),  # of which worth is the larger one?
        lambda m, s: F.max_pool1d((s * m.held)[None], 1)[0],
        lambda m, s: F.rrelu(-s, training=True),
        lambda m, s: (s * m.held).cumprod(1),
        lambda m, s: (s / math.inf).clamp(0, 2),
    ],
)
def test_what_an_event_is_worth_is_not_guessed(f):
    with pytest.raises(fxsynops.UnsupportedOperationError, match="what one event is worth"):
        fxsynops.analyze(Behind(f, held=MASK.clone()), X)


@pytest.mark.parametrize(
    "f",
    [
        lambda m, s: torch.where(s > 2, 2.0, s),
        lambda m, s: torch.where(s > 2, m.kept, s),
        lambda m, s: torch.where(s > 2, m.kept.type_as(s), s),
        lambda m, s: torch.where(s > 2, m.held, s),
        lambda m, s: s.masked_fill(s > 2, m.kept),
    ],
)
def test_a_whole_limit_counts_as_many_events_whatever_holds_it(f):
    limit = torch.tensor(2.0)
    net = Behind(f, held=limit.clone(), kept=limit)
    assert counted(net, MANY) == float(MANY.clamp(max=2).sum())
