# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from hf_deepclean.evaluation.figures.intervals import mean_interval, ratio_interval, share_interval, wilson_interval


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


def coverage(draw, interval, truth, num_draws=3000):
    generator = np.random.default_rng(0)
    ends = np.array([interval(*draw(generator)) for _ in range(num_draws)])
    return np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))


def texts(generator, share=0.8, num_texts=150):
    """Numbers of right tokens and of tokens per text. Tokens of a text depend on each other, in long texts less."""
    counts = generator.integers(5, 40, num_texts)
    concentration = 1 + counts / 10
    shares = generator.beta(concentration * share, concentration * (1 - share))
    return generator.binomial(counts, shares), counts


def test_the_interval_of_a_mean_covers_it_in_about_95_percent_of_draws():
    assert 0.93 < coverage(lambda generator: [generator.exponential(2.0, 200)], mean_interval, 2.0) < 0.97


def test_intervals_over_texts_cover_ratio_and_share_of_tokens_in_about_95_percent_of_draws():
    assert 0.93 < coverage(texts, ratio_interval, 0.8) < 0.97
    assert 0.93 < coverage(texts, share_interval, 0.8) < 0.97
    # An interval that takes tokens for independent is far too narrow.
    assert coverage(texts, lambda right, counts: wilson_interval(right.sum(), counts.sum()), 0.8) < 0.8


def test_texts_of_one_token_have_the_interval_of_independent_trials():
    right = np.array([1, 0, 1, 1, 0, 1, 1, 1])
    low, high = share_interval(right, np.ones(8))
    # A variance estimated from 8 values divides by 7.
    assert (low, high) == pytest.approx(wilson_interval(0.75 * 7, 7))
    assert ratio_interval(right, np.ones(8)) == pytest.approx(mean_interval(right))


@pytest.mark.parametrize("share", [0, 1])
def test_texts_that_are_all_right_or_all_wrong_count_once_each(share):
    counts = np.array([5, 9, 12])
    assert share_interval(share * counts, counts) == wilson_interval(share * 3, 3)


def test_the_ends_of_a_mean_stay_within_its_bounds():
    values = np.array([0.0, 0.0, 0.0, 1.0])
    low, high = mean_interval(values)
    assert low < 0 < high
    assert mean_interval(values, (0.0, 0.5)) == (0.0, 0.5)


def test_fewer_than_two_examples_have_no_interval():
    one = np.array([3])
    assert mean_interval(one) is ratio_interval(one, one) is share_interval(one, one) is None
    assert mean_interval(np.array([])) is None
