# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A table of several reports."""

from collections.abc import Sequence

from ..evaluation.measures import measure_of_figure
from ..evaluation.stages import AFTER_REPAIR, BEFORE, CONTROL_AFTER_REPAIR, FINE_TUNED, REFERENCE
from .report import UnlearningReport
from .tables import format_figure, format_markdown_table


# The stages of a summary, with their column headings.
_SUMMARIZED = {
    BEFORE: "before",
    AFTER_REPAIR: "unlearned",
    REFERENCE: "reference",
    CONTROL_AFTER_REPAIR: "control",
    FINE_TUNED: "fine-tuned",
}


def summarize_reports(reports: Sequence[UnlearningReport]) -> str:
    """
    Makes a Markdown table of several runs: the figures before and after unlearning, of the reference and of the
    controls. For several runs the table shows the mean, the smallest and the largest value. Losses are left out.

    Args:
        reports (`Sequence[UnlearningReport]`):
            The reports, such as one per seed.

    Raises:
        `ValueError`: If there is no report.
    """
    if not reports:
        raise ValueError("There is no report to summarise. Pass the report of at least one run.")
    stages = {
        stage: heading for stage, heading in _SUMMARIZED.items() if all(stage in report.stages for report in reports)
    }
    figures = {stage: [report.stages[stage].figures() for report in reports] for stage in stages}
    rows = []
    for name in figures[AFTER_REPAIR][0]:
        if _is_loss(name) or not all(name in of_run for of_run in figures[AFTER_REPAIR]):
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
    return format_markdown_table(stages.values(), rows)


def _is_loss(figure: str) -> bool:
    measure = measure_of_figure(figure)
    return "loss" in figure if measure is None else measure.kind == "loss"
