"""Operations whose effect on events depends on the data, and those that make events or end them."""

from __future__ import annotations

import math
from dataclasses import replace

from fxsynops.operations import range_rules
from fxsynops.operations.registry import Call, Factor, Kind, Operation, Scale, operations, unequal
from fxsynops.operations.routing import identity

# -- gates: events pass or not, and are measured behind them ---------------------------------------

operations.add(
    """leaky_relu rrelu prelu hardshrink softshrink adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d amax amin masked_select cummax
    cummin""",
    Operation(Kind.GATE, outputs=(0,)),
)
operations.add(
    "relu relu6 clamp_max", Operation(Kind.GATE, outputs=(0,), range=range_rules.shrinks)
)
operations.add("abs absolute", Operation(Kind.GATE, outputs=(0,), range=range_rules.absolute))
operations.add(
    """max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices""",
    Operation(Kind.GATE, outputs=(0,), range=range_rules.max_pool),
)
operations.add(
    "maximum minimum fmax fmin", Operation(Kind.GATE, outputs=(0,), range=range_rules.largest)
)
operations.add(
    "max min topk sort msort kthvalue median nanmedian mode", Operation(Kind.GATE, outputs=(0,))
)
operations.add("gather max_unpool1d max_unpool2d max_unpool3d", Operation(Kind.GATE, data=(0,)))


def _unbounded(_: Call) -> float:
    return math.inf


operations.add(
    "clamp clip clamp_min hardtanh",
    Operation(Kind.GATE, data=(0,), range=range_rules.shrinks),
)
operations.add(
    "threshold index_fill masked_fill nan_to_num",
    Operation(Kind.GATE, data=(0,)),
)
operations.add(
    "masked_scatter scatter scatter_add index_add index_copy",
    Operation(Kind.GATE, gain=_unbounded),
)
_power = Operation(Kind.GATE, data=(0,), gain=_unbounded, powers=True)
operations.add("square prod cumprod", _power)
operations.add(
    "pow",
    replace(
        _power,
        resolve=lambda call: (
            _power
            if isinstance(e := call.arg(1, "exponent"), int | float) and e > 0 and e == int(e)
            else Operation(Kind.ANALOG)
        ),
    ),
)
operations.add("where", Operation(Kind.GATE, data=(1, 2), range=range_rules.choice))

# Their output depends on no value of their input.
operations.add(
    """fill zero zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty
    new_tensor empty_strided new_empty_strided""",
    Operation(Kind.ANALOG, data=()),
)


def _survivors(call: Call) -> Scale | None:
    """Dropout scales what it lets pass by 1 / (1 - p)."""
    p = call.arg(1, "p", 0.5)
    return Scale(1 / (1 - p)) if p < 1 else Scale()


def _dropout(scale: Factor) -> Operation:
    """A gate in training, nothing in eval mode."""
    rule = None if scale is unequal else range_rules.dropout
    gate = Operation(Kind.GATE, scale=scale, data=(0,), random=True, range=rule)
    return replace(gate, resolve=lambda call: gate if call.arg(2, "training", True) else identity)


operations.add("dropout dropout1d dropout2d dropout3d feature_dropout", _dropout(_survivors))
operations.add("alpha_dropout feature_alpha_dropout", _dropout(unequal))

# -- thresholds: whole numbers, whatever comes in --------------------------------------------------

operations.add(
    "gt lt ge le greater less greater_equal less_equal heaviside",
    Operation(Kind.THRESHOLD, binary=True, fires=True),
)
operations.add(
    """eq ne not_equal logical_and logical_or
    logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not and or xor  ror rxor
    bool int long short byte char
    floor_divide floordiv rfloordiv one_hot isnan isfinite isinf isposinf isneginf signbit
    count_nonzero histc bincount any all isclose""",
    Operation(Kind.THRESHOLD, binary=True),
)

operations.add(
    "floor ceil round trunc fix sign sgn",
    Operation(Kind.THRESHOLD, binary=True, range=range_rules.grows),
)

# -- analog: no events come out --------------------------------------------------------------------

operations.add(
    """log_softmax exp2 log log2 log10 rsqrt sin
    cos tan asin acos atan atan2 sinh cosh erfc erfinv gelu silu mish elu selu celu softplus
    softsign tanhshrink logsigmoid hardswish glu layer_norm group_norm instance_norm
    rms_norm
    local_response_norm normalize norm vector_norm var std var_mean std_mean cosine_similarity
    reciprocal rdiv rtruediv logsumexp
    pairwise_distance cross_entropy mse_loss nll_loss l1_loss smooth_l1_loss huber_loss
    binary_cross_entropy binary_cross_entropy_with_logits kl_div cosine_embedding_loss logit sinc
    frac hypot argmax argmin argsort searchsorted bucketize gumbel_softmax logcumsumexp rpow
    multi_margin_loss multilabel_margin_loss soft_margin_loss hinge_embedding_loss ctc_loss
    exponential nonzero""",
    Operation(Kind.ANALOG),
)
operations.add("tanh", Operation(Kind.ANALOG, range=range_rules.shrinks))
operations.add("sigmoid exp expm1 log1p sqrt erf", Operation(Kind.ANALOG, range=range_rules.grows))
operations.add("softmax softmin hardsigmoid", Operation(Kind.ANALOG, range=range_rules.fraction))
operations.add(
    """rand randn rand_like randn_like randint randint_like randperm normal uniform multinomial
    random log_normal cauchy geometric""",
    Operation(Kind.RANDOM),
)
operations.add("bernoulli poisson", Operation(Kind.RANDOM, binary=True))
# Analog if everything is; of events, it depends.
operations.add(
    "addcmul addcdiv lerp remainder fmod mod rmod embedding",
    Operation(Kind.ANALOG, analog_only=True),
)
