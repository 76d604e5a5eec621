# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""One typed record of an unlearning run; the console table, the JSON file and the plots are all rendered from it."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..evaluation.measures import (
    ACCURACIES,
    ACCURACY,
    EXACT_MATCHES,
    MEAN_LOSS,
    VERBATIM,
    estimate_of,
    measure_of_figure,
    recall_measure,
)
from ..evaluation.recovery import RELEARNING_DATA, RelearningResult
from ..evaluation.stages import AFTER_REPAIR, BEFORE, QUANTIZATION_STAGES, REFERENCE, STAGES, StageResult
from ..selection.knowledge import knowledge_of_loss
from ..selection.search import SelectionSearch
from ..selection.subtraction import KeptFisherResult
from ..selection.sweep import GammaTrial
from .json_record import JsonRecord
from .provenance import Provenance
from .results import IntegrityResult, SelectionResult
from .tables import console_table, format_figure


REPORT_NAME = "report.json"

# After the repair the retained data may be known by as much less than before without a warning.
MAX_RETAIN_DROP = 0.02

# Classes per data set in the console table.
_MAX_CLASSES = 12

# The measures that are shown of a trial, and those if it has none of them.
_OF_TRIALS = (*ACCURACIES, *EXACT_MATCHES)
_OF_TRIALS_WITHOUT = (MEAN_LOSS,)


@dataclass(frozen=True)
class UnlearningReport(JsonRecord):
    """
    Everything an unlearning run measured.

    Args:
        model_class (`str`): Class of the model.
        settings (`dict[str, Any]`): The unlearning and repair settings that were used.
        selection ([`SelectionResult`]): Which weights were reset.
        fisher_fallback (`dict[str, str]`): Parameters without a batched rule, with the reason; exact all the same.
        num_fisher_examples (`dict[str, int]`): Examples in the forget and in the retain Fisher.
        stages (`dict[str, StageResult]`): Results by stage, see `STAGES` and `QUANTIZATION_STAGES`.
        integrity ([`IntegrityResult`]): What changed and what did not.
        seconds (`dict[str, float]`): Wall-clock seconds per phase.
        versions (`dict[str, str]`): Versions of the libraries.
        seed (`int`): The seed.
        kept_fisher ([`KeptFisherResult`], *optional*): How a kept Fisher served the run, if there was one.
        provenance ([`Provenance`]): Where the model from before comes from.
        gamma_trials (`tuple[GammaTrial, ...]`): What other thresholds would do, if that was asked for.
        relearning ([`RelearningResult`], *optional*): How fast the forget data come back by training on them, if that
            was asked for.
        further_relearning (`dict[str, RelearningResult]`): The same by training on other data, see `RELEARNING_DATA`.
        search ([`SelectionSearch`], *optional*): How the selection came about, if it was `"auto"`.
    """

    model_class: str
    settings: dict[str, Any]
    selection: SelectionResult
    num_fisher_examples: dict[str, int]
    stages: dict[str, StageResult]
    integrity: IntegrityResult
    seconds: dict[str, float]
    versions: dict[str, str]
    seed: int
    fisher_fallback: dict[str, str] = field(default_factory=dict)
    kept_fisher: KeptFisherResult | None = None
    provenance: Provenance = Provenance()
    gamma_trials: tuple[GammaTrial, ...] = ()
    relearning: RelearningResult | None = None
    further_relearning: dict[str, RelearningResult] = field(default_factory=dict)
    search: SelectionSearch | None = None

    def relearning_by_data(self) -> dict[str, RelearningResult]:
        """All measurements of relearning by the data that were trained on."""
        own = {} if self.relearning is None else {"forget": self.relearning}
        return own | self.further_relearning

    def of_request(self, name: str) -> "UnlearningReport":
        """
        The report on one of several requests that were answered together: the same run, with that request's rows as
        the forget data in all figures. Relearning is measured for all of them together, and left out.

        Args:
            name (`str`):
                Name of the request.

        Raises:
            `ValueError`: If there is no such request.
        """
        known = list(self.stages[BEFORE].requests)
        if name not in known:
            raise ValueError(f"There is no request {name!r}. Those of this run are {', '.join(known) or 'not named'}.")
        return replace(
            self,
            stages={stage: result.of_request(name) for stage, result in self.stages.items()},
            gamma_trials=tuple(trial.of_request(name) for trial in self.gamma_trials),
            relearning=None,
            further_relearning={},
        )

    def gaps_to_reference(self, stage: str) -> dict[str, float]:
        """
        Every figure of a stage minus that of the reference model; 0 is the target of all of them.

        Raises:
            `ValueError`: If the run had no reference model.
        """
        if REFERENCE not in self.stages:
            raise ValueError(
                "This run had no reference model. Pass `reference_model`, retrained without the forget data."
            )
        reference = self.stages[REFERENCE].figures()
        return {
            name: value - reference[name] for name, value in self.stages[stage].figures().items() if name in reference
        }

    def forget_penalty(self) -> float:
        """The weight of the [`~penalty.ForgetPenalty`] that the repair had; 0 where nothing called for one."""
        if self.search is None or self.search.unseen_losses is None:
            return 0.0
        return self.settings.get("forget_penalty", 0.0)

    def shortfalls(self) -> list[str]:
        """
        What the run has not reached, in words for its owner: retained data that the repair did not bring back, and a
        target of the selection `"auto"` that was not met. Empty if there is nothing to say.
        """
        before, after = self.stages[BEFORE], self.stages[AFTER_REPAIR]
        found = []
        measure, known_before, known_now = _retained(before, after)
        if known_before - known_now > MAX_RETAIN_DROP:
            found.append(
                f"The repair did not bring the retained data back: {measure} {100 * known_before:.1f} % before, "
                f"{100 * known_now:.1f} % now. Repair longer (`num_train_epochs`) or at another `learning_rate` (that "
                "of few weights may be several times the one of the model's training), or set a smaller "
                "`reset_fraction`."
            )
        if self.search is None:
            return found
        forget, membership = after.splits["forget"], after.membership
        if self.search.target == "chance" and forget.accuracy is not None:
            num_classes = len(before.splits["retain"].per_class.keys() | before.splits["forget"].per_class.keys())
            if forget.accuracy_interval[0] > 1 / num_classes:
                found.append(
                    f"The target 'chance' was not reached: {100 * forget.accuracy:.1f} % of the forget examples are "
                    f"still recognised, where chance is {100 / num_classes:.1f} %."
                )
        if self.search.target == "unseen" and membership is not None and membership.auc_interval[0] > 0.5:
            found.append(
                "The target 'unseen' was not reached: the forget examples can be told from unseen ones, with a "
                f"membership AUC of {membership.auc:.3f} (95 % interval from {membership.auc_interval[0]:.3f}; 0.5: "
                "not at all)."
            )
        return found

    def __str__(self) -> str:
        parts = [
            self._results_table(),
            self._class_table(),
            self._module_table(),
            "" if self.search is None else console_table(self.search.rows(self.selection.num_in_scope)),
            self._gamma_table(),
            *(self._relearning_table(data, found) for data, found in self.relearning_by_data().items()),
            self._quantization_table(),
            self._notes(),
        ]
        return "\n\n".join(part for part in parts if part)

    def _results_table(self) -> str:
        stages = [stage for stage in STAGES if stage in self.stages]
        columns = {stage: self.stages[stage].figures() for stage in stages}
        rows = [["", *(STAGES[stage] for stage in stages)]]
        for name in dict.fromkeys(name for figures in columns.values() for name in figures):
            values = [columns[stage].get(name) for stage in stages]
            rows.append([name, *("" if value is None else format_figure(name, value) for value in values)])
        if REFERENCE in self.stages:
            rows.append(["gap to the reference", *[""] * len(stages)])
            gaps = {stage: {} if stage == REFERENCE else self.gaps_to_reference(stage) for stage in stages}
            for name in columns[REFERENCE]:
                values = [gaps[stage].get(name) for stage in stages]
                cells = ["" if value is None else format_figure(name, value, signed=True) for value in values]
                rows.append([f"  {name}", *cells])
        return console_table(rows)

    def _class_table(self) -> str:
        """
        Accuracy per class on the forget data and on held-out data, or on the retain data if there are none; empty
        without classes.
        """
        stages = [stage for stage in STAGES if stage in self.stages]
        last = self.stages[AFTER_REPAIR].splits
        held_out = [split for split in last if split.startswith("eval")]
        counted = "examples" if last["forget"].tokens is None else "tokens"
        rows = [[f"accuracy by class ({counted})", *(STAGES[stage] for stage in stages)]]
        for split in ["forget", *(held_out or ["retain"])]:
            classes = last[split].per_class
            # Of many classes those that unlearning changed most.
            shown = sorted(classes, key=lambda name: -abs(self._change_of_class(split, name)))[:_MAX_CLASSES]
            for name in [name for name in classes if name in shown]:
                results = [self.stages[stage].splits[split].per_class[name] for stage in stages]
                cells = [format_figure(ACCURACY.name, result.accuracy) for result in results]
                rows.append([f"{split.replace('_', ' ')}: {name} ({classes[name].num_examples})", *cells])
            if len(classes) > len(shown):
                rows.append([f"{split}: {len(classes) - len(shown)} more in the JSON", *[""] * len(stages)])
        return console_table(rows) if len(rows) > 1 else ""

    def _change_of_class(self, split: str, name: str) -> float:
        before, after = (self.stages[stage].splits[split].per_class[name] for stage in (BEFORE, AFTER_REPAIR))
        return after.accuracy - before.accuracy

    def _module_table(self) -> str:
        return console_table(self.selection.rows())

    def _gamma_table(self) -> str:
        """What other thresholds do to the accuracies, or to the losses if there are none; empty without trials."""
        if not self.gamma_trials:
            return ""
        figures = [{} if trial.result is None else trial.result.figures() for trial in self.gamma_trials]
        names = dict.fromkeys(name for of_trial in figures for name in of_trial)
        shown = [name for name in names if measure_of_figure(name) in _OF_TRIALS]
        shown = shown or [name for name in names if measure_of_figure(name) in _OF_TRIALS_WITHOUT]
        rows = [["gamma (reset alone)", "reset", *shown]]
        for trial, of_trial in zip(self.gamma_trials, figures, strict=True):
            cells = [format_figure(name, of_trial[name]) if name in of_trial else "" for name in shown]
            share = 100 * trial.num_selected / self.selection.num_in_scope
            rows.append([f"{trial.gamma:.4g}", f"{share:.2f} %", *cells])
        return console_table(rows)

    def _relearning_table(self, data: str, found: RelearningResult) -> str:
        curves, measure = found.curves, found.measure
        rows = [[f"forget {measure} after {RELEARNING_DATA[data]}", *(STAGES[stage] for stage in curves)]]
        for place, step in enumerate(found.steps):
            values = [curve[place] if place < len(curve) else None for curve in curves.values()]
            cells = ["" if value is None else format_figure(measure, value) for value in values]
            rows.append([f"{step} step{'s' * (step != 1)}", *cells])
        excess = found.excess()
        if excess is not None:
            cells = {AFTER_REPAIR: format_figure(measure, excess, signed=True)}
            rows.append(["recalled beyond the reference", *(cells.get(stage, "") for stage in curves)])
        return console_table(rows)

    def _quantization_table(self) -> str:
        """All figures with rounded weights; empty if that was not asked for."""
        stages = [stage for stage in QUANTIZATION_STAGES if stage in self.stages]
        if STAGES.keys() >= set(stages):
            return ""
        figures = {stage: self.stages[stage].figures() for stage in stages}
        rows = [["weights rounded", *(QUANTIZATION_STAGES[stage] for stage in stages)]]
        for name in figures[AFTER_REPAIR]:
            values = [figures[stage].get(name) for stage in stages]
            rows.append([name, *("" if value is None else format_figure(name, value) for value in values)])
        return console_table(rows)

    def _notes(self) -> str:
        gamma = (
            ""
            if self.selection.gamma is None
            else f" (ratio of forget to retain Fisher above {self.selection.gamma:.4g})"
        )
        lines = [
            f"{self.model_class}: {self.selection.num_selected:,} of {self.selection.num_in_scope:,} weights selected "
            f"by the rule {self.selection.rule!r}{gamma}, {self.integrity.num_selected_changed:,} of them changed.",
            f"Outside the selection 0 of {self.integrity.num_frozen_weights:,} weights and 0 of "
            f"{self.integrity.num_buffer_entries:,} buffer entries changed.",
        ]
        if self.integrity.num_base_weights is not None:
            lines.append(
                f"Of the base 0 of {self.integrity.num_base_weights:,} weights changed, so that the adapter fits the "
                "same base as before."
            )
        if self.search is not None:
            lines.append(self._search_note())
        lines += self.shortfalls()
        if self.stages[AFTER_REPAIR].splits["forget"].tokens is not None:
            lines.append(self._verbatim_note())
        membership = self.stages[AFTER_REPAIR].membership
        if membership is None:
            lines.append("Membership: not measured (no unseen data were given).")
        else:
            low, high = membership.auc_interval
            lines.append(
                f"Membership AUC after repair {membership.auc:.3f} (95 % interval {low:.3f} to {high:.3f}; "
                f"{membership.num_forget} forget, {membership.num_unseen} unseen): 0.5 means that forget and unseen "
                "data cannot be told apart, more that the forget data still look trained on, less that they stand out "
                "as forgotten."
            )
        min_k = self.stages[AFTER_REPAIR].min_k_membership
        if min_k is not None:
            low, high = min_k.auc_interval
            lines.append(
                f"By the least probable tokens (Min-K%) the AUC is {min_k.auc:.3f} (95 % interval {low:.3f} to "
                f"{high:.3f})."
            )
        if self.fisher_fallback:
            lines.append(
                f"{len(self.fisher_fallback)} parameters have no batched Fisher rule and went through the exact "
                f"one-example path: {', '.join(self.fisher_fallback)}."
            )
        if self.kept_fisher is not None:
            lines.append(self._kept_fisher_note())
        if self.settings.get("hard_example_share", 1.0) < 1 and self.settings.get("num_train_epochs", 0) > 1:
            lines.append(self._order_note())
        lines.append(
            "Seconds: " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in self.seconds.items()) + "."
        )
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        lines.append(f"Seed {self.seed}; {versions}.")
        return "\n".join(lines)

    def _search_note(self) -> str:
        search = self.search
        unchecked = " (not checked: no unseen data were given)" * (
            search.target == "unseen" and self.stages[AFTER_REPAIR].membership is None
        )
        sizes = ", ".join(f"{size} {split}" for split, size in search.num_examples.items())
        weight, penalty = self.forget_penalty(), ""
        if weight > 0:
            penalty = (
                f" In some of its steps the repair held the forget data to the losses of the unseen ones (weight "
                f"{weight:g}), so that the membership AUC against these is what it worked towards."
            )
        return (
            f"The number of weights was found by {len(search.trials)} trials on {sizes} examples, as the deepest "
            f"reset that leaves {100 * search.min_left:.0f} % of the retained {search.measure} beyond what no reset "
            f"takes away ({100 * search.chance:.1f} %); the target was {search.target!r}{unchecked}.{penalty}"
        )

    def _order_note(self) -> str:
        share = self.settings["hard_example_share"]
        return (
            f"After its first epoch the repair read {100 * share:g} % of the retained data, those with the largest "
            "losses."
        )

    def _kept_fisher_note(self) -> str:
        kept = self.kept_fisher
        error = kept.cancellation
        how = "by subtraction from a kept Fisher"
        if kept.retain_pass:
            how = "by a pass of its own, because one by subtraction from a kept Fisher was not certain enough"
        return (
            f"The retain Fisher was computed {how} of {kept.num_examples:,} examples: rounding left "
            f"{error.num_undecided:,} of {error.num_selected:,} selected weights undecided, and its median relative "
            f"error is {error.median_relative_error:.1g}. The kept Fisher is stale now; a refresh costs "
            f"{kept.refresh_cost}."
        )

    def _verbatim_note(self) -> str:
        after = self.stages[AFTER_REPAIR].splits["forget"].tokens
        before = self.stages[BEFORE].splits["forget"].tokens
        low, high = after.verbatim_interval
        figures = (
            f"{after.num_verbatim:,} of {after.num_examples:,} {{}} (before: {before.num_verbatim:,}; 95 % interval "
            f"{format_figure(VERBATIM.name, low)} to {format_figure(VERBATIM.name, high)})"
        )
        if after.extraction_strength is None:
            return figures.format("forget examples still have every scored token right") + "."
        reference = self.stages[REFERENCE].splits["forget"].tokens if REFERENCE in self.stages else None
        trained_without = "" if reference is None else f"; the reference completes {reference.num_verbatim:,}"
        return figures.format("forgotten texts are still completed verbatim") + trained_without + "."


def _retained(before: StageResult, after: StageResult) -> tuple[str, float, float]:
    """What is known of the retained data, as [`trials.knowledge`] measures it."""
    first, last = before.splits["retain"], after.splits["retain"]
    measure = recall_measure(first)
    if measure is MEAN_LOSS:
        return "1 / (1 + loss)", knowledge_of_loss(first.mean_loss), knowledge_of_loss(last.mean_loss)
    return measure.name, estimate_of(measure, first)[0], estimate_of(measure, last)[0]


def load_report(path: str | os.PathLike[str]) -> UnlearningReport:
    """
    The report of a finished run.

    Args:
        path (`str`):
            The output directory of the run, or the report.json in it.

    Raises:
        `FileNotFoundError`: If there is none.
        `ValueError`: If the file is not the report of a run.
    """
    file = Path(path) / REPORT_NAME if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise FileNotFoundError(
            f"There is no {file}: only the output directory of a finished run holds one. Call `unlearn()` first, "
            "which writes it."
        )
    try:
        return UnlearningReport.load(file)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{file} is not the report of a run ({type(error).__name__}: {error}). Name the output directory of the "
            "run itself; a published folder holds the public form of the report alone."
        ) from None
