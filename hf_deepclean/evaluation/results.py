# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Summarises the answers of a model on one data set: the figures of a split, with their intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .figures.intervals import mean_interval, proportion_interval, ratio_interval, share_interval
from .figures.memorization import extraction_strength, is_verbatim, perplexity
from .predictions import LOSS_QUANTILES, ExamplePredictions, TokenPredictions


@dataclass(frozen=True)
class ClassResult:
    """Accuracy on the examples of one class, or for token classification on its tokens."""

    num_examples: int
    accuracy: float


@dataclass(frozen=True)
class TokenResult:
    """
    The results of a token-level model on one data set; [`evaluation.figures.memorization`] defines the figures.

    Args:
        num_examples (`int`):
            Number of examples with at least one scored token.
        num_tokens (`int`):
            Number of scored tokens.
        perplexity (`float`):
            `exp` of the negative log-likelihood per scored token.
        accuracy (`float`):
            Share of the scored tokens that are the model's first choice given the true tokens before: the exact
            memorisation over all tokens.
        num_verbatim (`int`):
            Number of examples in which every scored token is the model's first choice. Greedy decoding from the prompt
            reproduces exactly these, for a model that writes from left to right.
        verbatim_interval (`tuple[float, float]`):
            95 % interval of their share.
        extraction_strength (`float`, *optional*):
            Mean extraction strength of the examples; only for a model that writes from left to right.
        accuracy_interval, perplexity_interval (`tuple[float, float]`, *optional*):
            95 % intervals that treat the tokens of one example as dependent; see [`evaluation.figures.intervals`].
            `None` for too few examples.
        extraction_strength_interval (`tuple[float, float]`, *optional*):
            95 % interval of the extraction strength, if there is one.
    """

    num_examples: int
    num_tokens: int
    perplexity: float
    accuracy: float
    num_verbatim: int
    verbatim_interval: tuple[float, float]
    extraction_strength: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    perplexity_interval: tuple[float, float] | None = None
    extraction_strength_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class SplitResult:
    """
    The results of a model on one data set.

    Args:
        num_examples (`int`):
            Number of examples.
        mean_loss (`float`):
            Mean loss of the examples in nats: the negative log-likelihood, for a token-level head per scored token.
        loss_deciles (`tuple[float, ...]`):
            The 10 %, 20 %, ..., 90 % quantiles of the loss.
        accuracy (`float`, *optional*):
            Share of examples whose most probable class is the label.
        accuracy_interval (`tuple[float, float]`, *optional*):
            95 % interval of the accuracy.
        per_class (`dict[str, ClassResult]`, *optional*):
            Accuracy by class name, for the classes that occur.
        metrics (`dict[str, float]`, *optional*):
            Output of the caller's `compute_metrics`.
        tokens ([`TokenResult`], *optional*):
            Results over tokens, for a token-level head.
        mean_loss_interval (`tuple[float, float]`, *optional*):
            95 % interval of the mean loss. `None` for too few examples: fewer than two, or fewer than 200 if nothing
            bounds the loss.
    """

    num_examples: int
    mean_loss: float
    loss_deciles: tuple[float, ...]
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    per_class: dict[str, ClassResult] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tokens: TokenResult | None = None
    mean_loss_interval: tuple[float, float] | None = None


def summarize_predictions(
    predictions: ExamplePredictions,
    class_names: Mapping[int, str] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> SplitResult:
    """
    Summarises the answers of a model on the examples of a data set.

    Args:
        predictions ([`ExamplePredictions`]):
            The answers.
        class_names (`dict[int, str]`, *optional*):
            Names of the classes. By default their indices.
        metrics (`dict[str, float]`, *optional*):
            Figures of the caller, kept as they are.

    Returns:
        [`SplitResult`]
    """
    loss = -predictions.confidence()
    result = SplitResult(
        num_examples=len(predictions.log_likelihood),
        mean_loss=float(loss.mean()),
        loss_deciles=tuple(float(value) for value in np.quantile(loss, LOSS_QUANTILES)),
        metrics=dict(metrics or {}),
        # Losses of probabilities are never negative. The caller's likelihood may be a density, whose losses may be.
        mean_loss_interval=mean_interval(
            loss, (0.0 if loss.min() >= 0 else -math.inf, _largest_loss(predictions, loss))
        ),
    )
    tokens = predictions.tokens
    if tokens is not None:
        per_class = {} if tokens.classes is None else _by_class(tokens.correct, tokens.classes, class_names)
        return replace(result, tokens=_summarize_tokens(tokens), per_class=per_class)
    if predictions.log_probabilities is None:
        return result
    right = predictions.log_probabilities.argmax(axis=1) == predictions.labels
    return replace(
        result,
        accuracy=float(right.mean()),
        accuracy_interval=proportion_interval(float(right.mean()), len(right)),
        per_class=_by_class(right, predictions.labels, class_names),
    )


def _summarize_tokens(tokens: TokenPredictions) -> TokenResult:
    counts = tokens.counts[tokens.counts > 0]
    starts = np.cumsum(counts) - counts
    num_correct = np.add.reduceat(tokens.correct, starts, dtype=np.float64)
    num_verbatim = int(is_verbatim(tokens.correct, counts).sum())
    strength = extraction_strength(tokens.correct, counts) if tokens.generated else None
    return TokenResult(
        num_examples=len(counts),
        num_tokens=len(tokens.correct),
        perplexity=perplexity(tokens.log_probabilities),
        accuracy=float(tokens.correct.mean()),
        num_verbatim=num_verbatim,
        verbatim_interval=proportion_interval(num_verbatim / len(counts), len(counts)),
        extraction_strength=None if strength is None else float(strength.mean()),
        accuracy_interval=share_interval(num_correct, counts),
        perplexity_interval=_perplexity_interval(tokens, starts, counts),
        extraction_strength_interval=None if strength is None else share_interval(strength, np.ones(len(strength))),
    )


def _perplexity_interval(
    tokens: TokenPredictions, starts: np.ndarray, counts: np.ndarray
) -> tuple[float, float] | None:
    losses = -np.add.reduceat(tokens.log_probabilities, starts, dtype=np.float64)
    interval = ratio_interval(losses, counts, (0.0, _largest_loss_of_text(tokens, losses / counts)))
    if interval is None:
        return None
    low, high = (perplexity(np.array([-max(0.0, end)])) for end in interval)
    # Rounding must not push an end past the perplexity.
    value = perplexity(tokens.log_probabilities)
    return min(low, value), max(high, value)


def _largest_loss(predictions: ExamplePredictions, loss: np.ndarray) -> float:
    """What bounds the loss of an example that was not seen. Infinite if nothing does."""
    if predictions.tokens is not None:
        return _largest_loss_of_text(predictions.tokens, loss)
    if predictions.log_probabilities is None:
        return math.inf
    # The loss that the worst of all classes would have had on the worst of all examples.
    largest = -float(predictions.log_probabilities.min())
    # The caller's likelihood may be another one. Rounding alone makes none.
    return max(largest, float(loss.max())) if largest >= loss.max() * (1 - 1e-4) else math.inf


def _largest_loss_of_text(tokens: TokenPredictions, losses: np.ndarray) -> float:
    """A text that was not seen is predicted no worse than by chance, or than the worst one."""
    # A short row of classes may be labelled worse than by chance throughout.
    if tokens.num_choices is None or tokens.classes is not None:
        return math.inf
    return max(math.log(tokens.num_choices), float(losses.max()))


def _by_class(right: np.ndarray, labels: np.ndarray, class_names: Mapping[int, str] | None) -> dict[str, ClassResult]:
    return {
        str((class_names or {}).get(int(label), int(label))): ClassResult(
            int((labels == label).sum()), float(right[labels == label].mean())
        )
        for label in np.unique(labels)
    }
