# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The kernels of the Fisher pass: a sum over examples of squared matrix products, and a sum into rows."""

import torch


# Rows are computed in blocks of about 4 MB of float32, so that a product is squared while it is in the cache.
_BLOCK_ELEMENTS = 2**20
# A product of fewer tokens takes the time to write it, and in half precision also that to convert it.
_FEW_TOKENS = 64


def add_outer_squares_(
    total: torch.Tensor,
    output_gradients: torch.Tensor,
    operands: torch.Tensor,
    product_dtype: torch.dtype | None = None,
) -> None:
    """
    Adds `sum_n (G_n^T A_n)^2` to `total` in place, without a tensor of size examples x weights.

    Args:
        total (`torch.Tensor`):
            Shape `(out_features, in_features)`.
        output_gradients (`torch.Tensor`):
            `G`, shape `(batch_size, num_tokens, out_features)`.
        operands (`torch.Tensor`):
            `A`, shape `(batch_size, num_tokens, in_features)`.
        product_dtype (`torch.dtype`, *optional*):
            The dtype of the products of 64 tokens and more, by default the dtype of `total`. They are squared and
            summed in the dtype of `total` in any case.
    """
    if product_dtype is None or output_gradients.shape[1] < _FEW_TOKENS:
        product_dtype = total.dtype
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
    Adds `values[k]` to `total[rows[k]]` for every k, in place and in the same order in every run.

    Args:
        total (`torch.Tensor`):
            Shape `(num_rows, ...)`.
        rows (`torch.Tensor`):
            Row indices, shape `(num_values,)`. They may repeat.
        values (`torch.Tensor`):
            Shape `(num_values, ...)`.
    """
    if total.is_cuda:
        # On CUDA `index_add_` adds with atomics, in any order; accumulating `index_put_` sorts first.
        total.index_put_((rows,), values, accumulate=True)
    else:
        total.index_add_(0, rows, values)
