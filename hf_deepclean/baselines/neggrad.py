# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Descent on the retain data and ascent on the forget data, at once."""

from dataclasses import dataclass

from torch import nn

from .data import UnlearningData
from .training import BatchLoss, TrainingMethod, check_not_empty, shuffled_batches, train


@dataclass(frozen=True)
class NegGradPlus(TrainingMethod):
    """
    NegGrad+ of [SCRUB](https://huggingface.co/papers/2302.09880): every step lowers

        alpha L(batch of the retain data) - (1 - alpha) L(batch of the forget data)

    with L the mean of -log p(y | x, w). An epoch is one pass over the retain data; the forget data come as often as
    that takes. Needs both.

    The second term has no lower bound, so that a learning rate too high, or an `alpha` too small, ends in weights
    that serve nothing; a loss that is no number stops the training.

    The defaults are those of the public code of [Deep Unlearn](https://huggingface.co/papers/2410.01276): alpha 0.95
    and 10 epochs of SGD at 0.01, momentum 0.9, without decay; in batches of 64, where it has 256. It trains in eval
    mode and repeats the forget batches of the first pass; here, as in SCRUB's own code, dropout is on, and every pass
    over the forget data has an order of its own.

    Args:
        alpha (`float`, *optional*, defaults to `0.95`):
            Share of the retain data in the loss, from 0 (gradient ascent alone) to 1 (fine-tuning alone).
        learning_rate, num_train_epochs, per_device_train_batch_size, optimizer, weight_decay, schedule:
            As for [`~rivals.training.TrainingMethod`]; the batch size is that of each of the two.

    Raises:
        `ValueError`: If one of them is out of range.
    """

    weight_decay: float = 0.0
    alpha: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(
                f"`alpha` is {self.alpha} but must be the share of the retain data in the loss, from 0 to 1."
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
                Seed of the order of the examples, and of dropout.

        Raises:
            `ValueError`: If there are no retain or no forget data, or no parameter requires gradients.
            `FloatingPointError`: If the training diverges.
        """
        check_not_empty(data, "retain", "forget")
        loss = BatchLoss(model, data)
        pairs = zip(
            shuffled_batches(data, "retain", self, seed), shuffled_batches(data, "forget", self, seed), strict=True
        )
        losses = (self.alpha * loss.mean(retain) - (1 - self.alpha) * loss.mean(forget) for retain, forget in pairs)
        train(model, self, losses, self.num_steps(data.num_examples("retain")), seed)
