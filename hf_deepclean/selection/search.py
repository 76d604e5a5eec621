# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The selection that needs no threshold: how deep a reset may go is found by trying, with forward passes alone."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..evaluation.predictions import ExamplePredictions
from .knowledge import CLASS_MEASURE, knowledge, measure_of_knowledge
from .weight_selection import WeightSelection


# Of what the model knows of the retained data beyond chance, as much must be left after the reset: from there a repair
# of a few epochs brings the rest back, and from next to nothing it does not. Where classes are to go it may be less,
# because nothing in the repair draws the model back to them. What a model has learnt by heart sits deeper: the more it
# knows the forget data better than unseen ones, the less must be left, down to the least. What a language model knows
# comes from more than the retained data, so that they bring less of it back.
MIN_KNOWLEDGE_LEFT = 0.5
MIN_LEFT_FOR_CHANCE = 0.3
LEAST_KNOWLEDGE_LEFT = 0.15
MIN_LANGUAGE_LEFT = 0.6
_LESS_PER_KNOWN_BY_HEART = 1.5
# Of a repair with fewer steps nothing deeper than the first is asked.
_FEW_REPAIR_STEPS = 100

# Examples of each data set that enter its Fisher if trials follow.
MAX_FISHER_EXAMPLES = 500

# The search begins with a trial between these shares of the weights that matter to the forget data.
_SMALLEST_SHARE = 1e-3

# The losses of unseen data are kept as so many quantiles, the least and the largest among them.
_NUM_LOSS_QUANTILES = 101


@dataclass(frozen=True)
class ResetTrial:
    """
    What a reset alone leaves, on samples of the data.

    Args:
        num_selected (`int`): Number of weights that were reset.
        gamma (`float`, *optional*): The smallest ratio of forget to retain Fisher among them; none if none were.
        forget, retain (`float`): What the model knows of the data to forget and to keep; see [`knowledge`].
    """

    num_selected: int
    gamma: float | None
    forget: float
    retain: float


@dataclass(frozen=True)
class SelectionSearch:
    """
    How the selection `"auto"` came about.

    Args:
        target (`str`): `"unseen"` or `"chance"`.
        measure (`str`): What is meant by knowledge: `"accuracy"`, `"token accuracy"` or `"1 / (1 + loss)"`.
        chance (`float`): The knowledge of a model that has collapsed; of an adapter, that of its base if it is more.
        min_left (`float`): Of the knowledge of the retained data beyond chance, the share that a reset had to leave.
        before ([`ResetTrial`]): The model as it was.
        trials (`tuple[ResetTrial, ...]`): Every trial, in order.
        chosen (`int`, *optional*): The place in `trials` of the one whose weights were selected; none if all were
            rejected.
        num_examples (`dict[str, int]`): Examples of every sample.
        unseen_losses (`tuple[float, ...]`, *optional*): For the target `"unseen"` evenly spaced quantiles of the loss
            of unseen examples under the model as it was, in nats, for token-level heads per scored token; none without
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
        return self.measure == CLASS_MEASURE

    def rows(self, num_in_scope: int) -> list[list[str]]:
        """The trade-off as a table for people: every trial by its number of weights, the chosen one marked."""
        rows = [["reset (trial, without a repair)", f"forget {self.measure}", f"retain {self.measure}"]]
        for trial in (self.before, *sorted(self.trials, key=lambda trial: trial.num_selected)):
            name = f"{100 * trial.num_selected / num_in_scope:.3g} %" if trial.num_selected else "nothing"
            mark = " (chosen)" if self.chosen is not None and trial is self.trials[self.chosen] else ""
            rows.append([name + mark, f"{100 * trial.forget:.1f} %", f"{100 * trial.retain:.1f} %"])
        return rows


class UnrecoverableResetError(ValueError):
    """Every reset that was tried costs more of what is to be kept than a repair can be expected to bring back."""


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
) -> tuple[WeightSelection, SelectionSearch]:
    """
    Finds the deepest reset that a repair can recover from.

    The weights are taken in the order of their ratios, and how many of them is found by bisection on a logarithmic
    scale: a number is tried by a reset and forward passes over samples, and rejected if too little is left of what
    the model knows of the retained data beyond chance ([`min_knowledge_left`]).

    Neither a reference model nor test data take part.

    Args:
        num_candidates (`int`):
            Number of weights that matter to the forget data, at least 1.
        select (`Callable`):
            Called with a number of weights, at least 1 and at most `num_candidates`; returns as many of them with the
            largest ratios.
        before (`dict[str, ExamplePredictions]`):
            The model's answers on samples of `"forget"` and `"retain"`.
        evaluate (`Callable`):
            Called with a selection; resets it, returns the answers on the same samples, and undoes the reset.
        target (`str`):
            `"unseen"` or `"chance"`; see [`target_of_request`].
        num_trials (`int`):
            Number of trials.
        num_repair_steps (`int`):
            Optimizer steps of the repair.
        unseen ([`ExamplePredictions`], *optional*):
            The model's answers on a sample of unseen data.
        base ([`ExamplePredictions`], *optional*):
            Of an adapter, the answers of its base on the sample of `"retain"`: what no reset can take away.

    Returns:
        `tuple[WeightSelection, SelectionSearch]`

    Raises:
        `ValueError`: If the model knows no more of the retained data than chance.
        [`UnrecoverableResetError`]: If every trial was rejected; its message holds the table.
    """
    measure, chance = measure_of_knowledge(before["retain"])
    as_it_is = _trial(None, before)
    if not as_it_is.retain > chance:
        raise ValueError(
            f"The model's {measure} on a sample of {len(before['retain'].labels)} retained examples is "
            f"{as_it_is.retain:.3f}, where one that always gives the same answer has {chance:.3f}: it has learned "
            "nothing that a reset could spare. Pass the trained model and the data it was trained on, or choose a "
            "`gamma` or `reset_fraction` yourself."
        )
    min_left = min_knowledge_left(target, num_repair_steps, before["forget"], unseen)
    if base is not None:
        chance = min(max(chance, knowledge(base)), as_it_is.retain)
    enough = chance + min_left * (as_it_is.retain - chance)
    trials, chosen, selected = _bisect(num_candidates, num_trials, select, evaluate, enough)
    sizes = {split: len(answers.labels) for split, answers in before.items()}
    losses = None
    if unseen is not None and target == "unseen":
        quantiles = np.quantile(-unseen.confidence(), np.linspace(0, 1, _NUM_LOSS_QUANTILES))
        losses, sizes["unseen"] = tuple(quantiles.tolist()), len(unseen.labels)
    search = SelectionSearch(target, measure, chance, min_left, as_it_is, tuple(trials), chosen, sizes, losses)
    if chosen is None:
        table = "\n".join("  ".join(row) for row in search.rows(selected.num_in_scope))
        raise UnrecoverableResetError(
            f"Every reset that was tried, down to {min(trial.num_selected for trial in trials):,} weights, leaves "
            f"too little of what the model knows of the retained data, and nothing was changed:\n{table}\n"
            "The weights that matter to the forget data are those that all answers depend on. Name the modules that "
            "must stay in `exclude_modules`, or choose a `reset_fraction` or `gamma` yourself."
        )
    return selected, search


def _bisect(
    num_candidates: int,
    num_trials: int,
    select: Callable[[int], WeightSelection],
    evaluate: Callable[[WeightSelection], Mapping[str, ExamplePredictions]],
    enough: float,
) -> tuple[list[ResetTrial], int | None, WeightSelection]:
    """
    Tries numbers of weights. Returns the trials, the place of the deepest one that leaves enough of the retained data,
    and its weights; without such a trial the weights of the last one.
    """
    low, high = math.log(max(1.0, _SMALLEST_SHARE * num_candidates)), math.log(num_candidates)
    trials: list[ResetTrial] = []
    chosen, selected = None, None
    for number in range(num_trials):
        middle = (low + high) / 2
        selection = select(max(1, round(math.exp(middle))))
        trials.append(_trial(selection, evaluate(selection)))
        if trials[-1].retain < enough:
            high = middle
        else:
            low, chosen, selected = middle, number, selection
    return trials, chosen, selection if selected is None else selected


def min_knowledge_left(
    target: str, num_repair_steps: int, forget: ExamplePredictions, unseen: ExamplePredictions | None
) -> float:
    """
    The share of what a model knows of the retained data beyond chance that a reset has to leave.

    Args:
        target (`str`):
            `"unseen"` or `"chance"`.
        num_repair_steps (`int`):
            Optimizer steps of the repair; few of them do not bring back what a deep reset takes.
        forget ([`ExamplePredictions`]):
            The model's answers on the data to forget.
        unseen ([`ExamplePredictions`], *optional*):
            Its answers on data never seen. Without them there is nothing that holds the forget data down in the
            repair, so that all depends on the reset.
    """
    if forget.tokens is not None and forget.tokens.classes is None:
        return MIN_LANGUAGE_LEFT if target == "unseen" and unseen is not None else MIN_KNOWLEDGE_LEFT
    if num_repair_steps < _FEW_REPAIR_STEPS:
        return MIN_KNOWLEDGE_LEFT
    if target == "chance":
        return MIN_LEFT_FOR_CHANCE
    if unseen is None:
        return MIN_KNOWLEDGE_LEFT
    left = MIN_KNOWLEDGE_LEFT - _LESS_PER_KNOWN_BY_HEART * max(0.0, knowledge(forget) - knowledge(unseen))
    return max(LEAST_KNOWLEDGE_LEFT, left)


def _trial(selection: WeightSelection | None, answers: Mapping[str, ExamplePredictions]) -> ResetTrial:
    known = {split: knowledge(answer) for split, answer in answers.items()}
    if selection is None:
        return ResetTrial(0, None, **known)
    return ResetTrial(selection.num_selected, selection.gamma, **known)
