# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluates a model on all data sets of a run."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction

from ..data.loaders import BatchSource
from ..data.row_errors import locating_errors, name_rows, positions_in
from ..data.streams import is_stream
from ..models.contexts import autocasting
from ..models.likelihood import LogLikelihoodFunction
from ..runtime.clock import PhaseClock
from ..runtime.interruption import Interruption
from ..runtime.processes import gather_objects
from .figures.divergence import jensen_shannon_divergence
from .figures.intervals import mean_interval
from .figures.membership import MembershipAttack, membership_attack
from .metric_values import metric_values
from .predictions import ExamplePredictions, join_predictions, predict_batches
from .results import SplitResult, summarize_predictions
from .samples import SAMPLE_SIZES, drawn_rows
from .stages import RequestResult, StageResult


@dataclass(frozen=True)
class Evaluator:
    """
    Evaluates models on the data sets of a run. It changes neither itself nor the model.

    Args:
        source ([`BatchSource`]):
            Makes the batches.
        splits (`dict[str, Any]`):
            The data sets by name: `"forget"`, `"retain"`, and where given `"eval"` (or `"eval_NAME"`) and `"unseen"`.
        batch_size (`int`):
            Examples per batch and process.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood. By default that of the model's head.
        compute_metrics (`Callable`, *optional*):
            As for [`~transformers.Trainer`].
        preprocess_logits (`Callable`, *optional*):
            As `preprocess_logits_for_metrics` of [`~transformers.Trainer`].
        batch_eval_metrics (`bool`, *optional*, defaults to `False`):
            Whether `compute_metrics` is written for `batch_eval_metrics=True` of
            [`~transformers.TrainingArguments`], so that it takes `compute_result`.
        requests (`dict[str, Sequence[int]]`, *optional*):
            The rows of the forget set by request.
        class_names (`dict[int, str]`, *optional*):
            Names of the classes. By default their numbers.
        in_lockstep (`bool`, *optional*, defaults to `False`):
            Whether the model is sharded, so that all processes must run the same number of batches.
        interruption ([`Interruption`], *optional*):
            Requests to stop, checked between batches.
        clock ([`PhaseClock`], *optional*):
            Times the evaluations.
        reference_log_probabilities (`numpy.ndarray`, *optional*):
            The reference model's log-probabilities on the forget set, shape `(num_examples, num_classes)`. The
            divergence is measured to them.
        autocast_dtype (`torch.dtype`, *optional*):
            The dtype of matrix products in forward passes, as in Trainer's evaluation under autocast. By default the
            model's own precision.
    """

    source: BatchSource
    splits: Mapping[str, Any]
    batch_size: int
    log_likelihood_func: LogLikelihoodFunction | None = None
    compute_metrics: Callable[..., dict[str, float]] | None = None
    preprocess_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    batch_eval_metrics: bool = False
    requests: Mapping[str, Sequence[int]] = field(default_factory=dict)
    class_names: Mapping[int, str] | None = None
    in_lockstep: bool = False
    interruption: Interruption = field(default_factory=Interruption)
    clock: PhaseClock = field(default_factory=PhaseClock)
    reference_log_probabilities: np.ndarray | None = None
    autocast_dtype: torch.dtype | None = None

    def evaluate(self, model: nn.Module) -> StageResult:
        """
        Evaluates a model on all data sets.

        Args:
            model ([`~transformers.PreTrainedModel`]):
                The model.

        Returns:
            [`StageResult`]: With the membership attack of forget against unseen data, if there are unseen data.
        """
        return self._summarize(self._predict_splits(model))

    def compared_with(self, reference_model: nn.Module) -> tuple["Evaluator", StageResult]:
        """
        Evaluates the reference model.

        Args:
            reference_model ([`~transformers.PreTrainedModel`]):
                A model trained without the forget data.

        Returns:
            `tuple[Evaluator, StageResult]`: An evaluator that measures the divergence to the reference model's
            answers, and the reference model's results.
        """
        predictions = self._predict_splits(reference_model)
        result = replace(self, reference_log_probabilities=None)._summarize(predictions)
        return replace(self, reference_log_probabilities=predictions["forget"].log_probabilities), result

    def predict(self, model: nn.Module, dataset: Any, description: str) -> ExamplePredictions:
        """
        Computes the model's answers on a data set. Every process gets all answers, in the order of the data set.

        Args:
            model ([`~transformers.PreTrainedModel`]):
                The model.
            dataset ([`~datasets.Dataset`], map-style or iterable):
                The data set.
            description (`str`):
                Shown beside the progress bar.
        """
        # One place per prediction, because every prediction is of one batch.
        places: list[int | None] = []

        def batches() -> Iterator[Mapping[str, Any]]:
            own = self.source.batches(dataset, self.batch_size, description)
            for place, batch in self._in_lockstep(own, dataset) if self.in_lockstep else own:
                self.interruption.check()
                places.append(place)
                yield batch

        predictions = predict_batches(
            model,
            batches(),
            self.log_likelihood_func,
            self.preprocess_logits,
            keep_logits=self.compute_metrics is not None,
            has_fixed_length=partial(self.source.has_fixed_length, dataset),
        )
        with (
            locating_errors(lambda: self._rows_of(places, dataset, description)),
            autocasting(model, self.autocast_dtype),
        ):
            own = list(predictions)
        shares = gather_objects([pair for pair in zip(places, own, strict=True) if pair[0] is not None])
        return join_predictions([part for _, part in sorted(chain.from_iterable(shares), key=lambda pair: pair[0])])

    def _rows_of(self, places: Sequence[int | None], dataset: Any, description: str) -> str | None:
        """Names the rows of the last batch that was read, if it has a place."""
        if not places or places[-1] is None:
            return None
        first = places[-1] * self.batch_size
        end = first + self.batch_size if is_stream(dataset) else min(first + self.batch_size, len(dataset))
        return name_rows(positions_in(dataset, range(first, end)), self.source.name_of(dataset, description))

    def metrics_of(self, predictions: ExamplePredictions) -> dict[str, float]:
        """
        Computes the caller's metrics.

        Args:
            predictions ([`ExamplePredictions`]):
                The model's answers on a data set, with their logits.

        Raises:
            `TypeError`: If `compute_metrics` does not return one number per metric.
        """
        if self.compute_metrics is None:
            return {}
        arguments = {"compute_result": True} if self.batch_eval_metrics else {}
        outcome = EvalPrediction(predictions=predictions.logits, label_ids=predictions.labels)
        return metric_values(self.compute_metrics(outcome, **arguments))

    def _predict_splits(self, model: nn.Module) -> dict[str, ExamplePredictions]:
        with self.clock.phase("evaluation"):
            return {split: self.predict(model, dataset, f"evaluate {split}") for split, dataset in self.splits.items()}

    def _summarize(self, predictions: Mapping[str, ExamplePredictions]) -> StageResult:
        forget, unseen = predictions["forget"], predictions.get("unseen")
        if self.requests and len(forget.log_likelihood) != len(self.splits["forget"]):
            raise ValueError(
                f"`forget_dataset` has {len(self.splits['forget'])} rows, and its batches have "
                f"{len(forget.log_likelihood)} examples, so `requests` do not tell which are theirs. Pass a "
                "`data_collator` that makes one example of every row."
            )
        of_requests = {name: forget.select(rows) for name, rows in self.requests.items()}
        splits = {split: self._summarize_split(answers) for split, answers in predictions.items()}
        requests = {name: self._summarize_request(answers, unseen) for name, answers in of_requests.items()}
        return replace(
            self._with_attacks(splits, predictions), requests=requests, sample=self._summarize_sample(predictions)
        )

    def _summarize_sample(self, predictions: Mapping[str, ExamplePredictions]) -> StageResult:
        """The results of the rows drawn for publication, without the caller's metrics."""
        rows = {split: drawn_rows(split, predictions[split]) for split in SAMPLE_SIZES if split in predictions}
        drawn = {split: predictions[split].select(chosen) for split, chosen in rows.items()}
        splits = {split: summarize_predictions(answers, self.class_names) for split, answers in drawn.items()}
        return self._with_attacks(splits, {**predictions, **drawn}, rows["forget"])

    def _with_attacks(
        self,
        splits: dict[str, SplitResult],
        predictions: Mapping[str, ExamplePredictions],
        rows: np.ndarray | None = None,
    ) -> StageResult:
        """Adds what compares the forget data with unseen data, and their answers with those of the reference model."""
        forget = predictions["forget"]
        membership, min_k_membership = _attack(forget, predictions.get("unseen"))
        divergence, divergence_interval = self._divergence(forget, rows)
        return StageResult(splits, membership, divergence, min_k_membership, divergence_interval=divergence_interval)

    def _summarize_request(self, predictions: ExamplePredictions, unseen: ExamplePredictions | None) -> RequestResult:
        drawn = predictions.select(drawn_rows("forget", predictions))
        few_unseen = None if unseen is None else unseen.select(drawn_rows("unseen", unseen))
        sample = RequestResult(summarize_predictions(drawn, self.class_names), *_attack(drawn, few_unseen))
        return RequestResult(self._summarize_split(predictions), *_attack(predictions, unseen), sample)

    def _summarize_split(self, predictions: ExamplePredictions) -> SplitResult:
        return summarize_predictions(predictions, self.class_names, self.metrics_of(predictions))

    def _divergence(
        self, forget: ExamplePredictions, rows: np.ndarray | None
    ) -> tuple[float | None, tuple[float, float] | None]:
        """The mean divergence to the reference model's answers on the forget set or rows of it, and its interval."""
        if self.reference_log_probabilities is None or forget.log_probabilities is None:
            return None, None
        reference = self.reference_log_probabilities
        divergences = jensen_shannon_divergence(
            forget.log_probabilities, reference if rows is None else reference[rows]
        )
        return float(divergences.mean()), mean_interval(divergences, (0.0, math.log(2)))

    def _in_lockstep(
        self, batches: Iterator[tuple[int, Mapping[str, Any]]], dataset: Any
    ) -> Iterator[tuple[int | None, Mapping[str, Any]]]:
        """Yields equally many batches in every process. Batches without a place only fill up, and do not count."""
        _, spare = next(self.source.batches(dataset, 1, in_turns=False))
        while True:
            place, batch = next(batches, (None, spare))
            self.interruption.share(gather_objects)
            if all(other is None for other in gather_objects(place)):
                return
            yield place, batch


def _attack(
    forget: ExamplePredictions, unseen: ExamplePredictions | None
) -> tuple[MembershipAttack | None, MembershipAttack | None]:
    """Attacks by the likelihood, and by the least probable tokens. Without unseen data both results are `None`."""
    if unseen is None:
        return None, None
    by_tokens = None
    if forget.tokens is not None:
        by_tokens = membership_attack(forget.min_k_confidence(), unseen.min_k_confidence())
    return membership_attack(forget.confidence(), unseen.confidence()), by_tokens
