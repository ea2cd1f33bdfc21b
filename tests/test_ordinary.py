"""Ordinary code that is easily refused, or fails inside of the package: counted, or said."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import neuron as sj
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fxsynops
from tests.test_trust import OUT, Between, check, spikes


@pytest.mark.parametrize(
    "between",
    [
        lambda x: torch.zeros(4, 6).index_put((torch.arange(4), torch.arange(4)), x[:, 0]),
        lambda x: x.index_put((torch.arange(4), torch.arange(4)), x[:, 0], accumulate=True),
        lambda x: torch.zeros(4, 6).index_put_((torch.tensor([2, 0]),), x[:2]),
        lambda x: torch.addcmul(x, x, torch.ones(6)),
        lambda x: torch.addcmul(x, x, x),
        lambda x: x.clone().addcmul_(x, x, value=1),
        lambda x: torch.addcdiv(x, x, torch.ones(6)),
        lambda x: torch.column_stack([x[:, 0], x[:, 1], x[:, :4]]),
        lambda x: torch.slice_scatter(torch.zeros(4, 6), x[:, :2], 1, 2, 4),
        lambda x: torch.slice_scatter(x, x[:, 3:], 1, 3),
        lambda x: torch.select_scatter(x, x[:, 0], 1, 2),
        lambda x: torch.diagonal_scatter(x, x[:, 0]),
        lambda x: torch.zeros(4, 6).scatter_reduce(1, torch.zeros(4, 6).long(), x, "sum"),
        lambda x: torch.zeros(4, 6).scatter_reduce(1, torch.zeros(4, 6).long(), x, "amax"),
        lambda x: torch.zeros(4, 6).index_reduce(0, torch.tensor([0, 0, 1, 1]), x, "amax"),
        lambda x: nn.Threshold(0.5, 0.0)(x),
        lambda x: F.grid_sample(
            x[:, None, None],
            torch.linspace(-1, 1, 12).reshape(1, 1, 6, 2).expand(4, 1, 6, 2),
            mode="nearest",
            align_corners=False,
        )[:, 0, 0],
    ],
)
@pytest.mark.filterwarnings("ignore:index_reduce")
def test_events_are_carried_by_ordinary_operations(between):
    check(Between(between), spikes(4, 6), spikes(4, 6, p=0.9, seed=1))


@pytest.mark.parametrize(
    ("between", "paths"),
    [
        # What an event is worth differs; each of its paths counts.
        (lambda x: torch.lerp(x, x.flip(1), 0.25), lambda x: 2 * x.sum()),
        (lambda x: torch.zeros(4, 6).lerp_(x, 0.5), lambda x: x.sum()),
        (lambda x: x.diff(dim=1, append=torch.zeros(4, 1)), lambda x: 2 * x.sum() - x[:, 0].sum()),
        (lambda x: torch.diff(x, 1, 0, torch.zeros(1, 6)), lambda x: 2 * x.sum() - x[-1].sum()),
        (
            lambda x: F.grid_sample(
                x[:, None, None], torch.full((4, 1, 6, 2), 0.1), align_corners=False
            )[:, 0, 0],
            lambda x: 6 * x[:, 2:4].sum(),
        ),
    ],
    ids=["lerp", "lerp_", "diff", "diff of samples", "grid_sample"],
)
def test_events_of_unlike_worth_count_once_per_path(between, paths):
    model = Between(between)
    counter = fxsynops.SynOpsCounter(model, spikes(4, 6), layout="")
    for x in (spikes(4, 6), spikes(4, 6, p=0.9, seed=1)):
        assert torch.equal(counter(x), model(x))
        assert counter.synops.item() == OUT * paths(x).item()


@pytest.mark.parametrize(
    ("between", "macs"),
    [
        (lambda x: nn.LogSigmoid()(x), 6 * OUT),
        (lambda x: torch.addcmul(x.sigmoid(), x, x), 6 * OUT),
        (lambda x: torch.lerp(x.sigmoid(), x, 0.5), 6 * OUT),
        (lambda x: x.sigmoid().diff(dim=1, append=torch.zeros(4, 1)), 6 * OUT),
    ],
)
def test_analog_stays_analog(between, macs):
    analysis = fxsynops.analyze(Between(between), spikes(4, 6))
    assert [(row.synapse, row.macs) for row in analysis.dense] == [("head", macs)]
    assert not analysis.connections


def test_the_mean_of_events_that_are_scattered_is_refused():
    model = Between(
        lambda x: torch.zeros(4, 6).scatter_reduce(1, torch.zeros(4, 6).long(), x, "mean")
    )
    with pytest.raises(fxsynops.UnsupportedOperationError, match="scatter_reduce"):
        fxsynops.analyze(model, spikes(4, 6))


class LowRank(nn.Module):
    """An einsum of events and two parameters: the weight is what they make."""

    def __init__(self, equation, sizes):
        super().__init__()
        self.equation = equation
        self.weights = nn.ParameterList([nn.Parameter(torch.rand(size)) for size in sizes])

    def forward(self, x):
        return torch.einsum(self.equation, x, *self.weights)


@pytest.mark.parametrize(
    ("equation", "sizes", "fanout"),
    [
        ("ni,ij,jk->nk", [(6, 5), (5, 4)], 4),
        ("ni,ij,ij->nj", [(6, 5), (6, 5)], 5),
        ("ni,i,io->no", [(6,), (6, 3)], 3),
        ("ni,ij,jk,kl->nl", [(6, 5), (5, 4), (4, 2)], 2),
        ("ni,ij,jk", [(6, 5), (5, 4)], 4),
    ],
)
def test_an_einsum_of_events_and_several_parameters(equation, sizes, fanout):
    model, x = LowRank(equation, sizes), spikes(4, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    assert torch.equal(counter(x), model(x))
    assert counter.synops.item() == fanout * x.sum().item()
    with torch.no_grad():
        model.weights[0][0] = 0
    counter = fxsynops.SynOpsCounter(model, x, weights="nonzero")
    counter(x)
    assert counter.synops.item() == fanout * x[:, 1:].sum().item()


def test_fractional_inputs_are_events_where_each_counts_one():
    x = torch.rand(4, 6)
    x[:, ::2] = 0
    counter = fxsynops.SynOpsCounter(nn.Linear(6, OUT), x, events="nonzero")
    counter(x)
    assert counter.counts.total == OUT * 12


# -- inputs of all kinds ---------------------------------------------------------------------------

Pair = collections.namedtuple("Pair", "a b")


@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    steps: int = 2


class KeywordsOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, OUT)

    def forward(self, *, x, scale=1.0):
        return self.head(x)


def test_inputs_of_all_kinds():
    x, y = spikes(4, 6), spikes(4, 6, p=0.9)
    for model, example, other in (
        (Between(lambda batch: batch.x), Batch(x), Batch(y)),
        (Between(lambda pair: pair.a * pair.b), (Pair(x, x),), (Pair(y, y),)),
        (Between(lambda d: d["a"]), {"a": x}, {"a": y}),
        (Between(lambda d: d["a"]), ({"a": x},), ({"a": y},)),
        (Between(lambda given: given[0]), [x], [y]),
        (KeywordsOnly(), {"x": x}, {"x": y}),
        (KeywordsOnly(), {"x": x, "scale": 2.0}, {"x": y, "scale": 2.0}),
        (nn.Linear(6, OUT), {"input": x}, {"input": y}),
    ):
        counter = fxsynops.SynOpsCounter(model, example)
        if isinstance(example, dict) and not isinstance(model, Between):
            counter(**other)
        else:
            counter(*(other if isinstance(other, tuple) else (other,)))
        assert counter.synops.item() == OUT * y.sum().item()
        assert len(counter._replays) == 1  # another object of the same kind is no other trace


class Holds:
    def __init__(self, x):
        self.x = x


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_inputs_that_cannot_be_looked_into():
    for example in (Holds(torch.ones(2)), 3, None, "x", torch.ones(2).numpy(), Batch(3)):
        with pytest.raises(fxsynops.InputError, match="holds no tensor"):
            fxsynops.analyze(Between(lambda x: x), example)
    nested = torch.nested.nested_tensor([torch.ones(2, 6), torch.ones(1, 6)])
    with pytest.raises(fxsynops.InputError, match="nested tensor"):
        fxsynops.analyze(Between(lambda x: x), nested)


SAID = (fxsynops.TraceError, fxsynops.UnsupportedOperationError, fxsynops.InputError)


def _packs(x):
    return pack_padded_sequence(x, [6, 3], batch_first=True)


REFUSED = {
    "packed": (lambda x: pad_packed_sequence(_packs(x), batch_first=True)[0], "pack_padded"),
    "packed data": (lambda x: _packs(x).data, "pack_padded"),
    "cond": (
        lambda x: torch.cond(x.sum() > 0, lambda y: y * 1, lambda y: y * 0, (x,)),
        "'cond' is called .*takes functions",
    ),
    "jvp": (lambda x: torch.func.jvp(lambda y: y * 2, (x,), (x,))[0], "forward-mode"),
    "grad": (lambda x: torch.autograd.grad((x.requires_grad_() ** 2).sum(), x)[0], "backward pass"),
    "complex": (lambda x: (x + 0j).real, "real"),
    "fft": (lambda x: torch.fft.rfft(x).abs(), "rfft"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_counted_is_said_with_the_users_line(kind):
    code, match = REFUSED[kind]
    model = Between(code, features=4 if kind == "fft" else 6)
    with pytest.raises(SAID, match=match) as error:
        fxsynops.analyze(model, spikes(2, 6, 6, p=0.5))
    assert re.search(r"test_ordinary\.py:\d+|test_trust\.py:\d+", str(error.value))


def test_a_packed_sequence_into_a_module_is_refused():
    class Packs(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(6, 6, batch_first=True), nn.Linear(6, OUT)

        def forward(self, x):
            return self.head(self.gru(_packs(x))[0].data)

    with pytest.raises(fxsynops.TraceError, match=r"packed sequence is passed.*test_ordinary"):
        fxsynops.analyze(Packs(), spikes(2, 6, 6))


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_inputs_are_counted(layout):
    x = spikes(4, 6)
    sparse = x.to_sparse() if layout is torch.sparse_coo else x.to_sparse_csr()
    counter = fxsynops.SynOpsCounter(Between(lambda x: x.to_dense()), sparse)
    counter(sparse)
    assert float(counter.synops) == float(x.sum()) * OUT


# -- models of all kinds ---------------------------------------------------------------------------


class Scripted(torch.jit.ScriptModule):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, OUT)

    @torch.jit.script_method
    def forward(self, x):
        return self.head(x)


@pytest.mark.filterwarnings("ignore")
def test_scripted_and_traced_modules():
    x = spikes(4, 6)
    linear = nn.Linear(6, OUT)
    models = [torch.jit.trace(linear, x), torch.jit.script(linear), Scripted()]
    inner = nn.Linear(6, 6)
    models += [nn.Sequential(torch.jit.trace(inner, x), fxsynops.nn.NeuromorphicReLU(), linear)]
    for model in models:
        counter = fxsynops.SynOpsCounter(model, x)
        counter(x)
        arrived = OUT * x.sum()
        if isinstance(model, nn.Sequential):
            arrived = 6 * x.sum() + OUT * model[:2](x).sum()
        assert counter.synops.item() == arrived.item()


def test_a_counter_is_no_model():
    counter = fxsynops.SynOpsCounter(nn.Linear(6, OUT), spikes(4, 6))
    for model, where in ((counter, "this is"), (nn.Sequential(counter), "'0' is")):
        with pytest.raises(fxsynops.InputError, match=f"{where} a SynOpsCounter already"):
            fxsynops.analyze(model, spikes(4, 6))


def test_infinite_events_are_shown():
    counter = fxsynops.SynOpsCounter(nn.Linear(6, OUT), spikes(4, 6))
    counter(torch.full((4, 6), math.inf))
    assert counter.counts.total == math.inf
    assert "unbounded" in str(counter.counts)
    assert counter.counts.to_json()


def test_an_analysis_inside_of_another_default_device():
    model, x = nn.Sequential(nn.Linear(6, 4), fxsynops.nn.IAF(), nn.Linear(4, 2)), spikes(1, 3, 6)
    model(x)
    with torch.device("meta"):
        analysis = fxsynops.analyze(nn.Linear(6, OUT), torch.ones(2, 6))
        assert analysis.connections[0].fanout.total == 6 * OUT
        analysis = fxsynops.analyze(model, x, layout="NT")
        assert analysis.upper_bound(max_spikes=1).total > 0
        counter = analysis.counter()
        counter(x)
    assert counter.synops.item() >= 4 * x.sum().item()


def test_a_first_use_inside_of_another_default_device():
    """Modules that are imported with it keep no tensors there."""
    code = """
import torch
from spikingjelly.activation_based import neuron
layers = torch.nn.Linear(6, 3), neuron.IFNode(), torch.nn.Linear(3, 2)
model, x = torch.nn.Sequential(*layers), torch.ones(1, 6)
with torch.device("meta"):
    import fxsynops
    counter = fxsynops.SynOpsCounter(model, x)
counter(x)
print(counter.analysis.upper_bound().structural)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == 6 * 3 + 3 * 2


def test_what_a_bound_costs_inside_of_another_default_device():
    model = nn.Sequential(nn.Linear(6, 4), sj.IFNode(step_mode="m"), nn.Linear(4, 2))
    bound = fxsynops.analyze(model, torch.ones(3, 1, 6), layout="TN").upper_bound()
    outside = [str(bound.memory()), str(bound.conventional), str(bound.energy())]
    with torch.device("meta"):
        assert [str(bound.memory()), str(bound.conventional), str(bound.energy())] == outside


def test_names_in_spiking_that_match_nothing_are_said():
    analysis = fxsynops.analyze(nn.Linear(6, OUT), spikes(2, 6), spiking=(nn.ReLU, nn.Tanh))
    assert "spiking=ReLU matches nothing" in str(analysis)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, OUT))
    analysis = fxsynops.analyze(model, spikes(2, 6), spiking=nn.ReLU, events="nonzero")
    assert "matches nothing" not in str(analysis)


def test_masks_in_products_of_events_are_followed():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, OUT)
            self.register_buffer("mask", torch.tensor([1.0, 0, 1, 0]))

        def forward(self, q, k):
            return self.head((2 * q * self.mask) @ (k * self.mask).mT)

    model, x = Attends(), torch.ones(1, 2, 4)
    counter = fxsynops.SynOpsCounter(model, (x, x))
    for kept in (2, 3, 1):
        model.mask.copy_(torch.arange(4) < kept)
        counter(x, x)
        found = {name: n.item() for name, n in counter.per_synapse.items()}
        assert found == {"matmul": 4 * kept, "head": 4 * kept * OUT}
    for write in (lambda: model.mask.fill_(2.0), lambda: model.mask.data.fill_(2.0)):
        write()
        with pytest.raises(fxsynops.UnsupportedOperationError, match="worth differs"):
            counter(x, x)
        model.mask.fill_(1.0)
        counter(x, x)
        assert counter.per_synapse["head"].item() == 16 * OUT


@pytest.mark.parametrize(
    "events",
    [
        lambda m, q: q * m.twos,
        lambda m, q: torch.cat([0.5 * q[..., :2], q[..., 2:]], -1),
    ],
)
def test_products_of_events_of_several_worths_are_refused(events):
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, OUT)
            self.register_buffer("mask", torch.tensor([1.0, 0, 1, 0]))
            self.register_buffer("twos", torch.full((4,), 2.0))

        def forward(self, q, k):
            return self.head(events(self, q) @ k.mT)

    x = torch.ones(1, 2, 4)
    with pytest.raises(fxsynops.UnsupportedOperationError, match="worth differs between elements"):
        fxsynops.analyze(Attends(), (x, x))
