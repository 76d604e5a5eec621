# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `rmia`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.membership import rmia_scores
from hf_deepclean.metrics import attack_figures, description_of


_INPUTS = """
Args:
    predictions (`list[float]`): Log-likelihood of every example under the attacked model.
    references (`list[int]`): 1 for forgotten examples, 0 for unseen examples of the same distribution.
    reference_log_likelihood (`list[list[float]]`): For every example, its log-likelihoods under the reference models.
    population_log_likelihood (`list[float]`): Log-likelihoods of a population under the attacked model; other
        examples than those of `predictions`.
    population_reference_log_likelihood (`list[list[float]]`): For every example of the population, its
        log-likelihoods under the reference models.
    gamma, offline_a (`float`, *optional*): As for `hf_deepclean.rmia_scores`.

Returns:
    `auc`, `auc_low`, `auc_high`, `tpr_at_1_percent_fpr`: As for the metric `membership_attack`.
"""


class Rmia(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.membership.rmia_scores`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(rmia_scores),
            citation=(
                "Zarifzadeh, Liu and Shokri, Low-cost high-power membership inference attacks (2023), arXiv 2312.03262"
            ),
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Value("int64"),
                    "reference_log_likelihood": datasets.List(datasets.Value("float64")),
                }
            ),
        )

    def _compute(
        self,
        predictions: list[float],
        references: list[int],
        reference_log_likelihood: list[list[float]],
        population_log_likelihood: list[float],
        population_reference_log_likelihood: list[list[float]],
        **options: float,
    ) -> dict[str, float]:
        scores = rmia_scores(
            predictions,
            reference_log_likelihood,
            population_log_likelihood,
            population_reference_log_likelihood,
            **options,
        )
        return attack_figures(scores, references)
