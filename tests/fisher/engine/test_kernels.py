# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean.fisher.engine import kernels


@pytest.mark.parametrize("block", [7, 2**18])
@pytest.mark.parametrize("num_tokens", [1, 5])
def test_equals_the_sum_of_squared_products(num_tokens, block, monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCK_ELEMENTS", block)
    gradients, operands = torch.randn(6, num_tokens, 130).double(), torch.randn(6, num_tokens, 3).double()
    total = torch.rand(130, 3).double()
    expected = total + torch.einsum("nto,nti->noi", gradients, operands).square().sum(dim=0)
    kernels.add_outer_squares_(total, gradients, operands)
    assert torch.allclose(total, expected, rtol=1e-12)


def test_a_large_total_does_not_swallow_a_batch_of_small_squares():
    total = torch.full((1, 1), 2.0**24)
    for _ in range(4):
        kernels.add_outer_squares_(total, torch.full((8, 2, 1), 0.5), torch.full((8, 2, 1), 0.5))
    assert total.item() == 2**24 + 8
