# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of an unlearning report; aggregates only."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .evaluation.examples import LOSS_QUANTILES, SplitResult
from .report import STAGES, UnlearningReport


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save_plots(report: UnlearningReport, directory: str | os.PathLike[str]) -> list[Path]:
    """
    Draws a report: the share of weights reset in every module, the accuracies (for token-level heads of the tokens;
    none for a head without), and the losses of the forget data beside data never seen.

    Needs matplotlib (`pip install hf-deepclean[plots]`); no display is opened.

    Args:
        report ([`UnlearningReport`]):
            The report to draw.
        directory (`str`):
            Where the PNG files go; made if it does not exist.

    Returns:
        `list[Path]`: The files written.

    Raises:
        `FileExistsError`: If a file of that name is there already; nothing is written then.
    """
    drawings = {
        "reset_share.png": _draw_reset_share,
        "accuracy.png": _draw_accuracy,
        "loss.png": _draw_loss,
    }
    if all(_accuracy(result) is None for result in report.stages["before"].splits.values()):
        del drawings["accuracy.png"]
    directory = Path(directory)
    taken = [name for name in drawings if (directory / name).exists()]
    if taken:
        raise FileExistsError(
            f"{directory} already holds {', '.join(taken)}. Nothing is overwritten: choose another directory."
        )
    # The object-oriented interface leaves the caller's pyplot state and backend alone.
    from matplotlib.figure import Figure

    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in drawings.items():
        figure = Figure(layout="constrained", dpi=150)
        draw(figure, report)
        figure.savefig(directory / name)
        paths.append(directory / name)
    return paths


def _draw_reset_share(figure: "Figure", report: UnlearningReport) -> None:
    modules = {name: 100 * selected / total for name, (selected, total) in report.selection.per_module.items()}
    figure.set_size_inches(8, 1 + 0.2 * len(modules))
    axes: Axes = figure.add_subplot()
    axes.barh(list(modules), list(modules.values()))
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("weights reset (% of the module)")


def _draw_accuracy(figure: "Figure", report: UnlearningReport) -> None:
    stages = [stage for stage in STAGES if stage in report.stages]
    splits = list(report.stages["before"].splits)
    figure.set_size_inches(1 + 1.6 * len(splits), 3.5)
    axes: Axes = figure.add_subplot()
    width = 0.8 / len(stages)
    for number, stage in enumerate(stages):
        results = [report.stages[stage].splits[split] for split in splits]
        present = [index for index, result in enumerate(results) if _accuracy(result) is not None]
        accuracies = [100 * _accuracy(results[index]) for index in present]
        # The tokens of a text depend on each other, so that no interval of a share fits them.
        ends = [results[index].accuracy_interval or (_accuracy(results[index]),) * 2 for index in present]
        errors = [
            [accuracy - 100 * low for accuracy, (low, _) in zip(accuracies, ends, strict=True)],
            [100 * high - accuracy for accuracy, (_, high) in zip(accuracies, ends, strict=True)],
        ]
        positions = [index + width * (number - (len(stages) - 1) / 2) for index in present]
        axes.bar(positions, accuracies, width, yerr=errors, label=STAGES[stage], error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(splits)), [split.replace("_", " ") for split in splits])
    of_tokens = report.stages["before"].splits["forget"].tokens is not None
    axes.set_ylabel("token accuracy (%)" if of_tokens else "accuracy (%), 95 % interval")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)


def _draw_loss(figure: "Figure", report: UnlearningReport) -> None:
    stages = [stage for stage in ("before", "after_repair", "reference") if stage in report.stages]
    figure.set_size_inches(3.2 * len(stages), 3.2)
    of_tokens = report.stages["before"].splits["forget"].tokens is not None
    panels = figure.subplots(1, len(stages), sharey=True, sharex=True, squeeze=False)[0]
    for axes, stage in zip(panels, stages, strict=True):
        for split, style in (("forget", "-"), ("unseen", "--")):
            if split in report.stages[stage].splits:
                deciles = report.stages[stage].splits[split].loss_deciles
                axes.plot(deciles, [100 * share for share in LOSS_QUANTILES], style, marker=".", label=split)
        axes.set_xscale("log")
        axes.set_title(STAGES[stage], fontsize=10)
        axes.set_xlabel("loss (nats per token)" if of_tokens else "loss (nats)")
    panels[0].set_ylabel("examples below (%)")
    panels[0].legend()


def _accuracy(result: SplitResult) -> float | None:
    return result.accuracy if result.tokens is None else result.tokens.accuracy
