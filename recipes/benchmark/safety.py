# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo]"]
# ///
"""
Does the selection `"auto"` ever destroy a model without a warning? Tries two hundred requests on handwritten digits.

There are four kinds of requests: random sets of 1 to 50 % of the training data; one to five whole classes; rows of
which the retain data hold near-duplicates; and all rows with wrong labels, together with other rows. Every second
request comes with unseen data, so that its repair has the penalty on the forget data. A run that ends with less than
97 % accuracy on the retain data has to be refused or to warn. No reference can be above 100 %, so the bound holds
against any reference.

```shell
python recipes/benchmark/safety.py --output_dir outputs/safety
```

If it is started again, it continues where it stopped.
"""

import os


# Set before torch is imported, which reads it.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import argparse  # noqa: E402
import copy  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed  # noqa: E402
from transformers.utils import logging  # noqa: E402


FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from task_data import DataSource, Rows  # noqa: E402
from tasks import TASKS  # noqa: E402

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig  # noqa: E402
from hf_deepclean.report.tables import format_markdown_table  # noqa: E402
from hf_deepclean.runtime.files import replaced  # noqa: E402
from hf_deepclean.selection.search import UnrecoverableResetError  # noqa: E402


KINDS = ("random", "class", "near-duplicates", "mislabelled")
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
NUM_CLASSES = 10
LEARNING_RATE = 1e-3
SHARE_OF_WRONG_LABELS = 0.05
# Loss of retain accuracy, from 100 %, that needs no warning.
MAX_DROP = 0.03


def training_rows(kind: str, seed: int) -> tuple[Rows, np.ndarray, Rows]:
    """
    Loads the training rows, the positions of the rows that a request of the kind may forget (at most half of them),
    and unseen rows.
    """
    parts, _, _ = TASKS["digits-random"].family.load_rows(DataSource(), seed)
    rows, generator = parts["train"], np.random.default_rng(seed)
    order = generator.permutation(len(rows))
    half = order[: len(rows) // 2]
    if kind == "near-duplicates":
        # The second half of the rows is replaced by the first half with a little noise.
        noise = torch.Generator().manual_seed(seed)
        for place, other in zip(half, order[len(half) :], strict=True):
            image = rows[place]["pixel_values"]
            rows[other] = rows[place] | {"pixel_values": image + 0.05 * torch.randn(image.shape, generator=noise)}
    if kind == "mislabelled":
        for place in half[: round(SHARE_OF_WRONG_LABELS * len(rows))]:
            shift = int(generator.integers(1, NUM_CLASSES))
            rows[place] = rows[place] | {"labels": (rows[place]["labels"] + shift) % NUM_CLASSES}
    return rows, half, parts["unseen"]


def requests(kind: str, rows: Rows, candidates: np.ndarray, seed: int, number: int) -> Iterator[tuple[str, set[int]]]:
    """Yields `number` requests of a kind: the name of the size, and the positions of the rows to forget."""
    generator = np.random.default_rng(seed)
    for turn in range(number):
        if kind == "class":
            size = 1 + turn % 5
            gone = set(generator.permutation(NUM_CLASSES)[:size].tolist())
            yield f"{size} of 10", {place for place, row in enumerate(rows) if row["labels"] in gone}
            continue
        shares = [share for share in SHARES if kind != "mislabelled" or share >= SHARE_OF_WRONG_LABELS]
        share = shares[turn % len(shares)]
        # The rows with wrong labels come first.
        always = round(SHARE_OF_WRONG_LABELS * len(rows)) if kind == "mislabelled" else 0
        drawn = generator.permutation(candidates[always:])[: round(share * len(rows)) - always]
        yield f"{100 * share:.0f} %", {*candidates[:always].tolist(), *drawn.tolist()}


def train(rows: Rows, seed: int) -> PreTrainedModel:
    """Trains the classifier of the digits until it knows its rows by heart."""
    set_seed(seed)
    model = TASKS["digits-random"].family.new_model(None)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            num_train_epochs=40,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            per_device_train_batch_size=64,
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=False,
            disable_tqdm=True,
            use_cpu=True,
            seed=seed,
        )
        Trainer(model, args, train_dataset=rows).train()
    return model.eval()


def answer(model: PreTrainedModel, rows: Rows, forgotten: set[int], unseen: Rows | None, seed: int) -> dict[str, Any]:
    """Answers a request. Returns the accuracies, and whether the run was refused or gave a warning."""
    splits = {
        "forget_dataset": [row for place, row in enumerate(rows) if place in forgotten],
        "retain_dataset": [row for place, row in enumerate(rows) if place not in forgotten],
        "unseen_dataset": unseen,
    }
    with tempfile.TemporaryDirectory() as folder:
        args = FisherUnlearningConfig(
            f"{folder}/result",
            learning_rate=5 * LEARNING_RATE,
            # A longer repair would hide what the selection destroyed.
            max_repair_rounds=1,
            per_device_train_batch_size=64,
            per_device_eval_batch_size=256,
            logging_strategy="no",
            dataloader_pin_memory=False,
            disable_tqdm=True,
            use_cpu=True,
            seed=seed,
        )
        try:
            report = FisherUnlearner(copy.deepcopy(model), args, **splits).unlearn()
        except UnrecoverableResetError:
            return {"refused": True, "warned": False, "retain": None, "forget": None}
    last = report.stages["after_repair"].splits
    return {
        "refused": False,
        "warned": bool(report.shortfalls()),
        "retain": last["retain"].accuracy,
        "forget": last["forget"].accuracy,
        "share": report.selection.num_selected / report.selection.num_in_scope,
    }


def summarize(results: list[dict[str, Any]]) -> str:
    """Makes a Markdown table of the results by kind of request."""
    rows = []
    for kind in (*KINDS, "all"):
        found = [result for result in results if kind in (result["kind"], "all")]
        known = [result["retain"] for result in found if not result["refused"]]
        if not known:
            continue
        lost = [result for result in found if not result["refused"] and result["retain"] < 1 - MAX_DROP]
        silent = [result for result in lost if not result["warned"]]
        cells = [len(found), sum(result["refused"] for result in found), sum(result["warned"] for result in found)]
        shares = [f"{100 * value:.1f} %" for value in (sum(known) / len(known), min(known))]
        rows.append([kind, *map(str, cells), *shares, str(len(lost)), str(len(silent))])
    columns = ["requests", "refused", "warned", "retain accuracy, mean", "lowest", "below 97 %", "without a warning"]
    return format_markdown_table(columns, rows)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Try two hundred requests with the selection 'auto'.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/safety"), help="Folder of the results.")
    parser.add_argument("--num_requests", type=int, default=200, help="Number of requests, a quarter of each kind.")
    parser.add_argument("--num_models", type=int, default=2, help="Number of models per kind.")
    return parser


def main(args: argparse.Namespace) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    number = args.num_requests // (len(KINDS) * args.num_models)
    results = []
    for kind in KINDS:
        for seed in range(args.num_models):
            path, model = args.output_dir / f"{kind}-{seed}.json", None
            found = json.loads(path.read_text()) if path.exists() else []
            rows, candidates, unseen = training_rows(kind, seed)
            for turn, (size, forgotten) in enumerate(requests(kind, rows, candidates, seed, number)):
                if turn < len(found):
                    continue
                model = train(rows, seed) if model is None else model
                # Alternates, with a shift after every eight requests, because the sizes repeat in short cycles.
                with_unseen = (turn // 8 + turn) % 2 == 1
                outcome = answer(model, rows, forgotten, unseen if with_unseen else None, 1000 * seed + turn)
                found.append({"kind": kind, "seed": seed, "size": size, "unseen": with_unseen} | outcome)
                with replaced(path) as file:
                    file.write_text(json.dumps(found, indent=2) + "\n")
                print(found[-1], flush=True)
            results += found
    print(f"\n{summarize(results)}")


if __name__ == "__main__":
    main(make_parser().parse_args())
