# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Guesses the number of forgotten rows from what 20 withheld runs publish, once or twice."""

import sys

import numpy as np
import pytest

from hf_deepclean import PublicReport, UnlearningCard
from tests.attacks.size_attack import KINDS, PUBLICATIONS, attack, chance, features, guesses, numbers, run, sizes


NUM_RUNS = 10


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Both reports of every run of both kinds of models, by the number of forgotten rows."""
    directory = tmp_path_factory.mktemp("runs")
    return {
        kind: {
            size: [
                run(kind, number, size, directory / f"{kind}-{number}-{again}", again, **settings)
                for again, settings in enumerate(PUBLICATIONS[kind])
            ]
            for number, size in enumerate(sizes(NUM_RUNS))
        }
        for kind in KINDS
    }


def numbers_published(report, disclosure):
    """All numbers of the record but stated numbers of rows, and the length of the card that is made from it."""
    public = PublicReport.of(report, disclosure)
    # These strings differ between any two runs and are numbers of nothing.
    record = public.to_dict() | {"versions": {}, "length of the card": len(str(UnlearningCard.from_report(public)))}
    del record["integrity"]["frozen_checksum"]
    if disclosure != "withheld":
        for measure in record["measures"]:
            del measure["num_examples"]
    return numbers(record)


def attacked(reports, publications, disclosure="withheld"):
    tables = [
        features(
            [
                {
                    f"{again}{place}": value
                    for again in publications
                    for place, value in numbers_published(both[again], disclosure).items()
                }
                for both in of_kind.values()
            ]
        )
        for of_kind in reports.values()
    ]
    return tables, [np.log(list(of_kind)) for of_kind in reports.values()]


def show(title, found):
    """`pytest -s -m slow` shows the errors and rank correlations."""
    for name, (error, correlation) in found.items():
        sys.stdout.write(f"{title}: {name}: error {error:.2f}, rank correlation {correlation:.2f}\n")


@pytest.mark.slow
@pytest.mark.parametrize("publications", [(0,), (1,), (0, 1)])
def test_the_number_of_forgotten_rows_is_guessed_no_better_than_without_what_is_published(reports, publications):
    tables, truths = attacked(reports, publications)
    found = attack(tables, truths)
    show(f"withheld, publications {publications}", found)
    assert chance(tables, truths) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("publication", [0, 1])
def test_records_of_runs_of_any_size_differ_in_figures_alone(reports, publication):
    for of_kind in reports.values():
        records = [PublicReport.of(both[publication]).to_dict() for both in of_kind.values()]
        for record in records:
            del record["integrity"]["frozen_checksum"], record["loss_quantiles"]
            for measure in record["measures"]:
                measure["figures"] = sorted(measure["figures"])
        assert all(record == records[0] for record in records)


@pytest.mark.slow
def test_the_attack_guesses_the_number_from_a_report_that_withholds_nothing_else(reports):
    tables, truths = attacked(reports, (0, 1), "size")
    found = attack(tables, truths)
    show("size, without stated numbers of rows", found)
    assert chance(tables, truths) <= 0.01
    assert min(error for error, _ in found.values()) < found["prior"][0] / 2


@pytest.mark.slow
def test_the_figures_tell_whether_a_whole_class_was_forgotten_as_the_page_says(reports):
    tables, _ = attacked(reports, (0, 1))
    # Every second run forgets a class.
    is_class = np.arange(NUM_RUNS) % 2
    right = [(guesses(table, is_class.astype(float))["ridge"] > 0.5) == is_class for table in tables]
    assert np.sum(right) == 2 * NUM_RUNS
