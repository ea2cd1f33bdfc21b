"""What operations make of events, held against what arrives at the layer behind them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd._functions import Resize

import fxsynops
from fxsynops.connectivity.sample_axes import leading
from fxsynops.operations.synapses import one_to_one
from fxsynops.tracing.inputs import Layout, Window

OUT = 3


class Behind(nn.Module):
    """A linear layer behind a function of inputs; ``held`` is a parameter, ``kept`` a buffer."""

    def __init__(self, f, features=6, held=None, kept=None):
        super().__init__()
        self.f, self.fc = f, nn.Linear(features, OUT)
        self.held = None if held is None else nn.Parameter(held)
        self.register_buffer("kept", kept)

    def forward(self, *xs):
        return self.fc(self.f(self, *xs).flatten(1))


def whole(*size: int, seed: int = 0, most: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(most + 1, size or (20, 6), generator=generator).float()


def real(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


X, Y, MANY = whole(), whole(seed=1), whole(most=3)
ONES, ANALOG = torch.ones(20, 6), real(20, 6)
SIGNED = X - Y


def behind(f, *xs: Tensor, held=None, kept=None) -> Behind:
    """A layer that is as wide as what the function returns."""
    net = Behind(f, 1, held, kept)
    net.fc = nn.Linear(f(net, *[x.clone() for x in xs]).flatten(1).shape[1], OUT)
    return net


def arriving(net: nn.Module, *xs: Tensor) -> Tensor:
    """What the layer gets in a plain forward."""
    seen: list[Tensor] = []
    handle = net.fc.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    with torch.no_grad():
        net(*[x.clone() for x in xs])
    handle.remove()
    (x,) = seen
    return x.double()


def count(net: nn.Module, *xs: Tensor, **options) -> tuple[float, float]:
    """Events that the layer gets, and its MACs by sample and output; without the audit's help."""
    counter = fxsynops.SynOpsCounter(net, xs, audit=False, **options)
    with torch.no_grad():
        counter(*[x.clone() for x in xs])
    synops = counter.per_synapse.get("fc", torch.zeros(()))
    macs = sum(d.macs for d in counter.analysis.dense if d.synapse == "fc")
    return float(synops) / OUT, macs / OUT


# -- gates: events are what comes out, over what one of them is worth ------------------------------


@pytest.mark.parametrize(
    ("f", "worth"),
    [
        (lambda m, s, t: (0.5 * s) * (0.25 * t), 0.125),
        (lambda m, s, t: (0.25 * s) * (2 * t), 0.5),
        (lambda m, s, t: F.relu(s / 4), 0.25),
        (lambda m, s, t: F.relu(torch.div(s, m.held)), 1 / 0.3),
        (lambda m, s, t: F.relu(s / m.held * 0.5), 0.5 / 0.3),
        (lambda m, s, t: F.relu(s * torch.tensor([0, 2.0, 2, 0, 2, 2])), 2),
        (lambda m, s, t: F.relu(s / torch.tensor([4.0, 4, 4, 4, 4, 4])), 0.25),
        (lambda m, s, t: F.relu(s * (2 * torch.arange(6).remainder(2))), 2),
        (lambda m, s, t: F.relu(s * torch.full((6,), 0.5)), 0.5),
        (lambda m, s, t: F.relu(s / torch.full((6,), 4.0)), 0.25),
        (lambda m, s, t: F.relu((s - t) * (1 - 2 * torch.arange(6).remainder(2))), 1),
        (
            lambda m, s, t: (s * (3 * torch.arange(6).remainder(2) - 2)).abs(),
            torch.tensor([2, 1] * 3),
        ),
        (lambda m, s, t: ((s - t) * (torch.arange(6).remainder(3) - 1) * 0.5).abs(), 0.5),
        (lambda m, s, t: F.relu((s - t) * torch.tensor([1.0, -1, 1, 1, -1, 1])), 1),
        (lambda m, s, t: F.relu(s.mean(1, keepdim=True)), 1 / 6),
        (lambda m, s, t: F.relu(s.mean((), keepdim=True)).expand(20, 1), 1 / 120),
        (lambda m, s, t: F.relu(s.mean() * torch.ones(20, 1)), 1 / 120),
        (lambda m, s, t: F.relu(F.avg_pool1d(s, 2, padding=1)), 0.5),
        (lambda m, s, t: F.relu(F.adaptive_avg_pool1d(s, 2)), 1 / 3),
        (lambda m, s, t: F.relu(F.lp_pool1d(s, 1, 2)), 1),
        (lambda m, s, t: F.relu(F.interpolate(s[None], 12)[0]), 1),
        (lambda m, s, t: (0.5 * s).square(), 0.25),
        (lambda m, s, t: (0.5 * (s + t)) ** 2, 0.25),
    ],
)
def test_a_gate_counts_in_events_of_the_worth_that_arrives(f, worth):
    net = behind(f, MANY, Y, held=torch.tensor(0.3))
    wanted = float((arriving(net, MANY, Y).abs() / worth).sum())
    assert wanted == pytest.approx(round(wanted), rel=1e-6)
    assert count(net, MANY, Y) == (round(wanted), 0)


def test_survivors_of_dropout_are_events_however_much_it_scales_them():
    net = behind(lambda m, s: F.dropout(s, 0.2, training=True), MANY)
    torch.manual_seed(3)
    survivors = MANY[arriving(net, MANY) != 0].sum()
    torch.manual_seed(3)
    counter = fxsynops.SynOpsCounter(net, MANY, audit=False)
    torch.manual_seed(3)
    counter(MANY)
    assert 0 < survivors < MANY.sum()
    assert float(counter.synops.detach()) == OUT * float(survivors)


@pytest.mark.parametrize(
    "f",
    [
        lambda m, s: F.max_pool1d(torch.cat([0.5 * s[:, :3], s[:, 3:]], 1), 2, 1),
        lambda m, s: torch.cat([0.5 * s[:, :3], s[:, 3:]], 1).amax(1, keepdim=True),
        lambda m, s: (0.5 * s).scatter_add(1, torch.zeros(20, 6, dtype=torch.int64), s),
        lambda m, s: F.relu(F.interpolate(s[None], 12, mode="linear")),
        lambda m, s: F.relu(F.interpolate(s[None, None], (12, 9), mode="bilinear")[0]),
        lambda m, s: F.relu(F.avg_pool1d(s, 4, ceil_mode=True)),
        lambda m, s: F.relu(F.avg_pool1d(s, 2, padding=1, count_include_pad=False)),
        lambda m, s: F.relu(F.avg_pool1d(s[:, :5], 2, padding=1, count_include_pad=False)),
        lambda m, s: F.relu(F.adaptive_avg_pool1d(s[:, :5], 3)),
        lambda m, s: F.relu(F.lp_pool1d(s, 1, 4, ceil_mode=True)),
        lambda m, s: (m.held * s) ** 2,
        lambda m, s: F.relu(s / torch.inf),
    ],
)
def test_a_gate_of_events_of_several_worths_or_none_is_refused(f):
    net = behind(f, X, held=torch.tensor(0.3))
    with pytest.raises(fxsynops.UnsupportedOperationError):
        fxsynops.analyze(net, X, audit=False)


# -- what is no event ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "options"),
    [
        (lambda m, s, t: F.relu(s + 0.3), {}),
        (lambda m, s, t: F.relu(s + torch.full((6,), 0.3)), {}),
        (lambda m, s, t: F.relu(s - torch.tensor([0, 1.0, 0, 2, 0.5, 0])), {}),
        (lambda m, s, t: F.relu(0.5 * s + 1), {}),
        (lambda m, s, t: F.relu(0.5 * s + torch.ones(6)), {}),
        (lambda m, s, t: F.relu(s + 0.5 * torch.arange(6)), {}),
        (lambda m, s, t: F.relu(s + m.held), {}),
        (lambda m, s, t: F.relu(s + m.kept), {}),
        (lambda m, s, t: F.relu(F.pad(s, (1, 1), value=0.5)), {}),
        (lambda m, s, t: torch.div(torch.ones(6), s + 1), {}),
        (lambda m, s, t: 1 / (s + 1), {}),
        (lambda m, s, t: s / (t + 1), {}),
        (lambda m, s, t: s.max(1, keepdim=True).indices.float(), {}),
        (lambda m, s, t: s.sort(1)[1].float(), {}),
        (lambda m, s, t: s**0.5, {}),
        (lambda m, s, t: s.pow(1.5), {}),
        (lambda m, s, t: F.lp_pool1d(s, 2, 2), {}),
        (lambda m, s, t: F.lp_pool2d(s[None], 2, 2)[0], {}),
        (lambda m, s, t: F.softmax(s, 1), {}),
        (lambda m, s, t: t / (s + 1), {"input_events": [True, False]}),
        (lambda m, s, t: t / (s + 1), {"input_events": [True, False], "events": "nonzero"}),
    ],
)
def test_what_is_analog_costs_macs(f, options):
    net = behind(f, MANY, Y, held=torch.ones(6), kept=torch.ones(6))
    assert count(net, MANY, Y, **options) == (0, arriving(net, MANY, Y).numel() / len(MANY))


def test_events_over_analog_values_are_events_where_every_element_counts_one():
    net = behind(lambda m, s, t: s / t, MANY, ANALOG)
    nonzero = float((arriving(net, MANY, ANALOG) != 0).sum())
    options = {"input_events": [True, False], "events": "nonzero"}
    assert count(net, MANY, ANALOG, **options) == (nonzero, 0)


# -- routing: each event counts at every element that depends on it --------------------------------


def reached(net: Behind, *xs: Tensor) -> float:
    """Events, each times the number of elements that have a derivative by its element."""
    points = tuple(1 + x.double().abs() for x in xs)
    found = 0.0
    for i, x in enumerate(xs):
        others = points

        def one(value: Tensor, i=i, others=others) -> Tensor:
            return net.f(net, *others[:i], value, *others[i + 1 :]).flatten(1)

        slope = torch.autograd.functional.jacobian(one, points[i])
        found += float(((slope != 0).flatten(0, 1).sum(0) * x.abs()).sum())
    return found


def written_over(y: Tensor, index, value: Tensor) -> Tensor:
    y = y * 1
    y[index] = value
    return y


A, B = whole(4, 6, most=3), whole(4, 6, seed=1)


@pytest.mark.parametrize(
    "f",
    [
        # Joined and taken apart again.
        lambda m, a, b: torch.stack([a, b], 1)[:, 1],
        lambda m, a, b: torch.stack([a, b], 2)[:, 1:, 0],
        lambda m, a, b: torch.stack([a, b], -1).flatten(1)[:, 3:8],
        lambda m, a, b: torch.hstack([a, b[:, :2]])[:, 1:7],
        lambda m, a, b: torch.hstack([a, b])[:2],
        lambda m, a, b: torch.hstack([a[0], b[0, :4]])[2:7].reshape(1, 5),
        lambda m, a, b: torch.hstack([a[:, :2, None], b[:, :, None]])[:, 1:3],
        lambda m, a, b: torch.vstack([a, b])[3:],
        lambda m, a, b: torch.hsplit(a, 3)[1] + b[:, :1],
        lambda m, a, b: torch.hsplit(a, [1, 4])[2].flip(0),
        lambda m, a, b: torch.hsplit(a[1], 2)[1].reshape(1, 3),
        lambda m, a, b: torch.vsplit(a, 2)[1],
        # Parts.
        lambda m, a, b: torch.ops.aten.slice.Tensor(a, 1, 0, 6, 2),
        lambda m, a, b: torch.ops.aten.slice.Tensor(a, 1, 1, 5, 3) + b[:, :2],
        lambda m, a, b: torch.ops.aten.slice.Tensor(a, 0, -3, 4, 2),
        lambda m, a, b: a.narrow(1, -3, 2),
        lambda m, a, b: torch.narrow(a, 0, -1, 1),
        # Copies.
        lambda m, a, b: a.repeat(1, 2)[:, :6],
        lambda m, a, b: a.repeat(1, 2)[:, 1:4],
        lambda m, a, b: a.repeat_interleave(2, 1)[:, 1:4],
        lambda m, a, b: torch.tile(a, (2, 1))[3:6],
        # What was written over, and what was written.
        lambda m, a, b: written_over(a, (slice(None), slice(0, 3)), b[:, 3:]),
        lambda m, a, b: written_over(a, (slice(None), slice(0, 6, 2)), b[:, 3:]),
        lambda m, a, b: written_over(a, 1, b[2]),
        lambda m, a, b: written_over(a, (1, slice(2, 5)), b[2:3, :3]),
        lambda m, a, b: written_over(a, (slice(0, 2), slice(4)), b[None, None, 2:, :4]),
        lambda m, a, b: written_over(a, (slice(0, 2), slice(4)), b[None, 2:3, 3:4]),
        lambda m, a, b: written_over(a, slice(None), b),
        lambda m, a, b: (a * 1).copy_(b),
        lambda m, a, b: (a * 1).copy_(b[:1]),
        lambda m, a, b: (a + b).copy_(a[:, :1]),
        # Sums and averages.
        lambda m, a, b: a.sum(dtype=torch.float64).to(a.dtype).reshape(1, 1),
        lambda m, a, b: a.sum((), dtype=torch.float64).to(a.dtype).reshape(1, 1),
        lambda m, a, b: a.sum(1, True, dtype=torch.float64).to(a.dtype) + b,
        lambda m, a, b: torch.einsum("bi->b", a)[:, None],
        lambda m, a, b: torch.einsum("ii->i", a[:, :4])[:, None],
        lambda m, a, b: F.avg_pool1d(a, 4, ceil_mode=True),
        lambda m, a, b: F.avg_pool1d(a, 3, 2, padding=1, count_include_pad=False),
        lambda m, a, b: F.lp_pool1d(a, 1, 4, ceil_mode=True),
        lambda m, a, b: F.adaptive_avg_pool1d(a, 4),
        lambda m, a, b: F.interpolate(a[None, None], (6, 8), mode="bilinear")[0, 0],
        # Padding.
        lambda m, a, b: F.pad(a, (1, 2), value=0.5) + F.pad(b, (2, 1), "circular"),
        lambda m, a, b: F.pad(a, (-1, 2), value=1.0),
    ],
)  # fmt: skip
def test_an_event_counts_at_every_element_that_it_reaches(f):
    net = behind(f, A, B)
    assert count(net, A, B)[0] == reached(net, A, B) > 0


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (F.avg_pool1d, (2, 7)),
        (F.avg_pool2d, (2, 5, 7)),
        (F.avg_pool3d, (2, 3, 5, 7)),
        (F.lp_pool1d, (2, 7)),
        (F.lp_pool2d, (2, 5, 7)),
        (F.lp_pool3d, (2, 3, 5, 7)),
    ],
)
def test_windows_beyond_the_end_hold_events_in_ceil_mode(pool, size, ceil):
    x = whole(1, *size, most=3)
    norm = (1,) if "lp" in pool.__name__ else ()
    net = behind(lambda m, s: pool(s, *norm, 2, ceil_mode=ceil), x)
    inside = x if ceil else x[(..., *(slice(n // 2 * 2) for n in size[1:]))]
    assert count(net, x) == (float(inside.sum()), 0)


def test_folded_windows_count_where_they_overlap():
    x = whole(2, 4, 6, most=3)
    net = behind(lambda m, s: F.fold(s, (3, 4), 2), x)
    assert count(net, x) == (float(x.sum()), 0)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_groups_of_a_convolution_below_torch_are_its_last_argument(transposed):
    x = whole(2, 4, 5, most=3)
    weight = real(4, 3, 3) if transposed else real(6, 2, 3)
    padding = [1] if transposed else [0]
    given = [2], [1], [1], transposed, padding, 2

    def f(m, s):
        return torch.ops.aten.convolution(s, weight.to(s.dtype), None, *given)

    counter = fxsynops.SynOpsCounter(behind(f, x), x, audit=False)
    counter(x)
    wanted = torch.ops.aten.convolution(x, torch.ones_like(weight), None, *given).sum()
    assert {k: float(v.detach()) for k, v in counter.per_synapse.items()} == {
        "convolution": float(wanted)
    }


# -- bounds behind what adds up --------------------------------------------------------------------


def charge(analysis: fxsynops.Analysis, synapse: str) -> float:
    """The charge bound of the connections to one synapse."""
    rows = analysis.upper_bound().rows
    return sum(row.charge for row in rows if row.connection.synapse == synapse)


@pytest.mark.parametrize(
    ("f", "events"),
    [
        (lambda m, s: F.relu(s.sum(1, keepdim=True)), 12),
        (lambda m, s: F.relu(s.mean(1, keepdim=True)), 12),
        (lambda m, s: F.relu(s.sum(1, keepdim=True, dtype=torch.float64)).float(), 12),
        (lambda m, s: F.relu(torch.einsum("bi->b", s)[:, None]), 12),
        (lambda m, s: F.relu(torch.einsum("bij->bi", s.unflatten(1, (4, 3)))), 12),
        (lambda m, s: F.relu(s.unflatten(1, (4, 3)).sum(2)), 12),
        (lambda m, s: F.relu(F.lp_pool1d(s, 1, 3)), 12),
        (lambda m, s: F.relu(s.cumsum(1)), 78),
        (lambda m, s: F.relu(F.fold(s.unflatten(1, (2, 6)), (1, 7), (1, 2))), 12),
        (lambda m, s: F.relu(F.fold(s.unflatten(1, (4, 3)), (2, 4), 2)), 12),
        (lambda m, s: s.new_zeros(2, 4).scatter_add(1, torch.zeros_like(s).long(), s), 12),
        (lambda m, s: s.new_zeros(2, 4).index_add(1, torch.zeros(12).long(), s), 12),
        (lambda m, s: F.relu(s.roll(1, 1)), 12),
    ],
)
def test_no_more_events_come_out_of_a_sum_than_the_bound_says(f, events):
    x = torch.ones(2, 12)
    net = behind(f, x)
    counter = fxsynops.SynOpsCounter(net, x, audit=False)
    counter(x)
    assert float(counter.synops.detach()) == 2 * OUT * events
    assert counter.analysis.upper_bound().structural >= OUT * events


@pytest.mark.parametrize(
    ("f", "bound"),
    [
        (lambda m, s: F.relu(s.sum(1, keepdim=True)), 12),
        (lambda m, s: F.relu(s.mean(1, keepdim=True)), 12),
        (lambda m, s: F.relu(torch.einsum("bi->b", s)[:, None]), 12),
        (lambda m, s: F.relu(F.fold(s.unflatten(1, (2, 6)), (1, 7), (1, 2))), 2 * 7),
        (lambda m, s: torch.poisson(s), math.inf),
        (lambda m, s: torch.bernoulli(s), 12),
    ],
)
def test_the_bound_behind_a_sum_or_a_draw(f, bound):
    x = torch.ones(2, 12)
    analysis = fxsynops.analyze(behind(f, x), x, audit=False)
    assert analysis.upper_bound().structural == OUT * bound


def test_poisson_draws_stay_within_the_bound():
    rates = torch.full((2, 6), 4.0)
    net = behind(lambda m, s: torch.poisson(s), rates)
    counter = fxsynops.SynOpsCounter(net, rates, input_events=False, audit=False)
    counter(rates)
    found = float(counter.synops.detach())
    assert 2 * 6 * OUT < found <= 2 * counter.analysis.upper_bound().structural


def test_softmax_of_large_values_in_one_place_stays_within_the_charge_bound():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False)
            self.iaf, self.fc3 = fxsynops.nn.IAF(), nn.Linear(1, OUT)
            with torch.no_grad():
                self.fc1.weight.copy_(40 * torch.eye(4))
                self.fc2.weight.copy_(torch.tensor([[1.1, 0, 0, 0]]))

        def forward(self, x):
            return self.fc3(self.iaf(self.fc2(self.fc1(x).softmax(-1))))

    x = torch.tensor([1.0, 0, 0, 0]).expand(1, 10, 4)
    net = Attends()
    counter = fxsynops.SynOpsCounter(net, x, layout="NT")
    net.iaf.reset_states()
    counter(x)
    assert float(counter.per_synapse["fc3"].detach()) == OUT * 11  # 10 steps of a charge of 1.1
    net.iaf.reset_states()
    assert 11 * OUT <= charge(counter.analysis, "fc3") < math.inf


def test_a_forward_that_writes_to_a_neuron_with_out_ends_its_charge_bound():
    class Charged(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 2, bias=False), nn.Linear(2, OUT)
            self.iaf = fxsynops.nn.IAF()
            nn.init.constant_(self.fc1.weight, 0.3)

        def forward(self, x):
            torch.add(self.iaf.v_mem, 5.0, out=self.iaf.v_mem)
            return self.fc2(self.iaf(self.fc1(x)))

    x = torch.ones(1, 3, 4)
    net = Charged()
    net.iaf.v_mem = torch.zeros(1, 2)
    counter = fxsynops.SynOpsCounter(net, x, layout="NT")
    bound = charge(counter.analysis, "fc2")
    counter(x)
    events = int(5 + 3 * 4 * 0.3)
    assert float(counter.per_synapse["fc2"].detach()) == 2 * OUT * events
    assert 2 * OUT * events <= bound


# -- sums in which something cancels ---------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda m, s, h: torch.rsub(h, h.round()).detach() + h,
        lambda m, s, h: torch.rsub(h.round(), h, alpha=1) * -1 + h,
        lambda m, s, h: h - torch.rsub(h.round(), h),
        lambda m, s, h: h - (h + s),
        lambda m, s, h: (h - s) - h,
        lambda m, s, h: torch.rsub(h + s, h),
        lambda m, s, h: -(h + s) + h,
        lambda m, s, h: h.sub(h - s - s),
        lambda m, s, h: (h + s) - h - 3 * s,
    ],
)
def test_what_is_left_of_a_sum_is_events_whatever_their_sign(f):
    h = 1.5 * ANALOG
    net = behind(f, MANY, h)
    wanted = float(arriving(net, MANY, h).abs().round().sum())
    assert count(net, MANY, h, input_events=[True, False]) == (wanted, 0)


# -- events and analog values in one tensor --------------------------------------------------------


def test_a_sum_is_analog_wherever_one_of_its_terms_is():
    def f(m, s, t, h):
        one = torch.cat([h[:, :2], s[:, 2:]], 1)
        other = torch.cat([t[:, :1], h[:, 1:4], t[:, 4:]], 1)
        return one + other

    for order in (f, lambda m, s, t, h: f(m, s, t, h) * 1 + torch.cat([s[:, :4], t[:, 4:]], 1)):
        net = behind(order, X, Y, ANALOG)
        found, macs = count(net, X, Y, ANALOG, input_events=[True, True, False])
        arrive = arriving(net, X, Y, ANALOG)[:, 4:]
        assert (found, macs) == (float(arrive.sum()), 4)


# -- products of events ----------------------------------------------------------------------------

Q, K = whole(2, 5, 4, most=2), whole(2, 5, 4, seed=1)
MASK = torch.tensor([1.0, 0, 1, 0])


@pytest.mark.parametrize(
    ("f", "worth"),
    [
        (lambda m, q, k: torch.baddbmm(torch.zeros(()), q, k.mT, alpha=0.5), 0.5),
        (lambda m, q, k: torch.baddbmm(torch.zeros(5), 0.5 * q, k.mT, alpha=3), 1.5),
        (lambda m, q, k: torch.baddbmm(m.kept, q, k.mT, beta=0), 1),
        (lambda m, q, k: torch.baddbmm(q[:, :, :1].sigmoid(), q, k.mT, beta=0, alpha=0.25), 0.25),
        (lambda m, q, k: torch.baddbmm(m.kept, q, k.mT, beta=0).relu(), 1),
        (lambda m, q, k: q @ (k * MASK).mT, 1),
        (lambda m, q, k: q @ (k * (m.kept[:4] > 0)).mT, 1),
        (lambda m, q, k: (0.5 * q * torch.arange(4).remainder(2)) @ k.mT, 0.5),
        (lambda m, q, k: q[:, :1] @ k.mT, 1),
        (lambda m, q, k: q @ k[:1].mT, 1),
        (lambda m, q, k: q[:1, :, :1] @ k.mT[:, :1], 1),
    ],
)
@pytest.mark.parametrize("weights", ["all", "nonzero"])
def test_coincidences_are_counted_and_so_are_the_events_that_they_make(f, worth, weights):
    net = behind(f, Q, K, kept=torch.tensor([0.0, 2, 0, 1, 3]))
    counter = fxsynops.SynOpsCounter(net, (Q, K), audit=False, weights=weights)
    counter(Q, K)
    found = {name: float(v.detach()) for name, v in counter.per_synapse.items()}
    coincidences = float(arriving(net, Q, K).sum()) / worth
    assert found.pop("fc") == OUT * coincidences > 0
    assert list(found.values()) == [coincidences]


@pytest.mark.parametrize(
    ("left", "right", "equation"),
    [
        ((2, 5, 4), (1, 4, 3), "bik,bkj->bij"),
        ((1, 5, 4), (2, 4, 3), "bik,bkj->bij"),
        ((2, 1, 4), (2, 4, 3), "bik,bkj->bij"),
        ((2, 5, 1), (2, 4, 3), "bik,bkj->bij"),
        ((2, 5, 1), (2, 1, 3), "bik,bkj->bij"),
        ((1, 1, 1), (2, 4, 3), "bik,bkj->bij"),
    ],
)
@pytest.mark.parametrize("weights", ["all", "nonzero"])
def test_weights_count_in_products_with_axes_of_one(left, right, equation, weights):
    weight = real(*right) * whole(*right, seed=2)
    s = 1 + whole(*left, most=3)

    class Weighs(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, s):
            return torch.einsum(equation, s, self.weight)

    counter = fxsynops.SynOpsCounter(Weighs(), s, layout="", weights=weights, audit=False)
    counter(s)
    used = (weight != 0).float() if weights == "nonzero" else torch.ones(right)
    wanted = torch.einsum(equation, s, used).sum()
    assert float(counter.synops.detach()) == float(wanted) > 0


def test_grouped_queries_meet_the_keys_of_their_own_group():
    q, k, v = whole(2, 4, 5, 3, most=3), whole(2, 2, 5, 3, seed=1), whole(2, 2, 5, 3, seed=2)
    k[:, 1] = 0  # only the first two heads of the queries have any to meet

    def f(m, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    counter = fxsynops.SynOpsCounter(behind(f, q, k, v), (q, k, v), audit=False)
    counter(q, k, v)
    found = {name.split(".")[-1].split(":")[0]: n for name, n in counter.per_synapse.items()}
    wanted = sum(float((q[:, h] @ k[:, h // 2].mT).sum()) for h in range(4))
    assert float(found["query_key"]) == wanted == float((q[:, :2] @ k[:, :1].mT).sum()) > 0
    assert float(found["attention_value"]) == 2 * 5 * float(v.sum())


def test_one_weight_for_each_element_counts_unless_it_is_zero():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([0.5, 0, -2, 0, 0, 1]))

        def forward(self, s):
            return one_to_one(s, self.weight)

    net = Own()
    for weights, used in (("all", torch.ones(6)), ("nonzero", (net.weight != 0).float())):
        counter = fxsynops.SynOpsCounter(net, MANY, weights=weights, audit=False)
        counter(MANY)
        assert float(counter.synops.detach()) == float((MANY * used).sum())
    with torch.no_grad():
        net.weight.zero_()
    counter(MANY)
    assert float(counter.synops.detach()) == 0


# -- sources, gates and connections ----------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda m, s, t: (s + t > 1.5).float(),
        lambda m, s, t: torch.heaviside(s + t - 1, torch.ones(())),
        lambda m, s, t: torch.lt(s, t).float(),
    ],
)
def test_a_comparison_of_events_is_a_neuron_of_its_own(f):
    net = behind(f, X, Y)
    (row,) = fxsynops.analyze(net, (X, Y), audit=False).connections
    assert row.sources == (row.source,) == (row.measured_at,)
    assert row.source not in ("xs_0", "xs_1")
    assert count(net, X, Y) == (float(arriving(net, X, Y).sum()), 0)


def test_a_gate_is_one_however_many_sources_are_behind_it():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.iaf = nn.Linear(6, 6), fxsynops.nn.NeuromorphicReLU()
            self.one, self.two, self.none = (nn.Linear(6, OUT) for _ in range(3))

        def forward(self, x):
            s = self.iaf(self.fc1(x))
            return self.one(s.clamp(max=1)), self.two(torch.minimum(s, x)), self.none(s)

    analysis = fxsynops.analyze(Gated(), X)
    edges = [data for *_, data in analysis.graph.edges(data=True) if data["kind"] == "connection"]
    gated = {data["connection"].synapse: data["gated"] for data in edges}
    assert gated == {"fc1": False, "one": True, "two": True, "none": False}
    behind_it = {data["connection"].synapse: data["connection"].sources for data in edges}
    assert (behind_it["one"], behind_it["two"]) == (("iaf",), ("x", "iaf"))


@pytest.mark.parametrize("first", [0, 1])
def test_a_connection_is_folded_if_one_of_its_calls_is(first):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.relu = nn.Linear(6, 6), fxsynops.nn.NeuromorphicReLU()
            self.fc = nn.Linear(6, OUT)

        def forward(self, x):
            out = []
            for call in range(2):
                s = self.relu(self.fc1(x + call))
                out.append(self.fc(s + 0.25 if call == first else s))
            return out

    rows = [c for c in fxsynops.analyze(Twice(), X).connections if c.synapse == "fc"]
    assert [(row.source, row.folded) for row in rows] == [("relu", True)]


def test_calls_that_another_part_of_a_source_reaches_have_a_row_of_their_own():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.relu = nn.Linear(6, 6), fxsynops.nn.NeuromorphicReLU()
            self.fc = nn.Linear(6, OUT)

        def forward(self, x):
            whole, part = (self.relu(self.fc1(x + call)) for call in range(2))
            return self.fc(whole), self.fc(F.pad(part[:, :2], (0, 4)))

    rows = [c for c in fxsynops.analyze(Parts(), X, layout="N").connections if c.source == "relu"]
    assert {row.synapse: row.fanout.total for row in rows} == {"fc": 6 * OUT, "fc#2": 2 * OUT}


def test_calls_of_another_geometry_have_a_row_of_their_own():
    class Sizes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 2, 3, padding=1, bias=False)

        def forward(self, s):
            parts = s[..., :8], s[..., 8:], s[..., 1:9], s[..., 4:8]
            return [self.conv(part) for part in parts]

    s = whole(2, 1, 12, most=3)
    counter = fxsynops.SynOpsCounter(Sizes(), s, audit=False)
    counter(s)

    def pairs(x):
        return 2 * float(F.conv1d(x, torch.ones(1, 1, 3), padding=1).sum())

    long, short = pairs(s[..., :8]) + pairs(s[..., 1:9]), pairs(s[..., 8:]) + pairs(s[..., 4:8])
    found = {name: float(n.detach()) for name, n in counter.per_synapse.items()}
    assert found == {"conv": long, "conv#2": short}


def test_a_state_holds_events_of_the_worth_that_was_written():
    class Delays(nn.Module):
        def __init__(self, worth):
            super().__init__()
            self.worth, self.fc = worth, nn.Linear(6, OUT)
            self.register_buffer("before", torch.zeros(20, 6))

        def forward(self, s):
            y = self.fc(self.before)
            self.before = self.worth * s
            return y

    for worth in (0.5, 0.3, -4.0):
        counter = fxsynops.SynOpsCounter(Delays(worth), MANY, audit=False)
        assert counter.analysis.dense == ()
        for wanted in (0.0, float(MANY.sum()), float(X.sum())):
            counter(MANY if wanted == 0 else X)
            assert float(counter.per_synapse["fc"].detach()) == OUT * wanted


# -- what the recorder sees ------------------------------------------------------------------------


class FiresTwice(nn.Module):
    """A neuron that returns its spikes twice, and its input."""

    def forward(self, x):
        s = (x > 0).float()
        return s, s, x


class FiresSecond(FiresTwice):
    """Of whose parts the second one is known to be spikes."""


class FiresThird(nn.Module):
    """Spikes in a tuple, once beside and once behind the state."""

    def forward(self, x):
        s = (x > 0).float()
        return s, x, s


fxsynops.register_spiking(FiresTwice, output=0, max_spikes=1)
fxsynops.register_spiking(FiresSecond, output=1, max_spikes=1)
fxsynops.register_spiking(FiresThird, output=2, max_spikes=1)


@pytest.mark.parametrize(
    ("neuron", "used"),
    [
        (FiresTwice, 0),
        (FiresTwice, 1),
        (FiresSecond, 0),
        (FiresSecond, 1),
        (FiresThird, 0),
        (FiresThird, 2),
    ],
)
def test_spikes_that_are_returned_twice_are_spikes_in_both_places(neuron, used):
    class Uses(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.neuron, self.fc = nn.Linear(6, 6), neuron(), nn.Linear(6, OUT)

        def forward(self, x):
            return self.fc(self.neuron(self.fc1(x))[used])

    net = Uses()
    wanted = float(arriving(net, X).sum())
    assert 0 < wanted < X.numel()
    assert count(net, X) == (wanted, 0)


def test_a_function_of_torchs_own_hands_events_on():
    net = behind(lambda m, s: Resize.apply(s, s.shape), MANY)
    assert count(net, MANY) == (float(MANY.sum()), 0)


# -- samples and steps in one axis -----------------------------------------------------------------


@pytest.mark.parametrize("layout", ["(TN)", "(NT)"])
def test_samples_of_a_merged_axis_are_told_apart(layout):
    n, t = 3, 5
    x = (torch.rand(n, t, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    x[0], x[2, 1:] = 0, 1
    each = OUT * x.sum((1, 2)).double()
    merged = (x if layout == "(NT)" else x.transpose(0, 1)).flatten(0, 1)
    counter = fxsynops.SynOpsCounter(nn.Linear(6, OUT), merged, layout=layout, batch_size=n)
    spread = counter.measure([merged]).per_sample
    assert spread is not None
    assert (spread.samples, spread.min, spread.max) == (n, float(each.min()), float(each.max()))
    assert spread.mean == pytest.approx(float(each.mean()))
    assert spread.std == pytest.approx(float(each.std()))


@pytest.mark.parametrize("axes", ["N", "T", ""])
def test_a_merged_axis_has_no_order_unless_the_layout_tells_it(axes):
    window = Window(2, 3)
    found = leading((6, 4), 1, window, Layout(axes, 2, 3))
    assert (found.sample, found.merged) == (None, "")
    for order, sums in (("NT", [6, 15]), ("TN", [9, 12])):
        known = leading((6, 4), 1, window, Layout(f"({order})", 2, 3))
        assert known.by_sample(torch.arange(1.0, 7)).tolist() == sums
