"""Every neuron type against its worst input, and its bound where the equations give it by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
from spikingjelly.activation_based import neuron as sj
from spikingjelly.activation_based import surrogate
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn

Random = random.Random


class Cell(nn.Module):
    """One neuron behind a synapse from each input, and before a synapse of its own.

    Args:
        neuron: takes one feature.
        takes: "NT" and "TN" whole sequences, "TNCHW" with more axes, "step" one step, "state" one
            step and a state.
        weights: of the synapses from the inputs.
        bias: charge per step.
    """

    def __init__(
        self, neuron: nn.Module, takes: str, weights: tuple[float, ...] = (1.0,), bias: float = 0.0
    ) -> None:
        super().__init__()
        self.fc = nn.Linear(len(weights), 1)
        self.neuron, self.takes = neuron, takes
        self.out = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([weights]))
            self.fc.bias.fill_(bias)
            self.out.weight.fill_(1.0)
        self.eval()

    def spikes(self, x: Tensor) -> Tensor:
        current = self.fc(x)
        if self.takes == "NT":
            return self.neuron(current)
        if self.takes == "TN":
            y = self.neuron(current.transpose(0, 1))
            return (y[0] if isinstance(y, tuple) else y).transpose(0, 1)
        if self.takes == "TNCHW":
            return self.neuron(current.transpose(0, 1)[..., None, None])[..., 0, 0].transpose(0, 1)
        found, state = [], None
        for step in current.unbind(1):
            if self.takes == "state":
                y, state = self.neuron(step, state)
            else:
                y = self.neuron(step)
            found.append(y)
        return torch.stack(found, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.spikes(x))


class Cells(nn.Module):
    """Neurons side by side, each with inputs of its own: (samples, steps, neurons, inputs)."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([cell(x[:, :, i]) for i, cell in enumerate(self.cells)], -1)


def charges(bound: fxsynops.Bound) -> list[float]:
    """Of the neurons of some cells, in order."""
    found = {row.connection.synapse: row.charge for row in bound.rows}
    return [found[f"cells.{i}.out"] for i in range(sum(name.endswith(".out") for name in found))]


# -- the worst input -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A neuron type: how to draw one of it for a number of steps, and how it takes its input.

    Attributes:
        make: (random choices, steps) -> module.
        takes: see :class:`Cell`.
        warms: whether it may keep a state from an earlier window.
        seed: of the first one.
    """

    make: Callable[[Random, int], nn.Module]
    takes: str
    warms: bool = True
    seed: int = 20


def between(r: Random, low: float, high: float) -> float:
    return round(r.uniform(low, high), 3)


def theta(r: Random) -> float:
    return between(r, 0.2, 1.5)


def decay(r: Random) -> float:
    return r.choice([0.0, 1.0, between(r, 0.0, 1.0), between(r, 0.7, 1.0)])


def tensors(**values: float) -> dict[str, Any]:
    return {name: torch.tensor(value) for name, value in values.items()}


def own(r: Random, steps: int) -> nn.Module:
    level = theta(r)
    clamp = r.choice([None, between(r, -1.0, 0.0), between(r, 0.1, 0.9) * level])
    return fnn.IAF(level, r.choice([None, 1, 2]), clamp)


def sinabs_options(r: Random) -> dict[str, Any]:
    level = theta(r)
    resets = [
        sa.MembraneSubtract(),
        sa.MembraneSubtract(between(r, 0.3, 1.0) * level),
        sa.MembraneReset(),
        sa.MembraneReset(between(r, -0.5, 0.0)),
        sa.MembraneReset(between(r, 0.1, 0.8) * level),
    ]
    return {
        "spike_threshold": torch.tensor(level),
        "spike_fn": r.choice([sa.MultiSpike, sa.MultiSpike, sa.SingleSpike, sa.MaxSpike(2)]),
        "reset_fn": r.choice(resets),
        "min_v_mem": r.choice([None, between(r, -1.0, 0.0), between(r, 0.1, 0.8) * level]),
        "tau_syn": r.choice([None, None, between(r, 0.5, 10.0)]),
    }


def sinabs_leaky(r: Random, steps: int) -> nn.Module:
    tau = between(r, 0.5, 20.0)
    return sl.LIF(tau_mem=tau, norm_input=r.random() < 0.5, **sinabs_options(r))


def sinabs_adaptive(r: Random, steps: int) -> nn.Module:
    options = sinabs_options(r) | {"reset_fn": sa.MembraneSubtract()}
    taus = {"tau_mem": between(r, 0.5, 20.0), "tau_adapt": between(r, 0.5, 20.0)}
    scale = r.choice([0.0, between(r, 0.0, 2.0)])
    return sl.ALIF(norm_input=r.random() < 0.5, adapt_scale=scale, **taus, **options)


def sinabs_recurrent(r: Random, steps: int) -> nn.Module:
    back = nn.Linear(1, 1)
    with torch.no_grad():
        back.weight.fill_(between(r, -0.5, 0.5))
        back.bias.fill_(between(r, -0.2, 0.2))
    return sl.LIFRecurrent(tau_mem=between(r, 1.0, 20.0), rec_connect=back, **sinabs_options(r))


def snn_options(r: Random, *resets: str) -> dict[str, Any]:
    return {
        "threshold": theta(r),
        "reset_mechanism": r.choice(resets or ("subtract", "zero", "none")),
        "init_hidden": True,
    }


def snn_leaky(r: Random, steps: int) -> nn.Module:
    return snntorch.Leaky(decay(r), reset_delay=r.random() < 0.5, **snn_options(r))


def snn_lapicque(r: Random, steps: int) -> nn.Module:
    step = between(r, 0.2, 1.0)
    decays = {"beta": between(r, 0.4, 0.95)}
    resistor = {"R": between(r, 1.0, 3.0), "C": between(r, 1.0, 3.0)}
    some = r.choice(["R", "C"])
    given = r.choice([decays, resistor, {**decays, some: resistor[some]}])
    return snntorch.Lapicque(time_step=step, **given, **snn_options(r))


def snn_synaptic(r: Random, steps: int) -> nn.Module:
    given = snn_options(r, "subtract", "zero")
    return snntorch.Synaptic(decay(r), decay(r), reset_delay=r.random() < 0.5, **given)


def snn_alpha(r: Random, steps: int) -> nn.Module:
    alpha = between(r, 0.3, 0.98)
    return snntorch.Alpha(alpha, between(r, 0.05, 0.95) * alpha, **snn_options(r, "zero"))


def snn_recurrent(r: Random, steps: int) -> nn.Module:
    given = snn_options(r, "subtract", "zero")
    one_to_one = {"V": between(r, -0.5, 0.5), "all_to_all": False}
    given |= r.choice([one_to_one, {"all_to_all": True, "linear_features": 1}])
    if r.random() < 0.5:
        return snntorch.RLeaky(decay(r), **given)
    return snntorch.RSynaptic(decay(r), decay(r), **given)


def snn_kernel(r: Random, steps: int) -> nn.Module:
    return snntorch.StateLeaky(between(r, 0.1, 0.95), 1, threshold=theta(r))


def jelly_options(r: Random) -> dict[str, Any]:
    level = theta(r)
    resets = [None, 0.0, between(r, -1.0, 0.0), between(r, 0.1, 0.8) * level]
    return {"v_threshold": level, "v_reset": r.choice(resets), "step_mode": "m"}


def jelly_below_zero(r: Random) -> dict[str, Any]:
    return jelly_options(r) | {"v_reset": r.choice([None, 0.0, between(r, -1.0, 0.0)])}


def jelly_tau(r: Random) -> dict[str, Any]:
    return {"tau": between(r, 1.1, 20.0), "decay_input": r.random() < 0.5}


def jelly_integrates(r: Random, steps: int) -> nn.Module:
    kind = r.choice([sj.IFNode, sj.LIFNode, sj.ParametricLIFNode, sj.ComplementaryLIFNode])
    given, tau = jelly_options(r), jelly_tau(r)
    if kind is sj.IFNode:
        return sj.IFNode(**given)
    if kind is sj.LIFNode:
        return sj.LIFNode(**tau, **given)
    if kind is sj.ParametricLIFNode:
        return sj.ParametricLIFNode(tau["tau"], tau["decay_input"], **given)
    return sj.ComplementaryLIFNode(tau["tau"], v_threshold=given["v_threshold"], step_mode="m")


def jelly_scaled(r: Random, steps: int) -> nn.Module:
    node = sj.KLIFNode(r.random() < 0.5, **jelly_tau(r), **jelly_below_zero(r))
    nn.init.constant_(node.k, between(r, 0.4, 2.5))
    return node


def jelly_aware(r: Random, steps: int) -> nn.Module:
    level = theta(r)
    return sj.ActivationAwareIFNode(
        level, between(r, -0.4, 0.4) * level, v_reset=r.choice([None, 0.0, -0.3]), step_mode="m"
    )


def jelly_current(r: Random, steps: int) -> nn.Module:
    given = jelly_options(r)
    node = sj.CUBALIFNode(decay(r), decay(r), given["v_threshold"], given["v_reset"])
    node.step_mode = "m"
    return node


def jelly_gated(r: Random, steps: int) -> nn.Module:
    node = sj.GatedLIFNode(T=steps, inplane=1)
    with torch.no_grad():
        for parameter in node.parameters():
            for i in range(parameter.numel()):
                parameter.view(-1)[i] = between(r, -3.0, 3.0)
    return node


def jelly_counts(r: Random, steps: int) -> nn.Module:
    counts = surrogate.MultiLevelSpikeCount(r.choice([1, 3]))
    tau = between(r, 1.1, 20.0)
    return sj.ILIFNode(tau=tau, v_threshold=theta(r), step_mode="m", surrogate_function=counts)


def jelly_ternary(r: Random, steps: int) -> nn.Module:
    given = jelly_options(r)
    level = given["v_threshold"]
    given["v_reset"] = r.choice([None, 0.0, between(r, -0.7, 0.7) * level])
    if r.random() < 0.5:
        return sj.TernaryIFNode(**given)
    return sj.TernaryLIFNode(**jelly_tau(r), **given)


def jelly_dual(r: Random, steps: int) -> nn.Module:
    given = {"T": steps, "v_threshold": theta(r), "alpha": between(r, 0.2, 1.0)}
    if r.random() < 0.5:
        return sj.DSRIFNode(**given)
    return sj.DSRLIFNode(tau=between(r, 0.3, 1.0), delta_t=between(r, 0.2, 1.0), **given)


def norse_levels(r: Random) -> dict[str, Any]:
    level = theta(r)
    levels = (between(r, -1.0, 0.8) * level, between(r, -1.0, 0.8) * level)
    return tensors(v_th=level, v_leak=levels[0], v_reset=levels[1])


def norse_leaky(r: Random) -> Any:
    rates = (between(r, 100.0, 1000.0), between(r, 100.0, 1000.0))
    return LIFParameters(**tensors(tau_mem_inv=rates[0], tau_syn_inv=rates[1]), **norse_levels(r))


def norse_box(r: Random, steps: int) -> nn.Module:
    method = r.choice([reset_value, reset_subtract])
    rate = tensors(tau_mem_inv=between(r, 100.0, 1000.0))
    return LIFBoxCell(LIFBoxParameters(reset_method=method, **rate, **norse_levels(r)))


def norse_sequences(r: Random, steps: int) -> nn.Module:
    levels = norse_levels(r)
    rates = tensors(tau_mem_inv=between(r, 100.0, 1000.0), tau_syn_inv=between(r, 100.0, 1000.0))
    adapts = LSNNParameters(beta=torch.tensor(between(r, 0.0, 1.0)), **rates, **levels)
    plain = IAFParameters(v_th=levels["v_th"], v_reset=levels["v_reset"])
    return r.choice(
        [
            norse.LIF(LIFParameters(**rates, **levels)),
            norse.LIF(LIFParameters(**rates, **levels)),
            LSNN(adapts),
            NorseIAF(plain),
        ]
    )


def norse_refractory(r: Random, steps: int) -> nn.Module:
    return LIFRefracCell(LIFRefracParameters(norse_leaky(r), torch.tensor(r.choice([1.0, 2.0]))))


FXSYNOPS = {
    "IAF": Kind(own, "NT"),
    "NeuromorphicReLU": Kind(
        lambda r, t: fnn.NeuromorphicReLU(stochastic_rounding=r.random() < 0.5), "NT"
    ),
}
SINABS = {
    "IAF": Kind(lambda r, t: sl.IAF(**sinabs_options(r)), "NT"),
    "LIF": Kind(sinabs_leaky, "NT"),
    "ALIF": Kind(sinabs_adaptive, "NT"),
    "LIFRecurrent": Kind(sinabs_recurrent, "NT"),
}
SNNTORCH = {
    "Leaky": Kind(snn_leaky, "step"),
    "Lapicque": Kind(snn_lapicque, "step"),
    "Synaptic": Kind(snn_synaptic, "step"),
    "Alpha": Kind(snn_alpha, "step", warms=False),
    "recurrent": Kind(snn_recurrent, "step"),
    "StateLeaky": Kind(snn_kernel, "TN"),
}
JELLY = {
    "integrates": Kind(jelly_integrates, "TN"),
    "KLIFNode": Kind(jelly_scaled, "TN"),
    "ActivationAwareIFNode": Kind(jelly_aware, "TN"),
    "CUBALIFNode": Kind(jelly_current, "TN"),
    "GatedLIFNode": Kind(jelly_gated, "TNCHW", warms=False),
    "ILIFNode": Kind(jelly_counts, "TN"),
    "ternary": Kind(jelly_ternary, "TN"),
    "DSR": Kind(jelly_dual, "TN", warms=False),
}
NORSE = {
    "sequences": Kind(norse_sequences, "TN", seed=0),
    "LIFRefracCell": Kind(norse_refractory, "state"),
    "LIFBoxCell": Kind(norse_box, "state"),
}

POPULATION, ROUNDS, NEURONS = 40, 3, 2


@dataclass(frozen=True)
class Window:
    """What inputs there can be: so many events of each, or analog values from 0 to 1.

    Attributes:
        steps: of one sample.
        most: events; None for analog inputs.
    """

    steps: int
    most: int | None

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Values of two analog inputs, or at which step each event of two inputs comes."""
        if self.most is None:
            x = torch.rand(count, self.steps, 2, generator=generator)
            return torch.where(x < 0.4, 0.0, torch.where(x > 0.6, 1.0, x))
        return torch.randint(self.steps + 1, (count, self.most, 2), generator=generator)

    def patterns(self, r: Random, genes: Tensor) -> None:
        """Excite as early or as much as possible, alone and not; then bursts and rhythms."""
        early, never = (1.0, 0.0) if self.most is None else (0, self.steps)
        genes[0, :, 0], genes[0, :, 1] = early, never
        genes[1, :, 1] = never
        for pattern in genes[2:12]:
            if self.most is None:
                pattern[:] = (torch.arange(self.steps) % r.randint(1, 4) == 0).float()[:, None]
                pattern[: r.randint(0, self.steps), 0] = 0.0
                pattern[r.randint(0, self.steps) :, 1] = 0.0
            else:
                pattern[:] = pattern[[r.randrange(self.most) for _ in range(self.most)]]

    def inputs(self, genes: Tensor) -> Tensor:
        """(samples, steps, two)."""
        if self.most is None:
            return genes
        # an event at the step after the last one does not come
        return nn.functional.one_hot(genes, self.steps + 1).sum(1)[..., : self.steps].mT.float()


def drawn_cell(kind: Kind, seed: int, steps: int, samples: int) -> Cell:
    """The same neuron at each call; it may have been used on an input before."""
    r = Random(seed)
    torch.manual_seed(seed)
    weights = (between(r, 0.4, 1.4), -between(r, 0.2, 2.0))
    bias = r.choice([0.0, 0.0, between(r, -0.2, 0.2)])
    cell = Cell(kind.make(r, steps), kind.takes, weights, bias)
    if kind.warms and r.random() < 0.5:
        x = 2 * torch.rand(1, r.randint(1, 4), 2)
        with torch.no_grad():
            cell(x.expand(samples, *x.shape[1:]))
    return cell


def worst_input(kind: Kind, seed: int, window: Window) -> Tensor:
    """What makes a neuron fire most, as far as a small evolution finds it."""
    r, generator = Random(seed), torch.Generator().manual_seed(seed)
    genes = window.draw(POPULATION, generator)
    window.patterns(r, genes)
    best = genes[:1]
    for _ in range(ROUNDS):
        cell = drawn_cell(kind, seed, window.steps, POPULATION)
        with torch.no_grad():
            emitted = cell.spikes(window.inputs(genes)).abs().flatten(1).sum(1)
        best = genes[emitted.topk(POPULATION // 4).indices]
        children = best.repeat(3, 1, 1)
        change = torch.rand(children.shape, generator=generator) < r.choice([0.1, 0.3])
        children = torch.where(change, window.draw(len(children), generator), children)
        genes = torch.cat([best, children])
    return window.inputs(best[:1])


def assert_nothing_fires_more(kind: Kind) -> None:
    """No neuron of a kind; as a guard, some fire, and what some can emit is less than their cap."""
    fired = charged = 0
    for first, window in ((kind.seed, Window(5, 2)), (kind.seed + NEURONS, Window(4, None))):
        seeds = range(first, first + NEURONS)
        x = torch.stack([worst_input(kind, seed, window) for seed in seeds], 2)
        model = Cells(drawn_cell(kind, seed, window.steps, 1) for seed in seeds)
        assumed: dict[str, Any] = {"input_max_events": window.most}
        if window.most is None:
            assumed = {"input_range": (0.0, 1.0)}
        counter = fxsynops.SynOpsCounter(
            model, x, layout="NT", audit=False, input_events=window.most is not None
        )
        bound = counter.analysis.upper_bound(**assumed)
        with torch.no_grad():
            counter(x)
        measured = {row.connection.key: row.synops for row in counter.counts.rows}
        for row in bound.rows:
            assert measured[row.connection.key] <= row.charge <= row.structural, (seeds, model)
            if row.connection.synapse.endswith("out"):
                fired += measured[row.connection.key] > 0
                charged += row.charge < row.structural
    assert fired > 0
    assert charged > 0


@pytest.mark.parametrize("name", FXSYNOPS)
def test_own_neurons_never_fire_more_than_their_charge_pays_for(name):
    assert_nothing_fires_more(FXSYNOPS[name])


@pytest.mark.parametrize("name", SINABS)
def test_neurons_of_sinabs_never_fire_more_than_their_charge_pays_for(name):
    assert_nothing_fires_more(SINABS[name])


@pytest.mark.parametrize("name", SNNTORCH)
def test_neurons_of_snntorch_never_fire_more_than_their_charge_pays_for(name):
    assert_nothing_fires_more(SNNTORCH[name])


@pytest.mark.parametrize("name", JELLY)
def test_neurons_of_spikingjelly_never_fire_more_than_their_charge_pays_for(name):
    assert_nothing_fires_more(JELLY[name])


@pytest.mark.parametrize("name", NORSE)
def test_neurons_of_norse_never_fire_more_than_their_charge_pays_for(name):
    assert_nothing_fires_more(NORSE[name])


# -- bounds known by hand --------------------------------------------------------------------------

STEPS = 8
HALF = math.exp(-0.5)  # the decay of one step with a time constant of two


def taps(base: float, first: int = 0) -> float:
    """base^first + … over all steps."""
    return math.fsum(base ** (first + k) for k in range(STEPS))


def sinabs(kind: Any = sl.IAF, level: float = 1.0, **options: Any) -> nn.Module:
    return kind(spike_threshold=torch.tensor(level), **options)


def level(neuron: nn.Module, **values: float) -> nn.Module:
    """The neuron, with other values of its parameters."""
    with torch.no_grad():
        for name, value in values.items():
            getattr(neuron, name).fill_(value)
    return neuron


def hidden(kind: Any, *args: Any, **options: Any) -> nn.Module:
    return kind(*args, init_hidden=True, **options)


def multi(kind: Any, *args: Any, **options: Any) -> nn.Module:
    node = kind(*args, **options)
    node.step_mode = "m"
    return node


def rates(membrane: float = 500.0, synapse: float = 500.0, **levels: float) -> dict[str, Any]:
    return tensors(tau_mem_inv=membrane, tau_syn_inv=synapse, **levels)


def box(membrane: float, method: Any, **levels: float) -> nn.Module:
    return LIFBoxCell(
        LIFBoxParameters(
            tau_mem_inv=torch.tensor(membrane), reset_method=method, **tensors(**levels)
        )
    )


GATED = {"alpha": 0.4, "beta": -0.3, "gamma": 0.6, "tau": -1.0, "v_threshold": 0.2}


def gated(subreset: float) -> nn.Module:
    node = level(sj.GatedLIFNode(T=STEPS, inplane=1), v_subreset=subreset, **GATED)
    with torch.no_grad():
        node.conduct.copy_(torch.linspace(-1.0, 1.0, STEPS)[:, None])
    return node


def gated_cost(subreset: float) -> float:
    """Input charge that pays for one event."""
    a, b, g, tau, theta, sub, most = (
        1 / (1 + math.exp(-x)) for x in (*GATED.values(), subreset, 1.0)
    )
    leak = 1 - a * (1 - tau)
    return min(theta, (1 - leak * (1 - g)) * theta + (1 - g) * sub) / (1 - b * (1 - most))


def dual(kind: Any, alpha: float, **options: float) -> nn.Module:
    return kind(T=STEPS, v_threshold=1.0, alpha=alpha, **options)


LEAK = {"v_leak": 0.1, "v_reset": -0.2, "v_th": 0.7}
LAPICQUE = {"R": 2.0, "C": 3.0}
# Neuron, how it takes its input, the charge of each of eight steps, and how many events that pays.
BY_HAND: dict[str, tuple[Callable[[], nn.Module], str, float, float]] = {
    "own IAF": (lambda: fnn.IAF(), "NT", 0.6, 4.8),
    "own IAF, clamp below zero": (lambda: fnn.IAF(min_v_mem=-0.5), "NT", 0.6, 4.8),
    "own IAF, clamp above zero": (lambda: fnn.IAF(min_v_mem=0.25), "NT", 0.6, 4.8 / 0.75),
    "sinabs IAF": (lambda: sinabs(), "NT", 0.6, 4.8),
    "sinabs clamp": (lambda: sinabs(min_v_mem=0.25), "NT", 0.6, 4.8 / 0.75),
    "sinabs subtracts less": (
        lambda: sinabs(reset_fn=sa.MembraneSubtract(0.25)),
        "NT",
        0.6,
        4.8 / 0.25,
    ),
    "sinabs subtracts more than the clamp leaves": (
        lambda: sinabs(reset_fn=sa.MembraneSubtract(0.9), min_v_mem=0.5),
        "NT",
        0.6,
        4.8 / 0.5,
    ),
    "sinabs resets below zero": (lambda: sinabs(reset_fn=sa.MembraneReset(-0.2)), "NT", 0.6, 4.8),
    "sinabs adds the reset level at every step": (
        lambda: sinabs(reset_fn=sa.MembraneReset(0.1)),
        "NT",
        0.6,
        4.8 + STEPS * 0.1,
    ),
    "sinabs leak": (
        lambda: sinabs(sl.LIF, 0.5, tau_mem=2.0, norm_input=False),
        "NT",
        0.6,
        4.8 / 0.5,
    ),
    "sinabs leak on the input": (
        lambda: sinabs(sl.LIF, 0.5, tau_mem=2.0, norm_input=True),
        "NT",
        0.6,
        4.8 * (1 - HALF) / 0.5,
    ),
    "sinabs synapse": (lambda: sinabs(tau_syn=2.0), "NT", 0.6, 4.8 * taps(HALF, 1)),
    "sinabs synapse and leak": (
        lambda: sinabs(sl.LIF, 0.5, tau_mem=2.0, tau_syn=2.0, norm_input=True),
        "NT",
        0.6,
        4.8 * (1 - HALF) * taps(HALF, 1) / 0.5,
    ),
    "sinabs adaptive": (
        lambda: sinabs(sl.ALIF, 0.2, tau_mem=2.0, tau_adapt=5.0, tau_syn=2.0),
        "NT",
        0.6,
        4.8 * taps(HALF * (1 - HALF), 1) / 0.2,
    ),
    "snntorch Leaky": (lambda: hidden(snntorch.Leaky, 0.5, 0.7), "step", 0.6, 4.8 / 0.7),
    "snntorch Leaky to zero": (
        lambda: hidden(snntorch.Leaky, 0.5, 0.7, reset_mechanism="zero"),
        "step",
        0.3,
        2.4 / 0.7,
    ),
    "snntorch Leaky without a reset": (
        lambda: hidden(snntorch.Leaky, 0.5, 0.7, reset_mechanism="none"),
        "step",
        0.3,
        2.4 * taps(0.5) / 0.7,
    ),
    "snntorch Lapicque": (
        lambda: hidden(snntorch.Lapicque, threshold=0.3, **LAPICQUE),
        "step",
        0.6,
        4.8 / 3 / 0.3,
    ),
    "snntorch Lapicque, half steps": (
        lambda: hidden(snntorch.Lapicque, threshold=0.15, time_step=0.5, **LAPICQUE),
        "step",
        0.6,
        4.8 * 0.5 / 3 / 0.15,
    ),
    "snntorch Lapicque by its decay": (
        lambda: hidden(snntorch.Lapicque, 0.6, 2.0, time_step=0.5, threshold=0.8),
        "step",
        0.6,
        4.8 * 2 * math.log(1 / 0.6) / 0.8,
    ),
    "snntorch Lapicque without a reset": (
        lambda: hidden(snntorch.Lapicque, reset_mechanism="none", **LAPICQUE),
        "step",
        0.63,
        5.04 / 3 * taps(5 / 6),
    ),
    "snntorch Synaptic": (
        lambda: hidden(snntorch.Synaptic, 0.5, 0.9, 0.7),
        "step",
        0.2,
        1.6 * taps(0.5) / 0.7,
    ),
    "snntorch Alpha": (
        lambda: hidden(snntorch.Alpha, 0.9, 0.8, 0.4),
        "step",
        0.6,
        4.8 * (1 + math.log(0.9) / (math.log(0.8) - math.log(0.9))) * (0.9**6 - 0.8**6) / 0.4,
    ),
    "snntorch StateLeaky": (
        lambda: snntorch.StateLeaky(0.5, 1, threshold=0.7),
        "TN",
        0.25,
        2 * taps(HALF) / 0.7,
    ),
    "jelly IF": (lambda: multi(sj.IFNode, 0.7, None), "TN", 0.6, 4.8 / 0.7),
    "jelly IF above": (lambda: multi(sj.IFNode, 0.7, 0.2), "TN", 0.3, 2.4 / 0.5),
    "jelly IF below": (lambda: multi(sj.IFNode, 0.7, -0.3), "TN", 0.6, 4.8 / 1.0),
    "jelly half threshold": (
        lambda: multi(sj.HalfThresholdIFNode, 0.7),
        "TN",
        0.31,
        2.48 / 0.7 + 0.5,
    ),
    "jelly LIF": (lambda: multi(sj.LIFNode, 4.0, True, 0.35, None), "TN", 0.6, 1.2 / 0.35),
    "jelly LIF, whole input": (
        lambda: multi(sj.LIFNode, 4.0, False, 0.7, -0.3),
        "TN",
        0.6,
        4.8 / 1.0,
    ),
    "jelly ParametricLIF": (
        lambda: multi(sj.ParametricLIFNode, 4.0, True, 0.35, None),
        "TN",
        0.6,
        1.2 / 0.35,
    ),
    "jelly KLIF, scaled reset": (
        lambda: level(multi(sj.KLIFNode, True, 2.0, False, 0.7, None), k=2.0),
        "TN",
        0.3,
        2.4 * 2.0 / 0.7,
    ),
    "jelly KLIF, scaled reset and input": (
        lambda: level(multi(sj.KLIFNode, True, 2.0, True, 0.7, -0.2), k=2.0),
        "TN",
        0.3,
        1.2 * 2.0 / 0.7,
    ),
    "jelly KLIF": (
        lambda: level(multi(sj.KLIFNode, False, 2.0, False, 0.7, 0.0), k=1.5),
        "TN",
        0.3,
        2.4 * 1.5 / 0.7,
    ),
    "jelly KLIF, small k": (
        lambda: level(multi(sj.KLIFNode, False, 2.0, False, 0.7, 0.0), k=0.5),
        "TN",
        0.6,
        4.8 * 0.5 / 0.7,
    ),
    "jelly complementary": (
        lambda: multi(sj.ComplementaryLIFNode, 2.0, v_threshold=0.7),
        "TN",
        0.6,
        4.8 / 0.7,
    ),
    "jelly current": (
        lambda: multi(sj.CUBALIFNode, 0.5, 0.9, 0.7, 0.2),
        "TN",
        0.15,
        1.2 * taps(0.5) / 0.5,
    ),
    "jelly current, reset below": (
        lambda: multi(sj.CUBALIFNode, 0.5, 0.9, 0.7, -0.2),
        "TN",
        0.2,
        1.6 * taps(0.5) / 0.7,
    ),
    "jelly aware": (
        lambda: multi(sj.ActivationAwareIFNode, 0.7, 0.1),
        "TN",
        0.34,
        (0.1 + 2.72) / 0.7,
    ),
    "jelly aware, offset below": (
        lambda: multi(sj.ActivationAwareIFNode, 0.7, -0.1),
        "TN",
        0.34,
        2.72 / 0.7,
    ),
    "jelly aware, reset to a level": (
        lambda: multi(sj.ActivationAwareIFNode, 0.7, 0.1, v_reset=-0.2),
        "TN",
        0.34,
        2.72 / 0.8,
    ),
    "jelly gated": (lambda: gated(1.5), "TNCHW", 0.3, 2.4 / gated_cost(1.5)),
    "jelly gated, little is taken": (lambda: gated(-3.0), "TNCHW", 0.3, 2.4 / gated_cost(-3.0)),
    "jelly counts": (lambda: multi(sj.ILIFNode, 2.0, v_threshold=0.7), "TN", 0.4, 6.4 / 0.7),
    "jelly DSRIF": (lambda: dual(sj.DSRIFNode, 0.25), "TN", 0.8, 6.4 + 0.75),
    "jelly DSRLIF": (
        lambda: dual(sj.DSRLIFNode, 0.3, tau=1.0, delta_t=0.5),
        "TN",
        0.6,
        4.8 * (1 - HALF) / 0.3,
    ),
    "norse LIF": (
        lambda: norse.LIF(LIFParameters(**rates(**LEAK))),
        "TN",
        0.32,
        1.28 * taps(0.5) / 0.6,
    ),
    "norse LIFCell": (
        lambda: norse.LIFCell(LIFParameters(**rates(**LEAK))),
        "state",
        0.32,
        1.28 * taps(0.5) / 0.6,
    ),
    "norse LIFCell, reset above the leak": (
        lambda: norse.LIFCell(LIFParameters(**rates(), v_leak=-0.2, v_reset=0.2, v_th=0.7)),
        "state",
        0.3,
        1.2 * taps(0.5) / 0.5,
    ),
    "norse LIFRefracCell": (
        lambda: LIFRefracCell(
            LIFRefracParameters(LIFParameters(**rates(**LEAK)), torch.tensor(1.0))
        ),
        "state",
        0.32,
        1.28 * taps(0.5) / 0.6,
    ),
    "norse LIFBoxCell": (lambda: box(500.0, reset_value, **LEAK), "state", 0.62, 2.48 / 0.6),
    "norse LIFBoxCell, subtracts": (
        lambda: box(500.0, reset_subtract, v_leak=-0.1, v_th=0.7),
        "state",
        0.6,
        2.4 / 0.7,
    ),
    "norse LIFBoxCell, subtracts more than the leak leaves": (
        lambda: box(500.0, reset_subtract, v_leak=0.15, v_th=0.7),
        "state",
        0.6,
        2.4 / 0.55,
    ),
    "norse IAF": (
        lambda: NorseIAF(IAFParameters(**tensors(v_th=0.7, v_reset=0.1))),
        "TN",
        0.4,
        3.2 / 0.6,
    ),
    "norse IAFCell": (
        lambda: IAFCell(IAFParameters(**tensors(v_th=0.7, v_reset=-0.1))),
        "state",
        0.63,
        5.04 / 0.8,
    ),
    "norse LSNNCell": (
        lambda: LSNNCell(LSNNParameters(**rates(beta=1.8, **LEAK))),
        "state",
        0.32,
        1.28 * taps(0.5) / 0.6,
    ),
}


def bounded(
    model: nn.Module, low: float, high: float, example: Tensor | None = None
) -> fxsynops.BoundRow:
    """The bound of a neuron's connection, if each step's charge is in an interval."""
    x = torch.zeros(1, STEPS, 1) if example is None else example
    analysis = fxsynops.analyze(model, x, layout="NT", input_events=False, audit=False)
    return analysis.upper_bound(input_range=(low, high)).rows[-1]


LIBRARIES = ["own", "sinabs", "snntorch", "jelly", "norse"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_charge_pays_for_as_many_events_as_the_equations_say(library):
    cases = {name: case for name, case in BY_HAND.items() if name.startswith(library)}
    expected = {name: math.floor(events) for name, (*_, events) in cases.items()}
    assert all(0.02 < events % 1 < 0.98 for *_, events in cases.values())  # rounding cannot matter

    model = Cells(Cell(make(), takes, (each,)) for make, takes, each, _ in cases.values())
    ones = torch.ones(1, STEPS, len(cases), 1)
    counter = fxsynops.SynOpsCounter(model, ones, layout="NT", audit=False)
    bound = counter.analysis.upper_bound()
    assert dict(zip(cases, charges(bound), strict=True)) == expected
    assert all(row.charge < row.structural for row in bound.rows if "out" in row.connection.synapse)
    with torch.no_grad():
        emitted = (counter(ones) != 0).sum((0, 1))
    assert all(n <= most for n, most in zip(emitted, expected.values(), strict=True))


@pytest.mark.parametrize("kind", [fnn.NeuromorphicReLU, sl.NeuromorphicReLU])
def test_a_rounding_relu_counts_each_step_on_its_own(kind):
    assert bounded(Cell(kind(), "NT"), 0.0, 1.7).charge == STEPS
    nearest = Cell(kind(stochastic_rounding=True), "NT")
    assert bounded(nearest, 0.0, 1.7).charge == STEPS * math.floor(2 * 1.7)
    with torch.no_grad():
        assert nearest.spikes(torch.full((1, STEPS, 1), 1.7)).sum() == STEPS * 2


# -- states that a neuron starts with --------------------------------------------------------------


def used(neuron: nn.Module, takes: str, x: float) -> Cell:
    """A neuron that has been through one step of an input."""
    cell = Cell(neuron, takes)
    with torch.no_grad():
        cell(torch.full((1, 1, 1), x))
    return cell


# As above, with the input of an earlier step.
USED: dict[str, tuple[Callable[[], nn.Module], str, float, float, float]] = {
    "own IAF": (lambda: fnn.IAF(), "NT", 0.7, 0.2, 0.7 + 1.6),
    "own IAF, clamp above zero": (
        lambda: fnn.IAF(min_v_mem=0.25),
        "NT",
        0.7,
        0.25,
        (0.45 + 2.0) / 0.75,
    ),
    "sinabs IAF": (lambda: sinabs(), "NT", 0.7, 0.2, 0.7 + 1.6),
    "sinabs synapse": (
        lambda: sinabs(tau_syn=2.0),
        "NT",
        1.0,
        0.21,
        HALF + (1.68 + HALF) * taps(HALF, 1),
    ),
    "sinabs adaptive": (  # sinabs does not keep its synapse's state
        lambda: sinabs(sl.ALIF, tau_mem=2.0, tau_adapt=5.0, tau_syn=2.0, norm_input=False),
        "NT",
        1.0,
        0.21,
        HALF + 1.68 * taps(HALF, 1),
    ),
    "snntorch Leaky": (lambda: hidden(snntorch.Leaky, 0.5), "step", 0.7, 0.3, 0.7 + 2.4),
    "snntorch Leaky without a reset": (
        lambda: hidden(snntorch.Leaky, 0.7, reset_mechanism="none"),
        "step",
        0.9,
        0.1,
        0.9 * taps(0.7, 1) + 0.8 * taps(0.7),
    ),
    "snntorch Lapicque": (
        lambda: hidden(snntorch.Lapicque, R=2.0, C=3.0),
        "step",
        2.1,
        0.9,
        0.7 + 2.4,
    ),
    "snntorch Lapicque without a reset": (
        lambda: hidden(snntorch.Lapicque, R=2.0, C=3.0, reset_mechanism="none"),
        "step",
        2.1,
        0.2,
        0.7 * taps(5 / 6, 1) + 1.6 / 3 * taps(5 / 6),
    ),
    "snntorch Synaptic": (
        lambda: hidden(snntorch.Synaptic, 0.5, 0.9),
        "step",
        0.7,
        0.2,
        0.7 + 0.7 * taps(0.5, 1) + 1.6 * taps(0.5),
    ),
    "jelly IF": (lambda: multi(sj.IFNode, 1.0, -0.5), "TN", 0.9, 0.3, (0.9 + 2.4) / 1.5),
    "jelly half threshold": (lambda: multi(sj.HalfThresholdIFNode, 1.0), "TN", 0.3, 0.3, 0.8 + 2.4),
    "jelly KLIF": (
        lambda: level(multi(sj.KLIFNode, True, 2.0, False, 1.0, None), k=2.0),
        "TN",
        0.4,
        0.22,
        (0.4 + 1.76) / 0.5,
    ),
    "jelly current": (
        lambda: multi(sj.CUBALIFNode, 0.5, 0.9, 1.0, 0.0),
        "TN",
        0.7,
        0.2,
        0.7 + 0.7 * taps(0.5, 1) + 1.6 * taps(0.5),
    ),
    "jelly aware": (
        lambda: multi(sj.ActivationAwareIFNode, 1.0, 0.2),
        "TN",
        0.5,
        0.17,
        0.5 + 0.2 + 1.36,
    ),
    "jelly aware, offset below": (
        lambda: multi(sj.ActivationAwareIFNode, 1.0, -0.2),
        "TN",
        0.9,
        0.15,
        0.9 - 0.2 + 1.2,
    ),
    "jelly counts": (
        lambda: multi(sj.ILIFNode, 2.0, v_threshold=1.0),
        "TN",
        0.4,
        0.3,
        2 * (0.4 + 2.4),
    ),
}


@pytest.mark.parametrize("library", LIBRARIES[:4])
def test_charge_that_an_earlier_window_left_pays_too(library):
    cases = {name: case for name, case in USED.items() if name.startswith(library)}
    expected = {name: math.floor(events) for name, (*_, events) in cases.items()}
    assert all(0.02 < events % 1 < 0.98 for *_, events in cases.values())
    cells = [used(make(), takes, before) for make, takes, before, *_ in cases.values()]
    for cell, (*_, each, _) in zip(cells, cases.values(), strict=True):
        nn.init.constant_(cell.fc.weight, each)
    model, ones = Cells(cells), torch.ones(1, STEPS, len(cases), 1)
    counter = fxsynops.SynOpsCounter(model, ones, layout="NT", audit=False)
    bound = counter.analysis.upper_bound()
    assert dict(zip(cases, charges(bound), strict=True)) == expected
    with torch.no_grad():
        emitted = counter(ones).sum((0, 1))
    assert all(n <= most for n, most in zip(emitted, expected.values(), strict=True))


def test_spikes_before_the_window_come_back_in_it():
    class FromSpikes(Cell):
        def spikes(self, x: Tensor) -> Tensor:
            silent, found = torch.zeros(1, 1), []
            spikes, *states = self.neuron(self.fc(x[:, 0]), silent + 1, *[silent] * self.states)
            found.append(spikes)
            for step in x.unbind(1)[1:]:
                spikes, *states = self.neuron(self.fc(step), spikes, *states)
                found.append(spikes)
            return torch.stack(found, 1)

    for kind, decays, states in ((snntorch.RLeaky, (1.0,), 1), (snntorch.RSynaptic, (0.0, 1.0), 2)):
        once = kind(*decays, V=1.2, all_to_all=False, reset_mechanism="zero")
        model = FromSpikes(once, "")
        model.states = states
        with torch.no_grad():
            emitted = model.spikes(torch.zeros(1, STEPS, 1))
        assert emitted.sum() > 0  # at rest, but for the spike before
        example = torch.zeros(1, STEPS, 1)
        assert emitted.sum() <= bounded(model, 0.0, 0.0, example).charge <= STEPS


@pytest.mark.parametrize(
    ("make", "each", "reach"),
    [
        (lambda **v: hidden(snntorch.RLeaky, 1.0, all_to_all=False, **v), 0.3, 1.0),
        (lambda **v: hidden(snntorch.RSynaptic, 0.5, 1.0, all_to_all=False, **v), 0.15, taps(0.5)),
    ],
)
def test_spikes_that_come_back_pay_for_others(make, each, reach):
    inhibited = Cell(make(V=-0.4), "step")
    assert bounded(inhibited, 0.0, each).charge == math.floor(each * STEPS * reach) == 2
    excited = Cell(make(V=0.4), "step")
    emitted = 0  # until each step, from all input until then and the events before it
    for step in range(1, STEPS + 1):
        emitted = max(emitted, min(step, math.floor(reach * (each * step + 0.4 * emitted))))
    assert bounded(excited, 0.0, each).charge == emitted > 2


def test_recurrent_biases_bring_charge_but_take_none_off():
    for bias, comes in ((0.1, 0.1 * (STEPS - 1)), (-0.1, 0.0)):  # from the second step on
        back = nn.Linear(1, 1)
        nn.init.constant_(back.weight, -0.5)
        nn.init.constant_(back.bias, bias)
        cell = Cell(sl.IAFRecurrent(rec_connect=back), "NT")
        assert bounded(cell, 0.0, 0.29).charge == math.floor(2.32 + comes)
    for bias, each in ((0.26, 0.0), (-0.5, 0.4)):  # from the first step on
        neuron = hidden(snntorch.RLeaky, 0.0, linear_features=1)
        nn.init.constant_(neuron.recurrent.weight, -1.0)
        nn.init.constant_(neuron.recurrent.bias, bias)
        row = bounded(Cell(neuron, "step"), 0.0, each)
        assert row.charge == math.floor(STEPS * (max(bias, 0.0) + each))


def test_a_gain_that_outgrows_the_leak_ends_the_argument():
    def make() -> Cell:
        return Cell(level(multi(sj.KLIFNode, False, 20.0, False, 1.0, None), k=1.6), "TN")

    once = torch.zeros(1, STEPS, 1)
    once[:, 0] = 0.3  # 0.48, and each step without input multiplies it by 1.52
    with torch.no_grad():
        assert make().spikes(once).sum() > math.floor(1.6 * 0.3)
    row = bounded(make(), 0.0, 0.1)
    assert row.charge == row.structural == STEPS
    assert "not in" in row.reasons[0]


@pytest.mark.parametrize("excess", [0.0, 0.4])
def test_the_most_charged_of_all_samples_counts(excess):
    cell = Cell(fnn.IAF(), "NT")
    with torch.no_grad():
        cell(torch.tensor([[[0.1]], [[0.5 + excess]]]))
    row = bounded(cell, 0.0, 0.15, torch.zeros(2, STEPS, 1))
    assert row.charge == math.floor(0.5 + excess + 1.2)


# -- caps, signs and amplitudes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "takes", "cap"),
    [
        (lambda: fnn.IAF(0.1, 3), "NT", 3),
        (lambda: sinabs(spike_fn=sa.SingleSpike), "NT", 1),
        (lambda: sinabs(spike_fn=sa.MaxSpike(3)), "NT", 3),
        (lambda: sinabs(spike_fn=sa.MaxSpike()), "NT", math.inf),
        (lambda: sinabs(), "NT", math.inf),
        (lambda: snntorch.StateLeaky(0.5, 1), "TN", 1),
    ],
)
def test_a_cap_is_the_structural_bound(make, takes, cap):
    row = bounded(Cell(make(), takes), 0.0, 100.0)
    assert row.max_events == cap
    assert row.structural == cap * STEPS
    assert row.charge <= row.structural
    if math.isfinite(cap):
        with torch.no_grad():
            emitted = Cell(make(), takes).spikes(torch.full((1, STEPS, 1), 100.0))
        assert emitted.sum() == row.charge == row.structural


TERNARY = [sj.TernaryIFNode, lambda *levels: sj.TernaryLIFNode(2.0, True, *levels)]


@pytest.mark.parametrize("kind", TERNARY)
@pytest.mark.parametrize("reset", [None, 0.2, -0.2])
def test_both_signs_of_a_ternary_neuron_pay_for_themselves(kind, reset):
    gain = 1.0 if kind is sj.TernaryIFNode else 0.5
    rest, charge = reset or 0.0, STEPS * 0.27 * gain
    make = lambda: multi(kind, 0.7, reset)  # noqa: E731
    up, down = math.floor(charge / (0.7 - rest)), math.floor(charge / (0.7 + rest))
    assert bounded(Cell(make(), "TN"), 0.0, 0.27).charge == up
    assert bounded(Cell(make(), "TN"), -0.27, 0.0).charge == down
    assert bounded(Cell(make(), "TN"), -0.27, 0.27).charge == up + down
    # what an earlier window has left pays on its own side only
    cell = used(make(), "TN", -0.6 / gain)
    left = float(cell.neuron.v)
    assert left < 0
    assert bounded(cell, 0.0, 0.0).charge == 0
    found = bounded(cell, -0.27, 0.0).charge
    assert found == math.floor((charge + max(rest - left, 0.0)) / (0.7 + rest))


class Chain(nn.Module):
    """A neuron that drives an integrate-and-fire neuron."""

    def __init__(self, first: nn.Module, takes: str, weight: float) -> None:
        super().__init__()
        self.first = Cell(first, takes)
        self.second = Cell(fnn.IAF(), "NT", (weight,))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first.spikes(x))


WORTHS: dict[str, tuple[Callable[[], nn.Module], str, float]] = {
    "snntorch Leaky": (
        lambda: hidden(snntorch.Leaky, 1.0, 0.5, graded_spikes_factor=0.3),
        "step",
        0.3,
    ),
    "snntorch Leaky below zero": (
        lambda: hidden(snntorch.Leaky, 1.0, 0.5, graded_spikes_factor=-0.3),
        "step",
        -0.3,
    ),
    "snntorch StateLeaky": (
        lambda: snntorch.StateLeaky(0.5, 1, graded_spikes_factor=0.6),
        "TN",
        0.36,
    ),
    "snntorch StateLeaky below zero": (
        lambda: snntorch.StateLeaky(0.5, 1, graded_spikes_factor=-0.6),
        "TN",
        0.36,
    ),
    "jelly DSRIF": (lambda: sj.DSRIFNode(STEPS, 0.7), "TN", 0.7),
    "jelly DSRLIF": (lambda: sj.DSRLIFNode(STEPS, 0.7, tau=1.0, delta_t=0.5), "TN", 1.4),
}


@pytest.mark.parametrize("name", WORTHS)
@pytest.mark.parametrize("weight", [0.9, -0.9])
def test_what_an_event_is_worth_is_divided_out_and_drives_the_next_neuron(name, weight):
    make, takes, worth = WORTHS[name]
    x = torch.full((1, STEPS, 1), 3.0)
    model = Chain(make(), takes, weight)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", input_events=False)
    bound = counter.analysis.upper_bound(input_range=(0.0, 3.0))
    with torch.no_grad():
        counter(x)
        emitted = Chain(make(), takes, weight).first.spikes(x)
    torch.testing.assert_close(emitted, torch.full_like(emitted, worth))  # at every step
    pays = math.floor(max(STEPS * worth * weight, 0.0))
    assert [row.events for row in counter.counts.rows] == [STEPS, pays]
    assert [row.charge for row in bound.rows] == [STEPS, pays]


@pytest.mark.parametrize("level", [0.1, 0.6, 0.95, 1.0])
def test_an_lstm_fires_below_a_threshold_of_one_only(level):
    neuron = hidden(snntorch.SLSTM, 1, 1, threshold=level)
    for parameter in neuron.parameters():
        nn.init.constant_(parameter, 3.0)
    model, x = Cell(neuron, "step"), torch.ones(1, STEPS, 1)
    row = bounded(model, 0.0, 1.0)
    with torch.no_grad():
        emitted = int(model.spikes(x).sum())
    assert (emitted > 0) == (level < 1)
    assert emitted <= row.charge == (STEPS if level < 1 else 0)


# -- weights inside of modules ---------------------------------------------------------------------


@pytest.mark.parametrize("cell", [norse.LIFRecurrentCell, norse.LSNNRecurrentCell])
def test_only_recurrent_weights_that_are_not_zero_bring_events_back(cell):
    torch.manual_seed(0)
    model = nn.Sequential(cell(6, 6))
    with torch.no_grad():
        model[0].input_weights.fill_(50.0)
        model[0].input_weights[:, 0] = 0.0
        model[0].recurrent_weights.fill_(0.5)
        model[0].recurrent_weights[1:4] = 0.0

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = model[0]

        def forward(self, x: Tensor) -> Tensor:
            state, found = None, []
            for step in x:
                z, state = self.cell(step, state)
                found.append(z)
            return torch.stack(found)

    x = torch.ones(5, 2, 6)
    counter = fxsynops.SynOpsCounter(Loop(), x, layout="TN", weights="nonzero")
    with torch.no_grad():
        emitted = int(counter(x).sum())
    found = {row.connection.synapse: row.synops for row in counter.counts.rows}
    assert emitted > 0
    assert found == {
        "cell.input_weights": 5 * 2 * 5 * 6,  # one input reaches none
        "cell.recurrent_weights": emitted * 3,  # each event reaches three of six
    }


@pytest.mark.parametrize(
    ("bias", "zero"), [(False, False), (True, False), (False, True), (True, True)]
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_keys_that_attention_adds_take_part_in_its_products(bias, zero, batch_first):
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.MultiheadAttention(
                8, 2, add_bias_kv=bias, add_zero_attn=zero, batch_first=batch_first
            )

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.heads(q, k, v)[0]

    samples, queries, keys = 3, 5, 7
    q, k, v = (torch.ones(t, samples, 8) for t in (queries, keys, keys))
    inputs = tuple(x.transpose(0, 1) for x in (q, k, v)) if batch_first else (q, k, v)
    analysis = fxsynops.analyze(Attention().eval(), inputs)
    found = {row.synapse: row.macs for row in analysis.dense}
    assert found["heads.query_key"] == found["heads.attention_value"]
    pairs = queries * (keys + bias + zero)
    batch = samples if batch_first else queries
    assert found["heads.query_key"] * batch == samples * pairs * 8
