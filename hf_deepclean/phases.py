# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the phases of a run from its request, its arguments and its trainer."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import CONFIG_NAME

from .config import FisherUnlearningConfig
from .data.loaders import BatchSource
from .data.streams import by_length, is_stream
from .evaluation.evaluator import Evaluator
from .evaluation.samples import rows_to_evaluate
from .evaluation.stages import BEFORE, CONTROL_AFTER_REPAIR, CONTROL_AFTER_RESET, StageResult
from .fisher.checkpoint import FisherCheckpoint
from .fisher.diagonal import FisherDiagonal
from .fisher.passes import FisherPass
from .models.adapters.parameters import ADAPTER_CONFIG_NAME
from .models.adapters.saving import save_model
from .models.contexts import autocast_of_fishers, autocast_of_training
from .models.heads import model_class_name
from .models.scope import frozen_share
from .natural_phase import FoundValues, NaturalPhase, target_of
from .publishing.commitment import COMMITMENT_NAME, ForgetCommitment
from .publishing.contents.saved_files import digests_of_result
from .recovery_phase import RecoveryPhase
from .repair.control import run_control
from .repair.plan import MAX_UNSEEN_EXAMPLES, RepairPlan
from .repair.trainer import RepairTrainer
from .report.plan import RunPlan
from .report.provenance import Provenance, library_versions
from .report.report import REPORT_NAME, UnlearningReport
from .report.results import IntegrityResult, SelectionResult
from .request import UnlearningRequest
from .reset.natural import BATCH_SIZE, NUM_NATURAL_FISHER_EXAMPLES
from .reset.resetter import Reset, Resetter
from .run_plan import plan_run
from .runtime.clock import PhaseClock
from .runtime.processes import broadcast_object, is_main_process, on_main_process, run_once
from .selection.fisher_plane import fisher_plane
from .selection.search import SelectionSearch
from .selection.selector import WeightSelector
from .selection.sweep import try_gamma
from .selection.weight_selection import WeightSelection
from .state.requests_record import save_requests
from .state.run_state import RunState


logger = logging.getLogger(__name__)

# Written last: without these files nothing loads the folder as a model, or takes it for a finished run.
_LAST_FILES = (CONFIG_NAME, ADAPTER_CONFIG_NAME, REPORT_NAME)


@dataclass(frozen=True)
class Phases:
    """
    Makes the phases of a run, and chains those that belong together.

    Args:
        request ([`UnlearningRequest`]):
            The request of the run.
        trainer ([`RepairTrainer`]):
            The trainer of the repair. The phases share its arguments, metrics and interruption.
        source ([`BatchSource`]):
            Makes the batches.
        clock ([`PhaseClock`]):
            Times the phases.
    """

    request: UnlearningRequest
    trainer: RepairTrainer
    source: BatchSource
    clock: PhaseClock

    @property
    def args(self) -> FisherUnlearningConfig:
        """The configuration."""
        return self.trainer.args

    @property
    def model(self) -> nn.Module:
        """The model to clean."""
        return self.trainer.model

    @property
    def plan(self) -> RunPlan:
        """What the run may do and cost."""
        return plan_run(self.request, self.args)

    def make_evaluator(self) -> Evaluator:
        """Makes the evaluator of models on all data sets, of the retain set on a sample if it is large."""
        evaluated = rows_to_evaluate(self.request.retain_dataset, self.request.forget_dataset)
        return Evaluator(
            self.source,
            {**self.request.splits, "retain": evaluated},
            self.args.eval_batch_size,
            log_likelihood_func=self.trainer.log_likelihood_func,
            compute_metrics=self.trainer.compute_metrics,
            preprocess_logits=self.trainer.preprocess_logits_for_metrics,
            batch_eval_metrics=self.args.batch_eval_metrics,
            requests=self.request.requests,
            class_names=getattr(self.model.config, "id2label", None),
            in_lockstep=self.trainer.is_sharded,
            interruption=self.trainer.interruption,
            clock=self.clock,
            autocast_dtype=autocast_of_training(self.args),
        )

    def compute_fisher(
        self, dataset: Any, description: str, checkpoint: FisherCheckpoint | None = None
    ) -> FisherDiagonal:
        """
        Computes the Fisher of the weights in scope on a data set.

        Args:
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set.
            description (`str`):
                Shown beside the progress bar, and the name of the phase in the times.
            checkpoint ([`FisherCheckpoint`], *optional*):
                Where the pass is saved from time to time, and continues from.
        """
        size = self.args.per_device_fisher_batch_size
        fisher_pass = FisherPass(
            self.source,
            min(size, BATCH_SIZE) if self.is_natural else size,
            fisher_type=self.args.fisher_type,
            log_likelihood_func=self.trainer.log_likelihood_func,
            seed=self.args.seed,
            accumulator_device=self.args.accumulator_device,
            max_examples=self.max_fisher_examples(dataset),
            autocast_dtype=autocast_of_fishers(self.args, self.request.kept_fisher),
        )
        parameters = self.request.parameters_in_scope(self.args)
        if self.is_natural and self.max_fisher_examples(dataset) is not None:
            dataset = by_length(self.source.sample(dataset, self.max_fisher_examples(dataset)))[0]
        with self.clock.phase(description):
            return fisher_pass.compute(self.model, parameters, dataset, description, checkpoint)

    def max_fisher_examples(self, dataset: Any) -> int | None:
        """Returns the largest number of examples of a data set that enter its Fisher, or `None` for all."""
        # The first rows of a stream may all be of one class.
        if is_stream(dataset) or self.args.fisher_max_examples is not None:
            return self.args.fisher_max_examples
        most = self.plan.max_fisher_examples
        is_retained = self.is_natural and dataset is not self.request.forget_dataset
        return most if most is None or not is_retained else min(most, NUM_NATURAL_FISHER_EXAMPLES)

    def make_selector(self) -> WeightSelector:
        """Makes the selector of the weights to reset."""
        plan = self.plan
        return WeightSelector(
            self.model,
            self.args.selection,
            gamma=self.args.gamma,
            reset_fraction=self.args.reset_fraction,
            forget_share=self.request.forget_share,
            target=self.args.target,
            num_trials=plan.num_trials,
            num_trial_examples=plan.num_trial_examples,
            max_unseen_examples=MAX_UNSEEN_EXAMPLES,
            num_repair_steps=plan.num_repair_steps,
            is_adapter=self.args.reset_scope == "adapter",
            is_sharded=self.trainer.is_sharded,
            clock=self.clock,
            takes_all=self.is_natural,
            is_rewound=self.request.reset_value == "pretrained",
        )

    def select_weights(
        self, forget: FisherDiagonal, retain: FisherDiagonal
    ) -> tuple[WeightSelection, SelectionSearch | None, FoundValues | None]:
        """
        Selects the weights to reset by two Fishers, and finds the values of a natural reset. If that is rejected, the
        weights are selected for a plain reset to the checkpoint, and nothing is found.

        Args:
            forget, retain ([`FisherDiagonal`]):
                The Fishers of the forget and of the retain set.
        """
        evaluator = self.make_evaluator()
        selection, search = self.make_selector().select(forget, retain, evaluator, self.make_resetter().try_reset)
        if not self.is_natural:
            return selection, search, None
        target = self.args.target or target_of(self.args, evaluator.evaluate(self.model))
        found = NaturalPhase(self.request, self.args, evaluator, self.clock).find(selection, retain, target)
        return (
            self.rewinding().select_weights(forget, retain) if found.result.is_rejected else (selection, None, found)
        )

    @property
    def is_natural(self) -> bool:
        """Whether the reset is natural."""
        return self.request.reset_value == "natural"

    def rewinding(self) -> "Phases":
        """The phases of the same run with a plain reset to the checkpoint, where a natural one was rejected."""
        return replace(self, request=replace(self.request, reset_value="pretrained"))

    def make_resetter(self, found: FoundValues | None = None) -> Resetter:
        """Makes the resetter of the selected weights, with what a natural reset found."""
        values = self.request.reset_value, self.request.pretrained_model
        phase = NaturalPhase(self.request, self.args, self.make_evaluator(), self.clock)
        find = phase.find_as_before(found) if self.is_natural else None
        return Resetter(self.model, *values, self.args.seed, self.clock, self.request.reset_sources, find)

    def plan_repair(self, search: SelectionSearch | None) -> RepairPlan:
        """
        Plans the repair.

        Args:
            search ([`SelectionSearch`], *optional*):
                The record of the trials, if the rule is `"auto"`.
        """
        return RepairPlan.of(
            self.source,
            self.args,
            self.request.splits,
            search,
            forget_penalty=self.args.forget_penalty,
            hard_example_share=self.args.hard_example_share,
            reset_scope=self.args.reset_scope,
            num_steps=self.plan.num_repair_steps,
        )

    def compute_and_select(self, state: RunState, evaluator: Evaluator) -> WeightSelection:
        """
        Computes the Fishers and selects the weights. Also makes all measurements that need the Fishers, because the
        Fishers are not kept.

        Args:
            state ([`RunState`]):
                The state of the run. It gets the results.
            evaluator ([`Evaluator`]):
                Evaluates the trials.
        """
        progress, try_reset, is_sharded = state.progress, self.make_resetter().try_reset, self.trainer.is_sharded

        def fisher(split: str) -> FisherDiagonal:
            return self.compute_fisher(self.request.splits[split], f"{split} Fisher", state.fisher_checkpoint(split))

        before, kept_fisher = progress.stages[BEFORE], self.request.kept_fisher
        chosen = self.make_selector().compute_and_select(fisher, evaluator, try_reset, before, kept_fisher)
        forget, retain = chosen.forget, chosen.retain
        progress.search, progress.kept_fisher = chosen.search, chosen.kept_fisher
        progress.num_fisher_examples = {"forget": forget.num_examples, "retain": retain.num_examples}
        progress.fisher_fallback = forget.fallback_parameters | retain.fallback_parameters
        with self.clock.phase("Fisher plane"):
            progress.plane = run_once(lambda: fisher_plane(forget, retain, chosen.selection), is_sharded=is_sharded)
        if self.is_natural:
            found = NaturalPhase(self.request, self.args, evaluator, self.clock).find(
                chosen.selection, retain, target_of(self.args, before)
            )
            progress.natural = found.result
            if found.result.is_rejected:
                return self.rewinding().compute_and_select(state, evaluator)
            state.save_reset_values(found.values)
        evaluate = partial(evaluator.evaluate, self.model)
        for gamma in (self.args.gamma_sweep or [])[len(progress.gamma_trials) :]:
            with self.clock.phase("gamma sweep"):
                trial = try_gamma(gamma, forget, retain, evaluate, try_reset, is_sharded=is_sharded)
            progress.gamma_trials += (trial,)
            state.save()
            self.trainer.interruption.check_all()
        state.save_selection(chosen.selection)
        return chosen.selection

    def resetter_of(self, state: RunState, selection: WeightSelection) -> Resetter:
        """
        Makes the resetter of a run that has selected its weights.

        Args:
            state ([`RunState`]):
                The state of the run.
            selection ([`WeightSelection`]):
                The selected weights.
        """
        if not self.is_natural:
            return self.make_resetter()
        return self.make_resetter(FoundValues(selection, state.load_reset_values(), state.progress.natural))

    def run_control(self, state: RunState, reset: Reset, evaluate: Callable[[str], None]) -> None:
        """
        Resets and repairs a random selection of the same size, unless an interrupted run did so.

        Args:
            state, reset, evaluate:
                As for [`repair_in_rounds`] and [`repair.control.run_control`].
        """
        if CONTROL_AFTER_REPAIR not in state.progress.stages:
            with self.clock.phase("control"):
                num_rounds = len(state.progress.retained_by_round)
                run_control(self.trainer, self.resetter_of(state, reset.selection), reset, evaluate, num_rounds)
        # Also in a resumed run, where the state has these results.
        for name in (CONTROL_AFTER_RESET, CONTROL_AFTER_REPAIR):
            evaluate(name)

    def make_recovery(self, evaluator: Evaluator) -> RecoveryPhase:
        """
        Makes the measurements of whether the forget data come back.

        Args:
            evaluator ([`Evaluator`]):
                Evaluates the models.
        """
        return RecoveryPhase(self.request, self.args, evaluator, self.trainer.interruption, self.clock)

    def make_report(
        self,
        state: RunState,
        selection: WeightSelection,
        stages: dict[str, StageResult],
        integrity: IntegrityResult,
    ) -> UnlearningReport:
        """
        Makes the report of a run whose phases are done.

        Args:
            state ([`RunState`]):
                The state of the run.
            selection ([`WeightSelection`]):
                The selected weights.
            stages (`dict[str, StageResult]`):
                The results by stage.
            integrity ([`IntegrityResult`]):
                The numbers of weights that changed, and of those that did not.
        """
        progress, plan = state.progress, self.plan_repair(state.progress.search)
        return UnlearningReport(
            model_class=model_class_name(self.model),
            settings=self.args.reported_settings()
            | {
                **self.request.base_checkpoint.settings(self.request.reset_value),
                "forget_penalty": plan.penalty_weight,
                "hard_example_share": plan.hard_example_share,
                "fisher_autocast": autocast_of_fishers(self.args, self.request.kept_fisher),
            },
            selection=SelectionResult.of(selection, progress.plane, frozen_share(self.model, self.args.reset_scope)),
            num_fisher_examples=progress.num_fisher_examples,
            stages=stages,
            integrity=integrity,
            seconds=dict(self.clock.seconds),
            versions=library_versions(with_peft=self.request.has_adapter),
            seed=self.args.seed,
            fisher_fallback=progress.fisher_fallback,
            kept_fisher=progress.kept_fisher,
            provenance=on_main_process(lambda: Provenance.of(self.request.source)),
            gamma_trials=progress.gamma_trials,
            relearning=progress.relearning.get("forget"),
            further_relearning={data: found for data, found in progress.relearning.items() if data != "forget"},
            search=progress.search,
            natural=progress.natural,
            retained_by_round=progress.retained_by_round,
            plan=self.plan,
        )

    def save_result(self, state: RunState, report: UnlearningReport) -> UnlearningReport:
        """
        Writes the result of a run to its output directory: the model, its tokenizer or processor, the commitment to
        the forget set, and the report, also on every request if there are several. Warns of what the run did not
        reach, and removes the state of the run.

        Args:
            state ([`RunState`]):
                The state of the run.
            report ([`UnlearningReport`]):
                The report.

        Returns:
            [`UnlearningReport`]: The report that was written, with the digests of what was saved.
        """
        saved: dict[str, str] = {}
        for shortfall in report.shortfalls() if is_main_process() else []:
            logger.warning(shortfall)

        def write(folder: Path) -> None:
            # All processes take part in writing a sharded model; the main process writes the files.
            if is_main_process() or self.trainer.is_sharded:
                save_model(self.model, folder, **self.trainer.original_configs)
            if not is_main_process():
                return
            if self.trainer.processing_class is not None:
                self.trainer.processing_class.save_pretrained(folder)
            saved.update(digests_of_result(folder))
            ForgetCommitment.of(self.request.forget_dataset).save(folder / COMMITMENT_NAME)
            whole = replace(report, saved=saved)
            save_requests(whole, self.request, state.progress.identity, folder)
            whole.save(folder / REPORT_NAME)

        state.put_in_place(write, _LAST_FILES)
        state.remove()
        return replace(report, saved=broadcast_object(saved))
