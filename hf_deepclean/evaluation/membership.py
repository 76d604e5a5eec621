# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Can the forgotten examples be told from examples the model never saw?"""

import math
from dataclasses import dataclass

import numpy as np

from .intervals import NORMAL_QUANTILE, wilson_interval


@dataclass(frozen=True)
class MembershipAttack:
    """
    Outcome of a confidence attack that takes confident examples for training data.

    Args:
        auc (`float`):
            Probability that a forget example scores higher than an unseen one, ties counted half. 0.5: the two cannot
            be told apart. Above 0.5: the forget data still look like training data. Below 0.5: they are less
            confident than data never seen, which gives them away as well. The target is the value of a model
            retrained without them, not 0.
        auc_interval (`tuple[float, float]`):
            95 % interval of the AUC by DeLong's method.
        tpr_at_1_percent_fpr (`float`):
            Share of forget examples recognised by the strictest threshold at which at most 1 % of the unseen examples
            are. 0.01: no better than chance. Above: some examples can be recognised with near certainty.
        num_forget (`int`):
            Number of forget examples.
        num_unseen (`int`):
            Number of unseen examples; with fewer than 100, none may be taken for training data.
        tpr_interval (`tuple[float, float]`, *optional*):
            95 % interval of that share by Wilson's method, at the threshold as it is: that the threshold comes from a
            sample of unseen examples, and would be another one on others, is not in it.
    """

    auc: float
    auc_interval: tuple[float, float]
    tpr_at_1_percent_fpr: float
    num_forget: int
    num_unseen: int
    tpr_interval: tuple[float, float] | None = None


def membership_attack(forget_scores: np.ndarray, unseen_scores: np.ndarray) -> MembershipAttack:
    """
    Attacks membership by thresholds on a score that is higher for training data, such as the true-class confidence.

    The interval is DeLong's, Comparing the areas under two or more correlated ROC curves (1988), for one curve.

    Args:
        forget_scores (`np.ndarray`):
            Scores of the forget examples, shape `(num_forget,)`.
        unseen_scores (`np.ndarray`):
            Scores of examples the model never saw, of the same distribution, shape `(num_unseen,)`.

    Returns:
        [`MembershipAttack`]

    Raises:
        `ValueError`: If one of the two is empty or holds a NaN.
    """
    forget, unseen = np.asarray(forget_scores, dtype=np.float64), np.asarray(unseen_scores, dtype=np.float64)
    if len(forget) == 0 or len(unseen) == 0 or np.isnan(forget).any() or np.isnan(unseen).any():
        raise ValueError(
            f"A membership attack needs scores that are numbers for at least one example on each side; there are "
            f"{len(forget)} forget and {len(unseen)} unseen scores, of which "
            f"{int(np.isnan(forget).sum() + np.isnan(unseen).sum())} are NaN."
        )
    above_unseen = _share_below(forget, unseen)
    above_forget = _share_below(unseen, forget)
    auc = float(above_unseen.mean())
    variance = _variance_of_mean(above_unseen) + _variance_of_mean(above_forget)
    half = NORMAL_QUANTILE * math.sqrt(variance)
    allowed = math.floor(0.01 * len(unseen))
    threshold = np.sort(unseen)[::-1][allowed]
    num_recognised = int((forget > threshold).sum())
    return MembershipAttack(
        auc,
        (max(0.0, auc - half), min(1.0, auc + half)),
        num_recognised / len(forget),
        len(forget),
        len(unseen),
        wilson_interval(num_recognised, len(forget)),
    )


def _share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For every score, the share of the others below it, ties counted half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, side="left") + np.searchsorted(ordered, scores, side="right")
    return below / (2 * len(others))


def _variance_of_mean(values: np.ndarray) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.25
