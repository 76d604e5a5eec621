# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math
from itertools import islice

import pytest
import torch

from hf_deepclean.evaluation.recovery import RelearningMeasurement, RelearningResult, evaluate_rounded
from hf_deepclean.evaluation.results import SplitResult
from tests import tiny
from tests.evaluation.evaluators import FORGET, RETAIN, evaluator_for, splits, vit


NUM_STEPS = 5


def measurement_for(folder, model, **kwargs):
    names = [name for name, _ in model.named_parameters()]
    defaults = {"num_steps": NUM_STEPS, "learning_rate": 1e-2, "batch_size": 4, "num_forget_examples": 6, "seed": 0}
    evaluator = evaluator_for(folder, model, **kwargs)
    return RelearningMeasurement(evaluator, names, **defaults)


def rows_of(batches):
    return {tuple(row.flatten().tolist()) for batch in batches for row in batch["pixel_values"]}


def rows_at(numbers):
    return {tuple(row.flatten().tolist()) for row in tiny.digits().select(numbers)["pixel_values"]}


def test_relearning_trains_copies_and_leaves_models_and_random_state_as_they_were(tmp_path):
    models = {"after_repair": vit(), "reference": vit(seed=1)}
    before = {stage: tiny.parameters_and_buffers(model) for stage, model in models.items()}
    measurement = measurement_for(tmp_path, models["after_repair"])
    random_state = torch.get_rng_state()
    result = measurement.measure(models, "forget")
    assert measurement.measure(models, "forget") == result
    assert torch.equal(torch.get_rng_state(), random_state)
    for stage, model in models.items():
        after = tiny.parameters_and_buffers(model)
        assert all(torch.equal(tensor, after[name]) for name, tensor in before[stage].items())


def test_a_curve_starts_at_the_model_and_has_a_value_per_evaluated_step(tmp_path):
    model = vit()
    measurement = measurement_for(tmp_path, model)
    result = measurement.measure({"after_repair": model}, "forget")
    assert (result.steps, result.learning_rate, result.measure) == ((0, 1, 2, 4, 5), 1e-2, "accuracy")
    forget = measurement.evaluator.evaluate(model).splits["forget"]
    assert result.curves["after_repair"][0] == forget.accuracy
    assert result.intervals["after_repair"][0] == forget.accuracy_interval
    assert len(result.curves["after_repair"]) == len(result.intervals["after_repair"]) == 5
    assert result.excess() is None


def test_every_kind_of_data_is_read_as_its_name_says(tmp_path):
    measurement, batches = measurement_for(tmp_path, vit()), {}
    for kind in ("forget", "retain", "few_forget"):
        batches[kind] = list(islice(measurement.batches(kind), 40))
    forget, retain = rows_at(FORGET), rows_at(RETAIN)
    assert rows_of(batches["forget"]) == forget
    assert rows_of(batches["retain"]) < retain and len(rows_of(batches["retain"])) == NUM_STEPS * 4
    few, others = (rows_of(batches["few_forget"][start::2]) for start in (0, 1))
    assert few < forget and len(few) == 6 and others == rows_of(batches["retain"])


def test_the_number_of_forget_examples_is_noted_where_they_are_few(tmp_path):
    model = vit()
    measurement = measurement_for(tmp_path, model)
    found = {data: measurement.measure({"after_repair": model}, data) for data in ("retain", "few_forget")}
    assert {data: result.num_forget_examples for data, result in found.items()} == {"retain": None, "few_forget": 6}


def test_a_stream_is_read_from_its_start(tmp_path):
    data = splits() | {"retain": splits()["retain"].to_iterable_dataset()}
    batches = list(islice(measurement_for(tmp_path, vit(), splits=data).batches("retain"), 3))
    assert rows_of(batches) == rows_at(RETAIN[:12])


def results(*accuracies):
    return [SplitResult(8, -math.log(value), (1.0,) * 9, value, (0.0, 1.0)) for value in accuracies]


def test_the_excess_is_what_the_cleaned_model_rises_above_the_reference():
    found = RelearningResult.of(
        (0, 1, 2), 1e-3, {"after_repair": results(0.5, 0.7, 0.9), "reference": results(0.5, 0.6)}
    )
    assert found.measure == "accuracy" and found.excess() == pytest.approx(0.1)


def test_the_excess_of_a_loss_is_how_much_further_it_falls():
    losses = {"after_repair": (4.0, 1.0), "reference": (4.0, 3.5)}
    found = RelearningResult((0, 1), 1e-3, "mean loss", losses)
    assert found.excess() == pytest.approx(2.5)
    assert RelearningResult((0, 1), 1e-3, "mean loss", losses | {"reference": (4.0, math.inf)}).excess() is None


@pytest.mark.parametrize("num_bits", [4, 8])
def test_a_rounded_model_is_evaluated_and_gets_its_weights_back(tmp_path, num_bits):
    model = vit()
    before, evaluator = tiny.parameters_and_buffers(model), evaluator_for(tmp_path, model)
    expected = evaluator.evaluate(model)
    assert evaluate_rounded(evaluator, model, num_bits).figures() != expected.figures()
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())
    assert evaluator.evaluate(model) == expected
