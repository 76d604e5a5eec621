# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The jobs of the benchmark: their order, and what each of them does. The result of a job is one JSON file."""

import contextlib
import copy
import gc
import json
import platform
import resource
import time
import traceback
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from choose import TUNING_SEED, choose, score
from figures import ALL_SPLITS, VISIBLE_SPLITS, measure, relearn, round_weights
from methods import (
    BASELINES,
    NUM_CANDIDATES,
    ORIGINAL,
    OURS,
    OURS_INIT,
    REFERENCE2,
    REFERENCE_POINTS,
    Budget,
    Outcome,
    applies,
    candidates_of,
    run_baseline,
    run_ours,
    set_one_thread,
)
from task_data import DataSource
from tasks import TASKS
from train_models import train_model

import hf_deepclean
from hf_deepclean.runtime.files import replaced


# Relearning and rounding of a baseline are measured on this number of seeds only.
NUM_SEEDS_UNDER_STRESS = 2


@dataclass(frozen=True)
class Job:
    """
    One job.

    Args:
        kind (`str`):
            `"train"` (a model), `"tune"` (a candidate of a baseline) or `"run"` (a method for the tables).
        task (`str`):
            Name of the task.
        seed (`int`):
            The seed.
        what (`str`):
            The role of the model to train, or the method.
        candidate (`int`, *optional*):
            Index of the candidate to tune.
    """

    kind: str
    task: str
    seed: int
    what: str
    candidate: int | None = None

    @property
    def name(self) -> str:
        """The name of the job, which is the same for tasks that share it."""
        return str(self.result(Path()).with_suffix(""))

    def result(self, output_dir: Path) -> Path:
        """The file of the result."""
        if self.kind == "train":
            return output_dir / "models" / TASKS[self.task].folder(self.what, self.seed) / "training.json"
        if self.kind == "tune":
            return output_dir / "tuning" / self.task / f"{self.what}-{self.candidate}.json"
        return output_dir / "results" / self.task / f"{self.what}-{self.seed}.json"

    def is_done(self, output_dir: Path) -> bool:
        """Whether the result exists."""
        return self.result(output_dir).exists()

    def write(self, result: dict[str, Any], output_dir: Path) -> None:
        """Writes the result, completely or not at all."""
        path = self.result(output_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            file.write_text(json.dumps(result, indent=2) + "\n")


def all_jobs(tasks: Collection[str], seeds: Collection[int], methods: Collection[str]) -> dict[Job, list[Job]]:
    """
    Lists all jobs in an order in which they can be done.

    Args:
        tasks, methods (`Collection[str]`):
            Names of the tasks and of the methods.
        seeds (`Collection[int]`):
            The seeds to report.

    Returns:
        `dict[Job, list[Job]]`: The jobs, each with the jobs that must be done before it.
    """
    jobs: dict[str, Job] = {}
    needs: dict[Job, list[Job]] = {}

    def add(job: Job, *before: Job) -> Job:
        if job.name not in jobs:
            jobs[job.name], needs[job] = job, list(before)
        return jobs[job.name]

    def trained(task: str, role: str, seed: int) -> Job:
        base = [add(Job("train", task, seed, "base"))] if TASKS[task].trains_base else []
        return add(Job("train", task, seed, role), *base)

    for task in tasks:
        baselines = [method for method in methods if method in BASELINES and applies(method, TASKS[task])]
        tuned: dict[str, list[Job]] = {}
        if baselines:
            original = trained(task, "original", TUNING_SEED)
            before = add(Job("tune", task, TUNING_SEED, ORIGINAL, 0), original)
            tuned = {
                method: [
                    add(Job("tune", task, TUNING_SEED, method, number), before) for number in range(NUM_CANDIDATES)
                ]
                for method in baselines
            }
        for seed in seeds:
            models = [trained(task, role, seed) for role in ("original", "reference")]
            for method in (*REFERENCE_POINTS, *methods):
                if applies(method, TASKS[task]):
                    second = [trained(task, "reference2", seed)] if method == REFERENCE2 else []
                    add(Job("run", task, seed, method), *models, *second, *tuned.get(method, ()))
    return needs


def wanted(needs: dict[Job, list[Job]], output_dir: Path) -> list[Job]:
    """
    The jobs that are still to be done: runs without a result, and the jobs without a result that they need.

    Args:
        needs (`dict[Job, list[Job]]`):
            From [`all_jobs`].
        output_dir (`Path`):
            Folder of the results.
    """
    missing = {job for job in needs if not job.is_done(output_dir)}
    needed = {job for job in missing if job.kind == "run"}
    for job in reversed(needs):
        if job in needed:
            needed.update(missing.intersection(needs[job]))
    return [job for job in needs if job in needed]


def do(job: Job, output_dir: Path, source: DataSource) -> None:
    """Does a job, unless its result exists."""
    if job.is_done(output_dir):
        return
    set_one_thread()
    # Trainer starts with a garbage collection, which would look through everything that was imported: one percent of
    # such short trainings, and a negligible part of real ones.
    gc.freeze()
    start = time.perf_counter()
    models = output_dir / "models"
    models.mkdir(parents=True, exist_ok=True)
    if job.kind == "train":
        train_model(TASKS[job.task], job.what, job.seed, source, models)
        return
    work = _tune if job.kind == "tune" else _run
    result = asdict(job) | work(job, output_dir, source)
    result |= {"job_seconds": time.perf_counter() - start, "source": asdict(source), "versions": _versions()}
    job.write(result, output_dir)


def _tune(job: Job, output_dir: Path, source: DataSource) -> dict[str, Any]:
    """Computes the score of a candidate; a candidate that fails has none."""
    task, models = TASKS[job.task], output_dir / "models"
    data, model = task.data(job.seed, source), train_model(task, "original", job.seed, source, models)
    if job.what == ORIGINAL:
        figures = measure(model, data, VISIBLE_SPLITS)
        return {"figures": figures, "score": score(task.request, figures, figures)}
    budget = Budget.of(task, data, source)
    candidate = candidates_of(job.what, budget)[job.candidate]
    outcome, failure = _attempt(job.what, model, job, data, source, candidate, models)
    if failure is not None:
        return {"score": None, "failure": failure}
    original = json.loads(Job("tune", job.task, job.seed, ORIGINAL, 0).result(output_dir).read_text())
    try:
        figures = measure(model, data, VISIBLE_SPLITS)
    except ValueError as error:
        # A destroyed model gives log-likelihoods that are not finite.
        return {"score": None, "failure": str(error)}
    return {"figures": figures, "score": score(task.request, figures, original["figures"]), **_costs(outcome)}


def _run(job: Job, output_dir: Path, source: DataSource) -> dict[str, Any]:
    """Computes all figures of a method on a seed."""
    task, models = TASKS[job.task], output_dir / "models"
    data, choice = task.data(job.seed, source), None
    role = job.what.lower() if job.what in REFERENCE_POINTS else "original"
    model = train_model(task, role, job.seed, source, models)
    retraining = json.loads(Job("train", job.task, job.seed, "reference").result(output_dir).read_text())
    result: dict[str, Any] = {"request": task.request, "retraining": retraining}
    if job.what not in REFERENCE_POINTS:
        candidate = None
        if job.what in BASELINES:
            scores = [
                json.loads(Job("tune", job.task, TUNING_SEED, job.what, number).result(output_dir).read_text())[
                    "score"
                ]
                for number in range(NUM_CANDIDATES)
            ]
            choice = choose(scores)
            result |= {"scores": scores, "chosen": choice}
            if choice is None:
                return result | {"failure": "No candidate gave a model with finite figures."}
            candidate = candidates_of(job.what, Budget.of(task, data, source))[choice]
        outcome, failure = _attempt(job.what, model, job, data, source, candidate, models)
        if failure is not None:
            return result | {"failure": failure}
        result |= _costs(outcome)
    reference = train_model(task, "reference", job.seed, source, models)
    try:
        result["figures"] = measure(model, data, ALL_SPLITS, reference)
    except ValueError as error:
        return result | {"failure": str(error)}
    if job.what in BASELINES and job.seed >= NUM_SEEDS_UNDER_STRESS:
        return result
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(not task.adapter or "lora_" in parameter_name)
    result["relearning"] = relearn(model, task, data, source, job.seed)
    result["four_bits"] = round_weights(model, data)
    return result


def _attempt(
    method: str, model: torch.nn.Module, job: Job, data: Any, source: DataSource, candidate: Any, models: Path
) -> tuple[Outcome | None, str | None]:
    """Applies a method to the model. Returns the outcome, or the reason why the method failed."""
    task = TASKS[job.task]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        if method in (OURS, OURS_INIT):
            rewinds = method == OURS and task.family.is_fine_tuned
            checkpoint = task.base_folder(models, job.seed) if rewinds else None
            outcome = run_ours(model, task, data, source, job.seed, checkpoint)
        else:
            outcome = run_baseline(model, candidate, data, Budget.of(task, data, source), job.seed)
    except (ValueError, FloatingPointError, RuntimeError) as error:
        traceback.print_exc()
        return None, f"{type(error).__name__}: {error}"
    outcome.phases["peak_bytes"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    return outcome, None


def _costs(outcome: Outcome) -> dict[str, Any]:
    phases = copy.copy(outcome.phases)
    return {
        "settings": outcome.settings,
        "peak_bytes": phases.pop("peak_bytes"),
        "phases": phases,
        "seconds": outcome.clock.seconds,
        "processor_seconds": outcome.clock.processor_seconds,
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hf_deepclean": hf_deepclean.__version__,
    }


def do_in_process(job: Job, output_dir: Path, source: DataSource, log: Path) -> None:
    """Does a job in its own process, and writes its output to a file."""
    transformers.utils.logging.disable_progress_bar()
    with open(log, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            do(job, output_dir, source)
        except BaseException:
            traceback.print_exc()
            raise SystemExit(1) from None
    log.unlink()
