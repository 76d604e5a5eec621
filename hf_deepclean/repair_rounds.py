# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Repairs again while the retained data are not back and a further round brings back more of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from transformers import EarlyStoppingCallback, TrainingArguments

from .evaluation.stages import AFTER_REPAIR, AFTER_RESET, BEFORE
from .repair.trainer import RepairTrainer
from .report.shortfalls import MAX_RETAIN_DROP, retained_knowledge
from .reset.weights import read_weights, write_weights
from .runtime.attributes import overridden
from .state.progress import RunProgress
from .state.run_state import RunState


# A natural reset that costs the retained data no more than this needs no repair.
_MAX_DROP_WITHOUT_REPAIR = 0.02


def repair_in_rounds(
    trainer: RepairTrainer,
    state: RunState,
    checkpoint: str | bool | None,
    evaluate: Callable[[str], None],
    max_rounds: int,
    is_natural: bool = False,
) -> None:
    """
    Repairs the reset of a trainer and evaluates the result, in one round or, if the retained data are not back, in
    several. A further round trains for as long as the first, from the weights that the last one left. A resumed run
    continues after the last round that was finished, and the first round at its last checkpoint.

    Args:
        trainer ([`RepairTrainer`]):
            The trainer. There is one round with `max_steps`, and if evaluations meanwhile choose its end:
            `load_best_model_at_end` or an early stop.
        state ([`RunState`]):
            The state of the run.
        checkpoint (`str` or `bool`, *optional*):
            As `resume_from_checkpoint` of [`~transformers.Trainer`].
        evaluate (`Callable`):
            Called with the name of a stage. Evaluates the model, or takes the result from the state.
        max_rounds (`int`):
            At most this many rounds, those that the budget leaves room for.
        is_natural (`bool`, *optional*, defaults to `False`):
            Whether the reset was natural. Then there is a repair only if the reset cost the retained data anything, or
            with `max_steps`.
    """
    if is_natural and trainer.args.max_steps <= 0 and not _is_damaged(state.progress):
        trainer.reset.guard.verify(trainer.model)
        state.progress.stages[AFTER_REPAIR] = state.progress.stages[AFTER_RESET]
        evaluate(AFTER_REPAIR)
        return
    reset, progress = trainer.reset, state.progress
    repaired, num_rounds = state.load_repaired()
    if repaired is not None:
        write_weights(reset.model, reset.selection, repaired)
        reset.guard.verify(reset.model)
    while True:
        if repaired is None:
            _train(trainer, state, checkpoint, is_first=num_rounds == 0)
            num_rounds += 1
            state.save_repaired(read_weights(reset.model, reset.selection), num_rounds)
        repaired = None
        if len(progress.retained_by_round) < num_rounds:
            # That of an earlier round.
            progress.stages.pop(AFTER_REPAIR, None)
        evaluate(AFTER_REPAIR)
        if len(progress.retained_by_round) < num_rounds:
            after = retained_knowledge(progress.stages[BEFORE], progress.stages[AFTER_REPAIR])[2]
            progress.retained_by_round += (after,)
            state.save()
        if not _needs_another_round(trainer, progress, max_rounds):
            return


def at_repair_rate(args: TrainingArguments, reset_value: str) -> AbstractContextManager[None]:
    """
    Sets the learning rate of a repair inside a block. After a natural reset it is a fifth of that in the arguments,
    since half of all weights are trained, not a few.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The arguments of the repair.
        reset_value (`str`):
            The reset value of the run.
    """
    return overridden(args, learning_rate=args.learning_rate / (5 if reset_value == "natural" else 1))


def _is_damaged(progress: RunProgress) -> bool:
    _, before, now = retained_knowledge(progress.stages[BEFORE], progress.stages[AFTER_RESET])
    return before - now > _MAX_DROP_WITHOUT_REPAIR


def _train(trainer: RepairTrainer, state: RunState, checkpoint: str | bool | None, *, is_first: bool) -> None:
    if is_first:
        trainer.train(state.last_checkpoint() if checkpoint is True else checkpoint)
        return
    args = {"save_strategy": "no", "eval_strategy": "no"}
    with ExitStack() as stack:
        # A checkpoint would be taken for one of the first round.
        stack.enter_context(overridden(trainer.args, **args))
        stack.enter_context(overridden(trainer, saves_when_interrupted=False))
        trainer.train()


def _needs_another_round(trainer: RepairTrainer, progress: RunProgress, max_rounds: int) -> bool:
    args, done = trainer.args, progress.retained_by_round
    if args.max_steps > 0 or args.num_train_epochs <= 0 or len(done) >= max_rounds:
        return False
    if args.load_best_model_at_end or _stops_early(trainer):
        return False
    _, before, now = retained_knowledge(progress.stages[BEFORE], progress.stages[AFTER_REPAIR])
    return before - now > MAX_RETAIN_DROP and (len(done) == 1 or now > done[-2])


def _stops_early(trainer: RepairTrainer) -> bool:
    return any(isinstance(callback, EarlyStoppingCallback) for callback in trainer.callback_handler.callbacks)
