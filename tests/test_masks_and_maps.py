"""Events beside analog values, pulled back through anything: against doing it to counts."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
from tests.test_worths import MOVES, OUT, drawn

MERGES = {
    "added to its mirror image": lambda v: v + v.flip(1),
    "added to its first": lambda v: v + v[:, :1],
    "summed": lambda v: v.view(12, 2, 3).sum(1).repeat(1, 2),
    "averaged": lambda v: F.avg_pool1d(v[:, None], 3, 1, 1, count_include_pad=True)[:, 0],
    "accumulated": lambda v: v.cumsum(1),
    "mean": lambda v: v.mean(1, keepdim=True).expand(12, 6),
}
NOTHING = torch.zeros(12, 6)
SEVERAL = {name: f for name, f in MOVES.items() if name != "gather"}  # which is a gate


class Heads(nn.Module):
    """A layer behind each of some functions of spikes beside analog values."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions
        self.heads = nn.ModuleList(nn.Linear(6, OUT) for _ in functions)

    def both(self, x):
        return torch.cat([x[:, :3], torch.sigmoid(x[:, 3:])], 1)

    def forward(self, x):
        v = self.both(x)
        return [head(f(v)) for f, head in zip(self.functions, self.heads, strict=True)]


def counted(model: nn.Module, x: Tensor, **options) -> tuple[list[float], list[float]]:
    """SynOps and multiply-accumulates of each head in one pass."""
    counter = fxsynops.SynOpsCounter(model, x, **options)
    counter(x)
    macs = {row.synapse: row.macs * len(x) for row in counter.analysis.dense}
    names = [f"heads.{i}" for i in range(len(model.heads))]
    synops = {name: float(n.detach()) for name, n in counter.per_synapse.items()}
    return [synops.get(n, 0.0) for n in names], [float(macs.get(n, 0)) for n in names]


def expected(f, x: Tensor) -> tuple[float, float]:
    """The same by hand: counts go where values go, and what analog values touch is analog."""
    ones = torch.ones_like(x)
    analog = f(torch.cat([NOTHING[:, :3], ones[:, 3:]], 1)) != 0
    events = f(torch.cat([x[:, :3], NOTHING[:, 3:]], 1)) * ~analog
    return float(events.sum()) * OUT, float(analog.sum()) * OUT


def test_moves_keep_events_and_analog_values_apart():
    x = drawn(0, 3, seed=1)
    found = counted(Heads(*SEVERAL.values()), x)
    by_hand = list(zip(*(expected(f, x) for f in SEVERAL.values()), strict=True))
    for what, ours, theirs in zip(("synops", "macs"), found, by_hand, strict=True):
        assert dict(zip(SEVERAL, ours, strict=True)) == dict(zip(SEVERAL, theirs, strict=True)), (
            what
        )


@pytest.mark.parametrize("seed", range(4))
def test_chains_keep_events_and_analog_values_apart(seed):
    draw = random.Random(seed)
    plain = {"added to its mirror image", "added to its first", "summed", "accumulated"}
    parts = [*SEVERAL.values(), *(f for name, f in MERGES.items() if name in plain)]
    chains = [draw.choices(parts, k=3) for _ in range(6)]

    def along(chain):
        def f(v):
            for part in chain:
                v = part(v)
            return v

        return f

    functions, x = list(map(along, chains)), drawn(0, 2, seed)
    found = counted(Heads(*functions), x)
    by_hand = list(zip(*(expected(f, x) for f in functions), strict=True))
    assert [list(found[0]), list(found[1])] == [list(by_hand[0]), list(by_hand[1])]
