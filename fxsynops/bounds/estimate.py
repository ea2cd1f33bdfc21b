"""How many events per element are to be expected, given the firing rates of sources.

Rates follow the graph, as if elements fired independently of one another: what is added adds up,
what is multiplied multiplies (r₁·r₂ for an AND), the largest of k is silent only if all are
(1 − (1 − r)^k for a maximum over k elements), other gates let everything pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from fxsynops.connectivity.connect import Tap
from fxsynops.connectivity.results import Findings
from fxsynops.connectivity.signals import Role
from fxsynops.operations import Call, Kind, Operation
from fxsynops.operations.call import shape


class Rates:
    """Mean events per element and step, at every node that holds events.

    Args:
        findings: an analysis.
        given: by the name of a source, or of a gate; None stands for all that are not named.
    """

    def __init__(self, findings: Findings, given: Mapping[str | None, float]) -> None:
        self._roles = findings.connector.signals.roles
        self._graded = findings.options.events == "nonzero"
        self._of: dict[fx.Node, float | None] = {}
        names = findings.connector.names
        for node, role in self._roles.items():
            if role.signal.kind != "events":
                continue
            name = names[node] if role.kind not in ("routing", "other") else None
            if name is not None and name in given:
                self._of[node] = float(given[name])
            elif role.kind in ("source", "mask", "unknown"):
                self._of[node] = float(given[None]) if None in given else None
            else:
                self._of[node] = self._behind(role)

    def at(self, tap: Tap) -> float | None:
        """What a tap is to measure, per element; None if no rate says."""
        if tap.product is None:
            return self._of[tap.node]
        return _times(tap.product.contracted, [self._of[n] for n in tap.product.operands])

    def _behind(self, role: Role) -> float | None:
        """Behind a gate, a product or routing."""
        rates = [self._of[carrier] for carrier in role.carriers]
        call, operation = role.call, role.operation
        if operation is None or call is None:
            return _largest(rates)
        if role.product is not None:
            return _times(role.product.contracted, rates)
        if role.kind == "gate":
            if operation.factors or operation.kind is Kind.PRODUCT or operation.extreme < 0:
                return _times(1, rates)
            if operation.extreme > 0:
                silent = _times(1, [None if rate is None else 1 - min(rate, 1.0) for rate in rates])
                return None if silent is None else 1 - silent
            return self._passed(call, operation, _largest(rates))
        return self._routed(role, call, operation, rates)

    def _passed(self, call: Call, operation: Operation, rate: float | None) -> float | None:
        """Through any other gate."""
        if rate is None:
            return None
        if operation.masks and isinstance(kept := call.get("p"), int | float):
            return rate * (1 - kept)
        if rate > 1 or not operation.picks or (among := _among(call)) <= 1:
            return rate
        return 1 - (1 - rate) ** among if operation.picks > 0 else rate**among

    def _routed(
        self, role: Role, call: Call, operation: Operation, rates: list[float | None]
    ) -> float | None:
        """The mean over what comes out: as many events as reach it, spread over its elements."""
        known = [rate for rate in rates if rate is not None]
        if len(known) < len(rates):
            return None
        if operation.terms is not None and _is_complement(operation.terms(call)):
            return abs(1 - known[0])
        size = math.prod(shape(call.node))
        ones = torch.ones([1] * len(shape(call.node)), dtype=torch.float64)
        arriving = dict.fromkeys(role.carriers, 0.0)
        assert operation.pull is not None
        for slot in operation.pull(call, ones):
            if slot.node in arriving:
                whole = torch.empty(shape(slot.node), device="meta")
                part = whole if slot.where is None else whole[slot.where]
                arriving[slot.node] += float(slot.map.sum()) * part.numel() / slot.map.numel()
        rate = dict(zip(role.carriers, known, strict=True))
        each = [self._merged(rate[n], count / max(size, 1)) for n, count in arriving.items()]
        if self._graded and operation.merges:
            return 1 - math.prod(1 - min(rate, 1.0) for rate in each)
        return math.fsum(each)

    def _merged(self, rate: float, among: float) -> float:
        if self._graded and among > 1 and rate <= 1:
            return 1 - (1 - rate) ** among
        return rate * among


def _is_complement(terms: list[tuple[Any, Any]]) -> bool:
    """Whether this is 1 - x."""
    numbers = [factor * x for factor, x in terms if isinstance(x, int | float)]
    return numbers == [1] and [f for f, x in terms if isinstance(x, fx.Node)] == [-1]


def _among(call: Call) -> float:
    """Over how many elements the largest is sought."""
    kernel = call.get("kernel_size")
    if kernel is None:
        return math.prod(shape(call.x)) / max(math.prod(shape(call.node)), 1)
    axes = next(int(c) for c in call.name if c.isdigit())  # max_pool2d
    return math.prod(kernel) if isinstance(kernel, tuple | list) else float(kernel) ** axes


def _times(factor: float, rates: list[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return factor * math.prod(known) if len(known) == len(rates) else None


def _largest(rates: list[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return max(known) if known and len(known) == len(rates) else None
