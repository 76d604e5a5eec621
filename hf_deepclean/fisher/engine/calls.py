# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a rule gets and returns: an op in which parameters meet the examples of a batch, and its uses of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .gradients import LinearGradient, ParameterGradient, RaggedLinearGradient, StackedGradient
from .layouts import Layout, Ragged, Regular, sum_dtype


@dataclass(frozen=True)
class Batch:
    """
    What rules need to know about the batch.

    Args:
        size (`int`):
            Number of examples.
        product_dtype (`torch.dtype`, *optional*):
            The dtype of matrix products, by default the dtype of the sums.
    """

    size: int
    product_dtype: torch.dtype | None = None

    def sum_per_example(self, layout: Regular | Ragged, gradient: torch.Tensor, num_last: int) -> StackedGradient:
        """The gradient of a value that spans the last `num_last` axes and is broadcast over the others."""
        return StackedGradient(layout.sum_per_example(gradient, num_last, self.size))

    def sum_per_channel(self, layout: Regular | Ragged, gradient: torch.Tensor) -> StackedGradient:
        """The gradient of a value with one entry per channel, from a tensor `(batch_size, channels, ...)`."""
        return self.sum_per_example(
            layout, gradient.flatten(2).sum(dim=2, dtype=sum_dtype(gradient)) if gradient.ndim > 2 else gradient, 1
        )

    def linear(
        self, layout: Regular | Ragged, output_gradient: torch.Tensor, operand: torch.Tensor
    ) -> ParameterGradient:
        """The gradient of a weight `(o, i)` from tensors `(..., o)` and `(..., i)` of the same layout."""
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
    One call of an op in which values that are computed from parameters alone meet per-example data.

    Args:
        func (`Callable`):
            The op as `__torch_function__` sees it, with its `args` and `kwargs`.
        values (`dict[int, torch.Tensor]`):
            The arguments that are computed from parameters alone, by `id`.
        layouts (`dict[int, Layout]`):
            Where the examples lie in the other tensors among the arguments, by `id`.
        output (`Layout`):
            Where the examples lie in the output.
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
        """Where the examples lie in one of the arguments; `None` if it is the same for all examples."""
        return self.layouts.get(id(tensor))


@dataclass(frozen=True)
class Use:
    """
    One use of one value by an op.

    Args:
        value (`torch.Tensor`):
            The value.
        gradient (`Callable`):
            Called with the output gradient and the saved operands. Returns the per-example gradients of the value.
        indices (`torch.Tensor`, *optional*):
            If the value is a table, the rows that every example reads, shape `(batch_size, num_tokens)`.
    """

    value: torch.Tensor
    gradient: Callable[..., ParameterGradient]
    indices: torch.Tensor | None = None


@dataclass(frozen=True)
class Contact:
    """
    What a rule returns: how an op's parameters get their gradients.

    Args:
        operands (`Sequence[torch.Tensor]`):
            The per-example operands that the gradients need in the backward pass.
        uses (`Sequence[Use]`):
            The uses of the op's values.
    """

    operands: Sequence[torch.Tensor]
    uses: Sequence[Use]
