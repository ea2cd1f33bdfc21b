"""The demo: handwritten digits as spike trains, through the SNN of the sinabs how-to."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fxsynops.nn as snn
from fxsynops.counter import SynOpsCounter
from fxsynops.errors import InputError
from fxsynops.neurons import reset_states

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
    layers = OrderedDict(
        merge=snn.FlattenTime(),
        conv1=nn.Conv2d(1, 16, 5, bias=False),
        spike1=snn.IAFSqueeze(batch_size),
        pool1=nn.AvgPool2d(2),
        conv2=nn.Conv2d(16, 32, 5, bias=False),
        spike2=snn.IAFSqueeze(batch_size),
        pool2=nn.AvgPool2d(2),
        conv3=nn.Conv2d(32, 120, 4, bias=False),
        spike3=snn.IAFSqueeze(batch_size),
        flatten=nn.Flatten(),
        linear=nn.Linear(120, 10, bias=False),
        spike4=snn.IAFSqueeze(batch_size),
        split=snn.UnflattenTime(batch_size),
    )
    return nn.Sequential(layers)


def _spike_trains(images: Tensor) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of Bernoulli spike trains whose rates are the grey levels."""
    frames = images[:, None].expand(-1, TIMESTEPS, -1, -1, -1)
    return DataLoader(TensorDataset(torch.bernoulli(frames)), BATCH)


def prepare(samples: int) -> tuple[SynOpsCounter, DataLoader[tuple[Tensor, ...]]]:
    """A counter of the untrained network (seed 0), and batches of spike trains for it.

    Args:
        samples: how many images, a multiple of 20.

    Raises:
        InputError: it is none.
    """
    if samples < BATCH or samples % BATCH:
        raise InputError(f"samples must be a positive multiple of {BATCH}, not {samples}.")
    torch.manual_seed(0)
    images = digits(samples)
    model = network(BATCH).eval()
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data *= 2  # an untrained network would hardly spike
    batches = _spike_trains(images)
    (example,) = next(iter(batches))
    return SynOpsCounter(model, example), batches


def run(samples: int = 300, console: Console | None = None) -> SynOpsCounter:
    """Count the SynOps of the digits and print what there is to print.

    Args:
        samples: how many images, a multiple of 20.
        console: where to print.
    """
    console = console or Console()
    counter, batches = prepare(samples)
    console.print(
        f"[bold]{samples} handwritten digits[/bold], 28 x 28, as Bernoulli spike trains of "
        f"{TIMESTEPS} steps, through the spiking LeNet of the sinabs how-to (untrained, seed 0)\n"
    )
    counts = counter.measure(batches, progress=console)
    reset_states(counter.model)  # a bound starts from the states that the neurons hold
    bound = counter.analysis.upper_bound().compare(counts)
    for result in (counter.analysis, counts, bound):
        console.print(result)
        console.print()
    return counter
