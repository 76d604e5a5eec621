# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The rule that chooses the hyper-parameters of every rival.

It sees what whoever has to answer a request has: the data to forget and to keep, data that no model saw, and the
original. It never sees the reference nor the data to test on, and its seed is none of those that are reported.
"""

import math
from collections.abc import Sequence
from typing import Any


# Its models are trained for the choice alone.
TUNING_SEED = 10


def score(request: str, result: dict[str, Any], original: dict[str, Any]) -> float:
    """
    How far a model is from what the request asks for, in points; 0 is best.

    For a class: its accuracy, and what the accuracy on the retain data lost. Otherwise forgotten data should look like
    data never seen:

        |forget - unseen accuracy| + 100 |AUC - 0.5| + what retain and unseen accuracy lost

    Args:
        request (`str`):
            `"random"`, `"class"` or `"people"`.
        result (`dict[str, Any]`):
            Figures of the model, see [`figures.measure`].
        original (`dict[str, Any]`):
            Figures of the original.
    """
    found, before = result["accuracy"], original["accuracy"]

    def lost(split: str) -> float:
        return 100 * max(0.0, before[split] - found[split])

    if request == "class":
        value = 100 * found["forget"] + lost("retain")
    else:
        gap = 100 * abs(found["forget"] - found["unseen"])
        value = gap + 100 * abs(result["auc"] - 0.5) + lost("retain") + lost("unseen")
    return value if math.isfinite(value) else math.inf


def choose(scores: Sequence[float | None]) -> int | None:
    """
    The number of the candidate with the lowest score, of equal ones the first; none if all failed.

    Args:
        scores (`Sequence[float]`):
            One per candidate, `None` for one that failed.
    """
    known = {number: value for number, value in enumerate(scores) if value is not None and math.isfinite(value)}
    return min(known, key=known.__getitem__) if known else None
