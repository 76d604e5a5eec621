# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Computes the ratios of two Fishers, block by block."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from ..fisher.diagonal import FisherDiagonal
from ..runtime.shards import holders_of, local_part, take_entries
from .ranking import Blocks, count, value_at_rank


# Number of ratios per block. What a few steps make of a block fits in a core's cache, and takes a third of the time.
_BLOCK_SIZE = 2**18

# Ratios are divided into cells by the highest bits of a float32: by exponent, and 128 cells per power of two.
_BITS_BELOW = 16
NUM_CELLS = 2**15
# The cell of infinity, and of all ratios that a float32 cannot hold. No ratio is in a higher one.
INFINITE = 0x7F80

# Called with the ratios and the importances (`F_f`, as a sum) of a block of weights.
Condition = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def check_comparable(forget: FisherDiagonal, retain: FisherDiagonal) -> None:
    """Refuses two Fishers of different weights or estimators."""
    if forget.sums.keys() != retain.sums.keys() or forget.fisher_type != retain.fisher_type:
        raise ValueError(
            f"The forget Fisher ({len(forget.sums)} parameters, {forget.fisher_type!r}) and the retain Fisher "
            f"({len(retain.sums)} parameters, {retain.fisher_type!r}) cannot be compared. Compute both with the same "
            "scope and `fisher_type`."
        )


class FisherRatios:
    """
    The ratios of two Fishers, for the weights that this process holds. They are computed block by block on every use,
    never kept.

    Args:
        forget, retain ([`FisherDiagonal`]):
            The Fisher diagonals of the forget and of the retain set.
    """

    def __init__(self, forget: FisherDiagonal, retain: FisherDiagonal) -> None:
        self.forget, self.retain = forget, retain
        self.names = list(forget.sums)
        self.num_weights = sum(forget.sums[name].numel() for name in self.names)
        self.processes = holders_of([*forget.sums.values(), *retain.sums.values()])

    def sums(self, name: str) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yields blocks: the index of the first weight, and both Fishers as sums."""
        forget, start = local_part(self.forget.sums[name])
        retain, _ = local_part(self.retain.sums[name])
        forget, retain = forget.flatten(), retain.flatten()
        for first in range(0, len(forget), _BLOCK_SIZE):
            block = slice(first, first + _BLOCK_SIZE)
            yield start + first, forget[block], retain[block].to(forget.device)

    def blocks(self, name: str) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yields blocks: the index of the first weight, float64 ratios (NaN for 0/0), and `F_f` as a sum."""
        for start, forget, retain in self.sums(name):
            yield start, *self._exact(forget, retain)

    def at(self, name: str, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns ratios and importances as `blocks` does, of weights that this process holds."""
        (forget, start), (retain, _) = local_part(self.forget.sums[name]), local_part(self.retain.sums[name])
        places = indices - start
        return self._exact(
            take_entries(forget, places.to(forget.device)), take_entries(retain, places.to(retain.device))
        )

    def _exact(self, forget: torch.Tensor, retain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        importance, other = forget.double(), retain.to(forget.device).double()
        return (importance / self.forget.num_examples) / (other / self.retain.num_examples), importance

    def cells(self, forget: torch.Tensor, retain: torch.Tensor) -> torch.Tensor:
        """
        Returns the cell of every ratio of a block, without float64 where that is not needed. A larger ratio is never
        in a lower cell.

        The quotient of two float32 sums is rounded once, which keeps their order. The exact ratio keeps it too: two
        different quotients lie further apart (2^-48) than float64 rounds in three divisions.

        Args:
            forget, retain (`torch.Tensor`):
                The sums of a block.

        Returns:
            `torch.Tensor`: int32 cells, below `NUM_CELLS`; -1 where the ratio is 0 or undefined.
        """
        if max(forget.dtype.itemsize, retain.dtype.itemsize) <= 4:
            quotient = forget.float() / retain.float()
            if forget.min() > 0 and retain.max() < torch.inf:
                return quotient.view(torch.int32) >> _BITS_BELOW
            matters = (forget > 0) & (retain < torch.inf)
        else:
            ratio, importance = self._exact(forget, retain)
            quotient, matters = (ratio * (self.forget.num_examples / self.retain.num_examples)).float(), ratio > 0
        return (quotient.view(torch.int32) >> _BITS_BELOW).masked_fill_(~matters, -1)

    def cells_near(self, ratio: float) -> range:
        """The cells that ratios so near to a ratio that rounding matters are in."""
        quotient = ratio * self.forget.num_examples / self.retain.num_examples
        near = torch.tensor([quotient * (1 - 1e-6), quotient * (1 + 1e-6)], dtype=torch.float32)
        first, last = (near.view(torch.int32) >> _BITS_BELOW).tolist()
        return range(first, last + 1)

    def values(self, condition: Condition, value: Condition | None = None) -> Blocks:
        """Returns the ratios of the weights that meet the condition, or `value` of them in their place."""

        def blocks() -> Iterator[torch.Tensor]:
            for name in self.names:
                for _, ratio, importance in self.blocks(name):
                    kept = condition(ratio, importance)
                    yield (ratio if value is None else value(ratio, importance))[kept]

        return blocks

    def count(self, condition: Condition) -> int:
        """Counts the weights, in all processes, that meet the condition."""
        return count(self.values(condition), self.processes)

    def where(self, condition: Condition) -> dict[str, torch.Tensor]:
        """
        Finds the weights that meet the condition. All processes get the same indices.

        Args:
            condition (`Callable`):
                A condition on ratio and importance.

        Returns:
            `dict[str, torch.Tensor]`: Sorted flat int64 indices by parameter.
        """
        indices = {}
        for name in self.names:
            blocks = self.blocks(name)
            taken = [positions_of(condition(ratio, importance)) + start for start, ratio, importance in blocks]
            # The shards of a parameter are in the order of the processes.
            selected = joined([part for parts in self.processes.gather(taken) for part in parts])
            if len(selected):
                indices[name] = selected
        return indices


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """The ascending int64 positions, on the CPU, of the true entries of a flat mask."""
    # On the CPU numpy takes a third of the time of torch.
    return torch.from_numpy(np.flatnonzero(mask.numpy())) if mask.device.type == "cpu" else mask.nonzero()[:, 0].cpu()


def joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Puts int64 positions together; there may be none."""
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def matters_to_forget_set(ratio: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    return ratio > 0


def explain_empty_selection(ratios: FisherRatios, gamma: float | None, reset_fraction: float | None) -> str:
    num_positive = ratios.count(matters_to_forget_set)
    if num_positive == 0:
        return "the forget Fisher is 0 for every weight in scope, so none matters to the forget set. Widen the scope."
    if reset_fraction is not None:
        return (
            f"`reset_fraction={reset_fraction}` of {ratios.num_weights:,} weights is less than one weight. Raise it."
        )
    ranks = [round(share * (num_positive - 1)) for share in (0.5, 0.99, 1.0)]
    median, high, top = (value_at_rank(ratios.values(matters_to_forget_set), rank, ratios.processes) for rank in ranks)
    return (
        f"no ratio of forget to retain Fisher is above {gamma:.4g}. The median ratio is {median:.4g}, the 99th "
        f"percentile {high:.4g} and the largest {top:.4g}. Lower `gamma`, or use `reset_fraction`."
    )
