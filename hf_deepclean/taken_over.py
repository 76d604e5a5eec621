# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Which arguments of a training its unlearning takes over."""

import os
from collections.abc import Collection
from typing import Any

from transformers import TrainingArguments


_OF_THE_HUB = ("push_to_hub", "hub_", "gradient_checkpointing")
# Arguments, or their beginnings, that say how long and by which schedule a training ran, by which optimizer and with
# which noise, when it was evaluated and saved, and what it was continued from.
_OF_THE_TRAINING = (
    *("num_train_epochs", "max_steps", "lr_scheduler_", "warmup_", "optim", "neftune_noise_alpha"),
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "save_", "load_best_model_at_end"),
    *("metric_for_best_model", "greater_is_better", "resume_from_checkpoint", "ignore_data_skip"),
    *("restore_callback_states_from_checkpoint", "do_"),
)


def values_taken_over(args: TrainingArguments, names: Collection[str]) -> dict[str, Any]:
    """
    Returns the values of training arguments that control a repair too.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The arguments.
        names (`Collection[str]`):
            Names of the fields of the new configuration.

    Raises:
        `TypeError`: If `args` are no training arguments.
    """
    if not isinstance(args, TrainingArguments):
        raise TypeError(f"`args` is a {type(args).__name__} but must be a `FisherUnlearningConfig`.")
    found = {name: getattr(args, name) for name in names if hasattr(args, name) and not name.startswith(_OF_THE_HUB)}
    if args.warmup_steps == 0:
        # The default of a training, which does not start from weights that were just reset.
        found.pop("warmup_steps", None)
    return found


def values_beside_training(args: TrainingArguments, names: Collection[str]) -> dict[str, Any]:
    """
    Returns the values for a run on the model that a training made: those that are not of the training alone, another
    output directory, and five times its learning rate.

    Args:
        args, names:
            As for [`values_taken_over`].

    Raises:
        `TypeError`: If `args` are no training arguments.
    """
    found = values_taken_over(args, names)
    return {name: value for name, value in found.items() if not name.startswith(_OF_THE_TRAINING)} | {
        "output_dir": f"{os.path.normpath(args.output_dir)}-unlearned",
        "learning_rate": 5 * args.learning_rate,
    }
