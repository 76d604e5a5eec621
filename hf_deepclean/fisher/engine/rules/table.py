# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Which rule an op has, and the ops that need none because autograd keeps the examples apart."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ..calls import Contact
from .convolution import convolution_rule, transposed_convolution_rule
from .embedding import embedding_rule, getitem_rule, index_select_rule
from .linear import addmm_rule, linear_rule, matmul_rule
from .normalization import batch_norm_rule, group_norm_rule, layer_norm_rule, rms_norm_rule


def _named(*names: str) -> set[Callable[..., Any]]:
    owners = (torch, torch.Tensor, F)
    return {getattr(owner, name) for owner in owners for name in names if hasattr(owner, name)}


RULES: dict[Callable[..., Any], Callable[..., Contact | None]] = {
    F.linear: linear_rule,
    **dict.fromkeys(_named("addmm"), addmm_rule),
    **dict.fromkeys(_named("matmul", "mm", "__matmul__"), matmul_rule),
    **dict.fromkeys(_named("conv1d", "conv2d", "conv3d"), convolution_rule),
    **dict.fromkeys(_named("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed_convolution_rule),
    F.embedding: embedding_rule,
    torch.Tensor.__getitem__: getitem_rule,
    **dict.fromkeys(_named("index_select"), index_select_rule),
    F.layer_norm: layer_norm_rule,
    F.rms_norm: rms_norm_rule,
    F.group_norm: group_norm_rule,
    F.batch_norm: batch_norm_rule,
}

# Ops that broadcast: the value is expanded over the examples before the op, and autograd does the rest.
ELEMENTWISE = frozenset(
    _named("add", "sub", "mul", "div", "subtract", "multiply", "divide", "true_divide", "rsub", "pow", "where")
    | _named("maximum", "minimum", "lerp", "addcmul", "addcdiv", "logaddexp")
    | {getattr(torch.Tensor, f"__{prefix}{name}__") for name in ("add", "sub", "mul") for prefix in ("", "r", "i")}
    | {getattr(torch.Tensor, f"__{name}__") for name in ("truediv", "rtruediv", "itruediv", "pow")}
    | {getattr(torch.Tensor, f"{name}_") for name in ("add", "sub", "mul", "div")}
)
BROADCASTING = ELEMENTWISE | _named("matmul", "__matmul__", "scaled_dot_product_attention")

# Elementwise ops of one argument. Like `ELEMENTWISE`, they have one derivative per element.
UNARY = frozenset(
    _named("neg", "exp", "softplus", "sigmoid", "tanh", "relu", "clamp", "square", "sqrt", "rsqrt", "abs", "log")
    | _named("__neg__", "expm1", "log1p", "reciprocal", "logsigmoid", "sin", "cos")
)

# Ops that repeat a value for every example, one example after the other.
EXPANDING = frozenset(_named("expand", "expand_as", "repeat", "broadcast_to", "tile"))
