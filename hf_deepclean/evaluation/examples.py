# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a model says of every example of a data set, and what that adds up to."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..batches import IGNORED, move_batch, split_labels
from ..heads import find_likelihood, prepare_batch
from ..likelihood import Likelihood, LogLikelihoodFunction, check_finite_log_likelihood, logits_of
from ..modes import evaluation_mode
from .intervals import wilson_interval


# The extremes would each show a single example, so the summary stops short of them.
LOSS_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


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
            Log-likelihood of the given label, shape `(num_examples,)`, in nats.
        log_probabilities (`np.ndarray`, *optional*):
            Log-probability of every class, shape `(num_examples, num_labels)`; none for a head that does not classify
            whole examples.
    """

    logits: np.ndarray | None
    labels: np.ndarray
    log_likelihood: np.ndarray
    log_probabilities: np.ndarray | None


@dataclass(frozen=True)
class ClassResult:
    """Accuracy on the examples of one class."""

    num_examples: int
    accuracy: float


@dataclass(frozen=True)
class SplitResult:
    """
    A model's results on one data set.

    Args:
        num_examples (`int`):
            Number of examples.
        mean_loss (`float`):
            Mean negative log-likelihood per example, in nats.
        loss_deciles (`tuple[float, ...]`):
            The 10 % to 90 % quantiles of the loss.
        accuracy (`float`, *optional*):
            Share of examples whose most probable class is the label.
        accuracy_interval (`tuple[float, float]`, *optional*):
            95 % interval of the accuracy by Wilson's method.
        per_class (`dict[str, ClassResult]`, *optional*):
            Accuracy by class name, for the classes that occur.
        metrics (`dict[str, float]`, *optional*):
            What the caller's `compute_metrics` returned.
    """

    num_examples: int
    mean_loss: float
    loss_deciles: tuple[float, ...]
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    per_class: dict[str, ClassResult] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
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
            Whether to keep logits at all; those of a language model are as large as its vocabulary for every token.

    Raises:
        `ValueError`: If the likelihood is not the one the model was trained on, or if a log-likelihood is not finite;
            names the position of the example.
    """
    device = next(model.parameters()).device
    logits, labels, log_likelihood, log_probabilities = [], [], [], []
    position, likelihood = 0, None
    with evaluation_mode(model):
        for batch in batches:
            batch = move_batch(prepare_batch(model, batch), device)
            if likelihood is None:
                likelihood = find_likelihood(model, batch, log_likelihood_func)
            inputs, batch_labels = split_labels(batch)
            outputs = model(**inputs)
            scores = likelihood(inputs, outputs, batch_labels)
            check_finite_log_likelihood(scores, position)
            position += len(scores)
            log_likelihood.append(scores.double().cpu().numpy())
            labels.append(_to_numpy(batch_labels))
            if likelihood.kind == "classification":
                log_probabilities.append(torch.log_softmax(logits_of(outputs).double(), dim=-1).cpu().numpy())
            if keep_logits:
                kept = _all_logits(likelihood, outputs)
                kept = kept if preprocess_logits is None else preprocess_logits(kept, batch_labels)
                logits.append(_to_numpy(kept))
    return ExamplePredictions(
        _concatenate(logits) if keep_logits else None,
        _concatenate(labels),
        np.concatenate(log_likelihood),
        np.concatenate(log_probabilities) if log_probabilities else None,
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
    loss = -predictions.log_likelihood
    result = SplitResult(
        num_examples=len(loss),
        mean_loss=float(loss.mean()),
        loss_deciles=tuple(float(value) for value in np.quantile(loss, LOSS_QUANTILES)),
        metrics=dict(metrics or {}),
    )
    if predictions.log_probabilities is None:
        return result
    right, labels = predictions.log_probabilities.argmax(axis=1) == predictions.labels, predictions.labels
    per_class = {
        str((class_names or {}).get(int(label), int(label))): ClassResult(
            int((labels == label).sum()), float(right[labels == label].mean())
        )
        for label in np.unique(labels)
    }
    return replace(
        result,
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), len(right)),
        per_class=per_class,
    )


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
