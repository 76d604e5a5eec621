# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `extraction_strength`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.memorization import extraction_strength
from hf_deepclean.metrics import description_of, memorization_figures


_INPUTS = """
Args:
    predictions (`list[list[int]]`): The model's first choice for every token of every text, at the position of its
        reference: the prediction of the model at the position before.
    references (`list[list[int]]`): The token ids; -100 is not scored.

Returns:
    `extraction_strength`: Mean over the texts with scored tokens, 0 to 1.
"""


class ExtractionStrength(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.memorization.extraction_strength`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(extraction_strength),
            citation=(
                "Wang et al., "
                "Towards effective evaluations and comparisons for LLM unlearning methods (2024), arXiv 2406.09179"
            ),
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("int64")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        return {"extraction_strength": memorization_figures(predictions, references)["extraction_strength"]}
