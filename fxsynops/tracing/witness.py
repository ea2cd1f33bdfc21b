"""What a recorded forward really multiplied: every weighted product, with the values that it got.

The audit of an analysis (:mod:`fxsynops.counting.audit`) compares with this. It is seen where torch
itself arrives in the end, at the ``aten`` operators, whatever the forward called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fxsynops.tracing.tensors import memory_of

aten = torch.ops.aten
# The operators that multiply and add up, and where their two factors stand.
FACTORS: dict[Any, tuple[int, int]] = {
    aten.convolution.default: (0, 1),
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.mv.default: (0, 1),
    aten.dot.default: (0, 1),
    aten.vdot.default: (0, 1),
    aten.linear.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.addmv.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.addbmm.default: (1, 2),
}


@dataclass(frozen=True)
class Factor:
    """One factor of a product.

    Attributes:
        value: the tensor; it may have been written to since.
        version: of the tensor when it was multiplied.
        node: of what was passed to the call, if the factor shares its memory; else None.
        writes: to its memory, since then.
    """

    value: Tensor
    version: int
    node: fx.Node | None
    writes: list[fx.Node] = field(default_factory=list, compare=False)

    @property
    def is_as_it_was(self) -> bool:
        """Whether nothing has been written to it since; ``.data`` has versions of its own."""
        return self.value._version == self.version and not self.writes


@dataclass(frozen=True)
class Product:
    """A product of two tensors that a call made.

    Attributes:
        operator: of ``aten``.
        factors: the two.
        options: of a convolution: stride, padding, dilation, transposed, output_padding, groups.
    """

    operator: Any
    factors: tuple[Factor, Factor]
    options: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Of the operator."""
        return str(self.operator.__name__).split(".")[0]


@dataclass
class Witness:
    """The products of a forward, by the call that made them, while it is being analyzed.

    Attributes:
        products: by node.
        output: what the model returned.
    """

    products: dict[fx.Node, list[Product]] = field(default_factory=dict)
    output: Any = None
    _seen: list[tuple[Any, tuple[Any, ...], list[int]]] = field(default_factory=list)
    _in_memory: dict[int, list[Factor]] = field(default_factory=lambda: defaultdict(list))

    def note_writes(self, written: Iterable[Tensor], node: fx.Node) -> None:
        """A call has written to some tensors' memory."""
        for factor in (f for t in written for f in self._in_memory.pop(memory_of(t), ())):
            factor.writes.append(node)

    def forget(self) -> None:
        """The forward is recorded once more, from its beginning."""
        self.products.clear()
        self._seen.clear()
        self._in_memory.clear()

    def see(self, operator: Any, args: tuple[Any, ...]) -> None:
        """An operator was called."""
        if operator in FACTORS:
            versions = [args[i]._version for i in FACTORS[operator]]
            self._seen.append((operator, args, versions))

    def belongs(self, node: fx.Node, operands: Iterable[tuple[Tensor, fx.Node]]) -> None:
        """What was seen since the last time is part of a call, with these operands."""
        if not self._seen:
            return
        memory = {memory_of(tensor): known for tensor, known in operands}
        found = self.products.setdefault(node, [])
        for operator, args, versions in self._seen:
            left, right = (
                Factor(args[i].detach(), version, memory.get(memory_of(args[i])))
                for i, version in zip(FACTORS[operator], versions, strict=True)
            )
            for factor in (left, right):
                self._in_memory[memory_of(factor.value)].append(factor)
            options = tuple(args[3:9]) if operator is aten.convolution.default else ()
            found.append(Product(operator, (left, right), options))
        self._seen.clear()

    def __iter__(self) -> Iterator[tuple[fx.Node, list[Product]]]:
        return iter(self.products.items())
