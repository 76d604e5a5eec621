# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
How often do the 95 % intervals of a report cover the true figure? Data sets are drawn, and the intervals counted.

    python -m tests.evaluation.figures.simulations --markdown hf_deepclean/evaluation/figures/README.md
"""

import argparse
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hf_deepclean.evaluation.figures.attack_intervals import auc_interval, tpr_interval
from hf_deepclean.evaluation.figures.intervals import mean_interval, proportion_interval
from hf_deepclean.evaluation.predictions import ExamplePredictions, TokenPredictions
from hf_deepclean.evaluation.results import summarize_predictions
from hf_deepclean.report.tables import format_markdown_table


NUM_DATA_SETS = 1000
MIN_COVERAGE = 0.93
_BEGIN, _END = "<!-- coverage: begin -->", "<!-- coverage: end -->"

Generator = np.random.Generator
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Case:
    """Simulated data of one kind: the true figure, and the interval of a data set that is drawn."""

    figure: str
    data: str
    truth: float
    interval: Callable[..., Interval]
    sizes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Coverage:
    """How many of the data sets have an interval, and which share of these intervals covers."""

    num_given: int
    share: float


def measure(case: Case, size: tuple[int, ...], num_data_sets: int = NUM_DATA_SETS) -> Coverage:
    """Draws data sets of a case and counts. The seed belongs to the case and the size."""
    generator = np.random.default_rng(zlib.crc32(f"{case.figure} {case.data} {size}".encode()))
    found = [case.interval(generator, *size) for _ in range(num_data_sets)]
    given = [interval for interval in found if interval is not None]
    covers = [low <= case.truth <= high for low, high in given]
    return Coverage(len(given), float(np.mean(covers)) if given else math.nan)


def expected(function: Callable[[np.ndarray], np.ndarray], mean: float, deviation: float) -> float:
    """The mean of a function of a normal variable."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    return float(weights @ function(mean + deviation * points) / weights.sum())


def normal_probability(value: float) -> float:
    return math.erfc(-value / math.sqrt(2)) / 2


def softplus(values: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, values)


def rare(generator: Generator, number: int, share: float, usual: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.where(generator.random(number) < share, other, usual)


def rare_losses(generator: Generator, number: int) -> np.ndarray:
    losses = generator.exponential(size=(2, number))
    return rare(generator, number, 0.02, 0.02 * losses[0], 5 * losses[1])


def of_losses(draw: Callable[[Generator, int], np.ndarray], low: float = 0.0) -> Callable[..., Interval]:
    return lambda generator, number: mean_interval(draw(generator, number), (low, math.inf))


def classifier_loss(generator: Generator, number: int, share: float) -> Interval:
    """A classifier of two classes that is confident and right, except on a share of wrong labels."""
    margins = 6 + 2 * generator.normal(size=number)
    labels = (generator.random(number) < share).astype(int)
    log_probabilities = -np.stack([softplus(-margins), softplus(margins)], axis=1)
    log_likelihood = log_probabilities[np.arange(number), labels]
    return summarize_predictions(
        ExamplePredictions(None, labels, log_likelihood, log_probabilities)
    ).mean_loss_interval


def text_lengths(generator: Generator, number: int) -> np.ndarray:
    return generator.integers(5, 40, number)


def texts(figure: str, draw: Callable[[Generator, np.ndarray], tuple[np.ndarray, np.ndarray]]):
    """The interval of a figure of texts, of which the mean loss and the share of right tokens are drawn."""

    def interval(generator: Generator, number: int) -> Interval:
        counts = text_lengths(generator, number)
        losses, shares = draw(generator, counts)
        tokens = np.repeat(losses, counts) * generator.gamma(0.5, 2, counts.sum())
        right = generator.random(counts.sum()) < np.repeat(shares, counts)
        answers = TokenPredictions(-tokens, right, counts, True, num_choices=1000)
        predictions = ExamplePredictions(None, counts, -tokens, None, answers)
        return getattr(summarize_predictions(predictions).tokens, f"{figure}_interval")

    return interval


def known_texts(generator: Generator, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A model knows 95 of 100 texts well, and the others not at all."""
    unknown = generator.random(len(counts)) < 0.05
    return np.where(unknown, 3.0, 0.02), np.where(unknown, 0.3, 0.99)


def uneven_texts(generator: Generator, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses of texts are lognormal, and long texts are known less."""
    return generator.lognormal(-3, 1.5, len(counts)), np.where(counts > 30, 0.5, 0.9)


def strengths(generator: Generator, number: int) -> np.ndarray:
    kind, share = generator.random(number), generator.random(number)
    return np.where(kind < 0.6, 0.0, np.where(kind < 0.9, share, 1.0))


def attack(interval: Callable[..., Interval], forget: Callable, unseen: Callable) -> Callable[..., Interval]:
    return lambda generator, *sizes: interval(forget(generator, sizes[0]), unseen(generator, sizes[1]))


def normal(mean: float = 0.0, deviation: float = 1.0) -> Callable[[Generator, int], np.ndarray]:
    return lambda generator, number: mean + deviation * generator.normal(size=number)


def mixed(share: float, other: float, usual: float) -> Callable[[Generator, int], np.ndarray]:
    """Normal scores around one mean, and a share of them around another."""
    return lambda generator, number: (
        rare(generator, number, share, np.full(number, usual), np.full(number, other)) + generator.normal(size=number)
    )


def tied(draw: Callable[[Generator, int], np.ndarray]) -> Callable[[Generator, int], np.ndarray]:
    return lambda generator, number: np.round(draw(generator, number))


def area(mean: float, deviation: float = 1.0) -> float:
    return normal_probability(mean / math.hypot(1, deviation))


def tied_area(mean: float) -> float:
    """The area of rounded normal scores of which one kind is higher by `mean`."""
    values = np.arange(-12, 14)
    shares = [
        np.array([normal_probability(v + 0.5 - m) - normal_probability(v - 0.5 - m) for v in values])
        for m in (mean, 0)
    ]
    return float(sum(p * (shares[1][:place].sum() + shares[1][place] / 2) for place, p in enumerate(shares[0])))


# The 99 % quantile of the standard normal distribution.
_THRESHOLD = 2.3263478740408408


_OF_TEXTS = ((5,), (20,), (60,), (300,))


def _cases_of_rows() -> list[Case]:
    few, many = ((5,), (20,), (100,), (1000,)), ((20,), (60,), (200,), (1000,))
    wrong = [
        (share, (1 - share) * expected(lambda m: softplus(-m), 6, 2) + share * expected(softplus, 6, 2))
        for share in (0.02, 0.2)
    ]
    loss, skewed = "mean loss", "mean loss, no bound known"
    return [
        *(
            Case("accuracy, verbatim", f"share {share}", share, partial(_share_of_rows, share), few)
            for share in (0.5, 0.9, 0.02)
        ),
        Case(skewed, "exponential", 1.0, of_losses(lambda g, n: g.exponential(size=n)), many),
        Case(skewed, "lognormal, sigma 1", math.exp(0.5), of_losses(lambda g, n: g.lognormal(0, 1, n)), many),
        Case(skewed, "lognormal, sigma 2", math.exp(2), of_losses(lambda g, n: g.lognormal(0, 2, n)), many),
        Case(skewed, "Pareto, shape 3", 0.5, of_losses(lambda g, n: g.pareto(3, n)), many),
        Case(skewed, "Pareto, shape 1.5", 2.0, of_losses(lambda g, n: g.pareto(1.5, n)), many),
        Case(skewed, "2 % of rows hold 84 %", 0.02 * 5 + 0.98 * 0.02, of_losses(rare_losses), many),
        Case(
            skewed,
            "confident classifier",
            expected(lambda m: softplus(-m), 6, 2.5),
            of_losses(lambda g, n: softplus(-6 - 2.5 * g.normal(size=n))),
            many,
        ),
        Case(skewed, "densities, losses of -1 to 3", 1.0, of_losses(normal(1.0), -math.inf), many),
        *(
            Case(
                loss,
                f"classifier, {100 * share:.0f} % wrong labels",
                truth,
                partial(classifier_loss, share=share),
                _OF_TEXTS,
            )
            for share, truth in wrong
        ),
    ]


def _cases_of_texts() -> list[Case]:
    known, uneven = 0.95 * 0.02 + 0.05 * 3, math.exp(-3 + 1.5**2 / 2)
    return [
        Case(
            "token accuracy",
            "5 % of texts unknown",
            0.95 * 0.99 + 0.05 * 0.3,
            texts("accuracy", known_texts),
            _OF_TEXTS,
        ),
        Case(
            "token accuracy", "long texts known less", _uneven_accuracy(), texts("accuracy", uneven_texts), _OF_TEXTS
        ),
        Case("perplexity", "5 % of texts unknown", math.exp(known), texts("perplexity", known_texts), _OF_TEXTS),
        Case(
            "perplexity",
            "lognormal losses of texts, sigma 1.5",
            math.exp(uneven),
            texts("perplexity", uneven_texts),
            _OF_TEXTS,
        ),
        Case(
            "extraction strength",
            "most 0, some 1",
            0.25,
            lambda g, n: mean_interval(strengths(g, n), (0, 1)),
            _OF_TEXTS,
        ),
        Case(
            "JS divergence",
            "most near 0",
            math.log(2) * 0.1 / 5.1,
            lambda g, n: mean_interval(math.log(2) * g.beta(0.1, 5, n), (0, math.log(2))),
            _OF_TEXTS,
        ),
        Case(
            "JS divergence",
            "2 % of rows far apart",
            0.02 * 0.6 + 0.98 * 0.001,
            lambda g, n: mean_interval(rare(g, n, 0.02, 0.002 * g.random(n), np.full(n, 0.6)), (0, math.log(2))),
            _OF_TEXTS,
        ),
    ]


def _cases_of_areas() -> list[Case]:
    pairs = ((1, 50), (2, 100), (5, 200), (10, 50), (10, 1000), (20, 20), (20, 60), (60, 60), (60, 200), (300, 300))
    auc = "membership AUC"
    return [
        Case(auc, "no difference", 0.5, attack(auc_interval, normal(), normal()), pairs),
        Case(auc, "0.76", area(1), attack(auc_interval, normal(1), normal()), pairs),
        Case(auc, "0.98", area(2.9), attack(auc_interval, normal(2.9), normal()), pairs),
        Case(auc, "0.995", area(3.64), attack(auc_interval, normal(3.64), normal()), pairs),
        Case(auc, "0.02", area(-2.9), attack(auc_interval, normal(-2.9), normal()), pairs),
        Case(
            auc, "forget scores three times as wide", area(1, 3), attack(auc_interval, normal(1, 3), normal()), pairs
        ),
        Case(
            auc,
            "half of the forget rows known",
            (1 + area(6)) / 2 - 0.25,
            attack(auc_interval, mixed(0.5, 6, 0), normal()),
            pairs,
        ),
        Case(
            auc,
            "2 % of forget rows stand out below",
            0.98 * area(6) + 0.02 * area(-5),
            attack(auc_interval, mixed(0.02, -5, 6), normal()),
            pairs,
        ),
        Case(
            auc,
            "5 % of unseen rows above all",
            0.95 * area(4) + 0.05 * area(-6),
            attack(auc_interval, normal(4), mixed(0.05, 10, 0)),
            pairs,
        ),
        Case(auc, "rounded scores", tied_area(0.7), attack(auc_interval, tied(normal(0.7)), tied(normal())), pairs),
    ]


def _cases_of_hits() -> list[Case]:
    pairs = ((20, 60), (5, 200), (20, 100), (60, 1000), (300, 100), (300, 300), (1000, 1000))
    tpr = "membership TPR at 1 % FPR"
    return [
        *(
            Case(
                tpr,
                f"forget scores higher by {shift}",
                normal_probability(shift - _THRESHOLD),
                attack(tpr_interval, normal(shift), normal()),
                pairs,
            )
            for shift in (0, 1, 2.33, 4)
        ),
        Case(
            tpr,
            "forget scores close together",
            normal_probability((2.3 - _THRESHOLD) / 0.2),
            attack(tpr_interval, normal(2.3, 0.2), normal()),
            pairs,
        ),
        Case(
            tpr,
            "half of the forget rows known",
            0.5 * normal_probability(6 - _THRESHOLD) + 0.005,
            attack(tpr_interval, mixed(0.5, 6, 0), normal()),
            pairs,
        ),
        # At most 1 % of rounded scores are above 2, and 2.3 % are above 1.5.
        Case(
            tpr,
            "rounded scores",
            1 - normal_probability(2.5 - 1),
            attack(tpr_interval, tied(normal(1)), tied(normal())),
            pairs,
        ),
    ]


def _share_of_rows(share: float, generator: Generator, number: int) -> Interval:
    return proportion_interval(generator.binomial(number, share) / number, number)


def _uneven_accuracy() -> float:
    counts = np.arange(5, 40)
    return float(counts @ np.where(counts > 30, 0.5, 0.9) / counts.sum())


CASES = [*_cases_of_rows(), *_cases_of_texts(), *_cases_of_areas(), *_cases_of_hits()]


def coverage_table(num_data_sets: int = NUM_DATA_SETS) -> str:
    """The table of all cases, as Markdown."""
    rows = []
    for case in CASES:
        cells = []
        for size in case.sizes:
            found = measure(case, size, num_data_sets)
            cover = f"{100 * found.share:.1f}" if found.num_given else "too few"
            cells.append(f"{' / '.join(f'{number:,}' for number in size)}: {cover}")
        rows.append([f"{case.figure}: {case.data}", "; ".join(cells)])
    return format_markdown_table(["rows: covered, in %"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, help="page whose table is replaced")
    page = parser.parse_args().markdown
    table = coverage_table()
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    page.write_text(f"{before}{_BEGIN}\n\n{table}\n\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
