# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The phases of unlearning, in order, beside the Trainer API."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import DEFAULT_CALLBACKS, DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import TrainOutput

from .config import FisherUnlearningConfig
from .data.streams import is_stream
from .evaluation.evaluator import Evaluator
from .evaluation.stages import StageResult
from .fisher.callback import FisherCallback
from .fisher.diagonal import FisherDiagonal
from .models.adapters.parameters import keep_base_differentiable
from .models.checks import check_loss
from .models.label_alignment import LogLikelihoodFunction
from .models.loading import name_of_model
from .phases import Phases
from .planning.preview import PreviewRun, TimedCollator, UnlearningPreview
from .publishing.mixin import PublishingMixin
from .repair.control import run_control
from .repair.trainer import RepairTrainer
from .report.report import REPORT_NAME, UnlearningReport
from .report.results import IntegrityResult
from .request import UnlearningRequest, name_splits
from .reset.freeze_guard import FreezeGuard
from .reset.weights import read_weights, write_weights
from .run_state import RunState, check_output_directory, identity_of_run, num_bytes_to_write
from .runtime.clock import PhaseClock
from .runtime.processes import is_main_process, on_main_process
from .selection.search import SelectionSearch
from .selection.weight_selection import WeightSelection


logger = logging.getLogger(__name__)

# Written last: without these files nothing loads the folder as a model, or takes it for a finished run.
_LAST_FILES = ("config.json", "adapter_config.json", REPORT_NAME)


class FisherUnlearner(PublishingMixin, RepairTrainer):
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

    selection: WeightSelection | None = None
    search: SelectionSearch | None = None

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
        check_output_directory(args.output_dir, resuming=True)
        self.request = UnlearningRequest.of(
            model,
            args,
            name_splits(forget_dataset, retain_dataset, eval_dataset, unseen_dataset),
            reference_model=reference_model,
            kept_fisher=kept_fisher,
            requests=requests,
            log_likelihood_func=log_likelihood_func,
        )
        keep_base_differentiable(self.request.model)
        super().__init__(
            self.request.model,
            args,
            data_collator,
            train_dataset=retain_dataset,
            log_likelihood_func=log_likelihood_func,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        self.forget_dataset, self.retain_dataset = forget_dataset, retain_dataset
        self.unseen_dataset, self.reference_model = unseen_dataset, self.request.reference_model
        self.kept_fisher, self.requests = self.request.kept_fisher, self.request.requests
        # An evaluator that compares with the reference model, once that has been evaluated.
        self._compared: Evaluator | None = None
        self.request.check_batches(self.batch_source)

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
        on_main_process(lambda: check_output_directory(self.args.output_dir, resuming=bool(resume_from_checkpoint)))
        identity = identity_of_run(self.request, self.args)
        if self.kept_fisher is not None:
            self.kept_fisher.check_fresh(identity["model"])
        state = RunState(self.args.output_dir, self.args.state_save_seconds, self.interruption)
        state.open(identity, num_bytes_to_write(self.request, self.args))
        self.clock, self.reset = PhaseClock(state.progress.seconds), None
        with self.interruption.watching():
            try:
                return self._run(state, resume_from_checkpoint)
            except BaseException as error:
                # The other processes of a sharded model may be gone.
                if self.reset is not None and not self.is_sharded:
                    self.reset.undo()
                    self.reset = None
                if isinstance(error, Exception):
                    state.remove_if_empty()
                raise

    def _run(self, state: RunState, checkpoint: str | bool | None) -> UnlearningReport:
        phases, stages = self._phases, {}
        evaluator = phases.evaluator()
        if self.reference_model is not None:
            # Also in a resumed run: all others are compared with its answers.
            evaluator, stages["reference"] = evaluator.compared_with(self.reference_model)

        def evaluate(name: str) -> None:
            stages[name] = state.stage(name, lambda: evaluator.evaluate(self.model))

        evaluate("before")
        self.selection = state.load_selection()
        if self.selection is None:
            self.selection = phases.choose_weights(state, evaluator)
            state.save_selection(self.selection)
        self.search = state.progress.search
        self.reset = phases.resetter().reset(self.selection)
        evaluate("after_reset")
        self._repair(state, checkpoint)
        evaluate("after_repair")
        integrity = IntegrityResult.of(self.reset)
        if self.args.random_mask_control:
            self._run_control(state, evaluate)
        stages |= phases.measure_recovery(state, evaluator, self.reset.guard)
        report = phases.report(state, self.selection, stages, integrity)
        for shortfall in report.shortfalls() if is_main_process() else []:
            logger.warning(shortfall)
        state.put_in_place(phases.write_result(report), _LAST_FILES)
        state.remove()
        return report

    def _repair(self, state: RunState, checkpoint: str | bool | None) -> None:
        repaired = state.load_repaired()
        if repaired is None:
            self.train(state.last_checkpoint() if checkpoint is True else checkpoint)
            state.save_repaired(read_weights(self.model, self.selection))
        else:
            write_weights(self.model, self.selection, repaired)
            self.reset.guard.verify(self.model)

    def _run_control(self, state: RunState, evaluate: Callable[[str], None]) -> None:
        if "control_after_repair" not in state.progress.stages:
            plan = self._phases.repair_plan(self.search)
            with self.clock.phase("control"):
                run_control(self, plan, self._phases.resetter(), self.reset, evaluate)
        for name in ("control_after_reset", "control_after_repair"):
            evaluate(name)

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
        streams = [split for split, dataset in self.request.splits.items() if is_stream(dataset)]
        if streams:
            raise ValueError(
                f"A preview draws a sample and counts the rows, and the {streams[0]} data are a stream. Pass a part "
                "of them as a `datasets.Dataset` to an unlearner of its own."
            )
        check_output_directory(self.args.output_dir, resuming=False)
        timer = TimedCollator(self.data_collator)
        # The collator notes the time in this process, so there are no workers.
        source = replace(self.batch_source, collator=timer, num_workers=0)
        return PreviewRun(replace(self._phases, source=source, clock=PhaseClock()), timer).preview(num_examples)

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
        return self._phases.fisher(dataset, description)

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
        phases = self._phases
        self.selection, self.search = phases.selector().select(
            forget, retain, phases.evaluator(), phases.resetter().tried
        )
        return self.selection

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
        self.reset = self._phases.resetter().reset(self.selection)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput | None:
        """Repairs the selected weights; see [`RepairTrainer.train`]."""
        self.plan = self._phases.repair_plan(self.search)
        return super().train(resume_from_checkpoint, **kwargs)

    def evaluate_unlearning(self, model: PreTrainedModel | None = None) -> StageResult:
        """
        Results on the forget, retain, eval and unseen data, with the membership attack of forget against unseen.

        Args:
            model ([`~transformers.PreTrainedModel`], *optional*):
                The model to evaluate, by default the one that is being cleaned.

        Returns:
            [`StageResult`]
        """
        evaluator = self._phases.evaluator()
        if model is not None and model is self.reference_model:
            self._compared, result = evaluator.compared_with(model)
            return result
        if self._compared is not None:
            answers = self._compared.reference_log_probabilities
            evaluator = replace(evaluator, reference_log_probabilities=answers)
        return evaluator.evaluate(self.model if model is None else model)

    @property
    def reset_value(self) -> str:
        """What the selected weights are reset to."""
        return self.request.reset_value

    @property
    def freeze_guard(self) -> FreezeGuard | None:
        """The digests of everything outside the selection, once it has been reset."""
        return None if self.reset is None else self.reset.guard

    @property
    def _phases(self) -> Phases:
        return Phases(self.request, self, self.batch_source, self.clock)


def _own_callbacks() -> tuple[type[TrainerCallback], ...]:
    return (*DEFAULT_CALLBACKS, DEFAULT_PROGRESS_CALLBACK, PrinterCallback)
