# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What the repair adds to its loss while forget data are still known better than data never seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from ..data.loaders import seeded_batches


# The penalty is taken in one of so many steps at most, and of so many at least.
MIN_STEPS_PER_PENALTY, MAX_STEPS_PER_PENALTY = 4, 8


@dataclass(frozen=True)
class ForgetPenalty:
    """
    A penalty on forget examples that are known better than unseen ones, so that a repair on retained data does not
    bring them back:

        weight * mean over a batch of forget examples of max(0, t_i - l_i)

    with `l_i` the loss of the example and `t_i` the quantile of the unseen examples' losses, under the model as it was
    before the reset, at the rank of `l_i` in its batch: of the forget examples the hardest are held to the losses of
    the hardest unseen ones, and those that any model would know may be known. The targets rise in the course of the
    repair from one half of those losses towards the whole: what has once been pushed away drifts further while the
    repair goes on. The penalty is 0 as soon as the batch's mean loss is that of its targets, or that of unseen
    examples under the model as it is now. No gradient ever follows an unseen example.

    Args:
        forget_rows, unseen_rows (map-style):
            The examples.
        data_collator (`Callable`):
            Makes a batch of rows.
        unseen_losses (`Sequence[float]`):
            Evenly spaced quantiles of the unseen examples' losses before the reset; see [`SelectionSearch`].
        weight (`float`):
            The weight, above 0.
        batch_size (`int`):
            Examples of each kind per process.
        period (`int`):
            The penalty is taken in every so manieth step; see [`penalty_period`].
        rise (`float`):
            The share of the repair after which the targets are whole; above 1 they never are.
        seed (`int`):
            Seed of their order.
    """

    forget_rows: Any
    unseen_rows: Any
    data_collator: Callable[[list[Any]], Mapping[str, Any]]
    unseen_losses: Sequence[float]
    weight: float
    batch_size: int
    period: int
    rise: float
    seed: int

    def batch(
        self, rows: Any, step: int, process_index: int = 0, num_processes: int = 1
    ) -> tuple[Mapping[str, Any], bool]:
        """
        The examples of a step, which follow the step alone: pass after pass over the rows, each in a new order.

        Args:
            rows (map-style):
                `forget_rows` or `unseen_rows`.
            step (`int`):
                Number of the step.
            process_index, num_processes (`int`, *optional*, defaults to `0` and `1`):
                Whose share of them.

        Returns:
            `tuple[dict[str, Any], bool]`: The batch, and whether it counts: of fewer rows than processes the last
            processes get one that must not.
        """
        number, num_rows = step // self.period, len(rows)
        size = min(self.batch_size * num_processes, num_rows)
        positions = range(number * size, (number + 1) * size)
        orders = {
            turn: torch.randperm(num_rows, generator=torch.Generator().manual_seed(self.seed + turn)).tolist()
            for turn in {position // num_rows for position in positions}
        }
        places = [orders[position // num_rows][position % num_rows] for position in positions]
        own = places[process_index::num_processes]
        chosen = own or places[:1]
        # Every process has a seed of its own for what its collator draws.
        seed = self.seed + number * num_processes + process_index
        _, batch = next(seeded_batches(Subset(rows, chosen), len(chosen), self.data_collator, seed))
        return batch, bool(own)

    def targets(
        self, forget_losses: Sequence[float], unseen_losses: Sequence[float], progress: float
    ) -> np.ndarray | None:
        """
        What the losses are held to, or `None` if they are high enough.

        Args:
            forget_losses (`Sequence[float]`):
                Losses of the forget examples of a step, in all processes.
            unseen_losses (`Sequence[float]`):
                Those of the unseen examples.
            progress (`float`):
                Which share of the repair is done.

        Returns:
            `np.ndarray`: One target per forget example.
        """
        number = len(forget_losses)
        if number == 0:
            return None
        middles = (np.arange(number) + 0.5) / number
        quantiles = np.interp(middles, np.linspace(0, 1, len(self.unseen_losses)), self.unseen_losses)
        # Losses of densities may be negative.
        quantiles = quantiles - max(0.0, 1 - progress / self.rise) / 2 * np.abs(quantiles)
        enough = min(quantiles.mean(), np.mean(unseen_losses)) if len(unseen_losses) else quantiles.mean()
        if np.mean(forget_losses) >= enough:
            return None
        ranks = np.argsort(np.argsort(forget_losses, kind="stable"), kind="stable")
        return quantiles[ranks]


def penalty_period(num_steps: int, num_batches: int) -> int:
    """
    In every how manieth step the penalty is taken: so that the repair reads the forget data as often as the retained
    ones, within bounds that keep it cheap for many and effective for few of them.

    Args:
        num_steps (`int`):
            Steps of a pass over the retained data.
        num_batches (`int`):
            Batches of the forget data.
    """
    return min(MAX_STEPS_PER_PENALTY, max(MIN_STEPS_PER_PENALTY, num_steps // num_batches))
