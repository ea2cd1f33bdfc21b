"""The counter returns what the model returns, and leaves behind what the model leaves behind."""

from __future__ import annotations

import copy
import functools
import random

import numpy as np
import pytest
import torch
from torch import nn

import fxsynops
from tests import models

MODELS = {
    "loop": models.Loop,
    "early-bound apply": models.EarlyBound,
    "partial": lambda: models.Loop(functools.partial(models.Surrogate.apply)),
    "state": models.Stateful,
    "nested state": models.Nested,
    "in place": models.InPlace,
    "modes": models.Modes,
    "outputs": models.Outputs,
    "functional": models.Functional,
}
each_model = pytest.mark.parametrize("name", MODELS)


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    model = MODELS[name]()
    twin = MODELS[name]()
    twin.load_state_dict(model.state_dict())
    return model, twin


def leaves(value):
    return [v for v in torch.utils._pytree.tree_leaves(value) if isinstance(v, torch.Tensor)]


def assert_same(a, b):
    assert type(a) is type(b)
    assert torch.utils._pytree.tree_structure(a) == torch.utils._pytree.tree_structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        assert torch.equal(x, y)


def spikes(batch=4, steps=6):
    return (torch.rand(batch, steps, 6) < 0.5).float()


def both(counter, twin, x):
    """Outputs of the counter and of a twin of its model, with the same random numbers."""
    torch.manual_seed(7)
    y = counter(x)
    torch.manual_seed(7)
    return y, twin(x)


@each_model
def test_outputs_are_the_models_own_call_after_call(name):
    model, twin = pair(name)
    counter = fxsynops.SynOpsCounter(model, spikes(), layout="NT")
    for x in (
        spikes(),
        spikes(),
        spikes(),
        spikes(batch=2) if name != "nested state" else spikes(),
    ):
        assert_same(*both(counter, twin, x))
        for (key, ours), theirs in zip(
            model.state_dict().items(), twin.state_dict().values(), strict=True
        ):
            assert torch.equal(ours, theirs), key


@each_model
def test_outputs_are_the_models_own_in_either_mode_and_at_any_length(name):
    model, twin = pair(name)
    counter = fxsynops.SynOpsCounter(model, spikes(), layout="NT")
    for training in (True, False, True):
        for steps in (6,) if name == "functional" else (6, 3, 9):
            counter.train(training)
            twin.train(training)
            for m in (model, twin):
                if hasattr(m, "reset"):
                    m.reset()
            if name == "nested state":
                twin.load_state_dict(model.state_dict())
            assert_same(*both(counter, twin, spikes(steps=steps)))
    assert model.training


@each_model
@pytest.mark.parametrize("grad", [True, False])
def test_gradients_are_the_models_own(name, grad):
    model, twin = pair(name)
    counter = fxsynops.SynOpsCounter(model, spikes(), layout="NT")
    x, x2 = (spikes().requires_grad_(grad) for _ in range(2))
    x2.data.copy_(x.data)
    torch.manual_seed(7)
    sum(y.sum() for y in leaves(counter(x)) if y.requires_grad).backward()
    torch.manual_seed(7)
    sum(y.sum() for y in leaves(twin(x2)) if y.requires_grad).backward()
    for (key, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), key
        if ours.grad is not None:
            assert torch.equal(ours.grad, theirs.grad), key
    if grad and name not in ("state", "nested state"):  # where it ends at a comparison
        assert torch.equal(x.grad, x2.grad)
    if name in ("loop", "early-bound apply", "partial"):  # the surrogate's, and not zero
        assert model.fc1.weight.grad.abs().sum() > 0


@each_model
def test_outputs_are_the_models_own_in_other_dtypes(name):
    if name == "modes":
        pytest.skip("draws its random numbers in another order of magnitude per dtype")
    model, twin = pair(name)
    counter = fxsynops.SynOpsCounter(model, spikes(), layout="NT")
    model.double()
    twin.double()
    x = spikes().double()
    if name in ("state", "nested state"):
        return  # their .float() mixes dtypes: the model itself raises
    assert_same(*both(counter, twin, x))


@each_model
def test_outputs_are_the_models_own_under_autocast_and_no_grad(name):
    model, twin = pair(name)
    counter = fxsynops.SynOpsCounter(model, spikes(), layout="NT")
    with torch.no_grad():
        y, z = both(counter, twin, spikes())
    assert_same(y, z)
    assert not any(leaf.requires_grad for leaf in leaves(y))
    if name == "in place":
        return  # the model itself mixes dtypes under autocast
    for m in (model, twin):
        if hasattr(m, "reset"):
            m.reset()
    if name == "nested state":
        twin.load_state_dict(model.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        y, z = both(counter, twin, spikes())
    assert_same(y, z)


# -- what an analysis leaves behind ----------------------------------------------------------------


def everything(model: nn.Module):
    """Identity and value of all that a model holds."""
    found = {}
    for path, module in model.named_modules():
        for key, value in module.__dict__.items():
            found[path, key] = (id(value), repr(value))
            if isinstance(value, dict):
                found[path, key] += tuple((k, id(v)) for k, v in value.items())
            if isinstance(value, models.Holder):
                found[path, key] += ({k: (id(v), repr(v)) for k, v in value.__dict__.items()},)
    found["values"] = {k: v.clone() for k, v in model.state_dict(keep_vars=False).items()}
    found["grads"] = [p.grad for p in model.parameters()]
    return found


@each_model
@pytest.mark.parametrize("warm", [False, True])
def test_an_analysis_leaves_the_model_as_it_was(name, warm):
    model, _ = pair(name)
    if warm:
        model(spikes())
    fired, x = [], spikes()
    model.register_forward_hook(lambda *_: fired.append("root"))
    model.fc2.register_forward_pre_hook(lambda *_: fired.append("leaf")) if hasattr(
        model, "fc2"
    ) else None
    before = everything(model)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    fxsynops.analyze(model, x, layout="NT")
    after = everything(model)
    values, values_after = before.pop("values"), after.pop("values")
    assert before == after
    assert all(torch.equal(values[k], values_after[k]) for k in values)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()
    assert not fired


def test_an_analysis_that_raises_leaves_the_model_as_it_was():
    class Raises(models.Nested):
        def forward(self, x):
            super().forward(x)
            raise RuntimeError("half way")

    model, x = Raises(), spikes()
    before = everything(model)
    values = before.pop("values")
    state = torch.get_rng_state()
    with pytest.raises(fxsynops.TraceError, match="half way"):
        fxsynops.analyze(model, x, layout="NT")
    after = everything(model)
    assert all(torch.equal(v, values[k]) for k, v in after.pop("values").items())
    assert before == after
    assert torch.equal(state, torch.get_rng_state())
    assert "__getattribute__" not in nn.Module.__dict__


def test_the_input_is_not_written_to():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            x.add_(1)
            return self.fc(x)

    x = spikes()
    before = x.clone()
    counter = fxsynops.SynOpsCounter(Writes(), x, layout="NT")
    assert torch.equal(x, before)
    counter(x)
    assert torch.equal(x, before + 1)  # as the model would


# -- hooks -----------------------------------------------------------------------------------------


def test_hooks_fire_in_the_replay_as_in_the_model():
    def hooked():
        torch.manual_seed(1)
        inner = nn.Sequential(nn.Linear(6, 5), fxsynops.nn.NeuromorphicReLU())
        model = nn.Sequential(inner, nn.Linear(5, 3))
        log = []
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda m, a, n=name: log.append(("pre", n)))
            module.register_forward_hook(
                lambda m, a, k, y, n=name: log.append(("post", n, float(y.sum().detach()))),
                with_kwargs=True,
            )
            module.register_full_backward_hook(
                lambda m, i, o, n=name: log.append(("back", n, float(o[0].sum())))
            )
        inner.register_forward_hook(lambda m, a, y: y * 2)
        return model, log

    x = (torch.rand(4, 6) * 5).requires_grad_()
    model, log = hooked()
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    assert not log
    y = counter(x)
    y.sum().backward()
    twin, expected = hooked()
    z = twin(x)
    z.sum().backward()
    assert torch.equal(y, z)
    assert log == expected
    assert len(log) == 15


def test_hooks_that_come_after_the_analysis_fire_too():
    model = nn.Sequential(nn.Linear(6, 5), fxsynops.nn.NeuromorphicReLU(), nn.Linear(5, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    seen = []
    handle = model[2].register_forward_hook(lambda *_: seen.append(1))
    counter(torch.ones(4, 6))
    handle.remove()
    counter(torch.ones(4, 6))
    assert seen == [1]


@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        lambda m: nn.utils.prune.random_unstructured(m, "weight", 0.5),
    ],
    ids=["weight_norm", "spectral_norm", "prune"],
)
def test_reparametrized_weights_are_the_models_own(wrap):
    import torch.nn.utils.prune

    def make():
        torch.manual_seed(1)
        neurons = fxsynops.nn.NeuromorphicReLU()
        return nn.Sequential(wrap(nn.Linear(6, 5)), neurons, nn.Linear(5, 3))

    model, twin = make(), make()
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    for _ in range(3):
        x = torch.randint(0, 4, (4, 6)).float()
        y, z = counter(x), twin(x)
        assert torch.equal(y, z)
        assert float(counter.per_synapse["0"].detach()) == float(x.sum()) * 5
        y.sum().backward()
        z.sum().backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


# -- traces and their keys -------------------------------------------------------------------------


def test_a_changed_attribute_is_noticed():
    model = nn.Sequential(nn.Linear(6, 5), fxsynops.nn.NeuromorphicReLU(), nn.Dropout(0.0))
    model.append(nn.Linear(5, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    x = torch.rand(4, 6) * 9
    counter(x)
    model[2].p = 1.0
    assert torch.equal(counter(x), model(x))
    model[3] = nn.Linear(5, 7)
    assert counter(x).shape == (4, 7)
    assert torch.equal(counter(x), model(x))


class Old(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v, threshold=0.5):
        ctx.save_for_backward(v)
        return (v > threshold).float()

    @staticmethod
    def backward(ctx, grad):
        return grad * (ctx.saved_tensors[0].abs() < 1), None


class New(Old):
    @staticmethod
    def forward(v, threshold=0.5):
        return (v > threshold).float()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])


class Heir(New):
    pass


class InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.mark_dirty(v)
        return v.copy_((v > 0.5).float())

    @staticmethod
    def backward(ctx, grad):
        return grad


class Beside(torch.autograd.Function):
    """Spikes, and something else in front of them."""

    @staticmethod
    def forward(ctx, v):
        return v * 0.5, (v > 0.5).float()

    @staticmethod
    def backward(ctx, _, grad):
        return grad


EARLY = {
    "context": Old.apply,
    "set up": New.apply,
    "inherited": Heir.apply,
    "partial": functools.partial(New.apply),
    "in place": InPlace.apply,
    "two results": lambda v, apply=Beside.apply: apply(v)[1],
    "without gradient": lambda v, apply=Old.apply: torch.no_grad()(apply)(v),
}


@pytest.mark.parametrize("name", EARLY)
def test_functions_that_were_looked_up_before_are_one_node(name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.b(EARLY[name](self.a(x) * 2))

    model, x = Net(), torch.rand(4, 8)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    gradients = []
    for run in (model, counter):
        model.zero_grad()
        run(x).sum().backward()
        gradients.append(model.a.weight.grad)
    arrived = float((model.a(x) * 2 > 0.5).sum())
    assert {k: float(v.detach()) for k, v in counter.per_synapse.items()} == {"b": arrived * 3}
    if name == "without gradient":
        assert gradients == [None, None]
    else:
        assert torch.equal(*gradients)
        assert gradients[0].abs().sum() > 0


def test_a_branch_on_data_is_reported_and_checked():
    model = models.Branches()
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6, 6), layout="NT")
    (branch,) = counter.analysis.specialized
    assert "models.py" in branch
    assert torch.equal(counter(torch.ones(4, 6, 6)), model(torch.ones(4, 6, 6)))
    with pytest.raises(fxsynops.SpecializationError, match=r"models\.py:\d+.*branches on data"):
        counter(torch.zeros(4, 6, 6))


def test_numbers_read_from_parameters_follow_them():
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.gain = nn.Linear(6, 3), nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.fc(x) * self.gain.item()

    model = Gain()
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    model.gain.data.fill_(3.0)
    assert torch.equal(counter(torch.ones(4, 6)), model(torch.ones(4, 6)))


def test_counters_can_be_copied_and_pickled():
    import pickle

    model = nn.Sequential(nn.Linear(6, 5), fxsynops.nn.NeuromorphicReLU(), nn.Linear(5, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    for twin in (copy.deepcopy(counter), pickle.loads(pickle.dumps(counter))):
        assert twin.model is not model
        x = torch.rand(4, 6)
        assert torch.equal(twin(x), counter(x))
        assert twin.synops == counter.synops


def test_the_state_dict_is_the_models():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), fxsynops.nn.NeuromorphicReLU())
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    state = counter.state_dict()
    assert list(state) == list(model.state_dict())
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data.add_(1.0)
    counter.load_state_dict(other.state_dict())
    assert torch.equal(model[0].weight, other[0].weight)
    other.load_state_dict(counter.state_dict())
    wrapper = nn.ModuleDict({"inner": counter})
    assert list(wrapper.state_dict()) == [f"inner.{key}" for key in model.state_dict()]
    wrapper.load_state_dict(wrapper.state_dict())


def test_resetting_neurons_leaves_counts_alone():
    from spikingjelly.activation_based import functional, neuron

    model = nn.Sequential(nn.Linear(6, 5), neuron.IFNode(), nn.Linear(5, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    counter(torch.ones(4, 6))
    total = counter.counts.total
    functional.reset_net(counter)
    assert counter.counts.total == total > 0
    assert isinstance(model[1].v, float)


def test_checkpointed_recomputation_counts_once():
    from torch.utils.checkpoint import checkpoint

    model = nn.Sequential(nn.Linear(6, 5), fxsynops.nn.NeuromorphicReLU(), nn.Linear(5, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    x = torch.ones(4, 6, requires_grad=True)
    checkpoint(counter, x, use_reentrant=False).sum().backward()
    assert counter.counts.samples == 4
    assert counter.per_synapse["0"] == 4 * 6 * 5


def test_a_failed_forward_commits_nothing():
    model = nn.Sequential(nn.Linear(6, 5), fxsynops.nn.NeuromorphicReLU(), nn.Linear(5, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    counter(torch.ones(4, 6))
    total = counter.counts.total
    handle = model[2].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        counter(torch.ones(4, 6))
    handle.remove()
    assert counter.counts.total == total


@torch.jit.script
def scripted(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + 1


def test_scripted_functions_and_vmap_are_recorded_through():
    class Slips(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            h = scripted(self.fc1(x))
            h = torch.vmap(lambda row: row * row.mean())(h)
            return self.fc2((h > 0.5).float())

    model = Slips()
    counter = fxsynops.SynOpsCounter(model, torch.rand(4, 6), input_events=False)
    x = torch.rand(4, 6)
    assert torch.allclose(counter(x), model(x))
    assert counter.per_synapse["fc2"] > 0


# -- state of modules kept whole, changed by their user --------------------------------------------


def _resets():
    import snntorch
    from spikingjelly.activation_based import functional, neuron

    lif = lambda: neuron.LIFNode(v_threshold=0.7)  # noqa: E731
    leaky = lambda: snntorch.Leaky(beta=0.9, init_hidden=True)  # noqa: E731
    return {
        "reset_net": (lif, functional.reset_net),
        "v = 0.1": (lif, lambda node: setattr(node, "v", 0.1)),
        "reset_mem": (leaky, lambda node: node.reset_mem()),
    }


@pytest.mark.parametrize("name", _resets())
def test_neurons_that_the_forward_resets_are_reset_in_the_replay(name):
    make, reset = _resets()[name]

    def model():
        torch.manual_seed(1)
        return models.ResetsInForward(make(), reset)

    ours, twin = model(), model()
    counter = fxsynops.SynOpsCounter(ours, spikes(), layout="NT")
    for _ in range(3):
        x = spikes()
        assert_same(counter(x), twin(x))


def test_buffers_that_are_none_or_come_later_are_noticed():
    model, twin = models.NoneBuffer(), models.NoneBuffer()
    twin.load_state_dict(model.state_dict())
    counter = fxsynops.SynOpsCounter(model, spikes(), layout="NT")
    assert list(model._buffers) == ["mem"]
    assert not model._non_persistent_buffers_set
    for _ in range(3):
        x = spikes()
        assert_same(counter(x), twin(x))


def test_gradient_modes_and_strides_are_part_of_a_traces_key():
    model = models.AsksForModes()
    counter = fxsynops.SynOpsCounter(model, spikes(), layout="NT")
    x = spikes()
    for y in (x, x.clone().requires_grad_(), x.transpose(0, 1).contiguous().transpose(0, 1)):
        assert_same(counter(y), model(y))
        with torch.no_grad():
            assert_same(counter(y), model(y))
        with torch.inference_mode():
            assert_same(counter(y), model(y))
            assert_same(counter(y[:2].clone()), model(y[:2].clone()))
    model.fc1.requires_grad_(False)
    assert_same(counter(x), model(x))


def test_sizes_that_depend_on_data_are_checked():
    class Sized(models.Branches):
        def forward(self, x):
            h = self.fc1(x[:, 0])
            return self.fc2(Heaviside.apply(h)) / (1 + x[x > 0].numel())

    from tests.networks import Heaviside

    model, x = Sized(), torch.ones(4, 6, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    assert "a size was" in counter.analysis.specialized[0]
    assert_same(counter(x), model(x))
    with pytest.raises(fxsynops.SpecializationError, match="a size that data decide"):
        counter(torch.zeros(4, 6, 6))


def test_outputs_keep_their_type():
    import collections

    class Typed(models.Branches):
        def forward(self, x):
            h = Heaviside.apply(self.fc1(x[:, 0]))
            y = self.fc2(h)
            named = collections.defaultdict(list, {"y": y})
            return y.max(1), named, [y, (h,)], collections.OrderedDict(y=y)

    from tests.networks import Heaviside

    model, x = Typed(), spikes()
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    ours, theirs = counter(x), model(x)
    assert [type(part) for part in ours] == [type(part) for part in theirs]
    assert torch.equal(ours[0].values, theirs[0].values)


class Doubles(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x * 2], 1)


def test_scripted_submodules_are_recorded_through():
    model = nn.Sequential(nn.Linear(6, 5), fxsynops.nn.NeuromorphicReLU())
    model.extend([torch.jit.script(Doubles()), nn.Linear(10, 3)])
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    x = torch.rand(4, 6) * 9
    assert torch.allclose(counter(x), model(x))
    spikes = model[:2](x).detach().sum()
    assert float(counter.per_synapse["3"].detach()) == float(spikes) * 2 * 3


def test_a_copied_counter_follows_the_copys_state():
    model = models.Stateful()
    counter = fxsynops.SynOpsCounter(model, spikes(), layout="NT")
    with torch.no_grad():
        counter(spikes(batch=7))
    twin = copy.deepcopy(counter)
    with torch.no_grad():
        x = spikes(batch=7)
        assert torch.equal(twin(x), counter(x))
    assert twin.analysis.connections


def test_a_model_with_a_part_called_model_keeps_its_keys():
    class Clash(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.weight = nn.Linear(6, 6), nn.Parameter(torch.ones(6))

        def forward(self, x):
            return self.model(x) * self.weight

    model = Clash()
    counter = fxsynops.SynOpsCounter(model, torch.ones(4, 6))
    assert list(counter.state_dict()) == list(model.state_dict())
    counter.load_state_dict(model.state_dict())
    counter.load_state_dict(counter.state_dict())


# -- conditions of a trace -------------------------------------------------------------------------


class Configured(nn.Module):
    """Reads a number, a tuple, a dict and a list from its attributes."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 5), nn.Linear(5, 3)
        self.gain, self.sizes, self.table, self.listed = 2.0, (1, 2), {"a": 1.0}, [1.0]

    def forward(self, x):
        h = self.fc1(x[:, 0]) * self.gain * self.sizes[0] * self.table["a"] * self.listed[0]
        return self.fc2((h > 0.5).float())


@pytest.mark.parametrize(
    ("change", "retraces"),
    [
        (lambda m: setattr(m, "gain", float("2.0")), False),  # another object, the same number
        (lambda m: setattr(m, "sizes", (1, 2)), False),
        (lambda m: setattr(m, "gain", -2.0), True),
        (lambda m: setattr(m, "gain", 2), True),  # equal, but of another type
        (lambda m: setattr(m, "sizes", (-1, 2)), True),
        (lambda m: m.table.update(a=-1.0), True),
        (lambda m: m.table.update(b=3.0), True),
        (lambda m: m.listed.__setitem__(0, -1.0), True),
        (lambda m: setattr(m, "fc1", nn.Linear(6, 5)), True),
        (lambda m: m.fc1.register_forward_hook(lambda *_: None), True),
        (lambda m: m.fc2.eval(), True),
        (lambda m: setattr(m.fc2, "forward", lambda x: x[:, :3] * 7), True),
        (lambda m: setattr(m, "unrelated", 3), False),
    ],
)
def test_a_trace_is_made_anew_when_what_it_read_has_changed(change, retraces):
    torch.manual_seed(0)
    model, x = Configured(), torch.rand(4, 2, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT", input_events=False)
    counter(x)
    before = [replay for known in counter._replays.values() for replay in known]
    for _ in range(2):
        change(model)
        assert torch.equal(counter(x), model(x))
    after = [replay for known in counter._replays.values() for replay in known]
    assert (len(after) > len(before)) == retraces
