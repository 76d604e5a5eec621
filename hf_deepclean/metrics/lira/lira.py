# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `lira`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.membership import lira_scores
from hf_deepclean.metrics import attack_figures, description_of


_INPUTS = """
Args:
    predictions (`list[float]`): Logit-scaled confidence of the attacked model on every example.
    references (`list[int]`): 1 for forgotten examples, 0 for unseen examples of the same distribution.
    shadow_confidence (`list[list[float]]`): For every example, the logit-scaled confidences of the shadow models.
    trained_on (`list[list[bool]]`, *optional*): For every example, whether each shadow model was trained on it; by
        default none was.
    pooled_variance (`bool`, *optional*): As for `hf_deepclean.lira_scores`.

Returns:
    `auc`, `auc_low`, `auc_high`, `tpr_at_1_percent_fpr`: As for the metric `membership_attack`.
"""


class Lira(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.membership.lira_scores`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(lira_scores),
            citation="Carlini et al., Membership inference attacks from first principles (2022), arXiv 2112.03570",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Value("int64"),
                    "shadow_confidence": datasets.List(datasets.Value("float64")),
                }
            ),
        )

    def _compute(
        self,
        predictions: list[float],
        references: list[int],
        shadow_confidence: list[list[float]],
        trained_on: list[list[bool]] | None = None,
        pooled_variance: bool = False,
    ) -> dict[str, float]:
        return attack_figures(lira_scores(predictions, shadow_confidence, trained_on, pooled_variance), references)
