# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math
import time

import numpy as np
import pytest
from scipy.stats import beta

from hf_deepclean.evaluation.figures.intervals import (
    MIN_UNBOUNDED_EXAMPLES,
    mean_interval,
    proportion_interval,
    ratio_interval,
    share_interval,
)


LOSSES = (0.0, math.inf)


@pytest.mark.parametrize("num_trials", [1, 2, 7, 50, 1000, 1_000_000])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(num_trials):
    for num_successes in {0, 1, num_trials // 3, num_trials}:
        low, high = proportion_interval(num_successes / num_trials, num_trials)
        first, last = num_successes, num_trials - num_successes
        assert low == pytest.approx(beta.ppf(0.025, first, last + 1) if first else 0.0, rel=0.06)
        assert 1 - high == pytest.approx(beta.ppf(0.025, last, first + 1) if last else 0.0, rel=0.06)


def test_the_interval_of_a_share_covers_whatever_the_share_is():
    for num_trials in (5, 30, 200):
        counts = np.arange(num_trials + 1)
        ends = np.array([proportion_interval(count / num_trials, num_trials) for count in counts])
        logs = [math.lgamma(num_trials + 1) - math.lgamma(k + 1) - math.lgamma(num_trials - k + 1) for k in counts]
        for share in np.linspace(0.001, 0.999, 333):
            chances = np.exp(logs + counts * np.log(share) + (num_trials - counts) * np.log1p(-share))
            assert chances[(ends[:, 0] <= share) & (share <= ends[:, 1])].sum() > 0.949


def test_encloses_every_share():
    for num_trials in range(1, 60):
        for num_successes in range(num_trials + 1):
            low, high = proportion_interval(num_successes / num_trials, num_trials)
            assert 0 <= low <= num_successes / num_trials <= high <= 1 and low < high


def test_a_rounded_share_has_an_interval_that_contains_that_of_every_share_it_may_have_been():
    low, high = proportion_interval(0.33, 50, rounded_by=0.005)
    for share in (0.325, 0.33, 0.335):
        ends = proportion_interval(share, 50)
        assert low <= ends[0] + 1e-9 and ends[1] <= high + 1e-9
    assert proportion_interval(0.0, 50, rounded_by=0.005)[0] == 0
    assert proportion_interval(1.0, 50, rounded_by=0.005)[1] == 1
    # Fewer rows than there were give a wider interval.
    fewer, more = proportion_interval(0.33, 50), proportion_interval(0.33, 80)
    assert fewer[0] < more[0] and more[1] < fewer[1]


def test_means_of_zeros_and_ones_have_the_interval_of_a_share():
    for num_right, num_rows in ((0, 20), (3, 7), (1, 2), (150, 150)):
        values = np.arange(num_rows) < num_right
        expected = proportion_interval(num_right / num_rows, num_rows)
        assert mean_interval(values, (0, 1)) == pytest.approx(expected, abs=1e-7)
        assert share_interval(values, np.ones(num_rows)) == pytest.approx(expected, abs=1e-7)


def test_an_interval_does_not_depend_on_the_unit_of_its_values():
    values = np.random.default_rng(0).lognormal(0, 1, 300)
    expected = np.array(mean_interval(values, LOSSES))
    for factor in (1e-300, 1e-9, 1e9, 1e290):
        assert np.array(mean_interval(factor * values, LOSSES)) / factor == pytest.approx(expected, rel=1e-6)
    low, high = mean_interval(values - 7)
    assert high == pytest.approx(mean_interval(values)[1] - 7)
    assert (-high, -low) == pytest.approx(mean_interval(7 - values))


@pytest.mark.parametrize("number", [2, 3, 5, 50, 199, 200, 1000])
@pytest.mark.parametrize("kind", ["equal", "lognormal", "Pareto", "one holds all", "ties", "nearly equal"])
def test_an_interval_contains_the_mean_and_stays_within_the_bounds(number, kind):
    generator = np.random.default_rng(number)
    values = {
        "equal": np.full(number, 0.3),
        "lognormal": generator.lognormal(0, 2, number),
        "Pareto": generator.pareto(0.8, number),
        "one holds all": np.eye(1, number)[0],
        "ties": generator.integers(0, 2, number) * 0.5,
        "nearly equal": 0.3 + 1e-15 * generator.random(number),
    }[kind]
    for bounds in ((0.0, max(1.0, values.max())), LOSSES, (-math.inf, math.inf), (0.0, values.max())):
        found = mean_interval(values, bounds)
        if found is None:
            assert number < MIN_UNBOUNDED_EXAMPLES or kind == "equal"
            continue
        assert bounds[0] <= found[0] <= values.mean() <= found[1] <= bounds[1] + 1e-12
        assert found == mean_interval(values, bounds)


def test_equal_values_have_an_interval_that_reaches_towards_the_bounds():
    low, high = mean_interval(np.full(5, 0.3), (0, 1))
    assert low < 0.2 and high > 0.6
    assert mean_interval(np.zeros(10), (0, 1)) == pytest.approx((0, 0.31), abs=0.002)
    assert mean_interval(np.full(300, 2.0), LOSSES) is None


def test_too_few_values_without_a_bound_have_no_interval_however_they_look():
    for number in (1, 50, MIN_UNBOUNDED_EXAMPLES - 1):
        assert mean_interval(np.linspace(0, 1, number), LOSSES) is None
    assert mean_interval(np.linspace(0, 1, MIN_UNBOUNDED_EXAMPLES), LOSSES) is not None
    assert mean_interval(np.full(300, np.inf), LOSSES) is None
    one = np.array([3])
    assert mean_interval(one, (0, 5)) is ratio_interval(one, one) is share_interval(one, one) is None
    assert mean_interval(np.array([])) is None


def test_of_many_values_the_interval_is_nearly_the_normal_one():
    values = np.random.default_rng(0).normal(3, 1, 10_000)
    half = 1.96 / 100
    assert mean_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_the_tokens_of_one_text_do_not_count_as_independent():
    generator = np.random.default_rng(0)
    counts = generator.integers(5, 40, 300)
    # Texts are right as a whole or not at all.
    right = counts * (generator.random(300) < 0.8)
    low, high = share_interval(right, counts)
    wrongly_low, wrongly_high = proportion_interval(right.sum() / counts.sum(), counts.sum())
    assert high - low > 3 * (wrongly_high - wrongly_low)


def test_an_interval_of_ten_thousand_rows_takes_less_than_50_milliseconds():
    generator = np.random.default_rng(0)
    values, counts = generator.lognormal(0, 1, 10_000), generator.integers(1, 50, 10_000)
    for _ in range(3):
        start = time.process_time()
        ratio_interval(values, counts, LOSSES)
        seconds = time.process_time() - start
        if seconds < 0.05:
            return
    pytest.fail(f"{seconds} seconds")
