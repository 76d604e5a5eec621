# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The phases of unlearning, in order, beside the Trainer API."""

import copy
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache, partial
from importlib.metadata import version
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from huggingface_hub import HfApi
from torch.utils.data import Subset
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer import DEFAULT_CALLBACKS, DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback

from .config import FisherUnlearningConfig
from .data.checks import check_batch_has_labels, check_dataset, check_disjoint, check_requests
from .data.digests import dataset_fingerprint
from .data.loaders import rows_and_collator, trainer_batches
from .data.streams import first_rows, is_stream
from .evaluation.checks import check_quantization, check_relearning
from .evaluation.divergence import jensen_shannon_divergence
from .evaluation.intervals import mean_interval
from .evaluation.membership import MembershipAttack, membership_attack
from .evaluation.predictions import ExamplePredictions, join_predictions, predict_batches
from .evaluation.quantization import quantized
from .evaluation.recovery import RelearningResult
from .evaluation.relearning import evaluated_steps, relearning_curve
from .evaluation.results import SplitResult, summarize_predictions
from .evaluation.stages import RequestResult, StageResult
from .fisher.callback import FisherCallback
from .fisher.checks import check_fisher_type, check_kept_fisher
from .fisher.diagonal import FisherDiagonal
from .fisher.passes import accumulate_over_processes
from .models.adapters.parameters import is_adapted, keep_base_differentiable, num_base_weights
from .models.adapters.saving import save_adapter
from .models.checks import (
    check_devices,
    check_loss,
    check_model,
    check_reference,
    check_scope_of_model,
    check_sequence_lengths,
)
from .models.contexts import checkpointing_activations, restoring
from .models.fingerprint import weights_fingerprint
from .models.heads import base_model, num_classes
from .models.label_alignment import LogLikelihoodFunction
from .models.likelihood import Likelihood
from .models.loading import load_model, name_of_model
from .models.scope import parameters_in_scope
from .planning.preview import TimedCollator, UnlearningPreview
from .publishing.commitment import COMMITMENT_NAME, ForgetCommitment
from .publishing.folder import Publication, save_published, write_card
from .publishing.leaks import Needles, needles_of_dataset, needles_of_machine
from .publishing.push import PushResult, push_folder_to_hub
from .repair.penalty import ForgetPenalty, penalty_period
from .repair.trainer import RepairTrainer
from .report.provenance import Provenance
from .report.report import REPORT_NAME, UnlearningReport
from .report.results import IntegrityResult, SelectionResult
from .reset.freeze_guard import FreezeGuard
from .reset.pretrained import check_pretrained_model
from .reset.values import default_reset_value, reset_weights
from .reset.weights import read_weights, write_weights
from .run_state import RunState, check_output_directory
from .runtime.attributes import overridden
from .runtime.interruption import Interruption
from .runtime.processes import gather_objects, is_main_process, num_processes, on_main_process
from .runtime.sharded_models import plain_class
from .selection.fisher_plane import fisher_plane
from .selection.knowledge import target_of_request
from .selection.largest import LargestRatios
from .selection.rules import select_above, select_weights
from .selection.search import SelectionSearch, search_selection
from .selection.subtraction import KeptFisherResult, cancellation_error
from .selection.sweep import GammaTrial
from .selection.weight_selection import WeightSelection, select_random_weights


logger = logging.getLogger(__name__)

T = TypeVar("T")

# Without them nothing takes the files beside them for a model, or for a finished run.
_LAST_FILES = ("config.json", "adapter_config.json", REPORT_NAME)

# Examples of each data set that enter its Fisher where trials follow.
_MAX_FISHER_EXAMPLES = 500
# Unseen examples whose losses the forget data are held to.
_MAX_UNSEEN_EXAMPLES = 1000
# Weight of the penalty, and how much of the repair its targets take to rise. What a language model has been pushed
# away from drifts on by itself, so that it is pushed less and not all the way; an adapter hardly drifts, and has to be
# pushed all the way while its learning rate still moves it.
_PENALTY_OF_CLASSIFIERS, _PENALTY_OF_LANGUAGE_MODELS = (1.5, 1.0), (1.0, 1.25)
_PENALTY_RISE_OF_ADAPTERS = 0.85
# Of retained data that a model knew by heart, with at least that accuracy, what the later epochs of a repair read.
_KNOWN_BY_HEART, _HARD_EXAMPLE_SHARE = 0.98, 0.5

# Arguments that may differ in a resumed run.
_WITHOUT_EFFECT = (
    *(
        "output_dir",
        "resume_from_checkpoint",
        "state_save_seconds",
        "disable_tqdm",
        "run_name",
        "report_to",
        "project",
    ),
    *("logging_", "log_", "save_", "hub_", "push_to_hub", "dataloader_num_workers", "dataloader_pin_memory", "ddp_"),
    *("local_rank", "trackio_", "do_", "skip_memory_metrics", "enable_jit_checkpoint", "forget_disclosure"),
    "forget_description",
)


class FisherUnlearner(RepairTrainer):
    """
    Makes a trained model forget chosen examples, by [DeepClean](https://huggingface.co/papers/2311.10448).

    [`~FisherUnlearner.unlearn`] chains the phases, each of which can be called on its own: the Fisher information of
    both data sets, the selection of the weights that matter more to the forget set, their reset, and their repair on
    the retain set, run by [`~transformers.Trainer`] while every other weight and every buffer stays bit-identical.

    Unlearning of this kind is approximate: it comes with measurements, not with a guarantee.

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The trained model, or a path or id to load it from. It is changed in place; files it was loaded from are
            never written to. With `reset_scope="adapter"` a model with a LoRA adapter, or the folder of a saved one:
            then the base is only read, and the adapter alone is written in the end.
        args ([`FisherUnlearningConfig`] or [`~transformers.TrainingArguments`], *optional*):
            The configuration. By default the output goes to `"<class of the model>-unlearned"`.
        data_collator (`Callable`, *optional*):
            Makes a batch of rows, as for [`~transformers.Trainer`]. If it draws at random, as a masking one does, the
            Fisher information and every evaluation get the same draw for the same batch size, by `args.seed`; only
            the repair gets new ones.
        forget_dataset ([`~datasets.Dataset`], map-style or iterable):
            The training examples to forget.
        retain_dataset ([`~datasets.Dataset`], map-style or iterable):
            The training examples to keep; shares no row with `forget_dataset`, which is not checked of streams. A
            stream needs `max_steps`.
        eval_dataset ([`~datasets.Dataset`], map-style, iterable or `dict` of them, *optional*):
            Test data for the report, and for `eval_strategy`.
        unseen_dataset ([`~datasets.Dataset`], map-style or iterable, *optional*):
            Data of the forget set's distribution that no model here was trained on: for the membership attack, and
            with `selection="auto"` for what the forget data are to be like afterwards. Nothing is trained on them.
        reference_model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`], *optional*):
            A model retrained without the forget data. Only evaluated; nothing is fitted to it.
        kept_fisher (`str` or [`FisherDiagonal`], *optional*):
            The Fisher diagonal of the whole training set at the model's weights, or the folder or the file in which
            [`FisherCallback`] or `hf-deepclean fisher` has kept it. The retain Fisher then comes from it by
            subtraction, without a pass over the retain data, unless the loss to rounding would show in the selection.
        requests (`dict[str, Sequence[int]]`, *optional*):
            If the forget data are those of several requests, the rows of `forget_dataset` that belong to each; the
            report then has results for every one, see [`UnlearningReport.of_request`].
        processing_class (*optional*):
            Tokenizer or processor, saved beside the model.
        log_likelihood_func (`Callable`, *optional*):
            Called with the model's outputs and the labels; returns one log-likelihood per example, shape
            `(batch_size,)`. By default that of the model's head, which is checked against the model's own loss.
        compute_metrics (`Callable`, *optional*):
            As for [`~transformers.Trainer`]; the figures enter the report for every data set. It gets the logits of
            a whole data set at once, which for a language model are as large as its vocabulary for every token: pass
            `preprocess_logits_for_metrics` with it.
        callbacks (`list`, *optional*):
            Callbacks of the repair.
        preprocess_logits_for_metrics (`Callable`, *optional*):
            As for [`~transformers.Trainer`]; for example `lambda logits, labels: logits.argmax(-1)`.

    Raises:
        `ValueError`: If the data sets are empty, overlap, have no labels or labels outside the head's range; if the
            weights are quantised or on the meta device; if the model has an adapter that is not in scope or cannot be
            cleaned; if one process sees several devices, or DeepSpeed or Accelerate's FSDP was asked for; if the
            checkpoint to rewind to is that of another model, or of this one as it is; if the kept Fisher is stale or
            does not fit the data.
        `RuntimeError`: If the launched processes do not know of each other.
        `OSError`: If the base of a saved adapter cannot be loaded.
        `FileExistsError`: If the output directory holds anything but what an interrupted run has left.

    Example:

    ```python
    >>> from hf_deepclean import FisherUnlearner, FisherUnlearningConfig

    >>> args = FisherUnlearningConfig("clean-model", gamma=1.0, num_train_epochs=2, learning_rate=3e-3)
    >>> unlearner = FisherUnlearner(model, args, forget_dataset=forget, retain_dataset=retain, unseen_dataset=holdout)
    >>> report = unlearner.unlearn()
    >>> print(report)
    >>> print(unlearner.push_to_hub("me/clean-model"))
    ```
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: FisherUnlearningConfig | TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        *,
        forget_dataset: Any,
        retain_dataset: Any,
        eval_dataset: Any | dict[str, Any] | None = None,
        unseen_dataset: Any | None = None,
        reference_model: str | PreTrainedModel | None = None,
        kept_fisher: str | os.PathLike[str] | FisherDiagonal | None = None,
        requests: Mapping[str, Sequence[int]] | None = None,
        processing_class: Any | None = None,
        log_likelihood_func: LogLikelihoodFunction | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        preprocess_logits_for_metrics: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        if args is None:
            args = FisherUnlearningConfig(f"{name_of_model(model)}-unlearned")
        elif not isinstance(args, FisherUnlearningConfig):
            args = FisherUnlearningConfig.from_training_arguments(args)
        check_fisher_type(args.fisher_type, log_likelihood_func)
        if log_likelihood_func is not None and args.label_smoothing_factor != 0:
            raise ValueError(
                f"`label_smoothing_factor={args.label_smoothing_factor}` smooths over the classes of a classification "
                "head, which a `log_likelihood_func` does not show. Leave one of the two out."
            )
        check_output_directory(args.output_dir, resuming=True)
        output = Path(args.output_dir)
        absent = [folder for folder in (output, *output.parents) if not folder.exists()]
        check_devices(args, model)
        self.unlearning_splits = _splits(forget_dataset, retain_dataset, eval_dataset, unseen_dataset)
        check_scope_of_model(model, args.reset_scope)
        self._source = model
        model = load_model(model, args.seed)
        self.reset_value = args.reset_value or default_reset_value(model)
        check_model(model, args.reset_scope, self.reset_value)
        scope = parameters_in_scope(model, args.target_modules, args.exclude_modules, reset_scope=args.reset_scope)
        if args.pretrained_model is not None:
            check_pretrained_model(model, scope, args.pretrained_model)
        num_labels = None if log_likelihood_func is not None else num_classes(model)
        for argument, dataset in self.unlearning_splits.items():
            check_dataset(dataset, f"{argument}_dataset", num_labels)
            check_sequence_lengths(model, dataset, f"{argument}_dataset")
        if is_stream(retain_dataset) and args.max_steps <= 0 and args.num_train_epochs > 0:
            raise ValueError(
                "`retain_dataset` is a stream, so the length of an epoch is not known. Set `max_steps`, the number of "
                "steps of the repair (or `num_train_epochs=0` for none)."
            )
        if is_stream(retain_dataset) and (args.hard_example_share or 1) < 1:
            raise ValueError(
                f"`hard_example_share={args.hard_example_share}` reads rows again by their losses, and "
                "`retain_dataset` is a stream. Leave it out, or pass a `datasets.Dataset`."
            )
        check_requests(requests, forget_dataset)
        self.kept_fisher = None
        if kept_fisher is not None:
            self.kept_fisher = _load_fisher(kept_fisher)
            check_kept_fisher(
                self.kept_fisher,
                model,
                scope,
                args.fisher_type,
                args.fisher_max_examples,
                forget_dataset,
                retain_dataset,
            )
        check_disjoint(forget_dataset, retain_dataset, disable_tqdm=args.disable_tqdm or not is_main_process())

        keep_base_differentiable(model)
        use_cache = getattr(model.config, "use_cache", None)
        # Trainer changes both, on construction and in training, and the cleaned model is saved with what they were.
        names = [name for name in ("config", "generation_config") if hasattr(model, name)]
        self._original_configs = {name: copy.deepcopy(getattr(model, name)) for name in names}
        super().__init__(
            model,
            args,
            data_collator,
            train_dataset=retain_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_loss_func=self._repair_loss,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        # Trainer makes the output directory at once; here it comes with the first thing that is written.
        if is_main_process():
            for folder in absent:
                with suppress(OSError):
                    folder.rmdir()
        # Trainer switches the cache off for good.
        if use_cache is None:
            vars(self.model.config).pop("use_cache", None)
        else:
            self.model.config.use_cache = use_cache
        self.forget_dataset = forget_dataset
        self.retain_dataset = retain_dataset
        self.unseen_dataset = unseen_dataset
        self.requests = {} if requests is None else dict(requests)
        self.log_likelihood_func = log_likelihood_func
        self.reference_model = None
        if reference_model is not None:
            self.reference_model = load_model(reference_model, args.seed).to(self.args.device)
            check_reference(self.model, self.reference_model)
        if args.relearning_steps > 0:
            check_relearning(self.model, self.reference_model, scope)
        if args.quantization_bits:
            check_quantization(self.model, self.reference_model)
        self.selection: WeightSelection | None = None
        self.search: SelectionSearch | None = None
        self._row_numbers = None
        self.freeze_guard: FreezeGuard | None = None
        self.seconds: dict[str, float] = {}
        self._max_grad_norm = args.max_grad_norm
        self._likelihood: Likelihood | None = None
        self._repair_inputs: dict[str, Any] = {}
        self._original_values: dict[str, torch.Tensor] = {}
        self._reference_log_probabilities: np.ndarray | None = None
        self._interruption = Interruption()
        self._state: RunState | None = None
        self._is_control = False
        for argument, dataset in self.unlearning_splits.items():
            _, batch = next(self._batches(dataset, 1, in_turns=False))
            check_batch_has_labels(batch, f"{argument}_dataset")

    @classmethod
    def from_trainer(
        cls,
        trainer: Trainer,
        *,
        forget_dataset: Any,
        retain_dataset: Any,
        unseen_dataset: Any | None = None,
        reference_model: str | PreTrainedModel | None = None,
        kept_fisher: str | os.PathLike[str] | FisherDiagonal | None = None,
        log_likelihood_func: LogLikelihoodFunction | None = None,
        **config_overrides: Any,
    ) -> "FisherUnlearner":
        """
        An unlearner for the model of an existing [`~transformers.Trainer`], with its collator, processing class,
        evaluation data, metrics, callbacks and arguments.

        Args:
            trainer ([`~transformers.Trainer`]):
                The trainer that trained the model.
            forget_dataset, retain_dataset, unseen_dataset, reference_model, kept_fisher, log_likelihood_func:
                As for [`FisherUnlearner`].
            config_overrides:
                Fields of [`FisherUnlearningConfig`] that differ from the trainer's arguments. By default the output
                directory is the trainer's, followed by `-unlearned`, the learning rate is five times the trainer's,
                because few weights move, and from far away, and no checkpoints are saved.

        Raises:
            `ValueError`: If the trainer has a loss of its own and no `log_likelihood_func` says what it stands for.
        """
        check_loss(trainer, log_likelihood_func)
        defaults = {
            "output_dir": f"{os.path.normpath(trainer.args.output_dir)}-unlearned",
            "save_strategy": "no",
            "load_best_model_at_end": False,
            "optim": "adamw_torch",
            "learning_rate": 5 * trainer.args.learning_rate,
        }
        args = FisherUnlearningConfig.from_training_arguments(trainer.args, **(defaults | config_overrides))
        return cls(
            trainer.accelerator.unwrap_model(trainer.model),
            args,
            trainer.data_collator,
            forget_dataset=forget_dataset,
            retain_dataset=retain_dataset,
            eval_dataset=trainer.eval_dataset,
            unseen_dataset=unseen_dataset,
            reference_model=reference_model,
            kept_fisher=kept_fisher,
            processing_class=trainer.processing_class,
            log_likelihood_func=log_likelihood_func,
            compute_metrics=trainer.compute_metrics,
            callbacks=[
                c for c in trainer.callback_handler.callbacks if not isinstance(c, (*_own_callbacks(), FisherCallback))
            ],
            preprocess_logits_for_metrics=trainer.preprocess_logits_for_metrics,
        )

    def unlearn(self, resume_from_checkpoint: str | bool | None = None) -> UnlearningReport:
        """
        Runs all phases, writes the cleaned model and `report.json` to the output directory, and returns the report.

        The folder is the owner's: the report says how many rows were forgotten, and `forget_commitment.json` holds the
        key of the commitment to them. [`~FisherUnlearner.push_to_hub`] publishes what others may see of it.

        Every phase leaves what it has done in the output directory, so that an interrupted run, even one that was
        killed, goes on from there and ends in the same bits: the same weights and the same figures but for the
        seconds. After SIGTERM or Ctrl-C the present step is finished and saved first. If the process goes on, the
        model in it is again what it was.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                `True` to go on with an interrupted run in the output directory, or to start one if there is none. The
                path of a checkpoint of the repair goes on from that one.

        Returns:
            [`UnlearningReport`]

        Raises:
            `FileExistsError`: If the output directory holds anything and nothing is resumed.
            `ValueError`: If what is to be resumed was started with another model, other data, other arguments or
                another number of processes; names the differences.
            `RuntimeError`: If a weight outside the selection or a buffer changed; nothing is saved then.
            `OSError`: If the output directory cannot be written or has too little room.
        """
        resuming = bool(resume_from_checkpoint)
        on_main_process(lambda: check_output_directory(self.args.output_dir, resuming=resuming))
        identity = self._identity()
        if self.kept_fisher is not None:
            self.kept_fisher.check_fresh(identity["model"])
        self._original_values = {}
        state = RunState(self.args.output_dir, self.args.state_save_seconds, self._interruption)
        state.open(identity, self._num_bytes_to_write())
        with self._interruption.watching(), overridden(self, _state=state, seconds=state.progress.seconds):
            try:
                report = self._unlearn(state, resume_from_checkpoint)
            except BaseException as error:
                # Of a sharded model that takes all processes, and the others may be gone.
                if self._original_values and not self._is_sharded():
                    write_weights(self.model, self.selection, self._original_values)
                if isinstance(error, Exception):
                    state.remove_if_empty()
                raise
            seconds = self.seconds
        self.seconds = seconds
        return report

    def _unlearn(self, state: RunState, checkpoint: str | bool | None) -> UnlearningReport:
        progress, stages = state.progress, {}
        if self.reference_model is not None:
            # Again in a resumed run: its answers are what the others are compared with.
            stages["reference"] = self.evaluate_unlearning(self.reference_model)
        stages["before"] = state.stage("before", self.evaluate_unlearning)
        selection = state.load_selection()
        if selection is None:
            selection = self._select_by_fishers(state)
            state.save_selection(selection)
        self.search = progress.search
        self.reset_weights(selection)
        stages["after_reset"] = state.stage("after_reset", self.evaluate_unlearning)
        repaired = state.load_repaired()
        if repaired is None:
            self.train(state.last_checkpoint() if checkpoint is True else checkpoint)
            state.save_repaired(read_weights(self.model, selection))
        else:
            write_weights(self.model, selection, repaired)
            self.freeze_guard.verify(self.model)
        stages["after_repair"] = state.stage("after_repair", self.evaluate_unlearning)
        integrity = self._integrity()
        if self.args.random_mask_control:
            self._run_control(state)
            stages |= {name: progress.stages[name] for name in ("control_after_reset", "control_after_repair")}
        for num_bits in self.args.quantization_bits or []:
            for stage, model in self._models_to_compare().items():
                name = f"{stage}_{num_bits}_bits"
                stages[name] = state.stage(name, partial(self._evaluate_quantized, model, num_bits))
        for data in self.args.relearning_data if self.args.relearning_steps > 0 else []:
            if data not in progress.relearning:
                progress.relearning[data] = self._measure_relearning(data)
                state.save()
                self._interruption.check()
        report = UnlearningReport(
            model_class=plain_class(base_model(self.model)).__name__,
            settings=self._settings(),
            selection=SelectionResult.of(selection, progress.plane),
            num_fisher_examples=progress.num_fisher_examples,
            stages=stages,
            integrity=integrity,
            seconds=dict(self.seconds),
            versions=self._versions(),
            seed=self.args.seed,
            fisher_fallback=progress.fisher_fallback,
            kept_fisher=progress.kept_fisher,
            provenance=on_main_process(lambda: Provenance.of(self._source)),
            gamma_trials=progress.gamma_trials,
            relearning=progress.relearning.get("forget"),
            further_relearning={data: found for data, found in progress.relearning.items() if data != "forget"},
            search=progress.search,
        )
        for shortfall in report.shortfalls() if is_main_process() else []:
            logger.warning(shortfall)
        state.put_in_place(lambda folder: self._write_result(folder, report), _LAST_FILES)
        state.remove()
        return report

    def _select_by_fishers(self, state: RunState) -> WeightSelection:
        """Notes all down that needs the Fishers, which are gone afterwards."""
        progress = state.progress
        forget, kept, selection = self.compute_fisher(self.forget_dataset, "forget Fisher"), self.kept_fisher, None
        if kept is not None:
            retain = kept - forget
            selection = self.select_weights(forget, retain)
            error = on_main_process(lambda: cancellation_error(kept, forget, selection))
            progress.kept_fisher = KeptFisherResult(kept.num_examples, error, error.matters, kept.refresh_cost())
        if kept is None or progress.kept_fisher.retain_pass:
            retain = self.compute_fisher(self.retain_dataset, "retain Fisher")
            selection = self.select_weights(forget, retain)
        progress.search = self.search
        progress.num_fisher_examples = {"forget": forget.num_examples, "retain": retain.num_examples}
        progress.fisher_fallback = forget.fallback_parameters | retain.fallback_parameters
        with self._timed("Fisher plane"):
            progress.plane = self._once(lambda: fisher_plane(forget, retain, selection))
        for gamma in (self.args.gamma_sweep or [])[len(progress.gamma_trials) :]:
            with self._timed("gamma sweep"), overridden(self, seconds={}):
                trial = self._try_gamma(gamma, forget, retain)
            progress.gamma_trials += (trial,)
            state.save()
            self._interruption.check()
        return selection

    def _try_gamma(self, gamma: float, forget: FisherDiagonal, retain: FisherDiagonal) -> GammaTrial:
        """Resets, evaluates, and leaves the model as it was."""
        selection = self._once(lambda: select_above(forget, retain, gamma))
        if selection.num_selected == 0:
            return GammaTrial(gamma, 0, None)
        return GammaTrial(gamma, selection.num_selected, self._tried(selection, self.evaluate_unlearning))

    def _tried(self, selection: WeightSelection, evaluate: Callable[[], T]) -> T | None:
        """What comes out of a reset, which is undone; `None` if there is nothing to reset the weights to."""
        originals = read_weights(self.model, selection)
        with restoring(self.model):
            try:
                self._reset(selection)
            except ValueError as error:
                # A few weights may all be in a new head, or be what they were before fine-tuning; the run can go on.
                logger.warning(f"The weights with a ratio above {selection.gamma:.4g} were not tried: {error}")
                return None
            else:
                return evaluate()
            finally:
                write_weights(self.model, selection, originals)

    def preview(self, num_examples: int = 64) -> UnlearningPreview:
        """
        A dry run on a sample: what would be reset, and what the run would cost. Weights, buffers, gradients, training
        flags and random states are afterwards what they were, bit for bit, and nothing is written.

        Args:
            num_examples (`int`, *optional*, defaults to `64`):
                Size of the sample of the forget and of the retain data; at least two batches of each phase are taken.

        Returns:
            [`UnlearningPreview`]

        Raises:
            `FileExistsError`: If the output directory holds anything.
            `ValueError`: If a data set is a stream, or as for [`~FisherUnlearner.unlearn`], where the sample shows it.
        """
        streams = [split for split, dataset in self.unlearning_splits.items() if is_stream(dataset)]
        if streams:
            raise ValueError(
                f"A preview draws a sample and counts the rows, and the {streams[0]} data are a stream. Pass a part "
                "of them as a `datasets.Dataset` to an unlearner of its own."
            )
        check_output_directory(self.args.output_dir, resuming=False)
        restored = ("optimizer", "selection", "freeze_guard", "_likelihood", "_repair_inputs")
        timer = TimedCollator(self.data_collator)
        with (
            restoring(self.model),
            overridden(
                self,
                data_collator=timer,
                compute_metrics=None,
                seconds={},
                unlearning_splits=dict(self.unlearning_splits),
                _original_values={},
                search=None,
                _reference_log_probabilities=None,
                **{name: getattr(self, name) for name in restored},
            ),
            # The collator notes the time in this process.
            overridden(self.args, dataloader_num_workers=0),
        ):
            try:
                return self._preview(num_examples, timer)
            finally:
                if self._original_values:
                    write_weights(self.model, self.selection, self._original_values)

    def _preview(self, num_examples: int, timer: TimedCollator) -> UnlearningPreview:
        args, control, processes = self.args, self.args.random_mask_control, num_processes()
        fishers, seconds = {}, {"evaluation": 0.0}
        for split, dataset in (("forget", self.forget_dataset), ("retain", self.retain_dataset)):
            sample = self._sample(dataset, max(num_examples, 2 * args.per_device_fisher_batch_size * processes))
            fishers[split] = self.compute_fisher(sample, f"{split} Fisher, sample")
            size = min(len(dataset), self._max_fisher_examples(dataset) or len(dataset))
            seconds[f"{split} Fisher"] = timer.seconds(math.ceil(size / processes))
        self.select_weights(fishers["forget"], fishers["retain"])
        self.reset_weights()
        step, optimizer_bytes = self._measure_repair_step(
            max(num_examples, 2 * args.train_batch_size * processes), timer
        )
        write_weights(self.model, self.selection, self._original_values)
        with self._timed("verification"):
            self.freeze_guard.verify(self.model)

        num_evaluated = sum(map(len, self.unlearning_splits.values()))
        self.unlearning_splits = {
            split: self._sample(self.unlearning_splits[split], max(num_examples, 2 * args.eval_batch_size * processes))
            for split in ("forget", "retain")
        }
        self.evaluate_unlearning()
        evaluation = timer.seconds(math.ceil(num_evaluated / processes))
        num_steps = self._num_repair_steps()
        penalty = self._forget_penalty()
        if penalty is not None:
            # A batch to forget forwards and backwards, and an unseen one forwards.
            step *= 1 + (1 + 1 / 3) / (penalty.period * args.gradient_accumulation_steps)
        seconds |= {
            "evaluation": (3 + (self.reference_model is not None)) * evaluation,
            "selection": self.seconds["selection"],
            "reset": self.seconds["reset"],
            "repair": num_steps * step + self.seconds["verification"],
        }
        if args.gamma_sweep:
            seconds["gamma sweep"] = len(args.gamma_sweep) * (seconds["reset"] + evaluation)
        if args.relearning_steps > 0:
            of_forget = evaluation * len(self.forget_dataset) / num_evaluated
            steps = args.relearning_steps * step / args.gradient_accumulation_steps
            curve = steps + len(evaluated_steps(args.relearning_steps)) * of_forget
            seconds["relearning"] = len(set(args.relearning_data)) * len(self._models_to_compare()) * curve
        if args.quantization_bits:
            num_forms = len(set(args.quantization_bits)) * len(self._models_to_compare())
            seconds["quantization"] = num_forms * evaluation
        if control:
            seconds["control"] = seconds["reset"] + seconds["repair"] + 2 * evaluation
        return UnlearningPreview(
            model_class=type(base_model(self.model)).__name__,
            selection=SelectionResult.of(self.selection),
            num_sampled={split: fisher.num_examples for split, fisher in fishers.items()},
            num_repair_steps=num_steps,
            seconds=seconds,
            fisher_bytes=sum(total.nbytes for fisher in fishers.values() for total in fisher.sums.values()),
            optimizer_bytes=optimizer_bytes,
        )

    def _sample(self, dataset: Any, size: int) -> Any:
        """At most so many rows, drawn at random by the seed; of a stream the first ones."""
        if is_stream(dataset):
            return first_rows(dataset, size)
        if size >= len(dataset):
            return dataset
        drawn = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(self.args.seed))[:size]
        return Subset(dataset, drawn.sort().values.tolist())

    def _measure_repair_step(self, size: int, timer: TimedCollator) -> tuple[float, int]:
        """Seconds of an optimizer step after a first one, and bytes that the optimizer holds."""
        sample, model = self._sample(self.retain_dataset, size), self.model
        batches = chain.from_iterable(self._batches(sample, self.args.train_batch_size) for _ in count())
        self.optimizer = None
        with self._only_selected_trainable(), checkpointing_activations(model, self.args.gradient_checkpointing):
            optimizer = self.create_optimizer()
            for group in optimizer.param_groups:
                # The same work, and no step that could go astray without the warm-up of the schedule.
                group["lr"] = 0.0
            model.train()
            for _ in range(2):
                start = time.perf_counter()
                for _, batch in islice(batches, self.args.gradient_accumulation_steps):
                    with self.accelerator.autocast():
                        loss = self.compute_loss(model, self._prepare_inputs(batch), num_items_in_batch=1)
                    loss.backward()
                optimizer.step()
                model.zero_grad()
                seconds = time.perf_counter() - start
        timer.seconds(0)
        held = [*self.selection.indices.values()]
        held += [value for state in optimizer.state.values() for value in state.values()]
        return seconds, sum(tensor.nbytes for tensor in held)

    def _num_repair_steps(self) -> int:
        if self.args.max_steps > 0:
            return self.args.max_steps
        return math.ceil(self.args.num_train_epochs * self._num_steps_per_epoch())

    def _num_steps_per_epoch(self) -> int:
        args = self.args
        batches = len(self.retain_dataset) / (args.train_batch_size * num_processes())
        batches = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
        return max(1, math.ceil(batches / args.gradient_accumulation_steps))

    def compute_fisher(self, dataset: Any, description: str = "Fisher") -> FisherDiagonal:
        """
        The Fisher diagonal of the weights in scope on a data set, at the model's present weights.

        Args:
            dataset ([`~datasets.Dataset`] or map-style):
                The data set; of more than `args.fisher_max_examples` rows, or its default, as many are drawn at
                random.
            description (`str`, *optional*, defaults to `"Fisher"`):
                Shown beside the progress bar, and the name of the phase in `seconds`.

        Returns:
            [`FisherDiagonal`]
        """
        limit = self._max_fisher_examples(dataset)
        if limit is not None:
            dataset = self._sample(dataset, limit)
        batch_size = self.args.per_device_fisher_batch_size
        with self._timed(description):
            return accumulate_over_processes(
                self.model,
                lambda start, earlier: self._batches(dataset, batch_size, description, start=start, earlier=earlier),
                batch_size,
                checkpoint=None if self._state is None else self._state.fisher_checkpoint(description),
                fisher_type=self.args.fisher_type,
                log_likelihood_func=self.log_likelihood_func,
                parameters=parameters_in_scope(
                    self.model,
                    self.args.target_modules,
                    self.args.exclude_modules,
                    reset_scope=self.args.reset_scope,
                ),
                seed=self.args.seed,
                accumulator_device=self.args.accumulator_device,
            )

    def _max_fisher_examples(self, dataset: Any) -> int | None:
        if self.args.fisher_max_examples is not None or self.args.selection != "auto":
            return self.args.fisher_max_examples
        # The first rows of a stream may all be of one class, and a kept Fisher is that of all rows.
        return None if is_stream(dataset) or self.kept_fisher is not None else _MAX_FISHER_EXAMPLES

    def select_weights(self, forget: FisherDiagonal, retain: FisherDiagonal) -> WeightSelection:
        """
        Selects the weights to reset, by the rule in `args`, and keeps the selection for the next phases. The rule
        `"auto"` tries resets on the model for it, which is afterwards what it was; how it went is in `search`.

        Args:
            forget ([`FisherDiagonal`]):
                Fisher diagonal of the forget set.
            retain ([`FisherDiagonal`]):
                Fisher diagonal of the retain set.

        Returns:
            [`WeightSelection`]
        """
        if self.args.selection == "auto":
            with self._timed("selection"):
                self.selection, self.search = self._search_selection(forget, retain)
            return self.selection
        share = None
        if not is_stream(self.forget_dataset) and not is_stream(self.retain_dataset):
            share = len(self.forget_dataset) / (len(self.forget_dataset) + len(self.retain_dataset))
        rule = {"gamma": self.args.gamma, "reset_fraction": self.args.reset_fraction, "forget_share": share}
        with self._timed("selection"):
            self.selection = self._once(lambda: select_weights(forget, retain, self.args.selection, **rule))
        self.search = None
        return self.selection

    def _search_selection(
        self, forget: FisherDiagonal, retain: FisherDiagonal
    ) -> tuple[WeightSelection, SelectionSearch]:
        datasets = {"forget": self.forget_dataset, "retain": self.retain_dataset}
        samples = {
            split: self._sample(dataset, self.args.num_selection_examples) for split, dataset in datasets.items()
        }

        def predict() -> dict[str, ExamplePredictions]:
            return {split: self._predict(self.model, rows, f"try on {split}") for split, rows in samples.items()}

        @cache
        def largest() -> LargestRatios:
            return LargestRatios(forget, retain)

        def select(number: int) -> WeightSelection:
            return self._once(lambda: largest().select(number))

        def evaluate(selection: WeightSelection) -> dict[str, ExamplePredictions]:
            return self._tried(selection, predict) or before

        number = self._once(lambda: largest().num_candidates)
        with overridden(self, compute_metrics=None):
            before = predict()
            target = self.args.target or self._target_of_request(before)
            unseen = base = None
            if self.unseen_dataset is not None:
                rows = self._sample(self.unseen_dataset, _MAX_UNSEEN_EXAMPLES)
                unseen = self._predict(self.model, rows, "try on unseen")
            if self.args.reset_scope == "adapter":
                base = evaluate(select(number))["retain"]
            trials, steps = self.args.num_selection_trials, self._num_repair_steps()
            return search_selection(number, select, before, evaluate, target, trials, steps, unseen, base)

    def _target_of_request(self, samples: Mapping[str, ExamplePredictions]) -> str:
        """By the classes of all examples where they have been evaluated, else by those of the samples."""
        if self._state is not None:
            splits = self._state.progress.stages["before"].splits
        else:
            splits = {split: summarize_predictions(answers) for split, answers in samples.items()}
        return target_of_request(splits["forget"].per_class, splits["retain"].per_class)

    def _once(self, function: Callable[[], T]) -> T:
        """
        What a function makes of Fishers: of a sharded model's in all processes together, else in the main process and
        not in every one, because their sums may differ in the last bit.
        """
        return function() if self._is_sharded() else on_main_process(function)

    def reset_weights(self, selection: WeightSelection | None = None) -> None:
        """
        Resets the selected weights to `reset_value`, and takes the fingerprint of everything else.

        Args:
            selection ([`WeightSelection`], *optional*):
                The weights to reset, by default those of [`~FisherUnlearner.select_weights`].

        Raises:
            `RuntimeError`: If no weights were selected.
        """
        if selection is not None:
            self.selection = selection
        if self.selection is None:
            raise RuntimeError("There is no selection of weights to reset. Call `select_weights` first, or pass one.")
        with self._timed("reset"):
            self.freeze_guard = FreezeGuard(self.model, self.selection)
            self._original_values = read_weights(self.model, self.selection)
            self._reset(self.selection)

    def _reset(self, selection: WeightSelection) -> None:
        reset_weights(
            self.model,
            selection,
            self.reset_value,
            pretrained_model=self.args.pretrained_model,
            seed=self.args.seed,
        )

    def _forget_penalty(self) -> ForgetPenalty | None:
        weight, rise = self._weight_and_rise_of_penalty()
        if self.search is None or self.search.unseen_losses is None or weight == 0:
            return None

        def rows(dataset: Any) -> Any:
            # A stream cannot be read in another order; its first rows are kept in memory.
            return list(first_rows(dataset, _MAX_UNSEEN_EXAMPLES)) if is_stream(dataset) else dataset

        (forget, collator), (unseen, _) = (
            rows_and_collator(self, rows(dataset), "penalty") for dataset in (self.forget_dataset, self.unseen_dataset)
        )
        num_batches = math.ceil(len(forget) / (self.args.train_batch_size * num_processes()))
        # The length of an epoch of a stream is not known.
        num_steps = 0 if is_stream(self.retain_dataset) else self._num_steps_per_epoch()
        return ForgetPenalty(
            forget,
            unseen,
            collator,
            self.search.unseen_losses,
            weight,
            self.args.train_batch_size,
            penalty_period(num_steps, num_batches),
            rise,
            self.args.seed,
        )

    def _weight_and_rise_of_penalty(self) -> tuple[float, float]:
        is_classifier = self.search is not None and self.search.is_of_classes
        weight, rise = _PENALTY_OF_CLASSIFIERS if is_classifier else _PENALTY_OF_LANGUAGE_MODELS
        if self.args.reset_scope == "adapter":
            rise = _PENALTY_RISE_OF_ADAPTERS
        return weight if self.args.forget_penalty is None else self.args.forget_penalty, rise

    def _hard_example_share(self) -> float:
        share, is_ordered = self.args.hard_example_share, self.args.train_sampling_strategy == "random"
        if share is not None or is_stream(self.retain_dataset) or not is_ordered:
            return 1.0 if share is None else share
        # Otherwise the largest losses are also those of rows that the model never knew, and is not to learn now.
        search = self.search
        is_known = search is not None and search.is_of_classes and search.before.retain >= _KNOWN_BY_HEART
        return _HARD_EXAMPLE_SHARE if is_known else 1.0

    def evaluate_unlearning(self, model: PreTrainedModel | None = None) -> StageResult:
        """
        Results on the forget, retain, eval and unseen data, with the membership attack of forget against unseen.

        Args:
            model ([`~transformers.PreTrainedModel`], *optional*):
                The model to evaluate, by default the one that is being cleaned.

        Returns:
            [`StageResult`]
        """
        model = self.model if model is None else model
        with self._timed("evaluation"):
            predictions = {
                split: self._predict(model, dataset, f"evaluate {split}")
                for split, dataset in self.unlearning_splits.items()
            }
        membership, min_k_membership = _attacks(predictions["forget"], predictions.get("unseen"))
        outputs = predictions["forget"].log_probabilities
        divergence = divergence_interval = None
        if model is self.reference_model:
            self._reference_log_probabilities = outputs
        elif self._reference_log_probabilities is not None and outputs is not None:
            divergences = jensen_shannon_divergence(outputs, self._reference_log_probabilities)
            divergence, divergence_interval = float(divergences.mean()), mean_interval(divergences, (0.0, math.log(2)))
        names = getattr(self.model.config, "id2label", None)
        of_requests = {name: predictions["forget"].select(rows) for name, rows in self.requests.items()}
        return StageResult(
            {split: summarize_predictions(p, names, self._metrics(p)) for split, p in predictions.items()},
            membership,
            divergence,
            min_k_membership,
            {
                name: RequestResult(
                    summarize_predictions(p, names, self._metrics(p)), *_attacks(p, predictions.get("unseen"))
                )
                for name, p in of_requests.items()
            },
            divergence_interval,
        )

    def _predict(self, model: PreTrainedModel, dataset: Any, description: str) -> ExamplePredictions:
        """The answers on a whole data set, in its order and in every process."""
        places = []

        def batches() -> Iterator[Mapping[str, Any]]:
            own = self._batches(dataset, self.args.eval_batch_size, description)
            for place, batch in self._in_step(own, dataset) if self._is_sharded() else own:
                self._interruption.check()
                places.append(place)
                yield batch

        predictions = predict_batches(
            model,
            batches(),
            self.log_likelihood_func,
            self.preprocess_logits_for_metrics,
            keep_logits=self.compute_metrics is not None,
        )
        own = list(predictions)
        shares = gather_objects([pair for pair in zip(places, own, strict=True) if pair[0] is not None])
        return join_predictions([part for _, part in sorted(chain.from_iterable(shares), key=lambda pair: pair[0])])

    def _in_step(
        self, batches: Iterator[tuple[int, Mapping[str, Any]]], dataset: Any
    ) -> Iterator[tuple[int | None, Mapping[str, Any]]]:
        """As many batches in every process; those without a place are there so that the processes stay in step."""
        _, spare = next(self._batches(dataset, 1, in_turns=False))
        while True:
            place, batch = next(batches, (None, spare))
            self._interruption.share(gather_objects)
            if all(other is None for other in gather_objects(place)):
                return
            yield place, batch

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        private: bool = True,
        exist_ok: bool = False,
        create_pr: bool = False,
        revision: str | None = None,
        commit_message: str = "Add the cleaned model",
        gated: str | None = None,
        needles: Needles | None = None,
        token: str | bool | None = None,
        api: HfApi | None = None,
        **publication: Any,
    ) -> PushResult:
        """
        Publishes the cleaned model that [`~FisherUnlearner.unlearn`] has written: weights, configuration, tokenizer or
        processor, card, pictures and the public form of the report, in one commit.

        Before the first request every byte is searched for the forget data and for traces of this machine.

        Args:
            repo_id (`str`):
                The repository, `"me/clean-model"`.
            private, exist_ok, create_pr, revision, commit_message, gated, token, api:
                As for [`push_folder_to_hub`]: a new private repository, unless said otherwise.
            needles ([`Needles`], *optional*):
                What must not be published beside the forget data as they were given to this class, such as
                `needles_of_dataset(rows)` of the rows as they were before their preparation.
            publication:
                Fields of [`Publication`]: `base_model`, `forget_disclosure`, `forget_description`, `gated_prompt`,
                `allowed`.

        Returns:
            [`PushResult`]: `print` it: it ends with what is left to do.

        Raises:
            `FileNotFoundError`: If there is no result of a finished run.
            `FileExistsError`: If the repository holds something and neither `exist_ok` nor `create_pr` is set.
            `LeakError`: If something would leak; no request was made then.
            `ConnectionError`: If the Hub fails or refuses; says what became of the repository.
        """
        return on_main_process(
            lambda: push_folder_to_hub(
                self.args.output_dir,
                repo_id,
                needles=self._needles(needles),
                publication=Publication(**publication),
                private=private,
                exist_ok=exist_ok,
                create_pr=create_pr,
                revision=revision,
                commit_message=commit_message,
                gated=gated,
                token=token,
                api=api,
            )
        )

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, needles: Needles | None = None, **publication: Any
    ) -> list[str]:
        """
        Writes what [`~FisherUnlearner.push_to_hub`] would publish to a new folder, by the same rules.

        Args:
            folder (`str`):
                The folder.
            needles, publication:
                As for [`~FisherUnlearner.push_to_hub`].

        Returns:
            `list[str]`: The files, relative to it.

        Raises:
            `FileNotFoundError`: If there is no result of a finished run.
            `FileExistsError`: If the folder holds something.
            `LeakError`: If something would leak; nothing is written then.
        """
        return on_main_process(
            lambda: save_published(self.args.output_dir, folder, self._needles(needles), Publication(**publication))
        )

    def create_model_card(self, **publication: Any) -> None:  # type: ignore[override]
        """
        Writes the card of the finished run to the output directory, without pictures.

        Args:
            publication:
                Fields of [`Publication`].

        Raises:
            `FileNotFoundError`: If there is no result of a finished run.
            `FileExistsError`: If there is a README.md that somebody has written.
        """
        on_main_process(lambda: write_card(self.args.output_dir, Publication(**publication)))

    def _needles(self, further: Needles | None = None) -> Needles:
        """What of the data to forget and of the run must not be published."""
        # A processor of texts and images has one, and one of images alone has not.
        tokenizer = getattr(self.processing_class, "tokenizer", self.processing_class)
        tokenizer = tokenizer if hasattr(tokenizer, "decode") else None
        rows = needles_of_dataset(self.forget_dataset, tokenizer=tokenizer, names=list(self.requests))
        of_run = needles_of_machine(run_name=self.args.run_name, hub_token=self.args.hub_token)
        return rows | of_run if further is None else rows | of_run | further

    def _run_control(self, state: RunState) -> None:
        """Resets and repairs as many random weights of the model as it was, then puts the cleaned one back."""
        if "control_after_repair" in state.progress.stages:
            return
        selection, originals = self.selection, self._original_values
        cleaned = read_weights(self.model, selection)
        restored = ("state", "optimizer", "lr_scheduler", "selection", "freeze_guard", "_original_values")
        callbacks = [c for c in self.callback_handler.callbacks if isinstance(c, _own_callbacks())]
        with self._timed("control"):
            with (
                overridden(self, seconds={}, _is_control=True, **{name: getattr(self, name) for name in restored}),
                overridden(self.callback_handler, callbacks=callbacks),
                overridden(self.args, save_strategy="no", eval_strategy="no", load_best_model_at_end=False),
            ):
                write_weights(self.model, selection, originals)
                try:
                    self.reset_weights(select_random_weights(selection, self.args.seed))
                    state.stage("control_after_reset", self.evaluate_unlearning)
                    self.train()
                    state.stage("control_after_repair", self.evaluate_unlearning)
                finally:
                    if self._original_values is not originals:
                        write_weights(self.model, self.selection, self._original_values)
                    write_weights(self.model, selection, cleaned)
            self.freeze_guard.verify(self.model)

    def _models_to_compare(self) -> dict[str, PreTrainedModel]:
        """The models that further measurements are taken of, by their stage."""
        models = {"after_repair": self.model, "reference": self.reference_model}
        return {stage: model for stage, model in models.items() if model is not None}

    def _evaluate_quantized(self, model: PreTrainedModel, num_bits: int) -> StageResult:
        """Evaluates a model with rounded weights, and leaves it as it was."""
        with self._timed("quantization"):
            with (
                # The answers of the reference as it is are what all others are compared with, its rounded form too.
                overridden(self, seconds={}, reference_model=None),
                quantized(model, num_bits),
            ):
                result = self.evaluate_unlearning(model)
            self.freeze_guard.verify(self.model)
        return result

    def _measure_relearning(self, data: str) -> RelearningResult:
        """Every process trains the same copies, which are evaluated by all together."""
        num_steps, learning_rate = self.args.relearning_steps, self.args.relearning_learning_rate
        if learning_rate is None:
            learning_rate = self.args.learning_rate / 10
        scope = parameters_in_scope(
            self.model, self.args.target_modules, self.args.exclude_modules, reset_scope=self.args.reset_scope
        )

        def evaluate(model: PreTrainedModel) -> SplitResult:
            return summarize_predictions(self._predict(model, self.forget_dataset, "evaluate relearning"))

        results = {}
        with self._timed("relearning"):
            for stage, model in self._models_to_compare().items():
                with restoring(model):
                    set_seed(self.args.seed)
                    batches = self._relearning_batches(data)
                    results[stage] = relearning_curve(
                        model, scope, batches, evaluate, num_steps, learning_rate, self.log_likelihood_func
                    )
            self.freeze_guard.verify(self.model)
        num_forget_examples = self.args.relearning_num_examples if data == "few_forget" else None
        return RelearningResult.of(evaluated_steps(num_steps), learning_rate, results, num_forget_examples)

    def _relearning_batches(self, data: str) -> Iterator[Mapping[str, Any]]:
        """Batches without end, the same in every process."""
        batch_size = self.args.train_batch_size

        def repeated(dataset: Any) -> Iterator[Mapping[str, Any]]:
            while True:
                for _, batch in self._batches(dataset, batch_size, in_turns=False):
                    self._interruption.check()
                    yield batch

        if data == "forget":
            return repeated(self.forget_dataset)
        retain = self.retain_dataset
        if not is_stream(retain):
            # In an order of their own: the first rows may all be of one class.
            drawn = torch.randperm(len(retain), generator=torch.Generator().manual_seed(self.args.seed))
            retain = Subset(retain, drawn[: batch_size * self.args.relearning_steps].tolist())
        if data == "retain":
            return repeated(retain)
        few = self._sample(self.forget_dataset, self.args.relearning_num_examples)
        return chain.from_iterable(zip(repeated(few), repeated(retain), strict=True))

    def _integrity(self) -> IntegrityResult:
        values = read_weights(self.model, self.selection)
        return IntegrityResult(
            sum(int((values[name] != original).sum()) for name, original in self._original_values.items()),
            self.freeze_guard.num_frozen_weights,
            self.freeze_guard.num_buffer_entries,
            self.freeze_guard.checksum,
            num_base_weights(self.model) if is_adapted(self.model) else None,
        )

    def _metrics(self, predictions: ExamplePredictions) -> dict[str, float]:
        if self.compute_metrics is None:
            return {}
        arguments = {"compute_result": True} if self.args.batch_eval_metrics else {}
        outcome = EvalPrediction(predictions=predictions.logits, label_ids=predictions.labels)
        return {name: float(value) for name, value in self.compute_metrics(outcome, **arguments).items()}

    def _batches(
        self, dataset: Any, batch_size: int, description: str | None = None, **kwargs: Any
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        return trainer_batches(self, dataset, batch_size, description, **kwargs)

    def _settings(self) -> dict[str, Any]:
        own = {item.name for item in fields(FisherUnlearningConfig)} - {
            item.name for item in fields(TrainingArguments)
        }
        repair = {
            *("num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay"),
            *("max_grad_norm", "per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16"),
        }
        # `to_dict` turns enumerations into their values.
        settings = {name: value for name, value in self.args.to_dict().items() if name in own | repair}
        return settings | {
            "reset_value": self.reset_value,
            "forget_penalty": self._weight_and_rise_of_penalty()[0],
            "hard_example_share": self._hard_example_share(),
        }

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the interrupted one to end in the same bits."""
        weights = {"model": weights_fingerprint(self.model)}
        if self.reference_model is not None:
            weights["reference_model"] = weights_fingerprint(self.reference_model)
        rows = {f"{split}_dataset": dataset for split, dataset in self.unlearning_splits.items()}
        settings = self.args.to_dict() | {"reset_value": self.reset_value}
        return (
            weights
            | on_main_process(lambda: {name: dataset_fingerprint(dataset) for name, dataset in rows.items()})
            | {
                "num_processes": num_processes(),
                "kept_fisher": None if self.kept_fisher is None else self.kept_fisher.num_examples,
                "requests": {name: list(rows) for name, rows in self.requests.items()},
                "settings": {name: value for name, value in settings.items() if not name.startswith(_WITHOUT_EFFECT)},
                "versions": self._versions(),
            }
        )

    def _num_bytes_to_write(self) -> int:
        """The result, and the sums of both Fishers of every process."""
        scope = parameters_in_scope(
            self.model, self.args.target_modules, self.args.exclude_modules, reset_scope=self.args.reset_scope
        )
        tensors = scope.values() if is_adapted(self.model) else chain(self.model.parameters(), self.model.buffers())
        sums = sum(4 * parameter.numel() for parameter in scope.values())
        return sum(tensor.nbytes for tensor in tensors) + 2 * num_processes() * sums

    def _versions(self) -> dict[str, str]:
        packages = ["hf-deepclean", "torch", "transformers", "datasets", "accelerate", "safetensors"]
        packages += ["peft"] if is_adapted(self.model) else []
        return {"python": platform.python_version()} | {package: version(package) for package in packages}

    def _write_result(self, folder: Path, report: UnlearningReport) -> None:
        # To write a sharded model takes all processes, of which the main one writes.
        if is_main_process() or self._is_sharded():
            if is_adapted(self.model):
                save_adapter(self.model, folder)
            else:
                with overridden(self.model, **self._original_configs):
                    self.model.save_pretrained(folder)
        if not is_main_process():
            return
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        ForgetCommitment.of(self.forget_dataset).save(folder / COMMITMENT_NAME)
        report.save(folder / REPORT_NAME)


def _attacks(
    forget: ExamplePredictions, unseen: ExamplePredictions | None
) -> tuple[MembershipAttack | None, MembershipAttack | None]:
    """By the likelihood, and for token-level heads by the least probable tokens; none without unseen data."""
    if unseen is None:
        return None, None
    by_tokens = None
    if forget.tokens is not None:
        by_tokens = membership_attack(forget.min_k_confidence(), unseen.min_k_confidence())
    return membership_attack(forget.confidence(), unseen.confidence()), by_tokens


def _load_fisher(fisher: str | os.PathLike[str] | FisherDiagonal) -> FisherDiagonal:
    if isinstance(fisher, FisherDiagonal):
        return fisher
    return FisherDiagonal.load(fisher) if Path(fisher).is_file() else FisherDiagonal.from_pretrained(fisher)


def _splits(forget: Any, retain: Any, evaluation: Any | dict[str, Any] | None, unseen: Any | None) -> dict[str, Any]:
    splits = {"forget": forget, "retain": retain}
    if isinstance(evaluation, Mapping):
        splits |= {f"eval_{name}": dataset for name, dataset in evaluation.items()}
    elif evaluation is not None:
        splits["eval"] = evaluation
    if unseen is not None:
        splits["unseen"] = unseen
    return splits


def _own_callbacks() -> tuple[type[TrainerCallback], ...]:
    return (*DEFAULT_CALLBACKS, DEFAULT_PROGRESS_CALLBACK, PrinterCallback)
