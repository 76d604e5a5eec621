# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Models in which the result of a row depends on its batch: each row counts as if it were collated alone."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    FNetConfig,
    FNetForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from hf_deepclean import accumulate_fisher_diagonal, next_token_log_likelihood, token_log_likelihood
from hf_deepclean.evaluation.predictions import predict_examples
from hf_deepclean.fisher.engine.reference import add_reference_squares_
from hf_deepclean.models.company import Company
from hf_deepclean.models.heads import find_likelihood
from tests import tiny
from tests.fisher.test_accumulate import worst_relative_difference


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
         "vocab_size": 50, "max_position_embeddings": 32, "pad_token_id": 0}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4, "original_max_position_embeddings": 8}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


def llama(**changes):
    torch.manual_seed(0)
    return tiny.randomized(LlamaForCausalLM(LlamaConfig(**SIZES | changes)))


class MeanSubtracting(nn.Module):
    """Subtracts the mean of the batch."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, **inputs):
        logits = self.model(**inputs).logits
        return {"logits": logits - logits.mean(dim=0, keepdim=True).detach() / 2}


class Capacity(nn.Module):
    """Drops the tokens of a batch that are more than an expert takes, as some mixtures of experts do."""

    def __init__(self, model, capacity):
        super().__init__()
        self.model, self.config, self.capacity = model, model.config, capacity

    def forward(self, **inputs):
        logits = self.model(**inputs).logits
        position = torch.arange(logits.shape[0] * logits.shape[1]).view(logits.shape[:2])
        return {"logits": logits * (position < self.capacity)[..., None]}


def rows(*lengths, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(3, 50, length).tolist() for length in lengths]


def collate(chosen, length=0):
    length = max(length, *map(len, chosen), 0)
    padded = {value: torch.tensor([row + [value] * (length - len(row)) for row in chosen]) for value in (0, -100)}
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in chosen])
    return {"input_ids": padded[0], "attention_mask": mask, "labels": padded[-100]}


def alone(model, chosen, function=None):
    """The sums and log-likelihoods of rows that are collated one by one, by a model that meets no other row."""
    sums = {name: torch.zeros_like(parameter) for name, parameter in model().named_parameters()}
    scores = []
    for row in chosen:
        fresh, batch = model(), collate([row])
        likelihood = find_likelihood(fresh, batch, function)
        add_reference_squares_(sums, fresh, batch, dict(fresh.named_parameters()), likelihood=likelihood)
        scores.append(torch.from_numpy(predict_examples(model(), [batch], function).log_likelihood))
    return sums, torch.cat(scores)


def in_batches(chosen, size, **kwargs):
    return [collate(chosen[start : start + size], **kwargs) for start in range(0, len(chosen), size)]


@pytest.mark.parametrize(
    ("make_model", "lengths"),
    [
        (lambda: llama(rope_parameters=LONGROPE), (6, 14, 6, 6, 7, 6, 8, 9, 20)),
        # No row is long before the third batch.
        (lambda: llama(rope_parameters=LONGROPE), (6, 5, 6, 6, 7, 6, 8, 9, 20, 4)),
        (lambda: llama(rope_parameters=DYNAMIC, max_position_embeddings=8), (6, 14, 6, 14, 20, 7, 9, 10, 8, 10)),
    ],
)
def test_rows_on_both_sides_of_the_length_at_which_positions_are_scaled_run_apart(make_model, lengths, caplog):
    chosen = rows(*lengths)
    sums, scores = alone(make_model, chosen)
    for size in (1, 2, 4, 10):
        model = make_model()
        fisher = accumulate_fisher_diagonal(model, in_batches(chosen, size))
        assert worst_relative_difference(fisher.sums, sums) <= 1e-9
        assert fisher.fallback_parameters == {}
        predictions = predict_examples(model, in_batches(chosen, size))
        assert np.allclose(predictions.log_likelihood, scores, rtol=1e-9)
        assert predictions.tokens.counts.tolist() == [length - 1 for length in lengths]
    assert not caplog.records


def fnet():
    torch.manual_seed(0)
    return tiny.randomized(FNetForMaskedLM(FNetConfig(**SIZES, type_vocab_size=2)))


@pytest.mark.parametrize(
    ("make_model", "function", "what"),
    [
        (fnet, token_log_likelihood, "on the length to which they are padded"),
        (lambda: MeanSubtracting(llama()), next_token_log_likelihood, "on the other rows of their batch"),
        (lambda: Capacity(llama(), 20), next_token_log_likelihood, "on the other rows of their batch"),
    ],
)
def test_rows_that_change_each_other_run_alone_and_a_warning_says_so(make_model, function, what, caplog):
    chosen = rows(6, 9, 7, 6, 5, 9, 9)
    sums, _ = alone(make_model, chosen, function)
    with caplog.at_level(logging.WARNING, "hf_deepclean"):
        fisher = accumulate_fisher_diagonal(make_model(), in_batches(chosen, 4), log_likelihood_func=function)
    assert worst_relative_difference(fisher.sums, sums) <= 1e-9
    assert fisher.fallback_parameters.keys() == sums.keys()
    assert all(what in reason for reason in fisher.fallback_parameters.values())
    assert [record.getMessage() for record in caplog.records if what in record.getMessage()]
    single = predict_examples(make_model(), in_batches(chosen, 1), function).log_likelihood
    assert np.allclose(predict_examples(make_model(), in_batches(chosen, 4), function).log_likelihood, single)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rounding_is_no_dependence(dtype, caplog):
    chosen = rows(6, 31, 7, 16)
    for model in (llama(), llama(rope_parameters=LONGROPE)):
        accumulate_fisher_diagonal(model.to(dtype), in_batches(chosen, 4))
        predict_examples(model, in_batches(chosen, 4))
    assert not caplog.records


def test_padding_to_one_length_is_a_part_of_a_row(caplog):
    """FNet reads padding; where every row gets the same, the batch has no say."""
    chosen, model = rows(6, 9, 12, 6), fnet()
    batches = in_batches(chosen, 2, length=12)
    fixed = predict_examples(model, batches, token_log_likelihood, has_fixed_length=lambda: True)
    single = predict_examples(model, in_batches(chosen, 1, length=12), token_log_likelihood)
    assert np.allclose(fixed.log_likelihood, single.log_likelihood)
    assert not caplog.records


def bart():
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}  # fmt: skip
    config = BartConfig(**sizes, vocab_size=50, pad_token_id=0, eos_token_id=2, num_labels=2)
    return tiny.randomized(BartForSequenceClassification(config))


class TakesNoShortRows(nn.Module):
    """Fails below a number of positions, as a convolution does whose kernel is longer than the row."""

    def __init__(self, model, minimum):
        super().__init__()
        self.model, self.config, self.minimum = model, model.config, minimum

    def forward(self, **inputs):
        if inputs["input_ids"].shape[1] < self.minimum:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return self.model(**inputs)


def test_rows_that_cannot_run_without_their_padding_keep_it(caplog):
    given = collate([row + [2] for row in rows(6, 3, 5)]) | {"labels": torch.tensor([0, 1, 1])}
    # The head reads the decoder at the place where the input ends.
    given["decoder_input_ids"] = given["input_ids"].clone()
    short = collate(rows(6, 2, 9))
    cases = [(bart(), given, None), (TakesNoShortRows(llama(), 4), short, next_token_log_likelihood)]
    for model, batch, function in cases:
        sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
        likelihood = find_likelihood(model, batch, function)
        add_reference_squares_(sums, model, batch, dict(model.named_parameters()), likelihood=likelihood)
        fisher = accumulate_fisher_diagonal(model, [batch], log_likelihood_func=function)
        assert worst_relative_difference(fisher.sums, sums) <= 1e-9
        assert fisher.fallback_parameters == {}
    assert not caplog.records


def test_a_longer_batch_is_looked_at_again():
    company, model = Company(llama()), llama()
    likelihood = lambda inputs, outputs, labels: next_token_log_likelihood(outputs, labels)  # noqa: E731
    assert company.wants(collate(rows(4, 8))) and not company.wants(collate(rows(4)))
    company.look(collate(rows(4, 8)), likelihood)
    assert company.reason is None and model.training is not None
    assert not company.wants(collate(rows(9, 8))) and company.wants(collate(rows(11, 8)))
