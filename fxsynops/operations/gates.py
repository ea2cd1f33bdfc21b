"""Operations that let events pass or not, depending on the data; they are measured behind them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from fxsynops.operations.call import Call, shape
from fxsynops.operations.elementwise import identity
from fxsynops.operations.operation import Factor, Kind, Operation, Scale, unequal
from fxsynops.operations.registry import operations
from fxsynops.operations.value_range import Evaluation, Range, RangeRule, as_double, ranged, shrinks

# -- limits ----------------------------------------------------------------------------------------

operations.add("relu", Operation(Kind.GATE, lower=0.0, range=shrinks))
operations.add("relu6", Operation(Kind.GATE, lower=0.0, upper=6.0, range=shrinks))
operations.add(
    "clamp clip", Operation(Kind.GATE, "min max", lower="min", upper="max", range=shrinks)
)
operations.add("clamp_min", Operation(Kind.GATE, "min", lower="min", range=shrinks))
operations.add("clamp_max", Operation(Kind.GATE, "max", upper="max", range=shrinks))
operations.add(
    "hardtanh",
    Operation(Kind.GATE, "min_val max_val", lower="min_val", upper="max_val", range=shrinks),
)
operations.add("hardshrink", Operation(Kind.GATE, "lambd"))
operations.add("softshrink", Operation(Kind.GATE, shrinks="lambd"))
operations.add("threshold _threshold", Operation(Kind.GATE, "threshold", fills=("value",)))
operations.add("nan_to_num", Operation(Kind.GATE, "posinf neginf", fills=("nan",)))

# -- slopes ----------------------------------------------------------------------------------------

operations.add("leaky_relu", Operation(Kind.GATE, "negative_slope", slopes=("negative_slope",)))
operations.add("prelu", Operation(Kind.GATE, "weight", slopes=("weight",)))
operations.add(
    "rrelu",
    Operation(
        Kind.GATE,
        "lower upper training",
        slopes=("lower", "upper"),
        draws=lambda call: bool(call["training"]),
    ),
)


def _absolute(ranges: Evaluation, call: Call) -> Any:
    value = ranges.operand(call.x)
    if not isinstance(value, Range) or value.positive:
        return value
    if not ranges.totals:
        return Range(value.peak)
    both = value.up if value.down is None else value.up + value.down
    return Range(both) if value.center is None else Range(both, both, value.center.abs())


operations.add("abs absolute", Operation(Kind.GATE, slopes=(-1.0,), range=RangeRule(_absolute)))

# -- a choice among elements -----------------------------------------------------------------------

_choice = Operation(
    Kind.GATE,
    "dim keepdim k largest sorted descending stable",
    carries="input other",
    outputs=(0,),
)
operations.add("amax max", replace(_choice, picks=1))
operations.add("amin min", replace(_choice, picks=-1))
operations.add("cummax cummin topk sort msort kthvalue median nanmedian mode", _choice)
operations.add(
    "masked_select gather max_unpool1d max_unpool2d max_unpool3d",
    Operation(
        Kind.GATE,
        "mask dim index sparse_grad indices kernel_size stride padding output_size",
        moves=True,
    ),
)


def _extreme(pick: Any) -> RangeRule:
    def find(ranges: Evaluation, call: Call) -> Any:
        """Element by element, the larger (or smaller) one."""
        a, b = (ranged(ranges.operand(call[name])) for name in ("input", "other"))
        if a is None or b is None:
            return None
        return Range.between(pick(a.low, b.low), pick(a.high, b.high))

    return RangeRule(find, in_totals=False)


operations.add(
    "maximum fmax",
    Operation(
        Kind.GATE,
        carries="input other",
        fills=("input", "other"),
        extreme=1,
        range=_extreme(torch.maximum),
    ),
)
operations.add(
    "minimum fmin",
    Operation(
        Kind.GATE,
        carries="input other",
        fills=("input", "other"),
        extreme=-1,
        range=_extreme(torch.minimum),
    ),
)


def _chosen(ranges: Evaluation, call: Call) -> Any:
    """One of two, in totals at most both."""
    a, b = (ranged(ranges.operand(call[name])) for name in ("input", "other"))
    if a is None or b is None:
        return None
    size = shape(call.node)
    if not ranges.totals:
        low, high = torch.minimum(a.low, b.low), torch.maximum(a.high, b.high)
        return Range.between(low.expand(size), high.expand(size))
    up = (a.total + b.total).expand(size)
    down = None if a.positive and b.positive else (a.total_down + b.total_down).expand(size)
    return Range(up, down)


operations.add(
    "where",
    Operation(
        Kind.GATE,
        "condition",
        carries="input other",
        fills=("input", "other"),
        moves=True,
        range=RangeRule(_chosen),
    ),
)

# -- powers ----------------------------------------------------------------------------------------


def _unbounded(_: Call) -> float:
    return math.inf


_power = Operation(Kind.GATE, "dim keepdim exponent", gain=_unbounded, powers=True)
operations.add("square prod cumprod", _power)


def _raised(call: Call) -> Operation:
    exponent = call["exponent"]
    whole = isinstance(exponent, int | float) and exponent > 0 and exponent == int(exponent)
    return _power if whole else Operation(Kind.ANALOG, "*", carries="*")


operations.add("pow", replace(_power, resolve=_raised))

# -- dropout: a gate in training, nothing in eval mode ---------------------------------------------


def _dropped(ranges: Evaluation, call: Call) -> Any:
    value, p = ranges.operand(call.x), call["p"]
    if not isinstance(value, Range) or isinstance(p, fx.Node):
        return value
    kept = 1 / (1 - float(p)) if float(p) < 1 else 0.0
    parts = Range(value.total, None if value.positive else value.total_down)
    return ranges.rounded(call.node, parts * as_double(kept), 2)


def _survivors(call: Call) -> Scale | None:
    """What passes is scaled by 1 / (1 - p)."""
    p = call["p"]
    return Scale(1 / (1 - p)) if p < 1 else Scale()


def _dropout(scale: Factor, rule: RangeRule | None) -> Operation:
    gate = Operation(
        Kind.GATE,
        "p training",
        scale=scale,
        masks=True,
        draws=lambda call: bool(call["training"]),
        range=rule,
    )
    off = replace(identity, parameters="p training")
    return replace(gate, resolve=lambda call: gate if call["training"] else off)


operations.add(
    "dropout dropout1d dropout2d dropout3d feature_dropout",
    _dropout(_survivors, RangeRule(_dropped)),
)
operations.add("alpha_dropout feature_alpha_dropout", _dropout(unequal, None))
