# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Holds the weights to reset, as flat indices per parameter."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

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
            The ratio above which weights were selected. For `"reset_fraction"` and `"auto"` it is the smallest
            selected ratio, for `"random"` it is `None`.
        num_infinite_ratios (`int`, *optional*, defaults to `0`):
            Number of selected weights that matter to the forget set and have a retain Fisher of exactly 0.
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

    def of(self, names: Collection[str]) -> "WeightSelection":
        """Returns the part of the selection in some parameters."""
        return replace(self, indices={name: chosen for name, chosen in self.indices.items() if name in names})

    def counts_per_module(self) -> dict[str, tuple[int, int]]:
        """Returns the numbers of selected weights and of weights in scope, by module that owns parameters in scope."""
        counts: dict[str, tuple[int, int]] = {}
        for name, size in self.num_weights.items():
            selected, total = counts.get(module_name(name), (0, 0))
            counts[module_name(name)] = (selected + len(self.indices.get(name, ())), total + size)
        return counts


def select_random_weights(selection: WeightSelection, seed: int) -> WeightSelection:
    """
    Draws the selection of the control: as many weights as `selection` has, uniformly from the same scope.

    Args:
        selection ([`WeightSelection`]):
            The selection to match in size.
        seed (`int`):
            Seed of the draw.
    """
    return draw_weights(selection.num_weights, selection.num_selected, seed)


def draw_weights(num_weights: Mapping[str, int], number: int, seed: int) -> WeightSelection:
    """
    Draws a selection of `number` weights uniformly.

    Args:
        num_weights (`dict[str, int]`):
            Number of weights of every parameter to draw from.
        number (`int`):
            Number of weights to draw.
        seed (`int`):
            Seed of the draw.
    """
    order = torch.randperm(sum(num_weights.values()), generator=torch.Generator().manual_seed(seed))
    return selection_at(num_weights, order[:number], "random")


def selection_at(num_weights: Mapping[str, int], chosen: torch.Tensor, rule: str) -> WeightSelection:
    """
    Makes a selection from positions in the concatenation of all flattened parameters.

    Args:
        num_weights (`dict[str, int]`):
            Number of weights of every parameter in scope.
        chosen (`torch.Tensor`):
            The positions, int64, in any order.
        rule (`str`):
            Name of the rule that selected them.
    """
    chosen = chosen.cpu().sort().values
    indices, first = {}, 0
    for name, size in num_weights.items():
        start, end = torch.searchsorted(chosen, torch.tensor([first, first + size])).tolist()
        if end > start:
            indices[name] = chosen[start:end] - first
        first += size
    return WeightSelection(indices, dict(num_weights), rule)
