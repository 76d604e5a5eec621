# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Where the examples of a batch lie in a tensor."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Regular:
    """
    Every example has the same number of consecutive rows along one axis.

    Args:
        axis (`int`):
            The axis, counted from the left.
        rows (`int`):
            Rows per example: 1 for `(batch_size, ...)`, the number of tokens for `(batch_size * num_tokens, ...)`.
    """

    axis: int
    rows: int

    def fits(self, tensor: torch.Tensor, batch_size: int) -> bool:
        """Whether the tensor can lie like this."""
        return tensor.ndim > self.axis and tensor.shape[self.axis] == batch_size * self.rows

    def example_first(self, tensor: torch.Tensor, batch_size: int) -> torch.Tensor:
        """The tensor with one axis more, the examples first."""
        return tensor.unflatten(self.axis, (batch_size, self.rows)).movedim(self.axis, 0)

    def example(self, tensor: torch.Tensor, example: int) -> torch.Tensor:
        """The rows of one example, with the tensor's number of axes."""
        return tensor.narrow(self.axis, example * self.rows, self.rows)

    def sum_per_example(self, tensor: torch.Tensor, num_last: int, batch_size: int) -> torch.Tensor:
        """The sum over everything but the examples and the last `num_last` axes, shape `(batch_size, *last)`."""
        last = tensor.shape[tensor.ndim - num_last :]
        return self.example_first(tensor, batch_size).reshape(batch_size, -1, *last).sum(dim=1)


@dataclass(frozen=True, eq=False)
class Ragged:
    """
    Every row of the first axis belongs to some example, any number of them to each.

    Args:
        examples (`torch.Tensor`):
            The example of every row, shape `(num_rows,)`.
    """

    examples: torch.Tensor

    def fits(self, tensor: torch.Tensor, batch_size: int) -> bool:
        """Whether the tensor can lie like this."""
        return tensor.ndim > 0 and len(tensor) == len(self.examples)

    def example(self, tensor: torch.Tensor, example: int) -> torch.Tensor:
        """The rows of one example."""
        return tensor[self.examples == example]

    def sum_per_example(self, tensor: torch.Tensor, num_last: int, batch_size: int) -> torch.Tensor:
        """The sum over everything but the examples and the last `num_last` axes, shape `(batch_size, *last)`."""
        last = tensor.shape[tensor.ndim - num_last :]
        rows = tensor.reshape(len(tensor), -1, *last).sum(dim=1)
        return rows.new_zeros(batch_size, *last).index_add_(0, self.examples, rows)


# `None` stands for a tensor that is the same for all examples.
Layout = Regular | Ragged | None


class UnknownLayout(Exception):
    """The examples lie in a way that was not recognised."""


def layout_of_shapes(two: torch.Size, three: torch.Size) -> Layout:
    """
    The layout of a tensor that has one shape in a batch of two copies of an example and another in one of three.

    Shapes of one batch cannot tell: a sequence may be as long as the batch is large.

    Raises:
        [`UnknownLayout`]: If the shapes differ otherwise than by one axis in proportion to the batch.
    """
    if two == three:
        return None
    axes = [axis for axis, (a, b) in enumerate(zip(two, three, strict=False)) if a != b]
    if len(two) != len(three) or len(axes) != 1 or 3 * two[axes[0]] != 2 * three[axes[0]]:
        raise UnknownLayout
    return Regular(axes[0], two[axes[0]] // 2)
