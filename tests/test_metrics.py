"""SynOps as a metric of torchmetrics, and a counter in a module of lightning."""

from __future__ import annotations

import copy
import warnings

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection

import fxsynops
import fxsynops.nn as fnn
from fxsynops.errors import CountError, InputError
from fxsynops.metrics import SynOpsMetric
from tests import howto


def network(hidden: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, hidden), fnn.NeuromorphicReLU(), nn.Linear(hidden, 3))
    return howto.amplify(model, 3)


def batches() -> list[torch.Tensor]:
    return [torch.randint(0, 3, (n, 8)).float() for n in (4, 4, 1)]


def test_it_adds_up_batches_by_layer_and_in_total():
    counter = fxsynops.SynOpsCounter(network(), torch.ones(4, 8))
    metric = SynOpsMetric(counter)
    for x in batches():
        counter(x)
        metric.update(counter)
    found = {name: float(value) * 9 for name, value in metric.compute().items()}
    by_layer = {row.connection.synapse: row.synops for row in counter.counts.rows}
    expected = {f"synops/{name}": value for name, value in by_layer.items()}
    assert found == pytest.approx({"synops": counter.counts.total, **expected})
    assert min(found.values()) > 0
    metric.reset()
    counter(torch.ones(2, 8))
    metric.update(counter)
    assert float(metric.compute()["synops"]) == float(counter.synops.detach()) / 2


def test_calling_it_gives_the_batchs_own_value():
    counter = fxsynops.SynOpsCounter(network(), torch.ones(4, 8))
    metric = SynOpsMetric(counter)
    for x in batches():
        counter(x)
        assert float(metric(counter)["synops"]) == float(counter.synops.detach()) / len(x)


def test_it_is_copied_pickled_and_collected_as_others_are():
    counter = fxsynops.SynOpsCounter(network(), torch.ones(4, 8))
    collection = MetricCollection({"test": SynOpsMetric(counter)})
    counter(torch.ones(4, 8))
    collection.clone(prefix="val_").update(counter)
    twin = copy.deepcopy(collection["test"])
    twin.update(counter)
    assert float(twin.compute()["synops"]) == float(counter.synops.detach()) / 4
    assert not list(twin.parameters())


def test_other_layers_and_no_forward_are_errors():
    counter = fxsynops.SynOpsCounter(network(), torch.ones(4, 8))
    with pytest.raises(CountError, match="call the counter on an input first"):
        SynOpsMetric(counter).update(counter)
    other = fxsynops.SynOpsCounter(nn.Linear(8, 2), torch.ones(4, 8))
    other(torch.ones(4, 8))
    with pytest.raises(InputError, match=r"\['linear'\]"):
        SynOpsMetric(counter).update(other)


class Digits(lightning.LightningModule):
    """A counter as the model of a lightning module."""

    def __init__(self, example: torch.Tensor, target: float) -> None:
        super().__init__()
        self.model = fxsynops.SynOpsCounter(network(64), example, input_events=False)
        self.metric, self.target = SynOpsMetric(self.model), target

    def training_step(self, batch, _):
        x, labels = batch
        loss = F.cross_entropy(self.model(x), labels)
        return loss + fxsynops.losses.target_loss(self.model, self.target)

    def validation_step(self, batch, _):
        self.model(batch[0])
        self.metric.update(self.model)

    def on_validation_epoch_end(self):
        self.log("val_synops", self.metric.compute()["synops"])
        self.metric.reset()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def test_a_lightning_module_trains_for_fewer_synops():
    x = torch.cat(batches())
    loader = DataLoader(TensorDataset(x, torch.arange(9) % 3), batch_size=4)
    plain = fxsynops.SynOpsCounter(network(64), x, input_events=False)
    initial = plain.measure([x]).total / 9
    module = Digits(x[:4], initial / 2)
    trainer = lightning.Trainer(
        max_epochs=40,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lightning on the number of workers
        trainer.fit(module, loader, loader)
    assert float(trainer.callback_metrics["val_synops"]) == pytest.approx(initial / 2, rel=0.1)
    keys = {f"model.{name}" for name in network().state_dict()}
    assert set(module.state_dict()) == keys  # a checkpoint's keys: those of the model
