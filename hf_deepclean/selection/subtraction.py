# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures what a retain Fisher by subtraction loses to rounding, and whether the selection depends on it."""

import math
from dataclasses import dataclass

import torch

from ..fisher.diagonal import FisherDiagonal, rounding_error
from .weight_selection import WeightSelection


# If the selection may differ in more than this share of the selected weights, a real pass is worth its time.
MAX_UNDECIDED_SHARE = 1e-3


@dataclass(frozen=True)
class CancellationError:
    """
    The rounding error of a retain Fisher that was computed by subtraction.

    Args:
        num_weights (`int`):
            Number of weights in scope.
        num_selected (`int`):
            Number of selected weights.
        num_undecided (`int`):
            Number of weights whose ratio is so close to the threshold that the error could move it across.
        num_below_error (`int`):
            Number of weights that matter to the forget set and whose retain sum is smaller than its error. The sum
            counts as 0, so their ratio is infinite.
        median_relative_error (`float`):
            Median over the weights of the error divided by the retain sum.
        num_imprecise (`int`):
            Number of weights whose relative error is above 1 %, including those below the error.
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
        """Number of undecided weights divided by that of selected weights."""
        return self.num_undecided / self.num_selected

    @property
    def matters(self) -> bool:
        """Whether a real pass over the retain data is needed: more than 0.1 % are undecided."""
        return self.undecided_share > MAX_UNDECIDED_SHARE


def cancellation_error(kept: FisherDiagonal, forget: FisherDiagonal, selection: WeightSelection) -> CancellationError:
    """
    Measures how much a selection could differ if the retain Fisher came from a pass over the retain data.

    The retain sum is `S - S_f`, and its error `e` is the [`rounding_error`] of S. The exact ratio of a weight lies
    between the ratios for `S - S_f + e` and `S - S_f - e`. The weight is undecided if the threshold of the selection
    lies between them too. The error of the forget Fisher does not count, because a real pass has it as well.

    Args:
        kept ([`FisherDiagonal`]):
            The Fisher of all training data.
        forget ([`FisherDiagonal`]):
            The Fisher of the forget set, which is part of the training data.
        selection ([`WeightSelection`]):
            The selection from `forget` and `kept - forget`.

    Returns:
        [`CancellationError`]

    Raises:
        `ValueError`: If the selection has no threshold, for example because it is random.
    """
    if selection.gamma is None:
        raise ValueError(
            f"A selection by the rule {selection.rule!r} does not depend on the ratios. Pass a selection of "
            "`select_weights`."
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
            # Among infinite ratios the importance decides, which does not depend on the subtraction.
            crossing = largest.isinf() & smallest.isfinite()
        undecided[name] = int((crossing & (importance > 0)).sum())
        num_below_error += int(((retain <= error) & (importance > 0)).sum())
        relative_errors.append((error / retain.clamp(min=0)).nan_to_num(0.0, posinf=math.inf).flatten().float().cpu())
    if selection.rule in ("reset_fraction", "auto") and sum(undecided.values()) == 1:
        # This is the weight whose ratio is the threshold. With no other weight near, its rank is certain.
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
    How a kept Fisher of the whole training set was used in the run.

    Args:
        num_examples (`int`): Number of examples in the kept Fisher.
        cancellation ([`CancellationError`]): What the retain Fisher by subtraction lost to rounding.
        retain_pass (`bool`): Whether the loss mattered, so that a pass over the retain data was made after all.
        refresh_cost (`str`): The cost of a new Fisher of the whole training set at the cleaned weights, for which the
            kept Fisher is stale.
    """

    num_examples: int
    cancellation: CancellationError
    retain_pass: bool
    refresh_cost: str
