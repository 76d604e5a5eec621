# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import math
from dataclasses import replace

import pytest

from hf_deepclean import UnlearningReport
from hf_deepclean.evaluation.results import SplitResult
from hf_deepclean.evaluation.stages import RequestResult, StageResult
from hf_deepclean.selection.sweep import GammaTrial
from tests.report.reports import relearning, report, stage, text_report, text_stage


def test_json_round_trip_keeps_every_value_and_type(tmp_path):
    original = report()
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original
    # The file is standard JSON, although a value is infinite.
    json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_optional_parts_may_be_missing(tmp_path):
    splits = {name: SplitResult(3, 0.5, (0.5,) * 9) for name in ("forget", "retain")}
    bare = {"before": StageResult(splits), "after_repair": StageResult(splits)}
    original = report(stages=bare)
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original
    assert "Membership: not measured" in str(original)
    assert "by class" not in str(original)


def test_the_report_of_a_language_model_makes_the_round_trip_with_an_infinite_perplexity_too(tmp_path):
    original = text_report(after_reset=text_stage(0, 0.0, math.inf))
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original


def test_a_file_written_before_there_were_token_figures_and_their_intervals_loads():
    record = report().to_dict()
    for stage_record in record["stages"].values():
        del stage_record["min_k_membership"]
        for split_record in stage_record["splits"].values():
            del split_record["tokens"], split_record["mean_loss_interval"]
        del stage_record["divergence_interval"], stage_record["membership"]["tpr_interval"]
    assert UnlearningReport.from_dict(record) == report()


def test_intervals_have_the_names_of_figures_and_survive_the_round_trip(tmp_path):
    interval = (0.125, 0.75)
    bare = report()
    assert bare.stages["before"].intervals() == {
        **{f"{split} accuracy": (0.9, 1.1) for split in ("forget", "retain")},
        "membership AUC": (0.5, 0.7),
    }
    attack = replace(bare.stages["before"].membership, tpr_interval=interval)
    tokens = replace(
        text_stage(2).splits["forget"].tokens,
        accuracy_interval=interval,
        perplexity_interval=(2.0, math.inf),
        extraction_strength_interval=interval,
    )
    splits = {
        "forget": replace(bare.stages["before"].splits["forget"], mean_loss_interval=interval),
        "eval_far": replace(text_stage(2).splits["forget"], tokens=tokens),
    }
    full = StageResult(splits, attack, 0.1, attack, divergence_interval=interval)
    assert full.figures().keys() - full.intervals().keys() == {"forget f1"}
    assert list(full.intervals()) == [name for name in full.figures() if name != "forget f1"]
    assert full.intervals()["eval far perplexity"] == (2.0, math.inf)
    original = report(stages={"before": full, "after_repair": stage(0.75)})
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original


def test_a_metric_of_the_callers_that_takes_the_name_of_a_figure_has_no_interval():
    own = replace(stage(1.0).splits["forget"], metrics={"accuracy": 0.25})
    result = StageResult({"forget": own})
    assert result.figures()["forget accuracy"] == 0.25
    assert "forget accuracy" not in result.intervals()


def test_a_failed_save_leaves_the_earlier_file(tmp_path):
    report().save(tmp_path / "report.json")
    with pytest.raises(TypeError):
        replace(report(), settings={"x": object()}).save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == report()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_of_another_version_is_refused():
    with pytest.raises(ValueError, match=r"unknown fields \['surprise'\]"):
        UnlearningReport.from_dict(report().to_dict() | {"surprise": 1})


def test_gaps_are_differences_to_the_reference():
    gaps = report().gaps_to_reference("after_repair")
    assert gaps["forget accuracy"] == pytest.approx(0.05)
    assert gaps["membership AUC"] == pytest.approx(0.02)
    assert gaps["retain f1"] == 0
    with pytest.raises(ValueError, match="no reference model"):
        report(stages={"before": stage(1.0)}).gaps_to_reference("before")


def test_what_is_recalled_beyond_the_reference_counts_in_the_direction_of_the_measure():
    def of_losses(*losses):
        return [StageResult({"forget": SplitResult(1, loss, (loss,) * 9)}) for loss in losses]

    result = relearning(after_repair=of_losses(3.0, 1.0, 2.0), reference=of_losses(3.0, 2.5, 1.0))
    assert (result.measure, result.excess()) == ("mean loss", 1.5)
    assert relearning(after_repair=of_losses(3.0, 1.0)).excess() is None
    assert relearning(after_repair=of_losses(math.inf, 1.0), reference=of_losses(3.0, 1.0)).excess() is None


def test_a_report_from_before_a_measurement_existed_is_read(tmp_path):
    original = report(relearning=relearning(after_repair=[stage(0.0), stage(0.5)]))
    record = original.to_dict()
    del record["further_relearning"], record["relearning"]["num_forget_examples"]
    assert UnlearningReport.from_dict(record) == original


def test_relearning_is_measured_by_what_the_head_allows():
    assert relearning(after_repair=[text_stage(1)]).measure == "token accuracy"
    alone = StageResult({"forget": SplitResult(1, 0.5, (0.5,) * 9)})
    result = relearning(after_repair=[alone])
    # A single example has no interval.
    assert (result.measure, result.curves, result.intervals) == ("mean loss", {"after_repair": (0.5,)}, {})


def test_the_report_on_a_request_has_its_rows_in_the_trials_too():
    result = replace(stage(1.0), requests={"a": RequestResult(stage(0.125).splits["forget"])})
    trials = GammaTrial(0.5, 250, result), GammaTrial(1e9, 0, None)
    stages = dict.fromkeys(("before", "after_repair"), result)
    of_all = relearning(after_repair=[stage(0.5)])
    together = report(stages=stages, gamma_trials=trials, relearning=of_all, further_relearning={"retain": of_all})
    of_request = together.of_request("a")
    assert of_request.relearning_by_data() == {}
    assert of_request.gamma_trials[0].result.figures()["forget accuracy"] == 0.125
    assert of_request.gamma_trials[1] == trials[1]
