"""Replays count what the model does: by sample, in all modes, and when what decides has changed."""

from __future__ import annotations

import copy
import io
import itertools
import math
from dataclasses import dataclass

import pytest
import sinabs.layers as sl
import snntorch
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import fx, nn
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset

import fxsynops
import fxsynops.nn as fnn
from fxsynops.connectivity.sample_axes import Leading
from fxsynops.counting import program
from fxsynops.counting.data_sets import _samples
from fxsynops.counting.exact_sums import Reading, Term, sum_events
from fxsynops.counting.per_sample import PerSample
from fxsynops.counting.replay import Detail, Replay
from fxsynops.errors import InputError
from fxsynops.tracing.inputs import Window
from tests.outcome import same
from tests.test_held_audits import DIRECT, INDIRECT, OUT, SIGNED, Net, X, net

MODELS = {name: case[:2] for name, case in (DIRECT | INDIRECT).items()}


class Stepping(Replay):
    """Runs node by node."""

    def run_node(self, n):
        return super().run_node(n)


@pytest.mark.parametrize("name", MODELS)
def test_node_by_node_is_what_is_written_out(name):
    model, x = MODELS[name]
    for options in ({}, {"events": "nonzero", "weights": "nonzero"}):
        analysis = fxsynops.analyze(model, x, audit=False, **options)
        found = [kind(analysis).count((x.clone(),)) for kind in (Replay, Stepping)]
        assert same(found[0][0], model(x.clone()))
        assert same(found[1][0], found[0][0])
        assert found[0][1].both().equal(found[1][1].both())
        assert found[0][1].total() > 0


BETWEEN = {
    "nothing": lambda _, x: x,
    "a half": lambda _, x: x * 0.5,
    "a factor of each": lambda m, x: x * m.by,
    "a divisor of each": lambda m, x: x / m.by,
    "a gate": lambda m, x: torch.relu(x * 0.5),
    "two": lambda m, x: x + 0 * x.flip(1),
}


@pytest.mark.parametrize("x", [X, SIGNED])
@pytest.mark.parametrize("weights", ["all", "nonzero"])
@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("events", ["value", "nonzero"])
def test_counts_have_the_derivative_of_their_events(events, name, weights, x):
    """One for each event and synapse, with its sign, where events are measured."""
    model = Net(BETWEEN[name], by=torch.tensor([0.5, 1, 2, 4, 1.0, 1]))
    x = x.clone().requires_grad_()
    counter = fxsynops.SynOpsCounter(model, x, events=events, weights=weights)
    counter(x)
    (found,) = torch.autograd.grad(counter.synops, x)
    if events == "nonzero":  # of the values themselves, at the synapse's input
        values = model.function(model, x)
        sizes = torch.where(values < 0, -values, values)
        (expected,) = torch.autograd.grad(OUT * sizes.sum(), x)
    else:  # of events, at their source; behind the gate only where it lets them pass
        expected = OUT * torch.where(x < 0, -1.0, 1.0)
        expected = OUT * (x > 0).float() if name == "a gate" else expected
    torch.testing.assert_close(found, expected.detach())


# -- what decides follows --------------------------------------------------------------------------

DECIDES = {
    "a mask": lambda x, m, i: x * m,
    "a mask of samples": lambda x, m, i: x * m[:2, None],
    "a mask and places": lambda x, m, i: (x * m)[:, i],
    "places and a mask": lambda x, m, i: x[:, i] * m,
    "two masks": lambda x, m, i: x * m + x.flip(1) * m.flip(0),
    "where": lambda x, m, i: torch.where(m != 0, x, torch.zeros(())),
    "filled": lambda x, m, i: x.masked_fill(m == 0, 0),
    "places that are written": lambda x, m, i: torch.zeros_like(x).index_add(1, i, x),
    "another order of each": lambda x, m, i: x.gather(1, i.expand(2, 6)),
    "an embedding of steps": lambda x, m, i: torch.stack([x * m[k] for k in range(6)], 1).sum(1),
}


@pytest.mark.parametrize("weights", ["all", "nonzero"])
@pytest.mark.parametrize("name", DECIDES)
def test_counts_follow_masks_places_and_weights(name, weights):
    model = Net(lambda m, x: DECIDES[name](x, m.mask, m.at), mask=torch.ones(6), at=torch.arange(6))
    counter = fxsynops.SynOpsCounter(model, X, weights=weights)
    draw = torch.Generator().manual_seed(3)
    for _ in range(5):
        model.mask.copy_(torch.randint(0, 2, (6,), generator=draw))
        model.at.copy_(torch.randint(0, 6, (6,), generator=draw))
        with torch.no_grad():
            model.head.weight.copy_(torch.randint(-1, 2, (OUT, 6), generator=draw))
        x = torch.randint(0, 4, (2, 6), generator=draw).float()
        arrived = DECIDES[name](x, model.mask, model.at)
        ones = torch.ones(OUT, 6) if weights == "all" else (model.head.weight != 0).float()
        for kept in (0, 1):  # the second time, nothing has changed
            y = counter(x)
            assert y.equal(model(x)), kept
            assert float(counter.synops.detach()) == float(F.linear(arrived, ones).sum())


@pytest.mark.parametrize("weights", ["all", "nonzero"])
def test_weights_that_the_forward_changes_after_their_use_count_as_they_were(weights):
    class Decays(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.tensor([[2.0, 0, 1], [1, 1, 0]]))

        def forward(self, x):
            y = F.linear(x, self.weight)
            self.weight.sub_(1).clamp_(min=0)
            return y

    model = Decays()
    x = torch.tensor([[1.0, 2, 3]])
    counter = fxsynops.SynOpsCounter(model, x, weights=weights)
    found = [float((counter(x), counter.synops)[1]) for _ in range(3)]
    assert found == ([1 + 3 + 1 + 2, 1, 0] if weights == "nonzero" else [12, 12, 12])
    (row,) = counter.analysis.audit.rows
    if weights == "nonzero":  # which were zero is not known any more
        assert (row.left, row.arrived, row.agrees) == (7, None, None)
    else:
        assert (row.left, row.agrees) == (row.arrived, True)


def test_a_mask_that_the_forward_makes_and_clears_counts_as_it_was():
    def cleared(m, x):
        mask = m.mask * 1
        y = x * mask
        mask.zero_()
        return y

    model = Net(cleared, mask=torch.ones(6))
    counter = fxsynops.SynOpsCounter(model, X)
    for k in range(4):
        model.mask[k] = 0
        counter(X)
        assert float(counter.synops.detach()) == OUT * float(X[:, k + 1 :].sum())


class Graded(nn.Module):
    """A snntorch neuron whose spikes are worth something that may change, or be learned."""

    def __init__(self, factor, learn, gate=None):
        super().__init__()
        self.gate = gate or (lambda spikes: spikes)
        self.neuron = snntorch.Leaky(
            beta=0.5, threshold=1.0, graded_spikes_factor=factor, learn_graded_spikes_factor=learn
        )
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        spikes, _ = self.neuron(x, torch.zeros_like(x))
        return self.fc(self.gate(spikes)), self.fc(self.gate(2 * spikes))


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("factor", [1.0, 0.3, 2.5])
def test_spikes_count_as_one_whatever_they_are_worth_now(factor, learn):
    model = Graded(factor, learn)
    x = torch.tensor([[2.0, 0, 3, 4], [0, 2, 0, 0]])
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    spikes = (model.neuron(x, torch.zeros_like(x))[0] > 0).sum()
    assert spikes == 4
    for now in (factor, 4.0, 0.7):
        with torch.no_grad():
            model.neuron.graded_spikes_factor.fill_(now)
        assert same(counter(x), model(x))
        assert float(counter.synops.detach()) == 2 * 4 * 3
        if learn:  # what spikes are worth grows as their values do
            (found,) = torch.autograd.grad(counter.synops, model.neuron.graded_spikes_factor)
            assert float(found) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("factor", "learn"), [(1.0, False), (1.0, True), (-1.0, False), (0.5, False), (0.5, True)]
)
def test_behind_a_gate_spikes_are_counted_only_if_they_are_worth_one_and_do_not_learn(
    factor, learn
):
    model, x = Graded(factor, learn, gate=torch.relu), torch.tensor([[2.0, 0, 3, 4], [0, 2, 0, 0]])
    if factor == 1 and not learn:
        counter = fxsynops.SynOpsCounter(model, x, input_events=False)
        counter(x)
        assert float(counter.synops.detach()) == 2 * 4 * 3
    else:
        with pytest.raises(fxsynops.UnsupportedOperationError, match="what one event is worth"):
            fxsynops.analyze(model, x, input_events=False)


class Worths(nn.Module):
    """Factors and divisors on both sides of a gate; the layer gets numbers of events."""

    def __init__(self, times, over):
        super().__init__()
        self.times, self.over = nn.Parameter(times), nn.Parameter(over)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(torch.relu(x * self.times / self.over))


@pytest.mark.parametrize(
    "sizes", [((), ()), ((1,), ()), ((4,), ()), ((), (4,)), ((4,), (4,)), ((2, 1), (1, 4))]
)
def test_behind_factors_and_divisors_events_are_whole_again(sizes):
    x = torch.tensor([[1.0, 2, 0, 3], [0, 1, 5, 0]])
    model = Worths(*(torch.rand(size) + 0.5 for size in sizes))
    try:
        counter = fxsynops.SynOpsCounter(model, x)
    except fxsynops.FxSynopsError:  # said, not counted wrong
        assert sizes[1] not in ((), (1,))
        return
    for _ in range(3):
        with torch.no_grad():
            for p in (model.times, model.over):
                p.copy_(torch.rand(p.shape) + 0.5)
        counter(x)
        assert float(counter.synops.detach()) == 3 * float(x.sum())
        grads = torch.autograd.grad(counter.synops, [model.times, model.over], allow_unused=True)
        assert all(g is None or g.abs().max() < 1e-3 for g in grads)  # counts do not change


@pytest.mark.parametrize("sizes", [((), ()), ((4,), ())])
def test_node_by_node_events_are_in_the_same_units(sizes):
    x = torch.tensor([[1.0, 2, 0, 3], [0, 1, 5, 0]])
    model = Worths(*(torch.rand(size) + 0.5 for size in sizes))
    _, tally = Stepping(fxsynops.analyze(model, x)).count((x,))
    assert float(tally.total().detach()) == 3 * float(x.sum())


@pytest.mark.parametrize("which", [0, 1])
def test_of_two_layers_with_zeros_one_may_change(which):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, OUT) for _ in range(2))

        def forward(self, x):
            return [layer(x) for layer in self.layers]

    model = Two()
    counter = fxsynops.SynOpsCounter(model, X, weights="nonzero")
    for k in range(4):
        with torch.no_grad():
            model.layers[which].weight[:, k] = 0
        counter(X)
        expected = OUT * (X.sum() + X[:, k + 1 :].sum())
        assert float(counter.synops.detach()) == float(expected)


# -- modes -----------------------------------------------------------------------------------------


class Modes(nn.Module):
    """Parts with and without gradients, and with another precision."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.relu = fnn.NeuromorphicReLU()

    def forward(self, x):
        with torch.no_grad():
            a = self.a(x)
        b = self.b(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            c = self.c(self.relu(b))
            with torch.autocast("cpu", enabled=False), torch.no_grad():
                d = self.c(x)
            with torch.enable_grad(), torch.autocast("cpu", dtype=torch.float16):
                e = self.a(x)
        return a, b, c, d, e


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("kind", [Replay, Stepping])
def test_each_part_runs_in_the_mode_that_it_was_recorded_in(kind, grad):
    model = Modes()
    with torch.set_grad_enabled(grad):
        analysis = fxsynops.analyze(model, X)
        found, tally = kind(analysis).count((X,))
        expected = model(X)
        assert torch.is_grad_enabled() is grad
    assert same(found, expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.dtype, ours.requires_grad) == (theirs.dtype, theirs.requires_grad)
    assert [y.requires_grad for y in expected] == [False, grad, grad, False, True]
    assert tally.both()[1].sum() == tally.total()
    assert not torch.is_autocast_enabled("cpu")
    relu = model.relu(model.b(X)).sum() * 6
    assert float(tally.total().detach()) == float((4 * 6 * X.sum() + relu).detach())


# -- by sample -------------------------------------------------------------------------------------

MIXES = {
    "nothing": (lambda x: x, True),
    "the steps": (lambda x: x.flip(1), True),
    "its sum": (lambda x: x.sum(1, keepdim=True).expand_as(x), True),
    "the order": (lambda x: x.flip(0), False),
    "its neighbor": (lambda x: x.roll(1, 0), False),
    "the first and the last": (lambda x: torch.cat([x[-1:], x[1:-1], x[:1]]), False),
    "those before": (lambda x: x.cumsum(0), False),
    "both orders": (lambda x: x + x.flip(0), False),
    "all": (lambda x: x.sum(0, keepdim=True).expand_as(x), False),
    "the first to all": (lambda x: x + x[:1], False),
    "the last to the first": (lambda x: torch.cat([x[:1] + x[-1:], x[1:]]), False),
    "two in the middle": (lambda x: x[[0, 2, 1, 3, 4]], None),
}


@pytest.mark.parametrize("name", MIXES)
def test_samples_that_mix_have_no_counts_of_their_own(name):
    mix, apart = MIXES[name]
    torch.manual_seed(2)
    x = torch.randint(0, 4, (5, 3, 6)).float() * torch.arange(1, 6)[:, None, None]

    class Mixes(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.fc = fnn.NeuromorphicReLU(), nn.Linear(6, OUT)

        def forward(self, x):
            return self.fc(self.relu(mix(x) + 1))

    counter = fxsynops.SynOpsCounter(Mixes(), x, layout="NT", input_events=False)
    counts = counter.measure([x, x[:4], x[:5]] if apart else [x, x], progress=False)
    if apart is False:
        assert counts.per_sample is None
        assert counts.extras.not_apart == (
            "it cannot be told which of the model's values belong to which sample"
        )
    elif apart:
        each = OUT * (mix(x) + 1).flatten(1).sum(1).double()
        assert (counts.per_sample.samples, counts.samples) == (14, 14)
        assert (counts.per_sample.min, counts.per_sample.max) == (each.min(), each.max())
        every = torch.cat([each, each[:4], each])
        assert counts.per_sample.mean == pytest.approx(float(every.mean()))
        assert counts.per_sample.std == pytest.approx(float(every.std()))
        assert counts.extras.not_apart == ""


def test_connections_are_told_apart_each_for_itself():
    """What one gets less the other gets more, so that their sum is of the right sample."""

    class Trades(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = fnn.NeuromorphicReLU(), fnn.NeuromorphicReLU()
            self.fc, self.other = nn.Linear(6, OUT), nn.Linear(6, OUT)

        def forward(self, x):
            y = x.flip(0)
            return self.fc(self.a(x + y)), self.other(self.b(9 - y))

    x = torch.randint(0, 5, (4, 6)).float()
    counts = fxsynops.SynOpsCounter(Trades(), x, input_events=False).measure([x], progress=False)
    assert counts.per_sample is None


@pytest.mark.parametrize("layout", ["N", "NT", "TN", "T", "", "(NT)", "(TN)"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_samples_of_any_layout_are_those_that_are_run_alone(layout, n):
    t = 3 if "T" in layout else 1
    n = n if "N" in layout else 1
    events = torch.randint(0, 4, (n, t, 6)).float() * torch.arange(1, n + 1)[:, None, None]
    x = events if layout.replace("(", "").startswith("N") else events.transpose(0, 1)
    x = {"N": lambda: x[:, 0], "T": lambda: x[:, 0], "": lambda: x[0, 0]}.get(layout, lambda: x)()
    options = {"layout": layout}
    if layout.startswith("("):
        x, options = x.flatten(0, 1), options | {"batch_size": n}
    model = nn.Sequential(fnn.NeuromorphicReLU(), nn.Linear(6, OUT))
    counter = fxsynops.SynOpsCounter(model, x, input_events=False, **options)
    counts = counter.measure([x, x], progress=False)
    each = [OUT * float(sample.sum()) for sample in events] * 2
    assert counts.total == sum(each)
    if n == t > 1 and layout in ("NT", "TN") and counts.per_sample is None:
        return  # it cannot be told which axis is which
    assert (counts.per_sample.samples, counts.per_sample.min) == (2 * n, min(each))
    assert counts.per_sample.max == max(each)


@pytest.mark.parametrize("layout", ["T", ""])
def test_samples_that_have_no_axis_are_not_told_apart(layout):
    counter = fxsynops.SynOpsCounter(net(lambda x: x), X, layout=layout, batch_size=2)
    counts = counter.measure([X, X], progress=False)
    assert (counts.samples, counts.total) == (4, 2 * OUT * float(X.sum()))
    assert counts.per_sample is None
    assert counts.extras.not_apart


def in_samples(lead, fanouts, samples, values):
    readings = [Reading(v.shape, tuple(range(v.dim()))) for v in values]
    terms = [Term(k, source, fanout, r) for k, (source, fanout, r) in enumerate(fanouts)]
    each = PerSample(terms, readings, lead, [], samples)
    parts = [sum_events(v, 1.0, r) for v, r in zip(values, readings, strict=True)]
    return each, parts


def test_terms_are_read_by_sample():
    window = Window(2, 3)
    values = [torch.randint(0, 5, size).float() for size in ((2, 3, 4), (3, 2, 4), (6, 4), (6, 4))]
    lead = [
        Leading((0, 1), 0, "", window),
        Leading((0, 1), 1, "", window),
        Leading((0,), 0, "NT", window),
        Leading((0,), 0, "TN", window),
    ]
    fanouts = [
        (0, torch.arange(4.0)[None, None], 1),
        (1, torch.tensor([[[5.0]]]), 2),
        (2, torch.tensor([[3.0]]), 1),
        (3, torch.arange(4.0)[None], 1),
        (0, torch.tensor([[[1.0]]]), 7),
    ]
    each, parts = in_samples(lead, fanouts, 2, values)
    a, b, c, d = (v.double() for v in values)
    expected = torch.stack([
        (a * torch.arange(4)).sum((1, 2)),
        10 * b.sum((0, 2)),
        3 * c.view(2, 3, 4).sum((1, 2)),
        (d * torch.arange(4)).view(3, 2, 4).sum((0, 2)),
        7 * a.sum((1, 2)),
    ])  # fmt: skip
    assert each.each(parts).equal(expected)
    assert each(parts).equal(expected.sum(0))
    assert each.known
    assert PerSample([], [], [], [], 3).each([]).shape == (0, 3)
    assert PerSample([], [], [], [], 3)([]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_samples_are_known_if_they_are_of_every_source(which):
    window = Window(2, 3)
    lead = [Leading((0,), 0, "", window) for _ in range(3)]
    assert PerSample([], [], lead, [], 2).known
    lead[which] = Leading((), None, "", window)
    assert not PerSample([], [], lead, [], 2).known
    alone = [replaced(entry, Window(1, 3)) for entry in lead]
    assert PerSample([], [], alone, [], 1).known


def replaced(lead, window):
    return Leading(lead.axes, lead.sample, lead.merged, window)


class TwoParts(nn.Module):
    """The second fires only for large values."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (
            nn.Sequential(fnn.NeuromorphicReLU(), nn.Linear(6, OUT)) for _ in range(2)
        )

    def forward(self, x):
        return self.a(x), self.b(x - 5)


@pytest.mark.parametrize(("n", "runs"), [(1, [1, 2, 3, 4]), (3, [4, 5, 9, 10])])
def test_samples_are_exchanged_once_for_all_connections_that_have_fired(n, runs, monkeypatch):
    """Three passes more, after the first batch, and again when a silent connection fires."""
    x = torch.arange(n * 6).view(n, 6).float() % 5
    counter = fxsynops.SynOpsCounter(TwoParts(), x, input_events=False)
    ran, found, usual = [], [], Replay.count
    monkeypatch.setattr(Replay, "count", lambda *args: (ran.append(1), usual(*args))[1])

    def batches():
        for k in range(4):
            yield x + 4 * (k > 1)
            found.append(len(ran))

    counts = counter.measure(batches(), progress=False)
    assert found == runs
    assert counts.per_sample.samples == 4 * n


class Attends(nn.Module):
    """Products of events with events, by an equation."""

    def __init__(self, equation):
        super().__init__()
        self.equation = equation

    def forward(self, x, y):
        return torch.einsum(self.equation, x, y)


@pytest.mark.parametrize(
    ("equation", "apart"),
    [
        ("nij,nkj->nik", True),
        ("nij,nkl->nil", True),
        ("nij,njk->nik", True),
        ("nij,mkj->nmik", False),
        ("nij,mnj->mi", False),
        ("nij,mij->nm", False),
        ("nij,nij->ij", True),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
def test_coincidences_belong_to_the_sample_that_both_are_of(equation, apart, n):
    x, y = (torch.randint(0, 3, (n, 3, 3)).float() for _ in "xy")
    counter = fxsynops.SynOpsCounter(Attends(equation), (x, y))
    counts = counter.measure([(x, y)], progress=False)
    assert counts.total == float(torch.einsum(equation, x, y).sum())
    assert (counts.per_sample is not None) is (apart or n == 1)
    if counts.per_sample is not None:
        terms, _ = equation.split("->")
        each = torch.einsum(f"{terms}->n", x, y) if n > 1 else torch.tensor([counts.total])
        assert (counts.per_sample.min, counts.per_sample.max) == (each.min(), each.max())
        assert counts.per_sample.samples == n


@pytest.mark.parametrize(
    ("layout", "equation"),
    [
        ("NT", "nti,nti->nt"),
        ("NT", "nti,nsi->nts"),  # of the step of the left one
        ("(NT)", "bi,bi->b"),
        ("(TN)", "bi,bi->b"),
        ("(NT)", "bi,bj->b"),
    ],
)
def test_coincidences_are_of_the_step_and_the_sample_that_both_are_of(layout, equation):
    n, t = 2, 3
    pair = [torch.randint(0, 3, (n, t, 4)).float() for _ in "xy"]
    apart = equation.partition("->")[0].replace("b", "nt")
    each = torch.einsum(f"{apart}->tn", *pair)
    merged = {"(NT)": lambda x: x.flatten(0, 1), "(TN)": lambda x: x.transpose(0, 1).flatten(0, 1)}
    pair = tuple(merged.get(layout, lambda x: x)(x) for x in pair)
    options = {"batch_size": n} if layout in merged else {}
    counter = fxsynops.SynOpsCounter(Attends(equation), pair, layout=layout, steps=True, **options)
    counter(*pair)
    total = counter.counts.steps.total
    assert total.mean == tuple(each.mean(1).tolist())
    assert total.max == tuple(each.amax(1).tolist())


# -- data sets -------------------------------------------------------------------------------------


def layer():
    return nn.Sequential(sl.NeuromorphicReLU(), nn.Linear(2, 3))


def counter_of(model, *example, **options):
    return fxsynops.SynOpsCounter(model, example, input_events=False, **options)


ONES = torch.ones(2, 2)


@dataclass
class Batch:
    image: torch.Tensor


@pytest.mark.parametrize(
    ("batch", "inputs"),
    [
        (ONES, None),
        ((ONES, torch.zeros(2)), None),
        ([ONES, "label", 3], None),
        ([ONES], None),
        ({"image": ONES}, lambda batch: batch["image"]),
        (Batch(ONES), lambda batch: batch.image),
        ((torch.zeros(2), ONES), lambda batch: batch[1]),
        ((torch.zeros(2), ONES), lambda batch: (batch[1],)),
        (ONES.numpy(), torch.from_numpy),
    ],
)
def test_inputs_are_got_out_of_batches_of_any_kind(batch, inputs):
    counts = counter_of(layer(), ONES).measure([batch] * 3, inputs=inputs, progress=False)
    assert (counts.samples, counts.total) == (6, 3 * 4 * 3)


class Two(nn.Module):
    """Takes two inputs."""

    def __init__(self):
        super().__init__()
        self.relu, self.fc = sl.NeuromorphicReLU(), nn.Linear(2, 3)

    def forward(self, x, y):
        return self.fc(self.relu(x - y))


def test_a_model_takes_as_many_parts_of_a_batch_as_it_was_analyzed_with():
    counter = counter_of(Two(), 3 * ONES, ONES)
    for batch in ((3 * ONES, ONES, torch.zeros(2)), [3 * ONES, ONES]):
        assert counter.measure([batch], progress=False).total == 2 * 4 * 3
    counts = counter.measure([(0, 3 * ONES, ONES)], inputs=lambda b: b[1:], progress=False)
    assert counts.total == 2 * 4 * 3


@pytest.mark.parametrize(
    ("batch", "inputs", "said"),
    [
        ({"image": ONES}, None, "is a dict of 'image', and Sequential.forward takes 'input'"),
        (ONES.numpy(), None, "a batch of the loader is a ndarray"),
        (("a", ONES), None, r"holds no tensor for the model, but \('a',\)"),
        (ONES, lambda _: "b", "holds no tensor for the model, but"),
        (ONES, lambda _: (), "holds no tensor for the model, but"),
    ],
)
def test_a_batch_without_an_input_says_so(batch, inputs, said):
    counter = counter_of(layer(), ONES)
    with pytest.raises(InputError, match=said):
        counter.measure([batch], inputs=inputs, progress=False)


def test_batches_are_moved_to_where_the_model_is_or_as_asked_for():
    counter = counter_of(layer(), ONES)
    asked = []

    class Moved(torch.Tensor):
        def to(self, device):
            asked.append(str(device))
            return torch.Tensor(self)

    batch = ONES.clone().as_subclass(Moved)
    for device, expected in ((None, "cpu"), ("cpu", "cpu"), (torch.device("cpu"), "cpu")):
        counter.measure([batch], device=device, progress=False)
        assert asked.pop() == expected
    counter.measure([(batch, "label")], progress=False)
    assert asked.pop() == "cpu"
    with pytest.raises(InputError, match=r"cannot be moved to device 'nowhere'"):
        counter.measure([ONES], device="nowhere", progress=False)
    bare = counter_of(Attends("nij,nkj->nik"), ONES[None], ONES[None])  # no parameters
    bare.measure([(batch[None], ONES[None])], progress=False)
    assert asked in ([], ["None"])


@pytest.mark.parametrize("partial", [False, True])
def test_without_batches_there_is_an_error_unless_it_was_interrupted(partial):
    def nothing():
        if partial:
            raise KeyboardInterrupt
        yield from ()

    counter = counter_of(layer(), ONES)
    counter(ONES)
    if not partial:
        with pytest.raises(InputError, match="no batches"):
            counter.measure(nothing(), progress=False)
        return
    counts = counter.measure(nothing(), progress=False)
    assert (counts.samples, counts.partial, counts.total) == (0, True, 0)
    of_none = counts.per_sample
    assert (of_none.samples, of_none.mean, of_none.squares, of_none.std) == (0, 0, 0, 0)
    assert (of_none.min, of_none.max) == (math.inf, -math.inf)


def test_an_interruption_between_counting_and_keeping_apart_is_said():
    class Interrupts(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.calls = nn.Linear(2, 3), 0

        def forward(self, x):
            return self.fc(x)

    model = Interrupts()
    counter = fxsynops.SynOpsCounter(model, ONES)
    resets = itertools.count()

    def reset(_):
        if next(resets) == 1:  # the first batch is counted, and to be told apart
            raise KeyboardInterrupt

    counts = counter.measure([ONES, ONES], reset=reset, progress=False)
    assert (counts.samples, counts.partial, counts.per_sample) == (2, True, None)
    assert counts.extras.not_apart == "counting was interrupted in the middle of a batch"


@pytest.mark.parametrize("training", [True, False])
def test_each_module_is_in_its_own_mode_afterwards_also_after_an_error(training):
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 3), nn.BatchNorm1d(3))
    model.train(training)
    model[2].train(not training)
    counter = fxsynops.SynOpsCounter(model, ONES)
    counter.train(training)
    modes = [m.training for m in counter.modules()]
    seen = []
    model[0].register_forward_pre_hook(lambda m, _: seen.append(m.training))
    seen.clear()
    counter.measure([ONES], progress=False)
    assert [m.training for m in counter.modules()] == modes
    assert seen
    assert not any(seen)
    with pytest.raises(InputError):
        counter.measure([{}], progress=False)
    assert [m.training for m in counter.modules()] == modes


@pytest.mark.parametrize("reset", [True, False, "ours"])
def test_states_are_reset_as_asked_for(reset):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4, bias=False), fnn.IAF(), nn.Linear(4, 3))
    nn.init.constant_(model[0].weight, 0.3)
    x = torch.ones(1, 1, 2)  # a charge of 0.6: it fires in two of three steps, or never
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    calls = []

    def ours(m):
        calls.append(m)
        if len(calls) % 2:
            m[1].reset_states()

    counts = counter.measure([x] * 4, reset=ours if reset == "ours" else reset, progress=False)
    spikes = counts.rows[1].events / 4
    assert spikes == {True: 0, False: 2}.get(reset, spikes)
    if reset == "ours":
        assert calls[0] is model
        assert 4 <= len(calls) <= 12


SETS = TensorDataset(torch.zeros(10, 2))


@pytest.mark.parametrize(
    ("loader", "samples"),
    [
        (DataLoader(SETS, batch_size=4), 10),
        (DataLoader(Subset(SETS, [1, 2, 3])), 3),
        (DataLoader(SETS, sampler=SubsetRandomSampler([0, 5])), 2),
        ([ONES], None),
        (iter([ONES]), None),
    ],
)
def test_a_loader_says_how_many_samples_it_has(loader, samples):
    assert _samples(loader) == samples


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("sized", [True, False])
def test_the_bar_shows_how_far_it_is(terminal, sized):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    data = TensorDataset(torch.ones(5, 2))
    loader = DataLoader(data, batch_size=2)
    counter_of(layer(), ONES).measure(loader if sized else list(loader), progress=console)
    shown = console.file.getvalue()
    assert bool(shown) is terminal
    if terminal:
        assert ("5 of 5 samples" in shown) is sized
        assert (" 5 samples" in shown.replace("of 5 samples", "")) is not sized
        assert f"{5 * 2 * 3} SynOps" in shown
        assert "\x1b[2K" in shown.rpartition("SynOps")[2]  # its line is cleared in the end


# -- what is written out ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("x", True),
        ("_x1", True),
        ("class", False),
        ("None", False),
        ("__debug__", False),
        ("with space", False),
        ("1x", False),
        ("", False),
        ("é", False),
        ("a.b", False),
        ("match", True),
    ],
)
def test_parameters_are_written_by_name_where_python_lets_them(name, plain):
    assert program._is_plain(name) is plain


def test_values_with_nodes_lists_or_dicts_inside_are_made_anew():
    node = fx.Graph().placeholder("x")
    for values, anew in (
        ((), False),
        ((1, "a", None), False),
        ((node,), True),
        ((1, [2]), True),
        (({},), True),
        ((slice(1),), True),
        ((1, (2, (3,))), False),
        ((1, (2, (node,))), True),
        (((), ((), ([],))), True),
    ):
        assert program._holds_nodes(values) is anew


@pytest.mark.parametrize("detail", [Detail(), Detail(rates=True), Detail(samples=True)])
def test_sums_are_kept_apart_only_where_they_must(detail):
    model = nn.Sequential(nn.Linear(6, 4), fnn.NeuromorphicReLU(), nn.Linear(4, 3))
    x = torch.ones(5, 6)
    analysis = fxsynops.analyze(model, x)
    replay = Replay(analysis, detail)
    _, tally = replay.count((x,))
    sizes = [part.numel() for part in tally.parts]
    expected = {(False, False): [1, 1], (True, False): [1, 4], (False, True): [5, 5]}
    assert sizes == expected[detail.rates, detail.samples]
    assert bool(replay.firing) is detail.rates
    assert (replay.per_sample is not None) is detail.samples
    expected = 5 * 6 * 4 + 3 * model[1](model[0](x)).sum()
    assert float(tally.total().detach()) == float(expected.detach())
    assert replay.keys == tuple(c.key for c in analysis.connections)
    assert list(replay.names.values()) == ["input", "1"]


@pytest.mark.parametrize(("weights", "sizes"), [("all", {(1, 1)}), ("nonzero", {(1, 6)})])
def test_sums_of_analog_values_are_kept_apart_only_where_weights_may_be_left_out(weights, sizes):
    options = {"input_events": False, "events": "nonzero", "weights": weights}
    replay = Replay(fxsynops.analyze(nn.Linear(6, OUT), X, **options))
    assert {stop.reading.shape for stop in replay._stops.values()} == sizes


@pytest.mark.parametrize(
    ("between", "sizes"),
    [
        (lambda m, x: x * m.mask, {(1, 6)}),
        (lambda m, x: x[:, m.at], {(1, 6)}),
        (lambda m, x: (x * m.mask).sum(1, keepdim=True).expand(2, 6), {(1, 6)}),
        (lambda m, x: x * m.mask[:2, None], {(2, 1)}),
        (lambda m, x: x * m.mask[0], {(1, 1)}),
    ],
)
def test_sums_are_kept_apart_along_the_axes_that_masks_or_places_vary_along(between, sizes):
    model = Net(between, mask=torch.ones(6), at=torch.arange(6))
    replay = Replay(fxsynops.analyze(model, X))
    assert {stop.reading.shape for stop in replay._stops.values()} == sizes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": "nonzero"},
        {"events": "nonzero"},
        {"events": "nonzero", "weights": "nonzero"},
    ],
)
@pytest.mark.parametrize("input_events", [True, False])
def test_what_makes_counts_of_sums_is_made_once(options, input_events):
    model = net(lambda x: x)
    counter = fxsynops.SynOpsCounter(model, X, input_events=input_events, **options)
    made = []
    for k in range(4):
        counter(X + k)
        made.append(counter._account.last[1].contraction)
    assert len({id(contraction) for contraction in made}) == 1
    with torch.no_grad():
        model.head.weight[0, 0] = 0
    counter(X)
    same_one = counter._account.last[1].contraction is made[0]
    followed = "weights" in options and (input_events or "events" in options)
    assert same_one is not followed
    followed = followed or "weights" in options or ("events" in options and not input_events)
    assert bool(counter._account.last[0]._sparse) is followed


@pytest.mark.parametrize("events", ["value", "nonzero"])
def test_analog_values_count_where_weights_and_if_asked_for_they_themselves_are_not_zero(events):
    """Also where weights become zero after the counter was made."""
    model, x = nn.Linear(4, 3), torch.tensor([[0.5, 0, 2, 1], [1, 1, 0, 0]])
    counter = fxsynops.SynOpsCounter(model, x, input_events=False, events=events, weights="nonzero")
    met = torch.ones(2, 4) if events == "value" else (x != 0).float()
    for kept in (torch.ones(3, 4), torch.eye(3, 4), torch.tensor([[1.0, 0, 1, 1]]).expand(3, 4)):
        with torch.no_grad():
            model.weight.copy_(kept)
        counter.clear()
        counter(x)
        assert counter.counts.macs == {"linear": float((met @ kept.T).sum())}


def test_events_in_a_sparse_layout_count():
    counter = fxsynops.SynOpsCounter(net(lambda x: x.to_dense()), X.to_sparse())
    counter(X.to_sparse())
    assert float(counter.synops.detach()) == OUT * float(X.sum())


def test_zeros_among_weights_count_unless_they_are_left_out():
    """Also where a mask, which is always looked at, says which events arrive."""
    masked = Net(lambda m, x: x * m.mask, mask=torch.tensor([1.0, 1, 1, 0, 0, 0]))
    with torch.no_grad():
        masked.head.weight.fill_(1.0)[:, 0] = 0
    for weights, arrives in (("all", X[:, :3]), ("nonzero", X[:, 1:3])):
        counter = fxsynops.SynOpsCounter(masked, X, weights=weights)
        counter(X)
        assert float(counter.synops.detach()) == OUT * float(arrives.sum())


def test_what_no_connection_counts_keeps_no_history():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = snntorch.Leaky(
                0.5, graded_spikes_factor=0.5, learn_graded_spikes_factor=True
            )

        def forward(self, x):
            return self.neuron(x, torch.zeros_like(x))[0]

    x = torch.tensor([[2.0, 0, 3, 4]])
    replay = Replay(fxsynops.analyze(Last(), x, input_events=False))
    _, tally = replay.count((x,))
    assert [float(part.sum()) for part in tally.parts] == [3]
    assert not any(part.requires_grad for part in tally.parts)


@pytest.mark.parametrize(
    ("between", "behind"),
    [
        (lambda x: x, "linear"),
        (lambda x: x.flip(1).flatten(1), "linear"),
        (lambda x: x.mul_(2), "x"),
    ],
)
def test_inputs_are_measured_behind_the_first_synapse_if_only_it_reads_them(between, behind):
    """Then they are in cache, and it has not waited."""
    due = Replay(fxsynops.analyze(net(between), X))._due
    assert next(node.name for node, stops in due.items() if "x" in map(str, stops)) == behind


def test_inputs_of_a_call_that_is_understood_otherwise_are_counted():
    """The first synapse is none that runs: what it is taken for is beside the forward."""
    model = Net(lambda m, x: torch.linalg.vecdot(x[:, None], m.weight), 4, weight=torch.rand(4, 6))
    counter = fxsynops.SynOpsCounter(model, X)
    counter(X)
    assert float(counter.synops.detach()) == 4 * float(X.sum())


def test_synapses_without_weights_count_beside_those_with_some():
    """Analog values in the place of weights: no element is left out."""

    class Meets(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6 * OUT)

        def forward(self, x):
            return torch.bmm(x[:, None], self.fc(x).view(-1, 6, OUT))

    model = Meets()
    with torch.no_grad():
        model.fc.weight.fill_(1.0)[0] = 0
    counter = fxsynops.SynOpsCounter(model, X, weights="nonzero")
    counter(X)
    assert float(counter.synops.detach()) == float(X.sum()) * (6 * OUT - 1 + OUT)


class CallsMore(nn.Linear):
    """Does something around its forward, where hooks do not see it."""

    def __call__(self, x):
        return super().__call__(2 * x) + 1


class FiresAbove(nn.Module):
    """Likewise; it is kept whole."""

    def __call__(self, x):
        return super().__call__(x - 1)

    def forward(self, x):
        return (x > 0).float()


fxsynops.register_spiking(FiresAbove)


@pytest.mark.parametrize("kind", [Replay, Stepping])
def test_what_a_call_does_around_its_forward_is_done_once(kind):
    model = nn.Sequential(CallsMore(6, 6), FiresAbove(), nn.Linear(6, OUT))
    nn.init.eye_(model[0].weight)
    nn.init.constant_(model[0].bias, -1.5)  # (2 x - 1.5 + 1) - 1 is more than zero from 1 on
    y, tally = kind(fxsynops.analyze(model, X)).count((X,))
    assert y.equal(model(X))
    assert model[1](model[0](X)).equal((X >= 1).float())
    expected = X.sum() * 6 + OUT * (X >= 1).sum()
    assert float(tally.total().detach()) == float(expected)


class Spoils(nn.Module):
    """Writes to its input, before or after something has read it, and in some way or other."""

    def __init__(self, write, first):
        super().__init__()
        self.write, self.first = write, first
        self.fc, self.other = nn.Linear(6, OUT), nn.Linear(6, 2)

    def forward(self, x):
        y = self.fc(x) if self.first else None
        x = self.write(x)
        return y, self.other(x), self.fc(x)


def spoils_a_view(x):
    x.view(-1)[3:].zero_()
    return x


WRITES = {
    "mul_": lambda x: x.mul_(0),
    "neg_": lambda x: x.neg_(),
    "a part": lambda x: x.__setitem__((slice(None), 0), 0) or x,
    "a view": spoils_a_view,
    "zero_": lambda x: x.zero_(),
    "relu_": lambda x: torch.relu_(x.sub_(1)),
    "out=": lambda x: torch.mul(x, 0, out=x),
    "inplace": lambda x: F.relu(x.neg_(), inplace=True),
    "a copy": lambda x: x.copy_(x.flip(1)),
}


@pytest.mark.parametrize("kind", [Replay, Stepping])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_to_counts_as_it_was_when_it_was_read(name, first, kind):
    model = Spoils(WRITES[name], first)
    _, tally = kind(fxsynops.analyze(model, X)).count((X.clone(),))
    after = WRITES[name](X.clone()).abs().sum()
    expected = float(first * OUT * X.sum() + (2 + OUT) * after)
    spoiled = name in ("mul_", "zero_", "out=")  # by a factor of zero, or by a constant
    assert float(tally.total().detach()) == (expected if not spoiled else first * OUT * X.sum())


@pytest.mark.parametrize("progress", [False, True])
def test_on_a_terminal_the_bar_is_shown_if_it_is_wanted(progress, monkeypatch):
    shown = io.StringIO()

    class Terminal(Console):
        def __init__(self, **_):
            super().__init__(file=shown, force_terminal=True)

    monkeypatch.setattr("fxsynops.counting.data_sets.Console", Terminal)
    counter_of(layer(), ONES).measure([ONES], progress=progress)
    assert ("SynOps" in shown.getvalue()) is progress


@pytest.mark.parametrize("progress", [False, True])
def test_counts_are_read_once_where_no_bar_is_shown(progress, monkeypatch):
    counter, read = counter_of(layer(), ONES), []
    usual = type(counter).counts
    monkeypatch.setattr(
        type(counter), "counts", property(lambda self: (read.append(1), usual.fget(self))[1])
    )
    if progress:
        console = Console(file=io.StringIO(), force_terminal=True)
        counter.measure([ONES] * 5, progress=console)
    else:
        counter.measure([ONES] * 5, progress=False)
    assert len(read) == (6 if progress else 1)


def test_a_copy_of_a_model_counts_for_itself():
    model = net(lambda x: x)
    counter = fxsynops.SynOpsCounter(model, X)
    other = copy.deepcopy(counter)
    counter(X)
    other(2 * X)
    assert (counter.counts.total, other.counts.total) == (X.sum() * 3, 2 * X.sum() * 3)
