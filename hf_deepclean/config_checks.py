# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses options that no phase can check alone: numbers, and training arguments that the repair cannot honour."""

from transformers import TrainingArguments

from .runtime.processes import check_parallelism


_COUNTS = (
    *("per_device_fisher_batch_size", "fisher_max_examples", "num_selection_trials", "num_selection_examples"),
    *("relearning_num_examples", "max_repair_rounds"),
)


def check_numbers(args: TrainingArguments) -> None:
    """
    Refuses numbers out of range.

    Args:
        args ([`FisherUnlearningConfig`]):
            The configuration.

    Raises:
        `ValueError`: If one of them is out of range.
    """
    if args.accumulator_device not in (None, "cpu"):
        raise ValueError(
            f"`accumulator_device` is {args.accumulator_device!r} but must be 'cpu', or left out to keep the sums "
            "on the device of the weights."
        )
    if not args.state_save_seconds >= 0:
        raise ValueError(f"`state_save_seconds` is {args.state_save_seconds} but must be at least 0.")
    if args.unseen_share_of_eval is not None and not 0 < args.unseen_share_of_eval < 1:
        raise ValueError(
            f"`unseen_share_of_eval` is {args.unseen_share_of_eval} but must be a share of the evaluation data, above "
            "0 and below 1."
        )
    for name in _COUNTS:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"`{name}` is {value} but must be at least 1.")


def check_training_arguments(args: TrainingArguments) -> None:
    """
    Refuses arguments of the Trainer that the repair cannot honour, or that would publish what is to be forgotten.

    Args:
        args ([`FisherUnlearningConfig`]):
            The configuration.

    Raises:
        `ValueError`: If there is one.
    """
    if args.push_to_hub:
        raise ValueError(
            "`push_to_hub=True` would publish checkpoints of a model that still holds what it is to forget. Leave "
            "it out, and call `unlearner.push_to_hub(repo_id)` after `unlearn()`."
        )
    if not str(args.optim.value).startswith("adamw"):
        raise ValueError(
            f"`optim` is {args.optim.value!r}, but the repair trains single weights, which only `SparseAdamW` "
            "does. Leave `optim` at its default. Learning rate, betas, epsilon and weight decay are honoured."
        )
    check_parallelism(fsdp=bool(args.fsdp), deepspeed=bool(args.deepspeed))
