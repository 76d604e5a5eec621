# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Files that version 0.1.0 has written are still read: the report of an image classifier and the run state of a causal
language model. They come from real runs on tiny models, and are shortened to a few stages, data sets, classes and
modules.
"""

import json
from pathlib import Path

from hf_deepclean import PublicReport, UnlearningCard, UnlearningReport
from hf_deepclean.report.json_record import to_json_types
from hf_deepclean.state.progress import load_progress


WRITTEN = Path(__file__).parent / "written_by_0_1_0"


def record(name):
    return json.loads((WRITTEN / name).read_text())


def holds(written, before):
    """Whether a record has every field of an earlier one, with the same value. Later versions add fields."""
    if isinstance(before, dict) and isinstance(written, dict):
        return all(name in written and holds(written[name], value) for name, value in before.items())
    if isinstance(before, list) and isinstance(written, list):
        return len(written) == len(before) and all(map(holds, written, before))
    return written == before


def test_a_report_is_read_and_written_with_the_same_fields_and_values(tmp_path):
    report = UnlearningReport.load(WRITTEN / "report.json")
    assert holds(report.to_dict(), record("report.json"))
    report.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == report
    # All optional parts are there, so every kind of record was read.
    assert all((report.kept_fisher, report.search, report.relearning, report.further_relearning, report.gamma_trials))
    assert report.selection.plane is not None
    assert report.stages.keys() == {"before", "after_repair", "reference", "after_repair_4_bits"}
    assert report.stages["before"].requests["a"].split.num_examples == 3


def test_a_report_is_shown_and_published_as_a_new_one():
    report = UnlearningReport.load(WRITTEN / "report.json")
    assert "forget accuracy" in str(report) and "after repair, 4 bits" in str(report)
    public = PublicReport.of(report, "size")
    assert PublicReport.from_dict(public.to_dict()) == public
    assert public.measure("forget", "membership AUC").num_examples == {"forget": 5, "unseen": 40}
    assert public.relearning_by_data().keys() == {"forget", "few_forget"}
    assert "| forget accuracy | 5 |" in str(UnlearningCard.from_report(public))


def test_a_run_state_is_read_and_written_with_the_same_fields_and_values():
    progress = load_progress(WRITTEN / "progress.json")
    assert holds(to_json_types(progress), record("progress.json"))
    assert progress.stages["after_repair"].splits["forget"].tokens is not None
    assert progress.stages["after_repair"].min_k_membership is not None
    assert progress.plane is not None and progress.gamma_trials and progress.result_files
    assert progress.relearning.keys() == {"forget", "retain"}
