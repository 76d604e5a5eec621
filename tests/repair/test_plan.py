# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean.repair.penalty import MIN_STEPS_PER_PENALTY
from hf_deepclean.repair.plan import RepairPlan, check_repair_options, num_repair_steps, num_steps_per_epoch
from hf_deepclean.selection.search import ResetTrial, SelectionSearch
from tests import tiny
from tests.repair.repairs import resnet, trainer_for


QUANTILES = tuple(torch.linspace(0, 5, 101).tolist())


def search_of(measure="accuracy", retain=1.0, losses=QUANTILES):
    """The record of trials of a model that knew this much of the retain data."""
    before = ResetTrial(0, None, 1.0, retain)
    return SelectionSearch("unseen", measure, 0.1, 0.5, before, (before,), 0, {}, losses)


def splits(retain=None):
    digits = tiny.digits()
    retain = digits.select(range(24, 120)) if retain is None else retain
    return {"forget": digits.select(range(24)), "retain": retain, "unseen": digits.select(range(120, 160))}


def plan_of(folder, search, retain=None, options=None, **kwargs):
    trainer = trainer_for(folder, model=resnet(), **(options or {}))
    return RepairPlan.of(trainer.batch_source, trainer.args, splits(retain), search, **kwargs)


def test_a_repair_of_a_selection_without_trials_is_plain_training(tmp_path):
    plan = plan_of(tmp_path, None)
    assert plan.make_penalty is None and plan.hard_example_share == 1.0
    assert plan.new_row_order(96) is None


@pytest.mark.parametrize(
    ("measure", "scope", "weight", "rise"),
    [
        ("accuracy", "full", 1.5, 1.0),
        ("token accuracy", "full", 1.0, 1.25),
        ("1 / (1 + loss)", "full", 1.0, 1.25),
        ("accuracy", "adapter", 1.5, 0.85),
        ("token accuracy", "adapter", 1.0, 0.85),
    ],
)
def test_the_penalty_depends_on_the_kind_of_model(tmp_path, measure, scope, weight, rise):
    plan = plan_of(tmp_path, search_of(measure), reset_scope=scope)
    penalty = plan.make_penalty()
    assert (plan.penalty_weight, penalty.weight, penalty.rise) == (weight, weight, rise)
    assert penalty.unseen_losses == QUANTILES
    given = plan_of(tmp_path, search_of(measure), reset_scope=scope, forget_penalty=3.0)
    penalty = given.make_penalty()
    assert (given.penalty_weight, penalty.weight, penalty.rise) == (3.0, 3.0, rise)


@pytest.mark.parametrize(
    ("num_forget", "measure", "few", "on_odds"),
    [
        (50, "accuracy", True, True),
        (51, "accuracy", False, False),
        (1, "token accuracy", True, True),
        (1, "1 / (1 + loss)", True, False),
    ],
)
def test_few_examples_are_held_from_both_sides_in_every_fourth_step(tmp_path, num_forget, measure, few, on_odds):
    trainer, data = trainer_for(tmp_path, model=resnet()), splits()
    data["forget"] = tiny.digits().select(range(200, 200 + num_forget))
    penalty = RepairPlan.of(trainer.batch_source, trainer.args, data, search_of(measure)).make_penalty()
    assert (penalty.few, penalty.on_odds) == (few, on_odds)
    assert penalty.period == MIN_STEPS_PER_PENALTY or not few


def test_without_a_weight_or_without_unseen_losses_there_is_no_penalty(tmp_path):
    none = plan_of(tmp_path, search_of(), forget_penalty=0.0)
    assert (none.make_penalty, none.penalty_weight) == (None, 0.0)
    unheld = plan_of(tmp_path, search_of(losses=None))
    assert (unheld.make_penalty, unheld.penalty_weight) == (None, 1.5)


@pytest.mark.parametrize(
    ("search", "share"),
    [
        (search_of(retain=0.98), 0.5),
        (search_of(retain=0.97), 1.0),
        (search_of("token accuracy"), 1.0),
        (None, 1.0),
    ],
)
def test_later_epochs_read_half_of_what_a_classifier_knew_by_heart(tmp_path, search, share):
    plan = plan_of(tmp_path, search)
    assert plan.hard_example_share == share
    assert (plan.new_row_order(96) is None) == (share == 1.0)
    assert plan_of(tmp_path, search, hard_example_share=0.25).hard_example_share == 0.25


def test_a_stream_and_another_order_of_the_rows_are_read_whole(tmp_path):
    stream = splits()["retain"].to_iterable_dataset()
    assert plan_of(tmp_path, search_of(), stream).hard_example_share == 1.0
    ordered = {"train_sampling_strategy": "sequential"}
    assert plan_of(tmp_path, search_of(), options=ordered).hard_example_share == 1.0


def test_every_training_gets_a_row_order_of_its_own(tmp_path):
    plan = plan_of(tmp_path, search_of())
    first, second = plan.new_row_order(96), plan.new_row_order(96)
    assert first is not second and len(first) == 96 and first.share == 0.5


@pytest.mark.parametrize(
    ("options", "per_epoch", "steps"),
    [
        ({}, 3, 6),
        ({"num_train_epochs": 0.5}, 3, 2),
        ({"max_steps": 5}, 3, 5),
        ({"gradient_accumulation_steps": 2}, 2, 4),
        ({"per_device_train_batch_size": 40}, 3, 6),
        ({"per_device_train_batch_size": 40, "dataloader_drop_last": True}, 2, 4),
    ],
)
def test_the_number_of_steps_is_that_of_the_trainer(tmp_path, options, per_epoch, steps):
    trainer = trainer_for(tmp_path, model=resnet(), **options)
    retain = splits()["retain"]
    assert num_steps_per_epoch(trainer.args, retain) == per_epoch
    assert num_repair_steps(trainer.args, retain) == steps
    assert num_steps_per_epoch(trainer.args, retain.to_iterable_dataset()) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((-1.0, None, "auto", "random"), "`forget_penalty` is -1.0 but must be a finite weight"),
        ((float("inf"), None, "auto", "random"), "`forget_penalty` is inf"),
        ((1.0, None, "gamma", "random"), "the rule is 'gamma'. Leave one of them out"),
        ((None, 0.0, "auto", "random"), "`hard_example_share` is 0.0 but must be a share"),
        ((None, 1.5, "auto", "random"), "`hard_example_share` is 1.5"),
        ((None, 0.5, "auto", "sequential"), "`train_sampling_strategy='sequential'` orders them otherwise"),
    ],
)
def test_options_of_the_repair_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_repair_options(*options)
