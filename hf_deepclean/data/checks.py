# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Refuses data sets that cannot be used, before any heavy work."""

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel
from pyarrow.types import is_integer, is_large_list, is_list
from torch.utils.data import ConcatDataset, DataLoader, Subset
from torch.utils.data import Dataset as TorchDataset

from ..runtime.processes import is_main_process
from .batches import IGNORED, LABELS, split_labels
from .row_errors import LABEL_COLUMNS
from .streams import is_stream


logger = logging.getLogger(__name__)


def check_requests(requests: Mapping[str, Sequence[int]] | None, forget_dataset: Any) -> None:
    """
    Refuses requests that have no rows, or rows that do not exist.

    Raises:
        `ValueError`: If a request is empty, if a row is out of range, or if the forget data are a stream.
    """
    if requests is not None and not isinstance(requests, Mapping):
        raise TypeError(
            f"`requests` is of type {type(requests).__name__} but must be a dictionary: rows of `forget_dataset` by "
            "the name of the request."
        )
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
    if not isinstance(rows, Collection) or not all(
        isinstance(row, Integral) and not isinstance(row, bool) for row in rows
    ):
        raise TypeError(
            f"The rows of request {number} must be a list of whole numbers, the positions of rows of `{argument}`."
        )
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
    remedy = _remedy_of_type(dataset)
    if remedy is not None:
        raise TypeError(f"`{argument}` is a {type(dataset).__name__}. {remedy}")
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


def match_classes(names: Sequence[str], numbers: Mapping[str, int]) -> list[int | None] | None:
    """
    Finds the model's number of every class of a data set by its name, as transformers' `run_classification.py` does.
    Case, spaces, hyphens and underscores do not count, unless only they tell two classes apart.

    Args:
        names (`Sequence[str]`):
            The classes of the data set, in the order of its numbers.
        numbers (`dict[str, int]`):
            The model's number of every class.

    Returns:
        `list[int]`, *optional*: With `None` for a class that the model does not name. `None` if the classes of one of
        the two have no names but their numbers, such as `"LABEL_0"`.
    """
    if _are_numbers(names) or _are_numbers(sorted(numbers, key=numbers.get)):
        return None
    found = [numbers.get(name) for name in names]
    plain = {_plain(name): number for name, number in numbers.items()}
    if len(plain) == len(numbers) and len(set(map(_plain, names))) == len(names):
        found = [plain.get(_plain(name)) for name in names]
    return found


def class_names(dataset: Any, column: str) -> list[str] | None:
    """The class names of a column, of one class or a list of classes per row; `None` if it states none."""
    features = getattr(dataset, "features", None)
    feature = features.get(column) if isinstance(features, Mapping) else None
    feature = getattr(feature, "feature", feature)
    return list(feature.names) if isinstance(feature, ClassLabel) and feature.names else None


def describe_classes(names: Sequence[str], numbers: Mapping[str, int]) -> str:
    """Lists the classes of a data set and those of the model, in the order of their numbers."""
    both = {"the column": list(names), "the model": sorted(numbers, key=numbers.get)}
    listed = {of: ", ".join([*some[:20], *["..."] * (len(some) > 20)]) for of, some in both.items()}
    return "; ".join(f"{of}: {classes or 'no names'}" for of, classes in listed.items())


def check_class_names(dataset: Any, argument: str, numbers: Mapping[str, int] | None) -> None:
    """
    Refuses a data set that numbers its classes in another way than the model.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set. It is checked if a column of labels names its classes ([`~datasets.ClassLabel`]), also
            within torch's `Subset` and `ConcatDataset`.
        argument (`str`):
            Name of the argument it was passed as.
        numbers (`dict[str, int]`, *optional*):
            The model's number of every class. `None` for a head without classes.

    Raises:
        `ValueError`: If a class has another number in the data set than in the model, or a name that the model does
            not have.
    """
    for part in _parts(dataset):
        check_class_names(part, argument, numbers)
    column = next((name for name in LABEL_COLUMNS if class_names(dataset, name) is not None), None)
    if numbers is None or column is None:
        return
    names = class_names(dataset, column)
    found = match_classes(names, numbers)
    # Numbers outside the head's range are refused as such, if they occur.
    if found is None or all(given in (own, None if own >= len(numbers) else own) for own, given in enumerate(found)):
        return
    advice = "rename its classes to the model's names, and map its numbers to the model's"
    if None not in found and isinstance(dataset.features[column], ClassLabel):
        advice = (
            "map its numbers: `dataset.align_labels_with_mapping({name: number for number, name in "
            f"model.config.id2label.items()}}, {column!r})`"
        )
    raise ValueError(
        f"`{argument}` numbers its classes in another way than the model, so its labels would be read as other "
        f"classes. In the order of the numbers, {describe_classes(names, numbers)}. If the names of the column "
        f"{column!r} are right, {advice}. If its numbers are those that the model was trained on, the model's names "
        "are wrong: set `model.config.id2label = dict(enumerate(names_of_the_column))`, and `label2id` to match."
    )


def _parts(dataset: Any) -> Sequence[Any]:
    """The data sets that torch's wrappers take their rows from."""
    if isinstance(dataset, Subset):
        return [dataset.dataset]
    return dataset.datasets if isinstance(dataset, ConcatDataset) else ()


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether class names only repeat the numbers, as those that transformers and datasets make up."""
    return all(name in (str(number), f"LABEL_{number}") for number, name in enumerate(names))


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _remedy_of_type(dataset: Any) -> str | None:
    """What to pass instead of a container of rows that is no data set; `None` for any other object."""
    library = type(dataset).__module__.partition(".")[0]
    if isinstance(dataset, Mapping):
        inner = list(dataset.values())
        if inner and all(hasattr(one, "features") or isinstance(one, TorchDataset) for one in inner):
            return f"Pass one of its {len(inner)} data sets, or join them (`datasets.concatenate_datasets`)."
        return "Make a data set of its columns: `datasets.Dataset.from_dict(columns)`."
    if library in ("pandas", "polars"):
        return f"Make a data set of it: `datasets.Dataset.from_{library}(frame)`."
    if library == "pyarrow":
        return "Make a data set of it: `datasets.Dataset(table)`."
    if isinstance(dataset, (np.ndarray, torch.Tensor)):
        return 'Rows have names: `datasets.Dataset.from_dict({"input_ids": ids, "labels": labels})`.'
    if isinstance(dataset, (str, bytes, os.PathLike)):
        return "Load it: `datasets.load_dataset(path)`."
    if isinstance(dataset, DataLoader):
        return "Pass its `dataset`, and its `collate_fn` as `data_collator`."
    if isinstance(dataset, Iterator):
        return "It can be read only once. Pass a list of its rows, or `IterableDataset.from_generator(function)`."
    if isinstance(dataset, (list, tuple)) and dataset and hasattr(dataset[0], "features"):
        return "Join the data sets in it: `datasets.concatenate_datasets(data_sets)`."
    return None


def check_scored_labels(dataset: Any, argument: str) -> None:
    """
    Refuses a data set in which no row has a label that is scored, and warns of rows that have none. Truncation that
    cuts off the answers leaves such rows.

    Only stored lists of labels of a [`~datasets.Dataset`] are checked.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.
        argument (`str`):
            Name of the argument it was passed as.

    Raises:
        `ValueError`: If every label of every row is -100.
    """
    formatted = getattr(dataset, "format", None)
    if not isinstance(formatted, dict) or formatted["type"] == "custom" or LABELS not in dataset.column_names:
        return
    labels = dataset.with_format("arrow").select_columns(LABELS)
    without: list[int] = []
    for number, table in enumerate(labels.iter(batch_size=1000)):
        column = table[LABELS].combine_chunks()
        if not (is_list(column.type) or is_large_list(column.type)) or not is_integer(column.type.value_type):
            return
        is_scored = np.asarray(column.values.fill_null(IGNORED)) != IGNORED
        ends = column.offsets.to_numpy()
        counts = np.diff(np.concatenate([[0], np.cumsum(is_scored)])[ends])
        without += (1000 * number + np.flatnonzero(counts == 0)).tolist()
    if not without:
        return
    if len(without) == len(dataset):
        raise ValueError(
            f"No row of `{argument}` has a label that is scored: all of them are {IGNORED}. Check the masking of the "
            "prompts, and whether truncation (`max_length`) cut off the answers."
        )
    if is_main_process():
        logger.warning(
            f"{len(without)} of {len(dataset)} rows of `{argument}` have no label that is scored (all are {IGNORED}), "
            f"the first at place {without[0]}. They count as examples and have no part in anything. Leave them out, "
            "or truncate so that the answers stay (`max_length`)."
        )


def check_batch_has_labels(
    batch: Mapping[str, Any], argument: str, reason: Callable[[], str | None] | None = None
) -> None:
    """
    Refuses a collated batch without labels.

    Args:
        batch (`dict[str, Any]`):
            The batch.
        argument (`str`):
            Name of the argument that the data set was passed as.
        reason (`Callable`, *optional*):
            Looks for the reason if there are none, as [`BatchSource.why_without_labels`] does.

    Raises:
        `ValueError`: If the batch has no labels, see [`split_labels`].
    """
    try:
        split_labels(batch)
    except ValueError as error:
        found = None if reason is None else reason()
        raise ValueError(f"`{argument}` has no labels. {found or error}") from None
