# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tries the passes of a run on a batch, and finds what they write."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..evaluation.evaluator import Evaluator
from ..evaluation.predictions import ExamplePredictions, predict_batches
from ..models.contexts import checkpointing_activations, only_trainable
from ..models.module_state import ModuleState
from ..repair.trainer import RepairTrainer
from ..runtime.attributes import overridden
from ..runtime.sharded_models import named_parameters
from ..runtime.shards import is_sharded, local_part


_MODES = {False: "evaluation", True: "training"}


def try_evaluation(evaluator: Evaluator, model: nn.Module, batch: Mapping[str, Any]) -> ExamplePredictions:
    """
    Evaluates a model on a batch as a run does: in eval mode, with the check of its likelihood, which is the strictest
    in the model's own precision.

    Args:
        evaluator ([`Evaluator`]):
            The evaluator of the run.
        model ([`~transformers.PreTrainedModel`]):
            The model.
        batch (`dict[str, Any]`):
            The batch, as collated.
    """
    keep_logits = evaluator.compute_metrics is not None
    return next(
        predict_batches(model, [batch], evaluator.log_likelihood_func, evaluator.preprocess_logits, keep_logits)
    )


def try_repair_step(trainer: RepairTrainer, parameters: Mapping[str, nn.Parameter], batch: Mapping[str, Any]) -> None:
    """
    Computes loss and gradients of a batch as a step of the repair does: in training mode, in its precision, with its
    loss. The gradients are left on the parameters; no weight moves.

    Args:
        trainer ([`RepairTrainer`]):
            The trainer of the repair.
        parameters (`dict[str, torch.nn.Parameter]`):
            The parameters in scope.
        batch (`dict[str, Any]`):
            The batch, as collated.
    """
    model, args, config = trainer.model, trainer.args, trainer.model.config
    trainer.current_gradient_accumulation_steps = 1
    (batch,), num_items = trainer.get_batch_samples(iter([batch]), 1, args.device)
    with (
        overridden(config, **({"use_cache": False} if hasattr(config, "use_cache") else {})),
        only_trainable(model, list(parameters.values())),
        checkpointing_activations(model, args),
    ):
        model.train()
        with trainer.compute_loss_context_manager(), trainer.accelerator.autocast():
            loss = trainer.compute_loss(model, trainer._prepare_inputs(batch), num_items_in_batch=num_items)
        loss.backward()


def check_buffers(model: nn.Module, before: ModuleState, *, training: bool) -> None:
    """
    Refuses a model whose forward pass writes buffers that are saved with it. The run verifies that no buffer changes,
    and would fail at its end. Other buffers are put back after every phase.

    Args:
        model (`torch.nn.Module`):
            The model, after the pass.
        before ([`ModuleState`]):
            Its state before the pass.
        training (`bool`):
            Whether the pass was in training mode.

    Raises:
        `ValueError`: If there is such a buffer. Names them.
    """
    written = [name for name, is_saved in before.changed_buffers() if is_saved]
    if not written:
        return
    mode, remedy = _MODES[training], "Let its layer write it in training mode only"
    if training:
        remedy = "Keep its layer in eval mode, as the repair does with batch normalisation (let its `train` call "
        remedy += "`super().train(False)`)"
    raise ValueError(
        f"A forward pass of this {type(model).__name__} in {mode} mode writes {_listed(written, 'buffer')}. "
        "It is saved with the model, and the run must leave everything outside the selected weights as it is. "
        f"{remedy}, or, if every forward pass computes it anew, register it with `persistent=False`."
    )


def check_weights(model: nn.Module, before: Mapping[str, float]) -> None:
    """
    Refuses a model whose own passes write its parameters.

    Args:
        model (`torch.nn.Module`):
            The model, after the passes.
        before (`dict[str, float]`):
            Its [`sums_of_weights`] before the passes.

    Raises:
        `ValueError`: If there is such a parameter. Names them.
    """
    after = sums_of_weights(model)
    written = [name for name in before if str(before[name]) != str(after.get(name))]
    if written:
        raise ValueError(
            f"A forward pass of this {type(model).__name__} writes {_listed(written, 'parameter')}, and has changed "
            "the model that was passed. The run must leave everything outside the selected weights as it is. Compute "
            "the new values without storing them, for example normalise a copy."
        )


@torch.no_grad()
def sums_of_weights(model: nn.Module) -> dict[str, float]:
    """
    Returns the sum of every parameter, which tells whether something has written it.

    Args:
        model (`torch.nn.Module`):
            The model. Of a sharded one, the sums are those of this process's shards.
    """
    return {
        name: float((local_part(weight)[0] if is_sharded(weight) else weight.detach()).sum(dtype=torch.float32))
        for name, weight in named_parameters(model).items()
    }


def _listed(names: list[str], kind: str) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"the {kind}{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"
