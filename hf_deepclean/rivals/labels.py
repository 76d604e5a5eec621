# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Training that gives the forget data wrong labels: of all weights, or of those that matter to them most."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, Subset

from ..batches import IGNORED
from ..likelihood import Likelihood, logits_of
from ..loading import seeded_batches
from ..modes import differentiable_mode, evaluation_mode
from ..sampling import uniform_numbers
from ..selection import WeightSelection
from .data import UnlearningData
from .training import BatchLoss, TrainingMethod, check_not_empty, epoch_seed, selection_at, train


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
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise ValueError(
            f"No parameter of this {type(model).__name__} requires gradients, so none is salient. Unfreeze those that "
            "may be trained by `requires_grad_(True)`."
        )
    sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in trainable.values()]
    loss = BatchLoss(model, data)
    with evaluation_mode(model), differentiable_mode(model):
        for batch in data.batches("forget", batch_size):
            gradients = torch.autograd.grad(loss.sum(batch), list(trainable.values()), allow_unused=True)
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total += gradient
    saliency = torch.cat([total.flatten().cpu() for total in sums]).abs()
    if not saliency.isfinite().all():
        raise FloatingPointError(
            "Gradients of the forget data are no finite numbers, so no weight is more salient than another. Load the "
            "model in float32 or bf16."
        )
    num_selected = max(1, int(saliency_fraction * len(saliency)))
    return selection_at(trainable, saliency.argsort(descending=True, stable=True)[:num_selected], "saliency")


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

    losses = (loss_of(*numbered) for numbered in _numbered_batches(data, method.per_device_train_batch_size, seed))
    train(model, method, losses, method.num_steps(data.num_examples("all")), seed, selection)


def _numbered_batches(
    data: UnlearningData, batch_size: int, seed: int
) -> Iterator[tuple[torch.Tensor, Mapping[str, Any]]]:
    """Pass after pass, the positions of a batch's examples and the batch; those to forget have the first positions."""
    rows = _BothParts([data.forget_dataset, data.retain_dataset])
    for epoch in count():
        own_seed = epoch_seed(seed, epoch)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(own_seed))
        shuffled = Subset(rows, order.tolist())
        for place, batch in seeded_batches(shuffled, batch_size, data.data_collator, own_seed):
            yield order[place * batch_size : (place + 1) * batch_size], batch


class _BothParts(ConcatDataset):
    """The rows of both parts; those of a batch at once, which for a `datasets.Dataset` is one read."""

    def __getitems__(self, positions: list[int]) -> list[Any]:
        rows: dict[int, Any] = {}
        for part, first in zip(self.datasets, (0, *self.cumulative_sizes), strict=False):
            own = [position for position in positions if 0 <= position - first < len(part)]
            if own:
                indices, many = [position - first for position in own], getattr(part, "__getitems__", None)
                rows |= zip(own, many(indices) if many else [part[index] for index in indices], strict=True)
        return [rows[position] for position in positions]


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
