# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Plots of a public report. They show aggregates only."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.measures import ACCURACIES, MEASURES
from ..evaluation.stages import STAGES
from ..report.report import UnlearningReport
from ..runtime.files import staged
from .public_report import PublicReport


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# The measures that the bars show. Heads without classes and tokens have neither.
_SUCCESSES = [measure.name for measure in ACCURACIES]
# If there are more kinds of modules, they are drawn without names.
_MAX_NAMED = 60
# The data of a relearning curve: those that were trained on, and those that it is measured on.
_RELEARNING_LABELS = {
    "forget": ("the forgotten data", "them"),
    "retain": ("retained data", "the forgotten data"),
    "few_forget": ("retained and a few forgotten data", "the forgotten data"),
}


def save_plots(report: UnlearningReport | PublicReport, directory: str | os.PathLike[str]) -> list[Path]:
    """
    Draws the public form of a report: the accuracies, the losses of forgotten and unseen data, where weights were
    reset, the plane of both Fishers, the effect of the threshold, and the relearning curves. Each is drawn if it was
    measured.

    Needs matplotlib (`pip install hf-deepclean[plots]`). No display is opened.

    Args:
        report ([`UnlearningReport`] or [`PublicReport`]):
            The report to draw. An [`UnlearningReport`] is drawn as its `forget_disclosure` allows.
        directory (`str`):
            The folder for the PNG files; it is made if it does not exist.

    Returns:
        `list[Path]`: The files.

    Raises:
        `FileExistsError`: If a file of the same name exists. Nothing is written then.
    """
    public = report if isinstance(report, PublicReport) else PublicReport.of(report)
    public = public.as_withheld() if public.disclosure == "withheld" else public
    drawings = {f"{name}.png": draw for name, (is_there, draw) in _DRAWINGS.items() if is_there(public)}
    directory = Path(directory)
    taken = [name for name in drawings if (directory / name).exists()]
    if taken:
        raise FileExistsError(
            f"{directory} already holds {', '.join(taken)}. Nothing is overwritten: choose another directory."
        )
    # The object-oriented interface leaves the caller's pyplot state and backend alone.
    from matplotlib.figure import Figure

    directory.mkdir(parents=True, exist_ok=True)
    with staged(directory) as staging:
        for name, draw in drawings.items():
            figure = Figure(layout="constrained", dpi=150)
            draw(figure, public)
            # Otherwise matplotlib writes its version into the file.
            figure.savefig(staging / name, metadata={"Software": None})
        for name in drawings:
            os.replace(staging / name, directory / name)
    return [directory / name for name in drawings]


def _draw_results(figure: "Figure", report: PublicReport) -> None:
    measures = [measure for measure in report.measures if measure.name in _SUCCESSES]
    stages = [stage for stage in STAGES if any(stage in measure.figures for measure in measures)]
    figure.set_size_inches(1.5 + 1.6 * len(measures), 3.5)
    axes: Axes = figure.add_subplot()
    width = 0.8 / len(stages)
    for number, stage in enumerate(stages):
        present = [place for place, measure in enumerate(measures) if stage in measure.figures]
        figures = [measures[place].figures[stage] for place in present]
        values = [100 * found.value for found in figures]
        ends = [found.interval or (found.value, found.value) for found in figures]
        errors = [
            [max(0.0, value - 100 * low) for value, (low, _) in zip(values, ends, strict=True)],
            [max(0.0, 100 * high - value) for value, (_, high) in zip(values, ends, strict=True)],
        ]
        positions = [place + width * (number - (len(stages) - 1) / 2) for place in present]
        axes.bar(positions, values, width, yerr=errors, label=STAGES[stage], error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(measures)), [measure.split for measure in measures])
    axes.set_ylabel(f"{measures[0].name} (%), 95 % interval")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)


def _draw_loss(figure: "Figure", report: PublicReport) -> None:
    stages = list(report.loss_quantiles)
    figure.set_size_inches(3.2 * len(stages), 3.2)
    panels = figure.subplots(1, len(stages), sharey=True, sharex=True, squeeze=False)[0]
    for axes, stage in zip(panels, stages, strict=True):
        for split, style in (("forget", "-"), ("unseen", "--")):
            quantiles = report.loss_quantiles[stage].get(split, {})
            levels = [float(level.removesuffix(" %")) for level in quantiles]
            axes.plot(list(quantiles.values()), levels, style, marker=".", label=split)
        axes.set_xscale("log")
        axes.set_title(STAGES[stage], fontsize=10)
        axes.set_xlabel(f"loss ({report.loss_unit})")
    panels[0].set_ylabel("examples below (%)")
    panels[0].legend()


def _draw_reset_share(figure: "Figure", report: PublicReport) -> None:
    layered = [row for row in report.modules if row.layer]
    others = [row for row in report.modules if not row.layer]
    kinds = list(dict.fromkeys(row.kind for row in layered))
    layers = list(dict.fromkeys(row.layer for row in layered))
    heights = [0.35 * max(4, len(layers)) + 1.8, 0.28 * len(others) + 0.8]
    parts = [height for height, rows in zip(heights, (layered, others), strict=True) if rows]
    figure.set_size_inches(max(6.0, 2 + 0.5 * len(kinds)), min(30.0, sum(parts)))
    panels = list(figure.subplots(len(parts), 1, squeeze=False, height_ratios=parts)[:, 0])
    highest = max(1.0, max(100 * row.share for row in report.modules))
    if layered:
        axes = panels.pop(0)
        shares = {(row.layer, row.kind): 100 * row.share for row in layered}
        grid = [[shares.get((layer, kind), math.nan) for kind in kinds] for layer in layers]
        image = axes.imshow(grid, aspect="auto", vmin=0, vmax=highest, cmap="viridis")
        axes.set_xticks(range(len(kinds)), kinds, rotation=45, ha="right", fontsize=7)
        axes.set_yticks(range(len(layers)), layers, fontsize=7)
        axes.set_ylabel("layer")
        figure.colorbar(image, ax=axes, label="weights reset (%)")
    if others:
        axes = panels.pop(0)
        named = len(others) <= _MAX_NAMED
        axes.barh(range(len(others)), [100 * row.share for row in others])
        axes.set_yticks(range(len(others)), [row.kind if named else "" for row in others], fontsize=7)
        axes.invert_yaxis()
        axes.set_xlim(0, highest)
        axes.set_xlabel("weights reset (% of the module)")


def _draw_fisher_plane(figure: "Figure", report: PublicReport) -> None:
    from matplotlib.colors import LogNorm

    plane = report.plane
    counts = [[count or math.nan for count in row] for row in plane.counts]
    shares = [
        [100 * chosen / count if count else math.nan for count, chosen in zip(row, selected, strict=True)]
        for row, selected in zip(plane.counts, plane.selected_counts, strict=True)
    ]
    figure.set_size_inches(9, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, values, label, norm in (
        (panels[0], counts, "weights", LogNorm()),
        (panels[1], shares, "weights reset (%)", None),
    ):
        mesh = axes.pcolormesh(plane.retain_edges, plane.forget_edges, values, norm=norm, cmap="viridis")
        figure.colorbar(mesh, ax=axes, label=label)
        axes.set_xlabel("log10 of the Fisher information on the data to keep")
        if report.gamma is not None:
            axes.axline(
                (plane.retain_edges[0], plane.retain_edges[0] + math.log10(report.gamma)),
                slope=1,
                color="red",
                linewidth=1,
                label=f"ratio {report.gamma:.4g}",
            )
        axes.set_xlim(plane.retain_edges[0], plane.retain_edges[-1])
        axes.set_ylim(plane.forget_edges[0], plane.forget_edges[-1])
    panels[0].set_ylabel("log10 of that on the data to forget")
    if report.gamma is not None:
        panels[0].legend(loc="upper left", fontsize=8)


def _draw_gamma(figure: "Figure", report: PublicReport) -> None:
    trials = [trial for trial in report.trials if trial.figures]
    figure.set_size_inches(8 if trials else 4.5, 3.2)
    panels = figure.subplots(1, 2 if trials else 1, squeeze=False)[0]
    gammas, shares = zip(*report.plane.share_by_gamma, strict=True)
    panels[0].plot(gammas, [100 * share for share in shares], marker=".")
    panels[0].set_ylabel("weights above it (%)")
    if trials:
        scale = 100 if MEASURES[report.trial_measure].is_share else 1
        for split in trials[0].figures:
            values = [scale * trial.figures[split] for trial in trials]
            panels[1].plot([trial.gamma for trial in trials], values, marker=".", label=split)
        panels[1].set_ylabel(f"{report.trial_measure} after the reset" + ("" if scale == 1 else " (%)"))
        panels[1].legend(fontsize=8)
        panels[1].set_xscale("log")
        gammas = [trial.gamma for trial in trials]
        panels[1].set_xticks(gammas, [f"{gamma:g}" for gamma in gammas])
        panels[1].set_xticks([], minor=True)
    panels[0].set_xscale("log")
    for axes in panels:
        axes.set_xlabel("threshold on the ratio")
        if report.gamma is not None:
            axes.axvline(report.gamma, color="red", linewidth=1)


def _draw_relearning(figure: "Figure", report: PublicReport) -> None:
    curves = report.relearning_by_data()
    figure.set_size_inches(4.5 * len(curves), 3.2)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (data, found) in zip(panels, curves.items(), strict=True):
        trained_on, evaluated_on = _RELEARNING_LABELS[data]
        scale = 100 if MEASURES[found.measure].is_share else 1
        for stage, curve in found.curves.items():
            # A curve is shorter if the training diverged.
            axes.plot(found.steps[: len(curve)], [scale * value for value in curve], marker=".", label=STAGES[stage])
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(found.steps, list(map(str, found.steps)))
        axes.set_xlabel(f"steps of training on {trained_on}")
        axes.set_ylabel(f"{found.measure} on {evaluated_on}" + ("" if scale == 1 else " (%)"))
        axes.legend()


def _has_successes(report: PublicReport) -> bool:
    return any(measure.name in _SUCCESSES for measure in report.measures)


def _has_relearning(report: PublicReport) -> bool:
    return bool(report.relearning_by_data())


def _has_plane(report: PublicReport) -> bool:
    return report.plane is not None


_DRAWINGS: dict[str, tuple[Callable[[PublicReport], bool], Callable[["Figure", PublicReport], None]]] = {
    "results": (_has_successes, _draw_results),
    "loss": (lambda report: bool(report.loss_quantiles), _draw_loss),
    "reset_share": (lambda report: bool(report.modules), _draw_reset_share),
    "fisher_plane": (_has_plane, _draw_fisher_plane),
    "gamma": (_has_plane, _draw_gamma),
    "relearning": (_has_relearning, _draw_relearning),
}
