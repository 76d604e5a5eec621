# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The records of a public report."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """
    A published figure.

    Args:
        value (`float`): The value, rounded.
        interval (`tuple[float, float]`, *optional*): Its 95 % interval.
    """

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class PublicMeasure:
    """
    One measure on one data set, at every stage.

    Args:
        split (`str`): `"forget"`, `"retain"`, `"unseen"`, `"eval"`, or `"eval 1"` and so on.
        name (`str`): Such as `"accuracy"` or `"membership AUC"`.
        unit (`str`): `"share"` (0 to 1), or `"number"`.
        num_examples (`dict[str, int]`): Examples of every data set that enters it; see [`PublicReport`].
        figures (`dict[str, Figure]`): The figures by stage, see `STAGES` and `QUANTIZATION_STAGES`.
    """

    split: str
    name: str
    unit: str
    num_examples: dict[str, int]
    figures: dict[str, Figure]


@dataclass(frozen=True)
class ResetShare:
    """
    How much of the modules of one kind in one layer was reset.

    Args:
        layer (`str`): Number of the layer, or empty outside the layers.
        kind (`str`): Name of the module within its layer, with `*` for further numbers.
        num_selected (`int`): Weights that were reset.
        num_in_scope (`int`): Weights that could have been.
        share (`float`): The one divided by the other.
    """

    layer: str
    kind: str
    num_selected: int
    num_in_scope: int
    share: float


@dataclass(frozen=True)
class PublicTrial:
    """
    What another threshold would have done.

    Args:
        gamma (`float`): The ratio of forget to retain Fisher above which weights were reset.
        share (`float`): Share of the weights in scope that this reset.
        figures (`dict[str, float]`): By data set, the measure of `PublicReport.trial_measure` after the reset alone.
    """

    gamma: float
    share: float
    figures: dict[str, float]


@dataclass(frozen=True)
class PublicRelearning:
    """
    How fast the forgotten data are learned again.

    Args:
        measure (`str`): What was measured on them.
        learning_rate (`float`): The rate of the training.
        steps (`tuple[int, ...]`): After how many steps.
        curves (`dict[str, tuple[float, ...]]`): Of the cleaned model (`after_repair`) and of the `reference`.
        excess (`float`, *optional*): How much more of them the cleaned model recalls by it than the reference.
        num_forget_examples (`int`, *optional*): At most so many of them were trained on, if only a few; none if
            withheld.
    """

    measure: str
    learning_rate: float
    steps: tuple[int, ...]
    curves: dict[str, tuple[float, ...]]
    excess: float | None = None
    num_forget_examples: int | None = None
