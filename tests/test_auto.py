"""What the first call assumes when nobody says it: the layout, and which inputs carry events.

Right, or said to be unknown: never wrong in silence.
"""

from __future__ import annotations

import warnings

import norse.torch as norse
import pytest
import sinabs.layers as sl
import snntorch
import torch
from snntorch import utils
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from tests.networks import Heaviside
from tests.zoo import ZOO


def spikes(*size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(size, generator=generator) < 0.5).float()


def found(model, x, **options):
    """Axes, samples, steps, and whether these are known."""
    analysis = fxsynops.analyze(model, x, **options)
    layout, window = analysis.options.layout, analysis.window
    assert layout.said in analysis.remarks()
    return layout.axes, window.samples, window.timesteps, layout.known


# -- the zoo ---------------------------------------------------------------------------------------

NAMES = sorted(ZOO)
SILENT = (
    *("AssociativeLeaky", "NeuromorphicReLU"),  # no neuron of theirs knows of time
    *("Merge, Repeat, FlattenTime", "recurrent convolution"),  # of a fixed number of samples
)


def as_explicit(name):
    """Whether what is found is what the zoo says; None if it is said to be unknown."""
    case = ZOO[name]
    torch.manual_seed(0)
    model, inputs = case.build(), case.inputs()
    case.reset(model)
    said = ("layout", "batch_size", "timesteps", "input_events")
    options = {k: v for k, v in case.options.items() if k not in said}
    explicit = fxsynops.analyze(model, inputs, audit=False, **case.options)
    auto = fxsynops.analyze(model, inputs, audit=False, **options)
    flags = [{k: v[0] for k, v in a.options.looked.items()} for a in (explicit, auto)]
    assert flags[0] == flags[1]
    if not auto.options.layout.known:
        assert any("Steps unknown" in note for note in auto.remarks())
        return None
    return auto.window == explicit.window


@pytest.mark.parametrize("name", NAMES[::7])
def test_a_model_of_the_zoo_says_it_itself(name):
    known = as_explicit(name)
    assert known or (known is None and (name.startswith("plain") or name.endswith(SILENT)))


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_all_models_of_the_zoo_say_it_themselves(name):
    known = as_explicit(name)
    silent = name.startswith("plain") or name.endswith(SILENT)
    assert known or (known is None and silent)


# -- neurons that know their time axis -------------------------------------------------------------


class Jelly(nn.Module):
    """spikingjelly over time, whose input is static, or has time in one of two places."""

    def __init__(self, kind, steps=None):
        super().__init__()
        self.kind, self.steps = kind, steps
        self.body = nn.Sequential(layer.Linear(6, 8), neuron.IFNode(), layer.Linear(8, 3))
        functional.set_step_mode(self, "m")

    def forward(self, x):
        if self.kind == "static":
            x = x.unsqueeze(0).repeat(self.steps, *[1] * x.dim())
        elif self.kind == "NT":
            x = x.transpose(0, 1)
        elif self.kind == "(TN)":
            x = x.view(self.steps, -1, 6)
        elif self.kind == "(NT)":
            x = x.view(-1, self.steps, 6).transpose(0, 1)
        return self.body(x)


@pytest.mark.parametrize(
    ("kind", "size", "steps", "expected"),
    [
        ("TN", (5, 3, 6), None, ("TN", 3, 5)),
        ("TN", (3, 3, 6), None, ("TN", 3, 3)),
        ("TN", (6, 6, 6), None, ("TN", 6, 6)),
        ("NT", (3, 5, 6), None, ("NT", 3, 5)),
        ("NT", (3, 3, 6), None, ("NT", 3, 3)),
        ("static", (3, 6), 5, ("N", 3, 5)),
        ("static", (3, 6), 3, ("N", 3, 3)),  # as many steps as samples
        ("static", (3, 6), 6, ("N", 3, 6)),  # as many steps as features
        ("static", (1, 6), 1, ("N", 1, 1)),
        ("(TN)", (15, 6), 5, ("(TN)", 3, 5)),
    ],
)
def test_jellys_neurons_have_time_first(kind, size, steps, expected):
    model = Jelly(kind, steps)
    assert found(model, spikes(*size)) == (*expected, True)


@pytest.mark.parametrize("size", [(2, 7, 6), (3, 3, 6), (1, 4, 6), (4, 1, 6)])
@pytest.mark.parametrize("kind", [sl.IAF, fnn.IAF, lambda: sl.LIF(tau_mem=5.0)])
def test_sinabs_neurons_have_it_second(kind, size):
    model = nn.Sequential(nn.Linear(6, 8), kind(), nn.Linear(8, 3))
    assert found(model, spikes(*size)) == ("NT", size[0], size[1], True)


@pytest.mark.parametrize("kind", [sl.IAFSqueeze, fnn.IAFSqueeze])
def test_merged_neurons_know_one_of_both_numbers(kind):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), kind(batch_size=2), nn.Flatten(), nn.Linear(48, 2))
    assert found(model, spikes(14, 2, 6, 6)) == ("(NT)", 2, 7, True)
    assert found(model, spikes(2, 2, 6, 6)) == ("(NT)", 2, 1, True)
    counter = fxsynops.SynOpsCounter(model, spikes(14, 2, 6, 6))
    counter(spikes(8, 2, 6, 6))
    assert (counter.counts.samples, counter.counts.timesteps) == (2, 4)


def test_norses_sequences_have_it_first():
    model = norse.SequentialState(norse.Lift(nn.Linear(6, 8)), norse.LIF(), nn.Linear(8, 2))
    assert found(model, spikes(5, 3, 6)) == ("TN", 3, 5, True)
    assert found(model, spikes(3, 3, 6)) == ("TN", 3, 3, True)


def test_neurons_that_contradict_each_other():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.first, self.second = nn.Linear(6, 6), fnn.IAF(), neuron.IFNode()
            self.second.step_mode = "m"

        def forward(self, x):
            return self.fc(self.first(self.fc(x))), self.fc(self.second(self.fc(x)))

    axes, samples, steps, known = found(Both(), spikes(4, 5, 6))
    assert (axes, samples, steps, known) == ("N", 4, 1, False)
    text = " ".join(fxsynops.analyze(Both(), spikes(4, 5, 6)).remarks())
    assert "IAF 'first' sees 5" in text
    assert "IFNode 'second' 4" in text


# -- loops -----------------------------------------------------------------------------------------


class Tutorial(nn.Module):
    """snntorch's tutorials: a loop over steps of a static image, or of one in time."""

    def __init__(self, kind, steps=7):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)
        self.lif1, self.lif2 = snntorch.Leaky(0.9), snntorch.Leaky(0.9)
        self.kind, self.steps = kind, steps

    def forward(self, x):
        mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        steps = len(x) if self.kind == "TN" else self.steps
        for step in range(steps):
            now = x if self.kind == "static" else x[:, step] if self.kind == "NT" else x[step]
            s, mem1 = self.lif1(self.fc1(now), mem1)
            s, mem2 = self.lif2(self.fc2(s), mem2)
            out.append(s)
        return torch.stack(out)


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("static", (3, 6), ("N", 3, 7)),
        ("static", (7, 6), ("N", 7, 7)),
        ("TN", (7, 3, 6), ("TN", 3, 7)),
        ("TN", (7, 7, 6), ("TN", 7, 7)),
        ("TN", (5, 3, 6), ("TN", 3, 5)),
        ("fixed", (7, 3, 6), ("TN", 3, 7)),
        ("fixed", (7, 7, 6), ("TN", 7, 7)),
        ("NT", (3, 7, 6), ("NT", 3, 7)),
        ("NT", (7, 7, 6), ("NT", 7, 7)),
    ],
)
def test_a_neuron_that_is_called_once_a_step(kind, size, expected):
    model = Tutorial(kind)
    assert found(model, spikes(*size)) == (*expected, True)


def test_a_neuron_that_is_called_once_has_one_step():
    model = nn.Sequential(nn.Linear(6, 8), snntorch.Leaky(0.9, init_hidden=True), nn.Linear(8, 3))
    utils.reset(model)
    assert found(model, spikes(4, 6)) == ("N", 4, 1, True)
    said = "1 step: Leaky '1' is called once (layout=\"step\", if a sample has more forwards)."
    assert said in fxsynops.analyze(model, spikes(4, 6)).remarks()


class Membrane(nn.Module):
    """A hand-written neuron in a loop."""

    def __init__(self, axis, steps=5):
        super().__init__()
        self.fc, self.head, self.axis, self.steps = nn.Linear(6, 8), nn.Linear(8, 2), axis, steps

    def forward(self, x):
        v = out = 0
        for now in x.unbind(self.axis) if self.axis is not None else [x] * self.steps:
            v = 0.5 * v + self.fc(now)
            s = Heaviside.apply(v - 1)
            v = v - s
            out = out + self.head(s)
        return out


@pytest.mark.parametrize(
    ("axis", "size", "expected"),
    [
        (0, (4, 3, 6), ("TN", 3, 4)),
        (1, (4, 3, 6), ("NT", 4, 3)),
        (0, (4, 4, 6), ("TN", 4, 4)),
        (1, (4, 4, 6), ("NT", 4, 4)),
        (None, (4, 6), ("N", 4, 5)),
        (None, (5, 6), ("N", 5, 5)),
        (2, (4, 6, 3), ("N…T", 4, 3)),
        (2, (6, 6, 6), ("N…T", 6, 6)),
    ],
)
def test_a_membrane_of_ones_own(axis, size, expected):
    assert found(Membrane(axis), spikes(*size)) == (*expected, True)


def test_the_same_neuron_behind_several_layers_is_no_loop():
    class Shared(nn.Module):
        def __init__(self, act):
            super().__init__()
            self.layers, self.act = nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), act

        def forward(self, x):
            for each in self.layers:
                x = self.act(each(x))
            return x

    assert found(Shared(lambda x: Heaviside.apply(x)), spikes(3, 6)) == ("N", 3, 1, False)
    assert found(Shared(fnn.NeuromorphicReLU()), spikes(3, 6)) == ("N", 3, 1, False)
    assert found(Shared(nn.ReLU()), spikes(3, 6), spiking=nn.ReLU) == ("N", 3, 1, False)


def test_heads_that_share_a_spike_function_are_no_steps():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(6, 12), nn.Linear(3, 2)

        def forward(self, x):
            parts = self.fc(x).chunk(4, -1)
            return sum(self.out(Heaviside.apply(part)) for part in parts)

    assert found(Heads(), spikes(3, 6)) == ("N", 3, 1, False)


def test_a_network_that_nobody_can_tell_steps_of():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    counter = fxsynops.SynOpsCounter(model, spikes(4, 6), spiking=nn.ReLU)
    counter(spikes(4, 6))
    text = str(counter.counts)
    assert "Steps unknown: the whole pass counted as one" in text
    for column in ("SynOps/s ?", "Rate (/step) ?", "N. timesteps ?"):
        assert column in text
    assert counter.counts.report().content["steps_known"] is False
    explicit = fxsynops.SynOpsCounter(model, spikes(4, 6), spiking=nn.ReLU, layout="N")
    explicit(spikes(4, 6))
    assert "?" not in str(explicit.counts)
    assert "Steps unknown" in str(counter.counts.energy())
    assert "Steps unknown" not in str(explicit.counts.energy())


# -- with what a user says -------------------------------------------------------------------------


def test_what_a_user_says_holds():
    x = spikes(3, 6)
    assert found(Tutorial("static"), x, timesteps=7)[1:] == (3, 7, True)
    with pytest.raises(fxsynops.FxSynopsError, match="timesteps=5"):
        fxsynops.analyze(Tutorial("static"), x, timesteps=5)
    plain = fxsynops.analyze(nn.Linear(6, 2), x, timesteps=5)
    assert (plain.window.samples, plain.window.timesteps) == (3, 5)
    with pytest.raises(fxsynops.FxSynopsError, match="batch_size=2"):
        fxsynops.analyze(nn.Linear(6, 2), x, batch_size=2)


def test_what_a_user_says_is_not_said_to_be_told_by_the_model():
    x = spikes(3, 6)
    said = fxsynops.analyze(nn.Linear(6, 2), x, layout="N", input_events=True)
    assert (said.assumed, said.remarks()) == ([], [])
    told = fxsynops.analyze(nn.Linear(6, 2), x, layout="N")
    assert told.assumed == told.remarks() == ["'input' carries events: whole numbers up to 1."]


def test_loops_of_another_length_later():
    model, x = Tutorial("static"), spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    model.steps = 4
    counter(x)
    assert counter.counts.timesteps == (7 + 4) / 2
    assert counter.window.timesteps == 4
    explicit = fxsynops.SynOpsCounter(model, x, timesteps=4)
    explicit(x)
    assert explicit.synops.item() == counter.synops.item()


# -- which inputs carry events ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "events", "said"),
    [
        (spikes(2, 6), True, "whole numbers up to 1"),
        (3 * spikes(2, 6), True, "whole numbers up to 3"),
        (-spikes(2, 6), True, "whole numbers up to 1"),
        (spikes(2, 6).bool(), True, "whole numbers up to 1"),
        (spikes(2, 6).long(), True, "whole numbers up to 1"),
        (torch.zeros(2, 6), True, "whole numbers up to 0"),
        (spikes(2, 6) / 2, False, "fractions, such as 0.5"),
        (torch.arange(12.0).view(2, 6) * 20, False, "as large as 220"),
        (torch.arange(12, dtype=torch.uint8).view(2, 6) * 20, False, "as large as 220"),
        (torch.full((2, 6), float("nan")), True, "whole numbers up to 0"),
    ],
)
def test_small_whole_numbers_are_events(x, events, said):
    model = nn.Sequential(nn.Linear(6, 4), fnn.NeuromorphicReLU(), nn.Linear(4, 2))
    model.forward = lambda x, run=model.forward: run(x.float())
    analysis = fxsynops.analyze(model, x, layout="N", audit=not x.isnan().any())
    assert ("x" in [c.source for c in analysis.connections]) == events
    assert ("0" in [row.synapse for row in analysis.dense]) != events
    assert any(said in note for note in analysis.remarks())


def test_each_input_is_looked_at():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, image, events):
            return self.a(image) + self.b(events)

    analysis = fxsynops.analyze(Two(), (torch.rand(3, 6), spikes(3, 6)))
    assert [c.source for c in analysis.connections] == ["events"]
    assert [row.synapse for row in analysis.dense] == ["a"]


def test_token_ids_are_neither():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc = nn.Embedding(10, 6), nn.Linear(6, 4)
            self.act, self.out = fnn.NeuromorphicReLU(), nn.Linear(4, 2)

        def forward(self, ids):
            return self.out(self.act(self.fc(self.embed(ids))))

    for ids in (torch.randint(0, 10, (2, 5)), torch.randint(0, 10, (2, 5)).int()):
        analysis = fxsynops.analyze(Words(), ids)
        assert {c.synapse for c in analysis.connections} == {"out"}
        assert [row.synapse for row in analysis.dense] == ["fc"]
        assert "'ids' is analog: indices (token ids), not data." in str(analysis)


def test_an_input_that_is_a_mask_beside_data_is_data():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.out(self.fc(x).masked_fill(x.bool(), 0))

    x = spikes(3, 6)
    counter = fxsynops.SynOpsCounter(Masked(), x)
    counter(x)
    assert {name: n.item() for name, n in counter.per_synapse.items()} == {"fc": 6 * x.sum()}


def test_a_sparse_input_is_looked_at():
    counter = fxsynops.SynOpsCounter(nn.Linear(6, 2), torch.rand(3, 6))
    with pytest.warns(UserWarning, match="whole numbers up to 1"):
        counter(spikes(3, 6).to_sparse())
    counter = fxsynops.SynOpsCounter(nn.Linear(6, 2), spikes(3, 6).to_sparse())
    counter(spikes(3, 6).to_sparse())
    assert counter.synops.item() == 2 * spikes(3, 6).sum()


def test_the_example_decides_and_later_fractions_are_said():
    model, x = nn.Linear(6, 2), spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(torch.full((3, 6), 0.5))
    assert not counter.counts.exact
    assert "fractions where whole numbers of events were promised" in str(counter.counts)


def test_spikes_where_the_example_was_analog_are_said():
    model, x = nn.Linear(6, 2), spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x / 2)
    with pytest.warns(UserWarning, match=r"'input' .*example.*fractions.*whole numbers up to 1"):
        counter(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counter(x)  # once
        fxsynops.SynOpsCounter(model, x / 2)(x / 4)
        fxsynops.SynOpsCounter(model, x / 2, input_events=False)(x)


def test_where_each_value_counts_one_fractions_are_events():
    counter = fxsynops.SynOpsCounter(nn.Linear(6, 2), spikes(3, 6) / 2, events="nonzero")
    counter(spikes(3, 6) / 2)
    assert counter.counts.total == 2 * spikes(3, 6).sum()


def test_a_model_without_values():
    analysis = fxsynops.analyze(nn.Linear(6, 2).to("meta"), torch.rand(3, 6).to("meta"))
    assert [c.source for c in analysis.connections] == ["input"]
    assert "no values to look at" in str(analysis)


# -- calls that are several steps, and calls that are none -----------------------------------------


def spike(v):
    return Heaviside.apply(v)


def update(fc, x, v, s):
    """The helper that many published networks share between their layers."""
    v = 0.2 * v * (1 - s) + fc(x)
    return v, spike(v - 0.5)


class Steps(nn.Module):
    """Two layers, by a function of the example and of the model."""

    def __init__(self, run, **parts):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.lif, self.run = snntorch.Leaky(0.9), run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


def by_helper(pick, steps):
    def run(m, x):
        n = len(pick(x, 0))
        v1 = s1 = v2 = s2 = torch.zeros(n, 8)
        total = 0
        for t in range(steps or x.shape[-1]):
            v1, s1 = update(m.a, pick(x, t), v1, s1)
            v2, s2 = update(m.b, s1, v2, s2)
            total = total + m.c(s2)
        return total

    return run


def over_loop(frames, layers=1):
    """The library's neuron, step by step over what ``frames`` makes of the input."""

    def run(m, x):
        mems, total = [torch.zeros(()) for _ in range(layers)], 0
        for now in frames(x):
            s, mems[0] = m.lif(m.a(now), mems[0])
            if layers == 2:
                s, mems[1] = m.lif(m.b(s), mems[1])
            total = total + m.c(s)
        return total

    return run


def restarted(times, steps):
    def run(m, x):
        total = 0
        for _ in range(times):
            mem = torch.zeros(())
            for _ in range(steps):
                s, mem = m.lif(m.a(x), mem)
                total = total + m.c(s)
        return total

    return run


@pytest.mark.parametrize(
    ("run", "size", "expected"),
    [
        (by_helper(lambda x, t: x[..., t], None), (3, 6, 4), ("N…T", 3, 4)),
        (by_helper(lambda x, t: x[:, :, t], 4), (3, 6, 4), ("N…T", 3, 4)),
        (by_helper(lambda x, t: x, 4), (3, 6), ("N", 3, 4)),
        (over_loop(lambda x: x, layers=2), (4, 3, 6), ("TN", 3, 4)),
        (over_loop(lambda x: [x] * 5, layers=2), (3, 6), ("N", 3, 5)),
        (over_loop(lambda x: x), (5, 6), ("T", 1, 5)),
        (over_loop(lambda x: [x] * 4), (6,), ("", 1, 4)),
        (restarted(3, 4), (3, 6), ("N", 3, 4)),
        (restarted(2, 1), (3, 6), ("N", 3, 1)),
    ],
)
def test_what_is_taken_over_from_call_to_call_tells_steps(run, size, expected):
    torch.manual_seed(0)
    assert found(Steps(run), spikes(*size)) == (*expected, True)


@pytest.mark.parametrize("chunks", [lambda x: x.chunk(4), lambda x: x.view(4, -1, 6)])
def test_a_merged_axis_that_is_looped_over(chunks):
    axes, samples, steps, known = found(Steps(over_loop(chunks)), spikes(12, 6))
    assert (axes[0], samples, steps, known) == ("(", 3, 4, True)


@pytest.mark.parametrize(
    "frames",
    [
        lambda x: x[:4],
        lambda x: x[1:],
        lambda x: x[::2],
        lambda x: [now for now in x for _ in range(2)],
        lambda x: [*x, x[0] * 0, x[0] * 0],
        lambda x: [x.sum(0)] * 5,
    ],
)
def test_a_loop_that_is_not_as_long_as_an_axis_leaves_it_unknown(frames):
    torch.manual_seed(0)
    *_, known = found(Steps(over_loop(frames)), spikes(6, 3, 6))
    assert not known


def test_samples_that_may_be_features_are_unknown():
    for width in (6, 8):  # as many features as neurons
        model = nn.Sequential(layer.Linear(width, 8), neuron.IFNode(), layer.Linear(8, 3))
        functional.set_step_mode(model, "m")
        for module in model:
            module.step_mode = "s" if isinstance(module, layer.Linear) else "m"
        *_, known = found(model, spikes(5, width))
        assert not known


def test_one_sample_after_the_other_is_unknown():
    def run(m, x):
        out = []
        for row in x:
            mem = torch.zeros(())
            for _ in range(4):
                s, mem = m.lif(m.a(row), mem)
            out.append(m.c(s))
        return torch.stack(out)

    *_, known = found(Steps(run), spikes(3, 6))
    assert not known


def test_levels_of_a_code_are_no_steps():
    def run(m, x):
        code = sum((x > level / 5).float() for level in range(5))
        return m.c(m.lif(m.a(code), torch.zeros(()))[0])

    assert found(Steps(run), torch.rand(3, 6)) == ("N", 3, 1, True)


def test_merged_neurons_that_hold_on_to_the_steps():
    model = nn.Sequential(nn.Linear(6, 8), sl.IAFSqueeze(num_timesteps=4), nn.Linear(8, 2))
    counter = fxsynops.SynOpsCounter(model, spikes(12, 6))
    for rows in (12, 24, 8):
        model[1].reset_states()
        counter(spikes(rows, 6))
        assert (counter.window.samples, counter.window.timesteps) == (rows // 4, 4)


def test_another_length_than_the_neurons_see_is_said():
    def run(m, x):
        return over_loop(lambda x: [x[:, t] for t in range(4)])(m, x)

    counter = fxsynops.SynOpsCounter(Steps(run), spikes(3, 4, 6))
    assert counter.analysis.options.layout.axes == "NT"
    with pytest.warns(UserWarning, match="do not see the 7 steps"):
        counter(spikes(3, 7, 6))


def test_an_empty_example_is_an_error():
    with pytest.raises(fxsynops.FxSynopsError, match=r"\(4, 0, 6\) is empty"):
        fxsynops.analyze(nn.Linear(6, 2), torch.zeros(4, 0, 6))


class Twice(nn.Module):
    """Neurons that see two steps of a static input."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        v, out = 0.0, 0.0
        for _ in range(2):
            v = 0.5 * v + self.a(x)
            z = (v > 0.1).float()
            v, out = v - z, out + self.b(z)
        return out


@pytest.mark.parametrize("samples", [1, 2, 4, 5])
def test_a_number_of_steps_that_is_given_is_not_overruled(samples):
    x = torch.ones(samples, 2)
    found = fxsynops.analyze(Twice(), x, timesteps=2).window
    assert (found.samples, found.timesteps) == (samples, 2)
    with pytest.raises(fxsynops.InputError, match=r"timesteps=5.*Pass timesteps=2"):
        fxsynops.analyze(Twice(), x, timesteps=5)


@pytest.mark.parametrize("timesteps", [7, 24, 50])
def test_steps_that_neurons_do_not_see_are_an_error(timesteps):
    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.neuron = nn.Linear(6, 8), snntorch.Leaky(0.9)
            self.b = nn.Linear(8, 3)

        def forward(self, x):
            state, out = self.neuron.init_leaky(), 0
            for _ in range(25):
                spikes, state = self.neuron(self.a(x), state)
                out = out + self.b(spikes)
            return out

    with pytest.raises(fxsynops.InputError, match=rf"timesteps={timesteps}, but .* sees 25 steps"):
        fxsynops.analyze(Looped(), torch.rand(3, 6), timesteps=timesteps)
    fives = fxsynops.analyze(Looped(), torch.rand(3, 6), timesteps=5)
    assert "sees 25 steps, of which 5 are taken for one (timesteps=)." in str(fives)


def test_a_layout_that_neurons_contradict_is_remarked_on():
    model, x = OverTime(), (torch.rand(4, 9, 6) < 0.5).float()
    right, wrong = (fxsynops.analyze(model, x, layout=axes) for axes in ("NT", "TN"))
    assert "which was passed" not in str(right)
    assert "sees 9 steps, and layout 'TN', which was passed, has 4." in str(wrong)


class OverTime(nn.Module):
    """Of (samples, steps, features)."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        v, out = 0.0, 0.0
        for step in x.unbind(1):
            v = 0.5 * v + self.a(step)
            z = (v > 0.1).float()
            v, out = v - z, out + self.b(z)
        return out
