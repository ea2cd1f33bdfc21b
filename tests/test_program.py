"""The recorded graph as code: arguments of all kinds, lifetimes, errors, many nodes."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

import fxsynops
from fxsynops.written import Objects


def assert_counts_like_the_model(model: nn.Module, x: torch.Tensor, **options) -> None:
    counter = fxsynops.SynOpsCounter(model, x, **options)
    for _ in range(2):
        torch.manual_seed(1)
        theirs = model(x)
        torch.manual_seed(1)
        assert torch.equal(counter(x), theirs)
    assert counter.counts.total > 0


class Arguments(nn.Module):
    """Calls with lists, tuples, slices and dicts that hold tensors, and keywords."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        h = self.fc(x)
        last = (h > -torch.inf).sum() // h.shape[0]  # a tensor that is five
        h = h[:, slice(0, last, None)]
        h = torch.cat([h, torch.stack((h, h), dim=0).sum(0)], dim=1)
        h = torch.where(condition=h > 0, input=h, other=torch.full((), -1.5))
        h = h.index_put((torch.tensor([0]), torch.tensor([1])), torch.tensor(float("inf")))
        return h + torch.zeros(4, 10).random_(**{"from": 2, "to": 10})


def test_arguments_of_all_kinds_are_passed_on():
    assert_counts_like_the_model(Arguments(), torch.ones(4, 6))


def test_values_are_dropped_after_their_last_use():
    seen: list[weakref.ref] = []

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model.requires_grad_(False)
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
    replay = next(iter(counter._replays.values()))[0]
    alive: list[int] = []
    called = replay.called

    def watching(node):
        function = called(node)

        def run(*args, **kwargs):
            alive.append(sum(ref() is not None for ref in seen))
            value = function(*args, **kwargs)
            seen.append(weakref.ref(value))
            return value

        return run

    replay.called = watching
    counter(torch.ones(2, 4))
    assert alive == [0, 1, 1]  # beside a layer's input, nothing is left


def test_an_error_names_the_node_and_the_users_line():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return torch.linalg.cholesky(self.fc(x)[:3, :3])  # fails for most values

    model = Fails()
    nn.init.eye_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    counter = fxsynops.SynOpsCounter(model, torch.eye(4))
    with pytest.raises(RuntimeError) as caught:
        counter(-torch.eye(4))
    (note,) = caught.value.__notes__
    assert "cholesky" in note
    assert "test_program.py:" in note


def test_a_replay_is_freed_without_the_garbage_collector():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), torch.ones(2, 4))
    counter(torch.ones(2, 4))
    replay = weakref.ref(next(iter(counter._replays.values()))[0])
    gc.collect()
    gc.disable()
    try:
        del counter
        assert replay() is None
    finally:
        gc.enable()


def test_a_subclass_sees_every_tapped_value():
    from fxsynops.replay import Replay

    class Watching(Replay):
        def measure(self, stop, value, unit):
            seen.append((str(stop.node), tuple(value.shape), unit))
            super().measure(stop, value, unit)

    seen: list[tuple[str, tuple[int, ...], float]] = []
    model = nn.Sequential(nn.Linear(4, 3), fxsynops.nn.NeuromorphicReLU(), nn.Linear(3, 2))
    analysis = fxsynops.analyze(model, torch.ones(2, 4))
    _, tally = Watching(analysis).count((torch.ones(2, 4),))
    assert seen == [("input_1", (2, 4), 1.0), ("n_1", (2, 3), 1.0)]
    assert tally.synops[0] == 2 * 4 * 3


def test_weights_that_became_zero_before_the_first_forward_do_not_count():
    model = nn.Linear(4, 3)
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4), weights="nonzero")
    with torch.no_grad():
        model.weight[0] = 0
    counter(torch.ones(2, 4))
    assert counter.counts.total == 2 * 4 * 2


@pytest.mark.parametrize("which", [0, 1])
def test_the_kind_of_every_tensor_is_a_condition(which):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
    counter(torch.ones(2, 4))
    conditions = counter.latest.trace.conditions
    assert conditions.hold()
    model[which].weight.requires_grad_(False)
    assert not conditions.hold()
    model[which].weight.requires_grad_(True)
    assert conditions.hold()
    model[which].weight.data = model[which].weight.data.double()
    assert not conditions.hold()


@pytest.mark.parametrize("value", [True, None, 3, -(2**70), 0.1, -0.0, float("nan"), "a'\n", (1,)])
def test_an_expression_for_an_object(value):
    objects = Objects()
    objects.run(f"found = {objects.value(value)}, {objects.name(value)}")
    found, same = objects.named["found"]
    assert type(found) is type(value)
    assert repr(found) == repr(value)
    assert same is value
