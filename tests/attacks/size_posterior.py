# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
An attacker who knows this package, and computes how probable every number of forgotten rows is after what was
published. Every number from 50 to 1,000 is possible before.

The likelihoods are exact: of every number of rows, all counts that are possible are put through the rounding of the
package. Shares of all stages and steps are taken as independent, and equally probable before. The reference has not
seen the forgotten rows, so its results on them differ from those on unseen rows by chance alone.
"""

import math
from collections.abc import Iterable
from functools import cache

import numpy as np
from scipy.stats import binom, norm

from hf_deepclean import PublicReport
from hf_deepclean.evaluation.figures.intervals import proportion_interval
from hf_deepclean.evaluation.measures import ACCURACY, MEMBERSHIP_AUC
from hf_deepclean.evaluation.samples import sample_size
from hf_deepclean.publishing.redaction import Redaction


CANDIDATES = np.arange(50, 1001)
PRIORS = {"uniform": np.ones(len(CANDIDATES)), "logarithmic": 1.0 / CANDIDATES}
PRIORS = {name: weights / weights.sum() for name, weights in PRIORS.items()}
STEPS, MOST_ROWS = 50, 6000
# Shares that the attacker integrates over.
_SHARES = np.linspace(0.0025, 0.9975, 200)


def ratio(log_likelihood: np.ndarray, prior: np.ndarray, truth: int) -> float:
    """How many times as probable the truth is after what was published as before."""
    weights = np.exp(log_likelihood - log_likelihood.max())
    return float(weights[truth - CANDIDATES[0]] / (prior * weights).sum())


def of_forgotten(public: PublicReport) -> np.ndarray:
    """The log-likelihood of every candidate, given the figures of the forgotten rows."""
    return _log_shares(public, "forget", CANDIDATES) + _of_reference(public)


def _cell(value: float) -> int:
    return round(Redaction(True).rounding(ACCURACY, ("forget",))(value) * STEPS)


def _numbers(public: PublicReport, split: str, rows: np.ndarray) -> np.ndarray:
    """Of how many rows the figures are, by the number of rows."""
    return np.array([sample_size(split, int(number)) for number in rows]) if public.drawn else rows


@cache
def _log_cells() -> np.ndarray:
    """The log-probability of every published share by number of rows, all counts of which are equally probable."""
    table = np.full((MOST_ROWS + 1, STEPS + 1), 1e-12)
    for number in range(1, MOST_ROWS + 1):
        # Like the rounding of the package.
        cells = np.rint(np.arange(number + 1) / number * STEPS).astype(int)
        table[number] += np.bincount(cells, minlength=STEPS + 1) / (number + 1)
    return np.log(table)


def _log_shares(public: PublicReport, split: str, rows: np.ndarray) -> np.ndarray:
    """The log-likelihood of all shares of a data set, by its number of rows."""
    return _log_cells()[:, _shares(public, split)].sum(1)[_numbers(public, split, rows)]


def _shares(public: PublicReport, split: str) -> list[int]:
    """All shares of a data set that the record holds, as steps of the grid."""
    found = [
        _cell(figure.value)
        for measure in public.measures
        if measure.split == split and measure.unit == "share" and set(measure.num_examples) == {split}
        for stage, figure in measure.figures.items()
        # That one is compared with unseen rows.
        if (split, measure.name, stage) != ("forget", "accuracy", "reference")
    ]
    if split == "forget":
        relearned = [found for found in public.relearning_by_data().values() if found.measure != "mean loss"]
        # The first step repeats a result of the table.
        found += [_cell(value) for one in relearned for curve in one.curves.values() for value in curve[1:]]
    return found


def of_retained(public: PublicReport, num_retained: np.ndarray) -> np.ndarray:
    """The log-likelihood of the shares of the retained rows and of their stated number, by their number."""
    rows = np.maximum(num_retained, 1)
    total = _log_shares(public, "retain", rows)
    measure = public.measure("retain", "accuracy")
    if public.drawn and measure is not None:
        stated = np.array([Redaction(True).count("retain", int(number)) for number in rows])
        total = np.where(stated == measure.num_examples["retain"], total, -1e3)
    return np.where(num_retained > 0, total, -1e3)


def _of_reference(public: PublicReport) -> np.ndarray:
    """How far chance has moved the reference's accuracy on forgotten rows from that on unseen ones, and the AUC."""
    total = np.zeros(len(CANDIDATES))
    numbers = _numbers(public, "forget", CANDIDATES)
    forget, unseen = (public.measure(split, "accuracy") for split in ("forget", "unseen"))
    if forget and unseen and "reference" in forget.figures:
        num_unseen = unseen.num_examples["unseen"]
        right = round(unseen.figures["reference"].value * num_unseen)
        weights = binom.pmf(right, num_unseen, _SHARES)
        cell = _cell(forget.figures["reference"].value)
        chances = {int(number): _chances(cell, int(number)) @ weights for number in np.unique(numbers)}
        total += np.log(np.array([chances[int(number)] for number in numbers]) / weights.sum() + 1e-12)
    area = public.measure("forget", MEMBERSHIP_AUC.name)
    if area and "reference" in area.figures:
        num_unseen = area.num_examples["unseen"]
        spread = np.sqrt((numbers + num_unseen + 1) / (12 * numbers * num_unseen))
        low, high = ((area.figures["reference"].value + half / STEPS - 0.5) / spread for half in (-0.5, 0.5))
        total += np.log(norm.cdf(high) - norm.cdf(low) + 1e-12)
    return total


@cache
def _chances(cell: int, number: int) -> np.ndarray:
    """The probability that a share of rows lies in a cell, by the true share."""
    low, high = ((cell + half) / STEPS * number for half in (-0.5, 0.5))
    return binom.cdf(math.floor(high), number, _SHARES) - binom.cdf(math.ceil(low) - 1, number, _SHARES)


def posterior_of_exact_figures(public: PublicReport) -> np.ndarray:
    """The log-likelihood of every candidate, if shares and their intervals have three decimals, as with `"size"`."""
    accuracy = public.measure("forget", "accuracy").figures
    figures = [(accuracy[stage].value, accuracy[stage].interval) for stage in ("after_reset", "reference")]
    return np.array([_log_chance_of_figures(int(number), figures) for number in CANDIDATES])


def _log_chance_of_figures(number: int, figures: Iterable[tuple[float, tuple[float, float]]]) -> float:
    total = 0.0
    for value, interval in figures:
        counts = range(int(np.ceil((value - 5e-4) * number)), int(np.floor((value + 5e-4) * number)) + 1)
        fitting = sum(_published(count, number) == (value, tuple(interval)) for count in counts if count <= number)
        if not fitting:
            return -1e3
        total += np.log(fitting / (number + 1))
    return total


@cache
def _published(count: int, number: int) -> tuple[float, tuple[float, float]]:
    low, high = proportion_interval(count / number, number)
    return round(count / number, 3), (round(low, 3), round(high, 3))


def of_second_request(second: PublicReport, num_training: int, further: np.ndarray) -> np.ndarray:
    """
    The log-likelihood of every number of rows of the first of two requests to one model, given the publication of the
    second. Its training data are those of the first less the rows of the first.

    Args:
        second (`PublicReport`): The publication of the second request.
        num_training (`int`): Number of all rows before both requests.
        further (`np.ndarray`): The prior of the number of rows of the second request, by candidate.
    """
    of_second = of_forgotten(second) + np.log(further)
    retained = of_retained(second, np.arange(num_training))
    left = num_training - CANDIDATES[:, None] - CANDIDATES[None]
    joint = np.where(left > 0, of_second + retained[np.maximum(left, 0)], -1e3)
    return np.logaddexp.reduce(joint, axis=1)
