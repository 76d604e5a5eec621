# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Where the examples of a batch lie in a tensor."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Regular:
    """
    Every example has the same number of rows along one axis.

    Args:
        axis (`int`):
            The axis, counted from the left.
        rows (`int`):
            Rows per example: 1 for `(batch_size, ...)`, the number of tokens for `(batch_size * num_tokens, ...)`.
        interleaved (`bool`, *optional*, defaults to `False`):
            Whether rows of different examples alternate, as in `(num_tokens * batch_size, ...)`.
    """

    axis: int
    rows: int
    interleaved: bool = False

    def fits(self, tensor: torch.Tensor, batch_size: int) -> bool:
        """Whether the tensor can have this layout."""
        return tensor.ndim > self.axis and tensor.shape[self.axis] == batch_size * self.rows

    def example_first(self, tensor: torch.Tensor, batch_size: int) -> torch.Tensor:
        """The tensor with an additional first axis for the examples."""
        if self.interleaved:
            return tensor.unflatten(self.axis, (self.rows, batch_size)).movedim(self.axis + 1, 0)
        return tensor.unflatten(self.axis, (batch_size, self.rows)).movedim(self.axis, 0)

    def example(self, tensor: torch.Tensor, example: int) -> torch.Tensor:
        """The rows of one example, with the tensor's number of axes."""
        if self.interleaved:
            return tensor.unflatten(self.axis, (self.rows, -1)).select(self.axis + 1, example)
        return tensor.narrow(self.axis, example * self.rows, self.rows)

    def tokens(self, tensor: torch.Tensor, num_last: int, batch_size: int) -> torch.Tensor:
        """The tensor as `(batch_size, num_tokens, *last)`; `last` are its last `num_last` axes."""
        if self.axis or self.interleaved:
            tensor = self.example_first(tensor, batch_size)
        return tensor.reshape(batch_size, -1, *tensor.shape[tensor.ndim - num_last :])

    def sum_per_example(self, tensor: torch.Tensor, num_last: int, batch_size: int) -> torch.Tensor:
        """The sum over everything but the examples and the last `num_last` axes, shape `(batch_size, *last)`."""
        return self.tokens(tensor, num_last, batch_size).sum(dim=1, dtype=sum_dtype(tensor))


@dataclass(frozen=True, eq=False)
class Ragged:
    """
    Every row of the first axis belongs to an example; examples may have different numbers of rows.

    Args:
        examples (`torch.Tensor`):
            The example of every row, shape `(num_rows,)`.
    """

    examples: torch.Tensor

    def fits(self, tensor: torch.Tensor, batch_size: int) -> bool:
        """Whether the tensor can have this layout."""
        return tensor.ndim > 0 and len(tensor) == len(self.examples)

    def example(self, tensor: torch.Tensor, example: int) -> torch.Tensor:
        """The rows of one example."""
        return tensor[self.examples == example]

    def sum_per_example(self, tensor: torch.Tensor, num_last: int, batch_size: int) -> torch.Tensor:
        """The sum over everything but the examples and the last `num_last` axes, shape `(batch_size, *last)`."""
        last = tensor.shape[tensor.ndim - num_last :]
        rows = tensor.reshape(len(tensor), -1, *last).sum(dim=1, dtype=sum_dtype(tensor))
        return rows.new_zeros(batch_size, *last).index_add_(0, self.examples, rows)


def sum_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The dtype for sums of a tensor's values, at least float32: squares and their sums do not fit half precision."""
    return torch.promote_types(tensor.dtype, torch.float32)


# `None` stands for a tensor that is the same for all examples.
Layout = Regular | Ragged | None

# Stands for a layout that was not recognised.
UNKNOWN = "unknown"


class UnknownLayout(Exception):
    """Raised if it is not recognised where the examples lie."""


def layout_of(two: torch.Size, three: torch.Tensor) -> Layout:
    """
    Finds the layout of a tensor from its shape in a batch of the examples a, b and its values in a batch of a, b, a.

    One batch is not enough: a sequence may be as long as the batch is large. Shapes are not enough either: rows may be
    sorted by something else. So the example axis is the axis whose length follows the number of examples, and its rows
    belong to the examples in order if the first and the third example have the same values there.

    Args:
        two (`torch.Size`):
            The shape with the examples a, b.
        three (`torch.Tensor`):
            The tensor with the examples a, b, a.

    Returns:
        `Layout`: The layout; `None` if the tensor is the same for all examples.

    Raises:
        [`UnknownLayout`]: If no axis follows the number of examples, or if the values differ.
    """
    if two == three.shape:
        return None
    axes = [axis for axis, (a, b) in enumerate(zip(two, three.shape, strict=False)) if a != b]
    if len(two) != three.ndim or len(axes) != 1 or 3 * two[axes[0]] != 2 * three.shape[axes[0]]:
        raise UnknownLayout
    for interleaved in (False, True):
        layout = Regular(axes[0], two[axes[0]] // 2, interleaved)
        if _same(layout.example(three, 0), layout.example(three, 2)):
            return layout
    raise UnknownLayout


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors are equal up to the rounding of kernels that treat the last rows of a batch differently."""
    if not first.is_floating_point() or not first.numel():
        return torch.equal(first, second)
    difference = (first - second).abs().max()
    tolerance = torch.finfo(first.dtype).eps ** 0.5 * first.abs().max()
    # Values that are not finite count as equal; they are reported elsewhere.
    return not difference > tolerance


def upcast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the dtype of sums; see [`sum_dtype`]."""
    return tensor.to(sum_dtype(tensor))
