# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses data sets that share rows they must not share, and tells of rows that are nearly shared."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ...runtime.processes import is_main_process
from ..contents.values import digests_of_rows
from ..streams import is_stream
from .contents import content_columns, content_name, content_of, half_precision, is_random, iterate_rows
from .near_duplicates import count_near_duplicates


logger = logging.getLogger(__name__)

# With a larger share of rows that were trained on, unseen data are not unseen.
_MAX_SEEN_SHARE = 0.05
_NUM_SHOWN = 5


@dataclass
class _Contents:
    """The digests of the rows of all data sets, each read once for the same columns and the same precision."""

    splits: Mapping[str, Any]
    columns: Mapping[str, list[str] | None]
    disable_tqdm: bool
    _digests: dict[tuple[Any, ...], list[bytes]] = field(default_factory=dict)

    def common(self, one: str, other: str) -> tuple[list[str] | None, bool]:
        """The columns that two data sets are compared by, and whether their rows are read as they are returned."""
        columns = None
        if self.columns[one] is not None and self.columns[other] is not None:
            shared = {content_name(name) for name in self.columns[one]}
            shared &= {content_name(name) for name in self.columns[other]}
            columns = sorted(shared)
        stored = [hasattr(self.splits[split], "with_format") for split in (one, other)]
        return columns, stored[0] != stored[1]

    def shared(self, one: str, other: str) -> list[int] | None:
        """The places of the rows of `one` that are in `other` too. `None` if they have no column in common."""
        columns, decoded = self.common(one, other)
        if columns is not None and not columns:
            return None
        # A copy may have been stored in half the precision.
        is_half = any(half_precision(self.splits[split], _argument(split)) for split in (one, other))
        reading = (columns, decoded, np.float16 if is_half else np.float32)
        there = set(self._of(other, *reading))
        return [place for place, digest in enumerate(self._of(one, *reading)) if digest in there]

    def _of(self, split: str, columns: list[str] | None, decoded: bool, precision: type) -> list[bytes]:
        key = (split, None if columns is None else tuple(columns), decoded, precision)
        if key not in self._digests:
            dataset = self.splits[split]
            rows = iterate_rows(dataset, columns, _argument(split), decoded=decoded, places=range(len(dataset)))
            shown = tqdm(rows, "comparing rows", len(dataset), leave=False, disable=self.disable_tqdm, delay=1)
            content = (content_of(row, columns) for row in shown)
            self._digests[key] = list(digests_of_rows(content, _argument(split), precision))
        return self._digests[key]


def check_overlaps(
    splits: Mapping[str, Any], model_columns: Collection[str] | None = None, *, disable_tqdm: bool = True
) -> None:
    """
    Compares all data sets of a request by the content of their rows.

    Rows are compared by the columns that reach the model and that both data sets have, without padding, whatever
    their formats and types; numbers in single precision, or in half if a data set holds that, and files by what they
    decode to. Columns named like a number of the row, such as "id", do not count. Streams are not compared, and data
    sets that draw at random with a generator of their own cannot be; a warning says so.

    Args:
        splits (`dict[str, Any]`):
            The data sets by name: `"forget"`, `"retain"`, and where given `"eval"` (or `"eval_NAME"`) and `"unseen"`.
        model_columns (`Collection[str]`, *optional*):
            Names of the columns that the model takes, if the others are left out.
        disable_tqdm (`bool`, *optional*, defaults to `True`):
            Whether to hide the progress bar, which appears after a second.

    Raises:
        `ValueError`: If rows of the forget set are in the retain set or in the unseen data, or if more than 5 % of the
            unseen data are in the retain set. The message says how many, and the places of the first.
    """
    streams = [split for split, dataset in splits.items() if is_stream(dataset)]
    if streams:
        _warn(
            f"The rows of a stream ({_arguments(streams)}) are not compared with those of other data sets. Make sure "
            "that no row to forget is in the retain set or in the unseen data, or pass a `datasets.Dataset`."
        )
    compared = {split: dataset for split, dataset in splits.items() if not is_stream(dataset)}
    drawing = [split for split, dataset in compared.items() if is_random(dataset, _argument(split))]
    if drawing:
        _warn(
            f"{_arguments(drawing)} draws its rows at random with a generator of its own: the same row is another one "
            "at every reading. So its rows cannot be compared with those of other data sets, and another run with the "
            "same seed gives another result. Draw from the global generators of torch, numpy or Python, which are "
            "seeded for every batch."
        )
    # What is stored in a `datasets.Dataset` can be compared even if its transform draws at random.
    compared = {
        split: dataset
        for split, dataset in compared.items()
        if split not in drawing or hasattr(dataset, "with_format")
    }
    columns = {split: content_columns(dataset, model_columns, _argument(split)) for split, dataset in compared.items()}
    contents = _Contents(compared, columns, disable_tqdm)
    for pair in (("forget", "retain"), ("forget", "unseen"), ("unseen", "retain")):
        _compare(contents, *pair)
    evaluated = [split for split in compared if split.startswith("eval")]
    for pair in product(evaluated, ("forget", "retain")):
        _compare(contents, *pair)
    for other in ("retain", "unseen"):
        _tell_near_duplicates(contents, "forget", other)


def _compare(contents: _Contents, one: str, other: str) -> None:
    if not {one, other} <= contents.splits.keys():
        return
    places = contents.shared(one, other)
    if places is None:
        _warn(
            f"`{one}_dataset` and `{other}_dataset` have no column in common, so their rows are not compared. Make "
            "sure that they share none."
        )
        return
    if not places:
        return
    size = len(contents.splits[one])
    rows = f"{', '.join(map(str, places[:_NUM_SHOWN]))}{', ...' if len(places) > _NUM_SHOWN else ''}"
    found = (
        f"{len(places)} of {size} rows of `{one}_dataset` are in `{other}_dataset` too (compared by content; at "
        f"{'place' if len(places) == 1 else 'places'} {rows} of `{one}_dataset`)"
    )
    if (one, other) == ("forget", "retain"):
        raise ValueError(
            f"{found}, so the repair would teach the model again what it is to forget. Remove them from the retain "
            "set. Equal rows that belong to different people must all be in the same set."
        )
    if (one, other) == ("forget", "unseen"):
        raise ValueError(
            f"{found}. Unseen data are data that the model never saw: the membership attack compares the forget set "
            "with them, and with the same rows it finds nothing, whatever the model still knows. Remove them from the "
            "unseen data."
        )
    if one == "unseen" and len(places) > _MAX_SEEN_SHARE * size:
        raise ValueError(
            f"{found}: the model was trained on them, so they are not unseen, and the membership attack would find "
            "nothing even if nothing was forgotten. Pass data that were never trained on."
        )
    if one == "unseen":
        _warn(f"{found}: the model was trained on them, which weakens the membership attack. Remove them.")
    else:
        _warn(f"{found}, so figures of `{one}_dataset` are partly those of training data. Remove them.")


def _tell_near_duplicates(contents: _Contents, one: str, other: str) -> None:
    if not {one, other} <= contents.splits.keys():
        return
    columns, decoded = contents.common(one, other)
    found = count_near_duplicates(
        contents.splits[one], contents.splits[other], columns, (_argument(one), _argument(other)), decoded=decoded
    )
    # A few unseen rows do not move the attack, while a single row of the retain set can bring a forgotten one back.
    if not found.num_rows or other == "unseen" and found.num_rows <= _MAX_SEEN_SHARE * found.num_compared:
        return
    meaning = {
        "retain": "The repair teaches the model again what such rows share. If they are about the same person or "
        "document, move them to the forget set.",
        "unseen": "The model has seen them in another form, which weakens the membership attack. If they are copies, "
        "remove them from the unseen data.",
    }
    _warn(
        f"{found.num_rows} of {found.num_compared} rows of `{one}_dataset` have a near-duplicate in "
        f"`{other}_dataset`, for example row {found.example[0]} and row {found.example[1]} there. {meaning[other]}"
    )


def _arguments(splits: Collection[str]) -> str:
    return ", ".join(map(_argument, splits))


def _argument(split: str) -> str:
    return f"`{split}_dataset`"


def _warn(message: str) -> None:
    if is_main_process():
        logger.warning(message)
