# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Data sets that can only be iterated over, and rows of those that can be indexed."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import datasets
from torch.utils.data import IterableDataset


def is_stream(dataset: Any) -> bool:
    """Whether a data set can only be iterated over, as a streamed one."""
    return isinstance(dataset, (IterableDataset, datasets.IterableDataset))


def rows_at(dataset: Any, indices: list[int]) -> list[Any]:
    """The rows at once, which for a [`~datasets.Dataset`] is one read."""
    many = getattr(dataset, "__getitems__", None)
    return many(indices) if many else [dataset[index] for index in indices]


def first_rows(dataset: Any, size: int) -> Any:
    """A stream that ends after so many rows."""
    return dataset.take(size) if isinstance(dataset, datasets.IterableDataset) else _FirstRows(dataset, size)


class _FirstRows(IterableDataset):
    def __init__(self, dataset: IterableDataset, size: int) -> None:
        self.dataset = dataset
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        return islice(self.dataset, self.size)
