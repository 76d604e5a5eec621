# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Closed forms of per-example parameter gradients, one per op.

Index conventions: `n` examples, `t` tokens or positions, `o` outputs, `i` inputs. Every operand and every output
gradient has the example axis first.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .kernels import add_outer_squares_


class ParameterGradient:
    """Per-example gradients of one parameter from one use of it."""

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        """Adds the gradient of one example to `gradient`, a tensor of the parameter's shape."""
        raise NotImplementedError

    def add_squares_(self, total: torch.Tensor) -> None:
        """Adds the squared gradients of all examples to `total`, a tensor of the parameter's shape."""
        raise NotImplementedError


@dataclass(frozen=True)
class StackedGradient(ParameterGradient):
    """The gradients themselves, `(n, *parameter.shape)`: for parameters that are small beside the activations."""

    values: torch.Tensor

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        gradient += self.values[example]

    def add_squares_(self, total: torch.Tensor) -> None:
        total += self.values.to(total.dtype).square().sum(dim=0)


@dataclass(frozen=True)
class LinearGradient(ParameterGradient):
    """Gradient `G_n^T A_n` of a weight `(o, i)` that maps operands `(n, t, i)` to outputs `(n, t, o)`."""

    operands: torch.Tensor
    output_gradients: torch.Tensor

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        gradient.addmm_(self.output_gradients[example].T.to(gradient.dtype), self.operands[example].to(gradient.dtype))

    def add_squares_(self, total: torch.Tensor) -> None:
        add_outer_squares_(total, self.output_gradients, self.operands)


@dataclass(frozen=True)
class ConvolutionGradient(ParameterGradient):
    """Gradient of a kernel `(o, i / groups, *window)`, one backward convolution per example."""

    operands: torch.Tensor
    output_gradients: torch.Tensor
    weight: torch.Tensor
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        gradient += self._example(example)

    def add_squares_(self, total: torch.Tensor) -> None:
        batch_sum = torch.zeros_like(total)
        for example in range(len(self.operands)):
            gradient = self._example(example).to(total.dtype)
            batch_sum.addcmul_(gradient, gradient)
        total += batch_sum

    def _example(self, example: int) -> torch.Tensor:
        return torch.ops.aten.convolution_backward(
            self.output_gradients[example : example + 1],
            self.operands[example : example + 1],
            self.weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0] * len(self.stride),
            self.groups,
            [False, True, False],
        )[1]


@dataclass(frozen=True)
class EmbeddingGradient(ParameterGradient):
    """Gradient of a table `(rows, i)` read at `indices (n, t)`: tokens that repeat in an example add up first."""

    indices: torch.Tensor
    output_gradients: torch.Tensor

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        gradient.index_add_(0, self.indices[example], self.output_gradients[example].to(gradient.dtype))

    def add_squares_(self, total: torch.Tensor) -> None:
        examples = torch.arange(len(self.indices), device=self.indices.device)[:, None]
        keys, positions = torch.unique(examples * len(total) + self.indices, return_inverse=True)
        summed = total.new_zeros(len(keys), total.shape[1])
        summed.index_add_(0, positions.flatten(), self.output_gradients.flatten(0, 1).to(total.dtype))
        total.index_add_(0, keys % len(total), summed.square_())


GradientRule = Callable[[torch.Tensor, torch.Tensor], ParameterGradient]


@dataclass(frozen=True)
class Contact:
    """
    One op in which parameters meet an operand.

    Args:
        operand (`torch.Tensor`):
            What the parameters act on.
        rules (`list[tuple[torch.Tensor, Callable]]`):
            Every parameter of the op with the rule that makes a [`ParameterGradient`] of (operand, output gradient).
        broadcasts (`bool`, *optional*, defaults to `False`):
            Whether the output may stand for every example at once when the operand does.
    """

    operand: torch.Tensor
    rules: list[tuple[torch.Tensor | None, GradientRule]]
    broadcasts: bool = False


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Contact:
    def weight_gradient(operand: torch.Tensor, output_gradient: torch.Tensor) -> ParameterGradient:
        size = len(operand)
        return LinearGradient(
            operand.reshape(size, -1, operand.shape[-1]), output_gradient.reshape(size, -1, output_gradient.shape[-1])
        )

    def bias_gradient(operand: torch.Tensor, output_gradient: torch.Tensor) -> ParameterGradient:
        return StackedGradient(_sum_between(output_gradient, 1))

    return Contact(input, [(weight, weight_gradient), (bias, bias_gradient)])


def _convolution(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Contact | None:
    rank = weight.ndim - 2
    if isinstance(padding, str) or input.ndim != weight.ndim:
        return None
    strides, paddings, dilations = (
        [value] * rank if isinstance(value, int) else list(value) for value in (stride, padding, dilation)
    )

    def weight_gradient(operand: torch.Tensor, output_gradient: torch.Tensor) -> ParameterGradient:
        return ConvolutionGradient(operand, output_gradient, weight.detach(), strides, paddings, dilations, groups)

    def bias_gradient(operand: torch.Tensor, output_gradient: torch.Tensor) -> ParameterGradient:
        return StackedGradient(output_gradient.flatten(2).sum(dim=2))

    return Contact(input, [(weight, weight_gradient), (bias, bias_gradient)])


def _embedding(
    input: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Contact | None:
    if max_norm is not None or scale_grad_by_freq:
        return None

    def weight_gradient(operand: torch.Tensor, output_gradient: torch.Tensor) -> ParameterGradient:
        size = len(operand)
        indices = operand.reshape(size, -1)
        gradients = output_gradient.reshape(size, -1, output_gradient.shape[-1])
        if padding_idx is not None:
            padding = indices == padding_idx % len(weight)
            gradients = gradients.masked_fill(padding[..., None], 0)
        return EmbeddingGradient(indices, gradients)

    return Contact(input, [(weight, weight_gradient)], broadcasts=True)


def _layer_norm(
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Contact:
    return _affine(input, weight, bias, lambda x: F.layer_norm(x, normalized_shape, eps=eps), len(normalized_shape))


def _rms_norm(
    input: torch.Tensor, normalized_shape: Any, weight: torch.Tensor | None = None, eps: float | None = None
) -> Contact:
    return _affine(input, weight, None, lambda x: F.rms_norm(x, normalized_shape, eps=eps), len(normalized_shape))


def _group_norm(
    input: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Contact:
    return _affine_channels(input, weight, bias, lambda x: F.group_norm(x, num_groups, eps=eps))


def _batch_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Contact:
    if training:
        raise ValueError(
            "A batch normalisation layer without running statistics (`track_running_stats=False`) mixes the examples "
            "of a batch, so that the model has no per-example log-likelihood and no Fisher information."
        )
    return _affine_channels(input, weight, bias, lambda x: F.batch_norm(x, running_mean, running_var, eps=eps))


def _affine(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    normalize: Callable[[torch.Tensor], torch.Tensor],
    num_normalized: int,
) -> Contact:
    def weight_gradient(operand: torch.Tensor, output_gradient: torch.Tensor) -> ParameterGradient:
        return StackedGradient(_sum_between(output_gradient * normalize(operand), num_normalized))

    def bias_gradient(operand: torch.Tensor, output_gradient: torch.Tensor) -> ParameterGradient:
        return StackedGradient(_sum_between(output_gradient, num_normalized))

    return Contact(input, [(weight, weight_gradient), (bias, bias_gradient)])


def _affine_channels(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    normalize: Callable[[torch.Tensor], torch.Tensor],
) -> Contact:
    def per_channel(gradient: torch.Tensor) -> ParameterGradient:
        return StackedGradient(gradient.reshape(*gradient.shape[:2], -1).sum(dim=2))

    return Contact(
        input,
        [
            (weight, lambda operand, output_gradient: per_channel(output_gradient * normalize(operand))),
            (bias, lambda operand, output_gradient: per_channel(output_gradient)),
        ],
    )


def _sum_between(gradient: torch.Tensor, num_last: int) -> torch.Tensor:
    """Sums all axes but the first and the last `num_last`."""
    size, last = len(gradient), gradient.shape[gradient.ndim - num_last :]
    return gradient.reshape(size, -1, math.prod(last)).sum(dim=1).reshape(size, *last)


# The ops a parameter may enter with its operand; what is not here takes the exact one-example path.
OPERAND_RULES: dict[Callable[..., Any], Callable[..., Contact | None]] = {
    F.linear: _linear,
    F.conv1d: _convolution,
    F.conv2d: _convolution,
    F.conv3d: _convolution,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
}

# Elementwise ops of a parameter and an operand: the parameter is laid out over the examples before the op.
BROADCAST_OPS: frozenset[Callable[..., Any]] = frozenset(
    {
        torch.add,
        torch.sub,
        torch.mul,
        torch.div,
        torch.Tensor.add,
        torch.Tensor.sub,
        torch.Tensor.mul,
        torch.Tensor.div,
        torch.Tensor.__add__,
        torch.Tensor.__radd__,
        torch.Tensor.__iadd__,
        torch.Tensor.__sub__,
        torch.Tensor.__rsub__,
        torch.Tensor.__mul__,
        torch.Tensor.__rmul__,
        torch.Tensor.__imul__,
        torch.Tensor.__truediv__,
        torch.Tensor.__rtruediv__,
    }
)

# Ops that lay a parameter with a leading axis of 1 out over the examples (class tokens and the like).
EXPAND_OPS: frozenset[Callable[..., Any]] = frozenset({torch.Tensor.expand})
