# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Training that gives the forget data wrong labels: of all weights, or of those that matter to them most."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import torch
from torch import nn

from ..data.batches import IGNORED
from ..models.label_alignment import logits_of
from ..models.label_draws import uniform_numbers
from ..models.likelihood import Likelihood
from ..selection.weight_selection import WeightSelection, selection_at
from .data import UnlearningData
from .scoring import summed_gradients, trainable_parameters
from .training import BatchLoss, TrainingMethod, check_not_empty, epoch_seed, train


@dataclass(frozen=True)
class RandomLabels(TrainingMethod):
    """
    Amnesiac unlearning ([paper](https://huggingface.co/papers/2010.10981)), as it is used without a log of the
    training: every forget example gets a random wrong label y', and every step lowers

        mean of -log p(y' | x, w) over a batch of all data, where y' = y for the retain data

    Where labels belong to tokens, every scored token gets a random other one; what the model reads stays. Needs both
    parts of the data, and a head that chooses among classes or tokens.

    The defaults are those of the public code of [SSD](https://huggingface.co/papers/2308.07707): 3 epochs of Adam at
    1e-4; in batches of 64, where it has 128, and with gradients clipped at norm 1, there not at all. As there, the
    label is drawn once, uniformly among the wrong ones; here it follows the seed and the example's place alone. Other
    public code draws among all labels, the true one too, or anew in every epoch.

    Args:
        learning_rate, num_train_epochs, per_device_train_batch_size, optimizer, weight_decay, schedule:
            As for [`~rivals.training.TrainingMethod`].
    """

    learning_rate: float = 1e-4
    num_train_epochs: float = 3
    optimizer: str = "adamw"
    weight_decay: float = 0.0

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """
        Changes the model in place.

        Args:
            model (`torch.nn.Module`):
                The model.
            data ([`~rivals.data.UnlearningData`]):
                The data.
            seed (`int`, *optional*, defaults to `0`):
                Seed of the labels, of the order of the examples, and of dropout.

        Raises:
            `ValueError`: If there are no forget data, no parameter requires gradients, or the head has no labels to
                draw.
            `FloatingPointError`: If the training diverges.
        """
        _train_on_random_labels(model, self, data, seed, None)


@dataclass(frozen=True)
class SalUn(TrainingMethod):
    """
    [SalUn](https://huggingface.co/papers/2310.12508): random labels for the most salient weights alone.

        saliency(w) = |sum over the forget data of the gradient of -log p(y | x, w)|

    The top `saliency_fraction` of the trainable weights, over all layers together, is trained as by [`RandomLabels`];
    all other weights keep every bit. Needs both parts of the data, and a head that chooses among classes or tokens.

    The defaults are those of the public code: half of the weights, 10 epochs of SGD at 0.013, momentum 0.9, weight
    decay 5e-4; in batches of 64, where it has 256. That code

    - takes a step of gradient ascent after every batch while it sums the gradients; here they are all taken at the
      weights as given, in eval mode, and are those of a sum over the examples and not over the batches' means;
    - masked gradients alone until February 2026, so that decay moved all weights; here the others are never written,
      and decay and momentum see the salient ones only;
    - draws labels that may be the true ones, anew in every epoch, and for some data sets trains on the forget and the
      retain data in turns; here as in [`RandomLabels`].

    Args:
        saliency_fraction (`float`, *optional*, defaults to `0.5`):
            Share of the weights to train, above 0 and at most 1; at least one weight.
        learning_rate, num_train_epochs, per_device_train_batch_size, optimizer, weight_decay, schedule:
            As for [`~rivals.training.TrainingMethod`].

    Raises:
        `ValueError`: If one of them is out of range.
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
        """
        Changes the model in place.

        Args:
            model (`torch.nn.Module`):
                The model.
            data ([`~rivals.data.UnlearningData`]):
                The data.
            seed (`int`, *optional*, defaults to `0`):
                Seed of the labels, of the order of the examples, and of dropout.

        Raises:
            `ValueError`: If there are no forget data, no parameter requires gradients, or the head has no labels to
                draw.
            `FloatingPointError`: If the gradients are no finite numbers, or the training diverges.
        """
        selection = select_salient_weights(model, data, self.saliency_fraction, self.per_device_train_batch_size)
        _train_on_random_labels(model, self, data, seed, selection)


def select_salient_weights(
    model: nn.Module, data: UnlearningData, saliency_fraction: float, batch_size: int
) -> WeightSelection:
    """
    The weights with the largest summed gradients of the forget data; of equal ones the first.

    Args:
        model (`torch.nn.Module`):
            The model; it is left as it was.
        data ([`~rivals.data.UnlearningData`]):
            The data.
        saliency_fraction (`float`):
            Which share of the weights that require gradients; at least one.
        batch_size (`int`):
            Examples of a pass, on which the result does not depend but for rounding.

    Raises:
        `ValueError`: If there are no forget data, or no parameter requires gradients.
        `FloatingPointError`: If a gradient is no finite number.
    """
    check_not_empty(data, "forget")
    sums = summed_gradients(model, data.batches("forget", batch_size), data.log_likelihood_func)
    saliency = torch.cat([total.flatten().cpu() for total in sums.values()]).abs()
    if not saliency.isfinite().all():
        raise FloatingPointError(
            "Gradients of the forget data are no finite numbers, so no weight is more salient than another. Load the "
            "model in float32 or bf16."
        )
    num_selected = max(1, int(saliency_fraction * len(saliency)))
    chosen = saliency.argsort(descending=True, stable=True)[:num_selected]
    num_weights = {name: parameter.numel() for name, parameter in trainable_parameters(model).items()}
    return selection_at(num_weights, chosen, "saliency")


def draw_wrong_labels(labels: torch.Tensor, num_classes: int, positions: torch.Tensor, seed: int) -> torch.Tensor:
    """
    A wrong label for every one that is scored, each of the others as likely.

    Args:
        labels (`torch.Tensor`):
            Class indices or token ids, shape `(batch_size,)` or `(batch_size, length)`, with -100 where nothing is
            scored.
        num_classes (`int`):
            Number of classes or tokens.
        positions (`torch.Tensor`):
            Position of every example in the data set.
        seed (`int`):
            The seed. The draw depends on it, the example's position and the index among its scored labels only, not
            on how examples are batched or padded.

    Returns:
        `torch.Tensor`: As `labels`.
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
    passes = (data.numbered_batches("all", batch_size, epoch_seed(seed, epoch)) for epoch in count())
    losses = (loss_of(*numbered) for numbered in chain.from_iterable(passes))
    train(model, method, losses, method.num_steps(data.num_examples("all")), seed, selection)


def _check_drawable(likelihood: Likelihood, positions: torch.Tensor, labels: torch.Tensor) -> None:
    if likelihood.kind not in ("classification", "token", "next_token"):
        raise ValueError(
            f"Random labels are drawn among the classes or tokens of a head, which a {likelihood.kind} likelihood "
            "does not give. Use `FineTuning` or `NegGradPlus`, which train on the labels as they are."
        )
    if len(labels) != len(positions):
        raise ValueError(
            f"The collator made {len(labels)} examples of {len(positions)} rows, so that it is not known which are to "
            "be forgotten. Pass a `data_collator` that does not pack."
        )
