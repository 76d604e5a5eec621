# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Closed forms, one per op: how the output gradient of the op gives the per-example gradients of its parameters.

Ops and not modules: what a module class does in its `forward` is seen whatever the class, and a parameter that is used
outside its own module is seen too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_map_only

from .gradients import (
    ConvolutionGradient,
    EmbeddingGradient,
    LinearGradient,
    OpGradient,
    ParameterGradient,
    PatchGradient,
    RaggedLinearGradient,
    StackedGradient,
)
from .layouts import Layout, Ragged, Regular, sum_dtype


@dataclass(frozen=True)
class Batch:
    """
    What the gradients of every use need to know of the batch.

    Args:
        size (`int`):
            Number of examples.
        product_dtype (`torch.dtype`, *optional*):
            The dtype of matrix products.
    """

    size: int
    product_dtype: torch.dtype | None = None

    def sum_per_example(self, layout: Regular | Ragged, gradient: torch.Tensor, num_last: int) -> StackedGradient:
        return StackedGradient(layout.sum_per_example(gradient, num_last, self.size))

    def sum_per_channel(self, layout: Regular | Ragged, gradient: torch.Tensor) -> StackedGradient:
        return self.sum_per_example(
            layout, gradient.flatten(2).sum(dim=2, dtype=sum_dtype(gradient)) if gradient.ndim > 2 else gradient, 1
        )

    def linear(
        self, layout: Regular | Ragged, output_gradient: torch.Tensor, operand: torch.Tensor
    ) -> ParameterGradient:
        """The gradient of a weight `(o, i)` from tensors `(..., o)` and `(..., i)` of one layout."""
        if isinstance(layout, Ragged):
            rows = output_gradient.shape[1:-1].numel()
            return RaggedLinearGradient(
                output_gradient.reshape(-1, output_gradient.shape[-1]),
                operand.reshape(-1, operand.shape[-1]),
                layout.examples.repeat_interleave(rows),
            )
        return LinearGradient(
            layout.tokens(output_gradient, 1, self.size), layout.tokens(operand, 1, self.size), self.product_dtype
        )


@dataclass(frozen=True)
class Call:
    """
    One op in which values that are computed from parameters alone meet per-example data.

    Args:
        func (`Callable`):
            The op, as `__torch_function__` sees it, with its `args` and `kwargs`.
        values (`dict[int, torch.Tensor]`):
            The arguments that are computed from parameters alone, by `id`.
        layouts (`dict[int, Layout]`):
            Where the examples lie in the other tensors among the arguments, by `id`.
        output (`Layout`):
            Where they lie in the output.
        batch (`Batch`):
            The batch.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    values: dict[int, torch.Tensor]
    layouts: dict[int, Layout]
    output: Layout
    batch: Batch

    def layout(self, tensor: torch.Tensor) -> Layout:
        return self.layouts.get(id(tensor))


@dataclass(frozen=True)
class Use:
    """
    What one op does with one value.

    Args:
        value (`torch.Tensor`):
            The value.
        gradient (`Callable`):
            Called with the output gradient and the saved operands; returns the per-example gradients of the value.
        indices (`torch.Tensor`, *optional*):
            The rows that every example reads, shape `(batch_size, num_tokens)`, of a value that is a table.
    """

    value: torch.Tensor
    gradient: Callable[..., ParameterGradient]
    indices: torch.Tensor | None = None


@dataclass(frozen=True)
class Contact:
    """The per-example operands that an op's parameters need again in the backward pass, and their uses."""

    operands: Sequence[torch.Tensor]
    uses: Sequence[Use]


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


def _convolution(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Contact | None:
    rank, size, product_dtype = weight.ndim - 2, call.batch.size, call.batch.product_dtype
    strides, dilations = _per_axis(stride, rank), _per_axis(dilation, rank)
    before = after = [0] * rank
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        before, after = [t // 2 for t in total], [t - t // 2 for t in total]
    elif padding != "valid":
        before = after = _per_axis(padding, rank)

    def weight_gradient(g: torch.Tensor, x: torch.Tensor) -> ParameterGradient:
        paddings = before
        if before != after:
            pairs = [amount for pair in zip(before[::-1], after[::-1], strict=True) for amount in pair]
            x, paddings = F.pad(x, pairs), [0] * rank
        if groups == 1 and not any(paddings) and weight.is_contiguous():
            patches = _patches(x, weight.shape[2:], strides)
            if patches is not None:
                outputs = g.unflatten(0, (size, -1)).flatten(3).transpose(2, 3).flatten(1, 2)
                windows = patches.unflatten(0, (size, -1)).flatten(1, 2)
                return PatchGradient(LinearGradient(outputs, windows, product_dtype))
        return _kernel_gradient(size, g, x, weight, strides, paddings, dilations, False, [0] * rank, groups)

    return _images(call, input, weight, bias, weight_gradient)


def _transposed_convolution(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Contact | None:
    rank, size = weight.ndim - 2, call.batch.size
    strides, paddings, output_paddings, dilations = (
        _per_axis(value, rank) for value in (stride, padding, output_padding, dilation)
    )

    def weight_gradient(g: torch.Tensor, x: torch.Tensor) -> ParameterGradient:
        return _kernel_gradient(size, g, x, weight, strides, paddings, dilations, True, output_paddings, groups)

    return _images(call, input, weight, bias, weight_gradient)


def _images(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    weight_gradient: Callable[..., ParameterGradient],
) -> Contact | None:
    """Only where every example has consecutive images on the first axis."""
    layout, batch = call.layout(input), call.batch
    if not isinstance(layout, Regular) or layout.axis != 0 or (layout.rows > 1 and layout.interleaved):
        return None
    if input.ndim != weight.ndim:
        return None
    uses = [Use(weight, weight_gradient)]
    if bias is not None:
        uses.append(Use(bias, lambda g, x: batch.sum_per_channel(layout, g)))
    return Contact([input], uses)


def _kernel_gradient(
    size: int, g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *arguments: Any
) -> ConvolutionGradient:
    return ConvolutionGradient(_full(g), _full(x), _full(weight.detach()), len(x) // size, *arguments)


def _full(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the precision of sums."""
    return tensor.to(sum_dtype(tensor))


def _per_axis(value: Any, rank: int) -> list[int]:
    return [value] * rank if isinstance(value, int) else list(value) * (rank if len(value) == 1 else 1)


def _patches(images: torch.Tensor, window: torch.Size, strides: list[int]) -> torch.Tensor | None:
    """Windows that do not overlap, as tokens: shape `(num_images, num_windows, channels * window)`, without a copy."""
    if all(size == 1 for size in window):
        for axis, stride in enumerate(strides, start=2):
            images = images[(slice(None),) * axis + (slice(None, None, stride),)]
        return images.flatten(2).transpose(1, 2)
    if list(window) != strides:
        return None
    rank = len(window)
    for axis, size in enumerate(window):
        images = images.narrow(2 + axis, 0, images.shape[2 + axis] // size * size)
    for axis, size in enumerate(window):
        images = images.unflatten(2 + 2 * axis, (-1, size))
    counts, sizes = [2 + 2 * axis for axis in range(rank)], [3 + 2 * axis for axis in range(rank)]
    return images.permute(0, *counts, 1, *sizes).flatten(1 + rank).flatten(1, rank)


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


def _layer_norm(
    call: Call,
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Contact | None:
    return _affine(
        call, input, weight, bias, len(normalized_shape), lambda x: F.layer_norm(x, normalized_shape, eps=eps)
    )


def _rms_norm(
    call: Call,
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> Contact | None:
    return _affine(
        call, input, weight, None, len(normalized_shape), lambda x: F.rms_norm(x, normalized_shape, eps=eps)
    )


def _affine(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    num_normalized: int,
    normalize: Callable[[torch.Tensor], torch.Tensor],
) -> Contact | None:
    layout, batch = call.layout(input), call.batch
    if layout is None or getattr(layout, "axis", 0) >= input.ndim - num_normalized:
        return None
    uses = []
    if weight is not None:
        uses.append(
            Use(weight, lambda g, x: batch.sum_per_example(layout, _full(g) * _full(normalize(x)), num_normalized))
        )
    if bias is not None:
        uses.append(Use(bias, lambda g, x: batch.sum_per_example(layout, g, num_normalized)))
    return Contact([input], uses)


def _group_norm(
    call: Call,
    input: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Contact | None:
    return _affine_channels(call, input, weight, bias, lambda x: F.group_norm(x, num_groups, eps=eps))


def _batch_norm(
    call: Call,
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Contact | None:
    if training:
        raise ValueError(
            "A batch normalisation layer without running statistics (`track_running_stats=False`) mixes the examples "
            "of a batch, so that the model has no per-example log-likelihood and no Fisher information."
        )
    return _affine_channels(call, input, weight, bias, lambda x: F.batch_norm(x, running_mean, running_var, eps=eps))


def _affine_channels(
    call: Call,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    normalize: Callable[[torch.Tensor], torch.Tensor],
) -> Contact | None:
    layout, batch = call.layout(input), call.batch
    if layout is None or getattr(layout, "axis", 0) != 0:
        return None
    uses = []
    if weight is not None:
        uses.append(Use(weight, lambda g, x: batch.sum_per_channel(layout, _full(g) * _full(normalize(x)))))
    if bias is not None:
        uses.append(Use(bias, lambda g, x: batch.sum_per_channel(layout, g)))
    return Contact([input], uses)


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
    **dict.fromkeys(_named("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(_named("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed_convolution),
    F.embedding: _embedding,
    torch.Tensor.__getitem__: _getitem,
    **dict.fromkeys(_named("index_select"), _index_select),
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
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
