"""Published constructions are counted to the integer, on two batches, or refused."""

from __future__ import annotations

import pytest

import fxsynops
from tests.constructions import CONSTRUCTIONS, OPEN, REFUSED
from tests.outcome import counts


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_the_counter_agrees_with_the_oracle(name):
    for outcome in counts(CONSTRUCTIONS[name], batches=2):
        assert outcome.counter.analysis.unresolved == ()
        assert outcome.same_output
        assert outcome.synops == outcome.expected_synops
        assert outcome.macs == outcome.expected_macs
        assert sum(outcome.synops.values()) > 0
        assert outcome.counter.counts.exact


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_counted_is_refused_by_name(name):
    case, says = REFUSED[name]
    with pytest.raises(fxsynops.UnsupportedOperationError, match=says):
        fxsynops.analyze(case.build(), case.inputs(), **case.options)


def test_a_sum_of_products_counts_as_the_einsum_of_the_same_does():
    by_hand = next(counts(OPEN["convolution: locally connected, product and sum"]))
    einsum = next(counts(CONSTRUCTIONS["convolution: locally connected, einsum of patches"]))
    assert by_hand.synops[""] == einsum.synops[""] == 2080
