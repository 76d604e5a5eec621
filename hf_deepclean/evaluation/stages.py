# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Names the stages of a run, and holds the results of a model at a stage."""

import math
from dataclasses import dataclass, field, replace

from .figures.membership import MembershipAttack
from .measures import (
    DIVERGENCE,
    MEMBERSHIP_AUC,
    MEMBERSHIP_TPR,
    MIN_K_AUC,
    MIN_K_TPR,
    Estimate,
    estimates_of_split,
)
from .results import SplitResult


# The stages of a run, as reports and run states name them.
BEFORE = "before"
AFTER_RESET = "after_reset"
AFTER_REPAIR = "after_repair"
REFERENCE = "reference"
CONTROL_AFTER_RESET = "control_after_reset"
CONTROL_AFTER_REPAIR = "control_after_repair"
FINE_TUNED = "fine_tuned"

# The stages in order, with their column headings.
STAGES = {
    BEFORE: "before",
    AFTER_RESET: "after reset",
    AFTER_REPAIR: "after repair",
    REFERENCE: "reference",
    CONTROL_AFTER_RESET: "control reset",
    CONTROL_AFTER_REPAIR: "control repair",
    FINE_TUNED: "fine-tuned",
}


def rounded_stage(stage: str, num_bits: int) -> str:
    """The stage at which the model of another stage is evaluated with its weights rounded to `num_bits` bits."""
    return f"{stage}_{num_bits}_bits"


# Columns of the table that shows the effect of rounding the weights: each model, then its rounded forms.
QUANTIZATION_STAGES = {
    AFTER_REPAIR: "after repair",
    rounded_stage(AFTER_REPAIR, 4): "after repair, 4 bits",
    rounded_stage(AFTER_REPAIR, 8): "after repair, 8 bits",
    REFERENCE: "reference",
    rounded_stage(REFERENCE, 4): "reference, 4 bits",
    rounded_stage(REFERENCE, 8): "reference, 8 bits",
}


@dataclass(frozen=True)
class RequestResult:
    """
    The results of a model on the rows of one request, if several requests are answered together.

    Args:
        split (`SplitResult`):
            Results on the rows of the request.
        membership ([`MembershipAttack`], *optional*):
            The attack on the rows of the request, against unseen data.
        min_k_membership ([`MembershipAttack`], *optional*):
            The attack by the least probable tokens.
        sample ([`RequestResult`], *optional*):
            The same of rows drawn from these; see [`evaluation.samples`].
    """

    split: SplitResult
    membership: MembershipAttack | None = None
    min_k_membership: MembershipAttack | None = None
    sample: "RequestResult | None" = None


@dataclass(frozen=True)
class StageResult:
    """
    Results of a model at a stage: the model to clean, the reference model or a control.

    Args:
        splits (`dict[str, SplitResult]`):
            Results on `forget`, `retain`, and if given `eval` (or `eval_NAME`) and `unseen`.
        membership ([`MembershipAttack`], *optional*):
            The attack on the forget data against unseen data, by the loss (for token-level heads per scored token).
            `None` without unseen data.
        divergence_to_reference (`float`, *optional*):
            Mean Jensen-Shannon divergence from the reference model's outputs on the forget data, 0 to ln 2.
        min_k_membership ([`MembershipAttack`], *optional*):
            The attack by [`evaluation.figures.memorization.min_k_score`], for token-level heads.
        requests (`dict[str, RequestResult]`, *optional*):
            Results by request, if the forget data are those of several requests.
        divergence_interval (`tuple[float, float]`, *optional*):
            95 % interval of the divergence. `None` for fewer than two examples.
        sample ([`StageResult`], *optional*):
            Results of rows drawn from `forget`, `retain` and `unseen`, which may be published; see
            [`evaluation.samples`]. `None` if an earlier version has measured.
    """

    splits: dict[str, SplitResult]
    membership: MembershipAttack | None = None
    divergence_to_reference: float | None = None
    min_k_membership: MembershipAttack | None = None
    requests: dict[str, RequestResult] = field(default_factory=dict)
    divergence_interval: tuple[float, float] | None = None
    sample: "StageResult | None" = None

    def of_request(self, name: str) -> "StageResult":
        """Returns the results with the rows of one request as the forget data."""
        result = self.requests[name]
        sample = None
        if result.sample is not None and self.sample is not None:
            sample = self.sample._with_forget(result.sample)
        return replace(self._with_forget(result), sample=sample)

    def of_sample(self) -> "StageResult":
        """Returns the results with the drawn rows in place of all."""
        return self if self.sample is None else replace(self.sample, splits=self.splits | self.sample.splits)

    def _with_forget(self, result: RequestResult) -> "StageResult":
        splits = self.splits | {"forget": result.split}
        return StageResult(splits, result.membership, min_k_membership=result.min_k_membership)

    def figures(self) -> dict[str, float]:
        """All figures by name, in the order of the table."""
        return {name: value for name, (value, _) in self._estimates().items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of the figures by name. Metrics of the caller have none."""
        return {name: interval for name, (_, interval) in self._estimates().items() if interval is not None}

    def too_few_rows(self) -> list[str]:
        """Names of the figures without an interval, for too few rows. Metrics of the caller never have one."""
        metrics = {f"{split.replace('_', ' ')} {name}" for split, of in self.splits.items() for name in of.metrics}
        return [
            name
            for name, (value, interval) in self._estimates().items()
            if interval is None and name not in metrics and math.isfinite(value)
        ]

    def _estimates(self) -> dict[str, Estimate]:
        of_splits = {
            f"{split.replace('_', ' ')} {figure}": estimate
            for split, result in self.splits.items()
            for figure, estimate in estimates_of_split(result).items()
        }
        return of_splits | self.joint_estimates()

    def joint_estimates(self) -> dict[str, Estimate]:
        """The figures of membership and of the divergence from the reference, and their intervals."""
        estimates: dict[str, Estimate] = {}
        for auc, tpr, attack in (
            (MEMBERSHIP_AUC, MEMBERSHIP_TPR, self.membership),
            (MIN_K_AUC, MIN_K_TPR, self.min_k_membership),
        ):
            if attack is not None:
                estimates[auc.name] = attack.auc, attack.auc_interval
                estimates[tpr.name] = attack.tpr_at_1_percent_fpr, attack.tpr_interval
        if self.divergence_to_reference is not None:
            estimates[DIVERGENCE.name] = self.divergence_to_reference, self.divergence_interval
        return estimates
