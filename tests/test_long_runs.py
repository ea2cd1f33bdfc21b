"""Models that count their forwards, or keep a log, run for days without being analyzed anew."""

from __future__ import annotations

import gc
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn

FORWARDS = 12
X = (torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()


class Settings:
    def __init__(self):
        self.calls = 0


class Net(nn.Module):
    """Does something with Python values around its layers."""

    def __init__(self, beside: Callable[[Any, Tensor], Any]):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.neuron, self.b = nn.Linear(6, 8), fnn.IAF(), nn.Linear(8, 3)
        self.c = nn.Linear(3, 2, bias=False)
        self.beside = beside
        self.calls, self.seconds, self.every, self.shift = 0, 0.5, 3, 0
        self.log: list[Any] = []
        self.rows: list[list[int]] = [[], []]
        self.stats: dict[str, Any] = {"forwards": 0, "sizes": []}
        self.settings = Settings()

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.neuron(self.a(x)))
        again = self.beside(self, y)
        return self.c((y > 0).float()) if again is True else y


def count(model, y):
    model.calls += 1


def count_backwards(model, y):
    model.calls = -(2 * model.calls + 1) % 1000


def count_in_a_dict(model, y):
    model.stats["forwards"] = model.stats.get("forwards", 0) + 1


def count_in_an_object(model, y):
    model.settings.calls += 1


def append(model, y):
    model.log.append(len(y))


def append_a_number_of_the_data(model, y):
    model.log.append(y.sum().item())


def append_a_tensor(model, y):
    model.log.append(y.detach().sum())


def add_to_a_list(model, y):
    model.log += [model.calls, "seen"]
    model.calls += 1


def append_below(model, y):
    model.rows[1].append(1)
    model.stats["sizes"].append(tuple(y.shape))


def mean_of_the_data(model, y):
    model.calls += 1
    model.seconds += (y.mean().item() - model.seconds) / model.calls


def clock(model, y):
    model.seconds = time.time()


def compare(model, y):
    model.calls += 1
    return model.calls < 0 or model.calls > 1000 or not model.calls


def set_before(model, y):
    model.calls = 0
    for _ in range(2):
        model.calls += 1


QUIET = [count, count_backwards, count_in_a_dict, count_in_an_object, append, append_a_tensor]
QUIET += [append_a_number_of_the_data, add_to_a_list, append_below, mean_of_the_data, clock]
QUIET += [compare, set_before]


def every_third(model, y):
    model.calls += 1
    return model.calls % model.every == 0


def from_the_fifth(model, y):
    model.calls += 1
    return not model.calls < 5


def by_another_number(model, y):
    model.shift = (model.calls * 7) // 3
    model.calls += 1
    return model.shift - model.calls > 4


def when_it_is_long(model, y):
    model.log.append(0)
    return len(model.log) in (4, 5)


def when_it_is_full(model, y):
    model.log.append(0)
    if len(model.log) == 3:
        model.log.clear()
        return True
    return False


def by_its_text(model, y):
    model.calls += 1
    return {"2": True, "5": True}.get(f"{model.calls}", False)


def by_an_entry(model, y):
    model.stats["forwards"] += 1
    return model.stats["forwards"] >= 4


def by_an_object(model, y):
    model.settings.calls += 1
    return model.settings.calls == 6


def started_anew(model, y):
    started = model.calls
    model.calls = 0
    model.calls += started + 1
    return model.calls == 7


def set_to_what_it_was(model, y):
    again = model.calls == 2
    model.calls = 0 if again else model.calls + 1
    model.log.append(model.calls)
    return again


def by_a_step(model, y):
    for _ in range(2):
        model.calls += 1
        if model.calls == 5:
            return True
    return False


BRANCHES = [every_third, from_the_fifth, by_another_number, when_it_is_long, when_it_is_full]
BRANCHES += [by_its_text, by_an_entry, by_an_object, started_anew, set_to_what_it_was, by_a_step]


def state(model: Net) -> Any:
    """What Python values it holds."""
    values = [model.calls, model.shift, model.log, model.rows, model.stats, vars(model.settings)]
    return repr([*values, model.seconds if model.beside is not clock else 0])


class Seen:
    """What the synapses of a model get in a forward, by hooks."""

    def __init__(self, model: Net):
        self.synops = 0
        for layer in (model.a, model.b, model.c):
            layer.register_forward_pre_hook(self.see)

    def see(self, layer: nn.Linear, inputs: tuple[Tensor]) -> None:
        self.synops += int(inputs[0].sum()) * layer.out_features


@pytest.mark.parametrize("beside", QUIET + BRANCHES, ids=lambda function: function.__name__)
def test_each_forward_counts_and_leaves_what_it_would_without_a_counter(beside):
    counted, plain = Net(beside), Net(beside)
    seen = Seen(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what is analyzed anew
        counter = fxsynops.SynOpsCounter(counted, X, layout="NT")
        for _ in range(FORWARDS):
            seen.synops = 0
            counter.clear()
            assert torch.equal(counter(X), plain(X))
            assert state(counted) == state(plain)
            assert counter.counts.total == seen.synops


@pytest.mark.parametrize("beside", QUIET, ids=lambda function: function.__name__)
def test_what_decides_nothing_is_analyzed_once_more_and_never_again(beside, monkeypatch):
    model = Net(beside)
    counter = fxsynops.SynOpsCounter(model, X, layout="NT")
    anew = analyses(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(FORWARDS):
            counter(X)
    assert len(anew) <= 1


@pytest.mark.parametrize(
    ("beside", "most"),
    [(every_third, 2), (from_the_fifth, 2), (by_another_number, 2), (by_an_entry, 2)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_number_decides_is_analyzed_once_for_each_way(beside, most, monkeypatch):
    counter = fxsynops.SynOpsCounter(Net(beside), X, layout="NT")
    anew = analyses(monkeypatch)
    for _ in range(FORWARDS):
        counter(X)
    assert len(anew) <= most


def analyses(monkeypatch) -> list[int]:
    """Grows by one with each analysis of a counter's."""
    found: list[int] = []
    find = fxsynops.counter.find
    monkeypatch.setattr(
        fxsynops.counter, "find", lambda *args, **options: found.append(1) or find(*args, **options)
    )
    return found


def run(counter, forwards: int, between: Callable[[], Any] = lambda: None) -> None:
    for _ in range(forwards):
        counter(X)
        between()


def scale(model, y):
    model.seconds = model.seconds * 0.9
    model.log.append(y * model.seconds)


def test_a_value_that_is_another_in_each_forward_is_named_once_with_the_cure():
    counter = fxsynops.SynOpsCounter(Net(scale), X, layout="NT")
    with pytest.warns(UserWarning, match="'seconds' of Net was another value in 8 for") as found:
        run(counter, 2 * FORWARDS)
    assert len(found) == 1
    assert "a buffer" in str(found[0].message)
    assert found[0].filename == __file__


def test_a_value_that_is_changed_between_forwards_is_named_too():
    model = Net(lambda model, y: model.log.append(y * model.seconds))
    counter = fxsynops.SynOpsCounter(model, X, layout="NT")
    with pytest.warns(UserWarning, match="'seconds' of Net was another value"):
        run(counter, FORWARDS, lambda: setattr(model, "seconds", model.seconds / 2))


def test_batches_that_were_analyzed_do_not_stay_in_memory():
    model = Net(count)
    counter = fxsynops.SynOpsCounter(model, X, layout="NT")
    batches = []
    for n in range(1, 6):  # as many shapes, so as many traces
        x = X[:1].repeat(n, 1, 1)
        with torch.no_grad():  # what it has counted last can be differentiated, and needs its input
            counter(x)
        batches.append(weakref.ref(x))
        del x
    gc.collect()
    assert [batch() for batch in batches] == [None] * 5
    counter.clear()
    counter(X)
    assert counter.counts.samples == 3


def test_an_analysis_holds_no_second_copy_of_the_weights():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 41)

        def forward(self, x):
            return x @ (self.fc.weight * 0.5).t()

    model = Halves()
    counter = fxsynops.SynOpsCounter(model, X, layout="NT", weights="nonzero")
    with torch.no_grad():
        counter(X)
    assert counter.counts.total == int(X.sum()) * 41
    gc.collect()
    kinds = (Tensor, nn.Parameter)
    found = [t for t in gc.get_objects() if type(t) in kinds and t.is_floating_point()]
    mine = model.fc.weight.data_ptr()
    assert not [t for t in found if t.numel() == 6 * 41 and t.data_ptr() != mine]
