# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `tug_of_war`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.gaps import tug_of_war
from hf_deepclean.metrics import description_of, numbered


_INPUTS = """
Args:
    predictions (`list[float]`): The model's accuracies between 0 and 1 on forget, retain and test data.
    references (`list[float]`): Accuracies of a model retrained without the forgotten data, in the same order.

Returns:
    `tug_of_war`: Between 0 and 1; 1 is best.
"""


class TugOfWar(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.gaps.tug_of_war`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(tug_of_war),
            citation="Zhao et al., What makes unlearning hard and what to do about it (2024), arXiv 2406.01257",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Value("float64"),
                }
            ),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        model, reference = numbered(predictions), numbered(references)
        return {"tug_of_war": tug_of_war(model, reference, list(model))}
