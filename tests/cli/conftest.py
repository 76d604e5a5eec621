# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import gc

import datasets
import pytest

from tests.tokenizers import byte_tokenizer

from .tasks import TASKS


@pytest.fixture(scope="package", autouse=True)
def frozen_imports():
    """Keeps imported modules out of the garbage collection with which every training starts."""
    gc.freeze()


@pytest.fixture
def source(tmp_path):
    """Writes a model with its tokenizer and a file of data, and returns the options that name them."""

    def make(task):
        build, rows, _, _ = TASKS[task]
        build().save_pretrained(tmp_path / "model")
        byte_tokenizer(model_max_length=24).save_pretrained(tmp_path / "model")
        datasets.Dataset.from_list(rows()).to_parquet(tmp_path / "data.parquet")
        return [
            *("--task", task, "--model_name_or_path", str(tmp_path / "model")),
            *("--dataset_name", str(tmp_path / "data.parquet")),
        ]

    return make
