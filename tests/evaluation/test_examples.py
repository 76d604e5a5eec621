# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from hf_deepclean.evaluation.examples import predict_examples, summarize_predictions

from .. import tiny


def test_figures_equal_those_of_the_model_one_example_at_a_time():
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    predictions = predict_examples(model, tiny.in_batches(batch, 4))
    result = summarize_predictions(predictions, {0: "zero"})
    outputs = [model(**example) for example in tiny.in_batches(batch, 1)]
    right = [int(output.logits.argmax() == label) for output, label in zip(outputs, batch["labels"], strict=True)]
    assert result.num_examples == 11
    assert result.mean_loss == pytest.approx(np.mean([output.loss.item() for output in outputs]))
    assert result.accuracy == pytest.approx(np.mean(right))
    assert result.accuracy_interval[0] < result.accuracy < result.accuracy_interval[1]
    assert sum(c.num_examples * c.accuracy for c in result.per_class.values()) == pytest.approx(sum(right))
    assert result.per_class["zero"].num_examples == int((batch["labels"] == 0).sum())


def test_training_flags_are_left_alone_and_dropout_is_off():
    model = tiny.randomized(tiny.vit(hidden_dropout_prob=0.5)).train()
    model.vit.embeddings.eval()
    modes = [module.training for module in model.modules()]
    first, second = (predict_examples(model, [tiny.image_batch()]).log_likelihood for _ in range(2))
    assert np.array_equal(first, second)
    assert [module.training for module in model.modules()] == modes


def test_a_likelihood_of_the_callers_own_gives_a_loss_and_no_accuracy():
    predictions = predict_examples(
        tiny.randomized(tiny.vit()),
        [{"pixel_values": tiny.image_batch()["pixel_values"], "labels": torch.rand(11)}],
        lambda outputs, labels: -(outputs.logits[:, 0] - labels).square(),
    )
    result = summarize_predictions(predictions)
    assert result.accuracy is None
    assert result.mean_loss > 0


def test_a_likelihood_that_is_not_finite_names_the_position():
    batch = tiny.image_batch()
    batch["pixel_values"][9] = float("inf")
    with pytest.raises(ValueError, match="position 9 is nan"):
        predict_examples(tiny.randomized(tiny.vit()), tiny.in_batches(batch, 4))
