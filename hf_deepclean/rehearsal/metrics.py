# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tries the caller's metrics on a few rows, without mistaking too few rows for an error."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import EarlyStoppingCallback, TrainingArguments

from ..data.streams import is_stream
from ..evaluation.evaluator import Evaluator
from ..evaluation.predictions import ExamplePredictions, join_predictions, predict_batches
from ..runtime.processes import is_main_process
from .errors import explained, same_kind


logger = logging.getLogger(__name__)

# Errors of the function itself. Any other may be due to rows that lack a class, for example.
_MISTAKES = (TypeError, AttributeError, NameError, ImportError, NotImplementedError)

# A function that fails on a few rows is tried again on this many.
_MORE_ROWS = 64

_REMEDY = "Make it return nan for what rows that are few or of one class do not show."

# The measures that Trainer adds to those of the caller.
_OF_TRAINER = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def try_metrics(
    evaluator: Evaluator, model: nn.Module, split: str, predictions: ExamplePredictions
) -> dict[str, float] | None:
    """
    Tries `compute_metrics` on the answers to a few rows of a data set.

    If it fails, and not by a mistake that any rows would show, it is tried again on more rows. If these are all rows
    of the data set, the run is refused. Else a warning says that the run may end there.

    Args:
        evaluator ([`Evaluator`]):
            The evaluator of the run.
        model ([`~transformers.PreTrainedModel`]):
            The model.
        split (`str`):
            Name of the data set.
        predictions ([`ExamplePredictions`]):
            The model's answers to a few rows.

    Returns:
        `dict[str, float]`, *optional*: The metrics, or `None` if there are none on so few rows.
    """
    if evaluator.compute_metrics is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with explained(f"`compute_metrics` on {len(predictions.labels)} rows of `{split}_dataset`"):
                return evaluator.metrics_of(predictions)
        except _MISTAKES:
            raise
        except Exception as error:
            failure = error.__cause__ or error
        dataset = evaluator.splits[split]
        is_whole = not is_stream(dataset) and len(dataset) <= _MORE_ROWS
        if not is_stream(dataset):
            more = _predict(evaluator, model, dataset)
            try:
                with explained(f"`compute_metrics` on {len(more.labels)} rows of `{split}_dataset`"):
                    return evaluator.metrics_of(more)
            except _MISTAKES:
                raise
            except Exception as error:
                if is_whole:
                    raise same_kind(error, f"{error} {_REMEDY}") from error.__cause__
                failure = error.__cause__ or error
    if is_main_process():
        logger.warning(
            f"`compute_metrics` failed on some rows of `{split}_dataset` ({type(failure).__name__}: {failure}). If it "
            f"fails on all of them too, the run will end in its first evaluation. {_REMEDY}"
        )
    return None


def _predict(evaluator: Evaluator, model: nn.Module, dataset: Any) -> ExamplePredictions:
    rows = evaluator.source.sample(dataset, _MORE_ROWS)
    batches = (batch for _, batch in evaluator.source.batches(rows, evaluator.batch_size, in_turns=False))
    predictions = predict_batches(model, batches, evaluator.log_likelihood_func, evaluator.preprocess_logits)
    return join_predictions(list(predictions))


def check_best_metric(args: TrainingArguments, metrics: Mapping[str, Mapping[str, float] | None]) -> None:
    """
    Refuses a `metric_for_best_model` that the evaluations of the repair do not give.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The arguments of the repair.
        metrics (`dict[str, dict[str, float]]`):
            The metrics of every evaluation data set; `None` where they are not known.

    Raises:
        `ValueError`: If there is no such metric.
    """
    wanted = args.metric_for_best_model
    if str(args.eval_strategy.value) == "no" or wanted is None or not metrics or None in metrics.values():
        return
    wanted = wanted if wanted.startswith("eval_") else f"eval_{wanted}"
    found = [
        name if name.startswith(f"{split}_") else f"{split}_{name}"
        for split, values in metrics.items()
        for name in (*values, *_OF_TRAINER)
    ]
    if wanted not in found:
        own = [name for name in found if not name.endswith(_OF_TRAINER[1:])]
        raise ValueError(
            f"`metric_for_best_model={args.metric_for_best_model!r}` is none of the measures that the evaluations of "
            f"the repair give: {', '.join(own)}. Name one of them, or leave it out."
        )


def check_early_stopping(args: TrainingArguments, callbacks: list[Any]) -> None:
    """
    Refuses an [`~transformers.EarlyStoppingCallback`] in a repair that is not evaluated, or by no metric.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The arguments of the repair.
        callbacks (`list`):
            The callbacks of the repair.

    Raises:
        `ValueError`: If there is one.
    """
    is_evaluated = str(args.eval_strategy.value) != "no"
    if any(isinstance(one, EarlyStoppingCallback) for one in callbacks) and not (
        is_evaluated and args.metric_for_best_model is not None
    ):
        missing = "`metric_for_best_model`" if is_evaluated else "`eval_strategy`"
        raise ValueError(
            f"The `EarlyStoppingCallback` compares evaluations of the repair, and {missing} is not set. Set it, or "
            "leave the callback out."
        )
