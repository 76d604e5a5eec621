# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures whether further training, or rounding the weights, brings the forget data back."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset
from transformers import set_seed

from ..data.streams import is_stream
from ..models.contexts import restoring
from .evaluator import Evaluator
from .measures import MEASURES, estimate_of, recall_measure
from .quantization import quantized
from .relearning import evaluated_steps, relearning_curve, relearning_excess
from .results import SplitResult, summarize_predictions
from .samples import drawn_rows
from .stages import AFTER_REPAIR, REFERENCE, StageResult


# What a copy of the model is trained on, and how reports call it.
RELEARNING_DATA = {
    "forget": "relearning",
    "retain": "training on retained data",
    "few_forget": "training on retained and a few forget data",
}


@dataclass(frozen=True)
class RelearningResult:
    """
    How fast the forget data come back when a copy of a model is fine-tuned; see
    [`evaluation.relearning.relearning_curve`].

    Args:
        steps (`tuple[int, ...]`): The numbers of steps after which the forget data were evaluated.
        learning_rate (`float`): The learning rate.
        measure (`str`): `"accuracy"`, `"token accuracy"` or `"mean loss"`.
        curves (`dict[str, tuple[float, ...]]`): Value of the measure on the forget data after every number of steps,
            by stage: `"after_repair"` and, with a reference model, `"reference"`. A curve is shorter if the training
            diverged.
        intervals (`dict[str, tuple[tuple[float, float], ...]]`): 95 % intervals of these values by stage. A stage with
            too few examples is missing.
        num_forget_examples (`int`, *optional*): At most this many forget examples were trained on. `None` if all were.
        sample ([`RelearningResult`], *optional*): The same, measured on rows drawn from the forget data; see
            [`evaluation.samples`].
    """

    steps: tuple[int, ...]
    learning_rate: float
    measure: str
    curves: dict[str, tuple[float, ...]]
    intervals: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    num_forget_examples: int | None = None
    sample: "RelearningResult | None" = None

    @classmethod
    def of(
        cls,
        steps: tuple[int, ...],
        learning_rate: float,
        results: Mapping[str, Sequence[SplitResult]],
        num_forget_examples: int | None = None,
    ) -> "RelearningResult":
        """Makes the curves from results on the forget data, given by stage and in the order of the steps."""
        (measure,) = {recall_measure(result) for of_stage in results.values() for result in of_stage}
        estimates = {
            stage: [estimate_of(measure, result) for result in of_stage] for stage, of_stage in results.items()
        }
        return cls(
            steps,
            learning_rate,
            measure.name,
            {stage: tuple(value for value, _ in of_stage) for stage, of_stage in estimates.items()},
            {
                stage: tuple(interval for _, interval in of_stage)
                for stage, of_stage in estimates.items()
                if all(interval is not None for _, interval in of_stage)
            },
            num_forget_examples,
        )

    def excess(self) -> float | None:
        """
        Computes how much more the cleaned model relearns than the reference, in the unit of the measure; see
        [`evaluation.relearning.relearning_excess`]. `None` without a reference model, or if a loss is infinite.
        """
        if REFERENCE not in self.curves:
            return None
        direction = MEASURES[self.measure].direction
        curves = [[direction * value for value in self.curves[stage]] for stage in (AFTER_REPAIR, REFERENCE)]
        if not all(map(math.isfinite, chain.from_iterable(curves))):
            return None
        return relearning_excess(*curves)


@dataclass(frozen=True)
class RelearningMeasurement:
    """
    Fine-tunes copies of models, and evaluates the copies on the forget set on the way. The models do not change.

    Args:
        evaluator ([`Evaluator`]):
            Evaluates the copies; its source makes the batches.
        parameter_names (`Collection[str]`):
            Names of the parameters to train.
        num_steps (`int`):
            Number of training steps.
        learning_rate (`float`):
            The learning rate.
        batch_size (`int`):
            Examples per step. Every process trains on the same examples.
        num_forget_examples (`int`):
            At most this many forget examples are trained on with `"few_forget"`.
        seed (`int`):
            Seed of the training.
    """

    evaluator: Evaluator
    parameter_names: Collection[str]
    num_steps: int
    learning_rate: float
    batch_size: int
    num_forget_examples: int
    seed: int

    def measure(self, models: Mapping[str, nn.Module], data: str) -> RelearningResult:
        """
        Trains a copy of every model, and evaluates it on the way.

        Args:
            models (`dict[str, PreTrainedModel]`):
                The models by stage.
            data (`str`):
                What to train on, one of `RELEARNING_DATA`.

        Returns:
            [`RelearningResult`]
        """
        curves = {}
        for stage, model in models.items():
            with restoring(model):
                set_seed(self.seed)
                curves[stage] = relearning_curve(
                    model,
                    self.parameter_names,
                    self.batches(data),
                    self._evaluate,
                    self.num_steps,
                    self.learning_rate,
                    self.evaluator.log_likelihood_func,
                )
        num_forget_examples = self.num_forget_examples if data == "few_forget" else None
        found, sample = (
            RelearningResult.of(
                evaluated_steps(self.num_steps),
                self.learning_rate,
                {stage: [results[part] for results in curve] for stage, curve in curves.items()},
                num_forget_examples,
            )
            for part in range(2)
        )
        return replace(found, sample=sample)

    def batches(self, data: str) -> Iterator[Mapping[str, Any]]:
        """
        Yields endless batches to train on, the same in every process.

        Args:
            data (`str`):
                What to train on, one of `RELEARNING_DATA`.
        """
        source, splits = self.evaluator.source, self.evaluator.splits
        if data == "forget":
            return self._repeat(splits["forget"])
        retain = splits["retain"]
        if not is_stream(retain):
            # The first rows may all be of one class.
            order = torch.randperm(len(retain), generator=torch.Generator().manual_seed(self.seed))
            retain = Subset(retain, order[: self.batch_size * self.num_steps].tolist())
        if data == "retain":
            return self._repeat(retain)
        few = source.sample(splits["forget"], self.num_forget_examples)
        return chain.from_iterable(zip(self._repeat(few), self._repeat(retain), strict=True))

    def _repeat(self, dataset: Any) -> Iterator[Mapping[str, Any]]:
        while True:
            for _, batch in self.evaluator.source.batches(dataset, self.batch_size, in_turns=False):
                self.evaluator.interruption.check()
                yield batch

    def _evaluate(self, model: nn.Module) -> tuple[SplitResult, SplitResult]:
        """The results of all forget data, and of the rows drawn from them."""
        predictions = self.evaluator.predict(model, self.evaluator.splits["forget"], "evaluate relearning")
        drawn = predictions.select(drawn_rows("forget", predictions))
        return summarize_predictions(predictions), summarize_predictions(drawn)


def evaluate_rounded(evaluator: Evaluator, model: nn.Module, num_bits: int) -> StageResult:
    """
    Evaluates a model with rounded weights. The model does not change.

    Args:
        evaluator ([`Evaluator`]):
            Evaluates the model.
        model ([`~transformers.PreTrainedModel`]):
            The model.
        num_bits (`int`):
            4 or 8.
    """
    with quantized(model, num_bits):
        return evaluator.evaluate(model)
