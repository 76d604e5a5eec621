# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from hf_deepclean import PublicReport
from hf_deepclean.evaluation.results import SplitResult
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.publishing.redaction import FORGET_DISCLOSURES, check_disclosure
from hf_deepclean.report.results import SelectionResult
from tests.publishing.reports import published, relearning, report, split, stage, text_split


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
@pytest.mark.parametrize("sizes", [((100, 1000), (400, 1800)), ((50, 200), (40_000, 499)), ((64, 64), (6400, 98))])
def test_withheld_runs_that_differ_in_their_sizes_alone_look_the_same(make, sizes):
    """Runs with the same shares and spreads differ only in their numbers of examples, which must not show."""
    first, second = (published(*size, make=make).to_dict() for size in sizes)
    assert first == second


def test_withheld_counts_are_lower_bounds_and_intervals_contain_the_true_ones():
    original = report(400, 2900)
    public = PublicReport.of(original, "withheld")
    assert public.measure("forget", "accuracy").num_examples == {"forget": 50}
    assert public.measure("retain", "accuracy").num_examples == {"retain": 2000}
    assert public.measure("forget", "membership AUC").num_examples == {"forget": 50, "unseen": 2000}
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
        result = StageResult(splits | {"retain": splits["unseen"]}, found)
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
        assert found.curves == {"after_repair": (0.12, 0.8), "reference": (0.11, 0.5)}
        assert found.excess == 0.29
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
    rows = PublicReport.of(report(selection=selection), "withheld").modules
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
