"""Counting whole data sets: ``counter.measure``."""

from __future__ import annotations

import io

import norse.torch as norse
import pytest
import sinabs.layers as sl
import snntorch
import torch
from rich.console import Console
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based import neuron as sj
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import InputError
from tests import howto


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(*shape) < 0.3).float()


def two_layers() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(8, 6), fnn.IAF(), nn.Dropout(0.5), nn.Linear(6, 3))
    return howto.amplify(model, 3.0)


def alone(counter, x, reset) -> list[float]:
    """The SynOps of each sample, run by itself."""
    found = []
    for sample in x:
        reset(counter.model)
        with torch.no_grad():
            counter(sample[None])
        found.append(float(counter.synops))
    return found


def assert_statistics_are_those_of(counts, each):
    each = torch.tensor(each, dtype=torch.float64)
    spread = counts.per_sample
    assert counts.total == each.sum()
    assert (spread.samples, spread.min, spread.max) == (len(each), each.min(), each.max())
    assert spread.mean == pytest.approx(float(each.mean()))
    assert spread.std == pytest.approx(float(each.std()))
    assert spread.std > 0


def test_a_loader_is_counted_as_its_samples_are_one_by_one():
    model, x = two_layers(), spikes(11, 5, 8)
    loader = DataLoader(TensorDataset(x, torch.zeros(11)), batch_size=4)  # the last one has three
    counter = fxsynops.SynOpsCounter(model, x[:4], layout="NT")
    counts = counter.measure(loader)
    assert counts.samples == 11
    assert not counts.partial
    model.eval()
    single = fxsynops.SynOpsCounter(model, x[:1], layout="NT")
    assert_statistics_are_those_of(counts, alone(single, x, howto.reset))
    assert "Per sample: mean" in str(counts)


def spikingjelly_network() -> nn.Module:
    layers = [
        sj_layer.Linear(8, 6),
        sj.IFNode(),
        sj_layer.Linear(6, 4),
        sj.LIFNode(),
        nn.Linear(4, 2),
    ]
    for one in layers[:-1]:
        one.step_mode = "m"
    return nn.Sequential(*layers)


class SnntorchLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(8, 6), snntorch.Leaky(0.9, init_hidden=True)
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        return torch.stack([self.out(self.lif(self.fc(step))) for step in x])


NETWORKS = {
    "fxsynops": (two_layers, "NT"),
    "sinabs": (lambda: nn.Sequential(nn.Linear(8, 6), sl.LIF(tau_mem=10.0), nn.Linear(6, 2)), "NT"),
    "spikingjelly": (spikingjelly_network, "TN"),
    "snntorch": (SnntorchLoop, "TN"),
    "norse": (
        lambda: norse.SequentialState(nn.Linear(8, 6), norse.LIF(), nn.Linear(6, 2)),
        "TN",
    ),
}


@pytest.mark.parametrize("library", NETWORKS)
def test_states_are_reset_by_their_libraries_before_each_batch(library):
    make, layout = NETWORKS[library]
    model = howto.amplify(make(), 20.0).eval()
    x = spikes(6, 9, 8) if layout == "NT" else spikes(9, 6, 8)
    axis = layout.index("N")
    counter = fxsynops.SynOpsCounter(model, x, layout=layout)
    whole = counter.measure([x])
    parts = counter.measure(list(x.split(2, axis)))
    again = counter.measure(list(x.split(4, axis)))
    assert whole.to_rows() == parts.to_rows() == again.to_rows()
    assert whole.per_sample.std == pytest.approx(parts.per_sample.std)
    assert whole.rows[-1].events > 0  # so that resetting mattered


def test_states_may_be_carried_over():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), fnn.IAF(), nn.Linear(1, 5))
    nn.init.constant_(model[0].weight, 0.5)
    x = torch.ones(1, 1, 1)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    assert counter.measure([x] * 4).rows[1].events == 0  # each half a threshold
    assert counter.measure([x] * 4, reset=False).rows[1].events == 2
    called = []
    counter.measure([x] * 4, reset=lambda m: called.append(m))
    assert called == [model] * 4


class OwnState(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 2)
        self.membrane = torch.zeros(2, 4)

    def forward(self, x):
        self.membrane = self.membrane + self.fc(x)
        return self.out((self.membrane > 1).float())


def test_a_state_that_no_library_resets_is_asked_about():
    counter = fxsynops.SynOpsCounter(OwnState(), torch.ones(2, 4))
    with pytest.raises(InputError, match="'membrane' from forward to forward"):
        counter.measure([torch.ones(2, 4)])
    assert counter.measure([torch.ones(2, 4)], reset=False).samples == 2


def test_a_lenet_that_merges_steps_and_samples_is_told_apart_by_sample():
    model = howto.amplify(howto.snn(fnn, batch_size=5), 3)
    x = spikes(5, 10, 1, 28, 28)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    counts = counter.measure([x])
    each = []
    for i in range(5):  # one sample at a time, the others dark
        only = torch.zeros_like(x)
        only[i] = x[i]
        howto.reset(model)
        with torch.no_grad():
            counter(only)
        each.append(float(counter.synops))
    assert_statistics_are_those_of(counts, each)


class Attention(nn.Module):
    """Spiking attention over (batch, tokens, features), with two heads."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.spikes = nn.ModuleList(fnn.NeuromorphicReLU() for _ in range(4))
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        each = [
            neuron(fc(x))
            for neuron, fc in zip(self.spikes[:3], (self.q, self.k, self.v), strict=True)
        ]
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in each)
        y = self.spikes[3](q @ k.transpose(-2, -1) @ v)
        return self.out(y.transpose(1, 2).flatten(2))


def test_coincidences_of_attention_are_told_apart_by_sample():
    model, x = howto.amplify(Attention(), 8.0), spikes(5, 3, 8)
    counter = fxsynops.SynOpsCounter(model, x)
    counts = counter.measure([x])
    met = [row.events for row in counts.rows if row.connection.kind == "matmul"]
    assert any(met)
    single = fxsynops.SynOpsCounter(model, x[:1])
    assert_statistics_are_those_of(counts, alone(single, x, howto.reset))


class LateState(OwnState):
    """As it, but the state comes to be in the first forward."""

    def __init__(self, own_reset: bool = False):
        super().__init__()
        self.membrane, self.own_reset = None, own_reset

    def forward(self, x):
        if self.own_reset:
            self.membrane = None
        current = self.fc(x)
        self.membrane = current if self.membrane is None else self.membrane + current
        return self.out((self.membrane > 1).float())


def test_a_state_that_comes_to_be_in_the_first_batch_is_asked_about_in_the_second():
    x = torch.rand(2, 4) * 4
    model = howto.amplify(LateState(), 3.0)
    counter = fxsynops.SynOpsCounter(model, x.round())
    with pytest.raises(InputError, match="'membrane' from forward to forward"):
        counter.measure([x.round()] * 3)
    assert counter.counts.samples == 0

    def forget(model):
        model.membrane = None

    forget(model)
    once = counter.measure([x.round()], reset=forget)
    thrice = counter.measure([x.round()] * 3, reset=forget)
    assert thrice.total == 3 * once.total > 0


def test_a_state_that_each_forward_sets_anew_is_measured():
    x = (torch.rand(2, 4) * 4).round()
    model = howto.amplify(LateState(own_reset=True), 3.0)
    counter = fxsynops.SynOpsCounter(model, x)
    assert counter.measure([x] * 3).total == 3 * counter.measure([x]).total > 0


class Between(nn.Module):
    """A hidden layer of ten neurons, with something done to its input and its output."""

    def __init__(self, before, after=lambda y: y):
        super().__init__()
        self.fc, self.relu = nn.Linear(10, 10), fnn.NeuromorphicReLU()
        self.out, self.before, self.after = nn.Linear(10, 2), before, after

    def forward(self, x):
        return self.out(self.after(self.relu(self.fc(self.before(x)))))


ORDERS = {
    "flat": lambda x: x.flatten(0, 1),
    "transposed, flat": lambda x: x.transpose(0, 1).flatten(0, 1),
    "cat of steps": lambda x: torch.cat(x.unbind(1)),
    "stack of steps": lambda x: torch.stack(x.unbind(1)),
    "einsum, flat": lambda x: torch.einsum("ntc->tnc", x).flatten(0, 1),
    "mean of steps": lambda x: x.mean(1),
    "transposed": lambda x: x.transpose(0, 1),
    "last step": lambda x: x[:, -1],
}


@pytest.mark.parametrize("shape", [(4, 7), (10, 10), (4, 10), (10, 3), (4, 4)])
@pytest.mark.parametrize("order", ORDERS)
def test_statistics_of_samples_are_right_or_none(order, shape):
    torch.manual_seed(1)
    model = howto.amplify(Between(ORDERS[order]), 8.0)
    n, t = shape
    x = (torch.rand(n, t, 10) < torch.linspace(0.1, 0.9, n)[:, None, None]).float()
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    counts = counter.measure([x])
    assert counts.rows[-1].events > 0
    each = []
    for i in range(n):
        only = torch.zeros_like(x)  # a dark sample has SynOps, too, those of the biases
        only[i] = x[i]
        dark = counter.measure([torch.zeros_like(x)]).total / n
        each.append(counter.measure([only]).total - (n - 1) * dark)
    assert counts.per_sample is not None
    if counts.per_sample is not None:
        assert_statistics_are_those_of(counts, each)


def test_connections_that_were_silent_at_first_are_looked_at_once_they_fire():
    torch.manual_seed(1)
    model = howto.amplify(Between(lambda x: x.flip(0).flatten(0, 1)), 8.0)  # among other samples
    nn.init.constant_(model.fc.bias, 0)
    x = (torch.rand(4, 4, 10) < torch.linspace(0.1, 0.9, 4)[:, None, None]).float()
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", input_events=True)
    assert counter.measure([torch.zeros_like(x)]).per_sample is not None
    assert counter.measure([torch.zeros_like(x), x]).per_sample is None


class LoopOverSteps(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.relu, self.out = nn.Linear(6, 10), fnn.NeuromorphicReLU(), nn.Linear(10, 10)

    def forward(self, x):
        return torch.stack([self.out(self.relu(self.fc(step) * 5)) for step in x])


@pytest.mark.parametrize("t", [10, 7])
@pytest.mark.parametrize("n", [10, 7])
def test_as_many_samples_as_steps_and_features(n, t):
    model = LoopOverSteps().eval()
    x = (torch.rand(t, n, 6) < torch.linspace(0.05, 0.95, n)[None, :, None]).float()
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    counts = counter.measure([x])
    single = fxsynops.SynOpsCounter(model, x[:, :1], layout="TN")
    each = [single.measure([x[:, i : i + 1]]).total for i in range(n)]
    if counts.per_sample is not None:
        assert_statistics_are_those_of(counts, each)
    else:
        assert n == t == 10


class Tutorial(nn.Module):
    """As snntorch's tutorials have it: the forward itself sets its neurons to their start."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(8, 6), snntorch.Leaky(beta=0.95)
        self.fc2, self.lif2 = nn.Linear(6, 3), snntorch.Leaky(beta=0.95)

    def forward(self, x):
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


def test_a_forward_that_resets_its_neurons_itself_is_measured():
    model, x = howto.amplify(Tutorial(), 4.0), spikes(5, 4, 8)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    counts = counter.measure([x, x[:, :3]])
    assert counts.samples == 7
    assert counts.total == counter.measure([x[:, :3], x]).total > 0


def test_modes_are_as_before():
    model = two_layers().train()
    model[0].eval()
    counter = fxsynops.SynOpsCounter(model, spikes(2, 5, 8), layout="NT")
    counter.measure([spikes(2, 5, 8)])
    assert [m.training for m in model] == [False, True, True, True]
    assert counter.training
    assert torch.is_grad_enabled()


def interrupted(batches, error):
    yield from batches
    raise error


def test_ctrl_c_returns_what_was_counted():
    counter = fxsynops.SynOpsCounter(two_layers(), spikes(2, 5, 8), layout="NT")
    batches = [spikes(2, 5, 8) for _ in range(3)]
    counts = counter.measure(interrupted(batches, KeyboardInterrupt()))
    assert counts.partial
    assert counts.samples == counts.per_sample.samples == 6
    assert counts.total == counter.measure(batches).total
    assert "Partial: interrupted after 6 samples." in str(counts)


def test_ctrl_c_inside_of_the_model_leaves_out_the_batch():
    model, x = two_layers(), spikes(2, 5, 8)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    calls = []

    def hook(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    model[3].register_forward_hook(hook)
    counts = counter.measure([x] * 5)
    assert (counts.samples, counts.partial) == (4, True)


@pytest.mark.parametrize("where", ["loader", "model"])
def test_an_error_leaves_the_counts_as_they_were_before_the_batch(where):
    model, x = two_layers(), spikes(2, 5, 8)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    expected = counter.measure([x, x]).total
    bad = torch.ones(2, 5, 7)
    batches = interrupted([x, x], OSError("gone")) if where == "loader" else [x, x, bad]
    with pytest.raises((OSError, InputError)):
        counter.measure(batches)
    assert (counter.counts.total, counter.counts.samples) == (expected, 4)
    assert model.training


def test_an_empty_loader_is_an_error():
    counter = fxsynops.SynOpsCounter(two_layers(), spikes(2, 5, 8), layout="NT")
    with pytest.raises(InputError, match="no batches"):
        counter.measure([])


def test_what_holds_no_input_is_an_error():
    counter = fxsynops.SynOpsCounter(two_layers(), spikes(2, 5, 8), layout="NT")
    with pytest.raises(InputError, match="pass inputs="):
        counter.measure([{"image": spikes(2, 5, 8)}])
    with pytest.raises(InputError, match="no tensor"):
        counter.measure([("a", "b")])
    batches = [{"image": spikes(2, 5, 8)}]
    assert counter.measure(batches, inputs=lambda b: b["image"]).samples == 2


def test_a_device_that_does_not_exist_is_an_error():
    counter = fxsynops.SynOpsCounter(two_layers(), spikes(2, 5, 8), layout="NT")
    with pytest.raises(InputError, match="cannot be moved to device 'nowhere'"):
        counter.measure([spikes(2, 5, 8)], device="nowhere")


def test_the_bar_shows_samples_synops_and_time_on_a_terminal_only():
    x = spikes(12, 5, 8)
    counter = fxsynops.SynOpsCounter(two_layers(), x[:2], layout="NT")
    loader = DataLoader(TensorDataset(x), batch_size=4)
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    counts = counter.measure(loader, progress=terminal)
    shown = terminal.file.getvalue()
    assert "12 of 12 samples" in shown
    assert f"{counts.total:,} SynOps" in shown
    pipe = Console(file=io.StringIO(), force_terminal=False)
    counter.measure(loader, progress=pipe)
    assert pipe.file.getvalue() == ""


class Masked(nn.Module):
    """A forward with parameters of several names, as of a batch that is a dict."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, spikes, scale=1, mask=None):
        return self.layer(spikes if mask is None else spikes * mask)


def test_of_a_dict_a_forward_gets_what_it_has_parameters_for():
    model, x = Masked(), (torch.rand(6, 8) < 0.5).float()
    mask = torch.ones(6, 8)
    mask[:, :4] = 0
    plain = [{"spikes": x, "label": torch.zeros(6)}]
    assert fxsynops.count(model, plain).total == 4 * float(x.sum())
    masked = [{"label": torch.zeros(6), "mask": mask, "spikes": x}]
    assert fxsynops.count(model, masked).total == 4 * float((x * mask).sum())
    counter = fxsynops.SynOpsCounter(model, x)
    assert counter.measure(plain * 2).total == 2 * 4 * float(x.sum())
    for batch in ({"image": x, "label": x}, {"mask": mask}):
        with pytest.raises(InputError, match=r"Masked\.forward takes 'spikes', 'scale', 'mask'"):
            fxsynops.count(model, [batch])
