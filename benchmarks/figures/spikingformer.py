"""Spikingformer-8-512 and -8-768 on ImageNet, 224 × 224, T = 4 (zhouchenlin2096/Spikingformer).

Theirs (``get_energy_cost`` in energy_consumption_calculation/flops_counter.py, after
syops-counter): of every convolution and the head, operations = outputs × in_channels × kernel (taps
of the padding included) + outputs, if it has a bias. If all inputs are 0 or 1, they are accumulates
(ACs), times the mean of the inputs; else multiply-accumulates (the first convolution; the head,
whose input is a mean). Attention, per block: T · N · heads · d² · (min(r_k, r_v) + r_q), for Kᵀ V
and Q (Kᵀ V), with N = 14² tokens, d per head. Energy: 0.9 pJ per AC, 4.6 pJ per MAC. Norms, pools
and neurons are left out.

The rates below (percent) are those of their logs, imagenet/energy_consumption_logs/*: AC /
operations of a convolution, which is the mean of its inputs over the test set.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from spikingjelly.activation_based import layer
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import fxsynops
from benchmarks.figures.rows import Row
from fxsynops.energy import estimate

SOURCE = "Spikingformer, imagenet/energy_consumption_logs/…_of_Spikingformer-8-{}_log.txt"
STEPS, DEPTH = 4, 8
# of the inputs of the 2nd to 5th convolution; and per block: of the inputs of q, k and v; of q, k,
# v; of the projection; of the two convolutions of the MLP
RATES = {
    512: (
        (25.831256, 15.336444, 13.106537, 12.955733),
        (
            (17.659575, 17.230189, 3.626345, 6.957708, 29.780300, 26.767690, 3.288710),
            (33.795302, 11.627475, 4.029545, 7.173208, 30.958466, 33.019400, 2.964537),
            (34.222299, 10.669308, 4.441459, 7.524624, 31.418967, 34.730305, 2.559833),
            (34.426366, 8.188645, 5.000199, 7.687781, 29.089277, 34.661122, 1.929138),
            (34.327268, 6.365273, 4.325467, 7.054188, 20.988545, 36.038623, 1.420901),
            (35.928690, 7.711239, 3.113139, 7.321583, 16.569300, 35.949797, 0.952563),
            (34.228801, 7.023757, 2.420229, 7.348622, 10.683384, 32.269561, 0.568942),
            (31.767199, 9.727698, 2.812242, 7.954713, 9.477121, 29.923303, 1.376848),
        ),
    ),
    768: (
        (19.796888, 13.189625, 12.084724, 13.008515),
        (
            (14.748724, 13.504587, 2.980961, 5.937458, 26.516695, 22.751534, 2.349587),
            (29.875296, 10.502228, 3.767449, 6.062743, 28.011450, 29.201069, 1.826147),
            (29.063420, 8.326464, 3.776095, 6.862975, 28.582631, 29.763512, 1.556227),
            (30.839703, 5.632503, 3.519357, 6.847198, 23.447169, 31.473482, 1.019329),
            (31.186158, 6.754581, 3.175003, 5.898927, 18.022924, 31.287112, 0.563001),
            (30.692793, 5.021997, 2.239815, 4.204785, 12.603376, 29.967640, 0.314806),
            (29.206180, 7.546272, 3.070095, 4.038598, 8.090336, 26.951348, 0.288767),
            (27.381240, 8.323421, 2.932922, 7.040979, 7.154751, 26.966795, 0.558457),
        ),
    ),
}
PUBLISHED = {
    512: ("0.347329512", "6.51754", "7.46350"),
    768: ("0.520993768", "12.51366", "13.65886"),
}


def lif() -> LIFNode:
    return LIFNode(tau=2.0, detach_reset=True, step_mode="m")


def conv(a: int, b: int, kernel: int, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(
        layer.Conv2d(a, b, kernel, padding=kernel // 2, bias=bias, step_mode="m"),
        layer.BatchNorm2d(b, step_mode="m"),
    )


class Attention(nn.Module):
    """Spiking attention without a softmax: Q (Kᵀ V)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.spikes = heads, lif()
        self.q, self.k, self.v = (nn.Sequential(conv(dim, dim, 1), lif()) for _ in range(3))
        self.fire, self.project = lif(), conv(dim, dim, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        x = self.spikes(x)
        q, k, v = (self.split(part(x)) for part in (self.q, self.k, self.v))
        y = q @ (k.transpose(-2, -1) @ v) * 0.125
        return self.project(self.fire(y.transpose(-2, -1).reshape(shape)))

    def split(self, x: Tensor) -> Tensor:
        return (
            x.flatten(3).unflatten(2, (self.heads, -1)).transpose(-2, -1)
        )  # T, B, heads, tokens, d


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(
            lif(), conv(dim, 4 * dim, 1, bias=True), lif(), conv(4 * dim, dim, 1, bias=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class Spikingformer(nn.Module):
    """Of images as (steps, batch, 3, 224, 224)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        widths = (dim // 8, dim // 4, dim // 2, dim, dim)
        parts = [conv(3, widths[0], 3)]
        for a, b in pairwise(widths):
            parts += [nn.Sequential(lif(), layer.MaxPool2d(3, 2, 1, step_mode="m"), conv(a, b, 3))]
        self.embed = nn.Sequential(*parts)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(DEPTH)))
        self.head = nn.Linear(dim, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x)).flatten(3).mean(3).mean(0))


def rates(dim: int) -> dict[str, float]:
    """Events per element and step, of sources and gates."""
    pools, blocks = RATES[dim]
    found = {}
    for i, rate in enumerate(pools, 1):
        found[f"embed.{i}.0"] = found[f"embed.{i}.1"] = rate / 100
    for i, (x, q, k, v, project, first, second) in enumerate(blocks):
        name = f"blocks.{i}"
        parts = (("spikes", x), ("q.1", q), ("k.1", k), ("v.1", v), ("fire", project))
        found |= {f"{name}.attention.{key}": rate / 100 for key, rate in parts}
        found |= {f"{name}.mlp.0": first / 100, f"{name}.mlp.2": second / 100}
    return found


def rows() -> Iterator[Row]:
    """The published figures beside ours."""
    for dim in RATES:
        yield from of_width(dim)


def of_width(dim: int) -> Iterator[Row]:
    with torch.device("meta"):
        model = Spikingformer(dim, dim // 64).eval()
        analysis = fxsynops.analyze(
            model, torch.rand(STEPS, 1, 3, 224, 224), layout="TN", input_events=False
        )
    bound = analysis.upper_bound(rate=rates(dim))
    found, work = bound.conventional.with_biases(), bound.workload
    layers = [row for row in found.rows if not row.analog and row.kind == "conv2d"]
    padding = sum(row.at_padding for row in layers)
    biases = sum(row.biases for row in layers)
    base = STEPS * 14**2 * (dim // 64) * 64**2
    products = sum(base * (min(k, v) + q) / 100 for _, q, k, v, *_ in RATES[dim][1])
    coincidences = work.synops - sum(row.exact for row in layers)
    acs = sum(row.total for row in layers) + products
    mac, ac, joules = PUBLISHED[dim]
    source, name = SOURCE.format(dim), f"Spikingformer-8-{dim}"
    yield Row(
        f"{name}: MACs (G)",
        mac,
        found.macs / 1e9,
        source,
        work.macs / 1e9,
        f"{found.macs - work.macs - 1000:,.0f} taps of padding, 1,000 biases of the head",
        ".9f",
    )
    yield Row(
        f"{name}: ACs (G)",
        ac,
        acs / 1e9,
        source,
        work.synops / 1e9,
        f"{padding:,.0f} at taps of padding, {biases:,.0f} of biases; attention {products:,.0f} "
        f"as rate times products, {coincidences:,.0f} as expected coincidences",
        ".5f",
    )
    yield Row(
        f"{name}: energy (mJ)",
        joules,
        (found.macs * 4.6e-12 + acs * 0.9e-12) * 1e3,
        source,
        estimate(work, "45 nm CMOS").rows[0].total * 1e3,
        "as above; 0.9 pJ per AC, 4.6 pJ per MAC",
        ".5f",
    )
