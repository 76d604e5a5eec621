# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reads what a `datasets.Dataset` stores, without its format, its transform and its decoders."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute


_BATCH_BYTES = 2**24


def stored_rows(dataset: Any, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """
    Yields the stored rows of a data set. Numbers keep their types; None is not NaN.

    Args:
        dataset ([`~datasets.Dataset`]):
            The data set.
        columns (`list[str]`, *optional*):
            The columns to read, by default all.

    Yields:
        `dict[str, Any]`: Python values, and arrays for lists of numbers. Files and pictures are not decoded.
    """
    stored = dataset.with_format("arrow")
    stored = stored if columns is None else stored.select_columns(columns)
    bytes_per_row = 1 + stored.data.nbytes // max(1, stored.data.num_rows)
    for table in stored.iter(batch_size=min(1000, 1 + _BATCH_BYTES // bytes_per_row)):
        cells = [_cells(column.combine_chunks()) for column in table.columns]
        for values in zip(*cells, strict=True):
            yield dict(zip(table.column_names, values, strict=True))


def _cells(column: Any) -> Sequence[Any]:
    # Scalars are quicker to read as Python values.
    cells = _arrays(column)
    return cells.tolist() if isinstance(cells, np.ndarray) and cells.ndim == 1 else cells


def _arrays(column: Any) -> Sequence[Any]:
    """The cells of an arrow array: one numpy array if all have the same shape, otherwise a list."""
    if isinstance(column, pa.ExtensionArray):
        if column.type.extension_name == "arrow.json":
            return [None if text is None else json.loads(text) for text in column.storage.to_pylist()]
        column = column.storage
    kind = column.type
    if column.null_count:
        return column.to_pylist()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = compute.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        items = _arrays(column.flatten())
        if isinstance(items, np.ndarray) and len(lengths) and (lengths == lengths[0]).all():
            return items.reshape(len(lengths), lengths[0], *items.shape[1:])
        ends = np.cumsum(lengths)
        return [items[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column.to_numpy(zero_copy_only=False)
    return column.to_pylist()
