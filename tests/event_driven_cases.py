"""Ten small spiking nets in PyTorch with inputs, for the counts of ``simulation.simulate``.

All weights, biases and leaks are multiples of a power of two, so that PyTorch (float32) and
the plain loop (float64) compute the same potentials exactly and every spike must agree.

``CASES[name]()`` builds a ``Case``.  ``Case.layout`` says how its model takes the input:
"step" one step at a time with a batch of one; "multi" ``[step, 1, ...]`` at once;
"squeezed" ``[step, ...]`` at once, the steps in the place of the batch (sinabs).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tests.event_driven import describe, run, simulate


class PlainNeuron(nn.Module):
    """IF (leak 1) or LIF neurons written out; the state is kept from call to call."""

    def __init__(self, threshold=1.0, leak=1.0, reset="soft", multiple=False):
        super().__init__()
        self.threshold, self.leak, self.reset, self.multiple = threshold, leak, reset, multiple
        self.potential = None

    def forward(self, x):
        if self.potential is None:
            self.potential = torch.zeros_like(x)
        potential = self.leak * self.potential + x
        spikes = (potential / self.threshold).floor().clamp(min=0)
        if not self.multiple:
            spikes = spikes.clamp(max=1)
        if self.reset == "hard":
            self.potential = torch.where(spikes > 0, torch.zeros_like(potential), potential)
        else:
            self.potential = potential - spikes * self.threshold
        return spikes


class Add(nn.Module):
    """``first(x) + second(x)``."""

    def __init__(self, first, second=None):
        super().__init__()
        self.first, self.second = first, second if second is not None else nn.Identity()

    def forward(self, x):
        return self.first(x) + self.second(x)


@dataclass
class Case:
    name: str
    model: nn.Module
    x: torch.Tensor  # [step, ...] of one sample, without a batch dimension
    layout: str = "step"

    def counts(self) -> list[dict]:
        return simulate(describe(self.model), self.x)

    def simulated_spikes(self) -> dict[str, list]:
        return run(describe(self.model), self.x)[1]

    def reset(self):
        for module in self.model.modules():
            if isinstance(module, PlainNeuron):
                module.potential = None
            elif hasattr(module, "reset_states"):  # sinabs
                module.reset_states()
            elif hasattr(module, "_memories"):  # spikingjelly
                module.reset()

    def forward(self) -> torch.Tensor:
        """The output of all steps from a fresh state, [step, ...] without a batch."""
        self.reset()
        self.model.eval()
        with torch.no_grad():
            if self.layout == "step":
                return torch.cat([self.model(frame[None]) for frame in self.x])
            if self.layout == "multi":
                return self.model(self.x[:, None])[:, 0]
            return self.model(self.x)

    def torch_spikes(self) -> dict[str, list]:
        """The output of every neuron by PyTorch: name -> [step][site in flat order]."""
        record, hooks = {}, []
        for name, module in self.model.named_modules():
            if is_neuron(module):
                hooks.append(module.register_forward_hook(_recorder(record, name)))
        self.forward()
        for hook in hooks:
            hook.remove()
        return record


def is_neuron(module) -> bool:
    return type(module).__name__ in ("PlainNeuron", "IFNode", "LIFNode", "IAF", "IAFSqueeze")


def _recorder(record, name):
    def hook(module, args, output):
        steps = output.reshape(-1, *output.shape[1:]).flatten(1)  # batch of one, or steps
        if getattr(module, "step_mode", "s") == "m":
            steps = output.flatten(1)
        record.setdefault(name, []).extend(steps.tolist())

    return hook


# ------------------------------------------------------------------------ building


def _fill(model, seed, low=-4, high=4):
    """Weights and biases: eighths from ``low / 8`` to ``high / 8``."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 0:  # sinabs keeps its threshold as one
                continue
            drawn = torch.randint(low, high + 1, parameter.shape, generator=generator)
            parameter.copy_(drawn.float() / 8)
    return model.eval()


def _spikes(shape, rate, seed, highest=1):
    generator = torch.Generator().manual_seed(seed)
    spikes = (torch.rand(shape, generator=generator) < rate).float()
    return spikes * torch.randint(1, highest + 1, shape, generator=generator).float()


def _jelly():
    from spikingjelly.activation_based import functional, layer, neuron

    return functional, layer, neuron


def linear_if() -> Case:
    """Soft and hard reset, with and without bias."""
    model = nn.Sequential(
        nn.Linear(7, 6), PlainNeuron(), nn.Linear(6, 4, bias=False), PlainNeuron(reset="hard")
    )
    return Case("linear_if", _fill(model, 18, -4, 5), _spikes((5, 7), 0.4, 11))


def linear_lif() -> Case:
    """spikingjelly's LIF, both resets, one call per step; some steps without any event."""
    _, layer, neuron = _jelly()
    model = nn.Sequential(
        layer.Linear(8, 6, bias=False),
        neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=1.0, v_reset=0.0),
        layer.Linear(6, 5),
        neuron.LIFNode(tau=4.0, decay_input=False, v_threshold=0.75, v_reset=None),
    )
    x = _spikes((6, 8), 0.5, 12)
    x[2:4] = 0
    return Case("linear_lif", _fill(model, 15, -2, 5), x)


def conv_padding() -> Case:
    """Padding: events at the border reach fewer neurons; spikingjelly, all steps at once."""
    functional, layer, neuron = _jelly()
    model = nn.Sequential(
        layer.Conv2d(2, 3, 3, padding=1),
        neuron.IFNode(v_threshold=1.0, v_reset=0.0),
        layer.Conv2d(3, 2, 3, padding=1, bias=False),
        neuron.IFNode(v_threshold=1.0, v_reset=None),
    )
    functional.set_step_mode(model, "m")
    return Case("conv_padding", _fill(model, 5), _spikes((4, 2, 5, 5), 0.25, 13), "multi")


def conv_stride() -> Case:
    """Strides that skip events, LIF with soft reset."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        PlainNeuron(leak=0.5),
        nn.Conv2d(4, 3, 2, stride=2, bias=False),
        PlainNeuron(leak=0.75, threshold=0.5),
    )
    return Case("conv_stride", _fill(model, 15, -4, 5), _spikes((4, 2, 7, 7), 0.3, 14))


def conv_groups() -> Case:
    """Two groups, then depthwise, then pointwise."""
    functional, layer, neuron = _jelly()
    model = nn.Sequential(
        layer.Conv2d(4, 6, 3, padding=1, groups=2),
        neuron.IFNode(v_threshold=1.0, v_reset=None),
        layer.Conv2d(6, 6, 3, groups=6, bias=False),
        neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=0.5, v_reset=0.0),
        layer.Conv2d(6, 3, 1),
        neuron.IFNode(v_threshold=1.0, v_reset=0.0),
    )
    functional.set_step_mode(model, "m")
    return Case("conv_groups", _fill(model, 2, -3, 4), _spikes((3, 4, 6, 6), 0.3, 15), "multi")


def average_pooling() -> Case:
    """Average pooling between the layers (the second leaves a row and a column over)."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        PlainNeuron(),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        PlainNeuron(threshold=0.5, reset="hard"),
        nn.AvgPool2d(2, stride=2),
        nn.Flatten(),
        nn.Linear(16, 5),
        PlainNeuron(threshold=0.5, leak=0.5),
    )
    return Case("average_pooling", _fill(model, 19), _spikes((4, 1, 10, 10), 0.4, 16))


def sum_pooling() -> Case:
    """sinabs: neurons that fire several times per step, and sum pooling."""
    import sinabs.layers as sl

    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        sl.IAFSqueeze(batch_size=1),
        sl.SumPool2d(2),
        nn.Conv2d(3, 2, 3, padding=1, bias=False),
        sl.IAFSqueeze(batch_size=1, spike_threshold=torch.tensor(2.0)),
        nn.Flatten(),
        nn.Linear(18, 4, bias=False),
        sl.IAFSqueeze(batch_size=1),
    )
    return Case("sum_pooling", _fill(model, 13), _spikes((4, 2, 6, 6), 0.4, 17), "squeezed")


def residual_identity() -> Case:
    """Spikes added to the spikes before the block: values of 2 arrive at the next layer."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        PlainNeuron(),
        Add(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, bias=False), PlainNeuron(reset="hard"))),
        nn.Conv2d(3, 2, 3),
        PlainNeuron(),
    )
    return Case("residual_identity", _fill(model, 12, -3, 4), _spikes((4, 2, 5, 5), 0.3, 18))


def residual_downsample() -> Case:
    """Two convolutional branches with stride, then overlapping average pooling; LIF."""
    functional, layer, neuron = _jelly()

    def lif(reset):
        return neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=0.5, v_reset=reset)

    model = nn.Sequential(
        layer.Conv2d(1, 2, 3, padding=1),
        lif(None),
        Add(
            nn.Sequential(
                layer.Conv2d(2, 4, 3, stride=2, padding=1),
                lif(0.0),
                layer.Conv2d(4, 4, 3, padding=1, bias=False),
                lif(None),
            ),
            nn.Sequential(layer.Conv2d(2, 4, 1, stride=2, bias=False), lif(None)),
        ),
        layer.AvgPool2d(2, stride=1),
        layer.Flatten(),
        layer.Linear(36, 3),
        lif(0.0),
    )
    functional.set_step_mode(model, "m")
    return Case("residual_downsample", _fill(model, 7), _spikes((3, 1, 8, 8), 0.3, 19), "multi")


def odd_shapes() -> Case:
    """Inputs up to 3, oblong kernels and strides, a silent layer, a readout without neurons."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, (3, 1), stride=(1, 2), padding=(0, 1)),
        PlainNeuron(threshold=2.0, multiple=True),
        nn.Conv2d(3, 2, (1, 2), dilation=(1, 2), bias=False),
        PlainNeuron(threshold=64.0),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    return Case("odd_shapes", _fill(model, 24, -4, 5), _spikes((3, 2, 6, 9), 0.3, 20, highest=3))


CASES = {
    build.__name__: build
    for build in (
        linear_if,
        linear_lif,
        conv_padding,
        conv_stride,
        conv_groups,
        average_pooling,
        sum_pooling,
        residual_identity,
        residual_downsample,
        odd_shapes,
    )
}
