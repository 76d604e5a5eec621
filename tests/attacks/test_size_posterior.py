# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Computes how probable the true number of forgotten rows is after what withheld runs publish."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hf_deepclean import PublicReport, UnlearningCard
from hf_deepclean.publishing.redaction import Redaction
from tests.attacks.simulated_runs import draw_run, numbers_of_rows, report_of, with_other_numbers
from tests.attacks.size_posterior import (
    CANDIDATES,
    PRIORS,
    of_forgotten,
    of_retained,
    of_second_request,
    posterior_of_exact_figures,
    ratio,
)


PROMISE = "the number of forgotten rows stays withheld"
# Numbers that earlier forms of the report gave away.
NAMED = (60, 97, 133, 120)
NUM_REPORTS = 200
BAR = 2.0


def published_as_of_all_rows(report):
    """What the last form of the public report told: figures of all rows, rounded to 2 points."""
    stages = {stage: replace(result, sample=replace(result, sample=None)) for stage, result in report.stages.items()}
    relearning = replace(report.relearning, sample=report.relearning)
    return replace(PublicReport.of(replace(report, stages=stages, relearning=relearning)), drawn=False)


FORMS = {"now": PublicReport.of, "of all rows": published_as_of_all_rows}


@pytest.mark.parametrize(("is_text", "num_pairs"), [(False, 2), (True, 1)])
def test_record_and_card_are_functions_of_the_drawn_rows_whatever_their_number(attack, is_text, num_pairs):
    """So the number of rows is no more probable after them than before, for whoever knows no single row."""
    generator, attempts = np.random.default_rng(0), {}
    for number in range(num_pairs):
        sizes = [numbers_of_rows(*size) for size in generator.integers((50, 200), (200, 300), (2, 2)).tolist()]
        run = draw_run(sizes[0], generator, is_text)
        other = with_other_numbers(run, sizes[1] | {"unseen": 233}, generator, is_text)
        first, second = (PublicReport.of(report_of(each, is_text)) for each in (run, other))
        assert first.measure("forget", "verbatim" if is_text else "accuracy") is not None
        assert first.relearning is not None and first.loss_quantiles
        attempts[f"record {number}"] = first.to_dict() != second.to_dict()
        attempts[f"card {number}"] = str(UnlearningCard.from_report(first)) != str(UnlearningCard.from_report(second))
    assert attack(PROMISE, attempts) == []


def test_a_short_attack_tells_nothing_of_drawn_rows_and_the_number_of_all(attack):
    generator = np.random.default_rng(1)
    attempts = {}
    for number in NAMED[:2]:
        report = report_of(draw_run(numbers_of_rows(number, 1200), generator))
        for name, prior in PRIORS.items():
            public = PublicReport.of(report)
            found = ratio(of_forgotten(public) + of_retained(public, number + 1200 - CANDIDATES), prior, number)
            attempts[f"{number}, {name}"] = found > BAR
            # The attack sees it in figures of all rows with three decimals.
            told = PublicReport.of(report, "size")
            assert ratio(posterior_of_exact_figures(told), prior, number) > 10 * BAR
    assert attack(PROMISE, attempts) == []


def half_of_the_power_of_ten_below(num_retained, num_training):
    """The number of retained rows that an earlier version stated."""
    return min(10 ** (len(str(num_training)) - 1) // 2, num_retained)


def test_the_stated_number_of_retained_rows_tells_nothing_of_an_earlier_request(attack):
    """The training data of a second request are smaller by the first, and may cross a power of ten."""
    second, attempts, earlier = 50, {}, []
    for num_training in (1250, 1400, 2000, 10_400):
        trained = num_training - CANDIDATES
        now = np.array([Redaction(True).count("retain", int(rows) - second) for rows in trained])
        old = np.array([half_of_the_power_of_ten_below(int(rows) - second, int(rows)) for rows in trained])
        for kind, prior in PRIORS.items():
            gains = [max(1 / prior[stated == one].sum() for one in np.unique(stated)) for stated in (now, old)]
            attempts[f"{num_training} rows, {kind} prior"] = gains[0] > BAR
            earlier.append(gains[1])
    assert attack(PROMISE, attempts) == []
    assert max(earlier) > 2 * BAR


def test_the_cards_of_this_repository_tell_nothing_of_their_number(attack):
    folder = Path(__file__).parents[2] / "model_cards"
    attempts = {}
    for name, number, num_training in (("digits-random", 120, 1200), ("text-classifier", 600, 6000)):
        public = PublicReport.from_dict(json.loads((folder / name / "report.json").read_text()))
        for kind, prior in PRIORS.items():
            for known in (None, num_training):
                evidence = of_forgotten(public)
                if known is not None:
                    evidence = evidence + of_retained(public, known - CANDIDATES)
                found = ratio(evidence, prior, number)
                attempts[f"{name}, {kind} prior, {known} rows"] = found > BAR
    assert attack(PROMISE, attempts) == []


@pytest.fixture(scope="module")
def simulated():
    """
    Two requests of one model, and the first published twice: after other seeds and settings. `(num_forget,
    num_training, reports of the first, report of the second)`.
    """
    generator, found = np.random.default_rng(2), []
    drawn = generator.choice(CANDIDATES, NUM_REPORTS - len(NAMED), p=PRIORS["logarithmic"]).tolist()
    for number in [*NAMED, *drawn]:
        further, left = (int(generator.integers(*ends)) for ends in ((50, 500), (1200, 2000)))
        run = draw_run(numbers_of_rows(number, further + left), generator)
        again = draw_run(numbers_of_rows(number, further + left), generator)
        again |= {stage: run[stage] for stage in ("before", "reference")}
        second = draw_run(numbers_of_rows(further, left), generator)
        reports = [report_of(each) for each in (run, again, second)]
        found.append((number, number + further + left, reports[:2], reports[2]))
    return found


def likelihoods(simulated, publish):
    """What the attacker computes of every run, by setting."""
    # The second request had 50 to 499 rows, and the attacker knows it.
    further = np.where(CANDIDATES < 500, 1.0, 1e-9)
    found = {}
    for _, num_training, first, second in simulated:
        first = [publish(report) for report in first]
        forgotten = [of_forgotten(public) for public in first]
        retained = [of_retained(public, num_training - CANDIDATES) for public in first]
        of_second = of_second_request(publish(second), num_training, further / further.sum())
        settings = {
            "one publication": forgotten[0],
            "two publications": sum(forgotten),
            "one publication, known training size": forgotten[0] + retained[0],
            "two publications, known training size": sum(forgotten) + sum(retained),
            "two requests, known training size": forgotten[0] + retained[0] + of_second,
        }
        for setting, log_likelihood in settings.items():
            found.setdefault(setting, []).append(log_likelihood)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("form", ["now", "of all rows"])
def test_the_true_number_is_never_twice_as_probable_after_what_is_published(attack, simulated, form):
    attempts, worst = {}, []
    for setting, found in likelihoods(simulated, FORMS[form]).items():
        for kind, prior in PRIORS.items():
            ratios = [ratio(one, prior, run[0]) for one, run in zip(found, simulated, strict=True)]
            worst.append(max(ratios))
            named = ", ".join(f"{number}: {value:.2f}" for number, value in zip(NAMED, ratios, strict=False))
            sys.stdout.write(
                f"{form}: {setting}, {kind} prior: worst {worst[-1]:.2f}, mean {np.mean(ratios):.2f} ({named})\n"
            )
            attempts |= {f"{setting}, {kind} prior, {number}": value > BAR for number, value in enumerate(ratios)}
    if form == "now":
        assert attack(PROMISE, attempts) == []
    else:
        # The same attack on what the last form told.
        assert min(worst) > BAR and max(worst) > 10 * BAR
