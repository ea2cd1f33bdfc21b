"""A slow, independent count of any PyTorch model: watch one real forward.

Every convolution, linear layer and matrix product that the forward calls is seen with the values it
gets. If its input holds whole multiples of one unit, it is events, and the operation is done again
with all weights one. fxsynops traces and derives; this looks and recomputes.
"""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = {
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
}
PRODUCTS = {
    torch.matmul,
    torch.bmm,
    torch.mm,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.bmm,
    Tensor.mm,
}


class Watched(TorchFunctionMode):
    """Counts what a model's synapses get while it runs.

    Args:
        model: any model.
        units: for modules by name, what one event at their synapses is worth, where that is no
            power of two.
        analog: parts of the names of modules whose input is analog, also where it is all zeros.

    Attributes:
        synops: for each module by name, the SynOps of the synapses in its own forward.
        macs: likewise, the multiply-accumulates of synapses whose input is analog.
    """

    def __init__(
        self, model: nn.Module, units: dict[str, float] | None = None, analog: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.synops: dict[str, float] = defaultdict(float)
        self.macs: dict[str, float] = defaultdict(float)
        self._units = units or {}
        self._analog = analog
        self._stack = [""]
        self._parameters = list(model.parameters())  # kept, so that no other gets their memory
        self._hooks = []
        for name, module in model.named_modules():
            self._hooks += [
                module.register_forward_pre_hook(lambda m, a, name=name: self._stack.append(name)),
                module.register_forward_hook(self._leave),
            ]

    def _leave(self, module, args, output):
        self._stack.pop()

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for kind in types:
            if not issubclass(kind, Tensor):  # it unpacks itself, and calls again
                with self:
                    return kind.__torch_function__(func, types, args, kwargs)
        if func in CONVOLUTIONS:
            self._convolution(func, *args, **kwargs)
        elif func is F.linear:
            self._product(args[0], args[1].mT if args[1].dim() > 1 else args[1])
        elif func in PRODUCTS:
            self._product(args[0], args[1])
        elif func is torch.addmm:
            self._product(args[1], args[2])
        elif func is torch.einsum and len(args) == 3:
            self._product(args[1], args[2], lambda a, b: torch.einsum(args[0], a, b))
        elif func in (torch.baddbmm, torch.tensordot, torch.mv):
            raise NotImplementedError(func)
        return func(*args, **kwargs)

    def _convolution(self, func, x, weight, bias=None, *rest, **options):
        events = self._events(x)
        ones = torch.ones_like(weight, dtype=torch.float64)
        if events is None:
            y = func(torch.ones_like(x, dtype=torch.float64), ones, None, *rest, **options)
            self.macs[self._stack[-1]] += float(y.sum())
        else:
            self.synops[self._stack[-1]] += float(func(events, ones, None, *rest, **options).sum())

    def _product(self, a, b, multiply=torch.matmul):
        name = self._stack[-1]
        ours = {p.untyped_storage().data_ptr() for p in self._parameters}
        weights = [t.untyped_storage().data_ptr() in ours for t in (a, b)]
        if all(weights):  # they make another weight
            return
        left, right = (None if w else self._events(t) for t, w in zip((a, b), weights, strict=True))
        ones = [torch.ones_like(t, dtype=torch.float64) for t in (a, b)]
        if left is None and right is None:
            self.macs[name] += float(multiply(*ones).sum())
        else:
            left = ones[0] if left is None else left
            right = ones[1] if right is None else right
            self.synops[name] += float(multiply(left, right).sum())

    def _events(self, x: Tensor) -> Tensor | None:
        """How many events each element is, or None if it is analog."""
        if any(part in self._stack[-1] for part in self._analog):
            return None
        x = x.detach().double().abs()
        own = self._units.get(self._stack[-1])
        for unit in [own] if own else [2.0**-k for k in range(13)]:
            counts = x / unit
            if bool(((counts - counts.round()).abs() < 1e-4 * (own is not None)).all()) or bool(
                (counts == counts.round()).all()
            ):
                return counts.round()
        return None


def watch(model: nn.Module, *inputs, **options):
    """Run ``model(*inputs)``; returns its output, and SynOps and MACs by module."""
    watched = Watched(model, **options)
    try:
        with torch.no_grad(), watched:
            output = model(*inputs)
    finally:
        watched.close()
    return output, drop_zeros(watched.synops), drop_zeros(watched.macs)


def drop_zeros(counts: dict[str, float]) -> dict[str, float]:
    return {name: n for name, n in counts.items() if n}
