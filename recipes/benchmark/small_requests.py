# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo]"]
# ///
"""
How well are small requests answered? Forgets 1 to 50 rows of three models, and compares with models that were trained
without these rows.

```shell
python recipes/benchmark/small_requests.py --output_dir outputs/small
```

If it is started again, it continues where it stopped.
"""

import os


# Set before torch is imported, which reads it.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import argparse  # noqa: E402
import copy  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from unittest import mock  # noqa: E402

import numpy as np  # noqa: E402
from scipy.stats import t  # noqa: E402
from torch import nn  # noqa: E402
from transformers.utils import logging  # noqa: E402


FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from figures import accuracy, predict  # noqa: E402
from methods import set_one_thread  # noqa: E402
from task_data import NUM_REPETITIONS, DataSource, TaskData  # noqa: E402
from tasks import TASKS, Task  # noqa: E402
from train_models import train_model  # noqa: E402

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig  # noqa: E402
from hf_deepclean.evaluation.figures.divergence import jensen_shannon_divergence  # noqa: E402
from hf_deepclean.evaluation.figures.membership import membership_attack  # noqa: E402
from hf_deepclean.report.tables import format_markdown_table  # noqa: E402
from hf_deepclean.runtime.files import replaced  # noqa: E402
from hf_deepclean.selection.search import UnrecoverableResetError  # noqa: E402


TASK_NAMES = ("digits-random", "text-random", "biographies-full", "minilm-random-3", "minilm-random-7")
# Number of rows of a request, and number of requests of that size, of which no two share a row.
REQUESTS = {1: 3, 3: 2, 10: 1, 25: 1, 50: 1}
POOL_SIZE = max(REQUESTS)
# Of fine-tuned models: more requests, and this number of references, whose losses show what chance does.
FINE_TUNED_REQUESTS = {1: 7, 3: 7, 10: 5, 25: 2, 50: 1}
NUM_REFERENCES = 3
# For the report; the measurements here read all retained rows.
NUM_EVALUATED_EXAMPLES = 100


class SmallRequestTask(Task):
    """A task of the benchmark whose request is 50 random rows."""

    def data(self, seed: int, source: DataSource) -> TaskData:
        """The data for a seed. The reference is trained without all 50 rows."""
        data = super().data(seed, source)
        if not self.is_language_model:
            pool, rest = data.forget[:POOL_SIZE], data.forget[POOL_SIZE:] + data.retain
            return replace(data, forget=pool, retain=rest, kept=rest, reference_rows=rest)
        repetitions = source.share_of(NUM_REPETITIONS, least=1)
        people = data.forget + data.retain[: len(data.kept) * 2]
        ordinary = data.retain[len(data.kept) * 2 :]
        order = np.random.default_rng(seed).permutation(len(people))
        pool, rest = ([people[place] for place in part] for part in (order[:POOL_SIZE], order[POOL_SIZE:]))
        read = data.original_rows[len(people) * repetitions :]
        return replace(data, forget=pool, retain=rest + ordinary, kept=rest, reference_rows=rest * repetitions + read)

    def folder(self, role: str, seed: int) -> str:
        """The name of the folder of a trained model."""
        folder = super().folder(role, seed)
        return f"small-{folder}" if role.startswith("reference") else folder


def small_task(name: str) -> SmallRequestTask:
    """Makes the task of 50 rows from a task of the benchmark."""
    task = TASKS[name]
    return SmallRequestTask(task.name, task.request, task.family, task.adapter)


def requests(data: TaskData, numbers: dict[int, int] = REQUESTS) -> Iterator[tuple[int, int, TaskData]]:
    """Yields every request: its number of rows, its number, and its data. The other rows of the pool are retained."""
    for size, number in numbers.items():
        for turn in range(min(number, len(data.forget) // size)):
            gone = range(turn * size, (turn + 1) * size)
            forget = [data.forget[place] for place in gone]
            others = [row for place, row in enumerate(data.forget) if place not in gone]
            yield size, turn, replace(data, forget=forget, retain=others + data.retain, kept=others + data.kept)


def measure(model: nn.Module, data: TaskData) -> dict[str, float]:
    """Measures the membership attack against rows that no run saw, and the accuracies and mean losses."""
    rows = {"forget": data.forget, "retain": data.kept, "eval": data.eval, "attacked": data.attacked}
    found = {split: predict(model, part, data) for split, part in rows.items()}
    result = {"auc": membership_attack(found["forget"].confidence(), found["attacked"].confidence()).auc}
    for split, answers in found.items():
        result[split] = accuracy(answers, split)
        result[f"{split}_loss"] = float(-answers.confidence().mean())
    return result


def answer(
    model: nn.Module, task: Task, data: TaskData, seed: int, with_unseen: bool, base: Path | None, **options: Any
) -> tuple[dict, nn.Module]:
    """Answers a request on defaults. Returns the measurements and the processor seconds, and the model."""
    recipe = task.family.recipe
    if task.family.is_fine_tuned:
        epochs, rows = recipe.original_num_train_epochs, len(data.forget) + len(data.retain)
        steps = math.ceil(epochs * rows / recipe.original_per_device_train_batch_size)
        options |= {"pretrained_model": str(base), "training_steps": steps}
    model = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "learning_rate": 5 * recipe.original_learning_rate,
            "per_device_train_batch_size": recipe.original_per_device_train_batch_size,
            "per_device_eval_batch_size": 256,
            "per_device_fisher_batch_size": 128,
            "logging_strategy": "no",
            "dataloader_pin_memory": False,
            "disable_tqdm": True,
            "use_cpu": True,
            "seed": seed,
        }
        args = FisherUnlearningConfig(f"{folder}/result", **(settings | options))
        splits = {"forget_dataset": data.forget, "retain_dataset": data.retain}
        if with_unseen:
            splits["unseen_dataset"] = data.unseen
        start = time.process_time()
        try:
            with mock.patch("hf_deepclean.evaluation.samples.MAX_EVALUATED_EXAMPLES", NUM_EVALUATED_EXAMPLES):
                report = FisherUnlearner(model, args, data.data_collator, **splits).unlearn()
        except UnrecoverableResetError:
            return {"refused": True}, model
    share, seconds = report.selection.num_selected / report.selection.num_in_scope, time.process_time() - start
    found = measure(model, data) | {"seconds": seconds, "phases": dict(report.seconds), "share": share}
    if report.natural is not None:
        found |= {"is_needed": report.natural.is_needed, "is_rejected": report.natural.is_rejected}
    return found, model


def measure_loss(model: nn.Module, data: TaskData) -> float:
    """The mean loss of the forget data."""
    return float(-predict(model, data.forget, data).confidence().mean())


def divergence(model: nn.Module, other: nn.Module, data: TaskData) -> float | None:
    """The mean Jensen-Shannon divergence of the answers on the forget data."""
    answers = [predict(one, data.forget, data).log_probabilities for one in (model, other)]
    return None if answers[0] is None else float(jensen_shannon_divergence(*answers).mean())


def summarize(results: list[dict[str, Any]]) -> str:
    """Makes a Markdown table: a line per task and number of rows."""
    rows = []
    for task, unseen, size in dict.fromkeys((r["task"], r["unseen"], r["size"]) for r in results):
        found = [r for r in results if (r["task"], r["unseen"], r["size"]) == (task, unseen, size)]
        answered = [result for result in found if not result["after"].get("refused")]

        def mean(stage: str, name: str, answered: list = answered) -> float:
            return float(np.mean([result[stage][name] for result in answered]))

        if not answered:
            continue
        number = f"{len(found)}" if len(found) == len(answered) else f"{len(answered)} of {len(found)}"
        error = np.std([result["after"]["auc"] for result in answered], ddof=min(1, len(answered) - 1))
        shares = [f"{100 * mean(stage, 'retain'):.1f} %" for stage in ("before", "after", "reference")]
        tests = [f"{100 * mean(stage, 'eval'):.1f} %" for stage in ("before", "after", "reference")]
        aucs = [f"{mean(stage, 'auc'):.3f}" for stage in ("before", "after", "reference")]
        aucs[1] += f" ± {1.96 * error / len(answered) ** 0.5:.3f}"
        cells = [*aucs, *shares, *tests, f"{100 * mean('after', 'share'):.3g} %", f"{mean('after', 'seconds'):.1f}"]
        rows.append([task.rsplit("-", 1)[0], "yes" if unseen else "no", str(size), number, *cells])
    names = ["AUC before", "after", "reference", "retain before", "after", "reference", "test before", "after"]
    return format_markdown_table(
        ["model", "unseen", "rows", "requests", *names, "reference", "reset", "seconds"], rows
    )


def summarize_fine_tuned(results: list[dict[str, Any]]) -> str:
    """Makes a Markdown table of requests to fine-tuned models, compared with several references."""
    results, rows = [result for result in results if len(result["reference_losses"]) > 1], []
    for task, size in dict.fromkeys((r["task"], r["size"]) for r in results):
        found = [r for r in results if (r["task"], r["size"]) == (task, size)]
        within = sum(_is_within(r["after"]["forget_loss"], r["reference_losses"]) for r in found)
        before = sum(_is_within(r["before"]["forget_loss"], r["reference_losses"]) for r in found)
        farther = sum(r["after"]["divergence"] > r["before"]["divergence"] for r in found)
        nothing = sum(not r["after"].get("is_needed", True) for r in found)
        losses = [np.mean([r[stage]["forget_loss"] for r in found]) for stage in ("before", "after", "reference")]
        drop = max(100 * (r["before"]["retain"] - r["after"]["retain"]) for r in found)
        cells = [*(f"{loss:.2f}" for loss in losses), f"{before}", f"{within}", f"{farther}", f"{nothing}"]
        rows.append([task, str(size), str(len(found)), *cells, f"{drop:.1f}"])
    head = ["task", "rows", "requests", "forget loss before", "after", "reference", "within before", "within after"]
    return format_markdown_table([*head, "farther", "nothing to forget", "largest retain drop"], rows) if rows else ""


def _is_within(loss: float, references: list[float]) -> bool:
    """Whether a loss lies in the 95 % interval of the loss of one more reference, by the t distribution."""
    mean, spread = np.mean(references), np.std(references, ddof=1)
    reach = t.ppf(0.975, len(references) - 1) * spread * (1 + 1 / len(references)) ** 0.5
    return abs(loss - mean) <= reach


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Answer requests of 1 to 50 rows.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/small"), help="Folder of the results.")
    parser.add_argument("--models_dir", type=Path, help="Folder of the trained models. By default in the output.")
    parser.add_argument("--tasks", nargs="+", default=list(TASK_NAMES), choices=TASK_NAMES, help="The models.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of the models.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(REQUESTS), choices=list(REQUESTS), help="Rows.")
    parser.add_argument("--unseen", nargs="+", default=["yes", "no"], choices=["yes", "no"], help="With unseen data?")
    parser.add_argument("--fraction", type=float, default=1.0, help="Share of data and epochs, to try it out.")
    return parser


def main(args: argparse.Namespace) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_one_thread()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    source, results = DataSource(fraction=args.fraction), []
    models_dir = args.models_dir or args.output_dir / "models"
    for name in args.tasks:
        task = small_task(name)
        for seed in args.seeds:
            path = args.output_dir / f"{name}-{seed}.json"
            found = json.loads(path.read_text()) if path.exists() else []
            done = {(result["size"], result["turn"], result["unseen"]) for result in found}
            data = task.data(seed, source)
            numbers = FINE_TUNED_REQUESTS if task.family.is_fine_tuned else REQUESTS
            further = range(2, NUM_REFERENCES + 1) if task.family.is_fine_tuned else ()
            roles = ["original", "reference", *(f"reference{number}" for number in further)]
            models = {role: train_model(task, role, seed, source, models_dir) for role in roles}
            base = task.base_folder(models_dir, seed)
            for with_unseen in [word == "yes" for word in args.unseen]:
                for size, turn, request in requests(data, numbers):
                    if (size, turn, with_unseen) in done or size not in args.sizes:
                        continue
                    outcome = {"task": name, "seed": seed, "size": size, "turn": turn, "unseen": with_unseen}
                    outcome |= {"before": measure(models["original"], request)}
                    outcome |= {"reference": measure(models["reference"], request)}
                    outcome["after"], model = answer(models["original"], task, request, seed, with_unseen, base)
                    outcome["reference_losses"] = [
                        measure_loss(models[role], request) for role in roles if role.startswith("reference")
                    ]
                    for stage, one in (("before", models["original"]), ("after", model)):
                        outcome[stage]["divergence"] = divergence(one, models["reference"], request)
                    found.append(outcome)
                    with replaced(path) as file:
                        file.write_text(json.dumps(found, indent=2) + "\n")
            results += found
    print(summarize(results))
    print(summarize_fine_tuned(results))


if __name__ == "__main__":
    main(make_parser().parse_args())
