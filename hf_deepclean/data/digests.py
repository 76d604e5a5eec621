# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Digests of rows and data sets by their content."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch

from ..runtime.random_state import all_seeded
from .streams import is_stream


_NUM_STREAMED_ROWS = 100


def dataset_fingerprint(dataset: Any) -> str:
    """
    SHA-256 over the rows of a data set in their order, or over the first 100 rows of a stream.

    A transform that draws at random draws the same in every call.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with all_seeded(0):
        rows = row_digests(dataset, getattr(dataset, "column_names", None))
        for row in islice(rows, _NUM_STREAMED_ROWS if is_stream(dataset) else None):
            digest.update(row)
    return digest.hexdigest()


def row_digests(dataset: Any, columns: list[str] | None = None) -> Iterator[bytes]:
    """
    Yields a digest of every row. Rows with equal contents have equal digests.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.
        columns (`list[str]`, *optional*):
            Columns of a [`~datasets.Dataset`] to read, with files and images undecoded. Without them, and
            for a stream, the rows are read as the data set returns them.

    Yields:
        `bytes`: 16 bytes for every row.
    """
    for row in dataset if is_stream(dataset) else _rows(dataset, columns):
        digest = hashlib.blake2b(digest_size=16)
        _update_with_value(digest, row)
        yield digest.digest()


def _rows(dataset: Any, columns: list[str] | None) -> Iterable[Any]:
    if columns is None:
        return (dataset[index] for index in range(len(dataset)))
    return undecoded(dataset, columns).with_format("numpy")


def undecoded(dataset: Any, columns: list[str] | None) -> Any:
    """A [`~datasets.Dataset`] with these columns, without transforms, and with files and images as their bytes."""
    from datasets import Audio, Image

    dataset = dataset.with_format(None)
    dataset = dataset if columns is None else dataset.select_columns(columns)
    for name, feature in dataset.features.items():
        if isinstance(feature, (Audio, Image)):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset


def _update_with_value(digest: Any, value: Any) -> None:
    """Feeds a value to a digest so that only equal contents give equal bytes."""
    if isinstance(value, Mapping):
        content = value["bytes"] if value.get("bytes") is not None and value.keys() == {"bytes", "path"} else None
        if content is not None:
            _update_with_value(digest, content)
            return
        for key in sorted(value):
            _update_with_value(digest, key)
            _update_with_value(digest, value[key])
        return
    if isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}".encode())
        for item in value:
            _update_with_value(digest, item)
        return
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    elif type(value).__module__.startswith("PIL."):
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.dtype == object:
        _update_with_value(digest, value.tolist())
        return
    if isinstance(value, (np.ndarray, np.generic)):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
        return
    encoded = value if isinstance(value, bytes) else repr(value).encode()
    digest.update(f"{type(value).__name__}{len(encoded)}".encode())
    digest.update(encoded)
