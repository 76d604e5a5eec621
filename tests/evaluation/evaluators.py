# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluators on a few digits, made with a plain Trainer."""

import torch
from transformers import Trainer, TrainingArguments

from hf_deepclean.data.loaders import BatchSource
from hf_deepclean.evaluation.evaluator import Evaluator
from tests import tiny


FORGET, RETAIN, UNSEEN = range(24), range(24, 72), range(72, 105)


def splits():
    rows = {"forget": FORGET, "retain": RETAIN, "unseen": UNSEEN}
    return {name: tiny.digits().select(numbers) for name, numbers in rows.items()}


def vit(seed=0, **kwargs):
    torch.manual_seed(seed)
    return tiny.randomized(tiny.vit(num_labels=10, initializer_range=0.5, **kwargs), torch.float32)


def evaluator_for(folder, model, **kwargs) -> Evaluator:
    """An evaluator with the batches of a trainer of the model, of 16 examples unless `kwargs` say otherwise."""
    args = TrainingArguments(str(folder), report_to="none", disable_tqdm=True, use_cpu=True)
    defaults = {"splits": splits(), "batch_size": 16}
    return Evaluator(BatchSource(Trainer(model, args)), **(defaults | kwargs))
