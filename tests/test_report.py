# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import math
from dataclasses import replace

import pytest

from hf_deepclean import UnlearningReport
from hf_deepclean.evaluation.examples import ClassResult, SplitResult
from hf_deepclean.evaluation.membership import MembershipAttack
from hf_deepclean.report import IntegrityResult, SelectionResult, StageResult


def stage(accuracy, auc=0.6, divergence=None):
    deciles = tuple(0.01 * step for step in range(1, 10))
    classes = {"cat": ClassResult(4, 1.0), "dog": ClassResult(6, 0.5)}
    split = SplitResult(10, 0.25, deciles, accuracy, (accuracy - 0.1, accuracy + 0.1), classes, {"f1": 0.5})
    return StageResult(
        {"forget": split, "retain": split}, MembershipAttack(auc, (0.5, 0.7), 0.02, 10, 200), divergence
    )


def report(**changes):
    values = {
        "model_class": "ViTForImageClassification",
        "settings": {"gamma": None, "reset_fraction": 0.1, "target_modules": ["classifier"]},
        "selection": SelectionResult("reset_fraction", math.inf, 1000, 100, 3, {"a": (100, 400), "b": (0, 600)}),
        "num_fisher_examples": {"forget": 10, "retain": 90},
        "stages": {"reference": stage(0.7, 0.5), "before": stage(1.0, 0.8), "after_repair": stage(0.75, 0.52, 0.1)},
        "integrity": IntegrityResult(99, 900, 12, "ab" * 32),
        "seconds": {"repair": 1.25},
        "versions": {"torch": "2"},
        "seed": 7,
        "fisher_fallback": {"a.weight": "no rule"},
    }
    return UnlearningReport(**(values | changes))


def test_json_round_trip_keeps_every_value_and_type(tmp_path):
    original = report()
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original
    # Standard JSON, although a value is infinite.
    json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_optional_parts_may_be_missing(tmp_path):
    splits = {name: SplitResult(3, 0.5, (0.5,) * 9) for name in ("forget", "retain")}
    bare = {"before": StageResult(splits), "after_repair": StageResult(splits)}
    original = report(stages=bare)
    original.save(tmp_path / "report.json")
    assert UnlearningReport.load(tmp_path / "report.json") == original
    assert "Membership: not measured" in str(original)


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


def test_of_many_classes_the_table_shows_those_that_changed_most():
    def many(changed):
        classes = {f"class {n}": ClassResult(5, 0.2 if n == changed else 0.9) for n in range(40)}
        split = SplitResult(200, 0.3, (0.3,) * 9, 0.9, (0.8, 0.95), classes)
        return StageResult({"forget": split, "retain": split})

    text = str(report(stages={"before": many(None), "after_repair": many(33)}))
    assert "forget: class 33 (5)" in text
    assert "28 more in the JSON" in text
