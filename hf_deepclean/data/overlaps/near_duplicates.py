# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Counts rows of one data set that are nearly the same as a row of another: texts by their words, images by sight."""

import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..contents.media import decoded, is_media
from ..contents.values import as_array
from .contents import content_of, iterate_rows


# At most this many rows of a data set are compared, at even distances.
MAX_ROWS = 20_000
# Texts are near-duplicates if they share this part of all their runs of three words or tokens.
_MIN_OVERLAP = 0.8
# Shorter texts must be the same, apart from case and punctuation.
_MIN_WORDS = 8
# A run in more of the rows than this is part of a template, and tells nothing about a row.
_MAX_ROWS_PER_RUN = 50
# Images are near-duplicates if their thumbnails have at least this correlation.
_MIN_CORRELATION = 0.998
_THUMBNAIL = 16
# Soft hyphens, spaces and joiners of no width, and marks of the direction of writing.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
# Of red, green and blue.
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class NearDuplicates:
    """
    Rows that have a near-duplicate in another data set.

    Args:
        num_rows (`int`): Number of rows with a near-duplicate.
        num_compared (`int`): Number of rows that were compared.
        example (`tuple[int, int]`, *optional*): The places of two such rows, in the first and in the second data set.
    """

    num_rows: int
    num_compared: int
    example: tuple[int, int] | None = None


def count_near_duplicates(
    one: Any, other: Any, columns: list[str] | None, names: tuple[str, str], *, decoded: bool
) -> NearDuplicates:
    """
    Counts the rows of a data set that are nearly the same as a row of another.

    Two texts are if they share 80 % of all their runs of three words or tokens. Shorter texts must be the same apart
    from case and punctuation. Two images are if thumbnails of 16 by 16 pixels hardly differ in anything but
    brightness and contrast. Other rows are not compared.

    Args:
        one, other ([`~datasets.Dataset`] or map-style):
            The data sets. Of each at most 20,000 rows are compared.
        columns (`list[str]`, *optional*):
            The columns that both have and that reach the model.
        names (`tuple[str, str]`):
            Name the two data sets in errors.
        decoded (`bool`):
            As for [`iterate_rows`].

    Returns:
        [`NearDuplicates`]
    """
    places = [_places(dataset) for dataset in (one, other)]
    rows = []
    for dataset, name, some in zip((one, other), names, places, strict=True):
        read = iterate_rows(dataset, columns, name, decoded=decoded, places=some)
        rows.append([_Reading.of(content_of(row, columns)) for row in read])
    pairs = _similar_texts(*rows) | _similar_images(*rows)
    example = min(pairs.items(), default=None)
    return NearDuplicates(
        len(pairs), len(places[0]), None if example is None else (places[0][example[0]], places[1][example[1]])
    )


@dataclass(frozen=True)
class _Reading:
    """What of a row can be compared: the hashed runs of its words, or the thumbnail of its image."""

    runs: np.ndarray | None = None
    thumbnail: np.ndarray | None = None

    @classmethod
    def of(cls, row: Any) -> "_Reading":
        if not isinstance(row, Mapping):
            return cls()
        if "input_ids" in row:
            return cls(runs=_runs(np.asarray(row["input_ids"]).reshape(-1)))
        image = next((value for value in row.values() if is_media(value)), row.get("pixel_values", row.get("image")))
        if image is not None:
            return cls(thumbnail=_thumbnail(image))
        words = [word for value in row.values() if isinstance(value, str) for word in _words(value)]
        return cls(runs=_runs(np.array([zlib.crc32(word.encode()) for word in words]))) if words else cls()


def _places(dataset: Any) -> list[int]:
    size = len(dataset)
    return np.linspace(0, size - 1, min(size, MAX_ROWS)).astype(int).tolist()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold())


def _runs(words: np.ndarray) -> np.ndarray:
    """The hashes of all runs of three words, each once. A short text is a single run."""
    words = words.astype(np.int64).astype(np.uint64)
    length = 3 if len(words) >= _MIN_WORDS else max(1, len(words))
    hashes = np.full(max(1, len(words) - length + 1), length, np.uint64)
    for place in range(min(length, len(words))):
        hashes = (hashes ^ words[place : place + len(hashes)]) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes)


def _thumbnail(image: Any) -> np.ndarray | None:
    """Grey values of 16 by 16 pixels, with mean 0 and length 1. `None` for a plain image and for what is none."""
    found = decoded(image, all_frames=False) if is_media(image) else image
    if isinstance(found, Mapping) and "mode" in found:
        size = found["pixels"].shape[1::-1]
        found = np.asarray(Image.frombytes(found["mode"], size, found["pixels"].tobytes()).convert("RGB"))
    pixels = as_array(found)
    if pixels is None or pixels.dtype.kind not in "biuf":
        return None
    values = pixels.astype(np.float32).squeeze()
    if values.ndim == 3 and is_media(image):
        values = values[..., :3] @ _BRIGHTNESS
    if values.ndim == 3:
        values = values.mean(int(np.argmin(values.shape)))
    if values.ndim != 2 or min(values.shape) < 2:
        return None
    rows, columns = (np.linspace(0, size, min(size, _THUMBNAIL) + 1).astype(int)[:-1] for size in values.shape)
    sums = np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1)
    counts = np.add.reduceat(np.add.reduceat(np.ones_like(values), rows, 0), columns, 1)
    values = (sums / counts).reshape(-1)
    values -= values.mean()
    length = np.linalg.norm(values)
    return values / length if length > 0 else None


def _similar_texts(one: list[_Reading], other: list[_Reading]) -> dict[int, int]:
    """The places of rows with a similar text, each with the place of that text."""
    runs = {place: row.runs for place, row in enumerate(one) if row.runs is not None}
    if not runs:
        return {}
    owners = np.concatenate([np.full(len(of_row), place) for place, of_row in runs.items()])
    known, inverse, counts = np.unique(np.concatenate([*runs.values()]), return_inverse=True, return_counts=True)
    owners = owners[np.argsort(inverse, kind="stable")]
    starts = np.cumsum(counts) - counts
    rare = counts <= _MAX_ROWS_PER_RUN
    sizes = {place: int(rare[np.searchsorted(known, of_row)].sum()) for place, of_row in runs.items()}
    found: dict[int, int] = {}
    for place, row in enumerate(other):
        if row.runs is None:
            continue
        at = np.searchsorted(known, row.runs)
        at[at == len(known)] = 0
        is_known = known[at] == row.runs
        shared = at[is_known & rare[at]]
        if not len(shared):
            continue
        size = len(row.runs) - int((is_known & ~rare[at]).sum())
        numbers = np.bincount(np.concatenate([owners[starts[run] : starts[run] + counts[run]] for run in shared]))
        for candidate in np.flatnonzero(numbers):
            union = sizes[int(candidate)] + size - numbers[candidate]
            if numbers[candidate] >= _MIN_OVERLAP * union:
                found.setdefault(int(candidate), place)
    return found


def _similar_images(one: list[_Reading], other: list[_Reading]) -> dict[int, int]:
    """The places of rows with a similar image, each with the place of that image."""
    images = [_by_size(rows) for rows in (one, other)]
    found: dict[int, int] = {}
    for size, (places, thumbnails) in images[0].items():
        if size not in images[1]:
            continue
        others, compared = images[1][size]
        for first in range(0, len(places), 512):
            correlations = thumbnails[first : first + 512] @ compared.T
            best = correlations.argmax(1)
            for place, at, value in zip(places[first : first + 512], best, correlations.max(1), strict=True):
                if value >= _MIN_CORRELATION:
                    found[place] = others[at]
    return found


def _by_size(rows: Iterable[_Reading]) -> dict[int, tuple[list[int], np.ndarray]]:
    """The places and thumbnails of all images, by the size of the thumbnail."""
    places: dict[int, list[int]] = {}
    thumbnails: dict[int, list[np.ndarray]] = {}
    for place, row in enumerate(rows):
        if row.thumbnail is not None:
            places.setdefault(row.thumbnail.size, []).append(place)
            thumbnails.setdefault(row.thumbnail.size, []).append(row.thumbnail)
    return {size: (places[size], np.stack(found)) for size, found in thumbnails.items()}
