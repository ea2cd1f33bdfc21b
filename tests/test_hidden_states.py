"""Python's own states that a forward advances: no replay would, so each is refused."""

from __future__ import annotations

import array
import contextvars
import functools
import itertools
import os
import random
import threading
import types
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import fxsynops

X = torch.ones(1, 2)
COUNT = itertools.count(1)
RANDOM = random.Random(0)
GENERATORS = [np.random.default_rng(0)]
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("steps", default=0)


class Loop(nn.Module):
    """Reads out its input as often as a function says."""

    def __init__(self, times, state=None):
        super().__init__()
        self.fc, self.times, self.state = nn.Linear(2, 3), times, state

    def forward(self, x):
        return sum(self.fc(x) for _ in range(self.times(self)))


class Up:
    n = 0

    def up(self):
        self.n += 1
        return self.n


def function_attribute(model):
    function_attribute.n = getattr(function_attribute, "n", 0) + 1
    return function_attribute.n


def class_attribute(model):
    type(model).seen = getattr(type(model), "seen", 0) + 1
    return type(model).seen


def variable(model):
    VARIABLE.set(VARIABLE.get() + 1)
    return VARIABLE.get()


def environment(model):
    os.environ["STEPS"] = str(int(os.environ.get("STEPS", 0)) + 1)
    return int(os.environ["STEPS"])


def first_byte(model):
    model.state[0] += 1
    return model.state[0]


def rotated(model):
    model.state.rotate(1)
    return model.state[0]


def generated():
    yield from range(1, 9)


class Counting:
    """An iterator of the user's own."""

    __slots__ = ("n",)

    def __init__(self):
        self.n = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.n += 1
        return self.n


def spent():
    """A cycle that goes through what it has kept: from Python 3.14 on, it does not say where."""
    cycle = itertools.cycle([1, 3])
    return [next(cycle) for _ in range(3)] and cycle


def of_an_iterator():
    for _ in iter([5, 5, 5]):
        yield 2


ITERATORS = {
    "itertools.cycle, spent": spent,
    "of a generator": lambda: (n for n in map(abs, [1, 2, 3])),
    "of a generator's loop": of_an_iterator,
    "map": lambda: map(abs, [1, 2, 3]),
    "zip": lambda: map(sum, zip([1, 2, 3], strict=True)),
    "filter": lambda: filter(None, [1, 2, 3]),
    "enumerate": lambda: map(max, enumerate([1, 2, 3])),
    "reversed": lambda: reversed([3, 2, 1]),
    "dict": lambda: iter({1: 1, 2: 2}),
    "set": lambda: iter({1, 2}),
    "until": lambda: iter(Counting().__next__, 99),
    "memory": lambda: iter(memoryview(b"\1\2")),
    "chain": lambda: itertools.chain([1, 2]),
    "islice": lambda: itertools.islice([1, 2, 3], 3),
    "accumulate": lambda: itertools.accumulate([1, 2]),
    "tee": lambda: itertools.tee([1, 2])[0],
    "starmap": lambda: itertools.starmap(pow, [(1, 1), (2, 1)]),
    "takewhile": lambda: itertools.takewhile(bool, [1, 2]),
    "pairwise": lambda: map(sum, itertools.pairwise([1, 2, 3])),
    "zip_longest": lambda: map(sum, itertools.zip_longest([1, 2])),
    "product": lambda: map(sum, itertools.product([1, 2])),
    "permutations": lambda: map(max, itertools.permutations([1, 2], 1)),
    "combinations": lambda: map(sum, itertools.combinations([1, 2], 1)),
    "repeat": lambda: itertools.repeat(2, 5),
}
STATES = {
    **{f"iterator: {name}": (lambda m: next(m.state), make) for name, make in ITERATORS.items()},
    "itertools.count": (lambda m: next(m.state), lambda: itertools.count(1)),
    "itertools.cycle": (lambda m: next(m.state), lambda: itertools.cycle([1, 3])),
    "iterator": (lambda m: next(m.state), lambda: iter([1, 2, 3])),
    "generator": (lambda m: next(m.state), generated),
    "global iterator": (lambda m: next(COUNT), lambda: None),
    "global random.Random": (lambda m: RANDOM.randint(1, 5), lambda: None),
    "global generator of NumPy": (lambda m: int(GENERATORS[0].integers(1, 6)), lambda: None),
    "function attribute": (function_attribute, lambda: None),
    "class attribute": (class_attribute, lambda: None),
    "context variable": (variable, lambda: None),
    "environment": (environment, lambda: None),
    "bytearray": (first_byte, lambda: bytearray(1)),
    "array": (first_byte, lambda: array.array("i", [0])),
    "deque": (rotated, lambda: deque([1, 2, 3])),
    "bound method": (lambda m: m.state(), lambda: Up().up),
    "partial": (lambda m: m.state(), lambda: functools.partial(Up.up, Up())),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_nobody_can_replay_is_refused(name):
    times, make = STATES[name]
    with pytest.raises(fxsynops.TraceError, match=r"changes|random"):
        fxsynops.analyze(Loop(times, make()), X)
    assert not hasattr(Loop, "seen")
    assert "STEPS" not in os.environ
    assert not hasattr(function_attribute, "n")
    assert VARIABLE.get() == 0


def test_an_iterator_of_the_users_own_is_an_object_whose_state_is_followed():
    model = Loop(lambda m: next(m.state), Counting())
    counter = fxsynops.SynOpsCounter(model, X)
    assert model.state.n == 0
    for n in (1, 2, 3):
        counter.clear()
        counter(X)
        assert (model.state.n, counter.counts.total) == (n, n * 6)


def test_a_state_that_can_be_put_back_is_put_back():
    states = {
        first_byte: (bytearray(1), bytearray(1)),
        rotated: (deque([1, 2, 3]), deque([1, 2, 3])),
        (lambda m: m.state.randint(1, 5)): (random.Random(0), None),
    }
    for times, (state, before) in states.items():
        with pytest.raises(fxsynops.TraceError):
            fxsynops.analyze(Loop(times, state), X)
        if before is None:
            assert state.getstate() == random.Random(0).getstate()
        else:
            assert state == before
    method = Up().up
    with pytest.raises(fxsynops.TraceError):
        fxsynops.analyze(Loop(lambda m: m.state(), method), X)
    assert method.__self__.n == 0


def test_a_new_attribute_of_a_class_is_gone_after_an_error():
    def fails(model):
        type(model).seen = 1
        raise ValueError

    with pytest.raises(fxsynops.TraceError, match="raised ValueError"):
        fxsynops.analyze(Loop(fails), X)
    assert not hasattr(Loop, "seen")


def test_tensors_in_a_deque_are_refused_in_words():
    class Delay(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.waiting = nn.Linear(2, 3), deque([torch.zeros(1, 2)] * 2, maxlen=2)

        def forward(self, x):
            self.waiting.append(x * 1)
            return self.fc(self.waiting[0])

    with pytest.raises(fxsynops.TraceError, match="changes 'waiting', a deque"):
        fxsynops.analyze(Delay(), X)


def test_a_namespace_is_followed():
    def counts(model):
        model.state.k += 1
        return model.state.k

    counter = fxsynops.SynOpsCounter(Loop(counts, types.SimpleNamespace(k=0)), X)
    totals = []
    for _ in range(4):
        counter(X)
        totals.append(float(counter.synops.detach()))
    assert totals == [6, 12, 18, 24]


@pytest.mark.parametrize("pool", [True, False])
def test_work_for_other_threads_is_refused(pool):
    class Threads(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 3)

        def forward(self, x):
            made = []
            if pool:
                with ThreadPoolExecutor(2) as executor:
                    made = list(executor.map(lambda row: row * 1, x))
            else:
                thread = threading.Thread(target=lambda: made.append(x[0] * 1))
                thread.start()
                thread.join()
            return self.fc(torch.stack(made))

    with pytest.raises(fxsynops.TraceError, match="other threads"):
        fxsynops.analyze(Threads(), X)


def test_a_sum_of_numbers_that_is_only_kept_is_no_branch():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.fired, self.share, self.a, self.b = 0, 0.0, nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            z = (self.a(x) > 0).float()
            self.fired += 2 * (z != 0).sum().item()
            self.share = 0.5 * self.share + z.mean().item() / 2
            return self.b(z)

    torch.manual_seed(0)
    model, twin = Keeps(), Keeps()
    twin.load_state_dict(model.state_dict())
    counter = fxsynops.SynOpsCounter(model, torch.randn(4, 6), input_events=False)
    for _ in range(3):
        x = torch.randn(4, 6)
        counter(x)
        twin(x)
        assert (model.fired, model.share) == (twin.fired, twin.share)
        assert float(counter.synops.detach()) == float((model.a(x) > 0).sum()) * 3


def test_an_inference_mode_in_a_forward():
    class Infers(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 3)

        @torch.inference_mode()
        def forward(self, x):
            return self.fc((x > 0).float())

    counter = fxsynops.SynOpsCounter(Infers(), X)
    y = counter(-X)
    assert float(counter.synops) == 0
    assert torch.equal(y, counter.model(-X))
