# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning on the retain data."""

from dataclasses import dataclass

from torch import nn

from .data import UnlearningData
from .training import TrainingMethod, train_on_retain_data


@dataclass(frozen=True)
class FineTuning(TrainingMethod):
    """
    Fine-tuning (FT): trains on the retain data and relies on the forget data fading. Every step lowers

        mean of -log p(y | x, w) over a batch of the retain data

    This is the weakest baseline, which every other method must beat. It needs the retain data only.

    The defaults are those of the public code of [l1-sparse unlearning](https://huggingface.co/papers/2304.04934): 10
    epochs of SGD at 0.01, momentum 0.9 and weight decay 5e-4, but in batches of 64 instead of 256. Others train for 5
    epochs at 0.1 (the starting kit of the NeurIPS 2023 challenge) or at 0.02 (the public code of SSD).

    The arguments are those of [`TrainingMethod`].
    """

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]."""
        train_on_retain_data(model, self, data, seed)
