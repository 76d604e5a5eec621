# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The weights to reset, as flat indices per parameter."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..models.scope import module_name


@dataclass(frozen=True)
class WeightSelection:
    """
    The weights to reset, as sorted flat indices per parameter.

    Args:
        indices (`dict[str, torch.Tensor]`):
            For every parameter with a selected weight, the int64 indices into the flattened parameter, ascending.
        num_weights (`dict[str, int]`):
            Number of weights of every parameter in scope.
        rule (`str`):
            `"gamma"`, `"reset_fraction"`, `"adaptive"`, `"auto"` or `"random"`.
        gamma (`float`, *optional*):
            The ratio above which weights were selected; for `"reset_fraction"` and `"auto"` the smallest selected
            ratio, for `"random"` none.
        num_infinite_ratios (`int`, *optional*, defaults to `0`):
            How many selected weights matter to the forget set and have a retain Fisher of exactly 0.
    """

    indices: dict[str, torch.Tensor]
    num_weights: dict[str, int]
    rule: str
    gamma: float | None = None
    num_infinite_ratios: int = 0

    @property
    def num_selected(self) -> int:
        """Number of selected weights."""
        return sum(len(indices) for indices in self.indices.values())

    @property
    def num_in_scope(self) -> int:
        """Number of weights that could have been selected."""
        return sum(self.num_weights.values())

    def counts_per_module(self) -> dict[str, tuple[int, int]]:
        """Selected weights and weights in scope of every module that owns parameters in scope."""
        counts: dict[str, tuple[int, int]] = {}
        for name, size in self.num_weights.items():
            selected, total = counts.get(module_name(name), (0, 0))
            counts[module_name(name)] = (selected + len(self.indices.get(name, ())), total + size)
        return counts


def select_random_weights(selection: WeightSelection, seed: int) -> WeightSelection:
    """
    The control of every claim: as many weights as `selection` has, drawn uniformly from the same scope.

    Args:
        selection ([`WeightSelection`]):
            The selection to match in size.
        seed (`int`):
            Seed of the draw.
    """
    return draw_weights(selection.num_weights, selection.num_selected, seed)


def draw_weights(num_weights: Mapping[str, int], number: int, seed: int) -> WeightSelection:
    """
    A selection of as many weights, drawn uniformly.

    Args:
        num_weights (`dict[str, int]`):
            Number of weights of every parameter to draw from.
        number (`int`):
            How many to draw.
        seed (`int`):
            Seed of the draw.
    """
    order = torch.randperm(sum(num_weights.values()), generator=torch.Generator().manual_seed(seed))
    return selection_at(num_weights, order[:number], "random")


def selection_at(num_weights: Mapping[str, int], chosen: torch.Tensor, rule: str) -> WeightSelection:
    """
    The selection of weights by their places in all parameters, laid end to end.

    Args:
        num_weights (`dict[str, int]`):
            Number of weights of every parameter that could have been selected.
        chosen (`torch.Tensor`):
            The places, in any order.
        rule (`str`):
            Name of the rule that chose them.
    """
    chosen = chosen.cpu().sort().values
    indices, first = {}, 0
    for name, size in num_weights.items():
        start, end = torch.searchsorted(chosen, torch.tensor([first, first + size])).tolist()
        if end > start:
            indices[name] = chosen[start:end] - first
        first += size
    return WeightSelection(indices, dict(num_weights), rule)
