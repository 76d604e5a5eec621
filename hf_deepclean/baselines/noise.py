# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Fisher forgetting: noise on the weights, the more of it the less the retain data depend on a weight."""

from dataclasses import dataclass

import torch
from torch import nn

from ..fisher.accumulate import accumulate_fisher_diagonal
from ..models.heads import base_model, classifies_tokens, num_classes
from .data import UnlearningData
from .method import UnlearningMethod
from .scoring import check_positive, noting_classes, scored_batches, trainable_parameters


# Upper bounds of 1 / F, and the variance of the row of a forgotten class, as in the code of the paper.
_MAX_INVERSE = 1e3
_MAX_INVERSE_OF_HEAD = 1e2
_FORGOTTEN_CLASS_VARIANCE = 1e-4


@dataclass(frozen=True)
class FisherForgetting(UnlearningMethod):
    """
    Adds Gaussian noise to every weight; the less the retain data depend on a weight, the larger the variance:

    `w <- w + N(0, noise_scale min(1 / (F_r(w) + 1e-8), 1000))`

    `F_r` is the Fisher diagonal of the retain data in expectation over the labels, so the labels of the data are not
    used. In a classification head the bound is 100 instead of 1000. In a parameter with two or more axes the variances
    are averaged over the second axis. The variances of the head, and of parameters with one axis, are multiplied by
    ten. If the forget data are all examples of one class, the row of that class in the head is drawn around 0, with a
    variance of 1e-4 before the factor of ten.

    The method needs one pass over the retain data with a backward pass for every class, and no training. The default
    and all of these rules are those of the public code of
    [Eternal Sunshine of the Spotless Net](https://huggingface.co/papers/1911.04933).

    The outcomes of a head that labels or predicts tokens are whole sequences, over which there is no expectation to
    compute; labels are drawn from the model instead. The head is the set of parameters outside the base model with one
    row per class; public code takes any parameter with this number of rows. A language model has no such head.

    Args:
        noise_scale (`float`, *optional*, defaults to 1e-6):
            Factor of all variances, alpha in the paper.
        per_device_batch_size (`int`, *optional*, defaults to 64):
            Number of examples in a batch; the result does not depend on it.
    """

    noise_scale: float = 1e-6
    per_device_batch_size: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "noise_scale", "per_device_batch_size")

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]; the noise and drawn labels are random."""
        parameters = trainable_parameters(model)
        likelihood, *_ = next(scored_batches(model, data.batches("forget", 1), data.log_likelihood_func))
        if likelihood.kind in ("custom", "ctc"):
            raise ValueError(
                f"Fisher forgetting takes labels from the model, but a {likelihood.kind} likelihood gives none. Use "
                "it with a head for classification, token classification or language modelling and the likelihood of "
                "that head."
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
        """The class whose examples are exactly the forget data, or `None`."""
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
