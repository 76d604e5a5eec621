# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""How fast does further training bring back what was forgotten?"""

import copy
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import nn

from ..batches import move_batch, split_labels
from ..heads import find_likelihood, prepare_batch
from ..likelihood import LogLikelihoodFunction
from ..modes import evaluation_mode, only_trainable
from ..repair import freeze_running_statistics


logger = logging.getLogger(__name__)

T = TypeVar("T")


def relearning_curve(
    model: nn.Module,
    names: Collection[str],
    batches: Iterable[Mapping[str, Any]],
    evaluate: Callable[[nn.Module], T],
    num_steps: int,
    learning_rate: float,
    log_likelihood_func: LogLikelihoodFunction | None = None,
) -> list[T]:
    """
    Fine-tunes a copy of a model by plain AdamW (no decay, schedule or clipping; the loss is the mean negative
    log-likelihood of a batch's examples) and evaluates it on the way. The model is left as it was.

    A model that has forgotten learns the data anew, as one that never saw them does; where they come back in fewer
    steps, they were hidden and not gone.

    Args:
        model (`torch.nn.Module`):
            The model, in one piece.
        names (`Collection[str]`):
            Names of the parameters to train. What layers keep as running statistics stays as it is.
        batches (`Iterable[dict[str, Any]]`):
            At least `num_steps` batches.
        evaluate (`Callable`):
            Called with the copy after every number of steps in [`evaluated_steps`].
        num_steps (`int`):
            Number of steps.
        learning_rate (`float`):
            The learning rate.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood, by default that of the model's head.

    Returns:
        `list`: What `evaluate` returned, in order; fewer items if the likelihoods ceased to be finite numbers.
    """
    model = copy.deepcopy(model)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    trained = [model.get_parameter(name) for name in names]
    # Half precision swallows small steps.
    masters = [parameter if parameter.itemsize >= 4 else parameter.detach().float() for parameter in trained]
    optimizer = torch.optim.AdamW(masters, lr=learning_rate, weight_decay=0.0)
    device, likelihood, curve = next(model.parameters()).device, None, [evaluate(model)]
    with only_trainable(model, trained):
        for step, batch in enumerate(islice(batches, num_steps), 1):
            model.train()
            freeze_running_statistics(model)
            batch = move_batch(prepare_batch(model, batch), device)
            if likelihood is None:
                likelihood = find_likelihood(model, batch, log_likelihood_func)
            inputs, labels = split_labels(batch)
            (-likelihood(inputs, model(**inputs), labels).mean()).backward()
            for master, parameter in zip(masters, trained, strict=True):
                master.grad = None if parameter.grad is None else parameter.grad.to(master.dtype)
            optimizer.step()
            model.zero_grad()
            with evaluation_mode(model), torch.no_grad():
                for master, parameter in zip(masters, trained, strict=True):
                    parameter.copy_(master)
                if step not in evaluated_steps(num_steps):
                    continue
                log_likelihood = likelihood(inputs, model(**inputs), labels)
            if not log_likelihood.isfinite().all():
                logger.warning(
                    f"After {step} steps of relearning the log-likelihoods are no finite numbers: the learning rate "
                    f"{learning_rate} is too high to measure it, and the curve ends before."
                )
                break
            curve.append(evaluate(model))
    return curve


def evaluated_steps(num_steps: int) -> tuple[int, ...]:
    """0, the powers of two below the last step, and the last step."""
    return (0, *(2**power for power in range(num_steps.bit_length()) if 2**power < num_steps), num_steps)
