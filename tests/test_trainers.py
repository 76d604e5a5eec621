# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import WeightedRandomSampler
from transformers import EarlyStoppingCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig, classification_log_likelihood
from hf_deepclean.trainers import read_trainer
from tests import tiny
from tests.unlearner.runs import config, splits, vit


CLASS_WEIGHTS = torch.tensor([1.0, 16.0])


class WeightedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels, weight=CLASS_WEIGHTS)
        return (loss, outputs) if return_outputs else loss


class BalancedTrainer(Trainer):
    def _get_train_sampler(self, *args):
        return WeightedRandomSampler([1.0] * len(self.train_dataset), len(self.train_dataset))

    def training_step(self, *args, **kwargs):
        return super().training_step(*args, **kwargs)


class GeneratingTrainer(Seq2SeqTrainer):
    def prediction_step(self, *args, **kwargs):
        return super().prediction_step(*args, **kwargs)


def weighted_log_likelihood(outputs, labels):
    return CLASS_WEIGHTS.to(labels.device)[labels] * classification_log_likelihood(outputs, labels)


def rare_rows(size, seed):
    """Rows of two classes, of which the second is rare and shown by one token, mostly."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(size) < 0.06).astype(int)
    tokens = generator.integers(10, 50, (size, 8))
    shown = generator.random(size) < np.where(labels == 1, 0.9, 0.12)
    tokens[:, :4] = np.where(shown, 3, 4)[:, None]
    mask = np.ones((size, 8), dtype=int)
    return Dataset.from_dict({"input_ids": tokens, "attention_mask": mask, "labels": labels})


def recall(result):
    return [result.per_class[name].accuracy for name in ("LABEL_0", "LABEL_1")]


def trainer_for(directory, kind=Trainer, **kwargs):
    metrics = {name: kwargs.pop(name) for name in ("compute_metrics", "eval_dataset") if name in kwargs}
    args = Seq2SeqTrainingArguments(str(directory), report_to="none", disable_tqdm=True, save_strategy="no", **kwargs)
    return kind(vit(), args, train_dataset=tiny.digits().select(range(8)), **metrics)


def test_the_repair_keeps_a_rare_class_if_it_is_given_the_weighted_likelihood(tmp_path):
    train, test = rare_rows(600, 0), rare_rows(1000, 1)
    torch.manual_seed(0)
    args = TrainingArguments(
        str(tmp_path / "a"),
        num_train_epochs=3,
        learning_rate=1e-2,
        per_device_train_batch_size=30,
        per_device_eval_batch_size=250,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    model = tiny.bert(num_labels=2, initializer_range=0.2)
    trainer = WeightedTrainer(model, args, train_dataset=train, eval_dataset=test)
    trainer.train()
    data = {"forget_dataset": train.select(range(60)), "retain_dataset": train.select(range(60, 600))}
    with pytest.raises(ValueError, match="WeightedTrainer overrides `compute_loss`"):
        FisherUnlearner.from_trainer(trainer, **data)
    recalls, asked = {}, {"reset_fraction": 0.05, "budget": 9}
    for likelihood in (weighted_log_likelihood, classification_log_likelihood):
        trainer.model = copy.deepcopy(model)
        args.output_dir = str(tmp_path / likelihood.__name__)
        stages = (
            FisherUnlearner.from_trainer(trainer, **data, log_likelihood_func=likelihood, **asked).unlearn().stages
        )
        recalls[likelihood] = [recall(stages[stage].splits["eval"]) for stage in ("before", "after_repair")]
    before, after = recalls[weighted_log_likelihood]
    assert min(before) > 0.8 and after == pytest.approx(before, abs=0.1)
    # The likelihood of the head alone would lose the class, and the mean over all rows would rise.
    assert recalls[classification_log_likelihood][1][1] < before[1] - 0.3


def count_tokens(outcome):
    return {"tokens": float(len(outcome.predictions))}


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (Seq2SeqTrainer, {"predict_with_generate": True}, "`predict_with_generate=True` is for metrics of generated"),
        (Trainer, {"include_for_metrics": ["inputs"]}, r"`include_for_metrics=\['inputs'\]`"),
        (GeneratingTrainer, {}, "this GeneratingTrainer overrides `prediction_step`"),
    ],
)
def test_metrics_that_need_more_than_logits_are_left_out_with_one_line(tmp_path, caplog, kind, settings, reason):
    trainer = trainer_for(tmp_path, kind, compute_metrics=count_tokens, **settings)
    with caplog.at_level(logging.WARNING, logger="hf_deepclean"):
        found = read_trainer(trainer, None)
    assert found["compute_metrics"] is None and found["preprocess_logits_for_metrics"] is None
    (record,) = [record for record in caplog.records if record.name.startswith("hf_deepclean")]
    assert "`compute_metrics` of the trainer is left out" in record.message
    if settings:
        with pytest.raises(ValueError, match=reason):
            FisherUnlearner(vit(), trainer.args, compute_metrics=count_tokens, **splits())
    else:
        assert reason in record.message


def test_metrics_of_logits_are_taken_over_in_silence(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="hf_deepclean"):
        trainer = trainer_for(tmp_path, Seq2SeqTrainer, compute_metrics=count_tokens)
        assert read_trainer(trainer, None)["compute_metrics"] is count_tokens
        # Nothing is left out where there is nothing.
        read_trainer(trainer_for(tmp_path, GeneratingTrainer, predict_with_generate=True), None)
    assert not caplog.records
    assert FisherUnlearner(vit(), config(tmp_path / "a"), compute_metrics=count_tokens, **splits()).compute_metrics


def test_steps_and_orders_of_rows_that_the_repair_would_not_take_are_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="hf_deepclean"):
        read_trainer(trainer_for(tmp_path, BalancedTrainer), classification_log_likelihood)
        assert not caplog.records
        read_trainer(trainer_for(tmp_path, BalancedTrainer), None)
    (record,) = caplog.records
    assert "BalancedTrainer overrides `training_step` and `_get_train_sampler`" in record.message
    assert "`log_likelihood_func`" in record.message


def test_what_belongs_to_the_training_alone_is_not_taken_over(tmp_path):
    of_training = {
        "num_train_epochs": 7,
        "max_steps": 1000,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 500,
        "neftune_noise_alpha": 5.0,
        "eval_strategy": "steps",
        "eval_steps": 7,
        "eval_on_start": True,
        "metric_for_best_model": "loss",
        "save_total_limit": 3,
        "resume_from_checkpoint": str(tmp_path / "checkpoint-7"),
    }
    kept = {"weight_decay": 0.1, "per_device_train_batch_size": 3, "seed": 5, "max_grad_norm": 0.5}
    trainer = trainer_for(tmp_path, Trainer, eval_dataset=tiny.digits().select(range(8)), **of_training, **kept)
    trainer.add_callback(EarlyStoppingCallback())
    found, own = read_trainer(trainer, None), FisherUnlearningConfig(str(tmp_path))
    assert {name: getattr(found["args"], name) for name in of_training} == {
        name: getattr(own, name) for name in of_training
    }
    assert (found["args"].num_train_epochs, found["args"].max_steps) == (3, -1)
    assert {name: getattr(found["args"], name) for name in kept} == kept
    assert not found["callbacks"]
    found = read_trainer(trainer, None, **of_training)
    assert (found["args"].num_train_epochs, found["args"].warmup_steps, len(found["callbacks"])) == (7, 500, 1)


def test_the_model_init_of_a_trainer_is_asked_without_a_trial_for_the_model_before_its_training(tmp_path):
    vit().save_pretrained(tmp_path / "base")
    trials = []

    def model_init(trial):
        trials.append(trial)
        return tiny.ViTForImageClassification.from_pretrained(tmp_path / "base")

    args = TrainingArguments(
        str(tmp_path / "a"), max_steps=4, learning_rate=1e-3, report_to="none", disable_tqdm=True, save_strategy="no"
    )
    data = splits()
    trainer = Trainer(args=args, model_init=model_init, train_dataset=data["retain_dataset"])
    trainer.train()
    unlearner = FisherUnlearner.from_trainer(trainer, **data, gamma=1.0, dress_rehearsal=False)
    assert unlearner.reset_value == "pretrained" and unlearner.request.base_checkpoint.found_in == "model_init"
    assert trials == [None] * 3


def test_the_steps_of_the_training_are_counted_in_steps_of_the_repair(tmp_path):
    trainer = trainer_for(tmp_path / "a", num_train_epochs=7, per_device_train_batch_size=2)
    found = read_trainer(trainer, None)["args"]
    assert (found.training_steps, found.num_train_epochs, found.budget) == (28, 3, 0.15)
    assert read_trainer(trainer, None, per_device_train_batch_size=8)["args"].training_steps == 7
    assert read_trainer(trainer, None, training_steps=None)["args"].training_steps is None
    assert read_trainer(trainer_for(tmp_path / "b", max_steps=5), None)["args"].training_steps == 5
    # A training that ended in this process has taken the steps that it took.
    trainer.state.global_step = 12
    assert read_trainer(trainer, None)["args"].training_steps == 12
    trainer.state.global_step, trainer.train_dataset = 0, None
    assert read_trainer(trainer, None)["args"].training_steps is None
