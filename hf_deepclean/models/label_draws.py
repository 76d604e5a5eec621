# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Draws labels from a model's own distribution. Every draw depends only on the seed, the example and the position."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from ..data.batches import IGNORED


# Up to this number, a running sum over all outcomes is cheaper than finding a block of them first.
_FEW_OUTCOMES = 128


def draw_targets(
    probabilities: torch.Tensor, targets: torch.Tensor, positions: Sequence[int], seed: int
) -> torch.Tensor:
    """
    Draws an outcome for every scored choice.

    Args:
        probabilities (`torch.Tensor`):
            Shape `(batch_size, num_choices, num_outcomes)`, float32 or float64.
        targets (`torch.Tensor`):
            The given outcomes, shape `(batch_size, num_choices)`. Nothing is drawn where they are -100.
        positions (`Sequence[int]`):
            Position of every example in the data set.
        seed (`int`):
            The seed.

    Returns:
        `torch.Tensor`: Outcomes of the same shape as `targets`, with the same -100. A draw depends on the seed, on the
        example's position in the data set, and on the choice's index among the scored ones of its example.
    """
    scored = targets != IGNORED
    rows = scored.flatten().nonzero().squeeze(1)
    indices = (scored.cumsum(dim=1) - 1).flatten()[rows]
    owners = np.asarray(positions)[(rows // targets.shape[1]).cpu().numpy()]
    uniform = torch.from_numpy(uniform_numbers(seed, owners, indices.cpu().numpy()))
    drawn = targets.flatten().clone()
    drawn[rows] = _invert(probabilities.flatten(0, 1), rows, uniform.to(probabilities))
    return drawn.view_as(targets)


def uniform_numbers(seed: int, positions: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """
    Random numbers in [0, 1), one for every pair of position and index. A pair gets the same number in every call.

    They are those of SplitMix64 (Steele, Lea and Flood, 2014) at place `2^32 position + index + 1` of the seed's
    stream, a place of its own for every pair. NumPy's generators run through a stream from its start and would need
    one object per example.

    Args:
        seed (`int`):
            The seed, not negative.
        positions, indices (`np.ndarray`):
            Integers below 2^32, of one shape.

    Returns:
        `np.ndarray`: float64, of that shape.
    """
    place = (positions.astype(np.uint64) << np.uint64(32)) + indices.astype(np.uint64) + np.uint64(1)
    bits = np.random.SeedSequence(seed).generate_state(1, np.uint64) + place * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def _invert(probabilities: torch.Tensor, rows: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """
    The outcomes at which the distribution functions of some rows pass the uniform numbers.

    Finds a block of outcomes first, then the outcome in that block: a running sum over all outcomes would cost as much
    as the softmax itself.
    """
    num_outcomes = probabilities.shape[1]
    if num_outcomes <= _FEW_OUTCOMES:
        passed = probabilities[rows].cumsum(dim=1)
        return _first_above(passed, uniform * passed[:, -1])[0]
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
    # Rounding may lift a threshold to the total. Then take the last outcome with a probability.
    last = passed[:, -1]
    threshold = torch.minimum(threshold, torch.nextafter(last, torch.zeros_like(last)))
    return (passed <= threshold[:, None]).sum(dim=1).clamp_max(passed.shape[1] - 1), threshold
