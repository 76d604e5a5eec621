# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the rows to forget, by an expression over the columns or by a column that marks them."""

from contextlib import suppress
from typing import Any

from datasets import ClassLabel, Dataset
from datasets.utils import tqdm
from transformers.utils import logging

from ...runtime.processes import is_main_process
from ..arguments import DataArguments, refuse_without_forget_rule
from ..progress_bars import progress_bars_on_main_process
from .comparisons import class_names
from .expressions import Filter, compile_filter, truth


logger = logging.get_logger(__name__)

_MAX_PLACES = 5
_ERRORS = (TypeError, ZeroDivisionError, OverflowError)


def split_forget_rows(dataset: Dataset, arguments: DataArguments) -> tuple[Dataset, Dataset]:
    """
    Divides a data set by `forget_filter` or `forget_column`, in memory and in the order of the rows.

    Args:
        dataset ([`~datasets.Dataset`]):
            The data that the model was trained on.
        arguments ([`DataArguments`]):
            Which of its rows to forget. What a filter may have missed is told by a warning.

    Returns:
        `tuple[Dataset, Dataset]`: The rows to forget and the rows to keep.

    Raises:
        `ValueError`: If a column does not exist, if the expression is not understood, if the column holds anything but
            true and false, or if no row or every row is to be forgotten.
    """
    hint = ""
    if arguments.forget_column is not None:
        marks = _marks(dataset, arguments.forget_column)
        way = f"`forget_column={arguments.forget_column!r}`"
        dataset = dataset.remove_columns(arguments.forget_column)
    elif arguments.forget_filter is not None:
        expression = compile_filter(arguments.forget_filter, dataset.features)
        marks, near = _matches(dataset, expression)
        way, hint = expression.shown, _class_names(dataset, expression) + _near_misses(marks, near)
    else:
        refuse_without_forget_rule()
    count = sum(marks)
    if count in (0, len(dataset)):
        raise ValueError(
            f"{way} selects {'every one' if count else 'none'} of the {len(dataset)} rows, but there must be rows to "
            f"forget and rows to keep.{'' if count else hint}"
        )
    if arguments.forget_filter is not None and is_main_process():
        for doubt in _doubts(dataset, expression, marks, near):
            logger.warning(f"{way}:{doubt}")
    parts = [[row for row, mark in enumerate(marks) if mark is wanted] for wanted in (True, False)]
    forget, retain = (dataset.select(rows, keep_in_memory=True) for rows in parts)
    return forget, retain


def _matches(dataset: Dataset, expression: Filter) -> tuple[list[bool], list[bool]]:
    """Whether each row is selected, and whether it would be if texts were equal that look alike."""
    rows = dataset.with_format(None).select_columns(expression.columns)
    marks, near = [], []
    with progress_bars_on_main_process():
        for position, row in enumerate(tqdm(rows, desc="filtering", leave=False)):
            try:
                marks.append(truth(expression.matches(row)))
            except RecursionError:
                raise ValueError(f"{expression.shown} nests too many operations. Write it with fewer.") from None
            except _ERRORS as error:
                raise ValueError(
                    f"{expression.shown} cannot be evaluated for the row at position {position}: {error}. Exclude "
                    "rows without a value first, as in `age != None and age > 30`."
                ) from None
            near.append(marks[-1])
            # Here a later condition may be asked, which was not needed above.
            with suppress(*_ERRORS):
                near[-1] = truth(expression.nearly_matches(row))
    return marks, near


def _doubts(dataset: Dataset, expression: Filter, marks: list[bool], near: list[bool]) -> list[str]:
    """Sentences about what the filter may have missed. They give counts and places, and no values."""
    found = [_near_misses(marks, near)]
    for column, terms in expression.terms().items():
        there = _values(dataset, column)
        missing = [place for place, term in enumerate(terms, 1) if there is not None and term not in there]
        if missing:
            found.append(
                f" {len(missing)} of the {len(terms)} constants that {column!r} is compared with are in no row (by "
                f"their order: {_places(missing)}). Look for typing errors."
            )
    columns, searched = sorted(expression.negated_columns()), expression.texts_in_columns()
    rows = dataset.with_format(None).select_columns(expression.columns)
    selected = [row for row, mark in enumerate(marks) if mark] if columns or searched else []
    without, empty = [], []
    for position, row in zip(selected, rows.select(selected) if selected else (), strict=True):
        if any(row[column] is None or row[column] != row[column] for column in columns):
            without.append(position)
        if any(text(row) == "" for text in searched):
            empty.append(position)
    if without:
        found.append(
            f" {len(without)} of the {len(selected)} selected rows have no value in {' or '.join(map(repr, columns))} "
            f"(positions {_places(without)}), because conditions with `!=` or `not` are true for them. If that is not "
            f"meant, add `{columns[0]} != None and`; else add `{columns[0]} == None or`."
        )
    if empty:
        found.append(
            f" {len(empty)} of the {len(selected)} selected rows match because the empty text is part of every text "
            f'(positions {_places(empty)}). Exclude it, as in `person != "" and person in text`.'
        )
    return [sentence for sentence in found if sentence]


def _near_misses(marks: list[bool], near: list[bool]) -> str:
    rows = [row for row, pair in enumerate(zip(marks, near, strict=True)) if pair[0] != pair[1]]
    if not rows:
        return ""
    missed = sum(not marks[row] for row in rows)
    counts = {"not selected": missed, "selected": len(rows) - missed}
    what = " and ".join(f"{count} of {len(marks)} rows are {state}" for state, count in counts.items() if count)
    return (
        f" {what} because their text differs from that of the filter in its Unicode form, spaces, invisible "
        f"characters, quotation marks, hyphens or capital letters alone (positions {_places(rows)}). If they are "
        "the same to you, write each form in the filter, as in `person.strip().casefold() in (...)`, or mark the rows "
        "in a column of the data set and pass its name as `forget_column`."
    )


def _places(places: list[int]) -> str:
    shown = ", ".join(map(str, places[:_MAX_PLACES]))
    return f"{shown} and {len(places) - _MAX_PLACES} more" if len(places) > _MAX_PLACES else shown


def _values(dataset: Dataset, column: str) -> set[Any] | None:
    """The values of a column; `None` if they cannot be in a set."""
    try:
        return set(dataset.with_format(None)[column][:])
    except TypeError:
        return None


def _marks(dataset: Dataset, column: str) -> list[bool]:
    if column not in dataset.column_names:
        raise ValueError(f"`forget_column` is {column!r}, and the columns are {', '.join(dataset.column_names)}.")
    marks = dataset.with_format(None)[column][:]
    wrong = sum(mark is None or mark not in (0, 1) for mark in marks)
    if wrong:
        raise ValueError(
            f"The column {column!r} of `forget_column` must be true or false (or 1 or 0) in every row; {wrong} of "
            f"{len(marks)} rows hold something else ({dataset.features[column]}). Use `forget_filter` instead, as in "
            f"`{column} == ...`."
        )
    return [bool(mark) for mark in marks]


def _class_names(dataset: Dataset, expression: Filter) -> str:
    features = {name: dataset.features[name] for name in expression.columns}
    return "".join(class_names(name, feature) for name, feature in features.items() if isinstance(feature, ClassLabel))
