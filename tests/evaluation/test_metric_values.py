# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch

from hf_deepclean.evaluation.metric_values import metric_values
from tests.evaluation.evaluators import evaluator_for, vit


def test_numbers_of_any_kind_are_metrics():
    numbers = {"a": 1, "b": np.float32(0.5), "c": torch.tensor([0.25]), "d": np.ones((1, 1)), "e": True}
    assert metric_values(numbers) == {"a": 1.0, "b": 0.5, "c": 0.25, "d": 1.0, "e": 1.0}
    assert math.isnan(metric_values({"f": float("nan")})["f"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"0": {"f1": 0.5}}, "type dict as the metric '0'. Return its entries one by one, .* such as '0_f1'"),
        (
            {"f1": np.zeros(4)},
            r"type ndarray and shape \(4,\) as the metric 'f1'. Return one number, .* such as 'f1_0'",
        ),
        ({"f1": torch.zeros(2, 2)}, r"type Tensor and shape \(2, 2\) as the metric 'f1'. Return one number"),
        ({"f1": [0.1, 0.2]}, "type list as the metric 'f1'. Return one number, such as the mean"),
        ({"f1": None}, "None as the metric 'f1'. Leave out a metric that has no value"),
        ({"f1": "good"}, "type str as the metric 'f1'. Return one number"),
        ({"f1": 1j}, "type complex as the metric 'f1'. Return one number"),
        ({0: 0.5}, "named a metric by a value of type int. Name it by a string"),
        (None, r"returned None \(is there a `return`\?\), but must return a dictionary"),
        (0.5, "returned a value of type float, but must return a dictionary"),
        ((0.5, 0.6), "returned a value of type tuple, but must return a dictionary"),
    ],
)
def test_what_is_no_number_per_metric_is_refused_with_what_to_return(returned, message):
    with pytest.raises(TypeError, match=message):
        metric_values(returned)


def test_an_evaluation_checks_the_metrics_of_the_caller(tmp_path):
    model = vit()
    evaluator = evaluator_for(tmp_path, model, compute_metrics=lambda outcome: {"f1": np.zeros(4)})
    with pytest.raises(TypeError, match="as the metric 'f1'"):
        evaluator.evaluate(model)
