# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from hf_deepclean import accuracy_gaps, average_gap, per_class_accuracy, tug_of_war
from hf_deepclean.evaluation.figures.gaps import ACCURACIES, FIGURES


def figures(*values):
    return dict(zip(FIGURES, values, strict=False))


def test_accuracy_on_every_class_is_the_diagonal_of_the_confusion_matrix():
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 5, 200), generator.integers(0, 5, 200)
    matrix = confusion_matrix(labels, predictions, normalize="true")
    assert per_class_accuracy(predictions, labels) == pytest.approx(dict(enumerate(matrix.diagonal())))


def test_ignored_tokens_and_classes_without_examples_do_not_count():
    predictions, labels = np.array([[0, 2, 7], [2, 0, 0]]), np.array([[0, 2, -100], [0, -100, 0]])
    assert per_class_accuracy(predictions, labels) == {0: pytest.approx(2 / 3), 2: 1.0}


def test_logits_in_the_place_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 4\).*argmax"):
        per_class_accuracy(np.zeros((3, 4)), np.zeros(3))


def test_gaps_are_signed_in_points_and_the_average_gap_is_the_mean_of_their_sizes():
    model, reference = figures(0.9, 0.97, 0.93, 0.55), figures(0.94, 1.0, 0.92, 0.5)
    assert accuracy_gaps(model, reference) == pytest.approx(figures(-4, -3, 1, 5))
    assert average_gap(model, reference) == pytest.approx((4 + 3 + 1 + 5) / 4)
    assert average_gap(model, reference, ACCURACIES) == pytest.approx((4 + 3 + 1) / 3)


def test_the_reference_itself_is_the_best_there_is():
    generator = np.random.default_rng(1)
    for _ in range(50):
        model, reference = figures(*generator.random(4)), figures(*generator.random(4))
        assert average_gap(reference, reference) == 0 <= average_gap(model, reference) <= 100
        assert tug_of_war(reference, reference) == 1 >= tug_of_war(model, reference) >= 0
        assert tug_of_war(model, reference) == tug_of_war(reference, model)


def test_tug_of_war_is_a_product_that_one_total_failure_makes_zero():
    reference = figures(0.9, 1.0, 0.9)
    assert tug_of_war(figures(0.8, 0.95, 0.92), reference) == pytest.approx(0.9 * 0.95 * 0.98)
    assert tug_of_war(figures(0.9, 0.0, 0.9), reference) == 0


@pytest.mark.parametrize("wrong", [93.0, -0.1, float("nan")])
def test_percentages_and_missing_figures_are_refused(wrong):
    reference = figures(0.9, 1.0, 0.9, 0.5)
    with pytest.raises(ValueError, match="'forget accuracy' is"):
        average_gap(reference | {"forget accuracy": wrong}, reference)
    with pytest.raises(ValueError, match="'membership AUC' is nan of the model"):
        average_gap(figures(0.9, 1.0, 0.9), reference)
    with pytest.raises(ValueError, match="at least one"):
        average_gap(reference, reference, [])
