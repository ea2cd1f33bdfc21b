"""Neurons of rockpool's torch back end: (batch, time, neurons), with states of one sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class StepPWL(torch.autograd.Function):
    """⌊v / θ⌋ spikes."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, threshold: Tensor, window: Tensor, most: Tensor) -> Tensor:
        return torch.minimum((v / threshold).floor().clamp(min=0), most)


class PeriodicExponential(StepPWL):
    pass


class Other(StepPWL):
    """A function that the file does not know."""


class Heaviside:
    """A function that is an object."""

    def __call__(self, v: Tensor, threshold: Tensor, window: Tensor, most: Tensor) -> Tensor:
        return StepPWL.forward(None, v, threshold, window, most)


class TorchModule(nn.Module):
    """What it keeps, by name: value, kind, family, how it starts, shape."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: dict[str, tuple[Any, ...]] = {}

    def _state(self, name: str, *shape: int) -> None:
        value = torch.zeros(shape)
        self.register_buffer(name, value)
        self.registry[name] = (value, "State", None, torch.zeros, shape)

    def _get_attribute_registry(self) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
        return self.registry, {}

    def _reset_attribute(self, name: str) -> None:
        _, _, _, start, shape = self.registry[name]
        setattr(self, name, start(shape))


class LinearTorch(TorchModule):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(inputs, outputs))
        self.registry["weight"] = (self.weight, "Parameter", None, torch.rand, (inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class ExpSynTorch(TorchModule):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1) * 0.7


class UpDownTorch(TorchModule):
    def __init__(self, repeat_output: float) -> None:
        super().__init__()
        self.repeat_output = repeat_output

    def forward(self, x: Tensor) -> Tensor:
        return self.repeat_output * torch.cat([(x > 0.5).float(), (x < -0.5).float()], -1)


class LIFNeuronTorch(TorchModule):
    def __init__(self, size: int, **options: Any) -> None:
        super().__init__()
        self.size_out, self.dt = size, 1e-3
        given = {"threshold": 1.0, "bias": 0.0, "tau_mem": 20e-3} | options
        self.noise_std = given.pop("noise_std", 0.0)
        self.max_spikes_per_dt = torch.tensor(given.pop("max_spikes_per_dt", 2.0**16))
        self.spike_generation_fn = given.pop("spike_generation_fn", StepPWL.apply)
        for name, value in given.items():
            setattr(self, name, nn.Parameter(torch.as_tensor(value)))
        self._state("vmem", size)

    def fire(self, v: Tensor) -> tuple[Tensor, Tensor]:
        spikes = self.spike_generation_fn(v, self.threshold, None, self.max_spikes_per_dt)
        return spikes, v - spikes * self.threshold

    def forward(self, x: Tensor) -> Tensor:
        v, found = self.vmem.expand(len(x), -1), []
        for step in x.unbind(1):
            spikes, v = self.fire(torch.exp(-self.dt / self.tau_mem) * v + step + self.bias)
            found.append(spikes)
        self.vmem = v[0].detach()
        return torch.stack(found, 1)


class LIFBaseTorch(LIFNeuronTorch):
    """With synapses, and perhaps recurrent weights."""

    def __init__(self, size: int, n_synapses: int = 1, has_rec: bool = False, **options: Any):
        given = {"alpha": 0.9, "beta": 0.8} | options
        w_ahp = given.pop("w_ahp", None)
        super().__init__(size, **given)
        self.size_in, self.n_synapses, self._has_rec = size * n_synapses, n_synapses, has_rec
        self.w_rec = nn.Parameter(torch.zeros(size, self.size_in))
        self._state("isyn", size, n_synapses)
        self._state("spikes", size)
        if w_ahp is not None:
            self.w_ahp = nn.Parameter(torch.full((size,), float(w_ahp)))
            self._state("iahp", size)

    def forward(self, x: Tensor) -> Tensor:
        n, size, found = len(x), self.size_out, []
        v, spikes = (state.expand(n, -1) for state in (self.vmem, self.spikes))
        isyn, ahp = self.isyn.expand(n, -1, -1), torch.zeros(n, size)
        if hasattr(self, "w_ahp"):
            ahp = self.iahp.expand(n, -1)
        for step in x.unbind(1):
            back = (spikes @ self.w_rec).reshape(n, size, self.n_synapses)
            isyn = self.beta * (isyn + step.reshape(n, size, self.n_synapses) + back)
            if hasattr(self, "w_ahp"):
                ahp = torch.exp(-self.dt / self.tau_ahp) * (ahp + spikes * self.w_ahp)
            spikes, v = self.fire(self.alpha * v + isyn.sum(2) + ahp + self.bias)
            found.append(spikes)
        self.vmem, self.isyn, self.spikes = v[0].detach(), isyn[0].detach(), spikes[0].detach()
        if hasattr(self, "w_ahp"):
            self.iahp = ahp[0].detach()
        return torch.stack(found, 1)


class LIFTorch(LIFBaseTorch):
    pass


class LIFBitshiftTorch(LIFBaseTorch):
    pass


class aLIFTorch(LIFBaseTorch):
    def __init__(self, size: int, w_ahp: float = -0.1, tau_ahp: float = 20e-3, **options: Any):
        super().__init__(size, w_ahp=w_ahp, tau_ahp=tau_ahp, **options)
