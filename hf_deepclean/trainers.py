# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reads what an existing Trainer states, and refuses what the unlearning of its model cannot honour."""

from typing import Any

from transformers import Trainer

from .config import FisherUnlearningConfig
from .fisher.callback import FisherCallback
from .models.checks import check_loss
from .models.likelihood import LogLikelihoodFunction
from .repair.callbacks import callbacks_of_caller


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
    check_loss(trainer.compute_loss_func, log_likelihood_func)
    return {
        "model": trainer.accelerator.unwrap_model(trainer.model),
        "args": FisherUnlearningConfig.beside_training(trainer.args, **config_overrides),
        "data_collator": trainer.data_collator,
        "eval_dataset": trainer.eval_dataset,
        "processing_class": trainer.processing_class,
        "log_likelihood_func": log_likelihood_func,
        "compute_metrics": trainer.compute_metrics,
        "callbacks": [c for c in callbacks_of_caller(trainer) if not isinstance(c, FisherCallback)],
        "preprocess_logits_for_metrics": trainer.preprocess_logits_for_metrics,
    }
