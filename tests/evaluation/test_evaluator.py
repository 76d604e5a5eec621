# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_deepclean.evaluation.evaluator import Evaluator
from hf_deepclean.runtime.clock import PhaseClock
from hf_deepclean.runtime.interruption import Interruption
from tests import tiny
from tests.evaluation.evaluators import evaluator_for, splits, vit


def test_an_evaluation_changes_neither_the_model_nor_the_evaluator(tmp_path):
    model = vit(hidden_dropout_prob=0.5).train()
    before, evaluator = tiny.parameters_and_buffers(model), evaluator_for(tmp_path, model)
    fields = dict(vars(evaluator))
    first, random_state = evaluator.evaluate(model), torch.get_rng_state()
    assert evaluator.evaluate(model) == first
    assert torch.equal(torch.get_rng_state(), random_state)
    assert vars(evaluator) == fields and all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())


def test_a_divergence_is_measured_only_to_a_reference_that_was_evaluated(tmp_path):
    model, reference = vit(), vit(seed=1)
    evaluator = evaluator_for(tmp_path, model)
    assert evaluator.evaluate(model).divergence_to_reference is None
    compared, result = evaluator.compared_with(reference)
    assert result == evaluator.evaluate(reference) and result.divergence_to_reference is None
    found = compared.evaluate(model)
    low, high = found.divergence_interval
    assert 0 <= low < found.divergence_to_reference < high <= math.log(2)
    assert compared.evaluate(reference).divergence_to_reference == pytest.approx(0, abs=1e-12)
    alone = replace(found, divergence_to_reference=None, divergence_interval=None)
    sample = replace(found.sample, divergence_to_reference=None, divergence_interval=None)
    assert replace(alone, sample=sample) == evaluator.evaluate(model)
    assert evaluator.evaluate(model).divergence_to_reference is None


def test_a_reference_is_compared_with_itself_by_no_evaluator(tmp_path):
    first, second = vit(), vit(seed=1)
    compared, _ = evaluator_for(tmp_path, first).compared_with(first)
    again, result = compared.compared_with(second)
    assert result.divergence_to_reference is None
    assert again.evaluate(first).divergence_to_reference > 0


def test_answers_come_in_the_order_of_the_data_set_whatever_the_batch_size(tmp_path):
    model, rows = vit(), splits()["unseen"]
    answers = [evaluator_for(tmp_path, model, batch_size=size).predict(model, rows, "test") for size in (1, 7, 64)]
    for one in answers:
        assert one.labels.tolist() == rows[:]["labels"].tolist()
        assert np.allclose(one.log_probabilities, answers[0].log_probabilities, atol=1e-5)


def test_the_metrics_of_the_caller_see_the_logits_and_labels_of_every_data_set(tmp_path):
    model, seen = vit(), []

    def count(outcome):
        seen.append((outcome.predictions.shape, len(outcome.label_ids)))
        return {"right": np.int64((outcome.predictions == outcome.label_ids).sum())}

    evaluator = evaluator_for(
        tmp_path, model, compute_metrics=count, preprocess_logits=lambda logits, labels: logits.argmax(-1)
    )
    result = evaluator.evaluate(model)
    assert seen == [((len(rows),), len(rows)) for rows in splits().values()]
    for split in result.splits.values():
        assert split.metrics == {"right": round(split.accuracy * split.num_examples)}


def test_the_results_of_a_request_are_those_of_its_rows_as_the_forget_data(tmp_path):
    model, requests = vit(), {"a": range(5), "b": [23, 7, 8]}
    result = evaluator_for(tmp_path, model, requests=requests).evaluate(model)
    assert result.requests.keys() == requests.keys()
    for name, rows in requests.items():
        alone = splits() | {"forget": splits()["forget"].select(rows)}
        expected = evaluator_for(tmp_path, model, splits=alone).evaluate(model)
        found = result.of_request(name)
        assert found.membership == expected.membership
        assert found.figures() == pytest.approx(expected.figures(), rel=1e-6)


def test_without_unseen_data_there_is_no_attack(tmp_path):
    model = vit()
    data = {name: rows for name, rows in splits().items() if name != "unseen"}
    result = evaluator_for(tmp_path, model, splits=data).evaluate(model)
    assert result.membership is None and result.splits.keys() == {"forget", "retain"}
    assert evaluator_for(tmp_path, model).evaluate(model).membership.num_unseen == 33


def test_classes_have_the_names_that_are_handed_in(tmp_path):
    model = vit()
    result = evaluator_for(tmp_path, model, class_names={0: "zero"}).evaluate(model)
    assert result.splits["retain"].per_class.keys() == {"zero", *map(str, range(1, 10))}


def test_a_request_to_stop_ends_an_evaluation_between_two_batches(tmp_path):
    model, interruption, sizes = vit(), Interruption(), []
    evaluator = evaluator_for(tmp_path, model, batch_size=5, interruption=interruption)

    def ask_to_stop(module, inputs, outputs):
        sizes.append(len(outputs.logits))
        interruption.signal = signal.SIGTERM

    model.register_forward_hook(ask_to_stop)
    with pytest.raises(SystemExit) as ended:
        evaluator.evaluate(model)
    assert ended.value.code == 143
    # On the first batch the likelihood is compared with the model's loss, one example each.
    assert sizes.count(5) == 1


def test_evaluations_are_timed_and_predictions_are_not(tmp_path):
    model, clock = vit(), PhaseClock()
    evaluator = evaluator_for(tmp_path, model, clock=clock)
    evaluator.predict(model, splits()["forget"], "test")
    assert clock.seconds == {}
    evaluator.evaluate(model)
    assert clock.seconds.keys() == {"evaluation"}


def test_an_evaluator_that_runs_in_lockstep_gives_the_same_results(tmp_path):
    model = vit()
    evaluator: Evaluator = evaluator_for(tmp_path, model)
    assert replace(evaluator, in_lockstep=True).evaluate(model) == evaluator.evaluate(model)


def test_metrics_of_batches_are_asked_for_their_result(tmp_path):
    asked = []

    def count(outcome, compute_result):
        asked.append(compute_result)
        return {"count": len(outcome.label_ids)}

    evaluator = evaluator_for(tmp_path, vit(), compute_metrics=count, batch_eval_metrics=True)
    result = evaluator.evaluate(vit())
    assert asked and all(asked)
    assert result.splits["forget"].metrics["count"] == result.splits["forget"].num_examples
