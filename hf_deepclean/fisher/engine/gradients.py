# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Per-example gradients of one parameter, in forms that take little memory.

Index conventions: `n` examples, `t` tokens or positions, `o` outputs, `i` inputs. A matrix has the shape `(o, i)`.
Sums of squares have the shape of the parameter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .kernels import add_outer_squares_, add_rows_


class ParameterGradient:
    """Per-example gradients of one parameter, from one or several uses."""

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        """Adds the gradient of one example to `gradient`, a tensor of the parameter's shape."""
        raise NotImplementedError

    def add_squares_(self, total: torch.Tensor, examples: range) -> None:
        """Adds the squared gradients of the examples to `total`, a tensor of the parameter's shape."""
        # One sum per batch first: adding each example to a large total would lose its low bits.
        batch_sum, gradient = torch.zeros_like(total), torch.empty_like(total)
        for example in examples:
            self.add_example_(gradient.zero_(), example)
            batch_sum.addcmul_(gradient, gradient)
        total += batch_sum


@dataclass(frozen=True)
class StackedGradient(ParameterGradient):
    """The gradients themselves, `(n, *parameter.shape)`, of a parameter that is small beside the activations."""

    values: torch.Tensor

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        gradient += self.values[example]

    def add_squares_(self, total: torch.Tensor, examples: range) -> None:
        total += self.values[examples.start : examples.stop].to(total.dtype).square().sum(dim=0)


@dataclass(frozen=True)
class LinearGradient(ParameterGradient):
    """Gradient `G_n^T A_n` of a weight `(o, i)` that maps operands `(n, t, i)` to outputs `(n, t, o)`."""

    output_gradients: torch.Tensor
    operands: torch.Tensor
    product_dtype: torch.dtype | None = None

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        gradient.addmm_(self.output_gradients[example].T.to(gradient.dtype), self.operands[example].to(gradient.dtype))

    def add_squares_(self, total: torch.Tensor, examples: range) -> None:
        part = slice(examples.start, examples.stop)
        add_outer_squares_(total, self.output_gradients[part], self.operands[part], self.product_dtype)

    @property
    def mT(self) -> "LinearGradient":
        """The same gradients for the transposed weight."""
        return LinearGradient(self.operands, self.output_gradients, self.product_dtype)


@dataclass(frozen=True)
class RaggedLinearGradient(ParameterGradient):
    """Gradient of a weight `(o, i)` from rows `(r, o)` and `(r, i)`; `row_examples (r,)` names each row's example."""

    output_gradients: torch.Tensor
    operands: torch.Tensor
    row_examples: torch.Tensor

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        rows = self.row_examples == example
        gradient.addmm_(self.output_gradients[rows].T.to(gradient.dtype), self.operands[rows].to(gradient.dtype))

    def add_squares_(self, total: torch.Tensor, examples: range) -> None:
        order = torch.argsort(self.row_examples, stable=True)
        counts = torch.bincount(self.row_examples, minlength=examples.stop)
        starts = counts.cumsum(0) - counts
        mine = torch.arange(examples.start, examples.stop, device=counts.device)
        # Examples with the same number of rows form a batch of sequences of that length.
        for length in counts[mine].unique().tolist():
            if length:
                of_length = mine[counts[mine] == length]
                rows = order[starts[of_length][:, None] + torch.arange(length, device=order.device)]
                add_outer_squares_(total, self.output_gradients[rows], self.operands[rows])


@dataclass(frozen=True)
class PatchGradient(ParameterGradient):
    """A [`LinearGradient`] of a contiguous parameter with more axes, viewed as `(o, everything else)`."""

    linear: LinearGradient

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        self.linear.add_example_(gradient.view(len(gradient), -1), example)

    def add_squares_(self, total: torch.Tensor, examples: range) -> None:
        self.linear.add_squares_(total.view(len(total), -1), examples)


@dataclass(frozen=True)
class ConvolutionGradient(ParameterGradient):
    """Gradient of a kernel by one backward convolution per example, which has `rows` images."""

    output_gradients: torch.Tensor
    operands: torch.Tensor
    weight: torch.Tensor
    rows: int
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    transposed: bool
    output_padding: Sequence[int]
    groups: int

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        gradient += self._example(example)

    def add_squares_(self, total: torch.Tensor, examples: range) -> None:
        batch_sum = torch.zeros_like(total)
        for example in examples:
            gradient = self._example(example).to(total.dtype)
            batch_sum.addcmul_(gradient, gradient)
        total += batch_sum

    def _example(self, example: int) -> torch.Tensor:
        images = slice(example * self.rows, (example + 1) * self.rows)
        return torch.ops.aten.convolution_backward(
            self.output_gradients[images],
            self.operands[images],
            self.weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
            [False, True, False],
        )[1]


@dataclass(frozen=True)
class EmbeddingGradient(ParameterGradient):
    """Gradient of a table `(rows, i)` read at `indices (n, t)`. Repeated tokens of an example add up first."""

    indices: torch.Tensor
    output_gradients: torch.Tensor

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        add_rows_(gradient, self.indices[example], self.output_gradients[example].to(gradient.dtype))

    def add_squares_(self, total: torch.Tensor, examples: range) -> None:
        part = slice(examples.start, examples.stop)
        keys, positions = example_rows(self.indices[part], len(total))
        summed = total.new_zeros(len(keys), total.shape[1])
        add_rows_(summed, positions.flatten(), self.output_gradients[part].flatten(0, 1).to(total.dtype))
        add_rows_(total, keys % len(total), summed.square_())


@dataclass(frozen=True)
class TiedGradient(ParameterGradient):
    """
    Gradient of a table that is read at `indices (n, t)` and is also the weight of a linear map.

    The squares of the linear map's gradients `h` are added at once. When the embedding's gradient `e` arrives, only
    `e (2h + e)` of `(h + e)^2` is missing, and only in the rows that an example reads. So nothing of size examples x
    rows x width and nothing of the size of the logits is kept until then.
    """

    indices: torch.Tensor
    keys: torch.Tensor
    head_gradients: torch.Tensor
    num_rows: int

    @classmethod
    def of(cls, linear: LinearGradient, indices: torch.Tensor, num_rows: int, dtype: torch.dtype) -> "TiedGradient":
        """Keeps the rows of the linear map's gradients that every example reads."""
        keys, _ = example_rows(indices, num_rows)
        head_gradients = linear.operands.new_empty(len(keys), linear.operands.shape[2], dtype=dtype)
        start = 0
        for example, count in enumerate(torch.bincount(keys // num_rows, minlength=len(indices)).tolist()):
            rows = keys[start : start + count] % num_rows
            columns = linear.output_gradients[example][:, rows].to(dtype)
            torch.mm(columns.T, linear.operands[example].to(dtype), out=head_gradients[start : start + count])
            start += count
        return cls(indices, keys, head_gradients, num_rows)

    def add_rest_(self, total: torch.Tensor, embeddings: Sequence[EmbeddingGradient], examples: range) -> None:
        """Adds `e (2h + e)` of the examples to `total`, which holds the squares of `h`."""
        summed = torch.zeros_like(self.head_gradients)
        for embedding in embeddings:
            offsets = torch.arange(len(embedding.indices), device=self.keys.device)[:, None] * self.num_rows
            positions = torch.searchsorted(self.keys, embedding.indices + offsets)
            add_rows_(summed, positions.flatten(), embedding.output_gradients.flatten(0, 1).to(summed.dtype))
        owners = self.keys // self.num_rows
        part = (owners >= examples.start) & (owners < examples.stop)
        rows, summed, head_gradients = self.keys[part] % self.num_rows, summed[part], self.head_gradients[part]
        add_rows_(total, rows, summed * (2 * head_gradients + summed))
        # If e is close to -2h, rounding can leave a sum of squares below zero.
        total.clamp_(min=0)


@dataclass(frozen=True)
class OpGradient(ParameterGradient):
    """Gradient by running one op again for every example; exact for any op that keeps examples apart."""

    run: Callable[[torch.Tensor, int], torch.Tensor]
    value: torch.Tensor
    output_gradient: Callable[[int], torch.Tensor]

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        value = self.value.detach().requires_grad_()
        with torch.enable_grad():
            output = self.run(value, example)
        if output.requires_grad:
            gradient += torch.autograd.grad(output, value, self.output_gradient(example))[0]


@dataclass(frozen=True)
class DerivedGradient(ParameterGradient):
    """Gradient of a parameter, from the gradient of a value that is computed from parameters alone."""

    gradient: ParameterGradient
    value: torch.Tensor
    parameter: torch.Tensor

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        outer = torch.zeros_like(self.value)
        self.gradient.add_example_(outer, example)
        inner = torch.autograd.grad(self.value, self.parameter, outer, retain_graph=True, allow_unused=True)[0]
        if inner is not None:
            gradient += inner


@dataclass(frozen=True)
class PartGradient(ParameterGradient):
    """Gradient of a parameter of which one part was used."""

    gradient: ParameterGradient
    part: Callable[[torch.Tensor], torch.Tensor]

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        self.gradient.add_example_(self.part(gradient), example)


@dataclass(frozen=True)
class SummedGradient(ParameterGradient):
    """Gradient of a parameter that is used several times: the uses are summed before squaring, not after."""

    gradients: Sequence[ParameterGradient]

    def add_example_(self, gradient: torch.Tensor, example: int) -> None:
        for part in self.gradients:
            part.add_example_(gradient, example)


def summed(gradients: Sequence[ParameterGradient]) -> ParameterGradient:
    """Sums the gradients of a parameter's uses, in a closed form if there is one."""
    if len(gradients) == 1:
        return gradients[0]
    first = gradients[0]
    if all(isinstance(gradient, StackedGradient) for gradient in gradients):
        return StackedGradient(sum(gradient.values for gradient in gradients))
    if all(isinstance(gradient, LinearGradient) for gradient in gradients):
        # k uses of t tokens are one use of k t tokens.
        return LinearGradient(
            torch.cat([gradient.output_gradients for gradient in gradients], dim=1),
            torch.cat([gradient.operands for gradient in gradients], dim=1),
            first.product_dtype,
        )
    if all(isinstance(gradient, EmbeddingGradient) for gradient in gradients):
        return EmbeddingGradient(
            torch.cat([gradient.indices for gradient in gradients], dim=1),
            torch.cat([gradient.output_gradients for gradient in gradients], dim=1),
        )
    derived: dict[int, list[DerivedGradient]] = {}
    others = []
    for gradient in gradients:
        if isinstance(gradient, DerivedGradient):
            derived.setdefault(id(gradient.value), []).append(gradient)
        else:
            others.append(gradient)
    # Gradients of one derived value add up before they are propagated to the parameter.
    joined = [
        DerivedGradient(summed([gradient.gradient for gradient in same]), same[0].value, same[0].parameter)
        for same in derived.values()
    ]
    return joined[0] if len(joined) == 1 and not others else SummedGradient([*joined, *others])


def example_rows(indices: torch.Tensor, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Finds the distinct rows that every example reads.

    Args:
        indices (`torch.Tensor`):
            Row indices, shape `(batch_size, num_tokens)`.
        num_rows (`int`):
            Number of rows of the table.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: Sorted keys `example * num_rows + row`, and for every index the position
        of its key, shape `(batch_size, num_tokens)`.
    """
    examples = torch.arange(len(indices), device=indices.device)[:, None]
    return torch.unique(examples * num_rows + indices, return_inverse=True)
