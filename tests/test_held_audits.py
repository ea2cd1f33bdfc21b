"""An audit compares what left with what arrived, sees any wrong map, and says why it cannot."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.counting import audit as audits
from fxsynops.counting.audit import Audited, AuditRow
from fxsynops.operations import operations

OUT = 3
X = torch.tensor([[1.0, 0, 2, 0, 1, 1], [0, 1, 0, 3, 0, 1]])
SIGNED = torch.tensor([[1.0, 0, -2, 0, 1, 1], [0, -1, 0, 3, 0, 1]])
IMAGE = torch.randint(0, 3, (2, 4, 5, 6), generator=torch.Generator().manual_seed(1)).float()
LONG = torch.randint(0, 3, (4, 16), generator=torch.Generator().manual_seed(2)).float()


class Net(nn.Module):
    """A function of the input and of the model, in front of a layer with three outputs."""

    def __init__(self, function, features=6, **buffers):
        super().__init__()
        self.function, self.head = function, nn.Linear(features, OUT)
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x):
        return self.head(self.function(self, x))


def net(function, features=6, **buffers):
    """A :class:`Net` of a function of its input alone."""
    return Net(lambda _, x: function(x), features, **buffers)


class Einsum(nn.Module):
    """Events times weights, in any way that einsum writes."""

    def __init__(self, equation, *size):
        super().__init__()
        self.equation, self.weight = equation, nn.Parameter(torch.randn(size))

    def forward(self, x):
        return torch.einsum(self.equation, x, self.weight)


class Layer(nn.Module):
    """Calls one function of an input and of a weight."""

    def __init__(self, function, *size):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.randn(size))

    def forward(self, x):
        return self.function(x, self.weight)


# What an audit makes of a model: SynOps by hand (or by torch with all weights one), and the reason
# why they were not compared directly, if there is one.
DIRECT = {
    "a layer": (net(lambda x: x), X, X.sum() * OUT),
    "signed events": (net(lambda x: x), SIGNED, X.sum() * OUT),
    "a sum": (net(lambda x: x + x.flip(1)), X, 2 * X.sum() * OUT),
    "three times": (net(lambda x: x * 3.0), X, X.sum() * OUT),
    "a third": (net(lambda x: x * 0.3), X, X.sum() * OUT),
    "a tenth below zero": (net(lambda x: x * -0.1), X, X.sum() * OUT),
    "a pool": (net(lambda x: F.avg_pool1d(x, 3, 1, 1)), X, (3 * X.sum() - 3) * OUT),
    "a cumulative sum": (
        net(lambda x: x.cumsum(1)),
        X,
        (X * torch.arange(6, 0, -1)).sum() * OUT,
    ),
    "a factor of each": (
        Net(lambda m, x: x * m.by, by=torch.tensor([0.5, 1, 2, 3, 0.0, -1])),
        X,
        (X.sum() - X[:, 4].sum()) * OUT,
    ),
    "a divisor": (Net(lambda m, x: x / m.by, by=torch.tensor([4.0])), X, X.sum() * OUT),
    "places": (
        Net(lambda m, x: x[:, m.at], at=torch.tensor([5, 5, 1, 0, 2, 2])),
        X,
        X[:, [5, 5, 1, 0, 2, 2]].sum() * OUT,
    ),
    "a matrix product": (Layer(lambda x, w: x @ w, 6, 4), X, X.sum() * 4),
    "a matrix product, weights first": (
        Layer(lambda x, w: (w @ x.mT).mT, 4, 6),
        X,
        X.sum() * 4,
    ),
    "a vector": (Layer(lambda x, w: torch.mv(x, w), 6), X, X.sum()),
    "batches": (
        Layer(lambda x, w: torch.bmm(x[None].expand(3, -1, -1), w), 3, 6, 4),
        X,
        X.sum() * 12,
    ),
    "added": (
        Layer(lambda x, w: torch.addmm(torch.zeros(4), x, w, beta=0.5, alpha=2.0), 6, 4),
        X,
        X.sum() * 4,
    ),
    "added batches": (
        Layer(lambda x, w: torch.baddbmm(torch.zeros(4), x.expand(3, -1, -1), w), 3, 6, 4),
        X,
        X.sum() * 12,
    ),
    "einsum": (Einsum("ni,io->no", 6, 3), X, X.sum() * 3),
    "einsum, weights first": (
        Layer(lambda x, w: torch.einsum("io,ni->no", w, x), 6, 3),
        X,
        X.sum() * 3,
    ),
    "einsum of each sample": (Einsum("ni,nio->no", 2, 6, 3), X, X.sum() * 3),
    "einsum of two axes": (Einsum("nchw,cho->now", 4, 5, 7), IMAGE, IMAGE.sum() * 7),
    "a gate": (net(lambda x: F.max_pool1d(x, 2), 3), X, F.max_pool1d(X, 2).sum() * OUT),
}
FOLLOWED = ("a factor of each", "places")  # maps are derived anew in each forward
CONVOLUTIONS = {
    "one": nn.Conv2d(4, 3, 3),
    "padded": nn.Conv2d(4, 6, (3, 2), padding=(2, 1)),
    "strided": nn.Conv2d(4, 3, 3, stride=2, dilation=(1, 2)),
    "in groups": nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "by channel": nn.Conv2d(4, 8, 3, groups=4, bias=False),
    "transposed": nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
    "transposed in groups": nn.ConvTranspose2d(4, 6, 3, groups=2, stride=(1, 2)),
    "transposed by channel": nn.ConvTranspose2d(4, 4, 2, groups=4),
    "same": nn.Conv2d(4, 3, 4, padding="same"),
    "circular": nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"),
}
WORTHS = "events are worth different amounts"
INDIRECT = {
    "a difference": (net(lambda x: x.flip(1) - x), X, "cancel"),
    "signs that meet": (
        net(lambda x: x + x.flip(1)), torch.tensor([[1.0, 0, 2, 3, 0, -1]]), "cancel"
    ),
    "beside constants": (
        net(lambda x: torch.cat([x, torch.ones_like(x)], 1), 12),
        X,
        "meet constants",
    ),
    "beside a buffer": (
        Net(lambda m, x: torch.cat([x, m.b], 1), 12, b=torch.ones(2, 6)),
        X,
        "constant is added",
    ),
    "written over constants": (net(lambda x: written(x)), X, "meet constants"),
    "a constant more": (net(lambda x: x + 0.3), X, "constant is added"),
    "sums and a constant": (net(lambda x: x.cumsum(1) + 0.3), X, "constant is added"),
    "one more": (net(lambda x: x + 1.0), X, "meet constants"),
    "a norm": (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, OUT)).eval(), X, "constant is added"),
    "a norm and a pool": (
        nn.Sequential(nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.Conv2d(4, 3, 2)).eval(),
        IMAGE,
        "constant is added",
    ),
    "two worths": (net(lambda x: torch.add(x, x.flip(1), alpha=0.5)), X, WORTHS),
    "a difference of two worths": (
        net(lambda x: torch.sub(x, x.flip(1), alpha=2) * 3), X, WORTHS
    ),
    "two worths mixed": (net(lambda x: torch.lerp(x, x.roll(1, 1), 0.25)), X, WORTHS),
    "divisors": (
        Net(lambda m, x: x / m.by, by=torch.tensor([0.5, 1, 2, 3, 8.0, -1])), X, WORTHS
    ),
    "two worths of masked events": (
        Net(
            lambda m, x: (x * m.by) + 0.5 * x.flip(1),
            by=torch.tensor([1.0, 0, 1, 1, 0, 1]),
        ),
        X,
        WORTHS,
    ),
    "two worths in other places": (
        Net(
            lambda m, x: (x + 0.5 * x.flip(1))[:, m.at],
            8,
            at=torch.tensor([5, 5, 1, 0, 2, 2, 3, 4]),
        ),
        X,
        WORTHS,
    ),
    "two worths, written": (net(lambda x: halves(x), 7), X, WORTHS),
    "two worths, averaged": (
        net(lambda x: F.avg_pool1d(x + 0.5 * x.flip(1), 2), 3), X, WORTHS
    ),
}  # fmt: skip


def written(x):
    y = torch.full_like(x, 5)
    y[:, :3] = x[:, 3:]
    return y


def halves(x):
    y = x.new_zeros(len(x), 7)
    y[:, 1:] = x + 0.5 * x.flip(1)
    y[:, :2] = x[:, 2:4]
    return y


def through(h):
    soft = torch.sigmoid(h)
    return h + h + soft - soft.detach()


class Overwritten(nn.Module):
    """Writes to what its layer has multiplied."""

    def __init__(self, write):
        super().__init__()
        self.write, self.head = write, nn.Linear(6, OUT)

    def forward(self, x):
        h = x * 1
        y = self.head(h)
        self.write(h)
        return y


for name, write in {
    "zeros": lambda h: h.zero_(),
    "a part": lambda h: h[:, 2:].fill_(3),
    "data": lambda h: h.data.mul_(2),
}.items():
    INDIRECT[f"overwritten: {name}"] = (Overwritten(write), X, "written to since")


def audit_of(model, x, **options):
    return fxsynops.analyze(model, x, **options).audit


def witnessed(monkeypatch, model, x, **options):
    """The findings and the witness of an analysis, as its audit gets them."""
    seen = []
    with monkeypatch.context() as patch:
        inner = audits.audit
        patch.setattr(
            "fxsynops.analysis.audit_of",
            lambda findings, witness, changes: (
                seen.append((findings, witness)) or inner(findings, witness, changes)
            ),
        )
        fxsynops.analyze(model, x, **{"strict": False} | options)
    return seen[0]


def with_maps(findings, change):
    """Findings with other fan-out maps."""
    return replace(
        findings,
        connections=tuple(
            replace(c, taps=tuple(replace(tap, map=change(tap.map)) for tap in c.taps))
            for c in findings.connections
        ),
    )


@pytest.mark.parametrize("name", DIRECT)
def test_what_arrives_is_what_has_left(name, monkeypatch):
    model, x, expected = DIRECT[name]
    for options in ({}, {"weights": "nonzero"}):
        (row,) = audit_of(model, x, **options).rows
        assert (row.left, row.arrived) == (expected, expected)
        assert (row.agrees, row.reason, row.way) == (True, "", ())
    if name in FOLLOWED:
        return
    findings, witness = witnessed(monkeypatch, model, x)
    for by in (2, 0):
        (row,) = audits.audit(with_maps(findings, lambda map, by=by: by * map), witness).rows
        assert (row.left, row.agrees) == (by * row.arrived, False)
        assert row.arrived == expected or "events cancel" in row.reason
        assert row.way


@pytest.mark.parametrize("weights", ["all", "nonzero"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_what_arrives_at_a_convolution_is_counted_tap_by_tap(name, weights):
    layer = CONVOLUTIONS[name]
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-1, 2, layer.weight.shape))
    ones = type(layer)(*(layer.in_channels, layer.out_channels, layer.kernel_size)).double()
    vars(ones).update({k: v for k, v in vars(layer).items() if k[0] != "_"})
    counts = layer.weight != 0 if weights == "nonzero" else torch.ones_like(layer.weight)
    ones.weight, ones.bias = nn.Parameter(counts.double()), None
    ones._reversed_padding_repeated_twice = layer._reversed_padding_repeated_twice
    expected = float(ones(IMAGE.double()).detach().sum())
    (row,) = audit_of(layer, IMAGE, weights=weights).rows
    assert (row.left, row.arrived, row.agrees) == (expected, expected, True)


@pytest.mark.parametrize("name", INDIRECT)
def test_what_cannot_be_compared_is_on_random_events(name, monkeypatch):
    model, x, reason = INDIRECT[name]
    (row,) = audit_of(model, x).rows
    assert row.agrees is True
    assert row.left == row.arrived > 0
    assert row.reason.startswith("on random events: ")
    assert reason in row.reason
    findings, witness = witnessed(monkeypatch, model, x)
    for change in (lambda map: 2 * map, lambda map: map + 1, lambda map: 0 * map):
        (wrong,) = audits.audit(with_maps(findings, change), witness).rows
        assert (wrong.agrees, wrong.arrived) == (False, row.arrived)
        assert wrong.left != row.left
        assert wrong.way


def test_random_events_are_routed_by_hand(monkeypatch):
    """What arrives is what a hand-made operation with all scales one makes of the same events."""
    by = torch.tensor([1.0, 0, 1, 1, 0, 1])
    cases = {
        "alpha": (net(lambda x: torch.add(x, x.flip(1), alpha=0.5)), lambda e: e + e.flip(1)),
        "minus": (net(lambda x: x - 0.5 * x.roll(2, 1)), lambda e: e + e.roll(2, 1)),
        "masked": (
            Net(lambda m, x: x * m.by + 0.5 * x.flip(1), by=by), lambda e: e * by + e.flip(1)
        ),
        "norm": (
            nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, OUT)).eval(), lambda e: e
        ),
        "pool": (
            net(lambda x: F.avg_pool1d(x + 0.5 * x.flip(1), 2), 3),
            lambda e: e + e.flip(1),
        ),
        "wide": (
            net(lambda x: F.pad((x + 0.5 * x.flip(1)).repeat(1, 2), (2, 0)), 14),
            lambda e: 2 * (e + e.flip(1)),
        ),
        "mean": (
            net(lambda x: (x + 0.5 * x.flip(1)).mean(1, keepdim=True), 1),
            lambda e: e + e.flip(1),
        ),
        "product": (
            Net(lambda m, x: torch.einsum("ni,i->ni", x + 0.5 * x.flip(1), m.by), by=by),
            lambda e: (e + e.flip(1)) * by,
        ),
        "straight through": (
            net(lambda x: through(F.batch_norm(x, torch.ones(6) / 3, torch.full((6,), 2.0)))),
            lambda e: 2 * e,
        ),
        "twice minus": (
            net(lambda x: torch.rsub(x, 3 * x.flip(1), alpha=2)), lambda e: e + e.flip(1)
        ),
        "put": (net(halves, 7), lambda e: torch.cat([e[:, 2:4], (e + e.flip(1))[:, 1:]], 1)),
    }  # fmt: skip
    events = []
    usual = torch.randint
    monkeypatch.setattr(
        torch, "randint", lambda *a, **k: events.append(usual(*a, **k)) or events[-1]
    )
    for model, by_hand in cases.values():
        events.clear()
        (row,) = audit_of(model, X).rows
        assert row.reason.startswith("on random events")
        assert len(events) == 1
        assert set(events[0].flatten().tolist()) == {0, 1, 2}
        expected = OUT * by_hand(events[0].double()).sum()
        assert (row.left, row.arrived, row.agrees) == (expected, expected, True)


class Loop(nn.Module):
    """Calls a layer in a loop, each time on something else."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, OUT)

    def forward(self, x):
        return sum(self.head(x.roll(k, 1)) for k in range(4))


class Branches(nn.Module):
    """Two sources of different sizes drive one layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = fnn.NeuromorphicReLU(), fnn.NeuromorphicReLU()
        self.head, self.other = nn.Linear(6, OUT), nn.Linear(2, 5)

    def forward(self, x):
        a, b = self.a(x[:, :4]), self.b(x[:, 4:])
        return self.head(torch.cat([a, b], 1)), self.other(b)


def test_all_calls_and_all_sources_of_a_synapse_are_one_row():
    (row,) = audit_of(Loop(), X).rows
    assert (row.left, row.arrived) == (4 * X.sum() * OUT, 4 * X.sum() * OUT)
    audit = audit_of(Branches(), X, input_events=False)
    assert [(r.synapse, r.left, r.arrived) for r in audit.rows] == [
        ("head", X.sum() * OUT, X.sum() * OUT),
        ("other", X[:, 4:].sum() * 5, X[:, 4:].sum() * 5),
    ]


def test_what_carries_no_events_gets_none():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, OUT))
    first, second = audit_of(model, X).rows
    assert (first.synapse, first.left, first.arrived) == ("0", X.sum() * 6, X.sum() * 6)
    assert (second.synapse, second.left, second.arrived, second.agrees) == ("1", 0, 0, True)


@pytest.mark.parametrize("events", ["value", "nonzero"])
@pytest.mark.parametrize("x", [X, SIGNED])
def test_graded_events_are_those_that_are_not_zero(x, events):
    (row,) = audit_of(net(lambda x: x), x, events=events).rows
    expected = OUT * float((x != 0).sum() if events == "nonzero" else x.abs().sum())
    assert (row.left, row.arrived, row.agrees) == (expected, expected, True)


@pytest.mark.parametrize("weights", ["all", "nonzero"])
@pytest.mark.parametrize("name", [*DIRECT, *INDIRECT])
def test_graded_events_are_measured_where_they_arrive(name, weights):
    model, x = (DIRECT | INDIRECT)[name][:2]
    (row,) = audit_of(model, x, events="nonzero", weights=weights).rows
    assert (row.agrees, row.arrived) == (True, row.left)
    if isinstance(model, Net):
        assert row.left == OUT * (model.function(model, x) != 0).sum()
        assert row.reason == ""


# -- what cannot be audited ------------------------------------------------------------------------


class Meet(nn.Module):
    """Events meet events."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Past(nn.Module):
    """Events of a neuron are cut off, and a constant is added to those of the input."""

    def __init__(self):
        super().__init__()
        self.neuron, self.head = fnn.NeuromorphicReLU(), nn.Linear(6, OUT)

    def forward(self, x):
        return self.head(torch.cat([x, self.neuron(x)], 1)[:, :6] + 0.3)


BLIND = {
    "events of which none arrive": (Past(), X, "'neuron' is in its way"),
    "events with themselves": (Meet(lambda x: x @ x.mT), X, "which of its factors is which"),
    "no product of torch's": (
        Net(lambda m, x: torch.outer(x[0], m.by), 3, by=torch.randn(3)),
        X,
        "no product of torch's is seen",
    ),
    "linear upsampling": (
        net(lambda x: F.interpolate(x[:, None], scale_factor=2, mode="linear")[:, 0], 12),
        X,
        "'interpolate' weighs its events differently",
    ),
}


@pytest.mark.parametrize("name", BLIND)
def test_what_cannot_be_compared_says_why(name):
    model, x, reason = BLIND[name]
    audit = audit_of(model, x)
    row = audit.rows[0]
    assert (row.arrived, row.agrees, row.way) == (None, None, ())
    assert row.left > 0
    assert reason in row.reason
    assert audit.ok  # nothing disagrees
    assert reason in str(row)


def test_products_of_events_are_compared_where_they_are_told_apart(monkeypatch):
    model = Meet(lambda x: x @ (x * 2).mT)
    (row,) = audit_of(model, X).rows
    expected = float((X @ X.mT).sum())
    assert (row.left, row.arrived, row.agrees) == (expected, expected, True)
    findings, witness = witnessed(monkeypatch, model, X)
    products = next(iter(witness.products.values()))
    products.append(products[0])  # of two, it is not known which is meant
    (row,) = audits.audit(findings, witness).rows
    assert row.agrees is None
    assert "2 products are seen in it" in row.reason
    assert "events meet events" in row.reason or "2 products" in row.reason


def test_sparse_weights_are_not_looked_at():
    weight = torch.eye(6)[:4].to_sparse()

    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", weight)

        def forward(self, x):
            return torch.sparse.mm(self.weight, x.mT)

    audit = audit_of(Sparse(), X)
    assert audit.ok
    assert all(row.agrees is None or row.left == row.arrived for row in audit.rows)


def test_what_is_unresolved_is_not_compared():
    model = net(lambda x: torch.cov(x.mT))
    (row,) = (r for r in audit_of(model, X, strict=False).rows if r.synapse == "head")
    assert (row.arrived, row.agrees) == (None, None)
    assert re.match(r"unresolved: 'cov' .*test_held_audits\.py:\d+", row.reason)


# -- faults and notes ------------------------------------------------------------------------------


class Puts(nn.Module):
    """Someone says that it fires."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, x):
        return x * 0 + torch.tensor(self.values)


class PutsGraded(nn.Module):
    """The same, named in ``spiking=``."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, x):
        return x * 0 + torch.tensor(self.values)


fxsynops.register_spiking(Puts)


@pytest.mark.parametrize(
    ("values", "fraction"),
    [
        ([1.0, 0.5, 2.0], "0.5"),
        ([0.0, 1.0, 1.25], "1.25"),
        ([0.75, 3.0, 0.0], "0.75"),
        ([1.1, 2.5, 0.0], "2.5"),
        ([-0.5, 1.0, 0.0], "-0.5"),
        ([1.0, 2.0, 3.0], ""),
        ([0.0, -2.0, 3.0], ""),
    ],
)
def test_a_fraction_of_an_event_is_a_fault_or_if_wanted_a_note(values, fraction):
    x = torch.ones(1, 3)
    audit = audit_of(nn.Sequential(Puts(values), nn.Linear(3, OUT)), x, strict=False)
    if not fraction:
        assert (audit.faults, audit.ok) == ((), True)
    else:
        assert not audit.ok
        assert audit.faults == (f"'0' puts out {fraction} events in one element, no whole number",)
    model = nn.Sequential(PutsGraded(values), nn.Linear(3, OUT))
    audit = audit_of(model, x, spiking=[PutsGraded])
    assert audit.ok
    assert audit.rows[0].left == pytest.approx(OUT * sum(map(abs, values)))
    if fraction:
        (note,) = audit.notes
        assert note == f"'0' puts out fractions (one is {fraction}): each counts so much."


def test_what_arrives_in_fractions_is_a_fault():
    """Nothing on the way makes fractions, and yet they arrive."""
    model = nn.Sequential(Puts([1.0, 0.5, 2.0]), nn.Flatten(1), nn.Linear(3, OUT))
    (row,) = audit_of(model, torch.ones(1, 3), strict=False).rows
    assert (row.arrived, row.agrees) == (None, False)
    assert row.reason == "what arrives is no whole number of events"
    assert any(way.startswith("flatten") or "'1'" in way for way in row.way)


def test_changes_of_the_model_and_another_output_are_faults(monkeypatch):
    findings, witness = witnessed(monkeypatch, net(lambda x: x), X)
    assert audits.audit(findings, witness).ok
    audit = audits.audit(findings, witness, ["something has changed"])
    assert (audit.ok, audit.faults) == (False, ("something has changed",))
    assert all(row.agrees for row in audit.rows)
    witness.output = witness.output + 1e-3
    audit = audits.audit(findings, witness)
    assert audit.faults == ("the replay gives another output than the model",)


class MadeUp(nn.Module):
    """Spikes between two sigmoids, or of nothing."""

    def __init__(self, make):
        super().__init__()
        self.make, self.head = make, nn.Linear(16, OUT)

    def forward(self, x):
        return self.head(self.make(x))


SHARP = {
    "spikes": lambda x: torch.sigmoid(1e6 * (x - 0.5)),
    "spikes of another size": lambda x: 0.3 * torch.sigmoid(1e6 * (x - 0.5)),
    "counts": lambda x: torch.sigmoid(1e6 * (x - 0.5)) + torch.sigmoid(1e6 * (x - 1.5)),
}
ANALOG = {
    "grey": lambda x: torch.sigmoid(x - 0.5),
    "ones": lambda x: torch.sigmoid(1e6 * (x + 1)),
    "nothing": lambda x: torch.sigmoid(x) * 0.0,
    "many": lambda x: 60 * torch.sigmoid(1e6 * (x - 0.5)) + 5 * torch.sigmoid(1e6 * (x - 1.5)),
    "halves and wholes": lambda x: (
        torch.sigmoid(1e6 * (x - 0.5)) + torch.sigmoid(1e6 * (x - 1.5)) / 2
    ),
}


@pytest.mark.parametrize("name", [*SHARP, *ANALOG])
def test_what_looks_like_events_is_pointed_out(name):
    audit = audit_of(MadeUp((SHARP | ANALOG)[name]), LONG)
    assert audit.ok
    if name in ANALOG:
        assert audit.notes == ()
        return
    (note,) = audit.notes
    assert note.startswith("The input of 'head' looks like events, but is taken for analog")
    assert "test_held_audits.py" in note


def test_an_input_that_is_said_to_be_analog_may_look_like_events():
    audit = audit_of(net(lambda x: x), X, input_events=False)
    assert audit.notes == ()
    assert [(row.left, row.arrived, row.agrees) for row in audit.rows] == [(0, 0, True)]


def test_events_made_of_nothing_are_pointed_out():
    class Constant(nn.Module):
        def __init__(self, make):
            super().__init__()
            self.make, self.head = make, nn.Linear(16, OUT)

        def forward(self, x):
            return self.head(self.make()) + x[:, :OUT]

    for make, seen in (
        (lambda: (torch.arange(16) % 2).float(), True),
        (lambda: torch.arange(16) / 16, False),
        (lambda: torch.ones(16) * 2, False),
    ):
        notes = audit_of(Constant(make), LONG).notes
        assert [("taken for a constant" in note) for note in notes] == [True] * seen


class Hidden(nn.Module):
    """Someone says that it fires, or only carries events, but it has weights of its own."""

    def __init__(self, times=1):
        super().__init__()
        self.weight, self.times = nn.Parameter(torch.randn(6, 6)), times

    def forward(self, x):
        for _ in range(self.times):
            y = x @ self.weight
        return (y > 0).float()


fxsynops.register_spiking(Hidden)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("x", [X, SIGNED])
def test_weights_inside_of_what_has_none_are_found(x, times):
    with pytest.raises(fxsynops.AuditError, match="weights of its own, which no rule counts"):
        fxsynops.analyze(nn.Sequential(Hidden(times), nn.Linear(6, OUT)), x)
    analysis = fxsynops.analyze(nn.Sequential(Hidden(times), nn.Linear(6, OUT)), x, strict=False)
    row = analysis.audit.rows[-1]
    assert (row.synapse, row.left, row.agrees) == ("0", 0, False)
    assert row.arrived == times * 6 * x.abs().sum()
    assert row.way == ("0 in the model's forward",)
    assert [entry.synapse for entry in analysis.unresolved] == ["0"]


def test_weights_inside_that_get_analog_values_only_are_none_of_its_business():
    model = nn.Sequential(nn.Linear(6, 6), Hidden(), nn.Linear(6, OUT))
    assert fxsynops.analyze(model, X).audit.ok


def test_the_way_is_the_last_eight_operations():
    def long(x):
        for k in range(12):
            x = x.roll(k, 1)
        return x

    model = net(long)
    entry = operations.by_name["roll"]

    def twice(call, map):
        return [replace(slot, map=2 * slot.map) for slot in entry.pull(call, map)]

    operations.by_name["roll"] = replace(entry, pull=twice)
    try:
        (row,) = fxsynops.analyze(model, X, strict=False).audit.rows
    finally:
        operations.by_name["roll"] = entry
    assert row.left == 2**12 * row.arrived
    assert len(row.way) <= 8
    assert row.way[-1].startswith("linear in module 'head'")
    assert row.way[0].startswith("roll")


# -- what is equal, whole, and alike ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "arrived", "equal"),
    [
        (5.0, 5.0, True),
        (5.0, 5.0 + 1e-9, False),
        (1e9, 1e9 + 1, False),
        (2.5, 2.5 + 1e-7, True),
        (2.5, 2.5 + 1e-3, False),
        (1000.5, 1000.505, True),
        (1000.5, 1000.6, False),
        (0.5, 0.0, False),
        (0.0, 0.5, False),
        (-2.5, -2.5 + 1e-7, True),
    ],
)
def test_whole_counts_are_equal_to_the_integer(left, arrived, equal):
    assert audits._equal_counts(left, arrived) is equal


@pytest.mark.parametrize(
    ("events", "whole"),
    [
        ([], True),
        ([0.0, 1.0, -3.0, 1e9], True),
        ([1.0005], True),
        ([-1.0005, 4000.9], True),
        ([1.002], False),
        ([0.0005], True),
        ([0.002], False),
        ([-0.5], False),
        ([100.09], True),
        ([100.2], False),
        ([1.0, 2.0, 2.5], False),
        ([math.nan], False),
    ],
)
def test_events_are_whole_but_for_rounding(events, whole):
    assert audits._is_whole(torch.tensor(events, dtype=torch.float64)) is whole


def test_only_types_of_few_digits_round_events():
    fraction = torch.tensor([24.05])
    assert audits._is_rounded(fraction, torch.bfloat16)
    assert not audits._is_rounded(fraction, torch.float32)
    assert not audits._is_rounded(fraction, torch.int64)
    assert not audits._is_rounded(torch.zeros(0), torch.bfloat16)


@pytest.mark.parametrize("weights", ["all", "nonzero"])
def test_weights_may_be_the_first_factor_on_random_events(weights):
    model = Net(lambda m, x: (m.w @ (x + 0.3).mT).mT, 4, w=torch.randn(4, 6))
    row = audit_of(model, X, weights=weights).rows[0]
    assert row.agrees
    assert row.left == row.arrived > 0
    assert row.reason.startswith("on random events")


@pytest.mark.parametrize(
    ("values", "alike"),
    [
        ([], False),
        ([0.0] * 9, False),
        ([1.0] * 9, False),
        ([0.0, 1, 1, 1, 1], True),
        ([0.0, 1, 1, 1], False),  # too few
        ([0.0, 0.3, 0.3, 0.3, 0.3], True),
        ([0.0, 0.3, -0.3, 0.3, -0.3], True),
        ([0.0, 0.3, 0.3, 0.3], False),
        ([0.0, 0.3, 0.3, 0.3, 0.4], False),
        ([0.0, 1, 2, 3], True),
        ([0.0, 1, -2, 64], True),
        ([0.0, 1, 65], False),
        ([0.0, 1, -65], False),
        ([0.0, 100, 100, 100, 100], True),
        ([0.0, 1, 2.5], False),
        ([1.0, 2, 3], False),
    ],
)
def test_events_look_like_few_whole_numbers_and_zeros(values, alike):
    for tensor in (torch.tensor(values), torch.tensor(values).view(-1, 1)):
        assert audits._looks_like_events(tensor) is alike
    assert not audits._looks_like_events(torch.tensor(values, dtype=torch.complex64))


ONE = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (ONE, ONE.clone(), True),
        (ONE, ONE + 1e-6, False),
        (ONE, ONE.double(), False),
        (ONE, ONE[:1], False),
        (ONE, ONE.mT, False),
        (ONE, [ONE], True),
        ((ONE, ONE), (ONE, ONE), True),
        ((ONE, ONE), (ONE, 2 * ONE), False),
        ((2 * ONE, ONE), (ONE, ONE), False),
        ((ONE, ONE), (ONE,), False),
        ((ONE,), (ONE, ONE), False),
        (ONE * math.nan, ONE * math.nan, True),
        (ONE.long(), ONE.long() + 1, False),
        (ONE.bool(), ONE.bool(), True),
        ((ONE, 1), (ONE, 2), True),
        ((ONE, 1), (ONE, ONE), False),
        ((ONE, ONE), (ONE, 1), False),
        ((ONE, 1), (ONE, "1"), False),
        ({"a": ONE}, {"a": ONE.clone()}, True),
    ],
)
def test_outputs_are_the_same_bit_for_bit(a, b, same):
    assert audits._same(a, b) is same


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.int64])
@pytest.mark.parametrize(
    "unit", [1.0, 0.5, -2.0, torch.tensor(4.0), torch.tensor([0.5, 0.0, 2.0]), 0.0]
)
def test_values_are_as_many_events_as_their_worth_goes_into_them(unit, dtype):
    values = torch.tensor([[4, 8, -16], [0, 12, 20]]).to(dtype)
    by_hand = [
        [0 if u == 0 else v / u for v, u in zip(row, torch.as_tensor(unit).expand(3), strict=True)]
        for row in values.tolist()
    ]
    found = audits._in_units(values, unit)
    as_it_is = dtype == torch.float32 and type(unit) is float and unit == 1.0
    assert found.dtype == (dtype if as_it_is else torch.float64)
    assert found.tolist() == [[float(v) for v in row] for row in by_hand]


@pytest.mark.parametrize("seed", range(20))
def test_the_sum_of_a_product_is_that_of_its_output(seed):
    torch.manual_seed(seed)
    a, b, n, m, k = torch.randint(1, 5, (5,)).tolist()
    aten = torch.ops.aten
    cases = [
        ("mm", (n, k), (k, m), torch.mm),
        ("bmm", (a, n, k), (a, k, m), torch.bmm),
        ("mv", (n, k), (k,), torch.mv),
        ("dot", (k,), (k,), torch.dot),
        ("linear", (b, n, k), (m, k), F.linear),
        ("linear", (n, k), (k,), F.linear),
        ("addmm", (n, k), (k, m), torch.mm),
        ("addmv", (n, k), (k,), torch.mv),
        ("baddbmm", (a, n, k), (a, k, m), torch.bmm),
    ]
    for name, left, right, function in cases:
        pair = [torch.randint(0, 5, size) for size in (left, right)]
        product = SimpleNamespace(name=name, options=(), operator=getattr(aten, name))
        expected = float(function(*(x.double() for x in pair)).sum())
        assert audits._summed(product, tuple(pair)) == expected


@pytest.mark.parametrize("ones", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_sum_of_a_convolution_is_that_of_its_output(batch, groups, transposed, ones):
    x = torch.randint(0, 4, (batch, 6, 5, 7)).double()
    for out in (1, 2):
        size = (6, out, 3, 2) if transposed else (groups * out, 6 // groups, 3, 2)
        weight = torch.ones(size) if ones else torch.randint(0, 2, size)
        weight = weight.double()
        pads = (1, 0) if transposed else (0, 0)
        options = ((2, 1), (1, 0), (1, 2), transposed, pads, groups)
        expected = float(torch.convolution(x, weight, None, *options).sum())
        assert audits._convolved(x, weight, options) == expected
        product = SimpleNamespace(options=options, name="convolution")
        assert audits._summed(product, (x, weight)) == expected


def test_a_part_of_memory_is_seen_after_another_was_written():
    whole = torch.arange(24.0)
    for ours, theirs in (
        (((4, 5), (6, 1), 0), ((2, 3), (6, 1), 7)),
        (((3,), (8,), 2), ((6,), (1,), 9)),
        (((2, 2), (12, 3), 1), ((4,), (4,), 0)),
        (((24,), (1,), 0), ((1,), (1,), 23)),
        (((1,), (1,), 0), ((2, 2), (2, 1), 20)),
    ):
        memory = whole.clone()
        written = -torch.arange(1.0, 1 + math.prod(theirs[0])).view(theirs[0])
        alias = memory.as_strided(*ours).clone()
        memory.as_strided(*theirs).copy_(written)
        found = audits._beside(alias, written, ours, theirs)
        assert found.equal(memory.as_strided(*ours))


def test_a_row_is_a_sentence():
    row = AuditRow("fc", 1234.0, 617.0, False, "twice", ("flip here", "linear there"))
    assert str(row) == (
        "'fc': 1,234 SynOps left the sources, 617 arrived (twice); "
        "on the way: flip here, linear there"
    )
    assert str(AuditRow("fc", None, None, None)) == (
        "'fc': an unknown number of SynOps left the sources"
    )
    assert str(AuditRow("fc", 2.0, 2.0, True)) == "'fc': 2 SynOps left the sources, 2 arrived"


def test_an_audit_is_well_unless_something_disagrees():
    fine, blind, wrong = (AuditRow("fc", 1.0, 1.0, agrees) for agrees in (True, None, False))
    assert Audited(()).ok
    assert Audited((fine, blind), ("a note",)).ok
    assert not Audited((fine, wrong)).ok
    assert not Audited((fine,), (), ("a fault",)).ok


@pytest.mark.parametrize("enabled", [True, False])
def test_the_way_that_attention_takes_is_as_before(enabled):
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(enabled)
        layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).eval()
        with torch.no_grad():
            audit = audit_of(layer, X[None].clone())
        assert audit.ok
        assert torch.backends.mha.get_fastpath_enabled() is enabled
        with audits._attention_as_recorded():
            assert not torch.backends.mha.get_fastpath_enabled()
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean((0, 2)),
        lambda x: x.sum((0, 2)),
        lambda x: F.avg_pool1d(x, 6).sum((0, 2)),
    ],
)
@pytest.mark.parametrize("length", [6, 600])  # 1/24 has no few digits; 600 events have too many
def test_types_of_few_digits_are_no_fault(dtype, function, length, monkeypatch):
    spikes = (torch.rand(4, 8, length, generator=torch.Generator().manual_seed(3)) < 0.4).to(dtype)
    counter = fxsynops.SynOpsCounter(net(function, 8).to(dtype), spikes, layout="")
    counter(spikes)
    assert float(counter.synops) == float(spikes.double().sum()) * OUT
    (row,) = counter.analysis.audit.rows
    assert row.agrees
    assert row.left == row.arrived
    # And a rule that is wrong is found out all the same.
    monkeypatch.setattr(audits, "_summed", lambda *_: 1.0)
    with pytest.raises(fxsynops.AuditError, match="1 arrived"):
        counter.audit(spikes)


def test_where_nothing_arrives_nothing_is_compared():
    layers = nn.Sequential(nn.Linear(6, 4), fnn.IAF(), nn.Linear(4, 2))
    layers[0].weight.data.fill_(-1.0)
    analysis = fxsynops.analyze(layers, torch.ones(2, 3, 6), layout="NT")
    first, second = analysis.audit.rows
    assert first.agrees
    assert second.agrees is None
    assert second.reason == "no event arrives from the example"
    assert analysis.audit.ok
    assert "1 of 2 synapses compared" in str(analysis.audit)
