# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.special import log_softmax, logit, softmax

from hf_deepclean import klom, klom_percentile, logit_scaled_confidence, margins


def ensembles(num_examples=6, num_unlearned=40, num_oracles=30, shift=1.0):
    generator = np.random.default_rng(0)
    return (
        generator.normal(shift, 1, (num_examples, num_unlearned)),
        generator.normal(0, 2, (num_examples, num_oracles)),
    )


def test_the_margin_is_the_logit_scaled_confidence_of_logits_and_of_log_probabilities():
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(0, 3, (20, 7)), generator.integers(0, 7, 20)
    expected = logit(softmax(logits, axis=1)[range(20), labels])
    assert margins(logits, labels) == pytest.approx(expected)
    log_probabilities = log_softmax(logits, axis=1)
    assert margins(log_probabilities, labels) == pytest.approx(expected)
    assert logit_scaled_confidence(log_probabilities[range(20), labels]) == pytest.approx(expected)


def test_the_margin_tells_apart_confidences_that_are_exactly_1_when_rounded():
    logits = np.array([[60.0, 0.0], [80.0, 0.0]])
    assert margins(logits, np.array([0, 0])).tolist() == [60, 80]
    assert logits.tolist() == [[60, 0], [80, 0]]


@pytest.mark.parametrize("labels", [[0, 2], [0, -100], [0]])
def test_labels_that_are_no_class_of_an_example_are_refused(labels):
    with pytest.raises(ValueError, match=r"Labels run|label for"):
        margins(np.zeros((2, 2)), np.array(labels))


def test_equals_the_formula_on_the_histograms_of_numpy():
    unlearned, oracle = ensembles()
    for ours, first, second in zip(klom(unlearned, oracle), unlearned, oracle, strict=True):
        ends = min(first.min(), second.min()), max(first.max(), second.max())
        p, q = (np.histogram(side, bins=20, range=ends)[0] / len(side) for side in (first, second))
        assert [p.sum(), q.sum()] == pytest.approx([1, 1])
        assert ours == pytest.approx(sum(a * np.log(a / max(b, 1e-5)) for a, b in zip(p, q, strict=True) if a))


def test_the_largest_margin_counts():
    # Without the largest margin the first ensemble would have the distribution of the second.
    assert klom(np.array([[0.0, 1.0, 0.0, 50.0]]), np.array([[0.0, 1.0]]))[0] > 1


def test_both_ends_and_the_invariance_to_order_shift_and_scale():
    unlearned, oracle = ensembles()
    assert klom(unlearned, unlearned).tolist() == [0] * 6
    assert klom(np.full((1, 5), -3.0), np.full((1, 4), 3.0)) == pytest.approx(np.log(1e5))
    assert klom(np.full((1, 5), 3.0), np.full((1, 4), 3.0)).tolist() == [0]
    value = klom(unlearned, oracle)
    assert (value > 0).all()
    assert (value <= np.log(1e5)).all()
    assert klom(unlearned[:, ::-1], oracle) == pytest.approx(value)
    assert klom(4 * unlearned + 8, 4 * oracle + 8) == pytest.approx(value)


def test_margins_beyond_the_clip_are_one_margin():
    unlearned, oracle = np.array([[150.0, 0.0]]), np.array([[900.0, 0.0]])
    assert klom(unlearned, oracle).tolist() == [0]
    assert klom(np.array([[np.inf, 0.0]]), oracle).tolist() == [0]
    assert klom(unlearned, oracle, max_margin=1000.0)[0] > 1


@pytest.mark.parametrize(("num_models", "expected"), [(10, 5.6), (20, 3.0), (100, 0.35), (1000, 0.02)])
def test_two_ensembles_of_one_kind_are_as_far_apart_as_the_docstring_says(num_models, expected):
    draws = np.random.default_rng(2).normal(size=(2, 500, num_models))
    assert klom(*draws).mean() == pytest.approx(expected, rel=0.1, abs=0.005)


def test_a_few_bad_examples_show_in_the_percentile():
    values = np.r_[np.zeros(90), np.full(10, 5.0)]
    assert klom_percentile(values) == 5
    assert klom_percentile(values, 50) == 0


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 3)), "same examples"),
        (np.zeros((2, 0)), np.zeros((2, 3)), "same examples"),
        (np.zeros(2), np.zeros(2), "same examples"),
        (np.array([[np.nan]]), np.zeros((1, 3)), "diverged"),
    ],
)
def test_other_shapes_and_diverged_models_are_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        klom(first, second)
