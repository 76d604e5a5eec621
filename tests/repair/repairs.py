# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Makes a small model, resets random weights, and makes the trainer that repairs them."""

import torch
from transformers import TrainingArguments

from hf_deepclean.repair.trainer import RepairTrainer
from hf_deepclean.reset.resetter import Reset, Resetter
from hf_deepclean.selection.weight_selection import draw_weights
from tests import tiny


def resnet():
    """A model with running statistics in buffers."""
    torch.manual_seed(0)
    return tiny.randomized(tiny.resnet(num_labels=10), torch.float32)


def reset_some(model, seed=0) -> Reset:
    """Resets a fifth of the weights to 0."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return Resetter(model, "zero").reset(draw_weights(sizes, sum(sizes.values()) // 5, seed))


def retain(num_rows=64):
    return tiny.digits().select(range(num_rows))


def trainer_for(folder, reset=None, model=None, **kwargs) -> RepairTrainer:
    """A trainer of four steps by plain training arguments, which `kwargs` replace, on the retain set."""
    defaults = {"learning_rate": 1e-2, "num_train_epochs": 2, "per_device_train_batch_size": 32, "weight_decay": 0.1}
    defaults |= {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    of_trainer = {name: kwargs.pop(name) for name in ("plan", "callbacks", "clock") if name in kwargs}
    args = TrainingArguments(str(folder), **(defaults | kwargs))
    model = reset.model if model is None else model
    return RepairTrainer(model, args, train_dataset=retain(), reset=reset, **of_trainer)
