# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from hf_deepclean.evaluation.results import ClassResult, SplitResult
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.report.plan import RunPlan
from hf_deepclean.report.shortfalls import MAX_RETAIN_DROP
from tests.report.reports import report, search_for, stages_of, text_report, text_stage


def test_nothing_falls_short_where_the_repair_brought_all_back_and_the_target_is_met():
    good = stages_of(1.0 - MAX_RETAIN_DROP / 2, forget=0.3, interval=(0.1, 0.5))
    for search in (None, search_for("unseen"), search_for("chance")):
        assert report(stages=good, search=search).shortfalls() == []


def plan_of(**kwargs):
    sizes = {"max_fisher_examples": 64, "num_trials": 3, "num_trial_examples": 32, "max_evaluated_examples": 2000}
    sizes |= {"num_repair_steps": 12, "is_repair_cut": True, "max_repair_rounds": 1, "num_forget": 100}
    costs = {"budget": 0.15, "training_steps": 220, "training_passes": 7040.0, "passes": {"repair": 1000.0}}
    return RunPlan(**costs, **sizes, num_retain=1000, evaluation_passes=500.0, **kwargs)


def test_only_a_repair_of_more_than_an_epoch_is_said_to_have_read_hard_examples_again():
    settings = {"hard_example_share": 0.5, "num_train_epochs": 3}
    for plan, is_said in ((None, True), (plan_of(), True), (plan_of(is_within_an_epoch=True), False)):
        shown = str(replace(report(), settings=report().settings | settings, plan=plan))
        assert ("After its first epoch the repair read 50 %" in shown) == is_said


def test_a_run_that_fell_short_says_what_training_anew_costs():
    plan = plan_of()
    worse = stages_of(0.9, interval=(0.3, 0.7))
    _, steps, anew = report(stages=worse, search=search_for("unseen"), plan=plan).shortfalls()
    assert "12 steps" in steps and "`max_steps`" in steps
    assert "within 1,000 row passes" in anew and "about 200 steps, 6,400 row passes" in anew
    # What was forgotten too well, or did not fall short at all, needs no more work.
    for auc, interval, found in ((0.3, (0.2, 0.4), 1), (0.7, (0.6, 0.8), 3), (0.5, (0.4, 0.6), 0)):
        stages = stages_of(1.0, auc=auc, auc_interval=interval)
        assert len(report(stages=stages, search=search_for("unseen"), plan=plan).shortfalls()) == found


def test_what_was_not_brought_back_falls_short_whatever_the_rule():
    for search in (None, search_for("unseen")):
        (shortfall,) = report(stages=stages_of(0.9, interval=(0.3, 0.7)), search=search).shortfalls()
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


def by_class(before, after, size, names=("a", "b")):
    """The stages with these accuracies on the classes of the retained data, of which the forget data have one."""
    stages = stages_of(1.0)
    for stage, accuracies in (("before", before), ("after_repair", after)):
        sizes = size if isinstance(size, tuple) else (size,) * len(names)
        classes = {name: ClassResult(*pair) for name, *pair in zip(names, sizes, accuracies, strict=True)}
        splits = stages[stage].splits
        splits["retain"] = replace(splits["retain"], per_class=classes)
        splits["forget"] = replace(splits["forget"], per_class={names[0]: ClassResult(10, 1.0)})
    return stages


def test_without_trials_the_target_follows_from_the_classes():
    known = stages_of(1.0, forget=0.6, interval=(0.4, 0.8))
    assert "still recognised" in "".join(report(stages=known).shortfalls())
    shared = by_class((1, 1), (1, 1), 50)
    assert report(stages=shared).shortfalls() == []
    attack = replace(shared["after_repair"].membership, auc=0.93, auc_interval=(0.9, 0.96))
    shared["after_repair"] = replace(shared["after_repair"], membership=attack)
    (shortfall,) = report(stages=shared).shortfalls()
    assert "The target 'unseen' was not reached" in shortfall


def test_forget_data_that_are_known_less_than_unseen_data_fall_short():
    for search in (None, search_for("unseen")):
        stages = by_class((1, 1), (1, 1), 50)
        attack = replace(stages["after_repair"].membership, auc=0.14, auc_interval=(0.05, 0.3))
        stages["after_repair"] = replace(stages["after_repair"], membership=attack)
        (shortfall,) = report(stages=stages, search=search).shortfalls()
        assert "known less than unseen ones" in shortfall and "0.140 (95 % interval to 0.300" in shortfall
        # A model that never saw them knows them as little.
        assert report(stages=stages | {"reference": stages["after_repair"]}, search=search).shortfalls() == []


@pytest.mark.parametrize(
    ("before", "after", "size", "found"),
    [
        ((0.88, 0.9), (1.0, 0.05), (940, 60), True),
        ((1.0, 1.0), (1.0, 0.85), 200, True),
        # Less than a tenth.
        ((1.0, 1.0), (1.0, 0.92), 1000, False),
        # A few examples show little, unless all of them are lost.
        ((1.0, 1.0), (1.0, 0.6), (900, 5), False),
        ((1.0, 1.0), (1.0, 0.0), (900, 8), True),
        # A class of random errors before and after.
        ((1.0, 0.7), (1.0, 0.5), (900, 20), False),
    ],
)
def test_a_class_that_is_lost_falls_short_though_the_mean_rises(before, after, size, found):
    shortfalls = report(stages=by_class(before, after, size)).shortfalls()
    assert len(shortfalls) == found
    if found:
        assert "accuracy on 'b' " in shortfalls[0] and "`log_likelihood_func`" in shortfalls[0]


def test_many_small_classes_that_are_lost_fall_short_together():
    names = tuple(f"class {number}" for number in range(30))
    stages = by_class((1.0,) * 30, (1.0,) * 10 + (0.5,) * 20, (500,) * 10 + (4,) * 20, names)
    (shortfall,) = report(stages=stages).shortfalls()
    assert "the 20 classes with fewer than 20 examples 100.0 % before, 50.0 % now (80 examples)" in shortfall


def test_a_loss_that_rises_falls_short_though_the_accuracy_stays():
    stages = by_class((1, 1), (1, 1), 50)
    for stage, loss in (("before", 0.1), ("after_repair", 0.35)):
        splits = stages[stage].splits
        splits["retain"] = replace(splits["retain"], mean_loss=loss, mean_loss_interval=(loss - 0.05, loss + 0.05))
    (shortfall,) = report(stages=stages).shortfalls()
    assert "mean loss of the retained data rose from 0.100 to 0.350" in shortfall
    splits = stages["after_repair"].splits
    # The repair of a model that knows all by heart costs a little.
    splits["retain"] = replace(splits["retain"], mean_loss=0.19, mean_loss_interval=(0.17, 0.21))
    assert report(stages=stages).shortfalls() == []


def test_a_class_that_occurs_in_both_data_sets_counts_once_towards_chance():
    both = stages_of(1.0, forget=0.6, interval=(0.4, 0.8))
    shared = {"dog": ClassResult(5, 0.6), "owl": ClassResult(5, 0.6)}
    for result in both.values():
        result.splits["forget"] = replace(result.splits["forget"], per_class=shared)
    # The chance of two classes is 50 %, which is within the interval.
    assert report(stages=both, search=search_for("chance")).shortfalls() == []
