# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from hf_deepclean.evaluation.figures.membership import MembershipAttack
from hf_deepclean.evaluation.measures import (
    ACCURACY,
    MEASURES,
    MIN_K_AUC,
    TOKEN_ACCURACY,
    VERBATIM,
    estimates_of_split,
    measure_of_figure,
)
from hf_deepclean.evaluation.results import SplitResult, TokenResult
from hf_deepclean.evaluation.stages import STAGES, StageResult, rounded_stage
from hf_deepclean.report.tables import format_figure


def test_every_figure_that_is_measured_is_in_the_table():
    attack = MembershipAttack(0.6, (0.5, 0.7), 0.02, 10, 200)
    figures = dict(StageResult({}, attack, 0.1, attack).joint_estimates())
    for strength in (None, 0.5):
        tokens = TokenResult(8, 90, 3.5, 0.75, 2, (0.1, 0.4), strength)
        figures |= estimates_of_split(SplitResult(9, 1.25, (1.0,) * 9, tokens=tokens))
    figures |= estimates_of_split(SplitResult(9, 1.25, (1.0,) * 9, accuracy=0.5))
    assert figures.keys() == MEASURES.keys()


def test_a_figure_has_the_longest_measure_that_its_name_ends_with():
    assert measure_of_figure("eval far token accuracy") is TOKEN_ACCURACY
    assert measure_of_figure("retain accuracy") is measure_of_figure("accuracy") is ACCURACY
    assert measure_of_figure("Min-K% membership AUC") is MIN_K_AUC
    assert measure_of_figure("forget f1") is measure_of_figure("forget nonverbatim") is None


@pytest.mark.parametrize("name", MEASURES)
def test_shares_are_shown_in_percent_and_other_measures_as_numbers(name):
    assert format_figure(f"forget {name}", 0.25) == ("25.0 %" if MEASURES[name].is_share else "0.250")


def test_metrics_of_the_caller_are_shown_in_percent_by_their_names_alone():
    in_percent = ("overall_accuracy", "accuracy_class_0", "nonverbatim", "my TPR at 1 % FPR")
    assert {format_figure(f"retain {name}", 0.25) for name in in_percent} == {"25.0 %"}
    assert {format_figure(f"retain {name}", 0.25) for name in ("f1", "hinge loss", "verbatim texts")} == {"0.250"}
    assert format_figure(f"retain {VERBATIM.name}", 0.25) == "25.0 %"


def test_a_rounded_stage_is_named_by_its_stage_and_its_bits():
    assert rounded_stage("after_repair", 4) == "after_repair_4_bits"
    assert all(rounded_stage(stage, 8) not in STAGES for stage in STAGES)
