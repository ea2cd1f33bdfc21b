"""What sources, gates and synapses are called, and how they stand in rows and in the graph."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.connectivity.results import whole


def spikes(*size: int) -> Tensor:
    return torch.ones(size or (2, 6))


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return (v > 0.1).float()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Runs(nn.Module):
    """A forward that is a function of the module, with parts and weights by name."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *xs):
        return self.run(self, *xs)


class Subclass(nn.Linear):
    """A layer of torch's that does two things."""

    def forward(self, x):
        return F.linear(F.linear(x, self.weight), self.weight)


class Own(nn.Sequential):
    """A container that does two things."""

    def __init__(self):
        super().__init__()
        self.w = weight()

    def forward(self, x):
        return twice(self, x)


def weight() -> nn.Parameter:
    return nn.Parameter(torch.ones(6, 6))


def linear() -> nn.Linear:
    return nn.Linear(6, 6)


def names(model: nn.Module, *xs: Tensor, **options) -> list[tuple[str, str]]:
    rows = fxsynops.analyze(model, xs or spikes(), **options).connections
    return [(row.source, row.synapse) for row in rows]


def once(m, x):
    return F.linear(x, m.w)


def twice(m, x):
    return F.linear(F.relu(F.linear(x, m.w)).gt(0).float(), m.w)


def looped(m, x):
    for _ in range(3):
        x = Fire.apply(F.linear(x, m.w))
    return x


def in_two_places(m, x):
    return F.linear(x, m.w) + F.linear(x, m.w)


def two_kinds(m, x):
    return F.linear(x, m.w) + torch.matmul(x, m.w)


NAMES = {
    "a layer alone": (linear, [("input", "linear")]),
    "a layer": (lambda: nn.Sequential(linear()), [("input", "0")]),
    "deep": (
        lambda: nn.Sequential(nn.Sequential(nn.Identity(), linear())),
        [("input", "0.1")],
    ),
    "a function at the top": (lambda: Runs(once, w=weight()), [("xs_0", "w")]),
    "a function": (lambda: nn.Sequential(Runs(once, w=weight())), [("input", "0")]),
    "two functions": (
        lambda: nn.Sequential(Runs(twice, w=weight())),
        [("input", "0.w"), ("0:gt", "0.w#2")],
    ),
    "two functions at the top": (
        lambda: Runs(twice, w=weight()),
        [("xs_0", "w"), ("gt", "w#2")],
    ),
    "one place of a loop": (
        lambda: nn.Sequential(Runs(looped, w=weight())),
        [("input", "0"), ("0:Fire", "0")],
    ),
    "one place of a loop at the top": (
        lambda: Runs(looped, w=weight()),
        [("xs_0", "w"), ("Fire", "w")],
    ),
    "two places": (
        lambda: nn.Sequential(Runs(in_two_places, w=weight())),
        [("input", "0.w"), ("input", "0.w#2")],
    ),
    "two kinds": (
        lambda: nn.Sequential(Runs(two_kinds, w=weight())),
        [("input", "0.w"), ("input", "0.w#2")],
    ),
    "two things in a layer of torch's": (
        lambda: nn.Sequential(linear(), Runs(lambda m, v: Fire.apply(v)), Subclass(6, 6)),
        [("input", "0"), ("1:Fire", "2")],
    ),
    "in a container of one's own": (
        lambda: nn.Sequential(Own()),
        [("input", "0.w"), ("0:gt", "0.w#2")],
    ),
    "a module of the function's name": (
        lambda: Runs(lambda m, x: m.linear(Fire.apply(m.Fire(x))), linear=linear(), Fire=linear()),
        [("xs_0", "Fire"), ("Fire#2", "linear")],
    ),
    "an input of the module's name": (
        lambda: Runs(lambda m, x: m.xs_0(x), xs_0=linear()),
        [("xs_0 (input)", "xs_0")],
    ),
    "the same module twice": (
        lambda: Runs(lambda m, x: m.fc(Fire.apply(m.fc(x))), fc=linear()),
        [("xs_0", "fc"), ("Fire", "fc")],
    ),
    "a module by two names": (
        lambda: Runs(lambda m, x: m.a(Fire.apply(m.b(x))), **dict.fromkeys("ab", linear())),
        [("xs_0", "a"), ("Fire", "a")],
    ),
    "a neuron": (
        lambda: nn.Sequential(linear(), fxsynops.nn.NeuromorphicReLU(), linear()),
        [("input", "0"), ("1", "2")],
    ),
    "an operator": (
        lambda: Runs(lambda m, x: m.b((m.a(x) >= 0.1) * 1.0), a=linear(), b=linear()),
        [("xs_0", "a"), ("ge", "b")],
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_sources_and_synapses(name):
    build, expected = NAMES[name]
    assert sorted(names(build())) == sorted(expected)


def test_a_state_of_the_inputs_name():
    def run(m, x):
        y = m.fc(m.xs_0)
        m.xs_0 = Fire.apply(m.a(x))
        return y

    model = Runs(run, a=linear(), fc=linear(), xs_0=torch.zeros(2, 6))
    assert sorted(names(model)) == [("xs_0", "a"), ("xs_0 (state)", "fc")]


def test_sources_behind_a_gate_are_in_the_order_of_the_graph():
    def run(m, x, y):
        late, early = Fire.apply(m.b(y)), m.n(m.a(x))
        return m.fc(torch.maximum(early, late)) + m.fc(late)

    n = fxsynops.nn.NeuromorphicReLU()
    model = Runs(run, a=linear(), b=linear(), n=n, fc=linear())
    rows = {r.measured_at: r for r in fxsynops.analyze(model, (spikes(), spikes())).connections}
    gate = rows["maximum"]
    assert (gate.source, gate.sources, gate.synapse) == ("maximum", ("Fire", "n"), "fc")
    assert gate.key == ("maximum", "fc", "maximum")
    assert gate.label == "maximum"
    assert rows["Fire"].sources == ("Fire",)


def test_one_source_behind_a_gate_is_named_with_it():
    model = nn.Sequential(nn.MaxPool1d(2), nn.Linear(3, 4))
    (row,) = fxsynops.analyze(model, spikes(2, 1, 6)).connections
    assert (row.source, row.measured_at, row.label) == ("input", "0", "input at 0")
    assert row.key == ("input", "1", "0")


# -- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_a_row_says_how_many_neurons_reach_how_many_synapses(batch):
    """A convolution of width 3 over 5 places, padded: 2, 3, 3, 3, 2 places times 4 channels."""
    model = nn.Conv1d(2, 4, 3, padding=1)
    (row,) = fxsynops.analyze(model, spikes(batch, 2, 5)).connections
    assert row.kind == "conv1d"
    assert (row.shape, row.neurons) == ((2, 5), 10)
    assert row.fanout.map.dtype == torch.int64
    assert row.fanout.map.tolist() == [[[8, 12, 12, 12, 8]]]
    assert (row.fanout.min, row.fanout.max) == (8, 12)
    assert (row.fanout.total, row.fanout.mean) == (2 * 52, 10.4)
    assert row.fanout.nominal == 12


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("batch", [1, 3])
def test_rows_are_per_sample_and_step(batch, steps):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x):
            return torch.stack([self.b(Fire.apply(self.a(step))) for step in x.unbind(1)], 1)

    rows = fxsynops.analyze(Loop(), spikes(batch, steps, 6), layout="NT").connections
    assert [(r.shape, r.neurons, r.fanout.total) for r in rows] == [((6,), 6, 24), ((4,), 4, 8)]
    assert all(type(n) is int for r in rows for n in (r.neurons, r.fanout.total))
    dense = fxsynops.analyze(
        Loop(), torch.rand(batch, steps, 6), layout="NT", input_events=False
    ).dense
    assert [(row.synapse, row.kind, row.macs) for row in dense] == [("a", "linear", 24)]
    assert type(dense[0].macs) is int


def test_rows_are_read_and_compared_without_their_graph():
    model = nn.Linear(6, 4)
    (row,), (again,) = (fxsynops.analyze(model, spikes()).connections for _ in range(2))
    assert row == again
    assert "taps" not in repr(row)
    assert "calls" not in repr(row)
    assert "map" not in repr(row.fanout)


@pytest.mark.parametrize("timesteps", [None, 3])
@pytest.mark.parametrize("reads", [1, 3])
@pytest.mark.parametrize("places", [1, 2])
def test_a_static_input_is_there_as_often_as_a_loop_reads_it(timesteps, reads, places):
    """Two places in the code that read it are two paths to the layer."""

    def forward(m, x):
        total = 0
        for _ in range(reads):
            total = total + m.fc(x)
            if places == 2:
                total = total + m.fc(x)
        return total

    model, x = Runs(forward, fc=nn.Linear(6, 4)), torch.ones(5, 6)
    counter = fxsynops.SynOpsCounter(model, x, timesteps=timesteps)
    (row,) = counter.analysis.connections
    steps, fanout = timesteps or 1, 4 * places
    assert (row.fanout.min, row.fanout.max, row.fanout.mean) == (fanout, fanout, fanout)
    often = max(reads / steps, 1)  # in a step that reads it
    assert row.neurons == 6 * often
    assert row.fanout.total == pytest.approx(6 * fanout * often)
    assert row.synapses == pytest.approx(6 * fanout * reads / steps)
    counter(x)
    assert float(counter.synops.detach()) == 5 * 6 * fanout * reads
    assert counter.counts.rows[0].events == 5 * 6 * reads


@pytest.mark.parametrize("calls", [1, 3, 6])
def test_a_step_that_is_read_again_reaches_more(calls):
    model = Runs(lambda m, x: sum(m.fc(x[1]) for _ in range(calls)), fc=nn.Linear(6, 4))
    x = torch.ones(3, 5, 6)
    (row,) = fxsynops.analyze(model, x, layout="TN").connections
    assert row.fanout.map.flatten().tolist() == [0, 4 * calls, 0]
    assert (row.shape, row.neurons, row.fanout.total) == ((6,), 6, 6 * 4 * calls / 3)


@pytest.mark.parametrize("value", [3, 3.0, -2.0, 0.0, 2.0**40])
def test_whole_numbers_are_ints(value):
    assert type(whole(value)) is int
    assert whole(value) == value


@pytest.mark.parametrize("value", [0.5, -1.25, float("inf"), 1e-9])
def test_other_numbers_are_as_they_are(value):
    assert type(whole(value)) is float
    assert whole(value) == value


# -- the graph -------------------------------------------------------------------------------------


def edges(analysis) -> list[tuple]:
    return sorted(
        (a, b, d["kind"], d.get("synapses"), d.get("folded"), d.get("gated"))
        for a, b, d in analysis.graph.edges(data=True)
    )


def test_a_graph_of_sources_gates_and_synapses():
    def run(m, x, y, z):
        both = torch.maximum(x, y)
        return m.fc(both), m.two(both), m.fc(x), m.analog(z), m.folded(x + 0.5)

    parts = {
        name: nn.Linear(6, n) for name, n in zip(("fc", "two", "folded"), (3, 2, 4), strict=True)
    }
    analysis = fxsynops.analyze(
        Runs(run, **parts, analog=nn.Linear(6, 5)),
        (spikes(), spikes(), torch.rand(2, 6)),
        input_events=(True, True, False),
    )
    graph = analysis.graph
    assert graph.graph == {"model": "Runs"}
    assert dict(graph.nodes(data=True)) == {
        "xs_0": {"kind": "source"},
        "xs_1": {"kind": "source"},
        "maximum": {"kind": "gate"},
        "fc": {"kind": "linear"},
        "two": {"kind": "linear"},
        "folded": {"kind": "linear"},
        "analog": {"kind": "linear", "macs": 30},
    }
    assert edges(analysis) == [
        ("maximum", "fc", "connection", 18, False, True),
        ("maximum", "two", "connection", 12, False, True),
        ("xs_0", "fc", "connection", 18, False, False),
        ("xs_0", "folded", "connection", 24, True, False),
        ("xs_0", "maximum", "gate", None, None, None),
        ("xs_1", "maximum", "gate", None, None, None),
    ]
    connections = {c.key: c for c in analysis.connections}
    for _, _, data in graph.edges(data=True):
        if data["kind"] == "connection":
            assert data["connection"] is connections[data["connection"].key]


def test_a_gate_of_one_source_is_an_edge_that_says_so():
    analysis = fxsynops.analyze(nn.Sequential(nn.MaxPool1d(2), nn.Linear(3, 4)), spikes(2, 1, 6))
    assert edges(analysis) == [("input", "1", "connection", 12, False, True)]
    assert dict(analysis.graph.nodes(data="kind")) == {"input": "source", "1": "linear"}


def test_a_product_of_events_is_a_loop():
    model = Runs(lambda m, q, k: m.fc(q @ k.mT), fc=nn.Linear(2, 3))
    analysis = fxsynops.analyze(model, (spikes(2, 2, 6), spikes(2, 2, 6)))
    kinds = dict(analysis.graph.nodes(data="kind"))
    assert kinds == {"xs_0": "source", "xs_1": "source", "matmul": "matmul", "fc": "linear"}
    assert [(a, b, kind) for a, b, kind, *_ in edges(analysis)] == [
        ("matmul", "fc", "connection"),
        ("matmul", "matmul", "connection"),
        ("xs_0", "matmul", "gate"),
        ("xs_1", "matmul", "gate"),
    ]


# -- remarks ---------------------------------------------------------------------------------------


def said(analysis) -> str:
    return " ".join(str(analysis).split())


@pytest.mark.parametrize("folded", [1, 4, 6])
def test_folded_connections_are_named_up_to_four(folded):
    layers = {f"layer{i}": linear() for i in range(folded)}
    model = Runs(
        lambda m, x: [getattr(m, n)(x + 0.5) for n in layers] + [m.plain(x)],
        plain=linear(),
        **layers,
    )
    (remark,) = [r for r in fxsynops.analyze(model, spikes()).remarks() if "Folded" in r]
    listed, _, more = (
        remark.partition(" on their way to ")[2].partition(", which")[0].partition(" and ")
    )
    assert listed == ", ".join(list(layers)[:4])
    assert more == (f"{folded - 4} more" if folded > 4 else "")


@pytest.mark.parametrize("branches", [0, 1, 8, 9])
def test_branches_on_data_are_named_up_to_eight(branches):
    source = "\n".join(f"    if x.sum() > {i}: x = x + 0" for i in range(branches))
    scope: dict = {}
    exec(compile(f"def run(m, x):\n{source}\n    return m.fc(x)", "branches.py", "exec"), scope)
    analysis = fxsynops.analyze(Runs(scope["run"], fc=linear()), spikes())
    remarks = [r for r in analysis.remarks() if r.startswith("Specialized on data")]
    named = [r for r in remarks if r.startswith("Specialized on data: ")]
    rest = [r for r in remarks if r not in named]
    assert len(named) == min(branches, 8)
    more = [f"Specialized on data in {branches - 8} more places."]
    assert rest == (more if branches > 8 else [])
    assert len(analysis.specialized) == branches


def test_what_has_no_events_says_why():
    analog = fxsynops.analyze(linear(), torch.rand(2, 6), input_events=False)
    assert "No events: the model has no spiking node" in said(analog)
    neuron = nn.Sequential(linear(), fxsynops.nn.NeuromorphicReLU())
    last = fxsynops.analyze(neuron, torch.rand(2, 6), input_events=False)
    assert "No events: of what spikes, nothing reaches a synapse" in said(last)
    assert "No events" not in said(fxsynops.analyze(linear(), spikes()))


def test_unresolved_rows_are_said_and_are_no_lack_of_events():
    model = Runs(lambda m, x: m.fc(torch.fft.rfft(x).abs()), fc=nn.Linear(4, 2))
    analysis = fxsynops.analyze(model, spikes(), strict=False)
    assert "Unresolved, not counted: " in said(analysis)
    assert "No events" not in said(analysis)


@pytest.mark.parametrize("many", [1, 10, 12])
def test_an_error_lists_ten_of_what_it_cannot_count(many):
    layers = {f"layer{i}": linear() for i in range(many)}
    model = Runs(lambda m, x: [getattr(m, n)(torch.round(x, decimals=1)) for n in layers], **layers)
    with pytest.raises(fxsynops.UnsupportedOperationError) as error:
        fxsynops.analyze(model, spikes())
    listed = [line for line in str(error.value).splitlines() if line.startswith("  - ")]
    assert len(listed) == min(many, 10)
    assert (f"and {many - 10} more" in str(error.value)) == (many > 10)


# -- what may not be as the user thinks ------------------------------------------------------------


class Custom(nn.Module):
    def forward(self, v):
        return Fire.apply(v) * 1


class Unused(nn.Module):
    def forward(self, v):
        return v


UNUSED = "matches nothing that the model calls"


@pytest.mark.parametrize(
    ("run", "kinds"),
    [
        (lambda m, x: m.b(m.n(m.a(x))), (Custom,)),
        (lambda m, x: m.b(Fire.apply(m.a(x))), (Fire,)),
        (lambda m, x: m.b(F.relu(m.a(x)).round()), (nn.ReLU,)),
        (lambda m, x: m.b(m.r(m.a(x))), (nn.ReLU,)),
        (lambda m, x: m.b(m.n(m.a(x)) + Fire.apply(m.a(x))), (Custom, Fire)),
        (lambda m, x: m.b(F.leaky_relu(m.a(x))), (nn.LeakyReLU,)),
    ],
)
def test_a_type_that_is_named_and_used_is_not_doubted(run, kinds):
    model = Runs(run, a=linear(), b=linear(), n=Custom(), r=nn.ReLU())
    whole_numbers = torch.zeros(2, 6)
    analysis = fxsynops.analyze(model, whole_numbers, spiking=kinds, audit=False)
    assert UNUSED not in said(analysis)
    doubted = fxsynops.analyze(model, whole_numbers, spiking=(*kinds, Unused), audit=False)
    assert f"spiking=Unused {UNUSED}" in said(doubted)
    assert said(doubted).count(UNUSED) == 1


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (lambda m, x: m.b(Fire.apply(m.a(x))), nn.ReLU),
        (lambda m, x: m.b(Fire.apply(m.a(x))), Custom),
        (lambda m, x: m.b(m.r(Fire.apply(m.a(x)))), nn.ELU),
        (lambda m, x: m.b(m.n(m.a(x))), nn.ReLU),
        (lambda m, x: m.b(F.relu(Fire.apply(m.a(x)))), nn.LeakyReLU),
    ],
)
def test_a_type_that_is_named_and_not_used_is_doubted(run, kind):
    model = Runs(run, a=linear(), b=linear(), n=Custom(), r=nn.ReLU())
    analysis = fxsynops.analyze(model, spikes(), spiking=(kind,))
    assert said(analysis).count(f"spiking={kind.__name__} {UNUSED}") == 1


class Third(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return v / 3

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_a_function_that_is_taken_for_analog_is_said_once_for_each_place():
    def run(m, x):
        v = m.a(x)
        for _ in range(3):
            v = Third.apply(v)
        return m.b(v) + m.b(Third.apply(m.a(x)))

    doubts = fxsynops.analyze(Runs(run, a=linear(), b=linear()), spikes()).doubts
    assert len([d for d in doubts if d.startswith("'Third'")]) == 2


@pytest.mark.parametrize("flags", [(True,), (True, False, True), ()])
def test_as_many_flags_as_inputs(flags):
    model = Runs(lambda m, x, y: m.fc(x) + m.fc(y), fc=linear())
    with pytest.raises(fxsynops.FxSynopsError, match=f"{len(flags)} entries for 2 tensor"):
        fxsynops.analyze(model, (spikes(), spikes()), input_events=flags)


@pytest.mark.parametrize("flags", [(True, False), (False, True), (True, True), (False, False)])
def test_each_input_has_its_own_flag(flags):
    model = Runs(lambda m, x, y: (m.a(x), m.b(y)), a=linear(), b=linear())
    analysis = fxsynops.analyze(model, (spikes(), spikes()), input_events=flags)
    events = [name for name, flag in zip("ab", flags, strict=True) if flag]
    assert [row.synapse for row in analysis.connections] == events
    assert [row.synapse for row in analysis.dense] == [n for n in "ab" if n not in events]


def test_nothing_to_count_is_an_error():
    model = Runs(lambda m, x: torch.sigmoid(x))
    with pytest.raises(fxsynops.FxSynopsError, match="Runs has no spiking node"):
        fxsynops.analyze(model, torch.rand(2, 6), input_events=False)


@pytest.mark.parametrize("events", ["value", "nonzero"])
def test_hooks_that_look_on_have_no_rows(events):
    """Rows behind them go by what makes the tensor, as they do without hooks."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.n = nn.Linear(6, 6), fnn.IAF()

        def forward(self, x):
            return x + self.n(self.a(x))

    def rows(model):
        counter = fxsynops.SynOpsCounter(model, torch.ones(2, 5, 6), layout="NT", events=events)
        counter(torch.ones(2, 5, 6))
        return counter.counts.to_rows()

    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block(), nn.Linear(6, 3))
    bare = rows(model)
    for module in model:
        module.register_forward_pre_hook(lambda module, args: None)
        module.register_forward_hook(lambda module, args, output: None)
    for neuron in (model[0].n, model[1].n):
        neuron.reset_states()
    assert rows(model) == bare


class Halves(nn.Module):
    """Two layers behind one tensor, and behind a sum."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), nn.Linear(6, 4))
        self.outer, self.last = nn.Linear(6, 3), nn.Linear(4, 2)

    def forward(self, x):
        between = self.inner(x)
        return self.last(between), between, self.outer(x), x + 1


@pytest.mark.parametrize("where", ["", "inner", "inner.0", "inner.1", "last"])
@pytest.mark.parametrize("behind", [False, True])
def test_what_a_hook_hands_on_is_seen_inside_alone(where, behind, monkeypatch):
    """Who else uses the tensor that the hook was given sees it as it was."""
    torch.manual_seed(0)
    model, x = Halves(), torch.ones(2, 6)
    module = model.get_submodule(where)
    twice = {"": lambda o: tuple(t * 2 for t in o)}.get(where, lambda o: o * 2)
    if behind:
        module.register_forward_hook(lambda module, args, output: twice(output))
    else:
        module.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    counter = fxsynops.SynOpsCounter(model, x, layout="N")
    output, got = counter(x), []
    with monkeypatch.context() as patch:  # what really arrives at each layer
        linear = F.linear
        patch.setattr(F, "linear", lambda x, *rest: got.append(x) or linear(x, *rest))
        expected = model(x)
    assert all(map(torch.equal, output, expected))
    inner, _, outer = got
    found = {name: float(synops) for name, synops in counter.per_synapse.items()}
    assert found == {"inner.1": 4 * float(inner.sum()), "outer": 3 * float(outer.sum())}


@pytest.mark.parametrize(
    ("hook", "options"),
    [
        (lambda module, args: (torch.cat([args[0], args[0]]),), {}),
        (lambda module, args: (args[0].T,), {}),
        (lambda module, args, kwargs: ((), {"input": args[0]}), {"with_kwargs": True}),
    ],
)
@pytest.mark.parametrize("where", ["", "0"])
def test_a_hook_that_hands_on_other_sizes_or_arguments_is_refused(where, hook, options):
    """The recorded forward is of the model without it."""
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), torch.ones(6, 6)[:5]
    counter = fxsynops.SynOpsCounter(model, x, layout="N")
    model.get_submodule(where).register_forward_pre_hook(hook, **options)
    with pytest.raises(fxsynops.FxSynopsError, match="hands on other arguments or sizes"):
        counter(x)


def test_a_hook_that_makes_a_tuple_is_refused():
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), torch.ones(5, 6)
    model[1].register_forward_hook(lambda module, args, output: (output, output))
    with pytest.raises(fxsynops.FxSynopsError, match="hands on other arguments or sizes"):
        fxsynops.SynOpsCounter(model, x, layout="N")(x)


@pytest.mark.parametrize("parameter", ["einsum", "matmul", "w#2"])
def test_names_of_parameters_and_of_functions_are_never_one(parameter):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.last = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(4, 6))
            self._parameters[parameter] = nn.Parameter(torch.randn(6, 4))
            self.weight = nn.Parameter(torch.randn(4, 6))

        def forward(self, x):
            y = torch.einsum("nf,of->no", x, self.weight) + torch.matmul(x, self.weight.T)
            y = y + F.linear(x, self.w) + x @ self.w.T + x @ self._parameters[parameter]
            return y + torch.einsum("nf,of->no", x, self.last)

    counter = fxsynops.SynOpsCounter(Named(), torch.ones(2, 6), layout="N")
    counter(torch.ones(2, 6))
    assert len(counter.analysis.connections) == 6
    assert {int(synops) for synops in counter.per_synapse.values()} == {2 * 6 * 4}
    assert len(counter.per_synapse) == 6


def test_scripted_blocks_of_one_class_have_rows_of_their_own():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return self.b((self.a(x) > 0).float())

    torch.manual_seed(0)
    plain, x = nn.Sequential(Block(), Block()), torch.ones(2, 6)
    scripted = nn.Sequential(*map(torch.jit.script, plain))
    found = []
    for model in (plain, scripted):
        counter = fxsynops.SynOpsCounter(model, x, layout="N")
        counter(x)
        found.append({name: float(s.detach()) for name, s in counter.per_synapse.items()})
    assert found[0] == found[1]
    assert set(found[0]) == {"0.a", "0.b", "1.b"}
