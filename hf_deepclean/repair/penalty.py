# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A penalty in the repair on forget examples that the model knows better than unseen ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Subset

from ..data.loaders import seeded_batches


# The penalty is taken in every fourth to every eighth step.
MIN_STEPS_PER_PENALTY, MAX_STEPS_PER_PENALTY = 4, 8

# A smaller loss counts as this one where losses are compared on the scale of odds.
_LEAST_LOSS = 1e-6


@dataclass(frozen=True)
class ForgetPenalty:
    """
    A penalty on forget examples that the model knows better than unseen ones, so that the repair on the retain set
    does not bring them back:

        weight * mean over a batch of forget examples of max(0, t_i - l_i)

    Here `l_i` is the loss of an example and `t_i` its target. The target is a quantile of the losses of unseen
    examples before the reset, at the rank of `l_i` in its batch. So the hardest forget examples are held to the losses
    of the hardest unseen ones, and examples that any model would know may be known.

    A few forget examples are easily pushed too far, and then stand out as forgotten. So if there are `few`, they are
    held to their targets from both sides, by the Huber loss of the log odds of the two losses (of the losses
    themselves for heads with densities). The targets are then quantiles of the losses of unseen examples under the
    current model, and what follows does not apply.

    The targets rise during the repair, from one half of these quantiles towards the whole, because an example that was
    pushed away drifts further while the repair goes on. The penalty is 0 as soon as the mean loss of the batch reaches
    the mean of its targets, or the mean loss of unseen examples under the current model. No gradient is taken of an
    unseen example.

    Args:
        forget_rows, unseen_rows (map-style):
            The forget and the unseen examples.
        data_collator (`Callable`):
            Makes a batch of rows.
        unseen_losses (`Sequence[float]`):
            Evenly spaced quantiles of the losses of unseen examples before the reset; see [`SelectionSearch`].
        weight (`float`):
            The weight of the penalty, above 0.
        batch_size (`int`):
            Number of forget examples, and of unseen examples, per process.
        period (`int`):
            Number of steps from one penalty to the next; see [`penalty_period`].
        rise (`float`):
            Share of the repair after which the targets are the whole quantiles. Above 1, the targets stay below
            the quantiles.
        seed (`int`):
            Seed of the order of the examples.
        few (`bool`, *optional*, defaults to `False`):
            Whether there are few forget examples.
        on_odds (`bool`, *optional*, defaults to `False`):
            Whether a few examples are compared by log odds, for which losses must not be negative.
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
    few: bool = False
    on_odds: bool = False

    def batch(
        self, rows: Any, step: int, process_index: int = 0, num_processes: int = 1
    ) -> tuple[Mapping[str, Any], bool]:
        """
        Makes the batch of a step, which depends only on the step: pass after pass over the rows, each in a new order.

        Args:
            rows (map-style):
                `forget_rows` or `unseen_rows`.
            step (`int`):
                Number of the step.
            process_index, num_processes (`int`, *optional*, defaults to `0` and `1`):
                The process whose share of the batch is made.

        Returns:
            `tuple[dict[str, Any], bool]`: The batch, and whether it counts. If there are fewer rows than processes,
                the last processes get a batch that does not count.
        """
        number, num_rows = step // self.period, len(rows)
        # No gradient is taken of unseen examples, so twice as many fit, and quantiles of them are less noisy.
        batches = 2 if self.few and rows is self.unseen_rows else 1
        size = min(batches * self.batch_size * num_processes, num_rows)
        positions = range(number * size, (number + 1) * size)
        orders = {
            turn: torch.randperm(num_rows, generator=torch.Generator().manual_seed(self.seed + turn)).tolist()
            for turn in {position // num_rows for position in positions}
        }
        places = [orders[position // num_rows][position % num_rows] for position in positions]
        own = places[process_index::num_processes]
        chosen = own or places[:1]
        # The collators of the processes draw with different seeds.
        seed = self.seed + number * num_processes + process_index
        _, batch = next(seeded_batches(Subset(rows, chosen), len(chosen), self.data_collator, seed))
        return batch, bool(own)

    def targets(
        self, forget_losses: Sequence[float], unseen_losses: Sequence[float], progress: float
    ) -> np.ndarray | None:
        """
        Computes the targets of the losses, or returns `None` if the losses are high enough.

        Args:
            forget_losses (`Sequence[float]`):
                Losses of the forget examples of a step, in all processes.
            unseen_losses (`Sequence[float]`):
                Losses of the unseen examples of the step, in all processes.
            progress (`float`):
                The share of the repair that is done.

        Returns:
            `np.ndarray`: One target per forget example, in nats.
        """
        number = len(forget_losses)
        if number == 0:
            return None
        middles = (np.arange(number) + 0.5) / number
        ranks = np.argsort(np.argsort(forget_losses, kind="stable"), kind="stable")
        if self.few and len(unseen_losses):
            return np.quantile(unseen_losses, middles)[ranks]
        quantiles = np.interp(middles, np.linspace(0, 1, len(self.unseen_losses)), self.unseen_losses)
        # Losses of densities may be negative.
        quantiles = quantiles - max(0.0, 1 - progress / self.rise) / 2 * np.abs(quantiles)
        enough = min(quantiles.mean(), np.mean(unseen_losses)) if len(unseen_losses) else quantiles.mean()
        if np.mean(forget_losses) >= enough:
            return None
        return quantiles[ranks]

    def excess(self, losses: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """
        Sums how far the losses of examples are below their targets, or for a few examples, how far from them.

        Args:
            losses, targets (`torch.Tensor` of shape `(num_examples,)`):
                The losses and their targets, in nats.

        Returns:
            `torch.Tensor`: The sum, a scalar.
        """
        if not self.few:
            return (targets - losses).clamp_min(0).sum()
        if self.on_odds:
            losses, targets = (_log_odds(values) for values in (losses, targets))
        return functional.huber_loss(losses, targets, reduction="sum")


def _log_odds(losses: torch.Tensor) -> torch.Tensor:
    """The log odds against the label, for its loss `-log p`."""
    losses = losses.clamp_min(_LEAST_LOSS)
    return losses + (-(-losses).expm1()).log()


def penalty_period(num_steps: int, num_batches: int) -> int:
    """
    Returns the number of steps from one penalty to the next.

    With it the repair reads the forget set as often as the retain set, within bounds that keep the penalty cheap for
    large forget sets and effective for small ones.

    Args:
        num_steps (`int`):
            Number of steps of a pass over the retain set.
        num_batches (`int`):
            Number of batches of the forget set.
    """
    return min(MAX_STEPS_PER_PENALTY, max(MIN_STEPS_PER_PENALTY, num_steps // num_batches))
