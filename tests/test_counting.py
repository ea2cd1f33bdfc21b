"""What the numbers mean: exactness, signs, scales, gates, options, tables, bounds."""

from __future__ import annotations

import io
import json
import math

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import neuron as sj
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.counting.exact_sums import Reading, sum_events
from fxsynops.operations.synapses import axis_pairs


class Net(nn.Module):
    """A model of one function and a readout with three outputs."""

    def __init__(self, function, features):
        super().__init__()
        self.function = function
        self.fc = nn.Linear(features, 3)

    def forward(self, x):
        return self.fc(self.function(x))


def count(model, *x, **options):
    counter = fxsynops.SynOpsCounter(model, x, **options)
    y = counter(*x)
    expected = model(*x)
    assert torch.equal(y, expected) if isinstance(y, torch.Tensor) else True
    return counter


# -- closed forms ----------------------------------------------------------------------------------


def test_pairs_along_an_axis_are_counted_by_hand():
    assert axis_pairs(5, 5, 3, 1, 1, 1, False).tolist() == [2, 3, 3, 3, 2]
    assert axis_pairs(5, 2, 2, 3, 0, 1, False).tolist() == [1, 1, 0, 1, 1]
    assert axis_pairs(3, 7, 3, 2, 0, 1, True).tolist() == [3, 3, 3]
    assert axis_pairs(3, 5, 3, 2, 1, 1, True).tolist() == [2, 3, 2]


@pytest.mark.parametrize(
    ("mode", "pairs"), [("reflect", [3, 6, 7, 6, 3]), ("replicate", [6, 4, 5, 4, 6])]
)
def test_padded_copies_of_a_neuron_count(mode, pairs):
    conv = nn.Conv1d(1, 1, 5, padding=2, padding_mode=mode)
    (connection,) = fxsynops.analyze(conv, torch.ones(1, 1, 5)).connections
    assert connection.fanout.map.flatten().tolist() == pairs


def test_a_neuron_skipped_by_the_stride_has_fanout_zero():
    (connection,) = fxsynops.analyze(nn.Conv1d(1, 7, 1, stride=2), torch.ones(1, 1, 5)).connections
    assert connection.fanout.map.flatten().tolist() == [7, 0, 7, 0, 7]
    assert (connection.fanout.min, connection.fanout.max) == (0, 7)
    assert (connection.neurons, connection.shape, connection.fanout.total) == (5, (1, 5), 21)


def test_maps_do_not_grow_with_the_batch():
    for batch in (1, 50):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), fnn.NeuromorphicReLU(), nn.AvgPool2d(2)
        )
        model.append(nn.Conv2d(8, 4, 3))
        analysis = fxsynops.analyze(model, torch.ones(batch, 3, 12, 12))
        assert [tuple(c.fanout.map.shape) for c in analysis.connections] == [
            (1, 1, 12, 12),
            (1, 1, 12, 12),
        ]


# -- exact sums ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_sums_beyond_2_to_24_stay_exact(dtype):
    model = nn.Linear(1 << 12, 1, bias=False).to(dtype)
    x = torch.ones(1 << 13, 1 << 12, dtype=dtype)
    x[0, 0] = 2  # 2**25 + 1 events
    counter = fxsynops.SynOpsCounter(model, x[:2])
    counter(x)
    assert int(counter.synops.detach()) == 2**25 + 1
    assert counter.counts.total == 2**25 + 1
    assert counter.counts.exact


def test_large_events_are_exact_or_said_not_to_be():
    model = nn.Linear(4096, 1)
    x = torch.full((1, 4096), 4096.0)
    counter = count(model, x, input_events=True)
    assert counter.counts.total == 4096 * 4096
    x = torch.full((4096, 4096), 8191.0)
    counter = fxsynops.SynOpsCounter(model, x[:1], input_events=True)
    counter(x)
    assert not counter.counts.exact
    assert "Inexact" in str(counter.counts)


def test_bool_and_integer_spikes_count():
    model = Net(lambda x: x.float(), 8)
    for x in (torch.ones(2, 8, dtype=torch.bool), torch.full((2, 8), 3)):
        assert int(count(model, x).synops.detach()) == int(x.sum()) * 3


def test_half_precision_maps_stay_exact():
    model = nn.Conv2d(1, 64, 5, padding=2)
    x = (torch.rand(2, 1, 40, 40) < 0.4).float()
    exact = int(count(model, x).synops.detach())
    half = count(model.bfloat16(), x.bfloat16())
    assert int(half.synops.detach()) == exact > 2**16


# -- events, signs, scales -------------------------------------------------------------------------


def test_signed_events_count_by_magnitude_with_the_derivative_of_their_sign():
    x = torch.tensor([[2.0, -3.0, 0.0, 1.0]], requires_grad=True)
    counter = count(nn.Linear(4, 5), x)
    assert int(counter.synops.detach()) == 6 * 5
    counter.synops.backward()
    assert x.grad.tolist() == [[5, -5, 5, 5]]


def test_the_gradient_is_the_fanout_map():
    model = nn.Conv2d(2, 3, 3, stride=2)
    x = torch.ones(2, 2, 7, 6, requires_grad=True)
    counter = count(model, x)
    counter.synops.backward()
    map = counter.analysis.connections[0].fanout.map
    assert torch.equal(x.grad, map.expand(x.shape).float())


ROUTED = {
    "subtract": (lambda x: x[:, :4] - x[:, 4:], 4, 1.0),
    "scaled": (lambda x: 0.5 * x / 3 + x * 2, 8, 2.0),
    "scaled to nothing": (lambda x: 0.5 * x + x * 0 + x * torch.zeros(8), 8, 1.0),
    "added constant": (lambda x: 1 - x, 8, 1.0),
    "written": (lambda x: _written(x), 8, 0.5),
    "setitem": (lambda x: _set(x), 8, 1.0),
    "view written": (lambda x: _view_written(x), 8, 1.0),
    "copied": (lambda x: torch.empty_like(x).copy_(x), 8, 1.0),
    "zeroed": (lambda x: x.clone().zero_(), 8, 0.0),
    "eval dropout": (lambda x: F.dropout(x, 0.5, training=False), 8, 1.0),
    "pixel shuffle": (lambda x: F.pixel_shuffle(x.reshape(-1, 4, 1, 2), 2).flatten(1), 8, 1.0),
    "upsampled": (lambda x: F.interpolate(x[:, None], scale_factor=2)[:, 0], 16, 2.0),
    "strided": (lambda x: x.as_strided((x.shape[0], 4), (8, 2)), 4, 0.5),
    "masked by a buffer": (lambda x: x[:, torch.arange(8) % 2 == 0], 4, 0.5),
    "masked by data": (lambda x: x[x > 0].reshape(x.shape[0], 8), 8, 1.0),
    "chosen number": (lambda x: torch.where(x > 0.5, 0.25, 0.0), 8, 1.0),
    "squared": (lambda x: (x + x) ** 2, 8, 4.0),
    "one minus": (lambda x: (1 - x[:, :4]) * x[:, 4:] + x[:, :4], 4, 0.5),
    "membrane": (lambda x: (torch.lerp(x.tanh(), x.exp(), 0.5) > 0).float(), 8, 1.0),
    "gathered": (lambda x: x[:, torch.tensor([0, 0, 7])], 3, None),
}


def _written(x):
    y = torch.zeros(x.shape[0], 8)
    y[:, 2:6] = x[:, :4]
    return y


def _set(x):
    y = torch.zeros_like(x)
    for i in range(8):
        y[:, i] = x[:, 7 - i]
    return y


def _view_written(x):
    y = torch.zeros(x.shape[0], 2, 4)
    left = y[:, 0]
    left.copy_(x[:, :4])
    y.select(1, 1).add_(x[:, 4:])
    return y.flatten(1)


@pytest.mark.parametrize("name", ROUTED)
def test_events_are_followed_through_routing(name):
    function, features, share = ROUTED[name]
    x = torch.ones(2, 8)
    counter = count(Net(function, features), x)
    expected = 2 * 3 * 3 if share is None else share * 2 * 8 * 3
    assert int(counter.synops.detach()) == expected


def test_analog_and_event_slices_of_a_cat_are_kept_apart():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(8, 4), nn.Linear(12, 3)

        def forward(self, x):
            return self.fc2(torch.cat((x, self.fc1(x)), 1))

    counter = count(Mixed(), torch.ones(2, 8))
    assert {k: int(v.detach()) for k, v in counter.per_synapse.items()} == {
        "fc1": 2 * 8 * 4,
        "fc2": 2 * 8 * 3,
    }
    assert [(d.synapse, d.macs) for d in counter.analysis.dense] == [("fc2", 4 * 3)]


def test_events_plus_analog_is_analog():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc2(x + self.fc1(x))

    counter = count(Residual(), torch.ones(2, 8))
    assert list(counter.per_synapse) == ["fc1"]
    assert [(d.synapse, d.macs) for d in counter.analysis.dense] == [("fc2", 24)]


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_training_dropout_counts_survivors(p):
    model = nn.Sequential(nn.AvgPool1d(2), nn.Dropout(p), nn.Linear(8, 3)).train()
    x = torch.full((64, 16), 2.0)
    counter = fxsynops.SynOpsCounter(model, x)
    survivors = []
    model[1].register_forward_hook(lambda m, a, y: survivors.append((y != 0).sum()))
    counter(x)
    assert int(counter.synops.detach()) == int(survivors[-1]) * 4 * 3
    (connection,) = counter.analysis.connections
    assert (connection.source, connection.measured_at) == ("input", "1")


def test_gates_measure_events_at_their_output_in_whole_events():
    model = nn.Sequential(nn.AvgPool2d(3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 5))
    x = torch.randint(0, 3, (3, 1, 12, 12)).float()
    pooled = F.max_pool2d(F.avg_pool2d(x, 3, divisor_override=1), 2)
    counter = count(model, x)
    assert int(counter.synops.detach()) == int(pooled.sum()) * 5
    assert counter.counts.rows[0].events == int(pooled.sum())


def test_a_learned_scale_is_divided_out_behind_a_gate():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.fc = nn.Parameter(torch.tensor(0.3)), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(F.relu(x * self.scale))

    counter = count(Scaled(), torch.ones(2, 8))
    assert int(counter.synops.detach()) == 2 * 8 * 3
    counter.model.scale.data.fill_(7.0)
    counter(torch.full((2, 8), 2.0))
    assert int(counter.synops.detach()) == 2 * 2 * 8 * 3


def test_after_a_shift_a_gates_output_is_analog():
    norm = nn.BatchNorm1d(8).eval()
    model = nn.Sequential(norm, nn.ReLU(), nn.Linear(8, 3))
    analysis = fxsynops.analyze(model, torch.ones(2, 8))
    assert not analysis.connections
    assert analysis.dense[0].macs == 24
    folded = fxsynops.analyze(nn.Sequential(norm, nn.Linear(8, 3)), torch.ones(2, 8))
    assert folded.connections[0].folded


def test_a_residual_sum_is_two_events_by_value_and_one_that_is_not_zero():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, x, y):
            return self.fc(x + y)

    x, y = torch.ones(2, 8), (torch.arange(16).reshape(2, 8) % 2).float()
    assert int(count(Sum(), x, y).synops.detach()) == (16 + 8) * 3
    assert int(count(Sum(), x, y, events="nonzero").synops.detach()) == 16 * 3


def test_zero_weights_are_left_out_and_followed():
    model = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), fnn.NeuromorphicReLU(), nn.Flatten())
    model.append(nn.Linear(15, 4))
    x = torch.randint(0, 3, (2, 2, 5)).float()
    counter = fxsynops.SynOpsCounter(model, x, weights="nonzero")

    def expected():
        ones = F.conv1d(x, (model[0].weight != 0).float(), padding=1).sum()
        spikes = model[1](model[0](x)).flatten(1)
        return [int(ones), int((spikes @ (model[3].weight != 0).float().T).sum())]

    def counted():
        counter(x)
        return [int(v.detach()) for v in counter.per_synapse.values()]

    assert counted() == expected()
    for zero in (model[0].weight[:, 0], model[0].weight, model[3].weight[:, ::2]):
        with torch.no_grad():
            zero.zero_()
        assert counted() == expected()
    with torch.no_grad():
        model[0].weight[1, 1, 0] = 1.0  # grown back
        model[3].weight[:] = 1.0
    assert counted() == expected()
    assert counter.analysis.connections[0].fanout.nominal == 9  # structural


# -- time ------------------------------------------------------------------------------------------


class Unrolled(nn.Module):
    def __init__(self, steps, static=False):
        super().__init__()
        self.fc1, self.fc2, self.lif = nn.Linear(6, 4), nn.Linear(4, 2), fnn.NeuromorphicReLU()
        self.steps, self.static = steps, static

    def forward(self, x):
        outputs = []
        for t in range(self.steps):
            outputs.append(self.fc2(self.lif(self.fc1(x if self.static else x[t]))))
        return torch.stack(outputs)


def test_a_loop_over_time_is_one_row():
    x = (torch.rand(7, 3, 6) < 0.5).float()
    counter = count(Unrolled(7), x, layout="TN")
    rows = [(c.source, c.synapse, c.neurons, c.fanout.total) for c in counter.analysis.connections]
    assert rows == [("x", "fc1", 6, 24), ("lif", "fc2", 4, 8)]
    assert int(counter.per_synapse["fc1"].detach()) == int(x.sum()) * 4
    assert counter.counts.rows[0].events == int(x.sum())
    assert counter.counts.timesteps == 7


def test_a_loop_over_a_static_input_has_its_events_at_every_step():
    x = (torch.rand(3, 6) < 0.5).float()
    counter = count(Unrolled(7, static=True), x, timesteps=7)
    first, second = counter.analysis.connections
    assert (first.neurons, first.fanout.total) == (6, 24)
    assert (second.neurons, second.fanout.total) == (4, 8)
    assert int(counter.per_synapse["fc1"].detach()) == int(x.sum()) * 4 * 7
    assert counter.counts.rows[0].events == int(x.sum()) * 7
    assert counter.analysis.upper_bound(max_spikes=1).structural == 7 * (24 + 8)


def test_one_module_on_two_sizes_is_two_rows():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 2, 3)

        def forward(self, x):
            return self.conv(x), self.conv(x[..., ::2])

    counter = fxsynops.SynOpsCounter(Shared(), torch.ones(1, 1, 9))
    counter(torch.ones(1, 1, 9))
    assert {k: int(v.detach()) for k, v in counter.per_synapse.items()} == {
        "conv": 7 * 3 * 2,
        "conv#2": 3 * 3 * 2,
    }


@pytest.mark.parametrize(
    ("layout", "shape", "options", "window"),
    [
        ("N", (4, 8), {}, (4, 1)),
        ("N", (4, 8), {"timesteps": 5}, (4, 5)),
        ("NT", (4, 5, 8), {}, (4, 5)),
        ("TN", (5, 4, 8), {"batch_size": 4}, (4, 5)),
        ("T", (5, 8), {}, (1, 5)),
        ("", (8,), {}, (1, 1)),
        ("(NT)", (20, 8), {"batch_size": 4}, (4, 5)),
        ("(TN)", (20, 8), {"timesteps": 5}, (4, 5)),
        ("(NT)", (20, 8), {"timesteps": 5, "batch_size": 4}, (4, 5)),
    ],
)
def test_layouts_tell_samples_and_steps(layout, shape, options, window):
    counter = count(nn.Linear(8, 3), torch.ones(shape), layout=layout, **options)
    found = counter.analysis.window
    assert (found.samples, found.timesteps) == window
    (connection,) = counter.analysis.connections
    steps = options.get("timesteps", 1) if layout == "N" else 1  # of which one reads the input
    assert connection.shape == (8,)
    assert connection.neurons == 8
    assert connection.synapses * steps == pytest.approx(24)
    assert (counter.counts.samples, counter.counts.timesteps) == window
    assert counter.counts.total == math.prod(shape) * 3


# -- accumulating ----------------------------------------------------------------------------------


def test_counts_add_up_until_cleared():
    counter = fxsynops.SynOpsCounter(nn.Linear(8, 3), torch.ones(2, 8))
    assert counter.counts.total == 0
    counter(torch.ones(2, 8))
    counter(torch.ones(5, 8))
    assert (counter.counts.samples, counter.counts.total) == (7, 7 * 24)
    assert int(counter.synops.detach()) == 5 * 24
    counter.clear()
    assert (counter.counts.samples, counter.counts.total) == (0, 0)


def test_sources_and_synapses_sum_to_the_total():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.s, self.t = fnn.NeuromorphicReLU(), fnn.NeuromorphicReLU()

        def forward(self, x):
            s, t = self.s(self.a(x) * 5), self.t(self.b(x) * 5)
            return self.c(s + t) + self.c(s)

    counter = count(Branches(), torch.ones(4, 8))
    total = float(counter.synops.detach())
    assert total == sum(float(v.detach()) for v in counter.per_source.values())
    assert total == sum(float(v.detach()) for v in counter.per_synapse.values())
    assert set(counter.per_source) == {"x", "s", "t"}
    assert {edge[0] for edge in counter.analysis.graph.edges} == {"x", "s", "t"}


# -- bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (lambda x: F.relu(1 - x), -1.0),
        (lambda x: (1 - x).abs(), -1.0),
        (lambda x: (x - 1) * (2 - x), -1.0),
        (lambda x: F.relu(-x), -1.0),
        (lambda x: F.relu((x + x).flip(1) - x), 1.0),
    ],
)
def test_signed_events_stay_below_the_bound(function, x):
    counter = count(Net(function, 8), torch.full((1, 8), x))
    assert 0 < counter.counts.total <= counter.analysis.upper_bound().total < math.inf


def test_a_gate_of_two_single_spike_neurons_is_bounded_by_one():
    """SEW-ResNet's IAND."""

    class Iand(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(4, 3)

        def forward(self, x):
            s, t = (self.a(x) > 0).float(), (self.b(x) > 0).float()
            return self.fc(s * (1.0 - t))

    analysis = fxsynops.analyze(Iand(), torch.rand(2, 8), input_events=False)
    assert analysis.upper_bound().total == 4 * 3


def test_weights_zeroed_through_data_are_noticed():
    model = nn.Linear(8, 4)
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 8), weights="nonzero")
    counter(torch.ones(2, 8))
    model.weight.data[0] = 0
    counter(torch.ones(2, 8))
    assert int(counter.synops.detach()) == 2 * 8 * 3


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(2, 3), (7, 9)])
def test_upsampling_reads_where_its_weights_are_not_zero(mode, antialias, size):
    if antialias and mode == "nearest":
        return
    options = {"size": size, "mode": mode, **({"antialias": True} if antialias else {})}
    model = Net(lambda x: F.interpolate(x, **options).flatten(1), size[0] * size[1])
    eye = torch.eye(20).reshape(20, 1, 4, 5)
    reads = (F.interpolate(eye.double(), **options) != 0).flatten(1).sum(1).reshape(4, 5)
    (connection,) = fxsynops.analyze(model, torch.ones(1, 1, 4, 5)).connections
    assert torch.equal(connection.fanout.map.expand(1, 1, 4, 5)[0, 0], reads * 3)


# -- results as text -------------------------------------------------------------------------------


def test_everything_is_json_and_rows():
    model = nn.Sequential(nn.Linear(8, 4), fnn.IAF(), nn.Linear(4, 2))
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 5, 8), layout="NT")
    counter(torch.ones(2, 5, 8))
    for result in (counter.analysis, counter.counts, counter.analysis.upper_bound()):
        assert json.loads(result.to_json())["model"] == "Sequential"
        assert len(result.to_rows()) == 2
    assert json.loads(counter.counts.to_json())["total"] == counter.counts.total
    table = str(counter.analysis)
    for text in ("Source", "Synapse", "Kind", "Neurons", "min", "mean", "max", "Nominal", "linear"):
        assert text in table
    assert "\x1b" not in table


def test_tables_fit_a_narrow_terminal():
    from rich.console import Console

    counter = count(nn.Linear(8, 4), torch.ones(2, 5, 8), layout="NT")
    results = {"32": counter.analysis, "320": counter.counts, "160": counter.analysis.upper_bound()}
    for value, result in results.items():
        console = Console(width=60, file=io.StringIO())
        console.print(result)
        text = console.file.getvalue()
        assert all(len(line) <= 60 for line in text.splitlines())
        assert "input" in text
        assert f" {value} " in text


def test_the_demo_counts_real_digits(capsys):
    from fxsynops import cli

    assert cli.main(["demo", "--samples", "20"]) == 0
    output = capsys.readouterr().out
    for text in (
        "20 handwritten digits",
        "Fan-out of",
        "SynOps of",
        "Upper bound of",
        "20 samples of 10 steps",
    ):
        assert text in output
    assert cli.main(["demo", "--samples", "7"]) == 2
    assert "multiple of 20" in capsys.readouterr().err


# -- counts are added up lazily --------------------------------------------------------------------


def two_layers():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), fnn.NeuromorphicReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize("grad", [True, False])
def test_counts_do_not_depend_on_when_they_are_read(grad):
    batches = [torch.randint(0, 3, (n, 2, 8, 8)).float() for n in (3, 3, 3, 2, 3)]
    eager, lazy = (fxsynops.SynOpsCounter(two_layers(), batches[0]) for _ in range(2))
    with torch.set_grad_enabled(grad):
        for x in batches:
            eager(x)
            assert eager.counts.total > 0
            assert float(eager.synops.detach()) > 0
            lazy(x)
    assert eager.counts.to_rows() == lazy.counts.to_rows()
    assert lazy.counts.to_rows() == eager.counts.to_rows()
    assert lazy.counts.samples == 14


def test_passes_that_nobody_reads_keep_no_history_and_little_memory():
    counter = fxsynops.SynOpsCounter(two_layers(), torch.ones(1, 2, 8, 8))
    for _ in range(3):
        counter(torch.ones(1, 2, 8, 8))
    pending = counter._account.pending
    kept = [tensor for *_, tally in pending for tensor in tally.parts]
    assert len(pending) == 3
    assert not any(tensor.requires_grad for tensor in kept)
    with torch.no_grad():
        for _ in range(3000):
            counter(torch.ones(1, 2, 8, 8))
    assert sum(t.numel() for *_, tally in counter._account.pending for t in tally.parts) <= 2**17
    assert counter.counts.samples == 3003


def test_a_nan_in_one_of_many_passes_is_named():
    model = nn.Sequential(nn.Linear(4, 3), fnn.NeuromorphicReLU(), nn.Linear(3, 2))
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
    for x in (torch.ones(2, 4), torch.full((2, 4), torch.nan), torch.ones(2, 4)):
        counter(x)
    with pytest.raises(fxsynops.CountError, match="source 'input' put out NaN"):
        _ = counter.counts


@pytest.mark.parametrize("same", [True, False])
def test_what_a_call_writes_its_result_to_is_no_operand(same):
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x, y):
            x = x * 1
            z = torch.add(x, y, out=x if same else torch.ones(2, 4))
            return self.fc(z)

    x, y = torch.ones(2, 4), torch.full((2, 4), 2.0)
    counter = fxsynops.SynOpsCounter(Adds(), (x, y))
    with torch.no_grad():
        counter(x, y)
    assert counter.counts.total == (8 + 16) * 3


@pytest.mark.parametrize("rates", [False, True])
@pytest.mark.parametrize("samples", [3, 5000])
def test_the_gradient_of_the_total_is_that_of_all_layers(samples, rates):
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), fnn.NeuromorphicReLU(), *two_layers())
    x = torch.randint(0, 3, (samples, 2, 8, 8)).float()
    counter = fxsynops.SynOpsCounter(model, x, rates=rates)
    counter(x)
    weights = [p for p in model.parameters() if p.requires_grad]
    layers = sum(counter.per_synapse.values())
    assert float(counter.synops.detach()) == float(layers.detach())
    total = torch.autograd.grad(counter.synops, weights, retain_graph=True, allow_unused=True)
    each = torch.autograd.grad(layers, weights, allow_unused=True)
    assert any(grad is not None and grad.any() for grad in total)
    for ours, theirs in zip(total, each, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.allclose(ours, theirs, rtol=1e-5)


def test_sums_of_any_shape_and_memory_layout_are_exact():
    for size in [(7,), (4099,), (3, 5, 4099), (2, 8, 33, 31), (1, 1, 1, 1), (5, 0, 3)]:
        x = torch.randint(0, 5, size).float()
        for y in (x, x.transpose(0, -1), x.flip(0)[..., ::2]):
            for kept in [(), (0,), tuple(range(y.dim()))]:
                reading = Reading(y.shape, kept, signed=False)
                sums = reading.together(sum_events(y, 1.0, reading))
                axes = [axis for axis in range(y.dim()) if axis not in kept]
                expected = y.double().sum(axes, keepdim=True) if axes else y.double()
                assert torch.equal(sums.double(), expected)


def test_spikes_that_are_overwritten_after_they_were_sent_stay_counted():
    class Partly(
        nn.Module
    ):  # the fan-out of the spikes differs along every axis: nothing is summed
        def __init__(self):
            super().__init__()
            self.fc, self.neuron = nn.Linear(5, 5, bias=False), sj.IFNode(v_reset=None)
            self.some, self.all = nn.Linear(3, 4, bias=False), nn.Linear(5, 4, bias=False)
            nn.init.constant_(self.fc.weight, 1.0)

        def forward(self, x):
            z = self.neuron(self.fc(x))
            return self.some(z[:3]) + self.all(z), z

    counter = fxsynops.SynOpsCounter(Partly(), torch.ones(5), layout="")
    with torch.no_grad():
        _, z = counter(torch.ones(5))
    z.zero_()
    synops = {row.connection.synapse: row.synops for row in counter.counts.rows}
    assert synops == {"fc": 5 * 5, "some": 3 * 4, "all": 5 * 4}


def test_spikes_that_a_step_adds_to_in_place_stay_counted():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.neuron = nn.Linear(5, 5, bias=False), sj.IFNode(v_reset=None)
            self.out = nn.Linear(5, 4, bias=False)
            nn.init.constant_(self.fc.weight, 1.0)
            with torch.no_grad():
                self.out.weight[:, 0] = 0

        def forward(self, x):
            steps = []
            for step in x:
                z = self.neuron(self.fc(step))
                y = self.out(z)
                z += step
                steps.append(y + z[:4])
            return torch.stack(steps)

    x = torch.ones(3, 5)
    counter = fxsynops.SynOpsCounter(Residual(), x, layout="T", weights="nonzero")
    with torch.no_grad():
        counter(x)
    synops = {row.connection.synapse: row.synops for row in counter.counts.rows}
    assert synops == {"fc": 3 * 5 * 5, "out": 3 * 4 * 4}


def test_what_waits_to_be_added_up_is_bounded_for_large_batches_too():
    # More samples than one block has elements, and a fan-out that differs by place: the partial
    # sums of a pass are as many as its input's elements.
    x = torch.ones(5000, 1, 4, 4)
    counter = fxsynops.SynOpsCounter(nn.Conv2d(1, 2, 3, padding=1), x)
    most = 0
    with torch.no_grad():
        for _ in range(8):
            counter(x)
            pending = counter._account.pending
            most = max(most, sum(p.numel() for *_, tally in pending for p in tally.parts))
    assert 0 < most <= 2**17
    per_sample = 2 * (4 * 4 + 8 * 6 + 4 * 9)  # two channels; corners, edges, the middle
    assert counter.counts.total == 8 * 5000 * per_sample
