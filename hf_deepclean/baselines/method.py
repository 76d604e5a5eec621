# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The interface of all baselines."""

from torch import nn

from .data import UnlearningData


class UnlearningMethod:
    """
    A method that makes a model forget.

    Subclasses are frozen dataclasses, whose fields are the settings of the method. Defaults are the published
    values where there are any.
    """

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """
        Changes the model in place.

        Only parameters that require gradients change, and no buffer does. The modes, gradients and configuration of
        the model and the global random states are left as they were.

        Args:
            model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
                The model to change.
            data ([`UnlearningData`]):
                The forget data and the retain data.
            seed (`int`, *optional*, defaults to `0`):
                Seed of everything random. Methods without randomness ignore it.

        Raises:
            `ValueError`: If no parameter requires gradients, if data that the method needs are empty, or if the method
                does not apply to the model's head.
            `FloatingPointError`: If losses or weights are not finite.
        """
        raise NotImplementedError
