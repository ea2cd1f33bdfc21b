"""exact-snn-nn hands on times, not events: refused, and never counted as nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fxsynops

exact_snn = pytest.importorskip("exact_snn")


def test_layers_of_spike_times_are_refused_in_words():
    times = exact_snn.latency_encode(torch.rand(6, 4))
    for model in (
        exact_snn.ExactTTFSLinear(6, 5),
        exact_snn.ExactTTFSNetwork([6, 5, 3]),
        nn.Sequential(exact_snn.ExactTTFSLinear(6, 5), nn.Flatten()),
    ):
        with pytest.raises(fxsynops.UnsupportedOperationError, match="times of spikes"):
            fxsynops.analyze(model, (times,), input_events=False, layout="")
        analysis = fxsynops.analyze(model, (times,), input_events=False, layout="", strict=False)
        assert len(analysis.unresolved) >= 1


def test_a_model_that_uses_none_of_it_is_counted():
    assert fxsynops.analyze(nn.Linear(3, 2), torch.ones(1, 3)).connections
