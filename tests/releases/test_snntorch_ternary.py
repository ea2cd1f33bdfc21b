"""snntorch-ternary's neuron emits events of both signs (needs snntorch_ternary)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fxsynops
from fxsynops.neurons import reset_states
from tests.outcome import Case, count

ternary = pytest.importorskip("snntorch_ternary")

import snntorch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
CURRENTS = {"layout": "TN", "input_events": False}


class Net(nn.Module):
    """A layer that keeps its state, and one whose state is handed on."""

    def __init__(self, **options):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(5, 3)
        self.hidden = ternary.TernaryLeaky(0.9, threshold=0.3, init_hidden=True, **options)
        self.shown = ternary.TernaryLeaky(0.8, threshold=0.2, **options)

    def forward(self, x):
        mem, out = torch.zeros(x.shape[1], 5), []
        for step in x:
            spikes, mem = self.shown(self.fc2(self.hidden(self.fc1(step))), mem)
            out.append(self.fc3(spikes))
        return torch.stack(out)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, 2),  # its own surrogate is a sign, and there are two of them: −2, 0 or 2
        ({"spike_grad": snntorch.surrogate.fast_sigmoid()}, 1),
        ({"reset_mechanism": "zero"}, 2),
        ({"reset_mechanism": "none", "reset_delay": False}, 2),
        ({"symmetric_threshold": False}, 2),
        ({"graded_spikes_factor": 2.0}, 2),
    ],
)
def test_events_of_both_signs_are_counted_exactly(options, most):
    worth = options.get("graded_spikes_factor", 1.0)
    case = Case(
        lambda: Net(**options),
        lambda: (torch.randn(4, 3, 6),),
        CURRENTS,
        reset_states,
        {"fc2": worth, "fc3": worth},
    )
    outcome = count(case)
    assert outcome.synops == outcome.expected_synops
    assert outcome.macs == outcome.expected_macs
    assert outcome.same_output
    assert set(outcome.synops) == {"fc2", "fc3"}
    bound = outcome.counter.analysis.upper_bound(input_range=(-9, 9))
    assert [row.structural for row in bound.rows] == [4 * most * 8 * 5, 4 * most * 5 * 3]
    for row in bound.compare(outcome.counter.counts).to_rows():
        assert row["Measured"] <= row["Charge"]


def test_two_forwards_and_gradients_are_the_models_own():
    def run(counted):
        torch.manual_seed(0)
        model, x = Net(learn_threshold=True), torch.randn(4, 3, 6)
        call = fxsynops.SynOpsCounter(model, (x,), **CURRENTS) if counted else model
        y = call(x) + call(x)
        y.sum().backward()
        return [y, *(p.grad for p in model.parameters() if p.grad is not None)]

    ours, theirs = run(True), run(False)
    assert len(ours) == len(theirs) > 6
    assert all(map(torch.equal, ours, theirs))
