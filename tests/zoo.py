"""Models that the field publishes, at small sizes: one entry each, with its input and its reset.

``ZOO`` holds them by name. The libraries' models are made active (low thresholds, batch norm in
training mode), so that there is something to count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import sinabs.layers as sl
import snntorch
import torch
import torch.nn.functional as F
from sinabs.from_torch import from_model
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import (
    masnn,
    maxformer,
    ms_resnet,
    parametric_lif_net,
    qkformer,
    sew_resnet,
    spike_driven_transformer,
    spikformer,
    spiking_resnet,
    spiking_vgg,
    spiking_vggws_ottt,
)
from torch import nn

from tests.networks import Heaviside
from tests.outcome import Case

ZOO: dict[str, Case] = {}


def images(*shape: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.rand(*shape),)


def spikes(*shape: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: ((torch.rand(*shape) < 0.4).float(),)


# -- spikingjelly ----------------------------------------------------------------------------------


def jelly(name: str, make: Callable[[], nn.Module], inputs: Any, units: Any = None, **options: Any):
    """A multi-step model whose neurons fire easily."""

    def build() -> nn.Module:
        model = make()
        functional.set_step_mode(model, step_mode)
        for module in model.modules():
            if isinstance(getattr(module, "v_threshold", None), float):
                module.v_threshold = 0.2
        return model

    step_mode, analog = options.pop("step_mode", "m"), options.pop("analog", ())
    options = {"layout": "TN", "input_events": False} | options
    ZOO[f"spikingjelly {name}"] = Case(
        build, inputs, options, functional.reset_net, units or {}, analog
    )


_IF = {"spiking_neuron": neuron.IFNode, "num_classes": 5}
_LIF = {"spiking_neuron": neuron.LIFNode, "num_classes": 5}
for _depth in (18, 34, 50):
    for _cnf in ("ADD", "AND", "IAND"):
        _make = getattr(sew_resnet, f"sew_resnet{_depth}")
        jelly(
            f"sew_resnet{_depth} {_cnf}",
            lambda make=_make, cnf=_cnf: make(cnf=cnf, **_IF),
            images(2, 2, 3, 32, 32),
        )
for _depth in (18, 50):
    _make = getattr(spiking_resnet, f"spiking_resnet{_depth}")
    jelly(f"spiking_resnet{_depth}", lambda make=_make: make(**_IF), images(2, 2, 3, 32, 32))
for _name in ("spiking_vgg11_bn", "spiking_vgg16"):
    _make = getattr(spiking_vgg, _name)
    jelly(_name, lambda make=_make: make(**_LIF).eval(), images(2, 1, 3, 32, 32))
jelly(
    "spikformer_cifar10",
    lambda: spikformer.spikformer_cifar10(T=2, num_classes=5),
    images(2, 2, 3, 32, 32),
)
jelly(
    "spikformer_ti",
    lambda: spikformer.spikformer_ti(T=2, img_size_h=64, img_size_w=64, num_classes=5),
    images(2, 1, 3, 64, 64),
)
jelly(
    "qkformer_10_384", lambda: qkformer.qkformer_10_384(T=2, num_classes=5), images(2, 1, 3, 64, 64)
)
jelly(
    "sdt_8_384",
    lambda: spike_driven_transformer.sdt_8_384(T=2, num_classes=5),
    images(2, 1, 3, 64, 64),
)
jelly("ms_resnet18", lambda: ms_resnet.ms_resnet18(num_classes=5), images(2, 2, 3, 32, 32))
jelly("max_resnet18", lambda: ms_resnet.max_resnet18(num_classes=5), images(2, 2, 3, 32, 32))
jelly(
    "maxformer_10_384",
    lambda: maxformer.maxformer_10_384(T=2, num_classes=5),
    images(2, 1, 3, 64, 64),
    {"head": 0.5},  # all neurons fire, so a mean over two steps shows ones only
)
jelly(
    "att_ms_resnet18",
    lambda: masnn.att_ms_resnet18(num_classes=5, dropout=0.0),
    images(2, 2, 3, 32, 32),
)
jelly(
    "masnn_dvs128_gesture",
    lambda: masnn.masnn_dvs128_gesture(T=6),
    spikes(6, 1, 2, 32, 32),
    input_events=True,
    analog=("sharedMLP",),
)
jelly(
    "parametric LIF, MNIST",
    lambda: parametric_lif_net.MNISTNet(channels=8, spiking_neuron=neuron.LIFNode),
    images(2, 2, 1, 28, 28),
    {"conv_fc.10": 2.0, "conv_fc.13": 2.0},  # behind dropout
)
jelly(
    "parametric LIF, DVS gesture",
    lambda: parametric_lif_net.DVSGestureNet(channels=8, spiking_neuron=neuron.ParametricLIFNode),
    spikes(2, 1, 2, 128, 128),
    {"conv_fc.22": 2.0, "conv_fc.25": 2.0},  # behind dropout
    input_events=True,
)
jelly(
    "spiking_vgg11_bn, one step",
    lambda: spiking_vgg.spiking_vgg11_bn(**_LIF).eval(),
    images(2, 3, 32, 32),
    layout="N",
    step_mode="s",
)
jelly(
    "ottt_spiking_vgg11_ws",
    lambda: spiking_vggws_ottt.ottt_spiking_vgg11_ws(num_classes=5).eval(),
    images(1, 3, 32, 32),
    {f"features.{i}": 2.74 for i in (4, 8, 11, 15, 18, 22, 25)}
    | {f"classifier.{i}": 2.74 for i in (2, 6, 10)},
    layout="N",
    step_mode="s",
)


class Wrapped(nn.Module):
    """Containers and layers of spikingjelly, around two neurons."""

    def __init__(self, first: nn.Module, second: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.conv = layer.SeqToANNContainer(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.first = first
        self.pool = layer.MaxPool2d(2)
        self.dropout = layer.Dropout(0.3)
        self.steps = layer.MultiStepContainer(nn.Conv2d(4, 4, 3, padding=1))
        self.second = second
        self.last_pool = pool
        self.fc = layer.Linear(16, 3)
        functional.set_step_mode(self, "m")

    def forward(self, x):
        x = self.dropout(self.pool(self.first(self.conv(x))))
        return self.fc(self.last_pool(self.second(self.steps(x))).flatten(2))


for _name, _kind in vars(neuron).items():
    if isinstance(_kind, type) and issubclass(_kind, neuron.BaseNode) and "MPBN" not in _name:
        if _name.endswith("BaseNode") or _name in ("LIAFNode", "OTTTLIFNode"):
            continue  # abstract, analog, or for another container
        # The oracle sees sums of signed spikes, in which they cancel.
        _pool = layer.MaxPool2d if "Ternary" in _name else layer.AvgPool2d
        jelly(
            f"layers around {_name}",
            lambda kind=_kind, pool=_pool: Wrapped(kind(), kind(), pool(2)).eval(),
            spikes(3, 2, 2, 8, 8),
            input_events=True,
        )

# -- snntorch --------------------------------------------------------------------------------------

STEPS = 4


class Tutorial(nn.Module):
    """The tutorials' convolutional network: explicit states, a Python loop over time steps."""

    def __init__(self, first: nn.Module, second: nn.Module, static: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3)
        self.lif1, self.lif2, self.lif3 = first, second, snntorch.Leaky(0.9)
        self.fc = nn.Linear(4, 5)
        self.static = static

    def forward(self, x):
        states = [_tuple(lif.reset_mem()) for lif in (self.lif1, self.lif2, self.lif3)]
        spikes, membranes = [], []
        for t in range(STEPS):
            current = F.max_pool2d(self.conv1(x if self.static else x[t]) * 3, 2)
            spk, states[0] = _stepped(self.lif1, current, states[0])
            current = self.conv2(spk) * 3
            spk, states[1] = _stepped(self.lif2, current, states[1])
            spk, states[2] = _stepped(self.lif3, self.fc(spk.flatten(1)), states[2])
            spikes.append(spk)
            membranes.append(states[2][-1])
        return torch.stack(spikes), torch.stack(membranes)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _stepped(lif: nn.Module, current: torch.Tensor, state: tuple[Any, ...]) -> Any:
    """Spikes and the next state; a recurrent neuron's spikes are part of its state."""
    result = lif(current, *state)
    return result[0], result if len(state) == len(result) else result[1:]


TUTORIAL_NEURONS: dict[str, Callable[[], nn.Module]] = {
    "Leaky": lambda: snntorch.Leaky(0.9, threshold=0.3),
    "Synaptic": lambda: snntorch.Synaptic(0.9, 0.8, threshold=0.3),
    "Alpha": lambda: snntorch.Alpha(0.9, 0.8, threshold=0.05),
    "Lapicque": lambda: snntorch.Lapicque(0.9, threshold=0.3),
    "learnable Leaky": lambda: snntorch.Leaky(
        0.9, threshold=0.3, learn_beta=True, learn_threshold=True, reset_mechanism="zero"
    ),
}
for _name, _neuron in TUTORIAL_NEURONS.items():
    ZOO[f"snntorch {_name}, static image"] = Case(
        lambda make=_neuron: Tutorial(make(), make(), static=True),
        images(2, 1, 8, 8),
        {"timesteps": STEPS, "input_events": False},
    )
    ZOO[f"snntorch {_name}, spikes in time"] = Case(
        lambda make=_neuron: Tutorial(make(), make(), static=False),
        spikes(STEPS, 2, 1, 8, 8),
        {"layout": "TN"},
    )


def _reset_hidden(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()


for _name, _make in {
    "Leaky": lambda **o: snntorch.Leaky(0.9, threshold=0.2, **o),
    "Synaptic": lambda **o: snntorch.Synaptic(0.9, 0.8, threshold=0.2, **o),
    "Alpha": lambda **o: snntorch.Alpha(0.9, 0.8, threshold=0.05, **o),
    "Lapicque": lambda **o: snntorch.Lapicque(0.9, threshold=0.2, **o),
}.items():
    ZOO[f"snntorch {_name}, hidden state"] = Case(
        lambda make=_make: nn.Sequential(
            nn.Linear(8, 6),
            make(init_hidden=True),
            nn.Linear(6, 4),
            make(init_hidden=True, output=True),
        ),
        spikes(3, 8),
        {},
        _reset_hidden,
    )
ZOO["snntorch AssociativeLeaky"] = Case(
    lambda: nn.Sequential(nn.Linear(8, 8), snntorch.AssociativeLeaky(8, 3, 3, 9)),
    spikes(STEPS, 3, 8),
    {"layout": "TN"},
)

# -- norse -----------------------------------------------------------------------------------------


class Cells(nn.Module):
    """A loop over time steps; states are None at first."""

    def __init__(self, cell: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 6), nn.Linear(6, 4), nn.Linear(4, 3)
        self.cell1, self.cell2, self.li = cell(), cell(), norse.LICell()

    def forward(self, x):
        states, outputs = [None, None, None], []
        for step in x:
            z, states[0] = self.cell1(self.fc1(step) * 30, states[0])
            z, states[1] = self.cell2(self.fc2(z) * 30, states[1])
            y, states[2] = self.li(self.fc3(z), states[2])
            outputs.append(y)
        return torch.stack(outputs), states[0]


_easy = norse.LIFParameters(v_th=torch.tensor(0.1))
for _name in ("LIFCell", "LSNNCell", "LIFAdExCell", "LIFExCell", "LIFRefracCell", "IAFCell"):
    ZOO[f"norse {_name}"] = Case(
        lambda name=_name: Cells(getattr(norse, name)), spikes(6, 2, 8), {"layout": "TN"}
    )
for _name in ("LIF", "LSNN", "LIFAdEx", "LIFEx", "IAF"):
    ZOO[f"norse {_name} in SequentialState"] = Case(
        lambda name=_name: norse.SequentialState(
            nn.Linear(8, 6),
            getattr(norse, name)(),
            nn.Linear(6, 4),
            norse.LIF(_easy),
            nn.Linear(4, 2),
            norse.LI(),
        ),
        spikes(6, 2, 8),
        {"layout": "TN"},
    )
ZOO["norse Lift"] = Case(
    lambda: norse.SequentialState(
        norse.Lift(nn.Conv2d(1, 3, 3)),
        norse.LIF(_easy),
        norse.Lift(norse.SequentialState(nn.Conv2d(3, 4, 3), norse.LIFCell(_easy))),
        norse.Lift(nn.Flatten()),
        nn.Linear(64, 3),
        norse.LI(),
    ),
    spikes(5, 2, 1, 8, 8),
    {"layout": "TN"},
)

# -- sinabs ----------------------------------------------------------------------------------------


def _reset_states(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, sl.StatefulLayer):
            module.reset_states()


_low = {"spike_threshold": torch.tensor(0.2)}
SINABS: dict[str, Callable[[int], nn.Module]] = {
    "IAF": lambda n: sl.IAF(**_low),
    "LIF": lambda n: sl.LIF(tau_mem=10.0, **_low),
    "ALIF": lambda n: sl.ALIF(tau_mem=10.0, tau_adapt=10.0, **_low),
    "ExpLeak": lambda n: sl.ExpLeak(tau_mem=5.0),
    "NeuromorphicReLU": lambda n: sl.NeuromorphicReLU(),
    "IAFRecurrent": lambda n: sl.IAFRecurrent(rec_connect=nn.Linear(n, n), **_low),
    "LIFRecurrent": lambda n: sl.LIFRecurrent(
        tau_mem=10.0, rec_connect=nn.Sequential(nn.Flatten(), nn.Linear(n, n)), **_low
    ),
    "ALIFRecurrent": lambda n: sl.ALIFRecurrent(
        tau_mem=10.0, tau_adapt=10.0, rec_connect=nn.Linear(n, n), **_low
    ),
    "default IAF": lambda n: sl.IAF(),
}
for _name, _layer in SINABS.items():
    ZOO[f"sinabs {_name}"] = Case(
        lambda make=_layer: nn.Sequential(
            nn.Linear(8, 6), make(6), nn.Linear(6, 4), make(4), nn.Linear(4, 2)
        ),
        spikes(3, 5, 8),
        {"layout": "NT"},
        _reset_states,
    )
SQUEEZED: dict[str, Callable[[], nn.Module]] = {
    "IAFSqueeze": lambda: sl.IAFSqueeze(batch_size=3, **_low),
    "LIFSqueeze": lambda: sl.LIFSqueeze(tau_mem=10.0, batch_size=3, **_low),
    "ExpLeakSqueeze": lambda: sl.ExpLeakSqueeze(tau_mem=5.0, batch_size=3),
}
for _name, _make in SQUEEZED.items():
    ZOO[f"sinabs {_name}"] = Case(
        lambda make=_make: nn.Sequential(
            nn.Conv2d(1, 4, 3),
            make(),
            sl.SumPool2d(2),
            nn.Conv2d(4, 3, 2),
            make(),
            nn.Flatten(),
            nn.Linear(12, 2),
        ),
        spikes(15, 1, 8, 8),
        {"layout": "(NT)", "batch_size": 3},
        _reset_states,
    )


class Merged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(8, 6), sl.IAF(**_low))
        self.right = nn.Sequential(nn.Linear(8, 6), sl.IAF(**_low))
        self.merge, self.repeat = sl.Merge(), sl.Repeat(nn.Linear(6, 4))
        self.out = nn.Sequential(
            sl.IAF(**_low), sl.FlattenTime(), nn.Linear(4, 2), sl.UnflattenTime(3)
        )

    def forward(self, x):
        return self.out(self.repeat(self.merge(self.left(x), self.right(x))))


ZOO["sinabs Merge, Repeat, FlattenTime"] = Case(
    Merged, spikes(3, 5, 8), {"layout": "NT"}, _reset_states
)
ZOO["sinabs from_model"] = Case(
    lambda: from_model(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6, 3),
            nn.ReLU(),
        ),
        input_shape=(1, 8, 8),
        batch_size=3,
        spike_threshold=0.2,
    ),
    spikes(15, 1, 8, 8),
    {"layout": "(NT)", "batch_size": 3},
    _reset_states,
)
ZOO["sinabs recurrent convolution"] = Case(
    lambda: nn.Sequential(
        sl.FlattenTime(),
        nn.Conv2d(1, 3, 3),
        sl.UnflattenTime(3),
        sl.IAFRecurrent(rec_connect=nn.Conv2d(3, 3, 3, padding=1), **_low),
        sl.FlattenTime(),
        sl.SpikingMaxPooling2dLayer(2),
        nn.Conv2d(3, 2, 2),
    ),
    spikes(3, 5, 1, 8, 8),
    {"layout": "NT"},
    _reset_states,
)

# -- plain PyTorch ---------------------------------------------------------------------------------


fire = Heaviside.apply


class Membrane(nn.Module):
    """A leaky neuron that keeps its membrane in an attribute, and loops over time itself."""

    def __init__(self) -> None:
        super().__init__()
        self.v: torch.Tensor | float = 0.0

    def forward(self, x):
        out = torch.empty_like(x)
        for t in range(x.shape[0]):
            self.v = 0.8 * self.v + x[t]
            out[t] = fire(self.v - 0.3)
            self.v = self.v * (1 - out[t])
        return out


def forget(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, Membrane):
            module.v = 0.0


class Written(nn.Module):
    """A model whose forward is a function of its layers and inputs."""

    def __init__(self, forward: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        for name, value in layers.items():
            setattr(self, name, value)
        self.function = forward

    def forward(self, *inputs):
        return self.function(self, *inputs)


class Positive(nn.Module):
    """A parametrization."""

    def forward(self, weight):
        return weight.abs()


def plain(name: str, forward: Any, inputs: Any, layers: Callable[[], dict[str, Any]], **options):
    reset, units = options.pop("reset", lambda _: None), options.pop("units", {})
    ZOO[f"plain {name}"] = Case(lambda: Written(forward, **layers()), inputs, options, reset, units)


def two_convolutions() -> dict[str, Any]:
    return {"conv1": nn.Conv2d(2, 4, 3, padding=1), "conv2": nn.Conv2d(4, 3, 3, padding=1)}


picture = spikes(2, 2, 8, 8)
plain("autograd function", lambda m, x: m.conv2(fire(m.conv1(x))), picture, two_convolutions)
plain("comparison", lambda m, x: m.conv2((m.conv1(x) > 0.1).float()), picture, two_convolutions)
plain(
    "floor", lambda m, x: m.conv2((m.conv1(x) * 4).clamp(0, 3).floor()), picture, two_convolutions
)
plain(
    "straight-through round",
    lambda m, x: m.conv2((y := m.conv1(x) * 4) + (y.round() - y).detach()),
    picture,
    two_convolutions,
    units={"conv2": 1.0},
)
plain(
    "membrane in an attribute",
    lambda m, x: m.fc2(m.neuron2(m.fc1(m.neuron1(m.fc(x))))),
    spikes(5, 3, 8),
    lambda: {
        "fc": nn.Linear(8, 6),
        "neuron1": Membrane(),
        "fc1": nn.Linear(6, 4),
        "neuron2": Membrane(),
        "fc2": nn.Linear(4, 2),
    },
    layout="TN",
    reset=forget,
)
plain(
    "ModuleList, ModuleDict and a tied layer",
    lambda m, x: m.heads["a"](fire(m.shared(fire(m.shared(fire(m.steps[0](x))))))),
    spikes(3, 8),
    lambda: {
        "steps": nn.ModuleList([nn.Linear(8, 6)]),
        "shared": nn.Linear(6, 6),
        "heads": nn.ModuleDict({"a": nn.Linear(6, 2), "unused": nn.Linear(6, 3)}),
    },
)
plain(
    "parametrized and computed weights",
    lambda m, x: F.conv2d(fire(m.conv1(x)), m.conv2.weight * m.mask, padding=1),
    picture,
    lambda: (
        two_convolutions()
        | {
            "conv1": nn.utils.parametrize.register_parametrization(
                nn.Conv2d(2, 4, 3, padding=1), "weight", Positive()
            ),
            "mask": nn.Parameter((torch.rand(3, 4, 3, 3) < 0.5).float()),
        }
    ),
)
plain(
    "einsum",
    lambda m, x: torch.einsum("bchw,oc->bohw", fire(m.conv1(x)), m.weight),
    picture,
    lambda: two_convolutions() | {"weight": nn.Parameter(torch.randn(3, 4))},
)
plain(
    "convolution by unfold",
    lambda m, x: m.weight @ F.unfold(fire(m.conv1(x)), 3, padding=1, stride=2),
    picture,
    lambda: two_convolutions() | {"weight": nn.Parameter(torch.randn(3, 36))},
)


def u_net(m: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    a = fire(m.down1(x))
    b = fire(m.down2(F.max_pool2d(a, 2)))
    c = fire(m.bottom(F.avg_pool2d(b, 2)))
    b = fire(m.up2(torch.cat((F.interpolate(c, scale_factor=2), b), 1)))
    a = fire(m.up1(b)) + a
    return {"mask": m.out(a), "features": b}


plain(
    "U-Net",
    u_net,
    spikes(2, 1, 16, 16),
    lambda: {
        "down1": nn.Conv2d(1, 4, 3, padding=1),
        "down2": nn.Conv2d(4, 6, 3, padding=1),
        "bottom": nn.Conv2d(6, 6, 3, padding=1),
        "up2": nn.Conv2d(12, 6, 3, padding=1),
        "up1": nn.ConvTranspose2d(6, 4, 2, stride=2),
        "out": nn.Conv2d(4, 2, 1),
    },
)
plain(
    "depthwise separable and dilated",
    lambda m, x: m.out(fire(m.point(fire(m.depth(fire(m.dilated(x))))))),
    picture,
    lambda: {
        "dilated": nn.Conv2d(2, 4, 3, padding=2, dilation=2),
        "depth": nn.Conv2d(4, 4, 3, padding=1, groups=4, stride=2),
        "point": nn.Conv2d(4, 6, 1),
        "out": nn.Conv2d(6, 2, 3),
    },
)
plain(
    "audio",
    lambda m, x: m.fc(F.avg_pool1d(fire(m.conv2(fire(m.conv1(x)))), 4).flatten(1)),
    spikes(2, 1, 32),
    lambda: {
        "conv1": nn.Conv1d(1, 4, 5, stride=2, padding="valid"),
        "conv2": nn.Conv1d(4, 4, 3, padding="same", padding_mode="circular"),
        "fc": nn.Linear(12, 2),
    },
)
plain(
    "video",
    lambda m, x: m.fc(F.adaptive_avg_pool3d(fire(m.conv2(fire(m.conv1(x)))), 2).flatten(1)),
    spikes(2, 1, 4, 8, 8),
    lambda: {
        "conv1": nn.Conv3d(1, 3, 3, padding=1),
        "conv2": nn.Conv3d(3, 4, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        "fc": nn.Linear(32, 2),
    },
)
plain(
    "two inputs",
    lambda m, x, y: {"sum": m.fc(fire(m.left(x)) + fire(m.right(y))), "left": m.left(x)},
    lambda: (*spikes(3, 8)(), torch.rand(3, 5)),
    lambda: {"left": nn.Linear(8, 6), "right": nn.Linear(5, 6), "fc": nn.Linear(6, 2)},
    input_events=[True, False],
)


class Residual(nn.Module):
    """A torchvision-style block, with one ReLU used twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


# What a default run takes from the slow ones; everything else there runs always.
SLOW = (
    {name for name in ZOO if name.startswith("spikingjelly ")}
    - {
        "spikingjelly sew_resnet18 ADD",
        "spikingjelly sew_resnet18 IAND",
        "spikingjelly spiking_resnet18",
        "spikingjelly spikformer_cifar10",
        "spikingjelly sdt_8_384",
        "spikingjelly parametric LIF, MNIST",
    }
    - {name for name in ZOO if "layers around" in name}
)
