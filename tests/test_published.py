"""Published figures: each is equal by its own definition."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.figures.rows import Row
from benchmarks.published import NAMES, figures


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_equal_by_its_own_definition(name):
    rows = figures(name)
    assert len(rows) >= 6
    assert [row.name for row in rows if not row.equal] == []
    for row in rows:
        assert row.source
        assert row.exact is None or row.exact == row.alike or row.why, row.name


def test_a_figure_that_is_not_equal_is_seen():
    row = Row("figure", "1,000", 1000.0, "somewhere")
    assert row.equal
    assert not replace(row, alike=1001.0).equal
    assert replace(row, alike=1001.0, within=1.0).equal
