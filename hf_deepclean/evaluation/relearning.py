# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures how fast further training brings forgotten data back."""

import copy
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import nn

from ..data.batches import move_batch, split_labels
from ..models.contexts import evaluation_mode, freeze_running_statistics, only_trainable, with_gradients
from ..models.heads import find_likelihood, prepare_batch
from ..models.likelihood import LogLikelihoodFunction


logger = logging.getLogger(__name__)

T = TypeVar("T")


@with_gradients
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
    Fine-tunes a copy of a model by plain AdamW, and evaluates the copy on the way. The model does not change.

    There is no weight decay, schedule or clipping. The loss is the mean negative log-likelihood of the examples of a
    batch. A model that has forgotten the data learns them anew, like a model that never saw them. If the data come
    back in fewer steps, they were hidden, not gone.

    Args:
        model (`torch.nn.Module`):
            The model. It must not be sharded.
        names (`Collection[str]`):
            Names of the parameters to train. Running statistics of layers are not updated.
        batches (`Iterable[dict[str, Any]]`):
            At least `num_steps` batches of model inputs with labels.
        evaluate (`Callable`):
            Called with the copy after every number of steps in [`evaluated_steps`].
        num_steps (`int`):
            Number of training steps.
        learning_rate (`float`):
            The learning rate.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood. By default that of the model's head.

    Returns:
        `list`: The outputs of `evaluate`, in order. There are fewer if the log-likelihoods stopped being finite.
    """
    model = copy.deepcopy(model)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    trained = [model.get_parameter(name) for name in names]
    # In half precision small steps would be rounded away.
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
                    f"After {step} steps of relearning the log-likelihoods are not finite, and the curve ends before: "
                    f"the learning rate {learning_rate} is too high. Lower it."
                )
                break
            curve.append(evaluate(model))
    return curve


def evaluated_steps(num_steps: int) -> tuple[int, ...]:
    """Returns the numbers of steps to evaluate after: 0, the powers of two below `num_steps`, and `num_steps`."""
    return (0, *(2**power for power in range(num_steps.bit_length()) if 2**power < num_steps), num_steps)


def relearning_excess(curve: Sequence[float], reference_curve: Sequence[float]) -> float:
    """
    Computes how much more a model relearns than the reference: the largest `(curve[k] - curve[0]) - (reference[k] -
    reference[0])` over the evaluated steps.

    Lower is better. At 0 the model never rises further than the reference. The curves must rise with what the model
    recalls, such as accuracies or negative losses, and the excess has their unit. Training on retain data alone hardly
    raises the forget accuracy of a retrained model, but raises that of many unlearned models almost back to where it
    was ([abs](https://huggingface.co/papers/2505.22310)). Training on a few forget examples raises both. A model that
    starts far below the reference has more room to rise, and shows more excess. If the curve falls further than the
    reference's, the excess is 0. State the steps and the learning rate, because the excess depends on them.

    Args:
        curve (`Sequence[float]`):
            The measure on the forget data after every number of steps in [`evaluated_steps`], as returned by
            [`relearning_curve`].
        reference_curve (`Sequence[float]`):
            The same for a model retrained without the forget data, trained on the same batches. If a training diverged
            and its curve is shorter, only the steps of both curves count.

    Returns:
        `float`: At least 0, in the unit of the curves.

    Raises:
        `ValueError`: If a curve is empty or holds a NaN.
    """
    _check_curve(curve)
    _check_curve(reference_curve)
    moved = ([value - one[0] for value in one] for one in (curve, reference_curve))
    return float(max(own - other for own, other in zip(*moved, strict=False)))


def steps_to_reach(curve: Sequence[float], steps: Sequence[int], level: float) -> int | None:
    """
    Computes the relearning time: the first evaluated number of steps after which a curve is at or above a level.

    Higher is better, and the target is the reference's value. The exact number lies between the evaluated step before
    and this step, which is up to twice as far. A level that the reference never reaches says nothing about the
    forgetting.

    Golatkar et al., [Eternal sunshine of the spotless net](https://huggingface.co/papers/1911.04933).

    Args:
        curve (`Sequence[float]`):
            A measure that rises with what the model recalls, as returned by [`relearning_curve`].
        steps (`Sequence[int]`):
            The numbers of steps after which the measure was taken, as returned by [`evaluated_steps`]. There may be
            more of them than values if the curve ended early.
        level (`float`):
            The level, such as the accuracy before unlearning.

    Returns:
        `int`: The number of steps, 0 if the curve starts at the level, or `None` if it never reaches the level.

    Raises:
        `ValueError`: If the curve is empty, holds a NaN or has more values than there are steps.
    """
    _check_curve(curve)
    if len(curve) > len(steps):
        raise ValueError(f"A curve of {len(curve)} values needs as many numbers of steps, but there are {len(steps)}.")
    return next((int(step) for step, value in zip(steps, curve, strict=False) if value >= level), None)


def _check_curve(curve: Sequence[float]) -> None:
    if len(curve) == 0 or any(value != value for value in curve):
        raise ValueError(
            f"A relearning curve has a number for every evaluated step, the first before any training, but this curve "
            f"is {list(curve)}."
        )
