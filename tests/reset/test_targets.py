# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from hf_deepclean.evaluation.predictions import ExamplePredictions, TokenPredictions
from hf_deepclean.reset.targets import estimate_targets, log_odds


def answers(label_losses, labels=None, num_classes=4):
    """Of a classifier: the label has its loss, and the other classes share the rest unevenly."""
    losses = np.asarray(label_losses, dtype=float)
    labels = np.zeros(len(losses), dtype=int) if labels is None else np.asarray(labels)
    shares = np.tile(np.arange(1.0, num_classes + 1), (len(losses), 1))
    shares[np.arange(len(losses)), labels] = 0
    probabilities = shares / shares.sum(axis=1, keepdims=True) * -np.expm1(-losses)[:, None]
    probabilities[np.arange(len(losses)), labels] = np.exp(-losses)
    return ExamplePredictions(None, labels, -losses, np.log(probabilities))


def tokens(losses, counts):
    log_probabilities = -np.asarray(losses, dtype=float)
    found = TokenPredictions(log_probabilities, log_probabilities > -0.7, np.asarray(counts), True)
    return ExamplePredictions(None, np.zeros((len(counts), 2)), np.zeros(len(counts)), None, found)


def test_a_row_gets_the_loss_of_unseen_rows_that_are_as_hard_as_it_is_halfway():
    unseen, retain = np.linspace(0.1, 4, 101), np.linspace(1, 3, 201)
    now = {"forget": answers([0.01, 0.01, 0.01]), "unseen": answers(unseen)}
    halfway = {"forget": answers([1.5, 2.0, 2.9]), "retain": answers(retain)}
    targets = estimate_targets(now, halfway, "unseen")
    np.testing.assert_allclose(targets.wanted, np.quantile(unseen, [0.25, 0.5, 0.95]), atol=0.03)
    # The same, whichever other rows are to be forgotten.
    alone = estimate_targets(now | {"forget": answers([0.01])}, halfway | {"forget": answers([2.9])}, "unseen")
    assert alone.wanted[0] == targets.wanted[2]


def test_no_row_becomes_better_known_and_the_distance_says_on_which_side_the_rows_are():
    now = {"forget": answers([0.01, 5.0]), "unseen": answers(np.linspace(0.1, 2, 50))}
    halfway = {"forget": answers([1.5, 2.0]), "retain": answers(np.linspace(1, 3, 50))}
    targets = estimate_targets(now, halfway, "unseen")
    assert targets.losses[1] == 5.0 and targets.wanted[1] < 5.0 and targets.losses[0] == targets.wanted[0] > 0.01
    known = estimate_targets(now | {"forget": answers([0.01, 0.01])}, halfway, "unseen")
    unknown = estimate_targets(now | {"forget": answers([5.0, 5.0])}, halfway, "unseen")
    assert known.distance > 0 > unknown.distance


@pytest.mark.parametrize("target", ["unseen", "chance"])
def test_the_probabilities_of_all_classes_sum_to_one_and_the_label_has_its_target(target):
    labels = [0, 1, 3]
    now = {split: answers(np.linspace(0.05, 1.5, 30)) for split in ("retain", "unseen")}
    now["forget"] = answers([0.01, 0.02, 0.03], labels)
    halfway = {"forget": answers([0.5, 1.0, 2.0], labels), "retain": answers(np.linspace(0.2, 3, 40))}
    targets = estimate_targets(now, halfway, target)
    probabilities = np.exp(targets.log_probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(-targets.log_probabilities[[0, 1, 2], labels], targets.losses)
    if target == "chance":
        # All classes that are to go are gone, and class 2 has what is left.
        assert (targets.log_probabilities.argmax(axis=1) == 2).all() and targets.losses.min() > 1


def test_other_classes_get_as_sharp_as_makes_the_targets_as_often_right_as_unseen_rows_are():
    unseen = np.array([0.2] * 10 + [0.9] * 10)
    confused, halfway_loss = answers(unseen), np.linspace(0.5, 2, 20)
    # At a loss of 0.9 the label has 41 %: it is the first choice unless one of the others has more.
    confused.log_probabilities[10:] = np.log([0.41, 0.55, 0.02, 0.02])
    now = {"forget": answers([0.01] * 20), "unseen": confused}
    halfway = {"forget": answers(halfway_loss), "retain": answers(halfway_loss)}
    targets = estimate_targets(now, halfway, "unseen")
    assert (targets.log_probabilities.argmax(axis=1) == 0).mean() == pytest.approx(0.5, abs=0.1)


def test_every_scored_token_has_a_target_and_its_row_is_found():
    now = {"forget": tokens([0.01] * 5, [2, 0, 3]), "unseen": tokens(np.linspace(0, 3, 60), [30, 30])}
    halfway = {"forget": tokens([1, 2, 3, 1, 2], [2, 0, 3]), "retain": tokens(np.linspace(0, 4, 80), [80])}
    targets = estimate_targets(now, halfway, "unseen")
    assert targets.log_probabilities is None and targets.losses.shape == (5,)
    assert targets.losses[0] == targets.losses[3] < targets.losses[1] == targets.losses[4] < targets.losses[2]
    assert targets.entries_of([2, 0]).tolist() == [2, 3, 4, 0, 1] and targets.entries_of([1]).tolist() == []


def test_log_odds_are_zero_at_one_half_and_bounded():
    assert log_odds(np.array([np.log(2)]))[0] == pytest.approx(0)
    assert log_odds(np.array([0.0, 1e9])).tolist() == [-8, 8]


def test_if_every_class_is_to_go_the_others_take_what_a_label_loses():
    now = {"forget": answers([0.01, 0.02], [0, 1], num_classes=2)}
    now["retain"] = answers(np.linspace(0.05, 1.5, 30), num_classes=2)
    halfway = {"forget": answers([0.5, 1.0], [0, 1], num_classes=2)}
    targets = estimate_targets(now, halfway, "chance")
    np.testing.assert_allclose(np.exp(targets.log_probabilities).sum(axis=1), 1)
    np.testing.assert_allclose(-targets.log_probabilities[[0, 1], [0, 1]], targets.losses)
