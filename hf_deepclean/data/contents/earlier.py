# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Digests of rows as version 0.1 took them, to verify what it wrote. They depend on types, paths and encodings."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import datasets
import numpy as np
import torch

from ...runtime.random_state import all_seeded
from ..streams import is_stream


_NUM_STREAMED_ROWS = 100


def earlier_fingerprint(dataset: Any) -> str:
    """
    What version 0.1 returned as the fingerprint of a data set.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with all_seeded(0):
        for row in islice(earlier_row_digests(dataset), _NUM_STREAMED_ROWS if is_stream(dataset) else None):
            digest.update(row)
    return digest.hexdigest()


def earlier_row_digests(dataset: Any) -> Iterator[bytes]:
    """
    Yields a digest of every row, as version 0.1 did.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.

    Yields:
        `bytes`: 16 bytes for every row.
    """
    for row in dataset if is_stream(dataset) else _rows(dataset):
        digest = hashlib.blake2b(digest_size=16)
        _update_with_value(digest, row)
        yield digest.digest()


def _rows(dataset: Any) -> Iterable[Any]:
    if getattr(dataset, "column_names", None) is None:
        return (dataset[index] for index in range(len(dataset)))
    dataset = dataset.with_format(None)
    for name, feature in dataset.features.items():
        if isinstance(feature, (datasets.Audio, datasets.Image)):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset.with_format("numpy")


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
