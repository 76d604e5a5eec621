# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Prints a report: tables, and notes below them."""

from typing import TYPE_CHECKING

from ..data.held_out import HOW_TO_HOLD_OUT
from ..evaluation.measures import ACCURACIES, ACCURACY, EXACT_MATCHES, MEAN_LOSS, VERBATIM, measure_of_figure
from ..evaluation.recovery import RELEARNING_DATA, RelearningResult
from ..evaluation.stages import AFTER_REPAIR, BEFORE, QUANTIZATION_STAGES, REFERENCE, STAGES
from ..reset.natural import NaturalResetResult
from .shortfalls import retained_knowledge
from .tables import format_console_table, format_figure


if TYPE_CHECKING:
    from .report import UnlearningReport


# At most this many classes per data set are shown.
_MAX_CLASSES = 12

# The gamma table shows the first of these groups that was measured.
_OF_TRIALS = (*ACCURACIES, *EXACT_MATCHES)
_OF_TRIALS_WITHOUT = (MEAN_LOSS,)


def format_report(report: "UnlearningReport") -> str:
    """Joins all tables that have rows, and the notes."""
    parts = [
        _results_table(report),
        _class_table(report),
        format_console_table(report.selection.rows()),
        "" if report.search is None else format_console_table(report.search.rows(report.selection.num_in_scope)),
        _gamma_table(report),
        *(_relearning_table(data, found) for data, found in report.relearning_by_data().items()),
        _quantization_table(report),
        "" if report.plan is None else format_console_table(report.plan.rows(report.seconds)),
        _notes(report),
    ]
    return "\n\n".join(part for part in parts if part)


def _results_table(report: "UnlearningReport") -> str:
    stages = [stage for stage in STAGES if stage in report.stages]
    columns = {stage: report.stages[stage].figures() for stage in stages}
    rows = [["", *(STAGES[stage] for stage in stages)]]
    for name in dict.fromkeys(name for figures in columns.values() for name in figures):
        values = [columns[stage].get(name) for stage in stages]
        rows.append([name, *("" if value is None else format_figure(name, value) for value in values)])
    if REFERENCE in report.stages:
        rows.append(["gap to the reference", *[""] * len(stages)])
        gaps = {stage: {} if stage == REFERENCE else report.gaps_to_reference(stage) for stage in stages}
        for name in columns[REFERENCE]:
            values = [gaps[stage].get(name) for stage in stages]
            cells = ["" if value is None else format_figure(name, value, signed=True) for value in values]
            rows.append([f"  {name}", *cells])
    return format_console_table(rows)


def _class_table(report: "UnlearningReport") -> str:
    """Accuracy by class on the forget data, and on evaluation data or else the retain data; empty without classes."""
    stages = [stage for stage in STAGES if stage in report.stages]
    last = report.stages[AFTER_REPAIR].splits
    held_out = [split for split in last if split.startswith("eval")]
    counted = "examples" if last["forget"].tokens is None else "tokens"
    rows = [[f"accuracy by class ({counted})", *(STAGES[stage] for stage in stages)]]
    for split in ["forget", *(held_out or ["retain"])]:
        classes = last[split].per_class
        # The classes that unlearning changed most.
        shown = sorted(classes, key=lambda name: -abs(_change_of_class(report, split, name)))[:_MAX_CLASSES]
        for name in [name for name in classes if name in shown]:
            results = [report.stages[stage].splits[split].per_class[name] for stage in stages]
            cells = [format_figure(ACCURACY.name, result.accuracy) for result in results]
            rows.append([f"{split.replace('_', ' ')}: {name} ({classes[name].num_examples})", *cells])
        if len(classes) > len(shown):
            rows.append([f"{split}: {len(classes) - len(shown)} more in the JSON", *[""] * len(stages)])
    return format_console_table(rows) if len(rows) > 1 else ""


def _change_of_class(report: "UnlearningReport", split: str, name: str) -> float:
    before, after = (report.stages[stage].splits[split].per_class[name] for stage in (BEFORE, AFTER_REPAIR))
    return after.accuracy - before.accuracy


def _gamma_table(report: "UnlearningReport") -> str:
    """Accuracies at other thresholds, or losses if there are no accuracies; empty without trials."""
    if not report.gamma_trials:
        return ""
    figures = [{} if trial.result is None else trial.result.figures() for trial in report.gamma_trials]
    names = dict.fromkeys(name for of_trial in figures for name in of_trial)
    shown = [name for name in names if measure_of_figure(name) in _OF_TRIALS]
    shown = shown or [name for name in names if measure_of_figure(name) in _OF_TRIALS_WITHOUT]
    rows = [["gamma (reset alone)", "reset", *shown]]
    for trial, of_trial in zip(report.gamma_trials, figures, strict=True):
        cells = [format_figure(name, of_trial[name]) if name in of_trial else "" for name in shown]
        share = 100 * trial.num_selected / report.selection.num_in_scope
        rows.append([f"{trial.gamma:.4g}", f"{share:.2f} %", *cells])
    return format_console_table(rows)


def _relearning_table(data: str, found: RelearningResult) -> str:
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
    return format_console_table(rows)


def _quantization_table(report: "UnlearningReport") -> str:
    """All figures with rounded weights; empty if they were not measured."""
    stages = [stage for stage in QUANTIZATION_STAGES if stage in report.stages]
    if STAGES.keys() >= set(stages):
        return ""
    figures = {stage: report.stages[stage].figures() for stage in stages}
    rows = [["weights rounded", *(QUANTIZATION_STAGES[stage] for stage in stages)]]
    for name in figures[AFTER_REPAIR]:
        values = [figures[stage].get(name) for stage in stages]
        rows.append([name, *("" if value is None else format_figure(name, value) for value in values)])
    return format_console_table(rows)


def _notes(report: "UnlearningReport") -> str:
    seconds = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in report.seconds.items())
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    notes = [
        *_selection_notes(report),
        *([] if report.search is None else [_search_note(report)]),
        *([] if report.natural is None else [_natural_note(report.natural)]),
        *_round_notes(report),
        *report.shortfalls(),
        *([] if report.plan is None else report.plan.sentences()),
        *_memorization_notes(report),
        *_interval_notes(report),
        *_fisher_notes(report),
        *_order_notes(report),
        f"Seconds: {seconds}.",
        f"Seed {report.seed}; {versions}.",
    ]
    return "\n".join(notes)


def _selection_notes(report: "UnlearningReport") -> list[str]:
    selection, integrity = report.selection, report.integrity
    gamma = "" if selection.gamma is None else f" (ratio of forget to retain Fisher above {selection.gamma:.4g})"
    notes = [
        f"{report.model_class}: {selection.num_selected:,} of {selection.num_in_scope:,} weights selected by the rule "
        f"{selection.rule!r}{gamma}, {integrity.num_selected_changed:,} of them changed.",
        f"Outside the selection 0 of {integrity.num_frozen_weights:,} weights and 0 of "
        f"{integrity.num_buffer_entries:,} buffer entries changed.",
        *selection.frozen_notes(),
        *([report.settings["base_checkpoint"]] if report.settings.get("base_checkpoint") else []),
    ]
    if integrity.num_base_weights is not None:
        notes.append(
            f"Of the base 0 of {integrity.num_base_weights:,} weights changed: the adapter fits the same base model "
            "as before."
        )
    return notes


def _search_note(report: "UnlearningReport") -> str:
    search = report.search
    unchecked = " (not checked: no unseen data were given)" * (
        search.target == "unseen" and report.stages[AFTER_REPAIR].membership is None
    )
    sizes = ", ".join(f"{size} {split}" for split, size in search.num_examples.items())
    weight, penalty = report.forget_penalty(), ""
    if weight > 0:
        penalty = (
            " In some of its steps the repair held the forget data to the losses of the unseen ones (weight "
            f"{weight:g}), so the membership AUC against these is a goal of the repair."
        )
    return (
        f"The number of weights was found by {len(search.trials)} trials on {sizes} examples: the deepest reset that "
        f"leaves {100 * search.min_left:.0f} % of the retained {search.measure} above the part that no reset takes "
        f"away ({100 * search.chance:.1f} %); the target was {search.target!r}{unchecked}.{penalty}"
    )


def _natural_note(natural: NaturalResetResult) -> str:
    losses = f"mean loss {natural.loss_before:.3f}, and {natural.target_loss:.3f} is expected of rows never seen"
    if natural.is_rejected:
        cost = 100 * (natural.retain_before - natural.retain_after)
        return (
            f"A natural reset was tried and undone: it cost {cost:.0f} points of what the model knows of a sample of "
            "the retained data. The weights were rewound instead."
        )
    if not natural.is_needed:
        return (
            f"There was nothing to forget: the forget data look like data that the model never saw ({losses}). No "
            "weight was changed."
        )
    return (
        f"Before, the forget data had {losses}. The natural reset took {natural.num_steps} steps, and moved the "
        f"weights by {100 * natural.movement:.1f} % of what they changed since the checkpoint; the target was "
        f"{natural.target!r}. The mean log odds of the forget data are now {_distance(natural.distance_after)}, "
        f"{_distance(natural.distance_before)} before."
    )


def _distance(distance: float) -> str:
    side = "below (still known)" if distance > 0 else "above (less known than that)"
    return f"{abs(distance):.2f} nats {side}"


def _memorization_notes(report: "UnlearningReport") -> list[str]:
    """What the model still shows of the forget data: completed texts and membership."""
    after = report.stages[AFTER_REPAIR]
    notes = [] if after.splits["forget"].tokens is None else [_verbatim_note(report)]
    if after.membership is None:
        notes.append(f"Membership: not measured (no unseen data were given). {HOW_TO_HOLD_OUT}")
    else:
        low, high = after.membership.auc_interval
        notes.append(
            f"Membership AUC after repair {after.membership.auc:.3f} (95 % interval {low:.3f} to {high:.3f}; "
            f"{after.membership.num_forget} forget, {after.membership.num_unseen} unseen): 0.5 means that forget and "
            "unseen data cannot be told apart, a larger AUC that the forget data still look trained on, a smaller AUC "
            "that they stand out as forgotten."
        )
        if report.settings.get("unseen_share_of_eval"):
            notes.append(
                f"The {after.membership.num_unseen} unseen examples were taken from the evaluation data "
                f"(`unseen_share_of_eval={report.settings['unseen_share_of_eval']:g}`), whose figures leave them out."
            )
    if after.min_k_membership is not None:
        low, high = after.min_k_membership.auc_interval
        notes.append(
            f"By the least probable tokens (Min-K%) the AUC is {after.min_k_membership.auc:.3f} (95 % interval "
            f"{low:.3f} to {high:.3f})."
        )
    return notes


def _interval_notes(report: "UnlearningReport") -> list[str]:
    names = report.stages[AFTER_REPAIR].too_few_rows()
    return [f"Too few rows for a 95 % interval: {', '.join(names)}."] if names else []


def _fisher_notes(report: "UnlearningReport") -> list[str]:
    notes = []
    if report.fisher_fallback:
        notes.append(
            f"{len(report.fisher_fallback)} parameters took the slower one-example path of the Fisher, which is as "
            f"exact: {', '.join(report.fisher_fallback)}. "
            f"Why: {'; '.join(sorted(set(report.fisher_fallback.values())))}."
        )
    if report.kept_fisher is not None:
        notes.append(_kept_fisher_note(report))
    autocast = report.settings.get("fisher_autocast")
    if autocast is not None:
        why = "because squared gradients do not fit float16" if report.settings.get("fp16") else "as the training was"
        notes.append(f"The Fishers were computed under autocast to {autocast}, {why}, and added up in float32.")
    elif report.settings.get("bf16") or report.settings.get("fp16"):
        notes.append("The Fishers were computed in the model's own precision, without the autocast of the repair.")
    return notes


def _round_notes(report: "UnlearningReport") -> list[str]:
    if len(report.retained_by_round) < 2:
        return []
    shares = ", ".join(f"{100 * known:.1f} %" for known in report.retained_by_round)
    measure, before, _ = retained_knowledge(report.stages[BEFORE], report.stages[AFTER_REPAIR])
    return [
        f"The repair was repeated, because the retained data were not back: {measure} {100 * before:.1f} % before, "
        f"and {shares} after its {len(report.retained_by_round)} rounds."
    ]


def _order_notes(report: "UnlearningReport") -> list[str]:
    share = report.settings.get("hard_example_share", 1.0)
    is_short = report.plan is not None and report.plan.is_within_an_epoch
    if share >= 1 or is_short or report.settings.get("num_train_epochs", 0) <= 1:
        return []
    return [
        f"After its first epoch the repair read {100 * share:g} % of the retained data, those with the largest losses."
    ]


def _kept_fisher_note(report: "UnlearningReport") -> str:
    kept = report.kept_fisher
    error = kept.cancellation
    how = "by subtraction from a kept Fisher"
    if kept.retain_pass:
        how = "by a pass of its own, because it was not certain enough by subtraction from a kept Fisher"
    return (
        f"The retain Fisher was computed {how} of {kept.num_examples:,} examples: rounding left "
        f"{error.num_undecided:,} of {error.num_selected:,} selected weights undecided, and the median relative error "
        f"is {error.median_relative_error:.1g}. The kept Fisher is stale now; a refresh costs {kept.refresh_cost}."
    )


def _verbatim_note(report: "UnlearningReport") -> str:
    after = report.stages[AFTER_REPAIR].splits["forget"].tokens
    before = report.stages[BEFORE].splits["forget"].tokens
    low, high = after.verbatim_interval
    figures = (
        f"{after.num_verbatim:,} of {after.num_examples:,} {{}} (before: {before.num_verbatim:,}; 95 % interval "
        f"{format_figure(VERBATIM.name, low)} to {format_figure(VERBATIM.name, high)})"
    )
    if after.extraction_strength is None:
        return figures.format("forget examples still have every scored token right") + "."
    reference = report.stages[REFERENCE].splits["forget"].tokens if REFERENCE in report.stages else None
    trained_without = "" if reference is None else f"; the reference completes {reference.num_verbatim:,}"
    return figures.format("forgotten texts are still completed verbatim") + trained_without + "."
