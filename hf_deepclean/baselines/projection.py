# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Unlearning by projections on the subspaces that the inputs of layers span."""

from dataclasses import dataclass

import torch
from torch import nn

from ..fisher.engine.layouts import sum_dtype
from ..models.contexts import differentiable_mode, evaluation_mode, with_gradients
from ..models.heads import num_classes
from .data import UnlearningData
from .layer_inputs import input_covariances, multiply_inputs, projectable_layers
from .method import UnlearningMethod
from .scoring import check_positive, noting_classes, scored_batches, scored_choices


@dataclass(frozen=True)
class ProjectedGradientUnlearning(UnlearningMethod):
    """
    PGU: makes the forget data unlikely, by gradients that do not change the outputs of layers for the retain data.

    For the weight `W` of every linear layer and convolution, `M_r = sum over the retain data of x x^T`, where x are
    the inputs of the layer (patches, for a convolution). `P` projects on the first eigenvectors of `M_r`, as many as
    make up `retained_variance` of the sum of the square roots of all eigenvalues. Every step on the forget data is

    `W <- W - learning_rate (G - G P)`, with G the gradient of `mean(-log(1 - (p_y - offset)) - entropy_weight H(p))`.

    Biases and all other parameters stay as they are. The learning rate falls exponentially from `learning_rate` to
    `final_learning_rate`. The method stops early after an epoch in which the accuracy on a sample of the retain data
    is more than `max_accuracy_drop` below the initial accuracy; as in public code, that epoch is kept.

    The method needs the labels of the forget data and the inputs of the retain data. The defaults are those of
    [Projected-Gradient Unlearning](https://huggingface.co/papers/2312.04095) for CIFAR-10 (`retained_variance` was 0.9
    or 0.95).

    It differs from public code where the result is the same, or where that code is not the method. `M_r` is summed
    over the retain data; the paper subtracts the forget data from a sum over all data, which is the same up to
    rounding. Patches are taken with the stride of the kernel, not with stride one. Dropout is always off. All epochs
    train; in public code the first one only evaluates. Grouped convolutions are left as they are.

    Args:
        retained_variance (`float`, *optional*, defaults to 0.95):
            Share of the inputs of the retain data that is protected, between 0 and 1.
        learning_rate, final_learning_rate (`float`, *optional*, defaults to 0.1 and 0.01):
            Learning rates of plain SGD in the first epoch and after the last one.
        num_train_epochs (`int`, *optional*, defaults to 100):
            Maximum number of passes over the forget data.
        offset (`float`, *optional*, defaults to 0.05):
            Keeps the loss finite at a likelihood of 1, delta in the paper.
        entropy_weight (`float`, *optional*, defaults to 0.2):
            Weight of the entropy of the outputs, which is maximized.
        max_accuracy_drop (`float`, *optional*, defaults to 0.05):
            Drop of the retain accuracy at which to stop early.
        num_accuracy_examples (`int`, *optional*, defaults to 1000):
            Number of retain examples to measure the accuracy on.
        num_covariance_examples (`int`, *optional*):
            Number of retain examples in `M_r`, by default all, as published.
        per_device_train_batch_size (`int`, *optional*, defaults to 100):
            Number of forget examples in a step.
        per_device_batch_size (`int`, *optional*, defaults to 128):
            Number of retain examples in a batch; the result does not depend on it.
    """

    retained_variance: float = 0.95
    learning_rate: float = 0.1
    final_learning_rate: float = 0.01
    num_train_epochs: int = 100
    offset: float = 0.05
    entropy_weight: float = 0.2
    max_accuracy_drop: float = 0.05
    num_accuracy_examples: int = 1000
    num_covariance_examples: int | None = None
    per_device_train_batch_size: int = 100
    per_device_batch_size: int = 128

    def __post_init__(self) -> None:
        check_positive(
            self,
            *("learning_rate", "final_learning_rate", "num_train_epochs", "offset", "num_accuracy_examples"),
            *("per_device_train_batch_size", "per_device_batch_size"),
        )
        if self.num_covariance_examples is not None:
            check_positive(self, "num_covariance_examples")
        if not 0 < self.retained_variance < 1:
            raise ValueError(
                f"`retained_variance` is {self.retained_variance!r} but must be between 0, which protects nothing, "
                "and 1, which lets nothing change. The published values are 0.9 and 0.95."
            )
        if self.entropy_weight < 0 or self.max_accuracy_drop < 0:
            raise ValueError(
                f"`entropy_weight` is {self.entropy_weight!r} and `max_accuracy_drop` is {self.max_accuracy_drop!r}, "
                "but neither can be negative. The published values are 0.2 and 0.05."
            )

    @with_gradients
    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]; samples and batches are random."""
        layers = projectable_layers(model)
        projections = self._projections(model, data, seed)
        # Half precision rounds small steps away.
        masters = {weight: weight.detach().to(sum_dtype(weight), copy=True) for weight in projections}
        decay = (self.final_learning_rate / self.learning_rate) ** (1 / self.num_train_epochs)
        first_accuracy = self._retain_accuracy(model, data, seed)
        for epoch in range(self.num_train_epochs):
            learning_rate = self.learning_rate * decay**epoch
            batches = data.batches("forget", self.per_device_train_batch_size, seed=seed + epoch)
            with evaluation_mode(model), differentiable_mode(model):
                for likelihood, inputs, labels in scored_batches(model, batches, data.log_likelihood_func):
                    logits, targets = scored_choices(likelihood, inputs, model(**inputs), labels)
                    gradients = torch.autograd.grad(
                        self._loss(logits, targets), list(projections), materialize_grads=True
                    )
                    with torch.no_grad():
                        for (weight, projection), gradient in zip(projections.items(), gradients, strict=True):
                            gradient = gradient.to(projection.dtype)
                            gradient = gradient - multiply_inputs(layers[weight], gradient, projection)
                            weight.copy_(masters[weight].sub_(gradient, alpha=learning_rate))
            if first_accuracy - self._retain_accuracy(model, data, seed) > self.max_accuracy_drop:
                break

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log_probabilities = torch.log_softmax(logits, dim=-1)
        probabilities = log_probabilities.exp()
        given = probabilities.gather(-1, targets[:, None]).squeeze(-1)
        # The log-probability of an impossible outcome is -inf.
        entropy = -(probabilities * log_probabilities.masked_fill(logits.isneginf(), 0)).sum(dim=-1)
        return (-torch.log1p(self.offset - given) - self.entropy_weight * entropy).mean()

    def _projections(self, model: nn.Module, data: UnlearningData, seed: int) -> dict[nn.Parameter, torch.Tensor]:
        num_examples = self.num_covariance_examples
        batches = data.batches(
            "retain", self.per_device_batch_size, None if num_examples is None else seed, num_examples
        )
        scored = scored_batches(model, batches, data.log_likelihood_func)
        covariances = input_covariances(model, scored, projectable_layers(model))
        projections = {}
        for weight in list(covariances):
            eigenvalues, eigenvectors = torch.linalg.eigh(covariances.pop(weight))
            roots = eigenvalues.clamp_min(0).sqrt().flip(0)
            rank = int((roots.cumsum(0) / roots.sum() <= self.retained_variance).sum()) + 1
            kept = eigenvectors.flip(1)[:, :rank]
            projections[weight] = (kept @ kept.T).to(sum_dtype(weight))
        return projections

    @torch.no_grad()
    def _retain_accuracy(self, model: nn.Module, data: UnlearningData, seed: int) -> float:
        """The share of the scored choices of a sample that the model predicts correctly."""
        batches = data.batches("retain", self.per_device_batch_size, seed, self.num_accuracy_examples)
        num_right, num_choices = 0, 0
        with evaluation_mode(model), differentiable_mode(model):
            for likelihood, inputs, labels in scored_batches(model, batches, data.log_likelihood_func):
                logits, targets = scored_choices(likelihood, inputs, model(**inputs), labels)
                num_right += int((logits.argmax(dim=-1) == targets).sum())
                num_choices += len(targets)
        return num_right / num_choices


@dataclass(frozen=True)
class SubspaceForgetting(UnlearningMethod):
    """
    Deep Unlearning: forgets a class without gradients, by removing from the inputs of every layer the directions that
    the forget data use and the retain data do not.

    For the weight `W` of every linear layer and convolution, let `x` be its inputs (patches, for a convolution) on a
    sample of the retain or the forget data, `u_j` the eigenvectors of `sum x x^T`, and `s_j` its eigenvalues divided
    by their sum:

    `M = sum_j importance_j u_j u_j^T`, `importance_j = alpha s_j / ((alpha - 1) s_j + 1)`,

    `P = I - (M_f - M_f M_r)` and `W <- W P^T`.

    All inputs are those of the original model. Biases, normalisation layers and embeddings stay as they are. The
    method needs few examples and no training. It requires a head that classifies whole examples, and forget data that
    are whole classes; anything else is refused. The defaults are those of
    [Deep Unlearning](https://huggingface.co/papers/2312.00761) for CIFAR-10 (CIFAR-100: `retain_alpha` 1000 and
    `forget_alpha` 30; ImageNet: 100 and 10); the paper chooses both on a grid.

    The samples differ from those of public code. Retain examples are drawn at random; public code takes the same
    number from every class. Inputs are drawn from all positions; public code first cuts out a window of three times
    the width of the kernel. The limit of their number applies to linear layers too. Grouped convolutions are left as
    they are.

    Args:
        retain_alpha, forget_alpha (`float`, *optional*, defaults to 100.0 and 3.0):
            How soon a direction counts as used by the retain and by the forget data.
        num_samples (`int`, *optional*, defaults to 900):
            Number of examples in each of the two samples.
        max_rows (`int`, *optional*, defaults to 10000):
            Maximum number of inputs of a layer in each of the two samples.
        per_device_batch_size (`int`, *optional*, defaults to 128):
            Number of examples in a batch.
    """

    retain_alpha: float = 100.0
    forget_alpha: float = 3.0
    num_samples: int = 900
    max_rows: int = 10_000
    per_device_batch_size: int = 128

    def __post_init__(self) -> None:
        check_positive(self, "retain_alpha", "forget_alpha", "num_samples", "max_rows", "per_device_batch_size")

    @with_gradients
    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]; the samples are random."""
        if num_classes(model) is None:
            raise ValueError(
                f"{type(model).__name__} does not classify whole examples, but this method forgets whole classes. Use "
                "another method, for example `ProjectedGradientUnlearning`."
            )
        layers = projectable_layers(model)
        retain, retained = self._importances(model, data, "retain", self.retain_alpha, seed)
        forget, forgotten = self._importances(model, data, "forget", self.forget_alpha, seed)
        if retained & forgotten:
            raise ValueError(
                f"{len(retained & forgotten)} of the {len(forgotten)} classes to forget have examples in the retain "
                "data, but this method forgets whole classes. Use another method, for example "
                "`ProjectedGradientUnlearning`."
            )
        with torch.no_grad():
            for weight, importance in forget.items():
                identity = torch.eye(len(importance), dtype=importance.dtype, device=importance.device)
                projection = identity - (importance - importance @ retain[weight])
                weight.copy_(multiply_inputs(layers[weight], weight.double(), projection.T))

    def _importances(
        self, model: nn.Module, data: UnlearningData, split: str, alpha: float, seed: int
    ) -> tuple[dict[nn.Parameter, torch.Tensor], set[int]]:
        """The matrix M of every weight, and the classes in the sample."""
        classes: set[int] = set()
        num_samples = min(self.num_samples, data.num_examples(split))
        batches = noting_classes(data.batches(split, self.per_device_batch_size, seed, num_samples), classes)
        scored = scored_batches(model, batches, data.log_likelihood_func)
        covariances = input_covariances(model, scored, projectable_layers(model), self.max_rows / num_samples, seed)
        importances = {}
        for weight in list(covariances):
            eigenvalues, eigenvectors = torch.linalg.eigh(covariances.pop(weight))
            shares = eigenvalues.clamp_min(0) / eigenvalues.clamp_min(0).sum()
            importances[weight] = (eigenvectors * (alpha * shares / ((alpha - 1) * shares + 1))) @ eigenvectors.T
        return importances, classes
