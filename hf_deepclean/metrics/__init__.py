# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
The functions of [`evaluation`] where Hugging Face expects metrics: as modules of `evaluate`, which load without a
network, and as `compute_metrics` of a [`~transformers.Trainer`].
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.gaps import per_class_accuracy
from ..evaluation.membership import membership_attack
from ..evaluation.memorization import extraction_strength, is_verbatim, score_tokens


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
    Folder of a metric, to pass to `evaluate.load`.

    Args:
        name (`str`):
            One of `NAMES`.

    Raises:
        `ValueError`: If there is no such metric.
    """
    if name not in NAMES:
        raise ValueError(f"There is no metric {name!r} here; there are {', '.join(NAMES)}.")
    return str(Path(__file__).parent / name)


def load(name: str, **kwargs: Any) -> "EvaluationModule":
    """
    Loads a metric by `evaluate`, offline.

    `load("tug_of_war").compute(predictions=[...], references=[...])`; what a metric takes and gives is in its
    `inputs_description`, what it means in its `description`.

    Args:
        name (`str`):
            One of `NAMES`.
        kwargs (*optional*):
            Passed on to `evaluate.load`, such as `num_process` and `process_id` of a run in several processes.

    Returns:
        `evaluate.EvaluationModule`

    Raises:
        `ImportError`: If evaluate is not installed.
    """
    folder = path(name)
    try:
        import evaluate
    except ModuleNotFoundError as error:
        if error.name != "evaluate":
            raise
        raise ImportError(
            "Metrics as modules need the package evaluate, which is not installed: "
            '`pip install "hf-deepclean[evaluate]"`. The functions behind them, such as '
            "`hf_deepclean.tug_of_war`, do without."
        ) from error
    return evaluate.load(folder, **kwargs)


def compute_per_class_accuracy(prediction: "EvalPrediction") -> dict[str, float]:
    """
    `compute_metrics` of a classifier, of whole examples or tokens: accuracy, and accuracy on every class.

    Args:
        prediction ([`~transformers.EvalPrediction`]):
            Logits, the first where the model gives several outputs, and labels.

    Returns:
        `dict[str, float]`: `"accuracy"`, and `"accuracy_class_0"` and so on.
    """
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return accuracy_figures(np.argmax(logits, axis=-1), prediction.label_ids)


def first_choices(logits: "torch.Tensor | tuple[torch.Tensor, ...]", labels: "torch.Tensor") -> "torch.Tensor":
    """
    `preprocess_logits_for_metrics` for [`compute_memorization`]: keeps of the logits of every token only the largest
    one's number, without which those of a whole data set do not fit into memory.
    """
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(dim=-1)


def compute_memorization(prediction: "EvalPrediction") -> dict[str, float]:
    """
    `compute_metrics` of a causal language model: how much of the texts it can say by heart. Needs [`first_choices`]
    as `preprocess_logits_for_metrics`.

    Args:
        prediction ([`~transformers.EvalPrediction`]):
            The model's first choice at every position, and the labels, -100 where nothing counts.

    Returns:
        `dict[str, float]`: Mean `"extraction_strength"` and share of `"verbatim"` texts; see
            [`evaluation.memorization`].
    """
    # What stands at a position predicts the label of the next one.
    return memorization_figures(prediction.predictions[:, :-1], prediction.label_ids[:, 1:])


def accuracy_figures(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Accuracy, and that on every class, where the reference is not -100."""
    chosen, labels = np.asarray(predictions), np.asarray(references)
    of_classes = per_class_accuracy(chosen, labels)
    counts = [int((labels == label).sum()) for label in of_classes]
    if not counts:
        raise ValueError(f"None of {labels.size} references is a class: there is nothing to be right about.")
    overall = float(np.average(list(of_classes.values()), weights=counts))
    return {"accuracy": overall} | {f"accuracy_class_{label}": value for label, value in of_classes.items()}


def memorization_figures(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """Mean extraction strength and share of verbatim texts, over those with scored tokens."""
    correct, counts = score_tokens(predictions, references)
    if not counts.any():
        raise ValueError(f"None of {len(counts)} texts has a scored token: every reference is -100.")
    return {
        "extraction_strength": float(extraction_strength(correct, counts)[counts > 0].mean()),
        "verbatim": float(is_verbatim(correct, counts)[counts > 0].mean()),
    }


def attack_figures(scores: np.ndarray, references: Sequence[int]) -> dict[str, float]:
    """Figures of a membership attack by scores of examples that are forgotten (1) or unseen (0)."""
    labels = np.asarray(references)
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"The references of a membership attack are 1 for forgotten and 0 for unseen examples, but hold "
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
    """Figures by their places, for functions that take them by their names."""
    return {f"figure {place}": float(figure) for place, figure in enumerate(figures)}


def description_of(function: Callable[..., Any]) -> str:
    """What the docstring of a function says before its arguments: definition, direction, source and pitfalls."""
    return inspect.getdoc(function).split("\n\nArgs:")[0]
