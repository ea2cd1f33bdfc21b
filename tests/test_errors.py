"""Bad input gets an error that names the module, the user's own line and the cure."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from tests import models


def simple() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 4), fnn.NeuromorphicReLU(), nn.Linear(4, 2))


class Forward(nn.Module):
    """A model whose forward is a function of its two layers and the input."""

    def __init__(self, forward):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 4), nn.Linear(4, 2)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def test_a_model_that_cannot_be_traced():
    said = r"module '0' raised RuntimeError: (addmm: )?mat1"
    with pytest.raises(fxsynops.TraceError, match=said) as info:
        fxsynops.analyze(simple(), torch.ones(2, 7))
    assert isinstance(info.value.__cause__, RuntimeError)
    with pytest.raises(fxsynops.TraceError, match=r"test_errors\.py:\d+"):
        fxsynops.analyze(Forward(lambda self, x: self.missing), torch.ones(2, 8))


def odd(x):
    return torch.special.i0(x)


def test_an_unknown_operation_between_source_and_synapse():
    model = Forward(lambda self, x: self.fc2(odd(self.fc1(x).gt(0).float())))
    with pytest.raises(fxsynops.UnsupportedOperationError) as info:
        fxsynops.analyze(model, torch.ones(2, 8))
    message = str(info.value)
    for text in ("special_i0", "test_errors.py:", "'fc2'", "register_routing", "strict=False"):
        assert text in message
    analysis = fxsynops.analyze(model, torch.ones(2, 8), strict=False)
    (row,) = analysis.unresolved
    assert row.synapse == "fc2"
    assert "special_i0" in row.operation
    assert [c.synapse for c in analysis.connections] == ["fc1"]
    assert "Unresolved" in str(analysis)
    with pytest.raises(fxsynops.InputError, match="unresolved"):
        analysis.upper_bound()


@pytest.mark.parametrize(
    "product",
    [
        lambda s: torch.einsum("bi,ci,di->bcd", s, s, s),
        lambda s: torch.kron(s, s),
        lambda s: torch.baddbmm(s[None], s[None], s.T[None] @ s[None]),
        lambda s: torch.linalg.multi_dot([s, s.T, s]),
    ],
    ids=["three factors", "kron", "added", "multi_dot"],
)
def test_products_that_are_not_counted_are_refused_also_at_the_end_of_a_model(product):
    def forward(self, x):
        return product((self.fc1(x) > 0).float())

    with pytest.raises(fxsynops.UnsupportedOperationError, match=r"test_errors\.py:\d+"):
        fxsynops.analyze(Forward(forward), torch.ones(2, 8))


def test_bilinear_is_refused():
    model = nn.Bilinear(8, 8, 3)
    with pytest.raises(fxsynops.UnsupportedOperationError, match="bilinear"):
        fxsynops.analyze(model, (torch.ones(2, 8), torch.ones(2, 8)))


def test_another_spatial_size_asks_for_another_analysis():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), fnn.NeuromorphicReLU(), nn.Conv2d(2, 2, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 1, 8, 8))
    with pytest.raises(fxsynops.InputError, match=r"'input'.*\(2, 1, 9, 8\).*again"):
        counter(torch.ones(2, 1, 9, 8))
    assert counter.counts.total == 0


@pytest.mark.parametrize("inputs", [(), (torch.ones(2, 8), torch.ones(2, 8))])
def test_a_wrong_number_of_inputs(inputs):
    counter = fxsynops.SynOpsCounter(simple(), torch.ones(2, 8))
    with pytest.raises(fxsynops.InputError, match="does not take these inputs"):
        counter(*inputs)
    with pytest.raises(fxsynops.InputError, match="does not take these inputs"):
        fxsynops.analyze(simple(), inputs)


def test_other_optional_inputs_than_analyzed():
    counter = fxsynops.SynOpsCounter(models.Outputs(), torch.ones(2, 3, 6), layout="NT")
    with pytest.raises(fxsynops.InputError, match="1 input tensors"):
        counter(torch.ones(2, 3, 6), torch.ones(2, 3, 6))


def test_a_model_with_nothing_to_count():
    model = nn.Sequential(nn.Flatten(), nn.Tanh())
    with pytest.raises(fxsynops.InputError, match=r"no spiking node.*spiking="):
        fxsynops.analyze(model, torch.rand(2, 8), input_events=False)


def test_nan_events_are_an_error_when_the_count_is_read():
    counter = fxsynops.SynOpsCounter(simple(), torch.ones(2, 8))
    x = torch.ones(2, 8)
    x[0, 3] = float("nan")
    counter(x)
    assert counter.per_synapse["0"].isnan()
    with pytest.raises(fxsynops.CountError, match=r"'input'.*NaN"):
        _ = counter.counts
    counter.clear()
    assert counter.counts.total == 0


@pytest.mark.parametrize("options", [{"timesteps": 0}, {"timesteps": -1}, {"batch_size": 0}])
def test_no_time_and_no_samples(options):
    with pytest.raises(fxsynops.InputError, match="positive whole number"):
        fxsynops.analyze(simple(), torch.ones(2, 8), **options)
    if "timesteps" in options:
        with pytest.raises(fxsynops.InputError, match="positive whole number"):
            fxsynops.analyze(simple(), torch.ones(2, 8)).upper_bound(options["timesteps"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layout": "NT", "timesteps": 4}, "timesteps=4, but input 'input'"),
        ({"batch_size": 3}, "batch_size=3, but input 'input'"),
        ({"layout": "(NT)"}, "pass batch_size= or timesteps="),
        ({"layout": "(NT)", "batch_size": 3}, "do not divide"),
        ({"layout": "NCHW"}, "layout 'NCHW' is none of"),
        ({"events": "spikes"}, "events='spikes' is none of"),
        ({"weights": "some"}, "weights='some' is none of"),
        ({"dt": 0}, "dt must be positive"),
        ({"spiking": "ReLU"}, "spiking='ReLU' names no module of"),
        ({"spiking": 3}, "spiking= takes module types"),
        ({"spiking": lambda x: x}, "register_spiking"),
        ({"input_events": (True, False)}, "2 entries for 1 tensor"),
    ],
)
def test_options_that_contradict_the_input_or_themselves(options, match):
    with pytest.raises(fxsynops.InputError, match=match):
        fxsynops.analyze(simple(), torch.ones(2, 5, 8), **options)


def test_an_input_on_another_device():
    with pytest.raises(fxsynops.InputError, match=r"'input' is on meta.*is on cpu.*to\('cpu'\)"):
        fxsynops.analyze(simple(), torch.ones(2, 8, device="meta"))


def test_a_fractional_image_is_no_events():
    with pytest.raises(fxsynops.InputError, match=r"'input' has fractional.*input_events=False"):
        fxsynops.analyze(simple(), torch.rand(2, 8), input_events=True)


def test_values_that_leave_torch():
    model = Forward(lambda self, x: self.fc2(torch.from_numpy(self.fc1(x).detach().numpy() + 0)))
    with pytest.raises(fxsynops.TraceError, match=r"numpy\(\).*test_errors\.py:\d+"):
        fxsynops.analyze(model, torch.ones(2, 8))


def test_pythons_random_numbers():
    model = Forward(lambda self, x: self.fc2(self.fc1(x)) * random.random())
    with pytest.raises(fxsynops.TraceError, match="random numbers"):
        fxsynops.analyze(model, torch.ones(2, 8))


def test_lazy_modules_and_modules_made_in_the_forward():
    with pytest.raises(fxsynops.TraceError, match=r"weight.*not initialized"):
        fxsynops.analyze(nn.LazyLinear(3), torch.ones(2, 8))

    def grow(self, x):
        self.fc3 = nn.Linear(8, 8)
        return self.fc2(self.fc1(self.fc3(x)))

    with pytest.raises(fxsynops.TraceError, match="run the model once"):
        fxsynops.analyze(Forward(grow), torch.ones(2, 8))


def test_counts_that_do_not_exist_yet():
    counter = fxsynops.SynOpsCounter(simple(), torch.ones(2, 8))
    for attribute in ("synops", "per_synapse", "per_source"):
        with pytest.raises(fxsynops.CountError, match="call the counter"):
            getattr(counter, attribute)


def test_bounds_of_what_does_not_exist():
    analysis = fxsynops.analyze(simple(), torch.ones(2, 8))
    with pytest.raises(fxsynops.InputError, match=r"\['9'\].*\['1', 'input'\]"):
        analysis.upper_bound(max_spikes={"9": 1})
    with pytest.raises(fxsynops.InputError, match="negative"):
        analysis.upper_bound(max_spikes=-1)


def test_registering_what_is_no_class():
    with pytest.raises(fxsynops.InputError, match="takes a class"):
        fxsynops.register_spiking(nn.ReLU())
    with pytest.raises(fxsynops.InputError, match="amplitude"):
        fxsynops.register_spiking(nn.ReLU, amplitude=0)


class Box:
    def __init__(self, y):
        self.y = y


def _seeds(self, x):
    torch.manual_seed(3)
    return self.fc2(self.fc1(x))


def _generator(self, x):
    y = self.fc2(self.fc1(x))
    return y + torch.rand(y.shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("forward", "match"),
    [
        (_seeds, "manual_seed"),
        (_generator, "random generator"),
        (lambda self, x: Box(self.fc2(self.fc1(x))), "Box that holds tensors"),
        (lambda self, x: self.seen.add(len(self.seen)) or self.fc2(self.fc1(x)), "'seen', a set"),
        (lambda self, x: self.fc2(self.fc1(x)) * self.rng.random(), "'rng', a Random"),
    ],
)
def test_what_a_replay_cannot_repeat_is_refused(forward, match):
    model = Forward(forward)
    model.seen, model.rng = {7}, random.Random(0)
    with pytest.raises(fxsynops.TraceError, match=match):
        fxsynops.analyze(model, torch.ones(2, 8))
    assert model.seen == {7}
    assert model.rng.getstate() == random.Random(0).getstate()


def test_old_backward_hooks_are_refused():
    model = simple()
    model[0].register_backward_hook(lambda *_: None)
    with pytest.raises(fxsynops.TraceError, match="register_full_backward_hook"):
        fxsynops.analyze(model, torch.ones(2, 8))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: fxsynops.analyze("model", torch.ones(2, 8)), r"takes an nn\.Module"),
        (lambda: fxsynops.analyze(simple(), "x"), "holds no tensor"),
        (lambda: fxsynops.analyze(simple(), torch.ones(2, 8), timesteps="a"), "positive whole"),
        (lambda: fxsynops.analyze(simple(), torch.ones(2, 8), dt="a"), "dt must be positive"),
        (
            lambda: fxsynops.analyze(simple(), torch.ones(2, 8), input_events=None),
            "a bool, or one per",
        ),
        (lambda: fxsynops.analyze(simple(), torch.ones(2, 8), input_events="yes"), "is 'auto'"),
    ],
)
def test_options_of_the_wrong_type(call, match):
    with pytest.raises(fxsynops.InputError, match=match):
        call()


def test_a_counters_input_on_another_device():
    counter = fxsynops.SynOpsCounter(simple(), torch.ones(2, 8))
    with pytest.raises(fxsynops.InputError, match="is on meta"):
        counter(torch.ones(2, 8, device="meta"))


def test_convolution_weights_that_are_events_are_refused():
    def forward(self, x):
        weight = (self.fc1(x) > 0).float()[:1, :3].reshape(1, 1, 3)  # another one for each input
        return nn.functional.conv1d(self.fc1(x)[:, None], weight)

    with pytest.raises(fxsynops.UnsupportedOperationError, match="weights depend on the data"):
        fxsynops.analyze(Forward(forward), torch.ones(2, 8))


@pytest.mark.parametrize(
    "lookup",
    [
        lambda self, x: nn.functional.embedding(x.long(), self.fc1.weight),
        lambda self, x: self.fc1.weight[x.long()],
    ],
)
def test_events_that_look_up_weights_are_refused(lookup):
    with pytest.raises(fxsynops.UnsupportedOperationError):
        fxsynops.analyze(Forward(lookup), torch.ones(2, 8))
