# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Training, for the baselines that train: settings, loss, optimizers and loop."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import nn

from ..data.batches import IGNORED
from ..data.loaders import seed_of_batch
from ..models.contexts import evaluation_mode, freeze_running_statistics, only_trainable, with_gradients
from ..models.likelihood import TOKEN_KINDS, Likelihood
from ..repair.optimizer import SparseAdamW
from ..runtime.choices import check_choice
from ..runtime.random_state import all_seeded
from ..selection.weight_selection import WeightSelection
from .data import UnlearningData
from .method import UnlearningMethod
from .scoring import Scorer
from .sparse_sgd import SparseSGD


OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine")

_MOMENTUM = 0.9
_MAX_GRAD_NORM = 1.0

_DIVERGED = (
    "The training has diverged, and the weights have already changed: reload the model, and lower `learning_rate` or "
    "`num_train_epochs`."
)

# From the likelihood, the outputs and the labels of a batch to other labels.
Relabel = Callable[[Likelihood, Any, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TrainingMethod(UnlearningMethod):
    """
    The settings that all baselines that train have in common.

    Parameters that require gradients are trained in training mode, so with dropout. Layers with running statistics
    stay in eval mode, so that no buffer changes; public code updates them.

    Args:
        learning_rate (`float`):
            The learning rate.
        num_train_epochs (`float`):
            Number of passes over the training data; the last pass may be partial, and 0 trains nothing.
        per_device_train_batch_size (`int`):
            Number of examples in a step.
        optimizer (`str`):
            `"sgd"`, with momentum 0.9, or `"adamw"`, with gradients clipped at norm 1.
        weight_decay (`float`):
            Decay of the trained weights: added to the gradient with `"sgd"`, decoupled with `"adamw"`.
        schedule (`str`):
            `"constant"`, or `"cosine"` for a cosine decay of the learning rate to 0.

    Raises:
        `ValueError`: If a setting is out of range.
    """

    learning_rate: float = 0.01
    num_train_epochs: float = 10
    per_device_train_batch_size: int = 64
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    schedule: str = "constant"

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"`learning_rate` is {self.learning_rate} but must be a finite number above 0.")
        if not 0 <= self.num_train_epochs < math.inf:
            raise ValueError(
                f"`num_train_epochs` is {self.num_train_epochs} but must be a finite number of passes, at least 0."
            )
        if not self.per_device_train_batch_size >= 1:
            raise ValueError(
                f"`per_device_train_batch_size` is {self.per_device_train_batch_size} but a step needs at least 1 "
                "example."
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"`weight_decay` is {self.weight_decay} but must be a finite number, at least 0.")
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            check_choice(name, getattr(self, name), allowed)

    def num_steps(self, num_examples: int) -> int:
        """Number of steps of `num_train_epochs` passes over `num_examples` examples."""
        return math.ceil(self.num_train_epochs * math.ceil(num_examples / self.per_device_train_batch_size))


class BatchLoss:
    """
    The negative log-likelihood of batches under the model's head, or under the caller's likelihood.

    Args:
        model (`torch.nn.Module`):
            The model.
        data ([`UnlearningData`]):
            Holds the caller's likelihood, if there is one.
    """

    def __init__(self, model: nn.Module, data: UnlearningData) -> None:
        self.model = model
        self._scorer = Scorer(model, data.log_likelihood_func)

    def mean(self, batch: Mapping[str, Any], relabel: Relabel | None = None) -> torch.Tensor:
        """
        Mean loss over the examples of a batch, or over its scored tokens if the labels are those of tokens.

        Args:
            batch (`dict[str, Any]`):
                Model inputs and labels, as collated.
            relabel (`Callable`, *optional*):
                Returns other labels to score. The inputs of the model stay as they are.
        """
        total, num_scored = self._total(batch, relabel)
        return total / num_scored

    def sum(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Summed loss over the examples of a batch and their tokens."""
        return self._total(batch, None)[0]

    def _total(self, batch: Mapping[str, Any], relabel: Relabel | None) -> tuple[torch.Tensor, int | torch.Tensor]:
        likelihood, inputs, labels = self._scorer(batch)
        outputs = self.model(**inputs)
        if relabel is not None:
            labels = relabel(likelihood, outputs, labels)
        total = -likelihood(inputs, outputs, labels).sum()
        if likelihood.kind not in TOKEN_KINDS:
            return total, len(labels)
        targets = likelihood.targets(inputs, outputs, labels)[1]
        return total, (targets != IGNORED).sum().clamp_min(1)


@with_gradients
def train(
    model: nn.Module,
    method: TrainingMethod,
    losses: Iterable[torch.Tensor],
    num_steps: int,
    seed: int,
    selection: WeightSelection | None = None,
) -> None:
    """
    Trains a model in place, one step per loss.

    Parameters in half precision are trained in a float32 copy, because half precision rounds small steps away.

    Args:
        model (`torch.nn.Module`):
            The model. Its modes, `requires_grad` flags and buffers are left as they were; its gradients are `None`.
        method ([`TrainingMethod`]):
            The settings.
        losses (`Iterable[torch.Tensor]`):
            An iterator that computes the loss of the next step.
        num_steps (`int`):
            Number of steps.
        seed (`int`):
            Seed of dropout; the global random states are left as they were.
        selection ([`WeightSelection`], *optional*):
            The weights to train; other weights are never written. By default all weights that require gradients.

    Raises:
        `ValueError`: If no weight can be trained.
        `FloatingPointError`: If a loss, or a trained weight at the end, is not finite.
    """
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (selection is None or name in selection.indices)
    }
    if not trained:
        raise ValueError(
            f"No parameter of this {type(model).__name__} that may be trained requires gradients. Unfreeze some with "
            "`requires_grad_(True)`; load the adapter of a `PeftModel` with `is_trainable=True`."
        )
    masters = {n: p if p.itemsize >= 4 else p.detach().float() for n, p in trained.items()}
    halves = [(masters[name], parameter) for name, parameter in trained.items() if parameter.itemsize < 4]
    optimizer = _make_optimizer(method, masters, selection)
    # SparseAdamW clips the gradients of the selected weights itself.
    clipped = list(masters.values()) if method.optimizer == "adamw" and selection is None else []
    with only_trainable(model, list(trained.values())), _training_mode(model, seed):
        for step, loss in zip(range(num_steps), losses, strict=False):
            if not loss.isfinite():
                raise FloatingPointError(f"The loss of step {step + 1} of {num_steps} is {loss.item()}. {_DIVERGED}")
            loss.backward()
            for master, parameter in halves:
                master.grad = None if parameter.grad is None else parameter.grad.float()
            if clipped:
                nn.utils.clip_grad_norm_(clipped, _MAX_GRAD_NORM)
            if method.schedule == "cosine":
                for group in optimizer.param_groups:
                    group["lr"] = method.learning_rate * (1 + math.cos(math.pi * step / num_steps)) / 2
            optimizer.step()
            with torch.no_grad():
                for master, parameter in halves:
                    parameter.copy_(master)
            for parameter in trained.values():
                parameter.grad = None
    if not all(parameter.isfinite().all() for parameter in trained.values()):
        raise FloatingPointError(f"After {num_steps} steps some weights are not finite. {_DIVERGED}")


def train_on_retain_data(
    model: nn.Module, method: TrainingMethod, data: UnlearningData, seed: int, selection: WeightSelection | None = None
) -> None:
    """
    Trains a model in place on the retain data alone, with the mean loss of [`BatchLoss`].

    Args:
        model, method, seed, selection:
            As for [`train`].
        data ([`UnlearningData`]):
            The data.
    """
    check_not_empty(data, "retain")
    losses = map(BatchLoss(model, data).mean, shuffled_batches(data, "retain", method, seed))
    train(model, method, losses, method.num_steps(data.num_examples("retain")), seed, selection)


def shuffled_batches(
    data: UnlearningData, split: str, method: TrainingMethod, seed: int
) -> Iterator[Mapping[str, Any]]:
    """Yields batches of a split without end, every pass in another order."""
    check_not_empty(data, split)
    for epoch in count():
        yield from data.batches(split, method.per_device_train_batch_size, seed_of_batch(seed, epoch))


def check_not_empty(data: UnlearningData, *splits: str) -> None:
    """Raises if a split that a method needs is empty."""
    for split in splits:
        if data.num_examples(split) == 0:
            raise ValueError(
                f"The {split} data are empty, but this method trains on them. Pass a `{split}_dataset` with examples."
            )


def _make_optimizer(
    method: TrainingMethod, parameters: Mapping[str, torch.Tensor], selection: WeightSelection | None
) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": method.learning_rate, "weight_decay": method.weight_decay}
    if selection is not None and method.optimizer == "sgd":
        return SparseSGD(parameters.items(), selection.indices, momentum=_MOMENTUM, **common)
    if selection is not None:
        return SparseAdamW(parameters.items(), selection.indices, max_grad_norm=_MAX_GRAD_NORM, **common)
    # Fused optimizers launch fewer kernels, which is most of the time of an update of a small model.
    if method.optimizer == "sgd":
        return torch.optim.SGD(parameters.values(), momentum=_MOMENTUM, fused=True, **common)
    return torch.optim.AdamW(parameters.values(), fused=True, **common)


@contextmanager
def _training_mode(model: nn.Module, seed: int) -> Iterator[None]:
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    config = getattr(model, "config", None)
    use_cache = getattr(config, "use_cache", None)
    # evaluation_mode restores the mode of every module in the end.
    with evaluation_mode(model), all_seeded(seed), torch.random.fork_rng(devices):
        # all_seeded seeds the CPU alone, and dropout draws on the device of the model.
        torch.manual_seed(seed)
        model.train()
        freeze_running_statistics(model)
        model.zero_grad()
        if use_cache is not None:
            config.use_cache = False
        try:
            yield
        finally:
            model.zero_grad()
            if use_cache is not None:
                config.use_cache = use_cache
