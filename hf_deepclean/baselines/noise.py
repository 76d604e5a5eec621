# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Fisher forgetting: noise on every weight, the more the less the retain data need it."""

from dataclasses import dataclass

import torch
from torch import nn

from ..fisher.accumulate import accumulate_fisher_diagonal
from ..models.heads import base_model, classifies_tokens, num_classes
from .data import UnlearningData
from .scoring import check_positive, noting_classes, scored_batches, trainable_parameters


# Bounds of 1 / F, and the variance of a forgotten class's row, as in the paper's code.
_MAX_INVERSE = 1e3
_MAX_INVERSE_OF_HEAD = 1e2
_FORGOTTEN_CLASS_VARIANCE = 1e-4


@dataclass(frozen=True)
class FisherForgetting:
    """
    Adds Gaussian noise to every weight, with the more variance the less the retain data depend on it:

    `w <- w + N(0, noise_scale min(1 / (F_r(w) + 1e-8), 1000))`

    with `F_r` the diagonal of the Fisher information on the retain data, whose labels are expected under the model, so
    that those of the data are not used. Of a classification head the bound is 100. The variances of a parameter of two
    or more axes are averaged over its second one, and those of the head and of parameters of one axis are ten times as
    large. If the forget data are all examples of one class, the row of that class in the head is drawn anew around 0,
    with a variance of 1e-4 before that factor of ten.

    It needs one pass over the retain data with a backward pass for every class, and no training. The default and all
    of these rules are those of the public code of
    [Eternal Sunshine of the Spotless Net](https://huggingface.co/papers/1911.04933).

    Heads that give every token a class or predict tokens have as many outcomes as sequences; labels drawn from the
    model take the place of the expectation. The head are the parameters outside of the base model with one row for
    every class; public code takes any parameter with so many rows for it. A language model has none.

    Args:
        noise_scale (`float`, *optional*, defaults to 1e-6):
            The factor of all variances, alpha in the paper.
        per_device_batch_size (`int`, *optional*, defaults to 64):
            Examples of a batch; the result does not depend on it.
    """

    noise_scale: float = 1e-6
    per_device_batch_size: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "noise_scale", "per_device_batch_size")

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place; the seed is that of the noise, and of labels that are drawn."""
        parameters = trainable_parameters(model)
        likelihood, *_ = next(scored_batches(model, data.batches("forget", 1), data.log_likelihood_func))
        if likelihood.kind in ("custom", "ctc"):
            raise ValueError(
                f"Fisher forgetting takes labels from the model, and a {likelihood.kind} likelihood has none to take. "
                "Use it with a head for classification, token classification or language modelling and the "
                "likelihood of that head."
            )
        classes: set[int] = set()
        batches = data.batches("retain", self.per_device_batch_size)
        fisher = accumulate_fisher_diagonal(
            model,
            noting_classes(batches, classes),
            fisher_type="expected" if likelihood.kind == "classification" else "sampled",
            parameters=parameters,
            seed=seed,
        ).mean()
        head = _head_parameters(model)
        forgotten = self._forgotten_class(data, classes) if num_classes(model) is not None else None
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in parameters.items():
                in_head, values = parameter in head, parameter.to(fisher[name].dtype)
                bound = _MAX_INVERSE_OF_HEAD if in_head else _MAX_INVERSE
                variances = self.noise_scale * (1 / (fisher[name] + 1e-8)).clamp_max(bound)
                if parameter.ndim > 1:
                    variances = variances.mean(dim=1, keepdim=True).expand_as(parameter).clone()
                if in_head and forgotten is not None:
                    values = values.clone()
                    values[forgotten], variances[forgotten] = 0, _FORGOTTEN_CLASS_VARIANCE
                if in_head or parameter.ndim == 1:
                    variances *= 10
                noise = torch.randn(parameter.shape, dtype=values.dtype, generator=generator).to(values.device)
                parameter.copy_(values + variances.sqrt() * noise)

    def _forgotten_class(self, data: UnlearningData, retained: set[int]) -> int | None:
        """The class of which all examples, and no others, are to be forgotten."""
        classes: set[int] = set()
        for _ in noting_classes(data.batches("forget", self.per_device_batch_size), classes):
            pass
        return classes.pop() if len(classes) == 1 and not classes & retained else None


def _head_parameters(model: nn.Module) -> set[nn.Parameter]:
    if num_classes(model) is None and not classifies_tokens(model):
        return set()
    whole = base_model(model)
    inside = set(whole.base_model.parameters()) if whole.base_model is not whole else set()
    return {
        parameter
        for parameter in whole.parameters()
        if parameter not in inside and parameter.ndim and len(parameter) == whole.config.num_labels
    }
