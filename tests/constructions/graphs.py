"""Graphs, points and electrodes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.constructions.parts import LIF, Cell, construction, spike, spikes

T, B, N, C, O = 3, 2, 5, 4, 3  # noqa: E741
EDGES = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3))


def adjacency() -> Tensor:
    a = torch.eye(N)
    for i, j in EDGES:
        a[i, j] = a[j, i] = 1.0
    return a


@construction("graph: convolution by a normalized adjacency", spikes(T, N, C), layout="T")
class Normalized(nn.Module):
    """Symmetric norm; features are mixed, then nodes."""

    def __init__(self) -> None:
        super().__init__()
        a = adjacency()
        d = a.sum(1).pow(-0.5)
        self.register_buffer("a", d[:, None] * a * d[None])
        self.fc1, self.fc2, self.cell = nn.Linear(C, 6), nn.Linear(6, O), Cell()

    def forward(self, x):
        return sum(self.a @ self.fc2(self.cell(self.a @ self.fc1(step))) for step in x) / T


@construction("graph: spikes meet the adjacency first", spikes(T, N, C), layout="T",
              analog=("fc2",))  # fmt: skip
class NeighboursFirst(nn.Module):
    """Rows normalized: a node's spikes reach its neighbours, then the weights."""

    def __init__(self) -> None:
        super().__init__()
        a = adjacency()
        self.a = nn.Parameter(a / a.sum(1, keepdim=True), requires_grad=False)
        self.fc1, self.fc2, self.cell = nn.Linear(C, 6), nn.Linear(6, O), Cell(threshold=0.1)

    def forward(self, x):
        return torch.stack([self.fc2(self.a.mm(self.cell(self.fc1(step)))) for step in x])


@construction("graph: messages gathered and summed by edges", spikes(T, N, C), layout="T")
class Messages(nn.Module):
    """Edges in two rows of indices; messages are scattered by addition."""

    def __init__(self) -> None:
        super().__init__()
        pairs = torch.tensor(EDGES).T
        self.register_buffer("edge_index", torch.cat((pairs, pairs.flip(0)), 1))
        self.fc1, self.fc2, self.cell = nn.Linear(C, 6), nn.Linear(6, O), Cell(threshold=0.1)

    def forward(self, x):
        source, target = self.edge_index
        out = []
        for step in x:
            s = self.cell(self.fc1(step))
            out.append(self.fc2(s + torch.zeros_like(s).index_add(0, target, s[source])))
        return torch.stack(out)


@construction("graph: messages scattered, with the mean of neighbours", spikes(T, N, C), layout="T")
class MeanMessages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        pairs = torch.tensor(EDGES).T
        self.register_buffer("edge_index", torch.cat((pairs, pairs.flip(0)), 1))
        self.own, self.near, self.lif = nn.Linear(C, 6), nn.Linear(C, 6), LIF(threshold=0.1)
        self.fc = nn.Linear(6, O)

    def forward(self, x):
        source, target = self.edge_index
        degree = torch.zeros(N).scatter_add_(0, target, torch.ones(target.shape[0]))
        index = target.view(1, -1, 1).expand(T, -1, C)
        total = torch.zeros_like(x).scatter_add(1, index, x.index_select(1, source))
        y = self.own(x) + self.near(total) / degree.view(1, -1, 1)
        return self.fc(self.lif(y)).mean(0)


@construction("graph: attention over neighbours", spikes(T, N, C), layout="T")
class NeighbourAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.lif, self.fc = nn.Linear(C, 6), LIF(threshold=0.05), nn.Linear(6, O)
        self.left, self.right = nn.Linear(6, 1), nn.Linear(6, 1)
        self.register_buffer("missing", adjacency() == 0)

    def forward(self, x):
        s = self.lif(self.w(x))
        scores = F.leaky_relu(self.left(s) + self.right(s).transpose(1, 2), 0.2)
        attention = scores.masked_fill(self.missing, float("-inf")).softmax(-1)
        return self.fc(self.lif(attention @ s))


@construction("graph: sampled neighbours, step by step", spikes(N, C))
class Sampled(nn.Module):
    """A fixed table of neighbours; their spikes are summed, beside the node's own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor([[1, 4], [0, 2], [1, 3], [2, 4], [3, 0]]))
        self.agg1, self.agg2 = nn.Linear(2 * C, 6), nn.Linear(12, O)

    def forward(self, x):
        s = spike(self.agg1(torch.cat((x, x[self.table].sum(1)), -1)) - 0.05)
        return self.agg2(torch.cat((s, s[self.table].sum(1)), -1))


# Counted right (see test_forms); the oracle does not see sparse products.
@construction("graph: sparse adjacency", spikes(N, C), still_open=True)
class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc1, self.fc2 = adjacency().to_sparse(), nn.Linear(C, 6), nn.Linear(6, O)

    def forward(self, x):
        return self.fc2(torch.sparse.mm(self.a, spike(self.fc1(x) - 0.05)))


@construction("graph: spatio-temporal convolution of a skeleton", spikes(B, C, 6, N), timesteps=6)
class Skeleton(nn.Module):
    """(B, C, T, joints): partitions of the adjacency, then a convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        a = adjacency()
        parts = torch.stack((torch.eye(N), torch.triu(a, 1), torch.tril(a, -1)))
        self.register_buffer("a", parts / 3.0)
        self.mask = nn.Parameter(torch.rand(3, N, N))
        self.gcn, self.tcn = nn.Conv2d(C, 3 * 6, 1), nn.Conv2d(6, 6, (3, 1), padding=(1, 0))
        self.lif, self.fc = LIF(threshold=0.05), nn.Linear(6, O)

    def neuron(self, x):
        return self.lif(x.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)

    def forward(self, x):
        y = self.gcn(x).unflatten(1, (3, 6))
        y = torch.einsum("bkctv,kvw->bctw", y, self.a * self.mask)
        s = self.neuron(self.tcn(self.neuron(y)) + 0.1)
        return self.fc(s.mean((2, 3)) * 30)


@construction("graph: points through shared layers, the largest of all",
              lambda: (torch.randn(B, 3, 8),), timesteps=T, input_events=False)  # fmt: skip
class Points(nn.Module):
    """A learned transform of the input, 1x1 convolutions, a maximum over points."""

    def __init__(self) -> None:
        super().__init__()
        self.t1, self.t2 = nn.Conv1d(3, 4, 1), nn.Linear(4, 9)
        self.c1, self.b1, self.c2, self.b2 = (
            nn.Conv1d(3, 6, 1), nn.BatchNorm1d(6), nn.Conv1d(6, 8, 1), nn.BatchNorm1d(8)
        )  # fmt: skip
        self.n1, self.n2, self.n3 = Cell(), Cell(), Cell(threshold=0.05)
        self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, O)

    def forward(self, x):
        move = self.t2(self.t1(x).relu().max(-1)[0]).view(-1, 3, 3) + torch.eye(3)
        x, out = torch.bmm(move, x), 0.0
        for _ in range(T):
            y = self.n2(self.b2(self.c2(self.n1(self.b1(self.c1(x))))))
            out = out + self.fc2(self.n3(self.fc1(torch.max(y, 2, keepdim=True)[0].squeeze(2))))
        return out / T


@construction("graph: points grouped by their nearest, cdist", lambda: (torch.randn(B, 8, 3),),
              timesteps=1, input_events=False)  # fmt: skip
class GroupedByDistance(nn.Module):
    """Neighbours of every point by distance; pairs of their spikes go through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.edge, self.fc = nn.Linear(3, 6), nn.Linear(12, 6), nn.Linear(6, O)

    def distance(self, x):
        return torch.cdist(x, x)

    def forward(self, x):
        s = spike(self.embed(x))
        index = self.distance(x).topk(3, largest=False).indices
        rows = torch.arange(x.shape[0]).view(-1, 1, 1)
        near = s[rows, index]
        own = s.unsqueeze(2).expand_as(near)
        return self.fc(spike(self.edge(torch.cat((own, near), -1))).amax(2))


@construction("graph: points grouped by their nearest", lambda: (torch.randn(B, 8, 3),),
              timesteps=1, input_events=False)  # fmt: skip
class Grouped(GroupedByDistance):
    def distance(self, x):
        return (x.unsqueeze(2) - x.unsqueeze(1)).square().sum(-1)


@construction("graph: electrodes, filters in time and then in space", spikes(B, 1, 4, 16),
              timesteps=16, units={"fc": 0.5 / 0.75})  # fmt: skip
class Electrodes(nn.Module):
    """Temporal filters, depthwise spatial ones, separable ones; weights' norm is kept below one."""

    def __init__(self) -> None:
        super().__init__()
        self.temporal, self.bn1 = nn.Conv2d(1, 4, (1, 5), padding="same"), nn.BatchNorm2d(4)
        self.spatial, self.bn2 = nn.Conv2d(4, 8, (4, 1), groups=4), nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=8)
        self.point, self.lif, self.fc = nn.Conv2d(8, 6, 1), LIF(), nn.Linear(24, O)
        self.drop = nn.Dropout(0.25)

    def neuron(self, x):
        return self.lif(x.permute(3, 0, 1, 2)).permute(1, 2, 3, 0)

    def forward(self, x):
        self.spatial.weight.data = torch.renorm(self.spatial.weight.data, p=2, dim=0, maxnorm=1.0)
        y = self.neuron(self.bn1(self.temporal(x)))
        y = F.avg_pool2d(self.neuron(self.bn2(self.spatial(y))), (1, 2))
        y = F.avg_pool2d(self.neuron(self.point(self.depth(y)) + 0.1), (1, 2))
        return self.fc(self.drop(y).flatten(1))
