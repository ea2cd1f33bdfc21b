"""The same kinds of networks, with neurons of the libraries."""

from __future__ import annotations

import norse.torch as norse
import sinabs.layers as sl
import snntorch
import torch
from sinabs.activation import MembraneSubtract, MultiSpike, SingleSpike
from snntorch import surrogate
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from tests.constructions.parts import construction, images, spikes

T, B = 4, 2


def reset_jelly(model: nn.Module) -> None:
    functional.reset_net(model)


@construction("spikingjelly: sew block and recurrent container", spikes(T, B, 4, 6, 6), layout="TN",
              reset=reset_jelly)  # fmt: skip
class JellyBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def block() -> nn.Sequential:
            return nn.Sequential(
                layer.Conv2d(4, 4, 3, padding=1, bias=False), layer.BatchNorm2d(4),
                neuron.ParametricLIFNode(v_threshold=0.3, detach_reset=True),
            )  # fmt: skip

        self.conv1, self.conv2, self.pool = block(), block(), layer.MaxPool2d(2)
        functional.set_step_mode(self, "m")
        self.recurrent = layer.LinearRecurrentContainer(
            neuron.LIFNode(v_threshold=0.1, step_mode="s"), 36, 36, step_mode="m"
        )
        self.fc = layer.Linear(36, 3, step_mode="m")

    def forward(self, x):
        y = self.conv2(self.conv1(x)) + x
        return self.fc(self.recurrent(self.pool(y).flatten(2)))


@construction("spikingjelly: self-attention, stateless blocks by a loop", spikes(T, B, 5, 8),
              layout="TN", reset=reset_jelly)  # fmt: skip
class JellyAttention(nn.Module):
    """Single-step neurons, called once a step."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (
            nn.Sequential(nn.Linear(8, 8), neuron.LIFNode(v_threshold=0.1)) for _ in range(3)
        )
        self.lif, self.proj = neuron.LIFNode(v_threshold=0.1), nn.Linear(8, 8)

    def step(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.proj(self.lif(q @ k.transpose(1, 2) @ v * 0.25))

    def forward(self, x):
        return torch.stack([self.step(x[t]) for t in range(x.shape[0])])


@construction("spikingjelly: filter of synapses", spikes(T, B, 8), layout="TN", reset=reset_jelly)
class JellyFilters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            layer.Linear(8, 6), neuron.IFNode(v_threshold=0.2), layer.SynapseFilter(tau=5.0),
            layer.Linear(6, 6), neuron.LIFNode(v_threshold=0.05), layer.Linear(6, 3),
        )  # fmt: skip
        functional.set_step_mode(self, "m")

    def forward(self, x):
        return self.net(x)


def reset_hidden(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()


@construction("snntorch: convolutional network, recorded spikes and membranes",
              images(B, 1, 8, 8), timesteps=T, input_events=False)  # fmt: skip
class TorchLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        grad = surrogate.fast_sigmoid(slope=25)
        self.conv1, self.conv2, self.fc1 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 4)
        self.lif1 = snntorch.Leaky(beta=0.9, threshold=0.2, spike_grad=grad)
        self.lif2 = snntorch.Leaky(beta=0.9, threshold=0.2, spike_grad=grad, inhibition=False)
        self.lif3 = snntorch.Leaky(beta=0.9, threshold=0.1, reset_mechanism="none")
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        mem1, mem2, mem3 = (lif.init_leaky() for lif in (self.lif1, self.lif2, self.lif3))
        record = []
        for _ in range(T):
            spk, mem1 = self.lif1(self.pool(self.conv1(x)), mem1)
            spk, mem2 = self.lif2(self.conv2(spk), mem2)
            spk, mem3 = self.lif3(self.fc1(spk.view(x.shape[0], -1)), mem3)
            record.append((spk, mem3))
        return tuple(torch.stack(values) for values in zip(*record, strict=True))


# Counts the last step's spikes at the recurrent weights, which this forward does not bring there.
@construction("snntorch: recurrent leaky layers and a population code", spikes(T, B, 8),
              layout="TN", still_open=True)  # fmt: skip
class TorchRecurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, 6)
        self.rec = snntorch.RLeaky(beta=0.8, threshold=0.2, linear_features=6)
        self.out = snntorch.Leaky(beta=0.8, threshold=0.1)

    def forward(self, x):
        (s, m), out = self.rec.init_rleaky(), self.out.init_leaky()
        total = 0.0
        for t in range(x.size(0)):
            s, m = self.rec(self.fc1(x[t]), s, m)
            z, out = self.out(self.fc2(s), out)
            total = total + z
        return total.view(B, 3, 2).sum(-1)


# Like snntorch's recurrent layers.
@construction("norse: recurrent network with a readout of membranes", spikes(8, B, 8), layout="TN",
              still_open=True)  # fmt: skip
class NorseNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        p = norse.LIFParameters(v_th=torch.tensor(0.1), tau_mem_inv=torch.tensor(200.0))
        self.recurrent = norse.LIFRecurrentCell(8, 6, p=p)
        self.recurrent.input_weights.data *= 5
        self.fc, self.cell = nn.Linear(6, 6), norse.LIFCell(p=p)
        self.readout = norse.LILinearCell(6, 3)

    def forward(self, x):
        s1 = s2 = so = None
        voltages = []
        for ts in range(x.shape[0]):
            z, s1 = self.recurrent(x[ts], s1)
            z, s2 = self.cell(self.fc(z) * 20, s2)
            v, so = self.readout(z, so)
            voltages.append(v)
        return torch.stack(voltages).max(0).values.log_softmax(1)


def reset_sinabs(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, sl.StatefulLayer):
            module.reset_states()


@construction("norse: filters, feed-forward neurons and a leaky readout", spikes(8, B, 8),
              layout="TN")  # fmt: skip
class NorseFilters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        p = norse.LIFParameters(v_th=torch.tensor(0.05), alpha=torch.tensor(80.0))
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.filter, self.lif, self.cell = norse.LICell(), norse.LIF(p=p), norse.LIFCell(p=p)
        self.readout = norse.LI()

    def forward(self, x):
        trace = state = None
        z, _ = self.lif(self.fc1(x) * 4)
        out = []
        for step in z:
            current, trace = self.filter(self.fc2(step) * 20, trace)
            s, state = self.cell(current * 4, state)
            out.append(self.fc3(s))
        return self.readout(torch.stack(out))[0]


@construction("sinabs: convolutional network for a chip", spikes(B * T, 2, 8, 8), layout="(NT)",
              batch_size=B, reset=reset_sinabs)  # fmt: skip
class SinabsChip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        options = {"batch_size": B, "spike_threshold": torch.tensor(0.25), "min_v_mem": -1.0}
        self.seq = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            sl.IAFSqueeze(**options, spike_fn=SingleSpike, reset_fn=MembraneSubtract()),
            sl.SumPool2d(2),
            nn.Conv2d(4, 4, 3, stride=2, bias=False),
            sl.IAFSqueeze(**options, spike_fn=MultiSpike),
            nn.Dropout2d(0.5),
            nn.Flatten(),
            nn.Linear(4, 3, bias=False),
        ).eval()

    def forward(self, x):
        return self.seq(x)


@construction("sinabs: dilated waves with synaptic time constants", spikes(B, 16, 4), layout="NT",
              reset=reset_sinabs)  # fmt: skip
class SinabsWaves(nn.Module):
    """Two exponential synapses with different constants stand for a dilated kernel of two taps."""

    def __init__(self) -> None:
        super().__init__()
        self.synapses, self.fc1, self.fc2 = nn.ModuleList(), nn.Linear(4, 12), nn.Linear(6, 3)
        self.lif = sl.LIF(
            tau_mem=torch.tensor(4.0), tau_syn=None, spike_threshold=torch.tensor(0.1)
        )
        for tau in (2.0, 8.0):
            self.synapses.append(sl.ExpLeak(tau_mem=tau))

    def forward(self, x):
        a, b = self.fc1(x).chunk(2, dim=2)
        return self.fc2(self.lif(self.synapses[0](a) + self.synapses[1](b)))
