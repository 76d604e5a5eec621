# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The control: a random mask that is reset and repaired."""

from dataclasses import dataclass

from torch import nn

from ..models.adapters.parameters import is_adapted
from ..models.scope import parameters_in_scope
from ..reset.values import RESET_VALUES, REWINDING, default_reset_value, reset_weights
from ..selection.weight_selection import draw_weights
from .data import UnlearningData
from .training import TrainingMethod, check_not_empty, train_on_retain_data


_VALUES = tuple(value for value in RESET_VALUES if value not in REWINDING)


@dataclass(frozen=True)
class RandomMask(TrainingMethod):
    """
    [DeepClean](https://huggingface.co/papers/2311.10448) without its Fisher information: resets a random share of the
    weights in scope, and trains only these weights on the retain data. Every step lowers

        mean of -log p(y | x, w) over a batch of the retain data

    with an AdamW that never writes another weight. The result shows what is possible without a selection. The method
    needs the retain data only. It is a control and not a published method; the defaults are those of a repair.

    Args:
        reset_fraction (`float`, *optional*, defaults to `0.1`):
            Share of the weights in scope (see [`parameters_in_scope`]; for a [`~peft.PeftModel`] those of the adapter)
            to reset, above 0 and at most 1. At least one weight is reset.
        reset_value (`str`, *optional*):
            `"zero"` or `"init"`, see [`reset_weights`]. By default `"init"` for adapters and for models with token
            embeddings, else `"zero"`.
        kwargs:
            As for [`TrainingMethod`].

    Raises:
        `ValueError`: If a setting is out of range.
    """

    learning_rate: float = 1e-3
    num_train_epochs: float = 2
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    schedule: str = "cosine"
    reset_fraction: float = 0.1
    reset_value: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.reset_fraction <= 1:
            raise ValueError(
                f"`reset_fraction` is {self.reset_fraction} but must be a share of the weights, above 0 and at most 1."
            )
        if self.reset_value not in (None, *_VALUES):
            raise ValueError(
                f"`reset_value` is {self.reset_value!r} but must be one of {', '.join(map(repr, _VALUES))}, or `None`."
            )

    def unlearn(self, model: nn.Module, data: UnlearningData, seed: int = 0) -> None:
        """Changes the model in place. See [`UnlearningMethod.unlearn`]."""
        check_not_empty(data, "retain")
        scope = parameters_in_scope(model, reset_scope="adapter" if is_adapted(model) else "full")
        num_weights = {name: parameter.numel() for name, parameter in scope.items()}
        number = max(1, int(self.reset_fraction * sum(num_weights.values())))
        selection = draw_weights(num_weights, number, seed)
        reset_weights(model, selection, self.reset_value or default_reset_value(model), seed=seed)
        train_on_retain_data(model, self, data, seed, selection)
