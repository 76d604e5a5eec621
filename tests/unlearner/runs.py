# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Small models and data sets of runs, and the unlearners of the tests."""

import torch

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig
from tests import tiny


FORGET, RETAIN, UNSEEN = range(24), range(24, 120), range(120, 160)


def splits(**others):
    digits = tiny.digits()
    parts = {"forget_dataset": digits.select(FORGET), "retain_dataset": digits.select(RETAIN)}
    return parts | {"unseen_dataset": digits.select(UNSEEN)} | others


def config(directory, **kwargs):
    defaults = {
        "reset_fraction": 0.2,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 64,
        "disable_tqdm": True,
        "report_to": "none",
    }
    return FisherUnlearningConfig(str(directory), **(defaults | kwargs))


def vit(**kwargs):
    torch.manual_seed(0)
    return tiny.randomized(tiny.vit(num_labels=10, **kwargs), torch.float32)


def resnet():
    torch.manual_seed(0)
    return tiny.randomized(tiny.resnet(num_labels=10), torch.float32)


def unlearner_for(directory, model=None, data=None, **kwargs):
    return FisherUnlearner(model or vit(), config(directory, **kwargs), **(data or splits()))


def fishers(unlearner):
    return [unlearner.compute_fisher(data) for data in (unlearner.forget_dataset, unlearner.retain_dataset)]


NUM_TRIALS = 3


# The digits that the trained model knows, by whether they are threes.
THREES, OTHERS = (
    [row for row, label in enumerate(tiny.digits()["labels"][: tiny.NUM_TRAINED].tolist()) if (label == 3) is wanted]
    for wanted in (True, False)
)


def auto_unlearner_for(directory, data=None, model=None, **kwargs):
    arguments = {"reset_fraction": None, "num_selection_trials": NUM_TRIALS, "num_train_epochs": 1}
    data = data or splits()
    data["unseen_dataset"] = tiny.digits().select(range(tiny.NUM_TRAINED, 200))
    return unlearner_for(directory, model or tiny.trained(), data, **(arguments | kwargs))


def class_request():
    digits = tiny.digits()
    return {"forget_dataset": digits.select(THREES), "retain_dataset": digits.select(OTHERS)}


def as_set(batch):
    return {tuple(row.flatten().tolist()) for row in batch["pixel_values"]}
