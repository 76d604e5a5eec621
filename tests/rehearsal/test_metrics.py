# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import logging

import numpy as np
import pytest
import torch

from hf_deepclean import FisherUnlearner
from tests import tiny
from tests.unlearner.runs import config, splits, vit


def unlearner_with(folder, metric, **options):
    data = splits(**options.pop("data", {}))
    return FisherUnlearner(vit(), config(folder, **options), compute_metrics=metric, **data)


def needs_every_class(outcome):
    if len(np.unique(outcome.label_ids)) < 10:
        raise ValueError("only some of the classes are there")
    return {"macro": 0.5}


@pytest.mark.parametrize(
    ("metric", "error", "message"),
    [
        (lambda outcome: {"f1": {"a": 0.5}}, TypeError, "'f1'.*tried `compute_metrics` on 2 rows of `forget_dataset`"),
        (lambda outcome: {"f1": np.ones(3)}, TypeError, "'f1'"),
        (lambda outcome: None, TypeError, "is there a `return`"),
        (lambda outcome: {"n": outcome.inputs.shape}, AttributeError, "shape.*tried `compute_metrics`"),
        (lambda outcome: {"n": range(outcome.predictions.tolist())}, TypeError, "tried `compute_metrics`"),
        (lambda outcome: {}["missing"], KeyError, "missing.*on 24 rows of `forget_dataset`"),
        (lambda outcome: np.zeros(2) + np.zeros(3), ValueError, "broadcast.*on 24 rows of `forget_dataset`"),
    ],
)
def test_metrics_that_fail_or_are_no_numbers_are_told_at_construction(tmp_path, metric, error, message):
    with pytest.raises(error, match=message):
        unlearner_with(tmp_path / "a", metric)


def test_metrics_that_need_more_than_two_rows_are_no_false_alarm(tmp_path, caplog):
    def needs_many(outcome):
        if len(outcome.label_ids) < 20:
            raise ValueError("too few rows")
        return {"n": len(outcome.label_ids)}

    with caplog.at_level(logging.WARNING):
        unlearner = unlearner_with(tmp_path / "a", needs_many, num_train_epochs=0)
    assert not caplog.records
    assert unlearner.unlearn().stages["before"].splits["forget"].metrics == {"n": 24}


def test_metrics_that_fail_on_a_sample_are_warned_of_and_those_that_fail_on_all_rows_refused(tmp_path, caplog):
    digits = tiny.digits()
    few_classes = digits.select([row for row in range(500, 900) if digits[row]["labels"] < 3])
    with caplog.at_level(logging.WARNING):
        unlearner_with(tmp_path / "a", needs_every_class, data={"eval_dataset": few_classes})
    assert len(caplog.records) == 1 and "`eval_dataset` (ValueError: only some of the classes" in caplog.text
    with pytest.raises(ValueError, match="only some of the classes.*on 20 rows of `eval_dataset`.*return nan"):
        unlearner_with(tmp_path / "b", needs_every_class, data={"eval_dataset": few_classes.select(range(20))})


def test_metrics_by_batches_are_asked_for_their_result_and_preprocessed_logits_are_used(tmp_path):
    seen = []

    def by_batches(outcome, compute_result):
        seen.append((outcome.predictions.shape, compute_result))
        return {"n": 1}

    data = splits()
    args = config(tmp_path / "a", batch_eval_metrics=True, dress_rehearsal=True)
    FisherUnlearner(
        vit(),
        args,
        compute_metrics=by_batches,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        **data,
    )
    assert seen == [((2,), True)] * 3
    assert torch.is_grad_enabled()
