# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Computes 95 % intervals of means, ratios and shares, which cover also with few examples and skewed values.

They are Gaffke's: an interval of the mean of values that lie between two bounds. The examples get random weights, and
one further example lies at the bound. An end is the 2.5 % quantile of the weighted mean. For values of 0 and 1 it is
the exact interval of Clopper and Pearson, and for many examples the normal one. No distribution is known for which it
covers less than it says.

Gaffke, Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable (2005).
"""

import math

import numpy as np

from .saddlepoint import find_end, score_of_beta, score_of_sum


# 97.5 % quantile of the standard normal distribution: two-sided intervals of 95 %.
NORMAL_QUANTILE = 1.959963984540054

# Values without bounds need this many examples: of fewer, all of 2 % of rows that hold most of the sum can be missing.
MIN_UNBOUNDED_EXAMPLES = 200
# A value that was not seen is at most this many times as far outside as the outermost values are apart. Chosen on
# lognormal, Pareto and mixed losses of 200 and 1,000 rows.
_TAIL_FACTOR = 4


def proportion_interval(share: float, num_trials: float, rounded_by: float = 0.0) -> tuple[float, float]:
    """
    Computes the 95 % interval of a share of independent trials, from the share and the number alone.

    It is the exact interval, which covers in at least 95 % of draws whatever the true share is. Clopper and Pearson,
    The use of confidence or fiducial limits illustrated in the case of the binomial (1934).

    It also holds for a mean of values between 0 and 1, and with the smaller number for an area under the curve, whose
    variance is at most that of a share: Birnbaum and Klose, Bounds for the variance of the Mann-Whitney statistic
    (1957). There it is wider than an interval from the values.

    Args:
        share (`float`):
            The share, between 0 and 1.
        num_trials (`float`):
            Number of trials, above 0. A smaller number than the true one gives a wider interval.
        rounded_by (`float`, *optional*, defaults to 0):
            How far the share may be from the true one by rounding, such as 0.005 for two decimals.

    Returns:
        `tuple[float, float]`: Lower and upper end.
    """

    def lower(share: float) -> float:
        successes = max(0.0, share - rounded_by) * num_trials
        if successes == 0:
            return 0.0
        failures = max(0.0, num_trials - successes) + 1
        outside = 1e-12 * share
        return find_end(lambda p: score_of_beta(p, successes, failures), share * (1 - 1e-9), outside, -NORMAL_QUANTILE)

    low, high = lower(share), 1 - lower(1 - share)
    return min(low, share), max(high, share)


def mean_interval(
    values: np.ndarray, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float] | None:
    """
    Computes the 95 % interval of a mean over independent examples. See [`ratio_interval`].

    Args:
        values (`np.ndarray`):
            One value per example, shape `(num_examples,)`.
        bounds (`tuple[float, float]`, *optional*):
            The smallest and the largest possible value. By default none.

    Returns:
        `tuple[float, float]`: Lower and upper end, or `None` for too few examples.
    """
    return ratio_interval(values, np.ones(len(values)), bounds)


def share_interval(num_successes: np.ndarray, num_trials: np.ndarray) -> tuple[float, float] | None:
    """
    Computes the 95 % interval of a share of trials that come in groups, such as the tokens of texts. See
    [`ratio_interval`].

    Args:
        num_successes (`np.ndarray`):
            Successes of every group, shape `(num_groups,)`. They need not be whole.
        num_trials (`np.ndarray`):
            Trials of every group, above 0, of the same shape.

    Returns:
        `tuple[float, float]`: Lower and upper end, or `None` for fewer than two groups.
    """
    return ratio_interval(num_successes, num_trials, (0.0, 1.0))


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float] | None:
    """
    Computes the 95 % interval of a ratio of two sums over examples, such as a mean over tokens.

    Examples must be independent, but the parts of one example need not be. Each end counts one further example, as
    large as the largest: at the bound, or as far out as an example that was not seen may be in view of the outermost
    ones. The second needs 200 examples. It misses groups of examples that are rarer than about 1 in 50.

    Args:
        numerators (`np.ndarray`):
            Contribution of every example to the numerator, shape `(num_examples,)`.
        denominators (`np.ndarray`):
            Contribution of every example to the denominator, such as its number of tokens, above 0, of the same shape.
        bounds (`tuple[float, float]`, *optional*):
            The smallest and the largest possible ratio of an example. By default none.

    Returns:
        `tuple[float, float]`: Lower and upper end. `None` for fewer than two examples, and on a side without a bound
            for fewer than 200, or if all are equal.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    low, high = bounds
    if len(above) < 2:
        return None
    if math.isinf(low) or math.isinf(high):
        ratios = above / below
        if len(above) < MIN_UNBOUNDED_EXAMPLES or not np.isfinite(ratios).all() or ratios.min() == ratios.max():
            return None
    return _lower_end(above, below, low), -_lower_end(-above, below, -high)


def _lower_end(numerators: np.ndarray, denominators: np.ndarray, bound: float) -> float:
    ratio, longest = float(numerators.sum() / denominators.sum()), float(denominators.max())
    if ratio <= bound:
        return ratio

    def score(value: float) -> float:
        differences = numerators - value * denominators
        return score_of_sum(np.append(differences, _unseen(differences, (bound - value) * longest)))

    # A first guess of the distance, which is doubled as often as needed.
    residuals = np.abs(numerators - ratio * denominators).sum()
    step = 2 * float(residuals / denominators.sum()) / math.sqrt(len(numerators)) or (ratio - bound) / 100
    inside, outside = ratio, max(bound, ratio - step)
    while outside > bound and score(outside) > -NORMAL_QUANTILE:
        step *= 2
        inside, outside = outside, max(bound, ratio - step)
    return min(ratio, find_end(score, inside, outside, -NORMAL_QUANTILE))


def _unseen(differences: np.ndarray, bound: float) -> float:
    """The further example of a lower end: at the bound, or as low as the lowest examples suggest."""
    number = len(differences)
    if number < MIN_UNBOUNDED_EXAMPLES:
        return bound
    num_outermost = round(math.sqrt(number))
    outermost = np.partition(differences, num_outermost - 1)[:num_outermost]
    lowest, spread = float(outermost.min()), float(outermost.max() - outermost.min())
    if spread == 0 and math.isfinite(bound):
        return bound
    return max(bound, lowest - _TAIL_FACTOR * spread)
