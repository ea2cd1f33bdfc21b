"""Products of two activations (spiking attention), and products with weights in all their forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops

B, H, L, D = 2, 3, 5, 4
GENERATOR = torch.Generator().manual_seed(3)


def draw(*shape, top=1):
    return torch.randint(0, top + 1, shape, generator=GENERATOR).float()


class Multiplies(nn.Module):
    """Calls a function on its inputs; holds a weight, a buffer and a scale to use in it."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(D, 6))
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.register_buffer("mix", torch.randn(L, L))

    def forward(self, *inputs):
        return self.function(self, *inputs)


def count(function, *inputs, events=True, **options):
    """SynOps and MACs by synapse of one pass, which returns what the function does."""
    model = Multiplies(function)
    counter = fxsynops.SynOpsCounter(model, inputs, input_events=events, **options)
    assert torch.equal(counter(*inputs), model(*inputs))
    found = {k: float(v.detach()) for k, v in counter.per_synapse.items()}
    macs = {d.synapse: d.macs * B for d in counter.analysis.dense}
    total = float(counter.synops.detach())
    assert sum(map(float, (v.detach() for v in counter.per_source.values()))) == total
    assert sum(found.values()) == total == counter.counts.total
    return found, macs, counter


# -- two factors -----------------------------------------------------------------------------------

q, k, v = (draw(B, H, L, D) for _ in range(3))
analog = torch.rand(B, H, L, D, generator=GENERATOR)


def test_spikes_times_spikes_count_their_coincidences():
    found, macs, counter = count(lambda m, q, k: q @ k.mT, q, k)
    assert found == {"matmul": float((q @ k.mT).sum())}
    assert macs == {}
    (row,) = counter.analysis.connections
    assert (row.sources, row.source, row.measured_at) == (("inputs_0", "inputs_1"),) + (
        "matmul",
    ) * 2
    assert (row.kind, row.neurons, row.fanout.nominal) == ("matmul", H * L * L, None)
    bound = counter.analysis.upper_bound()
    assert bound.structural == H * L * L * D  # m·k·n, with one event per element


def test_spikes_times_analog_values_have_a_fan_out():
    found, macs, counter = count(lambda m, q, a: q @ a.mT, q, analog, events=[True, False])
    assert found == {"matmul": float(q.sum()) * L}
    assert macs == {}
    (row,) = counter.analysis.connections
    assert (row.source, row.fanout.min, row.fanout.max) == ("inputs_0", L, L)
    found, _, _ = count(lambda m, a, v: a @ v, torch.rand(B, H, 7, L), v, events=[False, True])
    assert found == {"matmul": float(v.sum()) * 7}


def test_analog_values_times_analog_values_are_macs():
    found, macs, _ = count(
        lambda m, a, w, s: (a @ w.mT, F.linear(s, m.weight.T))[0],
        analog,
        analog * 2,
        draw(B, D),
        events=[False, False, True],
    )
    assert macs == {"matmul": B * H * L * L * D}
    assert set(found) == {"linear"}


def test_counts_times_spikes():
    counts = draw(B, H, L, D, top=3)
    found, _, _ = count(lambda m, q, k: q @ k.mT, counts, k)
    assert found == {"matmul": float((counts @ k.mT).sum())}


def test_signed_spikes_do_not_cancel():
    signed = draw(B, H, L, D, top=2) - 1
    found, _, _ = count(lambda m, q, k: q @ k.mT, signed, k)
    assert found == {"matmul": float((signed.abs() @ k.mT).sum())}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    found, _, _ = count(lambda m, q, k: q @ k.mT, q.to(dtype), k.to(dtype))
    assert found == {"matmul": float((q @ k.mT).sum())}


def test_every_nonzero_element_is_one_event():
    counts, other = draw(B, H, L, D, top=3), draw(B, H, L, D, top=2)
    model = Multiplies(lambda m, q, k: q @ k.mT)
    counter = fxsynops.SynOpsCounter(model, (counts, other), events="nonzero")
    counter(counts, other)
    assert float(counter.synops) == float(((counts != 0).float() @ (other != 0).float().mT).sum())
    assert counter.analysis.upper_bound().structural == H * L * L * D


# -- attention -------------------------------------------------------------------------------------


def attend(m, q, k, v):
    scores = (q @ k.transpose(-2, -1)) * 0.125
    return (scores @ v) * m.scale


def linear_order(m, q, k, v):
    return (q @ (k.transpose(-2, -1) @ v)) * 0.125


def test_chained_products_with_scales():
    found, macs, counter = count(attend, q, k, v)
    scores = q @ k.mT
    assert found == {"matmul": float(scores.sum()), "matmul#2": float((scores @ v).sum())}
    assert macs == {}
    rows = {c.synapse: c for c in counter.analysis.connections}
    assert rows["matmul#2"].sources == ("inputs_0", "inputs_1", "inputs_2")


def test_linear_attention_order():
    found, _, _ = count(linear_order, q, k, v)
    memory = k.mT @ v
    assert found == {"matmul": float(memory.sum()), "matmul#2": float((q @ memory).sum())}


def test_what_comes_out_of_a_product_drives_further_synapses():
    def forward(m, q, k):
        return F.linear(F.avg_pool1d((q @ k.mT).flatten(0, 1), 5), m.weight[:1].T)

    found, _, _ = count(forward, q, k)
    assert found == {"matmul": float((q @ k.mT).sum()), "linear": float((q @ k.mT).sum()) * 6}


@pytest.mark.parametrize("scaled", [False, True])
def test_softmax_makes_a_factor_analog(scaled):
    def forward(m, q, k, v):
        if scaled:
            return F.scaled_dot_product_attention(q, k, v)
        return torch.softmax(q @ k.mT / math.sqrt(D), -1) @ v

    found, macs, _ = count(forward, q, k, v)
    names = ("query_key", "attention_value") if scaled else ("matmul", "matmul#2")
    assert found == dict(zip(names, (float((q @ k.mT).sum()), float(v.sum()) * L), strict=True))
    assert macs == {}


def test_grouped_queries():
    few = draw(B, 1, L, D), draw(B, 1, L, D)
    found, _, _ = count(
        lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), q, *few
    )
    assert found == {
        "query_key": float((q @ few[0].mT).sum()),
        "attention_value": float(few[1].sum()) * H * L,
    }


def test_masked_scores_are_counted_before_the_mask():
    mask = torch.ones(L, L).tril()
    found, _, _ = count(lambda m, q, k, v: ((q @ k.mT) * mask) @ v, q, k, v)
    scores = q @ k.mT
    assert found == {"matmul": float(scores.sum()), "matmul#2": float(((scores * mask) @ v).sum())}


# -- every form ------------------------------------------------------------------------------------

x, y = draw(B, L, D, top=2), draw(B, L, D, top=2)
FORMS = {
    "matmul": lambda m, x, y: torch.matmul(x, y.mT),
    "method": lambda m, x, y: x.matmul(y.mT),
    "bmm": lambda m, x, y: torch.bmm(x, y.mT),
    "einsum": lambda m, x, y: torch.einsum("bmk,bnk->bmn", x, y),
    "einsum without arrow": lambda m, x, y: torch.einsum("amk,ank", x, y),
    "einsum with ellipsis": lambda m, x, y: torch.einsum("...mk,...nk->...mn", x, y),
    "einsum of a list": lambda m, x, y: torch.einsum("bmk,bnk->bmn", [x, y]),
    "baddbmm": lambda m, x, y: torch.baddbmm(torch.zeros(1, 1, 1), x, y.mT),
    "linalg": lambda m, x, y: torch.linalg.matmul(x, y.mT),
    "scaled baddbmm": lambda m, x, y: torch.baddbmm(
        torch.empty(B, L, L), x, y.mT, beta=0, alpha=0.5
    ),
    "method baddbmm": lambda m, x, y: torch.zeros(B, L, L).baddbmm(x, y.mT),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_product_in_many_forms(form):
    found, _, _ = count(FORMS[form], x, y)
    assert list(found.values()) == [float((x @ y.mT).sum())]


OTHER = {
    "mm": (lambda m, x, y: torch.mm(x[0], y[0].T), lambda: x[0] @ y[0].T),
    "mv": (lambda m, x, y: torch.mv(x[0], y[0, 0]), lambda: x[0] @ y[0, 0]),
    "dot": (lambda m, x, y: torch.dot(x[0, 0], y[0, 0]), lambda: x[0, 0] @ y[0, 0]),
    "vector": (lambda m, x, y: x[0, 0] @ y.mT, lambda: x[0, 0] @ y.mT),
    "inner": (lambda m, x, y: torch.inner(x[0], y[0]), lambda: x[0] @ y[0].T),
    "outer": (lambda m, x, y: torch.outer(x[0, 0], y[0, 0]), lambda: torch.outer(x[0, 0], y[0, 0])),
    "tensordot": (
        lambda m, x, y: torch.tensordot(x, y, dims=([2], [2])),
        lambda: torch.einsum("abk,cdk->abcd", x, y),
    ),
    "tensordot of two axes": (
        lambda m, x, y: (
            torch.tensordot(x[0], y[0].T, dims=2)
            if False
            else torch.tensordot(x, y.permute(1, 2, 0), dims=2)
        ),
        lambda: torch.einsum("abk,bkc->ac", x, y.permute(1, 2, 0)),
    ),
    "addbmm": (
        lambda m, x, y: torch.addbmm(torch.zeros(L, L), x, y.mT),
        lambda: (x @ y.mT).sum(0),
    ),
    "broadcast batch": (lambda m, x, y: x[:1] @ y.mT, lambda: x[:1] @ y.mT),
    "rmatmul": (lambda m, x, y: y.__rmatmul__(x.mT), lambda: x.mT @ y),
    "linear": (lambda m, x, y: F.linear(x[0], y[0]), lambda: x[0] @ y[0].T),
}


@pytest.mark.parametrize("form", OTHER)
def test_other_products(form):
    function, expected = OTHER[form]
    found, _, _ = count(function, x, y)
    assert list(found.values()) == [float(expected().sum())]


WEIGHTED = {
    "x @ weight": (lambda m, x: x @ m.weight, 6),
    "weight @ x": (lambda m, x: m.weight.T @ x.mT, 6),
    "buffer @ x": (lambda m, x: m.mix @ x, L),
    "addmm": (lambda m, x: torch.addmm(torch.zeros(6), x[0], m.weight), 6),
    "einsum": (lambda m, x: torch.einsum("btd,do->bto", x, m.weight), 6),
    "computed": (lambda m, x: x @ (m.weight * 2).tanh(), 6),
    "module-less linear": (lambda m, x: F.linear(x, m.weight.T.clamp(-1, 1)), 6),
}


@pytest.mark.parametrize("form", WEIGHTED)
def test_a_factor_that_is_a_weight_makes_a_linear_synapse(form):
    function, fanout = WEIGHTED[form]
    found, _, counter = count(function, x)
    events = x[0].sum() if form == "addmm" else x.sum()
    assert list(found.values()) == [float(events) * fanout]
    (row,) = counter.analysis.connections
    assert (row.kind, row.fanout.nominal) == ("linear", fanout)


def test_only_nonzero_weights_of_a_product():
    def forward(m, x):
        return torch.einsum("btd,do->bto", x, m.weight * (m.weight > 0))

    model = Multiplies(forward)
    counter = fxsynops.SynOpsCounter(model, x, weights="nonzero")
    counter(x)
    assert float(counter.synops) == float((x @ (model.weight > 0).float()).sum())
    with torch.no_grad():
        model.weight.neg_()
    counter(x)
    assert float(counter.synops) == float((x @ (model.weight > 0).float()).sum())


def test_einsum_of_one_operand_is_routing():
    found, _, _ = count(lambda m, x: torch.einsum("btd->db", x).T @ m.weight, x)
    assert list(found.values()) == [float(x.sum()) * 6]
    square = draw(B, D, D)
    found, _, _ = count(lambda m, s: torch.einsum("bii->bi", s) @ m.weight, square)
    assert list(found.values()) == [float(square.diagonal(dim1=1, dim2=2).sum()) * 6]


def test_einsum_element_by_element_is_a_scale_or_a_gate():
    found, _, _ = count(lambda m, x: torch.einsum("btd,d->btd", x, m.weight[:, 0]) @ m.weight, x)
    assert list(found.values()) == [float(x.sum()) * 6]
    found, _, counter = count(lambda m, x, y: torch.einsum("btd,btd->btd", x, y) @ m.weight, x, y)
    assert list(found.values()) == [float((x * y).sum()) * 6]
    assert counter.analysis.connections[0].measured_at == "einsum"


def test_weights_that_another_network_computes_from_the_input():
    spikes = draw(B, D)

    def forward(m, s, a):
        return F.linear(s, (a.mT @ a).tanh())

    found, macs, _ = count(forward, spikes, torch.rand(L, D), events=[True, False])
    assert found == {"linear": float(spikes.sum()) * D}
    assert macs == {"matmul": L * D * D}


def test_convolution_with_weights_computed_from_the_input():
    spikes = draw(B, 1, 8)

    def forward(m, s, a):
        return F.conv1d(s, a.tanh(), padding=1)

    found, _, _ = count(forward, spikes, torch.rand(3, 1, 3), events=[True, False])
    ones = torch.ones(3, 1, 3)
    assert found == {"conv1d": float(F.conv1d(spikes, ones, padding=1).sum())}


def test_gradients_of_coincidences():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(6, D), nn.Linear(6, D)

        def forward(self, x):
            q, k = (fxsynops.nn.NeuromorphicReLU()(layer(x) * 2) for layer in (self.q, self.k))
            return q, k, q @ k.mT

    torch.manual_seed(0)
    model, x = Attention(), torch.rand(B, L, 6) * 4
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x)
    counter.synops.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    _, _, product = model(x)
    product.sum().backward()
    assert float(product.sum().detach()) == float(counter.synops.detach()) > 0
    for p, grad in zip(model.parameters(), found, strict=True):
        torch.testing.assert_close(grad, p.grad)
