# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The one primitive of the Fisher pass: a sum over examples of squared matrix products."""

import torch


# Rows of the result are handled in blocks of about 4 MB of float32, so that a product is squared while it is in cache.
_BLOCK_ELEMENTS = 2**20


def add_outer_squares_(
    total: torch.Tensor,
    output_gradients: torch.Tensor,
    operands: torch.Tensor,
    product_dtype: torch.dtype | None = None,
) -> None:
    """
    Adds `sum_n (G_n^T A_n)^2` to `total`, in place and without a tensor of size examples x weights.

    Args:
        total (`torch.Tensor`):
            Shape `(out_features, in_features)`.
        output_gradients (`torch.Tensor`):
            `G`, shape `(batch_size, num_tokens, out_features)`.
        operands (`torch.Tensor`):
            `A`, shape `(batch_size, num_tokens, in_features)`.
        product_dtype (`torch.dtype`, *optional*):
            The dtype in which the products are formed, by default that of `total`; they are squared and summed in the
            dtype of `total`.
    """
    product_dtype = product_dtype or total.dtype
    output_gradients, operands = output_gradients.to(product_dtype), operands.to(product_dtype)
    if output_gradients.shape[1] == 1:
        total.addmm_(output_gradients[:, 0].to(total.dtype).square().T, operands[:, 0].to(total.dtype).square())
        return
    if len(operands) * total.numel() <= _BLOCK_ELEMENTS:
        total += torch.bmm(output_gradients.mT, operands).to(total.dtype).square_().sum(dim=0)
        return
    rows = max(64, _BLOCK_ELEMENTS // total.shape[1])
    for block, gradients in zip(total.split(rows), output_gradients.mT.split(rows, dim=1), strict=True):
        product = torch.empty_like(block, dtype=product_dtype)
        batch_sum = torch.empty_like(block)
        for example, (gradient, operand) in enumerate(zip(gradients, operands, strict=True)):
            exact = torch.mm(gradient, operand, out=product)
            if product_dtype != total.dtype:
                exact = exact.to(total.dtype)
            # One sum per batch and block first: adding each example to a large total would lose its low bits.
            if example == 0:
                torch.mul(exact, exact, out=batch_sum)
            else:
                batch_sum.addcmul_(exact, exact)
        block += batch_sum


def add_rows_(total: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> None:
    """
    Adds `values[k]` to `total[rows[k]]` for every k, in place and in an order that does not change from run to run.

    Args:
        total (`torch.Tensor`):
            Shape `(num_rows, ...)`.
        rows (`torch.Tensor`):
            Row indices, shape `(num_values,)`; they may repeat.
        values (`torch.Tensor`):
            Shape `(num_values, ...)`.
    """
    if total.is_cuda:
        # `index_add_` there adds with atomics, in any order; accumulating `index_put_` sorts.
        total.index_put_((rows,), values, accumulate=True)
    else:
        total.index_add_(0, rows, values)
