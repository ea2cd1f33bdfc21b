"""Bounds follow the values that weights, factors and states have, however a forward makes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import neuron as sj
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import InputError

STEPS = 8


class Net(nn.Module):
    """Events, a synapse of weight one, something, neurons that spend whole charges, a synapse."""

    def __init__(self, between: Any, **kept: Any) -> None:
        super().__init__()
        self.fc, self.node, self.out = nn.Linear(1, 1, bias=False), fnn.IAF(), nn.Linear(1, 1)
        self.between = between
        nn.init.constant_(self.fc.weight, 1.0)
        for name, value in kept.items():
            if type(value) is Tensor:
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x):
        return self.out(self.node(self.between(self, self.fc(x))))


def bounded(net: nn.Module, x: Tensor, **assumed: Any) -> tuple[float, Any]:
    """What is counted, and the last row of the bound."""
    counter = fxsynops.SynOpsCounter(net, x, layout="NT")
    row = counter.analysis.upper_bound(**assumed).rows[-1]
    counter(x)
    assert counter.counts.rows[-1].synops <= row.charge <= row.structural
    return counter.counts.rows[-1].synops, row


def filled(m: Net, y: Tensor) -> Tensor:
    w = torch.empty(1)
    w.fill_(1.5)
    return y * w


def written(m: Net, y: Tensor) -> Tensor:
    w = torch.zeros(2)
    w[1] = 1.5
    return y * w[1:]


def put_out(m: Net, y: Tensor) -> Tensor:
    w = torch.empty(1)
    torch.mul(m.w, 3.0, out=w)
    return y * w


def through_a_view(m: Net, y: Tensor) -> Tensor:
    w = torch.ones(2)
    w[1:].mul_(1.5)
    return y * w[1:] / w[:1]


def through_a_base(m: Net, y: Tensor) -> Tensor:
    w = torch.ones(2)
    late = w[1:]
    w.mul_(1.5)
    return y * late


def detached(m: Net, y: Tensor) -> Tensor:
    w = m.p * 1
    w.detach_()
    return y * w


def a_buffer_that_is_written(m: Net, y: Tensor) -> Tensor:
    m.w.fill_(1.5)
    return y * m.w


def a_buffer_that_grows(m: Net, y: Tensor) -> Tensor:
    y = y * (m.w + 1)
    m.w.add_(0.5)
    return y


def a_buffer_that_has_grown(m: Net, y: Tensor) -> Tensor:
    m.w.add_(1)
    return y * m.w


def scaled_in_place(m: Net, y: Tensor) -> Tensor:
    w = m.w.clone()
    w.mul_(3.0)
    return y * w


def in_parts(m: Net, y: Tensor) -> Tensor:
    low, high = m.two.chunk(2)
    return y * (high - low)


# The factor is 1.5, made of a buffer ``w`` of 0.5, a buffer ``two`` of (0.5, 2), and parameters.
FACTORS: dict[str, Any] = {
    "a number": lambda m, y: y * 1.5,
    "a number on the left": lambda m, y: 1.5 * y,
    "a quotient": lambda m, y: y / m.w * 0.75,
    "a multiple": lambda m, y: y * (m.w * 3),
    "a sum": lambda m, y: y * (m.w + 1),
    "a difference": lambda m, y: y * (m.two[1] - m.two[0]),
    "parts": in_parts,
    "parts by their names": lambda m, y: y * (m.two.max(0).values - m.two.min(0)[0]),
    "a magnitude": lambda m, y: y * (-3 * m.w).abs(),
    "a choice": lambda m, y: y * torch.where(m.w > 0, 1.5, 9.0),
    "a parameter": lambda m, y: y * m.p,
    "of the size of events": lambda m, y: y * (torch.zeros_like(y) + 1.5),
    "ones of the size of events": lambda m, y: y * (1.5 * torch.ones_like(y)),
    "a new one": lambda m, y: y * torch.full((1,), 1.5),
    "filled": filled,
    "written": written,
    "scaled in place": scaled_in_place,
    "put out": put_out,
    "through a view": through_a_view,
    "through a base": through_a_base,
    "detached": detached,
    "a buffer that is written": a_buffer_that_is_written,
    "a buffer that grows": a_buffer_that_grows,
    "a buffer that has grown": a_buffer_that_has_grown,
    "in a layer": lambda m, y: F.linear(y, m.w.view(1, 1) * 3),
    "twice": lambda m, y: y * m.w * 3,
    "added": lambda m, y: y + 0.5 * y,
    "a module's": lambda m, y: m.soft(y),
    "a constant beside": lambda m, y: y + m.w,
    "cast": lambda m, y: y * m.w.half().float() * 3,
    "a whole number": lambda m, y: y * m.three * 0.5,
    "a product of constants": lambda m, y: y * (m.p * m.two[1] / 2),
}


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_is_what_the_forward_makes_of_what_the_model_holds(name):
    def make():
        net = Net(
            FACTORS[name],
            w=torch.tensor([0.5]),
            two=torch.tensor([0.5, 2.0]),
            three=torch.tensor([3]),
            p=nn.Parameter(torch.tensor([1.5])),
            soft=nn.Linear(1, 1, bias=False),
        )
        nn.init.constant_(net.soft.weight, 1.5)
        return net

    x = torch.ones(1, STEPS, 1)
    counter = fxsynops.SynOpsCounter(make(), x, layout="NT")
    counter(x)
    row = fxsynops.analyze(make(), x, layout="NT").upper_bound().rows[-1]
    assert counter.counts.rows[-1].synops == row.charge == 1.5 * STEPS


def test_a_bound_reads_buffers_as_they_are_when_it_is_asked_for():
    net = Net(lambda m, y: y * (m.w * 3), w=torch.tensor([0.5]))
    analysis = fxsynops.analyze(net, torch.ones(1, STEPS, 1), layout="NT")
    for value in (0.5, 1.0, -1.0, 0.25):
        net.w.fill_(value)
        expected = math.floor(max(3 * value, 0) * STEPS)
        assert analysis.upper_bound().rows[-1].charge == expected


@pytest.mark.parametrize(
    ("draw", "most"),
    [
        (lambda m, y: y * torch.rand(1), 1),
        (lambda m, y: y * torch.rand_like(m.w), 1),
        (lambda m, y: y * (torch.rand(1) > 0.5).float(), 1),
        (lambda m, y: y * torch.bernoulli(m.w), 1),
        (lambda m, y: y * (2 * torch.rand(1)), 2),
        (lambda m, y: y * torch.rand(1).expand(1), 1),
        (lambda m, y: y * torch.randn(1), math.inf),
        (lambda m, y: y * torch.randn(1).abs(), math.inf),
    ],
)
def test_random_factors_are_at_most_what_can_be_drawn(draw, most):
    torch.manual_seed(0)
    for _ in range(2):
        _, row = bounded(Net(draw, w=torch.full((1,), 0.5)), torch.ones(1, STEPS, 1))
        assert row.charge >= most * STEPS
        assert most < math.inf or row.charge == math.inf


@pytest.mark.parametrize("curve", [torch.sigmoid, torch.exp])
def test_what_is_no_sum_of_events_is_at_its_worst_at_every_step_and_the_rest_in_all(curve):
    """Two events in all bring two; beside them, what the curve gives for two, at each step."""
    net = Net(lambda m, y: y + curve(y))
    analysis = fxsynops.analyze(net, torch.ones(1, STEPS, 1), layout="NT")
    row = analysis.upper_bound(input_max_events=2).rows[-1]
    assert row.charge == math.floor(
        2 + STEPS * float(curve(torch.tensor(2.0, dtype=torch.float64)))
    )


# -- dtypes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("between", "charge"),
    [
        (lambda m, y: y.to(torch.int64).to(y.dtype), 1),
        (lambda m, y: (y * 1.75).int().float(), 1),
        (lambda m, y: (y * 100).to(torch.int8).float(), 100),
        (lambda m, y: (y > 0.5).float(), 1),
        (lambda m, y: y.bool().float(), 1),
        (lambda m, y: y.double().float(), 1),
        (lambda m, y: torch.floor(y * 2.5), 2),
        (lambda m, y: torch.round(y * 1.75), 2),
        (lambda m, y: torch.ceil(y * 1.25), 2),
    ],
)
def test_values_on_their_way_through_other_dtypes(between, charge):
    synops, row = bounded(Net(between), torch.ones(1, STEPS, 1))
    assert synops == charge * STEPS
    assert row.charge >= charge * STEPS


UNIT = 2.0**-24


def relus(m: Net, y: Tensor) -> Tensor:
    for _ in range(64):
        y = F.relu(y)
    return y


def test_nothing_is_rounded_where_nothing_is_added():
    """One step's charge is short of a spike by more than the neuron's own rounding."""
    net = Net(relus)
    nn.init.constant_(net.fc.weight, 1 - 64 * UNIT)
    synops, row = bounded(net, torch.ones(1, 1, 1))
    assert synops == row.charge == 0


@pytest.mark.parametrize("terms", [16, 64, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_sum_of_many_terms_is_rounded_once_for_each_of_them(terms, dtype):
    """By Higham's bound, which is K·u, and no more than a few times that."""
    unit = torch.finfo(dtype).eps / 2

    def charge(short: float) -> float:
        model = nn.Sequential(nn.Linear(terms, 1, bias=False), fnn.IAF(1.0), nn.Linear(1, 1))
        model = model.to(dtype)
        model[1].spike_threshold = 1 + short  # what is short of a spike
        nn.init.constant_(model[0].weight, 1 / terms)
        x = torch.ones(1, 1, terms, dtype=dtype)
        return fxsynops.analyze(model, x, layout="NT").upper_bound().rows[-1].charge

    assert charge(-0.25) >= 1
    assert charge(terms * unit) >= 1
    if 2.5 * (terms + 20) * unit < 0.9:
        assert charge(2.5 * (terms + 20) * unit) == 0


@pytest.mark.parametrize(("factor", "wraps"), [(50.0, False), (127.0, False), (200.0, True)])
def test_whole_numbers_that_may_wrap_are_unknown(factor, wraps):
    """A sum of whole numbers beyond what their type holds can be anything."""
    net = Net(lambda m, y: ((y * factor).to(torch.int16).to(torch.int8) - 0).float())
    analysis = fxsynops.analyze(net, torch.ones(1, STEPS, 1), layout="NT")
    row = analysis.upper_bound().rows[-1]
    assert (row.charge == math.inf) == wraps or row.charge >= factor * STEPS


def test_whole_numbers_that_wrap_around_bring_charge_of_the_other_sign():
    """-200 is 56 in eight bits."""
    net = Net(lambda m, y: ((y * -200.0).to(torch.int16).to(torch.int8) - 0).float())
    assert bounded(net, torch.ones(1, STEPS, 1))[0] == 56 * STEPS


# -- what forwards leave to the next ---------------------------------------------------------------


class Passes(nn.Module):
    """Forwards of one step; something is read and changed at each."""

    def __init__(self, step: Any, **kept: Any) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(1, 1, bias=False), nn.Linear(1, 1)
        self.node, self.step = sj.IFNode(v_reset=None), step
        nn.init.constant_(self.fc.weight, 0.125)
        for name, value in kept.items():
            if type(value) is Tensor:
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x):
        return self.out(self.node(self.step(self, self.fc(x))))


def adds_a_number(m, y):
    m.kept = m.kept + 0.5
    return y * m.kept


def adds_a_tensor(m, y):
    m.kept = m.kept + 0.5
    return y * m.kept


def adds_in_place(m, y):
    m.kept += 0.5
    return y * m.kept


def writes_in_place(m, y):
    m.kept.add_(0.5)
    return y * m.kept


def counts_only(m, y):
    m.kept = m.kept + 1
    return y


def keeps_its_last(m, y):
    last, m.kept = m.kept, y
    return y if last is None else y + 2 * last


def in_a_list(m, y):
    m.kept[0] = m.kept[0] + 0.5
    return y * m.kept[0]


def in_a_dict(m, y):
    m.kept["gain"] = m.kept["gain"] + 0.5
    return y * m.kept["gain"]


def of_data(m, y):
    m.kept = 0.5 * m.kept + y
    return m.kept


def through_data(m, y):
    m.fc.weight.data.mul_(1.5)
    return y


def detaches(m, y):
    m.kept.detach_()
    return y * m.kept


def leaves(m, y):
    return y * m.kept


@pytest.mark.parametrize(
    ("step", "kept", "known"),
    [
        (leaves, 2.0, True),
        (leaves, torch.tensor([2.0]), True),
        (detaches, torch.tensor([2.0]), True),
        (of_data, torch.zeros(1, 1), True),
        (adds_a_number, 0.0, False),
        (keeps_its_last, None, False),
        (in_a_list, [0.0], False),
        (in_a_dict, {"gain": 0.0}, False),
        (through_data, 0.0, False),
        (adds_a_tensor, torch.zeros(1), True),
        (adds_in_place, torch.zeros(1), True),
        (writes_in_place, torch.zeros(1), True),
        (counts_only, torch.zeros(1), True),
    ],
)
def test_a_window_of_forwards_knows_their_states_or_is_refused(step, kept, known):
    """What one forward cannot show of the next is refused; a window of one forward never is."""

    def make():
        value = kept.clone() if isinstance(kept, Tensor) else kept
        value = type(kept)(kept) if isinstance(kept, (list, dict)) else value
        return Passes(step, kept=value)

    x = torch.ones(1, 1)
    analysis = fxsynops.analyze(make(), x)
    assert analysis.upper_bound(1).total >= 1
    if not known:
        with pytest.raises(InputError, match="from forward to forward"):
            analysis.upper_bound(STEPS)
        return
    bound = analysis.upper_bound(STEPS)
    counter = fxsynops.SynOpsCounter(make(), x)
    for _ in range(STEPS):
        counter(x)
    for row, counted in zip(bound.rows, counter.counts.rows, strict=True):
        assert counted.synops <= row.charge <= row.structural


def test_a_limit_that_grows_from_forward_to_forward_limits_nothing():
    class Limited(nn.Module):
        def __init__(self):
            super().__init__()
            self.node, self.out = fnn.NeuromorphicReLU(), nn.Linear(1, 1)
            self.register_buffer("most", torch.zeros(()))

        def forward(self, x):
            self.most = self.most + 1
            return self.out(torch.minimum(self.node(x), self.most).clamp(max=self.most))

    x = torch.full((1, 1), 9.0)
    analysis = fxsynops.analyze(Limited(), x)
    one = analysis.upper_bound(1, max_spikes=9, input_max_events=99).rows[-1]
    assert one.structural >= 1
    bound = analysis.upper_bound(STEPS, max_spikes=9, input_max_events=99)
    counter = fxsynops.SynOpsCounter(Limited(), x)
    for _ in range(STEPS):
        counter(x)
    assert counter.counts.rows[-1].synops == sum(range(1, STEPS + 1))
    assert counter.counts.rows[-1].synops <= bound.rows[-1].charge <= bound.rows[-1].structural


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 20])
def test_forwards_of_one_step_pay_with_the_charge_of_all_of_them(steps):
    bound = fxsynops.analyze(Passes(leaves, kept=2.0), torch.ones(1, 1)).upper_bound(steps)
    assert [row.charge for row in bound.rows] == [steps, steps // 4]
    assert [row.structural for row in bound.rows] == [steps, steps]


# -- why a row has no bound ------------------------------------------------------------------------


def test_an_unbounded_row_names_the_first_thing_that_is_not_bounded():
    def reasons(*layers, **options):
        analysis = fxsynops.analyze(
            nn.Sequential(*layers), torch.ones(1, STEPS, 2), layout="NT", **options
        )
        return [row.reasons for row in analysis.upper_bound().rows]

    first, second = reasons(nn.Linear(2, 3), nn.LayerNorm(3), fnn.IAF(), nn.Linear(3, 2))
    assert first == ()
    assert "nothing bounds what 'layer_norm' puts out" in second[0]
    chain = [nn.Linear(2, 3), nn.LayerNorm(3), fnn.IAF(), nn.Linear(3, 2), fnn.IAF()]
    third = reasons(*chain, nn.Linear(2, 2))[-1]
    assert third == ("'4': '2', which drives it, is unbounded",)
    capped = [nn.Linear(2, 3), nn.LayerNorm(3), fnn.IAF(max_spikes_per_step=1), nn.Linear(3, 2)]
    assert reasons(*capped)[-1] == ()
    (analog,) = reasons(nn.Linear(2, 3), fnn.IAF(), nn.Linear(3, 2), input_events=False)
    assert analog == ("'1': its analog input can be anything (input_range= says what it can be)",)


def test_a_source_without_a_cap_or_a_charge_is_named():
    class Bursts(nn.Module):
        def forward(self, x):
            return torch.floor(F.relu(x))

    fxsynops.register_spiking(Bursts)
    for gates, reason in (
        ([], "'1': no charge argument is known for it"),
        ([nn.ReLU()], "nothing says how many events '1' can emit per step, or what '2' makes"),
    ):
        model = nn.Sequential(nn.Linear(2, 3), Bursts(), *gates, nn.Linear(3, 2))
        analysis = fxsynops.analyze(model, torch.ones(1, 2))
        row = analysis.upper_bound().rows[-1]
        assert row.structural == math.inf
        assert len(row.reasons) == 1
        assert reason in row.reasons[0]
        said = analysis.upper_bound(4, max_spikes=2).rows[-1]
        assert said.structural == said.charge == 4 * 2 * 3 * 2
