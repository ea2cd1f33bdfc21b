"""Bounds that were unsound, or counts that failed, once: each with its right value by hand."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

import fxsynops
import fxsynops.nn as fnn


class Complement(nn.Module):
    """1 + events worth -1, taken away twice: two events for each spike."""

    def __init__(self):
        super().__init__()
        self.node, self.out = neuron.IFNode(), nn.Linear(1, 1)

    def forward(self, x):
        return self.out(torch.relu(1 - (-self.node(x))))


class Twice(nn.Module):
    """One neuron, called on little and on much."""

    def __init__(self):
        super().__init__()
        self.little, self.much = nn.Linear(1, 1, False), nn.Linear(1, 1, False)
        nn.init.constant_(self.little.weight, 0.0)
        nn.init.constant_(self.much.weight, 3.0)
        self.node = neuron.IFNode(v_reset=None)
        self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x):
        early = self.first(self.node(self.little(x)))
        return early, self.second(self.node(self.much(x)))


class Bursts(nn.Module):
    def forward(self, x):
        return 0.35 * torch.clamp(torch.floor(x), 0, 3)


def test_a_constant_meets_events_in_their_own_worth():
    x = torch.ones(1, 1)
    counter = fxsynops.SynOpsCounter(Complement(), x)
    counter(x)
    row = counter.analysis.upper_bound().rows[-1]
    assert counter.counts.rows[-1].synops == 2 <= row.charge <= row.structural


def test_a_first_call_gets_what_the_last_calls_of_earlier_passes_have_left():
    x = torch.ones(1, 1)
    counter = fxsynops.SynOpsCounter(Twice(), x)
    bound = counter.analysis.upper_bound(4)
    for _ in range(4):
        counter(x)
    measured = {row.connection.synapse: row.synops for row in counter.counts.rows}
    assert measured["first"] == 3
    assert all(measured[row.connection.synapse] <= row.charge for row in bound.rows)


def test_a_whole_number_of_events_is_whole_in_a_bound():
    fxsynops.register_spiking(Bursts, amplitude=0.35, max_spikes=3, signed=False)
    model = nn.Sequential(Bursts(), nn.ReLU(), nn.Linear(1, 1))
    bound = fxsynops.analyze(model, torch.full((1, 1), 3.0)).upper_bound(input_max_events=3)
    assert bound.rows[-1].structural == 3


def test_random_numbers_are_drawn_anew_however_their_size_is_written():
    for draw in (lambda: torch.rand(16), lambda: torch.rand((16,)), lambda: torch.rand(size=(16,))):

        class Draws(nn.Module):
            def __init__(self):
                super().__init__()
                self.node, self.fc = fnn.IAF(), nn.Linear(16, 3)

            def forward(self, x):
                return self.fc(self.node(x) * (draw() > 0.5).float())  # noqa: B023

        counter = fxsynops.SynOpsCounter(Draws(), torch.ones(1, 2, 16), layout="NT")
        found = set()
        for _ in range(4):
            counter(torch.ones(1, 2, 16))
            found.add(counter.synops.item())
        assert len(found) > 1


def test_a_batch_norm_far_from_zero_leaves_its_rounding_in_the_bound():
    norm = nn.BatchNorm1d(1).eval()
    with torch.no_grad():
        norm.running_mean.fill_(20000.37)
        norm.weight.fill_(0.32)
        norm.bias.fill_(20000.37 * 0.32)
    x = torch.ones(1, 1)
    threshold = float(norm(x).detach())
    node = neuron.IFNode(v_threshold=threshold * 0.9999999, v_reset=None)
    model = nn.Sequential(norm, node, nn.Linear(1, 1))
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    bound = counter.analysis.upper_bound(input_range=(0.0, 1.0))
    counter(x)
    assert counter.counts.rows[-1].synops == 1 <= bound.rows[-1].charge


@pytest.mark.parametrize("said", [5, {"1": 5}])
def test_a_neurons_own_cap_holds_beside_what_is_said(said):
    model = nn.Sequential(nn.Linear(1, 1), neuron.IFNode(), nn.Linear(1, 1))
    bound = fxsynops.analyze(model, torch.ones(1, 1)).upper_bound(max_spikes=said)
    assert bound.rows[-1].max_events == 1
