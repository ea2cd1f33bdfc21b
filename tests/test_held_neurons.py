"""What is known of the installed libraries' neurons, and how: by equations, and by hand."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import norse.torch as norse
import pytest
import sinabs.activation as sa
import sinabs.layers as sl
import snntorch
import torch
from norse.torch.functional.iaf import IAFParameters
from norse.torch.functional.lif import LIFParameters
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.functional.lif_refrac import LIFRefracParameters
from norse.torch.functional.lsnn import LSNNParameters
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.iaf import IAF as NorseIAF
from norse.torch.module.iaf import IAFCell
from norse.torch.module.lif_box import LIFBoxCell
from norse.torch.module.lif_refrac import LIFRefracCell
from norse.torch.module.lsnn import LSNN, LSNNCell
from snntorch import surrogate as snn_surrogate
from spikingjelly.activation_based import layer, surrogate
from spikingjelly.activation_based import neuron as sj
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.neurons import Chosen, describe, registry, reset_states
from fxsynops.neurons.dynamics import (
    Feedback,
    NoArgumentError,
    Start,
    Steps,
    above,
    as_double,
    excitation,
    is_heaviside,
    largest,
    number,
    positive,
    powers,
)
from tests.drives import (
    N,
    T,
    assert_drive,
    assert_is,
    assert_no_argument,
    dynamics,
    known,
    steps,
    taps,
)

STEP = ((2, N),) * T  # a call for each step
FIRST = ((T, 2, N),)  # time first
HELD = torch.tensor([[0.5, -1.0, 0.2], [0.25, 0.1, -0.3]])  # of two samples
MOST = torch.tensor([[0.5, 0.1, 0.2]])


# -- dynamics --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "shape", "inside"),
    [
        (Steps(), (2, 3), lambda x: [x]),
        (Steps(0), (4, 2, 3), lambda x: [x[t] for t in range(4)]),
        (Steps(1), (2, 4, 3), lambda x: [x[:, t] for t in range(4)]),
        (Steps(-1), (2, 3, 4), lambda x: [x[..., t] for t in range(4)]),
        (Steps(0, 2), (8, 3), lambda x: [x[2 * t : 2 * t + 2] for t in range(4)]),
        (Steps(1, 2), (8, 3), lambda x: [x[t::4] for t in range(4)]),
    ],
)
def test_steps_are_split_off_and_joined_again(steps, shape, inside):
    x = torch.arange(float(torch.tensor(shape).prod())).reshape(shape)
    split = steps.split(x)
    expected = inside(x)
    assert len(split) == len(expected)
    assert all(map(torch.equal, split, expected))
    assert torch.equal(steps.join(split), x)


def test_the_length_of_a_window_is_that_of_all_calls():
    start = Start(((2, 4, 3), (2, 5, 3)), passes=3)
    assert start.shape == (2, 4, 3)
    assert start.calls == 6
    assert start.length() == 6
    assert replace(start, steps=Steps(1)).length() == 3 * 9
    assert replace(start, steps=Steps(0)).length() == 3 * 4
    assert Start(((2, 3),)).calls == 1
    assert Start(((12, 3),), steps=Steps(1, 3)).length() == 4
    assert Start(((12, 3),), steps=Steps(0, 2)).length() == 6


def test_a_state_that_is_handed_over_comes_before_the_modules_own():
    start = Start(((2, 3),), given=(None, torch.tensor([0.5]), 2))
    assert start.state(None) is None
    assert start.state(torch.tensor([1.0])).tolist() == [1.0]
    assert start.state(torch.tensor([1.0]), 1).tolist() == [0.5]
    assert start.state(None, 2).item() == 2.0
    assert start.state(0.25, 3).item() == 0.25
    assert start.state(torch.zeros(0)) is None
    for held in (torch.ones(2, dtype=torch.float16, requires_grad=True), 3):
        found = start.state(held)
        assert found.dtype == torch.float64
        assert not found.requires_grad


def test_feedback_comes_late_and_settles_without_a_bias():
    events = torch.tensor([[1.0, 2.0]])
    for late, step in itertools.product((0, 1, 2), range(5)):
        feedback = Feedback(lambda e: 2 * e, torch.tensor([0.5, 0.0]), late)
        comes = 0.5 * max(step - late, 0)
        assert feedback.charge(events, step).tolist() == [[2.0 + comes, 4.0]]
        assert not feedback.settles
    for bias in (0.0, torch.zeros(2)):
        assert Feedback(lambda e: e, bias).settles
        assert Feedback(lambda e: e, bias).charge(events, 9).tolist() == [[1.0, 2.0]]
    assert not Feedback(lambda e: e, 0.1).settles


def test_numbers_are_read_in_float64_and_checked():
    assert as_double(0.1).item() == 0.1
    assert as_double(torch.tensor(0.1)).item() == float(torch.tensor(0.1))
    assert as_double(nn.Parameter(torch.ones(2))).requires_grad is False
    for value in (0.0, 0.5, 1.0, torch.tensor([0.0, 1.0])):
        assert torch.equal(number(value, "leak", 0, 1), as_double(value))
    for value in (-0.01, 1.01, torch.tensor([0.5, 1.5]), torch.tensor([-0.5, 0.5]), math.nan):
        with pytest.raises(NoArgumentError, match=r"its leak is not in \[0, 1\]"):
            number(value, "leak", 0, 1)
    assert number(-1e9, "level").item() == -1e9
    assert number(5, "level", low=0).item() == 5
    for read in (number, positive):
        with pytest.raises(NoArgumentError, match="its level is not set"):
            read(None, "level")
    assert positive(torch.tensor([0.1, 2.0]), "level").dtype == torch.float64
    for value in (0.0, -1.0, torch.tensor([1.0, 0.0])):
        with pytest.raises(NoArgumentError, match="its level is not positive"):
            positive(value, "level")


def test_what_is_above_a_level_is_that_of_the_largest_sample():
    assert above(None, 0.3) == 0.0
    assert above(torch.tensor(0.5), 0.2) == pytest.approx(0.3)
    assert above(torch.tensor(-0.5), 0.2) == 0.0
    assert above(torch.tensor([0.1, 0.9, -2.0]), 0.25).item() == pytest.approx(0.65)
    found = above(HELD, 0.15)
    torch.testing.assert_close(found, torch.tensor([[0.35, 0.0, 0.05]]))
    found = above(HELD, torch.tensor([0.0, -0.5, 1.0]))
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.6, 0.0]]))
    assert above(torch.ones(2, 3, 4), 0.0).shape == (1, 3, 4)


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 8, 300])
def test_powers_are_summed(first, count):
    bases = [0.0, 0.3, 0.999, 1 - 1e-8, 1 - 1e-12, 1.0]
    expected = [math.fsum(base ** (first + k) for k in range(count)) for base in bases]
    found = powers(torch.tensor(bases, dtype=torch.float64), first, count)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0
    )
    above_one = powers(torch.tensor([1.5], dtype=torch.float64), first, count)
    assert above_one.item() == count  # a leak that grows is none


STEPS_FROM_0_TO_1: list[Callable[[Tensor], Tensor]] = [
    lambda v: (v > 0).float(),
    lambda v: (v >= 0).float(),
    lambda v: (v.sign() + 1).div(2).floor(),
    lambda v: torch.heaviside(v, torch.tensor(1.0)),
    lambda v: (v + torch.rand(()) * 1e-9 >= 0).float(),
]
NO_STEPS: list[Callable[[Tensor], Tensor]] = [
    torch.sigmoid,
    torch.sign,
    lambda v: 0.5 * (v > 0),
    lambda v: (v > 0.002).float(),
    lambda v: (v > 0.5).float(),
    lambda v: (v > 1).float(),
    lambda v: (v > -0.01).float(),
    lambda v: (v > -2).float(),
    lambda v: (v > -1e4).float(),
    lambda v: (v > 0).float() * (v < 500),
    lambda v: (v > 0) * v.ceil().clamp(max=2),
    lambda v: (v > 0).float() - (v < -500).float(),
    lambda v: (v <= 0).float(),
    lambda v: ((v > 0) & (v != 0.4)).float(),
    lambda v: torch.zeros_like(v),
    lambda v: torch.ones_like(v),
]


@pytest.mark.parametrize("place", [-1000.0, -1.0, -0.001, 0.001, 0.4, 1.0, 1000.0])
def test_a_step_with_a_bump_is_none(place):
    def bump(v: Tensor) -> Tensor:
        step = (v > 0).float()
        return torch.where((v - place).abs() < 1e-4, 1 - step, step)

    assert not is_heaviside(bump)


def test_a_spiking_function_is_a_step_from_0_to_1_or_none():
    before = torch.random.get_rng_state()
    assert [is_heaviside(step) for step in STEPS_FROM_0_TO_1] == [True] * len(STEPS_FROM_0_TO_1)
    assert [is_heaviside(other) for other in NO_STEPS] == [False] * len(NO_STEPS)
    assert torch.equal(torch.random.get_rng_state(), before)


def recurrence(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return layer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize(
    ("make", "sample"),
    [
        (lambda bias: nn.Linear(4, 4, bias=bias), (4,)),
        (lambda bias: nn.Conv1d(2, 2, 3, padding=1, bias=bias), (2, 5)),
        (lambda bias: nn.Conv2d(2, 2, 3, padding=1, bias=bias), (2, 4, 5)),
        (lambda bias: nn.Conv3d(1, 1, 3, padding=1, bias=bias), (1, 2, 3, 4)),
        (
            lambda bias: nn.Sequential(
                nn.Flatten(), nn.Linear(6, 6, bias=bias), nn.Unflatten(1, (2, 3)), nn.Identity()
            ),
            (2, 3),
        ),
    ],
)
def test_excitation_is_the_positive_part_of_one_layer(make, sample, bias, late):
    layer = recurrence(make(bias))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    feedback = excitation(layer, sample, late)
    events = torch.randint(3, (2, *sample)).double()
    positive = make(bias).double()
    for name, value in positive.named_parameters():
        value.data.copy_(before[name].double().clamp(min=0))
    with torch.no_grad():
        whole = positive(events).reshape(events.shape)
        silent = positive(torch.zeros_like(events)).reshape(events.shape)
    torch.testing.assert_close(feedback.weights(events), whole - silent)
    comes = torch.as_tensor(feedback.bias, dtype=torch.float64)
    torch.testing.assert_close(comes.expand(2, *sample), silent)
    assert comes.dim() == 0 or comes.shape == (1, *sample)
    assert feedback.late == late
    assert excitation(layer, sample).late == 0
    assert feedback.settles is not bool(silent.any())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert all(parameter.requires_grad for parameter in layer.parameters())
    assert not feedback.weights(events).requires_grad


def test_recurrence_that_is_no_single_layer_has_no_excitation():
    class Mine(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    hooked, patched = nn.Linear(4, 4), nn.Linear(4, 4)
    hooked.register_forward_hook(lambda m, a, y: -y)
    patched.forward = lambda x: -x
    for module in (
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()),
        nn.Identity(),
        Mine(4, 4),
        hooked,
        patched,
        nn.Sequential(nn.Identity(), hooked),
    ):
        with pytest.raises(NoArgumentError, match="no single linear layer or convolution"):
            excitation(module, (4,))


def test_the_largest_level_is_a_magnitude():
    assert largest() == 0.0
    assert largest(None) == 0.0
    assert largest(0.25, None, -0.75) == 0.75
    assert largest(torch.tensor([0.5, -2.0]), 1) == 2.0


# -- fxsynops --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clamp", "rest", "level"), [
    (None, 0.0, 0.0), (-0.5, 0.0, 0.5), (0.0, 0.0, 0.0), (0.25, 0.25, 0.25)
])  # fmt: skip
def test_own_neurons_pay_a_threshold_above_their_clamp(clamp, rest, level):
    for cap in (None, 3):
        neuron = fnn.IAF(0.75, cap, clamp)
        assert known(neuron).max_spikes == (cap or math.inf)
        assert known(neuron).spikes
        found = dynamics(neuron)
        assert_drive(found, 0.75 - rest, level=level)
        assert steps(neuron) == Steps(1)
        assert found.resets == {"v_mem": rest}
        neuron.v_mem = HELD
        assert_drive(dynamics(neuron), 0.75 - rest, 1.0, (MOST - rest).clamp(min=0), level)
        merged = fnn.IAFSqueeze(2, spike_threshold=0.75, max_spikes_per_step=cap, min_v_mem=clamp)
        assert steps(merged, (2 * T, N)) == Steps(1, 2)
        assert_drive(dynamics(merged, (2 * T, N)), 0.75 - rest, level=level)
    assert_no_argument(fnn.IAF(0.5, None, 0.5), "above its lowest potential")
    neuron.spike_threshold = -1.0
    assert_no_argument(neuron, "threshold")


@pytest.mark.parametrize("kind", [fnn.NeuromorphicReLU, sl.NeuromorphicReLU])
def test_a_rounding_relu_pays_one_for_each_event_or_half(kind):
    for stochastic, training in itertools.product((False, True), (False, True)):
        relu = kind(stochastic_rounding=stochastic).train(training)
        assert known(relu).spikes
        if stochastic and training:
            assert_no_argument(relu, "rounds at random")
        else:
            assert_drive(dynamics(relu), 0.5 if stochastic else 1.0)
            assert steps(relu) == Steps()
    assert not known(kind(quantize=False)).spikes
    assert describe(fnn.SumPool2d(2)) is None


# -- sinabs ----------------------------------------------------------------------------------------

SINABS: dict[str, Callable[..., Any]] = {
    "IAF": sl.IAF,
    "LIF": lambda **more: sl.LIF(tau_mem=2.0, norm_input=False, **more),
    "LIF, input": lambda **more: sl.LIF(tau_mem=2.0, norm_input=True, **more),
    "IAFRecurrent": lambda **more: sl.IAFRecurrent(rec_connect=nn.Linear(N, N), **more),
    "LIFRecurrent": lambda **more: sl.LIFRecurrent(
        tau_mem=2.0, rec_connect=nn.Linear(N, N), norm_input=False, **more
    ),
}
RESETS: dict[str, tuple[Callable[[], Any], float | None]] = {
    "subtract": (sa.MembraneSubtract, None),
    "subtract less": (lambda: sa.MembraneSubtract(0.25), 0.25),
    "subtract more": (lambda: sa.MembraneSubtract(0.7), 0.7),
    "reset": (sa.MembraneReset, 0.0),
    "reset below": (lambda: sa.MembraneReset(-0.4), -0.4),
    "reset above": (lambda: sa.MembraneReset(0.3), 0.3),
}


@pytest.mark.parametrize("name", SINABS)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("clamp", [None, -0.5, 0.125])
@pytest.mark.parametrize("tau_syn", [None, 3.0])
def test_sinabs_neurons_pay_what_a_reset_takes_off(name, reset, clamp, tau_syn):
    make, value = RESETS[reset]
    theta, rest = 0.75, max(clamp or 0.0, 0.0)
    neuron = SINABS[name](
        spike_threshold=torch.tensor(theta), reset_fn=make(), min_v_mem=clamp, tau_syn=tau_syn
    )
    level, comes = abs(clamp or 0.0), 0.0
    removes = theta - rest
    if reset.startswith("subtract"):
        removes = min(theta if value is None else value, removes)
    else:
        level, comes = max(level, abs(value)), T * max(value, 0.0)
    gain = 1 - math.exp(-0.5) if name == "LIF, input" else 1.0
    reach = 1.0 if tau_syn is None else taps(math.exp(-1 / tau_syn), 1)
    assert_drive(dynamics(neuron), removes, gain * reach, comes, level)
    with torch.no_grad():
        neuron(torch.zeros(2, 1, N))
        neuron.v_mem.copy_(HELD)
        if tau_syn is not None:
            neuron.i_syn.copy_(2 * HELD)
    start = (HELD - rest).clamp(min=0).amax(0) + comes
    if tau_syn is not None:
        start = start + gain * reach * 2 * HELD.clamp(min=0).amax(0)
    found = dynamics(neuron)
    assert_drive(found, removes, gain * reach, start, level)
    assert steps(neuron) == Steps(1)
    assert (found.feedback is not None) is ("Recurrent" in name)
    assert found.feedback is None or found.feedback.late == 1
    assert found.resets.keys() == {"v_mem", "i_syn"}
    assert float(found.resets["v_mem"]) == rest
    assert found.resets["i_syn"] == 0.0


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("clamp", [None, -0.5, 0.125])
@pytest.mark.parametrize("tau_syn", [None, 3.0])
def test_sinabs_adaptive_neurons_pay_their_first_threshold(norm, clamp, tau_syn):
    rest, level = max(clamp or 0.0, 0.0), abs(clamp or 0.0)
    neuron = sl.ALIF(
        tau_mem=2.0,
        tau_adapt=5.0,
        tau_syn=tau_syn,
        spike_threshold=torch.tensor(0.75),
        min_v_mem=clamp,
        norm_input=norm,
    )
    gain = 1 - math.exp(-0.5) if norm else 1.0
    reach = gain if tau_syn is None else taps(math.exp(-1 / tau_syn) * gain, 1)
    assert_drive(dynamics(neuron), 0.75 - rest, reach, 0.0, level)
    with torch.no_grad():
        neuron(torch.zeros(2, 1, N))
        neuron.v_mem.copy_(HELD)
        if tau_syn is not None:
            neuron.i_syn.copy_(2 * HELD)
    start = (HELD - rest).clamp(min=0).amax(0)
    if tau_syn is not None:
        start = start + reach * 2 * HELD.clamp(min=0).amax(0)
    assert_drive(dynamics(neuron), 0.75 - rest, reach, start, level)
    assert float(dynamics(neuron).resets["v_mem"]) == rest
    assert steps(neuron) == Steps(1)
    neuron.b = neuron.b - 1.0
    assert_no_argument(neuron, "adaptation")


def test_what_no_argument_holds_for_in_sinabs():
    def adaptive(**more: Any) -> nn.Module:
        return sl.ALIF(tau_mem=2.0, tau_adapt=5.0, **more)

    for make in (*SINABS.values(), adaptive):
        assert_no_argument(make(spike_fn=lambda v, *_: v), "spike function")
        assert_no_argument(make(spike_threshold=torch.tensor(0.0)), "threshold")
        assert_no_argument(make(min_v_mem=1.0), "above its lowest potential")
    for make in SINABS.values():
        assert_no_argument(make(reset_fn=lambda *_: None), "its reset is a function")
        assert_no_argument(make(reset_fn=sa.MembraneSubtract(-0.5)), "subtracted value")
    assert_no_argument(adaptive(reset_fn=sa.MembraneSubtract(0.5)), "subtract its threshold")
    assert_no_argument(adaptive(reset_fn=sa.MembraneReset()), "subtract its threshold")
    assert_no_argument(adaptive(adapt_scale=-0.1), "adaptation scale")
    assert_drive(dynamics(adaptive(adapt_scale=0.0)), 1.0, 1 - math.exp(-0.5))
    mine = type("Mine", (sl.IAF,), {})()
    assert known(mine).dynamics is None
    assert known(sl.ALIFRecurrent(2.0, 5.0, nn.Linear(N, N))).dynamics is None


@pytest.mark.parametrize("kind", [sl.IAFSqueeze, lambda **more: sl.LIFSqueeze(tau_mem=2.0, **more)])
def test_sinabs_steps_are_behind_the_samples(kind):
    for merged in ({"batch_size": 2}, {"num_timesteps": T}):
        assert steps(kind(**merged), (2 * T, N)) == Steps(1, 2)
    neuron = kind(batch_size=2, tau_syn=3.0)
    gain = float(torch.as_tensor(dynamics(neuron, (2 * T, N)).up.gain))
    leak = 1.0 if kind is sl.IAFSqueeze else 1 - math.exp(-0.5)
    assert gain == pytest.approx(leak * taps(math.exp(-1 / 3), 1))


def test_sinabs_spike_functions_say_how_many_spikes_there_are():
    class MaxSpike:  # of the user's
        max_num_spikes_per_bin = 2

        def __call__(self, *_: Any) -> Any:
            return torch.zeros(1)

    for function, most, signed in (
        (sa.SingleSpike, 1, False),
        (sa.MultiSpike, math.inf, False),
        (sa.MaxSpike(3), 3, False),
        (sa.MaxSpike(), math.inf, False),
        (MaxSpike(), math.inf, True),
        (lambda *_: None, math.inf, True),
    ):
        for make in (sl.IAF, SINABS["LIF"], SINABS["LIFRecurrent"]):
            neuron = make(spike_fn=function)
            assert known(neuron).max_spikes == most
            assert known(neuron).signed is signed
            assert known(neuron).may_be_negative(neuron) is signed
            assert known(neuron).spikes
            assert (known(neuron).inside is not None) is (make is SINABS["LIFRecurrent"])
    assert not known(sl.ExpLeak(tau_mem=2.0)).spikes
    assert not known(sl.ExpLeak(tau_mem=2.0)).signed
    assert describe(sl.SumPool2d(2)) is None
    recurrent = (SINABS["IAFRecurrent"](), sl.ALIFRecurrent(2.0, 5.0, nn.Linear(N, N)))
    assert all(known(neuron).inside is not None for neuron in recurrent)
    assert known(sl.ALIF(2.0, 5.0)).inside is None


# -- snntorch --------------------------------------------------------------------------------------


def hidden(kind: Any, *args: Any, **options: Any) -> Any:
    return kind(*args, init_hidden=True, **options)


def held(neuron: Any, **states: Tensor) -> Any:
    for name, value in states.items():
        setattr(neuron, name, value)
    return neuron


@pytest.mark.parametrize("beta", [-0.2, 0.0, 0.6, 1.0, 1.3])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("delay", [False, True])
def test_snntorchs_membranes_are_charged_once_or_again_and_again(beta, reset, delay):
    neuron = hidden(snntorch.Leaky, beta, 0.7, reset_mechanism=reset, reset_delay=delay)
    decay = min(max(beta, 0.0), 1.0)
    again, later = (taps(decay), taps(decay, 1)) if reset == "none" else (1.0, 1.0)
    found = dynamics(neuron, *STEP)
    assert_drive(found, 0.7, again)
    assert steps(neuron, *STEP) == Steps()
    assert found.resets == {"mem": 0.0, "syn": 0.0, "spk": 0.0}
    assert_drive(dynamics(held(neuron, mem=HELD), *STEP), 0.7, again, later * MOST)
    given = dynamics(neuron, *STEP, given=(2 * HELD,))
    assert_drive(given, 0.7, again, later * 2 * MOST)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize(("step", "r", "c"), [(1.0, 2.0, 3.0), (0.5, 1.5, 1.25), (1.0, 1.0, 1.0)])
def test_snntorchs_circuits_charge_by_their_capacity(reset, step, r, c):
    neuron = hidden(
        snntorch.Lapicque, R=r, C=c, time_step=step, threshold=0.7, reset_mechanism=reset
    )
    decay = 1 - step / (r * c)
    again, later = (taps(decay), taps(decay, 1)) if reset == "none" else (1.0, 1.0)
    assert_drive(dynamics(neuron, *STEP), 0.7, step / c * again)
    neuron = held(neuron, mem=HELD)
    assert_drive(dynamics(neuron, *STEP), 0.7, step / c * again, later * MOST)
    neuron.time_step = torch.tensor(1.01 * r * c)
    assert_no_argument(neuron, "decay", *STEP)
    neuron.time_step, neuron.C = torch.tensor(1.0), torch.tensor(-3.0)
    assert_no_argument(neuron, "decay", *STEP)


@pytest.mark.parametrize("alpha", [-0.2, 0.0, 0.6, 1.0, 1.3])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_snntorchs_currents_reach_as_far_as_they_decay(alpha, reset):
    decay = min(max(alpha, 0.0), 1.0)
    neuron = hidden(snntorch.Synaptic, alpha, 0.9, 0.7, reset_mechanism=reset)
    assert_drive(dynamics(neuron, *STEP), 0.7, taps(decay))
    neuron = held(neuron, mem=HELD, syn=3 * HELD)
    assert_drive(dynamics(neuron, *STEP), 0.7, taps(decay), MOST + 3 * MOST * taps(decay, 1))
    given = dynamics(neuron, *STEP, given=(HELD, 2 * HELD))
    assert_drive(given, 0.7, taps(decay), 2 * MOST + MOST * taps(decay, 1))
    assert dynamics(neuron, *STEP).feedback is None


@pytest.mark.parametrize("all_to_all", [False, True])
@pytest.mark.parametrize("alpha", [None, 0.6, 1.3])
def test_snntorchs_recurrent_spikes_come_back(all_to_all, alpha):
    kind: Any = snntorch.RLeaky if alpha is None else snntorch.RSynaptic
    decays = (0.9,) if alpha is None else (alpha, 0.9)
    wiring: dict[str, Any] = {"all_to_all": True, "linear_features": N}
    weights = torch.tensor([[0.5, -1.0, 2.0], [0.0, -0.5, 0.25], [-0.5, 1.0, 0.0]])
    v = torch.tensor([0.5, -0.5, 2.0])
    if not all_to_all:
        wiring = {"all_to_all": False, "V": v}
    neuron = hidden(kind, *decays, threshold=0.7, **wiring)
    if all_to_all:
        neuron.recurrent.weight.data.copy_(weights)
        neuron.recurrent.bias.data.copy_(torch.tensor([0.1, -0.1, 0.3]))
    reach = 1.0 if alpha is None else taps(min(alpha, 1.0))
    found = dynamics(neuron, *STEP)
    assert_drive(found, 0.7, reach)
    events = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    positive = weights.clamp(min=0) if all_to_all else torch.diag(v.clamp(min=0))
    back = events @ positive.double().T
    torch.testing.assert_close(found.feedback.weights(events), back)
    comes = [[0.1, 0.0, 0.3]] if all_to_all else 0.0
    torch.testing.assert_close(
        *torch.broadcast_tensors(
            torch.as_tensor(found.feedback.bias, dtype=torch.float64),
            torch.tensor(comes, dtype=torch.float64),
        ),
        rtol=1e-6,
        atol=1e-7,
    )
    assert found.feedback.late == 0
    spikes = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
    neuron = held(neuron, spk=spikes, mem=HELD)
    left = (spikes.clamp(min=0) @ positive.T).amax(0)
    start = MOST + reach * left
    if alpha is not None:
        neuron = held(neuron, syn=3 * HELD)
        start = start + 3 * MOST * taps(min(alpha, 1.0), 1)
    assert_drive(dynamics(neuron, *STEP), 0.7, reach, start)
    given = (spikes, 2 * HELD) if alpha is None else (spikes, HELD, 2 * HELD)
    start = 2 * MOST + reach * left
    start = start if alpha is None else start + MOST * taps(min(alpha, 1.0), 1)
    assert_drive(dynamics(neuron, *STEP, given=given), 0.7, reach, start)
    once = held(neuron, spk=torch.tensor(1.0), mem=torch.zeros(0))
    start = reach * positive.sum(1) if alpha is None else None
    if start is not None:
        assert_drive(dynamics(once, *STEP), 0.7, reach, start)
    neuron.graded_spikes_factor = torch.tensor(0.5)
    assert_no_argument(neuron, "graded", *STEP)


@pytest.mark.parametrize(("alpha", "beta"), [(0.9, 0.8), (0.5, 0.1), (0.99, 0.2)])
def test_snntorchs_filters_peak_once(alpha, beta):
    neuron = hidden(snntorch.Alpha, alpha, beta, 0.4)
    worth = math.log(alpha) / (math.log(beta) - math.log(alpha)) + 1
    for count in (1, 2, 8, 30):
        peak = max(worth * (alpha**k - beta**k) for k in range(count + 1))
        assert_drive(dynamics(neuron, *((2, N),) * count), 0.4, max(peak, 0.0))
    for name in ("syn_exc", "syn_inh", "mem"):
        charged = held(hidden(snntorch.Alpha, alpha, beta, 0.4), **{name: torch.tensor([0.1])})
        assert_no_argument(charged, "filters hold charge", *STEP)
        position = ("syn_exc", "syn_inh", "mem").index(name)
        given = tuple(torch.full((1,), float(i == position)) for i in range(3))
        assert_no_argument(neuron, "filters hold charge", *STEP, given=given)
    peak = max(worth * (alpha**k - beta**k) for k in range(T + 1))
    assert_drive(dynamics(neuron, *STEP, given=(torch.zeros(1),) * 3), 0.4, max(peak, 0.0))
    for reset in ("subtract", "none"):
        other = hidden(snntorch.Alpha, alpha, beta, reset_mechanism=reset)
        assert_no_argument(other, "not to zero", *STEP)
    for bad in ((0.5, 0.0), (1.0, 0.5), (0.5, 0.6), (0.5, 0.5)):
        other = hidden(snntorch.Alpha, alpha, beta)
        other.alpha, other.beta = torch.tensor(bad[0]), torch.tensor(bad[1])
        assert_no_argument(other, "0 < β < α < 1", *STEP)
    for bad in ((1.1, 0.5), (-0.1, 0.5), (0.5, -0.1)):
        other = hidden(snntorch.Alpha, alpha, beta)
        other.alpha, other.beta = torch.tensor(bad[0]), torch.tensor(bad[1])
        assert_no_argument(other, "α|β", *STEP)
    other = hidden(snntorch.Alpha, alpha, beta)
    other.alpha = torch.tensor([alpha, alpha])
    assert_no_argument(other, "differ between neurons", *STEP)


def test_snntorchs_kernels_and_lstms():
    neuron = snntorch.StateLeaky(0.5, N, threshold=0.7)
    found = dynamics(neuron, (T, 2, N))
    assert_drive(found, 0.7, taps(math.exp(-0.5)))
    assert steps(neuron, (T, 2, N)) == Steps(0)
    for theta, fires in ((1.0, False), (1.5, False), (0.99, True)):
        lstm = hidden(snntorch.SLSTM, 2, N, threshold=theta)
        if fires:
            assert_no_argument(lstm, "LSTM's state", *STEP)
            continue
        assert_drive(dynamics(lstm, *STEP), theta, 0.0)
        for mem, fits in ((1.0, True), (1.01, False)):
            lstm = held(hidden(snntorch.SLSTM, 2, N, threshold=theta), mem=torch.full((1, N), mem))
            given = (torch.ones(1, N), torch.full((1, N), mem))
            lent = hidden(snntorch.SLSTM, 2, N, threshold=theta)
            if fits:
                assert_drive(dynamics(lstm, *STEP), theta, 0.0)
                assert_drive(dynamics(lent, *STEP, given=given), theta, 0.0)
            else:
                assert_no_argument(lstm, "membrane is above 1", *STEP)
                assert_no_argument(lent, "membrane is above 1", *STEP, given=given)


SNNTORCH: dict[str, Callable[..., Any]] = {
    "Leaky": lambda **more: snntorch.Leaky(0.9, **more),
    "Lapicque": lambda **more: snntorch.Lapicque(R=2.0, C=3.0, **more),
    "Synaptic": lambda **more: snntorch.Synaptic(0.9, 0.8, **more),
    "Alpha": lambda **more: snntorch.Alpha(0.9, 0.8, **{"reset_mechanism": "zero"} | more),
    "RLeaky": lambda **more: snntorch.RLeaky(0.9, linear_features=N, **more),
    "RSynaptic": lambda **more: snntorch.RSynaptic(0.9, 0.8, linear_features=N, **more),
    "SLSTM": lambda **more: snntorch.SLSTM(2, N, **more),
    "StateLeaky": lambda **more: snntorch.StateLeaky(0.5, N, **more),
}


@pytest.mark.parametrize("name", SNNTORCH)
def test_what_is_known_of_snntorchs_types(name):
    make = SNNTORCH[name]
    neuron = make()
    found = known(neuron)
    assert found.spikes
    assert found.max_spikes == 1
    assert not found.may_be_negative(neuron)
    assert not found.may_be_fraction(neuron)
    assert (found.inside is not None) is (name in ("RLeaky", "RSynaptic", "SLSTM"))
    shapes = ((T, 2, N),) if name == "StateLeaky" else STEP
    dynamics(neuron, *shapes)
    assert_no_argument(make(spike_grad=torch.tanh), "no step from 0 to 1", *shapes)
    assert_no_argument(make(state_quant=lambda x: x.round()), "quantized", *shapes)
    neuron.threshold = torch.tensor(0.0)
    assert_no_argument(neuron, "threshold", *shapes)
    odd = make(spike_grad=torch.tanh)
    assert known(odd).may_be_negative(odd)
    assert known(odd).may_be_fraction(odd)
    if name in ("Synaptic", "RLeaky", "RSynaptic"):
        assert_no_argument(make(reset_mechanism="none"), "no reset", *shapes)
    if name not in ("SLSTM",):
        for factor in (0.5, -0.5):
            graded = make()
            graded.graded_spikes_factor = torch.tensor(factor)
            worth = factor**2 if name == "StateLeaky" else factor
            assert float(known(graded).amplitude(graded)) == worth
            assert known(graded).signed is (factor < 0)
    mine = type("Mine", (type(make()),), {})
    assert known(make()).dynamics is not None
    clone = make()
    clone.__class__ = mine
    assert known(clone).dynamics is None
    smooth = make(spike_grad=snn_surrogate.fast_sigmoid())
    assert not known(smooth).may_be_fraction(smooth)


def test_what_is_known_of_snntorchs_other_types():
    assert not known(snntorch.StateLeaky(0.5, N, output=False)).spikes
    assert known(snntorch.LeakyParallel(2, N)).inside is not None
    assert known(snntorch.LeakyParallel(2, N)).checked is None
    assert known(snntorch.LeakyParallel(2, N)).max_spikes == 1
    assert describe(nn.Linear(2, 2)) is None
    for names, places in (
        (("mem",), {"spk": 0, "mem": 1}),
        (("spk", "mem"), {"spk": 0, "mem": 1}),
        (("spk", "syn", "mem"), {"spk": 0, "syn": 1, "mem": 2}),
        (("syn", "mem"), {"spk": 0, "syn": 1, "mem": 2}),
    ):
        assert known(snntorch.Leaky(0.9)).returned(names) == places
    assert registry.Neuron().returned(("v", "i")) == {"v": 1, "i": 2}
    leaky, synaptic = hidden(snntorch.Leaky, 0.9), hidden(snntorch.Synaptic, 0.9, 0.8)
    model = nn.Sequential(leaky, nn.ReLU(), synaptic)
    with torch.no_grad():
        model(torch.full((1, 2), 0.5))
    assert model[0].mem.any()
    assert reset_states(model) == [model[0], model[2]]
    assert not any(state.any() for state in (model[0].mem, model[2].mem, model[2].syn))


def test_snntorchs_early_neurons_hold_their_weights_and_states_themselves(monkeypatch):
    neuron = hidden(snntorch.RLeaky, 0.9, all_to_all=False, V=0.5)
    spikes = torch.tensor([[1.0, 0.0, 1.0]])
    inside = known(neuron).inside
    found = inside(neuron, {}, (spikes, None))["recurrent"]()
    torch.testing.assert_close(found, 0.5 * spikes)
    del neuron.all_to_all
    neuron.V = nn.Parameter(torch.tensor([0.25, -1.0, 2.0]))
    found = dynamics(neuron, *STEP).feedback.weights(torch.ones(1, N).double())
    torch.testing.assert_close(found, torch.full((1, N), 0.5).double())
    del neuron.recurrent
    found = inside(neuron, {}, spikes)["recurrent"]()
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.0, 2.0]]))
    found = dynamics(neuron, *STEP).feedback.weights(torch.ones(1, N).double())
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.0, 2.0]]).double())

    made = []
    place = importlib.import_module("snntorch._neurons.neurons")
    monkeypatch.setattr(
        place, "_SpikeTensor", lambda init_flag: made.append(init_flag) or "start", raising=False
    )
    base = type("SpikingNeuron", (nn.Module,), {"__module__": "snntorch._neurons.neurons"})
    early = type("Leaky", (base,), {"__module__": "snntorch._neurons.leaky"})()
    early.mem, early.syn, early.beta = torch.ones(2), torch.ones(2), 0.9
    model = nn.Sequential(early, type("Other", (base,), {"__module__": "snntorch.other"})())
    assert reset_states(model) == [early]
    assert (early.mem, early.syn, early.beta) == ("start", "start", 0.9)
    assert made == [False, False]


# -- spikingjelly ----------------------------------------------------------------------------------


def multi(kind: Any, *args: Any, mode: str = "m", **options: Any) -> Any:
    node = kind(*args, **options)
    node.step_mode = mode
    return node


JELLY: dict[str, tuple[Any, float]] = {  # with what the input is multiplied by
    "IF": (lambda **more: multi(sj.IFNode, **more), 1.0),
    "LIF": (lambda **more: multi(sj.LIFNode, tau=4.0, decay_input=True, **more), 0.25),
    "LIF, whole": (lambda **more: multi(sj.LIFNode, tau=4.0, decay_input=False, **more), 1.0),
    "ParametricLIF": (
        lambda **more: multi(sj.ParametricLIFNode, 4.0, decay_input=True, **more), 0.25
    ),
    "ParametricLIF, whole": (
        lambda **more: multi(sj.ParametricLIFNode, 4.0, decay_input=False, **more), 1.0
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JELLY)
@pytest.mark.parametrize("reset", [None, 0.0, -0.3, 0.2])
@pytest.mark.parametrize("mode", ["s", "m"])
def test_jellys_neurons_pay_the_way_up_from_their_reset_level(name, reset, mode):
    make, gain = JELLY[name]
    rest, shapes = reset or 0.0, FIRST if mode == "m" else STEP
    node = make(v_threshold=0.7, v_reset=reset, mode=mode)
    found = dynamics(node, *shapes)
    assert_drive(found, 0.7 - rest, gain, 0.0, abs(rest))
    assert steps(node, *shapes) == Steps(0 if mode == "m" else None)
    assert {k: float(v) for k, v in found.resets.items()} == {"v": pytest.approx(rest), "c": 0.0}
    node.v = HELD
    start = (HELD - rest).clamp(min=0).amax(0)
    assert_drive(dynamics(node, *shapes), 0.7 - rest, gain, start, abs(rest))
    for theta, why in ((-1.0, "threshold"), (rest, "threshold")):
        bad = make(v_threshold=1.0, v_reset=reset)
        bad.v_threshold = theta
        assert_no_argument(bad, why, *FIRST)
    sigmoid = make(surrogate_function=surrogate.Sigmoid(spiking=False))
    assert_no_argument(sigmoid, "no step from 0 to 1", *FIRST)
    assert not known(sigmoid).spikes
    assert known(node).spikes
    assert known(node).max_spikes == 1
    assert not known(node).signed
    assert known(node).inside is None


@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize("scale_reset", [False, True])
@pytest.mark.parametrize("reset", [None, 0.0, -0.3])
def test_jellys_scaled_neurons(decay_input, scale_reset, reset):
    def make(k: float = 1.25, tau: float = 2.0, reset: float | None = reset) -> Any:
        node = multi(sj.KLIFNode, scale_reset, tau, decay_input, 0.7, reset)
        nn.init.constant_(node.k, k)
        return node

    gain = 0.5 if decay_input else 1.0
    removes, gain = (0.7 / 1.25, gain) if scale_reset else (0.7, 1.25 * gain)
    assert_drive(dynamics(make(), *FIRST), removes, gain, 0.0, abs(reset or 0.0))
    node = make()
    node.v = HELD
    assert_drive(dynamics(node, *FIRST), removes, gain, MOST, abs(reset or 0.0))
    assert_no_argument(make(reset=0.1), "reset level", *FIRST)
    assert_no_argument(make(k=0.0), "k is not positive", *FIRST)
    fits = make(k=2.0)  # k · (1 − 1/τ) is one
    dynamics(fits, *FIRST)
    large = make(k=2.1)
    if scale_reset:
        dynamics(large, *FIRST)
    else:
        assert_no_argument(large, "1/τ", *FIRST)
    bad = make()
    bad.tau = 0.9
    assert_no_argument(bad, "time constant", *FIRST)


@pytest.mark.parametrize("offset", [0.1, -0.2, 0.0])
@pytest.mark.parametrize("reset", [None, 0.0, -0.3])
def test_jellys_aware_neurons(offset, reset):
    node = multi(sj.ActivationAwareIFNode, 0.7, offset, v_reset=reset)
    removes, low = (0.7, -offset) if reset is None else (0.7 - offset - reset, reset)
    level = max(abs(offset), abs(reset or 0.0))
    initial = float(torch.as_tensor(node.v).max())
    assert_drive(dynamics(node, *FIRST), removes, 1.0, max(initial - low, 0.0), level)
    node.v = HELD
    found = dynamics(node, *FIRST)
    assert_drive(found, removes, 1.0, (HELD - low).clamp(min=0).amax(0), level)
    highest = -offset if reset is None else reset
    assert float(torch.as_tensor(found.resets["v"]).max()) == pytest.approx(highest)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_jellys_aware_neurons_of_several_channels(mode):
    theta, offset = torch.tensor([0.7, 0.9]), torch.tensor([0.1, -0.2])
    node = multi(sj.ActivationAwareIFNode, theta, offset, v_reset=-0.3, channel_dim=1, mode=mode)
    shapes = ((T, 5, 2, 4),) if mode == "m" else ((5, 2, 4),) * T
    found = dynamics(node, *shapes)
    removes = (theta - offset + 0.3).reshape(1, 2, 1)
    assert found.up.removes.shape == (1, 2, 1)
    torch.testing.assert_close(found.up.removes.float(), removes)
    assert found.up.level == pytest.approx(0.3)


@pytest.mark.parametrize("reset", [None, 0.0, -0.3, 0.2])
@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_jellys_currents_reach_as_far_as_they_decay(reset, decay):
    rest = max(reset or 0.0, 0.0)
    node = multi(sj.CUBALIFNode, decay, 0.9, 0.7, reset)
    assert_drive(dynamics(node, *FIRST), 0.7 - rest, taps(decay), 0.0, abs(reset or 0.0))
    node.v, node.c = HELD, 3 * HELD
    start = (HELD - rest).clamp(min=0).amax(0) + 3 * MOST * taps(decay, 1)
    assert_drive(dynamics(node, *FIRST), 0.7 - rest, taps(decay), start, abs(reset or 0.0))
    for name in ("c_decay", "v_decay"):
        for outside in (-0.1, 1.1):
            bad = multi(sj.CUBALIFNode, 0.5, 0.9, 0.7, reset)
            setattr(bad, name, outside)
            assert_no_argument(bad, "decay", *FIRST)


def test_jellys_other_neurons():
    node = multi(sj.HalfThresholdIFNode, 0.7)
    assert_drive(dynamics(node, *FIRST), 0.7, 1.0, 0.35)
    node = multi(sj.ComplementaryLIFNode, 2.0, v_threshold=0.7)
    node.v = HELD
    assert_drive(dynamics(node, *FIRST), 0.7, 1.0, MOST)
    node.tau = 0.9
    assert_no_argument(node, "time constant", *FIRST)
    node = multi(sj.ILIFNode, 2.0, v_threshold=0.7)
    node.v = HELD
    assert_drive(dynamics(node, *FIRST), 0.35, 1.0, MOST)
    node.tau = 0.9
    assert_no_argument(node, "time constant", *FIRST)
    for most in (1, 3):
        node = sj.ILIFNode(surrogate_function=surrogate.MultiLevelSpikeCount(most))
        assert known(node).max_spikes == most
        assert not known(node).may_be_fraction(node)
    node = sj.DSRIFNode(T=T, v_threshold=0.7, alpha=0.3)
    assert_drive(dynamics(node, *FIRST), 0.7, 1.0, 0.7 * 0.7)
    assert float(torch.as_tensor(known(node).amplitude(node)).detach()) == pytest.approx(0.7)
    assert_no_argument(node, "lost between forwards", *FIRST, passes=2)
    node = sj.DSRLIFNode(T=T, v_threshold=0.7, alpha=0.3, tau=1.0, delta_t=0.5)
    found = dynamics(node, *FIRST)
    assert_drive(found, 0.3 * 0.7, 1 - math.exp(-0.5))
    assert steps(node, *FIRST) == Steps(0)
    assert float(torch.as_tensor(known(node).amplitude(node)).detach()) == pytest.approx(1.4)
    node.v_threshold_lower_bound = 0.8
    assert_drive(dynamics(node, *FIRST), 0.3 * 0.8, 1 - math.exp(-0.5))


@pytest.mark.parametrize("reset", [None, 0.2, -0.2])
@pytest.mark.parametrize("leak", [False, True])
def test_jellys_ternary_neurons_pay_on_both_sides(reset, leak):
    node = sj.TernaryIFNode(v_threshold=0.7, v_reset=reset, step_mode="m")
    gain, rest = 1.0, reset or 0.0
    if leak:
        gain = 0.25
        node = sj.TernaryLIFNode(4.0, True, 0.7, reset, step_mode="m")
    node.v = HELD
    found = dynamics(node, *FIRST)
    up = (HELD - rest).clamp(min=0).amax(0)
    down = (rest - HELD).clamp(min=0).amax(0)
    assert_is(found.up, 0.7 - rest, gain, up, abs(rest))
    assert_is(found.down, 0.7 + rest, gain, down, abs(rest))
    assert steps(node, *FIRST) == Steps(0)
    assert found.resets == {}
    assert known(node).signed


def test_jellys_gated_neurons_pay_what_their_gates_leave():
    node = sj.GatedLIFNode(T=4, inplane=2)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in node.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    a, b, g, tau, theta, sub = (
        getattr(node, name).detach().double().sigmoid().reshape(1, -1, 1, 1)
        for name in ("alpha", "beta", "gamma", "tau", "v_threshold", "v_subreset")
    )
    conduct = node.conduct.detach().double().sigmoid().amax(0).reshape(1, -1, 1, 1)
    leak = 1 - a * (1 - tau)
    removes = torch.minimum(theta, theta - leak * (1 - g) * theta + (1 - g) * sub)
    shape = (4, 3, 2, 1, 1)
    found = dynamics(node, shape)
    assert_drive(found, removes, 1 - b * (1 - conduct))
    assert steps(node, shape) == Steps(0)
    assert_no_argument(node, "lost between forwards", shape, passes=2)
    for v in (torch.full((3, 2, 1, 1), 0.1), torch.full((3, 2, 1, 1), -0.1)):
        node.v = v
        assert_no_argument(node, "lost between forwards", shape)


@pytest.mark.parametrize(("tau", "fits"), [(0.99, False), (1.0, True), (1.5, True), (1e6, True)])
def test_jellys_leaks_take_off_no_more_than_there_is(tau, fits):
    for node in (
        multi(sj.LIFNode),
        multi(sj.KLIFNode),
        multi(sj.ComplementaryLIFNode),
        multi(sj.ILIFNode),
        multi(sj.TernaryLIFNode),
    ):
        node.tau = tau
        if isinstance(node, sj.KLIFNode):
            nn.init.constant_(node.k, 0.5)
        if fits:
            dynamics(node, *FIRST)
        else:
            assert_no_argument(node, "time constant", *FIRST)


def test_jellys_parallel_neurons_multiply_all_steps_with_each_other():
    for make, taken in (
        (lambda: sj.PSN(T), T * T),
        (lambda: sj.MaskedPSN(k=2, T=T, step_mode="m"), T * T),
        (lambda: sj.SlidingPSN(k=2, step_mode="m"), T * T),
    ):

        class Between(nn.Module):
            def __init__(self, make: Any = make) -> None:
                super().__init__()
                self.fc, self.node, self.out = nn.Linear(4, N), make(), nn.Linear(N, 2)
                nn.init.zeros_(self.node.bias)

            def forward(self, x: Tensor) -> Tensor:
                return self.out(self.node(self.fc(x)))

        model, x = Between(), torch.randn(T, 2, 4)
        counter = fxsynops.SynOpsCounter(model, x, layout="TN", input_events=False)
        with torch.no_grad():
            counter(x)
            emitted = float(model.node(model.fc(x)).sum())
        found = {row.synapse: row.macs * 2 * T for row in counter.analysis.dense}
        assert found == {"fc": T * 2 * 4 * N, "node.weight": taken * 2 * N}
        assert float(counter.per_synapse["out"]) == 2 * emitted > 0
    for node in (sj.MaskedPSN(k=2, T=T), sj.SlidingPSN(k=2)):  # one step for each call
        assert known(node).inside(node, {"x_seq": torch.ones(2, N)}, None) == {}
        assert known(node).inside(node, {"args": (torch.ones(2, N),)}, None) == {}
        assert known(node).inside(node, {}, None) == {}


def test_jellys_populations_drive_each_other():
    class Population(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.node = sj.ILCIFNode(act_dim=2, dec_pop_dim=3)

        def forward(self, x: Tensor) -> Tensor:
            return self.node(x.sigmoid().clone())

    model, x = Population(), torch.randn(T, 2, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", input_events=False)
    with torch.no_grad():
        emitted = counter(x)
    ones = torch.ones_like(model.node.conn.weight)
    expected = nn.functional.conv1d(
        emitted.reshape(-1, 2, 3),
        ones,
        None,
        model.node.conn.stride,
        model.node.conn.padding,
        model.node.conn.dilation,
        model.node.conn.groups,
    )
    assert {k: float(n) for k, n in counter.per_synapse.items()} == {
        "node.conn": float(expected.sum())
    }
    assert emitted.any()


def test_jellys_classes_of_old_say_by_their_names_what_is_time():
    file = registry._file_of("spikingjelly")
    for name, time in (("MultiStepIFNode", 0), ("IFNode", None)):
        assert file._steps(type(name, (), {})(), (T, 2, N)) == Steps(time)
        for mode, axis in (("m", 0), ("s", None)):
            assert file._steps(type(name, (), {"step_mode": mode})(), (T, 2, N)) == Steps(axis)


def test_jellys_neurons_of_several_kinds_of_events():
    node = sj.STBIFNode(0.25, 4)
    assert known(node).signed
    assert float(torch.as_tensor(known(node).amplitude(node))) == 0.25
    assert known(node).dynamics is None
    core = sj.FlexSN(core=lambda x, v: (x, v), num_states=1)
    assert known(core).signed
    assert known(core).max_spikes == math.inf
    assert not known(layer.SynapseFilter()).spikes
    for training in (False, True):
        noisy = sj.NoisyCUBALIFNode(N, is_training=training)
        assert known(noisy).spikes is not training
        assert known(noisy).inside is None
        assert known(sj.NoisyILCCUBALIFNode(2, 3, is_training=training)).inside is not None


def test_jellys_resets_are_those_of_what_remembers():
    node, drop = multi(sj.IFNode, v_reset=None), layer.Dropout(0.5, step_mode="m")
    other, relu = fnn.IAF(), nn.ReLU()
    model = nn.Sequential(node, drop, relu, other, surrogate.ATan())
    node.v, other.v_mem = HELD, HELD
    assert reset_states(model) == [node, drop, other]
    assert node.v == 0.0
    assert other.v_mem is None
    sinabs = sl.LIF(tau_mem=2.0)
    with torch.no_grad():
        sinabs(torch.full((2, 3, N), 0.5))
    assert sinabs.v_mem.any()
    assert reset_states(nn.Sequential(sinabs, sl.SumPool2d(2))) == [sinabs]
    assert not sinabs.v_mem.any()


def test_what_is_known_of_jellys_other_types():
    for kind in (sj.QIFNode, sj.EIFNode, sj.IzhikevichNode):
        node = kind()
        assert known(node).max_spikes == 1
        assert known(node).dynamics is None
    assert not known(sj.LIAFNode(torch.relu, False)).spikes
    assert not known(sj.NonSpikingIFNode()).spikes
    for node in (sj.PSN(T), sj.MaskedPSN(k=2, T=T), sj.SlidingPSN(k=2)):
        assert known(node).inside is not None
    mine = type("Mine", (sj.IFNode,), {})()
    assert known(mine).dynamics is None
    assert known(mine).max_spikes == 1
    assert describe(surrogate.Sigmoid()) is None
    assert known(multi(sj.IFNode)).checked(multi(sj.IFNode))
    odd = sj.IFNode(surrogate_function=torch.tanh)
    assert known(odd).checked(odd) is False
    for name in ("single_step_forward", "multi_step_forward", "neuronal_fire"):
        user = type("Mine", (sj.IFNode,), {name: lambda self, *args: None})()
        assert known(user).checked(user) is False


# -- norse -----------------------------------------------------------------------------------------


def rates(membrane: float = 500.0, synapse: float = 250.0, **levels: float) -> dict[str, Any]:
    found = {"tau_mem_inv": membrane, "tau_syn_inv": synapse, **levels}
    return {name: torch.tensor(value) for name, value in found.items()}


LEVELS = [(0.1, -0.2), (-0.2, 0.1), (0.0, 0.0), (-0.1, -0.3)]
CURRENTS: dict[str, tuple[Callable[..., Any], Any]] = {
    "LIF": (lambda **p: norse.LIF(LIFParameters(**p)), FIRST),
    "LIFCell": (lambda **p: norse.LIFCell(LIFParameters(**p)), STEP),
    "LIFRefracCell": (
        lambda **p: LIFRefracCell(LIFRefracParameters(LIFParameters(**p), torch.tensor(1.0))),
        STEP,
    ),
    "LSNN": (lambda **p: LSNN(LSNNParameters(**p)), FIRST),
    "LSNNCell": (lambda **p: LSNNCell(LSNNParameters(**p)), STEP),
}


@pytest.mark.parametrize("name", CURRENTS)
@pytest.mark.parametrize(("leak", "reset"), LEVELS)
def test_norses_currents_charge_a_membrane_above_its_rest(name, leak, reset):
    make, shapes = CURRENTS[name]
    rest, level = max(leak, reset), max(abs(leak), abs(reset))
    neuron = make(**rates(v_leak=leak, v_reset=reset, v_th=0.7))
    found = dynamics(neuron, *shapes)
    assert_drive(found, 0.7 - rest, 0.5 * taps(0.75), 0.0, level)
    assert steps(neuron, *shapes) == (Steps(0) if shapes is FIRST else Steps())
    assert found.feedback is None
    assert found.resets == {}
    low = make(**rates(v_leak=leak, v_reset=reset, v_th=rest))
    assert_no_argument(low, "above its rest", *shapes)
    assert_no_argument(neuron, "gives it a first state", *shapes, given=(None, torch.ones(1)))
    assert_drive(dynamics(neuron, *shapes, given=(None,)), 0.7 - rest, 0.5 * taps(0.75), 0.0, level)
    for slow, fast in ((1000.0, 1000.0), (0.0, 0.0)):
        edge = make(**rates(slow, fast, v_leak=leak, v_reset=reset, v_th=0.7))
        gain = slow / 1000 * taps(1 - fast / 1000)
        assert_drive(dynamics(edge, *shapes), 0.7 - rest, gain, 0.0, level)
    assert_no_argument(make(**rates(membrane=1010.0)), "membrane's time constant", *shapes)
    assert_no_argument(make(**rates(membrane=-1.0)), "membrane's time constant", *shapes)
    assert_no_argument(make(**rates(synapse=1010.0)), "synapse's time constant", *shapes)
    assert_no_argument(make(**rates(synapse=-1.0)), "synapse's time constant", *shapes)
    neuron.state_fallback = lambda x: None
    assert_no_argument(neuron, "function of the user's", *shapes)


@pytest.mark.parametrize("name", ["LSNN", "LSNNCell"])
def test_norses_adaptive_thresholds_only_rise(name):
    make, shapes = CURRENTS[name]
    assert_no_argument(make(**rates(beta=-0.1)), "adaptation", *shapes)
    dynamics(make(**rates(beta=0.0)), *shapes)
    for tau, fits in ((0.0, True), (1000.0, True), (1010.0, False), (-1.0, False)):
        neuron = make(**rates(tau_adapt_inv=tau))
        if fits:
            dynamics(neuron, *shapes)
        else:
            assert_no_argument(neuron, "adaptation's time constant", *shapes)


@pytest.mark.parametrize(("leak", "reset"), LEVELS)
def test_norses_boxes_and_perfect_integrators(leak, reset):
    def box(method: Any, theta: float = 0.7) -> Any:
        levels = {"v_leak": leak, "v_reset": reset, "v_th": theta}
        given = {name: torch.tensor(value) for name, value in levels.items()}
        return LIFBoxCell(
            LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), reset_method=method, **given)
        )

    level = max(abs(leak), abs(reset))
    found = dynamics(box(reset_value), *STEP)
    assert_drive(found, 0.7 - max(leak, reset), 0.5, 0.0, level)
    assert steps(box(reset_value), *STEP) == Steps()
    assert_drive(dynamics(box(reset_subtract), *STEP), min(0.7, 0.7 - leak), 0.5, 0.0, abs(leak))
    assert_no_argument(box(lambda z, v, *_: v), "reset is a function of the user's", *STEP)
    assert_no_argument(box(reset_subtract, min(leak, -0.0)), "threshold", *STEP)
    for make, shapes in ((NorseIAF, FIRST), (IAFCell, STEP)):
        p = IAFParameters(v_th=torch.tensor(0.7), v_reset=torch.tensor(reset))
        found = dynamics(make(p), *shapes)
        assert_drive(found, 0.7 - reset, 1.0, 0.0, abs(reset))
        assert steps(make(p), *shapes) == (Steps(0) if shapes is FIRST else Steps())
        assert_no_argument(make(p), "first state", *shapes, given=(torch.ones(1),))


def test_what_is_known_of_norses_types():
    for kind in (norse.LI, norse.LICell, norse.LIBoxCell):
        assert not known(kind()).spikes
        assert known(kind()).inside is None
    for kind in (norse.LIFRecurrentCell, norse.LIFRecurrent, norse.LSNNRecurrentCell):
        assert known(kind(2, 3)).inside is not None
        assert known(kind(2, 3)).max_spikes == 1
        assert known(kind(2, 3)).spikes
    assert "part of its state" in known(norse.LIFCorrelation(2, 3)).refused
    for kind in (norse.CobaLIFCell, norse.LIFMCRecurrentCell):
        cell = kind(2, 3)
        assert known(cell).max_spikes == 1
        given = {"input_tensor": torch.ones(4, 2)}
        inner = known(cell).inside(cell, given, (torch.ones(4, 3), None))
        expected = {"input_weights", "recurrent_weights"}
        expected |= {"g_coupling"} if kind is norse.LIFMCRecurrentCell else set()
        assert inner.keys() == expected
        for name, synapse in inner.items():
            reads = 2.0 if name == "input_weights" else 3.0
            setattr(cell, name, nn.Parameter(torch.ones_like(getattr(cell, name))))
            reads *= 1 / (1 + math.exp(-1)) if name == "g_coupling" else 1.0
            torch.testing.assert_close(synapse().detach(), torch.full((4, 3), reads))
    linear = norse.LILinearCell(2, 3)
    assert not known(linear).spikes
    assert known(linear).inside is not None
    for kind in (norse.LIFCell, norse.LIF, norse.LIFExCell):
        neuron = kind()
        assert known(neuron).max_spikes == 1
        assert known(neuron).inside is None
        assert known(neuron).checked(neuron) is True
        neuron.activation = lambda *args: None
        assert known(neuron).checked(neuron) is False
        assert known(neuron).may_be_negative(neuron)
    assert describe(norse.Lift(nn.Linear(2, 2))) is None
    assert known(norse.LIFExCell()).dynamics is None
    mine = type("Mine", (norse.LIFCell,), {})()
    assert known(mine).dynamics is None


# -- the registry ----------------------------------------------------------------------------------


@pytest.fixture
def _forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone afterwards."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


class Mine(nn.Module):
    v_threshold = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).float()


class Derived(Mine):
    pass


class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).float()


def spiking(x: Tensor) -> Tensor:
    return (x > 0).float()


@pytest.mark.usefixtures("_forgets")
def test_what_is_registered_is_found_by_its_class_or_name():
    assert registry.registered(Mine) is None
    for key in (Mine, "Mine", f"{__name__}.Mine"):
        assert fxsynops.register_spiking(key, max_spikes=2) is key
        for kind in (Mine, Derived):
            found = registry.registered(kind)
            assert found is not None
            assert found.max_spikes == 2.0
            assert isinstance(found.max_spikes, float)
            assert known(kind()) == found
        del registry._registered[key]
    fxsynops.register_spiking(Mine, max_spikes=2)
    fxsynops.register_spiking(Derived, max_spikes=3)
    assert registry.registered(Mine).max_spikes == 2
    assert registry.registered(Derived).max_spikes == 3
    assert fxsynops.register_spiking(Function.apply, output=1) is Function
    assert registry.registered(Function).output == 1
    called = fxsynops.register_spiking(spiking, threshold=0.5, signed=False)
    assert called is not spiking
    assert torch.equal(called(torch.tensor([-1.0, 1.0])), torch.tensor([0.0, 1.0]))
    assert registry.registered(called).threshold == 0.5
    assert registry.registered(spiking) is None
    assert registry.registered("Mine") is None
    assert registry.registered(3) is None


@pytest.mark.usefixtures("_forgets")
def test_what_is_registered_keeps_what_was_said():
    fxsynops.register_spiking(Mine)
    assert known(Mine()) == registry.Neuron(signed=True, promised=True)
    fxsynops.register_spiking(
        Mine, output=2, max_spikes=0, threshold=0.25, amplitude=-0.5, signed=False
    )
    assert known(Mine()) == registry.Neuron(
        output=2, max_spikes=0.0, threshold=0.25, amplitude=-0.5, signed=False, promised=True
    )
    module = Mine()
    fxsynops.register_spiking(Mine, amplitude=lambda module: module.v_threshold)
    assert known(module).amplitude(module).item() == 0.5
    for value in (0.0, torch.tensor([0.5, 0.0])):
        module.v_threshold = value
        with pytest.raises(fxsynops.InputError, match="of a Mine must not be zero"):
            known(module).amplitude(module)
    module.v_threshold = torch.zeros(2, device="meta")
    assert known(module).amplitude(module).is_meta
    fxsynops.register_spiking(Mine, amplitude=lambda module: module.missing)
    with pytest.raises(fxsynops.InputError, match="amplitude of a Mine could not be read: Attr"):
        known(module).amplitude(module)
    with pytest.raises(fxsynops.InputError, match="amplitude of a function could not be read"):
        known(module).amplitude(None)


@pytest.mark.usefixtures("_forgets")
@pytest.mark.parametrize(
    ("target", "options", "why"),
    [
        (3, {}, "takes a class"),
        (torch.relu, {}, "takes a class"),
        (int, {}, "takes a class"),
        (Mine(), {}, "takes a class"),
        (Mine, {"amplitude": "0.5"}, "must be a number, or read one"),
        (Mine, {"amplitude": 0}, "must not be zero"),
        (Mine, {"amplitude": 0.0, "max_spikes": 2}, "must not be zero"),
        (Mine, {"max_spikes": -1}, "not negative"),
        (Mine, {"max_spikes": -0.5, "amplitude": 2.0}, "not negative"),
        (Function, {"amplitude": lambda module: 1.0}, "from modules only"),
        (Function.apply, {"amplitude": lambda module: 1.0}, "from modules only"),
        (spiking, {"amplitude": lambda module: 1.0}, "spiking is none"),
    ],
)
def test_what_cannot_be_registered_is_refused(target, options, why):
    before = dict(registry._registered)
    with pytest.raises(fxsynops.InputError, match=why):
        fxsynops.register_spiking(target, **options)
    assert registry._registered == before
    fxsynops.register_spiking("Elsewhere", amplitude=lambda module: 1.0)
    assert callable(registry._registered["Elsewhere"].amplitude)


@pytest.mark.usefixtures("_forgets")
@pytest.mark.parametrize("strict", [False, True])
def test_a_registered_function_is_called_as_it_was_written(strict):
    def over(x: Tensor, *more: Tensor, level: float = 0.0, scale: Any = 1.0) -> Tensor:
        above = x > level if strict else x >= level
        return scale * above.float() * (1 + len(more))

    called = fxsynops.register_spiking(over)
    x = torch.tensor([[-0.5, 0.0, 0.5, 1.0]])
    for args, options in (
        ((x,), {}),
        ((x, x), {"level": 0.5}),
        ((x, x, x), {"scale": torch.tensor(2.0), "level": -1}),
        ((), {"x": x, "level": 0.75}),
    ):
        assert torch.equal(called(*args, **options), over(*args, **options))

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(called(x=2 * x, level=0.75))

    analysis = fxsynops.analyze(Uses(), torch.randn(5, 4), input_events=False)
    assert [row.synapse for row in analysis.connections] == ["out"]
    counter = analysis.counter()
    with torch.no_grad():
        counter(x)
    assert float(counter.synops) == 3 * float(over(2 * x, level=0.75).sum()) > 0


def test_types_that_the_user_takes_to_be_spiking():
    for module, graded in ((Mine(), True), (sl.ExpLeak(tau_mem=2.0), True), (sl.IAF(), False)):
        found = describe(module, Chosen((type(module),)))
        assert found is not None
        assert found.spikes
        assert found.graded is graded
        assert describe(module, Chosen((nn.Conv2d,))) == describe(module)
    assert describe(Mine(), Chosen((Mine,))).signed
    assert not describe(sl.ExpLeak(tau_mem=2.0), Chosen((sl.ExpLeak,))).signed
    assert describe(Mine(), Chosen()) is None


def test_whose_functions_and_classes_these_are():
    for own in (
        sl.IAF,
        sl.IAF.forward,
        snntorch.Leaky,
        snn_surrogate.fast_sigmoid(),
        sj.IFNode.forward,
        nn.Linear,
        fnn.IAF,
        norse.LIFCell,
        torch.no_grad()(sl.IAF.forward),
    ):
        assert registry.is_librarys(own)
    for other in (Mine, Mine.forward, spiking, torch.relu, torch.no_grad()(spiking), len, None, 3):
        assert not registry.is_librarys(other)
    assert registry.names_of(Derived, "tests") == ("Derived", "Mine")
    assert registry.names_of(Derived, "test") == ()
    assert registry.names_of(sl.IAFSqueeze, "sinabs")[0] == "IAFSqueeze"
    assert "Module" not in registry.names_of(sl.IAFSqueeze, "sinabs")
    assert registry.own_name(sl.IAF, "sinabs") == "IAF"
    assert registry.own_name(type("IAF", (sl.IAF,), {}), "sinabs") == ""
    assert registry.own_name(Mine, "sinabs") == ""
    assert {"torch.nn", "fxsynops.nn", "lava.lib.dl.slayer", "sinabs"} <= set(registry.LIBRARIES)
    assert tuple(sorted(registry.LIBRARIES)) == registry.LIBRARIES


def neuron_with(**attributes: Any) -> Any:
    neuron = sl.IAF()
    for name, value in attributes.items():
        setattr(neuron, name, value)
    return neuron


class Overridden(sl.IAF):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Static(snntorch.Leaky):
    @staticmethod
    def detach_hidden() -> None:
        pass


class Harmless(sl.IAF):
    helper_value = 3

    def __init__(self) -> None:
        super().__init__()

    def extra_repr(self) -> str:
        return "mine"

    def own_helper(self) -> int:
        return self.helper_value


def test_what_of_a_neuron_is_the_users():
    harmless = [
        sl.IAF(),
        Harmless(),
        neuron_with(note=spiking),
        neuron_with(note=3),
        neuron_with(again=nn.Linear(2, 2)),
    ]
    bound = neuron_with()
    bound.reset_states = bound.reset_states  # its own method, kept
    for neuron in [*harmless, bound]:
        assert not registry.is_patched(neuron)
        assert not registry.is_changed(neuron)
        assert not known(neuron).may_be_negative(neuron)
        assert not known(neuron).may_be_fraction(neuron)
        assert not known(neuron).is_doubted(neuron)
    other = sl.IAF()
    patched = [
        Overridden(),
        Static(0.9),
        neuron_with(forward=lambda x: x),
        neuron_with(reset_states=other.reset_states),
        neuron_with(some_function=spiking),
    ]
    for neuron in patched:
        assert registry.is_patched(neuron)
        assert registry.is_changed(neuron)
        assert known(neuron).may_be_negative(neuron)
        assert known(neuron).may_be_fraction(neuron)
        assert known(neuron).is_doubted(neuron)

    class Learned(nn.Module):
        def forward(self, *_: Any) -> Tensor:
            return torch.zeros(1)

    for chosen in (
        sl.IAF(spike_fn=spiking),
        sl.IAF(reset_fn=spiking),
        sl.IAF(surrogate_grad_fn=spiking),
        sj.IFNode(surrogate_function=Learned()),
        snntorch.Leaky(0.9, spike_grad=spiking),
    ):
        assert registry.is_changed(chosen)
        assert not registry.is_patched(chosen)
        assert known(chosen).may_be_negative(chosen)
        assert known(chosen).may_be_fraction(chosen)
    for fine in (
        sl.IAF(spike_fn=sa.MaxSpike(2)),
        sj.IFNode(surrogate_function=surrogate.ATan()),
        snntorch.Leaky(0.9, spike_grad=snn_surrogate.atan()),
    ):
        assert not registry.is_changed(fine)


@pytest.mark.usefixtures("_forgets")
def test_a_registered_class_is_what_its_user_says():
    assert registry.is_patched(Overridden())
    fxsynops.register_spiking(Overridden)
    assert not registry.is_patched(Overridden())


def flags(**given: Any) -> registry.Neuron:
    return registry.Neuron(**given)


def test_what_may_be_negative_a_fraction_or_doubted():
    plain = Mine()
    yes, no = (lambda module: True), (lambda module: False)
    for signed, checked in itertools.product((False, True), (None, yes, no)):
        neuron = flags(signed=signed, checked=checked)
        assert neuron.may_be_negative(plain) is (signed or checked is no)
        assert neuron.may_be_negative(None) is (signed or checked is no)
    either = (False, True)
    for guessed, promised, checked in itertools.product(either, either, (None, yes, no)):
        neuron = flags(guessed=guessed, promised=promised, checked=checked)
        expected = guessed or promised or checked is no
        assert neuron.may_be_fraction(plain) is expected
        assert neuron.may_be_fraction(None) is expected
    for checked in (None, yes, no):
        assert flags(checked=checked).is_doubted(plain) is (checked is no)
        for said in ({"promised": True}, {"graded": True}, {"refused": "why"}):
            assert not flags(checked=checked, **said).is_doubted(plain)


def test_what_a_module_returned_fits_what_is_known_of_it():
    plain, iaf = Mine(), sl.IAF()
    whole, half, none = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([0.5, 1.0]), torch.zeros(2)
    inside = lambda module, given, output: {}  # noqa: E731
    for result, fits in (
        (whole, True),
        (half, False),
        (none, False),  # a quiet example says nothing
        (whole + 5e-5, True),
        (whole + 3e-4, False),
        (1000 * whole * (1 + 1e-6), True),
        (torch.ones(2, device="meta"), True),
        (torch.ones(2, dtype=torch.bool), True),
    ):
        assert flags().fits(plain, result, False) is fits
        assert flags(inside=inside).fits(plain, result, True) is fits
        assert flags().fits(plain, result, True) is False
        assert flags(amplitude=0.25).fits(plain, 0.25 * result, False) is fits
        reads = flags(amplitude=lambda module: torch.tensor(0.25))
        assert reads.fits(plain, 0.25 * result, False) is fits
        if not result.is_meta:
            assert flags(spikes=False).fits(plain, result, False) is not fits
        for position, output in enumerate(((result, half), (half, result))):
            assert flags(output=position).fits(iaf, output, False) is fits
            assert flags(output=position).fits(plain, output, False) is False
    assert flags(output=2).fits(iaf, (whole, whole), False) is False
    assert flags(output=1).fits(iaf, whole, False) is False
    assert flags(output=1).fits(iaf, (whole, "text"), False) is False
    for given in ({"kept": "s"}, {"rounded": True}):
        assert flags(**given).fits(plain, half, False)
        assert flags(**given).fits(iaf, (half, half), False)
        assert not flags(**given).fits(plain, (half, half), False)
        assert not flags(**given).fits(plain, half, True)
    assert not flags(amplitude=2.0).fits(plain, torch.ones(2), False)


def test_a_subclass_that_adds_weights_holds_more():
    class Weights(sl.IAF):
        def __init__(self, name: str, value: Any) -> None:
            super().__init__()
            setattr(self, name, value)

    parameter = nn.Parameter(torch.ones(2))
    assert registry.holds_more(Weights("own", parameter))
    assert registry.holds_more(Weights("own", nn.Linear(2, 2)))
    assert registry.holds_more(Weights("own", nn.Sequential(nn.ReLU(), nn.Linear(2, 2))))
    assert not registry.holds_more(Weights("own", nn.ReLU()))
    assert not registry.holds_more(Weights("own", torch.ones(2)))
    assert not registry.holds_more(sl.IAF())
    assert not registry.holds_more(SINABS["LIFRecurrent"]())
    assert not registry.holds_more(sl.LIF(tau_mem=2.0, train_alphas=True))
    empty = Weights("own", nn.Linear(2, 2))
    empty.own = None
    assert not registry.holds_more(empty)


def test_a_release_that_is_not_understood_is_refused(monkeypatch):
    file = registry._file_of("sinabs")
    iaf = sl.IAF()

    def fails(module: Any) -> Any:
        raise AttributeError("no such thing")

    monkeypatch.setattr(file, "describe", fails)
    assert "IAF of sinabs" in known(iaf).refused
    assert "AttributeError: no such thing" in known(iaf).refused

    def refuses(module: Any) -> Any:
        raise fxsynops.UnsupportedOperationError("it says so itself")

    monkeypatch.setattr(file, "describe", refuses)
    with pytest.raises(fxsynops.UnsupportedOperationError, match="itself"):
        describe(iaf)


def test_operators_of_jelly_are_neurons():
    file = registry._file_of("spikingjelly")
    for kind in ("if", "lif", "plif", "eif", "qif", "izhikevich"):
        assert file.describe_operator(f"sj_{kind}", "forward").max_spikes == 1
        assert file.describe_operator(f"sj_{kind}", "backward") is None
        assert file.describe_operator(kind, "forward") is None
    assert file.describe_operator("sj_ilif", "forward").max_spikes == math.inf
    assert file.describe_operator("sj_other", "forward") is None
    assert registry.registered(torch.ops.aten.relu.default) is None


# -- torch -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(("kind", "proj"), [(nn.RNN, 0), (nn.GRU, 0), (nn.LSTM, 0), (nn.LSTM, 2)])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("both", [False, True])
def test_layers_of_torchs_recurrent_modules_multiply_each_weight_once_a_step(
    kind, layers, both, proj
):
    options = {"proj_size": proj} if kind is nn.LSTM else {}
    model, x = kind(4, 5, layers, bidirectional=both, **options), torch.randn(T, 2, 4)

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = model

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    analysis = fxsynops.analyze(First(), x, layout="TN", input_events=False, audit=False)
    found = {row.synapse: row.macs for row in analysis.dense}
    expected = {
        f"rnn.{name}": value.numel()
        for name, value in model.named_parameters()
        if name.startswith("weight")
    }
    assert found == expected


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("state", [False, True])
def test_cells_of_torchs_recurrent_modules(kind, state):
    class Steps_(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = kind(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            before = x[:, :1].sigmoid().expand(2, 5)
            given = (before, before) if kind is nn.LSTMCell else before
            y = self.cell(x, given) if state else self.cell(x)
            return y[0] if isinstance(y, tuple) else y

    model = Steps_()
    analysis = fxsynops.analyze(model, torch.randn(2, 4), layout="N", input_events=False)
    found = {row.synapse: row.macs for row in analysis.dense}
    weights = {"cell.weight_ih": model.cell.weight_ih, "cell.weight_hh": model.cell.weight_hh}
    assert found == {name: weight.numel() for name, weight in weights.items()}
    events = fxsynops.analyze(model, torch.ones(2, 4), layout="N")
    assert [row.synapse for row in events.connections] == ["cell.weight_ih"]


@pytest.mark.parametrize("batch_first", [None, False, True])
@pytest.mark.parametrize("widths", [{}, {"kdim": 6, "vdim": 4}])
@pytest.mark.parametrize("added", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_multiplies_queries_with_keys_and_scores_with_values(batch_first, widths, added):
    queries, keys, heads, width = 5, 7, 2, 8
    module = nn.MultiheadAttention(width, heads, batch_first=bool(batch_first), **widths, **added)
    sizes = (width, widths.get("kdim", width), widths.get("vdim", width))
    lengths = (queries, keys, keys)
    q, k, v = (torch.randn(t, size) for t, size in zip(lengths, sizes, strict=True))
    samples = 1
    if batch_first is not None:
        samples = 3
        axis = 0 if batch_first else 1
        q, k, v = (x.unsqueeze(axis).repeat_interleave(samples, axis) for x in (q, k, v))

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = module

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.heads(q, k, v)[0]

    model = First().eval()
    analysis = fxsynops.analyze(model, (q, k, v), layout="", input_events=False, audit=False)
    found = {row.synapse.removeprefix("heads."): row.macs for row in analysis.dense}
    more = len(added)
    assert found == {
        "query_weights": samples * queries * width * width,
        "key_weights": samples * keys * sizes[1] * width,
        "value_weights": samples * keys * sizes[2] * width,
        "query_key": samples * queries * (keys + more) * width,
        "attention_value": samples * queries * (keys + more) * width,
        "out_proj": samples * queries * width * width,
    }
