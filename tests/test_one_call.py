"""``fxsynops.count`` makes the counter, runs the data, and says what it costs."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import InputError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), fnn.IAF(), nn.Dropout(), nn.Linear(6, 3))


def spikes(samples):
    torch.manual_seed(1)
    return torch.randint(0, 3, (samples, 5, 4)).float()


def by_hand(model, x):
    model[1].reset_states()
    with torch.no_grad():
        fired = model[1](model[0](x))
    return float(x.sum() * 6 + fired.sum() * 3)


@pytest.mark.parametrize(
    "data",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=3),
        lambda x: [x[:3], x[3:]],
        lambda x: (part for part in (x[:3], x[3:])),
        lambda x: [(x[:3], torch.zeros(3)), (x[3:], torch.zeros(4))],
    ],
    ids=["tensor", "tuple", "loader", "list", "generator", "labels"],
)
def test_data_may_be_a_tensor_a_tuple_or_a_loader(data):
    model, x = network(), spikes(7)
    counts = fxsynops.count(model, data(x), layout="NT")
    assert counts.total == by_hand(model, x)
    assert (counts.samples, counts.timesteps) == (7, 5)
    assert len(counts.rows) == 2  # no row of the dropout, which does nothing
    assert all(module.training for module in model.modules())


class Any(nn.Linear):
    def forward(self, *xs):
        return super().forward(xs[0])


class More(nn.Linear):
    def forward(self, x, *others, **options):
        return sum(others, super().forward(x))


class Optional(nn.Linear):
    def forward(self, x, mask=None):
        return super().forward(x if mask is None else x * mask)


class Named(nn.Linear):
    def forward(self, x, *, mask=None):
        return super().forward(x if mask is None else x * mask)


@pytest.mark.parametrize("kind", [Any, More, Optional, Named])
def test_labels_are_given_to_no_argument_that_a_forward_can_do_without(kind):
    x = torch.ones(2, 4)
    assert fxsynops.count(kind(4, 3), [(x, torch.zeros(2, 1))]).total == 2 * 4 * 3


def test_inputs_are_taken_out_of_batches():
    model, x = network(), spikes(4)
    data = [{"events": x[:2], "label": 0}, {"events": x[2:], "label": 1}]
    counts = fxsynops.count(model, data, inputs=lambda b: b["events"], layout="NT", steps=True)
    assert counts.total == by_hand(model, x)
    assert sum(counts.steps.total.mean) == pytest.approx(counts.total / 4)


def test_several_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(3, 2)

        def forward(self, x, y, scale=1.0):
            return self.a(x) + scale * self.b(y)

    x, y = torch.ones(2, 4), torch.ones(2, 3)
    for data in ((x, y), [(x, y)], [(x, y, torch.zeros(2))]):  # of the last, labels
        assert fxsynops.count(Two(), data).total == 2 * (4 + 3) * 2


@pytest.mark.parametrize("data", [3, [], [{"x": torch.ones(1, 4)}], iter(())])
def test_data_that_is_none_is_an_error(data):
    with pytest.raises(InputError):
        fxsynops.count(nn.Linear(4, 3), data)


def test_every_option_is_in_every_signature():
    options = set(inspect.signature(fxsynops.analyze).parameters) - {"model", "example"}
    for function in (fxsynops.SynOpsCounter, fxsynops.count):
        parameters = inspect.signature(function).parameters
        assert options <= set(parameters)
        assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in options:
            assert (
                parameters[name].default
                == inspect.signature(fxsynops.analyze).parameters[name].default
            )
            assert name in inspect.getdoc(function)
