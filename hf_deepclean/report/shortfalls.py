# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Sentences about what a run did not reach."""

import math
from collections.abc import Mapping
from statistics import NormalDist

from ..evaluation.measures import MEAN_LOSS, estimate_of, recall_measure
from ..evaluation.results import ClassResult
from ..evaluation.stages import AFTER_REPAIR, BEFORE, REFERENCE, StageResult
from ..selection.knowledge import LOSS_MEASURE, knowledge_of_loss, target_of_request
from ..selection.search import SelectionSearch
from .plan import RunPlan


# A larger drop of the knowledge of the retained data is a shortfall.
MAX_RETAIN_DROP = 0.02
# A larger drop of the accuracy on one of its classes is one too, if it is beyond chance.
MAX_CLASS_DROP = 0.1
# A larger rise of its mean loss, in nats, is one even if the accuracy stays.
MAX_LOSS_RISE = 0.2
# Classes with fewer examples are also taken together, because each of them alone shows little.
_FEW_EXAMPLES = 20
# At most this many classes are named.
_MAX_NAMED = 3


def find_shortfalls(
    stages: dict[str, StageResult], search: SelectionSearch | None, plan: RunPlan | None = None
) -> list[str]:
    """See [`UnlearningReport.shortfalls`]."""
    before, after = stages[BEFORE], stages[AFTER_REPAIR]
    found = [_retain_shortfall(before, after) or _loss_shortfall(before, after), _class_shortfall(before, after)]
    is_overdone = False
    classes = (before.splits[split].per_class for split in ("forget", "retain"))
    target = target_of_request(*classes) if search is None else search.target
    if target == "chance":
        found.append(_chance_shortfall(before, after))
    if target == "unseen":
        found.append(_membership_shortfall(after, stages.get(REFERENCE)))
        is_overdone = found[-1] is not None and after.membership.auc < 0.5
    found = [shortfall for shortfall in found if shortfall is not None]
    # Forget examples that are known less than unseen ones do not ask for more work.
    if plan is not None and len(found) > is_overdone:
        found += plan.after_a_shortfall()
    return found


def _retain_shortfall(before: StageResult, after: StageResult) -> str | None:
    measure, first, last = retained_knowledge(before, after)
    if first - last <= MAX_RETAIN_DROP:
        return None
    return (
        f"The repair did not bring the retained data back: {measure} {100 * first:.1f} % before, {100 * last:.1f} % "
        "now. Repair longer (`num_train_epochs`), try another `learning_rate` (a few weights may need several times "
        "the rate of the model's training), or set a smaller `reset_fraction`."
    )


def _loss_shortfall(before: StageResult, after: StageResult) -> str | None:
    first, last = before.splits["retain"], after.splits["retain"]
    if recall_measure(first) is MEAN_LOSS or first.mean_loss_interval is None or last.mean_loss_interval is None:
        return None
    overlap = last.mean_loss_interval[0] <= first.mean_loss_interval[1]
    if last.mean_loss - first.mean_loss <= MAX_LOSS_RISE or overlap:
        return None
    return (
        f"The mean loss of the retained data rose from {first.mean_loss:.3f} to {last.mean_loss:.3f}, although their "
        "accuracy did not fall. The repair may train another loss than the model's training did (pass it as "
        "`log_likelihood_func`), or be too short (`num_train_epochs`)."
    )


def _class_shortfall(before: StageResult, after: StageResult) -> str | None:
    first, last = before.splits["retain"].per_class, after.splits["retain"].per_class
    groups = {f"{name!r}": [name] for name in first if name in last}
    small = [name for name in first if name in last and first[name].num_examples < _FEW_EXAMPLES]
    if len(small) > 1:
        groups[f"the {len(small)} classes with fewer than {_FEW_EXAMPLES} examples"] = small
    drops = {}
    for group, names in groups.items():
        size = sum(first[name].num_examples for name in names)
        shares = [_accuracy(results, names, size) for results in (first, last)]
        if shares[0] - shares[1] > MAX_CLASS_DROP and _is_beyond_chance(*shares, size, len(groups)):
            drops[group] = (*shares, size)
    if not drops:
        return None
    largest = sorted(drops, key=lambda group: drops[group][1] - drops[group][0])
    named = [
        "{} {:.1f} % before, {:.1f} % now ({} examples)".format(
            group, *(100 * s for s in drops[group][:2]), drops[group][2]
        )
        for group in largest[:_MAX_NAMED]
    ]
    others = f", and {len(drops) - _MAX_NAMED} more" if len(drops) > _MAX_NAMED else ""
    return (
        f"The repair did not bring all classes of the retained data back: accuracy on {'; on '.join(named)}{others}. "
        "Repair longer (`num_train_epochs`), or set a smaller `reset_fraction`. If the training weighed classes or "
        "drew rare ones more often, the repair needs that too (`log_likelihood_func`)."
    )


def _accuracy(results: Mapping[str, ClassResult], names: list[str], size: int) -> float:
    return sum(results[name].accuracy * results[name].num_examples for name in names) / size


def _is_beyond_chance(first: float, last: float, size: int, num_comparisons: int) -> bool:
    """
    Whether a share fell beyond chance among many comparisons: Newcombe's interval of the difference of two shares
    (1998, method 10) with Bonferroni's correction.
    """
    z = NormalDist().inv_cdf(1 - 0.025 / num_comparisons)

    def end(share: float, sign: int) -> float:
        half = z * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
        return (share + z**2 / (2 * size) + sign * half) / (1 + z**2 / size)

    return first - last > math.hypot(first - end(first, -1), end(last, 1) - last)


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


def _membership_shortfall(after: StageResult, reference: StageResult | None) -> str | None:
    membership = after.membership
    if membership is None or membership.auc_interval is None:
        return None
    # A model that never saw the forget data may tell them from unseen ones too, because they are harder or easier.
    usual = 0.5 if reference is None or reference.membership is None else reference.membership.auc
    if membership.auc_interval[0] > max(0.5, usual):
        return (
            "The target 'unseen' was not reached: forget examples can be told from unseen ones, with a membership AUC "
            f"of {membership.auc:.3f} (95 % interval from {membership.auc_interval[0]:.3f}; 0.5 means that they "
            "cannot)."
        )
    if membership.auc_interval[1] < min(0.5, usual):
        return (
            "The forget examples are now known less than unseen ones and can be told from them by that, with a "
            f"membership AUC of {membership.auc:.3f} (95 % interval to {membership.auc_interval[1]:.3f}; 0.5 means "
            "that they cannot). Reset fewer weights (a smaller `reset_fraction` or larger `gamma`), or set a smaller "
            "`forget_penalty`."
        )
    return None


def retained_knowledge(before: StageResult, after: StageResult) -> tuple[str, float, float]:
    """How much of the retained data the model knows, by the measure of [`selection.knowledge.knowledge`]."""
    first, last = before.splits["retain"], after.splits["retain"]
    measure = recall_measure(first)
    if measure is MEAN_LOSS:
        return LOSS_MEASURE, knowledge_of_loss(first.mean_loss), knowledge_of_loss(last.mean_loss)
    return measure.name, estimate_of(measure, first)[0], estimate_of(measure, last)[0]
