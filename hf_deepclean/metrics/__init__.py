# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The functions of [`evaluation.figures`] as metrics: as modules of `evaluate`, which load without a network, and as
`compute_metrics` of a [`~transformers.Trainer`].
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.figures.gaps import per_class_accuracy
from ..evaluation.figures.membership import membership_attack
from ..evaluation.figures.memorization import extraction_strength, is_verbatim, score_tokens


if TYPE_CHECKING:
    import torch
    from evaluate import EvaluationModule
    from transformers import EvalPrediction

NAMES = (
    "average_gap",
    "extraction_strength",
    "jensen_shannon_divergence",
    "klom",
    "lira",
    "membership_attack",
    "per_class_accuracy",
    "rmia",
    "tug_of_war",
    "verbatim",
)


def path(name: str) -> str:
    """
    The folder of a metric, which `evaluate.load` accepts.

    Args:
        name (`str`):
            One of `NAMES`.

    Returns:
        `str`: Path of the folder.

    Raises:
        `ValueError`: If there is no such metric.
    """
    if name not in NAMES:
        raise ValueError(f"There is no metric {name!r} here; there are {', '.join(NAMES)}.")
    return str(Path(__file__).parent / name)


def load(name: str, **kwargs: Any) -> "EvaluationModule":
    """
    Loads a metric with `evaluate`, offline.

    Its `description` says what the metric means, its `inputs_description` what it takes and returns.

    Args:
        name (`str`):
            One of `NAMES`.
        kwargs (*optional*):
            Passed to `evaluate.load`, for example `num_process` and `process_id` in a run of several processes.

    Returns:
        `evaluate.EvaluationModule`: The metric.

    Raises:
        `ValueError`: If there is no such metric.
        `ImportError`: If evaluate is not installed.

    Example:

    ```python
    >>> load("tug_of_war").compute(predictions=[0.5, 1.0, 0.9], references=[0.5, 1.0, 1.0])
    {'tug_of_war': 0.9}
    ```
    """
    folder = path(name)
    try:
        import evaluate
    except ModuleNotFoundError as error:
        if error.name != "evaluate":
            raise
        raise ImportError(
            "Metrics as modules need the package evaluate, which is not installed. Run "
            '`pip install "hf-deepclean[evaluate]"`, or use the functions behind the metrics, such as '
            "`hf_deepclean.tug_of_war`."
        ) from error
    return evaluate.load(folder, **kwargs)


def compute_per_class_accuracy(prediction: "EvalPrediction") -> dict[str, float]:
    """
    `compute_metrics` for a classifier of examples or of tokens: the accuracy, overall and for every class.

    Args:
        prediction ([`~transformers.EvalPrediction`]):
            The logits, which are the first output if the model has several, and the labels.

    Returns:
        `dict[str, float]`: `"accuracy"`, `"accuracy_class_0"` and so on.
    """
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return accuracy_figures(np.argmax(logits, axis=-1), prediction.label_ids)


def first_choices(logits: "torch.Tensor | tuple[torch.Tensor, ...]", labels: "torch.Tensor") -> "torch.Tensor":
    """
    `preprocess_logits_for_metrics` for [`compute_memorization`]: reduces the logits of every token to the index of the
    largest, because the logits of a whole data set do not fit into memory.
    """
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(dim=-1)


def compute_memorization(prediction: "EvalPrediction") -> dict[str, float]:
    """
    `compute_metrics` for a causal language model: how much of the texts it knows by heart. Requires [`first_choices`]
    as `preprocess_logits_for_metrics`.

    Args:
        prediction ([`~transformers.EvalPrediction`]):
            The model's first choice at every position, and the labels, of which -100 is not scored.

    Returns:
        `dict[str, float]`: The mean `"extraction_strength"` and the share of `"verbatim"` texts, see
            [`evaluation.figures.memorization`].
    """
    # The choice at a position predicts the label at the next position.
    return memorization_figures(prediction.predictions[:, :-1], prediction.label_ids[:, 1:])


def accuracy_figures(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """The accuracy, overall and for every class. References of -100 are not counted."""
    chosen, labels = np.asarray(predictions), np.asarray(references)
    of_classes = per_class_accuracy(chosen, labels)
    counts = [int((labels == label).sum()) for label in of_classes]
    if not counts:
        raise ValueError(f"None of the {labels.size} references is a class, so there is no accuracy.")
    overall = float(np.average(list(of_classes.values()), weights=counts))
    return {"accuracy": overall} | {f"accuracy_class_{label}": value for label, value in of_classes.items()}


def memorization_figures(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """The mean extraction strength and the share of verbatim texts, over texts with scored tokens."""
    correct, counts = score_tokens(predictions, references)
    if not counts.any():
        raise ValueError(f"None of the {len(counts)} texts has a scored token, because every reference is -100.")
    return {
        "extraction_strength": float(extraction_strength(correct, counts)[counts > 0].mean()),
        "verbatim": float(is_verbatim(correct, counts)[counts > 0].mean()),
    }


def attack_figures(scores: np.ndarray, references: Sequence[int]) -> dict[str, float]:
    """The figures of a membership attack, from scores of examples that are forgotten (1) or unseen (0)."""
    labels = np.asarray(references)
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"The references of a membership attack must be 1 for forgotten and 0 for unseen examples, but hold "
            f"{sorted(set(labels.tolist()) - {0, 1})[:5]}."
        )
    values = np.asarray(scores, dtype=np.float64)
    attack = membership_attack(values[labels == 1], values[labels == 0])
    return {
        "auc": attack.auc,
        "auc_low": attack.auc_interval[0],
        "auc_high": attack.auc_interval[1],
        "tpr_at_1_percent_fpr": attack.tpr_at_1_percent_fpr,
    }


def numbered(figures: Sequence[float]) -> dict[str, float]:
    """Numbers the figures, for functions that take figures by name."""
    return {f"figure {place}": float(figure) for place, figure in enumerate(figures)}


def description_of(function: Callable[..., Any]) -> str:
    """The docstring of a function up to its arguments: definition, direction, source and pitfalls."""
    return inspect.getdoc(function).split("\n\nArgs:")[0]
