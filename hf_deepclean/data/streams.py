# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tells streams from data sets that can be indexed, and reads rows of both."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import datasets
from torch.utils.data import IterableDataset


def is_stream(dataset: Any) -> bool:
    """Whether a data set can only be iterated over, as in streaming mode."""
    return isinstance(dataset, (IterableDataset, datasets.IterableDataset))


def rows_at(dataset: Any, indices: list[int]) -> list[Any]:
    """Reads the rows at `indices` of a map-style data set; a [`~datasets.Dataset`] is read once."""
    many = getattr(dataset, "__getitems__", None)
    return many(indices) if many else [dataset[index] for index in indices]


def first_rows(dataset: Any, size: int) -> Any:
    """A stream that ends after `size` rows."""
    return dataset.take(size) if isinstance(dataset, datasets.IterableDataset) else _FirstRows(dataset, size)


class _FirstRows(IterableDataset):
    def __init__(self, dataset: IterableDataset, size: int) -> None:
        self.dataset = dataset
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        return islice(self.dataset, self.size)
