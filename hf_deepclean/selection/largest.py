# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Selects a given number of weights with the largest ratios."""

import torch

from ..fisher.diagonal import FisherDiagonal
from .ranking import value_at_rank
from .ratios import FisherRatios, check_comparable, explain_empty_selection, matters_to_forget_set
from .weight_selection import WeightSelection


# Up to this many ratios are sorted, which takes 2 GB. More are counted: no memory, but three times as long.
_MAX_SORTED = 2**26


class LargestRatios:
    """
    Selects any number of weights with the largest ratios, for the trials of the rule `"auto"`. It never warns.

    If one process holds all weights and they are not too many, they are sorted once. Otherwise every selection counts
    anew.

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
        self.num_candidates = self._ratios.count(matters_to_forget_set)
        if self.num_candidates == 0:
            raise ValueError(f"No weight was selected: {explain_empty_selection(self._ratios, None, None)}")
        self._ranks = self._sorted = None
        if not self._ratios.processes.are_several and self._ratios.num_weights <= _MAX_SORTED:
            self._ranks, self._sorted = _ranked(self._ratios)

    def select(self, number: int) -> WeightSelection:
        """
        Selects the `number` weights with the largest ratios.

        Args:
            number (`int`):
                Number of weights, at least 1 and at most `num_candidates`.
        """
        if self._ranks is None:
            return selection_from_ratios(self._ratios, *find_largest(self._ratios, number), rule="auto")
        chosen = {name: (ranks < number).nonzero().squeeze(1).cpu() for name, ranks in self._ranks.items()}
        return WeightSelection(
            {name: indices for name, indices in chosen.items() if len(indices)},
            {name: total.numel() for name, total in self._ratios.forget.sums.items()},
            "auto",
            self._sorted[number - 1].item(),
            int(self._sorted[:number].isinf().sum()),
        )


def selection_from_ratios(
    ratios: FisherRatios, indices: dict[str, torch.Tensor], gamma: float | None, rule: str
) -> WeightSelection:
    return WeightSelection(
        indices,
        {name: total.numel() for name, total in ratios.forget.sums.items()},
        rule,
        gamma,
        # Every rule selects weights with infinite ratios first.
        min(sum(map(len, indices.values())), ratios.count(lambda ratio, _: ratio.isinf())),
    )


def find_largest(ratios: FisherRatios, wanted: int) -> tuple[dict[str, torch.Tensor], float]:
    """Returns the indices of the `wanted` weights with the largest ratios, and the smallest ratio among them."""
    num_eligible = ratios.count(matters_to_forget_set)
    threshold = value_at_rank(ratios.values(matters_to_forget_set), num_eligible - wanted, ratios.processes)

    def is_tied(ratio: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        return ratio == threshold

    # Among equal ratios the larger forget Fisher comes first, then the lower position.
    num_tied = ratios.count(is_tied)
    num_of_tied = wanted - ratios.count(lambda ratio, _: ratio > threshold)
    if num_of_tied == num_tied:
        return ratios.where(lambda ratio, _: ratio >= threshold), threshold
    importances = ratios.values(is_tied, lambda _, importance: importance)
    least = value_at_rank(importances, num_tied - num_of_tied, ratios.processes)

    def is_selected(ratio: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        return (ratio > threshold) | (is_tied(ratio, importance) & (importance > least))

    indices = ratios.where(
        is_selected,
        or_first=wanted - ratios.count(is_selected),
        of=lambda ratio, importance: is_tied(ratio, importance) & (importance == least),
    )
    return indices, threshold


def _ranked(ratios: FisherRatios) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Returns the rank of every weight by ratio, per parameter, and the ratios of the candidates in that order."""
    blocks = [block for name in ratios.names for block in ratios.blocks(name)]
    device = blocks[0][1].device
    every, importances = (torch.cat([block[part].to(device) for block in blocks]) for part in (1, 2))
    places = matters_to_forget_set(every, importances).nonzero().squeeze(1)
    found, order = every[places].sort(descending=True, stable=True)
    places = places[order]
    # Among equal ratios the larger forget Fisher comes first, then the lower position.
    same = found[1:] == found[:-1]
    tied = (torch.nn.functional.pad(same, (0, 1)) | torch.nn.functional.pad(same, (1, 0))).nonzero().squeeze(1)
    among = places[tied]
    order = importances[among].argsort(descending=True, stable=True)
    places[tied] = among[order[found[tied[order]].argsort(descending=True, stable=True)]]
    ranks = torch.full_like(every, len(every), dtype=torch.int32)
    ranks[places] = torch.arange(len(places), dtype=torch.int32, device=device)
    sizes = [ratios.forget.sums[name].numel() for name in ratios.names]
    return dict(zip(ratios.names, ranks.split(sizes), strict=True)), found
