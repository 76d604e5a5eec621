# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The training that the rivals share: its settings, its loss, its optimizers and its one loop."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.batches import IGNORED
from ..models.contexts import evaluation_mode, freeze_running_statistics, only_trainable
from ..models.likelihood import Likelihood
from ..repair.optimizer import SparseAdamW
from ..runtime.random_state import all_seeded
from ..selection.weight_selection import WeightSelection
from .data import UnlearningData
from .scoring import Scorer


OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine")

_MOMENTUM = 0.9
_MAX_GRAD_NORM = 1.0

_DIVERGED = (
    "The training has diverged, and the weights have moved already: load the model anew, and lower `learning_rate` or "
    "`num_train_epochs`."
)

# Of the likelihood, the model's outputs and the labels of a batch.
Relabel = Callable[[Likelihood, Any, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TrainingMethod:
    """
    The settings of a rival that trains.

    It trains the parameters that require gradients, in training mode, so with dropout where the model has it. Layers
    with running statistics stay in eval mode, so that no buffer moves; public code lets them move in training.

    Args:
        learning_rate (`float`):
            The learning rate.
        num_train_epochs (`float`):
            Passes over the training data, of which the last may be a part of one; 0 trains nothing.
        per_device_train_batch_size (`int`):
            Examples of a step.
        optimizer (`str`):
            `"sgd"`, with momentum 0.9, or `"adamw"`, with gradients scaled down to a norm of at most 1.
        weight_decay (`float`):
            Decay of all trained weights: added to the gradient by `"sgd"`, decoupled in `"adamw"`.
        schedule (`str`):
            `"constant"` learning rate, or `"cosine"` decay to 0.

    Raises:
        `ValueError`: If one of them is out of range.
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
                f"`num_train_epochs` is {self.num_train_epochs} but must be a finite number of passes, 0 or more."
            )
        if not self.per_device_train_batch_size >= 1:
            raise ValueError(
                f"`per_device_train_batch_size` is {self.per_device_train_batch_size} but a step needs 1 example or "
                "more."
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"`weight_decay` is {self.weight_decay} but must be a finite number, 0 or more.")
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` is {getattr(self, name)!r} but must be one of {', '.join(map(repr, allowed))}."
                )

    def num_steps(self, num_examples: int) -> int:
        """Number of steps of `num_train_epochs` passes over so many examples."""
        return math.ceil(self.num_train_epochs * math.ceil(num_examples / self.per_device_train_batch_size))


class BatchLoss:
    """
    The loss of a model on batches: the negative log-likelihood under the model's own head.

    Args:
        model (`torch.nn.Module`):
            The model.
        data ([`UnlearningData`]):
            Where the caller's likelihood is taken from.
    """

    def __init__(self, model: nn.Module, data: UnlearningData) -> None:
        self.model = model
        self._scorer = Scorer(model, data.log_likelihood_func)

    def mean(self, batch: Mapping[str, Any], relabel: Relabel | None = None) -> torch.Tensor:
        """
        Mean over the examples; over the scored tokens, where labels belong to tokens.

        Args:
            batch (`dict[str, Any]`):
                Model inputs and labels, as collated.
            relabel (`Callable`, *optional*):
                Returns the labels to score instead of the batch's; what the model is given stays.
        """
        total, num_scored = self._total(batch, relabel)
        return total / num_scored

    def sum(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Sum over the examples, and over the tokens of each."""
        return self._total(batch, None)[0]

    def _total(self, batch: Mapping[str, Any], relabel: Relabel | None) -> tuple[torch.Tensor, int | torch.Tensor]:
        likelihood, inputs, labels = self._scorer(batch)
        outputs = self.model(**inputs)
        if relabel is not None:
            labels = relabel(likelihood, outputs, labels)
        total = -likelihood(inputs, outputs, labels).sum()
        if likelihood.kind not in ("token", "next_token"):
            return total, len(labels)
        targets = likelihood.targets(inputs, outputs, labels)[1]
        return total, (targets != IGNORED).sum().clamp_min(1)


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

    Parameters in half precision are trained by a copy in float32, because half precision swallows small steps.

    Args:
        model (`torch.nn.Module`):
            The model; its modes, flags and buffers are afterwards as before, and its gradients are none.
        method ([`TrainingMethod`]):
            The settings.
        losses (`Iterable[torch.Tensor]`):
            The losses, of which each is computed when it is asked for.
        num_steps (`int`):
            How many to take.
        seed (`int`):
            Seed of dropout; the global random states are left as they were.
        selection ([`WeightSelection`], *optional*):
            The weights to train. All others are never written, whatever momentum and decay do.

    Raises:
        `ValueError`: If there is nothing to train.
        `FloatingPointError`: If a loss, or a trained weight in the end, is no finite number.
    """
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (selection is None or name in selection.indices)
    }
    if not trained:
        raise ValueError(
            f"No parameter of this {type(model).__name__} that may be trained requires gradients. Unfreeze some by "
            "`requires_grad_(True)`; of a `PeftModel`, load the adapter with `is_trainable=True`."
        )
    masters = {n: p if p.itemsize >= 4 else p.detach().float() for n, p in trained.items()}
    halves = [(masters[name], parameter) for name, parameter in trained.items() if parameter.itemsize < 4]
    optimizer = _make_optimizer(method, masters, selection)
    # The index-sparse AdamW clips by the chosen entries alone.
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
        raise FloatingPointError(f"After {num_steps} steps some weights are no finite numbers. {_DIVERGED}")


def train_on_retain_data(
    model: nn.Module, method: TrainingMethod, data: UnlearningData, seed: int, selection: WeightSelection | None = None
) -> None:
    """
    Trains a model in place on the retain data alone, by the loss of [`BatchLoss`].

    Args:
        model, method, seed, selection:
            As for [`train`].
        data ([`~rivals.data.UnlearningData`]):
            The data.
    """
    check_not_empty(data, "retain")
    losses = map(BatchLoss(model, data).mean, shuffled_batches(data, "retain", method, seed))
    train(model, method, losses, method.num_steps(data.num_examples("retain")), seed, selection)


def shuffled_batches(
    data: UnlearningData, split: str, method: TrainingMethod, seed: int
) -> Iterator[Mapping[str, Any]]:
    """Batches of a part of the data, pass after pass without an end, every pass in an order of its own."""
    check_not_empty(data, split)
    for epoch in count():
        yield from data.batches(split, method.per_device_train_batch_size, epoch_seed(seed, epoch))


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of the order of one pass."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def check_not_empty(data: UnlearningData, *splits: str) -> None:
    """Refuses data of which a part that a method needs has no example."""
    for split in splits:
        if data.num_examples(split) == 0:
            raise ValueError(
                f"The {split} data are empty, and this method trains on them. Pass a `{split}_dataset` with examples."
            )


class SparseSGD(torch.optim.Optimizer):
    """
    SGD with momentum on chosen entries of the parameters, as [`SparseAdamW`] is AdamW on them: an entry that was not
    chosen has no state and is never written.

    Args:
        params (`Iterable`):
            Named parameters `(name, parameter)`.
        indices (`dict[str, torch.Tensor]`):
            For every name, the flat indices of the entries to train; a parameter without any stays as it is.
        lr, momentum, weight_decay (`float`):
            As for [`torch.optim.SGD`].
    """

    def __init__(
        self,
        params: Iterable[tuple[str, torch.Tensor]],
        indices: Mapping[str, torch.Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.indices = {
            name: indices[name].to(parameter.device)
            for group in self.param_groups
            for name, parameter in zip(group["param_names"], group["params"], strict=True)
            if name in indices
        }

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update of the chosen entries."""
        for group in self.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if name not in self.indices or parameter.grad is None:
                    continue
                chosen, state = self.indices[name], self.state[parameter]
                values = torch.take(parameter, chosen)
                update = torch.take(parameter.grad, chosen).add_(values, alpha=group["weight_decay"])
                if state:
                    update = state["momentum_buffer"].mul_(group["momentum"]).add_(update)
                state["momentum_buffer"] = update
                parameter.put_(chosen, values.sub_(update, alpha=group["lr"]))


def _make_optimizer(
    method: TrainingMethod, parameters: Mapping[str, torch.Tensor], selection: WeightSelection | None
) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": method.learning_rate, "weight_decay": method.weight_decay}
    if selection is not None and method.optimizer == "sgd":
        return SparseSGD(parameters.items(), selection.indices, momentum=_MOMENTUM, **common)
    if selection is not None:
        return SparseAdamW(parameters.items(), selection.indices, max_grad_norm=_MAX_GRAD_NORM, **common)
    # Small models spend more time between the kernels of an update than in them.
    if method.optimizer == "sgd":
        return torch.optim.SGD(parameters.values(), momentum=_MOMENTUM, fused=True, **common)
    return torch.optim.AdamW(parameters.values(), fused=True, **common)


@contextmanager
def _training_mode(model: nn.Module, seed: int) -> Iterator[None]:
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    config = getattr(model, "config", None)
    use_cache = getattr(config, "use_cache", None)
    # The first of them gives every module its mode back.
    with evaluation_mode(model), all_seeded(seed), torch.random.fork_rng(devices):
        # Dropout draws on the model's own device.
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
