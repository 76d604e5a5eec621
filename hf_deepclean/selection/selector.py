# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Selects the weights to reset, by a rule or by trials, with or without a kept Fisher."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from torch import nn

from ..evaluation.evaluator import Evaluator
from ..evaluation.predictions import ExamplePredictions
from ..evaluation.results import summarize_predictions
from ..evaluation.stages import StageResult
from ..fisher.diagonal import FisherDiagonal
from ..runtime.clock import PhaseClock
from ..runtime.processes import on_main_process, run_once
from .knowledge import target_of_request
from .largest import LargestRatios
from .rules import select_weights
from .search import SelectionSearch, is_small_request, search_selection
from .subtraction import KeptFisherResult, cancellation_error
from .weight_selection import WeightSelection


# Resets the weights of a selection, calls the function to evaluate the model, and undoes the reset.
TryReset = Callable[[WeightSelection, Callable[[], Any]], Any]


@dataclass(frozen=True)
class ChosenWeights:
    """
    The weights to reset, and the Fishers that they were selected by.

    Args:
        selection ([`WeightSelection`]):
            The weights.
        search ([`SelectionSearch`], *optional*):
            The record of the trials, if the rule was `"auto"`.
        forget, retain ([`FisherDiagonal`]):
            The Fishers of the forget and of the retain set.
        kept_fisher ([`KeptFisherResult`], *optional*):
            How the kept Fisher was used, if there was one.
    """

    selection: WeightSelection
    search: SelectionSearch | None
    forget: FisherDiagonal
    retain: FisherDiagonal
    kept_fisher: KeptFisherResult | None = None


@dataclass(frozen=True)
class WeightSelector:
    """
    Selects the weights to reset.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, on which the rule `"auto"` tries resets.
        rule (`str`):
            `"auto"`, or a rule of [`select_weights`].
        gamma, reset_fraction (`float`, *optional*):
            As for [`select_weights`].
        forget_share (`float`, *optional*):
            The forget set's share of all training data, for the rule `"adaptive"`.
        target (`str`, *optional*):
            What the forget data should look like afterwards. By default it follows from their classes.
        num_trials (`int`):
            Number of trials of the rule `"auto"`.
        num_trial_examples (`int`):
            At most this many forget and retain examples are evaluated in a trial.
        max_unseen_examples (`int`):
            At most this many unseen examples are evaluated, once, before the trials.
        num_repair_steps (`int`):
            Number of optimizer steps of the repair.
        is_adapter (`bool`):
            Whether only an adapter is in scope.
        is_sharded (`bool`):
            Whether the model is sharded over several processes.
        clock ([`PhaseClock`], *optional*):
            Times the selection.
        takes_all (`bool`, *optional*, defaults to `False`):
            Whether the rule `"auto"` selects all weights that matter to the forget data, without trials, since the
            reset moves each of them as far as its ratio of the Fishers allows.
        is_rewound (`bool`, *optional*, defaults to `False`):
            Whether the weights are reset to the checkpoint before fine-tuning; see [`search_selection`].
    """

    model: nn.Module
    rule: str
    gamma: float | None
    reset_fraction: float | None
    forget_share: float | None
    target: str | None
    num_trials: int
    num_trial_examples: int
    max_unseen_examples: int
    num_repair_steps: int
    is_adapter: bool
    is_sharded: bool
    clock: PhaseClock = field(default_factory=PhaseClock)
    takes_all: bool = False
    is_rewound: bool = False

    def select(
        self,
        forget: FisherDiagonal,
        retain: FisherDiagonal,
        evaluator: Evaluator,
        try_reset: TryReset,
        before: StageResult | None = None,
    ) -> tuple[WeightSelection, SelectionSearch | None]:
        """
        Selects the weights by two Fishers. The model is afterwards what it was.

        Args:
            forget, retain ([`FisherDiagonal`]):
                The Fishers of the forget and of the retain set.
            evaluator ([`Evaluator`]):
                Evaluates the trials on samples of its data sets.
            try_reset (`Callable`):
                See [`Resetter.try_reset`].
            before ([`StageResult`], *optional*):
                The results of the model before any reset, which show the classes of all examples. By default the
                classes of the samples count.

        Returns:
            `tuple[WeightSelection, SelectionSearch]`: The weights, and the record of the trials (`None` if there were
                no trials).
        """
        with self.clock.phase("selection"):
            if self.takes_all:
                largest = LargestRatios(forget, retain)
                return largest.select(largest.num_candidates), None
            if self.rule == "auto":
                return self._search(forget, retain, evaluator, try_reset, before)
            values = {
                "gamma": self.gamma,
                "reset_fraction": self.reset_fraction,
                "forget_share": self.forget_share,
            }
            selection = run_once(
                lambda: select_weights(forget, retain, self.rule, **values), is_sharded=self.is_sharded
            )
            return selection, None

    def compute_and_select(
        self,
        compute_fisher: Callable[[str], FisherDiagonal],
        evaluator: Evaluator,
        try_reset: TryReset,
        before: StageResult | None = None,
        kept: FisherDiagonal | None = None,
    ) -> ChosenWeights:
        """
        Computes both Fishers and selects the weights. If there is a kept Fisher of all training data, the retain
        Fisher is computed by subtraction, unless rounding could change the selection.

        Args:
            compute_fisher (`Callable`):
                Called with `"forget"` or `"retain"`. Returns the Fisher of that data set.
            evaluator, try_reset, before:
                As for [`WeightSelector.select`].
            kept ([`FisherDiagonal`], *optional*):
                The Fisher of all training data.

        Returns:
            [`ChosenWeights`]
        """
        forget, result = compute_fisher("forget"), None
        if kept is not None:
            retain = kept - forget
            selection, search = self.select(forget, retain, evaluator, try_reset, before)
            error = on_main_process(lambda: cancellation_error(kept, forget, selection))
            result = KeptFisherResult(kept.num_examples, error, error.matters, kept.refresh_cost())
        if result is None or result.retain_pass:
            retain = compute_fisher("retain")
            selection, search = self.select(forget, retain, evaluator, try_reset, before)
        return ChosenWeights(selection, search, forget, retain, result)

    def _search(
        self,
        forget: FisherDiagonal,
        retain: FisherDiagonal,
        evaluator: Evaluator,
        try_reset: TryReset,
        before: StageResult | None,
    ) -> tuple[WeightSelection, SelectionSearch]:
        evaluator = replace(evaluator, compute_metrics=None)
        source, splits = evaluator.source, evaluator.splits
        samples = {split: source.sample(splits[split], self.num_trial_examples) for split in ("forget", "retain")}

        def predict() -> dict[str, ExamplePredictions]:
            return {split: evaluator.predict(self.model, rows, f"try on {split}") for split, rows in samples.items()}

        @cache
        def largest() -> LargestRatios:
            return LargestRatios(forget, retain)

        def select(number: int) -> WeightSelection:
            return run_once(lambda: largest().select(number), is_sharded=self.is_sharded)

        def evaluate(selection: WeightSelection) -> dict[str, ExamplePredictions]:
            # Without a reset value the weights stay, and so do the answers.
            found = try_reset(selection, predict)
            return as_it_is if found is None else found

        number = run_once(lambda: largest().num_candidates, is_sharded=self.is_sharded)
        as_it_is = predict()
        if before is None:
            results = {split: summarize_predictions(answers) for split, answers in as_it_is.items()}
        else:
            results = before.splits
        target = self.target or target_of_request(results["forget"].per_class, results["retain"].per_class)
        unseen = base = None
        if "unseen" in splits:
            rows = source.sample(splits["unseen"], self.max_unseen_examples)
            unseen = evaluator.predict(self.model, rows, "try on unseen")
        if self.is_adapter:
            base = evaluate(select(number))["retain"]
        return search_selection(
            number,
            select,
            as_it_is,
            evaluate,
            target,
            num_trials=self.num_trials,
            num_repair_steps=self.num_repair_steps,
            unseen=unseen,
            base=base,
            is_small=is_small_request(splits["forget"]),
            is_rewound=self.is_rewound,
        )
