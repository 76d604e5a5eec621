# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Compares the figures of a model with those of a reference: a model retrained without the forget data."""

from collections.abc import Mapping, Sequence

import numpy as np

from ...data.batches import IGNORED


# The names that reports use.
ACCURACIES = ("forget accuracy", "retain accuracy", "eval accuracy")
FIGURES = (*ACCURACIES, "membership AUC")


def per_class_accuracy(predictions: np.ndarray, references: np.ndarray) -> dict[int, float]:
    """
    Computes the accuracy on every class: `mean(prediction = c | label = c)`.

    The target is the reference's value, which is about 0 for a class that was forgotten as a whole. The figure shows
    what the accuracy over all examples hides: that one class loses what another class keeps. It is coarse for a class
    with few examples. Classes without examples are left out.

    Args:
        predictions (`np.ndarray`):
            Index of the class that the model chooses, for every example or token, of any shape.
        references (`np.ndarray`):
            Index of the true class, of the same shape. Entries of -100 are not counted.

    Returns:
        `dict[int, float]`: The accuracy on every class among the references, between 0 and 1, in the order of the
            classes.

    Raises:
        `ValueError`: If the shapes differ.
    """
    chosen, labels = np.asarray(predictions), np.asarray(references)
    if chosen.shape != labels.shape:
        raise ValueError(
            f"The accuracy compares one class with one label, but the predictions have shape {chosen.shape} and the "
            f"references {labels.shape}. If you have logits, pass their argmax over the last axis."
        )
    return {
        int(label): float((chosen[labels == label] == label).mean()) for label in np.unique(labels[labels != IGNORED])
    }


def accuracy_gaps(
    figures: Mapping[str, float], reference_figures: Mapping[str, float], names: Sequence[str] = FIGURES
) -> dict[str, float]:
    """
    Computes the signed differences to the reference's figures, `100 (figure - reference figure)`, in points.

    The target is 0. A forget accuracy above the reference's means that something is left. Below it, more is gone than
    retraining would have removed, which gives the forget data away as well. Retain and eval accuracy below the
    reference's are the cost. The reference's figures vary with the seed of its training, often by more than a point,
    so compare means over several seeds.

    Args:
        figures (`dict[str, float]`):
            Figures between 0 and 1 by name, such as those of a stage of a report.
        reference_figures (`dict[str, float]`):
            Figures of the reference by name.
        names (`Sequence[str]`, *optional*, defaults to forget, retain and eval accuracy and membership AUC):
            Names of the figures to compare.

    Returns:
        `dict[str, float]`: The difference of every figure, in points.

    Raises:
        `ValueError`: If there are no names, or if a figure is missing or not between 0 and 1.
    """
    if not names:
        raise ValueError("`names` is empty, so there is no figure to compare. Name at least one.")
    gaps = {}
    for name in names:
        both = [side.get(name, np.nan) for side in (figures, reference_figures)]
        if not all(0 <= value <= 1 for value in both):
            raise ValueError(
                f"{name!r} is {both[0]} of the model and {both[1]} of the reference (nan: missing), but both must be "
                "between 0 and 1. Pass shares, not percentages, or leave the figure out of `names`."
            )
        gaps[name] = 100 * (both[0] - both[1])
    return gaps


def average_gap(
    figures: Mapping[str, float], reference_figures: Mapping[str, float], names: Sequence[str] = FIGURES
) -> float:
    """
    Computes the average gap: the mean absolute difference to the reference's figures, in points.

    Lower is better, and 0 means the reference's figures. The gap compares averages only: a model with a gap of 0 may
    still answer every single example differently. The literature uses one minus the forget accuracy instead of the
    forget accuracy, which changes nothing. It also uses other attacks instead of the AUC, and gaps over different
    figures cannot be compared.

    Fan et al., [SalUn](https://huggingface.co/papers/2310.12508), with the AUC of [`membership_attack`] as attack.

    Args:
        figures (`dict[str, float]`):
            Figures between 0 and 1 by name, such as those of a stage of a report.
        reference_figures (`dict[str, float]`):
            Figures of the reference by name.
        names (`Sequence[str]`, *optional*, defaults to forget, retain and eval accuracy and membership AUC):
            Names of the figures to average over.

    Returns:
        `float`: Between 0 and 100.
    """
    return float(np.mean(np.abs(list(accuracy_gaps(figures, reference_figures, names).values()))))


def tug_of_war(
    accuracies: Mapping[str, float], reference_accuracies: Mapping[str, float], names: Sequence[str] = ACCURACIES
) -> float:
    """
    Computes Tug-of-War: the product over forget, retain and test data of `1 - |accuracy - reference accuracy|`.

    Higher is better, and 1 means the reference's accuracies. Unlike a mean, the product is low if one of the three is
    bad. It compares accuracies only, and only the size of their differences: forgetting too little counts the same as
    forgetting too much.

    Zhao et al., [What makes unlearning hard](https://huggingface.co/papers/2406.01257).

    Args:
        accuracies (`dict[str, float]`):
            Accuracies between 0 and 1 by name, such as those of a stage of a report.
        reference_accuracies (`dict[str, float]`):
            Accuracies of the reference by name.
        names (`Sequence[str]`, *optional*, defaults to forget, retain and eval accuracy):
            Names of the accuracies to multiply over.

    Returns:
        `float`: Between 0 and 1.
    """
    gaps = accuracy_gaps(accuracies, reference_accuracies, names)
    return float(np.prod([1 - abs(gap) / 100 for gap in gaps.values()]))
