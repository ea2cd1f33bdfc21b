"""Nodes of braincog: one step for each call, or all steps in one axis, in front of the samples."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AtanGrad(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x >= 0).float()


class RoundGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Hardtanh(-0.5, 4.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x).ceil()


class EIGrad(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sign()


class Halves(nn.Module):
    """A function that is no step, and no sign."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (x >= 0).float()


class BaseNode(nn.Module):
    def __init__(self, threshold: float = 0.5, act_fun: Any = AtanGrad, **options: Any) -> None:
        super().__init__()
        given = {"v_reset": 0.0, "dt": 1.0, "step": 4, "layer_by_layer": False, "n_groups": 1}
        given |= {"sigmoid_thres": False, "tau": 2.0} | options
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self.act_fun, self.groups = act_fun(), given.pop("n_groups")
        self.tau = given.pop("tau")
        vars(self).update(given)
        self.n_reset()

    def n_reset(self) -> None:
        self.mem, self.spike = self.v_reset, 0.0
        self.feature_map: list[Tensor] = []
        self.mem_collect: list[Tensor] = []

    def get_thres(self) -> Tensor:
        return self.threshold.sigmoid() if self.sigmoid_thres else self.threshold

    def integral(self, x: Tensor) -> None:
        raise NotImplementedError

    def calc_spike(self) -> None:
        self.spike = self.act_fun(self.mem - self.get_thres())
        self.mem = self.mem * (1 - self.spike.detach())

    def rearrange2node(self, x: Tensor) -> Tensor:
        if self.groups != 1:  # among the channels
            return x.unflatten(1, (-1, self.step)).movedim(2, 0)
        return x.unflatten(0, (self.step, -1)) if self.layer_by_layer else x

    def rearrange2op(self, x: Tensor) -> Tensor:
        if self.groups != 1:
            return x.movedim(0, 2).flatten(1, 2)
        return x.flatten(0, 1) if self.layer_by_layer else x

    def forward(self, x: Tensor) -> Tensor:
        if not self.layer_by_layer and self.groups == 1:
            self.integral(x)
            self.calc_spike()
            return self.spike
        found = []
        for step in self.rearrange2node(x):
            self.integral(step)
            self.calc_spike()
            found.append(self.spike)
        return self.rearrange2op(torch.stack(found))


class IFNode(BaseNode):
    def integral(self, x: Tensor) -> None:
        self.mem = self.mem + x * self.dt


class LIFNode(BaseNode):
    def integral(self, x: Tensor) -> None:
        self.mem = self.mem + (x - self.mem) / self.tau

    def calc_spike(self) -> None:
        self.spike = self.act_fun(self.mem - self.threshold)
        self.mem = self.mem * (1 - self.spike.detach())


class BurstLIFNode(LIFNode):
    def __init__(self, threshold: float = 0.5, act_fun: Any = RoundGrad, **options: Any) -> None:
        super().__init__(threshold, act_fun, **options)


class BiasLIFNode(BaseNode):
    def integral(self, x: Tensor) -> None:
        self.mem = self.mem + (x - self.mem) / self.tau * self.dt + 0.1


class LIFSTDPNode(LIFNode):
    def integral(self, x: Tensor) -> None:
        self.mem = self.mem * self.tau + x


class PLIFNode(BaseNode):
    def __init__(self, threshold: float = 0.5, tau: float = 2.0, **options: Any) -> None:
        super().__init__(threshold, **options)
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1.0)))

    def integral(self, x: Tensor) -> None:
        self.mem = self.mem + (x - self.mem) * self.w.sigmoid() * self.dt


class BiasPLIFNode(PLIFNode):
    def integral(self, x: Tensor) -> None:
        self.mem = self.mem + ((x - self.mem) * self.w.sigmoid() + 0.1) * self.dt


class OnlineLIFNode(LIFNode):
    """Starts at zero, whatever it holds."""

    init = True

    def integral(self, x: Tensor) -> None:
        if self.init:
            self.mem, self.init = torch.zeros_like(x), False
        super().integral(x)


class DoubleSidePLIFNode(LIFNode):
    def calc_spike(self) -> None:
        up, down = (self.act_fun(sign * self.mem - self.get_thres()) for sign in (1, -1))
        self.spike = up - down
        self.mem = self.mem * (1 - self.spike.abs().detach())


class BackEINode(BaseNode):
    """Its spikes come back as the gate of its input; another gate gives them a sign."""

    def __init__(
        self,
        channels: int,
        if_back: bool = True,
        if_ei: bool = True,
        th_fun: Any = EIGrad,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.th_fun, self.if_back, self.if_ei = th_fun(), if_back, if_ei
        if if_back:
            self.back = nn.Conv2d(channels, channels, 3, padding=1)
        if if_ei:
            self.ei = nn.Conv2d(channels, channels, 3, padding=1)

    def n_reset(self) -> None:
        self.mem = self.spike = None

    def integral(self, x: Tensor) -> None:
        if self.mem is None:
            self.mem = self.spike = torch.zeros_like(x)
        gate = F.sigmoid(self.back(self.spike)) if self.if_back else 1.0
        self.mem = 0.2 * self.mem + gate * x

    def calc_spike(self) -> None:
        gate = self.th_fun(self.ei(self.mem)) if self.if_ei else 1.0
        spike = self.act_fun(self.mem - self.threshold)
        self.mem, self.spike = self.mem * (1 - spike), gate * spike


class ReLUNode(BaseNode):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


class LIAFNode(LIFNode):
    def forward(self, x: Tensor) -> Tensor:
        self.integral(x)
        return self.mem.relu()


class aEIF(BaseNode):
    """Compares its potential with the threshold, without a surrogate."""

    def integral(self, x: Tensor) -> None:
        self.mem = self.mem + x

    def calc_spike(self) -> None:
        self.spike = (self.mem > self.threshold).float()
        self.mem = self.mem * (1 - self.spike)


class BaseMCNode(nn.Module):
    """Compartments; while it is warmed up, an activation."""

    def __init__(self, warm_up: bool) -> None:
        super().__init__()
        self.warm_up = warm_up

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if self.warm_up else (x > 0.5).float()
