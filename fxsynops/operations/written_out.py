"""Synapses that are written as a product and a sum: ``(z.unsqueeze(1) * weight).sum(-1)``.

Dendrites, locally connected layers and layers with a delay for each synapse are written so. It is
the matrix product that ``einsum`` would say, and gets its normal form.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Operation
from fxsynops.operations.products import Product
from fxsynops.operations.windows import summed_axes

Entry = Callable[[fx.Node], "tuple[Call, Operation | None]"]


def product(call: Call, entry: Entry) -> Product | None:
    """The product that a sum adds up; None if it adds up anything else.

    Args:
        call: of ``sum``.
        entry: the call of a node, and the entry that holds for it.
    """
    made = call.x
    if call.name != "sum" or made.op != "call_function":
        return None
    multiplied, operation = entry(made)
    factors = operation.factors(multiplied) if operation is not None and operation.factors else ()
    if operation is None or operation.divides or len(factors) != 2:
        return None
    if not all(isinstance(n, fx.Node) and "spec" in n.meta for n in factors):
        return None
    left, right = factors
    rank, reduced = len(shape(made)), summed_axes(call)
    a, b = (tuple(range(rank - len(shape(n)), rank)) for n in (left, right))
    return Product((left, right), (a, b), tuple(i for i in range(rank) if i not in reduced))


def mixes(product: Product, weights: int) -> bool:
    """Whether the sum gives its terms different weights, and not the same ones everywhere.

    Weights that are alike in all that is kept make a weighted average, of time steps, say, which
    moves events. They are a synapse if they differ in what is kept, too, or if one number is made
    of each sample.

    Args:
        product: of :func:`product`.
        weights: which of its operands.
    """
    long = [
        {i for i, n in zip(axes, shape(node), strict=True) if n > 1}
        for node, axes in zip(product.operands, product.axes, strict=True)
    ]
    mine, theirs, kept = long[weights], long[1 - weights], set(product.kept)
    one_number = len(theirs & kept) < 2
    return bool(mine - kept) and bool(theirs - kept) and (bool(mine & kept) or one_number)
