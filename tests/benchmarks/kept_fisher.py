# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Compares the weights that a retain Fisher by subtraction selects with those that a pass over the retain data selects.

Trains a vision transformer on the digits and a small language model on fictitious people and ordinary text, keeps the
Fisher of all training data, and compares the selections for several requests and rules. The language model has an
output layer of its own, so the embeddings of words that only the forget data use have a retain Fisher of exactly 0.

```shell
python -m tests.benchmarks.kept_fisher            # selections
python -m tests.benchmarks.kept_fisher --times    # seconds
```
"""

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, default_data_collator, set_seed
from transformers.utils import logging

from hf_deepclean import (
    FisherDiagonal,
    FisherUnlearner,
    FisherUnlearningConfig,
    WeightSelection,
    accumulate_fisher_diagonal,
    cancellation_error,
    select_weights,
    tokenize_causal_lm,
    weights_fingerprint,
)
from hf_deepclean.fisher.diagonal import rounding_error


RULES: dict[str, dict[str, Any]] = {
    "gamma 0.8": {"gamma": 0.8},
    "gamma 1.2": {"gamma": 1.2},
    "gamma 10": {"gamma": 10.0},
    "3 %": {"reset_fraction": 0.03},
    "30 %": {"reset_fraction": 0.3},
    "adaptive": {"selection": "adaptive"},
}
BATCH_SIZE = 32
# Another batch size, for other rounding errors.
OTHER_BATCH_SIZE = 17


class Workload:
    """A trained model, the data it was trained on, and the rows of the requests."""

    def __init__(self, model: torch.nn.Module, dataset: Any, collator: Any, named: dict[str, Collection[int]]) -> None:
        self.model, self.dataset, self.collator = model.eval(), dataset, collator
        order = np.random.default_rng(0).permutation(len(dataset))
        shares = {"1 %": 0.01, "10 %": 0.1, "90 %": 0.9, "99 %": 0.99}
        self.requests = {name: order[: int(share * len(dataset))] for name, share in shares.items()} | named

    def fisher(self, rows: Collection[int], batch_size: int = BATCH_SIZE) -> FisherDiagonal:
        subset = Subset(self.dataset, [int(row) for row in np.sort(rows)])
        return accumulate_fisher_diagonal(self.model, DataLoader(subset, batch_size, collate_fn=self.collator))


def digits_vit(seed: int) -> Workload:
    from demo_digits import FORGOTTEN_CLASS, load_data, train_classifier

    dataset = load_data(seed)["train"]
    of_class = np.flatnonzero(np.asarray(dataset["labels"]) == FORGOTTEN_CLASS)
    return Workload(train_classifier(dataset, seed), dataset, default_data_collator, {"class": of_class})


def people_llama(seed: int) -> Workload:
    from causal_lm import MAX_LENGTH, new_model
    from datasets import concatenate_datasets
    from example_data import load_ordinary_text, load_people
    from example_tokenizers import train_byte_pair_tokenizer

    people, ordinary = load_people(seed=seed)["train"], load_ordinary_text(1000, seed)["train"]
    texts = [*ordinary["text"], *people["prompt"], *people["completion"]]
    tokenizer = train_byte_pair_tokenizer(texts, 4000, MAX_LENGTH)
    collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
    on_people, ordinary = (tokenize_causal_lm(part, tokenizer, MAX_LENGTH) for part in (people, ordinary))
    set_seed(seed)
    model = new_model(tokenizer)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with tempfile.TemporaryDirectory() as directory:
        args = TrainingArguments(
            directory,
            num_train_epochs=2,
            learning_rate=1.2e-3,
            per_device_train_batch_size=16,
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=False,
            disable_tqdm=True,
            seed=seed,
        )
        Trainer(model, args, collator, train_dataset=ConcatDataset([on_people] * 4 + [ordinary])).train()
    dataset = concatenate_datasets([on_people, ordinary])
    return Workload(model, dataset, collator, {"ten people": np.flatnonzero(people["forget"])})


WORKLOADS = {"ViT": digits_vit, "Llama": people_llama}


def num_different(first: WeightSelection, second: WeightSelection) -> int:
    nothing = torch.empty(0, dtype=torch.long)
    return sum(
        np.setxor1d(first.indices.get(name, nothing), second.indices.get(name, nothing)).size
        for name in first.num_weights
    )


def rows_of(name: str, workload: Workload) -> Iterator[list[str]]:
    """Yields a table row for every request and rule, with the rounding that was estimated and found."""
    everything = np.arange(len(workload.dataset))
    kept = workload.fisher(everything)
    for request, forget_rows in workload.requests.items():
        retain_rows = np.setdiff1d(everything, forget_rows)
        forget = workload.fisher(forget_rows)
        passes = [workload.fisher(retain_rows, size) for size in (BATCH_SIZE, OTHER_BATCH_SIZE)]
        difference = kept - forget
        for rule, settings in RULES.items():
            try:
                expected, other = (select_weights(forget, retain, **settings) for retain in passes)
                selected = select_weights(forget, difference, **settings)
            except ValueError:
                # No weight has so large a ratio.
                continue
            error = cancellation_error(kept, forget, selected)
            yield [
                name,
                request,
                rule,
                f"{expected.num_selected:,} of {expected.num_in_scope:,}",
                f"{num_different(selected, expected):,}",
                f"{num_different(other, expected):,}",
                f"{error.num_undecided:,}",
                "yes" if error.matters else "no",
                f"{expected.num_infinite_ratios:,} / {selected.num_infinite_ratios:,}",
                f"{error.median_relative_error:.0e}",
            ]


def describe(name: str, workload: Workload) -> str:
    """Says how far two passes lie apart, in units of the estimated error, and how long a fingerprint takes."""
    everything = np.arange(len(workload.dataset))
    passes = [workload.fisher(everything, size) for size in (BATCH_SIZE, OTHER_BATCH_SIZE)]
    found = torch.cat(
        [
            ((total - passes[1].sums[parameter]).abs() / rounding_error(total)).nan_to_num(0).flatten()
            for parameter, total in passes[0].sums.items()
        ]
    ).numpy()
    start = time.perf_counter()
    weights_fingerprint(workload.model)
    seconds = time.perf_counter() - start
    size = sum(parameter.nbytes for parameter in workload.model.parameters()) / 1e6
    return (
        f"{name}: two passes over {len(everything):,} examples in batches of {BATCH_SIZE} and {OTHER_BATCH_SIZE} lie "
        f"apart by {np.median(found):.2f} of the estimated error in the median, {np.quantile(found, 0.999):.2f} at "
        f"the 99.9th percentile; {(found > 1).mean():.1e} of the weights above it. Fingerprint of {size:.1f} MB: "
        f"{seconds * 1e3:.0f} ms."
    )


def times_of_a_request(name: str, workload: Workload, num_train_epochs: float) -> Iterator[list[str]]:
    """Yields the seconds of the phases of a request for 10 %, without and with a kept Fisher."""
    kept = workload.fisher(np.arange(len(workload.dataset)))
    kept = replace(kept, weights_fingerprint=weights_fingerprint(workload.model))
    forgotten = set(map(int, workload.requests["10 %"]))
    parts = [[row for row in range(len(workload.dataset)) if (row in forgotten) == part] for part in (True, False)]
    for with_kept in (False, True):
        with tempfile.TemporaryDirectory() as directory:
            args = FisherUnlearningConfig(
                f"{directory}/clean",
                reset_fraction=0.03,
                num_train_epochs=num_train_epochs,
                learning_rate=1e-3,
                per_device_train_batch_size=32,
                report_to="none",
                logging_strategy="no",
                use_cpu=True,
                disable_tqdm=True,
            )
            unlearner = FisherUnlearner(
                copy.deepcopy(workload.model),
                args,
                workload.collator,
                forget_dataset=workload.dataset.select(parts[0]),
                retain_dataset=workload.dataset.select(parts[1]),
                kept_fisher=kept if with_kept else None,
            )
            start = time.perf_counter()
            seconds = unlearner.unlearn().seconds
            whole = time.perf_counter() - start
        needed = seconds["forget Fisher"] + seconds["repair"]
        spent = whole - seconds["evaluation"]
        figures = [
            seconds["forget Fisher"],
            seconds.get("retain Fisher", 0.0),
            seconds["selection"],
            seconds["repair"],
        ]
        yield [
            name,
            "kept" if with_kept else "by a pass",
            *(f"{value:.2f}" for value in [*figures, spent - sum(figures), seconds["evaluation"]]),
            f"{spent / needed:.2f}",
        ]


TIMES_HEADER = [
    "model",
    "retain Fisher",
    "forget Fisher, s",
    "retain Fisher, s",
    "selection",
    "repair",
    "all else",
    "evaluation",
    "without evaluation, over forget Fisher and repair",
]

HEADER = [
    "model",
    "request",
    "rule",
    "selected",
    "different by subtraction",
    "by another batch size",
    "undecided",
    "real pass",
    "infinite ratios, pass / subtraction",
    "median error",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--models", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--times", action="store_true", help="time requests instead of comparing selections")
    parser.add_argument("--num_train_epochs", type=float, default=2, help="number of epochs of the timed repair")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.num_threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # The recipes are scripts that import each other by name.
    sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
    if arguments.times:
        rows = [
            row
            for name in arguments.models
            for row in times_of_a_request(name, WORKLOADS[name](arguments.seed), arguments.num_train_epochs)
        ]
        for line in (TIMES_HEADER, ["---"] * len(TIMES_HEADER), *rows):
            print(f"| {' | '.join(line)} |")
        return
    lines, notes = [], []
    for name in arguments.models:
        workload = WORKLOADS[name](arguments.seed)
        notes.append(describe(name, workload))
        lines += list(rows_of(name, workload))
    for line in (HEADER, ["---"] * len(HEADER), *lines):
        print(f"| {' | '.join(line)} |")
    print()
    print("\n".join(notes))


if __name__ == "__main__":
    main()
