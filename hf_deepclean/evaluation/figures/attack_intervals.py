# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Computes 95 % intervals of the figures of an attack: the area under its curve, and its share of hits."""

import math
from statistics import NormalDist

import numpy as np

from .intervals import NORMAL_QUANTILE
from .saddlepoint import find_end, score_of_beta, score_of_sum


# With fewer unseen examples, no threshold is known that 1 % of them exceed.
MIN_UNSEEN_FOR_TPR = 100

_FALSE_POSITIVE_RATE = 0.01
# Counts that are further from the expected one, in standard deviations, are left out.
_MAX_DEVIATION = 5
_NORMAL = NormalDist()


def share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Computes for every score the share of `others` below it, with ties counted half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, side="left") + np.searchsorted(ordered, scores, side="right")
    return below / (2 * len(others))


def auc_interval(forget: np.ndarray, unseen: np.ndarray) -> tuple[float, float]:
    """
    Computes the 95 % interval of the area under the curve, for any two distributions and any numbers of examples.

    Both sides are drawn at random, so both get random weights and one further example, as for the mean of bounded
    values in [`intervals`]: for the lower end a forget example below all unseen ones, and an unseen example above all
    forget ones. The weighted area is taken to first order in the weights, as in DeLong's variance. So the interval
    neither collapses at areas of 0 and 1 nor needs many examples. With five forget examples or fewer it always
    contains 0.5: two kinds of example, of which the attack knows one, may look like that.

    Args:
        forget (`np.ndarray`):
            Scores of the forget examples, shape `(num_forget,)`.
        unseen (`np.ndarray`):
            Scores of the unseen examples, shape `(num_unseen,)`.

    Returns:
        `tuple[float, float]`: Lower and upper end.
    """
    return _lower_area(forget, unseen), 1 - _lower_area(unseen, forget)


def _lower_area(above: np.ndarray, below: np.ndarray) -> float:
    """The lower end of the chance that one of `above` scores higher than one of `below`."""
    num_above, num_below = len(above) + 1, len(below) + 1
    # The share of the other side that every example beats or is beaten by; the further examples come last.
    beats = np.append(share_below(above, below) * len(below) / num_below, 0.0)
    beaten = np.append((1 - share_below(below, above)) * len(above) / num_above, 0.0)
    area = float(beats.mean())

    def score(value: float) -> float:
        parts = np.concatenate([(beats - value) / num_above, (beaten - value) / num_below])
        return score_of_sum(parts, area - value)

    return 0.0 if area == 0 else find_end(score, area, 0.0, -NORMAL_QUANTILE)


def tpr_interval(forget: np.ndarray, unseen: np.ndarray) -> tuple[float, float] | None:
    """
    Computes the 95 % interval of the share of forget examples above the threshold that 1 % of unseen data exceed.

    The threshold is uncertain too. The number of given unseen examples above the true one is binomial, and each number
    puts the threshold between two neighbouring scores. Each number has its exact interval of the share, by
    [`intervals.proportion_interval`], and these are mixed.

    Args:
        forget (`np.ndarray`):
            Scores of the forget examples, shape `(num_forget,)`.
        unseen (`np.ndarray`):
            Scores of the unseen examples, shape `(num_unseen,)`.

    Returns:
        `tuple[float, float]`: Lower and upper end, or `None` for fewer than 100 unseen examples. With fewer than about
            400 the lower end is 0: the threshold may lie above all of them.
    """
    number = len(unseen)
    if number < MIN_UNSEEN_FOR_TPR:
        return None
    expected = number * _FALSE_POSITIVE_RATE
    reach = _MAX_DEVIATION * math.sqrt(expected) + _MAX_DEVIATION
    counts = np.arange(max(0, math.floor(expected - reach)), min(number - 1, math.ceil(expected + reach)) + 1)
    weights = np.exp([_log_binomial(int(count), number) for count in counts])
    # No score is above infinity.
    scores = np.append(math.inf, np.sort(unseen)[::-1])
    hits = len(forget) - np.searchsorted(np.sort(forget), scores, side="right")
    low = _mixed_quantile(hits[counts], weights, len(forget))
    return low, 1 - _mixed_quantile(len(forget) - hits[counts + 1], weights, len(forget))


def _mixed_quantile(hits: np.ndarray, weights: np.ndarray, number: int) -> float:
    """The 2.5 % quantile of a mixture of the beta distributions that the lower ends of exact intervals belong to."""
    values, places = np.unique(hits, return_inverse=True)
    shares = np.bincount(places, weights) / weights.sum()

    if values[0] == 0 and shares[0] >= 0.025:
        return 0.0

    def score(value: float) -> float:
        parts = [1.0 if hit == 0 else _NORMAL.cdf(score_of_beta(value, hit, number - hit + 1)) for hit in values]
        return _NORMAL.inv_cdf(min(max(float(shares @ parts), 1e-15), 1 - 1e-15))

    return find_end(score, 1 - 1e-9, 1e-12, -NORMAL_QUANTILE)


def _log_binomial(count: int, number: int) -> float:
    ways = math.lgamma(number + 1) - math.lgamma(count + 1) - math.lgamma(number - count + 1)
    return ways + count * math.log(_FALSE_POSITIVE_RATE) + (number - count) * math.log1p(-_FALSE_POSITIVE_RATE)
