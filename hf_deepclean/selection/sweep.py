# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluates other thresholds of the ratio, each by a reset that is undone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..evaluation.stages import StageResult
from ..fisher.diagonal import FisherDiagonal
from ..runtime.processes import run_once
from .rules import select_above
from .selector import TryReset


@dataclass(frozen=True)
class GammaTrial:
    """
    The trial of a threshold: its weights were reset, the model was evaluated without a repair, and the reset was
    undone.

    Args:
        gamma (`float`): The threshold. Weights with a ratio of forget to retain Fisher above it were reset.
        num_selected (`int`): Number of these weights.
        result ([`StageResult`], *optional*): Results after the reset. `None` if there is no such weight, or if the
            weights have no such reset value.
    """

    gamma: float
    num_selected: int
    result: StageResult | None

    def of_request(self, name: str) -> "GammaTrial":
        """Returns the trial with the rows of one request as the forget data."""
        return self if self.result is None else replace(self, result=self.result.of_request(name))


def check_gammas(gammas: Sequence[float]) -> list[float]:
    """
    Returns the thresholds of a sweep as floats.

    Args:
        gammas (`Sequence[float]`):
            The thresholds.

    Raises:
        `ValueError`: If a threshold is not a finite number above 0.
    """
    wrong = [gamma for gamma in gammas if not (gamma > 0 and math.isfinite(gamma))]
    if wrong:
        raise ValueError(
            f"`gamma_sweep` holds {wrong[0]} but must hold finite ratios above 0, such as 0.5, 1 and 2. Each resets "
            "the weights whose ratio of forget to retain Fisher is above it."
        )
    return [float(gamma) for gamma in gammas]


def try_gamma(
    gamma: float,
    forget: FisherDiagonal,
    retain: FisherDiagonal,
    evaluate: Callable[[], StageResult],
    try_reset: TryReset,
    *,
    is_sharded: bool = False,
) -> GammaTrial:
    """
    Evaluates a threshold: resets its weights, evaluates the model and undoes the reset.

    Args:
        gamma (`float`):
            Weights with a ratio of forget to retain Fisher above it are reset.
        forget, retain ([`FisherDiagonal`]):
            The two Fishers.
        evaluate (`Callable`):
            Evaluates the model.
        try_reset (`Callable`):
            See [`Resetter.try_reset`].
        is_sharded (`bool`, *optional*, defaults to `False`):
            Whether the model is sharded over several processes.
    """
    selection = run_once(lambda: select_above(forget, retain, gamma), is_sharded=is_sharded)
    if selection.num_selected == 0:
        return GammaTrial(gamma, 0, None)
    return GammaTrial(gamma, selection.num_selected, try_reset(selection, evaluate))
