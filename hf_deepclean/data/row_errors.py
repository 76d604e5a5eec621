# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Says which row of a data set cannot be read or made into a batch, why, and what to do. Never shows its content."""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import datasets
import pyarrow as pa
import torch
from pyarrow import compute
from torch.utils.data import Subset

from .batches import LABELS


# Columns of the target that collators turn into labels.
LABEL_COLUMNS = (LABELS, "label", "label_ids")


class DataError(ValueError):
    """A row or a batch that cannot be used. The message names the data set and the position."""


@dataclass(frozen=True)
class Failure:
    """A [`DataError`] as a value, so that a worker can send it with its cause."""

    message: str
    cause: BaseException | None

    @classmethod
    def of(cls, error: DataError) -> "Failure":
        """Takes an error apart. A cause that cannot be sent is replaced by one that names its type."""
        cause = error.__cause__
        # One that cannot be pickled would be lost on the way, and the main process would wait for it.
        try:
            pickle.loads(pickle.dumps(cause))
        except Exception:
            cause = RuntimeError(f"{type(cause).__name__} in a worker")
        return cls(str(error), cause)

    def error(self) -> DataError:
        """The error again, to be raised in the main process."""
        error = DataError(self.message)
        error.__cause__ = self.cause
        return error


def name_rows(positions: Sequence[int], name: str) -> str:
    """Names rows of a data set by their positions, for example ``"Rows 8 to 15 of `retain_dataset`"``."""
    first, last = positions[0], positions[-1]
    if first == last:
        return f"Row {first} of {name}"
    if last - first == len(positions) - 1:
        return f"Rows {first} to {last} of {name}"
    return f"{len(positions)} rows from {first} to {last} of {name}"


def positions_in(dataset: Any, indices: Sequence[int]) -> list[int]:
    """Positions in the caller's data set of rows at `indices` of a data set that may be a sample of it."""
    positions = list(indices)
    while isinstance(dataset, Subset):
        positions = [dataset.indices[index] for index in positions]
        dataset = dataset.dataset
    return positions


def reading_error(name: str, positions: Sequence[int], num_rows: int | None, error: Exception) -> DataError:
    """
    The error for rows whose reading raised another error.

    Args:
        name (`str`):
            Names the data set.
        positions (`Sequence[int]`):
            Positions of the rows, one of which could not be read.
        num_rows (`int`, *optional*):
            Number of rows that the data set says it has. `None` for a stream.
        error (`Exception`):
            What reading raised.
    """
    rows, kind = name_rows(positions, name), type(error).__name__
    if num_rows is not None and isinstance(error, (IndexError, StopIteration)):
        return DataError(
            f"{rows} cannot be read ({kind}), though its `len` says that it has {num_rows}. Make `__len__` return the "
            "number of rows that can be read."
        )
    return DataError(
        f"{rows} cannot be read: the data set, or its transform, raised {kind}, which is shown above. "
        f"{_hint_at_columns(error)}Mend what is there, or leave it out."
    )


def _hint_at_columns(error: Exception) -> str:
    """How a column may have gone missing, if that can be the cause of an error."""
    if not isinstance(error, (KeyError, IndexError)):
        return ""
    return (
        "If it misses a column: columns that are no arguments of the model's forward pass are left out before. Set "
        "`remove_unused_columns=False` to keep them. "
    )


def check_num_rows(rows: Sequence[Any], positions: Sequence[int], name: str) -> None:
    """Refuses rows that are not as many as were asked for, as a transform that drops rows returns them."""
    if len(rows) != len(positions):
        raise DataError(
            f"{name_rows(positions, name)} were read, and {len(rows)} came back. A transform must return as many rows "
            "as it gets. Leave rows out with `filter` before."
        )


def collated(
    collator: Callable[[list[Any]], Any], rows: list[Any], positions: Sequence[int], name: str, columns: Any = None
) -> Any:
    """
    Makes a batch of rows.

    Args:
        collator (`Callable`):
            Makes a batch of rows.
        rows (`list`):
            The rows.
        positions (`Sequence[int]`):
            Their positions in the data set.
        name (`str`):
            Names the data set in an error.
        columns (`Collection[str]`, *optional*):
            The columns that reach the model. By default all.

    Raises:
        [`DataError`]: If the collator raises an error, or returns labels of no example. Says which row does not fit.
    """
    try:
        batch = collator(rows)
    except Exception as error:
        reason = _fault_of_rows(collator, rows, positions, columns) or (
            f"the data collator raised {type(error).__name__}, which is shown above. {_hint_at_columns(error)}Call it "
            "on these rows"
        )
        raise DataError(f"{name_rows(positions, name)} cannot be made into a batch: {reason}.") from error
    labels = batch.get(LABELS) if isinstance(batch, Mapping) else None
    if isinstance(labels, torch.Tensor) and labels.ndim and len(labels) == 0:
        raise DataError(
            f"{name_rows(positions, name)} became a batch without examples: the data collator left all of them out. "
            "Leave rows out of the data set instead (`filter`), so that every batch has an example."
        )
    return batch


def rows_with_none(dataset: Any) -> dict[str, list[int]]:
    """
    Finds None without making the rows: in a list, and in the columns of numbers and texts of a data set.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.

    Returns:
        `dict[str, list[int]]`: The positions of the rows with None, by column. Empty for any other data set, and for
        one with a transform.
    """
    found: dict[str, list[int]] = {}
    if isinstance(dataset, (list, tuple)):
        for position, row in enumerate(dataset):
            for key in row if isinstance(row, Mapping) else ():
                if row[key] is None:
                    found.setdefault(key, []).append(position)
    elif isinstance(dataset, datasets.Dataset) and dataset.format["type"] != "custom":
        columns = [field.name for field in dataset.features.arrow_schema if _is_flat(field.type)]
        start = 0
        for table in dataset.with_format("arrow").select_columns(columns).iter(batch_size=10_000):
            for name in columns:
                column = table[name].combine_chunks()
                places = set(compute.indices_nonzero(column.is_null()).to_pylist())
                if not pa.types.is_primitive(column.type) and not pa.types.is_string(column.type):
                    inner = compute.list_flatten(column).is_null()
                    places |= set(compute.list_parent_indices(column).filter(inner).to_pylist())
                if places:
                    found.setdefault(name, []).extend(start + place for place in sorted(places))
            start += len(table)
    return found


def _is_flat(kind: pa.DataType) -> bool:
    """Whether a type is that of a number, a text, or a list of either."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_primitive(kind) or pa.types.is_string(kind)


def fault_of_labels(row: Any, position: int) -> str | None:
    """What is wrong with the label columns of a row that became a batch without labels; `None` if nothing is."""
    if not isinstance(row, Mapping):
        return None
    faults = [_fault_of_value(key, row[key]) for key in LABEL_COLUMNS if key in row]
    return next((f"row {position} has {fault}" for fault in faults if fault is not None), None)


def _fault_of_rows(
    collator: Callable[[list[Any]], Any], rows: Sequence[Any], positions: Sequence[int], columns: Any
) -> str | None:
    """Finds the column without whose differences or missing values the rows could be made into a batch."""
    for position, row in zip(positions, rows, strict=True):
        if not isinstance(row, Mapping):
            found = "None" if row is None else f"a value of type {type(row).__name__}"
            return (
                f"row {position} is {found}, and the data collators of transformers take dictionaries of columns, "
                "such as `input_ids` and `labels`. Return those, or pass a `data_collator` for such rows"
            )
    keys = dict.fromkeys(key for row in rows for key in row if columns is None or key in columns)
    repaired = [dict(row) for row in rows]
    for key in keys:
        fault = _fault_of_column(key, rows, positions)
        if fault is None:
            continue
        values = [row[key] for row in rows if key in row and _fault_of_value(key, row[key]) is None]
        for row in repaired:
            row.pop(key, None)
            row |= {key: values[0]} if values else {}
        try:
            collator(repaired)
        except Exception:
            continue
        return fault
    return None


def _fault_of_column(key: str, rows: Sequence[Mapping[str, Any]], positions: Sequence[int]) -> str | None:
    placed = list(zip(positions, rows, strict=True))
    lacking = next((position for position, row in placed if key not in row), None)
    if lacking is not None:
        holding = next(position for position, row in placed if key in row)
        return (
            f"row {lacking} has no `{key}`, which row {holding} has. Give every row the same columns, or leave the "
            "row out (`filter`)"
        )
    for position, row in placed:
        fault = _fault_of_value(key, row[key])
        if fault is not None:
            return f"row {position} has {fault}"
    (first, expected), *others = ((position, _shape(row[key])) for position, row in placed)
    for position, shape in others:
        if shape != expected:
            return (
                f"`{key}` has shape {expected} in row {first} and {shape} in row {position}, and the data collator "
                "does not pad it. Pass a `data_collator` that does, such as `DataCollatorWithPadding`, "
                "`DataCollatorForTokenClassification` or `DataCollatorForSeq2Seq`, or pad the rows"
            )
    return None


def _fault_of_value(key: str, value: Any) -> str | None:
    if value is None or _holds_none(value):
        held = "None" if value is None else "None among the values"
        return f"{held} as `{key}`. Give every row a value, or leave the row out (`filter`)"
    if isinstance(value, str) or (_is_list(value) and len(value) and isinstance(value[0], str)):
        if key in LABEL_COLUMNS:
            return (
                f"text as `{key}`. Map it to the numbers of `model.config.label2id`, for example with "
                f"`dataset.map(lambda row: {{{key!r}: model.config.label2id[row[{key!r}]]}})`"
            )
        return f"text as `{key}`, which the data collator cannot take. Tokenise it, or leave the column out"
    if isinstance(value, Mapping):
        return f"a dictionary as `{key}`. Make a column of each of its entries that the model takes"
    if type(value).__module__.startswith("PIL."):
        return f"an image as `{key}`. Process it as in training (image processor), or pass a `data_collator` that does"
    return None


def _holds_none(value: Any) -> bool:
    return _is_list(value) and any(item is None or _holds_none(item) for item in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of an array or a list; for a ragged list that of its first entries."""
    if _is_list(value):
        return (len(value), *(_shape(value[0]) if len(value) else ()))
    return tuple(getattr(value, "shape", ()))


@contextmanager
def locating_errors(where: Callable[[], str | None]) -> Iterator[None]:
    """
    Puts the place of a batch before the message of an error that a model raises on it.

    Args:
        where (`Callable`):
            Returns the name of the rows, see [`name_rows`], or `None` if nothing was read yet.

    Raises:
        `ValueError`: If the block raises a plain error. Others, such as lack of memory, pass as they are.
    """
    try:
        yield
    except DataError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        place = where()
        if place is None or (isinstance(error, RuntimeError) and type(error) is not RuntimeError):
            raise
        if not isinstance(error, ValueError):
            raise ValueError(f"{place}: the model cannot take them ({type(error).__name__}: {error}).") from error
        raise ValueError(f"{place}: {error}") from error
