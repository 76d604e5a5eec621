# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of shares."""

import math


# 97.5 % quantile of the standard normal distribution: two-sided intervals of 95 %.
NORMAL_QUANTILE = 1.959963984540054


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """
    95 % interval of a share by Wilson's score method; unlike the normal one it holds near 0 and 1.

    Wilson, Probable inference, the law of succession, and statistical inference (1927), equation 5.

    Args:
        num_successes (`int`):
            Number of successes.
        num_trials (`int`):
            Number of trials, at least 1.

    Returns:
        `tuple[float, float]`: Lower and upper end.
    """
    share, z = num_successes / num_trials, NORMAL_QUANTILE
    center = (share + z**2 / (2 * num_trials)) / (1 + z**2 / num_trials)
    half = z / (1 + z**2 / num_trials) * math.sqrt(share * (1 - share) / num_trials + z**2 / (4 * num_trials**2))
    # Rounding must not push an end past the share it encloses.
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))
