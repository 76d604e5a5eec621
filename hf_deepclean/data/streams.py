# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tells streams from data sets that can be indexed, and reads rows of both."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import datasets
import numpy as np
from torch.utils.data import IterableDataset, Subset

from ..runtime.random_state import all_seeded
from .row_errors import DataError, check_num_rows, positions_in, reading_error


def is_stream(dataset: Any) -> bool:
    """Whether a data set can only be iterated over, as in streaming mode."""
    return isinstance(dataset, (IterableDataset, datasets.IterableDataset))


def rows_at(dataset: Any, indices: list[int]) -> list[Any]:
    """Reads the rows at `indices` of a map-style data set; a [`~datasets.Dataset`] is read once."""
    many = getattr(dataset, "__getitems__", None)
    return many(indices) if many else [dataset[index] for index in indices]


def read_rows(dataset: Any, indices: list[int], name: str) -> list[Any]:
    """
    Reads rows as [`rows_at`] does.

    Args:
        dataset ([`~datasets.Dataset`] or map-style):
            The data set.
        indices (`list[int]`):
            Indices of the rows.
        name (`str`):
            Names the data set in an error.

    Raises:
        [`DataError`]: If a row cannot be read, or another number of rows comes back. Says which.
    """
    try:
        rows = rows_at(dataset, indices)
    except Exception as error:
        for index in indices if len(indices) > 1 else ():
            try:
                rows_at(dataset, [index])
            except Exception:
                indices = [index]
                break
        raise reading_error(name, positions_in(dataset, indices), len(dataset), error) from error
    check_num_rows(rows, positions_in(dataset, indices), name)
    return rows


def read_stream(dataset: Any, name: str) -> Iterator[Any]:
    """
    Reads the rows of a stream, of which there must be at least one.

    Args:
        dataset (`IterableDataset`):
            The stream.
        name (`str`):
            Names the data set in an error.

    Raises:
        [`DataError`]: If a row cannot be read, or there is none. Says which.
    """
    position = 0
    try:
        for row in dataset:
            yield row
            position += 1
    except Exception as error:
        raise reading_error(name, [position], None, error) from error
    if position == 0:
        raise DataError(
            f"The stream {name} gave no row: it is empty, or can be read only once. A run reads every data set "
            "several times. A generator is used up by the first reading, so let `__iter__` make a new "
            "one, for example with `IterableDataset.from_generator(function)`."
        )


def first_rows(dataset: Any, size: int) -> Any:
    """A stream that ends after `size` rows."""
    return dataset.take(size) if isinstance(dataset, datasets.IterableDataset) else _FirstRows(dataset, size)


class _FirstRows(IterableDataset):
    def __init__(self, dataset: IterableDataset, size: int) -> None:
        self.dataset = dataset
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        return islice(self.dataset, self.size)


def by_length(dataset: Any) -> tuple[Any, np.ndarray]:
    """
    Orders the rows of a small data set by their numbers of tokens. All rows are read once.

    Args:
        dataset ([`~datasets.Dataset`] or map-style):
            The data set. A stream, and rows without tokens, stay as they are.

    Returns:
        `tuple[Any, np.ndarray]`: The rows, and for every row of the data set its place among them.
    """
    if is_stream(dataset):
        return dataset, np.arange(0)
    number = len(dataset)
    with all_seeded(0):
        first = dataset[0] if number else None
    if not isinstance(first, dict) or "input_ids" not in first:
        return dataset, np.arange(number)
    with all_seeded(0):
        order = np.argsort([len(dataset[place]["input_ids"]) for place in range(number)], kind="stable")
    return Subset(dataset, order.tolist()), np.argsort(order)
