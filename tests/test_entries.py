"""Every entry of the registry, visited: reached from real torch, in every spelling of the call, and
held against what the operation really does to events, one element at a time.

``VISITS`` has one call for each name in the registry, by torch's names of the parameters. An entry
without a visit fails ``test_every_entry_is_visited``.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
from fxsynops.operations import Kind, operations
from fxsynops.operations.registry import is_torch, operation_name
from fxsynops.operations.signatures import _NUMPY, _signatures, arguments
from fxsynops.operations.synapses import one_to_one

X = (2, 4, 6)
T = torch.tensor
W = torch.ones(6, 6)


@dataclass(frozen=True)
class Size:
    """A tensor of events of some size; several of one visit differ."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


x, row, square, image = Size(X), Size((6,)), Size((6, 6)), Size((1, 2, 6, 6))
line, volume = Size((1, 2, 6)), Size((1, 2, 4, 4, 4))
whole = Size(X, torch.int64)
bits = Size(X, torch.bool)
mask = T([True, False, True, True, False, True])
index = T([[[0, 1, 1, 0, 1, 0]] * 4] * 2)


@dataclass
class Visit:
    """One call of an operation, by the names of its parameters, or as code."""

    given: dict[str, Any] = field(default_factory=dict)
    only: Any = None


def _(**given: Any) -> Visit:
    return Visit(given)


VISITS: dict[str, Visit] = {
    # copies and casts
    "type": _(input=x, dtype=torch.float64),
    "type_as": _(input=x, other=torch.zeros(1, dtype=torch.float64)),
    "to": _(input=x, dtype=torch.float64),
    "_to_copy": _(input=x, dtype=torch.float64),
    "cuda": Visit(only=lambda v: v.cpu()),
    "pin_memory": Visit(only=lambda v: v.cpu()),
    "get_data": Visit(only=lambda v: v.data),
    "deepcopy": Visit(only=copy.deepcopy),
    "shallow_copy": Visit(only=copy.copy),
    "share_memory": Visit(only=lambda v: v.clone().share_memory_()),
    "tensor": Visit(only=lambda v: torch.tensor([e * 1 for e in v.flatten()])),
    "as_tensor": _(data=x, dtype=torch.float64),
    "asarray": Visit(only=lambda v: torch.asarray(v, dtype=torch.float64)),
    # sums, scales
    "add": _(input=x, other=x),
    "sub": _(input=x, other=x),
    "subtract": _(input=x, other=x),
    "rsub": _(input=x, other=1),
    "mul": _(input=x, other=2.0),
    "multiply": _(input=x, other=T(2.0)),
    "div": _(input=x, other=2.0),
    "divide": _(input=x, other=4.0),
    "true_divide": _(input=x, other=2.0),
    "batch_norm": _(
        input=image,
        running_mean=torch.zeros(2),
        running_var=torch.ones(2),
        weight=None,
        bias=None,
        training=False,
        momentum=0.1,
        eps=0.0,
        cudnn_enabled=False,
    ),
    "native_batch_norm": _(
        input=image,
        running_mean=torch.zeros(2),
        running_var=torch.ones(2),
        weight=None,
        bias=None,
        training=False,
        momentum=0.1,
        eps=0.0,
    ),
    # axes
    "view": _(input=x, size=(8, 6)),
    "view_copy": _(input=x, size=(8, 6)),
    "_unsafe_view": _(input=x, size=(8, 6)),
    "reshape": _(input=x, size=(4, 12)),
    "flatten": _(input=x, start_dim=1),
    "unflatten": _(input=x, dim=2, sizes=(2, 3)),
    "ravel": _(input=x),
    "view_as": _(input=x, other=torch.zeros(8, 6)),
    "reshape_as": _(input=x, other=torch.zeros(8, 6)),
    "squeeze": _(input=Size((2, 1, 6)), dim=1),
    "squeeze_copy": _(input=Size((2, 1, 6)), dim=1),
    "unsqueeze": _(input=x, dim=1),
    "unsqueeze_copy": _(input=x, dim=1),
    "atleast_1d": Visit(only=lambda v: torch.atleast_1d(v)),
    "atleast_2d": Visit(only=lambda v: torch.atleast_2d(v[0, 0])),
    "atleast_3d": Visit(only=lambda v: torch.atleast_3d(v[0])),
    "permute": _(input=x, dims=(2, 0, 1)),
    "transpose": _(input=x, dim0=0, dim1=2),
    "swapaxes": _(input=x, dim0=0, dim1=2),
    "swapdims": _(input=x, dim0=0, dim1=2),
    "movedim": _(input=x, source=0, destination=2),
    "moveaxis": _(input=x, source=0, destination=2),
    "t": _(input=square),
    "get_T": Visit(only=lambda v: v[0].T),
    "get_H": Visit(only=lambda v: v[0].H),
    "get_mT": Visit(only=lambda v: v.mT),
    "get_mH": Visit(only=lambda v: v.mH),
    "expand": _(input=Size((2, 1, 6)), size=(2, 4, 6)),
    "expand_copy": _(input=Size((2, 1, 6)), size=(2, 4, 6)),
    "expand_as": _(input=Size((2, 1, 6)), other=torch.zeros(X)),
    "broadcast_to": _(input=Size((2, 1, 6)), size=(2, 4, 6)),
    "repeat": _(input=x, repeats=(2, 1, 3)),
    "tile": _(input=x, dims=(2, 3)),
    # joining and parts
    "cat": _(tensors=[x, x], dim=1),
    "concat": _(tensors=[x, x], dim=1),
    "concatenate": _(tensors=[x, x], dim=1),
    "stack": _(tensors=[x, x], dim=1),
    "hstack": _(tensors=[x, x]),
    "vstack": _(tensors=[x, x]),
    "row_stack": _(tensors=[x, x]),
    "column_stack": _(tensors=[row, row]),
    "dstack": _(tensors=[x, x]),
    "broadcast_tensors": Visit(only=lambda v: torch.broadcast_tensors(v, v[:1])[0]),
    "select": _(input=x, dim=1, index=-1),
    "narrow": _(input=x, dim=2, start=-3, length=2),
    "narrow_copy": _(input=x, dim=2, start=1, length=2),
    "slice": _(input=x, dim=2, start=1, end=6, step=2),
    "split": _(input=x, split_size=2, dim=1),
    "chunk": _(input=x, chunks=2, dim=1),
    "tensor_split": Visit(only=lambda v: torch.tensor_split(v, (1, 3), 1)),
    "unsafe_split": _(input=x, split_size=2, dim=1),
    "unsafe_chunk": _(input=x, chunks=2, dim=1),
    "split_with_sizes": _(input=x, split_size=[1, 3], dim=1),
    "hsplit": Visit(only=lambda v: torch.hsplit(v, 2)),
    "vsplit": Visit(only=lambda v: torch.vsplit(v, 2)),
    "dsplit": Visit(only=lambda v: torch.dsplit(v, 3)),
    "unbind": _(input=x, dim=1),
    "getitem": Visit(only=lambda v: v[:, None, ..., 1::2]),
    "index_select": _(input=x, dim=1, index=T([0, 3, 3])),
    "take": _(input=x, index=T([0, 7, 7, 9])),
    "take_along_dim": _(input=x, indices=index, dim=1),
    "index": _(input=x, indices=[None, T([0, 3, 3])]),
    "_unsafe_index": Visit(only=lambda v: torch.ops.aten._unsafe_index(v, [None, T([0, 3])])),
    "diagonal": _(input=x, offset=1, dim1=1, dim2=2),
    "diag": _(input=square, diagonal=1),
    "tril": _(input=x, diagonal=-1),
    "triu": _(input=x, diagonal=1),
    "as_strided": _(input=x, size=(2, 3), stride=(24, 2), storage_offset=1),
    "rot90": _(input=x, k=1, dims=(1, 2)),
    "unfold": _(input=x, dimension=2, size=3, step=2),
    "repeat_interleave": _(input=x, repeats=2, dim=1),
    "pixel_shuffle": _(input=Size((1, 4, 3, 3)), upscale_factor=2),
    "pixel_unshuffle": _(input=image, downscale_factor=2),
    "channel_shuffle": _(input=Size((1, 4, 3, 3)), groups=2),
    "native_channel_shuffle": _(input=Size((1, 4, 3, 3)), groups=2),
    "diag_embed": _(input=x, offset=1),
    "fold": Visit(only=lambda v: F.fold(v.reshape(1, 8, 6), (3, 4), 2)),
    "col2im": Visit(
        only=lambda v: torch.ops.aten.col2im(
            v.reshape(1, 8, 6), [3, 4], [2, 2], [1, 1], [0, 0], [1, 1]
        )
    ),
    "flip": _(input=x, dims=(0, 2)),
    "fliplr": _(input=x),
    "flipud": _(input=x),
    "roll": _(input=x, shifts=2, dims=1),
    "pad": _(input=x, pad=[1, 2], mode="reflect", value=None),
    "constant_pad_nd": _(input=x, pad=[1, 2], value=0.0),
    # windows
    "sum": _(input=x, dim=1, keepdim=True),
    "nansum": _(input=x, dim=1, keepdim=True),
    "mean": _(input=x, dim=1, keepdim=True),
    "cumsum": _(input=x, dim=1),
    "avg_pool1d": _(input=line, kernel_size=3, stride=2, padding=1),
    "avg_pool2d": _(input=image, kernel_size=3, stride=2, ceil_mode=True),
    "avg_pool3d": _(input=volume, kernel_size=2, count_include_pad=False),
    "lp_pool1d": _(input=line, norm_type=1, kernel_size=2),
    "lp_pool2d": _(input=image, norm_type=1, kernel_size=2),
    "lp_pool3d": _(input=volume, norm_type=1, kernel_size=2),
    "adaptive_avg_pool1d": _(input=line, output_size=4),
    "adaptive_avg_pool2d": _(input=image, output_size=(3, 4)),
    "adaptive_avg_pool3d": _(input=volume, output_size=2),
    "interpolate": _(input=image, scale_factor=2, mode="bilinear", align_corners=True),
    # writes
    "setitem": Visit(only="written"),
    "copy": Visit(only=lambda v: torch.zeros(X).copy_(v[:, :1])),
    "after": Visit(only="after"),
    "alias_after": Visit(only="aliased"),
    # gates
    "masked_scatter": _(input=x, mask=mask, source=x),
    "scatter": _(input=x, dim=1, index=index, src=x),
    "scatter_add": _(input=x, dim=1, index=index, src=x),
    "scatter_reduce": _(input=x, dim=1, index=index, src=x, reduce="sum"),
    "index_reduce": Visit(
        only=lambda v: v.index_reduce(0, torch.tensor([1, 0]), v[:2].flip(1), "amax")
    ),
    "index_put": Visit(only=lambda v: v.index_put((torch.tensor([1, 0]),), v[:2])),
    "slice_scatter": _(input=x, src=Size((1, 4, 6)), dim=0, start=0, end=1, step=1),
    "select_scatter": _(input=x, src=Size((4, 6)), dim=0, index=1),
    "diagonal_scatter": Visit(only=lambda v: torch.diagonal_scatter(v, v[:, 0].T)),
    "grid_sample": Visit(
        only=lambda v: F.grid_sample(
            v[None], torch.linspace(-0.9, 0.9, 12).reshape(1, 1, 6, 2), align_corners=True
        )
    ),
    "diff": _(input=x, n=1, dim=1),
    "index_add": _(input=x, dim=1, index=T([1, 0, 0, 2]), source=x),
    "index_copy": _(input=x, dim=1, index=T([1, 0, 2]), source=Size((2, 3, 6))),
    "index_fill": _(input=x, dim=1, index=T([1, 0]), value=1.0),
    "masked_fill": _(input=x, mask=mask, value=1.0),
    "clamp": _(input=x, min=0.0, max=1.0),
    "clip": _(input=x, min=0.0, max=1.0),
    "clamp_min": _(input=x, min=0.0),
    "clamp_max": _(input=x, max=1.0),
    "hardtanh": _(input=x, min_val=0.0, max_val=2.0),
    "threshold": _(input=x, threshold=0.5, value=0.0),
    "_threshold": _(input=x, threshold=0.5, value=0.0),
    "prelu": _(input=x, weight=torch.ones(1)),
    "rrelu": Visit(only=lambda v: F.rrelu(v, training=False)),
    "masked_select": _(input=x, mask=mask),
    "max": _(input=x, dim=1),
    "min": _(input=x, dim=1),
    "topk": _(input=x, k=2, dim=1),
    "kthvalue": _(input=x, k=2, dim=1),
    "gather": _(input=x, dim=1, index=index),
    "cummax": _(input=x, dim=1),
    "cummin": _(input=x, dim=1),
    "max_pool1d": _(input=line, kernel_size=3, stride=2, padding=1),
    "max_pool1d_with_indices": _(input=line, kernel_size=3, stride=2),
    "max_pool2d": _(input=image, kernel_size=2),
    "max_pool2d_with_indices": _(input=image, kernel_size=2),
    "max_pool3d": _(input=volume, kernel_size=2),
    "max_pool3d_with_indices": _(input=volume, kernel_size=2),
    "adaptive_max_pool1d": _(input=line, output_size=4),
    "adaptive_max_pool1d_with_indices": Visit(
        only=lambda v: F.adaptive_max_pool1d_with_indices(v, 3)[0]
    ),
    "adaptive_max_pool2d": _(input=image, output_size=(3, 4)),
    "adaptive_max_pool2d_with_indices": Visit(
        only=lambda v: F.adaptive_max_pool2d_with_indices(v[None], 3)[0]
    ),
    "adaptive_max_pool3d": _(input=volume, output_size=2),
    "adaptive_max_pool3d_with_indices": Visit(
        only=lambda v: F.adaptive_max_pool3d_with_indices(v.reshape(1, 2, 2, 2, 6), 2)[0]
    ),
    "fractional_max_pool2d": Visit(only=lambda v: F.fractional_max_pool2d(v[None], 2, (2, 3))),
    "fractional_max_pool2d_with_indices": Visit(
        only=lambda v: F.fractional_max_pool2d_with_indices(v[None], 2, (2, 3))[0]
    ),
    "fractional_max_pool3d": Visit(
        only=lambda v: F.fractional_max_pool3d(v.reshape(1, 1, 2, 4, 6), 1, (1, 2, 3))
    ),
    "fractional_max_pool3d_with_indices": Visit(
        only=lambda v: F.fractional_max_pool3d_with_indices(v.reshape(1, 1, 2, 4, 6), 1, (1, 2, 3))[
            0
        ]
    ),
    "max_unpool1d": Visit(only=lambda v: F.max_unpool1d(v, T([[[0, 3, 4, 7, 8, 11]] * 4] * 2), 2)),
    "max_unpool2d": Visit(
        only=lambda v: F.max_unpool2d(v[None], T([[range(24)] * 2]).reshape(1, 2, 4, 6), 1)
    ),
    "max_unpool3d": Visit(
        only=lambda v: F.max_unpool3d(
            v.reshape(1, 2, 2, 2, 6), T([range(24)] * 2).reshape(1, 2, 2, 2, 6), 1
        )
    ),
    "where": _(condition=mask, input=x, other=x),
    "maximum": _(input=x, other=x),
    "minimum": _(input=x, other=x),
    "fmax": _(input=x, other=x),
    "fmin": _(input=x, other=x),
    "cumprod": _(input=x, dim=1),
    "prod": _(input=x, dim=1),
    "pow": _(input=x, exponent=2),
    "dropout": _(input=x, p=0.5, training=False),
    "dropout1d": _(input=x, p=0.5, training=False),
    "dropout2d": _(input=image, p=0.5, training=False),
    "dropout3d": _(input=volume, p=0.5, training=False),
    "feature_dropout": _(input=image, p=0.5, training=False),
    "alpha_dropout": _(input=x, p=0.5, training=False),
    "feature_alpha_dropout": _(input=image, p=0.5, training=False),
    # thresholds
    "heaviside": _(input=x, values=torch.ones(())),
    "one_hot": _(input=whole, num_classes=2),
    "logical_not": _(input=x),
    "bitwise_not": _(input=bits),
    "bitwise_and": _(input=bits, other=bits),
    "bitwise_or": _(input=bits, other=bits),
    "bitwise_xor": _(input=bits, other=bits),
    "and": Visit(only=lambda v: v.bool() & v.bool().flip(1)),
    "or": Visit(only=lambda v: v.bool() | v.bool().flip(1)),
    "xor": Visit(only=lambda v: v.bool() ^ v.bool().flip(1)),
    "floordiv": Visit(only=lambda v: v // 2),
    "rfloordiv": Visit(only=lambda v: 2 // (1 + v)),
    "floor_divide": _(input=x, other=2.0),
    "bitwise_right_shift": _(input=whole, other=1),
    "bitwise_left_shift": _(input=whole, other=1),
    "rshift": Visit(only=lambda v: (v * 255).long() >> 3),
    "lshift": Visit(only=lambda v: v.long() << 3),
    "rrshift": Visit(only=lambda v: 8 >> v.long()),
    "rlshift": Visit(only=lambda v: 1 << v.long()),
    "isclose": _(input=x, other=torch.ones(())),
    "histc": _(input=x, bins=3),
    "bincount": Visit(only=lambda v: v.long().flatten().bincount()),
    "any": _(input=x, dim=1),
    "all": _(input=x, dim=1),
    # products with weights: events of the first operand
    "linear": _(input=x, weight=torch.ones(5, 6), bias=torch.ones(5)),
    "matmul": _(input=x, other=torch.ones(6, 5)),
    "rmatmul": Visit(only=lambda v: v.__rmatmul__(torch.ones(5, 4))),
    "mm": _(input=square, mat2=torch.ones(6, 5)),
    "bmm": _(input=x, mat2=torch.ones(2, 6, 5)),
    "mv": _(input=square, vec=torch.ones(6)),
    "dot": _(input=row, tensor=torch.ones(6)),
    "vdot": _(input=row, other=torch.ones(6)),
    "inner": _(input=x, other=torch.ones(5, 6)),
    "outer": _(input=row, vec2=torch.ones(5)),
    "ger": _(input=row, vec2=torch.ones(5)),
    "tensordot": _(a=x, b=torch.ones(6, 5), dims=1),
    "addmm": _(input=torch.ones(5), mat1=square, mat2=torch.ones(6, 5)),
    "addmv": _(input=torch.ones(6), mat=square, vec=torch.ones(6)),
    "addr": _(input=torch.ones(6, 5), vec1=row, vec2=torch.ones(5)),
    "baddbmm": _(input=torch.ones(5), batch1=x, batch2=torch.ones(2, 6, 5)),
    "addbmm": _(input=torch.ones(4, 5), batch1=x, batch2=torch.ones(2, 6, 5)),
    "einsum": Visit(only=lambda v: torch.einsum("bij,jk->bik", v, torch.ones(6, 5))),
    "one_to_one": Visit(only="one to one"),
    "conv1d": _(input=line, weight=torch.ones(3, 2, 3), bias=torch.ones(3), stride=2, padding=1),
    "conv2d": _(input=image, weight=torch.ones(4, 1, 3, 2), bias=None, dilation=(1, 2), groups=2),
    "conv3d": _(input=volume, weight=torch.ones(3, 2, 2, 2, 2), padding="same"),
    "conv_transpose1d": _(input=line, weight=torch.ones(2, 3, 3), stride=2, output_padding=1),
    "conv_transpose2d": _(input=image, weight=torch.ones(2, 2, 3, 2), groups=2, dilation=2),
    "conv_transpose3d": _(input=volume, weight=torch.ones(2, 3, 2, 2, 2), padding=1),
    "convolution": _(
        input=image,
        weight=torch.ones(4, 1, 3, 2),
        bias=None,
        stride=[1, 1],
        padding=[1, 0],
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=2,
    ),
    "scaled_dot_product_attention": _(query=x, key=x, value=x),
    # analog
    "glu": _(input=x, dim=1),
    "layer_norm": _(input=x, normalized_shape=[6]),
    "rms_norm": _(input=x, normalized_shape=[6]),
    "group_norm": _(input=image, num_groups=2),
    "instance_norm": Visit(only=lambda v: F.instance_norm(v)),
    "local_response_norm": Visit(only=lambda v: F.local_response_norm(v, 2)),
    "normalize": Visit(only=lambda v: F.normalize(v)),
    "norm": _(input=x, p=2),
    "vector_norm": Visit(only=lambda v: torch.linalg.vector_norm(v)),
    "rdiv": Visit(only=lambda v: 1 / (1 + v)),
    "rpow": Visit(only=lambda v: 2**v),
    "logsumexp": _(input=x, dim=1),
    "logcumsumexp": _(input=x, dim=1),
    "softmax": _(input=x, dim=1),
    "log_softmax": _(input=x, dim=1),
    "softmin": Visit(only=lambda v: F.softmin(v, 1)),
    "gumbel_softmax": Visit(only=lambda v: F.gumbel_softmax(v)),
    "argsort": _(input=x, dim=1),
    "searchsorted": Visit(only=lambda v: torch.searchsorted(T([0.0, 0.5]), v)),
    "bucketize": Visit(only=lambda v: torch.bucketize(v, T([0.0, 0.5]))),
    "embedding": Visit(only=lambda v: F.embedding((torch.sin(v) > 2).long(), torch.ones(3, 4))),
    "nonzero": Visit(only=lambda v: torch.sin(v + 1).nonzero()),
    "argwhere": Visit(only=lambda v: torch.argwhere(torch.sin(v + 1))),
    "hypot": _(input=x, other=torch.ones(())),
    "atan2": _(input=x, other=torch.ones(())),
    "cosine_similarity": Visit(only=lambda v: F.cosine_similarity(v + 1, v + 2)),
    "pairwise_distance": Visit(only=lambda v: F.pairwise_distance(v, v + 1)),
    "addcmul": _(input=Size(X), tensor1=torch.ones(()), tensor2=torch.ones(())),
    "addcdiv": _(input=Size(X), tensor1=torch.ones(()), tensor2=torch.ones(())),
    "lerp": _(input=x, end=x, weight=0.5),
    "remainder": _(input=x, other=2.0),
    "fmod": _(input=x, other=2.0),
    "mod": Visit(only=lambda v: v % 2),
    "rmod": Visit(only=lambda v: 2 % (1 + v)),
    "fill": Visit(only=lambda v: v.clone().fill_(1.0)),
    "full_like": _(input=x, fill_value=1.0),
    "new_full": _(input=x, size=(2,), fill_value=1.0),
    "new_tensor": Visit(only=lambda v: v.new_tensor(v.detach().clone())),
    "new_zeros": _(input=x, size=(2,)),
    "new_ones": _(input=x, size=(2,)),
    "new_empty": _(input=x, size=(2,)),
    "new_empty_strided": _(input=x, size=(2,), stride=(1,)),
    "empty_strided": Visit(only=lambda v: torch.empty_strided((2,), (1,)).zero_()),
}
ONE_OPERAND = (
    """contiguous clone detach float double half bfloat16 int long short byte char bool cpu alias
    requires_grad detach_copy positive neg negative adjoint relu relu6 hardshrink softshrink
    leaky_relu abs absolute nan_to_num amax amin sort msort median nanmedian mode square isnan
    isfinite isinf isposinf isneginf signbit count_nonzero floor ceil round trunc fix sign sgn zero
    zeros_like ones_like empty_like exp2 log log2 log10 rsqrt sin cos tan asin acos atan sinh cosh
    erfc erfinv gelu silu mish elu selu celu softplus softsign tanhshrink log_sigmoid hardswish var
    std var_mean std_mean reciprocal logit sinc frac argmax argmin tanh sigmoid exp expm1 log1p sqrt
    erf special_expit special_erf special_expm1 special_log1p hardsigmoid"""
).split()
VISITS |= {name: _(input=x) for name in ONE_OPERAND}
VISITS |= {
    name: _(input=x, other=x)
    for name in """gt lt ge le greater less greater_equal less_equal eq ne not_equal logical_and
    logical_or logical_xor""".split()
}
GIVEN = {"geometric": (0.5,)}
SUMS = {"kl_div": {"reduction": "sum"}}
VISITS |= {
    "rand": Visit(only=lambda v: v + torch.rand(X)),
    "randn": Visit(only=lambda v: v + torch.randn(X)),
    "rand_like": _(input=x),
    "randn_like": _(input=x),
    "randint": Visit(only=lambda v: v + torch.randint(3, X)),
    "randint_like": _(input=x, high=3),
    "randperm": Visit(only=lambda v: v + torch.randperm(6)),
    "normal": Visit(only=lambda v: v + torch.normal(torch.zeros(X), 1.0)),
    "multinomial": Visit(only=lambda v: v[0] + torch.ones(6).multinomial(6)),
    "bernoulli": _(input=x),
    "poisson": _(input=x),
}
VISITS |= {
    name: Visit(
        only=lambda v, name=name: v + getattr(torch.zeros(X), f"{name}_")(*GIVEN.get(name, ()))
    )
    for name in "uniform random log_normal cauchy geometric exponential".split()
}
VISITS |= {
    name: Visit(
        only=lambda v, name=name: getattr(F, name)(
            v.sigmoid(), torch.full(X, 0.5), **SUMS.get(name, {})
        )
    )
    for name in """mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy kl_div
    binary_cross_entropy_with_logits soft_margin_loss hinge_embedding_loss""".split()
}
ROWS = T([0, 2, 1, 3, 5, 4, 0, 0])
VISITS |= {
    "cross_entropy": Visit(only=lambda v: F.cross_entropy(v.reshape(8, 6), ROWS)),
    "nll_loss": Visit(only=lambda v: F.nll_loss(v.reshape(8, 6), ROWS)),
    "multi_margin_loss": Visit(only=lambda v: F.multi_margin_loss(v.reshape(8, 6), ROWS)),
    "multilabel_margin_loss": Visit(
        only=lambda v: F.multilabel_margin_loss(v[0], T([[0, 1, -1, 2, 3, 4]] * 4))
    ),
    "cosine_embedding_loss": Visit(
        only=lambda v: F.cosine_embedding_loss(v[0], v[1], torch.ones(4))
    ),
    "ctc_loss": Visit(
        only=lambda v: F.ctc_loss(v.log_softmax(-1), T([[1]] * 4), T([2] * 4), T([1] * 4))
    ),
}
VISITS |= {
    "chain_matmul": Visit(only=lambda v: torch.linalg.multi_dot([v[0], W, W])),
    "multi_dot": Visit(only=lambda v: torch.linalg.multi_dot([v[0], W, W])),
    "vecdot": Visit(only=lambda v: torch.linalg.vecdot(v, W[0])),
    "cross": Visit(only=lambda v: torch.linalg.cross(v[..., :3], W[0, :3].expand(2, 4, 3))),
    "tensorsolve": Visit(only=lambda v: torch.linalg.tensorsolve(W + torch.eye(6), v[0, 0])),
    "cdist": Visit(only=lambda v: torch.cdist(v, W)),
    "kron": Visit(only=lambda v: torch.kron(v[0], W)),
    "bilinear": Visit(only=lambda v: F.bilinear(v, v, torch.ones(2, 6, 6))),
    "embedding_bag": Visit(
        only=lambda v: F.embedding_bag(
            T([[0, 1]]), torch.ones(3, 4), mode="sum", per_sample_weights=v[:1, 0, :2]
        )
    ),
}
# Reached only inside of modules that are kept whole, on a GPU, or with packed weights (torch.ao).
UNREACHED = {
    *"""lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
    multi_head_attention_forward _native_multi_head_attention cuda pin_memory
    quantized_linear quantized_linear_relu quantized_linear_dynamic quantized_linear_relu_dynamic
    quantized_linear_dynamic_fp16 quantized_linear_relu_dynamic_fp16 quantized_conv1d
    quantized_conv1d_relu quantized_conv2d quantized_conv2d_relu quantized_conv3d
    quantized_conv3d_relu quantize_per_tensor dequantize""".split(),
}
# Of other layouts, complex, or not counted at all: tests of their own.
APART = {
    *"""_sparse_mm _sparse_addmm to_sparse to_sparse_coo to_sparse_csr to_sparse_csc to_dense
    coalesce cdist stft istft fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fft2
    fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn""".split(),
}


def _written(v):
    y = torch.zeros(X)
    y[:, 1:3] = v[:, 1:3]
    return y


@torch.library.custom_op(
    "entries::add_into", mutates_args={"y"}, schema="(Tensor(a!) y, Tensor v) -> ()"
)
def add_into(y: Tensor, v: Tensor) -> None:
    y.add_(v)


def _after(v):
    y, zero = torch.full(X, 2.0), torch.zeros(())
    add_into(y, zero)  # writes to what depends on no data
    return v.clone() * y


def _aliased(v):
    y = torch.zeros(X)
    y[0].copy_(v[0])
    return y


CODE = {
    "written": _written,
    "after": _after,
    "aliased": _aliased,
    "one to one": lambda v: one_to_one(v, torch.ones(6)),
}


def test_every_entry_is_visited():
    assert set(operations.by_name) == set(VISITS) | UNREACHED | APART


# -- spellings -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spelling:
    """A call of some target, whose tensors of events are to be put in."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __str__(self) -> str:
        said = [type(a).__name__ for a in self.args] + list(self.kwargs)
        return f"{type(self.target).__name__} {self.target.__name__}({', '.join(said)})"


def _targets(name: str) -> Iterator[Any]:
    """Everything in torch that goes by a name of the registry."""
    spaces = (torch, Tensor, F, torch.linalg, torch.special, torch._C._nn)
    for space in spaces:
        for attribute in dir(space):
            target = getattr(space, attribute)
            known = callable(target) and not isinstance(target, type) and is_torch(target)
            if known and not attribute.startswith("__") and operation_name(target) == name:
                yield target
    packet = getattr(torch.ops.aten, name, None)
    for overload in packet.overloads() if packet is not None else ():
        if torch._C._dispatch_has_kernel(getattr(packet, overload).name()):
            yield getattr(packet, overload)


def spellings(name: str, visit: Visit) -> Iterator[Spelling]:
    given = visit.given
    seen = set()
    for target in _targets(name):
        if target in seen or target.__name__ == "__get__":
            continue
        seen.add(target)
        for signature in _signatures(target):
            names = [p.name for p in signature]
            if not set(given) <= set(names) or any(
                p.default is inspect.Parameter.empty and p.name not in given for p in signature
            ):
                continue
            places = [p for p in signature if not p.keyword_only]
            front = []
            for parameter in places:
                if parameter.name not in given:
                    break
                front.append(parameter.name)
            rest = {n: v for n, v in given.items() if n not in front}
            yield Spelling(target, tuple(given[n] for n in front), rest)
            if isinstance(target, torch._ops.OpOverload):
                continue
            kind = type(target).__name__
            spelled = _spelled(target, signature)
            gathers = any(p.gathers for p in signature)
            if gathers or not front:
                continue
            keep = 1 if kind == "method_descriptor" or spelled[0] in ("self", "tensor") else 0
            words = {spelled[i]: given[n] for i, n in enumerate(front) if i >= keep}
            words |= rest
            yield Spelling(target, tuple(given[n] for n in front[:keep]), words)
            if kind != "function":
                numpy = {new: old for new, old in _NUMPY.items() if new not in ("x", "a")}
                words = {
                    next((new for new, old in numpy.items() if old == n), n): v
                    for n, v in words.items()
                }
                yield Spelling(target, tuple(given[n] for n in front[:keep]), words)


def _spelled(target: Any, signature: Any) -> list[str]:
    """The names of the parameters as the target itself spells them."""
    if type(target).__name__ == "function":
        try:
            names = list(inspect.signature(target).parameters)
        except ValueError:
            names = []
        if len(names) == len(signature):
            return names
    return [p.name for p in signature]


def put(value: Any, fill: Any) -> Any:
    """A value with tensors in place of sizes."""
    if isinstance(value, Size):
        return fill(value)
    return [put(v, fill) for v in value] if isinstance(value, list) else value


def draw(size: Size, generator: torch.Generator) -> Tensor:
    return (torch.rand(size.shape, generator=generator) < 0.6).to(size.dtype)


class Net(nn.Module):
    """Linear(n, 3) behind some code."""

    def __init__(self, code: Any, size: int) -> None:
        super().__init__()
        self.code, self.fc = code, nn.Linear(size, 3)

    def forward(self, *xs: Tensor) -> Tensor:
        return self.fc(flat(self.code(*xs)))


def flat(y: Any) -> Tensor:
    if isinstance(y, tuple | list):
        y = torch.cat([part.flatten() for part in y]) if len({p.dtype for p in y}) == 1 else y[0]
    return y.reshape(1, -1).to(torch.float32)


def visited(name: str, code: Any, inputs: list[Tensor]) -> None:
    """Hold an entry against what the code does to events."""
    entry = operations.by_name[name]
    size = flat(code(*[v.clone() for v in inputs])).shape[1]
    net = Net(code, size)
    if entry.kind is Kind.UNCOUNTED or entry.analog_only:
        with pytest.raises(fxsynops.UnsupportedOperationError):
            fxsynops.analyze(net, tuple(inputs), layout="")
        return
    try:
        # What has no values yet is not the same twice.
        audit = "empty" not in name
        counter = fxsynops.SynOpsCounter(net, tuple(inputs), layout="", audit=audit)
    except fxsynops.InputError as error:
        if "no spiking node" not in str(error):
            raise
        return
    calls = counter.analysis.connector.signals.calls
    nodes = [n for n in counter.analysis.trace.graph.nodes if n.op == "call_function"]
    assert name in {calls[n][0].name for n in nodes}, "it is not reached"
    torch.manual_seed(0)
    y = flat(net.code(*[v.clone() for v in inputs]))
    torch.manual_seed(0)
    counter(*inputs)
    found = float(counter.per_synapse.get("fc", torch.zeros(())).detach())
    kind = Kind.ROUTING if entry.meaning and entry.kind is Kind.ANALOG else entry.kind
    if entry.kind is Kind.ROUTING:
        kind = entry.of(calls[next(n for n in nodes if calls[n][0].name == name)][0]).kind
    if kind is Kind.ROUTING:
        reached = torch.zeros(())
        for i, v in enumerate(inputs):
            reached = reached + (v.double() * outputs_reached(net.code, inputs, i)).sum()
        assert found == 3 * float(reached)
    elif kind in (Kind.GATE, Kind.THRESHOLD) or (kind is Kind.RANDOM and entry.whole):
        events = (y != 0) if entry.shrinks else y.abs()  # what is left of an event is one
        assert found == 3 * float(events.sum())
    elif kind in (Kind.SYNAPSE, Kind.PRODUCT):
        others = sum(v for n, v in counter.per_synapse.items() if n != "fc")
        assert float(others) == float(y.sum()) - float(bias(net.code, inputs).sum())
        assert found == 0
    else:
        assert found == 0


def outputs_reached(code: Any, inputs: list[Tensor], which: int) -> Tensor:
    """For each element of an input, how many outputs differ if it has one event more."""
    base = [v.double() * 0 for v in inputs]
    rest = flat64(code, base)
    counts = torch.zeros(inputs[which].numel(), dtype=torch.float64)
    for i in range(len(counts)):
        more = [v.clone() for v in base]
        more[which].view(-1)[i] += 1
        counts[i] = (flat64(code, more) != rest).sum()
    return counts.reshape(inputs[which].shape)


def flat64(code: Any, inputs: list[Tensor]) -> Tensor:
    y = code(*[v.clone().to(torch.float32) for v in inputs])
    return flat(y).double()


def bias(code: Any, inputs: list[Tensor]) -> Tensor:
    return flat(code(*[torch.zeros_like(v) for v in inputs]))


@pytest.mark.parametrize("name", [n for n, visit in VISITS.items() if visit.only is None])
def test_every_spelling_of_a_call_is_one(name):
    tried = 0
    for spelling in {str(s): s for s in spellings(name, VISITS[name])}.values():
        tried += try_spelling(name, spelling)
    assert tried


def try_spelling(name: str, spelling: Spelling) -> bool:
    """Whether torch has such a call, which is then held against its entry."""
    sizes: list[Size] = []
    for value in (*spelling.args, *spelling.kwargs.values()):
        put(value, sizes.append)
    generator = torch.Generator().manual_seed(0)
    inputs = [draw(size, generator) for size in sizes]
    in_place = spelling.target.__name__.endswith("_")

    def code(*xs: Tensor) -> Any:
        values = iter(xs)
        args = [put(v, lambda _: next(values)) for v in spelling.args]
        kwargs = {k: put(v, lambda _: next(values)) for k, v in spelling.kwargs.items()}
        if in_place:
            args[0] = args[0].clone()
        return spelling.target(*args, **kwargs)

    try:
        code(*[v.clone() for v in inputs])
    except Exception:  # a method that has no such keyword, say
        return False
    zeros = torch.zeros(1)
    args = [put(v, lambda _: zeros) for v in spelling.args]
    kwargs = {n: put(v, lambda _: zeros) for n, v in spelling.kwargs.items()}
    bound = arguments(spelling.target, args, kwargs)
    assert bound is not None, spelling
    given = {n: put(v, lambda _: zeros) for n, v in VISITS[name].given.items()}
    assert all(bound.values[n] is v or bound.values[n] == v for n, v in given.items()), spelling
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            visited(name, code, inputs)
        except Exception as error:
            raise AssertionError(f"{spelling}: {type(error).__name__}: {error}") from error
    return True


@pytest.mark.filterwarnings("ignore:To copy construct")
@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("name", [n for n, visit in VISITS.items() if visit.only is not None])
def test_entries_that_only_code_reaches(name):
    code = VISITS[name].only
    code = CODE.get(code, code) if isinstance(code, str) else code
    inputs = [draw(x, torch.Generator().manual_seed(0))]
    if name in UNREACHED | APART:
        return
    visited(name, code, inputs)
