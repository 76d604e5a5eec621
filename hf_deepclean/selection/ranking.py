# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The k-th smallest of more values than fit in memory, or than one process holds: exactly, by counting."""

import math
from collections.abc import Callable, Iterable

import torch

from ..runtime.shards import Processes


# Values are counted by 16 bits at a time, the highest first.
_DIGIT_BITS = 16
_NUM_DIGITS = 2**_DIGIT_BITS

# What makes blocks of float64 values, shape `(num_values,)` each, anew for every pass over them.
Blocks = Callable[[], Iterable[torch.Tensor]]


def count(blocks: Blocks, processes: Processes) -> int:
    """Number of values in all processes."""
    return int(processes.total(torch.tensor(sum(map(len, blocks())))))


def value_at_rank(blocks: Blocks, rank: int, processes: Processes) -> float:
    """
    The value with `rank` smaller ones (or equal ones before it) among those of all processes; the same in all.

    The bits of floats that are not negative, read as an integer, have the order of the floats. Four passes count how
    many values begin with which 16 bits, then with which 16 bits more.

    Args:
        blocks (`Callable`):
            Makes the values, none of which may be negative or NaN.
        rank (`int`):
            From 0 to the number of values less 1.
        processes ([`~shards.Processes`]):
            Those that hold values.
    """
    prefix = 0
    for shift in range(64 - _DIGIT_BITS, -1, -_DIGIT_BITS):
        counts = torch.zeros(_NUM_DIGITS, dtype=torch.int64)
        for values in blocks():
            keys = values.view(torch.int64)
            if shift + _DIGIT_BITS < 64:
                keys = keys[keys >> (shift + _DIGIT_BITS) == prefix]
            digits = (keys >> shift) & (_NUM_DIGITS - 1)
            counts += torch.bincount(digits, minlength=_NUM_DIGITS).cpu()
        below = processes.total(counts).cumsum(0)
        digit = int(torch.searchsorted(below, rank, right=True))
        rank -= int(below[digit - 1]) if digit else 0
        prefix = prefix << _DIGIT_BITS | digit
    return torch.tensor(prefix).view(torch.float64).item()


def percentile(blocks: Blocks, percent: float, processes: Processes) -> float:
    """
    What `numpy.percentile` gives for the values of all processes, to the bit: linear between two of them.

    Args:
        blocks, processes:
            As for [`value_at_rank`].
        percent (`float`):
            From 0 to 100.
    """
    last = count(blocks, processes) - 1
    place = last * (percent / 100)
    rank, weight = math.floor(place), place - math.floor(place)
    low = value_at_rank(blocks, rank, processes)
    high = value_at_rank(blocks, min(rank + 1, last), processes)
    return high - (high - low) * (1 - weight) if weight >= 0.5 else low + (high - low) * weight
