"""Random spiking networks over time, of every neuron type, and inputs that try to break a bound.

A network runs in one of two ways: all steps at once (sequence), or step by step (loop). It is made
anew from its seed for every input, so that every input meets the same states.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import norse.torch as norse
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
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """A neuron type: how to make one of it, and how it takes its input.

    Attributes:
        make: (random choices, shape of one sample's neurons) -> module.
        takes: "NT" and "TN" whole sequences, "step" one step, "any" any shape.
        unit: whether an event has the value one.
    """

    make: Callable[[Random, Sizes], nn.Module]
    takes: str
    unit: bool = True


def theta(r: Random) -> float:
    return r.choice([0.25, 0.5, 1.0, 1.3])


def decay(r: Random) -> float:
    return r.choice([0.0, 0.3, 0.5, 0.9, 0.99, 1.0])


# -- sinabs ----------------------------------------------------------------------------------------


def _sinabs(r: Random) -> dict[str, Any]:
    level = theta(r)
    reset = r.choice(
        [
            sa.MembraneSubtract(),
            sa.MembraneSubtract(0.7 * level),
            sa.MembraneReset(),
            sa.MembraneReset(-0.2),
            sa.MembraneReset(0.1 * level),
        ]
    )
    return {
        "spike_threshold": torch.tensor(level),
        "spike_fn": r.choice([sa.MultiSpike, sa.SingleSpike, sa.MaxSpike(3)]),
        "reset_fn": reset,
        "min_v_mem": r.choice([None, None, -0.5, 0.1 * level]),
        "tau_syn": r.choice([None, None, 2.0, 10.0]),
    }


def _recurrent(size: Sizes, r: Random) -> nn.Module:
    n = int(torch.tensor(size).prod())
    if len(size) == 1:
        return nn.Linear(n, n, bias=r.random() < 0.5)
    if r.random() < 0.5:
        return nn.Conv2d(size[0], size[0], 3, padding=1)
    return nn.Sequential(nn.Flatten(), nn.Linear(n, n), nn.Unflatten(1, size))


def _alif(r: Random, size: Sizes) -> nn.Module:
    given = _sinabs(r) | {"reset_fn": sa.MembraneSubtract(), "tau_adapt": 5.0, "tau_mem": 4.0}
    return sl.ALIF(norm_input=r.random() < 0.5, **given)


def _lif(r: Random, size: Sizes) -> nn.Module:
    return sl.LIF(tau_mem=r.choice([1.5, 20.0]), norm_input=r.random() < 0.5, **_sinabs(r))


def _lif_recurrent(r: Random, size: Sizes) -> nn.Module:
    return sl.LIFRecurrent(tau_mem=5.0, rec_connect=_recurrent(size, r), **_sinabs(r))


# -- snntorch --------------------------------------------------------------------------------------


def _snn(r: Random, **more: Any) -> dict[str, Any]:
    given = {
        "threshold": theta(r),
        "reset_mechanism": r.choice(["subtract", "subtract", "zero", "none"]),
        "init_hidden": True,
        "inhibition": False,
    }
    return given | more


def _flat(size: Sizes) -> dict[str, Any]:
    if len(size) == 1:
        return {"linear_features": size[0]}
    return {"conv2d_channels": size[0], "kernel_size": 3}


def _leaky(r: Random, size: Sizes) -> nn.Module:
    beta = torch.rand(size) if r.random() < 0.3 else decay(r)
    return snntorch.Leaky(
        beta, reset_delay=r.random() < 0.5, graded_spikes_factor=r.choice([1.0, 0.5]), **_snn(r)
    )


def _lapicque(r: Random, size: Sizes) -> nn.Module:
    given = r.choice([{"beta": 0.6}, {"R": 2.0, "C": 3.0}, {"beta": 0.9, "C": 2.0}])
    return snntorch.Lapicque(**given, **_snn(r))


def _rleaky(r: Random, size: Sizes) -> nn.Module:
    given = _snn(r, reset_mechanism=r.choice(["subtract", "zero"]))
    if r.random() < 0.3:
        return snntorch.RLeaky(decay(r), V=torch.randn(()).item(), all_to_all=False, **given)
    return snntorch.RLeaky(decay(r), all_to_all=True, **_flat(size), **given)


def _rsynaptic(r: Random, size: Sizes) -> nn.Module:
    given = _snn(r, reset_mechanism=r.choice(["subtract", "zero"]))
    return snntorch.RSynaptic(decay(r), decay(r), all_to_all=True, **_flat(size), **given)


def _stateleaky(r: Random, size: Sizes) -> nn.Module:
    class PerSequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.leaky = snntorch.StateLeaky(r.choice([0.3, 0.9]), size[0], threshold=theta(r))

        def forward(self, x):
            return self.leaky(x)

    return PerSequence() if len(size) == 1 else sj.IFNode(step_mode="m")


# -- spikingjelly ----------------------------------------------------------------------------------


def _jelly(r: Random, **more: Any) -> dict[str, Any]:
    level = theta(r)
    return {
        "v_threshold": level,
        "v_reset": r.choice([None, 0.0, -0.3, 0.4 * level]),
        "step_mode": "m",
    } | more


def _tau(r: Random) -> dict[str, Any]:
    return {"tau": r.choice([1.5, 2.0, 20.0]), "decay_input": r.random() < 0.5}


def _plif(r: Random, size: Sizes) -> nn.Module:
    return sj.ParametricLIFNode(
        init_tau=r.choice([1.5, 2.0, 20.0]), decay_input=r.random() < 0.5, **_jelly(r)
    )


def _klif(r: Random, size: Sizes) -> nn.Module:
    node = sj.KLIFNode(
        scale_reset=r.random() < 0.5, **_tau(r), **_jelly(r, v_reset=r.choice([None, 0.0, -0.3]))
    )
    with torch.no_grad():
        node.k.fill_(r.choice([0.5, 1.0, 1.1, 2.0]))
    return node


def _aware(r: Random, size: Sizes) -> nn.Module:
    channels = size[0]
    return sj.ActivationAwareIFNode(
        v_threshold=torch.rand(channels) + 0.2 if r.random() < 0.5 else torch.tensor(0.7),
        v_offset=torch.rand(channels) * 0.2 - 0.1 if r.random() < 0.5 else torch.tensor(0.1),
        channel_dim=1,
        v_reset=r.choice([None, 0.0, -0.2]),
        step_mode="m",
    )


def _cubalif(r: Random, size: Sizes) -> nn.Module:
    node = sj.CUBALIFNode(decay(r), decay(r), theta(r), r.choice([None, 0.0, 0.1]))
    node.step_mode = "m"
    return node


def _gated(r: Random, size: Sizes) -> nn.Module:
    if len(size) != 3:
        return sj.IFNode(step_mode="m")
    return sj.GatedLIFNode(T=TIMESTEPS, inplane=r.choice([None, size[0]]))


def _simple_lif(r: Random, size: Sizes) -> nn.Module:
    given = _jelly(r)
    given["v_reset"] = given["v_reset"] or 0.0
    return sj.SimpleLIFNode(**_tau(r), **given)


def _clif(r: Random, size: Sizes) -> nn.Module:
    return sj.ComplementaryLIFNode(tau=2.0, v_threshold=theta(r), step_mode="m")


def _ilif(r: Random, size: Sizes) -> nn.Module:
    return sj.ILIFNode(
        v_threshold=theta(r),
        step_mode="m",
        surrogate_function=surrogate.MultiLevelSpikeCount(r.choice([1, 4])),
    )


# -- norse -----------------------------------------------------------------------------------------


def _p(**values: float) -> dict[str, Any]:
    return {name: torch.as_tensor(value) for name, value in values.items()}


def _norse_levels(r: Random) -> dict[str, Any]:
    level = theta(r)
    leak, reset = r.choice([(0.0, 0.0), (0.1 * level, -0.2), (-0.1, 0.0)])
    return _p(v_th=level, v_leak=leak, v_reset=reset)


def _norse_lif(r: Random) -> Any:
    rates = _p(tau_mem_inv=r.choice([100.0, 900.0]), tau_syn_inv=r.choice([200.0, 1000.0]))
    return LIFParameters(**rates, **_norse_levels(r))


def _norse_lsnn(r: Random) -> Any:
    return LSNNParameters(**_norse_levels(r))


def _box(r: Random, size: Sizes) -> nn.Module:
    p = LIFBoxParameters(
        tau_mem_inv=torch.tensor(r.choice([100.0, 900.0])),
        reset_method=r.choice([reset_value, reset_subtract]),
        **_norse_levels(r),
    )
    return LIFBoxCell(p)


def _iaf(r: Random) -> Any:
    return IAFParameters(**_p(v_th=theta(r), v_reset=r.choice([0.0, -0.2, 0.1])))


# -- all of them -----------------------------------------------------------------------------------

KINDS: dict[str, Kind] = {
    "fxsynops IAF": Kind(
        lambda r, s: fnn.IAF(
            theta(r),
            min_v_mem=r.choice([None, -0.5]),
            max_spikes_per_step=r.choice([None, 1, 2]),
        ),
        "NT",
    ),
    "fxsynops ReLU": Kind(lambda r, s: fnn.NeuromorphicReLU(), "any"),
    "sinabs ReLU": Kind(
        lambda r, s: sl.NeuromorphicReLU(stochastic_rounding=r.random() < 0.3), "any"
    ),
    "sinabs IAF": Kind(lambda r, s: sl.IAF(**_sinabs(r)), "NT"),
    "sinabs LIF": Kind(_lif, "NT"),
    "sinabs ALIF": Kind(_alif, "NT"),
    "sinabs IAFRecurrent": Kind(lambda r, s: sl.IAFRecurrent(_recurrent(s, r), **_sinabs(r)), "NT"),
    "sinabs LIFRecurrent": Kind(_lif_recurrent, "NT"),
    "snntorch Leaky": Kind(_leaky, "step", unit=False),
    "snntorch Lapicque": Kind(_lapicque, "step"),
    "snntorch Synaptic": Kind(
        lambda r, s: snntorch.Synaptic(decay(r), decay(r), reset_delay=r.random() < 0.5, **_snn(r)),
        "step",
    ),
    "snntorch Alpha": Kind(
        lambda r, s: snntorch.Alpha(0.9, r.choice([0.3, 0.8]), **_snn(r)), "step"
    ),
    "snntorch RLeaky": Kind(_rleaky, "step"),
    "snntorch RSynaptic": Kind(_rsynaptic, "step"),
    "snntorch StateLeaky": Kind(_stateleaky, "TN"),
    "spikingjelly IFNode": Kind(lambda r, s: sj.IFNode(**_jelly(r)), "TN"),
    "spikingjelly IFNode steps": Kind(lambda r, s: sj.IFNode(**_jelly(r, step_mode="s")), "step"),
    "spikingjelly SimpleIFNode": Kind(lambda r, s: sj.SimpleIFNode(**_jelly(r)), "TN"),
    "spikingjelly HalfThresholdIFNode": Kind(
        lambda r, s: sj.HalfThresholdIFNode(theta(r), step_mode="m"), "TN"
    ),
    "spikingjelly ActivationAwareIFNode": Kind(_aware, "TN"),
    "spikingjelly LIFNode": Kind(lambda r, s: sj.LIFNode(**_tau(r), **_jelly(r)), "TN"),
    "spikingjelly SimpleLIFNode": Kind(_simple_lif, "TN"),
    "spikingjelly ParametricLIFNode": Kind(_plif, "TN"),
    "spikingjelly OTTTLIFNode": Kind(
        lambda r, s: sj.OTTTLIFNode(**_tau(r), **_jelly(r, step_mode="s")).eval(), "step"
    ),
    "spikingjelly SLTTLIFNode": Kind(
        lambda r, s: sj.SLTTLIFNode(**_tau(r), **_jelly(r, step_mode="s")), "step"
    ),
    "spikingjelly KLIFNode": Kind(_klif, "TN"),
    "spikingjelly ComplementaryLIFNode": Kind(_clif, "TN"),
    "spikingjelly CUBALIFNode": Kind(_cubalif, "TN"),
    "spikingjelly GatedLIFNode": Kind(_gated, "TN"),
    "spikingjelly ILIFNode": Kind(_ilif, "TN"),
    "spikingjelly TernaryIFNode": Kind(
        lambda r, s: sj.TernaryIFNode(**_jelly(r, v_reset=r.choice([None, 0.0]))), "TN"
    ),
    "spikingjelly TernaryLIFNode": Kind(
        lambda r, s: sj.TernaryLIFNode(**_tau(r), **_jelly(r, v_reset=r.choice([None, 0.0]))), "TN"
    ),
    "spikingjelly DSRIFNode": Kind(
        lambda r, s: sj.DSRIFNode(T=TIMESTEPS, v_threshold=theta(r), alpha=r.choice([0.5, 1.0])),
        "TN",
        unit=False,
    ),
    "spikingjelly DSRLIFNode": Kind(
        lambda r, s: sj.DSRLIFNode(T=TIMESTEPS, v_threshold=theta(r)), "TN", unit=False
    ),
    "norse LIF": Kind(lambda r, s: norse.LIF(_norse_lif(r)), "TN"),
    "norse LIFCell": Kind(lambda r, s: norse.LIFCell(_norse_lif(r)), "state"),
    "norse LIFRefracCell": Kind(
        lambda r, s: LIFRefracCell(LIFRefracParameters(_norse_lif(r), torch.tensor(2.0))), "state"
    ),
    "norse LIFBoxCell": Kind(_box, "state"),
    "norse IAF": Kind(lambda r, s: NorseIAF(_iaf(r)), "TN"),
    "norse IAFCell": Kind(lambda r, s: IAFCell(_iaf(r)), "state"),
    "norse LSNN": Kind(lambda r, s: LSNN(_norse_lsnn(r)), "TN"),
    "norse LSNNCell": Kind(lambda r, s: LSNNCell(_norse_lsnn(r)), "state"),
}
TIMESTEPS = 6
# Their first feedback is float32.
FLOAT32_ONLY = (
    "sinabs IAFRecurrent",
    "sinabs LIFRecurrent",
    "snntorch RLeaky",
    "snntorch RSynaptic",
)
SEQUENCE = [name for name, kind in KINDS.items() if kind.takes in ("NT", "TN", "any")]
LOOP = [name for name, kind in KINDS.items() if kind.takes in ("step", "state", "any")]


@dataclass
class Step:
    """One operation on numbered values; ``neuron`` if it needs all time steps."""

    run: Any
    inputs: tuple[int, ...]
    takes: str = ""


class Net(nn.Module):
    """Runs its steps on (samples, steps, …), all at once or one after another."""

    def __init__(self, loop: bool) -> None:
        super().__init__()
        self.loop = loop
        self.layers = nn.ModuleList()
        self.steps: list[Step] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.loop:
            return self.once(x.flatten(0, 1), x.shape[:2], {}).unflatten(0, x.shape[:2])
        states: dict[int, Any] = {}
        return torch.stack([self.once(x[:, t], None, states) for t in range(x.shape[1])], 1)

    def once(self, x: Tensor, window: Any, states: dict[int, Any]) -> Tensor:
        values = [x]
        for i, step in enumerate(self.steps):
            given = [values[k] for k in step.inputs]
            if step.takes in ("", "any", "step"):
                y = step.run(*given)
            elif step.takes == "state":
                y, states[i] = step.run(*given, states.get(i))
            else:
                y = given[0].unflatten(0, window)
                y = step.run(y if step.takes == "NT" else y.transpose(0, 1))
                y = y[0] if isinstance(y, tuple) else y
                y = (y if step.takes == "NT" else y.transpose(0, 1)).flatten(0, 1)
            y = y[0] if isinstance(y, tuple) else y
            values.append(y.to(x.dtype))  # some libraries' neurons put out float32 always
        return values[-1]


@dataclass
class Builder:
    """Makes a random network; all its choices come from ``r``."""

    r: Random
    size: Sizes
    loop: bool
    kinds: list[str]
    net: Net = field(init=False)
    shapes: list[Sizes] = field(init=False)
    used: list[str] = field(default_factory=list)
    units: set[int] = field(default_factory=lambda: {0})

    def __post_init__(self) -> None:
        self.net, self.shapes = Net(self.loop), [self.size]

    def add(self, run: Any, *inputs: int, takes: str = "", size: Sizes | None = None) -> int:
        if isinstance(run, nn.Module):
            self.net.layers.append(run.eval())
        self.net.steps.append(Step(run, inputs, takes))
        if size is None:
            with torch.no_grad():
                size = tuple(run(*(torch.zeros(1, *self.shapes[i]) for i in inputs)).shape[1:])
        self.shapes.append(size)
        return len(self.shapes) - 1

    def build(self, depth: int) -> Net:
        live = [0]
        for layer in range(depth):
            i = self.r.choice(live[-2:])
            for _ in range(self.r.choice([0, 0, 1, 2])):
                i = self.carry(i, live)
            y = self.synapse(i)
            for _ in range(self.r.choice([0, 1, 2])):
                y = self.between(y, live)
            name = self.kinds[layer % len(self.kinds)]
            kind = KINDS[name]
            self.used.append(name)
            neuron = kind.make(self.r, self.shapes[y])
            live.append(self.add(neuron, y, takes=kind.takes, size=self.shapes[y]))
            if kind.unit:
                self.units.add(live[-1])
        self.synapse(live[-1])
        return self.net

    def synapse(self, i: int) -> int:
        size = self.shapes[i]
        scale = self.r.choice([0.5, 1.0, 3.0])
        if len(size) == 3 and self.r.random() < 0.7:
            layer: nn.Module = nn.Conv2d(
                size[0],
                self.r.choice([1, 2, 3]),
                self.r.choice([1, 2, 3]),
                self.r.choice([1, 2]),
                1,
                bias=self.r.random() < 0.5,
            )
        else:
            if len(size) == 3:
                i = self.add(nn.Flatten(), i)
            layer = nn.Linear(self.shapes[i][0], self.r.choice([2, 3, 5]), self.r.random() < 0.5)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(scale)
            if self.r.random() < 0.2:
                layer.weight.abs_()
        return self.add(layer, i)

    def plain(self, i: int) -> bool:
        """Whether all events of a value have the value one, so that a gate can measure them."""
        return i in self.units

    def between(self, y: int, live: list[int]) -> int:
        """Between a synapse and its neuron."""
        size, r = self.shapes[y], self.r
        which = r.choice(["norm", "scale", "max", "average", "relu", "add", "shift"])
        if which == "norm":
            norm = (nn.BatchNorm2d if len(size) == 3 else nn.BatchNorm1d)(size[0])
            with torch.no_grad():
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.3, 2.0)
                norm.weight.normal_()
                norm.bias.normal_().mul_(0.3)
            return self.add(norm, y)
        if which == "scale":
            return self.add(lambda x: x * -1.5, y)
        if which == "shift":
            return self.add(lambda x: x + 0.1, y)
        if which == "relu":
            return self.add(nn.ReLU(), y)
        if which == "add":
            mates = [k for k in live if self.shapes[k] == size]
            return self.add(lambda a, b: a + b, y, r.choice(mates)) if mates else y
        if len(size) == 3 and min(size[1:]) > 1:
            return self.add(
                (nn.MaxPool2d if which == "max" else nn.AvgPool2d)(2, r.choice([1, 2])), y
            )
        return y

    def carry(self, i: int, live: list[int]) -> int:
        """What events meet on their way to a synapse."""
        size, r = self.shapes[i], self.r
        which = r.choice(["average", "max", "add", "cat", "and", "half", "dropout", "not"])
        if which == "and" and not self.plain(i):
            which = "half"
        if which in ("average", "max"):
            if len(size) < 3 or min(size[1:]) < 2:
                return i
            return self.add((nn.AvgPool2d if which == "average" else nn.MaxPool2d)(2, 1), i)
        if which == "half":
            return self.add(lambda x: x * 0.5, i)
        if which == "dropout":
            return self.add(nn.Dropout(0.3), i)
        if which == "not":
            return self.add(lambda x: 1 - x, i)
        mates = [k for k in live if self.shapes[k] == size and (which != "and" or self.plain(k))]
        if not mates:
            return i
        j = r.choice(mates)
        if which == "add":
            return self.add(lambda a, b: a + b, i, j)
        if which == "cat":
            return self.add(lambda a, b: torch.cat((a, b), 1), i, j)
        return self.add(lambda a, b: a * b, i, j)


@dataclass(frozen=True)
class Case:
    """A network by its seed, with what is assumed of its input.

    Attributes:
        make: builds the network, warmed up or not.
        shape: of the input.
        options: for the analysis.
        assumed: for the bound.
        used: the neuron types in it.
    """

    make: Callable[[], nn.Module]
    shape: Sizes
    options: dict[str, Any]
    assumed: dict[str, Any]
    used: tuple[str, ...]


def case(seed: int, name: str | None = None, dtype: torch.dtype = torch.float32) -> Case:
    """A random network; with the neuron type ``name``, if given."""
    r = Random(seed)
    name = name or r.choice(list(KINDS))
    every = [n for n in KINDS if dtype == torch.float32 or n not in FLOAT32_ONLY]
    pool = LOOP if name in LOOP and (name not in SEQUENCE or r.random() < 0.5) else SEQUENCE
    loop = pool is LOOP
    kinds = [name, *r.sample([n for n in pool if n in every], 2)]
    size = r.choice([(3,), (2, 4, 4), (1, 5, 3)])
    samples, depth = r.choice([1, 1, 2]), r.choice([1, 2, 3])
    warm = r.random() < 0.4
    assumed: dict[str, Any] = r.choice([{}, {}, {"input_max_events": 2}])
    options: dict[str, Any] = {"layout": "NT"}
    if r.random() < 0.25:
        low = r.choice([0.0, -1.0])
        assumed, options["input_events"] = {"input_range": (low, 1.0)}, False
    shape = (samples, TIMESTEPS, *size)
    state = r.getstate()
    used: list[str] = []

    def make() -> nn.Module:
        choices = Random()
        choices.setstate(state)
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builder = Builder(choices, size, loop, kinds)
            net = builder.build(depth).to(dtype).eval()
        used[:] = builder.used
        if warm:
            with torch.no_grad():
                net(torch.rand(shape, dtype=dtype).round())
        return net

    make()
    return Case(make, shape, options, assumed, tuple(used))


def inputs(case: Case, r: Random, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
    """Inputs within what is assumed: random, all at their most, in bursts."""
    low, high = case.assumed.get("input_range", (0.0, 1.0))
    most = case.assumed.get("input_max_events")
    ones = torch.ones(case.shape, dtype=dtype)
    if most:
        for _ in range(3):
            x = torch.zeros(case.shape, dtype=dtype)
            for _ in range(most):
                at = torch.randint(0, case.shape[1], (case.shape[0], 1, *case.shape[2:]))
                x.scatter_add_(1, at, torch.ones_like(at, dtype=dtype))
            yield x
        yield torch.cat([most * ones[:, :1], 0 * ones[:, 1:]], 1)
        return
    if "input_range" in case.assumed:
        yield torch.rand(case.shape, dtype=dtype) * (high - low) + low
    yield ones * high
    yield torch.where(torch.rand(case.shape) < 0.5, high * ones, low * ones)
    burst = torch.cat([low * ones[:, : r.choice([1, 3])], high * ones], 1)[:, : case.shape[1]]
    yield burst
    yield burst.flip(1)


@dataclass
class Trial:
    """One network's bound, and the largest counts that inputs have reached, per connection."""

    case: Case
    bound: fxsynops.Bound
    largest: dict[tuple[str, ...], float] = field(default_factory=dict)

    def violations(self) -> list[str]:
        """Rows where the promise is broken."""
        found = []
        for row in self.bound.rows:
            key = row.connection.key
            measured = self.largest.get(key, 0.0)
            if not measured <= row.charge <= row.structural:
                found.append(f"{key}: {measured} <= {row.charge} <= {row.structural}")
        return found


def attack(case: Case, rounds: int = 3, dtype: torch.dtype = torch.float32) -> Trial:
    """Bound a network, and try inputs; from the best, climb along the gradient of the count."""
    r = Random(0)
    first = next(inputs(case, r, dtype))
    analysis = fxsynops.analyze(case.make(), first, **case.options)
    trial = Trial(case, analysis.upper_bound(**case.assumed))
    best, highest = first, -1.0

    def measure(x: Tensor) -> Tensor | None:
        nonlocal best, highest
        x = x.clone().requires_grad_()
        counter = fxsynops.SynOpsCounter(case.make(), x.detach(), **case.options)
        counter(x)
        for row in counter.counts.rows:
            key, value = row.connection.key, row.synops / case.shape[0]
            trial.largest[key] = max(trial.largest.get(key, 0.0), value)
        total = counter.synops
        if float(total.detach()) > highest:
            best, highest = x.detach(), float(total.detach())
        if not total.requires_grad:
            return None
        return torch.autograd.grad(total, x, allow_unused=True)[0]

    for x in inputs(case, r, dtype):
        measure(x)
    if "input_max_events" in case.assumed:
        return trial
    low, high = case.assumed.get("input_range", (0.0, 1.0))
    for _ in range(rounds):
        gradient = measure(best)
        if gradient is None:
            break
        x = torch.where(gradient > 0, high, torch.where(gradient < 0, low, best))
        measure(x)
    return trial
