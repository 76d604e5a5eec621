# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds and makes the callbacks of a repair."""

from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS, DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback

from ..runtime.interruption import Interruption
from ..runtime.processes import gather_objects


class StopWhenAsked(TrainerCallback):
    """Ends a repair after the current step if one of the processes was asked to stop."""

    def __init__(self, interruption: Interruption, saves: bool) -> None:
        self.interruption = interruption
        self.saves = saves

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.interruption.share(gather_objects)
        if self.interruption.signal is not None:
            control.should_training_stop = True
            control.should_save = self.saves


_DEFAULT = (*DEFAULT_CALLBACKS, DEFAULT_PROGRESS_CALLBACK, PrinterCallback)


def callbacks_of_caller(trainer: Trainer) -> list[TrainerCallback]:
    """
    Returns the callbacks of a trainer without the default callbacks of [`~transformers.Trainer`].

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer.
    """
    return [callback for callback in trainer.callback_handler.callbacks if not isinstance(callback, _DEFAULT)]


def default_callbacks(trainer: Trainer) -> list[TrainerCallback]:
    """
    Returns those of the default callbacks of [`~transformers.Trainer`] that a trainer still has.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer.
    """
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, _DEFAULT)]
