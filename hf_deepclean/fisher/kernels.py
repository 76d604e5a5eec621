# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The one primitive of the Fisher pass: a sum over examples of squared matrix products."""

import torch


# Rows of the result are handled in blocks of about 1 MB of float32, so that a product is squared while it is in cache.
_BLOCK_ELEMENTS = 2**18


def add_outer_squares_(total: torch.Tensor, output_gradients: torch.Tensor, operands: torch.Tensor) -> None:
    """
    Adds `sum_n (G_n^T A_n)^2` to `total`, in place and without a tensor of size examples x weights.

    Args:
        total (`torch.Tensor`):
            Shape `(out_features, in_features)`; the products are formed in its dtype.
        output_gradients (`torch.Tensor`):
            `G`, shape `(batch_size, num_tokens, out_features)`.
        operands (`torch.Tensor`):
            `A`, shape `(batch_size, num_tokens, in_features)`.
    """
    output_gradients, operands = output_gradients.to(total.dtype), operands.to(total.dtype)
    if output_gradients.shape[1] == 1:
        total.addmm_(output_gradients[:, 0].square().T, operands[:, 0].square())
        return
    rows = max(64, _BLOCK_ELEMENTS // total.shape[1])
    for block, gradients in zip(total.split(rows), output_gradients.split(rows, dim=2), strict=True):
        # One sum per batch and block first: adding each example to a large total would lose its low bits.
        batch_sum, product = torch.zeros_like(block), torch.empty_like(block)
        for gradient, operand in zip(gradients, operands, strict=True):
            torch.mm(gradient.T, operand, out=product)
            batch_sum.addcmul_(product, product)
        block += batch_sum
