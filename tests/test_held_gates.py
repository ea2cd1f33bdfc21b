"""What gates, writes and sums let through, held against every input that there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product as every
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
from fxsynops.operations import Kind, operations
from fxsynops.operations.products import Product
from fxsynops.operations.written_out import differs, mixes, spreads
from tests.test_held_operations import Made, data, fixed

OUT, N = 2, 3


class Reads(nn.Module):
    """A layer behind a function of the inputs."""

    def __init__(self, f: Callable[..., Tensor], *xs: Tensor) -> None:
        super().__init__()
        self.f = f
        self.fc = nn.Linear(f(*[x.clone() for x in xs]).flatten(1).shape[1], OUT)

    def forward(self, *xs: Tensor) -> Tensor:
        return self.fc(self.f(*xs).flatten(1))


def counted(f: Callable[..., Tensor], *xs: Tensor, **options: Any) -> tuple[float, bool]:
    """The events that the layer gets, and whether its input is analog."""
    counter = fxsynops.SynOpsCounter(Reads(f, *xs), xs, audit=False, **options)
    counter(*[x.clone() for x in xs])
    synops = counter.per_synapse.get("fc", torch.zeros(()))
    return float(synops.detach()) / OUT, "fc" in {d.synapse for d in counter.analysis.dense}


def all_inputs(n: int) -> list[tuple[Tensor, ...]]:
    return [
        tuple(torch.tensor([bits[i * N : i * N + N]]).float() for i in range(n))
        for bits in every((-1, 0, 1), repeat=n * N)
    ]  # events of inputs may have signs


MASK, FIRST = torch.tensor([True, False, True]), torch.tensor([0])


def written(x: Tensor, index: Any, value: Any) -> Tensor:
    y = x * 1
    y[index] = value
    return y


BOUNDED: dict[str, Callable[..., Tensor]] = {
    "masked fill": lambda s, t: s.masked_fill(MASK, 2.0),
    "masked fill by data": lambda s, t: s.masked_fill(t > 0.5, 3.0),
    "index fill": lambda s, t: s.index_fill(1, FIRST, 2.0),
    "scatter a number": lambda s, t: s.scatter(1, FIRST[None], 4.0),
    "scatter": lambda s, t: s.scatter(1, FIRST[None], (t + t)[:, :1]).relu(),
    "index copy": lambda s, t: s.index_copy(1, FIRST, torch.full((1, 1), 3.0)).relu(),
    "masked scatter": lambda s, t: s.masked_scatter(MASK, torch.full((3,), 3.0)).relu(),
    "where": lambda s, t: torch.where(t > 0.5, s, 2.0),
    "where with a constant": lambda s, t: torch.where(MASK, torch.full((3,), 2.0), s).relu(),
    "where of both": lambda s, t: torch.where(s > t, s, t),
    "larger": lambda s, t: torch.maximum(s, t + t),
    "larger than a constant": lambda s, t: torch.maximum(s, torch.tensor([0.0, 2, 1])),
    "smaller": lambda s, t: torch.minimum(s, t + t),
    "smaller than a constant": lambda s, t: torch.minimum(s + t, torch.tensor([1.0, 1, 0])),
    "relu": lambda s, t: F.relu(s + t),
    "relu of a difference": lambda s, t: F.relu(s - t),
    "clamp": lambda s, t: (s + t).clamp(0, 1),
    "clamp from one": lambda s, t: (s + t).clamp(1, 3),
    "clamp max": lambda s, t: (s + t + s).clamp_max(2),
    "hardtanh": lambda s, t: F.hardtanh(s + t, 0.0, 1.0),
    "abs": lambda s, t: (s - t - t).abs(),
    "threshold": lambda s, t: F.threshold(s + t, 0.5, 0.0),
    "product": lambda s, t: s * (t + t),
    "cat": lambda s, t: torch.cat([s, torch.full((1, 2), 3.0)], 1).relu(),
    "cat of sums": lambda s, t: torch.cat([s, s + t], 1).relu(),
    "stack": lambda s, t: torch.stack([s, torch.full((1, 3), 2.0)], 1).relu(),
    "hstack": lambda s, t: torch.hstack([s, torch.full((1, 2), 2.0), t]).relu(),
    "write": lambda s, t: written(s, (slice(None), 1), 2.0).relu(),
    "write a constant": lambda s, t: written(s, (..., slice(1, 3)), torch.ones(2) * 3).relu(),
    "write a sum": lambda s, t: written(s, (slice(None), slice(0, 1)), (t + t)[:, :1]).relu(),
    "write into a constant": lambda s, t: written(torch.ones(1, 3) * 2, (0, 0), s[0, 0]).relu(),
    "slice scatter": lambda s, t: torch.slice_scatter(s, torch.full((1, 2), 3.0), 1, 1).relu(),
    "largest": lambda s, t: (s + t).amax(1, keepdim=True),
    "smallest": lambda s, t: (s + t).amin(1, keepdim=True),
    "largest of a window": lambda s, t: F.max_pool1d(s + t, 2, 1),
    "sorted": lambda s, t: (s + t).sort(1)[0],
    "topk": lambda s, t: (s + t).topk(2, 1)[0],
    "gathered": lambda s, t: (s + t).gather(1, torch.tensor([[0, 0, 2]])).relu(),
    "twice a sum": lambda s, t: F.relu(2 * (s + t)),
    "sum over an axis": lambda s, t: F.relu((s + t).sum(1, keepdim=True)),
    "coincidences": lambda s, t: (s @ t.mT).relu(),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDED)
def test_a_gate_is_bounded_by_the_most_that_some_input_lets_through(name):
    f = BOUNDED[name]
    ones = (torch.ones(1, N), torch.ones(1, N))
    counter = fxsynops.SynOpsCounter(Reads(f, *ones), ones, audit=False)
    inputs = all_inputs(2)
    ys = torch.stack([f(*xs) for xs in inputs])
    ys = (ys / 2 if name == "twice a sum" else ys).abs()
    bound = counter.analysis.upper_bound()
    structural = sum(r.structural for r in bound.rows if r.connection.synapse == "fc")
    assert structural == OUT * ys[0].numel() * float(ys.max())
    for k in range(0, len(inputs), 97):
        counter(*inputs[k])
        assert float(counter.per_synapse["fc"].detach()) == OUT * float(ys[k].sum())


# -- what is computed twice ------------------------------------------------------------------------

S = (torch.rand(4, N, generator=torch.Generator().manual_seed(0)) < 0.5).float()
H = torch.randn(4, N, generator=torch.Generator().manual_seed(1))
TWO = {"input_events": [True, False]}


@pytest.mark.parametrize(
    "f",
    [
        lambda s, h: s + torch.sigmoid(h) - torch.sigmoid(h),
        lambda s, h: torch.sigmoid(h) + s - torch.sigmoid(h),
        lambda s, h: s + (h * 2).tanh() - (h * 2).tanh(),
        lambda s, h: s + h.clone().sigmoid() - h.detach().sigmoid(),
        lambda s, h: s + torch.softmax(h, 1) - torch.softmax(h, 1),
        lambda s, h: s + F.softmax(h, dim=1) - F.softmax(h, dim=1),
        lambda s, h: s + h.clamp(0, 1) - h.clamp(0, 1),
        lambda s, h: s + torch.cat([h, h], 1)[:, :N] - torch.cat([h, h], 1)[:, :N],
    ],
)
def test_what_is_computed_twice_from_the_same_cancels(f):
    found, analog = counted(f, S, H, **TWO)
    assert (found, analog) == (float(S.sum()), False)


@pytest.mark.parametrize(
    "f",
    [
        lambda s, h: s + torch.rand_like(h) - torch.rand_like(h),
        lambda s, h: s + F.dropout(h) - F.dropout(h),
        lambda s, h: s + F.rrelu(h, training=True) - F.rrelu(h, training=True),
        lambda s, h: s + F.gumbel_softmax(h) - F.gumbel_softmax(h),
        lambda s, h: s + h.clamp(0, 1) - h.clamp(0, 2),
        lambda s, h: s + torch.softmax(h, 1) - torch.softmax(h, 0),
        lambda s, h: s + F.softmax(h, dim=1) - F.softmax(h, dim=0),
        lambda s, h: s + (h * 2).tanh() - (h * 3).tanh(),
        lambda s, h: s + h.sin() - h.cos(),
        lambda s, h: s + h.sin() - 2 * h.sin(),
        lambda s, h: s + 0.5 * h,
        lambda s, h: s + h - 0.5 * h,
        lambda s, h: s + h[:1] - h,
    ],
)
def test_what_is_another_or_not_all_of_it_does_not_cancel(f):
    found, analog = counted(f, S, H, **TWO)
    assert (found, analog) == (0, True)


# -- products that are written out -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "equation"),
    [
        ((2, 4), (3, 4), "bi,oi->bo"),
        ((4,), (3, 4), "i,oi->o"),
        ((2, 4), (4,), "bi,i->b"),
        ((2, 4), (4,), "bi,i->bi"),
        ((2, 4), (2, 4), "bi,bi->"),
        ((2, 4), (2, 4), "bi,bi->b"),
        ((2, 3, 4), (3, 4), "boi,oi->bo"),
        ((2, 3, 4), (3, 4), "boi,oi->b"),
        ((2, 3, 4), (3,), "boi,o->bi"),
        ((2, 3, 4), (3,), "boi,o->boi"),
        ((2, 1, 4), (3, 4), "boi,oi->bo"),
        ((2, 3, 1), (3, 4), "boi,oi->bo"),
        ((5,), (3,), "i,o->io"),
        ((5, 1), (1, 3), "io,io->io"),
    ],
)
def test_weights_that_differ_within_a_sum_mix(left, right, equation):
    terms, _, kept = equation.partition("->")
    s, t = terms.split(",")
    nodes = Made(torch.mul, data(*left), data(*left)).nodes[:1]
    nodes += Made(torch.mul, data(*right), data(*right)).nodes[:1]
    made = Product((nodes[0], nodes[1]), (tuple(s), tuple(t)), tuple(kept))
    sizes = made.sizes
    x = torch.zeros(left, dtype=torch.float64, requires_grad=True)
    w = torch.rand(right, dtype=torch.float64)

    def run(x: Tensor) -> Tensor:
        full = [v.expand([sizes[i] for i in term]) for v, term in ((x, s), (w, t))]
        return torch.einsum(equation, *full)

    slopes = torch.autograd.functional.jacobian(run, x)
    slopes = slopes.reshape(-1, x.numel())
    each = [row[row != 0].unique().numel() for row in slopes]
    mixed = max(each) > 1
    assert mixes(made, 1) == mixed
    others = len({tuple(row[row != 0].tolist()) for row in slopes}) > 1
    assert differs(made, 1) == (mixed and (others or len(kept) < 2))
    assert spreads(made, 1) == (made.terms > x.numel())


# -- what may hold events, and what steers ---------------------------------------------------------

INDEX = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "carries", "steers"),
    [
        ((torch.add, data(3, 4), data(4)), (0, 1), ()),
        ((torch.index_select, data(3, 4), 0, INDEX), (0,), (1,)),
        ((torch.where, fixed(3, 4) > 0, data(3, 4), data(4)), (1, 2), (0,)),
        ((torch.masked_fill, data(3, 4), fixed(3, 4) > 0, 1.0), (0,), (1,)),
        ((torch.Tensor.view_as, data(3, 4), fixed(4, 3)), (0,), ()),
        ((torch.Tensor.copy_, data(3, 4), data(4)), (1,), ()),
        ((torch.cat, [data(3, 4), fixed(3, 4)]), (0, 1), ()),
        ((F.linear, data(3, 4), fixed(2, 4), fixed(2)), (0, 1), (2,)),
        ((F.batch_norm, data(3, 4), fixed(4), fixed(4).abs()), (0,), (1, 2)),
        ((torch.zeros_like, data(3, 4)), (), ()),
        ((torch.gt, data(3, 4), fixed(4)), (0, 1), ()),
        ((torch.softmax, data(3, 4), 0), (0,), ()),
        ((torch.scatter, data(3, 4), 0, fixed(1, 4, most=3), data(1, 4)), (0, 2), (1,)),
    ],
    ids=lambda c: getattr(c[0], "__name__", None) if isinstance(c, tuple) and c else None,
)
def test_operands_carry_events_or_steer_them(call, carries, steers):
    made = Made(*call)
    nodes = list(made.values)
    entry = operations.by_name[made.call.name]
    assert entry.carriers(made.call) == [nodes[i] for i in carries]
    assert entry.steers(made.call) == [nodes[i] for i in steers]


@pytest.mark.parametrize("part", [0, 1])
def test_each_part_of_tensors_that_are_broadcast_is_of_one_operand(part):
    made = Made(torch.broadcast_tensors, data(3, 1), data(4), part=part)
    assert made.entry.carriers(made.call) == [made.nodes[part]]
    assert made.entry.carriers(replace(made.call, output=None)) == made.nodes


@pytest.mark.parametrize(
    ("call", "options", "known"),
    [
        ((torch.round, data(3)), {}, True),
        ((torch.round, data(3)), {"decimals": 1}, False),
        ((torch.sum, data(3)), {"dtype": torch.float64}, True),
        ((F.relu, data(3)), {"inplace": True}, True),
        ((torch.threshold, data(3), 0.5, 2.0), {}, True),
        ((F.softshrink, data(3), 0.3), {}, True),
        ((F.leaky_relu, data(3), 0.3), {}, True),
        ((F.lp_pool1d, data(1, 4), 1, 2), {}, True),
        ((torch.nan_to_num, data(3), 1.0, 2.0), {}, True),
    ],
)
def test_an_entry_speaks_for_calls_whose_arguments_it_has_considered(call, options, known):
    target, *args = call
    if not known:
        with pytest.raises(AssertionError):
            Made(target, *args, **options)
        return
    assert Made(target, *args, **options).entry is not None


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "amax", "amin", "mean", "prod"])
def test_what_is_scattered_adds_up_or_the_largest_stays(reduce, own):
    index = torch.tensor([[0, 0, 1]])
    made = Made(torch.scatter_reduce, data(1, 3), 1, index, data(1, 3), reduce, include_self=own)
    gate = reduce == "sum" or (reduce in ("amax", "amin") and own)
    assert made.entry.kind is (Kind.GATE if gate else Kind.ANALOG)
    assert made.entry.analog_only == (not gate)
    if gate:
        assert made.entry.gain(made.call) == (float("inf") if reduce == "sum" else 1)


class OwnNorm(nn.BatchNorm1d):
    """A norm of the user's."""


def test_modules_are_known_by_their_types_and_those_that_they_are_made_of():
    norm = operations.by_name["batch_norm"]
    assert operations.find("m", None, OwnNorm(3)) is norm
    assert operations.find("m", None, nn.Linear(2, 2)) is None
    assert operations.find(torch.add, OwnNorm, None) is None
    assert operations.find(torch.add, None, None) is operations.by_name["add"]


# -- places that data decide -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda s, i: s.select(1, i)[:, None],
        lambda s, i: torch.narrow(s, 1, i, 1),
        lambda s, i: s[:, i][:, None],
        lambda s, i: s[:, i : i + 1],
        lambda s, i: s.index_select(1, i[None]),
        lambda s, i: s[:, i[None]],
        lambda s, i: s.take_along_dim(i.expand(4, 1), 1),
        lambda s, i: s.gather(1, i.expand(4, 1)),
        lambda s, i: s.take(i[None] * 2)[None],
        lambda s, i: s.flatten()[i[None] + 1][None],
        lambda s, i: torch.tensor_split(s, i[None] + 1, 1)[0].sum(1, keepdim=True),
        lambda s, i: s.roll(int(i), 1)[:, :2],
        lambda s, i: s.unbind(1)[i][:, None],
        lambda s, i: written(s, (slice(None), i), 0.0),
        lambda s, i: written(s, (slice(None), i[None]), s[:, :1]),
        lambda s, i: torch.index_put(s, (i[None],), s[:1]),
        lambda s, i: torch.zeros_like(s).index_copy(1, i[None], s[:, :1]),
        lambda s, i: s.masked_fill(torch.arange(N) == i, 0.0),
    ],
)
def test_events_go_where_other_inputs_say_or_the_call_is_refused(f):
    def run(s: Tensor, i: Tensor) -> Tensor:
        return f(s, i.argmax())

    s = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0]])
    first, last = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1])
    try:
        counter = fxsynops.SynOpsCounter(Reads(run, s, first), (s, first), audit=False, **TWO)
    except fxsynops.FxSynopsError:
        return
    for i in (first, last):
        try:
            counter(s, i)
        except fxsynops.FxSynopsError:
            continue
        synops = counter.per_synapse.get("fc", torch.zeros(()))
        assert float(synops.detach()) == OUT * float(run(s, i).sum())


# -- what each element is worth --------------------------------------------------------------------

WORTH = torch.tensor([0.5, 2.0, 3.0])
MANY = torch.tensor([[1.0, 2, 0], [0, 1, 3], [2, 0, 1], [1, 1, 1]])


@pytest.mark.parametrize(
    "keep",
    [
        lambda y: y.clone(),
        lambda y: y.detach(),
        lambda y: y.contiguous(),
        lambda y: y.double().float(),
        lambda y: y.to(torch.float64).to(torch.float32),
        lambda y: torch.positive(y),
        lambda y: -y,
        lambda y: F.dropout(y, 0.5, training=False),
        lambda y: F.alpha_dropout(y, 0.5, training=False),
        lambda y: torch.as_tensor(y),
        lambda y: y + torch.zeros(3),
        lambda y: y.type(torch.float64).float(),
    ],
)
@pytest.mark.parametrize("gate", [lambda y: y.abs(), lambda y: F.relu(y) + F.relu(-y)])
def test_what_each_element_is_worth_goes_through_what_leaves_it_in_its_place(keep, gate):
    found, analog = counted(lambda s: gate(keep(s * WORTH)), MANY)
    assert (found, analog) == (float(MANY.sum()), False)


# -- what is said of analog values only ------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda s: torch.remainder(s, 0.7),
        lambda s: s % 1.5,
        lambda s: torch.fmod(s, 2.5),
        lambda s: F.embedding(torch.tensor([[0, 1], [1, 1], [2, 3], [3, 0]]), s),
        lambda s: torch.cdist(s, s),
        lambda s: torch.fft.fft(s).abs(),
        lambda s: torch.fft.rfft(s).abs(),
        lambda s: torch.fft.irfft(torch.fft.rfft(s)),
        lambda s: torch.stft(s.repeat(1, 4), 4, return_complex=True, window=torch.ones(4)).abs(),
        lambda s: s.scatter_reduce(1, torch.zeros(4, 3, dtype=torch.int64), s, "mean"),
        lambda s: s.index_reduce(1, torch.tensor([0, 0, 1]), s, "mean"),
    ],
)
@pytest.mark.filterwarnings("ignore:index_reduce")
def test_operations_of_analog_values_refuse_events(f):
    with pytest.raises(fxsynops.UnsupportedOperationError):
        counted(f, MANY)

    class Behind(nn.Module):  # where all is analog, it is
        def __init__(self):
            super().__init__()
            self.neuron, self.fc = fxsynops.nn.NeuromorphicReLU(), nn.Linear(3, OUT)
            self.read = Reads(f, MANY)

        def forward(self, x):
            return self.fc(self.neuron(x)), self.read(x)

    analysis = fxsynops.analyze(Behind(), MANY, input_events=False, audit=False)
    assert {d.synapse for d in analysis.dense} == {"read.fc"}
