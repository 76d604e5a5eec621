# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `jensen_shannon_divergence`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.divergence import jensen_shannon_divergence
from hf_deepclean.metrics import description_of


_INPUTS = """
Args:
    predictions (`list[list[float]]`): For every example, the log-probabilities of all classes under the model.
    references (`list[list[float]]`): The same under a model retrained without the forgotten data.

Returns:
    `jensen_shannon_divergence`: Mean over the examples, 0 (the same answers) to 0.693 (mutually exclusive answers).
"""


class JensenShannonDivergence(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.divergence.jensen_shannon_divergence`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(jensen_shannon_divergence),
            citation="Lin, Divergence measures based on the Shannon entropy (1991)",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.List(datasets.Value("float64")),
                }
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[list[float]]) -> dict[str, float]:
        return {"jensen_shannon_divergence": float(jensen_shannon_divergence(predictions, references).mean())}
