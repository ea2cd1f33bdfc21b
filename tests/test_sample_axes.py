"""Which axes of a tensor are samples and steps, and what each sample's sum is: against loops."""

from __future__ import annotations

import pytest
import torch

from fxsynops.connectivity.sample_axes import Leading, leading
from fxsynops.tracing.inputs import Layout, Window

N, T = 2, 3


def axes_of(size, calls=1, layout="N", samples=N, steps=T, **options):
    """Which axes, which of them is the samples', and in what order a merged one holds both."""
    found = leading(size, calls, Window(samples, steps), Layout(layout, **options))
    return found.axes, found.sample, found.merged


# Axes as the layouts say; 5 and 7 are neurons'.
PLACES = [
    # One tensor holds all steps: samples and steps in front, in either order.
    ((N, T, 5), 1, "NT", ((0, 1), 0, "")),
    ((T, N, 5), 1, "NT", ((0, 1), 1, "")),
    ((T, N, 5), 1, "TN", ((0, 1), 1, "")),
    ((N, T, 5), 1, "TN", ((0, 1), 0, "")),
    ((N, T), 1, "NT", ((0, 1), 0, "")),
    ((T, N), 1, "TN", ((0, 1), 1, "")),
    # ... merged, in the order of the inputs, if that is known.
    ((N * T, 5), 1, "NT", ((0,), 0, "NT")),
    ((N * T, 5), 1, "TN", ((0,), 0, "TN")),
    ((N * T, 5, 7), 1, "(NT)", ((0,), 0, "NT")),
    ((N * T, 5, 7), 1, "(TN)", ((0,), 0, "TN")),
    ((N * T, 5), 1, "N", ((0,), None, "")),
    ((N * T, 5), 1, "T", ((0,), None, "")),
    # ... or not at all.
    ((N, 5), 1, "NT", ((0,), 0, "")),
    ((N, 5, T), 1, "NT", ((0,), 0, "")),
    ((5, N, T), 1, "NT", ((), None, "")),
    ((5, 7), 1, "NT", ((), None, "")),
    ((T, 5), 1, "TN", ((), None, "")),
    ((), 1, "NT", ((), None, "")),
    # A loop runs over the steps: each tensor holds samples.
    ((N, 5), T, "TN", ((0,), 0, "")),
    ((N, T, 5), T, "NT", ((0,), 0, "")),
    ((T, N, 5), T, "TN", ((), None, "")),
    ((N * T, 5), T, "TN", ((), None, "")),
    ((N, 5), T, "N", ((0,), 0, "")),
    # Time inside, behind all other axes or behind the channels.
    ((N, 5, T), 1, "NCT", ((0, 2), 0, "")),
    ((N, 5, 7, 7, T), 1, "NCHWT", ((0, 4), 0, "")),
    ((N, 5, T), 1, "NCHWT", ((0, 2), 0, "")),
    ((N, 5, T, 7, 7), 1, "NCTHW", ((0, 2), 0, "")),
    ((N, 5, 7, T), 1, "N…T", ((0, 3), 0, "")),
    ((N, 5, 7), 1, "NCT", ((0,), 0, "")),
    ((7, 5, T), 1, "NCT", ((), None, "")),
    ((N, 5, T), T, "NCT", ((0,), 0, "")),
]


@pytest.mark.parametrize(("size", "calls", "layout", "expected"), PLACES, ids=str)
def test_axes_of_samples_and_steps(size, calls, layout, expected):
    options = {"batch_size": N, "timesteps": T} if layout[:1] == "(" else {}
    assert axes_of(size, calls, layout, **options) == expected


@pytest.mark.parametrize(
    ("size", "calls", "layout", "samples", "steps", "expected"),
    [
        # A single sample: any of its axes may be the steps'.
        ((T, 5), 1, "T", 1, T, ((0,), None, "")),
        ((1, T, 5), 1, "T", 1, T, ((0, 1), 0, "")),
        ((T, 1, 5), 1, "T", 1, T, ((0, 1), 1, "")),
        ((T, 5), T, "T", 1, T, ((), None, "")),
        ((1, 5), T, "T", 1, T, ((0,), 0, "")),
        ((5, T), 1, "CT", 1, T, ((1,), None, "")),
        ((1, 5, T), 1, "NCT", 1, T, ((0, 2), 0, "")),
        ((5, 7, T), 1, "NCT", 1, T, ((2,), None, "")),
        ((5, T, 7), 1, "CTH", 1, T, ((1,), None, "")),
        # As many samples as steps: the inputs' order decides, or nothing does.
        ((T, T, 5), 1, "NT", T, T, ((0, 1), 0, "")),
        ((T, T, 5), 1, "TN", T, T, ((0, 1), 1, "")),
        ((T, T, 5), 1, "N", T, T, ((0, 1), None, "")),
        ((T, 5), 1, "N", T, T, ((0,), 0, "")),
        # A single step.
        ((N, 5), 1, "N", N, 1, ((0,), 0, "")),
        ((5,), 1, "", 1, 1, ((), None, "")),
    ],
    ids=str,
)
def test_axes_of_single_samples_and_steps(size, calls, layout, samples, steps, expected):
    assert axes_of(size, calls, layout, samples, steps) == expected


def arranged(values, order, behind):
    """Values (N, T) with those axes in another order, and axes of neurons that each repeat them."""
    axes = {"NT": values, "TN": values.T, "N": values.sum(1), "T": values.sum(0)}[order]
    return axes.reshape(*axes.shape, *[1] * len(behind)) * torch.ones(behind)


@pytest.mark.parametrize("behind", [(), (5,), (5, 7)])
@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("order", ["NT", "TN"])
def test_sums_of_each_sample(order, samples, behind):
    values = torch.arange(1.0, samples * T + 1).reshape(samples, T) ** 2
    per_neuron = torch.ones(behind).sum()
    expected = torch.tensor([float(sum(row)) for row in values]) * per_neuron
    window, at = Window(samples, T), order.index("N")
    apart = arranged(values, order, behind)
    assert torch.equal(Leading((0, 1), at, "", window).by_sample(apart), expected)
    merged = apart.flatten(0, 1)
    assert torch.equal(Leading((0,), 0, order, window).by_sample(merged), expected)
    alone = arranged(values, "N", behind)
    assert torch.equal(Leading((0,), 0, "", window).by_sample(alone), expected)
    behind_all = apart.movedim(at, -1)
    last = Leading((behind_all.dim() - 1,), behind_all.dim() - 1, "", window)
    assert torch.equal(last.by_sample(behind_all), expected)


def test_sums_of_one_sample_need_no_axis():
    sums = torch.arange(12.0).reshape(3, 4)
    for axes in ((), (0,), (0, 1)):
        assert Leading(axes, None, "", Window(1, 3)).by_sample(sums).tolist() == [66]
