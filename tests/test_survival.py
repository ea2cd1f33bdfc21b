"""The model survives everything: failures at any moment, interrupts, other threads."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from collections import deque
from contextlib import suppress

import numpy as np
import pytest
import sinabs.layers as sl
import snntorch
import torch
from spikingjelly.activation_based import neuron as sj
from torch import nn

import fxsynops
from fxsynops.tracing import borrowed as borrowed_module
from fxsynops.tracing import containers
from fxsynops.tracing.borrowed import Borrowed


class Slotted:
    __slots__ = ("tensor",)

    def __init__(self):
        self.tensor = torch.ones(2)


class Plain:
    def __init__(self):
        self.tensor, self.slotted = torch.ones(2), Slotted()


class Crowded(nn.Module):
    """Holds tensors wherever a module can."""

    def __init__(self):
        super().__init__()
        self.fc, self.iaf = nn.Linear(6, 4), fxsynops.nn.IAF()
        self.register_buffer("mask", torch.ones(4))
        self.tensors = [torch.ones(1), {"a": torch.ones(1), "b": (torch.ones(1), 3)}]
        self.plain, self.queue, self.names = Plain(), deque([torch.ones(1)]), {"a", "b"}
        self.array = np.arange(3.0)
        self.array.flags.writeable = False
        self.labels = np.array([None, "label"], dtype=object)
        self.rng, self.numpy_rng = random.Random(0), np.random.default_rng(0)
        self.old_rng, self.torch_rng = np.random.RandomState(0), torch.Generator()
        self.hidden = [nn.Linear(2, 2)]
        self.seen = []
        self.fc.register_forward_hook(self._look)

    def _look(self, module, args, output):
        self.seen.append(output.shape)

    def forward(self, x):
        return self.iaf(self.fc(x)) * self.mask


def everything(model):
    """The identity of every object that the model holds, and the state of all generators."""
    found, seen = [], set()

    def look(where, value):
        found.append((where, id(value)))
        if id(value) in seen or isinstance(value, type):
            return
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            found.append((where, value._version, value.sum().item()))
        elif isinstance(value, nn.Module | Plain):
            for name, part in value.__dict__.items():
                if name not in ("_forward_hooks_with_kwargs",):
                    look((*where, name), part)
        elif isinstance(value, Slotted):
            look((*where, "tensor"), value.tensor)
        elif isinstance(value, dict):
            for name, part in value.items():
                look((*where, name), part)
        elif isinstance(value, list | tuple | deque):
            for i, part in enumerate(value):
                look((*where, i), part)
        elif isinstance(value, np.ndarray):
            found.append((where, [id(v) for v in value] if value.dtype == object else value.sum()))
        elif isinstance(value, random.Random):
            found.append((where, value.getstate()))
        elif isinstance(value, np.random.Generator):
            found.append((where, str(value.bit_generator.state)))
        elif isinstance(value, np.random.RandomState):
            found.append((where, value.get_state()[1].tobytes()))
        elif isinstance(value, torch.Generator):
            found.append((where, value.get_state().sum().item()))

    look((), model)
    found.append(torch.get_rng_state().sum().item())
    found.append(random.getstate())
    return found


@pytest.fixture
def crowded():
    model = Crowded()
    model(torch.ones(1, 2, 6))
    model.seen.clear()
    return model


def disturb(model):
    """What a forward could do to a borrowed model."""
    with torch.no_grad():
        model.fc.weight.add_(1)
    model.mask, model.new = model.mask * 2, torch.ones(3)
    model.tensors.append(1)
    model.tensors[1]["c"] = 1
    model.plain.tensor = None
    model.plain.slotted.tensor = torch.zeros(1)
    model.queue.append(1)
    model.names.add("c")
    model.rng.random()
    model.numpy_rng.random()
    model.old_rng.random_sample()
    torch.rand(1, generator=model.torch_rng)
    torch.rand(1)
    random.random()
    del model.seen


def test_a_borrowed_model_is_put_back(crowded):
    before = everything(crowded)
    for _ in range(2):
        with Borrowed(crowded):
            assert crowded.fc.weight is not None
            disturb(crowded)
            assert everything(crowded) != before
        assert everything(crowded) == before


def test_a_borrowed_model_is_put_back_after_an_error(crowded):
    before = everything(crowded)

    def fail():
        with Borrowed(crowded):
            disturb(crowded)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert everything(crowded) == before


class Stop(BaseException):
    """What Ctrl-C raises, at a moment of our choice."""


FILES = {borrowed_module.__file__, containers.__file__}


class Interrupt:
    """Raises at the ``moment``-th line that borrowing and putting back run."""

    def __init__(self, moment):
        self.left = moment

    def __call__(self, frame, event, _):
        return self.line if frame.f_code.co_filename in FILES else None

    def line(self, frame, event, _):
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise Stop
        return self.line


def interrupted(model, moment):
    """Borrow a model, disturb it, and put it back; whether an interrupt came."""
    interrupt, before = Interrupt(moment), sys.gettrace()
    context = Borrowed(model)
    sys.settrace(interrupt)
    try:
        with context:
            disturb(model)
    except Stop:
        pass
    finally:
        sys.settrace(before)
    return interrupt.left <= 0


def lines_to_borrow(model):
    endless = Interrupt(10**9)
    sys.settrace(endless)
    try:
        with Borrowed(model):
            pass
    finally:
        sys.settrace(None)
    return 10**9 - endless.left


def check_interrupts(model, moments):
    before = everything(model)
    came = 0
    for moment in moments:
        came += interrupted(model, moment)
        assert everything(model) == before, moment
        assert not borrowed_module._ONE_AT_A_TIME._is_owned()
    return came


def test_an_interrupt_at_any_moment_leaves_the_model_as_it_was(crowded):
    lines = lines_to_borrow(crowded)
    assert lines > 300
    moments = random.Random(0).sample(range(1, lines), 60)
    assert check_interrupts(crowded, moments) > 50


@pytest.mark.full
def test_an_interrupt_at_every_moment_leaves_the_model_as_it_was(crowded):
    lines = lines_to_borrow(crowded)
    assert check_interrupts(crowded, range(1, lines + 50)) >= lines - 1


@pytest.mark.parametrize("nth", [1, 2, 5, 9])
def test_a_tensor_that_cannot_be_cloned_leaves_the_model_as_it_was(crowded, monkeypatch, nth):
    clone, calls = borrowed_module._clone, []

    def fails(tensor, memory, in_place):
        calls.append(tensor)
        if len(calls) == nth:
            raise RuntimeError("no memory")
        return clone(tensor, memory, in_place)

    before = everything(crowded)
    monkeypatch.setattr(borrowed_module, "_clone", fails)
    with pytest.raises(fxsynops.TraceError, match=r"cannot be cloned \(RuntimeError: no memory\)"):
        fxsynops.analyze(crowded, torch.ones(1, 2, 6), layout="NT")
    assert everything(crowded) == before


@pytest.mark.parametrize("nth", [1, 3, 8, 20])
def test_one_step_that_cannot_be_put_back_stops_no_other(crowded, monkeypatch, nth):
    restore, calls = containers.restore, []

    def fails(container, content):
        calls.append(container)
        if container is calls[min(nth, len(calls)) - 1] and len(calls) >= nth:
            restore(container, content)
            raise RuntimeError("cannot be put back")
        restore(container, content)

    before = everything(crowded)
    monkeypatch.setattr(borrowed_module, "restore", fails)
    with pytest.raises(RuntimeError, match="cannot be put back"), Borrowed(crowded):
        disturb(crowded)
    assert everything(crowded) == before


def test_a_model_with_arrays_is_analyzed(crowded):
    before = everything(crowded)
    counter = fxsynops.SynOpsCounter(crowded, torch.ones(1, 2, 6), layout="NT")
    assert everything(crowded) == before
    counter(torch.ones(1, 2, 6))
    assert crowded.seen  # hooks run in the replay


@pytest.fixture
def _all_are_large(monkeypatch):
    monkeypatch.setattr(borrowed_module, "LARGE", 0)


@pytest.mark.usefixtures("_all_are_large")
def test_what_stands_in_for_parameters_needs_no_memory():
    tied = nn.Linear(4, 4)
    model = nn.ModuleList([tied, nn.LSTM(4, 3), nn.ParameterList([nn.Parameter(torch.ones(2))])])
    model.register_buffer("mean", torch.zeros(3))
    model.part = tied.weight.data[1:]  # in the memory of a parameter
    model.also = tied.weight
    before = {name: (p, p.data_ptr(), p._version) for name, p in model.named_parameters()}
    with borrowed_module.Borrowed(model, in_place=True):
        for name, parameter in model.named_parameters():
            own, at, _ = before[name]
            assert parameter is not own
            assert parameter.data_ptr() == at
        assert model.also is tied.weight
        assert model.part.data_ptr() == tied.weight[1:].data_ptr()
        model.mean += 1  # a copy
    assert {n: (p, p.data_ptr(), p._version) for n, p in model.named_parameters()} == before
    assert not model.mean.any()


class WritesItsWeights(nn.Module):
    """… in one of many ways."""

    def __init__(self, way):
        super().__init__()
        self.way, self.fc = way, nn.Linear(6, 3)
        self.ignores = False

    def forward(self, x):
        with torch.no_grad():
            try:
                self.way(self.fc.weight)
            except BaseException:
                if not self.ignores:
                    raise
        return self.fc(x)


class Whole(fxsynops.nn.IAF):
    """A neuron, which is kept whole, that writes to the weights of the layer in front of it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        spikes = super().forward(x)
        self.layer.weight.detach().numpy()[:] *= 0.5
        return spikes


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        weight.detach().numpy()[:] *= 0.5
        return weight * 1.0

    @staticmethod
    def backward(ctx, grad):
        return grad


@torch.jit.script
def halved(weight: torch.Tensor):
    return weight.mul_(0.5)


def as_statistics(weight):
    """A batch norm writes to its running means, and its schema does not say so."""
    x = torch.ones(2, weight.shape[1])
    nn.functional.batch_norm(x, weight[0], torch.ones(weight.shape[1]), training=True)


WRITES = {
    "scripted": halved,
    "vmap": lambda w: torch.vmap(lambda row: row.mul_(0.5))(w),
    "functionalized": lambda w: torch.func.functionalize(lambda v: v.mul_(0.5))(w),
    "statistics": as_statistics,
    "apply": lambda w: w.data.apply_(lambda v: 0.5 * v),
    "in place": lambda w: w.mul_(0.5),
    "a view": lambda w: w.view(-1)[::2].zero_(),
    "past versions": lambda w: w.data.t().clamp_(0, 0.1),
    "an entry": lambda w: w.__setitem__((0, 0), 7.0),
    "out": lambda w: torch.mul(w, 0.5, out=w.data),
    "several": lambda w: torch._foreach_mul_([w, w.new_ones(2)], 0.5),
    "a function": Half.apply,
    "an initializer": nn.init.zeros_,
    "a norm": lambda w: w.div_(w.norm()),
}


@pytest.mark.usefixtures("_all_are_large")
@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize("way", WRITES)
def test_a_forward_that_writes_to_parameters_leaves_them_as_they_were(way, ignores):
    torch.manual_seed(0)
    model, x = WritesItsWeights(WRITES[way]), torch.eye(6)
    model.ignores = ignores
    before = model.fc.weight.detach().clone()
    counter = fxsynops.SynOpsCounter(model, x)
    assert torch.equal(model.fc.weight, before)
    y, after = counter(x), model.fc.weight.detach().clone()  # now it is the model's own doing
    assert not torch.equal(after, before)
    with torch.no_grad():
        model.fc.weight.copy_(before)
    assert torch.equal(model(x), y)
    assert torch.equal(model.fc.weight, after)
    assert counter.counts.total == 6 * 3


@pytest.mark.usefixtures("_all_are_large")
def test_a_module_that_is_kept_whole_leaves_parameters_as_they_were():
    layer = nn.Linear(6, 3)
    model = nn.Sequential(layer, Whole(layer), nn.Linear(3, 2))
    before = layer.weight.detach().clone()
    fxsynops.analyze(model, torch.ones(2, 5, 6), layout="NT", spiking=[Whole])
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("where", ["forward", "output"])
def test_a_failing_forward_leaves_the_model_as_it_was(crowded, where):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = crowded, []

        def forward(self, x):
            self.calls.append(1)
            y = self.inner(x)
            raise KeyboardInterrupt if where == "forward" else ValueError(y.shape)

    model = Fails()
    before = everything(model)
    expected = KeyboardInterrupt if where == "forward" else fxsynops.TraceError
    with pytest.raises(expected):
        fxsynops.analyze(model, torch.ones(1, 2, 6), layout="NT")
    assert everything(model) == before
    assert crowded.fc.weight.requires_grad


def test_training_moves_the_parameters_after_a_failed_analysis():
    model = nn.Sequential(nn.Linear(6, 3), nn.Sigmoid())
    model.extra = np.array([None, "label"], dtype=object)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    with pytest.raises(fxsynops.FxSynopsError):
        fxsynops.analyze(model, torch.ones(2, 5))
    before = model[0].weight.clone()
    model(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before)


# -- threads ---------------------------------------------------------------------------------------


class Draws(nn.Module):
    """Draws random numbers, as another thread's training does."""

    def __init__(self):
        super().__init__()
        self.a, self.iaf, self.b = nn.Linear(6, 5), fxsynops.nn.IAF(), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(self.iaf(self.a(x)))


def test_threads_analyze_and_count_at_once():
    patched = {
        (owner, name): getattr(owner, name)
        for owner, names in (
            (torch, ("manual_seed", "seed", "set_rng_state")),
            (torch.random, ("manual_seed", "seed", "set_rng_state")),
            (nn.Module, ("__getattr__", "__getattribute__", "__call__")),
        )
        for name in names
    }
    models = [Draws() for _ in range(4)]
    inputs = [torch.rand(2, 3 + i, 6).round() for i in range(4)]
    expected = []
    for model, x in zip(models, inputs, strict=True):
        counter = fxsynops.SynOpsCounter(model, x, layout="NT")
        counter(x)
        expected.append(counter.synops.item())
        model.iaf.reset_states()
    errors, counts, stop = [], [[] for _ in models], threading.Event()

    def count(i):
        try:
            for _ in range(8):
                counter = fxsynops.SynOpsCounter(models[i], inputs[i], layout="NT")
                counter(inputs[i])
                counts[i].append(counter.synops.item())
                assert len(counter.analysis.connections) == 2
                models[i].iaf.reset_states()
        except BaseException as error:
            errors.append(error)

    def disturb_others():
        model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(), nn.ReLU())
        while not stop.is_set():
            model(torch.rand(4, 6)).sum().backward()
            random.random()
            np.random.rand()

    threads = [threading.Thread(target=count, args=(i,)) for i in range(4)]
    other = threading.Thread(target=disturb_others)
    for thread in (other, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    other.join()
    assert not errors
    assert counts == [[value] * 8 for value in expected]
    assert all(getattr(owner, name) is value for (owner, name), value in patched.items())


@pytest.mark.usefixtures("_all_are_large")
def test_forwards_of_libraries_are_recorded_once():
    """Nothing of the package's own looks at memory in a way that might be a write."""
    layers = nn.Linear(6, 8), sj.LIFNode(step_mode="m"), nn.Linear(8, 3), sj.IFNode(step_mode="m")
    sinabs_layers = nn.Linear(6, 8), sl.LIF(tau_mem=10.0), nn.Linear(8, 3), sl.IAF()
    leaky = snntorch.Leaky(0.9, init_hidden=True)
    for model, options in (
        (nn.Sequential(*layers), {"layout": "TN"}),
        (nn.Sequential(*sinabs_layers), {"layout": "NT"}),
        (nn.Sequential(nn.Linear(6, 8), leaky, nn.BatchNorm1d(8)), {"layout": "step"}),
        (nn.LSTM(6, 4), {}),
    ):
        x = torch.ones(3, 6) if options == {"layout": "step"} else torch.ones(4, 2, 6)
        assert not fxsynops.analyze(model, x, **options).trace.overwrites
    assert fxsynops.analyze(WritesItsWeights(WRITES["in place"]), torch.eye(6)).trace.overwrites


@pytest.mark.parametrize("fails", [False, True])
def test_analyses_in_threads_leave_the_garbage_collector_as_it_was(fails):
    class Waits(nn.Module):
        def forward(self, x):
            time.sleep(0.002)
            if fails:
                raise RuntimeError("as planned")
            return x

    def analyze():
        for _ in range(5):
            with suppress(fxsynops.TraceError):
                fxsynops.analyze(nn.Sequential(nn.Linear(3, 2), Waits()), torch.ones(1, 3))

    before = gc.get_threshold()
    threads = [threading.Thread(target=analyze) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gc.get_threshold() == before
