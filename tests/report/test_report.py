# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import math
import re
from dataclasses import replace

import pytest

from hf_deepclean import UnlearningReport, summarize_reports
from hf_deepclean.evaluation.membership import MembershipAttack
from hf_deepclean.evaluation.recovery import RelearningResult
from hf_deepclean.evaluation.results import ClassResult, SplitResult, TokenResult
from hf_deepclean.evaluation.stages import RequestResult, StageResult
from hf_deepclean.report.results import IntegrityResult, SelectionResult
from hf_deepclean.report.shortfalls import MAX_RETAIN_DROP
from hf_deepclean.report.tables import format_figure
from hf_deepclean.selection.search import ResetTrial, SelectionSearch
from hf_deepclean.selection.sweep import GammaTrial


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


def text_stage(num_verbatim, extraction_strength=0.25, perplexity=3.5):
    tokens = TokenResult(8, 90, perplexity, 0.75, num_verbatim, (0.1, 0.4), extraction_strength)
    split = SplitResult(9, 1.25, (1.0,) * 9, tokens=tokens)
    attacks = [MembershipAttack(auc, (0.5, 0.7), 0.02, 8, 200) for auc in (0.61, 0.62)]
    return StageResult({"forget": split, "retain": split}, attacks[0], min_k_membership=attacks[1])


def text_report(**changes):
    return report(
        stages={"reference": text_stage(0), "before": text_stage(8, 1.0, 1.01), "after_repair": text_stage(2)}
        | changes
    )


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


def search_for(target):
    before, trials = (
        ResetTrial(0, None, 1.0, 0.9),
        (ResetTrial(100, math.inf, 0.2, 0.8), ResetTrial(300, 1.5, 0.1, 0.3)),
    )
    return SelectionSearch(target, "accuracy", 0.5, 0.5, before, trials, 0, {"forget": 10, "retain": 64})


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


def stages_of(retain, forget=0.5, interval=(0.4, 0.6), auc=0.5, auc_interval=(0.4, 0.6)):
    """Before and after, with as much known of the retained data and then of the forget data."""
    before = stage(1.0)
    classes = {
        "forget": {"cat": ClassResult(10, forget)},
        "retain": {"dog": ClassResult(5, retain), "owl": ClassResult(5, retain)},
    }
    figures = {"forget": (forget, interval), "retain": (retain, None)}
    splits = {
        split: replace(before.splits[split], accuracy=value, accuracy_interval=bounds, per_class=classes[split])
        for split, (value, bounds) in figures.items()
    }
    after = StageResult(splits, MembershipAttack(auc, auc_interval, 0.02, 10, 200))
    of_before = {split: replace(before.splits[split], per_class=classes[split]) for split in splits}
    return {"before": replace(before, splits=of_before), "after_repair": after}


def test_nothing_falls_short_where_the_repair_brought_all_back_and_the_target_is_met():
    good = stages_of(1.0 - MAX_RETAIN_DROP / 2, forget=0.3, interval=(0.1, 0.5))
    for search in (None, search_for("unseen"), search_for("chance")):
        assert report(stages=good, search=search).shortfalls() == []


def test_what_was_not_brought_back_falls_short_whatever_the_rule():
    for search in (None, search_for("unseen")):
        (shortfall,) = report(stages=stages_of(0.9), search=search).shortfalls()
        assert "accuracy 100.0 % before, 90.0 % now" in shortfall and "num_train_epochs" in shortfall
    text = text_report()
    assert text.shortfalls() == []
    worse = text_stage(2)
    worse.splits["retain"] = replace(
        worse.splits["retain"], tokens=replace(worse.splits["retain"].tokens, accuracy=0.5)
    )
    (shortfall,) = text_report(after_repair=worse).shortfalls()
    assert "token accuracy 75.0 % before, 50.0 % now" in shortfall
    likelihood = {
        stage: StageResult({split: SplitResult(9, loss, (loss,) * 9) for split in ("forget", "retain")})
        for stage, loss in (("before", 0.1), ("after_repair", 0.2))
    }
    (shortfall,) = report(stages=likelihood).shortfalls()
    assert "1 / (1 + loss) 90.9 % before, 83.3 % now" in shortfall


def test_a_target_falls_short_only_beyond_doubt_and_only_where_it_was_one():
    known = stages_of(1.0, forget=0.6, interval=(0.4, 0.8))
    # Three classes: the interval is above a third.
    (shortfall,) = report(stages=known, search=search_for("chance")).shortfalls()
    assert "60.0 % of the forget examples are still recognised, where chance is 33.3 %" in shortfall
    assert report(stages=known, search=search_for("unseen")).shortfalls() == []
    member = stages_of(1.0, interval=(0.1, 0.6), auc=0.7, auc_interval=(0.55, 0.8))
    (shortfall,) = report(stages=member, search=search_for("unseen")).shortfalls()
    assert "a membership AUC of 0.700 (95 % interval from 0.550" in shortfall
    assert report(stages=member, search=search_for("chance")).shortfalls() == report(stages=member).shortfalls() == []


def test_a_class_that_occurs_in_both_data_sets_counts_once_towards_chance():
    both = stages_of(1.0, forget=0.6, interval=(0.4, 0.8))
    shared = {"dog": ClassResult(5, 0.6), "owl": ClassResult(5, 0.6)}
    for result in both.values():
        result.splits["forget"] = replace(result.splits["forget"], per_class=shared)
    # Of two classes: chance is 50 %, within the interval.
    assert report(stages=both, search=search_for("chance")).shortfalls() == []


def test_a_metric_of_the_callers_that_takes_the_name_of_a_figure_has_no_interval():
    own = replace(stage(1.0).splits["forget"], metrics={"accuracy": 0.25})
    result = StageResult({"forget": own})
    assert result.figures()["forget accuracy"] == 0.25
    assert "forget accuracy" not in result.intervals()


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


def test_figures_are_shown_as_shares_or_as_numbers():
    assert format_figure("forget verbatim", 0.5) == "50.0 %"
    assert format_figure("forget perplexity", 3.21049, signed=True) == "+3.210"
    assert format_figure("forget perplexity", 1.5e7) == "1.5e+07"
    assert format_figure("forget perplexity", math.inf) == "inf"


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


def relearning(**stages):
    return RelearningResult.of(
        (0, 1, 2), 1e-3, {name: [s.splits["forget"] for s in of] for name, of in stages.items()}
    )


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
        # Up by a half, as the reference, as long as there is one to compare with.
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


def test_what_is_recalled_beyond_the_reference_counts_in_the_direction_of_the_measure():
    def of_losses(*losses):
        return [StageResult({"forget": SplitResult(1, loss, (loss,) * 9)}) for loss in losses]

    result = relearning(after_repair=of_losses(3.0, 1.0, 2.0), reference=of_losses(3.0, 2.5, 1.0))
    assert (result.measure, result.excess()) == ("mean loss", 1.5)
    assert relearning(after_repair=of_losses(3.0, 1.0)).excess() is None
    assert relearning(after_repair=of_losses(math.inf, 1.0), reference=of_losses(3.0, 1.0)).excess() is None


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


def test_a_report_from_before_a_measurement_existed_is_read(tmp_path):
    original = report(relearning=relearning(after_repair=[stage(0.0), stage(0.5)]))
    record = original.to_dict()
    del record["further_relearning"], record["relearning"]["num_forget_examples"]
    assert UnlearningReport.from_dict(record) == original


def test_relearning_is_measured_by_what_the_head_allows():
    assert relearning(after_repair=[text_stage(1)]).measure == "token accuracy"
    alone = StageResult({"forget": SplitResult(1, 0.5, (0.5,) * 9)})
    result = relearning(after_repair=[alone])
    # Of a single example there is no interval.
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


def test_of_many_classes_the_table_shows_those_that_changed_most():
    def many(changed):
        classes = {f"class {n}": ClassResult(5, 0.2 if n == changed else 0.9) for n in range(40)}
        split = SplitResult(200, 0.3, (0.3,) * 9, 0.9, (0.8, 0.95), classes)
        return StageResult({"forget": split, "retain": split})

    text = str(report(stages={"before": many(None), "after_repair": many(33)}))
    assert "forget: class 33 (5)" in text
    assert "28 more in the JSON" in text


def test_a_summary_over_runs_shows_means_and_ranges_of_what_all_runs_have():
    first, second = report(), report(stages={"before": stage(0.9), "after_repair": stage(0.25)})
    assert "| forget accuracy | 100.0 % | 75.0 % | 70.0 % |" in summarize_reports([first])
    assert summarize_reports([first]).startswith("| | before | unlearned | reference |\n|---|---|---|---|\n")
    both = summarize_reports([first, second])
    assert "| forget accuracy | 95.0 % (90.0 % to 100.0 %) | 50.0 % (25.0 % to 75.0 %) |\n" in both
    # Not every run has a reference, nor a divergence to it.
    assert "reference" not in both
    assert "loss" not in both
    with pytest.raises(ValueError, match="no report to summarise"):
        summarize_reports([])
