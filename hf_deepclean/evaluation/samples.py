# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Draws the rows whose figures may be published where the number of all rows is withheld.

Figures of a fixed number of rows tell nothing of the number of rows that they are drawn from. Figures of all rows do,
however they are rounded: by the fractions that they can have, and by how far chance moves them.
"""

import numpy as np

from .figures.intervals import MIN_UNBOUNDED_EXAMPLES
from .predictions import ExamplePredictions


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
