"""Every published architecture is understood, and counted to the integer."""

from __future__ import annotations

import pytest

from tests.outcome import count
from tests.zoo import SLOW, ZOO


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.full if n in SLOW else ()) for n in ZOO]
)
def test_the_counter_agrees_with_the_oracle(name):
    outcome = count(ZOO[name])
    analysis = outcome.counter.analysis
    assert analysis.unresolved == ()
    assert outcome.same_output
    assert outcome.synops == outcome.expected_synops
    assert outcome.macs == outcome.expected_macs
    assert sum(outcome.synops.values()) > 0
    assert outcome.counter.counts.exact
