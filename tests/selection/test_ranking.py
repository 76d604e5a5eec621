# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from hf_deepclean.runtime.shards import Processes
from hf_deepclean.selection.ranking import count, percentile, value_at_rank


def draws(kind, size):
    values = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    if kind == "tied":
        return (values * 5).floor()
    if kind == "wide":
        return torch.exp(300 * (values - 0.5))
    if kind == "infinite":
        return torch.where(values > 0.7, torch.inf, values)
    return values


def blocks_of(values, size=17):
    return lambda: values.split(size)


@pytest.mark.parametrize("size", [1, 2, 50, 333])
@pytest.mark.parametrize("kind", ["uniform", "tied", "wide", "infinite"])
def test_every_rank_is_that_of_sorting(kind, size):
    values = draws(kind, size)
    blocks = blocks_of(values)
    assert count(blocks, Processes()) == size
    expected = values.sort().values.tolist()
    for rank in {0, size // 3, size // 2, size - 1}:
        assert value_at_rank(blocks, rank, Processes()) == expected[rank]


@pytest.mark.parametrize("kind", ["uniform", "tied", "wide"])
def test_percentiles_are_those_of_numpy_to_the_bit(kind):
    for size in (1, 2, 49, 200):
        values = draws(kind, size)
        for percent in (0, 12.5, 50, 95.384854, 99.3068528194400546, 100):
            assert percentile(blocks_of(values), percent, Processes()) == np.percentile(values.numpy(), percent)


def test_values_that_are_zero_in_any_block_count():
    values = torch.zeros(40, dtype=torch.float64)
    values[30] = 5e-324
    assert value_at_rank(blocks_of(values), 38, Processes()) == 0
    assert value_at_rank(blocks_of(values), 39, Processes()) == 5e-324
