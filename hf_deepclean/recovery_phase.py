# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures within a run whether rounding the weights, or further training, brings the forget data back."""

from dataclasses import dataclass
from functools import partial

from torch import nn

from .config import FisherUnlearningConfig
from .evaluation.evaluator import Evaluator
from .evaluation.recovery import RelearningMeasurement, evaluate_rounded
from .evaluation.stages import StageResult, rounded_stage
from .request import UnlearningRequest
from .reset.freeze_guard import FreezeGuard
from .runtime.clock import PhaseClock
from .runtime.interruption import Interruption
from .state.run_state import RunState


@dataclass(frozen=True)
class RecoveryPhase:
    """
    The measurements of whether the forget data come back.

    Args:
        request ([`UnlearningRequest`]):
            The request of the run.
        args ([`FisherUnlearningConfig`]):
            The configuration.
        evaluator ([`Evaluator`]):
            Evaluates the models.
        interruption ([`Interruption`]):
            Requests to stop, checked between measurements.
        clock ([`PhaseClock`]):
            Times the measurements.
    """

    request: UnlearningRequest
    args: FisherUnlearningConfig
    evaluator: Evaluator
    interruption: Interruption
    clock: PhaseClock

    def make_relearning(self) -> RelearningMeasurement:
        """
        Makes the measurement of how fast the forget data come back.
        """
        learning_rate = self.args.relearning_learning_rate
        return RelearningMeasurement(
            self.evaluator,
            self.request.parameters_in_scope(self.args),
            num_steps=self.args.relearning_steps,
            learning_rate=self.args.learning_rate / 10 if learning_rate is None else learning_rate,
            batch_size=self.args.train_batch_size,
            num_forget_examples=self.args.relearning_num_examples,
            seed=self.args.seed,
        )

    def measure(self, state: RunState, guard: FreezeGuard) -> dict[str, StageResult]:
        """
        Measures whether rounding the weights, or further training, brings the forget data back.

        Args:
            state ([`RunState`]):
                The state of the run. It gets the results.
            guard ([`FreezeGuard`]):
                Verifies that the measurements do not change the model.

        Returns:
            `dict[str, StageResult]`: The results of the rounded models, by stage.
        """
        models, rounded = self.request.models_to_compare, {}

        def evaluate(model: nn.Module, num_bits: int) -> StageResult:
            with self.clock.phase("quantization"):
                result = evaluate_rounded(self.evaluator, model, num_bits)
                guard.verify(self.request.model)
            return result

        for num_bits in self.args.quantization_bits or []:
            for stage, model in models.items():
                name = rounded_stage(stage, num_bits)
                rounded[name] = state.evaluate_stage(name, partial(evaluate, model, num_bits))
        for data in self.args.relearning_data if self.args.relearning_steps > 0 else []:
            if data in state.progress.relearning:
                continue
            with self.clock.phase("relearning"):
                state.progress.relearning[data] = self.make_relearning().measure(models, data)
                guard.verify(self.request.model)
            state.save()
            self.interruption.check_all()
        return rounded
