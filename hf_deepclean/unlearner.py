# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The phases of unlearning, in order, beside the Trainer API."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import TrainOutput

from .config import FisherUnlearningConfig
from .data.held_out import hold_out_unseen
from .data.streams import is_stream
from .evaluation.evaluator import Evaluator
from .evaluation.stages import AFTER_RESET, BEFORE, REFERENCE, StageResult
from .fisher.diagonal import FisherDiagonal
from .fisher.kept_data import FisherData
from .models.contexts import keep_base_differentiable, with_gradients
from .models.likelihood import LogLikelihoodFunction
from .models.loading import name_of_model
from .natural_phase import FoundValues
from .phases import Phases
from .planning.preview import PreviewRun, TimedCollator, UnlearningPreview, check_no_streams
from .publishing.mixin import PublishingMixin
from .rehearsal.rehearsal import rehearse
from .repair.trainer import RepairTrainer
from .repair_rounds import at_repair_rate, repair_in_rounds
from .report.report import UnlearningReport
from .report.results import IntegrityResult
from .request import UnlearningRequest, check_overrides, name_splits
from .reset.freeze_guard import FreezeGuard
from .run_plan import warn_of_plan
from .runtime.clock import PhaseClock
from .selection.search import SelectionSearch
from .selection.weight_selection import WeightSelection
from .state.directory import check_output_directory, num_bytes_to_write
from .state.identity import identity_of_run
from .state.run_state import RunState
from .trainers import check_metrics_arguments, read_trainer


class FisherUnlearner(PublishingMixin, RepairTrainer):
    """
    Makes a trained model forget chosen examples, by [DeepClean](https://huggingface.co/papers/2311.10448).

    [`~FisherUnlearner.unlearn`] runs all phases: the Fisher information of both data sets, the selection of weights
    that matter more to the forget set, their reset, and their repair on the retain set. The repair is a training by
    [`~transformers.Trainer`] in which every other weight and every buffer stays bit-identical. Each phase can also be
    called on its own.

    Unlearning of this kind is approximate. It comes with measurements, not with a guarantee.

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The trained model, or a path or id to load it from. It is changed in place; its files are only read. With
            `reset_scope="adapter"` a model with a LoRA adapter, or the folder of a saved one, whose base is only read.
        args ([`FisherUnlearningConfig`] or [`~transformers.TrainingArguments`], *optional*):
            The configuration. By default the output goes to `"<class of the model>-unlearned"`.
        data_collator (`Callable`, *optional*):
            Makes a batch of rows, as for [`~transformers.Trainer`]. If it draws at random, Fisher passes and
            evaluations get the same draw for the same batch size, by `args.seed`. The repair gets new draws.
        forget_dataset ([`~datasets.Dataset`], map-style or iterable):
            The training examples to forget.
        retain_dataset ([`~datasets.Dataset`], map-style or iterable):
            The training examples to keep. It shares no row with `forget_dataset` (not checked for streams). A stream
            needs `max_steps`.
        eval_dataset ([`~datasets.Dataset`], map-style, iterable or `dict` of them, *optional*):
            Test data for the report, and for `eval_strategy`.
        unseen_dataset ([`~datasets.Dataset`], map-style or iterable, *optional*):
            Data like the forget set that the model never saw: for the membership attack, and with `selection="auto"`
            for what the forget data should be like afterwards. Nothing is trained on them. Without them,
            `args.unseen_share_of_eval` takes them from `eval_dataset`.
        reference_model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`], *optional*):
            A model retrained without the forget data. It is only evaluated.
        kept_fisher (`str` or [`FisherDiagonal`], *optional*):
            The Fisher diagonal of the whole training set at the model's weights, or the folder or file in which
            [`FisherCallback`] or `hf-deepclean fisher` kept it. The retain Fisher then comes by subtraction, unless
            rounding could change the selection.
        requests (`dict[str, Sequence[int]]`, *optional*):
            The rows of `forget_dataset` by request, if there are several; see [`UnlearningReport.of_request`].
        processing_class (*optional*):
            Tokenizer or processor, saved beside the model.
        log_likelihood_func (`Callable`, *optional*):
            Called with the model's outputs and the labels; returns one log-likelihood per example, shape
            `(batch_size,)`. By default that of the model's head, which is checked against the model's own loss.
        compute_metrics (`Callable`, *optional*):
            As for [`~transformers.Trainer`]. It gets the logits of a whole data set at once; for a language model,
            pass `preprocess_logits_for_metrics` with it.
        callbacks (`list`, *optional*):
            Callbacks of the repair.
        preprocess_logits_for_metrics (`Callable`, *optional*):
            As for [`~transformers.Trainer`], for example `lambda logits, labels: logits.argmax(-1)`.
        model_init (`Callable`, *optional*):
            Builds the model as it was before its training, to rewind weights to; see [`find_base_checkpoint`].

    Raises:
        `ValueError`: If data, model, checkpoint, reference model, kept Fisher or launch cannot work; says what to do.
        `RuntimeError`: If the launched processes do not know of each other.
        `OSError`: If the base of a saved adapter cannot be loaded.
        `FileExistsError`: If the output directory holds anything but what an interrupted run left.

    Example:

    ```python
    >>> args = FisherUnlearningConfig("clean-model")
    >>> unlearner = FisherUnlearner(model, args, forget_dataset=forget, retain_dataset=retain, unseen_dataset=holdout)
    >>> print(unlearner.unlearn(), unlearner.push_to_hub("me/clean-model"))
    ```
    """

    selection: WeightSelection | None = None
    search: SelectionSearch | None = None
    found_values: FoundValues | None = None

    @with_gradients
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
        model_init: Callable[[], PreTrainedModel] | None = None,
    ) -> None:
        args = FisherUnlearningConfig(f"{name_of_model(model)}-unlearned") if args is None else args
        check_metrics_arguments(args, compute_metrics)
        if not isinstance(args, FisherUnlearningConfig):
            args = FisherUnlearningConfig.from_training_arguments(args)
        check_output_directory(args.output_dir, resuming=True)
        eval_dataset, unseen_dataset = hold_out_unseen(
            args.unseen_share_of_eval, args.seed, forget_dataset, eval_dataset, unseen_dataset
        )
        request = UnlearningRequest.of(
            model,
            args,
            name_splits(forget_dataset, retain_dataset, eval_dataset, unseen_dataset),
            reference_model=reference_model,
            kept_fisher=kept_fisher,
            requests=requests,
            log_likelihood_func=log_likelihood_func,
            model_init=model_init,
        )
        keep_base_differentiable(request.model)
        super().__init__(
            request.model,
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
        self.unseen_dataset, self.reference_model = unseen_dataset, request.reference_model
        self.kept_fisher, self.requests, self.reset_value = request.kept_fisher, request.requests, request.reset_value
        self._request, self._reference_answers = request, None
        warn_of_plan(self._phases.plan, args)
        rehearse(self._phases)

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
                Fields of [`FisherUnlearningConfig`]; see [`FisherUnlearningConfig.beside_training`] for defaults.

        Raises:
            `ValueError`: If the trainer has a loss of its own and there is no `log_likelihood_func` for it.
        """
        data = {"forget_dataset": forget_dataset, "retain_dataset": retain_dataset, "unseen_dataset": unseen_dataset}
        compared = {"reference_model": reference_model, "kept_fisher": kept_fisher}
        return cls(**data, **compared, **read_trainer(trainer, log_likelihood_func, **config_overrides))

    @with_gradients
    def unlearn(self, resume_from_checkpoint: str | bool | None = None) -> UnlearningReport:
        """
        Runs all phases, writes the cleaned model and `report.json` to the output directory, and returns the report.

        The folder is for its owner alone; [`~FisherUnlearner.push_to_hub`] publishes what others may see.

        Every phase saves its results. An interrupted run, even a killed one, continues and ends in the same bits.
        After SIGTERM or Ctrl-C the present step is finished and saved first, and the model is again what it was.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                `True` continues an interrupted run in the output directory, or starts one. The path of a checkpoint of
                the repair continues from that checkpoint.

        Returns:
            [`UnlearningReport`]

        Raises:
            `FileExistsError`: If the output directory holds anything and nothing is resumed.
            `ValueError`: If the run to resume was started with another model, data, arguments or number of processes.
            `RuntimeError`: If a weight outside the selection or a buffer changed. Nothing is saved then.
            `OSError`: If the output directory cannot be written, has too little room, or is held by another run
                (`BlockingIOError`).
            `TypeError`: If a subclass overrides a phase; see [`check_overrides`].
        """
        check_overrides(self, FisherUnlearner)
        args, reset_value = self.args, self.reset_value
        state = RunState(args.output_dir, args.state_save_seconds, self.interruption)
        with state.held(resuming=bool(resume_from_checkpoint)):
            identity = identity_of_run(self.request, self.args, self, state.digests_format())
            self.request.check_kept_fisher(identity["model"], checked=self._request)
            state.open(identity, num_bytes_to_write(self.request, self.args))
            self.clock, self.reset, self.run = PhaseClock(state.progress.seconds), None, state.progress.run
            with self.interruption.watching():
                try:
                    report = self._run(state, resume_from_checkpoint)
                except BaseException as error:
                    self.reset_value = reset_value  # A rejected natural reset is part of the run to continue.
                    # The other processes of a sharded model may be gone.
                    if self.reset is not None and not self.is_sharded:
                        self.reset.undo()
                        self.reset = None
                    if isinstance(error, Exception):
                        state.remove_if_empty()
                    raise
                # A signal that came while the result was written. The run is finished, and the process ends.
                self.interruption.check_all()
        return report

    def _run(self, state: RunState, checkpoint: str | bool | None) -> UnlearningReport:
        phases, evaluator, stages = self._phases, self._phases.make_evaluator(), {}
        if self.reference_model is not None:
            # Also in a resumed run: all others are compared with its answers.
            evaluator, stages[REFERENCE] = self._compare(evaluator)

        def evaluate(name: str) -> None:
            stages[name] = state.evaluate_stage(name, lambda: evaluator.evaluate(self.model))

        evaluate(BEFORE)
        self.selection = state.load_selection() or phases.compute_and_select(state, evaluator)
        if phases.is_natural and state.progress.natural.is_rejected:
            phases, self.reset_value = phases.rewinding(), "pretrained"
        self.search = state.progress.search
        self.reset = phases.resetter_of(state, self.selection).reset(self.selection)
        evaluate(AFTER_RESET)
        repair_in_rounds(self, state, checkpoint, evaluate, phases.plan.max_repair_rounds, phases.is_natural)
        integrity = IntegrityResult.of(self.reset)
        if self.args.random_mask_control:
            phases.run_control(state, self.reset, evaluate)
        stages |= phases.make_recovery(evaluator).measure(state, self.reset.guard)
        return phases.save_result(state, phases.make_report(state, self.selection, stages, integrity))

    @with_gradients
    def preview(self, num_examples: int = 64) -> UnlearningPreview:
        """
        A dry run on samples: what would be reset, and what the run would cost. Nothing is written. Model, gradients,
        training flags and random states are afterwards what they were, bit for bit.

        Args:
            num_examples (`int`, *optional*, defaults to `64`):
                Examples of the forget and of the retain set. Each phase takes at least two batches.

        Returns:
            [`UnlearningPreview`]

        Raises:
            `FileExistsError`: If the output directory holds anything.
            `TypeError`, `ValueError`: If a data set is a stream, or as for [`~FisherUnlearner.unlearn`].
        """
        check_overrides(self, FisherUnlearner)
        check_no_streams(self.request.splits)
        check_output_directory(self.args.output_dir, resuming=False)
        timer = TimedCollator(self.data_collator)
        # The collator notes the time in this process, so there are no workers.
        source = replace(self.batch_source, collator=timer, num_workers=0)
        return PreviewRun(replace(self._phases, source=source, clock=PhaseClock()), timer).preview(num_examples)

    def compute_fisher(self, dataset: Any, description: str = "Fisher") -> FisherDiagonal:
        """
        Computes the Fisher diagonal of the weights in scope on a data set, at the model's present weights.

        Args:
            dataset ([`~datasets.Dataset`] or map-style):
                The data set, of which at most `args.fisher_max_examples` rows are drawn at random.
            description (`str`, *optional*, defaults to `"Fisher"`):
                Shown beside the progress bar, and the name of the phase in `seconds`.

        Returns:
            [`FisherDiagonal`]
        """
        fisher = self._phases.compute_fisher(dataset, description)
        if is_stream(dataset) or fisher.num_examples < len(dataset):
            return fisher
        unused = self.args.remove_unused_columns
        data = FisherData.of(dataset, self.model, self.log_likelihood_func, remove_unused_columns=unused)
        return replace(fisher, data=data)

    def select_weights(self, forget: FisherDiagonal, retain: FisherDiagonal) -> WeightSelection:
        """
        Selects the weights to reset by the rule in `args`, and keeps the selection for the next phases. The rule
        `"auto"` tries resets on the model and undoes them; `search` then holds the trials.

        Args:
            forget, retain ([`FisherDiagonal`]):
                The Fisher diagonals of the forget and of the retain set.

        Returns:
            [`WeightSelection`]
        """
        self.selection, self.search, self.found_values = self._phases.select_weights(forget, retain)
        if self.found_values is None and self.reset_value == "natural":
            self.reset_value = "pretrained"
        return self.selection

    def reset_weights(self, selection: WeightSelection | None = None) -> None:
        """
        Resets the selected weights, and takes the digests of everything else.

        Args:
            selection ([`WeightSelection`], *optional*): The weights. By default those of `select_weights`.

        Raises:
            `RuntimeError`: If no weights were selected.
        """
        self.selection = self.selection if selection is None else selection
        if self.selection is None:
            raise RuntimeError("There is no selection of weights to reset. Call `select_weights` first, or pass one.")
        self.reset = self._phases.make_resetter(self.found_values).reset(self.selection)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput | None:
        """Repairs the selected weights; see [`RepairTrainer.train`]."""
        self.plan = self._phases.plan_repair(self.search)
        with at_repair_rate(self.args, self.reset_value):
            return super().train(resume_from_checkpoint, **kwargs)

    def evaluate_unlearning(self, model: PreTrainedModel | None = None) -> StageResult:
        """
        Evaluates a model on all data sets, with the membership attack of forget against unseen data.

        Args:
            model ([`~transformers.PreTrainedModel`], *optional*):
                The model. By default the one to clean.

        Returns:
            [`StageResult`]: With the divergence to the reference model, once that has been evaluated.
        """
        evaluator = self._phases.make_evaluator()
        if model is not None and model is self.reference_model:
            return self._compare(evaluator)[1]
        evaluator = replace(evaluator, reference_log_probabilities=self._reference_answers)
        return evaluator.evaluate(self.model if model is None else model)

    def _compare(self, evaluator: Evaluator) -> tuple[Evaluator, StageResult]:
        """Evaluates the reference model, whose answers later evaluations are compared with."""
        evaluator, result = evaluator.compared_with(self.reference_model)
        self._reference_answers = evaluator.reference_log_probabilities
        return evaluator, result

    @property
    def request(self) -> UnlearningRequest:
        """The request, with what the attributes of this object are now."""
        return self._request.with_attributes_of(self)

    @property
    def freeze_guard(self) -> FreezeGuard | None:
        """The digests of everything outside the selection, once it has been reset."""
        return None if self.reset is None else self.reset.guard

    @property
    def _phases(self) -> Phases:
        return Phases(self.request, self, self.batch_source, self.clock)
