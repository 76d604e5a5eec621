# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Sentences about what a run did not reach."""

from ..evaluation.measures import MEAN_LOSS, estimate_of, recall_measure
from ..evaluation.stages import AFTER_REPAIR, BEFORE, StageResult
from ..selection.knowledge import LOSS_MEASURE, knowledge_of_loss
from ..selection.search import SelectionSearch


# A larger drop of the knowledge of the retained data is a shortfall.
MAX_RETAIN_DROP = 0.02


def find_shortfalls(stages: dict[str, StageResult], search: SelectionSearch | None) -> list[str]:
    """See [`UnlearningReport.shortfalls`]."""
    before, after = stages[BEFORE], stages[AFTER_REPAIR]
    found = [_retain_shortfall(before, after)]
    if search is not None and search.target == "chance":
        found.append(_chance_shortfall(before, after))
    if search is not None and search.target == "unseen":
        found.append(_membership_shortfall(after))
    return [shortfall for shortfall in found if shortfall is not None]


def _retain_shortfall(before: StageResult, after: StageResult) -> str | None:
    measure, first, last = retained_knowledge(before, after)
    if first - last <= MAX_RETAIN_DROP:
        return None
    return (
        f"The repair did not bring the retained data back: {measure} {100 * first:.1f} % before, {100 * last:.1f} % "
        "now. Repair longer (`num_train_epochs`), try another `learning_rate` (a few weights may need several times "
        "the rate of the model's training), or set a smaller `reset_fraction`."
    )


def _chance_shortfall(before: StageResult, after: StageResult) -> str | None:
    forget = after.splits["forget"]
    if forget.accuracy is None:
        return None
    num_classes = len(before.splits["retain"].per_class.keys() | before.splits["forget"].per_class.keys())
    if forget.accuracy_interval[0] <= 1 / num_classes:
        return None
    return (
        f"The target 'chance' was not reached: {100 * forget.accuracy:.1f} % of the forget examples are still "
        f"recognised, where chance is {100 / num_classes:.1f} %."
    )


def _membership_shortfall(after: StageResult) -> str | None:
    membership = after.membership
    if membership is None or membership.auc_interval[0] <= 0.5:
        return None
    return (
        "The target 'unseen' was not reached: forget examples can be told from unseen ones, with a membership AUC of "
        f"{membership.auc:.3f} (95 % interval from {membership.auc_interval[0]:.3f}; 0.5 means that they cannot)."
    )


def retained_knowledge(before: StageResult, after: StageResult) -> tuple[str, float, float]:
    """How much of the retained data the model knows, by the measure of [`selection.knowledge.knowledge`]."""
    first, last = before.splits["retain"], after.splits["retain"]
    measure = recall_measure(first)
    if measure is MEAN_LOSS:
        return LOSS_MEASURE, knowledge_of_loss(first.mean_loss), knowledge_of_loss(last.mean_loss)
    return measure.name, estimate_of(measure, first)[0], estimate_of(measure, last)[0]
