# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the control of every claim: a random selection of the same size, reset and repaired in the same way."""

from collections.abc import Callable

from ..evaluation.stages import CONTROL_AFTER_REPAIR, CONTROL_AFTER_RESET
from ..reset.resetter import Reset, Resetter
from ..reset.weights import read_weights, write_weights
from ..selection.weight_selection import select_random_weights
from .trainer import RepairTrainer


def run_control(
    trainer: RepairTrainer, resetter: Resetter, reset: Reset, evaluate: Callable[[str], None], num_rounds: int = 1
) -> None:
    """
    Resets and repairs a random selection of the same size, starting from the model before the reset. Afterwards the
    model is the cleaned one again.

    Args:
        trainer ([`RepairTrainer`]):
            The trainer of the repair. Its sibling repairs the control.
        resetter ([`Resetter`]):
            Resets the random weights.
        reset ([`Reset`]):
            The reset that was repaired.
        evaluate (`Callable`):
            Called with the name of the stage, after the reset and after the repair.
        num_rounds (`int`, *optional*, defaults to `1`):
            Number of rounds of the repair.
    """
    cleaned, control = read_weights(reset.model, reset.selection), None
    reset.undo()
    try:
        control = resetter.reset(select_random_weights(reset.selection, trainer.args.seed))
        evaluate(CONTROL_AFTER_RESET)
        sibling = trainer.sibling(control)
        for _ in range(num_rounds):
            sibling.train()
        evaluate(CONTROL_AFTER_REPAIR)
    finally:
        if control is not None:
            control.undo()
        write_weights(reset.model, reset.selection, cleaned)
    reset.guard.verify(reset.model)
