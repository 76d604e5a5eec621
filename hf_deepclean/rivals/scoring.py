# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What rivals that take gradients or outputs without training share: parameters, scored batches, single choices."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from ..batches import IGNORED, move_batch, split_labels
from ..fisher.layouts import sum_dtype
from ..heads import find_likelihood, prepare_batch
from ..likelihood import Likelihood, LogLikelihoodFunction


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


def scored_batches(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    log_likelihood_func: LogLikelihoodFunction | None = None,
) -> Iterator[tuple[Likelihood, dict[str, Any], torch.Tensor]]:
    """
    Batches as a forward pass needs them.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        batches (`Iterable[dict[str, Any]]`):
            Collated batches.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood, by default that of the model's head.

    Yields:
        `tuple[Likelihood, dict[str, Any], torch.Tensor]`: How the examples are scored, the inputs and the labels.
    """
    device, likelihood = next(model.parameters()).device, None
    for batch in batches:
        batch = move_batch(prepare_batch(model, batch), device)
        if likelihood is None:
            likelihood = find_likelihood(model, batch, log_likelihood_func)
        yield likelihood, *split_labels(batch)


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
