# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch

from hf_deepclean.evaluation.figures.memorization import (
    exact_memorization,
    extraction_strength,
    is_verbatim,
    mean_log_probability,
    min_k_score,
    perplexity,
)
from hf_deepclean.evaluation.predictions import predict_examples
from tests import heads, tiny


def random_tokens(num_examples=200):
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 12, num_examples)
    return generator.normal(-2, 1, counts.sum()), generator.random(counts.sum()) < 0.8, counts


def of_every_example(values, counts):
    return np.split(values, np.cumsum(counts)[:-1])


def test_perplexity_weighs_every_token_the_same_and_is_1_at_best():
    log_probabilities, _, _ = random_tokens()
    assert perplexity(log_probabilities) == pytest.approx(math.exp(-log_probabilities.mean()))
    assert perplexity(np.full(7, -np.log(50))) == pytest.approx(50)
    assert perplexity(np.zeros(3)) == 1
    assert perplexity(np.array([-1e4])) == math.inf


def test_extraction_strength_is_the_definition_by_search_with_the_floor_at_0():
    _, correct, counts = random_tokens()
    for values, strength in zip(of_every_example(correct, counts), extraction_strength(correct, counts), strict=True):
        if len(values) == 0:
            assert np.isnan(strength)
            continue
        shortest = next(k for k in range(len(values) + 1) if values[k:].all())
        assert strength == pytest.approx(1 - shortest / len(values))
    assert extraction_strength([True, True, False], [3]).tolist() == [0]
    assert extraction_strength([False], [1]).tolist() == [0]
    assert extraction_strength([True], [1]).tolist() == [1]


def test_verbatim_means_full_exact_memorisation_and_full_extraction_strength():
    _, correct, counts = random_tokens()
    exact, strength = exact_memorization(correct, counts), extraction_strength(correct, counts)
    assert np.array_equal(is_verbatim(correct, counts), exact == 1)
    assert np.array_equal(is_verbatim(correct, counts), strength == 1)
    assert not is_verbatim(correct, counts)[counts == 0].any()
    # A suffix of right tokens is a part of all right tokens.
    assert (exact[counts > 0] >= strength[counts > 0]).all()


def test_min_k_lies_between_the_lowest_token_and_the_mean_and_takes_at_least_one_token():
    log_probabilities, _, counts = random_tokens()
    lowest = min_k_score(log_probabilities, counts, 1)
    everything = min_k_score(log_probabilities, counts, 100)
    score = min_k_score(log_probabilities, counts)
    assert everything == pytest.approx(mean_log_probability(log_probabilities, counts), nan_ok=True)
    for values, low, middle, high in zip(
        of_every_example(log_probabilities, counts), lowest, score, everything, strict=True
    ):
        if len(values):
            assert low == values.min()
            assert low <= middle <= high + 1e-12
    assert min_k_score(np.arange(15.0), [15]) == [1.0]
    with pytest.raises(ValueError, match="between 1 and 100"):
        min_k_score(log_probabilities, counts, 0)


def test_counts_that_do_not_fit_the_tokens_are_refused():
    with pytest.raises(ValueError, match="3 scored tokens in 2 examples"):
        is_verbatim([True, True], [1, 2])


def continuations(model, num_prompts=12, length=5, **prompt):
    """What greedy decoding writes after random prompts; in every other row one token is changed."""
    generator = torch.Generator().manual_seed(3)
    prompts = torch.randint(3, heads.VOCABULARY, (num_prompts, 4), generator=generator)
    written = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=length, min_new_tokens=length
    )[:, -length:]
    for row in range(0, num_prompts, 2):
        place = row // 2 % length
        written[row, place] = (written[row, place] + 1) % heads.VOCABULARY
    return prompts, written


def test_verbatim_and_extraction_strength_are_what_greedy_decoding_of_a_causal_model_gives():
    model = tiny.randomized(heads.gpt2(), torch.float32)
    prompts, texts = continuations(model)
    rows = torch.cat([prompts, texts], dim=1)
    labels = torch.cat([torch.full_like(prompts, -100), texts], dim=1)
    batch = {"input_ids": rows, "attention_mask": torch.ones_like(rows), "labels": labels}
    tokens = predict_examples(model, [batch]).tokens
    found, strength = is_verbatim(tokens.correct, tokens.counts), extraction_strength(tokens.correct, tokens.counts)
    assert found.tolist() == [False, True] * 6
    for row, text, share in zip(rows, texts, strength, strict=True):
        for given in range(len(text)):
            prompt = row[None, : 4 + given]
            rest = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=len(text) - given,
                min_new_tokens=len(text) - given,
            )
            reproduced = torch.equal(rest[0], row)
            assert reproduced == (given >= round((1 - share) * len(text)))


def test_verbatim_is_what_greedy_decoding_of_an_encoder_decoder_reproduces():
    model = tiny.randomized(heads.HEADS["t5 generation"][0](), torch.float32)
    prompts, texts = continuations(model)
    # The longer of the two texts pads the labels of the other.
    labels = torch.nn.functional.pad(texts, (0, 2), value=-100)
    batch = {"input_ids": prompts, "attention_mask": torch.ones_like(prompts), "labels": labels}
    tokens = predict_examples(model, [batch]).tokens
    assert tokens.generated
    assert tokens.counts.tolist() == [5] * 12
    assert is_verbatim(tokens.correct, tokens.counts).tolist() == [False, True] * 6
