"""Counts in the loggers of trainings, and counts that go on after a checkpoint."""

from __future__ import annotations

import io
import warnings

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import CountError, InputError
from fxsynops.lightning import SynOpsCallback
from fxsynops.logging import keep, scalars


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), fnn.NeuromorphicReLU(), nn.Linear(6, 3))


def spikes(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return (torch.rand(n, 8, generator=generator) < 0.5).float()


def counter(**options) -> fxsynops.SynOpsCounter:
    return fxsynops.SynOpsCounter(network(), spikes(4), **options)


def test_scalars_are_synops_per_sample_by_layer():
    ours = counter()
    with pytest.raises(CountError):
        scalars(ours)
    x = spikes(5)
    ours(x)
    hidden = fnn.NeuromorphicReLU()(network()[0](x)).detach()
    found = scalars(ours, "cost")
    assert found["cost/0"] == pytest.approx(float(x.sum()) * 6 / 5)
    assert found["cost/2"] == pytest.approx(float(hidden.sum()) * 3 / 5)
    assert found["cost"] == pytest.approx(found["cost/0"] + found["cost/2"])
    assert set(map(type, found.values())) == {float}


@pytest.mark.parametrize("options", [{}, {"rates": True}, {"events": "nonzero"}])
def test_counts_go_on_after_a_checkpoint(options):
    whole, before, after = (counter(**options) for _ in range(3))
    for n in (3, 5):
        whole(spikes(n))
        before(spikes(n))
    file = io.BytesIO()
    torch.save(before.progress(), file)
    file.seek(0)
    after.resume(torch.load(file, weights_only=True))
    same(after.counts, before.counts)  # as long as nothing more is counted
    for n in (4, 2):
        whole(spikes(n))
        after(spikes(n))
    same(after.counts, whole.counts)
    after.resume(after.progress())
    same(after.counts, whole.counts)
    after.clear()
    assert after.counts.total == after.counts.samples == 0


def same(ours: fxsynops.Counts, theirs: fxsynops.Counts) -> None:
    assert [row.synops for row in ours.rows] == [row.synops for row in theirs.rows]
    assert [row.arrived for row in ours.rows] == [row.arrived for row in theirs.rows]
    assert (ours.total, ours.samples, ours.timesteps) == (
        theirs.total,
        theirs.samples,
        theirs.timesteps,
    )
    assert (ours.fired, ours.macs, ours.lengths) == (theirs.fired, theirs.macs, theirs.lengths)
    assert ours.rates.keys() == theirs.rates.keys()
    for name, rates in ours.rates.items():
        torch.testing.assert_close(rates.rates, theirs.rates[name].rates)
    assert str(ours) == str(theirs)


def test_counts_of_another_model_or_of_steps_are_not_taken_up():
    other = fxsynops.SynOpsCounter(nn.Linear(8, 2), spikes(2))
    other(spikes(2))
    ours = counter()
    ours(spikes(2))
    with pytest.raises(InputError, match="do not add up"):
        ours.resume(other.progress())
    assert ours.counts.total == 0
    by_step = fxsynops.SynOpsCounter(nn.Linear(8, 2), spikes(2)[None], layout="NT", steps=True)
    with pytest.raises(InputError, match="steps=True"):
        by_step.progress()


class Training(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = counter()

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.model(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(folder, *, module=None, callback=None, checkpoint=None, **options):
    data = TensorDataset(spikes(12), torch.arange(12) % 3)
    loader = DataLoader(data, batch_size=4)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=CSVLogger(folder), log_every_n_steps=1, callbacks=[callback],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, loader, ckpt_path=checkpoint)
    return trainer


def test_a_callback_logs_batches_and_epochs_and_leaves_validation_out(tmp_path):
    module, callback = Training(), SynOpsCallback("cost")
    trainer = fit(tmp_path, module=module, callback=callback, max_epochs=2, val_check_interval=1)
    expected = counter()
    for batch in spikes(12).split(4):
        expected(batch)
    counts = expected.counts
    assert float(trainer.callback_metrics["cost_epoch"]) == pytest.approx(counts.total / 12)
    assert float(trainer.callback_metrics["cost/0"]) == pytest.approx(scalars(expected, "c")["c/0"])
    assert module.model.counts.samples == 12
    state = callback.state_dict()
    assert state["epoch"] == 1
    assert fxsynops.counting.counts.Numbers.of_plain(state["progress"]).span.samples == 12


def test_a_training_that_is_resumed_in_an_epoch_goes_on_with_its_counts():
    callback, module = SynOpsCallback(), Training()
    module.model(spikes(4))
    progress = module.model.progress()
    trainer = type("Trainer", (), {"current_epoch": 3})()
    for epoch, samples in ((3, 8), (2, 4)):  # a checkpoint of this epoch, and of the one before
        callback.load_state_dict({"epoch": epoch, "progress": progress})
        callback.on_fit_start(trainer, module)
        callback.on_train_epoch_start(trainer, module)
        module.model(spikes(4))
        assert module.model.counts.samples == samples


def test_a_callback_needs_one_counter():
    module = lightning.LightningModule()
    module.model = network()
    with pytest.raises(InputError, match="0 counters"):
        SynOpsCallback().on_fit_start(None, module)


def test_counts_are_kept_in_a_file_and_gone_on_with(tmp_path):
    file, x = tmp_path / "counts.pt", torch.ones(2, 4)
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), x)
    handle = keep(counter, file, every=2)
    for _ in range(3):  # the third is not written any more
        counter(x)
    handle.remove()
    again = fxsynops.SynOpsCounter(nn.Linear(4, 3), x)
    with pytest.warns(UserWarning, match="go on from 4 samples"):
        keep(again, file)
    again(x)
    assert (again.counts.samples, again.counts.total) == (6, 6 * 12)
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_gone_on_with_says_so(tmp_path):
    file, x = tmp_path / "counts.pt", torch.ones(2, 4)
    with pytest.raises(InputError, match="not 0"):
        keep(fxsynops.SynOpsCounter(nn.Linear(4, 3), x), file, every=0)
    with pytest.raises(InputError, match="without steps=True"):
        keep(fxsynops.SynOpsCounter(nn.Linear(4, 3), x, steps=True), file)
    file.write_text("no counts")
    with pytest.raises(InputError, match="holds no counts"):
        keep(fxsynops.SynOpsCounter(nn.Linear(4, 3), x), file)
    file.unlink()
    counter = fxsynops.SynOpsCounter(nn.Sequential(nn.Linear(4, 3)), x)
    keep(counter, file)
    counter(x)
    with pytest.raises(InputError, match="do not add up"):
        keep(fxsynops.SynOpsCounter(nn.Linear(4, 3), x), file)
