# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Several reports as one table."""

from collections.abc import Sequence

from .report import UnlearningReport
from .tables import format_figure, markdown_table


# Those of a summary over several runs.
_SUMMARIZED = {
    "before": "before",
    "after_repair": "unlearned",
    "reference": "reference",
    "control_after_repair": "control",
    "fine_tuned": "fine-tuned",
}


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
