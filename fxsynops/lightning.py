"""SynOps in the trainings of ``lightning``.

``fxsynops`` itself does not import this module: ``from fxsynops.lightning import SynOpsCallback``.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from fxsynops.counter import SynOpsCounter
from fxsynops.errors import InputError
from fxsynops.logging import scalars


class SynOpsCallback(Callback):
    """Logs SynOps per sample: of training batches as they come, and of each epoch in the mean.

    The counter is a part of the module. Its counts begin anew with each epoch; a checkpoint in the
    midst of one holds them, and a training that is resumed goes on with them. Validation is left
    out.

    Args:
        prefix: the name of the total; layers are ``prefix/name``, means of an epoch end on
            ``_epoch``.
    """

    def __init__(self, prefix: str = "synops") -> None:
        self.prefix = prefix
        self._counter: SynOpsCounter | None = None
        self._epoch = 0
        self._resumed: dict[str, Any] = {}
        self._aside: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the counter.

        Raises:
            InputError: the module holds none, or more than one.
        """
        found = [module for module in pl_module.modules() if isinstance(module, SynOpsCounter)]
        if len(found) != 1:
            raise InputError(
                f"{type(pl_module).__name__} holds {len(found)} counters, and SynOpsCallback needs "
                "one: wrap the network, self.model = fxsynops.SynOpsCounter(network, example)."
            )
        self._counter = found[0]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count anew, or where a checkpoint ended."""
        assert self._counter is not None
        self._epoch = trainer.current_epoch
        if self._resumed.get("epoch") == self._epoch:
            self._counter.resume(self._resumed["progress"])
        else:
            self._counter.clear()
        self._resumed = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log what the batch has cost."""
        assert self._counter is not None
        pl_module.log_dict(scalars(self._counter, self.prefix))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put what was counted aside."""
        self._aside = {} if self._counter is None else self._counter.progress()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with it."""
        if self._counter is not None and self._aside:
            self._counter.resume(self._aside)
        self._aside = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means of the epoch."""
        assert self._counter is not None
        counts = self._counter.counts
        pl_module.log(f"{self.prefix}_epoch", counts.total / max(counts.samples, 1))

    def state_dict(self) -> dict[str, Any]:
        """What was counted in this epoch, for a checkpoint."""
        if self._counter is None:
            return {}
        return {"epoch": self._epoch, "progress": self._aside or self._counter.progress()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._resumed = state_dict
