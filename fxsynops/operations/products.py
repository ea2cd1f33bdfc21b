"""Products of two tensors: matrix products, in one normal form.

Every one of them is a sum over indices, as ``einsum`` writes it. Which of the two operands are
weights, events or analog decides what it is: a linear synapse, or spiking attention.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import Kind, Operation, Synapse
from fxsynops.operations.registry import operations
from fxsynops.operations.transpose import pull_incidence

Index = str | int


@dataclass(frozen=True)
class Product:
    """Σ over all indices of left[…] · right[…].

    Attributes:
        operands: the two tensors.
        axes: for each of them, the index that each of its axes runs over.
        kept: the indices of the output.
        added: what is added to the product (``addmm``), or None.
    """

    operands: tuple[fx.Node, fx.Node]
    axes: tuple[tuple[Index, ...], tuple[Index, ...]]
    kept: tuple[Index, ...]
    added: Any = None

    @property
    def sizes(self) -> dict[Index, int]:
        """The extent of each index (an axis of size 1 is repeated along it)."""
        sizes: dict[Index, int] = {}
        for node, axes in zip(self.operands, self.axes, strict=True):
            for index, size in zip(axes, shape(node), strict=True):
                sizes[index] = max(sizes.get(index, 1), size) if size else 0
        return sizes

    @property
    def terms(self) -> int:
        """How many products of two elements are added up in all."""
        return math.prod(self.sizes.values())

    @property
    def contracted(self) -> int:
        """How many of them are added up in one element of the output."""
        return math.prod(n for index, n in self.sizes.items() if index not in self.kept)

    @property
    def elementwise(self) -> bool:
        """Whether nothing is summed, and one operand is as large as the output."""
        kept = set(self.kept)
        return kept == set(self.sizes) and any(kept == set(axes) for axes in self.axes)

    def shared(self, operand: int) -> list[int]:
        """The axes of an operand along which it meets the other one."""
        other = self.axes[1 - operand]
        sizes = (shape(node) for node in self.operands)
        long = [
            {i for i, n in zip(a, s, strict=True) if n > 1}
            for a, s in zip(self.axes, sizes, strict=True)
        ]
        return [
            axis
            for axis, index in enumerate(self.axes[operand])
            if index in other and index in long[0] & long[1]
        ]

    def pairs(self, left: Tensor, right: Tensor, by: Sequence[Index] = ()) -> Tensor:
        """Σ left · right for tensors with these axes, some of which may be summed to size 1.

        Args:
            left, right: the factors.
            by: the indices along which sums are kept apart, in the order of axes returned.
        """
        letters = dict(zip(self.sizes, string.ascii_letters, strict=False))
        terms = []
        for x, axes in ((left, self.axes[0]), (right, self.axes[1])):
            single = [axis for axis, n in enumerate(x.shape) if n == 1]
            terms.append("".join(letters[i] for a, i in enumerate(axes) if a not in single))
            left, right = right, x.squeeze(single)
        into = "".join(letters[index] for index in by)
        return torch.einsum(f"{terms[0]},{terms[1]}->{into}", left, right)

    def synapse(self, operand: int, weighted: bool, name: str) -> Synapse:
        """The product as a synapse of one of its operands."""
        fanout = self.terms / max(math.prod(shape(self.operands[operand])), 1)

        def sample(_: Call, x: fx.Node) -> tuple[int, ...]:
            seen = self.shared(operand)
            return tuple(n if axis in seen else 1 for axis, n in enumerate(shape(x)))

        def pairs(_: Call, x: Tensor, weight: Tensor | None) -> Tensor:
            assert weight is not None
            return self.pairs(weight, x) if operand else self.pairs(x, weight)

        return Synapse(
            kind="linear" if weighted else name,
            fanout=lambda _, x: torch.full((1,) * len(shape(x)), fanout, dtype=torch.float64),
            nominal=lambda _: fanout if weighted else None,
            pairs=pairs,
            sample=sample,
        )


def _batched(a: int, b: int) -> tuple[tuple[Index, ...], tuple[Index, ...], tuple[Index, ...]]:
    """Indices of ``matmul``: of operands with ``a`` and ``b`` axes, and of the output."""
    batch: tuple[Index, ...] = tuple(range(-max(a, b), -2))
    rows, columns = ("m",) * (a > 1), ("n",) * (b > 1)
    left = (*batch[len(batch) - max(a - 2, 0) :], *rows, "k")
    right = (*batch[len(batch) - max(b - 2, 0) :], "k", *columns)
    return left, right, (*batch, *rows, *columns)


def _matmul(left: fx.Node, right: fx.Node, added: Any = None) -> Product:
    a, b, kept = _batched(len(shape(left)), len(shape(right)))
    return Product((left, right), (a, b), kept, added)


def _sum_of_matmuls(left: fx.Node, right: fx.Node, added: Any) -> Product:
    a, b, kept = _batched(3, 3)
    return Product((left, right), (a, b), kept[1:], added)


def _linear(left: fx.Node, right: fx.Node, added: Any = None) -> Product:
    lead = tuple(range(len(shape(left)) - 1))
    rows = ("n",) * (len(shape(right)) - 1)
    return Product((left, right), ((*lead, "k"), (*rows, "k")), (*lead, *rows), added)


def _outer(left: fx.Node, right: fx.Node, added: Any = None) -> Product:
    return Product((left, right), (("m",), ("n",)), ("m", "n"), added)


def _inner(left: fx.Node, right: fx.Node) -> Product:
    a, b = (
        tuple(f"{side}{i}" for i in range(len(shape(node)) - 1))
        for side, node in (("left", left), ("right", right))
    )
    return Product((left, right), ((*a, "k"), (*b, "k")), (*a, *b))


def _tensordot(left: fx.Node, right: fx.Node, dims: Any) -> Product:
    a: list[Index] = [f"left{i}" for i in range(len(shape(left)))]
    b: list[Index] = [f"right{i}" for i in range(len(shape(right)))]
    if isinstance(dims, int):
        dims = (range(len(a) - dims, len(a)), range(dims))
    met = [(i % len(a), j % len(b)) for i, j in zip(*map(_listed, dims), strict=True)]
    for i, j in met:
        b[j] = a[i]
    kept = [i for k, i in enumerate(a) if k not in dict(met)]
    kept += [i for i in b if i not in a]
    return Product((left, right), (tuple(a), tuple(b)), tuple(kept))


def _listed(dims: Any) -> Sequence[int]:
    return [dims] if isinstance(dims, int) else dims


def _einsum(call: Call) -> Product | None:
    """Two operands, no index twice in one of them."""
    operands = call.operands()
    equation = call["args"][0]
    given, arrow, out = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    if len(operands) != 2 or len(terms) != 2:
        return None
    spare = [
        len(shape(n)) - len(t.replace("...", "")) for n, t in zip(operands, terms, strict=True)
    ]
    axes = tuple(_letters(t, n) for t, n in zip(terms, spare, strict=True))
    if any(len(set(a)) != len(a) for a in axes):
        return None
    if arrow:
        kept = _letters(out, max(spare))
    else:
        once = sorted(i for i in {*axes[0], *axes[1]} if isinstance(i, str) and given.count(i) == 1)
        kept = (*range(-max(spare), 0), *once)
    return Product((operands[0], operands[1]), (axes[0], axes[1]), kept)


def _weights_first(is_data: Callable[[Tensor], bool], args: tuple[Any, ...]) -> Tensor | None:
    """Of three tensors or more, those that depend on no data make one weight of all of them."""
    equation, *operands = args
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    if not isinstance(equation, str) or "." in equation:
        return None
    given, arrow, out = equation.replace(" ", "").partition("->")
    out = out if arrow else "".join(sorted(i for i in set(given) - {","} if given.count(i) == 1))
    pairs = list(zip(given.split(","), tensors, strict=True))
    weights = [(term, x) for term, x in pairs if not is_data(x)]
    others = [(term, x) for term, x in pairs if is_data(x)]
    if len(weights) < 2 or not others:
        return None
    seen = set(out).union(*(term for term, _ in others))
    kept = "".join(sorted(seen.intersection(*[set("".join(term for term, _ in weights))])))
    weight = torch.einsum(f"{_terms(weights)}->{kept}", *(x for _, x in weights))
    return torch.einsum(f"{_terms(others)},{kept}->{out}", *(x for _, x in others), weight)


def _terms(pairs: list[tuple[str, Tensor]]) -> str:
    return ",".join(term for term, _ in pairs)


def _letters(term: str, spare: int) -> tuple[Index, ...]:
    """The indices of one term; an ellipsis stands for ``spare`` of them, counted from the right."""
    before, ellipsis, behind = term.partition("...")
    return (*before, *(range(-spare, 0) if ellipsis else ()), *behind)


def _of(
    terms: Callable[..., Product], left: str, right: str, added: str = "", parameters: str = ""
) -> Operation:
    """The entry of a product of two operands by these names, with what is added to it, if any."""

    def product(call: Call) -> Product | None:
        operands = call[left], call[right]
        if not all(isinstance(node, fx.Node) for node in operands):
            return None
        more = [call[name] for name in (added, *parameters.split()) if name]
        return terms(*operands, *more)

    return Operation(
        Kind.PRODUCT,
        f"{parameters} {added} alpha beta",
        carries=f"{left} {right}",
        product=product,
    )


operations.add("matmul", _of(_matmul, "input", "other"))
operations.add("rmatmul", _of(lambda a, b: _matmul(b, a), "input", "other"))
operations.add("mm bmm", _of(_matmul, "input", "mat2"))
operations.add("_sparse_mm", _of(_matmul, "sparse", "dense"))
operations.add("_sparse_addmm", _of(_matmul, "mat1", "mat2", added="input"))
operations.add("mv", _of(_matmul, "input", "vec"))
operations.add("dot", _of(_matmul, "input", "tensor"))
operations.add("vdot", _of(_matmul, "input", "other"))
operations.add("inner", _of(_inner, "input", "other"))
operations.add("outer ger", _of(_outer, "input", "vec2"))
operations.add("tensordot", _of(_tensordot, "a", "b", parameters="dims"))
operations.add("addmm", _of(_matmul, "mat1", "mat2", added="input"))
operations.add("addmv", _of(_matmul, "mat", "vec", added="input"))
operations.add("addr", _of(_outer, "vec1", "vec2", added="input"))
operations.add("baddbmm", _of(_matmul, "batch1", "batch2", added="input"))
operations.add("addbmm", _of(_sum_of_matmuls, "batch1", "batch2", added="input"))
operations.add("linear", _of(_linear, "input", "weight", added="bias"))


def _pull_einsum(call: Call, map: Tensor) -> Any:
    """One operand (sums, transposes, diagonals), or one times constants, element by element."""

    def incidence(equation: str, *operands: Any) -> Tensor:
        ones = [
            x if x.requires_grad else (x != 0).to(map.dtype)
            for given in operands
            for x in (given if isinstance(given, (list, tuple)) else (given,))
        ]
        return torch.einsum(equation, *ones)

    return pull_incidence(call, map, incidence)


def _summed(call: Call) -> float:
    """How many elements meet in one, at most."""
    largest = max(math.prod(shape(n)) for n in call.operands())
    return max(largest / max(math.prod(shape(call.node)), 1), 1.0)


operations.add(
    "einsum",
    Operation(
        Kind.PRODUCT,
        "args",
        carries="*",
        pull=_pull_einsum,
        gain=_summed,
        product=_einsum,
        meaning=_weights_first,
    ),
)
