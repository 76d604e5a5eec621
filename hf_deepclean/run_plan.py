# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Plans what a request may cost: examples, trials and steps within a share of the training."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config import FisherUnlearningConfig
from .data.streams import is_stream
from .evaluation.samples import MAX_EVALUATED_EXAMPLES, is_sampled
from .repair.checks import warn_of_long_warmup
from .repair.penalty import MIN_STEPS_PER_PENALTY, penalty_period
from .repair.plan import MAX_UNSEEN_EXAMPLES, max_steps_for, num_repair_steps, num_steps_per_epoch
from .report.plan import RunPlan
from .request import UnlearningRequest
from .reset.natural import (
    NUM_NATURAL_FISHER_EXAMPLES,
    NUM_RETAIN_EXAMPLES,
    NUM_SCALE_EXAMPLES,
    NUM_SCALES,
    NUM_UNSEEN_EXAMPLES,
    num_passes_over,
)
from .runtime.processes import is_main_process, num_processes
from .selection.search import MAX_FISHER_EXAMPLES, SMALL_REQUEST


logger = logging.getLogger(__name__)

# In row passes, the forward and backward pass of one row. A row of a Fisher takes 1.1 (long rows) to 2.1 (short ones).
_FISHER_ROW, _FORWARD = 1.5, 1 / 3
# Both Fishers take at most the first share of the budget, the trials at most the second; the repair gets the rest.
_SHARE_OF_FISHERS, _SHARE_OF_TRIALS = 1 / 3, 1 / 4
_LEAST_FISHER_EXAMPLES = 64
_TRIALS, _TRIAL_EXAMPLES = (6, 3), (64, 32)
_LEAST_STEPS = 8
# Of the reset that moves the forget rows alone.
_NATURAL_STEPS = 40


def plan_run(request: UnlearningRequest, args: FisherUnlearningConfig) -> RunPlan:
    """
    Plans a run within `args.budget` of the training that made the model. It reads no row.

    What the arguments set wins: `fisher_max_examples`, `num_selection_trials`, `num_selection_examples` and
    `max_steps`. If the length of the training is unknown, nothing is limited by the budget.

    Args:
        request ([`UnlearningRequest`]):
            The request.
        args ([`FisherUnlearningConfig`]):
            The configuration.

    Returns:
        [`RunPlan`]
    """
    job = _Job.of(request, args)
    budget = None if job.training_passes is None else args.budget * job.training_passes
    # What the phases that come later take at least.
    (trials, examples), repair = job.trials(0), job.least_repair_passes
    later = job.selection_passes(trials, examples)
    fisher = job.fisher_examples(budget, None if budget is None else budget - repair - sum(later.values()))
    passes = job.fisher_passes(fisher)
    left = None if budget is None else min(_SHARE_OF_TRIALS * budget, budget - repair - sum(passes.values()))
    trials, examples = job.trials(left)
    passes |= job.selection_passes(trials, examples)
    steps, most = job.steps(None if budget is None else budget - sum(passes.values()))
    if steps:
        passes["repair"] = steps * job.step_passes
    total, rounds = sum(passes.values()), args.max_repair_rounds
    if budget is not None and args.max_steps <= 0 and steps:
        rounds = max(1, min(rounds, 1 + math.floor((budget - total) / passes["repair"])))
    retrain, over = job.warnings(total, budget)
    return RunPlan(
        budget=args.budget,
        training_steps=args.training_steps,
        training_passes=job.training_passes,
        passes=passes,
        evaluation_passes=job.evaluation_passes(request),
        max_fisher_examples=fisher,
        num_trials=trials,
        num_trial_examples=examples,
        num_repair_steps=steps,
        is_repair_cut=steps < most,
        max_repair_rounds=rounds,
        num_forget=job.sizes["forget"],
        num_retain=job.sizes["retain"],
        max_evaluated_examples=MAX_EVALUATED_EXAMPLES,
        notes=job.notes(),
        over_budget=over,
        is_within_an_epoch=steps <= num_steps_per_epoch(args, request.splits["retain"]),
        retrain_instead=retrain,
    )


def warn_of_plan(plan: RunPlan, args: FisherUnlearningConfig) -> None:
    """
    Warns before any heavy work if training anew is cheaper, if the budget does not suffice, or if the learning rate
    of the repair would not rise.

    Args:
        plan ([`RunPlan`]):
            The plan.
        args ([`FisherUnlearningConfig`]):
            The configuration.
    """
    if not is_main_process():
        return
    for warning in filter(None, (plan.retrain_instead, plan.over_budget)):
        logger.warning(warning)
    warn_of_long_warmup(args, plan.num_repair_steps)


def natural_reset_passes(num_forget: int) -> float:
    """
    Returns what the reset `"natural"` costs in row passes: passes over the forget set, each with a forward pass more,
    two forward passes beside them, and forward passes over samples.

    Args:
        num_forget (`int`):
            Number of rows of the forget set.
    """
    rows = NUM_RETAIN_EXAMPLES + NUM_UNSEEN_EXAMPLES + 2 * NUM_SCALE_EXAMPLES
    of_forget = num_passes_over(num_forget) * (1 + _FORWARD) + 2 * _FORWARD
    return of_forget * num_forget + _FORWARD * (NUM_SCALES * min(num_forget, NUM_SCALE_EXAMPLES) + rows)


@dataclass(frozen=True)
class _Job:
    """The sizes of a request, and what its phases cost."""

    args: FisherUnlearningConfig
    splits: Mapping[str, Any]
    sizes: Mapping[str, int | None]
    is_natural: bool
    has_kept_fisher: bool
    num_labels: int

    @classmethod
    def of(cls, request: UnlearningRequest, args: FisherUnlearningConfig) -> "_Job":
        sizes = {split: None if is_stream(rows) else len(rows) for split, rows in request.splits.items()}
        labels = getattr(getattr(request.model, "config", None), "num_labels", 1)
        kept = request.kept_fisher is not None
        return cls(args, request.splits, sizes, request.reset_value == "natural", kept, labels)

    @property
    def rows_per_batch(self) -> int:
        return self.args.train_batch_size * num_processes()

    @property
    def training_passes(self) -> float | None:
        if self.args.training_steps is None:
            return None
        return float(self.args.training_steps * self.rows_per_batch * self.args.gradient_accumulation_steps)

    @property
    def num_forget_batches(self) -> int | None:
        size = self.sizes["forget"]
        return None if size is None else math.ceil(size / self.rows_per_batch)

    @property
    def step_passes(self) -> float:
        """Row passes of an optimizer step of the repair, with its share of the penalty."""
        args, forget = self.args, self.sizes["forget"] or self.rows_per_batch
        rows = self.rows_per_batch * args.gradient_accumulation_steps
        if self.sizes["retain"] is not None:
            rows = min(rows, self.sizes["retain"])
        if args.selection != "auto" or args.forget_penalty == 0 or "unseen" not in self.splits:
            return rows
        period = MIN_STEPS_PER_PENALTY
        if forget > SMALL_REQUEST:
            period = penalty_period(num_steps_per_epoch(args, self.splits["retain"]), self.num_forget_batches or 1)
        return rows + (1 + _FORWARD) * min(self.rows_per_batch, forget) / period

    @property
    def least_repair_passes(self) -> float:
        args, most = self.args, num_repair_steps(self.args, self.splits["retain"])
        return self.step_passes * (most if args.max_steps > 0 else min(_LEAST_STEPS, most))

    def fisher_examples(self, budget: float | None, left: float | None) -> int | None:
        """At most this many examples of each data set enter its Fisher; `None` for all."""
        args, sizes = self.args, [self.sizes["forget"], self.sizes["retain"]]
        # A kept Fisher holds all rows, and the first rows of a stream may all be of one class.
        if args.fisher_max_examples is not None or self.has_kept_fisher:
            return args.fisher_max_examples
        if self.is_natural:
            return MAX_FISHER_EXAMPLES
        most = MAX_FISHER_EXAMPLES if args.selection == "auto" else None
        if budget is None or None in sizes:
            return most
        rows = math.floor(min(_SHARE_OF_FISHERS * budget, left) / self.fisher_row)
        if most is None and sum(sizes) <= rows:
            return None
        fits = max(rows // 2, rows - min(sizes), _LEAST_FISHER_EXAMPLES)
        return fits if most is None else min(most, fits)

    @property
    def fisher_row(self) -> float:
        # The expectation takes a backward pass for each class.
        return _FISHER_ROW if self.args.fisher_type != "expected" else _FORWARD + self.num_labels * (1 - _FORWARD)

    def fisher_passes(self, most: int | None) -> dict[str, float]:
        splits = ["forget"] if self.has_kept_fisher else ["forget", "retain"]
        sizes = {f"{split} Fisher": self.sizes[split] for split in splits}
        if self.is_natural and "retain Fisher" in sizes and self.args.fisher_max_examples is None:
            sizes["retain Fisher"] = min(sizes["retain Fisher"], NUM_NATURAL_FISHER_EXAMPLES)
        return {
            name: self.fisher_row * (size if most is None else min(most, size))
            for name, size in sizes.items()
            if size is not None
        }

    def trials(self, left: float | None) -> tuple[int, int]:
        """The number of trials of the selection, and of the examples in each."""
        given = self.args.num_selection_trials, self.args.num_selection_examples
        (most, least), (all_examples, fewest) = _TRIALS, _TRIAL_EXAMPLES
        plans = [(trials, all_examples) for trials in range(most, least, -1)]
        plans += [(least, examples) for examples in range(all_examples, fewest - 1, -1)]
        plans = list(dict.fromkeys(tuple(g or p for g, p in zip(given, plan, strict=True)) for plan in plans))
        fits = (plan for plan in plans if left is None or sum(self.selection_passes(*plan).values()) <= left)
        return next(fits, plans[-1])

    def selection_passes(self, num_trials: int, num_examples: int) -> dict[str, float]:
        if self.is_natural:
            return {"natural reset": natural_reset_passes(self.sizes["forget"] or 0)}
        if self.args.selection != "auto":
            return {}
        sizes = [self.sizes.get(split) or num_examples for split in ("forget", "retain")]
        # The model as it is, and an adapter's base.
        num_models = num_trials + 1 + (self.args.reset_scope == "adapter")
        unseen = min(MAX_UNSEEN_EXAMPLES, self.sizes["unseen"] or MAX_UNSEEN_EXAMPLES) if "unseen" in self.sizes else 0
        return {"selection": _FORWARD * (num_models * sum(min(num_examples, size) for size in sizes) + unseen)}

    def steps(self, left: float | None) -> tuple[int, int]:
        """The number of steps of the repair, and that of `num_train_epochs` epochs."""
        args, most = self.args, num_repair_steps(self.args, self.splits["retain"])
        if args.max_steps > 0 or most == 0:
            return most, most
        bounds = [most]
        if self.num_forget_batches is not None:
            bounds.append(max_steps_for(self.num_forget_batches))
            if self.is_natural:
                bounds.append(_NATURAL_STEPS + self.num_forget_batches)
        if left is not None:
            bounds.append(max(_LEAST_STEPS, math.floor(left / self.step_passes)))
        return min(bounds), most

    def evaluation_passes(self, request: UnlearningRequest) -> float | None:
        if None in self.sizes.values():
            return None
        rows = sum(self.sizes.values())
        if is_sampled(self.splits["retain"]):
            rows -= self.sizes["retain"] - MAX_EVALUATED_EXAMPLES
        num_stages = 2 + len(request.models_to_compare) + 2 * self.args.random_mask_control
        return _FORWARD * num_stages * rows

    def warnings(self, total: float, budget: float | None) -> tuple[str | None, str | None]:
        """Says that training anew is cheaper, or that the budget does not suffice."""
        args, training = self.args, self.training_passes
        given = ("fisher_max_examples", "num_selection_trials", "num_selection_examples")
        is_set = args.max_steps > 0 or any(getattr(args, name) is not None for name in given)
        what = "this run, as it is set," if is_set else "the least that this run can do"
        if training is not None and total >= training:
            return (
                f"Training anew is cheaper: training anew costs {training:,.0f} row passes, {what} costs "
                f"{total:,.0f}. Fine-tune the checkpoint again without these rows."
            ), None
        if budget is not None and math.floor(total) > budget:
            return None, (
                f"The budget does not suffice: {args.budget:.3g} of the training are {budget:,.0f} row passes, {what} "
                f"costs {total:,.0f}. Raise `budget`, or fine-tune the checkpoint again without these rows."
            )
        return None, None

    def notes(self) -> tuple[str, ...]:
        """What else the owner should know."""
        notes, retain = [], self.splits["retain"]
        if self.training_passes is None:
            notes.append(
                "The length of the training is not known. Pass `training_steps`, so that the cost of a request is "
                "compared with it and kept within `budget`."
            )
        if is_sampled(retain):
            notes.append(
                f"The retained data are evaluated on a sample of {MAX_EVALUATED_EXAMPLES:,} of {len(retain):,} rows."
            )
        return tuple(notes)
