"""What would help: each change is made by hand, and counted anew."""

from __future__ import annotations

import json

import pytest
import sinabs.layers as sl
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import InputError


def iaf() -> nn.Module:
    return sl.IAFSqueeze(batch_size=1, spike_threshold=torch.tensor(1.0))  # not sinabs' own, shared


def network() -> nn.Sequential:
    """Two of eight channels never fire, and one leads nowhere."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        iaf(),
        nn.Conv2d(8, 6, 3, padding=1),
        iaf(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
        iaf(),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        model[0].weight[2:4] *= -1
        model[0].bias[2:4] *= -1
        model[2].weight[:, 5] = 0
    return model


X = (torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def counted(
    model: nn.Module, x: Tensor = X, example: Tensor | None = None, **options
) -> fxsynops.Counts:
    options = {"layout": "(NT)", "batch_size": 1, "rates": True} | options
    counter = fxsynops.SynOpsCounter(model, x if example is None else example, **options)
    for module in model.modules():
        if hasattr(module, "reset_states"):
            module.reset_states()
    counter(x)
    return counter.counts


def changes(
    model: nn.Module, x: Tensor = X, rate: float | None = None, **options
) -> dict[tuple[str, str], object]:
    found = counted(model, x, **options).advice(20, rate=rate)
    return {(change.kind, change.layer): change for change in found.changes}


def test_silent_channels_save_their_part_and_change_nothing():
    model = network()
    before = counted(model)
    change = changes(model)["silent channels", "0"]
    assert change.change == "remove 2 of 8 output channels, whose neurons never fire"
    assert (change.harmless, change.verified) == (True, True)
    smaller = network()
    keep = [0, 1, 4, 5, 6, 7]
    first, second = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
    with torch.no_grad():
        first.weight.copy_(smaller[0].weight[keep])
        first.bias.copy_(smaller[0].bias[keep])
        second.weight.copy_(smaller[2].weight[:, keep])
        second.bias.copy_(smaller[2].bias)
    smaller[0], smaller[2] = first, second
    after = counted(smaller)
    assert before.total - after.total == change.saves > 0
    assert [row.events for row in before.rows] == [row.events for row in after.rows]


def test_dead_ends_save_all_that_they_cause():
    model = network()
    before = counted(model)
    change = changes(model)["dead ends", "2"]
    effective = counted(model, weights="nonzero")
    assert change.saves == before.rows[1].synops - effective.rows[1].synops > 0
    assert "remove 64 neurons of '1' from its inputs" in change.change


def test_a_threshold_is_raised_until_the_rate_is_there():
    model = network()
    before = counted(model)
    rate = before.rates["1"].mean / 4
    change = changes(model, rate=rate)["threshold", "1"]
    factor = float(change.change.split("×")[1].split(":")[0])
    assert (change.harmless, change.verified) == (False, True)
    with torch.no_grad():
        model[1].spike_threshold *= factor * 1.005  # it is printed with three digits
    after = counted(model)
    assert after.rates["1"].mean <= rate
    assert before.total - after.total == pytest.approx(change.saves, rel=0.05)
    with torch.no_grad():
        model[1].spike_threshold /= 1.03  # a little less is not enough
    assert counted(model).rates["1"].mean > rate
    assert changes(network(), rate=1.0).keys() & {("threshold", "1")} == set()


def test_a_pool_in_front_of_a_convolution():
    model = network()
    before = counted(model)
    change = changes(model)["pool in front", "2"]
    other = network()
    pooled = nn.Sequential(*other[:2], sl.SumPool2d(2), *other[2:4], *other[5:])
    after = counted(pooled)
    assert change.saves == before.rows[1].synops - after.rows[1].synops > 0
    assert change.harmless is False


def test_the_model_is_as_before_and_nothing_is_counted_beside():
    model = network()
    counts = counted(model)
    held = {key: value.clone() for key, value in model.state_dict().items()}
    total = counts.total
    assert counts.advice().changes
    assert counts.total == total
    assert all(torch.equal(held[key], value) for key, value in model.state_dict().items())


def test_attributes_that_are_numbers_are_thresholds_too():
    torch.manual_seed(0)
    model = nn.Sequential(
        layer.Linear(6, 8, step_mode="m"),
        neuron.IFNode(step_mode="m"),
        layer.Linear(8, 4, step_mode="m"),
    )
    with torch.no_grad():
        model[0].weight.abs_()
    x = torch.ones(8, 1, 6)
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", rates=True)
    functional.reset_net(model)
    counter(x)
    (change,) = (c for c in counter.counts.advice(9).changes if c.kind == "threshold")
    assert change.change.startswith("v_threshold × ")
    assert model[1].v_threshold == 1.0


def test_most_comes_first_and_only_as_many_as_asked_for():
    counts = counted(network())
    every = counts.advice(20)
    saves = [change.saves for change in every.changes]
    assert saves == sorted(saves, reverse=True)
    assert counts.advice(2).changes == every.changes[:2]
    content = json.loads(every.to_json())
    assert content["rows"][0]["Share"] == pytest.approx(saves[0] / counts.total)
    assert "do not add up" in str(every)


def test_rates_are_needed():
    counts = counted(network(), rates=False)
    with pytest.raises(InputError, match="count with rates=True"):
        counts.advice()


def padded(second: nn.Module, *front: nn.Module) -> nn.Sequential:
    model = network()
    second.load_state_dict(model[2].state_dict())
    model[2] = nn.Sequential(*front, second)
    return model


FRONTS = {
    "reflect": nn.ReflectionPad2d(1),
    "replicate": nn.ReplicationPad2d((1, 1, 1, 1)),
    "circular": nn.CircularPad2d(1),
}


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_repeats_events_costs_what_zeros_save(mode: str):
    model = padded(nn.Conv2d(8, 6, 3, padding=1, padding_mode=mode))
    change = changes(model)["silent padding", "2.0"]
    assert change.change == f"pad with zeros, not {mode}"
    assert (change.harmless, change.verified) == (False, True)
    silent = counted(padded(nn.Conv2d(8, 6, 3, padding=1)))
    assert counted(model).total - silent.total == change.saves > 0
    assert model[2][0].padding_mode == mode


@pytest.mark.parametrize("mode", FRONTS)
def test_modules_that_pad_are_replaced_by_zeros_and_put_back(mode: str):
    front = FRONTS[mode]
    model, held = padded(nn.Conv2d(8, 6, 3), front), dict(vars(front))
    change = changes(model)["silent padding", "2.0"]
    silent = counted(padded(nn.Conv2d(8, 6, 3), nn.ZeroPad2d(1)))
    assert counted(model).total - silent.total == change.saves > 0
    assert change.change == f"pad with zeros, not {mode}"
    assert (model[2][0], dict(vars(front))) == (front, held)


def test_padding_with_zeros_is_silent_already():
    for model in (network(), padded(nn.Conv2d(8, 6, 3), nn.ZeroPad2d(1))):
        assert not [kind for kind, _ in changes(model) if kind == "silent padding"]


def test_padding_of_what_cost_nothing_saves_nothing():
    """However much it would on the example."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect", bias=False), iaf())
    assert ("silent padding", "0") in changes(model)
    assert changes(model, example=X, x=0 * X) == {}


def test_two_samples_that_are_alike_save_what_one_saves():
    model = network()
    model[0] = nn.Conv2d(2, 8, 3, padding=1, padding_mode="reflect")
    model[0].load_state_dict(network()[0].state_dict())
    one = changes(model)
    for module in model:
        if isinstance(module, sl.IAFSqueeze):
            module.batch_size = 2
    two = changes(model, torch.cat([X, X]), batch_size=2)
    kinds = {"silent channels", "dead ends", "threshold", "pool in front", "silent padding"}
    assert {kind for kind, _ in two} == kinds
    assert {key: c.saves for key, c in two.items()} == {key: c.saves for key, c in one.items()}


def test_channels_that_were_silent_but_are_not_in_the_example_are_said_to_be():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), iaf(), nn.Conv2d(4, 3, 3), iaf())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        model[0].bias.zero_()
        model[0].weight[:2, 0] = 0  # the second channel of the input alone makes them fire
    first = X.clone()
    first[:, 1] = 0
    silent = changes(model, first, example=X)["silent channels", "0"]
    assert silent.change == "remove 2 of 4 output channels, whose neurons never fire"
    assert (silent.harmless, silent.verified) == (True, False)
    assert changes(model, first)["silent channels", "0"].verified is True


@pytest.mark.parametrize("same", [True, False])
def test_neurons_are_dead_ends_if_their_weights_are_zero_in_every_step(same: bool):
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.fire, self.weight = neuron.IFNode(step_mode="s"), nn.Parameter(torch.ones(3, 4, 6))

        def forward(self, x):
            return sum(F.linear(self.fire(now), w) for now, w in zip(x, self.weight, strict=True))

    model, x = Steps(), torch.ones(3, 1, 6)
    with torch.no_grad():
        model.weight[slice(None) if same else 0, :, 0] = 0
    counter = fxsynops.SynOpsCounter(model, x, layout="TN", input_events=False, rates=True)
    functional.reset_net(model)
    counter(x)
    found = [change for change in counter.counts.advice().changes if change.kind == "dead ends"]
    assert [change.saves for change in found] == ([3 * 4] if same else [])


@pytest.mark.parametrize("brightness", [0.05, 0.5, 1.0])
def test_savings_are_shares_of_what_was_counted(brightness):
    """The example is denser than the data, or sparser."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), fnn.IAF(), nn.Linear(32, 4))
    model[0].weight.data.mul_(4)
    counter = fxsynops.SynOpsCounter(model, (torch.rand(4, 10, 16) < 0.5).float(), rates=True)
    x = (torch.rand(4, 10, 16) < brightness).float()
    counts = counter.measure([x])
    changes = counts.advice(10).changes
    assert changes
    spent = {row.connection.synapse: row.synops / counts.samples for row in counts.rows}
    for change in changes:
        assert 0 < change.saves <= sum(spent.values())
