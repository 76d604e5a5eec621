# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `per_class_accuracy`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.gaps import per_class_accuracy
from hf_deepclean.metrics import accuracy_figures, description_of


_INPUTS = """
Args:
    predictions (`list[int]`): Index of the class that the model predicts for every example.
    references (`list[int]`): Index of the true class; -100 is not counted.

Returns:
    `accuracy`: Accuracy on all examples.
    `accuracy_class_0`, ...: Accuracy on the examples of every class.
"""


class PerClassAccuracy(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.gaps.per_class_accuracy`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(per_class_accuracy),
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("int64"),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return accuracy_figures(predictions, references)
