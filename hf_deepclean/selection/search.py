# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The rule `"auto"`, which needs no threshold: it tries resets to find how deep a reset may go."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.streams import is_stream
from ..evaluation.predictions import ExamplePredictions
from .knowledge import BALANCED_MEASURE, CLASS_MEASURE, knowledge, measure_of_knowledge
from .weight_selection import WeightSelection


# The share of what the model knows of the retain data beyond chance that a reset must leave. If half is left, a repair
# of a few epochs brings the rest back. If almost nothing is left, it does not.
MIN_KNOWLEDGE_LEFT = 0.5
# If classes are to go less may be left, because nothing in the repair leads the model back to them.
MIN_KNOWLEDGE_LEFT_FOR_CHANCE = 0.3
# What a language model knows does not come from the retain data alone, so they bring less of it back.
MIN_KNOWLEDGE_LEFT_OF_LANGUAGE = 0.6
# What is learnt by heart sits deeper: the share falls by 1.5 times the difference between what the model knows of the
# forget data and of unseen data, down to the least share.
_LESS_PER_KNOWN_BY_HEART = 1.5
LEAST_KNOWLEDGE_LEFT = 0.15
# A request of at most this many examples is small. Only weights that hardly matter to the retain data are reset then,
# because the penalty of the repair brings the few examples to their losses by any weights that may move.
SMALL_REQUEST = 50
MIN_KNOWLEDGE_LEFT_OF_SMALL = 0.95
# Before a repair with fewer steps than this, at least one half must be left.
_FEW_REPAIR_STEPS = 100

# At most this many examples of each data set enter its Fisher if trials follow.
MAX_FISHER_EXAMPLES = 500

# The search is over this share to all of the weights that matter to the forget data.
_SMALLEST_SHARE = 1e-3

# The losses of unseen data are kept as this many quantiles, with the smallest and the largest loss.
_NUM_LOSS_QUANTILES = 101


@dataclass(frozen=True)
class ResetTrial:
    """
    What the model knows of samples of the data after a reset, without a repair.

    Args:
        num_selected (`int`): Number of weights that were reset.
        gamma (`float`, *optional*): The smallest ratio of forget to retain Fisher among these weights.
        forget, retain (`float`): What the model knows of the forget and of the retain data; see [`knowledge`].
    """

    num_selected: int
    gamma: float | None
    forget: float
    retain: float


@dataclass(frozen=True)
class SelectionSearch:
    """
    The record of a selection by the rule `"auto"`.

    Args:
        target (`str`): `"unseen"` or `"chance"`.
        measure (`str`): The measure of knowledge: `"accuracy"`, `"balanced accuracy"`, `"token accuracy"` or
            `"1 / (1 + loss)"`.
        chance (`float`): The knowledge of a collapsed model. For an adapter, that of its base if it is more.
        min_left (`float`): The share of the knowledge of the retain data beyond chance that a reset had to leave.
        before ([`ResetTrial`]): The model before any reset.
        trials (`tuple[ResetTrial, ...]`): The trials in order.
        chosen (`int`, *optional*): Index in `trials` of the trial whose weights were selected. `None` if all trials
            were rejected.
        num_examples (`dict[str, int]`): Number of examples in every sample.
        unseen_losses (`tuple[float, ...]`, *optional*): For the target `"unseen"`: evenly spaced quantiles of the
            losses of unseen examples before any reset, in nats, for token-level heads per scored token. `None` without
            unseen data.
    """

    target: str
    measure: str
    chance: float
    min_left: float
    before: ResetTrial
    trials: tuple[ResetTrial, ...]
    chosen: int | None
    num_examples: dict[str, int]
    unseen_losses: tuple[float, ...] | None = None

    @property
    def is_of_classes(self) -> bool:
        """Whether the model gives a class per example."""
        return self.measure in (CLASS_MEASURE, BALANCED_MEASURE)

    def rows(self, num_in_scope: int) -> list[list[str]]:
        """Returns the trials as rows of a table, in the order of their numbers of weights."""
        rows = [["reset (trial, without a repair)", f"forget {self.measure}", f"retain {self.measure}"]]
        for trial in (self.before, *sorted(self.trials, key=lambda trial: trial.num_selected)):
            name = f"{100 * trial.num_selected / num_in_scope:.3g} %" if trial.num_selected else "nothing"
            mark = " (chosen)" if self.chosen is not None and trial is self.trials[self.chosen] else ""
            rows.append([name + mark, f"{100 * trial.forget:.1f} %", f"{100 * trial.retain:.1f} %"])
        return rows


class UnrecoverableResetError(ValueError):
    """Every trial lost more of what the model knows of the retain data than a repair can be expected to bring back."""


def search_selection(
    num_candidates: int,
    select: Callable[[int], WeightSelection],
    before: Mapping[str, ExamplePredictions],
    evaluate: Callable[[WeightSelection], Mapping[str, ExamplePredictions]],
    target: str,
    num_trials: int,
    num_repair_steps: int,
    unseen: ExamplePredictions | None = None,
    base: ExamplePredictions | None = None,
    is_small: bool = False,
    is_rewound: bool = False,
) -> tuple[WeightSelection, SelectionSearch]:
    """
    Finds the deepest reset that a repair can recover from.

    A trial resets a number of weights with the largest ratios and evaluates the model on samples, by forward passes
    alone. The number is found by bisection on a logarithmic scale. A trial is rejected if too little is left of what
    the model knows of the retain data beyond chance; see [`min_knowledge_left`]. Test data take no part.

    Args:
        num_candidates (`int`):
            Number of weights that matter to the forget data, at least 1.
        select (`Callable`):
            Called with a number of weights, at least 1 and at most `num_candidates`. Returns that many weights with
            the largest ratios.
        before (`dict[str, ExamplePredictions]`):
            The model's answers on samples of `"forget"` and `"retain"`.
        evaluate (`Callable`):
            Called with a selection. Resets it, returns the answers on the same samples, and undoes the reset.
        target (`str`):
            `"unseen"` or `"chance"`; see [`target_of_request`].
        num_trials (`int`):
            Number of trials.
        num_repair_steps (`int`):
            Number of optimizer steps of the repair.
        unseen ([`ExamplePredictions`], *optional*):
            The model's answers on a sample of unseen data.
        base ([`ExamplePredictions`], *optional*):
            For an adapter: the answers of its base on the sample of `"retain"`, which no reset can take away.
        is_small (`bool`, *optional*, defaults to `False`):
            Whether the request is small; see [`is_small_request`]. With unseen data and the target `"unseen"` it needs
            a shallow reset, or else the shallowest of the trials.
        is_rewound (`bool`, *optional*, defaults to `False`):
            Whether the weights are reset to the checkpoint before fine-tuning. Then, with unseen data and the target
            `"unseen"`, a trial after which the forget data are no better known than these is deep enough.

    Returns:
        `tuple[WeightSelection, SelectionSearch]`: The selected weights, and the record of the search.

    Raises:
        `ValueError`: If the model knows no more of the retain data than chance.
        [`UnrecoverableResetError`]: If every trial was rejected. The message holds the table of the trials.
    """
    measure, chance = measure_of_knowledge(before["retain"])
    as_it_is = _trial(None, before, measure)
    _check_knows_more_than(chance, as_it_is, measure, len(before["retain"].labels))
    min_left = min_knowledge_left(target, num_repair_steps, before["forget"], unseen)
    if base is not None:
        chance = min(max(chance, knowledge(base, measure)), as_it_is.retain)
    is_shallow = is_small and unseen is not None and target == "unseen"
    shares = [MIN_KNOWLEDGE_LEFT_OF_SMALL, min_left] if is_shallow else [min_left]
    enough = [chance + share * (as_it_is.retain - chance) for share in shares]
    gone = knowledge(unseen, measure) if is_rewound and unseen is not None and target == "unseen" else -math.inf
    trials, chosen, selected = _bisect(num_candidates, num_trials, select, evaluate, enough[0], measure, gone)
    if chosen is None and trials[-1].retain >= enough[-1]:
        chosen = len(trials) - 1
    else:
        min_left = shares[0]
    sizes = {split: len(answers.labels) for split, answers in before.items()}
    losses = None
    if unseen is not None and target == "unseen":
        losses, sizes["unseen"] = _loss_quantiles(unseen), len(unseen.labels)
    search = SelectionSearch(target, measure, chance, min_left, as_it_is, tuple(trials), chosen, sizes, losses)
    if chosen is None:
        raise _unrecoverable(search, selected.num_in_scope)
    return selected, search


def _check_knows_more_than(chance: float, as_it_is: ResetTrial, measure: str, num_examples: int) -> None:
    if not as_it_is.retain > chance:
        raise ValueError(
            f"The model's {measure} on a sample of {num_examples} retain examples is "
            f"{as_it_is.retain:.3f}, and a model that always gives the same answer has {chance:.3f}: the model has "
            "learned nothing that a reset could spare. Pass the trained model and the data that it was trained on, or "
            "choose a `gamma` or `reset_fraction` yourself."
        )


def _loss_quantiles(unseen: ExamplePredictions) -> tuple[float, ...]:
    return tuple(np.quantile(-unseen.confidence(), np.linspace(0, 1, _NUM_LOSS_QUANTILES)).tolist())


def _unrecoverable(search: SelectionSearch, num_in_scope: int) -> UnrecoverableResetError:
    table = "\n".join("  ".join(row) for row in search.rows(num_in_scope))
    fewest = min(trial.num_selected for trial in search.trials)
    return UnrecoverableResetError(
        f"Every reset that was tried, down to {fewest:,} weights, leaves too little of what the model knows of the "
        f"retain data, and nothing was changed:\n{table}\n"
        "All answers depend on the weights that matter to the forget data. Name modules that must not be reset in "
        "`exclude_modules`, or choose a `reset_fraction` or `gamma` yourself."
    )


def _bisect(
    num_candidates: int,
    num_trials: int,
    select: Callable[[int], WeightSelection],
    evaluate: Callable[[WeightSelection], Mapping[str, ExamplePredictions]],
    enough: float,
    measure: str,
    gone: float,
) -> tuple[list[ResetTrial], int | None, WeightSelection]:
    """
    Tries numbers of weights. Returns the trials, the index of the deepest trial that leaves enough knowledge of the
    retain data, and its weights. If there is no such trial, the index is `None` and the weights are those of the last.
    Of the trials that leave enough and know no more of the forget data than `gone`, the shallowest counts.
    """
    low, high = math.log(max(1.0, _SMALLEST_SHARE * num_candidates)), math.log(num_candidates)
    trials: list[ResetTrial] = []
    chosen, selected = None, None
    for number in range(num_trials):
        middle = (low + high) / 2
        selection = select(max(1, round(math.exp(middle))))
        trials.append(_trial(selection, evaluate(selection), measure))
        if trials[-1].retain < enough:
            high = middle
            continue
        chosen, selected = number, selection
        low, high = (low, middle) if trials[-1].forget <= gone else (middle, high)
    return trials, chosen, selection if selected is None else selected


def is_small_request(forget_dataset: Any) -> bool:
    """
    Whether there are at most 50 examples to forget. A stream has an unknown number of them, and counts as large.

    Args:
        forget_dataset ([`~datasets.Dataset`], map-style or iterable):
            The forget set.
    """
    return not is_stream(forget_dataset) and len(forget_dataset) <= SMALL_REQUEST


def min_knowledge_left(
    target: str, num_repair_steps: int, forget: ExamplePredictions, unseen: ExamplePredictions | None
) -> float:
    """
    Returns the share of what a model knows of the retain data beyond chance that a reset must leave.

    Args:
        target (`str`):
            `"unseen"` or `"chance"`.
        num_repair_steps (`int`):
            Number of optimizer steps of the repair. A few steps do not bring back what a deep reset removes.
        forget ([`ExamplePredictions`]):
            The model's answers on the forget data.
        unseen ([`ExamplePredictions`], *optional*):
            The model's answers on unseen data. Without them the repair has no penalty that keeps the forget data away,
            so all depends on the reset.
    """
    if forget.tokens is not None and forget.tokens.classes is None:
        return MIN_KNOWLEDGE_LEFT_OF_LANGUAGE if target == "unseen" and unseen is not None else MIN_KNOWLEDGE_LEFT
    if num_repair_steps < _FEW_REPAIR_STEPS:
        return MIN_KNOWLEDGE_LEFT
    if target == "chance":
        return MIN_KNOWLEDGE_LEFT_FOR_CHANCE
    if unseen is None:
        return MIN_KNOWLEDGE_LEFT
    left = MIN_KNOWLEDGE_LEFT - _LESS_PER_KNOWN_BY_HEART * max(0.0, knowledge(forget) - knowledge(unseen))
    return max(LEAST_KNOWLEDGE_LEFT, left)


def _trial(selection: WeightSelection | None, answers: Mapping[str, ExamplePredictions], measure: str) -> ResetTrial:
    known = {split: knowledge(answer, measure) for split, answer in answers.items()}
    if selection is None:
        return ResetTrial(0, None, **known)
    return ResetTrial(selection.num_selected, selection.gamma, **known)
