"""Events that are multiplied with weights, and reach no synapse: the products are synapses then.

A product with weights may be a gain of each neuron's own, a part of a longer synapse into which it
folds, or the synapse itself, whose sum stands somewhere behind it, or is done by an index. Which it
is shows where the events end: in a synapse, or at a threshold; and whether events of different
weights have been added up until then.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fxsynops.connectivity.known_values import Values
from fxsynops.connectivity.signals import carried
from fxsynops.operations import written_out
from fxsynops.operations.call import Call, shape
from fxsynops.operations.products import Product
from fxsynops.tracing.graph_walk import reachable

CHOOSE = "events choose among weights"
_ANYWHERE = torch.tensor([1.0, 1.0, 2.0], device="cpu")  # of numbers that are not alike
_PLACES = frozenset(  # what adds up at places
    "index_add scatter scatter_add scatter_reduce index_reduce index_put bincount".split()
)


def weighs(
    values: Values, product: Product, which: int, in_what_way: Callable[[Product, int], bool]
) -> bool:
    """Whether an operand of a product holds weights, which meet the other in some way."""
    weight, x = product.operands[which], product.operands[1 - which]
    kinds = values.roles[weight].signal.kind, values.roles[x].signal.kind
    known = kinds[0] == "const" and kinds[1] != "const" and in_what_way(product, which)
    return known and values.holds_weights(weight)


def weights_among(values: Values, product: Product) -> int:
    """Which operand of a product that is a synapse of its own holds the weights."""
    ways = (written_out.spreads, lambda *_: True)
    return next(i for way in ways for i in (0, 1) if weighs(values, product, i, way))


def weighing_products(values: Values, summed: set[fx.Node]) -> set[fx.Node]:
    """Products of events with weights that are synapses of their own.

    They are summed with different weights, or spread over several. So is a choice among weights
    that is summed.

    Args:
        values: of a trace whose nodes have roles.
        summed: products that are part of a synapse already.
    """
    return _Ends(values).products(summed)


@dataclass
class _Ends:
    """Where events end."""

    values: Values
    ahead: dict[fx.Node, list[fx.Node]] = field(init=False)
    order: dict[fx.Node, int] = field(init=False)

    def __post_init__(self) -> None:
        self.order = {node: i for i, node in enumerate(self.values.roles)}
        self.ahead = carried(self.values.roles)

    def products(self, summed: set[fx.Node]) -> set[fx.Node]:
        """See :func:`weighing_products`."""
        found, products = set(), []
        for node, role in self.values.roles.items():
            if role.kind == "unknown" and role.reason.startswith(CHOOSE):
                if self._ends(node, chosen=True):
                    found.add(node)
                continue
            open_end = role.kind == "routing" and node not in summed
            if not open_end or not self._weighs(node, at_all=True) or not self._ends(node, False):
                continue
            if self._weighs(node):
                found.add(node)
            else:
                products.append(node)
        entry = self.values.calls.__getitem__
        sums = (written_out.product(self.values.calls[node][0], entry) for node in found)
        added = {made for _, made in filter(None, sums)}
        groups: dict[Any, dict[fx.Node, Tensor]] = defaultdict(dict)  # by what weights are made of
        for node in products:
            product = written_out.unsummed(node, entry)
            if product is not None and node not in added:
                weight = product.operands[weights_among(self.values, product)]
                made_of, numbers = self._numbers(weight)
                groups[made_of][node] = numbers.expand(shape(node))
        mixed = {node for group in groups.values() for node in self._mixed_later(group)}
        # Of several in a row, the last one: those before fold into its weights.
        folded = {n for n in mixed if any(m in mixed | found for m in self._after(n))}
        return found | (mixed - folded)

    def _after(self, node: fx.Node) -> Iterator[fx.Node]:
        return (n for n in reachable([node], lambda n: self.ahead.get(n, ())) if n is not node)

    def _ends(self, node: fx.Node, chosen: bool) -> bool:
        """Whether events come from a node to no synapse; if they choose weights, to a sum."""
        way = reachable([node], lambda n: self.ahead.get(n, ()))
        if not chosen:
            return not any(self.values.roles[n].counted for n in way)
        roles = [self.values.roles[n] for n in way]
        sums = (r.call and r.operation and r.operation.gain(r.call) > 1 for r in roles)
        return not any(role.counted for role in roles) and any(sums)

    def _weighs(self, node: fx.Node, at_all: bool = False) -> bool:
        """Whether a node spreads events over weights, or sums them with different ones.

        Args:
            node: of a product, or of a sum of one.
            at_all: whether it is enough that it multiplies them with weights.
        """
        entry = self.values.calls.__getitem__
        product, way = written_out.unsummed(node, entry), written_out.spreads
        if product is None:
            found = written_out.product(self.values.calls[node][0], entry)
            product, way = (found[0] if found else None), written_out.mixes
        if product is None:
            return False
        in_what_way = (lambda *_: True) if at_all else way
        return any(weighs(self.values, product, i, in_what_way) for i in (0, 1))

    def _mixed_later(self, group: dict[fx.Node, Tensor]) -> set[fx.Node]:
        """Products of which elements that have different weights are added up on their way.

        Args:
            group: products with the same weights, or parts of them, and the number of the weight
                that each element has.
        """
        some = next(iter(group.values())).flatten()[:1]
        if all(bool((numbers == some).all()) for numbers in group.values()):
            return set()  # a gain of all
        ahead = {node: set(self._after(node)) for node in group}
        # Of the numbers of all weights in a sum: how many, their sum, the sum of their squares.
        values: dict[fx.Node, Tensor] = {}
        mixing: set[fx.Node] = set()
        for node in sorted(set(group).union(*ahead.values()), key=self.order.__getitem__):
            if (numbers := group.get(node)) is not None:
                values[node] = torch.stack([torch.ones_like(numbers), numbers, numbers * numbers])
            elif any(carrier in values for carrier in self.values.roles[node].carriers):
                moved = self._moved(node, values)
                if moved is None:
                    continue
                count, total, squares = moved
                apart = (count * squares - total * total).abs()
                if bool((apart > 1e-9 * (1 + total * total)).any()):
                    mixing.add(node)
                values[node] = moved
        return {node for node in group if ahead[node] & mixing}

    def _moved(self, node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor | None:
        """Where an operation moves numbers, and what it adds up; None if it does anything else."""
        call, operation = self.values.calls[node]
        places = call.name.rstrip("_") in _PLACES
        if self.values.roles[node].kind != "routing" and not places:
            return None
        if operation is not None and operation.draws(call):
            return None
        if places and any(self.values.constant(n) is None for n in self._indices(call)):
            return _ANYWHERE.view(3, *[1] * len(shape(node))).expand(3, *shape(node))
        ways = ((0, 0), (0, 1), (1, 1), (2, 1), (2, 2))  # which, and how often
        try:
            nothing, *found, twice = (self._carried(node, values, *way) for way in ways)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None
        moved = torch.stack(found) - nothing  # without what is added to all
        return moved if torch.allclose(twice - nothing, 2 * moved[2]) else None

    def _indices(self, call: Call) -> list[fx.Node]:
        return [n for n in call.operands() if not n.meta["spec"].dtype.is_floating_point]

    def _numbers(self, weight: fx.Node) -> tuple[Any, Tensor]:
        """What some weights are made of, and the numbers of its elements where they stand."""
        numbers = torch.arange(1.0, math.prod(shape(weight)) + 1, dtype=torch.float64)
        own = weight, numbers.reshape(shape(weight))
        if weight.op == "get_attr":
            return str(weight.target), own[1]
        if weight.op != "call_function":
            return own
        call, operation = self.values.calls[weight]
        held = [n for n in call.operands() if self.values.holds_weights(n)]
        if len(held) != 1 or operation is None:
            return own
        made_of, behind = self._numbers(held[0])
        if shape(held[0]) == shape(weight):
            return made_of, behind
        try:
            found = call.again(
                lambda n: behind if n is held[0] else self._known(n), leave_out=("dtype",)
            )
            found = found if call.output is None else found[call.output]
            moved = found.shape == shape(weight) and bool(torch.isin(found, behind).all())
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            return own
        return (made_of, found) if moved else own

    def _known(self, node: fx.Node) -> Tensor | None:
        """A constant, where numbers are: on the CPU."""
        value = self.values.constant(node)
        return value if value is None or value.is_meta else value.cpu()

    def _carried(
        self, to: fx.Node, values: dict[fx.Node, Tensor], which: int, times: int
    ) -> Tensor:
        """What an operation makes of values in the place of events; factors are not looked at."""
        (call, operation), carriers = self.values.calls[to], self.values.roles[to].carriers

        def operand(node: fx.Node) -> Tensor:
            if node in values:
                return values[node][which] * times
            known = self._known(node)
            if known is not None and not known.is_floating_point():
                return known  # says where they go
            if known is not None and operation and operation.factors and node not in carriers:
                return (known != 0).double().expand(shape(node))
            return torch.zeros(shape(node), dtype=torch.float64)

        if operation and operation.elementwise and not operation.merges and not operation.factors:
            return operand(carriers[0]).expand(shape(to))
        found = call.again(operand, leave_out=("dtype",))
        return found if call.output is None else found[call.output]
