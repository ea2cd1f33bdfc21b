"""Trains on digits with a SynOps loss, on one process or many, and writes the weights to a file.

    torchrun --nproc-per-node 2 -m tests.train_digits FILE

All processes together see the same global batches, whatever their number.
"""

from __future__ import annotations

import sys

import torch
from torch.nn.parallel import DistributedDataParallel

import fxsynops
from fxsynops.cli.demo import digits
from tests.count_digits import join, leave, network

BATCH, STEPS = 8, 5


def main() -> None:
    (rank, world), model = join(), network()
    images = (digits(BATCH * STEPS) * 3).round()
    counter = fxsynops.SynOpsCounter(model, images[:1])
    trained = DistributedDataParallel(counter) if world > 1 else counter
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
    for batch in images.split(BATCH):
        y = trained(batch[rank::world])
        # Linear in the samples, so that the mean over processes is the loss of the global batch.
        loss = y.square().mean() + counter.synops / (counter.window.samples * 1e4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    counts = counter.counts.all_reduce() if world > 1 else counter.counts
    if rank == 0:
        torch.save({"weights": model.state_dict(), "total": counts.total}, sys.argv[1])


if __name__ == "__main__":
    main()
    leave()  # now that DistributedDataParallel is gone
