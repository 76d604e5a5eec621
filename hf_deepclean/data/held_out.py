# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Takes unseen data from the evaluation data, if that is asked for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.utils.data import Subset

from .checks import LABEL_COLUMNS
from .streams import is_stream


HOW_TO_HOLD_OUT = (
    "Pass an `unseen_dataset`, rows like the forget data that the model was not trained on, or set "
    "`unseen_share_of_eval`, such as 0.5, to take them from the evaluation data."
)


def hold_out_unseen(
    share: float | None, seed: int, forget_dataset: Any, eval_dataset: Any, unseen_dataset: Any
) -> tuple[Any, Any]:
    """
    Draws unseen data from the evaluation data, which then are without these rows.

    Unseen data are to be like the forget data. So only rows are drawn whose class occurs among the forget data. If
    examples have no single class, all rows may be drawn.

    Args:
        share (`float`, *optional*):
            Share of the rows to draw, above 0 and below 1. Without it nothing is drawn.
        seed (`int`):
            Seed of the draw.
        forget_dataset (`~datasets.Dataset` or map-style):
            The forget data.
        eval_dataset (`~datasets.Dataset`, map-style or `dict` of one of them):
            The evaluation data.
        unseen_dataset (*optional*):
            Unseen data of the caller.

    Returns:
        `tuple[Any, Any]`: The evaluation data and the unseen data.

    Raises:
        `ValueError`: If there are no evaluation data, several of them, a stream or too few rows, or if there are
            unseen data already.
    """
    if share is None:
        return eval_dataset, unseen_dataset
    asked = f"`unseen_share_of_eval={share}` takes unseen data from `eval_dataset`"
    if unseen_dataset is not None:
        raise ValueError(f"{asked}, but there is an `unseen_dataset` too. Leave one of them out.")
    parts = dict(eval_dataset) if isinstance(eval_dataset, Mapping) else {"": eval_dataset}
    if len(parts) != 1:
        raise ValueError(f"{asked}, but these are {len(parts)} data sets. Pass an `unseen_dataset` instead.")
    ((name, evaluation),) = parts.items()
    if evaluation is None:
        raise ValueError(
            f"{asked}, and there is none. Pass evaluation data, or an `unseen_dataset` (on the command line "
            "`--eval_split` or `--unseen_split`)."
        )
    if is_stream(evaluation):
        raise ValueError(f"{asked}, which is a stream. Pass a `datasets.Dataset`, or an `unseen_dataset`.")
    candidates = _rows_of_same_classes(forget_dataset, evaluation, asked)
    number = max(1, round(share * len(candidates)))
    if number >= len(evaluation):
        raise ValueError(
            f"{asked}, but of its {len(evaluation)} rows none would be left. Pass more evaluation data, or an "
            "`unseen_dataset`."
        )
    drawn = np.sort(np.random.default_rng(seed).permutation(candidates)[:number])
    left = np.setdiff1d(np.arange(len(evaluation)), drawn)
    rest, unseen = (_select(evaluation, rows.tolist()) for rows in (left, drawn))
    return ({name: rest} if name else rest), unseen


def _rows_of_same_classes(forget_dataset: Any, evaluation: Any, asked: str) -> np.ndarray:
    everything = np.arange(len(evaluation))
    forgotten = None if is_stream(forget_dataset) else _classes(forget_dataset)
    classes = None if forgotten is None else _classes(evaluation)
    if classes is None:
        return everything
    found = everything[np.isin(classes, forgotten)]
    if len(found) == 0:
        raise ValueError(
            f"{asked}, but none of its {len(evaluation)} rows has a class of the forget data. Pass an "
            "`unseen_dataset` with rows of these classes."
        )
    return found


def _classes(dataset: Any) -> np.ndarray | None:
    """The classes of all rows, or `None` if a row has no single class."""
    if label_column(dataset) is not None:
        return stored_classes(dataset)
    rows = [dataset[row] for row in range(len(dataset))]
    label = next((name for name in LABEL_COLUMNS if all(isinstance(row, Mapping) and name in row for row in rows)), "")
    if not label or any(np.ndim(row[label]) for row in rows):
        return None
    return _as_classes([row[label] for row in rows])


def stored_classes(dataset: Any) -> np.ndarray | None:
    """
    Returns the classes of all rows, read from the column of labels alone.

    Args:
        dataset (`~datasets.Dataset` or map-style):
            The data.

    Returns:
        `np.ndarray` of shape `(num_rows,)`, *optional*: `None` if there is no such column, or a row has no single
            class.
    """
    label = label_column(dataset)
    return None if label is None else _as_classes(dataset.with_format("numpy", columns=[label])[label][:])


def label_column(dataset: Any) -> str | None:
    """
    Returns the name of the column of labels that a data set stores, if it does.

    Args:
        dataset (`~datasets.Dataset` or map-style):
            The data.
    """
    columns = dataset.column_names if hasattr(dataset, "with_format") else ()
    return next((name for name in LABEL_COLUMNS if name in columns), None)


def _as_classes(values: Any) -> np.ndarray | None:
    classes = np.asarray(values)
    return classes if classes.ndim == 1 and classes.dtype.kind in "biuU" else None


def _select(dataset: Any, rows: list[int]) -> Any:
    return dataset.select(rows) if hasattr(dataset, "select") else Subset(dataset, rows)
