# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a retain Fisher by subtraction loses to rounding, and whether a selection depends on it."""

import math
from dataclasses import dataclass

import torch

from ..fisher.diagonal import FisherDiagonal, rounding_error
from .weight_selection import WeightSelection


# A real pass is worth its time where the selection may differ in more than this share of the selected weights.
MAX_UNDECIDED_SHARE = 1e-3


@dataclass(frozen=True)
class CancellationError:
    """
    The error of a retain Fisher that was computed as a difference.

    Args:
        num_weights (`int`):
            Number of weights in scope.
        num_selected (`int`):
            How many of them were selected.
        num_undecided (`int`):
            Weights whose ratio lies so near the threshold that the error could carry it across.
        num_below_error (`int`):
            Weights that matter to the forget set and whose retain sum is smaller than its error: it counts as 0, so
            their ratio as infinite.
        median_relative_error (`float`):
            Median over the weights of the error over the retain sum.
        num_imprecise (`int`):
            Weights for which it is above 1 %, those below the error included.
        undecided_per_parameter (`dict[str, int]`):
            Number of undecided weights of every parameter that has any.
    """

    num_weights: int
    num_selected: int
    num_undecided: int
    num_below_error: int
    median_relative_error: float
    num_imprecise: int
    undecided_per_parameter: dict[str, int]

    @property
    def undecided_share(self) -> float:
        """Undecided weights over selected ones."""
        return self.num_undecided / self.num_selected

    @property
    def matters(self) -> bool:
        """Whether a real pass over the retain data is called for: more than 0.1 % undecided."""
        return self.undecided_share > MAX_UNDECIDED_SHARE


def cancellation_error(kept: FisherDiagonal, forget: FisherDiagonal, selection: WeightSelection) -> CancellationError:
    """
    Compares a selection with what it could have been, had the retain Fisher been computed by a pass of its own.

    The retain sum is `S - S_f`, with the error `e` of [`rounding_error`] of S. A weight's ratio of forget to retain
    Fisher lies between those for `S - S_f + e` and for `S - S_f - e`; the weight is undecided if the threshold of the
    selection does too. The error of the forget Fisher itself is no part of this, since a real pass shares it.

    Args:
        kept ([`FisherDiagonal`]):
            Of all training data.
        forget ([`FisherDiagonal`]):
            Of the examples among them that are to be forgotten.
        selection ([`WeightSelection`]):
            What [`select_weights`] made of `forget` and `kept - forget`.

    Returns:
        [`CancellationError`]

    Raises:
        `ValueError`: If the selection has no threshold, as one drawn at random.
    """
    if selection.gamma is None:
        raise ValueError(
            f"A selection by the rule {selection.rule!r} does not depend on the ratios. Pass one of `select_weights`."
        )
    undecided, relative_errors = {}, []
    num_below_error = 0
    scale = (kept.num_examples - forget.num_examples) / forget.num_examples
    for name, total in kept.sums.items():
        importance = forget.sums[name].to(total.device).double()
        error = rounding_error(total).double()
        retain = total.double() - importance
        smallest, largest = (scale * importance / (retain + sign * error).clamp(min=0) for sign in (1, -1))
        crossing = (smallest <= selection.gamma) & (largest >= selection.gamma)
        if math.isinf(selection.gamma):
            # Ties at infinity are broken by importance, which subtraction does not touch.
            crossing = largest.isinf() & smallest.isfinite()
        undecided[name] = int((crossing & (importance > 0)).sum())
        num_below_error += int(((retain <= error) & (importance > 0)).sum())
        relative_errors.append((error / retain.clamp(min=0)).nan_to_num(0.0, posinf=math.inf).flatten().float().cpu())
    if selection.rule in ("reset_fraction", "auto") and sum(undecided.values()) == 1:
        # The weight that is the threshold; with no other near it, its rank is certain.
        undecided = {}
    relative_error = torch.cat(relative_errors)
    return CancellationError(
        selection.num_in_scope,
        selection.num_selected,
        sum(undecided.values()),
        num_below_error,
        relative_error.median().item(),
        int((relative_error > 0.01).sum()),
        {name: number for name, number in undecided.items() if number},
    )


@dataclass(frozen=True)
class KeptFisherResult:
    """
    How a Fisher of the whole training set, kept before, served the run.

    Args:
        num_examples (`int`): Examples in the kept Fisher.
        cancellation ([`CancellationError`]): What the retain Fisher by subtraction loses to rounding.
        retain_pass (`bool`): Whether that mattered, so that a pass over the retain data was made all the same.
        refresh_cost (`str`): What a Fisher of the whole training set costs at the cleaned weights, to which the kept
            one does not belong.
    """

    num_examples: int
    cancellation: CancellationError
    retain_pass: bool
    refresh_cost: str
