"""Neurons of the libraries that users have changed: what they really do is counted."""

from __future__ import annotations

import functools

import norse.torch as norse
import pytest
import sinabs.layers as sl
import snntorch
import torch
from norse.torch.functional.lif import LIFFeedForwardState
from norse.torch.module.snn import SNN
from spikingjelly.activation_based import base, neuron
from torch import nn

import fxsynops
from fxsynops.neurons import is_librarys
from tests.outcome import by_module
from tests.watched import watch

N = 8


def layer():
    return nn.Linear(N, N, bias=False)


class RecurrentLeaky(snntorch.Leaky):
    def __init__(self):
        super().__init__(0.9, threshold=0.2)
        self.rec = layer()

    def forward(self, x):
        spk, mem = super().forward(x, torch.zeros_like(x))
        return super().forward(x + self.rec(spk), mem)[0]


class InFrontOfLeaky(snntorch.Leaky):
    def __init__(self):
        super().__init__(0.9, threshold=0.2)
        self.fc = layer()

    def forward(self, x):
        return super().forward(self.fc(x), torch.zeros_like(x))[0]


class LateralLIF(neuron.LIFNode):
    def __init__(self):
        super().__init__(v_threshold=0.2)
        self.rec = layer()

    def single_step_forward(self, x):
        return super().single_step_forward(x + self.rec(super().single_step_forward(x)))


class TwiceIAF(sl.IAFSqueeze):
    def __init__(self):
        super().__init__(batch_size=1, spike_threshold=torch.tensor(0.2))
        self.fc = layer()

    def forward(self, x):
        spikes = super().forward(x)
        return spikes + super().forward(self.fc(spikes))


class WeighsInACell(norse.LIFBoxCell):
    def __init__(self):
        super().__init__(p=norse.LIFBoxParameters(v_th=torch.tensor(0.01)))
        self.fc = layer()

    def forward(self, x):
        return super().forward(self.fc(super().forward(x)[0]))[0]


INSIDE = {c.__name__: c for c in (RecurrentLeaky, LateralLIF, TwiceIAF, WeighsInACell)}


def reset(model):
    for module in model.modules():
        if isinstance(module, sl.StatefulLayer):
            module.reset_states()
        elif isinstance(module, base.MemoryModule):
            module.reset()


def agrees(model, x, **options):
    """Counts of two passes are what is seen at every synapse; returns the counter."""
    reset(model)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    for inputs in (x, x.flip(0)):
        reset(model)
        counter(inputs)
        found = {k: float(v.detach()) for k, v in counter.per_synapse.items()}
        reset(model)
        _, synops, _ = watch(model, inputs, **options)
        assert by_module(model, found) == synops
        assert sum(synops.values()) > 0
    return counter


@pytest.mark.parametrize("name", INSIDE)
def test_weights_in_a_subclass_of_a_neuron_are_synapses(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, N), INSIDE[name](), nn.Linear(N, 3))
    counter = agrees(model, torch.rand(4, 6) * 4)
    assert any(synapse.startswith("1.") for synapse in counter.per_synapse)
    counter.synops.backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_weights_on_analog_values_in_a_subclass_of_a_neuron_are_macs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, N), InFrontOfLeaky(), nn.Linear(N, 3))
    analysis = fxsynops.analyze(model, torch.rand(4, 6), input_events=False)
    assert [(row.synapse, row.macs) for row in analysis.dense] == [("0", 6 * N), ("1.fc", N * N)]


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return (v > 0).float() * 0.5

    @staticmethod
    def backward(ctx, grad):
        return grad


class Scaled(neuron.LIFNode):
    def single_step_forward(self, x):
        return super().single_step_forward(x) * 0.5


class ByThreshold(sl.IAFSqueeze):
    def forward(self, x):
        return super().forward(x) * self.spike_threshold


class Graded(snntorch.Leaky):
    def fire(self, mem):
        return super().fire(mem) * self.threshold


WORTH = {
    "surrogate": lambda: snntorch.Leaky(
        0.9, threshold=0.2, init_hidden=True, spike_grad=Half.apply
    ),
    "fire": lambda: Graded(0.9, threshold=0.5, init_hidden=True),
    "step": lambda: Scaled(v_threshold=0.2),
    "forward": lambda: ByThreshold(batch_size=1, spike_threshold=torch.tensor(0.5)),
}


@pytest.mark.parametrize("name", WORTH)
def test_spikes_that_a_user_has_scaled_are_one_event_each(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, N), WORTH[name](), nn.Linear(N, 3))
    arrived = []
    model[2].register_forward_pre_hook(lambda _, args: arrived.append(args[0].detach()))
    x = torch.rand(4, 6) * 4
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    arrived.clear()
    counter(x)
    spikes = (arrived[-1] / 0.5).round()  # a neuron of sinabs's fires several at once
    assert torch.equal(spikes * 0.5, arrived[-1])
    assert float(counter.per_synapse["2"].detach()) == float(spikes.sum()) * 3 > 0


class Returns(neuron.IFNode):
    def __init__(self, pack):
        super().__init__(v_threshold=0.5)
        self.pack = pack

    def forward(self, x):
        spikes = super().forward(x)
        return self.pack(spikes, self.v)


PACKS = {
    "behind the membrane": (lambda s, v: (v, s), lambda out: out[1]),
    "in a dict": (lambda s, v: {"s": s, "v": v}, lambda out: out["s"]),
    "nested": (lambda s, v: ((s, v), v), lambda out: out[0][0]),
}


@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("quiet", [False, True])
def test_spikes_are_found_wherever_a_subclass_returns_them(name, quiet):
    pack, unpack = PACKS[name]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.neuron, self.b = nn.Linear(6, N), Returns(pack), nn.Linear(N, 3)

        def forward(self, x):
            return self.b(unpack(self.neuron(self.a(x))))

    torch.manual_seed(0)
    model, x = Net(), torch.rand(4, 6) * 4
    example = torch.full_like(x, -1e-6) if quiet else x
    counter = fxsynops.SynOpsCounter(model, example, input_events=False)
    reset(model)
    counter(x)
    spikes = float((model.a(x) >= 0.5).sum())
    assert float(counter.per_synapse["b"].detach()) == spikes * 3 > 0


def test_membranes_that_are_read_from_a_neuron_are_analog():
    class Net(nn.Module):
        def __init__(self, cell, name):
            super().__init__()
            self.a, self.cell, self.b, self.d = (
                nn.Linear(6, N),
                cell,
                nn.Linear(N, 3),
                nn.Linear(N, 5),
            )
            self.name = name

        def forward(self, x):
            return self.b(self.cell(self.a(x))), self.d(getattr(self.cell, self.name))

    cells = {
        "mem": snntorch.Leaky(0.9, init_hidden=True),
        "v": neuron.LIFNode(),
        "v_mem": sl.IAFSqueeze(batch_size=4),
    }
    for name, cell in cells.items():
        analysis = fxsynops.analyze(Net(cell, name), torch.rand(4, 6), input_events=False)
        assert {row.synapse: row.macs for row in analysis.dense} == {"a": 6 * N, "d": 5 * N}


def test_attributes_that_a_subclass_sets_are_what_they_are():
    class Halves(snntorch.Leaky):
        def forward(self, x, mem=None):
            spk, mem = super().forward(x, mem)
            self.half = 0.5 * spk
            return spk, mem

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.cell = nn.Linear(6, N), Halves(0.9, threshold=0.2)
            self.b, self.d = nn.Linear(N, 3), nn.Linear(N, 5)

        def forward(self, x):
            spk, _ = self.cell(self.a(x), torch.zeros(len(x), N))
            return self.b(spk) + self.d(self.cell.half)[:, :3]

    torch.manual_seed(0)
    counter = agrees(Net(), torch.rand(4, 6) * 4, units={"d": 0.5})
    assert set(counter.per_synapse) == {"b", "d"}


def norses(step):
    """A network around a step of the user's, as norse makes neurons of such."""
    start = lambda x: LIFFeedForwardState(v=torch.zeros_like(x), i=torch.zeros_like(x))  # noqa: E731

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, N), nn.Linear(N, 3)
            self.neuron = SNN(step, start, norse.LIFParameters())

        def forward(self, x):
            return self.b(self.neuron(self.a(x) * 4)[0])

    return Net()


def ternary(x, state, p, dt=0.001):
    v = 0.8 * state.v + x
    spikes = (v > 0.5).float() - (v < -0.5).float()
    return spikes, LIFFeedForwardState(v=v * (1 - spikes.abs()), i=state.i)


def several(x, state, p, dt=0.001):
    v = 0.8 * state.v + x
    spikes = torch.floor(v.clamp(min=0) / 0.2)
    return spikes, LIFFeedForwardState(v=v - 0.2 * spikes, i=state.i)


@pytest.mark.parametrize("step", [ternary, several])
def test_a_step_of_the_users_own_in_norse(step):
    torch.manual_seed(0)
    model, x = norses(step), torch.rand(5, 3, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", input_events=False)
    counter(x)
    events = model.neuron(model.a(x) * 4)[0].abs().sum()
    assert float(counter.per_synapse["b"].detach()) == float(events.detach()) * 3 > 0
    (row,) = counter.analysis.upper_bound().rows
    assert float(events.detach()) * 3 / 3 <= row.charge


def test_a_first_state_of_the_users_own_in_norse_has_no_charge_bound():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.neuron, self.b = nn.Linear(6, N), norse.LIFCell(), nn.Linear(N, 3)
            self.neuron.state_fallback = lambda x: LIFFeedForwardState(
                v=torch.full_like(x, 50.0), i=torch.full_like(x, 90.0)
            )

        def forward(self, x):
            state, out = None, 0
            for step in x:
                spikes, state = self.neuron(self.a(step), state)
                out = out + self.b(spikes)
            return out

    torch.manual_seed(0)
    x = torch.ones(4, 3, 6)
    counter = fxsynops.SynOpsCounter(Net(), x, layout="TN")
    counter(x)
    bound = counter.analysis.upper_bound()
    measured = {row.connection.synapse: row.synops / 3 for row in counter.counts.rows}
    for row in bound.rows:
        assert measured[row.connection.synapse] <= row.charge


class Later(neuron.LIFNode):
    """Uses its weights from the second forward on."""

    def __init__(self):
        super().__init__(v_threshold=0.2)
        self.rec, self.last = layer(), None

    def single_step_forward(self, x):
        if self.last is not None:
            x = x + self.rec(self.last)
        self.last = super().single_step_forward(x)
        return self.last


class WrittenOut(neuron.LIFNode):
    """Lateral weights as a product and a sum."""

    def __init__(self):
        super().__init__(v_threshold=0.2)
        self.lateral = nn.Parameter(torch.rand(N, N))

    def single_step_forward(self, x):
        spikes = super().single_step_forward(x)
        self.v = self.v - 0.1 * (spikes.unsqueeze(-1) * self.lateral).sum(1)
        return spikes


class Wrapped(neuron.LIFNode):
    """A method that says that it is the library's."""

    @functools.wraps(neuron.LIFNode.single_step_forward)
    def single_step_forward(self, x):
        return torch.sign(x) * (x.abs() > 0.3)


class BesideItsOwn(snntorch.RLeaky):
    """More weights than those that its library counts."""

    def __init__(self):
        super().__init__(0.9, threshold=0.2, linear_features=N, init_hidden=True)
        self.lateral = layer()

    def fire(self, mem):
        return super().fire(mem - self.lateral(super().fire(mem)))


class LeakThatFires(sl.ExpLeakSqueeze):
    def __init__(self):
        super().__init__(tau_mem=20.0, batch_size=4)
        self.fc = layer()

    def forward(self, x):
        return (self.fc((super().forward(x) > 0.001).float()) > 0).float()


# Of a class, its inner layer; None: its weights are a product and a sum of its own spikes.
MORE = {Later: "rec", WrittenOut: None, BesideItsOwn: "lateral", LeakThatFires: "fc"}


@pytest.mark.parametrize("kind", MORE)
def test_a_subclass_that_holds_more_than_its_library_is_recorded_through(kind):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, N), kind(), nn.Linear(N, 3)), torch.rand(4, 6) * 4
    twin = kind()
    twin.load_state_dict(model[1].state_dict())
    counter, arrived, inner = fxsynops.SynOpsCounter(model, x, input_events=False), [], MORE[kind]
    if inner:
        twin.get_submodule(inner).register_forward_pre_hook(
            lambda _, args: arrived.append(float(args[0].sum()) * N)
        )
    for _ in range(3):
        counter(x)
        with torch.no_grad():
            spikes = twin(model[0](x))
        arrived += [] if inner else [float(spikes.sum()) * N]
        found = {k: float(v.detach()) for k, v in counter.per_synapse.items()}
        assert found["2"] == float(spikes.sum()) * 3
    assert found[f"1.{inner}" if inner else "1"] == arrived[-1] > 0


def test_a_wrapped_method_is_the_users():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, N), Wrapped(), nn.Linear(N, 3)), torch.randn(4, 6) * 4
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x)
    assert float(counter.per_synapse["2"].detach()) == float((model[0](x).abs() > 0.3).sum()) * 3


def test_a_surrogate_whose_worth_is_learned_is_doubted():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.worth, self.step = nn.Parameter(torch.tensor(1.0)), snntorch.surrogate.atan()

        def forward(self, v):
            return self.worth * self.step(v)

    torch.manual_seed(0)
    cell = snntorch.Leaky(0.9, threshold=0.2, init_hidden=True, spike_grad=Learned())
    model, x = nn.Sequential(nn.Linear(6, N), cell, nn.Linear(N, 3)), torch.rand(4, 6) * 4
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    for worth in (-1.0, 0.7):
        with torch.no_grad():
            cell.spike_grad.worth.fill_(worth)
        counter.clear()
        counter(x)
        assert float(counter.synops.detach()) > 0
        assert counter.counts.exact == (worth == -1)


def test_what_was_opened_stays_open():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, N, bias=False), Scaled(v_threshold=0.2), nn.Linear(N, 3))
    busy = torch.rand(4, 6) * 4
    counter = fxsynops.SynOpsCounter(model, busy, input_events=False)
    sources = set()
    for x in (busy, torch.zeros(3, 6), busy[:3]):
        reset(model)
        counter(x)
        sources |= set(counter.per_source)
        reset(model)
        fired = float((model[:2](x) > 0).sum()) * 3
        assert float(counter.synops.detach()) == fired
    assert len(sources) == 1


def test_attributes_of_any_kind_that_a_neuron_makes():
    class Makes(neuron.LIFNode):
        def single_step_forward(self, x):
            spikes = super().single_step_forward(x)
            self.out, self.steps = (spikes, self.v), int(x.shape[0])
            return spikes

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.cell, self.b = nn.Linear(6, N), Makes(v_threshold=0.2), nn.Linear(N, 3)

        def forward(self, x):
            self.cell(self.a(x))
            return self.b(self.cell.out[0]) * self.cell.steps

    agrees(Net(), torch.rand(4, 6) * 4)


def test_the_users_word_on_a_neuron_is_the_last():
    """What was opened is whole again once it is registered, and where it is named."""

    class Registered(Scaled):
        pass

    torch.manual_seed(0)
    x = torch.rand(4, 6) * 4
    model = nn.Sequential(nn.Linear(6, N), Registered(v_threshold=0.2), nn.Linear(N, 3))
    spikes = float((model[:2](x) > 0).sum())
    reset(model)
    (opened,) = fxsynops.analyze(model, x, input_events=False).connections
    assert opened.source != "1"
    with pytest.raises(fxsynops.AuditError, match=r"'1' puts out 0\.5 events"):
        fxsynops.analyze(model, x, input_events=False, spiking=[Registered])
    fxsynops.register_spiking(Registered, amplitude=0.5)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x)
    assert [c.source for c in counter.analysis.connections] == ["1"]
    assert float(counter.synops.detach()) == spikes * 3 > 0


def test_a_decorator_of_torchs_makes_no_method_the_users():
    assert is_librarys(torch.no_grad()(neuron.LIFNode.single_step_forward))
    assert is_librarys(functools.lru_cache(neuron.LIFNode.single_step_forward))
    assert not is_librarys(Wrapped.single_step_forward)
    assert not is_librarys(torch.no_grad()(Wrapped.single_step_forward))
