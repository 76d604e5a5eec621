# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import logging

import pytest
import torch
from transformers import TrainerCallback

from hf_deepclean import UnlearningReport
from hf_deepclean.report.report import load_report
from tests import tiny
from tests.unlearner.runs import auto_unlearner_for


# Of 200 steps of 16 rows, 480 row passes.
BUDGET = {"training_steps": 200, "num_train_epochs": 10, "learning_rate": 1e-2, "save_strategy": "steps"}
BUDGET |= {"save_steps": 4, "max_repair_rounds": 1}


def unlearner_within(folder, **kwargs):
    return auto_unlearner_for(folder, **(BUDGET | kwargs))


class Rates(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        self.seen.append((lr_scheduler.get_last_lr()[0], args.max_steps, state.max_steps))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run within a budget, its report, and the learning rates of its repair."""
    unlearner, rates = unlearner_within(tmp_path_factory.mktemp("whole") / "run"), Rates()
    unlearner.add_callback(rates)
    return unlearner, unlearner.unlearn(), rates.seen


def test_a_run_takes_the_steps_and_examples_of_its_plan(whole):
    unlearner, report, rates = whole
    plan = report.plan
    assert plan.total <= plan.budget_passes == 480 and 8 < plan.num_repair_steps < 60 and plan.is_repair_cut
    assert report.num_fisher_examples == {"forget": 24, "retain": plan.max_fisher_examples}
    assert unlearner.state.global_step == unlearner.state.max_steps == plan.num_repair_steps == len(rates)
    # The schedule is that of these steps, and the arguments are the caller's again.
    assert rates[-1][0] == 0 < rates[-2][0] and {steps for _, *both in rates for steps in both} == {len(rates)}
    assert rates[0][0] == pytest.approx(1e-2 * (1 - 1 / len(rates)))
    assert unlearner.args.max_steps == -1 and report.settings["training_steps"] == 200


def test_the_plan_is_kept_in_the_report_and_printed(whole):
    unlearner, report, _ = whole
    assert load_report(unlearner.args.output_dir) == report
    shown = str(report)
    assert "of the training" in shown and "15.0 %" in shown and "evaluation (beside the budget)" in shown
    record = report.to_dict()
    del record["plan"]
    earlier = UnlearningReport.from_dict(record)
    assert earlier.plan is None and "of the training" not in str(earlier)


def test_the_preview_prints_the_same_plan(whole, tmp_path):
    preview = unlearner_within(tmp_path / "a").preview(16)
    assert preview.plan == whole[1].plan and preview.num_repair_steps == preview.plan.num_repair_steps
    assert "of the training" in str(preview) and "budget" in str(preview)


def test_an_interrupted_repair_within_a_budget_ends_in_the_same_bits(whole, tmp_path):
    interrupted = tiny.interrupt_after(unlearner_within(tmp_path / "a"), 6)
    with pytest.raises(KeyboardInterrupt):
        interrupted.unlearn()
    with pytest.raises(ValueError, match=r"settings: budget 0\.15, now 0\.3"):
        unlearner_within(tmp_path / "a", budget=0.3).unlearn(resume_from_checkpoint=True)
    resumed = unlearner_within(tmp_path / "a")
    resumed.unlearn(resume_from_checkpoint=True)
    values = tiny.parameters_and_buffers(whole[0].model)
    for name, value in tiny.parameters_and_buffers(resumed.model).items():
        assert torch.equal(value, values[name]), name


def test_a_constructor_says_that_training_anew_is_cheaper(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="hf_deepclean"):
        unlearner = unlearner_within(tmp_path / "a", training_steps=12)
    plan = unlearner._phases.plan
    assert plan.retrain_instead in [record.getMessage() for record in caplog.records]
    assert plan.retrain_instead in str(unlearner.preview(16))
    assert (plan.max_fisher_examples, plan.num_trial_examples, plan.num_repair_steps) == (64, 32, 8)
