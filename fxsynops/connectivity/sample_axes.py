"""Which axes of a tensor inside of a model are samples and time steps, and which are neurons.

Models mostly put the two in front, as two axes in either order, merged into one, or with only one
of them where a loop runs over the other. :func:`leading` goes by that, and who relies on it checks
it (:mod:`fxsynops.counting.samples_apart`). :mod:`fxsynops.connectivity.moments` is sure, but
needs two more analyses of passes with more samples and more steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fxsynops.tracing.inputs import Layout, Window


@dataclass(frozen=True)
class Leading:
    """The axes beside those of neurons.

    Attributes:
        axes: which they are.
        sample: which of them holds the samples; None if that is not known.
        merged: "NT" or "TN" if that axis holds the steps, too; the first of them varies slowest.
        window: how many samples and steps there are.
    """

    axes: tuple[int, ...]
    sample: int | None
    merged: str
    window: Window

    def by_sample(self, sums: Tensor) -> Tensor:
        """Sums over everything but the samples: (samples,)."""
        n, t = self.window.samples, self.window.timesteps
        if n == 1:
            return sums.sum().reshape(1)
        assert self.sample is not None
        flat = sums.movedim(self.sample, 0).flatten(1).sum(1) if sums.dim() > 1 else sums
        if not self.merged:
            return flat
        return flat.view(n, t).sum(1) if self.merged == "NT" else flat.view(t, n).sum(0)


def leading(size: Sequence[int], calls: int, window: Window, layout: Layout) -> Leading:
    """What the leading axes of a tensor seem to be, by their sizes and the layout of the inputs.

    Args:
        size: its shape.
        calls: how many tensors like it there are in a pass, one per time step perhaps.
        window: samples and steps of the pass.
        layout: of the inputs.
    """
    n, t = window.samples, window.timesteps
    size = tuple(size)
    order = layout.order
    known = order in ("NT", "TN")
    if calls == 1 and t > 1:
        inner = layout.inner_time(len(size))
        if inner is not None and size[inner] == t and (n == 1 or size[0] == n):
            samples = "N" in order and size[0] == n
            return Leading((0, inner) if samples else (inner,), 0 if samples else None, "", window)
        if sorted(size[:2]) == sorted((n, t)):
            if n != t:
                return Leading((0, 1), size.index(n), "", window)
            return Leading((0, 1), order.index("N") if known else None, "", window)
        if size[:1] == (n * t,):
            return Leading((0,), 0 if known else None, order if known else "", window)
    if size[:1] == (n,):
        return Leading((0,), 0, "", window)
    return Leading((), None, "", window)
