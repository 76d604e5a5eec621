# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from hf_deepclean.evaluation.intervals import wilson_interval


def test_holds_at_both_ends():
    low, high = wilson_interval(0, 20)
    assert low == 0
    assert 0 < high < 0.2
    assert wilson_interval(20, 20) == pytest.approx((1 - high, 1))


def test_encloses_every_share():
    for num_trials in range(1, 200):
        for num_successes in range(num_trials + 1):
            low, high = wilson_interval(num_successes, num_trials)
            assert 0 <= low <= num_successes / num_trials <= high <= 1


def test_published_value():
    # 81 of 263: Newcombe, Two-sided confidence intervals for the single proportion (1998), table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_covers_the_share_in_about_95_percent_of_draws():
    draws = np.random.default_rng(0).binomial(60, 0.9, 4000)
    covered = [low <= 0.9 <= high for low, high in (wilson_interval(int(draw), 60) for draw in draws)]
    assert 0.93 < np.mean(covered) < 0.97
