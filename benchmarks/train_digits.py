"""Both recipes of the sinabs how-to, on the handwritten digits of scikit-learn.

    python -m benchmarks.train_digits [--quick] [--recipe ann|snn] [--png FILE] [--json FILE]

* **ann**: an ANN whose activations are whole numbers is trained; then its weights move to an SNN.
* **snn**: the same SNN is trained directly.

Each is first trained for accuracy alone; what it then costs on the training data are its initial
SynOps. From these weights, it is trained on to 1/2, 1/4, 1/8 and 1/16 of them (and, to compare,
without a target). Accuracy and SynOps are those of test images that no training saw, after the last
epoch; a reduction is to what the baseline costs on them. ± is the standard deviation of the seeds.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import fxsynops
from fxsynops.nn import IAF, FlattenTime, IAFSqueeze, NeuromorphicReLU, UnflattenTime

STEPS = 4  # a power of two: dividing an image by it and adding up loses nothing
FRACTIONS = {"1/2": 1 / 2, "1/4": 1 / 4, "1/8": 1 / 8, "1/16": 1 / 16}
NETWORKS = {"ann": "ANN", "transferred": "ANN's weights in an SNN", "snn": "SNN trained directly"}


class Digits(NamedTuple):
    """Images (samples, 1, 8, 8) of pixels from 0 to 16, and their labels."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class Point:
    """What one network reached on the test images; SynOps are per sample."""

    network: str
    seed: int
    training: str  # "baseline", "no target", or a key of FRACTIONS
    initial: float
    accuracy: float
    synops: float

    @property
    def distance(self) -> float:
        """From the target, relative to it."""
        return self.synops / (self.initial * FRACTIONS.get(self.training, 1.0)) - 1


def load_split() -> Digits:
    """All 1,797 digits, always split in the same way: 1,347 to train with, 450 to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=450, stratify=labels, random_state=0)
    train, test = (torch.as_tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) for x in parts[:2])
    return Digits(train, torch.as_tensor(parts[2]), test, torch.as_tensor(parts[3]))


def make_ann() -> nn.Sequential:
    """The how-to's ANN, for 8×8 pixels; its activations are the spikes of an SNN."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        NeuromorphicReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        NeuromorphicReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 64, 2, bias=False),
        NeuromorphicReLU(),
        nn.Flatten(),
        nn.Linear(64, 10, bias=False),
    )


def to_snn(ann: nn.Sequential) -> nn.Sequential:
    """The same layers with copies of the weights, and IAF neurons, on (batch, time, …) currents."""
    layers = (
        IAFSqueeze(batch_size=1) if isinstance(layer, NeuromorphicReLU) else copy.deepcopy(layer)
        for layer in ann
    )
    return nn.Sequential(FlattenTime(), *layers, UnflattenTime(batch_size=1))


def is_spiking(model: nn.Sequential) -> bool:
    """Whether it is an SNN, not an ANN."""
    return any(isinstance(layer, IAF) for layer in model)


def reset(snn: nn.Sequential, samples: int) -> None:
    """Discharge the membranes, and prepare the layers for a number of samples."""
    for layer in snn:
        if isinstance(layer, IAFSqueeze | UnflattenTime):
            layer.batch_size = samples
        if isinstance(layer, IAF):
            layer.reset_states()


def currents(images: Tensor) -> Tensor:
    """Each image as a constant current that adds up to the image: (batch, time, 1, 8, 8).

    Spikes as inputs would cause SynOps in the first layer that no training can lower. A current
    costs multiply-accumulates there, as the image does in the ANN, and they are not counted here.
    """
    return (images / STEPS)[:, None].expand(-1, STEPS, -1, -1, -1)


def count(model: nn.Sequential) -> fxsynops.SynOpsCounter:
    """A counter, to be called instead of the model."""
    image = torch.zeros(1, 1, 8, 8)
    if not is_spiking(model):
        return fxsynops.SynOpsCounter(model, image, input_events=False)
    reset(model, 1)
    return fxsynops.SynOpsCounter(model, currents(image), layout="NT", input_events=False)


def classify(counter: fxsynops.SynOpsCounter, images: Tensor) -> Tensor:
    """Logits; those of an SNN are its output currents, added up over the time steps."""
    if not is_spiking(counter.model):
        return counter(images)
    reset(counter.model, len(images))
    return counter(currents(images)).sum(1)


def train(
    counter: fxsynops.SynOpsCounter,
    data: Digits,
    epochs: int,
    initial: float | None = None,
    fraction: float = 1.0,
    weight: float = 1.0,
) -> None:
    """Train with cross entropy, and towards a fraction of the initial SynOps per sample, if given.

    The target sinks to that fraction over the first half of the epochs. At once, the squared
    distance to a far target would outweigh the cross entropy, and silence neurons for good.
    """
    optimizer = torch.optim.Adam(counter.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for batch in torch.randperm(len(data.train_images)).split(50):
            logits = classify(counter, data.train_images[batch])
            loss = F.cross_entropy(logits, data.train_labels[batch])
            if initial is not None:
                target = initial * fraction ** min(1.0, 2 * epoch / epochs)
                per_step = target / counter.window.timesteps
                loss = loss + weight * fxsynops.losses.target_loss(counter, per_step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


@torch.no_grad()
def evaluate(
    counter: fxsynops.SynOpsCounter, images: Tensor, labels: Tensor
) -> tuple[float, float]:
    """Accuracy, and SynOps per sample."""
    counter.clear()
    correct = classify(counter, images).argmax(1) == labels
    return correct.double().mean().item(), counter.counts.total / counter.counts.samples


def run(recipe: str, seed: int, epochs: int, data: Digits) -> Iterator[Point]:
    """Train to the baseline, and from there to each target; an ANN's weights move to an SNN."""
    torch.manual_seed(seed)
    baseline = make_ann() if recipe == "ann" else to_snn(make_ann())
    initial: float | None = None
    for training in ("baseline", "no target", *FRACTIONS):
        counter = count(copy.deepcopy(baseline))
        goal = initial if training in FRACTIONS else None
        train(counter, data, epochs, goal, FRACTIONS.get(training, 1.0))
        if initial is None:
            baseline = counter.model
            initial = evaluate(counter, data.train_images, data.train_labels)[1]
        tested = {recipe: counter}
        if recipe == "ann":
            tested["transferred"] = count(to_snn(counter.model))
        for network, each in tested.items():
            found = evaluate(each, data.test_images, data.test_labels)
            yield Point(network, seed, training, initial, *found)


def show(values: list[float], digits: int = 1, unit: str = "") -> str:
    """Mean ± standard deviation."""
    spread = f" ± {statistics.stdev(values):,.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):,.{digits}f}{spread}{unit}"


def tabulate(network: str, points: list[Point]) -> Table:
    """One network's table: a row for each share of the initial SynOps, over all seeds."""
    table = Table(title=NETWORKS[network], title_justify="left")
    columns = ("Trained for", "Test accuracy (%)", "Loss (points)", "SynOps per sample")
    for name in (*columns, "Reduction", "Off target (%)"):
        table.add_column(name, justify="left" if name == columns[0] else "right")
    before = {p.seed: p for p in points if p.training == "baseline"}
    for training in ("baseline", "no target", *FRACTIONS):
        row = [p for p in points if p.training == training]
        table.add_row(
            training,
            show([100 * p.accuracy for p in row], 2),
            show([100 * (before[p.seed].accuracy - p.accuracy) for p in row], 2),
            show([p.synops for p in row], 0),
            show([before[p.seed].synops / p.synops for p in row], 2, "×"),
            show([100 * p.distance for p in row], 1) if training in FRACTIONS else "–",
        )
    return table


def draw(points: list[Point], path: Path) -> None:
    """Accuracy against SynOps: the seeds' points, and curves of their means."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    shown = {name: [p for p in points if p.network == name] for name in NETWORKS}
    recipes = [names for names in (("ann", "transferred"), ("snn",)) if shown[names[0]]]
    size = {"figsize": (5.5 * len(recipes), 4.5), "squeeze": False}
    figure, panels = plt.subplots(1, len(recipes), sharex=True, sharey=True, **size)
    for axes, names in zip(panels[0], recipes, strict=True):
        for name, color, marker in zip(names, ("tab:blue", "tab:orange"), "ox", strict=False):
            style = {"color": color, "marker": marker}
            means = []
            for training in ("baseline", *FRACTIONS):
                row = [p for p in shown[name] if p.training == training]
                x, y = [p.synops for p in row], [100 * p.accuracy for p in row]
                axes.scatter(x, y, s=28, alpha=0.5, **style)
                means.append((statistics.mean(x), statistics.mean(y)))
                if name == names[0]:
                    above = {"transform": axes.get_xaxis_transform(), "ha": "center"}
                    axes.text(means[-1][0], 0.94, training, **above)
            line = ".-" if name == names[0] else ".:"
            axes.plot(*zip(*means, strict=True), line, label=NETWORKS[name], color=color)
            if name == names[0]:
                axes.plot(*means[0], "k*", markersize=13, label="baseline, mean")
                band = {"color": "gray", "alpha": 0.2, "label": "up to 1 point below it"}
                axes.axhspan(means[0][1] - 1, means[0][1], **band)
        axes.set(xscale="log", xlabel="SynOps per test image", ylabel="test accuracy (%)")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.margins(x=0.15, y=0.15)
        axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Train, print the tables, and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, fewer epochs")
    parser.add_argument("--recipe", choices=("ann", "snn"), help="both, if not given")
    parser.add_argument("--png", type=Path, default=Path("train_digits.png"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, data, points = Console(width=110), load_split(), []
    with console.status("Training") if console.is_terminal else nullcontext():
        for recipe in [options.recipe] if options.recipe else ["ann", "snn"]:
            for seed in range(1 if options.quick else 3):
                points += run(recipe, seed, 30 if options.quick else 80, data)
    for network in NETWORKS:
        if reached := [p for p in points if p.network == network]:
            console.print(tabulate(network, reached))
    draw(points, options.png)
    console.print(f"Curves: {options.png}")
    if options.json:
        options.json.write_text(json.dumps([asdict(p) for p in points], indent=1))


if __name__ == "__main__":
    main()
