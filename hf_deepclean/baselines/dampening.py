# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Selective synaptic dampening and two variants, which scale down the weights that matter to the forget data."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..fisher.accumulate import accumulate_fisher_diagonal
from ..models.contexts import differentiable_mode, evaluation_mode, with_gradients
from ..selection.rules import adaptive_percentile
from .data import UnlearningData
from .method import UnlearningMethod
from .scoring import check_positive, scored_batches, scored_choices, trainable_parameters, zeros_of


logger = logging.getLogger(__name__)

Importances = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class SelectiveSynapticDampening(UnlearningMethod):
    """
    SSD: scales down every weight that matters much more to the forget data than to all training data. With `F_f` and
    `F_D` the Fisher diagonals of the two:

    `w <- w min(1, dampening_constant F_D(w) / F_f(w))` where `F_f(w) > selection_weighting F_D(w)`.

    The method needs one pass over all training data with labels, and no training. The defaults are those of
    [Selective Synaptic Dampening](https://huggingface.co/papers/2308.07707) for image classifiers.

    Public code squares the mean gradient of a batch, so that its importances depend on the batch size. Here they are
    exact: the gradients of single examples are squared, and `F_D` is the mean of the diagonals of the forget and the
    retain data, weighted by their numbers of examples. If the forget data are the share `s` of all data, `F_f / F_D`
    is at most `1 / s`, so a `selection_weighting` of `1 / s` or more changes nothing and gives a warning. The default
    changes nothing if a tenth of the data or more is forgotten.

    Args:
        selection_weighting (`float`, *optional*, defaults to 10.0):
            The threshold, alpha in the paper.
        dampening_constant (`float`, *optional*, defaults to 1.0):
            How far the selected weights are scaled down, lambda in the paper.
        per_device_batch_size (`int`, *optional*, defaults to 64):
            Number of examples in a batch; the result does not depend on it.
    """

    selection_weighting: float = 10.0
    dampening_constant: float = 1.0
    per_device_batch_size: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "selection_weighting", "dampening_constant", "per_device_batch_size")

    @with_gradients
    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]; nothing is random."""
        share = data.num_examples("forget") / data.num_examples("all")
        if self.selection_weighting * share >= 1:
            logger.warning(
                f"`selection_weighting` is {self.selection_weighting} and the forget data are {share:.1%} of all, so "
                f"no weight can exceed the threshold and the model stays as it is. Below {1 / share:.3g} weights may "
                "be selected."
            )
        forget, whole = _fishers(model, data, self.per_device_batch_size)
        _dampen(model, forget, whole, self.selection_weighting, self.dampening_constant)


@dataclass(frozen=True)
class AdaptiveDampening(UnlearningMethod):
    """
    ASSD: [`SelectiveSynapticDampening`] with a threshold that follows from the ratios `F_f(w) / F_D(w)` of all
    weights. If the forget data are the share `s` of all data, the threshold is the percentile `100 - ln(1 + 100 s)` of
    the ratios. It scales down `ln(1 + 100 s)` percent of the weights: 0.7 % for a hundredth of the data, 2.4 % for a
    tenth.

    The method needs the same passes as SSD, and has no threshold to choose. The rule and the dampening constant are
    those of [Adaptive Selective Synaptic Dampening](https://huggingface.co/papers/2402.10098). As there, ratios that
    are not finite (of weights that matter to no example) are left out. Unlike there, the Fisher diagonals are exact,
    as in [`SelectiveSynapticDampening`].

    Args:
        dampening_constant (`float`, *optional*, defaults to 1.0):
            How far the selected weights are scaled down, lambda in the paper.
        per_device_batch_size (`int`, *optional*, defaults to 64):
            Number of examples in a batch; the result does not depend on it.
    """

    dampening_constant: float = 1.0
    per_device_batch_size: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "dampening_constant", "per_device_batch_size")

    @with_gradients
    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]; nothing is random."""
        forget, whole = _fishers(model, data, self.per_device_batch_size)
        share = data.num_examples("forget") / data.num_examples("all")
        ratios = torch.cat([(forget[name] / whole[name]).flatten() for name in whole])
        threshold = np.percentile(ratios[ratios.isfinite()].cpu().numpy(), adaptive_percentile(share))
        _dampen(model, forget, whole, float(threshold), self.dampening_constant)


@dataclass(frozen=True)
class LossFreeDampening(UnlearningMethod):
    """
    LFSSD: [`SelectiveSynapticDampening`] with importances from the outputs `f(x)`, which need no labels:

    `I(w) = mean over batches of | d/dw mean over examples ||f(x)||^2 |`.

    The method needs the inputs of all training data, and no training. It is from
    [Loss-Free Machine Unlearning](https://huggingface.co/papers/2402.19308), whose public code has the defaults of
    SSD.

    As in that code, the absolute value is taken of the gradient of a batch, so the importances depend on the batch
    size. With `per_device_batch_size=1` they are those of single examples, as in the equation. One pass over the
    forget data and one over the retain data, both in order, give the two importances; the importance of all data is
    their mean, weighted by the numbers of examples. Public code makes one pass over all data, which differs only in
    the batch that holds examples of both. If the head has an output for every token, `||f(x)||^2` is the sum over the
    scored tokens, so padding does not count.

    Args:
        selection_weighting (`float`, *optional*, defaults to 10.0):
            The threshold, alpha in the paper.
        dampening_constant (`float`, *optional*, defaults to 1.0):
            How far the selected weights are scaled down, lambda in the paper.
        per_device_batch_size (`int`, *optional*, defaults to 64):
            Number of examples in a batch, on which the importances depend.
    """

    selection_weighting: float = 10.0
    dampening_constant: float = 1.0
    per_device_batch_size: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "selection_weighting", "dampening_constant", "per_device_batch_size")

    @with_gradients
    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]; nothing is random."""
        forget, retain = (self._importances(model, data, split) for split in ("forget", "retain"))
        share = data.num_examples("forget") / data.num_examples("all")
        whole = {name: share * forget[name] + (1 - share) * retain[name] for name in forget}
        _dampen(model, forget, whole, self.selection_weighting, self.dampening_constant)

    def _importances(self, model: nn.Module, data: UnlearningData, split: str) -> Importances:
        parameters = trainable_parameters(model)
        sums = zeros_of(parameters)
        batches = scored_batches(model, data.batches(split, self.per_device_batch_size), data.log_likelihood_func)
        with evaluation_mode(model), differentiable_mode(model):
            for likelihood, inputs, labels in batches:
                logits, _ = scored_choices(likelihood, inputs, model(**inputs), labels)
                # Sums in place of means, so that a smaller last batch counts less.
                norms = logits.masked_fill(logits.isneginf(), 0).square().sum()
                gradients = torch.autograd.grad(norms, list(parameters.values()), materialize_grads=True)
                for total, gradient in zip(sums.values(), gradients, strict=True):
                    total += gradient.abs()
        return {name: total / data.num_examples(split) for name, total in sums.items()}


def _fishers(model: nn.Module, data: UnlearningData, batch_size: int) -> tuple[Importances, Importances]:
    """The mean Fisher diagonals of the forget data and of all training data."""
    forget, retain = (
        accumulate_fisher_diagonal(
            model,
            data.batches(split, batch_size),
            log_likelihood_func=data.log_likelihood_func,
            parameters=trainable_parameters(model),
        )
        for split in ("forget", "retain")
    )
    return forget.mean(), (forget + retain).mean()


@torch.no_grad()
def _dampen(
    model: nn.Module, forget: Importances, whole: Importances, selection_weighting: float, dampening_constant: float
) -> None:
    for name, parameter in trainable_parameters(model).items():
        selected = forget[name] > selection_weighting * whole[name]
        factors = (dampening_constant * whole[name] / forget[name]).clamp_max(1)
        parameter.copy_(torch.where(selected, parameter * factors, parameter))
