"""SANA-FE's DVS gesture network on Loihi, tutorial/tutorial_5_dvs.ipynb: 365,277 spikes in 1,000
steps.

Its weights come with the package (``pip install sanafe``: sanafe/examples/dvs_challenge.npz).
Convolutions 3 × 3 without padding, 1 → 16 (stride 2) → 32 → 64 → 11, and 891 → 11. Neurons
integrate, spike above the threshold and go to zero; a spike arrives in the next step; each of the
32 × 32 inputs is a neuron with a bias. "spikes" of its result are synaptic events, of
"loihi_dense_synapse" (35.5 pJ, the first of the core's synapses in arch/loihi.yaml). The soma costs
51.2 pJ per neuron and step, 21.6 pJ more if it is updated (its potential or its input is not zero)
and 69.3 pJ per spike; the network depends on the mapping.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

import fxsynops
from benchmarks.figures.rows import Row
from fxsynops.energy import Device, estimate

TUTORIAL = "SANA-FE, tutorial/tutorial_5_dvs.ipynb, expected_firing_neurons"
RESULT = "sanafe 2.2.9, the result of that tutorial"
STEPS = 1000


class Integrate(nn.Module):
    """Neurons that integrate their input of the step before, (batch, time, …), or a bias."""

    def __init__(self, threshold: float, delay: int) -> None:
        super().__init__()
        self.threshold, self.delay = threshold, delay

    def forward(self, current: Tensor) -> Tensor:
        return self.run(current)[0]

    def run(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes, and the potentials before each step."""
        spikes, potentials = [], [torch.zeros_like(current[:, 0])]
        for now in self.delayed(current).unbind(1):
            potential = (potentials[-1] * 64).trunc() / 64 + now  # Loihi's resolution
            spikes.append((potential > self.threshold).to(now.dtype))
            potentials.append(potential * (1 - spikes[-1]))
        return torch.stack(spikes, 1), torch.stack(potentials[:-1], 1)

    def delayed(self, x: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(x[:, : self.delay]), x), 1)[:, : x.shape[1]]


fxsynops.register_spiking(Integrate, max_spikes=1)


class Gesture(nn.Module):
    def __init__(self, thresholds: list[float]) -> None:
        super().__init__()
        sizes = ((1, 16, 2), (16, 32, 1), (32, 64, 1), (64, 11, 1))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, bias=False) for a, b, stride in sizes
        )
        self.dense = nn.Linear(891, 11, bias=False)
        self.neurons = nn.ModuleList(
            Integrate(theta, int(i > 0)) for i, theta in enumerate(thresholds)
        )

    def forward(self, bias: Tensor) -> Tensor:
        """Of a bias in each step: (batch, time, 1, 32, 32)."""
        spikes = self.neurons[0](bias)
        for convolution, neurons in zip(self.convolutions, self.neurons[1:5], strict=True):
            spikes = neurons(convolution(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2]))
        return self.neurons[5](self.dense(spikes.flatten(2)))


def gesture(path: str) -> tuple[Gesture, Tensor]:
    data = {key: torch.from_numpy(value).double() for key, value in np.load(path).items()}
    model = Gesture(data["thresholds"].tolist()).double()
    for i, convolution in enumerate(model.convolutions, 1):
        convolution.weight.data = data[f"conv{i}"].permute(3, 2, 0, 1).contiguous()
    model.dense.weight.data = data["dense1"].T.contiguous()
    return model, data["inputs"].view(1, 1, 1, 32, 32)


def updated(model: Gesture, bias: Tensor) -> tuple[int, int]:
    """Spikes, and neurons with a potential or an input (also one of zero), of all steps."""
    ones = copy.deepcopy(model)
    for parameter in ones.parameters():
        nn.init.ones_(parameter)
    current, arrived = bias, bias
    fired = active = 0
    for i, neurons in enumerate(model.neurons):
        spikes, potential = neurons.run(current)
        fired += int(spikes.sum())
        active += int(((potential != 0) | (neurons.delayed(arrived) != 0)).sum())
        if i < 4:
            current, arrived = (
                net.convolutions[i](spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])
                for net in (model, ones)
            )
        elif i == 4:
            current, arrived = (net.dense(spikes.flatten(2)) for net in (model, ones))
    return fired, active


def rows(path: str) -> list[Row]:
    """The published figures beside ours."""
    model, bias = gesture(path)
    drive = bias.expand(1, STEPS, -1, -1, -1)
    counter = fxsynops.SynOpsCounter(model, drive[:, :4], layout="NT", input_events=False)
    with torch.no_grad():
        counter(drive)
        fired, active = updated(model, drive)
    work = counter.counts.workload
    (energy,) = estimate(work, Device("Loihi", 35.5e-12, 51.2e-12)).rows
    soma = energy.updates_energy + 21.6e-12 * active + 69.3e-12 * fired
    return [
        Row("SANA-FE, DVS gesture: spikes", "365,277", fired, TUTORIAL),
        Row("SANA-FE, DVS gesture: synaptic events", "51,549,374", work.synops, RESULT),
        Row(
            "SANA-FE, DVS gesture: neurons updated",
            "15,539,753",
            active,
            RESULT,
            work.updates,
            "theirs skips neurons at zero without input",
        ),
        Row(
            "SANA-FE, DVS gesture: synapses (mJ)",
            "1.8300028",
            energy.synops_energy * 1e3,
            RESULT,
            form=".7f",
        ),
        Row(
            "SANA-FE, DVS gesture: somas (mJ)",
            "1.3172860",
            soma * 1e3,
            RESULT,
            energy.updates_energy * 1e3,
            "51.2 pJ for each of ours; 21.6 pJ per update, 69.3 pJ per spike are added",
            ".7f",
        ),
    ]
