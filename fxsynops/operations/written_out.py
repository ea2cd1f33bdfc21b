"""Synapses that are written as a product and a sum: ``(z.unsqueeze(1) * weight).sum(-1)``.

Dendrites, locally connected layers and layers with a delay for each synapse are written so. It is
the matrix product that ``einsum`` would say, and gets its normal form. Where something else comes
between the two, the product alone is the synapse, if it spreads events and reaches no other one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import fx

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Operation
from fxsynops.operations.products import Index, Product
from fxsynops.operations.windows import summed_axes

Entry = Callable[[fx.Node], "tuple[Call, Operation | None]"]


def product(call: Call, entry: Entry) -> tuple[Product, fx.Node] | None:
    """The product that a sum adds up, and where it is made; None if it adds up anything else.

    Args:
        call: of ``sum``.
        entry: the call of a node, and the entry that holds for it.
    """
    if call.name not in ("sum", "mean"):
        return None
    made, reduced = call.x, set(summed_axes(call))
    while (behind := _moved_by(made, entry)) is not None:
        axes = _axes_behind(shape(behind), shape(made), reduced)
        if axes is None:
            return None
        made, reduced = behind, axes
    found = unsummed(made, entry)
    if found is None:
        return None
    return replace(found, kept=tuple(i for i in found.kept if i not in reduced)), made


def unsummed(node: fx.Node, entry: Entry) -> Product | None:
    """A product element by element, of which nothing is added up; None for anything else."""
    factors = multiplied(node, entry)
    if factors is None:
        return None
    rank = len(shape(node))
    a, b = (tuple(range(rank - len(shape(n)), rank)) for n in factors)
    return Product(factors, (a, b), tuple(range(rank)))


def spreads(product: Product, weights: int) -> bool:
    """Whether each element of the other operand meets several weights."""
    return bool(_long(product, weights) - _long(product, 1 - weights))


def attends(product: Product) -> bool:
    """Whether two activations meet as in a matrix product: one is repeated along what is kept.

    Of two tensors of one size, the sum of their product is a gate, and a sum; one over the first
    axis alone, that of samples, is what a rule of plasticity makes of them.
    """
    kept = set(product.kept)
    left, right = _long(product, 0), _long(product, 1)
    return bool((left & right) - kept - {0}) and bool((left ^ right) & kept)


def _long(product: Product, operand: int) -> set[Index]:
    """The indices along which an operand has more than one element of its own."""
    axes, sizes = product.axes[operand], _own_sizes(product.operands[operand])
    return {i for i, n in zip(axes, sizes, strict=True) if n > 1}


def _own_sizes(node: fx.Node) -> tuple[int, ...]:
    """The shape of a value, with one element where one is repeated."""
    size, behind = shape(node), node.args[0] if node.args else None
    name = getattr(node.target, "__name__", str(node.target))
    if name not in _REPEATS or not isinstance(behind, fx.Node):
        return size
    inner = _own_sizes(behind)
    inner = (1,) * (len(size) - len(inner)) + inner
    return tuple(n if m > 1 else 1 for n, m in zip(size, inner, strict=True))


_REPEATS = frozenset("expand expand_as broadcast_to repeat tile repeat_interleave".split())


def multiplied(node: fx.Node, entry: Entry) -> tuple[fx.Node, fx.Node] | None:
    """The two tensors that a node is the product of, element by element."""
    if node.op != "call_function":
        return None
    call, operation = entry(node)
    if operation is None or operation.factors is None or operation.divides:
        return None
    left, right = operation.factors(call)
    tensors = all(isinstance(n, fx.Node) and "spec" in n.meta for n in (left, right))
    return (left, right) if tensors else None


_RESHAPES = frozenset("view reshape flatten unflatten squeeze unsqueeze _unsafe_view".split())


def _moved_by(node: fx.Node, entry: Entry) -> fx.Node | None:
    """What a node gives another shape, copies, or multiplies by a number."""
    if node.op != "call_function":
        return None
    call, operation = entry(node)
    if call.name in _RESHAPES:
        return call.x
    terms = operation.terms(call) if operation is not None and operation.terms else []
    (only,) = terms if len(terms) == 1 else ((0, None),)
    same = isinstance(only[1], fx.Node) and shape(only[1]) == shape(node)
    return only[1] if same and isinstance(only[0], int | float) and only[0] else None


def _axes_behind(
    before: tuple[int, ...], after: tuple[int, ...], reduced: set[int]
) -> set[int] | None:
    """The axes that are reduced where some are, once the shape was another; None if in part."""
    found: set[int] = set()
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i], [j]
        m, n = math.prod(before[i : i + 1]), math.prod(after[j : j + 1])
        while m != n:
            if m < n:
                left.append(i + len(left))
                m *= before[left[-1]]
            else:
                right.append(j + len(right))
                n *= after[right[-1]]
        i, j = i + len(left), j + len(right)
        inside = [k for k in right if k < len(after) and after[k] > 1]
        gone = [k in reduced for k in inside]
        if any(gone) and not all(gone):
            return None
        if any(gone):
            found.update(k for k in left if k < len(before))
    return found


def mixes(product: Product, weights: int) -> bool:
    """Whether the sum gives its terms different weights.

    Args:
        product: of :func:`product`.
        weights: which of its operands.
    """
    kept = set(product.kept)
    return bool(_long(product, weights) - kept) and bool(_long(product, 1 - weights) - kept)


def differs(product: Product, weights: int) -> bool:
    """Whether these weights are others in other sums, too, or one number is made of each sample.

    Weights that are alike in all that is kept make a weighted average, of time steps, say, which
    moves events to the next synapse, if there is one.
    """
    kept = set(product.kept)
    return mixes(product, weights) and (bool(_long(product, weights) & kept) or len(kept) < 2)
