# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on the retain data with gradient ascent on the forget data."""

from dataclasses import dataclass

from torch import nn

from .data import UnlearningData
from .training import BatchLoss, TrainingMethod, check_not_empty, shuffled_batches, train


@dataclass(frozen=True)
class NegGradPlus(TrainingMethod):
    """
    NegGrad+ of [SCRUB](https://huggingface.co/papers/2302.09880): every step lowers

        alpha L(batch of the retain data) - (1 - alpha) L(batch of the forget data)

    where L is the mean of -log p(y | x, w). An epoch is one pass over the retain data, during which the forget data
    are repeated. The method needs both.

    The second term has no lower bound: a learning rate that is too high, or an `alpha` that is too small, destroys the
    model. A loss that is not finite stops the training.

    The defaults are those of the public code of [Deep Unlearn](https://huggingface.co/papers/2410.01276): alpha 0.95
    and 10 epochs of SGD at 0.01, momentum 0.9 and no weight decay, but in batches of 64 instead of 256. That code
    trains in eval mode and repeats the forget batches of the first pass. Here dropout is on, as in SCRUB's own code,
    and every pass over the forget data has another order.

    Args:
        alpha (`float`, *optional*, defaults to `0.95`):
            Weight of the retain data in the loss, from 0 (gradient ascent only) to 1 (fine-tuning only).
        kwargs:
            As for [`TrainingMethod`]. A step reads `per_device_train_batch_size` retain examples and as many forget
            examples.

    Raises:
        `ValueError`: If a setting is out of range.
    """

    weight_decay: float = 0.0
    alpha: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(
                f"`alpha` is {self.alpha} but must be the weight of the retain data in the loss, from 0 to 1."
            )

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]."""
        check_not_empty(data, "retain", "forget")
        loss = BatchLoss(model, data)
        pairs = zip(
            shuffled_batches(data, "retain", self, seed), shuffled_batches(data, "forget", self, seed), strict=True
        )
        losses = (self.alpha * loss.mean(retain) - (1 - self.alpha) * loss.mean(forget) for retain, forget in pairs)
        train(model, self, losses, self.num_steps(data.num_examples("retain")), seed)
