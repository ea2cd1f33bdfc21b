"""Counts, their sums, reports and pictures, where a plausible mistake would change a number."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
import nir
import numpy as np
import pytest
import sinabs.layers as sl
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops import losses
from fxsynops.comparison import compare
from fxsynops.counting.exact_sums import Reading, sum_events
from fxsynops.counting.firing_rates import FiringRates
from fxsynops.metrics import SynOpsMetric
from fxsynops.nir import from_nir
from fxsynops.nir.graph import flatten
from fxsynops.reporting import formats
from fxsynops.tracing.inputs import Inputs, Layout, Window

mpl.use("Agg")
from matplotlib import pyplot as plt

from fxsynops import plot


def count(model, *args, **options):
    counter = fxsynops.SynOpsCounter(model, args, **options)
    counter(*args)
    return counter


def per_sample(counter, *batches, **options):
    return counter.measure(list(batches), progress=False, **options).per_sample


def drawn(ax):
    ax.figure.canvas.draw()
    plt.close(ax.figure)
    return ax


# -- a layer with two sources ----------------------------------------------------------------------


class TwoSources(nn.Module):
    """Three neurons and two neurons drive one layer of four outputs."""

    def __init__(self, outputs: int = 4):
        super().__init__()
        self.fc = nn.Linear(5, outputs)

    def forward(self, a, b):
        return self.fc(torch.cat([a, b], 1))


def two_sources(outputs: int = 4):
    """Per sample 3 · 4 and 2 · 4 SynOps."""
    return count(TwoSources(outputs), torch.ones(2, 3), torch.ones(2, 2))


def test_a_budget_adds_up_the_sources_of_a_layer():
    counts = two_sources().counts
    assert sorted(row.synops for row in counts.rows) == [2 * 2 * 4, 2 * 3 * 4]
    (violation,) = counts.check(per_layer={"fc": 19})
    assert (violation.name, violation.value, violation.limit) == ("fc", 20, 19)
    (violation,) = counts.check(19)
    assert (violation.name, violation.value) == ("total", 20)
    assert counts.check(20, per_layer={"fc": 20}) == ()


def test_a_comparison_adds_up_the_sources_of_a_layer():
    before, after = two_sources(4).counts.report(), two_sources(6).counts.report()
    report = compare(before, after)
    (row,) = report.rows
    assert (row["Layer"], row["Before"], row["After"]) == ("fc", 20, 30)
    assert (row["Difference"], row["Change"]) == (10, 0.5)
    assert report.totals == {"Before": 20, "After": 30, "Difference": 10, "Change": 0.5}


def test_bars_add_up_the_sources_of_a_layer():
    counter = two_sources()
    bound = counter.analysis.upper_bound(input_max_events=3)
    ax = drawn(plot.synops(counter.counts, bound))
    assert [bar.get_width() for bar in ax.patches] == [3 * 20, 20]
    assert [text.get_text() for text in ax.texts] == ["20 of 60 (33%)"]


# -- the counter -----------------------------------------------------------------------------------


def test_after_a_measurement_a_counter_no_longer_keeps_samples_apart():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), torch.ones(2, 4))
    counter(torch.ones(8, 4))
    together = counter.latest, [part.shape for part in counter._account.last[1].parts]
    counter.measure([torch.ones(8, 4)], progress=False)
    counter(torch.ones(8, 4))
    assert counter.latest is together[0]
    assert [part.shape for part in counter._account.last[1].parts] == together[1]
    for n in (8, 16):  # another number of samples than was ever seen, too
        counter(torch.ones(n, 4))
        assert sum(part.numel() for part in counter._account.last[1].parts) == 1
        assert float(counter.synops) == n * 4 * 3


class OwnPrecision(nn.Module):
    """Computes its first layer in single precision and its last in bfloat16, whoever calls it."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.relu = fnn.NeuromorphicReLU()

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            first = self.first(x)
        middle = self.middle(first)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return first, middle, self.last(self.relu(middle) * 0.3)


def test_parts_of_a_model_with_an_autocast_mode_of_their_own_are_run_in_it():
    model = OwnPrecision()
    x = torch.randint(0, 3, (4, 6)).float()
    counter = fxsynops.SynOpsCounter(model, x)
    for enabled, middle in ((False, torch.float32), (True, torch.bfloat16), (False, torch.float32)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            expected, found = model(x), counter(x)
        assert [y.dtype for y in found] == [torch.float32, middle, torch.bfloat16]
        assert all(map(torch.equal, found, expected))


# -- sums of counts --------------------------------------------------------------------------------


def interrupted(*batches):
    yield from batches
    raise KeyboardInterrupt


def test_a_sum_with_partial_counts_is_partial():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), torch.ones(2, 4))
    partial = counter.measure(interrupted(torch.ones(2, 4)), progress=False)
    complete = counter.measure([torch.ones(3, 4)], progress=False)
    assert (partial.partial, complete.partial) == (True, False)
    for both in (partial + complete, complete + partial):
        assert both.partial
        assert (both.samples, both.total) == (5, 5 * 12)
        assert "Partial" in str(both)
    assert not (complete + complete).partial


def test_a_sum_has_only_rates_and_statistics_that_both_parts_have():
    def model():
        return nn.Sequential(fnn.NeuromorphicReLU(), nn.Linear(2, 3))

    x = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    counter = fxsynops.SynOpsCounter(model(), x, input_events=False, rates=True)
    with_both = counter.measure([x], progress=False)
    without = count(model(), x, input_events=False).counts
    assert list(with_both.rates) == ["0"]
    assert with_both.per_sample.mean == 2 * 3
    for both in (with_both + without, without + with_both):
        assert both.samples == 4
        assert both.rates == {}
        assert both.per_sample is None
    twice = with_both + counter.measure([2 * x[:1]], progress=False)
    assert twice.rates["0"].rates.tolist() == pytest.approx([(3 + 1 + 6) / 3, 0.0])
    spread = twice.per_sample
    each = 3 * torch.tensor([3.0, 1.0, 6.0], dtype=torch.float64)
    assert (spread.samples, spread.min, spread.max) == (3, 3, 18)
    assert spread.mean == pytest.approx(float(each.mean()))
    assert spread.std == pytest.approx(float(each.std()))


def test_a_sum_with_inexact_counts_is_inexact():
    model = nn.Linear(4096, 1)
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 4096))
    exact = counter.measure([torch.ones(1, 4096)], progress=False)
    inexact = counter.measure([torch.full((1, 4096), 4097.0)], progress=False)
    assert (exact.exact, inexact.exact) == (True, False)
    assert not (exact + inexact).exact
    assert not (inexact + exact).exact
    assert (exact + exact).exact


def test_the_note_on_multiply_accumulates_is_of_all_steps_of_a_sample():
    counter = count(nn.Linear(4, 3), torch.rand(2, 5, 4), layout="NT", input_events=False)
    assert counter.analysis.dense[0].macs == 4 * 3
    assert "Not SynOps: 60 multiply-accumulates per sample" in str(counter.counts)


# -- forms -----------------------------------------------------------------------------------------


def test_lists_are_joined_by_semicolons_in_csv():
    rows = [{"name": "a", "why": ["first, then", "second"]}, {"name": "b", "why": []}]
    assert formats.csv(rows) == 'name,why\na,"first, then; second"\nb,\n'


def test_shares_in_html_are_of_the_total():
    model = nn.Sequential(nn.Linear(4, 3), fnn.NeuromorphicReLU(), nn.Linear(3, 12))
    page = fxsynops.analyze(model, torch.ones(1, 4)).to_html()  # 12 and 36 synapses
    assert re.findall(r"([\d.]+%)<i style=\"width:([\d.]+)em\"", page) == [
        ("25.0%", "1.50"),
        ("75.0%", "4.50"),
    ]


# -- inputs ----------------------------------------------------------------------------------------


def test_samples_and_steps_are_picked_from_an_axis_that_merges_both():
    named = {(t, n): 10.0 * t + n for t in range(3) for n in range(4)}
    for axes, rows in (
        ("(TN)", [(t, n) for t in range(3) for n in range(4)]),
        ("(NT)", [(t, n) for n in range(4) for t in range(3)]),
    ):
        x = torch.tensor([[named[row]] for row in rows])
        inputs = Inputs((x, torch.ones(5)), {}, ("x", "static"))
        layout = Layout(axes, batch_size=4)
        for axis, index in (("N", [3, 0]), ("T", [2, 2, 1])):
            picked = layout.picked(inputs, Window(4, 3), axis, torch.tensor(index))
            ts, ns = (range(3), index) if axis == "N" else (index, range(4))
            order = (
                [(t, n) for t in ts for n in ns]
                if axes == "(TN)"
                else [(t, n) for n in ns for t in ts]
            )
            assert picked.args[0].flatten().tolist() == [named[row] for row in order]
            assert picked.args[1] is inputs.args[1]


@pytest.mark.parametrize("layout", ["(NT)", "(TN)"])
def test_samples_of_a_merged_axis_are_told_apart(layout):
    x = (torch.rand(12, 6) < torch.linspace(0.1, 0.9, 12)[:, None]).float()
    counter = fxsynops.SynOpsCounter(nn.Linear(6, 5), x, layout=layout, batch_size=4)
    spread = per_sample(counter, x)
    each = 5 * x.double().sum(1).view(*((4, 3) if layout == "(NT)" else (3, 4)))
    each = each.sum(1 if layout == "(NT)" else 0)
    assert (spread.samples, spread.min, spread.max) == (4, each.min(), each.max())
    assert spread.mean == pytest.approx(float(each.mean()))
    assert spread.std == pytest.approx(float(each.std()))
    assert spread.std > 0


class StepsLast(nn.Module):
    """Its neurons get (samples, features, steps)."""

    def __init__(self):
        super().__init__()
        self.relu, self.fc = fnn.NeuromorphicReLU(), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.relu(x.movedim(1, -1)).movedim(-1, 1))


@pytest.mark.parametrize("options", [{}, {"timesteps": 5}, {"batch_size": 2}])
def test_neurons_are_told_from_steps_also_where_the_number_of_steps_is_given(options):
    x = torch.randint(0, 4, (2, 5, 3)).float()
    counter = count(StepsLast(), x, layout="NT", rates=True, input_events=False, **options)
    assert counter.rates["relu"].rates.tolist() == pytest.approx(x.mean((0, 1)).tolist())


# -- losses and metrics ----------------------------------------------------------------------------


def two_layers_of_relus():
    model = nn.Sequential(
        fnn.NeuromorphicReLU(), nn.Linear(2, 4, bias=False), fnn.NeuromorphicReLU(), nn.Linear(4, 1)
    )
    nn.init.ones_(model[1].weight)
    return model


def test_rate_losses_are_added_up_over_sources():
    def value(loss, rate):
        return float(loss(counter, rate).detach())

    x = torch.zeros(1, 2)
    counter = count(two_layers_of_relus(), x, input_events=False, rates=True)
    assert value(losses.rate_floor_loss, 0.5) == 2  # one for each silent source
    assert value(losses.rate_ceiling_loss, 0.5) == 0
    counter(torch.tensor([[3.0, 1.0]]))  # then four neurons of the other source fire four times
    above = (3 - 1 + 0) / 2 + (4 - 1)
    assert value(losses.rate_ceiling_loss, 1.0) == above
    below = (1 - 3 / 6 + 1 - 1 / 6) / 2 + (1 - 4 / 6)
    assert value(losses.rate_floor_loss, 6.0) == pytest.approx(below)


def test_the_metric_is_per_sample_and_not_per_step():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), torch.ones(2, 5, 4), layout="NT")
    metric = SynOpsMetric(counter)
    for x in (torch.ones(2, 5, 4), torch.zeros(1, 5, 4)):
        counter(x)
        metric.update(counter)
    expected = 2 * 5 * 4 * 3 / 3
    assert {name: float(v) for name, v in metric.compute().items()} == {
        "synops": expected,
        "synops/linear": expected,
    }


# -- measuring data sets ---------------------------------------------------------------------------


class MixesSamples(nn.Module):
    """A hidden layer that gets something of several samples, as ``mix`` makes it."""

    def __init__(self, mix):
        super().__init__()
        self.fc, self.relu, self.out = nn.Linear(6, 6, bias=False), fnn.NeuromorphicReLU(), None
        self.out, self.mix = nn.Linear(6, 2), mix
        nn.init.eye_(self.fc.weight)

    def forward(self, x):
        return self.out(self.relu(self.mix(self.fc(x))))


def uneven(n: int) -> torch.Tensor:
    """Samples with one, two, … events."""
    return torch.arange(1, n + 1)[:, None] * torch.eye(6)[0]


def one_gets_anothers(x):
    return torch.stack([x[0], x[2], x[2], x[3]])


MIXED = {
    "their sum": lambda x: x + x.sum(0),  # is the same in any order
    "a neighbour in the middle": one_gets_anothers,  # is the same with another first one
}


@pytest.mark.parametrize("mix", MIXED)
def test_samples_that_one_exchange_does_not_show_to_be_mixed_have_no_statistics(mix):
    counter = fxsynops.SynOpsCounter(MixesSamples(MIXED[mix]), uneven(4))
    counts = counter.measure([uneven(4)], progress=False)
    assert counts.rows[1].events > 0
    assert counts.per_sample is None
    assert "Per sample: not known" in str(counts)
    apart = fxsynops.SynOpsCounter(MixesSamples(lambda x: 1 * x), uneven(4))
    assert per_sample(apart, uneven(4)).mean == 2.5 * (6 + 2)


@pytest.mark.parametrize("order", [(4, 3, 3), (3, 4, 3), (3, 3, 4)])
def test_there_are_no_statistics_if_those_of_some_batches_are_not_known(order):
    model = MixesSamples(lambda x: x + x.flip(0) if len(x) == 4 else x)
    counter = fxsynops.SynOpsCounter(model, uneven(3))
    counts = counter.measure([uneven(n) for n in order], progress=False)
    assert counts.samples == 10
    assert counts.per_sample is None
    assert "cannot be told" in counts.extras.not_apart
    assert per_sample(counter, uneven(3), uneven(3)).samples == 6


def test_there_are_no_statistics_of_other_samples_than_were_counted():
    counter = fxsynops.SynOpsCounter(MixesSamples(lambda x: 1 * x), uneven(2))
    calls = []

    def reset(_):
        calls.append(None)
        if len(calls) == 4:  # before and after each batch, whose samples are then told apart
            raise KeyboardInterrupt

    counts = counter.measure([uneven(2), uneven(3), uneven(2)], reset=reset, progress=False)
    assert len(calls) == 4
    assert (counts.partial, counts.samples) == (True, 5)
    assert counts.total == (1 + 2 + 1 + 2 + 3) * (6 + 2)
    assert counts.per_sample is None
    assert "interrupted in the middle of a batch" in str(counts)


def test_a_data_set_is_measured_without_gradients():
    model, seen = nn.Linear(4, 3), []
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
    model.register_forward_hook(
        lambda _, __, y: seen.append((torch.is_grad_enabled(), y.requires_grad))
    )
    counter.measure([torch.ones(2, 4), torch.ones(2, 4)], progress=False)
    assert set(seen) == {(False, False)}
    assert not counter.synops.requires_grad


def test_states_that_were_there_before_a_measurement_are_reset():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), fnn.IAF(), nn.Linear(1, 5))
    nn.init.constant_(model[0].weight, 0.6)
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 1, 1), layout="NT")
    counter(torch.ones(1, 1, 1))  # a membrane of 0.6
    counts = counter.measure([torch.ones(1, 1, 1)] * 3, progress=False)
    assert [row.events for row in counts.rows] == [3, 0]
    kept = counter.measure([torch.ones(1, 1, 1)] * 3, reset=False, progress=False)
    assert kept.rows[1].events == 2  # 0.6 of before, and 1.8


# -- NIR -------------------------------------------------------------------------------------------


def ones(*shape):
    return np.ones(shape, dtype=np.float32)


def test_what_comes_together_at_a_node_is_added_up_in_the_order_of_nodes():
    big = np.array([1e8], dtype=np.float32)
    nodes = {
        "in": nir.Input(np.array([1])),
        "up": nir.Scale(big),
        "down": nir.Scale(-big),
        "again": nir.Scale(3 * big),
        "back": nir.Scale(-3 * big),
        "one": nir.Scale(ones(1)),
        "sum": nir.Scale(ones(1)),
        "out": nir.Output(np.array([1])),
    }
    parts = ("up", "down", "again", "back", "one")
    ordered = [("in", name) for name in parts]
    ordered += [(name, "sum") for name in parts] + [("sum", "out")]
    for edges in (ordered, ordered[::-1], sorted(ordered)):
        graph = nir.NIRGraph(nodes=nodes, edges=edges)
        assert flatten(graph, "here")[1] == ordered
        # In any order that adds the one to a big number first, it is lost.
        assert from_nir(graph)(torch.ones(1, 1, 1)).tolist() == [[[1.0]]]


def from_list(*nodes):
    return from_nir(nir.NIRGraph.from_list(*nodes), dt=1.0)


def test_a_sum_pool_of_nir_adds_up_and_an_average_pool_does_not():
    x = torch.randint(0, 3, (2, 3, 2, 6, 6)).float()
    sizes = {
        "kernel_size": np.array([2, 3]),
        "stride": np.array([2, 3]),
        "padding": np.array([0, 0]),
    }
    start = nir.Input(np.array([2, 6, 6]))
    windows = x.double().view(2, 3, 2, 3, 2, 2, 3).sum((4, 6))
    for pool, divisor in ((nir.SumPool2d, 1), (nir.AvgPool2d, 6)):
        nodes = {"input": start, "pool": pool(**sizes), "output": nir.Output(np.array([2, 3, 2]))}
        graph = nir.NIRGraph(nodes, [("input", "pool"), ("pool", "output")])
        found = from_nir(graph)(x)
        assert torch.allclose(found.double(), windows / divisor, rtol=1e-6, atol=0)


def test_neurons_of_nir_fire_above_their_threshold_and_not_at_it():
    x = torch.tensor([1.0, 0.5, 1.5])[None, None]
    neuron = from_list(nir.IF(r=ones(3), v_threshold=ones(3)))
    assert neuron(x).tolist() == [[[0.0, 0.0, 1.0]]]
    threshold = from_list(nir.Threshold(threshold=ones(3)))
    assert threshold(x).tolist() == [[[0.0, 0.0, 1.0]]]


# -- firing rates ----------------------------------------------------------------------------------


def test_a_histogram_ends_at_the_largest_rate():
    for events, top in (([0, 1, 2, 6], 3.0), ([0, 0, 0, 1], 0.5)):
        firing = FiringRates("here", torch.tensor(events, dtype=torch.float64), 2)
        heights, edges = firing.histogram(4)
        assert edges.tolist() == pytest.approx([top * k / 4 for k in range(5)])
        expected, _ = np.histogram(np.array(events) / 2, 4, (0, top))
        assert heights.tolist() == expected.tolist()
    assert FiringRates("here", torch.tensor([0.0, 1.0]), 2).histogram(2)[0].tolist() == [1, 1]


def test_a_neuron_that_has_fired_once_is_not_silent():
    events = torch.tensor([0.0, 1.0, 5.0, 1e6], dtype=torch.float64)
    assert FiringRates("here", events, 10**9).silent == 0.25


class TwoOrders(nn.Module):
    """Calls its neurons on (samples, steps, features) and on (samples, features, steps)."""

    def __init__(self):
        super().__init__()
        self.relu, self.a, self.b = fnn.NeuromorphicReLU(), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.a(self.relu(x)) + self.b(self.relu(2 * x.mT).mT)


def test_each_call_has_its_own_axes_of_samples_and_steps():
    x = torch.randint(0, 4, (2, 5, 3)).float()
    counter = count(TwoOrders(), x, layout="NT", rates=True, input_events=False)
    assert list(counter.rates) == ["relu"]
    assert counter.rates["relu"].rates.tolist() == pytest.approx((3 * x.mean((0, 1))).tolist())


def test_neurons_inside_of_a_module_that_is_kept_whole_have_no_rates():
    inner = nn.Sequential(nn.Linear(4, 4), fnn.NeuromorphicReLU(), nn.Linear(4, 4))
    neuron = sl.LIFRecurrent(tau_mem=10.0, rec_connect=inner)
    x = torch.randint(0, 30, (2, 5, 4)).float()
    counter = fxsynops.SynOpsCounter(
        nn.Sequential(neuron, nn.Linear(4, 2)), x, layout="NT", rates=True, strict=False
    )
    assert [row.operation for row in counter.analysis.unresolved] == ["0.rec_connect.1"]
    spikes = []
    neuron.register_forward_hook(lambda _, __, y: spikes.append(y.detach()))
    counter(x)
    assert list(counter.rates) == ["0"]
    assert spikes[-1].sum() > 0
    found = counter.rates["0"].rates.tolist()
    assert found == pytest.approx(spikes[-1].mean((0, 1)).tolist())


# -- exact sums ------------------------------------------------------------------------------------


def test_negative_events_are_graded_events_too():
    x = torch.tensor([[2.0, -3.0, 0.0, -0.0], [-1.0, 0.0, 4.0, 1.0]])
    counter = count(nn.Linear(4, 5), x, events="nonzero")
    assert counter.counts.total == 5 * 5
    assert float(counter.synops) == 5 * 5


class Worth(nn.Module):
    """What it gets are spikes, each worth a third."""

    def forward(self, x):
        return x.clone()


fxsynops.register_spiking(Worth, amplitude=1 / 3)


def test_half_precision_values_are_whole_events_of_a_worth_that_is_not_one():
    x = torch.tensor([[683.0, 1.0, 0.0]], dtype=torch.float16)  # 2049 events, 3 and none
    model = nn.Sequential(Worth(), nn.Linear(3, 2)).half()
    counter = count(model, x, input_events=False)
    assert counter.counts.total == 2 * (2049 + 3)
    parts = sum_events(x, 1 / 3, Reading(x.shape, [0, 1]))
    assert parts.tolist() == [[2049, 3, 0]]


def test_events_of_another_worth_are_rounded_to_whole_ones():
    events = torch.arange(64, dtype=torch.float64).view(2, 32)
    x = (events / 3).float()
    for _ in range(3):  # as it is after a few additions
        x = torch.nextafter(x, torch.tensor(torch.inf))
    assert float((x * 3).sum()) > int(events.sum())
    model = nn.Sequential(Worth(), nn.Linear(32, 1))
    counter = count(model, x, input_events=False)
    assert counter.counts.total == int(events.sum())
    assert counter.counts.rows[0].events == int(events.sum())


LARGE = {
    "one axis": ((1 << 17,), ()),
    "many rows": ((300, 4097), ()),
    "three axes": ((7, 100, 5000), ()),
    "short rows": ((5000, 3, 41), ()),
    "channels kept": ((40, 3, 70, 70), (1,)),
    "rows kept": ((50, 30, 600), (1,)),
    "last axis kept": ((100_000, 6), (1,)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", LARGE)
def test_events_up_to_4096_are_added_up_exactly_in_any_shape(case, dtype):
    size, kept = LARGE[case]
    events = torch.randint(3840, 4097, size)
    if dtype == torch.bfloat16:
        events = events // 256 * 256 + torch.randint(0, 2, size) * (1 - events // 256 * 256)
    others = [axis for axis in range(len(size)) if axis not in kept]
    expected = events.sum(others, keepdim=True)
    assert int(expected.max()) > 2**24
    reading = Reading(size, kept, signed=False)
    parts = sum_events(events.to(dtype), 1.0, reading)
    assert reading.together(parts).double().tolist() == expected.view(reading.shape).tolist()
    if dtype == torch.float32:
        assert float(parts.max()) <= 2**24


def test_all_connections_together_are_added_up_exactly():
    x = torch.full((9, 4096), 4095.0)
    x[0, 0] = 4094
    expected = 9 * 4096 * 4095 - 1
    assert expected > 2**24
    counter = count(nn.Linear(4096, 3, bias=False), x, input_events=True)
    assert int(counter.synops) == 3 * expected
    assert int(counter.per_synapse["linear"]) == 3 * expected
    assert counter.counts.total == 3 * expected
    assert counter.counts.exact


def test_passes_are_added_up_exactly():
    counter = fxsynops.SynOpsCounter(nn.Linear(4096, 1), torch.ones(1, 4096))
    x = torch.full((1, 4096), 4095.0)
    x[0, 0] = 4094  # an odd number of events, each pass for itself below 2**24
    expected = 0
    for passes in range(1, 6):
        counter(x)
        expected += 4096 * 4095 - 1
        if passes in (3, 5):  # also when sums of passes are added to one another
            assert counter.counts.total == expected
    assert counter.counts.exact


# -- replays ---------------------------------------------------------------------------------------


class DividedByAParameter(nn.Module):
    """Events, divided by a parameter, meet a gate."""

    def __init__(self, by: float):
        super().__init__()
        self.by, self.fc = nn.Parameter(torch.tensor(by)), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(torch.relu(x / self.by))


def test_behind_a_division_events_are_worth_less():
    x = torch.tensor([[1.0, 2.0, 0.0, 3.0]])
    counter = count(DividedByAParameter(4.0), x)
    assert counter.counts.total == (1 + 2 + 3) * 3
    with torch.no_grad():
        counter.model.by.fill_(0.5)
    counter.clear()
    counter(x)
    assert counter.counts.total == (1 + 2 + 3) * 3


# -- samples ---------------------------------------------------------------------------------------


class Static(nn.Module):
    """A loop over an input that is the same at each step."""

    def __init__(self, steps: int = 7):
        super().__init__()
        self.steps, self.fc = steps, nn.Linear(6, 4, bias=False)

    def forward(self, x):
        return torch.stack([self.fc(x) for _ in range(self.steps)])


def test_a_static_input_counts_at_each_step_of_each_sample():
    x = (torch.rand(5, 6) < torch.linspace(0.1, 0.9, 5)[:, None]).float()
    counter = fxsynops.SynOpsCounter(Static(), x, timesteps=7)
    spread = per_sample(counter, x)
    each = x.double().sum(1) * 4 * 7
    assert (spread.min, spread.max) == (each.min(), each.max())
    assert spread.mean == pytest.approx(float(each.mean()))


def test_a_static_input_counts_at_each_step_for_weights_that_are_not_zero():
    x = torch.tensor([[1.0, 0.0, 2.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]])
    model = Static()
    counter = fxsynops.SynOpsCounter(model, x, timesteps=7, weights="nonzero")
    for zeros in (0, 2, 5):
        with torch.no_grad():
            model.fc.weight.fill_(0.5).view(-1)[: 2 * zeros : 2] = 0
        counter.clear()
        counter(x)
        expected = 7 * float(F.linear(x, (model.fc.weight != 0).float()).sum())
        assert counter.counts.total == expected


class EachWithEach(nn.Module):
    """Multiplies each sample with each other one."""

    def forward(self, x):
        return torch.einsum("ik,jk->ij", x, x)


def test_products_of_different_samples_belong_to_neither():
    x = torch.ones(3, 4)
    counter = fxsynops.SynOpsCounter(EachWithEach(), x)
    counts = counter.measure([x], progress=False)
    assert counts.total == 3 * 3 * 4  # of one sample by itself, it is 4
    assert counter.measure([x[:1]], progress=False).per_sample.mean == 4
    assert counts.per_sample is None


# -- tables ----------------------------------------------------------------------------------------


def test_the_change_of_rows_that_are_added_up_is_that_of_their_sums():
    widths = [(k % 7 + 1, (3 * k) % 11 + 1) for k in range(60)]

    class Wide(nn.Module):
        def __init__(self, which):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(2, width[which]) for width in widths)

        def forward(self, x):
            return [part(x) for part in self.parts]

    reports = [fxsynops.analyze(Wide(which), torch.ones(1, 2)).report() for which in (0, 1)]
    shown = compare(*reports).shown()
    rows = {row["Layer"]: row for row in shown}
    alone = {name for name in rows if "more" not in name}
    (group,) = rows.keys() - alone
    assert group == "parts: 36 more"
    others = [pair for k, pair in enumerate(widths) if f"parts.{k}" not in alone]
    before, after = (2 * sum(pair[which] for pair in others) for which in (0, 1))
    row = rows[group]
    assert (row["Before"], row["After"], row["Difference"]) == (before, after, after - before)
    assert row["Change"] == pytest.approx((after - before) / before)


class Gated(nn.Module):
    """Two sources behind a pool of the larger value."""

    def __init__(self):
        super().__init__()
        self.relu, self.pool, self.fc = fnn.NeuromorphicReLU(), nn.MaxPool1d(2), nn.Linear(2, 3)

    def forward(self, x):
        return self.fc(self.pool(self.relu(x)))


def test_tables_name_the_gate_at_which_events_are_measured():
    counter = count(Gated(), torch.ones(2, 4), input_events=False)
    for result in (counter.analysis, counter.counts, counter.analysis.upper_bound()):
        assert "relu at pool" in str(result)
        assert "relu at pool" in result.to_markdown()
    assert counter.counts.total == 2 * 2 * 3


@pytest.mark.parametrize(
    ("widths", "marked"),
    [((50, 30, 20), 1), ((40, 35, 25), 2), ((20, 60, 20), 1), ((30, 25, 45), 2)],
)
def test_the_fewest_rows_that_make_up_half_of_the_total_are_marked(widths, marked):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(2, width) for width in widths)

        def forward(self, x):
            return [part(x) for part in self.parts]

    console = Console(file=io.StringIO(), width=160)
    console.print(fxsynops.analyze(Wide(), torch.ones(1, 2)))
    lines = console.file.getvalue().splitlines()
    found = {i for i in range(3) for line in lines if f"parts.{i} " in line and "◂" in line}
    assert found == set(sorted(range(3), key=lambda i: -widths[i])[:marked])
    assert any("◂ these rows make up half of the total" in line for line in lines)
