# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Selective synaptic dampening and its two relatives: weights that matter more to the forget data are scaled down."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..fisher.accumulate import accumulate_fisher_diagonal
from ..models.contexts import differentiable_mode, evaluation_mode
from ..selection.rules import adaptive_percentile
from .data import UnlearningData
from .scoring import check_positive, scored_batches, scored_choices, trainable_parameters, zeros_of


logger = logging.getLogger(__name__)

Importances = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class SelectiveSynapticDampening:
    """
    SSD: scales down every weight that matters much more to the forget data than to all training data, with
    `F_f` and `F_D` the diagonals of the Fisher information on the two:

    `w <- w min(1, dampening_constant F_D(w) / F_f(w))` where `F_f(w) > selection_weighting F_D(w)`.

    It needs one pass over all training data and labels, and no training. The defaults are those of
    [Selective Synaptic Dampening](https://huggingface.co/papers/2308.07707) for image classifiers.

    Public code squares the mean gradient of a batch, so that its importances depend on the batch size. Ours are exact:
    squared gradients of single examples, and `F_D` the mean of the forget and the retain data's diagonals weighted by
    their numbers of examples. Then `F_f / F_D` is at most `1 / s` for forget data that are the share `s` of all, and a
    `selection_weighting` of `1 / s` or more changes nothing, which is told in a warning: the default does nothing for
    a tenth of the data or more.

    Args:
        selection_weighting (`float`, *optional*, defaults to 10.0):
            The threshold, alpha in the paper.
        dampening_constant (`float`, *optional*, defaults to 1.0):
            How far selected weights are scaled down, lambda in the paper.
        per_device_batch_size (`int`, *optional*, defaults to 64):
            Examples of a batch; the result does not depend on it.
    """

    selection_weighting: float = 10.0
    dampening_constant: float = 1.0
    per_device_batch_size: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "selection_weighting", "dampening_constant", "per_device_batch_size")

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place; the seed is of no use, since nothing is drawn."""
        share = data.num_examples("forget") / data.num_examples("all")
        if self.selection_weighting * share >= 1:
            logger.warning(
                f"`selection_weighting` is {self.selection_weighting} and the forget data are {share:.1%} of all, so "
                f"that no weight can exceed the threshold and the model stays as it is. Below {1 / share:.3g} weights "
                "may be selected."
            )
        forget, whole = _fishers(model, data, self.per_device_batch_size)
        _dampen(model, forget, whole, self.selection_weighting, self.dampening_constant)


@dataclass(frozen=True)
class AdaptiveDampening:
    """
    ASSD: [`SelectiveSynapticDampening`] with a threshold that the ratios `F_f(w) / F_D(w)` of all weights give
    themselves, their percentile number `100 - ln(1 + 100 s)` for forget data that are the share `s` of all. So
    `ln(1 + 100 s)` percent of the weights are scaled down, 0.7 % for a hundredth of the data and 2.4 % for a tenth.

    It needs what SSD needs, and has no threshold to choose. The rule and the dampening constant are those of
    [Adaptive Selective Synaptic Dampening](https://huggingface.co/papers/2402.10098). As there, ratios that are no
    finite numbers (weights that matter to no example) are left out. Ours deviates as [`SelectiveSynapticDampening`]
    does: the Fisher diagonals are exact.

    Args:
        dampening_constant (`float`, *optional*, defaults to 1.0):
            How far selected weights are scaled down, lambda in the paper.
        per_device_batch_size (`int`, *optional*, defaults to 64):
            Examples of a batch; the result does not depend on it.
    """

    dampening_constant: float = 1.0
    per_device_batch_size: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "dampening_constant", "per_device_batch_size")

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place; the seed is of no use, since nothing is drawn."""
        forget, whole = _fishers(model, data, self.per_device_batch_size)
        share = data.num_examples("forget") / data.num_examples("all")
        ratios = torch.cat([(forget[name] / whole[name]).flatten() for name in whole])
        threshold = np.percentile(ratios[ratios.isfinite()].cpu().numpy(), adaptive_percentile(share))
        _dampen(model, forget, whole, float(threshold), self.dampening_constant)


@dataclass(frozen=True)
class LossFreeDampening:
    """
    LFSSD: [`SelectiveSynapticDampening`] with importances that need no labels, from the outputs `f(x)` alone:

    `I(w) = mean over batches of | d/dw mean over examples ||f(x)||^2 |`.

    It needs the inputs of all training data and no training. From
    [Loss-Free Machine Unlearning](https://huggingface.co/papers/2402.19308), whose public code has SSD's defaults.

    As published, the absolute value is that of a batch's gradient, so that the importances depend on the batch size;
    with `per_device_batch_size=1` they are those of single examples, which is what the equation says. The two
    importances come from one pass over the forget and one over the retain data, in their order, and that of all data
    is their mean weighted by the numbers of examples. Public code passes over all data at once: no other thing but for
    the one batch that holds both. Of a head with an output for every token, `||f(x)||^2` is the sum over the scored
    tokens, so that padding does not count.

    Args:
        selection_weighting (`float`, *optional*, defaults to 10.0):
            The threshold, alpha in the paper.
        dampening_constant (`float`, *optional*, defaults to 1.0):
            How far selected weights are scaled down, lambda in the paper.
        per_device_batch_size (`int`, *optional*, defaults to 64):
            Examples of a batch, which is part of the definition.
    """

    selection_weighting: float = 10.0
    dampening_constant: float = 1.0
    per_device_batch_size: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "selection_weighting", "dampening_constant", "per_device_batch_size")

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place; the seed is of no use, since nothing is drawn."""
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
                # Times the number of examples, by which a last batch with fewer of them counts less.
                norms = logits.masked_fill(logits.isneginf(), 0).square().sum()
                gradients = torch.autograd.grad(norms, list(parameters.values()), materialize_grads=True)
                for total, gradient in zip(sums.values(), gradients, strict=True):
                    total += gradient.abs()
        return {name: total / data.num_examples(split) for name, total in sums.items()}


def _fishers(model: nn.Module, data: UnlearningData, batch_size: int) -> tuple[Importances, Importances]:
    """Diagonals of the Fisher information on the forget data and on all training data."""
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
