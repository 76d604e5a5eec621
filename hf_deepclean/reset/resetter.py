# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Resets the selected weights of a model, and undoes the reset."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.contexts import restoring
from ..runtime.clock import PhaseClock
from ..selection.weight_selection import WeightSelection
from .freeze_guard import FreezeGuard
from .sources import ResetSources
from .values import reset_values
from .weights import read_weights, write_weights


logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Reset:
    """
    A reset of selected weights.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model whose weights were reset.
        selection ([`WeightSelection`]):
            The selected weights.
        originals (`dict[str, torch.Tensor]`):
            Values of the selected weights before the reset, one flat tensor per parameter.
        guard ([`FreezeGuard`]):
            The digests of everything outside the selection.
    """

    model: nn.Module
    selection: WeightSelection
    originals: dict[str, torch.Tensor]
    guard: FreezeGuard

    def undo(self) -> None:
        """Restores the values that the selected weights had before the reset."""
        write_weights(self.model, self.selection, self.originals)

    def num_changed(self) -> int:
        """Counts the selected weights whose value differs from that before the reset."""
        values = read_weights(self.model, self.selection)
        return sum(int((values[name] != original).sum()) for name, original in self.originals.items())


@dataclass(frozen=True)
class Resetter:
    """
    Resets selected weights of a model.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        reset_value (`str`):
            `"zero"`, `"init"` or `"pretrained"`; see [`reset_weights`]. Or `"natural"`, with `find_values`.
        pretrained_model (`str`, *optional*):
            The model before fine-tuning, for `"pretrained"`.
        seed (`int`, *optional*, defaults to `0`):
            Seed of a fresh initialisation.
        clock ([`PhaseClock`], *optional*):
            Times the resets.
        sources ([`ResetSources`], *optional*):
            Keeps the models that values are read from. By default nothing is shared with other resetters.
        find_values (`Callable`, *optional*):
            Called with a selection. Returns the new values of its weights, flat.
    """

    model: PreTrainedModel
    reset_value: str
    pretrained_model: str | PathLike[str] | None = None
    seed: int = 0
    clock: PhaseClock = field(default_factory=PhaseClock)
    sources: ResetSources = field(default_factory=ResetSources)
    find_values: Callable[[WeightSelection], Mapping[str, torch.Tensor]] | None = None

    def reset(self, selection: WeightSelection) -> Reset:
        """
        Resets the selected weights, and takes the digests of everything else.

        Args:
            selection ([`WeightSelection`]):
                The weights.

        Returns:
            [`Reset`]

        Raises:
            `ValueError`: If the weights have no such reset value; see [`reset_weights`]. Then nothing is changed.
        """
        with self.clock.phase("reset"):
            guard = FreezeGuard(self.model, selection)
            reset = Reset(self.model, selection, read_weights(self.model, selection), guard)
            self._reset(selection)
        self.sources.count_reset()
        return reset

    def try_reset(self, selection: WeightSelection, evaluate: Callable[[], T]) -> T | None:
        """
        Resets the selected weights, evaluates the model and undoes the reset. No bit of the model changes.

        Args:
            selection ([`WeightSelection`]):
                The weights.
            evaluate (`Callable`):
                Called while the weights are reset.

        Returns:
            The output of `evaluate`, or `None` if the weights have no such reset value.
        """
        originals = read_weights(self.model, selection)
        with restoring(self.model):
            try:
                self._reset(selection)
            except ValueError as error:
                # All selected weights may be in a new head, or unchanged by fine-tuning. The run can go on.
                logger.warning(f"The weights with a ratio above {selection.gamma:.4g} were not tried: {error}")
                return None
            else:
                return evaluate()
            finally:
                write_weights(self.model, selection, originals)

    def _reset(self, selection: WeightSelection) -> None:
        if self.find_values is not None:
            write_weights(self.model, selection, self.find_values(selection))
            return
        given = self.reset_value, self.pretrained_model, self.seed, self.sources
        write_weights(self.model, selection, reset_values(self.model, selection, *given))
