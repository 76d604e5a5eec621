# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `membership_attack`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.membership import membership_attack
from hf_deepclean.metrics import attack_figures, description_of


_INPUTS = """
Args:
    predictions (`list[float]`): A score of every example that is higher for training data, such as the log-likelihood
        of its label.
    references (`list[int]`): 1 for forgotten examples, 0 for unseen examples of the same distribution.

Returns:
    `auc`: Probability that a forgotten example scores above an unseen one. The target is the value of a model
        retrained without the forgotten data, which is about 0.5 for a random part of the training data, not 0.
    `auc_low`, `auc_high`: The 95 % interval of `auc`.
    `tpr_at_1_percent_fpr`: Share of the forgotten examples above the threshold that 1 % of the unseen examples exceed.
"""


class MembershipAttack(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.membership.membership_attack`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(membership_attack),
            citation=(
                "Gaffke, "
                "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable "
                "(2005)"
            ),
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        return attack_figures(predictions, references)
