"""Counts a model that is sharded over processes, beside the same model as a whole.

    torchrun --nproc-per-node 2 -m tests.count_sharded FILE

Writes to the file what each case has found: SynOps by row, sharded and whole, and how far apart
the gradients are. FSDP2 (``fully_shard``), and stages of a pipeline.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import fxsynops
from fxsynops.nn import NeuromorphicReLU
from tests.count_digits import join, leave

SAMPLES = 8


def lif() -> nn.Module:
    return neuron.LIFNode(step_mode="m", v_threshold=0.2)


class Block(nn.Module):
    """A residual block, as of a spiking transformer."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.a, self.first, self.b, self.second = nn.Linear(24, 48), lif(), nn.Linear(48, 24), lif()
        self.again = again

    def inner(self, x: Tensor) -> Tensor:
        return self.second(self.b(self.first(self.a(x))))

    def forward(self, x: Tensor) -> Tensor:
        return x + (checkpoint(self.inner, x, use_reentrant=False) if self.again else self.inner(x))


class Net(nn.Module):
    """Residual blocks, and one at their side whose output nobody looks at."""

    def __init__(self, checkpointed: str = "", side: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.neuron = nn.Linear(16, 24), lif()
        self.side = Block(False) if side else nn.Identity()
        blocks = [Block(checkpointed == "in the forward") for _ in range(3)]
        wrapped = map(checkpoint_wrapper, blocks) if checkpointed == "around" else blocks
        self.blocks, self.head = nn.ModuleList(wrapped), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.neuron(self.embed(x))
        self.side(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(0))


def data() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(4, SAMPLES, 16, generator=generator) < 0.5).float()


def shard(model: Net, **options: Any) -> Net:
    for block in (*model.blocks, model.side):
        fully_shard(block, **options)
    return fully_shard(model, **options)


def step(counter: fxsynops.SynOpsCounter, x: Tensor, scale: float, alone: bool) -> None:
    """One training step, of a loss of SynOps (alone, or beside another one)."""
    functional.reset_net(counter)
    counter.clear()
    counter.zero_grad()
    y = counter(x)
    loss = counter.synops / 1e3 + (0.0 if alone else y.pow(2).sum())
    (scale * loss).backward()


def fsdp(
    world: int,
    rank: int,
    *,
    made: str,
    checkpointed: str = "",
    alone=False,
    weights: str = "all",
    **options,
) -> Any:
    """Counts and gradients of a sharded model, and of the whole one."""
    x, whole, model = data(), Net(), Net(checkpointed)
    if weights == "nonzero":
        for parameter in (*whole.parameters(), *model.parameters()):
            parameter.data[parameter.abs() < 0.05] = 0
    mine = x.chunk(world, 1)[rank]
    if made == "after":
        shard(model, **options)
    counter = fxsynops.SynOpsCounter(model, mine, layout="TN", weights=weights)
    if made == "around":
        fully_shard(counter)
    if made == "before":
        shard(model, **options)
    if "mp_policy" in options:
        whole, x = whole.bfloat16(), x.bfloat16()
    single = fxsynops.SynOpsCounter(whole, x, layout="TN", weights=weights)
    step(single, x, 1, alone)
    for _ in range(2):
        step(counter, mine, world, alone)
    apart = 0.0
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        g = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
        if ours.grad is not None:
            far = (ours.grad.full_tensor().to(g) - g).abs().max() / g.abs().max().clamp(min=1e-6)
            apart = max(apart, float(far))
    try:
        counter.analysis.upper_bound()
        said = ""
    except fxsynops.InputError as error:
        said = str(error)
    assert made != "after" or "a bound looks at every weight" in said
    mine_alone = counter.counts.total
    counts = counter.counts.all_reduce() if world > 1 else counter.counts
    names = [
        name.replace("_checkpoint_wrapped_module.", "") for name in get_model_state_dict(counter)
    ]
    assert names == list(get_model_state_dict(whole))
    measured = counter.measure([mine])
    assert measured.total == mine_alone
    if made != "around":  # where the counter itself is whole, samples are told apart
        assert measured.per_sample is None
        assert "sharded" in measured.extras.not_apart
    return {
        "samples": counts.samples,
        "rows": [row.synops for row in counts.rows],
        "whole": [row.synops for row in single.counts.rows],
        "apart": apart,
    }


def averaged(world: int, rank: int) -> Any:
    """``DistributedDataParallel`` around a counter, and a loss of SynOps alone."""
    x, whole, model = data(), Net(side=False), Net(side=False)  # it finishes no unused ones
    mine = x.chunk(world, 1)[rank]
    counter = fxsynops.SynOpsCounter(model, mine, layout="TN")
    single, wrapped = (
        fxsynops.SynOpsCounter(whole, x, layout="TN"),
        DistributedDataParallel(counter),
    )
    step(single, x, 1, True)
    for _ in range(2):
        functional.reset_net(model)
        counter.clear()
        wrapped.zero_grad()
        wrapped(mine)
        (world * counter.synops / 1e3).backward()
    pairs = zip(model.parameters(), whole.parameters(), strict=True)
    apart = max(
        float((p.grad - (0 if q.grad is None else q.grad)).abs().max())
        / (1e-6 if q.grad is None else float(q.grad.abs().max()) + 1e-6)
        for p, q in pairs
    )
    rows = [row.synops for row in counter.counts.all_reduce().rows]
    return {"rows": rows, "whole": [row.synops for row in single.counts.rows], "apart": apart}


def pipeline(world: int, rank: int) -> Any:
    """Each stage counts its own rows."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(16, 24), NeuromorphicReLU()]
    for _ in range(world - 1):
        layers += [nn.Linear(24, 24), NeuromorphicReLU()]
    for layer in layers[::2]:
        nn.init.uniform_(layer.weight, 0, 0.3)
    x, model = data()[0], nn.Sequential(*layers)
    seen = [x]
    with torch.no_grad():
        for i in range(0, len(layers), 2):
            seen.append(model[i : i + 2](seen[-1]))
    ours = fxsynops.SynOpsCounter(model[2 * rank : 2 * rank + 2], seen[rank][:2])
    stage = PipelineStage(
        ours, rank, world, torch.device("cpu"),
        input_args=(seen[rank][:2],), output_args=seen[rank + 1][:2],
    )  # fmt: skip
    schedule = ScheduleGPipe(stage, n_microbatches=SAMPLES // 2)
    schedule.step(x) if rank == 0 else schedule.step()
    mine = [ours.counts.total, float(seen[rank].sum()) * 24]
    every: list[Any] = [None] * world
    dist.all_gather_object(every, mine)
    return {"rows": [m[0] for m in every], "whole": [m[1] for m in every], "apart": 0.0}


def refused(world: int) -> list[str]:
    """What is said of tensor parallelism, and of the first FSDP."""
    model = nn.Sequential(nn.Linear(16, 24), lif(), nn.Linear(24, 5))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, init_device_mesh("cpu", (world,)), plan)
    said = []
    for one in (model, FullyShardedDataParallel(Net(), device_id=torch.device("cpu"))):
        try:
            fxsynops.analyze(one, data(), layout="TN")
        except fxsynops.FxSynopsError as error:
            said.append(str(error))
    return said


CASES = {
    "sharded before": {"made": "after"},
    "sharded later": {"made": "before"},
    "sharded around the counter": {"made": "around", "alone": True},
    "SynOps alone": {"made": "after", "alone": True},
    "checkpointed in the forward": {"made": "after", "checkpointed": "in the forward"},
    "checkpointed around": {"made": "before", "checkpointed": "around", "alone": True},
    "kept whole after a forward": {"made": "after", "reshard_after_forward": False},
    "weights that are not zero": {"made": "after", "weights": "nonzero"},
    "mixed precision": {
        "made": "after",
        "mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16),
    },
}


def main() -> None:
    rank, world = join()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # FSDP's, of views
    found = {name: fsdp(world, rank, **case) for name, case in CASES.items()}
    found["averaged"] = averaged(world, rank)
    found["pipeline"] = pipeline(world, rank)
    found["refused"] = refused(world)
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    leave()
