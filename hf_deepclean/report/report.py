# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""One typed record of an unlearning run; the console table, the JSON file and the plots are all rendered from it."""

import json
import math
import os
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..evaluation.membership import MembershipAttack
from ..evaluation.predictions import SplitResult, TokenResult
from ..evaluation.relearning import relearning_excess
from ..runtime.files import replaced
from ..selection.fisher_plane import FisherPlane
from ..selection.rules import WeightSelection
from ..selection.search import SelectionSearch, knowledge_of_loss
from ..selection.subtraction import CancellationError
from .provenance import Provenance


REPORT_NAME = "report.json"

# After the repair the retained data may be known by as much less than before without a warning.
MAX_RETAIN_DROP = 0.02

# Classes per data set in the console table.
_MAX_CLASSES = 12

# How the names of figures that are shares end.
_SHARES = ("TPR at 1 % FPR", "extraction strength", "verbatim", "all tokens right")

# How the names of the figures end that are shown of a trial, and which if it has none of them.
_OF_TRIALS = (" accuracy", " verbatim", " all tokens right")
_OF_TRIALS_WITHOUT = (" mean loss",)

# The stages of a run, in order, with their column heading.
STAGES = {
    "before": "before",
    "after_reset": "after reset",
    "after_repair": "after repair",
    "reference": "reference",
    "control_after_reset": "control reset",
    "control_after_repair": "control repair",
    "fine_tuned": "fine-tuned",
}

# Columns of the table of what rounding the weights changes: each model, then its rounded forms.
QUANTIZATION_STAGES = {
    "after_repair": "after repair",
    "after_repair_4_bits": "after repair, 4 bits",
    "after_repair_8_bits": "after repair, 8 bits",
    "reference": "reference",
    "reference_4_bits": "reference, 4 bits",
    "reference_8_bits": "reference, 8 bits",
}

# What a copy of the model is trained on to see whether the forget data come back.
RELEARNING_DATA = {
    "forget": "relearning",
    "retain": "training on retained data",
    "few_forget": "training on retained and a few forget data",
}

# Those of a summary over several runs.
_SUMMARIZED = {
    "before": "before",
    "after_repair": "unlearned",
    "reference": "reference",
    "control_after_repair": "control",
    "fine_tuned": "fine-tuned",
}

# A figure and its interval, if it has one.
Estimate = tuple[float, tuple[float, float] | None]

R = TypeVar("R", bound="JsonRecord")


@dataclass(frozen=True)
class RequestResult:
    """
    Results of one model on the rows of one of several requests that are answered together.

    Args:
        split (`SplitResult`):
            Results on the rows.
        membership ([`MembershipAttack`], *optional*):
            The attack of these rows against unseen data.
        min_k_membership ([`MembershipAttack`], *optional*):
            The attack by the least probable tokens.
    """

    split: SplitResult
    membership: MembershipAttack | None = None
    min_k_membership: MembershipAttack | None = None


@dataclass(frozen=True)
class StageResult:
    """
    Results of one model: of the one to clean at some stage, of the reference, or of the control.

    Args:
        splits (`dict[str, SplitResult]`):
            Results on `forget`, `retain`, and where given `eval` (or `eval_NAME`) and `unseen`.
        membership ([`MembershipAttack`], *optional*):
            The attack of forget against unseen data by the loss, for token-level heads per scored token; none without
            unseen data.
        divergence_to_reference (`float`, *optional*):
            Mean Jensen-Shannon divergence to the reference model's outputs on the forget data, 0 to ln 2.
        min_k_membership ([`MembershipAttack`], *optional*):
            The attack by [`evaluation.memorization.min_k_score`], for token-level heads.
        requests (`dict[str, RequestResult]`, *optional*):
            Results request by request, if the forget data are those of several.
        divergence_interval (`tuple[float, float]`, *optional*):
            95 % interval of the divergence by the normal distribution; none for fewer than two examples.
    """

    splits: dict[str, SplitResult]
    membership: MembershipAttack | None = None
    divergence_to_reference: float | None = None
    min_k_membership: MembershipAttack | None = None
    requests: dict[str, RequestResult] = field(default_factory=dict)
    divergence_interval: tuple[float, float] | None = None

    def of_request(self, name: str) -> "StageResult":
        """The results with the rows of one request as the forget data."""
        result = self.requests[name]
        splits = self.splits | {"forget": result.split}
        return StageResult(splits, result.membership, min_k_membership=result.min_k_membership)

    def figures(self) -> dict[str, float]:
        """Every figure by its name, in the order of the table."""
        return {name: value for name, (value, _) in self._estimates().items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of the figures by their names; the caller's own metrics have none."""
        return {name: interval for name, (_, interval) in self._estimates().items() if interval is not None}

    def _estimates(self) -> dict[str, Estimate]:
        of_splits = {
            f"{split.replace('_', ' ')} {figure}": estimate
            for split, result in self.splits.items()
            for figure, estimate in estimates_of_split(result).items()
        }
        return of_splits | self.joint_estimates()

    def joint_estimates(self) -> dict[str, Estimate]:
        """The figures that compare the forget data with unseen ones, or with the reference, and their intervals."""
        estimates: dict[str, Estimate] = {}
        for name, attack in (("", self.membership), ("Min-K% ", self.min_k_membership)):
            if attack is not None:
                estimates[f"{name}membership AUC"] = attack.auc, attack.auc_interval
                estimates[f"{name}membership TPR at 1 % FPR"] = attack.tpr_at_1_percent_fpr, attack.tpr_interval
        if self.divergence_to_reference is not None:
            estimates["JS divergence to reference"] = self.divergence_to_reference, self.divergence_interval
        return estimates


@dataclass(frozen=True)
class SelectionResult:
    """
    Which weights were reset, as counts.

    Args:
        rule (`str`): `"auto"`, `"gamma"`, `"reset_fraction"` or `"adaptive"`.
        gamma (`float`, *optional*): The ratio of forget to retain Fisher from which weights were selected.
        num_in_scope (`int`): Weights that could be selected.
        num_selected (`int`): Weights that were.
        num_infinite_ratios (`int`): Selected weights with a retain Fisher of exactly 0.
        per_module (`dict[str, tuple[int, int]]`): Selected weights and weights in scope of every module.
        plane ([`FisherPlane`], *optional*): Where they lie in the plane of the two Fishers.
    """

    rule: str
    gamma: float | None
    num_in_scope: int
    num_selected: int
    num_infinite_ratios: int
    per_module: dict[str, tuple[int, int]]
    plane: FisherPlane | None = None

    @classmethod
    def of(cls, selection: WeightSelection, plane: FisherPlane | None = None) -> "SelectionResult":
        """The counts of a selection."""
        return cls(
            selection.rule,
            selection.gamma,
            selection.num_in_scope,
            selection.num_selected,
            selection.num_infinite_ratios,
            selection.counts_per_module(),
            plane,
        )

    def rows(self) -> list[list[str]]:
        """The counts as a table for people: the modules with selected weights, and all of them together."""
        rows = [["module", "selected", "in scope", "share"]]
        modules = [(module, counts) for module, counts in self.per_module.items() if counts[0]]
        for module, (selected, total) in [*modules, ("all", (self.num_selected, self.num_in_scope))]:
            rows.append([module, f"{selected:,}", f"{total:,}", f"{100 * selected / total:.2f} %"])
        return rows


@dataclass(frozen=True)
class GammaTrial:
    """
    What a threshold would do: its weights were reset, evaluated without a repair, and put back.

    Args:
        gamma (`float`): The ratio of forget to retain Fisher above which weights were reset.
        num_selected (`int`): Number of these weights.
        result ([`StageResult`], *optional*): Results after the reset; none if there is no such weight, or if those
            that there are have nothing to be rewound to.
    """

    gamma: float
    num_selected: int
    result: StageResult | None

    def of_request(self, name: str) -> "GammaTrial":
        """The trial with the rows of one request as the forget data."""
        return self if self.result is None else replace(self, result=self.result.of_request(name))


@dataclass(frozen=True)
class RelearningResult:
    """
    How fast the forget data come back when a copy of a model is fine-tuned; see
    [`evaluation.relearning.relearning_curve`].

    Args:
        steps (`tuple[int, ...]`): The numbers of steps after which the forget data were evaluated.
        learning_rate (`float`): The learning rate.
        measure (`str`): `"accuracy"`, `"token accuracy"` or `"mean loss"`.
        curves (`dict[str, tuple[float, ...]]`): Its value on the forget data after every number of steps, by stage:
            `"after_repair"` and, with a reference model, `"reference"`. Shorter where the training diverged.
        intervals (`dict[str, tuple[tuple[float, float], ...]]`): 95 % intervals of these values; of fewer than two
            examples there may be none.
        num_forget_examples (`int`, *optional*): At most so many forget examples were trained on, if only a few.
    """

    steps: tuple[int, ...]
    learning_rate: float
    measure: str
    curves: dict[str, tuple[float, ...]]
    intervals: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    num_forget_examples: int | None = None

    @classmethod
    def of(
        cls,
        steps: tuple[int, ...],
        learning_rate: float,
        results: Mapping[str, Sequence[SplitResult]],
        num_forget_examples: int | None = None,
    ) -> "RelearningResult":
        """The curves of results on the forget data, by stage and in the order of the steps."""
        measured = {stage: [_recall(result) for result in of_stage] for stage, of_stage in results.items()}
        (measure,) = {measure for estimates in measured.values() for measure, _ in estimates}
        estimates = {stage: [estimate for _, estimate in of_stage] for stage, of_stage in measured.items()}
        return cls(
            steps,
            learning_rate,
            measure,
            {stage: tuple(value for value, _ in of_stage) for stage, of_stage in estimates.items()},
            {
                stage: tuple(interval for _, interval in of_stage)
                for stage, of_stage in estimates.items()
                if all(interval is not None for _, interval in of_stage)
            },
            num_forget_examples,
        )

    def excess(self) -> float | None:
        """
        How much more the cleaned model relearns than the reference, in the unit of the measure; see
        [`evaluation.relearning.relearning_excess`]. None without a reference, or if a loss is infinite.
        """
        if "reference" not in self.curves:
            return None
        sign = -1 if self.measure == "mean loss" else 1
        curves = [[sign * value for value in self.curves[stage]] for stage in ("after_repair", "reference")]
        if not all(map(math.isfinite, chain.from_iterable(curves))):
            return None
        return relearning_excess(*curves)


def _recall(result: SplitResult) -> tuple[str, Estimate]:
    """The figure that says how much of the data a model knows, by its name."""
    if result.accuracy is not None:
        return "accuracy", (result.accuracy, result.accuracy_interval)
    if result.tokens is not None:
        return "token accuracy", (result.tokens.accuracy, result.tokens.accuracy_interval)
    return "mean loss", (result.mean_loss, result.mean_loss_interval)


@dataclass(frozen=True)
class IntegrityResult:
    """
    What the freeze guard found.

    Args:
        num_selected_changed (`int`): Selected weights whose value is not what it was before unlearning.
        num_frozen_weights (`int`): Weights outside the selection; none of them changed in any bit.
        num_buffer_entries (`int`): Entries of buffers; none of them changed in any bit.
        frozen_checksum (`str`): SHA-256 over all of these.
        num_base_weights (`int`, *optional*): In adapter scope, how many of the frozen weights are those of the base,
            counted as they are stored.
    """

    num_selected_changed: int
    num_frozen_weights: int
    num_buffer_entries: int
    frozen_checksum: str
    num_base_weights: int | None = None


@dataclass(frozen=True)
class KeptFisherResult:
    """
    How a Fisher of the whole training set, kept before, served the run.

    Args:
        num_examples (`int`): Examples in the kept Fisher.
        cancellation ([`CancellationError`]): What the retain Fisher by subtraction loses to rounding.
        retain_pass (`bool`): Whether that mattered, so that a pass over the retain data was made all the same.
        refresh_cost (`str`): What a Fisher of the whole training set costs at the cleaned weights, to which the kept
            one does not belong.
    """

    num_examples: int
    cancellation: CancellationError
    retain_pass: bool
    refresh_cost: str


class JsonRecord:
    """A dataclass that is kept as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON types."""
        return to_json_types(self)

    @classmethod
    def from_dict(cls: type[R], record: Mapping[str, Any]) -> R:
        """The record of a dictionary made by `to_dict`."""
        return from_json_types(cls, record)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the record as JSON, whole or not at all."""
        with replaced(Path(path)) as written:
            written.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls: type[R], path: str | os.PathLike[str]) -> R:
        """Reads a record written by `save`."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


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
        known = list(self.stages["before"].requests)
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
        if "reference" not in self.stages:
            raise ValueError(
                "This run had no reference model. Pass `reference_model`, retrained without the forget data."
            )
        reference = self.stages["reference"].figures()
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
        before, after = self.stages["before"], self.stages["after_repair"]
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
            "" if self.search is None else _table(self.search.rows(self.selection.num_in_scope)),
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
        if "reference" in self.stages:
            rows.append(["gap to the reference", *[""] * len(stages)])
            gaps = {stage: {} if stage == "reference" else self.gaps_to_reference(stage) for stage in stages}
            for name in columns["reference"]:
                values = [gaps[stage].get(name) for stage in stages]
                cells = ["" if value is None else format_figure(name, value, signed=True) for value in values]
                rows.append([f"  {name}", *cells])
        return _table(rows)

    def _class_table(self) -> str:
        """
        Accuracy per class on the forget data and on held-out data, or on the retain data if there are none; empty
        without classes.
        """
        stages = [stage for stage in STAGES if stage in self.stages]
        last = self.stages["after_repair"].splits
        held_out = [split for split in last if split.startswith("eval")]
        counted = "examples" if last["forget"].tokens is None else "tokens"
        rows = [[f"accuracy by class ({counted})", *(STAGES[stage] for stage in stages)]]
        for split in ["forget", *(held_out or ["retain"])]:
            classes = last[split].per_class
            # Of many classes those that unlearning changed most.
            shown = sorted(classes, key=lambda name: -abs(self._change_of_class(split, name)))[:_MAX_CLASSES]
            for name in [name for name in classes if name in shown]:
                results = [self.stages[stage].splits[split].per_class[name] for stage in stages]
                cells = [format_figure("accuracy", result.accuracy) for result in results]
                rows.append([f"{split.replace('_', ' ')}: {name} ({classes[name].num_examples})", *cells])
            if len(classes) > len(shown):
                rows.append([f"{split}: {len(classes) - len(shown)} more in the JSON", *[""] * len(stages)])
        return _table(rows) if len(rows) > 1 else ""

    def _change_of_class(self, split: str, name: str) -> float:
        before, after = (self.stages[stage].splits[split].per_class[name] for stage in ("before", "after_repair"))
        return after.accuracy - before.accuracy

    def _module_table(self) -> str:
        return _table(self.selection.rows())

    def _gamma_table(self) -> str:
        """What other thresholds do to the accuracies, or to the losses if there are none; empty without trials."""
        if not self.gamma_trials:
            return ""
        figures = [{} if trial.result is None else trial.result.figures() for trial in self.gamma_trials]
        names = dict.fromkeys(name for of_trial in figures for name in of_trial)
        shown = [name for name in names if name.endswith(_OF_TRIALS)]
        shown = shown or [name for name in names if name.endswith(_OF_TRIALS_WITHOUT)]
        rows = [["gamma (reset alone)", "reset", *shown]]
        for trial, of_trial in zip(self.gamma_trials, figures, strict=True):
            cells = [format_figure(name, of_trial[name]) if name in of_trial else "" for name in shown]
            share = 100 * trial.num_selected / self.selection.num_in_scope
            rows.append([f"{trial.gamma:.4g}", f"{share:.2f} %", *cells])
        return _table(rows)

    def _relearning_table(self, data: str, found: RelearningResult) -> str:
        curves, measure = found.curves, found.measure
        rows = [[f"forget {measure} after {RELEARNING_DATA[data]}", *(STAGES[stage] for stage in curves)]]
        for place, step in enumerate(found.steps):
            values = [curve[place] if place < len(curve) else None for curve in curves.values()]
            cells = ["" if value is None else format_figure(measure, value) for value in values]
            rows.append([f"{step} step{'s' * (step != 1)}", *cells])
        excess = found.excess()
        if excess is not None:
            cells = {"after_repair": format_figure(measure, excess, signed=True)}
            rows.append(["recalled beyond the reference", *(cells.get(stage, "") for stage in curves)])
        return _table(rows)

    def _quantization_table(self) -> str:
        """All figures with rounded weights; empty if that was not asked for."""
        stages = [stage for stage in QUANTIZATION_STAGES if stage in self.stages]
        if STAGES.keys() >= set(stages):
            return ""
        figures = {stage: self.stages[stage].figures() for stage in stages}
        rows = [["weights rounded", *(QUANTIZATION_STAGES[stage] for stage in stages)]]
        for name in figures["after_repair"]:
            values = [figures[stage].get(name) for stage in stages]
            rows.append([name, *("" if value is None else format_figure(name, value) for value in values)])
        return _table(rows)

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
        if self.stages["after_repair"].splits["forget"].tokens is not None:
            lines.append(self._verbatim_note())
        membership = self.stages["after_repair"].membership
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
        min_k = self.stages["after_repair"].min_k_membership
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
            search.target == "unseen" and self.stages["after_repair"].membership is None
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
        after = self.stages["after_repair"].splits["forget"].tokens
        before = self.stages["before"].splits["forget"].tokens
        low, high = after.verbatim_interval
        figures = (
            f"{after.num_verbatim:,} of {after.num_examples:,} {{}} (before: {before.num_verbatim:,}; 95 % interval "
            f"{format_figure('verbatim', low)} to {format_figure('verbatim', high)})"
        )
        if after.extraction_strength is None:
            return figures.format("forget examples still have every scored token right") + "."
        reference = self.stages["reference"].splits["forget"].tokens if "reference" in self.stages else None
        trained_without = "" if reference is None else f"; the reference completes {reference.num_verbatim:,}"
        return figures.format("forgotten texts are still completed verbatim") + trained_without + "."


def _retained(before: StageResult, after: StageResult) -> tuple[str, float, float]:
    """What is known of the retained data, as [`trials.knowledge`] measures it."""
    first, last = before.splits["retain"], after.splits["retain"]
    if first.accuracy is not None:
        return "accuracy", first.accuracy, last.accuracy
    if first.tokens is not None:
        return "token accuracy", first.tokens.accuracy, last.tokens.accuracy
    return "1 / (1 + loss)", knowledge_of_loss(first.mean_loss), knowledge_of_loss(last.mean_loss)


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


def format_figure(name: str, value: float, *, signed: bool = False) -> str:
    """
    A figure of [`StageResult.figures`] as people read it: shares in percent, everything else as a number.

    Args:
        name (`str`): Name of the figure.
        value (`float`): Its value, or a difference of two.
        signed (`bool`, *optional*, defaults to `False`): Whether to show the sign of a positive value.
    """
    sign = "+" if signed else ""
    if name.endswith(_SHARES) or "accuracy" in name:
        return f"{100 * value:{sign}.1f} %"
    # An unlearned language model may well have a perplexity of millions.
    return f"{value:{sign}.3f}" if abs(value) < 10_000 else f"{value:{sign}.3g}"


def summarize_reports(reports: Sequence[UnlearningReport]) -> str:
    """
    A Markdown table of the figures before and after, of the reference and of the controls, over several runs: the
    mean, and the smallest and the largest value where there are several. Losses are left out.

    Args:
        reports (`Sequence[UnlearningReport]`):
            The runs, such as one per seed.

    Raises:
        `ValueError`: If there is none.
    """
    if not reports:
        raise ValueError("There is no report to summarise. Pass those of at least one run.")
    stages = {
        stage: heading for stage, heading in _SUMMARIZED.items() if all(stage in report.stages for report in reports)
    }
    figures = {stage: [report.stages[stage].figures() for report in reports] for stage in stages}
    rows = []
    for name in figures["after_repair"][0]:
        if "loss" in name or not all(name in of_run for of_run in figures["after_repair"]):
            continue
        cells = []
        for stage in stages:
            values = [of_run[name] for of_run in figures[stage] if name in of_run]
            if len(values) < len(reports):
                cells.append("")
                continue
            low, high = (format_figure(name, value) for value in (min(values), max(values)))
            spread = f" ({low} to {high})" if len(values) > 1 else ""
            cells.append(format_figure(name, sum(values) / len(values)) + spread)
        rows.append([name, *cells])
    return markdown_table(stages.values(), rows)


def markdown_table(columns: Collection[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; every row starts with its name, for which there is no heading."""
    head = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def estimates_of_split(result: SplitResult) -> dict[str, Estimate]:
    """The figures of one data set and their intervals, by name."""
    estimates: dict[str, Estimate] = {}
    if result.accuracy is not None:
        estimates["accuracy"] = result.accuracy, result.accuracy_interval
    if result.tokens is None:
        estimates["mean loss"] = result.mean_loss, result.mean_loss_interval
    else:
        estimates |= _token_estimates(result.tokens)
    return estimates | {metric: (value, None) for metric, value in result.metrics.items()}


def _token_estimates(tokens: TokenResult) -> dict[str, Estimate]:
    estimates = {
        "token accuracy": (tokens.accuracy, tokens.accuracy_interval),
        "perplexity": (tokens.perplexity, tokens.perplexity_interval),
    }
    verbatim = tokens.num_verbatim / tokens.num_examples, tokens.verbatim_interval
    if tokens.extraction_strength is None:
        return estimates | {"all tokens right": verbatim}
    strength = tokens.extraction_strength, tokens.extraction_strength_interval
    return estimates | {"extraction strength": strength, "verbatim": verbatim}


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for the console: the first column on the left, the others on the right, all of one length."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _table(rows: list[list[str]]) -> str:
    head, *body = aligned(rows)
    return "\n".join([head.rstrip(), "-" * len(head), *(line.rstrip() for line in body)])


def to_json_types(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_json_types(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json_types(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_types(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json_types(kind: Any, value: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else from_json_types(arguments[0], value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        unknown = value.keys() - hints.keys()
        if unknown:
            raise ValueError(
                f"The record of a {kind.__name__} holds the unknown fields {sorted(unknown)}: it was written by "
                "another version of hf_deepclean, or is not a report."
            )
        return kind(**{name: from_json_types(hints[name], item) for name, item in value.items()})
    if origin is dict:
        return {key: from_json_types(arguments[1], item) for key, item in value.items()}
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(from_json_types(item_kind, item) for item_kind, item in zip(kinds, value, strict=True))
    if kind is float:
        return float(value)
    return value
