# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from hf_deepclean.selection.knowledge import check_target, knowledge, measure_of_knowledge, target_of_request
from tests.selection.answers import answers, likelihoods, token_answers


def test_knowledge_is_the_accuracy_of_a_classifier():
    assert knowledge(answers(0.25)) == 0.25
    assert knowledge(answers(0.0)) == 0.0


def of_two_classes(num_rare, size, rare_right, others_right):
    """Answers on two classes, of which the second has this number of examples."""
    labels = np.where(np.arange(size) < num_rare, 1, 0)
    share = np.where(labels == 1, rare_right, others_right)
    position = np.where(labels == 1, np.arange(size) / num_rare, (np.arange(size) - num_rare) / (size - num_rare))
    given = np.where(position < share, labels, 1 - labels)
    log_probabilities = np.log(np.where(np.eye(2)[given], 0.9, 0.1))
    return replace(answers(1.0, size), labels=labels, log_probabilities=log_probabilities)


def test_a_rare_class_that_is_lost_weighs_as_much_as_the_others():
    for num_rare, size in ((3, 64), (100, 1000), (5, 500)):
        measure, chance = measure_of_knowledge(of_two_classes(num_rare, size, 1.0, 1.0))
        assert (measure, chance) == ("balanced accuracy", 0.5)
        assert knowledge(of_two_classes(num_rare, size, 1.0, 1.0), measure) == 1.0
        lost = of_two_classes(num_rare, size, 0.0, 1.0)
        assert knowledge(lost, measure) == 0.5 < 0.89 < knowledge(lost)
        # A collapsed model knows nothing beyond chance.
        assert knowledge(of_two_classes(num_rare, size, 1.0, 0.0), measure) == chance


@pytest.mark.parametrize("num_classes", [2, 3, 10, 50])
def test_samples_of_equally_frequent_classes_are_measured_by_their_examples(num_classes):
    generator = np.random.default_rng(0)
    for size in (16, 64, 500):
        samples = [replace(answers(1.0, size), labels=generator.integers(0, num_classes, size)) for _ in range(100)]
        plain = [found for found in samples if measure_of_knowledge(found)[0] == "accuracy"]
        # One in a thousand differs by chance.
        assert len(plain) >= 98
        for found in plain:
            assert measure_of_knowledge(found)[1] == np.bincount(found.labels).max() / size
            assert knowledge(found, "accuracy") == knowledge(found)


def test_knowledge_of_a_token_level_head_is_its_accuracy_over_all_scored_tokens():
    assert knowledge(token_answers([1, 0, 0, 1, 1], [1, 4])) == 0.6
    assert knowledge(token_answers([1, 0, 0, 1, 1], [5, 0])) == 0.6


def test_knowledge_by_another_likelihood_falls_with_the_loss_and_is_never_none():
    assert knowledge(likelihoods([np.exp(-1), np.exp(-3)])) == pytest.approx(1 / 3)
    assert knowledge(likelihoods([8.0, 2.0])) == 1.0
    assert 0 < knowledge(likelihoods([1e-300, 1e-300])) < knowledge(likelihoods([1e-30, 1e-20])) < 0.02


def test_whole_classes_are_to_be_gone_and_all_else_is_to_look_unseen():
    assert target_of_request({"3": None}.keys(), {"1", "2"}) == "chance"
    assert target_of_request(["3", "4"], ["1", "2"]) == "chance"
    assert target_of_request(["3", "4"], ["1", "3"]) == "unseen"
    assert target_of_request([], []) == target_of_request([], ["1"]) == "unseen"


def test_an_unknown_target_is_refused_by_the_known_ones():
    for target in (None, "unseen", "chance"):
        check_target(target)
    with pytest.raises(ValueError, match=r"`target` is 'random' but must be 'unseen' \(.*'chance' \(.*left out"):
        check_target("random")
