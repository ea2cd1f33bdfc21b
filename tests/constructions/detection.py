"""Detection, segmentation and flow: several scales, several outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.constructions.parts import LIF, Cell, Folded, construction, conv, images, spike, spikes

T, B = 2, 2
frames = spikes(T, B, 2, 16, 16)


class Block(nn.Module):
    """Convolution, norm, neuron."""

    def __init__(self, i: int, o: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        self.conv, self.lif = conv(i, o, k, stride=s), LIF()

    def forward(self, x):
        return self.lif(self.conv(x))


class Split(nn.Module):
    """Cross-stage: one half through blocks, the other past them."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Block(c, c // 2, 1), Block(c, c // 2, 1)
        self.m, self.cv3 = (
            nn.Sequential(Block(c // 2, c // 2), Block(c // 2, c // 2)),
            Block(c, c, 1),
        )

    def forward(self, x):
        y = self.cv1(x)
        return self.cv3(torch.cat((y + self.m(y), self.cv2(x)), dim=2))


class Pooled(nn.Module):
    """The same max pool three times in a row, all concatenated."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Block(c, c // 2, 1), Block(2 * c, c, 1)
        self.m = Folded(nn.MaxPool2d(5, 1, 2))

    def forward(self, x):
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 2))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down1, self.down2 = Block(2, 4, s=2), Block(4, 8, s=2), Block(8, 8, s=2)
        self.csp, self.spp = Split(8), Pooled(8)

    def forward(self, x):
        c3 = self.csp(self.down1(self.stem(x)))
        return c3, self.spp(self.down2(c3))


def twice(x: Tensor) -> Tensor:
    return F.interpolate(x.flatten(0, 1), scale_factor=2.0).unflatten(0, x.shape[:2])


@construction("detection: one stage, splits and pools, two scales in a list", frames, layout="TN")
class OneStage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.lateral, self.fuse = Backbone(), Block(8, 8, 1), Block(16, 8)
        self.heads = nn.ModuleList(Folded(nn.Conv2d(8, 3 * 7, 1)) for _ in range(2))

    def forward(self, x):
        c3, c4 = self.backbone(x)
        p3 = self.fuse(torch.cat((twice(self.lateral(c4)), c3), 2))
        outputs = []
        for head, p in zip(self.heads, (p3, c4), strict=True):
            y = head(p).mean(0)
            b, _, h, w = y.shape
            y = y.view(b, 3, 7, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).to(y.dtype)
            y[..., :2] = (y[..., :2] * 2 - 0.5 + grid) * 4
            outputs.append(y.view(b, -1, 7))
        return torch.cat(outputs, 1)


@construction("detection: pyramid by addition, a dictionary of scales", frames, layout="TN")
class Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.inner = nn.ModuleDict({n: conv(8, 6, 1) for n in ("p3", "p4")})
        self.outer = nn.ModuleDict({n: conv(6, 6) for n in ("p3", "p4")})
        self.lif = LIF()

    def forward(self, x):
        c3, c4 = self.backbone(x)
        top = self.inner["p4"](c4)
        sums = {"p4": top, "p3": self.inner["p3"](c3) + twice(top)}
        return {name: self.outer[name](self.lif(y)).mean(0) for name, y in sums.items()}


@dataclass
class Detections:
    boxes: Tensor
    scores: Tensor


pytree.register_pytree_node(
    Detections, lambda d: ([d.boxes, d.scores], None), lambda v, _: Detections(*v)
)


@construction("detection: decoupled head without anchors, a dataclass", frames, layout="TN")
class Decoupled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.stem = Backbone(), Block(8, 6, 1)
        self.boxes = nn.Sequential(Block(6, 6), Folded(nn.Conv2d(6, 4 * 3, 1)))
        self.scores = nn.Sequential(Block(6, 6), Folded(nn.Conv2d(6, 5, 1)))
        self.register_buffer("bins", torch.arange(3.0).view(1, 3, 1, 1))

    def forward(self, x):
        y = self.stem(self.backbone(x)[1])
        b = self.boxes(y).mean(0).unflatten(1, (4, 3))
        boxes = F.conv2d(b.softmax(2).flatten(0, 1), self.bins).view(-1, 4, *y.shape[-2:])
        return Detections(boxes, self.scores(y).mean(0).sigmoid())


class Outputs(NamedTuple):
    depth: Tensor
    features: list[Tensor]


@construction("detection: encoder and decoder with intermediate predictions", frames, layout="TN")
class Depth(nn.Module):
    """Predictions of all scales are summed up in the membranes of neurons that never fire."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(2, 4, 5, stride=2), conv(4, 6, 5, stride=2)])
        self.mid = nn.Sequential(LIF(), conv(6, 6), LIF(), conv(6, 6))
        self.up = nn.ModuleList([conv(6, 4), conv(4, 2)])
        self.predict = nn.ModuleList([Folded(nn.Conv2d(4, 1, 3, padding=1)),
                                      Folded(nn.Conv2d(2, 1, 3, padding=1))])  # fmt: skip
        self.lifs = nn.ModuleList(LIF() for _ in range(4))

    def forward(self, x):
        c1 = self.lifs[0](self.down[0](x))
        c2 = self.lifs[1](self.down[1](c1))
        y = c2 + self.lifs[1](self.mid(c2))
        d1 = self.lifs[2](self.up[0](twice(y))) + c1
        d0 = self.lifs[3](self.up[1](twice(d1)))
        small, large = (p(d) for p, d in zip(self.predict, (d1, d0), strict=True))
        return Outputs((twice(small) + large).sum(0), [d1, d0])


@construction("detection: flow by a correlation of features", spikes(B, 4, 6, 6))
class Correlation(nn.Module):
    """Spikes of two frames are multiplied at small displacements; a head reads the cost volume."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(9, 2, 3, padding=1)

    def forward(self, x):
        a, b = (spike(self.features(part) - 0.05) for part in x.split(2, dim=1))
        b = F.pad(b, (1, 1, 1, 1))
        cost = [(a * b[:, :, i : i + 6, j : j + 6]).sum(1) for i in range(3) for j in range(3)]
        return self.head(torch.stack(cost, 1))


@construction("detection: a template slides over the search region", spikes(B, 2, 8, 8),
              refused="conv")  # fmt: skip
class Siamese(nn.Module):
    """The template's spikes are the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(1, 1, 3)

    def forward(self, x):
        s = spike(self.features(x) - 0.05)
        kernel = s[:, :, 2:5, 2:5]
        y = F.conv2d(s.reshape(1, -1, 8, 8), kernel, groups=s.shape[0]).transpose(0, 1)
        return self.head(y)


@construction("detection: segmentation, pooling indices", images(B, 3, 8, 8), timesteps=T,
              input_events=False)  # fmt: skip
class Unpooled(nn.Module):
    """A decoder puts spikes back where the encoder's maxima were."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid, self.up = (nn.Conv2d(i, o, 3, padding=1)
                                        for i, o in ((3, 4), (4, 4), (4, 2)))  # fmt: skip
        self.cell1, self.cell2 = Cell(threshold=0.1), Cell(threshold=0.05)

    def forward(self, x):
        out = 0.0
        for _ in range(T):
            s, where = F.max_pool2d(self.cell1(self.down(x)), 2, return_indices=True)
            out = out + self.up(F.max_unpool2d(self.cell2(self.mid(s)), where, 2))
        return out.log_softmax(1)


@construction("detection: segmentation, transposed convolutions and summed skips", frames,
              layout="TN")  # fmt: skip
class Segmentation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.enc3 = Block(2, 4, s=2), Block(4, 6, s=2), Block(6, 8, s=2)
        self.score2 = Folded(nn.Conv2d(6, 3, 1))
        self.up1 = Folded(nn.ConvTranspose2d(8, 3, 4, 2, 1))
        self.up2 = Folded(nn.ConvTranspose2d(3, 3, 4, 2, 1, bias=False))
        self.lif = LIF(threshold=0.05)

    def forward(self, x):
        s2 = self.enc2(self.enc1(x))
        y = self.up1(self.enc3(s2)) + self.score2(s2)
        return self.up2(self.lif(y)).mean(0)


@construction("detection: points of interest by heat maps, the best k", spikes(B, 2, 8, 8))
class HeatMap(nn.Module):
    """Features are gathered at the peaks of a map, for the second stage."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.heat = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
        self.size = nn.Linear(4, 2)

    def forward(self, x):
        s = spike(self.features(x) - 0.05)
        heat = self.heat(s).sigmoid()
        heat = heat * (F.max_pool2d(heat, 3, 1, 1) == heat)
        score, index = heat.flatten(1).topk(3)
        at = s.flatten(2).gather(2, index.unsqueeze(1).expand(-1, 4, -1))
        return score, index, self.size(at.mT)


@construction("detection: regions cut out and resized", spikes(B, 2, 8, 8))
class Regions(nn.Module):
    """Fixed regions of every map are pooled to one size."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(16, 5)
        self.boxes = ((0, 0, 4, 4), (2, 2, 8, 8), (1, 3, 5, 7))

    def forward(self, x):
        s = spike(self.features(x) - 0.05)
        regions = [F.adaptive_max_pool2d(s[:, :, a:c, b:d], 2) for a, b, c, d in self.boxes]
        return self.fc(torch.stack(regions, 1).flatten(2))
