# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import math
from functools import cache
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig
from hf_deepclean.evaluation.stages import AFTER_REPAIR, AFTER_RESET, BEFORE
from hf_deepclean.natural_phase import NaturalPhase
from hf_deepclean.repair.trainer import RepairTrainer
from hf_deepclean.report.report import load_report
from hf_deepclean.reset import natural
from hf_deepclean.reset.weights import read_weights
from hf_deepclean.selection.weight_selection import WeightSelection
from tests import tiny


NUM_ROWS, NUM_FORGOTTEN = 60, 12


@cache
def guessed(first, number):
    """Digits with labels drawn at random, which a model can only learn by heart."""
    rows = tiny.digits().select(range(first, first + number)).with_format(None)
    labels = np.random.default_rng(first).integers(0, 10, number).tolist()
    return rows.remove_columns("labels").add_column("labels", labels).with_format("torch")


@cache
def checkpoint_and_fine_tuned():
    torch.manual_seed(1)
    checkpoint = tiny.vit(num_labels=10, hidden_size=32, intermediate_size=64, num_hidden_layers=1).eval()
    model, batch = copy.deepcopy(checkpoint), guessed(0, NUM_ROWS)[:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return checkpoint, model.eval()


def natural_run(directory, forget=None, **kwargs):
    checkpoint, model = (copy.deepcopy(part) for part in checkpoint_and_fine_tuned())
    rows = guessed(0, NUM_ROWS)
    defaults = {"num_train_epochs": 1, "max_repair_rounds": 1, "learning_rate": 5e-3, "disable_tqdm": True}
    defaults |= {f"per_device_{part}_batch_size": size for part, size in (("train", 16), ("eval", 64), ("fisher", 64))}
    data = {
        "forget_dataset": rows.select(range(NUM_FORGOTTEN)) if forget is None else forget,
        "retain_dataset": rows.select(range(NUM_FORGOTTEN, NUM_ROWS)),
        "unseen_dataset": guessed(NUM_ROWS, 60),
    }
    data |= {name: kwargs.pop(name) for name in list(data) if name in kwargs}
    checkpoint.save_pretrained(f"{directory}-checkpoint")
    args = FisherUnlearningConfig(str(directory), pretrained_model=f"{directory}-checkpoint", **(defaults | kwargs))
    return FisherUnlearner(model, args, **{name: part for name, part in data.items() if part is not None})


LIMIT = "hf_deepclean.reset.natural.MAX_RETAIN_DROP"


@pytest.fixture
def without_a_limit(monkeypatch):
    """Such small models have no room for what they learnt by heart, and every natural reset would be rejected."""
    monkeypatch.setattr(LIMIT, 1.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole run with a control: the unlearner, the report and the values that were found for the reset."""
    found, rates, find, train = [], [], NaturalPhase.find, RepairTrainer.train

    def noted(self, *args, **kwargs):
        rates.append(self.args.learning_rate)
        return train(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LIMIT, 1.0)
        patch.setattr(NaturalPhase, "find", lambda self, *args: found.append(find(self, *args)) or found[-1])
        patch.setattr(RepairTrainer, "train", noted)
        unlearner = natural_run(tmp_path_factory.mktemp("whole") / "out", random_mask_control=True)
        assert unlearner.reset_value == "natural"
        report = unlearner.unlearn()
        # The control is repaired as the cleaned model is.
        assert rates == [5e-3 / 5] * 2 and unlearner.args.learning_rate == 5e-3
        return unlearner, report, found


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def equal(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_rows_learnt_by_heart_are_as_well_known_as_unseen_rows_after_a_natural_reset(whole, without_a_limit):
    unlearner, report, _ = whole
    natural, before, after = report.natural, report.stages[BEFORE], report.stages[AFTER_RESET]
    assert natural.is_needed and natural.target == "unseen" and 0 < natural.movement
    assert before.splits["forget"].accuracy > 0.9 and after.splits["forget"].accuracy < 0.5
    # On neither side of what is expected of unseen rows.
    assert abs(natural.distance_after) < 0.3 * natural.distance_before
    assert report.integrity.num_selected_changed > 0 and report.search is None
    assert load_report(f"{unlearner.args.output_dir}/report.json").natural == natural
    assert "The natural reset took" in str(report) and "moves back" not in str(report)


def test_there_is_nothing_to_forget_of_rows_that_the_model_never_saw_and_no_bit_changes(tmp_path):
    unlearner = natural_run(tmp_path / "out", forget=guessed(130, 30))
    before = weights(unlearner.model)
    report = unlearner.unlearn()
    assert not report.natural.is_needed and equal(before, weights(unlearner.model))
    assert report.integrity.num_selected_changed == 0 and "nothing to forget" in str(report)
    assert report.stages[AFTER_REPAIR] == report.stages[AFTER_RESET]


def test_an_interrupted_natural_reset_continues_to_the_same_bits(tmp_path, monkeypatch, whole, without_a_limit):
    found, evaluated = [], []
    find = NaturalPhase.find

    def once(self, *args):
        found.append(args)
        return find(self, *args)

    monkeypatch.setattr(NaturalPhase, "find", once)
    unlearner = natural_run(tmp_path / "out")
    original, evaluate = weights(unlearner.model), unlearner._phases.make_evaluator().evaluate

    def fail_after_the_reset(self, model):
        evaluated.append(model)
        if len(evaluated) == 2:
            raise KeyboardInterrupt
        return evaluate(model)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("hf_deepclean.evaluation.evaluator.Evaluator.evaluate", fail_after_the_reset)
        unlearner.unlearn()
    assert equal(original, weights(unlearner.model))
    again = natural_run(tmp_path / "out")
    again.unlearn(resume_from_checkpoint=True)
    assert len(found) == 1 and equal(weights(whole[0].model), weights(again.model))


def test_phases_one_by_one_make_the_same_reset_as_a_whole_run(tmp_path, whole, without_a_limit):
    steps, expected = natural_run(tmp_path / "steps"), whole[2][0]
    before = weights(steps.model)
    steps.select_weights(*(steps.compute_fisher(data) for data in (steps.forget_dataset, steps.retain_dataset)))
    assert equal(before, weights(steps.model)) and steps.found_values.result.is_needed
    steps.reset_weights()
    assert equal(expected.selection.indices, steps.selection.indices)
    assert equal(expected.values, read_weights(steps.model, expected.selection))


def test_a_reset_that_costs_a_model_without_room_too_much_is_undone_and_the_weights_are_rewound(tmp_path):
    few = {"num_selection_trials": 3, "num_train_epochs": 0}
    unlearner = natural_run(tmp_path / "out", **few)
    report = unlearner.unlearn()
    assert report.natural.is_rejected and unlearner.reset_value == report.settings["reset_value"] == "pretrained"
    assert report.search is not None and "was tried and undone" in str(report)
    steps = natural_run(tmp_path / "steps", **few)
    steps.select_weights(*(steps.compute_fisher(data) for data in (steps.forget_dataset, steps.retain_dataset)))
    assert steps.found_values is None and steps.search == report.search


def test_a_run_that_was_interrupted_after_a_rejected_reset_continues_in_the_same_object(tmp_path, monkeypatch):
    unlearner = natural_run(tmp_path / "out", num_selection_trials=3, num_train_epochs=0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("hf_deepclean.unlearner.repair_in_rounds", Mock(side_effect=KeyboardInterrupt))
        unlearner.unlearn()
    report = unlearner.unlearn(resume_from_checkpoint=True)
    assert report.natural.is_rejected and report.settings["reset_value"] == "pretrained"


def test_a_step_too_far_for_the_precision_is_made_shorter(tmp_path, monkeypatch, without_a_limit):
    lengths, distance = [], natural._distance

    def only_near(*args):
        # The second distance of the first step, after its first move.
        return distance(*args) * (math.nan if len(lengths) == 1 else 1)

    move = natural._Movement._move
    monkeypatch.setattr(natural, "_distance", only_near)
    monkeypatch.setattr(natural._Movement, "_move", lambda self, *args: lengths.append(args[1]) or move(self, *args))
    natural_run(tmp_path / "out", num_train_epochs=0).unlearn()
    assert lengths[0] > 0 > lengths[1] > -lengths[0] and all(map(math.isfinite, lengths))


def test_weights_in_another_order_in_memory_are_divided_by_their_own_fisher():
    weight = torch.nn.Parameter(torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last))
    selection = WeightSelection({"weight": torch.tensor([1, 20])}, {"weight": 24}, "auto")
    found = natural._metric({"weight": weight}, selection, None)["weight"]
    assert found.flatten().nonzero().flatten().tolist() == [1, 20]


def test_the_control_moves_random_weights_without_the_fisher(whole):
    _, report, (found, control) = whole
    assert {"control_after_reset", "control_after_repair"} <= report.stages.keys()
    assert control.selection.num_selected == found.selection.num_selected
    assert not equal(found.values, control.values)


def test_a_dry_run_of_a_natural_reset_changes_nothing(tmp_path, without_a_limit):
    unlearner = natural_run(tmp_path / "out")
    before = weights(unlearner.model)
    assert "weights" in str(unlearner.preview(num_examples=16)) and equal(before, weights(unlearner.model))


def test_a_class_that_is_to_go_is_gone_and_others_stay(tmp_path, without_a_limit):
    rows = guessed(0, NUM_ROWS)
    labels = [int(label) for label in rows["labels"]]
    parts = {
        "forget_dataset": rows.select([place for place, label in enumerate(labels) if label == 3]),
        "retain_dataset": rows.select([place for place, label in enumerate(labels) if label != 3]),
    }
    report = natural_run(tmp_path / "out", forget=parts["forget_dataset"], **parts, num_train_epochs=0).unlearn()
    assert report.natural.target == "chance" and report.stages[AFTER_REPAIR].splits["forget"].accuracy == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"unseen_dataset": None}, "there is no `unseen_dataset`"),
        ({"gamma": 1.0}, "the rule of selection is 'gamma'"),
        ({"forget_penalty": 1.0}, "`forget_penalty`"),
        ({"gamma_sweep": [1.0]}, "`gamma_sweep`"),
    ],
)
def test_where_it_is_not_possible_rewinding_is_the_default_and_asking_for_it_is_refused(tmp_path, options, reason):
    assert natural_run(tmp_path / "a", **options).reset_value == "pretrained"
    with pytest.raises(ValueError, match=f"'natural'` is not possible here: {reason}"):
        natural_run(tmp_path / "b", reset_value="natural", **options)


def test_texts_of_a_language_model_are_forgotten_token_by_token(tmp_path, without_a_limit):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    checkpoint = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=60, max_position_embeddings=32)).eval()
    tokens = torch.randint(0, 60, (90, 10), generator=torch.Generator().manual_seed(3))
    texts = Dataset.from_dict({"input_ids": tokens.tolist(), "labels": tokens.tolist()}).with_format("torch")
    model, batch = copy.deepcopy(checkpoint), {"input_ids": tokens[:50], "labels": tokens[:50]}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    parts = {"forget_dataset": texts.select(range(8)), "retain_dataset": texts.select(range(8, 50))}
    checkpoint.save_pretrained(tmp_path / "checkpoint")
    args = FisherUnlearningConfig(
        str(tmp_path / "out"), pretrained_model=str(tmp_path / "checkpoint"), num_train_epochs=0, disable_tqdm=True
    )
    report = FisherUnlearner(model, args, **parts, unseen_dataset=texts.select(range(50, 90))).unlearn()
    after, natural = report.stages[AFTER_RESET], report.natural
    assert report.settings["reset_value"] == "natural"
    assert abs(natural.distance_after) < 0.3 * natural.distance_before
    assert after.splits["forget"].tokens.accuracy < 0.5
