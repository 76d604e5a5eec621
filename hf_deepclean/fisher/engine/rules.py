# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Closed forms, one per op: how the output gradient of the op gives the per-example gradients of its parameters.

Ops and not modules: what a module class does in its `forward` is seen whatever the class, and a parameter that is used
outside its own module is seen too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_map_only

from .calls import Call, Contact, Use
from .convolution_rules import convolution_rule, transposed_convolution_rule
from .gradients import EmbeddingGradient, OpGradient, ParameterGradient
from .layouts import Ragged, Regular
from .normalization_rules import batch_norm_rule, group_norm_rule, layer_norm_rule, rms_norm_rule


def _linear(call: Call, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Contact | None:
    layout, batch = call.layout(input), call.batch
    if layout is None or input.ndim < 2:
        return None
    uses = [Use(weight, lambda g, x: batch.linear(layout, g, x))]
    if bias is not None:
        uses.append(Use(bias, lambda g, x: batch.sum_per_example(layout, g, 1)))
    return Contact([input], uses)


def _addmm(
    call: Call,
    input: torch.Tensor,
    mat1: torch.Tensor,
    mat2: torch.Tensor,
    beta: float = 1,
    alpha: float = 1,
) -> Contact | None:
    layout, batch = call.layout(mat1), call.batch
    if layout is None or input.ndim != 1 or (alpha, beta) != (1, 1):
        return None
    return Contact(
        [mat1],
        [
            Use(mat2, lambda g, x: batch.linear(layout, x, g)),
            Use(input, lambda g, x: batch.sum_per_example(layout, g, 1)),
        ],
    )


def _matmul(call: Call, input: torch.Tensor, other: torch.Tensor) -> Contact | None:
    batch = call.batch
    if id(other) in call.values and other.ndim == 2 and input.ndim >= 2:
        layout = call.layout(input)
        if layout is None or getattr(layout, "axis", 0) == input.ndim - 1:
            return None
        return Contact([input], [Use(other, lambda g, x: batch.linear(layout, x, g))])
    if id(input) in call.values and input.ndim == 2 and other.ndim >= 3:
        layout = call.layout(other)
        if layout is None or isinstance(layout, Ragged) or layout.axis >= other.ndim - 2:
            return None
        return Contact([other], [Use(input, lambda g, x: batch.linear(layout, g.mT, x.mT))])
    return None


def table_lookup(
    input: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, int | None] | None:
    """The table, indices and padding index of `F.embedding`, unless it does more than look rows up."""
    return None if max_norm is not None or scale_grad_by_freq else (weight, input, padding_idx)


def _embedding(call: Call, *args: Any, **kwargs: Any) -> Contact | None:
    lookup = table_lookup(*args, **kwargs)
    return None if lookup is None else _lookup(call, *lookup)


def _getitem(call: Call, table: torch.Tensor, index: Any) -> Contact | None:
    if not isinstance(index, torch.Tensor) or index.is_floating_point() or index.dtype == torch.bool:
        return None
    return _lookup(call, table, index)


def _index_select(call: Call, input: torch.Tensor, dim: int, index: torch.Tensor) -> Contact | None:
    return _lookup(call, input, index) if dim == 0 else None


def _lookup(call: Call, table: torch.Tensor, index: torch.Tensor, padding_idx: int | None = None) -> Contact | None:
    layout, batch = call.layout(index), call.batch
    if layout is None or isinstance(layout, Ragged) or table.ndim != 2:
        return None
    num_rows = len(table)

    def rows(index: torch.Tensor) -> torch.Tensor:
        return layout.tokens(index, 0, batch.size) % num_rows

    def gradient(g: torch.Tensor, index: torch.Tensor) -> ParameterGradient:
        indices, gradients = rows(index), layout.tokens(g, 1, batch.size)
        return EmbeddingGradient(indices, without_padding(gradients, indices, padding_idx, num_rows))

    return Contact([index], [Use(table, gradient, indices=rows(index))])


def without_padding(
    gradients: torch.Tensor, indices: torch.Tensor, padding_idx: int | None, num_rows: int
) -> torch.Tensor:
    """The gradients `(n, t, i)` of rows read at `indices (n, t)`: that of the padding row is not trained."""
    if padding_idx is None:
        return gradients
    return gradients.masked_fill((indices == padding_idx % num_rows)[..., None], 0)


@dataclass(frozen=True)
class _Operand:
    """Stands for a per-example tensor among an op's arguments, so that the tensor itself is not kept alive."""

    position: int
    layout: Regular | Ragged


def any_op(call: Call) -> Contact | None:
    """The rule for every other op that keeps examples apart: run it again, example by example."""
    func, output = call.func, call.output
    if output is None:
        return None
    operands: list[torch.Tensor] = []

    def stored(tensor: torch.Tensor) -> Any:
        layout = call.layout(tensor)
        if id(tensor) in call.values or layout is None:
            return tensor
        operands.append(tensor)
        return _Operand(len(operands) - 1, layout)

    template = tree_map_only(torch.Tensor, stored, (call.args, call.kwargs))

    def use(value: torch.Tensor) -> Use:
        def gradient(g: torch.Tensor, *saved: torch.Tensor) -> ParameterGradient:
            def run(leaf: torch.Tensor, example: int) -> torch.Tensor:
                def argument(stored: Any) -> torch.Tensor:
                    if isinstance(stored, _Operand):
                        return stored.layout.example(saved[stored.position], example)
                    return leaf if stored is value else stored.detach()

                args, kwargs = tree_map_only((torch.Tensor, _Operand), argument, template)
                return func(*args, **kwargs)

            return OpGradient(run, value, lambda example: output.example(g, example))

        return Use(value, gradient)

    uses = [use(value) for value in call.values.values()]
    return Contact(operands, uses)


def _named(*names: str) -> set[Callable[..., Any]]:
    owners = (torch, torch.Tensor, F)
    return {getattr(owner, name) for owner in owners for name in names if hasattr(owner, name)}


RULES: dict[Callable[..., Any], Callable[..., Contact | None]] = {
    F.linear: _linear,
    **dict.fromkeys(_named("addmm"), _addmm),
    **dict.fromkeys(_named("matmul", "mm", "__matmul__"), _matmul),
    **dict.fromkeys(_named("conv1d", "conv2d", "conv3d"), convolution_rule),
    **dict.fromkeys(_named("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed_convolution_rule),
    F.embedding: _embedding,
    torch.Tensor.__getitem__: _getitem,
    **dict.fromkeys(_named("index_select"), _index_select),
    F.layer_norm: layer_norm_rule,
    F.rms_norm: rms_norm_rule,
    F.group_norm: group_norm_rule,
    F.batch_norm: batch_norm_rule,
}

# Ops that broadcast: a value is laid out over the examples before the op, and autograd does the rest.
ELEMENTWISE = frozenset(
    _named("add", "sub", "mul", "div", "subtract", "multiply", "divide", "true_divide", "rsub", "pow", "where")
    | _named("maximum", "minimum", "lerp", "addcmul", "addcdiv", "logaddexp")
    | {getattr(torch.Tensor, f"__{prefix}{name}__") for name in ("add", "sub", "mul") for prefix in ("", "r", "i")}
    | {getattr(torch.Tensor, f"__{name}__") for name in ("truediv", "rtruediv", "itruediv", "pow")}
    | {getattr(torch.Tensor, f"{name}_") for name in ("add", "sub", "mul", "div")}
)
BROADCASTING = ELEMENTWISE | _named("matmul", "__matmul__", "scaled_dot_product_attention")

# Elementwise ops of one argument; with the above, their derivative is one number per element.
UNARY = frozenset(
    _named("neg", "exp", "softplus", "sigmoid", "tanh", "relu", "clamp", "square", "sqrt", "rsqrt", "abs", "log")
    | _named("__neg__", "expm1", "log1p", "reciprocal", "logsigmoid", "sin", "cos")
)

# Ops that lay a value out over the examples, each in front of the next.
EXPANDING = frozenset(_named("expand", "expand_as", "repeat", "broadcast_to", "tile"))
