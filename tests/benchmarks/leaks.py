# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Measures how fast the files of a model are searched for the forgotten rows, on one core.

```shell
python -m tests.benchmarks.leaks --num_rows 8000 --megabytes 512
```
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import save_file

from hf_deepclean import find_leaks, needles_of_dataset
from hf_deepclean.publishing.leaks import Needles


def rows(number: int, seed: int = 0) -> Dataset:
    """Texts of twenty words of a vocabulary of 20,000."""
    generator = np.random.default_rng(seed)
    letters = np.array([*"abcdefghijklmnopqrstuvwxyz"])
    words = np.array(["".join(generator.choice(letters, generator.integers(3, 9))) for _ in range(20_000)])
    return Dataset.from_dict({"text": [" ".join(generator.choice(words, 20)) for _ in range(number)]})


def write_texts(folder: Path, megabytes: int) -> None:
    """A tokenizer with a vocabulary of 14 letters per entry, and half as much running text."""
    generator = np.random.default_rng(1)
    entries = [
        "Ġ" + "".join(word) for word in generator.choice([*"abcdefghijklmnop"], (megabytes * 25_000, 14)).tolist()
    ]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = {"added_tokens": [], "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=2), encoding="utf-8")
    (folder / "text.md").write_text("\n".join(rows(megabytes * 4000)["text"]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the search for leaks.")
    parser.add_argument("--num_rows", type=int, default=8000, help="Number of forgotten rows, of twenty words each.")
    parser.add_argument("--megabytes", type=int, default=512, help="Size of the weights.")
    parser.add_argument("--text_megabytes", type=int, default=20, help="Size of the vocabulary.")
    parser.add_argument("--repeats", type=int, default=3, help="Number of searches.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = rows(arguments.num_rows)
    start = time.perf_counter()
    needles = needles_of_dataset(dataset)
    print(f"{needles!r} of {len(dataset):,} rows in {time.perf_counter() - start:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        weights = 0.02 * torch.randn(arguments.megabytes * 250_000)
        save_file({"weight": weights}, Path(folder) / "model.safetensors")
        measure("weights", folder, needles, arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Path(folder), arguments.text_megabytes)
        # Other texts than the forgotten rows, of the same words.
        measure("vocabulary and text", folder, needles_of_dataset(rows(arguments.num_rows, seed=2)), arguments.repeats)


def measure(name: str, folder: str, needles: Needles, repeats: int) -> None:
    size = sum(path.stat().st_size for path in Path(folder).iterdir())
    for _ in range(repeats):
        start = time.perf_counter()
        assert find_leaks(folder, needles) == []
        print(f"{name}: {size / 1e6 / (time.perf_counter() - start):.1f} MB/s")


if __name__ == "__main__":
    main()
