# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""How far a model's figures are from those of a reference, a model retrained without the forgotten data."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..data.batches import IGNORED


# As a report names them.
ACCURACIES = ("forget accuracy", "retain accuracy", "eval accuracy")
FIGURES = (*ACCURACIES, "membership AUC")


def per_class_accuracy(predictions: np.ndarray, references: np.ndarray) -> dict[int, float]:
    """
    Share of the examples of every class that are given that class: `mean(prediction = c | label = c)`.

    1: all of them; the target is the reference's value, for a class that was forgotten as a whole about 0. It shows
    what the accuracy over all examples hides: one class that pays for what another one keeps. Of a class with few
    examples it is coarse; classes without examples are left out.

    Args:
        predictions (`np.ndarray`):
            Number of the class the model chooses, for every example or token, of any shape.
        references (`np.ndarray`):
            Number of its true class, of the same shape; where it is -100 nothing is counted.

    Returns:
        `dict[int, float]`: The accuracy on every class among the references, in their order.

    Raises:
        `ValueError`: If the shapes differ.
    """
    chosen, labels = np.asarray(predictions), np.asarray(references)
    if chosen.shape != labels.shape:
        raise ValueError(
            f"The accuracy compares one class with one label, but the predictions have shape {chosen.shape} and the "
            f"references {labels.shape}. Of logits pass the argmax over their last axis."
        )
    return {
        int(label): float((chosen[labels == label] == label).mean()) for label in np.unique(labels[labels != IGNORED])
    }


def accuracy_gaps(
    figures: Mapping[str, float], reference_figures: Mapping[str, float], names: Sequence[str] = FIGURES
) -> dict[str, float]:
    """
    Signed differences to the reference's figures, `100 (figure - reference figure)`, in points.

    0 is the target. Forget accuracy above it: something is left. Below it: more is gone than retraining would have
    taken, which gives the forgotten data away as well. Retain and eval accuracy below it: the cost. A figure of the
    reference varies with the seed of its training, often by more than a point, so compare means over several.

    Args:
        figures (`dict[str, float]`):
            Figures between 0 and 1 by their names, such as those of a stage of a report.
        reference_figures (`dict[str, float]`):
            Those of the reference.
        names (`Sequence[str]`, *optional*, defaults to forget, retain and eval accuracy and membership AUC):
            The figures to compare; others are not looked at.

    Returns:
        `dict[str, float]`: The difference of every figure.

    Raises:
        `ValueError`: If there are no names, or one of the figures is missing or not between 0 and 1.
    """
    if not names:
        raise ValueError("There is no gap between no figures: name at least one in `names`.")
    gaps = {}
    for name in names:
        both = [side.get(name, np.nan) for side in (figures, reference_figures)]
        if not all(0 <= value <= 1 for value in both):
            raise ValueError(
                f"{name!r} is {both[0]} of the model and {both[1]} of the reference, where both must be between 0 and "
                "1, and nan means missing. Pass shares and not percentages, or leave the figure out of `names`."
            )
        gaps[name] = 100 * (both[0] - both[1])
    return gaps


def average_gap(
    figures: Mapping[str, float], reference_figures: Mapping[str, float], names: Sequence[str] = FIGURES
) -> float:
    """
    Average gap: mean absolute difference to the reference's figures, in points.

    0: the reference's figures; lower is better. It looks at averages only: a model may have all of them and still
    answer another way on every single example. The literature puts one minus the forget accuracy in the place of the
    forget accuracy, which changes nothing, and its own attack in the place of the AUC, which does: averages with other
    parts cannot be compared.

    Fan et al., [SalUn](https://huggingface.co/papers/2310.12508), with the AUC of [`membership_attack`] as attack.

    Args:
        figures (`dict[str, float]`):
            Figures between 0 and 1 by their names, such as those of a stage of a report.
        reference_figures (`dict[str, float]`):
            Those of the reference.
        names (`Sequence[str]`, *optional*, defaults to forget, retain and eval accuracy and membership AUC):
            The figures to average over.

    Returns:
        `float`: Between 0 and 100.
    """
    return float(np.mean(np.abs(list(accuracy_gaps(figures, reference_figures, names).values()))))


def tug_of_war(
    accuracies: Mapping[str, float], reference_accuracies: Mapping[str, float], names: Sequence[str] = ACCURACIES
) -> float:
    """
    Tug-of-War: the product over forget, retain and test data of `1 - |accuracy - reference accuracy|`.

    1: the reference's accuracies; higher is better. A method that does well on two and badly on the third is not
    saved by the mean. It looks at accuracies only, and at their size only: forgetting too little and too much count
    the same.

    Zhao et al., [What makes unlearning hard](https://huggingface.co/papers/2406.01257).

    Args:
        accuracies (`dict[str, float]`):
            Accuracies between 0 and 1 by their names, such as those of a stage of a report.
        reference_accuracies (`dict[str, float]`):
            Those of the reference.
        names (`Sequence[str]`, *optional*, defaults to forget, retain and eval accuracy):
            The accuracies to multiply over.

    Returns:
        `float`: Between 0 and 1.
    """
    gaps = accuracy_gaps(accuracies, reference_accuracies, names)
    return float(np.prod([1 - abs(gap) / 100 for gap in gaps.values()]))
