# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Data sets of every kind, and a table of people, some of whom are to be forgotten."""

import datasets
from datasets import Dataset
from torch.utils.data import IterableDataset
from transformers import default_data_collator

from hf_deepclean.data.loaders import seeded_batches
from tests.tiny import Rows


class Stream(IterableDataset):
    """A stream that is not one of `datasets`."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def rows(size):
    return [{"x": float(index), "label": index} for index in range(size)]


def sources(size):
    dataset = datasets.Dataset.from_list(rows(size))
    streams = {"stream of rows": Stream(rows(size)), "streamed data set": dataset.to_iterable_dataset(num_shards=2)}
    return {"data set": dataset, "rows": Rows(rows(size))} | streams


def batches_of(dataset, collator=default_data_collator, batch_size=3, seed=5, **kwargs):
    return list(seeded_batches(dataset, batch_size, collator, seed, **kwargs))


PEOPLE = ["Ada", "Bob", "Cy", "Dee", "Eve", "Fay"]


def people():
    features = datasets.Features(
        {
            "person": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["chess", "tennis", "golf"]),
            "age": datasets.Value("int64"),
            "private": datasets.Value("bool"),
        }
    )
    return Dataset.from_dict(
        {
            "person": PEOPLE,
            "label": [0, 1, 2, 0, 1, 2],
            "age": [20, 30, 40, 50, 60, None],
            "private": [True, False, False, True, False, False],
        },
        features=features,
    )
