# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from hf_deepclean.report.shortfalls import MAX_RETAIN_DROP
from hf_deepclean.selection.search import MIN_KNOWLEDGE_LEFT_OF_SMALL
from tests import tiny
from tests.unlearner.runs import auto_unlearner_for


@pytest.mark.parametrize("number", [1, 10, 50, *(pytest.param(number, marks=pytest.mark.slow) for number in (3, 25))])
def test_a_few_examples_end_like_unseen_ones_and_the_retained_data_stay(tmp_path, number):
    digits = tiny.digits()
    data = {
        "forget_dataset": digits.select(range(number)),
        "retain_dataset": digits.select(range(number, tiny.NUM_TRAINED)),
    }
    report = auto_unlearner_for(tmp_path / "a", data, num_train_epochs=8).unlearn()
    assert report.search.min_left == MIN_KNOWLEDGE_LEFT_OF_SMALL
    before, after = report.stages["before"], report.stages["after_repair"]
    assert before.splits["retain"].accuracy - after.splits["retain"].accuracy <= MAX_RETAIN_DROP
    # What would be drawn at random has an AUC this far from 0.5.
    spread = np.sqrt((1 / number + 1 / after.membership.num_unseen) / 12)
    assert abs(after.membership.auc - 0.5) <= 2 * spread
