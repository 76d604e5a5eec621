# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses options of a run: each by the module that uses it, and here those that no phase can check alone."""

import math
import sys
from numbers import Integral, Real

from transformers import TrainingArguments

from .evaluation.checks import check_measurements
from .fisher.checks import check_fisher_type
from .models.scope import check_reset_scope
from .publishing.redaction import check_disclosure
from .repair.plan import check_repair_options
from .reset.values import REWINDING, check_reset_value
from .runtime.processes import check_parallelism
from .selection.knowledge import check_target


_COUNTS = (
    *("per_device_fisher_batch_size", "fisher_max_examples", "num_selection_trials", "num_selection_examples"),
    *("training_steps", "relearning_num_examples", "max_repair_rounds", "gradient_accumulation_steps"),
    *("per_device_train_batch_size", "per_device_eval_batch_size"),
)

# What the random states of numpy and torch take.
_SEEDS = {"seed": (0, 2**32 - 1), "data_seed": (-(2**63), 2**63 - 1)}
# The range of numbers of the repair: at least the first, and below the second.
_RANGES = {
    **dict.fromkeys(("num_train_epochs", "learning_rate", "weight_decay", "warmup_steps"), (0, math.inf)),
    **dict.fromkeys(("max_grad_norm", "dataloader_num_workers"), (0, math.inf)),
    # Without it, the step of a weight whose gradients were all zero is 0 / 0.
    "adam_epsilon": (sys.float_info.min, math.inf),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), (0, 1)),
}


def check_options(args: TrainingArguments) -> None:
    """
    Refuses options that cannot be used, once the defaults that depend on others are filled in.

    Args:
        args ([`FisherUnlearningConfig`]):
            The configuration.

    Raises:
        `ValueError`: If one of them cannot be used.
    """
    check_fisher_type(args.fisher_type, None)
    check_target(args.target, args.selection)
    check_repair_options(
        args.forget_penalty, args.hard_example_share, args.selection, str(args.train_sampling_strategy)
    )
    check_reset_scope(args.reset_scope)
    if args.reset_value is not None:
        # A checkpoint that is not given is looked for.
        pretrained_model = args.pretrained_model or ("sought" if args.reset_value in REWINDING else None)
        check_reset_value(args.reset_value, pretrained_model, args.reset_scope)
    check_numbers(args)
    check_disclosure(args.forget_disclosure, args.forget_description)
    check_measurements(
        args.relearning_steps, args.relearning_learning_rate, args.relearning_data, args.quantization_bits
    )
    check_training_arguments(args)


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
    if not isinstance(args.budget, Real) or isinstance(args.budget, bool) or not 0 < args.budget < math.inf:
        raise ValueError(f"`budget` is {args.budget!r} but must be a share of the training, a number above 0.")
    if args.unseen_share_of_eval is not None and not 0 < args.unseen_share_of_eval < 1:
        raise ValueError(
            f"`unseen_share_of_eval` is {args.unseen_share_of_eval} but must be a share of the evaluation data, above "
            "0 and below 1."
        )
    for name, (least, end) in _RANGES.items():
        value = getattr(args, name)
        if value is None and name == "max_grad_norm":
            continue
        if not isinstance(value, Real) or isinstance(value, bool) or not least <= value < end:
            above = "of at least 0" if least == 0 else "above 0"
            bounds = f"a finite number {above}" if end == math.inf else f"at least {least} and below {end}"
            raise ValueError(f"`{name}` is {value!r} but must be {bounds}.")
    for name, (lowest, highest) in _SEEDS.items():
        value = getattr(args, name)
        if value is None and name == "data_seed":
            continue
        if not isinstance(value, Integral) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ValueError(
                f"`{name}` is {value!r} but must be a whole number from {lowest} to {highest}. Equal seeds give equal "
                "results, so a run needs one: leave it at its default if any will do."
            )
    for name in _COUNTS:
        value = getattr(args, name)
        if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
            raise ValueError(f"`{name}` is {value!r} but must be a whole number of at least 1.")
    _check_repair_learns(args)


def _check_repair_learns(args: TrainingArguments) -> None:
    if not isinstance(args.max_steps, Integral) or (args.max_steps < 1 and args.max_steps != -1):
        raise ValueError(
            f"`max_steps` is {args.max_steps!r} but must be at least 1, or -1 for those of `num_train_epochs`. For no "
            "repair, set `num_train_epochs=0`."
        )
    if args.learning_rate == 0 and (args.max_steps > 0 or args.num_train_epochs > 0):
        raise ValueError(
            "`learning_rate` is 0, with which the repair reads the retain data and changes nothing. Give a learning "
            "rate above 0, or set `num_train_epochs=0` for no repair."
        )


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
