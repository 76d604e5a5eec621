# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
What a model still knows of a text, token by token.

Every function takes the scored tokens of all examples one after another, and how many of them each example has. The
tokens are teacher-forced: each is predicted from the true ones before it, whatever the model would have said there.
For a masked language model they are the masked positions as they were given, all predicted at once; its figures are
those of a pseudo-likelihood, and comparable only under the same masks.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..data.batches import IGNORED


def perplexity(log_probabilities: np.ndarray) -> float:
    """
    Perplexity: `exp` of the total negative log-likelihood over the total number of scored tokens.

    1: every token is certain; the size of the vocabulary: no better than chance. Every token weighs the same, so that
    long texts weigh more than short ones. Models with different tokenizers cannot be compared by it.

    Args:
        log_probabilities (`np.ndarray`):
            Log-probability of every scored token, in nats, shape `(num_tokens,)` with at least one.

    Returns:
        `float`: At least 1; infinite above `exp(709)`.
    """
    mean_loss = -float(np.mean(log_probabilities, dtype=np.float64))
    return math.exp(mean_loss) if mean_loss < math.log(np.finfo(np.float64).max) else math.inf


def mean_log_probability(log_probabilities: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    """
    Mean log-probability of the scored tokens of every example; 0 at best.

    The score of the loss attack on membership (Yeom et al., arXiv 1709.01604). Unlike the sum it does not tell long
    texts from short ones.

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
    Min-K%: mean log-probability of the least probable tokens of every example; 0 at best.

    A text that was trained on has few tokens that surprise the model, one that was not has some. Higher for training
    data. [Detecting pretraining data from large language models](https://huggingface.co/papers/2310.16789),
    which recommends 20 %.

    Args:
        log_probabilities (`np.ndarray`):
            Log-probability of every scored token, shape `(num_tokens,)`.
        num_tokens (`np.ndarray`):
            Scored tokens of every example, shape `(num_examples,)`.
        percent (`int`, *optional*, defaults to `20`):
            Share of the tokens that count, in percent, rounded down to whole tokens but at least one.

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
    Exact memorisation: share of every example's scored tokens that are the model's first choice.

    0: none; 1: all of them. Frequent words are guessed right in texts never seen, so the target is the value of a
    model trained without the text, not 0. Tirumala et al., arXiv 2205.10770.

    Args:
        correct (`np.ndarray`):
            Whether the model's first choice is the token, for every scored token, shape `(num_tokens,)`.
        num_tokens (`np.ndarray`):
            Scored tokens of every example, shape `(num_examples,)`.

    Returns:
        `np.ndarray`: Shape `(num_examples,)`; NaN for an example without scored tokens.
    """
    return _per_example(np.mean, np.asarray(correct, dtype=bool), num_tokens)


def extraction_strength(correct: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    """
    Extraction strength: how little of a text must be given for greedy decoding to give the rest.

    `1 - k / length`, `k` the smallest number of scored tokens after which every further one is the model's first
    choice. 1: the prompt is enough; 0: not even the last token follows from all the others. That last case is the
    floor 0 here, where public code gives `1 / length`, so that short texts looked half extracted. Wang et al., arXiv
    2406.09179.

    Only for models that write from left to right: a masked language model sees both sides.

    Args:
        correct (`np.ndarray`):
            Whether the model's first choice is the token, for every scored token, shape `(num_tokens,)`.
        num_tokens (`np.ndarray`):
            Scored tokens of every example, shape `(num_examples,)`.

    Returns:
        `np.ndarray`: Shape `(num_examples,)`; NaN for an example without scored tokens.
    """

    def share_at_the_end(values: np.ndarray) -> float:
        wrong = np.flatnonzero(~values)
        return 1.0 if len(wrong) == 0 else (len(values) - 1 - wrong[-1]) / len(values)

    return _per_example(share_at_the_end, np.asarray(correct, dtype=bool), num_tokens)


def is_verbatim(correct: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    """
    Whether every scored token of an example is the model's first choice.

    For a causal or sequence-to-sequence model that means: from what stands before the first scored token, greedy
    decoding writes the text word for word, provided that the scored tokens stand in one piece up to the end. Sampling
    or another prompt may still bring it out where this says no.
    Carlini et al., [Quantifying memorization](https://huggingface.co/papers/2202.07646).

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
    Which tokens are the model's first choice, in the form that the functions here take.

    Args:
        predictions (`Sequence[Sequence[int]]`):
            The model's first choice for every token of every example, each in the place of its reference: of a causal
            model, what it says one position earlier.
        references (`Sequence[Sequence[int]]`):
            The tokens; -100 is not scored.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Whether the choice is right, for every scored token, and scored tokens of
            every example.

    Raises:
        `ValueError`: If an example has another number of predictions than of references.
    """
    rows = [(np.asarray(one), np.asarray(other)) for one, other in zip(predictions, references, strict=True)]
    uneven = [number for number, (chosen, tokens) in enumerate(rows) if chosen.shape != tokens.shape]
    if uneven:
        chosen, tokens = rows[uneven[0]]
        raise ValueError(
            f"Example {uneven[0]} has predictions of shape {chosen.shape} and references of shape {tokens.shape}: "
            "every token needs one prediction. Of logits pass the argmax over the vocabulary."
        )
    correct = [(chosen == tokens)[tokens != IGNORED] for chosen, tokens in rows]
    return np.concatenate([np.zeros(0, dtype=bool), *correct]), np.array([len(row) for row in correct], dtype=int)


def _per_example(function: Callable[[np.ndarray], float], values: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    if values.shape != (np.sum(num_tokens),):
        raise ValueError(
            f"{np.sum(num_tokens)} scored tokens in {len(num_tokens)} examples need as many values in one row, but "
            f"the values have shape {values.shape}."
        )
    parts = np.split(values, np.cumsum(num_tokens)[:-1])
    return np.array([function(part) if len(part) else np.nan for part in parts])
