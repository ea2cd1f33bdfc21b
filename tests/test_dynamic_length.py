"""Forwards whose length the network itself decides: each way is recorded once, and counted.

The oracle is :mod:`tests.watched`, on the same forward.
"""

from __future__ import annotations

import copy

import pytest
import snntorch
import torch
from torch import nn

import fxsynops
from tests.networks import Heaviside
from tests.watched import watch

MOST = 10


def inputs(count=24, samples=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(samples, 6, generator=generator) < 0.5).float() for _ in range(count)]


class Exit(nn.Module):
    """Integrates evidence until it is sure."""

    def __init__(self, decide, spiking=True):
        super().__init__()
        self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 4)
        self.lif = snntorch.Leaky(0.9, threshold=0.3) if spiking else None
        self.decide = decide
        with torch.no_grad():
            self.out.weight.mul_(2)

    def forward(self, x):
        v = self.lif.init_leaky() if self.lif is not None else 0
        total = 0
        for _ in range(MOST):
            if self.lif is not None:
                s, v = self.lif(self.fc(x), v)
            else:
                v = 0.9 * v + self.fc(x)
                s = Heaviside.apply(v - 0.3)
                v = v - 0.3 * s
            total = total + self.out(s)
            if self.decide(total):
                break
        return total


DECISIONS = {
    "a tensor of one bool": lambda out: out.softmax(-1).max() > 0.6,
    "item, compared": lambda out: out.softmax(-1).max().item() > 0.6,
    "item, the other way round": lambda out: out.softmax(-1).max().item() > 0.6,
    "float, compared": lambda out: float(out.softmax(-1).max().item()) >= 0.6,
    "item of a bool": lambda out: (out.softmax(-1).max() > 0.6).item(),
    "entropy": lambda out: -(out.softmax(-1) * out.log_softmax(-1)).sum().item() < 1.0,
    "class": lambda out: int(out.argmax()) == 2,
    "all of a batch": lambda out: bool((out.softmax(-1).amax(-1) > 0.5).all()),
    "sum and product of numbers": lambda out: (out.max().item() - out.min().item()) * 2 > 3,
}


def agrees(counter, model, x):
    """The pass counts what the oracle sees, and returns what the model returns."""
    out = counter(x)
    steps = counter.window.timesteps
    theirs, synops, _ = watch(model, x)
    assert torch.equal(out, theirs)
    found = {name: n.item() for name, n in counter.per_synapse.items() if n.item()}
    assert found == {name: n for name, n in synops.items() if n}
    return steps


@pytest.mark.parametrize("name", DECISIONS)
@pytest.mark.parametrize("spiking", [True, False], ids=["library", "own"])
def test_each_length_is_counted(name, spiking):
    torch.manual_seed(1)
    model, data = Exit(DECISIONS[name], spiking), inputs()
    counter = fxsynops.SynOpsCounter(model, data[0])
    lengths = [agrees(counter, model, x) for x in data]
    assert len(set(lengths)) > 1
    assert counter.counts.samples == len(data)
    assert counter.counts.timesteps == pytest.approx(sum(lengths) / len(data))
    assert counter.counts.lengths == {n: lengths.count(n) for n in set(lengths)}
    (ways,) = counter._replays.values()
    if name not in ("float, compared", "class"):  # … which are another way for each number
        assert len(ways) <= len(set(lengths)) + spiking  # whose first state is another one
    again = [agrees(counter, model, x) for x in data]
    assert again == lengths
    assert len(counter._replays) == 1


def test_a_data_set_tells_how_long_each_sample_took():
    torch.manual_seed(1)
    model, data = Exit(DECISIONS["item, compared"]), inputs()
    counter = fxsynops.SynOpsCounter(model, data[0], steps=True)
    lengths, synops = [], []
    for x in data:
        counter(x)
        lengths.append(counter.window.timesteps)
        synops.append(counter.synops.item())
    counts = counter.measure(data)
    assert counts.per_sample.lengths == {n: lengths.count(n) for n in set(lengths)}
    assert (counts.per_sample.min, counts.per_sample.max) == (min(synops), max(synops))
    assert counts.total == sum(synops)
    assert counts.steps.samples == tuple(
        sum(n > step for n in lengths) for step in range(max(lengths))
    )
    assert f"Steps of a sample: {min(lengths)} to {max(lengths)}" in str(counts)
    both = counts + counts
    assert both.lengths == {n: 2 * lengths.count(n) for n in set(lengths)}


def test_a_number_of_steps_that_the_network_computes():
    class Halting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.ask, self.out = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 2)

        def forward(self, x):
            s = Heaviside.apply(self.fc(x))
            steps = int(self.ask(s).abs().mul(20).round().item()) % 7
            for _ in range(steps):
                s = Heaviside.apply(self.fc(x) + s)
            return self.out(s)

    torch.manual_seed(3)
    model, data = Halting(), inputs()
    counter = fxsynops.SynOpsCounter(model, data[0])
    for x in data:
        agrees(counter, model, x)
    (ways,) = counter._replays.values()
    assert len(ways) > 3


class Remembers(nn.Module):
    """States in attributes, buffers and lists, and random numbers, all before it decides."""

    def __init__(self):
        super().__init__()
        self.fc, self.out, self.drop = nn.Linear(6, 8), nn.Linear(8, 2), nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(8)
        self.v, self.calls, self.log = torch.zeros(8), 0, []
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.v = 0.5 * self.v.detach() + self.norm(self.fc(self.drop(x)))[0]
        self.seen += self.v.detach().sum()
        self.log = [*self.log[-1:], self.v.detach()]
        s = Heaviside.apply(self.v - 0.2).unsqueeze(0)
        y = self.out(s)
        if s.sum() % 2 == 0:
            y = y + self.out(s)
        return y


def test_what_a_forward_has_changed_before_it_went_another_way():
    torch.manual_seed(0)
    ours, data = Remembers(), inputs(16, samples=4)
    theirs = copy.deepcopy(ours)
    counter = fxsynops.SynOpsCounter(ours, data[0])
    ways = set()
    for i, x in enumerate(data):
        outs = []
        for run in (counter, theirs):
            torch.manual_seed(i)
            outs.append((run(x), torch.rand(1)))
        assert torch.equal(outs[0][0], outs[1][0])
        assert torch.equal(outs[0][1], outs[1][1])  # as many random numbers were drawn
        ways.add(tuple(counter.latest.specialized))
        assert ours.calls == theirs.calls
        for name in ("v", "seen"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        assert all(torch.equal(a, b) for a, b in zip(ours.log, theirs.log, strict=True))
        assert torch.equal(ours.norm.running_mean, theirs.norm.running_mean)
        assert ours.norm.num_batches_tracked == theirs.norm.num_batches_tracked
    assert len(ways) > 1


def test_gradients_are_those_of_the_way_that_was_taken():
    torch.manual_seed(1)
    ours, data = Exit(DECISIONS["item, compared"]), inputs()
    theirs = copy.deepcopy(ours)
    counter = fxsynops.SynOpsCounter(ours, data[0])
    for x in data:
        ours.zero_grad(), theirs.zero_grad()
        counter(x).sum().backward()
        theirs(x).sum().backward()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad) if a.grad is not None else b.grad is None


def test_what_the_input_alone_decides_is_an_error():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x):
            y = self.fc(x)
            return y + self.fc(x) if x.sum() > 3 else y

    counter = fxsynops.SynOpsCounter(Gated(), torch.ones(1, 6))
    with pytest.raises(fxsynops.SpecializationError, match="branches on data"):
        counter(torch.zeros(1, 6))
    assert counter.counts.samples == 0


def test_a_number_that_the_model_computes_with_is_another_way_each_time():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x):
            y = self.fc(x)
            return self.out(Heaviside.apply(y)) * y.mean().item()

    torch.manual_seed(0)
    model, data = Scaled(), inputs(40)
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 6))
    with pytest.warns(UserWarning, match=r"test_dynamic_length\.py:\d+.*each forward"):
        assert [agrees(counter, model, x) for x in data] == [1] * 40
    assert sum(map(len, counter._replays.values())) <= 16  # more are not kept


def test_a_data_set_of_batches_whose_length_each_batch_decides():
    torch.manual_seed(1)
    model, data = Exit(DECISIONS["all of a batch"]), inputs(12, samples=3)
    counter = fxsynops.SynOpsCounter(model, data[0])
    total, lengths = 0, []
    for x in data:
        lengths.append(agrees(counter, model, x))
        total += counter.synops.item()
    counts = counter.measure(data)
    assert (counts.total, counts.samples) == (total, 36)
    assert counts.lengths == {n: 3 * lengths.count(n) for n in set(lengths)}
    assert counts.per_sample is None  # other samples beside it, another length
    assert "which sample" in counts.extras.not_apart


def test_what_a_forward_has_written_to_its_inputs_before_it_went_another_way():
    class Doubles(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x):
            x.mul_(2)
            y = self.out(Heaviside.apply(self.fc(x)))
            return y + self.out(Heaviside.apply(self.fc(x))) if y.sum() > 0 else y

    torch.manual_seed(1)
    model, data = Doubles(), inputs(12, seed=4)
    counter = fxsynops.SynOpsCounter(model, data[0].clone())
    ways = set()
    for x in data:
        ours, theirs = x.clone(), x.clone()
        assert torch.equal(counter(ours), model(theirs))
        assert torch.equal(ours, theirs)
        again = bool(model.out(Heaviside.apply(model.fc(2 * x))).sum() > 0)
        assert counter.per_synapse["fc"].item() == 8 * x.sum() * (1 + again)
        ways.add(counter.latest.specialized)
    assert len(ways) == 2


def test_a_forward_that_has_written_to_a_parameter_is_not_run_again():
    class Learns(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x):
            with torch.no_grad():
                self.fc.weight.add_(0.01)
            y = self.out(Heaviside.apply(self.fc(x)))
            return y + self.out(Heaviside.apply(self.fc(x))) if y.sum() > 0 else y

    torch.manual_seed(1)
    counter = fxsynops.SynOpsCounter(Learns(), inputs()[0])

    def run():
        for x in inputs(12, seed=4):
            counter(x)

    with pytest.raises(fxsynops.SpecializationError, match="branches on data"):
        run()
