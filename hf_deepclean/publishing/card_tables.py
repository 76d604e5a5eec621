# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a card."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..evaluation.measures import MEASURES
from ..evaluation.samples import MIN_SAMPLE, SAMPLE_SIZES
from ..evaluation.stages import STAGES
from ..report.tables import format_markdown_table
from .public_records import PublicRelearning
from .public_report import PublicReport


def results_table(report: PublicReport, stages: Mapping[str, str]) -> str:
    """Every measure at every stage. `stages` maps names of stages to column headings."""
    rows = []
    for measure in report.measures:
        show = format_percent if measure.unit == "share" else format_number
        count = ", ".join(
            _count(report, split, number) + (f" {split}" if len(measure.num_examples) > 1 else "")
            for split, number in measure.num_examples.items()
        )
        cells = [_cell(measure.figures.get(stage), show, measure.name in MEASURES) for stage in stages]
        rows.append([f"{measure.split} {measure.name}", count, *cells])
    return format_markdown_table(["n", *stages.values()], rows)


def _count(report: PublicReport, split: str, number: int) -> str:
    """A number of examples: exact if so many were drawn or nothing is withheld, else a lower bound."""
    is_drawn = report.drawn and split in SAMPLE_SIZES and number >= MIN_SAMPLE
    return f"{number:,}" if is_drawn or report.disclosure != "withheld" else f"≥ {number:,}"


def _cell(figure: Any, show: Callable[[float], str], has_intervals: bool) -> str:
    if figure is None:
        return ""
    if figure.interval is None:
        return show(figure.value) + " (too few rows)" * (has_intervals and math.isfinite(figure.value))
    low, high = (show(end).removesuffix(" %") for end in figure.interval)
    return f"{show(figure.value)} ({low} to {high})"


def losses_table(report: PublicReport) -> str:
    """The quantiles of the losses, by stage and data set."""
    quantiles = {
        f"{STAGES[stage]}, {split}": of_split
        for stage, splits in report.loss_quantiles.items()
        for split, of_split in splits.items()
    }
    # All rows have the same levels.
    levels = next(iter(quantiles.values()), {}).keys()
    rows = [[name, *map(format_number, of_split.values())] for name, of_split in quantiles.items()]
    return format_markdown_table(levels, rows) if rows else ""


def relearning_table(found: PublicRelearning) -> str:
    """What the models know after every step of a relearning, and the excess over the reference."""
    is_share = MEASURES[found.measure].is_share
    show = format_percent if is_share else format_number
    rows = [
        [STAGES[stage], *map(show, curve), *["diverged"] * (len(found.steps) - len(curve))]
        for stage, curve in found.curves.items()
    ]
    table = format_markdown_table([f"step {step}" for step in found.steps], rows)
    if found.excess is None:
        return table
    unit = "percentage points" if is_share else "nats"
    excess = format_number(round(100 * found.excess, 2) if is_share else found.excess)
    return f"{table}\n\nAt most, {excess} {unit} more came back than in the reference; 0 is the target."


def modules_table(report: PublicReport) -> str:
    """The share of reset weights, by layer and kind of module; modules outside layers get a table of their own."""
    layered = [row for row in report.modules if row.layer]
    kinds = list(dict.fromkeys(row.kind for row in layered))
    layers = list(dict.fromkeys(row.layer for row in layered))
    shares = {(row.layer, row.kind): format_percent(row.share) for row in layered}
    tables = []
    if layered:
        rows = [[f"layer {layer}", *(shares.get((layer, kind), "") for kind in kinds)] for layer in layers]
        tables.append(format_markdown_table([f"`{kind}`" for kind in kinds], rows))
    others = [row for row in report.modules if not row.layer]
    if others:
        rows = [
            [f"`{row.kind}`", f"{row.num_selected:,}", f"{row.num_in_scope:,}", format_percent(row.share)]
            for row in others
        ]
        tables.append(format_markdown_table(["reset", "in scope", "share"], rows))
    return "\n\n".join(tables)


def plane_table(report: PublicReport) -> str:
    plane = report.plane
    if plane is None:
        return ""
    rows = [
        [
            f"{edge:g}",
            *(f"{count:,} ({chosen:,})" if count else "" for count, chosen in zip(counts, selected, strict=True)),
        ]
        for edge, counts, selected in zip(plane.forget_edges, plane.counts, plane.selected_counts, strict=False)
    ]
    # The largest Fisher information is on top, as in the picture.
    return format_markdown_table([f"{edge:g}" for edge in plane.retain_edges[:-1]], rows[::-1])


def describe_rest_of_plane(report: PublicReport) -> str:
    if report.plane is None:
        return ""
    parts = {
        "with no Fisher information on the data to forget": report.plane.forget_zero,
        "with some on the data to forget and none on the data to keep": report.plane.retain_zero,
        "in small bins": report.plane.other,
    }
    counts = [f"{total:,} {name} ({selected:,} reset)" for name, (selected, total) in parts.items()]
    return f"Not in the table: {'; '.join(counts)}."


def shares_by_gamma_table(report: PublicReport) -> str:
    """The share of weights above some thresholds. Empty without a plane."""
    if report.plane is None:
        return ""
    # Every third threshold, which leaves two per decade.
    shown = report.plane.share_by_gamma[::3]
    row = ["weights above it", *(format_percent(share) for _, share in shown)]
    return format_markdown_table([f"ratio {format_number(gamma)}" for gamma, _ in shown], [row])


def trials_table(report: PublicReport) -> str:
    """The results at the thresholds of the gamma sweep."""
    if not report.trials:
        return ""
    show = format_percent if MEASURES[report.trial_measure].is_share else format_number
    splits = list(dict.fromkeys(split for trial in report.trials for split in trial.figures))
    rows = [
        [
            f"threshold {format_number(trial.gamma)}",
            format_percent(trial.share),
            *(show(trial.figures[split]) if split in trial.figures else "" for split in splits),
        ]
        for trial in report.trials
    ]
    return format_markdown_table(["weights reset", *splits], rows)


def format_percent(value: float) -> str:
    """Formats a share in percent, with at most two decimals."""
    return f"{round(100 * value, 2):g} %"


def format_number(value: float) -> str:
    """Formats a number with four digits; large integers in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 and float(value).is_integer() else f"{value:.4g}"
