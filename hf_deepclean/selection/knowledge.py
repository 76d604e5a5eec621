# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What a model knows of a data set, as one number, and what the forget data should be like afterwards."""

from collections.abc import Collection
from typing import Any

import numpy as np

from ..data.batches import IGNORED
from ..evaluation.predictions import ExamplePredictions


TARGETS = ("unseen", "chance")

# What is meant by the knowledge of a model that gives a class per example.
CLASS_MEASURE = "accuracy"


def target_of_request(forget_classes: Collection[Any], retain_classes: Collection[Any]) -> str:
    """
    What the forget data should be like afterwards.

    `"chance"` if the request is for whole classes: a model trained without them would never give them as an answer.
    Else, and without classes, `"unseen"`: it would answer as on data never seen.

    Args:
        forget_classes, retain_classes (`Collection`):
            The classes that occur.
    """
    return "chance" if forget_classes and not set(forget_classes) & set(retain_classes) else "unseen"


def check_target(target: str | None, rule: str = "auto") -> None:
    """
    Refuses an unknown target, and one that the rule of selection does not work towards.

    Args:
        target (`str`, *optional*):
            The target.
        rule (`str`, *optional*, defaults to `"auto"`):
            The rule of selection.
    """
    if target is None:
        return
    if target not in TARGETS:
        raise ValueError(
            f"`target` is {target!r} but must be 'unseen' (the forget data should look like data never seen), "
            "'chance' (their classes should be gone), or left out: then it follows from the classes of the data."
        )
    if rule != "auto":
        raise ValueError(
            f"`target={target!r}` is what `selection='auto'` works for, and the rule is {rule!r}. Leave one of them "
            "out."
        )


def knowledge(predictions: ExamplePredictions) -> float:
    """
    How much a model knows of a data set, from 0 to 1: the accuracy, for token-level heads over all scored tokens; for
    a likelihood without classes `1 / (1 + loss)` with the mean loss in nats, at most 1.

    Args:
        predictions ([`ExamplePredictions`]):
            Its answers.
    """
    if predictions.log_probabilities is not None:
        return float((predictions.log_probabilities.argmax(axis=1) == predictions.labels).mean())
    if predictions.tokens is not None:
        return float(predictions.tokens.correct.mean())
    return knowledge_of_loss(-float(np.mean(predictions.log_likelihood)))


def knowledge_of_loss(loss: float) -> float:
    """The same of a mean loss: 1 for none, and never 0, however long the sequences are that it is the sum of."""
    return 1 / (1 + max(0.0, loss))


def measure_of_knowledge(predictions: ExamplePredictions) -> tuple[str, float]:
    """What [`knowledge`] is of such answers, and how much of it a model has that always gives the same one."""
    if predictions.log_probabilities is not None:
        return CLASS_MEASURE, _largest_share(predictions.labels)
    if predictions.tokens is None:
        return "1 / (1 + loss)", 0.0
    classes = predictions.tokens.classes
    return "token accuracy", _largest_share(
        predictions.labels[predictions.labels != IGNORED] if classes is None else classes
    )


def _largest_share(classes: np.ndarray) -> float:
    numbers = np.unique(classes, return_counts=True)[1]
    # To give the only class there is is all that can be known.
    return float(numbers.max() / len(classes)) if len(numbers) > 1 else 0.0
