# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""How fast does further training bring back what was forgotten?"""

import copy
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import nn

from ..data.batches import move_batch, split_labels
from ..models.contexts import evaluation_mode, freeze_running_statistics, only_trainable
from ..models.heads import find_likelihood, prepare_batch
from ..models.likelihood import LogLikelihoodFunction


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


def relearning_excess(curve: Sequence[float], reference_curve: Sequence[float]) -> float:
    """
    How much more a model relearns than the reference: the largest `(curve[k] - curve[0]) - (reference[k] -
    reference[0])` over the evaluated steps.

    0: at no step has it come up further than the reference; lower is better. In the unit of the curves, which must
    rise with what is recalled: accuracies, or negative losses. Training on retained data alone raises the forget
    accuracy of a retrained model hardly, and of many unlearned ones almost back to where it was
    ([abs](https://huggingface.co/papers/2505.22310)); training on a few forgotten examples raises both. A model that
    starts far below the reference has further to go and so shows more of it; a curve that goes down further than the
    reference's shows nothing here. The steps and the learning rate decide how much is seen: state them.

    Args:
        curve (`Sequence[float]`):
            The measure on the forget data after every number of steps in [`evaluated_steps`], as of
            [`relearning_curve`].
        reference_curve (`Sequence[float]`):
            The same of a model retrained without them, by the same batches. Where training diverged, and one of the
            two ends early, the steps that both have count.

    Returns:
        `float`: At least 0.

    Raises:
        `ValueError`: If one of the two is empty or holds a NaN.
    """
    _check_curve(curve)
    _check_curve(reference_curve)
    moved = ([value - one[0] for value in one] for one in (curve, reference_curve))
    return float(max(own - other for own, other in zip(*moved, strict=False)))


def steps_to_reach(curve: Sequence[float], steps: Sequence[int], level: float) -> int | None:
    """
    Relearning time: the first evaluated number of steps after which a curve is at or above a level.

    The more the better; the target is the value of the reference. In truth it lies between the evaluated step before
    and this one, which is up to twice as far. Levels above what the reference ever reaches say nothing about the
    forgetting.

    Golatkar et al., [Eternal sunshine of the spotless net](https://huggingface.co/papers/1911.04933).

    Args:
        curve (`Sequence[float]`):
            A measure that rises with what is recalled, as of [`relearning_curve`].
        steps (`Sequence[int]`):
            The numbers of steps after which it was taken, as of [`evaluated_steps`]; may go on where the curve ended
            early.
        level (`float`):
            The level, such as the accuracy before unlearning.

    Returns:
        `int`: The number of steps, 0 if it starts there; `None` if it is never reached.

    Raises:
        `ValueError`: If the curve is empty, holds a NaN or has more values than there are steps.
    """
    _check_curve(curve)
    if len(curve) > len(steps):
        raise ValueError(f"A curve of {len(curve)} values was taken after as many numbers of steps, not {len(steps)}.")
    return next((int(step) for step, value in zip(steps, curve, strict=False) if value >= level), None)


def _check_curve(curve: Sequence[float]) -> None:
    if len(curve) == 0 or any(value != value for value in curve):
        raise ValueError(
            f"A relearning curve has a number for every evaluated step, the first before any training, but this one "
            f"is {list(curve)}."
        )
