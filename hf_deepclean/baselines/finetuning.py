# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning on the retain data: what training alone forgets."""

from dataclasses import dataclass

from torch import nn

from .data import UnlearningData
from .training import TrainingMethod, train_on_retain_data


@dataclass(frozen=True)
class FineTuning(TrainingMethod):
    """
    Trains on the retain data and hopes that the rest fades (FT): every step lowers

        mean of -log p(y | x, w) over a batch of the retain data

    The weakest of the rivals, and the one that every other must beat. Needs the retain data alone.

    The defaults are those of the public code of [l1-sparse unlearning](https://huggingface.co/papers/2304.04934): 10
    epochs of SGD at 0.01, momentum 0.9, weight decay 5e-4; in batches of 64, where it has 256. Others train for 5
    epochs at 0.1 (the starting kit of the NeurIPS 2023 challenge) or at 0.02 (the public code of SSD).

    Args:
        learning_rate, num_train_epochs, per_device_train_batch_size, optimizer, weight_decay, schedule:
            As for [`~rivals.training.TrainingMethod`].
    """

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
            `ValueError`: If there are no retain data, or no parameter requires gradients.
            `FloatingPointError`: If the training diverges.
        """
        train_on_retain_data(model, self, data, seed)
