"""Analyses of spiking transformers that no machine here could run: seconds, memory, time per node.

    python -m benchmarks.big [--largest 70]

Decoders from 0.1 to 70 billion parameters on the ``meta`` device, where nothing has values: fan-out
and structural bound, for 2 steps of 128 tokens. Each model is analyzed in a process of its own,
whose peak of memory is that of importing torch with the analysis. The time per node should not grow
with the number of blocks.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import fxsynops
from fxsynops.nn import NeuromorphicReLU

# Billions of parameters, by name: blocks, width.
SIZES = {"0.1": (12, 768), "1.3": (24, 2048), "7": (32, 4096), "13": (40, 5120), "70": (80, 8192)}
STEPS, TOKENS = 2, 128


class Block(nn.Module):
    """Spiking attention, and a gated unit, each behind spikes, with residual sums."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width * 8 // 3
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.gate = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)
        self.first, self.second = NeuromorphicReLU(), NeuromorphicReLU()
        self.fire_q, self.fire_k, self.fire_v, self.mixed = (NeuromorphicReLU() for _ in range(4))
        self.fire_up, self.fire_gate = NeuromorphicReLU(), NeuromorphicReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Samples, steps, tokens, width."""
        s = self.first(x)
        q, k, v = self.fire_q(self.q(s)), self.fire_k(self.k(s)), self.fire_v(self.v(s))
        x = x + self.o(self.mixed(q @ (k.transpose(-2, -1) @ v)))
        s = self.second(x)
        return x + self.down(self.fire_up(self.up(s)) * self.fire_gate(self.gate(s)))


def analyze(size: str) -> None:
    """One model, in this process; prints its figures."""
    blocks, width = SIZES[size]
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(64, width), *(Block(width) for _ in range(blocks)))
        x = torch.ones(1, STEPS, TOKENS, 64)
    with torch.device("meta"):  # what torch loads for its first operations there
        fxsynops.analyze(Block(8), torch.ones(1, 2, 4, 8), layout="NT", input_events=True)
    parameters = sum(p.numel() for p in model.parameters()) / 1e9
    began = time.perf_counter()
    analysis = fxsynops.analyze(model, x, layout="NT", input_events=True)
    seconds = time.perf_counter() - began
    synapses = sum(connection.fanout.total for connection in analysis.connections)
    nodes = len(analysis.trace.graph.nodes)
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = len(analysis.connections)
    print(parameters, nodes, rows, synapses, seconds, 1e6 * seconds / nodes, gib)


def main() -> None:
    """All of them, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--largest", type=float, default=70, metavar="B", help="parameters at most")
    parser.add_argument("--one", choices=SIZES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        analyze(options.one)
        return
    table = Table("billions", "nodes", "connections", "synapses", "s", "µs / node", "peak (GiB)")
    for size in SIZES:
        if float(size) <= options.largest:
            command = [sys.executable, "-m", "benchmarks.big", "--one", size]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            b, nodes, rows, synapses, seconds, each, gib = map(float, done.stdout.split())
            cells = (f"{b:.2f}", f"{nodes:,.0f}", f"{rows:,.0f}", f"{synapses:.3g}")
            table.add_row(*cells, f"{seconds:.2f}", f"{each:,.0f}", f"{gib:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
