"""Ways of writing models that published repositories have, in which something was wrong once."""

import math

import pytest
import snntorch
import torch
from spikingjelly.activation_based import neuron as sj
from torch import nn

import fxsynops


def spikes(*shape, seed=0):
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (drawn < 0.5).float()


def arriving(layer):
    """The SynOps of each call of a layer with 8 outputs, as its hook sees its input."""
    found = []
    layer.register_forward_hook(
        lambda module, given, out: found.append(8 * int(given[0].detach().sum()))
    )
    return found


class Through(torch.autograd.Function):
    """Gradients go through to the first argument."""

    @staticmethod
    def backward(ctx, grad, *_):
        return grad, *[None] * (len(ctx.needs_input_grad) - 1)


class Step(Through):
    """A spike where a membrane is above zero."""

    @staticmethod
    def forward(ctx, v):
        return (v > 0).to(v)


# -- what one event is worth -----------------------------------------------------------------------


class InOneGo(Through):
    """All steps of a neuron, whose spikes are worth its threshold over the length of a step."""

    @staticmethod
    def forward(ctx, x, steps, threshold, dt, leak):
        x = x.view(steps, -1, *x.shape[1:])
        v, out = torch.zeros_like(x[0]), []
        for now in x:
            v = leak * v + now
            spike = (v >= 0.3 * threshold).float() * threshold
            v = v - spike
            out.append(spike / dt)
        return torch.cat(out)


class Worth(nn.Module):
    def __init__(self, threshold, dt, leak):
        super().__init__()
        self.threshold, self.dt, self.leak = nn.Parameter(torch.tensor(threshold)), dt, leak
        self.scale = 4.0 * threshold

    def forward(self, x):
        return InOneGo.apply(x * self.scale, 4, self.threshold, self.dt, self.leak)


@pytest.mark.parametrize("dt", [1.0, 0.05, 0.5])
@pytest.mark.parametrize("threshold", [0.3, 0.31, 1.0, 1.001, 2.0, 5.97, 6.0])
@pytest.mark.parametrize("leak", [1.0, 0.9])
def test_a_spike_of_a_custom_function_is_one_event_whatever_it_is_worth(threshold, dt, leak):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), Worth(threshold, dt, leak), nn.Linear(8, 3)), None
    x = torch.randn(8, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    for data in (x, torch.randn(8, 6)):
        fired = int(model[1](model[0](data)).count_nonzero())
        counter(data)
        assert 0 < fired < 64
        assert float(counter.per_synapse["2"].detach()) == 3 * fired
    with torch.no_grad():
        model[1].threshold.mul_(1.25)  # it is learned
    counter(x)
    fired = int(model[1](model[0](x)).count_nonzero())
    assert float(counter.per_synapse["2"].detach()) == 3 * fired


class Counts(Through):
    """Several spikes at once, of some worth."""

    @staticmethod
    def forward(ctx, x, worth):
        return x.relu().floor().clamp(max=5) * worth


@pytest.mark.parametrize("worth", [1.0, 2.0, 0.5, 7.0])
def test_several_spikes_of_a_custom_function_stay_several(worth):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc2(Counts.apply(4 * self.fc1(x), worth))

    torch.manual_seed(0)
    model, x = Model(), torch.randn(16, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    events = float((4 * model.fc1(x)).detach().relu().floor().clamp(max=5).sum())
    assert float(counter.per_synapse["fc2"].detach()) == 3 * events


# -- states ----------------------------------------------------------------------------------------


class Traced(nn.Module):
    """A neuron with a trace of its spikes, whose states are one tensor."""

    def __init__(self, kept, parts, joins):
        super().__init__()
        self.kept, self.parts, self.joins = kept, parts, joins
        self.ff, self.rec = nn.Linear(6, 8, bias=False), nn.Linear(8, 8, bias=False)
        nn.init.uniform_(self.ff.weight, 0, 1)
        self.states, self.state = [None], None
        self.held = {"state": None}
        self.seen = []

    def read(self):
        return {"list": self.states[0], "attribute": self.state, "dict": self.held["state"]}[
            self.kept
        ]

    def write(self, state):
        if self.kept == "list":
            self.states[0] = state
        elif self.kept == "attribute":
            self.state = state
        else:
            self.held["state"] = state

    def forward(self, x):
        ff, state = self.ff(x), self.read()
        if state is None:
            state = torch.zeros(3 * len(x), 8) if self.joins == "cat" else torch.zeros(3, len(x), 8)
        v, z, trace = state.chunk(3) if self.joins == "cat" else state
        rec = self.rec(z)
        trace = 0.8 * trace + 0.2 * z if self.parts == "trace" else 0.5 * trace + self.ff(x)
        v = 0.5 * v * (1 - z) + ff + rec
        z = Step.apply(v - (0.3 + 0.1 * trace))
        order = [v, z, trace]
        self.write(torch.cat(order) if self.joins == "cat" else torch.stack(order))
        return z


@pytest.mark.parametrize("joins", ["stack", "cat"])
@pytest.mark.parametrize("parts", ["trace", "analog"])
@pytest.mark.parametrize("kept", ["list", "attribute", "dict"])
def test_spikes_are_told_from_their_trace_in_one_state(kept, parts, joins):
    torch.manual_seed(0)
    model, x = Traced(kept, parts, joins), spikes(2, 6)
    arrived = []
    hook = model.rec.register_forward_hook(
        lambda m, given, out: arrived.append(float(given[0].detach().sum()))
    )
    for _ in range(5):
        model(x)
    hook.remove()
    model.write(None)
    counter = fxsynops.SynOpsCounter(model, x, layout="step")
    for _ in range(5):
        counter(x)
    rows = {row.connection.synapse: row.synops for row in counter.counts.rows}
    assert rows["rec"] == 8 * sum(arrived) > 0


def test_analog_input_that_comes_later_is_said():
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.ff, self.rec, self.v = nn.Linear(6, 8), nn.Linear(8, 8), None

        def forward(self, x):
            v = torch.zeros(len(x), 8) if self.v is None else self.v
            self.v = 0.5 * v + self.ff(x)
            return self.rec(v)

    counter = fxsynops.SynOpsCounter(Leaky(), spikes(2, 6), layout="step")
    for _ in range(2):
        counter(spikes(2, 6))
    assert "on the analog inputs of rec" in " ".join(str(counter.counts).split())


def test_a_computed_weight_behind_a_hook_beside_a_buffer_that_is_written_to():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 5, bias=False)
            weight = self.fc.weight.detach()
            del self.fc._parameters["weight"]
            self.fc.raw = nn.Parameter(weight)
            self.fc.register_buffer("u", torch.ones(5))
            self.fc.weight = self.fc.raw * 1.0
            self.fc.register_forward_pre_hook(lambda module, given: None)

        def forward(self, x):
            with torch.no_grad():
                u = self.fc.u.mul_(0.5)
            self.fc.weight = self.fc.raw * u.sum()
            return self.fc(x)

    model, x = Normed(), spikes(3, 4)
    counter = fxsynops.SynOpsCounter(model, x)
    for k in range(2):
        counter(x)
        assert float(model.fc.u[0]) == 0.5 ** (k + 1)
    assert counter.counts.total == 2 * 5 * float(x.sum())


def test_a_neuron_of_snntorch_that_keeps_nothing_is_measured():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif = nn.Linear(12, 8), snntorch.StateLeaky(beta=0.9, channels=1)
            self.fc2 = nn.Linear(8, 3)

        def forward(self, x):
            return self.fc2(self.lif(self.fc1(x))[0])

    torch.manual_seed(0)
    model, x = Model(), 4 * torch.rand(6, 2, 12)
    fired = float(model.lif(model.fc1(x))[0].detach().sum())
    counts = fxsynops.count(model, x, progress=False)
    assert counts.total == 3 * fired > 0
    assert (counts.timesteps, counts.samples) == (6, 2)


# -- how many steps --------------------------------------------------------------------------------


class Charged(nn.Module):
    """A neuron that is charged by a call of its own before the first step."""

    def __init__(self, steps):
        super().__init__()
        self.fc1, self.neuron, self.fc2 = nn.Linear(6, 8), sj.IFNode(v_reset=None), nn.Linear(8, 3)
        self.steps, self.t = steps, 0

    def step(self, x):
        x = self.fc1(x)
        if self.t == 0:
            self.neuron(torch.full_like(x, 0.5))
        self.t += 1
        return self.fc2(self.neuron(x))

    def forward(self, x):
        self.neuron.reset()
        self.t, y = 0, 0
        for _ in range(self.steps):
            y = y + self.step(x)
        return y


@pytest.mark.parametrize("options", [{}, {"timesteps": 8}, {"steps": True}])
def test_a_call_that_charges_a_neuron_is_no_step(options):
    counter = fxsynops.SynOpsCounter(Charged(8), torch.randn(4, 6), **options)
    counter(torch.randn(4, 6))
    assert (counter.counts.samples, counter.counts.timesteps) == (4, 8)


class Apart(nn.Module):
    """The first step stands in front of the loop over the others."""

    def __init__(self, fires, steps):
        super().__init__()
        self.fc, self.rec, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.fires, self.steps = fires, steps

    def forward(self, x):
        drive = self.fc(x)
        u = drive
        s = self.fires(u)
        u, total = u - s, s
        for _ in range(self.steps - 1):
            u = u + self.rec(s) + drive
            s = self.fires(u)
            u, total = u - s, total + s
        return self.out(total / self.steps)


class Encoded(nn.Module):
    """Spikes of an image, once, and a loop over steps of another neuron, whose state is its own."""

    def __init__(self, fires, steps):
        super().__init__()
        self.fc, self.fc2, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.fires, self.steps = fires, steps

    def forward(self, x):
        drive = self.fc2(self.fires(self.fc(x)))
        u, y = torch.zeros_like(drive), 0
        for _ in range(self.steps):
            u = u + drive
            s = self.fires(u)
            u = u - s
            y = y + self.out(s)
        return y


FIRES = {"comparison": lambda u: (u >= 1.0).float(), "function": lambda u: Step.apply(u - 1.0)}


@pytest.mark.parametrize("model", [Apart, Encoded])
@pytest.mark.parametrize("fires", FIRES)
def test_a_first_step_that_is_written_apart_is_one(fires, model):
    torch.manual_seed(0)
    x = 2 * torch.randn(4, 6)
    counter = fxsynops.SynOpsCounter(model(FIRES[fires], 6), x)
    counter(x)
    assert (counter.counts.samples, counter.counts.timesteps) == (4, 6)


class Shortcut(nn.Module):
    """Two neurons on one stream of membranes, in one step."""

    def __init__(self, fires):
        super().__init__()
        self.fc, self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.fires = fires

    def forward(self, x):
        x = self.fc(x)
        x = x + self.fc1(self.fires(x))
        return x + self.fc2(self.fires(x))


@pytest.mark.parametrize("fires", FIRES)
def test_neurons_behind_a_shortcut_are_no_steps(fires):
    torch.manual_seed(0)
    x = 2 * torch.randn(4, 6)
    counter = fxsynops.SynOpsCounter(Shortcut(FIRES[fires]), x)
    counter(x)
    assert (counter.counts.samples, counter.counts.timesteps) == (4, 1)


class FiresFirst(nn.Module):
    """In each step it fires by what it was before, so that no data reach its first call or two."""

    def __init__(self, recurrent, current):
        super().__init__()
        self.recurrent, self.current = recurrent, current
        self.w1 = nn.Parameter(torch.randn(7, 9))
        self.v1 = nn.Parameter(torch.randn(9, 9))
        self.w2 = nn.Parameter(torch.randn(9, 3))

    def forward(self, x):
        current = v = out = x.new_zeros(len(x), 9)
        found = []
        h = torch.einsum("abc,cd->abd", x, self.w1)
        for t in range(x.shape[1]):
            now = h[:, t]
            if self.recurrent:
                now = now + torch.einsum("ab,bc->ac", out, self.v1)
            out = Step.apply(v - 1.0)
            kept = 1.0 - out.detach()
            if self.current:
                current, v = 0.8 * current + now, (0.9 * v + current) * kept
            else:
                v = (0.9 * v + now) * kept
            found.append(out)
        return torch.einsum("abc,cd->abd", torch.stack(found, 1), self.w2)


@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_call_before_any_data_is_a_step(recurrent, current):
    torch.manual_seed(0)
    model, x = FiresFirst(recurrent, current), spikes(4, 12, 7)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    assert (counter.counts.samples, counter.counts.timesteps) == (4, 12)


class Reset(Through):
    """A membrane at rest where it has fired."""

    @staticmethod
    def forward(ctx, v, spike, rest):
        return v.masked_fill(spike.bool(), rest)


class Turned(Through):
    """The same, with the spikes in front."""

    @staticmethod
    def forward(ctx, spike, v, rest):
        return v.masked_fill(spike.bool(), rest)


class WithReset(nn.Module):
    def __init__(self, turned):
        super().__init__()
        self.turned, self.v = turned, 0.0

    def forward(self, x):
        v = self.v + (x - self.v) * 0.5
        spike = Step.apply(v - 1.0)
        given = spike.detach()
        self.v = Turned.apply(given, v, 0.0) if self.turned else Reset.apply(v, given, 0.0)
        return spike


class TwoWithReset(nn.Module):
    def __init__(self, turned):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)
        self.lif1, self.lif2 = WithReset(turned), WithReset(turned)

    def forward(self, x):
        self.lif1.v = self.lif2.v = 0.0
        return torch.stack([self.lif2(self.fc2(self.lif1(self.fc1(v)))) for v in x.unbind(1)], 1)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("activity", ["lively", "silent", "always"])
def test_what_resets_a_membrane_is_no_neuron(activity, turned):
    torch.manual_seed(0)
    model, x = TwoWithReset(turned), spikes(3, 4, 6)
    nn.init.uniform_(model.fc1.weight, 0, 3)
    nn.init.uniform_(model.fc2.weight, -1, 2)
    if activity == "silent":
        nn.init.zeros_(model.fc2.weight)
    if activity == "always":
        x = torch.ones(3, 4, 6)
        for layer in (model.fc1, model.fc2):
            nn.init.constant_(layer.weight, 9.0)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    assert (counter.counts.samples, counter.counts.timesteps) == (3, 4)
    names = " ".join(counter.analysis.spiking)
    assert "Reset" not in names
    assert "Turned" not in names


def test_a_surrogate_that_is_made_anew_in_each_step():
    class Made(nn.Module):
        def forward(self, x):
            class Fire(Through):
                @staticmethod
                def forward(ctx, v):
                    return (v > 0).to(v)

            v, out = torch.zeros_like(x[:, 0]), []
            for now in x.unbind(1):
                v = 0.5 * v + now
                spike = Fire.apply(v - 1.0)
                v = v - spike
                out.append(spike)
            return torch.stack(out, 1)

    model, x = nn.Sequential(nn.Linear(6, 8), Made(), nn.Linear(8, 3)), spikes(3, 5, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    assert (counter.counts.samples, counter.counts.timesteps) == (3, 5)


def test_an_example_for_a_forward_that_takes_any_keywords():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2, self.v = nn.Linear(6, 8), nn.Linear(8, 3), None

        def forward(self, x, **options):
            x = self.fc1(x)
            if options.get("init", False):
                self.v = torch.zeros_like(x)
            self.v = 0.5 * self.v.detach() + x
            spike = (self.v >= 0.1).float()
            self.v = self.v - spike
            return self.fc2(spike)

    model, x = Model(), 3 * torch.randn(4, 6)
    counter = fxsynops.SynOpsCounter(model, {"x": x, "init": True}, layout="step")
    counter(x, init=True)
    counter(x)
    assert counter.counts.timesteps == 2
    assert counter.counts.total > 0
    assert math.isfinite(counter.counts.total)


class WithWeights(snntorch.Leaky):
    """A neuron with a layer of its own in front, which is recorded through, reset and all."""

    def __init__(self):
        super().__init__(0.9, threshold=0.5, reset_delay=False)
        self.fc = nn.Linear(6, 8)

    def forward(self, x, mem=None):
        return super().forward(self.fc(x), mem)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("steps", [2, 5])
def test_a_reset_by_the_same_function_is_no_step(steps, static):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif, self.fc = WithWeights(), nn.Linear(8, 3)

        def forward(self, x):
            mem, y = self.lif.reset_mem(), 0
            for t in range(steps):
                z, mem = self.lif(x if static else x[:, t], mem)
                y = y + self.fc(z)
            return y

    torch.manual_seed(0)
    x = torch.rand(4, 6) if static else torch.rand(4, steps, 6)
    counter = fxsynops.SynOpsCounter(Model(), x, input_events=False)
    counter(x)
    assert (counter.counts.samples, counter.counts.timesteps) == (4, steps)


class ResetAhead(nn.Module):
    """Layers in a loop, whose membranes are reset by what they were, before data come to them."""

    def __init__(self, steps):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, 8, bias=False) for a in (6, 8, 8))
        self.head, self.steps = nn.Linear(8, 3, bias=False), steps
        self.leak = nn.ParameterList(nn.Parameter(torch.tensor(0.95)) for _ in self.layers)
        self.threshold = nn.ParameterList(nn.Parameter(torch.tensor(0.4)) for _ in self.layers)

    def forward(self, x):
        v, y = [torch.zeros(len(x), 8) for _ in self.layers], 0
        for _ in range(self.steps):
            z = x
            for i, layer in enumerate(self.layers):
                above = (v[i] / self.threshold[i] - 1.0 > 0).float()
                v[i] = self.leak[i] * v[i] + layer(z) - self.threshold[i] * above
                z = Step.apply(v[i] / self.threshold[i] - 1.0)
            y = y + self.head(z)
        return y


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_layers_that_are_reset_ahead_of_their_data(steps):
    torch.manual_seed(0)
    x = torch.rand(4, 6)
    counter = fxsynops.SynOpsCounter(ResetAhead(steps), x, input_events=False)
    counter(x)
    assert (counter.counts.samples, counter.counts.timesteps) == (4, steps)


# -- what is kept, and what is drawn ---------------------------------------------------------------


class Keeps(nn.Module):
    """A recurrent layer whose last spikes are kept somewhere."""

    def __init__(self, way):
        super().__init__()
        self.ff, self.rec, self.way = nn.Linear(6, 8), nn.Linear(8, 8), way
        self.held, self.by_name = [], {"z": []}
        self.register_buffer("both", torch.zeros(2, 2, 8))

    def last(self, x):
        if self.way == "buffer":
            return self.both.clone().unbind(0)[1]
        held = self.by_name["z"] if self.way == "dict" else self.held
        kept = held[-1] if held else torch.zeros(len(x), 8)
        return kept[1] if isinstance(kept, tuple) else kept

    def forward(self, x):
        v = self.ff(x) + self.rec(self.last(x))
        z = (v > 0).float()
        if self.way == "append":
            self.held.append(z)
        elif self.way == "add":
            self.held += [z]
        elif self.way == "pairs":
            self.held.append((v, z))
        elif self.way == "dict":
            self.by_name["z"].append(z)
        elif self.way == "window":
            self.held.append(z)
            if len(self.held) > 2:
                self.held.pop(0)
        else:
            with torch.no_grad():
                self.both.copy_(torch.stack((v, z)))
        return z


@pytest.mark.parametrize("way", ["append", "add", "pairs", "dict", "window", "buffer"])
def test_spikes_that_are_kept_for_the_next_forward(way):
    torch.manual_seed(0)
    model, plain = Keeps(way), Keeps(way)
    plain.load_state_dict(model.state_dict())
    arrived = arriving(plain.rec)
    counter, found = fxsynops.SynOpsCounter(model, spikes(2, 6), layout="step"), []
    for seed in range(6):
        x = spikes(2, 6, seed=seed)
        plain(x)
        before = 0 if not found else counter.counts.total
        counter(x)
        found.append(counter.counts.total - before - 8 * int(x.sum()))
    assert found == arrived
    assert sum(arrived[1:]) > 0


def test_a_stacked_state_of_another_batch():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.ff, self.rec, self.state = nn.Linear(6, 8), nn.Linear(8, 8), None

        def forward(self, x):
            state = torch.zeros(2, len(x), 8) if self.state is None else self.state
            v, z = state
            v = 0.5 * v * (1 - z) + self.ff(x) + self.rec(z)
            z = (v > 0.1).float()
            self.state = torch.stack((v, z))
            return z

    torch.manual_seed(0)
    model = Cell()
    counter = fxsynops.SynOpsCounter(model, spikes(2, 6), layout="step")
    plain = Cell()
    plain.load_state_dict(model.state_dict())
    arrived = arriving(plain.rec)
    for size in (2, 5, 1):
        model.state = plain.state = None
        for seed in range(3):
            counter(spikes(size, 6, seed=seed))
            plain(spikes(size, 6, seed=seed))
        counter.end_of_sample()
    rows = {row.connection.synapse: row.synops for row in counter.counts.rows}
    assert rows["rec"] == sum(arrived) > 0


DRAWS = {
    "bernoulli": lambda w: torch.bernoulli(w.sigmoid()),
    "comparison": lambda w: (torch.rand_like(w) < w.sigmoid()).float(),
    "in place": lambda w: w.data.clone().bernoulli_(0.5),
    "signs": lambda w: 2 * torch.bernoulli(w.sigmoid()) - 1,
}


@pytest.mark.parametrize("way", DRAWS)
def test_weights_that_are_drawn_are_weights(way):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.weight = nn.Linear(6, 8), nn.Parameter(torch.randn(8, 8))

        def forward(self, x):
            z = (self.fc1(x) > 0).float()
            return nn.functional.linear(z, DRAWS[way](self.weight))

    torch.manual_seed(0)
    model, x = Model(), spikes(5, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    fired = int((model.fc1(x) > 0).sum())
    assert counter.counts.total == 8 * int(x.sum()) + 8 * fired


class Pair(Through):
    """Spikes of some worth, and what is left of the membrane."""

    @staticmethod
    def forward(ctx, v, worth, alone):
        s = (v > 0.2).to(v) * worth
        return (s,) if alone else (s, v - s)


@pytest.mark.parametrize("size", [8, 1])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("worth", [1.0, 2.0, 3.0])
def test_spikes_of_some_worth_in_a_tuple(worth, alone, size):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, size), nn.Linear(size, 3)

        def forward(self, x):
            return self.fc2(Pair.apply(self.fc1(x), worth, alone)[0])

    torch.manual_seed(0)
    model = Model()
    nn.init.uniform_(model.fc1.weight, -0.2, 0.8)
    x = spikes(8 if size == 8 else 1, 6)
    fired = int((model.fc1(x) > 0.2).sum())
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    assert float(counter.per_synapse["fc2"].detach()) == 3 * fired > 0


def test_values_that_are_no_steps_of_a_staircase_are_analog():
    class Leaks(Through):
        @staticmethod
        def forward(ctx, v):
            return torch.where(v > 0.5, 1.0, torch.where(v < -0.5, -0.1, 0.0))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc2(Leaks.apply(2 * self.fc1(x)))

    torch.manual_seed(0)
    analysis = fxsynops.analyze(Model(), spikes(8, 6))
    assert "fc2" in [row.synapse for row in analysis.dense]
    assert "Leaks" in str(analysis)


@pytest.mark.parametrize("fills", [nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_])
def test_an_initializer_in_a_forward_leaves_random_numbers_as_they_were(fills):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.noise = nn.Linear(6, 3), nn.Parameter(torch.zeros(3, 6))

        def forward(self, x):
            with torch.no_grad():
                fills(self.noise)
            return self.fc(x) + nn.functional.linear(x, self.noise)

    model, state = Model(), torch.get_rng_state()
    fxsynops.SynOpsCounter(model, spikes(2, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.noise.any()


# -- calls that are no steps, and steps whose spikes go nowhere ------------------------------------


def leaky(v, x):
    v = 0.8 * v + x
    z = (v >= 0.3).float()
    return v - z, z


def through(v):
    hard, soft = (v >= 0).float(), torch.sigmoid(4 * v)
    return (hard - soft).detach() + soft


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)


class Pipelined(Layers):
    """Each layer reads what the one before has fired in the last step."""

    def forward(self, x):
        y = v1 = v2 = 0
        z1 = z2 = torch.zeros(len(x), 8)
        for now in x.unbind(1):
            (v1, n1), (v2, n2) = leaky(v1, self.fc1(now)), leaky(v2, self.fc2(z1))
            y = y + self.fc3(z2)
            z1, z2 = n1, n2
        return y


class StraightThrough(Layers):
    def forward(self, x):
        y, v1, v2 = 0, 0, 0
        z1 = z2 = torch.zeros(len(x), 8)
        for now in x.unbind(1):
            v1 = 0.8 * v1 + self.fc1(now)
            n1 = through(v1 - 0.3)
            v1 = v1 - n1
            v2 = 0.8 * v2 + self.fc2(z1)
            n2 = through(v2 - 0.3)
            v2 = v2 - n2
            y = y + self.fc3(z2)
            z1, z2 = n1, n2
        return y


class FiresAhead(Layers):
    def forward(self, x):
        y, v = 0, torch.zeros(len(x), 8)
        for now in x.unbind(1):
            z = through(v - 0.3)
            v = 0.8 * v + self.fc1(now) - z
            y = y + self.fc3(z)
        return y


class OnlyLast(Layers):
    """Of the last layer, only the last step's spikes are read out."""

    def forward(self, x):
        v1 = v2 = z = 0
        for now in x.unbind(1):
            v1, z = leaky(v1, self.fc1(now))
            v2, z = leaky(v2, self.fc2(z))
        return self.fc3(z)


class LastApart(Layers):
    def forward(self, x):
        v = y = 0
        for now in x.unbind(1)[:-1]:
            v = 0.8 * v + self.fc1(now)
            z = Step.apply(v - 0.3)
            v, y = v - z, y + self.fc3(z)
        v = 0.8 * v + self.fc1(x[:, -1])
        return y + self.fc3(Step.apply(v - 0.3))


class Vote(Layers):
    """A function of the neuron's own decides by the number of spikes: no step more."""

    def forward(self, x):
        v = votes = 0
        for now in x.unbind(1):
            v = 0.8 * v + self.fc1(now)
            z = Step.apply(v - 0.3)
            v, votes = v - z, votes + z
        return self.fc3(Step.apply(votes - 1.5))


class TwoLevels(Layers):
    """One membrane, compared with two thresholds, each in its own line."""

    def forward(self, x):
        v = y = 0
        for now in x.unbind(1):
            v = 0.8 * v + self.fc1(now)
            low = (v >= 0.2).float()
            high = (v >= 0.6).float()
            v, y = v - low - high, y + self.fc3(low + high)
        return y


class NowAndThen(Layers):
    """Its spikes go to one layer in each step, and to another in some."""

    def forward(self, x):
        v = y = 0
        for step, now in enumerate(x.unbind(1)):
            v = 0.8 * v + self.fc1(now)
            z = (v >= 0.2).float()
            v, y = v - z, y + (self.fc3(self.fc2(z) + z) if step % 2 else self.fc3(z))
        return y


class Refractory(Layers):
    def forward(self, x):
        y, states = 0, [(torch.zeros(len(x), 8), torch.zeros(len(x), 8)) for _ in range(2)]
        for now in x.unbind(1):
            for i, layer in enumerate((self.fc1, self.fc2)):
                v, rest = states[i]
                v = 0.8 * v + layer(now) * (rest <= 0).float()
                now = (v >= 0.3).float()
                states[i] = v - now, torch.where(now > 0, torch.full_like(rest, 2.0), rest - 1)
            y = y + self.fc3(now)
        return y


@pytest.mark.parametrize("steps", [2, 6])
@pytest.mark.parametrize(
    "kind",
    [
        *(Pipelined, StraightThrough, FiresAhead, OnlyLast, LastApart, Vote),
        *(TwoLevels, NowAndThen, Refractory),
    ],
)
def test_steps_are_those_of_the_input_or_not_known(kind, steps):
    torch.manual_seed(0)
    model, x = kind(), spikes(4, steps, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    known = "Steps unknown" not in str(counter.counts)
    assert (counter.counts.samples, counter.counts.timesteps) == ((4, steps) if known else (4, 1))
    assert known or steps == 2


class OneByOne(Layers):
    def forward(self, x):
        out = []
        for sample in range(len(x)):
            v = y = 0
            for step in range(5):
                v, z = leaky(v, self.fc1(x[sample : sample + 1, step]))
                y = y + self.fc3(z)
            out.append(y)
        return torch.cat(out)


class TwiceAStep(Layers):
    def __init__(self):
        super().__init__()
        self.lif = snntorch.Leaky(0.9)

    def forward(self, x):
        v, y = self.lif.init_leaky(), 0
        for now in x.unbind(1):
            z, v = self.lif(self.fc1(now), v)
            w, v = self.lif(-0.1 * z, v)
            y = y + self.fc3(z + w)
        return y


class ByWindows(Layers):
    """It begins anew at every third of six frames."""

    def forward(self, x):
        v = y = 0
        for step in range(6):
            v, z = leaky(0 if step % 3 == 0 else v, self.fc1(x[:, step]))
            y = y + self.fc3(z)
        return y


@pytest.mark.parametrize("kind", [OneByOne, TwiceAStep, ByWindows])
def test_steps_that_calls_do_not_tell_are_not_known(kind):
    torch.manual_seed(0)
    x = spikes(4, 6, 6) if kind is ByWindows else spikes(5, 5, 6)
    counter = fxsynops.SynOpsCounter(kind(), x)
    counter(x)
    assert "Steps unknown" in str(counter.counts)


def test_spikes_of_forwards_that_were_replayed_are_known_when_they_are_read():
    class Rarely(nn.Module):
        """It reads what it has kept in every fourth forward only."""

        def __init__(self):
            super().__init__()
            self.ff, self.rec, self.held = nn.Linear(6, 8), nn.Linear(8, 8), []

        def forward(self, x, reads):
            v = self.ff(x)
            if reads:
                v = v + self.rec(self.held[-1])
            z = (v > 0).float()
            self.held.append(z)
            return z

    torch.manual_seed(0)
    model, plain = Rarely(), Rarely()
    plain.load_state_dict(model.state_dict())
    arrived = arriving(plain.rec)
    counter = fxsynops.SynOpsCounter(model, (spikes(2, 6), False), layout="step")
    for step in range(9):
        x = spikes(2, 6, seed=step)
        counter(x, step % 4 == 3)
        plain(x, step % 4 == 3)
    rows = [row.synops for row in counter.counts.rows if row.connection.synapse == "rec"]
    assert sum(rows) == sum(arrived) > 0


class Holds(nn.Module):
    """A list with a constant in it, beside the last spikes, or in front of all of them."""

    def __init__(self, order):
        super().__init__()
        self.ff, self.fixed, self.rec = (nn.Linear(n, 8) for n in (6, 8, 8))
        constant, silence = torch.rand(2, 8), torch.zeros(2, 8)
        self.held = {
            "first": [constant, silence],
            "last": [silence, constant],
            "in front": [constant],
        }[order]
        self.order = order

    def forward(self, x, reads):
        at = 1 if self.order == "last" else 0
        v = self.ff(x)
        if reads:
            v = v + self.fixed(self.held[at]) + self.rec(self.held[-1 - at])
        z = (v > 0).float()
        if self.order == "in front":
            self.held.append(z)
        else:
            self.held[1 - at] = z
        return z


@pytest.mark.parametrize("order", ["first", "last", "in front"])
def test_a_constant_in_a_list_is_not_what_is_kept_beside_it(order):
    torch.manual_seed(0)
    model, plain = Holds(order), Holds(order)
    plain.load_state_dict(model.state_dict())
    plain.held = list(model.held)
    arrived = arriving(plain.rec)
    counter = fxsynops.SynOpsCounter(model, (spikes(2, 6), False), layout="step")
    for step in range(9):
        x = spikes(2, 6, seed=step)
        counter(x, step % 4 == 3)
        plain(x, step % 4 == 3)
    found = {"ff": 0, "rec": 0}
    for row in counter.counts.rows:
        found[row.connection.synapse] += row.synops  # of no other synapse
    ours = 8 * sum(int(spikes(2, 6, seed=step).sum()) for step in range(9))
    assert found == {"ff": ours, "rec": sum(arrived)}
    assert sum(arrived) > 0
