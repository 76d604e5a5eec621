# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Sentences about what a run did not reach."""

from typing import TYPE_CHECKING

from ..evaluation.measures import MEAN_LOSS, estimate_of, recall_measure
from ..evaluation.stages import AFTER_REPAIR, BEFORE, StageResult
from ..selection.knowledge import knowledge_of_loss


if TYPE_CHECKING:
    from .report import UnlearningReport


# A larger drop of the knowledge of the retained data is a shortfall.
MAX_RETAIN_DROP = 0.02


def find_shortfalls(report: "UnlearningReport") -> list[str]:
    """See [`UnlearningReport.shortfalls`]."""
    found = [_retain_shortfall(report)]
    if report.search is not None and report.search.target == "chance":
        found.append(_chance_shortfall(report))
    if report.search is not None and report.search.target == "unseen":
        found.append(_membership_shortfall(report))
    return [shortfall for shortfall in found if shortfall is not None]


def _retain_shortfall(report: "UnlearningReport") -> str | None:
    measure, before, after = _retained(report.stages[BEFORE], report.stages[AFTER_REPAIR])
    if before - after <= MAX_RETAIN_DROP:
        return None
    return (
        f"The repair did not bring the retained data back: {measure} {100 * before:.1f} % before, {100 * after:.1f} % "
        "now. Repair longer (`num_train_epochs`), try another `learning_rate` (a few weights may need several times "
        "the rate of the model's training), or set a smaller `reset_fraction`."
    )


def _chance_shortfall(report: "UnlearningReport") -> str | None:
    before, forget = report.stages[BEFORE].splits, report.stages[AFTER_REPAIR].splits["forget"]
    if forget.accuracy is None:
        return None
    num_classes = len(before["retain"].per_class.keys() | before["forget"].per_class.keys())
    if forget.accuracy_interval[0] <= 1 / num_classes:
        return None
    return (
        f"The target 'chance' was not reached: {100 * forget.accuracy:.1f} % of the forget examples are still "
        f"recognised, where chance is {100 / num_classes:.1f} %."
    )


def _membership_shortfall(report: "UnlearningReport") -> str | None:
    membership = report.stages[AFTER_REPAIR].membership
    if membership is None or membership.auc_interval[0] <= 0.5:
        return None
    return (
        "The target 'unseen' was not reached: forget examples can be told from unseen ones, with a membership AUC of "
        f"{membership.auc:.3f} (95 % interval from {membership.auc_interval[0]:.3f}; 0.5 means that they cannot)."
    )


def _retained(before: StageResult, after: StageResult) -> tuple[str, float, float]:
    """How much of the retained data the model knows, by the measure of [`selection.knowledge.knowledge`]."""
    first, last = before.splits["retain"], after.splits["retain"]
    measure = recall_measure(first)
    if measure is MEAN_LOSS:
        return "1 / (1 + loss)", knowledge_of_loss(first.mean_loss), knowledge_of_loss(last.mean_loss)
    return measure.name, estimate_of(measure, first)[0], estimate_of(measure, last)[0]
