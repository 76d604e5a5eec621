# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo]"]
# ///
"""
Make an image classifier forget (a) a random tenth of its training data and (b) one whole class, on the 1,797
handwritten digits that ship with scikit-learn.

The demo trains a small vision transformer, answers both requests, retrains a reference for each of them without the
forgotten data, and prints the reports. It runs offline on a CPU.

```shell
python recipes/demo_digits.py --output_dir outputs
python recipes/demo_digits.py --output_dir outputs --seeds 0 1 2
```
"""

import argparse
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
from datasets import Array3D, ClassLabel, Dataset, Features
from sklearn.datasets import load_digits
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed
from transformers.utils import logging

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig, UnlearningReport, summarize_reports


FORGOTTEN_CLASS = 3

REQUESTS = ("random", "class")
LEARNING_RATE = 1e-3


def load_data(seed: int) -> dict[str, Dataset]:
    """Loads 1,200 digits for training, 300 unseen digits, and 297 digits for testing."""
    digits = load_digits()
    features = Features({"pixel_values": Array3D((1, 8, 8), "float32"), "labels": ClassLabel(num_classes=10)})
    images = (digits.images / 16).astype(np.float32)[:, None]
    dataset = Dataset.from_dict({"pixel_values": images, "labels": digits.target}, features=features)
    dataset = dataset.with_format("torch").shuffle(seed=seed)
    parts = {"train": range(1200), "unseen": range(1200, 1500), "eval": range(1500, 1797)}
    return {name: dataset.select(rows) for name, rows in parts.items()}


def split_request(data: dict[str, Dataset], request: str) -> dict[str, Dataset | dict[str, Dataset]]:
    """Splits the data for a request: forgets the first tenth of the (shuffled) training data, or a whole class."""
    train = data["train"]
    if request == "random":
        tenth = len(train) // 10
        return {
            "forget_dataset": train.select(range(tenth)),
            "retain_dataset": train.select(range(tenth, len(train))),
            "unseen_dataset": data["unseen"],
            "eval_dataset": data["eval"],
        }
    of_class = {name: np.asarray(part["labels"]) == FORGOTTEN_CLASS for name, part in data.items()}
    pick = {name: (part.select(np.flatnonzero(of_class[name])), part.select(np.flatnonzero(~of_class[name])))
            for name, part in data.items()}  # fmt: skip
    return {
        "forget_dataset": pick["train"][0],
        "retain_dataset": pick["train"][1],
        "unseen_dataset": pick["unseen"][0],
        "eval_dataset": {"other_classes": pick["eval"][1]},
    }


def train_classifier(dataset: Dataset, seed: int) -> ViTForImageClassification:
    """Trains a vision transformer with 103,000 weights from scratch."""
    set_seed(seed)
    model = ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=2,
            num_channels=1,
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=128,
            id2label={digit: str(digit) for digit in range(10)},
        )
    )
    with tempfile.TemporaryDirectory() as directory:
        args = TrainingArguments(
            directory,
            num_train_epochs=40,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=20,
            per_device_train_batch_size=64,
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=False,
            seed=seed,
        )
        Trainer(model, args, train_dataset=dataset).train()
    return model


def unlearn(
    model_directory: Path, data: dict[str, Dataset], request: str, output: Path, seed: int
) -> UnlearningReport:
    """
    Answers one request. The cleaned model and `report.json` go to `output`, and the files that may be published go to
    `output` followed by `-public`.
    """
    splits = split_request(data, request)
    args = FisherUnlearningConfig(
        str(output),
        num_train_epochs=5,
        # About five times that of the model's training, as advised in `FisherUnlearningConfig`.
        learning_rate=5 * LEARNING_RATE,
        random_mask_control=True,
        per_device_train_batch_size=64,
        per_device_eval_batch_size=256,
        logging_strategy="no",
        dataloader_pin_memory=False,
        seed=seed,
    )
    unlearner = FisherUnlearner(
        str(model_directory),
        args,
        reference_model=train_classifier(splits["retain_dataset"], seed),
        **splits,
    )
    report = unlearner.unlearn()
    unlearner.save_pretrained(f"{output}-public")
    return report


def new_directory(parent: Path) -> Path:
    """The first of `digits-1`, `digits-2` and so on that does not exist, so that nothing is overwritten."""
    number = 1
    while (parent / f"digits-{number}").exists():
        number += 1
    return parent / f"digits-{number}"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Unlearning on the handwritten digits of scikit-learn.")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs"), help="Folder in which a new folder digits-N is made."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="Seeds of the runs.")
    return parser


def main(args: argparse.Namespace) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    start = time.perf_counter()
    output = new_directory(args.output_dir)
    reports: dict[str, dict[int, UnlearningReport]] = {request: {} for request in REQUESTS}
    for seed in args.seeds:
        data = load_data(seed)
        directory = output / f"seed-{seed}"
        print(f"Seed {seed}: training the classifier on {len(data['train'])} digits")
        train_classifier(data["train"], seed).save_pretrained(directory / "original")
        for request in REQUESTS:
            print(f"Seed {seed}: forgetting a {request} set, and training the reference without it")
            report = unlearn(directory / "original", data, request, directory / request, seed)
            reports[request][seed] = report
            print(f"\nForget request: {request} (seed {seed})\n\n{report}\n")
    for request, by_seed in reports.items():
        seeds = ", ".join(map(str, by_seed))
        print(f"\nForget request: {request}; seeds {seeds}\n\n{summarize_reports(list(by_seed.values()))}")
    print(f"\nCleaned models, reports and cards are in {output}. {time.perf_counter() - start:.0f} seconds in all.")


if __name__ == "__main__":
    main(make_parser().parse_args())
