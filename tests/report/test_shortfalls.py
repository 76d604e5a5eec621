# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

from hf_deepclean.evaluation.results import ClassResult, SplitResult
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.report.shortfalls import MAX_RETAIN_DROP
from tests.report.reports import report, search_for, stages_of, text_report, text_stage


def test_nothing_falls_short_where_the_repair_brought_all_back_and_the_target_is_met():
    good = stages_of(1.0 - MAX_RETAIN_DROP / 2, forget=0.3, interval=(0.1, 0.5))
    for search in (None, search_for("unseen"), search_for("chance")):
        assert report(stages=good, search=search).shortfalls() == []


def test_what_was_not_brought_back_falls_short_whatever_the_rule():
    for search in (None, search_for("unseen")):
        (shortfall,) = report(stages=stages_of(0.9), search=search).shortfalls()
        assert "accuracy 100.0 % before, 90.0 % now" in shortfall and "num_train_epochs" in shortfall
    text = text_report()
    assert text.shortfalls() == []
    worse = text_stage(2)
    worse.splits["retain"] = replace(
        worse.splits["retain"], tokens=replace(worse.splits["retain"].tokens, accuracy=0.5)
    )
    (shortfall,) = text_report(after_repair=worse).shortfalls()
    assert "token accuracy 75.0 % before, 50.0 % now" in shortfall
    likelihood = {
        stage: StageResult({split: SplitResult(9, loss, (loss,) * 9) for split in ("forget", "retain")})
        for stage, loss in (("before", 0.1), ("after_repair", 0.2))
    }
    (shortfall,) = report(stages=likelihood).shortfalls()
    assert "1 / (1 + loss) 90.9 % before, 83.3 % now" in shortfall


def test_a_target_falls_short_only_beyond_doubt_and_only_where_it_was_one():
    known = stages_of(1.0, forget=0.6, interval=(0.4, 0.8))
    # The interval is above a third, the chance of three classes.
    (shortfall,) = report(stages=known, search=search_for("chance")).shortfalls()
    assert "60.0 % of the forget examples are still recognised, where chance is 33.3 %" in shortfall
    assert report(stages=known, search=search_for("unseen")).shortfalls() == []
    member = stages_of(1.0, interval=(0.1, 0.6), auc=0.7, auc_interval=(0.55, 0.8))
    (shortfall,) = report(stages=member, search=search_for("unseen")).shortfalls()
    assert "a membership AUC of 0.700 (95 % interval from 0.550" in shortfall
    assert report(stages=member, search=search_for("chance")).shortfalls() == report(stages=member).shortfalls() == []


def test_a_class_that_occurs_in_both_data_sets_counts_once_towards_chance():
    both = stages_of(1.0, forget=0.6, interval=(0.4, 0.8))
    shared = {"dog": ClassResult(5, 0.6), "owl": ClassResult(5, 0.6)}
    for result in both.values():
        result.splits["forget"] = replace(result.splits["forget"], per_class=shared)
    # The chance of two classes is 50 %, which is within the interval.
    assert report(stages=both, search=search_for("chance")).shortfalls() == []
