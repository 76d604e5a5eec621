# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Training on wrong labels for the forget data: of all weights, or of the most salient ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import torch
from torch import nn

from ..data.batches import IGNORED
from ..data.loaders import seed_of_batch
from ..models.label_alignment import logits_of
from ..models.label_draws import uniform_numbers
from ..models.likelihood import TOKEN_KINDS, Likelihood
from ..selection.weight_selection import WeightSelection, selection_at
from .data import UnlearningData
from .scoring import summed_gradients, trainable_parameters
from .training import BatchLoss, TrainingMethod, check_not_empty, train


@dataclass(frozen=True)
class RandomLabels(TrainingMethod):
    """
    Amnesiac unlearning ([paper](https://huggingface.co/papers/2010.10981)) without a log of the training: every forget
    example gets a random wrong label y', and every step lowers

        mean of -log p(y' | x, w) over a batch of all data, where y' = y for the retain data

    If the labels are those of tokens, every scored token gets a random other token as its label; the inputs stay as
    they are. The method needs the forget and the retain data, and a head that predicts classes or tokens.

    The defaults are those of the public code of [SSD](https://huggingface.co/papers/2308.07707), 3 epochs of Adam at
    1e-4, but in batches of 64 instead of 128 and with gradients clipped at norm 1. As in that code, a label is drawn
    once, uniformly among the wrong ones; here it depends only on the seed and the position of the example. Other
    public code draws among all labels including the true one, or again in every epoch.

    The arguments are those of [`TrainingMethod`].
    """

    learning_rate: float = 1e-4
    num_train_epochs: float = 3
    optimizer: str = "adamw"
    weight_decay: float = 0.0

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]."""
        _train_on_random_labels(model, self, data, seed, None)


@dataclass(frozen=True)
class SalUn(TrainingMethod):
    """
    [SalUn](https://huggingface.co/papers/2310.12508): trains only the most salient weights on random labels, with

        saliency(w) = |sum over the forget data of the gradient of -log p(y | x, w)|

    The `saliency_fraction` of the trainable weights with the largest saliency, over all layers together, is trained as
    in [`RandomLabels`]; all other weights keep every bit. The method needs the forget and the retain data, and a head
    that predicts classes or tokens.

    The defaults are those of the public code, half of the weights and 10 epochs of SGD at 0.013, momentum 0.9 and
    weight decay 5e-4, but in batches of 64 instead of 256. That code differs in three ways:

    - It takes a step of gradient ascent after every batch while it sums the gradients. Here all gradients are taken at
      the original weights, in eval mode, and are summed over the examples, not over the means of the batches.
    - Until February 2026 it masked only the gradients, so that weight decay changed all weights. Here the other
      weights are never written, and decay and momentum apply to the salient weights only.
    - It draws labels again in every epoch, which may be the true ones, and for some data sets it alternates between
      the forget and the retain data. Here labels and batches are those of [`RandomLabels`].

    Args:
        saliency_fraction (`float`, *optional*, defaults to `0.5`):
            Share of the weights to train, above 0 and at most 1. At least one weight is trained.
        kwargs:
            As for [`TrainingMethod`].

    Raises:
        `ValueError`: If a setting is out of range.
    """

    learning_rate: float = 0.013
    saliency_fraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.saliency_fraction <= 1:
            raise ValueError(
                f"`saliency_fraction` is {self.saliency_fraction} but must be a share of the weights, above 0 and at "
                "most 1."
            )

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]."""
        selection = select_salient_weights(model, data, self.saliency_fraction, self.per_device_train_batch_size)
        _train_on_random_labels(model, self, data, seed, selection)


def select_salient_weights(
    model: nn.Module, data: UnlearningData, saliency_fraction: float, batch_size: int
) -> WeightSelection:
    """
    Selects the weights with the largest absolute summed gradients of the forget data; of equal weights the first.

    Args:
        model (`torch.nn.Module`):
            The model; it is left as it was.
        data ([`UnlearningData`]):
            The data.
        saliency_fraction (`float`):
            Share of the weights that require gradients to select; at least one weight is selected.
        batch_size (`int`):
            Number of examples in a batch; the result depends on it only by rounding.

    Returns:
        [`WeightSelection`]: The selected weights.

    Raises:
        `ValueError`: If the forget data are empty, or no parameter requires gradients.
        `FloatingPointError`: If a gradient is not finite.
    """
    check_not_empty(data, "forget")
    sums = summed_gradients(model, data.batches("forget", batch_size), data.log_likelihood_func)
    saliency = torch.cat([total.flatten().cpu() for total in sums.values()]).abs()
    if not saliency.isfinite().all():
        raise FloatingPointError(
            "Gradients of the forget data are not finite, so the weights cannot be compared. Load the model in "
            "float32 or bf16."
        )
    num_selected = max(1, int(saliency_fraction * len(saliency)))
    chosen = saliency.argsort(descending=True, stable=True)[:num_selected]
    num_weights = {name: parameter.numel() for name, parameter in trainable_parameters(model).items()}
    return selection_at(num_weights, chosen, "saliency")


def draw_wrong_labels(labels: torch.Tensor, num_classes: int, positions: torch.Tensor, seed: int) -> torch.Tensor:
    """
    Draws a wrong label for every scored label, uniformly among the other classes or tokens.

    Args:
        labels (`torch.Tensor`):
            Class indices or token ids of shape `(batch_size,)` or `(batch_size, length)`; -100 is not scored.
        num_classes (`int`):
            Number of classes or tokens.
        positions (`torch.Tensor`):
            Position of every example in the data set, of shape `(batch_size,)`.
        seed (`int`):
            The seed. A draw depends only on the seed, the position of the example and the index among its scored
            labels, not on batches or padding.

    Returns:
        `torch.Tensor`: The drawn labels, with the shape and dtype of `labels`.
    """
    rows = labels.cpu() if labels.ndim == 2 else labels.cpu()[:, None]
    scored = rows != IGNORED
    indices = (scored.cumsum(dim=1) - 1).clamp_min(0)
    uniform = uniform_numbers(seed, positions[:, None].expand_as(rows).numpy(), indices.numpy())
    drawn = torch.from_numpy(uniform * (num_classes - 1)).long()
    wrong = torch.where(scored, drawn + (drawn >= rows), rows)
    return wrong.view_as(labels).to(labels)


def _train_on_random_labels(
    model: nn.Module, method: TrainingMethod, data: UnlearningData, seed: int, selection: WeightSelection | None
) -> None:
    check_not_empty(data, "forget")
    loss = BatchLoss(model, data)

    def loss_of(positions: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        def relabel(likelihood: Likelihood, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
            _check_drawable(likelihood, positions, labels)
            forgotten = positions < data.num_examples("forget")
            labels, num_classes = labels.clone(), logits_of(outputs).shape[-1]
            labels[forgotten] = draw_wrong_labels(labels[forgotten], num_classes, positions[forgotten], seed)
            return labels

        return loss.mean(batch, relabel)

    batch_size = method.per_device_train_batch_size
    passes = (data.numbered_batches("all", batch_size, seed_of_batch(seed, epoch)) for epoch in count())
    losses = (loss_of(*numbered) for numbered in chain.from_iterable(passes))
    train(model, method, losses, method.num_steps(data.num_examples("all")), seed, selection)


def _check_drawable(likelihood: Likelihood, positions: torch.Tensor, labels: torch.Tensor) -> None:
    if likelihood.kind not in ("classification", *TOKEN_KINDS):
        raise ValueError(
            f"Random labels are drawn among the classes or tokens of a head, which a {likelihood.kind} likelihood "
            "does not give. Use `FineTuning` or `NegGradPlus`, which train on the given labels."
        )
    if len(labels) != len(positions):
        raise ValueError(
            f"The collator made {len(labels)} examples of {len(positions)} rows, so it is unknown which of them to "
            "forget. Pass a `data_collator` that does not pack."
        )
