"""SynOps as a ``torchmetrics.Metric`` (``pip install "fxsynops[metrics]"``).

``fxsynops`` itself does not import this module: ``from fxsynops.metrics import SynOpsMetric``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fxsynops.counter import SynOpsCounter
from fxsynops.errors import InputError


class SynOpsMetric(Metric):
    """SynOps per sample, in total and by layer, over all batches and processes.

    Args:
        counter: whose layers are to be reported; it is not kept.
        options: those of ``torchmetrics.Metric``, such as ``sync_on_compute``.

    Example:
        >>> import torch, fxsynops
        >>> from fxsynops.metrics import SynOpsMetric
        >>> counter = fxsynops.SynOpsCounter(torch.nn.Linear(4, 3), torch.ones(2, 4))
        >>> metric = SynOpsMetric(counter)
        >>> for batch in (torch.ones(2, 4), torch.zeros(1, 4)):
        ...     y = counter(batch)
        ...     metric.update(counter)  # what the last forward cost
        >>> {name: float(value) for name, value in metric.compute().items()}
        {'synops': 8.0, 'synops/linear': 8.0}
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    synops: Tensor
    samples: Tensor

    def __init__(self, counter: SynOpsCounter, **options: Any) -> None:
        super().__init__(**options)
        connections = counter.analysis.connections
        self.layers = tuple(dict.fromkeys(connection.synapse for connection in connections))
        zeros = torch.zeros(len(self.layers), dtype=torch.float64)
        self.add_state("synops", zeros, dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, counter: SynOpsCounter) -> None:
        """Add the counter's last forward.

        Raises:
            InputError: it has a layer that the metric's counter had not.
            CountError: nothing has been counted yet.
        """
        layers = counter.per_synapse
        if unknown := set(layers) - set(self.layers):
            raise InputError(
                f"the metric was made for the layers {list(self.layers)}, but the counter has "
                f"{sorted(unknown)}, too. Make the metric with this counter."
            )
        for i, name in enumerate(self.layers):
            if name in layers:
                self.synops[i] += layers[name].detach()
        self.samples += counter.window.samples

    def compute(self) -> dict[str, Tensor]:
        """SynOps per sample: "synops" in total, "synops/<layer>" of each layer."""
        per_sample = self.synops / self.samples.clamp(min=1)
        found = {"synops": per_sample.sum()}
        found |= {f"synops/{name}": per_sample[i] for i, name in enumerate(self.layers)}
        return found
