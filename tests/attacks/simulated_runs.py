# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Simulates runs that differ in their numbers of rows alone. Answers of models are drawn, and everything after them, from
the evaluation to the card, is the package's own.
"""

from dataclasses import replace

import numpy as np

from hf_deepclean import UnlearningReport
from hf_deepclean.evaluation.evaluator import Evaluator
from hf_deepclean.evaluation.predictions import ExamplePredictions, TokenPredictions
from hf_deepclean.evaluation.recovery import RelearningResult
from hf_deepclean.evaluation.results import summarize_predictions
from hf_deepclean.evaluation.samples import SAMPLE_SIZES, drawn_rows
from tests.publishing.reports import report


NUM_UNSEEN, NUM_EVAL = 240, 60
# How well a model knows trained and other rows. The reference has trained on no forgotten row.
LEVELS = {
    "before": (4.0, 1.5),
    "after_reset": (0.0, -0.3),
    "after_repair": (2.0, 1.4),
    "reference": (4.0, 1.5),
    "control_after_repair": (2.5, 1.3),
    "fine_tuned": (4.5, 1.4),
    "after_repair_8_bits": (1.9, 1.4),
}
Rows = list[np.ndarray]


def answers(rows: Rows, is_text: bool) -> ExamplePredictions:
    """The answers on rows, of each of which the log-odds of its label or of its tokens are given."""
    odds = np.concatenate(rows)
    logs = -np.logaddexp(0, -np.stack([odds, -odds], axis=1))
    counts = np.array([len(row) for row in rows])
    if not is_text:
        return ExamplePredictions(None, np.zeros(len(rows), int), logs[:, 0], logs)
    tokens = TokenPredictions(logs[:, 0], odds > 0, counts, generated=True, num_choices=50)
    sums = np.add.reduceat(logs[:, 0], np.cumsum(counts) - counts)
    return ExamplePredictions(None, np.zeros(len(rows), int), sums, None, tokens)


def draw(number: int, level: float, is_text: bool, generator: np.random.Generator) -> Rows:
    """Rows of a data set. Some are harder than others."""
    lengths = generator.integers(3, 9, number) if is_text else np.ones(number, int)
    return [level + generator.normal() + generator.normal(size=length) for length in lengths]


def draw_run(numbers: dict[str, int], generator: np.random.Generator, is_text: bool = False) -> dict[str, dict]:
    """The rows of every data set at every stage."""
    run = {}
    for stage, (trained, others) in LEVELS.items():
        levels = {"forget": others if stage == "reference" else trained, "retain": trained}
        run[stage] = {
            split: draw(number, levels.get(split, others), is_text, generator) for split, number in numbers.items()
        }
    return run


def numbers_of_rows(num_forget: int, num_retain: int) -> dict[str, int]:
    return {"forget": num_forget, "retain": num_retain, "eval": NUM_EVAL, "unseen": NUM_UNSEEN}


def with_other_numbers(
    run: dict[str, dict], numbers: dict[str, int], generator: np.random.Generator, is_text: bool
) -> dict[str, dict]:
    """A run with other numbers of rows, in which the rows that are drawn for publication are those of another run."""
    other = draw_run(numbers, generator, is_text)
    for stage, splits in run.items():
        for split in SAMPLE_SIZES:
            here, there = (drawn_rows(split, answers(rows, is_text)) for rows in (splits[split], other[stage][split]))
            for old, new in zip(here, there, strict=True):
                other[stage][split][new] = splits[split][old]
    other_eval = {stage: {"eval": splits["eval"]} for stage, splits in run.items()}
    return {stage: splits | other_eval[stage] for stage, splits in other.items()}


def report_of(run: dict[str, dict], is_text: bool = False, **changes) -> UnlearningReport:
    """What the package measures of a run."""
    predictions = {
        stage: {split: answers(rows, is_text) for split, rows in splits.items()} for stage, splits in run.items()
    }
    reference = predictions["reference"]["forget"].log_probabilities
    compared = Evaluator(None, {}, 1, reference_log_probabilities=reference)
    stages = {
        stage: (replace(compared, reference_log_probabilities=None) if stage == "reference" else compared)._summarize(
            of_stage
        )
        for stage, of_stage in predictions.items()
    }
    relearned = {"after_repair": ("after_reset", "after_repair", "before"), "reference": ("reference", "before")}
    drawn = {stage: [predictions[step]["forget"] for step in steps] for stage, steps in relearned.items()}
    sample, found = (
        RelearningResult.of(
            (0, 1, 2),
            1e-3,
            {stage: [summarize_predictions(choose(step)) for step in steps] for stage, steps in drawn.items()},
        )
        for choose in (lambda step: step.select(drawn_rows("forget", step)), lambda step: step)
    )
    num_forget, num_retain = (len(run["before"][split]) for split in ("forget", "retain"))
    return report(num_forget, num_retain, stages=stages, relearning=replace(found, sample=sample), **changes)
