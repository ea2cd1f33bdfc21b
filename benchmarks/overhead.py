"""What counting costs: counted / plain forward passes of the how-to's SNN, interleaved.

    python benchmarks/overhead.py [--pairs 30]

Prints the median of the pairwise ratios and their quartiles, beside sinabs' own hooks if sinabs is
installed. Two threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import fxsynops
from fxsynops import demo


def seconds(run: Callable[[], object]) -> float:
    """One call, timed."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratios(plain: Callable, other: Callable, pairs: int) -> list[float]:
    """Other / plain, A B A B …, after a warm-up."""
    for _ in range(3):
        plain(), other()
    return [seconds(other) / seconds(plain) for _ in range(pairs)]


def network(library: str) -> nn.Sequential:
    """The how-to's SNN on five samples."""
    if library == "fxsynops":
        return demo.network(5)
    import sinabs.layers as layers

    model = demo.network(5)
    for i, layer in enumerate(model):
        if isinstance(layer, fxsynops.nn.IAFSqueeze):
            model[i] = layers.IAFSqueeze(batch_size=5)
    return model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(2)
    torch.manual_seed(0)
    x = (torch.rand(5, 10, 1, 28, 28) < 0.3).float()
    table = Table("layers", "counted by", "median", "quartiles", title="counted / plain, inference")
    for library in ("fxsynops", "sinabs"):
        try:
            model = network(library).eval()
        except ImportError:
            continue
        counter = fxsynops.SynOpsCounter(model, x, layout="NT")
        rows = {"fxsynops": counter}
        if library == "sinabs":
            import sinabs.hooks

            hooked = network(library).eval()
            hooked.load_state_dict(model.state_dict(), strict=False)
            sinabs.hooks.register_synops_hooks(hooked)
            rows["sinabs' hooks"] = hooked
        for name, other in rows.items():
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = ratios(lambda m=model: m(x), lambda m=other: m(x), pairs)
            low, median, high = statistics.quantiles(found, n=4)
            table.add_row(library, name, f"{median:.3f}", f"{low:.3f} to {high:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
