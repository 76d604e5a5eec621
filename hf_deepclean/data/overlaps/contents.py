# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What of a row reaches the model."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ...runtime.random_state import all_seeded
from ..contents.stored_rows import stored_rows
from ..contents.values import as_array, digests_of_rows
from ..streams import read_rows


# Columns that number the rows. They tell nothing about the content, and would hide that two rows are equal.
_NAMES_OF_ROWS = ("id", "ids", "idx", "index", "row_id", "guid", "uid", "uuid", "__index_level_0__")
LABEL_NAMES = {"label": "labels", "label_ids": "labels"}
# They follow from the other columns once the padding is gone.
WITHOUT_CONTENT = ("attention_mask", "token_type_ids", "position_ids")


def content_columns(dataset: Any, model_columns: Collection[str] | None, name: str) -> list[str] | None:
    """
    The columns of a data set that reach the model.

    Args:
        dataset ([`~datasets.Dataset`] or map-style):
            The data set, with at least one row.
        model_columns (`Collection[str]`, *optional*):
            Names of the columns that the model takes, if the others are left out.
        name (`str`):
            Names the data set in errors.

    Returns:
        `list[str]`, *optional*: The names. `None` if the rows are no dictionaries.
    """
    if hasattr(dataset, "with_format"):
        names = list(dataset.column_names)
    else:
        row = _row(dataset, 0, name)
        if not isinstance(row, Mapping):
            return None
        names = list(row)
    names = [name for name in names if name.lower() not in _NAMES_OF_ROWS] or names
    taken = [name for name in names if model_columns is not None and name in model_columns]
    return taken if set(taken) - LABEL_NAMES.keys() - {"labels"} else names


def content_name(column: str) -> str:
    """The name that a column is compared by: label columns have one name."""
    return LABEL_NAMES.get(column, column)


def half_precision(dataset: Any, name: str) -> bool:
    """
    Whether a data set holds numbers of 16 bits with a fraction.

    Args:
        dataset ([`~datasets.Dataset`] or map-style):
            The data set, with at least one row.
        name (`str`):
            Names the data set in errors.
    """
    if hasattr(dataset, "with_format"):
        return "float16" in str(dataset.features) or "halffloat" in str(dataset.features.arrow_schema)
    row = _row(dataset, 0, name)
    values = row.values() if isinstance(row, Mapping) else row if isinstance(row, (list, tuple)) else [row]
    return any(str(getattr(value, "dtype", "")).endswith("float16") for value in values)


def is_random(dataset: Any, name: str, num_rows: int = 3) -> bool:
    """
    Whether rows differ from reading to reading although the global generators of Python, numpy and torch are seeded.

    Args:
        dataset ([`~datasets.Dataset`] or map-style):
            The data set.
        name (`str`):
            Names the data set in errors.
        num_rows (`int`, *optional*, defaults to `3`):
            Number of rows to read twice.
    """
    places = range(min(num_rows, len(dataset)))
    one, other = (list(digests_of_rows([_row(dataset, place, name) for place in places], name)) for _ in range(2))
    return one != other


def iterate_rows(
    dataset: Any, columns: list[str] | None, name: str, *, decoded: bool, places: Collection[int]
) -> Iterator[Any]:
    """
    Reads rows, each under the same seed, so that equal rows get equal random transforms.

    Args:
        dataset ([`~datasets.Dataset`] or map-style):
            The data set.
        columns (`list[str]`, *optional*):
            The columns to read of a [`~datasets.Dataset`], by their [`content_name`]. The mask of the padding is read
            too.
        name (`str`):
            Names the data set in errors.
        decoded (`bool`):
            Whether to read a [`~datasets.Dataset`] as it returns its rows. Otherwise its stored values are read,
            without transforms.
        places (`Collection[int]`):
            The places of the rows.

    Yields:
        `Any`: The rows.
    """
    if decoded or not hasattr(dataset, "with_format"):
        for place in places:
            yield _row(dataset, place, name)
        return
    if columns is not None:
        columns = [name for name in dataset.column_names if content_name(name) in {*columns, "attention_mask"}]
    yield from stored_rows(dataset.select(places) if len(places) < len(dataset) else dataset, columns)


def content_of(row: Any, columns: Collection[str] | None) -> Any:
    """
    The values of a row without padding. The label column is named `"labels"`.

    Args:
        row (`Any`):
            The row.
        columns (`Collection[str]`, *optional*):
            The columns to use, by their [`content_name`], by default all.
    """
    if not isinstance(row, Mapping):
        return row
    values = {
        content_name(name): value
        for name, value in sorted(row.items(), key=lambda entry: str(entry[0]))
        if value is not None and (columns is None or content_name(name) in columns)
    }
    mask = row.get("attention_mask")
    mask = None if mask is None else np.asarray(mask)
    if mask is not None and mask.ndim == 1 and not mask.all():
        kept = mask.astype(bool)
        values = {name: _without_padding(value, kept) for name, value in values.items()}
    without = {name: value for name, value in values.items() if name not in WITHOUT_CONTENT}
    return without or values


def _row(dataset: Any, place: int, name: str) -> Any:
    with all_seeded(0):
        return read_rows(dataset, [place], name)[0]


def _without_padding(value: Any, kept: np.ndarray) -> Any:
    is_list = isinstance(value, (list, tuple)) or isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim > 0
    if not is_list or len(value) != len(kept):
        return value
    array = as_array(value)
    return value if array is None else array[kept]
