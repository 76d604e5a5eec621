# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the k-th smallest of values that do not fit in memory or in one process: exactly, by counting."""

import math
from collections.abc import Callable, Iterable

import torch

from ..runtime.shards import Processes


# Values are counted by 16 bits at a time, the highest bits first.
_DIGIT_BITS = 16
_NUM_DIGITS = 2**_DIGIT_BITS

# Called once for every pass over the values; yields blocks of float64 values, each of shape `(num_values,)`.
Blocks = Callable[[], Iterable[torch.Tensor]]


class Histogram:
    """
    Counts small integers that come in pieces. Many small pieces are counted together.

    Args:
        size (`int`):
            Every value is below this number, and not below 0.
    """

    def __init__(self, size: int) -> None:
        self._counts = torch.zeros(size, dtype=torch.int64)
        self._waiting: list[torch.Tensor] = []
        self._num_waiting = 0

    def add(self, values: torch.Tensor) -> None:
        """Counts the values of a flat tensor on any device."""
        self._waiting.append(values)
        self._num_waiting += len(values)
        if self._num_waiting >= len(self._counts):
            self._count()

    def counts(self) -> torch.Tensor:
        """The number of every value so far, int64 on the CPU."""
        if self._waiting:
            self._count()
        return self._counts

    def _count(self) -> None:
        values = torch.cat([part.to(self._waiting[0].device) for part in self._waiting])
        self._counts += torch.bincount(values, minlength=len(self._counts)).cpu()
        self._waiting, self._num_waiting = [], 0


def count(blocks: Blocks, processes: Processes) -> int:
    """Returns the number of values in all processes."""
    return int(processes.total(torch.tensor(sum(map(len, blocks())))))


def value_at_rank(blocks: Blocks, rank: int, processes: Processes) -> float:
    """
    Returns the value at a rank in the ascending order of the values of all processes. All get the same value.

    The bits of non-negative floats, read as integers, have the order of the floats. Four passes find the value 16 bits
    at a time: each counts the next 16 bits of the values that begin with the bits found before.

    Args:
        blocks (`Callable`):
            Makes the values. None of them may be negative or NaN.
        rank (`int`):
            The rank, from 0 to the number of values less 1.
        processes ([`~shards.Processes`]):
            The processes that hold values.
    """
    prefix = 0
    for shift in range(64 - _DIGIT_BITS, -1, -_DIGIT_BITS):
        histogram = Histogram(_NUM_DIGITS)
        for values in blocks():
            keys = values.view(torch.int64)
            if shift + _DIGIT_BITS < 64:
                keys = keys[keys >> (shift + _DIGIT_BITS) == prefix]
            histogram.add((keys >> shift) & (_NUM_DIGITS - 1))
        below = processes.total(histogram.counts()).cumsum(0)
        digit = int(torch.searchsorted(below, rank, right=True))
        rank -= int(below[digit - 1]) if digit else 0
        prefix = prefix << _DIGIT_BITS | digit
    return torch.tensor(prefix).view(torch.float64).item()


def percentile(blocks: Blocks, percent: float, processes: Processes) -> float:
    """
    Computes `numpy.percentile` of the values of all processes, to the bit, with linear interpolation.

    Args:
        blocks, processes:
            As for [`value_at_rank`].
        percent (`float`):
            The percentile, from 0 to 100.
    """
    last = count(blocks, processes) - 1
    place = last * (percent / 100)
    rank, weight = math.floor(place), place - math.floor(place)
    low = value_at_rank(blocks, rank, processes)
    high = value_at_rank(blocks, min(rank + 1, last), processes)
    return high - (high - low) * (1 - weight) if weight >= 0.5 else low + (high - low) * weight
