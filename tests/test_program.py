"""The recorded graph as code: arguments of all kinds, lifetimes, errors, many nodes."""

from __future__ import annotations

import collections
import functools
import gc
import weakref

import pytest
import torch
from torch import nn

import fxsynops
from fxsynops.tracing.codegen import Objects
from tests.outcome import same
from tests.zoo import ZOO


def assert_counts_like_the_model(model: nn.Module, x: torch.Tensor, **options) -> None:
    counter = fxsynops.SynOpsCounter(model, x, **options)
    for _ in range(2):
        torch.manual_seed(1)
        theirs = model(x)
        torch.manual_seed(1)
        assert torch.equal(counter(x), theirs)
    assert counter.counts.total > 0


class Arguments(nn.Module):
    """Calls with lists, tuples, slices and dicts that hold tensors, and keywords."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        h = self.fc(x)
        last = (h > -torch.inf).sum() // h.shape[0]  # a tensor that is five
        h = h[:, slice(0, last, None)]
        h = torch.cat([h, torch.stack((h, h), dim=0).sum(0)], dim=1)
        h = torch.where(condition=h > 0, input=h, other=torch.full((), -1.5))
        h = h.index_put((torch.tensor([0]), torch.tensor([1])), torch.tensor(float("inf")))
        return h + torch.zeros(4, 10).random_(**{"from": 2, "to": 10})


def test_arguments_of_all_kinds_are_passed_on():
    assert_counts_like_the_model(Arguments(), torch.ones(4, 6))


class Named(nn.Module):
    def forward(self, x, **names):
        return x * sum(names.values()) + len(names)


@pytest.mark.parametrize(
    "name", ["a", "from", "a-b", "", "1a", "__debug__", "a=1,b", "\ufb01", "ß"]
)
def test_keyword_arguments_may_have_any_name(name):
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.named, self.fc = Named(), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(self.named((x > 1).float(), **{name: 2.0}))

    x = torch.randint(0, 3, (5, 4)).float()
    assert_counts_like_the_model(Calls(), x, spiking=[Named])


def test_values_are_dropped_after_their_last_use():
    seen: list[weakref.ref] = []

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model.requires_grad_(False)
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
    replay = next(iter(counter._replays.values()))[0]
    alive: list[int] = []
    called = replay.called

    def watching(node):
        function = called(node)

        def run(*args, **kwargs):
            alive.append(sum(ref() is not None for ref in seen))
            value = function(*args, **kwargs)
            seen.append(weakref.ref(value))
            return value

        return run

    replay.called = watching
    counter(torch.ones(2, 4))
    assert alive == [0, 1, 1]  # beside a layer's input, nothing is left


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_an_input_that_is_written_to_counts_as_it_was(when):
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.second = nn.Linear(4, 3, bias=False), nn.Linear(4, 2, bias=False)

        def forward(self, x):
            if when == "before":
                x.mul_(0)
            y = self.fc(x.flatten(1))
            if when == "between":
                x.mul_(0)
            y = y.sum() + self.second(x)
            if when == "after":
                x.mul_(0)
            return y

    counter = fxsynops.SynOpsCounter(Writes(), torch.ones(2, 4), strict=False)
    with torch.no_grad():
        counter(torch.ones(2, 4))
    first, second = {"fc": 2 * 4 * 3}, {"second": 2 * 4 * 2}
    expected = {"before": {}, "between": first, "after": first | second}
    assert {name: float(n) for name, n in counter.per_synapse.items()} == expected[when]


def transposes(layer, x):
    torch.ops.aten.transpose_.default(x, 0, 1)
    return layer(x)


class ReadsAndZeros(nn.Module):
    """A synapse that leaves nothing of its input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        y = x @ self.weight
        x.zero_()
        return y


@torch.library.custom_op("fxsynops_test::reads_and_zeros", mutates_args={"x"})
def reads_and_zeros(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    y = x @ weight
    x.zero_()
    return y


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.fc(torch.ops.aten.mul_.Scalar(x, 2)),
        lambda m, x: m.fc(torch.ops.aten.div_.Scalar(x, 2)),
        lambda m, x: transposes(m.fc, x),
        lambda m, x: m.zeros.forward(x),
        lambda m, x: reads_and_zeros(x, m.fc.weight),
    ],
)
def test_writes_under_any_name_are_noticed(run):
    from fxsynops.operations.registry import operations

    class Runs(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.zeros = nn.Linear(4, 4, bias=False), ReadsAndZeros()

        def forward(self, x):
            return run(self, x)

    before = operations.by_target.copy()
    pairs = lambda x, *_: x.sum(-1, keepdim=True).expand(*x.shape[:-1], 4)  # noqa: E731
    fxsynops.register_synapse(ReadsAndZeros, pairs)
    fxsynops.register_synapse(torch.ops.fxsynops_test.reads_and_zeros.default, pairs)
    try:
        x = torch.randint(0, 3, (4, 4)).float()
        counter = fxsynops.SynOpsCounter(Runs(), x.clone())
        with torch.no_grad():
            counter(x.clone())
    finally:
        operations.by_target.clear()
        operations.by_target.update(before)
    assert counter.counts.total == float(x.sum()) * 4


def test_an_error_names_the_node_and_the_users_line():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return torch.linalg.cholesky(self.fc(x)[:3, :3])  # fails for most values

    model = Fails()
    nn.init.eye_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    counter = fxsynops.SynOpsCounter(model, torch.eye(4))
    with pytest.raises(RuntimeError) as caught:
        counter(-torch.eye(4))
    (note,) = caught.value.__notes__
    assert "cholesky" in note
    assert "test_program.py:" in note


def test_an_error_that_says_more_already_keeps_its_notes():
    class Refuses(nn.Module):
        def forward(self, x):
            if x.amax() > 5:
                error = ValueError("too much")
                error.add_note("by the module itself")
                raise error
            return x

    model = nn.Sequential(Refuses(), nn.Linear(4, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 4), spiking=[Refuses])
    with pytest.raises(ValueError, match="too much") as caught:
        counter(9 * torch.ones(1, 4))
    assert caught.value.__notes__ == ["by the module itself"]


def test_a_replay_is_freed_without_the_garbage_collector():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), torch.ones(2, 4))
    counter(torch.ones(2, 4))
    replay = weakref.ref(next(iter(counter._replays.values()))[0])
    gc.collect()
    gc.disable()
    try:
        del counter
        assert replay() is None
    finally:
        gc.enable()


def test_a_subclass_sees_every_tapped_value():
    from fxsynops.counting.replay import Replay

    class Watching(Replay):
        def measure(self, stop, value, unit):
            seen.append((str(stop.node), tuple(value.shape), unit))
            super().measure(stop, value, unit)

    seen: list[tuple[str, tuple[int, ...], float]] = []
    model = nn.Sequential(nn.Linear(4, 3), fxsynops.nn.NeuromorphicReLU(), nn.Linear(3, 2))
    analysis = fxsynops.analyze(model, torch.ones(2, 4))
    _, tally = Watching(analysis).count((torch.ones(2, 4),))
    assert seen == [("input_1", (2, 4), 1.0), ("n_1", (2, 3), 1.0)]
    with torch.no_grad():
        spikes = model[1](model[0](torch.ones(2, 4))).sum()
        assert float(tally.total()) == 2 * 4 * 3 + float(spikes) * 2


@pytest.mark.parametrize("name", ["snntorch Leaky", "spikingjelly sew_resnet18", "norse LIFCell"])
def test_node_by_node_is_what_is_written_out(name):
    """An interpreter of its own runs each node, and counts the same."""
    from fxsynops.counting.replay import Replay

    class Stepping(Replay):
        def run_node(self, n):
            seen.append(n)
            return super().run_node(n)

    seen: list[torch.fx.Node] = []
    case = next(case for known, case in ZOO.items() if name in known)
    torch.manual_seed(0)
    model, inputs = case.build().eval(), case.inputs()
    case.reset(model)
    analysis = fxsynops.analyze(model, inputs, **case.options)
    found = []
    for kind in (Replay, Stepping):
        case.reset(model)
        torch.manual_seed(1)
        with torch.no_grad():
            found.append(kind(analysis).count(inputs))
    (y, tally), (y_stepping, stepping) = found
    assert seen == list(analysis.trace.graph.nodes)
    assert same(y, y_stepping)
    assert torch.equal(tally.both(), stepping.both())


def test_weights_that_became_zero_before_the_first_forward_do_not_count():
    model = nn.Linear(4, 3)
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4), weights="nonzero")
    with torch.no_grad():
        model.weight[0] = 0
    counter(torch.ones(2, 4))
    assert counter.counts.total == 2 * 4 * 2


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv1d(4, 3, 1)])
def test_nonzero_weights_in_inference_mode(layer):
    x = torch.ones(2, 4, *([1] if isinstance(layer, nn.Conv1d) else []))
    counter = fxsynops.SynOpsCounter(layer, x, weights="nonzero")
    with torch.inference_mode():
        counter(x)
    assert counter.counts.total == 2 * 4 * 3


@pytest.mark.parametrize("which", [0, 1])
def test_the_kind_of_every_tensor_is_a_condition(which):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
    counter(torch.ones(2, 4))
    conditions = counter.latest.trace.conditions
    assert conditions.hold()
    model[which].weight.requires_grad_(False)
    assert not conditions.hold()
    model[which].weight.requires_grad_(True)
    assert conditions.hold()
    model[which].weight.data = model[which].weight.data.double()
    assert not conditions.hold()


@pytest.mark.parametrize("value", [True, None, 3, -(2**70), 0.1, -0.0, float("nan"), "a'\n", (1,)])
def test_an_expression_for_an_object(value):
    objects = Objects()
    code = f"def both(): return {objects.value(value)}, {objects.name(value)}"
    found, same = objects.function("both", code)()
    assert type(found) is type(value)
    assert repr(found) == repr(value)
    assert same is value


# -- conditions ------------------------------------------------------------------------------------


class Reads(nn.Module):
    """Reads dicts, and a number out of a buffer."""

    def __init__(self, level):
        super().__init__()
        self.fc, self.table = nn.Linear(4, 3), {"a": 1.0, "b": 5.0}
        self.gain, self.register = 1.0, collections.defaultdict(float, a=1.0)
        self.register_buffer("level", torch.tensor(level))

    def forward(self, x):
        first = next(iter(self.table.values()))
        scale = first * self.gain + self.register["a"]
        return self.fc(x) * scale * (1.0 if self.level.item() != 0 else 2.0)


def reading(level=0.0):
    torch.manual_seed(0)
    model, x = Reads(level), torch.ones(2, 4)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    return model, x, counter


def test_the_order_of_a_dict_is_a_condition():
    model, x, counter = reading()
    model.table["a"] = model.table.pop("a")
    assert torch.equal(counter(x), model(x))


@pytest.mark.filterwarnings("ignore:from this forward on")  # the second layer gets analog values
def test_the_order_of_modules_is_a_condition():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.ones(2, 4)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    model._modules["0"] = model._modules.pop("0")
    assert torch.equal(counter(x), model(x))


def test_conditions_leave_a_defaultdict_alone():
    model, _, counter = reading()
    conditions = counter.latest.trace.conditions
    assert conditions.hold()
    del model.register["a"]
    assert not conditions.hold()
    assert dict(model.register) == {}


def test_a_number_that_is_not_a_number_is_itself():
    _, x, counter = reading(float("nan"))
    trace = counter.latest.trace
    counter(x)
    assert counter.latest.trace is trace


def test_a_place_that_shares_a_tensor_may_go_away():
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.ones(4)
            self.held, self.fc = {"w": self.scale}, nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) * self.scale + (0 if self.held is None else self.held["w"])

    model, x = Shares(), torch.ones(2, 4)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    model.held = None
    assert torch.equal(counter(x), model(x))


def test_a_forward_that_is_made_anew_each_time_keeps_its_trace():
    class Partial(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def scaled(self, scale, x):
            return self.fc(x) * scale

        forward = functools.partialmethod(scaled, 2.0)

    model, x = Partial(), torch.ones(2, 4)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    trace = counter.latest.trace
    counter(x)
    assert counter.latest.trace is trace


def test_what_is_set_anew_each_time_is_written_out_once(monkeypatch):
    model, x, counter = reading()
    written = []
    function = Objects.function
    monkeypatch.setattr(
        Objects, "function", lambda self, *code: written.append(code) or function(self, *code)
    )
    for _ in range(5):
        model.gain = float("1.0")
        counter(x)
    assert len(written) == 1
    for _ in range(5):
        model.table["a"] = float("1.0")
        counter(x)
    assert len(written) == 2


def test_conditions_keep_no_state_alive():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.new()

        def new(self):
            self.last, self.states = torch.zeros(2, 4), [torch.zeros(2, 4)]
            self.named = {"a": (torch.zeros(2, 4),)}

        def forward(self, x):
            return self.fc(x) + self.states[0] + self.last + self.named["a"][0]

    model, x = Remembers(), torch.ones(2, 4)
    counter = fxsynops.SynOpsCounter(model, x)
    held = []
    for _ in range(3):
        held += map(weakref.ref, (model.states[0], model.last, model.named["a"][0]))
        counter(x)
        model.new()
    gc.collect()
    assert not any(tensor() is not None for tensor in held)


def test_traces_that_alternate_are_not_written_out_again(monkeypatch):
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.ones(2, 4)
    counter = fxsynops.SynOpsCounter(model, x)
    for training in (True, False):
        model.train(training)
        counter(x)
    monkeypatch.setattr(Objects, "function", None)
    for training in (True, True, False, True, False):
        model.train(training)
        assert torch.equal(counter(x), model(x))


# -- what passes leave behind ----------------------------------------------------------------------


def test_pending_passes_do_not_keep_replays_alive():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), torch.ones(2, 4))
    replays, graphs = [], []
    for samples in range(1, 60):
        counter(torch.ones(samples, 4))
        replays.append(weakref.ref(counter._account.last[0]))
        graphs.append(weakref.ref(counter.latest.trace.graph))
    gc.collect()
    assert sum(replay() is not None for replay in replays) <= 16
    assert sum(graph() is not None for graph in graphs) <= 18  # and of the example, and the totals
    assert counter.counts.total == sum(range(1, 60)) * 4 * 3


def test_passes_without_connections_are_not_kept():
    counter = fxsynops.SynOpsCounter(nn.ReLU(), torch.ones(1, 2))
    with torch.no_grad():
        for _ in range(2500):
            counter(torch.ones(1, 2))
    assert len(counter._account.pending) <= 1024
    assert counter.counts.samples == 2500


def test_a_hook_may_count_while_a_pass_is_counted():
    model, x = nn.Sequential(nn.Linear(4, 3), fxsynops.nn.IAF()), torch.ones(2, 1, 4)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    inside = []

    def again(*_):
        if not inside:
            inside.append(True)
            counter(x)

    model[1].register_forward_hook(again)
    counter(x)
    assert counter.counts.total == 2 * 2 * 4 * 3


def test_counts_can_be_asked_for_again_after_a_time_on_the_meta_device():
    model = nn.Linear(4, 3)
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
    counter(torch.ones(2, 4))
    model.to("meta")
    counter(torch.ones(2, 4, device="meta"))
    with pytest.raises(fxsynops.CountError, match="meta device"):
        _ = counter.counts
    model.to_empty(device="cpu")
    counter(torch.ones(2, 4))
    with pytest.raises(fxsynops.CountError, match="meta device"):
        _ = counter.counts
    counter.clear()
    counter(torch.ones(2, 4))
    assert counter.counts.total == 2 * 4 * 3


# -- the total of a pass ---------------------------------------------------------------------------


def relu_net():
    layers = nn.Linear(4, 6), fxsynops.nn.NeuromorphicReLU(), nn.Linear(6, 2)
    x = torch.randint(0, 3, (5, 4)).float()
    return fxsynops.SynOpsCounter(nn.Sequential(*layers), x), x


def test_the_total_may_be_written_to():
    counter, x = relu_net()
    y = counter(x)
    before = float(counter.synops.detach())
    loss = counter.synops
    loss += y.square().sum()
    loss.backward()
    assert float(counter.synops.detach()) == before == counter.counts.total


def test_a_total_without_gradient_does_not_stand_in_for_one_with():
    counter, x = relu_net()
    counter(x)
    with torch.no_grad():
        assert float(counter.synops) == sum(map(float, counter.per_synapse.values()))
    assert counter.synops.requires_grad
    assert all(counter.per_synapse[name].requires_grad for name in ("2",))


@pytest.mark.parametrize("first", [True, False])
def test_inference_mode_leaves_nothing_behind(first):
    counter, x = relu_net()
    if not first:
        counter(x)
    with torch.inference_mode():
        if first:
            counter(x)
        assert float(counter.synops) == sum(map(float, counter.per_synapse.values()))
    counter(x)
    (counter.synops + sum(counter.per_synapse.values())).backward()
    assert counter.model[0].weight.grad.any()


def test_the_total_leaves_out_what_no_connection_counts():
    class Overflows(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.relu = nn.Linear(4, 4), nn.ReLU()

        def forward(self, x):
            return self.relu(self.fc(x) * torch.tensor(float("inf")))

    x = torch.ones(2, 4)
    counter = fxsynops.SynOpsCounter(Overflows(), x, rates=True, spiking=nn.ReLU)
    counter(x)
    assert float(counter.synops.detach()) == 2 * 4 * 4
