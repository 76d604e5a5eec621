# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math
import re
from dataclasses import replace

from hf_deepclean import UnlearningReport
from hf_deepclean.evaluation.results import ClassResult, SplitResult
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.report.tables import format_figure
from hf_deepclean.selection.sweep import GammaTrial
from tests.report.reports import relearning, report, search_for, stage, text_report, text_stage


def test_a_report_of_a_selection_by_trials_makes_the_round_trip_and_shows_all_trials(tmp_path):
    original = report(search=search_for("unseen"))
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original
    text = str(original)
    rows = [re.split(" {2,}", line) for line in text.splitlines()]
    first = rows.index(["reset (trial, without a repair)", "forget accuracy", "retain accuracy"]) + 2
    assert rows[first : first + 3] == [
        ["nothing", "100.0 %", "90.0 %"],
        ["10 % (chosen)", "20.0 %", "80.0 %"],
        ["30 %", "10.0 %", "30.0 %"],
    ]
    assert "by 2 trials on 10 forget, 64 retain examples" in text and "not checked" not in text
    before, after = (replace(original.stages[stage], membership=None) for stage in ("before", "after_repair"))
    unchecked = str(report(search=search_for("unseen"), stages={"before": before, "after_repair": after}))
    assert "the target was 'unseen' (not checked: no unseen data were given)." in unchecked


def test_the_report_of_a_language_model_says_how_many_texts_are_still_completed():
    text = str(text_report())
    assert (
        "2 of 8 forgotten texts are still completed verbatim (before: 8; 95 % interval 10.0 % to 40.0 %); the "
        "reference completes 0." in text
    )
    rows = {line.split("  ")[0]: line.split()[2:] for line in text.splitlines() if line.startswith("forget ")}
    assert rows["forget perplexity"] == ["1.010", "3.500", "3.500"]
    assert rows["forget verbatim"] == ["100.0", "%", "25.0", "%", "0.0", "%"]
    assert rows["forget extraction strength"][1:] == ["100.0", "%", "25.0", "%", "25.0", "%"]
    assert "forget mean loss" not in text
    assert "By the least probable tokens (Min-K%) the AUC is 0.620" in text
    assert "by class" not in text
    masked = text_report(after_repair=text_stage(2, None))
    assert "2 of 8 forget examples still have every scored token right (before: 8;" in str(masked)


def test_the_report_names_the_figures_that_have_too_few_rows_for_an_interval():
    before = stage(1.0)
    assert before.too_few_rows() == ["forget mean loss", "retain mean loss", "membership TPR at 1 % FPR"]
    note = "Too few rows for a 95 % interval: forget mean loss, retain mean loss, membership TPR at 1 % FPR"
    assert note in str(report())
    full = {
        name: replace(split, mean_loss_interval=(0.2, 0.3), metrics={"f1": 0.5})
        for name, split in before.splits.items()
    }
    known = replace(before, splits=full, membership=replace(before.membership, tpr_interval=(0.0, 0.1)))
    # Metrics of the caller never have one.
    assert known.too_few_rows() == []
    assert "Too few rows" not in str(report(stages={"before": known, "after_repair": known}))


def test_figures_are_shown_as_shares_or_as_numbers():
    assert format_figure("forget verbatim", 0.5) == "50.0 %"
    assert format_figure("forget perplexity", 3.21049, signed=True) == "+3.210"
    assert format_figure("forget perplexity", 1.5e7) == "1.5e+07"
    assert format_figure("forget perplexity", math.inf) == "inf"


def test_the_table_shows_every_stage_figure_and_direction():
    text = str(report())
    header, *_ = text.splitlines()
    assert header.split("  ")[-1].strip() == "reference"
    assert all(word in header for word in ("before", "after repair", "reference"))
    row = next(line for line in text.splitlines() if line.startswith("forget accuracy"))
    assert row.split() == ["forget", "accuracy", "100.0", "%", "75.0", "%", "70.0", "%"]
    assert "+5.0 %" in text
    assert "0.5 means that forget and unseen data cannot be told apart" in text
    assert "0 of 900 weights and 0 of 12 buffer entries changed" in text
    assert "a.weight" in text
    assert "25.00 %" in text
    assert "Seed 7; torch 2." in text
    row = next(line for line in text.splitlines() if line.startswith("forget: dog (6)"))
    assert row.split()[3:] == ["50.0", "%"] * 3


def test_trials_of_other_thresholds_have_a_table_of_accuracies(tmp_path):
    trials = GammaTrial(0.5, 250, stage(0.25)), GammaTrial(20.0, 1, stage(0.875)), GammaTrial(1e9, 0, None)
    original = report(gamma_trials=trials)
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original
    head, _, *rows = next(part for part in str(original).split("\n\n") if "reset alone" in part).splitlines()
    assert head.split("  ")[-2:] == ["forget accuracy", "retain accuracy"]
    assert [row.split() for row in rows] == [
        ["0.5", "25.00", "%", *["25.0", "%"] * 2],
        ["20", "0.10", "%", *["87.5", "%"] * 2],
        ["1e+09", "0.00", "%"],
    ]
    assert "reset alone" not in str(report())


def test_trials_without_accuracies_show_what_there_is():
    def head(result):
        text = str(report(gamma_trials=(GammaTrial(1.0, 5, result),)))
        return next(line for line in text.splitlines() if "reset alone" in line)

    assert all(f"forget {figure}" in head(text_stage(2)) for figure in ("token accuracy", "verbatim"))
    assert "loss" not in head(text_stage(2)) + head(stage(0.5))
    assert "forget mean loss" in head(StageResult({"forget": SplitResult(3, 0.5, (0.5,) * 9)}))


def test_relearning_has_a_table_of_its_curves_and_survives_the_round_trip(tmp_path):
    result = relearning(
        after_repair=[stage(0.0), stage(0.5), stage(1.0)],
        # The training diverged after a step.
        reference=[stage(0.25), stage(0.75)],
    )
    assert (result.measure, result.curves) == ("accuracy", {"after_repair": (0, 0.5, 1), "reference": (0.25, 0.75)})
    assert result.intervals["reference"] == (stage(0.25).intervals()["forget accuracy"], (0.65, 0.85))
    original = report(relearning=result)
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original
    head, _, *rows = next(part for part in str(original).split("\n\n") if "after relearning" in part).splitlines()
    assert head.split("  ")[0] == "forget accuracy after relearning"
    assert [row.split() for row in rows] == [
        ["0", "steps", "0.0", "%", "25.0", "%"],
        ["1", "step", "50.0", "%", "75.0", "%"],
        ["2", "steps", "100.0", "%"],
        # Up by a half, like the reference up to its last step.
        ["recalled", "beyond", "the", "reference", "+0.0", "%"],
    ]
    assert "relearning" not in str(report())


def test_relearning_from_other_data_stands_beside_that_from_the_forget_data(tmp_path):
    alone = relearning(after_repair=[stage(0.0), stage(0.5), stage(0.25)], reference=[stage(0.25)] * 3)
    original = report(further_relearning={"retain": alone, "few_forget": replace(alone, num_forget_examples=10)})
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original
    assert original.relearning is None
    assert list(replace(original, relearning=alone).relearning_by_data()) == ["forget", "retain", "few_forget"]
    text = str(original)
    assert "forget accuracy after training on retained data  " in text
    assert "forget accuracy after training on retained and a few forget data  " in text
    assert text.count("recalled beyond the reference") == text.count("+50.0 %") == 2


def test_rounded_models_have_a_table_of_their_own(tmp_path):
    rounded = {"after_repair_4_bits": stage(0.5), "reference_4_bits": stage(0.625)}
    plain, original = report(), report(stages=report().stages | rounded)
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original
    parts, before = str(original).split("\n\n"), str(plain).split("\n\n")
    (table,) = (part for part in parts if part not in before)
    head, _, *rows = table.splitlines()
    assert re.split(r"  +", head) == [
        "weights rounded",
        *("after repair", "after repair, 4 bits", "reference", "reference, 4 bits"),
    ]
    assert re.split(r"  +", rows[0]) == ["forget accuracy", "75.0 %", "50.0 %", "70.0 %", "62.5 %"]


def test_of_many_classes_the_table_shows_those_that_changed_most():
    def many(changed):
        classes = {f"class {n}": ClassResult(5, 0.2 if n == changed else 0.9) for n in range(40)}
        split = SplitResult(200, 0.3, (0.3,) * 9, 0.9, (0.8, 0.95), classes)
        return StageResult({"forget": split, "retain": split})

    text = str(report(stages={"before": many(None), "after_repair": many(33)}))
    assert "forget: class 33 (5)" in text
    assert "28 more in the JSON" in text
