# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest

from hf_deepclean import PublicReport, UnlearningCard
from hf_deepclean.evaluation.results import SplitResult
from hf_deepclean.evaluation.samples import sample_size
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.publishing.public_records import PublicIntegrity, PublicMeasure, PublicRelearning
from hf_deepclean.publishing.redaction import FORGET_DISCLOSURES, check_disclosure
from hf_deepclean.report.results import IntegrityResult, SelectionResult
from hf_deepclean.selection.sweep import GammaTrial
from tests.publishing.reports import plane, published, relearning, report, split, stage, text_split, with_sample


@pytest.mark.parametrize("disclosure", FORGET_DISCLOSURES)
@pytest.mark.parametrize("make", [split, text_split])
def test_the_public_form_makes_the_round_trip_as_json(tmp_path, disclosure, make):
    public = published(make=make, disclosure=disclosure)
    public.save(tmp_path / "report.json")
    assert PublicReport.load(tmp_path / "report.json") == public


@pytest.mark.parametrize("disclosure", FORGET_DISCLOSURES)
def test_of_what_a_report_holds_only_the_listed_fields_get_out(disclosure):
    text = json.dumps(published(disclosure=disclosure).to_dict())
    for canary in ("Schneewittchen", "/home"):
        assert canary not in text
    # The names of metrics are the caller's. The search for leaks covers them.
    assert "eval_Zweifelsfrei" not in text
    assert '"eval 1"' in text and '"eval 2"' in text
    if disclosure == "withheld":
        assert "31337" not in text
        assert "adaptive" not in text


@pytest.mark.parametrize("make", [split, text_split])
@pytest.mark.parametrize("sizes", [((100, 1900), (450, 1550)), ((50, 950), (500, 500)), ((64, 35), (50, 49))])
def test_withheld_runs_that_differ_in_their_sizes_alone_look_the_same(make, sizes):
    """
    Runs with the same shares and spreads differ only in their numbers of examples, of one training set whose size is
    known. These must not show, neither in the record nor on the card. Evaluation data do not depend on what is
    forgotten.
    """
    first, second = (withheld_run(*size, make=make) for size in sizes)
    assert first.to_dict() == second.to_dict()
    assert str(UnlearningCard.from_report(first)) == str(UnlearningCard.from_report(second))


def withheld_run(num_forget, num_retain, make=split, **changes):
    stages = {}
    for name in ("before", "after_repair", "reference"):
        made = stage(num_forget, 200, make)
        drawn = made.sample.splits | {"retain": make(sample_size("retain", num_retain))}
        sample = replace(made.sample, splits=drawn)
        stages[name] = replace(made, splits=made.splits | {"retain": make(num_retain)}, sample=sample)
    return PublicReport.of(report(num_forget, num_retain, stages=stages, **changes), "withheld")


def test_a_withheld_report_holds_nothing_of_the_selected_weights():
    """Two selections that the words of the forgotten rows decide, and two durations, look the same."""
    few = SelectionResult("gamma", 2.0, 1000, 120, 3, {"embeddings": (20, 600), "head": (100, 400)}, plane())
    zeros = replace(plane(), counts=((200,), (400,)), forget_zero=(0, 400))
    many = SelectionResult("auto", 0.3, 1000, 480, 0, {"embeddings": (400, 600), "head": (80, 400)}, zeros)
    first, second = (
        withheld_run(
            *size,
            selection=selection,
            integrity=IntegrityResult(selection.num_selected - 1, 1000 - selection.num_selected, 12, "ab" * 32),
            seconds={"forget Fisher": size[0] / 10},
            gamma_trials=(GammaTrial(1.0, selection.num_selected, stage(size[0])),),
        )
        for size, selection in (((60, 1940), few), ((430, 1570), many))
    )
    assert first == second
    assert first.integrity.num_frozen_weights is first.integrity.num_selected_changed is None
    hidden = ("num_selected", "share", "gamma", "plane", "seconds", "seed", "rule", "trial_measure")
    assert [getattr(first, name) for name in hidden] == [None] * len(hidden)
    assert first.modules == first.trials == ()
    text = str(UnlearningCard.from_report(first))
    assert "num_reset" not in text
    for line in (
        "Some of the 1,000 weights in scope were reset",
        "Outside the selection 0 weights and 0 of 12 buffer entries changed",
        "results at other thresholds: **withheld**",
        "Wall-clock time of the run: withheld.",
    ):
        assert line in text, line


def test_of_withheld_repairs_only_the_largest_number_of_rounds_is_told():
    settings = {"num_train_epochs": 2, "max_repair_rounds": 3}
    once, thrice = (
        withheld_run(400, 1600, settings=settings, retained_by_round=rounds) for rounds in ((0.9,), (0.5, 0.8, 0.9))
    )
    assert once == thrice
    assert "with all other weights frozen: up to 3 times 2 epochs" in str(UnlearningCard.from_report(thrice))
    told = published(disclosure="size", settings=settings, retained_by_round=(0.5, 0.9))
    assert "frozen: 2 times 2 epochs" in str(UnlearningCard.from_report(told))
    fixed = withheld_run(400, 1600, settings=settings | {"max_steps": 7}, retained_by_round=(0.9,))
    assert "up to" not in str(UnlearningCard.from_report(fixed)).split("frozen: ")[1][:20]


def test_which_class_was_forgotten_does_not_show():
    """A class that is forgotten resets its row of the head, and has figures of its own."""
    first, second = (
        withheld_run(
            200,
            1800,
            make=lambda number, name=name: replace(split(number, name=name), metrics={}),
            selection=SelectionResult("gamma", 2.0, 100, 8, 3, {"head.0": chosen[0], "head.1": chosen[1]}),
        )
        for name, chosen in (("cat", ((8, 50), (0, 50))), ("dog", ((0, 50), (8, 50))))
    )
    assert first == second


def test_a_withheld_report_has_these_fields_and_no_others():
    """A new field must be checked for what it tells of the forgotten rows before it comes into this list."""
    assert {item.name for item in fields(PublicReport)} == {
        *("disclosure", "description", "model_class", "settings", "rule", "gamma", "num_in_scope", "num_selected"),
        *("share", "modules", "measures", "withheld", "loss_quantiles", "loss_unit", "integrity", "versions"),
        *("seconds", "seed", "plane", "trial_measure", "trials", "relearning", "base_model", "base_model_revision"),
        *("commitment", "further_relearning", "frozen_share", "drawn"),
    }
    assert {item.name for item in fields(PublicIntegrity)} == {
        *("num_selected_changed", "num_frozen_weights", "num_buffer_entries", "frozen_checksum", "num_base_weights"),
    }
    assert {item.name for item in fields(PublicMeasure)} == {"split", "name", "unit", "num_examples", "figures"}


@pytest.mark.parametrize("num_forget", [50, 53, 197, 199, 450, 999])
def test_no_withheld_share_has_a_fraction_that_tells_its_number_of_rows(num_forget):
    for successes in range(0, num_forget + 1, num_forget // 8):
        public = withheld_run(
            num_forget, 2000 - num_forget, lambda number, part=successes: split(number, part / num_forget)
        )
        for name in ("forget", "retain"):
            figure = public.measure(name, "accuracy").figures["before"]
            for value in (figure.value, *figure.interval):
                assert value == round(50 * value) / 50
            # Runs of another size publish the same interval beside the same value.
            same = withheld_run(64, 1936, lambda number, share=figure.value: split(number, share))
            assert same.measure(name, "accuracy").figures["before"] == figure
            assert figure.interval[0] <= successes / num_forget <= figure.interval[1]


def test_a_report_that_an_earlier_version_published_is_brought_to_what_is_published_now(tmp_path):
    """Earlier versions published the plane, modules, thresholds, counts and seconds of withheld runs."""
    earlier = replace(
        published(disclosure="size"),
        disclosure="withheld",
        seconds=20.0,
        relearning=PublicRelearning("accuracy", 1e-3, (0, 1), {"after_repair": (0.13, 0.8)}, 0.29),
    )
    earlier.save(tmp_path / "report.json")
    now = PublicReport.load(tmp_path / "report.json").as_withheld()
    assert now.plane is now.gamma is now.seconds is None and now.modules == now.trials == ()
    assert {measure.split for measure in now.measures} == {"eval 1", "eval 2", "unseen"}
    assert now.withheld == ("forget", "retain") and now.relearning is None and now.loss_quantiles == {}
    assert now.as_withheld() == now
    assert str(UnlearningCard.from_report(earlier)) == str(UnlearningCard.from_report(now))
    new = published()
    assert new.as_withheld() == new


def test_withheld_counts_are_lower_bounds_and_intervals_contain_the_true_ones():
    original = report(400, 2900)
    public = PublicReport.of(original, "withheld")
    assert public.measure("forget", "accuracy").num_examples == {"forget": 50}
    assert public.measure("retain", "accuracy").num_examples == {"retain": 200}
    assert public.measure("forget", "membership AUC").num_examples == {"forget": 50, "unseen": 200}
    true = original.stages["before"].intervals()
    seen = 0
    for measure in public.measures:
        low, high = measure.figures["before"].interval or (0, 1)
        name = measure.name if "membership" in measure.name else f"{measure.split} {measure.name}"
        if name in true:
            seen += 1
            # Up to the rounding.
            assert low <= true[name][0] + 0.005 and high >= true[name][1] - 0.005, measure
    assert seen >= 5


def test_the_interval_of_an_area_under_the_curve_covers_it_for_any_distributions():
    """The bound on the variance holds for scores that are as far from a normal distribution as possible."""
    generator, covered, num_draws = np.random.default_rng(0), 0, 400
    from hf_deepclean.evaluation.figures.membership import membership_attack

    for _ in range(num_draws):
        # Half of the forget scores are above all others: the area is 0.75, with the largest possible variance.
        forget = np.where(generator.random(50) < 0.5, 2.0, 0.5) + 1e-9 * generator.random(50)
        unseen = generator.random(200)
        found = membership_attack(forget, unseen)
        truth = 0.75
        splits = {name: SplitResult(size, 0.1, (0.1,) * 9) for name, size in (("forget", 50), ("unseen", 200))}
        result = with_sample(StageResult(splits | {"retain": splits["unseen"]}, found))
        public = PublicReport.of(report(stages={"before": result, "after_repair": result}), "withheld")
        low, high = public.measure("forget", "membership AUC").figures["before"].interval
        covered += low <= truth <= high
    assert covered / num_draws >= 0.95


@pytest.mark.parametrize("make", [split, text_split])
def test_intervals_that_the_published_numbers_are_too_few_for_are_left_out_and_the_record_loads(make):
    public = published(400, 2000, make=make)
    name = "mean loss" if make is split else "perplexity"
    assert public.measure("forget", name).figures["before"].interval is None
    assert public.measure("retain", name).figures["before"].interval is not None
    assert public.measure("forget", "membership TPR at 1 % FPR").figures["before"].interval is None
    assert PublicReport.from_dict(json.loads(json.dumps(public.to_dict()))) == public
    told = published(400, 2000, make=make, disclosure="size")
    assert told.measure("forget", name).figures["before"].interval is not None


def test_figures_of_few_forgotten_examples_are_left_out_until_the_size_is_disclosed():
    few = published(49)
    assert few.withheld == ("forget",)
    assert not [measure for measure in few.measures if measure.split == "forget"]
    assert all("forget" not in splits for splits in few.loss_quantiles.values())
    assert few.relearning is None
    assert few.measure("retain", "accuracy") is not None
    told = published(49, disclosure="size")
    assert told.measure("forget", "accuracy").num_examples == {"forget": 49}
    assert told.withheld == ()


def test_relearning_is_rounded_and_told_of_by_the_rules_of_other_figures():
    further = {"retain": relearning(), "few_forget": relearning(10)}
    few = published(49, relearning=relearning(), further_relearning=further)
    assert few.relearning_by_data() == {}
    public = published(relearning=relearning(), further_relearning=further)
    assert list(public.relearning_by_data()) == ["forget", "retain", "few_forget"]
    for found in public.relearning_by_data().values():
        assert found.curves == {"after_repair": (0.12, 0.8), "reference": (0.12, 0.5)}
        assert found.excess == 0.28
    told = published(disclosure="size", further_relearning=further).further_relearning["few_forget"]
    assert (told.curves["after_repair"], told.excess) == ((0.123, 0.8), 0.288)
    assert PublicReport.from_dict(json.loads(json.dumps(public.to_dict()))) == public


def test_no_more_forgotten_examples_are_told_to_have_been_trained_on_than_the_others_know_of():
    for number, shown in ((10, 10), (50, 50), (51, None)):
        further = {"few_forget": relearning(number)}
        assert published(further_relearning=further).further_relearning["few_forget"].num_forget_examples == shown
        told = published(further_relearning=further, disclosure="size").further_relearning["few_forget"]
        assert told.num_forget_examples == number


def test_figures_with_rounded_weights_are_told_as_those_without():
    for sizes in ((49, 2000), (400, 1800)):
        stages = report(*sizes).stages
        public = published(*sizes, stages=stages | {"after_repair_4_bits": stages["after_repair"]})
        assert [measure for measure in public.measures if measure.split == "retain"]
        for measure in public.measures:
            assert measure.figures["after_repair_4_bits"] == measure.figures["after_repair"]
        assert public.withheld == published(*sizes).withheld
        plain = published(*sizes)
        assert [measure.name for measure in public.measures] == [measure.name for measure in plain.measures]


def test_with_the_size_the_figures_are_exact():
    original = report(401, 1999)
    public = PublicReport.of(original, "size")
    measure = public.measure("forget", "accuracy")
    assert measure.num_examples == {"forget": 401}
    low, high = original.stages["before"].splits["forget"].accuracy_interval
    assert measure.figures["before"].interval == (round(low, 3), round(high, 3))
    assert public.rule == "adaptive"
    assert public.seed == 31337


def test_no_quantile_separates_fewer_than_ten_examples():
    for number, levels in ((19, 0), (20, 1), (50, 4), (99, 4), (100, 9)):
        quantiles = published(number, number, disclosure="size").loss_quantiles
        assert len(quantiles.get("before", {}).get("forget", {})) == levels, number
    assert list(published(400, 400).loss_quantiles["before"]["forget"]) == ["20 %", "40 %", "60 %", "80 %"]
    # The same levels for both, so that they can be compared.
    for sizes in ((400, 20), (20, 400), (4000, 4000)):
        for quantiles in published(*sizes, disclosure="size").loss_quantiles.values():
            assert quantiles["forget"].keys() == quantiles["unseen"].keys()


def test_modules_are_added_up_by_layer_and_kind():
    per_module = {
        "model.layers.0.mlp.experts.0.up": (1, 10),
        "model.layers.0.mlp.experts.1.up": (3, 10),
        "model.layers.1.mlp.experts.0.up": (0, 10),
        "lm_head": (5, 50),
    }
    selection = SelectionResult("gamma", 1.0, 80, 9, 0, per_module)
    rows = PublicReport.of(report(selection=selection), "size").modules
    assert [(row.layer, row.kind, row.num_selected, row.num_in_scope) for row in rows] == [
        ("0", "mlp.experts.*.up", 4, 20),
        ("1", "mlp.experts.*.up", 0, 10),
        ("", "lm_head", 5, 50),
    ]
    assert sum(row.num_in_scope for row in rows) == selection.num_in_scope


def test_infinite_perplexities_and_thresholds_are_published_without_a_number():
    broken = stage(400, make=lambda number: text_split(number, math.inf))
    public = PublicReport.of(
        report(
            make=text_split,
            stages={"before": stage(400, make=text_split), "after_repair": broken},
            selection=SelectionResult("gamma", math.inf, 1000, 3, 3, {"a": (3, 1000)}),
        ),
        "withheld",
    )
    assert public.measure("forget", "perplexity").figures["after_repair"].value == math.inf
    assert public.gamma is None
    assert PublicReport.from_dict(json.loads(json.dumps(public.to_dict()))) == public


def test_the_run_says_what_is_disclosed_unless_it_is_said_anew():
    asked = replace(report(), settings={"forget_disclosure": "description", "forget_description": "the digit 3"})
    assert PublicReport.of(asked).description == "the digit 3"
    assert PublicReport.of(asked, "withheld").description is None
    assert PublicReport.of(report()).disclosure == "withheld"


@pytest.mark.parametrize(
    ("disclosure", "description"), [("all", None), ("description", None), ("description", ""), ("withheld", "cats")]
)
def test_a_disclosure_that_does_not_fit_is_refused(disclosure, description):
    with pytest.raises(ValueError, match="forget_disclosure"):
        check_disclosure(disclosure, description)
