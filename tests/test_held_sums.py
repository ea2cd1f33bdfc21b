"""Sums of events: in any shape, dtype and unit, by connection, by sample, over passes and parts."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import sinabs.layers as sl
import torch
from torch import Tensor, distributed, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.counting.counts import Counted, Extras, Measured, Span
from fxsynops.counting.exact_sums import (
    Contraction,
    Reading,
    Tally,
    Term,
    add_up,
    fractions,
    sample_events,
    sum_events,
)
from fxsynops.counting.firing_rates import FiringRates
from fxsynops.counting.per_sample import Spread, Statistics
from fxsynops.counting.per_step import StepRow, Steps, _one_after_the_other
from fxsynops.counting.replay import Detail, Replay, Rows
from fxsynops.errors import CountError, InputError

# -- one read --------------------------------------------------------------------------------------

SIZES = {
    "a number": ((), ()),
    "nothing": ((0,), ()),
    "nothing, kept": ((3, 0), (0,)),
    "one axis": ((7,), ()),
    "one axis, kept": ((7,), (0,)),
    "all axes kept": ((3, 4, 2), (0, 1, 2)),
    "a block and a tail": ((4097,), ()),
    "blocks": ((3, 4096), ()),
    "blocks and a tail": ((2, 5000), ()),
    "whole blocks": ((2, 6144), ()),
    "one axis of whole blocks": ((8192,), ()),
    "rows that are too short": ((5000, 3, 2), ()),
    "few long rows": ((2, 3000), ()),
    "rows of one block and more": ((3, 2, 2500), ()),
    "the first axis kept": ((3, 70, 70), (0,)),
    "the axis between kept": ((5, 3, 1000), (1,)),
    "the last axis kept": ((6000, 3), (1,)),
    "a long axis, one kept": ((2, 9000), (0,)),
    "an axis of one": ((1, 5, 1, 3), (1,)),
    "two of four kept": ((3, 4, 30, 50), (0, 2)),
}


def added_up(events: Tensor, kept) -> Tensor:
    """Σ over the axes that are not kept, in float64."""
    axes = [axis for axis in range(events.dim()) if axis not in kept]
    return events.double().sum(axes, keepdim=True) if axes else events.double()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("case", SIZES)
def test_partial_sums_make_up_the_sums(case, signed):
    size, kept = SIZES[case]
    events = torch.randint(0, 9, size).float()
    expected = added_up(events, kept)
    reading = Reading(size, kept, signed=signed)
    values = events * torch.randint(0, 2, size).mul(2).sub(1) if signed else events.clone()
    parts = sum_events(values, 1.0, reading)
    values.fill_(5)  # parts are no view of it
    assert tuple(parts.shape) == reading.partial
    assert parts.numel() == reading.count
    assert reading.shape == tuple(expected.shape)
    assert reading.together(parts).double().equal(expected)
    for short in itertools.product(*((1,) if n == 1 else (1, n) for n in reading.shape)):
        weights = torch.randint(1, 9, short).double()
        apart = reading.apart(weights)
        assert apart.shape == parts.shape
        assert (parts.double() * apart).sum() == (expected * weights).sum()


@pytest.mark.parametrize("case", SIZES)
def test_no_partial_sum_is_of_more_than_4096_elements_and_they_are_few(case):
    size, kept = SIZES[case]
    reading = Reading(size, kept, signed=False)
    parts = sum_events(torch.ones(size), 1.0, reading)
    assert parts.sum() == math.prod(size)
    assert not parts.numel() or parts.max() <= 4096
    if not kept:
        assert parts.numel() <= max(64, 16 * math.ceil(math.prod(size) / 4096))
    else:
        others = math.prod(n for axis, n in enumerate(size) if axis not in kept)
        assert others > 4096 or parts.numel() == math.prod(reading.shape)


def test_whole_axes_are_added_up_where_they_make_good_blocks():
    for size, inner in (((64, 4096), (1,)), ((3, 5, 7), (2, 1, 0)), ((9, 2, 2000), (2, 1))):
        reading = Reading(size, signed=False)
        assert (reading.inner, reading.block, reading.plain) == (inner, 0, True)
    for size in ((3 * 4096,), (10_000, 3)):
        reading = Reading(size, signed=False)
        assert (reading.block, reading.plain) == (4096, False)
        assert reading.partial == (math.ceil(math.prod(size) / 4096),)


UNITS = {
    "one": 1.0,
    "a number": 0.25,
    "three": 3.0,
    "a tensor": torch.tensor(0.5),
    "a tensor of one": torch.tensor([2.0]),
    "by channel": torch.tensor([0.5, 0.0, 2.0, 3.0])[:, None],
    "in float64": torch.tensor([[1.0, 0.5, 4.0]], dtype=torch.float64),
}
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kept", [(), (1,), (0, 1, 2)])
def test_events_are_counted_in_units(kept, signed, unit, dtype):
    worth = UNITS[unit]
    events = torch.randint(-6 * signed, 7, (5, 4, 3)).double()
    values = (events * worth).to(dtype)
    expected = events.abs() * (torch.as_tensor(worth) != 0)
    for rounded in (False, True):
        reading = Reading(values.shape, kept, signed=signed, rounded=rounded)
        parts = sum_events(values, worth, reading)
        assert parts.dtype == (torch.float64 if torch.float64 == dtype else torch.float32)
        assert reading.together(parts).double().equal(added_up(expected, kept))
    graded = Reading(values.shape, kept, signed=signed, graded=True)
    parts = sum_events(values, 1.0, graded)
    assert graded.together(parts).double().equal(added_up(values != 0, kept))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kept", [(), (1,), (0, 1, 2)])
def test_whole_numbers_of_any_dtype_are_events(kept, signed, dtype):
    below = -3 * (signed and dtype.is_signed)
    values = torch.randint(below, 4, (5, 4, 3)).to(dtype)
    wide = values.double()
    for unit, found in ((1.0, wide.abs()), (0.5, 2 * wide.abs()), (torch.tensor(0.25), 4 * wide)):
        reading = Reading(values.shape, kept, signed=signed)
        sums = reading.together(sum_events(values, unit, reading)).double()
        assert sums.equal(added_up(found.abs(), kept))
    reading = Reading(values.shape, kept, signed=signed, graded=True)
    sums = reading.together(sum_events(values, 1.0, reading)).double()
    assert sums.equal(added_up(wide != 0, kept))


def test_large_whole_numbers_are_read_as_they_are():
    values = torch.tensor([2**40 + 1, -(2**33) - 1], dtype=torch.int64)
    for kept in ((), (0,)):
        reading = Reading(values.shape, kept)
        sums = reading.together(sum_events(values, 1.0, reading)).double()
        assert sums.equal(added_up(values.abs(), kept))


def test_fractions_count_as_they_are_unless_they_are_rounding():
    values = torch.tensor([0.25, -1.5, 2.001, -0.9995])
    for signed, rounded, expected in (
        (True, False, 0.25 + 1.5 + 2.001 + 0.9995),
        (False, False, 0.25 - 1.5 + 2.001 - 0.9995),
        (True, True, 0 + 2 + 2 + 1),
        (False, True, 0 - 2 + 2 - 1),
    ):
        reading = Reading((4,), signed=signed, rounded=rounded)
        found = float(reading.together(sum_events(values, 1.0, reading)))
        assert found == pytest.approx(expected, rel=1e-6)


def views():
    whole = torch.randint(-5, 6, (6, 4, 50, 70)).float()
    yield "channels last", whole.to(memory_format=torch.channels_last)
    yield "transposed", whole.mT
    yield "other axes in front", whole.permute(3, 1, 0, 2)
    yield "every second", whole[::2, :, ::2]
    yield "a part", whole[1:, 1:3, 5:]
    yield "repeated", whole[:, :1].expand(6, 3, 50, 70)
    yield "flat", whole.flatten()[::3]
    yield "whole blocks", whole.flatten()[: 2 * 8192 : 2].view(2, -1).mT
    yield "one element", whole[0, 0, 0, :1].expand(9000)


@pytest.mark.parametrize("name", [name for name, _ in views()])
def test_memory_may_lie_in_any_order(name):
    values = dict(views())[name]
    for kept in ((), (0,), tuple(range(values.dim() - 1))):
        reading = Reading(values.shape, kept)
        parts = sum_events(values, 1.0, reading)
        assert reading.together(parts).double().equal(added_up(values.abs(), kept))
        parts = sum_events(values, torch.tensor(2.0), reading)
        events = (values / 2).round().abs()
        assert reading.together(parts).double().equal(added_up(events, kept))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("where", [0, 2, 11])
@pytest.mark.parametrize("kept", [(), (0,), (0, 1)])
def test_what_is_no_number_is_not_lost(kept, where, dtype):
    values = torch.tensor([[0.0, 1, -2, 0], [3, 0, 0, 1], [0, 0, 1, 0]], dtype=dtype)
    for options in ({}, {"graded": True}, {"rounded": True}, {"signed": False}):
        reading = Reading(values.shape, kept, **options)
        assert not reading.together(sum_events(values, 1.0, reading)).isnan().any()
        wrong = values.clone()
        wrong.view(-1)[where] = math.nan
        assert reading.together(sum_events(wrong, 1.0, reading)).isnan().any()
    infinite = values.clone()
    infinite[0, 0] = math.inf
    reading = Reading(values.shape, kept, graded=True)
    sums = reading.together(sum_events(infinite, 1.0, reading)).double()
    assert sums.equal(added_up(infinite != 0, kept))  # it is one event, as it is a number


@pytest.mark.parametrize("size", [(0,), (3, 0)])
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_of_nothing_there_are_no_events(dtype, graded, size):
    reading = Reading(size, graded=graded)
    parts = sum_events(torch.zeros(size, dtype=dtype), 1.0, reading)
    assert reading.together(parts).tolist() == added_up(torch.zeros(size), ()).tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kept", [(), (1,)])
def test_sums_have_the_derivative_of_the_events(kept, signed, unit, dtype):
    worth = UNITS[unit]
    events = torch.randint(-6 * signed, 7, (5, 4, 3)).double()
    events[0] = 0
    weights = torch.rand(added_up(events, kept).shape, dtype=torch.float64)

    def gradients(count, dtype):
        values = (events * worth).to(dtype).requires_grad_()
        own = worth.clone().requires_grad_() if isinstance(worth, Tensor) else worth
        (count(values, own) * weights).sum().backward()
        return values.grad, own.grad if isinstance(own, Tensor) else None

    def by_hand(values, own):
        size = torch.where(values < 0, -values, values) if signed else values
        own = torch.as_tensor(own)
        worthless = own.detach() == 0
        return added_up(size / own.masked_fill(worthless, 1) * ~worthless, kept)

    def count(values, own):
        reading = Reading(values.shape, kept, signed=signed)
        return reading.together(sum_events(values, own, reading)).double()

    found, of_unit = gradients(count, dtype)
    expected, of_unit_expected = gradients(by_hand, torch.float64)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=0)
    if isinstance(worth, Tensor):
        assert (of_unit.dtype, of_unit.shape) == (worth.dtype, worth.shape)
        tolerance = {"rtol": 1e-3 if dtype == torch.float16 else 1e-5, "atol": 1e-4}
        torch.testing.assert_close(of_unit.double(), of_unit_expected.double(), **tolerance)
    with torch.no_grad():
        values = (events * worth).to(dtype).requires_grad_()
        assert not sum_events(values, worth, Reading(values.shape, kept)).requires_grad


@pytest.mark.parametrize("graded", [False, True])
def test_the_derivative_is_one_for_each_event_up_and_for_each_below_zero_down(graded):
    values = torch.tensor([2.0, -3.0, 0.0, -0.0, 1.0], requires_grad=True)
    reading = Reading(values.shape, graded=graded)
    sum_events(values, 1.0, reading).sum().backward()
    assert values.grad.tolist() == [1, -1, 1, 1, 1]


def test_a_worth_has_a_derivative_where_values_have_none():
    values = torch.tensor([[2.0, -6.0], [4.0, 0.0]])
    unit = torch.tensor([2.0, 1.0], requires_grad=True)
    sum_events(values, unit, Reading(values.shape)).sum().backward()
    assert unit.grad.tolist() == [-(2 + 4) / 4, -6.0]


# -- all sources of a pass -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_sums_times_fanout_are_added_up_by_connection(seed):
    draw = random.Random(seed)
    sources = draw.sample(list(SIZES.values()), draw.randint(1, 4))
    rows = draw.randint(1, 4)
    readings = [Reading(size, kept) for size, kept in sources]
    values = [torch.randint(-3, 4, size).float() for size, _ in sources]
    expected = torch.zeros(2, rows, dtype=torch.float64)
    terms = []
    for _ in range(draw.randint(1, 7)):
        row, source = draw.randrange(rows), draw.randrange(len(sources))
        shape = [draw.choice((1, n)) for n in readings[source].shape]
        repeats, fanout = draw.randint(1, 3), torch.randint(0, 5, shape)
        terms.append(Term(row, source, fanout, repeats))
        events = values[source].double().abs()
        expected[0, row] += repeats * events.sum()
        expected[1, row] += repeats * (events * fanout).sum()
    contraction = Contraction(terms, rows, readings, [], torch.device("cpu"))
    assert contraction.count == sum(reading.count for reading in readings)
    given = [value.requires_grad_() for value in values]
    parts = tuple(sum_events(x, 1.0, r) for x, r in zip(given, readings, strict=True))
    tally = Tally(contraction, parts)
    assert tally.both().equal(expected)
    assert tally.total() == expected[1].sum()
    assert tally.total().dtype == torch.float64
    for source in {term.source for term in terms}:
        signs = torch.where(values[source].detach() < 0, -1, 1)
        by_hand = sum(t.repeats * signs * t.fanout for t in terms if t.source == source)
        for synops in (tally.both()[1].sum(), tally.total()):
            (found,) = torch.autograd.grad(synops, given[source], retain_graph=True)
            assert found.equal(by_hand.float().expand(found.shape))
    detached = tally.detached()
    assert not any(part.requires_grad for part in detached.parts)
    assert detached.detached() is detached
    assert detached.both().equal(expected)


@pytest.mark.parametrize("rows", [0, 3])
def test_without_connections_there_is_nothing(rows):
    for readings in ([], [Reading((4,))]):
        contraction = Contraction([], rows, readings, [], torch.device("cpu"))
        parts = [sum_events(torch.ones(4), 1.0, reading) for reading in readings]
        assert contraction(parts).equal(torch.zeros(2, rows, dtype=torch.float64))
        assert contraction.total(parts) == 0


def tallies_of(contraction, readings, passes):
    for values in passes:
        parts = [sum_events(x, 1.0, r) for x, r in zip(values, readings, strict=True)]
        yield Tally(contraction, tuple(parts))


@pytest.mark.parametrize("lengths", [(1,), (3,), (1, 2), (2, 1, 3)])
def test_passes_add_up_whatever_their_sizes(lengths):
    tallies, both, largest = [], torch.zeros(2, 2, dtype=torch.float64), 0.0
    for k, passes in enumerate(lengths):
        size = (2 + k, 3)
        readings = [Reading(size, (1,)), Reading(size)]
        fanout = torch.tensor([[1, 2, 5]])
        terms = [Term(0, 0, fanout, 1), Term(1, 1, torch.full((1, 1), 7), 1)]
        contraction = Contraction(terms, 2, readings, [], torch.device("cpu"))
        given = [[torch.randint(0, 9, size).float() for _ in range(2)] for _ in range(passes)]
        tallies += tallies_of(contraction, readings, given)
        for left, right in given:
            both[0] += torch.stack([left.double().sum(), right.double().sum()])
            both[1] += torch.stack([(left.double() * fanout).sum(), 7 * right.double().sum()])
            largest = max(largest, float(left.sum(0).max()), float(right.sum()))
    random.Random(0).shuffle(tallies)
    found, most = add_up(tallies, torch.device("cpu"))
    assert found.equal(both)
    assert float(most) == largest


def test_pairs_of_events_are_those_of_each_pass():
    """None of one pass meets one of another."""
    given = [tuple(torch.randint(0, 4, (2, 3, 4)).float() for _ in "xy") for _ in range(3)]
    replay = Replay(fxsynops.analyze(Coincidences(), given[0]))
    tallies = [replay.count(pair)[1].detached() for pair in given]
    found, _ = add_up(tallies, torch.device("cpu"))
    assert float(found[1, 0]) == sum(float((x @ y.mT).sum()) for x, y in given)


def test_only_what_is_added_up_in_float32_can_be_inexact():
    reading = Reading((4,))
    contraction = Contraction([Term(0, 0, torch.ones(1), 1)], 1, [reading], [], torch.device("cpu"))
    for dtype, largest in ((torch.float32, 2.0**30), (torch.float64, 0.0)):
        x = torch.tensor([2.0**30, 0, 0, 0], dtype=dtype)
        (tally,) = tallies_of(contraction, [reading], [[x]])
        found, most = add_up([tally], torch.device("cpu"))
        assert (found.flatten().tolist(), float(most)) == ([2.0**30, 2.0**30], largest)
        assert found.dtype == most.dtype == torch.float64


# -- some of the events ----------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1.0, 0.5, torch.tensor(0.5), "own"])
@pytest.mark.parametrize("size", [(), (7,), (256,), (511,), (512,), (5, 1000), (40, 3, 70), (0,)])
def test_samples_are_of_elements_from_all_over(size, unit):
    numbers = torch.arange(math.prod(size)).double().view(size)
    worth = torch.rand(size, dtype=torch.float64) + 0.5 if unit == "own" else unit
    values = (numbers * worth).requires_grad_()
    found = sample_events(values, worth)
    assert not found.requires_grad
    n = math.prod(size)
    assert found.numel() == n if n < 512 else 256 <= found.numel() < 512
    which = found.round().long()
    assert (found - which).abs().max() < 1e-9 if n else True
    if n:
        steps = which.diff()
        assert (steps == steps[:1]).all()  # evenly
        assert int(which[0]) == 0
        assert int(which[-1]) >= n - 1 - n // 256  # up to the end
    with torch.no_grad():
        values.fill_(-9.0)
    assert not n or found.max().round() == which.max()  # a copy


def scattered():
    whole = torch.arange(4 * 6 * 40 * 50).double().view(4, 6, 40, 50)
    yield "channels last", whole.to(memory_format=torch.channels_last)
    yield "transposed", whole.mT
    yield "other axes in front", whole.permute(3, 1, 0, 2)
    yield "every third", whole.flatten()[::3]
    yield "few", whole[:2, :2, :2, :3].transpose(0, 3)
    yield "every second row and column", whole[:, :, ::2, ::2]
    yield "a part", whole[1:, 1:3, 5:, 2:]
    yield "repeated", whole[:1, :1].expand(4, 3, 40, 50)


@pytest.mark.parametrize("worth", ["one", "number", "channel", "own"])
@pytest.mark.parametrize("name", [name for name, _ in scattered()])
def test_samples_of_what_does_not_lie_together_are_many(name, worth):
    values = dict(scattered())[name]
    unit = {"one": 1.0, "number": torch.tensor(4.0)}.get(worth)
    if unit is None:
        sizes = values.shape if worth == "own" else (values.shape[0], *(1,) * (values.dim() - 1))
        unit = torch.randint(1, 9, sizes).double()
    found = sample_events(values, unit)
    assert found.numel() == values.numel() if values.numel() < 512 else 256 <= found.numel() < 512
    assert torch.isin(found, values / unit).all()
    if worth == "one":
        assert len(found.unique()) >= min(256, len(values.unique())) or name == "repeated"
        assert found.min() - values.min() <= 0.2 * (values.max() - values.min())
        assert values.max() - found.max() <= 0.2 * (values.max() - values.min())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("where", [np.s_[4:], np.s_[:, 1:3], np.s_[:, :, 16:], np.s_[..., :16]])
def test_many_fractions_are_seen_wherever_they_are(where, layout):
    x = torch.zeros(8, 4, 32, 32).contiguous(memory_format=layout)
    counter = fxsynops.SynOpsCounter(nn.Conv2d(4, 3, 1), x)
    counter(x)
    assert counter.counts.exact
    x[where] = 0.5  # in all, they are a whole number
    counter(x)
    assert not counter.counts.exact
    counter.clear()
    counter(x * 2)
    assert counter.counts.exact


@pytest.mark.parametrize(
    ("events", "sample", "expected"),
    [
        ([1.0, 2.0], [0.0, 3.0], 0.0),
        ([1.25, 2.0], [0.0], 0.25),
        ([1.0], [0.0, -1.75], 0.25),
        ([0.5], [0.25], 0.5),
        ([1.0], [0.9], 0.1),
        ([], [], 0.0),
    ],
)
def test_fractions_are_seen_in_sums_and_in_samples(events, sample, expected):
    reading = Reading((len(events),), (0,))
    contraction = Contraction([], 0, [reading], [], torch.device("cpu"))
    parts = (torch.tensor(events),)
    found = fractions([Tally(contraction, parts, {0: torch.tensor(sample)})])
    assert {k: float(v) for k, v in found.items()} == pytest.approx({0: expected}, abs=1e-6)
    assert fractions([Tally(contraction, parts)]) == {}


# -- by sample -------------------------------------------------------------------------------------


def assert_of(found: Statistics, values: list[float]) -> None:
    assert (found.samples, found.min, found.max) == (len(values), min(values), max(values))
    assert found.mean == pytest.approx(statistics.fmean(values))
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    assert found.std == pytest.approx(spread)


@pytest.mark.parametrize("seed", range(5))
def test_statistics_of_parts_add_up_to_those_of_all(seed):
    draw = random.Random(seed)
    batches = [
        [float(draw.randint(0, 50)) for _ in range(draw.randint(1, 6))]
        for _ in range(draw.randint(2, 5))
    ]
    values = list(itertools.chain(*batches))
    parts = [Statistics.of(torch.tensor(batch)) for batch in batches]
    assert_of(sum(parts, Statistics()), values)
    assert_of(parts[0] + sum(parts[1:], Statistics()), values)
    assert parts[0] + Statistics() == parts[0] == Statistics() + parts[0]
    assert (Statistics() + Statistics()).samples == 0
    spread = Spread()
    for batch in batches:
        spread.add(torch.tensor(batch))
        spread.statistics()  # may be asked for at any time
    assert_of(spread.statistics(), values)
    assert spread.statistics() == spread.statistics()


@pytest.mark.parametrize("batches", [0, 1, 255, 256, 257, 600])
def test_a_stream_of_batches_keeps_few_of_them(batches):
    spread, values = Spread(), []
    for k in range(batches):
        batch = torch.tensor([float(k % 7), float(k % 5)], requires_grad=True)
        spread.add(batch * 1)
        values += batch.tolist()
        assert len(spread._pending) < 256
        assert not any(kept.requires_grad for kept in spread._pending)
    if values:
        assert_of(spread.statistics(), values)
    assert spread.statistics().samples == 2 * batches
    assert Spread().statistics().std == 0.0


# -- passes ----------------------------------------------------------------------------------------


def test_thousands_of_passes_are_counted_in_bounded_memory():
    counter = fxsynops.SynOpsCounter(nn.Linear(2, 3), torch.ones(1, 2))
    most, total = 0, 0
    for k in range(1300):
        counter(torch.full((1, 2), float(k % 5)))
        total += 2 * (k % 5) * 3
        most = max(most, len(counter._account.pending))
    assert 500 < most < 1100  # the bookkeeping of a pass is a hundred numbers or two
    counts = counter.counts
    assert (counts.total, counts.samples, counts.timesteps) == (total, 1300, 1)
    counter.clear()
    assert not counter._account.pending
    counter(torch.ones(1, 2))
    assert (counter.counts.total, counter.counts.samples) == (6, 1)


def test_passes_with_many_sums_are_added_up_sooner():
    x = torch.ones(1, 4, 100, 100)
    counter = fxsynops.SynOpsCounter(nn.Conv2d(4, 1, 3, padding=1), x)
    most = 0
    for _ in range(30):
        counter(x)
        most = max(most, len(counter._account.pending))
    assert 10 <= most <= 13  # of 10,000 sums each, 2**17 in all
    assert counter.counts.total == 30 * 4 * (100 * 3 - 2) ** 2


class Coincidences(nn.Module):
    """Multiplies events with events."""

    def forward(self, x, y):
        return x @ y.mT


def test_passes_of_products_are_counted_each_for_itself():
    counter = fxsynops.SynOpsCounter(Coincidences(), (torch.ones(2, 3, 4), torch.ones(2, 5, 4)))
    total = 0.0
    for _ in range(4):
        x, y = (torch.randint(0, 3, (2, n, 4)).float() for n in (3, 5))
        counter(x, y)
        total += float((x @ y.mT).sum())
        assert not counter._account.pending  # sums of products are not products of sums
        assert float(counter.synops) == float((x @ y.mT).sum())
    assert counter.counts.total == total


def test_passes_of_other_sizes_are_counted_with_them():
    model = nn.Sequential(nn.Flatten(1), nn.Linear(6, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 5, 6)[:, 0], layout="N")
    total = samples = 0
    for n in (2, 7, 2, 3, 7):
        x = torch.randint(0, 5, (n, 6)).float()
        counter(x)
        total, samples = total + 3 * int(x.sum()), samples + n
    counts = counter.counts
    assert (counts.total, counts.samples) == (total, samples)
    assert [row.events for row in counts.rows] == [total / 3]


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("odd", [0.5, 4097.0])
def test_one_pass_that_is_not_exact_makes_the_sum_inexact(odd, settled, order):
    counter = fxsynops.SynOpsCounter(nn.Linear(4096, 1), torch.ones(1, 4096))
    passes = [torch.full((1, 4096), odd), torch.ones(1, 4096)]
    for k, x in enumerate(passes if order else passes[::-1]):
        counter(x)
        if settled:
            assert counter.counts.exact is (k == 0 and not order)
    assert not counter.counts.exact
    assert counter.counts.total == 4096 * (odd + 1)
    counter.clear()
    counter(torch.ones(1, 4096))
    assert counter.counts.exact


# -- rates -----------------------------------------------------------------------------------------


def test_rates_are_events_by_samples_and_steps():
    events = torch.tensor([[0.0, 6.0, 12.0], [0.0, 3.0, 24.0]])
    rates = FiringRates("here", events, 12)
    assert rates.rates.tolist() == [[0, 0.5, 1], [0, 0.25, 2]]
    assert rates.mean == pytest.approx(45 / 12 / 6)
    assert rates.silent == pytest.approx(2 / 6)
    heights, edges = rates.histogram(4)
    assert (heights.tolist(), edges.tolist()) == ([3, 1, 1, 1], [0, 0.5, 1, 1.5, 2])
    assert len(rates.histogram()[0]) == 20
    none = FiringRates("here", torch.zeros(3), 5)
    assert (none.mean, none.silent) == (0, 1)
    assert none.histogram(2)[0].tolist() == [3, 0]
    assert str(rates) == "here: 6 neurons, 0.6250 events per step, 33.3% silent"


def test_rates_of_two_parts_add_up_and_others_do_not():
    parts = [FiringRates("here", torch.tensor([1.0, 5.0]), n) for n in (2, 6)]
    both = parts[0] + parts[1]
    assert (both.source, both.sample_steps, both.events.tolist()) == ("here", 8, [2, 10])
    with pytest.raises(InputError, match=r"'here' has had \(2,\) neurons, and now has \(3,\)"):
        parts[0] + FiringRates("here", torch.zeros(3), 2)


class Twice(nn.Module):
    """One neuron, called on two layers of the same size, and one on another size."""

    def __init__(self):
        super().__init__()
        self.relu, self.fc = fnn.NeuromorphicReLU(), nn.Linear(3, 2)

    def forward(self, x, z):
        return self.fc(self.relu(x) + self.relu(x + 1)), self.relu(z)


def test_calls_of_one_size_are_one_row_of_rates_and_others_another():
    x, z = torch.randint(0, 4, (4, 5, 3)).float(), torch.randint(0, 4, (4, 5, 7)).float()
    model = Twice()
    counter = fxsynops.SynOpsCounter(model, (x, z), layout="NT", rates=True, input_events=False)
    for times in (1, 2):
        counter(x, z)
        for found in (counter.rates, counter.counts.rates):
            assert list(found) == ["relu", "relu#2"]
            of_both = found["relu"].rates.double()
            assert of_both.tolist() == pytest.approx((2 * x + 1).mean((0, 1)).tolist())
            assert found["relu#2"].rates.tolist() == pytest.approx(z.mean((0, 1)).tolist())
        assert counter.rates["relu"].sample_steps == 20
        assert counter.counts.rates["relu"].sample_steps == 20 * times
        assert [r.source for r in counter.counts.rates.values()] == ["relu", "relu#2"]
    counter.clear()
    assert counter.counts.rates == {}


def test_rates_of_neurons_that_drive_nothing_have_derivatives():
    model = nn.Sequential(nn.Linear(3, 2, bias=False), fnn.NeuromorphicReLU())
    nn.init.constant_(model[0].weight, 1.0)
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 3), rates=True)
    counter(torch.ones(1, 3))
    (found,) = torch.autograd.grad(counter.rates["1"].events.sum(), model[0].weight)
    assert found.eq(1).all()


# -- steps -----------------------------------------------------------------------------------------


def test_steps_of_two_parts_have_maxima_if_both_have_some():
    def steps(mean: tuple[float, ...], most: tuple[float, ...] | None, samples: int) -> Steps:
        total = StepRow("", "", "", mean, most)
        return Steps((), total, (samples,) * len(mean), 1.0, (max(mean), sum(mean)))

    first, second = steps((2.0, 6.0), (3.0, 9.0), 2), steps((5.0,), (8.0,), 1)
    both = first + second
    assert both.total.mean == ((2 * 2 + 5) / 3, 6)
    assert both.total.max == (8, 9)
    assert both.samples == (3, 2)
    assert both.windows == (6, 8)
    for one, other in ((first, steps((5.0,), None, 1)), (steps((5.0,), None, 1), first)):
        assert (one + other).total.max is None


def test_a_pass_of_all_steps_is_not_copied():
    table = torch.rand(2, 3, 1)
    assert _one_after_the_other([(["a", "b"], table, 0)])[1] is table
    joined = _one_after_the_other([(["a", "b"], table, 0), (["b"], table[:1], 0)])[1]
    expected = torch.zeros(2, 6, 1)
    expected[:, :3], expected[1, 3:] = table, table[0]
    assert joined.equal(expected)


# -- what was counted ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "steps", "expected", "kind"),
    [(4, 20, 5, int), (4, 10, 2.5, float), (0, 0, 0, int), (3, 3, 1, int)],
)
def test_steps_per_sample_are_whole_where_they_can_be(samples, steps, expected, kind):
    found = Span(samples, steps).timesteps
    assert (found, type(found)) == (expected, kind)


def two_passes(**options) -> fxsynops.SynOpsCounter:
    """Two samples of five steps, and one of three: 13 sample steps, an event in each neuron."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), fnn.NeuromorphicReLU(), nn.Linear(3, 2))
    nn.init.constant_(model[0].weight, 0.5)  # each neuron: two events per step
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 5, 4), layout="NT", **options)
    counter(torch.ones(2, 5, 4))
    counter(torch.ones(1, 3, 4))
    return counter


@pytest.mark.parametrize("dt", [1.0, 4.0, 0.25])
def test_rows_are_sums_rates_and_speeds(dt):
    counts = two_passes(dt=dt).counts
    assert (counts.samples, counts.timesteps, counts.dt) == (3, 13 / 3, dt)
    assert counts.span == Span(3, 13)
    first, second = counts.rows
    assert (first.events, first.synops, first.nominal, first.rate) == (52, 156, 156, 1.0)
    assert (second.events, second.synops, second.nominal, second.rate) == (78, 156, 156, 2.0)
    for row in counts.rows:
        assert row.per_second == pytest.approx(156 / (13 * dt / 1000))
    assert (counts.total, counts.exact, counts.partial) == (312, True, False)
    assert (counts.model, counts.events, counts.weights) == ("Sequential", "value", "all")
    assert counts.per_sample is None


def test_before_the_first_pass_all_is_zero():
    counter = two_passes()
    counter.clear()
    counts = counter.counts
    assert (counts.samples, counts.timesteps, counts.total, counts.exact) == (0, 0, 0, True)
    for row in counts.rows:
        assert (row.events, row.synops, row.nominal) == (0, 0, 0)
        assert (row.rate, row.per_second) == (0, 0)


def test_a_row_without_a_nominal_fanout_has_no_nominal_count():
    counter = fxsynops.SynOpsCounter(Coincidences(), (torch.ones(2, 3, 4), torch.ones(2, 5, 4)))
    counter(torch.ones(2, 3, 4), torch.ones(2, 5, 4))
    assert [row.nominal for row in counter.counts.rows] == [None]


def raw(counter, **changes) -> list[Measured]:
    """What a counter might have measured."""
    rows = [Measured(c, 6.0, 12.0, 3.0) for c in counter.analysis.connections]
    for name, value in changes.items():
        setattr(rows[1], name, value)
    return rows


@pytest.mark.parametrize(
    ("changes", "exact"),
    [
        ({}, True),
        ({"largest": 2.0**24 - 1}, True),
        ({"largest": 2.0**24}, False),
        ({"largest": 2.0**30}, False),
        ({"events": 2.0**40, "synops": 2.0**45}, True),
    ],
)
def test_counts_are_exact_below_two_to_the_24_in_each_block(changes, exact):
    counter = two_passes()
    made = Counted.of(counter.analysis, raw(counter, **changes), Span(1, 1), Extras())
    assert made.exact is exact
    fractions = Extras(fractions=frozenset({"1"}))
    assert not Counted.of(counter.analysis, raw(counter, **changes), Span(1, 1), fractions).exact


@pytest.mark.parametrize("what", ["events", "synops"])
def test_what_is_no_number_is_an_error_that_names_source_and_synapse(what):
    counter = two_passes()
    with pytest.raises(CountError, match=r"source '1' put out NaN \(counted at synapse '2'\)"):
        Counted.of(counter.analysis, raw(counter, **{what: math.nan}), Span(1, 1), Extras())


class Guess(torch.autograd.Function):
    """Makes whole numbers of what is small."""

    @staticmethod
    def forward(ctx, x):
        return torch.where(x < 1000, x.floor(), x)

    @staticmethod
    def backward(ctx, g):
        return g


class Guessed(nn.Module):
    """What the function puts out drives a layer; a linear layer makes its input analog."""

    def __init__(self):
        super().__init__()
        self.first, self.fc = nn.Linear(2, 2, bias=False), nn.Linear(2, 3)
        nn.init.eye_(self.first.weight)

    def forward(self, x):
        return self.fc(Guess.apply(self.first(x)))


@pytest.mark.parametrize(
    "values", [[2000.5, 2000.5], [2000.25, 1.0], [1.0, 3000.875], [1024.75, 2000.25]]
)
def test_a_guessed_neuron_that_puts_out_fractions_is_none(values):
    counter = fxsynops.SynOpsCounter(Guessed(), torch.tensor([[0.0, 1.0]]), input_events=False)
    (row,) = (row for row in counter.analysis.connections if row.synapse == "fc")
    assert row.guessed
    counter(torch.tensor([[3.0, 1.0]]))
    assert counter.counts.total == 4 * 3
    counter(torch.tensor([values]))
    with pytest.raises(CountError, match="fractions among them, so it is no neuron"):
        counter.counts  # noqa: B018
    counter.clear()
    counter(torch.tensor([[3.0, 1.0]]))
    assert counter.counts.total == 4 * 3


FROZEN = (
    Span(1, 2),
    Extras(),
    Statistics(),
    FiringRates("a", torch.ones(1), 1),
    Detail(),
    Rows(()),
)


@pytest.mark.parametrize("result", [*FROZEN, "counts", "row", "tally", "term"])
def test_results_cannot_be_changed(result):
    if isinstance(result, str):
        counter = two_passes()
        term = Term(0, 0, torch.ones(1), 1)
        known = {"counts": counter.counts, "tally": counter._account.last[1], "term": term}
        result = (known | {"row": counter.counts.rows[0]})[result]
    for entry in fields(result):
        with pytest.raises(FrozenInstanceError):
            setattr(result, entry.name, None)


# -- parts together --------------------------------------------------------------------------------


def part(values, **options):
    """The counts of one forward of one layer."""
    x = torch.tensor(values)
    model = nn.Sequential(sl.NeuromorphicReLU(), nn.Linear(2, 3))
    counter = fxsynops.SynOpsCounter(model, x, input_events=False, **options)
    counter(x)
    return counter.counts


def test_sums_of_counts_are_of_all_their_rows():
    parts = [part([[1.0, 2.0]]), part([[0.0, 5.0], [1.0, 1.0]]), part([[4.0, 0.0]])]
    for both in (sum(parts), parts[0] + parts[1] + parts[2]):
        (row,) = both.rows
        assert (row.events, row.synops, both.total, both.samples) == (14, 42, 42, 4)
        assert row.rate == 14 / 2 / 4
    assert sum(parts[:1]).total == 9
    for other in (1, "more", None):
        with pytest.raises(TypeError):
            parts[0] + other
        with pytest.raises(TypeError):
            other + parts[0]


def test_counts_that_do_not_add_up_say_what_is_not_in_both():
    ours = part([[1.0, 2.0]])
    with pytest.raises(InputError, match="do not add up") as error:
        ours + part([[1.0, 2.0]], dt=3.0)
    assert "not in both" not in str(error.value)
    assert "3.0" in str(error.value)
    counter = fxsynops.SynOpsCounter(
        nn.Sequential(
            *(sl.NeuromorphicReLU(), nn.Linear(2, 3)), *(sl.NeuromorphicReLU(), nn.Linear(3, 1))
        ),
        torch.ones(1, 2),
        input_events=False,
    )
    with pytest.raises(InputError, match="are not in both"):
        ours + counter.counts


def test_extras_add_up_where_both_have_them():
    rates = {name: FiringRates(name, torch.ones(2), 3) for name in "abc"}
    some, other = (Statistics.of(torch.tensor(x)) for x in ([1.0, 3.0], [5.0]))
    left = Extras({n: rates[n] for n in "ab"}, some, "", True, frozenset({"x"}))
    right = Extras({n: rates[n] for n in "bc"}, other, "why", False, frozenset({"y"}))
    for both in (left + right, right + left):
        assert list(both.rates) == ["b"]
        assert (both.rates["b"].sample_steps, both.rates["b"].events.tolist()) == (6, [2, 2])
        assert (both.per_sample.samples, both.per_sample.mean) == (3, 3)
        assert (both.not_apart, both.partial) == ("why", True)
        assert both.fractions == {"x", "y"}
    assert (left + Extras()).per_sample is None
    assert (Extras() + right).per_sample is None
    assert not (right + right).partial


@pytest.fixture
def processes(monkeypatch):
    """Three processes, of which the counts of the others are known; we are the second."""
    others = []

    def gather(into, ours, group):
        assert group == "ours"
        into[:] = [others[0], ours, others[1]]

    def start(first, last):
        others[:] = [gathered(first), gathered(last)]
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_world_size", lambda group: 3)
        monkeypatch.setattr(distributed, "all_gather_object", gather)

    def gathered(counts):
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_world_size", lambda group: 1)
        sent = []

        def alone(into, ours, group):
            into[:] = [ours]
            sent.append(ours)

        monkeypatch.setattr(distributed, "all_gather_object", alone)
        counts.all_reduce()
        return sent[0]

    return start


def test_counts_of_all_processes_are_added_up_once_each(processes):
    first, own, last = part([[1.0, 2.0]]), part([[0.0, 5.0], [1.0, 1.0]]), part([[4.0, 0.0]])
    processes(first, last)
    both = own.all_reduce("ours")
    assert (both.total, both.samples) == ((3 + 7 + 4) * 3, 4)
    assert [row.events for row in both.rows] == [14]


@pytest.mark.parametrize("available", [False, True])
def test_without_processes_there_is_nothing_to_gather(available, monkeypatch):
    monkeypatch.setattr(distributed, "is_available", lambda: available)
    monkeypatch.setattr(distributed, "is_initialized", lambda: not available)
    with pytest.raises(InputError, match="init_process_group"):
        part([[1.0, 2.0]]).all_reduce()
