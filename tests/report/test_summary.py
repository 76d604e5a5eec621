# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from hf_deepclean import summarize_reports
from tests.report.reports import report, stage


def test_a_summary_over_runs_shows_means_and_ranges_of_what_all_runs_have():
    first, second = report(), report(stages={"before": stage(0.9), "after_repair": stage(0.25)})
    assert "| forget accuracy | 100.0 % | 75.0 % | 70.0 % |" in summarize_reports([first])
    assert summarize_reports([first]).startswith("| | before | unlearned | reference |\n|---|---|---|---|\n")
    both = summarize_reports([first, second])
    assert "| forget accuracy | 95.0 % (90.0 % to 100.0 %) | 50.0 % (25.0 % to 75.0 %) |\n" in both
    # Not every run has a reference and a divergence from it.
    assert "reference" not in both
    assert "loss" not in both
    with pytest.raises(ValueError, match="no report to summarise"):
        summarize_reports([])
