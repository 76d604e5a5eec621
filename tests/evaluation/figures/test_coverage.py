# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from .simulations import CASES, MIN_COVERAGE, NUM_DATA_SETS, measure


# The cases in which normal, Wilson's and DeLong's intervals cover least.
HARD = {
    "mean loss, no bound known: lognormal, sigma 2": (200,),
    "mean loss, no bound known: 2 % of rows hold 84 %": (200,),
    "mean loss: classifier, 2 % wrong labels": (20,),
    "accuracy, verbatim: share 0.02": (20,),
    "perplexity: 5 % of texts unknown": (20,),
    "membership AUC: 0.98": (20, 60),
    "membership AUC: 2 % of forget rows stand out below": (10, 50),
    "membership TPR at 1 % FPR: forget scores close together": (300, 100),
    "membership TPR at 1 % FPR: half of the forget rows known": (60, 1000),
}
BY_NAME = {f"{case.figure}: {case.data}": case for case in CASES}


@pytest.mark.parametrize("name", HARD)
def test_intervals_cover_where_the_usual_ones_do_not(name):
    found = measure(BY_NAME[name], HARD[name], 300)
    assert found.num_given == 300
    assert found.share >= MIN_COVERAGE


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_every_interval_of_a_report_covers_in_at_least_93_percent_of_data_sets(name):
    for size in BY_NAME[name].sizes:
        found = measure(BY_NAME[name], size)
        # Whether there is an interval depends on the numbers of rows alone: nothing is chosen by how the data look.
        assert found.num_given in (0, NUM_DATA_SETS), size
        assert not found.num_given or found.share >= MIN_COVERAGE, size
