"""What is known of neurons whose libraries are not installed, against their equations."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxsynops
from fxsynops.neurons import describe, reset_states
from fxsynops.neurons.dynamics import Steps
from tests.drives import N, T, assert_drive, assert_no_argument, dynamics, known, taps
from tests.outcome import Case, count, same
from tests.watched import watch

Load = Callable[..., Any]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports a file of ``tests/absent`` as a module of a library."""

    def load(file: str, library: str = "") -> Any:
        library = library or file
        parts = library.split(".")
        for i in range(len(parts)):
            name = ".".join(parts[: i + 1])
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        path = Path(__file__).parent / "absent" / f"{file}.py"
        spec = spec_from_file_location(f"{library}.stand_in", path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def rockpool(absent: Load) -> Any:
    return absent("rockpool")


@pytest.fixture
def braincog(absent: Load) -> Any:
    return absent("braincog")


@pytest.fixture
def slayer(absent: Load, monkeypatch: pytest.MonkeyPatch) -> Any:
    library = "lava.lib.dl.slayer"
    found, delays = absent("slayer", library), ModuleType("delay")
    vars(delays).update(
        _delayFunctionNoGradient=found.FixedDelay, _delayFunction=found.LearnedDelay
    )
    monkeypatch.setitem(sys.modules, f"{library}.axon.delay", delays)
    return found


def firing(shape: tuple[int, ...]) -> Tensor:
    return 2 * torch.rand(shape)


class Around(nn.Module):
    """A layer of neurons between two synapses."""

    def __init__(self, neuron: nn.Module, inputs: int = 4, size: int = N, out: int = N) -> None:
        super().__init__()
        self.fc, self.neuron, self.out = nn.Linear(inputs, size), neuron, nn.Linear(out, 5)
        nn.init.constant_(self.fc.weight, 0.4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.neuron(self.fc(x)))


# -- rockpool --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LIFTorch", "LIFBitshiftTorch", "aLIFTorch", "LIFNeuronTorch"])
def test_rockpools_neurons_are_counted_as_an_oracle_counts_them(rockpool, kind):
    case = Case(
        lambda: Around(getattr(rockpool, kind)(N, threshold=0.3, max_spikes_per_dt=3.0)),
        lambda: (firing((2, T, 4)),),
        {"layout": "NT", "input_events": False},
        reset_states,
    )
    outcome = count(case)
    assert outcome.same_output
    assert outcome.expected_synops["out"] == outcome.synops["out"] > 0
    assert outcome.macs == outcome.expected_macs
    (row, *_) = outcome.counter.analysis.upper_bound(input_range=(0, 2)).rows
    assert row.max_events == 3


@pytest.mark.parametrize("n_synapses", [1, 2])
@pytest.mark.parametrize("rec", [False, True])
@pytest.mark.parametrize("kind", ["LIFTorch", "aLIFTorch"])
def test_rockpools_spikes_come_back_through_the_synapses_that_there_are(
    rockpool, kind, rec, n_synapses
):
    neuron = getattr(rockpool, kind)(N, n_synapses=n_synapses, has_rec=rec, threshold=0.5)
    model, x = Around(neuron, size=n_synapses * N), firing((2, T, 4))
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", input_events=False)
    reset_states(model)
    with torch.no_grad():
        counter(x)
        reset_states(model)
        emitted = float(neuron(model.fc(x)).sum())
    expected = {"out": 5 * emitted}
    if rec:
        expected["neuron.w_rec"] = emitted * N * n_synapses
    if kind == "aLIFTorch":
        expected["neuron.w_ahp"] = emitted
    assert emitted > 0
    assert {k: float(n) for k, n in counter.per_synapse.items()} == expected


def test_rockpools_early_releases_have_recurrence_where_they_have_its_weights(rockpool):
    neuron = rockpool.LIFTorch(N)
    assert known(neuron).inside is None
    del neuron._has_rec
    inside = known(neuron).inside
    assert inside is not None
    found = inside(neuron, {}, torch.ones(1, T, N))
    assert {name: tuple(synapse().shape) for name, synapse in found.items()} == {"w_rec": (1, T, N)}
    del neuron.w_rec
    assert known(neuron).inside is None


def test_rockpools_other_modules(rockpool):
    assert describe(rockpool.LinearTorch(2, 3)) is None
    assert not known(rockpool.ExpSynTorch()).spikes
    for repeat, whole in ((1.0, True), (2, True), (0, True), (1.5, False), (-1.0, False)):
        module = rockpool.UpDownTorch(repeat)
        assert known(module).max_spikes == math.inf
        assert known(module).may_be_fraction(module) is not whole
    for neuron in (rockpool.LIFTorch(N), rockpool.LIFNeuronTorch(N), rockpool.aLIFTorch(N)):
        assert known(neuron).spikes
        assert not known(neuron).may_be_negative(neuron)


class StepPWL(torch.autograd.Function):
    """A user's function of the name of rockpool's."""

    @staticmethod
    def forward(ctx, v, *_):
        return -(v > 0).float()


@pytest.mark.parametrize("kind", ["LIFTorch", "LIFNeuronTorch"])
def test_rockpools_spikes_are_whole_if_its_own_functions_make_them(rockpool, kind):
    make = getattr(rockpool, kind)
    elsewhere = type("StepPWL", (rockpool.StepPWL,), {"__module__": "sinabs.activation"})
    fires = [rockpool.PeriodicExponential.apply, rockpool.Heaviside(), rockpool.StepPWL]
    for function in (*fires, elsewhere.apply):
        neuron = make(N, spike_generation_fn=function, max_spikes_per_dt=4.0)
        assert known(neuron).max_spikes == 4
        assert not known(neuron).may_be_fraction(neuron)
    for function in (rockpool.Other.apply, StepPWL.apply, torch.relu):
        neuron = make(N, spike_generation_fn=function, max_spikes_per_dt=4.0)
        assert known(neuron).max_spikes == math.inf
        assert known(neuron).may_be_negative(neuron)
        assert_no_argument(neuron, "spike_generation_fn")
    for cap, most in ((0.0, 0), (1.0, 1), (math.inf, math.inf)):
        neuron = make(N, max_spikes_per_dt=cap)
        assert known(neuron).max_spikes == most
        assert not known(neuron).may_be_fraction(neuron)
    for options in (
        {"max_spikes_per_dt": 2.5},
        {"max_spikes_per_dt": -1.0},
        {"threshold": 0.0},
        {"threshold": [0.4, -0.1, 0.3]},
    ):
        neuron = make(N, **options)
        assert known(neuron).max_spikes == math.inf
        assert known(neuron).may_be_fraction(neuron)
    for name in ("spike_generation_fn", "max_spikes_per_dt"):
        neuron = make(N)
        delattr(neuron, name)
        assert known(neuron).max_spikes == math.inf


def test_rockpools_reset_is_that_of_its_states(rockpool):
    first, second = rockpool.LIFTorch(N, has_rec=True), rockpool.LIFNeuronTorch(N)
    weights, pool = rockpool.LinearTorch(N, N), nn.Flatten(0, 0)
    with torch.no_grad():
        for state in (first.vmem, first.isyn, first.spikes, second.vmem):
            state.fill_(3.0)
    second.registry["steps"] = (7, "State", None, None, ())  # which nothing says how to start
    second.steps = 7
    before = weights.weight.clone()
    model = nn.Sequential(first, weights, pool, second)
    assert reset_states(model) == [first, second]
    for state in (first.vmem, first.isyn, first.spikes, second.vmem):
        assert not state.any()
    assert second.steps == 7
    assert torch.equal(weights.weight, before)


def test_rockpools_membranes_cost_a_threshold_for_each_spike(rockpool):
    def make(**options: Any) -> Any:
        return rockpool.LIFNeuronTorch(N, **options)

    assert_drive(dynamics(make(threshold=0.7)), 0.7)
    levels = [0.5, 0.7, 0.9]
    assert_drive(dynamics(make(threshold=levels)), torch.tensor(levels))
    assert_drive(dynamics(make(bias=[-0.2, 0.1, 0.3])), 1.0, 1.0, torch.tensor([0.0, 0.8, 2.4]))
    neuron = make(bias=0.1, threshold=0.5, tau_mem=5e-3)
    neuron.vmem = torch.tensor([0.4, -0.5, 2.0])
    found = dynamics(neuron, (2, 5, N))
    assert_drive(found, 0.5, 1.0, torch.tensor([[0.9, 0.5, 2.5]]))
    assert found.steps == Steps(1)
    states = dict.fromkeys(("vmem", "isyn", "iahp", "spikes"), 0.0)
    assert found.resets == {**states, "_record": None, "_record_dict": None}
    assert found.feedback is None
    assert_no_argument(make(tau_mem=-1e-3), "membrane decay")


@pytest.mark.parametrize("kind", ["LIFTorch", "LIFBitshiftTorch", "aLIFTorch"])
def test_rockpools_synapses_reach_as_far_as_they_decay(rockpool, kind):
    make = getattr(rockpool, kind)
    neuron = make(N, threshold=0.7, beta=0.5, bias=0.05)
    assert_drive(dynamics(neuron), 0.7, taps(0.5, 1), T * 0.05)
    neuron.isyn = torch.tensor([[1.0], [-1.0], [0.2]])
    neuron.vmem = torch.tensor([-0.3, 0.0, 0.1])
    start = torch.tensor([[taps(0.5, 1), 0.0, 0.2 * taps(0.5, 1) + 0.1]]) + T * 0.05
    assert_drive(dynamics(neuron), 0.7, taps(0.5, 1), start)
    neuron = make(N, beta=[[0.5], [0.9], [1.0]])
    reach = torch.tensor([taps(0.5, 1, 4), taps(0.9, 1, 4), 4.0])
    assert_drive(dynamics(neuron, (1, 4, N)), 1.0, reach)
    assert dynamics(neuron).steps == Steps(1)


def test_rockpools_spikes_before_the_window_come_back_in_it(rockpool):
    weights = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.0, 0.25], [-0.5, 1.0, 0.0]])
    for rec in (True, False):
        neuron = rockpool.LIFTorch(N, beta=0.5, has_rec=rec)
        with torch.no_grad():
            neuron.w_rec.copy_(weights)
        neuron.spikes = torch.tensor([2.0, 1.0, -3.0])
        back = [[1.0, 0.0, 4.25]] if rec else [[0.0, 0.0, 0.0]]
        found = dynamics(neuron)
        assert_drive(found, 1.0, taps(0.5, 1), taps(0.5, 1) * torch.tensor(back))
        if rec:
            assert found.feedback is not None
            events = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
            expected = torch.tensor([[0.5, 3.0, 2.5]], dtype=torch.float64)
            torch.testing.assert_close(found.feedback.weights(events), expected)
            assert found.feedback.settles
        else:
            assert found.feedback is None


def test_rockpools_feedback_after_a_spike_may_only_take_charge_off(rockpool):
    neuron = rockpool.aLIFTorch(N, w_ahp=0.0, tau_ahp=2e-3, beta=0.5)
    neuron.iahp = torch.tensor([0.4, -0.4, 0.0])
    decay = math.exp(-0.5)
    start = torch.tensor([[0.4 * taps(decay, 1), 0.0, 0.0]])
    assert_drive(dynamics(neuron), 1.0, taps(0.5, 1), start)
    assert_no_argument(rockpool.aLIFTorch(N, w_ahp=0.01), "feedback after a spike")
    assert_no_argument(rockpool.aLIFTorch(N, tau_ahp=-1e-3), "feedback's decay")


def test_what_no_argument_holds_for_in_rockpool(rockpool):
    make = rockpool.LIFTorch
    assert_no_argument(make(N, noise_std=0.1), "noise")
    assert_no_argument(make(N, noise_std=torch.tensor([0.0, 0.1, 0.0])), "noise")
    assert_no_argument(make(N, n_synapses=2), "batch, time, neurons", (2, T, 2 * N))
    assert_no_argument(make(N), "batch, time, neurons", (2, T, 1))
    assert_no_argument(make(N), "batch, time, neurons", (T, N))
    for call in ({"passes": 2}, {}):
        shapes = ((2, T, N),) if call else ((2, T, N), (2, T, N))
        assert_no_argument(make(N), "go on from the state", *shapes, **call)
    for name in ("alpha", "beta"):
        assert_no_argument(make(N, **{name: 1.1}), "decay")
        assert_no_argument(make(N, **{name: -0.1}), "decay")
        dynamics(make(N, **{name: 0.0}))
        dynamics(make(N, **{name: 1.0}))
    early = make(N)
    del early.alpha
    assert_no_argument(early, "early release")


class Weak(nn.Module):
    """One neuron that gets the same charge at each step."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.fc, self.neuron, self.out = nn.Linear(1, 1), neuron, nn.Linear(1, 1)
        nn.init.constant_(self.fc.weight, 1.0)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.neuron(self.fc(x)))


@pytest.mark.parametrize("w_rec", [-0.3, 0.0, 0.3])
@pytest.mark.parametrize("warm", [False, True])
def test_no_input_makes_rockpools_neurons_fire_more_than_their_bound(rockpool, w_rec, warm):
    for kind in ("LIFTorch", "aLIFTorch", "LIFNeuronTorch"):
        options = {"alpha": 1.0, "beta": 0.6, "has_rec": True}
        options = {} if kind == "LIFNeuronTorch" else options

        def make(kind: str = kind, options: Any = options) -> nn.Module:
            neuron = getattr(rockpool, kind)(1, threshold=0.7, **options)
            if options:
                nn.init.constant_(neuron.w_rec, w_rec)
            if warm:
                neuron(torch.tensor([[[0.9], [0.6]]]))
            return Weak(neuron).eval()

        with torch.no_grad():
            for x in (torch.full((1, T, 1), 0.5), torch.eye(T)[0].reshape(1, T, 1) * 3):
                analysis = fxsynops.analyze(make(), x, layout="NT", input_events=False, audit=False)
                rows = analysis.upper_bound(input_range=(0.0, float(x.max()))).rows
                (row,) = (row for row in rows if row.connection.synapse == "out")
                model = make()
                emitted = float(model.neuron(model.fc(x)).sum())
                assert emitted <= row.charge < row.structural


# -- braincog --------------------------------------------------------------------------------------

NODES = "IFNode LIFNode BiasLIFNode LIFSTDPNode PLIFNode BiasPLIFNode OnlineLIFNode".split()


class Net(nn.Module):
    """Steps one after the other, or all in front of the samples; each forward resets its node."""

    def __init__(self, node: nn.Module) -> None:
        super().__init__()
        self.fc, self.node, self.out = nn.Linear(4, 6), node, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.node.n_reset()
        if self.node.layer_by_layer:
            return self.out(self.node(self.fc(x.flatten(0, 1))))
        return torch.stack([self.out(self.node(self.fc(step))) for step in x])


@pytest.mark.parametrize("layer_by_layer", [False, True])
@pytest.mark.parametrize("name", [*NODES[:-1], "DoubleSidePLIFNode", "aEIF"])
def test_braincogs_nodes_are_counted_as_an_oracle_counts_them(braincog, name, layer_by_layer):
    case = Case(
        lambda: Net(getattr(braincog, name)(0.1, layer_by_layer=layer_by_layer)),
        lambda: (4 * torch.randn(4, 2, 4),),
        {"layout": "TN", "input_events": False},
        reset_states,
    )
    outcome = count(case)
    assert outcome.same_output
    assert outcome.synops == outcome.expected_synops
    assert outcome.synops["out"] > 0
    assert outcome.macs == outcome.expected_macs
    rows = outcome.counter.analysis.upper_bound(input_range=(-20, 20)).rows
    assert [row.max_events for row in rows] == [1]
    node = getattr(braincog, name)()
    assert known(node).may_be_negative(node) is (name == "DoubleSidePLIFNode")
    assert (known(node).dynamics is None) is (name in ("DoubleSidePLIFNode", "aEIF"))


def test_braincogs_nodes_that_put_out_analog_values(braincog):
    for node in (braincog.ReLUNode(), braincog.LIAFNode(), braincog.BaseMCNode(warm_up=True)):
        assert not known(node).spikes
    assert known(braincog.BaseMCNode(warm_up=False)).spikes
    assert describe(braincog.AtanGrad()) is None


def test_braincogs_surrogates_say_what_a_node_emits(braincog):
    for name in ("IFNode", "LIFNode", "PLIFNode"):
        make = getattr(braincog, name)
        for function, doubted, most in (
            (braincog.AtanGrad, False, 1),
            (braincog.RoundGrad, False, 5),
            (braincog.Halves, True, 1),
            (braincog.EIGrad, True, 1),
        ):
            node = make(act_fun=function)
            assert known(node).may_be_fraction(node) is doubted
            assert known(node).max_spikes == most
            assert known(node).rounded is (function is braincog.RoundGrad)
    burst = braincog.BurstLIFNode()
    assert "burst" in known(burst).refused
    once = braincog.BurstLIFNode(act_fun=braincog.AtanGrad)
    assert not known(once).refused
    assert not known(once).may_be_fraction(once)
    assert not known(braincog.LIFNode(act_fun=braincog.RoundGrad)).refused


def test_what_overrides_a_braincog_method_may_emit_anything(braincog):
    def users(base: type, name: str) -> nn.Module:
        body = {name: lambda self, *args: None}
        return type("Mine", (base,), body)()

    for base in (braincog.IFNode, braincog.aEIF):
        for name in ("forward", "calc_spike", "rearrange2op"):
            node = users(base, name)
            assert known(node).checked(node) is False
            assert known(node).may_be_negative(node)
        assert known(base()).checked(base()) is True

    class RoundGrad(nn.Module):  # of the user's, and no step
        act = nn.Hardtanh(-0.5, 4.5)

        def forward(self, x: Tensor) -> Tensor:
            return x.round()

    node = braincog.IFNode(act_fun=RoundGrad)
    assert known(node).max_spikes == 1
    assert known(node).checked(node) is False


@pytest.mark.parametrize("if_back", [False, True])
@pytest.mark.parametrize("if_ei", [False, True])
@pytest.mark.parametrize("mode", [{}, {"layer_by_layer": True}, {"n_groups": 2}])
def test_braincogs_gated_nodes_have_their_convolutions_inside(braincog, if_back, if_ei, mode):
    node = braincog.BackEINode(3, if_back, if_ei, threshold=0.05, step=2, **mode)
    assert known(node).may_be_negative(node) is if_ei
    shape = {"layer_by_layer": (2 * 2, 3, 5, 4), "n_groups": (2, 3 * 2, 5, 4)}
    x = torch.randn(shape.get(next(iter(mode), ""), (2, 3, 5, 4)))
    reset_states(node)
    with torch.no_grad():
        output = node(x)
    if known(node).inside is None:
        assert not if_back
        assert not if_ei
        return
    ones = {}
    for name, synapse in known(node).inside(node, {}, output).items():
        nn.init.constant_(getattr(node, name).weight, 1.0)
        nn.init.zeros_(getattr(node, name).bias)
        ones[name] = synapse().detach()
    assert set(ones) == {name for name, on in (("back", if_back), ("ei", if_ei)) if on}
    for y in ones.values():  # of all steps and samples, of one step's channels
        assert y.shape == ((2 if not mode else 4), 3, 5, 4)
    if if_back:
        steps = (
            output.unflatten(1, (3, 2)).movedim(2, 0).flatten(0, 1)
            if "n_groups" in mode
            else output
        )
        expected = nn.functional.conv2d(steps, torch.ones(3, 3, 3, 3), padding=1)
        torch.testing.assert_close(ones["back"], expected)


def test_braincogs_gates_give_a_spike_a_sign_or_another_worth(braincog):
    for gate, whole in ((braincog.EIGrad, True), (braincog.Halves, False), (nn.Tanh, False)):
        node = braincog.BackEINode(2, th_fun=gate)
        assert known(node).checked(node) is whole
        assert known(node).may_be_negative(node)


def test_braincogs_resets_are_those_of_its_nodes(braincog):
    nodes = [braincog.IFNode(v_reset=0.25), braincog.BackEINode(2), braincog.LIAFNode()]
    for node in nodes:
        node.mem = node.spike = torch.ones(1)
    model = nn.Sequential(nodes[0], nn.ReLU(), braincog.AtanGrad(), *nodes[1:])
    assert reset_states(model) == nodes
    assert [node.mem for node in nodes] == [0.25, None, 0.0]
    assert nodes[0].spike == 0.0


def test_braincogs_charge_is_what_its_equations_say(braincog):
    one = (2, N)
    for call, length in (((one,) * T, T), ((one,), 1)):
        found = dynamics(braincog.IFNode(0.7, dt=0.5), *call)
        assert_drive(found, 0.7, 0.5)
        assert found.steps == Steps()
        assert_drive(dynamics(braincog.LIFNode(0.7, tau=4.0), *call), 0.7, 0.25)
        assert_drive(dynamics(braincog.OnlineLIFNode(0.7, tau=4.0), *call), 0.7, 0.25)
        assert_drive(dynamics(braincog.LIFSTDPNode(0.7, tau=0.5), *call), 0.7)
        found = dynamics(braincog.BiasLIFNode(0.7, tau=4.0, dt=0.5), *call)
        assert_drive(found, 0.7, 0.125, 0.1 * length)
        assert_drive(dynamics(braincog.PLIFNode(0.7, tau=4.0, dt=0.5), *call), 0.7, 0.125)
        found = dynamics(braincog.BiasPLIFNode(0.7, tau=4.0, dt=0.5), *call)
        assert_drive(found, 0.7, 0.125, 0.05 * length)
    assert dynamics(braincog.IFNode(), *(one,) * 4).resets.keys() == {
        "mem", "spike", "feature_map", "mem_collect"
    }  # fmt: skip
    for sigmoid, theta in ((True, 1 / (1 + math.exp(-0.7))), (False, 0.7)):
        for name in ("IFNode", "BiasLIFNode", "PLIFNode", "BiasPLIFNode"):
            node = getattr(braincog, name)(0.7, sigmoid_thres=sigmoid)
            assert float(dynamics(node, one).up.removes) == pytest.approx(theta)
        for name in ("LIFNode", "LIFSTDPNode", "OnlineLIFNode"):  # it does not ask for it
            node = getattr(braincog, name)(0.7, sigmoid_thres=sigmoid, tau=1.0)
            assert float(dynamics(node, one).up.removes) == pytest.approx(0.7)


def test_braincogs_reset_level_is_where_a_spike_starts(braincog):
    for name in NODES:
        make = getattr(braincog, name)
        tau = {"tau": 0.5} if name == "LIFSTDPNode" else {}
        bias = 0.1 if name.startswith("Bias") else 0.0
        above = make(0.7, v_reset=0.2, **tau)
        above.mem, above.init = torch.tensor([[0.5, -1.0], [0.25, 0.1]]), False
        gain = dynamics(above, (2, 2)).up.gain
        assert_drive(
            dynamics(above, (2, 2)), 0.5, gain, torch.tensor([[0.3, 0.0]]) + bias, level=0.2
        )
        assert float(dynamics(above, (2, 2)).resets["mem"]) == pytest.approx(0.2)
        below = make(0.7, v_reset=-0.4, **tau)
        below.mem, below.init = torch.tensor(0.3), False
        assert_drive(dynamics(below, (2, 2)), 0.7, gain, 0.3 + bias)
        assert float(dynamics(below, (2, 2)).resets["mem"]) == 0.0
        assert_no_argument(make(0.7, v_reset=0.7, **tau), "above its reset level", (2, 2))
    online = braincog.OnlineLIFNode(0.7)
    online.mem = torch.tensor(0.6)  # which it forgets at first
    assert_drive(dynamics(online, (2, 2)), 0.7, 0.5)
    online.init = False
    assert_drive(dynamics(online, (2, 2)), 0.7, 0.5, 0.6)


def test_braincogs_steps_are_in_front_of_the_samples(braincog):
    for name in NODES[:-1]:
        tau = {"tau": 0.5} if name == "LIFSTDPNode" else {}
        node = getattr(braincog, name)(0.7, layer_by_layer=True, step=4, **tau)
        found = dynamics(node, (12, N))
        assert found.steps == Steps(0, 3)
        bias = 0.1 if name.startswith("Bias") else 0.0
        assert float(torch.as_tensor(found.up.start)) == pytest.approx(4 * bias)
        x = torch.arange(12.0).reshape(12, 1)
        assert torch.equal(found.steps.split(x), x.reshape(4, 3, 1))
        grouped = getattr(braincog, name)(0.7, n_groups=2, **tau)
        assert_no_argument(grouped, "among its channels", (2, 2 * N))


def test_what_no_argument_holds_for_in_braincog(braincog):
    one = (2, N)
    for name in NODES:
        tau = {"tau": 0.5} if name == "LIFSTDPNode" else {}
        make = getattr(braincog, name)
        assert_no_argument(make(0.7, act_fun=braincog.RoundGrad, **tau), "act_fun", one)
        assert_no_argument(make(-0.1, v_reset=-0.4, **tau), "threshold", one)
    assert_no_argument(braincog.IFNode(dt=0.0), "step is not positive", one)
    for tau, fits in ((0.9, False), (1.0, True)):
        for node in (braincog.LIFNode(tau=tau), braincog.OnlineLIFNode(tau=tau)):
            if fits:
                assert_drive(dynamics(node, one), 0.5)
            else:
                assert_no_argument(node, "time constant", one)
    for tau, fits in ((-0.1, False), (0.0, True), (1.0, True), (1.1, False)):
        node = braincog.LIFSTDPNode(tau=tau)
        if fits:
            assert_drive(dynamics(node, one), 0.5)
        else:
            assert_no_argument(node, "decay", one)
    for dt, fits in ((1.0, True), (1.2, False)):
        node = braincog.BiasLIFNode(tau=1.0, dt=dt)
        if fits:
            assert_drive(dynamics(node, one), 0.5, 1.0, 0.1)
        else:
            assert_no_argument(node, "step over the time constant", one)
    assert_no_argument(braincog.BiasLIFNode(tau=-1.0), "step over the time constant", one)
    for dt, fits in ((2.0, True), (2.2, False), (-0.5, False)):
        for node in (braincog.PLIFNode(tau=2.0, dt=dt), braincog.BiasPLIFNode(tau=2.0, dt=dt)):
            if fits:
                assert float(dynamics(node, one).up.gain) == 1.0
            else:
                assert_no_argument(node, "leak", one)


@pytest.mark.parametrize("name", NODES[:-1])
@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_no_input_makes_braincogs_nodes_fire_more_than_their_bound(braincog, name, layer_by_layer):
    tau = {"tau": 0.5} if name == "LIFSTDPNode" else {}

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(1, 1, bias=False), nn.Linear(1, 1)
            self.node = getattr(braincog, name)(0.45, layer_by_layer=layer_by_layer, step=T, **tau)
            nn.init.constant_(self.fc.weight, 1.0)

        def forward(self, x: Tensor) -> Tensor:
            self.node.n_reset()
            if layer_by_layer:
                return self.out(self.node(self.fc(x.flatten(0, 1))))
            return torch.stack([self.out(self.node(self.fc(step))) for step in x])

    for x in (torch.full((T, 1, 1), 0.2), torch.eye(T)[1].reshape(T, 1, 1)):
        analysis = fxsynops.analyze(One(), x, layout="TN", input_events=False, audit=False)
        bound = analysis.upper_bound(input_range=(0.0, float(x.max())))
        counter = analysis.counter()
        with torch.no_grad():
            counter(x)
        assert float(counter.synops) <= bound.charge <= bound.structural == T
        assert bound.charge < T or float(x.max()) == 1.0


# -- lava-dl's slayer ------------------------------------------------------------------------------


class Chain(nn.Module):
    """(samples, channels, steps): a layer of neurons, what delays its spikes, and a synapse."""

    def __init__(self, neuron: nn.Module, delay: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.fc, self.neuron, self.out = nn.Linear(4, N), neuron, nn.Linear(N, 5)
        nn.init.constant_(self.fc.weight, 0.5)
        self.delay = delay

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neuron(self.fc(x.mT).mT)
        return self.out(self.delay(spikes).mT).mT


def assert_exact(model: Callable[[], nn.Module], x: Tensor, **more: Any) -> fxsynops.SynOpsCounter:
    case = Case(model, lambda: (x,), {"input_events": False, "layout": "N"}, reset_states, **more)
    outcome = count(case)
    assert outcome.same_output
    assert outcome.synops == outcome.expected_synops
    assert outcome.macs == outcome.expected_macs
    assert outcome.synops["out"] > 0
    return outcome.counter


def test_slayers_neurons_are_counted_as_an_oracle_counts_them(slayer):
    x = torch.rand(2, 4, T)
    for make in (
        lambda: slayer.Current(0.4, 0.25, 0.1),
        lambda: slayer.Current(0.4, 0.25, 0.1, persistent_state=True),
        lambda: slayer.Adaptive(0.4),
    ):
        counter = assert_exact(lambda make=make: Chain(make()), x)
        (row,) = counter.analysis.upper_bound(input_range=(0, 1), timesteps=T).rows
        assert row.max_events == 1
        assert not known(make()).may_be_negative(make())


@pytest.mark.parametrize(
    ("late", "unit"), [(2, ()), (2.0, (0.5,)), (3, (2.0,)), (0, ()), (3, (1,))]
)
def test_slayers_delayed_spikes_that_come_too_late_reach_nothing(slayer, late, unit):
    def delay(x: Tensor) -> Tensor:
        return slayer.FixedDelay.apply(x, late, *unit)

    x = torch.rand(2, 4, T)
    counter = assert_exact(lambda: Chain(slayer.Current(0.4, 0.25, 0.1), delay), x)
    (row,) = counter.analysis.connections
    steps = int(float(late) / (unit[0] if unit else 1))
    alive = (torch.arange(T) < T - steps).long()
    assert torch.equal(row.fanout.map.expand(1, N, T), 5 * alive.expand(1, N, T))


def test_slayers_learned_delays_are_measured_where_the_spikes_arrive(slayer):
    late = torch.tensor([0.0, 1.0, 3.5])
    make = lambda: slayer.Current(0.4, 0.25, 0.1)  # noqa: E731
    counter = assert_exact(
        lambda: Chain(make(), lambda x: slayer.LearnedDelay.apply(x, late)), torch.rand(2, 4, T)
    )
    late.copy_(torch.tensor([5.0, 0.0, 2.0]))
    x = torch.rand(2, 4, T)
    with torch.no_grad():
        counter(x)
        _, expected, _ = watch(counter.model, x)
    assert float(counter.per_synapse["out"]) == expected["out"] > 0


def test_slayers_graded_neurons_put_out_analog_values(slayer):
    for module, spikes in (
        (slayer.Current(1.0, 0.1, 0.1), True),
        (slayer.Current(1.0, 0.1, 0.1, graded_spike=True), False),
        (slayer.SigmaDelta(), False),
        (slayer.Delta(), False),
        (slayer.Recurrent(slayer.Current(1.0, 0.1, 0.1), 4, N), True),
        (slayer.Recurrent(slayer.SigmaDelta(), 4, N), False),
        (slayer.Recurrent(slayer.Current(1.0, 0.1, 0.1, graded_spike=True), 4, N), False),
    ):
        assert known(module).spikes is spikes
    assert describe(slayer.Dropout()) is None


def test_slayers_recurrent_blocks_have_two_synapses_inside(slayer):
    def make(**options: Any) -> Any:
        return slayer.Recurrent(slayer.Current(0.5, 1.0, 1.0, **options), 4, N)

    block, x = make(), torch.rand(2, 4, T)
    model = nn.Sequential(block)
    counter = fxsynops.SynOpsCounter(model, (x > 0.5).float())
    with torch.no_grad():
        emitted = float(counter((x > 0.5).float()).sum())
    expected = {"0.input_synapse": float((x > 0.5).sum()) * N, "0.recurrent_synapse": emitted * N}
    assert {k: float(n) for k, n in counter.per_synapse.items()} == expected
    assert emitted > 0
    assert known(block).max_spikes == 1
    assert known(block).dynamics is None
    assert not known(block).refused
    assert not known(block).may_be_fraction(block)
    assert "delays" in known(slayer.Recurrent(slayer.Current(1.0, 0.1, 0.1), 4, N, 2)).refused


class Doubles(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * x


def test_slayers_dropout_makes_up_for_what_it_drops(slayer):
    for p, training, worth in (
        (0.25, True, 4 / 3),
        (0.25, False, 1.0),
        (0.0, True, 1.0),
        (1.0, True, 1.0),
    ):
        neuron = slayer.Current(0.4, 0.25, 0.1, drop=slayer.Dropout(p)).train(training)
        block = slayer.Recurrent(neuron, 4, N).train(training)
        for module in (neuron, block):
            assert float(known(module).amplitude(module)) == pytest.approx(worth)
            assert not known(module).may_be_fraction(module)
    for module, whole in (
        (slayer.Current(0.4, 0.25, 0.1), True),
        (slayer.Current(0.4, 0.25, 0.1, drop=Doubles()), False),
    ):
        assert float(known(module).amplitude(module)) == 1.0
        block = slayer.Recurrent(module, 4, N)
        assert known(module).may_be_fraction(module) is not whole
        assert known(block).may_be_fraction(block) is not whole
    model = Chain(slayer.Current(0.4, 0.25, 0.1, drop=slayer.Dropout(0.5)))
    x = torch.rand(2, 4, T)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    seen: list[Tensor] = []
    model.neuron.register_forward_hook(lambda m, a, y: seen.append(y))
    with torch.no_grad():
        counter(x)
    assert float(counter.per_synapse["out"]) == float((seen[-1] > 0).sum()) * 5 > 0
    assert float(seen[-1].max()) == 2.0


def test_slayers_states_are_reset_to_rest(slayer):
    current, adaptive = slayer.Current(1.0, 0.1, 0.1), slayer.Adaptive(0.75)
    block = slayer.Recurrent(slayer.Current(1.0, 0.1, 0.1), 4, N)
    current.current_state, current.voltage_state = torch.ones(2), torch.ones(2)
    adaptive.threshold_state, adaptive.voltage_state = torch.ones(2), torch.ones(2)
    block.delay_buffer = torch.ones(2)
    stranger = nn.BatchNorm1d(2)
    stranger.register_buffer("own_state", torch.ones(2))
    dropout = slayer.Dropout()
    model = nn.Sequential(current, stranger, adaptive, block, dropout)
    assert reset_states(model) == [current, adaptive, block, block.neuron]
    for state in (current.current_state, current.voltage_state, adaptive.voltage_state):
        assert torch.equal(state, torch.zeros(2))
    assert torch.equal(adaptive.threshold_state, torch.full((2,), 0.75))
    assert torch.equal(stranger.own_state, torch.ones(2))
    assert block.delay_buffer is None


def test_slayers_current_reaches_as_far_as_it_decays(slayer):
    shape = (2, N, T)
    for decay in (0.0, 0.25, 1.0):
        neuron = slayer.Current(0.7, decay, 0.1)
        found = dynamics(neuron, shape)
        assert_drive(found, 0.7, taps(1 - decay))
        assert found.steps == Steps(-1)
        assert found.resets == {"current_state": 0.0, "voltage_state": 0.0}
        neuron.current_state = torch.tensor([[0.5, -1.0, 0.0], [0.25, -1.0, 0.1]])
        neuron.voltage_state = torch.tensor([[0.5, 0.5, -1.0], [-1.0, 0.75, -1.0]])
        reach = taps(1 - decay, 1)
        start = torch.tensor([[0.5 + 0.5 * reach, 0.75, 0.1 * reach]])
        assert_drive(dynamics(neuron, shape), 0.7, taps(1 - decay), start)
    several = slayer.Current(0.7, 0.5, 0.1)
    several.current_decay = torch.tensor([2048.0, 1024.4, 4096.0])  # the slowest of them counts
    assert_drive(dynamics(several, shape), 0.7, taps(0.75))


def test_what_no_argument_holds_for_in_slayer(slayer):
    shape = (2, N, T)

    def make(threshold: float = 0.7, current: float = 0.25, voltage: float = 0.1, **options: Any):
        return slayer.Current(threshold, current, voltage, **options)

    assert_no_argument(make(norm=nn.Identity()), "normalizes", shape)
    assert_no_argument(make(threshold=-1.0), "threshold", shape)
    assert_no_argument(make(s_scale=65), "different thresholds", shape)
    assert_no_argument(make(threshold=0.5, threshold_eps=1e-11), "different thresholds", shape)
    assert_drive(dynamics(make(threshold=0.5, threshold_eps=0.0), shape), 0.5, taps(0.75))
    for name in ("current", "voltage"):
        for outside in (-0.01, 1.01):
            assert_no_argument(make(**{name: outside}), f"{name} decay", shape)
    for persistent in (False, True):
        for held in (0.0, 0.1, -0.1):
            neuron = make(persistent_state=persistent)
            neuron.voltage_state = torch.tensor([held])
            assert_drive(dynamics(neuron, shape), 0.7, taps(0.75), max(held, 0.0))
            for call in ({"passes": 2}, {}):
                shapes = (shape,) if call else (shape, shape)
                if held > 0 and not persistent:
                    assert_no_argument(neuron, "starts each forward", *shapes, **call)
                else:
                    reach = taps(0.75, steps=2 * T)
                    assert_drive(dynamics(neuron, *shapes, **call), 0.7, reach, max(held, 0.0))
    mine = type("Mine", (slayer.Current,), {})
    assert known(make()).dynamics is not None
    assert known(mine(0.7, 0.25, 0.1)).dynamics is None
    assert known(slayer.Adaptive(1.0)).dynamics is None


# -- bindsnet, snntorch-ternary, exact-snn-nn ------------------------------------------------------


@pytest.fixture
def bindsnet(absent: Load) -> Any:
    return absent("bindsnet")


@pytest.mark.parametrize("kind", ["IFNodes", "IzhikevichNodes"])
def test_bindsnets_nodes_keep_their_spikes(bindsnet, kind):
    def build() -> nn.Module:
        return bindsnet.Network(
            bindsnet.Input(4), bindsnet.Connection(4, N), getattr(bindsnet, kind)(N)
        )

    x = (torch.rand(T, 2, 4) < 0.4).float()
    model = build()
    counter = fxsynops.SynOpsCounter(model, x, layout="TN")
    reset_states(model)
    with torch.no_grad():
        emitted = float(counter(x).sum())
    found = {row.connection.synapse: float(row.synops) for row in counter.counts.rows}
    expected = {"connection": float(x.sum()) * N}
    if kind == "IzhikevichNodes":
        expected["second.S"] = emitted * N
    assert found == expected
    assert emitted > 0
    assert known(model.second).max_spikes == 1
    assert not known(model.second).may_be_negative(model.second)
    assert known(model.first).max_spikes == math.inf
    assert known(model.first).may_be_negative(model.first)
    assert known(model.first).promised
    mine = type("Mine", (bindsnet.IFNodes,), {"forward": lambda self, x: None})(N)
    assert known(mine).may_be_fraction(mine)


def test_bindsnets_rules_are_refused_while_they_learn(bindsnet):
    learning = [bindsnet.PostPre(), bindsnet.PostPre]
    resting = [None, bindsnet.NoOp(), bindsnet.NoOp]
    for rule in learning + resting:
        features = [bindsnet.Feature(None), bindsnet.Feature(rule)]
        for connection in (
            bindsnet.Connection(2, 2, rule),
            bindsnet.Connection(2, 2, None, features),
            bindsnet.Connection(2, 2, bindsnet.NoOp(), features),
        ):
            assert describe(connection.eval()) is None
            connection.train()
            if rule in learning:
                with pytest.raises(
                    fxsynops.UnsupportedOperationError, match=r"learns.*\(PostPre\)"
                ):
                    describe(connection)
            else:
                assert describe(connection) is None


def test_bindsnets_resets_are_those_of_its_nodes_and_networks(bindsnet):
    first, second = bindsnet.Input(2), bindsnet.IFNodes(2)
    network = bindsnet.Network(first, bindsnet.Connection(2, 2), second)
    second.v = torch.ones(1, 2)
    assert reset_states(network) == [network, first, second]
    assert not second.v.any()
    assert reset_states(nn.Sequential(network.connection)) == []


def test_snntorchs_ternary_neuron_emits_what_its_surrogate_says(absent):
    ternary = absent("snntorch_ternary")
    for fires, most, whole in (
        (ternary.atan_ternary, 2, True),
        (ternary.heaviside, 1, True),
        (ternary.halves, 2, False),
        (torch.tanh, 2, False),
    ):
        neuron = ternary.TernaryLeaky(fires, 0.5)
        found = known(neuron)
        assert found.max_spikes == most
        assert found.spikes
        assert found.checked(neuron) is whole
        assert found.may_be_negative(neuron)
        assert float(found.amplitude(neuron)) == 0.5
    mine = type("Mine", (ternary.TernaryLeaky,), {"ternary_fire": lambda self, mem: mem})()
    assert known(mine).checked(mine) is False
    assert describe(ternary.Encoder()) is None
    for fires, factor in ((ternary.atan_ternary, 1.0), (ternary.heaviside, 0.25)):
        counter = assert_exact(
            lambda fires=fires, factor=factor: Around(ternary.TernaryLeaky(fires, factor)),
            4 * torch.randn(6, 4),
            units={"out": factor},
        )
        rows = counter.analysis.upper_bound(input_range=(-20, 20)).rows
        assert [row.max_events for row in rows] == [2 if factor == 1 else 1]


def test_times_of_spikes_are_refused_where_the_weights_are(absent):
    exact = absent("exact_snn")
    layer = exact.ExactTTFSLinear(4, 3)
    assert "times of spikes" in known(layer).refused
    assert describe(exact.ExactTTFSNetwork(layer)) is None
    assert describe(nn.Linear(4, 3)) is None
    for model in (layer, exact.ExactTTFSNetwork(layer, exact.ExactTTFSLinear(3, 2))):
        with pytest.raises(fxsynops.UnsupportedOperationError, match="times of spikes"):
            fxsynops.analyze(model, torch.rand(2, 4), input_events=False)


def test_a_stand_in_returns_what_it_returned_when_it_is_counted(rockpool):
    model, x = Around(rockpool.LIFTorch(N, threshold=0.3)), firing((2, T, 4))
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", input_events=False)
    reset_states(model)
    y = counter(x)
    reset_states(model)
    assert same(y, model(x))
