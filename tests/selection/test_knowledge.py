# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from hf_deepclean.selection.knowledge import check_target, knowledge, target_of_request
from tests.selection.answers import answers, likelihoods, token_answers


def test_knowledge_is_the_accuracy_of_a_classifier():
    assert knowledge(answers(0.25)) == 0.25
    assert knowledge(answers(0.0)) == 0.0


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
