# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The repair as a training: the selected weights alone, on any number of processes, with whole checkpoints."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput, sort_checkpoints

from ..data.batches import LABELS, num_examples, split_labels
from ..data.loaders import rows_and_collator
from ..data.process_loaders import EpochLoader, ProcessBatchSampler, ProcessRows
from ..data.streams import is_stream
from ..models.adapters.saving import saving_the_adapter_alone
from ..models.contexts import end_mixed_precision, freeze_running_statistics, only_trainable
from ..models.heads import find_likelihood, prepare_batch
from ..models.label_alignment import LogLikelihoodFunction
from ..models.likelihood import Likelihood, class_log_probabilities
from ..reset.freeze_guard import FreezeGuard
from ..reset.weights import read_weights, write_weights
from ..run_state import STAGING_FOLDER, STATE_FOLDER, RunState
from ..runtime.attributes import overridden
from ..runtime.files import explain_write_errors, read_tensors, remove_folder, write_tensors
from ..runtime.interruption import Interruption
from ..runtime.processes import broadcast_object, gather_objects, num_processes, on_main_process, process_index
from ..runtime.sharded_models import named_parameters
from ..runtime.shards import processes_of
from ..selection.weight_selection import WeightSelection
from .hard_examples import ROW_NUMBERS, HardExampleSampler, NumberedCollator, NumberedRows
from .optimizer import SparseAdamW
from .penalty import ForgetPenalty


# The selected weights in a checkpoint of the repair.
_SELECTED_NAME = "selected_weights.safetensors"
# Beside them, where the order of the rows follows their losses.
_ROW_LOSSES_NAME = "row_losses.safetensors"


class RepairTrainer(Trainer):
    """
    A [`~transformers.Trainer`] of the selected weights of a model that have been reset.

    Attributes:
        selection ([`WeightSelection`], *optional*): The weights.
        freeze_guard ([`FreezeGuard`], *optional*): The fingerprint of everything else.
        log_likelihood_func (`Callable`, *optional*): The caller's likelihood, by default that of the model's head.
        seconds (`dict[str, float]`): Wall-clock seconds per phase.
    """

    selection: WeightSelection | None = None
    freeze_guard: FreezeGuard | None = None
    log_likelihood_func: LogLikelihoodFunction | None = None
    seconds: dict[str, float]
    _likelihood: Likelihood | None = None
    _repair_inputs: dict[str, Any]
    _max_grad_norm: float
    _interruption: Interruption
    _state: RunState | None = None
    _is_control: bool = False
    _penalty: ForgetPenalty | None = None
    _row_order: HardExampleSampler | None = None
    _row_numbers: torch.Tensor | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput | None:
        """
        Repairs the selected weights on the retain set, and proves that nothing else changed.

        The loss is the mean negative log-likelihood, over the whole accumulated batch, and in some steps the
        [`~penalty.ForgetPenalty`]. After the first epoch it may read the rows with the largest losses alone; see
        [`~hard_examples.HardExampleSampler`]. With `num_train_epochs=0` and no `max_steps` there is nothing to train.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                As for [`~transformers.Trainer`].

        Returns:
            [`~transformers.trainer_utils.TrainOutput`], or `None` if there was nothing to train.

        Raises:
            `RuntimeError`: If no weights were reset, or if a weight outside the selection or a buffer changed.
        """
        if self.selection is None or self.freeze_guard is None:
            raise RuntimeError(
                "`train` repairs the weights that were reset, and none were. Call `unlearn`, or `select_weights` and "
                "`reset_weights` before it."
            )
        output = None
        with self._timed("repair"):
            if self.args.num_train_epochs > 0 or self.args.max_steps > 0:
                set_seed(self.args.seed)
                self.optimizer = self.lr_scheduler = None
                self._max_grad_norm = self.args.max_grad_norm
                # A wrapper of an earlier repair knows the parameters that were trained then.
                self.model_wrapped = self.model
                # transformers cannot resume the training of a model that it has sharded.
                saves = not self._is_control and not self._is_sharded()
                callbacks = [*self.callback_handler.callbacks, _StopWhenAsked(self._interruption, saves)]
                # Trainer clips by the norm of all gradients, frozen ones included; the optimizer clips instead.
                with (
                    overridden(self.args, max_grad_norm=0.0),
                    overridden(self, _penalty=self._forget_penalty(), _row_order=self._new_row_order()),
                    overridden(self.callback_handler, callbacks=callbacks),
                    self._only_selected_trainable(),
                ):
                    try:
                        output = super().train(resume_from_checkpoint, **kwargs)
                    finally:
                        end_mixed_precision(self.model)
                self._interruption.check()
            self.freeze_guard.verify(self.model)
            self._check_replicas()
        return output

    def get_train_dataloader(self) -> DataLoader:
        """
        As for [`~transformers.Trainer`]; with several processes every row comes once, and none is repeated to make the
        numbers even.
        """
        args, order = self.args, self._row_order
        if order is None and (num_processes() == 1 or args.train_sampling_strategy == "batch_rebalance"):
            return super().get_train_dataloader()
        dataset, collator = rows_and_collator(self, self.train_dataset, "training")
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
        sampler = ProcessBatchSampler(
            order,
            args.train_batch_size,
            seed,
            **share,
            drop_last=args.dataloader_drop_last,
        )
        return EpochLoader(dataset, batch_sampler=sampler, num_workers=args.dataloader_num_workers, **common)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """As for [`~transformers.Trainer`]; with several processes the items of all of them are counted."""
        if num_processes() == 1:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        with overridden(self.args, average_tokens_across_devices=False):
            samples, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if num_items is None:
            num_items = sum(map(num_examples, samples))
        own = 0 if self._is_idle() else int(num_items)
        return samples, torch.tensor(sum(gather_objects(own)), device=device)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The index-sparse AdamW over the selection, with the betas, epsilon, decay and clipping of `args`."""
        model = self.model if model is None else model
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(model))
            named = [(name, p) for name, p in named_parameters(model).items() if name in self.selection.indices]
            groups = [
                {"params": [(n, p) for n, p in named if n in decayed], "weight_decay": self.args.weight_decay},
                {"params": [(n, p) for n, p in named if n not in decayed], "weight_decay": 0.0},
            ]
            self.optimizer = SparseAdamW(
                [group for group in groups if group["params"]],
                self.selection.indices,
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                max_grad_norm=self._max_grad_norm,
            )
        return self.optimizer

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As for [`~transformers.Trainer`]; layers with running statistics are kept from updating them."""
        freeze_running_statistics(model)
        self._row_numbers = inputs.pop(ROW_NUMBERS, None)
        batch = prepare_batch(self.model, inputs)
        if self._likelihood is None:
            self._likelihood = find_likelihood(self.model, batch, self.log_likelihood_func)
        self._repair_inputs, labels = split_labels(batch)
        return super().compute_loss(model, {**self._repair_inputs, LABELS: labels}, *args, **kwargs)

    def training_step(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As for [`~transformers.Trainer`]; some optimizer steps add the gradients of the penalty."""
        loss = super().training_step(model, *args, **kwargs)
        penalty = self._penalty
        if penalty is not None and self.accelerator.sync_gradients and self.state.global_step % penalty.period == 0:
            self._add_penalty(model, penalty)
        return loss

    def _forget_penalty(self) -> ForgetPenalty | None:
        """What keeps the repair from bringing the forget data back, if anything does."""
        return None

    def _hard_example_share(self) -> float:
        """Which share of the rows later epochs of the repair read."""
        return 1.0

    def _new_row_order(self) -> HardExampleSampler | None:
        share = self._hard_example_share()
        return None if share == 1 else HardExampleSampler(len(self.train_dataset), share)

    def _add_penalty(self, model: torch.nn.Module, penalty: ForgetPenalty) -> None:
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
        excess = torch.as_tensor(targets[first : first + len(own)]).to(own) - own
        # Gradients are averaged over the processes.
        total = num_processes() * penalty.weight * excess.clamp_min(0).sum() / len(targets)
        self.accelerator.backward(total)

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> None:
        """Not taken of all gradients, for every step: the optimizer takes that of the selected weights."""

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As for [`~transformers.Trainer`]; the gradient norm is that of the selected weights."""
        if "loss" in logs and self.optimizer is not None:
            logs["grad_norm"] = getattr(self.optimizer, "optimizer", self.optimizer).last_grad_norm
        super().log(logs, *args, **kwargs)

    def _repair_loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """Normalised over the accumulated batch: several heads ignore its size and scale with the accumulation."""
        log_likelihood = self._likelihood(self._repair_inputs, outputs, labels)
        if self._row_numbers is not None:
            self._row_order.record(self._row_numbers.tolist(), (-log_likelihood).tolist())
        smoothing = self.args.label_smoothing_factor
        if smoothing != 0:
            log_likelihood = (1 - smoothing) * log_likelihood + smoothing * class_log_probabilities(outputs).mean(
                dim=1
            )
        if num_items_in_batch is None:
            # Trainer counts nothing without a key "labels", and leaves the accumulation to a loss like this one.
            accumulated = self.current_gradient_accumulation_steps if self.model.training else 1
            num_items_in_batch = len(log_likelihood) * accumulated
        loss = -log_likelihood.sum() / num_items_in_batch
        if self.model.training and num_processes() > 1:
            # Gradients are averaged over the processes, and Trainer makes up for it if this is set.
            loss = loss * (1 if self.args.average_tokens_across_devices else num_processes()) * (not self._is_idle())
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss of the repair is {loss.item()} at step {self.state.global_step}. Lower `learning_rate`, or "
                "train in float32 or bf16."
            )
        return loss

    def _is_idle(self) -> bool:
        """Whether this process repairs on a row that must not count, because there are fewer rows than processes."""
        return not is_stream(self.train_dataset) and process_index() >= len(self.train_dataset)

    def _is_sharded(self) -> bool:
        return processes_of(named_parameters(self.model).values()).are_several

    @contextmanager
    def _only_selected_trainable(self) -> Iterator[None]:
        """The model as the repair needs it: gradients for parameters with selected weights alone, and no cache."""
        config, parameters = self.model.config, named_parameters(self.model)
        with (
            overridden(config, **({"use_cache": False} if hasattr(config, "use_cache") else {})),
            only_trainable(self.model, [parameters[name] for name in self.selection.indices]),
        ):
            yield

    def _check_replicas(self) -> None:
        """Refuses a repair after which the processes do not have the same weights."""
        if num_processes() == 1:
            return
        digest = hashlib.sha256()
        for value in read_weights(self.model, self.selection).values():
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
        if len(set(gather_objects(digest.hexdigest()))) > 1:
            raise RuntimeError(
                "After the repair the processes do not have the same weights, so gradients did not reach all of them. "
                "A callback that changes weights in one process may have done it; nothing was saved."
            )

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Beside, then in place by one rename: there is no half-written checkpoint to resume from."""
        if self._is_control:
            return
        output = Path(self.args.output_dir)
        # One that only an interruption made is not asked for, and goes with the state.
        final = output / STATE_FOLDER if self.args.save_strategy == "no" else output
        staging = output / STATE_FOLDER / STAGING_FOLDER
        name = f"checkpoint-{self.state.global_step}"
        with explain_write_errors(output), overridden(self, _get_output_dir=lambda trial: str(staging)):
            super()._save_checkpoint(model, trial)
        values = read_weights(self.model, self.selection)
        losses = None if self._row_order is None else self._row_order.state()
        gather_objects(None)

        def put_in_place() -> None:
            with explain_write_errors(output):
                write_tensors(staging / name / _SELECTED_NAME, values, {"frozen": self.freeze_guard.checksum})
                if losses is not None:
                    write_tensors(staging / name / _ROW_LOSSES_NAME, losses)
            if self.state.best_model_checkpoint == str(staging / name):
                self.state.best_model_checkpoint = str(final / name)
                self.state.save_to_json(str(staging / name / TRAINER_STATE_NAME))
            remove_folder(final / name)
            os.replace(staging / name, final / name)
            staging.rmdir()
            if self._state is None:
                with suppress(OSError):
                    staging.parent.rmdir()
            limit = self.args.save_total_limit
            kept = sort_checkpoints(str(output), best_model_checkpoint=self.state.best_model_checkpoint)
            for path in kept[: -max(limit, 1)] if limit is not None and limit > 0 else ():
                if path != self.state.best_model_checkpoint:
                    remove_folder(Path(path))

        on_main_process(put_in_place)
        self.state.best_model_checkpoint = broadcast_object(self.state.best_model_checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """
        Loads the selected weights; all others are there. Trainer would load the whole state by its names in the files,
        which for many architectures of transformers 5 are not those in the model, and go on with a warning.
        """
        path = Path(resume_from_checkpoint) / _SELECTED_NAME
        if not path.exists():
            raise ValueError(
                f"{resume_from_checkpoint} is not a checkpoint of a repair: it has no {_SELECTED_NAME}. Resume from "
                "one that `FisherUnlearner` has written, or start again in another `output_dir`."
            )
        values, metadata = read_tensors(path)
        sizes = {name: len(value) for name, value in values.items()}
        selected = {name: len(indices) for name, indices in self.selection.indices.items()}
        if metadata["frozen"] != self.freeze_guard.checksum or sizes != selected:
            raise ValueError(
                f"{resume_from_checkpoint} belongs to another model or another selection. Resume with the model, the "
                "data, the seed and the selection rule that the checkpoint was made with."
            )
        write_weights(self.model, self.selection, values)
        if self._row_order is not None:
            losses, _ = read_tensors(path.with_name(_ROW_LOSSES_NAME))
            self._row_order.load_state(losses)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with saving_the_adapter_alone(self.model):
            super()._save(*args, **kwargs)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        seconds, start = self.seconds, time.perf_counter()
        yield
        seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start


class _StopWhenAsked(TrainerCallback):
    """Ends a repair after the present step when one of the processes has been asked to stop."""

    def __init__(self, interruption: Interruption, saves: bool) -> None:
        self.interruption = interruption
        self.saves = saves

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.interruption.share(gather_objects)
        if self.interruption.signal is not None:
            control.should_training_stop = True
            control.should_save = self.saves
