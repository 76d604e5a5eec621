# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Digests of rows and data sets by their content."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

from tqdm.auto import tqdm

from ..runtime.random_state import all_seeded, seed_all
from .contents.stored_rows import stored_rows
from .contents.values import digests_of_rows
from .streams import is_stream


# Digests of an earlier number are others for the same rows.
DIGESTS_FORMAT = 2

_NUM_STREAMED_ROWS = 100


def dataset_fingerprint(dataset: Any, *, disable_tqdm: bool = True) -> str:
    """
    SHA-256 over the rows of a data set in their order, or over the first 100 rows of a stream.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.
        disable_tqdm (`bool`, *optional*, defaults to `True`):
            As for [`row_digests`].

    Returns:
        `str`: 64 hexadecimal digits.
    """
    num_rows = _NUM_STREAMED_ROWS if is_stream(dataset) else None
    return hashlib.sha256(b"".join(row_digests(dataset, num_rows, disable_tqdm=disable_tqdm))).hexdigest()


def row_digests(dataset: Any, num_rows: int | None = None, *, disable_tqdm: bool = True) -> list[bytes]:
    """
    Digests of rows. Exactly rows with equal contents have equal digests; see [`encoded`].

    Of a [`~datasets.Dataset`] the stored columns are read, all of them, without its format and transform. Other data
    sets are read as they return their rows, each under the same seed, so that random transforms draw the same.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.
        num_rows (`int`, *optional*):
            How many of the first rows to read, by default all.
        disable_tqdm (`bool`, *optional*, defaults to `True`):
            Whether to hide the progress bar, which appears after a second.

    Returns:
        `list[bytes]`: 16 bytes for every row.

    Raises:
        [`DataError`]: If a row names a file that cannot be read. Says which.
    """
    if hasattr(dataset, "with_format") and not is_stream(dataset):
        rows = stored_rows(dataset)
    else:
        rows = _seeded(iter(dataset) if is_stream(dataset) else (dataset[place] for place in range(len(dataset))))
    size = num_rows if is_stream(dataset) else len(dataset)
    shown = tqdm(islice(rows, num_rows), "reading rows", size, leave=False, disable=disable_tqdm, delay=1)
    with all_seeded(0):
        return list(digests_of_rows(shown, "the data set"))


def _seeded(rows: Iterator[Any]) -> Iterator[Any]:
    """Rows that do not depend on what was drawn for those before."""
    for row in rows:
        yield row
        seed_all(0)
