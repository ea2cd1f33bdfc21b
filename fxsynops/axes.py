"""Which axes of a tensor inside of a model are samples and time steps, and which are neurons.

Models put the two in front, as two axes in either order, merged into one, or with only one of them
where a loop runs over the other. What a size does not tell is not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from fxsynops.inputs import Layout, Window
from fxsynops.operations.registry import operation_name, shape

_PERMUTING = frozenset(
    "permute transpose movedim moveaxis swapaxes swapdims t T mT adjoint as_strided".split()
)


@dataclass(frozen=True)
class Leading:
    """The axes in front of those of neurons.

    Attributes:
        count: how many there are.
        sample: which of them holds the samples; None if that is not known.
        merged: "NT" or "TN" if that axis holds the steps, too; the first of them varies slowest.
        window: how many samples and steps there are.
    """

    count: int
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


def leading(
    size: Sequence[int], calls: int, window: Window, layout: Layout, mixed: bool = True
) -> Leading:
    """The leading axes of a tensor.

    Args:
        size: its shape.
        calls: how many tensors like it there are in a pass, one per time step perhaps.
        window: samples and steps of the pass.
        layout: of the inputs.
        mixed: whether samples and steps may have been exchanged since.
    """
    n, t = window.samples, window.timesteps
    size = tuple(size)
    order = layout.axes.strip("()")
    known = order in ("NT", "TN") and not mixed
    if calls == 1 and t > 1:
        if sorted(size[:2]) == sorted((n, t)):
            if n != t:
                return Leading(2, size.index(n), "", window)
            return Leading(2, order.index("N") if known else None, "", window)
        if size[:1] == (n * t,):
            return Leading(1, 0 if known else None, order if known else "", window)
        if n == 1 and size[:1] == (t,):
            return Leading(1, None, "", window)
    if size[:1] == (n,):
        return Leading(1, 0, "", window)
    return Leading(0, None, "", window)


def is_mixed(graph: fx.Graph, window: Window) -> bool:
    """Whether some operation exchanges an axis of samples with one of steps."""
    both = sorted((window.samples, window.timesteps))
    for node in graph.nodes:
        name = operation_name(node.target) if node.op == "call_function" else ""
        if name in _PERMUTING and node.args and isinstance(node.args[0], fx.Node):
            size = shape(node.args[0])
            if len(size) > 1 and sorted(size[:2]) == both:
                return True
    return False
