"""In-place writes through views: only what is written to has another value."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fxsynops


class Changed(nn.Module):
    """What a function makes of a copy of the input, read out."""

    def __init__(self, change):
        super().__init__()
        self.fc, self.change = nn.Linear(4, 3), change

    def arriving(self, x):
        copy = x.clone()
        result = self.change(copy)
        return copy if result is None else result

    def forward(self, x):
        return self.fc(self.arriving(x))


def add(o):
    o[:, 1] += o[:, 2]


def multiply(o):
    o[:, 1] *= o[:, 0]


def copy(o):
    o[:, 0].copy_(o[:, 2])


def chain(o):
    for t in range(1, 4):
        o[:, t] += o[:, t - 1]


def into(o):
    torch.maximum(o[:, 3], o[:, 0], out=o[:, 3])


def index_add(o):
    o[:, :2].index_add_(1, torch.tensor([0, 1]), o[:, 2:])


def scatter(o):
    o[:, :2].scatter_(1, torch.tensor([[0], [1]]), o[:, 2:3])


def halves(o):
    a, b = o.chunk(2, 1)
    a.add_(b)


def logical(o):
    bits = o.bool()
    bits[:, 0].logical_xor_(bits[:, 1])
    return bits.float()


def lerp(o):
    o[:, 0].lerp_(o[:, 1], 1.0)


@pytest.mark.parametrize(
    "change", [add, multiply, copy, chain, into, index_add, scatter, halves, logical, lerp]
)
def test_an_operand_that_is_a_view_of_the_same_memory_is_only_read(change):
    model = Changed(change)
    inputs = [torch.tensor([[1.0, 1, 1, 0], [0, 1, 1, 1]]), torch.tensor([[0.0, 1, 0, 1]] * 2)]
    counter = fxsynops.SynOpsCounter(model, inputs[0])
    for x in inputs:
        counter(x)
        arrived = float(model.arriving(x).sum())
        assert float(counter.synops.detach()) == arrived * 3 > 0
    assert counter.analysis.upper_bound().total >= arrived * 3 / 2


def assigned(state, current):
    state[0] = current
    state[1] = (state[0] > 0.5).float()
    return state[1]


def copied(state, current):
    state[0].copy_(current)
    state[1].copy_((state[0] > 0.5).float())
    return state[1]


def integrated(state, current):
    state[0].mul_(0.5).add_(current)
    spikes = (state[0] > 0.5).float()
    state[1].copy_(spikes)
    return state[1]


@pytest.mark.parametrize("write", [assigned, copied, integrated])
def test_spikes_beside_a_membrane_in_one_tensor_are_events(write):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.b(write(torch.zeros(2, len(x), 4), self.a(x)))

    torch.manual_seed(0)
    model, x = Net(), torch.rand(8, 4) * 3
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x)
    spikes = float((model.a(x) > 0.5).sum())
    assert {k: float(n.detach()) for k, n in counter.per_synapse.items()} == {"b": spikes * 3}
    assert spikes > 0
