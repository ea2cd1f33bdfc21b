"""``torch.compile`` around a counter, and around parts of what is counted."""

import copy

import pytest
import snntorch
import torch
from spikingjelly.activation_based import neuron
from torch import nn

import fxsynops
from fxsynops import nn as fnn
from fxsynops.tracing.torch_versions import compiles_functions

# What the compiler warns of is its own matter.
pytestmark = pytest.mark.filterwarnings("ignore")


class Stepped(nn.Module):
    """A loop over steps of two layers of snntorch's, whose thresholds are tensors."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)
        self.lif1 = snntorch.Leaky(0.9, threshold=0.5, init_hidden=True)
        self.lif2 = snntorch.Leaky(0.9, threshold=0.5, init_hidden=True)

    def forward(self, x):
        return torch.stack([self.lif2(self.fc2(self.lif1(self.fc1(v)))) for v in x.unbind(1)], 1)


class Residual(nn.Module):
    """Convolutions, a norm and a sum."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(64, 3)
        self.act1, self.act2 = fnn.NeuromorphicReLU(), fnn.NeuromorphicReLU()

    def forward(self, x, scale=1.0):
        x = self.act1(self.norm(self.conv1(x * scale)))
        return self.fc((self.act2(self.conv2(x)) + x).flatten(1))


class Jelly(nn.Module):
    """Multi-step neurons of spikingjelly's."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), neuron.LIFNode(step_mode="m"), nn.Linear(8, 3))

    def forward(self, x):
        return self.layers(x)


def fresh(model):
    for module in model.modules():
        if isinstance(module, neuron.BaseNode):
            module.reset()
        if isinstance(module, snntorch.Leaky):
            module.reset_mem()
    return model


def case(name):
    torch.manual_seed(0)
    spikes = (torch.rand(4, 5, 6) < 0.5).float()
    model, x, options = {
        "stepped": (Stepped(), spikes, {"layout": "NT"}),
        "residual": (Residual(), torch.randint(0, 3, (4, 2, 4, 4)).float(), {}),
        "jelly": (Jelly(), spikes, {"layout": "TN"}),
    }[name]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model, x, options


def measured(run, counter, model, x):
    """Output, counts and gradients of one training step."""
    model.zero_grad()
    counter.clear()
    y = run(x)
    (y.square().mean() + counter.synops / 1e3).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    rows = [(row.connection.synapse, row.events, row.synops) for row in counter.counts.rows]
    return y.detach(), rows, grads


OPTIONS = {
    "plain": {},
    "apart": {"steps": True, "rates": True},
    "nonzero events": {"events": "nonzero"},
    "nonzero weights": {"weights": "nonzero"},  # which does not run compiled
}


@pytest.fixture(autouse=True)
def _anew():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("name", ["stepped", "residual", "jelly"])
def test_a_compiled_counter_counts_what_one_that_is_not_does(name, kind):
    model, x, options = case(name)
    twin = copy.deepcopy(model)
    counter = fxsynops.SynOpsCounter(model, x, **options, **OPTIONS[kind])
    other = fxsynops.SynOpsCounter(twin, x, **options, **OPTIONS[kind])
    compiled = torch.compile(counter, backend="aot_eager")
    for _ in range(2):
        y, rows, grads = measured(compiled, counter, fresh(model), x)
        y_other, rows_other, grads_other = measured(other, other, fresh(twin), x)
        assert torch.equal(y, y_other)
        assert rows == rows_other
        assert sum(synops for *_, synops in rows) > 0
        assert grads.keys() == grads_other.keys()
        for key, grad in grads.items():
            assert torch.allclose(grad, grads_other[key], rtol=1e-5)


def graphs(run, x):
    """How many graphs a call is compiled to, and what ends them."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch.no_grad():
        torch.compile(run, backend="eager")(x)
    found = torch._dynamo.utils.counters
    return found["stats"]["unique_graphs"], list(found["graph_break"])


@pytest.mark.skipif(not compiles_functions(), reason="it runs uncompiled with this torch")
@pytest.mark.parametrize("name", ["stepped", "residual", "jelly"])
def test_the_sums_are_in_the_graph_of_the_model(name):
    model, x, options = case(name)
    counter = fxsynops.SynOpsCounter(model, x, **options)
    plain, _ = graphs(fresh(model), x)
    counted, breaks = graphs(counter, x)
    assert plain == counted == 1
    assert all("disable" in why for why in breaks)  # before and behind it


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.full)])
def test_a_counter_in_a_compiled_model_counts(backend):
    class Outer(nn.Module):
        def __init__(self, counter):
            super().__init__()
            self.counter = counter

        def forward(self, x):
            return self.counter(x * 1.0, scale=1.0) + 1

    model, x, _ = case("residual")
    counter = fxsynops.SynOpsCounter(model.eval(), (x, 1.0))
    run = torch.compile(Outer(counter), backend=backend)
    with torch.no_grad():
        y = run(x)
        compiled = counter.counts
        counter.clear()
        assert torch.allclose(counter(x, 1.0) + 1, y, atol=1e-5)
    assert compiled.samples == len(x)
    assert compiled.total == counter.counts.total > 0


def test_other_shapes_and_modes_are_compiled_anew():
    model, x, _ = case("residual")
    counter = fxsynops.SynOpsCounter(model.eval(), x)
    compiled = torch.compile(counter, backend="eager")
    with torch.no_grad():
        for data in (x, x[:3], x[:1], x):
            counter.clear()
            compiled(data)
            found = counter.counts
            counter.clear()
            counter(data)
            assert (found.total, found.samples) == (counter.counts.total, len(data))
        model.train()
        counter.clear()
        compiled(x)
        assert counter.counts.samples == len(x)


def test_a_forward_that_branches_on_its_own_output_runs_uncompiled():
    class Early(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act, self.head = nn.Linear(6, 6), fnn.NeuromorphicReLU(), nn.Linear(6, 2)

        def forward(self, x):
            x = self.act(self.fc(x))
            if x.sum() > 20:
                x = self.act(self.fc(x))
            return self.head(x)

    torch.manual_seed(0)
    model, x = Early(), torch.ones(2, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    compiled = torch.compile(counter, backend="eager")
    with torch.no_grad():
        for data in (x, 30 * x, x):
            counter.clear()
            y, found = compiled(data), counter.counts.total
            counter.clear()
            assert torch.equal(y, counter(data))
            assert found == counter.counts.total


@pytest.mark.parametrize("way", ["module", "function", "whole", "method"])
def test_parts_that_are_compiled_already_are_counted(way):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.neuron = nn.Linear(6, 8), fnn.IAF()
            self.head = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))

        def forward(self, x):
            return self.head(self.neuron(self.fc1(x)))

    torch.manual_seed(0)
    model, x = Model(), (torch.rand(2, 5, 6) < 0.5).float()
    plain = fxsynops.count(copy.deepcopy(model), x, layout="NT", progress=False)
    if way == "module":
        model.head = torch.compile(model.head, backend="eager")
    elif way == "function":
        model.head.forward = torch.compile(model.head.forward, backend="eager")
    elif way == "method":
        model.head.compile(backend="eager")
    whole = torch.compile(model, backend="eager") if way == "whole" else model
    whole(x)  # compiles
    for module in model.modules():
        if isinstance(module, fnn.IAF):
            module.reset_states()
    counts = fxsynops.count(whole, x, layout="NT", progress=False)
    assert counts.total == plain.total > 0
    assert [row.synops for row in counts.rows] == [row.synops for row in plain.rows]
