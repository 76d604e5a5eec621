# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The dress rehearsal: every step of a run on a few rows, before the run."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import Subset

from ..config import FisherUnlearningConfig
from ..data.loaders import BatchSource
from ..data.streams import is_stream
from ..models.contexts import restoring
from ..models.module_state import ModuleState
from ..phases import Phases
from ..repair.optimizer import SparseAdamW
from ..repair.trainer import RepairTrainer
from .errors import explained
from .metrics import check_best_metric, check_early_stopping, try_metrics
from .passes import check_buffers, check_weights, sums_of_weights, try_evaluation, try_repair_step
from .saving import try_saving


# Two rows may have different lengths.
NUM_ROWS = 2

# The data sets that the run differentiates or trains on.
_TRAINED = ("forget", "retain")


def rehearse(phases: Phases) -> None:
    """
    Tries every step of a run on the first rows of every data set, so that what cannot work is told now and not after
    hours. Afterwards everything is what it was, bit for bit. All processes do the same.

    It tries to save the result, to make optimizer and schedule of the repair, to evaluate every data set, to compute
    the caller's metrics, and to differentiate the loss of the repair in training mode. With `dress_rehearsal=False`
    it only looks for labels in the first row of every data set.

    Args:
        phases ([`Phases`]):
            The phases of the run.

    Raises:
        The error that would have ended the run, of the same type if possible, with the step and the data set.
    """
    if not phases.args.dress_rehearsal:
        for _ in phases.request.first_batches(phases.source, 1):
            pass
        return
    try_saving(phases)
    trainer, is_repaired = phases.trainer, phases.args.num_train_epochs > 0 or phases.args.max_steps > 0
    with _as_before(trainer), restoring(trainer.model), torch.inference_mode(False), torch.enable_grad():
        if is_repaired:
            _try_repair_plan(trainer, phases.source, phases.request.retain_dataset, phases.plan.num_repair_steps)
        metrics = _try_passes(phases, _TRAINED if is_repaired else ())
    if is_repaired:
        check_best_metric(phases.args, {split: found for split, found in metrics.items() if split.startswith("eval")})


def _try_passes(phases: Phases, trained: Collection[str]) -> dict[str, dict[str, float] | None]:
    """Evaluates a batch of every data set, and differentiates it if the repair may; returns the caller's metrics."""
    model, args, request = phases.model, phases.args, phases.request
    evaluator = replace(phases.make_evaluator(), source=replace(phases.source, num_workers=0))
    state, sums = ModuleState(model, whole=True), sums_of_weights(model)
    batches, metrics = dict(request.first_batches(evaluator.source, NUM_ROWS)), {}
    for split, batch in batches.items():
        with explained(f"the evaluation of the first rows of `{split}_dataset`", _memory_remedy(args, "eval")):
            predictions = try_evaluation(evaluator, model, batch)
        metrics[split] = try_metrics(evaluator, model, split, predictions)
    check_buffers(model, state, training=False)
    for split in trained:
        with explained(f"the repair's loss on the first rows of `{split}_dataset`", _memory_remedy(args, "train")):
            try_repair_step(phases.trainer, request.parameters_in_scope(args), batches[split])
    check_buffers(model, state, training=True)
    check_weights(model, sums)
    return metrics


def _try_repair_plan(trainer: RepairTrainer, source: BatchSource, retain_dataset: Any, num_steps: int) -> None:
    """Makes what the repair makes before its first step: optimizer, schedule of the learning rate, order of rows."""
    args, weight = trainer.args, nn.Parameter(torch.zeros(1))
    check_early_stopping(args, trainer.callback_handler.callbacks)
    optimizer = SparseAdamW([("weight", weight)], {"weight": torch.zeros(1, dtype=torch.int64)}, lr=args.learning_rate)
    trainer.lr_scheduler = None
    with explained("the schedule of the learning rate (`lr_scheduler_type`, `lr_scheduler_kwargs`)"):
        trainer.create_scheduler(max(1, num_steps), optimizer)
    if not is_stream(retain_dataset):
        rows = range(min(NUM_ROWS, len(retain_dataset)))
        first = retain_dataset.select(rows) if isinstance(retain_dataset, Dataset) else Subset(retain_dataset, rows)
        with explained("the loader of the retain rows (`train_sampling_strategy`, `dataloader_*`)"):
            trainer._get_train_sampler(source.rows_and_collator(first, None)[0])


def _memory_remedy(args: FisherUnlearningConfig, kind: str) -> str:
    size = getattr(args, f"per_device_{kind}_batch_size")
    further = ", set `gradient_checkpointing=True`" if kind == "train" else ""
    return (
        f"The memory did not suffice for {NUM_ROWS} rows, and a batch has {size}: lower "
        f"`per_device_{kind}_batch_size`{further}, or load the model in bfloat16."
    )


@contextmanager
def _as_before(trainer: RepairTrainer) -> Iterator[None]:
    """What the trainer notes inside the block is forgotten."""
    # Trainer would note these with the first batch that it makes.
    trainer._set_signature_columns_if_needed()
    before = dict(vars(trainer))
    try:
        yield
    finally:
        vars(trainer).clear()
        vars(trainer).update(before)
