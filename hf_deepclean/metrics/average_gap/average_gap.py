# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `average_gap`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.gaps import average_gap
from hf_deepclean.metrics import description_of, numbered


_INPUTS = """
Args:
    predictions (`list[float]`): The model's figures between 0 and 1: forget, retain and eval accuracy and membership
        AUC, or any others.
    references (`list[float]`): Figures of a model retrained without the forgotten data, in the same order.

Returns:
    `average_gap`: In points; 0 is best.
"""


class AverageGap(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.gaps.average_gap`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(average_gap),
            citation=(
                "Fan et al., "
                "SalUn: Empowering machine unlearning via gradient-based weight saliency (2023), arXiv 2310.12508"
            ),
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
        return {"average_gap": average_gap(model, reference, list(model))}
