# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Computes the answers of a model on a data set, example by example."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.batches import IGNORED, move_batch, split_labels
from ..models.company import Company
from ..models.contexts import evaluation_mode
from ..models.heads import classifies_tokens, find_likelihood, generates_tokens, num_classes, prepare_batch
from ..models.label_alignment import explaining_inputs, logits_of
from ..models.likelihood import TOKEN_KINDS, Likelihood, LogLikelihoodFunction, check_finite_log_likelihood
from ..runtime.shards import is_sharded
from .figures.memorization import mean_log_probability, min_k_score


logger = logging.getLogger(__name__)

# Kept logits of more than this many bytes cause a warning.
_MANY_BYTES = 2**30

# Without the extremes, each of which would show a single example.
LOSS_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class TokenPredictions:
    """
    The answers of a token-level model on a data set: the scored tokens of all examples in one row.

    Args:
        log_probabilities (`np.ndarray`):
            Log-probability of every scored token, shape `(num_tokens,)`, in nats.
        correct (`np.ndarray`):
            Whether the token is the model's first choice, for every scored token, shape `(num_tokens,)`.
        counts (`np.ndarray`):
            Number of scored tokens of every example, shape `(num_examples,)`.
        generated (`bool`):
            Whether every token is predicted only from the tokens before it: true for causal and sequence-to-sequence
            models, false for masked language models and token classifiers.
        classes (`np.ndarray`, *optional*):
            Class of every scored token, shape `(num_tokens,)`; only for token classification.
        num_choices (`int`, *optional*):
            Number of tokens or classes among which the model chooses.
    """

    log_probabilities: np.ndarray
    correct: np.ndarray
    counts: np.ndarray
    generated: bool
    classes: np.ndarray | None = None
    num_choices: int | None = None

    def select(self, rows: np.ndarray) -> "TokenPredictions":
        """Returns the answers on some of the examples."""
        ends = self.counts.cumsum()
        places = [np.arange(ends[row] - self.counts[row], ends[row]) for row in rows]
        chosen = np.concatenate(places).astype(int)
        classes = None if self.classes is None else self.classes[chosen]
        own = self.log_probabilities[chosen], self.correct[chosen], self.counts[rows]
        return TokenPredictions(*own, self.generated, classes, self.num_choices)


@dataclass(frozen=True)
class ExamplePredictions:
    """
    The answers of a model on a data set, one row per example.

    Args:
        logits (`np.ndarray`, *optional*):
            The model's logits, or the output of the caller's `preprocess_logits_for_metrics`. Start and end logits are
            stacked to shape `(num_examples, 2, length)`. Sequences of different lengths are padded with -100.
        labels (`np.ndarray`):
            The given labels, padded with -100 too.
        log_likelihood (`np.ndarray`):
            Log-likelihood of the given label, or the sum over the scored tokens, shape `(num_examples,)`, in nats.
        log_probabilities (`np.ndarray`, *optional*):
            Log-probability of every class, shape `(num_examples, num_labels)`, in nats. `None` for a head that does
            not classify whole examples.
        tokens ([`TokenPredictions`], *optional*):
            The answers token by token. `None` for a head with one answer per example.
    """

    logits: np.ndarray | None
    labels: np.ndarray
    log_likelihood: np.ndarray
    log_probabilities: np.ndarray | None
    tokens: TokenPredictions | None = None

    def select(self, rows: Sequence[int]) -> "ExamplePredictions":
        """Returns the answers on some of the examples."""
        chosen = np.asarray(rows)
        parts = (self.logits, self.labels, self.log_likelihood, self.log_probabilities)
        tokens = None if self.tokens is None else self.tokens.select(chosen)
        return ExamplePredictions(*(None if part is None else part[chosen] for part in parts), tokens)

    def confidence(self) -> np.ndarray:
        """
        Returns the scores of the loss attack on membership: the log-likelihood of every example, or for a token-level
        head its mean over the scored tokens. Examples without scored tokens are left out.
        """
        if self.tokens is None:
            return self.log_likelihood
        mean = mean_log_probability(self.tokens.log_probabilities, self.tokens.counts)
        return mean[self.tokens.counts > 0]

    def min_k_confidence(self) -> np.ndarray:
        """Returns the scores of the Min-K% attack on a token-level head, for the examples with scored tokens."""
        return min_k_score(self.tokens.log_probabilities, self.tokens.counts)[self.tokens.counts > 0]


def predict_examples(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    log_likelihood_func: LogLikelihoodFunction | None = None,
    preprocess_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    keep_logits: bool = True,
    has_fixed_length: Callable[[], bool] | None = None,
) -> ExamplePredictions:
    """
    Runs a model over a data set in eval mode. The model's training flags are restored afterwards.

    Args:
        model (`torch.nn.Module`):
            The model.
        batches (`Iterable[dict[str, Any]]`):
            Batches of model inputs with labels.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood. By default that of the model's head.
        preprocess_logits (`Callable`, *optional*):
            Called with the logits and the labels of every batch. Its output is kept instead of the logits.
        keep_logits (`bool`, *optional*, defaults to `True`):
            Whether to keep logits. A language model has as many logits per token as tokens in its vocabulary, so let
            `preprocess_logits` reduce them, for example by `logits.argmax(-1)`.
        has_fixed_length (`Callable`, *optional*):
            As for [`~models.company.Company`], which keeps rows apart that would change each other's answers.

    Returns:
        [`ExamplePredictions`]

    Raises:
        `ValueError`: If the likelihood is not the one that the model was trained on, if a log-likelihood is not finite
            (names the position of the example), or if no example has a scored token.
    """
    return join_predictions(
        list(predict_batches(model, batches, log_likelihood_func, preprocess_logits, keep_logits, has_fixed_length))
    )


@torch.no_grad()
def predict_batches(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    log_likelihood_func: LogLikelihoodFunction | None = None,
    preprocess_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    keep_logits: bool = True,
    has_fixed_length: Callable[[], bool] | None = None,
) -> Iterator[ExamplePredictions]:
    """Yields the answers on every batch; the arguments are those of [`predict_examples`]."""
    device = next(model.parameters()).device
    position, num_bytes, likelihood = 0, 0, None
    with evaluation_mode(model):
        company, in_step = Company(model, has_fixed_length), any(map(is_sharded, model.parameters()))
        for batch in batches:
            with explaining_inputs(model, batch):
                batch = move_batch(prepare_batch(model, batch), device)
                if likelihood is None:
                    likelihood = find_likelihood(model, batch, log_likelihood_func)
                answer = partial(
                    _answer, model, likelihood, preprocess_logits=preprocess_logits, keep_logits=keep_logits
                )
                answers = _by_parts(company, batch, answer)
                if not in_step and company.wants(batch) and len(company.parts(batch)) == 1:
                    company.look(batch, likelihood, torch.from_numpy(answers.log_likelihood))
                    answers = answers if company.reason is None else _by_parts(company, batch, answer)
            check_finite_log_likelihood(torch.from_numpy(answers.log_likelihood), position)
            position += len(answers.log_likelihood)
            if answers.logits is not None:
                num_bytes += answers.logits.nbytes
                if num_bytes >= _MANY_BYTES > num_bytes - answers.logits.nbytes and preprocess_logits is None:
                    logger.warning(
                        f"The logits kept for `compute_metrics` fill {num_bytes / 2**30:.1f} GiB after {position} "
                        "examples. Pass `preprocess_logits_for_metrics`, for example "
                        "`lambda logits, labels: logits.argmax(-1)`."
                    )
            yield answers


def join_predictions(parts: Sequence[ExamplePredictions]) -> ExamplePredictions:
    """
    Joins the answers on the batches of a data set.

    Args:
        parts (`Sequence[ExamplePredictions]`):
            The answers on at least one batch, in the order of the data set.

    Raises:
        `ValueError`: If no example has a scored token.
    """
    first = parts[0]
    if first.tokens is not None and not any(part.tokens.counts.any() for part in parts):
        raise ValueError(
            f"None of the {sum(len(part.labels) for part in parts)} examples of a data set has a scored token: every "
            "label is -100, except perhaps the first label of a causal model, which nothing predicts. Check the "
            "masking of the prompts, and whether truncation cut off the answers."
        )
    return _joined(parts)


def _joined(parts: Sequence[ExamplePredictions]) -> ExamplePredictions:
    first = parts[0]
    return ExamplePredictions(
        None if first.logits is None else _concatenate([part.logits for part in parts]),
        _concatenate([part.labels for part in parts]),
        np.concatenate([part.log_likelihood for part in parts]),
        None if first.log_probabilities is None else np.concatenate([part.log_probabilities for part in parts]),
        None if first.tokens is None else _join([part.tokens for part in parts]),
    )


def _classifies(model: nn.Module, likelihood: Likelihood, outputs: Any, labels: torch.Tensor) -> bool:
    """Whether every example has one class although the likelihood is the caller's, such as one with class weights."""
    classes = num_classes(model)
    if likelihood.kind != "custom" or classes is None or labels.ndim != 1 or labels.is_floating_point():
        return False
    in_range = bool(((labels >= 0) & (labels < classes)).all())
    return classes > 1 and in_range and logits_of(outputs).shape == (len(labels), classes)


def _by_parts(
    company: Company, batch: Mapping[str, Any], answer: Callable[[Mapping[str, Any]], ExamplePredictions]
) -> ExamplePredictions:
    """The answers on a batch, whose rows run together as far as they do not change each other's."""
    parts = company.parts(batch)
    if len(parts) > 1 and any(map(is_sharded, company.model.parameters())):
        raise ValueError(
            f"The answers of {type(company.model).__name__} on a row depend on the longest row of its batch, and the "
            "processes of a sharded model must all run equally many batches. Use batches of one row "
            "(`per_device_eval_batch_size=1`)."
        )
    answers = [answer(company.take(batch, rows)) for rows in parts]
    return answers[0] if len(parts) == 1 else _joined(answers).select(np.argsort(np.concatenate(parts)))


def _answer(
    model: nn.Module,
    likelihood: Likelihood,
    batch: Mapping[str, Any],
    preprocess_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None,
    keep_logits: bool,
) -> ExamplePredictions:
    inputs, labels = split_labels(batch)
    outputs = model(**inputs)
    tokens = log_probabilities = logits = None
    if likelihood.kind in TOKEN_KINDS:
        tokens = _score_tokens(model, likelihood, batch, outputs)
        scores = _sum_by_example(tokens)
    else:
        scores = likelihood(inputs, outputs, labels).double().cpu()
    if likelihood.kind == "classification" or _classifies(model, likelihood, outputs, labels):
        log_probabilities = torch.log_softmax(logits_of(outputs).double(), dim=-1).cpu().numpy()
    if keep_logits:
        kept = _all_logits(likelihood, outputs)
        logits = _to_numpy(kept if preprocess_logits is None else _preprocessed(preprocess_logits, kept, labels))
    return ExamplePredictions(logits, _to_numpy(labels), scores.numpy(), log_probabilities, tokens)


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
        logits.shape[-1],
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
        parts[0].num_choices,
    )


def _all_logits(likelihood: Likelihood, outputs: Any) -> torch.Tensor:
    if likelihood.kind != "span":
        return logits_of(outputs)
    return torch.stack([logits_of(outputs, "start_logits"), logits_of(outputs, "end_logits", 1)], dim=1)


def _preprocessed(
    preprocess_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], logits: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    kept = preprocess_logits(logits, labels)
    if not isinstance(kept, torch.Tensor) or kept.ndim == 0 or len(kept) != len(logits):
        returned = f"shape {tuple(kept.shape)}" if isinstance(kept, torch.Tensor) else f"a {type(kept).__name__}"
        raise ValueError(
            f"`preprocess_logits_for_metrics` returned {returned} for {len(logits)} examples. It must return one "
            "tensor whose first axis is that of the examples, for example `logits.argmax(-1)`."
        )
    return kept


def _concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    shape = np.max([array.shape[1:] for array in arrays], axis=0).astype(int)
    padded = np.full((sum(map(len, arrays)), *shape), IGNORED, dtype=np.result_type(*arrays, np.int8))
    start = 0
    for array in arrays:
        padded[(slice(start, start + len(array)), *map(slice, array.shape[1:]))] = array
        start += len(array)
    return padded


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor.numpy()
