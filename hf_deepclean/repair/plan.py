# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Plans what a repair does beyond plain training, before its first step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import TrainingArguments

from ..data.loaders import BatchSource
from ..data.streams import first_rows, is_stream
from ..runtime.processes import num_processes
from ..selection.knowledge import LOSS_MEASURE
from ..selection.search import SelectionSearch, is_small_request
from .hard_examples import HardExampleSampler
from .penalty import MIN_STEPS_PER_PENALTY, ForgetPenalty, penalty_period


# At most this many unseen examples give the losses that forget examples are held to.
MAX_UNSEEN_EXAMPLES = 1000

# Weight of the penalty, and share of the repair over which its targets rise. A language model drifts further from
# examples that it was pushed away from, so it is pushed less and never all the way. An adapter hardly drifts, so it is
# pushed all the way before the learning rate is too low to move it.
_CLASSIFIER_PENALTY, _LANGUAGE_MODEL_PENALTY = (1.5, 1.0), (1.0, 1.25)
_ADAPTER_PENALTY_RISE = 0.85

# A model with at least this accuracy on the retain data knows them by heart. The later epochs of its repair then read
# this share of them.
_KNOWN_BY_HEART, _HARD_EXAMPLE_SHARE = 0.98, 0.5


@dataclass(frozen=True)
class RepairPlan:
    """
    What a repair does beyond plain training on the retain set.

    Args:
        make_penalty (`Callable`, *optional*):
            Makes the [`ForgetPenalty`], which keeps the repair from bringing the forget data back. The repair calls it
            after its seed is set, because it may read rows that draw at random. By default there is no penalty.
        penalty_weight (`float`, *optional*, defaults to `0.0`):
            The weight of the penalty, also if there is no penalty for lack of unseen data.
        hard_example_share (`float`, *optional*, defaults to `1.0`):
            Share of the rows that the later epochs read; see [`HardExampleSampler`].
        num_steps (`int`, *optional*):
            Number of optimizer steps. By default those of the training arguments.
    """

    make_penalty: Callable[[], ForgetPenalty] | None = None
    penalty_weight: float = 0.0
    hard_example_share: float = 1.0
    num_steps: int | None = None

    @classmethod
    def of(
        cls,
        source: BatchSource,
        args: TrainingArguments,
        splits: Mapping[str, Any],
        search: SelectionSearch | None,
        *,
        forget_penalty: float | None = None,
        hard_example_share: float | None = None,
        reset_scope: str = "full",
        num_steps: int | None = None,
    ) -> "RepairPlan":
        """
        Plans the repair of a selection.

        Args:
            source ([`BatchSource`]):
                Makes the batches of the penalty.
            args ([`~transformers.TrainingArguments`]):
                The arguments of the repair.
            splits (`dict[str, Any]`):
                The data sets by name.
            search ([`SelectionSearch`], *optional*):
                The record of the trials, if the rule was `"auto"`. Without it there is no penalty, and all rows are
                read.
            forget_penalty (`float`, *optional*):
                The weight of the penalty. By default it depends on the kind of model.
            hard_example_share (`float`, *optional*):
                Share of the rows that later epochs read. By default it depends on what the model knew of them.
            reset_scope (`str`, *optional*, defaults to `"full"`):
                `"full"` or `"adapter"`.
            num_steps (`int`, *optional*):
                Number of optimizer steps.
        """
        is_classifier = search is not None and search.is_of_classes
        weight, rise = _CLASSIFIER_PENALTY if is_classifier else _LANGUAGE_MODEL_PENALTY
        if reset_scope == "adapter":
            rise = _ADAPTER_PENALTY_RISE
        weight = weight if forget_penalty is None else forget_penalty
        share = _hard_example_share(args, splits["retain"], search, hard_example_share)
        if search is None or search.unseen_losses is None or weight == 0:
            return cls(None, weight, share, num_steps)
        on_odds = search.measure != LOSS_MEASURE
        make = partial(_make_penalty, source, args, splits, search.unseen_losses, weight, rise, on_odds)
        return cls(make, weight, share, num_steps)

    def new_row_order(self, num_rows: int) -> HardExampleSampler | None:
        """
        Makes the order of the rows of one training, or returns `None` for the usual order.

        Args:
            num_rows (`int`):
                Number of rows of the retain set.
        """
        return None if self.hard_example_share == 1 else HardExampleSampler(num_rows, self.hard_example_share)


def check_repair_options(
    forget_penalty: float | None, hard_example_share: float | None, rule: str, train_sampling_strategy: str
) -> None:
    """
    Refuses options of the repair that are out of range, or do not fit the rule of selection or the order of the rows.

    Args:
        forget_penalty, hard_example_share (`float`, *optional*):
            As for [`RepairPlan.of`].
        rule (`str`):
            The rule of selection.
        train_sampling_strategy (`str`):
            As for [`~transformers.TrainingArguments`].

    Raises:
        `ValueError`: If one of them cannot be used.
    """
    weight = forget_penalty or 0.0
    if not 0 <= weight < math.inf:
        raise ValueError(f"`forget_penalty` is {forget_penalty} but must be a finite weight, 0 or more.")
    if weight > 0 and rule != "auto":
        raise ValueError(
            f"`forget_penalty={forget_penalty}` holds the forget data to losses that `selection='auto'` finds, and "
            f"the rule is {rule!r}. Leave one of them out."
        )
    if hard_example_share is not None and not 0 < hard_example_share <= 1:
        raise ValueError(
            f"`hard_example_share` is {hard_example_share} but must be a share of the retain set, above 0 and at most "
            "1 (all rows)."
        )
    if (hard_example_share or 1) < 1 and train_sampling_strategy != "random":
        raise ValueError(
            f"`hard_example_share={hard_example_share}` orders the rows by their losses, but "
            f"`train_sampling_strategy={train_sampling_strategy!r}` orders them otherwise. Leave one of them out."
        )


def num_repair_steps(args: TrainingArguments, retain_dataset: Any) -> int:
    """
    Returns the number of optimizer steps that the arguments of a repair ask for.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The training arguments.
        retain_dataset ([`~datasets.Dataset`], map-style or iterable):
            The retain set. An epoch of a stream has an unknown length and counts as 0 steps.
    """
    if args.max_steps > 0:
        return args.max_steps
    return math.ceil(args.num_train_epochs * num_steps_per_epoch(args, retain_dataset))


def max_steps_for(num_forget_batches: int) -> int:
    """
    Returns the largest number of optimizer steps that a repair of whole epochs gets, so that it grows with what was
    forgotten and not with what is retained.

    Args:
        num_forget_batches (`int`):
            Number of batches of the forget set.
    """
    return 300 + 8 * num_forget_batches


def num_steps_per_epoch(args: TrainingArguments, retain_dataset: Any) -> int:
    """
    Returns the number of optimizer steps of one epoch of a repair.

    Args:
        args, retain_dataset:
            As for [`num_repair_steps`].
    """
    if is_stream(retain_dataset):
        return 0
    batches = len(retain_dataset) / (args.train_batch_size * num_processes())
    batches = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    return max(1, math.ceil(batches / args.gradient_accumulation_steps))


def _make_penalty(
    source: BatchSource,
    args: TrainingArguments,
    splits: Mapping[str, Any],
    unseen_losses: tuple[float, ...],
    weight: float,
    rise: float,
    on_odds: bool,
) -> ForgetPenalty:
    def rows(dataset: Any) -> Any:
        # A stream cannot be read in another order, so its first rows are kept in memory.
        return list(first_rows(dataset, MAX_UNSEEN_EXAMPLES)) if is_stream(dataset) else dataset

    (forget, collator), (unseen, _) = (
        source.rows_and_collator(rows(splits[name]), "penalty") for name in ("forget", "unseen")
    )
    few = is_small_request(splits["forget"])
    num_batches = math.ceil(len(forget) / (args.train_batch_size * num_processes()))
    return ForgetPenalty(
        forget,
        unseen,
        collator,
        unseen_losses,
        weight=weight,
        batch_size=args.train_batch_size,
        period=MIN_STEPS_PER_PENALTY
        if few
        else penalty_period(num_steps_per_epoch(args, splits["retain"]), num_batches),
        rise=rise,
        seed=args.seed,
        few=few,
        on_odds=few and on_odds,
    )


def _hard_example_share(
    args: TrainingArguments, retain_dataset: Any, search: SelectionSearch | None, share: float | None
) -> float:
    is_ordered = args.train_sampling_strategy == "random"
    if share is not None or is_stream(retain_dataset) or not is_ordered:
        return 1.0 if share is None else share
    # If the model did not know all rows, those it never knew have large losses too, and it should not learn them now.
    is_known = search is not None and search.is_of_classes and search.before.retain >= _KNOWN_BY_HEART
    return _HARD_EXAMPLE_SHARE if is_known else 1.0
