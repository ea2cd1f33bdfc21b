"""Operations that make events of analog values, or end them: thresholds, analog and random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fxsynops.operations.call import Call, spec
from fxsynops.operations.operation import Kind, Operation, always
from fxsynops.operations.registry import operations
from fxsynops.operations.value_range import fraction, grows, shrinks

# -- thresholds: whole numbers, whatever comes in --------------------------------------------------

operations.add(
    "gt lt ge le greater less greater_equal less_equal heaviside",
    Operation(Kind.THRESHOLD, "*", carries="*", whole=True, fires=True),
)
operations.add(
    """eq ne not_equal logical_and logical_or logical_xor logical_not bitwise_and bitwise_or
    bitwise_xor bitwise_not and or xor one_hot isnan
    isfinite isinf isposinf isneginf signbit count_nonzero histc any all isclose""",
    Operation(Kind.THRESHOLD, "*", carries="*", whole=True),
)
_whole = Operation(Kind.THRESHOLD, "*", carries="*", whole=True, of_whole=True)
operations.add(
    """floor_divide floordiv rfloordiv bitwise_right_shift bitwise_left_shift rshift lshift rrshift
    rlshift""",
    _whole,
)
_counted_bins = Operation(Kind.THRESHOLD, "*", carries="*", whole=True)
_summed_bins = Operation(Kind.UNCOUNTED, "*", carries="*", analog_only=True)
operations.add(
    "bincount",
    replace(
        _counted_bins,
        resolve=lambda call: _counted_bins if call["weights"] is None else _summed_bins,
    ),
)
operations.add(
    "bucketize searchsorted",  # of events, which part is no matter of counting
    Operation(Kind.THRESHOLD, "*", carries="*", whole=True),
)
operations.add(
    "floor ceil round trunc fix sign sgn",
    Operation(Kind.THRESHOLD, whole=True, range=grows),
)

# -- analog: no events come out --------------------------------------------------------------------

operations.add(
    """log_softmax exp2 log log2 log10 rsqrt sin cos tan asin acos atan atan2 sinh cosh erfc erfinv
    gelu silu mish elu selu celu softplus softsign tanhshrink log_sigmoid hardswish glu
    layer_norm group_norm instance_norm rms_norm local_response_norm normalize norm vector_norm var
    std var_mean std_mean reciprocal rdiv logsumexp
    cross_entropy mse_loss nll_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy
    binary_cross_entropy_with_logits kl_div cosine_embedding_loss logit sinc frac hypot argmax
    argmin argsort logcumsumexp rpow multi_margin_loss
    multilabel_margin_loss soft_margin_loss hinge_embedding_loss ctc_loss""",
    Operation(Kind.ANALOG, "*", carries="*"),
)
operations.add("nonzero argwhere", Operation(Kind.ANALOG, "*", carries="*", places=True))
operations.add("tanh", Operation(Kind.ANALOG, range=shrinks))
operations.add(
    "sigmoid exp expm1 log1p sqrt erf special_expit special_erf special_expm1 special_log1p",
    Operation(Kind.ANALOG, range=grows),
)
operations.add("softmax softmin hardsigmoid", Operation(Kind.ANALOG, "*", range=fraction))


def _hard(call: Call) -> Operation:
    return _chosen_class if call["hard"] else _soft


_soft = Operation(Kind.ANALOG, "*", draws=always)
_chosen_class = Operation(Kind.RANDOM, "*", whole=True, rounded=True, most=1.0, draws=always)
operations.add("gumbel_softmax", replace(_soft, resolve=_hard))
# Analog if everything is; of events, it depends.
_fractions = Operation(Kind.ANALOG, "*", carries="*", analog_only=True)
operations.add("embedding", _fractions)


def _rest(call: Call) -> Operation:
    floats = spec(call.node).dtype.is_floating_point
    return _fractions if floats else _whole


operations.add("remainder fmod mod rmod", replace(_fractions, resolve=_rest))

# -- what is said in other operations --------------------------------------------------------------


def _added_product(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    product = tensor1 * tensor2
    return input + (product if value == 1 else product * value)


def _added_quotient(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    quotient = tensor1 / tensor2
    return input + (quotient if value == 1 else quotient * value)


def _between(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    return input * (1 - weight) + end * weight


def _differences(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> Tensor:
    x = torch.cat([part for part in (prepend, input, append) if part is not None], dim)
    for _ in range(n):
        x = x.narrow(dim, 1, x.shape[dim] - 1) - x.narrow(dim, 0, x.shape[dim] - 1)
    return x


def _summed_products(x: Tensor, y: Tensor, dim: int = -1) -> Tensor:
    return (x * y).sum(dim)


def _whatever_depends_on_data(meaning: Callable[..., Tensor], _: Any, **arguments: Any) -> Tensor:
    return meaning(**arguments)


_meanings: dict[str, Callable[..., Tensor]] = {
    "addcmul": _added_product,
    "addcdiv": _added_quotient,
    "lerp": _between,
    "diff": _differences,
    "vecdot": _summed_products,
}
for _name, _meaning in _meanings.items():
    said = partial(_whatever_depends_on_data, _meaning)
    operations.add(_name, Operation(Kind.ANALOG, "*", carries="*", meaning=said))

# -- random: values out of nowhere -----------------------------------------------------------------

operations.add(
    """rand randn rand_like randn_like randint randint_like randperm normal uniform multinomial
    random log_normal cauchy geometric exponential""",
    Operation(Kind.RANDOM, "*", draws=always),
)
operations.add("bernoulli", Operation(Kind.RANDOM, "*", whole=True, most=1.0, draws=always))
operations.add("poisson", Operation(Kind.RANDOM, "*", whole=True, draws=always))

# -- what no rule counts, and nothing else is taken for --------------------------------------------

operations.add(
    """chain_matmul multi_dot cross tensorsolve kron bilinear lstm gru rnn_tanh
    rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell embedding_bag
    multi_head_attention_forward _native_multi_head_attention""",
    Operation(Kind.UNCOUNTED, "*", carries="*"),
)
# Of events, they are sums with weights that nothing shows; of analog values, no synapses.
operations.add(
    """cdist cosine_similarity pairwise_distance stft istft fft_fft fft_ifft fft_rfft fft_irfft
    fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn
    fft_irfftn""",
    Operation(Kind.UNCOUNTED, "*", carries="*", analog_only=True),
)
