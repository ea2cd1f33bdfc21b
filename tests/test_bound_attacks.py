"""What once broke an upper bound, or could: each network is sound now, or refused with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import sinabs.activation as sa
import sinabs.layers as sl
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import base, surrogate
from spikingjelly.activation_based import neuron as sj
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import InputError

STEPS = 8


class Net(nn.Module):
    """A forward given as a function of the module, and its parts."""

    def __init__(self, run: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


def linear(weight: float, inputs: int = 3, outputs: int = 3, dtype=torch.float32) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False, dtype=dtype)
    nn.init.constant_(layer.weight, weight)
    return layer


def whole(between: Callable[..., Tensor] = lambda net, y: y) -> Callable[..., Tensor]:
    """All steps at once, with something between the synapse and the neuron."""
    return lambda net, x: net.out(net.neuron(between(net, net.fc(x)).transpose(0, 1)))


def stepwise(step: Callable[[Net, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda net, x: torch.stack([step(net, x[:, t]) for t in range(STEPS)], 1)


def integrate(**options: Any) -> nn.Module:
    return sj.IFNode(**({"v_reset": None, "step_mode": "m"} | options))


def assert_sound(make: Callable[[], nn.Module], *xs: Tensor, **assumed: Any) -> fxsynops.Bound:
    """Ones are measured on a twin of the network that is bounded."""
    example = xs if len(xs) > 1 else xs[0]
    bound = fxsynops.analyze(make(), example, layout="NT").upper_bound(**assumed)
    counter = fxsynops.SynOpsCounter(make(), example, layout="NT")
    with torch.no_grad():
        counter(*xs)
    measured = {row.connection.key: row.synops for row in counter.counts.rows}
    assert set(measured) == {row.connection.key for row in bound.rows}
    for row in bound.rows:
        assert measured[row.connection.key] <= row.charge <= row.structural
    assert sum(measured.values()) > 0
    return bound


ONES = torch.ones(1, STEPS, 3)


# -- states ----------------------------------------------------------------------------------------


def leaking(net: Net, x: Tensor) -> Tensor:
    net.trace = net.trace * 0.9 + x
    return net.out(net.neuron(net.fc(net.trace)))


def fed_back(net: Net, x: Tensor) -> Tensor:
    net.last = net.neuron(net.fc(x) + (0 if net.last is None else net.back(net.last)))
    return net.out(net.last)


class Filter(base.MemoryModule):
    """A trace that spikes reset, in spikingjelly's way of keeping states."""

    def __init__(self):
        super().__init__()
        self.register_memory("trace", 0.0)

    def forward(self, x):
        self.trace = self.trace - (1 - x) * self.trace / 100 + x
        return self.trace


@pytest.mark.parametrize(
    "make",
    [
        lambda: Net(leaking, fc=linear(0.05), neuron=sj.IFNode(), out=linear(1, 3, 2), trace=0.0),
        lambda: Net(
            fed_back, fc=linear(0.2), back=linear(0.3), neuron=sj.IFNode(), out=linear(1), last=None
        ),
        lambda: nn.Sequential(Filter(), linear(0.2), sj.IFNode(), linear(1)),
    ],
)
def test_states_that_are_no_tensors_yet_do_not_stand_for_later_forwards(make):
    model, x = make(), torch.ones(1, 3)
    analysis = fxsynops.analyze(model, x)
    assert analysis.upper_bound(1).total > 0
    with pytest.raises(InputError, match="Run the model once on an example"):
        analysis.upper_bound(8)
    with torch.no_grad():
        model(x)
    bound = fxsynops.analyze(model, x).upper_bound(8)
    counter = fxsynops.SynOpsCounter(model, x)
    with torch.no_grad():
        for _ in range(8):
            counter(x)
    measured = {row.connection.key: row.synops * 8 for row in counter.counts.rows}
    for row in bound.rows:
        assert measured[row.connection.key] / counter.counts.samples <= row.charge


@pytest.mark.parametrize(
    ("weight", "make"),
    [
        (5.0, lambda: sl.IAF(spike_fn=sa.SingleSpike)),
        (0.3, lambda: sl.IAF(tau_syn=50.0)),
        (0.4, lambda: sl.IAFRecurrent(linear(0.3))),
        (5.0, lambda: fnn.IAF(max_spikes_per_step=1)),
    ],
)
def test_a_neuron_called_on_pieces_of_different_length(weight, make):
    def pieces(net, x):
        parts = [net.neuron(net.fc(part)) for part in (x[:, :1], x[:, 1:])]
        return net.out(torch.cat(parts, 1))

    assert_sound(lambda: Net(pieces, fc=linear(weight), neuron=make(), out=linear(1)), ONES)


def set_potential(net, x):
    net.neuron.v = 0.0
    return net.out(net.neuron(net.fc(x)))


def lift_potential(net, x):
    y = net.out(net.neuron(net.fc(x)))
    net.neuron.mem.add_(1.0)
    return y


def lower_threshold(net, x):
    net.neuron.threshold.fill_(0.01)
    return net.out(net.neuron(net.fc(x)))


def no_reset_level(net, x):
    y = net.out(net.neuron(net.fc(x)))
    net.neuron.v_reset = None
    return y


def lift_in_a_list(net, x):
    y = net.out(net.neuron(net.fc(x)))
    torch._foreach_add_([net.neuron.mem], 1.0)
    return y


def lift_by_an_overload(net, x):
    y = net.out(net.neuron(net.fc(x)))
    torch.ops.aten.add_.Scalar(net.neuron.mem, 1.0)
    return y


def clamp_in_place(net, x):
    y = net.out(net.neuron(net.fc(x)))
    F.hardtanh(net.neuron.mem, 5.0, 9.0, inplace=True)
    return y


def triple_potential(net, x):
    y = net.out(net.neuron(net.fc(x)))
    net.neuron.v = net.neuron.v * 3
    return y


@pytest.mark.parametrize(
    ("step", "weight", "make"),
    [
        (set_potential, 0.34, lambda: sj.IFNode(v_reset=-3.0)),
        (lift_potential, 0.2, lambda: snntorch.Leaky(1.0, init_hidden=True)),
        (lower_threshold, 0.1, lambda: snntorch.Leaky(1.0, init_hidden=True)),
        (triple_potential, 0.5, lambda: sj.IFNode()),
        (set_potential, 0.17, lambda: sj.ActivationAwareIFNode(1.0, 0.5)),
        (no_reset_level, 0.3, lambda: sj.IFNode(v_reset=-3.0)),
        (lift_in_a_list, 0.1, lambda: snntorch.Leaky(1.0, init_hidden=True)),
        (lift_by_an_overload, 0.1, lambda: snntorch.Leaky(1.0, init_hidden=True)),
        (clamp_in_place, 0.1, lambda: snntorch.Leaky(1.0, init_hidden=True)),
    ],
)
def test_a_forward_that_writes_to_its_neurons_ends_the_argument(step, weight, make):
    if weight == 0.17 and not hasattr(sj, "ActivationAwareIFNode"):
        pytest.skip("this spikingjelly has no neurons with offsets")
    bound = assert_sound(
        lambda: Net(stepwise(step), fc=linear(weight), neuron=make(), out=linear(1)), ONES
    )
    assert "the model's forward" in bound.rows[1].reasons[0]


def test_a_forward_that_resets_its_neurons_keeps_the_argument():
    def resets(net, x):
        net.neuron.reset_states()
        return net.out(net.neuron(net.fc(x)))

    for layers in (fnn, sl):
        model = Net(resets, fc=linear(0.2), neuron=layers.IAF(), out=linear(1))
        with torch.no_grad():
            model(ONES)
        assert assert_sound(lambda model=model: model, ONES).rows[1].charge < math.inf


def test_random_states_end_the_argument():
    def scrambles(net, x):
        net.neuron.reset_states(randomize=True)
        return net.out(net.neuron(net.fc(x)))

    neuron = sl.IAF(spike_threshold=torch.tensor(0.2))
    model = Net(scrambles, fc=linear(0.01), neuron=neuron, out=linear(1))
    model(torch.zeros_like(ONES))
    bound = fxsynops.analyze(model, ONES, layout="NT").upper_bound()
    assert bound.rows[1].charge == math.inf


def test_states_that_are_handed_over_in_another_order_end_the_argument():
    def swapped(net, x):
        current = membrane = None
        out = []
        for t in range(STEPS):
            spikes, syn, mem = net.neuron(net.fc(x[:, t]), current, membrane)
            current, membrane = mem, syn
            out.append(net.out(spikes))
        return torch.stack(out, 1)

    bound = assert_sound(
        lambda: Net(swapped, fc=linear(0.2), neuron=snntorch.Synaptic(0.0, 1.0), out=linear(1)),
        ONES,
    )
    assert bound.rows[1].reasons


def in_part(net, x):
    returned = net.neuron(net.fc(x[:, 0]))
    out = [net.out(returned[0])]
    for t in range(1, STEPS):
        returned = net.neuron(net.fc(x[:, t]), returned[2])  # the membrane for the current
        out.append(net.out(returned[0]))
    return torch.stack(out, 1)


def by_keyword(net, x):
    spikes, *states = net.neuron(net.fc(x[:, 0]), mem=torch.full((1, 3), 5.0))
    out = [net.out(spikes)]
    for t in range(1, STEPS):
        spikes, *states = net.neuron(net.fc(x[:, t]), *states)
        out.append(net.out(spikes))
    return torch.stack(out, 1)


@pytest.mark.parametrize(
    ("run", "neuron"),
    [
        (in_part, lambda: snntorch.Synaptic(0.5, 0.9)),
        (by_keyword, lambda: snntorch.Synaptic(0.0, 1.0)),
        (by_keyword, lambda: snntorch.Leaky(1.0)),
    ],
)
def test_states_that_are_handed_over_in_part_or_by_keyword(run, neuron):
    assert_sound(lambda: Net(run, fc=linear(0.1), neuron=neuron(), out=linear(1)), ONES)


@pytest.mark.parametrize(
    "write",
    [
        lambda net: net.fc.weight.data.mul_(2),
        lambda net: setattr(net.fc.weight, "data", net.fc.weight.data + 0.5),
    ],
)
def test_parameters_written_to_out_of_sight_from_forward_to_forward(write):
    def run(net, x):
        y = net.out(net.neuron(net.fc(x)))
        write(net)
        return y

    model = Net(run, fc=linear(0.02), neuron=sj.IFNode(), out=linear(1))
    with pytest.raises(InputError, match=r"changes 'fc\.weight' from forward"):
        fxsynops.analyze(model, torch.ones(1, 3)).upper_bound(8)


# -- hooks, patches and subclasses -----------------------------------------------------------------


def hooked_input() -> nn.Module:
    neuron = integrate()
    neuron.register_forward_pre_hook(lambda module, args: (5 * args[0],))
    return neuron


def hooked_output() -> nn.Module:
    neuron = integrate()
    neuron.register_forward_hook(lambda module, args, y: 2 * y)
    return neuron


@pytest.mark.parametrize(("weight", "make"), [(0.1, hooked_input), (0.5, hooked_output)])
def test_hooks_on_neurons_end_the_argument(weight, make):
    assert_sound(lambda: Net(whole(), fc=linear(weight), neuron=make(), out=linear(1)), ONES)


def test_patched_forwards_and_hooked_recurrence_end_the_argument():
    def patched():
        neuron = sl.IAF()
        forward = neuron.forward
        neuron.forward = lambda x: forward(5 * x)
        return neuron

    def hooked():
        back = linear(-0.1)
        back.register_forward_hook(lambda module, args, y: -3 * y)
        return sl.IAFRecurrent(back)

    for make in (patched, hooked):
        assert_sound(
            lambda make=make: Net(
                lambda net, x: net.out(net.neuron(net.fc(x))),
                fc=linear(0.5),
                neuron=make(),
                out=linear(1),
            ),
            ONES,
        )


class Triple(sj.IFNode):
    def forward(self, x):
        return 3 * super().forward(x)


def patched(**methods: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        neuron = snntorch.Leaky(1.0, init_hidden=True)
        for name, method in methods.items():
            setattr(neuron, name, method(neuron))
        return neuron

    return make


@pytest.mark.parametrize(
    ("weight", "make"),
    [
        (0.5, lambda: Triple(surrogate_function=surrogate.Sigmoid())),
        (
            2.0,
            lambda: snntorch.Leaky(
                1.0, init_hidden=True, spike_grad=lambda x: F.relu(torch.floor(x + 1))
            ),
        ),
        (0.1, patched(state_function=lambda n: lambda x: n.mem + 5 * x)),
        (0.1, patched(fire=lambda n: lambda mem: (mem > 0.05).float())),
    ],
)
def test_neurons_that_put_out_something_else_have_no_cap(weight, make):
    bound = assert_sound(
        lambda: Net(
            stepwise(lambda net, x: net.out(net.neuron(net.fc(x)))),
            fc=linear(weight),
            neuron=make(),
            out=linear(1),
        ),
        ONES,
    )
    assert bound.rows[1].structural == math.inf


def test_a_batch_norm_with_a_forward_of_its_own_is_not_taken_for_affine():
    class Rectified(nn.BatchNorm1d):
        def forward(self, x):
            return F.relu(super().forward(x))

    def make():
        norm = Rectified(3).eval()
        nn.init.constant_(norm.bias, -1.0)
        return nn.Sequential(linear(1.0), norm, fnn.NeuromorphicReLU(), linear(1.0))

    bound = fxsynops.analyze(make(), torch.ones(1, 3)).upper_bound()
    counter = fxsynops.SynOpsCounter(make(), torch.ones(1, 3))
    counter(torch.ones(1, 3))
    assert 0 < counter.counts.rows[1].synops <= bound.rows[1].charge


@pytest.mark.parametrize(
    ("change", "before", "between"),
    [
        (lambda m: setattr(m, "gain", 5.0), integrate, lambda net, y: y * net.gain),
        (lambda m: setattr(m, "fc", linear(0.3)), integrate, lambda net, y: y),
        (lambda m: setattr(m, "neuron", integrate(v_threshold=0.1)), integrate, lambda net, y: y),
    ],
)
def test_a_bound_is_of_the_model_as_it_is_now(change, before, between):
    model = Net(whole(between), fc=linear(0.05), neuron=before(), out=linear(1), gain=1.0)
    analysis = fxsynops.analyze(model, ONES, layout="NT")
    change(model)
    bound = analysis.upper_bound()
    counter = fxsynops.SynOpsCounter(model, ONES, layout="NT")
    counter(ONES)
    assert 0 < counter.counts.rows[1].synops <= bound.rows[1].charge


def test_so_is_its_cap():
    model = Net(
        lambda net, x: net.out(net.neuron(net.fc(x))),
        fc=linear(5.0),
        neuron=sl.IAF(spike_fn=sa.SingleSpike),
        out=linear(1),
    )
    analysis = fxsynops.analyze(model, ONES, layout="NT")
    assert analysis.upper_bound().rows[1].structural == STEPS * 3 * 3
    model.neuron.spike_fn = sa.MultiSpike
    assert analysis.upper_bound().rows[1].structural == math.inf


# -- operations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gate",
    [
        lambda x: torch.where(x > 0, 3.0, x),
        lambda x: torch.maximum(x, torch.tensor(5.0)),
        lambda x: torch.minimum(x, torch.tensor(-4.0)),
        lambda x: x.clamp(min=torch.tensor(2.0)),
        lambda x: x.clamp(-5, -3),
        lambda x: x.clamp_max(-4.0),
        lambda x: F.hardtanh(x, -9.0, -5.0),
        lambda x: x.masked_fill(x > 0, -7.0),
        lambda x: x.masked_fill(x > 0, torch.tensor(7.0)),
        lambda x: F.prelu(-x, torch.tensor([3.0])),
        lambda x: torch.threshold(x, 2.0, 6.0),
        lambda x: F.relu(x * 0.7),
    ],
)
def test_gates_that_put_constants_in_the_place_of_events(gate):
    assert_sound(lambda: Net(lambda net, x: net.out(gate(x)), out=linear(1)), ONES)


def written(write: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    def gate(spikes: Tensor) -> Tensor:
        spikes = spikes.clone()
        write(spikes)
        return F.relu(spikes)

    return gate


def six(features: int = 1) -> Tensor:
    return torch.full((1, STEPS, features), 6.0)


@pytest.mark.parametrize(
    "between",
    [
        lambda s: (-s).clamp(max=-2.0),
        lambda s: (-s).clamp(min=2.0),
        lambda s: (-0.5 * s).clamp(max=-2.0),
        lambda s: torch.clamp_max(-s, -2),
        lambda s: s.clamp(min=s.flip(-1) * 3),
        lambda s: (s * 0.25).clamp(min=s.flip(-1)),
        lambda s: F.relu(torch.cat([s[..., 1:], six()], -1)),
        lambda s: torch.stack([s, six(3)]).max(0)[0],
        lambda s: F.relu(F.lp_pool1d(F.pad(s, (1, 1)), 1, 3, 1)),
        lambda s: F.relu((s.to(torch.uint8) - 1).float()),
        lambda s: (-s.to(torch.uint8)).float(),
        lambda s: s.sum(-1, keepdim=True, dtype=torch.float32).expand(-1, -1, 3),
        written(lambda s: s.__setitem__((..., 0), 6.0)),
        written(lambda s: s[..., 0].copy_(six()[..., 0])),
        written(lambda s: s[..., 0].fill_(6.0)),
        written(lambda s: torch.ops.aten.fill_.Scalar(s[..., 0], 6.0)),
    ],
)
def test_gates_and_routing_between_two_layers(between):
    def run(net, x):
        spikes = net.first(net.fc1(x).transpose(0, 1)).transpose(0, 1)
        return net.out(net.second(net.fc2(between(spikes)).transpose(0, 1)))

    assert_sound(
        lambda: Net(
            run,
            fc1=linear(0.2),
            first=integrate(),
            fc2=linear(0.3),
            second=integrate(),
            out=linear(1),
        ),
        ONES,
    )


@pytest.mark.parametrize(
    "attend",
    [
        lambda q, k, v: q @ k.mT @ v,
        lambda q, k, v: torch.baddbmm(torch.ones(8, 8), q, k.mT) @ v,
        lambda q, k, v: torch.addmm(torch.ones(8, 8) * 3, q[0], k[0].mT)[None] @ v,
        lambda q, k, v: F.linear(q[0], k[0], torch.ones(8) * 3)[None] @ v,
    ],
)
def test_products_of_spikes(attend):
    def run(net, x):
        heads = [
            neuron(layer(x).transpose(0, 1)).transpose(0, 1)
            for layer, neuron in zip(net.layers, net.neurons, strict=True)
        ]
        return net.out(attend(*heads))

    assert_sound(
        lambda: Net(
            run,
            layers=nn.ModuleList(linear(w, 3, 4) for w in (0.3, 0.4, 0.5)),
            neurons=nn.ModuleList(integrate() for _ in range(3)),
            out=linear(1, 4, 2),
        ),
        ONES,
    )


def test_weights_that_are_no_longer_zero():
    model = nn.Sequential(nn.Linear(3, 5, bias=False), sl.IAF(), linear(1.0, 5, 2))
    nn.init.zeros_(model[0].weight)
    analysis = fxsynops.analyze(model, ONES, layout="NT", weights="nonzero")
    assert analysis.upper_bound().rows[0].structural == 0
    nn.init.ones_(model[0].weight)
    assert analysis.upper_bound().rows[0].structural == STEPS * 3 * 5


@pytest.mark.parametrize(
    "between",
    [
        lambda y: torch.relu(input=y),
        lambda y: torch.add(input=y, other=y),
        lambda y: torch.mul(input=y, other=2.0),
        lambda y: torch.sub(input=y, other=-y),
        lambda y: torch.clamp(input=y, min=0.0),
        lambda y: torch.abs(input=y),
        lambda y: torch.sigmoid(input=y),
        lambda y: torch.div(input=y, other=0.5),
        lambda y: y * y.mean(),
        lambda y: torch.addmm(-y[0], torch.zeros(8, 3), torch.ones(3, 3), beta=-1)[None],
        lambda y: -F.avg_pool2d(y[:, None], 1, divisor_override=-1)[:, 0],
        lambda y: y * torch.poisson(torch.ones(3)),
        lambda y: y * F.gumbel_softmax(torch.zeros(3), -1) * 3,
    ],
)
def test_operations_between_synapse_and_neuron(between):
    make = integrate
    torch.manual_seed(0)
    for _ in range(5):  # random ones, too
        assert_sound(
            lambda: Net(
                whole(lambda net, y: between(y)), fc=linear(0.5), neuron=make(), out=linear(1)
            ),
            ONES,
        )


def test_recurrent_weights_behind_hooks_fall_back():
    with pytest.warns(FutureWarning):
        back = nn.utils.weight_norm(linear(0.3))
    model = nn.Sequential(linear(0.1), sl.IAFRecurrent(back), linear(1))
    row = fxsynops.analyze(model, ONES, layout="NT").upper_bound().rows[-1]
    assert "recurrence is no single linear layer" in row.reasons[0]


@pytest.mark.parametrize("weight", [0.1, 0.2, 0.3, 0.6])
def test_python_numbers_are_not_rounded_to_float32(weight):
    x = torch.ones(1, STEPS, 1, dtype=torch.float64)

    def make():
        neuron = sj.IFNode(weight, v_reset=0.0, step_mode="m")
        double = torch.float64
        return Net(
            whole(), fc=linear(weight, 1, 1, double), neuron=neuron, out=linear(1, 1, 2, double)
        )

    bound = assert_sound(make, x)
    assert bound.rows[1].charge == bound.rows[1].structural
    scaled = nn.Sequential(linear(1 / 0.7, 1, 1, torch.float64), fnn.NeuromorphicReLU())
    scaled.append(linear(1, 1, 2, torch.float64))
    model = Net(lambda net, x: net.body[1:](net.body[0](x) * 0.7), body=scaled)
    assert_sound(lambda: model, x)


def into_a_narrow_buffer(y: Tensor) -> Tensor:
    buffer = torch.zeros(y.shape, dtype=torch.bfloat16)
    buffer[:] = y
    return buffer.float()


@pytest.mark.parametrize(
    ("weight", "cast"),
    [
        (0.4995, lambda y: y.to(torch.bfloat16).float()),
        (0.49999, lambda y: y.half().float()),
        (0.4995, lambda y: y.type_as(torch.zeros(1, dtype=torch.bfloat16)).float()),
        (0.4995, lambda y: torch.empty_like(y, dtype=torch.bfloat16).copy_(y).float()),
        (0.4995, into_a_narrow_buffer),
    ],
)
def test_casts_to_fewer_digits_round(weight, cast):
    # two inputs at 0.4995 are 0.999, which bfloat16 holds as 1.0: a spike at every step
    bound = assert_sound(
        lambda: Net(
            whole(lambda net, y: cast(y)), fc=linear(weight, 2), neuron=integrate(), out=linear(1)
        ),
        torch.ones(1, STEPS, 2),
    )
    assert bound.rows[-1].charge >= STEPS * 3 * 3


# -- inputs ----------------------------------------------------------------------------------------


def test_a_static_input_beside_one_over_time():
    def make():
        return Net(
            lambda net, x, y: net.out(
                net.neuron((net.fc(x) + net.static(y)[:, None]).transpose(0, 1))
            ),
            fc=linear(0.1),
            static=linear(0.05, 20),
            neuron=integrate(),
            out=linear(1),
        )

    spikes = torch.eye(STEPS)[None, :, :3] * 2
    assert_sound(make, spikes, torch.ones(1, 20) * 2, input_max_events=2)
    analysis = fxsynops.analyze(make(), (ONES, torch.ones(1, 20)), layout="NT")
    assert analysis.upper_bound(12).timesteps == 12


def test_inputs_inside_of_lists():
    model = Net(lambda net, xs: net.out(xs[0] + xs[1]), out=linear(1))
    bound = fxsynops.analyze(model, ([ONES, ONES],), layout="NT").upper_bound()
    assert bound.structural == bound.charge == 2 * STEPS * 3 * 3
