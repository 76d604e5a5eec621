# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The records within a public report."""

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
    A measure on one data set, at every stage.

    Args:
        split (`str`): `"forget"`, `"retain"`, `"unseen"`, `"eval"`, or `"eval 1"` and so on.
        name (`str`): Name of the measure, such as `"accuracy"` or `"membership AUC"`, or of the caller's metric.
        unit (`str`): `"share"` (0 to 1), or `"number"`.
        num_examples (`dict[str, int]`): Number of examples of every data set that is compared; see [`PublicReport`].
        figures (`dict[str, Figure]`): The figures by stage; `STAGES` and `QUANTIZATION_STAGES` list the stages.
    """

    split: str
    name: str
    unit: str
    num_examples: dict[str, int]
    figures: dict[str, Figure]


@dataclass(frozen=True)
class ResetShare:
    """
    How many weights were reset in the modules of one kind and layer.

    Args:
        layer (`str`): Number of the layer, empty outside the layers.
        kind (`str`): Name of the module within its layer, with `*` for further numbers.
        num_selected (`int`): Weights that were reset.
        num_in_scope (`int`): Weights that could be reset.
        share (`float`): `num_selected / num_in_scope`.
    """

    layer: str
    kind: str
    num_selected: int
    num_in_scope: int
    share: float


@dataclass(frozen=True)
class PublicIntegrity:
    """
    The published form of an [`IntegrityResult`].

    Args:
        num_selected_changed (`int`, *optional*): Selected weights that have another value than before; none if
            withheld.
        num_frozen_weights (`int`, *optional*): Weights outside the selection, none of which changed; none if withheld.
        num_buffer_entries (`int`): Entries of buffers, none of which changed.
        frozen_checksum (`str`): SHA-256 over the frozen weights and the buffers.
        num_base_weights (`int`, *optional*): In adapter scope, the number of weights of the base model.
    """

    num_selected_changed: int | None
    num_frozen_weights: int | None
    num_buffer_entries: int
    frozen_checksum: str
    num_base_weights: int | None = None


@dataclass(frozen=True)
class PublicTrial:
    """
    Results at another threshold.

    Args:
        gamma (`float`): The ratio of forget to retain Fisher above which weights were reset.
        share (`float`): Share of the weights in scope that were reset.
        figures (`dict[str, float]`): The measure `PublicReport.trial_measure` after the reset alone, by data set.
    """

    gamma: float
    share: float
    figures: dict[str, float]


@dataclass(frozen=True)
class PublicRelearning:
    """
    How fast a copy of the model learns the forgotten data again.

    Args:
        measure (`str`): The measure on the forgotten data.
        learning_rate (`float`): The learning rate.
        steps (`tuple[int, ...]`): The numbers of steps after which the copy was evaluated.
        curves (`dict[str, tuple[float, ...]]`): The figures of the cleaned model (`after_repair`) and of the
            `reference`.
        excess (`float`, *optional*): How much more the cleaned model recalls than the reference.
        num_forget_examples (`int`, *optional*): At most this many forgotten examples were trained on, if only a few
            were. None otherwise, or if withheld.
    """

    measure: str
    learning_rate: float
    steps: tuple[int, ...]
    curves: dict[str, tuple[float, ...]]
    excess: float | None = None
    num_forget_examples: int | None = None
