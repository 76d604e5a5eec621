# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `klom`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.ensembles import klom, klom_percentile
from hf_deepclean.metrics import description_of


_INPUTS = """
Args:
    predictions (`list[list[float]]`): For every example, the margins of all unlearned models.
    references (`list[list[float]]`): For the same examples, the margins of all models retrained without the forgotten
        data.
    num_bins, max_margin, epsilon (*optional*): As for `hf_deepclean.klom`.

Returns:
    `klom_mean`: Mean over the examples, 0 (the same distributions) to 11.5.
    `klom_95th_percentile`: The value that 95 % of the examples do not exceed.
"""


class Klom(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.ensembles.klom`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(klom),
            citation=(
                "Georgiev et al., "
                "Attribute-to-delete: Machine unlearning via datamodel matching (2024), arXiv 2410.23232"
            ),
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.List(datasets.Value("float64")),
                }
            ),
        )

    def _compute(
        self, predictions: list[list[float]], references: list[list[float]], **options: float
    ) -> dict[str, float]:
        values = klom(predictions, references, **options)
        return {"klom_mean": float(values.mean()), "klom_95th_percentile": klom_percentile(values)}
