# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The content of a row: what reaches the model, in one form whatever the format and types of the data set."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ...runtime.random_state import all_seeded
from ..digests import undecoded
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
    for place in range(min(num_rows, len(dataset))):
        one, other = (digest_of(_row(dataset, place, name), None) for _ in range(2))
        if one != other:
            return True
    return False


def iterate_rows(
    dataset: Any, columns: list[str] | None, name: str, *, decoded: bool, places: Collection[int]
) -> Iterator[Any]:
    """
    Reads rows, each under the same seed, so that equal rows get equal random transforms.

    Args:
        dataset ([`~datasets.Dataset`] or map-style):
            The data set.
        columns (`list[str]`, *optional*):
            The columns to read of a [`~datasets.Dataset`].
        name (`str`):
            Names the data set in errors.
        decoded (`bool`):
            Whether to read a [`~datasets.Dataset`] as it returns its rows. Otherwise its stored values are read,
            without transforms, and with files and images undecoded.
        places (`Collection[int]`):
            The places of the rows.

    Yields:
        `Any`: The rows.
    """
    if decoded or not hasattr(dataset, "with_format"):
        for place in places:
            yield _row(dataset, place, name)
        return
    stored = undecoded(dataset, columns).with_format("numpy")
    if len(places) < len(stored):
        stored = stored.select(places)
    for batch in stored.iter(batch_size=256):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def digest_of(row: Any, columns: Collection[str] | None) -> bytes:
    """
    A digest of the content of a row, 16 bytes. It does not depend on formats, on the types of numbers, on padding and
    on how the label column is named.

    Args:
        row (`Any`):
            The row.
        columns (`Collection[str]`, *optional*):
            The columns to use, by default all.
    """
    digest = hashlib.blake2b(digest_size=16)
    _update(digest, content_of(row, columns))
    return digest.digest()


def content_of(row: Any, columns: Collection[str] | None) -> Any:
    """
    The values of a row without padding. The label column is named `"labels"`.

    Args:
        row, columns:
            As for [`digest_of`].
    """
    if not isinstance(row, Mapping):
        return row
    values = {
        LABEL_NAMES.get(name, name): value
        for name, value in row.items()
        if value is not None and (columns is None or name in columns)
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
    array = _array(value)
    return value if array is None else array[kept]


def _array(value: Any) -> np.ndarray | None:
    """A value as an array of one integer or one float type, or `None` if it is no regular array of numbers."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    elif type(value).__module__.startswith("PIL."):
        value = np.asarray(value)
    elif isinstance(value, (list, tuple)):
        try:
            value = np.asarray(value)
        except ValueError:
            return None
    elif not isinstance(value, (np.ndarray, np.generic, int, float)):
        return None
    value = np.asarray(value)
    if value.dtype.kind in "biu":
        return value.astype(np.int64)
    if value.dtype.kind == "f":
        # A copy may have been stored in half the precision of the other, and whole numbers as integers.
        value = value.astype(np.float32)
        whole = value.size and np.isfinite(value).all() and (value == np.rint(value)).all()
        return value.astype(np.int64) if whole and np.abs(value).max() < 2**24 else value
    return None


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        if value.keys() == {"bytes", "path"} and value["bytes"] is not None:
            _update(digest, value["bytes"])
            return
        for name in sorted(value, key=str):
            _update(digest, str(name))
            _update(digest, value[name])
        return
    array = _array(value)
    if array is not None:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
        return
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}".encode())
        for item in value:
            _update(digest, item)
        return
    # One kind of text, whether it is a string of numpy or of Python.
    encoded = value if isinstance(value, bytes) else (str(value) if isinstance(value, str) else repr(value)).encode()
    digest.update(f"{len(encoded)}:".encode())
    digest.update(encoded)
