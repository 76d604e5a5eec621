# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The rule that chooses the settings of every baseline.

The rule sees what is available to someone who has to answer a request: forget, retain and unseen data, and the
original. It sees neither the reference nor the test data, and its seed is not one of the reported seeds.
"""

import math
from collections.abc import Sequence
from typing import Any


# Models of this seed are used only to choose.
TUNING_SEED = 10


def score(request: str, result: dict[str, Any], original: dict[str, Any]) -> float:
    """
    How far a model is from the goal of the request, in points; 0 is best.

    For a class, the score is its accuracy plus the loss of retain accuracy. Otherwise the forget data should look like
    unseen data:

        |forget - unseen accuracy| + 100 |AUC - 0.5| + losses of retain and unseen accuracy

    Args:
        request (`str`):
            `"random"`, `"class"` or `"people"`.
        result (`dict[str, Any]`):
            Figures of the model, see [`measure`].
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
    The index of the candidate with the lowest score, of equal ones the first; `None` if all candidates failed.

    Args:
        scores (`Sequence[float]`):
            The score of every candidate, `None` if it failed.
    """
    known = {number: value for number, value in enumerate(scores) if value is not None and math.isfinite(value)}
    return min(known, key=known.__getitem__) if known else None
