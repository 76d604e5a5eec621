# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reads what an existing Trainer states, and refuses what the unlearning of its model cannot honour."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from .config import FisherUnlearningConfig
from .data.streams import is_stream
from .fisher.callback import FisherCallback
from .models.likelihood import LogLikelihoodFunction
from .models.trainer_loss import check_trainer_loss, is_library_method
from .repair.callbacks import callbacks_of_caller
from .repair.plan import num_repair_steps
from .runtime.processes import is_main_process


logger = logging.getLogger(__name__)

# The methods of a Trainer that decide what is trained, besides its loss.
_TRAINING_METHODS = ("training_step", "get_train_dataloader", "_get_train_sampler", "get_batch_samples")
# Those that decide what `compute_metrics` gets.
_EVALUATION_METHODS = ("evaluate", "evaluation_loop", "prediction_step")


def read_trainer(
    trainer: Trainer, log_likelihood_func: LogLikelihoodFunction | None, **config_overrides: Any
) -> dict[str, Any]:
    """
    Reads from a trainer what [`FisherUnlearner`] needs besides the data sets of the request.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer that trained the model.
        log_likelihood_func (`Callable`, *optional*):
            The likelihood that belongs to a loss of the trainer's own.
        config_overrides:
            Fields of [`FisherUnlearningConfig`].

    Returns:
        `dict[str, Any]`: Arguments of [`FisherUnlearner`].

    Raises:
        `ValueError`: If the trainer has a loss of its own and there is no `log_likelihood_func` for it.
    """
    check_trainer_loss(trainer, log_likelihood_func)
    if log_likelihood_func is None:
        _warn_of_own_training(trainer)
    args = FisherUnlearningConfig.beside_training(trainer.args, **config_overrides)
    if "training_steps" not in config_overrides:
        args.training_steps = _steps_of_training(trainer, args)
    # Early stopping needs the evaluations of the training.
    left_out = (FisherCallback, EarlyStoppingCallback) if args.eval_strategy == "no" else FisherCallback
    return {
        "model": trainer.accelerator.unwrap_model(trainer.model),
        "args": args,
        "data_collator": trainer.data_collator,
        "eval_dataset": trainer.eval_dataset,
        "processing_class": trainer.processing_class,
        "log_likelihood_func": log_likelihood_func,
        "callbacks": [c for c in callbacks_of_caller(trainer) if not isinstance(c, left_out)],
        **_metrics_of(trainer),
        # Without a trial of a search, as for a training.
        **({} if trainer.model_init is None else {"model_init": trainer.call_model_init}),
    }


def _steps_of_training(trainer: Trainer, args: FisherUnlearningConfig) -> int | None:
    """The steps of a training, in steps of as many rows as those of the repair. `None` if they are unknown."""
    steps, dataset, trained = trainer.state.global_step, trainer.train_dataset, trainer.args
    if steps == 0 and (trained.max_steps > 0 or dataset is not None and not is_stream(dataset)):
        steps = num_repair_steps(trained, dataset)
    rows, rows_now = (one.train_batch_size * one.gradient_accumulation_steps for one in (trained, args))
    return math.ceil(steps * rows / rows_now) or None


def check_metrics_arguments(args: TrainingArguments, compute_metrics: Callable[..., Any] | None) -> None:
    """
    Refuses metrics that were written for more than the logits and labels that evaluations here give them.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The arguments of the run.
        compute_metrics (`Callable`, *optional*):
            The metrics.

    Raises:
        `ValueError`: If the arguments ask for generated text, inputs or losses for the metrics.
    """
    needed = None if compute_metrics is None else _needs_of_metrics(args)
    if needed is not None:
        raise ValueError(
            f"`compute_metrics` gets logits and labels here, but {needed}. Pass metrics of logits and labels without "
            "this argument, or none, and compute the others on the cleaned model with your own Trainer."
        )


def _needs_of_metrics(args: TrainingArguments) -> str | None:
    if getattr(args, "predict_with_generate", False):
        return "`predict_with_generate=True` is for metrics of generated tokens"
    if included := list(getattr(args, "include_for_metrics", None) or []):
        return f"`include_for_metrics={included}` is for metrics of these too"
    return None


def _metrics_of(trainer: Trainer) -> Mapping[str, Any]:
    """The metrics of a trainer, or none with a warning if an evaluation here would not give them what they need."""
    functions = {name: getattr(trainer, name) for name in ("compute_metrics", "preprocess_logits_for_metrics")}
    if trainer.compute_metrics is None:
        return functions
    needed = _needs_of_metrics(trainer.args)
    if own := [f"`{name}`" for name in _EVALUATION_METHODS if not is_library_method(trainer, name)]:
        needed = f"this {type(trainer).__name__} overrides {' and '.join(own)}"
    if needed is None:
        return functions
    if is_main_process():
        logger.warning(
            f"`compute_metrics` of the trainer is left out: it would get logits and labels here, but {needed}. "
            "Evaluate the cleaned model with the trainer, or set `unlearner.compute_metrics` to metrics of logits."
        )
    return dict.fromkeys(functions)


def _warn_of_own_training(trainer: Trainer) -> None:
    own = [f"`{name}`" for name in _TRAINING_METHODS if not is_library_method(trainer, name)]
    if own and is_main_process():
        logger.warning(
            f"{type(trainer).__name__} overrides {' and '.join(own)}, which the repair does not call: it trains the "
            "likelihood of the model's head on every retain row once per epoch. If this leaves out something that the "
            "model was trained for, such as the weights of rare classes, pass a `log_likelihood_func` with it, or use "
            "a subclass of `FisherUnlearner` with the same methods."
        )
