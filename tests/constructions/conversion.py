"""Networks converted from ANNs, and codes in time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.constructions.parts import construction, images, spike, spikes

T, B = 4, 2
picture = images(B, 3, 8, 8)
static = {"timesteps": T, "input_events": False}


class Floor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.floor()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Clipped(nn.Module):
    """Quantized, clipped at a learned height, floor with a shift of one half."""

    def __init__(self, levels: int = 4, up: float = 1.0) -> None:
        super().__init__()
        self.levels, self.up = levels, nn.Parameter(torch.tensor([up]))

    def forward(self, x):
        x = torch.clamp(x / self.up, 0, 1)
        return Floor.apply(x * self.levels + 0.5) / self.levels * self.up


class IF(nn.Module):
    """Integrates from half a threshold, soft reset; spikes weigh a threshold."""

    def __init__(self, threshold: float = 0.25) -> None:
        super().__init__()
        self.threshold: Tensor | float = threshold
        self.mem: Tensor | None = None

    def reset(self):
        self.mem = None

    def forward(self, x):
        if self.mem is None:
            self.mem = torch.zeros_like(x) + 0.5 * self.threshold
        self.mem = self.mem + x
        s = spike(self.mem - self.threshold) * self.threshold
        self.mem = self.mem - s
        return s


def network(neuron, pool=nn.AvgPool2d, last=nn.AdaptiveAvgPool2d) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), neuron(), pool(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), neuron(), last(2),
        nn.Flatten(), nn.Linear(24, 8), neuron(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


class Repeated(nn.Module):
    """The same image at every step, outputs averaged."""

    def __init__(self, neuron=IF) -> None:
        super().__init__()
        self.net = network(neuron)

    def forward(self, x):
        out = 0
        for _ in range(T):
            out = out + self.net(x)
        return out / T


@construction("conversion: quantized and clipped activations, before", picture, input_events=False)
class Before(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network(Clipped)

    def forward(self, x):
        return self.net(x * 4)


construction("conversion: integrate and fire from half a threshold", picture, **static)(Repeated)


@construction("conversion: learned thresholds", picture, **static,
              units={"net.4": 0.2 / 4, "net.9": 0.2 / 4, "net.11": 0.2})  # fmt: skip
class LearnedThresholds(Repeated):
    def __init__(self) -> None:
        super().__init__(lambda: IF(0.2))
        for module in self.modules():
            if isinstance(module, IF):
                module.threshold = nn.Parameter(torch.tensor(0.2))


class Mode(nn.Module):
    """T = 0: quantized activations. T > 0: spikes, time merged into the batch around neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.thresh, self.T = nn.Parameter(torch.tensor([0.5])), T

    def forward(self, x):
        if self.T > 0:
            x = x.view(self.T, -1, *x.shape[1:])
            mem, thre = 0.5 * self.thresh.data[0], self.thresh.data[0]
            spikes = []
            for t in range(self.T):
                mem = mem + x[t, ...]
                s = spike(mem - thre) * thre
                mem = mem - s
                spikes.append(s)
            return torch.stack(spikes, dim=0).flatten(0, 1)
        return torch.clamp(x / self.thresh, 0, 1)


@construction("conversion: one forward for all steps, merged with the batch", picture, **static)
class MergedSteps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network(Mode)

    def forward(self, x):
        x = x.unsqueeze(0).repeat(T, 1, 1, 1, 1).flatten(0, 1)
        return self.net(x).view(T, -1, 3).mean(0)


@construction("conversion: burst neurons", picture, **static,
              units={"net.4": 0.125 / 4, "net.9": 0.125 / 4, "net.11": 0.125})  # fmt: skip
class BurstNetwork(Repeated):
    class Burst(IF):
        def forward(self, x):
            self.mem = x + (self.threshold / 2 if self.mem is None else self.mem)
            n = (self.mem / self.threshold).floor().clamp(min=0, max=5)
            self.mem = self.mem - n * self.threshold
            return n * self.threshold

    def __init__(self) -> None:
        super().__init__(lambda: self.Burst(0.125))


@construction("conversion: signed neurons that take spikes back", picture, **static,
              units={"net.4": 1 / 16, "net.9": 1 / 16, "net.11": 1 / 16})  # fmt: skip
class SignedNetwork(Repeated):
    """A negative spike only where more positive ones went before; remembers what it has sent."""

    class Signed(IF):
        def __init__(self) -> None:
            super().__init__(0.0625)
            self.sent: Tensor | float = 0.0

        def reset(self):
            self.mem, self.sent = None, 0.0

        def forward(self, x):
            self.mem = x + (0.5 * self.threshold if self.mem is None else self.mem)
            up = (self.mem >= self.threshold).float()
            down = (self.mem <= -0.05).float() * (self.sent > 0)
            s = (up - down) * self.threshold
            self.mem, self.sent = self.mem - s, self.sent + s
            return s

    def __init__(self) -> None:
        super().__init__()
        self.net = network(self.Signed, nn.MaxPool2d, nn.AdaptiveMaxPool2d)

    def forward(self, x):
        return sum(self.net((torch.rand_like(x) < x).float()) for _ in range(T)) / T


@construction("conversion: scales moved before and behind neurons", picture, **static,
              units={"net.4": 0.3 / 4, "net.9": 0.3 / 4, "net.11": 0.3})  # fmt: skip
class Scaled(Repeated):
    """A wrapper divides by an activation's largest value, fires, and multiplies by it."""

    class Voltage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = IF(1.0)
            self.register_buffer("scale", torch.tensor(0.3))

        def forward(self, x):
            return self.neuron(x / self.scale) * self.scale

    def __init__(self) -> None:
        super().__init__(self.Voltage)


@construction("conversion: thresholds per channel", picture, **static)
class PerChannel(Repeated):
    """Weights are normalized by channels' largest activations; the next layer takes it back."""

    def __init__(self) -> None:
        super().__init__(lambda: IF(1.0))
        for module in (self.net[0], self.net[4]):
            factor = torch.rand(module.out_channels) + 2
            module.weight.data *= factor.view(-1, 1, 1, 1)
            module.bias.data *= factor

    def forward(self, x):
        out = []
        for t in range(T):
            y = self.net(x)
            out.append(y if t > 0 else y.detach())
        return torch.stack(out).cumsum(0)[-1]


@construction("conversion: max pools that follow the first unit to fire most", picture, **static)
class CountedPool(Repeated):
    """A pool that passes the spikes of the input that has fired most so far."""

    class Pool(nn.Module):
        def __init__(self, k: int) -> None:
            super().__init__()
            self.k, self.total = k, 0.0

        def reset(self):
            self.total = 0.0

        def forward(self, x):
            self.total = self.total + x
            _, index = F.max_pool2d(self.total, self.k, return_indices=True)
            return x.flatten(2).gather(2, index.flatten(2)).view_as(index)

    def __init__(self) -> None:
        super().__init__()
        self.net = network(IF, self.Pool)


@construction("conversion: membranes of the first pass start the second", picture, **static)
class Residual(Repeated):
    """A first run measures residual membranes, from which the second run starts."""

    def forward(self, x):
        super().forward(x)
        for module in self.modules():
            if isinstance(module, IF) and module.mem is not None:
                module.mem = 0.5 * module.threshold + F.relu(-module.mem)
        return super().forward(x)


@construction("conversion: calibrated, biases shifted per step", picture, **static)
class Calibrated(Repeated):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(0.1 * torch.rand(T, 4, 1, 1), requires_grad=False)

    def forward(self, x):
        out = 0.0
        for t in range(T):
            y = self.net[1](self.net[0](x)) + self.shift[t]
            out = out + self.net[2:](y)
        return out


@construction("conversion: rates drawn for every pixel", picture, timesteps=T, input_events=False)
class Rates(nn.Module):
    """Poisson spikes with the sign of the normalized image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(IF)

    def forward(self, x):
        y, out = x * 2 - 1, 0.0
        for _ in range(T):
            drawn = torch.mul(torch.le(torch.rand_like(y), y.abs()).float(), torch.sign(y))
            out = out + self.net(drawn)
        return out


@construction("conversion: bits of pixels, most significant first", picture, timesteps=8,
              input_events=False)  # fmt: skip
class Bits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.neuron = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), IF()

    def forward(self, x):
        whole, out = (x * 255).round().to(torch.uint8), 0.0
        for bit in range(7, -1, -1):
            plane = torch.bitwise_and(torch.bitwise_right_shift(whole, bit), 1).to(x.dtype)
            out = out + self.head(self.neuron(self.conv(plane) * 2.0 ** (bit - 7)))
        return out


@construction("conversion: pixels' latencies, one spike each", picture, timesteps=8,
              input_events=False)  # fmt: skip
class Latency(nn.Module):
    """Brighter is earlier; the answer is what fires first."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(192, 8), nn.Linear(8, 3)

    def forward(self, x):
        when = ((1 - x.flatten(1)) * 7).round().long()
        train = F.one_hot(when, 8).permute(2, 0, 1).to(x.dtype)
        v = u = fired = 0.0
        first = x.new_full((x.shape[0], 3), 8.0)
        for t in range(8):
            v = v + self.fc1(train[t])
            s = ((v > 0.05) & (fired < 1)).to(x.dtype) if t else (v > 0.05).to(x.dtype)
            fired = fired + s
            u = u + self.fc2(s)
            first = torch.where((u > 0.1) & (first == 8), torch.full_like(first, float(t)), first)
        return -first


@construction("conversion: activations approximated by several neurons", spikes(B, 8))
class Approximated(nn.Module):
    """A smooth activation as a weighted sum of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, 3)
        self.register_buffer("knots", torch.tensor([0.0, 0.125, 0.25, 0.5]))

    def forward(self, x):
        y = self.fc1(x)
        steps = torch.stack([spike(y - k) for k in self.knots.tolist()])
        return self.fc2(steps.sum(0) * 0.125)
