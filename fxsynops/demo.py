"""The demo: handwritten digits as spike trains, through the SNN of the sinabs how-to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

import fxsynops.nn as snn
from fxsynops.counter import SynOpsCounter
from fxsynops.errors import InputError

TIMESTEPS = 10
BATCH = 20


def digits(samples: int) -> Tensor:
    """Grey-level images in [0, 1], (samples, 1, 28, 28), that scikit-learn ships."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "the demo takes its images from scikit-learn, which is not installed: "
            "pip install 'fxsynops[demo]'"
        ) from None
    images = torch.as_tensor(load_digits().images[:samples], dtype=torch.float32) / 16
    return F.interpolate(images[:, None], (28, 28), mode="bilinear").clamp(0, 1)


def network(batch_size: int) -> nn.Sequential:
    """The how-to's SNN on (batch, time, 1, 28, 28) spikes."""
    return nn.Sequential(
        snn.FlattenTime(),
        nn.Conv2d(1, 16, 5, bias=False),
        snn.IAFSqueeze(batch_size),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 5, bias=False),
        snn.IAFSqueeze(batch_size),
        nn.AvgPool2d(2),
        nn.Conv2d(32, 120, 4, bias=False),
        snn.IAFSqueeze(batch_size),
        nn.Flatten(),
        nn.Linear(120, 10, bias=False),
        snn.IAFSqueeze(batch_size),
        snn.UnflattenTime(batch_size),
    )


def _reset(model: nn.Sequential) -> None:
    for layer in model:
        if isinstance(layer, snn.IAF):
            layer.reset_states()


def run(samples: int = 300, console: Console | None = None) -> SynOpsCounter:
    """Count the SynOps of the digits and print what there is to print.

    Args:
        samples: how many images, a multiple of 20.
        console: where to print.
    """
    console = console or Console()
    if samples < BATCH or samples % BATCH:
        raise InputError(f"samples must be a positive multiple of {BATCH}, not {samples}.")
    torch.manual_seed(0)
    images = digits(samples)
    model = network(BATCH).eval()
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data *= 2  # an untrained network would hardly spike
    example = torch.zeros(BATCH, TIMESTEPS, 1, 28, 28)
    counter = SynOpsCounter(model, example, layout="NT")
    console.print(
        f"[bold]{samples} handwritten digits[/bold], 28 x 28, as Bernoulli spike trains of "
        f"{TIMESTEPS} steps, through the spiking LeNet of the sinabs how-to (untrained, seed 0)\n"
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples, {task.fields[synops]:,.0f} SynOps"),
        TimeRemainingColumn(),
    )
    with torch.no_grad(), Progress(*columns, console=console) as progress:
        task = progress.add_task("Counting", total=samples, synops=0)
        for batch in images.split(BATCH):
            frames = batch[:, None].expand(-1, TIMESTEPS, -1, -1, -1)
            _reset(model)
            counter(torch.bernoulli(frames))
            progress.update(task, advance=BATCH, synops=counter.counts.total)
    console.print()
    console.print(counter.analysis)
    console.print()
    console.print(counter.counts)
    console.print()
    _reset(model)
    console.print(counter.analysis.upper_bound().compare(counter.counts))
    return counter
