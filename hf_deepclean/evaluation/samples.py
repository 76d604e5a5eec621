# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Draws the rows whose figures may be published where the number of all rows is withheld.

Figures of a fixed number of rows tell nothing of the number of rows that they are drawn from. Figures of all rows do,
however they are rounded: by the fractions that they can have, and by how far chance moves them.
"""

from typing import Any

import numpy as np
from torch.utils.data import Subset

from ..data.held_out import label_column, stored_classes
from ..data.streams import is_stream
from .figures.intervals import MIN_UNBOUNDED_EXAMPLES
from .predictions import ExamplePredictions


# At most this many retain rows are evaluated, so that an evaluation does not grow with the retained data.
MAX_EVALUATED_EXAMPLES = 2000

# Of fewer rows, figures would tell about single ones.
MIN_SAMPLE = 50
# The first that there are enough rows for counts. An interval of a loss needs the 200.
_ENOUGH = (MIN_UNBOUNDED_EXAMPLES, MIN_SAMPLE)
# Unseen data may be chosen to be like the forget data, so their number may follow from that of the forget data.
SAMPLE_SIZES = {"forget": (MIN_SAMPLE,), "retain": _ENOUGH, "unseen": _ENOUGH}


def sample_size(split: str, number: int) -> int:
    """
    How many of a number of rows are drawn.

    Args:
        split (`str`):
            `"forget"`, `"retain"` or `"unseen"`.
        number (`int`):
            The number of rows.

    Returns:
        `int`: All of them if they are too few for a sample.
    """
    return next((size for size in SAMPLE_SIZES[split] if size <= number), number)


def drawn_rows(split: str, predictions: ExamplePredictions) -> np.ndarray:
    """
    Draws rows at random. They are the same ones whatever the seed and the settings: the differences between two
    samples of the same rows would tell how many there are.

    Args:
        split (`str`):
            `"forget"`, `"retain"` or `"unseen"`.
        predictions ([`ExamplePredictions`]):
            The answers on all rows.

    Returns:
        `np.ndarray`: The numbers of the drawn rows, in order; of token-level heads only rows with scored tokens.
    """
    tokens = predictions.tokens
    rows = np.arange(len(predictions.log_likelihood)) if tokens is None else np.flatnonzero(tokens.counts > 0)
    # A stream of random numbers that no version of numpy changes.
    return np.sort(np.random.RandomState(0).permutation(rows)[: sample_size(split, len(rows))])


def is_sampled(retain_dataset: Any) -> bool:
    """
    Whether a retain set is evaluated on a sample: if it is large, and its classes can be told from a stored column or
    it has none.

    Args:
        retain_dataset ([`~datasets.Dataset`], map-style or iterable):
            The retain set.
    """
    if is_stream(retain_dataset) or len(retain_dataset) <= MAX_EVALUATED_EXAMPLES:
        return False
    # A transform may make the labels.
    return hasattr(retain_dataset, "with_format") and (
        label_column(retain_dataset) is not None or retain_dataset.format["type"] != "custom"
    )


def rows_to_evaluate(retain_dataset: Any, forget_dataset: Any) -> Any:
    """
    Draws at most 2,000 rows of the retain set at random: the same ones whatever the seed and the settings, as in
    [`drawn_rows`]. Every class of the forget set that is in the retain set is in the sample too, because the target of
    the forgetting depends on that.

    Args:
        retain_dataset, forget_dataset ([`~datasets.Dataset`], map-style or iterable):
            The data sets.

    Returns:
        [`~torch.utils.data.Subset`] or the retain set itself: if it is small, is a stream, or has classes that cannot
            be told without reading all rows; see [`is_sampled`].
    """
    if not is_sampled(retain_dataset):
        return retain_dataset
    classes = stored_classes(retain_dataset)
    order = np.random.RandomState(0).permutation(len(retain_dataset))
    drawn, others = order[:MAX_EVALUATED_EXAMPLES], order[MAX_EVALUATED_EXAMPLES:]
    forgotten = None if is_stream(forget_dataset) else stored_classes(forget_dataset)
    if classes is not None and forgotten is not None:
        # One row of each class tells that the class is retained.
        missing = np.setdiff1d(np.intersect1d(forgotten, classes[others]), classes[drawn])
        added = [others[classes[others] == name][0] for name in missing[: MAX_EVALUATED_EXAMPLES // 2]]
        drawn = np.concatenate([drawn[: len(drawn) - len(added)], np.array(added, dtype=int)])
    return Subset(retain_dataset, np.sort(drawn).tolist())
