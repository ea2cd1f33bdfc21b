"""Estimates at firing rates, held against draws at those rates; what bounds assume, and say."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
from tests.test_trust import Between


class Attends(nn.Module):
    def forward(self, q, k):
        return q @ k.mT


class And(nn.Module):
    def __init__(self, meet):
        super().__init__()
        self.meet, self.head = meet, nn.Linear(50, 10)

    def forward(self, a, b):
        return self.head(self.meet(a, b))


def drawn(model, inputs, rates, options, draws=60):
    """The mean SynOps per sample of independent events at some rates."""
    counter = fxsynops.SynOpsCounter(model, inputs, **options)
    torch.manual_seed(0)
    for _ in range(draws):
        drawn = (torch.rand(x.shape).lt(r).float() for x, r in zip(inputs, rates, strict=True))
        counter(*drawn)
    return counter.counts.total / counter.counts.samples


X = torch.ones(4, 50)
IMAGE = torch.ones(4, 2, 8, 8)
CASES = {
    "product": (Attends(), (torch.ones(4, 16, 32),) * 2, 16 * 16 * 32 / 16, {}),
    "and": (And(lambda a, b: a * b), (X, X), 500 / 16, {}),
    "and not": (And(lambda a, b: a * (1 - b)), (X, X), 500 * 3 / 16, {}),
    "sum": (And(lambda a, b: a + b), (X, X), 500 / 2, {}),
    "sum, each one": (And(lambda a, b: a + b), (X, X), 500 * 7 / 16, {"events": "nonzero"}),
    "or": (And(torch.maximum), (X, X), 500 * 7 / 16, {}),
    "minimum": (And(torch.minimum), (X, X), 500 / 16, {}),
    "max pool": (
        Between(lambda x: F.max_pool2d(x, 2).flatten(1), 32),
        (IMAGE,),
        3 * 32 * (1 - 0.75**4),
        {},
    ),
    "average pool": (Between(lambda x: F.avg_pool2d(x, 2).flatten(1), 32), (IMAGE,), 3 * 32, {}),
    "average pool, each one": (
        Between(lambda x: F.avg_pool2d(x, 2).flatten(1), 32),
        (IMAGE,),
        3 * 32 * (1 - 0.75**4),
        {"events": "nonzero"},
    ),
    "cat": (Between(lambda x: torch.cat([x, x], 1), 100), (X,), 300 / 4, {}),
    "amax": (
        Between(lambda x: x.amax((2, 3)), 2),
        (torch.ones(4, 2, 2, 2),),
        3 * 2 * (1 - 0.75**4),
        {},
    ),
    "amin": (Between(lambda x: x.amin(2), 20), (torch.ones(4, 20, 2),), 3 * 20 * 0.25**2, {}),
    "slice": (Between(lambda x: x[:, 10:], 40), (X,), 3 * 40 / 4, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_estimates_follow_rates_through_products_gates_and_sums(name):
    model, inputs, expected, options = CASES[name]
    analysis = fxsynops.analyze(model, inputs, **options)
    found = analysis.upper_bound(rate=0.25).total
    assert math.isclose(found, expected, rel_tol=1e-9)
    assert math.isclose(found, drawn(model, inputs, [0.25] * len(inputs), options), rel_tol=0.1)


def test_an_estimate_at_rate_one_is_the_structural_bound():
    for name in ("product", "and", "max pool", "cat", "slice", "minimum"):
        model, inputs, _, options = CASES[name]
        analysis = fxsynops.analyze(model, inputs, **options)
        assert analysis.upper_bound(rate=1.0).total == analysis.upper_bound().structural


def test_rates_by_the_names_of_sources_and_of_gates():
    analysis = fxsynops.analyze(CASES["and"][0], (X, X))
    assert analysis.upper_bound(rate={"a": 0.5, "b": 0.1}).total == pytest.approx(500 * 0.05)
    (connection,) = analysis.connections
    assert analysis.upper_bound(rate={connection.measured_at: 0.3}).total == pytest.approx(150)
    with pytest.raises(fxsynops.InputError, match=r"nothing of \['b'\]"):
        analysis.upper_bound(rate={"a": 0.5})
    with pytest.raises(fxsynops.InputError, match="which are no sources or gates"):
        analysis.upper_bound(rate={"c": 0.5})


# -- what a bound assumes --------------------------------------------------------------------------


def inhibited():
    net = nn.Sequential(nn.Linear(6, 4, bias=False), fxsynops.nn.IAF(), nn.Linear(4, 2))
    nn.init.constant_(net[0].weight, -1.0)
    return net


def test_the_sign_of_input_events_is_an_assumption_that_is_printed():
    analysis = fxsynops.analyze(inhibited(), torch.zeros(1, 3, 6), layout="NT")
    assert "no negative events in inputs, as in the example" in str(analysis.upper_bound())
    signed = torch.zeros(1, 3, 6)
    signed[0, 0, 0] = -1
    analysis = fxsynops.analyze(inhibited(), signed, layout="NT")
    bound = analysis.upper_bound()
    assert "negative events in inputs" in bound.assumptions[-1]
    counter = analysis.counter()
    counter(-torch.ones(1, 3, 6))
    assert 0 < counter.counts.total <= bound.total


def test_a_method_that_is_patched_in_the_class_voids_what_its_library_promises(monkeypatch):
    from spikingjelly.activation_based import neuron

    model = nn.Sequential(nn.Linear(6, 4), neuron.IFNode(), nn.Linear(4, 2))
    x = torch.ones(2, 6)
    assert fxsynops.analyze(model, x).upper_bound().structural < math.inf

    def thrice(self, x):
        return 3.0 * (x > 0)

    monkeypatch.setattr(neuron.IFNode, "single_step_forward", thrice)
    bound = fxsynops.analyze(model, x).upper_bound()
    assert bound.rows[-1].structural == math.inf
    assert bound.rows[-1].reasons


def test_a_subclass_with_its_own_spikes_is_looked_at():
    from spikingjelly.activation_based import neuron

    class Ternary(neuron.IFNode):
        def single_step_forward(self, x):
            return (x > 0.1).float() - (x < -0.1).float()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), Ternary(), nn.Linear(40, 2))
    x = torch.ones(2, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    spikes = model[:2](x).detach()
    assert float(spikes.min()) < 0 < float(spikes.max())
    assert counter.per_source["1"].item() == 2 * spikes.abs().sum().item()
    assert counter.analysis.upper_bound().rows[-1].structural == math.inf


def test_every_infinite_row_has_a_reason():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    for options in ({"spiking": nn.ReLU, "events": "value"}, {"spiking": nn.ReLU}):
        bound = fxsynops.analyze(model, torch.ones(2, 6), **options).upper_bound()
        infinite = [row for row in bound.rows if math.isinf(row.structural)]
        assert infinite
        assert all(row.reasons for row in infinite)
        assert "max_spikes=" in str(bound)


def test_a_threshold_alone_bounds_nothing_and_says_so():
    class Fires(nn.Module):
        def forward(self, x):
            return (x > 0).float()

    fxsynops.register_spiking(Fires, threshold=2.0)
    model = nn.Sequential(nn.Linear(6, 4), Fires(), nn.Linear(4, 2))
    bound = fxsynops.analyze(model, torch.ones(2, 6)).upper_bound()
    assert "its threshold of 2 says when it fires, but not what it integrates" in str(bound)


def test_graded_spikes_that_come_back_end_the_charge_argument():
    import snntorch

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.n = snntorch.RLeaky(1.0, V=0.3, all_to_all=False, init_hidden=True)
            self.n.graded_spikes_factor = torch.tensor(3.0)
            self.out = nn.Linear(1, 1)

        def forward(self, x):
            return torch.stack([self.out(self.n(x[:, t])) for t in range(8)], 1)

    x = torch.full((1, 8, 1), 0.29)
    counter = fxsynops.SynOpsCounter(Net(), x, layout="NT", input_events=False)
    bound = counter.analysis.upper_bound(input_range=(0.0, 0.29))
    counter(x)
    assert counter.counts.total == 10 <= bound.total
    assert any("graded" in reason for row in bound.rows for reason in row.reasons)


def test_a_neuron_of_several_levels_has_the_cap_of_its_surrogate():
    from spikingjelly.activation_based import neuron, surrogate

    if not hasattr(surrogate, "MultiLevelSpikeCount"):
        pytest.skip("this spikingjelly has no neurons of several levels")
    levels = surrogate.MultiLevelSpikeCount(3)
    node = neuron.ILIFNode(2.0, surrogate_function=levels, step_mode="m")
    model, x = nn.Sequential(node, nn.Linear(1, 1)), torch.zeros(8, 1, 1)
    analysis = fxsynops.analyze(model, x, layout="TN", input_events=False)
    row = analysis.upper_bound(input_range=(0.0, 100.0)).rows[-1]
    assert (row.max_events, row.structural) == (3, 24)
    counter = analysis.counter()
    counter(torch.full((8, 1, 1), 100.0))
    assert counter.counts.total == 24
