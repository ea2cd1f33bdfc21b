"""Classes that do in another way what torch does: calls, lists of parts, copies, descriptors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fxsynops
from fxsynops import neurons


class Triples(nn.Module):
    """As rockpool's: calls return more than ``forward``, and lists of parts are dicts."""

    def __call__(self, x):
        y = super().__call__(x)
        return y, dict(self.record), {}

    def modules(self):
        return {name: module for name, module in self.named_modules() if name}

    def parameters(self):
        return dict(self.named_parameters())


class Fires(Triples):
    def __init__(self):
        super().__init__()
        self.record = {}
        self.register_buffer("v", torch.zeros(1))

    def forward(self, x):
        self.v = x.mean(0, keepdim=True)
        self.record = {"v": [x * 2]}
        return (x > 0).float()


class Whole(Triples):
    def __init__(self):
        super().__init__()
        self.record = {}
        self.a, self.fires, self.b = nn.Linear(4, 3), Fires(), nn.Linear(3, 2)

    def forward(self, x):
        y, record, _ = self.fires(self.a(x))
        self.record = {"out": copy.copy(y), **record}
        return self.b(y)


@pytest.fixture
def spiking():
    fxsynops.register_spiking(Fires, max_spikes=1, signed=False)
    yield
    del neurons.registry._registered[Fires]


def test_calls_records_and_lists_of_parts_of_a_librarys_own(spiking):
    model, x = Whole(), (torch.rand(2, 4) < 0.5).float()
    twin, counter = copy.deepcopy(model), fxsynops.SynOpsCounter(model, x)
    y, record, rest = counter(x)
    expected, recorded, _ = twin(x)
    assert torch.equal(y, expected)
    assert rest == {}
    assert record.keys() == recorded.keys()
    assert torch.equal(record["out"], recorded["out"])
    assert torch.equal(record["v"][0], recorded["v"][0])
    spikes = float(recorded["out"].sum())
    assert float(counter.synops) == float(x.sum()) * 3 + spikes * 2
    assert counter.analysis.upper_bound().structural == 4 * 3 + 3 * 2
    neurons.reset_states(model)


class Copies(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, x):
        y = self.a(copy.copy(x))
        return y, copy.copy(y), copy.copy(self.a.weight)


def test_copies_of_tensors():
    model, x = Copies(), (torch.rand(2, 4) < 0.5).float()
    counter = fxsynops.SynOpsCounter(model, x)
    for ours, own in zip(counter(x), model(x), strict=True):
        assert torch.equal(ours, own)
        assert type(ours) is type(own)
        assert ours.requires_grad == own.requires_grad
        assert ours.is_leaf == own.is_leaf
    assert float(counter.synops) == float(x.sum()) * 3
    assert not hasattr(torch.Tensor, "__copy__")


class Asked(property):
    def __get__(self, owner, cls):
        raise RuntimeError("not here")


class Helper:
    gain = 2.0
    never = Asked()

    @classmethod
    def scale(cls, x):
        return x * cls.gain

    @staticmethod
    def same(x):
        return x * 1


class Helped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, x):
        if len(x) == 0:
            return Helper.never
        return Helper.scale(self.a(Helper.same(x)))


class Meddles(Helped):
    def forward(self, x):
        Helper.scale = classmethod(lambda cls, x: x)
        return super().forward(x)


def test_class_methods_and_descriptors_outside_of_the_model(monkeypatch):
    model, x = Helped(), (torch.rand(2, 4) < 0.5).float()
    counter = fxsynops.SynOpsCounter(model, x)
    assert torch.equal(counter(x), model(x))
    monkeypatch.setattr(Helper, "gain", 3.0)
    assert torch.equal(counter(x), model(x))
    monkeypatch.setattr(Helper, "scale", classmethod(lambda cls, x: x * 7))
    assert torch.equal(counter(x), model(x))
    before = vars(Helper)["scale"]
    with pytest.raises(fxsynops.TraceError, match=r"changes 'Helper\.scale'"):
        fxsynops.analyze(Meddles(), x)
    assert vars(Helper)["scale"] is before


class Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, late):
        steps = int(late)
        return torch.cat([torch.zeros_like(x[:, :steps]), x[:, : x.shape[1] - steps]], 1)


class Learns(nn.Module):
    def __init__(self):
        super().__init__()
        self.late, self.a = nn.Parameter(torch.tensor([0.3])), nn.Linear(4, 3)

    def forward(self, x):
        return self.a(Late.apply(x, self.late))


def test_a_function_with_a_parameter_is_no_copy_because_it_is_one_today():
    with pytest.raises(fxsynops.UnsupportedOperationError, match="Late"):
        fxsynops.analyze(Learns(), (torch.rand(2, 3, 4) < 0.5).float())


class Numbers(Whole):
    def forward(self, x):
        y, _, _ = self.fires(self.a(x) + torch.FloatTensor([0.1]).to(x.device))
        return self.b(y + 0 * torch.FloatTensor([1.0, 2.0, 3.0]))


def test_tensors_of_plain_numbers_lie_where_others_have_lain(spiking):
    model, x = Numbers(), (torch.rand(2, 4) < 0.5).float()
    for _ in range(20):
        counter = fxsynops.SynOpsCounter(model, x)
        assert torch.equal(counter(x)[0], model(x)[0])


def test_a_module_that_each_forward_makes():
    class Makes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            nn.Conv2d(2, 2, 3)  # and does not use
            return self.b((self.a(x) > 0).float())

    model, x = Makes(), torch.randn(4, 6)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x)
    spikes = float((model.a(x) > 0).sum())
    assert {k: float(n.detach()) for k, n in counter.per_synapse.items()} == {"b": spikes * 3}


def test_a_class_whose_metaclass_raises_for_what_it_has_not():
    class Resolving(type):
        def __getattr__(cls, name):
            raise RuntimeError(f"{cls.__name__} can not resolve {name}")

    class Injected(metaclass=Resolving):
        bits = 8

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.settings = nn.Linear(3, 2), {"quant": Injected}

        def forward(self, x):
            return self.fc(x * (Injected.bits == 8))

    counter = fxsynops.SynOpsCounter(Net(), torch.ones(4, 3))
    counter(torch.ones(4, 3))
    assert counter.counts.total == 4 * 3 * 2
