# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import itertools
import logging
import math
from types import SimpleNamespace

import pytest
from datasets import Dataset

from hf_deepclean import FisherUnlearningConfig
from hf_deepclean.report.plan import RunPlan
from hf_deepclean.reset import natural
from hf_deepclean.run_plan import natural_reset_passes, plan_run, warn_of_plan


@pytest.fixture
def plan_of(tmp_path):
    """Plans the run of a number of rows, which nothing reads."""

    def plan(forget, retain, training_rows=None, unseen=200, reset_value="zero", model=None, **kwargs):
        kwargs = {"per_device_train_batch_size": 32, "report_to": "none", "use_cpu": True} | kwargs
        if training_rows is not None:
            kwargs["training_steps"] = math.ceil(training_rows / 32)
        splits = {"forget": range(forget), "retain": range(retain), "unseen": range(unseen)}
        request = SimpleNamespace(
            splits=splits, model=model, reset_value=reset_value, kept_fisher=None, models_to_compare={"after": None}
        )
        return plan_run(request, FisherUnlearningConfig(str(tmp_path / "out"), **kwargs))

    return plan


def test_without_the_length_of_the_training_nothing_is_limited_by_the_budget(plan_of):
    plan = plan_of(100, 1000)
    assert (plan.max_fisher_examples, plan.num_trials, plan.num_trial_examples) == (500, 6, 64)
    assert (plan.num_repair_steps, plan.is_repair_cut, plan.max_repair_rounds) == (96, False, 3)
    assert plan.training_passes is plan.budget_passes is plan.retrain_instead is plan.over_budget is None
    (sentence,) = plan.sentences()
    assert "Pass `training_steps`" in sentence
    assert plan_of(100, 1000, selection="adaptive").max_fisher_examples is None


def test_ten_rows_of_a_hundred_thousand_cost_what_ten_of_ten_thousand_cost(plan_of):
    few, many = plan_of(10, 10_000), plan_of(10, 100_000)
    assert few.passes == many.passes and few.num_repair_steps == many.num_repair_steps == 308
    # Of 313 steps and of 3,125.
    assert few.is_within_an_epoch and many.is_within_an_epoch and not plan_of(10, 1000).is_within_an_epoch
    assert few.is_repair_cut and "308 steps" in few.after_a_shortfall()[0]


def test_a_plan_keeps_its_budget_or_says_both_figures(plan_of):
    sizes = itertools.product([1, 10, 60, 400], [40, 400, 5000], [1, 3, 7, 20], [0.02, 0.15, 0.5])
    seen = {"within": 0, "over": 0, "retrain": 0}
    for forget, retain, epochs, budget in sizes:
        plan = plan_of(forget, retain, epochs * (forget + retain), budget=budget)
        fishers = plan.passes["forget Fisher"] + plan.passes["retain Fisher"]
        assert 64 <= plan.max_fisher_examples <= 500
        assert fishers <= plan.budget_passes / 3 or plan.max_fisher_examples == 64
        assert 3 <= plan.num_trials <= 6 and 32 <= plan.num_trial_examples <= 64
        assert plan.num_repair_steps >= min(8, math.ceil(3 * math.ceil(retain / 32)))
        told = (plan.retrain_instead is not None, plan.over_budget is not None)
        is_over, is_absurd = plan.total >= plan.budget_passes + 1, plan.total >= plan.training_passes
        assert told == (is_absurd, is_over and not is_absurd)
        if not is_over:
            # A further round is for what the budget leaves.
            assert plan.total + (plan.max_repair_rounds - 1) * plan.passes["repair"] <= plan.budget_passes + 1
        else:
            sentence = plan.sentences()[0]
            least = plan.training_passes if is_absurd else plan.budget_passes
            assert f"{least:,.0f} row passes" in sentence and f"costs {plan.total:,.0f}" in sentence
            assert (plan.max_fisher_examples, plan.num_trials, plan.num_trial_examples) == (64, 3, 32)
        seen["retrain" if is_absurd else "over" if is_over else "within"] += 1
    assert min(seen.values()) > 5


def test_what_is_set_wins_over_the_budget(plan_of):
    asked = {"fisher_max_examples": 300, "num_selection_trials": 5, "num_selection_examples": 50, "max_steps": 70}
    plan = plan_of(100, 1000, 2000, **asked)
    assert (plan.max_fisher_examples, plan.num_trials) == (300, 5)
    assert (plan.num_trial_examples, plan.num_repair_steps, plan.max_repair_rounds) == (50, 70, 3)
    assert "this run, as it is set," in plan.retrain_instead
    no_repair = plan_of(100, 1000, 7000, num_train_epochs=0)
    assert no_repair.num_repair_steps == 0 and "repair" not in no_repair.passes


def test_a_rule_without_trials_reads_all_rows_if_a_third_of_the_budget_allows_it(plan_of):
    assert plan_of(100, 1000, 70_000, selection="adaptive").max_fisher_examples is None
    plan = plan_of(100, 1000, 7000, selection="adaptive")
    assert 64 < plan.max_fisher_examples < 1000 and "selection" not in plan.passes


def test_the_natural_reset_takes_the_place_of_the_trials(plan_of):
    plan = plan_of(20, 1000, 7000, reset_value="natural")
    # Four passes, since there are at least four steps, and six forward passes over the forget rows.
    samples = natural.NUM_RETAIN_EXAMPLES + natural.NUM_UNSEEN_EXAMPLES + 2 * natural.NUM_SCALE_EXAMPLES
    expected = (4 + 6 / 3) * 20 + (natural.NUM_SCALES * 20 + samples) / 3
    assert plan.passes["natural reset"] == natural_reset_passes(20) == pytest.approx(expected)
    assert "selection" not in plan.passes and plan.max_fisher_examples == 500
    assert (
        plan.passes["forget Fisher"] == 1.5 * 20
        and plan.passes["retain Fisher"] == 1.5 * natural.NUM_NATURAL_FISHER_EXAMPLES
    )
    assert plan.num_repair_steps <= 41 and plan.total <= plan.budget_passes


def test_a_class_more_costs_a_backward_pass_more_in_an_expected_fisher(plan_of):
    models = [SimpleNamespace(config=SimpleNamespace(num_labels=labels)) for labels in (2, 10)]
    few, many = (plan_of(10, 100, model=model, fisher_type="expected").passes["retain Fisher"] for model in models)
    assert many > 4 * few


def test_the_table_and_the_record_hold_the_same_plan(plan_of):
    plan = plan_of(100, 1000, 7000)
    rows = plan.rows({"forget Fisher": 1.5, "repair": 3.0, "evaluation": 2.0, "Fisher plane": 9.0})
    assert rows[0] == ["plan", "row passes", "of the training", "seconds"]
    assert {len(row) for row in rows} == {4}
    by_name = {row[0]: row for row in rows}
    assert by_name["together"][3] == "4.5" and by_name["budget"][2] == "15.0 %"
    assert [row[0] for row in rows[1:5]] == list(plan.passes)
    assert rows[-1][0] == "evaluation (beside the budget)"
    assert {len(row) for row in plan_of(100, 1000).rows({})} == {3}
    assert isinstance(plan, RunPlan) and f"about {round(220 * 1000 / 1100 * 219 / 220):,} steps" in str(
        plan.after_a_shortfall()
    )


def test_training_anew_is_advised_before_any_work(plan_of, tmp_path, caplog):
    plan = plan_of(10, 40, 50)
    with caplog.at_level(logging.WARNING, logger="hf_deepclean"):
        warn_of_plan(plan, FisherUnlearningConfig(str(tmp_path), report_to="none", use_cpu=True))
    assert [record.getMessage() for record in caplog.records] == [plan.retrain_instead]
    assert "Training anew is cheaper: training anew costs 64 row passes" in plan.retrain_instead


def test_a_stream_has_no_planned_cost(tmp_path):
    rows = Dataset.from_dict({"labels": [0, 1, 0]})
    splits = {"forget": rows, "retain": rows.to_iterable_dataset()}
    request = SimpleNamespace(
        splits=splits, model=None, reset_value="zero", kept_fisher=None, models_to_compare={"after": None}
    )
    args = FisherUnlearningConfig(str(tmp_path), report_to="none", use_cpu=True, max_steps=5, training_steps=500)
    plan = plan_run(request, args)
    assert "retain Fisher" not in plan.passes and plan.evaluation_passes is None
    assert plan.num_repair_steps == 5 and plan.after_a_shortfall() == []
