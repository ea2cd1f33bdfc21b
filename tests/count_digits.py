"""Counts the digits of scikit-learn on one process or many, and writes the totals to a file.

    torchrun --nproc-per-node 2 -m tests.count_digits FILE

Each process takes every n-th image; the last batch may be smaller on some of them. A metric of
torchmetrics counts beside.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

import fxsynops
import fxsynops.nn as snn
from fxsynops.cli.demo import digits
from fxsynops.metrics import SynOpsMetric

IMAGES, BATCH = 45, 8


def join() -> tuple[int, int]:
    """This process's number, and how many there are; if many, they form a group."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("gloo")
    return rank, world


def leave() -> None:
    """The end of a process of a group: at once, for gloo's threads may abort a slower one."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
        sys.stdout.flush()
        os._exit(0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 5), snn.NeuromorphicReLU(), nn.AvgPool2d(4))
    return model.extend([nn.Flatten(), nn.Linear(144, 10)])


def main() -> None:
    (rank, world), model = join(), network()
    images = (digits(IMAGES) * 3).round()[rank::world]
    counter = fxsynops.SynOpsCounter(model, images[:1])
    metric = SynOpsMetric(counter)
    counter.register_forward_hook(lambda *_: metric.update(counter))
    counts = counter.measure(DataLoader(images, BATCH))
    counts = counts.all_reduce() if world > 1 else counts
    spread, mean = counts.per_sample, metric.compute()["synops"]  # of all processes
    if rank == 0:
        found = {
            "samples": counts.samples,
            "total": counts.total,
            "rows": counts.to_rows(),
            "spread": (round(spread.mean, 6), round(spread.std, 6), spread.min, spread.max),
            "metric": float(mean) * counts.samples,
        }
        Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    leave()
    leave()
