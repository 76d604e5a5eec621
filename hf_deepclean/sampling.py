# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Labels drawn from a model's own distribution, each by a number that belongs to its example and place alone."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from .batches import IGNORED


def draw_targets(
    probabilities: torch.Tensor, targets: torch.Tensor, positions: Sequence[int], seed: int
) -> torch.Tensor:
    """
    Draws an outcome for every choice that is scored.

    Args:
        probabilities (`torch.Tensor`):
            Shape `(batch_size, num_choices, num_outcomes)`, float32 or float64.
        targets (`torch.Tensor`):
            The given outcomes, shape `(batch_size, num_choices)`; where they are -100 nothing is drawn.
        positions (`Sequence[int]`):
            Position of every example in the data set.
        seed (`int`):
            The seed.

    Returns:
        `torch.Tensor`: Outcomes of the targets' shape, -100 where the targets are. The draw depends on the seed, the
        example's position in the data set and the choice's index among the scored ones of its example.
    """
    scored = targets != IGNORED
    uniform = [
        # A counter of its own for every example: no two draws of a run share a random number.
        np.random.Generator(np.random.Philox(key=seed, counter=[0, position, 0, 0])).random(count)
        for position, count in zip(positions, scored.sum(dim=1).tolist(), strict=True)
    ]
    rows = scored.flatten().nonzero().squeeze(1)
    drawn = targets.flatten().clone()
    drawn[rows] = _invert(
        probabilities.flatten(0, 1), rows, torch.from_numpy(np.concatenate(uniform)).to(probabilities)
    )
    return drawn.view_as(targets)


def _invert(probabilities: torch.Tensor, rows: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """
    The outcomes at which the distribution functions of some rows pass the uniform numbers.

    Blocks of outcomes first, then outcomes within the block that was hit: a running sum over all outcomes would cost
    as much as the softmax itself.
    """
    num_outcomes = probabilities.shape[1]
    width = math.isqrt(num_outcomes - 1) + 1
    whole = num_outcomes - num_outcomes % width
    sums = [
        probabilities[:, :whole].unflatten(1, (-1, width)).sum(dim=2),
        probabilities[:, whole:].sum(dim=1)[:, None],
    ]
    passed = torch.cat(sums, dim=1)[rows].cumsum(dim=1)
    block, rest = _first_above(passed, uniform * passed[:, -1])
    rest = rest - passed.gather(1, (block - 1).clamp_min(0)[:, None]).squeeze(1).masked_fill(block == 0, 0)
    outcomes = block[:, None] * width + torch.arange(width, device=rows.device)
    inside = probabilities[rows[:, None], outcomes.clamp_max(num_outcomes - 1)]
    outcome, _ = _first_above(inside.masked_fill(outcomes >= num_outcomes, 0).cumsum(dim=1), rest)
    return block * width + outcome


def _first_above(passed: torch.Tensor, threshold: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Rounding may lift a threshold to the total; the last outcome with a probability is meant then.
    last = passed[:, -1]
    threshold = torch.minimum(threshold, torch.nextafter(last, torch.zeros_like(last)))
    return (passed <= threshold[:, None]).sum(dim=1).clamp_max(passed.shape[1] - 1), threshold
