# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""First- and second-order updates towards the model that corrected or removed training data would have given."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..data.batches import LABELS
from ..models.contexts import differentiable_mode, evaluation_mode, with_gradients
from ..models.likelihood import Likelihood
from ..models.rows import select_examples
from .data import UnlearningData
from .method import UnlearningMethod
from .scoring import check_positive, scored_batches, scored_choices, summed_gradients, trainable_parameters


# Changes fluctuate after convergence, because the products are stochastic. Diverging changes grow without bound.
_MAX_GROWTH = 10.0


@dataclass(frozen=True)
class FirstOrderInfluence(UnlearningMethod):
    """
    One gradient step that replaces the forget data by corrected data:

    `w <- w - unlearning_rate D`, `D = sum of grad loss(corrected example) - sum of grad loss(forget example)`.

    Without corrected data the forget data are removed, and the first sum is 0. The loss of an example is its negative
    log-likelihood, for a language model that of the whole sequence. `D` is a sum and not a mean, so the best rate
    depends on the sharpness of the loss over all training data, not on the number of examples. The method needs one
    pass over the forget data only.

    The default is that of [Machine Unlearning of Features and Labels](https://huggingface.co/papers/2108.11577) for
    poisoned labels on CIFAR-10 (for canaries in a language model it is 1e-4). Unlike in its public code, all trainable
    parameters change, not only the last six weight tensors.

    Args:
        unlearning_rate (`float`, *optional*, defaults to 2e-5):
            tau in the paper, in units of the inverse second derivative of a sum of losses.
        corrected_dataset ([`~datasets.Dataset`] or map-style, *optional*):
            The forget rows with masked features or corrected labels.
        per_device_batch_size (`int`, *optional*, defaults to 128):
            Number of examples in a batch; the result does not depend on it.
    """

    unlearning_rate: float = 2e-5
    corrected_dataset: Any | None = field(default=None, repr=False, compare=False)
    per_device_batch_size: int = 128

    def __post_init__(self) -> None:
        check_positive(self, "unlearning_rate", "per_device_batch_size")

    @with_gradients
    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]; nothing is random."""
        difference = _gradient_difference(model, data, self.corrected_dataset, self.per_device_batch_size)
        _subtract(model, difference, self.unlearning_rate)


@dataclass(frozen=True)
class SecondOrderInfluence(UnlearningMethod):
    """
    One Newton step that replaces the forget data by corrected data:

    `w <- w - (H + damping scale I)^-1 D`, with `D` as for [`FirstOrderInfluence`].

    `H` is the Hessian of the sum of losses over a batch of `hessian_batch_size` examples of the remaining data, which
    are the retain data and any corrected rows. LiSSA solves for the step by products of `H` with vectors:

    `u <- D + (1 - damping) u - H u / scale`, from `u = D`, until the change of `u` has had no new minimum for
    `patience` iterations. The step is `u / scale`.

    LiSSA converges if all eigenvalues of `H` are between `-damping scale` and `(2 - damping) scale`; if it diverges,
    an error is raised and the model stays as it is. As published, the units are those of sums: if there are at most
    `hessian_batch_size` remaining examples, `H` is the Hessian of the whole problem and the step is Newton's, which is
    exact for least squares. If there are more, the step is too long by their ratio.

    The defaults are those of [Machine Unlearning of Features and Labels](https://huggingface.co/papers/2108.11577) for
    poisoned labels on CIFAR-10, where the authors found scale and damping by trial (for canaries in a language model
    they are 1e4 and 0.1). Four things differ from its public code: all trainable parameters change, not only the last
    six weight tensors; `H` is that of the remaining data, where the code for CIFAR-10 takes the corrected rows;
    batches are drawn again in every pass; and a smaller last batch counts like a whole one. The likelihood must be
    twice differentiable, which excludes CTC.

    Args:
        scale (`float`, *optional*, defaults to 2e5):
            Divisor of `H`.
        damping (`float`, *optional*, defaults to 1e-4):
            Number that is added to the eigenvalues of `H / scale`, at least 0 and below 1.
        hessian_batch_size (`int`, *optional*, defaults to 1024):
            Number of examples in a product with `H`.
        patience (`int`, *optional*, defaults to 20):
            Number of iterations without a new minimum after which LiSSA stops.
        max_iterations (`int`, *optional*):
            Maximum number of iterations. By default that of 100 passes over the remaining data, as published.
        corrected_dataset ([`~datasets.Dataset`] or map-style, *optional*):
            The forget rows with masked features or corrected labels.
        per_device_batch_size (`int`, *optional*, defaults to 128):
            Number of examples to differentiate at once; the result does not depend on it.
    """

    scale: float = 2e5
    damping: float = 1e-4
    hessian_batch_size: int = 1024
    patience: int = 20
    max_iterations: int | None = None
    corrected_dataset: Any | None = field(default=None, repr=False, compare=False)
    per_device_batch_size: int = 128

    def __post_init__(self) -> None:
        check_positive(self, "scale", "hessian_batch_size", "patience", "per_device_batch_size")
        if self.max_iterations is not None:
            check_positive(self, "max_iterations")
        if not 0 <= self.damping < 1:
            raise ValueError(
                f"`damping` is {self.damping!r} but must be at least 0, which adds nothing, and below 1. The "
                "published values are 1e-4, 1e-2 and 0.1."
            )

    @with_gradients
    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]; the batches of the Hessian are random."""
        difference = _gradient_difference(model, data, self.corrected_dataset, self.per_device_batch_size)
        remaining, split = data, "retain"
        if self.corrected_dataset is not None:
            remaining, split = replace(data, forget_dataset=self.corrected_dataset), "all"
        num_remaining = remaining.num_examples(split)
        max_iterations = 100 * math.ceil(num_remaining / self.hessian_batch_size)
        if self.max_iterations is not None:
            max_iterations = self.max_iterations
        full_size = min(self.hessian_batch_size, num_remaining)
        passes = (remaining.batches(split, self.hessian_batch_size, seed + number) for number in count())
        batches = scored_batches(model, chain.from_iterable(passes), data.log_likelihood_func)
        parameters = list(trainable_parameters(model).values())

        def hessian_product(vector: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            likelihood, inputs, labels = next(batches)
            parts = _parts(model, inputs, labels, self.per_device_batch_size)
            product = _hessian_product(model, likelihood, parts, parameters, vector)
            return [total * (full_size / len(labels)) for total in product]

        direction = list(difference.values())
        solution = lissa(hessian_product, direction, self.scale, self.damping, max_iterations, self.patience)
        _subtract(model, dict(zip(difference, solution, strict=True)), 1 / self.scale)


def lissa(
    hessian_product: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]],
    direction: Sequence[torch.Tensor],
    scale: float,
    damping: float,
    max_iterations: int,
    patience: int,
) -> list[torch.Tensor]:
    """
    Solves `(H / scale + damping I) u = v` by `u <- v + (1 - damping) u - H u / scale`, from `u = v`.

    This is [LiSSA](https://huggingface.co/papers/1602.03943) with batches in place of single examples.

    Args:
        hessian_product (`Callable`):
            Returns the product of H with a vector, which is given as one tensor per parameter. H may be that of
            another sample in every call.
        direction (`Sequence[torch.Tensor]`):
            v, as one tensor per parameter.
        scale, damping (`float`):
            As for [`SecondOrderInfluence`].
        max_iterations (`int`):
            Maximum number of iterations.
        patience (`int`):
            Number of iterations without a new minimum of the change of u (the sum of absolute values) after which to
            stop.

    Returns:
        `list[torch.Tensor]`: u, as one tensor per parameter.

    Raises:
        `ValueError`: If the changes grow, so that u diverges.
    """
    solution, smallest, first, change, since = list(direction), math.inf, None, 0.0, 0
    for _ in range(max_iterations):
        products = hessian_product(solution)
        updated = [
            start + (1 - damping) * value - product / scale
            for start, value, product in zip(direction, solution, products, strict=True)
        ]
        change = sum(float((new - old).abs().sum()) for new, old in zip(updated, solution, strict=True))
        first, solution = change if first is None else first, updated
        since = 0 if change < smallest else since + 1
        smallest = min(change, smallest)
        if since >= patience or change == 0 or not math.isfinite(change):
            break
    if not change <= _MAX_GROWTH * first:
        raise ValueError(
            f"LiSSA does not converge at the scale {scale:g} and the damping {damping:g}: the changes grew from "
            f"{first:.3g} to {change:.3g}. Raise `scale`, which divides the eigenvalues of the Hessian, or `damping`, "
            "which outweighs negative eigenvalues."
        )
    return solution


def _gradient_difference(
    model: nn.Module, data: UnlearningData, corrected_dataset: Any | None, batch_size: int
) -> dict[str, torch.Tensor]:
    """The summed gradients of the corrected rows minus those of the forget data, by parameter."""

    def gradients(part: UnlearningData) -> dict[str, torch.Tensor]:
        return summed_gradients(model, part.batches("forget", batch_size), data.log_likelihood_func)

    forget = gradients(data)
    if corrected_dataset is None:
        return {name: -gradient for name, gradient in forget.items()}
    corrected = gradients(replace(data, forget_dataset=corrected_dataset))
    return {name: corrected[name] - forget[name] for name in forget}


def _hessian_product(
    model: nn.Module,
    likelihood: Likelihood,
    parts: Iterable[tuple[dict[str, Any], torch.Tensor]],
    parameters: Sequence[nn.Parameter],
    vector: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    """The product of a vector with the Hessian of the sum of the losses of the parts."""
    sums = [torch.zeros_like(part) for part in vector]
    # Fused attention kernels have no second derivatives.
    with evaluation_mode(model), differentiable_mode(model), sdpa_kernel(SDPBackend.MATH):
        for inputs, labels in parts:
            outputs = model(**inputs)
            if likelihood.kind == "custom":
                loss = -likelihood(inputs, outputs, labels).sum()
            else:
                loss = F.cross_entropy(*scored_choices(likelihood, inputs, outputs, labels), reduction="sum")
            gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
            slope = sum((gradient * part).sum() for gradient, part in zip(gradients, vector, strict=True))
            products = torch.autograd.grad(slope, parameters, materialize_grads=True)
            for total, product in zip(sums, products, strict=True):
                total += product
    return sums


def _parts(
    model: nn.Module, inputs: Mapping[str, Any], labels: torch.Tensor, size: int
) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    for start in range(0, len(labels), size):
        part = select_examples(model, {**inputs, LABELS: labels}, range(start, min(start + size, len(labels))))
        yield part, part.pop(LABELS)


@torch.no_grad()
def _subtract(model: nn.Module, step: Mapping[str, torch.Tensor], factor: float) -> None:
    for name, parameter in trainable_parameters(model).items():
        parameter.copy_(parameter - factor * step[name])
