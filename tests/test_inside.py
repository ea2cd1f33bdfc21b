"""Weights inside of modules that are kept whole: a row each, with the right events."""

from __future__ import annotations

import norse.torch as norse
import pytest
import sinabs.layers as sl
import snntorch
import torch
from torch import nn

import fxsynops

T, N = 4, 3
LOW = {"spike_threshold": torch.tensor(0.02)}
spikes = (torch.rand(T, N, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def counted(model, x, reset=lambda model: None, **options):
    """What the counter says, and the model's own output, of the same pass."""
    counter = fxsynops.SynOpsCounter(model, x, **options)
    assert counter.analysis.unresolved == ()
    reset(model)
    with torch.no_grad():
        expected = model(x)
        reset(model)
        y = counter(x)
    leaves = torch.utils._pytree.tree_leaves
    for a, b in zip(leaves(y), leaves(expected), strict=True):
        assert a is b is None or torch.equal(a, b)
    return counter, expected


def rows(counter):
    return {
        (row.connection.source, row.connection.synapse): (row.events, row.synops)
        for row in counter.counts.rows
    }


def dense(counter):
    return {row.synapse: row.macs for row in counter.analysis.dense}


def reset_sinabs(model):
    for module in model.modules():
        if isinstance(module, sl.StatefulLayer):
            module.reset_states()


SINABS = {
    "IAFRecurrent": lambda rec: sl.IAFRecurrent(rec_connect=rec, **LOW),
    "LIFRecurrent": lambda rec: sl.LIFRecurrent(tau_mem=10.0, rec_connect=rec, **LOW),
    "ALIFRecurrent": lambda rec: sl.ALIFRecurrent(
        tau_mem=10.0, tau_adapt=10.0, rec_connect=rec, **LOW
    ),
}


@pytest.mark.parametrize("name", SINABS)
def test_sinabs_recurrent_weights(name):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 6), SINABS[name](nn.Linear(6, 6)), nn.Linear(6, 2))
    counter, _ = counted(model, spikes.transpose(0, 1), reset_sinabs, layout="NT")
    reset_sinabs(model)
    events = int(model[1](model[0](spikes.transpose(0, 1))).sum())
    assert events > 0
    assert rows(counter) == {
        ("input", "0"): (int(spikes.sum()), int(spikes.sum()) * 6),
        ("1", "1.rec_connect"): (events, events * 6),
        ("1", "2"): (events, events * 2),
    }


def test_sinabs_recurrent_convolution_and_its_borders():
    torch.manual_seed(1)
    recurrent = sl.IAFRecurrent(rec_connect=nn.Conv2d(2, 2, 3, padding=1), **LOW)
    x = (torch.rand(N, T, 2, 5, 5) < 0.5).float()
    counter, y = counted(recurrent, x, reset_sinabs, layout="NT")
    ones = torch.ones(2, 2, 3, 3, dtype=torch.float64)
    expected = nn.functional.conv2d(y.flatten(0, 1).double(), ones, padding=1).sum()
    assert rows(counter)["IAFRecurrent", "rec_connect"] == (int(y.sum()), int(expected))


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
@pytest.mark.parametrize("all_to_all", [True, False])
def test_snntorch_recurrent_weights(kind, all_to_all, hidden):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            decays = (0.9,) if kind == "RLeaky" else (0.9, 0.8)
            self.fc, self.out = nn.Linear(8, 6), nn.Linear(6, 2)
            self.lif = getattr(snntorch, kind)(
                *decays,
                all_to_all=all_to_all,
                linear_features=6 if all_to_all else None,
                threshold=0.2,
                init_hidden=hidden,
            )

        def forward(self, x):
            state, seen = self.lif.reset_mem(), []
            for step in x:
                if hidden:
                    spk = self.lif(self.fc(step))
                else:
                    state = self.lif(self.fc(step), *state)
                    spk = state[0]
                seen.append((spk, self.out(spk)))
            return torch.stack([s for s, _ in seen]), torch.stack([y for _, y in seen])

    torch.manual_seed(1)
    counter, (emitted, _) = counted(Loop(), spikes, layout="TN")
    events = int(emitted.sum())
    assert events > 0
    assert rows(counter) == {
        ("x", "fc"): (int(spikes.sum()), int(spikes.sum()) * 6),
        ("lif", "lif.recurrent"): (events, events * (6 if all_to_all else 1)),
        ("lif", "out"): (events, events * 2),
    }


@pytest.mark.parametrize("hidden", [False, True])
def test_snntorch_lstm(hidden):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = snntorch.SLSTM(8, 6, threshold=0.02, init_hidden=hidden)
            self.b = snntorch.SLSTM(6, 5, threshold=0.02, init_hidden=hidden)

        def forward(self, x):
            a, b, seen = self.a.reset_mem(), self.b.reset_mem(), []
            for step in x:
                if hidden:
                    spk = self.a(step)
                    out = self.b(spk)
                else:
                    spk, *a = self.a(step, *a)
                    out, *b = self.b(spk, *b)
                seen.append((spk, out))
            return torch.stack([s for s, _ in seen]), torch.stack([y for _, y in seen])

    torch.manual_seed(1)
    counter, (emitted, _) = counted(Loop(), spikes, layout="TN")
    events = int(emitted.sum())
    assert events > 0
    assert rows(counter) == {
        ("x", "a.input_weights"): (int(spikes.sum()), int(spikes.sum()) * 4 * 6),
        ("a", "b.input_weights"): (events, events * 4 * 5),
    }
    assert dense(counter) == {"a.recurrent_weights": 4 * 6 * 6, "b.recurrent_weights": 4 * 5 * 5}


def test_snntorch_convolutional_lstm():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = snntorch.SConv2dLSTM(1, 3, 3, threshold=0.02)
            self.b = snntorch.SConv2dLSTM(3, 2, 3, threshold=0.02, max_pool=2)

        def forward(self, x):
            a, b, seen = self.a.reset_mem(), self.b.reset_mem(), []
            for step in x:
                spk, *a = self.a(step, *a)
                out, *b = self.b(spk, *b)
                seen.append((spk, out))
            return torch.stack([s for s, _ in seen]), torch.stack([y for _, y in seen])

    torch.manual_seed(1)
    x = (torch.rand(T, N, 1, 6, 6) < 0.5).float()
    counter, (emitted, _) = counted(Loop(), x, layout="TN")

    def reached(events, channels):
        ones = torch.ones(channels, events.shape[2], 3, 3)
        return int(nn.functional.conv2d(events.flatten(0, 1), ones, padding=1).sum())

    taps = (6 * 3 - 2) ** 2  # of a 3x3 kernel on a padded 6x6 image
    assert emitted.sum() > 0
    assert rows(counter) == {
        ("x", "a.input_weights"): (int(x.sum()), reached(x, 4 * 3)),
        ("a", "b.input_weights"): (int(emitted.sum()), reached(emitted, 4 * 2)),
    }
    assert dense(counter) == {
        "a.recurrent_weights": taps * 3 * 4 * 3,
        "b.recurrent_weights": taps * 2 * 4 * 2,
    }


def test_snntorch_layers_that_take_the_whole_sequence():
    parallel = snntorch.LeakyParallel(8, 6, threshold=0.1)
    counter, _ = counted(parallel, spikes, layout="TN")
    total = int(spikes.sum())
    assert rows(counter) == {("input_", "input_weights"): (total, total * 6)}
    assert dense(counter) == {"recurrent_weights": 6 * 6}
    linear = snntorch.LinearLeaky(in_features=8, out_features=5, beta=torch.full((5,), 0.9))
    counter, _ = counted(linear, spikes, layout="TN")
    assert rows(counter) == {("input_", "input_weights"): (total, total * 5)}


NORSE = [
    "LIFRecurrent",
    "LSNNRecurrent",
    "LIFAdExRecurrent",
    "LIFExRecurrent",
    "LIFRefracRecurrent",
]


@pytest.mark.parametrize("name", NORSE)
def test_norse_recurrent_layers(name):
    torch.manual_seed(1)
    model = norse.SequentialState(getattr(norse, name)(8, 6), nn.Linear(6, 3), norse.LIF())
    model[0].input_weights.data *= 100
    counter, _ = counted(model, spikes, layout="TN")
    events = int(model[0](spikes)[0].sum())
    assert events > 0
    assert rows(counter) == {
        ("input_tensor", "0.input_weights"): (int(spikes.sum()), int(spikes.sum()) * 6),
        ("0", "0.recurrent_weights"): (events, events * 6),
        ("0", "1"): (events, events * 3),
    }


@pytest.mark.parametrize(
    "name", [f"{n}Cell" for n in NORSE] + ["LIFMCRecurrentCell", "LIFMCRefracRecurrentCell"]
)
def test_norse_recurrent_cells(name):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.read = getattr(norse, name)(8, 6), norse.LILinearCell(6, 2)
            self.cell.input_weights.data *= 100

        def forward(self, x):
            state, read, seen = None, None, []
            for step in x:
                z, state = self.cell(step, state)
                y, read = self.read(z, read)
                seen.append((z, y))
            return torch.stack([z for z, _ in seen]), torch.stack([y for _, y in seen])

    torch.manual_seed(1)
    counter, (emitted, _) = counted(Loop(), spikes, layout="TN")
    events = int(emitted.sum())
    assert events > 0
    assert rows(counter) == {
        ("x", "cell.input_weights"): (int(spikes.sum()), int(spikes.sum()) * 6),
        ("cell", "cell.recurrent_weights"): (events, events * 6),
        ("cell", "read.input_weights"): (events, events * 2),
    }
    assert dense(counter) == ({"cell.g_coupling": 36} if "MC" in name else {})


def test_recurrence_written_as_a_loop_is_one_row():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.recurrent = nn.Linear(8, 6), nn.Linear(6, 6)

        def forward(self, x):
            z, seen = torch.zeros(x.shape[1], 6), []
            for step in x:
                z = (self.fc(step) + self.recurrent(z) > 0.2).float()
                seen.append(z)
            return torch.stack(seen)

    torch.manual_seed(1)
    counter, emitted = counted(Loop(), spikes, layout="TN")
    delivered = int(emitted[:-1].sum())  # the last step's spikes drive nothing in this pass
    assert delivered > 0
    assert rows(counter)["gt", "recurrent"] == (delivered, delivered * 6)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("analog", [False, True])
@pytest.mark.parametrize(
    ("layer", "inputs", "recurrent"),
    [
        (lambda: nn.LSTM(8, 5), {"weight_ih_l0": 8 * 20}, {"weight_hh_l0": 5 * 20}),
        (
            lambda: nn.LSTM(8, 5, proj_size=2),
            {"weight_ih_l0": 8 * 20},
            {"weight_hh_l0": 2 * 20, "weight_hr_l0": 5 * 2},
        ),
        (
            lambda: nn.GRU(8, 5, num_layers=2, bidirectional=True),
            {"weight_ih_l0": 8 * 15, "weight_ih_l0_reverse": 8 * 15},
            {
                "weight_hh_l0": 75,
                "weight_hh_l0_reverse": 75,
                "weight_ih_l1": 10 * 15,
                "weight_ih_l1_reverse": 10 * 15,
                "weight_hh_l1": 75,
                "weight_hh_l1_reverse": 75,
            },
        ),
        (lambda: nn.RNN(8, 5), {"weight_ih_l0": 8 * 5}, {"weight_hh_l0": 25}),
        (lambda: nn.LSTMCell(8, 5), {"weight_ih": 8 * 20}, {"weight_hh": 5 * 20}),
    ],
    ids=["LSTM", "projected", "GRU", "RNN", "cell"],
)
def test_recurrent_layers_of_torch(layer, inputs, recurrent, analog):
    x = spikes[0] if isinstance(layer(), nn.RNNCellBase) else spikes
    layout = "N" if x.dim() == 2 else "TN"
    model = nn.Sequential(nn.Identity(), layer())
    if analog:
        model[0] = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    counter, _ = counted(model, x, layout=layout)
    inputs = {f"1.{k}": v for k, v in inputs.items()}
    recurrent = {f"1.{k}": v for k, v in recurrent.items()}
    if analog:
        assert dense(counter) == inputs | recurrent
    else:
        total = int(x.sum())
        found = {synapse: n for (_, synapse), (_, n) in rows(counter).items()}
        assert found == {name: total * macs // 8 for name, macs in inputs.items()}
        assert dense(counter) == recurrent


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 4}])
def test_multi_head_attention(batch_first, sizes):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2, batch_first=batch_first, **sizes)

        def forward(self, q, k, v):
            return self.attn(q, k, v)[0]

    queries, keys = 5, 7
    shapes = [(queries, 8), (keys, sizes.get("kdim", 8)), (keys, sizes.get("vdim", 8))]
    order = (lambda t, n: (n, t)) if batch_first else (lambda t, n: (t, n))
    q, k, v = ((torch.rand(*order(t, N), f) < 0.5).float() for t, f in shapes)
    model = Attention().eval()
    counter = fxsynops.SynOpsCounter(model, (q, k, v))
    with torch.no_grad():
        assert torch.equal(counter(q, k, v), model(q, k, v))
    found = {synapse: n for (_, synapse), (_, n) in rows(counter).items()}
    assert found == {
        "attn.query_weights": int(q.sum()) * 8,
        "attn.key_weights": int(k.sum()) * 8,
        "attn.value_weights": int(v.sum()) * 8,
    }
    samples = counter.counts.samples
    assert {k: v * samples for k, v in dense(counter).items()} == {
        "attn.query_key": N * queries * keys * 8,
        "attn.attention_value": N * queries * keys * 8,
        "attn.out_proj": N * queries * 8 * 8,
    }


def test_only_nonzero_weights_inside_of_a_neuron():
    torch.manual_seed(1)
    model = nn.Sequential(norse.LIFRecurrentCell(8, 6))
    model[0].input_weights.data[:, :3] = 0
    counter = fxsynops.SynOpsCounter(model, spikes[0], weights="nonzero")
    counter(spikes[0])
    nonzero = (model[0].input_weights != 0).double()
    expected = int((spikes[0].double() @ nonzero.T).sum())
    assert rows(counter)["input", "0.input_weights"][1] == expected
    model[0].input_weights.data[:2] = 0  # follows the weights as they change
    counter.clear()
    counter(spikes[0])
    expected = int((spikes[0].double() @ (model[0].input_weights != 0).double().T).sum())
    assert rows(counter)["input", "0.input_weights"][1] == expected


def test_what_a_gate_inside_of_a_neuron_lets_pass_at_random_is_not_known():
    recurrent = sl.IAFRecurrent(rec_connect=nn.Sequential(nn.Dropout(), nn.Linear(6, 6)), **LOW)
    model = nn.Sequential(nn.Linear(8, 6), recurrent)
    with pytest.raises(fxsynops.UnsupportedOperationError, match=r"1\.rec_connect"):
        fxsynops.analyze(model, spikes.transpose(0, 1), layout="NT")


def test_a_gate_inside_of_a_neuron_that_is_not_random():
    rec = nn.Sequential(nn.ReLU(), nn.Linear(6, 6))
    model = nn.Sequential(nn.Linear(8, 6), sl.IAFRecurrent(rec_connect=rec, **LOW))
    counter, y = counted(model, spikes.transpose(0, 1), reset_sinabs, layout="NT")
    found = {synapse: n for (_, synapse), (_, n) in rows(counter).items()}
    assert found["1.rec_connect.1"] == int(y.sum()) * 6
