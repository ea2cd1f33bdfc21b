"""What a trace must not take for granted: other people's code, judged on inputs unlike the example.

Every model here is analyzed on one input and counted on another. The SynOps of its last layer are
known from what really arrives there: nonzero values of the plain model's own forward.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
from tests import trust_settings as settings

OUT = 3


def spikes(*shape, p=0.3, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < p).float()


class Between(nn.Module):
    """Something in front of a layer with three outputs."""

    def __init__(self, between, features=6):
        super().__init__()
        self.between, self.head = between, nn.Linear(features, OUT)

    def forward(self, x):
        return self.head(self.between(x))


def arriving(model, *inputs):
    """Σ |x| of what arrives at the head, in a plain forward of a copy."""
    model, seen = copy.deepcopy(model), []
    handle = model.head.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    model(*inputs)
    handle.remove()
    return sum(x.abs().sum().item() for x in seen)


def check(model, example, *others, **options):
    """The last layer's SynOps and the output, for inputs that are not the example."""
    counter = fxsynops.SynOpsCounter(model, example, **options)
    for x in (example, *others):
        wanted, plain = OUT * arriving(model, x), copy.deepcopy(model)
        assert torch.equal(counter(x), plain(x))
        assert counter.per_synapse["head"].item() == wanted
    return counter


# -- copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "between",
    [
        copy.copy,
        copy.deepcopy,
        lambda x: copy.copy(x * 1),
        lambda x: x.new_tensor(x),
        lambda x: torch.tensor(x),
        lambda x: torch.as_tensor(x, dtype=torch.float64).float(),
        lambda x: torch.asarray(x),
        lambda x: torch.tensor([[row[i] for i in range(6)] for row in x]),
        lambda x: torch.from_dlpack(torch.utils.dlpack.to_dlpack(x)),
        lambda x: torch.from_dlpack(torch.utils.dlpack.to_dlpack(x[1:])),
        lambda x: torch.from_dlpack(torch.utils.dlpack.to_dlpack(x * 1)),
        lambda x: torch.from_dlpack(x),
        lambda x: x.data,
    ],
    ids=(
        "copy deepcopy copy_of_result new_tensor tensor as_tensor asarray lists dlpack dlpack_view "
        "dlpack_of_result from_dlpack data"
    ).split(),
)
@pytest.mark.filterwarnings("ignore:To copy construct")
def test_a_copy_is_made_anew_of_every_input(between):
    check(Between(between), spikes(4, 6, p=0.2), spikes(4, 6, p=0.9, seed=1))


@pytest.mark.parametrize(
    "between",
    [
        lambda x: pickle.loads(pickle.dumps(x)),
        lambda x: torch.tensor(x.untyped_storage().tolist()).float()[:24].reshape(4, 6),
        lambda x: torch.from_numpy(x.numpy()),
        lambda x: torch.from_numpy(np.asarray(x)),
        lambda x: torch.empty(0).set_(x.untyped_storage(), 0, (4, 6), (6, 1)),
    ],
    ids="pickle storage numpy asarray set_".split(),
)
def test_a_copy_past_torch_is_refused(between):
    with pytest.raises(fxsynops.TraceError, match=r"cannot be recorded|out of sight"):
        fxsynops.analyze(Between(between), spikes(4, 6))


# -- sizes that data decide ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [
        lambda x: len(torch.where(x > 0)[0]),
        lambda x: len(x.nonzero()),
        lambda x: x[x > 0].numel(),
        lambda x: x[x > 0].shape[0],
        lambda x: torch.masked_select(x, x > 0).size(0),
        lambda x: torch.arange((x > 0).sum()).shape[0],
        lambda x: torch.ones(99)[: (x > 0).sum()].shape[0],
        lambda x: F.one_hot(x.sum(1).long()).shape[1],
        lambda x: x.to_sparse().values().shape[0],
        lambda x: len(list(x[x > 0])),
        lambda x: len(x[x > 0].split(2)),
        lambda x: torch.bincount(x.sum(1).long()).shape[0],
        lambda x: int(x.sum()),
        lambda x: x.sum().item(),
        lambda x: sum(map(sum, x.tolist())),
    ],
)
def test_a_size_that_python_reads_is_a_branch_on_data(size):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, OUT)

        def forward(self, x):
            return self.head(x) / size(x)

    model, other = Model(), spikes(2, 6, p=0.3, seed=3)
    example = torch.ones(2, 6)
    counter = fxsynops.SynOpsCounter(model, example)
    assert torch.equal(counter(example), model(example))
    assert counter.analysis.specialized
    assert size(other) != size(example)
    said = r"test_trust\.py:\d+: the model (branches|has a size)"
    with pytest.raises(fxsynops.SpecializationError, match=said):
        counter(other)


@pytest.mark.parametrize("values", [lambda x: x, torch.sigmoid], ids=["events", "analog"])
def test_rows_that_data_choose_are_counted_for_as_many_rows_only(values):
    model = Between(lambda x: values(x)[x.sum(1) > 1])
    example = torch.tensor([[1.0] * 6, [0.0] * 6, [1.0] * 6])
    counter = fxsynops.SynOpsCounter(model, example)
    counter(example.flip(1))
    counter(example[[1, 0, 2]])  # other rows, as many
    with pytest.raises(fxsynops.SpecializationError, match=r"analyzed for \(2, "):
        counter(torch.ones(3, 6))


def _reset_where_fired(v, fired):
    v[fired] = v[fired] - 1
    return v


def _minus_one(v, fired):
    v[fired] -= 1
    return v


def _emptied(v, fired):
    v[fired] = 0.0
    return v


@pytest.mark.parametrize(
    "reset",
    [
        _reset_where_fired,
        _minus_one,
        _emptied,
        lambda v, fired: v.masked_fill(fired, 0.0),
        lambda v, fired: v.index_put((fired,), v[fired] - 1),
        lambda v, fired: torch.where(fired, v - 1, v),
    ],
)
def test_boolean_resets_are_no_branch(reset):
    class IF(nn.Module):
        def forward(self, current):
            v, out = torch.zeros_like(current[:, 0]), []
            for t in range(current.shape[1]):
                v = v + current[:, t]
                fired = v >= 1
                v = reset(v, fired)
                out.append(fired.float())
            return torch.stack(out, 1)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), IF(), nn.Identity())
    whole = Between(model)
    check(whole, spikes(3, 7, 6), spikes(3, 7, 6, p=0.7, seed=1), layout="NT")


# -- what is read outside of the model -------------------------------------------------------------

STEPS, CONFIG, LEVELS, LOG = 2, {"steps": 2}, [1.0, 0.5], []
SCALE = torch.tensor(1.0)


class Config:
    steps = 2
    seen: list[int] = []  # noqa: RUF012

    def __init__(self):
        self.more = 0


class Held:
    def __init__(self):
        self.values = [1.0, 1.0]


HELD = Held()


def helper():
    return STEPS


def _set(name, value):
    globals()[name] = value


def _closed_over():
    steps = 2

    def set_steps(value):
        nonlocal steps
        steps = value

    return (lambda x: torch.stack([x] * steps)), set_steps


def closed_over():
    between, set_steps = _closed_over()
    return between, lambda: set_steps(5), lambda: set_steps(2)


OUTSIDE = {
    "global": (
        lambda x: torch.stack([x] * STEPS),
        lambda: _set("STEPS", 5),
        lambda: _set("STEPS", 2),
    ),
    "global of a function": (
        lambda x: torch.stack([x] * helper()),
        lambda: _set("STEPS", 5),
        lambda: _set("STEPS", 2),
    ),
    "entry of a dict": (
        lambda x: torch.stack([x] * CONFIG["steps"]),
        lambda: CONFIG.update(steps=5),
        lambda: CONFIG.update(steps=2),
    ),
    "length of a list": (
        lambda x: torch.stack([x for _ in LEVELS]),
        lambda: LEVELS.append(2.0),
        lambda: LEVELS.pop(),
    ),
    "attribute of a class": (
        lambda x: torch.stack([x] * Config.steps),
        lambda: setattr(Config, "steps", 5),
        lambda: setattr(Config, "steps", 2),
    ),
    "list in an object": (
        lambda x: torch.stack([x for _ in HELD.values]),
        lambda: HELD.values.append(1.0),
        lambda: HELD.values.pop(),
    ),
    "another module's": (
        lambda x: torch.stack([x] * settings.STEPS),
        lambda: setattr(settings, "STEPS", 5),
        lambda: setattr(settings, "STEPS", 2),
    ),
    "another module's class": (
        lambda x: torch.stack([x] * settings.Defaults.steps),
        lambda: setattr(settings.Defaults, "steps", 5),
        lambda: setattr(settings.Defaults, "steps", 2),
    ),
    "a tensor": (
        lambda x: x * SCALE,
        lambda: _set("SCALE", torch.tensor(0.0)),
        lambda: _set("SCALE", torch.tensor(1.0)),
    ),
    "closure": closed_over(),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_what_the_code_reads_outside_of_the_model_is_a_condition(kind):
    between, change, back = OUTSIDE[kind]
    model, x = Between(between), spikes(2, 6, p=0.5)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    change()
    try:
        wanted = OUT * arriving(model, x)
        assert torch.equal(counter(x), model(x))
        assert float(counter.synops) == wanted
    finally:
        back()
    assert torch.equal(counter(x), model(x))


def test_a_class_attribute_of_an_object_in_the_model_is_a_condition():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.config, self.head = Config(), nn.Linear(6, OUT)

        def forward(self, x):
            return self.head(torch.stack([x] * self.config.steps))

    model, x = Model(), spikes(2, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    Config.steps = 5
    try:
        assert len(counter(x)) == 5
    finally:
        Config.steps = 2


def test_a_forward_that_changes_what_is_outside_of_the_model_is_refused():
    def logs(x):
        LOG.append(x.shape[0])
        return x

    def counts(x):
        global STEPS
        STEPS += 1
        return x

    def remembers(x, cache=[]):  # noqa: B006
        cache.append(1)
        return x

    def sets(x):
        Config.steps += 1
        return x

    def fills(x):
        Config.seen.append(1)
        return x

    for between, name in (
        (logs, "LOG"),
        (counts, "STEPS"),
        (remembers, "defaults"),
        (sets, "Config.steps"),
        (fills, "Config.seen"),
    ):
        before = list(LOG), STEPS
        with pytest.raises(fxsynops.TraceError, match=f"changes '.*{name}.*outside of the model"):
            fxsynops.analyze(Between(between), spikes(2, 6))
        assert before == (LOG, STEPS)
    assert remembers.__defaults__ == ([],)
    assert (Config.steps, Config.seen) == (2, [])


def test_what_is_outside_of_the_model_is_put_back_after_an_error():
    def deletes(x):
        global SCALE
        LOG.append(1)
        del SCALE
        raise ValueError

    before = SCALE
    with pytest.raises(fxsynops.TraceError, match="raised ValueError"):
        fxsynops.analyze(Between(deletes), spikes(2, 6))
    assert LOG == []
    assert SCALE is before


def test_random_generators_of_numpy_in_attributes():
    for generator in (np.random.default_rng(0), np.random.RandomState(0), random.Random(0)):

        class Draws(nn.Module):
            def __init__(self):
                super().__init__()
                self.generator, self.head = generator, nn.Linear(6, OUT)  # noqa: B023

            def forward(self, x):
                draw = getattr(self.generator, "random", None) or self.generator.random_sample
                return self.head(x) * (1.0 if draw() < 0.5 else 2.0)

        model = Draws()
        state = copy.deepcopy(generator)
        with pytest.raises(fxsynops.TraceError, match="generator"):
            fxsynops.analyze(model, spikes(2, 6))
        draw = "random" if hasattr(state, "random") else "random_sample"
        assert getattr(generator, draw)() == getattr(state, draw)()


# -- hooks -----------------------------------------------------------------------------------------


def hooked(hook, pre=False):
    model = Between(nn.Identity())
    if pre:
        model.between.register_forward_pre_hook(hook)
    else:
        model.between.register_forward_hook(hook)
    return model


MASK = torch.tensor([1.0, 0, 0, 1.0, 0, 1.0])


@pytest.mark.parametrize(
    ("hook", "pre"),
    [
        (lambda m, i, o: o * MASK, False),
        (lambda m, i, o: o + o, False),
        (lambda m, i, o: o.flip(1), False),
        (lambda m, i: (i[0] * MASK,), True),
        (lambda m, i: i[0] * 2, True),
    ],
)
def test_what_hooks_hand_on_is_measured_there(hook, pre):
    model = hooked(hook, pre)
    counter = check(model, spikes(2, 6), spikes(2, 6, p=0.8, seed=2))
    assert counter.analysis.upper_bound().total == math.inf  # nothing says what a hook does
    assert counter.analysis.upper_bound().rows[0].reasons


def test_hooks_that_only_look_change_nothing_of_an_analysis():
    seen = []

    def look(module, args, output):
        seen.append(output)

    model = hooked(look)
    counter = check(model, spikes(2, 6), spikes(2, 6, seed=2))
    assert counter.analysis.upper_bound().total == 6 * OUT
    assert counter.analysis.connections[0].measured_at == "x"


def test_hooks_in_front_of_a_module_that_is_kept_whole_are_not_overlooked():
    norm = nn.BatchNorm1d(6).eval()
    norm.register_forward_pre_hook(lambda m, i: (i[0].flip(1) * MASK,))
    model = nn.Sequential(norm, nn.Linear(6, OUT))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="hooks may change what it gets"):
        fxsynops.analyze(model, spikes(2, 6))


def test_a_hook_that_looks_and_writes_is_found_out():
    def halve(module, args, output):
        output.mul_(0.0)

    model = hooked(halve)
    counter = fxsynops.SynOpsCounter(model, spikes(2, 6))
    with pytest.raises(fxsynops.SpecializationError, match="hook on a Identity writes"):
        counter(spikes(2, 6))


def test_a_hook_that_comes_later_is_heard_of():
    model, x = Between(nn.Identity()), spikes(2, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    model.between.register_forward_hook(lambda m, i, o: o * MASK)
    counter(x)
    assert float(counter.synops) == OUT * float((x * MASK).sum())


def test_fractions_that_a_hook_makes_of_events_are_said():
    model = hooked(lambda m, i, o: o * 0.3)
    counter = fxsynops.SynOpsCounter(model, spikes(2, 6))
    counter(torch.ones(2, 6))
    assert not counter.counts.exact
    assert "fractions" in str(counter.counts)


# -- methods of neurons, slots, names --------------------------------------------------------------


def test_a_neuron_that_is_reset_at_the_end_of_the_forward():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.iaf, self.head = nn.Linear(6, 4), fxsynops.nn.IAF(), nn.Linear(4, OUT)

        def forward(self, x):
            y = self.head(self.iaf(self.fc(x)))
            self.iaf.reset_states()
            return y

    torch.manual_seed(0)
    model = Model()
    nn.init.constant_(model.fc.weight, 0.3)
    check(model, spikes(2, 5, 6), spikes(2, 5, 6, p=0.9), spikes(2, 5, 6, seed=4), layout="NT")


@dataclasses.dataclass(slots=True)
class State:
    v: torch.Tensor


class Slotted:
    __slots__ = ("v",)


@pytest.mark.parametrize("kind", ["dataclass", "slots", "mixed"])
def test_state_in_slots_is_state(kind):
    class Mixed(Slotted):
        pass

    def state():
        if kind == "dataclass":
            return State(torch.zeros(2, 4))
        held = Slotted() if kind == "slots" else Mixed()
        held.v = torch.zeros(2, 4)
        return held

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.state, self.head = state(), nn.Linear(4, OUT)

        def forward(self, x):
            v = self.state.v + 0.4 * x
            s = (v > 1).float()
            self.state.v = v - s
            return self.head(s)

    model, x = Model(), torch.ones(2, 4)
    before = model.state.v
    counter = fxsynops.SynOpsCounter(model, x)
    assert model.state.v is before
    assert float(before.sum()) == 0
    counts = []
    for _ in range(4):
        counter(x)
        counts.append(float(counter.synops))
    assert counts == [0, 0, 8.0 * OUT, 0]


def test_names_are_those_of_one_thing():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.x, self.fire, self.head = nn.Linear(6, 6), fxsynops.nn.NeuromorphicReLU(), None
            self.gt, self.head = nn.Linear(6, 6), nn.Linear(6, OUT)

        def forward(self, x):
            s = self.fire(self.x(x))
            return self.head((self.gt(s) > 0).float())

    counter = fxsynops.SynOpsCounter(Model(), spikes(2, 6))
    names = {c.source for c in counter.analysis.connections}
    assert names == {"x (input)", "fire", "gt#2"}
    counter(spikes(2, 6))
    assert sum(counter.per_source.values()) == sum(counter.per_synapse.values())
    assert set(counter.per_source) == names


# -- events or analog ------------------------------------------------------------------------------


class CountUpTo(torch.autograd.Function):
    """0, 1, 2 … spikes, at most a tensor; or at most a number for each neuron."""

    @staticmethod
    def forward(ctx, v, most):
        return torch.minimum(v.clamp(min=0).floor(), most)

    @staticmethod
    def backward(ctx, g):
        return g, None


class Over(torch.autograd.Function):
    """One comparison with a threshold, which is a tensor of the membrane's own size."""

    @staticmethod
    def forward(ctx, v, threshold):
        return (v > threshold).to(v.dtype)

    @staticmethod
    def backward(ctx, g):
        return g, None


class Behind(nn.Module):
    def __init__(self, fire):
        super().__init__()
        self.fc, self.fire, self.head = nn.Linear(6, 6), fire, nn.Linear(6, OUT)
        self.register_buffer("most", torch.tensor(2.5 + 0.5))
        self.register_buffer("each", torch.arange(6.0))

    def forward(self, x):
        return self.head(self.fire(self, 6 * self.fc(x)))


@pytest.mark.parametrize(
    "fire",
    [
        lambda m, v: CountUpTo.apply(v, m.most),
        lambda m, v: CountUpTo.apply(v, m.each),
        lambda m, v: CountUpTo.apply(v, torch.full_like(v, 2.0)),
        lambda m, v: Over.apply(v, torch.ones_like(v)),
        lambda m, v: Over.apply(v, m.each),
        lambda m, v: torch.zeros_like(v).scatter_(1, v.topk(2).indices, 1.0),
        lambda m, v: F.gumbel_softmax(v, hard=True) * 0 + (v > 0),
        lambda m, v: torch.bucketize(v, torch.tensor([0.0, 1.0])).float(),
        lambda m, v: torch.searchsorted(torch.tensor([0.0, 1.0]), v).float(),
        lambda m, v: F.one_hot(v.argmax(1), 6).float(),
    ],
    ids="cap caps full threshold thresholds topk gumbel bucketize searchsorted argmax".split(),
)
def test_whole_numbers_that_code_makes_are_events(fire):
    torch.manual_seed(0)
    check(Behind(fire), spikes(4, 6), spikes(4, 6, p=0.9, seed=1))


def test_hard_gumbel_softmax_is_one_event_per_row():
    model = Between(lambda x: F.gumbel_softmax(x, hard=True))
    x = torch.randn(5, 6)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x.requires_grad_())
    assert counter.synops.item() == 5 * OUT  # however its ones are rounded
    counter.synops.backward()
    assert x.grad is not None


def test_a_comparison_in_a_custom_function_fires_once_per_step_at_most():
    model = Behind(lambda m, v: Over.apply(v, torch.ones_like(v)))
    bound = fxsynops.analyze(model, spikes(4, 6)).upper_bound()
    assert {row.max_events for row in bound.rows} == {1.0}
    model = Behind(lambda m, v: CountUpTo.apply(v, m.most))
    bound = fxsynops.analyze(model, spikes(4, 6)).upper_bound()
    assert bound.rows[-1].structural == math.inf
    assert bound.rows[-1].reasons
    assert "max_spikes=" in str(bound)


CONSTRAINTS = {
    "clamp_": lambda w: w.clamp_(0, 1),
    "zero_": lambda w: w[:, 0].zero_(),
    "copy_": lambda w: w.copy_(w.relu()),
    "fill_diagonal_": lambda w: w.fill_diagonal_(0.0),
    "setitem": lambda w: w.__setitem__((slice(None), 0), 0.0),
    "mul_": lambda w: w.mul_(w.norm().clamp(max=1.0)),
}


@pytest.mark.parametrize("held", ["parameter", "buffer"])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_weights_that_a_forward_constrains_are_no_events(constraint, held):
    class Constrained(nn.Module):
        def __init__(self):
            super().__init__()
            weight = torch.randn(OUT, 6)
            if held == "parameter":
                self.weight = nn.Parameter(weight)
            else:
                self.register_buffer("weight", weight)

        def forward(self, x):
            with torch.no_grad():
                CONSTRAINTS[constraint](self.weight)
            return F.linear(x, self.weight)

    torch.manual_seed(0)
    x, other = spikes(8, 6), spikes(8, 6, p=0.8, seed=1)
    for weights in ("all", "nonzero"):
        model = Constrained()
        counter = fxsynops.SynOpsCounter(model, x, weights=weights)
        assert [(c.source, c.kind) for c in counter.analysis.connections] == [("x", "linear")]
        for data in (x, other):
            counter(data)
            used = (model.weight != 0).sum(0) if weights == "nonzero" else torch.full((6,), OUT)
            assert float(counter.synops) == float((data.sum(0) * used).sum())


def test_a_state_that_no_source_reaches_is_no_source():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("a", torch.ones(6))
            self.register_buffer("b", torch.ones(6))
            self.head = nn.Linear(6, OUT)

        def forward(self, x):
            self.a, self.b = self.b * 0.5, self.a * 0.5
            return self.head(x) + self.head(self.a)

    analysis = fxsynops.analyze(Model(), spikes(2, 6))
    assert {c.source for c in analysis.connections} == {"x"}


def test_spiking_relu_covers_every_spelling_of_it():
    torch.manual_seed(0)
    x = torch.rand(8, 6)
    for act in (F.relu, torch.relu, lambda v: v.relu(), lambda v: v.clone().relu_(), nn.ReLU()):
        model = Between(nn.Identity())
        model.between = nn.Sequential(nn.Linear(6, 6), Applies(act))
        counter = fxsynops.SynOpsCounter(
            model, x, spiking=nn.ReLU, events="nonzero", input_events=False
        )
        counter(x)
        assert counter.synops.item() == OUT * (model.between[0](x) > 0).sum().item()


class Applies(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_fractions_in_a_later_input_are_said_or_an_error():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), torch.ones(2, 4))
    counter(torch.ones(2, 4))
    assert counter.counts.exact
    counter(torch.rand(2, 4))
    assert not counter.counts.exact
    assert "'input' put out fractions" in str(counter.counts)
    assert "input_events=False" in str(counter.counts)
    counter.clear()
    counter(torch.ones(2, 4))
    assert counter.counts.exact


def test_a_single_fraction_among_many_events_is_found_by_the_sums():
    example = torch.ones(1000, 100)
    counter = fxsynops.SynOpsCounter(nn.Linear(100, 1), example)
    example[567, 77] = 0.4
    counter(example)
    assert not counter.counts.exact


# -- nothing in silence ----------------------------------------------------------------------------


def test_an_ann_is_answered_in_macs():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    analysis = fxsynops.analyze(model, torch.rand(2, 6), input_events=False)
    assert [(row.synapse, row.macs) for row in analysis.dense] == [("0", 30), ("2", 10)]
    assert "No events" in str(analysis)
    assert "spiking=" in str(analysis)
    counter = analysis.counter()
    counter(torch.rand(2, 6))
    assert counter.counts.total == 0
    assert "No events" in str(counter.counts)


def test_nan_is_no_event_where_events_count_one():
    x = torch.zeros(2, 4)
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), x, events="nonzero")
    for bad in (torch.nan, -torch.nan):
        x[0, 0] = bad
        counter(x)
        with pytest.raises(fxsynops.CountError, match="NaN"):
            _ = counter.counts
        counter.clear()
    x[0, 0] = torch.inf
    counter(x)
    assert counter.counts.total == 3


def test_counts_say_what_is_left_out():
    model = Between(lambda x: torch.fmod(x, 2))
    analysis = fxsynops.analyze(model, torch.ones(2, 6), strict=False)
    counter = analysis.counter()
    counter(torch.ones(2, 6))
    said = "Unresolved, not counted: 'fmod'"
    assert said in str(counter.counts)
    assert said in str(analysis)
    assert said in counter.counts.to_json()


# -- numbers that only go into a log ---------------------------------------------------------------


class Logs(nn.Module):
    def __init__(self, log):
        super().__init__()
        self.log, self.head = log, nn.Linear(6, OUT)
        self.rate, self.rates, self.total = None, [], 0.0

    def forward(self, x):
        more = self.log(self, x)
        y = self.head(x)
        return y if more is None else (y, more)


def _attribute(m, x):
    m.rate = x.mean().item()


def _list(m, x):
    m.rates.append(x.mean().item())


def _sum(m, x):
    m.total += x.sum().item()


@pytest.mark.parametrize(
    "log",
    [
        _attribute,
        _list,
        _sum,
        lambda m, x: print(x.mean().item(), f"{x.mean().item():.2f}", end=""),
        lambda m, x: x.mean().item(),
        lambda m, x: {"rate": x.sum().int().item()},
    ],
    ids="attribute list sum print returned dict".split(),
)
def test_a_number_that_only_goes_into_a_log_is_no_branch(log):
    torch.manual_seed(0)
    counted, plain = Logs(log), Logs(log)
    plain.load_state_dict(counted.state_dict())
    counter = fxsynops.SynOpsCounter(counted, spikes(4, 6))
    for x in (spikes(4, 6), spikes(4, 6, p=0.9), spikes(4, 6, p=0.5, seed=2)):
        ours, theirs = counter(x), plain(x)
        if isinstance(theirs, tuple):
            assert ours[1] == theirs[1]
            assert type(ours[1]) is type(theirs[1])
            ours, theirs = ours[0], theirs[0]
        assert torch.equal(ours, theirs)
        assert counter.synops.item() == OUT * x.sum().item()
    assert (counted.rate, counted.rates, counted.total) == (plain.rate, plain.rates, plain.total)
    assert type(counted.rate) is type(plain.rate)


@pytest.mark.parametrize(
    "use",
    [
        lambda n: 2.0 if n > 0.5 else 1.0,
        lambda n: n,
        lambda n: n * 2,
        lambda n: 2 - n,
        lambda n: -n,
        lambda n: math.sqrt(n),
        lambda n: max(n, 0.1),
        lambda n: round(n, 1),
        lambda n: float(n),
        lambda n: 1.0 if n - 0.25 else 2.0,
        lambda n: {0.25: 1.0}.get(n, 2.0),
        lambda n: len(n.hex()) + n,
        lambda n: 1.0 if type(n) is float and n < 0.5 else 2.0,
        lambda n: torch.tensor([n, n])[0].item() * 1.0,
        lambda n: np.float64(n),
    ],
)
def test_a_number_that_python_computes_with_is_a_branch(use):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, OUT)

        def forward(self, x):
            return self.head(x) * use(x.mean().item())

    model, example = Scaled(), torch.tensor([[1.0, 1, 1, 0, 0, 0], [0.0] * 6])
    counter = fxsynops.SynOpsCounter(model, example)
    assert torch.equal(counter(example), model(example))
    with pytest.raises(fxsynops.SpecializationError, match="branches on data"):
        counter(torch.ones(2, 6))


@pytest.mark.parametrize("decide", [lambda n: n > 0.2, bool, lambda n: int(4 * n) > 0])
def test_a_number_that_python_compares_decides_only_by_what_comes_of_it(decide):
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, OUT)

        def forward(self, x):
            return self.head(x) * (2 if decide(x.mean().item()) else 1)

    model, example = Doubled(), torch.tensor([[1.0, 1, 1, 0, 0, 0], [0.0] * 6])
    counter = fxsynops.SynOpsCounter(model, example)
    other = torch.tensor([[1.0, 1, 1, 0, 1, 0], [0.0] * 6])  # another number, and as large
    assert torch.equal(counter(other), model(other))
    with pytest.raises(fxsynops.SpecializationError, match="branches on data"):
        counter(torch.zeros(2, 6))


class Amplified(torch.autograd.Function):
    amplitude = 0.6

    @staticmethod
    def forward(ctx, v, module):
        return (v > 0).float() * (Amplified.amplitude if module is None else module.amplitude)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@pytest.mark.parametrize("own", [False, True])
def test_what_the_code_of_a_custom_function_reads_is_a_condition(own):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.head, self.amplitude = nn.Linear(6, 8), nn.Linear(8, OUT), 0.6
            self.fire = Amplified.apply  # bound before

        def forward(self, x):
            return self.head(self.fire(self.a(x), self if own else None))

    model, x = Model(), spikes(4, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    events = float((model.a(x) > 0).sum())
    for amplitude in (0.6, 1.2, 0.3):
        (model if own else Amplified).amplitude = amplitude
        counter.clear()
        counter(x)
        assert counter.per_synapse["head"] == events * OUT
        assert counter.counts.exact
    Amplified.amplitude = 0.6
