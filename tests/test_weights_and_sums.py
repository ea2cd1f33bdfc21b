"""Synapses that no layer and no matrix product says: products with weights that are added up.

Each event counts once for each weight that it meets, however the sum is written: what is right is
counted by hand from the events and the places where they go.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
from fxsynops.connectivity import open_ends

IN, OUT, EDGES = 12, 10, 40
DRAW = torch.Generator().manual_seed(0)
PRE, POST = (torch.randint(n, (EDGES,), generator=DRAW) for n in (IN, OUT))
X = (torch.rand(5, IN, generator=DRAW) < 0.4).float()


class Written(nn.Module):
    """A function of events and of some weights, in front of spikes that drive a layer."""

    def __init__(self, function, **weights):
        super().__init__()
        self.function = function
        for name, size in weights.items():
            setattr(self, name, nn.Parameter(torch.randn(size)))
        self.out = nn.Linear(OUT, 3)

    def forward(self, x):
        return self.out((self.function(self, x) > 0.2).float())


def counted(model, x=X, **options):
    """SynOps of all rows but the last layer's."""
    counter = fxsynops.SynOpsCounter(model, x, layout="N", **options)
    assert torch.equal(counter(x), model(x))
    found = {name: float(synops.detach()) for name, synops in counter.per_synapse.items()}
    del found["out"]
    assert counter.analysis.audit.ok
    return found


def zeros(x):
    return torch.zeros(len(x), OUT)


def placed(x):
    return POST.expand(len(x), -1)


# -- an edge for each pair -------------------------------------------------------------------------

EDGE_LISTS = {
    "index_add": lambda x, m: zeros(x).index_add(1, POST, m),
    "index_add_": lambda x, m: zeros(x).index_add_(1, POST, m),
    "scatter_add": lambda x, m: zeros(x).scatter_add(1, placed(x), m),
    "scatter": lambda x, m: zeros(x).scatter(1, placed(x), m, reduce="add"),
    "scatter_reduce": lambda x, m: zeros(x).scatter_reduce(1, placed(x), m, "sum"),
    "index_put": lambda x, m: zeros(x).T.contiguous().index_put((POST,), m.T, True).T,
    "a product": lambda x, m: (m[:, :, None] * F.one_hot(POST, OUT)).sum(1),
}


@pytest.mark.filterwarnings("ignore:The reduce argument")
@pytest.mark.parametrize("name", EDGE_LISTS)
def test_an_event_meets_a_weight_for_each_of_its_edges(name):
    add = EDGE_LISTS[name]
    model = Written(lambda m, x: add(x, x[:, PRE] * m.w), w=EDGES)
    assert counted(model) == {"w": float(X[:, PRE].sum())}


def test_bins_add_up_the_weights_of_their_edges():
    model = Written(
        lambda m, x: torch.stack([torch.bincount(POST, e, OUT) for e in (x[:, PRE] * m.w).detach()])
    )
    model.w = torch.randn(EDGES)
    assert counted(model) == {"w": float(X[:, PRE].sum())}


# -- one weight behind the other -------------------------------------------------------------------

FLAT = {
    "repeat": lambda m, x: (x.repeat(1, OUT) * m.w).view(-1, OUT, IN).sum(-1),
    "repeat_interleave": lambda m, x: (x.repeat_interleave(OUT, 1) * m.w).view(-1, IN, OUT).sum(1),
    "tile": lambda m, x: (x.tile(OUT) * m.w).unflatten(-1, (OUT, IN)).sum(-1),
    "expand": lambda m, x: (
        (x[:, None].expand(-1, OUT, -1).reshape(-1, OUT * IN) * m.w).view(-1, OUT, IN).sum(-1)
    ),
    "split": lambda m, x: torch.stack([p.sum(-1) for p in (x.tile(OUT) * m.w).split(IN, -1)], -1),
    "chunk": lambda m, x: torch.stack([p.sum(-1) for p in (x.tile(OUT) * m.w).chunk(OUT, -1)], -1),
    "pooled": lambda m, x: F.avg_pool1d((x.tile(OUT) * m.w)[:, None], IN)[:, 0] * IN,
}


@pytest.mark.parametrize("name", FLAT)
def test_flat_weights_are_a_layer(name):
    assert counted(Written(FLAT[name], w=OUT * IN)) == {"w": float(X.sum()) * OUT}


@pytest.mark.parametrize(
    "together",
    [
        lambda rows: torch.stack(rows, 1).sum(-1),
        lambda rows: torch.cat(rows, -1).view(-1, OUT, IN).sum(-1),
        lambda rows: torch.stack([row.sum(-1) for row in rows], -1),
    ],
)
def test_rows_of_weights_are_a_layer(together):
    names = [f"row{i}" for i in range(OUT)]
    model = Written(
        lambda m, x: together([x * getattr(m, name) for name in names]),
        **dict.fromkeys(names, IN),
    )
    assert sum(counted(model).values()) == float(X.sum()) * OUT


SHIFTED = F.pad(X, (1, 1))


@pytest.mark.parametrize(
    ("function", "size", "right"),
    [
        (
            lambda m, x: sum(x[:, i : i + 1] * m.w[i] for i in range(IN)).expand(-1, OUT),
            IN,
            X.sum(),
        ),
        (
            lambda m, x: sum(F.pad(x, (1, 1))[:, i : i + OUT] * m.w[i] for i in range(3)),
            3,
            sum(SHIFTED[:, i : i + OUT].sum() for i in range(3)),
        ),
        (
            lambda m, x: (x * m.w[0] + x.roll(1, 1) * m.w[1])[:, :OUT],
            2,
            2 * X.sum(),
        ),
    ],
    ids=["a sum", "a convolution", "a filter"],
)
def test_terms_of_a_sum_are_counted_one_by_one(function, size, right):
    assert sum(counted(Written(function, w=size)).values()) == float(right)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x[:, :OUT] * m.w + x[:, 2:] * m.v,  # gains of two kinds
        lambda m, x: m.v * (m.w * x[:, :OUT] + x[:, 2:]),
    ],
)
def test_gains_that_are_parameters_of_their_own_are_no_synapses(function):
    assert counted(Written(function, w=OUT, v=OUT)) == {}


def test_dendrites_are_counted_where_they_branch():
    model = Written(lambda m, x: (x[:, PRE] * m.w).view(-1, OUT, EDGES // OUT).sum(-1), w=EDGES)
    assert counted(model) == {"w": float(X[:, PRE].sum())}


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x[:, :OUT] * m.w,  # a gain of each neuron's own
        lambda m, x: (x[:, None, :OUT] * m.w).expand(-1, 4, -1).sum(1),  # … added to itself
        lambda m, x: (x[:, :OUT] * m.w) + (x[:, 2:] * m.w),  # … of two events
        lambda m, x: zeros(x).index_add(0, torch.arange(len(x)).flip(0), x[:, :OUT] * m.w),
        lambda m, x: x[:, :OUT] * m.w - 0.3,  # … beside a number
        lambda m, x: 1 - (0.1 + x[:, :OUT] * m.w),
        lambda m, x: F.dropout(x[:, :OUT] * m.w),  # … some of which a mask stops
        lambda m, x: F.avg_pool1d((x[:, :OUT].repeat(1, 4) * m.w.repeat(4)).view(-1, 4, OUT).mT, 4)[
            ..., 0
        ],
    ],
)
def test_a_gain_is_no_synapse(function):
    """Events that are weighted alike are added up, and meet no weight of a layer."""
    counter = fxsynops.SynOpsCounter(Written(function, w=OUT), X, layout="N")
    assert list(counter.per_synapse if counter(X) is not None else {}) == ["out"]


def test_gains_in_a_row_fold_into_the_last():
    """And what is summed counts where it is summed."""
    model = Written(
        lambda m, x: ((x.tile(OUT) * m.g) * m.h).view(-1, OUT, IN).sum(-1), g=OUT * IN, h=OUT * IN
    )
    assert counted(model) == {"h": float(X.sum()) * OUT}
    assert fxsynops.analyze(model, X, layout="N").dense == ()


class Adaptive(nn.Module):
    """A threshold that rises with each spike, by a leak of each neuron's own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 2)
        self.rho, self.tau = nn.Parameter(torch.rand(5)), nn.Parameter(torch.rand(5))

    def forward(self, x):
        v = z = rise = torch.zeros(x.shape[0], 5)
        out = 0.0
        for step in x.unbind(1):
            rise = self.rho * rise + (1 - self.rho) * z
            v = self.tau * v + self.a(step) - z
            z = (v - (0.05 + 1.8 * rise) > 0).float()
            out = out + self.b(z)
        return out


def test_adaptation_is_no_synapse_and_takes_as_long_as_it_has_steps(monkeypatch):
    looked, carried = [], open_ends._Ends._carried
    monkeypatch.setattr(
        open_ends._Ends, "_carried", lambda *args: looked.append(1) or carried(*args)
    )
    found = {}
    for steps in (10, 40):
        x = (torch.rand(2, steps, 6) < 0.5).float()
        analysis = fxsynops.analyze(Adaptive(), x, layout="NT")
        assert {c.synapse for c in analysis.connections} == {"a", "b"}
        assert analysis.dense == ()
        found[steps] = len(looked)
        looked.clear()
    assert 0 < found[40] < 5 * found[10]


@pytest.mark.parametrize("events", ["value", "nonzero"])
def test_edges_may_be_an_input(events):
    class Edges(Written):
        def forward(self, x, pre, post):
            added = zeros(x).index_add(1, post, x[:, pre] * self.w)
            return self.out((added > 0.2).float())

    model = Edges(None, w=EDGES)
    counter = fxsynops.SynOpsCounter(model, (X, PRE, POST), layout="N", events=events)
    for pre in (PRE, PRE.flip(0)):
        counter(X, pre, POST)
        assert float(counter.per_synapse["w"].detach()) == float(X[:, pre].sum())


# -- activations -----------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.q, self.k = function, nn.Linear(6, 8), nn.Linear(6, 8)

    def spikes(self, x):
        return (self.q(x) > 0.1).float(), (self.k(x) > 0.1).float()

    def forward(self, x):
        return self.function(*self.spikes(x))


def attended(function):
    """SynOps of all products but the layers', and the spikes of both sides."""
    torch.manual_seed(0)
    model, x = Attention(function), (torch.rand(2, 5, 6, generator=DRAW) < 0.4).float()
    counter = fxsynops.SynOpsCounter(model, x, layout="N")
    counter(x)
    found = {n: float(v.detach()) for n, v in counter.per_synapse.items() if n not in "qk"}
    return found, *model.spikes(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda q, k: (q[:, :, None] * k[:, None]).sum(-1),
        lambda q, k: torch.stack([(q[:, i : i + 1] * k).sum(-1) for i in range(5)], 1),
        lambda q, k: (q[:, :, None] * k[:, None]).mean(-1),
        lambda q, k: torch.einsum("bnc,bmc->bnm", q, k),
    ],
)
def test_products_of_activations_are_coincidences_however_they_are_written(function):
    found, q, k = attended(function)
    assert sum(found.values()) == float((q @ k.mT).sum()) > 0


def test_scores_times_events_count_each_event_for_each_score():
    written, q, k = attended(lambda q, k: ((q @ k.mT).softmax(-1)[..., None] * k[:, None]).sum(2))
    assert sum(written.values()) == float((q @ k.mT).sum()) + 5 * float(k.sum())


def test_a_gate_and_a_sum_are_no_product():
    """As in the spike-driven transformer, where one tensor masks another of its size."""
    found, *_ = attended(lambda q, k: (q * k).sum(-1))
    assert found == {}


# -- weights that events choose --------------------------------------------------------------------

LOOKUPS = {
    "nonzero": lambda m, x, at: m.w[at[:, 1]],
    "index_select": lambda m, x, at: m.w.index_select(0, at[:, 1]),
    "embedding": lambda m, x, at: F.embedding(at[:, 1], m.w),
}


@pytest.mark.parametrize("name", LOOKUPS)
@pytest.mark.parametrize(
    "places", [torch.nonzero, torch.argwhere, lambda x: torch.stack(torch.where(x), 1)]
)
def test_rows_of_weights_that_events_choose_are_refused(name, places):
    def forward(m, x):
        at = places(x)
        return zeros(x).index_add(0, at[:, 0], LOOKUPS[name](m, x, at))

    with pytest.raises(
        fxsynops.UnsupportedOperationError, match=r"events choose among weights|no rule says"
    ):
        fxsynops.analyze(Written(forward, w=(IN, OUT)), X, layout="N")


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: F.cosine_similarity(x[:, None], m.w, -1),
        lambda m, x: F.pairwise_distance(x[:, None], m.w),
        lambda m, x: torch.cdist(x, m.w),
    ],
)
def test_sums_with_weights_that_nothing_shows_are_refused(function):
    with pytest.raises(fxsynops.UnsupportedOperationError, match=r"'\w+' in the model's forward"):
        fxsynops.analyze(Written(function, w=(OUT, IN)), X, layout="N")


# -- weights alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.spectral_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
    ],
    ids=["spectral, old", "spectral", "orthogonal"],
)
def test_what_makes_weights_is_no_synapse(norm):
    """The power iteration of a spectral norm keeps its vectors in buffers."""
    model = nn.Sequential(norm(nn.Linear(IN, OUT))).train()
    counter = fxsynops.SynOpsCounter(model, X, layout="N")
    counter(X)
    assert counter.counts.macs == {}
    assert counter.counts.total == float(X.sum()) * OUT
    assert "looks like events" not in str(counter.counts)


# -- steps -----------------------------------------------------------------------------------------


class Inner(nn.Module):
    """Three iterations for each frame."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        v, out = 0.0, 0.0
        for frame in x:
            for _ in range(3):
                v = 0.6 * v + self.a(frame)
                z = (v > 0.1).float()
                v, out = v - 0.1 * z, out + self.b(z)
        return out


def test_steps_that_are_unknown_stay_so_for_inputs_of_another_length():
    counter = fxsynops.SynOpsCounter(Inner(), (torch.rand(6, 2, 6) < 0.5).float(), steps=True)
    for steps in (6, 8, 1):
        counter((torch.rand(steps, 2, 6) < 0.5).float())
        assert counter.per_step.shape == (1,)
    assert counter.counts.timesteps == 1
    assert "Steps unknown" in str(counter.counts)


GAINS = {
    "as it is": lambda g, x: g,
    "expand": lambda g, x: g.expand(-1, 4, 4),
    "expand_as": lambda g, x: g.expand_as(x),
    "expand_as behind unsqueeze": lambda g, x: g.unsqueeze(0).expand_as(x),
    "broadcast_to": lambda g, x: torch.broadcast_to(g, x.shape),
    "repeat": lambda g, x: g.repeat(1, 4, 4),
    "repeat_interleave": lambda g, x: g.repeat_interleave(4, 1).repeat_interleave(4, 2),
}


@pytest.mark.parametrize("axes", [(2, 3), (1, 2, 3)])
@pytest.mark.parametrize("way", GAINS)
def test_a_gain_of_each_channel_is_one_however_often_it_is_repeated(way, axes):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.neuron = nn.Conv2d(1, 4, 3, padding=1), fxsynops.nn.NeuromorphicReLU()
            self.gain, self.fc = nn.Parameter(torch.rand(4, 1, 1)), nn.Linear(4, 2)

        def forward(self, x):
            y = self.neuron(self.conv(x))
            z = (y * GAINS[way](self.gain, y)).sum(axes)
            return self.fc(z) if len(axes) == 2 else z  # over channels, it is a synapse

    torch.manual_seed(0)
    model, x = Model(), 4 * torch.rand(2, 1, 4, 4)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x)
    fired = float(model.neuron(model.conv(x)).detach().sum())
    rows = {row.connection.synapse: row.synops for row in counter.counts.rows}
    assert list(rows.values()) == [fired * (2 if len(axes) == 2 else 1)]
