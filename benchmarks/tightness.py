"""How much the charge bound tells: the how-to's LeNet with trained weights.

    python -m benchmarks.tightness [--quick]

Trains the SNN of the sinabs how-to on scikit-learn's handwritten digits, then prints, per
connection: the structural and the charge bound, the most that gradient ascent on the differentiable
count and simple inputs reach, and what the digits themselves cost.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as snn
from fxsynops.cli.demo import TIMESTEPS, digits, network
from fxsynops.reporting.report import number


def trained(epochs: int, samples: int) -> nn.Sequential:
    """The SNN, trained directly on rates of output spikes."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    images, labels = digits(samples), torch.as_tensor(load_digits().target[:samples])
    model = network(20)
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data *= 2  # so that something fires
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(samples).split(20):
            reset(model)
            y = model(torch.bernoulli(images[batch][:, None].expand(-1, TIMESTEPS, -1, -1, -1)))
            loss = F.cross_entropy(y.mean(1), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def reset(model: nn.Sequential) -> None:
    """Set all membranes to zero."""
    for layer in model:
        if isinstance(layer, snn.IAF):
            layer.reset_states()


def attacked(counter: fxsynops.SynOpsCounter, rounds: int) -> dict[str, float]:
    """The most that 20 inputs at a time reach, per layer, by climbing along the gradient."""
    largest: dict[str, float] = {}
    x = torch.rand(20, TIMESTEPS, 1, 28, 28).round()
    x[0] = 1

    def run(x: Tensor, layer: str | None = None) -> Tensor:
        reset(counter.model)  # type: ignore[arg-type]
        x = x.clone().requires_grad_()
        counter(x)
        for name, value in counter.per_synapse.items():
            largest[name] = max(largest.get(name, 0.0), float(value.detach()) / len(x))
        wanted = counter.synops if layer is None else counter.per_synapse[layer]
        return torch.autograd.grad(wanted, x)[0]

    run(torch.ones_like(x))
    for layer in [None, *list(counter.per_synapse)[1:]]:
        spikes = x
        for _ in range(rounds):
            spikes = (run(spikes, layer) > 0).float()
        run(spikes, layer)
    return largest


def measure(model: nn.Sequential, cap: int | None, images: Tensor, rounds: int) -> Table:
    """One table: the bounds and what inputs reach, with at most ``cap`` spikes per step."""
    for layer in model:
        if isinstance(layer, snn.IAF):
            layer.max_spikes_per_step = cap
    reset(model)
    counter = fxsynops.SynOpsCounter(model, torch.zeros(20, TIMESTEPS, 1, 28, 28), layout="NT")
    start = time.perf_counter()
    bound = counter.analysis.upper_bound()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        for batch in images.split(20):
            reset(model)
            counter(torch.bernoulli(batch[:, None].expand(-1, TIMESTEPS, -1, -1, -1)))
    mean = {row.connection.synapse: row.synops / len(images) for row in counter.counts.rows}
    largest = attacked(counter, rounds)
    spikes = "any number of spikes" if cap is None else f"at most {cap} spike"
    title = f"{spikes} per neuron and step; the bound took {seconds:.2f} s"
    table = Table(title=title, title_justify="left")
    names = "Layer", "Structural", "Charge", "Adversarial", "Digits", "Charge / advers."
    for name in names:
        table.add_column(name, justify="left" if name == "Layer" else "right")
    figures = {row.connection.synapse: (row.structural, row.charge) for row in bound.rows} | {
        "Total": (bound.structural, bound.charge)
    }
    largest["Total"], mean["Total"] = sum(largest.values()), sum(mean.values())
    for name, (structural, charge) in figures.items():
        if name == "Total":
            table.add_section()
        cells = (number(x, 0) for x in (structural, charge, largest[name], mean[name]))
        table.add_row(name, *cells, f"{charge / largest[name]:.2f}")
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="hardly trained, few rounds")
    quick = parser.parse_args().quick
    model = trained(1 if quick else 4, 400 if quick else 1400)
    console = Console(width=100)
    console.print(f"SynOps per sample of {TIMESTEPS} steps")
    for cap in (None, 1):
        console.print(measure(model, cap, digits(1797)[-380:], 2 if quick else 10))


if __name__ == "__main__":
    main()
