"""Counts a model that is sharded over processes, beside the same model as a whole.

    torchrun --nproc-per-node 2 -m tests.count_sharded FILE

Writes to the file what each case has found: SynOps by row, sharded and whole, and how far apart
the gradients are. FSDP2 (``fully_shard``), tensor and sequence parallelism
(``parallelize_module``), both together on four processes, and stages of a pipeline.
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
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
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


class Attention(nn.Module):
    """Of spikes, with as many heads as this process has features for."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(24, 24) for _ in range(4))
        self.x_spikes, self.q_spikes, self.k_spikes = lif(), lif(), lif()
        self.v_spikes, self.spikes = lif(), lif()

    def forward(self, x: Tensor) -> Tensor:
        x = self.x_spikes(x)
        pairs = (self.q, self.q_spikes), (self.k, self.k_spikes), (self.v, self.v_spikes)
        q, k, v = (
            spikes(layer(x)).unflatten(-1, (-1, 6)).transpose(-3, -2) for layer, spikes in pairs
        )
        attended = q @ k.transpose(-2, -1) @ v * 0.25
        return self.out(self.spikes(attended.transpose(-3, -2).flatten(-2)))


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.before, self.a = nn.LayerNorm(24), lif(), nn.Linear(24, 48)
        self.between, self.b = lif(), nn.Linear(48, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self.a(self.before(self.norm(x)))))


class Transformer(nn.Module):
    """Of (steps, samples, tokens, features)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(16, 24), nn.Linear(24, 8)
        self.attentions = nn.ModuleList(Attention() for _ in range(2))
        self.mixings = nn.ModuleList(Mixing() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for attention, mixing in zip(self.attentions, self.mixings, strict=True):
            x = x + attention(x)
            x = x + mixing(x)
        return self.head(x).mean(0)


def data(*tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(4, SAMPLES, *tokens, 16, generator=generator) < 0.5).float()


def parallelize(model: Transformer, mesh: Any, by_token: bool) -> None:
    """Heads and features over the processes; between them all of it, or each its tokens."""
    inside = [f"attentions.{i}.{name}" for i in range(2) for name in "qkv"]
    plan: dict[str, Any] = {name: ColwiseParallel() for name in inside}
    tokens = {"input_layouts": Shard(2)} if by_token else {}
    back = {"output_layouts": Shard(2)} if by_token else {}
    for i in range(2):
        plan[f"attentions.{i}.out"] = RowwiseParallel(**back)
        plan[f"mixings.{i}.a"] = ColwiseParallel(**tokens)
        plan[f"mixings.{i}.b"] = RowwiseParallel(**back)
        if by_token:
            gathered = PrepareModuleInput(input_layouts=Shard(2), desired_input_layouts=Replicate())
            plan[f"attentions.{i}"] = gathered
            plan[f"mixings.{i}.norm"] = SequenceParallel(sequence_dim=2, use_local_output=True)
    if by_token:
        plan["embed"] = RowwiseParallel(input_layouts=Replicate(), **back)
        plan["head"] = ColwiseParallel(**tokens, output_layouts=Replicate())
    parallelize_module(model, mesh, plan)


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
    events: str = "value",
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
    how = {"layout": "TN", "weights": weights, "events": events}
    counter = fxsynops.SynOpsCounter(model, mine, **how)
    if made == "around":
        fully_shard(counter)
    if made == "before":
        shard(model, **options)
    if "mp_policy" in options:
        whole, x = whole.bfloat16(), x.bfloat16()
    single = fxsynops.SynOpsCounter(whole, x, **how)
    step(single, x, 1, alone)
    for _ in range(2):
        step(counter, mine, world, alone)
    far = apart(model, whole)
    try:
        counter.analysis.upper_bound()
        said = ""
    except fxsynops.InputError as error:
        said = str(error)
    assert made != "after" or "a bound looks at every weight" in said
    mine_alone = counter.counts.total
    counts = counter.counts.all_reduce() if world > 1 else counter.counts
    check_states(counter, whole)
    measured = counter.measure([mine])
    assert measured.total == mine_alone
    if made != "around":  # where the counter itself is whole, samples are told apart
        assert measured.per_sample is None
        assert "sharded" in measured.extras.not_apart
    return found(counts, single.counts, far)


def check_states(counter: fxsynops.SynOpsCounter, whole: nn.Module) -> None:
    """States of parameters and of an optimizer are saved and loaded, by the model's own names."""
    saved, expected = get_model_state_dict(counter), get_model_state_dict(whole)
    assert [name.replace("_checkpoint_wrapped_module.", "") for name in saved] == list(expected)
    set_model_state_dict(counter, saved)
    optimizer = torch.optim.Adam(counter.parameters(), lr=0.0)
    optimizer.step()
    state = get_optimizer_state_dict(counter, optimizer)
    assert {"model." + name for name in state["state"]}.isdisjoint(state["state"])
    assert set(state["state"]) <= set(expected)
    some = StateDictOptions(strict=False)  # what got no gradient has no state
    set_optimizer_state_dict(counter, optimizer, state, options=some)


def apart(model: nn.Module, whole: nn.Module, shares: int = 1) -> float:
    """How far gradients are from one process's; each has a part of the batch, or each all of it."""
    most = 0.0
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        expected = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
        if ours.grad is not None:
            grad = ours.grad.full_tensor() if isinstance(ours.grad, DTensor) else ours.grad
            if shares > 1:
                dist.all_reduce(grad)
            far = (grad.to(expected) / shares - expected).abs().max()
            most = max(most, float(far / expected.abs().max().clamp(min=1e-6)))
    return most


def found(counts: fxsynops.Counts, whole: fxsynops.Counts, apart: float) -> dict[str, Any]:
    """All of both: rows with their names, what every neuron has fired, samples, steps."""

    def all_of(counts: fxsynops.Counts) -> Any:
        content = [counts.to_rows(), counts.fired, counts.macs, counts.samples, counts.timesteps]
        return json.loads(json.dumps(content).replace("_checkpoint_wrapped_module.", ""))

    numbers = {"apart": apart, "total": counts.total}
    return {"rows": all_of(counts), "whole": all_of(whole)} | numbers


def parallel(world: int, rank: int, *, by_token: bool = False, **options: Any) -> Any:
    """``parallelize_module``: every process counts the whole."""
    x, whole, model = data(8), Transformer(), Transformer()
    if options.get("weights") == "nonzero":
        for parameter in (*whole.parameters(), *model.parameters()):
            parameter.data[parameter.abs() < 0.05] = 0
    parallelize(model, init_device_mesh("cpu", (world,)), by_token)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", **options)
    single = fxsynops.SynOpsCounter(whole, x, layout="TN", **options)
    step(single, x, 1, False)
    for _ in range(2):
        step(counter, x, 1, False)
    ours, theirs = counter.counts, single.counts
    assert ours.to_rows() == ours.all_reduce().to_rows()
    assert set(ours.rates) == set(theirs.rates)
    assert all(torch.equal(ours.rates[name].rates, theirs.rates[name].rates) for name in ours.rates)
    assert ours.steps == theirs.steps
    assert counter.measure([x]).total == theirs.total
    return found(ours, theirs, apart(model, whole))


def both_ways(world: int, rank: int, *, sharded: bool) -> Any:
    """Pairs of processes work on each forward, of which every pair has other samples."""
    x, whole, model = data(8), Transformer(), Transformer()
    mesh = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("data", "tensors"))
    mine = x.chunk(world // 2, 1)[rank // 2]
    parallelize(model, mesh["tensors"], by_token=False)
    if sharded:
        for block in (*model.attentions, *model.mixings, model):
            fully_shard(block, mesh=mesh["data"])
    counter = fxsynops.SynOpsCounter(model, mine, layout="TN")
    single = fxsynops.SynOpsCounter(whole, x, layout="TN")
    step(single, x, 1, False)
    step(counter, mine, world // 2 if sharded else 1, False)
    check_states(counter, whole)
    far = apart(model, whole, 1 if sharded else world // (world // 2))
    return found(counter.counts.all_reduce(), single.counts, far)


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
    return found(counter.counts.all_reduce(), single.counts, apart(model, whole))


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
    rows, expected = ([m[i] for m in every] for i in (0, 1))
    return {"rows": rows, "whole": expected, "apart": 0.0, "total": sum(rows)}


def refused(world: int) -> list[str]:
    """What is said of tensors that are distributed by hand, and of the first FSDP."""
    model = nn.Sequential(nn.Linear(16, 24), lif(), nn.Linear(24, 5))
    weight = distribute_tensor(model[0].weight, init_device_mesh("cpu", (world,)), [Shard(0)])
    model[0].weight = nn.Parameter(weight)
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
    "values that are not zero": {"made": "after", "events": "nonzero"},
    "mixed precision": {
        "made": "after",
        "mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16),
    },
}


PARALLEL: dict[str, dict[str, Any]] = {
    "tensors": {},
    "tokens": {"by_token": True},
    "tokens, steps and rates": {"by_token": True, "steps": True, "rates": True},
    "tensors, weights that are not zero": {"weights": "nonzero"},
    "tensors, values that are not zero": {"events": "nonzero", "rates": True},
}


def main() -> None:
    rank, world = join()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # FSDP's, of views
    cases = {name: fsdp(world, rank, **case) for name, case in CASES.items()}
    cases |= {name: parallel(world, rank, **case) for name, case in PARALLEL.items()}
    if world > 2:
        cases["data and tensors"] = both_ways(world, rank, sharded=False)
        cases["sharded data and tensors"] = both_ways(world, rank, sharded=True)
    cases["averaged"] = averaged(world, rank)
    cases["pipeline"] = pipeline(world, rank)
    cases["refused"] = refused(world)
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(cases))


if __name__ == "__main__":
    main()
    leave()
