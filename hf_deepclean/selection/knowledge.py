# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures how much a model knows of a data set, as one number, and names what the forget data should look like."""

from collections.abc import Collection
from typing import Any

import numpy as np

from ..data.batches import IGNORED
from ..evaluation.predictions import ExamplePredictions


TARGETS = ("unseen", "chance")

# The measure of knowledge of a model that gives a class per example.
CLASS_MEASURE = "accuracy"
# The measure if some classes are rare: the mean of the accuracies of the classes. A mean over examples would hide the
# loss of a rare class.
BALANCED_MEASURE = "balanced accuracy"
# Standard deviations from equal classes: one in a thousand samples of equal classes passes for uneven.
_MIN_DEVIATIONS = 3.09

# The measure for a likelihood without classes, with the mean loss in nats.
LOSS_MEASURE = "1 / (1 + loss)"


def target_of_request(forget_classes: Collection[Any], retain_classes: Collection[Any]) -> str:
    """
    Decides what the forget data should look like afterwards.

    It is `"chance"` if no forget class occurs in the retain set: a model trained without these classes never predicts
    them. Otherwise, and without classes, it is `"unseen"`: such a model answers as on data that it never saw.

    Args:
        forget_classes, retain_classes (`Collection`):
            The classes that occur in the forget and in the retain set.
    """
    return "chance" if forget_classes and not set(forget_classes) & set(retain_classes) else "unseen"


def check_target(target: str | None, rule: str = "auto") -> None:
    """
    Refuses an unknown target, and any target if the rule of selection is not `"auto"`.

    Args:
        target (`str`, *optional*):
            The target.
        rule (`str`, *optional*, defaults to `"auto"`):
            The rule of selection.

    Raises:
        `ValueError`: If the target is unknown, or does not fit the rule.
    """
    if target is None:
        return
    if target not in TARGETS:
        raise ValueError(
            f"`target` is {target!r} but must be 'unseen' (the forget data should look like unseen data), 'chance' "
            "(their classes should be gone), or left out: then it follows from the classes of the data."
        )
    if rule != "auto":
        raise ValueError(
            f"`target={target!r}` is what `selection='auto'` works towards, and the rule is {rule!r}. Leave one of "
            "them out."
        )


def knowledge(predictions: ExamplePredictions, measure: str | None = None) -> float:
    """
    Measures how much a model knows of a data set, from 0 to 1.

    It is the accuracy, for token-level heads over all scored tokens. For a likelihood without classes it is
    `1 / (1 + loss)`, with the mean loss in nats.

    Args:
        predictions ([`ExamplePredictions`]):
            The model's answers on the data set.
        measure (`str`, *optional*):
            The measure by [`measure_of_knowledge`]. `"balanced accuracy"` takes the mean over the classes. By default
            all examples count the same.
    """
    if predictions.log_probabilities is not None:
        right = predictions.log_probabilities.argmax(axis=1) == predictions.labels
        if measure != BALANCED_MEASURE:
            return float(right.mean())
        _, classes, sizes = np.unique(predictions.labels, return_inverse=True, return_counts=True)
        return float((np.bincount(classes, right) / sizes).mean())
    if predictions.tokens is not None:
        return float(predictions.tokens.correct.mean())
    return knowledge_of_loss(-float(np.mean(predictions.log_likelihood)))


def knowledge_of_loss(loss: float) -> float:
    """Turns a mean loss into a number in (0, 1]. It never reaches 0, however long the sequences of a summed loss."""
    return 1 / (1 + max(0.0, loss))


def measure_of_knowledge(predictions: ExamplePredictions) -> tuple[str, float]:
    """Returns the name of the measure for [`knowledge`], and its value for a model with a constant answer."""
    if predictions.log_probabilities is not None:
        sizes = np.unique(predictions.labels, return_counts=True)[1]
        if _are_uneven(sizes):
            return BALANCED_MEASURE, 1 / len(sizes)
        return CLASS_MEASURE, _largest_share(predictions.labels)
    if predictions.tokens is None:
        return LOSS_MEASURE, 0.0
    classes = predictions.tokens.classes
    return "token accuracy", _largest_share(
        predictions.labels[predictions.labels != IGNORED] if classes is None else classes
    )


def _are_uneven(sizes: np.ndarray) -> bool:
    """Whether the sizes of the classes in a sample differ more than chance explains if all were equally frequent."""
    if len(sizes) < 2:
        return False
    expected = sizes.mean()
    excess = float(((sizes - expected) ** 2 / expected).sum())
    # Wilson and Hilferty's approximation of the chi-square distribution (1931), which is near to normal.
    freedom = len(sizes) - 1
    spread = 2 / (9 * freedom)
    return ((excess / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5 > _MIN_DEVIATIONS


def _largest_share(classes: np.ndarray) -> float:
    numbers = np.unique(classes, return_counts=True)[1]
    # With a single class every answer is right. So all of the accuracy counts as knowledge, and 0 is the floor.
    return float(numbers.max() / len(classes)) if len(numbers) > 1 else 0.0
