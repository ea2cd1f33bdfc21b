"""Pictures say the numbers that they are of."""

from __future__ import annotations

import math

import matplotlib as mpl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import InputError

mpl.use("Agg")
from matplotlib import pyplot as plt

from fxsynops import plot


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        fnn.NeuromorphicReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        fnn.NeuromorphicReLU(),
        nn.Flatten(),
        nn.Linear(4 * 16, 3),
    )


def images():
    return torch.randint(0, 3, (5, 2, 8, 8)).float()


@pytest.fixture
def counter():
    counter = fxsynops.SynOpsCounter(network(), images(), rates=True)
    counter(images())
    return counter


def bars(ax):
    names = [label.get_text() for label in ax.get_yticklabels()]
    measured = ax.containers[-1]  # in front
    return dict(zip(names, (bar.get_width() for bar in measured), strict=True))


def drawn(ax):
    ax.figure.canvas.draw()
    return ax


# -- SynOps ----------------------------------------------------------------------------------------


def test_a_bar_is_as_long_as_its_layers_synops_per_sample(counter):
    ax = drawn(plot.synops(counter.counts))
    expected = {r.connection.synapse: r.synops / 5 for r in counter.counts.rows}
    assert bars(ax) == pytest.approx(expected)
    assert ax.get_xlabel() == "SynOps per sample (1 step of 1 ms)"
    assert ax.get_title() == "SynOps of Sequential"


def test_a_layer_with_several_sources_has_one_bar():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)
            self.n = fnn.NeuromorphicReLU()

        def forward(self, x):
            return self.b(x + self.n(self.a(x)))

    counter = fxsynops.SynOpsCounter(Residual(), torch.ones(2, 4))
    counter(torch.ones(2, 4))
    found = bars(plot.synops(counter.counts))
    assert found == {
        n: pytest.approx(float(v.detach()) / 2) for n, v in counter.per_synapse.items()
    }


def test_the_lightest_layers_share_a_bar(counter):
    rows = {r.connection.synapse: r.synops / 5 for r in counter.counts.rows}
    heaviest = max(rows, key=rows.get)
    found = bars(plot.synops(counter.counts, top=1))
    rest = sum(rows.values()) - rows[heaviest]
    assert found == pytest.approx({heaviest: rows[heaviest], "… 2 more": rest})


def at_most(ax) -> list[float]:
    """The lengths of the bound's bars."""
    (found,) = (c for c in ax.containers if c.get_label() == "at most (bound)")
    return [bar.get_width() for bar in found]


def test_bounds_are_bars_around_those_of_the_count_where_they_are_finite(counter):
    analysis = counter.analysis
    bound = analysis.upper_bound(input_max_events=2)
    finite = [row.charge for row in bound.rows if math.isfinite(row.charge)]
    ax = plot.synops(counter.counts, bound)
    assert sorted(at_most(ax)) == sorted(finite)
    assert len(finite) == 3
    outer, inner = ax.containers
    assert outer[0].get_height() > inner[0].get_height()


def test_an_infinite_bound_has_no_bar():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 4), spiking=nn.ReLU)
    counter(torch.ones(1, 4))
    bound = counter.analysis.upper_bound()
    assert [math.isfinite(row.charge) for row in bound.rows] == [True, False]
    assert at_most(plot.synops(counter.counts, bound)) == [12.0]


def test_bars_beside_a_bound_are_of_its_window():
    model = nn.Sequential(nn.Linear(4, 3), fnn.IAF(), nn.Linear(3, 2))
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 5, 4), layout="NT")
    counter(torch.ones(2, 5, 4))
    ax = plot.synops(counter.counts, counter.analysis.upper_bound(timesteps=10))
    assert bars(ax)["0"] == 4 * 3 * 10
    assert ax.get_xlabel() == "SynOps per sample (10 steps of 1 ms)"


@pytest.mark.parametrize(("inputs", "scale"), [(10, "linear"), (10_000, "log")])
def test_the_axis_is_logarithmic_where_layers_differ_much(inputs, scale):
    model = nn.Sequential(nn.Linear(inputs, 10), fnn.NeuromorphicReLU(), nn.Linear(10, 10))
    nn.init.zeros_(model[0].weight)
    nn.init.ones_(model[0].bias)
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, inputs))
    counter(torch.ones(1, inputs))
    ax = drawn(plot.synops(counter.counts))
    assert bars(ax) == {"0": 10 * inputs, "2": 100}
    assert ax.get_xscale() == scale


def test_numbers_have_their_thousands_separated(counter):
    labels = [text.get_text() for text in drawn(plot.synops(counter.counts)).texts]
    expected = [f"{r.synops / 5:,.0f}" for r in counter.counts.rows if r.synops / 5 >= 1000]
    assert expected
    assert set(expected) <= set(labels)


def test_a_bar_says_how_much_of_its_bound_it_is():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), torch.ones(1, 4))
    counter(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    (text,) = plot.synops(counter.counts, counter.analysis.upper_bound()).texts
    assert text.get_text() == "3 of 12 (25%)"
    counter.clear()
    counter(torch.zeros(1, 4))
    (text,) = plot.synops(counter.counts, counter.analysis.upper_bound()).texts
    assert text.get_text() == "silent of 12"


def test_nothing_counted_another_model_and_a_strange_top_are_errors(counter):
    other = fxsynops.SynOpsCounter(nn.Linear(4, 2), torch.ones(1, 4))
    with pytest.raises(InputError, match="nothing has been counted"):
        plot.synops(other.counts)
    with pytest.raises(InputError, match="other connections"):
        plot.synops(counter.counts, other.analysis.upper_bound())
    with pytest.raises(InputError, match="top is how many"):
        plot.synops(counter.counts, top=0)


# -- fan-out ---------------------------------------------------------------------------------------


def image(ax):
    return np.ma.filled(ax.get_images()[0].get_array().astype(float), np.nan)


def test_the_image_is_the_expanded_map(counter):
    for connection in counter.analysis.connections[:2]:
        for channel in (0, 1):
            ax = plot.fanout_map(connection, channel=channel)
            expected = connection.fanout.map.expand(1, *connection.shape)[0, channel]
            assert np.array_equal(image(ax), expected.numpy())
            assert ax.get_title() == (
                f"Fan-out of {connection.source} → {connection.synapse}, channel {channel}"
            )
    assert len({*image(plot.fanout_map(counter.analysis, "2")).flat}) == 3  # corner, border, inside


def test_it_has_a_bar_of_colors(counter):
    ax = drawn(plot.fanout_map(counter.analysis, "0"))
    assert [a.get_ylabel() for a in ax.figure.axes[1:]] == ["fan-out (synapses per event)"]


@pytest.mark.parametrize(("neurons", "shape"), [(1, (1, 1)), (64, (1, 64)), (70, (8, 9))])
def test_neurons_in_one_axis_are_a_row_or_folded(neurons, shape):
    ax = plot.fanout_map(fxsynops.analyze(nn.Linear(neurons, 5), torch.ones(1, neurons)))
    found = image(ax)
    assert found.shape == shape
    assert np.array_equal(found.flat[:neurons], np.full(neurons, 5.0))
    assert np.isnan(found.flat[neurons:]).all()


def test_of_steps_that_differ_it_is_the_mean():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(x[:, -1])

    analysis = fxsynops.analyze(Last(), torch.ones(2, 6, 4), layout="NT")
    assert np.allclose(image(plot.fanout_map(analysis)), 3 / 6)
    assert analysis.connections[0].fanout.mean == 3 / 6


def test_sources_with_one_map_share_an_image_and_others_are_told_apart():
    class Add(nn.Module):
        def __init__(self, crop):
            super().__init__()
            self.a, self.b, self.n = nn.Linear(8, 8), nn.Linear(8, 2), fnn.NeuromorphicReLU()
            self.crop = crop

        def forward(self, x):
            y = self.n(self.a(x))
            return self.b(x + (F.pad(y[:, :4], (0, 4)) if self.crop else y))

    x = torch.ones(1, 8)
    ax = plot.fanout_map(fxsynops.analyze(Add(False), x), "b")
    assert ax.get_title() == "Fan-out of x, n → b"
    analysis = fxsynops.analyze(Add(True), x)
    with pytest.raises(InputError, match=r"'x', 'n'.*analysis.connections"):
        plot.fanout_map(analysis, "b")


def test_an_unknown_synapse_or_channel_is_an_error_that_names_what_there_is(counter):
    with pytest.raises(InputError, match="no synapse 'conv': those with events are '0', '2', '5'"):
        plot.fanout_map(counter.analysis, "conv")
    with pytest.raises(InputError, match="say which synapse: those with events are '0', '2', '5'"):
        plot.fanout_map(counter.analysis)
    with pytest.raises(InputError, match="channels 0 to 1, not 2"):
        plot.fanout_map(counter.analysis, "0", channel=2)


# -- rates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [1, 20])
def test_bars_are_the_histogram_of_each_source(counter, bins):
    for found in (counter.rates, counter.counts.rates):
        axes = plot.rates(found, bins=bins)
        for ax, (name, firing) in zip(axes, found.items(), strict=True):
            heights, edges = firing.histogram(bins)
            assert [patch.get_height() for patch in ax.patches] == heights.tolist()
            assert [patch.get_x() for patch in ax.patches] == pytest.approx(edges[:-1].tolist())
            assert ax.get_title() == f"{name}\n{firing.silent:.1%} silent"
            assert ax.get_xlabel() == "events per step"


def test_rates_are_drawn_into_axes_that_are_given(counter):
    _, given = plt.subplots(2, 2)
    axes = plot.rates(counter.rates, axes=given)
    assert list(axes) == list(given.flat[: len(counter.rates)])
    with pytest.raises(InputError, match=r"1 axes for 2 sources \(1, 3\)"):
        plot.rates(counter.rates, axes=[given[0, 0]])


def test_rates_that_were_not_kept_are_an_error():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 2), torch.ones(1, 4))
    counter(torch.ones(1, 4))
    with pytest.raises(InputError, match="rates=True"):
        plot.rates(counter.counts.rates)


def test_no_bins_are_an_error(counter):
    with pytest.raises(InputError, match="bins"):
        plot.rates(counter.rates, bins=0)


# -- training --------------------------------------------------------------------------------------


def test_the_line_is_of_the_synops_and_the_target_is_dashed():
    given = [torch.tensor(2e6, requires_grad=True), 1.5e6, torch.tensor(1.2e6)]
    ax = drawn(plot.training(given, target=1e6))
    line, target = ax.get_lines()
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == [2e6, 1.5e6, 1.2e6]
    assert set(target.get_ydata()) == {1e6}
    assert target.get_linestyle() == "--"
    assert ax.get_xlabel() == "training step"
    assert "2,000,000" in [label.get_text() for label in ax.get_yticklabels()]


def test_training_takes_a_tensor_and_no_target():
    assert len(plot.training(torch.tensor([3.0, 2.0])).get_lines()) == 1


def test_training_without_steps_is_an_error():
    with pytest.raises(InputError, match="no SynOps to show"):
        plot.training([])


# -- figures ---------------------------------------------------------------------------------------


def test_everything_is_drawn_into_axes_that_are_given(counter):
    _, (a, b, c) = plt.subplots(3)
    assert plot.synops(counter.counts, ax=a) is a
    assert plot.fanout_map(counter.analysis, "0", ax=b) is b
    assert plot.training([1.0], ax=c) is c
    assert len(plt.get_fignums()) == 1


# -- steps -----------------------------------------------------------------------------------------


def in_time(**more):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), fnn.IAF(), nn.Linear(6, 3))
    x = torch.randint(0, 3, (3, 5, 4)).float()
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", dt=2.0, **more)
    counter(x)
    return counter.counts


def test_bars_of_steps_are_as_high_as_the_mean_sample():
    counts = in_time(steps=True)
    ax = plot.steps(counts, max_synops_per_second=30_000.0)
    heights = np.array([bar.get_height() for bar in ax.patches]).reshape(2, 5)
    assert heights == pytest.approx(np.array([row.mean for row in counts.steps.rows]))
    assert heights.sum() == pytest.approx(counts.total / 3)
    most, budget = (line.get_ydata() for line in ax.lines)
    assert list(most) == list(counts.steps.total.max)
    assert set(budget) == {60.0}  # SynOps in 2 ms
    assert [bars.get_label() for bars in ax.containers] == ["0", "2"]


def test_layers_beyond_the_heaviest_share_a_color():
    counts = in_time(steps=True)
    ax = plot.steps(counts, top=1, ax=plt.subplots()[1])
    assert sorted(bars.get_label() for bars in ax.containers) == ["0", "… 1 more"]
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(counts.total / 3)


def test_steps_that_were_not_kept_are_no_picture():
    with pytest.raises(InputError, match="steps=True"):
        plot.steps(in_time())
    with pytest.raises(InputError, match="top"):
        plot.steps(in_time(steps=True), top=0)
