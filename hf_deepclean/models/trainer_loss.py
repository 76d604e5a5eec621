# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds out whether a trainer trains the likelihood of its model's head, or a loss of its own."""

from typing import Any

from transformers import Trainer
from transformers.trainer_pt_utils import LabelSmoother

from .likelihood import LogLikelihoodFunction


# The losses of TRL's `SFTTrainer` that are the negative log-likelihood. Earlier versions have no other and no name.
_LIKELIHOODS_OF_TRL = (None, "nll", "chunked_nll")


def check_trainer_loss(trainer: Trainer, log_likelihood_func: LogLikelihoodFunction | None) -> None:
    """
    Refuses a trainer with a loss of its own, unless the likelihood that belongs to it is given. The repair would train
    the likelihood of the model's head instead.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer that trains or trained the model.
        log_likelihood_func (`Callable`, *optional*):
            The likelihood that belongs to its loss.

    Raises:
        `ValueError`: If the trainer has a `compute_loss_func`, overrides `compute_loss` or smooths labels in a way of
            its own, and there is no `log_likelihood_func`. TRL's `SFTTrainer` may have its plain losses.
    """
    loss = None if log_likelihood_func is not None else _describe_own_loss(trainer)
    if loss is not None:
        raise ValueError(
            f"This {type(trainer).__name__} {loss}, a mean over a batch, from which no per-example Fisher information "
            "can be computed. The repair would train another loss. Pass the `log_likelihood_func(outputs, labels)` "
            "whose negative mean it is, with one log-likelihood per example. With class weights it is `lambda "
            "outputs, labels: weights.to(labels.device)[labels] * "
            "hf_deepclean.classification_log_likelihood(outputs, labels)`; divide the weights by their mean over the "
            "training rows before, as `cross_entropy` does in every batch. If the loss is that of the head after all, "
            "pass `hf_deepclean.classification_log_likelihood` itself, or `token_log_likelihood`, "
            "`next_token_log_likelihood` or `span_log_likelihood`."
        )


def is_library_method(trainer: Trainer, name: str) -> bool:
    """
    Whether a method of a trainer is that of transformers or TRL, and not one that a caller wrote.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer.
        name (`str`):
            Name of the method.
    """
    return _module_of(getattr(trainer, name)).split(".")[0] in ("transformers", "trl")


def _describe_own_loss(trainer: Trainer) -> str | None:
    """How the loss differs from that of the model's head, to follow the name of the trainer. `None` if it does not."""
    loss_type = getattr(trainer.args, "loss_type", None)
    module = _module_of(trainer.compute_loss)
    is_supervised = module == "trl.trainer.sft_trainer"
    if is_supervised and loss_type not in _LIKELIHOODS_OF_TRL:
        return f"has the loss `loss_type={loss_type!r}`"
    if trainer.compute_loss_func is not None:
        return "has a `compute_loss_func`"
    if module.split(".")[0] != "transformers" and not is_supervised:
        return "overrides `compute_loss`"
    if not isinstance(trainer.label_smoother, (LabelSmoother, type(None))):
        return f"has the `label_smoother` {type(trainer.label_smoother).__name__}"
    return None


def _module_of(method: Any) -> str:
    """The module that defines a method, wherever in the classes, or on the object itself."""
    return getattr(getattr(method, "__func__", method), "__module__", None) or ""
