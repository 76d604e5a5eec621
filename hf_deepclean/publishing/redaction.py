# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Rounds figures and counts, so that they do not tell which data were forgotten, or how many."""

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..evaluation.figures.intervals import MIN_UNBOUNDED_EXAMPLES, proportion_interval
from ..evaluation.measures import MEAN_LOSS, MEASURES, Measure, estimates_of_split
from ..evaluation.predictions import LOSS_QUANTILES
from ..evaluation.recovery import RelearningResult
from ..evaluation.samples import MIN_SAMPLE, SAMPLE_SIZES, sample_size
from ..evaluation.stages import StageResult
from ..runtime.choices import check_choice
from .public_records import Figure, PublicMeasure, PublicRelearning


FORGET_DISCLOSURES = ("withheld", "size", "description")

# At least this many examples lie between two published quantiles.
_MIN_EXAMPLES_PER_BIN = 10


def check_disclosure(disclosure: str, description: str | None) -> None:
    """
    Refuses an unknown disclosure, and a description that is missing or would not be shown.

    Args:
        disclosure (`str`):
            What is told of the forget data.
        description (`str`, *optional*):
            The owner's description of them.

    Raises:
        `ValueError`: If the two do not fit together.
    """
    check_choice("forget_disclosure", disclosure, FORGET_DISCLOSURES)
    if (disclosure == "description") != bool(description):
        raise ValueError(
            f"`forget_disclosure` is {disclosure!r}, but `forget_description` is "
            f"{'given' if description else 'missing'}. 'description' publishes the description, so pass both. Leave "
            "`forget_description` out with 'withheld' and 'size', which do not publish it."
        )


@dataclass(frozen=True)
class Redaction:
    """
    Rounds figures and counts.

    Args:
        withholds (`bool`): Whether the numbers of examples are withheld.
        left_out (`tuple[str, ...]`): Data sets whose figures are left out.
    """

    withholds: bool
    left_out: tuple[str, ...] = ()

    def count(self, split: str, number: int) -> int:
        """The published number of examples, at most the true one."""
        if not self.withholds:
            return number
        drawn = sample_size(split, number) if split in SAMPLE_SIZES else 0
        return drawn if drawn >= MIN_SAMPLE else _rung(number)

    def hides(self, split: str, name: str) -> bool:
        """Whether a figure is left out: the decimals of a caller's metric may give something away."""
        return split in self.left_out or (self.withholds and split in SAMPLE_SIZES and name not in MEASURES)

    def figure(
        self,
        measure: Measure | None,
        value: float,
        interval: tuple[float, float] | None,
        numbers: Mapping[str, int],
    ) -> Figure:
        """A figure of `numbers` examples, with the interval that the published value and numbers would have."""
        if not math.isfinite(value):
            interval = None
        rounded = self.rounding(measure, numbers)
        published = rounded(value)
        if self.withholds and interval is not None:
            public = {split: self.count(split, number) for split, number in numbers.items()}
            if measure is not None and _has_grid(measure):
                return Figure(published, _interval_on_grid(measure, published, _grid(numbers), min(public.values())))
            interval = _widened(measure, value, interval, min(numbers.values()), min(public.values()))
        return Figure(published, None if interval is None else (rounded(interval[0]), rounded(interval[1])))

    def rounding(self, measure: Measure | None, splits: Collection[str]) -> Callable[[float], float]:
        """How to round. It does not depend on the numbers of examples, which a share may tell."""
        if measure is not None and _has_grid(measure):
            steps = _grid(splits)
            return lambda value: round(value * steps) / steps if self.withholds else round(value, 3)
        return lambda value: round_to_digits(value, 2 if self.withholds else 3)


def _has_grid(measure: Measure) -> bool:
    return measure.is_share or measure.kind == "area"


def _grid(splits: Collection[str]) -> int:
    """Into how many steps shares are rounded: those of training data to the steps of the smallest sample."""
    return MIN_SAMPLE if {"forget", "retain"} & set(splits) else 100


def public_measures(
    stages: Mapping[str, StageResult], names: Mapping[str, str], policy: Redaction
) -> list[PublicMeasure]:
    """
    The published figures of all stages.

    Args:
        stages (`dict[str, StageResult]`): The results.
        names (`dict[str, str]`): The published names of the data sets.
        policy ([`Redaction`]): How to round.
    """
    found: dict[tuple[str, str], PublicMeasure] = {}

    def add(split: str, name: str, numbers: Mapping[str, int], stage: str, value: float, interval: Any) -> None:
        measure = MEASURES.get(name)
        unit = "share" if measure is not None and measure.is_share else "number"
        public = {names[part]: policy.count(part, number) for part, number in numbers.items()}
        published = found.setdefault((split, name), PublicMeasure(names[split], name, unit, public, {}))
        published.figures[stage] = policy.figure(measure, value, interval, numbers)

    for stage, result in stages.items():
        for split, of_split in result.splits.items():
            for name, (value, interval) in estimates_of_split(of_split).items():
                if not policy.hides(split, name):
                    add(split, name, {split: of_split.num_examples}, stage, value, interval)
        if "forget" in policy.left_out:
            continue
        for name, (value, interval) in result.joint_estimates().items():
            numbers = {"forget": result.splits["forget"].num_examples}
            if MEASURES[name].needs_unseen:
                numbers["unseen"] = result.splits["unseen"].num_examples
            add("forget", name, numbers, stage, value, interval)
    return list(found.values())


def withheld_measure(measure: PublicMeasure, policy: Redaction) -> PublicMeasure:
    """The withheld form of a published measure. Of one that is withheld already it is the same."""
    kind = MEASURES.get(measure.name)
    # Published names of evaluation sets are no data set of their own.
    figures = {
        stage: policy.figure(kind, figure.value, figure.interval, measure.num_examples)
        for stage, figure in measure.figures.items()
    }
    numbers = {split: policy.count(split, number) for split, number in measure.num_examples.items()}
    return replace(measure, num_examples=numbers, figures=figures)


def _interval_on_grid(measure: Measure, value: float, steps: int, number: int) -> tuple[float, float] | None:
    """The interval of a share or area on a grid: from what is published alone, and rounded outward."""
    # The threshold of an attack is uncertain too, and no published number tells how far it may lie.
    if measure.kind == "share of examples" and measure.needs_unseen:
        return None
    low, high = proportion_interval(value, number, 0.5 / steps)
    return math.floor(low * steps + 1e-9) / steps, math.ceil(high * steps - 1e-9) / steps


def _widened(
    measure: Measure | None, value: float, interval: tuple[float, float], number: int, fewest: int
) -> tuple[float, float] | None:
    """The interval that fewer examples would have."""
    kind = None if measure is None else measure.kind
    if kind == "divergence":
        # A mean of values from 0 to log 2, like a share; from the two digits that are published.
        share = round_to_digits(value, 2) / math.log(2)
        low, high = proportion_interval(min(1.0, share), fewest, 0.05 * share)
        return low * math.log(2), high * math.log(2)
    # Whether there are enough rows is told by the published numbers alone.
    if kind in ("loss", "perplexity") and fewest < MIN_UNBOUNDED_EXAMPLES:
        return None
    factor = math.sqrt(number / fewest)
    if kind == "perplexity":
        # The perplexity of an unlearned language model may overflow.
        with suppress(OverflowError):
            return tuple(value * (end / value) ** factor for end in interval)  # type: ignore[return-value]
        return interval[0], math.inf
    low, high = (value + (end - value) * factor for end in interval)
    # The interval of a figure that cannot be negative must not be negative.
    return max(0.0, low) if interval[0] >= 0 else low, high


def _rung(number: int) -> int:
    """The largest of 1, 2 and 5 times a power of ten that is not above a number; at least 1."""
    power = 10 ** (len(str(number)) - 1)
    return max([1, *(step * power for step in (2, 5) if step * power <= number), power if number else 1])


def round_to_digits(value: float, digits: int) -> float:
    """Rounds to significant digits."""
    if value == 0 or not math.isfinite(value):
        return value
    return float(f"{value:.{digits}g}")


def public_quantiles(result: StageResult, policy: Redaction) -> dict[str, dict[str, float]]:
    """Quantiles of the losses, at the same levels for all data sets, so that they can be compared."""
    shown = {split: result.splits[split] for split in ("forget", "unseen") if split in result.splits}
    shown = {split: of_split for split, of_split in shown.items() if split not in policy.left_out}
    numbers = {split: policy.count(split, of_split.num_examples) for split, of_split in shown.items()}
    # All nine deciles, every second, or only the middle one.
    fewest = min(numbers.values(), default=0)
    step = next((step for step in (1, 2, 5) if fewest * step >= 10 * _MIN_EXAMPLES_PER_BIN), None)
    if step is None:
        return {}
    levels = [f"{100 * level:.0f} %" for level in LOSS_QUANTILES[step - 1 :: step]]
    quantiles = {}
    for split, of_split in shown.items():
        rounded = policy.rounding(MEAN_LOSS, {split})
        quantiles[split] = dict(zip(levels, map(rounded, of_split.loss_deciles[step - 1 :: step]), strict=True))
    return quantiles


def public_trial_figures(
    result: StageResult, measure: Measure, names: Mapping[str, str], policy: Redaction
) -> dict[str, float]:
    """The published figures of a trial, by data set."""
    figures = {}
    for split, of_split in result.splits.items():
        if split not in policy.left_out:
            rounded = policy.rounding(measure, {split})
            value, _ = estimates_of_split(of_split)[measure.name]
            figures[names[split]] = rounded(value)
    return figures


def public_relearning(found: RelearningResult, policy: Redaction) -> PublicRelearning:
    """The published form of a relearning result."""
    number = found.num_forget_examples
    # The number of the few examples is at most the number of all, which it would tell.
    if policy.withholds and number is not None and number > MIN_SAMPLE:
        number = None
    rounded = policy.rounding(MEASURES[found.measure], {"forget"})
    curves = {stage: tuple(map(rounded, curve)) for stage, curve in found.curves.items()}
    excess = found.excess()
    return PublicRelearning(
        found.measure,
        found.learning_rate,
        found.steps,
        curves,
        None if excess is None else rounded(excess),
        number,
    )
