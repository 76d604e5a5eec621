# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Trains the selected weights of a model, and nothing else, in any number of processes."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import TrainOutput

from ..data.batches import LABELS, num_examples, split_labels
from ..data.loaders import BatchSource
from ..data.process_loaders import EpochLoader, ProcessBatchSampler, ProcessRows
from ..data.streams import is_stream
from ..models.adapters.saving import saving_the_adapter_alone
from ..models.contexts import (
    end_mixed_precision,
    freeze_running_statistics,
    only_trainable,
    restoring_unsaved_buffers,
    with_gradients,
)
from ..models.heads import find_likelihood, prepare_batch
from ..models.likelihood import Likelihood, LogLikelihoodFunction
from ..reset.resetter import Reset
from ..reset.weights import check_replicas
from ..runtime.attributes import overridden
from ..runtime.clock import PhaseClock
from ..runtime.interruption import Interruption
from ..runtime.processes import gather_objects, num_processes, process_index
from ..runtime.secrets import without_tokens
from ..runtime.sharded_models import named_parameters
from ..runtime.shards import processes_of
from .callbacks import StopWhenAsked, default_callbacks
from .checkpoints import RepairCheckpoints, load_checkpoint
from .construction import without_side_effects
from .hard_examples import ROW_NUMBERS, HardExampleSampler, NumberedCollator, NumberedRows
from .optimizer import SparseAdamW
from .penalty import ForgetPenalty
from .plan import RepairPlan


class RepairTrainer(Trainer):
    """
    A [`~transformers.Trainer`] that trains only the selected weights of a model, after they have been reset.

    Every other weight and every buffer stays bit-identical, which is verified after the training.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model. It is changed in place.
        args ([`~transformers.TrainingArguments`], *optional*):
            The training arguments.
        data_collator (`Callable`, *optional*):
            Makes a batch of rows.
        train_dataset ([`~datasets.Dataset`], map-style or iterable):
            The retain set.
        reset ([`Reset`], *optional*):
            The reset to repair. It may be set later, before the training.
        plan ([`RepairPlan`], *optional*):
            What the repair does beyond plain training. By default nothing.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood. By default that of the model's head.
        interruption ([`Interruption`], *optional*):
            Requests to stop, checked between steps.
        saves_when_interrupted (`bool`, *optional*, defaults to `True`):
            Whether an interrupted repair leaves a checkpoint.
        clock ([`PhaseClock`], *optional*):
            Times the repair.
        kwargs:
            Further arguments of [`~transformers.Trainer`], such as `eval_dataset` or `callbacks`.
    """

    # The run that checkpoints belong to.
    run: str = ""

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        *,
        train_dataset: Any,
        reset: Reset | None = None,
        plan: RepairPlan | None = None,
        log_likelihood_func: LogLikelihoodFunction | None = None,
        interruption: Interruption | None = None,
        saves_when_interrupted: bool = True,
        clock: PhaseClock | None = None,
        **kwargs: Any,
    ) -> None:
        self.reset = reset
        self.plan = RepairPlan() if plan is None else plan
        self.log_likelihood_func = log_likelihood_func
        self.interruption = Interruption() if interruption is None else interruption
        self.saves_when_interrupted = saves_when_interrupted
        self.clock = PhaseClock() if clock is None else clock
        # Trainer changes the configurations in its constructor and in training. The cleaned model is saved with these.
        names = [name for name in ("config", "generation_config") if hasattr(model, name)]
        self.original_configs = {name: copy.deepcopy(getattr(model, name)) for name in names}
        self._likelihood: Likelihood | None = None
        self._repair_inputs: dict[str, Any] = {}
        self._penalty: ForgetPenalty | None = None
        self._row_order: HardExampleSampler | None = None
        self._row_numbers: torch.Tensor | None = None
        self._staging: Path | None = None
        with without_side_effects(model, args):
            super().__init__(
                model,
                args,
                data_collator,
                train_dataset=train_dataset,
                compute_loss_func=self._repair_loss,
                **kwargs,
            )
        self._max_grad_norm = self.args.max_grad_norm
        self.batch_source = BatchSource(self)

    def sibling(self, reset: Reset, data_collator: Callable[[list[Any]], Any] | None = None) -> "RepairTrainer":
        """
        Makes a copy of this trainer for another reset of the same model. The copy trains in the same way, also if a
        subclass changed it. It has none of the caller's callbacks, no checkpoints, and no evaluations meanwhile.

        Args:
            reset ([`Reset`]):
                The reset to repair.
            data_collator (`Callable`, *optional*):
                Makes a batch of rows. By default that of this trainer.
        """
        other = copy.copy(self)
        for name, value in vars(self).items():
            # Methods of this trainer that it holds as values, such as its loss function.
            if getattr(value, "__self__", None) is self:
                setattr(other, name, MethodType(value.__func__, other))
        other.args = copy.copy(self.args)
        other.args.save_strategy = other.args.eval_strategy = "no"
        other.args.load_best_model_at_end = other.args.push_to_hub = False
        other.callback_handler = copy.copy(self.callback_handler)
        other.callback_handler.callbacks = default_callbacks(self)
        other.control, other.reset, other.saves_when_interrupted = copy.copy(self.control), reset, False
        if data_collator is not None:
            other.data_collator = data_collator
        other.batch_source = replace(self.batch_source, trainer=other)
        return other

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds per phase."""
        return self.clock.seconds

    @property
    def is_sharded(self) -> bool:
        """Whether the model is sharded over several processes."""
        return processes_of(named_parameters(self.model).values()).are_several

    @with_gradients
    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput | None:
        """
        Repairs the selected weights on the retain set, and verifies that nothing else changed.

        The loss is the mean negative log-likelihood over the whole accumulated batch. Some steps add the
        [`~penalty.ForgetPenalty`] of the plan. After the first epoch the repair may read only the rows with the
        largest losses; see [`~hard_examples.HardExampleSampler`]. With `num_train_epochs=0` and no `max_steps` nothing
        is trained.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                As for [`~transformers.Trainer`].

        Returns:
            [`~transformers.trainer_utils.TrainOutput`], or `None` if nothing was trained.

        Raises:
            `RuntimeError`: If no weights were reset, or if a weight outside the selection or a buffer changed.
        """
        if self.reset is None:
            raise RuntimeError(
                "`train` repairs the weights that were reset, and none were. Call `unlearn`, or `select_weights` and "
                "`reset_weights` before it."
            )
        output = None
        with self.clock.phase("repair"):
            if self.args.num_train_epochs > 0 or self.args.max_steps > 0:
                with restoring_unsaved_buffers(self.model):
                    output = self._train(resume_from_checkpoint, **kwargs)
                self.interruption.check_all()
            self.reset.guard.verify(self.model)
            check_replicas(self.model, self.reset.selection)
        return output

    def _train(self, resume_from_checkpoint: str | bool | None, **kwargs: Any) -> TrainOutput:
        set_seed(self.args.seed)
        self.optimizer = self.lr_scheduler = None
        self._max_grad_norm = self.args.max_grad_norm
        # It reads rows, which may draw at random.
        self._penalty = None if self.plan.make_penalty is None else self.plan.make_penalty()
        if not is_stream(self.train_dataset):
            self._row_order = self.plan.new_row_order(len(self.train_dataset))
        # The wrapper of an earlier repair holds the parameters that were trained then.
        self.model_wrapped = self.model
        # transformers cannot resume the training of a model that it has sharded.
        stop = StopWhenAsked(self.interruption, self.saves_when_interrupted and not self.is_sharded)
        self.add_callback(stop)
        try:
            # Trainer clips by the norm of all gradients, also of frozen weights. The optimizer clips instead.
            steps = {"max_steps": self.plan.num_steps} if self.plan.num_steps else {}
            with overridden(self.args, max_grad_norm=0.0, **steps), self.only_selected_trainable():
                return super().train(resume_from_checkpoint, **kwargs)
        finally:
            end_mixed_precision(self.model)
            self.remove_callback(stop)
            self._row_order = self._penalty = None

    @contextmanager
    def only_selected_trainable(self) -> Iterator[None]:
        """Within the block only parameters with selected weights require gradients, and the cache is off."""
        config, parameters = self.model.config, named_parameters(self.model)
        with (
            overridden(config, **({"use_cache": False} if hasattr(config, "use_cache") else {})),
            only_trainable(self.model, [parameters[name] for name in self.reset.selection.indices]),
        ):
            yield

    def get_train_dataloader(self) -> DataLoader:
        """
        As for [`~transformers.Trainer`]. With several processes every row comes exactly once: no row is repeated to
        make the shares even.
        """
        args, order = self.args, self._row_order
        if order is None and (num_processes() == 1 or args.train_sampling_strategy == "batch_rebalance"):
            return super().get_train_dataloader()
        dataset, collator = self.batch_source.rows_and_collator(self.train_dataset, "training")
        seed = args.seed if args.data_seed is None else args.data_seed
        share = {"process_index": process_index(), "num_processes": num_processes()}
        common = {
            "collate_fn": collator,
            "pin_memory": args.dataloader_pin_memory,
            "generator": torch.Generator().manual_seed(seed + process_index()),
        }
        if is_stream(dataset):
            return EpochLoader(ProcessRows(dataset, args.train_batch_size, **share), batch_size=None, **common)
        if order is None:
            order = self._get_train_sampler(dataset)
        else:
            dataset, common["collate_fn"] = NumberedRows(dataset), NumberedCollator(collator)
        sampler = ProcessBatchSampler(order, args.train_batch_size, seed, **share, drop_last=args.dataloader_drop_last)
        return EpochLoader(dataset, batch_sampler=sampler, num_workers=args.dataloader_num_workers, **common)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """As for [`~transformers.Trainer`], but counts the items of all processes, and adds no step after the last."""
        # transformers would add one to a checkpoint of the last step within an epoch.
        if self.is_in_train and self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        if num_processes() == 1:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        with overridden(self.args, average_tokens_across_devices=False):
            samples, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        num_items = sum(map(num_examples, samples)) if num_items is None else num_items
        own = 0 if self._is_idle() else int(num_items)
        return samples, torch.tensor(sum(gather_objects(own)), device=device)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Creates the index-sparse AdamW over the selection, with betas, epsilon, decay and clipping of `args`."""
        model = self.model if model is None else model
        if self.optimizer is None:
            indices = self.reset.selection.indices
            decayed = set(self.get_decay_parameter_names(model))
            named = [(name, p) for name, p in named_parameters(model).items() if name in indices]
            groups = [
                {"params": [(n, p) for n, p in named if n in decayed], "weight_decay": self.args.weight_decay},
                {"params": [(n, p) for n, p in named if n not in decayed], "weight_decay": 0.0},
            ]
            self.optimizer = SparseAdamW(
                [group for group in groups if group["params"]],
                indices,
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                max_grad_norm=self._max_grad_norm,
            )
        return self.optimizer

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As for [`~transformers.Trainer`]. Layers with running statistics do not update them."""
        freeze_running_statistics(model)
        self._row_numbers = inputs.pop(ROW_NUMBERS, None)
        batch = prepare_batch(self.model, inputs)
        if self._likelihood is None:
            self._likelihood = find_likelihood(self.model, batch, self.log_likelihood_func)
        self._repair_inputs, labels = split_labels(batch)
        return super().compute_loss(model, {**self._repair_inputs, LABELS: labels}, *args, **kwargs)

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As for [`~transformers.Trainer`]. Some optimizer steps add the gradients of the penalty."""
        loss = super().training_step(model, *args, **kwargs)
        penalty = self._penalty
        if penalty is not None and self.accelerator.sync_gradients and self.state.global_step % penalty.period == 0:
            self._add_penalty(model, penalty)
        return loss

    def _add_penalty(self, model: nn.Module, penalty: ForgetPenalty) -> None:
        share = (self.state.global_step, process_index(), num_processes())

        def losses(rows: Any) -> tuple[torch.Tensor, list[list[float]]]:
            batch, counts = penalty.batch(rows, *share)
            inputs, labels = split_labels(prepare_batch(self.model, self._prepare_inputs(batch)))
            with self.compute_loss_context_manager():
                own = self._likelihood.losses(inputs, model(**inputs), labels)
            own = own if counts else own[:0]
            return own, gather_objects(own.tolist())

        with torch.no_grad():
            _, unseen = losses(penalty.unseen_rows)
        own, forget = losses(penalty.forget_rows)
        progress = self.state.global_step / self.state.max_steps
        targets = penalty.targets(sum(forget, []), sum(unseen, []), progress)
        if targets is None:
            return
        first = sum(map(len, forget[: process_index()]))
        wanted = torch.as_tensor(targets[first : first + len(own)]).to(own)
        # Gradients are averaged over the processes.
        total = num_processes() * penalty.weight * penalty.excess(own, wanted) / len(targets)
        self.accelerator.backward(total)

    def _repair_loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """Normalises over the accumulated batch: several heads ignore its size and scale with the accumulation."""
        log_likelihood = self._likelihood(self._repair_inputs, outputs, labels)
        if self._row_numbers is not None:
            self._row_order.record(self._row_numbers.tolist(), (-log_likelihood).tolist())
        smoothing = self.args.label_smoothing_factor
        if smoothing != 0:
            of_all_outcomes = self._likelihood.mean_over_outcomes(self._repair_inputs, outputs, labels)
            log_likelihood = (1 - smoothing) * log_likelihood + smoothing * of_all_outcomes
        if num_items_in_batch is None:
            # Without a key "labels" Trainer counts no items, and this loss must account for the accumulation.
            num_accumulated = self.current_gradient_accumulation_steps if self.model.training else 1
            num_items_in_batch = len(log_likelihood) * num_accumulated
        # A batch without a scored label has no part in the repair.
        loss = -log_likelihood.sum() / torch.as_tensor(num_items_in_batch).clamp_min(1)
        if self.model.training and num_processes() > 1:
            # Gradients are averaged over the processes. Trainer compensates if `average_tokens_across_devices` is set.
            loss = loss * (1 if self.args.average_tokens_across_devices else num_processes()) * (not self._is_idle())
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss of the repair is {loss.item()} at step {self.state.global_step}. Lower `learning_rate`, or "
                "train in float32 or bf16."
            )
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> None:
        """Returns nothing. The optimizer computes the norm of the selected weights; that of all would cost time."""

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As for [`~transformers.Trainer`]. The gradient norm is that of the selected weights."""
        if "loss" in logs and self.optimizer is not None:
            logs["grad_norm"] = getattr(self.optimizer, "optimizer", self.optimizer).last_grad_norm
        super().log(logs, *args, **kwargs)

    def _is_idle(self) -> bool:
        """Whether this process trains on a row that must not count, because there are fewer rows than processes."""
        return not is_stream(self.train_dataset) and process_index() >= len(self.train_dataset)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        checkpoints = RepairCheckpoints(
            Path(self.args.output_dir), self.args.save_strategy != "no", self.args.save_total_limit, self.run
        )
        self._staging = checkpoints.staging
        try:
            with checkpoints.writing():
                super()._save_checkpoint(model, trial)
        finally:
            self._staging = None
        checkpoints.finish(self.state, self.reset, self._row_order)

    def _get_output_dir(self, trial: Any) -> str:
        """Returns the folder of the checkpoints, or the staging folder while a checkpoint is written."""
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        # Trainer would go by the names in the files. Many architectures of transformers 5 have others in the model.
        load_checkpoint(resume_from_checkpoint, self.reset, self._row_order, self.run)

    def _load_best_model(self) -> None:
        load_checkpoint(self.state.best_model_checkpoint, self.reset, self._row_order, self.run)

    def _save(self, *args: Any, **kwargs: Any) -> None:
        # Trainer pickles its arguments beside the weights.
        given = vars(self.args)
        tokenless = {name: value for name, value in without_tokens(given).items() if value is not given[name]}
        with saving_the_adapter_alone(self.model), overridden(self.args, **tokenless):
            super()._save(*args, **kwargs)
