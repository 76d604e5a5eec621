# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Trainable parameters, scored batches and summed gradients, for all baselines."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from ..data.batches import IGNORED, move_batch, split_labels
from ..fisher.engine.layouts import sum_dtype
from ..models.contexts import differentiable_mode, evaluation_mode, with_gradients
from ..models.heads import find_likelihood, prepare_batch
from ..models.likelihood import Likelihood, LogLikelihoodFunction


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """
    The parameters that a method may change, each under one name.

    Raises:
        `ValueError`: If no parameter requires gradients.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ValueError(
            f"No parameter of this {type(model).__name__} requires gradients, so there is nothing to change. Unfreeze "
            "the parameters that may change with `parameter.requires_grad_(True)`."
        )
    return parameters


def zeros_of(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Zero tensors with the shapes of the parameters, at least in float32."""
    return {name: torch.zeros_like(p, dtype=sum_dtype(p), requires_grad=False) for name, p in parameters.items()}


class Scorer:
    """
    Prepares collated batches for a forward pass and for scoring.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood. By default that of the model's head, which is found with the first batch.
    """

    def __init__(self, model: nn.Module, log_likelihood_func: LogLikelihoodFunction | None = None) -> None:
        self.model = model
        self.log_likelihood_func = log_likelihood_func
        self.device = next(model.parameters()).device
        self._likelihood: Likelihood | None = None

    def __call__(self, batch: Mapping[str, Any]) -> tuple[Likelihood, dict[str, Any], torch.Tensor]:
        """Returns the likelihood, the inputs and the labels of a batch, on the device of the model."""
        batch = move_batch(prepare_batch(self.model, batch), self.device)
        if self._likelihood is None:
            self._likelihood = find_likelihood(self.model, batch, self.log_likelihood_func)
        return self._likelihood, *split_labels(batch)


def scored_batches(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    log_likelihood_func: LogLikelihoodFunction | None = None,
) -> Iterator[tuple[Likelihood, dict[str, Any], torch.Tensor]]:
    """
    Yields the likelihood, the inputs and the labels of every batch.

    Args:
        model, log_likelihood_func:
            As for [`Scorer`].
        batches (`Iterable[dict[str, Any]]`):
            Collated batches.
    """
    return map(Scorer(model, log_likelihood_func), batches)


def noting_classes(batches: Iterable[Mapping[str, Any]], classes: set[int]) -> Iterator[Mapping[str, Any]]:
    """Yields the batches unchanged, and adds their labels to `classes`."""
    for batch in batches:
        classes.update(split_labels(batch)[1].flatten().tolist())
        yield batch


@with_gradients
def summed_gradients(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    log_likelihood_func: LogLikelihoodFunction | None = None,
) -> dict[str, torch.Tensor]:
    """
    The gradient of the summed negative log-likelihood of all examples, in eval mode.

    Args:
        model, batches, log_likelihood_func:
            As for [`scored_batches`].

    Returns:
        `dict[str, torch.Tensor]`: The gradient by name of trainable parameter, at least in float32.

    Raises:
        `ValueError`: If no parameter requires gradients.
    """
    parameters = trainable_parameters(model)
    sums = zeros_of(parameters)
    with evaluation_mode(model), differentiable_mode(model):
        for likelihood, inputs, labels in scored_batches(model, batches, log_likelihood_func):
            loss = -likelihood(inputs, model(**inputs), labels).sum()
            gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                total += gradient
    return sums


def scored_choices(
    likelihood: Likelihood, inputs: Mapping[str, Any], outputs: Any, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The scored choices of a batch: one per example of a classification head, one per scored token of other heads.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: The logits of shape `(num_choices, num_outcomes)`, -inf for impossible
        outcomes, and the given outcomes of shape `(num_choices,)`.

    Raises:
        `ValueError`: If the likelihood does not consist of single choices.
    """
    if likelihood.kind in ("custom", "ctc"):
        raise ValueError(
            f"This method works on the probabilities of single choices, which a {likelihood.kind} likelihood does not "
            "give. Use it with a head for classification, token classification or language modelling and the "
            "likelihood of that head."
        )
    logits, targets = likelihood.targets(inputs, outputs, labels)
    scored = targets != IGNORED
    return logits[scored], targets[scored]


def check_positive(method: Any, *names: str) -> None:
    """Raises if a setting of a method is not above 0."""
    defaults = {field.name: field.default for field in fields(method)}
    for name in names:
        value = getattr(method, name)
        if not value > 0:
            raise ValueError(
                f"`{name}` of {type(method).__name__} is {value!r} but must be above 0. The default is "
                f"{defaults[name]!r}."
            )
