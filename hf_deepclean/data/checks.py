# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses data sets that cannot be used, before any heavy work."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .batches import split_labels
from .row_errors import LABEL_COLUMNS
from .streams import is_stream


def check_requests(requests: Mapping[str, Sequence[int]] | None, forget_dataset: Any) -> None:
    """
    Refuses requests that have no rows, or rows that do not exist.

    Raises:
        `ValueError`: If a request is empty, if a row is out of range, or if the forget data are a stream.
    """
    if not requests:
        return
    if is_stream(forget_dataset):
        raise ValueError("`requests` name rows of `forget_dataset`, which is a stream. Pass a `datasets.Dataset`.")
    for number, rows in enumerate(requests.values()):
        check_rows_of_request(number, rows, len(forget_dataset), "forget_dataset")


def check_rows_of_request(number: int, rows: Sequence[int], num_rows: int, argument: str) -> None:
    """
    Refuses a request that has no rows, or rows that do not exist.

    Args:
        number (`int`):
            Number of the request. The error shows it instead of the name, which may identify a person.
        rows (`Sequence[int]`):
            The rows of the request.
        num_rows (`int`):
            Number of rows of the data set.
        argument (`str`):
            Name of the argument that the data set was passed as.

    Raises:
        `ValueError`: If the request is empty, or if a row is out of range.
    """
    if len(rows) == 0 or not 0 <= min(rows) <= max(rows) < num_rows:
        raise ValueError(
            f"The rows of request {number} must be among the {num_rows} of `{argument}`, and at least one; they are "
            f"{len(rows)}{f' from {min(rows)} to {max(rows)}' if len(rows) else ''}."
        )


def check_dataset(dataset: Any, argument: str, num_labels: int | None) -> None:
    """
    Refuses a data set without length or rows, or with labels outside the head's range.

    Streams are checked when they are read. Labels that a transform or the caller's collator makes are checked with the
    first batch.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.
        argument (`str`):
            Name of the argument it was passed as.
        num_labels (`int`, *optional*):
            Number of classes of the head, if labels are class indices.

    Raises:
        `TypeError`: If the data set has no length or cannot be indexed.
        `ValueError`: If the data set is empty, or has labels outside the range.
    """
    if is_stream(dataset):
        return
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"`{argument}` is a {type(dataset).__name__}, which cannot be indexed or has no length. Pass a "
            "`datasets.Dataset`, another map-style data set, or a stream that is an `IterableDataset`."
        )
    if len(dataset) == 0:
        raise ValueError(f"`{argument}` is empty. Pass at least one example.")
    columns = dataset.column_names if hasattr(dataset, "with_format") else ()
    label = next((column for column in LABEL_COLUMNS if column in columns), None)
    if label is None or num_labels is None:
        return
    labels = np.asarray(dataset.with_format("numpy", columns=[label])[label][:])
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        outside = (labels < 0) | (labels >= num_labels)
        if outside.any():
            raise ValueError(
                f"`{argument}` has {int(outside.sum())} of {len(labels)} labels outside the head's range 0 to "
                f"{num_labels - 1}. Map them to the model's `config.label2id`, or load the model with the right "
                "`num_labels`."
            )


def check_stream_starts_anew(dataset: Any, argument: str) -> None:
    """
    Refuses a stream that gives the same iterator every time, without reading a row.

    Raises:
        `ValueError`: If the stream can be read only once.
    """
    if is_stream(dataset) and iter(dataset) is iter(dataset):
        raise ValueError(
            f"`{argument}` is a stream that can be read only once, and a run reads every data set several times. Let "
            "its `__iter__` start anew, for example with `IterableDataset.from_generator(function)`."
        )


def check_batch_has_labels(batch: Mapping[str, Any], argument: str) -> None:
    """
    Refuses a collated batch without labels.

    Raises:
        `ValueError`: If the batch has no labels, see [`split_labels`].
    """
    try:
        split_labels(batch)
    except ValueError as error:
        raise ValueError(f"`{argument}` has no labels. {error}") from None
