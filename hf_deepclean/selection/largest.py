# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Selects a given number of weights with the largest ratios."""

import torch

from ..fisher.diagonal import FisherDiagonal
from .ranking import Histogram, value_at_rank
from .ratios import (
    INFINITE,
    NUM_CELLS,
    FisherRatios,
    check_comparable,
    explain_empty_selection,
    joined,
    positions_of,
)
from .weight_selection import WeightSelection


class LargestRatios:
    """
    Selects any number of weights with the largest ratios. It never warns.

    All ratios are divided into cells once, and counted. A selection takes whole cells from the top, and orders the
    ratios of one cell only: less than a hundredth of the weights, if their ratios are not equal.

    All processes must make this, and call it, if the Fishers are sharded.

    Args:
        forget, retain ([`FisherDiagonal`]):
            As for [`select_weights`].

    Attributes:
        num_candidates (`int`): Number of weights that matter to the forget set.

    Raises:
        `ValueError`: If no weight matters to the forget set, or if the two Fishers cannot be compared.
    """

    def __init__(self, forget: FisherDiagonal, retain: FisherDiagonal) -> None:
        check_comparable(forget, retain)
        self._ratios = FisherRatios(forget, retain)
        self._cells: dict[str, list[tuple[int, torch.Tensor]]] = {}
        histogram = Histogram(NUM_CELLS + 1)
        for name in self._ratios.names:
            blocks = [(start, self._ratios.cells(*sums)) for start, *sums in self._ratios.sums(name)]
            for _, cells in blocks:
                histogram.add(cells + 1)
            self._cells[name] = [(start, cells.to(torch.int16)) for start, cells in blocks]
        counts = self._ratios.processes.total(histogram.counts())[1:]
        # The number of weights in a cell and all cells above it.
        self._num_from = counts.flip(0).cumsum(0).flip(0)
        self.num_candidates = int(self._num_from[0])
        if self.num_candidates == 0:
            raise ValueError(f"No weight was selected: {explain_empty_selection(self._ratios, None, None)}")
        self._num_infinite = self._count_infinite()

    def select(self, number: int, rule: str = "auto") -> WeightSelection:
        """
        Selects the `number` weights with the largest ratios. Among equal ratios the larger forget Fisher comes first,
        then the lower position.

        Args:
            number (`int`):
                Number of weights, at least 1 and at most `num_candidates`.
            rule (`str`, *optional*, defaults to `"auto"`):
                The rule of the selection.
        """
        ratios, cell = self._ratios, int((self._num_from >= number).sum()) - 1
        found = {name: self._from(cell, name) for name in ratios.names}
        inside = [ratios.at(name, indices[mask]) for name, (indices, mask) in found.items()]
        every, importances = (torch.cat([part[kind].cpu() for part in inside]) for kind in range(2))
        num_above = int(self._num_from[cell + 1])
        gamma, surely, perhaps, num_of_perhaps = self._first(every, importances, number - num_above)
        sizes = [int(mask.sum()) for _, mask in found.values()]
        selected = {}
        for (name, (indices, mask)), sure, equal in zip(
            found.items(), surely.split(sizes), perhaps.split(sizes), strict=True
        ):
            possible = indices[mask][equal]
            # The shards of a parameter are in the order of the processes.
            shares = ratios.processes.gather((indices[(~mask).masked_scatter_(mask, sure)], possible))
            lowest = joined([possible for _, possible in shares])[:num_of_perhaps]
            num_of_perhaps -= len(lowest)
            chosen = joined([taken for taken, _ in shares])
            if len(lowest):
                chosen = torch.cat([chosen, lowest]).sort().values
            if len(chosen):
                selected[name] = chosen
        num_weights = {name: total.numel() for name, total in ratios.forget.sums.items()}
        return WeightSelection(selected, num_weights, rule, gamma, min(number, self._num_infinite))

    def _from(self, cell: int, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the indices of this process's weights in a cell and above it, and a mask of those in the cell."""
        indices, inside = [], []
        for start, cells in self._cells[name]:
            places = positions_of(cells >= cell)
            inside.append((cells[places.to(cells.device)] == cell).cpu())
            indices.append(places + start)
        return joined(indices), torch.cat(inside) if inside else torch.zeros(0, dtype=torch.bool)

    def _first(
        self, ratios: torch.Tensor, importances: torch.Tensor, wanted: int
    ) -> tuple[float, torch.Tensor, torch.Tensor, int]:
        """
        Finds the `wanted` first of the weights of a cell, in all processes.

        Returns:
            `tuple[float, torch.Tensor, torch.Tensor, int]`: The smallest ratio among them; a mask of those that are
            among them; a mask of equal ones, of which only those of the lowest positions are; and their number.
        """
        processes = self._ratios.processes

        def count(mask: torch.Tensor) -> int:
            return int(processes.total(mask.sum()))

        num_ratios = int(processes.total(torch.tensor(len(ratios))))
        gamma = value_at_rank(lambda: [ratios], num_ratios - wanted, processes)
        surely, tied = ratios > gamma, ratios == gamma
        num_tied, num_of_tied = count(tied), wanted - count(surely)
        if num_of_tied == num_tied:
            return gamma, surely | tied, torch.zeros_like(tied), 0
        least = value_at_rank(lambda: [importances[tied]], num_tied - num_of_tied, processes)
        surely |= tied & (importances > least)
        return gamma, surely, tied & (importances == least), wanted - count(surely)

    def _count_infinite(self) -> int:
        """Counts the weights that matter to the forget set alone. All of them are in the cell of infinity."""
        if self._num_from[INFINITE] == 0:
            return 0
        own = 0
        for name in self._ratios.names:
            indices, mask = self._from(INFINITE, name)
            own += int(self._ratios.at(name, indices[mask])[0].isinf().sum())
        return int(self._ratios.processes.total(torch.tensor(own)))
