# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The metric `verbatim`; evaluate imports a copy of this file, so its imports are absolute."""

import datasets
import evaluate

from hf_deepclean.evaluation.figures.memorization import is_verbatim
from hf_deepclean.metrics import description_of, memorization_figures


_INPUTS = """
Args:
    predictions (`list[list[int]]`): The model's first choice for every token of every text, at the position of its
        reference: the prediction of the model at the position before.
    references (`list[list[int]]`): The token ids; -100 is not scored.

Returns:
    `verbatim`: Share of the texts with scored tokens in which every scored token is the first choice, 0 to 1.
"""


class Verbatim(evaluate.Metric):
    """[`hf_deepclean.evaluation.figures.memorization.is_verbatim`] as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=description_of(is_verbatim),
            citation="Carlini et al., Quantifying memorization across neural language models (2022), arXiv 2202.07646",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("int64")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        return {"verbatim": memorization_figures(predictions, references)["verbatim"]}
