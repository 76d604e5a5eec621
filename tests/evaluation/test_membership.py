# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from hf_deepclean import membership_attack
from hf_deepclean.evaluation.intervals import wilson_interval


def scores(num_forget=80, num_unseen=150, shift=0.7):
    generator = np.random.default_rng(0)
    return generator.normal(shift, 1, num_forget).round(1), generator.normal(0, 1, num_unseen).round(1)


def test_auc_equals_scikit_learn_with_ties():
    forget, unseen = scores()
    labels = np.r_[np.ones(len(forget)), np.zeros(len(unseen))]
    assert membership_attack(forget, unseen).auc == pytest.approx(roc_auc_score(labels, np.r_[forget, unseen]))


def test_true_positive_rate_is_the_largest_with_at_most_one_percent_false_positives():
    forget, unseen = scores()
    labels = np.r_[np.ones(len(forget)), np.zeros(len(unseen))]
    false_rate, true_rate, _ = roc_curve(labels, np.r_[forget, unseen], drop_intermediate=False)
    expected = true_rate[false_rate <= 0.01].max()
    assert membership_attack(forget, unseen).tpr_at_1_percent_fpr == pytest.approx(expected)


def test_the_interval_of_the_true_positive_rate_is_that_of_a_share_of_the_forget_examples():
    attack = membership_attack(*scores(shift=2.5))
    assert attack.tpr_at_1_percent_fpr > 0
    assert attack.tpr_interval == wilson_interval(round(attack.tpr_at_1_percent_fpr * 80), 80)


def test_direction_more_confident_forget_data_score_above_one_half():
    assert membership_attack([3.0, 4.0], [1.0, 2.0]).auc == 1
    assert membership_attack([1.0, 2.0], [3.0, 4.0]).auc == 0
    same = membership_attack([1.0, 2.0], [1.0, 2.0])
    assert same.auc == 0.5
    assert same.tpr_at_1_percent_fpr == 0


def test_interval_covers_one_half_in_about_95_percent_of_draws_without_signal():
    generator = np.random.default_rng(1)
    intervals = [
        membership_attack(generator.normal(size=60), generator.normal(size=90)).auc_interval for _ in range(2000)
    ]
    assert 0.93 < np.mean([low <= 0.5 <= high for low, high in intervals]) < 0.97


@pytest.mark.parametrize(("forget", "unseen"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_missing_scores_are_refused(forget, unseen):
    with pytest.raises(ValueError, match="at least one example on each side"):
        membership_attack(np.array(forget), np.array(unseen))
