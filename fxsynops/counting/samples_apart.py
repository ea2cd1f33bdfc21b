"""SynOps of each sample of a data set, told apart and tried out by exchanging samples.

Which of the model's values belong to which sample is mostly seen from their shapes alone
(:mod:`fxsynops.connectivity.sample_axes`), and a model may mix samples. So the passes of a batch
are run once more with other samples in the places of some: that must change the SynOps of these
places, and of no others, in every connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fxsynops.counting.exact_sums import Tally
from fxsynops.counting.replay import Replay
from fxsynops.errors import SpecializationError
from fxsynops.tracing.borrowed import Borrowed
from fxsynops.tracing.inputs import Inputs
from fxsynops.tracing.sharded import is_in_parts

Sums = dict[Replay, Tensor]  # of a pass, (terms, samples); of several passes of one replay, added


class SamplesApart:
    """The SynOps of each sample, batch by batch.

    Args:
        model: that the passes are of.
        reset: sets the model to where a batch starts.

    Attributes:
        known: whether all samples were told apart until now.
    """

    def __init__(self, model: nn.Module, reset: Callable[[], object]) -> None:
        self.known = not is_in_parts(model)  # it is tried out as often as data ask for, on a rank
        self._model, self._reset = model, reset
        self._passes: list[tuple[Replay, tuple[Any, ...]]] = []
        self._sums: Sums = {}
        self._unchecked: dict[Replay, Tensor] = {}  # terms whose samples were all alike

    def add(self, replay: Replay, tally: Tally, args: tuple[Any, ...]) -> None:
        """One more pass of the batch at hand, and the positional arguments that it was given."""
        per_sample = replay.per_sample
        self.known = self.known and per_sample is not None and per_sample.known
        if self.known and per_sample is not None:
            _add(self._sums, replay, per_sample.each(tally.parts))
            self._passes.append((replay, args))

    def end(self) -> Tensor | None:
        """Of a batch that is over, the SynOps of each sample, (samples,); None if not known."""
        passes, sums = self._passes, self._sums
        self._passes, self._sums = [], {}
        unchecked = [self._is_unchecked(*entry) for entry in sums.items()]
        if self.known and any(unchecked):
            self._reset()
            self.known = self._are_apart(passes, sums)
        if not (self.known and sums):
            return None
        return torch.stack([each.sum(0) for each in sums.values()]).sum(0)

    def _is_unchecked(self, replay: Replay, each: Tensor) -> bool:
        """Whether there is something in terms that were silent until now."""
        if replay not in self._unchecked:
            every = torch.ones(len(each), dtype=torch.bool, device=each.device)
            self._unchecked[replay] = every
        unchecked = self._unchecked[replay]
        if replay.analysis.window.samples == 1 or each.is_meta or not unchecked.any():
            return False
        return bool(each[unchecked].any())

    def _are_apart(self, passes: list[tuple[Replay, tuple[Any, ...]]], sums: Sums) -> bool:
        """Whether exchanging samples exchanges their SynOps. The model stays as it is."""
        analysis = passes[0][0].analysis
        window, layout = analysis.window, analysis.options.layout
        if "N" not in layout.axes:
            return False
        every = [(replay, Inputs.bind(self._model, args, {})) for replay, args in passes]
        in_place = not any(replay.analysis.trace.overwrites for replay, _ in passes)

        def counted(index: Tensor) -> Sums:
            found: Sums = {}
            with Borrowed(self._model, in_place), torch.no_grad():
                for replay, inputs in every:
                    picked = layout.picked(inputs, window, "N", index)
                    _, tally = replay.count(picked.clone().values)
                    assert replay.per_sample is not None
                    _add(found, replay, replay.per_sample.each(tally.parts))
            return found

        n = window.samples
        last_for_first = torch.arange(n)
        last_for_first[0] = n - 1
        try:
            found = counted(torch.arange(n))
            for index in (torch.arange(n).flip(0), last_for_first):
                again = counted(index)
                for replay, each in found.items():
                    if not torch.equal(again[replay], each[:, index.to(each.device)]):
                        return False
        except SpecializationError:  # other samples take another branch
            return False
        for replay, each in found.items():
            alike = (each == each[:, :1]).all(1)
            self._unchecked[replay] = self._unchecked[replay] & alike
        return True


def _add(sums: Sums, replay: Replay, each: Tensor) -> None:
    sums[replay] = sums[replay] + each if replay in sums else each
