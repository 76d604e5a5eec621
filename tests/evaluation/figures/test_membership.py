# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from hf_deepclean import lira_scores, logit_scaled_confidence, membership_attack, rmia_scores
from hf_deepclean.evaluation.figures.intervals import proportion_interval


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


def test_the_interval_of_the_true_positive_rate_includes_that_of_the_threshold():
    forget, unseen = scores(num_unseen=2000, shift=2.5)
    attack = membership_attack(forget, unseen)
    low, high = attack.tpr_interval
    given = proportion_interval(attack.tpr_at_1_percent_fpr, len(forget))
    assert 0 < low < given[0] < attack.tpr_at_1_percent_fpr < given[1] < high < 1
    # If the threshold does not matter, only the share is uncertain.
    apart = membership_attack(np.where(np.arange(80) < 30, 9.0, -9.0), unseen)
    assert apart.tpr_interval == pytest.approx(proportion_interval(30 / 80, 80), abs=1e-6)


def test_fewer_than_100_unseen_examples_give_no_interval_of_the_true_positive_rate():
    forget, unseen = scores(num_unseen=100, shift=9)
    assert membership_attack(forget, unseen[:99]).tpr_interval is None
    # The threshold may lie above all of them.
    low, high = membership_attack(forget, unseen).tpr_interval
    assert (low, high) == (0, 1)


@pytest.mark.parametrize("num_unseen", [1, 50, 1000])
@pytest.mark.parametrize("num_forget", [1, 2, 5, 10, 50])
def test_the_interval_of_the_area_collapses_nowhere_and_contains_the_area(num_forget, num_unseen):
    generator = np.random.default_rng(num_forget)
    unseen = generator.normal(size=num_unseen)
    for forget in (unseen.max() + 1, unseen.min() - 1, np.median(unseen), 0.0, generator.normal(size=num_forget)):
        values = np.broadcast_to(forget, num_forget)
        attack = membership_attack(values, unseen)
        low, high = attack.auc_interval
        assert 0 <= low <= attack.auc <= high <= 1
        # Not narrower than that of a share of as many rows as there are forget rows, if all are on one side.
        if attack.auc in (0, 1):
            assert high - low > 0.9 * np.subtract(*proportion_interval(attack.auc, num_forget)[::-1])
        # Exchanging the two mirrors it.
        assert membership_attack(unseen, values).auc_interval == pytest.approx((1 - high, 1 - low), abs=1e-9)
        if attack.tpr_interval is not None:
            assert attack.tpr_interval[0] <= attack.tpr_at_1_percent_fpr <= attack.tpr_interval[1]


def test_few_forget_examples_that_all_stand_out_tell_the_two_apart_from_six_on():
    unseen = np.arange(200.0)
    lows = {number: membership_attack(np.full(number, 999.0), unseen).auc_interval[0] for number in (5, 6, 10)}
    assert lows[5] < 0.5 < lows[6] < 0.66 < lows[10]


def test_of_many_examples_the_interval_of_the_area_is_delongs():
    forget, unseen = scores(4000, 6000)
    attack = membership_attack(forget, unseen)
    above, below = (unseen[:, None] < forget[::2]).mean(0), (unseen[::3, None] < forget).mean(1)
    half = 1.96 * np.sqrt(above.var() / 4000 + below.var() / 6000)
    assert attack.auc_interval == pytest.approx((attack.auc - half, attack.auc + half), abs=0.1 * half)


def test_direction_more_confident_forget_data_score_above_one_half():
    assert membership_attack([3.0, 4.0], [1.0, 2.0]).auc == 1
    assert membership_attack([1.0, 2.0], [3.0, 4.0]).auc == 0
    same = membership_attack([1.0, 2.0], [1.0, 2.0])
    assert same.auc == 0.5
    assert same.tpr_at_1_percent_fpr == 0


def test_interval_covers_one_half_in_95_percent_of_draws_and_not_many_more_without_signal():
    generator = np.random.default_rng(1)
    intervals = [
        membership_attack(generator.normal(size=60), generator.normal(size=90)).auc_interval for _ in range(1000)
    ]
    assert 0.95 < np.mean([low <= 0.5 <= high for low, high in intervals]) < 0.99


@pytest.mark.parametrize(("forget", "unseen"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_missing_scores_are_refused(forget, unseen):
    with pytest.raises(ValueError, match="at least one example on each side"):
        membership_attack(np.array(forget), np.array(unseen))


def test_the_logit_scaled_confidence_is_finite_and_rises_with_the_confidence():
    for kind in (np.float32, np.float64):
        values = logit_scaled_confidence(np.array([-300, -5, -1e-3, -1e-6, 0], dtype=kind))
        assert np.isfinite(values).all()
        assert (np.diff(values) > 0).all()
    assert logit_scaled_confidence([np.log(0.2)]) == pytest.approx([np.log(0.25)])
    assert logit_scaled_confidence([-300]) == pytest.approx([-300])


@pytest.mark.parametrize("wrong", [0.9, np.nan])
def test_what_is_no_log_likelihood_has_no_logit_scaled_confidence(wrong):
    with pytest.raises(ValueError, match="1 of 2"):
        logit_scaled_confidence([wrong, -1.0])


def shadow_models(num_examples=40, num_models=24, gap=2.0, seed=3):
    """Confidences of shadow models and of attacked ones, higher by a gap where a model was trained on the example."""
    generator = np.random.default_rng(seed)
    trained = np.stack([generator.permutation(num_models) < num_models // 2 for _ in range(num_examples)])
    difficulty = generator.normal(0, 3, (num_examples, 1))
    shadows = difficulty + gap * trained + generator.normal(size=trained.shape)
    attacked = generator.random(num_examples) < 0.5
    confidence = difficulty[:, 0] + gap * attacked + generator.normal(size=num_examples)
    return confidence, shadows, trained, attacked


def test_online_lira_is_the_log_ratio_of_two_normal_densities():
    confidence, shadows, trained, _ = shadow_models()
    expected = []
    for one, others, mask in zip(confidence, shadows, trained, strict=True):
        known, unknown = (norm(side.mean(), side.std(ddof=1)) for side in (others[mask], others[~mask]))
        expected.append(known.logpdf(one) - unknown.logpdf(one))
    assert lira_scores(confidence, shadows, trained) == pytest.approx(np.array(expected))


def test_offline_lira_orders_examples_as_the_normal_distribution_function_does_without_its_ties():
    confidence, shadows, _, _ = shadow_models()
    scores = lira_scores(confidence, shadows)
    mean, deviation = shadows.mean(axis=1), shadows.std(axis=1, ddof=1)
    assert norm.cdf(scores) == pytest.approx(1 - norm(mean, deviation).sf(confidence))
    extreme = lira_scores(np.array([50.0, 60.0]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert extreme[0] < extreme[1]


def test_the_pooled_variance_is_that_within_examples():
    confidence, shadows, trained, _ = shadow_models(400)
    scores = lira_scores(confidence, shadows, trained, pooled_variance=True)
    within = [
        np.sqrt(np.mean([side[rows].var(ddof=1) for side, rows in zip(shadows, mask, strict=True)]))
        for mask in (trained, ~trained)
    ]
    means = [np.array([side[rows].mean() for side, rows in zip(shadows, m, strict=True)]) for m in (trained, ~trained)]
    expected = norm(means[0], within[0]).logpdf(confidence) - norm(means[1], within[1]).logpdf(confidence)
    assert scores == pytest.approx(expected)
    assert within == pytest.approx([1, 1], abs=0.1)


@pytest.mark.parametrize("pooled", [False, True])
def test_attacks_by_example_find_members_that_one_threshold_for_all_does_not(pooled):
    confidence, shadows, trained, attacked = shadow_models(1000)

    def auc(scores):
        return membership_attack(scores[attacked], scores[~attacked]).auc

    out_only = np.take_along_axis(shadows, np.argsort(trained, axis=1)[:, :12], axis=1)
    assert auc(confidence) < 0.72
    assert auc(lira_scores(confidence, shadows, trained, pooled)) > 0.85
    assert auc(lira_scores(confidence, out_only, pooled_variance=pooled)) > 0.85


def test_a_model_that_never_saw_the_examples_gives_chance():
    confidence, shadows, trained, attacked = shadow_models(2000, gap=0.0)
    scores = lira_scores(confidence, shadows, trained)
    low, high = membership_attack(scores[attacked], scores[~attacked]).auc_interval
    assert low < 0.5 < high


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shadow_confidence": np.zeros((40, 5))}, "40 examples are the same.*not 0 and 1"),
        ({"shadow_confidence": np.full((40, 3), 16.635532)}, "40 examples are the same"),
        ({"shadow_confidence": np.zeros((40, 1))}, "0 have none and 40 have one"),
        ({"shadow_confidence": np.zeros((39, 4))}, "shape"),
        ({"confidence": np.full(40, np.inf)}, "infinite or NaN"),
        ({"trained_on": np.ones((40, 24), dtype=bool)}, "trained without .*40 have none"),
        ({"trained_on": np.ones((40, 24))}, "one boolean"),
    ],
)
def test_what_no_gaussian_can_be_fitted_to_is_refused(changes, message):
    confidence, shadows, _, _ = shadow_models()
    arguments = {"confidence": confidence, "shadow_confidence": shadows} | changes
    with pytest.raises(ValueError, match=message):
        lira_scores(**arguments)


def likelihoods(num_examples=60, num_population=50, num_models=3):
    generator = np.random.default_rng(4)
    return [np.log(generator.random(s)) for s in (num_examples, (num_examples, num_models))] + [
        np.log(generator.random(s)) for s in (num_population, (num_population, num_models))
    ]


@pytest.mark.parametrize(("gamma", "a"), [(1.0, 0.3), (2.0, 1.0), (0.5, 0.0)])
def test_rmia_equals_the_share_of_likelihood_ratios_above_gamma_pair_by_pair(gamma, a):
    own, references, population, of_population = (np.exp(side) for side in likelihoods())
    ratio = own / ((1 + a) / 2 * references.mean(axis=1) + (1 - a) / 2)
    ratio_of_population = population / ((1 + a) / 2 * of_population.mean(axis=1) + (1 - a) / 2)
    expected = (ratio[:, None] / ratio_of_population > gamma).mean(axis=1)
    assert rmia_scores(*likelihoods(), gamma, a) == pytest.approx(expected)


def test_rmia_rises_with_the_likelihood_and_falls_with_that_of_the_references():
    own, references, population, of_population = likelihoods()
    scores = rmia_scores(own, references, population, of_population)
    assert (rmia_scores(own + 0.5, references, population, of_population) >= scores).all()
    assert (rmia_scores(own, references + 0.5, population, of_population) <= scores).all()
    assert (rmia_scores(own, references, population, of_population, gamma=3.0) <= scores).all()


def test_rmia_finds_members_through_the_difficulty_of_the_examples():
    generator = np.random.default_rng(5)

    def draw(count, shift):
        difficulty = generator.normal(0, 2, (count, 1))
        drawn = [difficulty + generator.normal(0, 0.5, (count, models)) for models in (1, 2)]
        own, references = (-np.logaddexp(0, -side) for side in (drawn[0][:, 0] + shift, drawn[1]))
        return own, references

    population = draw(500, 0.0)
    members, others = draw(500, 1.0), draw(500, 0.0)
    plain = membership_attack(members[0], others[0]).auc
    attack = membership_attack(*(rmia_scores(*side, *population, offline_a=1.0) for side in (members, others)))
    assert attack.auc > plain + 0.1


def test_long_texts_do_not_underflow():
    own, references, population, of_population = (1e4 * side - 1e4 for side in likelihoods())
    scores = rmia_scores(own, references, population, of_population, offline_a=1.0)
    assert len(np.unique(scores)) > 10


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, np.full(60, np.nan), "attacked examples are infinite or NaN"),
        (1, np.zeros(60), "attacked examples of shape"),
        (2, np.zeros(0), "population of shape"),
        (3, np.zeros((50, 0)), "at least one reference model"),
    ],
)
def test_likelihoods_that_rmia_cannot_compare_are_refused(place, value, message):
    arguments = likelihoods()
    arguments[place] = value
    with pytest.raises(ValueError, match=message):
        rmia_scores(*arguments)


@pytest.mark.parametrize("options", [{"gamma": 0.0}, {"offline_a": 1.1}, {"offline_a": -0.1}])
def test_options_of_rmia_outside_their_range_are_refused(options):
    with pytest.raises(ValueError, match="between 0"):
        rmia_scores(*likelihoods(), **options)
