"""Time inside of the inputs: counts, steps, rates and bounds of the same model with it in front."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fxsynops
from fxsynops.errors import InputError

STEPS, SAMPLES = 5, 3


class Fires(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return (v > 0.2).float()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Net(nn.Module):
    """Layers without time between; ``axis`` is where the input has its steps."""

    def __init__(self, axis):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.axis = nn.Conv2d(2, 4, 3), nn.Linear(4 * 16, 3), axis

    def forward(self, x):
        steps = x.movedim(self.axis, 0)
        hidden = [Fires.apply(self.a(step)) for step in steps]
        hidden = torch.stack(hidden, self.axis)  # (N, C, H, W, T), say
        flat = hidden.movedim(self.axis, 1).flatten(2)
        return self.b(flat).movedim(1, -1)


def frames(axis: int) -> torch.Tensor:
    x = torch.rand((SAMPLES, STEPS, 2, 6, 6), generator=torch.Generator().manual_seed(1)) < 0.4
    return x.float().movedim(1, axis)


@pytest.fixture(scope="module")
def plain():
    counter = fxsynops.SynOpsCounter(Net(1), frames(1), layout="NT", rates=True)
    return counter, counter.measure([frames(1)])


@pytest.mark.parametrize(
    ("layout", "axis"), [("NCTHW", 2), ("NCHWT", 4), ("N…T", 4), ("N...T", 4), ("NC…T", 4)]
)
def test_time_inside(plain, layout, axis):
    model, x = Net(axis), frames(axis)
    counter = fxsynops.SynOpsCounter(model, x, layout=layout, rates=True)
    counter_in_front, theirs = plain
    ours = counter.measure([x])
    assert (ours.samples, ours.timesteps) == (SAMPLES, STEPS)
    assert float(ours.total) == float(theirs.total) > 0
    for row, other in zip(ours.to_rows(), theirs.to_rows(), strict=True):
        assert row == other | {"Source": row["Source"]}
    assert ours.per_sample.mean == theirs.per_sample.mean
    assert ours.per_sample.std == theirs.per_sample.std
    analyses = counter.analysis, counter_in_front.analysis
    for connection, other in zip(*(a.connections for a in analyses), strict=True):
        assert connection.neurons == other.neurons
        assert connection.shape == other.shape
        assert connection.fanout.total == other.fanout.total
    bounds = [analysis.upper_bound().structural for analysis in analyses]
    assert bounds[0] == bounds[1]
    longer = torch.cat((x, x), axis)
    counter(longer)
    assert float(counter.synops.detach()) == 2 * float(theirs.total)


def test_analog_inputs_with_time_inside_cost_macs_per_step():
    dense = [
        fxsynops.analyze(Net(axis), frames(axis), layout=layout, input_events=False).dense
        for axis, layout in ((1, "NT"), (4, "NCHWT"))
    ]
    assert dense[0] == dense[1]


def test_a_sample_alone_with_time_last():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU(), nn.Conv1d(3, 1, 1))
    analysis = fxsynops.analyze(model, frames(4)[0, :, 0, 0][None], layout="NCT")
    assert analysis.connections[0].shape == (2,)
    assert analysis.connections[0].neurons == 2


def test_an_image_that_is_repeated_inside():
    class Repeats(Net):
        def forward(self, x):
            return super().forward(x.unsqueeze(self.axis).repeat(1, STEPS, 1, 1, 1))

    x = frames(1)[:, 0]
    counter = fxsynops.SynOpsCounter(Repeats(1), x, timesteps=STEPS)
    counter(x)
    expected = Net(1)(x.unsqueeze(1).repeat(1, STEPS, 1, 1, 1))
    assert torch.equal(counter(x), expected)
    by_hand = fxsynops.SynOpsCounter(
        Net(1), repeated := x.unsqueeze(1).repeat(1, STEPS, 1, 1, 1), layout="NT"
    )
    by_hand(repeated)
    assert float(counter.synops.detach()) == float(by_hand.synops.detach())


@pytest.mark.parametrize("layout", ["NCHW", "NTT", "nct", "N T", "NNT", "N…C…T"])
def test_what_is_no_layout(layout):
    with pytest.raises(fxsynops.FxSynopsError, match="is none of"):
        fxsynops.analyze(Net(1), frames(1), layout=layout)


def test_too_few_axes_and_contradictions_are_errors():
    with pytest.raises(fxsynops.FxSynopsError, match="5 axes of layout 'NCHWT'"):
        fxsynops.analyze(nn.Linear(4, 2), torch.ones(2, 4), layout="NCHWT")
    with pytest.raises(fxsynops.FxSynopsError, match="along axis 4"):
        fxsynops.analyze(Net(4), frames(4), layout="NCHWT", timesteps=7)


class Static(nn.Module):
    """A loop over a static input, which a layer reads once or twice in every step."""

    def __init__(self, steps, twice=False):
        super().__init__()
        self.steps, self.twice = steps, twice
        self.fc, self.out = nn.Linear(8, 50), nn.Linear(50, 3)

    def forward(self, x):
        v = total = 0
        for _ in range(self.steps):
            v = v + self.fc(x) + (self.fc(x) if self.twice else 0)
            fired = (v > 1).float()
            v, total = v - fired, total + self.out(fired)
        return total


@pytest.mark.parametrize("timesteps", [None, 10])
@pytest.mark.parametrize("twice", [False, True])
def test_columns_of_a_static_input_go_together_whatever_is_said_of_steps(timesteps, twice):
    x = torch.ones(3, 8)
    counter = fxsynops.SynOpsCounter(Static(10, twice), x, timesteps=timesteps)
    counter(x)
    row = counter.counts.rows[0]
    assert row.events == 3 * 8 * 10
    assert row.nominal == row.events * 50
    assert row.synops == row.nominal * (1 + twice)  # two paths to one layer
    assert row.connection.fanout.mean == 50 * (1 + twice)
    assert row.rate == 1


@pytest.mark.parametrize("timesteps", [3, 5, 20])
def test_a_number_of_steps_that_no_loop_has_is_an_error(timesteps):
    with pytest.raises(InputError, match=r"reads a static input 10 times.*Pass timesteps=10"):
        fxsynops.analyze(Static(10), torch.ones(3, 8), timesteps=timesteps)
