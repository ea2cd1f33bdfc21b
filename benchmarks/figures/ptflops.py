"""ptflops' table of torchvision's models at 224 × 224, README.md, "Benchmark".

Theirs, backend ``aten``: convolution: outputs × in_channels / groups × kernel (taps of the padding
included) + outputs, if there is a bias; ``addmm`` (linear with a bias): in × out + out. Nothing
else. Backend ``pytorch``: the same, twice the inputs of a batch norm, and the inputs of pools and
outputs of ReLUs, both of which are counted twice: at the module, and at the function that it calls.
A residual sum in place counts nothing. (Both to the integer what ptflops 0.7.5 says of these
models.)
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import fxsynops
from benchmarks.figures.rows import Row

SOURCE = "ptflops (sovrasov/flops-counter.pytorch), README.md, Benchmark, MACs(G) ({})"


def conv(a: int, b: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(b)]


class Residual(nn.Module):
    """Two or three convolutions and a shortcut."""

    def __init__(self, a: int, width: int, out: int, stride: int) -> None:
        super().__init__()
        if out == width:
            parts = [*conv(a, width, 3, stride), nn.ReLU(), *conv(width, width, 3)]
        else:
            parts = [
                *conv(a, width, 1),
                nn.ReLU(),
                *conv(width, width, 3, stride),
                nn.ReLU(),
                *conv(width, out, 1),
            ]
        self.body = nn.Sequential(*parts)
        self.shortcut = (
            nn.Sequential(*conv(a, out, 1, stride)) if stride > 1 or a != out else nn.Identity()
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += self.shortcut(x)
        return self.relu(y)


def resnet(depths: tuple[int, ...], widen: int) -> nn.Sequential:
    layers = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    a = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for i in range(depth):
            layers.append(Residual(a, width, width * widen, 2 if stage and not i else 1))
            a = width * widen
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(a, 1000))


def alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(6), nn.Flatten(),
        nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000),
    )  # fmt: skip


def vgg16() -> nn.Sequential:
    layers, a = [], 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(a, width, 3, 1, 1), nn.ReLU()]
            a = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(7),
        nn.Flatten(),
        nn.Linear(25088, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 1000),
    )


MODELS = (
    ("AlexNet", alexnet, "0.71", "0.72"),
    ("ResNet-18", lambda: resnet((2, 2, 2, 2), 1), "1.81", "1.83"),
    ("ResNet-50", lambda: resnet((3, 4, 6, 3), 4), "4.09", "4.13"),
    ("VGG-16", vgg16, "15.48", "15.52"),
)


def others(model: nn.Module, x: Tensor) -> dict[str, int]:
    """What the backend ``pytorch`` adds, by kind, for one forward."""
    found = dict.fromkeys(("norms", "pools", "relus"), 0)

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        n, m = inputs[0].numel(), output.numel()
        if isinstance(module, nn.BatchNorm2d):
            found["norms"] += 2 * n
        elif isinstance(module, nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            found["pools"] += n
        elif isinstance(module, nn.ReLU):
            found["relus"] += m

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    model(x)
    for handle in handles:
        handle.remove()
    return found


def rows() -> Iterator[Row]:
    """The published figures beside ours."""
    for name, make, aten, pytorch in MODELS:
        with torch.device("meta"):
            model, x = make().eval(), torch.rand(1, 3, 224, 224)
        analysis = fxsynops.analyze(model, x, layout="N", input_events=False)
        exact = sum(row.macs for row in analysis.dense)
        plain = analysis.upper_bound(rate=0.0).conventional
        found = plain.with_biases().macs
        padding, biases = plain.macs - exact, found - plain.macs
        why = f"{padding:,.0f} taps of padding, {biases:,.0f} biases"
        source = SOURCE.format("aten")
        yield Row(f"{name}, aten (G)", aten, found / 1e9, source, exact / 1e9, why, ".2f")
        part = others(model, x)
        norms, twice = part["norms"], part["pools"] + part["relus"]
        yield Row(
            f"{name}, pytorch (G)",
            pytorch,
            (found + norms + 2 * twice) / 1e9,
            SOURCE.format("pytorch"),
            exact / 1e9,
            f"{why}, {norms:,} of norms, {2 * twice:,} of pools and ReLUs",
            ".2f",
        )
