# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a model says of every example of a data set, and what that adds up to."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.batches import IGNORED, move_batch, split_labels
from ..models.contexts import evaluation_mode
from ..models.heads import classifies_tokens, find_likelihood, generates_tokens, prepare_batch
from ..models.likelihood import Likelihood, LogLikelihoodFunction, check_finite_log_likelihood, logits_of
from .intervals import mean_interval, ratio_interval, share_interval, wilson_interval
from .memorization import extraction_strength, is_verbatim, mean_log_probability, min_k_score, perplexity


logger = logging.getLogger(__name__)

# Kept logits of that many bytes are worth a warning.
_MANY_BYTES = 2**30

# The extremes would each show a single example, so the summary stops short of them.
LOSS_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class TokenPredictions:
    """
    A token-level model's answers on a data set, the scored tokens of all examples one after another.

    Args:
        log_probabilities (`np.ndarray`):
            Log-probability of every scored token, shape `(num_tokens,)`, in nats.
        correct (`np.ndarray`):
            Whether it is the model's first choice, shape `(num_tokens,)`.
        counts (`np.ndarray`):
            Scored tokens of every example, shape `(num_examples,)`.
        generated (`bool`):
            Whether every token is predicted from the ones before it alone: causal and sequence-to-sequence models,
            not masked language models and token classifiers.
        classes (`np.ndarray`, *optional*):
            Class of every scored token, shape `(num_tokens,)`; for token classification only.
    """

    log_probabilities: np.ndarray
    correct: np.ndarray
    counts: np.ndarray
    generated: bool
    classes: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> "TokenPredictions":
        """The answers on some of the examples."""
        ends = self.counts.cumsum()
        places = [np.arange(ends[row] - self.counts[row], ends[row]) for row in rows]
        chosen = np.concatenate(places).astype(int)
        classes = None if self.classes is None else self.classes[chosen]
        return TokenPredictions(
            self.log_probabilities[chosen], self.correct[chosen], self.counts[rows], self.generated, classes
        )


@dataclass(frozen=True)
class ExamplePredictions:
    """
    A model's answers on a data set, one row per example.

    Args:
        logits (`np.ndarray`, *optional*):
            The model's logits, or what the caller's `preprocess_logits_for_metrics` made of them; start and end
            logits stacked to shape `(num_examples, 2, length)`. Sequences of different lengths are padded by -100.
        labels (`np.ndarray`):
            The given labels, padded likewise.
        log_likelihood (`np.ndarray`):
            Log-likelihood of the given label, or the sum over the scored tokens, shape `(num_examples,)`, in nats.
        log_probabilities (`np.ndarray`, *optional*):
            Log-probability of every class, shape `(num_examples, num_labels)`; none for a head that does not classify
            whole examples.
        tokens ([`TokenPredictions`], *optional*):
            The answers token by token; none for a head that says one thing of an example.
    """

    logits: np.ndarray | None
    labels: np.ndarray
    log_likelihood: np.ndarray
    log_probabilities: np.ndarray | None
    tokens: TokenPredictions | None = None

    def select(self, rows: Sequence[int]) -> "ExamplePredictions":
        """The answers on some of the examples."""
        chosen = np.asarray(rows)
        parts = (self.logits, self.labels, self.log_likelihood, self.log_probabilities)
        tokens = None if self.tokens is None else self.tokens.select(chosen)
        return ExamplePredictions(*(None if part is None else part[chosen] for part in parts), tokens)

    def confidence(self) -> np.ndarray:
        """
        The score of the loss attack on membership: the log-likelihood of every example, for a token-level head its
        mean over the scored tokens. Examples without scored tokens are left out.
        """
        if self.tokens is None:
            return self.log_likelihood
        mean = mean_log_probability(self.tokens.log_probabilities, self.tokens.counts)
        return mean[self.tokens.counts > 0]

    def min_k_confidence(self) -> np.ndarray:
        """The score of the Min-K% attack, for a token-level head; examples without scored tokens are left out."""
        return min_k_score(self.tokens.log_probabilities, self.tokens.counts)[self.tokens.counts > 0]


@dataclass(frozen=True)
class ClassResult:
    """Accuracy on the examples of one class; for token classification on its tokens."""

    num_examples: int
    accuracy: float


@dataclass(frozen=True)
class TokenResult:
    """
    A token-level model's results on one data set; see [`evaluation.memorization`] for what they mean.

    Args:
        num_examples (`int`):
            Number of examples with at least one scored token.
        num_tokens (`int`):
            Number of scored tokens.
        perplexity (`float`):
            `exp` of the negative log-likelihood per scored token.
        accuracy (`float`):
            Share of the scored tokens that are the model's first choice given the true ones before: exact
            memorisation, over all tokens.
        num_verbatim (`int`):
            Number of examples whose every scored token is the model's first choice. For a model that writes from left
            to right, greedy decoding from the prompt reproduces exactly these.
        verbatim_interval (`tuple[float, float]`):
            95 % interval of their share by Wilson's method.
        extraction_strength (`float`, *optional*):
            Mean extraction strength of the examples; only for a model that writes from left to right.
        accuracy_interval, perplexity_interval (`tuple[float, float]`, *optional*):
            95 % intervals that take the tokens of one example for dependent, see [`evaluation.intervals`]; none for
            fewer than two examples.
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
    A model's results on one data set.

    Args:
        num_examples (`int`):
            Number of examples.
        mean_loss (`float`):
            Mean loss of the examples: the negative log-likelihood, for a token-level head per scored token, in nats.
        loss_deciles (`tuple[float, ...]`):
            The 10 % to 90 % quantiles of that loss.
        accuracy (`float`, *optional*):
            Share of examples whose most probable class is the label.
        accuracy_interval (`tuple[float, float]`, *optional*):
            95 % interval of the accuracy by Wilson's method.
        per_class (`dict[str, ClassResult]`, *optional*):
            Accuracy by class name, for the classes that occur.
        metrics (`dict[str, float]`, *optional*):
            What the caller's `compute_metrics` returned.
        tokens ([`TokenResult`], *optional*):
            Results token by token, for a token-level head.
        mean_loss_interval (`tuple[float, float]`, *optional*):
            95 % interval of the mean loss by the normal distribution; none for fewer than two examples.
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


def predict_examples(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    log_likelihood_func: LogLikelihoodFunction | None = None,
    preprocess_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    keep_logits: bool = True,
) -> ExamplePredictions:
    """
    Runs a model over a data set in eval mode; the model's training flags are left as they were.

    Args:
        model (`torch.nn.Module`):
            The model.
        batches (`Iterable[dict[str, Any]]`):
            Batches of model inputs with labels.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood, by default that of the model's head.
        preprocess_logits (`Callable`, *optional*):
            Called with the logits and the labels of every batch; what it returns is kept in their place.
        keep_logits (`bool`, *optional*, defaults to `True`):
            Whether to keep logits at all; those of a language model are as large as its vocabulary for every token, so
            that `preprocess_logits` should make something small of them, such as `logits.argmax(-1)`.

    Raises:
        `ValueError`: If the likelihood is not the one the model was trained on, if a log-likelihood is not finite
            (names the position of the example), or if no example has a scored token.
    """
    return join_predictions(list(predict_batches(model, batches, log_likelihood_func, preprocess_logits, keep_logits)))


@torch.no_grad()
def predict_batches(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    log_likelihood_func: LogLikelihoodFunction | None = None,
    preprocess_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    keep_logits: bool = True,
) -> Iterator[ExamplePredictions]:
    """As [`predict_examples`], batch by batch."""
    device = next(model.parameters()).device
    position, num_bytes, likelihood = 0, 0, None
    with evaluation_mode(model):
        for batch in batches:
            batch = move_batch(prepare_batch(model, batch), device)
            if likelihood is None:
                likelihood = find_likelihood(model, batch, log_likelihood_func)
            inputs, labels = split_labels(batch)
            outputs = model(**inputs)
            tokens = log_probabilities = logits = None
            if likelihood.kind in ("token", "next_token"):
                tokens = _score_tokens(model, likelihood, batch, outputs)
                scores = _sum_by_example(tokens)
            else:
                scores = likelihood(inputs, outputs, labels).double().cpu()
            check_finite_log_likelihood(scores, position)
            position += len(scores)
            if likelihood.kind == "classification":
                log_probabilities = torch.log_softmax(logits_of(outputs).double(), dim=-1).cpu().numpy()
            if keep_logits:
                kept = _all_logits(likelihood, outputs)
                logits = _to_numpy(kept if preprocess_logits is None else preprocess_logits(kept, labels))
                num_bytes += logits.nbytes
                if num_bytes >= _MANY_BYTES > num_bytes - logits.nbytes and preprocess_logits is None:
                    logger.warning(
                        f"The logits that `compute_metrics` is to see fill {num_bytes / 2**30:.1f} GiB after "
                        f"{position} examples. Pass `preprocess_logits_for_metrics`, for example "
                        "`lambda logits, labels: logits.argmax(-1)`."
                    )
            yield ExamplePredictions(logits, _to_numpy(labels), scores.numpy(), log_probabilities, tokens)


def join_predictions(parts: Sequence[ExamplePredictions]) -> ExamplePredictions:
    """
    The answers on a whole data set, from those on its batches in order.

    Args:
        parts (`Sequence[ExamplePredictions]`):
            At least one.

    Raises:
        `ValueError`: If no example has a scored token.
    """
    first = parts[0]
    if first.tokens is not None and not any(part.tokens.counts.any() for part in parts):
        raise ValueError(
            f"None of the {sum(len(part.labels) for part in parts)} examples of a data set has a scored token: every "
            "label is -100, or the only one that is not stands at the first position of a causal model, which "
            "nothing predicts. Check the masking of the prompts, and whether truncation cut off the answers."
        )
    return ExamplePredictions(
        None if first.logits is None else _concatenate([part.logits for part in parts]),
        _concatenate([part.labels for part in parts]),
        np.concatenate([part.log_likelihood for part in parts]),
        None if first.log_probabilities is None else np.concatenate([part.log_probabilities for part in parts]),
        None if first.tokens is None else _join([part.tokens for part in parts]),
    )


def summarize_predictions(
    predictions: ExamplePredictions,
    class_names: Mapping[int, str] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> SplitResult:
    """
    Adds up what a model said of every example.

    Args:
        predictions ([`ExamplePredictions`]):
            The answers.
        class_names (`dict[int, str]`, *optional*):
            Names of the classes, by default their numbers.
        metrics (`dict[str, float]`, *optional*):
            Further figures of the caller's, kept as they are.
    """
    loss = -predictions.confidence()
    result = SplitResult(
        num_examples=len(predictions.log_likelihood),
        mean_loss=float(loss.mean()),
        loss_deciles=tuple(float(value) for value in np.quantile(loss, LOSS_QUANTILES)),
        metrics=dict(metrics or {}),
        # Of probabilities losses are never negative; of densities, by a likelihood of the caller's, they may be.
        mean_loss_interval=mean_interval(loss, (0.0 if loss.min() >= 0 else -math.inf, math.inf)),
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
        accuracy_interval=wilson_interval(int(right.sum()), len(right)),
        per_class=_by_class(right, predictions.labels, class_names),
    )


def _score_tokens(
    model: nn.Module, likelihood: Likelihood, batch: Mapping[str, Any], outputs: Any
) -> TokenPredictions:
    inputs, labels = split_labels(batch)
    logits, targets = likelihood.targets(inputs, outputs, labels)
    scored = targets != IGNORED
    chosen = logits.gather(-1, targets.masked_fill(~scored, 0)[..., None]).squeeze(-1)
    log_probabilities = (chosen - logits.logsumexp(dim=-1))[scored]
    return TokenPredictions(
        log_probabilities.cpu().numpy(),
        (logits.argmax(dim=-1) == targets)[scored].cpu().numpy(),
        scored.sum(dim=1).cpu().numpy(),
        generates_tokens(model, likelihood, batch),
        targets[scored].cpu().numpy() if classifies_tokens(model) else None,
    )


def _sum_by_example(tokens: TokenPredictions) -> torch.Tensor:
    values = torch.from_numpy(tokens.log_probabilities).double()
    examples = torch.from_numpy(np.repeat(np.arange(len(tokens.counts)), tokens.counts))
    return values.new_zeros(len(tokens.counts)).index_add_(0, examples, values)


def _join(parts: list[TokenPredictions]) -> TokenPredictions:
    return TokenPredictions(
        np.concatenate([part.log_probabilities for part in parts]),
        np.concatenate([part.correct for part in parts]),
        np.concatenate([part.counts for part in parts]),
        parts[0].generated,
        None if parts[0].classes is None else np.concatenate([part.classes for part in parts]),
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
        verbatim_interval=wilson_interval(num_verbatim, len(counts)),
        extraction_strength=None if strength is None else float(strength.mean()),
        accuracy_interval=share_interval(num_correct, counts),
        perplexity_interval=_perplexity_interval(tokens.log_probabilities, starts, counts),
        extraction_strength_interval=None if strength is None else share_interval(strength, np.ones(len(strength))),
    )


def _perplexity_interval(
    log_probabilities: np.ndarray, starts: np.ndarray, counts: np.ndarray
) -> tuple[float, float] | None:
    interval = ratio_interval(np.add.reduceat(log_probabilities, starts, dtype=np.float64), counts)
    if interval is None:
        return None
    high, low = (perplexity(np.array([min(0.0, end)])) for end in interval)
    # Rounding must not push an end past the perplexity it encloses.
    value = perplexity(log_probabilities)
    return min(low, value), max(high, value)


def _by_class(right: np.ndarray, labels: np.ndarray, class_names: Mapping[int, str] | None) -> dict[str, ClassResult]:
    return {
        str((class_names or {}).get(int(label), int(label))): ClassResult(
            int((labels == label).sum()), float(right[labels == label].mean())
        )
        for label in np.unique(labels)
    }


def _all_logits(likelihood: Likelihood, outputs: Any) -> torch.Tensor:
    if likelihood.kind != "span":
        return logits_of(outputs)
    return torch.stack([logits_of(outputs, "start_logits"), logits_of(outputs, "end_logits", 1)], dim=1)


def _concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    shape = np.max([array.shape[1:] for array in arrays], axis=0).astype(int)
    padded = np.full((sum(map(len, arrays)), *shape), IGNORED, dtype=np.result_type(*arrays))
    start = 0
    for array in arrays:
        padded[(slice(start, start + len(array)), *map(slice, array.shape[1:]))] = array
        start += len(array)
    return padded


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor.numpy()
