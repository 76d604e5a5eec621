# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""An op in which parameters meet the examples of a batch, and what it does with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .gradients import LinearGradient, ParameterGradient, RaggedLinearGradient, StackedGradient
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
