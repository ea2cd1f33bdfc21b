"""An analysis proves itself on its example, and says so when it is wrong."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.operations import operations
from fxsynops.operations.operation import Slot
from tests.test_trust import OUT, Between, spikes


def twice(entry):
    """An entry whose fan-out is twice what it should be."""
    if entry.resolve is not None:
        resolve = entry.resolve
        return replace(entry, resolve=lambda call: twice(resolve(call)))
    if entry.synapse is not None:
        fanout = entry.synapse.fanout
        wrong = replace(entry.synapse, fanout=lambda call, x: 2 * fanout(call, x))
        return replace(entry, synapse=wrong)
    pull = entry.pull
    assert pull is not None

    def doubled(call, map):
        return [Slot(s.node, 2 * s.map, s.where) for s in pull(call, map)]

    return replace(entry, pull=doubled)


IMAGE = torch.ones(2, 2, 6, 6)
WRONG = {
    "conv2d": nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)),
    "conv_transpose2d": nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2)),
    "avg_pool2d": nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(2, 3, 3)),
    "flatten": nn.Sequential(nn.Flatten(), nn.Linear(72, 3)),
    "flip": Between(lambda x: x.flip(1).flatten(1), 72),
    "cat": Between(lambda x: torch.cat([x, x], 1).flatten(1), 144),
    "add": Between(lambda x: (x + x).flatten(1), 72),
    "mul": Between(lambda x: (x * 3.0).flatten(1), 72),
    "getitem": Between(lambda x: x[:, :, ::2].flatten(1), 36),
    "pad": Between(lambda x: F.pad(x, (1, 1)).flatten(1), 96),
    "sum": Between(lambda x: x.sum(1).flatten(1), 36),
    "mean": Between(lambda x: x.mean((2, 3)), 2),
    "interpolate": Between(lambda x: F.interpolate(x, scale_factor=2).flatten(1), 288),
    "permute": Between(lambda x: x.permute(0, 2, 3, 1).flatten(1), 72),
    "batch_norm": nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3)).eval(),
    "stack": Between(lambda x: torch.stack([x, x], 1).flatten(1), 144),
    "repeat": Between(lambda x: x.repeat(1, 2, 1, 1).flatten(1), 144),
    "setitem": Between(lambda x: _written(x).flatten(1), 72),
}


def _written(x):
    y = torch.zeros_like(x)
    y[:, :1] = x[:, 1:]
    return y


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_entry_is_found_out(name, monkeypatch):
    model = WRONG[name]
    audit = fxsynops.analyze(model, IMAGE).audit
    assert audit.ok
    assert all(row.agrees for row in audit.rows)
    wrong = twice(operations.by_name[name])
    monkeypatch.setitem(operations.by_name, name, wrong)
    kinds = {kind for m in model.modules() for kind in type(m).__mro__}
    for kind in kinds & operations.by_target.keys():
        monkeypatch.setitem(operations.by_target, kind, twice(operations.by_target[kind]))
    with pytest.raises(fxsynops.AuditError) as error:
        fxsynops.analyze(model, IMAGE)
    left, arrived = re.search(
        r"([\d,]+) SynOps left the sources, ([\d,]+) arrived", str(error.value)
    ).groups()
    assert int(left.replace(",", "")) == 2 * int(arrived.replace(",", ""))
    lenient = fxsynops.analyze(model, IMAGE, strict=False)
    assert not lenient.audit.ok
    assert [row.operation for row in lenient.unresolved] == ["audit"]
    assert "NO" in str(lenient.audit)
    assert "Unresolved, not counted" in str(lenient)
    assert fxsynops.analyze(model, IMAGE, audit=False).audit.rows == ()


def test_an_error_names_synapse_numbers_operations_and_lines(monkeypatch):
    monkeypatch.setitem(operations.by_name, "flip", twice(operations.by_name["flip"]))
    with pytest.raises(fxsynops.AuditError) as error:
        fxsynops.analyze(WRONG["flip"], IMAGE)
    said = str(error.value)
    assert "'head': 864 SynOps left the sources, 432 arrived" in said
    assert re.search(r"flip in the model's forward|flip in module", said)
    assert re.search(r"test_audit\.py:\d+", said)
    assert "strict=False" in said


def test_units_that_are_no_numbers_are_audited_on_random_events(monkeypatch):
    norm = nn.BatchNorm2d(2).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    model = nn.Sequential(norm, nn.AvgPool2d(2), nn.Conv2d(2, 3, 3))
    (row,) = fxsynops.analyze(model, IMAGE).audit.rows
    assert row.agrees
    assert "random events" in row.reason
    monkeypatch.setitem(operations.by_name, "avg_pool2d", twice(operations.by_name["avg_pool2d"]))
    with pytest.raises(fxsynops.AuditError):
        fxsynops.analyze(model, IMAGE)


class Hides(nn.Module):
    """Makes spikes in a way that nothing knows: floats between two sigmoids."""

    def forward(self, x):
        return torch.sigmoid(1e4 * (x - 0.5))


def test_what_looks_like_events_is_a_note_in_every_table():
    model = nn.Sequential(Hides(), nn.Linear(6, OUT))
    analysis = fxsynops.analyze(model, spikes(8, 6))
    (note,) = analysis.audit.notes
    assert "looks like events" in note
    assert re.search(r"test_audit\.py:\d+", note)
    counter = analysis.counter()
    counter(spikes(8, 6))
    for table in (analysis, counter.counts, analysis.audit, analysis.upper_bound()):
        assert "looks like events" in " ".join(str(table).split())
    model[0].forward = lambda x: torch.sigmoid(x)
    assert not fxsynops.analyze(model, torch.rand(8, 6), input_events=False).audit.notes


def test_any_other_input_can_be_audited(monkeypatch):
    model, x = Between(lambda x: x.flip(1)), spikes(4, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    for other in (spikes(4, 6, p=0.9), spikes(7, 6)):
        audit = counter.audit(other)
        assert audit.ok
        assert audit.rows[0].left == audit.rows[0].arrived == OUT * other.sum().item()
    assert counter.counts.samples == 0
    monkeypatch.setitem(operations.by_name, "flip", twice(operations.by_name["flip"]))
    with pytest.raises(fxsynops.AuditError):
        counter.audit(x)


def test_an_audit_shows_the_state_of_a_model_that_an_analysis_has_changed(monkeypatch):
    model = nn.Sequential(nn.Linear(6, 6), fnn.NeuromorphicReLU(), nn.Linear(6, OUT))
    from fxsynops.tracing.borrowed import Borrowed

    put_back = Borrowed._put_back

    def forgets(self):
        put_back(self)
        with torch.no_grad():
            self.model[0].weight.mul_(2)

    monkeypatch.setattr(Borrowed, "_put_back", forgets)
    with pytest.raises(fxsynops.AuditError, match=r"the analysis has changed '0\.weight'"):
        fxsynops.analyze(model, spikes(2, 6))


def test_what_cannot_be_audited_says_why():
    with torch.device("meta"):
        model = nn.Linear(6, OUT)
    analysis = fxsynops.analyze(model, torch.ones(2, 6, device="meta"))
    assert analysis.audit.ok
    assert "no values" in analysis.audit.notes[0]
    assert fxsynops.analyze(nn.Linear(6, OUT), spikes(2, 6), audit=False).audit.notes == (
        "not audited",
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_modules_that_compute_otherwise_without_gradients_agree(kind):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = kind(4, 4, num_layers=2, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    torch.manual_seed(0)
    x = spikes(3, 5, 4)
    assert fxsynops.analyze(Model(), x, layout="NT").audit.ok
    with torch.no_grad():
        assert fxsynops.analyze(Model(), x, layout="NT").audit.ok
