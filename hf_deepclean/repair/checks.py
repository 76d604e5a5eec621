# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses a repair that would have no step, and warns of one whose learning rate would not rise."""

import logging
from typing import Any

from transformers import TrainingArguments

from ..data.streams import is_stream
from ..runtime.processes import is_main_process, num_processes


logger = logging.getLogger(__name__)

# The schedules of transformers whose warm-up reaches the learning rate; the others have none.
_WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")


def check_repair_steps(args: TrainingArguments, retain_dataset: Any) -> None:
    """
    Refuses a repair whose batches would all be left out.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The arguments of the repair.
        retain_dataset ([`~datasets.Dataset`], map-style or iterable):
            The retain set.

    Raises:
        `ValueError`: If `dataloader_drop_last` leaves no batch.
    """
    if args.num_train_epochs <= 0 and args.max_steps <= 0:
        return
    processes = num_processes()
    if args.dataloader_drop_last and not is_stream(retain_dataset):
        rows, full = len(retain_dataset), args.train_batch_size * processes
        if rows < full:
            remedy = f", or set `per_device_train_batch_size` to at most {rows // processes}" * (rows >= processes)
            raise ValueError(
                f"`dataloader_drop_last=True` leaves out batches that are not full, and the {rows} rows of "
                f"`retain_dataset` fill none: a step takes {full} rows ({processes} processes with "
                f"{args.train_batch_size} each). The repair would have no step. Leave `dataloader_drop_last` "
                f"out{remedy}."
            )


def warn_of_long_warmup(args: TrainingArguments, steps: int) -> None:
    """
    Warns if the warm-up of a repair is longer than the repair.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The arguments of the repair.
        steps (`int`):
            Number of optimizer steps of the repair.
    """
    warmup = args.get_warmup_steps(steps)
    if 0 < steps <= warmup and str(args.lr_scheduler_type.value) not in _WITHOUT_WARMUP and is_main_process():
        logger.warning(
            f"`warmup_steps={args.warmup_steps:g}`, and the repair has {steps} steps: its learning rate rises to "
            f"{(steps - 1) / warmup:.0%} of `learning_rate` and never reaches it. Set `warmup_steps` to a share of "
            "the steps, such as 0.1."
        )
