# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A callback that keeps the Fisher diagonal of the training set at the end of an ordinary training."""

import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..data.batches import move_batch
from ..data.checks import check_batch_has_labels, check_dataset
from ..data.loaders import BatchSource
from ..models.checks import check_devices, check_model, check_scope_of_model
from ..models.contexts import keep_base_differentiable, own_precision
from ..models.fingerprint import weights_fingerprint
from ..models.heads import find_likelihood, num_classes, prepare_batch
from ..models.likelihood import LogLikelihoodFunction
from ..models.scope import parameters_in_scope
from ..models.trainer_loss import check_trainer_loss
from ..runtime.processes import on_main_process
from .checks import check_fisher_type
from .diagonal import FisherDiagonal
from .kept_data import FisherData
from .kept_files import check_no_fisher
from .passes import FisherPass


# Trainer does not push folders whose names begin with an underscore.
FISHER_FOLDER = "_fisher"


class FisherCallback(TrainerCallback):
    """
    Computes the Fisher diagonal of the whole training set at the end of an ordinary training, and keeps it beside the
    model. A later deletion request then needs no pass over the retain data.

    Every example counts once, with dropout off and in the model's own precision. The weights are the final ones; with
    `load_best_model_at_end` they are those of the best checkpoint. Settings and data that cannot work are refused when
    training begins.

    A kept Fisher reveals something about the training data, so never publish it.
    [`~transformers.Trainer.push_to_hub`] leaves out the folder that it goes to by default.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer, whose model, training data, collator and arguments are used.
        directory (`str`, *optional*):
            The folder to write to, by default `_fisher` in the trainer's output directory.
        fisher_type (`str`, *optional*, defaults to `"empirical"`):
            `"empirical"` or `"expected"`. Requests must use the same.
        per_device_fisher_batch_size (`int`, *optional*, defaults to 32):
            Examples per batch of the pass. The result does not depend on it but for rounding.
        target_modules, exclude_modules, reset_scope (*optional*):
            The scope of later requests, as in [`parameters_in_scope`].
        log_likelihood_func (`Callable`, *optional*):
            Called with the model's outputs and the labels; returns one log-likelihood per example, shape
            `(batch_size,)`. By default the log-likelihood of the model's head, which is checked against the model's
            own loss.

    Raises:
        `ValueError`: If `fisher_type` is `"sampled"` or unknown.

    Example:

    ```python
    >>> trainer = Trainer(model, args, train_dataset=dataset)
    >>> trainer.add_callback(FisherCallback(trainer))
    >>> trainer.train()
    >>> kept = FisherDiagonal.from_pretrained("output/_fisher")
    >>> retain = kept - accumulate_fisher_diagonal(model, forget_batches)
    ```
    """

    def __init__(
        self,
        trainer: Trainer,
        directory: str | os.PathLike[str] | None = None,
        *,
        fisher_type: str = "empirical",
        per_device_fisher_batch_size: int = 32,
        target_modules: str | Collection[str] | None = None,
        exclude_modules: str | Collection[str] | None = None,
        reset_scope: str = "full",
        log_likelihood_func: LogLikelihoodFunction | None = None,
    ) -> None:
        check_fisher_type(fisher_type, log_likelihood_func)
        if fisher_type == "sampled":
            raise ValueError(
                "`fisher_type='sampled'` draws labels anew in every pass, so no request could subtract from the kept "
                "Fisher. Use 'empirical' or 'expected'."
            )
        self.trainer = trainer
        self.batch_source = BatchSource(trainer)
        self.directory = Path(directory) if directory is not None else Path(trainer.args.output_dir) / FISHER_FOLDER
        self.fisher_type = fisher_type
        self.per_device_fisher_batch_size = per_device_fisher_batch_size
        self.scope = {
            "target_modules": target_modules,
            "exclude_modules": exclude_modules,
            "reset_scope": reset_scope,
        }
        self.log_likelihood_func = log_likelihood_func

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuses a Fisher that could not be computed or written when training ends."""
        # An unlearner made from the trainer inherits this callback, and must not run it.
        if args is not self.trainer.args:
            return
        check_no_fisher(self.directory)
        self._check_trainer()
        with self._model() as model:
            check_scope_of_model(model, self.scope["reset_scope"])
            check_model(model, self.scope["reset_scope"])
            parameters_in_scope(model, **self.scope)
            self._check_data(model)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Computes and writes the diagonal."""
        if args is not self.trainer.args:
            return
        with self._model() as model:
            fisher = self._compute(model)
            fingerprint = weights_fingerprint(model)
            on_main_process(lambda: replace(fisher, weights_fingerprint=fingerprint).save_pretrained(self.directory))

    def _compute(self, model: nn.Module) -> FisherDiagonal:
        fisher_pass = FisherPass(
            self.batch_source,
            self.per_device_fisher_batch_size,
            fisher_type=self.fisher_type,
            log_likelihood_func=self.log_likelihood_func,
        )
        start = time.perf_counter()
        parameters = parameters_in_scope(model, **self.scope)
        dataset, unused = self.trainer.train_dataset, self.trainer.args.remove_unused_columns
        fisher = fisher_pass.compute(model, parameters, dataset, "Fisher of the training set")
        data = FisherData.of(dataset, model, self.log_likelihood_func, remove_unused_columns=unused)
        return replace(fisher, data=data, seconds=time.perf_counter() - start)

    @contextmanager
    def _model(self) -> Iterator[nn.Module]:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        model = getattr(model, "_orig_mod", model)
        keep_base_differentiable(model)
        with own_precision(model):
            yield model

    def _check_trainer(self) -> None:
        args = self.trainer.args
        check_trainer_loss(self.trainer, self.log_likelihood_func)
        check_devices(args.world_size, args.n_gpu, self.trainer.model)
        output, directory = Path(args.output_dir).resolve(), self.directory.resolve()
        if args.push_to_hub and directory.is_relative_to(output):
            if directory == output or not directory.relative_to(output).parts[0].startswith("_"):
                raise ValueError(
                    f"`push_to_hub` would publish {self.directory}, which lies in the output directory, and a kept "
                    "Fisher reveals something about the training data. Leave `directory` out (it is then "
                    f"{FISHER_FOLDER}, which is not pushed), or choose a folder outside the output directory."
                )

    def _check_data(self, model: nn.Module) -> None:
        dataset = self.trainer.train_dataset
        check_dataset(dataset, "train_dataset", None if self.log_likelihood_func else num_classes(model))
        size = self.per_device_fisher_batch_size
        first, again = (
            next((batch for _, batch in self.batch_source.batches(dataset, size, in_turns=False, seed=seed)), None)
            for seed in (0, 1)
        )
        if first is None:
            raise ValueError("`train_dataset` is empty, and a Fisher needs at least one example.")
        check_batch_has_labels(first, "train_dataset")
        if not _equal(first, again):
            raise ValueError(
                "The collator or the data set draws at random, as masking and augmentation do: the same rows gave two "
                "different batches. An example of a deletion request would not be what it was in the kept Fisher, so "
                "nothing could be subtracted. Train without this callback; the request then makes its own pass over "
                "the retain data."
            )
        device = next(model.parameters()).device
        find_likelihood(model, move_batch(prepare_batch(model, first), device), self.log_likelihood_func)


def _equal(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key]
        for key, value in first.items()
    )
