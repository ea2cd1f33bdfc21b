"""States, masks, indices and attributes that decide what arrives, and what no rule covers."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import snntorch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
from tests.test_roles import K, Keeps, Q, V, X, Y, counts, heads
from tests.test_worths import OUT, Behind, drawn


@pytest.mark.parametrize("signs", [1, 2, 3])
def test_sums_of_signs_are_events(signs):
    """Only one sign and a number make a step of it."""
    net = Behind(
        lambda m, v: sum(torch.sign(v.roll(i, 0)) for i in range(signs)),
        lambda m, v: sum(torch.sign(v.roll(i, 0)) for i in range(signs)) + (signs > 1),
        lambda m, v: torch.sub(torch.sign(v), torch.sign(v.flip(0)), alpha=-1),
        lambda m, v: torch.sign(v) + torch.zeros(6),
    )
    each = float(V.numel())
    expected = [(signs * each, False), (signs * each, signs > 1), (2 * each, False), (each, True)]
    found = heads(net, V, input_events=False)
    assert found == expected


@pytest.mark.parametrize("first", [True, False])
def test_worths_that_data_choose_are_no_worth_of_a_product(first):
    """Whatever the values are where nothing is known of the data."""

    class Chosen(nn.Module):
        def forward(self, q, k, g):
            low, high = (0.5 * q, q) if first else (q, 0.5 * q)
            return torch.where(g > 0, low, high) @ k

    inputs = Q, K, torch.randn(3, 4, 5)
    with pytest.raises(fxsynops.UnsupportedOperationError, match="worth differs"):
        fxsynops.analyze(Chosen(), inputs, input_events=(True, True, False))


@pytest.mark.parametrize("worth", [1.0, 2.0, 0.5, -1.5])
def test_masks_of_any_worth_are_no_weights(worth):
    """A buffer of zeros and one other number says where events go; of several, it has weights."""
    mask = worth * drawn(0, 1, 8, (6, 6))

    class Masked(nn.Module):
        def __init__(self, values):
            super().__init__()
            self.register_buffer("values", values)
            self.fc = nn.Linear(6, OUT)

        def forward(self, x):
            y = (x.unsqueeze(1) * self.values).sum(-1)
            return self.fc(y)

    led = float((X @ (mask != 0).float().t()).sum())
    assert counts(Masked(mask), X) == {"fc": led * OUT}
    weights = mask.clone()
    weights[0] *= 0.7
    assert counts(Masked(weights), X) == {"values": float(X.sum()) * 6}


def test_states_of_computed_worths_keep_them_apart_in_every_trace():
    scales = (
        lambda m, s: (s * m.each.abs()).flip(1),
        lambda m, s: (s * (m.each + 4).abs()).flip(1),
        lambda m, s: (s * m.each).flip(1),
        lambda m, s: (s * (2 * m.each)).flip(1),
        lambda m, s: (s * (m.each * m.a)).roll(1, 1),
        lambda m, s: (s * (m.each * m.b)).roll(1, 1),
        lambda m, s: (s * (m.each * m.b)).roll(2, 1),
    )
    model = Keeps(*scales)
    counter, last = fxsynops.SynOpsCounter(model, torch.ones(2, 6)), torch.zeros(2, 6)
    for step in range(4):
        model.train(step % 2 == 0)
        x = drawn(0, 3, step, (2, 6))
        counter(x)
        _ = counter.counts
        positive = [last] * 2 + [last * (model.each > 0)] * 5
        found = {name: float(n.detach()) for name, n in counter.per_synapse.items()}
        expected = [float(kept.sum()) * OUT for kept in positive]
        assert [found.get(f"heads.{i}", 0.0) for i in range(len(scales))] == expected
        last = x


# -- what modules keep whole leave behind ----------------------------------------------------------


NODES = """
class Nodes(nn.Module):
    def __init__(self):
        super().__init__()
        self.s = self.v = self.spread = torch.zeros(12, 6)

    def forward(self, x):
        self.v, self.s, self.spread = 2 * x, x > 0.1, x > 0.2
"""


@pytest.fixture
def nodes(monkeypatch):
    """Neurons that return nothing, and keep their spikes, as bindsnet's."""
    monkeypatch.setitem(sys.modules, "bindsnet", ModuleType("bindsnet"))
    scope = {"__name__": "bindsnet.network.nodes", "nn": nn, "torch": torch}
    exec(NODES, scope)
    return scope["Nodes"]


class Own(nn.Module):
    """A neuron of the user's own that returns its spikes, and keeps two things beside."""

    def __init__(self):
        super().__init__()
        self.held, self.parts = torch.zeros(12, 6), {"v": torch.zeros(12, 6)}

    def forward(self, x):
        self.held, self.parts["v"] = 2 * x, 3 * x
        return (x > 0.1).float()


class Reads(nn.Module):
    def __init__(self, neuron, read):
        super().__init__()
        self.a, self.n, self.b, self.c = nn.Linear(6, 6), neuron, nn.Linear(6, 2), nn.Linear(6, 2)
        self.read = read

    def forward(self, x):
        s = self.n(self.a(x))
        return self.b((self.n.s if s is None else s).float()), self.c(self.read(self.n).float())


@pytest.mark.parametrize("before", [False, True])
def test_what_neurons_keep_is_events_where_they_say_so(before, nodes):
    model = Reads(nodes(), lambda n: n.v)
    other = nodes()
    if before:  # another one of them, which the model does not call
        model.other = other
        model._modules = {"other": other, **model._modules}
    counter = fxsynops.SynOpsCounter(model, X)
    counter(X)
    fired = float((model.a(X) > 0.1).sum())
    found = {name: float(n.detach()) for name, n in counter.per_synapse.items()}
    assert found == {"a": float(X.sum()) * 6, "b": fired * 2}
    assert [(r.source, r.synapse) for r in counter.analysis.connections] == [
        ("x", "a"),
        ("n.s", "b"),
    ]
    assert [(row.synapse, row.macs) for row in counter.analysis.dense] == [("c", 12)]


def test_what_may_be_spikes_is_not_taken_for_a_membrane(nodes):
    with pytest.raises(fxsynops.UnsupportedOperationError, match=r"'n\.spread' is read out of"):
        fxsynops.analyze(Reads(nodes(), lambda n: n.spread), X)


@pytest.mark.parametrize(
    ("read", "name"), [(lambda n: n.held, "n.held"), (lambda n: n.parts["v"], "n.parts")]
)
def test_what_a_module_of_ones_own_keeps_is_refused_by_its_name(read, name):
    model = Reads(Own(), read)
    analysis = fxsynops.analyze(model, X, spiking=[Own], strict=False)
    (row,) = analysis.unresolved
    assert row.synapse == "c"
    assert name in row.operation
    assert "read out of a module that is kept whole" in row.reason
    assert [c.synapse for c in analysis.connections] == ["a", "b"]


# -- what no rule covers ---------------------------------------------------------------------------


def run(function, **parts):
    class Runs(nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in parts.items():
                if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                    self.register_buffer(name, part)
                else:
                    setattr(self, name, part)

        def forward(self, *xs):
            return function(self, *xs)

    return Runs()


def unresolved(model, *xs, **options):
    analysis = fxsynops.analyze(model, xs, strict=False, **options)
    return sorted((row.synapse, row.operation) for row in analysis.unresolved)


def test_what_no_rule_covers_is_said_where_a_synapse_hears_of_it():
    def odd(m, x):
        return torch.round(x, decimals=1)

    fc = nn.Linear(6, OUT)
    assert unresolved(run(lambda m, x: (m.fc(x), odd(m, x)), fc=fc), X) == []
    assert unresolved(run(lambda m, x: (m.fc(x), F.relu(odd(m, x))), fc=fc), X) == []
    assert unresolved(run(lambda m, x: m.fc(odd(m, x)), fc=fc), X) == [("fc", "round")]
    analog = run(lambda m, x: m.fc(torch.sigmoid(x) + odd(m, x)), fc=fc)
    assert unresolved(analog, X) == []
    assert unresolved(run(lambda m, x, y: m.fc(odd(m, y) + x), fc=fc), X, Y) == [("fc", "round")]


def test_what_no_rule_covers_goes_by_the_module_and_says_what_it_does():
    model = nn.Sequential(nn.ReLU(), nn.MaxPool1d(1), nn.Linear(6, OUT))
    scaled = run(
        lambda m, x: m.net((x * m.each)[None]), net=model, each=nn.Parameter(torch.rand(6))
    )
    assert unresolved(scaled, X) == [("net.2", "max_pool1d of net.1")]


def test_a_state_of_what_no_rule_covers_is_not_covered_either():
    def keeps(m, x):
        y = m.fc(m.z)
        m.z = torch.round(x, decimals=1)
        return y

    model = run(keeps, fc=nn.Linear(6, OUT))
    model.z = torch.zeros(12, 6)
    counter = fxsynops.SynOpsCounter(model, X, strict=False)
    for _ in range(2):
        counter(X)
    (row,) = counter.latest.unresolved
    assert (row.synapse, row.reason) == (
        "fc",
        "an earlier forward left in it what no rule counts",
    )


def test_an_input_of_fractions_or_flags_is_not_said_to_hold_indices():
    weight = nn.Parameter(torch.rand(2, 6))
    for x, said in ((X.clamp(max=1), False), (X > 0, False), ((X > 0).long(), True)):
        model = run(lambda m, x: m.fc(Step.apply(m.w[x.long()])), w=weight, fc=nn.Linear(6, OUT))
        (row, *_) = fxsynops.analyze(model, x, strict=False, input_events=True).unresolved
        assert ("holds indices" in row.reason) == said


def test_of_which_worth_the_larger_is_must_be_known():
    model = run(lambda m, x, y: m.fc(torch.maximum(torch.add(x, y, alpha=2), x)))
    model.fc = nn.Linear(6, OUT)
    assert unresolved(model, X, Y) == [("fc", "maximum")]


class Unseen(torch.autograd.Function):
    """Multiplies with weights where no recording sees it."""

    @staticmethod
    def forward(ctx, x, weight):
        return torch.as_tensor((x @ weight.t()).detach().numpy() * 1)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@pytest.mark.parametrize("outputs", [5, 6])
@pytest.mark.parametrize("behind", [False, True])
def test_what_may_have_weights_is_said_wherever_it_leads(outputs, behind):
    """Also weights that are as many as the events, and synapses that are the last."""

    def forward(m, x):
        y = Unseen.apply(x, m.w)
        return m.fc(Step.apply(y)) if behind else y

    weight = nn.Parameter(torch.rand(outputs, 6))
    model = run(forward, w=weight, fc=nn.Linear(outputs, OUT))
    ((synapse, _),) = unresolved(model, X[:6])
    assert synapse == "Unseen"


@pytest.mark.parametrize("function", [torch.xlogy, torch.copysign, torch.nextafter])
def test_two_tensors_in_what_no_rule_covers_may_be_events_and_weights(function):
    fc = nn.Linear(6, OUT)

    def of(other, x=X, **options):
        model = run(lambda m, x: (m.fc(x), function(x, m.w)), fc=fc, w=other)
        return unresolved(model, x, **options)

    name = function.__name__
    assert of(nn.Parameter(torch.rand(12, 6))) == [(name, name)]
    assert of(nn.Parameter(torch.rand(6))) == [(name, name)]
    two = run(lambda m, x: (m.fc(x), function(x[:, :2], m.w)), fc=fc, w=nn.Parameter(torch.rand(2)))
    assert unresolved(two, X) == [(name, name)]
    assert of(nn.Parameter(torch.rand(1))) == []
    assert of(nn.Parameter(torch.rand(()))) == []
    assert of(nn.Parameter(torch.rand(6)), torch.rand(12, 6), input_events=False) == []


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return (v > 0.1).float()

    @staticmethod
    def backward(ctx, grad):
        return grad


# -- masks and indices that may change -------------------------------------------------------------


def test_masks_that_are_computed_from_a_buffer_are_no_neurons():
    mask = torch.tensor([1.0, 0, 0, 2, 0, 0.5])
    functions = (
        lambda m, s: s * F.relu((m.kept > 0).float()),
        lambda m, s: s * (m.kept > 0).float().view(1, 6).relu().clamp(0, 1),
        lambda m, s: s * torch.cat([m.kept > 0, m.kept > 9])[:6],
    )
    model = run(lambda m, x: [m.fc(f(m, x)) for f in functions], kept=mask, fc=nn.Linear(6, OUT))
    counter = fxsynops.SynOpsCounter(model, X)
    (row,) = counter.analysis.connections
    assert (row.source, row.measured_at) == ("xs_0", "xs_0")
    for kept in (mask, mask.flip(0), torch.ones(6)):
        model.kept.copy_(kept)
        counter(X)
        assert float(counter.synops.detach()) == float((X * (kept > 0)).sum()) * 3 * OUT


@pytest.mark.parametrize(
    "read",
    [
        lambda m, x, t: x * m.masks[t],
        lambda m, x, t: x * m.held[t],
        lambda m, x, t: x[:, m.places[t]],
        lambda m, x, t: x.index_select(1, m.places[t]),
    ],
)
def test_steps_with_masks_and_indices_that_may_change_are_one_row(read):
    """However their maps differ now: each may become another one's."""
    x = drawn(0, 2, 9, (3, 12, 6)) - 0.5
    places = drawn(0, 5, 13, (3, 6)).long()
    masks = drawn(0, 1, 10, (3, 6))
    model = run(
        lambda m, xs: torch.stack([m.fc(read(m, Step.apply(x), t)) for t, x in enumerate(xs)]),
        masks=masks,
        held=nn.Parameter(masks.clone()),
        places=places,
        fc=nn.Linear(6, OUT),
    )
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", input_events=False)
    assert [(r.source, r.synapse) for r in counter.analysis.connections] == [("Step", "fc")]
    for shift in range(3):
        model.masks.copy_(masks.roll(shift, 0))
        model.held.data.copy_(masks.roll(shift, 1))
        model.places.copy_((places + shift) % 6)
        counter(x)
        with torch.no_grad():
            arrived = sum(float(read(model, Step.apply(v), t).sum()) for t, v in enumerate(x))
        found = {name: float(n.detach()) for name, n in counter.per_synapse.items()}
        assert found == {"fc": arrived * OUT}


# -- models without values -------------------------------------------------------------------------


def test_models_without_values_have_the_same_connections():
    def forward(m, x):
        sized = x * torch.tensor([2.0, -2, 2, 2, -2, -2], device=x.device)
        parts = (
            F.relu(sized),
            (x * m.one).clamp(0, 1),
            torch.where(x > 0, 1.0, 0.0),
            x * torch.full((6,), 0.5, device=x.device),
            x + torch.ones(6, device=x.device),
            torch.maximum(x, torch.ones(6, device=x.device)),
            x.masked_fill(x > 0, 2.0),
        )
        return [m.fc(part) for part in parts]

    def build():
        return run(forward, one=nn.Parameter(torch.tensor(0.7)), fc=nn.Linear(6, OUT))

    def rows(model, x):
        found = fxsynops.analyze(model, x, strict=False).connections
        return [(r.source, r.measured_at, r.synapse, r.fanout.total) for r in found]

    assert rows(build().to("meta"), X.to("meta")) == rows(build(), X)


# -- sparse weights that are written to ------------------------------------------------------------


@pytest.mark.parametrize("change", ["copied", "emptied", "replaced"])
@pytest.mark.parametrize("held", ["attribute", "buffer", "parameter"])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_weights_that_are_written_to_have_other_synapses(change, held):
    kept, other = drawn(0, 1, 11, (5, 6)), drawn(0, 1, 12, (5, 6))
    weight = kept.to_sparse()
    model = run(lambda m, x: torch.sparse.mm(m.w, x.t()))
    if held == "buffer":
        model.register_buffer("w", weight)
    else:
        model.w = nn.Parameter(weight) if held == "parameter" else weight
    counter = fxsynops.SynOpsCounter(model, X)
    counter(X)
    assert float(counter.synops.detach()) == float((X @ kept.t()).sum())
    with torch.no_grad():
        if change == "copied":
            model.w.copy_(other.to_sparse())
        elif change == "emptied":
            model.w.zero_()
        else:
            model.w = nn.Parameter(other.to_sparse()) if held == "parameter" else other.to_sparse()
    now = torch.zeros(5, 6) if change == "emptied" else other
    counter(X)
    assert float(counter.synops.detach()) == float((X @ now.t()).sum())


def test_other_data_of_a_sparse_weight_are_other_synapses():
    """``.data =`` leaves a tensor's version as it is."""

    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("w", (torch.rand(5, 6) < 0.4).float().to_sparse())

        def forward(self, x):
            return torch.sparse.mm(self.w, x.t())

    torch.manual_seed(0)
    model, x = Sparse(), (torch.rand(7, 6) < 0.5).float()
    counter = fxsynops.SynOpsCounter(model, x)
    found = []
    for chance in (0.4, 0.9):
        model.w.data = (torch.rand(5, 6) < chance).float().to_sparse()
        counter(x)
        found.append(float(counter.synops))
        assert found[-1] == float((model.w.to_dense() @ x.t()).sum())
    assert found[0] < found[1]


class Indexed(nn.Module):
    """An index in a buffer, which has no value on the meta device."""

    def __init__(self, read):
        super().__init__()
        self.fc, self.read = nn.Linear(6, 3), read
        self.register_buffer("ix", torch.tensor([0, 1, 1, 2, 3, 4]))

    def forward(self, x):
        return self.fc(self.read(x, self.ix))


@pytest.mark.parametrize(
    "read", [lambda x, ix: x[:, ix], lambda x, ix: x.index_select(1, ix)], ids=["[]", "select"]
)
def test_where_an_index_leads_is_not_known_without_its_values(read):
    x = torch.ones(2, 6)
    (connection,) = fxsynops.analyze(Indexed(read), x, layout="N").connections
    assert connection.fanout.map.flatten().tolist() == [3, 6, 3, 3, 3, 0]
    with pytest.raises(fxsynops.UnsupportedOperationError, match=r"no values .*meta device"):
        fxsynops.analyze(Indexed(read).to("meta"), x.to("meta"), layout="N")


class Above(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


class Padded(nn.Module):
    """One synapse, whose map is another in the first step, behind a factor that may change."""

    def __init__(self):
        super().__init__()
        self.fc, self.factor = nn.Linear(6, 3), nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        out = []
        for t in range(2):
            z = Above.apply(x[t]) * self.factor
            out.append(self.fc(z if t else nn.functional.pad(z[:, :3], (0, 3))))
        return torch.stack(out)


def test_a_model_without_values_has_the_rows_of_one_with_values():
    rows = []
    for device in ("cpu", "meta"):
        x = torch.rand(2, 4, 6, device=device)
        found = fxsynops.analyze(Padded().to(device), x, layout="TN", input_events=False)
        rows.append([(c.synapse, c.fanout.total) for c in found.connections])
    assert rows[0] == rows[1] == [("fc", (3 + 6) * 3 / 2)]


class Graded(nn.Module):
    def __init__(self):
        super().__init__()
        self.lif, self.fc = snntorch.Leaky(0.5, threshold=1.0), nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(nn.functional.relu(self.lif(x, torch.zeros_like(x))[0]))


def test_an_amplitude_in_a_buffer_that_is_no_longer_one_is_seen():
    x = torch.tensor([[2.0, 0, 3, 0, 2, 2]])
    model = Graded()
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x)
    assert counter.counts.total == 4 * 2
    model.lif.graded_spikes_factor.fill_(2.0)
    with pytest.raises(fxsynops.UnsupportedOperationError, match="worth differs"):
        counter(x)


class Masked(nn.Module):
    """Half of the events do not pass, if their mask has values."""

    def __init__(self, factor):
        super().__init__()
        self.register_buffer("mask", factor)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x * self.mask)


def test_masks_without_values_are_said():
    mask, x = (torch.arange(6) % 2).float(), torch.ones(2, 6)
    known = fxsynops.analyze(Masked(mask), x, layout="N")
    assert known.connections[0].fanout.total == 3 * 3
    assert "does not have" not in str(known)
    unknown = fxsynops.analyze(Masked(mask).to("meta"), x.to("meta"), layout="N", input_events=True)
    assert unknown.connections[0].fanout.total == 6 * 3
    for result in (unknown, unknown.upper_bound()):
        (said,) = [note for note in result.report().content["notes"] if "does not have" in note]
        assert "all of them are taken to pass" in said
        assert "test_left_behind.py" in said
