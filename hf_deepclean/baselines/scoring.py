# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What rivals that take gradients or outputs without training share: parameters, scored batches, single choices."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from ..data.batches import IGNORED, move_batch, split_labels
from ..fisher.engine.layouts import sum_dtype
from ..models.contexts import differentiable_mode, evaluation_mode
from ..models.heads import find_likelihood, prepare_batch
from ..models.likelihood import Likelihood, LogLikelihoodFunction


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """
    The parameters that a method may change, each once.

    Raises:
        `ValueError`: If there is none.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ValueError(
            f"No parameter of this {type(model).__name__} requires gradients, so there is nothing to change. Unfreeze "
            "those that may be changed: `parameter.requires_grad_(True)`."
        )
    return parameters


def zeros_of(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sums to begin with, in the parameters' shapes and at least in float32."""
    return {name: torch.zeros_like(p, dtype=sum_dtype(p), requires_grad=False) for name, p in parameters.items()}


class Scorer:
    """
    Makes of a collated batch what a forward pass and a score of it need.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood, by default that of the model's head, which is found with the first batch.
    """

    def __init__(self, model: nn.Module, log_likelihood_func: LogLikelihoodFunction | None = None) -> None:
        self.model = model
        self.log_likelihood_func = log_likelihood_func
        self.device = next(model.parameters()).device
        self._likelihood: Likelihood | None = None

    def __call__(self, batch: Mapping[str, Any]) -> tuple[Likelihood, dict[str, Any], torch.Tensor]:
        """How the examples are scored, the inputs and the labels."""
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
    What a [`Scorer`] makes of batches.

    Args:
        model, log_likelihood_func:
            As for [`Scorer`].
        batches (`Iterable[dict[str, Any]]`):
            Collated batches.
    """
    return map(Scorer(model, log_likelihood_func), batches)


def noting_classes(batches: Iterable[Mapping[str, Any]], classes: set[int]) -> Iterator[Mapping[str, Any]]:
    """The same batches, whose labels are added to `classes` as they pass."""
    for batch in batches:
        classes.update(split_labels(batch)[1].flatten().tolist())
        yield batch


def summed_gradients(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    log_likelihood_func: LogLikelihoodFunction | None = None,
) -> dict[str, torch.Tensor]:
    """
    The gradient of the sum of all examples' negative log-likelihoods, in eval mode, by trainable parameter.

    Args:
        model, batches, log_likelihood_func:
            As for [`scored_batches`].

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
    The choices of a batch that are scored: one per example of a classification head, one per scored token of others.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: Logits of shape `(num_choices, num_outcomes)`, -inf for outcomes that
        cannot be, and the outcomes given, of shape `(num_choices,)`.

    Raises:
        `ValueError`: If the likelihood does not consist of such choices.
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
    """Refuses hyper-parameters of a method that are not above 0."""
    defaults = {field.name: field.default for field in fields(method)}
    for name in names:
        value = getattr(method, name)
        if not value > 0:
            raise ValueError(
                f"`{name}` of {type(method).__name__} is {value!r} and must be above 0. The published value, which is "
                f"the default, is {defaults[name]!r}."
            )
