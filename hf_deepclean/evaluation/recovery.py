# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Whether forgotten data come back: by further training, and by rounding."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from .measures import Estimate
from .relearning import relearning_excess
from .results import SplitResult


# What a copy of the model is trained on to see whether the forget data come back.
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
        curves (`dict[str, tuple[float, ...]]`): Its value on the forget data after every number of steps, by stage:
            `"after_repair"` and, with a reference model, `"reference"`. Shorter where the training diverged.
        intervals (`dict[str, tuple[tuple[float, float], ...]]`): 95 % intervals of these values; of fewer than two
            examples there may be none.
        num_forget_examples (`int`, *optional*): At most so many forget examples were trained on, if only a few.
    """

    steps: tuple[int, ...]
    learning_rate: float
    measure: str
    curves: dict[str, tuple[float, ...]]
    intervals: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    num_forget_examples: int | None = None

    @classmethod
    def of(
        cls,
        steps: tuple[int, ...],
        learning_rate: float,
        results: Mapping[str, Sequence[SplitResult]],
        num_forget_examples: int | None = None,
    ) -> "RelearningResult":
        """The curves of results on the forget data, by stage and in the order of the steps."""
        measured = {stage: [_recall(result) for result in of_stage] for stage, of_stage in results.items()}
        (measure,) = {measure for estimates in measured.values() for measure, _ in estimates}
        estimates = {stage: [estimate for _, estimate in of_stage] for stage, of_stage in measured.items()}
        return cls(
            steps,
            learning_rate,
            measure,
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
        How much more the cleaned model relearns than the reference, in the unit of the measure; see
        [`evaluation.relearning.relearning_excess`]. None without a reference, or if a loss is infinite.
        """
        if "reference" not in self.curves:
            return None
        sign = -1 if self.measure == "mean loss" else 1
        curves = [[sign * value for value in self.curves[stage]] for stage in ("after_repair", "reference")]
        if not all(map(math.isfinite, chain.from_iterable(curves))):
            return None
        return relearning_excess(*curves)


def _recall(result: SplitResult) -> tuple[str, Estimate]:
    """The figure that says how much of the data a model knows, by its name."""
    if result.accuracy is not None:
        return "accuracy", (result.accuracy, result.accuracy_interval)
    if result.tokens is not None:
        return "token accuracy", (result.tokens.accuracy, result.tokens.accuracy_interval)
    return "mean loss", (result.mean_loss, result.mean_loss_interval)
