# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from types import MethodType

import pytest
import torch
from torch import nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer

from hf_deepclean import classification_log_likelihood
from hf_deepclean.models.trainer_loss import check_trainer_loss
from tests import tiny


def weighted_loss(self, model, inputs, return_outputs=False, **kwargs):
    labels = inputs.pop("labels")
    outputs = model(**inputs)
    loss = nn.functional.cross_entropy(outputs.logits, labels, weight=torch.arange(1.0, 11.0))
    return (loss, outputs) if return_outputs else loss


class Weighted(Trainer):
    compute_loss = weighted_loss


class WeightedAndLogged(Weighted):
    pass


class Plain(Trainer):
    def log(self, *args, **kwargs):
        pass


class SupervisedTrainer(Trainer):
    """Like TRL's `SFTTrainer`, whose loss is named by its arguments."""

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)

    compute_loss.__module__ = "trl.trainer.sft_trainer"


class WeightedSupervisedTrainer(SupervisedTrainer):
    compute_loss = weighted_loss


def trainer_for(directory, kind=Trainer, loss_type=None, **kwargs):
    args = Seq2SeqTrainingArguments(str(directory), report_to="none", disable_tqdm=True, label_smoothing_factor=0.1)
    if loss_type is not None:
        args.loss_type = loss_type
    return kind(tiny.vit(num_labels=10), args, train_dataset=tiny.digits().select(range(8)), **kwargs)


def patched(directory):
    trainer = trainer_for(directory)
    trainer.compute_loss = MethodType(weighted_loss, trainer)
    return trainer


def smoothing_by_class(directory):
    trainer = trainer_for(directory)
    trainer.label_smoother = nn.CrossEntropyLoss(weight=torch.ones(10))
    return trainer


OWN_LOSSES = {
    "Weighted overrides `compute_loss`": lambda path: trainer_for(path, Weighted),
    "WeightedAndLogged overrides `compute_loss`": lambda path: trainer_for(path, WeightedAndLogged),
    "This Trainer overrides `compute_loss`": patched,
    "has a `compute_loss_func`": lambda path: trainer_for(path, compute_loss_func=lambda *args, **kwargs: None),
    "has the `label_smoother` CrossEntropyLoss": smoothing_by_class,
    "SupervisedTrainer has the loss `loss_type='dft'`": lambda path: trainer_for(path, SupervisedTrainer, "dft"),
    "WeightedSupervisedTrainer overrides `compute_loss`": lambda path: trainer_for(
        path, WeightedSupervisedTrainer, "nll"
    ),
}


@pytest.mark.parametrize("message", OWN_LOSSES)
def test_a_loss_of_the_trainer_needs_its_likelihood_wherever_it_is_written(tmp_path, message):
    trainer = OWN_LOSSES[message](tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        check_trainer_loss(trainer, None)
    assert "`log_likelihood_func(outputs, labels)`" in str(caught.value) and "class weights" in str(caught.value)
    check_trainer_loss(trainer, classification_log_likelihood)


@pytest.mark.parametrize(
    ("kind", "loss_type"),
    [
        (Trainer, None),
        (Seq2SeqTrainer, None),
        (Plain, None),
        (SupervisedTrainer, None),
        (SupervisedTrainer, "nll"),
        (SupervisedTrainer, "chunked_nll"),
        # The arguments name a loss, but transformers' Trainer knows of none.
        (Trainer, "dft"),
    ],
)
def test_trainers_of_the_libraries_train_the_likelihood_of_the_head(tmp_path, kind, loss_type):
    check_trainer_loss(trainer_for(tmp_path, kind, loss_type), None)
