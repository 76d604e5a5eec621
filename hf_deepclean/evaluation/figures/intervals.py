# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Computes confidence intervals of means, ratios and shares."""

import math

import numpy as np


# 97.5 % quantile of the standard normal distribution: two-sided intervals of 95 %.
NORMAL_QUANTILE = 1.959963984540054


def wilson_interval(num_successes: float, num_trials: float) -> tuple[float, float]:
    """
    Computes the 95 % interval of a share by Wilson's score method. Unlike the normal interval it holds near 0 and 1.

    Wilson, Probable inference, the law of succession, and statistical inference (1927), equation 5.

    Args:
        num_successes (`float`):
            Number of successes.
        num_trials (`float`):
            Number of independent trials, above 0. An effective number of trials need not be whole.

    Returns:
        `tuple[float, float]`: Lower and upper end.
    """
    share, z = num_successes / num_trials, NORMAL_QUANTILE
    center = (share + z**2 / (2 * num_trials)) / (1 + z**2 / num_trials)
    half = z / (1 + z**2 / num_trials) * math.sqrt(share * (1 - share) / num_trials + z**2 / (4 * num_trials**2))
    # Rounding must not push an end past the share.
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))


def mean_interval(
    values: np.ndarray, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float] | None:
    """
    Computes the 95 % interval of a mean over examples, by the normal distribution.

    Cochran, Sampling techniques (1977), chapter 2.

    Args:
        values (`np.ndarray`):
            One value per example, shape `(num_examples,)`.
        bounds (`tuple[float, float]`, *optional*):
            The smallest and the largest possible value, at which the ends are cut off. By default none.

    Returns:
        `tuple[float, float]`: Lower and upper end, or `None` for fewer than two examples.
    """
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = NORMAL_QUANTILE * math.sqrt(np.var(values, ddof=1) / len(values))
    return max(bounds[0], mean - half), min(bounds[1], mean + half)


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray) -> tuple[float, float] | None:
    """
    Computes the 95 % interval of a ratio of two sums over examples, such as a mean over tokens, by the normal
    distribution.

    Examples must be independent, but the parts of one example need not be: the variance is that of the ratio's linear
    approximation over whole examples. Cochran, Sampling techniques (1977), chapter 6.

    Args:
        numerators (`np.ndarray`):
            Contribution of every example to the numerator, shape `(num_examples,)`.
        denominators (`np.ndarray`):
            Contribution of every example to the denominator, such as its number of tokens, above 0, of the same shape.

    Returns:
        `tuple[float, float]`: Lower and upper end, or `None` for fewer than two examples.
    """
    if len(numerators) < 2:
        return None
    ratio = float(np.sum(numerators) / np.sum(denominators))
    half = NORMAL_QUANTILE * math.sqrt(_ratio_variance(numerators, denominators))
    return ratio - half, ratio + half


def share_interval(num_successes: np.ndarray, num_trials: np.ndarray) -> tuple[float, float] | None:
    """
    Computes the 95 % interval of a share of trials that come in groups, such as the tokens of texts.

    It is Wilson's interval for an effective number of trials: that number of independent trials would have the
    variance of [`ratio_interval`]. So the interval also holds near 0 and 1.

    Korn and Graubard, Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data (1998), with Wilson's interval in the place of Clopper and Pearson's.

    Args:
        num_successes (`np.ndarray`):
            Successes of every group, shape `(num_groups,)`. They need not be whole.
        num_trials (`np.ndarray`):
            Trials of every group, above 0, of the same shape.

    Returns:
        `tuple[float, float]`: Lower and upper end, or `None` for fewer than two groups.
    """
    if len(num_successes) < 2:
        return None
    share = float(np.sum(num_successes) / np.sum(num_trials))
    variance = _ratio_variance(num_successes, num_trials)
    # If all groups agree, nothing shows how far the trials within a group depend on each other: each counts once.
    effective = share * (1 - share) / variance if variance > 0 else len(num_trials)
    return wilson_interval(share * effective, effective)


def _ratio_variance(numerators: np.ndarray, denominators: np.ndarray) -> float:
    num_examples, total = len(numerators), np.sum(denominators, dtype=np.float64)
    residuals = numerators - np.sum(numerators) / total * denominators
    return float(num_examples / (num_examples - 1) * np.sum(residuals**2) / total**2)
