# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Computes the ratios of two Fishers, block by block."""

from collections.abc import Callable, Iterator

import torch

from ..fisher.diagonal import FisherDiagonal
from ..runtime.shards import holders_of, local_part
from .ranking import Blocks, count, value_at_rank


# Number of ratios per block: 128 MB in float64.
_BLOCK_SIZE = 2**24

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

    def blocks(self, name: str) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yields blocks: the index of the first weight, float64 ratios (NaN for 0/0), and `F_f` as a sum."""
        forget, start = local_part(self.forget.sums[name])
        retain, _ = local_part(self.retain.sums[name])
        forget, retain = forget.flatten(), retain.flatten()
        for first in range(0, len(forget), _BLOCK_SIZE):
            block = slice(first, first + _BLOCK_SIZE)
            importance, other = forget[block].double(), retain[block].to(forget.device).double()
            ratio = (importance / self.forget.num_examples) / (other / self.retain.num_examples)
            yield start + first, ratio, importance

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

    def where(
        self, condition: Condition, *, or_first: int = 0, of: Condition | None = None
    ) -> dict[str, torch.Tensor]:
        """
        Finds the weights that meet the condition. All processes get the same indices.

        Args:
            condition (`Callable`):
                A condition on ratio and importance.
            or_first (`int`, *optional*, defaults to `0`):
                Number of further weights to take: those of the lowest positions that meet `of`.
            of (`Callable`, *optional*):
                The condition on the further weights.

        Returns:
            `dict[str, torch.Tensor]`: Sorted flat int64 indices by parameter.
        """
        indices = {}
        for name in self.names:
            taken, further = [], []
            for start, ratio, importance in self.blocks(name):
                taken.append(condition(ratio, importance).nonzero().squeeze(1).cpu() + start)
                if or_first:
                    further.append(of(ratio, importance).nonzero().squeeze(1).cpu() + start)  # type: ignore[misc]
            # The shards of a parameter are in the order of the processes.
            parts = self.processes.gather((_joined(taken), _joined(further)))
            first = torch.cat([part for _, part in parts])[:or_first]
            or_first -= len(first)
            selected = torch.cat([first, *(part for part, _ in parts)]).sort().values
            if len(selected):
                indices[name] = selected
        return indices


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
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
