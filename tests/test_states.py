"""States that a model keeps between forwards: events in them are counted, forward after forward."""

from __future__ import annotations

import copy

import pytest
import torch
from spikingjelly.activation_based import encoding, neuron, rnn
from spikingjelly.activation_based import layer as jelly
from torch import nn

import fxsynops
from tests.outcome import by_module, same
from tests.watched import watch
from tests.zoo import fire


def spikes(*shape):
    return (torch.rand(*shape) < 0.5).float()


class Sums(nn.Module):
    """Reads out the sum of all spikes so far."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.sum = nn.Linear(8, 6), nn.Linear(6, 3), None

    def forward(self, x):
        z = fire(self.a(x))
        self.sum = z if self.sum is None else self.sum + z
        return self.b(self.sum)


class SumsInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3)
        self.register_buffer("sum", torch.zeros(2, 6))

    def forward(self, x):
        self.sum += fire(self.a(x))
        return self.b(self.sum)


class Remembers(nn.Module):
    """Linear attention with a memory of keys and values."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 6)
        self.register_buffer("memory", torch.zeros(6, 6))

    def forward(self, x):
        z = fire(self.a(x))
        self.memory += z.T @ z
        return z @ self.memory


class Masked(nn.Module):
    """Keeps the last step's spikes, masked by a buffer and enlarged."""

    def __init__(self):
        super().__init__()
        self.b = nn.Linear(16, 3)
        self.register_buffer("mask", (torch.arange(8) % 3 > 0).float())
        self.last = torch.zeros(2, 16)

    def forward(self, x):
        x = nn.functional.interpolate((x * self.mask)[:, None], scale_factor=2)[:, 0]
        y = self.b(self.last + x)
        self.last = x
        return y


class Tuple(nn.Module):
    """Spikes of the last step and the membrane in one attribute."""

    def __init__(self):
        super().__init__()
        self.a, self.r, self.b = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 5)
        self.state = None

    def forward(self, x):
        z, v = self.state or (torch.zeros(2, 6),) * 2
        v = 0.5 * v + self.a(x) + self.r(z)
        z = (v > 0.3).float()
        self.state = (z, v)
        return self.b(z)


class Queue(nn.Module):
    def __init__(self):
        super().__init__()
        self.b, self.waiting = nn.Linear(8, 5), [torch.zeros(2, 8)] * 2

    def forward(self, x):
        self.waiting.append(x)
        return self.b(self.waiting.pop(0))


def sequential(*layers):
    return lambda: nn.Sequential(*layers)


def spiking(x):
    return neuron.IFNode(v_threshold=x)


MODELS = {
    "sum": (Sums, True, {}),
    "sum in place": (SumsInPlace, True, {}),
    "memory of an attention": (Remembers, True, {}),
    "tuple": (Tuple, True, {}),
    "masked": (Masked, True, {}),
    "queue": (Queue, True, {}),
    "delay": (
        lambda: nn.Sequential(nn.Linear(8, 4), spiking(0.1), jelly.Delay(1), nn.Linear(4, 2)),
        True,
        {},
    ),
    "latency encoder": (
        lambda: nn.Sequential(encoding.LatencyEncoder(4), nn.Linear(8, 3)),
        False,
        {},
    ),
    "phase encoder": (
        lambda: nn.Sequential(encoding.WeightedPhaseEncoder(4), nn.Linear(8, 3)),
        False,
        {},
    ),
    "dropout that keeps its mask": (
        lambda: nn.Sequential(
            nn.Linear(8, 20), spiking(0.1), jelly.Dropout(0.5), nn.Linear(20, 5)
        ).train(),
        True,
        {"3": 2.0},
    ),
    "recurrent container": (
        lambda: jelly.LinearRecurrentContainer(nn.Sequential(nn.Linear(8, 6), spiking(0.2)), 8, 6),
        True,
        {},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_events_in_states_are_counted_at_every_forward(name):
    build, events, units = MODELS[name]
    torch.manual_seed(0)
    model = build()
    twin = copy.deepcopy(model)
    draw = (lambda: spikes(2, 8)) if events else (lambda: torch.rand(2, 8) * 0.9)
    counter = fxsynops.SynOpsCounter(model, draw(), input_events=events)
    total = 0.0
    for seed in range(5):
        x = draw()
        torch.manual_seed(seed)
        y = counter(x)
        torch.manual_seed(seed)
        expected, synops, _ = watch(twin, x, units=units)
        assert same(y, expected)
        found = {k: float(v.detach()) for k, v in counter.per_synapse.items()}
        assert by_module(model, found) == synops
        total += sum(synops.values())
    assert counter.counts.total == total > 0


def test_a_state_that_decays_is_analog_and_said_to_be():
    class Trace(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.trace = nn.Linear(8, 6), nn.Linear(6, 3), 0.0

        def forward(self, x):
            self.trace = 0.5 * self.trace + fire(self.a(x))
            return self.b(self.trace)

    torch.manual_seed(0)
    model, x = Trace(), spikes(2, 8)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    assert float(counter.per_synapse["b"].detach()) == float(fire(model.a(x)).sum().detach()) * 3
    with pytest.warns(UserWarning, match="'b' is analog"):
        counter(x)
    assert set(counter.per_synapse) == {"a"}


def test_a_state_of_events_that_are_worth_what_the_last_data_said_is_refused():
    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.last = nn.Linear(8, 3), torch.zeros(2, 8)

        def forward(self, x, gate):
            y = self.b(self.last)
            self.last = torch.where(gate > 0, x, 0.5 * x)
            return y

    with pytest.raises(fxsynops.UnsupportedOperationError, match="worth different amounts"):
        fxsynops.analyze(Chosen(), (spikes(2, 8), spikes(2, 8)))
    left_out = fxsynops.analyze(Chosen(), (spikes(2, 8), spikes(2, 8)), strict=False).unresolved
    assert [entry.synapse for entry in left_out] == ["b"]


class Kept(nn.Module):
    """Reads what the last forward has kept, or this one, and keeps its own."""

    def __init__(self, keep, first=False):
        super().__init__()
        self.fc, self.keep, self.first = nn.Linear(6, 3), keep, first
        self.register_buffer("z", torch.zeros(2, 6))
        self.left, self.right, self.amplitude = self.z[:, :3], self.z[:, 3:], 1.0

    def forward(self, x):
        if self.first:
            self.keep(self, (x > 0.5).float())
        y = self.fc(self.z)
        if not self.first:
            self.keep(self, (x > 0.5).float())
        return y


def in_halves(net, s):
    net.left.copy_(s[:, :3])
    net.right.copy_(s[:, 3:])


def by_data(net, s):
    net.z.data = s


def into_data(net, s):
    net.z.data.copy_(s)


def into_detached(net, s):
    net.z.detach().copy_(s)


KEEPS = [in_halves, by_data, into_data, into_detached]


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("first", [False, True])
def test_a_state_that_is_written_past_its_own_name(keep, first):
    counter, twin = fxsynops.SynOpsCounter(Kept(keep, first), spikes(2, 6)), Kept(keep, first)
    arrived = []
    twin.fc.register_forward_pre_hook(lambda _, args: arrived.append(float(args[0].sum()) * 3))
    for _ in range(4):
        x = spikes(2, 6)
        counter(x)
        twin(x)
        assert float(counter.synops.detach()) == arrived[-1]
    assert sum(arrived) > 0


def test_a_history_of_which_each_step_is_an_attribute():
    class History(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.step, self.history = nn.Linear(6, 3), 0, torch.zeros(3, 2, 6)
            self.slots = list(self.history.unbind(0))

        def forward(self, x):
            self.slots[self.step % 3].copy_(x)
            self.step += 1
            return self.fc(self.history.sum(0))

    counter, x = fxsynops.SynOpsCounter(History(), torch.ones(2, 6)), torch.ones(2, 6)
    counted = []
    for _ in range(4):
        counter(x)
        counted.append(float(counter.synops.detach()))
    assert counted == [36, 72, 108, 108]


def test_events_with_a_constant_added_are_no_events_in_a_state():
    def shifts(net, s):
        net.z = s + 0.5

    counter = fxsynops.SynOpsCounter(Kept(shifts), torch.ones(2, 6))
    for _ in range(2):
        counter(torch.ones(2, 6))
        assert counter.per_synapse == {}
        assert [(row.synapse, row.macs) for row in counter.latest.dense] == [("fc", 18)]


def test_a_state_whose_events_are_worth_less_at_each_forward_is_refused():
    def fades(net, s):
        net.z = s * net.amplitude
        net.amplitude *= 0.5

    counter = fxsynops.SynOpsCounter(Kept(fades), torch.ones(2, 6))
    counter(torch.ones(2, 6))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="worth different amounts"):
        counter(torch.ones(2, 6))


@pytest.mark.parametrize("reads", ["nothing", "one", "both"])
def test_a_state_is_refused_where_a_forward_does_not_read_what_its_events_are_worth(reads):
    class Learns(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.z = nn.Linear(6, 3), torch.zeros(2, 6)
            self.a, self.b = (nn.Parameter(torch.tensor(n)) for n in (0.7, 1.9))

        def forward(self, x):
            y = self.fc(self.z)
            if self.training:
                self.z = (x * self.a * self.b).detach()
            return y + (
                0.0 if reads == "nothing" else self.a if reads == "one" else self.a + self.b
            )

    counter = fxsynops.SynOpsCounter(Learns(), torch.ones(2, 6))
    for _ in range(2):
        counter(torch.ones(2, 6))
    assert counter.counts.total == 36
    counter.eval()
    if reads == "both":
        counter(torch.ones(2, 6))
        assert counter.counts.total == 72
    else:
        with pytest.raises(fxsynops.UnsupportedOperationError, match="worth different amounts"):
            counter(torch.ones(2, 6))


def test_a_state_whose_worth_has_been_learned_anew_is_said():
    class Learns(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.z = nn.Linear(6, 3), torch.zeros(2, 6)
            self.amplitude = nn.Parameter(torch.tensor(0.7))

        def forward(self, x):
            y = self.fc(self.z)
            self.z = (x * self.amplitude).detach()
            return y

    counter, x = fxsynops.SynOpsCounter(Learns(), torch.ones(2, 6)), torch.ones(2, 6)
    for _ in range(2):
        counter(x)
    assert counter.counts.total == 36
    with torch.no_grad():
        counter.model.amplitude.fill_(0.9)
    counter(x)
    with pytest.raises(fxsynops.CountError, match="fractions among them"):
        _ = counter.counts


@pytest.mark.parametrize("kind", ["SpikingLSTM", "SpikingGRU", "SpikingVanillaRNN"])
def test_recurrent_networks_of_spikingjelly(kind):
    torch.manual_seed(0)
    model, x = getattr(rnn, kind)(8, 6, 2), spikes(4, 2, 8)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    y = counter(x)
    expected, synops, macs = watch(model, x)
    assert same(y, expected)
    assert (
        by_module(model, {k: float(v.detach()) for k, v in counter.per_synapse.items()}) == synops
    )
    assert macs == {}
    assert sum(synops.values()) > 0


def test_spikes_that_no_data_drives_are_counted():
    class Pacemaker(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.drive = nn.Linear(8, 5), nn.Linear(6, 5), torch.full((2, 6), 0.6)

        def forward(self, x):
            v, out = torch.zeros(2, 6), 0
            for _ in range(4):
                v = v + self.drive
                z = fire(v - 1)
                v = v * (1 - z)
                out = out + self.b(z)
            return out + fire(self.a(x))

    counter = fxsynops.SynOpsCounter(Pacemaker(), x := spikes(2, 8))
    counter(x)
    assert {name: float(n) for name, n in counter.per_synapse.items()} == {
        "a": float(x.sum()) * 5,
        "b": 2 * 2 * 6 * 5,  # 0.6 reaches 1 at every other step
    }


def test_weights_that_are_made_binary_are_no_spikes():
    class Binary(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = (nn.Parameter(torch.randn(n, 4)) for n in (4, 6))
            self.b = nn.Linear(6, 3)

        def forward(self, x):  # a weight of low rank, of binary factors
            weight = nn.functional.linear(fire(self.high), fire(self.low))
            return self.b(fire(nn.functional.linear(x, weight)))

    counter = fxsynops.SynOpsCounter(Binary(), x := spikes(2, 4))
    counter(x)
    assert float(counter.per_source["x"].detach()) == float(x.sum()) * 6
    assert len(counter.per_synapse) == 2


class Halves(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 0.5

    @staticmethod
    def backward(ctx, grad):
        return grad


class Picky(torch.autograd.Function):
    """Makes whole numbers only of what is below one."""

    @staticmethod
    def forward(ctx, x):
        return torch.where(x.abs() > 50, x * 0.3, (x > 0).float())

    @staticmethod
    def backward(ctx, grad):
        return grad


class Applies(nn.Module):
    def __init__(self, function, spiking):
        super().__init__()
        self.a, self.b = nn.Linear(8, 6, bias=False), nn.Linear(6, 5)
        self.function, self.spiking = function, spiking

    def forward(self, x):
        x = self.a(x)
        return self.b(self.function(fire(x) if self.spiking else x))


def test_a_function_is_no_neuron_because_the_example_is_all_zeros():
    counter = fxsynops.SynOpsCounter(Applies(Halves.apply, False), torch.zeros(2, 8))
    assert [row.synapse for row in counter.analysis.dense] == ["b"]


def test_a_function_that_makes_fractions_of_events_is_refused():
    with pytest.raises(fxsynops.UnsupportedOperationError, match="Halves"):
        fxsynops.analyze(Applies(Halves.apply, True), spikes(2, 8))


def test_a_function_that_turns_out_to_be_no_neuron():
    counter = fxsynops.SynOpsCounter(Applies(Picky.apply, False), torch.ones(2, 8))
    counter(torch.ones(2, 8) * 333)
    with pytest.raises(fxsynops.CountError, match="fractions among them"):
        _ = counter.counts


def test_scales_have_no_share_in_the_gradient():
    class Scaled(nn.Module):
        def __init__(self, p):
            super().__init__()
            self.a, self.b = nn.Linear(8, 6), nn.Linear(3, 2)
            self.p = nn.Parameter(torch.tensor(p))

        def forward(self, x):
            z = fire(self.a(x)) * self.p
            return self.b(nn.functional.max_pool1d(z.abs(), 2))

    for p in (0.3, 2.0, -0.7):
        torch.manual_seed(0)
        model, x = Scaled(p), spikes(2, 8)
        counter = fxsynops.SynOpsCounter(model, x)
        counter(x)
        counter.per_synapse["b"].backward()
        assert float(counter.per_synapse["b"].detach()) > 0
        assert abs(float(model.p.grad)) < 1e-5
        assert model.a.weight.grad.abs().sum() > 0
    model = Scaled(0.0)  # events that are worth nothing do not arrive
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    assert float(counter.per_synapse["b"].detach()) == 0
    assert counter.counts.total == float(x.sum()) * 6


@pytest.mark.parametrize("base", [nn.RNNCell, nn.LSTMCell])
def test_a_forward_of_the_users_own_is_traced_through(base):
    class Own(base):
        def forward(self, x, h):
            gates = nn.functional.linear(x, self.weight_ih) + nn.functional.linear(
                h, self.weight_hh
            )
            return fire(gates[:, :6])

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = Own(8, 6), nn.Linear(6, 3)

        def forward(self, x):
            h = torch.zeros(2, 6)
            for step in x:
                h = self.cell(step, h)
            return self.out(h)

    torch.manual_seed(0)
    model, x = Loop(), spikes(3, 2, 8)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    counter(x)
    _, synops, _ = watch(model, x)
    assert (
        by_module(model, {k: float(v.detach()) for k, v in counter.per_synapse.items()}) == synops
    )


def test_a_spiking_hidden_state_of_a_cell():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.RNNCell(8, 6)

        def forward(self, x):
            h, seen = torch.zeros(2, 6), []
            for step in x:
                h = fire(self.cell(step, h))
                seen.append(h)
            return torch.stack(seen)

    torch.manual_seed(0)
    model, x = Loop(), spikes(3, 2, 8)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    emitted = counter(x)
    assert (
        float(counter.per_synapse["cell.weight_hh"].detach())
        == float(emitted[:-1].sum().detach()) * 6
    )
    assert counter.analysis.dense == ()


def test_a_state_that_starts_as_the_same_tensor_as_another_one():
    class Restarts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3)
            self.start = torch.zeros(2, 6)
            self.mem = self.start

        def forward(self, x):
            self.mem = self.mem + self.a(x)
            z = (self.mem > 1).float()
            self.mem = self.mem - z
            return self.b(z)

    model, x = Restarts(), spikes(2, 8)
    counter, twin = fxsynops.SynOpsCounter(model, x), copy.deepcopy(model)
    with torch.no_grad():
        for i in range(6):
            assert torch.equal(counter(x), twin(x))
            if i == 3:
                model.mem, twin.mem = model.start, twin.start
    assert counter.counts.rows[-1].events > 0


def test_attributes_and_methods_of_a_class_are_conditions_too():
    class Scaled(nn.Module):
        gain = 1.0

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def sharpen(self, x):
            return x * self.gain

        def forward(self, x):
            return self.b(fire(self.sharpen(self.a(x)) - 0.2))

    model, x = Scaled(), spikes(4, 6)
    counter = fxsynops.SynOpsCounter(model, x)

    def agrees():
        fresh = fxsynops.SynOpsCounter(model, x)
        return torch.equal(counter(x), model(x)) and (fresh(x), counter.synops == fresh.synops)[1]

    assert agrees()
    first = float(counter.synops.detach())
    model.gain = 10.0
    assert agrees()
    assert float(counter.synops.detach()) > first
    del model.gain
    Scaled.gain = -5.0
    assert agrees()
    model.sharpen = lambda x: x + 1
    assert agrees()
    Scaled.forward = lambda self, x: self.b(fire(self.a(x)))
    assert agrees()


def test_tied_weights_that_are_untied_make_a_trace_anew():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.dec = nn.Linear(6, 6), nn.Linear(6, 6)
            self.dec.weight = self.enc.weight

        def forward(self, x):
            return self.dec(fire(self.enc(x)))

    model, x = Tied(), spikes(2, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    assert torch.equal(counter(x), model(x))
    model.dec.weight = nn.Parameter(torch.ones(6, 6))
    assert torch.equal(counter(x), model(x))


@pytest.mark.parametrize("value", [None, 1.0, [1.0]])
def test_a_state_that_becomes_something_else_makes_a_trace_anew(value):
    class Integrates(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.mem = nn.Linear(8, 6), nn.Linear(6, 3), None

        def forward(self, x):
            current = self.a(x)
            tensor = isinstance(self.mem, torch.Tensor)
            self.mem = self.mem * 0.9 + current if tensor else current
            return self.b((self.mem > 0).float())

    model, x = Integrates(), spikes(2, 8)
    counter, twin = fxsynops.SynOpsCounter(model, x), copy.deepcopy(model)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(counter(x), twin(x))
        model.mem = twin.mem = value
        for _ in range(2):
            assert torch.equal(counter(x), twin(x))
