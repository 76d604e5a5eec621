# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Measures what a model knows of texts, token by token.

Every function takes the scored tokens of all examples in one row, and the number of scored tokens per example. Tokens
are teacher-forced: each is predicted from the true tokens before it, whatever the model would have written there. For
a masked language model the scored tokens are the masked positions as given, all predicted at once. Its figures belong
to a pseudo-likelihood, and are comparable only under the same masks.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...data.batches import IGNORED


def perplexity(log_probabilities: np.ndarray) -> float:
    """
    Computes the perplexity: `exp` of the total negative log-likelihood over the total number of scored tokens.

    It is 1 if every token is certain, and the size of the vocabulary at chance. Every token has the same weight, so
    long texts weigh more than short ones. Do not compare models with different tokenizers by it.

    Args:
        log_probabilities (`np.ndarray`):
            Log-probability of every scored token, in nats, shape `(num_tokens,)` with at least one token.

    Returns:
        `float`: At least 1, and infinite above `exp(709)`.
    """
    mean_loss = -float(np.mean(log_probabilities, dtype=np.float64))
    return math.exp(mean_loss) if mean_loss < math.log(np.finfo(np.float64).max) else math.inf


def mean_log_probability(log_probabilities: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    """
    Computes the mean log-probability of the scored tokens of every example, at most 0.

    It is the score of the loss attack on membership (Yeom et al., arXiv 1709.01604). Unlike the sum, it does not
    depend on the length of the text.

    Args:
        log_probabilities (`np.ndarray`):
            Log-probability of every scored token, shape `(num_tokens,)`.
        num_tokens (`np.ndarray`):
            Scored tokens of every example, shape `(num_examples,)`.

    Returns:
        `np.ndarray`: Shape `(num_examples,)`, in nats; NaN for an example without scored tokens.
    """
    return _per_example(np.mean, np.asarray(log_probabilities, dtype=np.float64), num_tokens)


def min_k_score(log_probabilities: np.ndarray, num_tokens: np.ndarray, percent: int = 20) -> np.ndarray:
    """
    Computes Min-K%: the mean log-probability of the least probable tokens of every example, at most 0.

    It is higher for training data: a text that was not trained on has some tokens that surprise the model, a training
    text has few. [Detecting pretraining data from large language models](https://huggingface.co/papers/2310.16789)
    recommends 20 %.

    Args:
        log_probabilities (`np.ndarray`):
            Log-probability of every scored token, shape `(num_tokens,)`.
        num_tokens (`np.ndarray`):
            Scored tokens of every example, shape `(num_examples,)`.
        percent (`int`, *optional*, defaults to `20`):
            Share of the tokens that count, in percent, rounded down to whole tokens, but at least one.

    Returns:
        `np.ndarray`: Shape `(num_examples,)`, in nats; NaN for an example without scored tokens.

    Raises:
        `ValueError`: If `percent` is not between 1 and 100.
    """
    if not 1 <= percent <= 100:
        raise ValueError(f"`percent` is {percent} but must be between 1 and 100.")

    def lowest(values: np.ndarray) -> float:
        return np.sort(values)[: max(1, percent * len(values) // 100)].mean()

    return _per_example(lowest, np.asarray(log_probabilities, dtype=np.float64), num_tokens)


def exact_memorization(correct: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    """
    Computes the exact memorisation: the share of every example's scored tokens that are the model's first choice.

    A model also guesses frequent words of texts that it never saw, so the target is the value of a model trained
    without the text, not 0. Tirumala et al., arXiv 2205.10770.

    Args:
        correct (`np.ndarray`):
            Whether the model's first choice is the token, for every scored token, shape `(num_tokens,)`.
        num_tokens (`np.ndarray`):
            Scored tokens of every example, shape `(num_examples,)`.

    Returns:
        `np.ndarray`: Between 0 and 1, shape `(num_examples,)`; NaN for an example without scored tokens.
    """
    return _per_example(np.mean, np.asarray(correct, dtype=bool), num_tokens)


def extraction_strength(correct: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    """
    Computes the extraction strength: how little of a text must be given for greedy decoding to complete it.

    It is `1 - k / length`, with `k` the smallest number of scored tokens after which every further token is the
    model's first choice. At 1 the prompt is enough. At 0 not even the last token follows from all the others; in this
    case public code gives `1 / length`, so that short texts look half extracted. Wang et al., arXiv 2406.09179.

    Only for models that write from left to right: a masked language model sees both sides.

    Args:
        correct (`np.ndarray`):
            Whether the model's first choice is the token, for every scored token, shape `(num_tokens,)`.
        num_tokens (`np.ndarray`):
            Scored tokens of every example, shape `(num_examples,)`.

    Returns:
        `np.ndarray`: Between 0 and 1, shape `(num_examples,)`; NaN for an example without scored tokens.
    """

    def share_at_the_end(values: np.ndarray) -> float:
        wrong = np.flatnonzero(~values)
        return 1.0 if len(wrong) == 0 else (len(values) - 1 - wrong[-1]) / len(values)

    return _per_example(share_at_the_end, np.asarray(correct, dtype=bool), num_tokens)


def is_verbatim(correct: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    """
    Tests for every example whether all its scored tokens are the model's first choice.

    For a causal or sequence-to-sequence model this means: given the tokens before the first scored one, greedy
    decoding writes the text word for word, provided that the scored tokens are contiguous up to the end. If not,
    sampling or another prompt may still bring the text out. Carlini et al., [Quantifying
    memorization](https://huggingface.co/papers/2202.07646).

    Args:
        correct (`np.ndarray`):
            Whether the model's first choice is the token, for every scored token, shape `(num_tokens,)`.
        num_tokens (`np.ndarray`):
            Scored tokens of every example, shape `(num_examples,)`.

    Returns:
        `np.ndarray`: Booleans of shape `(num_examples,)`; false for an example without scored tokens.
    """
    return exact_memorization(correct, num_tokens) == 1


def score_tokens(
    predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """
    Compares the model's first choices with the tokens, and returns arguments for the functions of this module.

    Args:
        predictions (`Sequence[Sequence[int]]`):
            The model's first choice for every token of every example, at the position of the token. For a causal
            model this is its output at the position before.
        references (`Sequence[Sequence[int]]`):
            The tokens. Tokens of -100 are not scored.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: For every scored token whether the choice is right, shape `(num_tokens,)`, and
            the number of scored tokens of every example, shape `(num_examples,)`.

    Raises:
        `ValueError`: If the predictions and references of an example differ in number.
    """
    rows = [(np.asarray(one), np.asarray(other)) for one, other in zip(predictions, references, strict=True)]
    uneven = [number for number, (chosen, tokens) in enumerate(rows) if chosen.shape != tokens.shape]
    if uneven:
        chosen, tokens = rows[uneven[0]]
        raise ValueError(
            f"Example {uneven[0]} has predictions of shape {chosen.shape} and references of shape {tokens.shape}, but "
            "every token needs one prediction. If you have logits, pass their argmax over the vocabulary."
        )
    correct = [(chosen == tokens)[tokens != IGNORED] for chosen, tokens in rows]
    return np.concatenate([np.zeros(0, dtype=bool), *correct]), np.array([len(row) for row in correct], dtype=int)


def _per_example(function: Callable[[np.ndarray], float], values: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    if values.shape != (np.sum(num_tokens),):
        raise ValueError(
            f"{np.sum(num_tokens)} scored tokens in {len(num_tokens)} examples need one value each, in one row, but "
            f"the values have shape {values.shape}."
        )
    parts = np.split(values, np.cumsum(num_tokens)[:-1])
    return np.array([function(part) if len(part) else np.nan for part in parts])
