# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_deepclean.evaluation import predictions as examples
from hf_deepclean.evaluation.predictions import ExamplePredictions, TokenPredictions, predict_examples
from hf_deepclean.evaluation.results import _largest_loss, summarize_predictions
from tests import heads, tiny


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
    assert result.mean_loss_interval[0] < result.mean_loss < result.mean_loss_interval[1]
    assert sum(c.num_examples * c.accuracy for c in result.per_class.values()) == pytest.approx(sum(right))
    assert result.per_class["zero"].num_examples == int((batch["labels"] == 0).sum())


def test_a_loss_that_cannot_be_negative_has_no_interval_that_is():
    for best, is_negative in ((0.0, False), (0.1, True)):
        log_likelihood = np.r_[best, np.zeros(298), -4.0]
        predictions = ExamplePredictions(None, np.zeros(300, int), log_likelihood, None)
        assert (summarize_predictions(predictions).mean_loss_interval[0] < 0) is is_negative


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


TOKEN_HEADS = ["bert tokens", "bert masked", "gpt2 causal", "llama causal", "xlnet causal", "t5 generation", "whisper"]


@pytest.mark.parametrize("name", TOKEN_HEADS)
def test_tokens_add_up_to_the_likelihood_whatever_the_batches(name):
    make_model, make_batch, _ = heads.HEADS[name]
    model, batch = tiny.randomized(make_model()), make_batch()
    whole = predict_examples(model, [batch])
    single = predict_examples(model, tiny.in_batches(batch, 1))
    tokens = whole.tokens
    sums = [part.sum() for part in np.split(tokens.log_probabilities, np.cumsum(tokens.counts)[:-1])]
    assert whole.log_likelihood == pytest.approx(sums)
    assert whole.log_likelihood == pytest.approx(single.log_likelihood, rel=1e-9)
    assert np.array_equal(tokens.counts, single.tokens.counts)
    assert np.array_equal(tokens.correct, single.tokens.correct)
    losses = [model(**example).loss.item() for example in tiny.in_batches(batch, 1)]
    # Some losses count padding, in which case the model has none to count in a row of full length.
    longest = int(tokens.counts.argmax())
    assert -whole.confidence()[longest] == pytest.approx(losses[longest], rel=1e-6)
    result = summarize_predictions(whole)
    assert result.tokens.num_tokens == tokens.counts.sum()
    assert result.tokens.perplexity == pytest.approx(np.exp(-whole.log_likelihood.sum() / tokens.counts.sum()))
    assert result.tokens.accuracy == pytest.approx(tokens.correct.mean())
    assert result.accuracy is None
    # Nothing bounds the loss of the labels of four rows of tokens.
    bounded = tokens.classes is None
    assert (result.tokens.perplexity_interval is not None) == bounded
    measures = ["accuracy"] + ["perplexity"] * bounded
    measures += ["extraction_strength"] * (result.tokens.extraction_strength is not None)
    for measure in measures:
        low, high = getattr(result.tokens, f"{measure}_interval")
        assert low <= getattr(result.tokens, measure) <= high and low < high
    writes = name in ("gpt2 causal", "llama causal", "t5 generation", "whisper")
    assert (result.tokens.extraction_strength is not None) == writes
    assert set(result.per_class) == ({"0", "1", "2", "3"} if name == "bert tokens" else set())


def test_padding_at_the_left_changes_no_token():
    model, batch = tiny.randomized(heads.gpt2()), heads.text("next")
    left = {key: value.clone() for key, value in batch.items()}
    for row, length in enumerate(heads.LENGTHS):
        for key in left:
            left[key][row] = batch[key][row].roll(7 - length)
    first, second = predict_examples(model, [batch]).tokens, predict_examples(model, [left]).tokens
    assert first.log_probabilities == pytest.approx(second.log_probabilities, rel=1e-9)
    assert np.array_equal(first.counts, second.counts)


def test_examples_without_scored_tokens_are_counted_and_leave_the_other_figures_alone():
    model, batch = tiny.randomized(heads.gpt2()), heads.text("next")
    batch["labels"][1] = -100
    result = summarize_predictions(predict_examples(model, [batch]))
    others = summarize_predictions(predict_examples(model, [{key: v[[0, 2, 3]] for key, v in batch.items()}]))
    assert result.num_examples == 4
    assert result.tokens == others.tokens
    assert result.tokens.num_examples == 3
    assert result.loss_deciles == others.loss_deciles
    assert len(predict_examples(model, [batch]).min_k_confidence()) == 3


def test_a_data_set_without_a_single_scored_token_is_refused():
    batch = heads.text("next")
    batch["labels"][:, 1:] = -100
    with pytest.raises(ValueError, match="None of the 4 examples of a data set has a scored token"):
        predict_examples(tiny.randomized(heads.gpt2()), [batch])


def test_a_few_losses_have_an_interval_if_the_model_tells_how_large_one_can_be():
    log_probabilities = np.log(np.array([[0.9, 0.1], [0.99, 0.01], [0.6, 0.4]]))
    predictions = ExamplePredictions(None, np.zeros(3, int), log_probabilities[:, 0], log_probabilities)
    result = summarize_predictions(predictions)
    # Up to the loss of the worst class of the worst row.
    assert result.mean_loss < result.mean_loss_interval[1] < -np.log(0.01)
    for other in (replace(predictions, log_probabilities=None), replace(predictions, log_likelihood=np.full(3, -9.0))):
        assert summarize_predictions(other).mean_loss_interval is None


def test_a_few_texts_have_a_perplexity_between_1_and_chance():
    tokens = TokenPredictions(-np.full(30, 0.1), np.ones(30, bool), np.full(3, 10), True, num_choices=50)
    predictions = ExamplePredictions(None, np.zeros(3, int), -np.ones(3), None, tokens)
    low, high = summarize_predictions(predictions).tokens.perplexity_interval
    assert 1 < low < np.exp(0.1) < 2 < high < 50
    # Labels of tokens may be wrong throughout, and nothing bounds their loss.
    for changes in ({"num_choices": None}, {"classes": np.zeros(30, int)}):
        other = replace(predictions, tokens=replace(tokens, **changes))
        assert summarize_predictions(other).tokens.perplexity_interval is None


def test_a_single_example_has_no_interval_of_a_mean():
    model, batch = tiny.randomized(heads.gpt2()), heads.text("next")
    result = summarize_predictions(predict_examples(model, [{key: value[:1] for key, value in batch.items()}]))
    assert result.mean_loss_interval is result.tokens.accuracy_interval is result.tokens.perplexity_interval is None


def test_a_model_that_is_equally_uncertain_everywhere_has_its_perplexity_inside_the_interval():
    model = tiny.randomized(heads.gpt2())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    tokens = summarize_predictions(predict_examples(model, [heads.text("next")])).tokens
    low, high = tokens.perplexity_interval
    assert low < tokens.perplexity <= high < tokens.perplexity * (1 + 1e-9)


def test_the_loss_attack_does_not_tell_long_texts_from_short_ones():
    model = tiny.randomized(heads.gpt2())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    predictions = predict_examples(model, [heads.text("next")])
    assert len(set(predictions.tokens.counts)) > 1
    assert predictions.confidence() == pytest.approx([-np.log(heads.VOCABULARY)] * 4)
    assert predictions.min_k_confidence() == pytest.approx([-np.log(heads.VOCABULARY)] * 4)


def test_many_logits_kept_for_metrics_are_worth_a_warning(monkeypatch, caplog):
    model, batches = tiny.randomized(heads.gpt2()), tiny.in_batches(heads.text("next"), 1)
    monkeypatch.setattr(examples, "_MANY_BYTES", 3000)
    kept = predict_examples(model, batches, preprocess_logits=lambda logits, labels: logits.argmax(-1)).logits
    assert kept.shape == (4, 7)
    assert caplog.text == ""
    predict_examples(model, batches, keep_logits=False)
    assert caplog.text == ""
    assert predict_examples(model, batches).logits.shape == (4, 7, heads.VOCABULARY)
    assert caplog.text.count("Pass `preprocess_logits_for_metrics`") == 1


def test_rounding_does_not_make_the_bound_of_the_losses_infinite():
    log_probabilities = np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    predictions = ExamplePredictions(
        None, np.array([1, 0, 0]), log_probabilities[[0, 1, 2], [1, 0, 0]], log_probabilities.astype(np.float32)
    )
    loss = -predictions.log_likelihood + 1e-7
    assert np.isfinite(_largest_loss(predictions, loss)) and _largest_loss(predictions, loss) >= loss.max()
    assert np.isinf(_largest_loss(predictions, 2 * loss + 1))
