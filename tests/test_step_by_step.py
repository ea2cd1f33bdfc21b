"""``layout="step"``: a model whose forward is one step counts as the same model in a loop."""

from __future__ import annotations

import norse.torch as norse
import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, neuron
from torch import nn

import fxsynops
from fxsynops.neurons import reset_states


class Leaky(nn.Module):
    """snntorch, hidden states, a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 5)
        self.lif1 = snntorch.Leaky(0.9, init_hidden=True)
        self.lif2 = snntorch.RLeaky(0.8, linear_features=5, init_hidden=True)

    def forward(self, x):
        return self.lif2(self.fc2(self.lif1(self.fc1(x))))


class OneMode(nn.Sequential):
    """spikingjelly in single-step mode."""

    def __init__(self):
        super().__init__(nn.Linear(6, 8), neuron.LIFNode(), nn.Linear(8, 5), neuron.IFNode())


class Membrane(nn.Module):
    """A membrane in an attribute, and spikes that come back at the next step."""

    def __init__(self):
        super().__init__()
        self.fc, self.back, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.v = self.s = None

    def forward(self, x):
        current = self.fc(x)
        if self.s is not None:
            current = current + self.back(self.s)
        self.v = current if self.v is None else 0.8 * self.v * (1 - self.s) + current
        self.s = (self.v > 0.3).float()
        return self.head(self.s)

    def reset(self):
        self.v = self.s = None


class Cells(nn.Module):
    """norse: states go in and come out."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif, self.head = nn.Linear(6, 8), norse.LIFCell(), nn.Linear(8, 2)

    def forward(self, x, state=None):
        s, state = self.lif(4 * self.fc(x), state)
        return self.head(s), state


class Loop(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        if isinstance(self.step, Cells):
            found, state = [], None
            for now in x:
                y, state = self.step(now, state)
                found.append(y)
            return torch.stack(found)
        return torch.stack([self.step(now) for now in x])


MODELS = [Leaky, OneMode, Membrane, Cells]
TIMES = 7


def restart(model):
    reset_states(model)
    if isinstance(model, Membrane):
        model.reset()


def batches():
    generator = torch.Generator().manual_seed(3)
    sizes = (4, 4, 3)
    return [(torch.rand(TIMES, n, 6, generator=generator) < 0.5).float() * 2 for n in sizes]


def made(kind, **options):
    torch.manual_seed(1)
    model = kind()
    data = batches()
    restart(model)
    by_step = fxsynops.SynOpsCounter(model, data[0][0], layout="step", **options)
    in_loop = fxsynops.SynOpsCounter(Loop(model), data[0], layout="TN", **options)
    return model, by_step, in_loop


def run(kind, **options):
    """Counts of both, and the SynOps of every step."""
    model, by_step, in_loop = made(kind, **options)
    each = []
    for x in batches():
        restart(model)
        state = None
        for now in x:
            if kind is Cells:
                _, state = by_step(now) if state is None else by_step(now, state)
            else:
                by_step(now)
            each.append(by_step.synops.item())
        by_step.end_of_sample()
        restart(model)
        in_loop(x)
    return by_step.counts, in_loop.counts, each


def same_name(name):
    return name.removeprefix("step.").replace("input", "x")


@pytest.mark.parametrize("kind", MODELS)
def test_counts_are_those_of_the_loop(kind):
    ours, theirs, _ = run(kind)
    assert ours.total == theirs.total > 0
    assert (ours.samples, ours.timesteps) == (theirs.samples, theirs.timesteps) == (11, TIMES)
    mine = {(same_name(r.connection.label), r.connection.synapse): r for r in ours.rows}
    for row in theirs.rows:
        if kind is Membrane:  # where it is a loop, a state's spikes are those of the neuron
            (own,) = (
                r for r in ours.rows if r.connection.synapse == same_name(row.connection.synapse)
            )
            assert (own.events, own.synops) == (row.events, row.synops)
            continue
        own = mine[same_name(row.connection.label), same_name(row.connection.synapse)]
        assert (own.events, own.synops) == (row.events, row.synops)
        assert own.rate == pytest.approx(row.rate)
        assert own.per_second == pytest.approx(row.per_second)
    for mine, its in zip(ours.energy().rows, theirs.energy().rows, strict=True):
        if not mine.device.dense:  # of which a network's weights are counted once a step
            assert mine.total == pytest.approx(its.total)


@pytest.mark.parametrize("kind", [Leaky, OneMode, Cells])
def test_rates_are_those_of_the_loop(kind):
    ours, theirs, _ = run(kind, rates=True)
    assert ours.rates.keys() == {same_name(name) for name in theirs.rates}
    for name, rates in theirs.rates.items():
        assert torch.allclose(ours.rates[same_name(name)].rates, rates.rates)


@pytest.mark.parametrize("kind", MODELS)
def test_steps_are_the_forwards_of_a_sample(kind):
    ours, theirs, each = run(kind, steps=True)
    assert ours.steps is not None, ours.steps_unknown
    if kind is not Membrane:  # whose spikes come back a forward later
        means = torch.tensor(each).view(3, TIMES).sum(0) / 11
        assert torch.allclose(torch.tensor(ours.steps.total.mean), means)
    assert ours.steps.samples == theirs.steps.samples == (11,) * TIMES
    assert ours.steps.total.mean == pytest.approx(theirs.steps.total.mean)
    if ours.steps.total.max is not None and theirs.steps.total.max is not None:
        assert ours.steps.total.max == theirs.steps.total.max
        assert ours.steps.windows == theirs.steps.windows
    assert sum(ours.steps.total.mean) * 11 == pytest.approx(ours.total)


@pytest.mark.parametrize("kind", [Leaky, OneMode, Membrane])
def test_a_data_set_sample_by_sample(kind):
    _, by_step, in_loop = made(kind)
    reset = True if kind is not Membrane else restart
    ours = by_step.measure(batches(), inputs=list, reset=reset)
    theirs = in_loop.measure(batches(), reset=reset if reset is True else lambda m: restart(m.step))
    assert (ours.samples, ours.timesteps, ours.total) == (11, TIMES, theirs.total)
    assert ours.per_sample is not None
    assert theirs.per_sample is not None
    for name in ("samples", "mean", "squares", "min", "max"):
        assert getattr(ours.per_sample, name) == pytest.approx(getattr(theirs.per_sample, name))


def test_what_a_batch_is():
    """Steps that ``inputs`` gives; one input, ``timesteps`` times; steps of one long sample."""
    torch.manual_seed(1)
    model, x = OneMode(), batches()[0]
    still = fxsynops.SynOpsCounter(model, x[0], layout="step", timesteps=5)
    counts = still.measure([x[0], x[1]])
    assert (counts.samples, counts.timesteps) == (8, 5)
    by_hand = 0
    for now in x[:2]:
        functional.reset_net(model)
        for _ in range(5):
            still(now)
            by_hand += int(still.synops.item())
        still.end_of_sample()
    assert counts.total == by_hand
    alone = fxsynops.SynOpsCounter(model, x[0], layout="step")
    assert alone.measure(list(x)).samples == 4 * TIMES  # each a sample of one step
    functional.reset_net(model)
    counts = alone.measure(list(x), reset=False)
    assert (counts.samples, counts.timesteps) == (4, TIMES)


def test_counts_can_be_read_before_a_sample_ends():
    torch.manual_seed(1)
    model, x = OneMode(), batches()[0]
    counter = fxsynops.SynOpsCounter(model, x[0], layout="step", steps=True)
    for i, now in enumerate(x):
        counter(now)
        counts = counter.counts
        assert (counts.samples, counts.timesteps) == (4, i + 1)
        assert counts.steps.samples == (4,) * (i + 1)
    counter.clear()
    counter(x[0][:2])
    assert (counter.counts.samples, counter.counts.timesteps) == (2, 1)


def test_other_samples_in_the_middle_of_some_are_an_error():
    x = batches()[0]
    counter = fxsynops.SynOpsCounter(OneMode(), x[0], layout="step")
    counter(x[0])
    with pytest.raises(fxsynops.FxSynopsError, match=r"2 samples.*4.*end_of_sample"):
        counter(x[0][:2])
    assert counter.counts.timesteps == 1


@pytest.mark.parametrize("kind", [Leaky, OneMode])
def test_the_bound_of_all_steps_is_that_of_the_loop(kind):
    model, by_step, in_loop = made(kind)
    theirs = in_loop.analysis.upper_bound()
    ours = by_step.analysis.upper_bound(timesteps=TIMES)
    assert ours.structural == theirs.structural
    assert ours.total >= theirs.total  # spikes that come back are not followed from step to step
    assert ours.total == theirs.total or kind is Leaky
    again = fxsynops.analyze(model, batches()[0][0], layout="step", timesteps=TIMES)
    assert again.upper_bound().total == ours.total
    assert again.upper_bound().timesteps == TIMES


class Late(nn.Module):
    """Spikes that arrive some forwards later, or more than once."""

    def __init__(self, how):
        super().__init__()
        self.fc, self.head, self.how = nn.Linear(6, 8), nn.Linear(8, 2), how
        self.reset()

    def reset(self):
        self.first = self.second = self.sum = None

    def forward(self, x):
        s = (self.fc(x) > 0.1).float()
        nothing = torch.zeros_like(s)
        before = nothing if self.first is None else self.first
        if self.how == "two forwards":
            arriving = nothing if self.second is None else self.second
            self.second = before
        elif self.how == "all of them":
            arriving = nothing if self.sum is None else self.sum
            self.sum = arriving + s
        else:
            arriving = before
        self.first = s
        return self.head(arriving)


@pytest.mark.parametrize("how", ["one forward", "two forwards", "all of them"])
def test_events_that_are_kept_count_when_they_were_fired_or_it_is_not_known(how):
    torch.manual_seed(0)
    model, x = Late(how), batches()[0]
    by_step = fxsynops.SynOpsCounter(model, x[0], layout="step", steps=True)
    in_loop = fxsynops.SynOpsCounter(Loop(model), x, layout="TN", steps=True)
    model.reset()
    for now in x:
        by_step(now)
    model.reset()
    in_loop(x)
    assert by_step.counts.total == in_loop.counts.total
    if how == "one forward":
        assert by_step.counts.steps.total.mean == in_loop.counts.steps.total.mean
    else:
        assert by_step.counts.steps is None
        assert "more than one step" in by_step.counts.steps_unknown


def test_rates_where_an_input_arrives_a_step_later():
    class Delayed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
            self.kept = torch.zeros(4, 6)

        def forward(self, x):
            s, self.kept = (self.fc(self.kept) > 0.1).float(), x
            return self.head(s)

    torch.manual_seed(0)
    model, x = Delayed(), batches()[0]
    counter = fxsynops.SynOpsCounter(model, x[0], layout="step", rates=True)
    model.kept = torch.zeros(4, 6)
    for now in x:
        counter(now)
    before = torch.cat([torch.zeros(1, 4, 6), x[:-1]])
    expected = (model.fc(before) > 0.1).double().mean((0, 1))
    (rates,) = counter.counts.rates.values()
    assert torch.allclose(rates.rates, expected)
