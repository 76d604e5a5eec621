# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The definition of the Fisher diagonal, one example at a time: slow, general, and what every fast path must equal."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from ..batches import num_examples, select_examples, split_labels
from ..likelihood import LogLikelihoodFunction, fisher_scores
from ..modes import differentiable_mode, evaluation_mode, only_trainable


def add_reference_squares_(
    sums: Mapping[str, torch.Tensor],
    model: nn.Module,
    batch: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    fisher_type: str = "empirical",
    *,
    log_likelihood_func: LogLikelihoodFunction | None = None,
    first_position: int = 0,
    seed: int = 0,
    examples: Collection[int] | None = None,
) -> None:
    """
    Adds `(d score / dw)^2` of every example of a batch to `sums`, by one forward and backward pass per example.

    Args:
        sums (`dict[str, torch.Tensor]`):
            Sums in the parameters' shapes, added to in place.
        model (`torch.nn.Module`):
            The model; it runs in eval mode.
        batch (`dict[str, Any]`):
            Model inputs and `labels`.
        parameters (`dict[str, torch.nn.Parameter]`):
            The parameters to differentiate by; a parameter that an example does not reach gets no square from it.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            See [`fisher_scores`], as for `log_likelihood_func`, `first_position` and `seed`.
        examples (`Collection[int]`, *optional*):
            Indices of the examples to run, by default all.
    """
    with evaluation_mode(model), differentiable_mode(model), only_trainable(model, list(parameters.values())):
        for example in range(num_examples(batch)) if examples is None else examples:
            inputs, labels = split_labels(select_examples(batch, [example]))
            with torch.enable_grad():
                scores = list(
                    fisher_scores(
                        model(**inputs),
                        labels,
                        fisher_type,
                        log_likelihood_func=log_likelihood_func,
                        first_position=first_position + example,
                        seed=seed,
                    )
                )
            for index, score in enumerate(scores):
                if not score.requires_grad:
                    continue
                gradients = torch.autograd.grad(
                    score.sum(),
                    list(parameters.values()),
                    allow_unused=True,
                    retain_graph=index + 1 < len(scores),
                )
                for name, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        sums[name].add_(gradient.to(sums[name].dtype).square())
