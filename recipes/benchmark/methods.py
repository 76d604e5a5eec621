# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The methods, and the settings that are tried for each baseline.

Every baseline has four candidates, of which the first has the published defaults. The number of passes is limited so
that no candidate costs more than about 15 % of retraining. `FisherUnlearner` runs on its defaults and is not tuned.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from task_data import DataSource, TaskData
from tasks import Task
from torch import nn
from transformers import TrainingArguments

from hf_deepclean import (
    AdaptiveDampening,
    FineTuning,
    FirstOrderInfluence,
    FisherForgetting,
    FisherUnlearner,
    FisherUnlearningConfig,
    LossFreeDampening,
    NegGradPlus,
    ProjectedGradientUnlearning,
    RandomLabels,
    RandomMask,
    SalUn,
    SecondOrderInfluence,
    SelectiveSynapticDampening,
    SubspaceForgetting,
    UnlearningData,
)
from hf_deepclean.runtime.clock import PhaseClock


NUM_CANDIDATES = 4
# Maximum cost of a candidate, as a share of the examples that retraining reads.
MAX_COST = 0.15
# Number of examples of a Hessian, and the cost of a product with it in gradients.
HESSIAN_BATCH_SIZE, HESSIAN_COST = 256, 3

# Epochs of the repair of FisherUnlearner, which are the default of TrainingArguments.
NUM_REPAIR_EPOCHS = TrainingArguments.__dataclass_fields__["num_train_epochs"].default

# A fine-tuned model is rewound to its checkpoint, and by the second of ours reset to values as before any training.
OURS, OURS_INIT = "FisherUnlearner", "FisherUnlearnerInit"
# The second reference differs from the first by the seed of its training: how far two references are apart.
ORIGINAL, REFERENCE, REFERENCE2 = "Original", "Reference", "Reference2"
# The models that tables show beside the methods.
REFERENCE_POINTS = (ORIGINAL, REFERENCE, REFERENCE2)


@dataclass(frozen=True)
class Budget:
    """
    What a candidate may cost, and how the original was trained.

    Args:
        learning_rate (`float`):
            Peak learning rate of the original's training with AdamW.
        batch_size (`int`):
            Batch size of this training.
        num_forget, num_retain (`int`):
            Number of forget and of retain examples.
        num_examples (`float`):
            Number of examples that a candidate may read and differentiate.
    """

    learning_rate: float
    batch_size: int
    num_forget: int
    num_retain: int
    num_examples: float

    @classmethod
    def of(cls, task: Task, data: TaskData, source: DataSource) -> "Budget":
        """The budget of a task."""
        recipe = task.training(source)
        return cls(
            learning_rate=recipe.original_learning_rate,
            batch_size=recipe.original_per_device_train_batch_size,
            num_forget=len(data.forget),
            num_retain=len(data.retain),
            num_examples=MAX_COST * recipe.original_num_train_epochs * len(data.reference_rows),
        )

    @property
    def num_training_steps(self) -> int:
        """Number of optimizer steps of the training."""
        return math.ceil(self.num_examples / MAX_COST / self.batch_size)

    @property
    def num_train(self) -> int:
        """Number of all training examples."""
        return self.num_forget + self.num_retain

    def epochs(self, published: float, examples_per_epoch: float) -> float:
        """The published number of epochs, or as many as the budget allows."""
        return min(published, self.num_examples / examples_per_epoch)


@dataclass
class Clock:
    """Sums wall-clock and processor seconds while it runs."""

    seconds: float = 0.0
    processor_seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start, start_of_processor = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
            self.processor_seconds += time.process_time() - start_of_processor


@dataclass(frozen=True)
class Baseline:
    """
    A method that is tuned.

    Args:
        candidates (`Callable`):
            Called with the budget; returns the settings to try.
        requests (`tuple[str]`, *optional*):
            Requests that the method applies to, by default all.
    """

    candidates: Callable[[Budget], list[Any]]
    requests: tuple[str, ...] = ("random", "class", "people")


@dataclass(frozen=True)
class Outcome:
    """
    The cost and the settings of a run of a method.

    Args:
        clock ([`Clock`]):
            The cost without evaluations for the report.
        phases (`dict[str, float]`, *optional*):
            Seconds by phase.
        settings (`dict[str, Any]`, *optional*):
            The settings of the method.
    """

    clock: Clock
    phases: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def run_ours(
    model: nn.Module, task: Task, data: TaskData, source: DataSource, seed: int, checkpoint: Path | None = None
) -> Outcome:
    """
    Cleans a model in place with the defaults of [`FisherUnlearner`], at five times the learning rate of the original's
    training. A fine-tuned model is rewound to `checkpoint`; without one it is reset to values as before any training.
    """
    clock, budget = Clock(), Budget.of(task, data, source)
    with tempfile.TemporaryDirectory() as folder, _timed_phases(clock):
        args = FisherUnlearningConfig(
            f"{folder}/result",
            reset_scope="adapter" if task.adapter else "full",
            reset_value="init" if task.family.is_fine_tuned and checkpoint is None else None,
            pretrained_model=None if checkpoint is None else str(checkpoint),
            # The cost is bounded: of the first ten tasks as that of the baselines, of the others by the budget, as
            # `from_trainer` bounds it.
            max_repair_rounds=3 if task.family.is_fine_tuned else 1,
            training_steps=budget.num_training_steps if task.family.is_fine_tuned else None,
            learning_rate=5 * budget.learning_rate,
            per_device_train_batch_size=budget.batch_size,
            per_device_eval_batch_size=256,
            per_device_fisher_batch_size=128,
            logging_strategy="no",
            dataloader_pin_memory=False,
            disable_tqdm=True,
            use_cpu=True,
            seed=seed,
        )
        report = FisherUnlearner(
            model,
            args,
            data.data_collator,
            forget_dataset=data.forget,
            retain_dataset=data.retain,
            unseen_dataset=data.unseen,
        ).unlearn()
    settings = {key: value for key, value in report.settings.items() if _is_plain(value)}
    return Outcome(clock, dict(report.seconds), settings)


@contextmanager
def _timed_phases(clock: Clock) -> Iterator[None]:
    """Adds the time of both Fishers, selection, reset and repair to the clock, but not that of the evaluations."""
    phase, outer = PhaseClock.phase, []

    @contextmanager
    def timed_phase(self: PhaseClock, name: str) -> Iterator[None]:
        # A phase inside another one belongs to the outer one.
        counts = not outer and name != "evaluation"
        outer.append(name)
        try:
            with phase(self, name), clock.running() if counts else nullcontext():
                yield
        finally:
            outer.pop()

    with mock.patch.object(PhaseClock, "phase", timed_phase):
        yield


def run_baseline(model: nn.Module, method: Any, data: TaskData, budget: Budget, seed: int) -> Outcome:
    """Changes a model in place by a baseline with the chosen settings."""
    retain = data.retain
    if isinstance(method, FisherForgetting) and budget.num_retain * _num_outcomes(model) > budget.num_examples:
        # It needs a backward pass per class, so it gets a random sample of the size that the budget allows.
        size = max(1, int(budget.num_examples / _num_outcomes(model)))
        retain = [retain[place] for place in np.random.default_rng(seed).permutation(len(retain))[:size]]
    clock = Clock()
    with clock.running():
        method.unlearn(model, UnlearningData(data.forget, retain, data.data_collator), seed)
    settings = {key: value for key, value in asdict(method).items() if _is_plain(value)}
    return Outcome(clock, {"unlearning": clock.seconds}, settings | {"num_retain_examples": len(retain)})


def _num_outcomes(model: nn.Module) -> int:
    """Number of labels that the expected Fisher sums over; a language model draws one."""
    return 1 if hasattr(model, "generate") else model.config.num_labels


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _fine_tuning(budget: Budget) -> list[Any]:
    epochs = budget.epochs(10, budget.num_retain)
    common = {"num_train_epochs": epochs, "per_device_train_batch_size": budget.batch_size}
    return [
        FineTuning(**common),
        *(
            FineTuning(**common, learning_rate=share * budget.learning_rate, optimizer="adamw", weight_decay=0.0)
            for share in (1, 0.3, 0.1)
        ),
    ]


def _neg_grad_plus(budget: Budget) -> list[Any]:
    # A step reads a batch of retain data and one of forget data.
    epochs = budget.epochs(10, 2 * budget.num_retain)
    common = {"num_train_epochs": epochs, "per_device_train_batch_size": budget.batch_size}
    return [
        NegGradPlus(**common),
        *(
            NegGradPlus(**common, alpha=alpha, learning_rate=share * budget.learning_rate, optimizer="adamw")
            for share, alpha in ((0.3, 0.95), (0.1, 0.95), (0.1, 0.8))
        ),
    ]


def _random_labels(budget: Budget) -> list[Any]:
    epochs = budget.epochs(3, budget.num_train)
    common = {"num_train_epochs": epochs, "per_device_train_batch_size": budget.batch_size}
    return [
        RandomLabels(**common),
        *(RandomLabels(**common, learning_rate=share * budget.learning_rate) for share in (1, 0.3, 0.03)),
    ]


def _sal_un(budget: Budget) -> list[Any]:
    epochs = budget.epochs(10, budget.num_train)
    common = {"num_train_epochs": epochs, "per_device_train_batch_size": budget.batch_size}
    return [
        SalUn(**common),
        *(
            SalUn(**common, learning_rate=share * budget.learning_rate, optimizer="adamw", weight_decay=0.0)
            for share in (1, 0.3, 0.1)
        ),
    ]


def _random_mask(budget: Budget) -> list[Any]:
    epochs = budget.epochs(NUM_REPAIR_EPOCHS, budget.num_retain)
    return [
        RandomMask(
            num_train_epochs=epochs,
            per_device_train_batch_size=budget.batch_size,
            learning_rate=budget.learning_rate,
            reset_fraction=fraction,
        )
        for fraction in (0.1, 0.03, 0.3, 0.5)
    ]


def _projected_gradient(budget: Budget) -> list[Any]:
    # The accuracy on a sample of the retain data after every epoch costs a third of a step per example.
    num_accuracy_examples = min(budget.num_forget, budget.num_retain)
    examples_per_epoch = budget.num_forget + num_accuracy_examples / 3
    num_epochs = max(1, math.floor(budget.epochs(100, examples_per_epoch)))
    return [
        ProjectedGradientUnlearning(
            learning_rate=rate,
            final_learning_rate=rate / 10,
            num_train_epochs=num_epochs,
            num_accuracy_examples=num_accuracy_examples,
        )
        for rate in (0.1, 0.3, 0.03, 0.01)
    ]


def _second_order(budget: Budget) -> list[Any]:
    num_iterations = max(1, math.floor(budget.num_examples / (HESSIAN_COST * HESSIAN_BATCH_SIZE)))
    return [
        SecondOrderInfluence(
            scale=scale, damping=damping, hessian_batch_size=HESSIAN_BATCH_SIZE, max_iterations=num_iterations
        )
        for scale, damping in ((2e5, 1e-4), (1e4, 0.1), (5e4, 1e-2), (1e3, 0.1))
    ]


BASELINES = {
    "FineTuning": Baseline(_fine_tuning),
    "NegGradPlus": Baseline(_neg_grad_plus),
    "RandomLabels": Baseline(_random_labels),
    "SalUn": Baseline(_sal_un),
    "RandomMask": Baseline(_random_mask),
    "SelectiveSynapticDampening": Baseline(
        lambda budget: [SelectiveSynapticDampening(selection_weighting=value) for value in (10.0, 5.0, 2.5, 1.25)]
    ),
    "AdaptiveDampening": Baseline(
        lambda budget: [AdaptiveDampening(dampening_constant=value) for value in (1.0, 3.0, 0.3, 0.1)]
    ),
    "LossFreeDampening": Baseline(
        lambda budget: [LossFreeDampening(selection_weighting=value) for value in (10.0, 5.0, 2.5, 1.25)]
    ),
    "FisherForgetting": Baseline(
        lambda budget: [FisherForgetting(noise_scale=value) for value in (1e-6, 1e-5, 1e-7, 1e-8)]
    ),
    "ProjectedGradientUnlearning": Baseline(_projected_gradient),
    "SubspaceForgetting": Baseline(
        lambda budget: [
            SubspaceForgetting(retain_alpha=retain, forget_alpha=forget)
            for retain, forget in ((100.0, 3.0), (1000.0, 30.0), (100.0, 10.0), (30.0, 3.0))
        ],
        requests=("class",),
    ),
    "FirstOrderInfluence": Baseline(
        lambda budget: [FirstOrderInfluence(unlearning_rate=value) for value in (2e-5, 1e-4, 1e-3, 1e-2)]
    ),
    "SecondOrderInfluence": Baseline(_second_order),
}
METHODS = (OURS, OURS_INIT, *BASELINES)


def candidates_of(method: str, budget: Budget) -> list[Any]:
    """The settings of a baseline to try."""
    return BASELINES[method].candidates(budget)


def applies(method: str, task: Task) -> bool:
    """Whether a method, or a second reference, applies to a task."""
    if method in (OURS_INIT, REFERENCE2):
        return task.family.is_fine_tuned
    return method not in BASELINES or task.request in BASELINES[method].requests


def set_one_thread() -> None:
    """Uses one thread, on which all times are measured."""
    torch.set_num_threads(1)
